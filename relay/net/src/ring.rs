//! The io_uring driver.
//!
//! **One system call per tick**: `wait` submits what is queued, lets the kernel run its completions on
//! this thread, and waits for one. A socket has one multishot receive over the provided buffers; a send
//! is inline (MSG_DONTWAIT, no completion on success), so that its slot is free when the submitting
//! call returned.
//!
//! ```text
//! send ... send   wait: [submit, run completions, wait] -> recycle -> publish -> reap -> batch
//! ```
//!
//! The ring is sealed before its first use: it was made disabled, restricted to the operations below,
//! and enabled on its worker's thread, which thereby is the only one that can submit.

mod buffers;
mod guard;
mod setup;
mod twin;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::squeue::Flags;
use io_uring::types::{CancelBuilder, Fd, TimeoutFlags, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use sluice_base::address::Family;
use sluice_base::id::SocketId;
use sluice_base::io::{DriverError, Event, Io, IoStats, OpenError, OpenSpec, Opened, SendOptions, SocketRole, Waker};
use sluice_base::limits::BURST_SEGMENTS_MAX;
use sluice_base::pii::TransportAddress;
use sluice_base::time::{Mono, Now};

use crate::arena::{Arena, BURST_RECEIVE_END, HEADROOM, Index, PACKET_PIECES, Packet, RECEIVE_END, is_burst};
use crate::burst::{Bursts, Step, follows};
use crate::inet::{BURST_CONTROL_BYTES, CONTROL_BYTES, Cut, Name, control};
use crate::run::{Run, UNCUT, UNCUT_SENDS};
use crate::waker::Bell;
use crate::{clock, run, socket};

use buffers::Buffers;
use guard::Guard;
pub use setup::{FEATURES, Features, RingBuilder, RingOptions, probe};
use twin::Twin;

/// The header in front of every received message.
const HEADER_BYTES: usize = 16;
/// Room for a source address.
const NAME_BYTES: usize = 32;
const _: () = assert!(HEADER_BYTES + NAME_BYTES + CONTROL_BYTES == HEADROOM);
/// Where the payload of a long slot begins.
const BURST_HEADROOM: usize = HEADER_BYTES + NAME_BYTES + BURST_CONTROL_BYTES;
const _: () = assert!(BURST_HEADROOM + 65_535 <= BURST_RECEIVE_END);

/// How much later than asked a wait may end: a timer that stands is not moved for less, since moving
/// one costs more than a packet.
const TIMER_SLACK_NANOS: u64 = 10_000_000;

/// With fewer buffers with the kernel than this, sends are submitted, and their slots taken back,
/// before the wait.
const BUFFERS_LOW: u32 = 32;

/// Attempts at a submission that the kernel refuses for want of memory.
const ATTEMPTS: u32 = 100;

/// What a completion is about: the top byte of its user data. Below it 24 bits of index, 32 of generation.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Receive,
    Send,
    Bell,
    Timer,
    TimerMoved,
    Cancel,
    CancelAll,
    Guard,
}

/// Indices of sockets are below: they have 24 bits of the user data.
const INDEX_LIMIT: u32 = 1 << 24;

const fn user_data(kind: Kind, socket: SocketId) -> u64 {
    (kind as u64) << 56 | (socket.index as u64) << 32 | socket.generation as u64
}

const NO_SOCKET: SocketId = SocketId { index: 0, generation: 0 };

/// A driver over io_uring. Made by [`RingBuilder`]; stays on the thread that enabled it.
#[derive(Debug)]
pub struct Ring {
    // Dropped before the memory that the kernel writes to.
    ring: Handle,
    state: State,
}

/// The kernel's queues, which say nothing when printed.
struct Handle {
    uring: IoUring,
    /// The descriptor for io_uring_enter: the ring's own, or its number among the thread's registered ones.
    enter_fd: i32,
    enter_flags: u32,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IoUring")
    }
}

#[derive(Debug)]
struct State {
    features: Features,
    arena: Arena,
    /// For packets, and for bursts.
    single: Group,
    grouped: Group,
    sockets: Vec<Entry>,
    free_sockets: Vec<u32>,
    sockets_max: u32,
    /// Receives to arm at the next wait.
    arming: Vec<SocketId>,
    /// Closed, their receive perhaps still armed.
    closing: Vec<SocketId>,
    /// Receives to cancel (again).
    cancelling: Vec<SocketId>,
    /// Submissions pushed since the start; places `names` and `messages`.
    pushed: u32,
    /// Destinations of queued sends, which the kernel reads while it takes them.
    names: Box<[Name]>,
    /// For SENDMSG: of several pieces, or where SEND takes no address.
    messages: Box<[Message]>,
    /// The pieces that these messages are made of: the first `pieces_used` belong to queued sends and the run.
    pieces: Box<[libc::iovec]>,
    pieces_used: usize,
    /// Packets that leave as one send; not yet queued.
    run: Run,
    /// Slots of the run.
    running: Vec<Index>,
    /// Slots of queued sends.
    sending: Vec<Index>,
    bell: Bell,
    bell_armed: bool,
    /// When the one timer fires; NEVER when there is none.
    timer_at: Mono,
    timer: Box<Timespec>,
    /// Ends waits for more than one completion.
    guard: Guard,
    /// Sockets that receive into long slots.
    grouped_sockets: u32,
    /// The options of relay sockets, which their twins have too.
    relay_spec: Option<OpenSpec>,
    enabled: bool,
    failed: Option<DriverError>,
    stats: IoStats,
}

/// A socket of the table.
#[derive(Debug)]
struct Entry {
    fd: Option<OwnedFd>,
    generation: u32,
    /// The count of SO_RXQ_OVFL last seen.
    drops: u32,
    family: Family,
    open: bool,
    /// A multishot receive is with the kernel.
    armed: bool,
    /// It sends with fragments forbidden.
    unfragmented: bool,
    /// How many sends are to pass before one may carry a burst again.
    uncut: u32,
    /// Whether its packets come in bursts.
    bursts: Bursts,
    /// It receives into long slots, or will once its receive has ended.
    grouped: bool,
    /// The armed receive is of the other kind.
    switching: bool,
    /// Its connected twin, or whose it is.
    twin: Twin,
}

/// The receives that take from one group of provided buffers.
#[derive(Debug)]
struct Group {
    buffers: Buffers,
    /// What a multishot receive looks like.
    receive: Box<libc::msghdr>,
    /// Receives that found no buffer: armed as buffers come back.
    starved: VecDeque<SocketId>,
    /// All free slots are with the kernel, and it could do with more.
    short: bool,
}

#[derive(Debug)]
struct Message {
    header: libc::msghdr,
    cut: Cut,
}

impl Ring {
    /// Queues a submission, submitting what is queued first when there is no room. False when the kernel
    /// takes nothing any more; the next wait says so.
    #[inline]
    fn push(&mut self, entry: squeue::Entry) -> bool {
        // SAFETY: whoever makes an entry keeps what it points to until it is submitted: `names`, `messages`,
        // `receive` and `timer` are boxed, slots stay in `sending`.
        let pushed = unsafe { self.ring.uring.submission().push(&entry) }.is_ok() || self.push_after_submit(&entry);
        if pushed {
            self.state.pushed = self.state.pushed.wrapping_add(1);
        }
        pushed
    }

    #[cold]
    fn push_after_submit(&mut self, entry: &squeue::Entry) -> bool {
        self.submit_queued();
        // SAFETY: as in `push`.
        unsafe { self.ring.uring.submission().push(entry) }.is_ok()
    }

    /// The place in `names` of the next send; its last user is submitted.
    #[inline]
    fn place(&mut self) -> usize {
        if self.ring.uring.submission().is_full() {
            self.submit_queued();
        }
        self.state.pushed as usize & (self.state.names.len() - 1)
    }

    /// Submits what is queued, the run included, without waiting, and takes the slots back.
    #[cold]
    fn submit(&mut self) {
        self.end_run();
        self.submit_queued();
    }

    #[cold]
    fn submit_queued(&mut self) {
        for _ in 0..ATTEMPTS {
            if let Err(error) = self.enter(0, 0) {
                self.state.failed = Some(error);
                return;
            }
            if self.ring.uring.submission().is_empty() {
                break;
            }
            std::thread::yield_now();
        }
        self.recycle();
    }

    /// One io_uring_enter. May leave submissions behind when the kernel is short of memory.
    #[inline]
    fn enter(&mut self, want: u32, flags: u32) -> Result<(), DriverError> {
        let queued = self.ring.uring.submission().len() as u32;
        self.state.stats.enters += 1;
        // SAFETY: the descriptor is this ring's, and nothing is passed by pointer; what the submissions point
        // to is alive (see `push`).
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.ring.enter_fd,
                queued,
                want,
                flags | self.ring.enter_flags,
                std::ptr::null::<libc::c_void>(),
                0_usize,
            )
        };
        if result >= 0 { Ok(()) } else { self.enter_failed(errno()) }
    }

    #[cold]
    fn enter_failed(&mut self, errno: i32) -> Result<(), DriverError> {
        match errno {
            // Interrupted by a signal, or short of memory: the next call goes on.
            libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM => Ok(()),
            libc::EBADR => {
                self.state.stats.cq_overflows += 1;
                Ok(())
            }
            _ => Err(DriverError { what: "the kernel refused io_uring_enter on a working ring".into(), errno }),
        }
    }

    /// Takes back the slots of sends that were submitted, and offers free ones to the kernel.
    #[inline]
    fn recycle(&mut self) {
        if self.ring.uring.submission().is_empty() {
            let state = &mut self.state;
            for index in state.sending.drain(..) {
                state.arena.put(index);
            }
            if state.run.is_empty() {
                state.pieces_used = 0;
            }
        }
        self.state.refill();
    }

    /// Arms what is to be armed: the bell, receives, cancellations.
    #[inline]
    fn arm(&mut self) {
        if !self.state.bell_armed {
            self.arm_bell();
        }
        let state = &self.state;
        let starved = !state.single.starved.is_empty() || !state.grouped.starved.is_empty();
        if starved || !state.arming.is_empty() || !state.cancelling.is_empty() {
            self.arm_receives();
        }
    }

    fn arm_bell(&mut self) {
        let poll = opcode::PollAdd::new(Fd(self.state.bell.fd()), libc::POLLIN as u32).multi(true);
        self.state.bell_armed = self.push(poll.build().user_data(user_data(Kind::Bell, NO_SOCKET)));
    }

    fn arm_receives(&mut self) {
        while let Some(socket) = self.state.cancelling.pop() {
            let cancel = CancelBuilder::user_data(user_data(Kind::Receive, socket));
            let entry = opcode::AsyncCancel2::new(cancel).build().flags(Flags::SKIP_SUCCESS);
            self.push(entry.user_data(user_data(Kind::Cancel, socket)));
        }
        while let Some(socket) = self.state.arming.pop() {
            self.arm_receive(socket);
        }
        for grouped in [false, true] {
            // No more than there are buffers: each of the others would find none again.
            for _ in 0..self.state.group(grouped).buffers.provided() {
                let Some(socket) = self.state.group(grouped).starved.pop_front() else {
                    break;
                };
                self.arm_receive(socket);
            }
        }
    }

    fn arm_receive(&mut self, socket: SocketId) {
        let Some((fd, flags)) = self.state.target(socket) else {
            return;
        };
        let entry = &mut self.state.sockets[socket.index as usize];
        if entry.armed {
            return;
        }
        if std::mem::take(&mut entry.switching) && entry.grouped {
            entry.group();
        }
        let group = if entry.grouped { &self.state.grouped } else { &self.state.single };
        let receive = opcode::RecvMsgMulti::new(fd, &raw const *group.receive, group.buffers.group()).build();
        let armed = self.push(receive.flags(flags).user_data(user_data(Kind::Receive, socket)));
        self.state.sockets[socket.index as usize].armed = armed;
    }

    /// Queues the run as one send.
    #[inline]
    fn end_run(&mut self) {
        if self.state.run.is_empty() {
            return;
        }
        let place = self.place();
        let state = &mut self.state;
        let run = state.run;
        let packets = run.packets;
        let about = SocketId { index: run.via.index, generation: packets };
        let pushed = match state.target(run.via) {
            Some((fd, flags)) => {
                let entry = state.send_entry(&run, place, fd).flags(flags | Flags::SKIP_SUCCESS);
                self.push(entry.user_data(user_data(Kind::Send, about)))
            }
            None => false,
        };
        // Only now: until it is queued, its pieces are not to be written over.
        self.state.run.packets = 0;
        let State { running, sending, arena, stats, .. } = &mut self.state;
        if pushed {
            sending.append(running);
            if packets > 1 {
                stats.bursts_sent += 1;
                stats.burst_packets_sent += u64::from(packets);
            }
        } else {
            stats.send_failed += u64::from(packets);
            running.drain(..).for_each(|index| arena.put(index));
        }
    }

    /// Sees that the wait ends in time; how many completions to wait for.
    #[inline]
    fn arm_timer(&mut self, until: Mono) -> u32 {
        if until.nanos().saturating_add(TIMER_SLACK_NANOS) >= self.state.timer_at.nanos() {
            return 1;
        }
        self.move_timer(until)
    }

    #[cold]
    fn move_timer(&mut self, until: Mono) -> u32 {
        if until <= clock::monotonic() {
            return 0;
        }
        *self.state.timer =
            Timespec::new().sec(until.nanos() / 1_000_000_000).nsec((until.nanos() % 1_000_000_000) as u32);
        let time = &raw const *self.state.timer;
        let entry = if self.state.timer_at == Mono::NEVER {
            opcode::Timeout::new(time).flags(TimeoutFlags::ABS).build().user_data(user_data(Kind::Timer, NO_SOCKET))
        } else {
            opcode::TimeoutUpdate::new(user_data(Kind::Timer, NO_SOCKET), time)
                .flags(TimeoutFlags::ABS)
                .build()
                .flags(Flags::SKIP_SUCCESS)
                .user_data(user_data(Kind::TimerMoved, NO_SOCKET))
        };
        if self.push(entry) {
            self.state.timer_at = until;
        }
        1
    }

    #[inline]
    fn reap(&mut self, batch: &mut Vec<Event<Packet>>) {
        if self.ring.uring.submission().cq_overflow() {
            self.state.stats.cq_overflows += 1;
        }
        let mut completions = 0;
        for completion in self.ring.uring.completion() {
            completions += 1;
            self.state.completed(&completion, batch);
        }
        self.state.stats.completions += completions;
        self.state.single.buffers.adapt();
        if self.state.grouped_sockets > 0 {
            self.state.grouped.buffers.adapt();
        }
    }

    /// Removes closed sockets whose receive has ended; all that was queued on them is submitted.
    fn retire_closed(&mut self) {
        if !self.ring.uring.submission().is_empty() {
            return;
        }
        let Ring { ring, state } = self;
        let State { closing, sockets, free_sockets, features, .. } = state;
        closing.retain(|socket| {
            let entry = &mut sockets[socket.index as usize];
            if entry.armed {
                return true;
            }
            if features.direct_descriptors {
                // It cannot fail: the place is in the table. Without it the port would stay bound.
                let _ = ring.uring.submitter().register_files_update(socket.index, &[-1]);
            }
            entry.fd = None;
            entry.generation = entry.generation.wrapping_add(1);
            free_sockets.push(socket.index);
            false
        });
    }

    /// Changes DF between the sends that are queued and those that follow.
    #[cold]
    fn set_dont_fragment(&mut self, socket: SocketId, on: bool) {
        self.submit();
        let entry = &mut self.state.sockets[socket.index as usize];
        let Some(fd) = &entry.fd else { return };
        // Refused, the packet leaves as the last one did: that is what a hint may do.
        if socket::set_dont_fragment(fd.as_raw_fd(), entry.family, on).is_ok() {
            entry.unfragmented = on;
        }
        if let Twin::Has(twin, _) = entry.twin {
            self.set_dont_fragment(twin, on);
        }
    }

    /// Ends every operation, so that the kernel writes to no buffer any more. False when it does not answer.
    fn quiesce(&mut self) -> bool {
        self.submit();
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::any().all()).build();
        self.push(cancel.user_data(user_data(Kind::CancelAll, NO_SOCKET)));
        let mut batch = Vec::new();
        for _ in 0..ATTEMPTS {
            if self.enter(0, setup::ENTER_GETEVENTS).is_err() {
                return false;
            }
            self.reap(&mut batch);
            for event in batch.drain(..) {
                if let Event::Datagram { slot, .. } = event {
                    self.free(slot);
                }
            }
            if self.state.sockets.iter().all(|entry| !entry.armed) {
                return true;
            }
        }
        false
    }
}

impl Io for Ring {
    type Slot = Packet;

    #[inline]
    fn now(&self) -> Now {
        clock::now()
    }

    fn wait(&mut self, until: Mono, batch: &mut Vec<Event<Packet>>) -> Result<(), DriverError> {
        if let Some(error) = self.state.failed.clone() {
            return Err(error);
        }
        self.end_run();
        self.state.refill();
        let low = self.state.single.buffers.provided() < BUFFERS_LOW
            || self.state.grouped_sockets > 0 && self.state.grouped.buffers.wants();
        if low && !self.state.sending.is_empty() {
            self.submit_queued();
        }
        for group in [&mut self.state.single, &mut self.state.grouped] {
            group.short = group.buffers.wants();
        }
        self.arm();
        let mut want = self.arm_timer(until);
        if self.state.guard.is_on() && want > 0 {
            want = self.guarded();
        }
        self.enter(want, setup::ENTER_GETEVENTS)?;
        self.recycle();
        self.reap(batch);
        self.state.guard.saw(!batch.is_empty());
        if !self.state.closing.is_empty() {
            self.retire_closed();
        }
        Ok(())
    }

    #[inline]
    fn send(&mut self, socket: SocketId, to: TransportAddress, slot: Packet, options: SendOptions) {
        let len = slot.len();
        let Some(unfragmented) = self.state.open_entry(socket).map(|entry| entry.unfragmented) else {
            self.state.stats.send_failed += 1;
            self.free(slot);
            return;
        };
        if let Some(on) = socket::fragments(unfragmented, options, len) {
            self.set_dont_fragment(socket, on);
        }
        if !self.state.run.takes(socket, &to, len) {
            self.end_run();
            if self.state.pieces_used + Run::ROOM > self.state.pieces.len() {
                self.submit_queued();
            }
            let (via, connected) = self.via(socket, &to);
            let state = &mut self.state;
            let cuts = run::may_cut(&mut state.sockets[via.index as usize].uncut);
            state.run = Run::new(socket, to, len, state.pieces_used, cuts);
            (state.run.via, state.run.connected) = (via, connected);
        }
        let state = &mut self.state;
        let used = state.pieces_used;
        let Some(room) = state.pieces.get_mut(used..).and_then(|room| room.first_chunk_mut::<PACKET_PIECES>()) else {
            // It cannot be: a run has room for its longest.
            state.stats.send_failed += 1;
            self.free(slot);
            return;
        };
        let pieces = slot.pieces(room);
        state.pieces_used += pieces;
        state.run.add(len, pieces);
        let index = state.arena.reclaim(slot);
        state.running.push(index);
    }

    fn blank(&mut self) -> Option<Packet> {
        self.state.arena.blank()
    }

    fn free(&mut self, slot: Packet) {
        let index = self.state.arena.reclaim(slot);
        self.state.arena.put(index);
    }

    fn open(&mut self, spec: &OpenSpec) -> Result<Opened, OpenError> {
        let index = self.state.free_index().ok_or(OpenError::NoSockets)?;
        let (fd, local) = match self.open_at(index, spec) {
            Ok(opened) => opened,
            Err(error) => {
                self.state.free_sockets.push(index);
                return Err(error);
            }
        };
        let uncut = if self.state.features.udp_segment { 0 } else { UNCUT };
        let entry = &mut self.state.sockets[index as usize];
        entry.begin(fd, Family::of(local.ip()), uncut);
        if spec.role == SocketRole::Relay && self.state.features.connected_sockets {
            entry.twin = Twin::none();
            self.state.relay_spec = Some(*spec);
        }
        let socket = SocketId { index, generation: entry.generation };
        self.state.arming.push(socket);
        Ok(Opened { socket, local })
    }

    fn close(&mut self, socket: SocketId) {
        self.end_run();
        if let Some(Twin::Has(twin, _)) = self.state.open_entry(socket).map(|entry| entry.twin) {
            self.state.close(twin);
        }
        self.state.close(socket);
    }

    fn waker(&self) -> Waker {
        self.state.bell.waker()
    }

    fn stats(&mut self) -> IoStats {
        let State { arena, single, grouped, stats, .. } = &mut self.state;
        stats.slots = u64::from(arena.slots());
        stats.slots_free = arena.free_slots() as u64 + u64::from(single.buffers.provided());
        stats.long_slots = u64::from(arena.long_slots());
        stats.long_slots_free = arena.free_long_slots() as u64 + u64::from(grouped.buffers.provided());
        stats.busy_nanos = clock::thread_nanos();
        *stats
    }
}

impl Ring {
    fn open_at(&mut self, index: u32, spec: &OpenSpec) -> Result<(OwnedFd, std::net::SocketAddr), OpenError> {
        let (fd, local) = socket::open(spec, false)?;
        if self.state.features.direct_descriptors {
            let submitter = self.ring.uring.submitter();
            let updated = submitter.register_files_update(index, &[fd.as_raw_fd()]);
            updated.map_err(|error| socket::open_error(&error))?;
        }
        Ok((fd, local))
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.state.enabled && !self.quiesce() {
            self.state.arena.leak();
            self.state.single.buffers.leak();
            self.state.grouped.buffers.leak();
        }
        if self.state.features.direct_descriptors {
            // The kernel takes a ring apart some time after its process has ended, and until then a port
            // in its table would be in use: whoever restarts the relay could not bind it.
            let none = vec![-1; self.state.sockets.len()];
            let _ = self.ring.uring.submitter().register_files_update(0, &none);
        }
        setup::unregister_descriptor(&self.ring);
    }
}

impl State {
    /// A place in the table of sockets.
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
            family: Family::V4,
            open: false,
            armed: false,
            unfragmented: false,
            uncut: UNCUT,
            bursts: Bursts::new(),
            grouped: false,
            switching: false,
            twin: Twin::Never,
        });
        Some(index)
    }

    #[inline]
    fn open_entry(&mut self, socket: SocketId) -> Option<&mut Entry> {
        let entry = self.sockets.get_mut(socket.index as usize)?;
        (entry.open && entry.generation == socket.generation).then_some(entry)
    }

    fn close(&mut self, socket: SocketId) {
        let Some(entry) = self.open_entry(socket) else {
            return;
        };
        entry.open = false;
        let (armed, grouped) = (entry.armed, entry.grouped);
        if armed {
            self.cancelling.push(socket);
        }
        if grouped {
            self.grouped_sockets -= 1;
        }
        self.closing.push(socket);
    }

    /// How a submission names an open socket.
    #[inline]
    fn target(&self, socket: SocketId) -> Option<(Fd, Flags)> {
        let entry = self.sockets.get(socket.index as usize)?;
        if !entry.open || entry.generation != socket.generation {
            return None;
        }
        if self.features.direct_descriptors {
            return Some((Fd(socket.index as i32), Flags::FIXED_FILE));
        }
        Some((Fd(entry.fd.as_ref()?.as_raw_fd()), Flags::empty()))
    }

    #[inline]
    fn group(&mut self, grouped: bool) -> &mut Group {
        if grouped { &mut self.grouped } else { &mut self.single }
    }

    /// Offers free slots to the kernel.
    #[inline]
    fn refill(&mut self) {
        let buffers = &mut self.single.buffers;
        while buffers.wants() {
            let Some(index) = self.arena.take_for_receive() else {
                break;
            };
            buffers.provide(index, self.arena.address(index), RECEIVE_END as u32);
        }
        buffers.publish();
        if self.grouped_sockets > 0 {
            self.refill_grouped();
        }
    }

    fn refill_grouped(&mut self) {
        let buffers = &mut self.grouped.buffers;
        while buffers.wants() {
            let Some(index) = self.arena.take_for_burst() else {
                break;
            };
            buffers.provide(index, self.arena.address(index), BURST_RECEIVE_END as u32);
        }
        buffers.publish();
    }

    /// The submission that sends a run.
    #[inline]
    fn send_entry(&mut self, run: &Run, place: usize, fd: Fd) -> squeue::Entry {
        let pieces = &mut self.pieces[run.first_piece..run.first_piece + run.pieces];
        let name = &mut self.names[place];
        let (name, name_len) = match run.connected {
            true => (std::ptr::null_mut(), 0),
            false => (&raw mut *name, name.set(&run.to)),
        };
        if let [piece] = pieces
            && (run.connected || self.features.op_send_addr)
        {
            return opcode::Send::new(fd, piece.iov_base.cast(), piece.iov_len as u32)
                .flags(libc::MSG_DONTWAIT)
                .dest_addr(name.cast())
                .dest_addr_len(name_len)
                .build();
        }
        let message = &mut self.messages[place];
        message.header.msg_name = name.cast();
        message.header.msg_namelen = name_len;
        message.header.msg_iov = pieces.as_mut_ptr();
        message.header.msg_iovlen = pieces.len() as _;
        (message.header.msg_control, message.header.msg_controllen) = (std::ptr::null_mut(), 0);
        if run.packets > 1 {
            message.cut.set(run.segment as u16);
            message.header.msg_control = (&raw mut message.cut).cast();
            message.header.msg_controllen = Cut::BYTES as _;
        }
        opcode::SendMsg::new(fd, &raw const message.header).flags(libc::MSG_DONTWAIT as u32).build()
    }

    #[inline]
    fn completed(&mut self, completion: &cqueue::Entry, batch: &mut Vec<Event<Packet>>) {
        let data = completion.user_data();
        let socket = SocketId { index: (data >> 32) as u32 & (INDEX_LIMIT - 1), generation: data as u32 };
        match (data >> 56) as u8 {
            kind if kind == Kind::Receive as u8 => self.received(socket, completion, batch),
            kind if kind == Kind::Send as u8 => self.send_refused(socket, -completion.result()),
            kind if kind == Kind::Bell as u8 => self.rung(completion, batch),
            kind if kind == Kind::Timer as u8 => self.timer_at = Mono::NEVER,
            kind if kind == Kind::Guard as u8 => self.guard.fired(cqueue::more(completion.flags())),
            kind if kind == Kind::Cancel as u8 => self.cancel_missed(socket),
            // A timer that could not be moved has fired, and says so itself.
            _ => {}
        }
    }

    #[inline]
    fn received(&mut self, socket: SocketId, completion: &cqueue::Entry, batch: &mut Vec<Event<Packet>>) {
        let result = completion.result();
        let entry = &self.sockets[socket.index as usize];
        let open = entry.open && entry.generation == socket.generation;
        if let Some(index) = cqueue::buffer_select(completion.flags()) {
            let is_burst = is_burst(index);
            self.group(is_burst).buffers.taken();
            let head = if is_burst { BURST_HEADROOM } else { HEADROOM };
            if open && result >= head as i32 {
                self.deliver(socket, index, head, batch);
            } else {
                self.arena.put(index);
            }
        }
        if !cqueue::more(completion.flags()) {
            self.receive_ended(socket, result);
        }
    }

    /// Hands out what came in a slot, whose payload begins at `head`.
    #[inline]
    fn deliver(&mut self, socket: SocketId, index: Index, head: usize, batch: &mut Vec<Event<Packet>>) {
        let base = self.arena.address(index).as_ptr();
        // SAFETY: the kernel has written the header, the name and the control room of this slot and handed it
        // back; they are within the slot, and a slot is aligned to more than their types.
        let ([_, control_len, payload_len, flags], name) =
            unsafe { (*base.cast::<[u32; 4]>(), &*base.add(HEADER_BYTES).cast::<Name>()) };
        let len = payload_len as usize;
        let mut segment = len;
        if control_len > 0 {
            let room = head - HEADER_BYTES - NAME_BYTES;
            // SAFETY: as above.
            let data = unsafe { std::slice::from_raw_parts(base.add(HEADER_BYTES + NAME_BYTES), room) };
            let said = control(&data[..room.min(control_len as usize)]);
            if let Some(count) = said.dropped {
                self.count_drops(socket, count);
            }
            segment = said.segment.map_or(len, |segment| segment as usize);
        }
        let Some(from) = name.address() else {
            self.arena.put(index);
            return;
        };
        let local = self.sockets[socket.index as usize].twin.original(socket);
        if segment < len && segment > 0 {
            return self.deliver_burst((socket, local), from, index, (head, len, segment), batch);
        }
        if flags & libc::MSG_TRUNC as u32 != 0 || head + len > RECEIVE_END {
            self.stats.truncated += 1;
            self.arena.put(index);
            return;
        }
        self.observe(socket, 1, follows(batch, local, &from, len));
        let slot = self.arena.packet(index, head, head + len);
        batch.push(Event::Datagram { socket: local, from, slot });
    }

    /// Hands out the packets of a burst one by one.
    fn deliver_burst(
        &mut self,
        (socket, local): (SocketId, SocketId),
        from: TransportAddress,
        index: Index,
        (head, len, segment): (usize, usize, usize),
        batch: &mut Vec<Event<Packet>>,
    ) {
        let segments = len.div_ceil(segment);
        if segments > BURST_SEGMENTS_MAX || head + len > BURST_RECEIVE_END || !is_burst(index) {
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
            let slot = self.arena.segment(index, at, head + start, segment.min(len - start));
            batch.push(Event::Datagram { socket: local, from, slot });
        }
    }

    #[inline]
    fn observe(&mut self, socket: SocketId, segments: u32, follows: bool) {
        let entry = &mut self.sockets[socket.index as usize];
        if !self.features.udp_gro || entry.switching {
            return;
        }
        if let Some(step) = entry.bursts.observe(segments, follows) {
            self.step(socket, step);
        }
    }

    /// Changes how a socket receives: UDP_GRO is on only while its receive is into long slots.
    #[cold]
    fn step(&mut self, socket: SocketId, step: Step) {
        let entry = &mut self.sockets[socket.index as usize];
        match step {
            Step::Group => self.grouped_sockets += 1,
            Step::Ungroup if entry.fd.as_ref().is_some_and(|fd| socket::ungroup(fd.as_raw_fd())) => {
                entry.bursts.ungrouped();
                self.grouped_sockets -= 1;
            }
            Step::Ungroup => return,
        }
        entry.grouped = step == Step::Group;
        entry.switching = true;
        self.cancelling.push(socket);
    }

    #[cold]
    fn count_drops(&mut self, socket: SocketId, count: u32) {
        let entry = &mut self.sockets[socket.index as usize];
        self.stats.socket_drops += u64::from(count.wrapping_sub(entry.drops));
        entry.drops = count;
    }

    #[cold]
    fn receive_ended(&mut self, socket: SocketId, result: i32) {
        let entry = &mut self.sockets[socket.index as usize];
        if entry.generation != socket.generation {
            return;
        }
        entry.armed = false;
        let (open, grouped) = (entry.open, entry.grouped != entry.switching);
        let group = self.group(grouped);
        if result == -libc::ENOBUFS && group.short {
            self.stats.no_slots += 1;
        } else if result == -libc::ENOBUFS {
            group.buffers.ran_out();
        }
        if !open {
            return;
        }
        self.stats.rearms += 1;
        if twin::is_refusal(-result) {
            self.separate(socket.index);
        }
        if result == -libc::ENOBUFS {
            self.group(grouped).starved.push_back(socket);
        } else {
            self.arming.push(socket);
        }
    }

    /// A send was refused: `about` says by which socket, and of how many packets.
    #[cold]
    fn send_refused(&mut self, about: SocketId, errno: i32) {
        let packets = u64::from(about.generation);
        match errno {
            libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => self.stats.send_full += packets,
            _ => self.stats.send_failed += packets,
        }
        if packets > 1
            && run::is_refusal_of_bursts(errno)
            && let Some(entry) = self.sockets.get_mut(about.index as usize)
        {
            entry.uncut = UNCUT_SENDS;
        }
        if twin::is_refusal(errno) {
            self.separate(about.index);
        }
    }

    #[cold]
    fn rung(&mut self, completion: &cqueue::Entry, batch: &mut Vec<Event<Packet>>) {
        if !cqueue::more(completion.flags()) {
            self.bell_armed = false;
        }
        if completion.result() >= 0 {
            self.bell.heard();
            batch.push(Event::Woken);
        }
    }

    /// The receive was between two looks of the kernel: once more, while it lives.
    #[cold]
    fn cancel_missed(&mut self, socket: SocketId) {
        let entry = &self.sockets[socket.index as usize];
        if entry.armed && (!entry.open || entry.switching) && entry.generation == socket.generation {
            self.cancelling.push(socket);
        }
    }
}

impl Entry {
    /// The place is a newly opened socket's.
    fn begin(&mut self, fd: OwnedFd, family: Family, uncut: u32) {
        self.fd = Some(fd);
        self.family = family;
        self.open = true;
        self.armed = false;
        self.drops = 0;
        self.unfragmented = socket::starts_unfragmented(family);
        self.uncut = uncut;
        self.bursts = Bursts::new();
        (self.grouped, self.switching) = (false, false);
        self.twin = Twin::Never;
    }

    /// Switches UDP_GRO on; its receive goes into long slots from now on.
    fn group(&mut self) {
        if let Some(fd) = &self.fd {
            // Refused, it goes on as before: in long slots, one packet in each, until that is seen not to pay.
            let _ = socket::group(fd.as_raw_fd());
        }
    }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ring() -> Ring {
        let features = probe(&[]).unwrap();
        RingBuilder::new(&RingOptions { sockets_max: 4, slots: 64, wait_budget: Duration::ZERO }, &features)
            .unwrap()
            .enable()
            .unwrap()
    }

    #[test]
    fn a_sealed_ring_opens_nothing() {
        let path = c"/etc/hostname";
        let open = opcode::OpenAt::new(Fd(libc::AT_FDCWD), path.as_ptr()).build();
        let socket = opcode::Socket::new(libc::AF_INET, libc::SOCK_DGRAM, 0).build();
        let nop = opcode::Nop::new().build();
        let plain = IoUring::new(4).unwrap();
        let mut ring = ring();
        for entry in [open, socket, nop] {
            // SAFETY: the path is static.
            unsafe { ring.ring.uring.submission().push(&entry.clone().user_data(7)) }.unwrap();
            ring.enter(1, setup::ENTER_GETEVENTS).unwrap();
            let answers: Vec<_> = ring.ring.uring.completion().map(|it| (it.user_data(), it.result())).collect();
            assert_eq!(answers, [(7, -libc::EACCES)]);
        }
        // The same on a ring that is not sealed: it is the seal that answers.
        let mut plain = plain;
        let nop = opcode::Nop::new().build();
        // SAFETY: it points to nothing.
        unsafe { plain.submission().push(&nop) }.unwrap();
        plain.submit_and_wait(1).unwrap();
        assert_eq!(plain.completion().next().unwrap().result(), 0);
        // Nor is the seal taken off.
        assert!(ring.ring.uring.submitter().register_restrictions(&mut []).is_err());
    }

    #[test]
    fn a_wait_for_packets_is_none_for_a_disk() {
        let able = IoUring::new(4).unwrap().params().is_feature_no_iowait();
        let flags = |disable: &[String]| {
            let options = RingOptions { sockets_max: 4, slots: 64, wait_budget: Duration::ZERO };
            RingBuilder::new(&options, &probe(disable).unwrap()).unwrap().enable().unwrap().ring.enter_flags
        };
        assert_eq!(flags(&[]) & setup::ENTER_NO_IOWAIT != 0, able);
        assert_eq!(flags(&["no_iowait".to_owned()]) & setup::ENTER_NO_IOWAIT, 0);
    }

    #[test]
    fn a_ring_that_is_never_enabled_leaves_nothing_behind() {
        let features = probe(&[]).unwrap();
        let made = RingBuilder::new(&RingOptions { sockets_max: 4, slots: 64, wait_budget: Duration::ZERO }, &features)
            .unwrap();
        std::thread::spawn(move || drop(made)).join().unwrap();
    }
}
