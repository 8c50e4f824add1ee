//! The spool: records that leave the relay. They wait in bounded files until every sink has them, and are then
//! overwritten.
//!
//! **A line that [`SpoolHandle::offer`] took reaches each sink at least once, unless the disk fails, the machine ends
//! within the second in which it was taken, or the sink is away for as long as lines are kept; what is dropped or lost
//! is counted.**
//!
//! ```text
//!  store thread --offer--> queue --> segment n (written) --> sink: file, http
//!                                    segment n-1, n-2 ...    each with a place of its own
//! ```
//!
//! A segment is a file of JSON lines, `NUMBER-BEGAN.jsonl`. Each line carries `segment` and `line`, which together are
//! given out once in the life of a spool: a receiver that has seen a pair drops the second one. A start never adds to a
//! segment of a former run, and the number of a segment is on the disk before anything of it is sent.
//!
//! **When it is on the disk.** Lines are written when they come, at most once in 50 ms, and synced once a second and
//! whenever a segment is closed. A record that must not be lost is the store's, not the spool's. Progress is synced
//! once a second while it moves, so a crash sends at most a second of lines again.
//!
//! **When it is gone.** A segment that all sinks have is overwritten with zeros, synced and removed within a second. So
//! is one that began [`SpoolOptions::keep`] ago, read or not, by the wall clock or by the boot clock, whichever says so
//! first. Without sinks there is no spool, and what a former one has left goes at the start.
//!
//! The thread has a tokio-uring runtime of its own, made before [`start`] returns: after that no ring is needed. Where
//! io_uring is refused, plain calls do the same, which the start says.

mod age;
mod files;
mod http;
mod load;
mod progress;
mod reader;
mod run;
mod segments;
mod sink;
#[cfg(test)]
mod tests;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use sluice_base::limits;
use tokio::sync::Notify;

use crate::vault::Platform;
pub(crate) use load::{is_empty, remove_all};
pub use sink::SinkOptions;

/// What a spool is started with.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// A directory for it alone; it is made where it is not there.
    pub directory: PathBuf,
    /// What receivers know this relay by: letters, digits, `.`, `-` and `_`.
    pub node: String,
    /// Where lines go. None: there is no spool.
    pub sinks: Vec<SinkOptions>,
    /// Bytes of one segment.
    pub segment_bytes: u64,
    /// Segments at most; when all wait for a sink, new lines are dropped.
    pub segments: usize,
    /// Longest stay of a line.
    pub keep: Duration,
    /// Whether io_uring is used where it is to be had.
    pub uring: bool,
}

impl SpoolOptions {
    /// A spool of the usual size.
    pub fn new(directory: PathBuf, node: String, sinks: Vec<SinkOptions>) -> Self {
        SpoolOptions {
            directory,
            node,
            sinks,
            segment_bytes: limits::SPOOL_SEGMENT_BYTES_DEFAULT,
            segments: limits::SPOOL_SEGMENTS_DEFAULT,
            keep: limits::SPOOL_KEEP_MAX,
            uring: true,
        }
    }

    fn check(&self) -> Result<(), StartError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if self.node.is_empty() || !self.node.chars().all(is_plain) {
            return Err(StartError::Options("the node's name has to be of letters, digits, '.', '-' and '_'"));
        }
        let bytes = limits::SPOOL_SEGMENT_BYTES_MIN..=limits::SPOOL_SEGMENT_BYTES_MAX;
        if !bytes.contains(&self.segment_bytes) {
            return Err(StartError::Options("a segment has 64 KiB to 64 MiB"));
        }
        if !(limits::SPOOL_SEGMENTS_MIN..=limits::SPOOL_SEGMENTS_MAX).contains(&self.segments) {
            return Err(StartError::Options("there are 2 to 16384 segments"));
        }
        if self.keep.is_zero() || self.keep > limits::SPOOL_KEEP_MAX {
            return Err(StartError::Options("lines are kept for 7 days at most, and not for no time"));
        }
        if self.sinks.len() > limits::SPOOL_SINKS_MAX {
            return Err(StartError::Options("there are 8 sinks at most"));
        }
        for (index, sink) in self.sinks.iter().enumerate() {
            let wrong = |why: String| StartError::Sink { number: index + 1, kind: sink.kind(), why };
            sink.check().map_err(wrong)?;
            if self.sinks[..index].iter().any(|other| other.id() == sink.id()) {
                return Err(wrong("it is there twice".to_owned()));
            }
        }
        Ok(())
    }

    fn room(&self) -> Room {
        Room { segment_bytes: self.segment_bytes, segments: self.segments, keep: self.keep }
    }
}

/// How much is kept, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Room {
    pub(crate) segment_bytes: u64,
    pub(crate) segments: usize,
    pub(crate) keep: Duration,
}

/// Why there is no spool.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A value that does not do.
    #[error("spool: {0}")]
    Options(&'static str),
    /// A sink that this version cannot send to.
    #[error("spool: sink {number} ({kind}): {why}")]
    Sink {
        /// Its place in the configuration, from 1.
        number: usize,
        /// Its kind.
        kind: &'static str,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The directory cannot be used.
    #[error("spool: {}: {error}. It has to be a directory that the relay may write to", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The kernel's word.
        #[source]
        error: io::Error,
    },
    /// A later version was here.
    #[error("spool: {} has format {format}, of a later version of sluice: start that one, or remove the file, which \
             sends all that is kept again", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// No thread, or no runtime on it.
    #[error("spool: its thread does not start: {0}")]
    Thread(#[source] io::Error),
}

/// One record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// The name of its kind.
    pub kind: &'static str,
    /// A JSON object on one line, without `segment`, `line` and `kind`, which the spool puts in front.
    pub json: Vec<u8>,
}

impl Line {
    /// Whether it can be one line of a segment.
    fn is_sound(&self) -> bool {
        let json = self.json.as_slice();
        let is_object = json.starts_with(b"{") && json.ends_with(b"}") && json.len() >= 2;
        is_object && json.len() <= limits::SPOOL_LINE_BYTES_MAX && is_text(json)
    }

    /// Adds it, numbered, to the bytes of a segment.
    fn write(&self, segment: u64, number: u64, into: &mut Vec<u8>) {
        // Writing to a vector does not fail.
        let _ = write!(into, "{}\"kind\":\"{}\"", prefix(segment, number), self.kind);
        if self.json.len() > 2 {
            into.push(b',');
        }
        into.extend_from_slice(&self.json[1..]);
        into.push(b'\n');
    }

    /// Whether bytes with their end are a line that was written with this number.
    fn is_numbered(bytes: &[u8], segment: u64, number: u64) -> bool {
        let Some(line) = bytes.strip_suffix(b"}\n") else { return false };
        line.starts_with(prefix(segment, number).as_bytes()) && is_text(line)
    }
}

fn prefix(segment: u64, number: u64) -> String {
    format!("{{\"segment\":{segment},\"line\":{number},")
}

/// Without line ends and zeros, which a file has where a crash kept its length and not its content.
fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte >= b' ') && std::str::from_utf8(bytes).is_ok()
}

/// What has become of lines and segments since the start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct SpoolStats {
    /// Bytes of the segments that are there.
    pub bytes: u64,
    /// Segments that are there.
    pub segments: u64,
    /// Lines written.
    pub written: u64,
    /// Lines that found the queue full.
    pub dropped_queue: u64,
    /// Lines that found every segment waiting for a sink.
    pub dropped_full: u64,
    /// Lines that the disk did not take.
    pub dropped_unwritable: u64,
    /// Lines that were no JSON object on one line, or too long.
    pub dropped_unfit: u64,
    /// Lines that were too old to be kept before a sink had them, once for each such sink.
    pub expired: u64,
    /// Segments overwritten and removed.
    pub wiped_segments: u64,
    /// Segments removed that could not be overwritten.
    pub removed_unwiped: u64,
    /// Segments that should be gone and are still there.
    pub overdue_segments: u64,
    /// Each sink, in the order of the configuration.
    pub sinks: Vec<SinkStats>,
}

/// What has become of one sink since the start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct SinkStats {
    /// `file` or `http`.
    pub kind: &'static str,
    /// Bytes that it has not acknowledged.
    pub backlog_bytes: u64,
    /// Batches that it has acknowledged.
    pub batches: u64,
    /// Lines that it has acknowledged.
    pub lines: u64,
    /// Times that it did not take a batch.
    pub failures: u64,
    /// Lines that it will never get.
    pub lost_lines: u64,
    /// Whether the last attempt failed.
    pub is_down: bool,
    /// How long ago it last took a batch.
    pub last_success: Option<Duration>,
}

/// A running spool.
#[derive(Debug)]
pub struct Spool {
    handle: SpoolHandle,
    thread: Option<JoinHandle<()>>,
    ended: Receiver<()>,
    io: &'static str,
}

/// Hands lines to a spool, from any thread.
#[derive(Clone, Debug)]
pub struct SpoolHandle {
    shared: Arc<Shared>,
    queue: Option<Sender<Line>>,
}

/// What the thread and the others both see.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) wake: Notify,
    pub(crate) is_stopping: AtomicBool,
    dropped: AtomicU64,
    pub(crate) stats: Mutex<SpoolStats>,
}

/// Starts the files thread. It returns when the thread is ready, its ring included: what denies new rings comes after.
///
/// # Errors
/// [`StartError`], in words for an operator.
pub fn start(options: SpoolOptions, platform: Arc<dyn Platform>) -> Result<Spool, StartError> {
    options.check()?;
    let (ended_at, ended) = bounded(1);
    if options.sinks.is_empty() {
        load::remove_all(&options.directory)?;
        let handle = SpoolHandle { shared: Arc::default(), queue: None };
        return Ok(Spool { handle, thread: None, ended, io: "none" });
    }
    let now = platform.moment();
    let found = load::load(&options.directory, options.room(), &options.sinks, platform.boot_id(), now)?;
    let (sender, queue) = bounded(limits::SPOOL_QUEUE_MAX);
    let handle = SpoolHandle { shared: Arc::default(), queue: Some(sender) };
    let (tell, told) = bounded(1);
    let job = run::Job { options, found, platform, queue, shared: handle.shared.clone(), ready: tell };
    let body = move || {
        run::run(job);
        let _ = ended_at.send(());
    };
    let thread = std::thread::Builder::new().name("files".to_owned()).spawn(body).map_err(StartError::Thread)?;
    let died = |_| StartError::Thread(io::Error::other("it ended at once"));
    let io = told.recv().map_err(died)?.map_err(StartError::Thread)?;
    tracing::info!("spool: its files are written through {io}");
    Ok(Spool { handle, thread: Some(thread), ended, io })
}

impl Spool {
    /// Hands lines to it.
    pub fn handle(&self) -> SpoolHandle {
        self.handle.clone()
    }

    /// What its files are written through: `io_uring`, `plain calls`, or `none` where there are no sinks.
    pub fn io(&self) -> &'static str {
        self.io
    }

    /// Writes down what was offered, keeps the progress and ends the thread; the sinks get the rest after the next
    /// start. A disk that hangs is not waited for.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.handle.shared.is_stopping.store(true, Ordering::Release);
        self.handle.shared.wake.notify_one();
        match self.ended.recv_timeout(limits::SPOOL_STOP_TIMEOUT) {
            Ok(()) => drop(thread.join()),
            Err(_) => tracing::error!("spool: its thread does not end"),
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.end();
    }
}

impl SpoolHandle {
    /// Whether there is a spool: where there is none, no line needs to be made.
    pub fn is_there(&self) -> bool {
        self.queue.is_some()
    }

    /// Hands a line over without ever waiting. False, and counted: the queue is full, or the spool has ended.
    pub fn offer(&self, line: Line) -> bool {
        let Some(queue) = &self.queue else { return false };
        let is_taken = queue.try_send(line).is_ok();
        match is_taken {
            true => self.shared.wake.notify_one(),
            false => drop(self.shared.dropped.fetch_add(1, Ordering::Relaxed)),
        }
        is_taken
    }

    /// The figures, at most a second old.
    pub fn stats(&self) -> SpoolStats {
        let mut stats = self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner).clone();
        stats.dropped_queue = self.shared.dropped.load(Ordering::Relaxed);
        stats
    }
}
