//! Steps of the wall clock, as the kernel tells of them.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

/// Watches the wall clock: somebody sets it, or the machine wakes up.
#[derive(Debug)]
pub struct ClockSteps(OwnedFd);

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClockWait {
    /// The wall clock was set, or the machine has slept.
    Stepped,
    /// The time has passed, or a signal came.
    Elapsed,
}

impl ClockSteps {
    /// Begins to watch: a step from now on is not missed, whenever it is waited for.
    ///
    /// # Errors
    /// The kernel gives no timer.
    pub fn new() -> io::Result<Self> {
        // SAFETY: a call without pointers.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_REALTIME, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let steps = ClockSteps(unsafe { OwnedFd::from_raw_fd(fd) });
        steps.arm()?;
        Ok(steps)
    }

    /// Waits for a step, and at most so long.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait(&self, timeout: Duration) -> io::Result<ClockWait> {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // A millisecond more: who waits for a deadline is not woken before it.
        let millis = i32::try_from(timeout.as_millis().saturating_add(1)).unwrap_or(i32::MAX);
        // SAFETY: one descriptor of ours.
        if unsafe { libc::poll(&mut poll, 1, millis) } < 0 {
            let why = io::Error::last_os_error();
            return if why.kind() == io::ErrorKind::Interrupted { Ok(ClockWait::Elapsed) } else { Err(why) };
        }
        if poll.revents == 0 { Ok(ClockWait::Elapsed) } else { self.read() }
    }

    fn read(&self) -> io::Result<ClockWait> {
        let mut expirations = 0_u64;
        let into = (&raw mut expirations).cast();
        // SAFETY: the kernel writes 8 bytes.
        if unsafe { libc::read(self.0.as_raw_fd(), into, size_of::<u64>()) } >= 0 {
            // Somebody has set the clock beyond the end of the timer.
            self.arm()?;
            return Ok(ClockWait::Stepped);
        }
        match io::Error::last_os_error() {
            why if why.raw_os_error() == Some(libc::ECANCELED) => Ok(ClockWait::Stepped),
            why if why.kind() == io::ErrorKind::WouldBlock => Ok(ClockWait::Elapsed),
            why => Err(why),
        }
    }

    /// For a time that does not come; the kernel cancels the timer when the clock is set.
    fn arm(&self) -> io::Result<()> {
        let never = libc::timespec { tv_sec: libc::time_t::MAX >> 4, tv_nsec: 0 };
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let timer = libc::itimerspec { it_interval: zero, it_value: never };
        let flags = libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET;
        // SAFETY: the kernel reads a timer, and writes no former one.
        let result = unsafe { libc::timerfd_settime(self.0.as_raw_fd(), flags, &timer, std::ptr::null_mut()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_wait_without_a_step_ends_when_its_time_has_passed() {
        let steps = ClockSteps::new().unwrap();
        let before = Instant::now();
        assert_eq!(steps.wait(Duration::from_millis(20)).unwrap(), ClockWait::Elapsed);
        assert!(before.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn a_clock_that_is_set_ends_the_wait() {
        let steps = ClockSteps::new().unwrap();
        // Who may not set the clock sees none being set.
        let expected = if step_by_a_nanosecond() { ClockWait::Stepped } else { ClockWait::Elapsed };
        assert_eq!(steps.wait(Duration::from_millis(20)).unwrap(), expected);
        // Once for each step.
        assert_eq!(steps.wait(Duration::from_millis(20)).unwrap(), ClockWait::Elapsed);
    }

    fn step_by_a_nanosecond() -> bool {
        // SAFETY: all-zero bytes are a timex that changes nothing.
        let mut step: libc::timex = unsafe { std::mem::zeroed() };
        step.modes = libc::ADJ_SETOFFSET | libc::ADJ_NANO;
        step.time.tv_usec = 1;
        // SAFETY: the kernel reads and writes a timex.
        unsafe { libc::adjtimex(&mut step) >= 0 }
    }
}
