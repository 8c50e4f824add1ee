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
    println!("----  the components");
    plugins::all()?;
    println!("----  the benchmark's program");
    // As the gate does it, so that what it has built is not built again.
    shell::show(shell::cargo().args(["build", "--release", "--locked", "--workspace", "--example", "verdicts"]))?;
    println!("----  each row takes up to four seconds");
    let mut verdicts = Command::new(shell::target().join("release/examples/verdicts"));
    verdicts.arg(shell::target().join("plugins"));
    if args.check {
        verdicts.arg("--check");
    }
    shell::show(&mut verdicts)
}
