//! Other settings under a running server.

use sluice_base::AddressClass;
use sluice_base::limits::PERMISSION_LIFETIME;
use sluice_turn::harness::model::{Client, Relay, options, shared_with, tenant, udp};
use sluice_turn::{AccountLimits, GuardOptions, Network, ServerOptions, TenantLimits};

use crate::{CLIENT, CLIENT_2, at, peer, seconds};

fn configure(relay: &mut Relay, options: ServerOptions) {
    assert!(relay.configure(options).is_empty());
}

fn closed(range: &str, bits: u8) -> ServerOptions {
    let deny = vec![Network { address: range.parse().unwrap(), bits }];
    ServerOptions { guard: GuardOptions { deny, ..options().guard }, ..options() }
}

fn users(users: &[(&str, &str)]) -> ServerOptions {
    ServerOptions { tenants: [tenant("default", &[], users)].into(), ..options() }
}

#[test]
fn the_same_settings_again_are_not_noticed() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    client.bind(&mut relay, 0x4000, peer());
    for _ in 0..3 {
        configure(&mut relay, options());
        assert_eq!(client.say_on(&mut relay, 0x4000, b"x").len(), 1);
        assert_eq!(relay.from_peer(peer(), relayed, b"y").len(), 1);
        assert_eq!(client.refresh(&mut relay, 600).code(), 200);
        assert_eq!(client.bind(&mut relay, 0x4000, peer()).code(), 200);
    }
    assert_eq!(relay.all_drops(), 0);
}

#[test]
fn a_peer_that_is_closed_is_cut_with_the_next_packet() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    let other = at("192.0.3.9:6000");
    client.bind(&mut relay, 0x4000, peer());
    client.bind(&mut relay, 0x4001, other);
    configure(&mut relay, closed("198.51.100.0", 24));
    assert!(client.say_on(&mut relay, 0x4000, b"x").is_empty());
    assert!(client.say(&mut relay, peer(), b"x").is_empty());
    assert!(relay.from_peer(peer(), relayed, b"x").is_empty());
    assert_eq!(client.bind(&mut relay, 0x4000, peer()).code(), 403);
    assert_eq!(client.permit(&mut relay, &[peer()]).code(), 403);
    assert_eq!(client.say_on(&mut relay, 0x4001, b"x").len(), 1, "the others go on");
    relay.pass(PERMISSION_LIFETIME);
    configure(&mut relay, options());
    assert_eq!(client.bind(&mut relay, 0x4000, peer()).code(), 200, "opened again it is bound again");
}

#[test]
fn a_peer_that_is_opened_is_permitted_from_then_on() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    let inside = at("10.1.2.3:6000");
    assert_eq!(client.permit(&mut relay, &[inside]).code(), 403);
    let guard = GuardOptions { allow_classes: vec![AddressClass::Private], ..options().guard };
    configure(&mut relay, ServerOptions { guard, ..options() });
    assert_eq!(client.permit(&mut relay, &[inside]).code(), 200);
}

#[test]
fn a_user_who_is_gone_cannot_refresh_and_may_use_the_rest() {
    let mut relay = Relay::with(users(&[("alice", "a"), ("bob", "b")]));
    let mut alice = Client::new(CLIENT).named("alice", "a");
    let mut bob = Client::new(CLIENT_2).named("bob", "b");
    for client in [&mut alice, &mut bob] {
        client.allocated(&mut relay);
        client.bind(&mut relay, 0x4000, peer());
    }
    configure(&mut relay, users(&[("bob", "b")]));
    alice.challenge(&mut relay);
    assert_eq!(alice.refresh(&mut relay, 600).code(), 401);
    assert_eq!(alice.say_on(&mut relay, 0x4000, b"x").len(), 1);
    bob.challenge(&mut relay);
    assert_eq!(bob.refresh(&mut relay, 600).code(), 200);
    relay.pass(seconds(590));
    assert_eq!(bob.refresh(&mut relay, 600).code(), 200);
    relay.pass(seconds(10));
    assert!(alice.say_on(&mut relay, 0x4000, b"x").is_empty(), "it has run out");
    assert_eq!(relay.server.allocations().count(), 1);
}

#[test]
fn another_password_holds_at_once() {
    let mut relay = Relay::with(users(&[("alice", "a")]));
    let mut client = Client::new(CLIENT).named("alice", "a");
    client.allocated(&mut relay);
    configure(&mut relay, users(&[("alice", "another")]));
    assert_eq!(client.refresh(&mut relay, 600).code(), 401);
    let mut client = client.named("alice", "another");
    client.challenge(&mut relay);
    assert_eq!(client.refresh(&mut relay, 600).code(), 200);
}

#[test]
fn a_secret_is_rotated_without_a_refusal() {
    let secrets = |secrets: &[&str]| ServerOptions { tenants: [tenant("default", secrets, &[])].into(), ..options() };
    let mut relay = Relay::with(secrets(&["old"]));
    let soon = (relay.now.unix_seconds + 60).to_string();
    let mut client = Client::new(CLIENT).limited(&format!("{soon}:alice"), "old");
    client.allocated(&mut relay);
    configure(&mut relay, secrets(&["new", "old"]));
    assert_eq!(client.refresh(&mut relay, 600).code(), 200);
    relay.pass(seconds(120));
    configure(&mut relay, secrets(&["newer", "old"]));
    assert_eq!(client.refresh(&mut relay, 600).code(), 200, "a call outlasts its ticket, whatever is reloaded");
    configure(&mut relay, secrets(&["newer", "new"]));
    assert_eq!(client.refresh(&mut relay, 600).code(), 401, "the secret behind it is gone");
}

#[test]
fn lifetimes_and_limits_hold_from_then_on() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    let fewer = ServerOptions {
        allocation_lifetime: seconds(60),
        allocation_lifetime_max: seconds(120),
        permissions_per_allocation: 1,
        packets_per_second: 5,
        ..options()
    };
    configure(&mut relay, fewer);
    assert_eq!(client.refresh(&mut relay, 3600).lifetime(), Some(120));
    assert_eq!(client.bind(&mut relay, 0x4000, peer()).code(), 200);
    assert_eq!(client.permit(&mut relay, &[at("192.0.3.9:1")]).code(), 508);
    let passed = (0..20).filter(|_| !client.say_on(&mut relay, 0x4000, b"x").is_empty()).count();
    assert_eq!(passed, 5);
    configure(&mut relay, options());
    let passed = (0..20).filter(|_| !client.say_on(&mut relay, 0x4000, b"x").is_empty()).count();
    assert_eq!(passed, 20);
}

#[test]
fn an_allocation_in_the_making_gets_the_limits_that_have_come_meanwhile() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.challenge(&mut relay);
    relay.slow_to_open = true;
    let request = client.signed(sluice_wire::stun::Method::ALLOCATE, udp);
    assert!(client.send(&mut relay, &request).is_empty());
    configure(&mut relay, ServerOptions { packets_per_second: 5, ..options() });
    let sent = relay.open_pending();
    assert_eq!(client.only_answer(&relay, sent).code(), 200);
    client.bind(&mut relay, 0x4000, peer());
    let passed = (0..20).filter(|_| !client.say_on(&mut relay, 0x4000, b"x").is_empty()).count();
    assert_eq!(passed, 5);
}

#[test]
fn a_tenant_that_has_come_is_served() {
    let first = users(&[("alice", "a")]);
    let shared = shared_with(&first, AccountLimits::default(), &[TenantLimits::default()]);
    let ledger = shared.ledger.clone();
    let mut relay = Relay::sharing(first, shared);
    let mut client = Client::new(CLIENT).named("late/bob", "b");
    assert_eq!(client.allocate(&mut relay, udp).code(), 401);
    let tenants = [tenant("default", &[], &[("alice", "a")]), tenant("late", &[], &[("bob", "b")])];
    ledger.set_limits(AccountLimits::default(), &[TenantLimits::default(); 2]);
    configure(&mut relay, ServerOptions { tenants: tenants.into(), ..options() });
    client.challenge(&mut relay);
    assert_eq!(client.allocate(&mut relay, udp).code(), 200);
}
