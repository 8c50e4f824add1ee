//! The packet path allocates nothing, whatever way a packet takes.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::Duration;

use sluice_base::limits::{REMEMBERED_ANSWERS_MAX, STREAM_SEARCH_INTERVAL, STREAMS_PER_ALLOCATION_MAX};
use sluice_base::policy::{Grant, Verdict};
use sluice_base::stats::{DropReason, Single};
use sluice_base::{Pii, RelayEvent, SocketId};
use sluice_turn::harness::model::{Client, Packet, Relay, channel_data, ip_address, options, socket_address};
use sluice_turn::{Disposition, Output, ServerOptions};
use sluice_wire::stun::Method;

const CLIENT: &str = "203.0.113.7:40000";
const CLIENT_2: &str = "203.0.113.8:40000";
const YES: Verdict =
    Verdict::Allow(Grant { valid_for: None, lifetime_max: None, bits_per_second: None, permissions_max: None });
const PEERS: [&str; 2] = ["198.51.100.9:6000", "[2001:db8:9::9]:6000"];

/// Lets the packet come a thousand times, and counts what is allocated meanwhile.
#[track_caller]
fn is_free(relay: &mut Relay, socket: SocketId, from: SocketAddr, bytes: &[u8], relayed: bool) {
    let mut packet = Packet::new(bytes);
    let mut pass = |relay: &mut Relay| {
        packet.refill(bytes);
        let disposition = relay.packet(socket, from, &mut packet);
        assert_eq!(matches!(disposition, Disposition::Relay { .. }), relayed);
    };
    pass(relay);
    let measured = allocation_counter::measure(|| (0..1000).for_each(|_| pass(relay)));
    assert_eq!(measured.count_total, 0, "allocations on the packet path");
}

fn limited() -> ServerOptions {
    let mut options = options();
    (options.bits_per_second, options.packets_per_second) = (1_000_000_000, 1_000_000);
    options
}

#[test]
fn the_counter_counts() {
    let measured = allocation_counter::measure(|| drop(std::hint::black_box(vec![0u8; 9])));
    assert_eq!(measured.count_total, 1);
}

#[test]
fn between_client_and_peer() {
    for options in [options(), limited()] {
        let mut relay = Relay::with(options);
        let mut client = Client::new(CLIENT);
        let relayed = client.allocated_both(&mut relay);
        let listener = relay.listener(0);
        for (i, peer) in PEERS.map(socket_address).into_iter().enumerate() {
            let number = 0x4000 + i as u16;
            client.bind(&mut relay, number, peer);
            let socket = relay.socket_at(relayed[i]).unwrap();
            is_free(&mut relay, listener, client.address, &channel_data(number, &[7; 172]), true);
            is_free(&mut relay, socket, peer, &[7; 172], true);
            let indication = client.send_indication(peer, &[7; 173]);
            is_free(&mut relay, listener, client.address, &indication, true);
            is_free(&mut relay, socket, SocketAddr::new(peer.ip(), 1), &[7; 173], true);
        }
        assert_eq!(relay.all_drops(), 0);
    }
}

#[test]
fn between_two_clients() {
    let mut external = options();
    let mut relays = external.relays.to_vec();
    relays[0].external = Some(ip_address("203.0.113.200"));
    external.relays = relays.into();
    for options in [options(), limited(), external] {
        let mut relay = Relay::with(options);
        let mut clients = [Client::new(CLIENT), Client::new(CLIENT_2)];
        let [from, to] = clients.each_mut().map(|client| client.allocated(&mut relay));
        let listener = relay.listener(0);
        let [first, second] = &mut clients;
        first.permit(&mut relay, &[to]);
        second.permit(&mut relay, &[from]);
        let indication = first.send_indication(to, &[7; 172]);
        is_free(&mut relay, listener, first.address, &indication, true);
        first.bind(&mut relay, 0x4000, to);
        is_free(&mut relay, listener, first.address, &channel_data(0x4000, &[7; 172]), true);
        second.bind(&mut relay, 0x4001, from);
        is_free(&mut relay, listener, first.address, &channel_data(0x4000, &[7; 172]), true);
        assert_eq!(relay.single(Single::HairpinPackets), 3003);
    }
}

/// Nor does what a call needs every few minutes for as long as it lasts.
#[test]
fn of_a_refresh() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    let listener = relay.listener(0);
    let warm = REMEMBERED_ANSWERS_MAX + 500;
    let requests: Vec<_> = (0..warm + 500).map(|_| client.signed(Method::REFRESH, |_| {})).collect();
    let mut packet = Packet::new(&requests[0]);
    let mut pass = |request: &[u8]| {
        relay.pass_without_timers(Duration::from_millis(100));
        if relay.server.next_timeout() <= relay.now.mono {
            relay.server.timeout(relay.now);
        }
        packet.refill(request);
        let _ = relay.server.packet(relay.now, listener, Pii::new(client.address), &mut packet);
        let mut answers = 0;
        while let Some(output) = relay.server.output() {
            match output {
                Output::Ask(question) => relay.server.verdict(relay.now, question.id, YES),
                Output::Send { .. } => answers += 1,
                other => panic!("a refresh makes {other:?}"),
            }
        }
        assert_eq!(answers, 1);
    };
    // Once as many answers are remembered as may be, and the wheel has turned, there is room for all that comes.
    let (first, then) = requests.split_at(warm);
    first.iter().for_each(|request| pass(request));
    let measured = allocation_counter::measure(|| then.iter().for_each(|request| pass(request)));
    assert_eq!(measured.count_total, 0, "allocations of {} refreshes", then.len());
}

#[test]
fn of_media_with_old_and_new_sources() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    let [peer, _] = PEERS.map(socket_address);
    client.bind(&mut relay, 0x4000, peer);
    let socket = relay.socket_at(relayed).unwrap();
    let mut bytes = [7; 172];
    bytes[0] = 0x80;
    let mut packet = Packet::new(&bytes);
    let mut pass = |n: u32| {
        bytes[2..4].copy_from_slice(&(n as u16).to_be_bytes());
        bytes[8..12].copy_from_slice(&(n / 4 * (n % 2)).to_be_bytes());
        packet.refill(&bytes);
        assert!(matches!(relay.packet(socket, peer, &mut packet), Disposition::Relay { .. }));
    };
    pass(0);
    let measured = allocation_counter::measure(|| (1..2000).for_each(&mut pass));
    assert_eq!(measured.count_total, 0, "allocations on the packet path");
}

#[test]
fn of_media_whose_old_sources_give_their_places_to_new_ones() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    let [peer, _] = PEERS.map(socket_address);
    client.bind(&mut relay, 0x4000, peer);
    let listener = relay.listener(0);
    let mut bytes = channel_data(0x4000, &[7; 172]);
    bytes[4] = 0x80;
    let mut packet = Packet::new(&bytes);
    let mut pass = |relay: &mut Relay, ssrc: u32, sequence: u16| {
        bytes[6..8].copy_from_slice(&sequence.to_be_bytes());
        bytes[12..16].copy_from_slice(&ssrc.to_be_bytes());
        packet.refill(&bytes);
        assert!(matches!(relay.packet(listener, client.address, &mut packet), Disposition::Relay { .. }));
    };
    let most = u32::from(STREAMS_PER_ALLOCATION_MAX);
    (0..most).for_each(|ssrc| (0..60).for_each(|sequence| pass(&mut relay, ssrc, sequence)));
    relay.pass(Duration::from_secs(2));
    let measured = allocation_counter::measure(|| {
        for ssrc in most..most + 50 {
            relay.pass_without_timers(STREAM_SEARCH_INTERVAL);
            (0..2).for_each(|sequence| pass(&mut relay, ssrc, sequence));
        }
    });
    assert_eq!(measured.count_total, 0, "allocations on the packet path");
    relay.pass(Duration::from_secs(1));
    let told = relay.events.iter().filter(|event| matches!(event, RelayEvent::StreamEnded(_))).count();
    assert_eq!(told, 50, "they are told of by a timer");
}

#[test]
fn of_what_is_dropped() {
    let mut options = options();
    options.packets_per_second = 1;
    let mut relay = Relay::with(options);
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    let [peer, _] = PEERS.map(socket_address);
    client.bind(&mut relay, 0x4000, peer);
    let (listener, socket) = (relay.listener(0), relay.socket_at(relayed).unwrap());
    let stranger = socket_address("198.51.100.66:1");
    let (data, indication) = (channel_data(0x4000, b"x"), client.send_indication(stranger, b"x"));
    client.say_on(&mut relay, 0x4000, b"the one that passes");
    for (socket, from, bytes, reason) in [
        (listener, client.address, &data[..], DropReason::RateLimited),
        (socket, peer, b"x", DropReason::RateLimited),
        (socket, stranger, b"x", DropReason::NoPermission),
        (listener, client.address, &indication, DropReason::NoPermission),
        (listener, stranger, &data, DropReason::NoAllocation),
        (listener, client.address, &channel_data(0x4009, b"x"), DropReason::UnboundChannel),
        (listener, client.address, &[0; 30], DropReason::BadStun),
        (listener, client.address, &[0xff; 30], DropReason::NotTurn),
        (SocketId { index: 99, generation: 0 }, peer, b"x", DropReason::SocketClosed),
    ] {
        let before = relay.drops(reason);
        is_free(&mut relay, socket, from, bytes, false);
        assert_eq!(relay.drops(reason), before + 1001, "{reason:?}");
    }
}
