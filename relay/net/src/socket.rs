//! Opening sockets: every option before the first packet.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use sluice_base::address::Family;
use sluice_base::io::{OpenError, OpenSpec, SendOptions, SocketRole};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::inet::Name;

/// A bound datagram socket and its address. A ring wants it blocking: it would take O_NONBLOCK for
/// "fail instead of waiting" and never arm a receive.
pub(crate) fn open(spec: &OpenSpec, nonblocking: bool) -> Result<(OwnedFd, SocketAddr), OpenError> {
    let socket = prepare(spec, nonblocking).map_err(|error| open_error(&error))?;
    let local = if spec.local.port() > 0 { Some(spec.local) } else { bound_to(&socket) };
    Ok((socket.into(), local.ok_or(OpenError::Other(0))?))
}

/// A second socket at the local address of a relay socket, connected to a peer. See `ring::twin`.
pub(crate) fn open_twin(
    original: &OwnedFd,
    spec: &OpenSpec,
    unfragmented: bool,
    peer: &Name,
    peer_len: u32,
) -> io::Result<OwnedFd> {
    let original = SockRef::from(original);
    let local = original.local_addr()?;
    let Some(address) = local.as_socket() else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let twin = plain(address)?;
    set_buffers(&twin, spec)?;
    set_option(twin.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
    if unfragmented {
        set_dont_fragment(twin.as_raw_fd(), Family::of(address.ip()), true)?;
    }
    twin.set_reuse_port(true)?;
    original.set_reuse_port(true)?;
    let bound = twin.bind(&local);
    original.set_reuse_port(false)?;
    bound?;
    twin.set_reuse_port(false)?;
    // SAFETY: the kernel reads `peer_len` bytes of a name of at least that length.
    let connected = unsafe { libc::connect(twin.as_raw_fd(), std::ptr::from_ref(peer).cast(), peer_len) };
    if connected < 0 { Err(io::Error::last_os_error()) } else { Ok(twin.into()) }
}

fn bound_to(socket: &Socket) -> Option<SocketAddr> {
    socket.local_addr().ok()?.as_socket()
}

fn prepare(spec: &OpenSpec, nonblocking: bool) -> io::Result<Socket> {
    let socket = plain(spec.local)?;
    if nonblocking {
        socket.set_nonblocking(true)?;
    }
    if spec.role == SocketRole::Listener {
        socket.set_reuse_port(true)?;
    }
    set_buffers(&socket, spec)?;
    set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
    let family = Family::of(spec.local.ip());
    if starts_unfragmented(family) {
        set_dont_fragment(socket.as_raw_fd(), family, true)?;
    }
    socket.bind(&spec.local.into())?;
    Ok(socket)
}

fn plain(local: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn set_buffers(socket: &Socket, spec: &OpenSpec) -> io::Result<()> {
    if spec.receive_buffer_bytes > 0 {
        socket.set_recv_buffer_size(spec.receive_buffer_bytes as usize)?;
    }
    if spec.send_buffer_bytes > 0 {
        socket.set_send_buffer_size(spec.send_buffer_bytes as usize)?;
    }
    Ok(())
}

/// Payloads up to here pass any path without fragments (IPv6's least MTU of 1280 less its headers).
pub(crate) const UNFRAGMENTED_BYTES: usize = 1232;

/// The mode in which a socket starts. IPv4 draws an id for every packet that might be fragmented (2 % of a
/// send), and none for one that may not be: short packets never need to be.
pub(crate) const fn starts_unfragmented(family: Family) -> bool {
    matches!(family, Family::V4)
}

/// Whether a socket has to change its mode for this packet, and to which. Short packets go in either.
#[inline]
pub(crate) const fn fragments(unfragmented: bool, wish: SendOptions, payload_bytes: usize) -> Option<bool> {
    match unfragmented {
        false if wish.dont_fragment => Some(true),
        true if !wish.dont_fragment && payload_bytes > UNFRAGMENTED_BYTES => Some(false),
        _ => None,
    }
}

/// Forbids fragments, or leaves them to the kernel as it does for every socket: DF on what fits the path,
/// fragments of what does not (RFC 8656, 15 prefers the DF of the packet that came, and hosts send it so).
/// "Probe" sends what fits the interface whatever a path's discovered MTU says: that is the sender's
/// business, who asked for DF or sends short packets.
pub(crate) fn set_dont_fragment(socket: RawFd, family: Family, on: bool) -> io::Result<()> {
    match family {
        Family::V4 => {
            let value = if on { libc::IP_PMTUDISC_PROBE } else { libc::IP_PMTUDISC_WANT };
            set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, value)
        }
        Family::V6 => {
            let value = if on { libc::IPV6_PMTUDISC_PROBE } else { libc::IPV6_PMTUDISC_WANT };
            set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, value)?;
            set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, i32::from(on))
        }
    }
}

/// Has the kernel hand over packets of one flow that came together as one datagram (UDP_GRO).
pub(crate) fn group(socket: RawFd) -> io::Result<()> {
    set_option(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Switches that off again, unless something is queued: without the option the kernel would hand over a burst
/// that it has queued as one packet. Whether it is off.
pub(crate) fn ungroup(socket: RawFd) -> bool {
    if queued(socket) || set_option(socket, libc::SOL_UDP, libc::UDP_GRO, 0).is_err() {
        return false;
    }
    // What came meanwhile may be a burst still: then as before.
    if queued(socket) {
        let _ = group(socket);
        return false;
    }
    true
}

/// Whether a datagram waits, be it that we cannot know.
fn queued(socket: RawFd) -> bool {
    let mut poll = libc::pollfd { fd: socket, events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure to read and write.
    unsafe { libc::poll(&mut poll, 1, 0) != 0 }
}

fn set_option(socket: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel reads four bytes of `value`.
    let result = unsafe { libc::setsockopt(socket, level, name, (&raw const value).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

pub(crate) fn open_error(error: &io::Error) -> OpenError {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => OpenError::InUse,
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => OpenError::NoSockets,
        Some(libc::EADDRNOTAVAIL) => OpenError::NotLocal,
        other => OpenError::Other(other.unwrap_or(0)),
    }
}

/// Whether nobody holds a listener's address, this process included. Listeners share their port among
/// workers, and without this question a second relay of the same user would share it too, silently.
///
/// # Errors
/// [`OpenError::InUse`] when somebody has it, and what else binding answers.
pub fn listener_free(local: SocketAddr) -> Result<(), OpenError> {
    let bind = || plain(local)?.bind(&local.into());
    bind().map_err(|error| open_error(&error))
}

/// The sizes of a socket's buffers that the kernel granted, in bytes as they were asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Buffers {
    /// SO_RCVBUF.
    pub receive_bytes: u32,
    /// SO_SNDBUF.
    pub send_bytes: u32,
}

/// What of a spec's buffer sizes is granted: the kernel silently cuts them to `net.core.rmem_max` and
/// `net.core.wmem_max`.
///
/// # Errors
/// No socket could be made.
pub fn buffers_granted(spec: &OpenSpec) -> io::Result<Buffers> {
    let socket = plain(spec.local)?;
    set_buffers(&socket, spec)?;
    // The kernel doubles what is asked for, and shows the double.
    Ok(Buffers {
        receive_bytes: (socket.recv_buffer_size()? / 2) as u32,
        send_bytes: (socket.send_buffer_size()? / 2) as u32,
    })
}
