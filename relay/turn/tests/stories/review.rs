//! Grants that run out: asked again in time, and cut without a yes.

use std::cell::Cell;
use std::collections::HashSet;
use std::rc::Rc;

use sluice_base::TenantId;
use sluice_base::limits::{REVIEW_PATIENCE, REVIEWS_OPEN_MAX, REVIEWS_PER_TICK_MAX};
use sluice_base::policy::{Denial, Grant, Hook, Verdict};
use sluice_base::stats::Single;
use sluice_turn::ServerOptions;
use sluice_turn::harness::model::{Client, Relay, channel_data, options, udp};
use sluice_wire::stun::Method;

use crate::{CLIENT, CLIENT_2, NANOSECOND, at, millis, peer, seconds};

const TENANT: TenantId = TenantId(0);
const NO: Verdict = Verdict::Deny(Denial::Forbidden);
const UNANSWERED: Verdict = Verdict::Deny(Denial::Unanswered);

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
    assert_eq!(reviews(&relay), 2, "the time that is left is enough for one more");
    assert_eq!(client.say_on(&mut relay, 0x4000, b"x").len(), 1, "the old grant holds until it ends");
    relay.pass_without_timers(NANOSECOND);
    assert!(client.say_on(&mut relay, 0x4000, b"x").is_empty());
    relay.pass(seconds(1));
    assert_eq!(relay.socket_at(relayed), None);
    assert_eq!(relay.single(Single::QuestionsTimedOut), 2);
    assert_eq!(relay.single(Single::QuestionsOpen), 0);
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
    for silence in [None, Some(UNANSWERED)] {
        let (mut relay, _) = granting(Hook::Refresh, silence);
        let mut client = Client::new(CLIENT);
        let relayed = client.allocated(&mut relay);
        client.bind(&mut relay, 0x4000, peer());
        assert!(relay.review(TENANT));
        relay.pass(REVIEW_PATIENCE - NANOSECOND);
        assert_eq!(client.say_on(&mut relay, 0x4000, b"x").len(), 1);
        assert!((6..=2 * 7).contains(&reviews(&relay)), "{}: each is asked again, and not too often", reviews(&relay));
        relay.pass(millis(100));
        assert!(client.say_on(&mut relay, 0x4000, b"x").is_empty());
        assert_eq!(relay.socket_at(relayed), None);
        assert!(relay.pass(seconds(60)).is_empty());
        assert_eq!(relay.single(Single::QuestionsOpen), 0);
    }
}

#[test]
fn what_nobody_could_be_asked_about_for_a_moment_goes_on() {
    let (mut relay, answer) = granting(Hook::Refresh, Some(UNANSWERED));
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    client.bind(&mut relay, 0x4000, peer());
    assert!(relay.review(TENANT));
    relay.pass(seconds(2));
    answer.set(Some(yes()));
    relay.pass(REVIEW_PATIENCE);
    assert_eq!(client.say_on(&mut relay, 0x4000, b"x").len(), 1);
    let asked = reviews(&relay);
    relay.pass(seconds(60));
    assert_eq!(reviews(&relay), asked, "a yes is the end of it");
}

#[test]
fn a_no_that_comes_after_silence_ends_it_with_the_next_packet() {
    let (mut relay, answer) = granting(Hook::Refresh, Some(UNANSWERED));
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    client.bind(&mut relay, 0x4000, peer());
    assert!(relay.review(TENANT));
    answer.set(Some(NO));
    relay.pass(seconds(1));
    assert!(client.say_on(&mut relay, 0x4000, b"x").is_empty());
}

#[test]
fn an_ending_grant_that_nobody_could_be_asked_about_for_a_moment_is_renewed() {
    let (mut relay, answer) = granting(Hook::Allocate, Some(UNANSWERED));
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    relay.pass(millis(59_400));
    assert_eq!(reviews(&relay), 2);
    answer.set(Some(yes_for(60)));
    relay.pass(seconds(40));
    assert!(relay.socket_at(relayed).is_some());
    answer.set(Some(UNANSWERED));
    relay.pass(seconds(21));
    assert_eq!(relay.socket_at(relayed), None, "without a yes it has its end");
}

#[test]
fn a_yes_from_before_a_change_says_nothing_for_what_has_changed() {
    let (mut relay, _) = granting(Hook::Allocate, None);
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    relay.pass(millis(59_300));
    let before = relay.questions.last().unwrap().clone();
    assert_eq!(before.hook, Hook::Review);
    assert!(relay.review(TENANT));
    relay.verdict(before.id, yes());
    relay.pass(seconds(1));
    assert_eq!(relay.socket_at(relayed), None, "its grant has ended");
}

#[test]
fn a_refresh_does_not_end_the_review_of_a_change() {
    let (mut relay, answer) = granting(Hook::Refresh, Some(UNANSWERED));
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    assert!(relay.review(TENANT));
    assert_eq!(client.refresh(&mut relay, 600).code(), 200);
    answer.set(Some(NO));
    relay.pass(seconds(1));
    assert_eq!(relay.socket_at(relayed), None);
}

#[test]
fn a_change_amid_a_review_is_asked_about_everywhere() {
    let (mut relay, answer) = granting(Hook::Refresh, Some(yes()));
    let mut clients: Vec<_> = (0..100).map(|i| Client::new(&format!("203.0.113.9:{}", 40_000 + i))).collect();
    for client in &mut clients {
        client.allocated(&mut relay);
    }
    answer.set(None);
    relay.review_once(TENANT);
    let asked = reviews(&relay);
    assert_eq!(asked, REVIEWS_PER_TICK_MAX);
    answer.set(Some(NO));
    assert!(relay.review(TENANT));
    assert_eq!(relay.single(Single::Allocations), 0, "those too that were asked about before");
}

#[test]
fn a_review_of_many_waits_while_enough_questions_are_open() {
    let mut relay = Relay::with(ServerOptions { workers: 2, ..options() });
    relay.decide = Box::new(|question| (question.hook != Hook::Review).then(yes));
    let share = REVIEWS_OPEN_MAX / 2;
    for port in 0..share + 10 {
        Client::new(&format!("203.0.113.9:{}", 40_000 + port)).allocated(&mut relay);
    }
    assert!(!relay.review(TENANT));
    assert_eq!(reviews(&relay), share, "another worker has as many");
    relay.pass(seconds(1));
    assert!(!relay.server.reviews_wait(), "places become free with the deadlines");
    relay.pass(REVIEW_PATIENCE + seconds(1));
    assert_eq!(relay.single(Single::Allocations), 0);
}

#[test]
fn questions_of_clients_leave_a_review_its_places() {
    let mut relay = Relay::new();
    relay.decide =
        Box::new(|question| (question.hook == Hook::Review || question.client.address.port() == 1).then(yes));
    Client::new("203.0.113.9:1").allocated(&mut relay);
    for i in 0..2 * REVIEWS_OPEN_MAX {
        let mut client = Client::new(&format!("203.0.113.8:{}", 40_000 + i));
        client.challenge(&mut relay);
        let request = client.signed(Method::ALLOCATE, udp);
        client.send(&mut relay, &request);
    }
    assert!(relay.review(TENANT));
    assert_eq!(reviews(&relay), 1);
}

#[test]
fn an_allocation_of_many_permissions_is_asked_about_a_few_at_a_time() {
    let (mut relay, _) = granting(Hook::Refresh, None);
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    let peers: Vec<_> = (1..=200).map(|n| at(&format!("198.51.100.{n}:6000"))).collect();
    peers.chunks(10).for_each(|some| assert_eq!(client.permit(&mut relay, some).code(), 200));
    assert!(!relay.review(TENANT));
    assert_eq!(reviews(&relay), REVIEWS_OPEN_MAX);
    relay.pass(seconds(1));
    let peers = relay.questions.iter().filter(|question| question.hook == Hook::Review).flat_map(|q| &q.peers);
    let asked: HashSet<_> = peers.map(|peer| peer.address).collect();
    assert_eq!(asked.len(), 200);
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
