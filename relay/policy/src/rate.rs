//! How often a plugin may do what costs others something.

use std::sync::Mutex;
use std::time::Instant;

use crate::lock;

/// So many times a second, and as many at once after a silence.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: u32,
    state: Mutex<(f64, Option<Instant>)>,
}

impl Rate {
    pub(crate) fn new(per_second: u32) -> Self {
        Rate { per_second, state: Mutex::new((f64::from(per_second), None)) }
    }

    /// Whether it may be done once more.
    pub(crate) fn take(&self, now: Instant) -> bool {
        let most = f64::from(self.per_second);
        let mut state = lock(&self.state);
        let (left, at) = &mut *state;
        let passed = at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        *left = (*left + passed * most).min(most);
        *at = Some(now);
        let is_left = *left >= 1.0;
        if is_left {
            *left -= 1.0;
        }
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_rate_gives_its_number_at_once_and_again_after_a_second() {
        let (rate, now) = (Rate::new(3), Instant::now());
        let taken = |at: Instant| (0..10).filter(|_| rate.take(at)).count();
        assert_eq!((taken(now), taken(now), taken(now + Duration::from_secs(1))), (3, 0, 3));
    }
}
