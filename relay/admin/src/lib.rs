//! HTTP for operators: `/metrics` and `/healthz`, and nothing else.
//!
//! **A client can neither hold a place for good nor make this grow.** Connections are counted, live for a bounded
//! time and have bounded headers; the next one waits in the kernel until a place is free. No address of a client
//! is kept or logged.
#![forbid(unsafe_code)]

mod health;
mod server;

pub use health::{Advancing, Health};
pub use server::{BindError, Server};
