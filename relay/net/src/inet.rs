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
pub(crate) const CONTROL_BYTES: usize = 24;

/// The count of SO_RXQ_OVFL in control data; the kernel attaches it once a socket has dropped.
#[inline]
pub(crate) fn overflow_count(control: &[u8]) -> Option<u32> {
    let len = usize::from_ne_bytes(control.get(..8)?.try_into().ok()?);
    let level = i32::from_ne_bytes(control.get(8..12)?.try_into().ok()?);
    let kind = i32::from_ne_bytes(control.get(12..16)?.try_into().ok()?);
    if len != 20 || level != libc::SOL_SOCKET || kind != libc::SO_RXQ_OVFL {
        return None;
    }
    Some(u32::from_ne_bytes(control.get(16..20)?.try_into().ok()?))
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
