//! Packets that leave one after the other by one socket to one address: one send carries them all
//! (UDP_SEGMENT), as long as each but the last is as long as the first.

use sluice_base::id::SocketId;
use sluice_base::limits::BURST_SENT_MAX;
use sluice_base::pii::{Pii, TransportAddress};

use crate::arena::PACKET_PIECES;
use crate::socket::UNFRAGMENTED_BYTES;

/// Bytes of one send: what fits a datagram over IPv4, whose headers the kernel counts in.
const RUN_BYTES: usize = 65_535 - 20 - 8;

/// A run of packets; empty at first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) socket: SocketId,
    /// The socket that carries it, and whether that is connected to the address.
    pub(crate) via: SocketId,
    pub(crate) connected: bool,
    pub(crate) to: TransportAddress,
    pub(crate) packets: u32,
    /// The length of the first packet, and of each but the last.
    pub(crate) segment: usize,
    /// Where its pieces are.
    pub(crate) first_piece: usize,
    pub(crate) pieces: usize,
    bytes: usize,
    /// Nothing may follow.
    ended: bool,
}

impl Run {
    /// The pieces of the longest run, and what one more packet would take.
    pub(crate) const ROOM: usize = (BURST_SENT_MAX as usize + 1) * PACKET_PIECES;

    /// A run that is to begin with a packet of `len` bytes. Where it cannot be cut (`cuts`), or a segment might
    /// exceed a path's MTU, it is this packet alone.
    #[inline]
    pub(crate) const fn new(
        socket: SocketId,
        to: TransportAddress,
        len: usize,
        first_piece: usize,
        cuts: bool,
    ) -> Self {
        let ended = !cuts || len > UNFRAGMENTED_BYTES || len == 0;
        let (via, connected) = (socket, false);
        Run { socket, via, connected, to, packets: 0, segment: len, first_piece, pieces: 0, bytes: 0, ended }
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.packets == 0
    }

    /// Whether a packet may follow.
    #[inline]
    pub(crate) fn takes(&self, socket: SocketId, to: &TransportAddress, len: usize) -> bool {
        !self.ended
            && self.packets > 0
            && self.packets < BURST_SENT_MAX
            && len <= self.segment
            && len > 0
            && self.bytes + len <= RUN_BYTES
            && self.socket == socket
            && self.to == *to
    }

    /// Adds a packet: the first one, or one that it takes.
    #[inline]
    pub(crate) const fn add(&mut self, len: usize, pieces: usize) {
        self.packets += 1;
        self.bytes += len;
        self.pieces += pieces;
        self.ended |= len < self.segment;
    }
}

impl Default for Run {
    fn default() -> Self {
        let nowhere = std::net::SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0));
        Run::new(SocketId { index: 0, generation: 0 }, Pii::new(nowhere), 0, 0, false)
    }
}

/// Whether the kernel or the interface cannot cut sends, so that they have to go one by one: no checksum
/// offload (EIO), a path whose MTU is less than a packet (EINVAL, EMSGSIZE).
pub(crate) const fn is_refusal_of_bursts(errno: i32) -> bool {
    matches!(errno, libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP)
}

/// Sends of a socket after a refusal that go one by one, before a burst is tried again: the path of one client
/// does not take the bursts of all others for good, and loses at most one in so many.
pub(crate) const UNCUT_SENDS: u32 = 65_536;

/// A socket that never sends bursts.
pub(crate) const UNCUT: u32 = u32::MAX;

/// Whether the next send of a socket may carry a burst; counts down to that.
#[inline]
pub(crate) const fn may_cut(uncut: &mut u32) -> bool {
    match *uncut {
        0 => return true,
        UNCUT => {}
        _ => *uncut -= 1,
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOCKET: SocketId = SocketId { index: 3, generation: 1 };

    fn to(text: &str) -> TransportAddress {
        Pii::new(text.parse().unwrap())
    }

    fn run(lens: &[usize]) -> Run {
        let mut run = Run::new(SOCKET, to("192.0.2.1:9"), lens[0], 0, true);
        lens.iter().for_each(|len| run.add(*len, 1));
        run
    }

    #[test]
    fn equal_packets_of_one_flow_make_a_run() {
        let same = to("192.0.2.1:9");
        assert!(!Run::default().takes(SOCKET, &same, 100));
        assert!(run(&[100]).takes(SOCKET, &same, 100));
        assert!(run(&[100, 100]).takes(SOCKET, &same, 7), "a shorter one may be the last");
        assert!(!run(&[100, 7]).takes(SOCKET, &same, 7), "and nothing follows it");
        assert!(!run(&[100]).takes(SOCKET, &same, 101));
        assert!(!run(&[100]).takes(SOCKET, &same, 0));
        assert!(!run(&[100]).takes(SOCKET, &to("192.0.2.1:10"), 100));
        assert!(!run(&[100]).takes(SocketId { index: 4, ..SOCKET }, &same, 100));
    }

    #[test]
    fn a_run_keeps_to_what_the_kernel_takes() {
        let same = to("192.0.2.1:9");
        assert!(run(&[100; 63]).takes(SOCKET, &same, 100));
        assert!(!run(&[100; 64]).takes(SOCKET, &same, 100));
        assert!(!run(&[1200; 54]).takes(SOCKET, &same, 1200), "64 800 bytes and 1200 are more than a datagram");
        assert!(!run(&[UNFRAGMENTED_BYTES + 1]).takes(SOCKET, &same, 100));
        let mut alone = Run::new(SOCKET, same, 100, 0, false);
        alone.add(100, 1);
        assert!(!alone.takes(SOCKET, &same, 100), "a socket that cannot cut");
    }

    #[test]
    fn bursts_are_tried_again_after_a_refusal() {
        let mut uncut = UNCUT_SENDS;
        assert_eq!((0..=UNCUT_SENDS).filter(|_| may_cut(&mut uncut)).count(), 1);
        assert!(may_cut(&mut uncut));
        let mut never = UNCUT;
        assert!((0..10).all(|_| !may_cut(&mut never)));
    }
}
