//! What every other crate rests on: ids, limits, the clock's types, personal data as a type, the
//! [`Io`](io::Io) contract, [`Question`](policy::Question) and [`Verdict`](policy::Verdict), and the
//! messages between planes. Nothing here does I/O, reads a clock or draws randomness.
#![forbid(unsafe_code)]

pub mod address;
pub mod event;
pub mod id;
pub mod io;
pub mod limits;
pub mod memory;
pub mod message;
pub mod pii;
pub mod policy;
pub mod stats;
pub mod time;
pub mod wheel;

pub use address::{AddressClass, Family};
pub use event::RelayEvent;
pub use id::{AllocationId, ListenerId, QuestionId, SessionId, SocketId, TenantId, WorkerId};
pub use pii::{Pii, Secret, TransportAddress};
pub use time::{Mono, Now};
