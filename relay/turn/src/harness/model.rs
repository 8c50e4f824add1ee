//! A relay without a network, and clients that sign: what the fuzz target, the tests and the
//! benchmarks of this crate stand on.
//!
//! Everything panics that a well-behaved server never lets happen.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use rand_core::RngCore;
use sluice_base::event::RelayEvent;
use sluice_base::io::{OpenError, OpenSpec, Opened, Slot};
use sluice_base::limits::{
    ALLOCATION_LIFETIME_DEFAULT, ALLOCATION_LIFETIME_MAX, CHANNELS_PER_ALLOCATION_DEFAULT, HEADROOM_MIN,
    NONCE_LIFETIME_MAX, PERMISSIONS_PER_ALLOCATION_DEFAULT, TAILROOM_MIN, VERDICT_DEADLINE,
};
use sluice_base::message::{Envelope, Order, WorkerMessage};
use sluice_base::policy::{Grant, Question, Verdict};
use sluice_base::stats::{Counter, DropReason, Single};
use sluice_base::{AddressClass, ListenerId, Mono, Now, Pii, QuestionId, Secret, SocketId, TenantId};
use sluice_base::{TransportAddress, WorkerId};
use sluice_crypto::{HmacKey, HmacSha256Key};
use sluice_wire::stun::{Builder, Class, HEADER_LEN, Message, Method, PasswordAlgorithm, TransactionId, attribute};

use crate::{
    AccountLimits, Bans, Disposition, GuardOptions, Ledger, Listener, LivePorts, OpenTicket, Output, RelayAddress,
    Server, ServerOptions, Settings, Shared, StaticUser, Tenant, TenantLimits,
};

/// Where IPv4 clients come to, and the IPv4 relay address.
pub const SERVER_V4: &str = "192.0.2.1:3478";
/// Where IPv6 clients come to, and the IPv6 relay address.
pub const SERVER_V6: &str = "[2001:db8::1]:3478";
/// The realm of both listeners.
pub const REALM: &str = "relay.example";
/// The relayed ports.
pub const PORTS: RangeInclusive<u16> = 50_000..=50_999;
/// The wall clock at the start.
pub const START_UNIX_SECONDS: u64 = 1_700_000_000;

/// A packet buffer in plain memory.
#[derive(Clone, Debug)]
pub struct Packet {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Packet {
    /// A packet with the room that every driver guarantees.
    pub fn new(payload: &[u8]) -> Self {
        Self::with_room(payload, HEADROOM_MIN, TAILROOM_MIN)
    }

    /// A packet with so much room in front and behind.
    pub fn with_room(payload: &[u8], front: usize, behind: usize) -> Self {
        let mut buffer = vec![0xee; front + payload.len() + behind];
        let end = front + payload.len();
        buffer[front..end].copy_from_slice(payload);
        Packet { buffer, start: front, end }
    }

    /// Lays another payload where this one started at first.
    pub fn refill(&mut self, payload: &[u8]) {
        (self.start, self.end) = (HEADROOM_MIN, HEADROOM_MIN + payload.len());
        self.payload_mut().copy_from_slice(payload);
    }
}

impl Slot for Packet {
    fn payload(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.end]
    }

    fn headroom(&self) -> usize {
        self.start
    }

    fn tailroom(&self) -> usize {
        self.buffer.len() - self.end
    }

    fn frame(&mut self, front: usize, back: usize) -> Option<&mut [u8]> {
        if front > self.headroom() || back > self.tailroom() {
            return None;
        }
        self.buffer[self.end..self.end + back].fill(0);
        (self.start, self.end) = (self.start - front, self.end + back);
        Some(&mut self.buffer[self.start..self.start + front])
    }

    fn trim_front(&mut self, n: usize) {
        assert!(n <= self.payload().len(), "beyond the payload");
        self.start += n;
    }

    fn set_len(&mut self, len: usize) {
        assert!(len <= self.payload().len() + self.tailroom(), "beyond the tailroom");
        self.end = self.start + len;
    }
}

/// A generator without a seed from outside: splitmix64.
#[derive(Clone, Debug)]
pub struct Mix(pub u64);

impl RngCore for Mix {
    fn next_u32(&mut self) -> u32 {
        self.next_u64() as u32
    }

    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// Options of the first of one worker: both families, two tenants with secrets and static users, documentation
/// ranges open, and nothing else limited or special.
pub fn options() -> ServerOptions {
    let listener =
        |address: &str| Listener { address: socket_address(address), realm: REALM.to_owned(), tenant: TenantId(0) };
    let relay = |address: &str| RelayAddress { address: socket_address(address).ip(), external: None };
    ServerOptions {
        worker: WorkerId(0),
        workers: 1,
        listeners: [listener(SERVER_V4), listener(SERVER_V6)].into(),
        tenants: [
            tenant("main", &["first secret", "second secret"], &[("alice", "wonderland"), ("eve", "apple")]),
            tenant("acme", &["acme secret"], &[("bob", "builder")]),
        ]
        .into(),
        relays: [relay(SERVER_V4), relay(SERVER_V6)].into(),
        own_addresses: Arc::new([]),
        ports: PORTS,
        allocation_lifetime: ALLOCATION_LIFETIME_DEFAULT,
        allocation_lifetime_max: ALLOCATION_LIFETIME_MAX,
        nonce_lifetime: NONCE_LIFETIME_MAX,
        software: None,
        guard: GuardOptions { allow_classes: vec![AddressClass::Documentation], ..GuardOptions::default() },
        receive_buffer_bytes: 0,
        send_buffer_bytes: 0,
        permissions_per_allocation: PERMISSIONS_PER_ALLOCATION_DEFAULT,
        channels_per_allocation: CHANNELS_PER_ALLOCATION_DEFAULT,
        bits_per_second: 0,
        packets_per_second: 0,
        events: true,
        verdict_deadline: VERDICT_DEADLINE,
    }
}

/// A tenant of secrets and of users with their passwords.
pub fn tenant(name: &str, secrets: &[&str], users: &[(&str, &str)]) -> Tenant {
    let secret = |s: &str| Secret::new(s.to_owned());
    Tenant {
        name: name.to_owned(),
        secrets: secrets.iter().map(|s| secret(s)).collect(),
        users: users.iter().map(|(n, p)| StaticUser { name: secret(n), password: secret(p) }).collect(),
    }
}

/// What the workers of one process share, without quotas.
pub fn shared(options: &ServerOptions) -> Shared {
    let unlimited = vec![TenantLimits::default(); options.tenants.len()];
    shared_with(options, AccountLimits::default(), &unlimited)
}

/// What the workers of one process share, with these quotas.
pub fn shared_with(options: &ServerOptions, total: AccountLimits, tenants: &[TenantLimits]) -> Shared {
    Shared {
        nonce_key: Secret::new([7; 32]),
        live: Arc::new(LivePorts::new(options.relays.len())),
        ledger: Ledger::new(total, tenants),
    }
}

/// What left the relay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    /// When.
    pub at: Mono,
    /// By this socket.
    pub socket: SocketId,
    /// To this address.
    pub to: TransportAddress,
    /// The datagram.
    pub bytes: Vec<u8>,
    /// With the DF bit.
    pub dont_fragment: bool,
}

/// Answers questions, or leaves them open.
pub type Decider = Box<dyn FnMut(&Question) -> Option<Verdict>>;

/// Says what becomes of an attempt to open a socket.
pub type Opener = Box<dyn FnMut(&OpenSpec) -> Result<(), OpenError>>;

/// One worker's server and the world around it.
pub struct Relay {
    /// The machine.
    pub server: Server<Mix>,
    /// Both clocks.
    pub now: Now,
    /// Who answers questions; allows everything at first.
    pub decide: Decider,
    /// What becomes of sockets to be opened; all succeed at first.
    pub opener: Opener,
    /// Whether sockets stay unopened until [`Relay::open_pending`].
    pub slow_to_open: bool,
    /// Every question so far.
    pub questions: Vec<Question>,
    /// Every socket that was asked for so far.
    pub opens: Vec<OpenSpec>,
    /// What other workers were told and have not been handed yet.
    pub told: Vec<(WorkerId, WorkerMessage)>,
    /// What was told to whoever keeps records.
    pub events: Vec<RelayEvent>,
    /// Local address by socket index; `None` once closed.
    sockets: Vec<Option<(SocketId, SocketAddr)>>,
    pending: Vec<(OpenTicket, OpenSpec)>,
    sent: Vec<Sent>,
}

impl Relay {
    /// A relay with [`options`].
    pub fn new() -> Self {
        Self::with(options())
    }

    /// A relay with these options and without quotas.
    pub fn with(options: ServerOptions) -> Self {
        let shared = shared(&options);
        Self::sharing(options, shared)
    }

    /// A relay, or one worker of it.
    pub fn sharing(options: ServerOptions, shared: Shared) -> Self {
        let now = Now { mono: Mono::from_nanos(1_000_000_000_000), unix_seconds: START_UNIX_SECONDS };
        let listeners = options.listeners.clone();
        let seed = Mix(u64::from(options.worker.0) + 1);
        let mut relay = Relay {
            server: Server::new(now, options, shared, seed),
            now,
            decide: Box::new(|_| Some(Verdict::Allow(Grant::default()))),
            opener: Box::new(|_| Ok(())),
            slow_to_open: false,
            questions: Vec::new(),
            opens: Vec::new(),
            told: Vec::new(),
            events: Vec::new(),
            sockets: Vec::new(),
            pending: Vec::new(),
            sent: Vec::new(),
        };
        for (i, listener) in listeners.iter().enumerate() {
            let socket = relay.take_socket(listener.address);
            relay.server.listening(socket, ListenerId(i as u16));
        }
        relay
    }

    /// The socket of a listener.
    pub fn listener(&self, listener: usize) -> SocketId {
        self.sockets[listener].expect("listeners stay open").0
    }

    /// The open socket that is bound to `local`.
    pub fn socket_at(&self, local: SocketAddr) -> Option<SocketId> {
        self.sockets.iter().flatten().find(|(_, bound)| *bound == local).map(|(socket, _)| *socket)
    }

    /// How many relay sockets are open.
    pub fn relay_sockets(&self) -> usize {
        self.sockets.iter().flatten().filter(|(_, local)| PORTS.contains(&local.port())).count()
    }

    /// A datagram arrives; the answer is all that leaves because of it.
    pub fn receive(&mut self, socket: SocketId, from: SocketAddr, bytes: &[u8]) -> Vec<Sent> {
        self.receive_in(socket, from, Packet::new(bytes))
    }

    /// The same in a packet of the caller's making.
    pub fn receive_in(&mut self, socket: SocketId, from: SocketAddr, mut packet: Packet) -> Vec<Sent> {
        let disposition = self.packet(socket, from, &mut packet);
        if let Disposition::Relay { socket, to, options } = disposition {
            let bytes = packet.payload().to_vec();
            self.sent.push(Sent { at: self.now.mono, socket, to, bytes, dont_fragment: options.dont_fragment });
        }
        self.take_sent()
    }

    /// A datagram arrives in a packet of the caller's.
    pub fn packet(&mut self, socket: SocketId, from: SocketAddr, packet: &mut Packet) -> Disposition {
        let disposition = self.server.packet(self.now, socket, Pii::new(from), packet);
        self.run();
        disposition
    }

    /// A datagram of a peer comes to a relayed address.
    pub fn from_peer(&mut self, peer: SocketAddr, relayed: SocketAddr, bytes: &[u8]) -> Vec<Sent> {
        let socket = self.socket_at(relayed).expect("the relayed address is open");
        self.receive(socket, peer, bytes)
    }

    /// A verdict comes in late.
    pub fn verdict(&mut self, id: QuestionId, verdict: Verdict) -> Vec<Sent> {
        self.server.verdict(self.now, id, verdict);
        self.run();
        self.take_sent()
    }

    /// A message comes in.
    pub fn message(&mut self, envelope: Envelope) -> Vec<Sent> {
        self.server.message(self.now, envelope);
        self.run();
        self.take_sent()
    }

    /// All that lives of a tenant is reviewed, as a worker does it; whether all of it has been asked about.
    pub fn review(&mut self, tenant: TenantId) -> bool {
        self.server.message(self.now, Envelope::Order(Order::Review(tenant)));
        self.go_on_reviewing();
        !self.server.reviews_wait()
    }

    /// The same, as far as one tick goes.
    pub fn review_once(&mut self, tenant: TenantId) {
        self.server.message(self.now, Envelope::Order(Order::Review(tenant)));
        self.server.review(self.now);
        self.run();
    }

    /// Other bans come into force.
    pub fn ban(&mut self, bans: Bans) -> Vec<Sent> {
        self.server.ban(self.now, Arc::new(bans));
        self.run();
        self.take_sent()
    }

    /// Other options come into force.
    pub fn configure(&mut self, options: ServerOptions) -> Vec<Sent> {
        self.server.configure(self.now, &Settings::new(options));
        self.run();
        self.take_sent()
    }

    /// Opens what [`Relay::slow_to_open`] has held back.
    pub fn open_pending(&mut self) -> Vec<Sent> {
        for (ticket, spec) in std::mem::take(&mut self.pending) {
            self.open(ticket, &spec);
        }
        self.run();
        self.take_sent()
    }

    /// Time passes, with every timeout on its way.
    pub fn pass(&mut self, time: Duration) -> Vec<Sent> {
        let end = self.now.mono.after(time);
        while self.server.next_timeout() <= end {
            self.set_time(self.server.next_timeout().max(self.now.mono));
            self.server.timeout(self.now);
            self.run();
            self.go_on_reviewing();
        }
        self.set_time(end);
        self.go_on_reviewing();
        self.take_sent()
    }

    /// Time passes, and no timer is looked at: what a packet meets that comes before the tick.
    pub fn pass_without_timers(&mut self, time: Duration) {
        self.set_time(self.now.mono.after(time));
    }

    /// How many packets were dropped for a reason.
    pub fn drops(&mut self, reason: DropReason) -> u64 {
        self.count(Counter::drop(reason))
    }

    /// How many packets were dropped at all.
    pub fn all_drops(&mut self) -> u64 {
        DropReason::ALL.iter().map(|reason| self.count(Counter::drop(*reason))).sum()
    }

    /// The value of a counter or gauge.
    pub fn single(&mut self, single: Single) -> u64 {
        self.count(Counter::single(single))
    }

    /// The value of any counter.
    pub fn count(&mut self, counter: Counter) -> u64 {
        self.server.counters().value(counter)
    }

    fn set_time(&mut self, mono: Mono) {
        let start = Mono::from_nanos(1_000_000_000_000);
        self.now = Now { mono, unix_seconds: START_UNIX_SECONDS + mono.since(start).as_secs() };
    }

    fn take_sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    /// Reviews as far as that goes without waiting.
    fn go_on_reviewing(&mut self) {
        while self.server.is_reviewing(self.now) {
            self.server.review(self.now);
            self.run();
        }
    }

    /// Does what the machine wants done.
    fn run(&mut self) {
        while let Some(output) = self.server.output() {
            match output {
                Output::Ask(question) => {
                    let verdict = (self.decide)(&question);
                    if let Some(verdict) = verdict {
                        self.server.verdict(self.now, question.id, verdict);
                    }
                    self.questions.push(question);
                }
                Output::Open(ticket, spec) => {
                    self.opens.push(spec);
                    if self.slow_to_open {
                        self.pending.push((ticket, spec));
                    } else {
                        self.open(ticket, &spec);
                    }
                }
                Output::Close(socket) => {
                    let closed = self.sockets[socket.index as usize].take();
                    assert_eq!(closed.map(|(open, _)| open), Some(socket), "only open sockets are closed");
                }
                Output::Send { socket, to, reply } => {
                    let bytes = reply.bytes().to_vec();
                    self.sent.push(Sent { at: self.now.mono, socket, to, bytes, dont_fragment: false });
                }
                Output::Tell(worker, message) => self.told.push((worker, message)),
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    fn open(&mut self, ticket: OpenTicket, spec: &OpenSpec) {
        let result = (self.opener)(spec).map(|()| {
            assert!(self.socket_at(spec.local).is_none(), "no port is opened twice");
            Opened { socket: self.take_socket(spec.local), local: spec.local }
        });
        self.server.opened(self.now, ticket, result);
    }

    fn take_socket(&mut self, local: SocketAddr) -> SocketId {
        let free = self.sockets.iter().position(Option::is_none).unwrap_or(self.sockets.len());
        if free == self.sockets.len() {
            self.sockets.push(None);
        }
        let generation = self.opens.len() as u32;
        let socket = SocketId { index: free as u32, generation };
        self.sockets[free] = Some((socket, local));
        socket
    }
}

impl Default for Relay {
    fn default() -> Self {
        Self::new()
    }
}

/// How a client proves its password.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proof {
    /// PASSWORD-ALGORITHM; `None` sends neither it nor PASSWORD-ALGORITHMS.
    pub algorithm: Option<PasswordAlgorithm>,
    /// MESSAGE-INTEGRITY.
    pub sha1: bool,
    /// MESSAGE-INTEGRITY-SHA256 of so many bytes; 0 for none.
    pub sha256_bytes: usize,
    /// USERHASH instead of USERNAME.
    pub hidden: bool,
}

impl Proof {
    /// What clients of RFC 5766 send.
    pub const CLASSIC: Proof = Proof { algorithm: None, sha1: true, sha256_bytes: 0, hidden: false };
    /// All that RFC 8489 has.
    pub const MODERN: Proof =
        Proof { algorithm: Some(PasswordAlgorithm::Sha256), sha1: false, sha256_bytes: 32, hidden: false };
}

/// A client.
#[derive(Clone)]
pub struct Client {
    /// Which listener it comes to.
    pub listener: usize,
    /// Where it is.
    pub address: SocketAddr,
    /// USERNAME.
    pub name: String,
    /// The password.
    pub password: String,
    /// How it proves it.
    pub proof: Proof,
    /// FINGERPRINT ends its requests.
    pub fingerprint: bool,
    /// REALM as it was told.
    pub realm: Vec<u8>,
    /// NONCE as it was told.
    pub nonce: Vec<u8>,
    /// PASSWORD-ALGORITHMS as it was told.
    pub algorithms: Vec<u8>,
}

impl Client {
    /// A client of the static user `alice` that knows nothing yet.
    pub fn new(address: &str) -> Self {
        let address = socket_address(address);
        Client {
            listener: usize::from(address.is_ipv6()),
            address,
            name: "alice".to_owned(),
            password: "wonderland".to_owned(),
            proof: Proof::CLASSIC,
            fingerprint: false,
            realm: Vec::new(),
            nonce: Vec::new(),
            algorithms: Vec::new(),
        }
    }

    /// The same with another name and password.
    #[must_use]
    pub fn named(mut self, name: &str, password: &str) -> Self {
        (self.name, self.password) = (name.to_owned(), password.to_owned());
        self
    }

    /// The same with a time-limited name, whose password follows from the secret.
    #[must_use]
    pub fn limited(self, name: &str, secret: &str) -> Self {
        let password = sluice_crypto::rest_password(secret, name);
        self.named(name, &password)
    }

    /// The same with another way of proving.
    #[must_use]
    pub fn proving(mut self, proof: Proof) -> Self {
        self.proof = proof;
        self
    }

    /// Sends any datagram.
    pub fn send(&self, relay: &mut Relay, bytes: &[u8]) -> Vec<Sent> {
        let socket = relay.listener(self.listener);
        relay.receive(socket, self.address, bytes)
    }

    /// Asks without credentials, and remembers what the challenge says.
    pub fn challenge(&mut self, relay: &mut Relay) -> Answer {
        let bytes = self.unsigned(Method::ALLOCATE, |_| {});
        let answer = self.answer_to(relay, &bytes);
        let message = answer.message();
        let attributes = &message.attributes;
        self.realm = attributes.realm.expect("a challenge has a realm").to_vec();
        self.nonce = attributes.nonce.expect("a challenge has a nonce").to_vec();
        self.algorithms = attributes.password_algorithms.unwrap_or_default().to_vec();
        answer
    }

    /// A request without credentials.
    pub fn unsigned(&mut self, method: Method, fill: impl FnOnce(&mut Builder<'_>)) -> Vec<u8> {
        self.message(Class::Request, method, fill, false)
    }

    /// A request with credentials.
    pub fn signed(&mut self, method: Method, fill: impl FnOnce(&mut Builder<'_>)) -> Vec<u8> {
        self.message(Class::Request, method, fill, true)
    }

    /// An indication.
    pub fn indication(&mut self, method: Method, fill: impl FnOnce(&mut Builder<'_>)) -> Vec<u8> {
        self.message(Class::Indication, method, fill, false)
    }

    /// A request with credentials, after a challenge if there was none, and its only answer.
    pub fn ask(&mut self, relay: &mut Relay, method: Method, fill: impl FnOnce(&mut Builder<'_>)) -> Answer {
        if self.nonce.is_empty() {
            self.challenge(relay);
        }
        let bytes = self.signed(method, fill);
        self.answer_to(relay, &bytes)
    }

    /// The only answer to a request.
    pub fn answer_to(&self, relay: &mut Relay, request: &[u8]) -> Answer {
        let sent = self.send(relay, request);
        self.only_answer(relay, sent)
    }

    /// Reads the only datagram that left as the answer to this client.
    pub fn only_answer(&self, relay: &Relay, sent: Vec<Sent>) -> Answer {
        let [sent] = <[Sent; 1]>::try_from(sent).expect("one answer");
        assert_eq!((sent.socket, sent.to), (relay.listener(self.listener), Pii::new(self.address)));
        let answer = Answer { bytes: sent.bytes };
        if !matches!(answer.code(), 400 | 401 | 420 | 438) && answer.message().method != Method::BINDING {
            assert!(self.trusts(&answer), "an answer to somebody known is signed");
        }
        answer
    }

    /// Whether the answer is signed with the client's key.
    pub fn trusts(&self, answer: &Answer) -> bool {
        let message = answer.message();
        let (sha1, sha256) = (message.attributes.message_integrity, message.attributes.message_integrity_sha256);
        let key = self.key();
        match (sha1, sha256) {
            (Some(integrity), None) => {
                let (header, rest) = message.integrity_input(&integrity);
                self.proof.sha256_bytes == 0 && HmacKey::sha1(&key).verify(&[&header, rest], integrity.tag)
            }
            (None, Some(integrity)) => {
                let (header, rest) = message.integrity_input(&integrity);
                self.proof.sha256_bytes != 0 && HmacSha256Key::new(&key).verify(&[&header, rest], integrity.tag)
            }
            _ => false,
        }
    }

    /// Allocates with REQUESTED-TRANSPORT and what else is wished.
    pub fn allocate(&mut self, relay: &mut Relay, fill: impl FnOnce(&mut Builder<'_>)) -> Answer {
        self.ask(relay, Method::ALLOCATE, |builder| {
            udp(builder);
            fill(builder);
        })
    }

    /// An IPv4 allocation, which must succeed; its relayed address.
    pub fn allocated(&mut self, relay: &mut Relay) -> SocketAddr {
        self.allocate(relay, |_| {}).relayed()[0]
    }

    /// An allocation of both families, which must succeed; its relayed addresses.
    pub fn allocated_both(&mut self, relay: &mut Relay) -> [SocketAddr; 2] {
        let answer = self.allocate(relay, |builder| {
            builder.u32(attribute::ADDITIONAL_ADDRESS_FAMILY, 2 << 24);
        });
        answer.relayed().try_into().expect("two relayed addresses")
    }

    /// Refreshes with this LIFETIME.
    pub fn refresh(&mut self, relay: &mut Relay, seconds: u32) -> Answer {
        self.ask(relay, Method::REFRESH, |builder| {
            builder.u32(attribute::LIFETIME, seconds);
        })
    }

    /// Asks for permissions.
    pub fn permit(&mut self, relay: &mut Relay, peers: &[SocketAddr]) -> Answer {
        self.ask(relay, Method::CREATE_PERMISSION, |builder| {
            for peer in peers {
                builder.xor_address(attribute::XOR_PEER_ADDRESS, *peer);
            }
        })
    }

    /// Binds a channel.
    pub fn bind(&mut self, relay: &mut Relay, number: u16, peer: SocketAddr) -> Answer {
        self.ask(relay, Method::CHANNEL_BIND, |builder| {
            builder.channel(number).xor_address(attribute::XOR_PEER_ADDRESS, peer);
        })
    }

    /// A Send indication.
    pub fn send_indication(&mut self, peer: SocketAddr, data: &[u8]) -> Vec<u8> {
        self.indication(Method::SEND, |builder| {
            builder.xor_address(attribute::XOR_PEER_ADDRESS, peer).bytes(attribute::DATA, data);
        })
    }

    /// Sends data to a peer in a Send indication.
    pub fn say(&mut self, relay: &mut Relay, peer: SocketAddr, data: &[u8]) -> Vec<Sent> {
        let bytes = self.send_indication(peer, data);
        self.send(relay, &bytes)
    }

    /// Sends data on a channel.
    pub fn say_on(&self, relay: &mut Relay, number: u16, data: &[u8]) -> Vec<Sent> {
        self.send(relay, &channel_data(number, data))
    }

    fn message(
        &mut self,
        class: Class,
        method: Method,
        fill: impl FnOnce(&mut Builder<'_>),
        with_credentials: bool,
    ) -> Vec<u8> {
        let transaction = next_transaction();
        let mut buffer = vec![0; 4096];
        let mut builder = Builder::new(&mut buffer, class, method, transaction);
        fill(&mut builder);
        let mut truncated = 0;
        if with_credentials {
            self.credentials(&mut builder);
            let (key, proof) = (self.key(), self.proof);
            if proof.sha1 {
                builder.integrity_sha1(|parts| HmacKey::sha1(&key).sign(parts));
            }
            match proof.sha256_bytes {
                0 => {}
                32 => {
                    builder.integrity_sha256(|parts| HmacSha256Key::new(&key).sign(parts));
                }
                bytes => truncated = bytes,
            }
        }
        if self.fingerprint && truncated == 0 {
            builder.fingerprint();
        }
        let len = builder.finish().expect("a request fits");
        buffer.truncate(len);
        if truncated != 0 {
            append_truncated_integrity(&mut buffer, &self.key(), truncated);
        }
        buffer
    }

    fn credentials(&self, builder: &mut Builder<'_>) {
        if self.proof.hidden {
            builder.bytes(attribute::USERHASH, &sluice_crypto::userhash(&self.name, &self.realm));
        } else {
            builder.bytes(attribute::USERNAME, self.name.as_bytes());
        }
        builder.bytes(attribute::REALM, &self.realm).bytes(attribute::NONCE, &self.nonce);
        if let Some(algorithm) = self.proof.algorithm {
            builder.bytes(attribute::PASSWORD_ALGORITHMS, &self.algorithms).password_algorithm(algorithm);
        }
    }

    fn key(&self) -> Vec<u8> {
        let (name, realm, password) = (self.name.as_bytes(), &self.realm[..], self.password.as_bytes());
        match self.proof.algorithm {
            Some(PasswordAlgorithm::Sha256) => {
                sluice_crypto::long_term_key_sha256(name, realm, password).expose().to_vec()
            }
            _ => sluice_crypto::long_term_key_md5(name, realm, password).expose().to_vec(),
        }
    }
}

/// An answer to a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The datagram.
    pub bytes: Vec<u8>,
}

impl Answer {
    /// The message.
    pub fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).expect("an answer parses")
    }

    /// Its error code; 200 for success.
    pub fn code(&self) -> u16 {
        let message = self.message();
        match (message.class, message.attributes.error_code) {
            (Class::Success, None) => 200,
            (Class::Error, Some((code, _))) => code,
            _ => panic!("an answer is a success or an error with its code"),
        }
    }

    /// XOR-RELAYED-ADDRESS, each.
    pub fn relayed(&self) -> Vec<SocketAddr> {
        assert_eq!(self.code(), 200);
        self.message().relayed().collect()
    }

    /// LIFETIME in seconds.
    pub fn lifetime(&self) -> Option<u32> {
        self.message().attributes.lifetime
    }

    /// RESERVATION-TOKEN.
    pub fn token(&self) -> Option<[u8; 8]> {
        self.message().attributes.reservation_token
    }
}

thread_local! {
    static TRANSACTIONS: Cell<u64> = const { Cell::new(0) };
}

/// Begins anew with the transaction ids of this thread, so that a run can be repeated byte by byte.
pub fn restart_transactions() {
    TRANSACTIONS.set(0);
}

fn next_transaction() -> TransactionId {
    let number = TRANSACTIONS.get() + 1;
    TRANSACTIONS.set(number);
    let mut transaction = [0; 12];
    transaction[4..].copy_from_slice(&number.to_be_bytes());
    TransactionId(transaction)
}

/// REQUESTED-TRANSPORT with UDP.
pub fn udp(builder: &mut Builder<'_>) {
    builder.u32(attribute::REQUESTED_TRANSPORT, 17 << 24);
}

/// A ChannelData message without padding.
pub fn channel_data(number: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
    bytes
}

/// Reads an address of a test.
pub fn socket_address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Reads an address without a port.
pub fn ip_address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// MESSAGE-INTEGRITY-SHA256 with only the first bytes of its tag (RFC 8489, 14.6).
fn append_truncated_integrity(message: &mut Vec<u8>, key: &[u8], tag_bytes: usize) {
    let length = message.len() + 4 + tag_bytes - HEADER_LEN;
    message[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    let tag = HmacSha256Key::new(key).sign(&[message]);
    message.extend(attribute::MESSAGE_INTEGRITY_SHA256.to_be_bytes());
    message.extend((tag_bytes as u16).to_be_bytes());
    message.extend(&tag[..tag_bytes]);
}
