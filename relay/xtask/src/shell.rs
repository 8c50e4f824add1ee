//! Other programs: run with a limit on their time, and read what they say.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a program did.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    /// Its exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    /// Its output and its errors, as they came.
    pub(crate) text: String,
}

/// Exit code of timeout(1) when the time ran out.
pub(crate) const TIMED_OUT: i32 = 124;

impl Ran {
    /// Its text when it ended well; otherwise its code and its last lines.
    pub(crate) fn ok(self, what: &str) -> Result<String, String> {
        match self.code {
            Some(0) => Ok(self.text),
            _ => Err(self.complaint(what)),
        }
    }

    /// How it ended, with its last lines.
    pub(crate) fn complaint(&self, what: &str) -> String {
        let how = match self.code {
            Some(TIMED_OUT) => "did not end in time".to_owned(),
            Some(code) => format!("exited with {code}"),
            None => "was ended by a signal".to_owned(),
        };
        format!("{what} {how}:\n{}", tail(&self.text, 15))
    }
}

/// The last lines of a text, indented.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    let last = &all[all.len().saturating_sub(lines)..];
    last.iter().map(|line| format!("      {line}")).collect::<Vec<_>>().join("\n")
}

/// A command that timeout(1) ends after `limit`.
pub(crate) fn limited(limit: Duration, program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.arg("--kill-after=5").arg(limit.as_secs().to_string()).arg(program);
    command
}

/// Runs a command without input; both of its outputs come as one text.
pub(crate) fn capture(command: &mut Command) -> Result<Ran, String> {
    capture_with_input(command, Stdio::null())
}

/// The same with an input.
pub(crate) fn capture_with_input(command: &mut Command, input: Stdio) -> Result<Ran, String> {
    let name = command_name(command);
    let (mut reader, writer) = std::io::pipe().map_err(|e| e.to_string())?;
    let errors = writer.try_clone().map_err(|e| e.to_string())?;
    let mut child = match command.stdin(input).stdout(writer).stderr(errors).spawn() {
        Ok(child) => child,
        Err(e) => return Err(format!("{name}: {e}")),
    };
    // The command keeps the writing end until it is told otherwise, and the text would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    let status = child.wait().map_err(|e| e.to_string())?;
    Ok(Ran { code: status.code(), text: String::from_utf8_lossy(&bytes).into_owned() })
}

/// Runs a command whose output goes straight to the terminal.
pub(crate) fn show(command: &mut Command) -> Result<(), String> {
    let name = command_name(command);
    let status = command.stdin(Stdio::null()).status().map_err(|e| format!("{name}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name} ended with {status}")) }
}

/// Whether a program is on the path.
pub(crate) fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]).any(|folder| folder.join(name).is_file())
}

/// Whether this process is root's.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

/// This program; when it was built anew meanwhile, the new one.
pub(crate) fn own_program() -> Result<PathBuf, String> {
    let path = std::env::current_exe().map_err(|e| e.to_string())?;
    let name = path.to_string_lossy();
    Ok(name.strip_suffix(" (deleted)").map_or(path.clone(), PathBuf::from))
}

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map_or(here.clone(), PathBuf::from)
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The `cargo` that runs this.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

fn command_name(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
