//! Development tasks: `cargo xtask test`, `as-unit`, `bench-turn`, `bench-policies`, `nightly`, `plugins`, `tidy`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod adversary;
mod as_unit;
mod bench;
mod bench_policies;
mod clients;
mod disk;
mod install;
mod kills;
mod left_behind;
mod life;
mod lossy;
mod nat;
mod netns;
mod nightly;
mod outside;
mod personal;
mod plugins;
mod policies;
mod probe;
mod prometheus;
mod quality;
mod records;
mod report;
mod server;
mod sha256;
mod shell;
mod systemd;
mod test;
mod tidy;
mod turnutils;

use std::process::ExitCode;

use clap::Parser as _;

/// Development tasks of sluice
#[derive(clap::Parser, Debug)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(clap::Subcommand, Debug)]
enum Task {
    /// Install what the tests need, and run all of them
    Test(test::TestArgs),
    /// The clients' part of the tests, in a namespace that `test` makes
    #[command(hide = true)]
    Inside(test::InsideArgs),
    /// Run a command as systemd/sluice.service would: user, capabilities, limits, seccomp
    AsUnit(as_unit::AsUnitArgs),
    /// Compare sluice with coturn: CPU time per packet, latency, loss
    BenchTurn(bench::BenchArgs),
    /// What a verdict of policies costs, on both engines
    BenchPolicies(bench_policies::BenchPoliciesArgs),
    /// What takes too long for each change: many seeds, long overload, the whole benchmark
    Nightly(nightly::NightlyArgs),
    /// Build the components of plugins/, or of a project like them
    Plugins(plugins::PluginsArgs),
    /// Only the rules of the house: crate edges, banned calls, sizes
    Tidy,
}

fn main() -> ExitCode {
    let ok = match Cli::parse().task {
        Task::Test(args) => test::run(&args),
        Task::Inside(args) => test::run_inside(&args),
        Task::AsUnit(args) => as_unit::run(&args).inspect_err(|error| eprintln!("as-unit: {error}")).is_ok(),
        Task::BenchTurn(args) => bench::run(&args).inspect_err(|error| eprintln!("bench-turn: {error}")).is_ok(),
        Task::BenchPolicies(args) => {
            bench_policies::run(args).inspect_err(|error| eprintln!("bench-policies: {error}")).is_ok()
        }
        Task::Nightly(args) => nightly::run(&args),
        Task::Plugins(args) => plugins::run(&args).inspect_err(|error| eprintln!("plugins: {error}")).is_ok(),
        Task::Tidy => tidy::run(),
    };
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
