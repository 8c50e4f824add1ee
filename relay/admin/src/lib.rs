//! HTTP for operators: `/metrics` and `/healthz` for whoever reaches the metrics listener, and status, lists and
//! commands for whoever may write to the control socket.
//!
//! **A client can neither hold a place for good nor make this grow.** Connections are counted, live for a bounded
//! time and have bounded headers; the next one waits in the kernel until a place is free. No address of a client
//! is kept or logged.
#![forbid(unsafe_code)]

pub mod api;
mod client;
mod control;
mod health;
mod holds;
mod http;
mod plugins;
mod records;
mod server;

pub use axum::http::Method;
pub use client::{ClientError, call, call_with};
pub use control::{Caller, Command, Control, ControlError, Reply};
pub use health::{Advancing, Health};
pub use holds::WantedHold;
pub use plugins::WantedErasure;
pub use records::{Target, Told, Wanted, WantedBan, WantedLift};
pub use server::{BindError, Server};
