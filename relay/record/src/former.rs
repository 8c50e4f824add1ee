//! What a former run has left, where nothing is recorded any more: no plane runs that would destroy it in time.

use std::path::{Path, PathBuf};

use crate::spool::{self, StartError};
use crate::store::{Folder, FolderError};
use crate::vault::{self, Destroyer, HoldKeys, VaultError};

/// The directory of what waits for sinks, below the state directory.
pub const SPOOL: &str = "spool";

/// What is no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Removed {
    /// Files of keys of the day.
    pub keys: usize,
    /// Segments of the spool.
    pub segments: usize,
}

/// Why something is still there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemovalError {
    /// Keys.
    #[error(transparent)]
    Keys(#[from] VaultError),
    /// The state directory.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The spool in it.
    #[error(transparent)]
    Spool(#[from] StartError),
    /// A hold was being made or lifted when the relay ended, and its key is to be kept or destroyed.
    #[error(
        "a legal hold was being made or lifted when the relay ended, and no store is opened that knows which: start it \
         once with `privacy.records = true`, look at `sluice hold list`, then switch records off"
    )]
    Hold,
}

/// Destroys every key of the day in these directories, due or not, and overwrites all that waits for sinks. What is not
/// there is not made.
///
/// # Errors
/// Something is still there; whatever else could be destroyed is gone.
pub fn remove(state: Option<&Path>, keys: &[PathBuf], destroyer: &dyn Destroyer) -> Result<Removed, RemovalError> {
    let destroyed: Vec<_> = keys.iter().map(|directory| vault::destroy_all(directory, destroyer)).collect();
    let segments = state.map_or(Ok(0), remove_spool)?;
    let keys = destroyed.into_iter().sum::<Result<usize, VaultError>>()?;
    if state.map_or(Ok(false), HoldKeys::are_pending)? {
        return Err(RemovalError::Hold);
    }
    Ok(Removed { keys, segments })
}

fn remove_spool(state: &Path) -> Result<usize, RemovalError> {
    let spool = state.join(SPOOL);
    if spool::is_empty(&spool)? {
        return Ok(0);
    }
    let _alone = Folder::open(state)?;
    Ok(spool::remove_all(&spool)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::testing::{self, Machine};
    use crate::vault::{Keys, Overwriter, Vault, VaultOptions};

    const SEGMENT: &str = "00000000000000000007-1795867200.jsonl";

    /// A key of today for each directory, and a segment.
    fn leave(folder: &testing::Folder, directories: &[PathBuf]) {
        fs::create_dir_all(folder.join("state/spool")).unwrap();
        for directory in directories {
            let mut options = VaultOptions::new(folder.join("state"), Some(directory.clone()));
            options.keys = Keys::Persistent;
            let vault = Vault::open(options, Arc::new(Machine::new(1))).unwrap();
            vault.seal("clinic", &[1; 16], b"192.0.2.7").unwrap();
            fs::write(directory.join("2026-11-29..key.new"), b"half").unwrap();
        }
        fs::write(folder.join("state/spool").join(SEGMENT), b"{\"segment\":7,\"line\":0,\"kind\":\"x\"}\n").unwrap();
        fs::write(folder.join("state/spool/sinks.json"), b"damaged").unwrap();
    }

    fn files(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn keys_that_are_not_due_and_what_waits_for_sinks_are_destroyed_and_other_files_are_not() {
        let folder = testing::Folder::new("former");
        let keys = [folder.join("run"), folder.join("disk")];
        leave(&folder, &keys);
        fs::write(keys[1].join("server.key"), b"theirs").unwrap();
        let state = folder.join("state");
        let removed = remove(Some(&state), &keys, &Overwriter).unwrap();
        assert_eq!(removed, Removed { keys: 4, segments: 1 });
        assert_eq!(
            (files(&keys[0]), files(&keys[1])),
            (vec!["lock".to_owned()], vec!["lock".into(), "server.key".into()])
        );
        assert!(files(&state.join("spool")).is_empty());
        assert_eq!(remove(Some(&state), &keys, &Overwriter).unwrap(), Removed::default());
    }

    #[test]
    fn a_hold_that_nobody_has_settled_is_not_left_lying() {
        let folder = testing::Folder::new("former");
        let (state, holds) = (folder.join("state"), folder.join("state/holds"));
        fs::create_dir_all(&holds).unwrap();
        fs::write(holds.join("00000000000000000000000000000001.key"), b"a hold's").unwrap();
        assert_eq!(remove(Some(&state), &[], &Overwriter).unwrap(), Removed::default());
        fs::write(holds.join("00000000000000000000000000000002.pending"), b"a lifted one's").unwrap();
        assert!(matches!(remove(Some(&state), &[], &Overwriter), Err(RemovalError::Hold)));
    }

    #[test]
    fn nothing_is_made_where_nothing_was() {
        let folder = testing::Folder::new("former");
        let state = folder.join("state");
        assert_eq!(remove(Some(&state), &[folder.join("keys")], &Overwriter).unwrap(), Removed::default());
        assert_eq!(remove(None, &[], &Overwriter).unwrap(), Removed::default());
        assert!(files(folder.path()).is_empty());
    }

    #[test]
    fn what_cannot_be_destroyed_is_an_error_that_names_it_and_the_rest_is_gone() {
        struct Refuses;
        impl Destroyer for Refuses {
            fn destroy(&self, file: &Path) -> std::io::Result<()> {
                let is_refused = file.ends_with("2026-11-28.clinic.key");
                if is_refused { Err(std::io::ErrorKind::ReadOnlyFilesystem.into()) } else { fs::remove_file(file) }
            }
        }
        let folder = testing::Folder::new("former");
        let (state, keys) = (folder.join("state"), [folder.join("keys")]);
        leave(&folder, &keys);
        let why = remove(Some(&state), &keys, &Refuses).unwrap_err().to_string();
        assert!(why.contains("keys/2026-11-28.clinic.key"), "{why}");
        assert_eq!(files(&keys[0]), ["2026-11-28.clinic.key", "lock"]);
        assert!(files(&state.join("spool")).is_empty());
    }

    #[test]
    fn what_another_process_uses_is_left_to_it() {
        let folder = testing::Folder::new("former");
        let (state, keys) = (folder.join("state"), [folder.join("keys")]);
        leave(&folder, &keys);
        let options = VaultOptions::new(state.clone(), Some(keys[0].clone()));
        let vault = Vault::open(options, Arc::new(Machine::new(1))).unwrap();
        assert!(matches!(remove(None, &keys, &Overwriter), Err(RemovalError::Keys(VaultError::InUse(_)))));
        assert_eq!(vault.status().len(), 1);
        let running = Folder::open(&state).unwrap();
        assert!(matches!(remove(Some(&state), &[], &Overwriter), Err(RemovalError::Folder(FolderError::InUse { .. }))));
        drop(running);
        assert_eq!(remove(Some(&state), &[], &Overwriter).unwrap().segments, 1);
    }
}
