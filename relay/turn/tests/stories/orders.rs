//! Orders change the state of flows.

use sluice_base::AllocationId;
use sluice_base::message::{Envelope, Order};
use sluice_base::stats::{DropReason, Single};
use sluice_turn::harness::model::{Client, Relay};

use crate::{CLIENT, CLIENT_2, peer};

#[test]
fn an_order_ends_an_allocation_with_the_next_packet() {
    let mut relay = Relay::new();
    let (mut first, mut second) = (Client::new(CLIENT), Client::new(CLIENT_2));
    let relayed = first.allocated(&mut relay);
    first.bind(&mut relay, 0x4000, peer());
    let id = relay.server.allocations().next().unwrap();
    second.allocated(&mut relay);
    second.bind(&mut relay, 0x4000, peer());
    let socket = relay.socket_at(relayed).unwrap();
    assert!(relay.message(Envelope::Order(Order::End(id))).is_empty());
    assert!(first.say_on(&mut relay, 0x4000, b"x").is_empty());
    assert!(first.say(&mut relay, peer(), b"x").is_empty());
    assert!(relay.receive(socket, peer(), b"x").is_empty());
    assert_eq!(relay.drops(DropReason::NoAllocation), 2);
    assert_eq!(relay.drops(DropReason::SocketClosed), 1);
    assert_eq!(relay.socket_at(relayed), None);
    assert_eq!(first.refresh(&mut relay, 600).code(), 437);
    assert_eq!(second.say_on(&mut relay, 0x4000, b"x").len(), 1);
}

#[test]
fn an_order_about_nothing_does_nothing() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    let AllocationId(id) = relay.server.allocations().next().unwrap();
    for other in [0, u64::MAX, id ^ 1, id.wrapping_add(1 << 32)] {
        relay.message(Envelope::Order(Order::End(AllocationId(other))));
    }
    assert_eq!(relay.single(Single::Allocations), 1);
    relay.message(Envelope::Order(Order::End(AllocationId(id))));
    relay.message(Envelope::Order(Order::End(AllocationId(id))));
    assert_eq!(relay.single(Single::AllocationsExpired), 1);
}

#[test]
fn an_id_is_not_used_twice() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..100 {
        client.allocated(&mut relay);
        assert!(seen.insert(relay.server.allocations().next().unwrap()));
        client.refresh(&mut relay, 0);
    }
}

#[test]
fn a_stop_ends_everything() {
    let mut relay = Relay::new();
    for i in 0..10 {
        let mut client = Client::new(&format!("203.0.113.9:{}", 40_000 + i));
        client.allocated_both(&mut relay);
        client.bind(&mut relay, 0x4000, peer());
    }
    assert_eq!(relay.relay_sockets(), 20);
    relay.message(Envelope::Order(Order::Stop));
    assert_eq!(relay.relay_sockets(), 0);
    for gauge in [Single::Allocations, Single::Permissions, Single::Channels] {
        assert_eq!(relay.single(gauge), 0);
    }
}
