//! What goes when.

use std::time::Duration;

use rusqlite::{OptionalExtension as _, params};
use serde_json::json;
use sluice_privacy::seal::Header;
use sluice_privacy::{Class, Day};

use super::session::time;
use super::{Failure, Store, Writer};
use crate::audit::Kind;
use crate::vault::{DestroyedKey, OpenError};

/// How long the classes of the store stay that are not under keys of the day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// Class `access-audit`: sessions, refusals and their entries of the audit.
    pub access_audit: Duration,
    /// Class `admin-audit`: the other entries. The chain begins with the oldest entry that either class keeps.
    pub admin_audit: Duration,
}

impl Retention {
    /// Of the table of classes: three years.
    pub const DEFAULT: Retention = Retention { access_audit: THREE_YEARS, admin_audit: THREE_YEARS };
}

const THREE_YEARS: Duration = Duration::from_secs(3 * 365 * 24 * 3600);

/// What a sweep removed, or would remove.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Sessions.
    pub sessions: u64,
    /// Refusals.
    pub denials: u64,
    /// Entries of the audit.
    pub entries: u64,
}

/// One class of the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClassStatus {
    /// The class.
    pub class: Class,
    /// When its oldest record was made, in seconds since the Unix epoch; none where there is none.
    pub oldest: Option<u64>,
    /// When the next of it is destroyed.
    pub next: Option<u64>,
    /// How long that is overdue.
    pub late: Duration,
    /// Records that a legal hold keeps.
    pub held: u64,
}

impl Writer<'_> {
    /// What a destroyed key had sealed is removed: nobody can read it any longer, and nobody has to keep it.
    pub(crate) fn forget(&mut self, key: &DestroyedKey) -> Result<(), Failure> {
        let (tenant, day) = (&*key.tenant, key.day);
        self.forget_where("tenant = ?1 AND day = ?2", params![tenant, day.0])?;
        self.connection.execute("DELETE FROM ban WHERE tenant = ? AND day = ?", params![tenant, day.0])?;
        self.bury(tenant, day)?;
        let body = json!({ "day": day.to_string(), "late_seconds": key.late.as_secs() });
        self.entry(self.now.unix_seconds, Kind::KeyDestroyed, tenant, None, body)
    }

    /// What was sealed under keys that are not there is removed: they died with the machine's restart, or somebody took
    /// them away. The days of those keys.
    pub(crate) fn forget_lost(&mut self) -> Result<Vec<(String, Day)>, Failure> {
        let mut lost = Vec::new();
        for (tenant, day, key) in self.lost_keys()? {
            let which = "tenant = ?1 AND day = ?2 AND substr(sealed, 13, 8) = ?3";
            self.forget_where(which, params![tenant, day.0, key])?;
            self.bury(&tenant, day)?;
            let body = json!({ "day": day.to_string(), "lost": true });
            self.entry(self.now.unix_seconds, Kind::KeyDestroyed, &tenant, None, body)?;
            lost.push((tenant, day));
        }
        Ok(lost)
    }

    /// Removes what has reached the end of its retention by the clock `now`.
    pub(crate) fn sweep(&mut self, retention: &Retention, now: u64) -> Result<Swept, Failure> {
        let horizon = now.saturating_sub(retention.access_audit.as_secs());
        let sessions = "DELETE FROM session WHERE ended IS NOT NULL AND ended < ?";
        let sessions = self.connection.execute(sessions, [time(horizon)])? as u64;
        let denials = self.connection.execute("DELETE FROM denial WHERE at < ?", [time(horizon)])? as u64;
        let longer = retention.access_audit.max(retention.admin_audit);
        let entries = self.prune(now.saturating_sub(longer.as_secs()))?;
        let swept = Swept { sessions, denials, entries };
        if swept != Swept::default() {
            let body = json!({ "sessions": sessions, "denials": denials, "entries": entries });
            self.entry(self.now.unix_seconds, Kind::Sweep, "", None, body)?;
        }
        Ok(swept)
    }

    /// Keys that sealed something that is here, and that do not open it.
    fn lost_keys(&self) -> Result<Vec<(String, Day, Vec<u8>)>, Failure> {
        let mut keys = self.connection.prepare(
            "SELECT tenant, day, substr(sealed, 13, 8) FROM session WHERE sealed IS NOT NULL \
             UNION SELECT tenant, day, substr(sealed, 13, 8) FROM denial WHERE sealed IS NOT NULL",
        )?;
        let rows = keys.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let keys: Vec<(String, u32, Vec<u8>)> = rows.collect::<Result<_, _>>()?;
        let mut one = self.connection.prepare(
            "SELECT id, sealed FROM session WHERE tenant = ?1 AND day = ?2 AND substr(sealed, 13, 8) = ?3 \
             UNION ALL SELECT id, sealed FROM denial WHERE tenant = ?1 AND day = ?2 AND substr(sealed, 13, 8) = ?3 \
             LIMIT 1",
        )?;
        let mut lost = Vec::new();
        for (tenant, day, key) in keys {
            let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, Vec<u8>>(1)?));
            let found = one.query_row(params![tenant, day, key], row).optional()?;
            let is_gone = |(id, sealed): &([u8; 16], Vec<u8>)| {
                let opened = self.vault.open_sealed(sealed, id);
                matches!(opened, Err(OpenError::KeyGone { .. })) || Header::read(sealed).is_none()
            };
            if found.as_ref().is_some_and(is_gone) {
                lost.push((tenant, Day(day), key));
            }
        }
        Ok(lost)
    }

    fn forget_where(&self, which: &str, values: &[&dyn rusqlite::ToSql]) -> Result<(), Failure> {
        let blind = format!("DELETE FROM session_address WHERE session IN (SELECT id FROM session WHERE {which})");
        self.connection.execute(&blind, values)?;
        self.connection.execute(&format!("UPDATE session SET sealed = NULL WHERE {which}"), values)?;
        self.connection.execute(&format!("UPDATE denial SET sealed = NULL, blind = NULL WHERE {which}"), values)?;
        Ok(())
    }

    /// Remembers when a key was seen dead, for whoever asks what it had sealed.
    fn bury(&self, tenant: &str, day: Day) -> Result<(), Failure> {
        let insert = "INSERT INTO dead_key (tenant, day, died) VALUES (?, ?, ?) ON CONFLICT DO NOTHING";
        self.connection.execute(insert, params![tenant, day.0, time(self.now.unix_seconds)])?;
        Ok(())
    }
}

impl Store {
    /// What [`Writer::sweep`] would remove.
    pub(crate) fn sweep_dry(&self, retention: &Retention, now: u64) -> Result<Swept, Failure> {
        let horizon = time(now.saturating_sub(retention.access_audit.as_secs()));
        let count = |query: &str| self.connection().query_row(query, [horizon], |row| row.get(0));
        let longer = retention.access_audit.max(retention.admin_audit);
        Ok(Swept {
            sessions: count("SELECT COUNT(*) FROM session WHERE ended IS NOT NULL AND ended < ?")?,
            denials: count("SELECT COUNT(*) FROM denial WHERE at < ?")?,
            entries: self.prunable(now.saturating_sub(longer.as_secs()))?,
        })
    }

    /// The classes of the store, by the clock `now`.
    pub(crate) fn retention_status(&self, retention: &Retention, now: u64) -> Result<Vec<ClassStatus>, Failure> {
        let least = |query: &str| self.connection().query_row(query, [], |row| row.get::<_, Option<u64>>(0));
        let keys = self.vault().status();
        let ip = ClassStatus {
            class: Class::Ip,
            oldest: least(
                "SELECT MIN(m) FROM (SELECT MIN(began) AS m FROM session WHERE sealed IS NOT NULL \
                 UNION ALL SELECT MIN(at) AS m FROM denial WHERE sealed IS NOT NULL) AS t",
            )?,
            next: keys.iter().map(|key| key.dies).min(),
            late: keys.iter().map(|key| key.late).max().unwrap_or_default(),
            held: 0,
        };
        let of = |class, oldest: Option<u64>, retention: Duration| {
            let next = oldest.map(|at| at.saturating_add(retention.as_secs()));
            let late = Duration::from_secs(next.map_or(0, |next| now.saturating_sub(next)));
            ClassStatus { class, oldest, next, late, held: 0 }
        };
        let access = least(
            "SELECT MIN(m) FROM (SELECT MIN(ended) AS m FROM session UNION ALL SELECT MIN(at) AS m FROM denial) AS t",
        )?;
        let admin = least("SELECT MIN(at) FROM audit")?;
        Ok(vec![
            ip,
            of(Class::AccessAudit, access, retention.access_audit),
            of(Class::AdminAudit, admin, retention.access_audit.max(retention.admin_audit)),
        ])
    }
}
