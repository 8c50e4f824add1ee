//! Socket addresses as the kernel has them.

use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use sluice_base::pii::{Pii, TransportAddress};

/// Storage for either family.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) union Name {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Name {
    pub(crate) const fn empty() -> Self {
        // SAFETY: all-zero bytes are a valid value of every field.
        unsafe { zeroed() }
    }

    /// Writes an address; its length for the kernel.
    #[inline]
    pub(crate) fn set(&mut self, address: &TransportAddress) -> u32 {
        match address.expose() {
            SocketAddr::V4(v4) => {
                self.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as _,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                };
                size_of::<libc::sockaddr_in>() as u32
            }
            SocketAddr::V6(v6) => {
                self.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as _,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                };
                size_of::<libc::sockaddr_in6>() as u32
            }
        }
    }

    /// The address that the kernel wrote.
    #[inline]
    pub(crate) fn address(&self) -> Option<TransportAddress> {
        // SAFETY: every field is plain data for which all bytes are valid, and the union is never
        // uninitialised.
        let address = unsafe {
            match i32::from(self.family) {
                libc::AF_INET => SocketAddr::V4(SocketAddrV4::new(
                    Ipv4Addr::from(self.v4.sin_addr.s_addr.to_ne_bytes()),
                    u16::from_be(self.v4.sin_port),
                )),
                // A flow label is not part of an address's identity.
                libc::AF_INET6 => SocketAddr::V6(SocketAddrV6::new(
                    Ipv6Addr::from(self.v6.sin6_addr.s6_addr),
                    u16::from_be(self.v6.sin6_port),
                    0,
                    self.v6.sin6_scope_id,
                )),
                _ => return None,
            }
        };
        Some(Pii::new(address))
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<personal>")
    }
}

/// Room for one SO_RXQ_OVFL control message.
pub(crate) const CONTROL_BYTES: usize = MESSAGE_BYTES;

/// Room for UDP_GRO's beside it.
pub(crate) const BURST_CONTROL_BYTES: usize = 2 * MESSAGE_BYTES;

/// A control message of four bytes: its header, itself, and what aligns the next.
const MESSAGE_BYTES: usize = 24;

/// What control data says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Control {
    /// The count of SO_RXQ_OVFL; the kernel attaches it once a socket has dropped.
    pub(crate) dropped: Option<u32>,
    /// The length of each packet but the last, where the datagram is a burst (UDP_GRO).
    pub(crate) segment: Option<u32>,
}

/// Reads control data.
#[inline]
pub(crate) fn control(mut data: &[u8]) -> Control {
    let mut found = Control::default();
    while let Some((message, rest)) = data.split_first_chunk::<MESSAGE_BYTES>() {
        let word = |at: usize| u32::from_ne_bytes([message[at], message[at + 1], message[at + 2], message[at + 3]]);
        let len = usize::from_ne_bytes(message[..8].try_into().unwrap_or_default());
        match (len, word(8) as i32, word(12) as i32) {
            (20, libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => found.dropped = Some(word(16)),
            (20, libc::SOL_UDP, libc::UDP_GRO) => found.segment = Some(word(16)),
            _ => break,
        }
        data = rest;
    }
    found
}

/// Control data that has a send cut into packets of `segment` bytes (UDP_SEGMENT).
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(crate) struct Cut([u8; MESSAGE_BYTES]);

impl Cut {
    /// What the kernel is told of its length: CMSG_SPACE(2).
    pub(crate) const BYTES: usize = MESSAGE_BYTES;

    pub(crate) const fn new() -> Self {
        Cut([0; MESSAGE_BYTES])
    }

    #[inline]
    pub(crate) fn set(&mut self, segment: u16) {
        self.0[..8].copy_from_slice(&18_usize.to_ne_bytes());
        self.0[8..12].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
        self.0[12..16].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
        self.0[16..18].copy_from_slice(&segment.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_to_the_kernel_and_back() {
        for text in ["192.0.2.7:4000", "[2001:db8::1]:65535", "[fe80::1%3]:9"] {
            let address: TransportAddress = Pii::new(text.parse().unwrap());
            let mut name = Name::empty();
            name.set(&address);
            assert!(name.address() == Some(address), "{text}");
        }
        assert!(Name::empty().address().is_none());
    }
}
