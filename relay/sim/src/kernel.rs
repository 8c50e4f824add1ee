//! The simulated kernel and network that everybody in a run shares: sockets, slots, packets on their
//! way, NATs, both clocks, and whatever goes wrong with them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluice_base::io::{Event, IoStats, OpenError, OpenSpec, Opened, SendOptions, Slot, SocketRole};
use sluice_base::limits::{HEADROOM_MIN, SLOT_BYTES, TAILROOM_MIN};
use sluice_base::policy::Verdict;
use sluice_base::{AllocationId, Mono, Now, Pii, QuestionId, SocketId};
use sluice_turn::Bans;
use sluice_wire::channel_data;
use sluice_wire::stun::Message;

use crate::io::{SimSlot, seconds};
use crate::nat::Nat;
use crate::oracle::{Oracle, Outgoing};
use crate::rng::Rng;
use crate::scenario::{Decisions, Faults, Scenario};
use crate::stays::Stays;
use crate::tamper::{Tamper, Tampered};

/// What a free slot is full of.
const POISON: u8 = 0xdb;
/// Packets that wait in one socket's buffer; what comes then is lost.
const SOCKET_QUEUE_MAX: usize = 256;
/// Packets of clients that are kept for mischief.
const CAPTURED_MAX: usize = 64;
/// Events of one wait.
const BATCH_MAX: usize = 64;

/// Everybody's handle.
pub(crate) type Shared = Rc<RefCell<Kernel>>;

/// Everything that packets go through.
pub(crate) struct Kernel {
    pub(crate) now: Now,
    pub(crate) rng: Rng,
    pub(crate) faults: Faults,
    pub(crate) decisions: Decisions,
    pub(crate) drivers: Vec<Driver>,
    pub(crate) oracle: Oracle,
    pub(crate) stays: Stays,
    pub(crate) trace: Trace,
    pub(crate) tamper: Tamper,
    pub(crate) nats: Vec<Nat>,
    /// Clients by the outside address of their NAT.
    pub(crate) nat_of: BTreeMap<IpAddr, usize>,
    /// What models have received: where, from whom, what.
    pub(crate) inbox: VecDeque<Packet>,
    /// Some packets of clients, as they were seen outside.
    pub(crate) captured: Vec<Packet>,
    /// Allocations that the control plane wants to end.
    pub(crate) orders: Vec<(usize, AllocationId)>,
    /// Bans that are to come into force.
    pub(crate) bans: Option<Arc<Bans>>,
    bound: BTreeMap<SocketAddr, Vec<(usize, SocketId)>>,
    flying: BTreeMap<(Mono, u64), Packet>,
    sequence: u64,
    relays: Vec<(IpAddr, IpAddr)>,
}

/// A datagram on the network.
#[derive(Clone)]
pub(crate) struct Packet {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

/// A datagram that a worker was given.
pub(crate) struct Datagram {
    pub(crate) worker: usize,
    pub(crate) socket: SocketId,
    pub(crate) role: SocketRole,
    pub(crate) local: SocketAddr,
    pub(crate) from: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

/// The kernel's side of one worker.
pub(crate) struct Driver {
    sockets: Vec<Entry>,
    free_sockets: Vec<u32>,
    free: Vec<(u32, Box<[u8]>)>,
    slots: usize,
    releasing: Vec<(Mono, u32, Box<[u8]>)>,
    sending: Vec<Packet>,
    pub(crate) woken: Arc<AtomicBool>,
    /// The bans that the worker has said are in force.
    pub(crate) banned: Arc<Mutex<Arc<Bans>>>,
    /// When the worker has something to do.
    pub(crate) tick_at: Mono,
    /// Verdicts on their way: as they were made, and as the worker is told of them.
    pub(crate) verdicts: BTreeMap<(Mono, QuestionId), (Verdict, Verdict)>,
    pub(crate) stats: IoStats,
    /// Slots dropped instead of sent or freed.
    pub(crate) lost_slots: Rc<Cell<u32>>,
    /// The datagram whose slot came back last: outputs that follow are about it.
    pub(crate) current: Option<Rc<Datagram>>,
}

struct Entry {
    generation: u32,
    open: Option<Open>,
}

struct Open {
    local: SocketAddr,
    role: SocketRole,
    queue: VecDeque<(SocketAddr, Vec<u8>)>,
}

/// The last events of a run, all of them, or none.
pub(crate) struct Trace {
    lines: VecDeque<String>,
    most: usize,
}

impl Kernel {
    pub(crate) fn new(seed: u64, scenario: &Scenario, now: Now, tamper: Tamper) -> Self {
        let relays = scenario.relays.iter().filter_map(|r| Some((r.address, r.external?))).collect();
        Kernel {
            now,
            rng: Rng::new(seed, 2),
            faults: scenario.faults,
            decisions: scenario.decisions,
            drivers: (0..scenario.workers).map(|_| Driver::new(scenario.slots)).collect(),
            oracle: Oracle::new(scenario),
            stays: Stays::new(scenario.events),
            trace: Trace { lines: VecDeque::new(), most: 0 },
            tamper,
            nats: Vec::new(),
            nat_of: BTreeMap::new(),
            inbox: VecDeque::new(),
            captured: Vec::new(),
            orders: Vec::new(),
            bans: None,
            bound: BTreeMap::new(),
            flying: BTreeMap::new(),
            sequence: 0,
            relays,
        }
    }

    /// When the next packet arrives.
    pub(crate) fn next_arrival(&self) -> Mono {
        self.flying.first_key_value().map_or(Mono::NEVER, |((at, _), _)| *at)
    }

    /// Lets everything arrive that is due.
    pub(crate) fn arrive(&mut self) {
        while let Some(entry) = self.flying.first_entry() {
            if entry.key().0 > self.now.mono {
                return;
            }
            let packet = entry.remove();
            self.deliver(packet);
        }
    }

    /// A model behind a NAT sends.
    pub(crate) fn send_from_behind(&mut self, nat: usize, packet: Packet) {
        let from = self.nats[nat].outbound(self.now.mono, packet.from, packet.to);
        let packet = Packet { from, ..packet };
        if self.rng.chance(50) {
            if self.captured.len() >= CAPTURED_MAX {
                self.captured.swap_remove(self.rng.below(CAPTURED_MAX as u64) as usize);
            }
            self.captured.push(packet.clone());
        }
        self.transmit(packet);
    }

    /// Puts a packet on the network.
    pub(crate) fn transmit(&mut self, packet: Packet) {
        if self.rng.chance(self.faults.loss) {
            return;
        }
        if self.rng.chance(self.faults.duplicate) {
            self.fly(packet.clone());
        }
        self.fly(packet);
    }

    /// Puts a packet on the network that arrives at a given time, whatever happens.
    pub(crate) fn transmit_at(&mut self, at: Mono, packet: Packet) {
        self.sequence += 1;
        self.flying.insert((at, self.sequence), packet);
    }

    fn fly(&mut self, packet: Packet) {
        let on_the_way = match self.bound.contains_key(&packet.to) && self.is_ours(packet.from.ip()) {
            true => self.rng.micros(10, 100),
            false => self.rng.micros(500, self.faults.delay_ms.max(1) * 1000),
        };
        let at = self.now.mono.after(on_the_way);
        self.transmit_at(at, packet);
    }

    fn is_ours(&self, ip: IpAddr) -> bool {
        self.bound.keys().any(|local| local.ip() == ip)
    }

    fn deliver(&mut self, mut packet: Packet) {
        // The 1:1 NAT in front of the relay.
        if let Some((inner, _)) = self.relays.iter().find(|(_, external)| *external == packet.to.ip()) {
            packet.to.set_ip(*inner);
        }
        if let Some(sockets) = self.bound.get(&packet.to) {
            let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((packet.from, packet.to));
            let (worker, socket) = sockets[(hash % sockets.len() as u64) as usize];
            return self.queue(worker, socket, packet);
        }
        if let Some(nat) = self.nat_of.get(&packet.to.ip()) {
            match self.nats[*nat].inbound(self.now.mono, packet.from, packet.to) {
                Some(inside) => packet.to = inside,
                None => return,
            }
        }
        self.inbox.push_back(packet);
    }

    fn queue(&mut self, worker: usize, socket: SocketId, packet: Packet) {
        let late = self.rng.micros(0, 300);
        let driver = &mut self.drivers[worker];
        driver.tick_at = driver.tick_at.min(self.now.mono.after(late));
        if let Some(open) = driver.open_mut(socket) {
            if open.queue.len() < SOCKET_QUEUE_MAX {
                open.queue.push_back((packet.from, packet.bytes));
            } else {
                driver.stats.socket_drops += 1;
            }
        }
    }

    /// What a wait does first: what is queued leaves.
    pub(crate) fn flush(&mut self, worker: usize) {
        for mut packet in std::mem::take(&mut self.drivers[worker].sending) {
            // The 1:1 NAT in front of the relay, for whatever goes outside.
            let outside = !self.bound.contains_key(&packet.to);
            if let Some((_, external)) = self.relays.iter().find(|(inner, _)| outside && *inner == packet.from.ip()) {
                packet.from.set_ip(*external);
            }
            self.transmit(packet);
        }
    }

    /// What a wait reports.
    pub(crate) fn receive(&mut self, worker: usize, batch: &mut Vec<Event<SimSlot>>) {
        let now = self.now.mono;
        let driver = &mut self.drivers[worker];
        driver.stats.enters += 1;
        driver.release_due(now);
        let woken = driver.woken.swap(false, Ordering::Relaxed);
        let woken_first = self.rng.chance(500);
        if woken && woken_first {
            batch.push(Event::Woken);
        }
        if self.rng.chance(self.faults.no_slots) {
            self.drivers[worker].stats.no_slots += 1;
            self.drivers[worker].stats.rearms += 1;
        } else {
            self.receive_datagrams(worker, batch);
        }
        if woken && !woken_first {
            batch.push(Event::Woken);
        }
        let driver = &mut self.drivers[worker];
        if driver.sockets.iter().flat_map(|s| &s.open).any(|open| !open.queue.is_empty()) {
            driver.tick_at = driver.tick_at.min(now.after(Duration::from_micros(500)));
        }
    }

    fn receive_datagrams(&mut self, worker: usize, batch: &mut Vec<Event<SimSlot>>) {
        let sockets = self.drivers[worker].sockets.len();
        let first = self.rng.below(sockets as u64) as usize;
        for i in 0..sockets {
            let index = (first + i) % sockets;
            while batch.len() < BATCH_MAX {
                let Some(datagram) = self.drivers[worker].next_datagram(worker, index as u32) else {
                    break;
                };
                let headroom = HEADROOM_MIN + self.rng.below(32) as usize;
                if datagram.bytes.len() > SLOT_BYTES - headroom - TAILROOM_MIN {
                    self.drivers[worker].stats.truncated += 1;
                    continue;
                }
                let Some(mut slot) = self.drivers[worker].take_slot(headroom, &mut self.oracle) else {
                    self.drivers[worker].stats.no_slots += 1;
                    return;
                };
                let (socket, from) = (datagram.socket, Pii::new(datagram.from));
                let now = self.now;
                self.trace.push(|| format!("{} worker {worker} gets {}", seconds(now), datagram.shown()));
                self.oracle.delivered(now, &datagram);
                slot.hold(Rc::new(datagram));
                self.drivers[worker].stats.completions += 1;
                batch.push(Event::Datagram { socket, from, slot });
            }
        }
    }

    /// A worker sends a slot.
    pub(crate) fn send(
        &mut self,
        worker: usize,
        socket: SocketId,
        to: SocketAddr,
        slot: SimSlot,
        options: SendOptions,
    ) {
        let origin = slot.origin();
        let bytes = slot.sent_bytes();
        self.give_back(worker, slot, true);
        if origin.is_some() {
            self.drivers[worker].current.clone_from(&origin);
        }
        let Some((local, role)) = self.drivers[worker].open_mut(socket).map(|open| (open.local, open.role)) else {
            self.drivers[worker].stats.send_failed += 1;
            return;
        };
        let outgoing = Outgoing { worker, socket, role, local, to, bytes, origin, options };
        let counted = self.stays.sent(self.now.mono, &outgoing);
        self.holds(counted);
        let (one, more) = match self.tamper.touch(outgoing) {
            Tampered::None(unsent) => {
                if let Some(origin) = &unsent.origin {
                    self.oracle.unsent(self.now, origin);
                }
                return;
            }
            Tampered::One(one) => (one, None),
            Tampered::Two(one, two) => (one, Some(two)),
        };
        for outgoing in std::iter::once(one).chain(more) {
            let now = self.now;
            self.trace.push(|| format!("{} worker {worker} sends {}", seconds(now), outgoing.shown()));
            self.oracle.sent(now, &outgoing);
            if self.rng.chance(self.faults.send_full) {
                self.drivers[worker].stats.send_full += 1;
                continue;
            }
            let packet = Packet { from: outgoing.local, to: outgoing.to, bytes: outgoing.bytes };
            self.drivers[worker].sending.push(packet);
        }
    }

    /// A worker has ticked: who is banned there has nothing.
    pub(crate) fn watch_bans(&mut self, worker: usize) {
        let banned = self.drivers[worker].banned.lock().map(|banned| banned.clone()).unwrap_or_default();
        if !banned.is_empty() {
            // Who came while the ban was on its way is gone as well.
            self.oracle.banned(&banned);
            let gone = self.stays.banned(worker, &banned, self.now.unix_seconds);
            self.holds(gone);
        }
    }

    /// What does not hold is a violation.
    pub(crate) fn holds(&mut self, result: Result<(), String>) {
        if let Err(what) = result {
            self.oracle.violation(what);
        }
    }

    /// A worker gives a slot back unsent.
    pub(crate) fn free(&mut self, worker: usize, slot: SimSlot) {
        let origin = slot.origin();
        self.give_back(worker, slot, false);
        if let Some(datagram) = &origin {
            self.oracle.unsent(self.now, datagram);
            self.drivers[worker].current = origin;
        }
    }

    /// A worker wants a blank slot.
    pub(crate) fn blank(&mut self, worker: usize) -> Option<SimSlot> {
        let refused = self.rng.chance(self.faults.no_blank);
        let headroom = HEADROOM_MIN + self.rng.below(32) as usize;
        let slot = match refused {
            true => None,
            false => self.drivers[worker].take_slot(headroom, &mut self.oracle),
        };
        if slot.is_none() {
            let now = self.now;
            self.trace.push(|| format!("{} worker {worker} has no slot for an answer", seconds(now)));
            self.oracle.answer_lost(self.now, worker);
        }
        slot
    }

    /// A worker opens a socket.
    pub(crate) fn open(&mut self, worker: usize, spec: &OpenSpec) -> Result<Opened, OpenError> {
        if spec.role == SocketRole::Relay {
            if self.rng.chance(self.faults.no_sockets) {
                return Err(OpenError::NoSockets);
            }
            if self.rng.chance(self.faults.port_in_use) {
                return Err(OpenError::InUse);
            }
            if self.bound.contains_key(&spec.local) {
                self.oracle.violation("a worker opens a port that this relay has open already".into());
                return Err(OpenError::InUse);
            }
        }
        let socket = self.drivers[worker].open(spec);
        self.bound.entry(spec.local).or_default().push((worker, socket));
        let now = self.now;
        self.trace.push(|| format!("{} worker {worker} opens {}", seconds(now), spec.local));
        self.oracle.opened(now, worker, socket, spec);
        Ok(Opened { socket, local: spec.local })
    }

    /// A worker closes a socket.
    pub(crate) fn close(&mut self, worker: usize, socket: SocketId) {
        let Some(open) = self.drivers[worker].close(socket) else {
            self.oracle.violation("a worker closes a socket that is not open".into());
            return;
        };
        if let Some(all) = self.bound.get_mut(&open.local) {
            all.retain(|bound| *bound != (worker, socket));
            if all.is_empty() {
                self.bound.remove(&open.local);
            }
        }
        let now = self.now;
        self.trace.push(|| format!("{} worker {worker} closes {}", seconds(now), open.local));
        self.oracle.closed(worker, socket);
    }

    /// The worker's driver is gone, and its sockets with it.
    pub(crate) fn dropped(&mut self, worker: usize) {
        for index in 0..self.drivers[worker].sockets.len() as u32 {
            let generation = self.drivers[worker].sockets[index as usize].generation;
            let socket = SocketId { index, generation };
            if self.drivers[worker].open_mut(socket).is_some() {
                self.close(worker, socket);
            }
        }
    }

    /// Sockets bound anywhere.
    pub(crate) fn sockets_open(&self) -> usize {
        self.bound.values().map(Vec::len).sum()
    }

    fn give_back(&mut self, worker: usize, slot: SimSlot, sent: bool) {
        if self.tamper.loses(slot.payload()) {
            return drop(slot);
        }
        let late = (sent && self.rng.chance(self.faults.late_release)).then(|| self.rng.micros(10, 20_000));
        let (number, buffer) = slot.into_buffer();
        let driver = &mut self.drivers[worker];
        match late {
            Some(late) => driver.releasing.push((self.now.mono.after(late), number, buffer)),
            None => driver.release(number, buffer),
        }
    }
}

impl Datagram {
    fn shown(&self) -> String {
        format!("{} at {} from {}", shown(&self.bytes), self.local, self.from)
    }
}

impl Outgoing {
    fn shown(&self) -> String {
        format!("{} from {} to {}", shown(&self.bytes), self.local, self.to)
    }
}

impl Driver {
    fn new(slots: usize) -> Self {
        Driver {
            sockets: Vec::new(),
            free_sockets: Vec::new(),
            free: (0..slots as u32).map(|n| (n, vec![POISON; SLOT_BYTES].into())).collect(),
            slots,
            releasing: Vec::new(),
            sending: Vec::new(),
            banned: Arc::default(),
            woken: Arc::new(AtomicBool::new(false)),
            tick_at: Mono::default(),
            verdicts: BTreeMap::new(),
            stats: IoStats { slots: slots as u64, ..IoStats::default() },
            lost_slots: Rc::new(Cell::new(0)),
            current: None,
        }
    }

    /// The counters, with the gauge of free slots.
    pub(crate) fn stats(&self) -> IoStats {
        IoStats { slots_free: self.free.len() as u64, ..self.stats }
    }

    /// Slots that have not come back, once the kernel has let go of the sent ones.
    pub(crate) fn slots_missing(&mut self) -> usize {
        self.release_due(Mono::NEVER);
        self.slots - self.free.len()
    }

    fn take_slot(&mut self, headroom: usize, oracle: &mut Oracle) -> Option<SimSlot> {
        let (number, buffer) = self.free.pop()?;
        if buffer.iter().any(|byte| *byte != POISON) {
            oracle.violation("a slot was written after it was given back".into());
        }
        Some(SimSlot::new(number, buffer, headroom, self.lost_slots.clone()))
    }

    fn release(&mut self, number: u32, mut buffer: Box<[u8]>) {
        buffer.fill(POISON);
        self.free.push((number, buffer));
    }

    fn release_due(&mut self, now: Mono) {
        let (due, waiting) = std::mem::take(&mut self.releasing).into_iter().partition(|(at, ..)| *at <= now);
        self.releasing = waiting;
        let due: Vec<_> = due;
        due.into_iter().for_each(|(_, number, buffer)| self.release(number, buffer));
    }

    fn open_mut(&mut self, socket: SocketId) -> Option<&mut Open> {
        let entry = self.sockets.get_mut(socket.index as usize)?;
        if entry.generation == socket.generation { entry.open.as_mut() } else { None }
    }

    fn open(&mut self, spec: &OpenSpec) -> SocketId {
        let index = self.free_sockets.pop().unwrap_or_else(|| {
            self.sockets.push(Entry { generation: 0, open: None });
            self.sockets.len() as u32 - 1
        });
        let entry = &mut self.sockets[index as usize];
        entry.generation += 1;
        entry.open = Some(Open { local: spec.local, role: spec.role, queue: VecDeque::new() });
        SocketId { index, generation: entry.generation }
    }

    fn close(&mut self, socket: SocketId) -> Option<Open> {
        self.open_mut(socket)?;
        self.free_sockets.push(socket.index);
        self.sockets[socket.index as usize].open.take()
    }

    fn next_datagram(&mut self, worker: usize, index: u32) -> Option<Datagram> {
        let entry = &mut self.sockets[index as usize];
        let socket = SocketId { index, generation: entry.generation };
        let open = entry.open.as_mut()?;
        let (from, bytes) = open.queue.pop_front()?;
        Some(Datagram { worker, socket, role: open.role, local: open.local, from, bytes })
    }
}

impl Trace {
    /// Keeps so many events from now on.
    pub(crate) fn keep(&mut self, most: usize) {
        self.most = most;
    }

    pub(crate) fn push(&mut self, line: impl FnOnce() -> String) {
        if self.most == 0 {
            return;
        }
        if self.lines.len() >= self.most {
            self.lines.pop_front();
        }
        self.lines.push_back(line());
    }

    pub(crate) fn take(&mut self) -> Vec<String> {
        self.lines.drain(..).collect()
    }
}

/// A packet in a few words.
fn shown(bytes: &[u8]) -> String {
    let len = bytes.len();
    match Message::parse(bytes) {
        Ok(m) => {
            let [a, b, ..] = m.transaction.0;
            let code = m.attributes.error_code.map_or(String::new(), |(code, _)| format!(" {code}"));
            format!("{:?}{code} of method {:#x}, transaction {a:02x}{b:02x}.., {len} bytes,", m.class, m.method.0)
        }
        Err(_) => match channel_data::parse(bytes) {
            Ok((number, _)) => format!("channel {number:#x}, {len} bytes,"),
            Err(_) => format!("{len} bytes"),
        },
    }
}
