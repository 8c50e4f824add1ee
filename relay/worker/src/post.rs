//! Bounded queues between workers, and from the control plane to a worker.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use sluice_base::io::Waker;
use sluice_base::limits::WORKER_QUEUE_MAX;
use sluice_base::message::Envelope;

/// A worker's own end of its queue.
#[derive(Clone, Debug)]
pub struct Mailbox(Arc<ArrayQueue<Envelope>>);

/// The other end: whoever has it may write to the worker.
#[derive(Clone, Debug)]
pub struct Post {
    queue: Arc<ArrayQueue<Envelope>>,
    waker: Waker,
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

    pub(crate) fn take(&self) -> Option<Envelope> {
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
        let sent = self.queue.push(envelope).is_ok();
        self.waker.wake();
        sent
    }
}
