//! sluice: a media relay in one daemon.
#![forbid(unsafe_code)]

mod ask;
mod banner;
mod cli;
mod development;
mod drain;
mod driver;
mod dropin;
mod healthcheck;
mod life;
mod logging;
mod plugin;
mod policies;
mod probe;
mod pseudonym;
mod recorder;
mod records;
mod reload;
mod run;
mod service;
mod wellbeing;
mod wiring;
mod workers;

use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command};

fn main() -> ExitCode {
    logging::keep_panics_quiet();
    let cli = Cli::parse();
    let done = match &cli.command {
        Some(Command::CheckConfig { file }) => cli::check_config(file),
        Some(Command::Status(args)) => ask::status(args),
        Some(Command::Allocations(args)) => ask::allocations(args),
        Some(Command::Healthcheck(args)) => healthcheck::run(args),
        Some(Command::Reload(args)) => ask::reload(args),
        Some(Command::Drain(args)) => ask::drain(args),
        Some(Command::SystemdDropin { config }) => dropin::print(config),
        Some(Command::Lookup(args)) => records::commands::lookup(args),
        Some(Command::Ban(command)) => records::commands::ban(command),
        Some(Command::Hold(command)) => records::holds::hold(command),
        Some(Command::Audit(command)) => records::offline::audit(command),
        Some(Command::Retention(command)) => records::commands::retention(command),
        Some(Command::Backup(args)) => records::commands::backup(args),
        Some(Command::Restore(args)) => records::offline::restore(args),
        Some(Command::Compliance(command)) => records::report::compliance(command),
        Some(Command::Probe(args)) => probe::run(args),
        Some(Command::Plugin(command)) => return plugin::run(command),
        None => run::run(&cli.run),
    };
    cli::ended(done)
}
