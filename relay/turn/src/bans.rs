//! Who is not served: client addresses and users. A table is made on the control plane and never changes; a worker
//! takes over another one between two packets. What overlaps is resolved when it is made: a look-up is one search.

use std::cmp::Reverse;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rand_core::RngCore;
use sluice_base::event::EndReason;
use sluice_base::limits::BANS_MAX;
use sluice_base::{AllocationId, Now, Pii, TenantId};

use crate::allocation::Allocation;
use crate::auth::Identity;
use crate::options::Network;
use crate::server::Server;

/// One ban.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ban {
    /// Who is not served.
    pub whom: Whom,
    /// Until when, in seconds since the Unix epoch; `None`: for good.
    pub until: Option<u64>,
}

/// Whom a ban is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Whom {
    /// Clients of an address, or of all whose first so many bits are the same. An IPv4 address is meant in whatever
    /// IPv6 address it is wrapped: v4-mapped, NAT64 (64:ff9b::/96), 6to4, Teredo.
    Address(Pii<IpAddr>, u8),
    /// A user of a tenant, by the name without expiry and tenant.
    User(TenantId, Pii<Arc<[u8]>>),
}

/// Some bans, to be looked up.
#[derive(Clone, Default)]
pub struct Bans {
    len: usize,
    v4: Ranges<u32>,
    v6: Ranges<u128>,
    /// In order, each once.
    users: Box<[User]>,
}

/// Why there is no such table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BansError {
    /// More than [`BANS_MAX`].
    TooMany(usize),
    /// A prefix that is longer than its address has bits, which are so many.
    Prefix(u8, u8),
}

/// Disjoint ranges of addresses in order, and until when each is banned.
#[derive(Clone)]
struct Ranges<T> {
    firsts: Box<[T]>,
    lasts: Box<[(T, u64)]>,
}

/// A user, and until when.
type User = (TenantId, Pii<Arc<[u8]>>, u64);

/// A range while a table is made: first, last, until when.
type Range = (u128, u128, u64);

/// ::ffff:0:0/96.
const MAPPED: u128 = 0xffff << 32;

impl Bans {
    /// A table of these bans. Of several about one client the longest holds.
    ///
    /// # Errors
    /// Too many, or a prefix that is none.
    pub fn new(bans: &[Ban]) -> Result<Self, BansError> {
        if bans.len() > BANS_MAX {
            return Err(BansError::TooMany(bans.len()));
        }
        let (mut v4, mut v6, mut users) = (Vec::new(), Vec::new(), Vec::new());
        for ban in bans {
            let until = ban.until.unwrap_or(u64::MAX);
            match &ban.whom {
                Whom::Address(ip, bits) => add(*ip.expose(), *bits, until, &mut v4, &mut v6)?,
                Whom::User(tenant, user) => users.push((*tenant, user.clone(), until)),
            }
        }
        users.sort_unstable_by(|a, b| (a.0, &a.1, Reverse(a.2)).cmp(&(b.0, &b.1, Reverse(b.2))));
        users.dedup_by(|later, first| (later.0, &later.1) == (first.0, &first.1));
        Ok(Bans { len: bans.len(), v4: Ranges::of(v4), v6: Ranges::of(v6), users: users.into() })
    }

    /// A table of ranges that are not served for good, such as a configuration has.
    ///
    /// # Errors
    /// Too many, or a prefix that is none.
    pub fn of_networks(networks: &[Network]) -> Result<Self, BansError> {
        let ban = |network: &Network| Ban { whom: Whom::Address(Pii::new(network.address), network.bits), until: None };
        Bans::new(&networks.iter().map(ban).collect::<Vec<_>>())
    }

    /// How many bans it was made of, those that have run out included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nobody is banned.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether clients of this address are not served now.
    pub fn names_address(&self, ip: Pii<IpAddr>, unix_seconds: u64) -> bool {
        match *ip.expose() {
            IpAddr::V4(ip) => self.v4.holds(ip.to_bits(), unix_seconds),
            IpAddr::V6(ip) => {
                let inner = || sluice_base::address::wrapped(ip);
                self.v6.holds(ip.to_bits(), unix_seconds)
                    || !self.v4.is_empty() && inner().is_some_and(|ip| self.v4.holds(ip.to_bits(), unix_seconds))
            }
        }
    }

    /// Whether this user is not served now.
    pub fn names_user(&self, tenant: TenantId, user: &Pii<Arc<[u8]>>, unix_seconds: u64) -> bool {
        let found = self.users.binary_search_by(|(of, name, _)| (*of, name).cmp(&(tenant, user)));
        found.is_ok_and(|at| unix_seconds < self.users[at].2)
    }
}

/// Adds the range of a network to those of its family.
fn add(ip: IpAddr, bits: u8, until: u64, v4: &mut Vec<Range>, v6: &mut Vec<Range>) -> Result<(), BansError> {
    let range = |address: u128, width: u8| {
        let free = u128::MAX.checked_shr(u32::from(128 - width + bits)).unwrap_or(0);
        (address & !free, address | free, until)
    };
    match ip {
        IpAddr::V4(_) if bits > 32 => return Err(BansError::Prefix(bits, 32)),
        IpAddr::V6(_) if bits > 128 => return Err(BansError::Prefix(bits, 128)),
        IpAddr::V4(ip) => v4.push(range(u128::from(ip.to_bits()), 32)),
        IpAddr::V6(ip) => {
            let (first, last, _) = range(ip.to_bits(), 128);
            if bits >= 96 && first & !0xffff_ffff == MAPPED {
                v4.push((first ^ MAPPED, last ^ MAPPED, until));
            }
            v6.push((first, last, until));
        }
    }
    Ok(())
}

impl<T: Copy + Ord + TryFrom<u128>> Ranges<T> {
    /// Of ranges that lie within each other or apart, as prefixes do.
    fn of(mut ranges: Vec<Range>) -> Self {
        ranges.sort_unstable_by_key(|(first, last, until)| (*first, Reverse(*last), Reverse(*until)));
        let narrow = |n: u128| T::try_from(n).ok();
        let parts = parts(&ranges);
        let firsts = parts.iter().filter_map(|(first, ..)| narrow(*first)).collect();
        let lasts = parts.iter().filter_map(|(_, last, until)| Some((narrow(*last)?, *until))).collect();
        Ranges { firsts, lasts }
    }

    fn is_empty(&self) -> bool {
        self.firsts.is_empty()
    }

    fn holds(&self, ip: T, unix_seconds: u64) -> bool {
        let behind = self.firsts.partition_point(|first| *first <= ip);
        behind.checked_sub(1).is_some_and(|at| {
            let (last, until) = self.lasts[at];
            ip <= last && unix_seconds < until
        })
    }
}

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Ranges { firsts: Box::default(), lasts: Box::default() }
    }
}

/// Cuts sorted ranges at each other's ends: a part has the longest time of all that cover it.
fn parts(ranges: &[Range]) -> Vec<Range> {
    let mut parts: Vec<Range> = Vec::with_capacity(ranges.len());
    let mut emit = |first: u128, last: u128, until: u64| match parts.last_mut() {
        _ if first > last => {}
        Some(before) if before.1.checked_add(1) == Some(first) && before.2 == until => before.1 = last,
        _ => parts.push((first, last, until)),
    };
    // What covers the place `at`, the narrowest last.
    let mut open: Vec<(u128, u64)> = Vec::new();
    let mut at = 0;
    for &(first, last, until) in ranges {
        while let Some(&(end, time)) = open.last()
            && end < first
        {
            emit(at, end, time);
            at = at.max(end + 1);
            open.pop();
        }
        let outer = open.last().copied();
        if let Some((_, time)) = outer
            && first > at
        {
            emit(at, first - 1, time);
        }
        at = first;
        open.push((last, outer.map_or(until, |(_, time)| time.max(until))));
    }
    while let Some((end, time)) = open.pop() {
        emit(at, end, time);
        let Some(next) = end.checked_add(1) else {
            break;
        };
        at = at.max(next);
    }
    parts
}

impl fmt::Debug for Bans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bans", self.len)
    }
}

impl fmt::Display for BansError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BansError::TooMany(count) => write!(f, "{count} bans are more than the {BANS_MAX} that there may be"),
            BansError::Prefix(bits, most) => write!(f, "a prefix of {bits} bits in an address of {most}"),
        }
    }
}

impl std::error::Error for BansError {}

impl<R: RngCore> Server<R> {
    /// Takes over other bans between two packets. Allocations of whoever is banned end at once, and what they ask from
    /// now on is dropped.
    pub fn ban(&mut self, now: Now, bans: Arc<Bans>) {
        self.bans = bans;
        self.end_banned(now);
    }

    /// Whether clients of this address are not served.
    pub(crate) fn is_banned(&self, now: Now, ip: Pii<IpAddr>) -> bool {
        let names = |bans: &Bans| !bans.is_empty() && bans.names_address(ip, now.unix_seconds);
        names(&self.denied_clients) || names(&self.bans)
    }

    /// Whether somebody who has proved a name is not served.
    pub(crate) fn is_banned_user(&self, now: Now, identity: &Identity) -> bool {
        self.bans.names_user(identity.tenant, &identity.user, now.unix_seconds)
    }

    /// Ends the allocations of whoever is banned.
    pub(crate) fn end_banned(&mut self, now: Now) {
        if self.bans.is_empty() && self.denied_clients.is_empty() {
            return;
        }
        let banned = |allocation: &Allocation| {
            self.is_banned(now, allocation.client.address.ip()) || self.is_banned_user(now, &allocation.identity)
        };
        let ended: Vec<AllocationId> =
            self.allocations.iter().flatten().filter(|a| banned(a)).map(|allocation| allocation.id).collect();
        ended.into_iter().for_each(|id| self.end(now, id, EndReason::Banned));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ban(text: &str, until: Option<u64>) -> Ban {
        let (ip, bits) = text.split_once('/').unwrap();
        Ban { whom: Whom::Address(Pii::new(ip.parse().unwrap()), bits.parse().unwrap()), until }
    }

    fn names(bans: &Bans, ip: &str, now: u64) -> bool {
        bans.names_address(Pii::new(ip.parse().unwrap()), now)
    }

    #[test]
    fn a_prefix_bans_its_addresses_until_its_end() {
        let bans = Bans::new(&[ban("192.0.2.64/26", Some(100)), ban("2001:db8::/32", None)]).unwrap();
        for (ip, now, expected) in [
            ("192.0.2.63", 0, false),
            ("192.0.2.64", 99, true),
            ("192.0.2.127", 99, true),
            ("192.0.2.127", 100, false),
            ("192.0.2.128", 0, false),
            ("2001:db8:ffff::1", u64::MAX - 1, true),
            ("2001:db9::", 0, false),
            ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", 0, false),
        ] {
            assert_eq!(names(&bans, ip, now), expected, "{ip} at {now}");
        }
    }

    #[test]
    fn an_ipv4_address_is_banned_in_whatever_it_is_wrapped() {
        let bans = Bans::new(&[ban("192.0.2.7/32", None)]).unwrap();
        for ip in ["192.0.2.7", "::ffff:192.0.2.7", "64:ff9b::192.0.2.7", "2002:c000:207::1"] {
            assert!(names(&bans, ip, 0), "{ip}");
        }
        for ip in ["::ffff:192.0.2.8", "64:ff9b::192.0.2.6", "2001:db8::192.0.2.7"] {
            assert!(!names(&bans, ip, 0), "{ip}");
        }
        let mapped = Bans::new(&[ban("::ffff:192.0.2.0/120", None)]).unwrap();
        assert!(names(&mapped, "192.0.2.200", 0) && !names(&mapped, "192.0.3.0", 0));
    }

    #[test]
    fn everybody_of_one_family_is_not_the_other() {
        let v4 = Bans::new(&[ban("0.0.0.0/0", None)]).unwrap();
        assert!(names(&v4, "255.255.255.255", 0) && names(&v4, "0.0.0.0", 0) && !names(&v4, "2001:db8::1", 0));
        let v6 = Bans::new(&[ban("::/0", None)]).unwrap();
        assert!(names(&v6, "::", 0) && names(&v6, "ffff::ffff", 0) && !names(&v6, "192.0.2.1", 0));
    }

    #[test]
    fn users_are_banned_by_tenant_and_name_and_the_longest_ban_holds() {
        let user = |name: &str| Pii::new(Arc::from(name.as_bytes()));
        let of = |tenant, name, until| Ban { whom: Whom::User(TenantId(tenant), user(name)), until };
        let bans =
            Bans::new(&[of(1, "b", Some(5)), of(0, "a", None), of(1, "b", Some(9)), of(1, "b", Some(7))]).unwrap();
        assert_eq!(bans.len(), 4);
        assert!(bans.names_user(TenantId(1), &user("b"), 8) && !bans.names_user(TenantId(1), &user("b"), 9));
        assert!(bans.names_user(TenantId(0), &user("a"), u64::MAX - 1));
        assert!(!bans.names_user(TenantId(0), &user("b"), 0) && !bans.names_user(TenantId(1), &user(""), 0));
    }

    #[test]
    fn what_is_no_table_is_refused() {
        assert_eq!(Bans::new(&[ban("192.0.2.1/33", None)]).unwrap_err(), BansError::Prefix(33, 32));
        assert_eq!(Bans::new(&[ban("::/129", None)]).unwrap_err(), BansError::Prefix(129, 128));
        assert_eq!(Bans::new(&[ban("::/255", None)]).unwrap_err(), BansError::Prefix(255, 128));
        let many = vec![ban("192.0.2.1/32", None); BANS_MAX + 1];
        assert_eq!(Bans::new(&many).unwrap_err(), BansError::TooMany(BANS_MAX + 1));
        assert!(Bans::new(&many[1..]).is_ok());
    }

    #[test]
    fn a_table_does_not_print_who_is_in_it() {
        let bans = [ban("192.0.2.7/32", None)];
        assert_eq!(format!("{:?}", Bans::new(&bans).unwrap()), "1 bans");
        assert!(!format!("{bans:?}").contains("192"));
    }

    /// Addresses that are near each other, so that prefixes overlap.
    fn address() -> impl Strategy<Value = IpAddr> {
        let v4 = (0u32..64, prop::bool::ANY).prop_map(|(low, high)| IpAddr::V4((if high { !low } else { low }).into()));
        let v6 = (0u128..64, 0u8..4).prop_map(|(low, kind)| match kind {
            0 => low,
            1 => !low,
            2 => MAPPED | low,
            _ => 0x0064_ff9b << 96 | low,
        });
        prop_oneof![v4, v6.prop_map(|bits| IpAddr::V6(bits.into()))]
    }

    fn any_ban() -> impl Strategy<Value = (Network, Option<u64>)> {
        let short = prop_oneof![4 => 0u8..8, 1 => 0u8..=128];
        (address(), short, prop::option::of(0u64..4)).prop_map(|(address, short, until)| {
            let width = if address.is_ipv4() { 32u8 } else { 128 };
            (Network { address, bits: width.saturating_sub(short) }, until)
        })
    }

    fn is_named(bans: &[(Network, Option<u64>)], ip: IpAddr, now: u64) -> bool {
        let inner = match ip {
            IpAddr::V6(ip) => sluice_base::address::wrapped(ip).map(IpAddr::V4),
            IpAddr::V4(_) => None,
        };
        let mapped = |network: &Network, ip: IpAddr| match ip {
            IpAddr::V4(ip) if network.bits >= 96 => network.contains(IpAddr::V6(ip.to_ipv6_mapped())),
            _ => false,
        };
        let covers = |network: &Network, ip| network.contains(ip) || mapped(network, ip);
        bans.iter().any(|(network, until)| {
            until.is_none_or(|until| now < until)
                && (covers(network, ip) || inner.is_some_and(|ip| covers(network, ip)))
        })
    }

    proptest! {
        #[test]
        fn a_table_is_the_list_that_it_was_made_of(
            list in prop::collection::vec(any_ban(), 0..40),
            asked in prop::collection::vec((address(), 0u64..5), 1..40),
        ) {
            let ban = |(network, until): &(Network, Option<u64>)| {
                Ban { whom: Whom::Address(Pii::new(network.address), network.bits), until: *until }
            };
            let table = Bans::new(&list.iter().map(ban).collect::<Vec<_>>()).unwrap();
            for (ip, now) in asked {
                prop_assert_eq!(table.names_address(Pii::new(ip), now), is_named(&list, ip, now), "{} at {}", ip, now);
            }
        }
    }
}
