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
mod setup;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::squeue::Flags;
use io_uring::types::{CancelBuilder, Fd, TimeoutFlags, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use sluice_base::address::Family;
use sluice_base::id::SocketId;
use sluice_base::io::{DriverError, Event, Io, IoStats, OpenError, OpenSpec, Opened, SendOptions, Waker};
use sluice_base::pii::TransportAddress;
use sluice_base::time::{Mono, Now};

use crate::arena::{Arena, HEADROOM, Index, Packet, RECEIVE_END};
use crate::inet::{CONTROL_BYTES, Name, overflow_count};
use crate::waker::Bell;
use crate::{clock, socket};

use buffers::{BUFFER_GROUP, Buffers};
pub use setup::{FEATURES, Features, RingBuilder, RingOptions, probe};

/// The header in front of every received message.
const HEADER_BYTES: usize = 16;
/// Room for a source address.
const NAME_BYTES: usize = 32;
const _: () = assert!(HEADER_BYTES + NAME_BYTES + CONTROL_BYTES == HEADROOM);

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
    buffers: Buffers,
    sockets: Vec<Entry>,
    free_sockets: Vec<u32>,
    sockets_max: u32,
    /// Receives to arm at the next wait.
    arming: Vec<SocketId>,
    /// Receives that found no buffer: armed as buffers come back.
    starved: VecDeque<SocketId>,
    /// Closed, their receive perhaps still armed.
    closing: Vec<SocketId>,
    /// Receives to cancel (again).
    cancelling: Vec<SocketId>,
    /// Submissions pushed since the start; places `names` and `messages`.
    pushed: u32,
    /// Destinations of queued sends, which the kernel reads while it takes them.
    names: Box<[Name]>,
    /// For SENDMSG, where SEND takes no address.
    messages: Box<[Message]>,
    /// Slots of queued sends.
    sending: Vec<Index>,
    /// What a multishot receive looks like.
    receive: Box<libc::msghdr>,
    /// All free slots are with the kernel, and it could do with more.
    short: bool,
    bell: Bell,
    bell_armed: bool,
    /// When the one timer fires; NEVER when there is none.
    timer_at: Mono,
    timer: Box<Timespec>,
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
}

#[derive(Debug)]
struct Message {
    header: libc::msghdr,
    vector: libc::iovec,
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
        self.submit();
        // SAFETY: as in `push`.
        unsafe { self.ring.uring.submission().push(entry) }.is_ok()
    }

    /// The place in `names` of the next send; its last user is submitted.
    #[inline]
    fn place(&mut self) -> usize {
        if self.ring.uring.submission().is_full() {
            self.submit();
        }
        self.state.pushed as usize & (self.state.names.len() - 1)
    }

    /// Submits what is queued without waiting, and takes the slots back.
    #[cold]
    fn submit(&mut self) {
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
        }
        self.state.refill();
    }

    /// Arms what is to be armed: the bell, receives, cancellations.
    #[inline]
    fn arm(&mut self) {
        if !self.state.bell_armed {
            self.arm_bell();
        }
        if !self.state.arming.is_empty() || !self.state.starved.is_empty() || !self.state.cancelling.is_empty() {
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
        // No more than there are buffers: each of the others would find none again.
        for _ in 0..self.state.buffers.provided() {
            let Some(socket) = self.state.starved.pop_front() else {
                break;
            };
            self.arm_receive(socket);
        }
    }

    fn arm_receive(&mut self, socket: SocketId) {
        let Some((fd, flags)) = self.state.target(socket) else {
            return;
        };
        let receive = opcode::RecvMsgMulti::new(fd, &raw const *self.state.receive, BUFFER_GROUP).build();
        let armed = self.push(receive.flags(flags).user_data(user_data(Kind::Receive, socket)));
        self.state.sockets[socket.index as usize].armed = armed;
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
        self.state.buffers.adapt();
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
        self.state.refill();
        if self.state.buffers.provided() < BUFFERS_LOW && !self.state.sending.is_empty() {
            self.submit();
        }
        self.state.short = self.state.buffers.wants();
        self.arm();
        let want = self.arm_timer(until);
        self.enter(want, setup::ENTER_GETEVENTS)?;
        self.recycle();
        self.reap(batch);
        if !self.state.closing.is_empty() {
            self.retire_closed();
        }
        Ok(())
    }

    #[inline]
    fn send(&mut self, socket: SocketId, to: TransportAddress, slot: Packet, options: SendOptions) {
        let (bytes, len) = slot.raw();
        let index = self.state.arena.reclaim(slot);
        let Some((fd, flags)) = self.state.target(socket) else {
            self.state.stats.send_failed += 1;
            self.state.arena.put(index);
            return;
        };
        let unfragmented = self.state.sockets[socket.index as usize].unfragmented;
        if let Some(on) = socket::fragments(unfragmented, options, len as usize) {
            self.set_dont_fragment(socket, on);
        }
        let place = self.place();
        let state = &mut self.state;
        let name = &mut state.names[place];
        let name_len = name.set(&to);
        let entry = if state.features.op_send_addr {
            opcode::Send::new(fd, bytes, len)
                .flags(libc::MSG_DONTWAIT)
                .dest_addr((&raw const *name).cast())
                .dest_addr_len(name_len)
                .build()
        } else {
            let message = &mut state.messages[place];
            message.vector = libc::iovec { iov_base: bytes.cast(), iov_len: len as usize };
            message.header.msg_name = (&raw mut *name).cast();
            message.header.msg_namelen = name_len;
            message.header.msg_iov = &raw mut message.vector;
            message.header.msg_iovlen = 1;
            opcode::SendMsg::new(fd, &raw const message.header).flags(libc::MSG_DONTWAIT as u32).build()
        };
        let entry = entry.flags(flags | Flags::SKIP_SUCCESS).user_data(user_data(Kind::Send, NO_SOCKET));
        if self.push(entry) {
            self.state.sending.push(index);
        } else {
            self.state.stats.send_failed += 1;
            self.state.arena.put(index);
        }
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
        let entry = &mut self.state.sockets[index as usize];
        entry.fd = Some(fd);
        entry.family = Family::of(local.ip());
        entry.open = true;
        entry.armed = false;
        entry.drops = 0;
        entry.unfragmented = socket::starts_unfragmented(entry.family);
        let socket = SocketId { index, generation: entry.generation };
        self.state.arming.push(socket);
        Ok(Opened { socket, local })
    }

    fn close(&mut self, socket: SocketId) {
        let Some(entry) = self.state.open_entry(socket) else {
            return;
        };
        entry.open = false;
        if entry.armed {
            self.state.cancelling.push(socket);
        }
        self.state.closing.push(socket);
    }

    fn waker(&self) -> Waker {
        self.state.bell.waker()
    }

    fn stats(&mut self) -> IoStats {
        let State { arena, buffers, stats, .. } = &mut self.state;
        stats.slots = u64::from(arena.slots());
        stats.slots_free = arena.free_slots() as u64 + u64::from(buffers.provided());
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
            self.state.buffers.leak();
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
        });
        Some(index)
    }

    #[inline]
    fn open_entry(&mut self, socket: SocketId) -> Option<&mut Entry> {
        let entry = self.sockets.get_mut(socket.index as usize)?;
        (entry.open && entry.generation == socket.generation).then_some(entry)
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

    /// Offers free slots to the kernel.
    #[inline]
    fn refill(&mut self) {
        while self.buffers.wants() {
            let Some(index) = self.arena.take_for_receive() else {
                break;
            };
            self.buffers.provide(index, self.arena.address(index), RECEIVE_END as u32);
        }
        self.buffers.publish();
    }

    #[inline]
    fn completed(&mut self, completion: &cqueue::Entry, batch: &mut Vec<Event<Packet>>) {
        let data = completion.user_data();
        let socket = SocketId { index: (data >> 32) as u32 & (INDEX_LIMIT - 1), generation: data as u32 };
        match (data >> 56) as u8 {
            kind if kind == Kind::Receive as u8 => self.received(socket, completion, batch),
            kind if kind == Kind::Send as u8 => self.send_refused(-completion.result()),
            kind if kind == Kind::Bell as u8 => self.rung(completion, batch),
            kind if kind == Kind::Timer as u8 => self.timer_at = Mono::NEVER,
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
            self.buffers.taken();
            if open && result >= HEADROOM as i32 {
                self.deliver(socket, index, batch);
            } else {
                self.arena.put(index);
            }
        }
        if !cqueue::more(completion.flags()) {
            self.receive_ended(socket, result);
        }
    }

    #[inline]
    fn deliver(&mut self, socket: SocketId, index: Index, batch: &mut Vec<Event<Packet>>) {
        let base = self.arena.address(index).as_ptr();
        // SAFETY: the kernel has written the header, the name and the control room of this slot and handed it
        // back; they are within the slot, and a slot is aligned to more than their types.
        let ([_, control_len, payload_len, flags], name) =
            unsafe { (*base.cast::<[u32; 4]>(), &*base.add(HEADER_BYTES).cast::<Name>()) };
        if control_len > 0 {
            // SAFETY: as above.
            let control = unsafe { &*base.add(HEADER_BYTES + NAME_BYTES).cast::<[u8; CONTROL_BYTES]>() };
            self.count_drops(socket, control);
        }
        let end = HEADROOM + payload_len as usize;
        if flags & libc::MSG_TRUNC as u32 != 0 || end > RECEIVE_END {
            self.stats.truncated += 1;
            self.arena.put(index);
            return;
        }
        match name.address() {
            Some(from) => {
                let slot = self.arena.packet(index, HEADROOM, end);
                batch.push(Event::Datagram { socket, from, slot });
            }
            None => self.arena.put(index),
        }
    }

    #[cold]
    fn count_drops(&mut self, socket: SocketId, control: &[u8]) {
        let Some(count) = overflow_count(control) else {
            return;
        };
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
        if result == -libc::ENOBUFS && self.short {
            self.stats.no_slots += 1;
        } else if result == -libc::ENOBUFS {
            self.buffers.ran_out();
        }
        if !entry.open {
            return;
        }
        self.stats.rearms += 1;
        if result == -libc::ENOBUFS {
            self.starved.push_back(socket);
        } else {
            self.arming.push(socket);
        }
    }

    #[cold]
    fn send_refused(&mut self, errno: i32) {
        match errno {
            libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => self.stats.send_full += 1,
            _ => self.stats.send_failed += 1,
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
        if entry.armed && !entry.open && entry.generation == socket.generation {
            self.cancelling.push(socket);
        }
    }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> Ring {
        let features = probe(&[]).unwrap();
        RingBuilder::new(&RingOptions { sockets_max: 4, slots: 64 }, &features).unwrap().enable().unwrap()
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
    fn a_ring_that_is_never_enabled_leaves_nothing_behind() {
        let features = probe(&[]).unwrap();
        let made = RingBuilder::new(&RingOptions { sockets_max: 4, slots: 64 }, &features).unwrap();
        std::thread::spawn(move || drop(made)).join().unwrap();
    }
}
