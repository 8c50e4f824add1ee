//! Media over a way that does exactly what a script says, both ways: what the relay says of it must be that.

use std::net::SocketAddr;
use std::time::Duration;

use sluice_base::Mono;
use sluice_base::event::StreamEnded;
use sluice_base::limits::STREAM_OBSERVE_INTERVAL;
use sluice_base::stats::Leg;
use sluice_base::stats::media::{Media, MediaCounter};
use sluice_turn::AccountLimits;
use sluice_wire::channel_data;
use sluice_wire::stun::{Builder, Class, Message, Method, TransactionId, attribute};

use super::{World, build};
use crate::credentials::{Login, Style};
use crate::kernel::Packet;
use crate::rng::Rng;
use crate::scenario::{Decisions, Faults, STATIC_USERS, Scenario};
use crate::tamper::Tamper;

/// Who sends media, and the channel of its peer.
const CLIENT: ([u8; 4], u16) = ([7, 7, 1, 1], 1000);
const CHANNEL: u16 = 0x4abc;
/// A way that takes so long for everybody.
const WAY: Duration = Duration::from_millis(15);
/// Packets that overtake one at most while it is still awaited, and at least when it is no longer.
const OVERTAKEN: (u64, u64) = (1, 40);
const MUCH_OVERTAKEN: (u64, u64) = (110, 300);
/// Numbers that are lost at a stretch at most.
const GAP: u64 = 200;
/// Clock rates of sources.
const RATES: [u64; 4] = [8_000, 16_000, 48_000, 90_000];

/// What becomes of media on one leg.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MediaTruth {
    /// Packets numbered.
    pub expected: u64,
    /// Packets that come while they are awaited.
    pub received: u64,
    /// Packets that do not.
    pub lost: u64,
    /// Packets that come when they are given up.
    pub late: u64,
    /// Second copies.
    pub duplicate: u64,
    /// Bytes of all that comes.
    pub bytes: u64,
}

/// Sends media both ways as a seed says, and compares; the truth by leg.
///
/// # Errors
/// What the relay says instead, or what the oracle found.
pub fn media(seed: u64) -> Result<[MediaTruth; Leg::COUNT], String> {
    let none = AccountLimits::default();
    let scenario = Scenario {
        faults: Faults { delay_ms: 1, ..Faults::default() },
        decisions: Decisions::default(),
        slots: 256,
        permissions: 256,
        channels: 256,
        unauthenticated_per_second: 0,
        events: true,
        nonce_lifetime: Duration::from_secs(3600),
        user: none,
        tenant: none,
        total: none,
        ..Scenario::new(seed)
    };
    let mut world = World::of(seed, scenario, Tamper::default(), 0);
    world.lively = false;
    world.media()
}

impl World {
    fn media(&mut self) -> Result<[MediaTruth; Leg::COUNT], String> {
        let client = SocketAddr::from(CLIENT);
        let peer = self.scenario.peer(0);
        let relayed = self.bound(client, peer)?;
        let start = self.now().mono.after(Duration::from_millis(5));
        let mut script =
            Script { rng: Rng::new(self.rng.below(u64::MAX), 7), packets: Vec::new(), truth: Default::default() };
        let listener = self.scenario.listeners[0];
        let sources = script.rng.between(1, 4);
        let even = script.rng.chance(300);
        for n in 0..sources {
            let indicated = n % 2 == 1;
            script.play(start, Leg::Client, even, |media| Packet {
                from: client,
                to: listener,
                bytes: if indicated { indication(peer, media) } else { on_channel(media) },
            });
            script.play(start, Leg::Peer, even, |media| Packet { from: peer, to: relayed, bytes: media.to_vec() });
        }
        let end = script.packets.iter().map(|(at, _)| *at).max().unwrap_or(start);
        for (at, packet) in script.packets {
            self.kernel.borrow_mut().transmit_at(at, packet);
        }
        self.live_until(end.after(Duration::from_secs(1)))?;
        for leg in Leg::ALL {
            self.streams_are(*leg, sources, even)?;
        }
        // What is awaited in silence is lost.
        self.live_until(end.after(STREAM_OBSERVE_INTERVAL * 2 + Duration::from_secs(1)))?;
        for leg in Leg::ALL {
            let (is, said) = (script.truth[*leg as usize], self.said(*leg));
            if is != said {
                return Err(format!("from {leg:?}: {is:?}\nthe relay says {said:?}"));
            }
        }
        self.stop()?;
        for leg in Leg::ALL {
            self.is_told(*leg, &script.truth[*leg as usize])?;
        }
        Ok(script.truth)
    }

    /// What was told of the streams at their end is the truth as well.
    fn is_told(&self, leg: Leg, truth: &MediaTruth) -> Result<(), String> {
        let kernel = self.kernel.borrow();
        let told = || kernel.stays.streams.iter().filter(|stream| stream.leg == leg);
        let sum = |of: fn(&StreamEnded) -> u64| told().map(of).sum::<u64>();
        let is = [sum(|s| s.packets_expected), sum(|s| s.packets_received), sum(|s| s.packets_lost), sum(|s| s.bytes)];
        if is != [truth.expected, truth.received, truth.lost, truth.bytes] {
            return Err(format!("from {leg:?}: {truth:?}\nthe ends of its streams tell {is:?}"));
        }
        Ok(())
    }

    fn live_until(&mut self, end: Mono) -> Result<(), String> {
        self.end = end;
        while self.now().mono < end {
            self.step()?;
        }
        Ok(())
    }

    /// Allocates and binds a channel; the relayed address.
    fn bound(&mut self, client: SocketAddr, peer: SocketAddr) -> Result<SocketAddr, String> {
        let answer = self.signed(client, Method::ALLOCATE, |builder| {
            builder.u32(attribute::REQUESTED_TRANSPORT, 17 << 24).u32(attribute::LIFETIME, 600);
        })?;
        let message = Message::parse(&answer).map_err(|error| error.to_string())?;
        let relayed = message.relayed().next().ok_or("an allocation has no relayed address")?;
        self.signed(client, Method::CHANNEL_BIND, |builder| {
            builder.channel(CHANNEL).xor_address(attribute::XOR_PEER_ADDRESS, peer);
        })?;
        Ok(relayed)
    }

    /// The answer to a request that succeeds.
    fn signed(&mut self, from: SocketAddr, method: Method, fill: impl Fn(&mut Builder<'_>)) -> Result<Vec<u8>, String> {
        let login = Login::new(STATIC_USERS[0].0, STATIC_USERS[0].1, Style::Old);
        let mut challenge: Option<(Vec<u8>, Vec<u8>)> = None;
        loop {
            let bytes = build(Class::Request, method, TransactionId(self.rng.transaction()), |builder| {
                fill(builder);
                if let Some((realm, nonce)) = &challenge {
                    login.sign(builder, realm, nonce, &[]);
                }
            });
            let answer = self.exchange(from, bytes)?;
            let message = Message::parse(&answer).map_err(|error| error.to_string())?;
            match (message.class, &challenge, message.attributes.realm, message.attributes.nonce) {
                (Class::Success, ..) => return Ok(answer),
                (_, None, Some(realm), Some(nonce)) => challenge = Some((realm.to_vec(), nonce.to_vec())),
                _ => return Err(format!("{method:?} is refused: {:?}", message.attributes.error_code)),
            }
        }
    }

    /// Every source is followed by now, its clock is known, and where nothing is overtaken its jitter is that of the
    /// workers' ticks.
    fn streams_are(&mut self, leg: Leg, sources: u64, even: bool) -> Result<(), String> {
        let streams = self.summed(leg, |media| media.value(MediaCounter::Streams));
        let unknown = self.summed(leg, |media| media.value(MediaCounter::ClockUnknown));
        let jitters = self.summed(leg, |media| media.jitter().0.iter().sum());
        let micros = self.summed(leg, |media| (media.jitter().1 * 1e6) as u64);
        if streams != sources || (even && unknown != 0) {
            return Err(format!("{streams} streams from {leg:?} of {sources}, {unknown} of unknown clock"));
        }
        if even && (jitters < sources || micros > jitters * 500) {
            return Err(format!("{jitters} times jitter from {leg:?}, in all {micros} us"));
        }
        Ok(())
    }

    fn said(&mut self, leg: Leg) -> MediaTruth {
        let mut is = |counter| self.summed(leg, |media| media.value(counter));
        MediaTruth {
            expected: is(MediaCounter::Expected),
            received: is(MediaCounter::Received),
            lost: is(MediaCounter::Lost),
            late: is(MediaCounter::Late),
            duplicate: is(MediaCounter::Duplicate),
            bytes: is(MediaCounter::Bytes),
        }
    }

    /// Over all workers and tenants.
    fn summed(&mut self, leg: Leg, of: impl Fn(&Media) -> u64) -> u64 {
        let of_leg = |media: &[Media]| media.iter().skip(leg as usize).step_by(Leg::COUNT).map(&of).sum::<u64>();
        self.workers.iter_mut().map(|worker| of_leg(worker.server().media())).sum()
    }
}

/// What is sent, when it arrives, and what that is.
struct Script {
    rng: Rng,
    packets: Vec<(Mono, Packet)>,
    truth: [MediaTruth; Leg::COUNT],
}

impl Script {
    /// A source's packets for twenty seconds, however they fare.
    fn play(&mut self, start: Mono, leg: Leg, even: bool, wrapped: impl Fn(&[u8]) -> Packet) {
        let rng = &mut self.rng;
        let truth = &mut self.truth[leg as usize];
        let (ssrc, first, origin) = (rng.below(1 << 32) as u32, rng.below(1 << 16) as u16, rng.below(1 << 32) as u32);
        let (rate, interval) = (rng.pick(&RATES), rng.millis(5, 30));
        let [loss, gap, copy, delay, delay_much] =
            [(); 5].map(|()| if rng.chance(700) { rng.below(60) as u32 } else { 0 });
        let [delay, delay_much] = [delay, delay_much].map(|often| if even { 0 } else { often });
        let count = Duration::from_secs(20).as_micros() as u64 / interval.as_micros() as u64;
        let start = start.after(WAY + rng.millis(0, 500));
        let arrival = |place: u64, later: u64| {
            let between = if later > 0 { interval / 2 } else { Duration::ZERO };
            start.after(interval * (place + later) as u32 + between)
        };
        let mut lost_until = 0;
        for n in 0..count {
            let ticks = n * interval.as_micros() as u64 * rate / 1_000_000;
            let media = rtp(ssrc, first.wrapping_add(n as u16), origin.wrapping_add(ticks as u32), rng);
            let (packet, bytes) = (wrapped(&media), media.len() as u64);
            truth.expected += 1;
            // The first two are its probation, the last one tells that there were others before.
            let fair = n < 2 || n + 1 == count;
            // Two gaps that touch could be longer than what is overtaken.
            if !fair && n > lost_until + GAP && rng.chance(gap / 5) {
                lost_until = n + rng.between(1, GAP);
            }
            let much = rng.between(MUCH_OVERTAKEN.0, MUCH_OVERTAKEN.1);
            if !fair && (n < lost_until || rng.chance(loss)) {
                truth.lost += 1;
            } else if !fair && n + much + GAP < count && rng.chance(delay_much) {
                (truth.lost, truth.late, truth.bytes) = (truth.lost + 1, truth.late + 1, truth.bytes + bytes);
                self.packets.push((arrival(n, much + GAP), packet));
            } else if !fair && rng.chance(delay) {
                (truth.received, truth.bytes) = (truth.received + 1, truth.bytes + bytes);
                self.packets.push((arrival(n, rng.between(OVERTAKEN.0, OVERTAKEN.1)), packet));
            } else {
                (truth.received, truth.bytes) = (truth.received + 1, truth.bytes + bytes);
                self.packets.push((arrival(n, 0), packet.clone()));
                if !fair && rng.chance(copy) {
                    (truth.duplicate, truth.bytes) = (truth.duplicate + 1, truth.bytes + bytes);
                    self.packets.push((arrival(n, rng.between(OVERTAKEN.0, OVERTAKEN.1)), packet));
                }
            }
        }
    }
}

fn rtp(ssrc: u32, sequence: u16, timestamp: u32, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = vec![0; rng.between(12, 1200) as usize];
    rng.fill(&mut bytes);
    (bytes[0], bytes[1]) = (0x80, 96 | bytes[1] & 0x80);
    bytes[2..4].copy_from_slice(&sequence.to_be_bytes());
    bytes[4..8].copy_from_slice(&timestamp.to_be_bytes());
    bytes[8..12].copy_from_slice(&ssrc.to_be_bytes());
    bytes
}

fn on_channel(data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; channel_data::HEADER_LEN];
    if let Some(header) = bytes.first_chunk_mut() {
        channel_data::write_header(header, CHANNEL, data.len() as u16);
    }
    bytes.extend(data);
    bytes
}

fn indication(peer: SocketAddr, data: &[u8]) -> Vec<u8> {
    build(Class::Indication, Method::SEND, TransactionId([5; 12]), |builder| {
        builder.xor_address(attribute::XOR_PEER_ADDRESS, peer).bytes(attribute::DATA, data);
    })
}
