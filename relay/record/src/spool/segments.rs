//! The segments on the disk, and who has read how much of them. Without sinks' networks, threads and clocks of its own.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use sluice_base::{Mono, limits};

use super::age::{self, AgeClock};
use super::files::{FileWriter, Purpose};
use super::progress::{self, Place, Progress};
use super::reader::{self, Reader};
use super::{Line, Room, SpoolStats};
use sluice_privacy::Moment;

/// Bytes of zeros that are written at once.
static ZEROS: [u8; limits::SPOOL_BUFFER_BYTES] = [0; limits::SPOOL_BUFFER_BYTES];

/// A segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    /// It only ever grows.
    pub(crate) number: u64,
    /// When its first line was written, in seconds of the [`AgeClock`].
    pub(crate) began: u64,
    /// Bytes of whole lines.
    pub(crate) bytes: u64,
    /// Lines.
    pub(crate) lines: u64,
}

impl Segment {
    /// The name of its file.
    pub(crate) fn file_name(&self) -> String {
        format!("{:020}-{}.jsonl", self.number, self.began)
    }

    /// Number and beginning from a name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (number, began) = name.strip_suffix(".jsonl")?.split_once('-')?;
        let segment = Segment { number: number.parse().ok()?, began: began.parse().ok()?, bytes: 0, lines: 0 };
        (segment.file_name() == name).then_some(segment)
    }

    fn end(&self) -> Place {
        Place { segment: self.number, bytes: self.bytes, lines: self.lines }
    }
}

/// Lines of one segment for one sink.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Batch {
    /// The number of the segment.
    pub(crate) segment: u64,
    /// The number of the first line.
    pub(crate) first: u64,
    /// What is acknowledged when the sink has taken it.
    pub(crate) end: Place,
    /// The lines, each with its end.
    pub(crate) body: String,
}

/// What a start finds and is told.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) directory: PathBuf,
    pub(crate) room: Room,
    pub(crate) age: AgeClock,
    pub(crate) boot_id: Option<[u8; 16]>,
    pub(crate) next: u64,
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) readers: Vec<Reader>,
}

/// The segments.
#[derive(Debug)]
pub(crate) struct Segments<F: FileWriter> {
    files: F,
    found: Found,
    /// The last of the segments, while lines are added to it.
    open: Option<Open<F::File>>,
    /// Progress that was not kept yet.
    is_unsaved: bool,
    last_saved: Mono,
    last_synced: Mono,
    trouble: Trouble,
    counts: SpoolStats,
}

#[derive(Debug)]
struct Open<File> {
    file: File,
    is_dirty: bool,
}

/// What has been told and holds on.
#[derive(Clone, Copy, Debug, Default)]
struct Trouble {
    is_full: bool,
    is_unwritable: bool,
    is_overdue: bool,
}

impl<F: FileWriter> Segments<F> {
    /// Takes over what was found.
    pub(crate) fn new(files: F, found: Found) -> Self {
        let boot = found.age.boot();
        Segments {
            files,
            found,
            open: None,
            is_unsaved: true,
            last_saved: boot,
            last_synced: boot,
            trouble: Trouble::default(),
            counts: SpoolStats::default(),
        }
    }

    /// Writes lines down, as long as there is room.
    pub(crate) async fn append(&mut self, lines: &[Line], now: Moment) {
        self.found.age.advance(now);
        let mut rest = lines;
        while !rest.is_empty() {
            if self.open.is_none() && !self.begin().await {
                return self.drop_lines(rest.len() as u64);
            }
            let (taken, numbered, bytes) = self.number(rest);
            match taken {
                0 => self.close().await,
                _ => self.write(numbered, &bytes).await,
            }
            rest = &rest[taken..];
        }
    }

    /// What a sink is to get next, if it is there and the sink is ready for it.
    pub(crate) async fn batch(&mut self, sink: usize, now: Moment) -> Option<Batch> {
        if !self.found.readers.get(sink)?.is_ready(now.boot) {
            return None;
        }
        let segment = self.settle(sink)?;
        let reader = &mut self.found.readers[sink];
        let (place, last) = (reader.place, reader.again.unwrap_or(segment.bytes));
        let length = last.saturating_sub(place.bytes).min(limits::SPOOL_BATCH_BYTES_MAX as u64) as usize;
        let may_grow = self.open.is_some() && segment.number + 1 == self.found.next && last == segment.bytes;
        let is_early = reader::since(reader.last_batch, now.boot) < limits::SPOOL_SHIP_INTERVAL;
        if may_grow && is_early && length < limits::SPOOL_BATCH_BYTES_MAX {
            return None;
        }
        let Some(batch) = self.read(&segment, place, length).await else {
            self.skip(sink, &segment).await;
            return None;
        };
        let reader = &mut self.found.readers[sink];
        reader.busy = true;
        reader.again = Some(batch.end.bytes);
        reader.last_batch = Some(now.boot);
        Some(batch)
    }

    /// A sink has taken a batch.
    pub(crate) fn delivered(&mut self, sink: usize, end: Place, now: Moment) {
        if let Some(reader) = self.found.readers.get_mut(sink) {
            reader.delivered(end, now.boot);
            self.is_unsaved = true;
        }
    }

    /// A sink has not taken its batch.
    pub(crate) fn failed(&mut self, sink: usize, why: &str, now: Moment) {
        if let Some(reader) = self.found.readers.get_mut(sink) {
            reader.failed(why, now.boot);
        }
    }

    /// What is due: overwrites what all sinks have and what is too old, brings lines to the disk, keeps the progress.
    pub(crate) async fn tick(&mut self, now: Moment) {
        let seconds = self.found.age.advance(now);
        let last = self.found.segments.back().copied().filter(|_| self.open.is_some());
        if last.is_some_and(|last| age::is_over(last.began, seconds, limits::SPOOL_SEGMENT_AGE)) {
            self.close().await;
        }
        self.clear(seconds).await;
        if now.boot.since(self.last_synced) >= limits::SPOOL_SHIP_INTERVAL {
            self.last_synced = now.boot;
            self.sync().await;
        }
        let since = now.boot.since(self.last_saved);
        if since >= limits::SPOOL_SEGMENT_AGE || (self.is_unsaved && since >= limits::SPOOL_SHIP_INTERVAL) {
            self.last_saved = now.boot;
            let saved = self.save().await;
            self.told(saved);
        }
    }

    /// Brings all to the disk, for good.
    pub(crate) async fn finish(&mut self, now: Moment) {
        let seconds = self.found.age.advance(now);
        self.close().await;
        self.clear(seconds).await;
        let saved = self.save().await;
        self.told(saved);
    }

    /// Figures; those of the queue are not here.
    pub(crate) fn stats(&self, now: Moment) -> SpoolStats {
        let backlog = |reader: &Reader| -> u64 {
            let there = self.found.segments.iter().filter(|segment| segment.number >= reader.place.segment);
            let read = |segment: &Segment| if segment.number == reader.place.segment { reader.place.bytes } else { 0 };
            there.map(|segment| segment.bytes.saturating_sub(read(segment))).sum()
        };
        let sinks = self.found.readers.iter().map(|reader| reader.stats(backlog(reader), now.boot));
        SpoolStats {
            bytes: self.found.segments.iter().map(|segment| segment.bytes).sum(),
            segments: self.found.segments.len() as u64,
            sinks: sinks.collect(),
            ..self.counts.clone()
        }
    }

    /// Begins a segment; false where it cannot be.
    async fn begin(&mut self) -> bool {
        let is_full = self.found.segments.len() >= self.found.room.segments;
        if is_full != self.trouble.is_full {
            self.trouble.is_full = is_full;
            match is_full {
                true => tracing::error!("spool: it is full of what its sinks have not taken: new records are dropped"),
                false => tracing::info!("spool: there is room again"),
            }
        }
        if is_full {
            return false;
        }
        let number = self.found.next;
        self.found.next += 1;
        let segment = Segment { number, began: self.found.age.seconds(), bytes: 0, lines: 0 };
        match self.create(&segment).await {
            Ok(file) => {
                self.open = Some(Open { file, is_dirty: false });
                self.found.segments.push_back(segment);
                true
            }
            Err(error) => {
                self.told(Err(error));
                false
            }
        }
    }

    /// Makes its file. That its number is used up is on the disk before any sink can have seen it.
    async fn create(&mut self, segment: &Segment) -> io::Result<F::File> {
        self.save().await?;
        let path = self.path(segment);
        let file = self.files.open(&path, Purpose::New)?;
        match progress::sync_directory(&self.files, &self.found.directory).await {
            Ok(()) => Ok(file),
            Err(error) => {
                // Without a line in it, it is removed at the next start if not now.
                let _ = std::fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// As many lines as fit into the open segment: how many were looked at, how many of them are in the bytes.
    fn number(&mut self, lines: &[Line]) -> (usize, u64, Vec<u8>) {
        let Some(segment) = self.found.segments.back() else { return (0, 0, Vec::new()) };
        let (mut numbered, mut bytes) = (0, Vec::new());
        for (taken, line) in lines.iter().enumerate() {
            if !line.is_sound() {
                self.counts.dropped_unfit += 1;
                continue;
            }
            let start = bytes.len();
            line.write(segment.number, segment.lines + numbered, &mut bytes);
            if segment.bytes + bytes.len() as u64 > self.found.room.segment_bytes {
                bytes.truncate(start);
                return (taken, numbered, bytes);
            }
            numbered += 1;
        }
        (lines.len(), numbered, bytes)
    }

    async fn write(&mut self, lines: u64, bytes: &[u8]) {
        let (Some(open), Some(segment)) = (self.open.as_mut(), self.found.segments.back_mut()) else { return };
        if bytes.is_empty() {
            return;
        }
        open.is_dirty = true;
        let written = self.files.write(&open.file, bytes, segment.bytes).await;
        if written.is_ok() {
            segment.bytes += bytes.len() as u64;
            segment.lines += lines;
            self.counts.written += lines;
        } else {
            self.counts.dropped_unwritable += lines;
            // Where that fails too, a start finds out what is whole.
            let _ = self.files.cut(&open.file, segment.bytes);
        }
        self.told(written);
    }

    /// Adds nothing more to the open segment.
    async fn close(&mut self) {
        self.sync().await;
        self.open = None;
    }

    async fn sync(&mut self) {
        let Some(open) = self.open.as_mut().filter(|open| open.is_dirty) else { return };
        let synced = self.files.sync(&open.file).await;
        open.is_dirty = synced.is_err();
        self.told(synced);
    }

    async fn save(&mut self) -> io::Result<()> {
        let found = &self.found;
        let (seen, boot) = (found.age.seconds(), found.age.boot().nanos());
        let mut progress = Progress::new(found.next, seen, boot, found.boot_id);
        progress.sinks = found.readers.iter().map(|reader| (reader.id.clone(), reader.place)).collect();
        progress.save(&self.files, &found.directory).await?;
        self.is_unsaved = false;
        Ok(())
    }

    /// The segment in which a sink goes on, with its place moved there; none when it has all.
    fn settle(&mut self, sink: usize) -> Option<Segment> {
        let reader = self.found.readers.get_mut(sink)?;
        let segment = self.found.segments.iter().find(|segment| !reader.has(segment.number, segment.bytes))?;
        if segment.number != reader.place.segment {
            reader.place = Place { segment: segment.number, bytes: 0, lines: 0 };
            reader.again = None;
        }
        Some(*segment)
    }

    /// Whole lines of a segment; none where it cannot be read.
    async fn read(&self, segment: &Segment, place: Place, length: usize) -> Option<Batch> {
        let read = async {
            let file = self.files.open(&self.path(segment), Purpose::Read)?;
            self.files.read(&file, length, place.bytes).await
        };
        let mut bytes = match read.await {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!("spool: a segment cannot be read: {error}");
                return None;
            }
        };
        bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n')? + 1);
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        let end =
            Place { segment: segment.number, bytes: place.bytes + bytes.len() as u64, lines: place.lines + lines };
        Some(Batch { segment: segment.number, first: place.lines, end, body: String::from_utf8(bytes).ok()? })
    }

    /// A sink goes on behind a segment that cannot be read.
    async fn skip(&mut self, sink: usize, segment: &Segment) {
        if segment.number + 1 == self.found.next {
            self.close().await;
        }
        let reader = &mut self.found.readers[sink];
        let lost = segment.lines.saturating_sub(reader.place.lines);
        tracing::error!("spool: {lost} records of a damaged segment are lost for {}", reader.label);
        reader.lose(lost, segment.end());
    }

    /// Overwrites and removes what all sinks have, and what is too old.
    async fn clear(&mut self, seconds: u64) {
        let keep = self.found.room.keep;
        let is_old = |segment: &Segment| age::is_over(segment.began, seconds, keep);
        let is_read = |segment: &Segment, readers: &[Reader]| {
            segment.bytes > 0 && readers.iter().all(|reader| reader.has(segment.number, segment.bytes))
        };
        let is_due = |segment: &Segment, readers: &[Reader]| is_old(segment) || is_read(segment, readers);
        if self.found.segments.back().is_some_and(|last| is_due(last, &self.found.readers)) {
            self.close().await;
        }
        let due = self.found.segments.iter().filter(|segment| is_due(segment, &self.found.readers));
        let due: Vec<Segment> = due.copied().collect();
        let mut overdue = 0;
        for segment in &due {
            self.expire(segment);
            match self.wipe(segment).await {
                Ok(()) => self.counts.wiped_segments += 1,
                Err(error) => {
                    overdue += 1;
                    self.tell_overdue(&error);
                    continue;
                }
            }
            self.found.segments.retain(|kept| kept.number != segment.number);
        }
        self.counts.overdue_segments = overdue;
        self.trouble.is_overdue &= overdue > 0;
    }

    fn tell_overdue(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.trouble.is_overdue, true) {
            tracing::error!("spool: a segment that is due is still there: {error}; it is tried again each second");
        }
    }

    /// Whoever has not read it will not get it.
    fn expire(&mut self, segment: &Segment) {
        for reader in &mut self.found.readers {
            if reader.has(segment.number, segment.bytes) {
                continue;
            }
            let known = if reader.place.segment == segment.number { reader.place.lines } else { 0 };
            let lost = segment.lines - known.min(segment.lines);
            self.counts.expired += lost;
            tracing::error!("spool: {lost} records are too old to be kept, and lost for {}", reader.label);
            reader.lose(lost, segment.end());
            self.is_unsaved = true;
        }
    }

    /// Overwrites a segment and removes it; a file that cannot be overwritten is removed all the same.
    async fn wipe(&mut self, segment: &Segment) -> io::Result<()> {
        let path = self.path(segment);
        let wiped = wipe(&self.files, &path).await;
        std::fs::remove_file(&path).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        if let Err(error) = wiped {
            self.counts.removed_unwiped += 1;
            tracing::error!("spool: a segment was removed without being overwritten: {error}");
        }
        progress::sync_directory(&self.files, &self.found.directory).await
    }

    /// Tells of a disk that takes nothing, and of its return; once each.
    fn told(&mut self, done: io::Result<()>) {
        let is_unwritable = done.is_err();
        if is_unwritable != self.trouble.is_unwritable {
            self.trouble.is_unwritable = is_unwritable;
            match done {
                Err(error) => tracing::error!("spool: nothing can be written: {error}; new records are dropped"),
                Ok(()) => tracing::info!("spool: records are written again"),
            }
        }
    }

    fn drop_lines(&mut self, lines: u64) {
        match self.trouble.is_full {
            true => self.counts.dropped_full += lines,
            false => self.counts.dropped_unwritable += lines,
        }
    }

    fn path(&self, segment: &Segment) -> PathBuf {
        self.found.directory.join(segment.file_name())
    }
}

/// Overwrites a file with zeros, and waits until they are on the disk. On a file system that writes in place nothing of
/// it is left there; what a copy-on-write file system or a flash disk keeps elsewhere is beyond the reach of a program,
/// and is why class `ip` is in it only under the key of the day.
///
/// # Errors
/// The kernel's.
pub(crate) async fn wipe<F: FileWriter>(files: &F, path: &Path) -> io::Result<()> {
    let file = files.open(path, Purpose::Change)?;
    let length = std::fs::metadata(path)?.len();
    let mut at = 0;
    while at < length {
        let piece = (length - at).min(ZEROS.len() as u64);
        files.write(&file, &ZEROS[..piece as usize], at).await?;
        at += piece;
    }
    files.sync(&file).await
}
