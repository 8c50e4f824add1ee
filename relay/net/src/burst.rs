//! Whether a socket's packets come in bursts, and whether it pays to take them as bursts.
//!
//! A socket is tried when at least half of its packets follow one of the same flow and length within a
//! tick: they may have been a burst on their way here. It stays with UDP_GRO while the kernel does put
//! packets together; where it does not (a sender that spaces them, an interface without GRO), each
//! trial that failed doubles the time until the next.

use sluice_base::id::SocketId;
use sluice_base::io::Event;
use sluice_base::limits::BURST_PATIENCE_MAX;
use sluice_base::pii::TransportAddress;

use crate::arena::Packet;

/// Packets between two looks.
const WINDOW: u32 = 256;

/// What is known of one socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bursts {
    mode: Mode,
    /// Packets in this window, and those among them that count for bursts.
    packets: u32,
    hits: u32,
    /// Windows to let pass before the next trial, and how many it will be after a failed one.
    waiting: u32,
    patience: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// Packets come one by one, into ordinary slots.
    Single,
    /// UDP_GRO is on: long slots.
    Grouped,
}

/// What is to be done about a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Receive into long slots, and then switch UDP_GRO on.
    Group,
    /// Switch UDP_GRO off if nothing is queued, and then ([`Bursts::ungrouped`]) receive into ordinary slots.
    Ungroup,
}

impl Bursts {
    pub(crate) const fn new() -> Self {
        Bursts { mode: Mode::Single, packets: 0, hits: 0, waiting: 0, patience: 1 }
    }

    /// A datagram came: of how many packets, and whether it followed one of its flow.
    #[inline]
    pub(crate) fn observe(&mut self, segments: u32, follows: bool) -> Option<Step> {
        self.packets += segments;
        let hit = match self.mode {
            Mode::Single => follows,
            Mode::Grouped => segments > 1,
        };
        if hit {
            self.hits += segments;
        }
        if self.packets < WINDOW { None } else { self.window() }
    }

    #[cold]
    fn window(&mut self) -> Option<Step> {
        let (packets, hits) = (self.packets, self.hits);
        (self.packets, self.hits) = (0, 0);
        match self.mode {
            Mode::Single if self.waiting > 0 => {
                self.waiting -= 1;
                None
            }
            Mode::Single if hits * 2 >= packets => {
                self.mode = Mode::Grouped;
                Some(Step::Group)
            }
            Mode::Single => None,
            Mode::Grouped if hits * 4 >= packets => {
                self.patience = 1;
                None
            }
            Mode::Grouped => Some(Step::Ungroup),
        }
    }

    /// UDP_GRO is off.
    pub(crate) fn ungrouped(&mut self) {
        self.mode = Mode::Single;
        self.waiting = self.patience;
        self.patience = (self.patience * 2).min(BURST_PATIENCE_MAX);
    }
}

/// Whether a packet follows one of the same flow and length.
#[inline]
pub(crate) fn follows(batch: &[Event<Packet>], socket: SocketId, from: &TransportAddress, len: usize) -> bool {
    match batch.last() {
        Some(Event::Datagram { socket: last, from: last_from, slot }) => {
            *last == socket && slot.len() == len && last_from == from
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(bursts: &mut Bursts, datagrams: u32, segments: u32, follows: impl Fn(u32) -> bool) -> Vec<Step> {
        let step = |at| {
            let step = bursts.observe(segments, follows(at));
            if step == Some(Step::Ungroup) {
                bursts.ungrouped();
            }
            step
        };
        (0..datagrams).filter_map(step).collect()
    }

    #[test]
    fn a_socket_is_grouped_while_the_kernel_groups_its_packets() {
        let mut bursts = Bursts::new();
        assert_eq!(steps(&mut bursts, 10_000, 1, |at| at % 3 == 0), []);
        assert_eq!(steps(&mut bursts, WINDOW, 1, |at| at % 8 > 0), [Step::Group]);
        assert_eq!(steps(&mut bursts, 10_000, 8, |_| false), []);
        assert_eq!(steps(&mut bursts, 2 * WINDOW, 1, |_| false), [Step::Ungroup]);
    }

    #[test]
    fn one_with_something_queued_is_asked_again() {
        let mut bursts = Bursts { mode: Mode::Grouped, ..Bursts::new() };
        let steps: Vec<_> = (0..3 * WINDOW).filter_map(|_| bursts.observe(1, true)).collect();
        assert_eq!(steps, [Step::Ungroup; 3]);
        bursts.ungrouped();
        assert_eq!(bursts.observe(WINDOW, true), None, "no trial at once");
    }

    #[test]
    fn trials_that_fail_become_rare() {
        let mut bursts = Bursts::new();
        let taken = steps(&mut bursts, 1000 * WINDOW, 1, |_| true);
        // Each takes a window to begin and one to fail, and then 1, 2, 4 ... pass.
        assert_eq!(taken.len(), 10 * 2, "{taken:?}");
        assert_eq!(taken[..2], [Step::Group, Step::Ungroup]);
    }
}
