//! Second thoughts: a grant that is about to run out is asked for again, and so is all that lives of a tenant whose
//! policies have changed. What nobody could answer about is asked once more after a pause, as often as its patience
//! allows: who is overloaded for a moment cuts no call. Without a yes by then it is over.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use rand_core::RngCore;
use sluice_base::event::EndReason;
use sluice_base::limits::{
    QUESTIONS_PER_WORKER_MAX, REVIEW_PATIENCE, REVIEW_PAUSE, REVIEW_PLACES_PER_TICK_MAX, REVIEWS_OPEN_MAX,
    REVIEWS_PER_TICK_MAX,
};
use sluice_base::policy::{Denial, Hook, Question, Verdict};
use sluice_base::{AllocationId, Mono, Now, Pii, QuestionId, TenantId};

use crate::allocation::Granted;
use crate::server::{Asked, Server, Timer};

/// Why it is asked again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    /// The grant is about to run out: without a verdict it does.
    Ending,
    /// What decides has changed: without a verdict it is over.
    Changed,
}

/// One thing that is asked about again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Review {
    allocation: AllocationId,
    /// Whose permission it is; without one it is the allocation itself.
    peer: Option<Pii<IpAddr>>,
    why: Why,
    /// How long an answer is waited for: for an ending grant, until its end.
    until: Mono,
    /// How long it rests after a question that nobody answers; it doubles.
    pause: Duration,
}

/// What is to be asked again.
#[derive(Default)]
pub(crate) struct Reviews {
    /// Tenants whose policies have changed; they take turns.
    walks: VecDeque<Walk>,
    /// What rests, by when it is asked again, and by the last question about it.
    resting: BTreeMap<(Mono, QuestionId), Review>,
    /// Questions that are open.
    open: usize,
    /// When the timer for what rests fires, if one waits.
    timed: Option<Mono>,
}

/// How far the review of a tenant has come: once round the table of allocations.
struct Walk {
    tenant: TenantId,
    /// What was asked by then is asked again.
    since: QuestionId,
    place: u32,
    /// Where it began.
    end: u32,
    /// The end of the table was passed.
    is_round: bool,
}

impl Reviews {
    /// A tenant's policies have changed. A review of it that is under way begins anew where it is, so that changes
    /// that follow each other do not keep it from the rest of the table.
    pub(crate) fn order(&mut self, tenant: TenantId, since: QuestionId) {
        match self.walks.iter_mut().find(|walk| walk.tenant == tenant) {
            Some(walk) => (walk.since, walk.end, walk.is_round) = (since, walk.place, false),
            None => self.walks.push_back(Walk { tenant, since, place: 0, end: 0, is_round: false }),
        }
    }

    /// A question about one is open no longer.
    pub(crate) fn closed(&mut self) {
        self.open -= 1;
    }

    fn is_due(&self, now: Mono) -> bool {
        self.resting.first_key_value().is_some_and(|((at, _), _)| now >= *at)
    }
}

impl<R: RngCore> Server<R> {
    /// Whether [`Server::review`] has anything to do at once.
    pub fn is_reviewing(&self, now: Now) -> bool {
        self.reviews.is_due(now.mono) || (!self.reviews.walks.is_empty() && self.has_room_for_review())
    }

    /// Whether tenants are not yet asked about as a whole whose policies have changed.
    pub fn reviews_wait(&self) -> bool {
        !self.reviews.walks.is_empty()
    }

    /// Asks again about a few of those that wait for it, as many as fit between two packets. Whatever is not allowed
    /// again ends with its next packet.
    pub fn review(&mut self, now: Now) {
        let mut left = REVIEWS_PER_TICK_MAX;
        while left > 0 && self.reviews.is_due(now.mono) {
            left -= 1;
            self.review_rested(now);
        }
        let mut places = REVIEW_PLACES_PER_TICK_MAX;
        while left > 0 && places > 0 && self.has_room_for_review() {
            let Some(mut walk) = self.reviews.walks.pop_front() else {
                break;
            };
            if self.walk(now, &mut walk, &mut left, &mut places) {
                self.reviews.walks.push_back(walk);
            }
        }
    }

    /// A grant is about to run out.
    pub(crate) fn review_ending(&mut self, now: Now, slot: u32, peer: Option<Pii<IpAddr>>, until: Mono) {
        let review = Review { allocation: self.at(slot).id, peer, why: Why::Ending, until, pause: REVIEW_PAUSE };
        match self.has_room_for_review() {
            true => self.ask_again(now, slot, review),
            false => {
                let id = self.next_question();
                self.rest(now.mono, id, review);
            }
        }
    }

    /// The verdict on a review, or that there is none.
    pub(crate) fn reviewed(&mut self, now: Now, id: QuestionId, review: Review, verdict: Verdict) {
        let Review { peer, .. } = review;
        let Some(slot) = self.slot_of(review.allocation) else {
            return;
        };
        let Some(granted) = self.granted_to(slot, peer) else {
            return;
        };
        // What was asked before the last change has nothing to say for it.
        let is_older = id < granted.changed;
        match (verdict, peer) {
            (Verdict::Deny(Denial::Unanswered) | Verdict::Allow(_), _) if is_older => return,
            (Verdict::Deny(Denial::Unanswered), _) => return self.unanswered(now, slot, id, review),
            // A yes that comes after the end brings nothing back, though the timer has not come round yet.
            (_, None) if now.mono >= self.at(slot).live_until() => {
                return self.end(now, review.allocation, self.at(slot).lapse());
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
                    permission.grant.take_over(granted);
                    self.watch_permission(now.mono, slot, peer);
                }
            }
            (Verdict::Deny(_), _) => return self.cut(now, slot, peer),
        }
        self.update_routes(slot);
    }

    /// Nobody has answered: it is asked again after a pause, if its patience lasts so long.
    fn unanswered(&mut self, now: Now, slot: u32, id: QuestionId, review: Review) {
        let at = now.mono.after(review.pause);
        match review.why {
            // The old grant stands until it ends.
            Why::Ending if at >= review.until => {}
            Why::Changed if now.mono >= review.until => self.cut(now, slot, review.peer),
            _ => self.rest(at.min(review.until), id, Review { pause: review.pause * 2, ..review }),
        }
    }

    fn rest(&mut self, at: Mono, id: QuestionId, review: Review) {
        self.reviews.resting.insert((at, id), review);
        self.watch_reviews();
    }

    /// The first of those that rest has rested, or its patience is over.
    fn review_rested(&mut self, now: Now) {
        let Some(((_, id), review)) = self.reviews.resting.pop_first() else {
            return;
        };
        let Some(slot) = self.slot_of(review.allocation) else {
            return;
        };
        let Some(granted) = self.granted_to(slot, review.peer) else {
            return;
        };
        let is_current = match review.why {
            Why::Ending => granted.reviewing && granted.until == review.until,
            Why::Changed => granted.changed == id,
        };
        match review.why {
            _ if !is_current => {}
            Why::Ending if now.mono >= review.until => {}
            Why::Changed if now.mono >= review.until => self.cut(now, slot, review.peer),
            _ if self.has_room_for_review() => self.ask_again(now, slot, review),
            _ => self.rest(now.mono.after(REVIEW_PAUSE).min(review.until), id, review),
        }
    }

    /// Asks about what the next places hold; whether that was not all.
    fn walk(&mut self, now: Now, walk: &mut Walk, left: &mut usize, places: &mut usize) -> bool {
        loop {
            if walk.place as usize >= self.allocations.len() {
                if walk.is_round {
                    return false;
                }
                (walk.place, walk.is_round) = (0, true);
            }
            if walk.is_round && walk.place >= walk.end {
                return false;
            }
            if *places == 0 || !self.review_place(now, walk, left) {
                return true;
            }
            walk.place += 1;
            *places -= 1;
        }
    }

    /// Asks about what a place of the table holds; whether that was all of it.
    fn review_place(&mut self, now: Now, walk: &Walk, left: &mut usize) -> bool {
        let slot = walk.place;
        let held = self.allocations.get(slot as usize).and_then(Option::as_deref);
        let Some(allocation) = held.filter(|allocation| allocation.identity.tenant == walk.tenant) else {
            return true;
        };
        let id = allocation.id;
        let all = std::iter::once(None).chain(allocation.permitted.iter().copied().map(Some));
        let is_due = |peer: &Option<_>| self.granted_to(slot, *peer).is_some_and(|g| g.changed <= walk.since);
        let due: Vec<_> = all.filter(is_due).take(*left + 1).collect();
        for peer in due {
            if *left == 0 || !self.has_room_for_review() {
                return false;
            }
            *left -= 1;
            let until = now.mono.after(REVIEW_PATIENCE);
            self.ask_again(now, slot, Review { allocation: id, peer, why: Why::Changed, until, pause: REVIEW_PAUSE });
        }
        true
    }

    fn ask_again(&mut self, now: Now, slot: u32, review: Review) {
        let id = self.next_question();
        if review.why == Why::Changed
            && let Some(granted) = self.granted_to_mut(slot, review.peer)
        {
            granted.changed = id;
        }
        let allocation = self.at(slot);
        let peers = review.peer.iter().map(|peer| self.guard.endpoint(peer.with_port(0))).collect();
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
        self.reviews.open += 1;
        self.put(now, question, Asked::Review(review));
    }

    /// Whether another review may be open. The workers share what the process may have of them.
    fn has_room_for_review(&self) -> bool {
        let share = (REVIEWS_OPEN_MAX / usize::from(self.options.workers.max(1))).max(1);
        self.reviews.open < share && self.asked.len() < QUESTIONS_PER_WORKER_MAX
    }

    /// The timer for what rests has come.
    pub(crate) fn reviews_due(&mut self) {
        self.reviews.timed = None;
        self.watch_reviews();
    }

    /// Sets the timer for what rests, unless one fires early enough.
    fn watch_reviews(&mut self) {
        let first = self.reviews.resting.first_key_value().map(|((at, _), _)| *at);
        if let Some(first) = first.filter(|first| self.reviews.timed.is_none_or(|timed| *first < timed)) {
            self.reviews.timed = Some(first);
            self.wheel.add(first, Timer::Reviews);
        }
    }

    fn granted_to(&self, slot: u32, peer: Option<Pii<IpAddr>>) -> Option<&Granted> {
        match peer {
            None => Some(&self.at(slot).grant),
            Some(peer) => self.permissions.get(&(slot, peer)).map(|permission| &permission.grant),
        }
    }

    fn granted_to_mut(&mut self, slot: u32, peer: Option<Pii<IpAddr>>) -> Option<&mut Granted> {
        match peer {
            None => Some(&mut self.at_mut(slot).grant),
            Some(peer) => self.permissions.get_mut(&(slot, peer)).map(|permission| &mut permission.grant),
        }
    }

    /// It is not allowed any more.
    fn cut(&mut self, now: Now, slot: u32, peer: Option<Pii<IpAddr>>) {
        match peer {
            None => self.end(now, self.at(slot).id, EndReason::Policy),
            Some(peer) if self.permissions.contains_key(&(slot, peer)) => {
                self.tell_cut(now, slot);
                self.end_permission(now, slot, peer);
            }
            Some(_) => {}
        }
    }
}
