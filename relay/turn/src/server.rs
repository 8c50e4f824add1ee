//! The heart: requests in, answers, questions and sockets out.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use rand_core::RngCore;
use sluice_base::event::{EndReason, RelayEvent};
use sluice_base::io::{OpenError, OpenSpec, Opened, SendOptions, Slot};
use sluice_base::limits::{
    BINDING_UNKNOWN_MAX, CHANNEL_LIFETIME, DENIALS_TOLD_BURST, DENIALS_TOLD_PER_SECOND, LISTED_PLACES_MAX,
    PEERS_PER_REQUEST_MAX, PERMISSION_LIFETIME, QUESTIONS_PER_CLIENT_MAX, QUESTIONS_PER_WORKER_MAX, RESERVATIONS_MAX,
    TIMER_GRAIN,
};
use sluice_base::message::{
    AllocationPage, Alternates, Envelope, LentPort, Order, ReservationToken, Traffic, WorkerMessage,
};
use sluice_base::policy::{Denial, Grant, Hook, Question, Verdict};
use sluice_base::stats::media::Media;
use sluice_base::stats::{Code, Counter, Counters, DropReason, Method as MethodLabel, Single};
use sluice_base::wheel::Wheel;
use sluice_base::{
    AllocationId, Family, ListenerId, Mono, Now, Pii, QuestionId, SessionId, SocketId, TransportAddress, WorkerId,
};
use sluice_wire::channel_data;
use sluice_wire::stun::{Builder, Class, Message, Method, ParseError, TransactionId, attribute};

use crate::allocation::{Allocation, Client, Granted, Permission, Relay, family_index};
use crate::answers::Answers;
use crate::auth::{Authenticator, Identity, OFFERED_ALGORITHMS};
use crate::bans::Bans;
use crate::guard::{Guard, Judgement, SourceLimiter};
use crate::opening::{Opening, Wishes, granted_lifetime};
use crate::options::{ServerOptions, Shared};
use crate::ports::PortPool;
use crate::quality::{PORTION_INTERVAL, Quality};
use crate::quota::Wanted;
use crate::reply::{self, Reply, ReturnPath};
use crate::review::{Review, Reviews};
use crate::route::{Route, Routes};
use crate::settings::Settings;

/// What happens to the slot that was handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Disposition {
    /// Its payload, as it stands now, leaves by this socket.
    Relay {
        /// The socket.
        socket: SocketId,
        /// Where to.
        to: TransportAddress,
        /// How.
        options: SendOptions,
    },
    /// It is done with; outputs may wait, and a drop has been counted.
    Done,
}

/// What a server wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Put this question to the policies; the answer goes to [`Server::verdict`].
    Ask(Question),
    /// Open a relay socket; the result goes to [`Server::opened`].
    Open(OpenTicket, OpenSpec),
    /// Close a socket.
    Close(SocketId),
    /// Send an answer.
    Send {
        /// By this socket.
        socket: SocketId,
        /// To this client.
        to: TransportAddress,
        /// The message.
        reply: Reply,
    },
    /// Tell another worker.
    Tell(WorkerId, WorkerMessage),
    /// Tell whoever keeps records; only with [`ServerOptions::events`].
    Event(RelayEvent),
}

/// Joins [`Output::Open`] and [`Server::opened`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OpenTicket(pub(crate) u64);

/// One worker's TURN server.
pub struct Server<R> {
    pub(crate) options: ServerOptions,
    pub(crate) shared: Shared,
    pub(crate) rng: R,
    pub(crate) auth: Authenticator,
    pub(crate) guard: Guard,
    pub(crate) sources: SourceLimiter,
    /// Of refusals that are told.
    pub(crate) denials: SourceLimiter,
    pub(crate) bans: Arc<Bans>,
    /// By the configuration.
    pub(crate) denied_clients: Arc<Bans>,
    pub(crate) ports: PortPool,
    /// What each socket is, by its index.
    pub(crate) roles: Vec<Role>,
    pub(crate) clients: HashMap<Client, u32, FixedState>,
    pub(crate) allocations: Vec<Option<Box<Allocation>>>,
    /// What each has relayed, by the same place: apart, since it is written for every packet.
    pub(crate) traffic: Vec<Traffic>,
    free: Vec<u32>,
    allocations_made: u32,
    pub(crate) routes: Routes,
    pub(crate) permissions: HashMap<(u32, Pii<IpAddr>), Permission, FixedState>,
    pub(crate) relays: HashMap<(u8, u16), SocketId, FixedState>,
    pub(crate) reservations: HashMap<ReservationToken, LentPort, FixedState>,
    pub(crate) openings: HashMap<OpenTicket, Opening, FixedState>,
    pub(crate) tickets: u64,
    pub(crate) asked: HashMap<QuestionId, Asked, FixedState>,
    pub(crate) reviews: Reviews,
    open_requests: HashMap<(Client, TransactionId), (), FixedState>,
    open_of_client: HashMap<Client, u8, FixedState>,
    questions: u64,
    answers: Answers,
    pub(crate) wheel: Wheel<Timer>,
    due: Vec<Timer>,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) counters: Counters,
    /// Nothing begins any more, and where whoever comes is sent.
    draining: Option<Alternates>,
    pub(crate) quality: Quality,
    /// A timer for the streams waits.
    streams_timed: bool,
}

/// What a socket is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    None,
    Listener { generation: u32, listener: ListenerId },
    Relay { generation: u32, allocation: u32 },
}

/// What a deadline is for. Each is checked against the state when it comes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Timer {
    Allocation(AllocationId),
    Permission(AllocationId, Pii<IpAddr>),
    Channel(AllocationId, u16),
    Question(QuestionId),
    Reservation(ReservationToken),
    Opening(OpenTicket),
    Streams,
    Reviews,
}

/// An authenticated request.
pub(crate) struct Request {
    pub(crate) socket: SocketId,
    pub(crate) client: Client,
    pub(crate) method: Method,
    pub(crate) transaction: TransactionId,
    pub(crate) fingerprint: bool,
    pub(crate) identity: Arc<Identity>,
    /// The stay that it is about: of an Allocate the one that it asks for, once that is drawn.
    pub(crate) session: Option<SessionId>,
    /// Of an Allocate, while its question is open.
    pub(crate) wanted: Option<Wanted>,
}

/// What is decided once the verdict is there.
pub(crate) enum Operation {
    Allocate(SessionId, Wishes),
    Refresh { lifetime: Duration },
    CreatePermission { peers: Vec<TransportAddress> },
    ChannelBind { number: u16, peer: TransportAddress },
}

/// An open question.
pub(crate) enum Asked {
    /// Of a request, about the allocation that there was.
    Request(Request, Operation, Option<AllocationId>),
    Review(Review),
}

impl<R: RngCore> Server<R> {
    /// A server without sockets. `rng` has to be a cryptographic one: tokens and ports come from it.
    pub fn new(now: Now, options: ServerOptions, shared: Shared, mut rng: R) -> Self {
        let mut table = || FixedState::with_seed(rng.next_u64());
        let (clients, permissions, relays) = (table(), table(), table());
        let (reservations, openings, asked) = (table(), table(), table());
        let (open_requests, open_of_client) = (table(), table());
        let [routes_seed, answers_seed, sources_seed, streams_seed, denials_seed, names_seed] =
            [(); 6].map(|()| rng.next_u64());
        let settings = Settings::new(options);
        let options = settings.options.clone();
        Server {
            auth: Authenticator::new(&settings, &shared.nonce_key, names_seed),
            guard: Guard::new(&options, shared.live.clone()),
            sources: SourceLimiter::new(
                (options.guard.unauthenticated_per_second, options.guard.unauthenticated_burst),
                sources_seed,
            ),
            bans: Arc::default(),
            denied_clients: settings.denied_clients.clone(),
            denials: SourceLimiter::new(
                (if options.events { DENIALS_TOLD_PER_SECOND } else { 0 }, DENIALS_TOLD_BURST),
                denials_seed,
            ),
            ports: PortPool::new(options.relays.len(), options.ports.clone(), options.worker, options.workers),
            roles: Vec::new(),
            clients: HashMap::with_hasher(clients),
            allocations: Vec::new(),
            traffic: Vec::new(),
            free: Vec::new(),
            allocations_made: 0,
            routes: Routes::new(routes_seed),
            permissions: HashMap::with_hasher(permissions),
            relays: HashMap::with_hasher(relays),
            reservations: HashMap::with_hasher(reservations),
            openings: HashMap::with_hasher(openings),
            tickets: 0,
            asked: HashMap::with_hasher(asked),
            reviews: Reviews::default(),
            open_requests: HashMap::with_hasher(open_requests),
            open_of_client: HashMap::with_hasher(open_of_client),
            questions: 0,
            answers: Answers::new(answers_seed),
            wheel: Wheel::new(now.mono, TIMER_GRAIN),
            due: Vec::new(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            draining: None,
            quality: Quality::new(options.tenants.len(), streams_seed, options.events),
            streams_timed: false,
            options,
            shared,
            rng,
        }
    }

    /// Which worker's this is.
    pub fn worker(&self) -> WorkerId {
        self.options.worker
    }

    /// Tells the server of a listener's socket.
    pub fn listening(&mut self, socket: SocketId, listener: ListenerId) {
        self.set_role(socket, Role::Listener { generation: socket.generation, listener });
    }

    /// Handles a packet. What it does to the slot is final: the caller sends or frees it.
    #[inline]
    pub fn packet<S: Slot>(&mut self, now: Now, socket: SocketId, from: TransportAddress, slot: &mut S) -> Disposition {
        match self.roles.get(socket.index as usize) {
            Some(Role::Relay { generation, allocation }) if *generation == socket.generation => {
                let allocation = *allocation;
                self.on_peer_packet(now, socket, from, allocation, slot)
            }
            Some(Role::Listener { generation, listener }) if *generation == socket.generation => {
                let client = Client { listener: *listener, address: from };
                self.on_client_packet(now, socket, client, slot)
            }
            _ => self.dropped(DropReason::SocketClosed),
        }
    }

    /// The answer to a question; one that is no longer open is ignored.
    pub fn verdict(&mut self, now: Now, id: QuestionId, verdict: Verdict) {
        match self.take_asked(id) {
            Some(Asked::Request(request, operation, about)) => match verdict {
                Verdict::Allow(grant) => self.granted(now, request, operation, about, grant),
                Verdict::Deny(denial) => self.refuse(now, &request, denial_code(denial)),
            },
            Some(Asked::Review(review)) => self.reviewed(now, id, review, verdict),
            None => {}
        }
    }

    /// The result of an [`Output::Open`].
    pub fn opened(&mut self, now: Now, ticket: OpenTicket, result: Result<Opened, OpenError>) {
        match self.openings.remove(&ticket) {
            Some(opening) => self.continue_opening(now, ticket, opening, result),
            None => self.outputs.extend(result.ok().map(|opened| Output::Close(opened.socket))),
        }
    }

    /// A message of another worker, or an order.
    pub fn message(&mut self, now: Now, envelope: Envelope) {
        match envelope {
            Envelope::Worker(from, message) => self.worker_message(now, from, message),
            Envelope::Order(Order::End(id)) => self.end(now, id, EndReason::Order),
            Envelope::Order(Order::Review(tenant)) => self.reviews.order(tenant, QuestionId(self.questions)),
            Envelope::Order(Order::Drain(alternates)) => self.draining = Some(alternates),
            Envelope::Order(Order::Stop) => self.stop(now),
            _ => {}
        }
    }

    /// When [`Server::timeout`] wants to be called next.
    pub fn next_timeout(&self) -> Mono {
        self.wheel.next()
    }

    /// Lets run out what has run out.
    pub fn timeout(&mut self, now: Now) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.expire(now.mono, &mut due);
        for timer in due.drain(..) {
            match timer {
                Timer::Allocation(id) => self.allocation_due(now, id),
                Timer::Permission(id, peer) => self.permission_due(now, id, peer),
                Timer::Channel(id, number) => self.channel_due(now, id, number),
                Timer::Question(id) => self.question_due(now, id),
                Timer::Reservation(token) => self.end_reservation(token),
                Timer::Opening(ticket) => self.opening_due(now, ticket),
                Timer::Streams => self.streams_due(now),
                Timer::Reviews => self.reviews_due(),
            }
        }
        self.due = due;
    }

    /// The next thing to do, in order.
    #[inline]
    pub fn output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What has been counted so far.
    pub fn counters(&mut self) -> &mut Counters {
        let live = [
            (Single::Allocations, self.clients.len()),
            (Single::Permissions, self.permissions.len()),
            (Single::Channels, self.routes.len()),
            (Single::QuestionsOpen, self.asked.len()),
        ];
        for (gauge, value) in live {
            self.counters.set(Counter::single(gauge), value as u64);
        }
        &mut self.counters
    }

    /// What was seen of the media so far, by [`media_place`](sluice_base::stats::media::media_place).
    pub fn media(&self) -> &[Media] {
        self.quality.media()
    }

    /// The live allocations.
    pub fn allocations(&self) -> impl Iterator<Item = AllocationId> + '_ {
        self.allocations.iter().flatten().map(|a| a.id)
    }

    /// The live allocations from place `from` of the table on: at most `most`, of a bounded number of places.
    pub fn list(&self, now: Mono, from: u32, most: usize) -> AllocationPage {
        let mut page = AllocationPage::default();
        let end = (from as usize).saturating_add(LISTED_PLACES_MAX).min(self.allocations.len());
        for place in from as usize..end {
            if page.rows.len() == most {
                page.next = Some(place as u32);
                return page;
            }
            let live = self.allocations[place].as_deref().filter(|allocation| now < allocation.live_until());
            page.rows.extend(live.map(|allocation| allocation.view(now, self.traffic[place])));
        }
        page.next = (end < self.allocations.len()).then_some(end as u32);
        page
    }

    /// Deadlines that wait: their number is bounded by what lives.
    pub fn timers(&self) -> usize {
        self.wheel.len()
    }

    pub(crate) fn dropped(&mut self, reason: DropReason) -> Disposition {
        self.counters.drop(reason);
        Disposition::Done
    }

    #[inline]
    fn on_client_packet<S: Slot>(&mut self, now: Now, socket: SocketId, client: Client, slot: &mut S) -> Disposition {
        use sluice_wire::stun::{Kind, classify};
        match slot.payload().first().map(|first| classify(*first)) {
            Some(Kind::ChannelData) => self.on_channel_data(now, socket, client, slot),
            Some(Kind::Stun) => self.stun(now, socket, client, slot),
            Some(Kind::Other) | None => self.dropped(DropReason::NotTurn),
        }
    }

    fn stun<S: Slot>(&mut self, now: Now, socket: SocketId, client: Client, slot: &mut S) -> Disposition {
        let message = match Message::parse(slot.payload()) {
            Ok(message) => message,
            Err(ParseError::Fingerprint) => return self.dropped(DropReason::BadFingerprint),
            Err(_) => return self.dropped(DropReason::BadStun),
        };
        match (message.class, message.method) {
            (Class::Indication, Method::SEND) => {
                let peer = message.peers().next().map(Pii::new);
                let attributes = &message.attributes;
                let well_formed = attributes.unknown.1 == 0 && attributes.malformed.is_none();
                let dont_fragment = attributes.dont_fragment;
                match (peer, attributes.data.clone()) {
                    (Some(peer), Some(data)) if well_formed => {
                        slot.set_len(data.end);
                        slot.trim_front(data.start);
                        self.on_send_indication(now, client, peer, SendOptions { dont_fragment }, slot)
                    }
                    _ => self.dropped(DropReason::BadIndication),
                }
            }
            (Class::Request, _) if self.is_banned(now, client.address.ip()) => self.dropped(DropReason::Banned),
            (Class::Request, Method::BINDING) => self.binding(now, socket, client, &message),
            (Class::Request, Method::ALLOCATE | Method::REFRESH | Method::CREATE_PERMISSION | Method::CHANNEL_BIND) => {
                self.request(now, socket, client, &message)
            }
            _ => self.dropped(DropReason::UnexpectedStun),
        }
    }

    /// Binding needs no credentials (RFC 8656, 1): at most 52 bytes, rate-limited.
    fn binding(&mut self, now: Now, socket: SocketId, client: Client, message: &Message<'_>) -> Disposition {
        let unknown = message.attributes.unknown_types();
        if !unknown.is_empty() {
            return self.answer_unknown(now, socket, client, message, Code::UnknownAttribute);
        }
        if !self.sources.admit(now.mono, client.address) {
            return self.dropped(DropReason::SourceLimited);
        }
        let fingerprint = message.attributes.fingerprint;
        let reply = Reply::build(Class::Success, Method::BINDING, message.transaction, |builder| {
            reply::mapped(builder, client.address);
            reply::seal(builder, None, fingerprint);
        });
        self.count(Method::BINDING, Code::Ok);
        self.transmit(ReturnPath { socket, to: client.address }, reply)
    }

    /// Answers a request whose sender is not known: rate-limited, and never long.
    fn answer_unknown(
        &mut self,
        now: Now,
        socket: SocketId,
        client: Client,
        m: &Message<'_>,
        code: Code,
    ) -> Disposition {
        if !self.sources.admit(now.mono, client.address) {
            return self.dropped(DropReason::SourceLimited);
        }
        let challenge = matches!(code, Code::Unauthenticated | Code::StaleNonce);
        let reply = Reply::build(Class::Error, m.method, m.transaction, |builder| {
            // An answer to Binding stays within its 52 bytes without the words.
            builder.error(code.number(), if m.method == Method::BINDING { "" } else { reply::reason(code) });
            if challenge {
                builder.bytes(attribute::REALM, self.auth.realm(client.listener).as_bytes());
                builder.bytes(attribute::NONCE, &self.auth.nonce(now, client.address));
                builder.bytes(attribute::PASSWORD_ALGORITHMS, &OFFERED_ALGORITHMS);
            }
            if code == Code::UnknownAttribute {
                let unknown = m.attributes.unknown_types();
                builder.unknown_attributes(&unknown[..unknown.len().min(BINDING_UNKNOWN_MAX)]);
            }
            reply::seal(builder, None, m.attributes.fingerprint);
        });
        self.count(m.method, code);
        self.transmit(ReturnPath { socket, to: client.address }, reply)
    }

    fn request(&mut self, now: Now, socket: SocketId, client: Client, message: &Message<'_>) -> Disposition {
        let allocation = self.allocation_of(now, client);
        let known = allocation.map(|slot| self.at(slot).identity.clone());
        let identity = match self.auth.authenticate(now, client.address, client.listener, message, known.as_ref()) {
            Ok(identity) => identity,
            Err(code) => return self.answer_unknown(now, socket, client, message, code),
        };
        // Only now: a name alone is anybody's.
        if self.is_banned_user(now, &identity) {
            return self.dropped(DropReason::Banned);
        }
        if let (Some(slot), Some(known)) = (allocation, known)
            && identity.renews(&known)
        {
            self.at_mut(slot).identity = identity.clone();
        }
        if let Some(reply) = self.answers.recall(now.mono, client, message.transaction) {
            let reply = *reply;
            return self.transmit(ReturnPath { socket, to: client.address }, Some(reply));
        }
        if self.open_requests.contains_key(&(client, message.transaction)) {
            return self.dropped(DropReason::QuestionOpen);
        }
        let session = allocation.filter(|_| message.method != Method::ALLOCATE).map(|slot| self.at(slot).session);
        let request = Request {
            socket,
            client,
            method: message.method,
            transaction: message.transaction,
            fingerprint: message.attributes.fingerprint,
            identity,
            session,
            wanted: None,
        };
        let unknown = message.attributes.unknown_types();
        if !unknown.is_empty() {
            self.answer(now, &request, Code::UnknownAttribute, |builder| {
                builder.unknown_attributes(unknown);
            });
            return Disposition::Done;
        }
        match self.step(now, allocation, &request, message) {
            Ok(Step::Allocate(wishes)) => {
                let session = self.draw_session();
                return self.ask(now, request, allocation, Operation::Allocate(session, wishes));
            }
            Ok(Step::Ask(operation)) => return self.ask(now, request, allocation, operation),
            Ok(Step::End(slot, family)) => self.end_by_client(now, &request, slot, family),
            Err(code) => self.refuse(now, &request, code),
        }
        Disposition::Done
    }

    /// What a well-formed request asks for, or the error that the RFC names.
    fn step(&self, now: Now, allocation: Option<u32>, request: &Request, message: &Message<'_>) -> Result<Step, Code> {
        if let Some(slot) = allocation
            && !self.at(slot).identity.is_same_user(&request.identity)
        {
            return Err(Code::WrongCredentials);
        }
        if message.method == Method::ALLOCATE {
            if allocation.is_some() {
                return Err(Code::AllocationMismatch);
            }
            self.open_to(request.client)?;
            return Wishes::of(message, &self.options).map(Step::Allocate);
        }
        let slot = allocation.ok_or(Code::AllocationMismatch)?;
        if message.attributes.malformed.is_some() {
            return Err(Code::BadRequest);
        }
        match message.method {
            Method::REFRESH => self.refresh_step(slot, message),
            Method::CREATE_PERMISSION => {
                let count = message.attributes.peer_count;
                if count == 0 || count > PEERS_PER_REQUEST_MAX {
                    return Err(Code::BadRequest);
                }
                let peers: Vec<_> = message.peers().map(Pii::new).collect();
                peers.iter().try_for_each(|peer| self.permissible(slot, *peer).map(drop))?;
                Ok(Step::Ask(Operation::CreatePermission { peers }))
            }
            _ => self.channel_step(now, slot, message),
        }
    }

    /// Whether anything begins at all: while the relay drains, whoever comes goes elsewhere (RFC 8656, 7.2).
    fn open_to(&self, client: Client) -> Result<(), Code> {
        match self.draining.map(|alternates| alternates.of(client.address.family())) {
            None => Ok(()),
            Some(Some(_)) => Err(Code::TryAlternate),
            Some(None) => Err(Code::InsufficientCapacity),
        }
    }

    /// RFC 8656, 8.2.
    fn refresh_step(&self, slot: u32, message: &Message<'_>) -> Result<Step, Code> {
        let family = match message.attributes.requested_family {
            None => None,
            Some(1) => Some(Family::V4),
            Some(2) => Some(Family::V6),
            Some(_) => return Err(Code::BadRequest),
        };
        if family.is_some_and(|family| self.at(slot).relay(family).is_none()) {
            return Err(Code::PeerAddressFamily);
        }
        match message.attributes.lifetime {
            Some(0) => Ok(Step::End(slot, family)),
            lifetime => Ok(Step::Ask(Operation::Refresh { lifetime: self.options.lifetime(lifetime) })),
        }
    }

    /// RFC 8656, 12.2.
    fn channel_step(&self, now: Now, slot: u32, message: &Message<'_>) -> Result<Step, Code> {
        let number = message.attributes.channel_number.ok_or(Code::BadRequest)?;
        let mut peers = message.peers().map(Pii::new);
        let (Some(peer), None) = (peers.next(), peers.next()) else {
            return Err(Code::BadRequest);
        };
        if !channel_data::NUMBERS.contains(&number) {
            return Err(Code::BadRequest);
        }
        let allocation = self.at(slot);
        let own = self.permissible(slot, peer)?;
        if own.is_some_and(|relay| !self.guard.is_live(relay, peer) || self.is_itself(slot, relay, peer)) {
            return Err(Code::Forbidden);
        }
        let clash = allocation
            .routes
            .iter()
            .map(|at| self.routes.record(*at))
            .any(|route| now.mono < route.bound_until && (route.number == number) != (route.peer == peer));
        if clash { Err(Code::BadRequest) } else { Ok(Step::Ask(Operation::ChannelBind { number, peer })) }
    }

    /// Whether a permission for this peer is possible at all; the index of our own relay address
    /// where the peer has that.
    fn permissible(&self, slot: u32, peer: TransportAddress) -> Result<Option<u8>, Code> {
        if self.at(slot).relay(peer.family()).is_none() {
            return Err(Code::PeerAddressFamily);
        }
        match self.guard.judge(peer.ip()) {
            Judgement::Allowed => Ok(None),
            Judgement::OwnRelay(relay) => Ok(Some(relay)),
            Judgement::Forbidden => Err(Code::Forbidden),
        }
    }

    /// Whether a peer is the allocation's own relayed address.
    pub(crate) fn is_itself(&self, slot: u32, relay: u8, peer: TransportAddress) -> bool {
        let own = self.at(slot).relay(peer.family());
        own.is_some_and(|own| own.address == relay && own.port == peer.port())
    }

    /// Puts the question of a request, unless too many are open.
    fn ask(&mut self, now: Now, mut request: Request, allocation: Option<u32>, operation: Operation) -> Disposition {
        let client = request.client;
        let open = self.open_of_client.get(&client).copied().unwrap_or(0);
        if self.asked.len() >= QUESTIONS_PER_WORKER_MAX || open >= QUESTIONS_PER_CLIENT_MAX {
            return self.dropped(DropReason::QuestionsFull);
        }
        let session = match (&operation, allocation) {
            (Operation::Allocate(session, _), _) => *session,
            (_, Some(slot)) => self.at(slot).session,
            // Nothing but an Allocate is asked without an allocation.
            (_, None) => return self.dropped(DropReason::NoAllocation),
        };
        request.session = Some(session);
        if let Operation::Allocate(..) = operation {
            let identity = &request.identity;
            request.wanted = self.shared.ledger.want(identity.tenant, identity.user.clone());
        }
        self.open_of_client.insert(client, open + 1);
        self.open_requests.insert((client, request.transaction), ());
        let (hook, lifetime) = match &operation {
            Operation::Allocate(_, wishes) => (Hook::Allocate, Some(wishes.lifetime)),
            Operation::Refresh { lifetime } => (Hook::Refresh, Some(*lifetime)),
            Operation::CreatePermission { .. } => (Hook::CreatePermission, None),
            Operation::ChannelBind { .. } => (Hook::ChannelBind, None),
        };
        let peers = match &operation {
            Operation::CreatePermission { peers } => peers.iter().map(|peer| self.guard.endpoint(*peer)).collect(),
            Operation::ChannelBind { peer, .. } => vec![self.guard.endpoint(*peer)],
            _ => Vec::new(),
        };
        let question = Question {
            id: self.next_question(),
            hook,
            tenant: request.identity.tenant,
            user: request.identity.user.clone(),
            client: self.guard.endpoint(client.address),
            peers,
            session,
            allocation: allocation.map(|slot| self.at(slot).id),
            lifetime,
        };
        let about = question.allocation;
        self.put(now, question, Asked::Request(request, operation, about));
        Disposition::Done
    }

    fn draw_session(&mut self) -> SessionId {
        let mut session = [0; 16];
        self.rng.fill_bytes(&mut session);
        SessionId(session)
    }

    pub(crate) fn next_question(&mut self) -> QuestionId {
        self.questions += 1;
        QuestionId(self.questions)
    }

    pub(crate) fn put(&mut self, now: Now, question: Question, asked: Asked) {
        self.counters.add(Counter::single(Single::QuestionsAsked), 1);
        self.wheel.add(now.mono.after(self.options.verdict_deadline), Timer::Question(question.id));
        self.asked.insert(question.id, asked);
        self.outputs.push_back(Output::Ask(question));
    }

    /// What a grant means from `now` on. It is asked again when a question and one retransmission of
    /// patience are left, or at half of a shorter time.
    pub(crate) fn granted_by(&self, now: Mono, grant: &Grant) -> Granted {
        let Some(valid_for) = grant.valid_for else {
            return Granted::of(Mono::NEVER, Mono::NEVER);
        };
        let patience = (self.options.verdict_deadline * 2).min(valid_for / 2);
        Granted::of(now.after(valid_for), now.after(valid_for - patience))
    }

    /// A request whose question was put has its answer. From the question to here, verdict or not, a
    /// retransmission finds it open.
    fn close_request(&mut self, request: &Request) {
        if self.open_requests.remove(&(request.client, request.transaction)).is_none() {
            return;
        }
        if let Some(open) = self.open_of_client.get_mut(&request.client) {
            *open -= 1;
            if *open == 0 {
                self.open_of_client.remove(&request.client);
            }
        }
    }

    fn question_due(&mut self, now: Now, id: QuestionId) {
        let Some(asked) = self.take_asked(id) else {
            return;
        };
        self.counters.add(Counter::single(Single::QuestionsTimedOut), 1);
        match asked {
            Asked::Request(request, ..) => self.refuse(now, &request, Code::InsufficientCapacity),
            Asked::Review(review) => self.reviewed(now, id, review, Verdict::Deny(Denial::Unanswered)),
        }
    }

    fn take_asked(&mut self, id: QuestionId) -> Option<Asked> {
        let asked = self.asked.remove(&id)?;
        if matches!(asked, Asked::Review(_)) {
            self.reviews.closed();
        }
        Some(asked)
    }

    /// A policy said yes, about the allocation that there was when it was asked.
    fn granted(&mut self, now: Now, request: Request, operation: Operation, about: Option<AllocationId>, grant: Grant) {
        let allocation = self.allocation_of(now, request.client);
        if allocation.map(|slot| self.at(slot).id) != about {
            return self.refuse(now, &request, Code::AllocationMismatch);
        }
        let done = match (operation, allocation) {
            (Operation::Allocate(session, wishes), None) => match self.open_to(request.client) {
                Ok(()) => return self.begin_opening(now, request, session, wishes, grant),
                Err(code) => Err(code),
            },
            (Operation::Refresh { lifetime }, Some(slot)) => self.refresh(now, &request, slot, lifetime, grant),
            (Operation::CreatePermission { peers }, Some(slot)) => {
                self.permit(now, slot, &peers, grant).map(|()| self.answer(now, &request, Code::Ok, |_| {}))
            }
            (Operation::ChannelBind { number, peer }, Some(slot)) => {
                self.bind(now, slot, number, peer, grant).map(|()| self.answer(now, &request, Code::Ok, |_| {}))
            }
            _ => Err(Code::AllocationMismatch),
        };
        if let Err(code) = done {
            self.refuse(now, &request, code);
        }
    }

    fn refresh(&mut self, now: Now, request: &Request, slot: u32, wish: Duration, grant: Grant) -> Result<(), Code> {
        let lifetime = granted_lifetime(&grant, wish);
        let granted = self.granted_by(now.mono, &grant);
        let allocation = self.at_mut(slot);
        allocation.until = now.mono.after(lifetime);
        allocation.take_over(&grant, granted);
        self.watch_allocation(now.mono, slot);
        self.update_routes(slot);
        self.answer(now, request, Code::Ok, |builder| {
            builder.u32(attribute::LIFETIME, lifetime.as_secs() as u32);
        });
        Ok(())
    }

    /// Makes or refreshes permissions: all of them or none (RFC 8656, 10.2).
    fn permit(&mut self, now: Now, slot: u32, peers: &[TransportAddress], grant: Grant) -> Result<(), Code> {
        self.claim_permissions(slot, peers)?;
        for peer in peers {
            self.permit_one(now, slot, peer.ip(), &grant);
        }
        self.update_routes(slot);
        Ok(())
    }

    /// Claims what the peers need that have no permission yet, or nothing.
    fn claim_permissions(&mut self, slot: u32, peers: &[TransportAddress]) -> Result<(), Code> {
        let mut new: Vec<_> = peers.iter().map(Pii::ip).collect();
        new.retain(|peer| !self.permissions.contains_key(&(slot, *peer)));
        new.sort_unstable();
        new.dedup();
        let configured = self.options.permissions_per_allocation;
        let allocation = self.at_mut(slot);
        let most = allocation.permissions_granted.map_or(configured, |granted| granted.min(configured)) as usize;
        if allocation.permitted.len() + new.len() > most {
            return Err(Code::InsufficientCapacity);
        }
        let claimed = new.iter().take_while(|_| allocation.claim.permission()).count();
        if claimed < new.len() {
            (0..claimed).for_each(|_| allocation.claim.end_permission());
            return Err(Code::InsufficientCapacity);
        }
        Ok(())
    }

    /// Makes a permission that has been claimed, or refreshes it.
    fn permit_one(&mut self, now: Now, slot: u32, peer: Pii<IpAddr>, grant: &Grant) {
        let until = now.mono.after(PERMISSION_LIFETIME);
        let grant = self.granted_by(now.mono, grant);
        match self.permissions.get_mut(&(slot, peer)) {
            Some(permission) => permission.renew(until, grant),
            None => {
                let own = match self.guard.judge(peer) {
                    Judgement::OwnRelay(relay) => Some(relay),
                    _ => None,
                };
                let allocation = self.at_mut(slot);
                allocation.permitted.push(peer);
                allocation.permissions_made = allocation.permissions_made.saturating_add(1);
                let flow = self.quality.flow(self.at(slot).identity.tenant);
                self.permissions.insert((slot, peer), Permission { until, grant, due_at: Mono::NEVER, own, flow });
            }
        }
        self.watch_permission(now.mono, slot, peer);
    }

    /// Binds a channel or refreshes it, and its permission with it (RFC 8656, 12.2).
    fn bind(&mut self, now: Now, slot: u32, number: u16, peer: TransportAddress, grant: Grant) -> Result<(), Code> {
        let places = self.at(slot).routes.clone();
        for at in places {
            let route = *self.routes.record(at);
            let same = route.number == number && route.peer == peer;
            if now.mono >= route.bound_until && !same {
                self.end_channel(now, slot, at);
            } else if !same && (route.number == number || route.peer == peer) {
                // Bound meanwhile by another request whose question was open too.
                return Err(Code::BadRequest);
            }
        }
        let bound_until = now.mono.after(CHANNEL_LIFETIME);
        let bound = self.at(slot).routes.iter().copied().find(|at| self.routes.record(*at).number == number);
        if bound.is_none() && self.at(slot).routes.len() >= self.options.channels_per_allocation as usize {
            return Err(Code::InsufficientCapacity);
        }
        let allocation = self.at(slot);
        let (id, client, client_socket) = (allocation.id, allocation.client.address, allocation.client_socket);
        let relay_socket = allocation.relay(peer.family()).ok_or(Code::PeerAddressFamily)?.socket;
        if bound.is_none() && !self.at_mut(slot).claim.channel() {
            return Err(Code::InsufficientCapacity);
        }
        if let Err(code) = self.permit(now, slot, &[peer], grant) {
            if bound.is_none() {
                self.at_mut(slot).claim.end_channel();
            }
            return Err(code);
        }
        match bound {
            Some(at) => self.routes.record_mut(at).bound_until = bound_until,
            None => {
                let own = self.permissions.get(&(slot, peer.ip())).and_then(|p| p.own);
                let live_until = Mono::default();
                let flow = self.quality.flow(self.at(slot).identity.tenant);
                let at = self.routes.add(Route {
                    live_until,
                    client_socket,
                    client,
                    relay_socket,
                    peer,
                    number,
                    own,
                    limited: false,
                    allocation: id,
                    bound_until,
                    flow,
                });
                let allocation = self.at_mut(slot);
                allocation.routes.push(at);
                allocation.channels_made = allocation.channels_made.saturating_add(1);
                let next = self.within_a_turn(now.mono, bound_until);
                self.wheel.add(next, Timer::Channel(id, number));
            }
        }
        self.update_routes(slot);
        Ok(())
    }

    /// Compiles lifetimes, grants and limits into the records of the packet path.
    pub(crate) fn update_routes(&mut self, slot: u32) {
        let Some(allocation) = self.allocations[slot as usize].as_deref() else {
            return;
        };
        for at in &allocation.routes {
            let route = self.routes.record_mut(*at);
            let permitted = self.permissions.get(&(slot, route.peer.ip())).map(Permission::live_until);
            let permitted = permitted.unwrap_or_default();
            route.live_until = route.bound_until.min(permitted).min(allocation.live_until());
            route.limited = allocation.claim.is_limited();
        }
    }

    fn allocation_due(&mut self, now: Now, id: AllocationId) {
        let Some(slot) = self.slot_of(id) else {
            return;
        };
        let allocation = self.at_mut(slot);
        if now.mono < allocation.due_at {
            return;
        }
        allocation.due_at = Mono::NEVER;
        if now.mono >= allocation.live_until() {
            let reason = allocation.lapse();
            return self.end(now, id, reason);
        }
        if allocation.grant.is_due(now.mono) {
            allocation.grant.reviewing = true;
            let until = allocation.grant.until;
            self.review_ending(now, slot, None, until);
        }
        self.watch_allocation(now.mono, slot);
    }

    /// A deadline that comes in a turn of the wheel at the latest, to be set again then: however many allocations
    /// come and go, the timers they leave behind are those of half a minute.
    fn within_a_turn(&self, now: Mono, deadline: Mono) -> Mono {
        deadline.min(now.after(self.wheel.turn()))
    }

    /// Sets an allocation's timer, unless one fires early enough: however often it is refreshed, few wait.
    pub(crate) fn watch_allocation(&mut self, now: Mono, slot: u32) {
        let next = self.within_a_turn(now, self.at(slot).next());
        let allocation = self.at_mut(slot);
        let id = allocation.id;
        if next < allocation.due_at {
            allocation.due_at = next;
            self.wheel.add(next, Timer::Allocation(id));
        }
    }

    fn permission_due(&mut self, now: Now, id: AllocationId, peer: Pii<IpAddr>) {
        let Some(slot) = self.slot_of(id) else {
            return;
        };
        let Some(permission) = self.permissions.get_mut(&(slot, peer)) else {
            return;
        };
        if now.mono < permission.due_at {
            return;
        }
        permission.due_at = Mono::NEVER;
        if now.mono >= permission.live_until() {
            return self.end_permission(now, slot, peer);
        }
        if permission.grant.is_due(now.mono) {
            permission.grant.reviewing = true;
            let until = permission.grant.until;
            self.review_ending(now, slot, Some(peer), until);
        }
        self.watch_permission(now.mono, slot, peer);
    }

    /// Sets a permission's timer, unless one fires early enough.
    pub(crate) fn watch_permission(&mut self, now: Mono, slot: u32, peer: Pii<IpAddr>) {
        let id = self.at(slot).id;
        let latest = self.within_a_turn(now, Mono::NEVER);
        if let Some(permission) = self.permissions.get_mut(&(slot, peer)) {
            let next = permission.next().min(latest);
            if next < permission.due_at {
                permission.due_at = next;
                self.wheel.add(next, Timer::Permission(id, peer));
            }
        }
    }

    fn channel_due(&mut self, now: Now, id: AllocationId, number: u16) {
        let Some(slot) = self.slot_of(id) else {
            return;
        };
        let found = self.at(slot).routes.iter().copied().find(|at| self.routes.record(*at).number == number);
        if let Some(at) = found {
            let bound_until = self.routes.record(at).bound_until;
            if now.mono >= bound_until {
                self.end_channel(now, slot, at);
            } else {
                let next = self.within_a_turn(now.mono, bound_until);
                self.wheel.add(next, Timer::Channel(id, number));
            }
        }
    }

    /// A portion of the streams is to be observed, and the next one in a while.
    fn streams_due(&mut self, now: Now) {
        self.streams_timed = self.quality.observe_portion(now.mono);
        self.tell_streams(now);
        if self.streams_timed {
            self.wheel.add(now.mono.after(PORTION_INTERVAL), Timer::Streams);
        }
    }

    /// The first stream sets the timer of all.
    #[inline]
    pub(crate) fn watch_streams(&mut self, now: Now) {
        if !self.streams_timed && self.quality.is_followed() {
            self.streams_timed = true;
            self.wheel.add(now.mono.after(PORTION_INTERVAL), Timer::Streams);
        }
    }

    /// Refresh with a lifetime of zero (RFC 8656, 8.2).
    fn end_by_client(&mut self, now: Now, request: &Request, slot: u32, family: Option<Family>) {
        let id = self.at(slot).id;
        let other_stays = family.is_some() && self.at(slot).relays.iter().flatten().count() > 1;
        match family {
            Some(family) if other_stays => self.end_family(now, slot, family),
            _ => self.end(now, id, EndReason::Client),
        }
        self.answer(now, request, Code::Ok, |builder| {
            builder.u32(attribute::LIFETIME, 0);
        });
    }

    /// Ends one family of a dual allocation.
    fn end_family(&mut self, now: Now, slot: u32, family: Family) {
        let Some(relay) = self.at_mut(slot).relays[family_index(family)].take() else {
            return;
        };
        let peers: Vec<_> = self.at(slot).permitted.iter().copied().filter(|p| p.family() == family).collect();
        peers.into_iter().for_each(|peer| self.end_permission(now, slot, peer));
        let routes = self.at(slot).routes.clone();
        routes
            .into_iter()
            .filter(|at| self.routes.record(*at).peer.family() == family)
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|at| self.end_channel(now, slot, at));
        self.release(relay);
    }

    /// Ends an allocation, if there is one of that id.
    pub(crate) fn end(&mut self, now: Now, id: AllocationId, reason: EndReason) {
        let Some(slot) = self.slot_of(id) else {
            return;
        };
        let Some(allocation) = self.allocations[slot as usize].take() else {
            return;
        };
        let counter = match reason {
            EndReason::Client | EndReason::Stopped => Single::AllocationsEnded,
            _ => Single::AllocationsExpired,
        };
        self.counters.add(Counter::single(counter), 1);
        self.quality.end(slot);
        self.tell_ended(now, &allocation, self.traffic[slot as usize], reason);
        self.clients.remove(&allocation.client);
        for at in &allocation.routes {
            self.routes.remove(*at);
        }
        for peer in &allocation.permitted {
            self.permissions.remove(&(slot, *peer));
        }
        for relay in allocation.relays.iter().flatten() {
            self.release(*relay);
        }
        self.free.push(slot);
    }

    /// Closes a relayed address and gives its port back.
    pub(crate) fn release(&mut self, relay: Relay) {
        self.relays.remove(&(relay.address, relay.port));
        self.set_role(relay.socket, Role::None);
        self.shared.live.set(relay.address, relay.port, false);
        self.outputs.push_back(Output::Close(relay.socket));
        self.give_back(LentPort { relay_address: relay.address, port: relay.port }, relay.lent_by);
    }

    pub(crate) fn end_permission(&mut self, now: Now, slot: u32, peer: Pii<IpAddr>) {
        if let Some(permission) = self.permissions.remove(&(slot, peer)) {
            self.quality.end_flow(slot, &permission.flow);
            let allocation = self.at_mut(slot);
            allocation.permitted.retain(|other| *other != peer);
            allocation.claim.end_permission();
            self.update_routes(slot);
            self.tell_streams(now);
        }
    }

    fn end_channel(&mut self, now: Now, slot: u32, at: u32) {
        self.quality.end_flow(slot, &self.routes.record(at).flow);
        self.routes.remove(at);
        let allocation = self.at_mut(slot);
        allocation.routes.retain(|other| *other != at);
        allocation.claim.end_channel();
        self.tell_streams(now);
    }

    /// Ends everything, what is only asked for as well.
    fn stop(&mut self, now: Now) {
        let all: Vec<_> = self.allocations().collect();
        all.into_iter().for_each(|id| self.end(now, id, EndReason::Stopped));
        let asked: Vec<_> = self.asked.drain().map(|(_, asked)| asked).collect();
        self.reviews = Reviews::default();
        for asked in asked {
            if let Asked::Request(request, ..) = asked {
                self.refuse(now, &request, Code::InsufficientCapacity);
            }
        }
        self.stop_openings(now);
    }

    fn worker_message(&mut self, now: Now, from: WorkerId, message: WorkerMessage) {
        match message {
            WorkerMessage::TakeReservation { token, request } => {
                let port = self.reservations.remove(&token);
                self.outputs.push_back(Output::Tell(from, WorkerMessage::ReservationTaken { request, port }));
            }
            WorkerMessage::ReservationTaken { request, port } => self.reservation_taken(now, from, request, port),
            WorkerMessage::ReturnPort(port) => self.ports.give_back(port.relay_address, port.port),
            _ => {}
        }
    }

    /// Reserves a port that the pool has marked for it; the token, or `None` when too many wait.
    pub(crate) fn reserve(&mut self, now: Now, port: LentPort) -> Option<ReservationToken> {
        if self.reservations.len() >= RESERVATIONS_MAX {
            self.ports.give_back(port.relay_address, port.port);
            return None;
        }
        let mut token = [0; 8];
        self.rng.fill_bytes(&mut token);
        token[0] = self.options.worker.0;
        let token = ReservationToken(token);
        self.reservations.insert(token, port);
        self.wheel.add(now.mono.after(sluice_base::limits::RESERVATION_LIFETIME), Timer::Reservation(token));
        Some(token)
    }

    fn end_reservation(&mut self, token: ReservationToken) {
        if let Some(port) = self.reservations.remove(&token) {
            self.ports.give_back(port.relay_address, port.port);
        }
    }

    pub(crate) fn give_back(&mut self, port: LentPort, lent_by: Option<WorkerId>) {
        match lent_by {
            Some(worker) => self.outputs.push_back(Output::Tell(worker, WorkerMessage::ReturnPort(port))),
            None => self.ports.give_back(port.relay_address, port.port),
        }
    }

    /// The allocation of a five-tuple, unless it has run out by now.
    pub(crate) fn allocation_of(&mut self, now: Now, client: Client) -> Option<u32> {
        let slot = *self.clients.get(&client)?;
        let allocation = self.at(slot);
        let (id, reason) = (allocation.id, allocation.lapse());
        if now.mono >= allocation.live_until() {
            self.end(now, id, reason);
            return None;
        }
        Some(slot)
    }

    /// Puts a new allocation into the tables.
    pub(crate) fn add_allocation(&mut self, now: Mono, make: impl FnOnce(AllocationId) -> Allocation) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.allocations.push(None);
            self.traffic.push(Traffic::default());
            (self.allocations.len() - 1) as u32
        });
        self.allocations_made = self.allocations_made.wrapping_add(1);
        let allocation = make(AllocationId(u64::from(self.allocations_made) << 32 | u64::from(slot)));
        self.clients.insert(allocation.client, slot);
        for relay in allocation.relays.iter().flatten() {
            self.relays.insert((relay.address, relay.port), relay.socket);
            self.shared.live.set(relay.address, relay.port, true);
            self.set_role(relay.socket, Role::Relay { generation: relay.socket.generation, allocation: slot });
        }
        self.traffic[slot as usize] = Traffic::default();
        self.allocations[slot as usize] = Some(Box::new(allocation));
        let allocation = self.at(slot);
        self.quality.begin(slot, allocation.session, allocation.identity.tenant);
        self.watch_allocation(now, slot);
        self.counters.add(Counter::single(Single::AllocationsCreated), 1);
        slot
    }

    pub(crate) fn slot_of(&self, id: AllocationId) -> Option<u32> {
        let slot = id_slot(id);
        let allocation = self.allocations.get(slot as usize)?.as_ref()?;
        (allocation.id == id).then_some(slot)
    }

    /// The allocation in a slot that is known to be taken.
    #[inline]
    pub(crate) fn at(&self, slot: u32) -> &Allocation {
        self.allocations[slot as usize].as_deref().expect("a slot in the tables holds an allocation")
    }

    pub(crate) fn at_mut(&mut self, slot: u32) -> &mut Allocation {
        self.allocations[slot as usize].as_deref_mut().expect("a slot in the tables holds an allocation")
    }

    pub(crate) fn set_role(&mut self, socket: SocketId, role: Role) {
        let at = socket.index as usize;
        if at >= self.roles.len() {
            self.roles.resize(at + 1, Role::None);
        }
        self.roles[at] = role;
    }

    /// Answers an authenticated request, and remembers the answer.
    pub(crate) fn answer(&mut self, now: Now, request: &Request, code: Code, fill: impl FnOnce(&mut Builder<'_>)) {
        let class = if code == Code::Ok { Class::Success } else { Class::Error };
        let reply = Reply::build(class, request.method, request.transaction, |builder| {
            if code != Code::Ok {
                builder.error(code.number(), reply::reason(code));
            }
            fill(builder);
            if let Some(software) = &self.options.software {
                builder.bytes(attribute::SOFTWARE, software.as_bytes());
            }
            reply::seal(builder, Some(&request.identity.signer), request.fingerprint);
        });
        self.count(request.method, code);
        self.close_request(request);
        if let Some(reply) = reply {
            self.answers.remember(now.mono, request.client, request.transaction, reply);
        }
        let _ = self.transmit(ReturnPath { socket: request.socket, to: request.client.address }, reply);
    }

    pub(crate) fn refuse(&mut self, now: Now, request: &Request, code: Code) {
        self.tell_denied(now, request, code);
        let alternate = self.draining.and_then(|alternates| alternates.of(request.client.address.family()));
        self.answer(now, request, code, |builder| {
            if let (Code::TryAlternate, Some(address)) = (code, alternate) {
                builder.alternate_server(address);
            }
        });
    }

    fn transmit(&mut self, path: ReturnPath, reply: Option<Reply>) -> Disposition {
        match reply {
            Some(reply) => {
                self.outputs.push_back(Output::Send { socket: path.socket, to: path.to, reply });
                Disposition::Done
            }
            None => self.dropped(DropReason::TooLong),
        }
    }

    fn count(&mut self, method: Method, code: Code) {
        self.counters.add(Counter::request(method_label(method), code), 1);
    }
}

/// What a request leads to.
enum Step {
    /// A question about a stay that may begin.
    Allocate(Wishes),
    /// A question first.
    Ask(Operation),
    /// The client ends its allocation, or one family of it.
    End(u32, Option<Family>),
}

impl Granted {
    fn is_due(&self, now: Mono) -> bool {
        !self.reviewing && now >= self.review_at
    }
}

impl ServerOptions {
    /// The lifetime that is given for the one asked for (RFC 8656, 7.2 and 8.2).
    pub(crate) fn lifetime(&self, asked_seconds: Option<u32>) -> Duration {
        let asked = asked_seconds.map_or(self.allocation_lifetime, |s| Duration::from_secs(u64::from(s)));
        asked.clamp(self.allocation_lifetime.min(self.allocation_lifetime_max), self.allocation_lifetime_max)
    }
}

/// The label of a method in counters and events.
pub(crate) const fn method_label(method: Method) -> MethodLabel {
    match method {
        Method::BINDING => MethodLabel::Binding,
        Method::ALLOCATE => MethodLabel::Allocate,
        Method::REFRESH => MethodLabel::Refresh,
        Method::CREATE_PERMISSION => MethodLabel::CreatePermission,
        Method::CHANNEL_BIND => MethodLabel::ChannelBind,
        _ => MethodLabel::Other,
    }
}

const fn id_slot(id: AllocationId) -> u32 {
    id.0 as u32
}

const fn denial_code(denial: Denial) -> Code {
    match denial {
        Denial::Quota => Code::QuotaReached,
        Denial::TryLater | Denial::Unanswered => Code::InsufficientCapacity,
        _ => Code::Forbidden,
    }
}
