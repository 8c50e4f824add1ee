//! `cargo xtask bench-policies`: what a verdict costs, on both engines, for one tenant and for a hundred.

use std::process::Command;

use crate::{plugins, shell};

/// Options of `bench-policies`.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct BenchPoliciesArgs {
    /// Fail where a figure misses what is demanded of it
    #[arg(long)]
    check: bool,
}

/// Builds the components and asks them.
///
/// # Errors
/// What does not build or run, or, with `--check`, which figure is too high.
pub(crate) fn run(args: BenchPoliciesArgs) -> Result<(), String> {
    plugins::all()?;
    let mut cargo: Command = shell::cargo();
    cargo.args(["run", "--release", "--quiet", "--package", "sluice-policy", "--example", "verdicts", "--"]);
    cargo.arg(shell::target().join("plugins"));
    if args.check {
        cargo.arg("--check");
    }
    shell::show(&mut cargo)
}
