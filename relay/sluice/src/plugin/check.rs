//! What a component is, whether it answers its recorded cases, and what runs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use sluice_admin::{Method, api};
use sluice_config::Config;
use sluice_policy::{Case, EngineChoice, Grant, Hook, Host, Plugin, Sets, Source};

use crate::ask::AskArgs;
use crate::banner;
use crate::cli::Failure;
use crate::policies::{cases_beside, host_options, read, told_hook};

/// Characters of an answer that are shown to a person.
const ANSWER_CHARS: usize = 200;

/// `sluice plugin check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// The component.
    file: PathBuf,
    #[command(flatten)]
    form: Form,
}

/// `sluice plugin test`.
#[derive(Args, Debug)]
pub(crate) struct TestArgs {
    /// The component.
    file: PathBuf,
    /// The folder of the cases; without it the one beside the component, of the same name with `.cases`.
    #[arg(long, value_name = "DIR")]
    cases: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

/// How it is run and shown.
#[derive(Args, Debug)]
pub(crate) struct Form {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// What runs it: auto, cranelift or pulley.
    #[arg(long, default_value = "auto", value_parser = engine, value_name = "ENGINE")]
    engine: EngineChoice,
}

fn engine(name: &str) -> Result<EngineChoice, String> {
    let found = EngineChoice::NAMED.iter().find(|(known, _)| *known == name);
    found.map(|(_, choice)| *choice).ok_or_else(|| "it is auto, cranelift or pulley".to_owned())
}

/// Asks the running relay.
pub(super) fn list(ask: &AskArgs) -> Result<(), Failure> {
    let plugins: api::Plugins = ask.call(Method::GET, api::PLUGINS)?;
    ask.print(&plugins, list_text)
}

/// Says what a component is.
pub(super) fn check(args: &CheckArgs) -> Result<(), Failure> {
    let (host, plugin) = open(&args.file, &args.form, false)?;
    show(&args.form, &Checked::of(&host, &plugin), Checked::text)
}

/// With `fuel` what it executes is counted.
pub(super) fn open(file: &Path, form: &Form, fuel: bool) -> Result<(Host, Plugin), Failure> {
    let mut options = host_options(&Config::default(), None)?;
    (options.engine, options.fuel) = (form.engine, fuel);
    let host = Host::start(options)?;
    let source = Source {
        name: file.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        bytes: read(file).map_err(|error| format!("{}: {error}", file.display()))?,
        settings: "{}".to_owned(),
        ..Source::default()
    };
    let plugin = host.inspect(&source, &Arc::default());
    let plugin = plugin.map_err(|error| format!("{}: {error}", file.display()))?;
    Ok((host, plugin))
}

/// What there is to say of a component.
#[derive(Serialize)]
struct Checked {
    name: String,
    version: String,
    digest: String,
    bytes: usize,
    /// What it was built against.
    interface: String,
    #[serde(flatten)]
    hooks: Hooks,
    /// Functions of the host that it may call.
    calls: Vec<String>,
    facts: Vec<String>,
    /// Without these it does not load.
    grants: Vec<&'static str>,
    /// Without these it is not told all that it asks for.
    optional_grants: Vec<&'static str>,
    counters: Vec<String>,
    engine: &'static str,
}

/// What it decides.
#[derive(Serialize)]
struct Hooks {
    hooks: Vec<&'static str>,
    /// Those of them that nothing in this version asks.
    not_asked: Vec<&'static str>,
    /// Those of the last that a promise hangs on: a tenant that names this plugin is refused.
    not_carried_out: Vec<&'static str>,
    #[serde(skip)]
    told: Vec<String>,
}

impl Hooks {
    fn of(hooks: &[Hook]) -> Self {
        let names =
            |which: fn(&Hook) -> bool| hooks.iter().filter(|hook| which(hook)).map(|hook| hook.name()).collect();
        Self {
            hooks: names(|_| true),
            not_asked: names(|hook| !hook.is_asked()),
            not_carried_out: names(|hook| !hook.is_kept()),
            told: hooks.iter().map(told_hook).collect(),
        }
    }
}

impl Checked {
    fn of(host: &Host, plugin: &Plugin) -> Self {
        Checked {
            name: plugin.name().to_owned(),
            version: plugin.version().to_owned(),
            digest: plugin.digest().to_owned(),
            bytes: plugin.size(),
            interface: plugin.interface(),
            hooks: Hooks::of(plugin.hooks()),
            calls: plugin.calls().to_vec(),
            facts: plugin.facts().names(),
            grants: plugin.grants().iter().map(|grant| grant.name()).collect(),
            optional_grants: plugin.facts().address.then(|| Grant::RawAddresses.name()).into_iter().collect(),
            counters: plugin.counters().iter().map(|counter| counter.name.clone()).collect(),
            engine: host.engine().0.name(),
        }
    }

    fn text(&self) -> String {
        let list = |items: &[&str]| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
        let owned = |items: &[String]| list(&items.iter().map(String::as_str).collect::<Vec<_>>());
        let binds = match &self.hooks.not_carried_out[..] {
            [] => String::new(),
            hooks => {
                format!(", but no tenant can be bound to it: this version does not carry out {}", hooks.join(", "))
            }
        };
        let mut text = format!("{} {}: it loads{binds}\n", self.name, self.version);
        let mut line = |name: &str, value: &str| text += &format!("  {name:<10} {value}\n");
        line("digest", &self.digest);
        line("size", &format!("{} bytes", self.bytes));
        line("built for", &self.interface);
        line("hooks", &owned(&self.hooks.told));
        line("calls", &owned(&self.calls));
        line("is told", &owned(&self.facts));
        line("needs", &granted(&self.grants, "to be granted: without it a relay does not load it"));
        line("asks for", &granted(&self.optional_grants, "which may be granted: without it no address is sent"));
        line("counters", &owned(&self.counters));
        line("engine", self.engine);
        text
    }
}

/// Grants by name, and what they are about.
fn granted(names: &[&str], about: &str) -> String {
    if names.is_empty() { "no grant".to_owned() } else { format!("{} ({about})", names.join(", ")) }
}

/// What came of the cases.
#[derive(Serialize)]
struct Tested {
    cases: Vec<Ran>,
    passed: usize,
    failed: usize,
}

#[derive(Serialize)]
struct Ran {
    case: String,
    hook: String,
    description: String,
    passed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// None where it failed.
    answer: Option<Value>,
    microseconds: u64,
    memory_bytes: usize,
    /// What it executed: the same on every machine. Not there where the call failed.
    fuel: Option<u64>,
}

/// Runs recorded cases.
pub(super) fn test(args: &TestArgs) -> Result<(), Failure> {
    let TestArgs { file, cases: folder, form } = args;
    let cases = match folder {
        Some(folder) => Case::read(folder)?,
        None => cases_beside(file)?,
    };
    if cases.is_empty() {
        return Err(format!(
            "there are no cases: say --cases DIR, or put them into {}",
            file.with_extension("cases").display()
        ));
    }
    let (host, plugin) = open(file, form, false)?;
    // Counting takes time: what takes how long is seen without it.
    let (counting, counted) = open(file, form, true)?;
    let run = |case| Ran { fuel: fuel(&counting, &counted, case), ..run(&host, &plugin, case) };
    let ran: Vec<Ran> = cases.iter().map(run).collect();
    let failed = ran.iter().filter(|ran| !ran.passed).count();
    let tested = Tested { passed: ran.len() - failed, failed, cases: ran };
    show(form, &tested, tested_text)?;
    if failed == 0 { Ok(()) } else { Err(format!("{failed} of {} cases failed", cases.len())) }
}

fn run(host: &Host, plugin: &Plugin, case: &Case) -> Ran {
    let sets = Arc::new(Sets::default());
    let ran = host.answer_case(plugin, case, &sets);
    let compared = ran.as_ref().map_err(Clone::clone).and_then(|ran| case.compare(ran));
    let (answer, took, memory_bytes) = match ran {
        Ok(ran) => (ran.answer.ok(), ran.took, ran.memory_bytes),
        Err(_) => Default::default(),
    };
    Ran {
        case: case.name.clone(),
        hook: case.hook().to_owned(),
        description: case.description().to_owned(),
        passed: compared.is_ok(),
        error: compared.err(),
        answer,
        microseconds: took.as_micros() as u64,
        memory_bytes,
        fuel: None,
    }
}

fn fuel(host: &Host, plugin: &Plugin, case: &Case) -> Option<u64> {
    host.answer_case(plugin, case, &Arc::default()).ok()?.fuel
}

fn tested_text(tested: &Tested) -> String {
    let mut text = String::new();
    for ran in &tested.cases {
        let (mark, about) = (if ran.passed { "ok  " } else { "FAIL" }, &ran.description);
        let memory = ran.memory_bytes >> 10;
        let fuel = ran.fuel.map_or_else(String::new, |fuel| format!(", {fuel} of fuel"));
        let Ran { case, hook, microseconds, .. } = ran;
        let _ = writeln!(text, "{mark} {case} ({hook}, {microseconds} us, {memory} KiB{fuel}) {about}");
        let _ = writeln!(text, "     {}", verdict(ran));
        if let Some(error) = &ran.error {
            let _ = writeln!(text, "     {error}");
        }
    }
    let _ = writeln!(text, "{} passed, {} failed", tested.passed, tested.failed);
    text
}

/// The answer on one line.
fn verdict(ran: &Ran) -> String {
    ran.answer.as_ref().map_or_else(|| "no answer".to_owned(), cut)
}

/// An answer, and not all of a long one.
pub(super) fn cut(answer: &Value) -> String {
    let text = answer.to_string();
    let cut: String = text.chars().take(ANSWER_CHARS).collect();
    if cut.len() < text.len() { format!("{cut}... (all of it: --json)") } else { cut }
}

pub(super) fn show<T: Serialize>(form: &Form, value: &T, words: impl FnOnce(&T) -> String) -> Result<(), Failure> {
    let text = match form.json {
        true => serde_json::to_string_pretty(value).map_err(|error| error.to_string())? + "\n",
        false => words(value),
    };
    banner::say(&text);
    Ok(())
}

fn list_text(plugins: &api::Plugins) -> String {
    if plugins.plugins.is_empty() {
        return "no plugin is loaded\n".to_owned();
    }
    let mut text = format!("engine: {}\n", plugins.engine);
    let listed = |items: &[String]| if items.is_empty() { "nothing".to_owned() } else { items.join(", ") };
    for plugin in &plugins.plugins {
        let _ = writeln!(text, "{} {} {}", plugin.name, plugin.version, plugin.digest);
        let _ = writeln!(text, "  decides  {}", listed(&plugin.hooks));
        if !plugin.not_asked.is_empty() {
            let _ = writeln!(text, "  not yet  {} (nothing in this version asks for it)", listed(&plugin.not_asked));
        }
        let _ = writeln!(text, "  granted  {}", listed(&plugin.grants));
        for binding in &plugin.tenants {
            let mode = if binding.dry_run { " (dry run)" } else { "" };
            let _ = writeln!(text, "  for      {}{mode}", binding.tenant);
        }
        if plugin.tenants.is_empty() {
            let _ =
                writeln!(text, "  for      nobody: `sluice plugin enable {} --tenant TENANT` binds it", plugin.name);
        }
    }
    for fault in &plugins.faults {
        let _ = writeln!(text, "fault: {fault}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_that_a_plan_of_records_could_not_be_had() {
        let plugin = api::Plugin {
            name: "logs".to_owned(),
            version: "1.0.0".to_owned(),
            digest: "sha256:00".to_owned(),
            hooks: vec!["log-plan".to_owned()],
            not_asked: Vec::new(),
            grants: Vec::new(),
            tenants: vec![api::Binding { tenant: "clinic".to_owned(), dry_run: false }],
        };
        let faults = vec!["plugin logs has no plan for the records of clinic".to_owned()];
        let text = list_text(&api::Plugins { engine: "pulley".to_owned(), plugins: vec![plugin], faults });
        assert!(text.ends_with("\nfault: plugin logs has no plan for the records of clinic\n"), "{text}");
    }

    #[test]
    fn a_component_that_no_tenant_can_be_bound_to_is_said_to_be_one() {
        let of = |hooks: &[Hook]| Checked {
            name: "late".to_owned(),
            version: "1.0.0".to_owned(),
            digest: "sha256:00".to_owned(),
            bytes: 1,
            interface: "sluice:policy@0.0.1".to_owned(),
            hooks: Hooks::of(hooks),
            calls: Vec::new(),
            facts: Vec::new(),
            grants: Vec::new(),
            optional_grants: Vec::new(),
            counters: Vec::new(),
            engine: "pulley",
        };
        let late = of(&[Hook::Allocate, Hook::LogFilter]);
        let text = late.text();
        let first =
            "late 1.0.0: it loads, but no tenant can be bound to it: this version does not carry out log-filter\n";
        assert!(text.starts_with(first), "{text}");
        assert!(text.contains(" allocate, log-filter (which this version does not carry out)\n"), "{text}");
        let json = serde_json::to_value(&late).unwrap();
        assert_eq!(json["hooks"], serde_json::json!(["allocate", "log-filter"]));
        assert_eq!(json["not_asked"], serde_json::json!(["log-filter"]));
        assert_eq!(json["not_carried_out"], serde_json::json!(["log-filter"]));
        let text = of(&[Hook::Allocate, Hook::Recording]).text();
        assert!(text.starts_with("late 1.0.0: it loads\n"), "{text}");
        assert!(text.contains(" allocate, recording (which nothing here asks for)\n"), "{text}");
    }
}
