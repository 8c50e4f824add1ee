//! Allocations as often as the server can: authenticate, allocate, delete.

use crate::clock::Clock;
use crate::cpu::CpuClock;
use crate::endpoint::{Endpoint, Receive};
use crate::meter::{Latencies, Sample};
use crate::options::Options;
use crate::report::Report;
use crate::session::{Session, Signalling, Step};

/// Clients' addresses before the first comes again; long enough that nothing of it is remembered as still open.
const ADDRESSES: u32 = 60_000;

/// Keeps `concurrency` clients busy, each with a five-tuple of its own, and counts finished allocations.
///
/// # Errors
/// The server refuses, does not answer, or ends; a socket fails.
pub(crate) fn run(options: &Options, clock: Clock, server_cpu: Option<CpuClock>) -> Result<Report, String> {
    let mut clients = Endpoint::open(options.clients_from(), Receive::Single)
        .map_err(|error| format!("opening a socket: {error}"))?;
    let drops_before = clients.drops();
    let mut signalling = Signalling::new(&mut clients, options, clock);
    let mut sessions: Vec<Session> = (0..options.concurrency).map(Session::new).collect();
    let mut next_address = options.concurrency;
    for slot in 0..sessions.len() {
        signalling.start(&mut sessions, slot, Step::Allocate)?;
    }

    let warm = clock.nanos() + (options.warmup * 1e9) as u64;
    let end = warm + (options.seconds * 1e9) as u64;
    let mut latency = Latencies::new()?;
    let (mut allocated, mut deleted) = (0u64, 0u64);
    let mut start = None;
    let mut open = sessions.len();
    let mut stop = None;
    while open > 0 {
        let now = clock.nanos();
        if start.is_none() && now >= warm {
            start = Some(Sample::take(clock, server_cpu)?);
            (allocated, deleted) = (0, 0);
            latency.reset();
        }
        if stop.is_none() && now >= end {
            stop = Some((Sample::take(clock, server_cpu)?, allocated, deleted));
        }
        for granted in signalling.poll(&mut sessions)? {
            if granted.step == Step::Allocate {
                allocated += 1;
                latency.record(now, granted.nanos);
                signalling.start(&mut sessions, granted.slot, Step::Delete)?;
            } else if stop.is_some() {
                deleted += 1;
                open -= 1;
            } else {
                deleted += 1;
                sessions[granted.slot] = Session::new(next_address % ADDRESSES);
                next_address += 1;
                signalling.start(&mut sessions, granted.slot, Step::Allocate)?;
            }
        }
    }

    let (Some(start), Some((stop, allocated, deleted))) = (start, stop) else {
        return Err("nothing was measured".to_owned());
    };
    let spent = start.until(&stop);
    // An allocation costs both its making and its end.
    let finished = (allocated + deleted) as f64 / 2.0;
    Ok(Report {
        direction: options.direction.into(),
        size: 0,
        rate_pps: 0,
        seconds: spent.seconds,
        sent: allocated,
        delivered: allocated,
        lost: 0,
        misrouted: 0,
        per_second: finished / spent.seconds,
        p50_us: latency.micros(0.5),
        p99_us: latency.micros(0.99),
        p99_of_parts_us: latency.p99_of_parts_micros(),
        p999_us: latency.micros(0.999),
        cpu_ns_per_packet: spent.server.map(|nanos| nanos as f64 / finished.max(1.0)),
        server_cores: spent.server.map(|nanos| nanos as f64 / 1e9 / spent.seconds),
        own_cores: spent.own_cores,
        others_cores: spent.others_cores,
        own_drops: clients.drops().saturating_sub(drops_before),
        no_room: 0,
        late_us_max: 0.0,
    })
}
