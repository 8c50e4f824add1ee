//! What administrators are answered about legal holds.

use sluice_admin::{Caller, Told, WantedHold, api};
use sluice_base::SessionId;
use sluice_privacy::hold::Addresses;
use sluice_record::plane::{Asker, Request, Response};
use sluice_record::store::{HeldSession, Hold};

use super::{Desk, ROLE, uid, unexpected};

/// What no hold reaches.
const NOT_HELD: &str = "what was shipped to sinks before, and every copy of it: that becomes unreadable with the keys \
                        of its days all the same";

impl Desk {
    /// Puts sessions under a hold.
    pub(crate) async fn hold(&self, caller: Caller, wanted: WantedHold) -> Told<api::NewHold> {
        tracing::info!(uid = caller.uid, "told to put sessions under a legal hold");
        let WantedHold { name, sessions, until, reason } = wanted;
        let request = Request::HoldAdd { name: name.clone(), sessions, until, asker: asker(caller, reason) };
        match self.ask(request).await? {
            Response::Held(held) => Ok(api::NewHold {
                name,
                sessions: held.into_iter().map(newly_held).collect(),
                not_held: NOT_HELD.to_owned(),
            }),
            _ => Err(unexpected()),
        }
    }

    /// The holds.
    pub(crate) async fn holds(&self) -> Told<api::Holds> {
        match self.ask(Request::HoldList).await? {
            Response::Holds(holds) => Ok(api::Holds { holds: holds.into_iter().map(hold).collect() }),
            _ => Err(unexpected()),
        }
    }

    /// Lifts a hold.
    pub(crate) async fn lift_hold(&self, caller: Caller, named: api::NamedHold) -> Told<api::LiftedHold> {
        tracing::info!(uid = caller.uid, "told to lift a legal hold");
        let api::NamedHold { name, reason } = named;
        match self.ask(Request::HoldLift { name: name.clone(), asker: asker(caller, reason) }).await? {
            Response::HoldLifted(sessions) => Ok(api::LiftedHold { name, sessions }),
            _ => Err(unexpected()),
        }
    }

    /// The sessions of a hold, with the addresses that it has.
    pub(crate) async fn read_hold(&self, caller: Caller, named: api::NamedHold) -> Told<api::Held> {
        self.may_look_up()?;
        tracing::info!(uid = caller.uid, "told to look up the addresses of a legal hold");
        let api::NamedHold { name, reason } = named;
        match self.ask(Request::HoldRead { name, asker: asker(caller, reason) }).await? {
            Response::HeldSessions(sessions) => Ok(api::Held { sessions: sessions.iter().map(held).collect() }),
            _ => Err(unexpected()),
        }
    }
}

fn asker(caller: Caller, reason: String) -> Asker {
    Asker { role: ROLE.to_owned(), uid: uid(caller), reason }
}

fn newly_held((session, addresses): (SessionId, Addresses)) -> api::NewlyHeld {
    let addresses = match addresses {
        Addresses::Held => "held",
        Addresses::KeyGone(_) => "key-gone",
        Addresses::NotKept => "not-kept",
    };
    api::NewlyHeld { session: session.to_string(), addresses: addresses.to_owned() }
}

fn hold(hold: Hold) -> api::Hold {
    api::Hold {
        name: hold.name,
        created_unix_seconds: hold.created,
        until_unix_seconds: hold.until,
        due: hold.is_due,
        reason: hold.reason,
        sessions: hold.sessions,
        addresses: hold.addresses,
        key: hold.has_key,
    }
}

fn held(session: &HeldSession) -> api::HeldSession {
    api::HeldSession {
        session: session.session.to_string(),
        tenant: session.tenant.clone(),
        user: session.person.clone(),
        client: session.client.map(|client| client.expose().to_string()),
        relayed: session.relayed.iter().map(|relayed| relayed.expose().to_string()).collect(),
        began_unix_seconds: session.began,
        ended_unix_seconds: session.ended,
    }
}
