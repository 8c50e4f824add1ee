//! The clocks.

use sluice_base::time::{Mono, Now};

/// Both clocks. The monotonic one is CLOCK_MONOTONIC itself, so that every worker has the same origin.
#[inline]
pub(crate) fn now() -> Now {
    // The coarse clock is a few milliseconds behind at most, and costs no counter read.
    Now { mono: monotonic(), unix_seconds: read(libc::CLOCK_REALTIME_COARSE).tv_sec as u64 }
}

/// The monotonic clock.
#[inline]
pub(crate) fn monotonic() -> Mono {
    Mono::from_nanos(nanos(read(libc::CLOCK_MONOTONIC)))
}

/// The monotonic clock that goes on while the machine sleeps.
pub(crate) fn boot() -> Mono {
    Mono::from_nanos(nanos(read(libc::CLOCK_BOOTTIME)))
}

/// The wall clock without its being a few milliseconds behind, in seconds.
pub(crate) fn wall_seconds() -> u64 {
    read(libc::CLOCK_REALTIME).tv_sec as u64
}

/// Processor time of the calling thread, in nanoseconds.
pub(crate) fn thread_nanos() -> u64 {
    nanos(read(libc::CLOCK_THREAD_CPUTIME_ID))
}

const fn nanos(time: libc::timespec) -> u64 {
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[inline]
fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec to write to; these clocks exist on every Linux, so the call cannot fail.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time
}
