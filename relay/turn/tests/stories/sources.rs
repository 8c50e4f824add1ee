//! Whoever is not known is answered seldom (per source prefix), whoever is known is not held up.

use sluice_base::stats::DropReason;
use sluice_turn::harness::model::{Client, Relay, options};
use sluice_wire::stun::Method;

use crate::{CLIENT, CLIENT_2, at, seconds};

fn limited() -> Relay {
    let mut options = options();
    (options.guard.unauthenticated_per_second, options.guard.unauthenticated_burst) = (10, 20);
    Relay::with(options)
}

fn answered(relay: &mut Relay, client: &mut Client, method: Method, n: usize) -> usize {
    (0..n)
        .filter(|_| {
            let request = client.unsigned(method, |_| {});
            client.send(relay, &request).len() == 1
        })
        .count()
}

#[test]
fn a_source_is_answered_in_its_burst_and_then_at_its_rate() {
    for method in [Method::BINDING, Method::ALLOCATE, Method::REFRESH] {
        let mut relay = limited();
        let mut client = Client::new(CLIENT);
        assert_eq!(answered(&mut relay, &mut client, method, 100), 20);
        assert_eq!(relay.drops(DropReason::SourceLimited), 80);
        relay.pass(seconds(1));
        assert_eq!(answered(&mut relay, &mut client, method, 100), 10);
    }
}

#[test]
fn a_prefix_shares_its_allowance() {
    let mut relay = limited();
    let (mut first, mut second) = (Client::new(CLIENT), Client::new(CLIENT_2));
    answered(&mut relay, &mut first, Method::BINDING, 100);
    assert_eq!(answered(&mut relay, &mut second, Method::BINDING, 1), 0);
    second.address = at("198.51.100.8:1");
    assert_eq!(answered(&mut relay, &mut second, Method::BINDING, 1), 1);
}

#[test]
fn other_answers_to_somebody_unknown_count_too() {
    let mut relay = limited();
    let mut client = Client::new(CLIENT);
    client.challenge(&mut relay);
    let mut wrong = client.clone().named("alice", "looking glass");
    let sent = (0..100)
        .filter(|_| {
            let request = wrong.signed(Method::ALLOCATE, |_| {});
            wrong.send(&mut relay, &request).len() == 1
        })
        .count();
    assert_eq!(sent, 19);
    let unknown = client.unsigned(Method::BINDING, |b| {
        b.bytes(0x7001, &[]);
    });
    assert!(client.send(&mut relay, &unknown).is_empty());
}

#[test]
fn whoever_is_known_is_not_limited() {
    let mut relay = limited();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    answered(&mut relay, &mut client, Method::BINDING, 100);
    for _ in 0..100 {
        assert_eq!(client.refresh(&mut relay, 600).code(), 200);
    }
    client.permit(&mut relay, &[crate::peer()]);
    assert_eq!(client.say(&mut relay, crate::peer(), b"x").len(), 1);
}
