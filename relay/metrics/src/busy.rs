//! How busy a worker was lately.

use std::time::{Duration, Instant};

/// The shortest stretch that a ratio is taken over: workers publish every 100 ms, so that the ends
/// of the stretch are off by 2 % at most, and several scrapers do not shorten each other's.
const STRETCH_MIN: Duration = Duration::from_secs(5);

/// Turns a counter of processor time into a ratio of 0 to 1 over a recent stretch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Busy {
    since: Instant,
    nanos: u64,
    last: Option<f64>,
}

impl Busy {
    pub(crate) fn new(now: Instant) -> Self {
        Busy { since: now, nanos: 0, last: None }
    }

    /// The ratio since the last stretch ended; of the last stretch while the current one is too short.
    pub(crate) fn ratio(&mut self, now: Instant, nanos: u64) -> f64 {
        let elapsed = now.saturating_duration_since(self.since);
        if let Some(last) = self.last.filter(|_| elapsed < STRETCH_MIN) {
            return last;
        }
        let ratio = share(nanos.saturating_sub(self.nanos), elapsed);
        if elapsed >= STRETCH_MIN {
            *self = Busy { since: now, nanos, last: Some(ratio) };
        }
        ratio
    }
}

fn share(nanos: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() {
        return 0.0;
    }
    (nanos as f64 / elapsed.as_nanos() as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_a_recent_stretch() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut busy = Busy::new(start);
        assert_eq!(busy.ratio(start, 0), 0.0);
        assert_eq!(busy.ratio(at(2), 1_000_000_000), 0.5);
        assert_eq!(busy.ratio(at(10), 1_000_000_000), 0.1);
        // Too soon after the last one for a ratio of its own.
        assert_eq!(busy.ratio(at(11), 2_000_000_000), 0.1);
        assert_eq!(busy.ratio(at(20), 6_000_000_000), 0.5);
        assert_eq!(busy.ratio(at(30), 99_000_000_000), 1.0);
    }
}
