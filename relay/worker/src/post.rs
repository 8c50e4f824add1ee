//! Bounded queues between workers, and from the control plane to a worker.

use std::fmt;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use sluice_base::io::Waker;
use sluice_base::limits::WORKER_QUEUE_MAX;
use sluice_base::message::{AllocationPage, Envelope};
use sluice_turn::{Bans, Settings};

/// A worker's own end of its queue.
#[derive(Clone, Debug)]
pub struct Mailbox(Arc<ArrayQueue<Mail>>);

/// The other end: whoever has it may write to the worker.
#[derive(Clone, Debug)]
pub struct Post {
    queue: Arc<ArrayQueue<Mail>>,
    waker: Waker,
}

/// What is done with an answer, on the worker's thread: it must not wait.
pub type Answer<T> = Box<dyn FnOnce(T) + Send>;

/// What lies in a queue.
pub(crate) enum Mail {
    Envelope(Envelope),
    Barrier(Answer<()>),
    Configure(Arc<Settings>, Answer<()>),
    Ban(Arc<Bans>, Answer<()>),
    List { from: u32, most: usize, answer: Answer<AllocationPage> },
}

impl Mailbox {
    /// An empty mailbox.
    pub fn new() -> Self {
        Mailbox(Arc::new(ArrayQueue::new(WORKER_QUEUE_MAX)))
    }

    /// An end to write to, which wakes the worker by `waker`.
    pub fn post(&self, waker: Waker) -> Post {
        Post { queue: self.0.clone(), waker }
    }

    pub(crate) fn take(&self) -> Option<Mail> {
        self.0.pop()
    }
}

impl Default for Mailbox {
    fn default() -> Self {
        Mailbox::new()
    }
}

impl Post {
    /// Writes to the worker and wakes it; false when its queue is full, and the message is lost.
    #[must_use]
    pub fn send(&self, envelope: Envelope) -> bool {
        self.put(Mail::Envelope(envelope))
    }

    /// Asks for a part of the worker's allocations, from place `from` of its table on; false when its queue is full.
    #[must_use]
    pub fn list(&self, from: u32, most: usize, answer: Answer<AllocationPage>) -> bool {
        self.put(Mail::List { from, most, answer })
    }

    /// Has `answer` called when all that was written before has been done; false when the queue is full.
    #[must_use]
    pub fn barrier(&self, answer: Answer<()>) -> bool {
        self.put(Mail::Barrier(answer))
    }

    /// Has the worker take over other settings; `answer` is called when it has. False when the queue is full.
    #[must_use]
    pub fn configure(&self, settings: Arc<Settings>, answer: Answer<()>) -> bool {
        self.put(Mail::Configure(settings, answer))
    }

    /// Has the worker take over other bans; `answer` is called when it has, and whoever is banned is gone. False when
    /// the queue is full.
    #[must_use]
    pub fn ban(&self, bans: Arc<Bans>, answer: Answer<()>) -> bool {
        self.put(Mail::Ban(bans, answer))
    }

    fn put(&self, mail: Mail) -> bool {
        let sent = self.queue.push(mail).is_ok();
        self.waker.wake();
        sent
    }
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mail::Envelope(envelope) => envelope.fmt(f),
            Mail::Configure(..) => f.write_str("Configure"),
            Mail::Ban(bans, _) => write!(f, "Ban({bans:?})"),
            Mail::Barrier(_) => f.write_str("Barrier"),
            Mail::List { from, most, .. } => write!(f, "List {{ from: {from}, most: {most} }}"),
        }
    }
}
