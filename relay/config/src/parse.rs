//! From TOML to a validated [`Config`].

mod policy;
mod privacy;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sluice_base::message::Alternates;
use sluice_base::{AddressClass, Pii, Secret, TenantId, limits};
use toml::de::{DeTable, DeValue};

use crate::error::{Problem, place, shown};
use crate::policy::Plugin;
use crate::privacy::Privacy;
use crate::source::{ReadError, SecretFile, Sources, others_may_read};
use crate::walk::{Item, Section, Walk};
use crate::{
    Config, Control, ControlSocket, Drain, Driver, Guard, Io, Limits, Listen, Log, LogFormat, LogLevel, Metrics, Quota,
    Range, Relay, Tenant, TenantLimits, Turn, User,
};

/// Every section with its keys: what is allowed, and what config.example.toml has to explain.
pub(crate) const SECTIONS: &[(&str, &[&str])] = &[
    ("", ROOT),
    ("listen", LISTEN),
    ("relay", RELAY),
    ("relay_ports", RELAY_PORTS),
    ("turn", TURN),
    ("guard", GUARD),
    ("limits", LIMITS),
    ("io", IO),
    ("metrics", METRICS),
    ("control", CONTROL),
    ("drain", DRAIN),
    ("log", LOG),
    ("privacy", privacy::PRIVACY),
    ("privacy.retention", privacy::RETENTION),
    ("spool", privacy::SPOOL),
    ("spool.sink", privacy::SINK),
    ("policy", policy::POLICY),
    ("plugin", policy::PLUGIN),
    ("geo", policy::GEO),
    ("geo.set", policy::GEO_SET),
    ("tenant", TENANT),
    ("tenant.policy", policy::TENANT_POLICY),
    ("tenant.secrets", SECRET),
    ("tenant.user", USER),
    ("tenant.limits", TENANT_LIMITS),
    ("tenant.privacy", privacy::TENANT_PRIVACY),
];

const ROOT: &[&str] = &[
    "workers",
    "listen",
    "relay",
    "relay_ports",
    "turn",
    "guard",
    "limits",
    "io",
    "metrics",
    "control",
    "drain",
    "log",
    "privacy",
    "spool",
    "policy",
    "plugin",
    "geo",
    "tenant",
];
const LISTEN: &[&str] = &["address", "realm", "tenant"];
const RELAY: &[&str] = &["address", "external_address"];
const RELAY_PORTS: &[&str] = &["min", "max"];
const TURN: &[&str] =
    &["allocation_lifetime_seconds", "allocation_lifetime_max_seconds", "nonce_lifetime_seconds", "software"];
const GUARD: &[&str] =
    &["allow_peers", "deny_peers", "deny_clients", "unauthenticated_per_second", "unauthenticated_burst"];
const LIMITS: &[&str] = &[
    "allocations",
    "allocations_per_tenant",
    "allocations_per_user",
    "permissions",
    "permissions_per_tenant",
    "permissions_per_user",
    "permissions_per_allocation",
    "channels",
    "channels_per_tenant",
    "channels_per_user",
    "channels_per_allocation",
    "bits_per_second_total",
    "bits_per_second_tenant",
    "bits_per_second_user",
    "bits_per_second_allocation",
    "packets_per_second_total",
    "packets_per_second_tenant",
    "packets_per_second_user",
    "packets_per_second_allocation",
];
const IO: &[&str] = &["driver", "disable", "receive_buffer_bytes", "send_buffer_bytes", "slots", "wait_budget_us"];
const METRICS: &[&str] = &["listen", "allow_plaintext"];
const CONTROL: &[&str] = &["socket"];
const LOG: &[&str] = &["level", "format"];
const DRAIN: &[&str] = &["deadline_seconds", "alternates"];
const TENANT: &[&str] = &["name", "secrets", "user", "limits", "privacy", "policy"];
const SECRET: &[&str] = &["file", "credential", "value"];
const USER: &[&str] = &["name", "password", "password_file"];
const TENANT_LIMITS: &[&str] = &[
    "allocations",
    "allocations_per_user",
    "permissions",
    "permissions_per_user",
    "channels",
    "channels_per_user",
    "bits_per_second_total",
    "bits_per_second_user",
    "packets_per_second_total",
    "packets_per_second_user",
];

/// The tenant of a listener that names none.
const DEFAULT_TENANT: &str = "default";

/// Parses a configuration: what could be read, the mistakes, and how many more mistakes there are.
pub(crate) fn config(
    text: &str,
    file: &str,
    io_features: &[&str],
    sources: &dyn Sources,
) -> (Config, Vec<Problem>, usize) {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // Behind a syntax error, keys stand where nobody wrote them: nothing else is worth saying.
        let shown = errors.iter().take(limits::CONFIG_PROBLEMS_MAX);
        let problems: Vec<_> = shown.map(|e| syntax_problem(text, e)).collect();
        let more = errors.len() - problems.len();
        return (Config::default(), problems, more);
    }
    let folder = Path::new(file).parent().unwrap_or(Path::new("")).to_owned();
    let mut reader = Reader { walk: Walk::new(text), folder, io_features, sources, captures: HashSet::new() };
    let root = reader.walk.root(&document, ROOT);
    let config = reader.config(&root);
    let (problems, more) = reader.walk.into_problems();
    (config, problems, more)
}

/// Whether a secret or a password stands in the text itself.
pub(crate) fn has_inline_secrets(text: &str) -> bool {
    let (document, _) = DeTable::parse_recoverable(text);
    let has = |tenant: &DeTable<'_>, list: &str, key: &str| {
        let entries = tenant.get(list).and_then(|v| v.get_ref().as_array());
        entries.is_some_and(|e| e.iter().any(|v| v.get_ref().get(key).is_some()))
    };
    let tenants = document.get_ref().get("tenant").and_then(|v| v.get_ref().as_array());
    let tenants = tenants.into_iter().flatten().filter_map(|v| v.get_ref().as_table());
    tenants.into_iter().any(|t| has(t, "secrets", "value") || has(t, "user", "password"))
}

fn syntax_problem(text: &str, error: &toml::de::Error) -> Problem {
    let place = error.span().map(|span| place(text, span.start));
    Problem { place, key: String::new(), message: format!("not TOML: {}", error.message()) }
}

struct Reader<'t, 'a> {
    walk: Walk<'t>,
    folder: PathBuf,
    io_features: &'a [&'a str],
    sources: &'a dyn Sources,
    /// Names of captures so far.
    captures: HashSet<String>,
}

impl<'t> Reader<'t, '_> {
    fn config(&mut self, root: &Section<'t>) -> Config {
        let limits = self.limits(root);
        let privacy = self.privacy(root);
        let plugins = self.plugins(root);
        let tenants = self.tenants(root, &limits, &privacy, &plugins);
        Config {
            listen: self.listeners(root, &tenants),
            relay: self.relays(root),
            relay_ports: self.relay_ports(root),
            turn: self.turn(root),
            guard: self.guard(root),
            limits,
            workers: self.workers(root),
            io: self.io(root),
            metrics: self.metrics(root),
            control: self.control(root),
            drain: self.drain(root),
            log: self.log(root),
            spool: self.spool(root, &privacy),
            privacy,
            policy: self.policy(root),
            plugins,
            geo: self.geo(root),
            tenants,
            warnings: Vec::new(),
        }
    }

    fn workers(&mut self, root: &Section<'t>) -> Option<NonZeroUsize> {
        let workers = self.walk.number(root, "workers", 0..=limits::WORKERS_MAX as u64)?;
        NonZeroUsize::new(workers as usize)
    }

    fn listeners(&mut self, root: &Section<'t>, tenants: &[Tenant]) -> Vec<Listen> {
        let sections = self.walk.children(root, "listen", LISTEN);
        self.at_most(&sections, limits::LISTENERS_MAX);
        if sections.is_empty() && root.item("listen").is_none() {
            self.walk.missing(
                "listen",
                "there is nothing to listen on. Add for example:\n  \
                 [[listen]]\n  address = \"0.0.0.0:3478\"\n  realm = \"example.org\"",
            );
        }
        let mut seen = Vec::new();
        let sections = sections.iter().take(limits::LISTENERS_MAX);
        sections.filter_map(|section| self.listener(section, tenants, &mut seen)).collect()
    }

    fn listener(&mut self, section: &Section<'t>, tenants: &[Tenant], seen: &mut Vec<SocketAddr>) -> Option<Listen> {
        let address = self.listen_address(section, seen);
        let realm = self.realm(section);
        let tenant = self.listener_tenant(section, tenants);
        Some(Listen { address: address?, realm: realm?, tenant: tenant? })
    }

    fn listen_address(&mut self, section: &Section<'t>, seen: &mut Vec<SocketAddr>) -> Option<SocketAddr> {
        let item = self.walk.required(section, "address", "0.0.0.0:3478")?;
        let address: SocketAddr = self.parsed(&item, "an IP address and a port, such as 0.0.0.0:3478 or [::]:3478")?;
        if address.port() == 0 {
            self.walk.wrong(&item, "port 0 cannot be told to clients: write a port from 1 to 65535, usually 3478");
            return None;
        }
        let item = item.with(address.ip());
        self.bindable(&item)?;
        let clashes = |other: &SocketAddr| {
            other.port() == address.port()
                && other.is_ipv4() == address.is_ipv4()
                && (other.ip() == address.ip() || other.ip().is_unspecified() || address.ip().is_unspecified())
        };
        if let Some(other) = seen.iter().find(|other| clashes(other)) {
            self.walk.wrong(&item, format!("is listened on already by `{other}` above: remove one of them"));
        }
        seen.push(address);
        Some(address)
    }

    fn realm(&mut self, section: &Section<'t>) -> Option<String> {
        let item = self.walk.required(section, "realm", "example.org")?;
        let allowed = |c: char| !c.is_control() && c != '"' && c != '\\';
        if item.value.is_empty() || item.value.len() > limits::REALM_BYTES_MAX || !item.value.chars().all(allowed) {
            let max = limits::REALM_BYTES_MAX;
            self.walk.wrong(&item, format!("a realm has 1 to {max} bytes, without quotes and backslashes"));
            return None;
        }
        Some(item.value.to_owned())
    }

    fn listener_tenant(&mut self, section: &Section<'t>, tenants: &[Tenant]) -> Option<TenantId> {
        let named: Vec<(&str, TenantId)> =
            tenants.iter().enumerate().map(|(i, t)| (t.name.as_str(), TenantId(i as u16))).collect();
        let item = self.walk.string(section, "tenant");
        // What a tenant without a readable name was meant to be called, nobody knows.
        if named.iter().any(|(name, _)| name.is_empty()) {
            return None;
        }
        if let Some(item) = item {
            return self.walk.choice(&item, &named);
        }
        if let Some((_, id)) = named.iter().find(|(name, _)| *name == DEFAULT_TENANT) {
            return Some(*id);
        }
        // Without any tenant, that is said once for the whole file.
        if !named.is_empty() {
            let path = section.path_of("tenant");
            let message = "is missing, and there is no tenant named `default`: name the tenant of this listener";
            self.walk.problem(&section.span, &path, message);
        }
        None
    }

    fn relays(&mut self, root: &Section<'t>) -> Vec<Relay> {
        let sections = self.walk.children(root, "relay", RELAY);
        self.at_most(&sections, limits::RELAY_ADDRESSES_MAX);
        let mut seen = HashSet::new();
        let sections = sections.iter().take(limits::RELAY_ADDRESSES_MAX);
        sections.filter_map(|section| self.relay(section, &mut seen)).collect()
    }

    fn relay(&mut self, section: &Section<'t>, seen: &mut HashSet<IpAddr>) -> Option<Relay> {
        let item = self.walk.required(section, "address", "10.0.0.5")?;
        let address: IpAddr = self.parsed(&item, "an IP address of this machine without a port, such as 10.0.0.5")?;
        let item = item.with(address);
        self.concrete(&item)?;
        if !seen.insert(address) {
            self.walk.wrong(&item, "stands here twice: remove one of them");
        }
        let external_address = match self.walk.string(section, "external_address") {
            None => None,
            Some(item) => Some(self.external_address(&item, address)?),
        };
        Some(Relay { address, external_address })
    }

    fn external_address(&mut self, item: &Item<&str>, internal: IpAddr) -> Option<IpAddr> {
        let address: IpAddr = self.parsed(item, "an IP address without a port, such as 203.0.113.5")?;
        let item = item.with(address);
        if address.is_ipv4() != internal.is_ipv4() {
            self.walk.wrong(&item, "is of another family than `address`: a 1:1 NAT keeps the family");
            return None;
        }
        self.concrete(&item)?;
        Some(address)
    }

    fn relay_ports(&mut self, root: &Section<'t>) -> RangeInclusive<u16> {
        let default = Config::default().relay_ports;
        let Some(section) = self.walk.child(root, "relay_ports", RELAY_PORTS) else {
            return default;
        };
        // Below 1024 stand services that a firewall may trust by their port.
        let min = self.walk.number_item(&section, "min", 1024..=65535);
        let max = self.walk.number_item(&section, "max", 1024..=65535);
        let low = min.as_ref().map_or(*default.start(), |item| item.value as u16);
        let high = max.as_ref().map_or(*default.end(), |item| item.value as u16);
        if low > high {
            let item = max.or(min);
            let span = item.map_or(section.span.clone(), |item| item.span);
            self.walk.problem(&span, &section.path, format!("no port is left: min is {low} and max is {high}"));
        }
        low..=high
    }

    fn turn(&mut self, root: &Section<'t>) -> Turn {
        let default = Turn::default();
        let Some(section) = self.walk.child(root, "turn", TURN) else {
            return default;
        };
        let longest = limits::ALLOCATION_LIFETIME_MAX.as_secs();
        let max = self.walk.number(&section, "allocation_lifetime_max_seconds", 1..=longest).unwrap_or(longest);
        let asked = self.walk.number_item(&section, "allocation_lifetime_seconds", 1..=longest);
        let usual = default.allocation_lifetime.as_secs();
        if let Some(item) = asked.as_ref().filter(|item| item.value > max) {
            self.walk.wrong(item, format!("is more than allocation_lifetime_max_seconds, which is {max}"));
        }
        let lifetime = asked.map_or(usual.min(max), |item| item.value);
        let nonce = self.walk.number(&section, "nonce_lifetime_seconds", 1..=limits::NONCE_LIFETIME_MAX.as_secs());
        Turn {
            allocation_lifetime: Duration::from_secs(lifetime),
            allocation_lifetime_max: Duration::from_secs(max),
            nonce_lifetime: nonce.map_or(default.nonce_lifetime, Duration::from_secs),
            software: self.software(&section),
        }
    }

    fn software(&mut self, section: &Section<'t>) -> Option<String> {
        let item = self.walk.string(section, "software")?;
        let max = limits::SOFTWARE_BYTES_MAX;
        if item.value.len() > max || item.value.chars().any(char::is_control) {
            self.walk.wrong(&item, format!("has at most {max} bytes, all of them printable"));
        }
        (!item.value.is_empty()).then(|| item.value.to_owned())
    }

    fn guard(&mut self, root: &Section<'t>) -> Guard {
        let default = Guard::default();
        let Some(section) = self.walk.child(root, "guard", GUARD) else {
            return default;
        };
        let (allow_classes, allow_ranges) = self.allowed_peers(&section);
        let rate = self.walk.number(&section, "unauthenticated_per_second", 1..=u64::from(u32::MAX));
        let burst = self.walk.number(&section, "unauthenticated_burst", 1..=u64::from(u32::MAX));
        Guard {
            allow_classes,
            allow_ranges,
            deny_ranges: self.ranges(&section, "deny_peers"),
            deny_clients: self.ranges(&section, "deny_clients"),
            unauthenticated_per_second: rate.map_or(default.unauthenticated_per_second, |n| n as u32),
            unauthenticated_burst: burst.map_or(default.unauthenticated_burst, |n| n as u32),
        }
    }

    fn allowed_peers(&mut self, section: &Section<'t>) -> (Vec<AddressClass>, Vec<Range>) {
        let items = self.walk.strings(section, "allow_peers");
        self.few_ranges(&items);
        let (mut classes, mut ranges) = (Vec::new(), Vec::new());
        for item in items {
            if looks_like_address(item.value) {
                ranges.extend(self.range(&item));
            } else {
                classes.extend(self.walk.choice(&item, AddressClass::NAMED));
            }
        }
        (classes, ranges)
    }

    fn ranges(&mut self, section: &Section<'t>, key: &str) -> Vec<Range> {
        let items = self.walk.strings(section, key);
        self.few_ranges(&items);
        items.iter().filter_map(|item| self.range(item)).collect()
    }

    fn few_ranges(&mut self, items: &[Item<&str>]) {
        let max = limits::PEER_RANGES_MAX;
        if let Some(item) = items.get(max) {
            self.walk.wrong(item, format!("there are more than {max} entries: join neighbouring ranges"));
        }
    }

    fn range(&mut self, item: &Item<&str>) -> Option<Range> {
        let what = "an address range, such as 10.20.0.0/16, 2001:db8::/32 or 192.0.2.7";
        let (address, bits) = match item.value.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (item.value, None),
        };
        let address: IpAddr = self.parsed_as(item, address, what)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits: u8 = bits.map_or(Some(width), |bits| self.parsed_as(item, bits, what))?;
        if bits > width {
            self.walk.wrong(item, format!("a prefix of this family has at most {width} bits"));
            return None;
        }
        let network = network(address, bits);
        if network != address {
            self.walk.wrong(item, format!("has bits set behind its prefix: the range is `{network}/{bits}`"));
            return None;
        }
        Some(Range { address, prefix_bits: bits })
    }

    fn limits(&mut self, root: &Section<'t>) -> Limits {
        let default = Limits::default();
        let Some(section) = self.walk.child(root, "limits", LIMITS) else {
            return default;
        };
        let mut quota = |keys: &QuotaKeys, quota: &Quota| self.quota(&section, keys, quota);
        Limits {
            total: quota(&TOTAL, &default.total),
            tenant: quota(&PER_TENANT, &default.tenant),
            user: quota(&PER_USER, &default.user),
            allocation: quota(&PER_ALLOCATION, &default.allocation),
        }
    }

    /// What `[limits]` says of one scope.
    fn quota(&mut self, section: &Section<'t>, keys: &QuotaKeys, default: &Quota) -> Quota {
        let mut quota = *default;
        for (key, part) in keys.parts() {
            if let Some(value) = self.walk.number(section, key, part.allowed(keys)) {
                part.set(&mut quota, (value > 0).then_some(value));
            }
        }
        quota
    }

    /// What `[tenant.limits]` says of one scope: lower than `ceiling`, or the same.
    fn lowered(&mut self, section: Option<&Section<'t>>, keys: &QuotaKeys, ceiling: &Quota) -> Quota {
        let mut quota = *ceiling;
        let Some(section) = section else { return quota };
        for (key, part) in keys.parts() {
            let allowed = part.allowed(keys);
            let Some(item) = self.walk.number_item(section, key, allowed) else {
                continue;
            };
            match part.value(ceiling) {
                Some(max) if item.value == 0 || item.value > max => {
                    self.walk.wrong(&item, format!("a tenant may only lower what [limits] says, which is {max}"));
                }
                _ => part.set(&mut quota, (item.value > 0).then_some(item.value)),
            }
        }
        quota
    }

    fn io(&mut self, root: &Section<'t>) -> Io {
        let Some(item) = root.item("io") else {
            return Io::default();
        };
        if let DeValue::String(name) = item.value {
            let driver = self.walk.choice(&item.with(name.as_ref()), Driver::NAMED);
            return Io { driver: driver.unwrap_or_default(), ..Io::default() };
        }
        let Some(section) = self.walk.section(&item, IO) else {
            return Io::default();
        };
        let driver = self.walk.string(&section, "driver");
        let buffer = 0..=u64::from(limits::SOCKET_BUFFER_BYTES_MAX);
        let budget = 0..=u64::from(limits::WAIT_BUDGET_US_MAX);
        Io {
            driver: driver.and_then(|item| self.walk.choice(&item, Driver::NAMED)).unwrap_or_default(),
            disable: self.disabled(&section),
            receive_buffer_bytes: self.walk.number(&section, "receive_buffer_bytes", buffer.clone()).unwrap_or(0)
                as u32,
            send_buffer_bytes: self.walk.number(&section, "send_buffer_bytes", buffer).unwrap_or(0) as u32,
            slots: self.slots(&section),
            wait_budget_us: self.walk.number(&section, "wait_budget_us", budget).unwrap_or(0) as u32,
        }
    }

    fn slots(&mut self, section: &Section<'t>) -> Option<u32> {
        let item = self.walk.number_item(section, "slots", 0..=u64::from(limits::SLOTS_MAX))?;
        let slots = item.value as u32;
        if (1..limits::SLOTS_MIN).contains(&slots) {
            let (min, max) = (limits::SLOTS_MIN, limits::SLOTS_MAX);
            self.walk.wrong(&item, format!("`{slots}` is out of range: {min} to {max} is allowed, and 0"));
        }
        (slots > 0).then_some(slots)
    }

    fn disabled(&mut self, section: &Section<'t>) -> Vec<String> {
        let named: Vec<(&str, &str)> = self.io_features.iter().map(|name| (*name, *name)).collect();
        let items = self.walk.strings(section, "disable");
        items.iter().filter_map(|item| self.walk.choice(item, &named)).map(str::to_owned).collect()
    }

    fn metrics(&mut self, root: &Section<'t>) -> Metrics {
        let default = Metrics::default();
        let Some(section) = self.walk.child(root, "metrics", METRICS) else {
            return default;
        };
        let allow_plaintext = self.walk.boolean(&section, "allow_plaintext").unwrap_or(false);
        let listen = match self.walk.string(&section, "listen") {
            None => default.listen,
            Some(item) if item.value.is_empty() => None,
            Some(item) => self.metrics_address(&item, allow_plaintext),
        };
        Metrics { listen, allow_plaintext }
    }

    fn metrics_address(&mut self, item: &Item<&str>, allow_plaintext: bool) -> Option<SocketAddr> {
        let what = "an IP address and a port, such as 127.0.0.1:9641, or \"\" for none";
        let address: SocketAddr = self.parsed(item, what)?;
        if !address.ip().to_canonical().is_loopback() && !allow_plaintext {
            self.walk.wrong(
                item,
                "is not a loopback address, and metrics are served in plain text: listen on 127.0.0.1 or [::1], or \
                 accept that with allow_plaintext = true",
            );
            return None;
        }
        Some(address)
    }

    fn control(&mut self, root: &Section<'t>) -> Control {
        let Some(section) = self.walk.child(root, "control", CONTROL) else {
            return Control::default();
        };
        let socket = self.walk.string(&section, "socket").map(|item| match item.value {
            "auto" => ControlSocket::Auto,
            "" => ControlSocket::None,
            path => ControlSocket::At(self.socket_path(&item, path)),
        });
        Control { socket: socket.unwrap_or_default() }
    }

    fn drain(&mut self, root: &Section<'t>) -> Drain {
        let default = Drain::default();
        let Some(section) = self.walk.child(root, "drain", DRAIN) else {
            return default;
        };
        let longest = limits::DRAIN_DEADLINE_MAX.as_secs();
        let deadline = self.walk.number(&section, "deadline_seconds", 0..=longest);
        let mut alternates = Alternates::default();
        for item in self.walk.strings(&section, "alternates") {
            self.alternate(&item, &mut alternates);
        }
        Drain { deadline: deadline.map_or(default.deadline, Duration::from_secs), alternates }
    }

    fn log(&mut self, root: &Section<'t>) -> Log {
        let Some(section) = self.walk.child(root, "log", LOG) else {
            return Log::default();
        };
        let level = self.walk.string(&section, "level");
        let format = self.walk.string(&section, "format");
        Log {
            level: level.and_then(|item| self.walk.choice(&item, LogLevel::NAMED)).unwrap_or_default(),
            format: format.and_then(|item| self.walk.choice(&item, LogFormat::NAMED)).unwrap_or_default(),
        }
    }

    /// Another relay's address, one of each family.
    fn alternate(&mut self, item: &Item<&str>, alternates: &mut Alternates) -> Option<()> {
        let address: SocketAddr =
            self.parsed(item, "an IP address and a port of another relay, such as 203.0.113.6:3478")?;
        if address.port() == 0 {
            self.walk.wrong(item, "port 0 cannot be told to clients: write a port from 1 to 65535, usually 3478");
        }
        self.concrete(&item.with(address.ip()))?;
        let of_family = if address.is_ipv4() { &mut alternates.v4 } else { &mut alternates.v6 };
        if of_family.replace(address).is_some() {
            self.walk.wrong(item, "is the second of its family: clients are sent to one, choose it");
        }
        Some(())
    }

    fn socket_path(&mut self, item: &Item<&str>, path: &str) -> PathBuf {
        let max = limits::CONTROL_SOCKET_BYTES_MAX;
        if path.len() > max {
            self.walk.wrong(item, format!("a socket's path has at most {max} bytes"));
        } else if !path.starts_with('/') || path.ends_with('/') || path.chars().any(char::is_control) {
            self.walk.wrong(item, "is not an absolute path of a file, such as /run/sluice/control.sock, nor \"auto\"");
        }
        PathBuf::from(path)
    }

    fn tenants(&mut self, root: &Section<'t>, limits: &Limits, privacy: &Privacy, plugins: &[Plugin]) -> Vec<Tenant> {
        let sections = self.walk.children(root, "tenant", TENANT);
        self.at_most(&sections, limits::TENANTS_MAX);
        if sections.is_empty() && root.item("tenant").is_none() {
            self.walk
                .missing("tenant", format!("there is no tenant, so nobody could authenticate. {CREDENTIAL_LINES}"));
        }
        let mut names = HashSet::new();
        let tenants = sections.iter().take(limits::TENANTS_MAX);
        tenants.map(|section| self.tenant(section, limits, privacy, plugins, &mut names)).collect()
    }

    fn tenant(
        &mut self,
        section: &Section<'t>,
        limits: &Limits,
        privacy: &Privacy,
        plugins: &[Plugin],
        names: &mut HashSet<&'t str>,
    ) -> Tenant {
        let name = self.tenant_name(section, names).unwrap_or_default();
        let secrets = self.secrets(section);
        let users = self.users(section);
        if section.item("secrets").is_none_or(|item| item.value.as_array().is_some_and(|a| a.is_empty()))
            && section.item("user").is_none()
        {
            let message = format!("has neither secrets nor users, so nobody could authenticate. {CREDENTIAL_LINES}");
            self.walk.problem(&section.span, &section.path, message);
        }
        let limits = self.tenant_limits(section, limits);
        let privacy = self.tenant_privacy(section, privacy);
        let policies = self.tenant_policies(section, &privacy, plugins);
        Tenant { name, secrets, users, limits, privacy, policies }
    }

    fn tenant_name(&mut self, section: &Section<'t>, names: &mut HashSet<&'t str>) -> Option<String> {
        let item = self.walk.required(section, "name", DEFAULT_TENANT)?;
        let max = limits::TENANT_NAME_BYTES_MAX;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if item.value.is_empty() || item.value.len() > max || !item.value.chars().all(allowed) {
            self.walk.wrong(&item, format!("a tenant's name has 1 to {max} letters, digits, `-`, `_` and `.`"));
            return None;
        }
        if !names.insert(item.value) {
            self.walk.wrong(&item, "another tenant has this name already");
        }
        Some(item.value.to_owned())
    }

    fn tenant_limits(&mut self, section: &Section<'t>, limits: &Limits) -> TenantLimits {
        let section = self.walk.child(section, "limits", TENANT_LIMITS);
        let section = section.as_ref();
        TenantLimits {
            tenant: self.lowered(section, &TOTAL, &limits.tenant.lower(&limits.total)),
            user: self.lowered(section, &PER_USER, &limits.user),
        }
    }

    fn secrets(&mut self, tenant: &Section<'t>) -> Vec<Secret<String>> {
        let items = self.walk.array(tenant, "secrets");
        let max = limits::SECRETS_PER_TENANT_MAX;
        if let Some(item) = items.get(max) {
            self.walk.wrong(item, format!("at most {max} secrets are live: the one in use and the one before it"));
        }
        let items = items.iter().take(max);
        items.filter_map(|item| self.secret(item)).collect()
    }

    fn secret(&mut self, item: &Item<&'t DeValue<'t>>) -> Option<Secret<String>> {
        if !item.value.is_table() {
            self.walk.wrong(item, ONE_OF_SECRET);
            return None;
        }
        let section = self.walk.section(item, SECRET)?;
        let given: Vec<&str> = SECRET.iter().copied().filter(|key| section.item(key).is_some()).collect();
        let [key] = given[..] else {
            self.walk.wrong(item, ONE_OF_SECRET);
            return None;
        };
        let value = self.walk.string(&section, key)?;
        match key {
            "file" => self.secret_file(&value, &self.folder.join(value.value)),
            "credential" => self.credential(&value),
            _ => self.checked_secret(&value, value.value),
        }
    }

    fn credential(&mut self, item: &Item<&str>) -> Option<Secret<String>> {
        if item.value.is_empty() || item.value.contains('/') || item.value.starts_with('.') {
            self.walk.wrong(item, "a credential's name is a file name, as in LoadCredential=NAME:/path of the unit");
            return None;
        }
        let Some(folder) = self.sources.credentials_directory() else {
            self.walk.wrong(
                item,
                "$CREDENTIALS_DIRECTORY is not set: only a service manager sets it (LoadCredential= in the unit); \
                 elsewhere use `file`",
            );
            return None;
        };
        self.secret_file(item, &folder.join(item.value))
    }

    fn secret_file(&mut self, item: &Item<&str>, path: &Path) -> Option<Secret<String>> {
        let shown_path = path.display();
        let SecretFile { bytes, mode } = match self.sources.secret_file(path) {
            Ok(file) => file,
            Err(error) => {
                self.walk.wrong(item, format!("the file `{shown_path}` {error}"));
                return None;
            }
        };
        if others_may_read(mode) {
            let message = format!("the file `{shown_path}` is open to every user of this machine: chmod o-rwx it");
            self.walk.wrong(item, message);
            return None;
        }
        let Ok(text) = std::str::from_utf8(&bytes) else {
            self.walk.wrong(item, format!("the file `{shown_path}` {}", ReadError::NotText));
            return None;
        };
        // An editor ends the last line; the secret does not have that.
        let text = text.strip_suffix('\n').unwrap_or(text);
        self.checked_secret(item, text.strip_suffix('\r').unwrap_or(text))
    }

    fn checked_secret(&mut self, item: &Item<&str>, text: &str) -> Option<Secret<String>> {
        if text.is_empty() || text.len() as u64 > limits::SECRET_BYTES_MAX || text.chars().any(char::is_control) {
            let max = limits::SECRET_BYTES_MAX;
            self.walk.wrong(item, format!("a secret is one line of 1 to {max} bytes without control characters"));
            return None;
        }
        Some(Secret::new(text.to_owned()))
    }

    fn users(&mut self, tenant: &Section<'t>) -> Vec<User> {
        let sections = self.walk.children(tenant, "user", USER);
        self.at_most(&sections, limits::STATIC_USERS_MAX);
        let mut names = HashSet::new();
        let sections = sections.iter().take(limits::STATIC_USERS_MAX);
        sections.filter_map(|section| self.user(section, &mut names)).collect()
    }

    fn user(&mut self, section: &Section<'t>, names: &mut HashSet<&'t str>) -> Option<User> {
        let name = self.user_name(section, names);
        let password = self.password(section);
        Some(User { name: name?, password: password? })
    }

    fn user_name(&mut self, section: &Section<'t>, names: &mut HashSet<&'t str>) -> Option<Pii<String>> {
        let item = self.walk.required(section, "name", "alice")?;
        let max = limits::USERNAME_BYTES_MAX;
        // What stands before a `:` is the expiry of a time-limited name, before a `/` its tenant.
        let allowed = |c: char| !c.is_control() && c != ':' && c != '/';
        if item.value.is_empty() || item.value.len() > max || !item.value.chars().all(allowed) {
            self.walk
                .wrong(&item, format!("a user's name has 1 to {max} bytes, without `:`, `/` and control characters"));
            return None;
        }
        if !names.insert(item.value) {
            self.walk.wrong(&item, "another user of this tenant has this name already");
        }
        Some(Pii::new(item.value.to_owned()))
    }

    fn password(&mut self, section: &Section<'t>) -> Option<Secret<String>> {
        match (section.item("password").is_some(), section.item("password_file").is_some()) {
            (true, false) => {
                let item = self.walk.string(section, "password")?;
                self.checked_secret(&item, item.value)
            }
            (false, true) => {
                let item = self.walk.string(section, "password_file")?;
                self.secret_file(&item, &self.folder.join(item.value))
            }
            _ => {
                let message = "a user has either `password` or `password_file`";
                self.walk.problem(&section.span, &section.path, message);
                None
            }
        }
    }

    fn at_most(&mut self, sections: &[Section<'t>], max: usize) {
        if let Some(section) = sections.get(max) {
            self.walk.problem(&section.span, &section.path, format!("there are more than {max}, which is the limit"));
        }
    }

    fn parsed<T: FromStr>(&mut self, item: &Item<&str>, what: &str) -> Option<T> {
        self.parsed_as(item, item.value, what)
    }

    fn parsed_as<T: FromStr>(&mut self, item: &Item<&str>, part: &str, what: &str) -> Option<T> {
        let value = part.parse().ok();
        if value.is_none() {
            self.walk.wrong(item, format!("{} is not {what}", shown(item.value)));
        }
        value
    }

    /// An address on which a socket can be bound, a wildcard included.
    fn bindable(&mut self, item: &Item<IpAddr>) -> Option<()> {
        let ip = item.value;
        if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
            self.walk
                .wrong(item, format!("`{ip}` is a multicast or broadcast address: nobody can be answered from it"));
            return None;
        }
        if let IpAddr::V6(v6) = ip
            && let Some(v4) = v6.to_ipv4_mapped()
        {
            self.walk.wrong(item, format!("`{ip}` is an IPv4 address in IPv6 form: write {v4}"));
            return None;
        }
        Some(())
    }

    /// An address that can be told to others.
    fn concrete(&mut self, item: &Item<IpAddr>) -> Option<()> {
        if item.value.is_unspecified() {
            self.walk.wrong(item, "a wildcard cannot be told to clients: write the address itself");
            return None;
        }
        self.bindable(item)
    }
}

const ONE_OF_SECRET: &str =
    "a secret is one of { file = \"PATH\" }, { credential = \"NAME\" } and { value = \"TEXT\" }";

const CREDENTIAL_LINES: &str = "Add for example:\n  [[tenant]]\n  name = \"default\"\n  \
     secrets = [{ file = \"/etc/sluice/turn-secret\" }]";

/// The names of one scope's keys.
pub(crate) struct QuotaKeys {
    allocations: Option<&'static str>,
    permissions: &'static str,
    channels: &'static str,
    bits_per_second: &'static str,
    packets_per_second: &'static str,
}

pub(crate) const TOTAL: QuotaKeys = QuotaKeys {
    allocations: Some("allocations"),
    permissions: "permissions",
    channels: "channels",
    bits_per_second: "bits_per_second_total",
    packets_per_second: "packets_per_second_total",
};
pub(crate) const PER_TENANT: QuotaKeys = QuotaKeys {
    allocations: Some("allocations_per_tenant"),
    permissions: "permissions_per_tenant",
    channels: "channels_per_tenant",
    bits_per_second: "bits_per_second_tenant",
    packets_per_second: "packets_per_second_tenant",
};
pub(crate) const PER_USER: QuotaKeys = QuotaKeys {
    allocations: Some("allocations_per_user"),
    permissions: "permissions_per_user",
    channels: "channels_per_user",
    bits_per_second: "bits_per_second_user",
    packets_per_second: "packets_per_second_user",
};
pub(crate) const PER_ALLOCATION: QuotaKeys = QuotaKeys {
    allocations: None,
    permissions: "permissions_per_allocation",
    channels: "channels_per_allocation",
    bits_per_second: "bits_per_second_allocation",
    packets_per_second: "packets_per_second_allocation",
};

impl QuotaKeys {
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&'static str, Part)> {
        let others = [
            (self.permissions, Part::Permissions),
            (self.channels, Part::Channels),
            (self.bits_per_second, Part::BitsPerSecond),
            (self.packets_per_second, Part::PacketsPerSecond),
        ];
        self.allocations.map(|key| (key, Part::Allocations)).into_iter().chain(others)
    }
}

/// One of the numbers of a [`Quota`].
#[derive(Clone, Copy)]
pub(crate) enum Part {
    Allocations,
    Permissions,
    Channels,
    BitsPerSecond,
    PacketsPerSecond,
}

impl Part {
    /// What may be written; 0, where it may, sets no limit.
    fn allowed(self, keys: &QuotaKeys) -> RangeInclusive<u64> {
        let of_one_allocation = keys.allocations.is_none();
        match self {
            // The table of sockets is sized by it.
            Part::Allocations if keys.allocations == TOTAL.allocations => 1..=u64::from(limits::ALLOCATIONS_MAX),
            Part::Allocations => 0..=u64::from(limits::ALLOCATIONS_MAX),
            Part::Permissions | Part::Channels if of_one_allocation => 1..=u64::from(limits::PEERS_PER_ALLOCATION_MAX),
            Part::Permissions | Part::Channels => 0..=u64::from(u32::MAX),
            Part::BitsPerSecond | Part::PacketsPerSecond => 0..=limits::RATE_MAX,
        }
    }

    pub(crate) fn value(self, quota: &Quota) -> Option<u64> {
        match self {
            Part::Allocations => quota.allocations.map(u64::from),
            Part::Permissions => quota.permissions.map(u64::from),
            Part::Channels => quota.channels.map(u64::from),
            Part::BitsPerSecond => quota.bits_per_second,
            Part::PacketsPerSecond => quota.packets_per_second,
        }
    }

    fn set(self, quota: &mut Quota, value: Option<u64>) {
        let count = value.map(|v| u32::try_from(v).unwrap_or(u32::MAX));
        match self {
            Part::Allocations => quota.allocations = count,
            Part::Permissions => quota.permissions = count,
            Part::Channels => quota.channels = count,
            Part::BitsPerSecond => quota.bits_per_second = value,
            Part::PacketsPerSecond => quota.packets_per_second = value,
        }
    }
}

impl Quota {
    /// The lower of both, number by number.
    pub(crate) fn lower(&self, other: &Quota) -> Quota {
        fn lower<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            }
        }
        Quota {
            allocations: lower(self.allocations, other.allocations),
            permissions: lower(self.permissions, other.permissions),
            channels: lower(self.channels, other.channels),
            bits_per_second: lower(self.bits_per_second, other.bits_per_second),
            packets_per_second: lower(self.packets_per_second, other.packets_per_second),
        }
    }
}

/// Whether an entry of `allow_peers` is meant as a range: names of classes have neither digits nor colons.
fn looks_like_address(entry: &str) -> bool {
    entry.contains(|c: char| c.is_ascii_digit() || matches!(c, ':' | '/'))
}

/// The address with all bits behind the prefix cleared.
fn network(address: IpAddr, prefix_bits: u8) -> IpAddr {
    let bits = u32::from(prefix_bits);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}
