//! One pinned loop: protocol machines over [`sluice_base::io::Io`]. The same code runs under the kernel's
//! drivers and under the simulator.
//!
//! **A tick is: wait, feed the machine, collect what it wants done, and submit once, at the next
//! wait.** A worker owns everything that its five-tuples need and shares nothing that is written for
//! a packet.
#![forbid(unsafe_code)]

mod post;
mod worker;

pub use post::{Answer, Mailbox, Post};
pub use worker::{Parts, State, Worker};
