//! What the control socket says of legal holds. Fields are added; none changes its meaning or goes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `GET /v1/holds`, `POST /v1/holds`.
pub const HOLDS: &str = "/v1/holds";

/// `POST /v1/holds/lift`.
pub const LIFT_HOLD: &str = "/v1/holds/lift";

/// `POST /v1/holds/read`.
pub const READ_HOLD: &str = "/v1/holds/read";

/// A hold that is wanted. It does not print.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldRequest {
    /// Its name: lower-case letters, digits and hyphens.
    pub name: String,
    /// The ids of the sessions, as a look-up gives them.
    pub sessions: Vec<String>,
    /// When it is to be looked at again; it is lifted by hand alone.
    pub until_unix_seconds: Option<u64>,
    /// Why: the audit keeps it.
    pub reason: String,
}

/// A hold that was made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NewHold {
    /// Its name.
    pub name: String,
    /// What it has of each session.
    pub sessions: Vec<NewlyHeld>,
    /// What it does not reach, in words.
    pub not_held: String,
}

/// What a new hold has of a session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NewlyHeld {
    /// The session.
    pub session: String,
    /// Its addresses: `held`, `key-gone` (nobody can read them any more) or `not-kept` (none were
    /// written).
    pub addresses: String,
}

/// The holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Holds {
    /// They, the oldest first.
    pub holds: Vec<Hold>,
}

/// One hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hold {
    /// Its name.
    pub name: String,
    /// Since when.
    pub created_unix_seconds: u64,
    /// When it is to be looked at again.
    pub until_unix_seconds: Option<u64>,
    /// That time has come. It holds all the same.
    pub due: bool,
    /// Why; none where the key is gone under which that was written.
    pub reason: Option<String>,
    /// Sessions that it holds.
    pub sessions: u64,
    /// Of these, those whose addresses it holds.
    pub addresses: u64,
    /// Whether its key is there: without it no address of it can be read.
    pub key: bool,
}

/// A hold that is to be lifted, or read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedHold {
    /// Its name.
    pub name: String,
    /// Why: the audit keeps it.
    pub reason: String,
}

/// A hold that was lifted. Its key is destroyed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LiftedHold {
    /// Its name.
    pub name: String,
    /// Sessions that it had held.
    pub sessions: u64,
}

/// The sessions of a hold. It does not print: addresses are in it.
#[derive(Serialize, Deserialize)]
pub struct Held {
    /// They, by their beginning.
    pub sessions: Vec<HeldSession>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("sessions", &self.sessions.len()).finish()
    }
}

/// One session of a hold. It does not print.
#[derive(Serialize, Deserialize)]
pub struct HeldSession {
    /// Its id in every record.
    pub session: String,
    /// Whose user it was.
    pub tenant: String,
    /// The user's pseudonym in records.
    pub user: String,
    /// The client's transport address; none where it is not held, or the hold's key is not there.
    pub client: Option<String>,
    /// The relayed transport addresses.
    pub relayed: Vec<String>,
    /// When it began.
    pub began_unix_seconds: u64,
    /// When it ended; none where it has not.
    pub ended_unix_seconds: Option<u64>,
}
