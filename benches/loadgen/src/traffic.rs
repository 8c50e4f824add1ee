//! Packets through the server, paced or flat out.

use std::net::{IpAddr, SocketAddr};

use crate::clock::Clock;
use crate::cpu::CpuClock;
use crate::endpoint::{Endpoint, Receive, Sent};
use crate::flow::{self, Flow, Side};
use crate::meter::{Latencies, Sample, Spent};
use crate::options::{Direction, Framing, Options};
use crate::pace::{InFlight, Schedule};
use crate::report::Report;
use crate::rtp;
use crate::session::{Session, Signalling, Step};
use crate::stamp::Stamp;

/// Packets sent between two reads: few enough that latencies are not the load generator's own.
const TURN: u32 = 16;

/// How long after the last packet something may still arrive.
const DRAIN_NANOS: u64 = 300_000_000;

/// Allocates, binds, sends and counts, and deletes the allocations.
///
/// # Errors
/// The server refuses, does not answer, or ends; a socket fails.
pub(crate) fn run(options: &Options, clock: Clock, server_cpu: Option<CpuClock>) -> Result<Report, String> {
    let receive = if options.gso { Receive::Bursts } else { Receive::Single };
    let mut clients = open(options.clients_from(), receive)?;
    let peers = open(options.peers_from(), receive)?;
    let mut signalling = Signalling::new(&mut clients, options, clock);
    let concurrency = options.concurrency as usize;
    let mut sessions: Vec<Session> = (0..options.allocations).map(Session::new).collect();
    signalling.all(&mut sessions, concurrency, |_| Step::Allocate)?;
    let partners = partners(options, &sessions, &peers);
    signalling.all(&mut sessions, concurrency, |slot| match options.framing {
        Framing::Channel => Step::Bind { channel: flow::channel_of(slot as u32), peer: partners[slot] },
        Framing::Indication => Step::Permit { peer: partners[slot] },
    })?;
    let flows = flows(options, &sessions, &partners);
    let mut run = Run::new(options, clock, server_cpu, signalling.endpoint(), peers, flows)?;
    run.go()?;
    let report = run.report()?;
    signalling.all(&mut sessions, concurrency, |_| Step::Delete)?;
    Ok(report)
}

fn open(first: IpAddr, receive: Receive) -> Result<Endpoint, String> {
    Endpoint::open(first, receive).map_err(|error| format!("opening a socket: {error}"))
}

/// Whom each client talks to: a peer of its own, or the other client of its pair.
fn partners(options: &Options, sessions: &[Session], peers: &Endpoint) -> Vec<SocketAddr> {
    (0..sessions.len())
        .map(|slot| match options.direction {
            Direction::C2c => sessions[slot ^ 1].relayed.unwrap_or_else(|| peers.address(slot as u32)),
            _ => peers.address(slot as u32),
        })
        .collect()
}

fn flows(options: &Options, sessions: &[Session], partners: &[SocketAddr]) -> Vec<Flow> {
    let Options { server, size, framing, .. } = *options;
    let mut flows = Vec::new();
    for (slot, (session, &partner)) in sessions.iter().zip(partners).enumerate() {
        let up = || Flow::up(session, server, partner, size, framing);
        let down = || Flow::down(session, partner, framing);
        match options.direction {
            Direction::Up => flows.push(up()),
            Direction::Down => flows.push(down()),
            Direction::Both => flows.extend([up(), down()]),
            Direction::C2c => flows.push(Flow::across(session, &sessions[slot ^ 1], server, size, framing)),
            Direction::Allocate => {}
        }
    }
    flows
}

/// One run of traffic.
struct Run<'a> {
    options: &'a Options,
    clock: Clock,
    server_cpu: Option<CpuClock>,
    clients: &'a mut Endpoint,
    peers: Endpoint,
    flows: Vec<Flow>,
    /// One of each flow with `--rtp`, none without.
    streams: Vec<rtp::Stream>,
    schedule: Option<Schedule>,
    next_flow: usize,
    scratch: Vec<u8>,
    tally: Tally,
    drops_before: u64,
    spent: Option<Spent>,
}

/// What is counted.
struct Tally {
    run: u32,
    in_flight: InFlight,
    /// The measured interval, on the run's clock.
    window: std::ops::Range<u64>,
    /// Sent in the interval.
    sent: u64,
    /// Of those sent in the interval, what arrived.
    arrived: u64,
    /// Arrived in the interval, whenever sent: what the CPU time of the interval is divided by.
    delivered: u64,
    misrouted: u64,
    no_room: u64,
    late_nanos_max: u64,
    latency: Latencies,
}

impl<'a> Run<'a> {
    fn new(
        options: &'a Options,
        clock: Clock,
        server_cpu: Option<CpuClock>,
        clients: &'a mut Endpoint,
        peers: Endpoint,
        flows: Vec<Flow>,
    ) -> Result<Self, String> {
        let count = u32::try_from(flows.len()).map_err(|error| error.to_string())?;
        let schedule =
            (options.rate > 0).then(|| Schedule::new(count, options.rate, options.burst, options.pacing, options.seed));
        let drops_before = clients.drops() + peers.drops();
        let run = options.seed as u32 ^ std::process::id();
        let streams =
            if options.rtp { (0..count).map(|flow| rtp::Stream::new(run, flow)).collect() } else { Vec::new() };
        Ok(Self {
            options,
            clock,
            server_cpu,
            clients,
            peers,
            flows,
            streams,
            schedule,
            next_flow: 0,
            scratch: Vec::with_capacity(64 * 1024),
            tally: Tally::new(run)?,
            drops_before,
            spent: None,
        })
    }

    fn go(&mut self) -> Result<(), String> {
        let origin = self.clock.nanos();
        let warm = origin + (self.options.warmup * 1e9) as u64;
        self.send_until(origin, warm)?;
        let start = Sample::take(self.clock, self.server_cpu)?;
        let from = self.clock.nanos();
        let to = from + (self.options.seconds * 1e9) as u64;
        self.tally.window = from..to;
        self.send_until(origin, to)?;
        let end = Sample::take(self.clock, self.server_cpu)?;
        self.spent = Some(start.until(&end));
        self.drain(to)
    }

    fn send_until(&mut self, origin: u64, end: u64) -> Result<(), String> {
        loop {
            let now = self.clock.nanos();
            if now >= end {
                return Ok(());
            }
            self.tally.in_flight.advance(now);
            self.send_turn(origin, now)?;
            self.receive()?;
        }
    }

    fn drain(&mut self, from: u64) -> Result<(), String> {
        while self.tally.arrived < self.tally.sent && self.clock.nanos() < from + DRAIN_NANOS {
            self.receive()?;
        }
        Ok(())
    }

    fn send_turn(&mut self, origin: u64, now: u64) -> Result<(), String> {
        let mut sent = 0;
        while sent < TURN {
            let flow = match &mut self.schedule {
                Some(schedule) => match schedule.due(now - origin) {
                    Some((flow, due)) => {
                        self.tally.late_nanos_max = self.tally.late_nanos_max.max(now - origin - due);
                        flow as usize
                    }
                    None => return Ok(()),
                },
                None if self.tally.in_flight.count() < self.options.window => self.flow_in_turn(),
                None => return Ok(()),
            };
            self.send_burst(flow)?;
            sent += self.options.burst;
        }
        Ok(())
    }

    fn flow_in_turn(&mut self) -> usize {
        self.next_flow = (self.next_flow + 1) % self.flows.len();
        self.next_flow
    }

    fn send_burst(&mut self, number: usize) -> Result<(), String> {
        let flow = &self.flows[number];
        let stamp = Stamp { run: self.tally.run, flow: number as u32, sent: self.clock.nanos() };
        self.scratch.clear();
        for left in (0..self.options.burst).rev() {
            match self.streams.get_mut(number) {
                Some(stream) => {
                    let header = stream.next(stamp.sent, left == 0);
                    flow.write(&mut self.scratch, &header, stamp, self.options.size);
                }
                None => flow.write(&mut self.scratch, &[], stamp, self.options.size),
            }
        }
        let length = self.scratch.len() / self.options.burst as usize;
        let endpoint = match flow.from {
            Side::Client => &*self.clients,
            Side::Peer => &self.peers,
        };
        let (at_once, segment) = match self.options.gso {
            true => (self.scratch.len(), u16::try_from(length).ok()),
            false => (length, None),
        };
        for packets in self.scratch.chunks(at_once) {
            let outcome = endpoint.send(flow.index, flow.to, packets, segment);
            let count = (packets.len() / length) as u32;
            match outcome.map_err(|error| format!("sending: {error}"))? {
                Sent::Yes => self.tally.sent(count, stamp.sent),
                Sent::NoRoom => self.tally.no_room += u64::from(count),
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), String> {
        for side in [Side::Client, Side::Peer] {
            let endpoint = match side {
                Side::Client if self.options.direction == Direction::Up => continue,
                Side::Peer if matches!(self.options.direction, Direction::Down | Direction::C2c) => {
                    continue;
                }
                Side::Client => &mut *self.clients,
                Side::Peer => &mut self.peers,
            };
            let (clock, flows, tally, options) = (self.clock, &self.flows, &mut self.tally, self.options);
            let mut now = None;
            endpoint
                .receive(|from, packet| {
                    let now = *now.get_or_insert_with(|| clock.nanos());
                    tally.packet(flows, options, side, from, packet, now);
                })
                .map_err(|error| format!("receiving: {error}"))?;
        }
        Ok(())
    }

    fn report(&self) -> Result<Report, String> {
        let spent = self.spent.ok_or("nothing was measured")?;
        let tally = &self.tally;
        let drops = self.clients.drops() + self.peers.drops();
        let per_packet = spent.server.map(|nanos| nanos as f64 / tally.delivered.max(1) as f64);
        Ok(Report {
            direction: self.options.direction.into(),
            size: self.options.size,
            rate_pps: self.options.rate,
            seconds: spent.seconds,
            sent: tally.sent,
            delivered: tally.arrived,
            lost: tally.sent.saturating_sub(tally.arrived),
            misrouted: tally.misrouted,
            per_second: tally.delivered as f64 / spent.seconds,
            p50_us: tally.latency.micros(0.5),
            p99_us: tally.latency.micros(0.99),
            p99_of_parts_us: tally.latency.p99_of_parts_micros(),
            p999_us: tally.latency.micros(0.999),
            cpu_ns_per_packet: per_packet,
            server_cores: spent.server.map(|nanos| nanos as f64 / 1e9 / spent.seconds),
            own_cores: spent.own_cores,
            others_cores: spent.others_cores,
            own_drops: drops.saturating_sub(self.drops_before),
            no_room: tally.no_room,
            late_us_max: tally.late_nanos_max as f64 / 1000.0,
        })
    }
}

impl Tally {
    fn new(run: u32) -> Result<Self, String> {
        Ok(Self {
            run,
            in_flight: InFlight::new(),
            window: u64::MAX..u64::MAX,
            sent: 0,
            arrived: 0,
            delivered: 0,
            misrouted: 0,
            no_room: 0,
            late_nanos_max: 0,
            latency: Latencies::new()?,
        })
    }

    fn sent(&mut self, packets: u32, at: u64) {
        self.in_flight.sent(packets, at);
        if self.window.contains(&at) {
            self.sent += u64::from(packets);
        }
    }

    fn packet(&mut self, flows: &[Flow], options: &Options, side: Side, from: SocketAddr, packet: &[u8], now: u64) {
        let payload = flow::payload(side, packet);
        let media = if options.rtp { rtp::HEADER_LEN } else { 0 };
        let stamp =
            payload.and_then(|payload| Stamp::read(payload.get(media..)?)).filter(|stamp| stamp.run == self.run);
        let (Some(payload), Some(stamp)) = (payload, stamp) else {
            // Another run's, or an answer that came late.
            return;
        };
        let right = flows.get(stamp.flow as usize).is_some_and(|flow| {
            flow.is_arrival(side, from, packet, options.server) && payload.len() == usize::from(options.size)
        });
        if !right {
            self.misrouted += 1;
            return;
        }
        self.in_flight.arrived(stamp.sent);
        if self.window.contains(&now) {
            self.delivered += 1;
        }
        if self.window.contains(&stamp.sent) {
            self.arrived += 1;
            self.latency.record(now, now.saturating_sub(stamp.sent));
        }
    }
}
