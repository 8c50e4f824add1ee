//! Dual allocations: ADDITIONAL-ADDRESS-FAMILY and ADDRESS-ERROR-CODE (RFC 8656, 7.2).

use sluice_base::io::OpenError;
use sluice_turn::harness::model::{Answer, Client, Relay, SERVER_V4, SERVER_V6, options};
use sluice_wire::stun::{Method, attribute};

use crate::{CLIENT, CLIENT_V6, at, peer, peer_v6};

fn both(client: &mut Client, relay: &mut Relay) -> Answer {
    client.allocate(relay, |builder| {
        builder.u32(attribute::ADDITIONAL_ADDRESS_FAMILY, 2 << 24);
    })
}

fn end_family(client: &mut Client, relay: &mut Relay, family: u32) -> Answer {
    client.ask(relay, Method::REFRESH, |builder| {
        builder.u32(attribute::LIFETIME, 0).u32(attribute::REQUESTED_ADDRESS_FAMILY, family << 24);
    })
}

#[test]
fn both_families_are_allocated() {
    for address in [CLIENT, CLIENT_V6] {
        let mut relay = Relay::new();
        let mut client = Client::new(address);
        let answer = both(&mut client, &mut relay);
        let relayed = answer.relayed();
        assert_eq!(relayed.len(), 2);
        assert_eq!((relayed[0].ip(), relayed[1].ip()), (at(SERVER_V4).ip(), at(SERVER_V6).ip()));
        assert_eq!(answer.message().attributes.address_error, None);
        assert_eq!(relay.questions.len(), 1);
        assert_eq!(client.permit(&mut relay, &[peer(), peer_v6()]).code(), 200);
        for (peer, relayed) in [(peer(), relayed[0]), (peer_v6(), relayed[1])] {
            let sent = client.say(&mut relay, peer, b"hello");
            assert_eq!(sent[0].socket, relay.socket_at(relayed).unwrap());
            assert_eq!(relay.from_peer(peer, relayed, b"hello").len(), 1);
        }
    }
}

#[test]
fn a_family_that_is_not_there_is_said() {
    for (kept, lost) in [(0, 2), (1, 1)] {
        let mut options = options();
        options.relays = [options.relays[kept]].into();
        let mut relay = Relay::with(options);
        let answer = both(&mut Client::new(CLIENT), &mut relay);
        assert_eq!(answer.relayed().len(), 1, "the other family is had");
        let (family, code, _) = answer.message().attributes.address_error.expect("an ADDRESS-ERROR-CODE");
        assert_eq!((family, code), (lost, 440));
    }
}

#[test]
fn a_family_that_is_used_up_is_said() {
    for lost in [1, 2] {
        let mut relay = Relay::new();
        relay.opener =
            Box::new(move |spec| if spec.local.is_ipv4() == (lost == 1) { Err(OpenError::NoSockets) } else { Ok(()) });
        let mut client = Client::new(CLIENT);
        let answer = both(&mut client, &mut relay);
        assert_eq!(answer.relayed().len(), 1);
        let (family, code, _) = answer.message().attributes.address_error.expect("an ADDRESS-ERROR-CODE");
        assert_eq!((family, code), (lost, 508));
        assert_eq!(client.refresh(&mut relay, 600).code(), 200);
    }
}

#[test]
fn without_any_family_it_is_refused() {
    let mut relay = Relay::new();
    relay.opener = Box::new(|_| Err(OpenError::NoSockets));
    assert_eq!(both(&mut Client::new(CLIENT), &mut relay).code(), 508);
    assert_eq!(relay.server.allocations().count(), 0);
}

#[test]
fn one_family_ends_alone() {
    for (ended, kept) in [(1, 2), (2, 1)] {
        let mut relay = Relay::new();
        let mut client = Client::new(CLIENT);
        let relayed = client.allocated_both(&mut relay);
        client.permit(&mut relay, &[peer(), peer_v6()]);
        client.bind(&mut relay, 0x4001, peer());
        client.bind(&mut relay, 0x4002, peer_v6());
        let answer = end_family(&mut client, &mut relay, ended);
        assert_eq!((answer.code(), answer.lifetime()), (200, Some(0)));
        let (gone, stays) = if ended == 1 { (peer(), peer_v6()) } else { (peer_v6(), peer()) };
        assert!(client.say(&mut relay, gone, b"x").is_empty());
        assert_eq!(client.say(&mut relay, stays, b"x").len(), 1);
        assert!(client.say_on(&mut relay, 0x4000 + ended as u16, b"x").is_empty());
        assert_eq!(client.say_on(&mut relay, 0x4000 + kept as u16, b"x").len(), 1);
        assert_eq!(client.permit(&mut relay, &[gone]).code(), 443);
        assert_eq!(relay.socket_at(relayed[ended as usize - 1]), None);
        assert!(relay.socket_at(relayed[kept as usize - 1]).is_some());
        assert_eq!(end_family(&mut client, &mut relay, ended).code(), 443);
        assert_eq!(end_family(&mut client, &mut relay, kept).code(), 200);
        assert_eq!(client.refresh(&mut relay, 600).code(), 437);
        assert_eq!(relay.relay_sockets(), 0);
    }
}

#[test]
fn a_refresh_without_a_family_ends_both() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated_both(&mut relay);
    assert_eq!(client.refresh(&mut relay, 0).code(), 200);
    assert_eq!(relay.relay_sockets(), 0);
}

#[test]
fn an_even_port_goes_with_both() {
    let mut relay = Relay::new();
    let answer = Client::new(CLIENT).allocate(&mut relay, |builder| {
        builder.u32(attribute::ADDITIONAL_ADDRESS_FAMILY, 2 << 24).bytes(attribute::EVEN_PORT, &[0]);
    });
    assert!(answer.relayed().iter().all(|relayed| relayed.port() % 2 == 0));
}
