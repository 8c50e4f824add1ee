//! What decides for whom.

use serde::{Deserialize, Serialize};

/// `GET /v1/plugins`.
pub const PLUGINS: &str = "/v1/plugins";

/// `POST /v1/plugins/erase`.
pub const ERASE: &str = "/v1/plugins/erase";

/// `POST /v1/plugins/review`.
pub const REVIEW: &str = "/v1/plugins/review";

/// A person whom policies are to forget. It does not print.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EraseRequest {
    /// The tenant whose user that is.
    pub tenant: String,
    /// The user's name, without the tenant's and without the time of a REST credential.
    pub user: String,
}

/// What policies had of a person, and what became of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Erasure {
    /// Of each plugin that decides for the tenant, or has stored something about the person.
    pub plugins: Vec<Erased>,
}

/// What one plugin had of a person.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Erased {
    /// Its name.
    pub plugin: String,
    /// Entries of its store that named the person, and are gone; all where it decides no more for the tenant.
    pub entries: u64,
    /// Entries that name nobody, and stay until they end, where it has no hook to be asked what they are about.
    pub left: u64,
    /// What it says that it deleted besides; none where it was not asked, since it derives nothing, or has failed.
    pub deleted: Option<u64>,
    /// What it keeps, and why: for the person.
    pub kept: Vec<String>,
    /// Why it did not answer: it is to be asked again.
    pub failure: Option<String>,
}

/// Whose policies are to be asked again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReviewRequest {
    /// Those of this tenant; without it those of all.
    pub tenant: Option<String>,
}

/// Whose policies are asked again about all that lives.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Review {
    /// These tenants'; nobody's, where no plugin decides.
    pub tenants: Vec<String>,
}

/// The plugins that are loaded.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Plugins {
    /// What runs them, and why; empty without any.
    pub engine: String,
    /// They.
    pub plugins: Vec<Plugin>,
    /// Plans of records that could not be had, and what holds meanwhile, in words.
    pub faults: Vec<String>,
}

/// One plugin.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Plugin {
    /// The operator's name for it.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// Of its component: `sha256:` and hexadecimal digits.
    pub digest: String,
    /// What it is asked.
    pub hooks: Vec<String>,
    /// What it would decide, and nothing in this version asks.
    pub not_asked: Vec<String>,
    /// What it was granted.
    pub grants: Vec<String>,
    /// For whom; nobody, where it is only loaded.
    pub tenants: Vec<Binding>,
}

/// A tenant that a plugin decides for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Binding {
    /// Its name.
    pub tenant: String,
    /// Verdicts are counted and logged, and do not hold.
    pub dry_run: bool,
}
