//! Nonces: stateless, bound to the client, and never all stale at once.

use std::collections::HashSet;

use sluice_turn::harness::model::{Client, Relay, options, shared};
use sluice_wire::stun::Method;

use crate::{CLIENT, CLIENT_2, at, seconds};

#[test]
fn an_expired_nonce_is_replaced_by_a_new_one() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    for _ in 0..6 {
        relay.pass(seconds(590));
        assert_eq!(client.refresh(&mut relay, 600).code(), 200);
    }
    relay.pass(seconds(590));
    let answer = client.refresh(&mut relay, 600);
    assert_eq!(answer.code(), 438);
    let fresh = answer.message().attributes.nonce.unwrap().to_vec();
    assert_eq!(answer.message().attributes.realm, Some(&client.realm[..]));
    assert_eq!(answer.message().attributes.password_algorithms, Some(&client.algorithms[..]));
    assert_ne!(fresh, client.nonce);
    client.nonce = fresh;
    assert_eq!(client.refresh(&mut relay, 600).code(), 200);
}

#[test]
fn a_nonce_is_valid_as_long_as_configured() {
    let mut options = options();
    options.nonce_lifetime = seconds(60);
    let mut relay = Relay::with(options);
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    relay.pass(seconds(60));
    assert_eq!(client.refresh(&mut relay, 600).code(), 200);
    relay.pass(seconds(1));
    assert_eq!(client.refresh(&mut relay, 600).code(), 438);
}

#[test]
fn a_nonce_belongs_to_one_client() {
    let mut relay = Relay::new();
    let mut first = Client::new(CLIENT);
    first.challenge(&mut relay);
    for thief in [CLIENT_2, "203.0.113.7:40001"] {
        let mut thief = Client::new(thief);
        (thief.realm, thief.nonce) = (first.realm.clone(), first.nonce.clone());
        assert_eq!(thief.allocate(&mut relay, |_| {}).code(), 438);
    }
    assert_eq!(first.allocate(&mut relay, |_| {}).code(), 200);
}

#[test]
fn a_nonce_of_nobody_is_stale() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.challenge(&mut relay);
    let good = client.nonce.clone();
    let mut bad: Vec<Vec<u8>> =
        vec![vec![], b"obMatJos2".to_vec(), b"x".repeat(127), vec![0xff; 45], good[..44].to_vec()];
    for at in 0..good.len() {
        let mut changed = good.clone();
        changed[at] ^= 1;
        bad.push(changed);
    }
    for nonce in bad {
        client.nonce = nonce;
        let request = client.signed(Method::ALLOCATE, |_| {});
        assert_eq!(client.answer_to(&mut relay, &request).code(), 438);
    }
}

#[test]
fn every_worker_knows_the_nonces_of_the_others() {
    let mut options = options();
    options.workers = 2;
    let shared = shared(&options);
    let mut first = Relay::sharing(options.clone(), shared.clone());
    options.worker = sluice_base::WorkerId(1);
    let mut second = Relay::sharing(options, shared);
    let mut client = Client::new(CLIENT);
    client.challenge(&mut first);
    assert_eq!(client.allocate(&mut second, |_| {}).code(), 200);
}

#[test]
fn clients_that_came_one_by_one_become_stale_one_by_one() {
    let mut relay = Relay::new();
    let mut clients: Vec<_> = (0..60)
        .map(|i| {
            let mut client = Client::new(CLIENT);
            client.address = at(&format!("203.0.113.9:{}", 40_000 + i));
            client.allocated(&mut relay);
            relay.pass(seconds(1));
            client
        })
        .collect();
    let mut stale = HashSet::new();
    for _ in 0..420 {
        relay.pass(seconds(9));
        let mut now = 0;
        for (i, client) in clients.iter_mut().enumerate().filter(|(i, _)| !stale.contains(i)).collect::<Vec<_>>() {
            if client.refresh(&mut relay, 600).code() == 438 {
                now += 1;
                stale.insert(i);
            }
        }
        assert!(now <= 10, "{now} at once");
    }
    assert_eq!(stale.len(), 60);
}

#[test]
fn the_security_features_are_the_rightmost_bits() {
    // RFC 8489, 18.1 with erratum 6290: bit 0 is the rightmost; password algorithms is bit 0, user name
    // anonymity bit 1.
    let mut client = Client::new(CLIENT);
    client.challenge(&mut Relay::new());
    assert_eq!(&client.nonce[..13], b"obMatJos2AAAB");
    let mut options = options();
    let mut tenants = options.tenants.to_vec();
    tenants.iter_mut().for_each(|tenant| tenant.secrets.clear());
    options.tenants = tenants.into();
    client.challenge(&mut Relay::with(options));
    assert_eq!(&client.nonce[..13], b"obMatJos2AAAD");
}
