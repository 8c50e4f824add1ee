//! What one worker publishes: plain atomics that only it writes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use sluice_base::io::IoStats;
use sluice_base::stats::{Counter, Counters};

/// Numbers in an [`IoStats`].
const IO: usize = 12;

/// What the control plane says of the whole process.
#[derive(Debug, Default)]
pub struct ProcessCells {
    draining: AtomicBool,
}

impl ProcessCells {
    /// The relay lets nobody new in.
    pub fn drains(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn draining(&self) -> f64 {
        f64::from(u8::from(self.draining.load(Ordering::Relaxed)))
    }
}

/// The published counters of one worker. One writer, any number of readers.
#[derive(Debug)]
pub struct WorkerCells {
    cells: CachePadded<Cells>,
}

#[derive(Debug)]
struct Cells {
    counters: [AtomicU64; Counter::COUNT],
    io: [AtomicU64; IO],
    publications: AtomicU64,
}

impl Default for WorkerCells {
    fn default() -> Self {
        let cells = Cells {
            counters: [const { AtomicU64::new(0) }; Counter::COUNT],
            io: [const { AtomicU64::new(0) }; IO],
            publications: AtomicU64::new(0),
        };
        WorkerCells { cells: CachePadded::new(cells) }
    }
}

impl WorkerCells {
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
        slots,
        slots_free,
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
        slots,
        slots_free,
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
        slots,
        slots_free,
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
        slots,
        slots_free,
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
