//! Where what plugins are asked in dry runs goes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde_json::Value;
use sluice_config::{Config, Directory, TenantPolicy};
use sluice_policy::{Capture, Captures, Tenant};
use sluice_privacy::date::DAY_SECONDS;
use sluice_record::capture::{self, About, Lives};

use crate::cli::Failure;
use crate::records::Directories;

/// Who keeps captures.
#[derive(Debug)]
pub(crate) enum Keeper {
    /// Nobody: a configuration is looked at, and no client comes.
    Nobody,
    /// There is no state directory.
    Nowhere,
    /// The record plane's files.
    Files(capture::Captures),
}

impl Keeper {
    /// That of a relay. Captures whose time is over are deleted before this returns.
    ///
    /// # Errors
    /// In words: one cannot be deleted.
    pub(crate) fn start(config: &Config, directories: &Directories, clock: fn() -> u64) -> Result<Self, Failure> {
        let state: Option<PathBuf> = match &config.privacy.state_directory {
            Directory::At(path) => Some(path.clone()),
            Directory::Auto => directories.state.clone(),
        };
        let Some(state) = state else { return Ok(Keeper::Nowhere) };
        capture::Captures::start(&state, lives(config), Arc::new(clock)).map(Keeper::Files)
    }

    /// No capture lives longer than the tenants of the configuration in force keep addresses.
    pub(super) fn shorten(&self, lives: Lives) {
        if let Keeper::Files(captures) = self {
            captures.shorten(lives);
        }
    }

    /// What a configuration wants captured, of these tenants with their plugins.
    pub(super) fn captures(&self, config: &Config, tenants: &[Tenant]) -> Result<Captures, Failure> {
        let mut captures = HashMap::new();
        for (of, tenant) in config.tenants.iter().zip(tenants) {
            for policy in &of.policies {
                let Some(file) = &policy.capture else { continue };
                let plugin = &config.plugins[policy.plugin];
                let kept = self.capture(file, of, about(config, policy, tenant));
                let kept = kept.map_err(|error| format!("capture of {} for {}: {error}", plugin.name, of.name))?;
                captures.insert((tenant.id, plugin.name.clone()), kept);
            }
        }
        Ok(captures)
    }

    fn capture(&self, file: &str, of: &sluice_config::Tenant, about: About) -> Result<Arc<dyn Capture>, Failure> {
        match self {
            Keeper::Nobody => Ok(Arc::new(Unkept)),
            Keeper::Nowhere => Err("there is no state directory: name one in privacy.state_directory".to_owned()),
            Keeper::Files(captures) => Ok(Arc::new(Kept(captures.capture(file, about, life(of))?))),
        }
    }
}

/// How long captures of each tenant may live.
pub(super) fn lives(config: &Config) -> Lives {
    config.tenants.iter().map(|tenant| (tenant.name.clone(), life(tenant))).collect()
}

/// No longer than the addresses that its pseudonyms are of.
fn life(tenant: &sluice_config::Tenant) -> Duration {
    Duration::from_secs(u64::from(tenant.privacy.ip_retention_days) * DAY_SECONDS)
}

fn about(config: &Config, policy: &TenantPolicy, tenant: &Tenant) -> About {
    let plugin = &config.plugins[policy.plugin];
    let loaded = tenant.plugins.iter().find(|(loaded, _)| loaded.name() == plugin.name);
    let settings = policy.settings.as_ref().unwrap_or(&plugin.settings);
    About {
        tenant: tenant.name.clone(),
        plugin: plugin.name.clone(),
        digest: loaded.map_or_else(String::new, |(loaded, _)| loaded.digest().to_owned()),
        settings: serde_json::from_str(settings).unwrap_or(Value::Null),
    }
}

/// In a file.
#[derive(Debug)]
struct Kept(capture::Capture);

impl Capture for Kept {
    fn is_open(&self) -> bool {
        self.0.is_open()
    }

    fn take(&self, line: String, lost: &Arc<AtomicU64>) {
        self.0.take(line, lost);
    }
}

/// Of a configuration that is looked at.
#[derive(Debug)]
struct Unkept;

impl Capture for Unkept {
    fn is_open(&self) -> bool {
        false
    }

    fn take(&self, _: String, _: &Arc<AtomicU64>) {}
}

#[cfg(test)]
mod tests {
    use sluice_base::TenantId;
    use sluice_record::testing::Folder;

    use super::*;

    fn config() -> Config {
        let mut config = Config::default();
        config.plugins.push(sluice_config::Plugin {
            name: "quota".to_owned(),
            file: "quota.wasm".into(),
            digest: None,
            grants: Vec::new(),
            settings: r#"{"most": 1}"#.to_owned(),
        });
        let text = "[[listen]]\naddress = \"127.0.0.1:3478\"\nrealm = \"r\"\ntenant = \"clinic\"\n\
                    [[tenant]]\nname = \"clinic\"\nsecrets = [{ value = \"s\" }]\n";
        let parsed = Config::parse(text, "relay.toml", &[], &sluice_config::Unread).unwrap();
        config.tenants = parsed.tenants;
        let capture = Some("monday".to_owned());
        let policy = TenantPolicy { plugin: 0, dry_run: true, capture, settings: None, grants: None };
        config.tenants[0].policies.push(policy);
        config
    }

    fn tenants() -> [Tenant; 1] {
        [Tenant { id: TenantId(0), name: "clinic".to_owned(), plugins: Vec::new() }]
    }

    fn keeper(state: Option<PathBuf>) -> Keeper {
        Keeper::start(&Config::default(), &Directories { state, runtime: None }, || 1_795_867_200).unwrap()
    }

    #[test]
    fn without_a_state_directory_a_relay_refuses_what_a_check_of_the_configuration_lets_pass() {
        let error = keeper(None).captures(&config(), &tenants()).unwrap_err();
        assert!(error.contains("quota for clinic") && error.contains("privacy.state_directory"), "{error}");
        let unkept = Keeper::Nobody.captures(&config(), &tenants()).unwrap();
        assert!(!unkept[&(TenantId(0), "quota".to_owned())].is_open());
    }

    #[test]
    fn nothing_is_made_but_the_folder_before_there_is_a_question() {
        let folder = Folder::new("keeper");
        let keeper = keeper(Some(folder.path().to_owned()));
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
        let kept = keeper.captures(&config(), &tenants()).unwrap();
        assert!(kept[&(TenantId(0), "quota".to_owned())].is_open());
        assert!(std::fs::read_dir(folder.join(capture::CAPTURES)).unwrap().next().is_none());
    }
}
