//! What is written down, where, under which keys and for how long.

use std::path::PathBuf;
use std::time::Duration;

use sluice_base::limits;

/// `[privacy]`: records of sessions, and their keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Privacy {
    /// Whether anything is written down.
    pub records: bool,
    /// Where records are.
    pub state_directory: Directory,
    /// How long the keys of addresses outlive the process.
    pub keys: Keys,
    /// Where their files are.
    pub keys_directory: Directory,
    /// Whether an allocation waits for its record.
    pub admission: Admission,
    /// How long it waits before it is refused.
    pub admission_wait: Duration,
    /// Days, 0 to 7, after which no byte of an address can be read any more; 0: none is ever written.
    pub ip_retention_days: u8,
    /// Whether the sessions of an address may be looked up over the control socket.
    pub lookup: bool,
    /// How long records live that have no address in them.
    pub retention: Retention,
}

impl Default for Privacy {
    fn default() -> Self {
        Privacy {
            records: false,
            state_directory: Directory::Auto,
            keys: Keys::Runtime,
            keys_directory: Directory::Auto,
            admission: Admission::Required,
            admission_wait: limits::ADMISSION_WAIT_DEFAULT,
            ip_retention_days: limits::IP_RETENTION_DAYS_MAX,
            lookup: false,
            retention: Retention::default(),
        }
    }
}

/// A directory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Directory {
    /// The one that the service manager has made for it.
    #[default]
    Auto,
    /// An absolute path.
    At(PathBuf),
}

/// What becomes of the keys of addresses when the process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Keys {
    /// They outlive the process, and not the machine: on tmpfs, else in memory alone.
    #[default]
    Runtime,
    /// They outlive the machine: in any directory.
    Persistent,
}

impl Keys {
    /// Every one with its name.
    pub const NAMED: &'static [(&'static str, Keys)] = &[("runtime", Keys::Runtime), ("persistent", Keys::Persistent)];
}

/// Whether an allocation waits for its record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Admission {
    /// Until it is on the disk; without one there is no allocation.
    #[default]
    Required,
    /// It does not, and a record that is lost is counted.
    BestEffort,
}

impl Admission {
    /// Every one with its name.
    pub const NAMED: &'static [(&'static str, Admission)] =
        &[("required", Admission::Required), ("best-effort", Admission::BestEffort)];
}

/// `[privacy.retention]`: days that the classes without addresses live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// Who used the relay, when.
    pub access_audit_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Retention { access_audit_days: limits::ACCESS_AUDIT_DAYS_DEFAULT }
    }
}

/// `[tenant.privacy]`: never longer than what holds for the relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TenantPrivacy {
    /// As in [`Privacy`].
    pub ip_retention_days: u8,
}

/// `[spool]`: records on their way to whoever collects them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spool {
    /// What whoever collects them knows this relay by.
    pub node: String,
    /// `[[spool.sink]]`: where they go. Without one nothing is spooled.
    pub sinks: Vec<Sink>,
}

impl Default for Spool {
    fn default() -> Self {
        Spool { node: "sluice".to_owned(), sinks: Vec::new() }
    }
}

/// Where records go, as JSON lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sink {
    /// They are added to a file.
    File {
        /// Its absolute path.
        path: PathBuf,
    },
    /// They are sent by POST.
    Http {
        /// Where to.
        url: String,
        /// The operator accepts that another machine gets them in plain text.
        allow_plaintext: bool,
    },
}
