//! What may be done to a value, and which of two actions leaves less of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Life of a pseudonym's key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Window {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week.
    Week,
}

/// Leading bits of an address that stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    /// Of an IPv4 address.
    pub v4: u8,
    /// Of an IPv6 address.
    pub v6: u8,
}

/// What is done to a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// It is not written.
    Drop,
    /// This is written in its place.
    Replace(String),
    /// A keyed hash of it, or of the truncated address, is.
    Pseudonymise(Window, Option<Prefix>),
    /// The leading bits of an address are.
    TruncateAddress(Prefix),
    /// A time is, rounded down to a multiple of so many seconds.
    TruncateTime(u32),
    /// It is.
    Keep,
}

impl Window {
    /// How many seconds that is.
    pub const fn seconds(self) -> u64 {
        match self {
            Window::Hour => 3600,
            Window::Day => 24 * 3600,
            Window::Week => 7 * 24 * 3600,
        }
    }
}

impl Prefix {
    /// The leading bits of an address, and zeros. An IPv4 address inside an IPv6 one (v4-mapped) is the IPv4 address.
    pub fn of(self, ip: IpAddr) -> IpAddr {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32_u32.saturating_sub(self.v4.into())).unwrap_or(0);
                Ipv4Addr::from_bits(ip.to_bits() & mask).into()
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128_u32.saturating_sub(self.v6.into())).unwrap_or(0);
                Ipv6Addr::from_bits(ip.to_bits() & mask).into()
            }
        }
    }

    fn and(self, other: Prefix) -> Prefix {
        Prefix { v4: self.v4.min(other.v4), v6: self.v6.min(other.v6) }
    }
}

impl Action {
    /// The mildest that is as strict as both.
    #[must_use]
    pub fn and(&self, other: &Action) -> Action {
        use Action::{Drop, Keep, Pseudonymise, Replace, TruncateAddress, TruncateTime};
        match (self, other) {
            (Keep, action) | (action, Keep) => action.clone(),
            (Drop, _) | (_, Drop) => Drop,
            (Replace(a), Replace(b)) => Replace(a.min(b).clone()),
            (Replace(text), _) | (_, Replace(text)) => Replace(text.clone()),
            (Pseudonymise(a, p), Pseudonymise(b, q)) => Pseudonymise(*a.min(b), both(*p, *q)),
            (Pseudonymise(window, p), TruncateAddress(q)) | (TruncateAddress(q), Pseudonymise(window, p)) => {
                Pseudonymise(*window, both(*p, Some(*q)))
            }
            (TruncateAddress(p), TruncateAddress(q)) => TruncateAddress(p.and(*q)),
            (TruncateTime(a), TruncateTime(b)) => TruncateTime(*a.max(b)),
            // No value is both a time and something else.
            (TruncateTime(_), _) | (_, TruncateTime(_)) => Drop,
        }
    }

    /// Whether its numbers can be meant.
    pub(super) fn is_sound(&self) -> bool {
        let fits = |prefix: &Prefix| prefix.v4 <= 32 && prefix.v6 <= 128;
        match self {
            Action::Pseudonymise(_, prefix) => prefix.as_ref().is_none_or(fits),
            Action::TruncateAddress(prefix) => fits(prefix),
            Action::TruncateTime(seconds) => *seconds > 0,
            Action::Drop | Action::Replace(_) | Action::Keep => true,
        }
    }
}

fn both(a: Option<Prefix>, b: Option<Prefix>) -> Option<Prefix> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.and(b)),
        (one, other) => one.or(other),
    }
}
