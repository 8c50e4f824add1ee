//! What runs when nothing is configured: a relay on loopback with a generated secret.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rand_core::{OsRng, TryRngCore};
use sluice_base::{AddressClass, Secret, TenantId};
use sluice_config::{Config, Drain, Guard, Limits, Listen, Metrics, Privacy, Tenant, TenantLimits, TenantPrivacy};

use crate::cli::{Failure, RunArgs};

/// The registered port of TURN over UDP (RFC 8656, 4).
const TURN_PORT: u16 = 3478;
/// How long the generated credentials last.
const CREDENTIALS_SECONDS: u64 = 24 * 3600;

/// Credentials of the REST scheme that work now.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: Secret<String>,
}

/// The development configuration, and credentials for it.
pub(crate) fn start(args: &RunArgs, local: &[IpAddr], unix_seconds: u64) -> Result<(Config, Credentials), Failure> {
    let mut secret = [0; 24];
    OsRng.try_fill_bytes(&mut secret).map_err(|error| format!("the system gave no randomness: {error}"))?;
    let secret = sluice_crypto::base64_encode(&secret);
    let user = format!("{}:developer", unix_seconds + CREDENTIALS_SECONDS);
    let password = Secret::new(sluice_crypto::rest_password(&secret, &user));
    let listen = if args.listen.is_empty() { loopback(local) } else { args.listen.clone() };
    let limits = Limits::default();
    let config = Config {
        listen: listen
            .into_iter()
            .map(|address| Listen { address, realm: "sluice.localhost".to_owned(), tenant: TenantId(0) })
            .collect(),
        guard: Guard { allow_classes: vec![AddressClass::Loopback], ..Guard::default() },
        metrics: args
            .metrics
            .map_or_else(Metrics::default, |listen| Metrics { listen: Some(listen), ..Metrics::default() }),
        tenants: vec![Tenant {
            name: "default".to_owned(),
            secrets: vec![Secret::new(secret)],
            users: Vec::new(),
            limits: TenantLimits { tenant: limits.tenant, user: limits.user },
            privacy: TenantPrivacy { ip_retention_days: Privacy::default().ip_retention_days },
            policies: Vec::new(),
        }],
        // Whoever tries it out does not wait for what he tried out.
        drain: Drain { deadline: Duration::ZERO, ..Drain::default() },
        ..Config::default()
    };
    Ok((config, Credentials { user, password }))
}

/// Loopback of each family that this machine has.
fn loopback(local: &[IpAddr]) -> Vec<SocketAddr> {
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let mut all = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    all.extend(local.contains(&v6).then_some(v6));
    all.into_iter().map(|ip| SocketAddr::new(ip, TURN_PORT)).collect()
}
