//! The time that packets spend inside, recorded per worker and merged at a scrape.
//!
//! ```text
//! worker: records into a histogram --full--> scrape: merges and clears
//!                    ^---------------empty---------------'
//! ```
//! While no empty one is there the worker goes on with its own: nothing is lost, nothing waits.

use std::mem;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use hdrhistogram::Histogram;

/// Shortest latency told apart, in nanoseconds.
const LOW_NANOS: u64 = 100;
/// Longest latency told apart, in nanoseconds: longer ones count as this.
const HIGH_NANOS: u64 = 10_000_000_000;
/// Significant decimal digits.
const DIGITS: u8 = 2;

/// Records the latencies of one worker.
#[derive(Debug)]
pub struct LatencyRecorder {
    current: Batch,
    exchange: Arc<Exchange>,
}

/// The scrape's side of a recorder.
#[derive(Debug)]
pub(crate) struct LatencyReader {
    exchange: Arc<Exchange>,
}

/// Recorded latencies.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    histogram: Histogram<u64>,
    sum_nanos: u64,
}

#[derive(Debug)]
struct Exchange {
    full: ArrayQueue<Batch>,
    empty: ArrayQueue<Batch>,
}

/// A recorder and its reader.
pub(crate) fn pair() -> (LatencyRecorder, LatencyReader) {
    let exchange = Arc::new(Exchange { full: ArrayQueue::new(1), empty: ArrayQueue::new(1) });
    // The queue has room for exactly this one.
    let _ = exchange.empty.push(Batch::new());
    (LatencyRecorder { current: Batch::new(), exchange: exchange.clone() }, LatencyReader { exchange })
}

impl LatencyRecorder {
    /// Records `count` packets that each took `nanos`. Allocates nothing.
    #[inline]
    pub fn record_n(&mut self, nanos: u64, count: u64) {
        self.current.histogram.saturating_record_n(nanos, count);
        self.current.sum_nanos = self.current.sum_nanos.saturating_add(nanos.saturating_mul(count));
    }

    /// Hands what was recorded to the scrape, if it has taken what came before. To be called about every
    /// [`PUBLISH_INTERVAL`](sluice_base::limits::PUBLISH_INTERVAL). Allocates nothing, never waits.
    pub fn hand_over(&mut self) {
        if self.current.histogram.is_empty() {
            return;
        }
        if let Some(empty) = self.exchange.empty.pop() {
            let full = mem::replace(&mut self.current, empty);
            // Of two batches one is here and one was in `empty`: `full` has room.
            let _ = self.exchange.full.push(full);
        }
    }
}

impl LatencyReader {
    /// Merges what the worker has handed over.
    pub(crate) fn drain(&self, total: &mut Batch) {
        while let Some(mut batch) = self.exchange.full.pop() {
            total.merge(&batch);
            batch.histogram.reset();
            batch.sum_nanos = 0;
            let _ = self.exchange.empty.push(batch);
        }
    }
}

impl Batch {
    pub(crate) fn new() -> Self {
        // The bounds are constants and valid: a test makes one.
        let histogram = Histogram::new_with_bounds(LOW_NANOS, HIGH_NANOS, DIGITS);
        Batch { histogram: histogram.unwrap_or_else(|_| unreachable!("constant bounds")), sum_nanos: 0 }
    }

    fn merge(&mut self, other: &Batch) {
        // Both have the same bounds, which is all that `add` asks for.
        let _ = self.histogram.add(&other.histogram);
        self.sum_nanos = self.sum_nanos.saturating_add(other.sum_nanos);
    }

    /// Latencies recorded.
    pub(crate) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Their sum.
    pub(crate) fn sum_seconds(&self) -> f64 {
        self.sum_nanos as f64 / 1e9
    }

    /// How many are at most each bound, in ascending nanoseconds. A latency counts as the upper end of its cell.
    pub(crate) fn cumulative(&self, bounds_nanos: &[u64]) -> Vec<u64> {
        let mut counts = vec![0; bounds_nanos.len()];
        for cell in self.histogram.iter_recorded() {
            let first = bounds_nanos.partition_point(|bound| *bound < cell.value_iterated_to());
            for count in &mut counts[first..] {
                *count += cell.count_since_last_iteration();
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_come_out_in_buckets_with_sum_and_count() {
        let (mut recorder, reader) = pair();
        let mut total = Batch::new();
        recorder.record_n(700, 2);
        recorder.record_n(30_000, 3);
        recorder.record_n(u64::MAX, 1);
        recorder.hand_over();
        reader.drain(&mut total);
        assert_eq!(total.cumulative(&[500, 1_000, 100_000, u64::MAX]), [0, 2, 5, 6]);
        assert_eq!(total.count(), 6);
    }

    #[test]
    fn nothing_is_lost_while_nobody_scrapes() {
        let (mut recorder, reader) = pair();
        let mut total = Batch::new();
        for _ in 0..100 {
            recorder.record_n(1_000, 1);
            recorder.hand_over();
        }
        reader.drain(&mut total);
        recorder.hand_over();
        reader.drain(&mut total);
        assert_eq!(total.count(), 100);
        assert!((total.sum_seconds() - 100e-6).abs() < 1e-12);
    }

    #[test]
    fn a_scrape_between_two_threads_counts_everything_once() {
        let (mut recorder, reader) = pair();
        let mut total = Batch::new();
        let worker = std::thread::spawn(move || {
            for i in 0..100_000 {
                recorder.record_n(i, 1);
                if i % 10 == 0 {
                    recorder.hand_over();
                }
            }
            recorder
        });
        while !worker.is_finished() {
            reader.drain(&mut total);
        }
        let mut recorder = worker.join().unwrap();
        reader.drain(&mut total);
        recorder.hand_over();
        reader.drain(&mut total);
        assert_eq!(total.count(), 100_000);
    }
}
