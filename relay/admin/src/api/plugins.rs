//! What decides for whom.

use serde::{Deserialize, Serialize};

/// `GET /v1/plugins`.
pub const PLUGINS: &str = "/v1/plugins";

/// The plugins that are loaded.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Plugins {
    /// What runs them, and why; empty without any.
    pub engine: String,
    /// They.
    pub plugins: Vec<Plugin>,
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
