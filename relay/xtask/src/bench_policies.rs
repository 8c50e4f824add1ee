//! `cargo xtask bench-policies`: what a verdict costs, on both engines, for one tenant and for a hundred.

use std::process::Command;

use crate::{plugins, shell};

/// Builds the components and asks them.
pub(crate) fn run() -> Result<(), String> {
    plugins::all()?;
    let mut cargo: Command = shell::cargo();
    cargo.args(["run", "--release", "--quiet", "--package", "sluice-policy", "--example", "verdicts", "--"]);
    shell::show(cargo.arg(shell::target().join("plugins")))
}
