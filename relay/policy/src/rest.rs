//! A plugin that was too slow rests for a while, so that it does not take every thread.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sluice_base::limits::PLUGIN_REST;

use crate::failure::Failure;
use crate::lock;

/// The rests of one plugin, for each tenant one: what it does with one tenant's settings is no other's matter.
#[derive(Debug, Default)]
pub(crate) struct Rests(Mutex<HashMap<Arc<str>, Arc<Rest>>>);

/// Until when a plugin is not asked for one tenant.
#[derive(Debug, Default)]
pub(crate) struct Rest(Mutex<Option<Instant>>);

impl Rests {
    /// That of a tenant.
    pub(crate) fn of(&self, tenant: &Arc<str>) -> Arc<Rest> {
        lock(&self.0).entry(tenant.clone()).or_default().clone()
    }
}

impl Rest {
    /// Whether it rests.
    pub(crate) fn is_on(&self, now: Instant) -> bool {
        lock(&self.0).is_some_and(|until| now < until)
    }

    /// A call has failed after it `took` so long, of the `whole` time of a question; the reason to count. Who has not
    /// used half of it was not slow: the plugins before it were, or the queue.
    pub(crate) fn failed(&self, now: Instant, failure: Failure, took: Duration, whole: Duration) -> Failure {
        match failure {
            Failure::Deadline if took < whole / 2 => Failure::NoTime,
            Failure::Deadline => {
                *lock(&self.0) = Some(now + PLUGIN_REST);
                failure
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Duration = Duration::from_millis(300);

    #[test]
    fn a_missed_deadline_brings_a_rest_and_a_trap_does_not() {
        let (rest, now) = (Rest::default(), Instant::now());
        assert_eq!(rest.failed(now, Failure::Trap, WHOLE, WHOLE), Failure::Trap);
        assert!(!rest.is_on(now));
        assert_eq!(rest.failed(now, Failure::Deadline, WHOLE / 2, WHOLE), Failure::Deadline);
        assert!(rest.is_on(now) && !rest.is_on(now + PLUGIN_REST));
    }

    #[test]
    fn who_was_left_little_time_by_others_does_not_rest() {
        let (rest, now) = (Rest::default(), Instant::now());
        assert_eq!(rest.failed(now, Failure::Deadline, WHOLE / 3, WHOLE), Failure::NoTime);
        assert!(!rest.is_on(now));
    }
}
