//! Whose an address was.

use std::net::IpAddr;

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use sluice_base::limits::LOOKUP_SESSIONS_MAX;
use sluice_base::{Pii, SessionId};
use sluice_privacy::Day;

use super::session::{Addresses, is_address, time, with_port};
use super::{Failure, Store};
use crate::vault::Vault;

/// What was looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) address: Pii<IpAddr>,
    pub(crate) port: Option<u16>,
    /// Seconds since the Unix epoch, both included.
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// The sessions, by their beginning; at most [`LOOKUP_SESSIONS_MAX`].
    pub sessions: Vec<FoundSession>,
    /// There are more of them.
    pub more: bool,
    /// Days asked for of which there are sessions, and of which nobody can say any longer whose address was whose.
    pub gone: Vec<GoneDay>,
}

/// A session of the address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundSession {
    /// Its id.
    pub session: SessionId,
    /// Whose user it was.
    pub tenant: String,
    /// The user's pseudonym in records.
    pub person: String,
    /// What the address was in it.
    pub role: Role,
    /// When it began, in seconds since the Unix epoch.
    pub began: u64,
    /// When it ended; none where it has not.
    pub ended: Option<u64>,
    /// Bytes of payload that it relayed, both ways; none before its end.
    pub bytes: Option<u64>,
}

/// What an address was in a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The client's.
    Client,
    /// The relayed one: what its peers saw.
    Relayed,
}

/// A day whose key is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GoneDay {
    /// The day.
    pub day: Day,
    /// Whose key it was.
    pub tenant: String,
    /// When it was destroyed or found gone, in seconds since the Unix epoch; none where that is not known.
    pub died: Option<u64>,
}

impl Store {
    /// The sessions of an address, under every key that lives. With a port it is looked for among relayed transport
    /// addresses too.
    pub(crate) fn lookup(&self, wanted: &Wanted) -> Result<Found, Failure> {
        let (vault, connection) = (self.vault(), self.connection());
        let mut found = Found::default();
        let indexes = vault.indexes(wanted.address);
        for (_, _, blind) in &indexes {
            of_blind(connection, vault, wanted, Role::Client, blind, &mut found)?;
            if let Some(port) = wanted.port {
                of_blind(connection, vault, wanted, Role::Relayed, &with_port(blind, port), &mut found)?;
            }
        }
        found.sessions.sort_by_key(|session| (session.began, session.session));
        found.sessions.dedup_by_key(|session| session.session);
        found.more = found.sessions.len() > LOOKUP_SESSIONS_MAX;
        found.sessions.truncate(LOOKUP_SESSIONS_MAX);
        let is_alive = |tenant: &str, day| indexes.iter().any(|(t, d, _)| &**t == tenant && *d == day);
        found.gone = gone(connection, wanted, is_alive)?;
        Ok(found)
    }
}

fn of_blind(
    connection: &Connection,
    vault: &Vault,
    wanted: &Wanted,
    role: Role,
    blind: &[u8; 16],
    found: &mut Found,
) -> Result<(), Failure> {
    let mut query = connection.prepare_cached(
        "SELECT session.id, tenant, person, began, ended, bytes_from_client + bytes_to_client, sealed \
         FROM session_address JOIN session ON session.id = session_address.session \
         WHERE blind = ? AND began <= ? AND COALESCE(ended, began) >= ? ORDER BY began LIMIT ?",
    )?;
    let (from, to, limit) = (time(wanted.from), time(wanted.to), LOOKUP_SESSIONS_MAX + 1);
    let rows = query.query_map(params![blind.as_slice(), to, from, limit as i64], |row| session(row, role))?;
    for row in rows {
        let (session, sealed) = row?;
        if is_the_one(vault, wanted, role, &session, sealed.as_deref()) {
            found.sessions.push(session);
        }
    }
    Ok(())
}

/// Whether the sealed part says the same as the index, and has the port that was asked for.
fn is_the_one(vault: &Vault, wanted: &Wanted, role: Role, session: &FoundSession, sealed: Option<&[u8]>) -> bool {
    let opened = sealed.and_then(|sealed| vault.open_sealed(sealed, &session.session.0).ok());
    let addresses = opened.and_then(|text| serde_json::from_slice::<Addresses>(&text).ok());
    addresses.is_some_and(|addresses| {
        let is_wanted = |address| is_address(address, &wanted.address, wanted.port);
        match role {
            Role::Client => is_wanted(&addresses.client),
            Role::Relayed => addresses.relayed.iter().any(is_wanted),
        }
    })
}

fn session(row: &Row<'_>, role: Role) -> rusqlite::Result<(FoundSession, Option<Vec<u8>>)> {
    let session = FoundSession {
        session: SessionId(row.get(0)?),
        tenant: row.get(1)?,
        person: row.get(2)?,
        role,
        began: row.get(3)?,
        ended: row.get(4)?,
        bytes: row.get(5)?,
    };
    Ok((session, row.get(6)?))
}

/// Days of the time asked for of which there are sessions whose key does not live.
fn gone(
    connection: &Connection,
    wanted: &Wanted,
    is_alive: impl Fn(&str, Day) -> bool,
) -> Result<Vec<GoneDay>, Failure> {
    let mut query = connection
        .prepare_cached("SELECT DISTINCT day, tenant FROM session WHERE day BETWEEN ? AND ? ORDER BY day, tenant")?;
    let days = params![Day::of(wanted.from).0, Day::of(wanted.to).0];
    let rows = query.query_map(days, |row| Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?)))?;
    let mut died = connection.prepare_cached("SELECT died FROM dead_key WHERE tenant = ? AND day = ?")?;
    let mut gone = Vec::new();
    for row in rows {
        let (day, tenant) = row?;
        let died = died.query_row(params![tenant, day], |row| row.get(0)).optional()?;
        // A day may have had two keys, where the machine was started in it: then a part of it is gone.
        if died.is_some() || !is_alive(&tenant, Day(day)) {
            gone.push(GoneDay { day: Day(day), tenant, died });
        }
    }
    Ok(gone)
}
