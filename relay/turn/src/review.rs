//! Second thoughts: a grant that is about to run out is asked for again, and so is all that lives of a tenant whose
//! policies have changed.

use std::net::IpAddr;

use rand_core::RngCore;
use sluice_base::event::EndReason;
use sluice_base::limits::{QUESTIONS_PER_WORKER_MAX, REVIEWS_OPEN_MAX};
use sluice_base::policy::{Hook, Question, Verdict};
use sluice_base::stats::DropReason;
use sluice_base::{AllocationId, Now, Pii, TenantId};

use crate::server::{Asked, Server};

/// Why it is asked again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    /// The grant is about to run out: without a verdict it does.
    Ending,
    /// What decides has changed: without a verdict it is over.
    Changed,
}

impl<R: RngCore> Server<R> {
    /// Puts again the questions of a tenant's allocations and permissions, from place `from` of the table of
    /// allocations on; where to go on once some have been answered, if that was not all. Whatever is not allowed again
    /// ends with its next packet.
    pub fn review_tenant(&mut self, now: Now, tenant: TenantId, from: u32) -> Option<u32> {
        for slot in from..self.allocations.len() as u32 {
            let Some(allocation) = self.allocations[slot as usize].as_deref() else {
                continue;
            };
            if allocation.identity.tenant != tenant {
                continue;
            }
            let questions = allocation.permitted.len() + 1;
            let open = self.asked.len();
            let is_room = open < REVIEWS_OPEN_MAX && open + questions <= QUESTIONS_PER_WORKER_MAX;
            if !(is_room || open == 0) {
                return Some(slot);
            }
            let peers = allocation.permitted.clone();
            self.review(now, slot, None, Why::Changed);
            for peer in peers {
                match self.asked.len() < QUESTIONS_PER_WORKER_MAX {
                    true => self.review(now, slot, Some(peer), Why::Changed),
                    // Nobody can say yes to it.
                    false => self.cut(now, slot, peer),
                }
            }
        }
        None
    }

    /// Asks again, unless too many questions are open.
    pub(crate) fn review(&mut self, now: Now, slot: u32, peer: Option<Pii<IpAddr>>, why: Why) {
        if self.asked.len() >= QUESTIONS_PER_WORKER_MAX {
            return self.counters.drop(DropReason::QuestionsFull);
        }
        let id = self.next_question();
        let allocation = self.at(slot);
        let peers = peer.iter().map(|peer| self.guard.endpoint(peer.with_port(0))).collect();
        let question = Question {
            id,
            hook: Hook::Review,
            tenant: allocation.identity.tenant,
            user: allocation.identity.user.clone(),
            client: self.guard.endpoint(allocation.client.address),
            peers,
            session: allocation.session,
            allocation: Some(allocation.id),
            lifetime: None,
        };
        let asked = Asked::Review(allocation.id, peer, why);
        self.put(now, question, asked);
    }

    /// A review's verdict.
    pub(crate) fn reviewed(&mut self, now: Now, id: AllocationId, peer: Option<Pii<IpAddr>>, verdict: Verdict) {
        let Some(slot) = self.slot_of(id) else {
            return;
        };
        match (verdict, peer) {
            // A yes that comes after the end brings nothing back, though the timer has not come round yet.
            (_, None) if now.mono >= self.at(slot).live_until() => {
                return self.end(now, id, self.at(slot).lapse());
            }
            (_, Some(peer)) if self.permissions.get(&(slot, peer)).is_some_and(|p| now.mono >= p.live_until()) => {
                self.end_permission(now, slot, peer);
            }
            (Verdict::Allow(grant), None) => {
                let granted = self.granted_by(now.mono, &grant);
                let allocation = self.at_mut(slot);
                allocation.take_over(&grant, granted);
                if let Some(max) = grant.lifetime_max {
                    allocation.until = allocation.until.min(now.mono.after(max));
                }
                self.watch_allocation(now.mono, slot);
            }
            (Verdict::Allow(grant), Some(peer)) => {
                let granted = self.granted_by(now.mono, &grant);
                if let Some(permission) = self.permissions.get_mut(&(slot, peer)) {
                    permission.grant = granted;
                    self.watch_permission(now.mono, slot, peer);
                }
            }
            (Verdict::Deny(_), None) => return self.end(now, id, EndReason::Policy),
            (Verdict::Deny(_), Some(peer)) => self.cut(now, slot, peer),
        }
        self.update_routes(slot);
    }

    fn cut(&mut self, now: Now, slot: u32, peer: Pii<IpAddr>) {
        if self.permissions.contains_key(&(slot, peer)) {
            self.tell_cut(now, slot);
            self.end_permission(now, slot, peer);
        }
    }
}
