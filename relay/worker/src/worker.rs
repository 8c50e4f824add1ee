//! The loop.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rand_core::RngCore;
use sluice_base::io::{DriverError, Event, Io, OpenError, OpenSpec, Opened, SendOptions, Slot, SocketRole};
use sluice_base::limits::{OPENS_PER_TICK_MAX, PUBLISH_INTERVAL};
use sluice_base::message::{Envelope, Order};
use sluice_base::policy::Decide;
use sluice_base::stats::{Counter, DropReason, Single};
use sluice_base::{ListenerId, Mono, Now, TransportAddress};
use sluice_metrics::{LatencyRecorder, WorkerCells};
use sluice_turn::{Disposition, OpenTicket, Output, Server, ServerOptions, Shared};

use crate::post::{Mail, Mailbox, Post};

/// Longest time without a tick: a health check sees a stuck worker by it.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// What a worker is made of.
pub struct Parts<I, D, R> {
    /// The driver.
    pub io: I,
    /// Who answers questions.
    pub decide: D,
    /// A cryptographic generator.
    pub rng: R,
    /// Options of the server.
    pub options: ServerOptions,
    /// What workers share.
    pub shared: Shared,
    /// The worker's queue.
    pub mailbox: Mailbox,
    /// The queues of all workers, by [`sluice_base::WorkerId`].
    pub posts: Arc<[Post]>,
    /// Where its counters are published.
    pub cells: Arc<WorkerCells>,
    /// Where its latencies are recorded.
    pub latency: LatencyRecorder,
}

/// One worker.
pub struct Worker<I: Io, D, R> {
    io: I,
    decide: D,
    turn: Server<R>,
    mailbox: Mailbox,
    posts: Arc<[Post]>,
    cells: Arc<WorkerCells>,
    latency: LatencyRecorder,
    batch: Vec<Event<I::Slot>>,
    /// Sockets to open; see [`OPENS_PER_TICK_MAX`].
    opening: VecDeque<(OpenTicket, OpenSpec)>,
    /// Reviews go on with the next tick: packets have their turn in between.
    reviewing: bool,
    published_at: Mono,
    /// Something has happened since.
    unpublished: bool,
    state: State,
}

/// Whether a worker goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It does.
    Running,
    /// It was told to stop: every allocation is gone, and what was queued has left.
    Stopped,
}

impl<I: Io, D: Decide, R: RngCore> Worker<I, D, R> {
    /// A worker that listens, and has done what it was told so far.
    ///
    /// # Errors
    /// The first listener address that cannot be opened, and why.
    pub fn new(parts: Parts<I, D, R>) -> Result<Self, (ListenerId, OpenError)> {
        let Parts { mut io, decide, rng, options, shared, mailbox, posts, cells, latency } = parts;
        let now = io.now();
        let listeners = options.listeners.clone();
        let (receive_buffer_bytes, send_buffer_bytes) = (options.receive_buffer_bytes, options.send_buffer_bytes);
        let mut turn = Server::new(now, options, shared, rng);
        for (i, listener) in listeners.iter().enumerate() {
            let id = ListenerId(i as u16);
            let local = listener.address;
            let spec = OpenSpec { local, role: SocketRole::Listener, receive_buffer_bytes, send_buffer_bytes };
            let Opened { socket, .. } = io.open(&spec).map_err(|error| (id, error))?;
            turn.listening(socket, id);
        }
        let mut worker = Worker {
            io,
            decide,
            turn,
            mailbox,
            posts,
            cells,
            latency,
            batch: Vec::new(),
            opening: VecDeque::new(),
            reviewing: false,
            published_at: now.mono,
            unpublished: true,
            state: State::Running,
        };
        // What it was told before it began, such as who is banned, holds for its first packet.
        worker.mail(now);
        Ok(worker)
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// The driver can never work again.
    pub fn run(&mut self) -> Result<(), DriverError> {
        while self.state == State::Running {
            self.tick()?;
        }
        // What the last tick queued leaves with one more wait that need not last.
        let now = self.io.now();
        self.io.wait(now.mono, &mut self.batch)?;
        for event in self.batch.drain(..) {
            if let Event::Datagram { slot, .. } = event {
                self.io.free(slot);
            }
        }
        self.publish(now);
        Ok(())
    }

    /// One tick.
    ///
    /// # Errors
    /// The driver can never work again.
    pub fn tick(&mut self) -> Result<State, DriverError> {
        let until = self.wake_at();
        let mut batch = std::mem::take(&mut self.batch);
        self.io.wait(until, &mut batch)?;
        let now = self.io.now();
        let packets = batch.len() as u64;
        self.decide.begin(now);
        for event in batch.drain(..) {
            match event {
                // Nothing begins any more once it was told to stop.
                Event::Datagram { slot, .. } if self.state == State::Stopped => self.io.free(slot),
                Event::Datagram { socket, from, mut slot } => {
                    match self.turn.packet(now, socket, from, &mut slot) {
                        Disposition::Relay { socket, to, options } => self.io.send(socket, to, slot, options),
                        Disposition::Done => self.io.free(slot),
                    }
                    self.outputs(now);
                }
                _ => self.mail(now),
            }
        }
        self.batch = batch;
        if self.state == State::Running {
            self.verdicts(now);
        }
        if self.state == State::Running && self.turn.is_reviewing(now) {
            self.turn.review(now);
            self.outputs(now);
        }
        if self.state == State::Running && now.mono >= self.turn.next_timeout() {
            self.turn.timeout(now);
            self.outputs(now);
        }
        if !self.opening.is_empty() {
            self.open_some(now);
        }
        self.reviewing = self.state == State::Running && self.turn.is_reviewing(now);
        self.account(now, packets);
        Ok(self.state)
    }

    /// The machine, to be looked at by a test.
    pub fn server(&mut self) -> &mut Server<R> {
        &mut self.turn
    }

    /// The driver, to be looked at by a test.
    pub fn io(&mut self) -> &mut I {
        &mut self.io
    }

    fn wake_at(&self) -> Mono {
        if !self.opening.is_empty() {
            return Mono::default();
        }
        if self.reviewing {
            return Mono::default();
        }
        let publish = if self.unpublished { PUBLISH_INTERVAL } else { HEARTBEAT };
        self.turn.next_timeout().min(self.published_at.after(publish))
    }

    /// Does what the machine wants done.
    #[inline]
    fn outputs(&mut self, now: Now) {
        while let Some(output) = self.turn.output() {
            self.output(now, output);
        }
    }

    fn output(&mut self, now: Now, output: Output) {
        match output {
            Output::Ask(question) => {
                let id = question.id;
                if let Some(verdict) = self.decide.ask(now, question) {
                    self.turn.verdict(now, id, verdict);
                }
            }
            Output::Open(ticket, spec) => self.opening.push_back((ticket, spec)),
            Output::Close(socket) => self.io.close(socket),
            Output::Event(event) => self.decide.event(now, event),
            Output::Send { socket, to, reply } => self.send_bytes(socket, to, reply.bytes()),
            Output::Tell(worker, message) => {
                let from = self.turn.worker();
                if let Some(post) = self.posts.get(usize::from(worker.0)) {
                    // A full queue is a lost message: the request behind it times out, and its client asks again.
                    let _ = post.send(Envelope::Worker(from, message));
                }
            }
        }
    }

    /// Opens what is to be opened, as far as a tick's budget goes: packets have their turn before the rest.
    fn open_some(&mut self, now: Now) {
        if self.state == State::Stopped {
            return self.opening.clear();
        }
        for _ in 0..OPENS_PER_TICK_MAX {
            let Some((ticket, spec)) = self.opening.pop_front() else {
                break;
            };
            let result = self.io.open(&spec);
            self.turn.opened(now, ticket, result);
            self.outputs(now);
        }
    }

    fn send_bytes(&mut self, socket: sluice_base::SocketId, to: TransportAddress, bytes: &[u8]) {
        match self.io.blank() {
            Some(mut slot) => {
                slot.set_len(bytes.len());
                slot.payload_mut().copy_from_slice(bytes);
                self.io.send(socket, to, slot, SendOptions::default());
            }
            None => self.turn.counters().drop(DropReason::NoSlot),
        }
    }

    fn mail(&mut self, now: Now) {
        while self.state == State::Running
            && let Some(mail) = self.mailbox.take()
        {
            match mail {
                Mail::Envelope(envelope) => {
                    if envelope == Envelope::Order(Order::Stop) {
                        self.state = State::Stopped;
                    }
                    self.turn.message(now, envelope);
                    self.outputs(now);
                }
                Mail::Configure(settings, answer) => {
                    self.turn.configure(now, &settings);
                    self.outputs(now);
                    answer(());
                }
                Mail::Ban(bans, answer) => {
                    self.turn.ban(now, bans);
                    self.outputs(now);
                    answer(());
                }
                Mail::Barrier(answer) => answer(()),
                Mail::List { from, most, answer } => answer(self.turn.list(now.mono, from, most)),
            }
        }
    }

    fn verdicts(&mut self, now: Now) {
        while let Some((id, verdict)) = self.decide.poll(now) {
            self.turn.verdict(now, id, verdict);
            self.outputs(now);
        }
    }

    fn account(&mut self, now: Now, packets: u64) {
        if packets > 0 {
            self.unpublished = true;
            let spent = self.io.now().mono.since(now.mono);
            self.latency.record_n(spent.as_nanos() as u64, packets);
        }
        if now.mono >= self.published_at.after(PUBLISH_INTERVAL) {
            self.publish(now);
        }
    }

    fn publish(&mut self, now: Now) {
        let stats = self.io.stats();
        let counters = self.turn.counters();
        counters.add(Counter::single(Single::Ticks), 1);
        self.cells.publish(counters, &stats);
        self.cells.publish_media(self.turn.media());
        self.latency.hand_over();
        self.published_at = now.mono;
        self.unpublished = false;
    }
}
