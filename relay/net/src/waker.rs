//! Ends a wait from another thread: an eventfd, written once per wait however often it is asked.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sluice_base::io::Waker;

/// The driver's end.
#[derive(Debug)]
pub(crate) struct Bell(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    eventfd: OwnedFd,
    /// Written and not yet seen by the driver.
    rung: AtomicBool,
}

impl Bell {
    /// # Errors
    /// EMFILE and its like.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: a call without pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and has no other owner.
        let eventfd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Bell(Arc::new(Inner { eventfd, rung: AtomicBool::new(false) })))
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.0.eventfd.as_raw_fd()
    }

    /// Before the worker looks at what it was woken for: what comes later rings again.
    pub(crate) fn heard(&self) {
        self.0.rung.store(false, Ordering::SeqCst);
    }

    /// Empties the eventfd, where readiness is a level.
    pub(crate) fn drain(&self) {
        let mut count = 0_u64;
        // SAFETY: eight bytes to write to; an empty eventfd answers EAGAIN, which is as good.
        unsafe { libc::read(self.fd(), (&raw mut count).cast(), 8) };
    }

    pub(crate) fn waker(&self) -> Waker {
        let inner = Arc::clone(&self.0);
        Waker::new(move || {
            if !inner.rung.swap(true, Ordering::SeqCst) {
                let one = 1_u64;
                // SAFETY: eight bytes to read from. It fails only when the counter is full, and then it is ready.
                unsafe { libc::write(inner.eventfd.as_raw_fd(), (&raw const one).cast(), 8) };
            }
        })
    }
}
