//! The readiness driver: epoll says which sockets are ready, recvmmsg and sendmmsg move the packets.
//! For hosts that forbid io_uring, and the baseline that the ring is measured against.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use sluice_base::address::Family;
use sluice_base::id::SocketId;
use sluice_base::io::{DriverError, Event, Io, IoStats, OpenError, OpenSpec, Opened, SendOptions, Waker};
use sluice_base::limits::{BURST_SEGMENTS_MAX, BURST_SLOTS};
use sluice_base::pii::TransportAddress;
use sluice_base::time::{Mono, Now};

use crate::arena::{Arena, BURST_RECEIVE_END, HEADROOM, Index, PACKET_PIECES, Packet, RECEIVE_END};
use crate::burst::{Bursts, Step, follows};
use crate::inet::{BURST_CONTROL_BYTES, Cut, Name, control};
use crate::run::{Run, UNCUT, UNCUT_SENDS};
use crate::waker::Bell;
use crate::{clock, run, socket};

/// Sockets reported by one epoll_wait.
const READY: usize = 256;

/// Messages of one recvmmsg.
const RECEIVES: usize = 32;

/// Calls of recvmmsg for one socket and wait: one that is flooded must not starve the others.
const ROUNDS: usize = 8;

/// Messages of one recvmmsg where each may be a burst.
const BURST_RECEIVES: usize = 8;

/// Messages of one sendmmsg.
const SENDS: usize = 64;

/// The event of the waker; no socket has this index.
const BELL: u64 = u64::MAX;

/// No next message.
const END: u32 = u32::MAX;

/// Pieces of memory that one sendmmsg is made of.
const PIECES: usize = 1024;

const NOTHING: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

/// What a driver is made for.
#[derive(Clone, Debug)]
pub struct EpollOptions {
    /// Sockets at most.
    pub sockets_max: u32,
    /// Packet slots; brought within what `limits` allows.
    pub slots: u32,
    /// Bursts are received as such (UDP_GRO).
    pub udp_gro: bool,
    /// Bursts are sent as such (UDP_SEGMENT).
    pub udp_segment: bool,
}

/// A driver over epoll. May change threads before its first wait.
#[derive(Debug)]
pub struct Epoll {
    epoll: OwnedFd,
    arena: Arena,
    sockets: Vec<Entry>,
    free_sockets: Vec<u32>,
    sockets_max: u32,
    udp_gro: bool,
    udp_segment: bool,
    ready: Box<[libc::epoll_event]>,
    /// For packets, and for bursts.
    inbox: Inbox,
    grouped: Inbox,
    outbox: Outbox,
    bell: Bell,
    stats: IoStats,
}

#[derive(Debug)]
struct Entry {
    fd: Option<OwnedFd>,
    generation: u32,
    /// The count of SO_RXQ_OVFL last seen.
    drops: u32,
    /// Queued messages in the outbox: the first and the last.
    first: u32,
    last: u32,
    family: Family,
    /// It sends with fragments forbidden.
    unfragmented: bool,
    /// How many sends are to pass before one may carry a burst again.
    uncut: u32,
    /// Whether its packets come in bursts, and go into long slots.
    bursts: Bursts,
    grouped: bool,
}

/// The messages of one recvmmsg: the first `slots.len()` have a slot, but for the first `holes`.
#[derive(Debug)]
struct Inbox {
    /// Whether its slots are long.
    long: bool,
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    names: Box<[Name]>,
    controls: Box<[Control]>,
    slots: Vec<Index>,
    holes: usize,
}

/// Control data has a header of machine words.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
struct Control([u8; BURST_CONTROL_BYTES]);

/// What is queued to be sent: a list per socket.
#[derive(Debug)]
struct Outbox {
    queued: Vec<Queued>,
    /// Sockets with a list.
    sockets: Vec<u32>,
    headers: Box<[libc::mmsghdr]>,
    cuts: Box<[Cut]>,
    /// Packets in each of the headers.
    packets: Vec<u32>,
    vectors: Box<[libc::iovec]>,
}

#[derive(Debug)]
struct Queued {
    name: Name,
    name_len: u32,
    next: u32,
    to: TransportAddress,
    len: u32,
    pieces: [libc::iovec; PACKET_PIECES],
    pieces_used: u8,
    slot: Index,
}

// SAFETY: the pointers are to boxes and slots that this value owns.
unsafe impl Send for Epoll {}

impl Epoll {
    /// Makes a driver.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn new(options: &EpollOptions) -> Result<Self, DriverError> {
        Self::make(options).map_err(|error| DriverError {
            what: "no descriptor or no memory for epoll: raise LimitNOFILE (ulimit -n) or lower the number of slots"
                .into(),
            errno: error.raw_os_error().unwrap_or(0),
        })
    }

    fn make(options: &EpollOptions) -> io::Result<Self> {
        // SAFETY: a call without pointers.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor was just made and has no other owner.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        let bell = Bell::new()?;
        watch(&epoll, bell.fd(), BELL)?;
        Ok(Epoll {
            epoll,
            arena: Arena::new(options.slots, if options.udp_gro { BURST_SLOTS } else { 0 })?,
            sockets: Vec::with_capacity(options.sockets_max as usize),
            free_sockets: Vec::with_capacity(options.sockets_max as usize),
            sockets_max: options.sockets_max,
            udp_gro: options.udp_gro,
            udp_segment: options.udp_segment,
            ready: vec![libc::epoll_event { events: 0, u64: 0 }; READY].into(),
            inbox: Inbox::new(RECEIVES, false),
            grouped: Inbox::new(BURST_RECEIVES, true),
            outbox: Outbox::new(options.slots as usize),
            bell,
            stats: IoStats::default(),
        })
    }

    fn free_index(&mut self) -> Option<u32> {
        if let Some(index) = self.free_sockets.pop() {
            return Some(index);
        }
        let index = self.sockets.len() as u32;
        if index >= self.sockets_max {
            return None;
        }
        self.sockets.push(Entry {
            fd: None,
            generation: 0,
            drops: 0,
            first: END,
            last: END,
            family: Family::V4,
            unfragmented: false,
            uncut: UNCUT,
            bursts: Bursts::new(),
            grouped: false,
        });
        Some(index)
    }

    fn open_at(&mut self, index: u32, spec: &OpenSpec) -> Result<Opened, OpenError> {
        let (fd, local) = socket::open(spec, true)?;
        let entry = &mut self.sockets[index as usize];
        let socket = SocketId { index, generation: entry.generation };
        let data = u64::from(index) << 32 | u64::from(entry.generation);
        watch(&self.epoll, fd.as_raw_fd(), data).map_err(|error| socket::open_error(&error))?;
        entry.fd = Some(fd);
        entry.family = Family::of(local.ip());
        entry.drops = 0;
        entry.unfragmented = socket::starts_unfragmented(entry.family);
        entry.uncut = if self.udp_segment { 0 } else { UNCUT };
        (entry.bursts, entry.grouped) = (Bursts::new(), false);
        Ok(Opened { socket, local })
    }

    /// The descriptor of an open socket.
    #[inline]
    fn target(&self, socket: SocketId) -> Option<RawFd> {
        let entry = self.sockets.get(socket.index as usize)?;
        if entry.generation != socket.generation {
            return None;
        }
        Some(entry.fd.as_ref()?.as_raw_fd())
    }

    /// Sends everything that is queued.
    fn flush(&mut self) {
        if self.outbox.queued.is_empty() {
            return;
        }
        while let Some(index) = self.outbox.sockets.pop() {
            self.flush_socket(index);
        }
        self.outbox.queued.clear();
    }

    /// Sends what is queued on one socket.
    fn flush_socket(&mut self, index: u32) {
        let entry = &mut self.sockets[index as usize];
        let mut next = std::mem::replace(&mut entry.first, END);
        entry.last = END;
        let Some(fd) = entry.fd.as_ref().map(|fd| fd.as_raw_fd()) else {
            return;
        };
        let cuts = run::may_cut(&mut entry.uncut);
        while next != END {
            let first = next;
            let (messages, packets) = self.outbox.gather(index, cuts, &mut next);
            if packets == 1 && self.outbox.queued[first as usize].pieces_used == 1 {
                self.send_one(fd, first);
            } else {
                self.send_many(index, fd, messages);
            }
            self.take_back(first, packets);
        }
    }

    fn send_one(&mut self, fd: RawFd, at: u32) {
        let message = &self.outbox.queued[at as usize];
        self.stats.enters += 1;
        let piece = message.pieces[0];
        let name = (&raw const message.name).cast();
        // SAFETY: the piece is one of a slot that the queue owns, the name stands in the queue.
        let sent =
            unsafe { libc::sendto(fd, piece.iov_base, piece.iov_len, libc::MSG_DONTWAIT, name, message.name_len) };
        if sent < 0 {
            self.send_refused(1);
        } else {
            self.stats.completions += 1;
        }
    }

    fn send_many(&mut self, index: u32, fd: RawFd, count: usize) {
        let mut done = 0;
        while done < count {
            self.stats.enters += 1;
            let headers = &mut self.outbox.headers[done..count];
            // SAFETY: the headers point to names in the queue and to vectors over slots that the queue owns.
            let sent = unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), headers.len() as u32, libc::MSG_DONTWAIT) };
            if sent > 0 {
                self.count_bursts(done, done + sent as usize);
                done += sent as usize;
                self.stats.completions += sent as u64;
            } else {
                // The first of them was refused; those behind it have their turn.
                let packets = self.outbox.packets[done];
                let errno = self.send_refused(u64::from(packets));
                if packets > 1 && run::is_refusal_of_bursts(errno) {
                    self.sockets[index as usize].uncut = UNCUT_SENDS;
                }
                done += 1;
            }
        }
    }

    fn count_bursts(&mut self, from: usize, to: usize) {
        for packets in &self.outbox.packets[from..to] {
            if *packets > 1 {
                self.stats.bursts_sent += 1;
                self.stats.burst_packets_sent += u64::from(*packets);
            }
        }
    }

    fn send_refused(&mut self, packets: u64) -> i32 {
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
        match errno {
            libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => self.stats.send_full += packets,
            _ => self.stats.send_failed += packets,
        }
        errno
    }

    fn take_back(&mut self, first: u32, packets: usize) {
        let mut at = first;
        for _ in 0..packets {
            let message = &self.outbox.queued[at as usize];
            self.arena.put(message.slot);
            at = message.next;
        }
    }

    /// Blocks until something is ready; how many events there are.
    fn poll(&mut self, until: Mono) -> Result<usize, DriverError> {
        let timeout = match until {
            Mono::NEVER => -1,
            until => until.since(clock::monotonic()).as_micros().div_ceil(1000).min(i32::MAX as u128) as i32,
        };
        self.stats.enters += 1;
        if self.inbox.slots.is_empty() {
            return Ok(self.poll_bell(timeout));
        }
        let epoll = self.epoll.as_raw_fd();
        // SAFETY: the kernel writes at most as many events as there is room for.
        let count = unsafe { libc::epoll_wait(epoll, self.ready.as_mut_ptr(), self.ready.len() as i32, timeout) };
        if count >= 0 {
            return Ok(count as usize);
        }
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::EINTR) => Ok(0),
            errno => Err(DriverError { what: "the kernel refused epoll_wait".into(), errno: errno.unwrap_or(0) }),
        }
    }

    /// With no slot to receive into, readiness of a socket is no reason to wake: only the worker gives
    /// slots back, and not while it waits.
    #[cold]
    fn poll_bell(&mut self, timeout: i32) -> usize {
        self.stats.no_slots += 1;
        let mut bell = libc::pollfd { fd: self.bell.fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure to read and write.
        if unsafe { libc::poll(&mut bell, 1, timeout) } <= 0 {
            return 0;
        }
        self.ready[0] = libc::epoll_event { events: libc::EPOLLIN as u32, u64: BELL };
        1
    }

    fn receive(&mut self, socket: SocketId, batch: &mut Vec<Event<Packet>>) {
        let Some(fd) = self.target(socket) else {
            return;
        };
        let long = self.sockets[socket.index as usize].grouped;
        for _ in 0..ROUNDS {
            let inbox = if long { &mut self.grouped } else { &mut self.inbox };
            inbox.attach(&mut self.arena);
            let room = inbox.slots.len();
            if room == 0 {
                self.stats.no_slots += 1;
                return;
            }
            self.stats.enters += 1;
            let headers = inbox.headers.as_mut_ptr();
            // SAFETY: the first `room` headers point to names, control rooms and slots that the inbox owns.
            let count = unsafe { libc::recvmmsg(fd, headers, room as u32, libc::MSG_DONTWAIT, std::ptr::null_mut()) };
            if count <= 0 {
                return;
            }
            inbox.holes = count as usize;
            for at in 0..count as usize {
                self.deliver(socket, long, at, batch);
            }
            // How it receives may have changed with what came.
            if (count as usize) < room || self.sockets[socket.index as usize].grouped != long {
                return;
            }
        }
    }

    #[inline]
    fn deliver(&mut self, socket: SocketId, long: bool, at: usize, batch: &mut Vec<Event<Packet>>) {
        self.stats.completions += 1;
        let inbox = if long { &self.grouped } else { &self.inbox };
        let message = &inbox.headers[at];
        let index = inbox.slots[at];
        let len = message.msg_len as usize;
        let mut segment = len;
        if message.msg_hdr.msg_controllen > 0 {
            let data = &inbox.controls[at].0;
            let said = control(&data[..data.len().min(message.msg_hdr.msg_controllen)]);
            if let Some(count) = said.dropped {
                let entry = &mut self.sockets[socket.index as usize];
                self.stats.socket_drops += u64::from(count.wrapping_sub(entry.drops));
                entry.drops = count;
            }
            segment = said.segment.map_or(len, |segment| segment as usize);
        }
        let Some(from) = inbox.names[at].address() else {
            self.arena.put(index);
            return;
        };
        let truncated = message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        if segment < len && segment > 0 && !truncated {
            return self.deliver_burst(socket, from, index, (len, segment), batch);
        }
        let end = HEADROOM + len;
        if truncated || end > RECEIVE_END {
            self.stats.truncated += 1;
            self.arena.put(index);
            return;
        }
        self.observe(socket, 1, follows(batch, socket, &from, len));
        let slot = self.arena.packet(index, HEADROOM, end);
        batch.push(Event::Datagram { socket, from, slot });
    }

    /// Hands out the packets of a burst one by one.
    fn deliver_burst(
        &mut self,
        socket: SocketId,
        from: TransportAddress,
        index: Index,
        (len, segment): (usize, usize),
        batch: &mut Vec<Event<Packet>>,
    ) {
        let segments = len.div_ceil(segment);
        if segments > BURST_SEGMENTS_MAX {
            self.stats.truncated += segments as u64;
            self.arena.put(index);
            return;
        }
        self.stats.bursts_received += 1;
        self.stats.burst_packets_received += segments as u64;
        self.observe(socket, segments as u32, true);
        self.arena.split(index, segments);
        for at in 0..segments {
            let start = at * segment;
            let slot = self.arena.segment(index, at, HEADROOM + start, segment.min(len - start));
            batch.push(Event::Datagram { socket, from, slot });
        }
    }

    #[inline]
    fn observe(&mut self, socket: SocketId, segments: u32, follows: bool) {
        if !self.udp_gro {
            return;
        }
        if let Some(step) = self.sockets[socket.index as usize].bursts.observe(segments, follows) {
            self.step(socket, step);
        }
    }

    /// Changes how a socket receives, from its next receive on.
    #[cold]
    fn step(&mut self, socket: SocketId, step: Step) {
        let entry = &mut self.sockets[socket.index as usize];
        let Some(fd) = entry.fd.as_ref().map(|fd| fd.as_raw_fd()) else { return };
        match step {
            // Refused, it goes on in long slots, one packet in each, until that is seen not to pay.
            Step::Group => {
                let _ = socket::group(fd);
                entry.grouped = true;
            }
            Step::Ungroup if socket::ungroup(fd) => {
                entry.bursts.ungrouped();
                entry.grouped = false;
            }
            Step::Ungroup => {}
        }
    }

    #[cold]
    fn set_dont_fragment(&mut self, socket: SocketId, on: bool) {
        self.flush_socket(socket.index);
        let entry = &mut self.sockets[socket.index as usize];
        let Some(fd) = &entry.fd else { return };
        // Refused, the packet leaves as the last one did: that is what a hint may do.
        if socket::set_dont_fragment(fd.as_raw_fd(), entry.family, on).is_ok() {
            entry.unfragmented = on;
        }
    }
}

impl Io for Epoll {
    type Slot = Packet;

    #[inline]
    fn now(&self) -> Now {
        clock::now()
    }

    fn wait(&mut self, until: Mono, batch: &mut Vec<Event<Packet>>) -> Result<(), DriverError> {
        self.flush();
        self.inbox.attach(&mut self.arena);
        let count = self.poll(until)?;
        for at in 0..count {
            let data = self.ready[at].u64;
            if data == BELL {
                self.bell.drain();
                self.bell.heard();
                batch.push(Event::Woken);
            } else {
                self.receive(SocketId { index: (data >> 32) as u32, generation: data as u32 }, batch);
            }
        }
        Ok(())
    }

    #[inline]
    fn send(&mut self, socket: SocketId, to: TransportAddress, slot: Packet, options: SendOptions) {
        if self.target(socket).is_none() {
            self.stats.send_failed += 1;
            self.free(slot);
            return;
        }
        let len = slot.len();
        let unfragmented = self.sockets[socket.index as usize].unfragmented;
        if let Some(on) = socket::fragments(unfragmented, options, len) {
            self.set_dont_fragment(socket, on);
        }
        let at = self.outbox.queued.len() as u32;
        let mut name = Name::empty();
        let name_len = name.set(&to);
        let mut pieces = [NOTHING; PACKET_PIECES];
        let pieces_used = slot.pieces(&mut pieces) as u8;
        let slot = self.arena.reclaim(slot);
        let len = len as u32;
        self.outbox.queued.push(Queued { name, name_len, next: END, to, len, pieces, pieces_used, slot });
        let entry = &mut self.sockets[socket.index as usize];
        if entry.last == END {
            entry.first = at;
            self.outbox.sockets.push(socket.index);
        } else {
            self.outbox.queued[entry.last as usize].next = at;
        }
        entry.last = at;
    }

    fn blank(&mut self) -> Option<Packet> {
        self.arena.blank()
    }

    fn free(&mut self, slot: Packet) {
        let index = self.arena.reclaim(slot);
        self.arena.put(index);
    }

    fn open(&mut self, spec: &OpenSpec) -> Result<Opened, OpenError> {
        let index = self.free_index().ok_or(OpenError::NoSockets)?;
        self.open_at(index, spec).inspect_err(|_| self.free_sockets.push(index))
    }

    fn close(&mut self, socket: SocketId) {
        if self.target(socket).is_none() {
            return;
        }
        self.flush_socket(socket.index);
        let entry = &mut self.sockets[socket.index as usize];
        entry.fd = None;
        entry.generation = entry.generation.wrapping_add(1);
        self.free_sockets.push(socket.index);
    }

    fn waker(&self) -> Waker {
        self.bell.waker()
    }

    fn stats(&mut self) -> IoStats {
        self.stats.slots = u64::from(self.arena.slots());
        self.stats.slots_free = (self.arena.free_slots() + self.inbox.free_slots()) as u64;
        self.stats.long_slots = u64::from(self.arena.long_slots());
        self.stats.long_slots_free = (self.arena.free_long_slots() + self.grouped.free_slots()) as u64;
        self.stats.busy_nanos = clock::thread_nanos();
        self.stats
    }
}

impl Inbox {
    fn new(receives: usize, long: bool) -> Self {
        let mut inbox = Inbox {
            long,
            headers: headers(receives),
            vectors: vectors(receives),
            names: vec![Name::empty(); receives].into(),
            controls: vec![Control([0; BURST_CONTROL_BYTES]); receives].into(),
            slots: Vec::with_capacity(receives),
            holes: 0,
        };
        for at in 0..receives {
            let header = &mut inbox.headers[at].msg_hdr;
            header.msg_name = (&raw mut inbox.names[at]).cast();
            header.msg_iov = &raw mut inbox.vectors[at];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut inbox.controls[at]).cast();
        }
        inbox
    }

    #[inline]
    fn take(&self, arena: &mut Arena) -> Option<Index> {
        if self.long { arena.take_for_burst() } else { arena.take_for_receive() }
    }

    /// Gives every message a slot, as far as there are any.
    #[inline]
    fn attach(&mut self, arena: &mut Arena) {
        let holes = std::mem::take(&mut self.holes);
        for at in 0..holes {
            let Some(slot) = self.take(arena) else {
                self.close_holes(at..holes, arena);
                return;
            };
            self.place(at, slot, arena);
        }
        while self.slots.len() < self.headers.len()
            && let Some(slot) = self.take(arena)
        {
            self.slots.push(slot);
            self.place(self.slots.len() - 1, slot, arena);
        }
    }

    /// No slots are left for these holes: the slots behind them move up.
    #[cold]
    fn close_holes(&mut self, holes: std::ops::Range<usize>, arena: &Arena) {
        let first = holes.start;
        self.slots.drain(holes);
        for at in first..self.slots.len() {
            self.place(at, self.slots[at], arena);
        }
    }

    #[inline]
    fn place(&mut self, at: usize, slot: Index, arena: &Arena) {
        // SAFETY: the payload's place is within the slot.
        let payload = unsafe { arena.address(slot).as_ptr().add(HEADROOM) };
        let end = if self.long { BURST_RECEIVE_END } else { RECEIVE_END };
        self.slots[at] = slot;
        self.vectors[at] = libc::iovec { iov_base: payload.cast(), iov_len: end - HEADROOM };
        let header = &mut self.headers[at].msg_hdr;
        header.msg_namelen = size_of::<Name>() as u32;
        header.msg_controllen = BURST_CONTROL_BYTES as _;
    }

    /// Slots that nobody has received into.
    fn free_slots(&self) -> usize {
        self.slots.len() - self.holes
    }
}

impl Outbox {
    fn new(slots: usize) -> Self {
        Outbox {
            queued: Vec::with_capacity(slots),
            sockets: Vec::with_capacity(slots),
            headers: headers(SENDS),
            cuts: vec![Cut::new(); SENDS].into(),
            packets: Vec::with_capacity(SENDS),
            vectors: vectors(PIECES),
        }
    }

    /// Makes the headers of up to [`SENDS`] messages of a socket from `next` on; how many, and of how many
    /// packets. `next` moves behind them.
    fn gather(&mut self, socket: u32, cuts: bool, next: &mut u32) -> (usize, usize) {
        let socket = SocketId { index: socket, generation: 0 };
        let (mut pieces, mut packets) = (0, 0);
        self.packets.clear();
        while *next != END && self.packets.len() < SENDS && pieces + Run::ROOM <= PIECES {
            let first = &self.queued[*next as usize];
            let mut run = Run::new(socket, first.to, first.len as usize, pieces, cuts);
            let header = &mut self.headers[self.packets.len()].msg_hdr;
            header.msg_name = (&raw const first.name).cast_mut().cast();
            header.msg_namelen = first.name_len;
            while *next != END {
                let message = &self.queued[*next as usize];
                let (len, used) = (message.len as usize, message.pieces_used as usize);
                if !run.is_empty() && !run.takes(socket, &message.to, len) {
                    break;
                }
                self.vectors[pieces..pieces + used].copy_from_slice(&message.pieces[..used]);
                run.add(len, used);
                (pieces, packets, *next) = (pieces + used, packets + 1, message.next);
            }
            header.msg_iov = &raw mut self.vectors[run.first_piece];
            header.msg_iovlen = run.pieces as _;
            (header.msg_control, header.msg_controllen) = (std::ptr::null_mut(), 0);
            if run.packets > 1 {
                let cut = &mut self.cuts[self.packets.len()];
                cut.set(run.segment as u16);
                (header.msg_control, header.msg_controllen) = ((&raw mut *cut).cast(), Cut::BYTES as _);
            }
            self.packets.push(run.packets);
        }
        (self.packets.len(), packets)
    }
}

fn headers(count: usize) -> Box<[libc::mmsghdr]> {
    // SAFETY: all-zero bytes are a valid mmsghdr.
    (0..count).map(|_| unsafe { zeroed() }).collect()
}

fn vectors(count: usize) -> Box<[libc::iovec]> {
    vec![NOTHING; count].into()
}

fn watch(epoll: &OwnedFd, fd: RawFd, data: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: data };
    // SAFETY: the kernel reads one event.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) }).map(drop)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
