//! What a plugin may implement, and what it may be granted.

use std::fmt;

/// The package, and its version: the one line of development, matched exactly.
pub(crate) const PACKAGE: &str = "sluice:policy/";
pub(crate) const VERSION: &str = "0.0.1";

/// A question that a plugin may answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Hook {
    /// `admission.allocate`.
    Allocate,
    /// `admission.permit-peers`.
    PermitPeers,
    /// `media`: its three questions.
    Media,
    /// `recording`: its two questions.
    Recording,
    /// `log-plan.plan`.
    LogPlan,
    /// `log-filter.filter`.
    LogFilter,
    /// `geofence.plan`, and what the host decides by it.
    Geofence,
    /// `erasure.erase`.
    Erasure,
}

impl Hook {
    /// Its word in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Hook::Allocate => "allocate",
            Hook::PermitPeers => "permit-peers",
            Hook::Media => "media",
            Hook::Recording => "recording",
            Hook::LogPlan => "log-plan",
            Hook::LogFilter => "log-filter",
            Hook::Geofence => "geofence",
            Hook::Erasure => "erasure",
        }
    }
}

impl Hook {
    /// Whether this host carries out what is decided there. What it has no occasion for (a recording) is
    /// never asked; a second look at records is a promise that would not be kept.
    pub const fn is_kept(self) -> bool {
        !matches!(self, Hook::LogFilter)
    }

    /// Whether it is asked about one request, and not for a plan that many are judged by.
    pub(crate) const fn is_about_a_request(self) -> bool {
        matches!(self, Hook::Allocate | Hook::PermitPeers)
    }

    /// Whether what it is told may have attributes: those of a room and of who is in it, as signalling gives them.
    pub(crate) const fn has_attributes(self) -> bool {
        matches!(self, Hook::Media | Hook::Recording)
    }

    /// Whether there is an occasion to ask it.
    pub const fn is_asked(self) -> bool {
        !matches!(self, Hook::Media | Hook::Recording | Hook::LogFilter)
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Interfaces that a plugin may export, each with its functions.
pub(crate) const EXPORTS: &[(&str, &[&str])] = &[
    ("setup", &["describe", "validate-settings"]),
    ("admission", &["allocate", "permit-peers"]),
    ("media", &["join", "publish", "subscribe"]),
    ("recording", &["may-start", "review"]),
    ("log-plan", &["plan"]),
    ("log-filter", &["filter"]),
    ("geofence", &["plan"]),
    ("erasure", &["erase"]),
];

/// Interfaces that every plugin may import.
pub(crate) const IMPORTS: &[&str] = &["types", "settings", "logging", "metrics"];

/// What an operator may grant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Grant {
    /// A store of its own for each tenant.
    Kv,
    /// Questions about places.
    Geo,
    /// Rotating tokens.
    Pseudonym,
    /// Addresses of clients and peers.
    RawAddresses,
}

impl Grant {
    /// Every grant with its name in the configuration.
    pub const NAMED: &'static [(&'static str, Grant)] = &[
        ("kv", Grant::Kv),
        ("geo", Grant::Geo),
        ("pseudonym", Grant::Pseudonym),
        ("raw-addresses", Grant::RawAddresses),
    ];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        Grant::NAMED.iter().find(|(_, grant)| *grant == self).map_or("", |(name, _)| name)
    }

    /// The grant that an imported interface takes.
    pub(crate) fn of_interface(interface: &str) -> Option<Self> {
        match interface {
            "kv" => Some(Grant::Kv),
            "geo-lookup" => Some(Grant::Geo),
            "pseudonym" => Some(Grant::Pseudonym),
            _ => None,
        }
    }
}

/// Name and version of an interface of this package.
pub(crate) fn interface(name: &str) -> Option<(&str, &str)> {
    let rest = name.strip_prefix(PACKAGE)?;
    Some(rest.split_once('@').unwrap_or((rest, "")))
}
