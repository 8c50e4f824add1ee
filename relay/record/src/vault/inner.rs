//! What there is of the keys in memory. Nothing here touches a file, so whoever waits for its lock never waits for a
//! disk.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use sluice_base::limits;
use sluice_base::memory::KeyCell;
use sluice_privacy::keyring::{Deadline, Due, Today};
use sluice_privacy::{Clock, Day, KeyName, KeyRing, Moment};

use super::clock_file::Says;
use super::options::VaultWarning;
use super::{DestroyedKey, FailedDestruction, SealError};

pub(super) struct Inner {
    pub(super) ring: KeyRing,
    pub(super) clock: Clock,
    pub(super) newest_key: Option<Day>,
    pub(super) cells: BTreeMap<KeyName, Box<dyn KeyCell>>,
    pub(super) long: HashMap<Arc<str>, Box<dyn KeyCell>>,
    /// Tenants whose key of today was asked for by somebody who must not wait for a disk.
    pub(super) wanted: BTreeSet<Arc<str>>,
    /// What was destroyed since it was last asked for.
    pub(super) destroyed: Vec<DestroyedKey>,
    pub(super) untold: u64,
    late_seconds_max: u64,
}

impl Inner {
    pub(super) fn new(ip_retention_days: u8, clock: Clock, newest_key: Option<Day>) -> Self {
        Inner {
            ring: KeyRing::new(ip_retention_days),
            clock,
            newest_key,
            cells: BTreeMap::new(),
            long: HashMap::new(),
            wanted: BTreeSet::new(),
            destroyed: Vec::new(),
            untold: 0,
            late_seconds_max: 0,
        }
    }

    pub(super) fn key(&self, name: &KeyName) -> Result<&[u8; 32], SealError> {
        let cell = self.cells.get(name);
        cell.map(|cell| cell.bytes()).ok_or_else(|| SealError::Failed(format!("the key of {} is not there", name.day)))
    }

    /// The tenant's key of a day that is over.
    pub(super) fn key_of(&self, tenant: &str, day: Day, now: Moment) -> Result<&[u8; 32], SealError> {
        if self.ring.retention_days(tenant) == 0 {
            return Err(SealError::NotKept);
        }
        let name = KeyName { tenant: Arc::from(tenant), day };
        if self.ring.is_live(&name, now) { self.key(&name) } else { Err(SealError::DayOver(day)) }
    }

    /// Takes a new key whose file is safely there. False where it is not wanted any more: the day, the clock or the
    /// tenant's retention has changed since its making began.
    pub(super) fn publish(&mut self, name: &KeyName, dies: Deadline, cell: Box<dyn KeyCell>, now: Moment) -> bool {
        let Today::Create(wanted, again) = self.ring.today(&name.tenant, now) else { return false };
        // Of both ends the earlier one: neither a shorter retention nor a clock that is set back makes it live longer.
        let dies =
            Deadline { unix_seconds: dies.unix_seconds.min(again.unix_seconds), boot: dies.boot.min(again.boot) };
        let is_wanted = wanted == *name && now.unix_seconds < dies.unix_seconds && now.boot < dies.boot;
        if is_wanted {
            self.cells.insert(name.clone(), cell);
            self.ring.created(name.clone(), dies);
            self.newest_key = self.newest_key.max(Some(name.day));
        }
        is_wanted
    }

    /// Takes every key whose end has come from memory, which nobody refuses: from here on it is used no more. What is
    /// told are those whose files may still be there.
    pub(super) fn doom(&mut self, now: Moment) -> Vec<Due> {
        let due = self.ring.due(now);
        due.iter().for_each(|due| drop(self.cells.remove(&due.name)));
        due
    }

    /// What has become of the file of a doomed key; told where it is still there.
    pub(super) fn settle(&mut self, due: Due, gone: io::Result<()>) -> Option<FailedDestruction> {
        let (name, late) = (due.name, due.late);
        self.late_seconds_max = self.late_seconds_max.max(late.as_secs());
        let (tenant, day) = (name.tenant.clone(), name.day);
        if let Err(why) = gone {
            return Some(FailedDestruction { tenant, day, late, why: why.to_string() });
        }
        self.ring.destroyed(&name);
        if self.destroyed.len() < limits::DESTROYED_KEYS_MAX {
            self.destroyed.push(DestroyedKey { tenant, day, late });
        } else {
            self.untold += 1;
        }
        None
    }

    /// What the next start has to know.
    pub(super) fn says(&mut self, now: Moment) -> Says {
        self.clock.pass(now);
        Says { remembered: self.clock.remembered(), newest_key: self.newest_key }
    }

    /// There is no key, and should be one.
    pub(super) fn lost_keys(&self, now: Moment) -> Option<VaultWarning> {
        let newest = self.newest_key.filter(|_| self.cells.is_empty())?;
        let end = Day(newest.0.saturating_add(u32::from(limits::IP_RETENTION_DAYS_MAX)));
        (Day::of(now.unix_seconds) < end).then_some(VaultWarning::KeysLost { newest })
    }

    /// The longest that a key was destroyed after its end, or is overdue now.
    pub(super) fn late_max(&self, now: Moment) -> Duration {
        let overdue = self.ring.status(now).into_iter().map(|key| key.late).max();
        overdue.unwrap_or_default().max(Duration::from_secs(self.late_seconds_max))
    }
}
