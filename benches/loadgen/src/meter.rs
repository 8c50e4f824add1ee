//! What is counted in the measured interval, and the CPU time that it took.

use hdrhistogram::Histogram;

use crate::clock::Clock;
use crate::cpu::{self, CpuClock};

/// Latencies in nanoseconds, up to a minute, to three digits.
pub(crate) fn histogram() -> Result<Histogram<u64>, String> {
    Histogram::new_with_max(60_000_000_000, 3).map_err(|error| error.to_string())
}

/// A value of a distribution, in microseconds.
pub(crate) fn micros(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1000.0
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
