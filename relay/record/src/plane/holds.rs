//! Legal holds, as an administrator asks for them.

use serde_json::json;
use sluice_base::SessionId;
use sluice_privacy::Class;
use sluice_privacy::class::Purpose;
use sluice_privacy::hold::Wanted;

use super::message::{Asker, RequestError, Response};
use super::requests::{Answered, check, not_recorded, unreadable};
use super::stats::{add, set};
use super::thread::Keeper;
use crate::audit::{Draft, Kind};
use crate::store::Cause;
use crate::vault::HoldId;

impl Keeper {
    /// Makes a key, and then the hold that it is of.
    pub(super) fn hold(
        &mut self,
        name: &str,
        mut sessions: Vec<SessionId>,
        until: Option<u64>,
        asker: &Asker,
    ) -> Answered {
        check(asker)?;
        sessions.sort_unstable();
        sessions.dedup();
        let others = self.store.hold_names().map_err(|failure| unreadable(&failure))?;
        let wanted = Wanted { name, sessions: sessions.len(), until };
        let now = self.platform.moment().unix_seconds;
        let refused = wanted.check(others.iter().map(|(_, name)| name.as_str()), now);
        refused.map_err(|refusal| RequestError::Wrong(refusal.to_string()))?;
        let missing = self.store.without_session(&sessions).map_err(|failure| unreadable(&failure))?;
        if let Some(first) = missing.first() {
            let told = format!("there is no session {first}, and {} of them all: nothing is held", missing.len());
            return Err(RequestError::Wrong(told));
        }
        let mut id = [0; 16];
        self.platform.random(&mut id);
        let made = self.hold_keys.make(id);
        made.map_err(|why| RequestError::NotRecorded(format!("no key can be made for the hold: {why}")))?;
        let part = |session| self.store.part_of_hold(&self.hold_keys, &id, session);
        let parts: Result<Vec<_>, _> = sessions.into_iter().map(part).collect();
        let parts = match parts {
            Ok(parts) => parts,
            Err(failure) => {
                self.hold_keys.destroy(&id);
                return Err(unreadable(&failure));
            }
        };
        if let Err(trouble) = self.write(|writer| writer.hold((id, name), &parts, until, cause(asker))) {
            self.hold_keys.leave(&id);
            return Err(not_recorded(trouble));
        }
        self.hold_keys.keep(&id);
        self.count_holds();
        Ok(Response::Held(parts.into_iter().map(|part| (part.session, part.addresses)).collect()))
    }

    pub(super) fn holds(&self) -> Answered {
        let holds = self.store.holds(&self.hold_keys, self.platform.moment().unix_seconds);
        holds.map(Response::Holds).map_err(|failure| unreadable(&failure))
    }

    /// Removes a hold, destroys its key, and has what is overdue by now removed at once.
    pub(super) fn lift_hold(&mut self, name: &str, asker: &Asker) -> Answered {
        check(asker)?;
        let id = self.named(name)?;
        let doubted = self.hold_keys.doubt(&id);
        doubted.map_err(|why| RequestError::NotRecorded(format!("the key of the hold cannot be destroyed: {why}")))?;
        match self.write(|writer| writer.lift_hold((id, name), cause(asker))) {
            Ok(sessions) => {
                if !self.hold_keys.destroy(&id) {
                    tracing::error!(
                        "the key of a lifted hold cannot be destroyed: look at `holds` in the state directory"
                    );
                }
                self.must_truncate = true;
                self.count_holds();
                self.sweep_soon();
                Ok(Response::HoldLifted(sessions))
            }
            // A commit that failed may be there after a crash all the same: the key stays pending.
            Err(trouble) => Err(not_recorded(trouble)),
        }
    }

    /// Looks first, writes down that it did, and only then answers.
    pub(super) fn read_hold(&mut self, name: &str, asker: &Asker) -> Answered {
        if !self.lookup || !Class::LegalHold.permits(Purpose::Claims) {
            return Err(RequestError::NotAllowed("looking up addresses is not allowed: privacy.lookup is false"));
        }
        check(asker)?;
        let id = self.named(name)?;
        let sessions = self.store.held_sessions(&self.hold_keys, &id).map_err(|failure| unreadable(&failure))?;
        let at = self.platform.moment().unix_seconds;
        let body = json!({
            "what": "lookup --hold",
            "class": Class::LegalHold.name(),
            "role": asker.role,
            "uid": asker.uid,
            "reason": asker.reason,
            "hold": name,
            "from": sessions.iter().map(|session| session.began).min().unwrap_or(at),
            "to": at,
            "sessions": sessions.iter().map(|session| session.session.to_string()).collect::<Vec<_>>(),
        });
        self.record(&Draft { at, kind: Kind::Read, tenant: "", session: None, body })?;
        add(&self.shared.cells.lookups, 1);
        Ok(Response::HeldSessions(sessions))
    }

    /// Tells how many there are.
    pub(super) fn count_holds(&self) {
        // A store that cannot be read is told of where it is written to.
        let (Ok(names), Ok((sessions, _))) = (self.store.hold_names(), self.store.held_count()) else { return };
        set(&self.shared.cells.holds, names.len() as u64);
        set(&self.shared.cells.held_sessions, sessions);
    }

    fn named(&self, name: &str) -> Result<HoldId, RequestError> {
        let names = self.store.hold_names().map_err(|failure| unreadable(&failure))?;
        let found = names.into_iter().find(|(_, other)| other == name).map(|(id, _)| id);
        found.ok_or(RequestError::Missing("there is no hold of that name: `sluice hold list` has those that there are"))
    }
}

fn cause(asker: &Asker) -> Cause<'_> {
    Cause { role: &asker.role, uid: asker.uid, reason: &asker.reason }
}
