//! The configuration file of a relay, as commands change it: what is wrong never gets there, and what the running relay
//! refuses is put back.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use clap::Args;
use sluice_admin::api::{self, Outcome};
use sluice_admin::{ClientError, Method};
use sluice_config::{Config, Draft, Unread, config_text};

use crate::ask::AskArgs;
use crate::cli::{Failure, io_features};
use crate::policies::Policies;
use crate::{reload, wiring};

/// Which file, and which relay.
#[derive(Args, Debug)]
pub(crate) struct SiteArgs {
    /// The configuration file; without it that of the running relay.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Change the file alone: it comes into force when a relay reads it.
    #[arg(long, requires = "config")]
    no_reload: bool,
    #[command(flatten)]
    pub(super) ask: AskArgs,
}

/// A configuration file that nobody else's command changes meanwhile.
pub(super) struct Site<'a> {
    args: &'a SiteArgs,
    /// Without links.
    pub(super) path: PathBuf,
    text: String,
    /// Held for as long as this lives.
    _lock: File,
}

impl<'a> Site<'a> {
    /// The file of the arguments, or that of the running relay.
    pub(super) fn open(args: &'a SiteArgs) -> Result<Self, Failure> {
        let path = args.file()?;
        let path = path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?;
        let text = config_text(&path).map_err(|error| format!("{} {error}", path.display()))?;
        let lock = File::open(folder(&path)).map_err(|error| format!("{}: {error}", folder(&path).display()))?;
        let held = |error| format!("{}: another command is changing a file there: {error}", folder(&path).display());
        lock.try_lock().map_err(held)?;
        Ok(Site { args, path, text, _lock: lock })
    }

    /// The folder that relative paths of the file start from.
    pub(super) fn folder(&self) -> &Path {
        folder(&self.path)
    }

    /// What it says; secrets are not read.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        self.parsed(&self.text)
    }

    /// The file, to be changed.
    pub(super) fn draft(&self) -> Result<Draft, Failure> {
        Draft::parse(&self.text).map_err(|error| self.wrong(&error))
    }

    /// Why the file cannot be changed.
    pub(super) fn wrong(&self, error: &dyn std::fmt::Display) -> Failure {
        format!("{}: {error}", self.path.display())
    }

    /// Whether a draft is another file.
    pub(super) fn is_changed(&self, draft: &Draft) -> bool {
        draft.text() != self.text
    }

    /// Puts a changed file in the place of this one, and in force; without a relay there is no answer.
    ///
    /// # Errors
    /// Why the file is what it was.
    pub(super) fn put(&self, draft: &Draft) -> Result<Option<api::Reload>, Failure> {
        let text = draft.text();
        if text == self.text {
            return Ok(None);
        }
        let unchanged = |error: Failure| format!("{error}\n{} is what it was", self.path.display());
        let config = self.parsed(&text).map_err(unchanged)?;
        // All that is loaded by it, with its cases, as a start would.
        Policies::start(&config, wiring::ledger(&config)).map_err(unchanged)?;
        self.replace(&text).map_err(unchanged)?;
        if self.args.no_reload {
            return Ok(None);
        }
        match self.args.ask.asked::<api::Reload>(Method::POST, api::RELOAD)? {
            Ok(answer) if answer.outcome.is_well() || answer.outcome == Outcome::Unconfirmed => Ok(Some(answer)),
            Ok(answer) => Err(self.put_back(&text, &reload::text(&answer))),
            Err(error @ (ClientError::Unreachable { .. } | ClientError::Refused(_))) => {
                Err(self.put_back(&text, &error.to_string()))
            }
            // It may have done it, so that a file that was put back would not be what is in force.
            Err(error) => {
                Err(format!("{error}: {} is changed; `sluice reload` says whether it holds", self.path.display()))
            }
        }
    }

    fn put_back(&self, written: &str, why: &str) -> Failure {
        let is_ours = config_text(&self.path).is_ok_and(|found| found == written);
        let path = self.path.display();
        match is_ours.then(|| self.replace(&self.text)) {
            Some(Ok(())) => format!("{why}\n{path} is what it was"),
            Some(Err(error)) => format!("{why}\n{error}: {path} is not what is in force"),
            None => format!("{why}\n{path} was changed by somebody else meanwhile, and is not put back"),
        }
    }

    fn parsed(&self, text: &str) -> Result<Config, Failure> {
        let name = self.path.display().to_string();
        Config::parse(text, &name, &io_features(), &Unread).map_err(|error| error.to_string())
    }

    fn replace(&self, text: &str) -> Result<(), Failure> {
        replace(&self.path, text).map_err(|error| format!("{} cannot be replaced: {error}", self.path.display()))
    }
}

impl SiteArgs {
    fn file(&self) -> Result<PathBuf, Failure> {
        let asked = || self.ask.call::<api::Status>(Method::GET, api::STATUS);
        let running = match self.no_reload {
            true => None,
            false => {
                asked().map_err(|error| format!("{error}\n(`--config FILE --no-reload` changes a file alone)"))?.config
            }
        };
        match (&self.config, running) {
            (Some(file), _) if self.no_reload => Ok(file.clone()),
            (None, Some(running)) => Ok(running.into()),
            (Some(file), Some(running)) if is_same(file, running.as_ref()) => Ok(file.clone()),
            (Some(file), Some(running)) => Err(format!(
                "the relay at {} runs {running} and not {}: name its --socket, or say --no-reload",
                self.ask.socket().display(),
                file.display()
            )),
            (_, None) => {
                Err("the running relay was started without a configuration: there is nothing to change".to_owned())
            }
        }
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let found = |path: &Path| path.canonicalize().ok();
    found(one).is_some_and(|one| Some(one) == found(other))
}

/// Where a file is; it has no links in its path.
fn folder(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new("/"))
}

/// Puts a text in the place of a file, of the same owner, group and mode: the old one or the new one is there.
pub(super) fn replace(file: &Path, text: &str) -> io::Result<()> {
    let like = std::fs::metadata(file)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let new = folder(file).join(format!(".{name}.{}", std::process::id()));
    let done = written(&new, text, &like).and_then(|()| std::fs::rename(&new, file));
    if done.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    done?;
    File::open(folder(file))?.sync_all()
}

fn written(new: &Path, text: &str, like: &std::fs::Metadata) -> io::Result<()> {
    // Nobody reads what is in it before it has the mode of the other.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
        fchown(&file, Some(like.uid()), Some(like.gid()))?;
    }
    file.write_all(text.as_bytes())?;
    file.set_permissions(Permissions::from_mode(like.mode() & 0o7777))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use sluice_record::testing::Folder;

    use super::*;

    const FILE: &str = "# Kept.\n[[listen]]\naddress = \"127.0.0.1:3478\"\nrealm = \"example.org\"\n\
                        [[tenant]]\nname = \"default\"\nsecrets = [{ file = \"none-that-there-is\" }]\n";

    fn args(folder: &Folder) -> SiteArgs {
        let ask = AskArgs { socket: None, json: false };
        SiteArgs { config: Some(folder.join("relay.toml")), no_reload: true, ask }
    }

    fn mode(folder: &Folder) -> u32 {
        std::fs::metadata(folder.join("relay.toml")).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_file_keeps_its_mode_and_everything_that_is_not_changed_and_secrets_are_not_read() {
        let folder = Folder::new("site");
        std::fs::write(folder.join("relay.toml"), FILE).unwrap();
        std::fs::set_permissions(folder.join("relay.toml"), Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(folder.join("relay.toml"), folder.join("link.toml")).unwrap();
        let args = SiteArgs { config: Some(folder.join("link.toml")), ..args(&folder) };
        let site = Site::open(&args).unwrap();
        let draft = Draft::parse(&format!("{FILE}[log]\nlevel = \"warn\"\n")).unwrap();
        assert!(site.put(&draft).unwrap().is_none());
        assert_eq!(std::fs::read_to_string(folder.join("relay.toml")).unwrap(), draft.text());
        assert_eq!(mode(&folder), 0o640);
        let files: Vec<_> = std::fs::read_dir(folder.join(".")).unwrap().collect();
        assert_eq!(files.len(), 2, "{files:?}");
        assert!(std::fs::symlink_metadata(folder.join("link.toml")).unwrap().is_symlink());
    }

    #[test]
    fn what_is_wrong_is_never_written() {
        let folder = Folder::new("site-wrong");
        std::fs::write(folder.join("relay.toml"), FILE).unwrap();
        let args = args(&folder);
        let site = Site::open(&args).unwrap();
        for (lines, said) in [
            ("[log]\nlevel = \"loud\"\n", "log.level"),
            ("[[plugin]]\nname = \"gone\"\nfile = \"gone.wasm\"\n", "gone.wasm: cannot be read"),
        ] {
            let error = site.put(&Draft::parse(&format!("{FILE}{lines}")).unwrap()).unwrap_err();
            assert!(error.contains(said) && error.ends_with("is what it was"), "{error}");
            assert_eq!(std::fs::read_to_string(folder.join("relay.toml")).unwrap(), FILE);
        }
    }

    #[test]
    fn one_command_at_a_time_changes_a_file() {
        let folder = Folder::new("site-lock");
        std::fs::write(folder.join("relay.toml"), FILE).unwrap();
        let args = args(&folder);
        let first = Site::open(&args).unwrap();
        assert!(Site::open(&args).err().unwrap().contains("another command"));
        drop(first);
        assert!(Site::open(&args).is_ok());
    }
}
