//! Decisions on personal data: which classes of it there are and how long each may stay, when the key of a day is made
//! and when it dies, what a sealed record looks like, by which pseudonym somebody is named, what a tenant's plan leaves
//! of each field.
//!
//! A pure machine: facts and the time go in, actions come out. Whoever does them holds the keys and the files.
#![forbid(unsafe_code)]

pub mod class;
pub mod clock;
pub mod date;
pub mod document;
pub mod hold;
pub mod keyring;
pub mod plan;
pub mod pseudonym;
pub mod schema;
pub mod seal;

pub use class::Class;
pub use clock::{Clock, Horizon};
pub use date::Day;
pub use keyring::{KeyName, KeyRing};
pub use plan::Plan;

use sluice_base::Mono;

/// One instant on the two clocks that a promise of days is judged by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Moment {
    /// Seconds since the Unix epoch, as the wall clock has it: it can be set.
    pub unix_seconds: u64,
    /// Since the machine's start, suspension included (CLOCK_BOOTTIME): nobody sets it.
    pub boot: Mono,
}
