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
    /// As the relay is given it: relative paths start from its folder.
    pub(super) path: PathBuf,
    /// The same without links, which is what is replaced.
    target: PathBuf,
    text: String,
    /// Held for as long as this lives.
    _lock: File,
}

/// Why a change is not made.
#[derive(Debug)]
pub(super) enum NotPut {
    /// The file is what it was, and so is what is in force.
    AsItWas(Failure),
    /// The new file is there, or what it names may be in force.
    Unsure(Failure),
}

impl From<NotPut> for Failure {
    fn from(why: NotPut) -> Self {
        match why {
            NotPut::AsItWas(error) | NotPut::Unsure(error) => error,
        }
    }
}

impl<'a> Site<'a> {
    /// The file of the arguments, or that of the running relay.
    pub(super) fn open(args: &'a SiteArgs) -> Result<Self, Failure> {
        let path = args.file()?;
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        let (named, target) = (std::path::absolute(&path).map_err(failed)?, path.canonicalize().map_err(failed)?);
        let folder = folder(&target);
        let lock = File::open(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let held = |error| format!("{}: another command is changing a file there: {error}", folder.display());
        lock.try_lock().map_err(held)?;
        // Only now: whoever held it until now has changed it.
        let text = config_text(&target).map_err(|error| format!("{} {error}", path.display()))?;
        Ok(Site { args, path: named, target, text, _lock: lock })
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
    /// [`NotPut`].
    pub(super) fn put(&self, draft: &Draft) -> Result<Option<api::Reload>, NotPut> {
        let text = draft.text();
        if text == self.text {
            return Ok(None);
        }
        let unchanged = |error: Failure| NotPut::AsItWas(format!("{error}\n{} is what it was", self.path.display()));
        let config = self.parsed(&text).map_err(unchanged)?;
        // All that is loaded by it, with its cases, as a start would.
        Policies::start(&config, wiring::ledger(&config)).map_err(unchanged)?;
        if !self.holds(&self.text) {
            let path = self.path.display();
            return Err(NotPut::AsItWas(format!("{path} was changed by somebody else meanwhile: nothing is done")));
        }
        self.replace(&text).map_err(unchanged)?;
        if self.args.no_reload {
            return Ok(None);
        }
        let asked = self.args.ask.asked::<api::Reload>(Method::POST, api::RELOAD).map_err(NotPut::Unsure)?;
        match asked {
            Ok(answer) if answer.outcome.is_well() || answer.outcome == Outcome::Unconfirmed => Ok(Some(answer)),
            Ok(answer) => Err(self.put_back(&text, &reload::text(&answer))),
            Err(error) if is_no(&error) => Err(self.put_back(&text, &error.to_string())),
            // It may have done it, so that a file that was put back would not be what is in force.
            Err(error) => Err(NotPut::Unsure(format!(
                "{error}: {} is changed; `sluice reload` says whether it holds",
                self.path.display()
            ))),
        }
    }

    fn put_back(&self, written: &str, why: &str) -> NotPut {
        let path = self.path.display();
        match self.holds(written).then(|| self.replace(&self.text)) {
            Some(Ok(())) => NotPut::AsItWas(format!("{why}\n{path} is what it was")),
            Some(Err(error)) => NotPut::Unsure(format!("{why}\n{error}: {path} is not what is in force")),
            None => {
                NotPut::Unsure(format!("{why}\n{path} was changed by somebody else meanwhile, and is not put back"))
            }
        }
    }

    /// Whether the file says this, and nobody else has changed it.
    fn holds(&self, text: &str) -> bool {
        config_text(&self.target).is_ok_and(|found| found == text)
    }

    fn parsed(&self, text: &str) -> Result<Config, Failure> {
        let name = self.path.display().to_string();
        Config::parse(text, &name, &io_features(), &Unread).map_err(|error| error.to_string())
    }

    fn replace(&self, text: &str) -> Result<(), Failure> {
        replace(&self.target, text).map_err(|error| format!("{} cannot be replaced: {error}", self.path.display()))
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
            // By the relay's own name for it, from whose folder relative paths start.
            (Some(file), Some(running)) if is_same(file, running.as_ref()) => Ok(running.into()),
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

/// Whether a relay has surely not done what it was asked: one that is slow or stopping may have.
fn is_no(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Refused(problem) => !matches!(problem.status, 503 | 504),
        _ => false,
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
            let error: Failure = site.put(&Draft::parse(&format!("{FILE}{lines}")).unwrap()).unwrap_err().into();
            assert!(error.contains(said) && error.ends_with("is what it was"), "{error}");
            assert_eq!(std::fs::read_to_string(folder.join("relay.toml")).unwrap(), FILE);
        }
    }

    #[test]
    fn what_somebody_else_has_written_meanwhile_stays() {
        let folder = Folder::new("site-meanwhile");
        std::fs::write(folder.join("relay.toml"), FILE).unwrap();
        let args = args(&folder);
        let site = Site::open(&args).unwrap();
        let theirs = format!("{FILE}# Theirs.\n");
        std::fs::write(folder.join("relay.toml"), &theirs).unwrap();
        let draft = Draft::parse(&format!("{FILE}[log]\nlevel = \"warn\"\n")).unwrap();
        assert!(matches!(site.put(&draft), Err(NotPut::AsItWas(error)) if error.contains("somebody else")));
        assert_eq!(std::fs::read_to_string(folder.join("relay.toml")).unwrap(), theirs);
    }

    #[test]
    fn relative_paths_start_from_the_folder_of_the_name_that_the_relay_is_given() {
        let (folder, elsewhere) = (Folder::new("site-name"), Folder::new("site-target"));
        std::fs::write(elsewhere.join("relay.toml"), FILE).unwrap();
        std::os::unix::fs::symlink(elsewhere.join("relay.toml"), folder.join("relay.toml")).unwrap();
        let args = args(&folder);
        let site = Site::open(&args).unwrap();
        assert_eq!(site.folder(), folder.join("."));
        site.put(&Draft::parse(&format!("{FILE}[log]\nlevel = \"warn\"\n")).unwrap()).unwrap();
        assert!(std::fs::read_to_string(elsewhere.join("relay.toml")).unwrap().ends_with("\"warn\"\n"));
    }

    #[test]
    fn a_relay_that_is_slow_or_stopping_may_have_done_it() {
        let refused = |status| ClientError::Refused(sluice_admin::api::Problem::new(status, "title", "detail"));
        let may_have = [refused(503), refused(504), ClientError::Late("relay.sock".into())];
        assert!(may_have.iter().all(|error| !is_no(error)));
        assert!(is_no(&refused(409)));
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
