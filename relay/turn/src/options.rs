//! What a server is told at its start. The binary maps the configuration to it.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use sluice_base::{AddressClass, Secret, TenantId, WorkerId};

use crate::ports::LivePorts;
use crate::quota::Ledger;

/// Options of one worker's server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Which worker this is.
    pub worker: WorkerId,
    /// How many workers there are: ports are shared out among them.
    pub workers: u8,
    /// The listeners, by [`ListenerId`](sluice_base::ListenerId).
    pub listeners: Arc<[Listener]>,
    /// The tenants, by [`TenantId`].
    pub tenants: Arc<[Tenant]>,
    /// The relay addresses.
    pub relays: Arc<[RelayAddress]>,
    /// Every other address of this machine: never a peer unless a range names it.
    pub own_addresses: Arc<[IpAddr]>,
    /// The range of relayed ports.
    pub ports: RangeInclusive<u16>,
    /// Lifetime of an allocation that asks for none, and the least that is given (RFC 8656, 7.2).
    pub allocation_lifetime: Duration,
    /// Longest lifetime of an allocation.
    pub allocation_lifetime_max: Duration,
    /// How long a nonce is valid.
    pub nonce_lifetime: Duration,
    /// SOFTWARE in authenticated answers (RFC 8489, 14.14), if any.
    pub software: Option<String>,
    /// Which peers are allowed.
    pub guard: GuardOptions,
    /// SO_RCVBUF of relay sockets, in bytes; 0 keeps the kernel's default.
    pub receive_buffer_bytes: u32,
    /// SO_SNDBUF of relay sockets, in bytes; 0 keeps the kernel's default.
    pub send_buffer_bytes: u32,
    /// Permissions of one allocation.
    pub permissions_per_allocation: u32,
    /// Channels of one allocation.
    pub channels_per_allocation: u32,
    /// Bits per second of one allocation, both directions together; 0 is unlimited.
    pub bits_per_second: u64,
    /// Packets per second of one allocation, both directions together; 0 is unlimited.
    pub packets_per_second: u64,
    /// Tell of stays, refusals and media streams ([`Output::Event`](crate::Output::Event)).
    pub events: bool,
    /// How long a question may wait for its verdict; without one by then, to a timer's grain, the answer is no.
    pub verdict_deadline: Duration,
}

/// One listener address.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Where clients come to. Ours, so not personal.
    pub address: SocketAddr,
    /// The realm, sent before anybody is known (RFC 8489, 9.2).
    pub realm: String,
    /// The tenant of a user name that names none.
    pub tenant: TenantId,
}

/// One tenant: whose secrets make its users.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// The name in `expiry:tenant/user`.
    pub name: String,
    /// Live shared secrets of the REST scheme.
    pub secrets: Vec<Secret<String>>,
    /// Users with fixed passwords.
    pub users: Vec<StaticUser>,
}

/// A user with a fixed password.
#[derive(Clone, Debug)]
pub struct StaticUser {
    /// The name.
    pub name: Secret<String>,
    /// The password.
    pub password: Secret<String>,
}

/// An address on which relayed transport addresses are opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RelayAddress {
    /// The address bound.
    pub address: IpAddr,
    /// The address announced, where a 1:1 NAT stands in front.
    pub external: Option<IpAddr>,
}

impl RelayAddress {
    /// The address that clients and peers are told.
    pub fn announced(&self) -> IpAddr {
        self.external.unwrap_or(self.address)
    }
}

/// Which peers are allowed, and how often somebody unknown is answered.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GuardOptions {
    /// Classes opened by name.
    pub allow_classes: Vec<AddressClass>,
    /// Ranges opened.
    pub allow: Vec<Network>,
    /// Ranges closed: stronger than any allowance.
    pub deny: Vec<Network>,
    /// Ranges of clients that are not served, as if they were banned.
    pub deny_clients: Vec<Network>,
    /// Unauthenticated answers per second and source prefix; 0 is unlimited.
    pub unauthenticated_per_second: u32,
    /// Unauthenticated answers in one burst.
    pub unauthenticated_burst: u32,
}

/// A range of addresses in CIDR form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    /// Any address of the range.
    pub address: IpAddr,
    /// Length of the prefix in bits.
    pub bits: u8,
}

impl Network {
    /// Whether `ip` lies in the range.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let shift = 32 - u32::from(self.bits.min(32));
                (u64::from(net.to_bits()) >> shift) == (u64::from(ip.to_bits()) >> shift)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let shift = 128 - u32::from(self.bits.min(128));
                net.to_bits().checked_shr(shift).unwrap_or(0) == ip.to_bits().checked_shr(shift).unwrap_or(0)
            }
            _ => false,
        }
    }
}

/// What the workers of one process share; none of it is written for a relayed packet.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Signs nonces; random per process.
    pub nonce_key: Secret<[u8; 32]>,
    /// Which relayed ports are live.
    pub live: Arc<LivePorts>,
    /// Quotas that span workers.
    pub ledger: Arc<Ledger>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_its_addresses_only() {
        let net = |s: &str, bits| Network { address: s.parse().unwrap(), bits };
        assert!(net("10.0.0.0", 8).contains("10.255.0.1".parse().unwrap()));
        assert!(!net("10.0.0.0", 8).contains("11.0.0.1".parse().unwrap()));
        assert!(net("0.0.0.0", 0).contains("11.0.0.1".parse().unwrap()));
        assert!(!net("0.0.0.0", 0).contains("::1".parse().unwrap()));
        assert!(net("::", 0).contains("2001:db8::1".parse().unwrap()));
        assert!(net("fd00::", 8).contains("fdff::1".parse().unwrap()));
        assert!(!net("fd00::", 8).contains("fe00::1".parse().unwrap()));
    }
}
