//! Which peers may be reached, and how often somebody unknown is answered.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

use sluice_base::limits::{SOURCE_BUCKETS, SOURCE_PREFIX_V4_BITS, SOURCE_PREFIX_V6_BITS};
use sluice_base::policy::Endpoint;
use sluice_base::{AddressClass, Mono, Pii, TransportAddress};

use crate::options::{GuardOptions, RelayAddress, ServerOptions};
use crate::ports::LivePorts;

/// Whether a peer may be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Judgement {
    /// Yes.
    Allowed,
    /// No.
    Forbidden,
    /// It has one of our relay addresses: it depends on the port, packet by packet.
    OwnRelay(u8),
}

/// Peers are denied in every special-purpose range unless the operator opened it; our own addresses
/// are judged by port.
#[derive(Debug)]
pub(crate) struct Guard {
    options: GuardOptions,
    relays: Arc<[RelayAddress]>,
    own: Arc<[IpAddr]>,
    live: Arc<LivePorts>,
    has_external: bool,
}

impl Guard {
    pub(crate) fn new(options: &ServerOptions, live: Arc<LivePorts>) -> Self {
        Guard {
            options: options.guard.clone(),
            relays: options.relays.clone(),
            own: options.own_addresses.clone(),
            live,
            has_external: options.relays.iter().any(|r| r.external.is_some()),
        }
    }

    /// Judges an address without a port, as a permission has it (RFC 8656, 9).
    pub(crate) fn judge(&self, peer: Pii<IpAddr>) -> Judgement {
        let ip = *peer.expose();
        let (class, translated) = AddressClass::of(ip);
        let inner = unwrapped(ip, translated);
        if let Some(relay) = self.relay_of(ip) {
            return Judgement::OwnRelay(relay);
        }
        let named = self.options.allow.iter().any(|n| n.contains(ip));
        let allowed = if self.options.deny.iter().any(|n| n.contains(ip) || n.contains(inner)) {
            false
        } else if self.is_own(ip) || self.is_own(inner) {
            // A class name opens somebody else's addresses; one's own needs to be named as a range.
            named
        } else {
            named || class == AddressClass::Public || self.options.allow_classes.contains(&class)
        };
        if allowed { Judgement::Allowed } else { Judgement::Forbidden }
    }

    /// Whether a port of one of our relay addresses belongs to a live allocation.
    #[inline]
    pub(crate) fn is_live(&self, relay: u8, peer: TransportAddress) -> bool {
        self.live.is_live(relay, peer.port())
    }

    /// The address by which clients and peers know this one: the external one of a relay address
    /// that has one (a packet from another worker's allocation comes from the inner address).
    #[inline]
    pub(crate) fn announced(&self, from: TransportAddress) -> TransportAddress {
        if !self.has_external {
            return from;
        }
        self.with_ip(from, |relay, ip| (relay.address == ip).then(|| relay.announced()))
    }

    /// The address to which a packet for `to` is sent: the inner one of our external addresses (a
    /// 1:1 NAT need not turn it round).
    #[inline]
    pub(crate) fn reachable(&self, to: TransportAddress) -> TransportAddress {
        if !self.has_external {
            return to;
        }
        self.with_ip(to, |relay, ip| (relay.external == Some(ip)).then_some(relay.address))
    }

    /// What a policy is told of an address.
    pub(crate) fn endpoint(&self, address: TransportAddress) -> Endpoint {
        let ip = *address.ip().expose();
        let (class, translated) = AddressClass::of(ip);
        let class = match self.relay_of(ip) {
            Some(relay) if self.is_live(relay, address) => AddressClass::OwnRelayed,
            Some(_) => AddressClass::OwnInfrastructure,
            None if self.is_own(ip) || self.is_own(unwrapped(ip, translated)) => AddressClass::OwnInfrastructure,
            None => class,
        };
        Endpoint { address, class, translated }
    }

    fn relay_of(&self, ip: IpAddr) -> Option<u8> {
        let at = self.relays.iter().position(|r| r.address == ip || r.external == Some(ip))?;
        u8::try_from(at).ok()
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        self.own.contains(&ip) || self.relays.iter().any(|r| r.address == ip || r.external == Some(ip))
    }

    fn with_ip(
        &self,
        address: TransportAddress,
        map: impl Fn(&RelayAddress, IpAddr) -> Option<IpAddr>,
    ) -> TransportAddress {
        let ip = *address.ip().expose();
        match self.relays.iter().find_map(|relay| map(relay, ip)) {
            Some(ip) => Pii::new((ip, address.port()).into()),
            None => address,
        }
    }
}

fn unwrapped(ip: IpAddr, translated: bool) -> IpAddr {
    match ip {
        IpAddr::V6(v6) if translated => sluice_base::address::wrapped(v6).map_or(ip, IpAddr::V4),
        _ => ip,
    }
}

/// Token buckets of sources by prefix: a table of fixed size, in which prefixes that
/// collide share a bucket.
#[derive(Debug)]
pub(crate) struct SourceLimiter {
    buckets: Box<[SourceBucket]>,
    hasher: foldhash::fast::FixedState,
    nanos_each: u64,
    burst: u64,
}

#[derive(Clone, Copy, Debug)]
struct SourceBucket {
    /// When the bucket will be full again: its level in the unit of time.
    full_at: u64,
}

impl SourceLimiter {
    /// So many per second, 0 for any number, and so many in one burst.
    pub(crate) fn new((per_second, burst): (u32, u32), seed: u64) -> Self {
        let per_second = u64::from(per_second);
        let unlimited = per_second == 0;
        SourceLimiter {
            buckets: vec![SourceBucket { full_at: 0 }; if unlimited { 0 } else { SOURCE_BUCKETS }].into(),
            hasher: foldhash::fast::FixedState::with_seed(seed),
            nanos_each: 1_000_000_000u64.checked_div(per_second).unwrap_or(0),
            burst: u64::from(burst.max(1)),
        }
    }

    /// Whether `from` may have one more now: somebody unknown an answer, a refusal its record.
    pub(crate) fn admit(&mut self, now: Mono, from: TransportAddress) -> bool {
        if self.buckets.is_empty() {
            return true;
        }
        let prefix = from.ip().prefix(SOURCE_PREFIX_V4_BITS, SOURCE_PREFIX_V6_BITS);
        let at = self.hasher.hash_one(prefix) as usize % self.buckets.len();
        let bucket = &mut self.buckets[at];
        let full_at = bucket.full_at.max(now.nanos()) + self.nanos_each;
        if full_at - now.nanos() > self.burst * self.nanos_each {
            return false;
        }
        bucket.full_at = full_at;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Network;
    use std::time::Duration;

    fn guard(options: GuardOptions) -> Guard {
        Guard {
            options,
            relays: [RelayAddress {
                address: "10.0.0.5".parse().unwrap(),
                external: Some("203.0.113.5".parse().unwrap()),
            }]
            .into(),
            own: ["8.8.4.4".parse().unwrap()].into(),
            live: Arc::new(LivePorts::new(1)),
            has_external: true,
        }
    }

    fn judge(guard: &Guard, ip: &str) -> Judgement {
        guard.judge(Pii::new(ip.parse().unwrap()))
    }

    #[test]
    fn special_ranges_are_closed_until_opened_by_name() {
        let closed = guard(GuardOptions::default());
        for ip in ["127.0.0.1", "10.0.0.6", "169.254.169.254", "224.0.0.1", "::1", "fd00::1", "::ffff:127.0.0.1"] {
            assert_eq!(judge(&closed, ip), Judgement::Forbidden, "{ip}");
        }
        assert_eq!(judge(&closed, "8.8.8.8"), Judgement::Allowed);
        let open = guard(GuardOptions { allow_classes: vec![AddressClass::Loopback], ..GuardOptions::default() });
        assert_eq!(judge(&open, "127.0.0.1"), Judgement::Allowed);
        assert_eq!(judge(&open, "10.0.0.6"), Judgement::Forbidden);
    }

    #[test]
    fn own_addresses_are_never_peers_but_by_port() {
        let any = Network { address: "8.8.0.0".parse().unwrap(), bits: 16 };
        let open = guard(GuardOptions { allow: vec![any], ..GuardOptions::default() });
        assert_eq!(judge(&guard(GuardOptions::default()), "8.8.4.4"), Judgement::Forbidden);
        assert_eq!(judge(&guard(GuardOptions::default()), "::ffff:8.8.4.4"), Judgement::Forbidden);
        assert_eq!(judge(&open, "8.8.4.4"), Judgement::Allowed);
        assert_eq!(judge(&open, "10.0.0.5"), Judgement::OwnRelay(0));
        assert_eq!(judge(&open, "203.0.113.5"), Judgement::OwnRelay(0));
        assert_eq!(judge(&open, "::ffff:10.0.0.5"), Judgement::Forbidden);
    }

    #[test]
    fn a_denied_range_is_stronger() {
        let net = |s: &str, bits| Network { address: s.parse().unwrap(), bits };
        let guard = guard(GuardOptions {
            allow: vec![net("10.0.0.0", 8)],
            deny: vec![net("10.9.0.0", 16)],
            ..GuardOptions::default()
        });
        assert_eq!(judge(&guard, "10.1.0.1"), Judgement::Allowed);
        assert_eq!(judge(&guard, "10.9.0.1"), Judgement::Forbidden);
    }

    #[test]
    fn external_addresses_are_turned_round_inside() {
        let guard = guard(GuardOptions::default());
        let at = |s: &str| Pii::new(s.parse::<std::net::SocketAddr>().unwrap());
        assert_eq!(guard.reachable(at("203.0.113.5:7")), at("10.0.0.5:7"));
        assert_eq!(guard.announced(at("10.0.0.5:7")), at("203.0.113.5:7"));
        assert_eq!(guard.announced(at("8.8.8.8:7")), at("8.8.8.8:7"));
    }

    #[test]
    fn an_unknown_source_gets_its_burst_and_then_its_rate() {
        let mut limiter = SourceLimiter::new((10, 5), 1);
        let from = Pii::new("192.0.2.1:9".parse().unwrap());
        let start = Mono::from_nanos(7_000_000_000);
        let admitted = (0..100).filter(|_| limiter.admit(start, from)).count();
        assert_eq!(admitted, 5);
        let later = start.after(Duration::from_millis(1000));
        let admitted = (0..100).filter(|_| limiter.admit(later, from)).count();
        assert_eq!(admitted, 5);
        assert!(limiter.admit(start, Pii::new("198.51.100.1:9".parse().unwrap())));
    }
}
