//! What planes and workers say to each other, over bounded queues and nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::address::Family;
use crate::id::{AllocationId, TenantId, WorkerId};
use crate::pii::{Pii, TransportAddress};

/// A token of RFC 8656, 18.6: 8 bytes, of which the first is the number of the worker that holds
/// the reserved port, since the client's second five-tuple may belong to another worker.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ReservationToken(pub [u8; 8]);

impl ReservationToken {
    /// The worker that holds the port.
    pub const fn owner(self) -> WorkerId {
        WorkerId(self.0[0])
    }
}

/// From one worker to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum WorkerMessage {
    /// Give me the port that this token reserves.
    TakeReservation {
        /// The token.
        token: ReservationToken,
        /// Echoed in the answer.
        request: u64,
    },
    /// The port is yours, unbound, until you return it; or there is none.
    ReservationTaken {
        /// Of the question.
        request: u64,
        /// The relay address and the port.
        port: Option<LentPort>,
    },
    /// A lent port comes back.
    ReturnPort(LentPort),
}

/// A port of one worker's share of the range, in the hands of another worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LentPort {
    /// Index of the relay address in the configuration.
    pub relay_address: u8,
    /// The port.
    pub port: u16,
}

/// From the control plane to a worker: changes the state of flows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Order {
    /// End an allocation now; its next packet is dropped.
    End(AllocationId),
    /// What decides for this tenant has changed: all that lives is asked for again, and what is not allowed again ends.
    Review(TenantId),
    /// Drain: no new allocations from now on; those that there are go on.
    Drain(Alternates),
    /// Stop: free every allocation, close every socket, leave the loop.
    Stop,
}

/// Where whoever comes while the relay drains is sent, by family. Other relays of the operator's: not personal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Alternates {
    /// Who came over IPv4.
    pub v4: Option<SocketAddr>,
    /// Who came over IPv6.
    pub v6: Option<SocketAddr>,
}

impl Alternates {
    /// That of a family: the address must be of the family of the request's source (RFC 8489, 14.15).
    pub const fn of(&self, family: Family) -> Option<SocketAddr> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// All that can be put into a worker's queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Envelope {
    /// From a worker.
    Worker(WorkerId, WorkerMessage),
    /// From the control plane.
    Order(Order),
}

/// What one allocation has relayed since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Packets of the client.
    pub packets_from_client: u64,
    /// Their payload.
    pub bytes_from_client: u64,
    /// Packets to the client.
    pub packets_to_client: u64,
    /// Their payload.
    pub bytes_to_client: u64,
}

/// One live allocation for an operator's list. Whoever shows it makes pseudonyms of what is personal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AllocationView {
    /// Which one of its worker's.
    pub id: AllocationId,
    /// The user name without expiry and tenant.
    pub user: Pii<Arc<[u8]>>,
    /// The client.
    pub client: TransportAddress,
    /// Whose user it is.
    pub tenant: TenantId,
    /// How long it has lived.
    pub age: Duration,
    /// How long it lives unless it is refreshed.
    pub expires_in: Duration,
    /// Its permissions.
    pub permissions: u32,
    /// Its channels.
    pub channels: u32,
    /// Families of its relayed addresses.
    pub families: Vec<Family>,
    /// What it has relayed.
    pub traffic: Traffic,
}

/// A part of one worker's allocations.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AllocationPage {
    /// They.
    pub rows: Vec<AllocationView>,
    /// Where the next part begins, if there is one.
    pub next: Option<u32>,
}
