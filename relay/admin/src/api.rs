//! What the control socket says, as JSON. Fields are added; none changes its meaning or goes.

mod holds;
mod plugins;
mod records;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use holds::*;
pub use plugins::*;
pub use records::*;

/// `GET /v1/status`.
pub const STATUS: &str = "/v1/status";

/// `GET /v1/allocations`, `GET /v1/allocations?after=CURSOR`.
pub const ALLOCATIONS: &str = "/v1/allocations";

/// `POST /v1/drain`.
pub const DRAIN: &str = "/v1/drain";

/// `POST /v1/reload`.
pub const RELOAD: &str = "/v1/reload";

/// How the relay is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The configuration's file, if there is one.
    pub config: Option<String>,
    /// When it started, in seconds since the Unix epoch.
    pub started_unix_seconds: u64,
    /// How long it has run.
    pub uptime_seconds: u64,
    /// The packet driver.
    pub driver: String,
    /// Its workers.
    pub workers: Vec<Worker>,
    /// Where clients come. The relay's own addresses.
    pub listeners: Vec<Listener>,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Allocations alive.
    pub allocations: u64,
    /// Allocations that may be alive.
    pub allocations_limit: u32,
    /// The last reload, if there was one.
    pub last_reload: Option<LastReload>,
    /// The end that is under way, if it is.
    pub draining: Option<Draining>,
    /// What is wrong; nothing when it is well.
    pub faults: Vec<String>,
}

/// An end under way: nobody new is let in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Draining {
    /// Allocations that still go on.
    pub allocations: u64,
    /// How long it has been under way.
    pub since_seconds: u64,
    /// How long they may go on.
    pub deadline_in_seconds: u64,
}

/// When the configuration was read again, and what came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LastReload {
    /// When, in seconds since the Unix epoch.
    pub unix_seconds: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a reload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All of it is in force on every worker.
    Applied,
    /// It is what was in force already.
    Unchanged,
    /// A worker has not confirmed in time; it takes it over before anything else when it goes on.
    Unconfirmed,
    /// Nothing is applied: a key that changed takes a restart.
    NeedsRestart,
    /// Nothing is applied: it has mistakes.
    Invalid,
    /// Nothing is applied: the reload before is not confirmed yet.
    Busy,
}

impl Outcome {
    /// Whether the configuration in force is the one of the file.
    pub fn is_well(self) -> bool {
        matches!(self, Outcome::Applied | Outcome::Unchanged)
    }
}

/// The answer to a reload.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reload {
    /// What came of it.
    pub outcome: Outcome,
    /// Every key that is another one than in force.
    pub changes: Vec<Change>,
    /// What is wrong, with file, line and key.
    pub error: Option<String>,
    /// What works and should still be changed.
    pub warnings: Vec<String>,
}

/// A key that changed. Values are not told: some are secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Change {
    /// Its path; of a tenant's by the tenant's name.
    pub key: String,
    /// It takes a restart.
    pub restart: bool,
}

/// One worker.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Worker {
    /// Its number.
    pub worker: usize,
    /// The core that it has for itself.
    pub core: usize,
    /// How often it has handed over its counters: at least once a second while its loop goes round.
    pub ticks: u64,
}

/// One address that clients come to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listener {
    /// It.
    pub address: SocketAddr,
    /// Its realm.
    pub realm: String,
}

/// A part of the live allocations, in no order that means anything.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Allocations {
    /// They.
    pub allocations: Vec<Allocation>,
    /// The cursor of the next part, if there is one.
    pub next: Option<u64>,
}

/// One allocation. Its pseudonyms last as long as the process, and nobody can turn them back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Allocation {
    /// Its own pseudonym.
    pub allocation: String,
    /// Its user's: the same for all of that user's.
    pub user: String,
    /// Its client's address's, without the port.
    pub client: String,
    /// Whose user it is.
    pub tenant: String,
    /// The worker that has it.
    pub worker: usize,
    /// How long it has lived.
    pub age_seconds: u64,
    /// How long it lives unless it is refreshed.
    pub expires_in_seconds: u64,
    /// Its permissions.
    pub permissions: u32,
    /// Its channels.
    pub channels: u32,
    /// Families of its relayed addresses: `ipv4`, `ipv6`.
    pub families: Vec<String>,
    /// Packets of the client that were relayed.
    pub packets_from_client: u64,
    /// Their payload.
    pub bytes_from_client: u64,
    /// Packets of peers that were relayed.
    pub packets_to_client: u64,
    /// Their payload.
    pub bytes_to_client: u64,
}

/// Why a request was not served (RFC 9457).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// What went wrong, in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What to do.
    pub detail: String,
}

impl Problem {
    /// Of those parts.
    pub fn new(status: u16, title: &str, detail: &str) -> Self {
        Problem { title: title.to_owned(), status, detail: detail.to_owned() }
    }
}
