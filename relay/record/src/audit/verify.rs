//! Whether the chain is whole.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Row};
use sluice_crypto::{Verifier, hex_decode, hex_encode};

use super::{Mark, Stored, kind_of};
use crate::store::{StoreError, private, read_only};

/// A chain that is whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verified {
    /// How many entries there are.
    pub entries: u64,
    /// Number of the first one; what was before has reached the end of its retention. 0 where there is none.
    pub first: u64,
    /// Number of the last one.
    pub last: u64,
    /// Checkpoints among them.
    pub checkpoints: u64,
}

/// The first thing that is not as it was written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the audit is broken at entry {seq}: {what}")]
pub struct Broken {
    /// Number of the entry.
    pub seq: u64,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Reads the whole audit of a state directory, or of a copy of one, beside a running relay or without. Writes nothing.
/// Signatures are those of `key`.
///
/// # Errors
/// The outer one: it cannot be read. The inner one: it is not whole.
pub fn verify(directory: &Path, key: &Verifier) -> Result<Result<Verified, Broken>, StoreError> {
    let mut connection = read_only(directory)?;
    // One transaction: what a running relay appends meanwhile is not seen.
    let transaction = connection.transaction()?;
    match walk(&transaction, key) {
        Ok(verified) => Ok(Ok(verified)),
        Err(Found::Broken(broken)) => Ok(Err(broken)),
        Err(Found::Unreadable(e)) => Err(e.into()),
    }
}

/// The key whose signatures the audit of a state directory has, as the relay published it there. Whoever can write to
/// the directory can replace it: an auditor keeps a copy elsewhere.
///
/// # Errors
/// The file is not there, or holds no key.
pub fn published_key(directory: &Path) -> io::Result<Verifier> {
    key_in(&directory.join(KEY_FILE))
}

/// The key in a copy of that file.
///
/// # Errors
/// The file is not there, or holds no key.
pub fn key_in(file: &Path) -> io::Result<Verifier> {
    let text = std::fs::read_to_string(file)?;
    let bytes = hex_decode(text.trim()).and_then(|bytes| bytes.try_into().ok());
    bytes.map(Verifier::new).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "there is no key in it"))
}

/// Writes the key into the state directory, for [`published_key`].
pub(crate) fn publish_key(directory: &Path, key: &Verifier) -> io::Result<()> {
    let text = format!("{}\n", hex_encode(key.bytes()));
    let path = directory.join(KEY_FILE);
    if std::fs::read(&path).is_ok_and(|found| found == text.as_bytes()) {
        return Ok(());
    }
    let mut file = private(&path)?;
    file.set_len(0)?;
    file.write_all(text.as_bytes())?;
    // A copy of the disk after a loss of power has to be verifiable too.
    file.sync_all()
}

/// The file of the key, in the state directory.
const KEY_FILE: &str = "audit.pub";

enum Found {
    Broken(Broken),
    Unreadable(rusqlite::Error),
}

impl From<rusqlite::Error> for Found {
    fn from(e: rusqlite::Error) -> Self {
        Found::Unreadable(e)
    }
}

fn broken(seq: u64, what: &'static str) -> Found {
    Found::Broken(Broken { seq, what })
}

/// What a signature is over.
struct Signed {
    seq: u64,
    hash: Vec<u8>,
    is_signed: bool,
}

fn walk(connection: &Connection, key: &Verifier) -> Result<Verified, Found> {
    let origin = bound(connection, key, Mark::Origin)?;
    let head = bound(connection, key, Mark::Head)?;
    let (mut last, mut hash) = (0, [0; 32]);
    if let Some(origin) = origin {
        let what = "the signature of the chain's beginning is not valid";
        last = origin.seq;
        hash = origin.hash.try_into().ok().filter(|_| origin.is_signed).ok_or_else(|| broken(last + 1, what))?;
    }
    let first = last + 1;
    let mut checkpoints = checkpoints(connection, key)?;
    let mut met = 0;
    let mut statement =
        connection.prepare("SELECT seq, at, kind, tenant, session, body, hash FROM audit ORDER BY seq")?;
    let mut rows = statement.query([])?;
    while let Some(row) = next(&mut rows, last + 1)? {
        let entry = entry(row).ok_or_else(|| broken(last + 1, "it is not of the form of an entry"))?;
        hash = follow(&entry, last + 1, &hash)?;
        last = entry.seq;
        met += checkpoint(checkpoints.remove(&last), last, &hash)?;
    }
    if let Some((seq, _)) = checkpoints.first_key_value() {
        return Err(broken((last + 1).min(*seq), "it is missing: there is a checkpoint of it or of a later one"));
    }
    ends(head, first, last, &hash)?;
    let entries = last + 1 - first;
    Ok(Verified { entries, first: if entries == 0 { 0 } else { first }, last, checkpoints: met })
}

/// The next row. A page that cannot be read is where the audit is broken.
fn next<'a, 'b>(rows: &'a mut rusqlite::Rows<'b>, seq: u64) -> Result<Option<&'a Row<'b>>, Found> {
    rows.next().map_err(|e| match e.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt) => broken(seq, "its page of the database is damaged"),
        _ => Found::Unreadable(e),
    })
}

/// The hash of an entry that is the one after the last.
fn follow(entry: &Stored, expected: u64, before: &[u8; 32]) -> Result<[u8; 32], Found> {
    if entry.seq > expected {
        return Err(broken(expected, "it is missing"));
    }
    if entry.seq < expected {
        return Err(broken(entry.seq, "it stands before the chain's beginning"));
    }
    let hash = entry.chained(before);
    if entry.hash != hash {
        return Err(broken(entry.seq, "its hash is not that of its header, its ciphertext and the entry before it"));
    }
    if kind_of(&entry.kind).is_none() {
        return Err(broken(entry.seq, "its kind is not known"));
    }
    Ok(hash)
}

fn checkpoint(found: Option<Signed>, seq: u64, hash: &[u8]) -> Result<u64, Found> {
    let Some(found) = found else { return Ok(0) };
    if found.hash != hash {
        return Err(broken(seq, "its checkpoint is of another entry"));
    }
    if !found.is_signed {
        return Err(broken(seq, "the signature of its checkpoint is not valid"));
    }
    Ok(1)
}

/// Whether the chain ends where it was last signed.
fn ends(head: Option<Signed>, first: u64, last: u64, hash: &[u8; 32]) -> Result<(), Found> {
    let Some(head) = head else {
        return if last + 1 == first {
            Ok(())
        } else {
            Err(broken(last, "the signature of the last entry is missing"))
        };
    };
    if !head.is_signed {
        return Err(broken(last, "the signature of the last entry is not valid"));
    }
    if head.seq > last {
        return Err(broken(last + 1, "it was signed, and it is missing: the end is cut off"));
    }
    if head.seq < last {
        return Err(broken(head.seq + 1, "it was not signed"));
    }
    if head.hash != *hash {
        return Err(broken(last, "it is not the entry that was signed"));
    }
    Ok(())
}

fn bound(connection: &Connection, key: &Verifier, mark: Mark) -> rusqlite::Result<Option<Signed>> {
    let query = "SELECT seq, at, hash, signature FROM bound WHERE name = ?";
    connection.query_row(query, [mark.name()], |row| Ok(signed(row, key, mark))).optional()
}

fn checkpoints(connection: &Connection, key: &Verifier) -> rusqlite::Result<BTreeMap<u64, Signed>> {
    let mut statement = connection.prepare("SELECT seq, at, hash, signature FROM checkpoint")?;
    let rows = statement.query_map([], |row| Ok(signed(row, key, Mark::Checkpoint)))?;
    rows.map(|found| found.map(|found| (found.seq, found))).collect()
}

fn signed(row: &Row<'_>, key: &Verifier, mark: Mark) -> Signed {
    let seq = integer(row, 0).and_then(|seq| u64::try_from(seq).ok());
    let (at, hash, signature) = (integer(row, 1), blob(row, 2), blob(row, 3));
    let is_signed = match (seq, at, &hash, &signature) {
        (Some(seq), Some(at), Some(hash), Some(signature)) => key.verify(&mark.message(seq, at, hash), signature),
        _ => false,
    };
    Signed { seq: seq.unwrap_or(0), hash: hash.unwrap_or_default(), is_signed }
}

/// An entry whose columns have the types that they were written with.
fn entry(row: &Row<'_>) -> Option<Stored> {
    Some(Stored {
        seq: u64::try_from(integer(row, 0)?).ok()?,
        at: integer(row, 1)?,
        kind: text(row, 2)?,
        tenant: text(row, 3)?,
        session: match row.get_ref(4).ok()? {
            ValueRef::Null => None,
            _ => Some(blob(row, 4)?),
        },
        body: blob(row, 5)?,
        hash: blob(row, 6)?,
    })
}

fn integer(row: &Row<'_>, column: usize) -> Option<i64> {
    row.get_ref(column).ok()?.as_i64().ok()
}

fn text(row: &Row<'_>, column: usize) -> Option<String> {
    row.get_ref(column).ok()?.as_str().ok().map(str::to_owned)
}

fn blob(row: &Row<'_>, column: usize) -> Option<Vec<u8>> {
    row.get_ref(column).ok()?.as_blob().ok().map(<[u8]>::to_vec)
}
