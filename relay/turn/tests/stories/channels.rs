//! ChannelBind (RFC 8656, 12.2).

use sluice_base::stats::{DropReason, Single};
use sluice_turn::harness::model::{Client, Relay, options};
use sluice_wire::stun::{Method, attribute};

use crate::{CLIENT, CLIENT_2, at, peer, seconds};

fn bound() -> (Relay, Client) {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    assert_eq!(client.bind(&mut relay, 0x4000, peer()).code(), 200);
    (relay, client)
}

#[test]
fn numbers_lie_in_their_range() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    for (number, code) in [
        (0, 400),
        (0x3fff, 400),
        (0x4000, 200),
        (0x4fff, 200),
        // RFC 5766, 11 has more of them.
        (0x5000, 200),
        (0x7fff, 200),
        (0x8000, 400),
        (0xffff, 400),
    ] {
        let peer = at(&format!("198.51.100.9:{}", number % 5000));
        assert_eq!(client.bind(&mut relay, number, peer).code(), code, "{number:#x}");
    }
}

#[test]
fn a_binding_makes_its_permission() {
    let (mut relay, mut client) = bound();
    assert_eq!(client.say(&mut relay, at("198.51.100.9:77"), b"x").len(), 1);
    assert_eq!(relay.single(Single::Permissions), 1);
    assert_eq!(relay.single(Single::Channels), 1);
    assert_eq!(relay.questions.len(), 2);
}

#[test]
fn a_number_has_one_peer_and_a_peer_one_number() {
    let (mut relay, mut client) = bound();
    assert_eq!(client.bind(&mut relay, 0x4000, at("198.51.100.9:6001")).code(), 400);
    assert_eq!(client.bind(&mut relay, 0x4000, at("198.51.100.10:6000")).code(), 400);
    assert_eq!(client.bind(&mut relay, 0x4001, peer()).code(), 400);
    assert_eq!(client.bind(&mut relay, 0x4001, at("198.51.100.9:6001")).code(), 200);
    assert_eq!(client.bind(&mut relay, 0x4000, peer()).code(), 200, "a refresh");
    assert_eq!(relay.single(Single::Channels), 2);
}

#[test]
fn clients_have_their_own_numbers() {
    let (mut relay, first) = bound();
    let mut second = Client::new(CLIENT_2);
    second.allocated(&mut relay);
    let other = at("198.51.100.10:6000");
    assert_eq!(second.bind(&mut relay, 0x4000, other).code(), 200);
    assert_eq!(first.say_on(&mut relay, 0x4000, b"x")[0].to, peer().into());
    assert_eq!(second.say_on(&mut relay, 0x4000, b"x")[0].to, other.into());
}

#[test]
fn a_number_and_exactly_one_peer_are_needed() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    let none = client.ask(&mut relay, Method::CHANNEL_BIND, |b| {
        b.channel(0x4000);
    });
    let no_number = client.ask(&mut relay, Method::CHANNEL_BIND, |b| {
        b.xor_address(attribute::XOR_PEER_ADDRESS, peer());
    });
    let two = client.ask(&mut relay, Method::CHANNEL_BIND, |b| {
        b.channel(0x4000)
            .xor_address(attribute::XOR_PEER_ADDRESS, peer())
            .xor_address(attribute::XOR_PEER_ADDRESS, at("198.51.100.10:6000"));
    });
    let short = client.ask(&mut relay, Method::CHANNEL_BIND, |b| {
        b.bytes(attribute::CHANNEL_NUMBER, &[0x40, 0]).xor_address(attribute::XOR_PEER_ADDRESS, peer());
    });
    assert_eq!([none.code(), no_number.code(), two.code(), short.code()], [400; 4]);
}

#[test]
fn an_expired_binding_frees_number_and_peer() {
    let (mut relay, mut client) = bound();
    relay.pass(seconds(550));
    client.refresh(&mut relay, 3600);
    relay.pass_without_timers(seconds(50));
    assert_eq!(client.bind(&mut relay, 0x4000, at("198.51.100.10:6000")).code(), 200);
    assert_eq!(client.bind(&mut relay, 0x4001, peer()).code(), 200);
    assert_eq!(client.say_on(&mut relay, 0x4000, b"x")[0].to, at("198.51.100.10:6000").into());
    assert_eq!(client.say_on(&mut relay, 0x4001, b"x")[0].to, peer().into());
}

#[test]
fn too_many_channels_are_no_capacity() {
    let mut options = options();
    options.channels_per_allocation = 2;
    let mut relay = Relay::with(options);
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    let peer = |i: u16| at(&format!("198.51.100.{i}:6000"));
    assert_eq!(client.bind(&mut relay, 0x4001, peer(1)).code(), 200);
    assert_eq!(client.bind(&mut relay, 0x4002, peer(2)).code(), 200);
    assert_eq!(client.bind(&mut relay, 0x4003, peer(3)).code(), 508);
    assert!(client.say(&mut relay, peer(3), b"x").is_empty(), "what is refused leaves no permission");
    assert_eq!(client.bind(&mut relay, 0x4002, peer(2)).code(), 200);
}

#[test]
fn a_channel_without_a_permission_to_be_had_is_no_capacity() {
    let mut options = options();
    options.permissions_per_allocation = 1;
    let mut relay = Relay::with(options);
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    client.permit(&mut relay, &[peer()]);
    assert_eq!(client.bind(&mut relay, 0x4000, at("198.51.100.10:6000")).code(), 508);
    assert_eq!(relay.single(Single::Channels), 0);
    assert_eq!(client.bind(&mut relay, 0x4000, peer()).code(), 200);
}

#[test]
fn an_unbound_channel_is_a_counted_drop() {
    let (mut relay, client) = bound();
    assert!(client.say_on(&mut relay, 0x4001, b"x").is_empty());
    assert_eq!(relay.drops(DropReason::UnboundChannel), 1);
}

#[test]
fn a_new_allocation_has_none_of_the_old_channels() {
    let (mut relay, mut client) = bound();
    client.refresh(&mut relay, 0);
    client.allocated(&mut relay);
    assert!(client.say_on(&mut relay, 0x4000, b"x").is_empty());
    assert!(client.say(&mut relay, peer(), b"x").is_empty());
    assert_eq!(client.bind(&mut relay, 0x4000, at("198.51.100.10:6000")).code(), 200);
}
