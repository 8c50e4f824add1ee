//! Allocate (RFC 8656, 7.2): what it takes, and what it refuses.

use std::collections::HashSet;

use sluice_base::Family;
use sluice_base::io::OpenError;
use sluice_base::limits::PORT_ATTEMPTS_MAX;
use sluice_base::stats::{Code, Counter, Method as Label, Single};
use sluice_turn::harness::model::{Client, PORTS, Relay, SERVER_V4, SERVER_V6, options, udp};
use sluice_wire::stun::{Builder, Method, attribute};

use crate::{CLIENT, CLIENT_2, CLIENT_V6, at};

const V4: u32 = 1 << 24;
const V6: u32 = 2 << 24;
const RESERVE: &[u8] = &[0x80];

#[test]
fn an_allocation_is_made() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let answer = client.allocate(&mut relay, |_| {});
    let [relayed] = answer.relayed()[..] else { panic!("one relayed address") };
    assert_eq!(relayed.ip(), at(SERVER_V4).ip());
    assert!(PORTS.contains(&relayed.port()));
    assert_eq!(answer.lifetime(), Some(600));
    assert_eq!(answer.message().attributes.xor_mapped, Some(client.address));
    assert_eq!(answer.token(), None);
    assert!(relay.socket_at(relayed).is_some());
    assert_eq!(relay.single(Single::Allocations), 1);
    assert_eq!(relay.single(Single::AllocationsCreated), 1);
    assert_eq!(relay.count(Counter::request(Label::Allocate, Code::Ok)), 1);
}

#[test]
fn every_family_of_client_gets_every_family_of_relay() {
    let mut relay = Relay::new();
    for (i, client) in ["203.0.113.7", "[2001:db8:c::7]"].into_iter().enumerate() {
        for (j, (family, server)) in [(V4, SERVER_V4), (V6, SERVER_V6)].into_iter().enumerate() {
            let mut client = Client::new(&format!("{client}:{}", 40_000 + i * 2 + j));
            let answer = client.allocate(&mut relay, |builder| {
                builder.u32(attribute::REQUESTED_ADDRESS_FAMILY, family);
            });
            assert_eq!(answer.relayed()[0].ip(), at(server).ip());
        }
    }
    // Without a wish it is IPv4, wherever the client comes from.
    assert_eq!(Client::new(CLIENT_V6).allocated(&mut relay).ip(), at(SERVER_V4).ip());
}

fn refused(fill: impl FnOnce(&mut Builder<'_>)) -> u16 {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let answer = client.ask(&mut relay, Method::ALLOCATE, fill);
    assert!(relay.questions.is_empty() && relay.opens.is_empty());
    assert_eq!(relay.server.allocations().count(), 0);
    answer.code()
}

#[test]
fn a_transport_must_be_asked_for_and_be_udp() {
    assert_eq!(refused(|_| {}), 400);
    for protocol in [0, 6, 16, 255] {
        assert_eq!(
            refused(|b| {
                b.u32(attribute::REQUESTED_TRANSPORT, protocol << 24);
            }),
            442
        );
    }
    assert_eq!(
        refused(|b| {
            b.bytes(attribute::REQUESTED_TRANSPORT, &[17]);
        }),
        400
    );
    assert_eq!(
        refused(|b| {
            b.bytes(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0, 0]);
        }),
        400
    );
}

#[test]
fn combinations_that_the_rfc_forbids() {
    let token = |b: &mut Builder<'_>| {
        b.bytes(attribute::RESERVATION_TOKEN, &[0; 8]);
    };
    let even = |b: &mut Builder<'_>| {
        b.bytes(attribute::EVEN_PORT, &[0]);
    };
    let reserve = |b: &mut Builder<'_>| {
        b.bytes(attribute::EVEN_PORT, RESERVE);
    };
    let four = |b: &mut Builder<'_>| {
        b.u32(attribute::REQUESTED_ADDRESS_FAMILY, V4);
    };
    let six = |b: &mut Builder<'_>| {
        b.u32(attribute::REQUESTED_ADDRESS_FAMILY, V6);
    };
    let dual = |b: &mut Builder<'_>| {
        b.u32(attribute::ADDITIONAL_ADDRESS_FAMILY, V6);
    };
    let dual_four = |b: &mut Builder<'_>| {
        b.u32(attribute::ADDITIONAL_ADDRESS_FAMILY, V4);
    };
    let dual_odd = |b: &mut Builder<'_>| {
        b.u32(attribute::ADDITIONAL_ADDRESS_FAMILY, 3 << 24);
    };
    type Fill<'a> = &'a dyn Fn(&mut Builder<'_>);
    let forbidden: [(&str, &[Fill<'_>]); 10] = [
        ("token and even", &[&token, &even]),
        ("token and reserve", &[&token, &reserve]),
        ("token and family", &[&token, &four]),
        ("token and six", &[&token, &six]),
        ("token and dual", &[&token, &dual]),
        ("family and dual", &[&four, &dual]),
        ("six and dual", &[&six, &dual]),
        ("reserve and dual", &[&reserve, &dual]),
        ("dual with IPv4", &[&dual_four]),
        ("dual with no family", &[&dual_odd]),
    ];
    for (what, fills) in forbidden {
        let code = refused(|builder| {
            udp(builder);
            fills.iter().for_each(|fill| fill(builder));
        });
        assert_eq!(code, 400, "{what}");
    }
}

#[test]
fn a_malformed_attribute_is_a_bad_request() {
    for (kind, value) in [
        (attribute::LIFETIME, &[0, 0, 1][..]),
        (attribute::LIFETIME, &[0; 5]),
        (attribute::REQUESTED_ADDRESS_FAMILY, &[1]),
        (attribute::ADDITIONAL_ADDRESS_FAMILY, &[2, 0]),
        (attribute::EVEN_PORT, &[]),
        (attribute::EVEN_PORT, &[0, 0]),
        (attribute::RESERVATION_TOKEN, &[0; 7]),
        (attribute::DONT_FRAGMENT, &[0; 4]),
        (attribute::XOR_PEER_ADDRESS, &[0, 1, 0, 0]),
    ] {
        let code = refused(|builder| {
            udp(builder);
            builder.bytes(kind, value);
        });
        assert_eq!(code, 400, "{kind:#x}");
    }
}

#[test]
fn an_unknown_family_is_not_supported() {
    for family in [0u32, 3, 255] {
        let code = refused(|builder| {
            udp(builder);
            builder.u32(attribute::REQUESTED_ADDRESS_FAMILY, family << 24);
        });
        assert_eq!(code, 440);
    }
}

#[test]
fn a_family_without_a_relay_address_is_not_supported() {
    let mut options = options();
    options.relays = options.relays[..1].into();
    let mut relay = Relay::with(options);
    let mut client = Client::new(CLIENT);
    let answer = client.allocate(&mut relay, |builder| {
        builder.u32(attribute::REQUESTED_ADDRESS_FAMILY, V6);
    });
    assert_eq!(answer.code(), 440);
    assert_eq!(client.allocate(&mut relay, |_| {}).code(), 200);
}

#[test]
fn what_must_be_understood_and_is_not_is_named() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let answer = client.allocate(&mut relay, |builder| {
        builder.bytes(0x001b, b"access token").bytes(0x8abc, &[1]).bytes(0x7fff, &[]);
    });
    assert_eq!(answer.code(), 420);
    assert_eq!(answer.message().attributes.unknown_attributes, Some(&[0, 0x1b, 0x7f, 0xff][..]));
    assert!(client.trusts(&answer));
    assert!(relay.questions.is_empty());
}

#[test]
fn a_second_allocation_of_the_same_client_is_a_mismatch() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    assert_eq!(client.allocate(&mut relay, |_| {}).code(), 437);
    assert_eq!(client.refresh(&mut relay, 0).code(), 200);
    client.allocated(&mut relay);
    assert_eq!(relay.relay_sockets(), 1);
}

#[test]
fn another_listener_is_another_allocation() {
    let mut options = options();
    let mut listeners = options.listeners.to_vec();
    listeners[1].address = at("192.0.2.2:3478");
    options.listeners = listeners.into();
    let mut relay = Relay::with(options);
    let mut client = Client::new(CLIENT);
    let first = client.allocated(&mut relay);
    let mut other = Client::new(CLIENT);
    other.listener = 1;
    assert_ne!(other.allocated(&mut relay), first);
    assert_eq!(client.refresh(&mut relay, 0).code(), 200);
    assert_eq!(other.refresh(&mut relay, 600).code(), 200);
}

#[test]
fn the_relay_address_is_the_one_the_client_came_to() {
    let mut options = options();
    let mut relays = options.relays.to_vec();
    relays.insert(0, sluice_turn::RelayAddress { address: "192.0.2.200".parse().unwrap(), external: None });
    options.relays = relays.into();
    let mut relay = Relay::with(options);
    assert_eq!(Client::new(CLIENT).allocated(&mut relay).ip(), at(SERVER_V4).ip());
    assert_eq!(Client::new(CLIENT_V6).allocated(&mut relay).ip().to_string(), "192.0.2.200");
}

#[test]
fn the_external_address_is_announced_and_the_inner_one_bound() {
    let mut options = options();
    let mut relays = options.relays.to_vec();
    relays[0].external = Some("203.0.113.200".parse().unwrap());
    options.relays = relays.into();
    let mut relay = Relay::with(options);
    let relayed = Client::new(CLIENT).allocated(&mut relay);
    assert_eq!(relayed.ip().to_string(), "203.0.113.200");
    assert!(relay.socket_at((at(SERVER_V4).ip(), relayed.port()).into()).is_some());
}

#[test]
fn all_ports_are_used_and_then_there_is_no_capacity() {
    let mut options = options();
    options.ports = 50_000..=50_009;
    let mut relay = Relay::with(options);
    let mut clients: Vec<_> = (0..11).map(|i| Client::new(&format!("203.0.113.9:{}", 40_000 + i))).collect();
    let ports: HashSet<_> = clients[..10].iter_mut().map(|client| client.allocated(&mut relay).port()).collect();
    assert_eq!(ports, (50_000..=50_009).collect());
    assert_eq!(clients[10].allocate(&mut relay, |_| {}).code(), 508);
    // The other family has ports of its own.
    let answer = clients[10].allocate(&mut relay, |builder| {
        builder.u32(attribute::REQUESTED_ADDRESS_FAMILY, V6);
    });
    assert_eq!(answer.code(), 200);
    clients[10].refresh(&mut relay, 0);
    clients[3].refresh(&mut relay, 0);
    assert_eq!(clients[10].allocate(&mut relay, |_| {}).code(), 200);
}

#[test]
fn a_port_of_another_process_is_stepped_over() {
    let mut relay = Relay::new();
    let mut left = 3;
    relay.opener = Box::new(move |_| {
        left -= 1;
        if left >= 0 { Err(OpenError::InUse) } else { Ok(()) }
    });
    Client::new(CLIENT).allocated(&mut relay);
    assert_eq!(relay.opens.len(), 4);
    assert_eq!(relay.opens.iter().map(|spec| spec.local).collect::<HashSet<_>>().len(), 4);
}

#[test]
fn a_range_that_others_hold_is_given_up() {
    let mut relay = Relay::new();
    relay.opener = Box::new(|_| Err(OpenError::InUse));
    assert_eq!(Client::new(CLIENT).allocate(&mut relay, |_| {}).code(), 508);
    assert_eq!(relay.opens.len(), PORT_ATTEMPTS_MAX as usize);
    relay.opener = Box::new(|_| Ok(()));
    Client::new(CLIENT).allocated(&mut relay);
}

#[test]
fn ports_that_could_not_be_opened_are_free_again() {
    let mut options = options();
    options.ports = 50_000..=50_003;
    let mut relay = Relay::with(options);
    relay.opener = Box::new(|_| Err(OpenError::InUse));
    for _ in 0..5 {
        assert_eq!(Client::new(CLIENT).allocate(&mut relay, |_| {}).code(), 508);
    }
    relay.opener = Box::new(|_| Ok(()));
    for i in 0..4 {
        Client::new(&format!("203.0.113.9:{}", 40_000 + i)).allocated(&mut relay);
    }
}

#[test]
fn the_limit_on_files_is_no_capacity() {
    let mut relay = Relay::new();
    relay.opener = Box::new(|_| Err(OpenError::NoSockets));
    let mut client = Client::new(CLIENT);
    assert_eq!(client.allocate(&mut relay, |_| {}).code(), 508);
    assert_eq!(relay.opens.len(), 1);
    relay.opener = Box::new(|_| Ok(()));
    client.allocated(&mut relay);
}

#[test]
fn relayed_ports_are_not_guessed_from_each_other() {
    let mut relay = Relay::new();
    let ports: Vec<i32> = (0..64)
        .map(|i| i32::from(Client::new(&format!("203.0.113.9:{}", 40_000 + i)).allocated(&mut relay).port()))
        .collect();
    let near = ports.windows(2).filter(|pair| (pair[0] - pair[1]).abs() <= 2).count();
    assert!(near < 8, "{near} of 63 are neighbours");
}

#[test]
fn what_is_asked_of_the_driver() {
    let mut options = options();
    (options.receive_buffer_bytes, options.send_buffer_bytes) = (111, 222);
    let mut relay = Relay::with(options);
    let relayed = Client::new(CLIENT).allocated(&mut relay);
    let spec = relay.opens[0];
    assert_eq!(spec.local, relayed);
    assert_eq!((spec.receive_buffer_bytes, spec.send_buffer_bytes), (111, 222));
    assert_eq!(Family::of(spec.local.ip()), Family::V4);
}

#[test]
fn a_client_that_changed_its_address_begins_anew() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let relayed = client.allocated(&mut relay);
    client.permit(&mut relay, &[crate::peer()]);
    client.bind(&mut relay, 0x4000, crate::peer());
    let mut moved = client.clone();
    moved.address = at(CLIENT_2);
    assert!(moved.say_on(&mut relay, 0x4000, b"hello").is_empty());
    assert!(moved.say(&mut relay, crate::peer(), b"hello").is_empty());
    assert_eq!(moved.refresh(&mut relay, 600).code(), 438);
    moved.challenge(&mut relay);
    assert_eq!(moved.refresh(&mut relay, 600).code(), 437);
    assert_eq!(moved.permit(&mut relay, &[crate::peer()]).code(), 437);
    assert_eq!(moved.bind(&mut relay, 0x4000, crate::peer()).code(), 437);
    let anew = moved.allocated(&mut relay);
    assert_ne!(anew, relayed);
    // The peer still reaches the old place only.
    let sent = relay.from_peer(crate::peer(), relayed, b"answer");
    assert_eq!(sent[0].to, sluice_base::Pii::new(client.address));
}
