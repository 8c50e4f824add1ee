//! What an operator sees of allocations.

use sluice_base::Family;
use sluice_base::limits::LISTED_PLACES_MAX;
use sluice_base::message::Traffic;
use sluice_turn::ServerOptions;
use sluice_turn::harness::model::{Client, Relay, options};

use crate::{CLIENT, CLIENT_2, peer, seconds};

#[test]
fn a_row_tells_age_end_and_traffic() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    client.bind(&mut relay, 0x4000, peer());
    relay.pass(seconds(100));
    client.say_on(&mut relay, 0x4000, b"twelve bytes");
    client.say(&mut relay, peer(), b"four");
    relay.from_peer(peer(), relayed, b"back");
    client.say_on(&mut relay, 0x4001, b"is not bound");
    let page = relay.server.list(relay.now.mono, 0, 10);
    let [row] = &page.rows[..] else { panic!("{page:?}") };
    assert_eq!((row.age, row.expires_in, page.next), (seconds(100), seconds(500), None));
    assert_eq!((row.permissions, row.channels, &row.families[..]), (1, 1, &[Family::V4][..]));
    let traffic = Traffic { packets_from_client: 2, bytes_from_client: 16, packets_to_client: 1, bytes_to_client: 4 };
    assert_eq!(row.traffic, traffic);
}

#[test]
fn between_two_allocations_each_counts_its_own() {
    let mut relay = Relay::new();
    let (mut first, mut second) = (Client::new(CLIENT), Client::new(CLIENT_2));
    let (one, two) = (first.allocated(&mut relay), second.allocated(&mut relay));
    first.bind(&mut relay, 0x4000, two);
    second.bind(&mut relay, 0x4000, one);
    first.say_on(&mut relay, 0x4000, b"hello");
    let page = relay.server.list(relay.now.mono, 0, 10);
    let packets = |i: usize| (page.rows[i].traffic.packets_from_client, page.rows[i].traffic.packets_to_client);
    assert_eq!((packets(0), packets(1)), ((1, 0), (0, 1)));
}

#[test]
fn who_comes_into_a_place_begins_at_zero() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    client.bind(&mut relay, 0x4000, peer());
    client.say_on(&mut relay, 0x4000, b"hello");
    client.refresh(&mut relay, 0);
    assert!(relay.server.list(relay.now.mono, 0, 10).rows.is_empty());
    client.allocated(&mut relay);
    assert_eq!(relay.server.list(relay.now.mono, 0, 10).rows[0].traffic, Traffic::default());
}

#[test]
fn what_has_run_out_is_not_listed() {
    let mut relay = Relay::new();
    Client::new(CLIENT).allocated(&mut relay);
    relay.pass_without_timers(seconds(600));
    assert!(relay.server.list(relay.now.mono, 0, 10).rows.is_empty());
}

#[test]
fn pages_have_all_of_them_once() {
    let mut relay = Relay::with(ServerOptions { ports: 20_000..=30_000, ..options() });
    let count = LISTED_PLACES_MAX + 300;
    for n in 0..count {
        Client::new(&format!("203.0.{}.{}:4000", n / 250, 1 + n % 250)).allocated(&mut relay);
    }
    let (mut ids, mut from) = (std::collections::HashSet::new(), Some(0));
    let mut pages = 0;
    while let Some(place) = from {
        let page = relay.server.list(relay.now.mono, place, 500);
        assert!(page.rows.len() <= 500);
        ids.extend(page.rows.iter().map(|row| row.id));
        (from, pages) = (page.next, pages + 1);
    }
    assert_eq!((ids.len(), pages), (count, 3));
    // A place beyond the table is the end of it.
    assert_eq!(relay.server.list(relay.now.mono, u32::MAX, 500).next, None);
}
