//! The files of systemd/: accepted by systemd's own programs, and as tight as they say.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::report::Report;
use crate::{as_unit, clients, netns, shell};

/// The most exposure that `systemd-analyze security` may find, in tenths.
const EXPOSURE_MAX_TENTHS: &str = "15";

/// A configuration whose drop-in has every line.
const PRIVILEGED: &str = r#"
[[listen]]
address = "127.0.0.1:443"
realm = "relay.test"

[[tenant]]
name = "default"

[[tenant.user]]
name = "alice"
password = "alices-password"
"#;

/// All of it; the relay has been built.
pub(crate) fn run(report: &Report) -> Result<(), String> {
    let unit = unit_of_this_build()?;
    let passed = [
        report.test("systemd: the unit is verified without a word", || verify(&unit)),
        report.test("systemd: the unit with a generated drop-in is verified without a word", || with_drop_in(&unit)),
        report.test("systemd: exposure of 1.5 or below", || exposure(&unit)),
        report.test("systemd: the users are accepted", users),
        report.test("systemd: the sysctl file is accepted", sysctl),
        report.test("systemd: what the unit forbids is forbidden by as-unit", forbidden),
    ];
    if passed.iter().all(|passed| *passed) { Ok(()) } else { Err("see above".to_owned()) }
}

/// The unit with the program that was built in the place of the installed one, which has to exist.
fn unit_of_this_build() -> Result<PathBuf, String> {
    let file = as_unit::unit_file();
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let installed = "ExecStart=/usr/bin/sluice ";
    if !text.contains(installed) {
        return Err(format!("{}: no {installed}", file.display()));
    }
    let program = clients::relay_program();
    let text = text.replace("=/usr/bin/sluice ", &format!("={} ", program.display()));
    let folder = netns::folder()?.join("systemd");
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let copy = folder.join("sluice.service");
    std::fs::write(&copy, text).map_err(|e| format!("{}: {e}", copy.display()))?;
    Ok(copy)
}

/// Unknown keys and the like are told and forgiven by the exit code: any word is a mistake.
fn verify(unit: &Path) -> Result<(), String> {
    let said = shell::capture(Command::new("systemd-analyze").arg("verify").arg(unit))?.ok("systemd-analyze verify")?;
    let about_it: Vec<&str> = said.lines().filter(|line| line.contains("sluice")).collect();
    if about_it.is_empty() { Ok(()) } else { Err(about_it.join("\n")) }
}

/// The drop-in for a privileged port, which is the longest.
fn with_drop_in(unit: &Path) -> Result<(), String> {
    let folder = unit.with_extension("service.d");
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let config = folder.join("relay.toml");
    std::fs::write(&config, PRIVILEGED).map_err(|e| format!("{}: {e}", config.display()))?;
    let mut command = Command::new(clients::relay_program());
    let text = shell::capture(command.args(["systemd-dropin", "--config"]).arg(&config))?.ok("systemd-dropin")?;
    if !text.contains("\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n") {
        return Err(format!("no capability for port 443:\n{text}"));
    }
    let file = folder.join("generated.conf");
    std::fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
    let verified = verify(unit);
    std::fs::remove_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    verified
}

fn exposure(unit: &Path) -> Result<(), String> {
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--no-pager", "--offline=true", "--threshold", EXPOSURE_MAX_TENTHS]).arg(unit);
    shell::capture(&mut command)?.ok("systemd-analyze security").map(drop)
}

fn users() -> Result<(), String> {
    let file = shell::root().join("systemd/sluice.sysusers");
    // An empty root: whoever exists on this machine has no say.
    let root = netns::folder()?.join("systemd/root");
    std::fs::create_dir_all(root.join("etc")).map_err(|e| format!("{}: {e}", root.display()))?;
    let mut command = Command::new("systemd-sysusers");
    command.arg(format!("--root={}", root.display())).arg("--dry-run").arg(file);
    let said = shell::capture(&mut command)?.ok("systemd-sysusers")?;
    for made in ["user 'sluice'", "group 'sluice-admin'"] {
        if !said.contains(made) {
            return Err(format!("no {made} would be made:\n{said}"));
        }
    }
    Ok(())
}

/// Every line is a key that this kernel has, with a value.
fn sysctl() -> Result<(), String> {
    let mut command = Command::new("/sbin/sysctl");
    command.args(["--dry-run", "-p"]).arg(shell::root().join("systemd/sluice.sysctl.conf"));
    let said = shell::capture(&mut command)?.ok("sysctl --dry-run")?;
    for key in ["net.core.rmem_max = ", "net.core.wmem_max = ", "net.ipv4.ip_local_reserved_ports = 49152-65535"] {
        if !said.contains(key) {
            return Err(format!("no {key}:\n{said}"));
        }
    }
    Ok(())
}

/// A program that tries what a relay never does, and what it does.
fn forbidden() -> Result<(), String> {
    let script = shell::root().join("tests/as_unit.py");
    let text = std::fs::read_to_string(&script).map_err(|e| format!("{}: {e}", script.display()))?;
    let open = as_unit::OpenToAll::new()?;
    let own = open.copy(&shell::own_program()?)?;
    let words = ["/usr/bin/python3".into(), "-c".into(), text.into()];
    shell::capture(&mut as_unit::confined(&own, &words)?)?.ok("tests/as_unit.py").map(drop)
}
