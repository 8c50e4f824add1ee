//! The keys of the day, over files and a machine whose clocks are the test's.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sluice_base::Pii;
use sluice_privacy::{Class, pseudonym};
use sluice_record::testing::{Folder, Machine};
use sluice_record::vault::{OpenError, SealError, Vault, VaultError, VaultOptions, VaultWarning};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const ID: [u8; 16] = [5; 16];

fn options(folder: &Folder) -> VaultOptions {
    let state = folder.join("state");
    fs::create_dir_all(&state).unwrap();
    VaultOptions::new(state, Some(folder.join("keys")))
}

fn open(folder: &Folder, machine: &Arc<Machine>) -> Arc<Vault> {
    Vault::open(options(folder), machine.clone()).unwrap()
}

fn start(name: &str) -> (Folder, Arc<Machine>, Arc<Vault>) {
    let (folder, machine) = (Folder::new(name), Arc::new(Machine::new(1)));
    let vault = open(&folder, &machine);
    (folder, machine, vault)
}

fn key_files(folder: &Folder) -> Vec<String> {
    let entries = fs::read_dir(folder.join("keys")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".key"));
    names.sort();
    names
}

fn ip(text: &str) -> Pii<IpAddr> {
    Pii::new(text.parse().unwrap())
}

#[test]
fn what_is_sealed_opens_for_seven_days_and_then_never() {
    let (folder, machine, vault) = start("seven");
    let sealed = vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    assert_eq!(key_files(&folder), ["2026-11-28.clinic.key"]);
    machine.pass(6 * DAY + 11 * HOUR);
    assert_eq!(*vault.open_sealed(&sealed, &ID).unwrap(), b"192.0.2.7");
    machine.pass(HOUR);
    assert!(matches!(vault.open_sealed(&sealed, &ID), Err(OpenError::KeyGone { .. })));
    assert!(key_files(&folder).is_empty());
    let told = vault.sweep().keys;
    assert_eq!((told.len(), told[0].late), (1, Duration::ZERO));
}

#[test]
fn a_restart_of_the_service_keeps_the_keys_and_the_index_under_them() {
    let (folder, machine, vault) = start("restart");
    let sealed = vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    let index = vault.index("clinic", ip("192.0.2.7")).unwrap();
    drop(vault);
    machine.pass(DAY);
    let vault = open(&folder, &machine);
    assert_eq!(*vault.open_sealed(&sealed, &ID).unwrap(), b"192.0.2.7");
    assert!(vault.indexes(ip("192.0.2.7")).iter().any(|(tenant, _, found)| &**tenant == "clinic" && *found == index));
}

#[test]
fn a_tenant_that_keeps_no_addresses_has_none_sealed() {
    let (folder, machine) = (Folder::new("none"), Arc::new(Machine::new(1)));
    let options = VaultOptions { tenants: vec![("school".into(), 0)], ..options(&folder) };
    let vault = Vault::open(options, machine).unwrap();
    assert!(matches!(vault.seal("school", &ID, b"192.0.2.7"), Err(SealError::NotKept)));
    assert!(vault.index("school", ip("192.0.2.7")).is_none() && vault.pseudonym("school", ip("192.0.2.7")).is_none());
    assert!(key_files(&folder).is_empty());
}

#[test]
fn the_gate_destroys_before_it_returns() {
    let (folder, machine, vault) = start("gate");
    vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    let gate = vault.gate();
    machine.pass(6 * DAY + 12 * HOUR - Duration::from_secs(1));
    gate.check(vault.clock().unix_seconds);
    assert_eq!(key_files(&folder).len(), 1);
    machine.pass(Duration::from_secs(1));
    gate.check(vault.clock().unix_seconds);
    assert!(key_files(&folder).is_empty());
}

#[test]
fn a_directory_that_is_not_in_memory_gets_no_key() {
    let (folder, machine) = (Folder::new("disk"), Arc::new(Machine::new(1)));
    machine.is_tmpfs.store(false, std::sync::atomic::Ordering::Relaxed);
    let vault = open(&folder, &machine);
    let sealed = vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    assert_eq!(*vault.open_sealed(&sealed, &ID).unwrap(), b"192.0.2.7");
    assert!(key_files(&folder).is_empty());
    assert_eq!(vault.warnings(), [VaultWarning::MemoryOnly { directory: folder.join("keys") }]);
}

#[test]
fn two_processes_do_not_share_keys() {
    let (folder, machine, _vault) = start("two");
    let second = Vault::open(options(&folder), machine);
    assert!(matches!(second, Err(VaultError::InUse(_))));
}

#[test]
fn long_lived_keys_seal_what_outlives_the_address_and_nothing_of_class_ip() {
    let (folder, machine, vault) = start("long");
    let sealed = vault.seal_long("clinic", Class::AccessAudit, &ID, b"zelda connected").unwrap();
    assert!(vault.seal_long("clinic", Class::Ip, &ID, b"192.0.2.7").is_err());
    let (signature, key) = (vault.sign(b"checkpoint"), vault.verifying_key());
    let zelda = Pii::new(Arc::from(&b"zelda"[..]));
    let name = |vault: &Vault, at| vault.user_pseudonym("clinic", &zelda, pseudonym::Purpose::Records, at).unwrap();
    let before = name(&vault, 1_795_867_200);
    drop(vault);
    machine.pass(30 * DAY);
    let vault = open(&folder, &machine);
    assert_eq!(*vault.open_long(&sealed, Class::AccessAudit, &ID).unwrap(), b"zelda connected");
    assert!(vault.open_long(&sealed, Class::AdminAudit, &ID).is_err());
    assert!(key.verify(b"checkpoint", &signature) && vault.verifying_key() == key);
    assert_eq!(name(&vault, 1_795_867_200), before);
}

#[test]
fn files_of_keys_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, _machine, vault) = start("mode");
    vault.seal("clinic", &ID, b"192.0.2.7").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder.join("keys")), 0o700);
    assert_eq!(mode(&folder.join("keys/2026-11-28.clinic.key")), 0o600);
    assert_eq!(mode(&folder.join("state/secrets/signing.key")), 0o600);
}
