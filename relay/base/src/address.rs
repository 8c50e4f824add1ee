//! Classes of addresses: IANA's special-purpose registries for IPv4 and IPv6, and the IPv4 address
//! inside the forms that carry one.
//!
//! Sources: IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890, RFC 8190), RFC 6052
//! (NAT64), RFC 3056 (6to4), RFC 4380 (Teredo).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address family (RFC 8656, 18.7: 0x01 and 0x02).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }
}

/// What kind of address a peer has, so that a guard and a policy can decide without it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum AddressClass {
    /// Globally reachable.
    Public,
    /// RFC 1918.
    Private,
    /// Carrier-grade NAT, RFC 6598.
    Shared,
    /// 127.0.0.0/8, ::1.
    Loopback,
    /// 169.254.0.0/16, fe80::/10.
    LinkLocal,
    /// fc00::/7, and the deprecated site-local fec0::/10.
    UniqueLocal,
    /// A cloud's instance metadata service.
    Metadata,
    /// 224.0.0.0/4, ff00::/8.
    Multicast,
    /// 255.255.255.255.
    Broadcast,
    /// 0.0.0.0/8 ("this network"), ::.
    Unspecified,
    /// TEST-NET-1 to 3, 2001:db8::/32, 3fff::/20.
    Documentation,
    /// 198.18.0.0/15, 2001:2::/48.
    Benchmarking,
    /// Any other special-purpose or unallocated range.
    Reserved,
    /// A relayed transport address of a live allocation of this relay.
    OwnRelayed,
    /// Any other address of this relay.
    OwnInfrastructure,
}

impl AddressClass {
    /// Every class that a configuration may name, with its name. The relay's own addresses are not
    /// among them: they are judged by port and never opened.
    pub const NAMED: &'static [(&'static str, AddressClass)] = &[
        ("private", AddressClass::Private),
        ("shared", AddressClass::Shared),
        ("loopback", AddressClass::Loopback),
        ("link-local", AddressClass::LinkLocal),
        ("unique-local", AddressClass::UniqueLocal),
        ("metadata", AddressClass::Metadata),
        ("multicast", AddressClass::Multicast),
        ("broadcast", AddressClass::Broadcast),
        ("unspecified", AddressClass::Unspecified),
        ("documentation", AddressClass::Documentation),
        ("benchmarking", AddressClass::Benchmarking),
        ("reserved", AddressClass::Reserved),
    ];

    /// The class of an address, and whether it is that of an IPv4 address wrapped in an IPv6 one.
    pub const fn of(ip: IpAddr) -> (AddressClass, bool) {
        match ip {
            IpAddr::V4(ip) => (of_v4(ip), false),
            IpAddr::V6(ip) => match wrapped(ip) {
                Some(inner) => (of_v4(inner), true),
                None => (of_v6(ip), false),
            },
        }
    }
}

/// The IPv4 address inside a v4-mapped, v4-compatible, NAT64, 6to4 or Teredo address.
pub const fn wrapped(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = ip.to_bits();
    let low = Ipv4Addr::from_bits(bits as u32);
    let high_96 = bits >> 32;
    match high_96 {
        // ::ffff:0:0/96 mapped, ::ffff:0:0:0/96 translated (RFC 2765), 64:ff9b::/96 NAT64.
        0xffff | 0xffff_0000 | 0x0064_ff9b_0000_0000_0000_0000 => return Some(low),
        // ::/96 v4-compatible; :: and ::1 are addresses of their own.
        0 if bits > 0xffff => return Some(low),
        _ => {}
    }
    if bits >> 112 == 0x2002 {
        return Some(Ipv4Addr::from_bits((bits >> 80) as u32));
    }
    // Teredo carries the client's address inverted (RFC 4380, 4).
    if bits >> 96 == 0x2001_0000 {
        return Some(Ipv4Addr::from_bits(!(bits as u32)));
    }
    None
}

const fn of_v4(ip: Ipv4Addr) -> AddressClass {
    let bits = ip.to_bits();
    let [a, b, c, d] = ip.octets();
    match (a, b, c, d) {
        (0, ..) => AddressClass::Unspecified,
        (10, ..) | (192, 168, ..) => AddressClass::Private,
        (172, 16..=31, ..) => AddressClass::Private,
        // Alibaba's metadata service stands inside the shared range.
        (100, 100, 100, 200) | (169, 254, 169, 254) | (169, 254, 170, 2) => AddressClass::Metadata,
        (100, 64..=127, ..) => AddressClass::Shared,
        (127, ..) => AddressClass::Loopback,
        (169, 254, ..) => AddressClass::LinkLocal,
        (192, 0, 2, _) | (198, 51, 100, _) | (203, 0, 113, _) => AddressClass::Documentation,
        (198, 18..=19, ..) => AddressClass::Benchmarking,
        // IETF protocol assignments, 6to4 anycast, AS112.
        (192, 0, 0, _) | (192, 88, 99, _) | (192, 31, 196, _) | (192, 175, 48, _) | (192, 52, 193, _) => {
            AddressClass::Reserved
        }
        (224..=239, ..) => AddressClass::Multicast,
        _ if bits == u32::MAX => AddressClass::Broadcast,
        (240.., ..) => AddressClass::Reserved,
        // Azure's platform address answers like a metadata service.
        (168, 63, 129, 16) => AddressClass::Metadata,
        _ => AddressClass::Public,
    }
}

const fn of_v6(ip: Ipv6Addr) -> AddressClass {
    let bits = ip.to_bits();
    let [a, b, c, ..] = ip.segments();
    match bits {
        0 => return AddressClass::Unspecified,
        1 => return AddressClass::Loopback,
        // EC2's metadata service.
        0xfd00_0ec2_0000_0000_0000_0000_0000_0254 => return AddressClass::Metadata,
        _ => {}
    }
    match (a, b, c) {
        (0xff00..=0xffff, ..) => AddressClass::Multicast,
        (0xfe80..=0xfebf, ..) => AddressClass::LinkLocal,
        (0xfc00..=0xfdff, ..) | (0xfec0..=0xfeff, ..) => AddressClass::UniqueLocal,
        (0x2001, 0x0db8, _) | (0x3fff, 0x0000..=0x0fff, _) => AddressClass::Documentation,
        (0x2001, 0x0002, 0) => AddressClass::Benchmarking,
        // 2001::/23 IETF protocol assignments (ORCHID, AS112, drone identifiers among them).
        (0x2001, 0x0000..=0x01ff, _) => AddressClass::Reserved,
        // Direct delegation AS112.
        (0x2620, 0x004f, 0x8000) => AddressClass::Reserved,
        // Global unicast is 2000::/3; all else is unallocated or special (64:ff9b:1::/48, 100::/64, 5f00::/16).
        (0x2000..=0x3fff, ..) => AddressClass::Public,
        _ => AddressClass::Reserved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(ip: &str) -> AddressClass {
        AddressClass::of(ip.parse().unwrap()).0
    }

    #[test]
    fn the_registries() {
        for (ip, expected) in [
            ("8.8.8.8", AddressClass::Public),
            ("0.1.2.3", AddressClass::Unspecified),
            ("10.1.2.3", AddressClass::Private),
            ("172.15.0.1", AddressClass::Public),
            ("172.16.0.1", AddressClass::Private),
            ("172.31.255.255", AddressClass::Private),
            ("172.32.0.0", AddressClass::Public),
            ("192.168.1.1", AddressClass::Private),
            ("100.63.255.255", AddressClass::Public),
            ("100.64.0.1", AddressClass::Shared),
            ("100.100.100.200", AddressClass::Metadata),
            ("127.66.0.1", AddressClass::Loopback),
            ("169.254.1.1", AddressClass::LinkLocal),
            ("169.254.169.254", AddressClass::Metadata),
            ("192.0.0.8", AddressClass::Reserved),
            ("192.0.2.1", AddressClass::Documentation),
            ("198.18.0.1", AddressClass::Benchmarking),
            ("198.51.100.1", AddressClass::Documentation),
            ("203.0.113.9", AddressClass::Documentation),
            ("224.0.0.1", AddressClass::Multicast),
            ("240.0.0.1", AddressClass::Reserved),
            ("255.255.255.255", AddressClass::Broadcast),
            ("::", AddressClass::Unspecified),
            ("::1", AddressClass::Loopback),
            ("fe80::1", AddressClass::LinkLocal),
            ("fd00::1", AddressClass::UniqueLocal),
            ("fd00:ec2::254", AddressClass::Metadata),
            ("ff02::1", AddressClass::Multicast),
            ("2001:db8::1", AddressClass::Documentation),
            ("3fff:fff::1", AddressClass::Documentation),
            ("2001:2::1", AddressClass::Benchmarking),
            ("2001:20::1", AddressClass::Reserved),
            ("100::1", AddressClass::Reserved),
            ("64:ff9b:1::1", AddressClass::Reserved),
            ("2606:4700::1", AddressClass::Public),
        ] {
            assert_eq!(class(ip), expected, "{ip}");
        }
    }

    #[test]
    fn an_ipv4_address_does_not_hide_in_an_ipv6_one() {
        for ip in [
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "::ffff:0:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:0a00:0001::1",
            // Teredo of 10.0.0.1: the last 32 bits inverted.
            "2001:0:4136:e378:8000:63bf:f5ff:fffe",
        ] {
            assert_eq!(AddressClass::of(ip.parse().unwrap()), (AddressClass::Private, true), "{ip}");
        }
        assert_eq!(AddressClass::of("64:ff9b::8.8.8.8".parse().unwrap()), (AddressClass::Public, true));
    }
}
