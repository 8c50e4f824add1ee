//! Which peers are forbidden.

use std::net::SocketAddr;

use sluice_base::AddressClass;
use sluice_base::stats::DropReason;
use sluice_turn::harness::model::{Client, Relay, ip_address, options};
use sluice_turn::{GuardOptions, Network};
use sluice_wire::stun::attribute;

use crate::CLIENT;

fn relay_with(guard: GuardOptions) -> (Relay, Client) {
    let mut options = options();
    options.guard = guard;
    let mut relay = Relay::with(options);
    let mut client = Client::new(CLIENT);
    client
        .allocate(&mut relay, |builder| {
            builder.u32(attribute::ADDITIONAL_ADDRESS_FAMILY, 2 << 24);
        })
        .relayed();
    (relay, client)
}

/// An address of every class that a configuration may name, and of every form that wraps an IPv4 one.
const SPECIAL: [(AddressClass, &[&str]); 12] = [
    (AddressClass::Private, &["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.255.255", "::ffff:10.0.0.1"]),
    (AddressClass::Shared, &["100.64.0.1", "100.127.255.255", "::ffff:100.64.0.1"]),
    (AddressClass::Loopback, &["127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1", "::127.0.0.1"]),
    (AddressClass::LinkLocal, &["169.254.1.1", "fe80::1", "febf::1", "64:ff9b::169.254.1.1"]),
    (AddressClass::UniqueLocal, &["fc00::1", "fdff::1", "fec0::1"]),
    (AddressClass::Metadata, &["169.254.169.254", "fd00:ec2::254", "::ffff:169.254.169.254", "2002:a9fe:a9fe::1"]),
    (AddressClass::Multicast, &["224.0.0.1", "239.255.255.255", "ff02::1"]),
    (AddressClass::Broadcast, &["255.255.255.255"]),
    (AddressClass::Unspecified, &["0.0.0.0", "0.255.255.255", "::"]),
    (AddressClass::Documentation, &["192.0.2.99", "198.51.100.9", "203.0.113.9", "2001:db8::99", "3fff::1"]),
    (AddressClass::Benchmarking, &["198.18.0.1", "198.19.255.255", "2001:2::1"]),
    (AddressClass::Reserved, &["240.0.0.1", "192.0.0.1", "192.88.99.1", "100::1", "2001:10::1", "5f00::1", "4000::1"]),
];

#[test]
fn every_special_range_is_closed() {
    let (mut relay, mut client) = relay_with(GuardOptions::default());
    for ip in SPECIAL.iter().flat_map(|(_, addresses)| addresses.iter()) {
        let peer = SocketAddr::new(ip_address(ip), 5000);
        assert_eq!(client.permit(&mut relay, &[peer]).code(), 403, "{ip}");
        assert_eq!(client.bind(&mut relay, 0x4000, peer).code(), 403, "{ip}");
        assert!(client.say(&mut relay, peer, b"x").is_empty(), "{ip}");
    }
    assert_eq!(relay.questions.len(), 1, "no policy is asked about what is forbidden");
}

#[test]
fn the_public_internet_is_open() {
    let (mut relay, mut client) = relay_with(GuardOptions::default());
    for ip in ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::8.8.8.8"] {
        let peer = SocketAddr::new(ip_address(ip), 5000);
        assert_eq!(client.permit(&mut relay, &[peer]).code(), 200, "{ip}");
        assert_eq!(client.say(&mut relay, peer, b"x").len(), 1, "{ip}");
    }
}

#[test]
fn each_class_opens_by_its_name_alone() {
    for (class, addresses) in SPECIAL {
        let (mut relay, mut client) =
            relay_with(GuardOptions { allow_classes: vec![class], ..GuardOptions::default() });
        for (other, closed) in SPECIAL {
            let code = if other == class { 200 } else { 403 };
            let peer = SocketAddr::new(ip_address(closed[0]), 5000);
            assert_eq!(client.permit(&mut relay, &[peer]).code(), code, "{class:?} {}", closed[0]);
        }
        for ip in addresses {
            let peer = SocketAddr::new(ip_address(ip), 5000);
            assert_eq!(client.permit(&mut relay, &[peer]).code(), 200, "{class:?} {ip}");
        }
    }
}

#[test]
fn a_named_range_opens_and_a_denied_one_closes() {
    let network = |address: &str, bits| Network { address: ip_address(address), bits };
    let (mut relay, mut client) = relay_with(GuardOptions {
        allow: vec![network("10.1.0.0", 16)],
        deny: vec![network("10.1.2.0", 24), network("8.8.8.0", 24), network("2606::", 16)],
        ..GuardOptions::default()
    });
    for (ip, code) in [
        ("10.1.0.1", 200),
        ("10.2.0.1", 403),
        ("10.1.2.3", 403),
        ("8.8.8.8", 403),
        ("8.8.4.4", 200),
        ("2606::1", 403),
        ("64:ff9b::8.8.8.8", 403),
        ("2002:0808:0808::1", 403),
    ] {
        let peer = SocketAddr::new(ip_address(ip), 5000);
        assert_eq!(client.permit(&mut relay, &[peer]).code(), code, "{ip}");
    }
}

#[test]
fn addresses_of_this_machine_are_no_peers() {
    let mut options = options();
    options.own_addresses = [ip_address("8.8.8.8"), ip_address("10.0.0.1")].into();
    options.guard.allow_classes.push(AddressClass::Private);
    let mut relay = Relay::with(options);
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    for (ip, code) in [("8.8.8.8", 403), ("8.8.8.9", 200), ("10.0.0.1", 403), ("10.0.0.2", 200)] {
        let peer = SocketAddr::new(ip_address(ip), 5000);
        assert_eq!(client.permit(&mut relay, &[peer]).code(), code, "{ip}");
    }
}

#[test]
fn a_policy_learns_the_class() {
    let (mut relay, mut client) = relay_with(GuardOptions {
        allow_classes: vec![AddressClass::Private, AddressClass::Documentation],
        ..GuardOptions::default()
    });
    for (ip, class, translated) in [
        ("8.8.8.8", AddressClass::Public, false),
        ("10.1.1.1", AddressClass::Private, false),
        ("::ffff:10.1.1.1", AddressClass::Private, true),
        ("192.0.2.1", AddressClass::OwnInfrastructure, false),
    ] {
        client.permit(&mut relay, &[SocketAddr::new(ip_address(ip), 5000)]);
        let endpoint = relay.questions.last().unwrap().peers[0];
        assert_eq!((endpoint.class, endpoint.translated), (class, translated), "{ip}");
    }
    assert_eq!(relay.drops(DropReason::PeerForbidden), 0);
}
