//! The host: an engine, the plugins bound to each tenant, and a few threads that ask them.

mod erasure;

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::thread::Builder;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use sluice_base::event::Tagged;
use sluice_base::limits::{
    PLANS_RENEWAL_MAX, PLUGIN_LINES_PER_SECOND, PLUGIN_LINES_WAITING_MAX, PLUGIN_PSEUDONYMS_PER_SECOND,
};
use sluice_base::policy::{Denial, Question, Verdict};
use sluice_base::{Secret, TenantId};
use sluice_crypto::HmacSha256Key;
use sluice_geo::Database;
use sluice_privacy::Plan;
use wasmtime::component::Component;

use crate::bindings::sluice::policy::types::{CallContext, Occasion};
use crate::capture::Captures;
use crate::cases::Case;
use crate::engine::{EngineChoice, EngineKind, Pool, Running};
use crate::facts::{Names, Node, Standing, told};
use crate::failure::Failure;
use crate::fence::Fences;
use crate::guest::{Context, Places, unix_seconds};
use crate::hook::{Grant, Hook};
use crate::judge::{Bound, BoundFence, Job, Tenancy};
use crate::lines::{Line, Untold, Voice};
use crate::load::{self, LoadError};
use crate::plugin::{Guest, Plugin, no_hook};
use crate::pseudonym::{Rotating, derived};
use crate::queue::Queue;
use crate::rate::Rate;
use crate::records::BoundPlan;
use crate::rest::Rests;
use crate::sets::Sets;
use crate::stats::{PluginStats, family};
use crate::{cases, lock, records};

pub use erasure::{Erased, Forgotten};

/// How a host is made; fixed for its life.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Which engine.
    pub engine: EngineChoice,
    /// Bytes of memory that one instance may have.
    pub memory_bytes: usize,
    /// How long the plugins of one question may take together.
    pub deadline: Duration,
    /// Questions that may wait.
    pub queue: usize,
    /// Threads that ask.
    pub threads: usize,
    /// Count what plugins execute, which is the same on every machine and slower: for their authors.
    pub fuel: bool,
    /// From which every key of a token is made. It dies with the process.
    pub key: Secret<[u8; 32]>,
    /// Where compiled components are kept for the next process: whoever may write there runs code in this one.
    pub cache: Option<PathBuf>,
}

/// The policy host. Clones are the same host.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

struct Inner {
    running: Running,
    options: HostOptions,
    places: Places,
    table: RwLock<Arc<Table>>,
    jobs: Arc<Queue<Job>>,
    lines: Sender<Line>,
    tagged: Arc<OnceLock<Tag>>,
    /// Of calls that are no questions.
    apart: Arc<Mutex<()>>,
    kept: Mutex<Kept>,
    /// With which tenant of the table the asking again for plans goes on.
    renewed: AtomicUsize,
}

/// What outlives a reload: by plugin, and by plugin and tenant.
#[derive(Default)]
struct Kept {
    stats: BTreeMap<String, Arc<PluginStats>>,
    tenancies: HashMap<(String, String), Remembered>,
    names: HashMap<String, Arc<Names>>,
    /// What was compiled, by digest: other settings are no other code. Plugins hold it, and nobody else does.
    components: HashMap<String, Weak<Component>>,
}

#[derive(Clone)]
struct Remembered {
    kv: Arc<Mutex<crate::kv::Store>>,
    tokens: Arc<(Rotating, Rate)>,
}

/// A component and what the operator says of it.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The operator's name for it.
    pub name: String,
    /// The component.
    pub bytes: Vec<u8>,
    /// The digest that it must have: `sha256:` and hexadecimal digits.
    pub pinned: Option<String>,
    /// Its settings, a JSON object.
    pub settings: String,
    /// What it may have.
    pub grants: Vec<Grant>,
    /// Cases that came with it.
    pub cases: Vec<Case>,
}

/// What a plugin's verdict does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// It holds.
    #[default]
    Enforce,
    /// It is counted and logged. The plugin cannot tell.
    DryRun,
}

/// A tenant and the plugins that decide for it, in their order.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its place.
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// Plugins, and whether their verdicts hold.
    pub plugins: Vec<(Arc<Plugin>, Mode)>,
}

/// Every tenant's policies, ready to come into force.
#[derive(Default)]
pub struct Table {
    pub(crate) tenants: HashMap<TenantId, Arc<Bound>>,
    plugins: Vec<Arc<Plugin>>,
    sources: Vec<Tenant>,
    captures: Captures,
    node: Node,
    sets: Arc<Sets>,
}

impl Table {
    /// Tenants with policies.
    pub fn tenants(&self) -> impl Iterator<Item = TenantId> {
        self.tenants.keys().copied()
    }

    /// What decided for tenants that are gone goes on deciding about what they have left behind: their allocations live
    /// until their end, and their records are not over yet. Nothing renews it.
    pub fn keep_gone(&mut self, before: &Table, gone: &[TenantId]) {
        for tenant in gone {
            if let Some(bound) = before.tenants.get(tenant) {
                self.tenants.entry(*tenant).or_insert_with(|| bound.clone());
            }
        }
    }

    /// What is written of a tenant's records; none where no plugin has a plan for them.
    pub fn plan(&self, tenant: TenantId) -> Option<&Arc<Plan>> {
        self.tenants.get(&tenant)?.records.as_ref().map(|records| &records.plan)
    }

    /// Plans of records that could not be had, in words.
    pub fn faults(&self) -> impl Iterator<Item = &str> {
        self.tenants
            .values()
            .filter_map(|bound| bound.records.as_ref())
            .flat_map(|plan| &plan.faults)
            .map(String::as_str)
    }

    /// Plugins that are bound to anybody.
    pub fn plugins(&self) -> &[Arc<Plugin>] {
        &self.plugins
    }

    /// Counters of two plugins must not be one: their labels differ.
    fn check_families(&self) -> Result<(), BindError> {
        let mut families: BTreeMap<String, &str> = BTreeMap::new();
        for (tenant, plugin, _) in self.bindings() {
            for counter in &plugin.counters {
                let family = family(&plugin.name, &counter.name);
                let other = *families.entry(family.clone()).or_insert(&plugin.name);
                if other != &*plugin.name {
                    let error = LoadError::Family { family, other: other.to_owned() };
                    return Err(BindError { tenant: tenant.to_owned(), plugin: plugin.name.to_string(), error });
                }
            }
        }
        Ok(())
    }

    /// Every binding: tenant, plugin, mode.
    pub fn bindings(&self) -> impl Iterator<Item = (&str, &Arc<Plugin>, Mode)> {
        self.sources.iter().flat_map(|t| t.plugins.iter().map(|(plugin, mode)| (t.name.as_str(), plugin, *mode)))
    }
}

/// Why a tenant's policies cannot come into force.
#[derive(Debug, thiserror::Error)]
#[error("plugin {plugin} for tenant {tenant}: {error}")]
pub struct BindError {
    /// Which tenant.
    pub tenant: String,
    /// Which plugin.
    pub plugin: String,
    /// Why.
    pub error: LoadError,
}

/// How often the log is told how many denials it has no line of, and what plugins have stored is looked through for
/// what has ended.
const KEEPER_INTERVAL: Duration = Duration::from_secs(1);

/// What came of asking for plans again.
#[derive(Debug, Default)]
pub struct Renewed {
    /// Tenants for whom another plan holds now, or none any more. A tenant may be there twice.
    pub changed: Vec<TenantId>,
    /// Plans that could not be had: the former ones hold until their end, and then nobody is served.
    pub failed: Vec<BindError>,
}

/// Takes words of a plugin for the audit, on a thread of the host: it must not wait.
pub type Tag = Box<dyn Fn(Tagged) + Send + Sync>;

/// Takes a verdict that came later, on a thread of the host: it must not wait.
pub type Answer = Box<dyn FnOnce(Verdict) + Send>;

impl Host {
    /// Starts an engine and threads.
    ///
    /// # Errors
    /// In words: the engine that was asked for cannot run here, or no thread can be had.
    pub fn start(options: HostOptions) -> Result<Self, String> {
        let threads = options.threads.max(1);
        // Beside those of the threads: one for whatever is no question, such as a load.
        let pool = Pool { memory_bytes: options.memory_bytes, instances: threads as u32 + 1, fuel: options.fuel };
        let running = Running::start(options.engine, pool, options.cache.as_deref())?;
        let jobs = Arc::new(Queue::new(options.queue));
        for i in 0..threads {
            let queue = jobs.clone();
            let work = move || std::iter::from_fn(|| queue.take()).for_each(run);
            let thread = Builder::new().name(format!("policy-{i}")).spawn(work);
            thread.map_err(|error| format!("no thread for policies: {error}"))?;
        }
        let (lines, said) = bounded(PLUGIN_LINES_WAITING_MAX);
        let (places, table, kept) = (Places::default(), RwLock::default(), Mutex::default());
        let host = Host(Arc::new(Inner {
            running,
            options,
            places,
            table,
            jobs,
            lines,
            tagged: Arc::default(),
            apart: Arc::default(),
            kept,
            renewed: AtomicUsize::new(0),
        }));
        let inner = Arc::downgrade(&host.0);
        let thread = Builder::new().name("policy-keeper".to_owned()).spawn(move || keep(&said, &inner));
        thread.map_err(|error| format!("no thread for what policies say and store: {error}"))?;
        Ok(host)
    }

    /// Which engine runs, and why.
    pub fn engine(&self) -> (EngineKind, &str) {
        (self.0.running.kind, &self.0.running.reason)
    }

    /// Has words of plugins for the audit taken by `tag`, from now on and once for all. Until then they go nowhere.
    pub fn on_tags(&self, tag: Tag) {
        let _ = self.0.tagged.set(tag);
    }

    /// Components that were taken from the folder of compiled ones, and those that were compiled and put there.
    pub fn cached(&self) -> Option<(usize, usize)> {
        self.0.running.cache.as_ref().map(|cache| (cache.cache_hits(), cache.cache_misses()))
    }

    /// Puts a database of places in force; `None`: every place is unknown.
    pub fn set_places(&self, database: Option<Arc<Database>>) {
        self.0.places.set(database);
    }

    /// The database of places in force.
    pub fn places(&self) -> Option<Arc<Database>> {
        self.0.places.database()
    }

    /// Questions that wait.
    pub fn waiting(&self) -> usize {
        self.0.jobs.len()
    }

    /// What is counted of every plugin that was ever loaded.
    pub fn stats(&self) -> Vec<(String, Arc<PluginStats>)> {
        lock(&self.0.kept).stats.iter().map(|(name, stats)| (name.clone(), stats.clone())).collect()
    }

    /// Loads a plugin: nothing that runs changes by it.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn load(&self, source: &Source, sets: &Arc<Sets>) -> Result<Plugin, LoadError> {
        let mut plugin = self.open(source, Some(&source.grants), sets)?;
        let context = self.scratch(&plugin, sets);
        plugin.warnings = load::validate(&plugin.guest, &context, self.deadline())?;
        for case in &source.cases {
            self.run_case(&plugin, case, sets).map_err(|error| LoadError::Case { case: case.name.clone(), error })?;
        }
        plugin.stats = lock(&self.0.kept).stats.entry(source.name.clone()).or_default().clone();
        Ok(plugin)
    }

    /// Opens a plugin to look at it and to run cases: it has what it needs, and its settings are not asked about.
    ///
    /// # Errors
    /// Why it cannot be used by anybody.
    pub fn inspect(&self, source: &Source, sets: &Arc<Sets>) -> Result<Plugin, LoadError> {
        self.open(source, None, sets)
    }

    /// Checks, links and describes a component; without `grants` it gets what it needs.
    fn open(&self, source: &Source, grants: Option<&[Grant]>, sets: &Arc<Sets>) -> Result<Plugin, LoadError> {
        let digest = load::check_bytes(&source.bytes, source.pinned.as_deref())?;
        let settings = load::settings(&source.settings)?;
        let engine = &self.0.running.engine;
        let checked = load::check(engine, self.component(&digest, &source.bytes)?)?;
        let grants = grants.map_or_else(|| checked.needs.clone(), <[Grant]>::to_vec);
        let (pre, indices) = checked.link(engine, &grants)?;
        let ticker = self.0.running.ticker.clone();
        let HostOptions { memory_bytes, fuel, .. } = self.0.options;
        let (apart, component) = (self.0.apart.clone(), checked.component.clone());
        let guest = Guest { pre, indices, _component: component, ticker, apart, memory_bytes, fuel };
        let mut plugin = Plugin {
            name: source.name.as_str().into(),
            digest,
            version: String::new(),
            bytes: source.bytes.len(),
            hooks: checked.hooks.clone(),
            calls: checked.calls.clone(),
            grants,
            facts: Default::default(),
            counters: Vec::new(),
            warnings: Vec::new(),
            settings,
            // Not those that run: what happens at load is not counted among what clients saw.
            stats: Arc::default(),
            lines: Arc::new(Rate::new(PLUGIN_LINES_PER_SECOND)),
            guest,
            rests: Rests::default(),
        };
        let context = self.scratch(&plugin, sets);
        let manifest = load::describe(&plugin.guest, &checked.hooks, &context, self.deadline())?;
        let (took, half) = (manifest.took, self.0.options.deadline / 2);
        if took > half {
            return Err(LoadError::Slow { took, half });
        }
        checked.check_types(&plugin.guest, &context, self.deadline())?;
        plugin.version = manifest.version;
        plugin.facts = manifest.facts;
        plugin.counters = manifest.counters;
        Ok(plugin)
    }

    fn component(&self, digest: &str, bytes: &[u8]) -> Result<Arc<Component>, LoadError> {
        let known = lock(&self.0.kept).components.get(digest).and_then(Weak::upgrade);
        if let Some(known) = known {
            return Ok(known);
        }
        let component = Arc::new(load::compile(&self.0.running.engine, bytes)?);
        let components = &mut lock(&self.0.kept).components;
        components.retain(|_, component| component.strong_count() > 0);
        components.insert(digest.to_owned(), Arc::downgrade(&component));
        Ok(component)
    }

    /// Runs a recorded case: with a store of its own, and the settings of the case.
    ///
    /// # Errors
    /// How the answer differs, or why there is none.
    pub fn run_case(&self, plugin: &Plugin, case: &Case, sets: &Arc<Sets>) -> Result<(), String> {
        let ran = self.answer_case(plugin, case, sets)?;
        case.compare(&ran)?;
        let half = self.0.options.deadline / 2;
        let is_slow = ran.answer.is_ok() && ran.took > half;
        if is_slow { Err(LoadError::Slow { took: ran.took, half }.to_string()) } else { Ok(()) }
    }

    /// What comes of a recorded case.
    ///
    /// # Errors
    /// What is wrong with the case itself.
    pub fn answer_case(&self, plugin: &Plugin, case: &Case, sets: &Arc<Sets>) -> Result<cases::Ran, String> {
        let settings = load::settings(&case.settings()).map_err(|error| error.to_string())?;
        let scratch = self.scratch(plugin, sets);
        let context = Arc::new(Context { settings, ..Arc::into_inner(scratch).ok_or("a context in use")? });
        case.run(&plugin.guest, &context, self.deadline())
    }

    /// Makes a table of tenants' policies: asks those that answer with plans. Nothing that runs changes by it.
    ///
    /// # Errors
    /// The first plugin that has no plan for its tenant.
    pub fn bind(&self, tenants: Vec<Tenant>, node: Node, sets: Arc<Sets>) -> Result<Table, BindError> {
        self.bind_capturing(tenants, node, sets, Captures::default())
    }

    /// The same, and what these plugins are asked in dry runs is captured.
    ///
    /// # Errors
    /// As [`Host::bind`]; a plugin of which nothing can or may be captured.
    pub fn bind_capturing(
        &self,
        tenants: Vec<Tenant>,
        node: Node,
        sets: Arc<Sets>,
        captures: Captures,
    ) -> Result<Table, BindError> {
        let mut table = Table { node, sets, captures, ..Table::default() };
        for tenant in tenants.into_iter().filter(|tenant| !tenant.plugins.is_empty()) {
            let bound = self.bound(&tenant, &table, None)?;
            table.tenants.insert(tenant.id, Arc::new(bound));
            for (plugin, _) in &tenant.plugins {
                if table.plugins.iter().all(|known| !Arc::ptr_eq(known, plugin)) {
                    table.plugins.push(plugin.clone());
                }
            }
            table.sources.push(tenant);
        }
        table.check_families()?;
        Ok(table)
    }

    /// Puts a table in force, for every question from now on. Questions under way are answered by the one before.
    pub fn swap(&self, table: Table) {
        for plugin in &table.plugins {
            plugin.stats.declare(&plugin.counters);
        }
        let mut current = self.0.table.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, Arc::new(table));
        // Workers do not wait until its plugins are given back.
        drop(current);
        drop(before);
    }

    /// The table in force.
    pub fn table(&self) -> Arc<Table> {
        self.0.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks again for the plans of those tenants of which one has half run out or could not be had. It runs guests: not
    /// for a thread that others wait for.
    pub fn renew(&self) -> Renewed {
        self.renew_within(PLANS_RENEWAL_MAX)
    }

    /// The same for another time than the one that there is for it: where it is over after a tenant, the next call goes
    /// on with the one behind it.
    pub fn renew_within(&self, most: Duration) -> Renewed {
        let (table, now) = (self.table(), Instant::now());
        let has_ended = |(_, bound): &(&TenantId, &Arc<Bound>)| bound.has_ended(now);
        let changed = table.tenants.iter().filter(has_ended).map(|(tenant, _)| *tenant).collect();
        let mut renewed = Renewed { changed, ..Renewed::default() };
        let mut bounds = Vec::new();
        let (from, all) = (self.0.renewed.load(Ordering::Relaxed), table.sources.len());
        for at in (from..from + all).map(|at| at % all) {
            let tenant = &table.sources[at];
            let Some(before) = table.tenants.get(&tenant.id).filter(|bound| bound.is_to_be_renewed(now)) else {
                continue;
            };
            match self.bound(tenant, &table, before.records_kept()) {
                Ok(bound) => {
                    bound.succeeds(before, now);
                    if before.is_stale(now) || !bound.plans_are_like(before) {
                        renewed.changed.push(tenant.id);
                    }
                    bounds.push((tenant.id, Arc::new(bound)));
                }
                Err(error) => {
                    before.renewal_failed(now);
                    renewed.failed.push(error);
                }
            }
            if now.elapsed() > most {
                self.0.renewed.store(at + 1, Ordering::Relaxed);
                break;
            }
        }
        self.replace(&table, bounds);
        renewed
    }

    /// Puts plans in force that were asked for again, unless another table has come meanwhile: its plans are newer.
    fn replace(&self, table: &Arc<Table>, bounds: Vec<(TenantId, Arc<Bound>)>) {
        if bounds.is_empty() {
            return;
        }
        let mut tenants = table.tenants.clone();
        tenants.extend(bounds);
        let (plugins, sources) = (table.plugins.clone(), table.sources.clone());
        let (captures, node, sets) = (table.captures.clone(), table.node.clone(), table.sets.clone());
        let new = Table { tenants, plugins, sources, captures, node, sets };
        let mut current = self.0.table.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, table) {
            *current = Arc::new(new);
        }
    }

    /// Asks the policies of a question's tenant. The verdict comes at once, or later by `answer`; `standing` is called
    /// only where a plugin is asked.
    pub fn ask(&self, question: Question, standing: impl FnOnce() -> Standing, answer: Answer) -> Option<Verdict> {
        let table = self.table();
        let Some(bound) = table.tenants.get(&question.tenant) else {
            return Some(Verdict::Allow(Default::default()));
        };
        if let Some(denial) = bound.fenced(&question) {
            return Some(Verdict::Deny(denial));
        }
        let hook = if question.peers.is_empty() { Hook::Allocate } else { Hook::PermitPeers };
        if !bound.asks(hook) {
            return Some(Verdict::Allow(Default::default()));
        }
        // Where dry runs alone are asked, nobody waits for them, and no overload of ours becomes a no.
        let decides = bound.decides(hook);
        let (tenant, deadline) = (question.tenant, self.deadline());
        let answer = decides.then_some(answer);
        let job = Job { bound: bound.clone(), hook, question, standing: standing(), deadline, answer };
        match self.0.jobs.push(tenant, table.tenants.len(), job) {
            Ok(()) if decides => None,
            Ok(()) => Some(Verdict::Allow(Default::default())),
            Err(job) => Some(job.bound.overloaded(hook)),
        }
    }

    /// Deletes what plugins have stored and what has ended.
    fn sweep(&self, now: Instant) {
        let stores: Vec<_> = lock(&self.0.kept).tenancies.values().map(|kept| kept.kv.clone()).collect();
        stores.iter().for_each(|store| lock(store).sweep(now));
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.0.options.deadline
    }

    /// With the plan of records that is known already, if it is.
    fn bound(&self, tenant: &Tenant, table: &Table, records: Option<BoundPlan>) -> Result<Bound, BindError> {
        let names = self.names(&tenant.name);
        let mut bound = Bound {
            names: names.clone(),
            tagged: self.0.tagged.clone(),
            whole: self.0.options.deadline,
            node: table.node.clone(),
            places: self.0.places.clone(),
            sets: table.sets.clone(),
            fences: Vec::new(),
            records,
            tenancies: Vec::new(),
            renewal: Mutex::default(),
        };
        let is_planned = bound.records.is_some();
        for (plugin, mode) in &tenant.plugins {
            let named = |error| BindError { tenant: tenant.name.clone(), plugin: plugin.name.to_string(), error };
            if let Some(hook) = plugin.hooks.iter().find(|hook| !hook.is_kept()) {
                return Err(named(LoadError::NotKept(*hook)));
            }
            let context = self.context(plugin, &tenant.name, &table.sets);
            let (stats, lines) = (plugin.stats.clone(), self.0.lines.clone());
            let voice = Arc::new(Voice::new(plugin.name.clone(), names.tenant.clone(), stats, lines));
            if plugin.hooks.contains(&Hook::Geofence) {
                let fences = self.fences(plugin, &context, table).map_err(named)?;
                let voice = voice.clone();
                bound.fences.push(BoundFence { plugin: plugin.clone(), mode: *mode, fences, voice });
            }
            if plugin.hooks.contains(&Hook::LogPlan) && !is_planned {
                let plan = records::plan(plugin, *mode, &context, self.deadline());
                bound.records = BoundPlan::both(bound.records.take(), plan);
            }
            let rest = plugin.rests.of(&names.tenant);
            let capture = table.captures.get(&(tenant.id, plugin.name.to_string())).cloned();
            if capture.is_some() && !plugin.hooks.iter().any(|hook| hook.is_about_a_request()) {
                return Err(named(LoadError::NoQuestions));
            }
            bound.tenancies.push(Tenancy { plugin: plugin.clone(), mode: *mode, context, rest, voice, capture });
        }
        let captured = bound.tenancies.iter().find(|tenancy| tenancy.capture.is_some());
        if let Some(tenancy) = captured.filter(|_| bound.records.is_some()) {
            let (tenant, plugin) = (tenant.name.clone(), tenancy.plugin.name.to_string());
            return Err(BindError { tenant, plugin, error: LoadError::PlannedRecords });
        }
        Ok(bound)
    }

    fn fences(&self, plugin: &Plugin, context: &Arc<Context>, table: &Table) -> Result<Fences, LoadError> {
        let stage = "geofence.plan";
        let asked = CallContext {
            tenant: context.tenant.to_string(),
            now: unix_seconds() * 1000,
            request_id: format!("plan.{}", context.tenant),
            occasion: Occasion::Initial,
            attributes: Vec::new(),
        };
        let nodes = [told(&table.node)];
        let answer = plugin.guest.enter(context, self.deadline(), false, |store, instance| {
            let hook = plugin.guest.indices.geofence.as_ref().ok_or_else(no_hook)?.load(&mut *store, instance)?;
            hook.call_plan(&mut *store, &asked, &nodes)
        });
        let (plan, _) = answer.map_err(|(failure, error)| LoadError::Failed { stage, failure, error })?;
        Fences::new(plan, &table.node, &table.sets, Instant::now()).map_err(|failure| LoadError::Failed {
            stage,
            failure,
            error: match failure {
                Failure::Obligation => "the plan has an obligation that this host does not know".to_owned(),
                _ => "the plan names a set that the operator does not have, or no place".to_owned(),
            },
        })
    }

    fn names(&self, tenant: &str) -> Arc<Names> {
        let key = self.0.options.key.expose();
        let of = |purpose: &str| derived(key, format!("{purpose}/{tenant}").as_bytes());
        let made = || {
            let (subjects, endpoints) = (HmacSha256Key::new(&of("subject")), Rotating::new(&of("endpoint")));
            Arc::new(Names { tenant: tenant.into(), subjects, endpoints })
        };
        lock(&self.0.kept).names.entry(tenant.to_owned()).or_insert_with(made).clone()
    }

    fn context(&self, plugin: &Plugin, tenant: &str, sets: &Arc<Sets>) -> Arc<Context> {
        let key = (plugin.name.to_string(), tenant.to_owned());
        let remembered = lock(&self.0.kept).tenancies.entry(key).or_insert_with(|| self.fresh(plugin, tenant)).clone();
        self.context_of(plugin, tenant, sets, remembered)
    }

    /// A context that nothing is kept of.
    fn scratch(&self, plugin: &Plugin, sets: &Arc<Sets>) -> Arc<Context> {
        self.context_of(plugin, "test", sets, self.fresh(plugin, "test"))
    }

    fn fresh(&self, plugin: &Plugin, tenant: &str) -> Remembered {
        let purpose = format!("pseudonym/{tenant}/{}", plugin.name);
        let root = derived(self.0.options.key.expose(), purpose.as_bytes());
        let tokens = (Rotating::new(&root), Rate::new(PLUGIN_PSEUDONYMS_PER_SECOND));
        Remembered { kv: Arc::default(), tokens: Arc::new(tokens) }
    }

    fn context_of(&self, plugin: &Plugin, tenant: &str, sets: &Arc<Sets>, kept: Remembered) -> Arc<Context> {
        Arc::new(Context {
            plugin: plugin.name.clone(),
            tenant: tenant.into(),
            settings: plugin.settings.clone(),
            stats: plugin.stats.clone(),
            lines: plugin.lines.clone(),
            kv: kept.kv,
            tokens: kept.tokens,
            places: self.0.places.clone(),
            sets: sets.clone(),
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.jobs.close();
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("engine", &self.0.running.kind).finish_non_exhaustive()
    }
}

/// Writes what was said and deletes what has ended, until there is no host any more.
fn keep(said: &Receiver<Line>, host: &Weak<Inner>) {
    let (mut untold, mut due) = (Untold::default(), Instant::now() + KEEPER_INTERVAL);
    loop {
        match said.recv_deadline(due) {
            Ok(line) => line.write(),
            Err(RecvTimeoutError::Timeout) => {
                let Some(inner) = host.upgrade() else { return };
                let host = Host(inner);
                untold.write(&host.stats());
                host.sweep(Instant::now());
                due = Instant::now() + KEEPER_INTERVAL;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Answers one question; then those are asked whose verdict does not hold.
fn run(job: Job) {
    let Job { bound, hook, question, standing, deadline, answer } = job;
    // A panic is a fault of ours, and no yes either.
    if let Some(answer) = answer {
        let verdict = catch_unwind(AssertUnwindSafe(|| bound.judge(hook, &question, &standing, deadline)));
        answer(verdict.unwrap_or(Verdict::Deny(Denial::TryLater)));
    }
    let _ = catch_unwind(AssertUnwindSafe(|| bound.rehearse(hook, &question, &standing, deadline)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        let key = Secret::new([7; 32]);
        let deadline = Duration::from_millis(100);
        let (engine, memory_bytes, fuel) = (EngineChoice::Pulley, 1 << 20, false);
        Host::start(HostOptions { engine, memory_bytes, deadline, queue: 1, threads: 1, fuel, key, cache: None })
            .unwrap()
    }

    #[test]
    fn what_was_compiled_in_vain_is_forgotten() {
        let (host, sets) = (host(), Arc::default());
        for pages in 1..4 {
            let bytes = wat::parse_str(format!("(component (core module (memory {pages})))")).unwrap();
            let refused = host.load(&Source { bytes, settings: "{}".to_owned(), ..Source::default() }, &sets);
            assert!(matches!(refused, Err(LoadError::Export(_))), "{refused:?}");
            let kept = lock(&host.0.kept);
            assert_eq!((kept.components.len(), kept.components.values().filter_map(Weak::upgrade).count()), (1, 0));
        }
    }

    #[test]
    fn what_a_plugin_has_stored_goes_when_it_has_ended() {
        let host = host();
        let kv = Arc::new(Mutex::new(crate::kv::Store::default()));
        let tokens = Arc::new((Rotating::new(&[7; 32]), Rate::new(1)));
        let of = ("quota".to_owned(), "clinic".to_owned());
        lock(&host.0.kept).tenancies.insert(of, Remembered { kv: kv.clone(), tokens });
        lock(&kv).put(Instant::now(), "k".to_owned(), vec![1], 0, vec![]).unwrap();
        let end = Instant::now() + KEEPER_INTERVAL * 10;
        while lock(&kv).len() > 0 {
            assert!(Instant::now() < end, "it is kept");
            std::thread::park_timeout(KEEPER_INTERVAL / 20);
        }
    }
}
