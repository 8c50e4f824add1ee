//! `cargo xtask as-unit CMD...`: a command as systemd/sluice.service would run it, where systemd does not run.
//!
//! User, capabilities, limits and everything that systemd does by seccomp are the unit's. What it does by
//! mounts and control groups is not done.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::shell;

/// Options of `cargo xtask as-unit`.
#[derive(clap::Args, Debug)]
pub(crate) struct AsUnitArgs {
    /// The filters to put on, by those who have nothing to drop any more
    #[arg(long, hide = true)]
    filters: Option<String>,
    /// The command
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Becomes the command; returns only what is in the way.
pub(crate) fn run(args: &AsUnitArgs) -> Result<(), String> {
    let mut command = match &args.filters {
        Some(filters) => {
            put_on(filters)?;
            let mut command = Command::new(&args.command[0]);
            command.args(&args.command[1..]);
            command
        }
        None => confined(&shell::own_program()?, &args.command)?,
    };
    let error = command.exec();
    Err(format!("{}: {error}", command.get_program().to_string_lossy()))
}

/// The unit's file.
pub(crate) fn unit_file() -> PathBuf {
    shell::root().join("systemd/sluice.service")
}

/// Copies of programs and files where every user may read them; removed with it.
#[derive(Debug)]
pub(crate) struct OpenToAll(PathBuf);

impl OpenToAll {
    /// An empty folder in the temporary one.
    pub(crate) fn new() -> Result<Self, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("sluice-as-unit-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let open = OpenToAll(folder);
        std::fs::set_permissions(&open.0, Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
        Ok(open)
    }

    /// A copy of a file, with its permissions opened.
    pub(crate) fn copy(&self, file: &Path) -> Result<PathBuf, String> {
        let copy = self.0.join(file.file_name().unwrap_or_default());
        let error = |e: std::io::Error| format!("{} to {}: {e}", file.display(), copy.display());
        std::fs::copy(file, &copy).map_err(error)?;
        std::fs::set_permissions(&copy, Permissions::from_mode(0o755)).map_err(error)?;
        Ok(copy)
    }
}

impl Drop for OpenToAll {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whoever owns nothing: the unit's own user need not exist here.
const NOBODY: u32 = 65534;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const EAFNOSUPPORT: u32 = 97;

/// The names and numbers of address families that a unit may list, the same on every Linux.
const FAMILIES: &[(&str, u32)] = &[("AF_UNIX", 1), ("AF_INET", 2), ("AF_INET6", 10), ("AF_NETLINK", 16)];

/// `CLONE_NEW*`: time, mount, cgroup, UTS, IPC, user, process and network namespaces.
const NAMESPACES: &[u32] =
    &[0x0000_0080, 0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];

/// The command that sheds everything, and has `own` (this program, where everybody may run it) put on the filters.
pub(crate) fn confined(own: &Path, words: &[OsString]) -> Result<Command, String> {
    let file = unit_file();
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let unit = Unit::parse(&text);
    let mut command = Command::new("prlimit");
    for (option, key) in [("nofile", "LimitNOFILE"), ("memlock", "LimitMEMLOCK"), ("core", "LimitCORE")] {
        command.args(limit(option, key, bytes(unit.one(key)?)?)?);
    }
    command.arg("setpriv");
    if shell::is_root() && is_mapped(NOBODY)? {
        command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()]);
    }
    for key in ["CapabilityBoundingSet", "AmbientCapabilities"] {
        if !unit.one(key)?.is_empty() {
            return Err(format!("{key} of the unit is not empty, and only that is done here"));
        }
    }
    unit.expect("NoNewPrivileges", "yes")?;
    command.args(["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs"]);
    command.arg(own).args(["as-unit", "--filters", &filters(&unit)?.to_string(), "--"]).args(words);
    Ok(command)
}

/// The unit's keys with their values, in order.
#[derive(Debug)]
struct Unit(BTreeMap<String, Vec<String>>);

impl Unit {
    fn parse(text: &str) -> Self {
        let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let lines = text.lines().filter(|line| !line.starts_with(['#', ';', '[']));
        for (key, value) in lines.filter_map(|line| line.split_once('=')) {
            keys.entry(key.to_owned()).or_default().push(value.to_owned());
        }
        Unit(keys)
    }

    fn all(&self, key: &str) -> Result<&[String], String> {
        self.0.get(key).map(Vec::as_slice).ok_or_else(|| format!("the unit says no {key}"))
    }

    fn one(&self, key: &str) -> Result<&str, String> {
        match self.all(key)? {
            [one] => Ok(one),
            _ => Err(format!("the unit says {key} more than once")),
        }
    }

    fn expect(&self, key: &str, value: &str) -> Result<(), String> {
        if self.one(key)? == value { Ok(()) } else { Err(format!("{key} of the unit is not {value}")) }
    }
}

/// The option of prlimit(1) for one of the unit's limits. Where this process may not have as much its own stays,
/// which is said.
fn limit(option: &str, key: &str, wanted: u64) -> Result<Option<String>, String> {
    let exact = format!("--{option}={wanted}");
    if shell::capture(Command::new("prlimit").args([&exact, "true"]))?.code == Some(0) {
        return Ok(Some(exact));
    }
    eprintln!("as-unit: {key}={wanted} of the unit is more than is allowed here: the limit of this process stays");
    Ok(None)
}

/// A number with the suffixes of systemd.
fn bytes(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(digits) if text.ends_with('K') => (digits, 1 << 10),
        Some(digits) if text.ends_with('M') => (digits, 1 << 20),
        Some(digits) => (digits, 1 << 30),
        None => (text, 1),
    };
    digits.parse::<u64>().map(|n| n * factor).map_err(|_| format!("{text} is no limit"))
}

/// Whether a user of this number can be become: in a user namespace there may be only one.
fn is_mapped(user: u32) -> Result<bool, String> {
    let map = std::fs::read_to_string("/proc/self/uid_map").map_err(|e| format!("uid_map: {e}"))?;
    Ok(map.lines().any(|line| {
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
        let (first, _, count) = (numbers.next().unwrap_or(0), numbers.next(), numbers.next().unwrap_or(0));
        (first..first + count).contains(&u64::from(user))
    }))
}

/// What systemd would make of the unit's keys, in the order in which it has to be put on.
fn filters(unit: &Unit) -> Result<Value, String> {
    unit.expect("MemoryDenyWriteExecute", "yes")?;
    unit.expect("RestrictNamespaces", "yes")?;
    unit.expect("SystemCallErrorNumber", "EPERM")?;
    let names: Vec<String> = call_names(unit.all("SystemCallFilter")?)?.into_iter().collect();
    let known: Vec<Value> = names.iter().map(|name| json!({"syscall": name})).filter(is_of_this_machine).collect();
    Ok(json!([
        denying(EPERM, &writable_and_executable()),
        denying(EAFNOSUPPORT, &[other_families(unit.one("RestrictAddressFamilies")?)?]),
        denying(EPERM, &namespaces()),
        // Its flags are in memory, where a filter cannot look; the C library falls back to clone.
        denying(ENOSYS, &[json!({"syscall": "clone3"})]),
        {"mismatch_action": {"errno": EPERM}, "match_action": "allow", "filter": known},
    ]))
}

fn denying(errno: u32, rules: &[Value]) -> Value {
    json!({"mismatch_action": "allow", "match_action": {"errno": errno}, "filter": rules})
}

/// MemoryDenyWriteExecute.
fn writable_and_executable() -> Vec<Value> {
    const EXEC: u32 = 4;
    const WRITE_EXEC: u32 = 6;
    const SHM_EXEC: u32 = 0o100_000;
    let rules = [("mmap", WRITE_EXEC), ("mprotect", EXEC), ("pkey_mprotect", EXEC), ("shmat", SHM_EXEC)];
    rules.iter().map(|(name, bits)| with_bits(name, 2, *bits)).collect()
}

/// RestrictAddressFamilies: sockets of all others.
fn other_families(listed: &str) -> Result<Value, String> {
    let not = |name: &str| {
        let (_, number) = FAMILIES.iter().find(|(known, _)| *known == name).ok_or(format!("no number for {name}"))?;
        Ok(json!({"index": 0, "type": "dword", "op": "ne", "val": number}))
    };
    let conditions = listed.split_whitespace().map(not).collect::<Result<Vec<Value>, String>>()?;
    Ok(json!({"syscall": "socket", "args": conditions}))
}

/// RestrictNamespaces.
fn namespaces() -> Vec<Value> {
    let clone = NAMESPACES.iter().map(|bit| with_bits("clone", 0, *bit));
    clone.chain(["unshare", "setns"].map(|name| json!({"syscall": name}))).collect()
}

fn with_bits(name: &str, index: u8, bits: u32) -> Value {
    json!({"syscall": name, "args": [{"index": index, "type": "dword", "op": {"masked_eq": bits}, "val": bits}]})
}

/// The calls that are left by the unit's lines, one after the other: systemd.exec(5), SystemCallFilter.
fn call_names(lines: &[String]) -> Result<BTreeSet<String>, String> {
    let mut allowed = BTreeSet::new();
    expand("@default", &mut allowed)?;
    if lines.first().is_none_or(|line| line.starts_with('~')) {
        return Err("the first SystemCallFilter of the unit does not allow anything".to_owned());
    }
    for line in lines {
        let mut named = BTreeSet::new();
        for word in line.trim_start_matches('~').split_whitespace() {
            expand(word, &mut named)?;
        }
        if line.starts_with('~') {
            allowed.retain(|name| !named.contains(name));
        } else {
            allowed.append(&mut named);
        }
    }
    Ok(allowed)
}

/// A call, or those of a group as this machine's systemd knows it.
fn expand(word: &str, into: &mut BTreeSet<String>) -> Result<(), String> {
    if !word.starts_with('@') {
        into.insert(word.to_owned());
        return Ok(());
    }
    let mut command = Command::new("systemd-analyze");
    let text = shell::capture(command.args(["syscall-filter", word]))?.ok("systemd-analyze syscall-filter")?;
    let members = text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    members.map(str::to_owned).try_for_each(|member| expand(&member, into))
}

/// Whether the filter's maker knows the call here; one that it does not know stays forbidden.
fn is_of_this_machine(rule: &Value) -> bool {
    compile(&denying(EPERM, std::slice::from_ref(rule))).is_ok()
}

fn compile(filter: &Value) -> Result<seccompiler::BpfProgram, String> {
    let arch = std::env::consts::ARCH.try_into().map_err(|e| format!("seccomp: {e}"))?;
    let text = json!({"only": filter}).to_string();
    let mut programs = seccompiler::compile_from_json(text.as_bytes(), arch).map_err(|e| format!("seccomp: {e}"))?;
    programs.remove("only").ok_or_else(|| "seccomp: no filter".to_owned())
}

fn put_on(filters: &str) -> Result<(), String> {
    let filters: Vec<Value> = serde_json::from_str(filters).map_err(|e| format!("--filters: {e}"))?;
    let programs = filters.iter().map(compile).collect::<Result<Vec<_>, String>>()?;
    programs.iter().try_for_each(|program| seccompiler::apply_filter(program).map_err(|e| format!("seccomp: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_calls_add_and_take_away_in_order() {
        let lines = ["read write ptrace", "~ptrace write", "write"].map(str::to_owned);
        let names = call_names(&lines).unwrap();
        assert!(names.contains("read") && names.contains("write") && !names.contains("ptrace"));
        assert!(names.contains("execve"), "@default is always allowed");
        assert!(call_names(&["~ptrace".to_owned()]).is_err());
    }

    #[test]
    fn limits_have_suffixes() {
        assert_eq!(bytes("512M"), Ok(512 << 20));
        assert_eq!(bytes("32768"), Ok(32768));
        assert!(bytes("infinity").is_err());
    }
}
