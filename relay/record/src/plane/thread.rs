//! The thread that keeps the store.

use std::collections::VecDeque;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::select;
use serde_json::json;
use sluice_base::limits::{
    CLOCK_STEP_MIN, STORE_CHORES_INTERVAL, STORE_GROUP_MAX, STORE_LINGER, STORE_RETRY, STORE_SWEEP_INTERVAL,
};
use sluice_base::{Mono, TenantId};
use sluice_privacy::Moment;

use super::bans::BanEnds;
use super::group::{Budget, Item};
use super::message::{Answer, RequestError, Response};
use super::requests::not_recorded;
use super::stats::{Shared, add, set};
use super::tokens::Tokens;
use super::{Names, PlaneOptions, Queues, Said};
use crate::audit::{Draft, Kind};
use crate::spool::SpoolHandle;
use crate::store::{DeadKey, Failure, Retention, Store, Swept, Trouble, Writer};
use crate::tenant::Tenant;
use crate::vault::{DestroyedKey, HoldKeys, Platform};

/// Keeps the store: takes records, commits them in groups, answers, and does what is due.
pub(super) struct Keeper {
    pub(super) store: Store,
    pub(super) shared: Arc<Shared>,
    pub(super) platform: Arc<dyn Platform>,
    pub(super) wait: Duration,
    pub(super) retention: Retention,
    pub(super) lookup: bool,
    pub(super) group: Vec<Item>,
    /// What the disk did not take and nobody waits for, in the order in which it came.
    pub(super) backlog: VecDeque<Item>,
    /// Since when the oldest of the group waits.
    pub(super) since: Option<Instant>,
    pub(super) denials: Budget,
    /// Not before then is a disk tried again that took nothing.
    pub(super) retry_at: Mono,
    /// Bytes that must not stay in the journal have been deleted.
    pub(super) must_truncate: bool,
    /// The keys of legal holds.
    pub(super) hold_keys: HoldKeys,
    /// Where lines go, if anywhere.
    pub(super) lines: Option<SpoolHandle>,
    /// The pseudonyms that plans have in them.
    pub(super) tokens: Tokens,
    names: Names,
    queues: Queues,
    /// The first entry of this run is written.
    has_opened: bool,
    /// Dead keys whose records are still there.
    dead: Vec<DeadKey>,
    /// The bans that hold.
    pub(super) bans: BanEnds,
    /// A sweep that goes on.
    sweeping: Option<Sweeping>,
    undestroyed: usize,
    seen: Moment,
    next_chores: Mono,
    next_sweep: Mono,
}

/// A sweep, which removes a part at a time.
#[derive(Default)]
struct Sweeping {
    swept: Swept,
    /// Whoever waits for its end.
    answers: Vec<Answer<Result<Response, RequestError>>>,
}

/// Says that nothing is written any more, by whichever way the thread ends.
struct LastWill(Arc<Shared>, Queues);

impl Drop for LastWill {
    fn drop(&mut self) {
        self.0.die();
        fence(Ordering::SeqCst);
        self.1.empty(&self.0);
        if std::thread::panicking() {
            tracing::error!("the store of records has ended by a mistake of the relay: nothing is recorded any more");
        }
    }
}

impl Keeper {
    pub(super) fn new(
        store: Store,
        shared: Arc<Shared>,
        names: Names,
        platform: Arc<dyn Platform>,
        options: &PlaneOptions,
        (queues, hold_keys): (Queues, HoldKeys),
    ) -> Self {
        let seen = platform.moment();
        Keeper {
            store,
            shared,
            platform,
            wait: options.admission_wait,
            retention: options.retention,
            lookup: options.lookup,
            group: Vec::new(),
            backlog: VecDeque::new(),
            since: None,
            denials: Budget::default(),
            retry_at: Mono::default(),
            must_truncate: true,
            hold_keys,
            lines: None,
            tokens: Tokens::default(),
            names,
            queues,
            has_opened: false,
            dead: Vec::new(),
            bans: BanEnds::default(),
            sweeping: None,
            undestroyed: 0,
            seen,
            next_chores: Mono::default(),
            next_sweep: Mono::default(),
        }
    }

    /// Runs until it is told to stop.
    pub(super) fn run(&mut self) {
        let _will = LastWill(self.shared.clone(), self.queues.clone());
        self.count_holds();
        loop {
            self.chores();
            let wait = self.rest();
            let mut said = None;
            select! {
                recv(self.queues.records) -> record => match record {
                    Ok(record) => self.take(record, self.platform.moment()),
                    Err(_) => break,
                },
                recv(self.queues.requests) -> request => match request {
                    Ok(request) => said = Some(request),
                    Err(_) => break,
                },
                default(wait) => {}
            }
            self.gather();
            match said {
                Some(Said::Request(request, answer)) => {
                    self.commit_all();
                    // Whoever asks hears of a key that a worker has destroyed this very moment.
                    self.next_chores = Mono::default();
                    self.chores();
                    self.answer_request(request, answer);
                }
                Some(Said::Stop) => break,
                None => {}
            }
        }
        self.close();
    }

    /// For how long nothing is to be done unless somebody says something.
    fn rest(&self) -> Duration {
        let now = self.platform.moment();
        if self.has_to_clear(now) || self.is_backlog_due(now) {
            return Duration::ZERO;
        }
        let is_idle = self.group.is_empty() && self.backlog.is_empty();
        if is_idle { STORE_CHORES_INTERVAL } else { STORE_LINGER }
    }

    /// Takes what has come meanwhile, and commits when somebody waits for it or it has waited long enough.
    fn gather(&mut self) {
        let now = self.platform.moment();
        let mut taken = 0;
        while taken < STORE_GROUP_MAX
            && let Ok(record) = self.queues.records.try_recv()
        {
            self.take(record, now);
            taken += 1;
        }
        if self.is_group_due(now) {
            self.commit();
        }
    }

    /// Commits everything that was said so far, as far as the disk takes it.
    fn commit_all(&mut self) {
        loop {
            let now = self.platform.moment();
            while let Ok(record) = self.queues.records.try_recv() {
                self.take(record, now);
                if self.group.len() >= STORE_GROUP_MAX {
                    self.commit();
                }
            }
            self.commit();
            if !self.is_backlog_due(now) {
                return;
            }
        }
    }

    /// The end: the group, the last entry, a checkpoint that stays, and no journal.
    fn close(&mut self) {
        self.commit_all();
        add(&self.shared.cells.events_lost, (self.group.len() + self.backlog.len()) as u64);
        self.group.clear();
        self.backlog.clear();
        let last = self.write(|writer| {
            let at = writer.now.unix_seconds;
            writer.audit(&Draft { at, kind: Kind::Stop, tenant: "", session: None, body: json!({}) })?;
            writer.checkpoint()
        });
        if last.is_ok() {
            let _ = self.store.truncate_journal();
        }
    }

    /// What is due by the clock, and a part of what is to be removed.
    pub(super) fn chores(&mut self) {
        let now = self.platform.moment();
        let is_due = now.boot >= self.next_chores;
        if is_due {
            self.next_chores = now.boot.after(STORE_CHORES_INTERVAL);
            self.look_at_clock(now);
            self.look_at_keys();
            self.look_at_bans(now);
            self.tokens.forget(now);
            if !self.has_opened {
                self.open();
            }
            if now.boot >= self.next_sweep {
                self.next_sweep = now.boot.after(STORE_SWEEP_INTERVAL);
                self.sweeping.get_or_insert_default();
            }
        }
        let has_cleared = self.has_to_clear(now);
        if has_cleared {
            self.clear();
        }
        let is_clear = self.dead.is_empty() && self.sweeping.is_none();
        if self.must_truncate && is_clear && (is_due || has_cleared) && self.shared.trouble().is_none() {
            self.must_truncate = !self.store.truncate_journal().unwrap_or(false);
        }
    }

    /// Whether there is something to be removed, and it was not refused a moment ago.
    fn has_to_clear(&self, now: Moment) -> bool {
        (!self.dead.is_empty() || self.sweeping.is_some()) && now.boot >= self.retry_at
    }

    /// Removes a part of what is to be removed, so that nobody waits for the whole of it.
    fn clear(&mut self) {
        if self.dead.is_empty() {
            return self.sweep();
        }
        let mut dead = std::mem::take(&mut self.dead);
        if let Ok(forgotten) = self.write(|writer| writer.forget(&dead)) {
            self.must_truncate = true;
            dead.iter_mut().take(forgotten.told).for_each(|key| key.is_told = true);
            dead.drain(..forgotten.whole);
        }
        self.dead = dead;
    }

    /// The first entry of this run.
    fn open(&mut self) {
        if let Ok(lost) = self.write(open) {
            self.has_opened = true;
            add(&self.shared.cells.keys_lost, lost.len() as u64);
            self.dead.extend(lost);
        }
    }

    /// Keys whose end has come are destroyed, by whomever.
    fn look_at_keys(&mut self) {
        let destroyed = self.store.vault().sweep();
        add(&self.shared.cells.keys_destroyed, destroyed.keys.len() as u64 + destroyed.untold);
        let is_of_relay = |key: &DestroyedKey| key.tenant.is_empty();
        if destroyed.untold > 0 || destroyed.keys.iter().any(is_of_relay) {
            // A ban ends with the key that it is sealed under.
            let left = self.store.bans(0).unwrap_or_default();
            self.bans.keep(|id| left.iter().any(|ban| ban.id == *id));
        }
        self.dead.extend(destroyed.keys.into_iter().map(DeadKey::from));
        if destroyed.failed.len() > self.undestroyed {
            tracing::error!("keys of the day whose end has come cannot be destroyed: look at the keys' directory");
        }
        self.undestroyed = destroyed.failed.len();
        let of_holds = self.hold_keys.retry();
        let cells = &self.shared.cells;
        set(&cells.keys_undestroyed, (self.undestroyed + of_holds) as u64);
        set(&cells.keys_live, self.store.vault().status().len() as u64);
        set(&cells.key_late_seconds_max, self.store.vault().late_max().as_secs());
    }

    /// What is kept no longer by a hold may be overdue.
    pub(super) fn sweep_soon(&mut self) {
        self.sweeping.get_or_insert_default();
    }

    /// Has `answer` called when everything is removed that has reached the end of its retention.
    pub(super) fn sweep_for(&mut self, answer: Answer<Result<Response, RequestError>>) {
        self.sweeping.get_or_insert_default().answers.push(answer);
    }

    /// Removes a part of what has reached the end of its retention, as far as the wall clock is believed.
    fn sweep(&mut self) {
        let Some(mut sweeping) = self.sweeping.take() else { return };
        let (retention, horizon) = (self.retention, self.store.vault().horizon());
        set(&self.shared.cells.sweep_held_back_seconds, horizon.held_back.as_secs());
        match self.write(|writer| writer.sweep(&retention, horizon.unix_seconds)) {
            Ok(part) => {
                let Swept { sessions, denials, entries } = part.swept;
                add(&self.shared.cells.swept, sessions + denials + entries);
                self.must_truncate |= part.swept != Swept::default();
                sweeping.swept += part.swept;
                if part.is_more {
                    self.sweeping = Some(sweeping);
                    return;
                }
                let answer = |answer: Answer<_>| answer.give(Ok(Response::Swept(sweeping.swept)));
                sweeping.answers.into_iter().for_each(answer);
            }
            Err(trouble) => {
                let told = |answer: Answer<_>| answer.give(Err(not_recorded(trouble)));
                sweeping.answers.drain(..).for_each(told);
                self.sweeping = Some(sweeping);
            }
        }
    }

    /// Writes down that the wall clock went another way than time.
    fn look_at_clock(&mut self, now: Moment) {
        let passed = now.boot.since(self.seen.boot).as_secs();
        let expected = self.seen.unix_seconds.saturating_add(passed);
        self.seen = now;
        if now.unix_seconds.abs_diff(expected) < CLOCK_STEP_MIN.as_secs() {
            return;
        }
        add(&self.shared.cells.clock_steps, 1);
        tracing::warn!("the wall clock was set: what has to be destroyed by it is");
        let (at, from) = (now.unix_seconds, expected);
        let body = json!({ "from": from, "to": at });
        let draft = Draft { at, kind: Kind::ClockStep, tenant: "", session: None, body };
        let _ = self.write(|writer| writer.audit(&draft));
    }

    /// Does `work` in one transaction, and says once what keeps it from being written.
    pub(super) fn write<T>(&mut self, work: impl FnOnce(&mut Writer<'_>) -> Result<T, Failure>) -> Result<T, Trouble> {
        let now = self.platform.moment();
        if matches!(self.shared.trouble(), Some(Trouble::Disk | Trouble::ReadOnly)) && now.boot >= self.retry_at {
            // After an error of the disk a connection may be of no more use. Where it cannot be made anew, the old one
            // says why.
            let _ = self.store.reopen();
        }
        let begun = Instant::now();
        let done = self.store.write(now, work).map_err(|failure| failure.trouble());
        match &done {
            Ok(_) => {
                self.shared.committed(begun.elapsed());
                set(&self.shared.cells.audit_entries, self.store.audit_end());
                self.note(None);
            }
            Err(trouble) => {
                add(&self.shared.cells.commits_failed, 1);
                self.retry_at = now.boot.after(STORE_RETRY);
                // A record that is refused says nothing of the disk.
                self.note(Some(*trouble).filter(|trouble| *trouble != Trouble::Record));
                if *trouble == Trouble::Record {
                    tracing::error!("{trouble}");
                }
            }
        }
        done
    }

    /// Says it when records begin not to be written, or are again.
    pub(super) fn note(&self, trouble: Option<Trouble>) {
        if trouble == self.shared.trouble() {
            return;
        }
        self.shared.set_trouble(trouble);
        match trouble {
            Some(trouble) => tracing::error!("records are not written: {trouble}"),
            None => tracing::info!("records are written again"),
        }
    }

    pub(super) fn tenant(&self, id: TenantId) -> Option<Arc<Tenant>> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).get(id)
    }
}

/// What a run begins with: sessions of the last one are over. The keys that were found gone.
fn open(writer: &mut Writer<'_>) -> Result<Vec<DeadKey>, Failure> {
    let at = writer.now.unix_seconds;
    if let Some(created) = writer.take_note("restored")? {
        let body = json!({ "created": created.parse::<u64>().unwrap_or(0) });
        writer.audit(&Draft { at, kind: Kind::Restore, tenant: "", session: None, body })?;
    }
    writer.end_old_bans()?;
    let sessions = writer.close_lost()?;
    let keys = writer.lost_keys()?;
    let body = json!({ "sessions_lost": sessions, "keys_lost": keys.len() });
    writer.audit(&Draft { at, kind: Kind::Start, tenant: "", session: None, body })?;
    Ok(keys)
}
