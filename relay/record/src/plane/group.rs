//! What is committed together.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_base::event::{Began, Denied, Ended, RelayEvent, Tagged};
use sluice_base::limits::{
    DENIALS_PER_MINUTE_MAX, STORE_BACKLOG_MAX, STORE_BACKLOG_TAGS_MAX, STORE_GROUP_MAX, STORE_LINGER,
};
use sluice_base::{Mono, SessionId};
use sluice_privacy::Moment;

use super::lines::Maker;
use super::message::Admission;
use super::stats::{add, set};
use super::thread::Keeper;
use super::{Record, Waiting};
use crate::store::{Arrival, Failure, Trouble, Writer};
use crate::tenant::Tenant;

/// One record of a group, with its tenant as it was when it was told.
pub(super) enum Item {
    /// Something that a worker told.
    Event(RelayEvent, Arc<Tenant>),
    /// A refusal, and the id of its row.
    Denied(Denied, Arc<Tenant>, [u8; 16]),
    /// An admission that somebody waits for.
    Admission(Waiting, Arc<Tenant>),
    /// An admission that was written and answered with no.
    NotBegun(SessionId, u64),
}

impl Item {
    const fn is_awaited(&self) -> bool {
        matches!(self, Item::Admission(..))
    }

    /// Whose it is, and since when it is so, in seconds since the Unix epoch; none where it says nothing of anybody.
    const fn of(&self) -> Option<(&Arc<Tenant>, u64)> {
        match self {
            Item::Event(RelayEvent::Began(Began { unix_seconds, .. }), tenant)
            | Item::Event(RelayEvent::Ended(Ended { unix_seconds, .. }), tenant)
            | Item::Event(RelayEvent::Tagged(Tagged { unix_seconds, .. }), tenant)
            | Item::Denied(Denied { unix_seconds, .. }, tenant, _) => Some((tenant, *unix_seconds)),
            Item::Event(..) | Item::Admission(..) | Item::NotBegun(..) => None,
        }
    }

    fn write(&self, writer: &mut Writer<'_>) -> Result<(), Failure> {
        match self {
            Item::Event(RelayEvent::Began(event), tenant) => writer.began(event, tenant),
            Item::Event(RelayEvent::Ended(event), tenant) => writer.ended(event, tenant),
            Item::Event(RelayEvent::Tagged(event), tenant) => writer.tagged(event, tenant),
            Item::Event(..) => Ok(()),
            Item::Denied(event, tenant, id) => writer.denied(event, tenant, *id),
            Item::Admission(waiting, tenant) => writer.admitted(&arrival(&waiting.admission, tenant)),
            Item::NotBegun(session, at) => writer.not_begun(*session, *at, "late"),
        }
    }
}

fn arrival<'a>(admission: &'a Admission, tenant: &'a Tenant) -> Arrival<'a> {
    let Admission { session, user, client, unix_seconds, .. } = admission;
    let (session, client, unix_seconds) = (*session, *client, *unix_seconds);
    Arrival { session, tenant, user, client, relayed: [None; 2], unix_seconds, told: unix_seconds }
}

/// How many refusals of each tenant, or words of its plugins, were written down in this minute.
#[derive(Debug, Default)]
pub(super) struct Budget {
    minute: u64,
    written: HashMap<Arc<str>, u32>,
}

impl Budget {
    /// Whether one more may be. The minutes are those of the boot clock, which nobody sets.
    pub(super) fn take(&mut self, tenant: &Arc<str>, now: Moment, most: u32) -> bool {
        let minute = now.boot.nanos() / 60_000_000_000;
        if minute != self.minute {
            self.minute = minute;
            self.written.clear();
        }
        let written = self.written.entry(tenant.clone()).or_default();
        *written = written.saturating_add(1);
        *written <= most
    }
}

impl Keeper {
    /// Takes a record into the group.
    pub(super) fn take(&mut self, record: Record, now: Moment) {
        match record {
            Record::Event(event) => self.take_event(event, now),
            Record::Admission(waiting) => match self.tenant(waiting.admission.tenant) {
                Some(tenant) => self.group.push(Item::Admission(waiting, tenant)),
                None => add(&self.shared.cells.admissions_failed, 1),
            },
        }
        self.since.get_or_insert_with(Instant::now);
    }

    fn take_event(&mut self, event: RelayEvent, now: Moment) {
        let tenant = match &event {
            RelayEvent::Began(began) => began.tenant,
            RelayEvent::Ended(ended) => ended.tenant,
            RelayEvent::Denied(denied) => denied.tenant,
            RelayEvent::StreamEnded(stream) => stream.tenant,
            RelayEvent::Tagged(tagged) => tagged.tenant,
            _ => return,
        };
        let Some(tenant) = self.tenant(tenant) else {
            return add(&self.shared.cells.events_lost, 1);
        };
        if matches!(event, RelayEvent::Tagged(_)) && self.kept() >= STORE_BACKLOG_TAGS_MAX {
            return add(&self.shared.cells.tags_beyond, 1);
        }
        let mut id = [0; 16];
        if let RelayEvent::Denied(denied) = &event {
            if !self.denials.take(&tenant.name, now, DENIALS_PER_MINUTE_MAX) {
                return self.pass_over(denied);
            }
            self.platform.random(&mut id);
        }
        if let Some(lines) = &self.lines {
            let (vault, tokens) = (self.store.vault(), &mut self.tokens);
            let maker = Maker { vault, tenant: &tenant, tokens, platform: &*self.platform, now };
            for line in maker.of(&event, &id) {
                // What the spool does not take it counts.
                lines.offer(line);
            }
        }
        if self.is_full() {
            return add(&self.shared.cells.events_lost, 1);
        }
        if self.shared.trouble().is_some() || !self.backlog.is_empty() {
            // It may have to wait beyond its day, which has to have a key by then.
            self.store.vault().prepare(&tenant.name);
        }
        match event {
            RelayEvent::Denied(denied) => self.group.push(Item::Denied(denied, tenant, id)),
            RelayEvent::StreamEnded(_) => {}
            event => self.group.push(Item::Event(event, tenant)),
        }
    }

    /// A refusal that is one too many: nothing is written of it but the end of an admission.
    fn pass_over(&mut self, denied: &Denied) {
        add(&self.shared.cells.denials_beyond, 1);
        match denied.session {
            Some(_) if self.is_full() => add(&self.shared.cells.events_lost, 1),
            Some(session) => self.group.push(Item::NotBegun(session, denied.unix_seconds)),
            None => {}
        }
    }

    /// Whether the group has waited long enough, or somebody waits for it.
    pub(super) fn is_group_due(&self, now: Moment) -> bool {
        let is_old = self.since.is_some_and(|since| since.elapsed() >= STORE_LINGER);
        let is_full = self.group.len() >= STORE_GROUP_MAX;
        let is_awaited = self.group.iter().any(Item::is_awaited);
        let is_ready = now.boot >= self.retry_at && !self.group.is_empty() && (is_old || is_full);
        is_awaited || is_ready || self.is_backlog_due(now)
    }

    /// Whether no more is kept in memory.
    fn is_full(&self) -> bool {
        self.kept() >= STORE_BACKLOG_MAX
    }

    /// Records in memory that are not written.
    fn kept(&self) -> usize {
        self.group.len() + self.backlog.len()
    }

    /// Commits what has come. What cannot be written is answered with no, or kept for another try. Whoever waits does
    /// not wait for what is kept: that has its turn afterwards, a bounded part at a time.
    pub(super) fn commit(&mut self) {
        let now = self.platform.moment();
        self.refuse_late(now);
        let mut group = std::mem::take(&mut self.group);
        self.since = None;
        if !self.backlog.is_empty() {
            let kept = group.extract_if(.., |item| !item.is_awaited());
            self.backlog.extend(kept);
        }
        self.write_group(group);
        if self.is_backlog_due(now) {
            self.drop_expired();
            let part = self.backlog.len().min(STORE_GROUP_MAX);
            let part = self.backlog.drain(..part).collect();
            self.write_group(part);
        }
        let waiting = if self.shared.trouble().is_some() { self.group.len() } else { 0 };
        set(&self.shared.cells.backlog, (self.backlog.len() + waiting) as u64);
    }

    /// Whether something is kept that may be tried again.
    pub(super) fn is_backlog_due(&self, now: Moment) -> bool {
        !self.backlog.is_empty() && now.boot >= self.retry_at
    }

    fn write_group(&mut self, group: Vec<Item>) {
        if group.is_empty() {
            return;
        }
        let write = |writer: &mut Writer<'_>| {
            group.iter().try_for_each(|item| item.write(writer))?;
            Ok(writer.addresses_lost)
        };
        let retry_at = self.retry_at;
        match self.write(write) {
            Ok(addresses_lost) => {
                add(&self.shared.cells.addresses_lost, addresses_lost);
                self.settle(group);
            }
            // One tenant's keys are nobody else's trouble, and the disk is well.
            Err(trouble) if !trouble.is_of_disk() => {
                self.retry_at = retry_at;
                self.write_singly(group);
            }
            Err(_) => self.refuse(group),
        }
    }

    /// Answers what is written.
    fn settle(&mut self, group: Vec<Item>) {
        let now = self.platform.moment();
        for item in group {
            match item {
                Item::Admission(waiting, _) => self.answer(waiting, now),
                Item::Event(..) | Item::Denied(..) => add(&self.shared.cells.events_written, 1),
                Item::NotBegun(..) => {}
            }
        }
    }

    fn answer(&mut self, waiting: Waiting, now: Moment) {
        let is_late = is_late(&waiting, now.boot, self.wait);
        if is_late {
            add(&self.shared.cells.admissions_late, 1);
            self.group.push(Item::NotBegun(waiting.admission.session, now.unix_seconds));
            self.since = Some(Instant::now());
        } else {
            add(&self.shared.cells.admissions_written, 1);
        }
        waiting.answer.give(!is_late);
    }

    /// Answers with no what is not written, and keeps what nobody waits for, before what is kept already.
    fn refuse(&mut self, group: Vec<Item>) {
        let (awaited, kept): (Vec<Item>, Vec<Item>) = group.into_iter().partition(Item::is_awaited);
        add(&self.shared.cells.admissions_failed, awaited.len() as u64);
        drop(awaited);
        for item in kept.into_iter().rev() {
            if let Some((tenant, _)) = item.of() {
                self.store.vault().prepare(&tenant.name);
            }
            self.backlog.push_front(item);
        }
    }

    /// Finds the record that the store does not take, or whose tenant's keys do not seal: the others are written.
    fn write_singly(&mut self, mut items: Vec<Item>) {
        items.sort_by_key(|item| !item.is_awaited());
        let (mut trouble, mut kept) = (None, Vec::new());
        for item in items {
            let cells = &self.shared.cells;
            let write = |writer: &mut Writer<'_>| item.write(writer).map(|()| writer.addresses_lost);
            match self.store.write(self.platform.moment(), write) {
                Ok(addresses_lost) => {
                    add(&cells.addresses_lost, addresses_lost);
                    self.settle(vec![item]);
                }
                Err(failure) => {
                    let why = failure.trouble();
                    trouble = Some(why).filter(|trouble| *trouble != Trouble::Record).or(trouble);
                    match item.is_awaited() {
                        true => add(&cells.admissions_failed, 1),
                        false if why.is_of_disk() => kept.push(item),
                        false => add(&cells.events_lost, 1),
                    }
                }
            }
        }
        self.refuse(kept);
        // Said once for all of them.
        self.note(trouble);
    }

    /// What the disk took nothing of until its retention was over is not written any more.
    fn drop_expired(&mut self) {
        let retention = self.retention.access_audit.as_secs();
        let horizon = self.store.vault().horizon().unix_seconds.saturating_sub(retention);
        let before = self.backlog.len();
        self.backlog.retain(|item| item.of().is_none_or(|(_, at)| at >= horizon));
        add(&self.shared.cells.events_lost, (before - self.backlog.len()) as u64);
    }

    /// Answers with no whoever has waited too long already: the client is told before it asks again.
    fn refuse_late(&mut self, now: Moment) {
        let wait = self.wait;
        let late = self.group.extract_if(.., |item| match item {
            Item::Admission(waiting, _) => is_late(waiting, now.boot, wait),
            _ => false,
        });
        let late: Vec<Item> = late.collect();
        add(&self.shared.cells.admissions_late, late.len() as u64);
        // Whoever is dropped is answered with no.
        drop(late);
    }
}

fn is_late(waiting: &Waiting, now: Mono, wait: Duration) -> bool {
    now.since(waiting.asked) > wait
}
