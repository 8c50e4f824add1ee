//! An allocation and what belongs to it (RFC 8656, 2.2 and 7).

use std::net::IpAddr;
use std::sync::Arc;

use sluice_base::event::EndReason;
use sluice_base::message::{AllocationView, Traffic};
use sluice_base::policy::Grant;
use sluice_base::{
    AllocationId, Family, ListenerId, Mono, Pii, QuestionId, SessionId, SocketId, TransportAddress, WorkerId,
};

use crate::auth::Identity;
use crate::quality::Flow;
use crate::quota::Claim;

/// The client's side of the five-tuple (RFC 8656, 3.1); the transport is UDP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Client {
    pub(crate) listener: ListenerId,
    pub(crate) address: TransportAddress,
}

/// An allocation.
pub(crate) struct Allocation {
    pub(crate) id: AllocationId,
    pub(crate) session: SessionId,
    pub(crate) client: Client,
    pub(crate) client_socket: SocketId,
    pub(crate) identity: Arc<Identity>,
    pub(crate) claim: Claim,
    /// The relayed transport addresses: IPv4, IPv6.
    pub(crate) relays: [Option<Relay>; 2],
    /// When it was made.
    pub(crate) since: Mono,
    /// Until when its lifetime lasts.
    pub(crate) until: Mono,
    pub(crate) grant: Granted,
    /// Permissions at once that a policy has granted.
    pub(crate) permissions_granted: Option<u32>,
    /// When its next timer fires; later ones that are left over say nothing.
    pub(crate) due_at: Mono,
    /// Peers with a permission.
    pub(crate) permitted: Vec<Pii<IpAddr>>,
    /// Places of its channels in the table of routes.
    pub(crate) routes: Vec<u32>,
    /// Permissions that it ever had.
    pub(crate) permissions_made: u32,
    /// Channels that it ever had.
    pub(crate) channels_made: u32,
}

/// One relayed transport address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Relay {
    pub(crate) socket: SocketId,
    /// Index of the relay address in the configuration.
    pub(crate) address: u8,
    pub(crate) port: u16,
    /// The address that clients and peers are told.
    pub(crate) announced: IpAddr,
    /// Whose share the port belongs to, if it came with another worker's reservation.
    pub(crate) lent_by: Option<WorkerId>,
}

/// How long a policy's yes holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Granted {
    pub(crate) until: Mono,
    /// When to ask again.
    pub(crate) review_at: Mono,
    /// It is being asked for again, since it is about to run out.
    pub(crate) reviewing: bool,
    /// The last question about it that was put because what decides had changed.
    pub(crate) changed: QuestionId,
}

/// A permission (RFC 8656, 9).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permission {
    pub(crate) until: Mono,
    pub(crate) grant: Granted,
    /// When its next timer fires; later ones that are left over say nothing.
    pub(crate) due_at: Mono,
    /// The index of the relay address where the peer is one of our own.
    pub(crate) own: Option<u8>,
    /// The media of what has no channel.
    pub(crate) flow: Flow,
}

impl Allocation {
    /// A policy has said yes again; `granted` is what that means from now on.
    pub(crate) fn take_over(&mut self, grant: &Grant, granted: Granted) {
        self.grant.take_over(granted);
        if let Some(bits) = grant.bits_per_second {
            self.claim.limit_bits(bits);
        }
        if grant.permissions_max.is_some() {
            self.permissions_granted = grant.permissions_max;
        }
    }

    /// Until when anything may pass.
    pub(crate) fn live_until(&self) -> Mono {
        self.until.min(self.grant.until)
    }

    /// Why nothing may pass any more, once that is so.
    pub(crate) fn lapse(&self) -> EndReason {
        if self.grant.until < self.until { EndReason::Policy } else { EndReason::Expired }
    }

    /// When something is to be done about it.
    pub(crate) fn next(&self) -> Mono {
        self.live_until().min(self.grant.review_at())
    }

    /// What an operator may know of it.
    pub(crate) fn view(&self, now: Mono, traffic: Traffic) -> AllocationView {
        let family = |relay: &Relay| Family::of(relay.announced);
        AllocationView {
            id: self.id,
            user: self.identity.user.clone(),
            client: self.client.address,
            tenant: self.identity.tenant,
            age: now.since(self.since),
            expires_in: self.live_until().since(now),
            permissions: self.permitted.len() as u32,
            channels: self.routes.len() as u32,
            families: self.relays.iter().flatten().map(family).collect(),
            traffic,
        }
    }

    /// The relayed address of a family.
    pub(crate) fn relay(&self, family: Family) -> Option<&Relay> {
        self.relays[family_index(family)].as_ref()
    }
}

impl Granted {
    /// One that nothing has changed about yet.
    pub(crate) fn of(until: Mono, review_at: Mono) -> Self {
        Granted { until, review_at, reviewing: false, changed: QuestionId(0) }
    }

    /// Another one in its place. What was asked since the last change is still open.
    pub(crate) fn take_over(&mut self, granted: Granted) {
        *self = Granted { changed: self.changed, ..granted };
    }

    /// When to ask again; never while that is under way.
    pub(crate) fn review_at(&self) -> Mono {
        if self.reviewing { Mono::NEVER } else { self.review_at }
    }
}

impl Permission {
    /// Is made anew, with another grant.
    pub(crate) fn renew(&mut self, until: Mono, granted: Granted) {
        self.until = until;
        self.grant.take_over(granted);
    }

    /// When something is to be done about it.
    pub(crate) fn next(&self) -> Mono {
        self.live_until().min(self.grant.review_at())
    }

    /// Until when a packet may pass.
    pub(crate) fn live_until(&self) -> Mono {
        self.until.min(self.grant.until)
    }
}

/// Place of a family in `relays`.
pub(crate) const fn family_index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}
