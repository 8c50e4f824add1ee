//! What a run found, for people and for programs.

use std::fmt;

use serde::Serialize;

use crate::options::Direction;

/// The result of one run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Which way the packets went.
    pub(crate) direction: &'static str,
    /// Payload bytes; 0 for allocations.
    pub(crate) size: u16,
    /// Packets per second that were asked for; 0 is flat out.
    pub(crate) rate_pps: u32,
    /// Length of the measured interval.
    pub(crate) seconds: f64,
    /// Packets sent in the interval, or allocations made.
    pub(crate) sent: u64,
    /// Of these, what arrived.
    pub(crate) delivered: u64,
    /// Of these, what did not.
    pub(crate) lost: u64,
    /// What arrived at the wrong place, from the wrong place or with the wrong length.
    pub(crate) misrouted: u64,
    /// Delivered per second of the interval.
    pub(crate) per_second: f64,
    /// From send to arrival; of an allocation, from the first request to the relayed address.
    pub(crate) p50_us: f64,
    /// The 99th percentile.
    pub(crate) p99_us: f64,
    /// The median of the 99th percentiles of parts of the interval, each of a tenth of a second and a thousand
    /// latencies at least.
    pub(crate) p99_of_parts_us: f64,
    /// The 99.9th percentile.
    pub(crate) p999_us: f64,
    /// The server's CPU time per delivered packet, or per allocation.
    pub(crate) cpu_ns_per_packet: Option<f64>,
    /// Cores that the server took.
    pub(crate) server_cores: Option<f64>,
    /// Cores that the load generator took: it spins, so about 1.
    pub(crate) own_cores: f64,
    /// Cores that everybody else took.
    pub(crate) others_cores: Option<f64>,
    /// Packets that the load generator's own sockets dropped: its fault, not the server's.
    pub(crate) own_drops: u64,
    /// Packets that the kernel did not take.
    pub(crate) no_room: u64,
    /// The longest that a paced packet left after its time.
    pub(crate) late_us_max: f64,
}

impl From<Direction> for &'static str {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Up => "up",
            Direction::Down => "down",
            Direction::Both => "both",
            Direction::C2c => "c2c",
            Direction::Allocate => "allocate",
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { direction, size, seconds, sent, delivered, lost, per_second, .. } = self;
        if *direction == "allocate" {
            writeln!(f, "{delivered} allocations in {seconds:.2} s, {per_second:.0} per second")?;
        } else {
            let share = 100.0 * *lost as f64 / (*sent).max(1) as f64;
            let rate = match self.rate_pps {
                0 => "flat out".to_owned(),
                rate => format!("{rate} pps"),
            };
            writeln!(f, "{direction}, {size} bytes, {rate}: {delivered} of {sent} delivered in {seconds:.2} s")?;
            writeln!(f, "{per_second:.0} per second, {lost} lost ({share:.3} %), {} misrouted", self.misrouted)?;
        }
        let Self { p50_us, p99_us, p99_of_parts_us, p999_us, .. } = self;
        write!(f, "latency: p50 {p50_us:.1} us, p99 {p99_us:.1} us (parts of a tenth of a second: ")?;
        writeln!(f, "{p99_of_parts_us:.1} us in the median), p99.9 {p999_us:.1} us")?;
        if let (Some(cpu), Some(cores)) = (self.cpu_ns_per_packet, self.server_cores) {
            writeln!(f, "server: {cpu:.0} ns of CPU each, {cores:.3} cores")?;
        }
        if let Some(others) = self.others_cores {
            writeln!(f, "others: {others:.3} cores")?;
        }
        let Self { own_cores, own_drops, no_room, late_us_max, .. } = self;
        write!(f, "load generator: {own_cores:.3} cores, {own_drops} dropped at its sockets, ")?;
        write!(f, "{no_room} not taken by the kernel, at most {late_us_max:.0} us late")
    }
}
