//! What a fuzzer calls: any bytes, and what must hold of them.

use std::io;
use std::path::{Path, PathBuf};

use sluice_base::limits;

use crate::{Config, ReadError, SecretFile, Sources};

/// Parses `bytes` as a configuration.
///
/// # Panics
/// If a mistake has no place in the text, or a configuration comes out that is not valid.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Config::parse(text, "fuzz.toml", &["feature"], &Fixed) {
        Ok(config) => assert_valid(&config),
        Err(error) => {
            assert!(!error.problems.is_empty());
            let lines = text.split('\n').count();
            assert!(error.problems.iter().filter_map(|p| p.place).all(|(line, _)| line <= lines));
            assert!(!error.to_string().contains(Fixed::SECRET));
        }
    }
}

fn assert_valid(config: &Config) {
    assert!(!config.listen.is_empty() && config.listen.len() <= limits::LISTENERS_MAX);
    assert!(config.listen.iter().all(|l| usize::from(l.tenant.0) < config.tenants.len()));
    assert!(config.listen.iter().all(|l| (1..=limits::REALM_BYTES_MAX).contains(&l.realm.len())));
    assert!(config.relay.len() <= limits::RELAY_ADDRESSES_MAX);
    assert!(config.relay.iter().all(|r| r.external_address.is_none_or(|e| e.is_ipv4() == r.address.is_ipv4())));
    assert!(!config.relay_ports.is_empty());
    assert!(config.turn.allocation_lifetime <= config.turn.allocation_lifetime_max);
    assert!(config.guard.unauthenticated_per_second > 0 && config.guard.unauthenticated_burst > 0);
    assert!(config.tenants.iter().all(|t| !t.secrets.is_empty() || !t.users.is_empty()));
    assert!(config.tenants.iter().all(|t| t.secrets.len() <= limits::SECRETS_PER_TENANT_MAX));
    assert!(config.limits.total.allocations.is_some_and(|n| n > 0));
    assert!(
        config.metrics.listen.is_none_or(|a| a.ip().to_canonical().is_loopback() || config.metrics.allow_plaintext)
    );
}

/// One secret whatever the path, and none where the path says so.
struct Fixed;

impl Fixed {
    const SECRET: &'static str = "a fixed secret of the harness";
}

impl Sources for Fixed {
    fn secret_file(&self, path: &Path) -> Result<SecretFile, ReadError> {
        if path.ends_with("missing") {
            return Err(ReadError::Refused(io::ErrorKind::NotFound));
        }
        Ok(SecretFile { bytes: Self::SECRET.as_bytes().to_vec(), mode: 0o100_600 })
    }

    fn credentials_directory(&self) -> Option<PathBuf> {
        Some(PathBuf::from("credentials"))
    }
}
