//! Time-limited user names as coturn's REST scheme makes them, and the tenants in them.

use sluice_base::TenantId;
use sluice_turn::harness::model::{Client, Relay, START_UNIX_SECONDS};

use crate::{CLIENT, CLIENT_2, seconds};

fn name(valid_for: u64, rest: &str) -> String {
    format!("{}:{rest}", START_UNIX_SECONDS + valid_for)
}

#[test]
fn a_name_is_valid_until_it_expires() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT).limited(&name(60, "carol"), "first secret");
    assert_eq!(client.allocate(&mut relay, |_| {}).code(), 200);
    let mut late = Client::new(CLIENT_2).limited(&name(60, "carol"), "first secret");
    relay.pass(seconds(59));
    assert_eq!(late.allocate(&mut relay, |_| {}).code(), 200);
    assert_eq!(late.refresh(&mut relay, 0).code(), 200);
    relay.pass(seconds(1));
    assert_eq!(late.allocate(&mut relay, |_| {}).code(), 401);
}

#[test]
fn what_was_begun_in_time_goes_on() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT).limited(&name(60, "carol"), "first secret");
    client.allocated(&mut relay);
    relay.pass(seconds(120));
    assert_eq!(client.refresh(&mut relay, 600).code(), 200);
    assert_eq!(client.permit(&mut relay, &[crate::peer()]).code(), 200);
    assert_eq!(client.refresh(&mut relay, 0).code(), 200);
}

#[test]
fn both_live_secrets_serve() {
    let mut relay = Relay::new();
    for (secret, code) in [("first secret", 200), ("second secret", 200), ("third secret", 401), ("acme secret", 401)] {
        let mut client = Client::new(CLIENT).limited(&name(60, "carol"), secret);
        assert_eq!(client.allocate(&mut relay, |_| {}).code(), code, "{secret}");
        if code == 200 {
            client.refresh(&mut relay, 0);
        }
    }
}

#[test]
fn the_tenant_is_found_in_the_name() {
    let mut relay = Relay::new();
    for (i, (rest, secret, code, tenant, user)) in [
        ("acme/dave", "acme secret", 200, 1, "dave"),
        ("acme/dave", "first secret", 401, 0, ""),
        ("main/dave", "first secret", 200, 0, "dave"),
        ("dave", "first secret", 200, 0, "dave"),
        ("nowhere/dave", "first secret", 200, 0, "nowhere/dave"),
        ("dave", "acme secret", 401, 0, ""),
    ]
    .into_iter()
    .enumerate()
    {
        let address = format!("203.0.113.30:{}", 40_000 + i);
        let mut client = Client::new(&address).limited(&name(60, rest), secret);
        assert_eq!(client.allocate(&mut relay, |_| {}).code(), code, "{rest} {secret}");
        if code == 200 {
            let question = relay.questions.last().unwrap();
            assert_eq!(question.tenant, TenantId(tenant));
            assert_eq!(question.user, sluice_base::Pii::new(user.as_bytes().into()));
        }
    }
}

#[test]
fn a_renewed_name_of_the_same_user_goes_on() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT).limited(&name(60, "carol"), "first secret");
    client.allocated(&mut relay);
    let mut renewed = client.clone().limited(&name(3600, "carol"), "second secret");
    assert_eq!(renewed.refresh(&mut relay, 600).code(), 200);
    let mut other = client.clone().limited(&name(3600, "caroline"), "first secret");
    assert_eq!(other.refresh(&mut relay, 600).code(), 441);
}

#[test]
fn a_name_that_is_only_a_time_is_a_user_without_a_name() {
    let mut relay = Relay::new();
    let bare = (START_UNIX_SECONDS + 60).to_string();
    assert_eq!(Client::new(CLIENT).limited(&bare, "first secret").allocate(&mut relay, |_| {}).code(), 200);
}

#[test]
fn static_users_name_their_tenant_or_are_of_the_default_one() {
    let mut relay = Relay::new();
    for (i, (name, password, code)) in [
        ("alice", "wonderland", 200),
        ("main/alice", "wonderland", 200),
        ("acme/bob", "builder", 200),
        ("bob", "builder", 401),
        ("acme/alice", "wonderland", 401),
    ]
    .into_iter()
    .enumerate()
    {
        let address = format!("203.0.113.30:{}", 40_000 + i);
        let mut client = Client::new(&address).named(name, password);
        assert_eq!(client.allocate(&mut relay, |_| {}).code(), code, "{name}");
    }
}

#[test]
fn a_name_that_is_too_long_is_a_bad_request() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT).named(&"a".repeat(257), "wonderland");
    assert_eq!(client.allocate(&mut relay, |_| {}).code(), 400);
}
