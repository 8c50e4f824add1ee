//! The way to an end that nobody notices: nothing begins, what lives goes on, and when the last has gone or the
//! deadline has come the process ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sluice_base::message::{Alternates, Envelope, Order};
use sluice_worker::Post;

/// How often it is looked at; a number in memory is read.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How often the log says how far it is.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// A drain under way.
pub(crate) struct Drain {
    since: Instant,
    deadline: Instant,
    told_at: Instant,
    alternates: Alternates,
    posts: Arc<[Post]>,
    /// Workers that have been told: the first so many.
    told: usize,
    /// Workers that let nobody in any more.
    closed: Arc<AtomicUsize>,
}

/// What is next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// Nothing yet.
    Wait,
    /// The log is told how far it is.
    Tell,
    /// Nobody is served any more.
    Drained,
    /// The deadline has come.
    Late,
}

impl Drain {
    /// Begins.
    pub(crate) fn new(now: Instant, deadline: Duration, alternates: Alternates, posts: Arc<[Post]>) -> Self {
        let closed = Arc::new(AtomicUsize::new(0));
        let mut drain =
            Drain { since: now, deadline: now + deadline, told_at: now, alternates, posts, told: 0, closed };
        drain.tell_workers();
        drain
    }

    /// What is next, with so many allocations alive or in the making.
    pub(crate) fn look(&mut self, now: Instant, allocations: u32) -> Next {
        self.tell_workers();
        // Before every worker has closed its door, none is not yet none for good.
        let closed = self.closed.load(Ordering::Acquire) == self.posts.len();
        let is_late = now >= self.deadline;
        if allocations == 0 && (closed || is_late) {
            return Next::Drained;
        }
        if is_late {
            return Next::Late;
        }
        if now.duration_since(self.told_at) >= TELL_INTERVAL {
            self.told_at = now;
            return Next::Tell;
        }
        Next::Wait
    }

    /// How long it has been under way.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// How long it may still take.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        self.deadline.saturating_duration_since(now)
    }

    /// Tells the workers that have not been told; one whose queue is full is told at the next look.
    fn tell_workers(&mut self) {
        while let Some(post) = self.posts.get(self.told) {
            let closed = self.closed.clone();
            let count = move |()| {
                closed.fetch_add(1, Ordering::Release);
            };
            // The order may be given twice; it counts when what follows it has found room too.
            if !(post.send(Envelope::Order(Order::Drain(self.alternates))) && post.barrier(Box::new(count))) {
                return;
            }
            self.told += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(start: Instant) -> Drain {
        Drain::new(start, Duration::from_secs(25), Alternates::default(), Vec::new().into())
    }

    #[test]
    fn it_ends_with_the_last_allocation() {
        let start = Instant::now();
        let mut drain = drain(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(drain.look(at(1), 2), Next::Wait);
        assert_eq!(drain.look(at(2), 0), Next::Drained);
        assert_eq!(
            Drain::new(start, Duration::ZERO, Alternates::default(), Vec::new().into()).look(start, 1),
            Next::Late
        );
    }

    #[test]
    fn it_ends_at_the_deadline_and_tells_on_the_way() {
        let start = Instant::now();
        let mut drain = drain(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        let steps: Vec<_> = [9, 10, 11, 20, 24, 25].map(|s| drain.look(at(s), 1)).into();
        assert_eq!(steps, [Next::Wait, Next::Tell, Next::Wait, Next::Tell, Next::Wait, Next::Late]);
        assert_eq!((drain.left(at(5)), drain.age(at(5))), (Duration::from_secs(20), Duration::from_secs(5)));
    }
}
