//! The TURN server machine (RFC 8489, RFC 8656; also what RFC 5766 clients send).
//!
//! **[`Server`] is a pure machine: packets, time, verdicts, opened sockets and orders come in, and
//! after every input the caller takes outputs until there are none.** It does no I/O, reads no clock
//! and draws randomness only from the generator it was given, so that it runs the same under the
//! kernel, the simulator and the fuzzer.
//!
//! A relayed packet is answered by a [`Disposition`] and stays in its slot:
//!
//! ```text
//! client to peer   [4 bytes ChannelData | payload]   step over 4, or into the DATA attribute
//! peer to client   [headroom            | payload]   write 4, or 36 or 48 bytes of Data indication, in front
//! ```
//!
//! Whatever a policy decides leaves as [`Output::Ask`] and comes back by [`Server::verdict`]. While a
//! question is open a retransmission neither asks again nor is answered; without a verdict in time
//! the answer is 508.
#![forbid(unsafe_code)]

mod allocation;
mod answers;
mod auth;
mod bans;
mod events;
mod guard;
pub mod harness;
mod opening;
mod options;
mod ports;
mod quality;
mod quota;
mod relay;
mod reply;
mod review;
mod route;
mod server;
mod settings;

pub use bans::{Ban, Bans, BansError, Whom};
pub use options::{GuardOptions, Listener, Network, RelayAddress, ServerOptions, Shared, StaticUser, Tenant};
pub use ports::LivePorts;
pub use quota::{AccountLimits, Ledger, TenantLimits, Usage};
pub use reply::Reply;
pub use server::{Disposition, OpenTicket, Output, Server};
pub use settings::Settings;
