//! What administrators are answered about records and bans.

mod holds;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;

use sluice_admin::{Caller, Target, Told, Wanted, WantedBan, WantedLift, api};
use sluice_base::limits::{RELOAD_CONFIRM_TIMEOUT, STORE_RETRY};
use sluice_base::{Family, Pii};
use sluice_crypto::hex_encode;
use sluice_net::os;
use sluice_record::audit::Line;
use sluice_record::plane::{Asker, Handle, Request, RequestError, Response, RetentionReport};
use sluice_record::store::{Ban, BanTarget, ClassStatus, FoundSession, GoneDay, Role, Swept};
use sluice_record::vault::KeyStatus;
use sluice_turn::{Bans, BansError, Whom};
use sluice_worker::Post;
use tokio::sync::{Mutex, Notify, oneshot};
use tokio::time::{sleep, timeout};

use crate::cli::Failure;
use crate::life::Lister;

/// By which role whoever may write to the control socket is allowed what he asks.
const ROLE: &str = "control-socket";

/// The user that the kernel names where it tells of none.
const NOBODY: u32 = 65_534;

/// How long to wait before a worker whose queue is full is told again.
const AGAIN: Duration = Duration::from_millis(20);

/// Answers administrators.
pub(crate) struct Desk {
    /// None where nothing is recorded.
    handle: Option<Handle>,
    lister: Arc<Lister>,
    lookup: AtomicBool,
    /// One change of the bans at a time: the last table that workers get is that of the store.
    changing: Mutex<()>,
    /// Bans have ended, by their time or with their key.
    ended: Arc<Notify>,
    expiries: Expiries,
}

/// When the bans in force end: all that metrics need of them.
#[derive(Clone, Default)]
pub(crate) struct Expiries(Arc<Lock<Vec<u64>>>);

impl Desk {
    /// Of a relay whose configuration says `lookup`, and whose workers have the bans that hold.
    pub(crate) async fn start(
        handle: Option<Handle>,
        lister: Arc<Lister>,
        lookup: bool,
        expiries: Expiries,
    ) -> Result<Arc<Self>, Failure> {
        let desk = Arc::new(Self::new(handle, lister, lookup, expiries));
        if desk.handle.is_some() {
            desk.publish().await.map_err(|problem| format!("the bans are not in force: {}", problem.detail))?;
            tokio::spawn(desk.clone().keep_current());
        }
        Ok(desk)
    }

    fn new(handle: Option<Handle>, lister: Arc<Lister>, lookup: bool, expiries: Expiries) -> Self {
        let ended = Arc::new(Notify::new());
        if let Some(handle) = &handle {
            let ended = ended.clone();
            handle.on_bans_ended(Box::new(move || ended.notify_one()));
        }
        Desk { handle, lister, lookup: AtomicBool::new(lookup), changing: Mutex::new(()), ended, expiries }
    }

    /// Takes bans from the workers' tables when they end, address and all: until the record plane ends.
    async fn keep_current(self: Arc<Self>) {
        while self.handle.as_ref().is_some_and(|handle| !handle.has_ended()) {
            self.ended.notified().await;
            let _one = self.changing.lock().await;
            if let Err(problem) = self.publish().await {
                tracing::error!("bans that have ended are not taken from the workers yet: {}", problem.detail);
                sleep(STORE_RETRY).await;
                self.ended.notify_one();
            }
        }
    }

    /// Whether addresses may be looked up, from now on.
    pub(crate) fn allow_lookup(&self, lookup: bool) {
        self.lookup.store(lookup, Ordering::Relaxed);
    }

    /// The sessions of an address.
    pub(crate) async fn lookup(&self, caller: Caller, wanted: Wanted) -> Told<api::Lookup> {
        self.may_look_up()?;
        tracing::info!(uid = caller.uid, "told to look up an address");
        let Wanted { address, port, from, to, reason } = wanted;
        let asker = asker(caller, reason);
        match self.ask(Request::Lookup { address, port, from, to, asker }).await? {
            Response::Found(found) => Ok(api::Lookup {
                sessions: found.sessions.iter().map(session).collect(),
                more: found.more,
                gone: found.gone.iter().map(gone).collect(),
            }),
            _ => Err(unexpected()),
        }
    }

    fn may_look_up(&self) -> Told<()> {
        if self.lookup.load(Ordering::Relaxed) {
            return Ok(());
        }
        let detail = "looking up addresses is not allowed: privacy.lookup of the configuration is false";
        Err(api::Problem::new(403, "not allowed", detail))
    }

    /// Bans somebody; the answer comes when every worker knows.
    pub(crate) async fn ban(&self, caller: Caller, wanted: WantedBan) -> Told<api::Ban> {
        let (target, by_pseudonym) = match wanted.target {
            Target::Network(address, bits) => (BanTarget { address, bits }, false),
            Target::Pseudonym(pseudonym) => (self.client(&pseudonym).await?, true),
            Target::Ban(_) => return Err(api::Problem::new(400, "nobody to ban", "that is the id of a ban")),
        };
        tracing::info!(uid = caller.uid, client = ?target.address, "told to ban a client or a network");
        let _one = self.changing.lock().await;
        let (seconds, asker) = (wanted.seconds, asker(caller, wanted.reason));
        let Response::Banned(ban) = self.ask(Request::BanAdd { target, by_pseudonym, seconds, asker }).await? else {
            return Err(unexpected());
        };
        self.publish().await?;
        Ok(self.shown(&ban))
    }

    /// Lifts every ban that is meant.
    pub(crate) async fn lift(&self, caller: Caller, wanted: WantedLift) -> Told<api::Lifted> {
        let WantedLift { target, reason } = wanted;
        tracing::info!(uid = caller.uid, "told to lift a ban");
        let _one = self.changing.lock().await;
        let bans = self.bans_in_force().await?;
        let meant = bans.iter().filter(|ban| self.is_meant(ban, &target));
        let ids: Vec<[u8; 16]> = meant.map(|ban| ban.id).collect();
        if ids.is_empty() {
            return Err(api::Problem::new(404, "no such ban", "`sluice ban list` has those that hold, with their ids"));
        }
        let asker = asker(caller, reason.unwrap_or_default());
        let (mut lifted, mut refused) = (0, None);
        for id in ids {
            match self.ask(Request::BanRemove { id, asker: asker.clone() }).await {
                Ok(_) => lifted += 1,
                // It has run out meanwhile.
                Err(problem) if problem.status == 404 => {}
                Err(problem) => {
                    refused = Some(problem);
                    break;
                }
            }
        }
        // Those that were lifted before one could not be are lifted.
        let published = self.publish().await;
        refused.map_or(published, Err).map(|()| api::Lifted { lifted })
    }

    /// The bans that hold.
    pub(crate) async fn bans(&self, caller: Caller) -> Told<api::Bans> {
        let asker = asker(caller, String::new());
        let Response::Bans(bans) = self.ask(Request::BanRead { asker }).await? else {
            return Err(unexpected());
        };
        Ok(api::Bans { bans: bans.iter().map(|ban| self.shown(ban)).collect() })
    }

    /// The last entries of the audit.
    pub(crate) async fn audit(&self, caller: Caller, count: usize) -> Told<api::Audit> {
        match self.ask(Request::AuditTail { count, asker: asker(caller, String::new()) }).await? {
            Response::Entries(lines) => Ok(api::Audit { entries: lines.into_iter().map(entry).collect() }),
            _ => Err(unexpected()),
        }
    }

    /// What is kept, and until when.
    pub(crate) async fn retention(&self) -> Told<api::Retention> {
        match self.ask(Request::RetentionStatus).await? {
            Response::Retention(report) => Ok(retention(&report)),
            _ => Err(unexpected()),
        }
    }

    /// Removes what has reached the end of its retention, or counts it.
    pub(crate) async fn sweep(&self, caller: Caller, request: api::SweepRequest) -> Told<api::Swept> {
        let api::SweepRequest { dry_run, beyond_24h } = request;
        tracing::info!(uid = caller.uid, "told to remove what has reached the end of its retention");
        match self.ask(Request::Sweep { dry_run, beyond_24h, uid: uid(caller) }).await? {
            Response::Swept(Swept { sessions, denials, entries }) => {
                Ok(api::Swept { dry_run, sessions, denials, entries })
            }
            _ => Err(unexpected()),
        }
    }

    /// Has a copy of the store made.
    pub(crate) async fn backup(&self, caller: Caller, request: api::BackupRequest) -> Told<api::Backup> {
        tracing::info!(uid = caller.uid, "told to make a copy of the store");
        let to = PathBuf::from(&request.to);
        if !to.is_absolute() {
            return Err(api::Problem::new(400, "no place", "`to` is an absolute path of a directory"));
        }
        self.ask(Request::Backup { to, uid: uid(caller) }).await?;
        Ok(api::Backup { to: request.to })
    }

    /// Has an administrative change written into the audit; one that cannot be is told of in the log.
    pub(crate) async fn note(&self, what: &str, keys: Vec<String>, caller: Option<Caller>) {
        if self.handle.is_none() {
            return;
        }
        let uid = caller.map_or(NOBODY, uid);
        if let Err(problem) = self.ask(Request::Admin { what: what.to_owned(), keys, uid }).await {
            tracing::error!("`{what}` is not in the audit: {}", problem.detail);
        }
    }

    /// Hands the bans that hold to every worker. The caller holds `changing`, or nobody else is there yet.
    async fn publish(&self) -> Told<()> {
        let bans = self.bans_in_force().await?;
        self.expiries.set(bans.iter().map(|ban| ban.expires).collect());
        let table =
            Arc::new(table(&bans).map_err(|error| api::Problem::new(500, "no table of bans", &error.to_string()))?);
        let all = async {
            for post in self.lister.posts() {
                hand_over(post, &table).await;
            }
        };
        let late =
            |_| api::Problem::new(504, "not every worker knows", "it is kept, and a worker that hangs obeys later");
        timeout(RELOAD_CONFIRM_TIMEOUT, all).await.map_err(late)
    }

    async fn bans_in_force(&self) -> Told<Vec<Ban>> {
        match self.ask(Request::BanList).await? {
            Response::Bans(bans) => Ok(bans),
            _ => Err(unexpected()),
        }
    }

    /// The address of a client that is there.
    async fn client(&self, pseudonym: &str) -> Told<BanTarget> {
        let Some(address) = self.lister.client(pseudonym).await else {
            let detail = "no live allocation has this client: `sluice allocations` shows those that are there";
            return Err(api::Problem::new(404, "nobody to ban", detail));
        };
        Ok(BanTarget { address, bits: if address.family() == Family::V4 { 32 } else { 128 } })
    }

    fn is_meant(&self, ban: &Ban, target: &Target) -> bool {
        match target {
            Target::Ban(id) => ban.id == *id,
            Target::Pseudonym(pseudonym) => self.client_of(ban).is_some_and(|client| client == *pseudonym),
            Target::Network(address, bits) => {
                let network = |address: &Pii<_>| Pii::prefix(address, u32::from(*bits).min(32), u32::from(*bits));
                let (one, other) = (address.family(), ban.target.address.family());
                one == other && ban.target.bits == *bits && network(address) == network(&ban.target.address)
            }
        }
    }

    /// The pseudonym of whom a ban is for. Where addresses may not be looked up, an address that somebody gave is not
    /// answered with it either: only what was banned by a pseudonym is known by that.
    fn client_of(&self, ban: &Ban) -> Option<String> {
        let is_shown = ban.by_pseudonym || self.lookup.load(Ordering::Relaxed);
        is_shown.then(|| self.lister.pseudonym(&ban.target.address))
    }

    fn shown(&self, ban: &Ban) -> api::Ban {
        api::Ban {
            ban: hex_encode(&ban.id),
            client: self.client_of(ban),
            family: if ban.target.address.family() == Family::V4 { "ipv4" } else { "ipv6" }.to_owned(),
            bits: ban.target.bits,
            reason: ban.reason.clone(),
            created_unix_seconds: ban.created,
            expires_unix_seconds: ban.expires,
        }
    }

    async fn ask(&self, request: Request) -> Told<Response> {
        let Some(handle) = &self.handle else {
            let detail = "privacy.records of the configuration is false; ranges of clients can be closed for good in \
                          guard.deny_clients";
            return Err(api::Problem::new(409, "nothing is recorded", detail));
        };
        let (answer, answered) = oneshot::channel();
        handle.request(request, Box::new(move |told| drop(answer.send(told))));
        let told = answered.await.unwrap_or(Err(RequestError::Stopped));
        told.map_err(|error| api::Problem::new(status(&error), "not done", &error.to_string()))
    }
}

impl Expiries {
    fn set(&self, expiries: Vec<u64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = expiries;
    }

    /// How many bans hold.
    pub(crate) fn in_force(&self) -> u64 {
        let now = os::now().unix_seconds;
        let expiries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        expiries.iter().filter(|end| **end > now).count() as u64
    }
}

/// Bans as workers have them.
pub(super) fn table(bans: &[Ban]) -> Result<Bans, BansError> {
    let of = |ban: &Ban| sluice_turn::Ban {
        whom: Whom::Address(ban.target.address, ban.target.bits),
        until: Some(ban.expires),
    };
    Bans::new(&bans.iter().map(of).collect::<Vec<_>>())
}

/// Has a worker take the bans over, and waits until it has.
async fn hand_over(post: &Post, table: &Arc<Bans>) {
    loop {
        let (answer, answered) = oneshot::channel();
        let tell = move |()| {
            let _ = answer.send(());
        };
        if post.ban(table.clone(), Box::new(tell)) {
            // A worker that is gone obeys nobody: that is told by its end.
            let _ = answered.await;
            return;
        }
        sleep(AGAIN).await;
    }
}

fn asker(caller: Caller, reason: String) -> Asker {
    Asker { role: ROLE.to_owned(), uid: uid(caller), reason }
}

fn uid(caller: Caller) -> u32 {
    caller.uid.unwrap_or(NOBODY)
}

fn status(error: &RequestError) -> u16 {
    match error {
        RequestError::NotAllowed(_) => 403,
        RequestError::Wrong(_) => 400,
        RequestError::Missing(_) => 404,
        RequestError::Stopped | RequestError::Busy | RequestError::NotRecorded(_) => 503,
        _ => 500,
    }
}

fn unexpected() -> api::Problem {
    api::Problem::new(500, "not understood", "the record plane answered something else: this is a fault of sluice")
}

fn session(session: &FoundSession) -> api::Session {
    let role = match session.role {
        Role::Client => "client",
        Role::Relayed => "relayed",
    };
    api::Session {
        session: session.session.to_string(),
        tenant: session.tenant.clone(),
        user: session.person.clone(),
        role: role.to_owned(),
        began_unix_seconds: session.began,
        ended_unix_seconds: session.ended,
        bytes: session.bytes,
    }
}

fn gone(gone: &GoneDay) -> api::GoneDay {
    api::GoneDay { day: gone.day.to_string(), tenant: gone.tenant.clone(), destroyed_unix_seconds: gone.died }
}

fn entry(line: Line) -> api::Entry {
    let unix_seconds = u64::try_from(line.at).unwrap_or(0);
    api::Entry {
        seq: line.seq,
        unix_seconds,
        kind: line.kind,
        tenant: line.tenant,
        session: line.session,
        body: line.body,
    }
}

fn retention(report: &RetentionReport) -> api::Retention {
    let class = |class: &ClassStatus| api::ClassStanding {
        class: class.class.name().to_owned(),
        oldest_unix_seconds: class.oldest,
        next_unix_seconds: class.next,
        late_seconds: class.late.as_secs(),
        held: class.held,
    };
    let key = |key: &KeyStatus| api::KeyStanding {
        tenant: key.tenant.to_string(),
        day: key.day.to_string(),
        dies_unix_seconds: key.dies,
        late_seconds: key.late.as_secs(),
    };
    api::Retention { classes: report.classes.iter().map(class).collect(), keys: report.keys.iter().map(key).collect() }
}
