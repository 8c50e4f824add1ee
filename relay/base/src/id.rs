//! Newtypes for every identifier that crosses a crate.

use std::fmt;

/// A worker: one pinned thread with its own ring, sockets and allocations. At most
/// [`WORKERS_MAX`](crate::limits::WORKERS_MAX).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WorkerId(pub u8);

/// A tenant, interned at load in the order of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TenantId(pub u16);

/// A listener address of the configuration (RFC 8656, 3.1: one side of the client's five-tuple).
/// The same on every worker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ListenerId(pub u16);

/// A socket of one worker's driver. `index` is small and dense, and reused; `generation` differs
/// each time, so that an event of a closed socket is never taken for one of its successor's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SocketId {
    /// Slot in the driver's table of sockets.
    pub index: u32,
    /// Counts the reuses of that slot.
    pub generation: u32,
}

/// An allocation (RFC 8656, 2.2) of one worker; never reused within a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AllocationId(pub u64);

/// An open question of one worker to the policies; never reused within a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QuestionId(pub u64);

/// One client's stay: from the admission of an allocation to its end. Random, from the machine's generator, so that it
/// says nothing of who or when, and is nobody else's on any machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
