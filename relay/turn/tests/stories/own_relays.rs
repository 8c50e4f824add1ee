//! Peers that are relayed addresses of this relay: judged by port, and reached inside the process.

use std::net::SocketAddr;

use sluice_base::stats::{Counter, Direction, DropReason, Leg, Single};
use sluice_base::{AddressClass, WorkerId};
use sluice_turn::ServerOptions;
use sluice_turn::harness::model::{Client, PORTS, Relay, SERVER_V4, channel_data, ip_address, options, shared};
use sluice_wire::stun::{Message, Method};

use crate::{CLIENT, CLIENT_2, CLIENT_V6, at, seconds};

fn two(options: ServerOptions) -> (Relay, [Client; 2], [SocketAddr; 2]) {
    let mut relay = Relay::with(options);
    let mut clients = [Client::new(CLIENT), Client::new(CLIENT_2)];
    let relayed = clients.each_mut().map(|client| client.allocated(&mut relay));
    (relay, clients, relayed)
}

fn external() -> ServerOptions {
    let mut options = options();
    let mut relays = options.relays.to_vec();
    relays[0].external = Some(ip_address("203.0.113.200"));
    options.relays = relays.into();
    options
}

#[test]
fn two_clients_talk_inside_the_process() {
    for options in [options(), external()] {
        let (mut relay, [mut first, mut second], [from, to]) = two(options);
        assert_eq!(first.permit(&mut relay, &[to]).code(), 200);
        assert_eq!(second.permit(&mut relay, &[from]).code(), 200);
        let sent = first.say(&mut relay, to, b"hello");
        assert_eq!(sent.len(), 1);
        assert_eq!((sent[0].socket, sent[0].to), (relay.listener(0), second.address.into()));
        let message = Message::parse(&sent[0].bytes).unwrap();
        assert_eq!(message.method, Method::DATA);
        assert_eq!(message.peers().collect::<Vec<_>>(), [from], "from where the other client knows it");
        assert_eq!(message.data(), Some(&b"hello"[..]));
        assert_eq!(relay.single(Single::HairpinPackets), 1);
    }
}

#[test]
fn channels_of_both_meet() {
    for options in [options(), external()] {
        let (mut relay, [mut first, mut second], [from, to]) = two(options);
        assert_eq!(first.bind(&mut relay, 0x4001, to).code(), 200);
        assert_eq!(second.bind(&mut relay, 0x4002, from).code(), 200);
        let sent = first.say_on(&mut relay, 0x4001, b"hello");
        assert_eq!((sent[0].to, &sent[0].bytes), (second.address.into(), &channel_data(0x4002, b"hello")));
        let sent = second.say_on(&mut relay, 0x4002, b"back");
        assert_eq!((sent[0].to, &sent[0].bytes), (first.address.into(), &channel_data(0x4001, b"back")));
        for leg in [Leg::Client, Leg::Peer] {
            for direction in [Direction::Receive, Direction::Transmit] {
                assert_eq!(relay.count(Counter::packets(leg, direction)), 2);
            }
        }
        assert_eq!(relay.all_drops(), 0);
    }
}

#[test]
fn the_other_client_must_have_permitted_it() {
    let (mut relay, [mut first, _], [_, to]) = two(options());
    first.bind(&mut relay, 0x4001, to);
    assert!(first.say_on(&mut relay, 0x4001, b"hello").is_empty());
    assert!(first.say(&mut relay, to, b"hello").is_empty());
    assert_eq!(relay.drops(DropReason::NoPermission), 2);
}

#[test]
fn a_port_without_an_allocation_is_forbidden() {
    for (options, ip) in [(options(), at(SERVER_V4).ip()), (external(), ip_address("203.0.113.200"))] {
        let (mut relay, [mut first, _], relayed) = two(options);
        assert_eq!(first.permit(&mut relay, &[SocketAddr::new(ip, 1)]).code(), 200, "a permission has no port");
        let free = PORTS.clone().find(|port| relayed.iter().all(|r| r.port() != *port)).unwrap();
        for port in [0, 22, 3478, free] {
            let peer = SocketAddr::new(ip, port);
            assert_eq!(first.bind(&mut relay, 0x4001, peer).code(), 403, "{port}");
            assert!(first.say(&mut relay, peer, b"x").is_empty(), "{port}");
        }
        assert_eq!(relay.drops(DropReason::PeerForbidden), 4);
    }
}

#[test]
fn the_inner_address_is_no_way_round() {
    let (mut relay, [mut first, _], relayed) = two(external());
    let inner = at(SERVER_V4).ip();
    assert_eq!(first.permit(&mut relay, &[SocketAddr::new(inner, 22)]).code(), 200);
    assert!(first.say(&mut relay, SocketAddr::new(inner, 22), b"x").is_empty());
    assert_eq!(first.bind(&mut relay, 0x4001, SocketAddr::new(inner, 22)).code(), 403);
    assert_eq!(first.bind(&mut relay, 0x4001, SocketAddr::new(inner, relayed[0].port())).code(), 403);
}

#[test]
fn wrapped_forms_of_the_relay_address_are_forbidden() {
    let (mut relay, [mut first, _], [_, to]) = two(options());
    let mut six = Client::new(CLIENT_V6);
    six.allocated_both(&mut relay);
    let wrapped = |form: &str| SocketAddr::new(ip_address(form), to.port());
    for form in ["::ffff:192.0.2.1", "::192.0.2.1", "64:ff9b::192.0.2.1", "2002:c000:0201::1"] {
        assert_eq!(six.permit(&mut relay, &[wrapped(form)]).code(), 403, "{form}");
    }
    assert_eq!(first.permit(&mut relay, &[to]).code(), 200);
}

#[test]
fn nobody_is_its_own_peer() {
    for options in [options(), external()] {
        let (mut relay, [mut first, _], [own, _]) = two(options);
        assert_eq!(first.bind(&mut relay, 0x4001, own).code(), 403);
        assert_eq!(first.permit(&mut relay, &[own]).code(), 200);
        assert!(first.say(&mut relay, own, b"loop").is_empty());
        assert_eq!(relay.drops(DropReason::PeerForbidden), 1);
    }
}

#[test]
fn a_binding_to_an_allocation_that_has_ended_passes_nothing() {
    let (mut relay, [mut first, mut second], [from, to]) = two(options());
    first.bind(&mut relay, 0x4001, to);
    second.bind(&mut relay, 0x4002, from);
    second.refresh(&mut relay, 0);
    assert!(first.say_on(&mut relay, 0x4001, b"x").is_empty());
    assert_eq!(relay.drops(DropReason::PeerForbidden), 1);
    assert_eq!(first.bind(&mut relay, 0x4001, to).code(), 403);
}

#[test]
fn a_process_of_this_machine_is_no_peer() {
    let (mut relay, [mut first, _], [own, to]) = two(options());
    first.permit(&mut relay, &[to]);
    let stranger = SocketAddr::new(at(SERVER_V4).ip(), 22);
    assert!(relay.from_peer(stranger, own, b"x").is_empty());
    assert_eq!(relay.drops(DropReason::PeerForbidden), 1);
}

#[test]
fn workers_reach_each_other_through_the_kernel() {
    for mut options in [options(), external()] {
        options.workers = 2;
        let shared = shared(&options);
        let announced = options.relays[0].announced();
        let mut first_worker = Relay::sharing(options.clone(), shared.clone());
        options.worker = WorkerId(1);
        let mut second_worker = Relay::sharing(options, shared);
        let (mut first, mut second) = (Client::new(CLIENT), Client::new(CLIENT_2));
        let from = first.allocated(&mut first_worker);
        let to = second.allocated(&mut second_worker);
        assert_eq!((from.ip(), to.ip()), (announced, announced));
        assert_eq!(first.bind(&mut first_worker, 0x4001, to).code(), 200);
        assert_eq!(second.bind(&mut second_worker, 0x4002, from).code(), 200);
        let inner = |relayed: SocketAddr| SocketAddr::new(at(SERVER_V4).ip(), relayed.port());
        let sent = first.say_on(&mut first_worker, 0x4001, b"across");
        assert_eq!((sent[0].to, &sent[0].bytes[..]), (inner(to).into(), &b"across"[..]));
        let arrived = second_worker.from_peer(inner(from), inner(to), b"across");
        assert_eq!((arrived[0].to, &arrived[0].bytes), (second.address.into(), &channel_data(0x4002, b"across")));
        // And it ends with the other one's allocation.
        second.refresh(&mut second_worker, 0);
        assert!(first.say_on(&mut first_worker, 0x4001, b"x").is_empty());
    }
}

#[test]
fn a_policy_learns_whose_address_it_is() {
    let (mut relay, [mut first, _], [_, to]) = two(options());
    first.bind(&mut relay, 0x4001, to);
    assert_eq!(relay.questions.last().unwrap().peers[0].class, AddressClass::OwnRelayed);
}

#[test]
fn between_families_there_is_no_loop_either() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    let [four, six] = client.allocated_both(&mut relay);
    client.permit(&mut relay, &[four, six]);
    assert!(client.say(&mut relay, four, b"x").is_empty());
    assert!(client.say(&mut relay, six, b"x").is_empty());
    assert_eq!(relay.drops(DropReason::PeerForbidden), 2);
}

#[test]
fn permissions_of_own_relays_run_out_too() {
    let (mut relay, [mut first, mut second], [from, to]) = two(options());
    first.bind(&mut relay, 0x4001, to);
    second.permit(&mut relay, &[from]);
    relay.pass_without_timers(seconds(299));
    first.permit(&mut relay, &[to]);
    assert_eq!(first.say_on(&mut relay, 0x4001, b"x").len(), 1);
    relay.pass_without_timers(seconds(1));
    assert!(first.say_on(&mut relay, 0x4001, b"x").is_empty(), "the other side's permission is over");
}

#[test]
fn a_process_that_takes_over_the_port_of_an_allocation_is_no_peer() {
    let (mut relay, [mut first, mut second], [from, to]) = two(options());
    first.bind(&mut relay, 0x4001, to);
    second.bind(&mut relay, 0x4002, from);
    assert_eq!(relay.from_peer(from, to, b"x").len(), 1, "as from another worker");
    first.refresh(&mut relay, 0);
    assert!(relay.from_peer(from, to, b"x").is_empty());
    assert_eq!(relay.drops(DropReason::PeerForbidden), 1);
}
