//! Personal data is a type: it compares and hashes, and it does not print.
//!
//! `expose` is called only where the bytes are truly needed; a test of the workspace reads its
//! callers against an allow-list.

use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::address::Family;

/// Personal data (an address, a user name): no revealing `Debug`, no `Display`, no `Serialize`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pii<T>(T);

/// A transport address of a client or of a peer: personal data.
pub type TransportAddress = Pii<SocketAddr>;

impl<T> Pii<T> {
    /// Marks `value` as personal data.
    pub const fn new(value: T) -> Self {
        Pii(value)
    }

    /// The value itself. Allow-listed by module.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl Pii<SocketAddr> {
    /// Its family: not personal.
    pub const fn family(&self) -> Family {
        match self.0 {
            SocketAddr::V4(_) => Family::V4,
            SocketAddr::V6(_) => Family::V6,
        }
    }

    /// Its port: not personal by itself.
    pub const fn port(&self) -> u16 {
        self.0.port()
    }

    /// The address without its port (a permission has none: RFC 8656, 9).
    pub const fn ip(&self) -> Pii<IpAddr> {
        Pii(self.0.ip())
    }

    /// The same address with another port.
    #[must_use]
    pub const fn with_port(&self, port: u16) -> Self {
        Pii(SocketAddr::new(self.0.ip(), port))
    }

    /// Feeds address and port to a keyed hash: a way to tell addresses apart without showing them.
    pub fn feed(&self, mut update: impl FnMut(&[u8])) {
        self.ip().feed(&mut update);
        update(&self.port().to_be_bytes());
    }
}

impl Pii<IpAddr> {
    /// This address with a port.
    pub const fn with_port(&self, port: u16) -> TransportAddress {
        Pii(SocketAddr::new(self.0, port))
    }

    /// Its family: not personal.
    pub const fn family(&self) -> Family {
        match self.0 {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// The network of the first `v4` or `v6` bits, as an opaque table key.
    pub const fn prefix(&self, v4: u32, v6: u32) -> Pii<u128> {
        match self.0 {
            IpAddr::V4(ip) => {
                let bits = ip.to_bits() as u128;
                // 1 << 127 tells the families apart; no 32-bit value reaches it.
                Pii((bits >> (32 - v4)) | (1 << 127))
            }
            IpAddr::V6(ip) => Pii(ip.to_bits() >> (128 - v6)),
        }
    }

    /// Feeds the address to a keyed hash.
    pub fn feed(&self, mut update: impl FnMut(&[u8])) {
        match self.0 {
            IpAddr::V4(ip) => update(&ip.octets()),
            IpAddr::V6(ip) => update(&ip.octets()),
        }
    }
}

impl Pii<Arc<[u8]>> {
    /// Feeds the bytes to a keyed hash.
    pub fn feed(&self, mut update: impl FnMut(&[u8])) {
        update(&self.0);
    }
}

impl<T> From<T> for Pii<T> {
    fn from(value: T) -> Self {
        Pii(value)
    }
}

impl<T> fmt::Debug for Pii<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<personal>")
    }
}

/// A secret (a password, a shared secret, a key): like [`Pii`], and it does not compare either
/// (comparison of secrets is `crypto`'s, in constant time).
#[derive(Clone)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Marks `value` as a secret.
    pub const fn new(value: T) -> Self {
        Secret(value)
    }

    /// The value itself. Allow-listed by module.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_prints() {
        let address: TransportAddress = Pii::new("192.0.2.7:4000".parse().unwrap());
        let shown = format!("{address:?} {:?} {:?}", address.ip(), Secret::new("hunter2"));
        assert_eq!(shown, "<personal> <personal> <secret>");
    }

    #[test]
    fn a_prefix_joins_neighbours_and_no_families() {
        let of = |s: &str| Pii::new(s.parse::<IpAddr>().unwrap()).prefix(24, 56);
        assert_eq!(of("192.0.2.7"), of("192.0.2.200"));
        assert_ne!(of("192.0.2.7"), of("192.0.3.7"));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:ff::1"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:100::1"));
        assert_ne!(of("0.0.0.1"), of("::"));
    }
}
