//! The policies of this process: plugins from files, places from a database, and who they decide for.

mod cache;
mod capture;
mod chain;
mod figures;
pub(crate) mod orders;
pub(crate) mod signature;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use rand_core::{OsRng, TryRngCore};
use sluice_admin::api;
use sluice_base::event::RelayEvent;
use sluice_base::limits::{PLUGIN_BYTES_MAX, POLICY_THREADS_MAX};
use sluice_base::policy::Question;
use sluice_base::{Secret, TenantId};
use sluice_config::{Change, Config, Engine, PluginGrant, Sink, TenantPolicy};
use sluice_geo::Source as Places;
use sluice_policy::{
    Case, EngineChoice, Grant, Hook, Host, HostOptions, Mode, Node, Plugin, Sets, Source, Standing, Table, Tenant,
    digest,
};
use sluice_privacy::Plan;
use sluice_record::capture::Lives;
use sluice_record::plane::Handle;
use sluice_turn::Ledger;

use crate::cli::Failure;

pub(crate) use capture::Keeper;
pub(crate) use chain::Chain;

/// The plugins that decide, if there are any.
pub(crate) struct Policies {
    /// Made with the first plugin, and never again.
    host: OnceLock<Host>,
    /// Where words of plugins for the audit go, where there are records.
    audit: Arc<OnceLock<Handle>>,
    ledger: Arc<Ledger>,
    captures: Keeper,
    running: Mutex<Running>,
    /// Realms by tenant: apart from the rest, since workers read them.
    realms: RwLock<Arc<[String]>>,
}

/// What is in force.
#[derive(Default)]
struct Running {
    places: Option<Places>,
    /// Loaded plugins, each with all that it was loaded by.
    loaded: Vec<(String, Arc<Plugin>)>,
    /// Of everything that decides: two that are alike decide alike.
    fingerprint: String,
    /// A fault of the database of places was told already.
    told: bool,
}

/// Policies that were loaded and checked, ready to come into force.
pub(crate) struct Prepared {
    table: Table,
    running: Running,
    realms: Arc<[String]>,
    /// Tenants that have left allocations behind, perhaps.
    gone: Vec<TenantId>,
    lives: Lives,
}

impl Prepared {
    /// Plans of records that could not be had.
    pub(crate) fn faults(&self) -> impl Iterator<Item = String> {
        self.table.faults().map(str::to_owned)
    }
}

impl Policies {
    /// Those of a configuration that is looked at.
    pub(crate) fn start(config: &Config, ledger: Arc<Ledger>) -> Result<Arc<Self>, Failure> {
        Self::serve(config, ledger, Keeper::Nobody)
    }

    /// Those of a configuration, in force.
    pub(crate) fn serve(config: &Config, ledger: Arc<Ledger>, captures: Keeper) -> Result<Arc<Self>, Failure> {
        let policies = Policies::new(ledger, captures);
        let prepared = policies.prepare(config)?;
        policies.apply(prepared);
        Ok(Arc::new(policies))
    }

    fn new(ledger: Arc<Ledger>, captures: Keeper) -> Self {
        let (host, audit, running, realms) = (OnceLock::new(), Arc::default(), Mutex::default(), RwLock::default());
        Policies { host, audit, ledger, captures, running, realms }
    }

    /// What is written of a tenant's records; none where no plugin has a plan for them.
    pub(crate) fn plan(&self, tenant: TenantId) -> Option<Arc<Plan>> {
        self.host()?.table().plan(tenant).cloned()
    }

    /// Tenants whose policies decide.
    pub(crate) fn tenants(&self) -> Vec<TenantId> {
        let mut tenants: Vec<_> =
            self.host().iter().flat_map(|host| host.table().tenants().collect::<Vec<_>>()).collect();
        tenants.sort_unstable();
        tenants
    }

    /// Has words of plugins written into the audit, from now on.
    pub(crate) fn record(&self, handle: Handle) {
        let _ = self.audit.set(handle);
    }

    /// The host, once there was a plugin.
    pub(crate) fn host(&self) -> Option<&Host> {
        self.host.get()
    }

    /// Loads all that a configuration names. What is in force stays so.
    ///
    /// # Errors
    /// The first thing that is wrong, in words.
    pub(crate) fn prepare(&self, config: &Config) -> Result<Prepared, Failure> {
        let places = config.geo.database.as_deref().map(Places::open).transpose();
        let places = places.map_err(|error| format!("geo.database: {error}"))?;
        let realms = realms(config);
        let gone = config.tenants.iter().enumerate().filter(|(_, tenant)| tenant.is_gone());
        let gone = gone.map(|(id, _)| TenantId(id as u16)).collect();
        let lives = capture::lives(config);
        if config.plugins.is_empty() && self.host().is_none() {
            let running = Running { places, ..Running::default() };
            return Ok(Prepared { table: Table::default(), running, realms, gone, lives });
        }
        let host = self.host_for(config)?;
        let sets = Arc::new(sets(config));
        // A database that was replaced meanwhile says other things of the same addresses.
        let database = places.as_ref().map(Places::stamp);
        let mut fingerprint = format!("{:?}\n{database:?}\n{:?}\n", config.geo, node(config));
        let mut loads = Loads { host, before: self.running().loaded.clone(), loaded: Vec::new(), sets: &sets };
        let tenants = loads.tenants(config)?;
        let loaded = loads.loaded;
        for (key, _) in &loaded {
            let _ = writeln!(fingerprint, "{key}");
        }
        for tenant in &tenants {
            let _ = writeln!(fingerprint, "{} {:?}", tenant.name, bindings(tenant, &loaded));
        }
        let captures = self.captures.captures(config, &tenants)?;
        let table = host.bind_capturing(tenants, node(config), sets, captures).map_err(|error| error.to_string())?;
        Ok(Prepared { table, running: Running { places, loaded, fingerprint, told: false }, realms, gone, lives })
    }

    /// What a reload would change beside the keys of the configuration: files with another content.
    pub(crate) fn changes(&self, prepared: &Prepared) -> Vec<Change> {
        let running = self.running();
        let is_new = |(key, plugin): &&(String, Arc<Plugin>)| {
            let same_name = running.loaded.iter().find(|(_, known)| known.name() == plugin.name());
            same_name.is_some_and(|(known, before)| known != key && before.digest() != plugin.digest())
        };
        let changed = prepared.running.loaded.iter().filter(is_new);
        let mut changes: Vec<Change> = changed
            .map(|(_, plugin)| Change { key: format!("plugin.{} (its file)", plugin.name()), restart: false })
            .collect();
        changes.dedup();
        changes
    }

    /// Puts prepared policies in force; the tenants for whom something else decides now.
    pub(crate) fn apply(&self, prepared: Prepared) -> Vec<TenantId> {
        let Prepared { mut table, running: new, realms, gone, lives } = prepared;
        self.captures.shorten(lives);
        *self.realms.write().unwrap_or_else(PoisonError::into_inner) = realms;
        let mut running = self.running();
        // It lives until the table in force is another one, so that no worker is the last to have its plugins.
        let before = std::mem::replace(&mut *running, new);
        let Some(host) = self.host() else {
            return Vec::new();
        };
        host.set_places(running.places.as_ref().map(Places::database));
        let changed = before.fingerprint != running.fingerprint;
        drop(running);
        let was_in_force = host.table();
        table.keep_gone(&was_in_force, &gone);
        let mut tenants: Vec<TenantId> = was_in_force.tenants().chain(table.tenants()).collect();
        tenants.sort_unstable();
        tenants.dedup();
        for plugin in table.plugins() {
            for warning in plugin.warnings() {
                tracing::warn!(plugin = plugin.name(), "a plugin warns of its settings: {warning}");
            }
        }
        host.swap(table);
        if changed { tenants } else { Vec::new() }
    }

    /// Looks whether the database of places or a plan has become another; the tenants for whom that may matter. It
    /// reads files and runs guests: not for a thread that others wait for.
    pub(crate) fn look(&self) -> Vec<TenantId> {
        let Some(host) = self.host() else {
            return Vec::new();
        };
        let mut tenants = Vec::new();
        if self.look_at_places(host) {
            tracing::info!("the database of places is another one");
            tenants.extend(host.table().tenants());
        }
        let renewed = host.renew();
        for error in &renewed.failed {
            tracing::warn!("a plan cannot be had again, and its tenant is served until its end: {error}");
        }
        tenants.extend(renewed.changed);
        tenants.sort_unstable();
        tenants.dedup();
        tenants
    }

    /// Reads the database of places again if its file has changed; whether another one is in force now. Nobody waits
    /// for the disk meanwhile.
    fn look_at_places(&self, host: &Host) -> bool {
        let Some(mut places) = self.running().places.clone() else {
            return false;
        };
        let before = places.stamp();
        let looked = places.look();
        let mut running = self.running();
        // A reload has brought another source meanwhile: what it read is newer.
        if running.places.as_ref().map(Places::stamp) != Some(before) {
            return false;
        }
        running.places = Some(places);
        match looked {
            Ok(false) => false,
            Ok(true) => {
                running.told = false;
                host.set_places(running.places.as_ref().map(Places::database));
                true
            }
            Err(error) => {
                let is_new = !std::mem::replace(&mut running.told, true);
                drop(running);
                if is_new {
                    tracing::warn!("the former database of places goes on: {error}");
                }
                false
            }
        }
    }

    /// What is said at the start.
    pub(crate) fn told(&self) -> Vec<String> {
        let Some(host) = self.host() else {
            return Vec::new();
        };
        let (kind, why) = host.engine();
        let mut told = vec![format!("plugins run on {}: {why}", kind.name())];
        told.extend(host.table().bindings().map(|(tenant, plugin, mode)| {
            let dry_run = if mode == Mode::DryRun { ", as a dry run" } else { "" };
            let hooks: Vec<_> = plugin.hooks().iter().map(told_hook).collect();
            format!("{} {} decides {} for {tenant}{dry_run}", plugin.name(), plugin.version(), hooks.join(", "))
        }));
        if self.running().places.is_none() {
            told.push("there is no database of places (geo.database): every place is unknown".to_owned());
        }
        told
    }

    /// What decides for whom.
    pub(crate) fn list(&self) -> api::Plugins {
        let Some(host) = self.host() else {
            return api::Plugins::default();
        };
        let (kind, why) = host.engine();
        let table = host.table();
        let hooks = |plugin: &Plugin, asked: bool| {
            let some = plugin.hooks().iter().filter(|hook| hook.is_asked() == asked);
            some.map(|hook| hook.name().to_owned()).collect()
        };
        let plugin = |(_, plugin): &(String, Arc<Plugin>)| api::Plugin {
            name: plugin.name().to_owned(),
            version: plugin.version().to_owned(),
            digest: plugin.digest().to_owned(),
            hooks: hooks(plugin, true),
            not_asked: hooks(plugin, false),
            grants: plugin.grants().iter().map(|grant| grant.name().to_owned()).collect(),
            tenants: table
                .bindings()
                .filter(|(_, bound, _)| Arc::ptr_eq(bound, plugin))
                .map(|(tenant, _, mode)| api::Binding { tenant: tenant.to_owned(), dry_run: mode == Mode::DryRun })
                .collect(),
        };
        let plugins = self.running().loaded.iter().map(plugin).collect();
        let mut faults: Vec<String> = table.faults().map(str::to_owned).collect();
        faults.sort_unstable();
        api::Plugins { engine: format!("{}: {why}", kind.name()), plugins, faults }
    }

    /// What an admission policy is told beside the question.
    fn standing(&self, question: &Question) -> Standing {
        let (of_user, of_tenant) = self.ledger.allocations(question.tenant, &question.user);
        Standing {
            // The one in question is among them, whether it lives or is asked for.
            subject_allocations: of_user.saturating_sub(1),
            tenant_allocations: of_tenant.saturating_sub(1),
            realm: self.realms().get(usize::from(question.tenant.0)).cloned().unwrap_or_default(),
        }
    }

    fn host_for(&self, config: &Config) -> Result<&Host, Failure> {
        if let Some(host) = self.host() {
            return Ok(host);
        }
        // Whoever looks at a configuration is seldom the user whom the folder of compiled plugins has to belong to.
        let is_looked_at = matches!(self.captures, Keeper::Nobody);
        let cache = if is_looked_at { None } else { cache::folder(&config.policy)? };
        let host = Host::start(host_options(config, cache)?)?;
        let audit = self.audit.clone();
        host.on_tags(Box::new(move |tagged| {
            if let Some(handle) = audit.get() {
                // What is lost is counted there.
                handle.event(RelayEvent::Tagged(tagged));
            }
        }));
        let (engine, reason) = host.engine();
        tracing::info!(reason, "plugins run on {}", engine.name());
        Ok(self.host.get_or_init(|| host))
    }

    fn realms(&self) -> Arc<[String]> {
        self.realms.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Plugins on their way from files, each as often as it differs for somebody.
struct Loads<'p> {
    host: &'p Host,
    /// What runs: one that is the same in everything is not loaded again.
    before: Vec<(String, Arc<Plugin>)>,
    loaded: Vec<(String, Arc<Plugin>)>,
    sets: &'p Arc<Sets>,
}

/// A plugin's files.
struct Files<'c> {
    plugin: &'c sluice_config::Plugin,
    bytes: Vec<u8>,
    /// Of the component and of its cases.
    digests: [String; 2],
    cases: Vec<Case>,
}

impl Loads<'_> {
    /// Every tenant with its plugins. Each file is read once, and let go before the next one.
    fn tenants(&mut self, config: &Config) -> Result<Vec<Tenant>, Failure> {
        let mut bound = HashMap::new();
        for (i, plugin) in config.plugins.iter().enumerate() {
            self.plugin(config, i, plugin, &mut bound)
                .map_err(|error| format!("plugin {}: {}: {error}", plugin.name, plugin.file.display()))?;
        }
        let mut of = |(id, tenant): (usize, &sluice_config::Tenant)| {
            let bound = |policy: &TenantPolicy| {
                let mode = if policy.dry_run { Mode::DryRun } else { Mode::Enforce };
                bound.remove(&(id, policy.plugin)).map(|plugin| (plugin, mode))
            };
            let plugins = tenant.policies.iter().filter_map(bound).collect();
            Tenant { id: TenantId(id as u16), name: tenant.name.clone(), plugins }
        };
        Ok(config.tenants.iter().enumerate().map(&mut of).collect())
    }

    /// One plugin for each tenant that it is bound to; for nobody, as it stands there, where nobody has it.
    fn plugin(
        &mut self,
        config: &Config,
        i: usize,
        plugin: &sluice_config::Plugin,
        bound: &mut HashMap<(usize, usize), Arc<Plugin>>,
    ) -> Result<(), Failure> {
        let files = Files::read(plugin)?;
        signature::check(&config.policy, &plugin.file, &files.bytes)?;
        let bindings = config.tenants.iter().enumerate().filter_map(|(id, tenant)| {
            let policy = tenant.policies.iter().find(|policy| policy.plugin == i)?;
            Some((id, tenant, policy))
        });
        let mut is_bound = false;
        for (id, tenant, policy) in bindings {
            let settings = policy.settings.as_ref().unwrap_or(&plugin.settings);
            let loaded = self.load(&files, settings, policy.grants.as_ref().unwrap_or(&plugin.grants));
            let loaded = loaded.map_err(|error| match (&policy.settings, &policy.grants) {
                (None, None) => error,
                _ => format!("as tenant {} has it: {error}", tenant.name),
            })?;
            bound.insert((id, i), loaded);
            is_bound = true;
        }
        match is_bound {
            true => Ok(()),
            false => self.load(&files, &plugin.settings, &plugin.grants).map(drop),
        }
    }

    /// A plugin with these settings and grants, or the one that is loaded already and is the same in everything.
    fn load(&mut self, files: &Files<'_>, settings: &str, grants: &[PluginGrant]) -> Result<Arc<Plugin>, Failure> {
        let Files { plugin, bytes, digests, cases } = files;
        let (name, pinned, sets) = (&plugin.name, &plugin.digest, self.sets);
        let key = format!("{name} {digests:?} {pinned:?} {grants:?} {settings} {sets:?}");
        if let Some((_, loaded)) = self.loaded.iter().find(|(known, _)| *known == key) {
            return Ok(loaded.clone());
        }
        let known = self.before.iter().find(|(known, _)| *known == key).map(|(_, loaded)| loaded.clone());
        let loaded = match known {
            Some(known) => known,
            None => {
                let source = Source {
                    name: plugin.name.clone(),
                    bytes: bytes.clone(),
                    pinned: plugin.digest.clone(),
                    settings: settings.to_owned(),
                    grants: grants.iter().map(granted).collect(),
                    cases: cases.clone(),
                };
                Arc::new(self.host.load(&source, self.sets).map_err(|error| error.to_string())?)
            }
        };
        self.loaded.push((key, loaded.clone()));
        Ok(loaded)
    }
}

impl<'c> Files<'c> {
    fn read(plugin: &'c sluice_config::Plugin) -> Result<Self, Failure> {
        let (bytes, cases) = (read(&plugin.file)?, cases_beside(&plugin.file)?);
        let digests = [digest(&bytes), digest(format!("{cases:?}").as_bytes())];
        Ok(Files { plugin, digests, bytes, cases })
    }
}

/// The component of a file.
pub(crate) fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let opened = File::open(file).and_then(|file| file.take(PLUGIN_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
    opened.map(|_| bytes).map_err(|error| format!("cannot be read: {error}"))
}

/// The cases that came with a component: in a folder beside it, of the same name.
pub(crate) fn cases_beside(file: &Path) -> Result<Vec<Case>, Failure> {
    let folder = file.with_extension("cases");
    if folder.is_dir() { Case::read(&folder) } else { Ok(Vec::new()) }
}

/// The options of a host, with a key that dies with the process, and what was compiled in `cache`.
pub(crate) fn host_options(config: &Config, cache: Option<PathBuf>) -> Result<HostOptions, Failure> {
    let mut key = [0; 32];
    OsRng.try_fill_bytes(&mut key).map_err(|error| format!("the system gave no randomness: {error}"))?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(HostOptions {
        engine: match config.policy.engine {
            Engine::Auto => EngineChoice::Auto,
            Engine::Cranelift => EngineChoice::Cranelift,
            Engine::Pulley => EngineChoice::Pulley,
        },
        memory_bytes: config.policy.memory_bytes,
        deadline: config.policy.deadline,
        queue: config.policy.queue,
        threads: cores.clamp(1, POLICY_THREADS_MAX),
        fuel: false,
        key: Secret::new(key),
        cache,
    })
}

fn granted(grant: &PluginGrant) -> Grant {
    match grant {
        PluginGrant::Kv => Grant::Kv,
        PluginGrant::Geo => Grant::Geo,
        PluginGrant::Pseudonym => Grant::Pseudonym,
        PluginGrant::RawAddresses => Grant::RawAddresses,
    }
}

/// A hook by name, and what will not come of it.
pub(crate) fn told_hook(hook: &Hook) -> String {
    match (hook.is_kept(), hook.is_asked()) {
        (true, true) => hook.name().to_owned(),
        (true, false) => format!("{hook} (which nothing here asks for)"),
        (false, _) => format!("{hook} (which this version does not carry out)"),
    }
}

fn sets(config: &Config) -> Sets {
    let mut sets = Sets::default();
    config.geo.sets.iter().for_each(|set| sets.insert(set.name.clone(), set.countries.clone()));
    sets
}

fn node(config: &Config) -> Node {
    let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let policy = &config.policy;
    // Only this word lets records leave the machine.
    let leaves = |sink: &Sink| matches!(sink, Sink::Http { allow_plaintext: true, .. });
    Node {
        id: policy.node_id.clone(),
        region: some(&policy.node_region),
        country: some(&policy.node_country),
        ships: config.spool.sinks.iter().any(leaves),
    }
}

/// What decides for a tenant: keys of loaded plugins, and whether they hold.
fn bindings<'l>(tenant: &Tenant, loaded: &'l [(String, Arc<Plugin>)]) -> Vec<(&'l str, Mode)> {
    let of = |(plugin, mode): &(Arc<Plugin>, Mode)| {
        let (key, _) = loaded.iter().find(|(_, known)| Arc::ptr_eq(known, plugin))?;
        Some((key.as_str(), *mode))
    };
    tenant.plugins.iter().filter_map(of).collect()
}

/// The realm of each tenant: of the first listener that is its own, else of the first.
fn realms(config: &Config) -> Arc<[String]> {
    let realm = |id: usize| {
        let own = config.listen.iter().find(|listen| usize::from(listen.tenant.0) == id);
        own.or(config.listen.first()).map_or_else(String::new, |listen| listen.realm.clone())
    };
    (0..config.tenants.len()).map(realm).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc;
    use std::time::Duration;

    use sluice_base::policy::Hook as Asked;
    use sluice_config::Directory;
    use sluice_geo::Place;
    use sluice_geo::write::Writer;
    use sluice_record::testing::Folder;

    use super::*;
    use crate::recorder::tests::question;

    fn write(database: &Path, country: &str) {
        let mut writer = Writer::new(1);
        let place = Place { country: Some(country.to_owned()), ..Place::default() };
        writer.insert("10.0.0.0".parse().unwrap(), 8, &place);
        let new = database.with_extension("new");
        std::fs::write(&new, writer.bytes()).unwrap();
        std::fs::rename(new, database).unwrap();
    }

    /// Policies without a plugin, but with a host and a database of places.
    fn policies(folder: &Folder) -> (Arc<Policies>, Config) {
        let mut config = Config::default();
        config.geo.database = Some(folder.join("places.mmdb"));
        config.policy.engine = Engine::Pulley;
        write(&folder.join("places.mmdb"), "DE");
        let policies = Policies::start(&config, crate::wiring::ledger(&config)).unwrap();
        policies.host_for(&config).unwrap();
        (policies, config)
    }

    #[test]
    fn whoever_only_looks_makes_no_folder_for_compiled_plugins() {
        let folder = Folder::new("policies");
        let mut config = Config::default();
        config.policy.engine = Engine::Pulley;
        config.policy.cache_directory = Directory::At(folder.join("cache"));
        let makes = |captures| {
            Policies::new(crate::wiring::ledger(&config), captures).host_for(&config).unwrap();
            folder.join("cache").exists()
        };
        assert_eq!([Keeper::Nobody, Keeper::Nowhere].map(makes), [false, true]);
    }

    #[test]
    fn a_database_that_was_replaced_before_a_reload_changes_what_decides() {
        let folder = Folder::new("policies");
        let (policies, config) = policies(&folder);
        let decides = || policies.prepare(&config).unwrap().running.fingerprint;
        let before = decides();
        assert_eq!(decides(), before);
        write(&folder.join("places.mmdb"), "FR");
        assert_ne!(decides(), before);
    }

    #[test]
    fn no_question_waits_while_a_disk_is_read() {
        let folder = Folder::new("policies");
        let (policies, _) = policies(&folder);
        let pipe = folder.join("places.mmdb");
        std::fs::remove_file(&pipe).unwrap();
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let looking = policies.clone();
        let look = std::thread::spawn(move || looking.look());
        // Only a reader that waits lets it be opened for writing, and reads until it is closed.
        let held = File::options().write(true).open(&pipe).unwrap();
        let (tell, told) = mpsc::channel();
        let ask = std::thread::spawn(move || tell.send(policies.standing(&question(Asked::Allocate))));
        let standing = told.recv_timeout(Duration::from_secs(10));
        drop(held);
        assert_eq!(standing.unwrap().subject_allocations, 0);
        assert_eq!(look.join().unwrap(), [], "it is no database");
        ask.join().unwrap().unwrap();
    }

    #[test]
    fn with_other_cases_a_plugin_is_another_one() {
        let folder = Folder::new("cases");
        let case = |expect: &str| {
            let text = format!(r#"{{"hook": "setup.describe", "expect": {{"name": "{expect}"}}}}"#);
            std::fs::create_dir_all(folder.join("p.cases")).unwrap();
            std::fs::write(folder.join("p.cases/one.json"), text).unwrap();
        };
        std::fs::write(folder.join("p.wasm"), b"a component").unwrap();
        let plugin = sluice_config::Plugin {
            name: "p".to_owned(),
            file: folder.join("p.wasm"),
            digest: None,
            grants: Vec::new(),
            settings: "{}".to_owned(),
        };
        let digests = || Files::read(&plugin).unwrap().digests;
        case("one");
        let (before, same) = (digests(), digests());
        case("two");
        assert_eq!(before, same);
        assert_eq!(before[0], digests()[0]);
        assert_ne!(before[1], digests()[1]);
    }
}
