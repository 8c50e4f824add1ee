//! Showing.

use std::io::{self, Write};
use std::path::Path;

use rusqlite::{Connection, Row};
use serde::{Deserialize, Serialize};
use sluice_crypto::hex_encode;

use super::{Stored, kind_of, sealing_id};
use crate::store::{StoreError, read_only};
use crate::vault::Vault;

/// One entry, as it is shown and exported.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Its number.
    pub seq: u64,
    /// When, in seconds since the Unix epoch.
    pub at: i64,
    /// Its kind.
    pub kind: String,
    /// The tenant that it concerns; empty for the relay as a whole.
    pub tenant: String,
    /// The client's stay that it concerns, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<String>,
    /// What was sealed; none where the tenant's key is gone or nobody is there to open it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub body: Option<serde_json::Value>,
    /// The ciphertext that the chain is over, in hexadecimal digits.
    pub sealed: String,
    /// Its hash, in hexadecimal digits.
    pub hash: String,
}

/// Writes the whole audit of a state directory, or of a copy of one, as JSON lines. Bodies are opened where a vault is
/// handed in. How many lines there were.
///
/// # Errors
/// The store cannot be read; `out` takes nothing.
pub fn export(directory: &Path, vault: Option<&Vault>, out: &mut dyn Write) -> Result<u64, ExportError> {
    let mut connection = read_only(directory)?;
    let transaction = connection.transaction().map_err(StoreError::from)?;
    let mut statement = transaction
        .prepare("SELECT seq, at, kind, tenant, session, body, hash FROM audit ORDER BY seq")
        .map_err(StoreError::from)?;
    let mut rows = statement.query([]).map_err(StoreError::from)?;
    let mut lines = 0;
    while let Some(row) = rows.next().map_err(StoreError::from)? {
        let line = line(&stored(row).map_err(StoreError::from)?, vault);
        serde_json::to_writer(&mut *out, &line).map_err(io::Error::from)?;
        out.write_all(b"\n")?;
        lines += 1;
    }
    Ok(lines)
}

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is exported cannot be written.
    #[error("the export cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// The last `count` entries, the oldest of them first.
pub(crate) fn tail(connection: &Connection, vault: &Vault, count: usize) -> rusqlite::Result<Vec<Line>> {
    let query = "SELECT seq, at, kind, tenant, session, body, hash FROM audit ORDER BY seq DESC LIMIT ?";
    let mut statement = connection.prepare_cached(query)?;
    let rows = statement.query_map([count as i64], stored)?;
    let mut lines = rows.map(|entry| Ok(line(&entry?, Some(vault)))).collect::<rusqlite::Result<Vec<_>>>()?;
    lines.reverse();
    Ok(lines)
}

fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored {
        seq: row.get(0)?,
        at: row.get(1)?,
        kind: row.get(2)?,
        tenant: row.get(3)?,
        session: row.get(4)?,
        body: row.get(5)?,
        hash: row.get(6)?,
    })
}

fn line(entry: &Stored, vault: Option<&Vault>) -> Line {
    let class = kind_of(&entry.kind).map(super::Kind::class);
    let opened = vault.zip(class).and_then(|(vault, class)| {
        let text = vault.open_long(&entry.body, class, &sealing_id(entry.seq)).ok()?;
        serde_json::from_slice(&text).ok()
    });
    Line {
        seq: entry.seq,
        at: entry.at,
        kind: entry.kind.clone(),
        tenant: entry.tenant.clone(),
        session: entry.session.as_deref().map(hex_encode),
        body: opened,
        sealed: hex_encode(&entry.body),
        hash: hex_encode(&entry.hash),
    }
}
