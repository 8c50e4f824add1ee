//! The packet path. Nothing here allocates, locks, logs or copies a payload.

use rand_core::RngCore;
use sluice_base::io::{SendOptions, Slot};
use sluice_base::stats::{Counter, Direction, DropReason, Leg, Single};
use sluice_base::{Now, Pii, SocketId, TransportAddress};
use sluice_wire::channel_data;
use sluice_wire::stun::{TransactionId, data_indication_header, data_indication_header_len};

use crate::allocation::Client;
use crate::server::{Disposition, Role, Server};

impl<R: RngCore> Server<R> {
    /// ChannelData of a client (RFC 8656, 12.6).
    #[inline]
    pub(crate) fn on_channel_data<S: Slot>(
        &mut self,
        now: Now,
        socket: SocketId,
        client: Client,
        slot: &mut S,
    ) -> Disposition {
        let Ok((number, len)) = channel_data::parse(slot.payload()) else {
            return self.dropped(DropReason::BadChannelData);
        };
        let Some(at) = self.routes.by_channel(socket, client.address, number) else {
            let known = self.clients.contains_key(&client);
            return self.dropped(if known { DropReason::UnboundChannel } else { DropReason::NoAllocation });
        };
        let route = *self.routes.record(at);
        if now.mono >= route.live_until {
            return self.dropped(DropReason::Expired);
        }
        let allocation = route.allocation.0 as u32;
        slot.set_len(channel_data::HEADER_LEN + len);
        slot.trim_front(channel_data::HEADER_LEN);
        self.look(now, at, Leg::Client, allocation, slot.payload());
        if route.limited && !self.charge(now, allocation, len) {
            return self.dropped(DropReason::RateLimited);
        }
        if let Some(own) = route.own {
            return self.relay_to_own(now, allocation, own, route.peer, SendOptions::default(), slot);
        }
        self.relay_to_peer(allocation, route.relay_socket, route.peer, SendOptions::default(), len)
    }

    /// A Send indication, of which the slot holds only the data (RFC 8656, 11.2).
    pub(crate) fn on_send_indication<S: Slot>(
        &mut self,
        now: Now,
        client: Client,
        peer: TransportAddress,
        options: SendOptions,
        slot: &mut S,
    ) -> Disposition {
        let Some(allocation) = self.allocation_of(now, client) else {
            return self.dropped(DropReason::NoAllocation);
        };
        let Some(relay) = self.at(allocation).relay(peer.family()) else {
            return self.dropped(DropReason::PeerFamily);
        };
        let relay_socket = relay.socket;
        let own = match self.permissions.get_mut(&(allocation, peer.ip())) {
            Some(permission) if now.mono < permission.live_until() => {
                self.quality.observe(now.mono, &mut permission.flow, Leg::Client, allocation, slot.payload());
                permission.own
            }
            _ => return self.dropped(DropReason::NoPermission),
        };
        self.watch_streams(now);
        if !self.charge(now, allocation, slot.payload().len()) {
            return self.dropped(DropReason::RateLimited);
        }
        match own {
            Some(own) => self.relay_to_own(now, allocation, own, peer, options, slot),
            None => self.relay_to_peer(allocation, relay_socket, peer, options, slot.payload().len()),
        }
    }

    /// A packet for one of our own relayed addresses: inside this worker where it is this worker's.
    fn relay_to_own<S: Slot>(
        &mut self,
        now: Now,
        allocation: u32,
        own: u8,
        peer: TransportAddress,
        options: SendOptions,
        slot: &mut S,
    ) -> Disposition {
        if !self.guard.is_live(own, peer) || self.is_itself(allocation, own, peer) {
            return self.dropped(DropReason::PeerForbidden);
        }
        let Some(relay) = self.at(allocation).relay(peer.family()).copied() else {
            return self.dropped(DropReason::PeerFamily);
        };
        let len = slot.payload().len();
        let Some(target) = self.relays.get(&(own, peer.port())).copied() else {
            return self.relay_to_peer(allocation, relay.socket, self.guard.reachable(peer), options, len);
        };
        let Some(Role::Relay { allocation: target_allocation, .. }) = self.roles.get(target.index as usize) else {
            return self.dropped(DropReason::PeerForbidden);
        };
        let target_allocation = *target_allocation;
        let from = Pii::new((relay.announced, relay.port).into());
        let disposition = self.relay_to_client(now, target, from, target_allocation, slot);
        // What the other allocation does not let in has gone nowhere.
        if disposition != Disposition::Done {
            self.count_up(allocation, len);
            self.counters.add(Counter::single(Single::HairpinPackets), 1);
        }
        disposition
    }

    /// A packet that came to a relayed address through the kernel (RFC 8656, 11.3 and 12.7).
    #[inline]
    pub(crate) fn on_peer_packet<S: Slot>(
        &mut self,
        now: Now,
        socket: SocketId,
        from: TransportAddress,
        allocation: u32,
        slot: &mut S,
    ) -> Disposition {
        let from = self.guard.announced(from);
        self.relay_to_client(now, socket, from, allocation, slot)
    }

    #[inline]
    fn relay_to_client<S: Slot>(
        &mut self,
        now: Now,
        socket: SocketId,
        from: TransportAddress,
        allocation: u32,
        slot: &mut S,
    ) -> Disposition {
        let len = slot.payload().len();
        let Some(at) = self.routes.by_peer(socket, from) else {
            return self.data_indication(now, from, allocation, slot);
        };
        let route = *self.routes.record(at);
        if now.mono >= route.live_until {
            return self.data_indication(now, from, allocation, slot);
        }
        if route.own.is_some_and(|own| !self.guard.is_live(own, from)) {
            return self.dropped(DropReason::PeerForbidden);
        }
        self.look(now, at, Leg::Peer, allocation, slot.payload());
        if route.limited && !self.charge(now, allocation, len) {
            return self.dropped(DropReason::RateLimited);
        }
        let Ok(length) = u16::try_from(len) else {
            return self.dropped(DropReason::TooLong);
        };
        let Some(header) = slot.frame(channel_data::HEADER_LEN, 0).and_then(|front| front.first_chunk_mut()) else {
            return self.dropped(DropReason::TooLong);
        };
        channel_data::write_header(header, route.number, length);
        self.count_down(allocation, len);
        Disposition::Relay { socket: route.client_socket, to: route.client, options: SendOptions::default() }
    }

    /// Wraps a packet of a peer without a live channel (RFC 8656, 11.3).
    fn data_indication<S: Slot>(
        &mut self,
        now: Now,
        from: TransportAddress,
        allocation: u32,
        slot: &mut S,
    ) -> Disposition {
        let Some(of) = self.allocations[allocation as usize].as_deref() else {
            return self.dropped(DropReason::NoAllocation);
        };
        let (client, client_socket, live_until) = (of.client.address, of.client_socket, of.live_until());
        if now.mono >= live_until {
            return self.dropped(DropReason::Expired);
        }
        match self.permissions.get_mut(&(allocation, from.ip())) {
            Some(permission) if now.mono < permission.live_until() => {
                if permission.own.is_some_and(|own| !self.guard.is_live(own, from)) {
                    return self.dropped(DropReason::PeerForbidden);
                }
                self.quality.observe(now.mono, &mut permission.flow, Leg::Peer, allocation, slot.payload());
            }
            _ => return self.dropped(DropReason::NoPermission),
        }
        self.watch_streams(now);
        let len = slot.payload().len();
        if !self.charge(now, allocation, len) {
            return self.dropped(DropReason::RateLimited);
        }
        let mut transaction = [0; 12];
        self.rng.fill_bytes(&mut transaction);
        let header_len = data_indication_header_len(from.family());
        let Some(header) = slot.frame(header_len, sluice_wire::padding(len)) else {
            return self.dropped(DropReason::TooLong);
        };
        if data_indication_header(header, *from.expose(), len, TransactionId(transaction)).is_err() {
            return self.dropped(DropReason::TooLong);
        }
        self.count_down(allocation, len);
        Disposition::Relay { socket: client_socket, to: client, options: SendOptions::default() }
    }

    #[inline]
    fn relay_to_peer(
        &mut self,
        allocation: u32,
        socket: SocketId,
        to: TransportAddress,
        options: SendOptions,
        len: usize,
    ) -> Disposition {
        self.count_up(allocation, len);
        Disposition::Relay { socket, to, options }
    }

    /// Looks at a packet of a channel that may be media, as it came to the relay: before a rate refuses it.
    #[inline]
    fn look(&mut self, now: Now, route: u32, leg: Leg, allocation: u32, payload: &[u8]) {
        self.quality.observe(now.mono, &mut self.routes.record_mut(route).flow, leg, allocation, payload);
        self.watch_streams(now);
    }

    /// Takes a packet off the allocation's rate.
    fn charge(&mut self, now: Now, allocation: u32, len: usize) -> bool {
        match self.allocations[allocation as usize].as_deref_mut() {
            Some(allocation) => allocation.claim.packet(now.mono, len),
            None => false,
        }
    }

    /// Counts a packet from the client to a peer.
    #[inline]
    fn count_up(&mut self, allocation: u32, len: usize) {
        self.count_relayed(Leg::Client, Direction::Receive, len);
        self.count_relayed(Leg::Peer, Direction::Transmit, len);
        let traffic = &mut self.traffic[allocation as usize];
        traffic.packets_from_client += 1;
        traffic.bytes_from_client += len as u64;
    }

    /// Counts a packet from a peer to the client.
    #[inline]
    fn count_down(&mut self, allocation: u32, len: usize) {
        self.count_relayed(Leg::Peer, Direction::Receive, len);
        self.count_relayed(Leg::Client, Direction::Transmit, len);
        let traffic = &mut self.traffic[allocation as usize];
        traffic.packets_to_client += 1;
        traffic.bytes_to_client += len as u64;
    }

    #[inline]
    fn count_relayed(&mut self, leg: Leg, direction: Direction, len: usize) {
        self.counters.add(Counter::packets(leg, direction), 1);
        self.counters.add(Counter::bytes(leg, direction), len as u64);
    }
}
