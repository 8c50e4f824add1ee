//! [`base::Io`](sluice_base::io::Io) over the simulated kernel.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use sluice_base::event::RelayEvent;
use sluice_base::io::{DriverError, Event, Io, IoStats, OpenError, OpenSpec, Opened, SendOptions, Slot, Waker};
use sluice_base::policy::{Decide, Denial, Grant, Question, Verdict};
use sluice_base::{Mono, Now, QuestionId, SocketId, TransportAddress};

use crate::kernel::{Datagram, Shared};
use crate::rng::Rng;
use crate::scenario::Decisions;

/// The driver of one simulated worker. A wait never blocks: the world ticks a worker when there is
/// something to do.
pub(crate) struct SimIo {
    kernel: Shared,
    worker: usize,
}

/// A slot; whoever drops one instead of sending or freeing it is found out.
pub(crate) struct SimSlot {
    number: u32,
    buffer: Box<[u8]>,
    start: usize,
    len: usize,
    origin: Option<Rc<Datagram>>,
    lost: Rc<Cell<u32>>,
}

/// Answers a worker's questions as the scenario wants.
pub(crate) struct SimDecide {
    kernel: Shared,
    worker: usize,
}

impl SimIo {
    pub(crate) fn new(kernel: Shared, worker: usize) -> Self {
        SimIo { kernel, worker }
    }
}

impl SimDecide {
    pub(crate) fn new(kernel: Shared, worker: usize) -> Self {
        SimDecide { kernel, worker }
    }
}

impl Io for SimIo {
    type Slot = SimSlot;

    fn now(&self) -> Now {
        let kernel = self.kernel.borrow();
        kernel.tamper.clock(kernel.now)
    }

    fn wait(&mut self, _until: Mono, batch: &mut Vec<Event<SimSlot>>) -> Result<(), DriverError> {
        let mut kernel = self.kernel.borrow_mut();
        kernel.flush(self.worker);
        kernel.receive(self.worker, batch);
        Ok(())
    }

    fn send(&mut self, socket: SocketId, to: TransportAddress, slot: SimSlot, options: SendOptions) {
        self.kernel.borrow_mut().send(self.worker, socket, *to.expose(), slot, options);
    }

    fn blank(&mut self) -> Option<SimSlot> {
        self.kernel.borrow_mut().blank(self.worker)
    }

    fn free(&mut self, slot: SimSlot) {
        self.kernel.borrow_mut().free(self.worker, slot);
    }

    fn open(&mut self, spec: &OpenSpec) -> Result<Opened, OpenError> {
        self.kernel.borrow_mut().open(self.worker, spec)
    }

    fn close(&mut self, socket: SocketId) {
        self.kernel.borrow_mut().close(self.worker, socket);
    }

    fn waker(&self) -> Waker {
        let woken = self.kernel.borrow().drivers[self.worker].woken.clone();
        Waker::new(move || woken.store(true, Ordering::Relaxed))
    }

    fn stats(&mut self) -> IoStats {
        self.kernel.borrow().drivers[self.worker].stats()
    }
}

impl Drop for SimIo {
    fn drop(&mut self) {
        self.kernel.borrow_mut().dropped(self.worker);
    }
}

impl SimSlot {
    pub(crate) fn new(number: u32, buffer: Box<[u8]>, headroom: usize, lost: Rc<Cell<u32>>) -> Self {
        SimSlot { number, buffer, start: headroom, len: 0, origin: None, lost }
    }

    /// Takes a received datagram in.
    pub(crate) fn hold(&mut self, datagram: Rc<Datagram>) {
        self.set_len(datagram.bytes.len());
        self.payload_mut().copy_from_slice(&datagram.bytes);
        self.origin = Some(datagram);
    }

    /// The datagram that came in by this slot.
    pub(crate) fn origin(&self) -> Option<Rc<Datagram>> {
        self.origin.clone()
    }

    pub(crate) fn sent_bytes(&self) -> Vec<u8> {
        self.payload().to_vec()
    }

    /// The end of its use.
    pub(crate) fn into_buffer(mut self) -> (u32, Box<[u8]>) {
        (self.number, std::mem::take(&mut self.buffer))
    }
}

impl Slot for SimSlot {
    fn payload(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.len]
    }

    fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.start + self.len]
    }

    fn headroom(&self) -> usize {
        self.start
    }

    fn tailroom(&self) -> usize {
        self.buffer.len() - self.start - self.len
    }

    fn frame(&mut self, front: usize, back: usize) -> Option<&mut [u8]> {
        if front > self.headroom() || back > self.tailroom() {
            return None;
        }
        let end = self.start + self.len;
        self.buffer[end..end + back].fill(0);
        self.start -= front;
        self.len += front + back;
        Some(&mut self.buffer[self.start..self.start + front])
    }

    fn trim_front(&mut self, n: usize) {
        assert!(n <= self.len, "more is trimmed than the payload has");
        self.start += n;
        self.len -= n;
    }

    fn set_len(&mut self, len: usize) {
        assert!(len <= self.len + self.tailroom(), "the payload grows beyond its tailroom");
        self.len = len;
    }
}

impl Drop for SimSlot {
    fn drop(&mut self) {
        if !self.buffer.is_empty() {
            self.lost.set(self.lost.get() + 1);
        }
    }
}

impl Decide for SimDecide {
    fn ask(&mut self, now: Now, question: Question) -> Option<Verdict> {
        let mut kernel = self.kernel.borrow_mut();
        let kernel = &mut *kernel;
        let id = question.id;
        let current = kernel.drivers[self.worker].current.clone();
        let (hook, peers) =
            (question.hook, question.peers.iter().map(|peer| *peer.address.expose()).collect::<Vec<_>>());
        let client = *question.client.address.expose();
        kernel.trace.push(|| {
            format!("{} worker {} asks {id:?}: {hook:?} of {client} for {peers:?}", seconds(now), self.worker)
        });
        let named = kernel.stays.asked(self.worker, &question, current.as_deref());
        kernel.holds(named);
        kernel.oracle.asked(now, self.worker, question, current.as_deref());
        let (delay, verdict) = decide(&mut kernel.rng, &kernel.decisions)?;
        let told = kernel.tamper.verdict(hook, verdict);
        kernel.trace.push(|| {
            let after = delay.map_or(String::new(), |millis| format!(" after {millis} ms"));
            format!("{} worker {} is told of {id:?}{after}: {verdict:?}", seconds(now), self.worker)
        });
        match delay {
            None => {
                kernel.oracle.verdict(now, self.worker, id, verdict);
                Some(told)
            }
            Some(millis) => {
                let driver = &mut kernel.drivers[self.worker];
                let at = now.mono.after(std::time::Duration::from_millis(millis));
                driver.tick_at = driver.tick_at.min(at);
                driver.verdicts.insert((at, id), (verdict, told));
                None
            }
        }
    }

    fn poll(&mut self, now: Now) -> Option<(QuestionId, Verdict)> {
        let mut kernel = self.kernel.borrow_mut();
        let first = kernel.drivers[self.worker].verdicts.first_entry().filter(|entry| entry.key().0 <= now.mono)?;
        let ((_, id), (verdict, told)) = first.remove_entry();
        kernel.oracle.verdict(now, self.worker, id, verdict);
        Some((id, told))
    }

    fn event(&mut self, now: Now, event: RelayEvent) {
        let mut kernel = self.kernel.borrow_mut();
        kernel.trace.push(|| format!("{} worker {} tells {event:?}", seconds(now), self.worker));
        if let Some(event) = kernel.tamper.told(event) {
            let told = kernel.stays.event(now.mono, self.worker, event);
            kernel.holds(told);
        }
    }
}

/// A verdict, at once or after so many milliseconds; or never.
fn decide(rng: &mut Rng, decisions: &Decisions) -> Option<(Option<u64>, Verdict)> {
    if rng.chance(decisions.never) {
        return None;
    }
    let delay = if rng.chance(decisions.late) {
        Some(rng.between(380, 600))
    } else if rng.chance(decisions.delayed) {
        Some(rng.between(0, 200))
    } else {
        None
    };
    if rng.chance(decisions.refused) {
        return Some((
            delay,
            Verdict::Deny(rng.pick(&[Denial::Forbidden, Denial::Quota, Denial::TryLater, Denial::Unanswered])),
        ));
    }
    let seconds = |rng: &mut Rng, most: u64| std::time::Duration::from_millis(rng.between(200, most * 1000));
    let grant = Grant {
        valid_for: rng.chance(decisions.limited_time).then(|| seconds(rng, 400)),
        lifetime_max: rng.chance(decisions.limited_lifetime).then(|| seconds(rng, 1000)),
        bits_per_second: rng.chance(decisions.limited_rate).then(|| rng.between(1_000, 100_000)),
        ..Grant::default()
    };
    Some((delay, Verdict::Allow(grant)))
}

/// A time for a trace.
pub(crate) fn seconds(now: Now) -> String {
    format!("{:>13.6}", now.mono.nanos() as f64 / 1e9)
}
