//! What the control socket says of records. Fields are added; none changes its meaning or goes.

use serde::{Deserialize, Serialize};

/// `POST /v1/lookup`.
pub const LOOKUP: &str = "/v1/lookup";

/// `GET /v1/bans`, `POST /v1/bans`.
pub const BANS: &str = "/v1/bans";

/// `POST /v1/bans/lift`.
pub const LIFT: &str = "/v1/bans/lift";

/// `GET /v1/audit`, `GET /v1/audit?last=N`.
pub const AUDIT: &str = "/v1/audit";

/// `GET /v1/retention`.
pub const RETENTION: &str = "/v1/retention";

/// `POST /v1/retention/sweep`.
pub const SWEEP: &str = "/v1/retention/sweep";

/// `POST /v1/backup`.
pub const BACKUP: &str = "/v1/backup";

/// `GET /v1/compliance`.
pub const COMPLIANCE: &str = "/v1/compliance";

/// Whose sessions are looked for. It does not print.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LookupRequest {
    /// An IP address.
    pub address: String,
    /// Its port, if that matters; with it the address may be a relayed one.
    pub port: Option<u16>,
    /// Sessions that went on at or after this.
    pub from_unix_seconds: u64,
    /// Sessions that began at or before this.
    pub to_unix_seconds: u64,
    /// Why: the audit keeps it.
    pub reason: String,
}

/// The sessions of an address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lookup {
    /// They, by their beginning.
    pub sessions: Vec<Session>,
    /// There are more: ask for less time.
    pub more: bool,
    /// Days of the time asked for of which there are sessions, and of which nobody can say any longer who they were.
    pub gone: Vec<GoneDay>,
}

/// One session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Session {
    /// Its id in every record.
    pub session: String,
    /// Whose user it was.
    pub tenant: String,
    /// The user's pseudonym in records.
    pub user: String,
    /// What the address was in it: `client` or `relayed`.
    pub role: String,
    /// When it began.
    pub began_unix_seconds: u64,
    /// When it ended; none where it has not.
    pub ended_unix_seconds: Option<u64>,
    /// Payload that it relayed, both ways, once it has ended.
    pub bytes: Option<u64>,
}

/// A day whose key is gone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GoneDay {
    /// The day.
    pub day: String,
    /// Whose key it was.
    pub tenant: String,
    /// When it was destroyed; none where nobody saw it.
    pub destroyed_unix_seconds: Option<u64>,
}

/// A ban that is wanted. It does not print.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BanRequest {
    /// An address, a network in CIDR form, or the pseudonym of a client that is there.
    pub target: String,
    /// For how long.
    pub seconds: u64,
    /// Why: the audit keeps it.
    pub reason: String,
}

/// A ban that is to go. It does not print.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiftRequest {
    /// As for a ban, or the id of one.
    pub target: String,
    /// Why, if that is said: the audit keeps it.
    #[serde(default)]
    pub reason: Option<String>,
}

/// The bans that hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bans {
    /// They.
    pub bans: Vec<Ban>,
}

/// One ban. No address is shown: whoever made it knows it, and an id lifts it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ban {
    /// Its id.
    pub ban: String,
    /// The pseudonym of its address, as in the list of allocations; of a network's first address for a network. None
    /// where addresses may not be looked up, unless that is what was banned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// How many bits of the address count.
    pub bits: u8,
    /// Why.
    pub reason: String,
    /// Since when.
    pub created_unix_seconds: u64,
    /// Until when.
    pub expires_unix_seconds: u64,
}

/// Bans that were lifted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lifted {
    /// How many.
    pub lifted: usize,
}

/// The last entries of the audit, the oldest of them first.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Audit {
    /// They.
    pub entries: Vec<Entry>,
}

/// One entry of the audit. None holds an address.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its number.
    pub seq: u64,
    /// When.
    pub unix_seconds: u64,
    /// What it is about.
    pub kind: String,
    /// The tenant that it concerns; empty for the relay as a whole.
    pub tenant: String,
    /// The session that it concerns.
    pub session: Option<String>,
    /// What was sealed; none where the tenant's key is gone.
    pub body: Option<serde_json::Value>,
}

/// What is kept, how long, and what goes next.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Retention {
    /// The classes that are kept.
    pub classes: Vec<ClassStanding>,
    /// The keys of addresses that live.
    pub keys: Vec<KeyStanding>,
}

/// One class.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClassStanding {
    /// Its name.
    pub class: String,
    /// When its oldest record was made.
    pub oldest_unix_seconds: Option<u64>,
    /// When the next of it goes.
    pub next_unix_seconds: Option<u64>,
    /// How long that is overdue.
    pub late_seconds: u64,
    /// Records that a legal hold keeps.
    pub held: u64,
}

/// One key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyStanding {
    /// Whose addresses it opens; empty for the relay as a whole.
    pub tenant: String,
    /// Of which day.
    pub day: String,
    /// When it dies.
    pub dies_unix_seconds: u64,
    /// How long that is overdue.
    pub late_seconds: u64,
}

/// What is to go now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepRequest {
    /// Only say what would go.
    pub dry_run: bool,
    /// Believe the clock although it is more than 24 hours ahead of what it was.
    pub beyond_24h: bool,
}

/// What went, or would go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Swept {
    /// Nothing went.
    pub dry_run: bool,
    /// Sessions.
    pub sessions: u64,
    /// Refusals.
    pub denials: u64,
    /// Entries of the audit.
    pub entries: u64,
}

/// A copy of the store that is wanted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupRequest {
    /// The absolute path of a directory that is not there yet.
    pub to: String,
}

/// A copy of the store: without any key, so that its addresses can be read as long as those here live.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Backup {
    /// Where it is.
    pub to: String,
}

/// What is stored where, how long, under whose key, and where it is shipped to (GDPR, Art. 30), by the running
/// configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Compliance {
    /// When it was made.
    pub unix_seconds: u64,
    /// The relay's version.
    pub version: String,
    /// The configuration's file, if there is one.
    pub config: Option<String>,
    /// Whether anything is written down.
    pub records: bool,
    /// Where records are.
    pub state_directory: Option<String>,
    /// Where the keys of addresses are and what becomes of them, in words.
    pub keys: Vec<String>,
    /// What is written to standard error, in words.
    pub log: String,
    /// What metrics hold, in words.
    pub metrics: String,
    /// Who may read personal data here, and how that is bounded, in words.
    pub access: String,
    /// The classes of what is stored.
    pub classes: Vec<ComplianceClass>,
    /// The kinds of records.
    pub kinds: Vec<ComplianceKind>,
    /// How long each tenant's addresses can be read.
    pub tenants: Vec<ComplianceTenant>,
    /// Where records are shipped to.
    pub sinks: Vec<ComplianceSink>,
    /// What is said at the start about the place of keys.
    pub warnings: Vec<String>,
}

/// One class of what is stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ComplianceClass {
    /// Its name.
    pub class: String,
    /// What it holds.
    pub holds: String,
    /// What it may be read for.
    pub purposes: Vec<String>,
    /// How long it stays.
    pub retention: String,
    /// Where it may be.
    pub places: Vec<String>,
    /// Under which key.
    pub key: String,
    /// Whether this relay stores anything of it now.
    pub stored: bool,
}

/// One kind of record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ComplianceKind {
    /// Its name.
    pub kind: String,
    /// Where it is.
    pub destination: String,
    /// Its fields, each with its class.
    pub fields: Vec<ComplianceField>,
}

/// One field.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ComplianceField {
    /// Its name.
    pub field: String,
    /// Its class.
    pub class: String,
}

/// One tenant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ComplianceTenant {
    /// Its name.
    pub tenant: String,
    /// Days after which no byte of an address can be read any more; 0: none is written.
    pub ip_retention_days: u8,
}

/// One sink.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ComplianceSink {
    /// `file` or `http`.
    pub kind: String,
    /// Where it is.
    pub to: String,
}
