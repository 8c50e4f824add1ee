//! What the TURN machine itself pays: per relayed packet, with few and with many allocations taking turns,
//! and per allocation.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "criterion's macros make undocumented public functions")]

use std::hint::black_box;
use std::net::SocketAddr;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sluice_base::stats::media::MediaCounter;
use sluice_base::{Pii, SocketId};
use sluice_turn::Disposition;
use sluice_turn::harness::model::{Client, Packet, Relay, channel_data, options, socket_address, udp};
use sluice_wire::stun::{Method, attribute};

const ALLOCATIONS: [usize; 3] = [1, 100, 10_000];
const PAYLOAD: [u8; 172] = [7; 172];
const CHANNEL: u16 = 0x4000;

/// A datagram that is relayed: where it comes in, from whom, and its bytes.
struct Arrival {
    socket: SocketId,
    from: SocketAddr,
    bytes: Vec<u8>,
}

/// A client with an allocation, and its peer.
struct Session {
    client: Client,
    peer: SocketAddr,
    relayed: SocketAddr,
    socket: SocketId,
}

/// A relay with so many allocations, each with a channel to a peer of its own.
fn sessions(n: usize) -> (Relay, Vec<Session>) {
    let mut options = options();
    options.ports = 10_000..=65_535;
    let mut relay = Relay::with(options);
    let sessions = (0..n)
        .map(|i| {
            let place = |net: &str| socket_address(&format!("{net}.{}:{}", 1 + i % 200, 1024 + i / 200));
            let mut client = Client::new(&place("203.0.113").to_string());
            let peer = place("198.51.100");
            let relayed = client.allocated(&mut relay);
            assert_eq!(client.bind(&mut relay, CHANNEL, peer).code(), 200);
            let socket = relay.socket_at(relayed).expect("it is open");
            Session { client, peer, relayed, socket }
        })
        .collect();
    (relay, sessions)
}

/// Relays one datagram of each session in turn.
fn measure(c: &mut Criterion, name: &str, n: usize, relay: &mut Relay, arrivals: &[Arrival]) {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    let mut packet = Packet::new(&[0; 400]);
    let mut next = arrivals.iter().cycle();
    group.bench_function(BenchmarkId::from_parameter(n), |b| {
        b.iter(|| {
            let Some(arrival) = next.next() else { return };
            packet.refill(&arrival.bytes);
            let from = Pii::new(arrival.from);
            let disposition = relay.server.packet(relay.now, arrival.socket, from, black_box(&mut packet));
            assert!(matches!(disposition, Disposition::Relay { .. }));
        });
    });
    group.finish();
}

fn packets(c: &mut Criterion) {
    for n in ALLOCATIONS {
        let (mut relay, mut sessions) = sessions(n);
        let listener = relay.listener(0);
        let up = |session: &Session, bytes| Arrival { socket: listener, from: session.client.address, bytes };
        let arrivals: Vec<_> = sessions.iter().map(|s| up(s, channel_data(CHANNEL, &PAYLOAD))).collect();
        measure(c, "channel_data_up", n, &mut relay, &arrivals);
        let down = |s: &Session| Arrival { socket: s.socket, from: s.peer, bytes: PAYLOAD.to_vec() };
        let arrivals: Vec<_> = sessions.iter().map(down).collect();
        measure(c, "channel_data_down", n, &mut relay, &arrivals);
        let arrivals: Vec<_> = sessions
            .iter_mut()
            .map(|s| {
                let bytes = s.client.send_indication(s.peer, &PAYLOAD);
                up(s, bytes)
            })
            .collect();
        measure(c, "send_indication", n, &mut relay, &arrivals);
        let other_port =
            |s: &Session| Arrival { socket: s.socket, from: SocketAddr::new(s.peer.ip(), 1), bytes: PAYLOAD.to_vec() };
        let arrivals: Vec<_> = sessions.iter().map(other_port).collect();
        measure(c, "data_indication", n, &mut relay, &arrivals);
    }
}

/// The same for media: each session's packets are numbered, and of as many sources in turn.
fn media(c: &mut Criterion) {
    for (n, sources) in [(1, 1), (100, 1), (100, 4), (10_000, 1)] {
        let (mut relay, sessions) = sessions(n);
        let mut group = c.benchmark_group("media_down");
        group.throughput(Throughput::Elements(1));
        let mut packet = Packet::new(&[0; 400]);
        let mut bytes = PAYLOAD;
        bytes[0] = 0x80;
        let mut count = 0u32;
        group.bench_function(BenchmarkId::new(format!("{sources} sources"), n), |b| {
            b.iter(|| {
                let session = &sessions[count as usize % n];
                let turn = count / n as u32;
                bytes[2..4].copy_from_slice(&((turn / sources) as u16).to_be_bytes());
                bytes[8..12].copy_from_slice(&(turn % sources).to_be_bytes());
                count = count.wrapping_add(1);
                packet.refill(&bytes);
                let from = Pii::new(session.peer);
                let disposition = relay.server.packet(relay.now, session.socket, from, black_box(&mut packet));
                assert!(matches!(disposition, Disposition::Relay { .. }));
            });
        });
        group.finish();
        let received: u64 = relay.server.media().iter().map(|media| media.value(MediaCounter::Received)).sum();
        assert!(count == 0 || received + 2 * n as u64 > u64::from(count), "{received} of {count} were followed");
    }
}

/// Pairs of clients on one worker that talk to each other.
fn hairpin(c: &mut Criterion) {
    for n in ALLOCATIONS {
        let (mut relay, mut sessions) = sessions(n.max(2));
        for pair in sessions.chunks_exact_mut(2) {
            let [first, second] = pair else { continue };
            let [to_first, to_second] = [first.relayed, second.relayed];
            for (from, to) in [(first, to_second), (second, to_first)] {
                assert_eq!(from.client.bind(&mut relay, CHANNEL + 1, to).code(), 200);
            }
        }
        let listener = relay.listener(0);
        let bytes = channel_data(CHANNEL + 1, &PAYLOAD);
        let from = |s: &Session| Arrival { socket: listener, from: s.client.address, bytes: bytes.clone() };
        let arrivals: Vec<_> = sessions.iter().map(from).collect();
        measure(c, "hairpin", n, &mut relay, &arrivals);
    }
}

/// An authenticated Allocate and the Refresh that ends it, sockets not included.
fn allocations(c: &mut Criterion) {
    let (mut relay, _sessions) = sessions(100);
    let mut client = Client::new("203.0.113.250:40000");
    client.challenge(&mut relay);
    c.bench_function("allocate_and_delete", |b| {
        b.iter_batched(
            || {
                let allocate = client.signed(Method::ALLOCATE, udp);
                let delete = client.signed(Method::REFRESH, |builder| {
                    builder.u32(attribute::LIFETIME, 0);
                });
                [allocate, delete]
            },
            |requests| {
                let socket = relay.listener(0);
                for request in &requests {
                    black_box(relay.receive(socket, "203.0.113.250:40000".parse().unwrap(), request));
                }
                relay.questions.clear();
                relay.opens.truncate(1_000_000);
            },
            BatchSize::SmallInput,
        );
    });
    let challenge = Client::new("203.0.113.250:40000").unsigned(Method::ALLOCATE, udp);
    c.bench_function("challenge", |b| {
        b.iter(|| {
            let socket = relay.listener(0);
            black_box(relay.receive(socket, client.address, &challenge))
        });
    });
}

criterion_group!(benches, packets, media, hairpin, allocations);
criterion_main!(benches);
