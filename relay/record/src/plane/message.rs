//! What is said to the record plane, and what it answers.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sluice_base::{Pii, SessionId, TenantId, TransportAddress};
use sluice_privacy::hold::Addresses;

use crate::audit::Line;
use crate::backup::Manifest;
use crate::store::{Ban, BanTarget, ClassStatus, Found, HeldSession, Hold, Swept};
use crate::vault::KeyStatus;

/// A client whose allocation waits for its record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admission {
    /// The stay that begins.
    pub session: SessionId,
    /// Whose user it is.
    pub tenant: TenantId,
    /// The user name without expiry and tenant.
    pub user: Pii<Arc<[u8]>>,
    /// The client.
    pub client: TransportAddress,
    /// When, in seconds since the Unix epoch.
    pub unix_seconds: u64,
}

/// Who asks, and why: written into the audit before the answer is given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asker {
    /// The role by which it is allowed.
    pub role: String,
    /// The user id of the process that asked.
    pub uid: u32,
    /// Why. It must not name an address: the audit outlives it.
    pub reason: String,
}

impl Asker {
    /// The body of an entry with who asked, and why where that is said.
    pub(crate) fn add_to(&self, mut body: serde_json::Value) -> serde_json::Value {
        body["role"] = self.role.as_str().into();
        body["uid"] = self.uid.into();
        if !self.reason.is_empty() {
            body["reason"] = self.reason.as_str().into();
        }
        body
    }
}

/// What an administrator asks of the store.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Request {
    /// Whose an address was.
    Lookup {
        /// The address.
        address: Pii<IpAddr>,
        /// With it, the address is looked for among relayed transport addresses too.
        port: Option<u16>,
        /// The first second, since the Unix epoch.
        from: u64,
        /// The last second.
        to: u64,
        /// Who asks.
        asker: Asker,
    },
    /// An administrative change is to be written into the audit.
    Admin {
        /// What was done.
        what: String,
        /// The keys of the configuration that changed.
        keys: Vec<String>,
        /// Who did it.
        uid: u32,
    },
    /// A network is to be banned, also after a restart.
    BanAdd {
        /// Which.
        target: BanTarget,
        /// Whoever asks knows no address, but a pseudonym.
        by_pseudonym: bool,
        /// For how long.
        seconds: u64,
        /// Who wants it, and why: in the audit, and sealed with the address.
        asker: Asker,
    },
    /// The bans that hold, for the relay itself.
    BanList,
    /// The bans that hold, for somebody who reads them.
    BanRead {
        /// Who asks; a reason is not needed.
        asker: Asker,
    },
    /// A ban is to be lifted.
    BanRemove {
        /// Which.
        id: [u8; 16],
        /// Who wants it; a reason is not needed.
        asker: Asker,
    },
    /// The last entries of the audit.
    AuditTail {
        /// How many.
        count: usize,
        /// Who asks; a reason is not needed.
        asker: Asker,
    },
    /// What is kept, and until when.
    RetentionStatus,
    /// Sessions are to be put under a legal hold.
    HoldAdd {
        /// Its name.
        name: String,
        /// The sessions.
        sessions: Vec<SessionId>,
        /// When it is to be looked at again, in seconds since the Unix epoch: it is lifted by hand alone.
        until: Option<u64>,
        /// Who wants it, and why.
        asker: Asker,
    },
    /// The legal holds.
    HoldList,
    /// A legal hold is to be lifted, and its key destroyed.
    HoldLift {
        /// Its name.
        name: String,
        /// Who wants it, and why.
        asker: Asker,
    },
    /// The sessions of a legal hold, with the addresses that it has.
    HoldRead {
        /// Its name.
        name: String,
        /// Who asks.
        asker: Asker,
    },
    /// A copy of the store is to be made, without keys.
    Backup {
        /// The directory for it, which must not be there yet.
        to: PathBuf,
        /// Who wants it.
        uid: u32,
    },
    /// What has reached the end of its retention is to be removed.
    Sweep {
        /// Only to be counted.
        dry_run: bool,
        /// The operator's word that the wall clock is right, however far it has gone ahead of what was counted.
        beyond_24h: bool,
        /// Whose word it is.
        uid: u32,
    },
}

/// What came of a [`Request`].
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Response {
    /// Of a look-up.
    Found(Found),
    /// It is done and written down.
    Done,
    /// The ban, with the end that it has.
    Banned(Ban),
    /// The bans that hold.
    Bans(Vec<Ban>),
    /// What a new hold has of the addresses of each of its sessions.
    Held(Vec<(SessionId, Addresses)>),
    /// The legal holds, the oldest first.
    Holds(Vec<Hold>),
    /// A hold is lifted: how many sessions it had.
    HoldLifted(u64),
    /// The sessions of a hold, by their beginning.
    HeldSessions(Vec<HeldSession>),
    /// Entries of the audit, the oldest first.
    Entries(Vec<Line>),
    /// What is kept, and until when.
    Retention(RetentionReport),
    /// What was removed, or would be.
    Swept(Swept),
    /// What the copy says of itself.
    BackedUp(Manifest),
}

/// What is kept, and until when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RetentionReport {
    /// The classes of the store.
    pub classes: Vec<ClassStatus>,
    /// The keys of the day.
    pub keys: Vec<KeyStatus>,
    /// By how much the wall clock is ahead of what is believed of it for removing other classes than `ip`.
    pub held_back: Duration,
}

/// Why a request was not answered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The record plane has ended.
    #[error("the record plane does not run: look at the log for why it ended, and restart the relay")]
    Stopped,
    /// Too many requests wait.
    #[error("the store is busy: try again in a moment")]
    Busy,
    /// The configuration forbids it.
    #[error("{0}")]
    NotAllowed(&'static str),
    /// Something is missing or wrong with it.
    #[error("{0}")]
    Wrong(String),
    /// What must be written down first cannot be.
    #[error("nothing is answered that cannot be written into the audit: {0}")]
    NotRecorded(String),
    /// It cannot be read.
    #[error("the store cannot be read: {0}")]
    Unreadable(String),
    /// It was tried, and did not work.
    #[error("{0}")]
    Failed(String),
    /// There is nothing of that name.
    #[error("{0}")]
    Missing(&'static str),
}

/// What is called exactly once, and with the fallback when nobody else does.
pub(crate) struct Answer<T>(Option<Box<dyn FnOnce(T) + Send>>, fn() -> T);

impl<T> Answer<T> {
    pub(crate) fn new(call: Box<dyn FnOnce(T) + Send>, fallback: fn() -> T) -> Self {
        Answer(Some(call), fallback)
    }

    pub(crate) fn give(mut self, value: T) {
        if let Some(call) = self.0.take() {
            call(value);
        }
    }

    /// Nobody is called.
    pub(crate) fn forget(mut self) {
        self.0 = None;
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call((self.1)());
        }
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}

/// Whether a text names an address, in a form in which people write one.
pub(crate) fn names_address(text: &str) -> bool {
    let words = text.split(|c: char| !c.is_ascii_hexdigit() && c != ':' && c != '.');
    let is_address = |word: &str| {
        let word = word.trim_end_matches(['.', ':']).trim_start_matches('.');
        let before_port = word.rsplit_once(':').map(|(ip, _)| ip);
        [Some(word), before_port].into_iter().flatten().any(|word| word.parse::<IpAddr>().is_ok())
    };
    words.into_iter().any(is_address)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn an_answer_that_nobody_gives_is_the_fallback() {
        let (sender, receiver) = mpsc::channel();
        let answer = |sender: mpsc::Sender<bool>| Answer::new(Box::new(move |yes| sender.send(yes).unwrap()), || false);
        answer(sender.clone()).give(true);
        drop(answer(sender));
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn an_address_in_a_text_is_seen_and_a_time_or_a_number_is_none() {
        for text in ["192.0.2.7", "abuse of 192.0.2.7.", "(192.0.2.7:4000)", "[2001:db8::7]:443", "x 2001:db8::7, y"] {
            assert!(names_address(text), "{text}");
        }
        for text in ["", "case 4711", "at 12:30:05 on 2026-11-28", "report 1.2.3", "a face: deadbeef", "192.0.2"] {
            assert!(!names_address(text), "{text}");
        }
    }
}
