//! Many addresses behind one socket.
//!
//! A socket bound to the wildcard sends from any local address that is named per packet (IP_PKTINFO, IPV6_PKTINFO), and
//! all of 127.0.0.0/8 is local, as is whatever IPv6 prefix has a local route: thousands of clients with five-tuples of
//! their own are read with one system call, and nothing sleeps on the socket, so that the server's send never pays for
//! waking the load generator.
//!
//! What a server sends as a burst (UDP_SEGMENT) is received as one too (UDP_GRO) where that is asked for: otherwise
//! the kernel takes it to pieces inside the server's send, which a network card would do in its place. Packets that a
//! server sends one by one arrive one by one either way.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage, recvmmsg, sendmsg,
    setsockopt, sockopt,
};
use nix::{cmsg_space, libc};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{IoSlice, IoSliceMut};

use crate::cpu;

/// Packets, or bursts, read by one system call.
const BATCH: usize = 64;

/// Room for one received packet: an Ethernet frame and the header of an indication.
const PACKET_BYTES: usize = 2048;

/// Room for a received burst: what an IP packet can hold.
const BURST_BYTES: usize = 65_535;

/// Asked for on every socket, so that a loss is the server's: 16,000 small packets.
const RECEIVE_BUFFER_BYTES: usize = 32 * 1024 * 1024;

/// What became of a packet that was handed to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is on its way.
    Yes,
    /// The kernel had no room for it.
    NoRoom,
}

/// How packets are handed over by the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receive {
    /// One by one.
    Single,
    /// Those of a burst together.
    Bursts,
}

/// A row of addresses of the same port.
pub(crate) struct Endpoint {
    socket: Socket,
    first: IpAddr,
    port: u16,
    receive: Receive,
    headers: MultiHeaders<SockaddrStorage>,
    rooms: Vec<Vec<u8>>,
    arrived: Vec<Arrived>,
}

/// What lies in a room.
#[derive(Clone, Copy, Debug)]
struct Arrived {
    from: SocketAddr,
    bytes: usize,
    /// Bytes of each packet; the last may be shorter.
    segment: usize,
}

impl Endpoint {
    /// Opens a socket whose addresses start at `first`, on a port that the kernel draws.
    pub(crate) fn open(first: IpAddr, receive: Receive) -> io::Result<Self> {
        let (domain, any) = match first {
            IpAddr::V4(_) => (Domain::IPV4, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            IpAddr::V6(_) => (Domain::IPV6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if first.is_ipv6() {
            socket.set_only_v6(true)?;
            // An address that is local by a route alone is otherwise no source.
            socket.set_freebind_v6(true)?;
        }
        // Only the forced option may pass net.core.rmem_max; it takes CAP_NET_ADMIN.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        }
        if receive == Receive::Bursts {
            setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
        }
        socket.bind(&SocketAddr::from((any, 0)).into())?;
        socket.set_nonblocking(true)?;
        let port = socket.local_addr()?.as_socket().map_or(0, |address| address.port());
        Ok(Self {
            socket,
            first,
            port,
            receive,
            headers: MultiHeaders::preallocate(BATCH, None),
            rooms: vec![vec![0; receive.room()]; BATCH],
            arrived: Vec::with_capacity(BATCH),
        })
    }

    /// The address with this number.
    pub(crate) fn address(&self, index: u32) -> SocketAddr {
        SocketAddr::new(self.ip(index), self.port)
    }

    fn ip(&self, index: u32) -> IpAddr {
        match self.first {
            IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits().wrapping_add(index)).into(),
            IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits().wrapping_add(index.into())).into(),
        }
    }

    /// Packets that the kernel dropped at this socket.
    pub(crate) fn drops(&self) -> u64 {
        cpu::socket_drops(self.first.is_ipv4(), self.port)
    }

    /// Sends `bytes` from the address numbered `index`; with a segment size, as a burst of datagrams of that size.
    pub(crate) fn send(&self, index: u32, to: SocketAddr, bytes: &[u8], segment: Option<u16>) -> io::Result<Sent> {
        match self.ip(index) {
            IpAddr::V4(ip) => {
                let source = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: ip.to_bits().to_be() },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                self.send_from(ControlMessage::Ipv4PacketInfo(&source), to, bytes, segment)
            }
            IpAddr::V6(ip) => {
                let source = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
                self.send_from(ControlMessage::Ipv6PacketInfo(&source), to, bytes, segment)
            }
        }
    }

    fn send_from(
        &self,
        source: ControlMessage<'_>,
        to: SocketAddr,
        bytes: &[u8],
        segment: Option<u16>,
    ) -> io::Result<Sent> {
        let iov = [IoSlice::new(bytes)];
        let to = SockaddrStorage::from(to);
        let fd = self.socket.as_raw_fd();
        let sent = match &segment {
            None => sendmsg(fd, &iov, &[source], MsgFlags::MSG_DONTWAIT, Some(&to)),
            Some(size) => {
                let control = [source, ControlMessage::UdpGsoSegments(size)];
                sendmsg(fd, &iov, &control, MsgFlags::MSG_DONTWAIT, Some(&to))
            }
        };
        match sent {
            Ok(_) => Ok(Sent::Yes),
            Err(Errno::EAGAIN | Errno::ENOBUFS) => Ok(Sent::NoRoom),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Reads what has arrived, one batch at most, and gives each packet.
    pub(crate) fn receive(&mut self, mut each: impl FnMut(SocketAddr, &mut [u8])) -> io::Result<()> {
        self.arrived.clear();
        if self.receive == Receive::Bursts {
            // The kernel wrote into them how much control data there was, and takes that for the room at the next call.
            self.headers = MultiHeaders::preallocate(BATCH, Some(cmsg_space!(i32)));
        }
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] = {
            let mut rooms = self.rooms.iter_mut();
            std::array::from_fn(|_| [IoSliceMut::new(rooms.next().map_or(&mut [], |room| &mut room[..]))])
        };
        let fd = self.socket.as_raw_fd();
        match recvmmsg(fd, &mut self.headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None) {
            Ok(results) => self.arrived.extend(results.map(|result| Arrived::of(&result))),
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
        for (room, &Arrived { from, bytes, segment }) in self.rooms.iter_mut().zip(&self.arrived) {
            let length = bytes.min(room.len());
            for packet in room[..length].chunks_mut(segment) {
                each(from, packet);
            }
        }
        Ok(())
    }
}

impl Receive {
    fn room(self) -> usize {
        match self {
            Self::Single => PACKET_BYTES,
            Self::Bursts => BURST_BYTES,
        }
    }
}

impl Arrived {
    fn of(message: &RecvMsg<'_, '_, SockaddrStorage>) -> Self {
        let address = message.address.as_ref();
        let v4 = address.and_then(|address| address.as_sockaddr_in()).map(|&v4| SocketAddr::V4(v4.into()));
        let v6 = address.and_then(|address| address.as_sockaddr_in6()).map(|&v6| SocketAddr::V6(v6.into()));
        let from = v4.or(v6).unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        let segment = message.cmsgs().into_iter().flatten().find_map(|control| match control {
            ControlMessageOwned::UdpGroSegments(bytes) => usize::try_from(bytes).ok(),
            _ => None,
        });
        // A packet that came alone has no segment size.
        Self { from, bytes: message.bytes, segment: segment.unwrap_or(message.bytes).max(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive_all(endpoint: &mut Endpoint, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut got = Vec::new();
        while got.len() < count {
            endpoint.receive(|from, bytes| got.push((from, bytes.to_vec()))).expect("receive");
        }
        got
    }

    #[test]
    fn each_index_is_an_address_of_its_own() {
        let sender = Endpoint::open(Ipv4Addr::new(127, 66, 0, 1).into(), Receive::Single).expect("sender");
        let mut receiver = Endpoint::open(Ipv4Addr::new(127, 67, 0, 1).into(), Receive::Single).expect("receiver");
        for index in [0, 1, 300] {
            assert_eq!(sender.send(index, receiver.address(index), &[1, 2, 3], None).expect("send"), Sent::Yes);
        }
        let from: Vec<_> = receive_all(&mut receiver, 3).into_iter().map(|(from, _)| from).collect();
        assert_eq!(from, [sender.address(0), sender.address(1), sender.address(300)]);
        assert_eq!(sender.address(300).ip(), Ipv4Addr::new(127, 66, 1, 45));
    }

    #[test]
    fn the_other_family_has_as_many() {
        let endpoint = || Endpoint::open(Ipv6Addr::LOCALHOST.into(), Receive::Bursts).expect("endpoint");
        let (sender, mut receiver) = (endpoint(), endpoint());
        assert_eq!(sender.address(0x1_0000).ip(), Ipv6Addr::new(0, 0, 0, 0, 0, 0, 1, 1));
        sender.send(0, receiver.address(0), &[1; 24], Some(8)).expect("send");
        assert_eq!(receive_all(&mut receiver, 3), vec![(sender.address(0), vec![1; 8]); 3]);
    }

    #[test]
    fn a_burst_arrives_as_datagrams() {
        let sender = Endpoint::open(Ipv4Addr::new(127, 66, 0, 1).into(), Receive::Single).expect("sender");
        let bytes: Vec<u8> = (0..45).collect();
        for receive in [Receive::Single, Receive::Bursts] {
            let mut receiver = Endpoint::open(Ipv4Addr::new(127, 67, 0, 1).into(), receive).expect("receiver");
            // More than once, and a packet of its own before: what one call learned must not tell on the next.
            for _ in 0..3 {
                sender.send(7, receiver.address(0), &[9], None).expect("send");
                assert_eq!(receive_all(&mut receiver, 1)[0].1, [9]);
                sender.send(7, receiver.address(0), &bytes, Some(10)).expect("send");
                let packets: Vec<_> = receive_all(&mut receiver, 5).into_iter().map(|(_, bytes)| bytes).collect();
                assert_eq!(packets.concat(), bytes);
                assert_eq!(packets.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 10, 10, 5]);
            }
        }
    }

    #[test]
    fn a_burst_is_handed_over_as_one() {
        let sender = Endpoint::open(Ipv4Addr::new(127, 66, 0, 1).into(), Receive::Single).expect("sender");
        let mut receiver = Endpoint::open(Ipv4Addr::new(127, 67, 0, 1).into(), Receive::Bursts).expect("receiver");
        for _ in 0..2 {
            sender.send(0, receiver.address(0), &[1; 9600], Some(1200)).expect("send");
            assert_eq!(receive_all(&mut receiver, 8).len(), 8);
            assert_eq!(receiver.arrived.len(), 1);
        }
    }
}
