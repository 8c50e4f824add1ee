//! Who may receive what, known from what the relay answered and when, and from nothing inside it.
//!
//! The oracle sees what every driver sees: the datagrams that a worker was given, the packets that it
//! sends and the slot in which each came, the sockets that it opens and closes, its questions and their
//! verdicts. From the success responses it keeps the allocations, permissions and channels that there
//! may be, to the nanosecond, and judges every packet that leaves by them.
//!
//! Where an answer was lost inside the relay for want of a slot, or a verdict came at the very edge of its
//! deadline, both outcomes are possible: the allocation is no longer *sure*, the longer life is assumed,
//! and nothing is demanded of it any more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use sluice_base::io::{OpenSpec, SendOptions, SocketRole};
use sluice_base::limits::{
    BINDING_ANSWER_BYTES_MAX, CHANNEL_LIFETIME, PERMISSION_LIFETIME, QUESTIONS_PER_CLIENT_MAX,
    QUESTIONS_PER_WORKER_MAX, REMEMBERED_ANSWER_LIFETIME, RESERVATION_LIFETIME, UNAUTHENTICATED_ANSWER_BYTES_MAX,
    VERDICT_DEADLINE,
};
use sluice_base::policy::{Denial, Hook, Question, Verdict};
use sluice_base::{AllocationId, Mono, Now, Pii, QuestionId, SocketId, TenantId};
use sluice_turn::{Bans, RelayAddress};
use sluice_wire::channel_data;
use sluice_wire::stun::{Class, Message, Method};

use crate::bucket::Bucket;
use crate::credentials::Verifier;
use crate::kernel::Datagram;
use crate::report::Coverage;
use crate::scenario::Scenario;

/// A timer may outlive what it is for so long.
const LEFT_BEHIND: Duration = Duration::from_secs(30);

/// The five-tuple without the transport: our address and the client's.
pub(crate) type Five = (SocketAddr, SocketAddr);
/// A request: whose, and which.
type Key = (Five, [u8; 12]);
/// A tenant's number and a user's name.
pub(crate) type User = (usize, Vec<u8>);
/// A socket of a worker.
type Handle = (usize, u32, u32);

/// A packet that leaves a worker.
#[derive(Clone)]
pub(crate) struct Outgoing {
    pub(crate) worker: usize,
    pub(crate) socket: SocketId,
    pub(crate) role: SocketRole,
    pub(crate) local: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
    /// The datagram that came in by its slot; none for what the worker wrote itself.
    pub(crate) origin: Option<Rc<Datagram>>,
    pub(crate) options: SendOptions,
}

/// What is known so far.
pub(crate) struct Oracle {
    limits: Scenario,
    verifier: Verifier,
    requests: BTreeMap<Key, Request>,
    /// Requests whose success may be on its way: granted or needing no grant, and not answered.
    awaited: BTreeMap<Key, Mono>,
    questions: BTreeMap<(usize, QuestionId), Asked>,
    open_of_client: BTreeMap<Five, BTreeSet<QuestionId>>,
    allocations: Vec<Allocation>,
    /// The newest allocation of each five-tuple.
    by_five: BTreeMap<Five, usize>,
    sockets: BTreeMap<Handle, Socket>,
    /// Tokens, and what they reserve.
    reservations: BTreeMap<[u8; 8], Reservation>,
    /// What each worker held lately, and the questions there were by then.
    recent: BTreeMap<usize, VecDeque<(Mono, u64, u64)>>,
    violation: Option<String>,
    /// The relay is being stopped.
    stopping: bool,
    pub(crate) coverage: Coverage,
}

struct Request {
    /// When it came first.
    at: Mono,
    /// An answer to it may be remembered since then: one to an earlier copy that was lost.
    remembered_from: Mono,
    unix_seconds: u64,
    bytes: Vec<u8>,
    method: Method,
    peers: Vec<SocketAddr>,
    channel: Option<u16>,
    lifetime: Option<u32>,
    family: Option<u8>,
    additional: bool,
    even_port: Option<bool>,
    token: Option<[u8; 8]>,
    question: Option<(usize, QuestionId)>,
    /// The answer with integrity that it has had.
    answered: Option<(Mono, Vec<u8>)>,
    /// An answer of its may have been lost inside the relay.
    lost: bool,
}

struct Asked {
    at: Mono,
    hook: Hook,
    key: Option<Key>,
    /// Of a review: which allocation, and which peer's permission.
    about: Option<(usize, Option<IpAddr>)>,
    verdict: Option<(Mono, Verdict)>,
}

/// A port that waits for its token (RFC 8656, 7.2).
struct Reservation {
    address: SocketAddr,
    at: Mono,
    /// It was told of when it was made.
    sure: bool,
}

/// A socket of a relay.
struct Socket {
    local: SocketAddr,
    role: SocketRole,
    allocation: Option<usize>,
}

/// An allocation that a client was told of.
pub(crate) struct Allocation {
    pub(crate) worker: usize,
    pub(crate) five: Five,
    /// What the worker calls it, once a question has told.
    id: Option<AllocationId>,
    pub(crate) user: User,
    /// The relayed addresses as announced, and their sockets.
    pub(crate) relays: Vec<(SocketAddr, Handle)>,
    pub(crate) until: Mono,
    pub(crate) granted_until: Mono,
    ended: bool,
    /// It may have ended.
    perhaps_ended: bool,
    sure: bool,
    /// No client was told of it: its sockets are those that nobody was told of when an answer was lost.
    guessed: bool,
    pub(crate) permissions: BTreeMap<IpAddr, Permission>,
    pub(crate) channels: BTreeMap<u16, Channel>,
    bits: Option<Bucket>,
}

pub(crate) struct Permission {
    pub(crate) until: Mono,
    pub(crate) granted_until: Mono,
}

pub(crate) struct Channel {
    pub(crate) peer: SocketAddr,
    /// Whose it may be as well, where that is not sure.
    others: Vec<SocketAddr>,
    pub(crate) until: Mono,
}

/// What a client sends on: where to, and what.
struct Upward<'a> {
    peer: SocketAddr,
    data: &'a [u8],
    dont_fragment: bool,
    channel: bool,
}

impl Oracle {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Oracle {
            limits: scenario.clone(),
            verifier: Verifier::new(),
            requests: BTreeMap::new(),
            awaited: BTreeMap::new(),
            questions: BTreeMap::new(),
            open_of_client: BTreeMap::new(),
            allocations: Vec::new(),
            by_five: BTreeMap::new(),
            sockets: BTreeMap::new(),
            reservations: BTreeMap::new(),
            recent: BTreeMap::new(),
            violation: None,
            stopping: false,
            coverage: Coverage::default(),
        }
    }

    /// Something that must not be has happened. The first one counts.
    pub(crate) fn violation(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// The first violation, if there is one.
    pub(crate) fn found(&self) -> Option<&String> {
        self.violation.as_ref()
    }

    /// The relay is told to stop: allocations may end now.
    pub(crate) fn stopping(&mut self) {
        self.stopping = true;
    }

    /// Allocations that may be alive, for those who aim at edges.
    pub(crate) fn alive(&self, now: Mono) -> impl Iterator<Item = &Allocation> {
        self.by_five.values().map(|at| &self.allocations[*at]).filter(move |a| a.may_live(now))
    }

    /// Listener sockets, and relay sockets that may still be open.
    pub(crate) fn relay_sockets_open(&self) -> usize {
        self.sockets.values().filter(|s| s.role == SocketRole::Relay).count()
    }

    /// A worker holds so many allocations, permissions and channels, and so many timers: each of
    /// what lives, or lived a moment ago, may have a few.
    pub(crate) fn holds(&mut self, now: Now, worker: usize, things: u64, timers: u64) {
        let recent = self.recent.entry(worker).or_default();
        recent.push_back((now.mono, things, self.coverage.questions));
        while recent.front().is_some_and(|(at, ..)| now.mono.since(*at) > LEFT_BEHIND) {
            recent.pop_front();
        }
        let most = recent.iter().map(|(_, things, _)| *things).max().unwrap_or_default();
        let asked = self.coverage.questions - recent.front().map_or(0, |(.., asked)| *asked);
        if timers > 3 * most + 8 * asked + 8 {
            self.violation(format!("{timers} timers wait, more than what lives and happens explains"));
        }
    }

    // What goes in.

    /// A worker is given a datagram.
    pub(crate) fn delivered(&mut self, now: Now, datagram: &Datagram) {
        if datagram.role != SocketRole::Listener || datagram.bytes.first().is_none_or(|first| *first > 3) {
            return;
        }
        let Ok(message) = Message::parse(&datagram.bytes) else {
            return;
        };
        if message.class != Class::Request {
            return;
        }
        let key = ((datagram.local, datagram.from), message.transaction.0);
        let (mut lost, mut remembered_from) = (false, now.mono);
        if let Some(known) = self.requests.get_mut(&key) {
            self.coverage.retransmissions += 1;
            let question = known.question.and_then(|id| self.questions.get(&id));
            // An answer is remembered from when it was given, which is not seen where it was lost: so from the
            // verdict at the earliest, or from the request where nothing was asked.
            let since = question.map_or(known.at, |asked| asked.verdict.map_or(asked.at, |(at, _)| at));
            // A verdict that came too late had no part in it.
            let since = known.answered.as_ref().map_or(since, |(at, _)| since.min(*at));
            let unasked = question.is_none() && known.answered.is_none();
            let seen = known.answered.as_ref().is_some_and(|(at, _)| now.mono.since(*at) >= REMEMBERED_ANSWER_LIFETIME);
            // From here on nobody knows by which copy's answer the relay goes.
            known.lost |= (unasked || !seen) && now.mono.since(known.remembered_from) >= REMEMBERED_ANSWER_LIFETIME;
            lost = known.lost || !(unasked || seen);
            let forgotten = unasked || now.mono.since(since) >= REMEMBERED_ANSWER_LIFETIME;
            if !forgotten {
                return;
            }
            if unasked {
                remembered_from = known.remembered_from;
            }
        }
        let attributes = &message.attributes;
        let request = Request {
            at: now.mono,
            remembered_from,
            unix_seconds: now.unix_seconds,
            bytes: datagram.bytes.clone(),
            method: message.method,
            peers: message.peers().collect(),
            channel: attributes.channel_number,
            lifetime: attributes.lifetime,
            family: attributes.requested_family,
            additional: attributes.additional_family.is_some(),
            even_port: attributes.even_port,
            token: attributes.reservation_token,
            question: None,
            answered: None,
            lost,
        };
        if request.method == Method::REFRESH && request.lifetime == Some(0) {
            self.awaited.insert(key, now.mono);
        }
        self.requests.insert(key, request);
    }

    /// A worker opens a socket.
    pub(crate) fn opened(&mut self, _now: Now, worker: usize, socket: SocketId, spec: &OpenSpec) {
        let new = Socket { local: spec.local, role: spec.role, allocation: None };
        self.sockets.insert(handle(worker, socket), new);
    }

    /// A worker closes one.
    pub(crate) fn closed(&mut self, worker: usize, socket: SocketId) {
        self.sockets.remove(&handle(worker, socket));
    }

    /// A worker asks. `current` is the datagram that it handled last.
    pub(crate) fn asked(&mut self, now: Now, worker: usize, question: Question, current: Option<&Datagram>) {
        let id = question.id;
        self.coverage.questions += 1;
        let mut asked = Asked { at: now.mono, hook: question.hook, key: None, about: None, verdict: None };
        if question.hook == Hook::Review {
            let client = *question.client.address.expose();
            let peer = question.peers.first().map(|peer| *peer.address.ip().expose());
            let found = self.by_five.iter().find(|((_, from), _)| *from == client).map(|(_, at)| *at);
            asked.about = found.map(|at| (at, peer));
            self.coverage.reviews += 1;
        } else if let Err(what) = self.asked_for_request(now, worker, &question, current, &mut asked) {
            self.violation(what);
        }
        let open = self.questions.iter().filter(|((w, _), q)| *w == worker && q.verdict.is_none());
        let recent = open.filter(|(_, q)| now.mono.since(q.at) < VERDICT_DEADLINE).count();
        if recent >= QUESTIONS_PER_WORKER_MAX {
            self.violation("a worker has more open questions than it may".into());
        }
        self.questions.insert((worker, id), asked);
    }

    fn asked_for_request(
        &mut self,
        now: Now,
        worker: usize,
        question: &Question,
        current: Option<&Datagram>,
        asked: &mut Asked,
    ) -> Result<(), String> {
        let datagram = current.ok_or("a question without a request")?;
        let message = Message::parse(&datagram.bytes).map_err(|_| "a question about something that is no request")?;
        let five = (datagram.local, datagram.from);
        let key = (five, message.transaction.0);
        let request = self.requests.get_mut(&key).ok_or("a question without a request")?;
        let method = match question.hook {
            Hook::Allocate => Method::ALLOCATE,
            Hook::Refresh => Method::REFRESH,
            Hook::CreatePermission => Method::CREATE_PERMISSION,
            _ => Method::CHANNEL_BIND,
        };
        if *question.client.address.expose() != datagram.from || request.method != method {
            return Err("a question about another request than the one that came".into());
        }
        let peers: Vec<_> = question.peers.iter().map(|peer| *peer.address.expose()).collect();
        if matches!(question.hook, Hook::CreatePermission | Hook::ChannelBind) && peers != request.peers {
            return Err("a question about other peers than the request names".into());
        }
        if request.question.is_some() {
            return Err(format!("a retransmission of {:?} made a second question", question.hook));
        }
        request.question = Some((worker, question.id));
        if let Some(at) = self.by_five.get(&five) {
            self.allocations[*at].id = question.allocation;
        }
        asked.key = Some(key);
        let open = self.open_of_client.entry(five).or_default();
        open.retain(|id| {
            let asked = self.questions.get(&(worker, *id));
            asked.is_some_and(|q| q.verdict.is_none() && now.mono.since(q.at) < VERDICT_DEADLINE)
        });
        open.insert(question.id);
        if open.len() > usize::from(QUESTIONS_PER_CLIENT_MAX) {
            return Err("a client has more open questions than it may".into());
        }
        Ok(())
    }

    /// A worker is given a verdict.
    pub(crate) fn verdict(&mut self, now: Now, worker: usize, id: QuestionId, verdict: Verdict) {
        let Some(asked) = self.questions.get_mut(&(worker, id)) else {
            return self.violation("a verdict without a question".into());
        };
        asked.verdict = Some((now.mono, verdict));
        let late = now.mono.since(asked.at) >= VERDICT_DEADLINE;
        if let (Some(key), Verdict::Allow(_)) = (asked.key, verdict) {
            self.awaited.insert(key, now.mono);
        }
        if let Some((at, peer)) = asked.about {
            self.reviewed(now, at, peer, verdict, late);
        }
    }

    fn reviewed(&mut self, now: Now, at: usize, peer: Option<IpAddr>, verdict: Verdict, late: bool) {
        let allocation = &mut self.allocations[at];
        // A yes that comes after the end of what it is about finds it, or finds it swept away.
        let over = match peer {
            None => !allocation.may_live(now.mono),
            Some(ip) => allocation.permissions.get(&ip).is_some_and(|p| now.mono >= p.live_until()),
        };
        allocation.sure &= !late && !over;
        let (grant, until) = match (verdict, late) {
            (Verdict::Allow(grant), _) => (grant, grant.valid_for.map_or(Mono::NEVER, |time| now.mono.after(time))),
            // Nobody was asked: what was granted before stands to its end.
            (Verdict::Deny(Denial::Unanswered), _) | (Verdict::Deny(_), true) => return,
            (Verdict::Deny(_), false) => {
                match peer {
                    None => allocation.ended = true,
                    Some(ip) => drop(allocation.permissions.remove(&ip)),
                }
                return;
            }
        };
        match peer {
            None => {
                allocation.granted_until = if late { allocation.granted_until.max(until) } else { until };
                if let (Some(max), false) = (grant.lifetime_max, late) {
                    allocation.until = allocation.until.min(now.mono.after(max));
                }
                if !late {
                    allocation.limit(grant.bits_per_second);
                }
            }
            Some(ip) => {
                if let Some(permission) = allocation.permissions.get_mut(&ip) {
                    permission.granted_until = if late { permission.granted_until.max(until) } else { until };
                }
            }
        }
    }

    /// The control plane is about to end an allocation, where its id is known from a question.
    pub(crate) fn order_to_end(&mut self, five: Five) -> Option<(usize, AllocationId)> {
        let allocation = &mut self.allocations[*self.by_five.get(&five)?];
        let id = allocation.id?;
        allocation.sure = false;
        allocation.perhaps_ended = true;
        self.coverage.orders += 1;
        Some((allocation.worker, id))
    }

    /// Somebody is about to be banned, or has been: what they have may be gone.
    pub(crate) fn banned(&mut self, bans: &Bans) {
        for at in self.by_five.values() {
            let allocation = &mut self.allocations[*at];
            let (tenant, user) = (TenantId(allocation.user.0 as u16), Pii::new(allocation.user.1.as_slice().into()));
            if bans.names_address(Pii::new(allocation.five.1.ip()), 0) || bans.names_user(tenant, &user, 0) {
                allocation.sure = false;
                allocation.perhaps_ended = true;
            }
        }
    }

    /// The clock has leapt ahead.
    pub(crate) fn leapt(&mut self, by: Duration) {
        self.awaited.values_mut().for_each(|at| *at = at.after(by));
        self.recent.values_mut().flatten().for_each(|(at, ..)| *at = at.after(by));
    }

    /// A worker found no slot for an answer: whatever it may have been about to say has happened.
    pub(crate) fn answer_lost(&mut self, now: Now, worker: usize) {
        self.coverage.answers_lost += 1;
        // The newest first: it is the likeliest.
        let mut awaited: Vec<_> = self.awaited.iter().map(|(key, at)| (*at, *key)).collect();
        awaited.sort_unstable_by(|a, b| b.cmp(a));
        for (_, key) in awaited {
            let Some(mut request) = self.requests.remove(&key) else {
                continue;
            };
            if request.question.is_none_or(|(w, _)| w == worker) {
                request.lost = true;
                self.perhaps(now, worker, key.0, &request);
            }
            self.requests.insert(key, request);
        }
    }

    fn perhaps(&mut self, now: Now, worker: usize, five: Five, request: &Request) {
        if request.method == Method::ALLOCATE {
            return self.perhaps_allocated(now, worker, five, request);
        }
        let granted_until = self.granted_until(request).unwrap_or(Mono::NEVER);
        let longest = self.limits.lifetime_max;
        let Some(allocation) = self.by_five.get(&five).map(|at| &mut self.allocations[*at]) else {
            return;
        };
        allocation.sure = false;
        match request.method {
            Method::REFRESH if request.lifetime == Some(0) => allocation.perhaps_ended = true,
            Method::REFRESH => {
                allocation.until = allocation.until.max(now.mono.after(longest));
                allocation.granted_until = allocation.granted_until.max(granted_until);
            }
            _ => {
                request.peers.iter().for_each(|peer| allocation.permit(now.mono, peer.ip(), granted_until));
                if let Some(number) = request.channel.filter(|_| request.method == Method::CHANNEL_BIND) {
                    allocation.bind(now.mono, number, request.peers[0]);
                }
            }
        }
    }

    /// The sockets that no client was told of may be this one's: until it hears of them, or they close.
    fn perhaps_allocated(&mut self, now: Now, worker: usize, five: Five, request: &Request) {
        let user = Message::parse(&request.bytes).ok().and_then(|m| self.verifier.verify(0, &m, true).ok());
        let limits = &self.limits;
        let mut relays = Vec::new();
        for (handle, socket) in self.sockets.iter_mut().filter(|((w, ..), _)| *w == worker) {
            if socket.role == SocketRole::Relay && socket.allocation.is_none() {
                socket.allocation = Some(self.allocations.len());
                relays.push((announced(&limits.relays, socket.local), *handle));
            }
        }
        let Some(user) = user.filter(|_| !relays.is_empty()) else {
            return;
        };
        let until = now.mono.after(self.limits.lifetime_max.max(self.limits.lifetime));
        self.by_five.insert(five, self.allocations.len());
        self.allocations.push(Allocation { guessed: true, ..Allocation::new(worker, five, user, relays, until) });
    }

    // What comes out.

    /// A worker gives a received slot back unsent.
    pub(crate) fn unsent(&mut self, now: Now, datagram: &Datagram) {
        if self.limits.rate_limited() || self.stopping {
            return;
        }
        let must = match datagram.role {
            SocketRole::Relay => self.must_reach_client(now, datagram),
            SocketRole::Listener => self.must_reach_peer(now, datagram),
        };
        if must {
            self.violation(format!(
                "a packet of {} bytes that had to be relayed was dropped ({:?} socket)",
                datagram.bytes.len(),
                datagram.role
            ));
        }
    }

    /// A worker sends.
    pub(crate) fn sent(&mut self, now: Now, outgoing: &Outgoing) {
        let result = match (&outgoing.origin, outgoing.role) {
            (None, SocketRole::Listener) => self.answer(now, outgoing),
            (None, SocketRole::Relay) => Err("the relay writes to a peer by itself".into()),
            (Some(origin), SocketRole::Relay) => self.peer_gets(now, outgoing, origin),
            (Some(origin), SocketRole::Listener) => self.client_gets(now, outgoing, origin),
        };
        if let Err(what) = result {
            self.violation(what);
        }
    }

    /// A worker has ticked.
    pub(crate) fn ticked(&mut self, now: Now, worker: usize) {
        if self.violation.is_some() {
            return;
        }
        self.awaited.retain(|_, at| now.mono.since(*at) < Duration::from_secs(2));
        let mut wrong = None;
        for socket in self.sockets.iter().filter(|((w, ..), _)| *w == worker).map(|(_, socket)| socket) {
            let over = match socket.allocation.map(|at| &self.allocations[at]) {
                Some(a) => a.ended || now.mono >= a.live_until().after(Scenario::grain()),
                None => true,
            };
            if socket.role == SocketRole::Relay && over {
                wrong.get_or_insert(format!("the relay socket {} is open and of no live allocation", socket.local));
            }
        }
        for allocation in self.by_five.values().map(|at| &self.allocations[*at]).filter(|a| a.worker == worker) {
            let open = allocation.relays.iter().filter(|(_, socket)| self.sockets.contains_key(socket)).count();
            let lives = allocation.sure && allocation.may_live(now.mono) && !self.stopping;
            if lives && open < allocation.relays.len() {
                wrong.get_or_insert("the relay socket of a live allocation is closed".to_owned());
            }
        }
        let (sockets, allocations) = (&self.sockets, &self.allocations);
        self.by_five.retain(|_, at| {
            let allocation = &allocations[*at];
            let over = allocation.ended || allocation.perhaps_ended || !allocation.may_live(now.mono);
            !over || allocation.relays.iter().any(|(_, socket)| sockets.contains_key(socket))
        });
        if let Some(what) = wrong {
            self.violation(what);
        }
    }

    // Answers.

    fn answer(&mut self, now: Now, outgoing: &Outgoing) -> Result<(), String> {
        let message = Message::parse(&outgoing.bytes).map_err(|_| "an answer that is no STUN message")?;
        let five = (outgoing.local, outgoing.to);
        let key = (five, message.transaction.0);
        let request = self.requests.get(&key).ok_or("an answer that nobody asked for")?;
        let attributes = &message.attributes;
        let signed = attributes.message_integrity.is_some() || attributes.message_integrity_sha256.is_some();
        let most = match (signed, message.method) {
            (true, _) => usize::MAX,
            (false, Method::BINDING) => BINDING_ANSWER_BYTES_MAX,
            (false, _) => UNAUTHENTICATED_ANSWER_BYTES_MAX,
        };
        if outgoing.bytes.len() > most {
            return Err(format!("{} bytes are answered to somebody unknown", outgoing.bytes.len()));
        }
        if !signed && message.class == Class::Success && message.method != Method::BINDING {
            return Err("a success without integrity".into());
        }
        if message.class == Class::Success
            && matches!(message.method, Method::BINDING | Method::ALLOCATE)
            && attributes.xor_mapped != Some(outgoing.to)
        {
            return Err("a client is told another address than its own".into());
        }
        if !signed {
            return Ok(());
        }
        if message.method != request.method {
            return Err("an answer of another method than its request".into());
        }
        if let Some((at, before)) = &request.answered
            && now.mono.since(*at) < REMEMBERED_ANSWER_LIFETIME
        {
            let alike = *before == outgoing.bytes;
            self.coverage.answers_repeated += 1;
            match (alike, request.lost) {
                (true, _) => return Ok(()),
                (false, false) => return Err("a retransmission is answered otherwise".into()),
                // It is remembered since an answer that was lost, so that this one may be new, and has effects.
                (false, true) => {}
            }
        }
        let Some(mut request) = self.requests.remove(&key) else {
            return Ok(());
        };
        request.answered = Some((now.mono, outgoing.bytes.clone()));
        self.awaited.remove(&key);
        let result = match message.class {
            Class::Success => self.success(now, outgoing, &message, &request),
            Class::Error => {
                let code = attributes.error_code.map_or(0, |(code, _)| code);
                *self.coverage.errors.entry(code).or_default() += 1;
                // The token is used up, also where its port could not be opened.
                if let Some(reservation) = request.token.and_then(|token| self.reservations.get_mut(&token)) {
                    reservation.sure = false;
                }
                Ok(())
            }
            _ => Err("an answer that is neither success nor error".into()),
        };
        self.requests.insert(key, request);
        result
    }

    fn success(&mut self, now: Now, out: &Outgoing, message: &Message<'_>, request: &Request) -> Result<(), String> {
        if request.method == Method::BINDING {
            return Ok(());
        }
        let five = (out.local, out.to);
        let asked = Message::parse(&request.bytes).map_err(|_| "a success for no request")?;
        let live = self.live(five, now.mono);
        let user = self.verifier.verify(request.unix_seconds, &asked, live.is_some())?;
        let ends = request.method == Method::REFRESH && request.lifetime == Some(0);
        let granted_until = if ends { Mono::NEVER } else { self.granted_until(request)? };
        if request.method == Method::ALLOCATE {
            return self.allocated(now, out, message, request, user, granted_until);
        }
        let at = match live {
            Some(at) => at,
            // Its effects were assumed when its first answer was lost.
            None if request.lost => return Ok(()),
            None => return Err("a success about an allocation that does not live".into()),
        };
        if self.allocations[at].user != user {
            return Err("a success for another user than the allocation's".into());
        }
        if request.lost {
            // Its effects may have been those of the first answer.
            self.perhaps(now, out.worker, five, request);
            return Ok(());
        }
        let grant = self.grant(request);
        let limits = (self.limits.permissions as usize, self.limits.channels as usize);
        let allocation = &mut self.allocations[at];
        match request.method {
            Method::REFRESH if ends => {
                self.coverage.ended += 1;
                allocation.end(request.family, &mut self.sockets);
            }
            Method::REFRESH => {
                self.coverage.refreshes += 1;
                let lifetime = message.attributes.lifetime.ok_or("a Refresh's success without LIFETIME")?;
                check_lifetime(&self.limits, lifetime, grant.and_then(|g| g.lifetime_max))?;
                allocation.until = now.mono.after(Duration::from_secs(u64::from(lifetime)));
                allocation.granted_until = granted_until;
                allocation.limit(grant.and_then(|g| g.bits_per_second));
            }
            Method::CREATE_PERMISSION => {
                self.coverage.permissions += 1;
                request.peers.iter().for_each(|peer| allocation.permit(now.mono, peer.ip(), granted_until));
            }
            _ => {
                self.coverage.channels += 1;
                let (Some(number), [peer]) = (request.channel, &request.peers[..]) else {
                    return Err("a channel is bound without number and peer".into());
                };
                if allocation.clashes(now.mono, number, *peer) {
                    return Err("a channel is bound to two peers, or a peer to two channels".into());
                }
                allocation.permit(now.mono, peer.ip(), granted_until);
                allocation.bind(now.mono, number, *peer);
            }
        }
        let live = allocation.permissions.values().filter(|p| now.mono < p.live_until()).count();
        let bound = allocation.channels.values().filter(|c| now.mono < c.until).count();
        if allocation.sure && (live > limits.0 || bound > limits.1) {
            return Err("an allocation has more permissions or channels than it may".into());
        }
        self.check_peers(request)?;
        self.check_quotas(now.mono)
    }

    fn allocated(
        &mut self,
        now: Now,
        out: &Outgoing,
        message: &Message<'_>,
        request: &Request,
        user: User,
        granted_until: Mono,
    ) -> Result<(), String> {
        let five = (out.local, out.to);
        if self.live(five, now.mono).is_some_and(|at| self.allocations[at].sure) {
            return Err("a five-tuple has two allocations".into());
        }
        let grant = self.grant(request);
        let lifetime = message.attributes.lifetime.ok_or("an Allocate's success without LIFETIME")?;
        check_lifetime(&self.limits, lifetime, grant.and_then(|g| g.lifetime_max))?;
        let mut relays = Vec::new();
        for relayed in message.relayed() {
            let bound = self.inner(relayed);
            let found = self.sockets.iter_mut().find(|((w, ..), s)| *w == out.worker && s.local == bound);
            let Some((handle, socket)) = found else {
                // Told of again, it may have ended since its first answer was lost.
                return if request.lost {
                    Ok(())
                } else {
                    Err("a client is told of a relayed address that is not open".into())
                };
            };
            let free = socket.allocation.is_none_or(|at| {
                let other = &self.allocations[at];
                !other.sure && request.lost && (other.five == five || other.guessed)
            });
            if socket.role != SocketRole::Relay || !free {
                return if request.lost {
                    Ok(())
                } else {
                    Err("a client is told of a relayed address that is another's".into())
                };
            }
            // Where two answers were lost, it was guessed to be the other one's.
            if let Some(at) =
                socket.allocation.replace(self.allocations.len()).filter(|at| self.allocations[*at].guessed)
            {
                self.allocations[at].relays.retain(|(_, taken)| taken != handle);
            }
            relays.push((relayed, *handle));
        }
        self.check_wishes(now, message, request, &relays)?;
        self.coverage.allocations += 1;
        self.coverage.dual += u64::from(relays.len() == 2);
        let before = self.by_five.insert(five, self.allocations.len()).filter(|_| request.lost);
        let until = now.mono.after(Duration::from_secs(u64::from(lifetime)));
        let mut allocation = Allocation::new(out.worker, five, user, relays, until);
        allocation.granted_until = granted_until;
        allocation.sure = !request.lost;
        if let Some(at) = before {
            // It has lived since its first answer was lost.
            allocation.permissions = std::mem::take(&mut self.allocations[at].permissions);
            allocation.channels = std::mem::take(&mut self.allocations[at].channels);
            allocation.until = allocation.until.max(self.allocations[at].until);
            allocation.granted_until = Mono::NEVER;
        }
        allocation.limit(grant.and_then(|g| g.bits_per_second));
        self.allocations.push(allocation);
        self.check_quotas(now.mono)
    }

    /// What the request asked for has to be what it got (RFC 8656, 7.2).
    fn check_wishes(
        &mut self,
        now: Now,
        message: &Message<'_>,
        request: &Request,
        relays: &[(SocketAddr, Handle)],
    ) -> Result<(), String> {
        let [(first, _), rest @ ..] = relays else {
            return Err("an Allocate's success without a relayed address".into());
        };
        // Of two families one may be refused (RFC 8656, 7.2), and has to be named then.
        let refused = message.attributes.address_error.map(|(family, ..)| family);
        let families: &[bool] = match (request.additional, refused) {
            (true, None) => &[false, true],
            (true, Some(1)) => &[true],
            (true, Some(_)) => &[false],
            (false, _) if request.family == Some(2) => &[true],
            (false, _) => &[false],
        };
        let given = std::iter::once(first).chain(rest.iter().map(|(relayed, _)| relayed)).map(SocketAddr::is_ipv6);
        if request.token.is_none() && !given.eq(families.iter().copied()) {
            return Err("an Allocate's success with other families than asked for".into());
        }
        if request.even_port.is_some() && first.port() % 2 == 1 {
            return Err("an even port was asked for, and an odd one given".into());
        }
        let reserved = self.reservations.iter().find(|(_, r)| {
            let waits = r.sure && !request.lost && now.mono.since(r.at) < RESERVATION_LIFETIME;
            waits && relays.iter().any(|(relayed, _)| *relayed == r.address)
        });
        let reserved = reserved.map(|(token, _)| *token);
        if reserved.is_some() && reserved != request.token {
            return Err("a reserved port is given to somebody without its token".into());
        }
        if let Some(token) = request.token {
            let Reservation { address, at, .. } =
                self.reservations.remove(&token).ok_or("a token that was not given out, or twice, works")?;
            if self.inner(address) != self.inner(*first)
                || now.mono.since(at) >= RESERVATION_LIFETIME + Scenario::grain() + VERDICT_DEADLINE
            {
                return Err("a token gives another port than it reserves, or too late".into());
            }
            self.coverage.tokens_used += 1;
        }
        if let Some(token) = message.attributes.reservation_token {
            if request.even_port != Some(true) {
                return Err("a port is reserved that nobody asked for".into());
            }
            let next = SocketAddr::new(first.ip(), first.port() + 1);
            self.reservations.insert(token, Reservation { address: next, at: now.mono, sure: !request.lost });
        }
        Ok(())
    }

    fn check_peers(&self, request: &Request) -> Result<(), String> {
        let closed = |ip: IpAddr| {
            let own = self.limits.relays.iter().any(|r| r.address == ip || r.announced() == ip);
            let peers = match ip {
                IpAddr::V4(ip) => ip.octets()[0] == 8,
                IpAddr::V6(ip) => ip.segments()[0] == 0x2600,
            };
            !own && !peers
        };
        match request.peers.iter().any(|peer| closed(peer.ip())) {
            true => Err("a peer in a closed range is permitted".into()),
            false => Ok(()),
        }
    }

    fn check_quotas(&self, now: Mono) -> Result<(), String> {
        let live: Vec<_> = self.alive(now).filter(|a| a.sure).collect();
        let within = |limits: &sluice_turn::AccountLimits, of: &dyn Fn(&Allocation) -> bool| {
            let mine = || live.iter().filter(|a| of(a));
            let permissions: usize =
                mine().map(|a| a.permissions.values().filter(|p| now < p.live_until()).count()).sum();
            let channels: usize = mine().map(|a| a.channels.values().filter(|c| now < c.until).count()).sum();
            let fits = |n: usize, limit: u32| limit == 0 || n <= limit as usize;
            fits(mine().count(), limits.allocations)
                && fits(permissions, limits.permissions)
                && fits(channels, limits.channels)
        };
        let users = live.iter().all(|one| within(&self.limits.user, &|a| a.user == one.user));
        let tenants = live.iter().all(|one| within(&self.limits.tenant, &|a| a.user.0 == one.user.0));
        if users && tenants && within(&self.limits.total, &|_| true) {
            Ok(())
        } else {
            Err("a quota of allocations, permissions or channels is exceeded".into())
        }
    }

    // Packets.

    fn peer_gets(&mut self, now: Now, out: &Outgoing, origin: &Datagram) -> Result<(), String> {
        let socket = self.sockets.get(&handle(out.worker, out.socket));
        let at = socket.and_then(|s| s.allocation).ok_or("a packet leaves by a relay socket without an allocation")?;
        let to = self.announced(out.to);
        let relays = &self.limits.relays;
        let allocation = &mut self.allocations[at];
        if origin.role != SocketRole::Listener || (origin.local, origin.from) != allocation.five {
            return Err("a packet of somebody else leaves by an allocation".into());
        }
        let upward = allocation.upward(now.mono, origin, |peer| announced(relays, peer) == to)?;
        if announced(relays, upward.peer) != to {
            return Err("a packet leaves for another peer than its client named".into());
        }
        if upward.data != out.bytes {
            return Err("a packet reaches a peer otherwise than its client sent it".into());
        }
        if upward.dont_fragment != out.options.dont_fragment {
            return Err("DONT-FRAGMENT is not obeyed".into());
        }
        allocation.may_pass(now.mono, upward.peer.ip())?;
        self.coverage.to_peer += 1;
        self.coverage.by_channel += u64::from(upward.channel);
        allocation.charge(now.mono, out.bytes.len())
    }

    fn client_gets(&mut self, now: Now, out: &Outgoing, origin: &Datagram) -> Result<(), String> {
        let five = (out.local, out.to);
        let at = *self.by_five.get(&five).ok_or("a packet reaches somebody without an allocation")?;
        let (from, data) = match origin.role {
            SocketRole::Relay => {
                let socket = self.sockets.get(&handle(origin.worker, origin.socket));
                if socket.is_some_and(|s| s.allocation != Some(at)) {
                    return Err("a packet reaches another client than its allocation's".into());
                }
                self.coverage.to_client += 1;
                (self.announced(origin.from), origin.bytes.clone())
            }
            SocketRole::Listener => self.hairpin(now, at, origin)?,
        };
        let allocation = &mut self.allocations[at];
        if allocation.worker != out.worker {
            return Err("a packet reaches a client by another worker than its own".into());
        }
        allocation.may_pass(now.mono, from.ip())?;
        match channel_data::parse(&out.bytes) {
            Ok((number, len)) => {
                let channel = allocation.channels.get(&number).filter(|c| now.mono < c.until && c.may_be(from));
                if channel.is_none() {
                    return Err("a client gets a packet on a channel that is not bound to its sender".into());
                }
                if out.bytes[channel_data::HEADER_LEN..channel_data::HEADER_LEN + len] != data {
                    return Err("a packet reaches a client otherwise than its peer sent it".into());
                }
            }
            Err(_) => {
                let message = Message::parse(&out.bytes).map_err(|_| "a client gets what is no message")?;
                let peer = message.peers().next();
                if (message.class, message.method) != (Class::Indication, Method::DATA) || peer != Some(from) {
                    return Err("a client gets an indication that names another peer".into());
                }
                if message.data() != Some(&data[..]) {
                    return Err("a packet reaches a client otherwise than its peer sent it".into());
                }
                self.coverage.data_indications += 1;
            }
        }
        allocation.charge(now.mono, data.len())
    }

    /// A packet that goes from one allocation to another inside a worker: sender's address and data.
    fn hairpin(&mut self, now: Now, target: usize, origin: &Datagram) -> Result<(SocketAddr, Vec<u8>), String> {
        let at = *self.by_five.get(&(origin.local, origin.from)).ok_or("a packet of nobody's reaches a client")?;
        let relays: Vec<_> = self.allocations[target].relays.iter().map(|(relayed, _)| *relayed).collect();
        let sender = &mut self.allocations[at];
        let ours = &self.limits.relays;
        let is_target = |peer| relays.contains(&announced(ours, peer));
        let upward = sender.upward(now.mono, origin, is_target)?;
        if !is_target(upward.peer) {
            return Err("a packet reaches another client than it was sent to".into());
        }
        let (peer, data) = (upward.peer, upward.data.to_vec());
        let sender = &mut self.allocations[at];
        sender.may_pass(now.mono, peer.ip())?;
        sender.charge(now.mono, data.len())?;
        let from = sender.relays.iter().find(|(relayed, _)| relayed.is_ipv4() == peer.is_ipv4());
        let from = from.ok_or("a packet leaves by a family that its allocation does not have")?.0;
        self.coverage.hairpins += 1;
        Ok((from, data))
    }

    fn must_reach_peer(&self, now: Now, datagram: &Datagram) -> bool {
        let Some(at) = self.by_five.get(&(datagram.local, datagram.from)) else {
            return false;
        };
        let allocation = &self.allocations[*at];
        if !allocation.is_demanding(now.mono) {
            return false;
        }
        let Ok(upward) = allocation.upward(now.mono, datagram, |_| true) else {
            return false;
        };
        let own = self.limits.relays.iter().any(|r| r.address == upward.peer.ip() || r.announced() == upward.peer.ip());
        let family = allocation.relays.iter().any(|(relayed, _)| relayed.is_ipv4() == upward.peer.is_ipv4());
        !own && family && allocation.may_pass(now.mono, upward.peer.ip()).is_ok()
    }

    fn must_reach_client(&self, now: Now, datagram: &Datagram) -> bool {
        let socket = self.sockets.get(&handle(datagram.worker, datagram.socket));
        let Some(at) = socket.and_then(|socket| socket.allocation) else {
            return false;
        };
        let allocation = &self.allocations[at];
        let from = self.announced(datagram.from);
        let own = self.limits.relays.iter().any(|r| r.announced() == from.ip());
        !own && allocation.is_demanding(now.mono) && allocation.may_pass(now.mono, from.ip()).is_ok()
    }

    // Look-ups.

    fn live(&self, five: Five, now: Mono) -> Option<usize> {
        self.by_five.get(&five).copied().filter(|at| self.allocations[*at].may_live(now))
    }

    /// The grant that a request was given.
    fn grant(&self, request: &Request) -> Option<sluice_base::policy::Grant> {
        match self.questions.get(&request.question?)?.verdict? {
            (_, Verdict::Allow(grant)) => Some(grant),
            _ => None,
        }
    }

    /// Until when a request's grant holds; an error where it was given none.
    fn granted_until(&self, request: &Request) -> Result<Mono, String> {
        let question = request.question.and_then(|id| self.questions.get(&id));
        match question.map(|q| (q.hook, q.verdict)) {
            Some((_, Some((at, Verdict::Allow(grant))))) => {
                Ok(grant.valid_for.map_or(Mono::NEVER, |time| at.after(time)))
            }
            Some((hook, Some((_, Verdict::Deny(_))))) => Err(format!("{hook:?} succeeds though it was refused")),
            Some((hook, None)) => Err(format!("{hook:?} succeeds though its question was never answered")),
            None => Err("a success without a question".into()),
        }
    }

    /// As clients and peers know one of our addresses.
    fn announced(&self, address: SocketAddr) -> SocketAddr {
        announced(&self.limits.relays, address)
    }

    fn inner(&self, mut address: SocketAddr) -> SocketAddr {
        if let Some(relay) = self.limits.relays.iter().find(|r| r.announced() == address.ip()) {
            address.set_ip(relay.address);
        }
        address
    }
}

impl Allocation {
    /// One that is not sure yet.
    fn new(worker: usize, five: Five, user: User, relays: Vec<(SocketAddr, Handle)>, until: Mono) -> Self {
        Allocation {
            worker,
            five,
            id: None,
            user,
            relays,
            until,
            granted_until: Mono::NEVER,
            ended: false,
            perhaps_ended: false,
            sure: false,
            guessed: false,
            permissions: BTreeMap::new(),
            channels: BTreeMap::new(),
            bits: None,
        }
    }

    /// Until when anything may pass.
    pub(crate) fn live_until(&self) -> Mono {
        self.until.min(self.granted_until)
    }

    pub(crate) fn may_live(&self, now: Mono) -> bool {
        !self.ended && now < self.live_until()
    }

    /// Whether every packet that may pass has to.
    fn is_demanding(&self, now: Mono) -> bool {
        self.sure && self.bits.is_none() && self.may_live(now)
    }

    fn may_pass(&self, now: Mono, peer: IpAddr) -> Result<(), String> {
        if !self.may_live(now) {
            return Err("a packet is relayed after the end of its allocation".into());
        }
        match self.permissions.get(&peer) {
            Some(permission) if now < permission.live_until() => Ok(()),
            Some(_) => Err("a packet is relayed after the end of its permission".into()),
            None => Err("a packet is relayed without a permission".into()),
        }
    }

    fn permit(&mut self, now: Mono, peer: IpAddr, granted_until: Mono) {
        let permission = Permission { until: now.after(PERMISSION_LIFETIME), granted_until };
        match self.permissions.get_mut(&peer) {
            Some(known) if !self.sure => {
                known.until = known.until.max(permission.until);
                known.granted_until = known.granted_until.max(granted_until);
            }
            _ => drop(self.permissions.insert(peer, permission)),
        }
    }

    fn bind(&mut self, now: Mono, number: u16, peer: SocketAddr) {
        let mut channel = Channel { peer, others: Vec::new(), until: now.after(CHANNEL_LIFETIME) };
        if !self.sure
            && let Some(before) = self.channels.remove(&number).filter(|c| now < c.until)
        {
            channel.others = before.others;
            channel.others.push(before.peer);
        }
        self.channels.insert(number, channel);
    }

    fn clashes(&self, now: Mono, number: u16, peer: SocketAddr) -> bool {
        let live = self.channels.iter().filter(|(_, c)| now < c.until);
        self.sure && live.into_iter().any(|(n, c)| (*n == number) != (c.peer == peer))
    }

    /// The client ends it, or one family of it (RFC 8656, 8.2).
    fn end(&mut self, family: Option<u8>, sockets: &mut BTreeMap<Handle, Socket>) {
        let v4 = family.map(|code| code == 1);
        self.relays.retain(|(relayed, socket)| {
            let stays = v4.is_some_and(|v4| relayed.is_ipv4() != v4);
            if !stays && let Some(socket) = sockets.get_mut(socket) {
                // It is closed by the end of the tick, or found open.
                socket.allocation = None;
            }
            stays
        });
        self.permissions.retain(|ip, _| v4.is_some_and(|v4| ip.is_ipv4() != v4));
        self.channels.retain(|_, c| v4.is_some_and(|v4| c.peer.is_ipv4() != v4));
        self.ended = self.relays.is_empty();
    }

    /// What a client's datagram asks to be sent; of the peers that its channel may have, one that is `wanted`.
    fn upward<'a>(
        &self,
        now: Mono,
        datagram: &'a Datagram,
        wanted: impl Fn(SocketAddr) -> bool,
    ) -> Result<Upward<'a>, String> {
        if let Ok((number, len)) = channel_data::parse(&datagram.bytes) {
            let channel = self.channels.get(&number).filter(|c| now < c.until);
            let channel = channel.ok_or("a packet is relayed by a channel that is not bound")?;
            let peer = channel.others.iter().copied().find(|peer| wanted(*peer) && !wanted(channel.peer));
            let peer = peer.unwrap_or(channel.peer);
            let data = &datagram.bytes[channel_data::HEADER_LEN..channel_data::HEADER_LEN + len];
            return Ok(Upward { peer, data, dont_fragment: false, channel: true });
        }
        let message = Message::parse(&datagram.bytes).map_err(|_| "what is no message is relayed")?;
        let attributes = &message.attributes;
        let clean = attributes.unknown_types().is_empty() && attributes.malformed.is_none();
        match (message.peers().next(), attributes.data.clone()) {
            (Some(peer), Some(range))
                if clean && (message.class, message.method) == (Class::Indication, Method::SEND) =>
            {
                let dont_fragment = attributes.dont_fragment;
                Ok(Upward { peer, data: &datagram.bytes[range], dont_fragment, channel: false })
            }
            _ => Err("what is no Send indication is relayed".into()),
        }
    }

    /// A grant's rate: the lowest that was named holds.
    fn limit(&mut self, bits_per_second: Option<u64>) {
        if let Some(bits) = bits_per_second {
            match &mut self.bits {
                Some(bucket) => bucket.lower(bits / 8),
                None => self.bits = Some(Bucket::new(bits / 8)),
            }
        }
    }

    fn charge(&mut self, now: Mono, bytes: usize) -> Result<(), String> {
        match self.bits.as_mut().is_none_or(|bucket| bucket.take(now, bytes as u64)) {
            true => Ok(()),
            false => Err("an allocation exceeds its grant's rate".into()),
        }
    }
}

impl Channel {
    fn may_be(&self, peer: SocketAddr) -> bool {
        self.peer == peer || self.others.contains(&peer)
    }
}

impl Permission {
    pub(crate) fn live_until(&self) -> Mono {
        self.until.min(self.granted_until)
    }
}

/// As clients and peers know one of our addresses.
fn announced(relays: &[RelayAddress], mut address: SocketAddr) -> SocketAddr {
    if let Some(relay) = relays.iter().find(|r| r.address == address.ip()) {
        address.set_ip(relay.announced());
    }
    address
}

fn check_lifetime(limits: &Scenario, seconds: u32, granted: Option<Duration>) -> Result<(), String> {
    let lifetime = Duration::from_secs(u64::from(seconds));
    if lifetime > limits.lifetime_max.max(limits.lifetime) || granted.is_some_and(|max| lifetime > max) {
        return Err("a lifetime beyond the longest".into());
    }
    Ok(())
}

const fn handle(worker: usize, socket: SocketId) -> Handle {
    (worker, socket.index, socket.generation)
}
