//! A client that has heard nothing asks again with the same bytes (RFC 8489, 6.2.1).

use sluice_base::limits::REMEMBERED_ANSWER_LIFETIME;
use sluice_base::stats::{Code, Counter, DropReason, Method as Label, Single};
use sluice_turn::harness::model::{Client, Proof, Relay, channel_data, udp};
use sluice_wire::stun::{Method, attribute};

use crate::{CLIENT, at, millis, peer, seconds};

fn twice(relay: &mut Relay, client: &Client, request: &[u8]) -> u16 {
    let first = client.answer_to(relay, request);
    let questions = relay.questions.len();
    relay.pass(millis(500));
    let second = client.answer_to(relay, request);
    assert_eq!(first, second, "answered alike");
    assert_eq!(relay.questions.len(), questions, "no second question");
    first.code()
}

#[test]
fn every_method_is_answered_alike() {
    for proof in [Proof::CLASSIC, Proof::MODERN] {
        let mut relay = Relay::new();
        let mut client = Client::new(CLIENT).proving(proof);
        client.challenge(&mut relay);
        let allocate = client.signed(Method::ALLOCATE, udp);
        assert_eq!(twice(&mut relay, &client, &allocate), 200);
        let refresh = client.signed(Method::REFRESH, |b| {
            b.u32(attribute::LIFETIME, 700);
        });
        assert_eq!(twice(&mut relay, &client, &refresh), 200);
        let permit = client.signed(Method::CREATE_PERMISSION, |b| {
            b.xor_address(attribute::XOR_PEER_ADDRESS, peer());
        });
        assert_eq!(twice(&mut relay, &client, &permit), 200);
        let bind = client.signed(Method::CHANNEL_BIND, |b| {
            b.channel(0x4000).xor_address(attribute::XOR_PEER_ADDRESS, peer());
        });
        assert_eq!(twice(&mut relay, &client, &bind), 200);
        let end = client.signed(Method::REFRESH, |b| {
            b.u32(attribute::LIFETIME, 0);
        });
        assert_eq!(twice(&mut relay, &client, &end), 200);
        assert_eq!(relay.single(Single::AllocationsCreated), 1);
        assert_eq!(relay.opens.len(), 1);
    }
}

#[test]
fn errors_are_answered_alike() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.challenge(&mut relay);
    let early = client.signed(Method::REFRESH, |_| {});
    assert_eq!(twice(&mut relay, &client, &early), 437);
    let bad = client.signed(Method::ALLOCATE, |_| {});
    assert_eq!(twice(&mut relay, &client, &bad), 400);
    client.allocated(&mut relay);
    // Allocated meanwhile, and still the answer that it had.
    assert_eq!(client.answer_to(&mut relay, &early).code(), 437);
}

#[test]
fn a_retransmission_extends_nothing() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    let permit = client.signed(Method::CREATE_PERMISSION, |b| {
        b.xor_address(attribute::XOR_PEER_ADDRESS, peer());
    });
    client.answer_to(&mut relay, &permit);
    relay.pass(seconds(30));
    client.answer_to(&mut relay, &permit);
    relay.pass(seconds(270));
    assert!(client.say(&mut relay, peer(), b"x").is_empty());
}

#[test]
fn a_deletion_is_answered_alike_also_after_a_new_allocation() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    let end = client.signed(Method::REFRESH, |b| {
        b.u32(attribute::LIFETIME, 0);
    });
    client.answer_to(&mut relay, &end);
    let relayed = client.allocated(&mut relay);
    assert_eq!(client.answer_to(&mut relay, &end).code(), 200);
    assert!(relay.socket_at(relayed).is_some(), "an old duplicate does not end the new allocation");
}

#[test]
fn answers_are_forgotten_in_the_end() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.challenge(&mut relay);
    let allocate = client.signed(Method::ALLOCATE, udp);
    assert_eq!(client.answer_to(&mut relay, &allocate).code(), 200);
    relay.pass(REMEMBERED_ANSWER_LIFETIME - millis(1));
    assert_eq!(client.answer_to(&mut relay, &allocate).code(), 200);
    relay.pass(millis(1));
    assert_eq!(client.answer_to(&mut relay, &allocate).code(), 437);
}

#[test]
fn an_answer_is_for_who_asked() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.challenge(&mut relay);
    let allocate = client.signed(Method::ALLOCATE, udp);
    client.answer_to(&mut relay, &allocate);
    // The same bytes from somewhere else are a stale nonce.
    let thief = Client::new("203.0.113.8:40000");
    assert_eq!(thief.answer_to(&mut relay, &allocate).code(), 438);
    // The same transaction with a wrong signature is nobody's.
    let mut forged = allocate.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(client.answer_to(&mut relay, &forged).code(), 401);
}

#[test]
fn a_duplicate_of_every_packet_changes_nothing() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.challenge(&mut relay);
    let requests = [
        client.signed(Method::ALLOCATE, udp),
        client.signed(Method::CREATE_PERMISSION, |b| {
            b.xor_address(attribute::XOR_PEER_ADDRESS, peer());
        }),
        client.signed(Method::CHANNEL_BIND, |b| {
            b.channel(0x4000).xor_address(attribute::XOR_PEER_ADDRESS, at("198.51.100.10:1"));
        }),
        client.signed(Method::REFRESH, |b| {
            b.u32(attribute::LIFETIME, 900);
        }),
        client.signed(Method::REFRESH, |b| {
            b.u32(attribute::LIFETIME, 0);
        }),
    ];
    let data = [channel_data(0x4000, b"data"), client.send_indication(peer(), b"data")];
    for request in &requests {
        for _ in 0..3 {
            assert_eq!(client.answer_to(&mut relay, request).code(), 200);
        }
        let sent: usize = data.iter().map(|bytes| client.send(&mut relay, bytes).len()).sum();
        assert!(sent <= 2);
    }
    assert_eq!(relay.questions.len(), 4);
    assert_eq!(relay.single(Single::AllocationsCreated), 1);
    assert_eq!(relay.relay_sockets(), 0);
    assert_eq!(relay.count(Counter::request(Label::Allocate, Code::Ok)), 1, "one request, however often it came");
    assert_eq!(relay.drops(DropReason::BadStun), 0);
}
