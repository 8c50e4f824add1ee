//! Whoever has a copy of everything that the relay has written reads the addresses whose key is still there, and no
//! others.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::report::Report;
use crate::{install, shell};

/// What the driver says when addresses have outlived their days.
const FOUND_OUT: &str = "addresses that have outlived their days";

/// All of it.
pub(crate) fn run(report: &Report) -> Result<(), String> {
    let passed = [
        report.test("adversary: finds an address in every form", finds_every_form),
        report.test("adversary: ninety days, and no address is read that is older than its key", || {
            let ran = ninety_days(&[])?;
            println!("      {}", ran.text.trim());
            ran.ok("ninety_days").map(drop)
        }),
        report.test("adversary: keys that are not destroyed are found out", || found_out("--idle-destroyer")),
        report.test("adversary: log_plan_switched_off_is_seen", || found_out("--no-plans")),
    ];
    if passed.iter().all(|passed| *passed) { Ok(()) } else { Err("see above".to_owned()) }
}

/// What the adversary answers to these commands, who knows the formats and looks for these addresses, each with its
/// port. Its files lie in `folder`.
pub(crate) fn answers(folder: &Path, addresses: &str, commands: &str) -> Result<Vec<Value>, String> {
    let (of_addresses, of_commands) = (folder.join("adversary.addresses"), folder.join("adversary.commands"));
    for (file, text) in [(&of_addresses, addresses), (&of_commands, commands)] {
        std::fs::write(file, text).map_err(|why| at(file, &why))?;
    }
    let mut adversary = Command::new(install::python_program());
    adversary.arg("-B").arg(shell::root().join("tests/privacy/adversary.py"));
    adversary.arg("--formats").arg(shell::root().join("docs/records.md")).arg("--addresses").arg(&of_addresses);
    let input = File::open(&of_commands).map_err(|why| at(&of_commands, &why))?;
    let text = shell::capture_with_input(&mut adversary, Stdio::from(input))?.ok("adversary.py")?;
    let answers: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    match answers.len() == commands.lines().count() {
        true => Ok(answers),
        false => Err(format!("it says: {text}")),
    }
}

fn finds_every_form() -> Result<(), String> {
    let mut command = Command::new(install::python_program());
    command.arg("-B").arg(shell::root().join("tests/privacy/check_adversary.py"));
    shell::capture(&mut command)?.ok("check_adversary.py").map(drop)
}

fn found_out(option: &str) -> Result<(), String> {
    let ran = ninety_days(&[option])?;
    let is_found_out = ran.code != Some(0) && ran.text.contains(FOUND_OUT);
    if is_found_out { Ok(()) } else { Err(format!("not found out: {}", ran.text)) }
}

fn ninety_days(options: &[&str]) -> Result<shell::Ran, String> {
    let mut build = shell::cargo();
    build.args(["build", "--release", "--locked", "--quiet", "-p", "sluice-record", "--example", "ninety_days"]);
    shell::show(&mut build)?;
    let folder = Folder::new()?;
    let mut command = Command::new(shell::target().join("release/examples/ninety_days"));
    shell::capture(command.arg(install::python_program()).arg(&folder.0).args(options))
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, String> {
        let path = shell::target().join(format!("adversary-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|why| at(&path, &why))?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn at(path: &Path, why: &std::io::Error) -> String {
    format!("{}: {why}", path.display())
}
