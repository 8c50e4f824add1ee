//! The contract between a worker and whatever moves its packets: a kernel driver or the simulator.
//!
//! **The driver owns the slots. A packet arrives in a slot, and the slot comes back by exactly one
//! of [`Io::send`] and [`Io::free`].** What arrives is forwarded in the slot in which it arrived:
//!
//! ```text
//! [ headroom .......... | payload ................ | tailroom ]
//!         frame(n, _) <--|--> trim_front(n)     set_len(n), frame(_, n)
//! ```
//!
//! A burst of one flow may arrive as one datagram of the kernel's (UDP_GRO) and leave as one
//! (UDP_SEGMENT). Here it is packets, one by one, each in a slot of its own: what counts, limits and
//! judges packets does not know of bursts. Such slots lie side by side, so that there is no room in front
//! of one; `frame` puts its bytes elsewhere then, and the kernel gathers them.
//!
//! Batching is the driver's: `send` may only queue, and what is queued leaves at the next
//! [`Io::wait`] at the latest.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::id::SocketId;
use crate::pii::{Pii, TransportAddress};
use crate::time::{Mono, Now};

/// A driver of one worker. Not shared between threads.
pub trait Io {
    /// An owned packet buffer.
    type Slot: Slot;

    /// Both clocks.
    fn now(&self) -> Now;

    /// Submits what is queued, then blocks until something happened, `until` has passed, or the
    /// waker was used; appends what happened to `batch`. May return early and empty.
    ///
    /// # Errors
    /// Only when the driver can never work again.
    fn wait(&mut self, until: Mono, batch: &mut Vec<Event<Self::Slot>>) -> Result<(), DriverError>;

    /// Sends the slot's payload from `socket` to `to`, or counts why it could not. To a socket that
    /// is closed it is a counted drop.
    fn send(&mut self, socket: SocketId, to: TransportAddress, slot: Self::Slot, options: SendOptions);

    /// An empty slot (payload length 0, at least [`HEADROOM_MIN`](crate::limits::HEADROOM_MIN) in
    /// front) for what the worker itself writes; `None` when there is none to spare.
    fn blank(&mut self) -> Option<Self::Slot>;

    /// Gives a slot back unsent.
    fn free(&mut self, slot: Self::Slot);

    /// Opens and binds a datagram socket; its packets arrive from the next `wait` on.
    ///
    /// # Errors
    /// [`OpenError`], by what the caller can do about it.
    fn open(&mut self, spec: &OpenSpec) -> Result<Opened, OpenError>;

    /// Closes a socket. What is queued on it still leaves. No event of it comes from the next
    /// `wait` on; an event already in a batch carries its generation.
    fn close(&mut self, socket: SocketId);

    /// A handle by which another thread ends a `wait`.
    fn waker(&self) -> Waker;

    /// The driver's own counters.
    fn stats(&mut self) -> IoStats;
}

/// An owned packet buffer: payload with room in front and behind.
pub trait Slot {
    /// The bytes of the packet.
    fn payload(&self) -> &[u8];
    /// The bytes of the packet, to change in place.
    fn payload_mut(&mut self) -> &mut [u8];
    /// Bytes free in front of the payload, in the same memory.
    fn headroom(&self) -> usize;
    /// Bytes free behind the payload, in the same memory.
    fn tailroom(&self) -> usize;
    /// Adds `front` bytes before the payload, to be written by the caller, and `back` zero bytes behind it,
    /// all of which leave with it. `None`, and nothing is changed, where there is no room: there always is
    /// for [`HEADROOM_MIN`](crate::limits::HEADROOM_MIN) and 3 bytes in a slot as it came in. Afterwards the
    /// slot is to be sent or freed; whether its payload shows what was added is the driver's business.
    fn frame(&mut self, front: usize, back: usize) -> Option<&mut [u8]>;
    /// Drops the first `n` bytes of the payload.
    ///
    /// # Panics
    /// If `n` exceeds the payload.
    fn trim_front(&mut self, n: usize);
    /// Sets the payload's length; bytes taken from the tailroom are unspecified.
    ///
    /// # Panics
    /// If `len` exceeds payload and tailroom.
    fn set_len(&mut self, len: usize);
}

/// What a [`Io::wait`] reports.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<S> {
    /// A datagram.
    Datagram {
        /// The socket that it came in by, and thereby the local address: every local address has
        /// a socket of its own.
        socket: SocketId,
        /// Where it came from.
        from: TransportAddress,
        /// Its bytes. Owned by the receiver of this event.
        slot: S,
    },
    /// The waker was used (several uses may come as one).
    Woken,
}

/// How a packet is to leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SendOptions {
    /// Set the DF bit (RFC 8656, 18.9 DONT-FRAGMENT; IPv4, and no fragmentation for IPv6).
    pub dont_fragment: bool,
}

/// What to open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenSpec {
    /// The address to bind; port 0 lets the kernel choose. Ours, so not personal.
    pub local: SocketAddr,
    /// What it is for.
    pub role: SocketRole,
    /// SO_RCVBUF in bytes; 0 keeps the kernel's default.
    pub receive_buffer_bytes: u32,
    /// SO_SNDBUF in bytes; 0 keeps the kernel's default.
    pub send_buffer_bytes: u32,
}

/// What a socket is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketRole {
    /// Clients come here: SO_REUSEPORT, one per worker on the same address.
    Listener,
    /// A relayed transport address.
    Relay,
}

/// An opened socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened {
    /// The handle.
    pub socket: SocketId,
    /// The address bound, with the port that the kernel chose if the spec left it open.
    pub local: SocketAddr,
}

/// Why a socket could not be opened, by what the caller can do about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the port: try another one.
    #[error("the port is in use")]
    InUse,
    /// The table of sockets, the process's or the system's file limit is full: refuse, try later.
    #[error("no more sockets: the limit on open files is reached")]
    NoSockets,
    /// The address is not one of this machine.
    #[error("the address is not one of this machine")]
    NotLocal,
    /// Anything else, with the kernel's number.
    #[error("the kernel refused (errno {0})")]
    Other(i32),
}

/// A driver that can never work again.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what} (errno {errno})")]
pub struct DriverError {
    /// In the operator's words: what failed, and what to do.
    pub what: String,
    /// The kernel's number.
    pub errno: i32,
}

/// Counters of a driver since its start; they never go back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IoStats {
    /// Completions reaped (ring), or messages received and sent (epoll).
    pub completions: u64,
    /// Completion queue overflows.
    pub cq_overflows: u64,
    /// System calls of the loop.
    pub enters: u64,
    /// Receives armed anew (ENOBUFS, or the kernel ended a multishot).
    pub rearms: u64,
    /// Receives that found no free slot.
    pub no_slots: u64,
    /// Datagrams longer than a slot: dropped.
    pub truncated: u64,
    /// Sends refused with EAGAIN or ENOBUFS: dropped.
    pub send_full: u64,
    /// Sends that failed for another reason (unreachable, message too long): dropped.
    pub send_failed: u64,
    /// Datagrams that the kernel dropped because a socket's buffer was full (SO_RXQ_OVFL).
    pub socket_drops: u64,
    /// Datagrams of the kernel's that were bursts, and the packets in them (UDP_GRO).
    pub bursts_received: u64,
    /// See [`IoStats::bursts_received`].
    pub burst_packets_received: u64,
    /// Sends that carried a burst, and the packets in them (UDP_SEGMENT).
    pub bursts_sent: u64,
    /// See [`IoStats::bursts_sent`].
    pub burst_packets_sent: u64,
    /// Slots in all.
    pub slots: u64,
    /// Slots free now (a gauge).
    pub slots_free: u64,
    /// Long slots, for bursts, in all.
    pub long_slots: u64,
    /// Long slots free now (a gauge).
    pub long_slots_free: u64,
    /// Processor time of the worker's thread, in nanoseconds.
    pub busy_nanos: u64,
}

/// Ends a `wait` from another thread.
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// A waker that calls `wake`.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Waker(Arc::new(wake))
    }

    /// Ends the current `wait`, or the next one.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waker")
    }
}

/// A convenience for tests and drivers: marks an address of a peer or client.
pub const fn address(address: SocketAddr) -> TransportAddress {
    Pii::new(address)
}
