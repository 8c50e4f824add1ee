//! What an operator reads when the configuration is wrong.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use sluice_config::{Config, ConfigError, ReadError, SecretFile, Sources};

/// Secrets' files and the credentials' folder of a test.
#[derive(Default)]
struct Files {
    files: HashMap<PathBuf, (Vec<u8>, u32)>,
    credentials: Option<PathBuf>,
}

impl Files {
    fn with(mut self, path: &str, text: &str, mode: u32) -> Self {
        self.files.insert(PathBuf::from(path), (text.as_bytes().to_vec(), mode));
        self
    }
}

impl Sources for Files {
    fn secret_file(&self, path: &Path) -> Result<SecretFile, ReadError> {
        let (bytes, mode) = self.files.get(path).ok_or(ReadError::Refused(io::ErrorKind::NotFound))?;
        Ok(SecretFile { bytes: bytes.clone(), mode: *mode })
    }

    fn credentials_directory(&self) -> Option<PathBuf> {
        self.credentials.clone()
    }
}

const LISTEN: &str = "[[listen]]\naddress = \"0.0.0.0:3478\"\nrealm = \"example.org\"\n";
const TENANT: &str = "[[tenant]]\nname = \"default\"\nsecrets = [{ value = \"s3cret\" }]\n";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, "sluice.toml", &["bundles", "min_wait"], &Files::default())
}

/// The one mistake of `start`, followed by a listener and a tenant.
fn mistake(start: &str) -> String {
    let error = parse(&format!("{start}\n{LISTEN}{TENANT}")).unwrap_err();
    assert_eq!(error.problems.len(), 1, "{error}");
    error.to_string()
}

/// The one mistake of a file that has all of `text`.
fn mistake_in(text: &str) -> String {
    let error = parse(text).unwrap_err();
    assert_eq!(error.problems.len(), 1, "{error}");
    error.to_string()
}

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn an_unknown_key_has_its_place_and_the_key_that_was_meant() {
    let text = mistake("[turn]\nnonce_lifetime_second = 5");
    assert_says(&text, &["sluice.toml:2:1: turn.nonce_lifetime_second:", "did you mean `nonce_lifetime_seconds`?"]);
    assert_says(&text, &["Allowed: allocation_lifetime_seconds, "]);
}

#[test]
fn kebab_case_is_recognised() {
    let text = mistake("[relay-ports]\nmin = 50000");
    assert_says(&text, &["sluice.toml:1:2: relay-ports:", "written with `_`: did you mean `relay_ports`?"]);
}

#[test]
fn a_key_of_another_section_is_recognised() {
    assert_says(&mistake("realm = \"example.org\""), &["`realm` is a key of: listen"]);
}

#[test]
fn a_value_out_of_range_has_its_place_and_what_is_allowed() {
    let text = mistake("[turn]\nallocation_lifetime_max_seconds = 7200");
    assert_says(&text, &["sluice.toml:2:35: turn.allocation_lifetime_max_seconds:", "`7200`", "1 to 3600"]);
    assert_says(&mistake("workers = -1"), &["sluice.toml:1:11: workers:", "`-1`", "0 to 128"]);
    assert_says(&mistake("workers = \"two\""), &["expected a whole number from 0 to 128, found a string"]);
    assert_says(&mistake("workers = 0x81"), &["out of range"]);
    assert_says(&mistake("workers = 99999999999999999999999999999999999999999999"), &["out of range"]);
}

#[test]
fn several_mistakes_come_at_once_in_the_order_of_the_file() {
    let text = format!("{LISTEN}colour = 1\n[io]\ndriver = \"uring\"\n{TENANT}[turn]\nsoftware = 4\n");
    let error = parse(&text).unwrap_err();
    let places: Vec<_> = error.problems.iter().map(|p| (p.place.unwrap().0, p.key.as_str())).collect();
    assert_eq!(places, [(4, "listen[0].colour"), (6, "io.driver"), (11, "turn.software")]);
    assert_eq!(error.to_string().lines().count(), 3);
}

#[test]
fn keys_that_may_sign_are_checked() {
    let keys = |keys: &str| mistake(&format!("[policy]\ntrusted_keys = [{keys}]"));
    for wrong in
        ["\"\"", "\"ed25519:00\"", "\"ed25519:zz00000000000000000000000000000000000000000000000000000000000000\""]
    {
        assert_says(&keys(wrong), &["policy.trusted_keys[0]:", "64 hexadecimal digits"]);
    }
    assert_says(&mistake("[policy]\nrequire_signature = true"), &["name them in policy.trusted_keys"]);
}

#[test]
fn two_plugins_do_not_share_their_metrics() {
    let plugin = |name: &str| format!("[[plugin]]\nname = \"{name}\"\nfile = \"p.wasm\"\n");
    assert_says(&mistake(&(plugin("a-b") + &plugin("a.b"))), &["plugin[1].name:", "same metrics as \"a-b\""]);
    parse(&format!("{}{}{LISTEN}{TENANT}", plugin("a-b"), plugin("a-c"))).unwrap();
}

#[test]
fn only_a_dry_run_is_captured_each_into_a_file_of_its_own() {
    let plugins = "[[plugin]]\nname = \"a\"\nfile = \"a.wasm\"\n[[plugin]]\nname = \"b\"\nfile = \"b.wasm\"\n";
    let bound = |plugin: &str, lines: &str| format!("[[tenant.policy]]\nplugin = \"{plugin}\"\n{lines}\n");
    let dry = "mode = \"dry-run\"\ncapture = \"monday\"";
    let wrong = |policies: &str| mistake_in(&format!("{plugins}{LISTEN}{TENANT}{policies}"));
    let text = wrong(&bound("a", "capture = \"monday\""));
    assert_says(&text, &["tenant[0].policy[0].capture", "is for a dry run"]);
    let text = wrong(&(bound("a", dry) + &bound("b", dry)));
    assert_says(&text, &["tenant[0].policy[1].capture", "another plugin or tenant"]);
    for name in ["", ".", "..", ".hidden", "a/b", "/a"] {
        assert_says(&wrong(&bound("a", &dry.replace("monday", name))), &["policy[0].capture", "a name has 1 to"]);
    }
    let text = wrong(&format!("[tenant.privacy]\nip_retention_days = 0\n{}", bound("a", dry)));
    assert_says(&text, &["policy[0].capture", "ip_retention_days = 0 keeps nothing"]);
    let config = parse(&format!("{plugins}{LISTEN}{TENANT}{}", bound("a", dry))).unwrap();
    assert_eq!(config.tenants[0].policies[0].capture.as_deref(), Some("monday"));
}

#[test]
fn broken_toml_has_its_place() {
    let text = mistake_in("[[listen]\naddress = 3\n");
    assert_says(&text, &["sluice.toml:1:", "not TOML"]);
}

#[test]
fn addresses_are_checked() {
    let listen = |address: &str| mistake_in(&format!("[[listen]]\naddress = \"{address}\"\nrealm = \"r\"\n{TENANT}"));
    assert_says(&listen("0.0.0.0"), &["sluice.toml:2:11: listen[0].address:", "an IP address and a port"]);
    assert_says(&listen("example.org:3478"), &["an IP address and a port"]);
    assert_says(&listen("0.0.0.0:0"), &["port 0"]);
    assert_says(&listen("224.0.0.1:3478"), &["multicast"]);
    assert_says(&listen("[::ffff:10.0.0.1]:3478"), &["write 10.0.0.1"]);
    assert_says(&mistake("[[relay]]\naddress = \"0.0.0.0\""), &["relay[0].address", "a wildcard cannot be told"]);
    assert_says(&mistake("[[relay]]\naddress = \"10.0.0.5:3478\""), &["without a port"]);
    let text = mistake("[[relay]]\naddress = \"10.0.0.5\"\nexternal_address = \"2001:db8::1\"");
    assert_says(&text, &["sluice.toml:3:20: relay[0].external_address:", "another family"]);
    let text = mistake("[[relay]]\naddress = \"10.0.0.5\"\n[[relay]]\naddress = \"10.0.0.5\"");
    assert_says(&text, &["sluice.toml:4:11: relay[1].address", "twice"]);
}

#[test]
fn listeners_do_not_overlap() {
    let second = "[[listen]]\naddress = \"10.0.0.5:3478\"\nrealm = \"example.org\"\n";
    assert_says(&mistake_in(&format!("{LISTEN}{second}{TENANT}")), &["listen[1].address", "`0.0.0.0:3478` above"]);
    let other = "[[listen]]\naddress = \"[::]:3478\"\nrealm = \"example.org\"\n";
    parse(&format!("{LISTEN}{other}{TENANT}")).unwrap();
}

#[test]
fn a_listener_names_a_tenant_that_exists() {
    let text = format!("{LISTEN}tenant = \"defualt\"\n{TENANT}");
    assert_says(&mistake_in(&text), &["sluice.toml:4:10: listen[0].tenant:", "did you mean `default`?"]);
    let text = format!("{LISTEN}{}", TENANT.replace("default", "acme"));
    assert_says(&mistake_in(&text), &["sluice.toml:1:1: listen[0].tenant:", "no tenant named `default`"]);
    let config = parse(&format!("{LISTEN}tenant = \"acme\"\n{}", TENANT.replace("default", "acme"))).unwrap();
    assert_eq!(Some(config.listen[0].tenant), config.tenant("acme"));
}

#[test]
fn a_relay_that_nobody_can_use_is_refused_with_the_lines_to_add() {
    assert_says(&mistake_in(LISTEN), &["tenant: there is no tenant", "[[tenant]]", "secrets = [{ file ="]);
    assert_says(&mistake_in(TENANT), &["listen: there is nothing to listen on", "[[listen]]"]);
    let bare = format!("{LISTEN}[[tenant]]\nname = \"default\"\n");
    assert_says(&mistake_in(&bare), &["sluice.toml:4:1: tenant[0]:", "neither secrets nor users"]);
    let empty = format!("{LISTEN}[[tenant]]\nname = \"default\"\nsecrets = []\n");
    assert_says(&mistake_in(&empty), &["neither secrets nor users"]);
}

#[test]
fn one_section_of_several_is_written_with_two_brackets() {
    let text = format!("[listen]\naddress = \"0.0.0.0:3478\"\nrealm = \"r\"\n{TENANT}");
    assert_says(&mistake_in(&text), &["write `[[listen]]` instead of `[listen]`"]);
}

#[test]
fn ports_are_a_range() {
    let text = mistake("[relay_ports]\nmin = 60000\nmax = 50000");
    assert_says(&text, &["sluice.toml:3:7: relay_ports:", "min is 60000 and max is 50000"]);
    assert_says(&mistake("[relay_ports]\nmin = 80"), &["1024 to 65535"]);
}

#[test]
fn peers_are_classes_or_ranges() {
    let allow = |entry: &str| mistake(&format!("[guard]\nallow_peers = [\"{entry}\"]"));
    assert_says(&allow("link_local"), &["guard.allow_peers[0]:", "did you mean `link-local`?"]);
    assert_says(&allow("10.0.0.0/33"), &["at most 32 bits"]);
    assert_says(&allow("10.0.0.1/8"), &["the range is `10.0.0.0/8`"]);
    assert_says(&allow("10.0.0/8"), &["an address range"]);
    assert_says(&mistake("[guard]\ndeny_peers = [\"private\"]"), &["sluice.toml:2:15: guard.deny_peers[0]:"]);
    assert_says(&mistake("[guard]\nunauthenticated_per_second = 0"), &["1 to"]);
    let text = "[guard]\nallow_peers = [\"private\", \"fd00::/8\", \"127.0.0.1\"]\ndeny_peers = [\"0.0.0.0/0\"]";
    let guard = parse(&format!("{text}\n{LISTEN}{TENANT}")).unwrap().guard;
    assert_eq!((guard.allow_classes.len(), guard.allow_ranges.len(), guard.deny_ranges.len()), (1, 2, 1));
    assert_eq!(guard.allow_ranges[1].prefix_bits, 32);
}

#[test]
fn io_is_a_table_or_a_driver() {
    use sluice_config::Driver;
    let driver = |text: &str| parse(&format!("{text}\n{LISTEN}{TENANT}")).unwrap().io.driver;
    assert_eq!(driver("io = \"epoll\""), Driver::Epoll);
    assert_eq!(driver("[io]\ndriver = \"io_uring\""), Driver::IoUring);
    assert_eq!(driver(""), Driver::Auto);
    assert_says(&mistake("io = \"io-uring\""), &["sluice.toml:1:6: io:", "did you mean `io_uring`?"]);
    assert_says(&mistake("io = 3"), &["expected a table, found a whole number"]);
    assert_says(&mistake("[io]\nslots = 15"), &["sluice.toml:2:9: io.slots:", "16 to 32768 is allowed, and 0"]);
    assert_says(&mistake("[io]\ndisable = [\"bundle\"]"), &["io.disable[0]", "did you mean `bundles`?"]);
}

#[test]
fn a_wait_budget_is_what_people_do_not_hear() {
    let budget = |line: &str| parse(&format!("[io]\n{line}\n{LISTEN}{TENANT}")).unwrap().io.wait_budget_us;
    assert_eq!((budget(""), budget("wait_budget_us = 500")), (0, 500));
    assert_says(&mistake("[io]\nwait_budget_us = 10001"), &["io.wait_budget_us:", "0 to 10000"]);
}

#[test]
fn the_control_socket_is_an_absolute_path() {
    use sluice_config::ControlSocket;
    let relative = "[control]\nsocket = \"control.sock\"";
    assert_says(&mistake(relative), &["sluice.toml:2:10: control.socket:", "absolute path"]);
    let long = format!("[control]\nsocket = \"/{}\"", "x".repeat(103));
    assert_says(&mistake(&long), &["control.socket:", "at most 103 bytes"]);
    let of = |value: &str| {
        let text = format!("[control]\nsocket = \"{value}\"\n{LISTEN}{TENANT}");
        parse(&text).unwrap().control.socket
    };
    assert_eq!(of("/run/a.sock"), ControlSocket::At(PathBuf::from("/run/a.sock")));
    assert_eq!((of(""), of("auto")), (ControlSocket::None, ControlSocket::Auto));
}

#[test]
fn plain_metrics_leave_the_machine_only_when_that_is_said() {
    let open = "[metrics]\nlisten = \"0.0.0.0:9641\"";
    assert_says(&mistake(open), &["sluice.toml:2:10: metrics.listen:", "allow_plaintext = true"]);
    let config = parse(&format!("{open}\nallow_plaintext = true\n{LISTEN}{TENANT}")).unwrap();
    assert_eq!(config.metrics.listen, Some("0.0.0.0:9641".parse().unwrap()));
    parse(&format!("[metrics]\nlisten = \"[::1]:0\"\n{LISTEN}{TENANT}")).unwrap();
    let none = parse(&format!("[metrics]\nlisten = \"\"\n{LISTEN}{TENANT}")).unwrap();
    assert_eq!(none.metrics.listen, None);
}

#[test]
fn a_default_lifetime_stays_below_the_longest() {
    let text = mistake("[turn]\nallocation_lifetime_seconds = 700\nallocation_lifetime_max_seconds = 650");
    assert_says(&text, &["sluice.toml:2:31:", "allocation_lifetime_max_seconds, which is 650"]);
    let config = parse(&format!("[turn]\nallocation_lifetime_max_seconds = 60\n{LISTEN}{TENANT}")).unwrap();
    assert_eq!(config.turn.allocation_lifetime.as_secs(), 60);
}

#[test]
fn a_tenant_only_lowers_limits() {
    let limits = "[limits]\nallocations_per_tenant = 100\nbits_per_second_tenant = 0\n";
    let with = |own: &str| format!("{limits}{LISTEN}{TENANT}[tenant.limits]\n{own}\n");
    let text = mistake_in(&with("allocations = 200"));
    assert_says(&text, &["tenant[0].limits.allocations:", "only lower", "which is 100"]);
    assert_says(&mistake_in(&with("allocations_per_user = 0")), &["which is 64"]);
    let config = parse(&with("allocations = 50\nbits_per_second_total = 1000")).unwrap();
    let own = config.tenants[0].limits.tenant;
    assert_eq!((own.allocations, own.bits_per_second), (Some(50), Some(1000)));
    assert_eq!(parse(&with("")).unwrap().tenants[0].limits.tenant.allocations, Some(100));
}

#[test]
fn secrets_come_from_files_and_credentials() {
    let text = format!(
        "{LISTEN}[[tenant]]\nname = \"default\"\nsecrets = [{{ file = \"turn\" }}, {{ credential = \"old\" }}]\n\
         [[tenant.user]]\nname = \"alice\"\npassword_file = \"/secrets/alice\"\n"
    );
    let mut files = Files::default()
        .with("/etc/sluice/turn", "new-secret\r\n", 0o100_640)
        .with("/run/credentials/old", "old-secret\n", 0o100_400)
        .with("/secrets/alice", "pass word", 0o100_600);
    files.credentials = Some(PathBuf::from("/run/credentials"));
    let config = Config::parse(&text, "/etc/sluice/sluice.toml", &[], &files).unwrap();
    let tenant = &config.tenants[0];
    let secrets: Vec<&str> = tenant.secrets.iter().map(|s| s.expose().as_str()).collect();
    assert_eq!(secrets, ["new-secret", "old-secret"]);
    assert_eq!(tenant.users[0].password.expose(), "pass word");

    files.credentials = None;
    let error = Config::parse(&text, "/etc/sluice/sluice.toml", &[], &files).unwrap_err().to_string();
    assert_says(&error, &["tenant[0].secrets[1].credential", "$CREDENTIALS_DIRECTORY is not set"]);

    let open = files.with("/etc/sluice/turn", "new-secret\n", 0o100_644);
    let error = Config::parse(&text, "/etc/sluice/sluice.toml", &[], &open).unwrap_err().to_string();
    assert_says(&error, &["sluice.toml:6:21: tenant[0].secrets[0].file", "`/etc/sluice/turn`", "chmod o-rwx"]);
}

#[test]
fn secrets_are_one_of_three() {
    let secrets = |list: &str| mistake_in(&format!("{LISTEN}[[tenant]]\nname = \"default\"\nsecrets = [{list}]\n"));
    assert_says(&secrets("\"text\""), &["tenant[0].secrets[0]", "one of { file ="]);
    assert_says(&secrets("{ file = \"a\", value = \"b\" }"), &["one of { file ="]);
    assert_says(&secrets("{ value = \"\" }"), &["one line of 1 to 4096 bytes"]);
    assert_says(&secrets("{ value = \"a\\nb\" }"), &["one line"]);
    assert_says(&secrets("{ file = \"gone\" }"), &["the file `gone` cannot be read: entity not found"]);
    assert_says(&secrets("{ credential = \"../x\" }"), &["a credential's name is a file name"]);
    let three = "{ value = \"a\" }, { value = \"b\" }, { value = \"c\" }";
    assert_says(&secrets(three), &["tenant[0].secrets[2]", "at most 2 secrets"]);
}

#[test]
fn no_message_carries_a_secret_or_a_user() {
    let text = format!(
        "{LISTEN}[[tenant]]\nname = \"default\"\nsecrets = [\"hunter2\", {{ value = \"hunter2\\n\" }}]\n\
         [[tenant.user]]\nname = \"hunter2:\"\npassword = [\"hunter2\"]\n\
         [[tenant.user]]\nname = \"hunter2x\"\npassword = \"hunter2\\u0000\"\n\
         [[tenant.user]]\nname = \"hunter2x\"\npassword = \"hunter2\"\npassword_file = \"x\"\n"
    );
    let error = parse(&text).unwrap_err();
    assert_eq!(error.problems.len(), 7, "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    let config = parse(&format!("{LISTEN}{}", TENANT.replace("s3cret", "hunter2"))).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn users_and_tenants_have_names_of_their_own() {
    let user = "[[tenant.user]]\nname = \"alice\"\npassword = \"x\"\n";
    let text = mistake_in(&format!("{LISTEN}{TENANT}{user}{user}"));
    assert_says(&text, &["tenant[0].user[1].name", "another user"]);
    assert_says(&mistake_in(&format!("{LISTEN}{TENANT}{TENANT}")), &["tenant[1].name", "another tenant"]);
    let text = mistake_in(&format!("{LISTEN}{}", TENANT.replace("\"default\"", "\"a/b\"")));
    assert_says(&text, &["tenant[0].name", "letters, digits"]);
}

#[test]
fn a_flood_of_mistakes_is_cut() {
    let mut text = String::new();
    for i in 0..200 {
        text += &format!("key_{i} = 1\n");
    }
    let error = parse(&format!("{text}{LISTEN}{TENANT}")).unwrap_err();
    assert_eq!((error.problems.len(), error.more), (50, 150));
    assert_says(&error.to_string(), &["and 150 more"]);
    assert_eq!(error.to_string().lines().count(), 51);
}

#[test]
fn a_file_of_nothing_but_mistakes_takes_no_time() {
    let mut keys = String::new();
    let mut listeners = String::new();
    for i in 0..50_000 {
        keys += &format!("k{i:06}={i}\n");
        listeners += "[[listen]]\n";
    }
    let start = std::time::Instant::now();
    assert!(parse(&keys).is_err() && parse(&listeners).is_err() && parse(&"[".repeat(1 << 19)).is_err());
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[test]
fn nobody_keeps_an_address_longer_than_the_relay_promises() {
    let text = mistake("[privacy]\nip_retention_days = 8\n");
    assert_says(&text, &["privacy.ip_retention_days", "`8` is out of range: 0 to 7"]);
    let tenant = format!("{LISTEN}{TENANT}[tenant.privacy]\nip_retention_days = 4\n[privacy]\nip_retention_days = 3\n");
    let text = mistake_in(&tenant);
    assert_says(&text, &["tenant[0].privacy.ip_retention_days", "may only shorten", "which is 3"]);
    let shorter = parse(&tenant.replace("= 4", "= 0")).unwrap();
    assert_eq!(shorter.tenants[0].privacy.ip_retention_days, 0);
    let inherited = parse(&format!("{LISTEN}{TENANT}[privacy]\nip_retention_days = 3\n")).unwrap();
    assert_eq!(inherited.tenants[0].privacy.ip_retention_days, 3);
}

#[test]
fn directories_of_records_are_absolute() {
    let text = mistake("[privacy]\nstate_directory = \"state\"\n");
    assert_says(&text, &["privacy.state_directory", "absolute path"]);
    let text = mistake("[privacy]\nkeys = \"forever\"\n");
    assert_says(&text, &["privacy.keys", "runtime, persistent"]);
}

#[test]
fn a_sink_is_of_one_kind_and_needs_records() {
    let file = "[[spool.sink]]\nkind = \"file\"\npath = \"/records.jsonl\"\n";
    assert_says(&mistake(file), &["spool.sink[0]", "privacy.records has to be true"]);
    let on = |sink: &str| format!("[privacy]\nrecords = true\n{sink}");
    let config = parse(&format!("{}{LISTEN}{TENANT}", on(file))).unwrap();
    assert_eq!(config.spool.sinks, [sluice_config::Sink::File { path: "/records.jsonl".into() }]);
    let text = mistake(&on(&format!("{file}url = \"http://127.0.0.1/\"\n")));
    assert_says(&text, &["spool.sink[0].url", "not for a sink of kind \"file\""]);
    assert_says(&mistake(&on(&file.replace("/records", "records"))), &["spool.sink[0].path", "absolute path"]);
    assert_says(&mistake(&on(&file.replace("\"file\"", "\"kafka\""))), &["spool.sink[0].kind", "file, http"]);
}
