//! What a verdict costs, from the question to the answer: the way to a thread, a fresh instance for each plugin, and
//! back. `cargo xtask bench-policies` calls it with the folder of the components.
#![allow(clippy::print_stdout, reason = "a table is what it is for")]

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use sluice_base::policy::{Endpoint, Hook, Question, Verdict};
use sluice_base::{AddressClass, Pii, QuestionId, Secret, SessionId, TenantId};
use sluice_policy::{EngineChoice, EngineKind, Host, HostOptions, Mode, Node, Plugin, Sets, Source, Standing, Tenant};

/// The most questions of a row, and the longest that they may take: interpreted JavaScript takes milliseconds for each.
const COUNTED: (usize, Duration) = (4000, Duration::from_secs(3));

/// The same of those before them, which are not counted.
const WARM_UP: (usize, Duration) = (1000, Duration::from_millis(500));

/// What a row binds to each tenant: a word for people, and components with their settings.
type Bound = (&'static str, &'static [(&'static str, &'static str)]);

const TEMPLATE: (&str, &str) = ("template", r#"{"per_user": 5}"#);
const FENCE: (&str, &str) = (
    "geofence",
    r#"{"clients": {"only": ["DE"]}, "unknown_clients": "admit", "peers": "any", "nodes": "any", "storage": "any"}"#,
);

const ROWS: &[Bound] = &[
    ("nothing", &[]),
    ("a fence", &[FENCE]),
    ("one in Rust", &[TEMPLATE]),
    ("three in Rust", &[TEMPLATE, TEMPLATE, TEMPLATE]),
    ("one in JavaScript", &[("opening-hours", r#"{"from": 0, "to": 24}"#)]),
];

/// The row of whose 99th percentile something is demanded: three plugins, each of them asked.
const CHECKED: &str = "three in Rust";

/// The most that it may be.
const fn p99_most(engine: EngineKind) -> Duration {
    match engine {
        EngineKind::Cranelift => Duration::from_millis(1),
        EngineKind::Pulley => Duration::from_millis(5),
    }
}

fn main() -> Result<(), String> {
    let folder = std::env::args().nth(1).ok_or("say the folder of the components")?;
    let check = std::env::args().any(|argument| argument == "--check");
    let mut missed = 0;
    let heads = ["questions", "median", "p99", "most"].map(|head| format!("{head:>10}")).join(" ");
    println!("{:<10} {:>7}  {:<18} {heads}", "engine", "tenants", "plugins");
    for engine in [EngineChoice::Cranelift, EngineChoice::Pulley] {
        for row in ROWS {
            for tenants in [1, 100] {
                let (kind, p99) = measure(Path::new(&folder), engine, row, tenants)?;
                missed += u32::from(row.0 == CHECKED && p99 >= p99_most(kind));
            }
        }
    }
    match missed {
        1.. if check => {
            Err(format!("{missed} figures of {CHECKED:?} miss what is demanded: p99 below 1 ms, interpreted 5 ms"))
        }
        _ => Ok(()),
    }
}

/// Prints a row; the engine that ran it, and its 99th percentile.
fn measure(
    folder: &Path,
    engine: EngineChoice,
    (word, plugins): &Bound,
    tenants: u16,
) -> Result<(EngineKind, Duration), String> {
    let host = Host::start(HostOptions {
        engine,
        memory_bytes: 32 << 20,
        deadline: Duration::from_millis(300),
        queue: 64,
        threads: 2,
        fuel: false,
        key: Secret::new([7; 32]),
        cache: None,
    })?;
    let loaded: Vec<(Arc<Plugin>, Mode)> =
        plugins.iter().enumerate().map(|(i, plugin)| load(&host, folder, i, plugin)).collect::<Result<_, _>>()?;
    let tenant = |id| Tenant { id: TenantId(id), name: format!("tenant-{id}"), plugins: loaded.clone() };
    let table = host.bind((0..tenants).map(tenant).collect(), Node::default(), Arc::new(Sets::default()));
    host.swap(table.map_err(|error| error.to_string())?);
    let took = asked(&host, tenants, WARM_UP).and_then(|_| asked(&host, tenants, COUNTED));
    let mut took = took.map_err(|error| format!("{word}: {error}"))?;
    took.sort_unstable();
    let (questions, part) = (took.len(), |part: usize| took[(took.len() - 1) * part / 100]);
    let at = |of: usize| format!("{:.1} us", part(of).as_nanos() as f64 / 1e3);
    let kind = host.engine().0;
    let engine = kind.name();
    let [median, p99, most] = [50, 99, 100].map(at);
    println!("{engine:<10} {tenants:>7}  {word:<18} {questions:>10} {median:>10} {p99:>10} {most:>10}");
    Ok((kind, part(99)))
}

/// How long each question took, of as many as there is time for, one after the other: at least one.
fn asked(host: &Host, tenants: u16, (questions, time): (usize, Duration)) -> Result<Vec<Duration>, String> {
    let (mut took, end) = (Vec::with_capacity(questions), Instant::now() + time);
    for i in 0..questions {
        let question = question(i as u64, TenantId(i as u16 % tenants));
        let began = Instant::now();
        let verdict = ask(host, question)?;
        took.push(began.elapsed());
        if !matches!(verdict, Verdict::Allow(_)) {
            return Err(format!("{verdict:?}"));
        }
        if began >= end {
            break;
        }
    }
    Ok(took)
}

fn load(host: &Host, folder: &Path, i: usize, (name, settings): &(&str, &str)) -> Result<(Arc<Plugin>, Mode), String> {
    let file = folder.join(format!("{name}.wasm"));
    let source = Source {
        name: format!("{name}-{i}"),
        bytes: std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?,
        settings: (*settings).to_owned(),
        ..Source::default()
    };
    let plugin = host.load(&source, &Arc::default()).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok((Arc::new(plugin), Mode::Enforce))
}

fn ask(host: &Host, question: Question) -> Result<Verdict, String> {
    let (answer, answered) = mpsc::channel();
    let now = host.ask(question, Standing::default, Box::new(move |verdict| _ = answer.send(verdict)));
    now.map_or_else(|| answered.recv().map_err(|error| error.to_string()), Ok)
}

fn question(id: u64, tenant: TenantId) -> Question {
    let address = Pii::new(([203, 0, 113, 1], 4000).into());
    Question {
        id: QuestionId(id),
        hook: Hook::Allocate,
        tenant,
        user: Pii::new(b"alice"[..].into()),
        client: Endpoint { address, class: AddressClass::Public, translated: false },
        peers: Vec::new(),
        session: SessionId([3; 16]),
        allocation: None,
        lifetime: None,
    }
}
