//! A timer wheel: coarse deadlines for many things, without an allocation per deadline once warm.

use std::time::Duration;

use crate::time::Mono;

/// Slots of the wheel; with a grain of 50 ms one turn takes 25.6 s, and what lies further goes
/// round again.
const SLOTS: usize = 512;

/// Deadlines of keys `K`. A key may stand in it several times; whoever takes one out checks its own
/// state (lazy cancellation).
#[derive(Debug)]
pub struct Wheel<K> {
    grain_nanos: u64,
    /// Every tick before this one has been handed out.
    next_tick: u64,
    slots: Vec<Vec<(u64, K)>>,
    len: usize,
    /// Kept, because a worker asks every tick.
    next: Mono,
}

impl<K: Copy> Wheel<K> {
    /// An empty wheel that starts at `now`; deadlines are rounded up to `grain`.
    pub fn new(now: Mono, grain: Duration) -> Self {
        let grain_nanos = grain.as_nanos() as u64;
        Wheel {
            grain_nanos,
            next_tick: now.nanos() / grain_nanos,
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            len: 0,
            next: Mono::NEVER,
        }
    }

    /// How long one turn takes. Whoever sets a deadline no further ahead, and sets it again when it comes, leaves
    /// nothing behind for longer once its key is gone.
    pub const fn turn(&self) -> Duration {
        Duration::from_nanos(self.grain_nanos * SLOTS as u64)
    }

    /// Deadlines that wait.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Nothing waits.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a deadline; one that has passed comes out at the next [`Wheel::expire`].
    pub fn add(&mut self, at: Mono, key: K) {
        let tick = at.nanos().div_ceil(self.grain_nanos).max(self.next_tick);
        self.slots[tick as usize % SLOTS].push((tick, key));
        self.len += 1;
        self.next = self.next.min(Mono::from_nanos(tick * self.grain_nanos));
    }

    /// Appends to `due` every key whose deadline has passed at `now`.
    pub fn expire(&mut self, now: Mono, due: &mut Vec<K>) {
        let current = now.nanos() / self.grain_nanos;
        if current < self.next_tick {
            return;
        }
        // After a long sleep every slot is visited once, not once per missed tick.
        let first = self.next_tick.max(current.saturating_sub(SLOTS as u64 - 1));
        for tick in first..=current {
            let slot = &mut self.slots[tick as usize % SLOTS];
            let before = slot.len();
            slot.retain(|(at, key)| {
                let wait = *at > current;
                if !wait {
                    due.push(*key);
                }
                wait
            });
            self.len -= before - slot.len();
        }
        self.next_tick = current + 1;
        self.next = self.search();
    }

    /// When to look again: at the earliest deadline or once per turn of the wheel; never while nothing waits.
    pub const fn next(&self) -> Mono {
        self.next
    }

    fn search(&self) -> Mono {
        if self.len == 0 {
            return Mono::NEVER;
        }
        // Only the nearest turn is searched; beyond it one empty look per turn is cheap.
        let last = self.next_tick + SLOTS as u64;
        let tick = (self.next_tick..last)
            .find(|tick| self.slots[*tick as usize % SLOTS].iter().any(|(at, _)| at <= tick))
            .unwrap_or(last);
        Mono::from_nanos(tick * self.grain_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRAIN: Duration = Duration::from_millis(50);

    fn at(ms: u64) -> Mono {
        Mono::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn deadlines_come_out_in_time_and_once() {
        let mut wheel = Wheel::new(at(0), GRAIN);
        wheel.add(at(120), 'a');
        wheel.add(at(3_600_000), 'b');
        let mut due = vec![];
        wheel.expire(at(100), &mut due);
        assert!(due.is_empty());
        wheel.expire(at(150), &mut due);
        assert_eq!(due, ['a']);
        wheel.expire(at(3_599_999), &mut due);
        assert_eq!(due, ['a']);
        wheel.expire(at(3_600_000), &mut due);
        assert_eq!(due, ['a', 'b']);
        assert!(wheel.is_empty());
    }

    #[test]
    fn next_is_never_later_than_the_earliest_deadline() {
        let mut wheel = Wheel::new(at(0), GRAIN);
        assert_eq!(wheel.next(), Mono::NEVER);
        wheel.add(at(1_000), ());
        assert_eq!(wheel.next(), at(1_000));
        wheel.add(at(70_000), ());
        let mut due = vec![];
        wheel.expire(at(1_000), &mut due);
        assert!(wheel.next() <= at(70_000));
    }

    #[test]
    fn a_long_sleep_hands_out_everything() {
        let mut wheel = Wheel::new(at(0), GRAIN);
        for i in 0..10_000 {
            wheel.add(at(i * 13), i);
        }
        let mut due = vec![];
        wheel.expire(at(1_000_000_000), &mut due);
        assert_eq!(due.len(), 10_000);
    }
}
