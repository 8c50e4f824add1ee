//! Answers remembered, so that a retransmitted request is answered alike and asks nothing again
//! (RFC 8489, 6.3.1). A ring of fixed-size entries: the oldest makes room.

use hashbrown::HashMap;
use sluice_base::Mono;
use sluice_base::limits::{REMEMBERED_ANSWER_LIFETIME, REMEMBERED_ANSWERS_MAX};
use sluice_wire::stun::TransactionId;

use crate::allocation::Client;
use crate::reply::Reply;

pub(crate) struct Answers {
    ring: Vec<Entry>,
    next: usize,
    index: HashMap<(Client, TransactionId), u32, foldhash::fast::FixedState>,
}

struct Entry {
    key: (Client, TransactionId),
    until: Mono,
    reply: Reply,
}

impl Answers {
    pub(crate) fn new(seed: u64) -> Self {
        let hasher = foldhash::fast::FixedState::with_seed(seed);
        Answers { ring: Vec::new(), next: 0, index: HashMap::with_hasher(hasher) }
    }

    /// The answer that this request has had, unless it is too old to be a retransmission's.
    pub(crate) fn recall(&self, now: Mono, client: Client, transaction: TransactionId) -> Option<&Reply> {
        let at = *self.index.get(&(client, transaction))?;
        let entry = self.ring.get(at as usize)?;
        (now < entry.until).then_some(&entry.reply)
    }

    /// Remembers an answer.
    pub(crate) fn remember(&mut self, now: Mono, client: Client, transaction: TransactionId, reply: Reply) {
        let key = (client, transaction);
        let entry = Entry { key, until: now.after(REMEMBERED_ANSWER_LIFETIME), reply };
        let at = self.next;
        self.next = (self.next + 1) % REMEMBERED_ANSWERS_MAX;
        match self.ring.get_mut(at) {
            Some(oldest) => {
                if self.index.get(&oldest.key) == Some(&(at as u32)) {
                    self.index.remove(&oldest.key);
                }
                *oldest = entry;
            }
            None => self.ring.push(entry),
        }
        self.index.insert(key, at as u32);
    }
}
