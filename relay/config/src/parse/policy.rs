//! `[policy]`, `[[plugin]]`, `[[tenant.policy]]` and `[geo]`.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Number, Value};
use sluice_base::limits;
use toml::de::DeValue;

use super::Reader;
use crate::policy::{CountrySet, Engine, Geo, Plugin, PluginGrant, Policy, TenantPolicy};
use crate::privacy::TenantPrivacy;
use crate::walk::{Item, Section};

pub(super) const POLICY: &[&str] = &[
    "engine",
    "memory_bytes",
    "deadline_ms",
    "queue",
    "node_id",
    "node_region",
    "node_country",
    "trusted_keys",
    "require_signature",
    "cache_directory",
];
pub(super) const PLUGIN: &[&str] = &["name", "file", "digest", "grants", "settings"];
pub(super) const TENANT_POLICY: &[&str] = &["plugin", "mode", "capture", "grants", "settings"];
pub(super) const GEO: &[&str] = &["database", "set"];
pub(super) const GEO_SET: &[&str] = &["name", "countries"];

/// Of `mode`: whether it is a dry run.
const MODES: &[(&str, bool)] = &[("enforce", false), ("dry-run", true)];

/// The least memory that can be configured: below a few pages nothing runs.
const MEMORY_BYTES_LEAST: u64 = 1 << 20;

impl<'t> Reader<'t, '_> {
    pub(super) fn policy(&mut self, root: &Section<'t>) -> Policy {
        let default = Policy::default();
        let Some(section) = self.walk.child(root, "policy", POLICY) else {
            return default;
        };
        let engine = self.walk.string(&section, "engine");
        let memory = MEMORY_BYTES_LEAST..=limits::PLUGIN_MEMORY_BYTES_MAX as u64;
        let memory = self.walk.number(&section, "memory_bytes", memory);
        let deadline = 1..=limits::POLICY_DEADLINE_MAX.as_millis() as u64;
        let deadline = self.walk.number(&section, "deadline_ms", deadline);
        let queue = self.walk.number(&section, "queue", 1..=limits::QUESTIONS_PER_WORKER_MAX as u64);
        let trusted_keys = self.trusted_keys(&section);
        let require_signature = self.walk.boolean(&section, "require_signature").unwrap_or_default();
        if let Some(item) = section.item("require_signature").filter(|_| require_signature && trusted_keys.is_empty()) {
            self.walk.wrong(&item, "takes keys that may sign: name them in policy.trusted_keys");
        }
        Policy {
            engine: engine.and_then(|item| self.walk.choice(&item, Engine::NAMED)).unwrap_or_default(),
            memory_bytes: memory.map_or(default.memory_bytes, |bytes| bytes as usize),
            deadline: deadline.map_or(default.deadline, Duration::from_millis),
            queue: queue.map_or(default.queue, |queue| queue as usize),
            node_id: self.word_or_nothing(&section, "node_id"),
            node_region: self.word_or_nothing(&section, "node_region"),
            node_country: self.country_or_nothing(&section, "node_country"),
            trusted_keys,
            require_signature,
            cache_directory: self.directory(&section, "cache_directory"),
        }
    }

    fn trusted_keys(&mut self, section: &Section<'t>) -> Vec<[u8; 32]> {
        let items = self.walk.strings(section, "trusted_keys");
        if let Some(item) = items.get(limits::PLUGIN_KEYS_MAX) {
            self.walk.wrong(item, format!("is one too many: {} keys are possible", limits::PLUGIN_KEYS_MAX));
        }
        let mut keys = Vec::new();
        for item in items {
            match item.value.strip_prefix("ed25519:").and_then(key) {
                Some(key) => keys.push(key),
                None => self.walk.wrong(&item, "expected ed25519: and the 64 hexadecimal digits of a public key"),
            }
        }
        keys
    }

    fn word_or_nothing(&mut self, section: &Section<'t>, key: &str) -> String {
        let Some(item) = self.walk.string(section, key) else {
            return String::new();
        };
        if !item.value.is_empty() && !is_name(item.value) {
            self.walk.wrong(&item, not_a_name());
        }
        item.value.to_owned()
    }

    fn country_or_nothing(&mut self, section: &Section<'t>, key: &str) -> String {
        let Some(item) = self.walk.string(section, key) else {
            return String::new();
        };
        if !item.value.is_empty() {
            self.country(&item);
        }
        item.value.to_owned()
    }

    fn country(&mut self, item: &Item<&str>) {
        let is_code = item.value.len() == 2 && item.value.bytes().all(|b| b.is_ascii_uppercase());
        if !is_code {
            self.walk.wrong(item, "expected a country code of ISO 3166-1, two upper-case letters, such as \"DE\"");
        }
    }

    pub(super) fn plugins(&mut self, root: &Section<'t>) -> Vec<Plugin> {
        let sections = self.walk.children(root, "plugin", PLUGIN);
        self.at_most(&sections, limits::PLUGINS_MAX);
        let mut plugins: Vec<Plugin> = Vec::new();
        for section in sections.iter().take(limits::PLUGINS_MAX) {
            let name = self.walk.required(section, "name", "geofence");
            if let Some(name) = &name {
                if !is_name(name.value) {
                    self.walk.wrong(name, not_a_name());
                }
                if plugins.iter().any(|plugin| plugin.name == name.value) {
                    self.walk.wrong(name, "is the name of two plugins: give each its own");
                } else if let Some(other) = plugins.iter().find(|plugin| metric(&plugin.name) == metric(name.value)) {
                    let message =
                        format!("has the same metrics as {:?}, where `-` and `.` are `_`: rename one", other.name);
                    self.walk.wrong(name, message);
                }
            }
            let file = self.walk.required(section, "file", "/usr/lib/sluice/plugins/geofence.wasm");
            plugins.push(Plugin {
                name: name.map_or_else(String::new, |item| item.value.to_owned()),
                file: file.map_or_else(PathBuf::new, |item| self.folder.join(item.value)),
                digest: self.digest(section),
                grants: self.grants(section).unwrap_or_default(),
                settings: self.settings(section).unwrap_or_else(|| "{}".to_owned()),
            });
        }
        plugins
    }

    fn digest(&mut self, section: &Section<'t>) -> Option<String> {
        let item = self.walk.string(section, "digest")?;
        let digits = item.value.strip_prefix("sha256:").unwrap_or_default();
        let is_digest = digits.len() == 64 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !is_digest {
            self.walk
                .wrong(&item, "expected sha256: and 64 hexadecimal digits, as `sluice plugin check FILE` prints them");
        }
        Some(item.value.to_owned())
    }

    fn grants(&mut self, section: &Section<'t>) -> Option<Vec<PluginGrant>> {
        section.item("grants")?;
        let items = self.walk.strings(section, "grants");
        let mut grants = Vec::new();
        for item in items {
            match self.walk.choice(&item, PluginGrant::NAMED) {
                Some(grant) if grants.contains(&grant) => {
                    self.walk.wrong(&item, "stands here twice: remove one of them")
                }
                grant => grants.extend(grant),
            }
        }
        Some(grants)
    }

    fn settings(&mut self, section: &Section<'t>) -> Option<String> {
        let item = section.item("settings")?;
        if !item.value.is_table() {
            self.walk.wrong(&item, "expected a table");
        }
        let text = json(item.value).to_string();
        if text.len() > limits::PLUGIN_SETTINGS_BYTES_MAX {
            let most = limits::PLUGIN_SETTINGS_BYTES_MAX;
            self.walk.wrong(&item, format!("has {} bytes as JSON, of which {most} are possible", text.len()));
        }
        Some(text)
    }

    pub(super) fn tenant_policies(
        &mut self,
        tenant: &Section<'t>,
        privacy: &TenantPrivacy,
        plugins: &[Plugin],
    ) -> Vec<TenantPolicy> {
        let sections = self.walk.children(tenant, "policy", TENANT_POLICY);
        self.at_most(&sections, limits::PLUGINS_PER_TENANT_MAX);
        let named: Vec<_> = plugins.iter().enumerate().map(|(i, plugin)| (plugin.name.as_str(), i)).collect();
        let mut policies: Vec<TenantPolicy> = Vec::new();
        for section in sections.iter().take(limits::PLUGINS_PER_TENANT_MAX) {
            let Some(name) = self.walk.required(section, "plugin", "geofence") else {
                continue;
            };
            let mode = self.walk.string(section, "mode");
            let dry_run = mode.and_then(|mode| self.walk.choice(&mode, MODES)).unwrap_or_default();
            let capture = self.capture(section, dry_run, privacy);
            let (grants, settings) = (self.grants(section), self.settings(section));
            match self.walk.choice(&name, &named) {
                Some(plugin) if policies.iter().any(|policy| policy.plugin == plugin) => {
                    self.walk.wrong(&name, "decides for this tenant already: remove one of them");
                }
                Some(plugin) => policies.push(TenantPolicy { plugin, dry_run, capture, settings, grants }),
                None => {}
            }
        }
        policies
    }

    /// A file for what a dry run is asked; pseudonyms of addresses are in it, and nothing that decides.
    fn capture(&mut self, section: &Section<'t>, dry_run: bool, privacy: &TenantPrivacy) -> Option<String> {
        let item = self.walk.string(section, "capture")?;
        if !is_name(item.value) || item.value.starts_with('.') {
            let message = format!("is a file's name in the captures of the state directory: {}", not_a_name());
            self.walk.wrong(&item, message);
        } else if !dry_run {
            self.walk.wrong(&item, "is for a dry run: say mode = \"dry-run\", or remove it");
        } else if privacy.ip_retention_days == 0 {
            let message = "would hold pseudonyms of addresses, of which privacy.ip_retention_days = 0 keeps nothing";
            self.walk.wrong(&item, message);
        }
        let is_another = !self.captures.insert(item.value.to_owned());
        if is_another {
            self.walk.wrong(&item, "is the capture of another plugin or tenant: give each its own");
        }
        Some(item.value.to_owned())
    }

    pub(super) fn geo(&mut self, root: &Section<'t>) -> Geo {
        let Some(section) = self.walk.child(root, "geo", GEO) else {
            return Geo::default();
        };
        let database = self.walk.string(&section, "database").filter(|item| !item.value.is_empty());
        let sets = self.walk.children(&section, "set", GEO_SET);
        self.at_most(&sets, limits::FENCE_PLACES_MAX);
        let sets = sets.iter().take(limits::FENCE_PLACES_MAX);
        Geo {
            database: database.map(|item| self.folder.join(item.value)),
            sets: sets.filter_map(|section| self.country_set(section)).collect(),
        }
    }

    fn country_set(&mut self, section: &Section<'t>) -> Option<CountrySet> {
        let name = self.walk.required(section, "name", "partners")?;
        if !is_name(name.value) {
            self.walk.wrong(&name, not_a_name());
        }
        let countries = self.walk.strings(section, "countries");
        countries.iter().for_each(|item| self.country(item));
        let countries = countries.iter().map(|item| item.value.to_owned()).collect();
        Some(CountrySet { name: name.value.to_owned(), countries })
    }
}

/// 32 bytes by 64 hexadecimal digits.
fn key(digits: &str) -> Option<[u8; 32]> {
    let is_key = digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let mut key = [0; 32];
    for (i, byte) in key.iter_mut().enumerate().filter(|_| is_key) {
        *byte = u8::from_str_radix(digits.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    is_key.then_some(key)
}

fn is_name(name: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=limits::PLUGIN_WORD_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_part)
}

/// A name as a part of a metric's.
fn metric(name: &str) -> String {
    name.replace(['-', '.'], "_")
}

fn not_a_name() -> String {
    format!("a name has 1 to {} letters, digits, `-`, `_` and `.`", limits::PLUGIN_WORD_BYTES_MAX)
}

/// Settings are TOML for people and JSON for plugins; a date is its text.
fn json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Boolean(yes) => Value::from(*yes),
        DeValue::Integer(integer) => {
            let number = i64::from_str_radix(integer.as_str(), integer.radix());
            number.map_or_else(|_| Value::from(integer.as_str()), Value::from)
        }
        DeValue::Float(float) => {
            let number = float.as_str().parse().ok().and_then(Number::from_f64);
            number.map_or_else(|| Value::from(float.as_str()), Value::Number)
        }
        DeValue::Datetime(date) => Value::from(date.to_string()),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            let pair = |(key, value): (&toml::Spanned<toml::de::DeString<'_>>, &toml::Spanned<DeValue<'_>>)| {
                (key.get_ref().to_string(), json(value.get_ref()))
            };
            Value::Object(table.iter().map(pair).collect::<Map<_, _>>())
        }
    }
}
