//! Administrators' questions.

use std::path::PathBuf;

use serde_json::json;
use sluice_base::Family;
use sluice_base::limits::{AUDIT_TAIL_MAX, REASON_BYTES_MAX};
use sluice_privacy::Class;
use sluice_privacy::class::Purpose;

use super::message::{Answer, Asker, Request, RequestError, Response, RetentionReport, names_address};
use super::stats::add;
use super::thread::Keeper;
use crate::audit::{Draft, Kind, tail};
use crate::backup;
use crate::store::{Failure, Trouble, Wanted, WantedBan};

pub(super) type Answered = Result<Response, RequestError>;

impl Keeper {
    pub(super) fn answer_request(&mut self, request: Request, answer: Answer<Answered>) {
        let answered = match request {
            // It takes longer than anybody's record may wait.
            Request::Backup { to, uid } => return self.back_up(to, uid, answer),
            Request::Lookup { address, port, from, to, asker } => {
                self.look_up(&Wanted { address, port, from, to }, &asker)
            }
            Request::Admin { what, keys, uid } => self.admin(&what, &keys, uid),
            Request::BanAdd { target, by_pseudonym, seconds, asker } => {
                self.ban(&WantedBan { target, by_pseudonym, seconds }, &asker)
            }
            Request::BanList => {
                let bans = self.bans_in_force();
                bans.map(Response::Bans).map_err(|failure| unreadable(&failure))
            }
            Request::BanRead { asker } => self.read_bans(&asker),
            Request::BanRemove { id, asker } => self.lift(id, &asker),
            Request::AuditTail { count, asker } => self.read_audit(count, &asker),
            Request::HoldAdd { name, sessions, until, asker } => self.hold(&name, sessions, until, &asker),
            Request::HoldList => self.holds(),
            Request::HoldLift { name, asker } => self.lift_hold(&name, &asker),
            Request::HoldRead { name, asker } => self.read_hold(&name, &asker),
            Request::RetentionStatus => self.retention_status(),
            Request::Sweep { dry_run: true, beyond_24h, .. } => self.sweep_dry(beyond_24h),
            Request::Sweep { beyond_24h, uid, .. } => match self.believe_clock(beyond_24h, uid) {
                Ok(()) => return self.sweep_for(answer),
                Err(error) => Err(error),
            },
        };
        answer.give(answered);
    }

    /// Looks first, writes down that it did, and only then answers.
    fn look_up(&mut self, wanted: &Wanted, asker: &Asker) -> Answered {
        if !self.lookup || !Class::Ip.permits(Purpose::Abuse) {
            return Err(RequestError::NotAllowed("looking up addresses is not allowed: privacy.lookup is false"));
        }
        check(asker)?;
        if wanted.to < wanted.from {
            return Err(RequestError::Wrong("the time looked for ends before it begins".to_owned()));
        }
        let found = self.store.lookup(wanted).map_err(|failure| unreadable(&failure))?;
        let body = json!({
            "what": "lookup",
            "class": Class::Ip.name(),
            "role": asker.role,
            "uid": asker.uid,
            "reason": asker.reason,
            "from": wanted.from,
            "to": wanted.to,
            "sessions": found.sessions.iter().map(|session| session.session.to_string()).collect::<Vec<_>>(),
        });
        let at = self.platform.moment().unix_seconds;
        self.record(&Draft { at, kind: Kind::Read, tenant: "", session: None, body })?;
        add(&self.shared.cells.lookups, 1);
        Ok(Response::Found(found))
    }

    fn admin(&mut self, what: &str, keys: &[String], uid: u32) -> Answered {
        let texts = std::iter::once(what).chain(keys.iter().map(String::as_str));
        texts.into_iter().try_for_each(|text| no_address(text, "an administrative change"))?;
        let body = json!({ "what": what, "keys": keys, "uid": uid });
        let at = self.platform.moment().unix_seconds;
        self.record(&Draft { at, kind: Kind::Admin, tenant: "", session: None, body })?;
        Ok(Response::Done)
    }

    fn read_bans(&mut self, asker: &Asker) -> Answered {
        let bans = self.bans_in_force().map_err(|failure| unreadable(&failure))?;
        self.note_read("ban list", Class::Ip, asker)?;
        Ok(Response::Bans(bans))
    }

    fn read_audit(&mut self, count: usize, asker: &Asker) -> Answered {
        let lines = tail(self.store.connection(), self.store.vault(), count.min(AUDIT_TAIL_MAX));
        let lines = lines.map_err(|e| unreadable(&e.into()))?;
        self.note_read("audit tail", Class::AccessAudit, asker)?;
        Ok(Response::Entries(lines))
    }

    /// Writes down that somebody reads personal data by a command that needs no reason.
    fn note_read(&mut self, what: &str, class: Class, asker: &Asker) -> Result<(), RequestError> {
        check_command(asker)?;
        let at = self.platform.moment().unix_seconds;
        let body = asker.add_to(json!({ "what": what, "class": class.name() }));
        self.record(&Draft { at, kind: Kind::Read, tenant: "", session: None, body })
    }

    fn lift(&mut self, id: [u8; 16], asker: &Asker) -> Answered {
        check_command(asker)?;
        match self.write(|writer| writer.lift(id, asker)) {
            Ok(true) => {
                self.bans.lifted(&id);
                self.must_truncate = true;
                Ok(Response::Done)
            }
            Ok(false) => Err(RequestError::Missing("there is no ban of that id")),
            Err(trouble) => Err(not_recorded(trouble)),
        }
    }

    fn ban(&mut self, wanted: &WantedBan, asker: &Asker) -> Answered {
        check(asker)?;
        let WantedBan { target, seconds, .. } = *wanted;
        let longest = if target.address.family() == Family::V4 { 32 } else { 128 };
        if target.bits > longest || seconds == 0 {
            let told = format!("a ban needs a prefix of at most {longest} bits and a time that is not zero");
            return Err(RequestError::Wrong(told));
        }
        if !self.store.keeps_addresses() {
            let told = "this relay keeps no addresses (privacy.ip_retention_days is 0), and so no bans over a restart";
            return Err(RequestError::NotAllowed(told));
        }
        let mut id = [0; 16];
        self.platform.random(&mut id);
        match self.write(|writer| writer.ban(wanted, asker, id)) {
            Ok(Some(ban)) => {
                self.bans.add(&ban, self.platform.moment());
                Ok(Response::Banned(ban))
            }
            Ok(None) => Err(RequestError::NotAllowed("there are as many bans as are kept: lift some first")),
            Err(trouble) => Err(not_recorded(trouble)),
        }
    }

    fn retention_status(&self) -> Answered {
        let horizon = self.store.vault().horizon();
        let now = horizon.unix_seconds;
        let classes = self.store.retention_status(&self.retention, now).map_err(|failure| unreadable(&failure))?;
        Ok(Response::Retention(RetentionReport {
            classes,
            keys: self.store.vault().status(),
            held_back: horizon.held_back,
        }))
    }

    fn sweep_dry(&self, beyond_24h: bool) -> Answered {
        let now = self.platform.moment().unix_seconds;
        let until = if beyond_24h { now } else { self.store.vault().horizon().unix_seconds };
        let swept = self.store.sweep_dry(&self.retention, until);
        swept.map(Response::Swept).map_err(|failure| unreadable(&failure))
    }

    /// Takes the operator's word for the wall clock, where it is given.
    fn believe_clock(&mut self, beyond_24h: bool, uid: u32) -> Result<(), RequestError> {
        let now = self.platform.moment().unix_seconds;
        if beyond_24h {
            let body = json!({ "what": "the wall clock is confirmed", "clock": now, "uid": uid });
            self.record(&Draft { at: now, kind: Kind::Admin, tenant: "", session: None, body })?;
            let confirmed = self.store.vault().confirm_clock();
            confirmed.map_err(|e| RequestError::NotRecorded(format!("the clock cannot be remembered: {e}")))?;
        }
        Ok(())
    }

    /// Copies on a thread of its own, so that nobody's record waits for it.
    fn back_up(&mut self, to: PathBuf, uid: u32, answer: Answer<Answered>) {
        let at = self.platform.moment().unix_seconds;
        let body = json!({ "uid": uid });
        if let Err(e) = self.record(&Draft { at, kind: Kind::Backup, tenant: "", session: None, body }) {
            return answer.give(Err(e));
        }
        let (store, vault) = (self.store.folder(), self.store.vault_handle());
        let copy = move || {
            let copied = backup::copy(&store, &to, &vault);
            answer.give(copied.map(Response::BackedUp).map_err(|e| RequestError::Failed(e.to_string())));
        };
        // Where there is no thread, what is dropped answers.
        if std::thread::Builder::new().name("backup".to_owned()).spawn(copy).is_err() {
            tracing::error!("no thread for a copy of the store");
        }
    }

    pub(super) fn record(&mut self, draft: &Draft<'_>) -> Result<(), RequestError> {
        self.write(|writer| writer.audit(draft)).map_err(not_recorded)
    }
}

/// Role and reason are there, and say nothing that the audit must not keep.
pub(super) fn check(asker: &Asker) -> Result<(), RequestError> {
    short("the role", &asker.role)?;
    short("the reason", &asker.reason)?;
    no_address(&asker.role, "the role")?;
    no_address(&asker.reason, "the reason")
}

/// As [`check`], of a command that says by itself why it is given.
fn check_command(asker: &Asker) -> Result<(), RequestError> {
    if asker.reason.is_empty() {
        short("the role", &asker.role)?;
        return no_address(&asker.role, "the role");
    }
    check(asker)
}

fn short(what: &str, text: &str) -> Result<(), RequestError> {
    if text.trim().is_empty() || text.len() > REASON_BYTES_MAX {
        let told = format!("{what} is missing, or longer than {REASON_BYTES_MAX} bytes");
        return Err(RequestError::Wrong(told));
    }
    Ok(())
}

fn no_address(text: &str, what: &str) -> Result<(), RequestError> {
    if names_address(text) {
        let told = format!("{what} names an address, which the audit would keep for years: name a case instead");
        return Err(RequestError::Wrong(told));
    }
    Ok(())
}

pub(super) fn not_recorded(trouble: Trouble) -> RequestError {
    RequestError::NotRecorded(trouble.to_string())
}

pub(super) fn unreadable(failure: &Failure) -> RequestError {
    RequestError::Unreadable(failure.trouble().to_string())
}
