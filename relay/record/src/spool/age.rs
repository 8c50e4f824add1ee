//! How old something is, by clocks that people and machines may set.

use std::time::Duration;

use sluice_base::Mono;

use sluice_privacy::Moment;

const SECOND: u64 = 1_000_000_000;

/// A clock that is never behind the wall clock and never stands still: the wall clock's latest reading, and what the
/// boot clock has counted since. So what is kept for a time is kept no longer when the wall clock is set back, and goes
/// early when it is set forward.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AgeClock {
    /// Nanoseconds since the Unix epoch.
    nanos: u64,
    boot: Mono,
}

impl AgeClock {
    /// A clock that has seen nothing but `moment`.
    pub(crate) fn new(moment: Moment) -> Self {
        AgeClock { nanos: moment.unix_seconds.saturating_mul(SECOND), boot: moment.boot }
    }

    /// Goes on from what a former run has seen: `seen` seconds since the Unix epoch; when the boot clock stood at
    /// `boot`, if the machine was not started anew since.
    pub(crate) fn resume(moment: Moment, seen: u64, boot: Option<Mono>) -> Self {
        let former = AgeClock { nanos: seen.saturating_mul(SECOND), boot: boot.unwrap_or(moment.boot) };
        former.at(moment)
    }

    /// The same clock at `moment`.
    fn at(self, moment: Moment) -> Self {
        let ran = moment.boot.since(self.boot).as_nanos() as u64;
        let wall = moment.unix_seconds.saturating_mul(SECOND);
        AgeClock { nanos: self.nanos.saturating_add(ran).max(wall), boot: moment.boot.max(self.boot) }
    }

    /// Moves on to `moment`; seconds since the Unix epoch.
    pub(crate) fn advance(&mut self, moment: Moment) -> u64 {
        *self = self.at(moment);
        self.seconds()
    }

    /// Seconds since the Unix epoch, as of the last look.
    pub(crate) fn seconds(&self) -> u64 {
        self.nanos / SECOND
    }

    /// Where the boot clock stood at the last look.
    pub(crate) fn boot(&self) -> Mono {
        self.boot
    }
}

/// Whether what began at `began` has been there for `limit`.
pub(crate) fn is_over(began: u64, now: u64, limit: Duration) -> bool {
    now.saturating_sub(began) >= limit.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(unix_seconds: u64, boot_seconds: u64) -> Moment {
        Moment { unix_seconds, boot: Mono::from_nanos(boot_seconds * SECOND) }
    }

    #[test]
    fn a_wall_clock_that_is_set_back_stops_nothing() {
        let mut clock = AgeClock::new(moment(1000, 5));
        assert_eq!(clock.advance(moment(0, 15)), 1010);
        assert_eq!(clock.advance(moment(1012, 16)), 1012);
    }

    #[test]
    fn parts_of_a_second_add_up() {
        let mut clock = AgeClock::new(moment(1000, 0));
        for tenths in 1..=20 {
            clock.advance(Moment { unix_seconds: 0, boot: Mono::from_nanos(tenths * SECOND / 10) });
        }
        assert_eq!(clock.seconds(), 1002);
    }

    #[test]
    fn a_restart_goes_on_from_what_was_seen() {
        assert_eq!(AgeClock::resume(moment(0, 60), 1000, Some(Mono::from_nanos(50 * SECOND))).seconds(), 1010);
        assert_eq!(AgeClock::resume(moment(0, 60), 1000, None).seconds(), 1000);
        assert_eq!(AgeClock::resume(moment(2000, 60), 1000, None).seconds(), 2000);
    }
}
