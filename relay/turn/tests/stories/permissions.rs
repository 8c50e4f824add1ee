//! CreatePermission (RFC 8656, 10.2).

use std::net::SocketAddr;

use sluice_base::limits::PEERS_PER_REQUEST_MAX;
use sluice_base::stats::{DropReason, Single};
use sluice_turn::harness::model::{Client, Relay, options};
use sluice_wire::stun::{Method, attribute};

use crate::{CLIENT, CLIENT_2, at, peer, peer_v6, seconds};

#[test]
fn without_a_permission_nothing_passes() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    assert!(client.say(&mut relay, peer(), b"x").is_empty());
    assert!(relay.from_peer(peer(), relayed, b"x").is_empty());
    assert_eq!(relay.drops(DropReason::NoPermission), 2);
}

#[test]
fn a_permission_is_for_an_address_and_all_its_ports() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    assert_eq!(client.permit(&mut relay, &[at("198.51.100.9:0")]).code(), 200);
    for port in [1, 6000, 65_535] {
        let peer = SocketAddr::new(peer().ip(), port);
        assert_eq!(client.say(&mut relay, peer, b"x").len(), 1);
        assert_eq!(relay.from_peer(peer, relayed, b"x").len(), 1);
    }
    assert!(client.say(&mut relay, at("198.51.100.10:6000"), b"x").is_empty());
    assert!(relay.from_peer(at("198.51.100.10:6000"), relayed, b"x").is_empty());
}

#[test]
fn a_permission_belongs_to_one_allocation() {
    let mut relay = Relay::new();
    let (mut first, mut second) = (Client::new(CLIENT), Client::new(CLIENT_2));
    first.allocated(&mut relay);
    let other = second.allocated(&mut relay);
    first.permit(&mut relay, &[peer()]);
    assert!(second.say(&mut relay, peer(), b"x").is_empty());
    assert!(relay.from_peer(peer(), other, b"x").is_empty());
}

#[test]
fn one_request_has_several_peers() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    let peers: Vec<_> = (1..=4).map(|i| at(&format!("198.51.100.{i}:1"))).collect();
    assert_eq!(client.permit(&mut relay, &peers).code(), 200);
    assert_eq!(relay.questions.last().unwrap().peers.len(), 4);
    assert!(peers.iter().all(|peer| client.say(&mut relay, *peer, b"x").len() == 1));
    assert_eq!(relay.single(Single::Permissions), 4);
}

#[test]
fn one_forbidden_peer_forbids_all() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    assert_eq!(client.permit(&mut relay, &[peer(), at("127.0.0.1:1")]).code(), 403);
    assert_eq!(client.permit(&mut relay, &[peer(), peer_v6()]).code(), 443);
    assert!(client.say(&mut relay, peer(), b"x").is_empty());
    assert_eq!(relay.questions.len(), 1, "the allocation's");
    assert_eq!(relay.single(Single::Permissions), 0);
}

#[test]
fn too_many_permissions_are_no_capacity_and_change_nothing() {
    let mut options = options();
    options.permissions_per_allocation = 3;
    let mut relay = Relay::with(options);
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    let peers: Vec<_> = (1..=5).map(|i| at(&format!("198.51.100.{i}:1"))).collect();
    assert_eq!(client.permit(&mut relay, &peers[..2]).code(), 200);
    relay.pass(seconds(200));
    assert_eq!(client.permit(&mut relay, &peers).code(), 508);
    assert_eq!(relay.single(Single::Permissions), 2);
    assert!(client.say(&mut relay, peers[2], b"x").is_empty());
    // A request that fails refreshes nothing either.
    relay.pass(seconds(101));
    assert!(client.say(&mut relay, peers[0], b"x").is_empty());
    assert_eq!(client.permit(&mut relay, &peers[..3]).code(), 200);
}

#[test]
fn the_same_peer_twice_is_one_permission() {
    let mut options = options();
    options.permissions_per_allocation = 1;
    let mut relay = Relay::with(options);
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    assert_eq!(client.permit(&mut relay, &[peer(), at("198.51.100.9:1"), peer()]).code(), 200);
    assert_eq!(client.permit(&mut relay, &[peer()]).code(), 200);
    assert_eq!(relay.single(Single::Permissions), 1);
}

#[test]
fn a_request_without_peers_or_with_a_broken_one_is_bad() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    assert_eq!(client.permit(&mut relay, &[]).code(), 400);
    let broken = client.ask(&mut relay, Method::CREATE_PERMISSION, |builder| {
        builder.xor_address(attribute::XOR_PEER_ADDRESS, peer()).bytes(attribute::XOR_PEER_ADDRESS, &[0, 9, 0, 0]);
    });
    assert_eq!(broken.code(), 400);
    let many = vec![peer(); PEERS_PER_REQUEST_MAX + 1];
    assert_eq!(client.permit(&mut relay, &many).code(), 400);
    assert_eq!(client.permit(&mut relay, &many[1..]).code(), 200);
}

#[test]
fn the_family_must_be_the_allocations() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    assert_eq!(client.permit(&mut relay, &[peer_v6()]).code(), 443);
    assert_eq!(client.bind(&mut relay, 0x4000, peer_v6()).code(), 443);
    assert!(client.say(&mut relay, peer_v6(), b"x").is_empty());
    assert_eq!(relay.drops(DropReason::PeerFamily), 1);
}

#[test]
fn without_an_allocation_there_is_nothing_to_permit() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    assert_eq!(client.permit(&mut relay, &[peer()]).code(), 437);
    assert_eq!(client.bind(&mut relay, 0x4000, peer()).code(), 437);
    assert!(client.say(&mut relay, peer(), b"x").is_empty());
    assert!(client.say_on(&mut relay, 0x4000, b"x").is_empty());
    assert_eq!(relay.drops(DropReason::NoAllocation), 2);
}
