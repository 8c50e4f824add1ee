//! EVEN-PORT and RESERVATION-TOKEN (RFC 8656, 7.2), also where the token belongs to another worker.

use sluice_base::io::OpenError;
use sluice_base::limits::RESERVATION_LIFETIME;
use sluice_base::message::{Envelope, WorkerMessage};
use sluice_base::{Pii, WorkerId};
use sluice_turn::harness::model::{Answer, Client, Relay, SERVER_V6, options, shared};
use sluice_wire::stun::attribute;

use crate::{CLIENT, CLIENT_2, at, millis};

fn reserve(client: &mut Client, relay: &mut Relay) -> Answer {
    client.allocate(relay, |builder| {
        builder.bytes(attribute::EVEN_PORT, &[0x80]);
    })
}

fn redeem(client: &mut Client, relay: &mut Relay, token: [u8; 8]) -> Answer {
    client.allocate(relay, |builder| {
        builder.bytes(attribute::RESERVATION_TOKEN, &token);
    })
}

#[test]
fn an_even_port_is_even() {
    let mut relay = Relay::new();
    for i in 0..50 {
        let mut client = Client::new(&format!("203.0.113.9:{}", 40_000 + i));
        let answer = client.allocate(&mut relay, |builder| {
            builder.bytes(attribute::EVEN_PORT, &[0]);
        });
        assert_eq!(answer.relayed()[0].port() % 2, 0);
        assert_eq!(answer.token(), None);
    }
}

#[test]
fn the_next_port_waits_for_its_token() {
    let mut relay = Relay::new();
    let answer = reserve(&mut Client::new(CLIENT), &mut relay);
    let even = answer.relayed()[0];
    let token = answer.token().expect("a token");
    let second = redeem(&mut Client::new(CLIENT_2), &mut relay, token);
    assert_eq!(second.relayed()[0], (even.ip(), even.port() + 1).into());
    // It is good for once.
    assert_eq!(redeem(&mut Client::new("203.0.113.9:1"), &mut relay, token).code(), 508);
}

#[test]
fn a_token_knows_its_family() {
    let mut relay = Relay::new();
    let answer = Client::new(CLIENT).allocate(&mut relay, |builder| {
        builder.u32(attribute::REQUESTED_ADDRESS_FAMILY, 2 << 24).bytes(attribute::EVEN_PORT, &[0x80]);
    });
    assert_eq!(answer.relayed()[0].ip(), at(SERVER_V6).ip());
    let second = redeem(&mut Client::new(CLIENT_2), &mut relay, answer.token().unwrap());
    assert_eq!(second.relayed()[0].ip(), at(SERVER_V6).ip());
}

#[test]
fn a_reservation_runs_out() {
    let mut options = options();
    options.ports = 50_000..=50_001;
    let mut relay = Relay::with(options);
    let mut client = Client::new(CLIENT);
    let token = reserve(&mut client, &mut relay).token().unwrap();
    assert_eq!(Client::new(CLIENT_2).allocate(&mut relay, |_| {}).code(), 508, "the port is kept");
    relay.pass(RESERVATION_LIFETIME - millis(1));
    assert_eq!(Client::new(CLIENT_2).allocate(&mut relay, |_| {}).code(), 508, "until the end");
    relay.pass(millis(100));
    assert_eq!(redeem(&mut Client::new(CLIENT_2), &mut relay, token).code(), 508);
    assert_eq!(Client::new(CLIENT_2).allocate(&mut relay, |_| {}).code(), 200);
}

#[test]
fn a_reservation_outlives_the_allocation_that_made_it() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let answer = reserve(&mut client, &mut relay);
    client.refresh(&mut relay, 0);
    let second = redeem(&mut Client::new(CLIENT_2), &mut relay, answer.token().unwrap());
    assert_eq!(second.relayed()[0].port(), answer.relayed()[0].port() + 1);
}

#[test]
fn a_guessed_token_has_no_port() {
    let mut relay = Relay::new();
    reserve(&mut Client::new(CLIENT), &mut relay);
    for token in [[0; 8], [0xff; 8], *b"\0abcdefg"] {
        assert_eq!(redeem(&mut Client::new(CLIENT_2), &mut relay, token).code(), 508);
    }
}

#[test]
fn an_even_port_without_a_free_neighbour_is_no_capacity() {
    let mut options = options();
    options.ports = 50_000..=50_000;
    let mut relay = Relay::with(options);
    let mut client = Client::new(CLIENT);
    assert_eq!(reserve(&mut client, &mut relay).code(), 508);
    let answer = client.allocate(&mut relay, |builder| {
        builder.bytes(attribute::EVEN_PORT, &[0]);
    });
    assert_eq!(answer.code(), 200);
}

#[test]
fn a_busy_even_port_takes_its_neighbour_with_it() {
    let mut options = options();
    options.ports = 50_000..=50_003;
    let mut relay = Relay::with(options);
    let mut first = true;
    relay.opener = Box::new(move |_| if std::mem::take(&mut first) { Err(OpenError::InUse) } else { Ok(()) });
    let answer = reserve(&mut Client::new(CLIENT), &mut relay);
    assert_ne!(answer.relayed()[0].port(), relay.opens[0].local.port());
    redeem(&mut Client::new(CLIENT_2), &mut relay, answer.token().unwrap()).relayed();
    // Nothing of the busy pair was lost.
    for i in 0..2 {
        Client::new(&format!("203.0.113.9:{i}")).allocated(&mut relay);
    }
}

#[test]
fn a_reserved_port_that_another_process_took_is_no_capacity() {
    let mut relay = Relay::new();
    let token = reserve(&mut Client::new(CLIENT), &mut relay).token().unwrap();
    relay.opener = Box::new(|_| Err(OpenError::InUse));
    assert_eq!(redeem(&mut Client::new(CLIENT_2), &mut relay, token).code(), 508);
    assert_eq!(relay.opens.len(), 2);
}

#[test]
fn too_many_reservations_are_no_capacity() {
    let mut options = options();
    options.ports = 10_000..=65_535;
    let mut relay = Relay::with(options);
    let mut codes = vec![];
    for i in 0..1030u32 {
        let mut client = Client::new(&format!("203.0.113.9:{}", 10_000 + i));
        let answer = reserve(&mut client, &mut relay);
        // A token was asked for: without one it is no success (RFC 8656, 7.2).
        assert_eq!(answer.code() == 200, answer.token().is_some());
        codes.push(answer.code());
        client.refresh(&mut relay, 0);
    }
    assert_eq!(codes.iter().filter(|code| **code == 200).count(), 1024);
    assert!(codes[1024..].iter().all(|code| *code == 508));
}

/// Two workers of one relay.
fn pair() -> (Relay, Relay) {
    let mut options = options();
    options.workers = 2;
    let shared = shared(&options);
    let first = Relay::sharing(options.clone(), shared.clone());
    options.worker = WorkerId(1);
    (first, Relay::sharing(options, shared))
}

fn carry(from: &mut Relay, to: &mut Relay) -> Vec<sluice_turn::harness::model::Sent> {
    let me = from.server.worker();
    let mut sent = vec![];
    for (worker, message) in std::mem::take(&mut from.told) {
        assert_eq!(worker, to.server.worker());
        sent.extend(to.message(Envelope::Worker(me, message)));
    }
    sent
}

#[test]
fn a_token_of_another_worker_is_redeemed_there() {
    let (mut first, mut second) = pair();
    let answer = reserve(&mut Client::new(CLIENT), &mut first);
    let token = answer.token().unwrap();
    let mut client = Client::new(CLIENT_2);
    client.challenge(&mut second);
    let request = client.signed(sluice_wire::stun::Method::ALLOCATE, |builder| {
        sluice_turn::harness::model::udp(builder);
        builder.bytes(attribute::RESERVATION_TOKEN, &token);
    });
    assert!(client.send(&mut second, &request).is_empty());
    carry(&mut second, &mut first);
    let sent = carry(&mut first, &mut second);
    let redeemed = client.only_answer(&second, sent).relayed()[0];
    assert_eq!(redeemed.port(), answer.relayed()[0].port() + 1);
    // The port goes home with the allocation.
    assert_eq!(client.refresh(&mut second, 0).code(), 200);
    assert!(
        matches!(&second.told[..], [(WorkerId(0), WorkerMessage::ReturnPort(port))] if port.port == redeemed.port())
    );
}

#[test]
fn a_retransmission_meanwhile_asks_nothing_again() {
    let (mut first, mut second) = pair();
    let token = reserve(&mut Client::new(CLIENT), &mut first).token().unwrap();
    let mut client = Client::new(CLIENT_2);
    client.challenge(&mut second);
    let request = client.signed(sluice_wire::stun::Method::ALLOCATE, |builder| {
        sluice_turn::harness::model::udp(builder);
        builder.bytes(attribute::RESERVATION_TOKEN, &token);
    });
    assert!(client.send(&mut second, &request).is_empty());
    assert!(client.send(&mut second, &request).is_empty());
    assert_eq!(second.questions.len(), 1, "one request, one question");
    assert_eq!(second.told.len(), 1);
    carry(&mut second, &mut first);
    let sent = carry(&mut first, &mut second);
    let answer = client.only_answer(&second, sent);
    assert_eq!(answer.code(), 200);
    assert_eq!(client.answer_to(&mut second, &request), answer);
}

#[test]
fn a_worker_that_does_not_answer_is_no_capacity() {
    let (mut first, mut second) = pair();
    let token = reserve(&mut Client::new(CLIENT), &mut first).token().unwrap();
    let mut client = Client::new(CLIENT_2);
    client.challenge(&mut second);
    let request = client.signed(sluice_wire::stun::Method::ALLOCATE, |builder| {
        sluice_turn::harness::model::udp(builder);
        builder.bytes(attribute::RESERVATION_TOKEN, &token);
    });
    assert!(client.send(&mut second, &request).is_empty());
    let sent = second.pass(millis(500));
    assert_eq!(client.only_answer(&second, sent).code(), 508);
    // A port that comes too late goes back.
    carry(&mut second, &mut first);
    assert!(carry(&mut first, &mut second).is_empty());
    assert!(matches!(second.told[..], [(WorkerId(0), WorkerMessage::ReturnPort(_))]));
    carry(&mut second, &mut first);
}

#[test]
fn a_token_of_no_worker_is_no_capacity() {
    let (_, mut second) = pair();
    for owner in [0, 2, 255] {
        let mut token = [9; 8];
        token[0] = owner;
        let mut client = Client::new(CLIENT_2);
        client.challenge(&mut second);
        let request = client.signed(sluice_wire::stun::Method::ALLOCATE, |builder| {
            sluice_turn::harness::model::udp(builder);
            builder.bytes(attribute::RESERVATION_TOKEN, &token);
        });
        let sent = client.send(&mut second, &request);
        let sent = if owner == 0 { second.pass(millis(500)) } else { sent };
        assert_eq!(client.only_answer(&second, sent).code(), 508);
    }
}

#[test]
fn workers_do_not_share_ports() {
    let mut options = options();
    (options.workers, options.ports) = (2, 50_000..=50_019);
    let shared = shared(&options);
    let mut seen = std::collections::HashSet::new();
    for worker in 0..2 {
        options.worker = WorkerId(worker);
        let mut relay = Relay::sharing(options.clone(), shared.clone());
        for i in 0..10 {
            let mut client = Client::new(&format!("203.0.113.{worker}:{}", 1000 + i));
            assert!(seen.insert(client.allocated(&mut relay).port()));
        }
        let mut last = Client::new("203.0.113.77:1");
        assert_eq!(last.allocate(&mut relay, |_| {}).code(), 508);
        assert_eq!(Pii::new(last.address), Pii::new(at("203.0.113.77:1")));
    }
}
