//! Where installed components are: each in a folder of its own that is named by what is in it and never changed, with
//! its cases, and beside them what was there before.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sluice_base::limits::PLUGIN_HISTORY_MAX;
use sluice_config::PluginEntry;
use sluice_policy::{Case, digest};

use crate::cli::Failure;
use crate::policies::{read, signature};

/// What was there before, the latest last.
const HISTORY: &str = "history.toml";

/// Whose plugin it is: the path of a configuration, from the folder that the folder of plugins is in.
const OWNER: &str = "configuration";

/// The components of one plugin.
pub(super) struct Store {
    name: String,
    folder: PathBuf,
    configuration: PathBuf,
}

/// A component that lies there.
pub(super) struct Installed {
    pub(super) file: PathBuf,
    pub(super) digest: String,
    folder: PathBuf,
    /// It was not there before.
    is_new: bool,
}

impl Store {
    /// Of a plugin of a configuration, in a folder of many plugins.
    pub(super) fn new(folder: &Path, name: &str, configuration: &Path) -> Result<Self, Failure> {
        let is_part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(is_part) {
            return Err(format!(
                "{name:?} names no plugin: a name has letters, digits, `-`, `_` and `.`, and no point at its \
                 beginning (--name NAME)"
            ));
        }
        Self::at(&folder.join(name), name, configuration)
    }

    /// The one that a component lies in that was installed; `None` where it was not.
    pub(super) fn of(name: &str, component: &Path, configuration: &Path) -> Result<Option<Self>, Failure> {
        let folder = component.parent().and_then(Path::parent).filter(|folder| folder.join(HISTORY).is_file());
        folder.map(|folder| Self::at(folder, name, configuration)).transpose()
    }

    /// That of another configuration has a history that is not this one's, and would lose components that are in use.
    fn at(folder: &Path, name: &str, configuration: &Path) -> Result<Self, Failure> {
        let store = Store { name: name.to_owned(), folder: folder.to_owned(), configuration: configuration.to_owned() };
        match store.owner()? {
            Some(owner) if Some(&owner) != configuration.canonicalize().ok().as_ref() => Err(format!(
                "{} is of {}: `sluice plugin install --directory DIR` keeps {name} of {} in another folder",
                folder.display(),
                owner.display(),
                configuration.display()
            )),
            _ => Ok(store),
        }
    }

    /// Whose it is. One that is not there may be so for a moment only, and would lose components that it needs.
    fn owner(&self) -> Result<Option<PathBuf>, Failure> {
        let path = self.folder.join(OWNER);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        let owner = self.base().join(text.trim_end());
        let whole = owner.canonicalize().map_err(|error| {
            format!(
                "{} says that {} is of {}, which cannot be found ({error}): delete that file if nothing needs what is \
                 there",
                path.display(),
                self.name,
                owner.display()
            )
        });
        whole.map(Some)
    }

    /// So that a folder which is copied or moved with its configuration stays of that.
    fn base(&self) -> &Path {
        self.folder.parent().and_then(Path::parent).unwrap_or(Path::new("/"))
    }

    /// Copies a component with its signature and its cases, unless the very same is there.
    pub(super) fn take(&self, component: &Path) -> Result<Installed, Failure> {
        let failed = |error: String| format!("{}: {error}", component.display());
        let bytes = read(component).map_err(failed)?;
        let mut beside = Vec::new();
        for (name, bytes) in cases(&component.with_extension("cases"))? {
            beside.push((format!("{}.cases/{name}", self.name), bytes));
        }
        let signature = signature::read(&signature::beside(component)).map_err(|error| failed(error.to_string()))?;
        beside.extend(signature.map(|bytes| (format!("{}.wasm.sig", self.name), bytes)));
        let digest = digest(&bytes);
        let folder = self.folder.join(folder_name(&digest, &beside));
        let file = folder.join(format!("{}.wasm", self.name));
        let is_new = !folder.exists();
        if is_new {
            let written = self.write(&folder, &bytes, &beside);
            written.map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        Ok(Installed { file, digest, folder, is_new })
    }

    fn write(&self, folder: &Path, component: &[u8], beside: &[(String, Vec<u8>)]) -> io::Result<()> {
        let new = self.folder.join(format!(".new.{}", std::process::id()));
        let filled = || {
            self.folder.parent().map_or(Ok(()), folder_for_all)?;
            folder_for_all(&self.folder)?;
            let _ = std::fs::remove_dir_all(&new);
            folder_for_all(&new)?;
            file_for_all(&new.join(format!("{}.wasm", self.name)), component)?;
            for (name, bytes) in beside {
                let file = new.join(name);
                file.parent().map_or(Ok(()), folder_for_all)?;
                file_for_all(&file, bytes)?;
            }
            std::fs::rename(&new, folder)?;
            File::open(&self.folder)?.sync_all()
        };
        let done = filled();
        if done.is_err() {
            let _ = std::fs::remove_dir_all(&new);
        }
        done
    }

    /// What was there before, the latest last.
    pub(super) fn history(&self) -> Result<Vec<PluginEntry>, Failure> {
        let path = self.folder.join(HISTORY);
        match std::fs::read_to_string(&path) {
            Ok(text) => PluginEntry::list(&text).map_err(|error| format!("{}: {error}", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// Writes that down.
    pub(super) fn remember(&self, mut history: Vec<PluginEntry>) -> Result<Remembered<'_>, Failure> {
        history.drain(..history.len().saturating_sub(PLUGIN_HISTORY_MAX));
        let path = self.folder.join(HISTORY);
        let is_owned = self.owner()?.is_some();
        let written = || {
            if !is_owned {
                let owner = self.configuration.strip_prefix(self.base()).unwrap_or(&self.configuration);
                file_for_all(&self.folder.join(OWNER), format!("{}\n", owner.display()).as_bytes())?;
            }
            let new = self.folder.join(format!(".history.{}", std::process::id()));
            std::fs::write(&new, "")?;
            // Settings are for the eyes of those who may read the configuration.
            std::fs::set_permissions(&new, Permissions::from_mode(0o600))?;
            std::fs::write(&new, PluginEntry::file(&self.name, &history))?;
            File::open(&new)?.sync_all()?;
            std::fs::rename(&new, &path)
        };
        written().map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Remembered { store: self, history })
    }
}

/// A history that is written down.
pub(super) struct Remembered<'s> {
    store: &'s Store,
    history: Vec<PluginEntry>,
}

impl Remembered<'_> {
    /// Removes the folder of every component that is neither in the history nor the current one. What cannot be removed
    /// is in nobody's way.
    pub(super) fn let_go(&self, current: &Path) {
        let files: Vec<_> =
            self.history.iter().filter_map(PluginEntry::component).map(Path::new).chain([current]).collect();
        let is_kept = |name: &str| files.iter().any(|file| file.parent().is_some_and(|folder| folder.ends_with(name)));
        for entry in std::fs::read_dir(&self.store.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_folder_name(&name) && !is_kept(&name) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

impl Installed {
    /// Takes it away again if it was not there before.
    pub(super) fn undo(&self) {
        if self.is_new {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// The files of a folder of cases, if there is one.
fn cases(folder: &Path) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    // What is wrong with one is told before anything is copied.
    Case::read(folder)?;
    let failed = |error: io::Error| format!("{}: {error}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".json") {
            files.push((name, std::fs::read(entry.path()).map_err(failed)?));
        }
    }
    files.sort();
    Ok(files)
}

/// By the digest of the component, and some digits of that of what lies beside it.
fn folder_name(component: &str, beside: &[(String, Vec<u8>)]) -> String {
    let mut all = Vec::new();
    for (name, bytes) in beside {
        all.extend(format!("{name}\0{}\0", bytes.len()).into_bytes());
        all.extend(bytes);
    }
    let hex = |digest: &str| digest.trim_start_matches("sha256:").to_owned();
    format!("{}-{}", hex(component), &hex(&digest(&all))[..8])
}

fn is_folder_name(name: &str) -> bool {
    let is_hex = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
    name.split_once('-').is_some_and(|(component, cases)| is_hex(component, 64) && is_hex(cases, 8))
}

/// A folder that the relay can read, whoever it runs as.
fn folder_for_all(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(folder)?;
    std::fs::set_permissions(folder, Permissions::from_mode(0o755))
}

fn file_for_all(path: &Path, bytes: &[u8]) -> io::Result<()> {
    std::fs::write(path, bytes)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o644))?;
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use sluice_record::testing::Folder;

    use super::*;

    fn component(folder: &Folder, bytes: &[u8], cases: &[(&str, &str)]) -> PathBuf {
        let file = folder.join("given.wasm");
        std::fs::write(&file, bytes).unwrap();
        let _ = std::fs::remove_dir_all(folder.join("given.cases"));
        std::fs::create_dir(folder.join("given.cases")).unwrap();
        for (name, text) in cases {
            std::fs::write(folder.join("given.cases").join(name), text).unwrap();
        }
        file
    }

    const CASE: &str = r#"{"hook": "setup.describe", "expect": {}}"#;

    #[test]
    fn what_is_installed_lies_under_what_is_in_it_and_the_same_is_installed_once() {
        let folder = Folder::new("store");
        let store = Store::new(&folder.join("plugins"), "fence", &folder.join("relay.toml")).unwrap();
        let one = store.take(&component(&folder, b"one", &[("a.json", CASE), ("notes.txt", "")])).unwrap();
        assert_eq!(one.digest, digest(b"one"));
        assert_eq!(std::fs::read(&one.file).unwrap(), b"one");
        let cases: Vec<_> = std::fs::read_dir(one.file.with_extension("cases")).unwrap().collect();
        assert_eq!(cases.len(), 1);
        assert_eq!(std::fs::metadata(&one.file).unwrap().permissions().mode() & 0o777, 0o644);
        std::fs::write(folder.join("given.wasm.sig"), b"signed").unwrap();
        let signed = store.take(&component(&folder, b"one", &[("a.json", CASE)])).unwrap();
        assert_eq!(std::fs::read(signature::beside(&signed.file)).unwrap(), b"signed");
        assert_ne!(signed.file, one.file);
        std::fs::remove_file(folder.join("given.wasm.sig")).unwrap();
        let again = store.take(&component(&folder, b"one", &[("a.json", CASE)])).unwrap();
        assert_eq!((again.file.clone(), again.is_new), (one.file.clone(), false));
        again.undo();
        assert!(one.file.exists());
        for other in [component(&folder, b"one", &[]), component(&folder, b"two", &[("a.json", CASE)])] {
            let other = store.take(&other).unwrap();
            assert_ne!(other.file, one.file);
            other.undo();
            assert!(!other.file.exists());
        }
    }

    #[test]
    fn a_history_forgets_its_oldest_and_their_components() {
        let folder = Folder::new("history");
        std::fs::write(folder.join("relay.toml"), "").unwrap();
        let store = Store::new(&folder.join("plugins"), "fence", &folder.join("relay.toml")).unwrap();
        let mut history = Vec::new();
        for i in 0..PLUGIN_HISTORY_MAX + 2 {
            let taken = store.take(&component(&folder, &[i as u8], &[])).unwrap();
            let file = taken.file.display().to_string();
            let entry = PluginEntry::list(&format!("[[plugin]]\nfile = \"{file}\"\n")).unwrap().remove(0);
            history.push(entry.pinned(&file, &taken.digest));
        }
        let current = PathBuf::from(history.pop().unwrap().component().unwrap());
        let files: Vec<_> = history.iter().map(|entry| PathBuf::from(entry.component().unwrap())).collect();
        store.remember(history).unwrap().let_go(&current);
        let kept: Vec<_> = files.iter().filter(|file| file.exists()).collect();
        assert_eq!(kept, files[1..].iter().collect::<Vec<_>>());
        assert!(current.exists());
        let found = Store::of("fence", &current, &folder.join("relay.toml")).unwrap().unwrap().history().unwrap();
        assert_eq!(found.len(), PLUGIN_HISTORY_MAX);
        assert_eq!(found.last().unwrap().digest(), Some(&*digest(&[PLUGIN_HISTORY_MAX as u8])));
    }

    #[test]
    fn a_plugin_of_one_configuration_is_not_touched_for_another_and_moves_with_its_own() {
        let folder = Folder::new("owner");
        let home = |name: &str| folder.join(name);
        let store = |home: &Path, file: &str| Store::new(&home.join("plugins"), "fence", &home.join(file));
        std::fs::create_dir(home("here")).unwrap();
        for file in ["one.toml", "two.toml"] {
            std::fs::write(home("here").join(file), "").unwrap();
        }
        let one = store(&home("here"), "one.toml").unwrap();
        let taken = one.take(&component(&folder, b"one", &[])).unwrap();
        assert!(one.remember(Vec::new()).is_ok() && store(&home("here"), "one.toml").is_ok());
        let error = store(&home("here"), "two.toml").err().unwrap();
        assert!(error.contains("one.toml") && error.contains("--directory"), "{error}");
        assert!(Store::of("fence", &taken.file, &home("here").join("two.toml")).is_err());
        std::fs::rename(home("here"), home("there")).unwrap();
        assert!(store(&home("there"), "one.toml").is_ok() && store(&home("there"), "two.toml").is_err());
        std::fs::remove_file(home("there").join("one.toml")).unwrap();
        let error = store(&home("there"), "two.toml").err().unwrap();
        assert!(error.contains("one.toml") && error.contains("delete that file"), "{error}");
        std::fs::remove_file(home("there").join("plugins/fence").join(OWNER)).unwrap();
        assert!(store(&home("there"), "two.toml").is_ok());
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        for name in ["", ".", "..", ".new.1", "a/b", "../a", "ä"] {
            assert!(Store::new(Path::new("/nowhere"), name, Path::new("/nowhere/relay.toml")).is_err(), "{name}");
        }
    }
}
