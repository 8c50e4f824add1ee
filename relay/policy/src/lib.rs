//! The policy host: WebAssembly components that decide, and are given nothing else. The only crate that names wasmtime.
//!
//! **Facts in, decision out, and a failure never allows anything.** A fresh instance answers each question and ends
//! with it, so that nothing of one tenant or question reaches another. It has the memory, the time and the imports that
//! it was given: no file, no network, no environment, no clock. What it answers is data that the relay executes by
//! itself; no packet ever waits for a plugin. See `wit/README.md`.
#![forbid(unsafe_code)]

mod bindings;
mod capture;
mod cases;
mod compose;
mod engine;
mod facts;
mod failure;
mod fence;
mod guest;
mod hook;
mod host;
mod json;
mod judge;
mod kv;
mod lines;
mod load;
mod plugin;
mod pseudonym;
mod queue;
mod rate;
mod records;
mod rest;
mod scrub;
mod sets;
mod stats;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use capture::{Capture, Captures};
pub use cases::{Case, Ran};
pub use compose::meet;
pub use engine::{EngineChoice, EngineKind};
pub use facts::{Node, Standing};
pub use failure::Failure;
pub use hook::{Grant, Hook};
pub use host::{Answer, BindError, Erased, Forgotten, Host, HostOptions, Mode, Renewed, Source, Table, Tag, Tenant};
pub use load::{LoadError, digest};
pub use plugin::{Facts, Plugin};
pub use sets::Sets;
pub use stats::{DURATION_BOUNDS, Declared, Durations, Outcome, PluginStats, Series, family};

/// What a panic left behind is still what it was.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
