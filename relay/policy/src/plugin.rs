//! A plugin that is loaded, and one call of it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sluice_base::limits::PLUGIN_ANSWER_BYTES_MAX;
use wasmtime::Store;
use wasmtime::component::{Component, Instance, InstancePre};

use crate::bindings::exports::sluice::policy::{admission, erasure, geofence, log_plan, setup};
use crate::engine::{Ticker, epochs_until};
use crate::failure::Failure;
use crate::guest::{Context, Settings, State};
use crate::hook::{Grant, Hook, PACKAGE, VERSION};
use crate::lock;
use crate::rate::Rate;
use crate::rest::Rests;
use crate::stats::{Declared, PluginStats};

/// A component that was checked, linked and asked who it is, with the settings that it found good.
pub struct Plugin {
    pub(crate) name: Arc<str>,
    pub(crate) digest: String,
    pub(crate) version: String,
    pub(crate) bytes: usize,
    pub(crate) hooks: Vec<Hook>,
    pub(crate) calls: Vec<String>,
    pub(crate) grants: Vec<Grant>,
    pub(crate) facts: Facts,
    pub(crate) counters: Vec<Declared>,
    pub(crate) warnings: Vec<String>,
    pub(crate) settings: Settings,
    pub(crate) stats: Arc<PluginStats>,
    pub(crate) lines: Arc<Rate>,
    pub(crate) guest: Guest,
    pub(crate) rests: Rests,
}

/// What is needed to make an instance and to call it.
pub(crate) struct Guest {
    pub(crate) pre: InstancePre<State>,
    pub(crate) indices: Indices,
    /// So long the host knows it as compiled.
    pub(crate) _component: Arc<Component>,
    pub(crate) ticker: Ticker,
    /// Held by the one call at a time that is no question: there is one instance for these beside those of the threads.
    pub(crate) apart: Arc<Mutex<()>>,
    pub(crate) memory_bytes: usize,
    /// Whether what it executes is counted.
    pub(crate) fuel: bool,
}

/// Where its hooks are.
#[derive(Default)]
pub(crate) struct Indices {
    pub(crate) setup: Option<setup::GuestIndices>,
    pub(crate) admission: Option<admission::GuestIndices>,
    pub(crate) geofence: Option<geofence::GuestIndices>,
    pub(crate) log_plan: Option<log_plan::GuestIndices>,
    pub(crate) erasure: Option<erasure::GuestIndices>,
}

/// The optional facts that a manifest names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// Addresses, which take a grant as well.
    pub address: bool,
    /// Ports.
    pub port: bool,
    /// Rotating tokens of addresses.
    pub pseudonym: bool,
    /// Countries.
    pub country: bool,
    /// Their subdivisions.
    pub subdivision: bool,
    /// Numbers of autonomous systems.
    pub asn: bool,
    /// Who somebody is, as a token.
    pub subject: bool,
    /// Keys of attributes.
    pub attributes: Vec<String>,
}

impl Facts {
    /// As a manifest names them.
    pub fn names(&self) -> Vec<String> {
        let flags = [
            ("address", self.address),
            ("port", self.port),
            ("pseudonym", self.pseudonym),
            ("country", self.country),
            ("subdivision", self.subdivision),
            ("asn", self.asn),
            ("subject", self.subject),
        ];
        let named = flags.iter().filter(|(_, wanted)| *wanted).map(|(name, _)| (*name).to_owned());
        named.chain(self.attributes.iter().map(|key| format!("attributes.{key}"))).collect()
    }

    /// Whether one of them says where somebody is.
    pub(crate) fn has_places(&self) -> bool {
        self.country || self.subdivision || self.asn
    }

    /// Reads the list of a manifest.
    ///
    /// # Errors
    /// The name that is none.
    pub(crate) fn parse(names: &[String]) -> Result<Self, String> {
        let mut facts = Facts::default();
        for name in names {
            match name.as_str() {
                "address" => facts.address = true,
                "port" => facts.port = true,
                "pseudonym" => facts.pseudonym = true,
                "country" => facts.country = true,
                "subdivision" => facts.subdivision = true,
                "asn" => facts.asn = true,
                "subject" => facts.subject = true,
                other => match other.strip_prefix("attributes.") {
                    Some(key) if !key.is_empty() => facts.attributes.push(key.to_owned()),
                    _ => return Err(other.to_owned()),
                },
            }
        }
        Ok(facts)
    }
}

impl Plugin {
    /// The operator's name for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `sha256:` and the digest of its component.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Its own version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Bytes of its component.
    pub fn size(&self) -> usize {
        self.bytes
    }

    /// The interface that it was built against, with its version: no plugin of another one is loaded.
    pub fn interface(&self) -> String {
        format!("{}@{VERSION}", PACKAGE.trim_end_matches('/'))
    }

    /// What it decides.
    pub fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    /// Functions of the host that it may call: "logging.log".
    pub fn calls(&self) -> &[String] {
        &self.calls
    }

    /// What it was granted.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// The facts that it asked for.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The counters that it declared.
    pub fn counters(&self) -> &[Declared] {
        &self.counters
    }

    /// What is to be said of its settings, though they are good.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What is counted of it.
    pub fn stats(&self) -> &Arc<PluginStats> {
        &self.stats
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("name", &self.name).field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// What one call has used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Used {
    /// The making of the instance included.
    pub(crate) took: Duration,
    pub(crate) memory_bytes: usize,
    /// Where it is counted.
    pub(crate) fuel: Option<u64>,
}

impl Guest {
    /// Calls a fresh instance, which ends with the call: on a thread for questions, of which each has its instance.
    pub(crate) fn call<T>(
        &self,
        context: &Arc<Context>,
        deadline: Instant,
        call: impl FnOnce(&mut Store<State>, &Instance) -> wasmtime::Result<T>,
    ) -> Result<(T, Used), Failure> {
        self.run(context, deadline, false, call).map_err(|(failure, _)| failure)
    }

    /// The same from anywhere else, after all calls of that kind that were before it; the wait for its turn is not its
    /// own time. With the error in words, and for a call that may import nothing.
    pub(crate) fn enter<T>(
        &self,
        context: &Arc<Context>,
        deadline: Instant,
        describing: bool,
        call: impl FnOnce(&mut Store<State>, &Instance) -> wasmtime::Result<T>,
    ) -> Result<(T, Used), (Failure, String)> {
        let came = Instant::now();
        let _turn = lock(&self.apart);
        self.run(context, deadline + came.elapsed(), describing, call)
    }

    fn run<T>(
        &self,
        context: &Arc<Context>,
        deadline: Instant,
        describing: bool,
        call: impl FnOnce(&mut Store<State>, &Instance) -> wasmtime::Result<T>,
    ) -> Result<(T, Used), (Failure, String)> {
        let began = Instant::now();
        if began >= deadline {
            return Err((Failure::NoTime, "no time was left".to_owned()));
        }
        let _ticking = self.ticker.begin();
        let state = State::new(context.clone(), self.memory_bytes, describing);
        let mut store = Store::new(self.pre.engine(), state);
        store.limiter(|state| state);
        store.set_hostcall_fuel(PLUGIN_ANSWER_BYTES_MAX);
        store.epoch_deadline_trap();
        store.set_epoch_deadline(epochs_until(deadline));
        if self.fuel {
            let _ = store.set_fuel(u64::MAX);
        }
        let instance = self.pre.instantiate(&mut store);
        let answer = instance.and_then(|instance| call(&mut store, &instance));
        match answer {
            Ok(answer) if Instant::now() < deadline => {
                let fuel = store.get_fuel().ok().map(|left| u64::MAX - left);
                let took = began.elapsed();
                Ok((answer, Used { took, memory_bytes: store.data().memory_bytes(), fuel }))
            }
            Ok(_) => Err((Failure::Deadline, "its answer came too late".to_owned())),
            Err(error) => Err((Failure::of(&error, store.data().refused), format!("{error:#}"))),
        }
    }
}

/// The answer of an instance without that hook.
pub(crate) fn no_hook() -> wasmtime::Error {
    wasmtime::Error::msg("it has no such hook")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_that_there_is_not_is_named() {
        let parse = |names: &[&str]| Facts::parse(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        assert!(parse(&["country", "attributes.role"]).unwrap().country);
        assert_eq!(parse(&["country", "contry"]).unwrap_err(), "contry");
        assert_eq!(parse(&["attributes."]).unwrap_err(), "attributes.");
    }
}
