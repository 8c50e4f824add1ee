//! Plugins written as WebAssembly text: what they answer stands in their memory as bytes.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use sluice_base::policy::{Endpoint, Hook, Question, Verdict};
use sluice_base::{AddressClass, Pii, QuestionId, Secret, SessionId, TenantId};
use sluice_policy::{
    EngineChoice, Grant, Host, HostOptions, LoadError, Mode, Node, Plugin, Sets, Source, Standing, Tenant,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A verdict that allows for 60 s; one that denies with `quota-exceeded`; one that abstains: at 2048, 2304, 2560.
pub(crate) const ALLOW: &str = "(i32.const 2048)";
pub(crate) const DENY: &str = "(i32.const 2304)";
pub(crate) const ABSTAIN: &str = "(i32.const 2560)";
/// Lists of one verdict each, for `permit-peers`, and an empty one.
pub(crate) const ALLOW_ONE: &str = "(i32.const 3072)";
pub(crate) const ALLOW_NONE: &str = "(i32.const 3080)";

/// Worlds of their own, for what stores, and for what stores and cannot be asked to forget.
const STORING: &str = "package test:storing;
    world storing {
        include sluice:policy/admission-policy@0.0.1;
        import sluice:policy/kv@0.0.1;
        export sluice:policy/erasure@0.0.1;
    }
    world noting {
        include sluice:policy/admission-policy@0.0.1;
        import sluice:policy/kv@0.0.1;
    }";

/// What a plugin does, as bodies of functions.
#[derive(Clone)]
pub(crate) struct Guest {
    pub(crate) world: &'static str,
    pub(crate) describe: String,
    pub(crate) validate: String,
    pub(crate) allocate: String,
    pub(crate) permit: String,
    /// Definitions beside them.
    pub(crate) more: String,
}

impl Default for Guest {
    fn default() -> Self {
        Guest {
            world: "admission-policy",
            describe: "(i32.const 1024)".to_owned(),
            validate: "(i32.const 1280)".to_owned(),
            allocate: ALLOW.to_owned(),
            permit: ALLOW_ONE.to_owned(),
            more: String::new(),
        }
    }
}

impl Guest {
    pub(crate) fn allocating(body: &str) -> Self {
        Guest { allocate: body.to_owned(), ..Guest::default() }
    }

    /// Its component.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let admission = match self.world {
            "base" | "geofence-policy" | "log-policy" => String::new(),
            _ => format!(
                r#"(func (export "sluice:policy/admission@0.0.1#allocate") (param i32) (result i32) {})
                   (func (export "sluice:policy/admission@0.0.1#permit-peers") (param i32) (result i32) {})"#,
                self.allocate, self.permit
            ),
        };
        let text = format!(
            r#"(module
                {}
                (memory (export "memory") 2)
                (global $heap (mut i32) (i32.const 16384))
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                  (local $at i32)
                  (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
                  (global.set $heap (i32.add (local.get $at) (local.get 3)))
                  (local.get $at))
                (func (export "sluice:policy/setup@0.0.1#describe") (result i32) {})
                (func (export "sluice:policy/setup@0.0.1#validate-settings") (param i32 i32) (result i32) {})
                {admission}
                ;; The manifest: name "test", version "1.0.0", no facts, no counters.
                (data (i32.const 1024) "\40\04\00\00\04\00\00\00\48\04\00\00\05\00\00\00")
                (data (i32.const 1088) "test") (data (i32.const 1096) "1.0.0")
                ;; One problem, of severity error, at "/most", that says "too low".
                (data (i32.const 1536) "\00\06\00\00\01\00\00\00")
                (data (i32.const 1540) "\01\00\00\00")
                (data (i32.const 1568) "\40\06\00\00\01\00\00\00")
                (data (i32.const 1600) "\01\00\00\00\80\06\00\00\05\00\00\00\88\06\00\00\07\00\00\00")
                (data (i32.const 1664) "/most") (data (i32.const 1672) "too low")
                (data (i32.const 2048) "\00\00\00\00\00\00\00\00\3c\00\00\00")
                (data (i32.const 2304) "\01\00\00\00\00\00\00\00\02")
                (data (i32.const 2560) "\02")
                (data (i32.const 3072) "\00\08\00\00\01\00\00\00"))"#,
            self.more, self.describe, self.validate
        );
        encode(&text, self.world)
    }
}

/// The component of a module of this world.
pub(crate) fn encode(text: &str, world: &str) -> Vec<u8> {
    let mut module = wat::parse_str(text).unwrap();
    let mut resolve = Resolve::default();
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
    let (package, _) = resolve.push_dir(wit).unwrap();
    let own = resolve.push_str("storing.wit", STORING).unwrap();
    let package = if ["storing", "noting"].contains(&world) { own } else { package };
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
}

/// A host with two threads and a short deadline.
pub(crate) fn host(engine: EngineChoice) -> Host {
    host_of(engine, 64)
}

pub(crate) fn host_of(engine: EngineChoice, queue: usize) -> Host {
    Host::start(options(engine, queue)).unwrap()
}

pub(crate) fn options(engine: EngineChoice, queue: usize) -> HostOptions {
    HostOptions {
        engine,
        memory_bytes: 4 << 20,
        deadline: Duration::from_millis(200),
        queue,
        threads: 2,
        fuel: false,
        key: Secret::new([7; 32]),
        cache: None,
    }
}

/// Loads a plugin without grants and settings.
pub(crate) fn load(host: &Host, name: &str, guest: &Guest) -> Result<Arc<Plugin>, LoadError> {
    load_with(host, name, guest.bytes(), "{}", &[])
}

pub(crate) fn load_with(
    host: &Host,
    name: &str,
    bytes: Vec<u8>,
    settings: &str,
    grants: &[Grant],
) -> Result<Arc<Plugin>, LoadError> {
    let source = Source {
        name: name.to_owned(),
        bytes,
        settings: settings.to_owned(),
        grants: grants.to_vec(),
        ..Source::default()
    };
    host.load(&source, &Arc::default()).map(Arc::new)
}

/// Binds plugins to tenant 0.
pub(crate) fn bind(host: &Host, plugins: &[(Arc<Plugin>, Mode)]) {
    let tenant = Tenant { id: TenantId(0), name: "clinic".to_owned(), plugins: plugins.to_vec() };
    let table = host.bind(vec![tenant], Node::default(), Arc::new(Sets::default())).unwrap();
    host.swap(table);
}

/// A question of tenant 0.
pub(crate) fn question(hook: Hook, peers: usize) -> Question {
    let endpoint = |last: usize| Endpoint {
        address: Pii::new(format!("203.0.113.{last}:4000").parse().unwrap()),
        class: AddressClass::Public,
        translated: false,
    };
    Question {
        id: QuestionId(1),
        hook,
        tenant: TenantId(0),
        user: Pii::new(b"alice"[..].into()),
        client: endpoint(1),
        peers: (0..peers).map(|peer| endpoint(peer + 2)).collect(),
        session: SessionId([3; 16]),
        allocation: None,
        lifetime: None,
    }
}

/// The verdict on a question, however it comes.
pub(crate) fn ask(host: &Host, question: Question) -> Verdict {
    let (answer, answered) = mpsc::channel();
    let now = host.ask(question, Standing::default, Box::new(move |verdict| answer.send(verdict).unwrap()));
    now.unwrap_or_else(|| answered.recv_timeout(Duration::from_secs(10)).expect("an answer"))
}
