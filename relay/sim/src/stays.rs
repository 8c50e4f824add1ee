//! Whether what is told of stays is true: each that was asked for begins or is refused, each that began ends once, and
//! its end tells the traffic that the kernel saw.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_base::Mono;
use sluice_base::event::{Began, Denied, Ended, RelayEvent, StreamEnded};
use sluice_base::io::SocketRole;
use sluice_base::message::Traffic;
use sluice_base::policy::{Hook, Question};
use sluice_base::stats::Method as MethodLabel;
use sluice_base::{Pii, SessionId, TenantId, TransportAddress};
use sluice_turn::Bans;
use sluice_wire::channel_data;
use sluice_wire::stun::{Class, Message, Method};

use crate::kernel::Datagram;
use crate::oracle::{Five, Outgoing};

/// What is known of stays.
pub(crate) struct Stays {
    told: bool,
    /// Asked for, and neither begun nor refused.
    asked: BTreeMap<SessionId, Asked>,
    live: BTreeMap<SessionId, Stay>,
    /// The live stay of each worker's five-tuple.
    of: BTreeMap<(usize, Five), SessionId>,
    over: BTreeSet<SessionId>,
    pub(crate) ended: u64,
    pub(crate) denied: u64,
    /// Media streams that were told of.
    pub(crate) streams: Vec<StreamEnded>,
}

struct Asked {
    worker: usize,
    five: Five,
    question: Question,
}

struct Stay {
    worker: usize,
    five: Five,
    since: Mono,
    relayed: Vec<TransportAddress>,
    traffic: Traffic,
    user: (TenantId, Pii<Arc<[u8]>>),
}

type Result = std::result::Result<(), String>;

impl Stays {
    /// Nothing is known. Not `told`: there must be no event.
    pub(crate) fn new(told: bool) -> Self {
        Stays {
            told,
            asked: BTreeMap::new(),
            live: BTreeMap::new(),
            of: BTreeMap::new(),
            over: BTreeSet::new(),
            ended: 0,
            denied: 0,
            streams: Vec::new(),
        }
    }

    /// A worker asks. `current` is the datagram that it handled last.
    pub(crate) fn asked(&mut self, worker: usize, question: &Question, current: Option<&Datagram>) -> Result {
        let session = question.session;
        if question.hook != Hook::Allocate {
            let known = !self.told || self.live.contains_key(&session);
            return known.then_some(()).ok_or_else(|| "a question is about a stay that does not last".into());
        }
        let five = current.map(|datagram| (datagram.local, datagram.from)).ok_or("a question without a request")?;
        let new = !self.asked.contains_key(&session) && !self.live.contains_key(&session);
        if !new || self.over.contains(&session) {
            return Err("two stays have one name".into());
        }
        self.asked.insert(session, Asked { worker, five, question: question.clone() });
        Ok(())
    }

    /// A worker tells of something.
    pub(crate) fn event(&mut self, now: Mono, worker: usize, event: RelayEvent) -> Result {
        if !self.told {
            return Err("something is told though nobody wants to know".into());
        }
        match event {
            RelayEvent::Began(began) => self.began(now, worker, &began),
            RelayEvent::Ended(ended) => self.ended(now, worker, &ended),
            RelayEvent::Denied(denied) => self.denied(worker, &denied),
            RelayEvent::StreamEnded(stream) => {
                let lives = self.live.get(&stream.session).is_some_and(|stay| stay.worker == worker);
                self.streams.push(stream);
                lives.then_some(()).ok_or_else(|| "a stream ends that belongs to no stay".into())
            }
            _ => Err("something unknown is told".into()),
        }
    }

    /// A worker sends, before anything can happen to it on its way.
    pub(crate) fn sent(&mut self, now: Mono, outgoing: &Outgoing) -> Result {
        let Some(origin) = &outgoing.origin else {
            return self.answered(now, outgoing);
        };
        if origin.role == SocketRole::Listener {
            let len = if outgoing.role == SocketRole::Relay { outgoing.bytes.len() } else { payload(&outgoing.bytes) };
            if let Some(stay) = self.stay(outgoing.worker, (origin.local, origin.from)) {
                stay.traffic.packets_from_client += 1;
                stay.traffic.bytes_from_client += len as u64;
            }
        }
        if outgoing.role == SocketRole::Listener
            && let Some(stay) = self.stay(outgoing.worker, (outgoing.local, outgoing.to))
        {
            stay.traffic.packets_to_client += 1;
            stay.traffic.bytes_to_client += payload(&outgoing.bytes) as u64;
        }
        Ok(())
    }

    /// A worker has so many allocations after a tick.
    pub(crate) fn ticked(&self, worker: usize, allocations: u64) -> Result {
        let live = self.live.values().filter(|stay| stay.worker == worker).count() as u64;
        if self.told && live != allocations {
            return Err(format!("a worker has {allocations} allocations, and {live} stays were told of that last"));
        }
        Ok(())
    }

    /// Bans are in force at a worker after a tick.
    pub(crate) fn banned(&self, worker: usize, bans: &Bans, unix_seconds: u64) -> Result {
        let banned = |stay: &Stay| {
            let (tenant, user) = &stay.user;
            let address = Pii::new(stay.five.1.ip());
            bans.names_address(address, unix_seconds) || bans.names_user(*tenant, user, unix_seconds)
        };
        match self.live.values().any(|stay| stay.worker == worker && banned(stay)) {
            true => Err("somebody who is banned has an allocation".into()),
            false => Ok(()),
        }
    }

    /// The relay has stopped.
    pub(crate) fn stopped(&self) -> Result {
        if !self.told {
            return Ok(());
        }
        match (self.live.len(), self.asked.len()) {
            (0, 0) => Ok(()),
            (live, asked) => Err(format!("of {live} stays no end was told, of {asked} neither beginning nor refusal")),
        }
    }

    fn began(&mut self, now: Mono, worker: usize, began: &Began) -> Result {
        let asked = self.asked.remove(&began.session).ok_or("a stay begins that nobody asked for")?;
        let Asked { question, five, .. } = asked;
        let alike = asked.worker == worker
            && question.client.address == began.client
            && question.user == began.user
            && question.tenant == began.tenant;
        if !alike {
            return Err("a stay begins otherwise than it was asked for".into());
        }
        if self.of.insert((worker, five), began.session).is_some() {
            return Err("a client begins a second stay".into());
        }
        let relayed = began.relayed.iter().flatten().copied().collect();
        let user = (began.tenant, began.user.clone());
        self.live.insert(began.session, Stay { worker, five, since: now, relayed, traffic: Traffic::default(), user });
        Ok(())
    }

    fn ended(&mut self, now: Mono, worker: usize, ended: &Ended) -> Result {
        let stay = self.live.remove(&ended.session).ok_or("a stay ends that did not last")?;
        self.of.remove(&(stay.worker, stay.five));
        self.over.insert(ended.session);
        self.ended += 1;
        if stay.worker != worker || Pii::new(stay.five.1) != ended.client || now.since(stay.since) != ended.age {
            return Err("a stay ends otherwise than it began".into());
        }
        if stay.traffic != ended.traffic {
            return Err(format!("a stay's end tells {:?}, and {:?} were relayed", ended.traffic, stay.traffic));
        }
        Ok(())
    }

    fn denied(&mut self, worker: usize, denied: &Denied) -> Result {
        self.denied += 1;
        let Some(session) = denied.session else {
            return Ok(());
        };
        if denied.method != MethodLabel::Allocate {
            // A stay may end while something within it is in question.
            let known = self.live.contains_key(&session) || self.over.contains(&session);
            return known.then_some(()).ok_or_else(|| "a refusal names a stay that there never was".into());
        }
        let asked = self.asked.remove(&session).ok_or("a stay is refused that nobody asked for, or twice")?;
        self.over.insert(session);
        let alike = asked.worker == worker && asked.question.client.address == denied.client;
        alike.then_some(()).ok_or_else(|| "a stay is refused otherwise than it was asked for".into())
    }

    /// A client is told of the relayed addresses that were recorded.
    fn answered(&mut self, now: Mono, outgoing: &Outgoing) -> Result {
        let Ok(message) = Message::parse(&outgoing.bytes) else {
            return Ok(());
        };
        if !self.told || (message.class, message.method) != (Class::Success, Method::ALLOCATE) {
            return Ok(());
        }
        // An older answer may come again.
        match self.stay(outgoing.worker, (outgoing.local, outgoing.to)) {
            Some(stay) if stay.since == now && !message.relayed().map(Pii::new).eq(stay.relayed.iter().copied()) => {
                Err("a client is told of other relayed addresses than were recorded".into())
            }
            _ => Ok(()),
        }
    }

    fn stay(&mut self, worker: usize, five: Five) -> Option<&mut Stay> {
        self.live.get_mut(self.of.get(&(worker, five))?)
    }
}

/// Bytes of what a client is relayed, without its envelope.
fn payload(bytes: &[u8]) -> usize {
    match channel_data::parse(bytes) {
        Ok((_, len)) => len,
        Err(_) => Message::parse(bytes).ok().and_then(|message| message.data().map(<[u8]>::len)).unwrap_or(0),
    }
}
