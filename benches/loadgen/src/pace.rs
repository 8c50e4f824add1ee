//! When the next packet is due, and how many may be on their way.

/// How the flows' packets lie in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Pacing {
    /// Every flow has a period and a phase of its own, as independent senders do.
    Natural,
    /// The packets of all flows together are evenly spaced.
    Even,
}

/// The moments of a paced run: every flow sends once per period, `burst` packets at a time.
#[derive(Debug)]
pub(crate) struct Schedule {
    period_nanos: f64,
    /// Offset into the period and flow, in the order of time.
    phases: Vec<(f64, u32)>,
    next: usize,
    period: f64,
}

impl Schedule {
    /// A schedule of `flows` flows that send `rate` packets per second together.
    pub(crate) fn new(flows: u32, rate: u32, burst: u32, pacing: Pacing, seed: u64) -> Self {
        let period_nanos = f64::from(flows) * f64::from(burst) / f64::from(rate) * 1e9;
        let mut random = Random(seed);
        let mut phases: Vec<(f64, u32)> = (0..flows)
            .map(|flow| match pacing {
                Pacing::Natural => (random.fraction() * period_nanos, flow),
                Pacing::Even => (f64::from(flow) / f64::from(flows) * period_nanos, flow),
            })
            .collect();
        phases.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self { period_nanos, phases, next: 0, period: 0.0 }
    }

    /// The flow whose turn came, and when it was due, if that is not after `now` (nanoseconds since the start).
    pub(crate) fn due(&mut self, now: u64) -> Option<(u32, u64)> {
        let (phase, flow) = self.phases[self.next];
        let at = (self.period + phase) as u64;
        if at > now {
            return None;
        }
        self.next += 1;
        if self.next == self.phases.len() {
            self.next = 0;
            self.period += self.period_nanos;
        }
        Some((flow, at))
    }
}

/// Packets on their way, by the millisecond in which they were sent. What does not arrive within
/// [`WRITTEN_OFF_AFTER_MS`] no longer counts, so that losses do not fill the window for ever.
#[derive(Debug)]
pub(crate) struct InFlight {
    bins: [u32; BINS],
    now_ms: u64,
    count: u32,
}

/// Longer than any queue of a server that is still worth a measurement.
const WRITTEN_OFF_AFTER_MS: u64 = 30;
const BINS: usize = 32;

impl InFlight {
    /// Nothing on its way.
    pub(crate) fn new() -> Self {
        Self { bins: [0; BINS], now_ms: 0, count: 0 }
    }

    /// Packets on their way.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, now_nanos: u64) {
        let now_ms = now_nanos / 1_000_000;
        while self.now_ms < now_ms {
            self.now_ms += 1;
            if let Some(old) = self.now_ms.checked_sub(WRITTEN_OFF_AFTER_MS) {
                self.count -= std::mem::take(&mut self.bins[bin(old)]);
            }
        }
    }

    /// Packets were sent, at a moment that is not before any that was seen yet.
    pub(crate) fn sent(&mut self, packets: u32, at_nanos: u64) {
        self.advance(at_nanos);
        self.bins[bin(self.now_ms)] += packets;
        self.count += packets;
    }

    /// A packet that was sent at `sent_nanos` arrived.
    pub(crate) fn arrived(&mut self, sent_nanos: u64) {
        let sent_ms = sent_nanos / 1_000_000;
        let alive = sent_ms <= self.now_ms && self.now_ms - sent_ms < WRITTEN_OFF_AFTER_MS;
        let bin = &mut self.bins[bin(sent_ms)];
        if alive && *bin > 0 {
            *bin -= 1;
            self.count -= 1;
        }
    }
}

fn bin(ms: u64) -> usize {
    (ms % BINS as u64) as usize
}

/// SplitMix64: phases and transaction ids need no more.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// From 0 to 1.
    fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent_by(schedule: &mut Schedule, nanos: u64) -> Vec<(u32, u64)> {
        std::iter::from_fn(|| schedule.due(nanos)).collect()
    }

    #[test]
    fn a_second_holds_the_rate() {
        for pacing in [Pacing::Even, Pacing::Natural] {
            let mut schedule = Schedule::new(100, 20_000, 1, pacing, 1);
            let sent = sent_by(&mut schedule, 999_999_999);
            assert!((19_999..=20_001).contains(&sent.len()), "{pacing:?}: {}", sent.len());
            assert!(sent.is_sorted_by_key(|&(_, at)| at));
            let of_one = sent.iter().filter(|&&(flow, _)| flow == 42).count();
            assert!((199..=201).contains(&of_one));
        }
    }

    #[test]
    fn bursts_are_fewer_turns() {
        let mut schedule = Schedule::new(10, 40_000, 8, Pacing::Even, 1);
        assert_eq!(sent_by(&mut schedule, 999_999_999).len(), 5_000);
    }

    #[test]
    fn even_turns_are_equally_far_apart() {
        let mut schedule = Schedule::new(4, 1_000, 1, Pacing::Even, 1);
        let at: Vec<_> = sent_by(&mut schedule, 5_000_000).into_iter().map(|(_, at)| at).collect();
        assert_eq!(at, [0, 1_000_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000]);
    }

    #[test]
    fn lost_packets_leave_the_window() {
        let mut flight = InFlight::new();
        flight.sent(2, 5_000_000);
        flight.arrived(5_000_000);
        assert_eq!(flight.count(), 1);
        flight.advance(34_000_000);
        assert_eq!(flight.count(), 1);
        flight.advance(35_000_000);
        assert_eq!(flight.count(), 0);
        flight.arrived(5_000_000);
        assert_eq!(flight.count(), 0);
    }
}
