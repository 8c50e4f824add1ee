//! From the configuration to what the machines are told.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sluice_base::limits::{LISTENERS_MAX, RELAY_ADDRESSES_MAX, VERDICT_DEADLINE};
use sluice_base::{Secret, WorkerId};
use sluice_config::{Admission, Config, Quota, Range};
use sluice_turn::{
    AccountLimits, GuardOptions, Ledger, Listener, Network, RelayAddress, ServerOptions, StaticUser, Tenant,
    TenantLimits,
};

use crate::cli::Failure;

/// Descriptors that the process needs beside sockets: rings, wakers, the control plane, HTTP.
const OTHER_FILES: u64 = 256;

/// One socket per address: a wildcard becomes every address of its family that the machine has, so
/// that replies leave from the address that was asked.
pub(crate) fn listeners(config: &Config, local: &[IpAddr]) -> Result<Vec<Listener>, Failure> {
    let mut all: Vec<Listener> = Vec::new();
    for listen in &config.listen {
        let of = |ip| Listener {
            address: SocketAddr::new(ip, listen.address.port()),
            realm: listen.realm.clone(),
            tenant: listen.tenant,
        };
        for ip in expand(listen.address.ip(), local) {
            if all.iter().all(|known| known.address != of(ip).address) {
                all.push(of(ip));
            }
        }
    }
    match all.len() {
        0 => Err("no listener: no address of this machine has the family of a wildcard in [[listen]]".to_owned()),
        n if n > LISTENERS_MAX => {
            Err(format!("{n} listen addresses, of which {LISTENERS_MAX} are possible: name them in [[listen]]"))
        }
        _ => Ok(all),
    }
}

/// The relay addresses: those configured, else those of the listeners.
pub(crate) fn relays(config: &Config, listeners: &[Listener]) -> Result<Vec<RelayAddress>, Failure> {
    if !config.relay.is_empty() {
        let of = |r: &sluice_config::Relay| RelayAddress { address: r.address, external: r.external_address };
        return Ok(config.relay.iter().map(of).collect());
    }
    let mut all: Vec<RelayAddress> = Vec::new();
    for listener in listeners {
        let address = listener.address.ip();
        if all.iter().all(|known| known.address != address) {
            all.push(RelayAddress { address, external: None });
        }
    }
    if all.len() > RELAY_ADDRESSES_MAX {
        return Err(format!(
            "{} relay addresses, of which {RELAY_ADDRESSES_MAX} are possible: name them in [[relay]]",
            all.len()
        ));
    }
    Ok(all)
}

/// The options of worker 0; the others differ by their number.
pub(crate) fn options(
    config: &Config,
    listeners: Vec<Listener>,
    relays: Vec<RelayAddress>,
    local: &[IpAddr],
    workers: u8,
) -> ServerOptions {
    let allocation = &config.limits.allocation;
    let most = sluice_base::limits::PEERS_PER_ALLOCATION_MAX;
    ServerOptions {
        worker: WorkerId(0),
        workers,
        listeners: listeners.into(),
        tenants: tenants(config),
        relays: relays.into(),
        own_addresses: local.into(),
        ports: config.relay_ports.clone(),
        allocation_lifetime: config.turn.allocation_lifetime,
        allocation_lifetime_max: config.turn.allocation_lifetime_max,
        nonce_lifetime: config.turn.nonce_lifetime,
        software: config.turn.software.clone(),
        guard: GuardOptions {
            allow_classes: config.guard.allow_classes.clone(),
            allow: config.guard.allow_ranges.iter().map(network).collect(),
            deny: config.guard.deny_ranges.iter().map(network).collect(),
            deny_clients: config.guard.deny_clients.iter().map(network).collect(),
            unauthenticated_per_second: config.guard.unauthenticated_per_second,
            unauthenticated_burst: config.guard.unauthenticated_burst,
        },
        receive_buffer_bytes: config.io.receive_buffer_bytes,
        send_buffer_bytes: config.io.send_buffer_bytes,
        permissions_per_allocation: allocation.permissions.unwrap_or(most),
        channels_per_allocation: allocation.channels.unwrap_or(most),
        bits_per_second: allocation.bits_per_second.unwrap_or(0),
        packets_per_second: allocation.packets_per_second.unwrap_or(0),
        events: config.privacy.records,
        verdict_deadline: verdict_deadline(config),
    }
}

/// How long a question may stay open: an allocation that waits for its record no longer than is configured, after the
/// plugins have had their time.
fn verdict_deadline(config: &Config) -> Duration {
    let waits = config.privacy.records && config.privacy.admission == Admission::Required;
    let asks = config.tenants.iter().any(|tenant| !tenant.policies.is_empty());
    let plugins = if asks { config.policy.deadline } else { Duration::ZERO };
    if waits { (plugins + config.privacy.admission_wait).min(VERDICT_DEADLINE) } else { VERDICT_DEADLINE }
}

/// The ledger of all quotas that span workers.
pub(crate) fn ledger(config: &Config) -> Arc<Ledger> {
    let (total, tenants) = ledger_limits(config);
    Ledger::new(total, &tenants)
}

/// The limits of the relay and of each tenant.
pub(crate) fn ledger_limits(config: &Config) -> (AccountLimits, Vec<TenantLimits>) {
    let tenants = config.tenants.iter();
    let of =
        |t: &sluice_config::Tenant| TenantLimits { tenant: account(&t.limits.tenant), user: account(&t.limits.user) };
    (account(&config.limits.total), tenants.map(of).collect())
}

/// Sockets of one worker at the very most: every allocation may be its, each with a relayed address
/// per family.
pub(crate) fn sockets_per_worker(config: &Config, listeners: usize, relays: &[RelayAddress]) -> u32 {
    let families = if relays.iter().any(|r| r.address.is_ipv6()) { 2 } else { 1 };
    config.limits.allocations().saturating_mul(families).saturating_add(listeners as u32)
}

/// Files that the process has to be able to open.
pub(crate) fn files_needed(config: &Config, listeners: usize, relays: &[RelayAddress], workers: usize) -> u64 {
    let sockets = u64::from(sockets_per_worker(config, listeners, relays));
    sockets + (listeners * workers) as u64 + OTHER_FILES
}

/// Packet slots of one worker: a full tick of every socket that may be busy at once, within bounds.
pub(crate) fn slots(config: &Config, workers: usize) -> u32 {
    let computed = (config.limits.allocations() / workers.max(1) as u32).clamp(2048, 16_384).next_power_of_two();
    config.io.slots.unwrap_or(computed)
}

fn expand(ip: IpAddr, local: &[IpAddr]) -> Vec<IpAddr> {
    if !ip.is_unspecified() {
        return vec![ip];
    }
    let same_family = |other: &&IpAddr| other.is_ipv4() == ip.is_ipv4();
    // A link-local address needs a zone, which a client of another link cannot name.
    let routable = |other: &&IpAddr| !matches!(other, IpAddr::V6(v6) if v6.is_unicast_link_local());
    local.iter().filter(same_family).filter(routable).copied().collect()
}

fn tenants(config: &Config) -> Arc<[Tenant]> {
    let user = |user: &sluice_config::User| StaticUser {
        name: Secret::new(user.name.expose().clone()),
        password: user.password.clone(),
    };
    config
        .tenants
        .iter()
        .map(|tenant| Tenant {
            name: tenant.name.clone(),
            secrets: tenant.secrets.clone(),
            users: tenant.users.iter().map(user).collect(),
        })
        .collect()
}

fn account(quota: &Quota) -> AccountLimits {
    AccountLimits {
        allocations: quota.allocations.unwrap_or(0),
        permissions: quota.permissions.unwrap_or(0),
        channels: quota.channels.unwrap_or(0),
        bits_per_second: quota.bits_per_second.unwrap_or(0),
        packets_per_second: quota.packets_per_second.unwrap_or(0),
    }
}

fn network(range: &Range) -> Network {
    Network { address: range.address, bits: range.prefix_bits }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_base::TenantId;
    use sluice_config::Listen;

    #[test]
    fn who_waits_for_a_record_has_waited_for_the_plugins_before() {
        let mut config = Config::default();
        assert_eq!(verdict_deadline(&config), VERDICT_DEADLINE);
        config.privacy.records = true;
        assert_eq!(verdict_deadline(&config), config.privacy.admission_wait);
        let (dry_run, capture, settings, grants) = (false, None, None, None);
        let policies = vec![sluice_config::TenantPolicy { plugin: 0, dry_run, capture, settings, grants }];
        config.tenants = vec![sluice_config::Tenant {
            name: "main".to_owned(),
            secrets: Vec::new(),
            users: Vec::new(),
            limits: sluice_config::TenantLimits { tenant: Default::default(), user: Default::default() },
            privacy: sluice_config::TenantPrivacy { ip_retention_days: 7 },
            policies,
        }];
        assert_eq!(verdict_deadline(&config), config.policy.deadline + config.privacy.admission_wait);
        config.policy.deadline = sluice_base::limits::POLICY_DEADLINE_MAX;
        config.privacy.admission_wait = Duration::from_millis(350);
        assert_eq!(verdict_deadline(&config), VERDICT_DEADLINE);
    }

    #[test]
    fn a_wildcard_becomes_one_socket_per_address() {
        let listen =
            |address: &str| Listen { address: address.parse().unwrap(), realm: "r".to_owned(), tenant: TenantId(0) };
        let config = Config { listen: vec![listen("0.0.0.0:3478"), listen("[::]:3478")], ..Config::default() };
        let local: Vec<IpAddr> =
            ["127.0.0.1", "10.0.0.5", "::1", "fe80::1", "2001:db8::5"].iter().map(|s| s.parse().unwrap()).collect();
        let listeners = listeners(&config, &local).unwrap();
        let addresses: Vec<_> = listeners.iter().map(|l| l.address.to_string()).collect();
        assert_eq!(addresses, ["127.0.0.1:3478", "10.0.0.5:3478", "[::1]:3478", "[2001:db8::5]:3478"]);
        let relays: Vec<_> = relays(&config, &listeners).unwrap().iter().map(|r| r.address.to_string()).collect();
        assert_eq!(relays, ["127.0.0.1", "10.0.0.5", "::1", "2001:db8::5"]);
    }
}
