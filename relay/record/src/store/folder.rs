//! The state directory: its owner's alone, and one process's at a time.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Mode of a directory that is made here.
const DIRECTORY_MODE: u32 = 0o700;
/// Mode of a file that is made here.
const FILE_MODE: u32 = 0o600;
/// The file whose lock is held for as long as the directory is used.
const LOCK: &str = "lock";

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// It is not there and cannot be made, or cannot be written to.
    #[error(
        "state directory {}: {source}: it has to be a directory that the relay's user may write to (StateDirectory= of \
         the unit makes one)", path.display()
    )]
    Unusable {
        /// The directory, or the file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses it.
    #[error(
        "state directory {} is in use by another process: stop that one, or give this one a \
         privacy.state_directory of its own", path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// A state directory that this process alone uses, until this is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    // Closing the file gives the lock back; so does any end of the process.
    _lock: File,
}

impl Folder {
    /// Makes the directory where it is not there, and locks it.
    ///
    /// # Errors
    /// See [`FolderError`].
    pub(crate) fn open(path: &Path) -> Result<Self, FolderError> {
        let unusable = |path: &Path, source| FolderError::Unusable { path: path.to_owned(), source };
        make(path).map_err(|e| unusable(path, e))?;
        let file = path.join(LOCK);
        let lock = private(&file).map_err(|e| unusable(&file, e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Folder { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(FolderError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(e)) => Err(unusable(&file, e)),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes a directory, its parents included, that is its owner's alone. One that is there is closed to others.
pub(crate) fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)?;
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    if metadata.mode() & 0o077 != 0 {
        std::fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))?;
    }
    Ok(())
}

/// Opens a file for reading and writing, making it where it is not there, for its owner alone.
pub(crate) fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn it_is_its_owners_alone_also_where_it_was_open_to_others() {
        let scratch = testing::Folder::new("state");
        let path = scratch.join("a/b");
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let folder = Folder::open(&path).unwrap();
        assert_eq!(std::fs::metadata(folder.path()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(std::fs::metadata(path.join(LOCK)).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_second_user_is_told_what_to_do_and_may_come_when_the_first_has_gone() {
        let scratch = testing::Folder::new("state");
        let first = Folder::open(scratch.path()).unwrap();
        let second = Folder::open(scratch.path()).unwrap_err().to_string();
        assert!(second.contains("in use by another process") && second.contains("state_directory"), "{second}");
        drop(first);
        Folder::open(scratch.path()).unwrap();
    }

    #[test]
    fn a_file_in_its_place_and_a_directory_that_takes_no_files_are_said() {
        let scratch = testing::Folder::new("state");
        let file = scratch.join("file");
        std::fs::write(&file, b"").unwrap();
        for path in [file.as_path(), Path::new("/proc/self/fdinfo")] {
            let told = Folder::open(path).unwrap_err().to_string();
            assert!(told.contains("has to be a directory that the relay's user may write to"), "{told}");
        }
    }
}
