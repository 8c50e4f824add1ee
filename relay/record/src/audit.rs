//! The audit: entries that are only ever appended, each bound to the one before it.
//!
//! The hash of an entry is SHA-256 over the hash before it, its header and its ciphertext, so that the chain holds when
//! a key is destroyed and nobody can read the ciphertext any longer. With each commit the last entry is signed, and
//! every [`AUDIT_CHECKPOINT_ENTRIES`] entries, at the end of each day and of each run a checkpoint that stays.
//!
//! [`AUDIT_CHECKPOINT_ENTRIES`]: sluice_base::limits::AUDIT_CHECKPOINT_ENTRIES

mod chain;
mod read;
mod verify;

#[cfg(test)]
pub(crate) use chain::PRUNING;
pub(crate) use chain::{Chain, Draft, prunable_entries};
pub(crate) use read::tail;
pub use read::{ExportError, Line, export};
pub(crate) use verify::publish_key;
pub use verify::{Broken, Verified, key_in, published_key, verify};

use sluice_privacy::Class;

/// What an entry is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// A client's stay began, or its admission was written.
    Connect,
    /// It ended.
    Disconnect,
    /// A request was refused.
    Denied,
    /// A plugin had words for it.
    Tagged,
    /// An administrative change.
    Admin,
    /// Personal data was read.
    Read,
    /// A key was destroyed.
    KeyDestroyed,
    /// The wall clock was set.
    ClockStep,
    /// Records were removed at the end of their retention.
    Sweep,
    /// An address was banned.
    BanAdded,
    /// A ban was lifted.
    BanRemoved,
    /// Sessions were put under a legal hold.
    HoldAdded,
    /// A legal hold was lifted.
    HoldLifted,
    /// A copy of the store was made.
    Backup,
    /// The store was replaced by a copy.
    Restore,
    /// The relay began to record.
    Start,
    /// It ended.
    Stop,
}

impl Kind {
    /// Every one.
    pub const ALL: &[Kind] = &[
        Kind::Connect,
        Kind::Disconnect,
        Kind::Denied,
        Kind::Tagged,
        Kind::Admin,
        Kind::Read,
        Kind::KeyDestroyed,
        Kind::ClockStep,
        Kind::Sweep,
        Kind::BanAdded,
        Kind::BanRemoved,
        Kind::HoldAdded,
        Kind::HoldLifted,
        Kind::Backup,
        Kind::Restore,
        Kind::Start,
        Kind::Stop,
    ];

    /// Its word in the audit.
    pub const fn text(self) -> &'static str {
        match self {
            Kind::Connect => "connect",
            Kind::Disconnect => "disconnect",
            Kind::Denied => "denied",
            Kind::Tagged => "tagged",
            Kind::Admin => "admin",
            Kind::Read => "read",
            Kind::KeyDestroyed => "key-destroyed",
            Kind::ClockStep => "clock-step",
            Kind::Sweep => "sweep",
            Kind::BanAdded => "ban-added",
            Kind::BanRemoved => "ban-removed",
            Kind::HoldAdded => "hold-added",
            Kind::HoldLifted => "hold-lifted",
            Kind::Backup => "backup",
            Kind::Restore => "restore",
            Kind::Start => "start",
            Kind::Stop => "stop",
        }
    }

    /// The class of its body.
    pub const fn class(self) -> Class {
        match self {
            Kind::Connect | Kind::Disconnect | Kind::Denied | Kind::Tagged => Class::AccessAudit,
            _ => Class::AdminAudit,
        }
    }
}

/// The kind of that word.
pub(crate) fn kind_of(text: &str) -> Option<Kind> {
    Kind::ALL.iter().copied().find(|kind| kind.text() == text)
}

/// The id that the body of an entry is sealed under: its number.
pub(crate) fn sealing_id(seq: u64) -> [u8; 16] {
    u128::from(seq).to_be_bytes()
}

/// One entry as it is stored. Types are the table's, so that a reader can say which entry is not as it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stored {
    pub(crate) seq: u64,
    pub(crate) at: i64,
    pub(crate) kind: String,
    pub(crate) tenant: String,
    pub(crate) session: Option<Vec<u8>>,
    pub(crate) body: Vec<u8>,
    pub(crate) hash: Vec<u8>,
}

impl Stored {
    /// The entry's hash, after an entry of hash `before`.
    pub(crate) fn chained(&self, before: &[u8; 32]) -> [u8; 32] {
        let session = self.session.as_deref();
        let header = header(self.seq, self.at, &self.kind, &self.tenant, session, self.body.len());
        sluice_crypto::sha256(&[before, &header, &self.body])
    }
}

/// The header as it is hashed: every part with its length, so that no two headers have the same bytes.
fn header(seq: u64, at: i64, kind: &str, tenant: &str, session: Option<&[u8]>, body: usize) -> Vec<u8> {
    let mut out = b"sluice audit 1".to_vec();
    out.extend_from_slice(&seq.to_be_bytes());
    out.extend_from_slice(&at.to_be_bytes());
    for part in [kind.as_bytes(), tenant.as_bytes()] {
        out.extend_from_slice(&(part.len() as u64).to_be_bytes());
        out.extend_from_slice(part);
    }
    // The length of an absent session is one that no session has.
    out.extend_from_slice(&session.map_or(u64::MAX, |session| session.len() as u64).to_be_bytes());
    out.extend_from_slice(session.unwrap_or_default());
    out.extend_from_slice(&(body as u64).to_be_bytes());
    out
}

/// What a signature says of the chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mark {
    /// It had come so far.
    Checkpoint,
    /// It ends here.
    Head,
    /// It begins after this: what was before has reached the end of its retention.
    Origin,
}

impl Mark {
    /// The row of the table of bounds.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Mark::Checkpoint => "checkpoint",
            Mark::Head => "head",
            Mark::Origin => "origin",
        }
    }

    /// What is signed.
    pub(crate) fn message(self, seq: u64, at: i64, hash: &[u8]) -> Vec<u8> {
        let mut out = b"sluice audit 1 ".to_vec();
        out.extend_from_slice(self.name().as_bytes());
        out.extend_from_slice(&seq.to_be_bytes());
        out.extend_from_slice(&at.to_be_bytes());
        out.extend_from_slice(hash);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_words_of_their_own() {
        for kind in Kind::ALL {
            assert_eq!(kind_of(kind.text()), Some(*kind));
        }
    }

    #[test]
    fn no_part_of_a_header_can_become_anothers() {
        let one = header(1, 2, "ab", "c", None, 0);
        assert_ne!(one, header(1, 2, "a", "bc", None, 0));
        assert_ne!(one, header(1, 2, "ab", "c", Some(b""), 0));
    }
}
