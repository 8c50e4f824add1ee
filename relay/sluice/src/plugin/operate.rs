//! What operators do with plugins: each is a change of the configuration file, which stays the one truth, and comes
//! into force at once or not at all.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use sluice_admin::api;
use sluice_base::limits::PLUGIN_SETTINGS_BYTES_MAX;
use sluice_config::{Config, PluginChange, PluginEntry};
use sluice_policy::{Grant, digest};

use super::site::{NotPut, Site, SiteArgs};
use super::store::Store;
use crate::cli::Failure;
use crate::policies::read;
use crate::{banner, reload};

/// `sluice plugin install`.
#[derive(Args, Debug)]
pub(crate) struct InstallArgs {
    /// The component; cases in the folder beside it, of the same name with `.cases`, come along.
    file: PathBuf,
    /// The operator's name for it; without it that of the file.
    #[arg(long)]
    name: Option<String>,
    /// What it may have, in place of what it had: kv, geo, pseudonym or raw-addresses. Several times for several.
    #[arg(long = "grant", value_name = "GRANT", value_parser = grant)]
    grants: Vec<String>,
    /// Its settings, a file with a JSON object, in place of those it had.
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Where components are kept; without it the folder `plugins` beside the configuration.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    #[command(flatten)]
    site: SiteArgs,
}

/// `sluice plugin enable`.
#[derive(Args, Debug)]
pub(crate) struct EnableArgs {
    /// The plugin.
    name: String,
    /// For whom.
    #[arg(long)]
    tenant: String,
    /// What it says is counted and logged, and does not hold.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    site: SiteArgs,
}

/// `sluice plugin disable`.
#[derive(Args, Debug)]
pub(crate) struct DisableArgs {
    /// The plugin.
    name: String,
    /// For whom.
    #[arg(long)]
    tenant: String,
    #[command(flatten)]
    site: SiteArgs,
}

/// `sluice plugin settings`.
#[derive(Args, Debug)]
pub(crate) struct SettingsArgs {
    /// The plugin.
    name: String,
    /// A file with a JSON object; without it the settings are shown.
    file: Option<PathBuf>,
    /// For this tenant alone, for whom it decides; without it for all who have none of their own.
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    site: SiteArgs,
}

/// `sluice plugin rollback`.
#[derive(Args, Debug)]
pub(crate) struct RollbackArgs {
    /// The plugin.
    name: String,
    #[command(flatten)]
    site: SiteArgs,
}

fn grant(name: &str) -> Result<String, String> {
    let known: Vec<_> = Grant::NAMED.iter().map(|(known, _)| *known).collect();
    if known.contains(&name) { Ok(name.to_owned()) } else { Err(format!("there are: {}", known.join(", "))) }
}

/// What was done.
#[derive(Serialize)]
struct Done {
    /// In words.
    #[serde(skip)]
    words: String,
    /// The configuration file.
    config: String,
    plugin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    /// Of the component that decides now.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// Of the one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    former_digest: Option<String>,
    /// Whether the file is another one than before.
    changed: bool,
    /// The relay's answer, if one was asked.
    reload: Option<api::Reload>,
}

impl Done {
    fn new(site: &Site<'_>, plugin: &str, words: String) -> Self {
        Done {
            words,
            config: site.path.display().to_string(),
            plugin: plugin.to_owned(),
            tenant: None,
            digest: None,
            former_digest: None,
            changed: true,
            reload: None,
        }
    }

    fn tell(&self, args: &SiteArgs) -> Result<(), Failure> {
        args.ask.print(self, |done| match &done.reload {
            _ if !done.changed => format!("{}: nothing changes in {}\n", done.words, done.config),
            None => format!("{}: {} is changed, and no relay was asked to read it\n", done.words, done.config),
            Some(answer) => format!("{}: {}\n", done.words, reload::text(answer)),
        })
    }
}

/// Installs a component, or another version of it.
pub(super) fn install(args: &InstallArgs) -> Result<(), Failure> {
    let site = Site::open(&args.site)?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => args.file.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
    };
    let directory = args.directory.clone().unwrap_or_else(|| site.folder().join("plugins"));
    let directory = std::path::absolute(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let store = Store::new(&directory, &name, &site.path)?;
    let settings = args.settings.as_deref().map(settings_in).transpose()?;
    let mut draft = site.draft()?;
    let former = draft.plugin(&name).and_then(|entry| pinned(&site, entry));
    let mut history = store.history()?;
    let installed = store.take(&args.file)?;
    let written = installed.file.strip_prefix(site.folder()).unwrap_or(&installed.file).display().to_string();
    let change = PluginChange {
        file: Some(written.clone()),
        digest: Some(installed.digest.clone()),
        grants: (!args.grants.is_empty()).then(|| args.grants.clone()),
        settings,
    };
    let drafted = draft.put_plugin(&name, &change).map_err(|error| NotPut::AsItWas(site.wrong(&error)));
    let put = drafted.and_then(|()| site.put(&draft)).inspect_err(|why| {
        // Otherwise the file may name it, or the relay run it.
        if matches!(why, NotPut::AsItWas(_)) {
            installed.undo();
        }
    });
    let reload = put.map_err(|why| with_advice(why.into()))?;
    let former_digest = former.as_ref().and_then(PluginEntry::digest).map(str::to_owned);
    let changed = site.is_changed(&draft);
    if changed {
        history.extend(former);
        store.remember(history).map_err(|error| not_remembered(&name, &error))?.let_go(Path::new(&written));
    }
    let before = former_digest.as_ref().filter(|_| changed).map_or_else(String::new, |was| format!(" and was {was}"));
    let words = format!("{name} is {}{before}", installed.digest);
    let digest = Some(installed.digest);
    Done { digest, former_digest, changed, reload, ..Done::new(&site, &name, words) }.tell(&args.site)
}

/// What was done, and that the way back is not written down.
fn not_remembered(name: &str, error: &str) -> Failure {
    format!(
        "{name} is installed, but what was there before is not written down, so that a rollback knows it not: {error}"
    )
}

/// What else can be done about a refusal than the text says, which is for those who write the file.
fn with_advice(error: Failure) -> Failure {
    let advice = [("settings are refused", "--settings FILE"), ("it needs the grant", "--grant GRANT")];
    let option = advice.iter().find(|(symptom, _)| error.contains(symptom));
    option.map_or(error.clone(), |(_, option)| format!("{error}\n(`sluice plugin install` takes it as {option})"))
}

/// A plugin as it is now, so that it can be found again; `None` where its component is gone.
fn pinned(site: &Site<'_>, entry: PluginEntry) -> Option<PluginEntry> {
    let written = entry.component()?.to_owned();
    let digest = digest(&read(&site.folder().join(&written)).ok()?);
    Some(entry.pinned(&written, &digest))
}

/// Has a plugin decide for a tenant.
pub(super) fn enable(args: &EnableArgs) -> Result<(), Failure> {
    let EnableArgs { name, tenant, dry_run, site: site_args } = args;
    let site = Site::open(site_args)?;
    let mut draft = site.draft()?;
    let changed = draft.bind(tenant, name, *dry_run).map_err(|error| site.wrong(&error))?;
    let reload = site.put(&draft)?;
    let words = format!("{name} decides for {tenant}{}", if *dry_run { ", as a dry run" } else { "" });
    Done { tenant: Some(tenant.clone()), changed, reload, ..Done::new(&site, name, words) }.tell(site_args)
}

/// Has a plugin no longer decide for a tenant.
pub(super) fn disable(args: &DisableArgs) -> Result<(), Failure> {
    let DisableArgs { name, tenant, site: site_args } = args;
    let site = Site::open(site_args)?;
    let mut draft = site.draft()?;
    let changed = draft.unbind(tenant, name).map_err(|error| site.wrong(&error))?;
    if !changed {
        return Err(site.wrong(&format!("{name} does not decide for {tenant}: `sluice plugin list` says what does")));
    }
    let reload = site.put(&draft)?;
    let words = format!("{name} does not decide for {tenant} any more");
    Done { tenant: Some(tenant.clone()), reload, ..Done::new(&site, name, words) }.tell(site_args)
}

/// Shows the settings of a plugin, or puts others in their place.
pub(super) fn settings(args: &SettingsArgs) -> Result<(), Failure> {
    let SettingsArgs { name, file, tenant, site: site_args } = args;
    let site = Site::open(site_args)?;
    let Some(file) = file else {
        let text = settings_of(&site.config()?, name, tenant.as_deref()).map_err(|error| site.wrong(&error))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let text = serde_json::to_string_pretty(&value).map_err(|error| error.to_string())?;
        banner::say(&(text + "\n"));
        return Ok(());
    };
    let (settings, mut draft) = (settings_in(file)?, site.draft()?);
    let is_known = site.config()?.plugins.iter().any(|plugin| plugin.name == *name);
    let set = match tenant {
        Some(tenant) => draft.set_for(tenant, name, &settings),
        None if is_known => {
            draft.put_plugin(name, &PluginChange { settings: Some(settings), ..PluginChange::default() })
        }
        None => return Err(site.wrong(&no_plugin(&site.config()?, name))),
    };
    set.map_err(|error| site.wrong(&error))?;
    let reload = site.put(&draft)?;
    let of = tenant.as_ref().map_or_else(String::new, |tenant| format!(" for {tenant}"));
    let (changed, words) = (site.is_changed(&draft), format!("the settings of {name}{of}"));
    Done { tenant: tenant.clone(), changed, reload, ..Done::new(&site, name, words) }.tell(site_args)
}

/// By what settings a plugin decides, for a tenant or for those who have none of their own.
fn settings_of(config: &Config, name: &str, tenant: Option<&str>) -> Result<String, String> {
    let at = config.plugins.iter().position(|plugin| plugin.name == name).ok_or_else(|| no_plugin(config, name))?;
    let Some(of) = tenant else { return Ok(config.plugins[at].settings.clone()) };
    let policies = config.tenants.iter().filter(|tenant| tenant.name == of).flat_map(|tenant| &tenant.policies);
    let policy = policies.into_iter().find(|policy| policy.plugin == at);
    let policy =
        policy.ok_or_else(|| format!("{name} decides for no tenant {of:?}: `sluice plugin list` says for whom"))?;
    Ok(policy.settings.clone().unwrap_or_else(|| config.plugins[at].settings.clone()))
}

fn no_plugin(config: &Config, name: &str) -> String {
    let known: Vec<_> = config.plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    format!(
        "there is no plugin {name:?}; there are: {}",
        if known.is_empty() { "none".into() } else { known.join(", ") }
    )
}

/// Puts back what was installed before.
pub(super) fn rollback(args: &RollbackArgs) -> Result<(), Failure> {
    let RollbackArgs { name, site: site_args } = args;
    let site = Site::open(site_args)?;
    let mut draft = site.draft()?;
    let never =
        || site.wrong(&format!("{name} was not installed by `sluice plugin install`: there is nothing to go back to"));
    let current = draft.plugin(name).ok_or_else(never)?;
    let component = site.folder().join(current.component().unwrap_or_default());
    let store = Store::of(name, &component, &site.path)?.ok_or_else(never)?;
    let mut history = store.history()?;
    let former = history.pop().ok_or_else(|| site.wrong(&format!("there was no {name} before this one")))?;
    draft.restore_plugin(name, &former).map_err(|error| site.wrong(&error))?;
    let reload = site.put(&draft)?;
    store.remember(history).map_err(|error| not_remembered(name, &error))?;
    let [digest, former_digest] = [&former, &current].map(|entry| entry.digest().map(str::to_owned));
    let words = format!("{name} is {} again", digest.as_deref().unwrap_or_default());
    Done { digest, former_digest, reload, ..Done::new(&site, name, words) }.tell(site_args)
}

/// The settings of a file.
pub(super) fn settings_in(file: &Path) -> Result<Value, Failure> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let length = std::fs::metadata(file).map_err(|error| failed(&error))?.len();
    if length > PLUGIN_SETTINGS_BYTES_MAX as u64 {
        return Err(failed(&format!("{length} bytes, of which {PLUGIN_SETTINGS_BYTES_MAX} are possible")));
    }
    let text = std::fs::read_to_string(file).map_err(|error| failed(&error))?;
    serde_json::from_str(&text).map_err(|error| failed(&format!("no JSON: {error}")))
}
