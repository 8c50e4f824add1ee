//! The record plane: what workers and administrators say to it, and the thread that keeps the store.
//!
//! **An admission is answered with yes only after its record is synced.** Everything goes by bounded queues, and nobody
//! waits for room in one: what does not fit is refused or lost, and counted.

mod bans;
mod group;
mod holds;
mod lines;
mod message;
mod requests;
mod stats;
#[cfg(test)]
mod tests;
mod thread;
mod tokens;

pub use message::{Admission, Asker, Request, RequestError, Response, RetentionReport};
pub use stats::RecordStats;

pub use crate::tenant::{Tenant, TenantTable};

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use sluice_base::Mono;
use sluice_base::event::{RelayEvent, Tagged};
use sluice_base::limits::{
    ADMISSION_WAIT_DEFAULT, STORE_QUEUE_MAX, STORE_REQUESTS_MAX, STORE_STOP_TIMEOUT, TAGS_PER_MINUTE_MAX,
};

use crate::spool::{self, Spool, SpoolHandle, SpoolOptions};
use crate::store::{Ban, Folder, FolderError, Retention, Store, StoreError, Trouble};
use crate::vault::{HoldKeys, Platform, Vault, VaultError, VaultOptions};
use group::Budget;
use message::Answer;
use stats::{Shared, add, set};
use thread::Keeper;

/// What a record plane is started with.
#[derive(Clone, Debug)]
pub struct PlaneOptions {
    /// The state directory, and the keys. The retentions in it are replaced by those of `tenants`.
    pub vault: VaultOptions,
    /// The tenants, in the order of their ids.
    pub tenants: TenantTable,
    /// How long an admission may wait for its record.
    pub admission_wait: Duration,
    /// How long the classes stay that are not under keys of the day.
    pub retention: Retention,
    /// Whether addresses may be looked up.
    pub lookup: bool,
    /// What leaves the relay, and where to; none where nothing does. Its directory is that of the state.
    pub spool: Option<SpoolOptions>,
}

impl PlaneOptions {
    /// With the defaults of everything else.
    pub const fn new(vault: VaultOptions, tenants: TenantTable) -> Self {
        let admission_wait = ADMISSION_WAIT_DEFAULT;
        PlaneOptions { vault, tenants, admission_wait, retention: Retention::DEFAULT, lookup: false, spool: None }
    }

    fn state_directory(&self) -> PathBuf {
        self.vault.state_directory.clone()
    }
}

/// Why a record plane does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The state directory.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The keys.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The spool.
    #[error(transparent)]
    Spool(#[from] spool::StartError),
    /// The thread.
    #[error("no thread for the store of records: {0}")]
    Thread(std::io::Error),
}

/// A record plane that runs.
#[derive(Debug)]
pub struct Plane {
    /// For whoever has something to record or to ask.
    pub handle: Handle,
    /// The keys.
    pub vault: Arc<Vault>,
    bans: Vec<Ban>,
    thread: JoinHandle<()>,
    ended: Receiver<()>,
    // Ends after the store's thread, which hands it its last lines.
    spool: Option<Spool>,
    // Dropped last: the directory is another process's only when nothing of this one is written any more.
    _folder: Arc<Folder>,
}

/// Opens keys and store, and starts the thread that keeps it. Keys whose end has come are destroyed before this
/// returns.
///
/// # Errors
/// See [`StartError`]; each says what to do.
pub fn start(options: PlaneOptions, platform: Arc<dyn Platform>) -> Result<Plane, StartError> {
    let folder = Arc::new(Folder::open(&options.vault.state_directory)?);
    let tenants = options.tenants.clone();
    let mut keys = options.vault.clone();
    (keys.ip_retention_days, keys.tenants) = (tenants.ip_retention_days, tenants.retentions());
    let vault = Vault::open(keys, platform.clone())?;
    crate::audit::publish_key(folder.path(), &vault.verifying_key())
        .map_err(|source| FolderError::Unusable { path: options.state_directory(), source })?;
    let (store, is_signed) = Store::open(folder.path(), vault.clone())?;
    let shared = Arc::new(Shared::default());
    if !is_signed {
        set(&shared.cells.audit_broken, 1);
        tracing::error!("the audit does not end where it was signed: look at it with `sluice audit verify`");
    }
    let bans = store.bans(platform.moment().unix_seconds).map_err(StoreError::from)?;
    let spool = options.spool.clone().map(|spool| spool::start(spool, platform.clone())).transpose()?;
    let has_sinks = options.spool.as_ref().is_some_and(|spool| !spool.sinks.is_empty());
    let lines = spool.as_ref().filter(|_| has_sinks).map(Spool::handle);
    let (records, record_queue) = bounded(STORE_QUEUE_MAX);
    let (requests, request_queue) = bounded(STORE_REQUESTS_MAX);
    let queues = Queues { records: record_queue, requests: request_queue };
    let names = Arc::new(RwLock::new(Arc::new(tenants)));
    let handle = Handle {
        records,
        requests,
        shared: shared.clone(),
        names: names.clone(),
        vault: vault.clone(),
        platform: platform.clone(),
        lines: lines.clone(),
        tags: Arc::default(),
        queues: queues.clone(),
    };
    let held: Vec<_> = store.hold_names().map_err(StoreError::from)?.into_iter().map(|(id, _)| id).collect();
    let hold_keys = HoldKeys::open(folder.path(), platform.clone(), options.vault.destroyer.clone(), &held)?;
    let mut keeper = Keeper::new(store, shared, names, platform, &options, (queues, hold_keys));
    keeper.lines = lines.filter(SpoolHandle::is_there);
    bans.iter().for_each(|ban| keeper.bans.add(ban, keeper.platform.moment()));
    let (end, ended) = bounded::<()>(0);
    let held = folder.clone();
    let run = move || {
        let _held = held;
        // Gone when the thread is, by whichever way.
        let _end = end;
        keeper.run();
    };
    let thread = std::thread::Builder::new().name("store".to_owned()).spawn(run).map_err(StartError::Thread)?;
    Ok(Plane { handle, vault, bans, thread, ended, spool, _folder: folder })
}

impl Plane {
    /// The bans that held at the start.
    pub fn bans(&self) -> &[Ban] {
        &self.bans
    }

    /// Writes what was said so far, signs the audit and ends the thread. False when it did not end in
    /// [`STORE_STOP_TIMEOUT`], or had ended by itself.
    pub fn stop(self) -> bool {
        self.stop_within(STORE_STOP_TIMEOUT)
    }

    /// As [`Plane::stop`], for whoever has more or less patience with the disk.
    pub fn stop_within(self, patience: Duration) -> bool {
        let was_alive = !self.handle.shared.is_dead();
        let _ = self.handle.requests.send_timeout(Said::Stop, patience);
        // Nothing is ever sent: what comes is the end of the sender.
        let is_over = self.ended.recv_timeout(patience);
        let has_ended = is_over == Err(crossbeam::channel::RecvTimeoutError::Disconnected);
        let is_well = has_ended && self.thread.join().is_ok() && was_alive;
        if let Some(spool) = self.spool {
            spool.stop();
        }
        is_well
    }
}

/// What workers and the control plane hold of the record plane.
#[derive(Clone)]
pub struct Handle {
    records: Sender<Record>,
    requests: Sender<Said>,
    shared: Arc<Shared>,
    names: Names,
    vault: Arc<Vault>,
    platform: Arc<dyn Platform>,
    lines: Option<SpoolHandle>,
    /// Spent before the queue, in which admissions wait too.
    tags: Arc<Mutex<Budget>>,
    // A queue whose receivers are gone keeps what is in it for as long as there are senders.
    queues: Queues,
}

/// The thread's ends of its queues.
#[derive(Clone)]
struct Queues {
    records: Receiver<Record>,
    requests: Receiver<Said>,
}

impl Queues {
    /// Drops what nobody will take: whoever waits is answered with no, and events are counted as lost.
    fn empty(&self, shared: &Shared) {
        let events = self.records.try_iter().filter(|record| matches!(record, Record::Event(_))).count();
        add(&shared.cells.events_lost, events as u64);
        self.requests.try_iter().for_each(drop);
    }
}

type Names = Arc<RwLock<Arc<TenantTable>>>;

/// What is to be written.
enum Record {
    Event(RelayEvent),
    Admission(Waiting),
}

/// An admission whose answer somebody waits for.
struct Waiting {
    admission: Admission,
    asked: Mono,
    answer: Answer<bool>,
}

/// What is asked of the thread.
enum Said {
    Request(Request, Answer<Result<Response, RequestError>>),
    Stop,
}

impl Handle {
    /// Hands over an event. False when it is lost, which is counted. Never waits.
    pub fn event(&self, event: RelayEvent) -> bool {
        if matches!(event, RelayEvent::StreamEnded(_)) && self.lines.is_none() {
            return true;
        }
        if let RelayEvent::Tagged(tagged) = &event
            && self.is_beyond(tagged)
        {
            add(&self.shared.cells.tags_beyond, 1);
            return false;
        }
        let is_taken = !self.shared.is_dead() && self.records.try_send(Record::Event(event)).is_ok();
        if !is_taken {
            add(&self.shared.cells.events_lost, 1);
        }
        self.empty_if_dead();
        is_taken
    }

    /// Whether a plugin's words are more than are written down of its tenant in this minute: of one that is gone, none.
    fn is_beyond(&self, tagged: &Tagged) -> bool {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(tenant) = names.get(tagged.tenant) else { return true };
        let mut tags = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        !tags.take(&tenant.name, self.platform.moment(), TAGS_PER_MINUTE_MAX)
    }

    /// Has an admission written. `answer` is called once, from another thread: with true when the record is synced,
    /// with false when it was not written or not in time. False when nothing was taken on, and `answer` is not called.
    /// Never waits.
    pub fn admit(&self, admission: Admission, answer: Box<dyn FnOnce(bool) + Send>) -> bool {
        if self.shared.is_dead() {
            add(&self.shared.cells.admissions_failed, 1);
            return false;
        }
        let asked = self.platform.moment().boot;
        let waiting = Waiting { admission, asked, answer: Answer::new(answer, || false) };
        match self.records.try_send(Record::Admission(waiting)) {
            Ok(()) => {
                self.empty_if_dead();
                true
            }
            Err(refused) => {
                if let Record::Admission(waiting) = refused.into_inner() {
                    waiting.answer.forget();
                }
                add(&self.shared.cells.admissions_full, 1);
                false
            }
        }
    }

    /// Asks something. `answer` is called once, from whichever thread. Never waits.
    pub fn request(&self, request: Request, answer: Box<dyn FnOnce(Result<Response, RequestError>) + Send>) {
        let answer = Answer::new(answer, || Err(RequestError::Stopped));
        if let Err(crossbeam::channel::TrySendError::Full(Said::Request(_, answer))) =
            self.requests.try_send(Said::Request(request, answer))
        {
            answer.give(Err(RequestError::Busy));
        }
        self.empty_if_dead();
    }

    /// What was said between the thread's last look and its end is not left lying.
    fn empty_if_dead(&self) {
        fence(Ordering::SeqCst);
        if self.shared.is_dead() {
            self.queues.empty(&self.shared);
        }
    }

    /// The tenants of a new configuration, from now on. Keys that have to die earlier do so before this returns.
    pub fn configure(&self, tenants: TenantTable) {
        self.vault.configure(tenants.ip_retention_days, tenants.retentions());
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tenants);
    }

    /// Has `call` called, from the store's thread, when bans have ended, by their time or with their key: for whoever
    /// has made something of the list of them. In place of whatever was to be called before.
    pub fn on_bans_ended(&self, call: Box<dyn Fn() + Send>) {
        self.shared.bell.connect(call);
    }

    /// What it counts.
    pub fn stats(&self) -> RecordStats {
        set(&self.shared.cells.queue_depth, self.records.len() as u64);
        self.shared.stats()
    }

    /// The spool, for whoever has lines of its own; none where nothing leaves the relay.
    pub const fn spool(&self) -> Option<&SpoolHandle> {
        self.lines.as_ref()
    }

    /// Whether the store's thread has ended: only another start of the process helps.
    pub fn has_ended(&self) -> bool {
        self.shared.is_dead()
    }

    /// What keeps records from being written, in an operator's words; none while all is well.
    pub fn fault(&self) -> Option<&'static str> {
        if self.shared.is_dead() {
            return Some("the store of records has ended: look at the log for why, and restart the relay");
        }
        self.shared.trouble().map(Trouble::text)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("shared", &self.shared).finish_non_exhaustive()
    }
}
