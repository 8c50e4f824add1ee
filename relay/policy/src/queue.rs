//! Questions that wait for a thread: each tenant in its turn, so that one whose plugins are slow delays itself.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, PoisonError};

use sluice_base::TenantId;
use sluice_base::limits::POLICY_QUEUE_PARTS;

use crate::lock;

/// Waiting things by tenant. Bounded, as a whole and for each tenant.
pub(crate) struct Queue<T> {
    waiting: Mutex<Waiting<T>>,
    some: Condvar,
    most: usize,
}

struct Waiting<T> {
    /// Of each tenant that has any.
    lines: HashMap<TenantId, VecDeque<T>>,
    /// Whose turn it is: each tenant that has any, once.
    turns: VecDeque<TenantId>,
    count: usize,
    is_closed: bool,
}

impl<T> Queue<T> {
    /// For so many.
    pub(crate) fn new(most: usize) -> Self {
        let waiting = Waiting { lines: HashMap::new(), turns: VecDeque::new(), count: 0, is_closed: false };
        Queue { waiting: Mutex::new(waiting), some: Condvar::new(), most }
    }

    /// Adds one, where `tenants` may have any waiting at the same time.
    ///
    /// # Errors
    /// It does not fit: all places are taken, or all of this tenant's. They are what is left when each of the others
    /// has as much, but never less than one part of [`POLICY_QUEUE_PARTS`].
    pub(crate) fn push(&self, tenant: TenantId, tenants: usize, one: T) -> Result<(), T> {
        let own_most = (self.most / tenants.clamp(1, POLICY_QUEUE_PARTS)).max(1);
        let mut waiting = lock(&self.waiting);
        let own = waiting.lines.get(&tenant).map_or(0, VecDeque::len);
        if waiting.count >= self.most || own >= own_most {
            return Err(one);
        }
        if own == 0 {
            waiting.turns.push_back(tenant);
        }
        waiting.lines.entry(tenant).or_default().push_back(one);
        waiting.count += 1;
        drop(waiting);
        self.some.notify_one();
        Ok(())
    }

    /// Takes the next, and waits for it; `None`: the queue is closed, and no more will come.
    pub(crate) fn take(&self) -> Option<T> {
        let mut waiting = lock(&self.waiting);
        loop {
            if let Some(one) = waiting.next() {
                return Some(one);
            }
            if waiting.is_closed {
                return None;
            }
            waiting = self.some.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Has everybody who waits go on without anything.
    pub(crate) fn close(&self) {
        lock(&self.waiting).is_closed = true;
        self.some.notify_all();
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        lock(&self.waiting).count
    }
}

impl<T> Waiting<T> {
    fn next(&mut self) -> Option<T> {
        let tenant = self.turns.pop_front()?;
        let line = self.lines.get_mut(&tenant)?;
        let one = line.pop_front();
        match line.is_empty() {
            true => drop(self.lines.remove(&tenant)),
            false => self.turns.push_back(tenant),
        }
        self.count -= usize::from(one.is_some());
        one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOUD: TenantId = TenantId(0);
    const QUIET: TenantId = TenantId(1);

    #[test]
    fn a_tenant_fills_its_part_alone_and_each_has_its_turn() {
        let queue = Queue::new(8);
        let taken = (0..8).filter(|i| queue.push(LOUD, 2, *i).is_ok()).count();
        assert_eq!(taken, 4, "half of the places are another's");
        queue.push(QUIET, 2, 100).unwrap();
        assert_eq!([(); 5].map(|()| queue.take()), [Some(0), Some(100), Some(1), Some(2), Some(3)]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn all_places_together_are_as_many_as_there_are() {
        let queue = Queue::new(8);
        let taken = (0..100).filter(|i| queue.push(TenantId(*i), 100, *i).is_ok()).count();
        assert_eq!((taken, queue.len()), (8, 8));
        let alone = Queue::new(8);
        assert_eq!((0..100).filter(|i| alone.push(LOUD, 1, *i).is_ok()).count(), 8);
        let small = Queue::new(1);
        assert!(small.push(LOUD, 100, 0).is_ok());
    }

    #[test]
    fn a_closed_queue_gives_what_it_has_and_lets_everybody_go() {
        let queue = Queue::new(8);
        queue.push(LOUD, 1, 1).unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| [queue.take(), queue.take()]);
            queue.close();
            assert_eq!(waits.join().unwrap(), [Some(1), None]);
        });
    }
}
