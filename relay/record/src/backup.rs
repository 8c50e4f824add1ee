//! Copies of the store, without any key.
//!
//! A copy is a directory with `records.db`, one file without a journal, and `manifest.json`, which says what it is and
//! is signed by the relay. What is class `ip` in it is ciphertext under keys of the day that are in no copy, so that it
//! becomes unreadable with the original. The long-lived keys (`secrets` of the state directory) are not in it either:
//! whoever wants to read the audit's bodies after the loss of a machine keeps them apart.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use serde::{Deserialize, Serialize};
use sluice_base::limits::MANIFEST_BYTES_MAX;
use sluice_crypto::{Sha256Stream, Verifier, hex_decode, hex_encode};

use crate::audit::published_key;
use crate::store::{FILE, Folder, FolderError, StoreError, check_schema, make, private, read_only};
use crate::vault::Vault;

const MANIFEST: &str = "manifest.json";

/// What a copy says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Of this file: 1.
    pub format: u32,
    /// Version of the tables.
    pub tables: i64,
    /// When the copy was made, in seconds since the Unix epoch.
    pub created: u64,
    /// Bytes of the database.
    pub bytes: u64,
    /// SHA-256 of the database, in hexadecimal digits.
    pub sha256: String,
    /// Number of the audit's last entry in it.
    pub audit_end: u64,
    /// Its hash, in hexadecimal digits.
    pub audit_hash: String,
    /// The key that signs this and the audit, in hexadecimal digits.
    pub key: String,
    /// The signature of all of the above, in hexadecimal digits.
    pub signature: String,
}

/// Why a copy was not made or put back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// There is something at its place already.
    #[error("{}: there is something already: name a directory that is not there yet", .0.display())]
    Exists(PathBuf),
    /// A file or a directory.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
    /// It is not what was written.
    #[error("{}: this is no copy of a store, or not as it was made ({what}): take another one", path.display())]
    NotACopy {
        /// The copy.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The state directory has a store that is newer, or another one.
    #[error(
        "{}: the store that is there {what}: move records.db, records.db-wal and records.db-shm away if the copy is to \
         take its place all the same", path.display()
    )]
    Refused {
        /// The state directory.
        path: PathBuf,
        /// In what way.
        what: &'static str,
    },
    /// The state directory.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for BackupError {
    fn from(e: rusqlite::Error) -> Self {
        BackupError::Store(e.into())
    }
}

/// Copies the store of a state directory, beside the process that uses it. It holds up nobody who writes.
///
/// # Errors
/// See [`BackupError`]; what was copied so far is removed.
pub(crate) fn copy(state: &Path, to: &Path, vault: &Vault) -> Result<Manifest, BackupError> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    make(to).map_err(|why| at(to, why))?;
    let copied = copy_into(state, to, vault);
    if copied.is_err() {
        let _ = fs::remove_dir_all(to);
    }
    copied
}

fn copy_into(state: &Path, to: &Path, vault: &Vault) -> Result<Manifest, BackupError> {
    let path = to.join(FILE);
    private(&path).map_err(|why| at(&path, why))?;
    let source = read_only(state)?;
    let mut copy = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // All pages in one step: the source is one moment's, however much is written meanwhile.
    Backup::new(&source, &mut copy)?.step(-1)?;
    // One file: the journal's mode is a part of the database.
    let _mode: String = copy.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))?;
    let (audit_end, audit_hash) = audit_end(&copy)?;
    let tables = check_schema(&copy)?;
    drop(copy);
    let (bytes, sha256) = digest(&path).map_err(|why| at(&path, why))?;
    let mut manifest = Manifest {
        format: 1,
        tables,
        created: vault.clock().unix_seconds,
        bytes,
        sha256,
        audit_end,
        audit_hash: hex_encode(&audit_hash),
        key: hex_encode(vault.verifying_key().bytes()),
        signature: String::new(),
    };
    manifest.signature = hex_encode(&vault.sign(&manifest.message()));
    let path = to.join(MANIFEST);
    let written = private(&path).and_then(|mut file| {
        file.write_all(&serde_json::to_vec_pretty(&manifest)?)?;
        file.sync_all()
    });
    written.and_then(|()| File::open(to)?.sync_all()).map_err(|why| at(&path, why))?;
    Ok(manifest)
}

/// Puts a copy into a state directory that no relay uses. What is there is replaced only if the copy has all of it: the
/// same audit, as far as it goes. The next start writes into the audit that it was done.
///
/// # Errors
/// See [`BackupError`]; the store that was there is then as it was.
pub fn restore(from: &Path, state: &Path) -> Result<Manifest, BackupError> {
    let manifest = check(from)?;
    let folder = Folder::open(state)?;
    let target = state.join(FILE);
    if target.exists() {
        compare(&manifest, from, &target, state)?;
    }
    let half = state.join("records.db.new");
    let copied = put(from, &half, &manifest);
    if let Err(e) = copied.and_then(|()| fs::rename(&half, &target).map_err(|why| at(&target, why))) {
        let _ = fs::remove_file(&half);
        return Err(e);
    }
    File::open(state).and_then(|folder| folder.sync_all()).map_err(|why| at(state, why))?;
    drop(folder);
    Ok(manifest)
}

/// Reads a copy's manifest, and holds the database against it.
fn check(from: &Path) -> Result<Manifest, BackupError> {
    let wrong = |what| BackupError::NotACopy { path: from.to_owned(), what };
    let path = from.join(MANIFEST);
    let mut text = Vec::new();
    let file = File::open(&path).map_err(|why| at(&path, why))?;
    file.take(MANIFEST_BYTES_MAX).read_to_end(&mut text).map_err(|why| at(&path, why))?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|_| wrong("its manifest cannot be read"))?;
    if manifest.format != 1 {
        return Err(wrong("its manifest is of another version"));
    }
    let is_signed = manifest.verifier().zip(hex_decode(&manifest.signature));
    if !is_signed.is_some_and(|(key, signature)| key.verify(&manifest.message(), &signature)) {
        return Err(wrong("its manifest is not signed"));
    }
    let path = from.join(FILE);
    let (bytes, sha256) = digest(&path).map_err(|why| at(&path, why))?;
    if (bytes, &sha256) != (manifest.bytes, &manifest.sha256) {
        return Err(wrong("the database is not the one of the manifest"));
    }
    Ok(manifest)
}

/// Whether the copy has all that the store of a state directory has.
fn compare(manifest: &Manifest, from: &Path, target: &Path, state: &Path) -> Result<(), BackupError> {
    let refused = |what| BackupError::Refused { path: state.to_owned(), what };
    if published_key(state).is_ok_and(|key| Some(key) != manifest.verifier()) {
        return Err(refused("is another relay's"));
    }
    let old = Connection::open_with_flags(target, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    check_schema(&old)?;
    let (end, hash) = audit_end(&old)?;
    if end > manifest.audit_end {
        return Err(refused("is newer than the copy"));
    }
    let copy = Connection::open_with_flags(from.join(FILE), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let query = "SELECT hash FROM audit WHERE seq = ?";
    let same: Option<Vec<u8>> = copy.query_row(query, [end], |row| row.get(0)).optional()?;
    // An empty store has nothing that could be lost, and one whose beginning the copy has pruned is older.
    let is_older = end == 0 || same.as_ref().is_some_and(|same| *same == hash) || end < first(&copy)?;
    if !is_older {
        return Err(refused("has another audit than the copy"));
    }
    // No journal may be left over, which would be taken for the new database's.
    old.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    old.close().map_err(|(_, e)| e)?;
    Ok(())
}

fn first(copy: &Connection) -> rusqlite::Result<u64> {
    copy.query_row("SELECT COALESCE(MIN(seq), 0) FROM audit", [], |row| row.get(0))
}

/// Copies the database beside the one that it replaces, with a note for the next start.
fn put(from: &Path, half: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let _ = fs::remove_file(half);
    let mut target = private(half).map_err(|why| at(half, why))?;
    let copied = File::open(from.join(FILE)).and_then(|mut source| io::copy(&mut source, &mut target));
    copied.map_err(|why| at(half, why))?;
    drop(target);
    let database = Connection::open_with_flags(half, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    check_schema(&database)?;
    database.execute("DELETE FROM meta WHERE name = 'restored'", [])?;
    database.execute("INSERT INTO meta (name, value) VALUES ('restored', ?)", [manifest.created.to_string()])?;
    drop(database);
    File::open(half).and_then(|file| file.sync_all()).map_err(|why| at(half, why))
}

impl Manifest {
    fn message(&self) -> Vec<u8> {
        let Manifest { format, tables, created, bytes, sha256, audit_end, audit_hash, key, .. } = self;
        format!("sluice copy {format} {tables} {created} {bytes} {sha256} {audit_end} {audit_hash} {key}").into_bytes()
    }

    fn verifier(&self) -> Option<Verifier> {
        Some(Verifier::new(hex_decode(&self.key)?.try_into().ok()?))
    }
}

/// Number and hash of the audit's last entry.
fn audit_end(connection: &Connection) -> rusqlite::Result<(u64, Vec<u8>)> {
    let query = "SELECT seq, hash FROM bound WHERE name = 'head'";
    let end = connection.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    Ok(end.unwrap_or_default())
}

/// Length and SHA-256 of a file.
fn digest(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256Stream::default();
    let mut block = vec![0; 64 * 1024];
    let mut bytes = 0;
    loop {
        match file.read(&mut block)? {
            0 => return Ok((bytes, hex_encode(&hash.finish()))),
            length => {
                hash.update(&block[..length]);
                bytes += length as u64;
            }
        }
    }
}

fn at(path: &Path, why: io::Error) -> BackupError {
    BackupError::File { path: path.to_owned(), why }
}
