//! What goes when.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::json;
use sluice_base::limits::STORE_SWEEP_ROWS_MAX;
use sluice_privacy::hold::audit_horizon;
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

impl std::ops::AddAssign for Swept {
    fn add_assign(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.denials += other.denials;
        self.entries += other.entries;
    }
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

/// What a sweep asks of the tables, by the moment before which retention is over and at most so many rows. Each finds
/// its rows by an index: admissions wait for the thread that asks.
mod statement {
    pub(super) const SESSIONS: &str = "DELETE FROM session WHERE id IN \
         (SELECT id FROM session WHERE ended IS NOT NULL AND ended < ?1 AND NOT EXISTS \
         (SELECT 1 FROM held_session WHERE held_session.session = session.id) ORDER BY ended LIMIT ?2)";
    /// A hold keeps the refusals of its sessions too.
    pub(super) const DENIALS: &str = "DELETE FROM denial WHERE id IN \
         (SELECT id FROM denial WHERE at < ?1 AND NOT EXISTS \
         (SELECT 1 FROM held_session WHERE held_session.session = denial.session) ORDER BY at LIMIT ?2)";
    /// A look-up names the days of sessions that are still there: for as long it has to be able to say since when the
    /// key of such a day is no more.
    pub(super) const DEAD_KEYS: &str = "DELETE FROM dead_key WHERE (tenant, day) IN \
         (SELECT tenant, day FROM dead_key WHERE died < ?1 AND NOT EXISTS \
         (SELECT 1 FROM session WHERE session.day = dead_key.day AND session.tenant = dead_key.tenant) \
         ORDER BY died LIMIT ?2)";
    pub(super) const SESSIONS_COUNT: &str = "SELECT COUNT(*) FROM session WHERE ended IS NOT NULL AND ended < ?1 \
         AND NOT EXISTS (SELECT 1 FROM held_session WHERE held_session.session = session.id)";
    pub(super) const DENIALS_COUNT: &str = "SELECT COUNT(*) FROM denial WHERE at < ?1 \
         AND NOT EXISTS (SELECT 1 FROM held_session WHERE held_session.session = denial.session)";
    pub(super) const OLDEST_SESSION: &str = "SELECT ended FROM session WHERE ended IS NOT NULL \
         AND NOT EXISTS (SELECT 1 FROM held_session WHERE held_session.session = session.id) ORDER BY ended LIMIT 1";
    pub(super) const OLDEST_DENIAL: &str = "SELECT at FROM denial WHERE at >= 0 \
         AND NOT EXISTS (SELECT 1 FROM held_session WHERE held_session.session = denial.session) ORDER BY at LIMIT 1";

    /// What was sealed of a tenant on a day, and what of that under one key.
    pub(super) const SEALED_SESSIONS: &str =
        "SELECT id FROM session WHERE sealed IS NOT NULL AND day = ?1 AND tenant = ?2 LIMIT ?3";
    pub(super) const SEALED_DENIALS: &str =
        "SELECT id FROM denial WHERE sealed IS NOT NULL AND day = ?1 AND tenant = ?2 LIMIT ?3";
    pub(super) const SESSIONS_OF_KEY: &str = "SELECT id FROM session WHERE sealed IS NOT NULL AND day = ?1 \
         AND tenant = ?2 AND substr(sealed, 13, 8) = ?4 LIMIT ?3";
    pub(super) const DENIALS_OF_KEY: &str = "SELECT id FROM denial WHERE sealed IS NOT NULL AND day = ?1 \
         AND tenant = ?2 AND substr(sealed, 13, 8) = ?4 LIMIT ?3";
    pub(super) const FORGET_BLIND: &str = "DELETE FROM session_address WHERE session = ?";
    pub(super) const FORGET_SESSION: &str = "UPDATE session SET sealed = NULL WHERE id = ?";
    pub(super) const FORGET_DENIAL: &str = "UPDATE denial SET sealed = NULL, blind = NULL WHERE id = ?";

    #[cfg(test)]
    pub(super) const ALL: &[&str] = &[
        SESSIONS,
        DENIALS,
        DEAD_KEYS,
        SESSIONS_COUNT,
        DENIALS_COUNT,
        OLDEST_SESSION,
        OLDEST_DENIAL,
        SEALED_SESSIONS,
        SEALED_DENIALS,
        SESSIONS_OF_KEY,
        DENIALS_OF_KEY,
        FORGET_BLIND,
        FORGET_SESSION,
        FORGET_DENIAL,
    ];
}

/// A key that is no more, and of which something sealed is still there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DeadKey {
    tenant: Arc<str>,
    day: Day,
    /// The key's name in what it has sealed, where the day may have had another that lives.
    key: Option<Vec<u8>>,
    /// How long after its end it was destroyed; none where it was found to be lost.
    late: Option<Duration>,
    /// It is written down that it is dead.
    pub(crate) is_told: bool,
}

impl From<DestroyedKey> for DeadKey {
    fn from(destroyed: DestroyedKey) -> Self {
        let DestroyedKey { tenant, day, late } = destroyed;
        DeadKey { tenant, day, key: None, late: Some(late), is_told: false }
    }
}

/// How far [`Writer::forget`] has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Forgotten {
    /// So many keys of the list are written down as dead.
    pub(crate) told: usize,
    /// Of these, so many have sealed nothing any more that is there.
    pub(crate) whole: usize,
}

/// A part of a sweep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SweptPart {
    pub(crate) swept: Swept,
    /// There may be more.
    pub(crate) is_more: bool,
}

impl Writer<'_> {
    /// What dead keys had sealed is removed: nobody can read it any longer, and nobody has to keep it. At most
    /// [`STORE_SWEEP_ROWS_MAX`] rows.
    pub(crate) fn forget(&mut self, dead: &[DeadKey]) -> Result<Forgotten, Failure> {
        let (mut left, mut whole) = (STORE_SWEEP_ROWS_MAX, 0);
        for (place, key) in dead.iter().enumerate() {
            if left == 0 {
                return Ok(Forgotten { told: place, whole });
            }
            if !key.is_told {
                self.bury(key)?;
                left -= 1;
            }
            left -= self.forget_sessions(key, left)?;
            left -= self.forget_denials(key, left)?;
            if left == 0 {
                return Ok(Forgotten { told: place + 1, whole });
            }
            whole += 1;
        }
        Ok(Forgotten { told: whole, whole })
    }

    /// Removes a part of what has reached the end of its retention by the clock `now`: about
    /// [`STORE_SWEEP_ROWS_MAX`] rows.
    pub(crate) fn sweep(&mut self, retention: &Retention, now: u64) -> Result<SweptPart, Failure> {
        let horizon = time(now.saturating_sub(retention.access_audit.as_secs()));
        let mut left = STORE_SWEEP_ROWS_MAX;
        let mut remove = |statement: &str| -> Result<u64, Failure> {
            let removed = self.connection.prepare_cached(statement)?.execute(params![horizon, left as i64])?;
            left = left.saturating_sub(removed);
            Ok(removed as u64)
        };
        let (sessions, denials) = (remove(statement::SESSIONS)?, remove(statement::DENIALS)?);
        remove(statement::DEAD_KEYS)?;
        let longer = retention.access_audit.max(retention.admin_audit);
        let until = audit_horizon(now.saturating_sub(longer.as_secs()), oldest_held(self.connection)?);
        let entries = if left == 0 { 0 } else { self.prune(until, left as u64)? };
        let swept = Swept { sessions, denials, entries };
        if swept != Swept::default() {
            let body = json!({ "sessions": sessions, "denials": denials, "entries": entries });
            self.entry(self.now.unix_seconds, Kind::Sweep, "", None, body)?;
        }
        Ok(SweptPart { swept, is_more: entries >= left as u64 })
    }

    /// Keys that sealed something that is here, and that do not open it: they died with the machine's restart, or
    /// somebody took them away.
    pub(crate) fn lost_keys(&self) -> Result<Vec<DeadKey>, Failure> {
        let mut keys = self.connection.prepare(
            "SELECT tenant, day, substr(sealed, 13, 8) FROM session WHERE sealed IS NOT NULL \
             UNION SELECT tenant, day, substr(sealed, 13, 8) FROM denial WHERE sealed IS NOT NULL",
        )?;
        let rows = keys.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let keys: Vec<(String, u32, Vec<u8>)> = rows.collect::<Result<_, _>>()?;
        let mut one = self.connection.prepare(
            "SELECT id, sealed FROM session WHERE sealed IS NOT NULL AND day = ?1 AND tenant = ?2 \
             AND substr(sealed, 13, 8) = ?3 UNION ALL \
             SELECT id, sealed FROM denial WHERE sealed IS NOT NULL AND day = ?1 AND tenant = ?2 \
             AND substr(sealed, 13, 8) = ?3 LIMIT 1",
        )?;
        let mut lost = Vec::new();
        for (tenant, day, key) in keys {
            let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, Vec<u8>>(1)?));
            let found = one.query_row(params![day, tenant, key], row).optional()?;
            let is_gone = |(id, sealed): &([u8; 16], Vec<u8>)| {
                let opened = self.vault.open_sealed(sealed, id);
                matches!(opened, Err(OpenError::KeyGone { .. })) || Header::read(sealed).is_none()
            };
            if found.as_ref().is_some_and(is_gone) {
                let (tenant, day, key) = (tenant.into(), Day(day), Some(key));
                lost.push(DeadKey { tenant, day, key, late: None, is_told: false });
            }
        }
        Ok(lost)
    }

    /// How many sessions of the key, at most `most`, have no addresses any more.
    fn forget_sessions(&self, key: &DeadKey, most: usize) -> Result<usize, Failure> {
        let ids = self.sealed(key, [statement::SEALED_SESSIONS, statement::SESSIONS_OF_KEY], most)?;
        let mut blind = self.connection.prepare_cached(statement::FORGET_BLIND)?;
        let mut sealed = self.connection.prepare_cached(statement::FORGET_SESSION)?;
        for id in &ids {
            blind.execute([id.as_slice()])?;
            sealed.execute([id.as_slice()])?;
        }
        Ok(ids.len())
    }

    fn forget_denials(&self, key: &DeadKey, most: usize) -> Result<usize, Failure> {
        let ids = self.sealed(key, [statement::SEALED_DENIALS, statement::DENIALS_OF_KEY], most)?;
        let mut sealed = self.connection.prepare_cached(statement::FORGET_DENIAL)?;
        for id in &ids {
            sealed.execute([id.as_slice()])?;
        }
        Ok(ids.len())
    }

    fn sealed(&self, key: &DeadKey, [of_day, of_key]: [&str; 2], most: usize) -> Result<Vec<[u8; 16]>, Failure> {
        let mut query = self.connection.prepare_cached(if key.key.is_some() { of_key } else { of_day })?;
        let (day, tenant, most) = (key.day.0, &*key.tenant, most as i64);
        let id = |row: &rusqlite::Row<'_>| row.get(0);
        let rows = match &key.key {
            Some(key) => query.query_map(params![day, tenant, most, key], id)?,
            None => query.query_map(params![day, tenant, most], id)?,
        };
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Writes down that a key is dead, and since when it is seen to be: for whoever asks what it had sealed. The bans
    /// under a destroyed one go with it; those under a lost one run out.
    fn bury(&mut self, key: &DeadKey) -> Result<(), Failure> {
        let (tenant, day) = (&*key.tenant, key.day);
        if key.key.is_none() {
            self.connection.execute("DELETE FROM ban WHERE tenant = ? AND day = ?", params![tenant, day.0])?;
        }
        let insert = "INSERT INTO dead_key (tenant, day, died) VALUES (?, ?, ?) ON CONFLICT DO NOTHING";
        self.connection.execute(insert, params![tenant, day.0, time(self.now.unix_seconds)])?;
        let body = match key.late {
            Some(late) => json!({ "day": day.to_string(), "late_seconds": late.as_secs() }),
            None => json!({ "day": day.to_string(), "lost": true }),
        };
        self.entry(self.now.unix_seconds, Kind::KeyDestroyed, tenant, None, body)
    }
}

impl Store {
    /// What a whole sweep would remove.
    pub(crate) fn sweep_dry(&self, retention: &Retention, now: u64) -> Result<Swept, Failure> {
        let horizon = time(now.saturating_sub(retention.access_audit.as_secs()));
        let count = |query: &str| self.connection().query_row(query, [horizon], |row| row.get(0));
        let longer = retention.access_audit.max(retention.admin_audit);
        Ok(Swept {
            sessions: count(statement::SESSIONS_COUNT)?,
            denials: count(statement::DENIALS_COUNT)?,
            entries: self
                .prunable(audit_horizon(now.saturating_sub(longer.as_secs()), oldest_held(self.connection())?))?,
        })
    }

    /// The classes of the store, by the clock `now`.
    pub(crate) fn retention_status(&self, retention: &Retention, now: u64) -> Result<Vec<ClassStatus>, Failure> {
        let keys = self.vault().status();
        let ip = ClassStatus {
            class: Class::Ip,
            oldest: self.oldest_sealed()?,
            next: keys.iter().map(|key| key.dies).min(),
            late: keys.iter().map(|key| key.late).max().unwrap_or_default(),
            held: 0,
        };
        let of = |class, oldest: Option<u64>, retention: Duration| {
            let next = oldest.map(|at| at.saturating_add(retention.as_secs()));
            let late = Duration::from_secs(next.map_or(0, |next| now.saturating_sub(next)));
            ClassStatus { class, oldest, next, late, held: 0 }
        };
        let least = |query: &str| self.connection().query_row(query, [], |row| row.get::<_, u64>(0)).optional();
        let (ended, denied) = (least(statement::OLDEST_SESSION)?, least(statement::OLDEST_DENIAL)?);
        let access = ended.into_iter().chain(denied).min();
        // The chain is cut at its beginning, whatever the times of its entries.
        let admin = least("SELECT at FROM audit WHERE seq = (SELECT MIN(seq) FROM audit)")?;
        let (held, held_addresses) = self.held_count()?;
        let mut admin = of(Class::AdminAudit, admin, retention.access_audit.max(retention.admin_audit));
        if oldest_held(self.connection())?.is_some_and(|began| admin.oldest >= Some(began)) {
            // Nothing of the audit goes from there on.
            (admin.next, admin.late) = (None, Duration::ZERO);
        }
        let oldest = least("SELECT created FROM hold ORDER BY created LIMIT 1")?;
        let (next, late) = (None, Duration::ZERO);
        Ok(vec![
            ip,
            ClassStatus { held, ..of(Class::AccessAudit, access, retention.access_audit) },
            admin,
            ClassStatus { class: Class::LegalHold, oldest, next, late, held: held_addresses },
        ])
    }

    /// When the oldest record was made that has addresses: among those of the first day that has any, and later.
    fn oldest_sealed(&self) -> Result<Option<u64>, Failure> {
        let mut oldest: Option<u64> = None;
        for (table, at) in [("session", "began"), ("denial", "at")] {
            let day = format!("SELECT MIN(day) FROM {table} WHERE sealed IS NOT NULL");
            let Some(day) = self.connection().query_row(&day, [], |row| row.get::<_, Option<u32>>(0))? else {
                continue;
            };
            let first =
                format!("SELECT {at} FROM {table} WHERE {at} >= ? AND sealed IS NOT NULL ORDER BY {at} LIMIT 1");
            let found: Option<u64> =
                self.connection().query_row(&first, [time(Day(day).begins())], |row| row.get(0)).optional()?;
            oldest = oldest.into_iter().chain(found).min();
        }
        Ok(oldest)
    }
}

/// When the oldest session began that a legal hold keeps.
fn oldest_held(connection: &Connection) -> Result<Option<u64>, Failure> {
    let query = "SELECT MIN(began) FROM held_session JOIN session ON session.id = held_session.session";
    Ok(connection.query_row(query, [], |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema;

    #[test]
    fn no_sweep_reads_a_whole_table() {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::migrate(&mut connection).unwrap();
        for statement in statement::ALL.iter().chain(crate::audit::PRUNING) {
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).unwrap();
            for place in 1..=plan.parameter_count() {
                plan.raw_bind_parameter(place, 1).unwrap();
            }
            let mut rows = plan.raw_query();
            while let Some(row) = rows.next().unwrap() {
                let step: String = row.get("detail").unwrap();
                assert!(!step.starts_with("SCAN"), "{statement}: {step}");
            }
        }
    }
}
