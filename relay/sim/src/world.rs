//! One run: the workers, the models and the clock, one step after another.

mod media;

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use sluice_base::io::Io;
use sluice_base::message::{Envelope, Order};
use sluice_base::stats::{Counter, Single};
use sluice_base::{Mono, Now, Secret, WorkerId};
use sluice_metrics::{BuildInfo, Metrics};
use sluice_turn::{Ledger, LivePorts, Settings, Shared};
use sluice_wire::stun::{Class, Message, Method, TransactionId, attribute};
use sluice_worker::{Mailbox, Parts, Post, State, Worker};

use crate::client::{Board, Client, Context, build};
use crate::credentials::{Login, Style};
use crate::io::{SimDecide, SimIo, seconds};
use crate::kernel::{Kernel, Packet};
use crate::mischief::Mischief;
use crate::nat::{Nat, NatKind};
use crate::peer::Peer;
use crate::report::{Failure, Report};
use crate::rng::Rng;
use crate::scenario::{Decisions, Faults, STATIC_USERS, Scenario};
use crate::tamper::Tamper;

/// A step of the scenario brings a reload, in a thousand.
const RELOAD: u32 = 150;

/// A worker ticks at least so often.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Where there are so few ports, they are counted at the end.
const FEW_PORTS: usize = 64;
/// Refusals in a row after which every worker has been asked.
const REFUSED_MAX: usize = 60;
/// Events that a failure shows.
const TRACE_LINES: usize = 60;
/// The wall clock at the start: a day in 2027.
const START_UNIX_SECONDS: u64 = 1_800_000_000;

type SimWorker = Worker<SimIo, SimDecide, ChaCha8Rng>;

pub use media::{MediaTruth, media};

/// How a seed is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Every event is kept for the failure's trace, not only the last ones.
    pub trace: bool,
    /// What is broken on purpose.
    pub tamper: Tamper,
}

/// Runs a seed.
///
/// # Errors
/// The invariant that does not hold, with what led to it.
pub fn run(seed: u64, options: Options) -> Result<Report, Box<Failure>> {
    let kept = if options.trace { usize::MAX } else { 0 };
    // What fails, fails again: the second time its last events are kept.
    run_once(seed, options.tamper, kept).or_else(|failure| match kept {
        0 => run_once(seed, options.tamper, TRACE_LINES),
        _ => Err(failure),
    })
}

fn run_once(seed: u64, tamper: Tamper, kept: usize) -> Result<Report, Box<Failure>> {
    let mut world = World::new(seed, tamper, kept);
    match world.live() {
        Ok(()) => {
            let mut coverage = world.kernel.borrow().oracle.coverage.clone();
            coverage.received = world.clients.iter().map(|c| c.received).sum::<u64>();
            coverage.received += world.peers.iter().map(|p| p.received).sum::<u64>();
            let kernel = world.kernel.borrow();
            (coverage.stays, coverage.denied) = (kernel.stays.ended, kernel.stays.denied);
            Ok(Report { seed, coverage })
        }
        Err(what) => Err(Box::new(Failure { seed, what, trace: world.kernel.borrow_mut().trace.take() })),
    }
}

struct World {
    scenario: Scenario,
    kernel: Rc<RefCell<Kernel>>,
    rng: Rng,
    workers: Vec<SimWorker>,
    posts: Arc<[Post]>,
    ledger: Arc<Ledger>,
    clients: Vec<Client>,
    peers: Vec<Peer>,
    mischief: Mischief,
    board: Board,
    next_step: Mono,
    end: Mono,
    /// Seconds that the wall clock was set by.
    wall_offset: i64,
    /// The models still act.
    lively: bool,
    /// What arrived last anywhere since they do not.
    caught: Option<Packet>,
}

impl World {
    fn new(seed: u64, tamper: Tamper, kept: usize) -> Self {
        World::of(seed, Scenario::new(seed), tamper, kept)
    }

    fn of(seed: u64, scenario: Scenario, tamper: Tamper, kept: usize) -> Self {
        let mut rng = Rng::new(seed, 3);
        let start = Mono::from_nanos(rng.between(0, 100_000_000_000));
        let now = Now { mono: start, unix_seconds: START_UNIX_SECONDS };
        let kernel = Rc::new(RefCell::new(Kernel::new(seed, &scenario, now, tamper)));
        kernel.borrow_mut().trace.keep(kept);
        let ledger = Ledger::new(scenario.total, &scenario.tenant_limits());
        let (workers, posts) = workers(seed, &scenario, &kernel, &ledger);
        let clients = clients(&scenario, &kernel, &mut rng, start);
        let peers = (0..scenario.peers).map(|i| Peer::new(scenario.peer(i), start)).collect();
        World {
            end: start.after(scenario.duration),
            scenario,
            kernel,
            rng,
            workers,
            posts,
            ledger,
            clients,
            peers,
            mischief: Mischief::new(start),
            board: Board::default(),
            next_step: start,
            wall_offset: 0,
            lively: true,
            caught: None,
        }
    }

    fn live(&mut self) -> Result<(), String> {
        while self.now().mono < self.end {
            self.step()?;
        }
        if self.rng.chance(500) {
            self.let_all_lapse()?;
        }
        self.stop()
    }

    /// The next thing that happens.
    fn step(&mut self) -> Result<(), String> {
        let at = self.next().min(self.end).max(self.now().mono);
        self.set_clock(at);
        self.kernel.borrow_mut().arrive();
        self.deliver()?;
        if self.lively {
            self.act()?;
        }
        self.tick()?;
        let kernel = self.kernel.borrow();
        kernel.oracle.found().map_or(Ok(()), |what| Err(what.clone()))
    }

    fn next(&self) -> Mono {
        let kernel = self.kernel.borrow();
        let workers = kernel.drivers.iter().map(|driver| match () {
            () if driver.woken.load(std::sync::atomic::Ordering::Relaxed) => kernel.now.mono,
            () => driver.tick_at,
        });
        let first = workers.fold(kernel.next_arrival(), Mono::min);
        if !self.lively {
            return first;
        }
        let models = self.clients.iter().map(Client::next).chain(self.peers.iter().map(Peer::next));
        let mischief = self.mischief.next(self.scenario.mischief_ms);
        models.fold(first, Mono::min).min(mischief).min(self.next_step)
    }

    fn now(&self) -> Now {
        self.kernel.borrow().now
    }

    fn set_clock(&mut self, at: Mono) {
        let wall = (START_UNIX_SECONDS + at.nanos() / 1_000_000_000).saturating_add_signed(self.wall_offset);
        self.kernel.borrow_mut().now = Now { mono: at, unix_seconds: wall };
    }

    /// Models get what has arrived for them.
    fn deliver(&mut self) -> Result<(), String> {
        while let Some(packet) = { self.kernel.borrow_mut().inbox.pop_front() } {
            if !self.lively {
                self.caught = Some(packet);
                continue;
            }
            if let Some(client) = self.clients.iter().position(|c| c.local == packet.to) {
                self.with_model(|world, c| world.clients[client].receive(c, packet.from, &packet.bytes), Some(client));
                if let Some(what) = self.clients[client].violation.take() {
                    return Err(what);
                }
            } else if let Some(peer) = self.peers.iter().position(|p| p.local == packet.to) {
                self.with_model(|world, c| world.peers[peer].receive(c, packet.from), None);
            }
        }
        Ok(())
    }

    fn act(&mut self) -> Result<(), String> {
        let now = self.now().mono;
        for client in 0..self.clients.len() {
            if now >= self.clients[client].next() {
                self.with_model(|world, c| world.clients[client].poll(c), Some(client));
            }
        }
        for peer in 0..self.peers.len() {
            if now >= self.peers[peer].next() {
                self.with_model(|world, c| world.peers[peer].poll(c), None);
            }
        }
        if now >= self.mischief.next(self.scenario.mischief_ms) {
            let kernel = self.kernel.clone();
            self.with_model(|world, c| world.mischief.poll(c, &mut kernel.borrow_mut()), None);
            self.give_orders();
        }
        if now >= self.next_step {
            self.next_step = now.after(self.rng.millis(500, 20_000));
            self.upset();
            if self.rng.chance(RELOAD) {
                self.reload();
            }
        }
        Ok(())
    }

    /// Lets a model act, and sends what it sends: through its NAT where it has one.
    fn with_model(&mut self, act: impl FnOnce(&mut MovedOut, &mut Context<'_>), nat: Option<usize>) {
        let now = self.now();
        let mut out = Vec::new();
        let mut moved = MovedOut {
            clients: std::mem::take(&mut self.clients),
            peers: std::mem::take(&mut self.peers),
            mischief: std::mem::replace(&mut self.mischief, Mischief::new(now.mono)),
        };
        let mut context = Context {
            now,
            rng: &mut self.rng,
            scenario: &self.scenario,
            board: &mut self.board,
            out: &mut out,
            said: None,
        };
        act(&mut moved, &mut context);
        let said = context.said.take();
        (self.clients, self.peers, self.mischief) = (moved.clients, moved.peers, moved.mischief);
        let mut kernel = self.kernel.borrow_mut();
        if let Some(said) = said {
            kernel.trace.push(|| format!("{} {said}", seconds(now)));
        }
        for packet in out {
            match nat {
                Some(nat) => kernel.send_from_behind(nat, packet),
                None => kernel.transmit(packet),
            }
        }
    }

    /// The control plane's orders go to their workers.
    fn give_orders(&mut self) {
        for (worker, id) in std::mem::take(&mut self.kernel.borrow_mut().orders) {
            let _ = self.posts[worker].send(Envelope::Order(Order::End(id)));
        }
        let Some(bans) = self.kernel.borrow_mut().bans.take() else {
            return;
        };
        for (worker, post) in self.posts.iter().enumerate() {
            let (told, banned) = (bans.clone(), self.kernel.borrow().drivers[worker].banned.clone());
            let _ = post.ban(bans.clone(), Box::new(move |()| banned.lock().map_or((), |mut banned| *banned = told)));
        }
    }

    /// The same configuration comes into force again: nobody may notice.
    fn reload(&mut self) {
        self.ledger.set_limits(self.scenario.total, &self.scenario.tenant_limits());
        let settings = Arc::new(Settings::new(self.scenario.options(0)));
        for post in self.posts.iter() {
            let _ = post.configure(settings.clone(), Box::new(|()| {}));
        }
        let mut kernel = self.kernel.borrow_mut();
        kernel.oracle.coverage.reloads += 1;
        kernel.trace.push(|| "the configuration is read again".to_owned());
    }

    /// Clocks leap, NATs restart.
    fn upset(&mut self) {
        let now = self.now().mono;
        if self.rng.chance(self.scenario.faults.leap) {
            let most = self.rng.pick(&[500, 5_000, 60_000, 400_000, 4_000_000]);
            let by = self.rng.millis(0, most);
            self.kernel.borrow_mut().oracle.leapt(by);
            self.kernel.borrow_mut().trace.push(|| format!("the clock leaps ahead by {by:?}"));
            self.set_clock(now.after(by));
        }
        if self.rng.chance(self.scenario.faults.wall) {
            self.wall_offset += self.rng.between(0, 200_000) as i64 - 100_000;
            self.set_clock(self.now().mono);
        }
        if self.rng.chance(10) {
            let nat = self.rng.below(self.clients.len() as u64) as usize;
            self.kernel.borrow_mut().nats[nat].restart();
        }
    }

    /// Ticks the workers that have something to do.
    fn tick(&mut self) -> Result<(), String> {
        for worker in 0..self.workers.len() {
            let due = {
                let kernel = self.kernel.borrow();
                let driver = &kernel.drivers[worker];
                driver.woken.load(std::sync::atomic::Ordering::Relaxed) || driver.tick_at <= kernel.now.mono
            };
            if due && self.tick_one(worker)? == State::Stopped {
                return Err("a worker stops without being told to".into());
            }
        }
        Ok(())
    }

    fn tick_one(&mut self, index: usize) -> Result<State, String> {
        self.kernel.borrow_mut().drivers[index].tick_at = Mono::NEVER;
        let worker = &mut self.workers[index];
        let state = worker.tick().map_err(|error| error.to_string())?;
        let next = worker.server().next_timeout();
        let gauges = [Single::Allocations, Single::Permissions, Single::Channels, Single::QuestionsOpen]
            .map(|gauge| worker.server().counters().value(Counter::single(gauge)));
        let timers = worker.server().timers() as u64;
        let mut kernel = self.kernel.borrow_mut();
        let kernel = &mut *kernel;
        let now = kernel.now;
        kernel.flush(index);
        kernel.watch_bans(index);
        kernel.oracle.ticked(now, index);
        kernel.oracle.coverage.ticks += 1;
        let driver = &mut kernel.drivers[index];
        let verdict = driver.verdicts.first_key_value().map_or(Mono::NEVER, |((at, _), _)| *at);
        let soon = now.mono.after(kernel.tamper.patience());
        driver.tick_at = driver.tick_at.min(next).min(verdict).max(soon).min(now.mono.after(HEARTBEAT));
        let [allocations, permissions, channels, questions] = gauges;
        let most = |each: u32| allocations * u64::from(each);
        if permissions > most(self.scenario.permissions)
            || channels > most(self.scenario.channels)
            || questions > sluice_base::limits::QUESTIONS_PER_WORKER_MAX as u64
        {
            kernel.oracle.violation("a worker holds more permissions, channels or questions than it may".into());
        }
        kernel.oracle.holds(now, index, allocations + permissions + channels, timers);
        let counted = kernel.stays.ticked(index, allocations);
        kernel.holds(counted);
        Ok(state)
    }

    /// The models fall silent, and everything runs out.
    fn let_all_lapse(&mut self) -> Result<(), String> {
        self.lively = false;
        let most = self.scenario.lifetime_max.max(self.scenario.lifetime) + Duration::from_secs(700);
        self.end = self.now().mono.after(most);
        {
            let mut kernel = self.kernel.borrow_mut();
            kernel.faults = Faults { delay_ms: 1, ..Faults::default() };
            kernel.decisions = Decisions::default();
            kernel.bans = Some(Arc::default());
        }
        self.give_orders();
        while self.now().mono < self.end {
            self.step()?;
        }
        for worker in &mut self.workers {
            let counters = worker.server().counters();
            let left = [Single::Allocations, Single::Permissions, Single::Channels, Single::QuestionsOpen]
                .map(|gauge| counters.value(Counter::single(gauge)));
            if left != [0; 4] {
                return Err(format!("allocations, permissions, channels, questions are left: {left:?}"));
            }
        }
        self.ledger_is_empty()?;
        self.every_port_can_be_had()
    }

    /// Where ports are few, each of them can be allocated again: none was lost on the way.
    fn every_port_can_be_had(&mut self) -> Result<(), String> {
        let s = &self.scenario;
        let ports = s.ports.len();
        let limited = [s.user, s.tenant, s.total].iter().any(|account| account.allocations != 0);
        if limited || ports > FEW_PORTS {
            return Ok(());
        }
        self.end = self.now().mono.after(Duration::from_secs(300));
        let (mut had, mut refused) = (0, 0);
        let mut n = 0;
        while refused < REFUSED_MAX && had <= ports {
            n += 1;
            match self.allocate_from([7, n as u8, 1, 1].into())? {
                true => (had, refused) = (had + 1, 0),
                false => refused += 1,
            }
        }
        self.kernel.borrow_mut().oracle.coverage.ports_counted += had as u64;
        if had == ports { Ok(()) } else { Err(format!("{had} of {ports} ports can be had after all have come back")) }
    }

    /// Allocates from an address of its own; false where the relay refuses.
    fn allocate_from(&mut self, ip: IpAddr) -> Result<bool, String> {
        let mut sign: Option<(Vec<u8>, Vec<u8>)> = None;
        let login = Login::new(STATIC_USERS[0].0, STATIC_USERS[0].1, Style::Old);
        loop {
            let bytes = build(Class::Request, Method::ALLOCATE, TransactionId(self.rng.transaction()), |builder| {
                builder.u32(attribute::REQUESTED_TRANSPORT, 17 << 24).u32(attribute::LIFETIME, 3600);
                if let Some((realm, nonce)) = &sign {
                    login.sign(builder, realm, nonce, &[]);
                }
            });
            let answer = self.exchange(SocketAddr::new(ip, 1000), bytes)?;
            let message = Message::parse(&answer).map_err(|error| error.to_string())?;
            match (message.class, &sign, message.attributes.realm, message.attributes.nonce) {
                (Class::Success, ..) => return Ok(true),
                (_, None, Some(realm), Some(nonce)) => sign = Some((realm.to_vec(), nonce.to_vec())),
                _ => return Ok(false),
            }
        }
    }

    /// Sends a request over a network without faults, and waits for its answer.
    fn exchange(&mut self, from: SocketAddr, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
        let to = self.scenario.listeners[0];
        self.kernel.borrow_mut().transmit(Packet { from, to, bytes });
        for _ in 0..1000 {
            self.step()?;
            if let Some(packet) = self.caught.take_if(|packet| packet.to == from) {
                return Ok(packet.bytes);
            }
        }
        Err("a request over a network without faults has no answer".into())
    }

    fn ledger_is_empty(&self) -> Result<(), String> {
        let usage = self.ledger.usage();
        match usage == Default::default() {
            true => Ok(()),
            false => Err(format!("the ledger is not empty: {usage:?}")),
        }
    }

    /// Everything ends in order, and nothing is left.
    fn stop(&mut self) -> Result<(), String> {
        self.kernel.borrow_mut().oracle.stopping();
        for index in 0..self.workers.len() {
            if !self.posts[index].send(Envelope::Order(Order::Stop)) {
                return Err("a worker's queue has no room for the order to stop".into());
            }
        }
        for index in 0..self.workers.len() {
            if self.tick_one(index)? != State::Stopped {
                return Err("a worker goes on after it was told to stop".into());
            }
            self.workers[index].run().map_err(|error| error.to_string())?;
            if self.workers[index].server().allocations().next().is_some() {
                return Err("an allocation outlives its worker".into());
            }
        }
        let kernel = self.kernel.borrow();
        if let Some(what) = kernel.oracle.found() {
            return Err(what.clone());
        }
        kernel.stays.stopped()?;
        if kernel.oracle.relay_sockets_open() > 0 {
            return Err("a relay socket outlives its worker".into());
        }
        drop(kernel);
        self.workers.clear();
        let mut kernel = self.kernel.borrow_mut();
        if kernel.sockets_open() > 0 {
            return Err("a socket outlives its driver".into());
        }
        for driver in &mut kernel.drivers {
            let (missing, lost) = (driver.slots_missing(), driver.lost_slots.get());
            if (missing, lost) != (0, 0) {
                return Err(format!("{missing} slots have not come back, {lost} of them were dropped"));
            }
        }
        drop(kernel);
        self.ledger_is_empty()
    }
}

/// The models, apart from the world while one of them acts.
struct MovedOut {
    clients: Vec<Client>,
    peers: Vec<Peer>,
    mischief: Mischief,
}

fn workers(
    seed: u64,
    scenario: &Scenario,
    kernel: &Rc<RefCell<Kernel>>,
    ledger: &Arc<Ledger>,
) -> (Vec<SimWorker>, Arc<[Post]>) {
    let count = usize::from(scenario.workers);
    let build = BuildInfo {
        version: "sim".into(),
        driver: "sim".into(),
        start_unix_seconds: START_UNIX_SECONDS,
        allocations_limit: 0,
        tenants: Vec::new(),
    };
    let metrics = Metrics::new(count, build).expect("the table of families is valid");
    let live = Arc::new(LivePorts::new(scenario.relays.len()));
    let shared = Shared { nonce_key: Secret::new([7; 32]), live, ledger: ledger.clone() };
    let mailboxes: Vec<_> = (0..count).map(|_| Mailbox::new()).collect();
    let ios: Vec<_> = (0..count).map(|index| SimIo::new(kernel.clone(), index)).collect();
    let posts: Arc<[Post]> = mailboxes.iter().zip(&ios).map(|(mailbox, io)| mailbox.post(io.waker())).collect();
    let start = |(index, (io, mailbox))| {
        let (cells, latency) = metrics.worker(WorkerId(index as u8)).expect("each worker is started once");
        let parts = Parts {
            io,
            decide: SimDecide::new(kernel.clone(), index),
            rng: Rng::new(seed, 100 + index as u64).into_inner(),
            options: scenario.options(index as u8),
            shared: shared.clone(),
            mailbox,
            posts: posts.clone(),
            cells,
            latency,
        };
        Worker::new(parts).expect("a listener can be opened")
    };
    (ios.into_iter().zip(mailboxes).enumerate().map(start).collect(), posts)
}

/// The clients, each behind a NAT of its own.
fn clients(scenario: &Scenario, kernel: &Rc<RefCell<Kernel>>, rng: &mut Rng, start: Mono) -> Vec<Client> {
    let mut kernel = kernel.borrow_mut();
    let client = |index: usize| {
        let server = rng.pick(&scenario.listeners);
        let n = index as u16 + 1;
        let (inside, outside): (IpAddr, IpAddr) = match server {
            SocketAddr::V4(_) => ([192, 168, n as u8, 2].into(), [5, 5, 0, n as u8].into()),
            SocketAddr::V6(_) => ([0xfd00, n, 0, 0, 0, 0, 0, 2].into(), [0x2a05, n, 0, 0, 0, 0, 0, 1].into()),
        };
        kernel.nats.push(Nat::new(rng.pick(&NatKind::ALL), outside));
        kernel.nat_of.insert(outside, index);
        Client::new(index, SocketAddr::new(inside, 2000), server, rng, start)
    };
    (0..scenario.clients).map(client).collect()
}
