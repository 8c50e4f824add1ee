//! What one worker publishes: plain atomics that only it writes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use sluice_base::io::IoStats;
use sluice_base::stats::media::{Media, MediaCounter, media_places};
use sluice_base::stats::{Counter, Counters};

/// Numbers in an [`IoStats`].
const IO: usize = 18;

/// What the control plane says of the whole process.
#[derive(Debug, Default)]
pub struct ProcessCells {
    draining: AtomicBool,
    reload_failed: AtomicBool,
    reloaded_unix_seconds: AtomicU64,
}

impl ProcessCells {
    /// The relay lets nobody new in.
    pub fn drains(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// A configuration has come into force, the first one too.
    pub fn configured(&self, unix_seconds: u64) {
        self.reloaded_unix_seconds.store(unix_seconds, Ordering::Relaxed);
        self.reload_failed.store(false, Ordering::Relaxed);
    }

    /// A reload was refused, and the old configuration stays in force.
    pub fn reload_failed(&self) {
        self.reload_failed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn reload_successful(&self) -> f64 {
        f64::from(u8::from(!self.reload_failed.load(Ordering::Relaxed)))
    }

    pub(crate) fn reloaded_unix_seconds(&self) -> f64 {
        self.reloaded_unix_seconds.load(Ordering::Relaxed) as f64
    }

    pub(crate) fn draining(&self) -> f64 {
        f64::from(u8::from(self.draining.load(Ordering::Relaxed)))
    }
}

/// The published counters of one worker. One writer, any number of readers.
#[derive(Debug)]
pub struct WorkerCells {
    cells: CachePadded<Cells>,
    /// By [`media_place`](sluice_base::stats::media::media_place).
    media: Box<[CachePadded<[AtomicU64; Media::WORDS]>]>,
}

#[derive(Debug)]
struct Cells {
    counters: [AtomicU64; Counter::COUNT],
    io: [AtomicU64; IO],
    publications: AtomicU64,
}

impl Default for WorkerCells {
    fn default() -> Self {
        Self::new(0)
    }
}

impl WorkerCells {
    /// Cells of a worker with so many tenants, all zero.
    pub fn new(tenants: usize) -> Self {
        let cells = Cells {
            counters: [const { AtomicU64::new(0) }; Counter::COUNT],
            io: [const { AtomicU64::new(0) }; IO],
            publications: AtomicU64::new(0),
        };
        let media = (0..media_places(tenants)).map(|_| CachePadded::new([const { AtomicU64::new(0) }; Media::WORDS]));
        WorkerCells { cells: CachePadded::new(cells), media: media.collect() }
    }

    /// Publishes the counters as they are now. Only the worker that owns the cells calls this. A scrape in between
    /// may see some of them a publication older than others.
    pub fn publish(&self, counters: &Counters, io: &IoStats) {
        for (cell, value) in self.cells.counters.iter().zip(counters.values()) {
            cell.store(*value, Ordering::Relaxed);
        }
        for (cell, value) in self.cells.io.iter().zip(to_array(io)) {
            cell.store(value, Ordering::Relaxed);
        }
        // One writer: no read-modify-write is needed.
        let publications = self.cells.publications.load(Ordering::Relaxed);
        self.cells.publications.store(publications.wrapping_add(1), Ordering::Relaxed);
    }

    /// Publishes what was seen of the media. Only the worker that owns the cells calls this.
    pub fn publish_media(&self, media: &[Media]) {
        let seen = |media: &&Media| media.value(MediaCounter::Bytes) + media.value(MediaCounter::Rtcp) > 0;
        for (cells, media) in self.media.iter().zip(media).filter(|(_, media)| seen(media)) {
            for (cell, word) in cells.iter().zip(media.words()) {
                cell.store(*word, Ordering::Relaxed);
            }
        }
    }

    /// What was published of the media in one place.
    pub(crate) fn media(&self, place: usize) -> Media {
        Media::from_words(std::array::from_fn(|i| {
            self.media.get(place).map_or(0, |cells| cells[i].load(Ordering::Relaxed))
        }))
    }

    pub(crate) fn counter(&self, counter: Counter) -> u64 {
        self.cells.counters[counter.index()].load(Ordering::Relaxed)
    }

    pub(crate) fn io(&self) -> IoStats {
        let mut values = [0; IO];
        for (value, cell) in values.iter_mut().zip(&self.cells.io) {
            *value = cell.load(Ordering::Relaxed);
        }
        from_array(values)
    }

    pub(crate) fn publications(&self) -> u64 {
        self.cells.publications.load(Ordering::Relaxed)
    }
}

fn to_array(io: &IoStats) -> [u64; IO] {
    // Without `..`: a new field does not compile until it has a cell.
    let IoStats {
        completions,
        cq_overflows,
        enters,
        rearms,
        no_slots,
        truncated,
        send_full,
        send_failed,
        socket_drops,
        bursts_received,
        burst_packets_received,
        bursts_sent,
        burst_packets_sent,
        slots,
        slots_free,
        long_slots,
        long_slots_free,
        busy_nanos,
    } = *io;
    [
        completions,
        cq_overflows,
        enters,
        rearms,
        no_slots,
        truncated,
        send_full,
        send_failed,
        socket_drops,
        bursts_received,
        burst_packets_received,
        bursts_sent,
        burst_packets_sent,
        slots,
        slots_free,
        long_slots,
        long_slots_free,
        busy_nanos,
    ]
}

fn from_array(values: [u64; IO]) -> IoStats {
    let [
        completions,
        cq_overflows,
        enters,
        rearms,
        no_slots,
        truncated,
        send_full,
        send_failed,
        socket_drops,
        bursts_received,
        burst_packets_received,
        bursts_sent,
        burst_packets_sent,
        slots,
        slots_free,
        long_slots,
        long_slots_free,
        busy_nanos,
    ] = values;
    IoStats {
        completions,
        cq_overflows,
        enters,
        rearms,
        no_slots,
        truncated,
        send_full,
        send_failed,
        socket_drops,
        bursts_received,
        burst_packets_received,
        bursts_sent,
        burst_packets_sent,
        slots,
        slots_free,
        long_slots,
        long_slots_free,
        busy_nanos,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_read() {
        let cells = WorkerCells::default();
        let io = from_array(std::array::from_fn(|i| i as u64 + 1));
        assert_eq!(to_array(&io), std::array::from_fn(|i| i as u64 + 1));
        cells.publish(&Counters::default(), &io);
        assert_eq!((cells.io(), cells.publications()), (io, 1));
    }

    #[test]
    fn two_workers_share_no_cache_line() {
        assert!(align_of::<WorkerCells>() >= 64);
    }
}
