//! The kinds of NAT that stand between clients and the relay (in the words of RFC 3489, 5).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sluice_base::Mono;

/// How a NAT maps and filters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NatKind {
    /// There is none.
    Open,
    /// One mapping for all destinations, open to everybody.
    FullCone,
    /// One mapping, open to addresses that were written to.
    Restricted,
    /// One mapping, open to addresses and ports that were written to.
    PortRestricted,
    /// A mapping for each destination.
    Symmetric,
}

impl NatKind {
    pub(crate) const ALL: [NatKind; 5] =
        [NatKind::Open, NatKind::FullCone, NatKind::Restricted, NatKind::PortRestricted, NatKind::Symmetric];
}

/// A mapping that nobody uses is forgotten after this time (RFC 4787, REQ-5: two minutes at least).
const IDLE: Duration = Duration::from_secs(120);

/// One NAT with one client behind it.
pub(crate) struct Nat {
    kind: NatKind,
    outside: IpAddr,
    next_port: u16,
    mappings: BTreeMap<u16, Mapping>,
}

struct Mapping {
    inside: SocketAddr,
    /// The destination, where it has one of its own.
    towards: Option<SocketAddr>,
    written_to: BTreeSet<SocketAddr>,
    used_at: Mono,
}

impl Nat {
    pub(crate) fn new(kind: NatKind, outside: IpAddr) -> Self {
        Nat { kind, outside, next_port: 1024, mappings: BTreeMap::new() }
    }

    /// The source that a packet from `inside` to `to` has outside.
    pub(crate) fn outbound(&mut self, now: Mono, inside: SocketAddr, to: SocketAddr) -> SocketAddr {
        if self.kind == NatKind::Open {
            return inside;
        }
        self.mappings.retain(|_, m| now.since(m.used_at) < IDLE);
        let towards = (self.kind == NatKind::Symmetric).then_some(to);
        let known = self.mappings.iter_mut().find(|(_, m)| m.inside == inside && m.towards == towards);
        let (port, mapping) = match known {
            Some((port, mapping)) => (*port, mapping),
            None => {
                self.next_port = self.next_port.checked_add(1).unwrap_or(1024);
                let new = Mapping { inside, towards, written_to: BTreeSet::new(), used_at: now };
                (self.next_port, self.mappings.entry(self.next_port).or_insert(new))
            }
        };
        mapping.used_at = now;
        mapping.written_to.insert(to);
        SocketAddr::new(self.outside, port)
    }

    /// Who inside gets a packet from `from` to `to`, if anybody.
    pub(crate) fn inbound(&mut self, now: Mono, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        let mapping = self.mappings.get(&to.port()).filter(|m| now.since(m.used_at) < IDLE)?;
        let open = match self.kind {
            NatKind::Open | NatKind::FullCone => true,
            NatKind::Restricted => mapping.written_to.iter().any(|known| known.ip() == from.ip()),
            NatKind::PortRestricted | NatKind::Symmetric => mapping.written_to.contains(&from),
        };
        open.then_some(mapping.inside)
    }

    /// Forgets every mapping, as a restart does: the clients have new addresses from now on.
    pub(crate) fn restart(&mut self) {
        self.mappings.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: &str) -> SocketAddr {
        s.parse().unwrap()
    }

    #[test]
    fn each_kind_filters_as_its_name_says() {
        let (inside, known) = (at("10.0.0.1:7"), at("8.1.0.1:1"));
        let (same_host, other_host) = (at("8.1.0.1:2"), at("8.1.0.2:1"));
        for (kind, host, anybody) in [
            (NatKind::FullCone, true, true),
            (NatKind::Restricted, true, false),
            (NatKind::PortRestricted, false, false),
            (NatKind::Symmetric, false, false),
        ] {
            let mut nat = Nat::new(kind, "5.0.0.1".parse().unwrap());
            let outside = nat.outbound(Mono::default(), inside, known);
            let passes = |nat: &mut Nat, from| nat.inbound(Mono::default(), from, outside).is_some();
            assert!(passes(&mut nat, known));
            assert_eq!(passes(&mut nat, same_host), host, "{kind:?}");
            assert_eq!(passes(&mut nat, other_host), anybody, "{kind:?}");
            let second = nat.outbound(Mono::default(), inside, other_host);
            assert_eq!(second == outside, kind != NatKind::Symmetric);
            nat.restart();
            assert!(!passes(&mut nat, known));
        }
    }
}
