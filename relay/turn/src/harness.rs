//! What must hold for any sequence of packets, times, verdicts and opened sockets. The fuzz targets call
//! [`turn_server`] and [`rtp_quality`], and a test replays their corpora.
//!
//! A fuzzer cannot sign, so that one of its operations is "sign this request as that user". Answers are
//! read as a client would read them, and from them alone an oracle knows what may be relayed.

mod media;
pub mod model;
mod oracle;
mod reader;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use sluice_base::io::OpenError;
use sluice_base::limits::{QUESTIONS_PER_WORKER_MAX, REMEMBERED_ANSWER_LIFETIME};
use sluice_base::message::{Envelope, LentPort, Order, ReservationToken, WorkerMessage};
use sluice_base::policy::{Denial, Grant, Verdict};
use sluice_base::stats::{Method as MethodLabel, Single};
use sluice_base::{AllocationId, Mono, QuestionId, RelayEvent, SessionId, TenantId, WorkerId};
use sluice_wire::stun::{Builder, Message, Method, attribute};

use crate::{RelayAddress, ServerOptions, Usage};
use model::{Answer, Client, Packet, Proof, Relay, Sent, ip_address, options, shared, socket_address};
use oracle::Oracle;
use reader::Reader;

/// Operations of one run: enough for any state, and a run stays short.
const OPERATIONS: usize = 400;
/// Clients of a run; the last one has the address of the first and another name.
const CLIENTS: [&str; 4] = ["203.0.113.7:40000", "203.0.113.8:40001", "[2001:db8:c::7]:40002", "203.0.113.7:40000"];
/// Peers of every kind: allowed, forbidden, this relay's own.
const PEERS: [&str; 8] = [
    "198.51.100.9:6000",
    "198.51.100.9:6001",
    "198.51.100.10:6000",
    "[2001:db8:9::9]:6000",
    "127.0.0.1:6000",
    "[::ffff:192.0.2.1]:50000",
    "192.0.2.1:3478",
    "203.0.113.200:50001",
];
/// Attributes that a request may carry with any value.
const KINDS: [u16; 16] = [
    attribute::LIFETIME,
    attribute::REQUESTED_TRANSPORT,
    attribute::REQUESTED_ADDRESS_FAMILY,
    attribute::ADDITIONAL_ADDRESS_FAMILY,
    attribute::EVEN_PORT,
    attribute::RESERVATION_TOKEN,
    attribute::DONT_FRAGMENT,
    attribute::CHANNEL_NUMBER,
    attribute::XOR_PEER_ADDRESS,
    attribute::DATA,
    attribute::PASSWORD_ALGORITHM,
    attribute::PASSWORD_ALGORITHMS,
    attribute::USERHASH,
    attribute::PRIORITY,
    attribute::SOFTWARE,
    attribute::MESSAGE_INTEGRITY,
];
const METHODS: [Method; 6] =
    [Method::ALLOCATE, Method::REFRESH, Method::CREATE_PERMISSION, Method::CHANNEL_BIND, Method::BINDING, Method::SEND];

/// Plays the packets that `bytes` encode against one worker's statistics of media.
///
/// # Panics
/// When an invariant of them is broken.
pub fn rtp_quality(bytes: &[u8]) {
    media::play(bytes);
}

/// Plays the operations that `bytes` encode against one worker's server.
///
/// # Panics
/// When an invariant of the machine is broken.
pub fn turn_server(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    let mut run = Run::new(&mut reader);
    for _ in 0..OPERATIONS {
        if reader.is_empty() {
            break;
        }
        run.operation(&mut reader);
        run.check();
    }
    run.finish();
}

/// What the policies of a run do.
#[derive(Clone, Copy)]
enum Mood {
    Silent,
    Says(Verdict),
}

struct Run {
    relay: Relay,
    usage: Box<dyn Fn() -> Usage>,
    clients: Vec<Client>,
    mood: Rc<Cell<Mood>>,
    opening: Rc<Cell<Result<(), OpenError>>>,
    oracle: Oracle,
    /// The last request, of which client, and when it was first answered with what.
    last: Option<Last>,
    token: [u8; 8],
    /// Ports of the other worker that this one holds.
    lent: BTreeSet<u16>,
    /// Stays that last, where they are told of.
    stays: BTreeSet<SessionId>,
    tells: bool,
}

struct Last {
    client: usize,
    request: Vec<u8>,
    answered: Option<(Mono, Vec<u8>)>,
}

impl Run {
    fn new(reader: &mut Reader<'_>) -> Self {
        model::restart_transactions();
        let options = options_of(reader.byte());
        let tells = options.events;
        let shared = shared(&options);
        let ledger = shared.ledger.clone();
        let mut relay = Relay::sharing(options, shared);
        let mood = Rc::new(Cell::new(Mood::Says(Verdict::Allow(Grant::default()))));
        let opening = Rc::new(Cell::new(Ok(())));
        let (of_policies, of_driver) = (mood.clone(), opening.clone());
        relay.decide = Box::new(move |_| match of_policies.get() {
            Mood::Silent => None,
            Mood::Says(verdict) => Some(verdict),
        });
        relay.opener = Box::new(move |_| of_driver.get());
        let mut clients: Vec<_> = CLIENTS.iter().map(|address| Client::new(address)).collect();
        clients[1].proof = Proof::MODERN;
        clients[2] = clients[2].clone().limited("1700003600:acme/dave", "acme secret");
        clients[3] = clients[3].clone().named("eve", "apple");
        for client in &mut clients {
            client.challenge(&mut relay);
        }
        let usage = Box::new(move || ledger.usage());
        Run {
            relay,
            usage,
            clients,
            mood,
            opening,
            oracle: Oracle::default(),
            last: None,
            token: [0; 8],
            lent: BTreeSet::new(),
            stays: BTreeSet::new(),
            tells,
        }
    }

    fn operation(&mut self, reader: &mut Reader<'_>) {
        match reader.byte() % 16 {
            0 => self.pass(Duration::from_millis(u64::from(reader.word()))),
            1 => self.pass(Duration::from_secs(u64::from(reader.word()) % 4000)),
            2 => self.raw(reader),
            3 => self.peer(reader),
            4 | 5 => self.request(reader, None),
            6 => {
                let damage = reader.word();
                self.request(reader, Some(damage));
            }
            7 => self.again(),
            8 => self.verdict(reader),
            9 => self.sockets(reader),
            10 => self.data(reader),
            11 => self.channel(reader),
            12 => self.order(reader),
            13 => self.worker(reader),
            14 => self.mood(reader),
            _ => self.challenge(reader),
        }
    }

    fn pass(&mut self, time: Duration) {
        let open = self.relay.single(Single::QuestionsOpen) as usize + self.clients.len() * 8;
        let sent = self.relay.pass(time);
        assert!(sent.len() <= open, "time alone answers open requests only");
        self.observe(&sent);
    }

    /// Any bytes from a client, or from nobody.
    fn raw(&mut self, reader: &mut Reader<'_>) {
        let client = self.client(reader);
        let (listener, address) = (self.clients[client].listener, self.clients[client].address);
        let bytes = reader.bytes();
        let socket = self.relay.listener(listener);
        let sent = self.relay.receive(socket, address, bytes);
        self.observe_answer(&sent);
    }

    /// Any bytes from a peer, in a packet with more or less room.
    fn peer(&mut self, reader: &mut Reader<'_>) {
        let (from, relayed) = (self.address(reader), self.oracle.relay_socket(reader.byte()));
        let room = reader.byte();
        let bytes = reader.bytes();
        let Some(socket) = relayed else {
            return;
        };
        let packet = if room < 128 {
            Packet::new(bytes)
        } else {
            Packet::with_room(bytes, usize::from(room % 64), usize::from(room % 5))
        };
        let sent = self.relay.receive_in(socket, from, packet);
        self.observe_answer(&sent);
    }

    /// A request that is signed, and then damaged or not.
    fn request(&mut self, reader: &mut Reader<'_>, damage: Option<u16>) {
        let client = self.client(reader);
        let method = METHODS[usize::from(reader.byte()) % METHODS.len()];
        let peers: Vec<_> = (0..reader.byte() % 4).map(|_| self.address(reader)).collect();
        let token = self.token;
        let mut request = self.clients[client].signed(method, |builder| {
            if method == Method::ALLOCATE {
                model::udp(builder);
            }
            for peer in peers {
                builder.xor_address(attribute::XOR_PEER_ADDRESS, peer);
            }
            fill(builder, reader, token);
        });
        if let Some(damage) = damage {
            let at = usize::from(damage) % request.len();
            request[at] ^= 1 << (damage >> 13);
        }
        self.oracle.ask(self.relay.now.mono, &request);
        let sent = self.clients[client].send(&mut self.relay, &request);
        self.observe_answer(&sent);
        let answered = sent.first().map(|sent| (self.relay.now.mono, sent.bytes.clone()));
        self.last = Some(Last { client, request, answered });
    }

    /// The last request once more.
    fn again(&mut self) {
        let Some(last) = self.last.take() else {
            return;
        };
        let questions = self.relay.questions.len();
        self.oracle.ask(self.relay.now.mono, &last.request);
        let sent = self.clients[last.client].send(&mut self.relay, &last.request);
        self.observe_answer(&sent);
        if let (Some((at, bytes)), Some(again)) = (&last.answered, sent.first()) {
            let recent = self.relay.now.mono < at.after(REMEMBERED_ANSWER_LIFETIME);
            if recent && is_signed(bytes) && is_signed(&again.bytes) {
                assert_eq!(*bytes, again.bytes, "a retransmission is answered alike");
                assert_eq!(questions, self.relay.questions.len(), "and asks nothing");
            }
        }
        self.last = Some(last);
    }

    fn verdict(&mut self, reader: &mut Reader<'_>) {
        let at = usize::from(reader.byte());
        let verdict = verdict_of(reader);
        let questions = &self.relay.questions;
        let recent = questions.len().checked_sub(1 + at).and_then(|at| questions.get(at)).map(|question| question.id);
        let sent = self.relay.verdict(recent.unwrap_or(QuestionId(at as u64)), verdict);
        self.observe_answer(&sent);
    }

    /// Sockets open at once or later, or cannot be opened.
    fn sockets(&mut self, reader: &mut Reader<'_>) {
        let how = reader.byte();
        self.relay.slow_to_open = how & 1 != 0;
        self.opening.set(match how >> 1 & 3 {
            0 | 1 => Ok(()),
            2 => Err(OpenError::InUse),
            _ => Err(OpenError::NoSockets),
        });
        if how & 8 != 0 {
            self.open_pending();
        }
    }

    fn open_pending(&mut self) {
        let sent = self.relay.open_pending();
        self.observe(&sent);
    }

    fn data(&mut self, reader: &mut Reader<'_>) {
        let (client, peer) = (self.client(reader), self.address(reader));
        let data = vec![0xda; usize::from(reader.byte())];
        let sent = self.clients[client].say(&mut self.relay, peer, &data);
        self.observe_answer(&sent);
        assert!(sent.iter().all(|sent| carries(&sent.bytes, &data)));
    }

    fn channel(&mut self, reader: &mut Reader<'_>) {
        let client = self.client(reader);
        let number = 0x4000 + u16::from(reader.byte() % 8);
        let data = vec![0xcd; usize::from(reader.byte())];
        let sent = self.clients[client].say_on(&mut self.relay, number, &data);
        self.observe_answer(&sent);
        assert!(sent.iter().all(|sent| carries(&sent.bytes, &data)));
    }

    fn order(&mut self, reader: &mut Reader<'_>) {
        let at = usize::from(reader.byte());
        if at >= 192 {
            // What decides has changed, for one of the tenants.
            self.relay.review(TenantId((at % 2) as u16));
            return;
        }
        let known = self.relay.server.allocations().nth(at);
        let id = known.unwrap_or(AllocationId(at as u64));
        assert!(self.relay.message(Envelope::Order(Order::End(id))).is_empty());
    }

    /// The other worker asks for reservations and answers about its own.
    fn worker(&mut self, reader: &mut Reader<'_>) {
        let other = WorkerId(1);
        let sent = match reader.byte() % 3 {
            0 => {
                let token = ReservationToken(self.token);
                let message = WorkerMessage::TakeReservation { token, request: 7 };
                self.relay.message(Envelope::Worker(other, message))
            }
            _ => match self.relay.told.pop() {
                Some((_, WorkerMessage::TakeReservation { request, .. })) => {
                    // Pairs of ports go round the workers.
                    let port = 50_002 + u16::from(reader.byte() % 2) + 4 * (self.relay.opens.len() as u16 % 4);
                    let port = self.lent.insert(port).then_some(LentPort { relay_address: 0, port });
                    self.relay.message(Envelope::Worker(other, WorkerMessage::ReservationTaken { request, port }))
                }
                Some((_, WorkerMessage::ReservationTaken { port: Some(port), .. })) => {
                    self.relay.message(Envelope::Worker(other, WorkerMessage::ReturnPort(port)))
                }
                _ => Vec::new(),
            },
        };
        self.observe_answer(&sent);
    }

    fn mood(&mut self, reader: &mut Reader<'_>) {
        let mood = if reader.byte() & 1 == 0 { Mood::Silent } else { Mood::Says(verdict_of(reader)) };
        self.mood.set(mood);
    }

    fn challenge(&mut self, reader: &mut Reader<'_>) {
        let client = self.client(reader);
        let request = self.clients[client].unsigned(Method::REFRESH, |_| {});
        let sent = self.clients[client].send(&mut self.relay, &request);
        self.observe_answer(&sent);
        // None where the source has asked too often.
        let nonce =
            sent.first().and_then(|sent| Message::parse(&sent.bytes).ok()?.attributes.nonce.map(<[u8]>::to_vec));
        self.clients[client].nonce = nonce.unwrap_or_else(|| self.clients[client].nonce.clone());
    }

    fn client(&self, reader: &mut Reader<'_>) -> usize {
        usize::from(reader.byte()) % self.clients.len()
    }

    /// A peer: one of the list, or a relayed address that is open.
    fn address(&self, reader: &mut Reader<'_>) -> SocketAddr {
        let at = usize::from(reader.byte());
        match at.checked_sub(PEERS.len()) {
            None => socket_address(PEERS[at]),
            Some(at) => self.oracle.relayed(at).unwrap_or_else(|| socket_address(PEERS[at % PEERS.len()])),
        }
    }

    fn observe_answer(&mut self, sent: &[Sent]) {
        assert!(sent.len() <= 1, "one input, one datagram");
        self.observe(sent);
    }

    fn observe(&mut self, sent: &[Sent]) {
        for sent in sent {
            if let Some(token) = self.oracle.observe(&self.relay, &self.clients, sent) {
                self.token = token;
            }
        }
    }

    /// What holds after every operation.
    fn check(&mut self) {
        let allocations = self.relay.single(Single::Allocations);
        // Two clients share their address.
        assert!(allocations < CLIENTS.len() as u64);
        assert!(self.relay.single(Single::Permissions) <= 4 * allocations);
        assert!(self.relay.single(Single::Channels) <= 4 * allocations);
        assert!(self.relay.single(Single::QuestionsOpen) <= QUESTIONS_PER_WORKER_MAX as u64);
        assert!(self.relay.server.output().is_none(), "every output was taken");
        self.told();
        assert!(!self.tells || self.stays.len() as u64 == allocations, "each allocation is a stay that lasts");
        self.take_back();
        self.relay.told.truncate(16);
    }

    /// Each stay begins once and ends once, or is refused.
    fn told(&mut self) {
        for event in std::mem::take(&mut self.relay.events) {
            assert!(self.tells, "nobody wants to know");
            match event {
                RelayEvent::Began(began) => assert!(self.stays.insert(began.session), "a new stay"),
                RelayEvent::Ended(ended) => assert!(self.stays.remove(&ended.session), "a stay that lasts"),
                RelayEvent::StreamEnded(stream) => assert!(self.stays.contains(&stream.session), "a stay that lasts"),
                RelayEvent::Denied(denied) => {
                    let begins = denied.method == MethodLabel::Allocate;
                    assert!(!begins || denied.session.is_none_or(|session| !self.stays.contains(&session)));
                }
                _ => {}
            }
        }
    }

    /// Lent ports come home once.
    fn take_back(&mut self) {
        let lent = &mut self.lent;
        self.relay.told.retain(|(_, message)| match message {
            WorkerMessage::ReturnPort(port) => {
                assert!(lent.remove(&port.port), "a port that was lent");
                false
            }
            _ => true,
        });
    }

    /// Whatever happened, in the end nothing is left.
    fn finish(mut self) {
        self.mood.set(Mood::Says(Verdict::Allow(Grant::default())));
        self.relay.slow_to_open = false;
        self.open_pending();
        self.pass(Duration::from_secs(4000));
        self.open_pending();
        self.pass(Duration::from_secs(4000));
        for gauge in [Single::Allocations, Single::Permissions, Single::Channels, Single::QuestionsOpen] {
            assert_eq!(self.relay.single(gauge), 0, "{gauge:?}");
        }
        self.told();
        assert_eq!(self.stays.len(), 0);
        assert_eq!(self.relay.server.timers(), 0);
        assert_eq!(self.relay.relay_sockets(), 0);
        self.take_back();
        assert!(self.lent.is_empty(), "every lent port is back");
        let left = (self.usage)();
        assert_eq!((left.users, left.allocations, left.permissions, left.channels), (0, 0, 0, 0));
    }
}

/// One of several configurations, all with few ports and low limits.
fn options_of(choice: u8) -> ServerOptions {
    let mut options = options();
    (options.workers, options.ports) = (2, 50_000..=50_015);
    (options.permissions_per_allocation, options.channels_per_allocation) = (4, 4);
    if choice & 1 != 0 {
        let external = Some(ip_address("203.0.113.200"));
        let inner = options.relays[0].address;
        options.relays = [RelayAddress { address: inner, external }, options.relays[1]].into();
    }
    if choice & 2 != 0 {
        (options.bits_per_second, options.packets_per_second) = (80_000, 100);
    }
    if choice & 4 != 0 {
        (options.guard.unauthenticated_per_second, options.guard.unauthenticated_burst) = (1, 4);
    }
    if choice & 8 != 0 {
        options.relays = [options.relays[0]].into();
    }
    if choice & 16 != 0 {
        options.software = Some("x".repeat(32));
    }
    options.events = choice & 32 == 0;
    options
}

fn verdict_of(reader: &mut Reader<'_>) -> Verdict {
    let choice = reader.byte();
    match choice & 7 {
        0 => Verdict::Deny(Denial::Forbidden),
        1 => Verdict::Deny(Denial::Quota),
        2 => Verdict::Deny(if choice & 8 == 0 { Denial::TryLater } else { Denial::Unanswered }),
        _ => {
            let seconds = |set: bool, reader: &mut Reader<'_>| set.then(|| u64::from(reader.word()));
            let valid_for = seconds(choice & 8 != 0, reader).map(Duration::from_millis);
            let lifetime_max = seconds(choice & 16 != 0, reader).map(Duration::from_secs);
            let bits_per_second = seconds(choice & 32 != 0, reader);
            let permissions_max = seconds(choice & 64 != 0, reader).map(|seconds| seconds as u32);
            Verdict::Allow(Grant { valid_for, lifetime_max, bits_per_second, permissions_max })
        }
    }
}

/// Attributes with likely values and with any.
fn fill(builder: &mut Builder<'_>, reader: &mut Reader<'_>, token: [u8; 8]) {
    for _ in 0..reader.byte() % 6 {
        let value = reader.byte();
        match reader.byte() % 10 {
            0 => builder.u32(attribute::LIFETIME, u32::from(value) * 15),
            1 => builder.u32(attribute::REQUESTED_ADDRESS_FAMILY, u32::from(value % 4) << 24),
            2 => builder.u32(attribute::ADDITIONAL_ADDRESS_FAMILY, u32::from(value % 4) << 24),
            3 => builder.bytes(attribute::EVEN_PORT, &[value & 0x80]),
            4 => builder.bytes(attribute::RESERVATION_TOKEN, &token),
            5 => builder.bytes(attribute::RESERVATION_TOKEN, &[value % 3, 1, 2, 3, 4, 5, 6, 7]),
            6 => builder.channel(0x4000 + u16::from(value % 9)),
            7 => builder.u32(attribute::REQUESTED_TRANSPORT, u32::from(value) << 24),
            8 => builder.bytes(KINDS[usize::from(value) % KINDS.len()], short(reader.bytes())),
            _ => builder.bytes(reader.word(), short(reader.bytes())),
        };
    }
}

fn short(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(40)]
}

fn is_signed(bytes: &[u8]) -> bool {
    let answer = Answer { bytes: bytes.to_vec() };
    let message = answer.message();
    message.attributes.message_integrity.is_some() || message.attributes.message_integrity_sha256.is_some()
}

/// Whether a datagram is these data, alone or in an envelope of either kind.
fn carries(datagram: &[u8], data: &[u8]) -> bool {
    datagram == data
        || datagram.get(4..) == Some(data)
        || Message::parse(datagram).is_ok_and(|message| message.data() == Some(data))
}
