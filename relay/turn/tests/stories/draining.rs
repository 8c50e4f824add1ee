//! A relay that ends lets nobody new in, and lets go on what there is.

use sluice_base::message::{Alternates, Envelope, Order};
use sluice_base::policy::{Grant, Verdict};
use sluice_base::stats::Single;
use sluice_turn::harness::model::{Client, Relay, udp};
use sluice_wire::stun::{Method, attribute};

use crate::{CLIENT, CLIENT_2, CLIENT_V6, at, peer, seconds};

/// The other relay of IPv4, and ALTERNATE-SERVER as it stands in a message (RFC 8489, 14.15).
const OTHER: &str = "203.0.113.77:3478";
const OTHER_BYTES: [u8; 12] = [0x80, 0x23, 0, 8, 0, 1, 0x0d, 0x96, 203, 0, 113, 77];

fn drain(relay: &mut Relay, v4: Option<&str>) {
    let alternates = Alternates { v4: v4.map(at), v6: None };
    assert!(relay.message(Envelope::Order(Order::Drain(alternates))).is_empty());
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn without_an_alternate_whoever_comes_is_refused() {
    let mut relay = Relay::new();
    drain(&mut relay, None);
    let answer = Client::new(CLIENT).allocate(&mut relay, udp);
    assert_eq!(answer.code(), 508);
    assert!(!holds(&answer.bytes, &attribute::ALTERNATE_SERVER.to_be_bytes()));
    assert_eq!((relay.single(Single::AllocationsCreated), relay.relay_sockets()), (0, 0));
}

#[test]
fn whoever_comes_is_sent_to_the_alternate_of_its_family() {
    let mut relay = Relay::new();
    drain(&mut relay, Some(OTHER));
    let mut client = Client::new(CLIENT);
    let answer = client.allocate(&mut relay, udp);
    assert_eq!(answer.code(), 300);
    assert!(holds(&answer.bytes, &OTHER_BYTES));
    assert!(client.trusts(&answer), "who is sent elsewhere must know that we say it (RFC 8489, 10)");
    let answer = Client::new(CLIENT_V6).allocate(&mut relay, udp);
    assert_eq!(answer.code(), 508, "an address of another family is no use (RFC 8489, 14.15)");
}

#[test]
fn a_stranger_is_challenged_before_he_is_sent_elsewhere() {
    let mut relay = Relay::new();
    drain(&mut relay, Some(OTHER));
    let answer = Client::new(CLIENT).challenge(&mut relay);
    assert_eq!(answer.code(), 401);
    assert!(!holds(&answer.bytes, &OTHER_BYTES));
}

#[test]
fn who_is_served_already_notices_nothing() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    client.bind(&mut relay, 0x4000, peer());
    drain(&mut relay, Some(OTHER));
    for _ in 0..12 {
        relay.pass(seconds(250));
        assert_eq!(client.refresh(&mut relay, 600).code(), 200);
        assert_eq!(client.bind(&mut relay, 0x4000, peer()).code(), 200);
        assert_eq!(client.say_on(&mut relay, 0x4000, b"x").len(), 1);
        assert_eq!(relay.from_peer(peer(), relayed, b"y").len(), 1);
    }
    let another = at("198.51.100.10:6000");
    assert_eq!(client.permit(&mut relay, &[another]).code(), 200);
    assert_eq!(client.bind(&mut relay, 0x4001, another).code(), 200);
    assert_eq!(client.allocate(&mut relay, udp).code(), 437);
    client.refresh(&mut relay, 0);
    assert_eq!(client.allocate(&mut relay, udp).code(), 300, "who has ended begins elsewhere");
}

#[test]
fn an_answer_that_was_lost_is_given_again() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.challenge(&mut relay);
    let request = client.signed(Method::ALLOCATE, udp);
    let first = client.answer_to(&mut relay, &request);
    drain(&mut relay, None);
    assert_eq!(client.answer_to(&mut relay, &request), first);
}

#[test]
fn a_yes_that_comes_after_the_order_begins_nothing() {
    let mut relay = Relay::new();
    relay.decide = Box::new(|_| None);
    let mut client = Client::new(CLIENT_2);
    client.challenge(&mut relay);
    let request = client.signed(Method::ALLOCATE, udp);
    assert!(client.send(&mut relay, &request).is_empty());
    drain(&mut relay, None);
    let id = relay.questions[0].id;
    let sent = relay.verdict(id, Verdict::Allow(Grant::default()));
    assert_eq!(client.only_answer(&relay, sent).code(), 508);
    assert_eq!(relay.single(Single::AllocationsCreated), 0);
}
