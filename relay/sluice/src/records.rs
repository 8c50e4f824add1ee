//! The record plane of this process: where it writes, what it says of that, and what becomes of it.

pub(crate) mod commands;
pub(crate) mod desk;
pub(crate) mod holds;
pub(crate) mod offline;
mod platform;
pub(crate) mod report;
mod time;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sluice_base::TenantId;
use sluice_config::{Admission, Config, Directory, Keys, Sink};
use sluice_metrics::{Admissions, Dropped, Metrics, Records as Figures, Spooled};
use sluice_privacy::Plan;
use sluice_privacy::date::DAY_SECONDS;
use sluice_record::former::{self, Removed, SPOOL};
use sluice_record::plane::{self, Handle, Plane, PlaneOptions, RecordStats, Tenant, TenantTable};
use sluice_record::spool::{SinkOptions, SinkStats, SpoolOptions, SpoolStats};
use sluice_record::store::Retention;
use sluice_record::vault::{self, Overwriter, VaultOptions};
use sluice_turn::Bans;

use crate::cli::Failure;
use crate::life::RecordFacts;
use crate::recorder::Recording;
use desk::Expiries;
use platform::Platform;

pub(crate) use time::shown;

/// The directory of keys below the runtime directory.
const KEYS: &str = "keys";

/// A record plane that runs.
pub(crate) struct Records {
    plane: Plane,
    required: bool,
    state_directory: PathBuf,
    /// In words, for whoever reads the start.
    told: Vec<String>,
    /// Of that, what is about keys.
    keys: Vec<String>,
}

/// Directories that the service manager has made.
pub(crate) struct Directories {
    pub(crate) state: Option<PathBuf>,
    pub(crate) runtime: Option<PathBuf>,
}

impl Directories {
    /// Those of the environment: the first of each.
    pub(crate) fn of_environment() -> Self {
        let first = |name: &str| {
            let folders = std::env::var(name).ok()?;
            folders.split(':').next().filter(|folder| folder.starts_with('/')).map(PathBuf::from)
        };
        Directories { state: first("STATE_DIRECTORY"), runtime: first("RUNTIME_DIRECTORY") }
    }
}

impl Records {
    /// Starts it, if the configuration wants records. Keys whose end has come are destroyed before this returns; all
    /// that there are, and what waits for sinks, where it wants none.
    pub(crate) fn start(config: &Config, directories: &Directories) -> Result<Option<Self>, Failure> {
        if !config.privacy.records {
            remove_former(config, directories)?;
            return Ok(None);
        }
        let options = options(config, directories)?;
        let (told, keys) = (told(config, &options), options.vault.clone());
        let state_directory = options.vault.state_directory.clone();
        let plane = plane::start(options, Arc::new(Platform::default())).map_err(|error| error.to_string())?;
        plane.vault.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        let keys = keys_told(config, &keys, plane.vault.keys_directory().is_some());
        let required = config.privacy.admission == Admission::Required;
        Ok(Some(Records { plane, required, state_directory, told, keys }))
    }

    /// For the workers.
    pub(crate) fn recording(&self) -> Recording {
        let (handle, gate) = (self.plane.handle.clone(), self.plane.vault.gate());
        Recording { handle, gate, required: self.required }
    }

    /// The bans that hold at the start, for the workers.
    pub(crate) fn bans(&self) -> Result<Arc<Bans>, Failure> {
        let table = desk::table(self.plane.bans());
        table.map(Arc::new).map_err(|error| format!("the bans are not in force: {error}"))
    }

    /// For the control plane.
    pub(crate) fn handle(&self) -> Handle {
        self.plane.handle.clone()
    }

    /// The keys.
    pub(crate) fn vault(&self) -> Arc<vault::Vault> {
        self.plane.vault.clone()
    }

    /// What a person reads at the start.
    pub(crate) fn told(&self) -> Vec<String> {
        self.told.iter().chain(&self.keys).cloned().chain(self.warnings()).collect()
    }

    /// What the start warns of.
    fn warnings(&self) -> Vec<String> {
        self.plane.vault.warnings().iter().map(ToString::to_string).collect()
    }

    /// What a report says of them.
    pub(crate) fn facts(&self) -> RecordFacts {
        let (state_directory, keys) = (Some(self.state_directory.clone()), self.keys.clone());
        RecordFacts { state_directory, keys, warnings: self.warnings() }
    }

    /// Whether an allocation waits for its record.
    pub(crate) fn is_required(&self) -> bool {
        self.required
    }

    /// Has what it counts shown at each scrape.
    pub(crate) fn show(&self, metrics: &Metrics, bans: Expiries) {
        let handle = self.handle();
        metrics.watch_records(move || {
            let spool = handle.spool().map(|spool| spooled(&spool.stats())).unwrap_or_default();
            Figures { bans: bans.in_force(), spool, ..figures(&handle.stats()) }
        });
    }

    /// Writes what was said so far, and ends it.
    pub(crate) fn stop(self) -> Result<(), Failure> {
        match self.plane.stop() {
            true => Ok(()),
            false => Err("the store of records did not end in order: records may be lost, see the log".to_owned()),
        }
    }
}

/// What a run with records has left is no more: nothing that runs now would destroy it in time.
fn remove_former(config: &Config, directories: &Directories) -> Result<(), Failure> {
    let state = match &config.privacy.state_directory {
        Directory::At(path) => Some(path.as_path()),
        Directory::Auto => directories.state.as_deref(),
    };
    // The keys may lie where a former configuration had them: a runtime directory is looked at in any case.
    let named = match &config.privacy.keys_directory {
        Directory::At(path) => Some(path.clone()),
        Directory::Auto => None,
    };
    let keys: Vec<PathBuf> = named.into_iter().chain(directories.runtime.iter().map(|path| path.join(KEYS))).collect();
    let Removed { keys, segments } = former::remove(state, &keys, &Overwriter).map_err(|error| {
        format!(
            "privacy.records is false, and what a run with records has left cannot be destroyed: {error}. Let the \
             relay write there, or remove it by hand"
        )
    })?;
    if keys + segments > 0 {
        tracing::warn!(
            "privacy.records is false: {keys} key files and {segments} spool segments that a run with records had left \
             are destroyed"
        );
    }
    Ok(())
}

/// Whether this version can ship records where the configuration says.
pub(crate) fn check(config: &Config) -> Result<(), Failure> {
    let check = |(i, to): (usize, &Sink)| sink(to).check().map_err(|why| format!("spool.sink[{i}]: {why}"));
    config.spool.sinks.iter().enumerate().try_for_each(check)
}

/// The tenants of a configuration, as the record plane wants them, each with the plan of its plugins.
pub(crate) fn tenants(config: &Config, plan: impl Fn(TenantId) -> Option<Arc<Plan>>) -> TenantTable {
    let of = |(id, tenant): (usize, &sluice_config::Tenant)| {
        let records = Tenant::new(&tenant.name, Some(tenant.privacy.ip_retention_days));
        let plan = plan(TenantId(id as u16)).unwrap_or_else(|| records.plan.clone());
        Arc::new(Tenant { plan, ..records })
    };
    TenantTable {
        ip_retention_days: config.privacy.ip_retention_days,
        tenants: config.tenants.iter().enumerate().map(of).collect(),
    }
}

fn options(config: &Config, directories: &Directories) -> Result<PlaneOptions, Failure> {
    let privacy = &config.privacy;
    let state = match (&privacy.state_directory, &directories.state) {
        (Directory::At(path), _) | (Directory::Auto, Some(path)) => path.clone(),
        (Directory::Auto, None) => {
            return Err("privacy.state_directory = \"auto\" is the directory that a service manager has made, and \
                        $STATE_DIRECTORY is not set: write an absolute path, such as /var/lib/sluice"
                .to_owned());
        }
    };
    let keys_directory = match (&privacy.keys_directory, &directories.runtime) {
        (Directory::At(path), _) => Some(path.clone()),
        (Directory::Auto, runtime) => runtime.as_ref().map(|runtime| runtime.join(KEYS)),
    };
    if privacy.keys == Keys::Persistent && keys_directory.is_none() {
        return Err("privacy.keys = \"persistent\" needs a directory that outlives the machine: name it in \
                    privacy.keys_directory"
            .to_owned());
    }
    let mut vault = VaultOptions::new(state, keys_directory);
    vault.keys = match privacy.keys {
        Keys::Runtime => vault::Keys::Runtime,
        Keys::Persistent => vault::Keys::Persistent,
    };
    // Whether anybody may look up is asked of the configuration in force, which a reload changes: see `Desk::lookup`.
    let (admission_wait, lookup) = (privacy.admission_wait, true);
    let access_audit = Duration::from_secs(u64::from(privacy.retention.access_audit_days) * DAY_SECONDS);
    let retention = Retention { access_audit, ..Retention::DEFAULT };
    let spool = Some(spool(config, &vault.state_directory));
    Ok(PlaneOptions { admission_wait, lookup, retention, spool, ..PlaneOptions::new(vault, tenants(config, |_| None)) })
}

/// What leaves the relay. Without sinks nothing does, and what waited for former ones is overwritten at the start.
fn spool(config: &Config, state: &Path) -> SpoolOptions {
    let sinks: Vec<SinkOptions> = config.spool.sinks.iter().map(sink).collect();
    // The plane puts it where it belongs in the state directory.
    SpoolOptions::new(state.join(SPOOL), config.spool.node.clone(), sinks)
}

fn sink(sink: &Sink) -> SinkOptions {
    match sink {
        Sink::File { path } => SinkOptions::File { path: path.clone() },
        Sink::Http { url, allow_plaintext } => {
            SinkOptions::Http { url: url.clone(), allow_plaintext: *allow_plaintext }
        }
    }
}

/// Where records go, and how long an address can be read.
fn told(config: &Config, options: &PlaneOptions) -> Vec<String> {
    let privacy = &config.privacy;
    let mut told = vec![format!("sessions are written down in {}", options.vault.state_directory.display())];
    let days = privacy.ip_retention_days;
    told.push(match days {
        0 => "no address is written".to_owned(),
        1 => "an address can be read for one day after its own, then its key is destroyed".to_owned(),
        _ => format!("an address can be read for {days} days, then the key of its day is destroyed"),
    });
    told.push(match privacy.admission {
        Admission::Required => {
            let wait = privacy.admission_wait.as_millis();
            format!("an allocation waits up to {wait} ms for its record, and is refused (508) without one")
        }
        Admission::BestEffort => "an allocation does not wait for its record; what is lost is counted".to_owned(),
    });
    told
}

/// What is said of keys: where they were to be, and whether they are there.
fn keys_told(config: &Config, options: &VaultOptions, are_files: bool) -> Vec<String> {
    if config.privacy.ip_retention_days == 0 {
        return Vec::new();
    }
    vec![match (&options.keys_directory, options.keys) {
        (None, _) => "keys in memory alone, since there is no directory for them ($RUNTIME_DIRECTORY is not set): a \
                      restart of the relay makes every address unreadable that was written down before"
            .to_owned(),
        (Some(path), _) if !are_files => format!(
            "keys in locked memory alone, since {} is not fit for them (see the warning): a restart of the relay makes \
             every address unreadable that was written down before",
            path.display()
        ),
        (Some(path), vault::Keys::Runtime) => {
            format!("keys in {}, for as long as the machine runs (privacy.keys = \"runtime\")", path.display())
        }
        (Some(path), vault::Keys::Persistent) => format!(
            "keys in {}, for as long as they live, also after the machine's end: keep it out of every backup",
            path.display()
        ),
    }]
}

fn figures(stats: &RecordStats) -> Figures {
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    Figures {
        events_written: stats.events_written,
        events_lost: stats.events_lost,
        addresses_lost: stats.addresses_lost,
        denials_left_out: stats.denials_beyond,
        tags_left_out: stats.tags_beyond,
        admissions: Admissions {
            written: stats.admissions_written,
            full: stats.admissions_full,
            failed: stats.admissions_failed,
            late: stats.admissions_late,
        },
        commits: stats.commits,
        commits_failed: stats.commits_failed,
        commit_seconds: seconds(stats.commit_nanos),
        commit_seconds_max: seconds(stats.commit_nanos_max),
        queue_depth: stats.queue_depth,
        backlog: stats.backlog,
        audit_entries: stats.audit_entries,
        audit_broken: stats.audit_broken > 0,
        keys_live: stats.keys_live,
        keys_destroyed: stats.keys_destroyed,
        keys_lost: stats.keys_lost,
        keys_undestroyed: stats.keys_undestroyed,
        key_late_seconds_max: stats.key_late_seconds_max,
        clock_steps: stats.clock_steps,
        lookups: stats.lookups,
        holds: stats.holds,
        held_sessions: stats.held_sessions,
        ..Figures::default()
    }
}

fn spooled(stats: &SpoolStats) -> Spooled {
    let sum = |of: fn(&SinkStats) -> u64| stats.sinks.iter().map(of).sum();
    Spooled {
        bytes: stats.bytes,
        written: stats.written,
        dropped: Dropped {
            queue: stats.dropped_queue,
            full: stats.dropped_full,
            unwritable: stats.dropped_unwritable,
            unfit: stats.dropped_unfit,
            expired: stats.expired,
        },
        removed_unwiped: stats.removed_unwiped,
        overdue_segments: stats.overdue_segments,
        shipped: sum(|sink| sink.lines),
        failures: sum(|sink| sink.failures),
        backlog_bytes: sum(|sink| sink.backlog_bytes),
        sinks_down: sum(|sink| u64::from(sink.is_down)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_record::testing::Folder;

    fn config(records: bool) -> Config {
        let mut config = Config::default();
        config.privacy.records = records;
        config
    }

    const NONE: Directories = Directories { state: None, runtime: None };

    #[test]
    fn a_start_without_records_leaves_no_key_and_nothing_that_waits_for_sinks_and_fails_where_it_cannot() {
        let folder = Folder::new("former");
        let at = |runtime: &str| Directories { state: Some(folder.join("state")), runtime: Some(folder.join(runtime)) };
        let mut config = config(false);
        config.privacy.keys_directory = Directory::At(folder.join("disk"));
        let (spool, segment) = (folder.join("state/spool"), "00000000000000000007-1795867200.jsonl");
        let left = [spool.join(segment), folder.join("run/keys/2026-11-28..key"), folder.join("disk/2026-11-27.a.key")];
        for file in &left {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, b"left").unwrap();
        }
        assert!(Records::start(&config, &at("run")).unwrap().is_none());
        assert!(left.iter().all(|file| !file.exists()));
        std::fs::create_dir_all(folder.join("other/keys/2026-11-28..key")).unwrap();
        let error = Records::start(&config, &at("other")).err().unwrap();
        assert!(error.contains("privacy.records is false") && error.contains("other/keys/2026-11-28..key"), "{error}");
    }

    #[test]
    fn without_records_nothing_is_started_and_without_a_place_it_is_told_what_to_write() {
        assert!(Records::start(&config(false), &NONE).unwrap().is_none());
        let error = Records::start(&config(true), &NONE).err().unwrap();
        assert!(error.contains("privacy.state_directory") && error.contains("$STATE_DIRECTORY"), "{error}");
    }

    #[test]
    fn the_start_says_where_keys_are_and_what_that_means() {
        let place = |runtime: Option<&str>| Directories {
            state: Some("/var/lib/sluice".into()),
            runtime: runtime.map(PathBuf::from),
        };
        let mut config = config(true);
        let said = |config: &Config, at: &Directories| {
            let options = options(config, at).unwrap();
            [told(config, &options), keys_told(config, &options.vault, true)].concat().join("\n")
        };
        let runtime = said(&config, &place(Some("/run/sluice")));
        assert!(runtime.contains("/var/lib/sluice") && runtime.contains("keys in /run/sluice/keys"), "{runtime}");
        assert!(runtime.contains("7 days") && runtime.contains("508"), "{runtime}");
        assert!(said(&config, &place(None)).contains("in memory alone"));
        let unfit = keys_told(&config, &options(&config, &place(Some("/run/sluice"))).unwrap().vault, false).join("\n");
        assert!(unfit.contains("locked memory alone") && unfit.contains("/run/sluice/keys is not fit"), "{unfit}");
        config.privacy.keys = Keys::Persistent;
        assert!(options(&config, &place(None)).unwrap_err().contains("privacy.keys_directory"));
        config.privacy.keys_directory = Directory::At("/keys".into());
        assert!(said(&config, &place(None)).contains("keep it out of every backup"));
        config.privacy.ip_retention_days = 0;
        assert!(said(&config, &place(None)).contains("no address is written"));
    }
}
