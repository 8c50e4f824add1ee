//! Every way of proving a password (RFC 8489, 9.2).

use sluice_turn::harness::model::{Client, Proof, Relay, options};
use sluice_wire::stun::{Method, PasswordAlgorithm, attribute};

use crate::{CLIENT, CLIENT_2, CLIENT_V6};

const ALGORITHMS: [Option<PasswordAlgorithm>; 3] =
    [None, Some(PasswordAlgorithm::Md5), Some(PasswordAlgorithm::Sha256)];

#[test]
fn every_algorithm_goes_with_every_integrity() {
    for algorithm in ALGORITHMS {
        for sha256_bytes in [0, 16, 20, 24, 28, 32] {
            let mut relay = Relay::new();
            let proof = Proof { algorithm, sha1: sha256_bytes == 0, sha256_bytes, hidden: false };
            let mut client = Client::new(CLIENT).proving(proof);
            assert_eq!(client.allocate(&mut relay, |_| {}).code(), 200, "{proof:?}");
            assert_eq!(client.refresh(&mut relay, 600).code(), 200);
            assert_eq!(client.refresh(&mut relay, 0).code(), 200);
        }
    }
}

#[test]
fn a_tag_that_is_too_short_proves_nothing() {
    let mut relay = Relay::new();
    for sha256_bytes in [4, 12, 15, 17] {
        let mut client = Client::new(CLIENT).proving(Proof { sha256_bytes, ..Proof::MODERN });
        client.challenge(&mut relay);
        // The attribute's own padding is left out of a message that has to end on four bytes.
        let mut request = client.signed(Method::ALLOCATE, |_| {});
        request.resize(request.len().next_multiple_of(4), 0);
        let length = (request.len() - 20) as u16;
        request[2..4].copy_from_slice(&length.to_be_bytes());
        assert!(matches!(client.answer_to(&mut relay, &request).code(), 400 | 401));
    }
    assert_eq!(relay.server.allocations().count(), 0);
}

#[test]
fn of_both_integrities_the_stronger_counts() {
    let mut relay = Relay::new();
    let both = Proof { sha1: true, ..Proof::MODERN };
    let mut client = Client::new(CLIENT).proving(both);
    client.challenge(&mut relay);
    let request = client.signed(Method::ALLOCATE, sluice_turn::harness::model::udp);
    let mut broken = request.clone();
    *broken.last_mut().unwrap() ^= 1;
    assert_eq!(client.answer_to(&mut relay, &broken).code(), 401);
    let answer = client.answer_to(&mut relay, &request);
    assert_eq!(answer.code(), 200);
    assert!(answer.message().attributes.message_integrity.is_none());
}

#[test]
fn a_wrong_password_is_refused() {
    for proof in [Proof::CLASSIC, Proof::MODERN] {
        let mut relay = Relay::new();
        let mut client = Client::new(CLIENT).named("alice", "looking glass").proving(proof);
        let answer = client.allocate(&mut relay, |_| {});
        assert_eq!(answer.code(), 401);
        assert!(answer.message().attributes.nonce.is_some());
        assert!(!client.trusts(&answer));
        assert_eq!(Client::new(CLIENT).named("nobody", "wonderland").allocate(&mut relay, |_| {}).code(), 401);
        assert!(relay.questions.is_empty());
    }
}

#[test]
fn a_wrong_password_does_not_touch_an_allocation() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    let mut thief = client.clone().named("alice", "looking glass");
    assert_eq!(thief.refresh(&mut relay, 0).code(), 401);
    assert_eq!(client.refresh(&mut relay, 600).code(), 200);
}

#[test]
fn a_changed_message_is_refused() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.challenge(&mut relay);
    let request = client.signed(Method::ALLOCATE, |builder| {
        sluice_turn::harness::model::udp(builder);
        builder.u32(attribute::LIFETIME, 700);
    });
    let mut changed = request.clone();
    let lifetime = changed.windows(4).position(|w| w == 700u32.to_be_bytes()).unwrap();
    changed[lifetime + 3] ^= 1;
    assert_eq!(client.answer_to(&mut relay, &changed).code(), 401);
    assert_eq!(client.answer_to(&mut relay, &request).code(), 200);
}

#[test]
fn another_user_has_the_wrong_credentials() {
    let mut relay = Relay::new();
    let mut alice = Client::new(CLIENT);
    alice.allocated(&mut relay);
    let mut eve = alice.clone().named("eve", "apple");
    assert_eq!(eve.refresh(&mut relay, 0).code(), 441);
    assert_eq!(eve.permit(&mut relay, &[crate::peer()]).code(), 441);
    assert_eq!(eve.bind(&mut relay, 0x4000, crate::peer()).code(), 441);
    assert_eq!(eve.allocate(&mut relay, |_| {}).code(), 441);
    assert_eq!(relay.questions.len(), 1);
    assert_eq!(alice.refresh(&mut relay, 600).code(), 200);
}

#[test]
fn an_offer_that_was_changed_on_its_way_is_a_bad_request() {
    let mut relay = Relay::new();
    for offer in
        [&[0, 1, 0, 0][..], &[0, 1, 0, 0, 0, 2, 0, 0], &[0, 2, 0, 0], &[0, 2, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0], &[]]
    {
        let mut client = Client::new(CLIENT).proving(Proof::MODERN);
        client.challenge(&mut relay);
        client.algorithms = offer.to_vec();
        assert_eq!(client.allocate(&mut relay, |_| {}).code(), 400, "{offer:?}");
    }
}

#[test]
fn one_of_both_algorithm_attributes_is_a_bad_request() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.challenge(&mut relay);
    let algorithms = client.algorithms.clone();
    let request = client.signed(Method::ALLOCATE, |builder| {
        builder.bytes(attribute::PASSWORD_ALGORITHMS, &algorithms);
    });
    assert_eq!(client.answer_to(&mut relay, &request).code(), 400);
    let request = client.signed(Method::ALLOCATE, |builder| {
        builder.password_algorithm(PasswordAlgorithm::Sha256);
    });
    assert_eq!(client.answer_to(&mut relay, &request).code(), 400);
    let mut other = client.proving(Proof { algorithm: Some(PasswordAlgorithm::Other(3)), ..Proof::CLASSIC });
    assert_eq!(other.allocate(&mut relay, |_| {}).code(), 400);
}

fn static_only() -> Relay {
    let mut options = options();
    let mut tenants = options.tenants.to_vec();
    tenants.iter_mut().for_each(|tenant| tenant.secrets.clear());
    options.tenants = tenants.into();
    Relay::with(options)
}

#[test]
fn a_hidden_name_is_found_where_every_user_is_static() {
    let mut relay = static_only();
    for (address, name, password) in
        [(CLIENT, "alice", "wonderland"), (CLIENT_2, "acme/bob", "builder"), (CLIENT_V6, "main/eve", "apple")]
    {
        for proof in [Proof { hidden: true, ..Proof::MODERN }, Proof { hidden: true, ..Proof::CLASSIC }] {
            let mut client = Client::new(address).named(name, password).proving(proof);
            assert_eq!(client.allocate(&mut relay, |_| {}).code(), 200, "{name}");
            assert_eq!(client.refresh(&mut relay, 0).code(), 200);
        }
    }
    // A name without a tenant is the default tenant's, hidden or not.
    for hidden in [true, false] {
        let mut client = Client::new(CLIENT).named("bob", "builder").proving(Proof { hidden, ..Proof::MODERN });
        assert_eq!(client.allocate(&mut relay, |_| {}).code(), 401);
    }
}

#[test]
fn a_hidden_name_is_unknown_where_names_are_time_limited() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT).proving(Proof { hidden: true, ..Proof::MODERN });
    assert_eq!(client.allocate(&mut relay, |_| {}).code(), 401);
}

#[test]
fn the_same_user_may_hide_its_name_later() {
    let mut relay = static_only();
    let mut open = Client::new(CLIENT);
    open.allocated(&mut relay);
    let mut hidden = open.clone().proving(Proof { hidden: true, ..Proof::CLASSIC });
    assert_eq!(hidden.refresh(&mut relay, 600).code(), 200);
}
