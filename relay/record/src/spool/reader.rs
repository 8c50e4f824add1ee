//! How far one sink is, and when it is tried again.

use std::time::Duration;

use sluice_base::{Mono, limits};

use super::SinkStats;
use super::progress::Place;

/// What is known of one sink.
#[derive(Debug)]
pub(crate) struct Reader {
    /// What it is called in the file of progress.
    pub(crate) id: String,
    /// What it is called where people read: its place in the configuration, and its kind.
    pub(crate) label: String,
    kind: &'static str,
    /// All before it is acknowledged.
    pub(crate) place: Place,
    /// A batch is under way.
    pub(crate) busy: bool,
    /// Bytes of its segment up to which the batch goes that failed: it is tried again with the same extent, so that a
    /// receiver may know it by its key.
    pub(crate) again: Option<u64>,
    not_before: Mono,
    /// When its last batch began.
    pub(crate) last_batch: Option<Mono>,
    failures_in_a_row: u32,
    last_success: Option<Mono>,
    is_down: bool,
    batches: u64,
    lines: u64,
    failures: u64,
    lost: u64,
}

impl Reader {
    /// A sink that has acknowledged all before `place`.
    pub(crate) fn new(id: String, kind: &'static str, index: usize, place: Place) -> Self {
        let label = format!("sink {} ({kind})", index + 1);
        Reader {
            id,
            label,
            kind,
            place,
            busy: false,
            again: None,
            not_before: Mono::default(),
            last_batch: None,
            failures_in_a_row: 0,
            last_success: None,
            is_down: false,
            batches: 0,
            lines: 0,
            failures: 0,
            lost: 0,
        }
    }

    /// Whether it may be given something now.
    pub(crate) fn is_ready(&self, now: Mono) -> bool {
        !self.busy && now >= self.not_before
    }

    /// Whether it has acknowledged `bytes` bytes of segment `number`.
    pub(crate) fn has(&self, number: u64, bytes: u64) -> bool {
        self.place.segment > number || (self.place.segment == number && self.place.bytes >= bytes)
    }

    /// It has acknowledged all before `end`; a second time, or too late, it changes nothing.
    pub(crate) fn delivered(&mut self, end: Place, now: Mono) {
        self.busy = false;
        self.again = None;
        self.failures_in_a_row = 0;
        self.not_before = Mono::default();
        self.last_success = Some(now);
        if end > self.place {
            let known = if end.segment == self.place.segment { self.place.lines } else { 0 };
            self.batches += 1;
            self.lines += end.lines - known;
            self.place = end;
        }
        if std::mem::take(&mut self.is_down) {
            tracing::info!("spool: {} takes records again", self.label);
        }
    }

    /// It did not take a batch: after a while that doubles it is tried again.
    pub(crate) fn failed(&mut self, why: &str, now: Mono) {
        self.busy = false;
        self.failures += 1;
        let doubled = limits::SPOOL_RETRY_MIN.saturating_mul(1 << self.failures_in_a_row.min(16));
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        self.not_before = now.after(doubled.min(limits::SPOOL_RETRY_MAX));
        if !std::mem::replace(&mut self.is_down, true) {
            tracing::warn!("spool: {} takes no records: {why}; they are kept, and it is tried again", self.label);
        }
    }

    /// Goes on at `place` without `lines` lines that it will not get.
    pub(crate) fn lose(&mut self, lines: u64, place: Place) {
        self.lost += lines;
        self.again = None;
        self.place = place;
    }

    /// Its figures, with the bytes that it has not acknowledged.
    pub(crate) fn stats(&self, backlog_bytes: u64, now: Mono) -> SinkStats {
        SinkStats {
            kind: self.kind,
            backlog_bytes,
            batches: self.batches,
            lines: self.lines,
            failures: self.failures,
            lost_lines: self.lost,
            is_down: self.is_down,
            last_success: self.last_success.map(|at| now.since(at)),
        }
    }
}

/// How long since a batch began; long ago when there was none.
pub(crate) fn since(last: Option<Mono>, now: Mono) -> Duration {
    last.map_or(Duration::MAX, |at| now.since(at))
}
