//! Quotas and rates of users, tenants and the relay.

use sluice_base::limits::TIMER_GRAIN;
use sluice_base::policy::{Grant, Verdict};
use sluice_base::stats::DropReason;
use sluice_turn::harness::model::{Client, Relay, options, shared_with};
use sluice_turn::{AccountLimits, ServerOptions, TenantLimits};
use sluice_wire::stun::attribute;

use crate::{CLIENT, CLIENT_2, at, millis, peer, seconds};

const NONE: AccountLimits =
    AccountLimits { allocations: 0, permissions: 0, channels: 0, bits_per_second: 0, packets_per_second: 0 };

fn limited(user: AccountLimits, tenant: AccountLimits, total: AccountLimits) -> Relay {
    let options: ServerOptions = options();
    let shared = shared_with(&options, total, &[TenantLimits { tenant, user }; 2]);
    Relay::sharing(options, shared)
}

fn client(i: u16, name: &str, password: &str) -> Client {
    Client::new(&format!("203.0.113.30:{}", 40_000 + i)).named(name, password)
}

#[test]
fn users_tenants_and_the_relay_have_so_many_allocations() {
    let allocations = |allocations| AccountLimits { allocations, ..NONE };
    let mut relay = limited(allocations(2), allocations(3), allocations(4));
    let mut take = |i, name, password| client(i, name, password).allocate(&mut relay, |_| {}).code();
    assert_eq!(take(0, "alice", "wonderland"), 200);
    assert_eq!(take(1, "alice", "wonderland"), 200);
    assert_eq!(take(2, "alice", "wonderland"), 486, "the user's");
    assert_eq!(take(3, "eve", "apple"), 200);
    assert_eq!(take(4, "eve", "apple"), 486, "the tenant's");
    assert_eq!(take(5, "acme/bob", "builder"), 200);
    assert_eq!(take(6, "acme/bob", "builder"), 486, "the relay's");
    let mut first = client(0, "alice", "wonderland");
    first.refresh(&mut relay, 0);
    assert_eq!(client(6, "acme/bob", "builder").allocate(&mut relay, |_| {}).code(), 200);
}

#[test]
fn an_allocation_that_fails_is_not_counted() {
    let mut relay = limited(AccountLimits { allocations: 1, ..NONE }, NONE, NONE);
    let mut client = Client::new(CLIENT);
    relay.opener = Box::new(|_| Err(sluice_base::io::OpenError::NoSockets));
    assert_eq!(client.allocate(&mut relay, |_| {}).code(), 508);
    let answer = client.allocate(&mut relay, |builder| {
        builder.bytes(attribute::RESERVATION_TOKEN, &[0; 8]);
    });
    assert_eq!(answer.code(), 508);
    relay.opener = Box::new(|_| Ok(()));
    assert_eq!(client.allocate(&mut relay, |_| {}).code(), 200);
    assert_eq!(client.allocate(&mut relay, |_| {}).code(), 437);
    relay.pass(seconds(601));
    assert_eq!(client.allocate(&mut relay, |_| {}).code(), 200);
}

#[test]
fn permissions_and_channels_are_counted_over_all_allocations_of_a_user() {
    let mut relay = limited(AccountLimits { permissions: 3, channels: 1, ..NONE }, NONE, NONE);
    let (mut first, mut second) = (Client::new(CLIENT), Client::new(CLIENT_2));
    first.allocated(&mut relay);
    second.allocated(&mut relay);
    let peer = |i: u16| at(&format!("198.51.100.{i}:1"));
    assert_eq!(first.permit(&mut relay, &[peer(1), peer(2)]).code(), 200);
    assert_eq!(second.permit(&mut relay, &[peer(1), peer(2)]).code(), 508);
    assert_eq!(second.permit(&mut relay, &[peer(1)]).code(), 200, "a refusal takes nothing");
    assert_eq!(first.permit(&mut relay, &[peer(1), peer(2)]).code(), 200, "a refresh costs nothing");
    assert_eq!(first.bind(&mut relay, 0x4000, peer(1)).code(), 200);
    assert_eq!(second.bind(&mut relay, 0x4000, peer(1)).code(), 508);
    first.refresh(&mut relay, 0);
    assert_eq!(second.bind(&mut relay, 0x4000, peer(9)).code(), 200);
}

#[test]
fn a_refused_channel_takes_no_permission() {
    let mut relay = limited(AccountLimits { permissions: 2, channels: 1, ..NONE }, NONE, NONE);
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    assert_eq!(client.bind(&mut relay, 0x4000, peer()).code(), 200);
    assert_eq!(client.bind(&mut relay, 0x4001, at("198.51.100.20:1")).code(), 508);
    assert!(client.say(&mut relay, at("198.51.100.20:1"), b"x").is_empty());
    assert_eq!(client.permit(&mut relay, &[at("198.51.100.21:1")]).code(), 200);
    assert_eq!(client.bind(&mut relay, 0x4001, at("198.51.100.22:1")).code(), 508);
    // A channel that could not have its permission gives its place back.
    relay.pass(seconds(601));
    client.allocated(&mut relay);
    client.permit(&mut relay, &[at("198.51.100.20:1"), at("198.51.100.21:1")]);
    assert_eq!(client.bind(&mut relay, 0x4001, at("198.51.100.22:1")).code(), 508);
    assert_eq!(client.bind(&mut relay, 0x4001, at("198.51.100.20:1")).code(), 200);
}

#[test]
fn a_permission_that_ran_out_is_free_again() {
    let mut relay = limited(AccountLimits { permissions: 1, ..NONE }, NONE, NONE);
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    assert_eq!(client.permit(&mut relay, &[peer()]).code(), 200);
    assert_eq!(client.permit(&mut relay, &[at("198.51.100.10:1")]).code(), 508);
    relay.pass(seconds(300) + TIMER_GRAIN);
    assert_eq!(client.permit(&mut relay, &[at("198.51.100.10:1")]).code(), 200);
}

/// How many of `n` packets of 100 bytes, evenly over a second, pass upwards.
fn pass(relay: &mut Relay, client: &Client, n: u64) -> u64 {
    (0..n)
        .map(|_| {
            relay.pass(std::time::Duration::from_nanos(1_000_000_000 / n));
            client.say_on(relay, 0x4000, &[0; 100]).len() as u64
        })
        .sum()
}

#[test]
fn rates_hold_for_the_allocation_the_user_the_tenant_and_the_relay() {
    let packets = AccountLimits { packets_per_second: 100, ..NONE };
    let bits = AccountLimits { bits_per_second: 80_000, ..NONE };
    for limit in [packets, bits] {
        let mut own = options();
        (own.packets_per_second, own.bits_per_second) = (limit.packets_per_second, limit.bits_per_second);
        for mut relay in
            [Relay::with(own), limited(limit, NONE, NONE), limited(NONE, limit, NONE), limited(NONE, NONE, limit)]
        {
            let mut client = Client::new(CLIENT);
            client.allocated(&mut relay);
            client.bind(&mut relay, 0x4000, peer());
            pass(&mut relay, &client, 1000);
            let passed = pass(&mut relay, &client, 1000) + pass(&mut relay, &client, 1000);
            assert!((190..=210).contains(&passed), "{passed} in two seconds: {limit:?}");
            assert!(relay.drops(DropReason::RateLimited) > 2000);
            assert_eq!(pass(&mut relay, &client, 50), 50, "below the rate nothing is lost");
        }
    }
}

#[test]
fn both_directions_and_forms_count_together() {
    let mut options = options();
    options.packets_per_second = 100;
    let mut relay = Relay::with(options);
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    client.bind(&mut relay, 0x4000, peer());
    let mut passed = 0;
    for _ in 0..100 {
        passed += client.say_on(&mut relay, 0x4000, b"x").len();
        passed += client.say(&mut relay, peer(), b"x").len();
        passed += relay.from_peer(peer(), relayed, b"x").len();
        passed += relay.from_peer(at("198.51.100.9:1"), relayed, b"x").len();
    }
    assert!((100..=102).contains(&passed), "{passed}");
}

#[test]
fn a_peer_that_floods_harms_only_its_allocation() {
    let mut options = options();
    options.packets_per_second = 100;
    let mut relay = Relay::with(options);
    let (mut flooded, mut other) = (Client::new(CLIENT), Client::new(CLIENT_2));
    let relayed = flooded.allocated(&mut relay);
    let quiet = other.allocated(&mut relay);
    flooded.bind(&mut relay, 0x4000, peer());
    other.bind(&mut relay, 0x4000, peer());
    for _ in 0..10_000 {
        relay.from_peer(peer(), relayed, &[0; 1000]);
    }
    assert_eq!(relay.from_peer(peer(), quiet, b"x").len(), 1);
    assert_eq!(flooded.refresh(&mut relay, 600).code(), 200);
}

#[test]
fn a_grant_lowers_the_rate_and_asking_again_does_not_refill_it() {
    let mut relay = Relay::new();
    relay.decide = Box::new(|_| Some(Verdict::Allow(Grant { bits_per_second: Some(8_000), ..Grant::default() })));
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    client.bind(&mut relay, 0x4000, peer());
    let mut passed = 0;
    for _ in 0..100 {
        passed += client.say_on(&mut relay, 0x4000, &[0; 100]).len();
        client.refresh(&mut relay, 600);
        client.bind(&mut relay, 0x4000, peer());
        relay.pass(millis(10));
    }
    assert!(passed <= 21, "{passed} packets of 800 bits in a second, with a second in hand");
}
