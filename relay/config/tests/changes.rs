//! What a reload takes over.

use std::io;
use std::path::{Path, PathBuf};

use sluice_base::TenantId;
use sluice_config::{Config, ReadError, SecretFile, Sources};

struct NoFiles;

impl Sources for NoFiles {
    fn secret_file(&self, _: &Path) -> Result<SecretFile, ReadError> {
        Err(ReadError::Refused(io::ErrorKind::NotFound))
    }

    fn credentials_directory(&self) -> Option<PathBuf> {
        None
    }
}

fn parse(text: &str) -> Config {
    Config::parse(text, "sluice.toml", &["bundles"], &NoFiles).unwrap()
}

const LISTEN: &str = "[[listen]]\naddress = \"0.0.0.0:3478\"\nrealm = \"example.org\"\n";
const TENANT: &str = "[[tenant]]\nname = \"default\"\nsecrets = [{ value = \"s3cret\" }]\n";

/// Every change between two files, as `key` or `key!` for one that takes a restart.
fn between(old: &str, new: &str) -> Vec<String> {
    let told = parse(old).changes(&parse(new));
    told.into_iter().map(|change| change.key + if change.restart { "!" } else { "" }).collect()
}

/// The changes that lines bring to a file of a listener and a tenant.
fn by(lines: &str) -> Vec<String> {
    between(&format!("{LISTEN}{TENANT}"), &format!("{lines}\n{LISTEN}{TENANT}"))
}

#[test]
fn the_same_file_changes_nothing() {
    assert!(by("").is_empty());
    assert!(by("[turn]\nsoftware = \"\"\n[limits]\nallocations_per_user = 64").is_empty());
}

/// One line of each section's every key, and what it changes.
const EACH: &[(&str, &[&str])] = &[
    ("workers = 1", &["workers!"]),
    ("[[relay]]\naddress = \"10.0.0.5\"", &["relay!"]),
    ("[relay_ports]\nmin = 50000", &["relay_ports!"]),
    ("[relay_ports]\nmax = 50000", &["relay_ports!"]),
    ("[turn]\nallocation_lifetime_seconds = 300", &["turn.allocation_lifetime_seconds"]),
    ("[turn]\nallocation_lifetime_max_seconds = 700", &["turn.allocation_lifetime_max_seconds"]),
    ("[turn]\nnonce_lifetime_seconds = 60", &["turn.nonce_lifetime_seconds"]),
    ("[turn]\nsoftware = \"x\"", &["turn.software"]),
    ("[guard]\nallow_peers = [\"loopback\"]", &["guard.allow_peers"]),
    ("[guard]\nallow_peers = [\"10.0.0.0/8\"]", &["guard.allow_peers"]),
    ("[guard]\ndeny_peers = [\"10.0.0.0/8\"]", &["guard.deny_peers"]),
    ("[guard]\ndeny_clients = [\"192.0.2.0/24\"]", &["guard.deny_clients"]),
    ("[guard]\nunauthenticated_per_second = 7", &["guard.unauthenticated_per_second"]),
    ("[guard]\nunauthenticated_burst = 7", &["guard.unauthenticated_burst"]),
    ("[limits]\nallocations = 70", &["limits.allocations!"]),
    ("[limits]\nallocations_per_tenant = 70", &["limits.allocations_per_tenant"]),
    ("[limits]\nallocations_per_user = 7", &["limits.allocations_per_user"]),
    ("[limits]\npermissions = 7", &["limits.permissions"]),
    ("[limits]\npermissions_per_allocation = 7", &["limits.permissions_per_allocation"]),
    ("[limits]\nchannels_per_user = 7", &["limits.channels_per_user"]),
    ("[limits]\nbits_per_second_total = 7", &["limits.bits_per_second_total"]),
    ("[limits]\npackets_per_second_allocation = 7", &["limits.packets_per_second_allocation"]),
    ("[io]\ndriver = \"epoll\"", &["io!"]),
    ("[io]\nslots = 64", &["io!"]),
    ("[metrics]\nlisten = \"\"", &["metrics!"]),
    ("[control]\nsocket = \"\"", &["control!"]),
    ("[drain]\ndeadline_seconds = 7", &["drain.deadline_seconds"]),
    ("[drain]\nalternates = [\"203.0.113.6:3478\"]", &["drain.alternates"]),
    ("[log]\nlevel = \"debug\"", &["log.level"]),
    ("[log]\nformat = \"json\"", &["log.format!"]),
    ("[privacy]\nrecords = true", &["privacy.records!"]),
    ("[privacy]\nstate_directory = \"/state\"", &["privacy.state_directory!"]),
    ("[privacy]\nkeys = \"persistent\"", &["privacy.keys!"]),
    ("[privacy]\nkeys_directory = \"/keys\"", &["privacy.keys_directory!"]),
    ("[privacy]\nadmission = \"best-effort\"", &["privacy.admission!"]),
    ("[privacy]\nadmission_wait_ms = 7", &["privacy.admission_wait_ms!"]),
    ("[privacy]\nip_retention_days = 3", &["privacy.ip_retention_days"]),
    ("[privacy]\nlookup = true", &["privacy.lookup"]),
    ("[privacy.retention]\naccess_audit_days = 30", &["privacy.retention.access_audit_days!"]),
    ("[spool]\nnode = \"relay-7\"", &["spool!"]),
    ("[policy]\nqueue = 7", &["policy.queue!"]),
    (
        "[policy]\ntrusted_keys = [\"ed25519:0000000000000000000000000000000000000000000000000000000000000000\"]",
        &["policy.trusted_keys"],
    ),
    (
        "[privacy]\nrecords = true\n[[spool.sink]]\nkind = \"file\"\npath = \"/records\"",
        &["spool!", "privacy.records!"],
    ),
];

#[test]
fn each_key_is_named_with_what_it_takes() {
    for (lines, changed) in EACH {
        assert_eq!(by(lines), *changed, "{lines}");
    }
}

#[test]
fn a_listener_takes_a_restart() {
    let other = LISTEN.replace("example.org", "example.net");
    assert_eq!(between(&format!("{LISTEN}{TENANT}"), &format!("{other}{TENANT}")), ["listen!"]);
}

#[test]
fn tenants_are_told_by_name_and_users_are_not_told() {
    let with = |text: &str| format!("{LISTEN}{text}");
    let two = format!("{TENANT}[[tenant]]\nname = \"b\"\n[[tenant.user]]\nname = \"zelda\"\npassword = \"p\"\n");
    assert_eq!(between(&with(TENANT), &with(&two)), ["tenant.b"]);
    assert_eq!(between(&with(&two), &with(TENANT)), ["tenant.b"]);
    let secret = TENANT.replace("s3cret", "another");
    assert_eq!(between(&with(TENANT), &with(&secret)), ["tenant.default.secrets"]);
    for (a, b) in [("zelda", "yorick"), ("\"p\"", "\"q\"")] {
        assert_eq!(between(&with(&two), &with(&two.replace(a, b))), ["tenant.b.user"]);
    }
    let limited = format!("{TENANT}[tenant.limits]\nallocations_per_user = 3\n");
    assert_eq!(between(&with(TENANT), &with(&limited)), ["tenant.default.limits.allocations_per_user"]);
}

#[test]
fn a_tenant_has_a_plugin_with_settings_and_grants_of_its_own() {
    let with = |own: &str| {
        format!(
            "[[plugin]]\nname = \"fence\"\nfile = \"fence.wasm\"\ngrants = [\"kv\"]\nsettings = {{ most = 1 }}\n\
             {LISTEN}{TENANT}[[tenant.policy]]\nplugin = \"fence\"\n{own}"
        )
    };
    let own = "grants = []\nsettings = { most = 2 }\n";
    let policy = |text: &str| parse(text).tenants[0].policies[0].clone();
    assert_eq!((policy(&with("")).settings, policy(&with("")).grants), (None, None));
    let bound = policy(&with(own));
    assert_eq!((bound.settings.as_deref(), bound.grants), (Some("{\"most\":2}"), Some(Vec::new())));
    for changed in [own, "grants = []\n", "settings = {}\n", "mode = \"dry-run\"\n"] {
        assert_eq!(between(&with(""), &with(changed)), ["tenant.default.policy"], "{changed}");
    }
}

#[test]
fn a_tenant_keeps_its_place_for_the_life_of_the_process() {
    let tenant = |name: &str| format!("[[tenant]]\nname = \"{name}\"\nsecrets = [{{ value = \"s\" }}]\n");
    let listen = LISTEN.replace("realm", "tenant = \"c\"\nrealm");
    let running = parse(&format!("{listen}{}{}{}", tenant("a"), tenant("b"), tenant("c")));
    let mut new = parse(&format!("{listen}{}{}{}", tenant("d"), tenant("c"), tenant("a")));
    new.keep_tenant_places(&running).unwrap();
    let names: Vec<_> = new.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
    assert!(new.tenants[1].secrets.is_empty(), "nobody of the one that is gone can sign in");
    assert_eq!(new.listen[0].tenant, TenantId(2));
    let told: Vec<_> = running.changes(&new).into_iter().map(|change| (change.key, change.restart)).collect();
    assert_eq!(told, [("tenant.b".to_owned(), false), ("tenant.d".to_owned(), false)]);
    // The next file is compared with what runs, where the one that is gone is gone.
    let mut again = parse(&format!("{listen}{}{}{}", tenant("b"), tenant("c"), tenant("a")));
    again.keep_tenant_places(&new).unwrap();
    assert_eq!(new.changes(&again).len(), 2);
    assert_eq!(again.listen[0].tenant, TenantId(2));
}
