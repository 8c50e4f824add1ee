//! Time as an argument: the cores are handed [`Now`] and never read a clock.

use std::time::Duration;

/// A point on the monotonic clock, in nanoseconds since an origin of the process's choosing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Mono(u64);

impl Mono {
    /// Later than every deadline.
    pub const NEVER: Mono = Mono(u64::MAX);

    /// `nanos` after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Mono(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// This point and `by`; saturates at [`Mono::NEVER`].
    #[must_use]
    pub const fn after(self, by: Duration) -> Self {
        Mono(self.0.saturating_add(by.as_nanos() as u64))
    }

    /// Time from `earlier` to this point; zero when `earlier` is later.
    pub const fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The two clocks of one instant: monotonic for every deadline, wall for what people and
/// credentials mean by a date.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Monotonic.
    pub mono: Mono,
    /// Seconds since the Unix epoch, UTC.
    pub unix_seconds: u64,
}
