//! What an instance has beside its memory: its limits, and the host's side of its imports.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use sluice_base::Pii;
use sluice_base::limits::{PLUGIN_HOST_CALLS_MAX, PLUGIN_PARTS_MAX, PLUGIN_TABLE_ELEMENTS_MAX};
use sluice_geo::{Database, Place};
use wasmtime::{ResourceLimiter, bail};

use crate::bindings::sluice::policy::types::{AttributeValue, Geo, IpAddress, Window};
use crate::bindings::sluice::policy::{geo_lookup, kv, logging, metrics, pseudonym, settings, types};
use crate::failure::Flood;
use crate::pseudonym::Rotating;
use crate::rate::Rate;
use crate::sets::Sets;
use crate::stats::PluginStats;
use crate::{lock, scrub};

/// The database of places that is in force, shared by all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(Arc<RwLock<Option<Arc<Database>>>>);

impl Places {
    pub(crate) fn set(&self, database: Option<Arc<Database>>) {
        let mut current = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, database);
        // Whoever looks up a place does not wait until a gigabyte is given back.
        drop(current);
        drop(before);
    }

    pub(crate) fn database(&self) -> Option<Arc<Database>> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Where an address is, and how old in seconds what says so is.
    pub(crate) fn place(&self, ip: Pii<IpAddr>, unix_seconds: u64) -> (Place, Option<u32>) {
        match self.database() {
            Some(database) => {
                let age = u32::try_from(database.age(unix_seconds).as_secs()).unwrap_or(u32::MAX);
                (database.place(ip), Some(age))
            }
            None => (Place::default(), None),
        }
    }
}

/// Settings as the operator wrote them.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) text: String,
    pub(crate) value: Value,
}

/// What one plugin has for one tenant. It outlives every instance.
pub(crate) struct Context {
    pub(crate) plugin: Arc<str>,
    pub(crate) tenant: Arc<str>,
    pub(crate) settings: Settings,
    pub(crate) stats: Arc<PluginStats>,
    pub(crate) lines: Arc<Rate>,
    pub(crate) kv: Arc<Mutex<crate::kv::Store>>,
    pub(crate) tokens: Arc<(Rotating, Rate)>,
    pub(crate) places: Places,
    pub(crate) sets: Arc<Sets>,
}

/// What one instance has. It ends with its one call.
pub(crate) struct State {
    context: Arc<Context>,
    /// A call that may import nothing.
    describing: bool,
    /// Calls of imports.
    calls: u32,
    memory_bytes: usize,
    memory_bytes_most: usize,
    /// Memory or tables were refused to it.
    pub(crate) refused: bool,
}

impl State {
    pub(crate) fn new(context: Arc<Context>, memory_bytes_most: usize, describing: bool) -> Self {
        State { context, describing, calls: 0, memory_bytes: 0, memory_bytes_most, refused: false }
    }

    /// Bytes of its memories.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    fn enter(&mut self) -> wasmtime::Result<&Arc<Context>> {
        if self.describing {
            bail!("setup.describe calls an import");
        }
        self.calls += 1;
        if self.calls > PLUGIN_HOST_CALLS_MAX {
            return Err(Flood.into());
        }
        Ok(&self.context)
    }
}

impl ResourceLimiter for State {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let all = (self.memory_bytes - current.min(self.memory_bytes)).saturating_add(desired);
        let fits = all <= self.memory_bytes_most;
        if fits {
            self.memory_bytes = all;
        }
        self.refused |= !fits;
        Ok(fits)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired <= PLUGIN_TABLE_ELEMENTS_MAX;
        self.refused |= !fits;
        Ok(fits)
    }

    fn instances(&self) -> usize {
        PLUGIN_PARTS_MAX as usize
    }

    fn tables(&self) -> usize {
        PLUGIN_PARTS_MAX as usize
    }

    fn memories(&self) -> usize {
        PLUGIN_PARTS_MAX as usize
    }
}

pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

pub(crate) fn geo(place: Place, age: Option<u32>) -> Geo {
    Geo { country: place.country, subdivision: place.subdivision, asn: place.asn, database_age: age }
}

fn attribute(value: &Value) -> AttributeValue {
    match value {
        Value::String(text) => AttributeValue::Text(text.clone()),
        Value::Bool(yes) => AttributeValue::Boolean(*yes),
        Value::Number(number) if number.is_i64() => AttributeValue::Integer(number.as_i64().unwrap_or_default()),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            AttributeValue::Texts(items.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        }
        other => AttributeValue::Json(other.to_string()),
    }
}

fn ip(address: &IpAddress) -> Pii<IpAddr> {
    Pii::new(match *address {
        IpAddress::Ipv4((a, b, c, d)) => IpAddr::from([a, b, c, d]),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => IpAddr::from([a, b, c, d, e, f, g, h]),
    })
}

impl types::Host for State {}

impl settings::Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<AttributeValue>> {
        Ok(self.enter()?.settings.value.get(key).map(attribute))
    }

    fn document(&mut self) -> wasmtime::Result<String> {
        Ok(self.enter()?.settings.text.clone())
    }
}

impl logging::Host for State {
    fn log(&mut self, level: logging::Level, message: String) -> wasmtime::Result<()> {
        let context = self.enter()?;
        if !context.lines.take(Instant::now()) {
            context.stats.lines_dropped.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            return Ok(());
        }
        let (plugin, tenant, said) = (&*context.plugin, &*context.tenant, scrub::line(&message));
        match level {
            logging::Level::Trace => tracing::trace!(plugin, tenant, said, "a plugin says"),
            logging::Level::Debug => tracing::debug!(plugin, tenant, said, "a plugin says"),
            logging::Level::Info => tracing::info!(plugin, tenant, said, "a plugin says"),
            logging::Level::Warn => tracing::warn!(plugin, tenant, said, "a plugin says"),
            logging::Level::Error => tracing::error!(plugin, tenant, said, "a plugin says"),
        }
        Ok(())
    }
}

impl metrics::Host for State {
    fn add(&mut self, counter: String, labels: Vec<String>, delta: u64) -> wasmtime::Result<()> {
        let context = self.enter()?;
        context.stats.add(&context.tenant, &counter, &labels, delta);
        Ok(())
    }
}

impl kv::Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, kv::KvError>> {
        Ok(Ok(lock(&self.enter()?.kv).get(Instant::now(), &key)))
    }

    fn put(
        &mut self,
        key: String,
        value: Vec<u8>,
        ttl: u32,
        subjects: Vec<String>,
    ) -> wasmtime::Result<Result<(), kv::KvError>> {
        Ok(lock(&self.enter()?.kv).put(Instant::now(), key, value, ttl, subjects))
    }

    fn delete(&mut self, key: String) -> wasmtime::Result<Result<(), kv::KvError>> {
        lock(&self.enter()?.kv).delete(&key);
        Ok(Ok(()))
    }

    fn increment(
        &mut self,
        key: String,
        delta: i64,
        ttl: u32,
        subjects: Vec<String>,
    ) -> wasmtime::Result<Result<i64, kv::KvError>> {
        Ok(lock(&self.enter()?.kv).increment(Instant::now(), key, delta, ttl, subjects))
    }
}

impl geo_lookup::Host for State {
    fn lookup(&mut self, address: IpAddress) -> wasmtime::Result<Geo> {
        let (place, age) = self.enter()?.places.place(ip(&address), unix_seconds());
        Ok(geo(place, age))
    }

    fn in_set(&mut self, country: String, set: String) -> wasmtime::Result<Option<bool>> {
        Ok(self.enter()?.sets.contains(&set, &country))
    }
}

impl pseudonym::Host for State {
    fn token(&mut self, window: Window, data: Vec<u8>) -> wasmtime::Result<Option<String>> {
        let (tokens, rate) = &*self.enter()?.tokens;
        Ok(rate.take(Instant::now()).then(|| tokens.token(window, unix_seconds(), &[&data])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_has_the_type_that_the_operator_gave_it() {
        let value: Value = serde_json::from_str(r#"["a", 1, true, ["x", "y"], {"z": 1}, [1], 1.5]"#).unwrap();
        let types: Vec<_> = value.as_array().unwrap().iter().map(|v| format!("{:?}", attribute(v))).collect();
        let starts =
            ["AttributeValue::Text", "AttributeValue::Integer", "AttributeValue::Boolean", "AttributeValue::Texts"];
        for (shown, start) in types.iter().zip(starts) {
            assert!(shown.starts_with(start), "{shown}");
        }
        assert!(types[4..].iter().all(|shown| shown.starts_with("AttributeValue::Json")), "{types:?}");
    }
}
