//! A seeded network, clock, kernel, policies and clients around the real worker and the real machine,
//! and an oracle that knows who may receive what.
//!
//! **A run is a function of its seed.** Everything is one thread; nothing reads a clock, a file, the
//! environment or a generator that the seed did not make. What a run finds, it finds again:
//!
//! ```text
//! SLUICE_SIM_SEED=123 cargo test --release -p sluice-sim --test seeds replay -- --nocapture
//! ```
//!
//! ```text
//! clients -- NATs --.                          .-- questions, verdicts (SimDecide)
//! peers ------------+-- network -- sockets -- Worker<SimIo, SimDecide, _> x 1..3
//! mischief ---------'      loss, order, leaps  '-- every packet, socket and slot --> oracle
//! ```
#![forbid(unsafe_code)]

mod bucket;
mod client;
mod credentials;
mod io;
mod kernel;
mod mischief;
mod nat;
mod oracle;
mod peer;
mod report;
mod rng;
mod scenario;
mod stays;
mod tamper;
mod world;

pub use report::{Coverage, Failure, Report};
pub use tamper::Tamper;
pub use world::{MediaTruth, Options, media, run};
