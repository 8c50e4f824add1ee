//! When things end, to the nanosecond.

use sluice_base::stats::{DropReason, Single};
use sluice_turn::harness::model::{Client, Relay, channel_data};

use crate::{CLIENT, NANOSECOND, peer, seconds};

#[test]
fn a_permission_ends_after_300_seconds() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    client.permit(&mut relay, &[peer()]);
    relay.pass_without_timers(seconds(300) - NANOSECOND);
    assert_eq!(client.say(&mut relay, peer(), b"x").len(), 1);
    assert_eq!(relay.from_peer(peer(), relayed, b"x").len(), 1);
    relay.pass_without_timers(NANOSECOND);
    assert!(client.say(&mut relay, peer(), b"x").is_empty());
    assert!(relay.from_peer(peer(), relayed, b"x").is_empty());
    relay.pass(seconds(1));
    assert_eq!(relay.single(Single::Permissions), 0);
}

#[test]
fn data_does_not_refresh_a_permission() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    client.permit(&mut relay, &[peer()]);
    for _ in 0..299 {
        relay.pass(seconds(1));
        assert_eq!(client.say(&mut relay, peer(), b"x").len(), 1);
    }
    relay.pass(seconds(1));
    assert!(client.say(&mut relay, peer(), b"x").is_empty());
}

#[test]
fn a_refreshed_permission_goes_on() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    client.permit(&mut relay, &[peer()]);
    relay.pass(seconds(250));
    client.permit(&mut relay, &[peer()]);
    relay.pass(seconds(299));
    assert_eq!(client.say(&mut relay, peer(), b"x").len(), 1);
    relay.pass(seconds(1));
    assert!(client.say(&mut relay, peer(), b"x").is_empty());
}

#[test]
fn a_channel_ends_after_600_seconds() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    client.refresh(&mut relay, 3600);
    client.bind(&mut relay, 0x4000, peer());
    relay.pass(seconds(299));
    client.permit(&mut relay, &[peer()]);
    relay.pass(seconds(299));
    client.permit(&mut relay, &[peer()]);
    relay.pass_without_timers(seconds(2) - NANOSECOND);
    assert_eq!(client.say_on(&mut relay, 0x4000, b"x").len(), 1);
    assert_eq!(relay.from_peer(peer(), relayed, b"x")[0].bytes, channel_data(0x4000, b"x"));
    relay.pass_without_timers(NANOSECOND);
    assert!(client.say_on(&mut relay, 0x4000, b"x").is_empty());
    // The permission is still there: the peer's data is an indication now.
    assert_eq!(relay.from_peer(peer(), relayed, b"x")[0].bytes[..2], [0, 0x17]);
    relay.pass(seconds(1));
    assert_eq!(relay.single(Single::Channels), 0);
}

#[test]
fn a_channel_without_its_permission_passes_nothing() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    client.bind(&mut relay, 0x4000, peer());
    relay.pass_without_timers(seconds(300) - NANOSECOND);
    assert_eq!(client.say_on(&mut relay, 0x4000, b"x").len(), 1);
    relay.pass_without_timers(NANOSECOND);
    assert!(client.say_on(&mut relay, 0x4000, b"x").is_empty());
    assert!(relay.from_peer(peer(), relayed, b"x").is_empty());
    relay.pass(seconds(1));
    // The binding itself lives on, and a new permission revives it.
    client.permit(&mut relay, &[peer()]);
    assert_eq!(client.say_on(&mut relay, 0x4000, b"x").len(), 1);
}

#[test]
fn a_refreshed_channel_goes_on_with_its_permission() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    client.refresh(&mut relay, 3600);
    client.bind(&mut relay, 0x4000, peer());
    for _ in 0..10 {
        relay.pass(seconds(290));
        assert_eq!(client.say_on(&mut relay, 0x4000, b"x").len(), 1);
        assert_eq!(client.bind(&mut relay, 0x4000, peer()).code(), 200);
    }
    assert_eq!(relay.single(Single::Channels), 1);
}

#[test]
fn an_allocation_ends_to_the_nanosecond() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    relay.pass(seconds(400));
    client.bind(&mut relay, 0x4000, peer());
    relay.pass_without_timers(seconds(200) - NANOSECOND);
    assert_eq!(client.say_on(&mut relay, 0x4000, b"x").len(), 1);
    assert_eq!(relay.from_peer(peer(), relayed, b"x").len(), 1);
    relay.pass_without_timers(NANOSECOND);
    assert!(relay.from_peer(peer(), relayed, b"x").is_empty());
    assert!(client.say_on(&mut relay, 0x4000, b"x").is_empty());
    assert!(client.say(&mut relay, peer(), b"x").is_empty());
    assert!(relay.drops(DropReason::Expired) >= 2);
    assert_eq!(relay.socket_at(relayed), None);
}

#[test]
fn what_has_run_out_may_be_allocated_again_before_the_tick() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    relay.pass_without_timers(seconds(600));
    assert_eq!(client.allocate(&mut relay, |_| {}).code(), 200);
    relay.pass(seconds(599));
    assert_eq!(relay.single(Single::Allocations), 1);
    assert_eq!(relay.relay_sockets(), 1);
}

#[test]
fn everything_is_forgotten_in_the_end() {
    let mut relay = Relay::new();
    for i in 0..50 {
        let mut client = Client::new(&format!("203.0.113.9:{}", 40_000 + i));
        client.allocated_both(&mut relay);
        client.permit(&mut relay, &[peer(), crate::peer_v6()]);
        client.bind(&mut relay, 0x4000, peer());
    }
    relay.pass(seconds(4000));
    assert_eq!(relay.relay_sockets(), 0);
    for gauge in [Single::Allocations, Single::Permissions, Single::Channels, Single::QuestionsOpen] {
        assert_eq!(relay.single(gauge), 0);
    }
    assert_eq!(relay.server.timers(), 0);
}
