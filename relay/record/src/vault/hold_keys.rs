//! The keys of legal holds, in the state directory: no day ends them, and lifting the hold does.
//!
//! A key is `ID.pending` while its hold is being written or removed, and `ID.key` in between. So a process that ends in
//! the middle of either leaves nothing in doubt: the next start asks the store whether the hold is there.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluice_base::memory::KeyCell;
use sluice_crypto::{NONCE_BYTES, Plaintext, Zeroizing, hex_decode, hex_encode};
use sluice_privacy::hold::Pending;
use sluice_privacy::seal::{self, Header};
use sluice_privacy::{Class, Day};

use super::files::{Destroyer, HALF, at, make_directory, names, read_key, replace, sync_parent};
use super::key_file::KeyFile;
use super::options::{Platform, VaultError};
use super::{SealError, too_long};

/// The directory in the state directory.
const DIRECTORY: &str = "holds";
const KEY: &str = ".key";
const PENDING: &str = ".pending";

/// What names a hold.
pub(crate) type HoldId = [u8; 16];

/// The keys of the holds of one store.
pub(crate) struct HoldKeys {
    path: PathBuf,
    platform: Arc<dyn Platform>,
    destroyer: Arc<dyn Destroyer>,
    cells: HashMap<HoldId, Box<dyn KeyCell>>,
    /// Those whose files are still there, and have to go.
    doomed: Vec<HoldId>,
}

impl HoldKeys {
    /// Reads the keys of the holds that the store has, and finishes what a former process had begun.
    ///
    /// # Errors
    /// The file system's, or that there is no locked memory.
    pub(crate) fn open(
        state_directory: &Path,
        platform: Arc<dyn Platform>,
        destroyer: Arc<dyn Destroyer>,
        held: &[HoldId],
    ) -> Result<Self, VaultError> {
        let path = state_directory.join(DIRECTORY);
        make_directory(&path)?;
        let mut keys = HoldKeys { path, platform, destroyer, cells: HashMap::new(), doomed: Vec::new() };
        for name in names(&keys.path)? {
            keys.finish(&name, held).map_err(|why| at(&keys.path.join(&name), why))?;
        }
        for id in held {
            keys.load(id)?;
        }
        Ok(keys)
    }

    /// Whether the key of a hold is there.
    pub(crate) fn has(&self, id: &HoldId) -> bool {
        self.cells.contains_key(id)
    }

    /// Makes the key of a hold that is going to be written.
    ///
    /// # Errors
    /// Its file cannot be written, or no memory can be locked.
    pub(crate) fn make(&mut self, id: HoldId) -> io::Result<()> {
        let mut key = Zeroizing::new([0; 32]);
        self.platform.random(&mut *key);
        let cell = self.platform.cells().cell(*key)?;
        replace(&self.file(&id, PENDING), &*KeyFile::LONG.write(&key, &hex_encode(&id)))?;
        self.cells.insert(id, cell);
        Ok(())
    }

    /// The hold of a key is written.
    pub(crate) fn keep(&self, id: &HoldId) {
        // What stays pending is settled at the next start, since the store has the hold.
        let _ = self.rename(id, PENDING, KEY);
    }

    /// Whether the hold of a key is written is not known: a commit that failed may be there after a crash. The next
    /// start asks the store, and the file stays pending until then.
    pub(crate) fn leave(&mut self, id: &HoldId) {
        self.cells.remove(id);
    }

    /// The hold of a key is going to be removed.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn doubt(&self, id: &HoldId) -> io::Result<()> {
        match self.rename(id, KEY, PENDING) {
            // It is pending already, or was never there.
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// The hold of a key is not there. False where its file still is: that is tried again by [`HoldKeys::retry`].
    pub(crate) fn destroy(&mut self, id: &HoldId) -> bool {
        // The bytes in memory first: nobody refuses that.
        self.cells.remove(id);
        let is_gone = self.destroyer.destroy(&self.file(id, PENDING)).is_ok();
        if !is_gone {
            self.doomed.push(*id);
        }
        is_gone
    }

    /// Destroys what could not be before. How many are left, which are to be told of.
    pub(crate) fn retry(&mut self) -> usize {
        for id in std::mem::take(&mut self.doomed) {
            self.destroy(&id);
        }
        self.doomed.len()
    }

    /// Seals addresses of a session under the key of a hold.
    ///
    /// # Errors
    /// There is no such key.
    pub(crate) fn seal(
        &self,
        id: &HoldId,
        tenant: &str,
        session: &[u8; 16],
        text: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let cell = self.cells.get(id).ok_or_else(|| SealError::Failed("the hold has no key".to_owned()))?;
        let mut nonce = [0; NONCE_BYTES];
        self.platform.random(&mut nonce);
        let header = Header { class: Class::LegalHold, tenant, day: Day::default(), key: seal::key_id(cell.bytes()) };
        header.seal(cell.bytes(), nonce, session, text).ok_or_else(too_long)
    }

    /// Opens what was sealed under the key of a hold; `None` where that is not there, or it is not what was sealed.
    pub(crate) fn open_sealed(&self, id: &HoldId, sealed: &[u8], session: &[u8; 16]) -> Option<Plaintext> {
        Header::read(sealed).filter(|header| header.class == Class::LegalHold)?;
        seal::open(self.cells.get(id)?.bytes(), sealed, session)
    }

    /// Whether a former process ended while it made or lifted a hold, which the store alone can settle.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn are_pending(state_directory: &Path) -> Result<bool, VaultError> {
        let path = state_directory.join(DIRECTORY);
        match path.try_exists() {
            Ok(false) => Ok(false),
            _ => Ok(names(&path)?.iter().any(|name| name.ends_with(PENDING))),
        }
    }

    /// What a former process was about when it ended.
    fn finish(&self, name: &str, held: &[HoldId]) -> io::Result<()> {
        if name.ends_with(HALF) {
            return self.destroyer.destroy(&self.path.join(name));
        }
        let Some(id) = name.strip_suffix(PENDING).and_then(id_of) else {
            if name.strip_suffix(KEY).and_then(id_of).is_some_and(|id| !held.contains(&id)) {
                // The store was replaced. Whoever puts the former one back has the hold again.
                tracing::warn!("there is a key of a legal hold that the store of records does not have");
            }
            return Ok(());
        };
        match Pending::of(held.contains(&id)) {
            Pending::Keep => self.rename(&id, PENDING, KEY),
            Pending::Destroy => self.destroyer.destroy(&self.path.join(name)),
        }
    }

    fn load(&mut self, id: &HoldId) -> Result<(), VaultError> {
        let path = self.file(id, KEY);
        let is_there = path.try_exists().map_err(|why| at(&path, why))?;
        let found = if is_there { read_key(&path, &hex_encode(id))? } else { None };
        let Some((_, key)) = found else {
            tracing::error!("the key of a legal hold is missing or damaged: what it holds of addresses cannot be read");
            return Ok(());
        };
        self.cells.insert(*id, self.platform.cells().cell(*key).map_err(VaultError::Memory)?);
        Ok(())
    }

    fn file(&self, id: &HoldId, suffix: &str) -> PathBuf {
        self.path.join(hex_encode(id) + suffix)
    }

    fn rename(&self, id: &HoldId, from: &str, to: &str) -> io::Result<()> {
        let to = self.file(id, to);
        fs::rename(self.file(id, from), &to)?;
        sync_parent(&to)
    }
}

impl std::fmt::Debug for HoldKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HoldKeys").field("keys", &self.cells.len()).finish_non_exhaustive()
    }
}

fn id_of(name: &str) -> Option<HoldId> {
    hex_decode(name)?.try_into().ok()
}
