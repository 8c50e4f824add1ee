//! Policies under real clients: a fence lets in and keeps out, what it no longer allows stops at once, and a plugin that
//! misbehaves harms nobody but the tenant that has it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sluice_geo::Place;
use sluice_geo::write::Writer;

use crate::life::{Folder, Load};
use crate::report::Report;
use crate::server::{self, Server};
use crate::{clients, netns, plugins, shell, turnutils};

/// How long one client may take.
const CLIENT_LIMIT: Duration = Duration::from_secs(30);

/// How long a reload may take to reach the flows: many times what it takes.
const CUT_LIMIT: Duration = Duration::from_secs(2);

/// How much the relay's memory may grow while a plugin misbehaves.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// Clients of the test: in Germany, in the United States, and where nobody knows.
const INSIDE: u16 = 5;
const OUTSIDE: u16 = 40;
const NOWHERE: u16 = 70;

/// What a plugin does in a hook, the code that its tenant's client is told, and the reason that is counted.
const CONDUCTS: &[(&str, &str, u16, &str)] = &[
    ("trap", "allocate", 508, "trap"),
    ("recurse", "allocate", 508, "trap"),
    ("spin", "allocate", 508, "deadline"),
    ("allocate", "allocate", 508, "memory"),
    ("oblige", "allocate", 508, "obligation"),
    ("huge", "allocate", 508, "answer"),
    ("lie", "permit-peers", 508, "answer"),
    ("spin", "permit-peers", 508, "deadline"),
];

/// Components that no configuration with them comes into force.
const UNLOADABLE: &[(&str, &str)] =
    &[("hostile-start-up", "deadline"), ("hostile-describe", "deadline"), ("hostile-ungranted", "the grant \"kv\"")];

/// All of it; inside of the namespace.
pub(crate) fn run(report: &Report, peer_port: u16, shown: &mut String) {
    let mut stage = None;
    report.test("policies: plugins load, their cases pass, and the start says who decides", || {
        stage = Some(Stage::set(peer_port)?);
        Ok(())
    });
    let Some(stage) = stage else { return };
    report.test("policies: a client inside of the fence is served", || stage.served(INSIDE));
    report.test("policies: a client outside is refused with 403", || stage.refused(stage.port, OUTSIDE, 403));
    report.test("policies: a client of unknown place is refused with 403", || stage.refused(stage.port, NOWHERE, 403));
    report.test("policies: verdicts are counted by plugin and hook", || {
        stage.counted("sluice_policy_verdicts_total{hook=\"geofence\",plugin=\"fence\",verdict=\"deny\"}", 2)
    });
    report.test("policies: what a changed fence no longer allows is cut at once", || cut(&stage));
    for (what, hook, code, reason) in CONDUCTS {
        report.test(&format!("policies: beside a plugin that does {what} in {hook} nobody loses a packet"), || {
            hostile(&stage, what, hook, *code, reason)
        });
    }
    report.test("policies: what does not load changes nothing", || unloadable(&stage));
    report.test("policies: the relay ends in order", || {
        let Stage { folder, server, .. } = stage;
        let ended = server.stop();
        drop(folder);
        ended
    });
    let log = netns::folder().map(|folder| folder.join("policies.log"));
    shown.push_str(&log.and_then(|f| std::fs::read_to_string(f).map_err(|e| e.to_string())).unwrap_or_default());
}

/// A relay with two tenants: of one a fence decides, of the other what misbehaves.
struct Stage {
    folder: Folder,
    server: Server,
    port: u16,
    hostile_port: u16,
    peer_port: u16,
    metrics: SocketAddr,
    database: PathBuf,
}

impl Stage {
    fn set(peer_port: u16) -> Result<Self, String> {
        plugins::run(&plugins::PluginsArgs::default())?;
        let folder = Folder::new("policies")?;
        let [port, hostile_port, metrics_port] = [(); 3].map(|()| server::free_udp_port(netns::RELAY_V4));
        let (port, hostile_port) = (port?, hostile_port?);
        let metrics = clients::address(netns::RELAY_V4, metrics_port?)?;
        let database = netns::folder()?.join("places.mmdb");
        std::fs::write(&database, places()?).map_err(|e| format!("{}: {e}", database.display()))?;
        let text = configuration(&folder, [port, hostile_port], metrics, &database, "DE", None);
        folder.write(&text)?;
        let server = folder.start("policies.log", port, None)?;
        let said = server.output();
        match said.contains("fence 0.0.1 decides geofence for main") || said.contains("decides geofence for main") {
            true => Ok(Stage { folder, server, port, hostile_port, peer_port, metrics, database }),
            false => Err(format!("the start does not say who decides:\n{}", shell::tail(&said, 20))),
        }
    }

    /// Has another fence, and another plugin for the other tenant, come into force.
    fn reload(&self, country: &str, hostile: Option<(&str, &str)>) -> Result<(), String> {
        self.write(country, hostile)?;
        let reload = self.folder.json(&["reload"])?;
        if reload["outcome"] == "applied" { Ok(()) } else { Err(reload.to_string()) }
    }

    fn write(&self, country: &str, hostile: Option<(&str, &str)>) -> Result<(), String> {
        let ports = [self.port, self.hostile_port];
        self.folder.write(&configuration(&self.folder, ports, self.metrics, &self.database, country, hostile))
    }

    fn client(&self, port: u16, client: u16) -> Result<shell::Ran, String> {
        let (user, password) = clients::STATIC_USER;
        let mut command = shell::limited(CLIENT_LIMIT, "turnutils_uclient");
        command.args(["-u", user, "-w", password, "-n", "20", "-c", "-p", &port.to_string()]);
        command.args(["-L", &netns::client_v4(client), "-e", netns::PEER_V4, "-r", &self.peer_port.to_string()]);
        shell::capture(command.arg(netns::RELAY_V4))
    }

    fn served(&self, client: u16) -> Result<(), String> {
        let ran = self.client(self.port, client)?;
        turnutils::nothing_lost(&ran.text).map_err(|why| format!("{why}\n{}", ran.complaint("turnutils_uclient")))
    }

    fn refused(&self, port: u16, client: u16, code: u16) -> Result<(), String> {
        let ran = self.client(port, client)?;
        match ran.text.contains(&format!("error {code} ")) {
            true => Ok(()),
            false => Err(format!("it was not refused with {code}\n{}", ran.complaint("turnutils_uclient"))),
        }
    }

    fn counter(&self, series: &str) -> Result<u64, String> {
        let metrics = server::http_get(self.metrics, "/metrics")?;
        let line = metrics.lines().find_map(|line| line.strip_prefix(series));
        Ok(line.and_then(|value| value.trim().parse().ok()).unwrap_or(0))
    }

    fn counted(&self, series: &str, least: u64) -> Result<(), String> {
        let count = self.counter(series)?;
        if count >= least { Ok(()) } else { Err(format!("{series} is {count}, and not at least {least}")) }
    }

    fn memory_bytes(&self) -> Result<u64, String> {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.server.pid())).map_err(|e| e.to_string())?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        kib.map(|kib| kib << 10).ok_or_else(|| "no VmRSS".to_owned())
    }
}

/// Flows of an allowed place; then their place is no longer allowed.
fn cut(stage: &Stage) -> Result<(), String> {
    let load = Load::upon(&stage.folder, stage.port, "4")?;
    stage.reload("FR", None)?;
    let began = Instant::now();
    loop {
        let status = stage.folder.json(&["status"])?;
        if status["allocations"] == 0 {
            break;
        }
        if began.elapsed() > CUT_LIMIT {
            return Err(format!("{} allocations live on", status["allocations"]));
        }
    }
    println!("      cut {} ms after the reload, the asking included", began.elapsed().as_millis());
    let lost = load.lost_nothing();
    stage.reload("DE", None)?;
    match lost {
        Err(_) => stage.served(INSIDE),
        Ok(()) => Err("the load lost nothing".to_owned()),
    }
}

/// One tenant's plugin misbehaves while another tenant's clients have calls.
fn hostile(stage: &Stage, what: &str, hook: &str, code: u16, reason: &str) -> Result<(), String> {
    let failures = format!("sluice_policy_failures_total{{plugin=\"hostile\",reason=\"{reason}\"}}");
    let before = stage.counter(&failures)?;
    stage.reload("DE", Some((what, hook)))?;
    let memory_before = stage.memory_bytes()?;
    let load = Load::upon(&stage.folder, stage.port, "3")?;
    stage.refused(stage.hostile_port, INSIDE, code)?;
    load.lost_nothing()?;
    stage.counted(&failures, before + 1)?;
    let growth = stage.memory_bytes()?.saturating_sub(memory_before);
    match growth <= GROWTH_BYTES_MAX {
        true => Ok(()),
        false => Err(format!("the relay grew by {} MiB", growth >> 20)),
    }
}

/// A component that cannot be loaded refuses the reload as a whole, and what ran before runs on.
fn unloadable(stage: &Stage) -> Result<(), String> {
    stage.reload("DE", None)?;
    for (component, said) in UNLOADABLE {
        stage.write("DE", Some((component, "")))?;
        let ran = stage.folder.ask(&["reload"])?;
        if ran.code != Some(1) || !ran.text.contains(said) {
            return Err(format!("{component}: {said:?} was to be said: {}", ran.complaint("reload")));
        }
        stage.served(INSIDE)?;
    }
    stage.write("DE", None)
}

/// Where the clients of the namespace are: see [`INSIDE`]. Whoever binds no address is inside.
fn places() -> Result<Vec<u8>, String> {
    let mut writer = Writer::new(std::time::UNIX_EPOCH.elapsed().map_err(|e| e.to_string())?.as_secs());
    let mut at = |address: &str, bits, country: &str| {
        let address: IpAddr = address.parse().map_err(|e| format!("{address}: {e}"))?;
        writer.insert(address, bits, &Place { country: Some(country.to_owned()), ..Place::default() });
        Ok::<_, String>(())
    };
    at("127.66.1.0", 27, "DE")?;
    at("127.66.1.32", 27, "US")?;
    at(netns::CLIENT_V4, 32, "DE")?;
    Ok(writer.bytes())
}

fn configuration(
    folder: &Folder,
    [port, hostile_port]: [u16; 2],
    metrics: SocketAddr,
    database: &std::path::Path,
    country: &str,
    hostile: Option<(&str, &str)>,
) -> String {
    let components = shell::target().join("plugins");
    let (user, password) = clients::STATIC_USER;
    let (v4, realm, socket) = (netns::RELAY_V4, clients::REALM, folder.socket());
    let hostile = hostile.map_or_else(String::new, |(what, hook)| {
        let (component, what) = if hook.is_empty() { (what, "trap") } else { ("hostile-any", what) };
        format!(
            "[[plugin]]\nname = \"hostile\"\nfile = \"{}/{component}.wasm\"\n\
             settings = {{ do = \"{what}\", in = \"{hook}\" }}\n\
             [[tenant.policy]]\nplugin = \"hostile\"\n",
            components.display()
        )
    });
    format!(
        r#"
[[listen]]
address = "{v4}:{port}"
realm = "{realm}"
tenant = "main"

[[listen]]
address = "{v4}:{hostile_port}"
realm = "{realm}"
tenant = "other"

[limits]
allocations = 1000
allocations_per_user = 0

[guard]
allow_peers = ["loopback"]
unauthenticated_burst = 100000

[metrics]
listen = "{metrics}"

[control]
socket = "{socket}"

[geo]
database = "{database}"

[[plugin]]
name = "fence"
file = "{components}/geofence.wasm"
settings = {{ clients = {{ only = ["{country}"] }}, unknown_clients = "refuse", peers = "any", nodes = "any", storage = "any" }}

[[tenant]]
name = "main"
[[tenant.user]]
name = "{user}"
password = "{password}"
[[tenant.policy]]
plugin = "fence"

[[tenant]]
name = "other"
[[tenant.user]]
name = "{user}"
password = "{password}"
{hostile}
"#,
        socket = socket.display(),
        database = database.display(),
        components = components.display(),
    )
}
