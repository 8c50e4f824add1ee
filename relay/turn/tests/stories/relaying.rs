//! What a relayed packet looks like on the other side (RFC 8656, 11 and 12), and that it is not copied.

use std::net::SocketAddr;

use sluice_base::io::Slot;
use sluice_base::stats::{Counter, Direction, DropReason, Leg};
use sluice_turn::Disposition;
use sluice_turn::harness::model::{Client, Packet, Relay, channel_data};
use sluice_wire::stun::{Class, Message, Method, attribute};

use crate::{CLIENT, CLIENT_V6, peer, peer_v6};

/// A client with both families, permissions for both peers, and a channel to each.
fn both(address: &str) -> (Relay, Client, [SocketAddr; 2]) {
    let mut relay = Relay::new();
    let mut client = Client::new(address);
    let relayed = client.allocated_both(&mut relay);
    assert_eq!(client.bind(&mut relay, 0x4004, peer()).code(), 200);
    assert_eq!(client.bind(&mut relay, 0x4006, peer_v6()).code(), 200);
    (relay, client, relayed)
}

#[test]
fn channel_data_goes_both_ways_between_all_families() {
    for address in [CLIENT, CLIENT_V6] {
        let (mut relay, client, relayed) = both(address);
        for (number, peer, relayed) in [(0x4004, peer(), relayed[0]), (0x4006, peer_v6(), relayed[1])] {
            let up = client.say_on(&mut relay, number, b"to the peer");
            assert_eq!(up.len(), 1);
            assert_eq!((up[0].to, &up[0].bytes[..]), (peer.into(), &b"to the peer"[..]));
            assert_eq!(Some(up[0].socket), relay.socket_at(relayed));
            assert!(!up[0].dont_fragment);
            let down = relay.from_peer(peer, relayed, b"to the client");
            assert_eq!(down.len(), 1);
            assert_eq!((down[0].to, down[0].socket), (client.address.into(), relay.listener(client.listener)));
            assert_eq!(down[0].bytes, channel_data(number, b"to the client"));
        }
        assert_eq!(relay.all_drops(), 0);
    }
}

#[test]
fn the_payload_stays_where_it_arrived() {
    let (mut relay, client, relayed) = both(CLIENT);
    let listener = relay.listener(0);
    let mut up = Packet::new(&channel_data(0x4004, b"payload"));
    let before = up.payload().as_ptr() as usize;
    let disposition = relay.packet(listener, client.address, &mut up);
    assert!(matches!(disposition, Disposition::Relay { to, .. } if to == peer().into()));
    assert_eq!(up.payload().as_ptr() as usize, before + 4);

    let socket = relay.socket_at(relayed[0]).unwrap();
    let mut down = Packet::new(b"payload");
    let before = down.payload().as_ptr() as usize;
    let _ = relay.packet(socket, peer(), &mut down);
    assert_eq!(down.payload().as_ptr() as usize, before - 4);
    assert_eq!(down.payload(), channel_data(0x4004, b"payload"));
}

#[test]
fn data_of_an_indication_stays_where_it_arrived() {
    let (mut relay, mut client, relayed) = both(CLIENT);
    let listener = relay.listener(0);
    for (peer, relayed, header) in [(peer(), relayed[0], 36), (peer_v6(), relayed[1], 48)] {
        let mut up = Packet::new(&client.send_indication(peer, b"payload"));
        let before = up.payload().as_ptr() as usize;
        let disposition = relay.packet(listener, client.address, &mut up);
        assert!(matches!(disposition, Disposition::Relay { to, .. } if to == peer.into()));
        assert_eq!(up.payload(), b"payload");
        assert_eq!(up.payload().as_ptr() as usize, before + header);

        let stranger = SocketAddr::new(peer.ip(), 7777);
        let socket = relay.socket_at(relayed).unwrap();
        let mut down = Packet::new(b"payload");
        let before = down.payload().as_ptr() as usize;
        let _ = relay.packet(socket, stranger, &mut down);
        assert_eq!(down.payload().as_ptr() as usize, before - header);
    }
}

#[test]
fn without_a_channel_it_is_an_indication() {
    for address in [CLIENT, CLIENT_V6] {
        let (mut relay, mut client, relayed) = both(address);
        for (peer, relayed) in [(peer(), relayed[0]), (peer_v6(), relayed[1])] {
            let other = SocketAddr::new(peer.ip(), 7777);
            for len in 0..9 {
                let data = vec![7; len];
                let up = client.say(&mut relay, other, &data);
                assert_eq!((up[0].to, &up[0].bytes), (other.into(), &data));
                let down = relay.from_peer(other, relayed, &data);
                assert_eq!(down[0].to, client.address.into());
                let message = Message::parse(&down[0].bytes).unwrap();
                assert_eq!((message.class, message.method), (Class::Indication, Method::DATA));
                assert_eq!(message.peers().collect::<Vec<_>>(), [other]);
                assert_eq!(message.data(), Some(&data[..]));
            }
        }
    }
}

#[test]
fn an_indication_may_also_go_to_a_bound_peer() {
    let (mut relay, mut client, _) = both(CLIENT);
    assert_eq!(client.say(&mut relay, peer(), b"x")[0].to, peer().into());
}

#[test]
fn every_indication_has_a_transaction_of_its_own() {
    let (mut relay, _, relayed) = both(CLIENT);
    let other = SocketAddr::new(peer().ip(), 7777);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..50 {
        let sent = relay.from_peer(other, relayed[0], b"x");
        assert!(seen.insert(Message::parse(&sent[0].bytes).unwrap().transaction));
    }
}

#[test]
fn dont_fragment_passes() {
    let (mut relay, mut client, _) = both(CLIENT);
    for peer in [peer(), peer_v6()] {
        let bytes = client.indication(Method::SEND, |builder| {
            builder
                .xor_address(attribute::XOR_PEER_ADDRESS, peer)
                .bytes(attribute::DONT_FRAGMENT, &[])
                .bytes(attribute::DATA, b"whole");
        });
        let sent = client.send(&mut relay, &bytes);
        assert!(sent[0].dont_fragment);
        assert!(!client.say(&mut relay, peer, b"any")[0].dont_fragment);
    }
    // An allocation may ask whether it is understood (RFC 8656, 7.1).
    let mut asks = Client::new("203.0.113.99:1");
    assert_eq!(
        asks.allocate(&mut relay, |builder| {
            builder.bytes(attribute::DONT_FRAGMENT, &[]);
        })
        .code(),
        200
    );
}

#[test]
fn channel_data_may_be_padded() {
    let (mut relay, client, _) = both(CLIENT);
    for padding in 0..4 {
        let mut bytes = channel_data(0x4004, b"12345");
        bytes.extend(vec![0xff; padding]);
        assert_eq!(client.send(&mut relay, &bytes)[0].bytes, b"12345");
    }
}

#[test]
fn an_empty_datagram_is_relayed() {
    let (mut relay, mut client, relayed) = both(CLIENT);
    assert_eq!(client.say_on(&mut relay, 0x4004, b"")[0].bytes, b"");
    assert_eq!(client.say(&mut relay, peer(), b"")[0].bytes, b"");
    assert_eq!(relay.from_peer(peer(), relayed[0], b"")[0].bytes, channel_data(0x4004, b""));
}

#[test]
fn a_large_datagram_is_relayed_and_too_little_room_is_a_counted_drop() {
    let (mut relay, client, relayed) = both(CLIENT);
    let large = vec![7; 1400];
    assert_eq!(client.say_on(&mut relay, 0x4004, &large)[0].bytes, large);
    let socket = relay.socket_at(relayed[0]).unwrap();
    for (from, front, behind) in
        [(peer(), 3, 16), (SocketAddr::new(peer().ip(), 1), 35, 16), (SocketAddr::new(peer().ip(), 1), 48, 0)]
    {
        let mut packet = Packet::with_room(b"12345", front, behind);
        assert_eq!(relay.packet(socket, from, &mut packet), Disposition::Done);
    }
    assert_eq!(relay.drops(DropReason::TooLong), 3);
}

#[test]
fn both_legs_are_counted() {
    let (mut relay, mut client, relayed) = both(CLIENT);
    client.say_on(&mut relay, 0x4004, &[0; 100]);
    client.say(&mut relay, peer(), &[0; 10]);
    relay.from_peer(peer(), relayed[0], &[0; 7]);
    for (leg, direction, packets, bytes) in [
        (Leg::Client, Direction::Receive, 2, 110),
        (Leg::Peer, Direction::Transmit, 2, 110),
        (Leg::Peer, Direction::Receive, 1, 7),
        (Leg::Client, Direction::Transmit, 1, 7),
    ] {
        assert_eq!(relay.count(Counter::packets(leg, direction)), packets);
        assert_eq!(relay.count(Counter::bytes(leg, direction)), bytes);
    }
}

#[test]
fn a_peer_may_send_anything() {
    let (mut relay, mut client, relayed) = both(CLIENT);
    let stun = client.unsigned(Method::BINDING, |_| {});
    for bytes in [&stun[..], &channel_data(0x4004, b"inner"), b"\xff\xff", b"\0"] {
        let sent = relay.from_peer(peer(), relayed[0], bytes);
        assert_eq!(sent[0].bytes, channel_data(0x4004, bytes));
    }
}

#[test]
fn a_closed_socket_is_a_counted_drop() {
    let (mut relay, mut client, relayed) = both(CLIENT);
    let socket = relay.socket_at(relayed[0]).unwrap();
    client.refresh(&mut relay, 0);
    assert!(relay.receive(socket, peer(), b"late").is_empty());
    // Its successor in the driver's table is another socket.
    client.allocated(&mut relay);
    assert!(relay.receive(socket, peer(), b"late").is_empty());
    assert_eq!(relay.drops(DropReason::SocketClosed), 2);
}
