//! The keys of the day: when one is made, until when it may be used, when it dies.
//!
//! **A key of the day [e, e + 24 h) dies when either clock says so**: the wall clock at e + retention, or the boot
//! clock after as much time as was left when the key was made. So a wall clock that is set forward kills early, and one
//! that is set back keeps nothing longer. Only class `ip` is under these keys.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use sluice_base::{Mono, limits};

use crate::date::DAY_SECONDS;
use crate::{Day, Moment};

/// The tenant and the day of a key. The relay itself is the tenant without a name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyName {
    /// The tenant; empty for what is the relay's own.
    pub tenant: Arc<str>,
    /// The day.
    pub day: Day,
}

/// Until when a key may live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadline {
    /// By the wall clock, seconds since the Unix epoch.
    pub unix_seconds: u64,
    /// By the boot clock.
    pub boot: Mono,
}

/// What a key's file says, or what stands for it where the file cannot be believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    /// Its end by the wall clock.
    pub unix_seconds: u64,
    /// Its end by the boot clock, where that is the boot clock of the present start of the machine.
    pub boot: Option<Mono>,
}

/// The key to seal with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Today {
    /// There is one.
    Use(KeyName),
    /// There is none yet: make one, and say so by [`KeyRing::created`].
    Create(KeyName, Deadline),
    /// The tenant keeps nothing of class `ip`.
    NotKept,
    /// The one that there is has to be destroyed first.
    Overdue(KeyName),
    /// There are [`limits::DAY_KEYS_MAX`] already.
    Full,
}

/// A key that has to be destroyed now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Due {
    /// Which.
    pub name: KeyName,
    /// How long ago its end was, by the boot clock where that tells: a step of the wall clock is no delay.
    pub late: Duration,
}

/// A key that is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// Which.
    pub name: KeyName,
    /// Its end.
    pub dies: Deadline,
    /// How long it is overdue.
    pub late: Duration,
}

/// All keys of the day of one node, without their bytes.
#[derive(Clone, Debug)]
pub struct KeyRing {
    retention_default: u8,
    retention: HashMap<Arc<str>, u8>,
    lives: BTreeMap<KeyName, Life>,
}

#[derive(Clone, Copy, Debug)]
struct Life {
    dies: Deadline,
    /// What it was overdue already at this start, where the boot clock cannot tell.
    late_before: Duration,
    /// Whether its destruction has been asked for: whatever the clocks say later, it is used no more.
    doomed: bool,
}

impl KeyName {
    /// Of a tenant's key for the day of a moment.
    pub fn of(tenant: &str, unix_seconds: u64) -> Self {
        KeyName { tenant: Arc::from(tenant), day: Day::of(unix_seconds) }
    }

    /// The name of its file, as `2026-11-28.clinic.key`.
    pub fn file(&self) -> String {
        format!("{}.{}.key", self.day, self.tenant)
    }

    /// The key whose file has that name.
    pub fn of_file(name: &str) -> Option<Self> {
        let (day, tenant) = name.strip_suffix(".key")?.split_once('.')?;
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let is_tenant = tenant.len() <= limits::TENANT_NAME_BYTES_MAX && tenant.chars().all(known);
        is_tenant.then_some(KeyName { tenant: Arc::from(tenant), day: Day::parse(day)? })
    }
}

impl KeyRing {
    /// No key yet. Tenants that say nothing keep class `ip` for so many days, at most
    /// [`limits::IP_RETENTION_DAYS_MAX`].
    pub fn new(retention_days: u8) -> Self {
        KeyRing {
            retention_default: retention_days.min(limits::IP_RETENTION_DAYS_MAX),
            retention: HashMap::new(),
            lives: BTreeMap::new(),
        }
    }

    /// What tenants say from now on. A key dies earlier where a retention became shorter, and never later.
    pub fn configure(&mut self, retention_days: u8, tenants: impl IntoIterator<Item = (Arc<str>, u8)>, now: Moment) {
        self.retention_default = retention_days.min(limits::IP_RETENTION_DAYS_MAX);
        self.retention = tenants.into_iter().map(|(tenant, days)| (tenant, days.min(self.retention_default))).collect();
        let (retention, default) = (&self.retention, self.retention_default);
        for (name, life) in &mut self.lives {
            let days = retention.get(&name.tenant).copied().unwrap_or(default);
            life.shorten(end_of(name.day, days), now);
        }
    }

    /// The days for which a tenant keeps class `ip`.
    pub fn retention_days(&self, tenant: &str) -> u8 {
        self.retention.get(tenant).copied().unwrap_or(self.retention_default)
    }

    /// The key that something of this moment is sealed with.
    pub fn today(&self, tenant: &str, now: Moment) -> Today {
        let days = self.retention_days(tenant);
        if days == 0 {
            return Today::NotKept;
        }
        let name = KeyName::of(tenant, now.unix_seconds);
        match self.lives.get(&name) {
            Some(life) if life.doomed || life.is_over(now) => Today::Overdue(name),
            Some(_) => Today::Use(name),
            None if self.lives.len() >= limits::DAY_KEYS_MAX => Today::Full,
            None => {
                let unix_seconds = end_of(name.day, days);
                let left = Duration::from_secs(unix_seconds.saturating_sub(now.unix_seconds));
                Today::Create(name, Deadline { unix_seconds, boot: now.boot.after(left) })
            }
        }
    }

    /// A key was made, as [`KeyRing::today`] said.
    pub fn created(&mut self, name: KeyName, dies: Deadline) {
        self.lives.insert(name, Life { dies, late_before: Duration::ZERO, doomed: false });
    }

    /// A key was found at the start. `trusted` is the wall clock to judge it by: the later of the present one and the
    /// latest that was ever seen. A file that cannot be believed is found with an end of zero.
    pub fn adopt(&mut self, name: KeyName, stored: Stored, trusted: u64, now: Moment) {
        let days = self.retention_days(&name.tenant);
        let longest = Duration::from_secs(u64::from(limits::IP_RETENTION_DAYS_MAX) * DAY_SECONDS);
        let unix_seconds = stored.unix_seconds.min(end_of(name.day, limits::IP_RETENTION_DAYS_MAX));
        let mut life = match stored.boot {
            Some(boot) => Life::until(unix_seconds, boot.min(now.boot.after(longest))),
            // The day of this key has not begun: the clock was wrong then, or is now.
            None if name.day.begins() > trusted.saturating_add(DAY_SECONDS) => Life::until(0, now.boot),
            None => {
                let left = Duration::from_secs(unix_seconds.saturating_sub(trusted)).min(longest);
                let late_before = Duration::from_secs(trusted.saturating_sub(unix_seconds));
                Life { late_before, ..Life::until(unix_seconds, now.boot.after(left)) }
            }
        };
        life.shorten(end_of(name.day, days), now);
        self.lives.insert(name, life);
    }

    /// Every key whose end has come, to be destroyed before anything else is done; again and again until
    /// [`KeyRing::destroyed`] says that it is.
    pub fn due(&mut self, now: Moment) -> Vec<Due> {
        let mut due = Vec::new();
        for (name, life) in self.lives.iter_mut().filter(|(_, life)| life.doomed || life.is_over(now)) {
            life.doomed = true;
            due.push(Due { name: name.clone(), late: life.late(now) });
        }
        due
    }

    /// A key is no more.
    pub fn destroyed(&mut self, name: &KeyName) {
        self.lives.remove(name);
    }

    /// The wall clock's second at which the next key's end comes, as far as both clocks tell now. Keys whose
    /// destruction has been asked for do not count.
    pub fn next(&self, now: Moment) -> Option<u64> {
        let ends = self.lives.values().filter(|life| !life.doomed).map(|life| {
            let left = life.dies.boot.since(now.boot);
            let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
            life.dies.unix_seconds.min(now.unix_seconds.saturating_add(seconds))
        });
        ends.min()
    }

    /// Whether a key is there and may be used.
    pub fn is_live(&self, name: &KeyName, now: Moment) -> bool {
        self.lives.get(name).is_some_and(|life| !life.doomed && !life.is_over(now))
    }

    /// Every key that may be used.
    pub fn live(&self, now: Moment) -> impl Iterator<Item = &KeyName> {
        self.lives.iter().filter(move |(_, life)| !life.doomed && !life.is_over(now)).map(|(name, _)| name)
    }

    /// Every key that is there, overdue ones too.
    pub fn status(&self, now: Moment) -> Vec<Status> {
        let row = |(name, life): (&KeyName, &Life)| {
            let late = if life.doomed || life.is_over(now) { life.late(now) } else { Duration::ZERO };
            Status { name: name.clone(), dies: life.dies, late }
        };
        self.lives.iter().map(row).collect()
    }
}

impl Life {
    const fn until(unix_seconds: u64, boot: Mono) -> Self {
        Life { dies: Deadline { unix_seconds, boot }, late_before: Duration::ZERO, doomed: false }
    }

    fn is_over(&self, now: Moment) -> bool {
        now.unix_seconds >= self.dies.unix_seconds || now.boot >= self.dies.boot
    }

    fn late(&self, now: Moment) -> Duration {
        self.late_before.saturating_add(now.boot.since(self.dies.boot))
    }

    /// Brings the end forward. One that would have been in the past is now: it was not late before it was ordered.
    fn shorten(&mut self, unix_seconds: u64, now: Moment) {
        if unix_seconds >= self.dies.unix_seconds || self.doomed || self.is_over(now) {
            return;
        }
        let by = nanos(Duration::from_secs(self.dies.unix_seconds - unix_seconds));
        let boot = Mono::from_nanos(self.dies.boot.nanos().saturating_sub(by));
        self.dies = Deadline { unix_seconds, boot: boot.max(now.boot) };
    }
}

/// The end of a day's key by the wall clock; zero where nothing is kept.
fn end_of(day: Day, days: u8) -> u64 {
    if days == 0 { 0 } else { day.begins() + u64::from(days) * DAY_SECONDS }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
