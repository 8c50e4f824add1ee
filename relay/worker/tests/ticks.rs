//! What a worker does in one tick, and in which order: over a driver that hands out what a test says and writes down
//! what is asked of it.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sluice_base::event::{EndReason, RelayEvent};
use sluice_base::io::{
    DriverError, Event, Io, IoStats, OpenError, OpenSpec, Opened, SendOptions, Slot, SocketRole, Waker,
};
use sluice_base::limits::{OPENS_PER_TICK_MAX, REVIEWS_PER_TICK_MAX};
use sluice_base::message::{Envelope, Order};
use sluice_base::policy::{Decide, Grant, Question, Verdict};
use sluice_base::{Mono, Now, Pii, QuestionId, SocketId, TenantId, TransportAddress, WorkerId};
use sluice_metrics::{BuildInfo, Metrics};
use sluice_turn::harness::model::{Client, Mix, Packet, channel_data, ip_address, options, shared, udp};
use sluice_turn::{Ban, Bans, Whom};
use sluice_wire::stun::{Message, Method, attribute};
use sluice_worker::{Mailbox, Parts, Post, Worker};

/// What happened, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Did {
    /// The driver waited, not beyond this.
    Wait(Mono),
    Open,
    Close,
    Send(SocketAddr, Vec<u8>),
    /// What whoever decides is told.
    Begin,
    Ask,
    Ended(EndReason),
}

#[derive(Default)]
struct Script {
    now: Now,
    arrives: Vec<(SocketId, SocketAddr, Vec<u8>)>,
    sockets: u32,
    did: Vec<Did>,
}

#[derive(Clone, Default)]
struct Shared {
    script: Rc<RefCell<Script>>,
    woken: Arc<AtomicBool>,
}

impl Shared {
    fn note(&self, did: Did) {
        self.script.borrow_mut().did.push(did);
    }
}

impl Io for Shared {
    type Slot = Packet;

    fn now(&self) -> Now {
        self.script.borrow().now
    }

    fn wait(&mut self, until: Mono, batch: &mut Vec<Event<Packet>>) -> Result<(), DriverError> {
        self.note(Did::Wait(until));
        for (socket, from, bytes) in self.script.borrow_mut().arrives.drain(..) {
            batch.push(Event::Datagram { socket, from: Pii::new(from), slot: Packet::new(&bytes) });
        }
        if self.woken.swap(false, Ordering::Relaxed) {
            batch.push(Event::Woken);
        }
        Ok(())
    }

    fn send(&mut self, _socket: SocketId, to: TransportAddress, slot: Packet, _options: SendOptions) {
        self.note(Did::Send(*to.expose(), slot.payload().to_vec()));
    }

    fn blank(&mut self) -> Option<Packet> {
        Some(Packet::with_room(&[], 64, 1500))
    }

    fn free(&mut self, _slot: Packet) {}

    fn open(&mut self, spec: &OpenSpec) -> Result<Opened, OpenError> {
        if spec.role == SocketRole::Relay {
            self.note(Did::Open);
        }
        let mut script = self.script.borrow_mut();
        script.sockets += 1;
        Ok(Opened { socket: SocketId { index: script.sockets - 1, generation: 0 }, local: spec.local })
    }

    fn close(&mut self, _socket: SocketId) {
        self.note(Did::Close);
    }

    fn waker(&self) -> Waker {
        let woken = self.woken.clone();
        Waker::new(move || woken.store(true, Ordering::Relaxed))
    }

    fn stats(&mut self) -> IoStats {
        IoStats::default()
    }
}

impl Decide for Shared {
    fn ask(&mut self, _now: Now, _question: Question) -> Option<Verdict> {
        self.note(Did::Ask);
        Some(Verdict::Allow(Grant::default()))
    }

    fn poll(&mut self, _now: Now) -> Option<(QuestionId, Verdict)> {
        None
    }

    fn event(&mut self, _now: Now, event: RelayEvent) {
        if let RelayEvent::Ended(ended) = event {
            self.note(Did::Ended(ended.reason));
        }
    }

    fn begin(&mut self, _now: Now) {
        self.note(Did::Begin);
    }
}

/// A worker and its script.
struct Bench {
    worker: Worker<Shared, Shared, Mix>,
    shared: Shared,
    post: Post,
}

impl Bench {
    fn new() -> Self {
        Self::told(|_| {})
    }

    /// With a worker that was told something before it began.
    fn told(tell: impl FnOnce(&Post)) -> Self {
        let build = BuildInfo {
            version: "test".into(),
            driver: "script".into(),
            start_unix_seconds: 0,
            allocations_limit: 0,
            tenants: Vec::new(),
        };
        let (cells, latency) = Metrics::new(1, build).unwrap().worker(WorkerId(0)).unwrap();
        let (io, options, mailbox) = (Shared::default(), options(), Mailbox::new());
        io.script.borrow_mut().now.mono = Mono::from_nanos(1_000_000_000_000);
        let post = mailbox.post(io.waker());
        tell(&post);
        let parts = Parts {
            io: io.clone(),
            decide: io.clone(),
            rng: Mix(1),
            shared: shared(&options),
            options,
            mailbox,
            posts: [post.clone()].into(),
            cells,
            latency,
        };
        let Ok(worker) = Worker::new(parts) else { panic!("every socket opens") };
        Bench { worker, shared: io, post }
    }

    /// A datagram waits for the next tick.
    fn arrives(&self, client: &Client, bytes: &[u8]) {
        let listener = SocketId { index: client.listener as u32, generation: 0 };
        self.shared.script.borrow_mut().arrives.push((listener, client.address, bytes.to_vec()));
    }

    /// One tick, and what was done in it.
    fn tick(&mut self) -> Vec<Did> {
        self.worker.tick().unwrap();
        std::mem::take(&mut self.shared.script.borrow_mut().did)
    }

    /// The answer to a request, by the tick after the next at the latest.
    fn exchange(&mut self, client: &Client, request: &[u8]) -> Vec<u8> {
        self.arrives(client, request);
        let did = [self.tick(), self.tick()].concat();
        let answer = did.into_iter().find_map(|did| match did {
            Did::Send(to, bytes) if to == client.address => Some(bytes),
            _ => None,
        });
        answer.expect("an answer")
    }

    /// A client that knows realm and nonce.
    fn client(&mut self, address: &str) -> Client {
        let mut client = Client::new(address);
        let request = client.unsigned(Method::ALLOCATE, |_| {});
        let answer = self.exchange(&client, &request);
        let attributes = Message::parse(&answer).unwrap().attributes;
        (client.realm, client.nonce) = (attributes.realm.unwrap().to_vec(), attributes.nonce.unwrap().to_vec());
        client
    }

    /// A client with a channel to a peer.
    fn caller(&mut self, address: &str, peer: SocketAddr) -> Client {
        let mut client = self.client(address);
        let allocate = client.signed(Method::ALLOCATE, udp);
        self.exchange(&client, &allocate);
        let bind = client.signed(Method::CHANNEL_BIND, |builder| {
            builder.channel(0x4000).xor_address(attribute::XOR_PEER_ADDRESS, peer);
        });
        self.exchange(&client, &bind);
        client
    }
}

fn peer() -> SocketAddr {
    "198.51.100.9:6000".parse().unwrap()
}

#[test]
fn a_rush_of_newcomers_opens_so_many_sockets_in_a_tick_and_a_call_goes_on_between() {
    let mut bench = Bench::new();
    let caller = bench.caller("203.0.113.7:40000", peer());
    let newcomers = 2 * OPENS_PER_TICK_MAX + 5;
    let mut clients: Vec<_> = (0..newcomers).map(|i| bench.client(&format!("203.0.113.8:{}", 40_000 + i))).collect();
    for client in &mut clients {
        let request = client.signed(Method::ALLOCATE, udp);
        bench.arrives(client, &request);
    }
    let mut opened = Vec::new();
    let mut answered = 0;
    for tick in 0..4 {
        bench.arrives(&caller, &channel_data(0x4000, b"voice"));
        let did = bench.tick();
        let voice = did.iter().position(|did| *did == Did::Send(peer(), b"voice".to_vec())).expect("the call goes on");
        let first = did.iter().position(|did| *did == Did::Open).unwrap_or(did.len());
        assert!(voice < first, "packets have their turn before sockets are opened");
        if (1..3).contains(&tick) {
            assert_eq!(did[0], Did::Wait(Mono::default()), "nobody sleeps while sockets are to be opened");
        }
        opened.push(did.iter().filter(|did| **did == Did::Open).count());
        let to_newcomer = |did: &&Did| matches!(did, Did::Send(to, _) if clients.iter().any(|c| c.address == *to));
        answered += did.iter().filter(to_newcomer).count();
    }
    assert_eq!(opened, [OPENS_PER_TICK_MAX, OPENS_PER_TICK_MAX, 5, 0]);
    assert_eq!(answered, newcomers);
}

#[test]
fn a_review_of_many_puts_so_many_questions_in_a_tick_and_a_call_goes_on_between() {
    let mut bench = Bench::new();
    let caller = bench.caller("203.0.113.7:40000", peer());
    // The caller is an allocation and a permission.
    for i in 2..2 * REVIEWS_PER_TICK_MAX + 5 {
        let mut client = bench.client(&format!("203.0.113.8:{}", 40_000 + i));
        let allocate = client.signed(Method::ALLOCATE, udp);
        bench.exchange(&client, &allocate);
    }
    assert!(bench.post.send(Envelope::Order(Order::Review(TenantId(0)))));
    let mut asked = Vec::new();
    for tick in 0..4 {
        bench.arrives(&caller, &channel_data(0x4000, b"voice"));
        let did = bench.tick();
        let voice = did.iter().position(|did| *did == Did::Send(peer(), b"voice".to_vec())).expect("the call goes on");
        let first = did.iter().position(|did| *did == Did::Ask).unwrap_or(did.len());
        assert!(voice < first, "packets have their turn before questions");
        assert_eq!(did[0] == Did::Wait(Mono::default()), (1..3).contains(&tick), "nobody sleeps while there are more");
        asked.push(did.iter().filter(|did| **did == Did::Ask).count());
    }
    assert_eq!(asked, [REVIEWS_PER_TICK_MAX, REVIEWS_PER_TICK_MAX, 5, 0]);
}

#[test]
fn whoever_decides_is_told_of_a_tick_before_its_first_packet() {
    let mut bench = Bench::new();
    let mut client = bench.client("203.0.113.7:40000");
    let request = client.signed(Method::ALLOCATE, udp);
    bench.arrives(&client, &request);
    let did = bench.tick();
    assert!(matches!(did[..], [Did::Wait(_), Did::Begin, Did::Ask, ..]), "{did:?}");
}

#[test]
fn a_ban_that_is_told_before_the_start_holds_for_the_first_packet() {
    let whom = Whom::Address(Pii::new(ip_address("203.0.113.0")), 24);
    let bans = Arc::new(Bans::new(&[Ban { whom, until: None }]).unwrap());
    let mut bench = Bench::told(|post| assert!(post.ban(bans, Box::new(|()| {}))));
    let mut client = Client::new("203.0.113.7:40000");
    let request = client.unsigned(Method::ALLOCATE, |_| {});
    bench.arrives(&client, &request);
    let did = [bench.tick(), bench.tick()].concat();
    assert!(!did.iter().any(|did| matches!(did, Did::Send(..))), "{did:?}");
}

#[test]
fn a_ban_ends_what_there_is_before_it_is_confirmed() {
    let mut bench = Bench::new();
    let caller = bench.caller("203.0.113.7:40000", peer());
    let whom = Whom::Address(Pii::new(ip_address("203.0.113.0")), 24);
    let bans = Bans::new(&[Ban { whom, until: None }]).unwrap();
    let confirmed = Arc::new(AtomicBool::new(false));
    let confirm = confirmed.clone();
    assert!(bench.post.ban(Arc::new(bans), Box::new(move |()| confirm.store(true, Ordering::Relaxed))));
    let did = bench.tick();
    assert!(did.contains(&Did::Ended(EndReason::Banned)) && did.contains(&Did::Close), "{did:?}");
    assert!(confirmed.load(Ordering::Relaxed));
    bench.arrives(&caller, &channel_data(0x4000, b"voice"));
    assert!(!bench.tick().iter().any(|did| matches!(did, Did::Send(..))));
}
