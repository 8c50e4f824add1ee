//! Appending.

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::Value;
use sluice_base::SessionId;
use sluice_base::limits::AUDIT_CHECKPOINT_ENTRIES;
use sluice_privacy::Day;

use super::{Kind, Mark, Stored, sealing_id};
use crate::store::Failure;
use crate::vault::Vault;

/// An entry to be made.
pub(crate) struct Draft<'a> {
    /// Seconds since the Unix epoch.
    pub(crate) at: u64,
    pub(crate) kind: Kind,
    /// Empty for what concerns the relay as a whole.
    pub(crate) tenant: &'a str,
    pub(crate) session: Option<SessionId>,
    /// What is sealed: an object.
    pub(crate) body: Value,
}

/// Where the chain ends. A copy of it is kept until the commit, so that a transaction that fails leaves no trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Chain {
    /// Number of the last entry; 0 before the first.
    seq: u64,
    hash: [u8; 32],
    at: i64,
    /// Number of the last entry that a checkpoint is at.
    checkpoint: u64,
    /// Number of the last entry that is signed.
    signed: u64,
}

impl Chain {
    /// The end of the chain of a store. The second is false when its last entry is not the one that was signed.
    pub(crate) fn load(connection: &Connection, vault: &Vault) -> Result<(Self, bool), Failure> {
        let bound = "SELECT seq, at, hash, signature FROM bound WHERE name = 'head'";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        let head: Option<(u64, i64, Vec<u8>, Vec<u8>)> = connection.query_row(bound, [], row).optional()?;
        let last = "SELECT seq, at, hash FROM audit ORDER BY seq DESC LIMIT 1";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let last: Option<(u64, i64, Vec<u8>)> = connection.query_row(last, [], row).optional()?;
        let mark = "SELECT COALESCE(MAX(seq), 0) FROM checkpoint";
        let checkpoint: u64 = connection.query_row(mark, [], |row| row.get(0))?;
        let is_signed = match (&head, &last) {
            (None, None) => true,
            (Some((seq, at, hash, signature)), last) => {
                let is_last = last.as_ref().is_none_or(|(s, a, h)| (s, a, h) == (seq, at, hash));
                is_last && vault.verifying_key().verify(&Mark::Head.message(*seq, *at, hash), signature)
            }
            (None, Some(_)) => false,
        };
        // A chain that was cut goes on after what was signed, so that the gap stays to be seen.
        let ends = [head.map(|(seq, at, hash, _)| (seq, at, hash)), last].into_iter().flatten();
        let (seq, at, hash) = ends.max_by_key(|(seq, ..)| *seq).unwrap_or((0, 0, vec![0; 32]));
        let hash = hash.try_into().unwrap_or([0; 32]);
        Ok((Chain { seq, hash, at, checkpoint, signed: seq }, is_signed))
    }

    /// Number of the last entry.
    pub(crate) const fn end(&self) -> u64 {
        self.seq
    }

    /// Appends an entry.
    pub(crate) fn append(&mut self, connection: &Connection, vault: &Vault, draft: &Draft<'_>) -> Result<(), Failure> {
        let at = i64::try_from(draft.at).unwrap_or(i64::MAX);
        if self.seq > 0 && day(at) != day(self.at) {
            // At the last entry of a day, so that what is older can be removed to the day.
            self.checkpoint(connection, vault)?;
        }
        let seq = self.seq + 1;
        let id = sealing_id(seq);
        let text = draft.body.to_string();
        let body = vault.seal_long(draft.tenant, draft.kind.class(), &id, text.as_bytes()).map_err(Failure::sealing)?;
        let mut entry = Stored {
            seq,
            at,
            kind: draft.kind.text().to_owned(),
            tenant: draft.tenant.to_owned(),
            session: draft.session.map(|session| session.0.to_vec()),
            body,
            hash: Vec::new(),
        };
        let hash = entry.chained(&self.hash);
        entry.hash = hash.to_vec();
        let insert = "INSERT INTO audit (seq, at, kind, tenant, session, body, hash) VALUES (?, ?, ?, ?, ?, ?, ?)";
        let values = params![seq, entry.at, entry.kind, entry.tenant, entry.session, entry.body, entry.hash];
        connection.prepare_cached(insert)?.execute(values)?;
        self.seq = seq;
        self.hash = hash;
        self.at = entry.at;
        Ok(())
    }

    /// Signs what was appended: to be called before each commit. Makes a checkpoint where one is due.
    pub(crate) fn sign(&mut self, connection: &Connection, vault: &Vault) -> Result<(), Failure> {
        if self.signed == self.seq {
            return Ok(());
        }
        put_bound(connection, vault, Mark::Head, self.seq, self.at, &self.hash)?;
        self.signed = self.seq;
        if self.seq - self.checkpoint >= AUDIT_CHECKPOINT_ENTRIES {
            self.checkpoint(connection, vault)?;
        }
        Ok(())
    }

    /// Makes a checkpoint at the last entry.
    pub(crate) fn checkpoint(&mut self, connection: &Connection, vault: &Vault) -> Result<(), Failure> {
        if self.checkpoint == self.seq {
            return Ok(());
        }
        let signature = vault.sign(&Mark::Checkpoint.message(self.seq, self.at, &self.hash));
        let insert = "INSERT INTO checkpoint (seq, at, hash, signature) VALUES (?, ?, ?, ?)";
        let values = params![self.seq, self.at, self.hash.as_slice(), signature.as_slice()];
        connection.prepare_cached(insert)?.execute(values)?;
        self.checkpoint = self.seq;
        Ok(())
    }

    /// Removes entries that are older than `horizon`, in seconds since the Unix epoch, up to a checkpoint among them,
    /// which becomes the chain's beginning: `most` of them, or as many as there are to the first checkpoint. How many
    /// there were.
    pub(crate) fn prune(
        &self,
        connection: &Connection,
        vault: &Vault,
        horizon: u64,
        most: u64,
    ) -> Result<u64, Failure> {
        let Some(first) = first(connection)? else { return Ok(0) };
        let Some((seq, at, hash)) = prunable(connection, first, horizon, most)? else { return Ok(0) };
        put_bound(connection, vault, Mark::Origin, seq, at, &hash)?;
        let removed = connection.execute(PRUNE, [seq])?;
        connection.execute(PRUNE_CHECKPOINTS, [seq])?;
        Ok(removed as u64)
    }
}

/// How many entries [`Chain::prune`] would remove when it is called until it removes none.
pub(crate) fn prunable_entries(connection: &Connection, horizon: u64) -> Result<u64, Failure> {
    let Some(first) = first(connection)? else { return Ok(0) };
    let mut next = first;
    while let Some((seq, ..)) = prunable(connection, next, horizon, AUDIT_CHECKPOINT_ENTRIES)? {
        next = seq + 1;
    }
    Ok(next - first)
}

/// What pruning asks of the tables.
#[cfg(test)]
pub(crate) const PRUNING: &[&str] = &[FIRST, REACHED, NEXT, KEPT, LAST, PRUNE, PRUNE_CHECKPOINTS];

const FIRST: &str = "SELECT MIN(seq) FROM audit";
const REACHED: &str = "SELECT MAX(seq) FROM checkpoint WHERE seq BETWEEN ?1 AND ?2";
const NEXT: &str = "SELECT MIN(seq) FROM checkpoint WHERE seq >= ?1";
const KEPT: &str = "SELECT MIN(seq) FROM audit WHERE seq BETWEEN ?1 AND ?2 AND at >= ?3";
const LAST: &str = "SELECT seq, at, hash FROM checkpoint WHERE seq >= ?1 AND seq < ?2 ORDER BY seq DESC LIMIT 1";
const PRUNE: &str = "DELETE FROM audit WHERE seq <= ?1";
const PRUNE_CHECKPOINTS: &str = "DELETE FROM checkpoint WHERE seq <= ?1";

/// Number of the first entry.
fn first(connection: &Connection) -> Result<Option<u64>, Failure> {
    Ok(connection.prepare_cached(FIRST)?.query_row([], |row| row.get(0))?)
}

/// Of the entries from `first` on, `most` or as many as there are to the next checkpoint: the last checkpoint of which,
/// with everything before it, nothing has to be kept.
fn prunable(
    connection: &Connection,
    first: u64,
    horizon: u64,
    most: u64,
) -> Result<Option<(u64, i64, Vec<u8>)>, Failure> {
    let number = |query: &str, values: &[&dyn rusqlite::ToSql]| -> Result<Option<u64>, Failure> {
        Ok(connection.prepare_cached(query)?.query_row(values, |row| row.get(0))?)
    };
    let reached = number(REACHED, params![first, first.saturating_add(most).saturating_sub(1)])?;
    let Some(end) = reached.map_or_else(|| number(NEXT, params![first]), |seq| Ok(Some(seq)))? else {
        return Ok(None);
    };
    let horizon = i64::try_from(horizon).unwrap_or(i64::MAX);
    // Times of entries need not rise with their numbers: the first that is kept bounds what may go.
    let kept = number(KEPT, params![first, end, horizon])?.unwrap_or(end + 1);
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    Ok(connection.prepare_cached(LAST)?.query_row([first, kept], row).optional()?)
}

/// The day of an entry.
fn day(at: i64) -> Day {
    Day::of(u64::try_from(at).unwrap_or(0))
}

fn put_bound(
    connection: &Connection,
    vault: &Vault,
    mark: Mark,
    seq: u64,
    at: i64,
    hash: &[u8],
) -> Result<(), Failure> {
    let signature = vault.sign(&mark.message(seq, at, hash));
    let values = params![mark.name(), seq, at, hash, signature.as_slice()];
    let update = "UPDATE bound SET seq = ?2, at = ?3, hash = ?4, signature = ?5 WHERE name = ?1";
    if connection.prepare_cached(update)?.execute(values)? == 0 {
        let insert = "INSERT INTO bound (name, seq, at, hash, signature) VALUES (?1, ?2, ?3, ?4, ?5)";
        connection.prepare_cached(insert)?.execute(values)?;
    }
    Ok(())
}
