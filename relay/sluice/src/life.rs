//! The life of a relay that serves: signals, what administrators ask, and the end.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sluice_admin::{Caller, Command, Control, Reply, Told, api};
use sluice_base::limits::{CONTROL_ANSWER_TIMEOUT, CONTROL_COMMANDS_MAX, LISTED_ALLOCATIONS_MAX};
use sluice_base::message::{AllocationPage, AllocationView};
use sluice_base::{Family, Pii, TenantId};
use sluice_config::{Config, ControlSocket};
use sluice_metrics::Metrics;
use sluice_net::os;
use sluice_turn::{Ledger, Listener};
use sluice_worker::Post;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior, timeout};

use crate::cli::Failure;
use crate::drain::{self, Drain, Next};
use crate::policies::{Policies, orders};
use crate::pseudonym::Pseudonyms;
use crate::records::desk::Desk;
use crate::records::report;
use crate::reload::{self, Candidate, Reloader};
use crate::service::{Service, Standing};
use crate::wellbeing::Wellbeing;

/// How often the database of places and the plans of policies are looked at: whether a file is another one costs a
/// system call.
const PLACES_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The file in the runtime directory.
const SOCKET_FILE: &str = "control.sock";

/// What is fixed for the life of the process.
pub(crate) struct Facts {
    pub(crate) config: Option<PathBuf>,
    pub(crate) started_unix_seconds: u64,
    pub(crate) driver: &'static str,
    pub(crate) cores: Vec<usize>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) allocations_limit: u32,
    /// What is written down, where.
    pub(crate) records: RecordFacts,
}

/// What is fixed about records.
#[derive(Default)]
pub(crate) struct RecordFacts {
    pub(crate) state_directory: Option<PathBuf>,
    /// Where keys are, and what becomes of them.
    pub(crate) keys: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

/// A running relay.
pub(crate) struct Life {
    pub(crate) facts: Facts,
    pub(crate) config: Config,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Wellbeing>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) lister: Arc<Lister>,
    pub(crate) policies: Arc<Policies>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) drain: Option<Drain>,
    /// SIGTERM has come once: the next one ends the relay.
    pub(crate) terminated: bool,
    pub(crate) reloader: Arc<Reloader>,
    pub(crate) last_reload: Option<api::LastReload>,
    pub(crate) service: Service,
    /// What a reload has come to, once the workers have confirmed.
    pub(crate) reloaded: Reloaded,
    /// The policies are being looked at.
    pub(crate) looking: bool,
}

/// Outcomes of reloads on their way back, each with its reload's number.
pub(crate) struct Reloaded {
    /// Reloads so far: the number of the last one.
    count: u64,
    sender: mpsc::UnboundedSender<Event>,
    receiver: mpsc::UnboundedReceiver<Event>,
    /// One is under way: its file is being read, or workers have to take it over.
    is_under_way: bool,
    /// Who has asked for another reload meanwhile, and waits for the answer if it was not a signal.
    waiting: VecDeque<(Option<Caller>, Option<Reply<api::Reload>>)>,
}

/// A reload whose file was read: what came of it, and who waits for the answer.
struct Read {
    number: u64,
    candidate: Result<Candidate, api::Reload>,
    caller: Option<Caller>,
    reply: Option<Reply<api::Reload>>,
}

/// What moves a relay's life on.
pub(crate) struct Sources {
    pub(crate) signals: Signals,
    pub(crate) commands: mpsc::Receiver<Command>,
    /// Hears of workers that end by themselves.
    pub(crate) ends: mpsc::UnboundedReceiver<()>,
}

/// The signals that a relay obeys.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

enum Event {
    Hangup,
    Terminate,
    Interrupt,
    Command(Command),
    WorkerEnded,
    Look,
    Beat,
    Places,
    /// The policies were looked at: for these tenants something else decides now.
    Looked(Vec<TenantId>),
    Read(Box<Read>),
    Reloaded(u64, api::Outcome),
}

/// Lists allocations.
pub(crate) struct Lister {
    posts: Arc<[Post]>,
    tenants: Mutex<Arc<[String]>>,
    pseudonyms: Arc<Pseudonyms>,
}

/// Where the control socket is to be, if anywhere.
pub(crate) fn socket_path(config: &Config) -> Option<PathBuf> {
    match &config.control.socket {
        ControlSocket::None => None,
        ControlSocket::At(path) => Some(path.clone()),
        ControlSocket::Auto => runtime_socket(),
    }
}

/// The socket in the folder that the service manager has made: the first of $RUNTIME_DIRECTORY.
pub(crate) fn runtime_socket() -> Option<PathBuf> {
    let folders = std::env::var("RUNTIME_DIRECTORY").ok()?;
    let first = folders.split(':').next().filter(|folder| folder.starts_with('/'))?;
    Some(Path::new(first).join(SOCKET_FILE))
}

/// The control socket, if there is to be one, and what comes in by it.
pub(crate) fn control(path: Option<&Path>) -> Result<(Option<Control>, mpsc::Receiver<Command>), Failure> {
    let (commands, received) = mpsc::channel(CONTROL_COMMANDS_MAX);
    let control = path.map(|path| Control::bind(path, commands)).transpose();
    Ok((control.map_err(|error| error.to_string())?, received))
}

impl Life {
    /// Lives until the workers are to be stopped.
    pub(crate) async fn run(&mut self, mut sources: Sources) {
        let mut looks = every(drain::LOOK_INTERVAL);
        let mut beats = every(self.service.interval());
        let mut places = every(PLACES_LOOK_INTERVAL);
        let standing = self.standing();
        self.service.ready(&standing);
        loop {
            let event = tokio::select! {
                event = sources.next() => event,
                _ = looks.tick(), if self.drain.is_some() => Event::Look,
                _ = beats.tick() => Event::Beat,
                _ = places.tick() => Event::Places,
                Some(event) = self.reloaded.receiver.recv() => event,
            };
            if self.handle(event) {
                break;
            }
        }
        if self.drain.is_none() {
            let standing = self.standing();
            self.service.stopping(&standing);
        }
    }

    /// Whether that was the end.
    fn handle(&mut self, event: Event) -> bool {
        match event {
            Event::Command(command) => self.command(command),
            Event::Hangup => {
                tracing::info!(signal = "SIGHUP", "reading the configuration again");
                self.reload(None, None);
            }
            Event::Interrupt => {
                tracing::info!(signal = "SIGINT", allocations = self.allocations(), "stopping at once");
                return true;
            }
            Event::Terminate => return self.terminate(),
            Event::WorkerEnded => {
                tracing::error!("a worker ended");
                return true;
            }
            Event::Look => return self.look(),
            Event::Beat => {
                let standing = self.standing();
                self.service.beat(&standing);
            }
            Event::Places => self.look_at_policies(),
            Event::Looked(tenants) => {
                self.looking = false;
                if !tenants.is_empty() {
                    self.reloader.record(&self.config);
                }
                self.reloader.review(tenants);
            }
            Event::Read(read) => self.read(*read),
            Event::Reloaded(number, outcome) => self.reloaded(number, outcome),
        }
        false
    }

    /// Has the policies looked at, on a thread of its own: files are read for it and guests run.
    fn look_at_policies(&mut self) {
        if std::mem::replace(&mut self.looking, true) {
            return;
        }
        let (policies, looked) = (self.policies.clone(), self.reloaded.sender.clone());
        tokio::spawn(async move {
            let tenants = tokio::task::spawn_blocking(move || policies.look()).await;
            let _ = looked.send(Event::Looked(tenants.unwrap_or_default()));
        });
    }

    /// The first SIGTERM drains, or goes on with a drain that an administrator began; the second one is the end.
    fn terminate(&mut self) -> bool {
        let allocations = self.allocations();
        if std::mem::replace(&mut self.terminated, true) {
            tracing::info!(signal = "SIGTERM", allocations, "stopping at once");
            return true;
        }
        match self.drain {
            None => tracing::info!(signal = "SIGTERM", "stopping"),
            Some(_) => tracing::info!(
                signal = "SIGTERM",
                allocations,
                "the drain goes on: another SIGTERM, or SIGINT, ends the relay at once"
            ),
        }
        self.begin_drain();
        self.look()
    }

    /// Has the configuration read again.
    fn reload(&mut self, caller: Option<Caller>, reply: Option<Reply<api::Reload>>) {
        if std::mem::replace(&mut self.reloaded.is_under_way, true) {
            // What was read may be older than what this one is about; one more is enough for all signals.
            let is_told = reply.is_none() && self.reloaded.waiting.iter().any(|(_, reply)| reply.is_none());
            if !is_told {
                self.reloaded.waiting.push_back((caller, reply));
            }
            return;
        }
        self.service.reloading();
        self.reloaded.count += 1;
        let (number, outcome) = (self.reloaded.count, self.reloaded.sender.clone());
        let (reloader, running) = (self.reloader.clone(), self.config.clone());
        tokio::spawn(async move {
            let candidate = reloader.read(running).await;
            let _ = outcome.send(Event::Read(Box::new(Read { number, candidate, caller, reply })));
        });
    }

    /// Puts in force what was read, and answers whoever waits for it.
    fn read(&mut self, read: Read) {
        let Read { number, candidate, caller, reply } = read;
        let unix_seconds = os::now().unix_seconds;
        let put = candidate.and_then(|candidate| self.reloader.put(candidate, &mut self.config));
        let sent = match put {
            Ok(sent) => sent,
            Err(answer) => {
                self.last_reload = Some(api::LastReload { unix_seconds, outcome: answer.outcome });
                self.reloaded(number, answer.outcome);
                self.metrics.process().reload_failed();
                tracing::error!("{}", reload::text(&answer));
                reply.map(|reply| reply.send(answer));
                return;
            }
        };
        self.last_reload = Some(api::LastReload { unix_seconds, outcome: api::Outcome::Unconfirmed });
        self.metrics.process().configured(unix_seconds);
        self.lister.set_tenants(&self.config);
        self.desk.allow_lookup(self.config.privacy.lookup);
        let desk = self.desk.clone();
        let outcome = self.reloaded.sender.clone();
        tokio::spawn(async move {
            let answer = sent.confirmed().await;
            let keys = answer.changes.iter().map(|change| change.key.clone()).collect();
            desk.note(if caller.is_some() { "reload" } else { "reload (SIGHUP)" }, keys, caller).await;
            let _ = outcome.send(Event::Reloaded(number, answer.outcome));
            match answer.outcome {
                api::Outcome::Unconfirmed => tracing::error!("{}", reload::text(&answer)),
                _ => tracing::info!("{}", reload::text(&answer)),
            }
            reply.map(|reply| reply.send(answer));
        });
    }

    /// A reload is over, however it went.
    fn reloaded(&mut self, number: u64, outcome: api::Outcome) {
        // One that was refused while this one was under way is the last one all the same.
        if let Some(last) = self.last_reload.as_mut().filter(|_| number == self.reloaded.count) {
            last.outcome = outcome;
        }
        self.service.reloaded(reload::outcome(outcome));
        self.reloaded.is_under_way = false;
        if let Some((caller, reply)) = self.reloaded.waiting.pop_front() {
            self.reload(caller, reply);
        }
    }

    fn standing(&self) -> Standing {
        Standing {
            fault: self.health.needs_restart(),
            allocations: self.allocations(),
            draining: self.drain.as_ref().map(|drain| drain.left(Instant::now())),
        }
    }

    fn begin_drain(&mut self) {
        if self.drain.is_some() {
            return;
        }
        let configured = self.config.drain;
        let (allocations, deadline_seconds) = (self.allocations(), configured.deadline.as_secs());
        tracing::info!(allocations, deadline_seconds, "draining: nobody new is let in");
        let posts = self.lister.posts.clone();
        self.drain = Some(Drain::new(Instant::now(), configured.deadline, configured.alternates, posts));
        self.metrics.process().drains();
        let standing = self.standing();
        self.service.stopping(&standing);
    }

    /// Looks how far the drain is; whether it is over.
    fn look(&mut self) -> bool {
        let (now, allocations) = (Instant::now(), self.allocations());
        let Some(drain) = &mut self.drain else {
            return false;
        };
        let seconds_left = drain.left(now).as_secs();
        match drain.look(now, allocations) {
            Next::Wait => return false,
            Next::Tell => {
                tracing::info!(allocations, seconds_left, "draining");
                return false;
            }
            Next::Drained => tracing::info!("drained: the last allocation has ended"),
            Next::Late => tracing::warn!(allocations, "the deadline has come: these allocations are cut"),
        }
        true
    }

    fn allocations(&self) -> u32 {
        self.ledger.usage().allocations
    }

    fn draining(&self) -> Option<api::Draining> {
        let now = Instant::now();
        self.drain.as_ref().map(|drain| api::Draining {
            allocations: u64::from(self.allocations()),
            since_seconds: drain.age(now).as_secs(),
            deadline_in_seconds: drain.left(now).as_secs(),
        })
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Status(reply) => drop(reply.send(self.status())),
            Command::Reload(caller, reply) => {
                tracing::info!(uid = caller.uid, "told to read the configuration again");
                self.reload(Some(caller), Some(reply));
            }
            Command::Drain(caller, reply) => {
                tracing::info!(uid = caller.uid, "told to drain");
                let desk = self.desk.clone();
                tokio::spawn(async move { desk.note("drain", Vec::new(), Some(caller)).await });
                self.begin_drain();
                if let Some(draining) = self.draining() {
                    let _ = reply.send(draining);
                }
            }
            Command::Allocations(after, reply) => {
                let lister = self.lister.clone();
                // A worker that does not answer holds up this answer alone.
                tokio::spawn(async move { lister.list(after, reply).await });
            }
            Command::Plugins(reply) => drop(reply.send(self.policies.list())),
            Command::Erase(caller, wanted, reply) => {
                let (policies, desk) = (self.policies.clone(), self.desk.clone());
                let known = orders::known(&self.config, &wanted.tenant);
                tokio::spawn(async move {
                    let _ = reply.send(match known {
                        Ok(_) => orders::erase(policies, desk, caller, wanted).await,
                        Err(problem) => Err(problem),
                    });
                });
            }
            Command::Review(caller, tenant, reply) => drop(reply.send(self.review(caller, tenant.as_deref()))),
            Command::Compliance(reply) => drop(reply.send(Ok(self.compliance()))),
            command => {
                let desk = self.desk.clone();
                // The store may be waiting for its disk: nobody else waits for it.
                tokio::spawn(async move { answer(&desk, command).await });
            }
        }
    }

    /// Has policies asked again about all that lives.
    fn review(&self, caller: Caller, tenant: Option<&str>) -> Told<api::Review> {
        tracing::info!(uid = caller.uid, tenant, "told to ask policies again about all that lives");
        let only = tenant.map(|tenant| orders::known(&self.config, tenant)).transpose()?;
        let mut ids = self.policies.tenants();
        ids.retain(|id| only.is_none_or(|only| only == *id));
        let name = |id: &TenantId| self.config.tenants.get(usize::from(id.0)).map(|tenant| tenant.name.clone());
        let tenants: Vec<String> = ids.iter().filter_map(name).collect();
        self.reloader.review(ids);
        let (desk, names) = (self.desk.clone(), tenants.clone());
        tokio::spawn(async move { desk.note("plugin review", names, Some(caller)).await });
        Ok(api::Review { tenants })
    }

    /// What this relay stores, by the configuration in force.
    fn compliance(&self) -> api::Compliance {
        let records = &self.facts.records;
        let facts = report::Facts {
            unix_seconds: os::now().unix_seconds,
            config: self.facts.config.as_deref(),
            state_directory: records.state_directory.as_deref(),
            keys: &records.keys,
            warnings: records.warnings.clone(),
        };
        report::report(&self.config, facts)
    }

    fn status(&self) -> api::Status {
        let facts = &self.facts;
        let now = os::now().unix_seconds;
        let ticks = self.metrics.publications();
        let worker = |(worker, (core, ticks)): (usize, (&usize, u64))| api::Worker { worker, core: *core, ticks };
        let listener = |l: &Listener| api::Listener { address: l.address, realm: l.realm.clone() };
        api::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            config: facts.config.as_ref().map(|path| path.display().to_string()),
            started_unix_seconds: facts.started_unix_seconds,
            uptime_seconds: now.saturating_sub(facts.started_unix_seconds),
            driver: facts.driver.to_owned(),
            workers: facts.cores.iter().zip(ticks).enumerate().map(worker).collect(),
            listeners: facts.listeners.iter().map(listener).collect(),
            metrics: facts.metrics,
            allocations: u64::from(self.allocations()),
            allocations_limit: facts.allocations_limit,
            last_reload: self.last_reload.clone(),
            draining: self.draining(),
            faults: self.health.faults(),
        }
    }
}

/// Answers what is asked of records and bans. Whoever asked may be gone.
async fn answer(desk: &Desk, command: Command) {
    match command {
        Command::Lookup(caller, wanted, reply) => drop(reply.send(desk.lookup(caller, wanted).await)),
        Command::Ban(caller, wanted, reply) => drop(reply.send(desk.ban(caller, wanted).await)),
        Command::Lift(caller, wanted, reply) => drop(reply.send(desk.lift(caller, wanted).await)),
        Command::Bans(caller, reply) => drop(reply.send(desk.bans(caller).await)),
        Command::Audit(caller, last, reply) => drop(reply.send(desk.audit(caller, last).await)),
        Command::Sweep(caller, request, reply) => drop(reply.send(desk.sweep(caller, request).await)),
        Command::Backup(caller, request, reply) => drop(reply.send(desk.backup(caller, request).await)),
        Command::Hold(caller, wanted, reply) => drop(reply.send(desk.hold(caller, wanted).await)),
        Command::Holds(reply) => drop(reply.send(desk.holds().await)),
        Command::LiftHold(caller, named, reply) => drop(reply.send(desk.lift_hold(caller, named).await)),
        Command::ReadHold(caller, named, reply) => drop(reply.send(desk.read_hold(caller, named).await)),
        Command::Retention(reply) => drop(reply.send(desk.retention().await)),
        _ => {}
    }
}

/// A timer that leaves out what it has missed, since nobody asks it for days.
fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

impl Reloaded {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Reloaded { count: 0, sender, receiver, is_under_way: false, waiting: VecDeque::new() }
    }
}

impl Sources {
    async fn next(&mut self) -> Event {
        tokio::select! {
            event = self.signals.next() => event,
            // Without a control socket nobody sends.
            Some(command) = self.commands.recv() => Event::Command(command),
            _ = self.ends.recv() => Event::WorkerEnded,
        }
    }
}

impl Signals {
    /// From here on they no longer end the process by themselves.
    pub(crate) fn new() -> Result<Self, Failure> {
        let catch = |kind| signal(kind).map_err(|error| format!("signals cannot be caught: {error}"));
        Ok(Signals {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            hangup: catch(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.terminate.recv() => Event::Terminate,
            _ = self.interrupt.recv() => Event::Interrupt,
            _ = self.hangup.recv() => Event::Hangup,
        }
    }
}

impl Lister {
    /// Of a configuration's tenants.
    pub(crate) fn new(posts: Arc<[Post]>, pseudonyms: Arc<Pseudonyms>, config: &Config) -> Self {
        let lister = Lister { posts, tenants: Mutex::new([].into()), pseudonyms };
        lister.set_tenants(config);
        lister
    }

    /// Every worker's queue.
    pub(crate) fn posts(&self) -> &[Post] {
        &self.posts
    }

    /// The name of an address in lists and in the log.
    pub(crate) fn pseudonym(&self, ip: &Pii<IpAddr>) -> String {
        self.pseudonyms.address(ip)
    }

    /// The address of a client whose allocation lives.
    pub(crate) async fn client(&self, pseudonym: &str) -> Option<Pii<IpAddr>> {
        for post in self.posts.iter() {
            let mut place = Some(0);
            while let Some(from) = place {
                let page = timeout(CONTROL_ANSWER_TIMEOUT, ask(post, from, LISTED_ALLOCATIONS_MAX)).await.ok()??;
                let mut clients = page.rows.iter().map(|view| view.client.ip());
                if let Some(found) = clients.find(|ip| self.pseudonym(ip) == pseudonym) {
                    return Some(found);
                }
                place = page.next;
            }
        }
        None
    }

    fn set_tenants(&self, config: &Config) {
        let names = config.tenants.iter().map(|tenant| tenant.name.clone()).collect();
        *self.tenants.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }

    async fn list(&self, after: u64, reply: Reply<api::Allocations>) {
        // Without an answer the asker is told that it has none.
        if let Ok(Some(list)) = timeout(CONTROL_ANSWER_TIMEOUT, self.collect(after)).await {
            let _ = reply.send(list);
        }
    }

    /// One part of the list: from worker to worker until it is full.
    async fn collect(&self, after: u64) -> Option<api::Allocations> {
        let mut list = api::Allocations::default();
        let tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (mut worker, mut place) = ((after >> 32) as usize, after as u32);
        while let Some(post) = self.posts.get(worker) {
            let room = LISTED_ALLOCATIONS_MAX - list.allocations.len();
            if room == 0 {
                list.next = Some((worker as u64) << 32 | u64::from(place));
                break;
            }
            let page = ask(post, place, room).await?;
            list.allocations.extend(page.rows.iter().map(|view| self.row(worker, view, &tenants)));
            (worker, place) = page.next.map_or((worker + 1, 0), |place| (worker, place));
        }
        Some(list)
    }

    fn row(&self, worker: usize, view: &AllocationView, tenants: &[String]) -> api::Allocation {
        let family = |family: &Family| match family {
            Family::V4 => "ipv4".to_owned(),
            Family::V6 => "ipv6".to_owned(),
        };
        api::Allocation {
            allocation: self.pseudonyms.allocation(worker, view),
            user: self.pseudonyms.user(view),
            client: self.pseudonyms.client(view),
            tenant: tenants.get(usize::from(view.tenant.0)).cloned().unwrap_or_default(),
            worker,
            age_seconds: view.age.as_secs(),
            expires_in_seconds: view.expires_in.as_secs(),
            permissions: view.permissions,
            channels: view.channels,
            families: view.families.iter().map(family).collect(),
            packets_from_client: view.traffic.packets_from_client,
            bytes_from_client: view.traffic.bytes_from_client,
            packets_to_client: view.traffic.packets_to_client,
            bytes_to_client: view.traffic.bytes_to_client,
        }
    }
}

/// Asks one worker for a page.
async fn ask(post: &Post, place: u32, most: usize) -> Option<AllocationPage> {
    let (answer, answered) = oneshot::channel();
    let asked = post.list(place, most, Box::new(move |page| drop(answer.send(page))));
    if asked { answered.await.ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_timer_makes_up_for_nothing_that_it_missed() {
        let minute = Duration::from_secs(60);
        let mut looks = every(minute);
        looks.reset_at(tokio::time::Instant::now() - 10 * minute);
        assert!(timeout(Duration::ZERO, looks.tick()).await.is_ok(), "it is due");
        assert!(timeout(Duration::ZERO, looks.tick()).await.is_err(), "and not once more for each minute");
    }
}
