//! A plugin that missed its deadline rests for a while, so that it does not take every thread.

use std::sync::Mutex;
use std::time::Instant;

use sluice_base::limits::PLUGIN_REST;

use crate::failure::Failure;
use crate::lock;

/// Until when a plugin is not asked.
#[derive(Debug, Default)]
pub(crate) struct Rest(Mutex<Option<Instant>>);

impl Rest {
    /// Whether it rests.
    pub(crate) fn is_on(&self, now: Instant) -> bool {
        lock(&self.0).is_some_and(|until| now < until)
    }

    /// A call has failed.
    pub(crate) fn failed(&self, now: Instant, failure: Failure) {
        if failure == Failure::Deadline {
            *lock(&self.0) = Some(now + PLUGIN_REST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_deadline_brings_a_rest_and_a_trap_does_not() {
        let (rest, now) = (Rest::default(), Instant::now());
        rest.failed(now, Failure::Trap);
        assert!(!rest.is_on(now));
        rest.failed(now, Failure::Deadline);
        assert!(rest.is_on(now) && !rest.is_on(now + PLUGIN_REST));
    }
}
