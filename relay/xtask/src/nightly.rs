//! `cargo xtask nightly`: what takes too long for each change.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::report::Report;
use crate::{install, plugins, shell};

/// Seeds of one night.
const SEEDS: u64 = 20_000;

/// Seconds of overload of each driver.
const OVERLOAD_SECONDS: &str = "60";

/// Kills under load of one night.
const KILLS: &str = "100";

/// Options of `cargo xtask nightly`.
#[derive(clap::Args, Debug)]
pub(crate) struct NightlyArgs {
    /// The first seed; other ones each night unless it is given
    #[arg(long)]
    first_seed: Option<u64>,
}

/// Runs it all, and goes on after a failure. `false` when something failed.
pub(crate) fn run(args: &NightlyArgs) -> bool {
    let report = Report::default();
    let first = args.first_seed.unwrap_or_else(tonights_first_seed);
    report.test("install", install::all);
    report.test(&format!("simulator: {SEEDS} seeds from {first}"), || seeds(first));
    report.test("a minute of overload: no slot is lost", overload);
    report.test("plugins: the same bytes from two folders", plugins::are_reproducible);
    report.test("plugins: Python becomes a component, as its guide says", plugins::python);
    report.test("plugins: C becomes a component, as its guide says", plugins::c);
    report.test(&format!("{KILLS} kills under load: nothing acknowledged is lost"), kills);
    report.test("bench-policies: what a verdict costs, held against the goals", bench_policies);
    report.test("bench-turn: the whole matrix, held against the goals", bench);
    let tally = report.tally();
    println!("{} passed, {} failed", tally.passed, tally.failed.len());
    tally.failed.is_empty()
}

/// Each night has seeds of its own.
fn tonights_first_seed() -> u64 {
    let days = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / (24 * 3600);
    days * SEEDS
}

fn seeds(first: u64) -> Result<(), String> {
    let mut cargo = shell::cargo();
    cargo.args(["test", "--release", "-p", "sluice-sim", "--test", "seeds", "no_seed_breaks_an_invariant"]);
    shell::show(cargo.env("SLUICE_SIM_SEEDS", SEEDS.to_string()).env("SLUICE_SIM_FIRST", first.to_string()))
}

fn overload() -> Result<(), String> {
    let mut cargo = shell::cargo();
    cargo.args(["test", "--release", "-p", "sluice-net", "--test", "drivers"]);
    shell::show(cargo.env("SLUICE_OVERLOAD_SECONDS", OVERLOAD_SECONDS))
}

fn kills() -> Result<(), String> {
    let mut command = Command::new(shell::own_program()?);
    shell::show(command.args(["test", "--only", "kills"]).env("SLUICE_KILLS", KILLS))
}

fn bench_policies() -> Result<(), String> {
    shell::show(Command::new(shell::own_program()?).args(["bench-policies", "--check"]))
}

fn bench() -> Result<(), String> {
    shell::show(Command::new(shell::own_program()?).args(["bench-turn", "--check"]))
}
