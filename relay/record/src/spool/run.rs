//! The files thread: lines from the queue into segments, batches from segments to sinks.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crossbeam::channel::{Receiver, Sender};
use sluice_base::limits;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep_until};

use super::files::{FileWriter, Plain, Ring};
use super::progress::Place;
use super::segments::{Batch, Found, Segments};
use super::sink::Sink;
use super::{Line, Shared, SpoolOptions};
use crate::vault::Platform;

/// What the thread is given.
pub(crate) struct Job {
    pub(crate) options: SpoolOptions,
    pub(crate) found: Found,
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) queue: Receiver<Line>,
    pub(crate) shared: Arc<Shared>,
    /// Told what the files go through as soon as the runtime is there.
    pub(crate) ready: Sender<io::Result<&'static str>>,
}

/// Entries of the ring: a write or a sync for each sink, and some.
const ENTRIES: u32 = 32;

/// The thread's body.
pub(crate) fn run(job: Job) {
    match job.options.uring.then(|| tokio_uring::Runtime::new(tokio_uring::builder().entries(ENTRIES))) {
        Some(Ok(runtime)) => return runtime.block_on(async { work(job, Ring::new(), "io_uring").await }),
        Some(Err(error)) => {
            tracing::warn!("spool: io_uring is refused ({error}): its files are written by plain calls");
        }
        None => {}
    }
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => LocalSet::new().block_on(&runtime, work(job, Plain, "plain calls")),
        Err(error) => drop(job.ready.send(Err(error))),
    }
}

/// What a sink's task says of its batch.
type Done = (usize, Place, Result<(), String>);

/// The thread at work.
struct Work<F: FileWriter> {
    segments: Segments<F>,
    platform: Arc<dyn Platform>,
    queue: Receiver<Line>,
    shared: Arc<Shared>,
    sinks: Vec<mpsc::UnboundedSender<Batch>>,
}

async fn work<F: FileWriter>(job: Job, files: F, io: &'static str) {
    let (tell, mut told) = mpsc::unbounded_channel();
    let sinks: Result<Vec<_>, String> = (job.options.sinks.iter().enumerate())
        .map(|(index, sink)| Ok(serve(index, Sink::new(sink, files.clone(), &job.options.node)?, tell.clone())))
        .collect();
    let sinks = match sinks {
        Ok(sinks) => sinks,
        Err(why) => return drop(job.ready.send(Err(io::Error::other(why)))),
    };
    let segments = Segments::new(files, job.found);
    let mut work = Work { segments, platform: job.platform, queue: job.queue, shared: job.shared, sinks };
    work.publish();
    // Whoever waits for it may have gone; then the stop follows.
    let _ = job.ready.send(Ok(io));
    let (mut next_tick, mut next_write) = (Instant::now(), Instant::now());
    while !work.is_stopping() {
        let offered = async {
            work.shared.wake.notified().await;
            // Lines that come together are written together; a stop does not wait for that.
            if !work.is_stopping() {
                sleep_until(next_write).await;
            }
        };
        let done = tokio::select! {
            () = offered => None,
            () = sleep_until(next_tick) => None,
            done = told.recv() => done,
        };
        work.settle(done);
        work.write().await;
        next_write = Instant::now() + limits::SPOOL_GATHER;
        if Instant::now() >= next_tick {
            work.segments.tick(work.platform.moment()).await;
            next_tick = Instant::now() + limits::SPOOL_SHIP_INTERVAL;
        }
        work.ship().await;
        work.publish();
    }
    work.write().await;
    work.segments.finish(work.platform.moment()).await;
    work.publish();
}

/// A task for one sink: a batch at a time.
fn serve<F: FileWriter>(
    index: usize,
    mut sink: Sink<F>,
    tell: mpsc::UnboundedSender<Done>,
) -> mpsc::UnboundedSender<Batch> {
    let (give, mut given) = mpsc::unbounded_channel::<Batch>();
    spawn_local(async move {
        while let Some(batch) = given.recv().await {
            let done = sink.deliver(&batch).await;
            if tell.send((index, batch.end, done)).is_err() {
                return;
            }
        }
    });
    give
}

impl<F: FileWriter> Work<F> {
    fn is_stopping(&self) -> bool {
        self.shared.is_stopping.load(Ordering::Acquire)
    }

    /// Writes down all that waits.
    async fn write(&mut self) {
        let lines: Vec<Line> = self.queue.try_iter().take(limits::SPOOL_QUEUE_MAX).collect();
        if !lines.is_empty() {
            self.segments.append(&lines, self.platform.moment()).await;
        }
    }

    /// Gives each sink that is ready its next batch.
    async fn ship(&mut self) {
        for sink in 0..self.sinks.len() {
            if let Some(batch) = self.segments.batch(sink, self.platform.moment()).await {
                // Its task is there as long as this end.
                let _ = self.sinks[sink].send(batch);
            }
        }
    }

    fn settle(&mut self, done: Option<Done>) {
        let now = self.platform.moment();
        match done {
            Some((sink, end, Ok(()))) => self.segments.delivered(sink, end, now),
            Some((sink, _, Err(why))) => self.segments.failed(sink, &why, now),
            None => {}
        }
    }

    fn publish(&self) {
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = self.segments.stats(self.platform.moment());
    }
}
