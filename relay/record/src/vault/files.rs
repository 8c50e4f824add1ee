//! Where the keys lie, and how one is destroyed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluice_base::memory::KeyCell;
use sluice_crypto::Zeroizing;
use sluice_privacy::KeyName;

use super::key_file::{BYTES, KeyFile};
use super::options::{Keys, Platform, VaultError, VaultOptions, VaultWarning};

/// Whatever makes a key's file unreadable for good.
pub trait Destroyer: Send + Sync {
    /// Destroys the file; one that is not there is destroyed already.
    ///
    /// # Errors
    /// The file system's: the file may still be there.
    fn destroy(&self, file: &Path) -> io::Result<()>;
}

/// Overwrites with zeros, waits until they are where the file was, and unlinks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Overwriter;

impl Destroyer for Overwriter {
    fn destroy(&self, path: &Path) -> io::Result<()> {
        let mut file = match OpenOptions::new().write(true).open(path) {
            Ok(file) => file,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
            // What cannot be written to can still be unlinked.
            Err(_) => return fs::remove_file(path).and_then(|()| sync_parent(path)),
        };
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).min(BYTES);
        let overwritten = file.write_all(&[0; BYTES][..length]).and_then(|()| file.sync_all());
        fs::remove_file(path)?;
        sync_parent(path)?;
        overwritten
    }
}

/// The directory of the keys of the day.
pub(super) struct KeyDirectory {
    path: PathBuf,
    is_memory: bool,
    destroyer: Arc<dyn Destroyer>,
    /// Held open: its lock is this process's.
    _lock: File,
}

impl KeyDirectory {
    /// The directory that the options name, or none where it must not be used.
    pub(super) fn choose(
        options: &VaultOptions,
        platform: &dyn Platform,
        warnings: &mut Vec<VaultWarning>,
    ) -> Result<Option<Self>, VaultError> {
        if platform.has_swap() == Some(true) {
            warnings.push(VaultWarning::Swap);
        }
        let Some(path) = options.keys_directory.clone() else { return Ok(None) };
        make_directory(&path)?;
        let is_memory = platform.is_tmpfs(&path).map_err(|why| at(&path, why))?;
        let lock = lock(&path)?;
        let directory =
            KeyDirectory { path: path.clone(), is_memory, destroyer: options.destroyer.clone(), _lock: lock };
        directory.destroy_halves()?;
        let is_swapped = is_memory && platform.has_swap() != Some(false) && !is_kept(platform, &directory.path)?;
        let (is_used, warning) = place(options.keys, is_memory, is_swapped, path);
        warnings.extend(warning);
        if is_used {
            return Ok(Some(directory));
        }
        // Those of a former configuration: nobody would ever destroy them.
        for name in directory.names()? {
            directory.destroy(&name).map_err(|why| at(&directory.path.join(name.file()), why))?;
        }
        Ok(None)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn is_memory(&self) -> bool {
        self.is_memory
    }

    /// Every key that there is, whole or not.
    pub(super) fn names(&self) -> Result<Vec<KeyName>, VaultError> {
        Ok(names(&self.path)?.iter().filter_map(|file| KeyName::of_file(file)).collect())
    }

    /// A key's file; `None` where it is damaged.
    pub(super) fn read(&self, name: &KeyName) -> Result<Option<Found>, VaultError> {
        let found = read_key(&self.path.join(name.file()), &name.tenant)?;
        Ok(found.filter(|(file, _)| file.day == name.day))
    }

    /// Writes a new key. It has its name only when it is whole.
    pub(super) fn write(&self, name: &KeyName, file: &KeyFile, key: &[u8; 32]) -> io::Result<()> {
        replace(&self.path.join(name.file()), &*file.write(key, &name.tenant))
    }

    pub(super) fn destroy(&self, name: &KeyName) -> io::Result<()> {
        self.destroyer.destroy(&self.path.join(name.file()))
    }

    /// Destroys the file of a key that is not used after all, and the half of one.
    pub(super) fn discard(&self, name: &KeyName) -> io::Result<()> {
        let path = self.path.join(name.file());
        let half = self.destroyer.destroy(&half_of(&path));
        self.destroyer.destroy(&path).and(half)
    }

    /// Files that a former run had not given their names yet.
    fn destroy_halves(&self) -> Result<(), VaultError> {
        let is_half = |file: &&String| file.strip_suffix(HALF).and_then(KeyName::of_file).is_some();
        for file in names(&self.path)?.iter().filter(is_half) {
            let path = self.path.join(file);
            self.destroyer.destroy(&path).map_err(|why| at(&path, why))?;
        }
        Ok(())
    }
}

/// Whether keys may be files in a directory, and what there is to say of that.
fn place(keys: Keys, is_memory: bool, is_swapped: bool, directory: PathBuf) -> (bool, Option<VaultWarning>) {
    match (keys, is_memory, is_swapped) {
        (_, true, false) => (true, None),
        (Keys::Persistent, ..) => (true, Some(VaultWarning::Persistent { directory })),
        (Keys::Runtime, true, true) => (false, Some(VaultWarning::Swapped { directory })),
        (Keys::Runtime, false, _) => (false, Some(VaultWarning::MemoryOnly { directory })),
    }
}

fn is_kept(platform: &dyn Platform, path: &Path) -> Result<bool, VaultError> {
    platform.is_never_swapped(path).map_err(|why| at(path, why))
}

/// Destroys every file of a key of the day in a directory, due or not, halves of such files too; how many there were. A
/// directory that is not there has none.
///
/// # Errors
/// The first file that is still there, after all others were tried; another process with these keys.
pub fn destroy_all(directory: &Path, destroyer: &dyn Destroyer) -> Result<usize, VaultError> {
    let is_key = |file: &String| KeyName::of_file(file.strip_suffix(HALF).unwrap_or(file)).is_some();
    if !directory.try_exists().map_err(|why| at(directory, why))? || !names(directory)?.iter().any(is_key) {
        return Ok(0);
    }
    let _alone = lock(directory)?;
    let files: Vec<PathBuf> =
        names(directory)?.iter().filter(|file| is_key(file)).map(|file| directory.join(file)).collect();
    let destroyed = files.iter().map(|path| destroyer.destroy(path).map_err(|why| at(path, why)));
    // All are tried before the first error is told.
    destroyed.collect::<Vec<_>>().into_iter().collect::<Result<(), VaultError>>()?;
    Ok(files.len())
}

/// What a key's file says, and the key.
type Found = (KeyFile, Zeroizing<[u8; 32]>);

/// The keys that no day ends, in the state directory.
pub(super) struct LongKeys(PathBuf);

impl LongKeys {
    /// Also whether there are none yet: this is the first start on this state directory.
    pub(super) fn open(state_directory: &Path) -> Result<(Self, bool), VaultError> {
        let path = state_directory.join("secrets");
        let is_first = !path.try_exists().map_err(|why| at(&path, why))?;
        make_directory(&path)?;
        Ok((LongKeys(path), is_first))
    }

    /// A tenant's key, made where there is none.
    pub(super) fn tenant_key(&self, tenant: &str, platform: &dyn Platform) -> Result<Box<dyn KeyCell>, VaultError> {
        self.key(&format!("{tenant}.tenant"), tenant, platform)
    }

    /// The key that this node signs with.
    pub(super) fn signing_key(&self, platform: &dyn Platform) -> Result<Box<dyn KeyCell>, VaultError> {
        self.key("signing", "", platform)
    }

    fn key(&self, file: &str, tenant: &str, platform: &dyn Platform) -> Result<Box<dyn KeyCell>, VaultError> {
        let path = self.0.join(format!("{file}.key"));
        let key = if path.try_exists().map_err(|why| at(&path, why))? {
            let found = read_key(&path, tenant)?;
            found.map(|(_, key)| key).ok_or_else(|| VaultError::DamagedKey { path: path.clone() })?
        } else {
            let mut key = Zeroizing::new([0; 32]);
            platform.random(&mut *key);
            replace(&path, &*KeyFile::LONG.write(&key, tenant)).map_err(|why| at(&path, why))?;
            key
        };
        platform.cells().cell(*key).map_err(VaultError::Memory)
    }
}

pub(super) const HALF: &str = ".new";

/// Writes a file whole or not at all.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let half = half_of(path);
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&half)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&half, path)?;
    sync_parent(path)
}

/// The name of a file that is not whole yet.
fn half_of(path: &Path) -> PathBuf {
    let mut half = path.as_os_str().to_owned();
    half.push(HALF);
    PathBuf::from(half)
}

/// The key of a file; `None` when it is none.
pub(super) fn read_key(path: &Path, tenant: &str) -> Result<Option<Found>, VaultError> {
    let mut file = File::open(path).map_err(|why| at(path, why))?;
    let mut bytes = Zeroizing::new([0; BYTES + 1]);
    let mut length = 0;
    while length < bytes.len() {
        match file.read(&mut bytes[length..]).map_err(|why| at(path, why))? {
            0 => break,
            count => length += count,
        }
    }
    Ok(KeyFile::read(&bytes[..length], tenant))
}

/// The lock of a directory of keys, this process's for as long as the file is open.
fn lock(directory: &Path) -> Result<File, VaultError> {
    let path = directory.join("lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let lock = lock.map_err(|why| at(&path, why))?;
    lock.try_lock().map_err(|_| VaultError::InUse(directory.to_owned()))?;
    Ok(lock)
}

pub(super) fn names(directory: &Path) -> Result<Vec<String>, VaultError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(|why| at(directory, why))? {
        let entry = entry.map_err(|why| at(directory, why))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

pub(super) fn make_directory(path: &Path) -> Result<(), VaultError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|why| at(path, why))
}

pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

pub(super) fn at(path: &Path, why: io::Error) -> VaultError {
    VaultError::File { path: path.to_owned(), why }
}
