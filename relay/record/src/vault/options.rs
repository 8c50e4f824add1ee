//! What a vault is opened with, and what it says about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sluice_base::memory::KeyCells;
use sluice_privacy::{Day, Moment};

use super::files::{Destroyer, Overwriter};

/// What a vault is opened with.
#[derive(Clone)]
pub struct VaultOptions {
    /// Where the long-lived keys are: a directory that there is.
    pub state_directory: PathBuf,
    /// Where the keys of the day are; `None` for memory alone.
    pub keys_directory: Option<PathBuf>,
    /// What that directory has to be.
    pub keys: Keys,
    /// Days for which addresses are kept unless the tenant says less.
    pub ip_retention_days: u8,
    /// Tenants that say something, with their days.
    pub tenants: Vec<(Arc<str>, u8)>,
    /// What destroys a key's file.
    pub destroyer: Arc<dyn Destroyer>,
}

/// How long the keys of the day outlive the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Keys {
    /// Until the machine stops: their directory has to be in memory.
    #[default]
    Runtime,
    /// They outlive the machine's stop too: their directory may be on a disk.
    Persistent,
}

/// What a vault needs of the machine.
pub trait Platform: Send + Sync {
    /// Both clocks.
    fn moment(&self) -> Moment;
    /// Locked memory.
    fn cells(&self) -> &dyn KeyCells;
    /// Whether a directory lies in memory (tmpfs or ramfs).
    ///
    /// # Errors
    /// The kernel's.
    fn is_tmpfs(&self, path: &Path) -> io::Result<bool>;
    /// Whether what is written in a directory is written to no swap, whatever [`Platform::has_swap`] says. False where
    /// nobody knows.
    ///
    /// # Errors
    /// The kernel's.
    fn is_never_swapped(&self, _path: &Path) -> io::Result<bool> {
        Ok(false)
    }
    /// Fills with what nobody can guess.
    fn random(&self, out: &mut [u8]);
    /// What tells one start of the machine from another, where that is to be had.
    fn boot_id(&self) -> Option<[u8; 16]>;
    /// Whether this process's memory may be written to a swap; `None` where that is not to be had.
    fn has_swap(&self) -> Option<bool>;
}

/// Why a vault was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    /// A file or directory.
    #[error("{path}: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the file system says.
        why: io::Error,
    },
    /// Keys would be written to a disk as other memory is.
    #[error(
        "the kernel locks no memory for keys: {0}. Raise LimitMEMLOCK of the unit (ulimit -l) above what the rings take"
    )]
    Memory(io::Error),
    /// Another process has these keys.
    #[error("{0}: another process has these keys. Each relay needs a keys directory of its own")]
    InUse(PathBuf),
    /// A long-lived key is damaged.
    #[error(
        "{path}: this key is damaged. Without it nothing that was sealed under it can be read: restore the file from a \
         backup, or move it away to begin with a new one"
    )]
    DamagedKey {
        /// Its file.
        path: PathBuf,
    },
}

/// What the start says to people, and does not stop for.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum VaultWarning {
    /// The keys directory is none in memory.
    MemoryOnly {
        /// Which.
        directory: PathBuf,
    },
    /// The keys directory is in memory, which may be written to a swap.
    Swapped {
        /// Which.
        directory: PathBuf,
    },
    /// Keys outlive the machine's stop.
    Persistent {
        /// Where they are.
        directory: PathBuf,
    },
    /// Memory may be written to a disk.
    Swap,
    /// What was known of the clock is lost.
    ClockLost {
        /// Where it was.
        file: PathBuf,
    },
    /// The wall clock is behind what it was.
    ClockBehind {
        /// By how much.
        by: Duration,
    },
    /// The keys of the day are not there.
    KeysLost {
        /// The day of the newest.
        newest: Day,
    },
    /// A key was damaged, and is destroyed.
    DamagedKey {
        /// The name of its file.
        file: String,
    },
}

impl fmt::Display for VaultWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VaultWarning::MemoryOnly { directory } => write!(
                f,
                "{} is not on a tmpfs, so the keys of the day stay in memory alone: a restart of the relay makes every \
                 address unreadable that was written down before",
                directory.display()
            ),
            VaultWarning::Swapped { directory } => write!(
                f,
                "{} is in memory that may be written to this machine's swap, where a key would outlive its end, so the \
                 keys of the day stay in locked memory alone: a restart of the relay makes every address unreadable \
                 that was written down before. Forbid it (MemorySwapMax=0 in the unit, memory.swap.max of its control \
                 group), mount a tmpfs there with the option noswap (Linux 6.4), or switch the swap off",
                directory.display()
            ),
            VaultWarning::Persistent { directory } => write!(
                f,
                "the keys of the day are files in {}: they outlive the machine's stop, and whoever copies that \
                 directory reads addresses after their end. Keep it out of every backup",
                directory.display()
            ),
            VaultWarning::Swap => f.write_str(
                "this machine has swap: keys are locked into memory, but addresses that are being handled are not. Use \
                 MemorySwapMax=0 or swap that is encrypted under a key of this start",
            ),
            VaultWarning::ClockLost { file } => write!(
                f,
                "{} is missing or damaged, so nothing is known of the clock before this start: records of classes \
                 other than ip are not deleted until an operator confirms the clock",
                file.display()
            ),
            VaultWarning::ClockBehind { by } => write!(
                f,
                "the clock is {} h behind the latest that it was: either it is wrong now, or it was then. Keys of the \
                 day die by the later one. Where the present one is right, confirm it",
                by.as_secs() / 3600
            ),
            VaultWarning::KeysLost { newest } => write!(
                f,
                "the keys of the day are not there, the newest of {newest}: the machine has started anew, or their \
                 directory was lost. Addresses that were written down under them cannot be read any more"
            ),
            VaultWarning::DamagedKey { file } => {
                write!(f, "the key {file} is damaged: it is destroyed, and what was sealed under it cannot be read")
            }
        }
    }
}

impl VaultOptions {
    /// Keys for seven days, in a keys directory in memory, destroyed by being overwritten.
    pub fn new(state_directory: PathBuf, keys_directory: Option<PathBuf>) -> Self {
        VaultOptions {
            state_directory,
            keys_directory,
            keys: Keys::Runtime,
            ip_retention_days: sluice_base::limits::IP_RETENTION_DAYS_MAX,
            tenants: Vec::new(),
            destroyer: Arc::new(Overwriter),
        }
    }
}

impl fmt::Debug for VaultOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultOptions")
            .field("state_directory", &self.state_directory)
            .field("keys_directory", &self.keys_directory)
            .field("keys", &self.keys)
            .field("ip_retention_days", &self.ip_retention_days)
            .finish_non_exhaustive()
    }
}
