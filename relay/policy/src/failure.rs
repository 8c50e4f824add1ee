//! Why a plugin did not answer.

use std::fmt;

use sluice_base::limits::PLUGIN_HOST_CALLS_MAX;
use sluice_base::policy::Denial;
use wasmtime::{PoolConcurrencyLimitError, Trap};

/// The reason of a failure: a label of metrics and a word of the log. It never allows anything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Failure {
    /// It trapped: unreachable code, a division by zero, a stack that ran out.
    Trap,
    /// It took too long.
    Deadline,
    /// It trapped after memory or tables had been refused to it.
    Memory,
    /// Its answer is none: a list of the wrong length, bytes that are no text, more than the host takes.
    Answer,
    /// It asks for what the host does not do.
    Obligation,
    /// It called the host far more often than one answer takes.
    Flood,
    /// Too many questions waited.
    Overload,
    /// The queue or the plugins before it had left it too little time.
    NoTime,
    /// It missed a deadline a moment ago, and is not asked for a while.
    Resting,
    /// Its fences have run out.
    Stale,
}

impl Failure {
    /// Every reason.
    pub const ALL: [Failure; 10] = [
        Failure::Trap,
        Failure::Deadline,
        Failure::Memory,
        Failure::Answer,
        Failure::Obligation,
        Failure::Flood,
        Failure::Overload,
        Failure::NoTime,
        Failure::Resting,
        Failure::Stale,
    ];

    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Failure::Trap => "trap",
            Failure::Deadline => "deadline",
            Failure::Memory => "memory",
            Failure::Answer => "answer",
            Failure::Obligation => "obligation",
            Failure::Flood => "flood",
            Failure::Overload => "overload",
            Failure::NoTime => "no-time",
            Failure::Resting => "resting",
            Failure::Stale => "stale",
        }
    }

    /// The no that it is. What is not the plugin's own doing, or may be over in a moment, is no answer.
    pub(crate) const fn denial(self) -> Denial {
        match self {
            Failure::Deadline | Failure::Overload | Failure::NoTime | Failure::Resting => Denial::Unanswered,
            _ => Denial::TryLater,
        }
    }

    /// The reason of an error that wasmtime gave.
    pub(crate) fn of(error: &wasmtime::Error, memory_refused: bool) -> Self {
        if error.is::<PoolConcurrencyLimitError>() {
            return Failure::Overload;
        }
        if error.is::<Flood>() {
            return Failure::Flood;
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => Failure::Deadline,
            _ if memory_refused => Failure::Memory,
            Some(_) => Failure::Trap,
            None => Failure::Answer,
        }
    }
}

/// The error of a call too many.
#[derive(Debug, thiserror::Error)]
#[error("it calls the host more than {PLUGIN_HOST_CALLS_MAX} times")]
pub(crate) struct Flood;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
