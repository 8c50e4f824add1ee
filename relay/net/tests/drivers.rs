//! What every driver does, io_uring (with all its fallbacks) and epoll alike.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use sluice_base::id::SocketId;
use sluice_base::io::{Event, Io, OpenError, OpenSpec, SendOptions, Slot, SocketRole};
use sluice_base::limits::{HEADROOM_MIN, TAILROOM_MIN};
use sluice_base::pii::{Pii, TransportAddress};
use sluice_base::time::Mono;
use sluice_net::{Epoll, EpollOptions, FEATURES, Packet, Ring, RingBuilder, RingOptions, listener_free, os, probe};

const SLOTS: u32 = 512;

fn ring_without(disable: &[&str], slots: u32, sockets_max: u32) -> Ring {
    let disable: Vec<String> = disable.iter().map(|name| (*name).to_owned()).collect();
    let features = probe(&disable).unwrap();
    RingBuilder::new(&RingOptions { sockets_max, slots, wait_budget: Duration::ZERO }, &features)
        .unwrap()
        .enable()
        .unwrap()
}

/// Makes a driver with that many slots and sockets.
trait Make {
    /// Whether busy flows have connected sockets.
    const TWINS: bool;
    fn make(slots: u32, sockets_max: u32) -> impl Io<Slot = Packet>;
}

struct OnRing;
impl Make for OnRing {
    const TWINS: bool = true;
    fn make(slots: u32, sockets_max: u32) -> impl Io<Slot = Packet> {
        ring_without(&[], slots, sockets_max)
    }
}

struct OnPlainRing;
impl Make for OnPlainRing {
    const TWINS: bool = false;
    fn make(slots: u32, sockets_max: u32) -> impl Io<Slot = Packet> {
        let all: Vec<_> = FEATURES.iter().map(|(name, _)| *name).collect();
        ring_without(&all, slots, sockets_max)
    }
}

struct OnEpoll;
impl Make for OnEpoll {
    const TWINS: bool = false;
    fn make(slots: u32, sockets_max: u32) -> impl Io<Slot = Packet> {
        Epoll::new(&EpollOptions { sockets_max, slots, udp_gro: true, udp_segment: true }).unwrap()
    }
}

macro_rules! on_every_driver {
    ($($name:ident),* $(,)?) => {
        mod ring { $(#[test] fn $name() { super::$name::<super::OnRing>() })* }
        mod plain_ring { $(#[test] fn $name() { super::$name::<super::OnPlainRing>() })* }
        mod epoll { $(#[test] fn $name() { super::$name::<super::OnEpoll>() })* }
    };
}

on_every_driver!(
    packets_come_back_in_their_slots,
    a_wait_ends_in_time,
    a_wait_that_is_due_does_not_block,
    a_waker_ends_a_wait,
    a_waker_that_was_used_before_ends_the_next_wait,
    a_longer_datagram_is_dropped_and_counted,
    receives_resume_when_slots_come_back,
    slots_are_exact_under_overload,
    closed_sockets_say_nothing,
    a_closed_socket_lets_its_port_go,
    what_is_queued_before_a_close_leaves,
    a_send_that_fails_is_counted,
    drops_of_a_full_socket_are_counted,
    an_open_that_fails_says_what_to_do,
    listeners_share_a_port,
    more_sends_than_the_queue_holds,
    many_sockets_at_once,
    bursts_are_packets,
    a_queued_burst_stays_packets_when_they_become_rare,
    a_burst_is_put_together_from_packets,
    a_socket_closes_while_it_changes_how_it_receives,
    a_busy_flow_may_have_a_socket_of_its_own,
    a_peer_that_is_gone_costs_one_packet,
);

fn spec(local: &str, role: SocketRole) -> OpenSpec {
    OpenSpec { local: local.parse().unwrap(), role, receive_buffer_bytes: 0, send_buffer_bytes: 0 }
}

fn relay(local: &str) -> OpenSpec {
    spec(local, SocketRole::Relay)
}

struct Datagram {
    socket: SocketId,
    from: TransportAddress,
    slot: Packet,
}

/// Waits once for 50 ms at most.
fn wait_once(io: &mut impl Io<Slot = Packet>) -> (Vec<Datagram>, bool) {
    let mut batch = vec![];
    let until = io.now().mono.after(Duration::from_millis(50));
    io.wait(until, &mut batch).unwrap();
    let mut datagrams = vec![];
    let mut woken = false;
    for event in batch {
        match event {
            Event::Datagram { socket, from, slot } => datagrams.push(Datagram { socket, from, slot }),
            Event::Woken => woken = true,
            other => panic!("{other:?}"),
        }
    }
    (datagrams, woken)
}

/// Waits until `done` says so of everything received so far.
fn wait_until<D: Io<Slot = Packet>>(
    io: &mut D,
    mut done: impl FnMut(&mut D, &mut Vec<Datagram>) -> bool,
) -> Vec<Datagram> {
    let start = Instant::now();
    let mut all = vec![];
    loop {
        let (datagrams, _) = wait_once(io);
        all.extend(datagrams);
        if done(io, &mut all) {
            return all;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "nothing more after {} datagrams", all.len());
    }
}

fn receive(io: &mut impl Io<Slot = Packet>, count: usize) -> Vec<Datagram> {
    wait_until(io, |_, all| all.len() >= count)
}

fn peer(local: &str) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(local).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn write(io: &mut impl Io<Slot = Packet>, text: &[u8]) -> Packet {
    let mut slot = io.blank().unwrap();
    slot.set_len(text.len());
    slot.payload_mut().copy_from_slice(text);
    slot
}

fn assert_all_slots_free(io: &mut impl Io<Slot = Packet>) {
    let stats = io.stats();
    assert_eq!(stats.slots_free, stats.slots);
    assert_eq!(stats.long_slots_free, stats.long_slots);
}

fn packets_come_back_in_their_slots<M: Make>() {
    let mut io = M::make(SLOTS, 8);
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let opened = io.open(&relay(local)).unwrap();
        let (peer, address) = peer(local);
        for round in 0..300_u32 {
            let text = format!("ping {round}");
            peer.send_to(text.as_bytes(), opened.local).unwrap();
            for mut datagram in receive(&mut io, 1) {
                assert_eq!(datagram.socket, opened.socket);
                assert!(datagram.from == Pii::new(address));
                assert_eq!(datagram.slot.payload(), text.as_bytes());
                assert!(datagram.slot.headroom() >= HEADROOM_MIN && datagram.slot.tailroom() >= TAILROOM_MIN);
                if round % 2 == 0 {
                    datagram.slot.frame(HEADROOM_MIN, 0).unwrap().fill(b'.');
                } else {
                    datagram.slot.trim_front(5);
                }
                io.send(opened.socket, datagram.from, datagram.slot, SendOptions::default());
            }
            wait_once_for_nothing(&mut io);
            let mut answer = [0; 2048];
            let (len, from) = peer.recv_from(&mut answer).unwrap();
            assert_eq!(from, opened.local);
            let expected = match round % 2 {
                0 => format!("{}{text}", ".".repeat(HEADROOM_MIN)),
                _ => text[5..].to_owned(),
            };
            assert_eq!(answer[..len], *expected.as_bytes());
        }
    }
    assert_all_slots_free(&mut io);
    let stats = io.stats();
    assert_eq!((stats.send_failed, stats.send_full, stats.truncated, stats.no_slots), (0, 0, 0, 0));
    assert!(stats.completions >= 600 && stats.enters > 0);
}

/// Lets what is queued leave.
fn wait_once_for_nothing(io: &mut impl Io<Slot = Packet>) {
    let mut batch = vec![];
    io.wait(Mono::default(), &mut batch).unwrap();
    assert!(batch.is_empty());
}

fn a_wait_ends_in_time<M: Make>() {
    let mut io = M::make(SLOTS, 1);
    for millis in [30, 1, 60] {
        let until = io.now().mono.after(Duration::from_millis(millis));
        let mut batch = vec![];
        while io.now().mono < until {
            io.wait(until, &mut batch).unwrap();
        }
        assert!(batch.is_empty());
        let late = io.now().mono.since(until);
        assert!(late < Duration::from_millis(500), "{millis} ms ended {late:?} late");
    }
    // A timer that stands far off is moved for a nearer deadline.
    let waker = io.waker();
    waker.wake();
    let far = io.now().mono.after(Duration::from_secs(3600));
    io.wait(far, &mut vec![]).unwrap();
    let near = io.now().mono.after(Duration::from_millis(20));
    while io.now().mono < near {
        io.wait(near, &mut vec![]).unwrap();
    }
    assert!(io.now().mono.since(near) < Duration::from_millis(500));
}

fn a_wait_that_is_due_does_not_block<M: Make>() {
    let mut io = M::make(SLOTS, 1);
    let start = Instant::now();
    for _ in 0..100 {
        wait_once_for_nothing(&mut io);
        let now = io.now().mono;
        io.wait(now, &mut vec![]).unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(2));
}

fn a_waker_ends_a_wait<M: Make>() {
    let mut io = M::make(SLOTS, 1);
    let (asked, wanted) = std::sync::mpsc::channel();
    let waker = io.waker();
    let other = std::thread::spawn(move || {
        let mut count = 0;
        while wanted.recv().is_ok() {
            waker.wake();
            count += 1;
        }
        count
    });
    for _ in 0..200 {
        asked.send(()).unwrap();
        let mut batch = vec![];
        while batch.is_empty() {
            io.wait(Mono::NEVER, &mut batch).unwrap();
        }
        assert!(batch.iter().all(|event| matches!(event, Event::Woken)));
    }
    drop(asked);
    assert_eq!(other.join().unwrap(), 200);
}

fn a_waker_that_was_used_before_ends_the_next_wait<M: Make>() {
    let mut io = M::make(SLOTS, 1);
    let waker = io.waker();
    for _ in 0..3 {
        waker.wake();
        waker.wake();
        let mut batch = vec![];
        while batch.is_empty() {
            io.wait(Mono::NEVER, &mut batch).unwrap();
        }
    }
}

fn a_longer_datagram_is_dropped_and_counted<M: Make>() {
    let mut io = M::make(SLOTS, 1);
    let opened = io.open(&relay("127.0.0.1:0")).unwrap();
    let (peer, _) = peer("127.0.0.1:0");
    for len in [3000, 2048, 1977, 1960, 0] {
        peer.send_to(&vec![7; len], opened.local).unwrap();
    }
    let received = receive(&mut io, 2);
    assert_eq!(received.iter().map(|datagram| datagram.slot.payload().len()).collect::<Vec<_>>(), [1960, 0]);
    assert!(received[0].slot.payload().iter().all(|byte| *byte == 7));
    assert!(received[0].slot.tailroom() >= TAILROOM_MIN);
    assert_eq!(io.stats().truncated, 3);
    for datagram in received {
        io.free(datagram.slot);
    }
    wait_once_for_nothing(&mut io);
    assert_all_slots_free(&mut io);
}

fn receives_resume_when_slots_come_back<M: Make>() {
    const PACKETS: usize = 200;
    let mut io = M::make(64, 4);
    let sockets: Vec<_> = (0..4).map(|_| io.open(&relay("127.0.0.1:0")).unwrap()).collect();
    let (peer, _) = peer("127.0.0.1:0");
    for round in 0..5_u32 {
        for packet in 0..PACKETS {
            peer.send_to(&round.to_be_bytes(), sockets[packet % 4].local).unwrap();
        }
        // Held, until the driver has none left; a reserve stays for the worker's own.
        let held = wait_until(&mut io, |io, _| io.stats().no_slots > u64::from(round));
        assert!(held.len() < 64);
        let stats = io.stats();
        assert_eq!(stats.slots, 64);
        assert_eq!(stats.slots_free as usize, 64 - held.len());
        let own = io.blank().unwrap();
        io.free(own);
        let mut count = held.len();
        for datagram in held {
            io.free(datagram.slot);
        }
        wait_until(&mut io, |io, all| {
            for datagram in all.drain(..) {
                assert_eq!(datagram.slot.payload(), round.to_be_bytes());
                count += 1;
                io.free(datagram.slot);
            }
            count == PACKETS
        });
        assert_all_slots_free(&mut io);
    }
}

/// Half of what arrives is sent, half is held for a while, and there are far too few slots.
fn slots_are_exact_under_overload<M: Make>() {
    let mut io = M::make(32, 4);
    let sockets: Vec<_> = (0..4).map(|_| io.open(&relay("127.0.0.1:0")).unwrap()).collect();
    let locals: Vec<_> = sockets.iter().map(|opened| opened.local).collect();
    let seconds = std::env::var("SLUICE_OVERLOAD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let end = Instant::now() + Duration::from_secs(seconds);
    let flood = std::thread::spawn(move || {
        let (peer, _) = peer("127.0.0.1:0");
        while Instant::now() < end {
            for local in &locals {
                let _ = peer.send_to(&[1; 200], local);
            }
        }
    });
    let mut held = std::collections::VecDeque::new();
    let mut seen = 0_u64;
    while Instant::now() < end + Duration::from_millis(100) {
        for datagram in wait_once(&mut io).0 {
            seen += 1;
            if seen.is_multiple_of(2) {
                io.send(datagram.socket, datagram.from, datagram.slot, SendOptions::default());
            } else {
                held.push_back(datagram.slot);
            }
        }
        while held.len() > 24 || (seen.is_multiple_of(3) && !held.is_empty()) {
            io.free(held.pop_front().unwrap());
        }
    }
    flood.join().unwrap();
    assert!(seen > 1000 && io.stats().no_slots > 0, "{seen} {:?}", io.stats());
    for slot in held {
        io.free(slot);
    }
    wait_until(&mut io, |io, all| {
        all.drain(..).for_each(|datagram| io.free(datagram.slot));
        io.stats().slots_free == 32
    });
}

fn closed_sockets_say_nothing<M: Make>() {
    let mut io = M::make(SLOTS, 64);
    let (peer, _) = peer("127.0.0.1:0");
    let mut generations: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut got = 0;
    for round in 0..60_u32 {
        let mut sockets: Vec<_> = (0..32).map(|_| io.open(&relay("127.0.0.1:0")).unwrap()).collect();
        for opened in &sockets {
            let seen = generations.entry(opened.socket.index).or_default();
            assert!(!seen.contains(&opened.socket.generation), "{:?} was used before", opened.socket);
            seen.push(opened.socket.generation);
        }
        if round % 3 == 0 {
            // Armed, or not: both have to go.
            wait_once_for_nothing(&mut io);
        }
        for opened in &sockets {
            peer.send_to(&opened.local.port().to_be_bytes(), opened.local).unwrap();
        }
        let live = sockets.split_off(16);
        for opened in &sockets {
            io.close(opened.socket);
            io.close(opened.socket);
        }
        for datagram in receive(&mut io, 16) {
            let opened = live.iter().find(|opened| opened.socket == datagram.socket).expect("a closed socket's event");
            assert_eq!(datagram.slot.payload(), opened.local.port().to_be_bytes());
            got += 1;
            io.free(datagram.slot);
        }
        for opened in &live {
            io.close(opened.socket);
        }
        assert!(wait_once(&mut io).0.is_empty());
    }
    assert_eq!(got, 60 * 16);
    assert!(generations.len() <= 64, "places are reused");
    assert_all_slots_free(&mut io);
}

fn a_closed_socket_lets_its_port_go<M: Make>() {
    let mut io = M::make(SLOTS, 1);
    for _ in 0..50 {
        let opened = io.open(&relay("127.0.0.1:0")).unwrap();
        wait_once_for_nothing(&mut io);
        io.close(opened.socket);
        let start = Instant::now();
        while UdpSocket::bind(opened.local).is_err() {
            assert!(start.elapsed() < Duration::from_secs(5), "the port stays bound");
            wait_once(&mut io);
        }
    }
}

fn what_is_queued_before_a_close_leaves<M: Make>() {
    let mut io = M::make(SLOTS, 2);
    let (peer, address) = peer("127.0.0.1:0");
    for round in 0..20_u8 {
        let opened = io.open(&relay("127.0.0.1:0")).unwrap();
        let last = write(&mut io, &[round]);
        io.send(opened.socket, Pii::new(address), last, SendOptions::default());
        io.close(opened.socket);
        let late = write(&mut io, b"late");
        io.send(opened.socket, Pii::new(address), late, SendOptions::default());
        wait_once_for_nothing(&mut io);
        let mut bytes = [0; 16];
        assert_eq!(peer.recv_from(&mut bytes).unwrap(), (1, opened.local));
        assert_eq!(bytes[0], round);
    }
    assert_eq!(io.stats().send_failed, 20);
    assert_all_slots_free(&mut io);
}

fn a_send_that_fails_is_counted<M: Make>() {
    let mut io = M::make(SLOTS, 1);
    let opened = io.open(&relay("127.0.0.1:0")).unwrap();
    let (peer, address) = peer("127.0.0.1:0");
    // No way from an IPv4 socket to an IPv6 address, nor to port 0; those around them are not harmed.
    for to in [address, "[::1]:9".parse().unwrap(), address, "127.0.0.1:0".parse().unwrap(), address] {
        let slot = write(&mut io, b"hello");
        io.send(opened.socket, Pii::new(to), slot, SendOptions::default());
    }
    wait_until(&mut io, |io, _| io.stats().send_failed == 2);
    let mut bytes = [0; 16];
    for _ in 0..3 {
        assert_eq!(peer.recv(&mut bytes).unwrap(), 5);
    }
    assert_all_slots_free(&mut io);
}

fn drops_of_a_full_socket_are_counted<M: Make>() {
    const SENT: u64 = 1000;
    let mut io = M::make(4096, 1);
    let opened = io.open(&OpenSpec { receive_buffer_bytes: 8192, ..relay("127.0.0.1:0") }).unwrap();
    wait_once_for_nothing(&mut io);
    let (peer, _) = peer("127.0.0.1:0");
    for _ in 0..SENT {
        peer.send_to(&[1; 200], opened.local).unwrap();
    }
    let mut received = receive(&mut io, 1).len() as u64;
    received += wait_once(&mut io).0.len() as u64;
    // The count travels with the next packet.
    peer.send_to(&[2; 8], opened.local).unwrap();
    receive(&mut io, 1);
    assert_eq!(io.stats().socket_drops + received, SENT);
}

fn an_open_that_fails_says_what_to_do<M: Make>() {
    let mut io = M::make(SLOTS, 2);
    let (_peer, address) = peer("127.0.0.1:0");
    assert_eq!(io.open(&relay(&address.to_string())), Err(OpenError::InUse));
    assert_eq!(io.open(&relay("192.0.2.1:0")), Err(OpenError::NotLocal));
    let first = io.open(&relay("127.0.0.1:0")).unwrap();
    io.open(&relay("127.0.0.1:0")).unwrap();
    assert_eq!(io.open(&relay("127.0.0.1:0")), Err(OpenError::NoSockets));
    io.close(first.socket);
    wait_until(&mut io, |io, _| io.open(&relay("127.0.0.1:0")).is_ok());
}

fn listeners_share_a_port<M: Make>() {
    let mut one = M::make(SLOTS, 1);
    let mut other = M::make(SLOTS, 1);
    let opened = one.open(&spec("127.0.0.1:0", SocketRole::Listener)).unwrap();
    let same = OpenSpec { local: opened.local, ..spec("127.0.0.1:0", SocketRole::Listener) };
    assert_eq!(listener_free(opened.local), Err(OpenError::InUse));
    other.open(&same).unwrap();
    assert_eq!(other.stats().slots, u64::from(SLOTS));
}

fn more_sends_than_the_queue_holds<M: Make>() {
    const COUNT: u32 = 3000;
    let mut io = M::make(4096, 2);
    let sockets = [io.open(&relay("127.0.0.1:0")).unwrap(), io.open(&relay("127.0.0.1:0")).unwrap()];
    let (peer, address) = peer("127.0.0.1:0");
    socket2::SockRef::from(&peer).set_recv_buffer_size(4 << 20).unwrap();
    for number in 0..COUNT {
        let slot = write(&mut io, &number.to_be_bytes());
        io.send(sockets[number as usize % 2].socket, Pii::new(address), slot, SendOptions::default());
    }
    wait_once_for_nothing(&mut io);
    // The order of each socket is kept.
    let mut next = HashMap::from([(sockets[0].local, 0), (sockets[1].local, 1)]);
    for _ in 0..COUNT {
        let mut bytes = [0; 4];
        let (_, from) = peer.recv_from(&mut bytes).unwrap();
        let expected = next.get_mut(&from).unwrap();
        assert_eq!(u32::from_be_bytes(bytes), *expected);
        *expected += 2;
    }
    assert_all_slots_free(&mut io);
}

fn many_sockets_at_once<M: Make>() {
    // More than a completion queue holds.
    const SOCKETS: usize = 6000;
    os::raise_open_files(40_000).unwrap();
    let mut io = M::make(1024, SOCKETS as u32);
    let sockets: HashMap<_, _> = (0..SOCKETS)
        .map(|_| io.open(&relay("127.0.0.1:0")).unwrap())
        .map(|opened| (opened.socket, opened.local))
        .collect();
    wait_once_for_nothing(&mut io);
    let (peer, _) = peer("127.0.0.1:0");
    for local in sockets.values() {
        peer.send_to(&local.port().to_be_bytes(), local).unwrap();
    }
    let mut seen = std::collections::HashSet::new();
    wait_until(&mut io, |io, all| {
        for datagram in all.drain(..) {
            assert_eq!(datagram.slot.payload(), sockets[&datagram.socket].port().to_be_bytes());
            assert!(seen.insert(datagram.socket));
            io.free(datagram.slot);
        }
        seen.len() == SOCKETS
    });
    for socket in sockets.keys() {
        io.close(*socket);
    }
    wait_until(&mut io, |io, _| io.stats().slots_free == 1024 && io.open(&relay("127.0.0.1:0")).is_ok());
}

#[test]
fn every_feature_can_be_switched_off_alone() {
    for (name, sentence) in FEATURES {
        let disable = [(*name).to_owned()];
        let features = probe(&disable).unwrap();
        let shown = features.describe();
        assert!(shown.contains(&format!("switched off by io.disable: {name}")), "{shown}");
        assert!(!sentence.is_empty());
        let mut io = ring_without(&[name], SLOTS, 4);
        let opened = io.open(&relay("127.0.0.1:0")).unwrap();
        let (peer, _) = peer("127.0.0.1:0");
        for _ in 0..20 {
            peer.send_to(b"ping", opened.local).unwrap();
            for datagram in receive(&mut io, 1) {
                io.send(opened.socket, datagram.from, datagram.slot, SendOptions::default());
            }
            wait_once_for_nothing(&mut io);
            assert_eq!(peer.recv(&mut [0; 16]).unwrap(), 4);
        }
    }
}

#[test]
fn an_unknown_feature_is_an_error_that_names_the_known_ones() {
    let error = probe(&["send_zc".to_owned()]).unwrap_err();
    assert!(error.what.contains("\"send_zc\"") && error.what.contains("op_send_addr"), "{error}");
}

/// From here on a socket sends bursts: every `segment` bytes are a packet.
fn cut(socket: &UdpSocket, segment: i32) {
    let len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel reads four bytes of `segment`.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, (&raw const segment).cast(), len)
    };
    assert_eq!(set, 0);
}

/// Rounds in which a socket is certainly found to be bursty.
const BURSTY_ROUNDS: u8 = 60;

/// What comes as bursts is handed out packet by packet, in order, with room for what a relay does to packets,
/// and leaves again as what it then is.
fn bursts_are_packets<M: Make>() {
    let mut io = M::make(SLOTS, 8);
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let opened = io.open(&relay(local)).unwrap();
        let (peer, address) = peer(local);
        cut(&peer, 100);
        for round in 0..BURSTY_ROUNDS {
            let lens = [100, 100, 100, 100, 100, 100, 100, 30];
            let burst: Vec<u8> = lens.iter().zip(0..).flat_map(|(len, at)| vec![round ^ (at << 5); *len]).collect();
            peer.send_to(&burst, opened.local).unwrap();
            let received = receive(&mut io, lens.len());
            let mut expected = vec![];
            for ((mut datagram, len), at) in received.into_iter().zip(lens).zip(0..) {
                let byte = round ^ (at << 5);
                assert!(datagram.from == Pii::new(address) && datagram.socket == opened.socket);
                assert_eq!(datagram.slot.payload(), vec![byte; len]);
                let mut whole = vec![byte; len];
                match round % 4 {
                    0 => {}
                    1 => {
                        datagram.slot.trim_front(4);
                        whole.drain(..4);
                    }
                    2 => {
                        datagram.slot.frame(4, 0).unwrap().copy_from_slice(b"head");
                        whole.splice(..0, *b"head");
                    }
                    _ => {
                        datagram.slot.set_len(len - 1);
                        datagram.slot.frame(HEADROOM_MIN, 3).unwrap().fill(b'h');
                        whole.pop();
                        whole.splice(..0, [b'h'; HEADROOM_MIN]);
                        whole.extend([0; 3]);
                    }
                }
                io.send(opened.socket, datagram.from, datagram.slot, SendOptions::default());
                expected.push(whole);
            }
            wait_once_for_nothing(&mut io);
            for expected in expected {
                let mut answer = [0; 2048];
                let (len, from) = peer.recv_from(&mut answer).unwrap();
                assert_eq!((from, &answer[..len]), (opened.local, &expected[..]), "round {round}");
            }
        }
        // Packets one by one: it becomes an ordinary socket again, and stays right.
        cut(&peer, 0);
        for round in 0..1000_u32 {
            peer.send_to(&round.to_be_bytes(), opened.local).unwrap();
            for datagram in receive(&mut io, 1) {
                assert_eq!(datagram.slot.payload(), round.to_be_bytes());
                assert!(datagram.slot.headroom() >= HEADROOM_MIN && datagram.slot.tailroom() >= TAILROOM_MIN);
                io.free(datagram.slot);
            }
        }
    }
    wait_once_for_nothing(&mut io);
    assert_all_slots_free(&mut io);
    let stats = io.stats();
    assert_eq!((stats.send_failed, stats.send_full, stats.truncated, stats.no_slots), (0, 0, 0, 0));
    let rounds = 2 * u64::from(BURSTY_ROUNDS);
    if stats.long_slots > 0 {
        assert!((rounds / 4..=rounds).contains(&stats.bursts_received), "{stats:?}");
        assert_eq!(stats.burst_packets_received, 8 * stats.bursts_received);
        // Whole bursts left as one, whichever way they had come.
        assert_eq!((stats.bursts_sent, stats.burst_packets_sent), (rounds, 8 * rounds));
    } else {
        assert_eq!((stats.bursts_received, stats.bursts_sent), (0, 0));
    }
}

/// Packets to one address that follow each other leave by one send, unless their lengths forbid it.
fn a_burst_is_put_together_from_packets<M: Make>() {
    let mut io = M::make(SLOTS, 8);
    let opened = io.open(&relay("127.0.0.1:0")).unwrap();
    let peers = [peer("127.0.0.1:0"), peer("127.0.0.1:0")];
    let lens = [200, 200, 200, 60, 200, 300, 300, 0, 1300, 1300, 50, 50, 50];
    for (peer, address) in &peers {
        for len in lens {
            let slot = write(&mut io, &vec![len as u8; len]);
            io.send(opened.socket, Pii::new(*address), slot, SendOptions::default());
        }
        wait_once_for_nothing(&mut io);
        for len in lens {
            let mut answer = [0; 2048];
            assert_eq!(peer.recv_from(&mut answer).unwrap(), (len, opened.local));
            assert!(answer[..len].iter().all(|byte| *byte == len as u8));
        }
    }
    // By turns to two addresses: nothing follows its like.
    for _ in 0..5 {
        for (_, address) in &peers {
            let slot = write(&mut io, b"turn");
            io.send(opened.socket, Pii::new(*address), slot, SendOptions::default());
        }
    }
    wait_once_for_nothing(&mut io);
    for (peer, _) in peers.iter().flat_map(|peer| [peer; 5]) {
        assert_eq!(peer.recv_from(&mut [0; 2048]).unwrap().0, 4);
    }
    assert_all_slots_free(&mut io);
    let stats = io.stats();
    assert_eq!((stats.send_failed, stats.send_full), (0, 0));
    // 200 200 200 60, 300 300, 50 50 50; too long for any path to be cut: 1300.
    let expected = if stats.long_slots > 0 { (2 * 3, 2 * 9) } else { (0, 0) };
    assert_eq!((stats.bursts_sent, stats.burst_packets_sent), expected);
}

fn a_socket_closes_while_it_changes_how_it_receives<M: Make>() {
    let mut io = M::make(SLOTS, 8);
    for rounds in 0..BURSTY_ROUNDS {
        let opened = io.open(&relay("127.0.0.1:0")).unwrap();
        let (peer, _) = peer("127.0.0.1:0");
        cut(&peer, 50);
        for _ in 0..rounds {
            peer.send_to(&[9; 400], opened.local).unwrap();
            receive(&mut io, 8).into_iter().for_each(|datagram| io.free(datagram.slot));
        }
        io.close(opened.socket);
    }
    wait_once_for_nothing(&mut io);
    assert_all_slots_free(&mut io);
    // And with how it changes left behind, the place in the table serves the next one.
    let opened = io.open(&relay("127.0.0.1:0")).unwrap();
    let (peer, _) = peer("127.0.0.1:0");
    peer.send_to(b"next", opened.local).unwrap();
    receive(&mut io, 1).into_iter().for_each(|datagram| io.free(datagram.slot));
    assert_all_slots_free(&mut io);
}

/// Sends to a peer until its flow counts as busy, and takes what comes back.
fn be_busy(
    io: &mut impl Io<Slot = Packet>,
    socket: SocketId,
    local: SocketAddr,
    (peer, address): &(UdpSocket, SocketAddr),
) {
    for round in 0..300_u32 {
        let slot = write(io, &round.to_be_bytes());
        io.send(socket, Pii::new(*address), slot, SendOptions::default());
        wait_once_for_nothing(io);
        let mut answer = [0; 4];
        assert_eq!(peer.recv_from(&mut answer).unwrap(), (4, local));
        assert_eq!(answer, round.to_be_bytes());
        peer.send_to(&answer, local).unwrap();
        expect(io, socket, *address, &answer);
    }
}

fn expect(io: &mut impl Io<Slot = Packet>, socket: SocketId, from: SocketAddr, bytes: &[u8]) {
    for datagram in receive(io, 1) {
        assert!(datagram.socket == socket && datagram.from == Pii::new(from));
        assert_eq!(datagram.slot.payload(), bytes);
        io.free(datagram.slot);
    }
}

/// The sockets at a local address that are connected.
fn connected(local: SocketAddr) -> usize {
    let table = if local.is_ipv4() { "udp" } else { "udp6" };
    let text = std::fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap();
    let port = format!(":{:04X}", local.port());
    let ends = text.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        Some((words.next()?, words.next()?))
    });
    ends.filter(|(own, remote)| own.ends_with(&port) && !remote.ends_with(":0000")).count()
}

fn a_busy_flow_may_have_a_socket_of_its_own<M: Make>() {
    let mut io = M::make(SLOTS, 8);
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let opened = io.open(&relay(local)).unwrap();
        let peers = [peer(local), peer(local)];
        // One after the other, and the first again: all see one address, and each is heard.
        for peer in [&peers[0], &peers[1], &peers[0]] {
            be_busy(&mut io, opened.socket, opened.local, peer);
            for (other, address) in &peers {
                other.send_to(b"me too", opened.local).unwrap();
                expect(&mut io, opened.socket, *address, b"me too");
            }
        }
        assert_eq!(connected(opened.local), usize::from(M::TWINS));
        // Whatever the driver does, nobody else can have the address, not even by sharing it.
        let thief =
            socket2::Socket::new(socket2::Domain::for_address(opened.local), socket2::Type::DGRAM, None).unwrap();
        thief.set_reuse_port(true).unwrap();
        assert_eq!(thief.bind(&opened.local.into()).unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
        // It goes with its relay socket.
        io.close(opened.socket);
        wait_until(&mut io, |_, _| UdpSocket::bind(opened.local).is_ok());
    }
    assert_all_slots_free(&mut io);
    let stats = io.stats();
    assert_eq!((stats.send_failed, stats.send_full), (0, 0));
}

fn a_peer_that_is_gone_costs_one_packet<M: Make>() {
    let mut io = M::make(SLOTS, 8);
    let opened = io.open(&relay("127.0.0.1:0")).unwrap();
    let first = peer("127.0.0.1:0");
    be_busy(&mut io, opened.socket, opened.local, &first);
    let (socket, gone) = first;
    drop(socket);
    // Its socket is closed: the host says so to each packet, which is no reason to be deaf to others.
    let other = peer("127.0.0.1:0");
    for _ in 0..50 {
        let slot = write(&mut io, b"anybody?");
        io.send(opened.socket, Pii::new(gone), slot, SendOptions::default());
        wait_once_for_nothing(&mut io);
    }
    be_busy(&mut io, opened.socket, opened.local, &other);
    let again = UdpSocket::bind(gone).unwrap();
    again.send_to(b"here", opened.local).unwrap();
    expect(&mut io, opened.socket, gone, b"here");
    let slot = write(&mut io, b"again");
    io.send(opened.socket, Pii::new(gone), slot, SendOptions::default());
    wait_once_for_nothing(&mut io);
    assert_eq!(again.recv(&mut [0; 8]).unwrap(), 5);
    assert!(io.stats().send_failed <= u64::from(M::TWINS));
    assert_eq!(connected(opened.local), 0);
    assert_all_slots_free(&mut io);
}

/// Too few packets in bursts (2 of 11) to go on with UDP_GRO, and some of them queued whenever that is decided.
fn a_queued_burst_stays_packets_when_they_become_rare<M: Make>() {
    let mut io = M::make(SLOTS, 4);
    let opened = io.open(&relay("127.0.0.1:0")).unwrap();
    let (peer, _) = peer("127.0.0.1:0");
    for _ in 0..BURSTY_ROUNDS {
        cut(&peer, 50);
        peer.send_to(&[9; 400], opened.local).unwrap();
        receive(&mut io, 8).into_iter().for_each(|datagram| io.free(datagram.slot));
    }
    for _ in 0..200 {
        for _ in 0..4 {
            cut(&peer, 0);
            for _ in 0..9 {
                peer.send_to(&[1; 50], opened.local).unwrap();
            }
            cut(&peer, 50);
            peer.send_to(&[2; 75], opened.local).unwrap();
        }
        for datagram in receive(&mut io, 4 * 11) {
            let bytes = datagram.slot.payload();
            assert!(matches!((bytes[0], bytes.len()), (1, 50) | (2, 50) | (2, 25)), "{} bytes", bytes.len());
            io.free(datagram.slot);
        }
    }
    wait_once_for_nothing(&mut io);
    assert_all_slots_free(&mut io);
    assert_eq!(io.stats().truncated, 0);
}

#[test]
fn a_wait_budget_bounds_a_wait() {
    let wait_budget = Duration::from_millis(2);
    let options = RingOptions { sockets_max: 4, slots: 64, wait_budget };
    let mut io = RingBuilder::new(&options, &probe(&[]).unwrap()).unwrap().enable().unwrap();
    let opened = io.open(&relay("127.0.0.1:0")).unwrap();
    let (peer, _) = peer("127.0.0.1:0");
    // One packet at a time, by one socket: each wait but the first is ended by the budget.
    for _ in 0..200 {
        peer.send_to(b"alone", opened.local).unwrap();
        receive(&mut io, 1).into_iter().for_each(|datagram| io.free(datagram.slot));
    }
    // Idle, it sleeps until the time it is given: the budget's timer has ended.
    let enters = |io: &mut Ring| io.stats().enters;
    while {
        let before = enters(&mut io);
        let until = io.now().mono.after(Duration::from_millis(100));
        let mut batch = vec![];
        while io.now().mono < until {
            io.wait(until, &mut batch).unwrap();
        }
        enters(&mut io) - before > 5
    } {}
    assert_all_slots_free(&mut io);
}
