//! From bytes to a plugin: everything that can be wrong with one is found here, before anybody is asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_base::limits::{
    PLUGIN_BYTES_MAX, PLUGIN_COUNTERS_MAX, PLUGIN_LABELS_MAX, PLUGIN_PROBLEMS_MAX, PLUGIN_SETTINGS_BYTES_MAX,
    PLUGIN_WORD_BYTES_MAX,
};
use sluice_crypto::{hex_encode, sha256};
use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

use crate::bindings::exports::sluice::policy::{
    admission, erasure, geofence, log_filter, log_plan, media, recording, setup,
};
use crate::bindings::sluice::policy as imports;
use crate::failure::Failure;
use crate::guest::{Context, Settings, State};
use crate::hook::{self, EXPORTS, Grant, Hook, IMPORTS, VERSION};
use crate::plugin::{Facts, Guest, Indices, no_hook};
use crate::stats::Declared;

/// Why a plugin does not load. What ran before runs on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file is too long.
    #[error("it has {0} bytes, and {PLUGIN_BYTES_MAX} are the most")]
    TooLong(usize),
    /// It is another one than the configuration names.
    #[error("its digest is {found}, and the configuration pins {pinned}")]
    Digest {
        /// What the configuration says.
        pinned: String,
        /// What the file has.
        found: String,
    },
    /// It is no component, or one of a later kind of WebAssembly.
    #[error("it is no WebAssembly component that this host can run: {0}")]
    NoComponent(String),
    /// What it exports.
    #[error("{0}")]
    Export(String),
    /// What it imports.
    #[error("{0}")]
    Import(String),
    /// A hook of another type than that of this version.
    #[error("{hook} is not that of sluice:policy@{VERSION}: {error}")]
    Hook {
        /// Which interface.
        hook: &'static str,
        /// Where it differs.
        error: String,
    },
    /// It decides what this host does not carry out.
    #[error("it decides {0}, which this version does not carry out: bind a plugin without it")]
    NotKept(Hook),
    /// What it is asked is to be captured, and it is asked nothing.
    #[error("it is asked about no request, so that there is nothing to capture: remove `capture`")]
    NoQuestions,
    /// What it is asked is to be captured, and another plugin says what is written of that tenant.
    #[error("a plan of records says what is written of this tenant, and a capture is beside it: remove `capture`")]
    PlannedRecords,
    /// A metric that is another plugin's.
    #[error("its metric {family} is that of plugin {other} too: give one of them another name")]
    Family {
        /// The metric.
        family: String,
        /// Whose it is.
        other: String,
    },
    /// It failed while it was asked something at load.
    #[error("{stage} failed ({failure}): {error}")]
    Failed {
        /// What was asked.
        stage: &'static str,
        /// The reason.
        failure: Failure,
        /// In words.
        error: String,
    },
    /// What it says of itself.
    #[error("its manifest: {0}")]
    Manifest(String),
    /// Its settings.
    #[error("its settings are refused:{}", listed(.0))]
    Settings(Vec<String>),
    /// It is too slow.
    #[error("its first answer took {took:?}, and half of the deadline is {half:?}: it would be late under load")]
    Slow {
        /// How long it took.
        took: Duration,
        /// How long it may take.
        half: Duration,
    },
    /// Its own recorded cases.
    #[error("its recorded case {case}: {error}")]
    Case {
        /// Which one.
        case: String,
        /// How its answer differs.
        error: String,
    },
}

fn listed(problems: &[String]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

/// `sha256:` and the digest of these bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex_encode(&sha256(&[bytes])))
}

/// Checks bytes before they are compiled.
pub(crate) fn check_bytes(bytes: &[u8], pinned: Option<&str>) -> Result<String, LoadError> {
    if bytes.len() > PLUGIN_BYTES_MAX {
        return Err(LoadError::TooLong(bytes.len()));
    }
    let found = digest(bytes);
    match pinned {
        Some(pinned) if pinned != found => Err(LoadError::Digest { pinned: pinned.to_owned(), found }),
        _ => Ok(found),
    }
}

/// The settings as JSON.
pub(crate) fn settings(text: &str) -> Result<Settings, LoadError> {
    let refused = |problem: String| LoadError::Settings(vec![problem]);
    if text.len() > PLUGIN_SETTINGS_BYTES_MAX {
        return Err(refused(format!("{} bytes, of which {PLUGIN_SETTINGS_BYTES_MAX} are possible", text.len())));
    }
    let value: Value = serde_json::from_str(text).map_err(|error| refused(format!("no JSON: {error}")))?;
    match value.is_object() {
        true => Ok(Settings { text: text.to_owned(), value }),
        false => Err(refused("not a JSON object".to_owned())),
    }
}

/// A component whose exports and imports are what they may be.
pub(crate) struct Checked {
    pub(crate) component: Arc<Component>,
    pub(crate) hooks: Vec<Hook>,
    interfaces: Vec<&'static str>,
    /// Functions of the host that it may call.
    pub(crate) calls: Vec<String>,
    /// Interfaces that it imports and that take a grant.
    pub(crate) needs: Vec<Grant>,
}

/// Looks at what a component exports and imports.
pub(crate) fn check(engine: &Engine, component: Arc<Component>) -> Result<Checked, LoadError> {
    let kind = component.component_type();
    let mut interfaces = Vec::new();
    for (name, item) in kind.exports(engine) {
        if let Some((interface, version)) = hook::interface(name) {
            interfaces.push(exported(engine, interface, version, &item.ty)?);
        }
    }
    let (mut calls, mut needs) = (Vec::new(), Vec::new());
    for (name, item) in kind.imports(engine) {
        needs.extend(imported(name)?);
        calls.extend(functions(engine, name, &item.ty));
    }
    calls.sort_unstable();
    if !interfaces.contains(&"setup") {
        return Err(LoadError::Export(format!(
            "it does not export sluice:policy/setup@{VERSION}: is it a policy plugin?"
        )));
    }
    let hooks = interfaces.iter().flat_map(|interface| hooks_of(interface)).copied().collect();
    Ok(Checked { component, hooks, interfaces, calls, needs })
}

/// Compiles bytes.
pub(crate) fn compile(engine: &Engine, bytes: &[u8]) -> Result<Component, LoadError> {
    if Engine::detect_precompiled(bytes).is_some() {
        let error = "it is precompiled, and the host compiles by itself".to_owned();
        return Err(LoadError::NoComponent(error));
    }
    Component::new(engine, bytes).map_err(|error| LoadError::NoComponent(format!("{error:#}")))
}

fn hooks_of(interface: &str) -> &'static [Hook] {
    match interface {
        "admission" => &[Hook::Allocate, Hook::PermitPeers],
        "media" => &[Hook::Media],
        "recording" => &[Hook::Recording],
        "log-plan" => &[Hook::LogPlan],
        "log-filter" => &[Hook::LogFilter],
        "geofence" => &[Hook::Geofence],
        "erasure" => &[Hook::Erasure],
        _ => &[],
    }
}

fn exported(engine: &Engine, interface: &str, version: &str, item: &ComponentItem) -> Result<&'static str, LoadError> {
    let unknown = |what: String| {
        LoadError::Export(format!("it exports {what}, which this host (sluice:policy@{VERSION}) does not know"))
    };
    let known = EXPORTS.iter().find(|(known, _)| *known == interface && version == VERSION);
    let (name, functions) = known.ok_or_else(|| unknown(format!("sluice:policy/{interface}@{version}")))?;
    let ComponentItem::ComponentInstance(instance) = item else {
        return Err(unknown(format!("sluice:policy/{interface} as something else than an interface")));
    };
    for (function, item) in instance.exports(engine) {
        let is_known = match item.ty {
            ComponentItem::Type(_) => true,
            _ => functions.contains(&function),
        };
        if !is_known {
            return Err(unknown(format!("{function} in sluice:policy/{interface}@{version}")));
        }
    }
    Ok(name)
}

/// The grant that an import takes, if any.
fn imported(name: &str) -> Result<Option<Grant>, LoadError> {
    let refused = |error: String| Err(LoadError::Import(error));
    match hook::interface(name) {
        Some((interface, VERSION)) if IMPORTS.contains(&interface) => Ok(None),
        Some((interface, VERSION)) if Grant::of_interface(interface).is_some() => Ok(Grant::of_interface(interface)),
        Some(_) => refused(format!("it imports {name}, which this host (sluice:policy@{VERSION}) does not have")),
        None if name.starts_with("wasi:") => refused(format!(
            "it imports {name}: a policy has no WASI. Build for wasm32-unknown-unknown, or stub WASI out \
             (componentize-py and componentize-qjs: --stub-wasi)"
        )),
        None => refused(format!("it imports {name}, and a policy may import nothing but sluice:policy@{VERSION}")),
    }
}

/// The functions of an imported interface: "logging.log".
fn functions(engine: &Engine, name: &str, item: &ComponentItem) -> Vec<String> {
    let (Some((interface, _)), ComponentItem::ComponentInstance(instance)) = (hook::interface(name), item) else {
        return Vec::new();
    };
    let functions = instance.exports(engine).filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)));
    functions.map(|(function, _)| format!("{interface}.{function}")).collect()
}

impl Checked {
    /// Links what was granted, and nothing else.
    pub(crate) fn link(&self, engine: &Engine, grants: &[Grant]) -> Result<(InstancePre<State>, Indices), LoadError> {
        if let Some(missing) = self.needs.iter().find(|need| !grants.contains(need)) {
            return Err(LoadError::Import(format!(
                "it needs the grant {:?}: add it to the plugin's `grants` if it may have it",
                missing.name()
            )));
        }
        let linker = linker(engine, grants).map_err(|error| LoadError::NoComponent(format!("{error:#}")))?;
        let pre = linker.instantiate_pre(&self.component);
        let pre = pre.map_err(|error| LoadError::NoComponent(format!("{error:#}")))?;
        let indices = self.indices(&pre)?;
        Ok((pre, indices))
    }

    fn indices(&self, pre: &InstancePre<State>) -> Result<Indices, LoadError> {
        let mut indices = Indices::default();
        for interface in &self.interfaces {
            let found = match *interface {
                "setup" => setup::GuestIndices::new(pre).map(|found| indices.setup = Some(found)),
                "admission" => admission::GuestIndices::new(pre).map(|found| indices.admission = Some(found)),
                "geofence" => geofence::GuestIndices::new(pre).map(|found| indices.geofence = Some(found)),
                "log-plan" => log_plan::GuestIndices::new(pre).map(|found| indices.log_plan = Some(found)),
                "erasure" => erasure::GuestIndices::new(pre).map(|found| indices.erasure = Some(found)),
                _ => Ok(()),
            };
            found.map_err(|error| LoadError::Hook { hook: interface, error: format!("{error:#}") })?;
        }
        Ok(indices)
    }

    /// Compares the types of every hook with those of this version, on an instance.
    pub(crate) fn check_types(
        &self,
        guest: &Guest,
        context: &Arc<Context>,
        deadline: Instant,
    ) -> Result<(), LoadError> {
        for interface in &self.interfaces {
            let pre = &guest.pre;
            let done = guest.enter(context, deadline, false, |store, instance| {
                let loaded = match *interface {
                    "setup" => setup::GuestIndices::new(pre)?.load(&mut *store, instance).map(drop),
                    "admission" => admission::GuestIndices::new(pre)?.load(&mut *store, instance).map(drop),
                    "media" => media::GuestIndices::new(pre)?.load(&mut *store, instance).map(drop),
                    "recording" => recording::GuestIndices::new(pre)?.load(&mut *store, instance).map(drop),
                    "log-plan" => log_plan::GuestIndices::new(pre)?.load(&mut *store, instance).map(drop),
                    "log-filter" => log_filter::GuestIndices::new(pre)?.load(&mut *store, instance).map(drop),
                    "geofence" => geofence::GuestIndices::new(pre)?.load(&mut *store, instance).map(drop),
                    "erasure" => erasure::GuestIndices::new(pre)?.load(&mut *store, instance).map(drop),
                    _ => Ok(()),
                };
                Ok(loaded.err())
            });
            match done {
                Ok((None, _)) => {}
                Ok((Some(error), _)) => return Err(LoadError::Hook { hook: interface, error: format!("{error:#}") }),
                Err((failure, error)) => return Err(LoadError::Failed { stage: "instantiation", failure, error }),
            }
        }
        Ok(())
    }
}

fn linker(engine: &Engine, grants: &[Grant]) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    imports::types::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    imports::settings::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    imports::logging::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    imports::metrics::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    for grant in grants {
        match grant {
            Grant::Kv => imports::kv::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?,
            Grant::Geo => imports::geo_lookup::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?,
            Grant::Pseudonym => imports::pseudonym::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?,
            Grant::RawAddresses => {}
        }
    }
    Ok(linker)
}

/// What a plugin says of itself.
pub(crate) struct Manifest {
    pub(crate) version: String,
    pub(crate) facts: Facts,
    pub(crate) counters: Vec<Declared>,
    /// How long it took to say so.
    pub(crate) took: Duration,
}

/// Asks a plugin what it is.
pub(crate) fn describe(
    guest: &Guest,
    hooks: &[Hook],
    context: &Arc<Context>,
    deadline: Instant,
) -> Result<Manifest, LoadError> {
    let stage = "setup.describe";
    let answer = guest.enter(context, deadline, true, |store, instance| {
        let setup = guest.indices.setup.as_ref().ok_or_else(no_hook)?.load(&mut *store, instance)?;
        setup.call_describe(&mut *store)
    });
    let (manifest, used) = answer.map_err(|(failure, error)| LoadError::Failed { stage, failure, error })?;
    let facts = Facts::parse(&manifest.facts)
        .map_err(|name| LoadError::Manifest(format!("{:?} is no fact that this host can send", word(&name))))?;
    check_attributes(&facts, hooks)?;
    if manifest.counters.len() > PLUGIN_COUNTERS_MAX {
        return Err(LoadError::Manifest(format!("more than {PLUGIN_COUNTERS_MAX} counters")));
    }
    let counters: Result<Vec<_>, _> = manifest.counters.into_iter().map(declared).collect();
    Ok(Manifest { version: word(&manifest.version), facts, counters: counters?, took: used.took })
}

/// Whoever waits for a fact that never comes decides by its absence, so that its author is told instead.
fn check_attributes(facts: &Facts, hooks: &[Hook]) -> Result<(), LoadError> {
    match facts.attributes.first() {
        Some(key) if !hooks.iter().any(|hook| hook.has_attributes()) => Err(LoadError::Manifest(format!(
            "{:?} is a fact that would never come: only what \"media\" and \"recording\" are told has attributes, and \
             it exports neither",
            word(&format!("attributes.{key}"))
        ))),
        _ => Ok(()),
    }
}

fn declared(counter: setup::CounterDecl) -> Result<Declared, LoadError> {
    let is_word = |text: &str| {
        let is_part = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        (1..=PLUGIN_WORD_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_part)
    };
    let labels = &counter.labels;
    let repeats = labels.iter().enumerate().any(|(i, label)| labels[..i].contains(label) || label == "tenant");
    let well = is_word(&counter.name)
        && labels.len() <= PLUGIN_LABELS_MAX
        && labels.iter().all(|label| is_word(label) && !label.starts_with("__"))
        && !repeats;
    match well {
        true => Ok(Declared { name: counter.name, help: crate::scrub::line(&counter.help), labels: counter.labels }),
        false => Err(LoadError::Manifest(format!(
            "the counter {:?}: name and labels are [a-z0-9_]+, with at most {PLUGIN_LABELS_MAX} labels, all different \
             and none of them \"tenant\"",
            word(&counter.name)
        ))),
    }
}

/// A plugin's word, as long as words are.
fn word(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(PLUGIN_WORD_BYTES_MAX).collect()
}

/// Has the plugin look at its settings; what it warns of.
pub(crate) fn validate(guest: &Guest, context: &Arc<Context>, deadline: Instant) -> Result<Vec<String>, LoadError> {
    let stage = "setup.validate-settings";
    let answer = guest.enter(context, deadline, false, |store, instance| {
        let setup = guest.indices.setup.as_ref().ok_or_else(no_hook)?.load(&mut *store, instance)?;
        setup.call_validate_settings(&mut *store, &context.settings.text)
    });
    let (problems, _) = answer.map_err(|(failure, error)| LoadError::Failed { stage, failure, error })?;
    let told = |problem: &setup::Problem| {
        let at = if problem.at.is_empty() { "the whole" } else { &problem.at };
        format!("{}: {}", crate::scrub::line(at), crate::scrub::line(&problem.message))
    };
    let of = |severity: setup::Severity| {
        let some = problems.iter().filter(move |problem| problem.severity == severity);
        some.take(PLUGIN_PROBLEMS_MAX).map(told).collect::<Vec<_>>()
    };
    let errors = of(setup::Severity::Error);
    if errors.is_empty() { Ok(of(setup::Severity::Warning)) } else { Err(LoadError::Settings(errors)) }
}
