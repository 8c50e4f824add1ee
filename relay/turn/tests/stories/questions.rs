//! What is asked of the policies, and what their silence means.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use sluice_base::limits::{QUESTIONS_PER_CLIENT_MAX, QUESTIONS_PER_WORKER_MAX, VERDICT_DEADLINE};
use sluice_base::policy::{Denial, Grant, Hook, Verdict};
use sluice_base::stats::{DropReason, Single};
use sluice_base::{AddressClass, TenantId};
use sluice_turn::harness::model::{Client, Relay, options, shared, udp};
use sluice_wire::stun::{Method, attribute};

use crate::{CLIENT, millis, peer, seconds};

const YES: Verdict =
    Verdict::Allow(Grant { valid_for: None, lifetime_max: None, bits_per_second: None, permissions_max: None });

/// A relay whose questions of one kind stay open; the rest is allowed.
fn silent_about(hook: Hook) -> Relay {
    let mut relay = Relay::new();
    relay.decide = Box::new(move |question| (question.hook != hook).then_some(YES));
    relay
}

/// One request of each kind.
fn request(client: &mut Client, hook: Hook) -> Vec<u8> {
    match hook {
        Hook::Allocate => client.signed(Method::ALLOCATE, udp),
        Hook::Refresh => client.signed(Method::REFRESH, |_| {}),
        Hook::CreatePermission => client.signed(Method::CREATE_PERMISSION, |b| {
            b.xor_address(attribute::XOR_PEER_ADDRESS, peer());
        }),
        _ => client.signed(Method::CHANNEL_BIND, |b| {
            b.channel(0x4000).xor_address(attribute::XOR_PEER_ADDRESS, peer());
        }),
    }
}

const HOOKS: [Hook; 4] = [Hook::Allocate, Hook::Refresh, Hook::CreatePermission, Hook::ChannelBind];

/// A client that has an open question of this kind, and its request.
fn waiting(hook: Hook) -> (Relay, Client, Vec<u8>) {
    let mut relay = silent_about(hook);
    let mut client = Client::new(CLIENT);
    client.challenge(&mut relay);
    if hook != Hook::Allocate {
        client.allocated(&mut relay);
    }
    let request = request(&mut client, hook);
    assert!(client.send(&mut relay, &request).is_empty());
    assert_eq!(relay.questions.last().unwrap().hook, hook);
    (relay, client, request)
}

#[test]
fn a_verdict_may_take_its_time() {
    for hook in HOOKS {
        let (mut relay, client, _) = waiting(hook);
        assert!(relay.pass(millis(200)).is_empty());
        let id = relay.questions.last().unwrap().id;
        let sent = relay.verdict(id, YES);
        assert_eq!(client.only_answer(&relay, sent).code(), 200, "{hook:?}");
        assert!(relay.verdict(id, YES).is_empty(), "a second verdict is nothing");
        assert!(relay.pass(seconds(1)).is_empty(), "and neither is the deadline");
        assert_eq!(relay.single(Single::QuestionsTimedOut), 0);
    }
}

#[test]
fn a_retransmission_meanwhile_neither_asks_nor_is_answered() {
    for hook in HOOKS {
        let (mut relay, client, request) = waiting(hook);
        let questions = relay.questions.len();
        for _ in 0..5 {
            assert!(client.send(&mut relay, &request).is_empty());
        }
        assert_eq!(relay.questions.len(), questions);
        assert_eq!(relay.drops(DropReason::QuestionOpen), 5);
        let id = relay.questions.last().unwrap().id;
        let sent = relay.verdict(id, YES);
        let answer = client.only_answer(&relay, sent);
        assert_eq!(client.answer_to(&mut relay, &request), answer);
    }
}

#[test]
fn a_no_is_the_error_that_it_names() {
    for (denial, code) in
        [(Denial::Forbidden, 403), (Denial::Quota, 486), (Denial::TryLater, 508), (Denial::Unanswered, 508)]
    {
        for hook in HOOKS {
            let (mut relay, mut client, request) = waiting(hook);
            let id = relay.questions.last().unwrap().id;
            let sent = relay.verdict(id, Verdict::Deny(denial));
            let answer = client.only_answer(&relay, sent);
            assert_eq!(answer.code(), code);
            assert_eq!(client.answer_to(&mut relay, &request), answer);
            assert!(client.say(&mut relay, peer(), b"x").is_empty());
            assert_eq!(relay.single(Single::Allocations), u64::from(hook != Hook::Allocate));
        }
    }
}

#[test]
fn silence_is_a_no_at_the_deadline() {
    for hook in HOOKS {
        let (mut relay, mut client, request) = waiting(hook);
        assert!(relay.pass(VERDICT_DEADLINE - millis(1)).is_empty());
        let sent = relay.pass(millis(51));
        let answer = client.only_answer(&relay, sent);
        assert_eq!(answer.code(), 508);
        assert_eq!(relay.single(Single::QuestionsTimedOut), 1);
        assert_eq!(relay.single(Single::QuestionsOpen), 0);
        // Below the client's first retransmission, which is answered alike.
        assert_eq!(client.answer_to(&mut relay, &request), answer);
        let id = relay.questions.last().unwrap().id;
        assert!(relay.verdict(id, YES).is_empty(), "too late");
        assert!(client.say(&mut relay, peer(), b"x").is_empty());
    }
}

#[test]
fn a_question_tells_what_is_asked() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    client.refresh(&mut relay, 900);
    client.permit(&mut relay, &[peer()]);
    client.bind(&mut relay, 0x4000, peer());
    let allocation = relay.server.allocations().next();
    let hooks: Vec<_> = relay.questions.iter().map(|question| question.hook).collect();
    assert_eq!(hooks, HOOKS);
    for (i, question) in relay.questions.iter().enumerate() {
        assert_eq!(question.tenant, TenantId(0));
        assert_eq!(question.user, sluice_base::Pii::new(b"alice"[..].into()));
        assert_eq!(question.client.address, client.address.into());
        assert_eq!(question.client.class, AddressClass::Documentation);
        assert_eq!(question.allocation, allocation.filter(|_| i > 0));
        assert_eq!(question.lifetime, [Some(seconds(600)), Some(seconds(900)), None, None][i]);
        assert_eq!(question.peers.len(), usize::from(i > 1));
    }
    let ids: std::collections::HashSet<_> = relay.questions.iter().map(|question| question.id).collect();
    assert_eq!(ids.len(), 4);
}

#[test]
fn a_client_has_few_open_questions() {
    let mut relay = silent_about(Hook::CreatePermission);
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    let mut requests: Vec<_> =
        (0..=QUESTIONS_PER_CLIENT_MAX).map(|_| request(&mut client, Hook::CreatePermission)).collect();
    for request in &requests {
        assert!(client.send(&mut relay, request).is_empty());
    }
    assert_eq!(relay.questions.len(), 1 + usize::from(QUESTIONS_PER_CLIENT_MAX));
    assert_eq!(relay.drops(DropReason::QuestionsFull), 1);
    // Somebody else's are not counted.
    let mut other = Client::new("203.0.113.9:1");
    other.allocated(&mut relay);
    let theirs = request(&mut other, Hook::CreatePermission);
    other.send(&mut relay, &theirs);
    assert_eq!(relay.drops(DropReason::QuestionsFull), 1);
    // Once one is answered there is room for the retransmission of the last.
    let id = relay.questions[1].id;
    relay.verdict(id, YES);
    let last = requests.pop().unwrap();
    assert!(client.send(&mut relay, &last).is_empty());
    assert_eq!(relay.questions.len(), 4 + usize::from(QUESTIONS_PER_CLIENT_MAX));
}

#[test]
fn a_worker_has_a_bounded_number_of_open_questions() {
    let mut relay = silent_about(Hook::Allocate);
    for i in 0..QUESTIONS_PER_WORKER_MAX + 10 {
        let mut client = Client::new(&format!("203.0.{}.{}:40000", i / 250, i % 250));
        client.challenge(&mut relay);
        let request = request(&mut client, Hook::Allocate);
        assert!(client.send(&mut relay, &request).is_empty());
    }
    assert_eq!(relay.single(Single::QuestionsOpen), QUESTIONS_PER_WORKER_MAX as u64);
    assert_eq!(relay.drops(DropReason::QuestionsFull), 10);
    let refused = relay.pass(seconds(1));
    assert_eq!(refused.len(), QUESTIONS_PER_WORKER_MAX);
    assert_eq!(relay.single(Single::QuestionsOpen), 0);
}

#[test]
fn verdicts_come_in_any_order() {
    let asked = Rc::new(RefCell::new(HashMap::new()));
    let mut relay = Relay::new();
    let seen = asked.clone();
    relay.decide = Box::new(move |question| {
        seen.borrow_mut().insert(question.id, question.client.address);
        None
    });
    let mut clients: Vec<_> = (0..10).map(|i| Client::new(&format!("203.0.113.9:{}", 40_000 + i))).collect();
    for client in &mut clients {
        client.challenge(&mut relay);
        let request = request(client, Hook::Allocate);
        assert!(client.send(&mut relay, &request).is_empty());
    }
    for question in relay.questions.clone().iter().rev() {
        let sent = relay.verdict(question.id, YES);
        assert_eq!(sent[0].to, asked.borrow()[&question.id]);
    }
    assert_eq!(relay.single(Single::Allocations), 10);
}

#[test]
fn an_allocation_that_is_asked_for_is_counted_until_it_is_decided() {
    for verdict in [YES, Verdict::Deny(Denial::Forbidden)] {
        let options = options();
        let shared = shared(&options);
        let ledger = shared.ledger.clone();
        let mut relay = Relay::sharing(options, shared);
        relay.decide = Box::new(|_| None);
        let counted = || ledger.allocations(TenantId(0), &sluice_base::Pii::new(b"alice"[..].into())).0;
        for (i, address) in [CLIENT, "203.0.113.9:1"].into_iter().enumerate() {
            let mut client = Client::new(address);
            client.challenge(&mut relay);
            let request = request(&mut client, Hook::Allocate);
            assert!(client.send(&mut relay, &request).is_empty());
            assert_eq!(counted(), 1 + i as u32);
        }
        relay.slow_to_open = true;
        let id = relay.questions[0].id;
        relay.verdict(id, verdict);
        assert_eq!(counted(), 1 + u32::from(verdict == YES), "one that opens its socket is counted once");
        relay.open_pending();
        assert_eq!(counted(), 1 + u32::from(verdict == YES));
        relay.pass(seconds(1));
        assert_eq!(counted(), u32::from(verdict == YES));
    }
}

#[test]
fn two_allocations_asked_at_once_are_one() {
    let (mut relay, mut client, _) = waiting(Hook::Allocate);
    let second = request(&mut client, Hook::Allocate);
    assert!(client.send(&mut relay, &second).is_empty());
    let ids: Vec<_> = relay.questions.iter().map(|question| question.id).collect();
    let sent = relay.verdict(ids[0], YES);
    assert_eq!(client.only_answer(&relay, sent).code(), 200);
    let sent = relay.verdict(ids[1], YES);
    assert_eq!(client.only_answer(&relay, sent).code(), 437);
    assert_eq!(relay.relay_sockets(), 1);
}

#[test]
fn two_allocations_whose_sockets_open_slowly_are_one() {
    let mut relay = Relay::new();
    relay.slow_to_open = true;
    let mut client = Client::new(CLIENT);
    client.challenge(&mut relay);
    for _ in 0..2 {
        let request = request(&mut client, Hook::Allocate);
        assert!(client.send(&mut relay, &request).is_empty());
        // A retransmission while the socket opens asks nothing.
        assert!(client.send(&mut relay, &request).is_empty());
    }
    assert_eq!(relay.questions.len(), 2);
    let sent = relay.open_pending();
    assert_eq!(sent.len(), 2);
    assert_eq!(relay.relay_sockets(), 1);
    assert_eq!(relay.single(Single::Allocations), 1);
}

#[test]
fn channels_asked_at_once_do_not_clash() {
    let (mut relay, mut client, _) = waiting(Hook::ChannelBind);
    let clash = client.signed(Method::CHANNEL_BIND, |b| {
        b.channel(0x4001).xor_address(attribute::XOR_PEER_ADDRESS, peer());
    });
    assert!(client.send(&mut relay, &clash).is_empty());
    let ids: Vec<_> = relay.questions[1..].iter().map(|question| question.id).collect();
    let first = relay.verdict(ids[0], YES);
    assert_eq!(client.only_answer(&relay, first).code(), 200);
    let second = relay.verdict(ids[1], YES);
    assert_eq!(client.only_answer(&relay, second).code(), 400);
    assert_eq!(relay.single(Single::Channels), 1);
}

#[test]
fn a_verdict_for_an_allocation_that_has_ended_is_a_mismatch() {
    for hook in [Hook::Refresh, Hook::CreatePermission, Hook::ChannelBind] {
        let (mut relay, mut client, _) = waiting(hook);
        client.refresh(&mut relay, 0);
        let id = relay.questions.last().unwrap().id;
        let sent = relay.verdict(id, YES);
        assert_eq!(client.only_answer(&relay, sent).code(), 437);
        assert_eq!(relay.single(Single::Permissions), 0);
    }
}

#[test]
fn a_verdict_is_for_the_allocation_it_was_asked_about() {
    let (mut relay, mut client, _) = waiting(Hook::CreatePermission);
    client.refresh(&mut relay, 0);
    client.allocated(&mut relay);
    let id = relay.questions[1].id;
    let sent = relay.verdict(id, YES);
    assert_eq!(client.only_answer(&relay, sent).code(), 437, "the new allocation was not asked about");
    assert!(client.say(&mut relay, peer(), b"x").is_empty());
}
