//! What the store counts.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::store::Trouble;

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What the record plane has done since its start. Counters, unless a line says that it is a gauge.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[non_exhaustive]
        pub struct RecordStats {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(crate) struct Cells {
            $(pub(crate) $name: AtomicU64,)*
        }

        impl Cells {
            fn read(&self) -> RecordStats {
                RecordStats { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

stats! {
    /// Events that are written and synced.
    events_written,
    /// Events that were lost: their queue was full, the disk took nothing for too long, the process ended.
    events_lost,
    /// Records that were written without their addresses: they had waited until the key of their day was no more, or
    /// that day had none.
    addresses_lost,
    /// Refusals that were not written down, since their tenant had too many in that minute.
    denials_beyond,
    /// Answers of plugins whose words were not written down, since their tenant had too many in that minute or too much
    /// waited for the disk.
    tags_beyond,
    /// Admissions whose record was written in time.
    admissions_written,
    /// Admissions refused: their queue was full.
    admissions_full,
    /// Admissions refused: their record could not be written, or nobody is there to write it.
    admissions_failed,
    /// Admissions refused: their record was not written in time.
    admissions_late,
    /// Commits, each synced.
    commits,
    /// Nanoseconds that they took together.
    commit_nanos,
    /// Nanoseconds of the longest.
    commit_nanos_max,
    /// Transactions that failed.
    commits_failed,
    /// Gauge: records that wait for the store.
    queue_depth,
    /// Gauge: records kept in memory until the disk takes them.
    backlog,
    /// Number of the last entry of the audit.
    audit_entries,
    /// Keys of the day that were destroyed.
    keys_destroyed,
    /// Keys of the day that were found gone.
    keys_lost,
    /// Gauge: keys of the day that live.
    keys_live,
    /// Gauge: seconds by which the latest destruction of a key came too late, or is overdue.
    key_late_seconds_max,
    /// Gauge: keys whose files could not be destroyed.
    keys_undestroyed,
    /// Sessions, refusals and entries of the audit that reached the end of their retention and are removed.
    swept,
    /// Gauge: seconds by which the wall clock is ahead of what is believed of it for removing: not zero means that an
    /// operator has to confirm the clock.
    sweep_held_back_seconds,
    /// Steps of the wall clock.
    clock_steps,
    /// Look-ups of an address.
    lookups,
    /// Gauge: legal holds.
    holds,
    /// Gauge: sessions under one.
    held_sessions,
    /// Gauge: 1 when the audit did not end where it was signed at the start.
    audit_broken,
}

/// What the plane's threads and its handles share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) cells: Cells,
    /// Rings when bans have ended.
    pub(crate) bell: Bell,
    dead: AtomicBool,
    /// 0 for none, otherwise one more than its place among all.
    trouble: AtomicU8,
}

/// Somebody who is to be told.
#[derive(Default)]
pub(crate) struct Bell(Mutex<Option<Box<dyn Fn() + Send>>>);

impl Bell {
    /// Has `call` called at each ring, from the store's thread.
    pub(crate) fn connect(&self, call: Box<dyn Fn() + Send>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(call);
    }

    pub(crate) fn ring(&self) {
        if let Some(call) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            call();
        }
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bell")
    }
}

impl Shared {
    pub(crate) fn stats(&self) -> RecordStats {
        self.cells.read()
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Nothing is written any more.
    pub(crate) fn die(&self) {
        self.dead.store(true, Ordering::Release);
    }

    pub(crate) fn trouble(&self) -> Option<Trouble> {
        let place = self.trouble.load(Ordering::Relaxed);
        Trouble::ALL.get(usize::from(place).checked_sub(1)?).copied()
    }

    pub(crate) fn set_trouble(&self, trouble: Option<Trouble>) {
        let place = trouble.and_then(|trouble| Trouble::ALL.iter().position(|t| *t == trouble));
        self.trouble.store(place.map_or(0, |place| place as u8 + 1), Ordering::Relaxed);
    }

    pub(crate) fn committed(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        add(&self.cells.commits, 1);
        add(&self.cells.commit_nanos, nanos);
        self.cells.commit_nanos_max.fetch_max(nanos, Ordering::Relaxed);
    }
}

pub(crate) fn add(cell: &AtomicU64, n: u64) {
    cell.fetch_add(n, Ordering::Relaxed);
}

pub(crate) fn set(cell: &AtomicU64, value: u64) {
    cell.store(value, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_comes_and_goes() {
        let shared = Shared::default();
        assert_eq!(shared.trouble(), None);
        for trouble in Trouble::ALL {
            shared.set_trouble(Some(*trouble));
            assert_eq!(shared.trouble(), Some(*trouble));
        }
        shared.set_trouble(None);
        assert_eq!(shared.trouble(), None);
    }
}
