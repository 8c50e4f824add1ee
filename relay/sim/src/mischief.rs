//! Whatever arrives from the open network: noise, cut and forged packets, replays, and packets that hit
//! the very nanosecond at which something ends.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sluice_base::{Mono, Pii, TenantId};
use sluice_turn::{Ban, Bans, Whom};
use sluice_wire::channel_data;
use sluice_wire::stun::{Class, Method, TransactionId, attribute};

use crate::client::{Context, build, payload};
use crate::credentials::{Login, Style};
use crate::kernel::{Kernel, Packet};
use crate::oracle::Five;
use crate::scenario::{REALM, STATIC_USERS};

/// Somebody who can write any source address and has seen some packets.
pub(crate) struct Mischief {
    act_at: Mono,
}

impl Mischief {
    pub(crate) fn new(start: Mono) -> Self {
        Mischief { act_at: start }
    }

    /// When it wants to be polled; never where the scenario has none.
    pub(crate) fn next(&self, every_ms: u64) -> Mono {
        if every_ms == 0 { Mono::NEVER } else { self.act_at }
    }

    /// Acts.
    pub(crate) fn poll(&mut self, c: &mut Context<'_>, kernel: &mut Kernel) {
        self.act_at = c.now.mono.after(c.rng.millis(1, c.scenario.mischief_ms.max(2)));
        let server = c.rng.pick(&c.scenario.listeners);
        let fives: Vec<_> = kernel.oracle.alive(c.now.mono).map(|a| a.five).collect();
        let victim = if fives.is_empty() { None } else { Some(c.rng.pick(&fives)) };
        match c.rng.below(12) {
            0 => noise(c, server),
            1 => flood(c, server),
            2..=4 => {
                let seen = captured(c, kernel);
                let packet = if c.rng.chance(300) { seen } else { seen.map(|packet| cut(c, packet)) };
                c.out.extend(packet);
            }
            5 | 6 => {
                if let Some((server, client)) = victim {
                    forged_data(c, server, client);
                }
            }
            7 => {
                if let Some((server, client)) = victim {
                    stolen_five_tuple(c, server, client);
                }
            }
            8 if c.rng.chance(50) => {
                let order = victim.and_then(|five| kernel.oracle.order_to_end(five));
                kernel.orders.extend(order);
            }
            9 if c.rng.chance(50) => {
                let bans = if c.rng.chance(500) { victim.and_then(|five| ban(c, kernel, five)) } else { None };
                kernel.bans = Some(Arc::new(bans.unwrap_or_default()));
            }
            _ => at_the_edge(c, kernel),
        }
    }
}

/// An administrator bans somebody who is there, until the next ban or its end.
fn ban(c: &mut Context<'_>, kernel: &mut Kernel, five: Five) -> Option<Bans> {
    let victim = kernel.oracle.alive(c.now.mono).find(|allocation| allocation.five == five)?;
    let (ip, (tenant, user)) = (five.1.ip(), &victim.user);
    let whom = match (c.rng.chance(300), ip) {
        (true, _) => Whom::User(TenantId(*tenant as u16), Pii::new(user.as_slice().into())),
        (false, IpAddr::V4(_)) => Whom::Address(Pii::new(ip), c.rng.pick(&[24, 30, 32])),
        (false, IpAddr::V6(_)) => Whom::Address(Pii::new(ip), c.rng.pick(&[48, 64, 128])),
    };
    let bans = Bans::new(&[Ban { whom, until: None }]).ok()?;
    kernel.oracle.banned(&bans);
    kernel.oracle.coverage.bans += 1;
    Some(bans)
}

/// A packet of some client that was seen on its way.
fn captured(c: &mut Context<'_>, kernel: &Kernel) -> Option<Packet> {
    let count = kernel.captured.len() as u64;
    kernel.captured.get(c.rng.below(count) as usize).cloned()
}

/// The same cut short, made longer or with a bit changed.
fn cut(c: &mut Context<'_>, mut packet: Packet) -> Packet {
    let len = packet.bytes.len() as u64;
    match c.rng.below(3) {
        0 => packet.bytes.truncate(c.rng.below(len + 1) as usize),
        1 => packet.bytes.extend([0; 4]),
        _ if len > 0 => packet.bytes[c.rng.below(len) as usize] ^= 1 << c.rng.below(8),
        _ => {}
    }
    packet
}

fn noise(c: &mut Context<'_>, server: SocketAddr) {
    for _ in 0..c.rng.between(1, 10) {
        let mut bytes = vec![0; c.rng.below(300) as usize];
        c.rng.fill(&mut bytes);
        if let Some(first) = bytes.first_mut().filter(|_| c.rng.chance(700)) {
            *first &= c.rng.pick(&[0x03, 0x4f, 0xff]);
        }
        let from = stranger(c, server);
        c.out.push(Packet { from, to: server, bytes });
    }
}

/// Requests of somebody unknown, many at once.
fn flood(c: &mut Context<'_>, server: SocketAddr) {
    let from = stranger(c, server);
    for _ in 0..c.rng.between(10, 150) {
        let method = c.rng.pick(&[Method::BINDING, Method::ALLOCATE, Method::REFRESH, Method(0x0fe)]);
        let id = TransactionId(c.rng.transaction());
        let odd = c.rng.chance(300);
        let bytes = build(Class::Request, method, id, |builder| {
            if odd {
                builder.u32(0x7abc, 0).u32(0x7abd, 0);
            }
            builder.fingerprint();
        });
        c.out.push(Packet { from, to: server, bytes });
    }
}

/// Data that seems to come from a client.
fn forged_data(c: &mut Context<'_>, server: SocketAddr, client: SocketAddr) {
    let data = payload(c);
    let number = 0x4000 + c.rng.below(8) as u16;
    let mut bytes = vec![0; channel_data::HEADER_LEN];
    if let Some(header) = bytes.first_chunk_mut() {
        channel_data::write_header(header, number, data.len() as u16);
    }
    bytes.extend(data);
    c.out.push(Packet { from: client, to: server, bytes });
}

/// A user with a password of its own writes from another's address: 441, or 438 for want of a nonce.
fn stolen_five_tuple(c: &mut Context<'_>, server: SocketAddr, client: SocketAddr) {
    let (name, password) = c.rng.pick(&STATIC_USERS);
    let login = Login::new(name, password, Style::Old);
    let id = TransactionId(c.rng.transaction());
    let bytes = build(Class::Request, Method::REFRESH, id, |builder| {
        builder.u32(attribute::LIFETIME, 0);
        login.sign(builder, REALM.as_bytes(), b"obMatJos2AAAB00000000000000000000000000000000", &[]);
    });
    c.out.push(Packet { from: client, to: server, bytes });
}

/// Packets both ways just before, at and just after the end of a permission or an allocation.
fn at_the_edge(c: &mut Context<'_>, kernel: &mut Kernel) {
    let now = c.now.mono;
    let alive: Vec<_> = kernel.oracle.alive(now).collect();
    if alive.is_empty() {
        return;
    }
    let allocation = alive[c.rng.below(alive.len() as u64) as usize];
    let permissions: Vec<_> = allocation.permissions.iter().collect();
    if permissions.is_empty() {
        return;
    }
    let (ip, permission) = permissions[c.rng.below(permissions.len() as u64) as usize];
    let channel = allocation.channels.iter().find(|(_, channel)| channel.peer.ip() == *ip);
    let peer = channel.map_or(SocketAddr::new(*ip, 7001), |(_, channel)| channel.peer);
    let ends =
        [permission.live_until(), allocation.live_until(), channel.map_or(Mono::NEVER, |(_, channel)| channel.until)];
    let end = c.rng.pick(&ends);
    let relayed = allocation.relays.iter().map(|(relayed, _)| *relayed).find(|r| r.is_ipv4() == ip.is_ipv4());
    let (five, number) = (allocation.five, channel.map(|(number, _)| *number));
    let Some(relayed) = relayed.filter(|_| end != Mono::NEVER && end.since(now) < Duration::from_secs(700)) else {
        return;
    };
    for at in [end.nanos() - 1, end.nanos(), end.nanos() + 1, end.nanos() + 20_000_000] {
        let data = payload(c);
        let id = TransactionId(c.rng.transaction());
        let down = Packet { from: peer, to: relayed, bytes: data.clone() };
        let up = match number {
            Some(number) => [&number.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), &data].concat(),
            None => build(Class::Indication, Method::SEND, id, |builder| {
                builder.xor_address(attribute::XOR_PEER_ADDRESS, peer).bytes(attribute::DATA, &data);
            }),
        };
        let at = Mono::from_nanos(at);
        if at >= now {
            kernel.transmit_at(at, down);
            kernel.transmit_at(at, Packet { from: five.1, to: five.0, bytes: up });
        }
    }
}

fn stranger(c: &mut Context<'_>, server: SocketAddr) -> SocketAddr {
    let port = c.rng.between(1, 65_535) as u16;
    match server {
        SocketAddr::V4(_) => SocketAddr::new([6, 6, c.rng.below(3) as u8, 1].into(), port),
        SocketAddr::V6(_) => SocketAddr::new([0x2a00, 6, c.rng.below(3) as u16, 0, 0, 0, 0, 1].into(), port),
    }
}
