//! A TURN load generator over real sockets.
//!
//! One thread spins: it sends when a packet is due, reads what has arrived, and never sleeps, so that the server's
//! sends do not pay for waking anybody and latencies are the server's.
#![forbid(unsafe_code)]

mod churn;
mod clock;
mod cpu;
mod endpoint;
mod flow;
mod meter;
mod options;
mod pace;
mod report;
mod rtp;
mod session;
mod stamp;
mod traffic;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::clock::Clock;
use crate::cpu::CpuClock;
use crate::options::{Direction, Options};
use crate::report::Report;

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options).and_then(|report| print(&options, &report)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do where even standard error is closed.
            let _ = writeln!(std::io::stderr(), "sluice-loadgen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<Report, String> {
    options.validate()?;
    if let Some(core) = options.cpu {
        cpu::pin(core)?;
    }
    let server_cpu = options.server_pid.map(CpuClock::of).transpose()?;
    let clock = Clock::start();
    match options.direction {
        Direction::Allocate => churn::run(options, clock, server_cpu),
        _ => traffic::run(options, clock, server_cpu),
    }
}

fn print(options: &Options, report: &Report) -> Result<(), String> {
    let text = match options.json {
        true => serde_json::to_string(report).map_err(|error| error.to_string())?,
        false => report.to_string(),
    };
    writeln!(std::io::stdout(), "{text}").map_err(|error| format!("standard output: {error}"))
}
