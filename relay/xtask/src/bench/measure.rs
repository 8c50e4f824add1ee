//! Rounds: every server over the same work, one after the other.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::contender::{Contender, Kind, PASSWORD, USER};
use super::plan::{self, Direction, Row};
use super::progress;
use crate::shell;

/// Cores that other processes may take before a round is dropped, unless told otherwise.
pub(super) const OTHERS_CORES_MAX: f64 = 0.12;

/// Rounds that are tried for each one that must count.
const ATTEMPTS_PER_ROUND: u32 = 3;

/// Packets of one burst.
const BURST: u32 = 8;

/// Packets that a flow hands over at once when flat out: one by one they cost the load generator more than a server
/// needs for them, and what is measured is a server that waits.
const FLAT_OUT_BURST: u32 = 4;

/// How long one look at the machine takes, and how many there are before a round begins all the same.
const QUIET_LOOK: Duration = Duration::from_millis(100);
const QUIET_LOOKS_MAX: u32 = 200;

/// USER_HZ is 100 on every architecture that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// How every row is measured.
#[derive(Debug)]
pub(super) struct Settings {
    /// The load generator.
    pub(super) loadgen: PathBuf,
    /// Its core.
    pub(super) load_cpu: usize,
    /// Rounds that must count.
    pub(super) rounds: u32,
    /// Cores that other processes may take.
    pub(super) others_max: f64,
    /// Measured seconds of each server in each round; see [`plan::longer`].
    pub(super) seconds: f64,
    /// How long a server runs by itself after it stood still.
    pub(super) settle: Duration,
    /// Payloads look like RTP.
    pub(super) rtp: bool,
}

/// What the load generator found about one server in one round.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Sample {
    /// CPU nanoseconds of the server per delivered packet or allocation.
    pub(super) cpu_ns_per_packet: f64,
    /// Median latency.
    pub(super) p50_us: f64,
    /// 99th percentile of the latency.
    pub(super) p99_us: f64,
    /// The median of the 99th percentiles of each tenth of a second.
    pub(super) p99_of_parts_us: f64,
    /// Packets that did not arrive.
    pub(super) lost: u64,
    /// Packets or allocations per second.
    pub(super) per_second: f64,
    server_cores: f64,
    others_cores: f64,
    own_drops: u64,
    misrouted: u64,
}

/// The rounds of a row that count.
#[derive(Debug)]
pub(super) struct Series {
    /// What was measured.
    pub(super) row: Row,
    /// Of which servers: the order of the samples in a round.
    pub(super) kinds: Vec<Kind>,
    /// One sample of each server per round.
    pub(super) rounds: Vec<Vec<Sample>>,
    /// Rounds that were dropped because other processes were busy.
    pub(super) dropped: u32,
}

/// Measures one row until enough rounds count.
pub(super) fn row(settings: &Settings, row: Row, servers: &[Contender]) -> Result<Series, String> {
    let kinds = servers.iter().map(|server| server.kind).collect();
    let mut series = Series { row, kinds, rounds: Vec::new(), dropped: 0 };
    for attempt in 0..settings.rounds * ATTEMPTS_PER_ROUND {
        if series.rounds.len() == settings.rounds as usize {
            break;
        }
        await_quiet(settings.others_max);
        let samples = round(settings, row, servers, attempt)?;
        let quiet = samples.iter().all(|sample| sample.others_cores <= settings.others_max);
        progress(&line(&series.kinds, &samples, quiet));
        if quiet {
            series.rounds.push(samples);
        } else {
            series.dropped += 1;
        }
    }
    Ok(series)
}

/// Waits until other processes leave the machine alone, for as long as that may take to be worth it. The servers
/// have nothing to relay meanwhile.
fn await_quiet(others_max: f64) {
    for _ in 0..QUIET_LOOKS_MAX {
        let before = idle_ticks();
        let start = Instant::now();
        std::thread::sleep(QUIET_LOOK);
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let idle = idle_ticks().saturating_sub(before) as f64 / TICKS_PER_SECOND / start.elapsed().as_secs_f64();
        if cores - idle <= others_max {
            return;
        }
    }
}

/// Ticks that all cores together spent on nothing.
fn idle_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let total = stat.lines().next().unwrap_or_default();
    total.split_ascii_whitespace().skip(4).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// Every server once, while the others stand still; another one begins in each round, so that none always comes after
/// the same.
fn round(settings: &Settings, row: Row, servers: &[Contender], attempt: u32) -> Result<Vec<Sample>, String> {
    let count = servers.len();
    let mut samples: Vec<Option<Sample>> = vec![None; count];
    for turn in 0..count {
        let at = (turn + attempt as usize) % count;
        servers.iter().enumerate().try_for_each(|(other, server)| server.run(other == at))?;
        if count > 1 {
            std::thread::sleep(settings.settle);
        }
        samples[at] = Some(sample(settings, row, &servers[at], attempt)?);
    }
    servers.iter().try_for_each(|server| server.run(true))?;
    Ok(samples.into_iter().flatten().collect())
}

fn sample(settings: &Settings, row: Row, server: &Contender, seed: u32) -> Result<Sample, String> {
    let name = server.kind.name();
    let text = shell::capture(&mut load(settings, row, server, seed))?.ok(&format!("the load generator on {name}"))?;
    let sample: Sample =
        serde_json::from_str(&text).map_err(|error| format!("the load generator on {name}: {error}: {text}"))?;
    if sample.misrouted > 0 {
        return Err(format!("{name} delivered {} packets to the wrong place: {row}", sample.misrouted));
    }
    if sample.own_drops > 0 {
        progress(&format!("  {} packets were lost by the load generator, not by {name}", sample.own_drops));
    }
    Ok(sample)
}

fn load(settings: &Settings, row: Row, server: &Contender, seed: u32) -> Command {
    let mut command = Command::new(&settings.loadgen);
    let direction = match row.direction {
        Direction::Up | Direction::Burst => "up",
        Direction::Down => "down",
        Direction::C2c => "c2c",
        Direction::Allocate => "allocate",
    };
    let mut pair = |key: &str, value: String| {
        command.arg(format!("--{key}")).arg(value);
    };
    pair("server", server.address.to_string());
    pair("server-pid", server.pid().to_string());
    pair("user", USER.to_owned());
    pair("password", PASSWORD.to_owned());
    pair("direction", direction.to_owned());
    pair("cpu", settings.load_cpu.to_string());
    pair("seconds", (settings.seconds * plan::longer(row)).to_string());
    pair("seed", seed.to_string());
    if row.direction != Direction::Allocate {
        pair("rate", row.rate.to_string());
        pair("size", row.size.to_string());
    }
    let burst = match row {
        Row { direction: Direction::Allocate, .. } => None,
        Row { direction: Direction::Burst, .. } => Some(BURST),
        Row { rate: 0, .. } => Some(FLAT_OUT_BURST),
        Row { .. } => None,
    };
    if let Some(packets) = burst {
        pair("burst", packets.to_string());
        command.arg("--gso");
    }
    if settings.rtp && row.direction != Direction::Allocate {
        command.arg("--rtp");
    }
    command.arg("--json");
    command
}

fn line(kinds: &[Kind], samples: &[Sample], quiet: bool) -> String {
    let each = kinds.iter().zip(samples).map(|(kind, sample)| {
        let Sample { cpu_ns_per_packet, p99_us, p99_of_parts_us, lost, per_second, server_cores, .. } = sample;
        format!(
            "{} {:.2} us (p99 {p99_us:.0}, of parts {p99_of_parts_us:.0}, {per_second:.0}/s, {server_cores:.2} cores, \
             {lost} lost)",
            kind.name(),
            cpu_ns_per_packet / 1000.0
        )
    });
    let others = samples.iter().map(|sample| sample.others_cores).fold(0.0, f64::max);
    let verdict = if quiet { "" } else { ", dropped" };
    format!("  {}; others {others:.2} cores{verdict}", each.collect::<Vec<_>>().join(", "))
}
