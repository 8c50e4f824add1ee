//! How far the wall clock is believed.
//!
//! Keys of the day die by whatever clock says so first; losing an address early breaks no promise. Records of other
//! classes are kept for years, and a clock that was set forward by mistake must not delete them: for these, time passes
//! only as the boot clock counts it while the relay runs, plus [`CREDIT`], plus what an operator confirms. What was not
//! counted (the machine was off) uses up the credit once, however often the relay starts.

use std::time::Duration;

use sluice_base::Mono;

use crate::Moment;
use crate::date::DAY_SECONDS;

/// How far beyond what was counted the wall clock is believed for classes other than `ip`.
pub const CREDIT: Duration = Duration::from_secs(DAY_SECONDS);

/// What a start knows of the ones before it. Kept in the state directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Remembered {
    /// The latest that the wall clock ever was, seconds since the Unix epoch.
    pub latest: u64,
    /// The time that was counted or confirmed, seconds since the Unix epoch.
    pub confirmed: u64,
}

/// The wall clock, watched.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    latest: u64,
    confirmed: u64,
    /// Up to which moment both are counted.
    boot: Mono,
}

/// Until when other classes may be swept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Horizon {
    /// The time that retention is measured from, seconds since the Unix epoch.
    pub unix_seconds: u64,
    /// By how much the wall clock is ahead of it: not zero means that an operator has to confirm the clock.
    pub held_back: Duration,
}

impl Clock {
    /// At the start of the relay; `None` at the very first.
    pub fn start(remembered: Option<Remembered>, now: Moment) -> Self {
        let Remembered { latest, confirmed } =
            remembered.unwrap_or(Remembered { latest: now.unix_seconds, confirmed: now.unix_seconds });
        Clock { latest: latest.max(now.unix_seconds), confirmed, boot: now.boot }
    }

    /// Time has passed, or the wall clock was set.
    pub fn pass(&mut self, now: Moment) {
        let counted = now.boot.since(self.boot).as_secs();
        self.boot = self.boot.after(Duration::from_secs(counted));
        self.latest = self.latest.saturating_add(counted).max(now.unix_seconds);
        let confirmed = self.confirmed.saturating_add(counted).min(now.unix_seconds);
        self.confirmed = self.confirmed.max(confirmed);
    }

    /// An operator says that the wall clock is right now.
    pub fn confirm(&mut self, now: Moment) {
        *self = Clock { latest: now.unix_seconds, confirmed: now.unix_seconds, boot: now.boot };
    }

    /// The latest that the wall clock ever was, and what has passed since: what keys of a former start of the machine
    /// are judged by.
    pub fn latest(&self) -> u64 {
        self.latest
    }

    /// Until when other classes may be swept.
    pub fn horizon(&self, now: Moment) -> Horizon {
        let unix_seconds = now.unix_seconds.min(self.confirmed.saturating_add(CREDIT.as_secs()));
        Horizon { unix_seconds, held_back: Duration::from_secs(now.unix_seconds - unix_seconds) }
    }

    /// What the next start has to know.
    pub fn remembered(&self) -> Remembered {
        Remembered { latest: self.latest, confirmed: self.confirmed }
    }
}

impl Remembered {
    /// When what was remembered is lost: nothing is believed but that time does not run backwards from here.
    pub const LOST: Remembered = Remembered { latest: 0, confirmed: 0 };
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_795_867_200;
    const HOUR: u64 = 3600;

    fn at(unix_seconds: u64, boot_hours: u64) -> Moment {
        Moment { unix_seconds, boot: Mono::from_nanos(boot_hours * HOUR * 1_000_000_000) }
    }

    #[test]
    fn time_that_is_counted_is_believed_for_ever() {
        let mut clock = Clock::start(None, at(NOON, 1));
        for hour in 1..=9000 {
            clock.pass(at(NOON + hour * HOUR, 1 + hour));
        }
        let now = at(NOON + 9000 * HOUR, 9001);
        assert_eq!(clock.horizon(now), Horizon { unix_seconds: now.unix_seconds, held_back: Duration::ZERO });
    }

    #[test]
    fn a_jump_forward_is_believed_for_a_day_and_no_further_until_confirmed() {
        let mut clock = Clock::start(None, at(NOON, 1));
        let wrong = at(NOON + 1000 * HOUR, 1);
        clock.pass(wrong);
        assert_eq!(clock.horizon(wrong).unix_seconds, NOON + 24 * HOUR);
        assert_eq!(clock.horizon(wrong).held_back, Duration::from_secs(976 * HOUR));
        clock.confirm(wrong);
        assert_eq!(clock.horizon(wrong).held_back, Duration::ZERO);
    }

    #[test]
    fn starts_in_a_loop_use_up_the_credit_once() {
        let mut remembered = None;
        for start in 0..100 {
            // Each start finds the clock 23 h further, with no time counted.
            let now = at(NOON + start * 23 * HOUR, 1);
            let mut clock = Clock::start(remembered, now);
            clock.pass(now);
            assert!(clock.horizon(now).unix_seconds <= NOON + 24 * HOUR);
            remembered = Some(clock.remembered());
        }
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_what_was_seen_and_counts_on() {
        let mut clock = Clock::start(None, at(NOON, 1));
        clock.pass(at(0, 3));
        assert_eq!(clock.latest(), NOON + 2 * HOUR);
        assert_eq!(clock.horizon(at(0, 3)), Horizon { unix_seconds: 0, held_back: Duration::ZERO });
        assert_eq!(clock.remembered(), Remembered { latest: NOON + 2 * HOUR, confirmed: NOON });
    }
}
