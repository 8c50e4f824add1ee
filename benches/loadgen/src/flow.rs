//! One stream of packets from a sender to a receiver, through the server.

use std::net::{Ipv4Addr, SocketAddr};

use sluice_wire::stun::{Builder, Class, Kind, Message, Method, TransactionId, attribute, classify};
use sluice_wire::{channel_data, padding};

use crate::options::Framing;
use crate::session::Session;
use crate::stamp::{self, Stamp};

/// Which of the two endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Speaks TURN with the server.
    Client,
    /// Speaks to a relayed address.
    Peer,
}

/// A stream of packets.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    /// Who sends.
    pub(crate) from: Side,
    /// The sender's number.
    pub(crate) index: u32,
    /// Where the packets go first.
    pub(crate) to: SocketAddr,
    /// What stands in front of the payload when it leaves.
    header: Vec<u8>,
    /// How it must arrive.
    arrival: Arrival,
}

/// How a packet must look when it arrives; anything else was misrouted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    /// At the peer, from the client's relayed address.
    Bare { from: SocketAddr },
    /// At the client, on its channel.
    Channel { number: u16 },
    /// At the client, in a Data indication.
    Indication { peer: SocketAddr },
}

impl Flow {
    /// From a client to its peer.
    pub(crate) fn up(client: &Session, server: SocketAddr, peer: SocketAddr, size: u16, framing: Framing) -> Self {
        let from = relayed(client);
        Self {
            from: Side::Client,
            index: client.index,
            to: server,
            header: client_header(client.index, peer, size, framing),
            arrival: Arrival::Bare { from },
        }
    }

    /// From a peer to its client.
    pub(crate) fn down(client: &Session, peer: SocketAddr, framing: Framing) -> Self {
        Self {
            from: Side::Peer,
            index: client.index,
            to: relayed(client),
            header: Vec::new(),
            arrival: at_client(client.index, peer, framing),
        }
    }

    /// From a client to another client, through both allocations.
    pub(crate) fn across(from: &Session, to: &Session, server: SocketAddr, size: u16, framing: Framing) -> Self {
        Self {
            from: Side::Client,
            index: from.index,
            to: server,
            header: client_header(from.index, relayed(to), size, framing),
            arrival: at_client(to.index, relayed(from), framing),
        }
    }

    /// Writes a packet that leaves now behind what is in `packets`; its payload is `media` (an RTP header or nothing),
    /// the stamp, and filling up to `size`.
    pub(crate) fn write(&self, packets: &mut Vec<u8>, media: &[u8], stamp: Stamp, size: u16) {
        let start = packets.len();
        packets.extend_from_slice(&self.header);
        packets.extend_from_slice(media);
        packets.extend_from_slice(&stamp.to_bytes());
        let end = start + self.header.len() + usize::from(size);
        let padded = if self.header.len() > channel_data::HEADER_LEN { padding(usize::from(size)) } else { 0 };
        packets.resize(end + padded, 0x5a);
    }

    /// Whether a packet of this flow that arrived at `side` came the right way.
    pub(crate) fn is_arrival(&self, side: Side, from: SocketAddr, packet: &[u8], server: SocketAddr) -> bool {
        match (self.arrival, side) {
            (Arrival::Bare { from: relayed }, Side::Peer) => from == relayed,
            (Arrival::Channel { number }, Side::Client) => {
                from == server && channel_data::parse(packet).is_ok_and(|(found, _)| found == number)
            }
            (Arrival::Indication { peer }, Side::Client) => {
                from == server && Message::parse(packet).is_ok_and(|message| message.peers().next() == Some(peer))
            }
            _ => false,
        }
    }
}

/// The channel of a client: numbers repeat after 4096 clients, each has its own space of them.
pub(crate) fn channel_of(index: u32) -> u16 {
    let numbers = channel_data::NUMBERS;
    let count = u32::from(numbers.end() - numbers.start()) + 1;
    numbers.start() + (index % count) as u16
}

/// The payload of a packet that arrived at `side`.
pub(crate) fn payload(side: Side, packet: &[u8]) -> Option<&[u8]> {
    if side == Side::Peer {
        return Some(packet);
    }
    match classify(*packet.first()?) {
        Kind::ChannelData => {
            let (_, length) = channel_data::parse(packet).ok()?;
            packet.get(channel_data::HEADER_LEN..channel_data::HEADER_LEN + length)
        }
        Kind::Stun => {
            let message = Message::parse(packet).ok()?;
            (message.class == Class::Indication && message.method == Method::DATA).then(|| message.data())?
        }
        Kind::Other => None,
    }
}

/// A session without a relayed address has no flows: the unspecified address receives nothing.
fn relayed(session: &Session) -> SocketAddr {
    session.relayed.unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
}

fn at_client(index: u32, peer: SocketAddr, framing: Framing) -> Arrival {
    match framing {
        Framing::Channel => Arrival::Channel { number: channel_of(index) },
        Framing::Indication => Arrival::Indication { peer },
    }
}

fn client_header(index: u32, peer: SocketAddr, size: u16, framing: Framing) -> Vec<u8> {
    match framing {
        Framing::Channel => {
            let mut header = [0; channel_data::HEADER_LEN];
            channel_data::write_header(&mut header, channel_of(index), size);
            header.to_vec()
        }
        Framing::Indication => send_indication_header(index, peer, size),
    }
}

/// A Send indication up to its payload (RFC 8656, 11.1), which comes last.
fn send_indication_header(index: u32, peer: SocketAddr, size: u16) -> Vec<u8> {
    let payload = vec![0; usize::from(size)];
    let mut buffer = vec![0; payload.len() + 64];
    let mut id = [0; 12];
    id[..4].copy_from_slice(&index.to_be_bytes());
    let length = Builder::new(&mut buffer, Class::Indication, Method::SEND, TransactionId(id))
        .xor_address(attribute::XOR_PEER_ADDRESS, peer)
        .bytes(attribute::DATA, &payload)
        .finish()
        .unwrap_or(0);
    buffer.truncate(length.saturating_sub(payload.len() + padding(payload.len())));
    buffer
}

const _: () = assert!(stamp::BYTES >= channel_data::HEADER_LEN);

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3478);
    const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 67, 0, 1)), 9);

    fn client(index: u32) -> Session {
        let mut session = Session::new(index);
        session.relayed = Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50_000 + index as u16));
        session
    }

    #[test]
    fn a_send_indication_is_whole_with_its_payload() {
        let flow = Flow::up(&client(3), SERVER, PEER, 173, Framing::Indication);
        let mut packet = Vec::new();
        let stamp = Stamp { run: 1, flow: 3, sent: 5 };
        flow.write(&mut packet, &[], stamp, 173);
        let message = Message::parse(&packet).expect("a STUN message");
        assert_eq!((message.class, message.method), (Class::Indication, Method::SEND));
        assert_eq!(message.peers().next(), Some(PEER));
        let data = message.data().expect("DATA");
        assert_eq!((data.len(), Stamp::read(data)), (173, Some(stamp)));
    }

    #[test]
    fn channel_data_carries_the_payload_and_its_length() {
        let flow = Flow::up(&client(3), SERVER, PEER, 173, Framing::Channel);
        let mut packet = Vec::new();
        flow.write(&mut packet, &[], Stamp { run: 1, flow: 3, sent: 5 }, 173);
        assert_eq!((packet.len(), channel_data::parse(&packet)), (177, Ok((0x4003, 173))));
    }

    #[test]
    fn a_packet_that_came_another_way_is_no_arrival() {
        let (one, two) = (client(0), client(1));
        let up = Flow::up(&one, SERVER, PEER, 20, Framing::Channel);
        let relayed = one.relayed.expect("relayed");
        assert!(up.is_arrival(Side::Peer, relayed, &[], SERVER));
        assert!(!up.is_arrival(Side::Peer, SERVER, &[], SERVER));
        assert!(!up.is_arrival(Side::Client, relayed, &[], SERVER));
        let across = Flow::across(&one, &two, SERVER, 4, Framing::Channel);
        assert!(across.is_arrival(Side::Client, SERVER, &[0x40, 1, 0, 0], SERVER));
        assert!(!across.is_arrival(Side::Client, SERVER, &[0x40, 0, 0, 0], SERVER));
    }
}
