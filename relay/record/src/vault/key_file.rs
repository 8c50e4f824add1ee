//! The file of one key.
//!
//! ```text
//!  0          8     12            20            28        44    76         84
//!  | SLUICEK1 | day | dies (wall) | dies (boot) | boot id | key | checksum |
//! ```
//!
//! Numbers are big-endian; a long-lived key has zeros for day, ends and boot id. The checksum is the first 8 bytes of
//! SHA-256 over all that stands before it and the name of the tenant, so that a file that was cut, zeroed or renamed is
//! no key.

use sluice_base::Mono;
use sluice_crypto::{Zeroizing, sha256};
use sluice_privacy::Day;
use sluice_privacy::keyring::{Deadline, Stored};

/// Bytes of a key's file.
pub(crate) const BYTES: usize = 84;

const MAGIC: [u8; 8] = *b"SLUICEK1";
const CHECKED: usize = 76;

/// What stands beside the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct KeyFile {
    pub(crate) day: Day,
    pub(crate) dies: Deadline,
    /// The start of the machine that `dies.boot` is of; zeros where that is not known.
    pub(crate) boot_id: [u8; 16],
}

impl KeyFile {
    /// Of a key that no day ends.
    pub(crate) const LONG: KeyFile =
        KeyFile { day: Day(0), dies: Deadline { unix_seconds: 0, boot: Mono::from_nanos(0) }, boot_id: [0; 16] };

    pub(crate) fn write(&self, key: &[u8; 32], tenant: &str) -> Zeroizing<[u8; BYTES]> {
        let mut bytes = Zeroizing::new([0; BYTES]);
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.day.0.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.dies.unix_seconds.to_be_bytes());
        bytes[20..28].copy_from_slice(&self.dies.boot.nanos().to_be_bytes());
        bytes[28..44].copy_from_slice(&self.boot_id);
        bytes[44..CHECKED].copy_from_slice(key);
        let checksum = sha256(&[&bytes[..CHECKED], tenant.as_bytes()]);
        bytes[CHECKED..].copy_from_slice(&checksum[..BYTES - CHECKED]);
        bytes
    }

    /// `None` when it is no whole file of this tenant's.
    pub(crate) fn read(bytes: &[u8], tenant: &str) -> Option<(Self, Zeroizing<[u8; 32]>)> {
        let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
        let checksum = sha256(&[&bytes[..CHECKED], tenant.as_bytes()]);
        if bytes[..8] != MAGIC || bytes[CHECKED..] != checksum[..BYTES - CHECKED] {
            return None;
        }
        let number = |at: usize| Some(u64::from_be_bytes(bytes[at..at + 8].try_into().ok()?));
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(&bytes[44..CHECKED]);
        let day = Day(u32::from_be_bytes(bytes[8..12].try_into().ok()?));
        let dies = Deadline { unix_seconds: number(12)?, boot: Mono::from_nanos(number(20)?) };
        Some((KeyFile { day, dies, boot_id: bytes[28..44].try_into().ok()? }, key))
    }

    /// Its ends, as far as they can be believed now: memory does not outlive the machine's start, so what lies there is
    /// of the present one.
    pub(crate) fn stored(&self, is_memory: bool, boot_id: Option<[u8; 16]>) -> Stored {
        let same_start = is_memory || boot_id.is_some_and(|id| id == self.boot_id);
        Stored { unix_seconds: self.dies.unix_seconds, boot: same_start.then_some(self.dies.boot) }
    }
}
