//! What a worker tells becomes rows.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rusqlite::{OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sluice_base::event::{Began, Denied, Ended, Tagged};
use sluice_base::{Pii, SessionId, TransportAddress};
use sluice_crypto::Zeroizing;
use sluice_privacy::Day;
use sluice_privacy::plan::{Leaves, Written};
use sluice_privacy::pseudonym::Purpose;
use sluice_privacy::schema::Destination;
use sluice_privacy::seal::Header;

use super::{Failure, Writer};
use crate::audit::{Draft, Kind};
use crate::tenant::Tenant;
use crate::vault::{SealError, Vault};

/// A session whose admission is written and that has not begun.
const ADMITTED: i64 = 0;
/// It began.
const BEGAN: i64 = 1;
/// It is over.
const ENDED: i64 = 2;

/// Who came: what an admission and a beginning have in common.
pub(crate) struct Arrival<'a> {
    pub(crate) session: SessionId,
    pub(crate) tenant: &'a Tenant,
    pub(crate) user: &'a Pii<Arc<[u8]>>,
    pub(crate) client: TransportAddress,
    pub(crate) relayed: [Option<TransportAddress>; 2],
    pub(crate) unix_seconds: u64,
    /// When it was told: the addresses are sealed under the key of that day, however long the disk took nothing since.
    pub(crate) told: u64,
}

/// What is sealed of a session: the whole of it that points to a device.
#[derive(Serialize, Deserialize)]
pub(crate) struct Addresses {
    pub(crate) client: SocketAddr,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) relayed: Vec<SocketAddr>,
}

/// A sealed part, the day of its key and the blind indexes beside it.
struct Sealed {
    day: u32,
    text: Vec<u8>,
    blind: Vec<[u8; 16]>,
}

impl Writer<'_> {
    /// Writes an admission: a session that may begin.
    pub(crate) fn admitted(&mut self, arrival: &Arrival<'_>) -> Result<(), Failure> {
        self.insert(arrival, ADMITTED)
    }

    /// Writes a beginning, into the row of its admission where there is one.
    pub(crate) fn began(&mut self, event: &Began, tenant: &Tenant) -> Result<(), Failure> {
        let Began { session, user, client, relayed, unix_seconds, .. } = event;
        let (session, client, relayed) = (*session, *client, *relayed);
        let (unix_seconds, told) = (*unix_seconds, *unix_seconds);
        let arrival = Arrival { session, tenant, user, client, relayed, unix_seconds, told };
        let state = self.state(session)?;
        match state {
            None => self.insert(&arrival, BEGAN),
            Some(ADMITTED) => self.address(&arrival),
            // Its end was written first, or it is told twice.
            Some(_) => Ok(()),
        }
    }

    /// Writes an end, into the row of its beginning where there is one.
    pub(crate) fn ended(&mut self, event: &Ended, tenant: &Tenant) -> Result<(), Failure> {
        let seconds = event.age.as_secs();
        if self.state(event.session)?.is_none() {
            let began = event.unix_seconds.saturating_sub(seconds);
            let (session, user, client) = (event.session, &event.user, event.client);
            let (relayed, unix_seconds, told) = ([None; 2], began, event.unix_seconds);
            let arrival = Arrival { session, tenant, user, client, relayed, unix_seconds, told };
            self.insert(&arrival, BEGAN)?;
        }
        let update = "UPDATE session SET state = ?, ended = ?, reason = ?, seconds = ?, packets_from_client = ?, \
                      bytes_from_client = ?, packets_to_client = ?, bytes_to_client = ?, permissions = ?, channels = ? \
                      WHERE id = ?";
        let traffic = &event.traffic;
        let reason = event.reason.text();
        let leaves = tenant.leaves(Destination::Store, "session", &event.session.0);
        let kept = |field: &str, figure: u64| leaves.filter(|leaves| leaves.keeps(field)).map(|_| time(figure));
        self.connection.prepare_cached(update)?.execute(params![
            ENDED,
            time(event.unix_seconds),
            reason,
            kept("seconds", seconds),
            kept("packets_from_client", traffic.packets_from_client),
            kept("bytes_from_client", traffic.bytes_from_client),
            kept("packets_to_client", traffic.packets_to_client),
            kept("bytes_to_client", traffic.bytes_to_client),
            kept("permissions", event.permissions.into()),
            kept("channels", event.channels.into()),
            event.session.0.as_slice(),
        ])?;
        let bytes = traffic.bytes_from_client.saturating_add(traffic.bytes_to_client);
        let person = self.person(&tenant.name, &event.user, event.unix_seconds)?;
        let body = json!({ "person": person, "reason": reason, "seconds": seconds, "bytes": bytes });
        self.entry(event.unix_seconds, Kind::Disconnect, &tenant.name, Some(event.session), body)
    }

    /// Writes a refusal. One whose admission had been written is thereby over.
    pub(crate) fn denied(&mut self, event: &Denied, tenant: &Tenant, id: [u8; 16]) -> Result<(), Failure> {
        let person = self.person(&tenant.name, &event.user, event.unix_seconds)?;
        let (method, code) = (event.method.text(), event.code.number());
        let leaves = tenant.leaves(Destination::Store, "denial", &id);
        let addresses = Addresses::of(leaves, "sealed", event.client, [None; 2]);
        let sealed = self.seal(tenant, event.unix_seconds, &id, addresses)?;
        let (day, text, blind) = columns(sealed.as_ref());
        let blind = blind.filter(|_| leaves.is_some_and(|leaves| leaves.keeps("blind")));
        let insert = "INSERT INTO denial (id, tenant, person, session, at, method, code, day, sealed, blind) \
                      VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let session = event.session.map(|session| session.0);
        let session = session.as_ref().map(<[u8; 16]>::as_slice);
        let at = time(event.unix_seconds);
        let values = params![id.as_slice(), &*tenant.name, person, session, at, method, code, day, text, blind];
        self.connection.prepare_cached(insert)?.execute(values)?;
        if let Some(session) = event.session {
            self.not_begun(session, event.unix_seconds, "denied")?;
        }
        let body = json!({ "person": person, "method": method, "code": code });
        self.entry(event.unix_seconds, Kind::Denied, &tenant.name, event.session, body)
    }

    /// Writes down what a plugin wants to have remembered.
    pub(crate) fn tagged(&mut self, event: &Tagged, tenant: &Tenant) -> Result<(), Failure> {
        let Tagged { plugin, hook, allowed, tags, .. } = event;
        let verdict = if *allowed { "allow" } else { "deny" };
        let body = json!({ "plugin": &**plugin, "hook": hook, "verdict": verdict, "tags": tags.join(" ") });
        self.entry(event.unix_seconds, Kind::Tagged, &tenant.name, Some(event.session), body)
    }

    /// Ends a session that was admitted and does not begin. One that did begin is left alone.
    pub(crate) fn not_begun(&mut self, session: SessionId, unix_seconds: u64, reason: &str) -> Result<(), Failure> {
        let update = "UPDATE session SET state = ?, ended = ?, reason = ?, seconds = 0 WHERE id = ? AND state = ?";
        let values = params![ENDED, time(unix_seconds), reason, session.0.as_slice(), ADMITTED];
        self.connection.prepare_cached(update)?.execute(values)?;
        Ok(())
    }

    /// Ends the sessions that a former process left open. How many there were.
    pub(crate) fn close_lost(&mut self) -> Result<usize, Failure> {
        let mut statement = self.connection.prepare("SELECT id, tenant FROM session WHERE ended IS NULL")?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, String>(1)?)))?;
        let lost: Vec<([u8; 16], String)> = rows.collect::<Result<_, _>>()?;
        let at = self.now.unix_seconds;
        let update = "UPDATE session SET state = ?, ended = ?, reason = 'lost' WHERE ended IS NULL";
        self.connection.execute(update, params![ENDED, time(at)])?;
        for (id, tenant) in &lost {
            let body = json!({ "reason": "lost" });
            self.entry(at, Kind::Disconnect, tenant, Some(SessionId(*id)), body)?;
        }
        Ok(lost.len())
    }

    fn person(&self, tenant: &str, user: &Pii<Arc<[u8]>>, at: u64) -> Result<String, Failure> {
        self.vault.user_pseudonym(tenant, user, Purpose::Records, at).map_err(Failure::sealing)
    }

    fn state(&self, session: SessionId) -> Result<Option<i64>, Failure> {
        let mut query = self.connection.prepare_cached("SELECT state FROM session WHERE id = ?")?;
        Ok(query.query_row([session.0.as_slice()], |row| row.get(0)).optional()?)
    }

    fn insert(&mut self, arrival: &Arrival<'_>, state: i64) -> Result<(), Failure> {
        let (id, tenant) = (arrival.session.0, &*arrival.tenant.name);
        let person = self.person(tenant, arrival.user, arrival.unix_seconds)?;
        let sealed = self.seal_of_session(arrival)?;
        let (day, text, _) = columns(sealed.as_ref());
        let insert = "INSERT INTO session (id, tenant, person, state, day, sealed, began) \
                      VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING";
        let began = time(arrival.unix_seconds);
        let values = params![id.as_slice(), tenant, person, state, day, text, began];
        if self.connection.prepare_cached(insert)?.execute(values)? == 0 {
            return Ok(());
        }
        self.put_blind(arrival, sealed.as_ref())?;
        let body = json!({ "person": person });
        self.entry(arrival.unix_seconds, Kind::Connect, tenant, Some(arrival.session), body)
    }

    /// The addresses of a session that has begun take the place of those of its admission.
    fn address(&mut self, arrival: &Arrival<'_>) -> Result<(), Failure> {
        let id = arrival.session.0;
        let sealed = self.seal_of_session(arrival)?;
        let (day, text, _) = columns(sealed.as_ref());
        let update = "UPDATE session SET state = ?, day = ?, sealed = ? WHERE id = ?";
        self.connection.prepare_cached(update)?.execute(params![BEGAN, day, text, id.as_slice()])?;
        self.connection.prepare_cached("DELETE FROM session_address WHERE session = ?")?.execute([id.as_slice()])?;
        self.put_blind(arrival, sealed.as_ref())
    }

    fn put_blind(&self, arrival: &Arrival<'_>, sealed: Option<&Sealed>) -> Result<(), Failure> {
        let session = arrival.session.0;
        let leaves = arrival.tenant.leaves(Destination::Store, "session_address", &session);
        if !leaves.is_some_and(|leaves| leaves.keeps("blind")) {
            return Ok(());
        }
        let insert = "INSERT INTO session_address (blind, session) VALUES (?, ?) ON CONFLICT DO NOTHING";
        let mut insert = self.connection.prepare_cached(insert)?;
        for blind in sealed.iter().flat_map(|sealed| &sealed.blind) {
            insert.execute([blind.as_slice(), session.as_slice()])?;
        }
        Ok(())
    }

    fn seal_of_session(&mut self, arrival: &Arrival<'_>) -> Result<Option<Sealed>, Failure> {
        let id = arrival.session.0;
        let leaves = arrival.tenant.leaves(Destination::Store, "session", &id);
        let addresses = Addresses::of(leaves, "sealed", arrival.client, arrival.relayed);
        self.seal(arrival.tenant, arrival.told, &id, addresses)
    }

    /// Seals addresses under the key of the day of `told`, with the index of each; none where the tenant's may not be
    /// kept, or where that day is over and its key is not there. What is not sealed is not found by an index either.
    fn seal(
        &mut self,
        tenant: &Tenant,
        told: u64,
        id: &[u8; 16],
        addresses: Option<Addresses>,
    ) -> Result<Option<Sealed>, Failure> {
        let Some(addresses) = addresses else { return Ok(None) };
        let (day, tenant) = (Day::of(told), &*tenant.name);
        let text = match sealed_addresses(self.vault, tenant, day, id, &addresses) {
            Ok(text) => text,
            Err(SealError::NotKept) => return Ok(None),
            Err(SealError::DayOver(_)) => {
                self.addresses_lost += 1;
                return Ok(None);
            }
            Err(e) => return Err(Failure::sealing(e)),
        };
        let index = |address: &SocketAddr| self.vault.index_of(tenant, day, Pii::new(address.ip()));
        let of_client = index(&addresses.client);
        let of_relayed = addresses.relayed.iter().filter_map(|a| Some(with_port(&index(a)?, a.port())));
        let blind = of_client.into_iter().chain(of_relayed).collect();
        let day = Header::read(&text).map_or(0, |header| header.day.0);
        Ok(Some(Sealed { day, text, blind }))
    }

    pub(super) fn entry(
        &mut self,
        at: u64,
        kind: Kind,
        tenant: &str,
        session: Option<SessionId>,
        body: serde_json::Value,
    ) -> Result<(), Failure> {
        self.audit(&Draft { at, kind, tenant, session, body })
    }
}

impl Addresses {
    /// What a plan leaves of addresses in that field; of a port nothing, where it leaves less than the whole.
    pub(crate) fn of(
        leaves: Option<Leaves<'_>>,
        field: &str,
        client: TransportAddress,
        relayed: [Option<TransportAddress>; 2],
    ) -> Option<Self> {
        let left: &dyn Fn(SocketAddr) -> SocketAddr = match leaves?.of(field) {
            Written::Value => &|address| address,
            Written::Truncated(prefix) => &move |address| SocketAddr::new(prefix.of(address.ip()), 0),
            _ => return None,
        };
        let relayed = relayed.iter().flatten().map(|a| left(*a.expose())).collect();
        Some(Addresses { client: left(*client.expose()), relayed })
    }
}

/// Addresses, sealed under the key of their day for the record `id`.
///
/// # Errors
/// The tenant keeps none, or there is no key.
pub(crate) fn sealed_addresses(
    vault: &Vault,
    tenant: &str,
    day: Day,
    id: &[u8; 16],
    addresses: &Addresses,
) -> Result<Vec<u8>, SealError> {
    let text = Zeroizing::new(serde_json::to_vec(addresses).unwrap_or_default());
    vault.seal_of(tenant, day, id, &text)
}

/// The blind index of a relayed transport address, out of that of its address: every session has the same few of these,
/// so that the port alone tells one from another.
pub(super) fn with_port(blind: &[u8; 16], port: u16) -> [u8; 16] {
    let whole = sluice_crypto::sha256(&[b"sluice relayed 1", blind, &port.to_be_bytes()]);
    let mut out = [0; 16];
    out.copy_from_slice(&whole[..16]);
    out
}

/// Whether an address is `ip`, the v4-mapped form being the IPv4 one.
pub(super) fn is_address(address: &SocketAddr, ip: &Pii<IpAddr>, port: Option<u16>) -> bool {
    address.ip().to_canonical() == ip.expose().to_canonical() && port.is_none_or(|port| port == address.port())
}

/// An unsigned number as the database has it.
pub(super) fn time(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

type Columns<'a> = (Option<u32>, Option<&'a [u8]>, Option<&'a [u8]>);

fn columns(sealed: Option<&Sealed>) -> Columns<'_> {
    let blind = sealed.and_then(|sealed| sealed.blind.first()).map(<[u8; 16]>::as_slice);
    (sealed.map(|sealed| sealed.day), sealed.map(|sealed| sealed.text.as_slice()), blind)
}
