//! What somebody unknown is told (RFC 8489, 9.2.4).

use sluice_base::limits::{REALM_BYTES_MAX, SOFTWARE_BYTES_MAX, UNAUTHENTICATED_ANSWER_BYTES_MAX};
use sluice_base::stats::{Code, Counter, Method as Label};
use sluice_turn::harness::model::{Client, REALM, Relay, options, udp};
use sluice_wire::stun::{Method, attribute};

use crate::{CLIENT, CLIENT_V6};

const METHODS: [Method; 4] = [Method::ALLOCATE, Method::REFRESH, Method::CREATE_PERMISSION, Method::CHANNEL_BIND];

#[test]
fn every_method_is_challenged() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    for method in METHODS {
        let request = client.unsigned(method, udp);
        let answer = client.answer_to(&mut relay, &request);
        let message = answer.message();
        assert_eq!((answer.code(), message.method), (401, method));
        assert_eq!(message.attributes.realm, Some(REALM.as_bytes()));
        assert!(message.attributes.nonce.is_some_and(|nonce| nonce.starts_with(b"obMatJos2")));
        // SHA-256 before MD5.
        assert_eq!(message.attributes.password_algorithms, Some(&[0, 2, 0, 0, 0, 1, 0, 0][..]));
        assert!(message.attributes.message_integrity.is_none());
        assert!(message.attributes.username.is_none());
    }
    assert_eq!(relay.count(Counter::request(Label::Allocate, Code::Unauthenticated)), 1);
    assert!(relay.questions.is_empty());
}

#[test]
fn a_challenge_stays_short_with_the_longest_realm() {
    let mut options = options();
    options.software = Some("s".repeat(SOFTWARE_BYTES_MAX));
    let mut listeners = options.listeners.to_vec();
    listeners.iter_mut().for_each(|listener| listener.realm = "r".repeat(REALM_BYTES_MAX));
    options.listeners = listeners.into();
    let mut relay = Relay::with(options);
    for address in [CLIENT, CLIENT_V6] {
        let mut client = Client::new(address);
        client.fingerprint = true;
        for method in METHODS {
            let request = client.unsigned(method, |_| {});
            let answer = client.answer_to(&mut relay, &request);
            assert_eq!(answer.code(), 401);
            assert!(answer.bytes.len() <= UNAUTHENTICATED_ANSWER_BYTES_MAX, "{}", answer.bytes.len());
        }
    }
}

#[test]
fn each_listener_tells_its_realm() {
    let mut options = options();
    let mut listeners = options.listeners.to_vec();
    listeners[1].realm = "six.example".to_owned();
    options.listeners = listeners.into();
    let mut relay = Relay::with(options);
    let (mut four, mut six) = (Client::new(CLIENT), Client::new(CLIENT_V6));
    four.challenge(&mut relay);
    six.challenge(&mut relay);
    assert_eq!((&four.realm[..], &six.realm[..]), (REALM.as_bytes(), &b"six.example"[..]));
    assert_eq!(four.allocate(&mut relay, |_| {}).code(), 200);
    assert_eq!(six.allocate(&mut relay, |_| {}).code(), 200);
}

#[test]
fn integrity_without_name_realm_or_nonce_is_a_bad_request() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.challenge(&mut relay);
    let (realm, nonce) = (client.realm.clone(), client.nonce.clone());
    for missing in 0..3 {
        let request = client.unsigned(Method::ALLOCATE, |builder| {
            udp(builder);
            for (i, (kind, value)) in
                [(attribute::USERNAME, &b"alice"[..]), (attribute::REALM, &realm), (attribute::NONCE, &nonce)]
                    .into_iter()
                    .enumerate()
            {
                if i != missing {
                    builder.bytes(kind, value);
                }
            }
            builder.integrity_sha1(|_| [1; 20]);
        });
        let answer = client.answer_to(&mut relay, &request);
        assert_eq!(answer.code(), 400);
        assert!(answer.message().attributes.nonce.is_none());
    }
}

#[test]
fn a_fingerprint_is_answered_with_one() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.fingerprint = true;
    assert!(client.challenge(&mut relay).message().attributes.fingerprint);
    assert!(client.allocate(&mut relay, |_| {}).message().attributes.fingerprint);
}

#[test]
fn software_is_named_to_those_who_are_known_and_only_if_configured() {
    let mut relay = Relay::with(options());
    let answer = Client::new(CLIENT).allocate(&mut relay, |_| {});
    assert!(!answer.bytes.windows(6).any(|bytes| bytes == b"sluice"));
    let mut options = options();
    options.software = Some("sluice".to_owned());
    let mut relay = Relay::with(options);
    let mut client = Client::new(CLIENT);
    let challenge = client.challenge(&mut relay);
    assert!(!challenge.bytes.windows(6).any(|bytes| bytes == b"sluice"));
    let answer = client.allocate(&mut relay, |_| {});
    assert!(answer.bytes.windows(6).any(|bytes| bytes == b"sluice"));
}
