//! What the record plane has done, as it tells when it is asked.

use std::sync::OnceLock;

/// Its figures. All zero where nothing is recorded.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Records {
    /// Events written and synced.
    pub events_written: u64,
    /// Events lost.
    pub events_lost: u64,
    /// Records that were written without their addresses, whose key was no more.
    pub addresses_lost: u64,
    /// Refusals that were not written down, since their tenant had too many.
    pub denials_left_out: u64,
    /// Answers of plugins whose words for the audit were not written down: their tenant had too many in that minute, or
    /// too much waited for the disk.
    pub tags_left_out: u64,
    /// Admissions by what came of their record.
    pub admissions: Admissions,
    /// Commits.
    pub commits: u64,
    /// Commits that failed.
    pub commits_failed: u64,
    /// Seconds that commits took together.
    pub commit_seconds: f64,
    /// Seconds of the longest commit.
    pub commit_seconds_max: f64,
    /// Records that wait for the store.
    pub queue_depth: u64,
    /// Records kept in memory until the disk takes them.
    pub backlog: u64,
    /// Number of the last entry of the audit.
    pub audit_entries: u64,
    /// The audit did not end where it was signed.
    pub audit_broken: bool,
    /// Keys of addresses that live.
    pub keys_live: u64,
    /// Keys destroyed.
    pub keys_destroyed: u64,
    /// Keys found gone.
    pub keys_lost: u64,
    /// Keys whose files could not be destroyed.
    pub keys_undestroyed: u64,
    /// The most that the destruction of a key has come too late, or is overdue.
    pub key_late_seconds_max: u64,
    /// Steps of the wall clock.
    pub clock_steps: u64,
    /// Look-ups of addresses.
    pub lookups: u64,
    /// Legal holds.
    pub holds: u64,
    /// Sessions under one.
    pub held_sessions: u64,
    /// Bans that hold.
    pub bans: u64,
    /// What waits for its sinks.
    pub spool: Spooled,
}

/// What waits for its sinks, and what became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spooled {
    /// Bytes of it.
    pub bytes: u64,
    /// Lines written.
    pub written: u64,
    /// Lines that not every sink got.
    pub dropped: Dropped,
    /// Files removed that could not be overwritten.
    pub removed_unwiped: u64,
    /// Files that should be gone and are still there.
    pub overdue_segments: u64,
    /// Lines that sinks have acknowledged, once for each sink.
    pub shipped: u64,
    /// Times that a sink did not take a batch.
    pub failures: u64,
    /// Bytes that sinks have not acknowledged, once for each sink.
    pub backlog_bytes: u64,
    /// Sinks whose last attempt failed.
    pub sinks_down: u64,
}

/// Lines that not every sink got, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Dropped {
    /// The queue was full.
    pub queue: u64,
    /// Every file waited for a sink.
    pub full: u64,
    /// The disk did not take it.
    pub unwritable: u64,
    /// It could not be one line.
    pub unfit: u64,
    /// It became too old to be kept, once for each sink that did not get it.
    pub expired: u64,
}

impl Dropped {
    /// Each with its label.
    pub(crate) const fn by_label(&self) -> [(&'static str, u64); 5] {
        [
            ("queue", self.queue),
            ("full", self.full),
            ("unwritable", self.unwritable),
            ("unfit", self.unfit),
            ("expired", self.expired),
        ]
    }
}

/// Admissions by what came of their record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Admissions {
    /// Written in time.
    pub written: u64,
    /// The queue was full.
    pub full: u64,
    /// It could not be written.
    pub failed: u64,
    /// Not written in time.
    pub late: u64,
}

impl Admissions {
    /// Each with its label.
    pub(crate) const fn by_label(&self) -> [(&'static str, u64); 4] {
        [("written", self.written), ("full", self.full), ("failed", self.failed), ("late", self.late)]
    }
}

/// Where figures come from, once there is somebody who has them.
pub(crate) struct Watch<T>(OnceLock<Box<dyn Fn() -> T + Send + Sync>>);

impl<T> Default for Watch<T> {
    fn default() -> Self {
        Watch(OnceLock::new())
    }
}

impl<T: Default> Watch<T> {
    pub(crate) fn set(&self, figures: Box<dyn Fn() -> T + Send + Sync>) {
        // There is one of each in the life of a process.
        let _ = self.0.set(figures);
    }

    pub(crate) fn read(&self) -> T {
        self.0.get().map(|figures| figures()).unwrap_or_default()
    }
}
