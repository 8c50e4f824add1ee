//! The flat table of the packet path: one fixed-size record per bound channel, found by what a
//! packet carries in either direction, and everything that its relaying needs in it.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use sluice_base::{AllocationId, Mono, SocketId, TransportAddress};

use crate::quality::Flow;

/// A bound channel (RFC 8656, 12).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    /// Until when a packet may pass: the least of channel, permission, allocation and grants.
    pub(crate) live_until: Mono,
    /// Where the client comes in.
    pub(crate) client_socket: SocketId,
    pub(crate) client: TransportAddress,
    /// The relayed transport address.
    pub(crate) relay_socket: SocketId,
    /// The peer as the client knows it.
    pub(crate) peer: TransportAddress,
    pub(crate) number: u16,
    /// The index of the relay address where the peer is one of our own.
    pub(crate) own: Option<u8>,
    /// Whether rate limits have to be asked.
    pub(crate) limited: bool,
    pub(crate) allocation: AllocationId,
    /// Until when the binding itself holds.
    pub(crate) bound_until: Mono,
    /// Its media.
    pub(crate) flow: Flow,
}

/// The records, by client and number and by relayed address and peer.
pub(crate) struct Routes {
    records: Vec<Route>,
    free: Vec<u32>,
    by_channel: HashTable<u32>,
    by_peer: HashTable<u32>,
    hasher: FixedState,
}

impl Routes {
    pub(crate) fn new(seed: u64) -> Self {
        Routes {
            records: Vec::new(),
            free: Vec::new(),
            by_channel: HashTable::new(),
            by_peer: HashTable::new(),
            hasher: FixedState::with_seed(seed),
        }
    }

    /// The channel `number` of a client.
    #[inline]
    pub(crate) fn by_channel(&self, socket: SocketId, client: TransportAddress, number: u16) -> Option<u32> {
        let hash = hash(&self.hasher, (socket.index, client, number));
        let found = self.by_channel.find(hash, |at| {
            let route = &self.records[*at as usize];
            route.number == number && route.client == client && route.client_socket == socket
        });
        found.copied()
    }

    /// The channel that a peer has on a relayed address.
    #[inline]
    pub(crate) fn by_peer(&self, socket: SocketId, peer: TransportAddress) -> Option<u32> {
        let hash = hash(&self.hasher, (socket.index, peer));
        let found = self.by_peer.find(hash, |at| {
            let route = &self.records[*at as usize];
            route.peer == peer && route.relay_socket == socket
        });
        found.copied()
    }

    #[inline]
    pub(crate) fn record(&self, at: u32) -> &Route {
        &self.records[at as usize]
    }

    pub(crate) fn record_mut(&mut self, at: u32) -> &mut Route {
        &mut self.records[at as usize]
    }

    /// Adds a record; neither of its keys is in the table.
    pub(crate) fn add(&mut self, route: Route) -> u32 {
        let at = match self.free.pop() {
            Some(at) => {
                self.records[at as usize] = route;
                at
            }
            None => {
                self.records.push(route);
                (self.records.len() - 1) as u32
            }
        };
        let (records, hasher) = (&self.records, &self.hasher);
        self.by_channel
            .insert_unique(channel_hash(hasher, &route), at, |at| channel_hash(hasher, &records[*at as usize]));
        self.by_peer.insert_unique(peer_hash(hasher, &route), at, |at| peer_hash(hasher, &records[*at as usize]));
        at
    }

    /// Takes a record out.
    pub(crate) fn remove(&mut self, at: u32) {
        let route = self.records[at as usize];
        if let Ok(entry) = self.by_channel.find_entry(channel_hash(&self.hasher, &route), |other| *other == at) {
            entry.remove();
        }
        if let Ok(entry) = self.by_peer.find_entry(peer_hash(&self.hasher, &route), |other| *other == at) {
            entry.remove();
        }
        self.records[at as usize].live_until = Mono::default();
        self.free.push(at);
    }

    pub(crate) fn len(&self) -> usize {
        self.by_channel.len()
    }
}

fn channel_hash(hasher: &FixedState, route: &Route) -> u64 {
    hash(hasher, (route.client_socket.index, route.client, route.number))
}

fn peer_hash(hasher: &FixedState, route: &Route) -> u64 {
    hash(hasher, (route.relay_socket.index, route.peer))
}

#[inline]
fn hash(hasher: &FixedState, key: impl Hash) -> u64 {
    hasher.hash_one(key)
}
