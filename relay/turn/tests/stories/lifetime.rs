//! Lifetimes, and Refresh (RFC 8656, 7.2 and 8.2).

use sluice_base::policy::{Grant, Hook, Verdict};
use sluice_base::stats::Single;
use sluice_turn::harness::model::{Client, Relay, options};
use sluice_wire::stun::{Method, attribute};

use crate::{CLIENT, millis, seconds};

#[test]
fn a_lifetime_lies_between_the_default_and_the_longest() {
    for (asked, given) in [
        (None, 600),
        (Some(0), 600),
        (Some(1), 600),
        (Some(600), 600),
        (Some(601), 601),
        (Some(3600), 3600),
        (Some(3601), 3600),
        (Some(u32::MAX), 3600),
    ] {
        let mut relay = Relay::new();
        let mut client = Client::new(CLIENT);
        let answer = client.allocate(&mut relay, |builder| {
            if let Some(asked) = asked {
                builder.u32(attribute::LIFETIME, asked);
            }
        });
        assert_eq!(answer.lifetime(), Some(given), "{asked:?}");
        assert_eq!(relay.questions[0].lifetime, Some(seconds(u64::from(given))));
        if asked != Some(0) {
            let answer = client.ask(&mut relay, Method::REFRESH, |builder| {
                if let Some(asked) = asked {
                    builder.u32(attribute::LIFETIME, asked);
                }
            });
            assert_eq!(answer.lifetime(), Some(given), "{asked:?}");
        }
    }
}

#[test]
fn lifetimes_are_configurable() {
    let mut options = options();
    (options.allocation_lifetime, options.allocation_lifetime_max) = (seconds(30), seconds(90));
    let mut relay = Relay::with(options);
    let mut client = Client::new(CLIENT);
    assert_eq!(client.allocate(&mut relay, |_| {}).lifetime(), Some(30));
    assert_eq!(client.refresh(&mut relay, 1000).lifetime(), Some(90));
}

#[test]
fn an_allocation_ends_with_its_lifetime() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    relay.pass(seconds(600) - millis(1));
    assert!(relay.socket_at(relayed).is_some());
    relay.pass(millis(100));
    assert_eq!(relay.socket_at(relayed), None);
    assert_eq!(client.refresh(&mut relay, 600).code(), 437);
    assert_eq!(relay.single(Single::AllocationsExpired), 1);
    assert_eq!(relay.single(Single::Allocations), 0);
}

#[test]
fn a_refresh_keeps_it() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    relay.pass(seconds(599));
    assert_eq!(client.refresh(&mut relay, 1800).lifetime(), Some(1800));
    relay.pass(seconds(1799));
    assert!(relay.socket_at(relayed).is_some());
    relay.pass(seconds(2));
    assert_eq!(relay.socket_at(relayed), None);
}

#[test]
fn a_shorter_refresh_ends_it_sooner() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let answer = client.allocate(&mut relay, |builder| {
        builder.u32(attribute::LIFETIME, 3600);
    });
    let relayed = answer.relayed()[0];
    assert_eq!(client.refresh(&mut relay, 600).lifetime(), Some(600));
    relay.pass(seconds(601));
    assert_eq!(relay.socket_at(relayed), None, "nothing of an allocation outlives its lifetime");
    assert_eq!(relay.single(Single::Allocations), 0);
}

#[test]
fn a_refresh_of_zero_ends_it_at_once_and_asks_nobody() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    let answer = client.refresh(&mut relay, 0);
    assert_eq!((answer.code(), answer.lifetime()), (200, Some(0)));
    assert_eq!(relay.socket_at(relayed), None);
    assert_eq!(relay.questions.len(), 1);
    assert_eq!(relay.single(Single::AllocationsEnded), 1);
    assert_eq!(client.refresh(&mut relay, 0).code(), 437);
}

#[test]
fn a_refresh_names_a_family_that_is_there() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    for (family, code) in [(1u32, 200), (2, 443), (9, 400)] {
        let answer = client.ask(&mut relay, Method::REFRESH, |builder| {
            builder.u32(attribute::REQUESTED_ADDRESS_FAMILY, family << 24);
        });
        assert_eq!(answer.code(), code, "{family}");
    }
}

#[test]
fn without_an_allocation_there_is_nothing_to_refresh() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    assert_eq!(client.refresh(&mut relay, 600).code(), 437);
    assert_eq!(client.refresh(&mut relay, 0).code(), 437);
    assert!(relay.questions.is_empty());
}

#[test]
fn a_policy_shortens_a_lifetime() {
    let mut relay = Relay::new();
    relay.decide = Box::new(|question| {
        let lifetime_max = matches!(question.hook, Hook::Allocate | Hook::Refresh).then(|| seconds(45));
        Some(Verdict::Allow(Grant { lifetime_max, ..Grant::default() }))
    });
    let mut client = Client::new(CLIENT);
    let answer = client.allocate(&mut relay, |_| {});
    assert_eq!(answer.lifetime(), Some(45));
    relay.pass(seconds(44));
    assert_eq!(client.refresh(&mut relay, 3600).lifetime(), Some(45));
    relay.pass(seconds(46));
    assert_eq!(relay.relay_sockets(), 0);
}

#[test]
fn many_refreshes_leave_no_timers_behind() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    client.permit(&mut relay, &[crate::peer()]);
    client.bind(&mut relay, 0x4000, crate::peer());
    let timers = relay.server.timers();
    relay.decide = Box::new(|_| Some(Verdict::Allow(Grant { valid_for: Some(seconds(100)), ..Grant::default() })));
    for round in 0..2000 {
        client.refresh(&mut relay, 600 + round % 7);
        client.permit(&mut relay, &[crate::peer()]);
        client.bind(&mut relay, 0x4000, crate::peer());
        relay.pass(millis(500));
    }
    // Questions of the last moments may still stand in the wheel.
    relay.pass(seconds(1));
    assert!(relay.server.timers() <= timers + 8, "{} and {timers} at first", relay.server.timers());
}
