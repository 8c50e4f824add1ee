//! Personal data is a type: it compares and hashes, and it does not print.
//!
//! `expose` is called only where the bytes are truly needed; a test of the workspace reads its
//! callers against an allow-list.

use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use showing::Kind;

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

    /// The same address, or the IPv4 address that a v4-mapped one stands for.
    #[must_use]
    pub const fn canonical(&self) -> Self {
        Pii(self.0.to_canonical())
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

/// What a pseudonym of it is made of. An address's is that of its IP, whatever the port.
pub trait Personal {
    /// What it is.
    const KIND: Kind;

    /// Hands over its bytes.
    fn bytes(&self, update: &mut dyn FnMut(&[u8]));
}

impl Personal for IpAddr {
    const KIND: Kind = Kind::Address;

    fn bytes(&self, update: &mut dyn FnMut(&[u8])) {
        Pii(*self).feed(update);
    }
}

impl Personal for SocketAddr {
    const KIND: Kind = Kind::Address;

    fn bytes(&self, update: &mut dyn FnMut(&[u8])) {
        self.ip().bytes(update);
    }
}

/// The network that a prefix stands for.
impl Personal for u128 {
    const KIND: Kind = Kind::Network;

    fn bytes(&self, update: &mut dyn FnMut(&[u8])) {
        update(&self.to_be_bytes());
    }
}

impl Personal for Arc<[u8]> {
    const KIND: Kind = Kind::Name;

    fn bytes(&self, update: &mut dyn FnMut(&[u8])) {
        update(self);
    }
}

impl Personal for Vec<u8> {
    const KIND: Kind = Kind::Name;

    fn bytes(&self, update: &mut dyn FnMut(&[u8])) {
        update(self);
    }
}

impl Personal for String {
    const KIND: Kind = Kind::Name;

    fn bytes(&self, update: &mut dyn FnMut(&[u8])) {
        update(self.as_ref());
    }
}

/// Never the value: see [`showing`].
impl<T: Personal> fmt::Debug for Pii<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match showing::pseudonym(&self.0) {
            Some(pseudonym) => f.write_str(&pseudonym),
            None => f.write_str("<personal>"),
        }
    }
}

/// How one sink may have personal data printed as pseudonyms, while it formats one event on its thread.
pub mod showing {
    use std::cell::RefCell;
    use std::sync::Arc;

    use super::Personal;

    /// What a pseudonym stands for: those of different kinds have nothing to do with each other.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum Kind {
        /// An IP address.
        Address,
        /// A network.
        Network,
        /// A user's name.
        Name,
    }

    /// Makes a pseudonym, under a key of its own.
    pub type Shower = Arc<dyn Fn(Kind, &[u8]) -> String + Send + Sync>;

    thread_local! {
        static SHOWER: RefCell<Option<Shower>> = const { RefCell::new(None) };
    }

    /// Runs `f`, in which this thread prints personal data as `shower` makes it.
    pub fn with<R>(shower: &Shower, f: impl FnOnce() -> R) -> R {
        let _back = Back(SHOWER.replace(Some(shower.clone())));
        f()
    }

    /// The pseudonym of `value`, if one may be printed now.
    pub(super) fn pseudonym<T: Personal>(value: &T) -> Option<String> {
        let shower = SHOWER.with_borrow(Clone::clone)?;
        let mut bytes = Vec::new();
        value.bytes(&mut |part| bytes.extend_from_slice(part));
        Some(shower(T::KIND, &bytes))
    }

    /// Puts back what was there before, also when `f` panics.
    struct Back(Option<Shower>);

    impl Drop for Back {
        fn drop(&mut self) {
            SHOWER.set(self.0.take());
        }
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
    fn a_pseudonym_is_printed_only_where_it_is_being_shown() {
        let shower: showing::Shower = Arc::new(|kind, bytes| format!("{kind:?}/{}", bytes.len()));
        let address: TransportAddress = Pii::new("192.0.2.7:4000".parse().unwrap());
        let name: Pii<Arc<[u8]>> = Pii::new(b"alice"[..].into());
        let secret = Secret::new("hunter2");
        let shown = showing::with(&shower, || format!("{address:?} {name:?} {secret:?}"));
        assert_eq!(shown, "Address/4 Name/5 <secret>");
        assert_eq!(format!("{address:?}"), "<personal>");
        let broken = || showing::with(&shower, || std::panic::resume_unwind(Box::new(())));
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(broken));
        assert_eq!(format!("{address:?}"), "<personal>");
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
