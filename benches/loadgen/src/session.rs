//! Clients of the server: allocate, bind, refresh, with long-term credentials (RFC 8489, 9.2).

use std::net::SocketAddr;
use std::time::Duration;

use sluice_crypto::{HmacKey, long_term_key_md5};
use sluice_wire::stun::{Builder, Class, Message, Method, TransactionId, attribute};

use crate::clock::Clock;
use crate::endpoint::Endpoint;
use crate::options::Options;
use crate::pace::Random;

/// First retransmission; it doubles (RFC 8489, 6.2.1).
const RETRANSMIT_FIRST: Duration = Duration::from_millis(500);

/// A request that went unanswered this often has failed.
const ATTEMPTS_MAX: u32 = 6;

/// Between two looks at what has to be retransmitted.
const SWEEP: Duration = Duration::from_millis(20);

/// UDP in REQUESTED-TRANSPORT (RFC 8656, 18.8).
const TRANSPORT_UDP: u32 = 17 << 24;

/// IPv6 in REQUESTED-ADDRESS-FAMILY (RFC 8656, 18.9); without the attribute an allocation is IPv4's.
const FAMILY_IPV6: u32 = 2 << 24;

/// A name and its password, and the key that they make in the server's realm.
pub(crate) struct Account {
    username: String,
    password: String,
    realm: Vec<u8>,
    key: Option<HmacKey>,
}

impl Account {
    /// An account whose realm the server will tell.
    pub(crate) fn new(username: String, password: String) -> Self {
        Self { username, password, realm: Vec::new(), key: None }
    }

    fn learn(&mut self, realm: &[u8]) {
        if self.key.is_none() || self.realm != realm {
            realm.clone_into(&mut self.realm);
            let key = long_term_key_md5(&self.username, realm, &self.password);
            self.key = Some(HmacKey::sha1(key.expose()));
        }
    }
}

/// What a session asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A relayed address (RFC 8656, 7).
    Allocate,
    /// A channel to a peer (RFC 8656, 12).
    Bind { channel: u16, peer: SocketAddr },
    /// A permission for a peer (RFC 8656, 9).
    Permit { peer: SocketAddr },
    /// The end: a lifetime of 0 (RFC 8656, 8).
    Delete,
}

impl Step {
    fn method(self) -> Method {
        match self {
            Step::Allocate => Method::ALLOCATE,
            Step::Bind { .. } => Method::CHANNEL_BIND,
            Step::Permit { .. } => Method::CREATE_PERMISSION,
            Step::Delete => Method::REFRESH,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Step::Allocate => "Allocate",
            Step::Bind { .. } => "ChannelBind",
            Step::Permit { .. } => "CreatePermission",
            Step::Delete => "Refresh",
        }
    }
}

/// One client.
pub(crate) struct Session {
    /// Its number among the clients' addresses.
    pub(crate) index: u32,
    /// Where its peers find it, once it has allocated.
    pub(crate) relayed: Option<SocketAddr>,
    nonce: Vec<u8>,
    open: Option<Open>,
}

/// A request on its way.
struct Open {
    step: Step,
    transaction: TransactionId,
    started: u64,
    retransmit: u64,
    attempts: u32,
    /// The server has been asked with this nonce; a second 401 is a refusal.
    authenticated: bool,
}

impl Session {
    /// A client that has not spoken yet.
    pub(crate) fn new(index: u32) -> Self {
        Self { index, relayed: None, nonce: Vec::new(), open: None }
    }
}

/// A step that the server granted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Granted {
    /// Which session.
    pub(crate) slot: usize,
    /// Which step.
    pub(crate) step: Step,
    /// From the first request to the answer, the challenge included.
    pub(crate) nanos: u64,
}

/// All clients' conversations with the server over one endpoint.
pub(crate) struct Signalling<'a> {
    endpoint: &'a mut Endpoint,
    server: SocketAddr,
    /// Whether relayed addresses are of IPv6.
    relays_v6: bool,
    account: Account,
    clock: Clock,
    random: Random,
    next_sweep: u64,
    buffer: [u8; 1024],
}

impl<'a> Signalling<'a> {
    /// Conversations with the server of the options, by clients of its account.
    pub(crate) fn new(endpoint: &'a mut Endpoint, options: &Options, clock: Clock) -> Self {
        Self {
            endpoint,
            server: options.server,
            relays_v6: options.peers_from().is_ipv6(),
            account: options.account(),
            clock,
            random: Random(options.seed),
            next_sweep: 0,
            buffer: [0; 1024],
        }
    }

    /// The clients' addresses.
    pub(crate) fn endpoint(&mut self) -> &mut Endpoint {
        self.endpoint
    }

    /// Takes every session through the step that is its own, at most `concurrency` at a time.
    ///
    /// # Errors
    /// A request was refused or went unanswered.
    pub(crate) fn all(
        &mut self,
        sessions: &mut [Session],
        concurrency: usize,
        step: impl Fn(usize) -> Step,
    ) -> Result<(), String> {
        let mut started = sessions.len().min(concurrency);
        for slot in 0..started {
            self.start(sessions, slot, step(slot))?;
        }
        let mut granted = 0;
        while granted < sessions.len() {
            for _ in self.poll(sessions)? {
                granted += 1;
                if started < sessions.len() {
                    self.start(sessions, started, step(started))?;
                    started += 1;
                }
            }
        }
        Ok(())
    }

    /// Sends the first request of a step.
    pub(crate) fn start(&mut self, sessions: &mut [Session], slot: usize, step: Step) -> Result<(), String> {
        let now = self.clock.nanos();
        let transaction = self.transaction(slot);
        let authenticated = !sessions[slot].nonce.is_empty();
        sessions[slot].open = Some(Open {
            step,
            transaction,
            started: now,
            retransmit: now + nanos(RETRANSMIT_FIRST),
            attempts: 1,
            authenticated,
        });
        self.send(&sessions[slot])
    }

    /// Reads answers, follows challenges, repeats what went unanswered; gives the steps that were granted.
    pub(crate) fn poll(&mut self, sessions: &mut [Session]) -> Result<Vec<Granted>, String> {
        let now = self.clock.nanos();
        let mut granted = Vec::new();
        let mut challenged = Vec::new();
        let mut refused = None;
        let (account, relays_v6) = (&mut self.account, self.relays_v6);
        self.endpoint
            .receive(|_, bytes| match read(account, relays_v6, sessions, bytes, now) {
                Ok(Answer::Granted(step)) => granted.push(step),
                Ok(Answer::Challenged(slot)) => challenged.push(slot),
                Ok(Answer::Foreign) => {}
                Err(error) => refused = Some(error),
            })
            .map_err(|error| format!("receiving: {error}"))?;
        if let Some(error) = refused {
            return Err(error);
        }
        for slot in challenged {
            let transaction = self.transaction(slot);
            if let Some(open) = &mut sessions[slot].open {
                open.transaction = transaction;
            }
            self.send(&sessions[slot])?;
        }
        self.sweep(sessions, now)?;
        Ok(granted)
    }

    fn sweep(&mut self, sessions: &mut [Session], now: u64) -> Result<(), String> {
        if now < self.next_sweep {
            return Ok(());
        }
        self.next_sweep = now + nanos(SWEEP);
        for session in sessions {
            let Some(open) = session.open.as_mut().filter(|open| open.retransmit <= now) else {
                continue;
            };
            if open.attempts == ATTEMPTS_MAX {
                let name = open.step.name();
                return Err(format!("no answer from {} to {name}: is the server running there?", self.server));
            }
            open.retransmit = now + (nanos(RETRANSMIT_FIRST) << open.attempts);
            open.attempts += 1;
            self.send(session)?;
        }
        Ok(())
    }

    /// The slot stands in the transaction id, so that an answer needs no table.
    fn transaction(&mut self, slot: usize) -> TransactionId {
        let mut id = [0; 12];
        id[..4].copy_from_slice(&(slot as u32).to_be_bytes());
        id[4..].copy_from_slice(&self.random.bits().to_be_bytes());
        TransactionId(id)
    }

    fn send(&mut self, session: &Session) -> Result<(), String> {
        let Some(open) = &session.open else {
            return Ok(());
        };
        let length = write(&mut self.buffer, &self.account, self.relays_v6, session, open)?;
        // What the kernel has no room for is repeated like any loss.
        self.endpoint
            .send(session.index, self.server, &self.buffer[..length], None)
            .map(drop)
            .map_err(|error| format!("sending to {}: {error}", self.server))
    }
}

enum Answer {
    Granted(Granted),
    Challenged(usize),
    /// Not to an open request: a duplicate, or relayed data.
    Foreign,
}

fn write(
    buffer: &mut [u8],
    account: &Account,
    relays_v6: bool,
    session: &Session,
    open: &Open,
) -> Result<usize, String> {
    let mut builder = Builder::new(buffer, Class::Request, open.step.method(), open.transaction);
    match open.step {
        Step::Allocate if relays_v6 => builder
            .u32(attribute::REQUESTED_TRANSPORT, TRANSPORT_UDP)
            .u32(attribute::REQUESTED_ADDRESS_FAMILY, FAMILY_IPV6),
        Step::Allocate => builder.u32(attribute::REQUESTED_TRANSPORT, TRANSPORT_UDP),
        Step::Bind { channel, peer } => builder.channel(channel).xor_address(attribute::XOR_PEER_ADDRESS, peer),
        Step::Permit { peer } => builder.xor_address(attribute::XOR_PEER_ADDRESS, peer),
        Step::Delete => builder.u32(attribute::LIFETIME, 0),
    };
    if let Some(key) = account.key.as_ref().filter(|_| open.authenticated) {
        builder
            .bytes(attribute::USERNAME, account.username.as_bytes())
            .bytes(attribute::REALM, &account.realm)
            .bytes(attribute::NONCE, &session.nonce)
            .integrity_sha1(|parts| key.sign(parts));
    }
    builder.finish().map_err(|error| error.to_string())
}

fn read(
    account: &mut Account,
    relays_v6: bool,
    sessions: &mut [Session],
    bytes: &[u8],
    now: u64,
) -> Result<Answer, String> {
    let Ok(message) = Message::parse(bytes) else {
        return Ok(Answer::Foreign);
    };
    let [s0, s1, s2, s3, ..] = message.transaction.0;
    let slot = u32::from_be_bytes([s0, s1, s2, s3]) as usize;
    let Some(session) = sessions.get_mut(slot) else {
        return Ok(Answer::Foreign);
    };
    let Some(open) = session.open.as_mut().filter(|open| open.transaction == message.transaction) else {
        return Ok(Answer::Foreign);
    };
    match message.class {
        Class::Success => {
            let granted = Granted { slot, step: open.step, nanos: now - open.started };
            if open.step == Step::Allocate {
                session.relayed = Some(relayed(&message, relays_v6)?);
            }
            session.open = None;
            Ok(Answer::Granted(granted))
        }
        Class::Error => {
            challenge(account, open, &mut session.nonce, &message)?;
            Ok(Answer::Challenged(slot))
        }
        Class::Request | Class::Indication => Ok(Answer::Foreign),
    }
}

/// Takes realm and nonce from a 401 or a 438 (RFC 8489, 9.2.5).
fn challenge(
    account: &mut Account,
    open: &mut Open,
    session_nonce: &mut Vec<u8>,
    message: &Message<'_>,
) -> Result<(), String> {
    let (code, reason) = message.attributes.error_code.unwrap_or((0, "no error code"));
    let fresh = (code == 401 && !open.authenticated) || code == 438;
    let attributes = &message.attributes;
    let (true, Some(realm), Some(nonce)) = (fresh, attributes.realm, attributes.nonce) else {
        return Err(format!("the server refuses {}: {code} {reason}", open.step.name()));
    };
    account.learn(realm);
    nonce.clone_into(session_nonce);
    open.authenticated = true;
    Ok(())
}

fn relayed(message: &Message<'_>, relays_v6: bool) -> Result<SocketAddr, String> {
    match message.attributes.xor_relayed {
        Some(address) if address.is_ipv6() == relays_v6 => Ok(address),
        Some(_) => Err("the server allocated an address of the family that was not asked for".to_owned()),
        None => Err("the server's answer to Allocate has no XOR-RELAYED-ADDRESS".to_owned()),
    }
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}
