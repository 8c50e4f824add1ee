//! The configuration: the only crate that parses TOML.
//!
//! **What comes out is valid, or nothing does.** Every mistake is reported with its file, line, column
//! and key, several at once, and no message carries a secret or a user's name. Parsing is pure:
//! secrets come through [`Sources`].
#![forbid(unsafe_code)]

mod change;
mod edit;
mod error;
#[cfg(test)]
mod example;
pub mod harness;
mod parse;
mod policy;
mod privacy;
mod source;
mod walk;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sluice_base::message::Alternates;
use sluice_base::{AddressClass, Pii, Secret, TenantId, limits};

pub use change::Change;
pub use edit::{Draft, EditError, PluginChange, PluginEntry};
pub use error::{ConfigError, Problem};
pub use policy::{CountrySet, Engine, Geo, Plugin, PluginGrant, Policy, TenantPolicy};
pub use privacy::{Admission, Directory, Keys, Privacy, Retention, Sink, Spool, TenantPrivacy};
pub use source::{ReadError, SecretFile, Sources, System, Unread, config_text};

/// A whole configuration, validated.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients come. Never empty in a loaded configuration.
    pub listen: Vec<Listen>,
    /// Addresses of relayed transport addresses. Empty: the IPs of `listen`.
    pub relay: Vec<Relay>,
    /// UDP ports of relayed transport addresses, shared out among the workers.
    pub relay_ports: RangeInclusive<u16>,
    /// Options of the TURN machine.
    pub turn: Turn,
    /// What peers may be, and what strangers may ask.
    pub guard: Guard,
    /// Quotas.
    pub limits: Limits,
    /// Workers; `None`: one per core that the process may use.
    pub workers: Option<NonZeroUsize>,
    /// The packet driver.
    pub io: Io,
    /// The HTTP listener of metrics and health.
    pub metrics: Metrics,
    /// The socket of administrators.
    pub control: Control,
    /// How the relay ends.
    pub drain: Drain,
    /// What is logged.
    pub log: Log,
    /// What is written down.
    pub privacy: Privacy,
    /// Where records are shipped to.
    pub spool: Spool,
    /// The host of plugins.
    pub policy: Policy,
    /// Plugins.
    pub plugins: Vec<Plugin>,
    /// Where addresses are.
    pub geo: Geo,
    /// Tenants, in the order of their [`TenantId`]s.
    pub tenants: Vec<Tenant>,
    /// What works and should still be changed, in words for an operator.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads a configuration file, and the secrets that it names. `io_features` are the names that
    /// `io.disable` may have.
    ///
    /// # Errors
    /// Every mistake found, with its place.
    pub fn load(path: &Path, io_features: &[&str]) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let (text, mode) = source::config_file(path).map_err(|e| ConfigError::unreadable(&name, &e))?;
        let mut config = Self::parse(&text, &name, io_features, &System)?;
        if source::others_may_read(mode) && parse::has_inline_secrets(&text) {
            config.warnings.push(format!(
                "{name} holds a secret or a password, and every user of this machine may read it: \
                 chmod o-rwx it, or move them to files"
            ));
        }
        Ok(config)
    }

    /// Parses a configuration. `file` names it in errors, and relative paths of secrets start from its folder.
    ///
    /// # Errors
    /// Every mistake found, with its place.
    pub fn parse(text: &str, file: &str, io_features: &[&str], sources: &dyn Sources) -> Result<Self, ConfigError> {
        let (config, problems, more) = parse::config(text, file, io_features, sources);
        if problems.is_empty() { Ok(config) } else { Err(ConfigError { file: file.to_owned(), problems, more }) }
    }

    /// The place of the tenant of that name.
    pub fn tenant(&self, name: &str) -> Option<TenantId> {
        let index = self.tenants.iter().position(|t| t.name == name)?;
        u16::try_from(index).ok().map(TenantId)
    }
}

/// Every key's default. It has no listener and nobody who could authenticate.
impl Default for Config {
    fn default() -> Self {
        Config {
            listen: Vec::new(),
            relay: Vec::new(),
            relay_ports: 49152..=65535,
            turn: Turn::default(),
            guard: Guard::default(),
            limits: Limits::default(),
            workers: None,
            io: Io::default(),
            metrics: Metrics::default(),
            control: Control::default(),
            drain: Drain::default(),
            log: Log::default(),
            privacy: Privacy::default(),
            spool: Spool::default(),
            policy: Policy::default(),
            plugins: Vec::new(),
            geo: Geo::default(),
            tenants: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// `[[listen]]`: where clients come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listen {
    /// The UDP address. With an unspecified IP: every address of that family that the machine has,
    /// each with a socket of its own.
    pub address: SocketAddr,
    /// Sent to everybody who has not authenticated (RFC 8489, 14.9).
    pub realm: String,
    /// The tenant of user names that name none.
    pub tenant: TenantId,
}

/// `[[relay]]`: an address on which relayed transport addresses are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Relay {
    /// An address of this machine.
    pub address: IpAddr,
    /// What peers and clients see in its place, where a NAT translates 1:1. Of the same family.
    pub external_address: Option<IpAddr>,
}

/// `[turn]`: options of the TURN machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Turn {
    /// Lifetime of an allocation whose client asks for none; at most `allocation_lifetime_max`.
    pub allocation_lifetime: Duration,
    /// Longest lifetime of an allocation.
    pub allocation_lifetime_max: Duration,
    /// Life of a nonce.
    pub nonce_lifetime: Duration,
    /// Value of SOFTWARE (RFC 8489, 14.14); `None`: not sent.
    pub software: Option<String>,
}

impl Default for Turn {
    fn default() -> Self {
        Turn {
            allocation_lifetime: limits::ALLOCATION_LIFETIME_DEFAULT,
            allocation_lifetime_max: limits::ALLOCATION_LIFETIME_MAX,
            nonce_lifetime: limits::NONCE_LIFETIME_MAX,
            software: None,
        }
    }
}

/// `[guard]`: what peers may be, and what strangers may ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Guard {
    /// Classes of special-purpose addresses that are opened.
    pub allow_classes: Vec<AddressClass>,
    /// Ranges that are opened, whatever their class.
    pub allow_ranges: Vec<Range>,
    /// Ranges that are closed, whatever else opens them.
    pub deny_ranges: Vec<Range>,
    /// Ranges of clients that are not answered.
    pub deny_clients: Vec<Range>,
    /// Answers per second to those who have not authenticated, per worker and source prefix. At least 1:
    /// without a 401 nobody could authenticate.
    pub unauthenticated_per_second: u32,
    /// The same at once, after a silence. At least 1.
    pub unauthenticated_burst: u32,
}

impl Default for Guard {
    fn default() -> Self {
        Guard {
            allow_classes: Vec::new(),
            allow_ranges: Vec::new(),
            deny_ranges: Vec::new(),
            deny_clients: Vec::new(),
            unauthenticated_per_second: limits::UNAUTHENTICATED_PER_SECOND_DEFAULT,
            unauthenticated_burst: limits::UNAUTHENTICATED_BURST_DEFAULT,
        }
    }
}

/// An address range in CIDR form. No bit behind the prefix is set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Range {
    /// The first address.
    pub address: IpAddr,
    /// How many leading bits are the network's: at most 32 or 128.
    pub prefix_bits: u8,
}

/// `[limits]`: quotas by scope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Of all together. Its `allocations` is always set.
    pub total: Quota,
    /// Of each tenant, unless the tenant has lower ones.
    pub tenant: Quota,
    /// Of each user, unless the tenant has lower ones.
    pub user: Quota,
    /// Of each allocation. Its `permissions` and `channels` are always set, its `allocations` never.
    pub allocation: Quota,
}

impl Limits {
    /// Allocations in all.
    pub fn allocations(&self) -> u32 {
        self.total.allocations.unwrap_or(limits::ALLOCATIONS_DEFAULT)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            total: Quota { allocations: Some(limits::ALLOCATIONS_DEFAULT), ..Quota::default() },
            tenant: Quota::default(),
            user: Quota { allocations: Some(limits::ALLOCATIONS_PER_USER_DEFAULT), ..Quota::default() },
            allocation: Quota {
                permissions: Some(limits::PERMISSIONS_PER_ALLOCATION_DEFAULT),
                channels: Some(limits::CHANNELS_PER_ALLOCATION_DEFAULT),
                ..Quota::default()
            },
        }
    }
}

/// Quotas of one tenant: never above those of the relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TenantLimits {
    /// Of the tenant.
    pub tenant: Quota,
    /// Of each of its users.
    pub user: Quota,
}

/// What one account may hold and use. `None`: no limit of its own, those of other scopes hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Quota {
    /// Live allocations.
    pub allocations: Option<u32>,
    /// Live permissions.
    pub permissions: Option<u32>,
    /// Live channels.
    pub channels: Option<u32>,
    /// Relayed payload, both directions together.
    pub bits_per_second: Option<u64>,
    /// Relayed packets, both directions together.
    pub packets_per_second: Option<u64>,
}

/// `[io]`: the packet driver.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Io {
    /// Which one.
    pub driver: Driver,
    /// Features of the kernel that are not used even where it has them.
    pub disable: Vec<String>,
    /// SO_RCVBUF in bytes of each socket; 0 keeps the kernel's default.
    pub receive_buffer_bytes: u32,
    /// SO_SNDBUF in bytes of each socket; 0 keeps the kernel's default.
    pub send_buffer_bytes: u32,
    /// Packet buffers of each worker; `None`: computed from the limit on allocations.
    pub slots: Option<u32>,
    /// Microseconds that a busy worker on io_uring may wait for a second socket to have something.
    pub wait_budget_us: u32,
}

/// Which driver moves packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Driver {
    /// io_uring wherever it works, else epoll.
    #[default]
    Auto,
    /// io_uring or nothing.
    IoUring,
    /// epoll.
    Epoll,
}

impl Driver {
    /// Every driver with its name.
    pub const NAMED: &'static [(&'static str, Driver)] =
        &[("auto", Driver::Auto), ("io_uring", Driver::IoUring), ("epoll", Driver::Epoll)];
}

/// `[metrics]`: the HTTP listener of metrics and health.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Metrics {
    /// Its TCP address; `None`: none. Off loopback only with `allow_plaintext`.
    pub listen: Option<SocketAddr>,
    /// The operator accepts that metrics cross a network in plain text.
    pub allow_plaintext: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics { listen: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9641)), allow_plaintext: false }
    }
}

/// `[drain]`: how the relay ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drain {
    /// How long allocations may go on after SIGTERM; zero: they end at once.
    pub deadline: Duration,
    /// Where new clients are sent meanwhile.
    pub alternates: Alternates,
}

impl Default for Drain {
    fn default() -> Self {
        Drain { deadline: limits::DRAIN_DEADLINE_DEFAULT, alternates: Alternates::default() }
    }
}

/// `[log]`: what is logged to standard error.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Log {
    /// From which level on.
    pub level: LogLevel,
    /// In which form.
    pub format: LogFormat,
}

/// The form of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// Lines for people, without personal data.
    #[default]
    Text,
    /// JSON lines for programs, with pseudonyms in place of personal data.
    Json,
}

impl LogFormat {
    /// Every form with its name.
    pub const NAMED: &'static [(&'static str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
}

/// A level of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogLevel {
    /// What stops the relay.
    Error,
    /// What would wake somebody.
    Warn,
    /// What changes.
    #[default]
    Info,
    /// What may explain a fault.
    Debug,
    /// All of it.
    Trace,
}

impl LogLevel {
    /// Every level with its name.
    pub const NAMED: &'static [(&'static str, LogLevel)] = &[
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
}

/// `[control]`: the socket of administrators.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Control {
    /// Where it is.
    pub socket: ControlSocket,
}

/// Where the control socket is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ControlSocket {
    /// In the runtime directory that the service manager made, else nowhere.
    #[default]
    Auto,
    /// Nowhere.
    None,
    /// At an absolute path.
    At(PathBuf),
}

/// `[[tenant]]`: whose users a relay serves.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its name, as in the user name `expiry:tenant/user`.
    pub name: String,
    /// Live shared secrets of time-limited credentials: at most two, the first is the one in use.
    pub secrets: Vec<Secret<String>>,
    /// Static users.
    pub users: Vec<User>,
    /// Its quotas.
    pub limits: TenantLimits,
    /// What is written down of its users.
    pub privacy: TenantPrivacy,
    /// Plugins that decide for it, in their order.
    pub policies: Vec<TenantPolicy>,
}

/// `[[tenant.user]]`: a static user.
#[derive(Clone, Debug)]
pub struct User {
    /// Its name, without the tenant.
    pub name: Pii<String>,
    /// Its password.
    pub password: Secret<String>,
}
