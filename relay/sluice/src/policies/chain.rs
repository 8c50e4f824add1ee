//! Who answers a worker's questions: the policies first, then whoever keeps records.

use std::collections::HashMap;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use sluice_base::event::RelayEvent;
use sluice_base::io::Waker;
use sluice_base::limits::QUESTIONS_PER_WORKER_MAX;
use sluice_base::policy::{Decide, Grant, Question, Verdict};
use sluice_base::{Now, QuestionId};
use sluice_policy::meet;

use super::Policies;

/// Policies before another who decides: what they deny does not get there, and what both allow is within both grants.
pub(crate) struct Chain<D> {
    policies: Arc<Policies>,
    inner: D,
    answers: Answers,
    /// Questions that the plugins have.
    asked: HashMap<QuestionId, Question>,
    /// Grants of the policies, while the inner one thinks.
    granted: HashMap<QuestionId, Grant>,
}

/// Verdicts of the plugins on their way to one worker.
#[derive(Clone)]
struct Answers {
    queue: Arc<ArrayQueue<(QuestionId, Verdict)>>,
    waker: Waker,
}

impl<D: Decide> Chain<D> {
    /// Of one worker, which `waker` wakes.
    pub(crate) fn new(policies: Arc<Policies>, inner: D, waker: Waker) -> Self {
        let queue = Arc::new(ArrayQueue::new(QUESTIONS_PER_WORKER_MAX));
        let answers = Answers { queue, waker };
        Chain { policies, inner, answers, asked: HashMap::new(), granted: HashMap::new() }
    }

    /// The policies have decided.
    fn decided(&mut self, now: Now, question: Question, verdict: Verdict) -> Option<Verdict> {
        let Verdict::Allow(grant) = verdict else {
            return Some(verdict);
        };
        let id = question.id;
        match self.inner.ask(now, question) {
            Some(verdict) => Some(within(grant, verdict)),
            None => {
                self.granted.insert(id, grant);
                None
            }
        }
    }
}

impl<D: Decide> Decide for Chain<D> {
    fn ask(&mut self, now: Now, question: Question) -> Option<Verdict> {
        let Some(host) = self.policies.host() else {
            return self.inner.ask(now, question);
        };
        let (id, answers) = (question.id, self.answers.clone());
        let standing = || self.policies.standing(&question);
        let answer = Box::new(move |verdict| answers.give(id, verdict));
        match host.ask(question.clone(), standing, answer) {
            Some(verdict) => self.decided(now, question, verdict),
            None => {
                self.asked.insert(id, question);
                None
            }
        }
    }

    fn poll(&mut self, now: Now) -> Option<(QuestionId, Verdict)> {
        while let Some((id, verdict)) = self.answers.queue.pop() {
            if let Some(question) = self.asked.remove(&id)
                && let Some(verdict) = self.decided(now, question, verdict)
            {
                return Some((id, verdict));
            }
        }
        let (id, verdict) = self.inner.poll(now)?;
        let grant = self.granted.remove(&id).unwrap_or_default();
        Some((id, within(grant, verdict)))
    }

    fn event(&mut self, now: Now, event: RelayEvent) {
        self.inner.event(now, event);
    }

    fn begin(&mut self, now: Now) {
        self.inner.begin(now);
    }
}

impl Answers {
    /// Called on a thread of the policies.
    fn give(&self, id: QuestionId, verdict: Verdict) {
        // There is a place for every question that can be open; without an answer the answer is no.
        let _ = self.queue.push((id, verdict));
        self.waker.wake();
    }
}

fn within(grant: Grant, verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Allow(inner) => Verdict::Allow(meet(grant, inner)),
        no => no,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sluice_base::Mono;
    use sluice_base::policy::{Denial, Hook};
    use sluice_config::Config;

    use super::*;
    use crate::recorder::tests::question;

    /// Answers the first questions at once, the last later.
    #[derive(Default)]
    struct Inner {
        asked: Vec<QuestionId>,
        later: bool,
    }

    const INNER: u64 = 60;

    impl Decide for Inner {
        fn ask(&mut self, _: Now, question: Question) -> Option<Verdict> {
            self.asked.push(question.id);
            (!self.later).then(|| allowed(INNER))
        }

        fn poll(&mut self, _: Now) -> Option<(QuestionId, Verdict)> {
            self.asked.pop().map(|id| (id, allowed(INNER)))
        }
    }

    fn allowed(seconds: u64) -> Verdict {
        Verdict::Allow(Grant { valid_for: Some(Duration::from_secs(seconds)), ..Grant::default() })
    }

    fn chain(later: bool) -> Chain<Inner> {
        let config = Config::default();
        let policies = Policies::start(&config, crate::wiring::ledger(&config)).unwrap();
        Chain::new(policies, Inner { later, ..Inner::default() }, Waker::new(|| ()))
    }

    fn now() -> Now {
        Now { mono: Mono::default(), unix_seconds: 0 }
    }

    #[test]
    fn what_the_policies_deny_the_next_one_never_hears_of() {
        let mut chain = chain(false);
        let no = Verdict::Deny(Denial::Forbidden);
        assert_eq!(chain.decided(now(), question(Hook::Allocate), no), Some(no));
        assert!(chain.inner.asked.is_empty());
    }

    #[test]
    fn what_both_allow_is_within_both_grants() {
        let mut at_once = chain(false);
        assert_eq!(at_once.decided(now(), question(Hook::Allocate), allowed(10)), Some(allowed(10)));
        assert_eq!(at_once.decided(now(), question(Hook::Allocate), allowed(100)), Some(allowed(INNER)));
        let mut later = chain(true);
        assert_eq!(later.decided(now(), question(Hook::Allocate), allowed(10)), None);
        assert_eq!(later.poll(now()), Some((QuestionId(7), allowed(10))));
        assert!(later.granted.is_empty());
    }

    #[test]
    fn a_verdict_that_comes_later_goes_on_to_the_next_one() {
        let mut chain = chain(false);
        chain.asked.insert(QuestionId(7), question(Hook::Allocate));
        chain.answers.give(QuestionId(7), allowed(10));
        assert_eq!(chain.poll(now()), Some((QuestionId(7), allowed(10))));
        assert_eq!(chain.inner.asked, [QuestionId(7)]);
    }
}
