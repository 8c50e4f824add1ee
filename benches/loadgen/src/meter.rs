//! What is counted in the measured interval, and the CPU time that it took.

use hdrhistogram::Histogram;

use crate::clock::Clock;
use crate::cpu::{self, CpuClock};

/// How long a part of the interval lasts at least, and how many latencies it has.
const PART_NANOS: u64 = 100_000_000;
const PART_LATENCIES: u64 = 1000;

/// Latencies: all of the interval's, and part by part.
///
/// A pause of the machine of some milliseconds is in one part, and the median of the parts is what it was. What a
/// server does to one packet in a hundred is in every part.
pub(crate) struct Latencies {
    all: Histogram<u64>,
    part: Histogram<u64>,
    part_ends: u64,
    /// The 99th percentile of each part that has ended.
    parts: Vec<u64>,
}

impl Latencies {
    /// None yet. To be told in nanoseconds, up to a minute, kept to three digits.
    pub(crate) fn new() -> Result<Self, String> {
        let empty = || Histogram::new_with_max(60_000_000_000, 3).map_err(|error| error.to_string());
        Ok(Self { all: empty()?, part: empty()?, part_ends: 0, parts: Vec::new() })
    }

    /// Something took `nanos` and has ended `now`.
    pub(crate) fn record(&mut self, now: u64, nanos: u64) {
        if now >= self.part_ends {
            self.end_part(now);
        }
        self.all.saturating_record(nanos);
        self.part.saturating_record(nanos);
    }

    /// Forgets all.
    pub(crate) fn reset(&mut self) {
        self.all.reset();
        self.part.reset();
        self.parts.clear();
    }

    /// A value of the whole distribution, in microseconds.
    pub(crate) fn micros(&self, quantile: f64) -> f64 {
        self.all.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// The median of the parts' 99th percentiles, in microseconds; of the whole where no part has ended.
    pub(crate) fn p99_of_parts_micros(&self) -> f64 {
        let mut parts = self.parts.clone();
        parts.sort_unstable();
        match parts.get(parts.len() / 2) {
            Some(&nanos) => nanos as f64 / 1000.0,
            None => self.micros(0.99),
        }
    }

    #[cold]
    fn end_part(&mut self, now: u64) {
        if self.part_ends > 0 && self.part.len() < PART_LATENCIES {
            return;
        }
        if !self.part.is_empty() {
            self.parts.push(self.part.value_at_quantile(0.99));
        }
        self.part.reset();
        self.part_ends = now + PART_NANOS;
    }
}

/// CPU time of everybody at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    wall: u64,
    server: Option<u64>,
    own: u64,
    busy: i128,
}

/// CPU time between two samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    /// Seconds between the samples.
    pub(crate) seconds: f64,
    /// CPU nanoseconds of the server, if its process is known.
    pub(crate) server: Option<u64>,
    /// Cores that this process took.
    pub(crate) own_cores: f64,
    /// Cores that all other processes took, if the server is known.
    pub(crate) others_cores: Option<f64>,
}

impl Sample {
    /// Now.
    pub(crate) fn take(clock: Clock, server: Option<CpuClock>) -> Result<Self, String> {
        let server = server.map(CpuClock::nanos).transpose()?;
        let wall = clock.nanos();
        Ok(Self { wall, server, own: cpu::own_nanos(), busy: cpu::busy_nanos(wall)? })
    }

    /// From this sample to a later one.
    pub(crate) fn until(&self, end: &Self) -> Spent {
        let wall = (end.wall - self.wall) as f64;
        let own = end.own - self.own;
        let server = self.server.zip(end.server).map(|(start, end)| end - start);
        let others = server.map(|server| {
            let others = end.busy - self.busy - i128::from(own) - i128::from(server);
            (others as f64 / wall).max(0.0)
        });
        Spent { seconds: wall / 1e9, server, own_cores: own as f64 / wall, others_cores: others }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A latency each 20 us for a second, in nanoseconds.
    fn latencies(nanos: impl Fn(u64) -> u64) -> Latencies {
        let mut latencies = Latencies::new().expect("latencies");
        (0..50_000).for_each(|at| latencies.record(1 + at * 20_000, nanos(at)));
        latencies
    }

    #[test]
    fn a_pause_of_the_machine_is_in_the_whole_and_not_in_the_median_of_the_parts() {
        let paused = latencies(|at| if (20_000..21_000).contains(&at) { 4_000_000 } else { 30_000 });
        assert!(paused.micros(0.99) > 3900.0);
        assert!(paused.p99_of_parts_micros() < 31.0);
    }

    #[test]
    fn what_befalls_one_packet_in_fifty_is_in_both() {
        let slow = latencies(|at| if at % 50 == 0 { 400_000 } else { 30_000 });
        assert!(slow.micros(0.99) > 390.0);
        assert!(slow.p99_of_parts_micros() > 390.0);
    }

    #[test]
    fn few_latencies_are_one_part() {
        let mut few = Latencies::new().expect("latencies");
        (0..10).for_each(|at| few.record(1 + at * 1_000_000_000, 50_000));
        assert!(few.parts.is_empty());
        assert_eq!(few.p99_of_parts_micros(), few.micros(0.99));
    }
}
