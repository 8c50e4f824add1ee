//! Names for people and allocations that mean nothing outside of this process.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use rand_core::{OsRng, TryRngCore};
use sluice_base::Pii;
use sluice_base::message::AllocationView;
use sluice_base::pii::showing::{Kind, Shower};
use sluice_crypto::HmacSha256Key;
use sluice_record::vault::Vault;

use crate::cli::Failure;

/// Bytes of a pseudonym: two of a million are the same once in 40 million times.
const BYTES: usize = 8;

/// Of addresses.
const CLIENT: &[u8] = b"client";

/// Keyed hashes: of addresses under the key of the day where there is one, of everything else under a key that ends
/// with the process.
pub(crate) struct Pseudonyms {
    key: HmacSha256Key,
    vault: OnceLock<Arc<Vault>>,
}

/// The relay as a whole, where a tenant is asked for.
const RELAY: &str = "";

impl Pseudonyms {
    /// With a fresh key.
    pub(crate) fn new() -> Result<Self, Failure> {
        let mut key = [0; 32];
        OsRng.try_fill_bytes(&mut key).map_err(|error| format!("the system gave no randomness: {error}"))?;
        Ok(Pseudonyms { key: HmacSha256Key::new(&key), vault: OnceLock::new() })
    }

    /// Has addresses named under the key of the day from now on: the same over a restart, and nobody's once it dies.
    pub(crate) fn use_vault(&self, vault: Arc<Vault>) {
        let _ = self.vault.set(vault);
    }

    /// Of an allocation of a worker.
    pub(crate) fn allocation(&self, worker: usize, view: &AllocationView) -> String {
        self.of(b"allocation", &[&(worker as u64).to_be_bytes(), &view.id.0.to_be_bytes()])
    }

    /// Of its user: the same name of another tenant is somebody else.
    pub(crate) fn user(&self, view: &AllocationView) -> String {
        let mut bytes = view.tenant.0.to_be_bytes().to_vec();
        view.user.feed(|part| bytes.extend_from_slice(part));
        self.of(b"user", &[&bytes])
    }

    /// Of its client's address, whatever the port.
    pub(crate) fn client(&self, view: &AllocationView) -> String {
        self.address(&view.client.ip())
    }

    /// Of an address.
    pub(crate) fn address(&self, ip: &Pii<IpAddr>) -> String {
        if let Some(pseudonym) = self.vault.get().and_then(|vault| vault.pseudonym(RELAY, *ip)) {
            return pseudonym;
        }
        let mut bytes = Vec::new();
        ip.feed(|part| bytes.extend_from_slice(part));
        self.of(CLIENT, &[&bytes])
    }

    /// Makes the pseudonyms of the log: a client's is the same there.
    pub(crate) fn shower(self: &Arc<Self>) -> Shower {
        let names = self.clone();
        Arc::new(move |kind, bytes| {
            let kind: &[u8] = match kind {
                Kind::Address => return address(bytes).map_or_else(String::new, |ip| names.address(&ip)),
                Kind::Network => b"network",
                Kind::Name => b"name",
            };
            names.of(kind, &[bytes])
        })
    }

    /// What is said of one kind says nothing of another.
    fn of(&self, kind: &[u8], parts: &[&[u8]]) -> String {
        let mut all = vec![kind, b"\0"];
        all.extend_from_slice(parts);
        sluice_crypto::hex_encode(&self.key.sign(&all)[..BYTES])
    }
}

/// The address that was fed.
fn address(bytes: &[u8]) -> Option<Pii<IpAddr>> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(Pii::new)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use sluice_base::message::Traffic;
    use sluice_base::{AllocationId, TenantId};

    fn view(user: &str, client: &str, tenant: u16) -> AllocationView {
        AllocationView {
            id: AllocationId(7),
            user: Pii::new(user.as_bytes().into()),
            client: Pii::new(client.parse().unwrap()),
            tenant: TenantId(tenant),
            age: Duration::ZERO,
            expires_in: Duration::ZERO,
            permissions: 0,
            channels: 0,
            families: Vec::new(),
            traffic: Traffic::default(),
        }
    }

    #[test]
    fn the_same_person_has_the_same_name_and_nobody_else() {
        let names = Pseudonyms::new().unwrap();
        let one = view("alice", "192.0.2.1:5000", 0);
        let same = view("alice", "192.0.2.1:6000", 0);
        assert_eq!(names.user(&one), names.user(&same));
        assert_eq!(names.client(&one), names.client(&same));
        assert_ne!(names.user(&one), names.user(&view("alice", "192.0.2.1:5000", 1)));
        assert_ne!(names.user(&one), names.user(&view("bob", "192.0.2.1:5000", 0)));
        assert_ne!(names.client(&one), names.client(&view("alice", "192.0.2.2:5000", 0)));
        assert_ne!(names.allocation(0, &one), names.allocation(1, &one));
    }

    #[test]
    fn a_client_has_the_same_name_in_the_log() {
        let names = Arc::new(Pseudonyms::new().unwrap());
        let one = view("alice", "192.0.2.1:5000", 0);
        let logged = sluice_base::pii::showing::with(&names.shower(), || format!("{:?}", one.client));
        assert_eq!(logged, names.client(&one));
    }

    #[test]
    fn another_process_names_differently() {
        let one = view("alice", "192.0.2.1:5000", 0);
        assert_ne!(Pseudonyms::new().unwrap().user(&one), Pseudonyms::new().unwrap().user(&one));
    }
}
