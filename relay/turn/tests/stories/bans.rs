//! Whoever is banned is not answered, and what they had is gone.

use sluice_base::event::{EndReason, RelayEvent};
use sluice_base::policy::{Grant, Verdict};
use sluice_base::stats::{DropReason, Single};
use sluice_base::{Pii, TenantId};
use sluice_turn::harness::model::{Client, Proof, Relay, START_UNIX_SECONDS, ip_address, options, udp};
use sluice_turn::{Ban, Bans, GuardOptions, Network, ServerOptions, Whom};
use sluice_wire::stun::Method;

use crate::{CLIENT, CLIENT_2, CLIENT_V6, peer, seconds};

fn address(ip: &str, bits: u8) -> Whom {
    Whom::Address(Pii::new(ip_address(ip)), bits)
}

fn user(tenant: u16, name: &str) -> Whom {
    Whom::User(TenantId(tenant), Pii::new(name.as_bytes().into()))
}

/// These bans come into force until a time, and no other.
fn ban(relay: &mut Relay, whom: &[Whom], until: Option<u64>) {
    let bans: Vec<_> = whom.iter().map(|whom| Ban { whom: whom.clone(), until }).collect();
    assert!(relay.ban(Bans::new(&bans).unwrap()).is_empty());
}

fn reasons(relay: &Relay) -> Vec<EndReason> {
    let of = |event: &RelayEvent| if let RelayEvent::Ended(ended) = event { Some(ended.reason) } else { None };
    relay.events.iter().filter_map(of).collect()
}

#[test]
fn a_banned_address_is_answered_nothing() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.challenge(&mut relay);
    ban(&mut relay, &[address("203.0.113.7", 32)], None);
    for request in [
        client.unsigned(Method::BINDING, |_| {}),
        client.unsigned(Method::ALLOCATE, udp),
        client.signed(Method::ALLOCATE, udp),
        client.signed(Method(0x0fe), |_| {}),
    ] {
        assert!(client.send(&mut relay, &request).is_empty());
    }
    assert_eq!((relay.drops(DropReason::Banned), relay.all_drops()), (4, 4));
    assert_eq!((relay.questions.len(), relay.events.len()), (0, 0));
    Client::new(CLIENT_2).allocated(&mut relay);
}

#[test]
fn allocations_of_a_banned_prefix_end_at_once_and_others_stay() {
    let mut relay = Relay::new();
    let mut clients = [CLIENT, CLIENT_2, CLIENT_V6].map(Client::new);
    let relayed = clients.each_mut().map(|client| client.allocated(&mut relay));
    clients.iter_mut().for_each(|client| drop(client.bind(&mut relay, 0x4000, peer())));
    ban(&mut relay, &[address("203.0.113.0", 29)], None);
    assert_eq!(reasons(&relay), [EndReason::Banned]);
    assert_eq!((relay.socket_at(relayed[0]), relay.relay_sockets()), (None, 2));
    let sent = clients.each_ref().map(|client| client.say_on(&mut relay, 0x4000, b"x").len());
    assert_eq!(sent, [0, 1, 1]);
    assert_eq!((relay.drops(DropReason::NoAllocation), relay.single(Single::AllocationsExpired)), (1, 1));
}

#[test]
fn a_ban_ends_by_itself_and_with_the_next_table() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.challenge(&mut relay);
    let request = client.signed(Method::ALLOCATE, udp);
    ban(&mut relay, &[address("203.0.113.7", 32)], Some(START_UNIX_SECONDS + 60));
    relay.pass(seconds(59));
    assert!(client.send(&mut relay, &request).is_empty());
    relay.pass(seconds(1));
    assert_eq!(client.answer_to(&mut relay, &request).code(), 200);
    ban(&mut relay, &[address("203.0.113.7", 32)], None);
    ban(&mut relay, &[], None);
    client.allocated(&mut relay);
}

#[test]
fn a_banned_user_is_known_by_any_of_its_names_and_from_any_address() {
    let mut relay = Relay::new();
    let hidden = Proof { hidden: true, ..Proof::MODERN };
    let mut clients = [
        Client::new(CLIENT).limited("1700003600:alice", "first secret"),
        Client::new(CLIENT_2),
        Client::new(CLIENT_V6).named("main/alice", "wonderland"),
        Client::new("203.0.113.9:1").named("eve", "apple"),
        Client::new("203.0.113.9:2").limited("1700003600:acme/alice", "acme secret"),
    ];
    clients.iter_mut().for_each(|client| drop(client.allocate(&mut relay, |_| {})));
    ban(&mut relay, &[user(0, "alice")], None);
    assert_eq!(reasons(&relay), [EndReason::Banned; 3]);
    for client in &mut clients[..3] {
        let request = client.signed(Method::ALLOCATE, udp);
        assert!(client.send(&mut relay, &request).is_empty());
    }
    assert_eq!(relay.drops(DropReason::Banned), 3);
    for client in &mut clients[3..] {
        assert_eq!(client.refresh(&mut relay, 600).code(), 200);
    }
    // Without secrets a name may be hidden.
    let tenants = [sluice_turn::harness::model::tenant("main", &[], &[("alice", "wonderland")])].into();
    let mut relay = Relay::with(ServerOptions { tenants, ..options() });
    let mut client = Client::new(CLIENT).proving(hidden);
    client.allocated(&mut relay);
    ban(&mut relay, &[user(0, "alice")], None);
    assert_eq!(reasons(&relay), [EndReason::Banned]);
    let request = client.signed(Method::ALLOCATE, udp);
    assert!(client.send(&mut relay, &request).is_empty());
}

#[test]
fn whoever_only_claims_a_banned_name_is_told_that_it_is_not_proved() {
    let mut relay = Relay::new();
    ban(&mut relay, &[user(0, "alice")], None);
    let mut client = Client::new(CLIENT).named("alice", "a guess");
    client.challenge(&mut relay);
    let request = client.signed(Method::ALLOCATE, udp);
    assert_eq!(client.answer_to(&mut relay, &request).code(), 401);
}

#[test]
fn who_is_banned_while_their_allocation_is_in_question_gets_none() {
    for whom in [address("203.0.113.0", 24), user(0, "alice")] {
        let mut relay = Relay::new();
        relay.decide = Box::new(|_| None);
        let mut client = Client::new(CLIENT);
        client.challenge(&mut relay);
        let request = client.signed(Method::ALLOCATE, udp);
        assert!(client.send(&mut relay, &request).is_empty());
        ban(&mut relay, &[whom], None);
        let id = relay.questions[0].id;
        let sent = relay.verdict(id, Verdict::Allow(Grant::default()));
        assert_eq!(client.only_answer(&relay, sent).code(), 403);
        assert_eq!((relay.single(Single::Allocations), relay.relay_sockets()), (0, 0));
        let [RelayEvent::Denied(denied)] = &relay.events[..] else { panic!("one refusal") };
        assert_eq!(denied.session, Some(relay.questions[0].session));
    }
}

#[test]
fn a_configuration_denies_clients_for_good_and_other_bans_do_not_change_that() {
    let denied = |ranges: &[(&str, u8)]| {
        let deny_clients = ranges.iter().map(|(ip, bits)| Network { address: ip_address(ip), bits: *bits }).collect();
        ServerOptions { guard: GuardOptions { deny_clients, ..options().guard }, ..options() }
    };
    let mut relay = Relay::with(denied(&[("203.0.113.7", 32)]));
    ban(&mut relay, &[], None);
    let mut first = Client::new(CLIENT);
    let request = first.unsigned(Method::BINDING, |_| {});
    assert!(first.send(&mut relay, &request).is_empty());
    let mut second = Client::new(CLIENT_2);
    second.allocated(&mut relay);
    assert!(relay.configure(denied(&[("203.0.113.8", 29)])).is_empty());
    assert_eq!(reasons(&relay), [EndReason::Banned]);
    assert!(second.send(&mut relay, &request).is_empty());
    assert_eq!(first.answer_to(&mut relay, &request).code(), 200);
}
