//! Grants that run out: asked again in time, and cut without a yes.

use std::cell::Cell;
use std::rc::Rc;

use sluice_base::TenantId;
use sluice_base::policy::{Denial, Grant, Hook, Verdict};
use sluice_base::stats::Single;
use sluice_turn::harness::model::{Client, Relay, channel_data};

use crate::{CLIENT, CLIENT_2, NANOSECOND, peer, seconds};

const TENANT: TenantId = TenantId(0);
const NO: Verdict = Verdict::Deny(Denial::Forbidden);

fn yes_for(time: u64) -> Verdict {
    Verdict::Allow(Grant { valid_for: Some(seconds(time)), ..Grant::default() })
}

fn yes() -> Verdict {
    Verdict::Allow(Grant::default())
}

/// A relay that grants this kind for 60 seconds, everything else for ever, and answers reviews with
/// what the cell holds.
fn granting(hook: Hook, review: Option<Verdict>) -> (Relay, Rc<Cell<Option<Verdict>>>) {
    let mut relay = Relay::new();
    let answer = Rc::new(Cell::new(review));
    let review = answer.clone();
    relay.decide = Box::new(move |question| match question.hook {
        Hook::Review => review.get(),
        asked if asked == hook => Some(yes_for(60)),
        _ => Some(yes()),
    });
    (relay, answer)
}

fn reviews(relay: &Relay) -> usize {
    relay.questions.iter().filter(|question| question.hook == Hook::Review).count()
}

#[test]
fn an_allocation_is_reviewed_before_its_grant_runs_out() {
    let (mut relay, _) = granting(Hook::Allocate, Some(yes_for(60)));
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    relay.pass(seconds(59));
    assert_eq!(reviews(&relay), 0);
    relay.pass(seconds(1));
    assert_eq!(reviews(&relay), 1);
    let question = relay.questions.last().unwrap();
    assert!(question.peers.is_empty());
    assert_eq!(question.allocation, relay.server.allocations().next());
    relay.pass(seconds(300));
    assert_eq!(reviews(&relay), 6);
    assert!(relay.socket_at(relayed).is_some());
    // The lifetime is the client's to extend, whatever a review says.
    relay.pass(seconds(241));
    assert_eq!(relay.socket_at(relayed), None);
}

#[test]
fn a_denied_allocation_ends_with_the_next_packet() {
    let (mut relay, _) = granting(Hook::Allocate, Some(NO));
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    client.bind(&mut relay, 0x4000, peer());
    relay.pass(seconds(59));
    assert_eq!(client.say_on(&mut relay, 0x4000, b"x").len(), 1);
    relay.pass(seconds(1) - NANOSECOND);
    assert_eq!(reviews(&relay), 1);
    assert!(client.say_on(&mut relay, 0x4000, b"x").is_empty());
    assert_eq!(relay.socket_at(relayed), None);
    assert_eq!(client.refresh(&mut relay, 600).code(), 437);
}

#[test]
fn an_allocation_nobody_answers_about_ends_with_its_grant() {
    let (mut relay, _) = granting(Hook::Allocate, None);
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    client.bind(&mut relay, 0x4000, peer());
    relay.pass(seconds(60) - NANOSECOND);
    assert_eq!(reviews(&relay), 1);
    assert_eq!(client.say_on(&mut relay, 0x4000, b"x").len(), 1, "the old grant holds until it ends");
    relay.pass_without_timers(NANOSECOND);
    assert!(client.say_on(&mut relay, 0x4000, b"x").is_empty());
    relay.pass(seconds(1));
    assert_eq!(relay.socket_at(relayed), None);
    assert_eq!(relay.single(Single::QuestionsTimedOut), 1);
}

#[test]
fn a_permission_is_reviewed_and_cut_alone() {
    for hook in [Hook::CreatePermission, Hook::ChannelBind] {
        let (mut relay, answer) = granting(hook, Some(yes_for(60)));
        let mut client = Client::new(CLIENT);
        let relayed = client.allocated(&mut relay);
        if hook == Hook::ChannelBind {
            client.bind(&mut relay, 0x4000, peer());
        } else {
            client.permit(&mut relay, &[peer()]);
        }
        relay.pass(seconds(100));
        assert_eq!(reviews(&relay), 1);
        assert_eq!(relay.questions.last().unwrap().peers[0].address.ip(), sluice_base::Pii::new(peer().ip()));
        assert_eq!(client.say(&mut relay, peer(), b"x").len(), 1);
        answer.set(Some(NO));
        relay.pass(seconds(20));
        assert_eq!(reviews(&relay), 2);
        assert!(client.say(&mut relay, peer(), b"x").is_empty());
        assert!(client.say_on(&mut relay, 0x4000, b"x").is_empty());
        assert!(relay.from_peer(peer(), relayed, b"x").is_empty());
        assert!(relay.socket_at(relayed).is_some(), "the allocation goes on");
    }
}

#[test]
fn a_reviewed_permission_still_ends_after_300_seconds() {
    let (mut relay, _) = granting(Hook::CreatePermission, Some(yes_for(60)));
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    client.permit(&mut relay, &[peer()]);
    relay.pass(seconds(299));
    assert_eq!(client.say(&mut relay, peer(), b"x").len(), 1);
    relay.pass(seconds(1));
    assert!(client.say(&mut relay, peer(), b"x").is_empty());
    relay.pass(seconds(100));
    assert_eq!(reviews(&relay), 5);
}

#[test]
fn a_channel_lives_on_through_reviews_in_both_directions() {
    let (mut relay, _) = granting(Hook::ChannelBind, Some(yes_for(60)));
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    client.bind(&mut relay, 0x4000, peer());
    for _ in 0..29 {
        relay.pass(seconds(10));
        assert_eq!(client.say_on(&mut relay, 0x4000, b"x").len(), 1);
        assert_eq!(relay.from_peer(peer(), relayed, b"x")[0].bytes, channel_data(0x4000, b"x"));
    }
}

#[test]
fn a_late_yes_to_a_review_is_too_late() {
    let (mut relay, _) = granting(Hook::Allocate, None);
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    relay.pass(seconds(61));
    let id = relay.questions.last().unwrap().id;
    relay.verdict(id, yes());
    assert_eq!(relay.socket_at(relayed), None);
    assert_eq!(relay.single(Single::Allocations), 0);
}

#[test]
fn a_review_may_lower_lifetime_and_rate() {
    let (mut relay, answer) = granting(Hook::Allocate, None);
    let grant = Grant { lifetime_max: Some(seconds(30)), bits_per_second: Some(8_000), ..Grant::default() };
    answer.set(Some(Verdict::Allow(grant)));
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    client.bind(&mut relay, 0x4000, peer());
    let passed = (0..50).filter(|_| client.say_on(&mut relay, 0x4000, &[0; 100]).len() == 1).count();
    assert_eq!(passed, 50);
    relay.pass(seconds(60));
    let passed = (0..50).filter(|_| client.say_on(&mut relay, 0x4000, &[0; 100]).len() == 1).count();
    assert!(passed <= 20, "{passed} packets of 800 bits");
    relay.pass(seconds(31));
    assert_eq!(relay.socket_at(relayed), None);
}

#[test]
fn a_grant_that_is_over_at_once_ends_at_once() {
    let mut relay = Relay::new();
    relay.decide = Box::new(|_| Some(yes_for(0)));
    let mut client = Client::new(CLIENT);
    client.allocate(&mut relay, |_| {});
    assert!(client.say(&mut relay, peer(), b"x").is_empty());
    relay.pass(seconds(1));
    assert_eq!(relay.relay_sockets(), 0);
}

#[test]
fn reviews_of_one_client_do_not_touch_another() {
    let (mut relay, answer) = granting(Hook::Allocate, Some(yes()));
    let (mut first, mut second) = (Client::new(CLIENT), Client::new(CLIENT_2));
    first.allocated(&mut relay);
    relay.pass(seconds(30));
    let stays = second.allocated(&mut relay);
    answer.set(Some(NO));
    relay.pass(seconds(31));
    assert_eq!(relay.single(Single::Allocations), 1);
    assert!(relay.socket_at(stays).is_some());
}

#[test]
fn a_refused_refresh_leaves_the_allocation_to_its_end() {
    let mut relay = Relay::new();
    relay.decide = Box::new(|question| if question.hook == Hook::Refresh { Some(NO) } else { Some(yes()) });
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    assert_eq!(client.refresh(&mut relay, 3600).code(), 403);
    assert!(relay.socket_at(relayed).is_some());
    relay.pass(seconds(601));
    assert_eq!(relay.socket_at(relayed), None);
}

#[test]
fn when_a_tenants_policies_change_what_is_not_allowed_again_ends_with_the_next_packet() {
    let (mut relay, answer) = granting(Hook::Refresh, Some(yes()));
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    client.bind(&mut relay, 0x4000, peer());
    assert!(relay.review(TENANT));
    assert_eq!(reviews(&relay), 2, "the allocation and its permission");
    assert_eq!(client.say_on(&mut relay, 0x4000, b"x").len(), 1);
    answer.set(Some(NO));
    assert!(relay.review(TenantId(1)), "another tenant's");
    assert_eq!(client.say_on(&mut relay, 0x4000, b"x").len(), 1);
    assert!(relay.review(TENANT));
    assert!(client.say_on(&mut relay, 0x4000, b"x").is_empty());
    assert_eq!(relay.socket_at(relayed), None);
}

#[test]
fn a_changed_policy_may_end_one_permission_alone() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    client.bind(&mut relay, 0x4000, peer());
    relay.decide = Box::new(|question| Some(if question.peers.is_empty() { yes() } else { NO }));
    assert!(relay.review(TENANT));
    assert!(client.say_on(&mut relay, 0x4000, b"x").is_empty());
    assert!(relay.socket_at(relayed).is_some());
}

#[test]
fn a_changed_policy_that_says_nothing_in_time_has_said_no() {
    let (mut relay, answer) = granting(Hook::Refresh, None);
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    answer.set(None);
    assert!(relay.review(TENANT));
    assert!(relay.socket_at(relayed).is_some());
    relay.pass(seconds(1));
    assert_eq!(relay.socket_at(relayed), None);
}

#[test]
fn a_review_of_many_waits_while_enough_questions_are_open() {
    let (mut relay, _) = granting(Hook::Refresh, None);
    for port in 0..100 {
        Client::new(&format!("203.0.113.9:{}", 40_000 + port)).allocated(&mut relay);
    }
    assert!(!relay.review(TENANT));
    assert!(reviews(&relay) < 100, "{}", reviews(&relay));
    relay.pass(seconds(1));
    assert!(relay.review(TENANT), "those without an answer are gone");
}

#[test]
fn a_grant_bounds_permissions() {
    let mut relay = Relay::new();
    relay.decide = Box::new(|_| Some(Verdict::Allow(Grant { permissions_max: Some(1), ..Grant::default() })));
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    assert_eq!(client.permit(&mut relay, &[peer()]).code(), 200);
    assert_eq!(client.permit(&mut relay, &["198.51.100.77:1".parse().unwrap()]).code(), 508);
    assert_eq!(client.permit(&mut relay, &[peer()]).code(), 200, "one that is there is renewed");
}
