//! The store: who used the relay and when, as long as that may be kept.
//!
//! SQLite in the state directory. What points to a device is ciphertext under the key of the day, with a blind index
//! beside it by which an address is found while that key lives.

mod ban;
mod folder;
mod hold;
mod lookup;
mod retention;
mod schema;
mod session;

pub(crate) use ban::WantedBan;
pub use ban::{Ban, BanTarget};
pub use folder::FolderError;
pub(crate) use folder::{Folder, make, private};
pub(crate) use hold::Cause;
pub use hold::{HeldSession, Hold};
pub(crate) use lookup::Wanted;
pub use lookup::{Found, FoundSession, GoneDay, Role};
pub(crate) use retention::DeadKey;
pub use retention::{ClassStatus, Retention, Swept};
pub(crate) use schema::check as check_schema;
pub(crate) use session::{Addresses, Arrival, sealed_addresses};

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior};
use sluice_base::limits::{STORE_CHECKED_BYTES_MAX, STORE_JOURNAL_BYTES_MAX};
use sluice_privacy::Moment;

use crate::audit::{Chain, Draft, prunable_entries};
use crate::vault::{SealError, Vault};

/// The database's file in the state directory.
pub(crate) const FILE: &str = "records.db";

/// How long a statement waits for a backup that reads: none of ours writes beside the store's thread.
const BUSY: Duration = Duration::from_millis(10);

/// Why a store cannot be opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is none.
    #[error("{}: there is no store of records here: name the state directory, or a copy of one", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A newer program wrote it.
    #[error(
        "the store of records has tables of version {found}, this program knows {known}: a newer version of the relay \
         wrote it. Start that version, or put back the backup made before the upgrade"
    )]
    Newer {
        /// Its version.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// Another program wrote it.
    #[error("the store of records is a database of another program: give the relay a state directory of its own")]
    NotOurs,
    /// Its pages are not as they were written.
    #[error(
        "the store of records is damaged ({what}): stop the relay, move records.db, records.db-wal and records.db-shm \
         away, and put back a backup (sluice restore) or start with an empty store"
    )]
    Damaged {
        /// What SQLite says.
        what: String,
    },
    /// The state directory cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Anything else that the database or the disk says.
    #[error("the store of records: {0}")]
    Database(rusqlite::Error),
    /// The tenant's keys do not seal.
    #[error("the store of records: {0}")]
    Keys(SealError),
}

impl From<rusqlite::Error> for StoreError {
    fn from(e: rusqlite::Error) -> Self {
        match Trouble::of(&e) {
            Trouble::Damaged => StoreError::Damaged { what: e.to_string() },
            _ => StoreError::Database(e),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Sql(e) => e.into(),
            Failure::Seal(e) => StoreError::Keys(e),
        }
    }
}

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Sql(#[from] rusqlite::Error),
    #[error("{0}")]
    Seal(SealError),
}

impl Failure {
    pub(crate) const fn sealing(e: SealError) -> Self {
        Failure::Seal(e)
    }

    pub(crate) fn trouble(&self) -> Trouble {
        match self {
            Failure::Sql(e) => Trouble::of(e),
            Failure::Seal(_) => Trouble::Keys,
        }
    }
}

/// What keeps records from being written, in the words of an operator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// No room.
    DiskFull,
    /// The disk takes no writes.
    ReadOnly,
    /// The database is not as it was written.
    Damaged,
    /// The disk fails.
    Disk,
    /// The keys do not seal.
    Keys,
    /// The record itself was refused: not the disk's fault, and another try does not help.
    Record,
}

impl Trouble {
    /// Every one.
    pub const ALL: &[Trouble] =
        &[Trouble::DiskFull, Trouble::ReadOnly, Trouble::Damaged, Trouble::Disk, Trouble::Keys, Trouble::Record];

    fn of(e: &rusqlite::Error) -> Self {
        match e.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Trouble::DiskFull,
            Some(ErrorCode::ReadOnly) => Trouble::ReadOnly,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Trouble::Damaged,
            Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) | None => {
                Trouble::Record
            }
            Some(_) => Trouble::Disk,
        }
    }

    /// Whether the disk took nothing, which another try may find otherwise.
    pub(crate) const fn is_of_disk(self) -> bool {
        !matches!(self, Trouble::Keys | Trouble::Record)
    }

    /// What is wrong and what to do.
    pub const fn text(self) -> &'static str {
        match self {
            Trouble::DiskFull => "the disk of the state directory is full: make room",
            Trouble::ReadOnly => "the state directory takes no writes: look for errors of its disk, mount it writable",
            Trouble::Damaged => {
                "the store of records is damaged: stop the relay and put back a backup (sluice restore)"
            }
            Trouble::Disk => "the disk of the state directory fails: look for its errors in the kernel's log",
            Trouble::Keys => "records cannot be sealed: look for errors of the keys' directory",
            Trouble::Record => "a record was refused by the store: report this as a mistake of the relay",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The database, open for writing, and where the audit ends in it.
pub(crate) struct Store {
    connection: Connection,
    path: PathBuf,
    chain: Chain,
    vault: Arc<Vault>,
}

/// One transaction.
pub(crate) struct Writer<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) vault: &'a Vault,
    pub(crate) now: Moment,
    /// Records of it that have no addresses, since the day is over that they are of, and its key is not there.
    pub(crate) addresses_lost: u64,
    chain: Chain,
}

impl Store {
    /// Opens the store of a state directory, making it where there is none. The second is false when the audit in it
    /// does not end where it was signed.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub(crate) fn open(folder: &Path, vault: Arc<Vault>) -> Result<(Self, bool), StoreError> {
        let path = folder.join(FILE);
        let unusable = |source| FolderError::Unusable { path: path.clone(), source };
        // The journal's files get the mode of the database's.
        private(&path).map_err(unusable)?;
        let mut connection = connect(&path)?;
        schema::migrate(&mut connection)?;
        check_pages(&connection)?;
        let (chain, is_signed) = Chain::load(&connection, &vault)?;
        Ok((Store { connection, path, chain, vault }, is_signed))
    }

    /// Opens the same file anew: after an error of the disk a connection may be of no more use.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub(crate) fn reopen(&mut self) -> Result<(), StoreError> {
        let connection = connect(&self.path)?;
        self.chain = Chain::load(&connection, &self.vault)?.0;
        self.connection = connection;
        Ok(())
    }

    /// Does `work` in one transaction. When this returns well, what it wrote is on the disk (synced); when it does not,
    /// nothing of it is.
    ///
    /// # Errors
    /// That of `work`, or of the commit.
    pub(crate) fn write<T>(
        &mut self,
        now: Moment,
        work: impl FnOnce(&mut Writer<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let transaction = Transaction::new(&mut self.connection, TransactionBehavior::Immediate)?;
        let mut writer =
            Writer { connection: &transaction, vault: &self.vault, now, addresses_lost: 0, chain: self.chain };
        let done = work(&mut writer)?;
        let mut chain = writer.chain;
        chain.sign(&transaction, &self.vault)?;
        transaction.commit()?;
        self.chain = chain;
        Ok(done)
    }

    /// The connection, for reading.
    pub(crate) const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// See [`prunable_entries`].
    pub(crate) fn prunable(&self, horizon: u64) -> Result<u64, Failure> {
        prunable_entries(&self.connection, horizon)
    }

    /// Number of the last entry of the audit.
    pub(crate) const fn audit_end(&self) -> u64 {
        self.chain.end()
    }

    /// The directory that it is in.
    pub(crate) fn folder(&self) -> PathBuf {
        self.path.parent().map(Path::to_owned).unwrap_or_default()
    }

    pub(crate) fn vault_handle(&self) -> Arc<Vault> {
        self.vault.clone()
    }

    pub(crate) fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Brings the journal into the database and cuts it to nothing, so that what was deleted is in neither. False when
    /// somebody reads: to be tried again.
    ///
    /// # Errors
    /// The disk takes no writes.
    pub(crate) fn truncate_journal(&self) -> Result<bool, Failure> {
        let is_busy: i64 = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        Ok(is_busy == 0)
    }
}

impl Writer<'_> {
    /// Appends to the audit.
    pub(crate) fn audit(&mut self, draft: &Draft<'_>) -> Result<(), Failure> {
        self.chain.append(self.connection, self.vault, draft)
    }

    /// Takes a note that was left for the next start.
    pub(crate) fn take_note(&mut self, name: &str) -> Result<Option<String>, Failure> {
        let query = "SELECT value FROM meta WHERE name = ?";
        let note = self.connection.query_row(query, [name], |row| row.get(0)).optional()?;
        if note.is_some() {
            self.connection.execute("DELETE FROM meta WHERE name = ?", [name])?;
        }
        Ok(note)
    }

    /// Signs the chain as it is now, with a checkpoint that stays.
    pub(crate) fn checkpoint(&mut self) -> Result<(), Failure> {
        self.chain.checkpoint(self.connection, self.vault)
    }

    /// See [`Chain::prune`].
    pub(crate) fn prune(&mut self, horizon: u64, most: u64) -> Result<u64, Failure> {
        self.chain.prune(self.connection, self.vault, horizon, most)
    }
}

/// A connection to the store of a state directory, or of a copy of one, that cannot write.
///
/// # Errors
/// See [`StoreError`].
pub(crate) fn read_only(folder: &Path) -> Result<Connection, StoreError> {
    let path = folder.join(FILE);
    if !path.is_file() {
        return Err(StoreError::Missing { path });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection
        .execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY;")?;
    schema::check(&connection)?;
    Ok(connection)
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    // Before anything is changed of a database that is another's.
    schema::check(&connection)?;
    // FULL: a commit has returned when the disk has it. Deleted bytes are overwritten, and no page goes to a
    // temporary file.
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA secure_delete = ON;
         PRAGMA foreign_keys = ON;
         PRAGMA trusted_schema = OFF;
         PRAGMA cell_size_check = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA journal_size_limit = {STORE_JOURNAL_BYTES_MAX};",
    ))?;
    Ok(connection)
}

/// Looks at every page of a store that is small enough to be read in a moment; a larger one is looked at as it is used,
/// and by `sluice audit verify`.
fn check_pages(connection: &Connection) -> Result<(), StoreError> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    if number("page_count")? * number("page_size")? > STORE_CHECKED_BYTES_MAX {
        return Ok(());
    }
    let what: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if what == "ok" { Ok(()) } else { Err(StoreError::Damaged { what }) }
}
