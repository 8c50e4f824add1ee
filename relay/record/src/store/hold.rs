//! Legal holds: sessions that are not removed, and their addresses under the hold's own key.

use rusqlite::{OptionalExtension as _, Row, params};
use serde_json::json;
use sluice_base::{Pii, SessionId, TransportAddress};
use sluice_crypto::Plaintext;
use sluice_privacy::hold::{self, Addresses};
use sluice_privacy::{Class, Day};

use super::session::{Addresses as Sealed, time};
use super::{Failure, Store, Writer};
use crate::audit::Kind;
use crate::vault::{HoldId, HoldKeys};

/// The relay as a whole, where a tenant is asked for.
const RELAY: &str = "";

/// A hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hold {
    /// Its name.
    pub name: String,
    /// Since when, in seconds since the Unix epoch.
    pub created: u64,
    /// When it is to be looked at again; it holds all the same.
    pub until: Option<u64>,
    /// Whether that time has come.
    pub is_due: bool,
    /// Why; none where the relay's own long-lived key is gone.
    pub reason: Option<String>,
    /// Sessions that it holds.
    pub sessions: u64,
    /// Of these, those whose addresses it holds.
    pub addresses: u64,
    /// Whether its key is there.
    pub has_key: bool,
}

/// A session under a hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldSession {
    /// Its id.
    pub session: SessionId,
    /// Whose user it was.
    pub tenant: String,
    /// The user's pseudonym in records.
    pub person: String,
    /// When it began, in seconds since the Unix epoch.
    pub began: u64,
    /// When it ended; none where it has not.
    pub ended: Option<u64>,
    /// The client's address; none where it is not held or the hold's key is not there.
    pub client: Option<TransportAddress>,
    /// The relayed addresses.
    pub relayed: Vec<TransportAddress>,
}

/// A session that a hold is going to have.
#[derive(Clone, Debug)]
pub(crate) struct HeldPart {
    pub(crate) session: SessionId,
    pub(crate) addresses: Addresses,
    /// These, under the key of the hold.
    sealed: Option<Vec<u8>>,
}

/// Who wants a hold, and why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cause<'a> {
    pub(crate) role: &'a str,
    pub(crate) uid: u32,
    pub(crate) reason: &'a str,
}

impl Writer<'_> {
    /// Writes a hold whose key has been made.
    pub(crate) fn hold(
        &mut self,
        (id, name): (HoldId, &str),
        parts: &[HeldPart],
        until: Option<u64>,
        cause: Cause<'_>,
    ) -> Result<(), Failure> {
        let created = self.now.unix_seconds;
        let reason = self.vault.seal_long(RELAY, Class::AdminAudit, &id, cause.reason.as_bytes());
        let reason = reason.map_err(Failure::sealing)?;
        let insert = "INSERT INTO hold (id, name, created, until, reason) VALUES (?, ?, ?, ?, ?)";
        let values = params![id.as_slice(), name, time(created), until.map(time), reason];
        self.connection.execute(insert, values)?;
        let insert = "INSERT INTO held_session (hold, session, sealed) VALUES (?, ?, ?)";
        let mut insert = self.connection.prepare(insert)?;
        for part in parts {
            insert.execute(params![id.as_slice(), part.session.0.as_slice(), part.sealed])?;
        }
        let unreadable = parts.iter().filter(|part| part.addresses != Addresses::Held).count();
        let sessions: Vec<String> = parts.iter().map(|part| part.session.to_string()).collect();
        let mut body = json!({
            "hold": name, "reason": cause.reason, "role": cause.role, "uid": cause.uid,
            "sessions": sessions, "unreadable": unreadable,
        });
        if let Some(until) = until {
            body["until"] = until.into();
        }
        self.entry(created, Kind::HoldAdded, RELAY, None, body)
    }

    /// Removes a hold, and what it has of addresses with it. How many sessions it had.
    pub(crate) fn lift_hold(&mut self, (id, name): (HoldId, &str), cause: Cause<'_>) -> Result<u64, Failure> {
        let sessions = "DELETE FROM held_session WHERE hold = ?";
        let sessions = self.connection.execute(sessions, [id.as_slice()])? as u64;
        self.connection.execute("DELETE FROM hold WHERE id = ?", [id.as_slice()])?;
        let Cause { role, uid, reason } = cause;
        let body = json!({ "hold": name, "reason": reason, "role": role, "uid": uid, "sessions": sessions });
        self.entry(self.now.unix_seconds, Kind::HoldLifted, RELAY, None, body)?;
        Ok(sessions)
    }
}

impl Store {
    /// The ids and names of all holds.
    pub(crate) fn hold_names(&self) -> Result<Vec<(HoldId, String)>, Failure> {
        let mut query = self.connection().prepare_cached("SELECT id, name FROM hold ORDER BY created, name")?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// All holds, the oldest first.
    pub(crate) fn holds(&self, keys: &HoldKeys, now: u64) -> Result<Vec<Hold>, Failure> {
        let mut query = self.connection().prepare_cached(
            "SELECT id, name, created, until, reason, COUNT(session), COUNT(sealed) \
             FROM hold LEFT JOIN held_session ON hold = id GROUP BY id ORDER BY created, name",
        )?;
        let row = |row: &Row<'_>| {
            let (id, until): (HoldId, Option<u64>) = (row.get(0)?, row.get(3)?);
            let reason: Vec<u8> = row.get(4)?;
            let reason = self.vault().open_long(&reason, Class::AdminAudit, &id).ok();
            Ok(Hold {
                name: row.get(1)?,
                created: row.get(2)?,
                until,
                is_due: hold::is_due(until, now),
                reason: reason.map(|text| String::from_utf8_lossy(&text).into_owned()),
                sessions: row.get(5)?,
                addresses: row.get(6)?,
                has_key: keys.has(&id),
            })
        };
        let holds = query.query_map([], row)?;
        Ok(holds.collect::<Result<_, _>>()?)
    }

    /// Those of the sessions that are not there, or have not begun yet.
    pub(crate) fn without_session(&self, sessions: &[SessionId]) -> Result<Vec<SessionId>, Failure> {
        let mut query = self.connection().prepare_cached("SELECT 1 FROM session WHERE id = ? AND state > 0")?;
        let mut missing = Vec::new();
        for session in sessions {
            if query.query_row([session.0.as_slice()], |_| Ok(())).optional()?.is_none() {
                missing.push(*session);
            }
        }
        Ok(missing)
    }

    /// The sessions of a hold, by their beginning.
    pub(crate) fn held_sessions(&self, keys: &HoldKeys, id: &HoldId) -> Result<Vec<HeldSession>, Failure> {
        let mut query = self.connection().prepare_cached(
            "SELECT session.id, tenant, person, began, ended, held_session.sealed \
             FROM held_session JOIN session ON session.id = held_session.session WHERE hold = ? ORDER BY began",
        )?;
        let row = |row: &Row<'_>| {
            let session = SessionId(row.get(0)?);
            let sealed: Option<Vec<u8>> = row.get(5)?;
            let text = sealed.and_then(|sealed| keys.open_sealed(id, &sealed, &session.0));
            let addresses = text.and_then(|text| serde_json::from_slice::<Sealed>(&text).ok());
            let client = addresses.as_ref().map(|addresses| Pii::new(addresses.client));
            let relayed = addresses.into_iter().flat_map(|addresses| addresses.relayed).map(Pii::new).collect();
            let (tenant, person, began, ended) = (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
            Ok(HeldSession { session, tenant, person, began, ended, client, relayed })
        };
        let sessions = query.query_map([id.as_slice()], row)?;
        Ok(sessions.collect::<Result<_, _>>()?)
    }

    /// What a hold whose key has been made can have of a session.
    pub(crate) fn part_of_hold(&self, keys: &HoldKeys, id: &HoldId, session: SessionId) -> Result<HeldPart, Failure> {
        let query = "SELECT tenant, day, sealed FROM session WHERE id = ?";
        let row = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, Option<u32>>(1)?, row.get(2)?));
        let mut query = self.connection().prepare_cached(query)?;
        let (tenant, day, sealed) = query.query_row([session.0.as_slice()], row)?;
        let text = self.addresses(keys, &session, sealed)?;
        let addresses = Addresses::of(day.map(Day), text.is_some());
        let seal = |text: Plaintext| keys.seal(id, &tenant, &session.0, &text);
        let sealed = text.map(seal).transpose().map_err(Failure::sealing)?;
        Ok(HeldPart { session, addresses, sealed })
    }

    /// The addresses of a session, while its day's key lives or another hold has them.
    fn addresses(
        &self,
        keys: &HoldKeys,
        session: &SessionId,
        sealed: Option<Vec<u8>>,
    ) -> Result<Option<Plaintext>, Failure> {
        if let Some(text) = sealed.and_then(|sealed| self.vault().open_sealed(&sealed, &session.0).ok()) {
            return Ok(Some(text));
        }
        let query = "SELECT hold, sealed FROM held_session WHERE session = ? AND sealed IS NOT NULL";
        let mut query = self.connection().prepare_cached(query)?;
        let rows = query.query_map([session.0.as_slice()], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?)))?;
        for row in rows {
            let (other, sealed) = row?;
            if let Some(text) = keys.open_sealed(&other, &sealed, &session.0) {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }

    /// How many sessions are held, and in how many of these rows are addresses.
    pub(crate) fn held_count(&self) -> Result<(u64, u64), Failure> {
        let query = "SELECT COUNT(DISTINCT session), COUNT(sealed) FROM held_session";
        Ok(self.connection().query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?)))?)
    }
}
