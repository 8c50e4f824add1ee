//! Kernel I/O: the two drivers behind [`Io`](sluice_base::io::Io), and what else a relay asks of the
//! operating system. The only crate with `unsafe` code: every block says why it is sound.
//!
//! [`Ring`] is the driver (io_uring, sealed, one system call per tick); [`Epoll`] stands in where a
//! host forbids io_uring, and is the baseline of every benchmark. Both hand out the same [`Packet`]s.
#![deny(unsafe_op_in_unsafe_fn)]

mod arena;
mod burst;
mod clock;
mod epoll;
mod inet;
mod memory;
pub mod os;
mod ring;
mod run;
mod socket;
mod steps;
mod swap;
mod waker;

pub use arena::Packet;
pub use epoll::{Epoll, EpollOptions};
pub use memory::LockedMemory;
pub use ring::{FEATURES, Features, Ring, RingBuilder, RingOptions, probe};
pub use socket::{Buffers, buffers_granted, listener_free};
pub use steps::{ClockSteps, ClockWait};
