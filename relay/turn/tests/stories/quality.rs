//! What the relay says of media: seen on its way to the relay, from both sides, however it is wrapped.

use std::net::SocketAddr;

use sluice_base::TenantId;
use sluice_base::stats::Leg;
use sluice_base::stats::media::{MediaCounter, media_place};
use sluice_turn::harness::model::{Client, Relay, options};

use crate::{CLIENT, CLIENT_2, peer, seconds};

/// RTP of a source, of 172 bytes.
fn rtp(ssrc: u32, sequence: u16) -> Vec<u8> {
    let mut bytes = vec![7; 172];
    (bytes[0], bytes[1]) = (0x80, 96);
    bytes[2..4].copy_from_slice(&sequence.to_be_bytes());
    bytes[8..12].copy_from_slice(&ssrc.to_be_bytes());
    bytes
}

/// A sender report.
fn rtcp(ssrc: u32) -> Vec<u8> {
    let mut bytes = vec![0x80, 200, 0, 6];
    bytes.extend(ssrc.to_be_bytes());
    bytes.resize(28, 9);
    bytes
}

fn seen(relay: &Relay, leg: Leg, counter: MediaCounter) -> u64 {
    let media = relay.server.media();
    media[media_place(media.len(), TenantId(0), leg)].value(counter)
}

fn counts(relay: &Relay, leg: Leg) -> [u64; 5] {
    use MediaCounter::{Duplicate, Expected, Late, Lost, Received};
    [Expected, Received, Lost, Late, Duplicate].map(|counter| seen(relay, leg, counter))
}

fn with_channel() -> (Relay, Client, SocketAddr) {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    assert_eq!(client.bind(&mut relay, 0x4001, peer()).code(), 200);
    (relay, client, relayed)
}

#[test]
fn a_channel_shows_what_is_missing_on_either_side() {
    let (mut relay, client, relayed) = with_channel();
    for sequence in (0..300).filter(|n| n % 10 != 5) {
        client.say_on(&mut relay, 0x4001, &rtp(1, sequence));
    }
    for sequence in (0..200).filter(|n| n % 20 != 5) {
        relay.from_peer(peer(), relayed, &rtp(1, sequence));
    }
    // Of the last 64 numbers, those that are missing may still come.
    assert_eq!(counts(&relay, Leg::Client), [300, 270, 24, 0, 0]);
    assert_eq!(counts(&relay, Leg::Peer), [200, 190, 7, 0, 0]);
    assert_eq!(seen(&relay, Leg::Client, MediaCounter::Bytes), 270 * 172);
    assert_eq!(seen(&relay, Leg::Peer, MediaCounter::Streams), 1);
    relay.pass(seconds(11));
    assert_eq!(counts(&relay, Leg::Client), [300, 270, 30, 0, 0]);
    assert_eq!(counts(&relay, Leg::Peer), [200, 190, 10, 0, 0]);
}

#[test]
fn indications_show_the_same() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    client.permit(&mut relay, &[peer()]);
    for sequence in [65_534, 65_535, 0, 2, 2, 1] {
        client.say(&mut relay, peer(), &rtp(1, sequence));
        relay.from_peer(peer(), relayed, &rtp(2, sequence));
    }
    assert_eq!(counts(&relay, Leg::Client), [5, 5, 0, 0, 1]);
    assert_eq!(counts(&relay, Leg::Peer), [5, 5, 0, 0, 1]);
}

#[test]
fn what_is_refused_for_its_rate_has_reached_the_relay() {
    let mut slow = options();
    slow.packets_per_second = 5;
    let mut relay = Relay::with(slow);
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    client.bind(&mut relay, 0x4001, peer());
    for sequence in 0..200 {
        client.say_on(&mut relay, 0x4001, &rtp(1, sequence));
    }
    assert!(relay.all_drops() > 100);
    assert_eq!(counts(&relay, Leg::Client), [200, 200, 0, 0, 0]);
}

#[test]
fn between_two_clients_both_sides_see_it() {
    let mut relay = Relay::new();
    let mut clients = [Client::new(CLIENT), Client::new(CLIENT_2)];
    let [from, to] = clients.each_mut().map(|client| client.allocated(&mut relay));
    let [first, second] = &mut clients;
    first.bind(&mut relay, 0x4001, to);
    second.bind(&mut relay, 0x4001, from);
    for sequence in 0..100 {
        first.say_on(&mut relay, 0x4001, &rtp(1, sequence));
    }
    assert_eq!(counts(&relay, Leg::Client), [100, 100, 0, 0, 0]);
    assert_eq!(counts(&relay, Leg::Peer), [100, 100, 0, 0, 0]);
}

#[test]
fn the_same_source_to_two_peers_is_two_streams() {
    let (mut relay, mut client, _) = with_channel();
    let other = crate::at("198.51.100.9:6002");
    client.bind(&mut relay, 0x4002, other);
    for sequence in 0..100 {
        client.say_on(&mut relay, 0x4001, &rtp(1, sequence));
        client.say_on(&mut relay, 0x4002, &rtp(1, sequence));
    }
    assert_eq!(counts(&relay, Leg::Client), [200, 200, 0, 0, 0]);
    assert_eq!(seen(&relay, Leg::Client, MediaCounter::Streams), 2);
}

#[test]
fn rtcp_counts_once_its_source_has_spoken_twice() {
    let (mut relay, client, _) = with_channel();
    client.say_on(&mut relay, 0x4001, &rtcp(1));
    client.say_on(&mut relay, 0x4001, &rtcp(2));
    assert_eq!(seen(&relay, Leg::Client, MediaCounter::Rtcp), 0);
    client.say_on(&mut relay, 0x4001, &rtcp(1));
    client.say_on(&mut relay, 0x4001, &rtcp(1));
    assert_eq!(seen(&relay, Leg::Client, MediaCounter::Rtcp), 3);
    assert_eq!(seen(&relay, Leg::Client, MediaCounter::Streams), 0);
}

#[test]
fn streams_end_with_their_allocation_and_take_what_they_await_with_them() {
    let (mut relay, mut client, _) = with_channel();
    for sequence in [0, 1, 3, 5] {
        client.say_on(&mut relay, 0x4001, &rtp(1, sequence));
    }
    assert_eq!(counts(&relay, Leg::Client), [6, 4, 0, 0, 0]);
    client.refresh(&mut relay, 0);
    assert_eq!(counts(&relay, Leg::Client), [6, 4, 2, 0, 0]);
    assert_eq!(seen(&relay, Leg::Client, MediaCounter::Streams), 0);
    assert_eq!(seen(&relay, Leg::Client, MediaCounter::ClockUnknown), 0);
}

#[test]
fn streams_end_with_their_permission() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    client.permit(&mut relay, &[peer()]);
    relay.pass(seconds(299));
    for sequence in 0..2 {
        client.say(&mut relay, peer(), &rtp(1, sequence));
    }
    assert_eq!(seen(&relay, Leg::Client, MediaCounter::Streams), 1);
    relay.pass(seconds(2));
    assert_eq!(seen(&relay, Leg::Client, MediaCounter::Streams), 0);
}

#[test]
fn a_silent_stream_is_over_and_leaves_no_timer() {
    let (mut relay, client, _) = with_channel();
    relay.pass(seconds(30));
    let timers = relay.server.timers();
    for sequence in 0..10 {
        client.say_on(&mut relay, 0x4001, &rtp(1, sequence));
    }
    relay.pass(seconds(25));
    assert_eq!(seen(&relay, Leg::Client, MediaCounter::Streams), 1);
    assert_eq!(relay.server.timers(), timers + 1);
    relay.pass(seconds(11));
    assert_eq!(seen(&relay, Leg::Client, MediaCounter::Streams), 0);
    assert_eq!(relay.server.timers(), timers);
}
