//! Which plugins decide what for whom.

use std::path::PathBuf;
use std::time::Duration;

use sluice_base::limits;

use crate::privacy::Directory;

/// `[policy]`: the host of plugins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// What runs them: `auto`, `cranelift` or `pulley`.
    pub engine: Engine,
    /// Bytes of memory that one instance may have.
    pub memory_bytes: usize,
    /// How long a question's plugins may take together.
    pub deadline: Duration,
    /// Questions that may wait.
    pub queue: usize,
    /// This relay's name; empty: none.
    pub node_id: String,
    /// Its deployment region; empty: not known.
    pub node_region: String,
    /// Its country, ISO 3166-1 alpha-2; empty: not known.
    pub node_country: String,
    /// Public keys of Ed25519: a plugin's signature has to be by one of them. None: signatures are not looked at.
    pub trusted_keys: Vec<[u8; 32]>,
    /// Whether a plugin without a signature is refused.
    pub require_signature: bool,
    /// Where compiled plugins are kept for the next start; without one of a service manager's: nowhere.
    pub cache_directory: Directory,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            engine: Engine::Auto,
            memory_bytes: limits::PLUGIN_MEMORY_BYTES_DEFAULT,
            deadline: limits::POLICY_DEADLINE_DEFAULT,
            queue: limits::POLICY_QUEUE_DEFAULT,
            node_id: String::new(),
            node_region: String::new(),
            node_country: String::new(),
            trusted_keys: Vec::new(),
            require_signature: false,
            cache_directory: Directory::Auto,
        }
    }
}

/// What runs plugins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Engine {
    /// Native code where memory may be made executable, else the interpreter.
    #[default]
    Auto,
    /// Native code or nothing.
    Cranelift,
    /// The interpreter.
    Pulley,
}

impl Engine {
    /// Every one with its name.
    pub const NAMED: &'static [(&'static str, Engine)] =
        &[("auto", Engine::Auto), ("cranelift", Engine::Cranelift), ("pulley", Engine::Pulley)];
}

/// `[[plugin]]`: a component and its settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plugin {
    /// The operator's name for it.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// The digest that it must have, `sha256:` and 64 hexadecimal digits; `None`: whatever the file has.
    pub digest: Option<String>,
    /// What it may have, unless a tenant says otherwise.
    pub grants: Vec<PluginGrant>,
    /// Its settings as a JSON object, unless a tenant has its own.
    pub settings: String,
}

/// What a plugin may be granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PluginGrant {
    /// A store of its own for each tenant.
    Kv,
    /// Questions about places.
    Geo,
    /// Rotating tokens.
    Pseudonym,
    /// Addresses of clients and peers.
    RawAddresses,
}

impl PluginGrant {
    /// Every one with its name.
    pub const NAMED: &'static [(&'static str, PluginGrant)] = &[
        ("kv", PluginGrant::Kv),
        ("geo", PluginGrant::Geo),
        ("pseudonym", PluginGrant::Pseudonym),
        ("raw-addresses", PluginGrant::RawAddresses),
    ];
}

/// `[[tenant.policy]]`: a plugin that decides for a tenant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantPolicy {
    /// Index of the plugin in [`Config::plugins`](crate::Config::plugins).
    pub plugin: usize,
    /// Whether its verdicts are only counted and logged.
    pub dry_run: bool,
    /// The file, in the captures of the state directory, for what it is asked meanwhile and answers.
    pub capture: Option<String>,
    /// For this tenant in place of the plugin's settings, as a JSON object.
    pub settings: Option<String>,
    /// For this tenant in place of the plugin's grants.
    pub grants: Option<Vec<PluginGrant>>,
}

/// `[geo]`: where addresses are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Geo {
    /// A database in MaxMind's format; `None`: every place is unknown.
    pub database: Option<PathBuf>,
    /// Named sets of countries, beside EU, EEA and adequate or in their place.
    pub sets: Vec<CountrySet>,
}

/// `[[geo.set]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CountrySet {
    /// Its name.
    pub name: String,
    /// ISO 3166-1 alpha-2.
    pub countries: Vec<String>,
}
