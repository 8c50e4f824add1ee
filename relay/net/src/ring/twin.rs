//! Connected twins: a relay socket that sends to one peer for long gets a second socket at the same local
//! address, connected to that peer. A connected socket keeps its route, which saves 5 % of a packet from
//! client to peer at 20 k pps.
//!
//! **Only the driver knows of twins.** What comes in by a twin is reported as the relay socket's, with its
//! source. So it does not matter that between its bind and its connect a twin may be given packets of
//! other peers. Whoever else sends to the relayed address arrives at the relay socket, as before.
//!
//! A port can be bound twice only while both sockets have SO_REUSEPORT. They have it for this moment
//! alone: with it, another process of the same user could share a relayed address at any time, and be
//! given its packets.
//!
//! An ICMP "port unreachable" makes a connected socket refuse one send. The twin is closed then, and the
//! relay socket does without one for good: nobody can cost a flow more than that by such messages.

use std::os::fd::AsRawFd;

use sluice_base::id::SocketId;
use sluice_base::pii::TransportAddress;

use super::{Ring, State};
use crate::inet::Name;
use crate::socket;

/// Sends to one address in a row after which a relay socket is given a twin: half a second of a voice call, and
/// more than a peer that is only looked for gets. A twin costs as much as it saves on some fifty packets.
const BUSY_AFTER: u32 = 25;

/// What a socket has to do with twins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Twin {
    /// It will not have one: a listener, or it did not work out.
    Never,
    /// Not yet: where it sent last, and how often in a row.
    None(Option<TransportAddress>, u32),
    /// It has one, connected to this peer.
    Has(SocketId, TransportAddress),
    /// It is the twin of this relay socket.
    Of(SocketId),
}

impl Twin {
    pub(super) const fn none() -> Self {
        Twin::None(None, 0)
    }

    /// The socket that the worker knows.
    #[inline]
    pub(super) const fn original(self, socket: SocketId) -> SocketId {
        match self {
            Twin::Of(original) => original,
            _ => socket,
        }
    }
}

/// Whether an error tells of what was sent before, or of a path that is not what it was: a twin ends with it. Not
/// one that tells of a lack of memory, and of the end of a receive.
pub(super) const fn is_refusal(errno: i32) -> bool {
    errno > 0 && !matches!(errno, libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::ECANCELED | libc::EINTR)
}

impl Ring {
    /// The socket by which a packet of an open socket leaves, and whether it is connected to `to`.
    #[inline]
    pub(super) fn via(&mut self, socket: SocketId, to: &TransportAddress) -> (SocketId, bool) {
        match &mut self.state.sockets[socket.index as usize].twin {
            Twin::Has(twin, peer) if peer == to => return (*twin, true),
            Twin::None(Some(last), times) if last == to => {
                *times += 1;
                if *times == BUSY_AFTER {
                    self.pair(socket, to);
                }
            }
            Twin::None(last, times) => (*last, *times) = (Some(*to), 0),
            _ => {}
        }
        (socket, false)
    }

    /// Gives a relay socket its twin, where there is room for one.
    #[cold]
    fn pair(&mut self, socket: SocketId, to: &TransportAddress) {
        let state = &self.state;
        let used = state.sockets.len() - state.free_sockets.len();
        // The table is made for what clients allocate; twins take of it what is far from being needed.
        let twin = if used < state.sockets_max as usize / 2 { self.open_twin(socket, to) } else { None };
        self.state.sockets[socket.index as usize].twin = twin.map_or(Twin::Never, |twin| Twin::Has(twin, *to));
    }

    fn open_twin(&mut self, socket: SocketId, to: &TransportAddress) -> Option<SocketId> {
        let spec = self.state.relay_spec?;
        let original = &self.state.sockets[socket.index as usize];
        let (family, unfragmented, uncut) = (original.family, original.unfragmented, original.uncut);
        let (bursts, grouped) = (original.bursts, original.grouped);
        let mut name = Name::empty();
        let name_len = name.set(to);
        let fd = socket::open_twin(original.fd.as_ref()?, &spec, unfragmented, &name, name_len).ok()?;
        let index = self.state.free_index()?;
        if self.state.features.direct_descriptors {
            let updated = self.ring.uring.submitter().register_files_update(index, &[fd.as_raw_fd()]);
            if updated.is_err() {
                self.state.free_sockets.push(index);
                return None;
            }
        }
        let entry = &mut self.state.sockets[index as usize];
        entry.begin(fd, family, uncut);
        entry.unfragmented = unfragmented;
        entry.twin = Twin::Of(socket);
        // The same packets come to it: what is known of them goes on.
        (entry.bursts, entry.grouped, entry.switching) = (bursts, grouped, grouped);
        self.state.grouped_sockets += u32::from(grouped);
        let twin = SocketId { index, generation: entry.generation };
        self.state.arming.push(twin);
        Some(twin)
    }
}

impl State {
    /// Closes a twin whose peer refused a packet; its relay socket goes on without one. Nothing for other sockets.
    #[cold]
    pub(super) fn separate(&mut self, index: u32) {
        let Some(entry) = self.sockets.get(index as usize) else { return };
        let Twin::Of(original) = entry.twin else { return };
        let twin = SocketId { index, generation: entry.generation };
        if let Some(entry) = self.open_entry(original)
            && matches!(entry.twin, Twin::Has(it, _) if it == twin)
        {
            entry.twin = Twin::Never;
        }
        self.close(twin);
    }
}
