//! Waiting for two completions instead of one, for as long as an operator allows (`io.wait_budget_us`).
//!
//! Most of what a packet costs at moderate rates is to go to sleep and to be woken. With a budget a busy worker
//! sleeps until two sockets have something (what comes to one socket counts once). A timer that goes on
//! firing is a completion too, so that no wait is longer than its period, which is the budget; one armed for
//! each wait would cost more than is saved.

use std::time::Duration;

use io_uring::opcode;
use io_uring::types::{CancelBuilder, TimeoutFlags, Timespec};

use super::{Kind, NO_SOCKET, Ring, user_data};

/// Completions that a busy worker waits for.
const WANT: u32 = 2;

/// Waits without a packet after which the timer is stopped: an idle worker sleeps.
const QUIET_WAITS: u32 = 64;

#[derive(Debug)]
pub(super) struct Guard {
    /// What the kernel reads when the timer is armed; `None` without a budget.
    period: Option<Box<Timespec>>,
    armed: bool,
    /// The last wait brought packets.
    busy: bool,
    /// Waits since that brought none.
    quiet: u32,
}

impl Guard {
    pub(super) fn new(budget: Duration) -> Self {
        let period = (!budget.is_zero()).then(|| Box::new(Timespec::from(budget)));
        Guard { period, armed: false, busy: false, quiet: 0 }
    }

    #[inline]
    pub(super) const fn is_on(&self) -> bool {
        self.period.is_some()
    }

    /// Whether a wait brought packets.
    #[inline]
    pub(super) const fn saw(&mut self, packets: bool) {
        self.busy = packets;
        self.quiet = if packets { 0 } else { self.quiet.saturating_add(1) };
    }

    /// The timer has fired; whether it will again.
    pub(super) const fn fired(&mut self, more: bool) {
        self.armed = more;
    }
}

impl Ring {
    /// How many completions to wait for, with a timer that bounds it.
    pub(super) fn guarded(&mut self) -> u32 {
        let guard = &self.state.guard;
        if !guard.busy {
            if guard.armed && guard.quiet == QUIET_WAITS {
                let cancel = CancelBuilder::user_data(user_data(Kind::Guard, NO_SOCKET));
                let entry = opcode::AsyncCancel2::new(cancel).build();
                self.push(entry.user_data(user_data(Kind::CancelAll, NO_SOCKET)));
            }
            return 1;
        }
        if !guard.armed
            && let Some(period) = &guard.period
        {
            let period = &raw const **period;
            let entry = opcode::Timeout::new(period).flags(TimeoutFlags::MULTISHOT).build();
            self.state.guard.armed = self.push(entry.user_data(user_data(Kind::Guard, NO_SOCKET)));
        }
        if self.state.guard.armed { WANT } else { 1 }
    }
}
