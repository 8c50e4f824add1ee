//! A model client, written from the RFCs: it authenticates, allocates, keeps alive or forgets to,
//! retransmits as RFC 8489, 6.2.1 says, and now and then does what no client should.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use sluice_base::{Mono, Now};
use sluice_wire::channel_data;
use sluice_wire::stun::{Builder, Class, Message, Method, TransactionId, attribute};

use crate::credentials::{Login, Style};
use crate::kernel::Packet;
use crate::rng::Rng;
use crate::scenario::{STATIC_USERS, Scenario};

/// First retransmission (RFC 8489, 6.2.1).
const RTO: Duration = Duration::from_millis(500);
/// Transmissions of one request.
const SENDS_MAX: u32 = 7;
/// 401s and 438s in a row after which a client gives up.
const CHALLENGES_MAX: u32 = 3;
/// Longest answer and request.
const MESSAGE_BYTES: usize = 1500;

/// What everybody may know.
#[derive(Default)]
pub(crate) struct Board {
    /// Relayed addresses that clients were given, the newest last.
    pub(crate) relayed: Vec<SocketAddr>,
    /// Tokens that clients were given.
    pub(crate) tokens: Vec<[u8; 8]>,
    /// Payloads sent so far.
    pub(crate) payloads: u64,
}

/// What a model has at hand when it acts.
pub(crate) struct Context<'a> {
    pub(crate) now: Now,
    pub(crate) rng: &'a mut Rng,
    pub(crate) scenario: &'a Scenario,
    pub(crate) board: &'a mut Board,
    /// What it sends.
    pub(crate) out: &'a mut Vec<Packet>,
    /// What it says for the trace.
    pub(crate) said: Option<String>,
}

/// One client.
pub(crate) struct Client {
    pub(crate) local: SocketAddr,
    server: SocketAddr,
    /// The user, with the tenant where it names one.
    user: String,
    style: Style,
    /// A time-limited name instead of a fixed password.
    timed: bool,
    wrong_password: bool,
    login: Rc<Login>,
    realm: Vec<u8>,
    nonce: Vec<u8>,
    algorithms: Vec<u8>,
    pending: Vec<Transaction>,
    live: Option<Live>,
    act_at: Mono,
    /// Payloads that arrived.
    pub(crate) received: u64,
    /// What must not have happened.
    pub(crate) violation: Option<String>,
}

struct Live {
    relayed: Vec<SocketAddr>,
    until: Mono,
    permitted: BTreeMap<IpAddr, Mono>,
    channels: BTreeMap<u16, (SocketAddr, Mono)>,
}

struct Transaction {
    id: [u8; 12],
    ask: Ask,
    bytes: Vec<u8>,
    /// What it was signed with.
    login: Rc<Login>,
    sends: u32,
    challenges: u32,
    next_at: Mono,
}

#[derive(Clone, Debug)]
enum Ask {
    Binding,
    Allocate(Wishes),
    Refresh {
        lifetime: Option<u32>,
        family: Option<u8>,
    },
    Permit(Vec<SocketAddr>),
    Bind(u16, SocketAddr),
    /// What a server does not know: 420.
    Strange,
}

#[derive(Clone, Debug, Default)]
struct Wishes {
    lifetime: Option<u32>,
    family: Option<u8>,
    additional: bool,
    even: Option<bool>,
    token: Option<[u8; 8]>,
    dont_fragment: bool,
}

impl Client {
    pub(crate) fn new(index: usize, local: SocketAddr, server: SocketAddr, rng: &mut Rng, start: Mono) -> Self {
        let (name, _) = STATIC_USERS[index % STATIC_USERS.len()];
        let user = if rng.chance(300) { format!("second/{name}") } else { name.to_owned() };
        let style = rng.pick(&Style::ALL);
        Client {
            local,
            server,
            user,
            style,
            timed: rng.chance(500),
            wrong_password: rng.chance(60),
            login: Rc::new(Login::new("", "", style)),
            realm: Vec::new(),
            nonce: Vec::new(),
            algorithms: Vec::new(),
            pending: Vec::new(),
            live: None,
            act_at: start.after(rng.millis(0, 3_000)),
            received: 0,
            violation: None,
        }
    }

    /// When it wants to be polled.
    pub(crate) fn next(&self) -> Mono {
        self.pending.iter().map(|t| t.next_at).fold(self.act_at, Mono::min)
    }

    /// Retransmits what is due, and acts.
    pub(crate) fn poll(&mut self, c: &mut Context<'_>) {
        self.retransmit(c);
        if c.now.mono >= self.act_at {
            let idle = c.scenario.idle_ms;
            self.act_at = c.now.mono.after(c.rng.millis(1, idle.max(2)));
            self.act(c);
        }
    }

    /// A packet has come.
    pub(crate) fn receive(&mut self, c: &mut Context<'_>, from: SocketAddr, bytes: &[u8]) {
        if from != self.server {
            // Its NAT let somebody else's packet in; a client ignores it.
            return;
        }
        if channel_data::parse(bytes).is_ok() {
            self.received += 1;
            return;
        }
        let Ok(message) = Message::parse(bytes) else {
            self.violation = Some("a client gets what it cannot read".into());
            return;
        };
        match message.class {
            Class::Success | Class::Error => self.answered(c, &message),
            _ => self.received += 1,
        }
    }

    /// Gives up all it has and starts anew from another port.
    pub(crate) fn move_away(&mut self) {
        let port = self.local.port().checked_add(1).unwrap_or(2000);
        self.local.set_port(port);
        self.pending.clear();
        self.live = None;
    }

    fn act(&mut self, c: &mut Context<'_>) {
        if self.pending.len() > 6 {
            return;
        }
        if self.live.as_ref().is_some_and(|live| c.now.mono >= live.until) && c.rng.chance(700) {
            self.live = None;
        }
        let Some(live) = &self.live else {
            if !self.pending.iter().any(|t| matches!(t.ask, Ask::Allocate(_))) {
                let wishes = self.wishes(c);
                self.ask(c, Ask::Allocate(wishes));
            }
            return;
        };
        let ends_soon = live.until.since(c.now.mono) < Duration::from_secs(30);
        if ends_soon && c.rng.chance(850) {
            return self.refresh(c);
        }
        match c.rng.below(100) {
            0..=27 => self.send_on_channels(c),
            28..=49 => self.send_indications(c),
            50..=61 => {
                let count = c.rng.between(1, 4);
                let peers = (0..count).map(|_| self.peer(c)).collect();
                self.ask(c, Ask::Permit(peers));
            }
            62..=75 => {
                let number = 0x4000 + c.rng.below(6) as u16;
                let peer = self.peer(c);
                self.ask(c, Ask::Bind(number, peer));
            }
            76..=79 => self.refresh(c),
            80 => {
                let family = c.rng.pick(&[None, None, Some(1), Some(2)]);
                self.ask(c, Ask::Refresh { lifetime: Some(0), family });
            }
            81..=83 => self.ask(c, Ask::Binding),
            84 => {
                let wishes = self.wishes(c);
                self.ask(c, Ask::Allocate(wishes));
            }
            85 if c.rng.chance(500) => self.ask(c, Ask::Strange),
            85 => self.ask_as_somebody_else(c),
            86 => self.move_away(),
            87..=89 => self.act_at = c.now.mono.after(c.rng.millis(1_000, 400_000)),
            _ => self.keep_alive(c),
        }
    }

    fn refresh(&mut self, c: &mut Context<'_>) {
        let lifetime = lifetime(c.rng);
        self.ask(c, Ask::Refresh { lifetime, family: None });
    }

    /// Another user at the same address, with a password of its own: 441.
    fn ask_as_somebody_else(&mut self, c: &mut Context<'_>) {
        let (name, password) = c.rng.pick(&STATIC_USERS);
        let other = Rc::new(Login::new(name, password, self.style));
        let own = std::mem::replace(&mut self.login, other);
        self.refresh(c);
        self.login = own;
    }

    /// Refreshes what would run out soon.
    fn keep_alive(&mut self, c: &mut Context<'_>) {
        let Some(live) = &self.live else { return };
        let soon = c.now.mono.after(Duration::from_secs(60));
        let peers: Vec<_> =
            live.permitted.iter().filter(|(_, until)| **until < soon).map(|(ip, _)| *ip).take(4).collect();
        let channel =
            live.channels.iter().find(|(_, (_, until))| *until < soon).map(|(number, (peer, _))| (*number, *peer));
        if !peers.is_empty() {
            self.ask(c, Ask::Permit(peers.into_iter().map(|ip| SocketAddr::new(ip, 9)).collect()));
        }
        if let Some((number, peer)) = channel {
            self.ask(c, Ask::Bind(number, peer));
        }
    }

    fn wishes(&self, c: &mut Context<'_>) -> Wishes {
        let mut wishes = Wishes { lifetime: lifetime(c.rng), dont_fragment: c.rng.chance(100), ..Wishes::default() };
        match c.rng.below(12) {
            0 | 1 if c.scenario.has_v6() => wishes.family = Some(2),
            2 => wishes.family = Some(1),
            3..=5 => wishes.additional = true,
            6 => wishes.even = Some(false),
            7 | 8 => wishes.even = Some(true),
            9 | 10 if !c.board.tokens.is_empty() => wishes.token = Some(c.rng.pick(&c.board.tokens)),
            11 if c.rng.chance(100) => {
                // Not to be had together (RFC 8656, 7.2): 400.
                wishes.even = Some(true);
                wishes.token = Some([7; 8]);
            }
            _ => {}
        }
        wishes
    }

    /// Somebody to talk to: mostly a peer, often another allocation, sometimes nobody that is allowed.
    fn peer(&self, c: &mut Context<'_>) -> SocketAddr {
        match c.rng.below(100) {
            0..=9 => {
                let mut peer = c.scenario.peer(c.rng.below(c.scenario.peers as u64) as usize);
                peer.set_port(c.rng.between(1, 65_535) as u16);
                peer
            }
            10..=39 if !c.board.relayed.is_empty() => {
                let newest = c.board.relayed.len().saturating_sub(12);
                c.rng.pick(&c.board.relayed[newest..])
            }
            40 => c.rng.pick(&["10.0.0.9:5", "127.0.0.1:5", "169.254.169.254:80"]).parse().expect("an address"),
            41 => c.rng.pick(&["[::1]:5", "[::ffff:10.0.0.1]:5", "[fd00::1]:5"]).parse().expect("an address"),
            42 => SocketAddr::new(c.scenario.relays[0].address, c.rng.between(1, 65_535) as u16),
            _ => c.scenario.peer(c.rng.below(c.scenario.peers as u64) as usize),
        }
    }

    fn send_on_channels(&mut self, c: &mut Context<'_>) {
        let Some(live) = &self.live else { return };
        let mut numbers: Vec<_> = live.channels.keys().copied().collect();
        if numbers.is_empty() || c.rng.chance(50) {
            // Perhaps nobody bound it.
            numbers.push(0x4000 + c.rng.below(0x1000) as u16);
        }
        for _ in 0..c.rng.between(1, 8) {
            let number = c.rng.pick(&numbers);
            let data = payload(c);
            let mut bytes = vec![0; channel_data::HEADER_LEN];
            if let Some(header) = bytes.first_chunk_mut() {
                channel_data::write_header(header, number, data.len() as u16);
            }
            bytes.extend(data);
            // Padding is optional over UDP (RFC 8656, 12.5).
            if c.rng.chance(300) {
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
            self.transmit(c, bytes);
        }
    }

    fn send_indications(&mut self, c: &mut Context<'_>) {
        let Some(live) = &self.live else { return };
        let permitted: Vec<_> = live.permitted.keys().copied().collect();
        for _ in 0..c.rng.between(1, 5) {
            let mut peer = self.peer(c);
            if !permitted.is_empty() && c.rng.chance(700) {
                let ip = c.rng.pick(&permitted);
                let known = (0..c.scenario.peers).map(|i| c.scenario.peer(i)).find(|known| known.ip() == ip);
                let relayed = c.board.relayed.iter().rev().find(|known| known.ip() == ip).copied();
                peer = known.or(relayed).unwrap_or(SocketAddr::new(ip, 4444));
            }
            let data = payload(c);
            let fragment = c.rng.chance(100);
            let id = TransactionId(c.rng.transaction());
            let bytes = build(Class::Indication, Method::SEND, id, |builder| {
                builder.xor_address(attribute::XOR_PEER_ADDRESS, peer);
                if fragment {
                    builder.bytes(attribute::DONT_FRAGMENT, &[]);
                }
                builder.bytes(attribute::DATA, &data);
            });
            self.transmit(c, bytes);
        }
    }

    fn ask(&mut self, c: &mut Context<'_>, ask: Ask) {
        let id = c.rng.transaction();
        let bytes = self.request(c, id, &ask);
        c.said = Some(format!("{} asks {}: {ask:?}", self.local, self.server));
        self.transmit(c, bytes.clone());
        let next_at = c.now.mono.after(RTO);
        let login = self.login.clone();
        self.pending.push(Transaction { id, ask, bytes, login, sends: 1, challenges: 0, next_at });
    }

    /// The bytes of a request, signed where a realm and a nonce are known.
    fn request(&self, c: &mut Context<'_>, id: [u8; 12], ask: &Ask) -> Vec<u8> {
        let fingerprint = c.rng.chance(600);
        build(Class::Request, ask.method(), TransactionId(id), |builder| {
            ask.write(builder);
            if !self.nonce.is_empty() && !matches!(ask, Ask::Binding) {
                self.login.sign(builder, &self.realm, &self.nonce, &self.algorithms);
            }
            if fingerprint {
                builder.fingerprint();
            }
        })
    }

    fn retransmit(&mut self, c: &mut Context<'_>) {
        let due: Vec<_> = self.pending.iter().filter(|t| c.now.mono >= t.next_at).map(|t| t.id).collect();
        for id in due {
            let Some(at) = self.pending.iter().position(|t| t.id == id) else { continue };
            if self.pending[at].sends >= SENDS_MAX {
                self.pending.remove(at);
                continue;
            }
            let transaction = &mut self.pending[at];
            let wait = match transaction.sends + 1 {
                SENDS_MAX => RTO * 16,
                sends => RTO * (1 << (sends - 1)),
            };
            transaction.next_at = c.now.mono.after(wait);
            transaction.sends += 1;
            let bytes = transaction.bytes.clone();
            self.transmit(c, bytes);
        }
    }

    fn answered(&mut self, c: &mut Context<'_>, message: &Message<'_>) {
        let Some(at) = self.pending.iter().position(|t| t.id == message.transaction.0) else {
            return;
        };
        let signed = self.pending[at].login.signed(message);
        if message.class == Class::Success && message.method != Method::BINDING && !signed {
            self.violation = Some("a success that its client cannot verify".into());
            return;
        }
        let transaction = self.pending.remove(at);
        let code = message.attributes.error_code.map(|(code, _)| code);
        match (message.class, code) {
            (Class::Success, _) => self.succeeded(c, transaction.ask, message),
            (_, Some(401 | 438)) => self.challenged(c, transaction, message, code == Some(401)),
            (_, Some(437)) => self.mismatched(c, &transaction.ask),
            _ => {}
        }
    }

    /// 401 and 438: again, with what the server named.
    fn challenged(&mut self, c: &mut Context<'_>, transaction: Transaction, message: &Message<'_>, unknown: bool) {
        let (Some(realm), Some(nonce)) = (message.attributes.realm, message.attributes.nonce) else {
            self.violation = Some("a challenge without realm or nonce".into());
            return;
        };
        self.realm = realm.to_vec();
        self.nonce = nonce.to_vec();
        self.algorithms = message.attributes.password_algorithms.unwrap_or_default().to_vec();
        if unknown {
            self.login = Rc::new(self.new_login(c));
        }
        if transaction.challenges < CHALLENGES_MAX {
            self.ask(c, transaction.ask);
            if let Some(new) = self.pending.last_mut() {
                new.challenges = transaction.challenges + 1;
            }
        }
    }

    fn new_login(&self, c: &mut Context<'_>) -> Login {
        if self.wrong_password && c.rng.chance(800) {
            return Login::new(&self.user, "a guess", self.style);
        }
        if self.timed {
            let expiry = c.now.unix_seconds + c.rng.between(30, 4000);
            return Login::rest(expiry, &self.user, self.style);
        }
        let name = self.user.rsplit('/').next().unwrap_or_default();
        let password = STATIC_USERS.iter().find(|(known, _)| *known == name).map_or("", |(_, password)| *password);
        Login::new(&self.user, password, self.style)
    }

    /// 437: somebody else's or one's own older allocation is there, or none is.
    fn mismatched(&mut self, c: &mut Context<'_>, ask: &Ask) {
        match ask {
            Ask::Allocate(_) if self.live.is_none() && c.rng.chance(500) => {
                self.ask(c, Ask::Refresh { lifetime: Some(0), family: None });
            }
            Ask::Allocate(_) if self.live.is_none() => self.move_away(),
            Ask::Allocate(_) => {}
            _ => self.live = None,
        }
    }

    fn succeeded(&mut self, c: &mut Context<'_>, ask: Ask, message: &Message<'_>) {
        let now = c.now.mono;
        let attributes = &message.attributes;
        let until = now.after(Duration::from_secs(attributes.lifetime.unwrap_or_default().into()));
        c.said = Some(format!("{} succeeds: {ask:?}", self.local));
        match (ask, &mut self.live) {
            (Ask::Allocate(_), live) => {
                let relayed: Vec<_> = message.relayed().collect();
                c.board.relayed.extend(&relayed);
                c.board.tokens.extend(attributes.reservation_token);
                *live = Some(Live { relayed, until, permitted: BTreeMap::new(), channels: BTreeMap::new() });
            }
            (Ask::Refresh { lifetime: Some(0), family }, live) => {
                let other = live.as_ref().is_some_and(|live| family.is_some() && live.relayed.len() > 1);
                match (live.as_mut(), other) {
                    (Some(live), true) => live.relayed.retain(|r| r.is_ipv4() != (family == Some(1))),
                    _ => *live = None,
                }
            }
            (Ask::Refresh { .. }, Some(live)) => live.until = until,
            (Ask::Permit(peers), Some(live)) => {
                let until = now.after(Duration::from_secs(300));
                live.permitted.extend(peers.iter().map(|peer| (peer.ip(), until)));
            }
            (Ask::Bind(number, peer), Some(live)) => {
                live.channels.insert(number, (peer, now.after(Duration::from_secs(600))));
                live.permitted.insert(peer.ip(), now.after(Duration::from_secs(300)));
            }
            _ => {}
        }
    }

    fn transmit(&self, c: &mut Context<'_>, bytes: Vec<u8>) {
        let packet = Packet { from: self.local, to: self.server, bytes };
        if c.scenario.doubled {
            c.out.push(packet.clone());
        }
        c.out.push(packet);
    }
}

impl Ask {
    const fn method(&self) -> Method {
        match self {
            Ask::Binding => Method::BINDING,
            Ask::Allocate(_) => Method::ALLOCATE,
            Ask::Refresh { .. } | Ask::Strange => Method::REFRESH,
            Ask::Permit(_) => Method::CREATE_PERMISSION,
            Ask::Bind(..) => Method::CHANNEL_BIND,
        }
    }

    fn write(&self, builder: &mut Builder<'_>) {
        match self {
            Ask::Binding => {}
            Ask::Strange => {
                builder.u32(0x7f00, 1);
            }
            Ask::Allocate(wishes) => wishes.write(builder),
            Ask::Refresh { lifetime, family } => {
                if let Some(seconds) = lifetime {
                    builder.u32(attribute::LIFETIME, *seconds);
                }
                if let Some(family) = family {
                    builder.u32(attribute::REQUESTED_ADDRESS_FAMILY, first_byte(*family));
                }
            }
            Ask::Permit(peers) => {
                for peer in peers {
                    builder.xor_address(attribute::XOR_PEER_ADDRESS, *peer);
                }
            }
            Ask::Bind(number, peer) => {
                builder.channel(*number).xor_address(attribute::XOR_PEER_ADDRESS, *peer);
            }
        }
    }
}

impl Wishes {
    fn write(&self, builder: &mut Builder<'_>) {
        /// UDP's protocol number.
        const UDP: u8 = 17;
        builder.u32(attribute::REQUESTED_TRANSPORT, first_byte(UDP));
        if let Some(seconds) = self.lifetime {
            builder.u32(attribute::LIFETIME, seconds);
        }
        if let Some(family) = self.family {
            builder.u32(attribute::REQUESTED_ADDRESS_FAMILY, first_byte(family));
        }
        if self.additional {
            builder.u32(attribute::ADDITIONAL_ADDRESS_FAMILY, first_byte(2));
        }
        if let Some(reserve) = self.even {
            builder.bytes(attribute::EVEN_PORT, &[u8::from(reserve) << 7]);
        }
        if let Some(token) = self.token {
            builder.bytes(attribute::RESERVATION_TOKEN, &token);
        }
        if self.dont_fragment {
            builder.bytes(attribute::DONT_FRAGMENT, &[]);
        }
    }
}

/// A small value that stands in the first of four bytes.
fn first_byte(byte: u8) -> u32 {
    u32::from(byte) << 24
}

/// A payload that is like no other, of any length that fits.
pub(crate) fn payload(c: &mut Context<'_>) -> Vec<u8> {
    c.board.payloads += 1;
    let len = match c.rng.below(10) {
        0 => c.rng.below(8),
        1 => c.rng.between(1000, 1400),
        _ => c.rng.between(8, 200),
    };
    let mut bytes = vec![0; len as usize];
    c.rng.fill(&mut bytes);
    if let Some(name) = bytes.first_chunk_mut() {
        *name = c.board.payloads.to_be_bytes();
    }
    bytes
}

/// Builds a message; what does not fit is cut by nobody: the models know how much fits.
pub(crate) fn build(class: Class, method: Method, id: TransactionId, fill: impl FnOnce(&mut Builder<'_>)) -> Vec<u8> {
    let mut bytes = vec![0; MESSAGE_BYTES];
    let mut builder = Builder::new(&mut bytes, class, method, id);
    fill(&mut builder);
    let len = builder.finish().expect("a model's message fits");
    bytes.truncate(len);
    bytes
}

fn lifetime(rng: &mut Rng) -> Option<u32> {
    rng.pick(&[None, Some(1), Some(30), Some(300), Some(777), Some(1000), Some(3600), Some(100_000)])
}
