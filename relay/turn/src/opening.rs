//! From the verdict on an Allocate to its answer: quota, ports, sockets (RFC 8656, 7.2).

use std::net::SocketAddr;
use std::time::Duration;

use rand_core::RngCore;
use sluice_base::io::{OpenError, OpenSpec, Opened, SocketRole};
use sluice_base::limits::{PORT_ATTEMPTS_MAX, VERDICT_DEADLINE};
use sluice_base::message::{LentPort, ReservationToken, WorkerMessage};
use sluice_base::policy::Grant;
use sluice_base::stats::Code;
use sluice_base::{Family, Mono, Now, SessionId, WorkerId};
use sluice_wire::stun::{Message, attribute, family_code};

use crate::allocation::{Allocation, Granted, Relay, family_index};
use crate::options::ServerOptions;
use crate::ports::Wish;
use crate::quota::Claim;
use crate::reply;
use crate::server::{OpenTicket, Output, Request, Server, Timer};

/// UDP in REQUESTED-TRANSPORT (RFC 8656, 18.7): the protocol number.
const UDP: u8 = 17;

/// What an Allocate request wishes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wishes {
    pub(crate) lifetime: Duration,
    family: Family,
    /// IPv6 beside IPv4, if it can be had.
    additional: bool,
    port: Wish,
    token: Option<ReservationToken>,
}

/// An allocation in the making.
pub(crate) struct Opening {
    request: Request,
    session: SessionId,
    wishes: Wishes,
    grant: Grant,
    /// Its time counts from the verdict.
    granted: Granted,
    claim: Claim,
    relays: [Option<Relay>; 2],
    /// The port being opened, and whose it is.
    current: Option<Current>,
    attempts: u32,
    /// The port reserved beside an even one.
    next_port: Option<LentPort>,
    /// The family that could not be had, and why.
    address_error: Option<(Family, Code)>,
}

#[derive(Clone, Copy)]
struct Current {
    family: Family,
    port: LentPort,
    lent_by: Option<WorkerId>,
}

impl Wishes {
    /// Reads them, with the errors in the order of RFC 8656, 7.2.
    pub(crate) fn of(message: &Message<'_>, options: &ServerOptions) -> Result<Self, Code> {
        let attributes = &message.attributes;
        if attributes.malformed.is_some() {
            return Err(Code::BadRequest);
        }
        match attributes.requested_transport {
            None => return Err(Code::BadRequest),
            Some(UDP) => {}
            Some(_) => return Err(Code::UnsupportedTransport),
        }
        let (family, additional) = (attributes.requested_family, attributes.additional_family);
        let token = attributes.reservation_token.map(ReservationToken);
        if token.is_some() && (attributes.even_port.is_some() || family.is_some() || additional.is_some()) {
            return Err(Code::BadRequest);
        }
        let reserves = attributes.even_port == Some(true);
        if additional.is_some() && (family.is_some() || reserves || additional != Some(family_code(Family::V6))) {
            return Err(Code::BadRequest);
        }
        let family = match family {
            None | Some(1) => Family::V4,
            Some(2) => Family::V6,
            Some(_) => return Err(Code::AddressFamily),
        };
        let port = match attributes.even_port {
            None => Wish::Any,
            Some(false) => Wish::Even,
            Some(true) => Wish::EvenWithNext,
        };
        let lifetime = options.lifetime(attributes.lifetime);
        Ok(Wishes { lifetime, family, additional: additional.is_some(), port, token })
    }
}

impl<R: RngCore> Server<R> {
    pub(crate) fn begin_opening(
        &mut self,
        now: Now,
        mut request: Request,
        session: SessionId,
        wishes: Wishes,
        grant: Grant,
    ) {
        let own = self.options.own_rates();
        let identity = &request.identity;
        let Some(mut claim) = self.shared.ledger.claim(identity.tenant, identity.user.clone(), own) else {
            return self.refuse(now, &request, Code::QuotaReached);
        };
        // From here on the claim stands for it.
        request.wanted = None;
        if let Some(bits) = grant.bits_per_second {
            claim.limit_bits(bits);
        }
        self.tickets += 1;
        let ticket = OpenTicket(self.tickets);
        let opening = Opening {
            request,
            session,
            wishes,
            grant,
            granted: self.granted_by(now.mono, &grant),
            claim,
            relays: [None; 2],
            current: None,
            attempts: 0,
            next_port: None,
            address_error: None,
        };
        match wishes.token {
            None => self.open_fresh(now, ticket, opening, wishes.family),
            Some(token) if token.owner() == self.options.worker => {
                match self.reservations.remove(&token) {
                    Some(port) => self.open_port(ticket, opening, port, None),
                    None => self.refuse(now, &opening.request, Code::InsufficientCapacity),
                };
            }
            Some(token) if token.owner().0 < self.options.workers => {
                self.wheel.add(now.mono.after(VERDICT_DEADLINE), Timer::Opening(ticket));
                self.openings.insert(ticket, opening);
                let ask = WorkerMessage::TakeReservation { token, request: ticket.0 };
                self.outputs.push_back(Output::Tell(token.owner(), ask));
            }
            Some(_) => self.refuse(now, &opening.request, Code::InsufficientCapacity),
        }
    }

    /// Another worker has answered about a reservation of its.
    pub(crate) fn reservation_taken(&mut self, now: Now, from: WorkerId, request: u64, port: Option<LentPort>) {
        let ticket = OpenTicket(request);
        match (self.openings.remove(&ticket), port) {
            (Some(opening), Some(port)) => self.open_port(ticket, opening, port, Some(from)),
            (Some(opening), None) => self.refuse(now, &opening.request, Code::InsufficientCapacity),
            (None, Some(port)) => self.give_back(port, Some(from)),
            (None, None) => {}
        }
    }

    /// A worker that holds a reservation did not answer in time. (An opening that waits for its
    /// socket has no such deadline: the driver always answers.)
    pub(crate) fn opening_due(&mut self, now: Now, ticket: OpenTicket) {
        let waits = self.openings.get(&ticket).is_some_and(|opening| opening.current.is_none());
        if waits && let Some(opening) = self.openings.remove(&ticket) {
            self.refuse(now, &opening.request, Code::InsufficientCapacity);
        }
    }

    /// The relay stops: whatever is being made is refused.
    pub(crate) fn stop_openings(&mut self, now: Now) {
        let openings: Vec<_> = self.openings.drain().map(|(_, opening)| opening).collect();
        for opening in openings {
            opening.relays.into_iter().flatten().for_each(|relay| self.release(relay));
            opening.next_port.into_iter().for_each(|port| self.ports.give_back(port.relay_address, port.port));
            if let Some(Current { port, lent_by, .. }) = opening.current {
                self.give_back(port, lent_by);
            }
            self.refuse(now, &opening.request, Code::InsufficientCapacity);
        }
    }

    /// Opens a port of this worker's share.
    fn open_fresh(&mut self, now: Now, ticket: OpenTicket, mut opening: Opening, family: Family) {
        let Some(relay_address) = self.relay_address(family, &opening.request) else {
            return self.opening_failed(now, ticket, opening, family, Code::AddressFamily);
        };
        // The neighbour is reserved once, beside the first port.
        let wish = match opening.wishes.port {
            Wish::EvenWithNext if opening.next_port.is_some() => Wish::Even,
            wish => wish,
        };
        let Some(port) = self.ports.take(relay_address, wish, &mut self.rng) else {
            return self.opening_failed(now, ticket, opening, family, Code::InsufficientCapacity);
        };
        if wish == Wish::EvenWithNext {
            opening.next_port = Some(LentPort { relay_address, port: port + 1 });
        }
        self.open_port(ticket, opening, LentPort { relay_address, port }, None);
    }

    fn open_port(&mut self, ticket: OpenTicket, mut opening: Opening, port: LentPort, lent_by: Option<WorkerId>) {
        let address = self.options.relays[usize::from(port.relay_address)].address;
        opening.current = Some(Current { family: Family::of(address), port, lent_by });
        self.openings.insert(ticket, opening);
        let spec = OpenSpec {
            local: SocketAddr::new(address, port.port),
            role: SocketRole::Relay,
            receive_buffer_bytes: self.options.receive_buffer_bytes,
            send_buffer_bytes: self.options.send_buffer_bytes,
        };
        self.outputs.push_back(Output::Open(ticket, spec));
    }

    pub(crate) fn continue_opening(
        &mut self,
        now: Now,
        ticket: OpenTicket,
        mut opening: Opening,
        result: Result<Opened, OpenError>,
    ) {
        let Some(Current { family, port, lent_by }) = opening.current.take() else {
            self.outputs.extend(result.ok().map(|opened| Output::Close(opened.socket)));
            return;
        };
        match result {
            Ok(opened) => {
                let relay = &self.options.relays[usize::from(port.relay_address)];
                opening.relays[family_index(family)] = Some(Relay {
                    socket: opened.socket,
                    address: port.relay_address,
                    port: port.port,
                    announced: relay.announced(),
                    lent_by,
                });
                if opening.wishes.additional && family == Family::V4 {
                    opening.attempts = 0;
                    self.open_fresh(now, ticket, opening, Family::V6);
                } else {
                    self.finish_opening(now, opening);
                }
            }
            Err(error) => {
                opening.attempts += 1;
                // An even port without its neighbour's reservation is no use.
                if let Some(next) = opening.next_port.take() {
                    self.ports.give_back(next.relay_address, next.port);
                }
                let again =
                    error == OpenError::InUse && opening.wishes.token.is_none() && opening.attempts < PORT_ATTEMPTS_MAX;
                if again {
                    // The next port is drawn before the busy one goes back, so that it is another one.
                    self.open_fresh(now, ticket, opening, family);
                } else {
                    self.opening_failed(now, ticket, opening, family, Code::InsufficientCapacity);
                }
                self.give_back(port, lent_by);
            }
        }
    }

    /// A family cannot be had. Of two the other one may still be, and the answer says what is missing
    /// (RFC 8656, 7.2).
    fn opening_failed(&mut self, now: Now, ticket: OpenTicket, mut opening: Opening, family: Family, code: Code) {
        match opening.address_error.replace((family, code)) {
            None if opening.wishes.additional && family == Family::V4 => {
                opening.attempts = 0;
                self.open_fresh(now, ticket, opening, Family::V6);
            }
            None if opening.wishes.additional => self.finish_opening(now, opening),
            // Neither: it is the family only where both are unknown here.
            Some((_, first)) if first != code => self.refuse(now, &opening.request, Code::InsufficientCapacity),
            _ => self.refuse(now, &opening.request, code),
        }
    }

    fn finish_opening(&mut self, now: Now, opening: Opening) {
        let Opening { request, session, wishes, grant, granted, mut claim, relays, next_port, address_error, .. } =
            opening;
        if self.allocation_of(now, request.client).is_some() {
            relays.into_iter().flatten().for_each(|relay| self.release(relay));
            next_port.into_iter().for_each(|port| self.ports.give_back(port.relay_address, port.port));
            return self.refuse(now, &request, Code::AllocationMismatch);
        }
        if self.is_banned(now, request.client.address.ip()) || self.is_banned_user(now, &request.identity) {
            // Meanwhile.
            relays.into_iter().flatten().for_each(|relay| self.release(relay));
            next_port.into_iter().for_each(|port| self.ports.give_back(port.relay_address, port.port));
            return self.refuse(now, &request, Code::Forbidden);
        }
        let lifetime = granted_lifetime(&grant, wishes.lifetime);
        let token = next_port.map(|port| self.reserve(now, port));
        if token == Some(None) {
            // A reservation was asked for: without one it is no success (RFC 8656, 7.2).
            relays.into_iter().flatten().for_each(|relay| self.release(relay));
            return self.refuse(now, &request, Code::InsufficientCapacity);
        }
        // Other rates may have come while it waited.
        claim.configure(self.options.own_rates());
        let slot = self.add_allocation(now.mono, |id| Allocation {
            id,
            session,
            client: request.client,
            client_socket: request.socket,
            identity: request.identity.clone(),
            claim,
            relays,
            since: now.mono,
            until: now.mono.after(lifetime),
            grant: granted,
            due_at: Mono::NEVER,
            permitted: Vec::new(),
            routes: Vec::new(),
            permissions_granted: grant.permissions_max,
            permissions_made: 0,
            channels_made: 0,
        });
        self.tell_began(now, slot, lifetime);
        self.answer(now, &request, Code::Ok, |builder| {
            for relay in relays.iter().flatten() {
                reply::relayed(builder, relay.announced, relay.port);
            }
            builder.u32(attribute::LIFETIME, lifetime.as_secs() as u32);
            if let Some(token) = token.flatten() {
                builder.bytes(attribute::RESERVATION_TOKEN, &token.0);
            }
            reply::mapped(builder, request.client.address);
            if let Some((family, code)) = address_error {
                builder.address_error(family_code(family), code.number(), reply::reason(code));
            }
        });
    }

    /// The relay address for a family: the one that the client came to, else the first.
    fn relay_address(&self, family: Family, request: &Request) -> Option<u8> {
        let listener = self.options.listeners[usize::from(request.client.listener.0)].address.ip();
        let of_family = |ip: &std::net::IpAddr| Family::of(*ip) == family;
        let relays = &self.options.relays;
        let at = relays
            .iter()
            .position(|r| r.address == listener && of_family(&r.address))
            .or_else(|| relays.iter().position(|r| of_family(&r.address)))?;
        u8::try_from(at).ok()
    }
}

/// A lifetime within a grant, in the whole seconds of which LIFETIME can tell the client.
pub(crate) fn granted_lifetime(grant: &Grant, wish: Duration) -> Duration {
    Duration::from_secs(grant.lifetime_max.map_or(wish, |max| wish.min(max)).as_secs())
}
