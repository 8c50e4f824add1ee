//! Binding (RFC 8489, 3): needs no credentials.

use sluice_base::limits::BINDING_ANSWER_BYTES_MAX;
use sluice_base::stats::{Code, Counter, DropReason, Method as Label};
use sluice_turn::harness::model::{Client, Relay};
use sluice_wire::stun::{Class, Method, attribute};

use crate::{CLIENT, CLIENT_V6};

#[test]
fn a_client_learns_its_address() {
    let mut relay = Relay::new();
    for address in [CLIENT, CLIENT_V6] {
        let mut client = Client::new(address);
        let request = client.unsigned(Method::BINDING, |_| {});
        let answer = client.answer_to(&mut relay, &request);
        assert_eq!(answer.message().class, Class::Success);
        assert_eq!(answer.message().attributes.xor_mapped, Some(client.address));
        assert!(!answer.message().attributes.fingerprint);
    }
    assert_eq!(relay.count(Counter::request(Label::Binding, Code::Ok)), 2);
    assert_eq!(relay.all_drops(), 0);
}

#[test]
fn the_longest_answer_stays_short() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT_V6);
    client.fingerprint = true;
    let request = client.unsigned(Method::BINDING, |_| {});
    let answer = client.answer_to(&mut relay, &request);
    assert!(answer.message().attributes.fingerprint);
    assert!(answer.bytes.len() <= BINDING_ANSWER_BYTES_MAX);
}

#[test]
fn a_connectivity_check_is_answered() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let request = client.unsigned(Method::BINDING, |builder| {
        builder.u32(attribute::PRIORITY, 1).bytes(attribute::USE_CANDIDATE, &[]).bytes(attribute::USERNAME, b"a:b");
    });
    assert_eq!(client.answer_to(&mut relay, &request).code(), 200);
}

#[test]
fn what_must_be_understood_and_is_not_is_named() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let request = client.unsigned(Method::BINDING, |builder| {
        builder.bytes(0x7001, &[1]).bytes(0xc001, &[2]).bytes(0x7002, &[3; 9]);
    });
    let answer = client.answer_to(&mut relay, &request);
    assert_eq!(answer.code(), 420);
    assert_eq!(answer.message().attributes.unknown_attributes, Some(&[0x70, 1, 0x70, 2][..]));
}

#[test]
fn naming_what_is_unknown_stays_short_too() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT_V6);
    client.fingerprint = true;
    let request = client.unsigned(Method::BINDING, |builder| {
        (0x7001..0x7010).for_each(|kind| {
            builder.bytes(kind, &[]);
        });
    });
    let answer = client.answer_to(&mut relay, &request);
    assert_eq!(answer.code(), 420);
    assert!(answer.bytes.len() <= BINDING_ANSWER_BYTES_MAX, "{}", answer.bytes.len());
}

#[test]
fn an_indication_is_not_answered() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let indication = client.indication(Method::BINDING, |_| {});
    assert!(client.send(&mut relay, &indication).is_empty());
    assert_eq!(relay.drops(DropReason::UnexpectedStun), 1);
}
