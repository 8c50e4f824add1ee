//! The relay with records: under kills, on a full disk, on one that has become read-only.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::client::{Answer, Crowd, allocate};
use super::{DISK_MEBIBYTES, KILLS_PER_DISK, STATE, a_life};
use crate::disk::Disk;
use crate::life::{Folder, Load, wait_for};
use crate::report::Report;
use crate::server::{self, Server};
use crate::{clients, netns, shell};

/// Clients of one life, each with an address of its own.
const CLIENTS: u16 = 16;

/// How long the store of what is left may take to be looked at.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

/// The size of a disk that is to be filled.
const SMALL_MEBIBYTES: u32 = 24;

/// How long packets flow while a disk is full or read-only.
const LOAD_SECONDS: &str = "6";

/// Why an operator looks up an address here.
const REASON: &str = "kill test";

/// The tests.
pub(super) fn run(report: &Report, kills: u32, shown: &mut String) {
    report.test(&format!("kills: {kills} of a relay, and no session that a client has is missing"), || killed(kills));
    report.test("kills: a full disk refuses newcomers, loses no packet, and is over when there is room", full_disk);
    report.test("kills: a disk that has become read-only refuses newcomers and loses no packet", read_only_disk);
    for log in LOGS {
        let text = netns::folder().map(|folder| std::fs::read_to_string(folder.join(log)).unwrap_or_default());
        shown.push_str(&text.unwrap_or_default());
    }
}

/// Logs of the relays here.
const LOGS: &[&str] = &[KILLED_LOG, LEFT_LOG, FULL_LOG, READ_ONLY_LOG];
const KILLED_LOG: &str = "kills-relay.log";
const LEFT_LOG: &str = "kills-left.log";
const FULL_LOG: &str = "kills-full.log";
const READ_ONLY_LOG: &str = "kills-read-only.log";

fn killed(kills: u32) -> Result<(), String> {
    let (mut done, mut acknowledged) = (0, 0);
    while done < kills {
        let mut stage = Stage::new("kills-relay", DISK_MEBIBYTES)?;
        // By the address of each client, in all of its lives.
        let mut known = BTreeMap::new();
        for life in 0..KILLS_PER_DISK.min(kills - done) as u16 {
            let after = a_life()?;
            stage = stage.life(life, after, &mut known).map_err(|why| format!("killed after {after:?}: {why}"))?;
            done += 1;
        }
        acknowledged += known.values().sum::<u64>();
    }
    println!("      {acknowledged} allocations in {kills} lives");
    if acknowledged > 0 { Ok(()) } else { Err("nothing was acknowledged, so nothing is shown".to_owned()) }
}

fn full_disk() -> Result<(), String> {
    let stage = Stage::new("kills-full", SMALL_MEBIBYTES)?;
    let server = stage.start(FULL_LOG)?;
    let load = stage.load()?;
    let filler = stage.disk.path().join("filler");
    fill(&filler)?;
    stage.is_refused()?;
    stage.says_so(FULL_LOG)?;
    load.lost_nothing()?;
    std::fs::remove_file(&filler).map_err(|e| e.to_string())?;
    wait_for("an allocation after there is room", || Ok((stage.newcomer()? == Answer::Success).then_some(())))?;
    server.stop()?;
    stage.is_whole()
}

fn read_only_disk() -> Result<(), String> {
    let stage = Stage::new("kills-read-only", SMALL_MEBIBYTES)?;
    let server = stage.start(READ_ONLY_LOG)?;
    let load = stage.load()?;
    stage.disk.fail()?;
    stage.is_refused()?;
    stage.says_so(READ_ONLY_LOG)?;
    load.lost_nothing()?;
    // It has nothing to write to, so its end is no good one.
    drop(server);
    let stage = Stage { disk: stage.disk.again()?, ..stage }.elsewhere()?;
    let server = stage.start(LEFT_LOG)?;
    wait_for("an allocation on the repaired disk", || Ok((stage.newcomer()? == Answer::Success).then_some(())))?;
    server.stop()?;
    stage.is_whole()
}

/// A relay whose state directory is a disk.
struct Stage {
    folder: Folder,
    disk: Disk,
    port: u16,
    metrics: SocketAddr,
}

impl Stage {
    fn new(name: &str, mebibytes: u32) -> Result<Self, String> {
        let port = server::free_udp_port(netns::RELAY_V4)?;
        let metrics = clients::address(netns::RELAY_V4, server::free_udp_port(netns::RELAY_V4)?)?;
        let (folder, disk) = (Folder::new(name)?, Disk::new(name, mebibytes)?);
        Ok(Stage { folder, disk, port, metrics })
    }

    /// Starts the relay on its disk.
    /// At another port: somebody may have been given that of a relay that is gone.
    fn elsewhere(self) -> Result<Self, String> {
        Ok(Stage { port: server::free_udp_port(netns::RELAY_V4)?, ..self })
    }

    fn start(&self, log: &str) -> Result<Server, String> {
        std::fs::create_dir_all(self.state()).map_err(|e| e.to_string())?;
        self.folder.write(&self.configuration())?;
        self.folder.start(log, self.port, None)
    }

    /// One life: it starts, works, is killed, and what is on the disk at that moment is what goes on.
    fn life(self, life: u16, after: Duration, known: &mut BTreeMap<IpAddr, u64>) -> Result<Self, String> {
        let mut server = Some(self.start(KILLED_LOG)?);
        let clients = (1..=CLIENTS).map(|n| netns::client_v4(life * CLIENTS + n).parse().map_err(|e| format!("{e}")));
        let crowd = Crowd::new(clients.collect::<Result<_, String>>()?);
        let (disk, told) = crowd.during(self.listener()?, clients::STATIC_USER, || {
            // The moment is what is being tried; there is no event that it could be.
            std::thread::sleep(after);
            // Killed, and waited for.
            drop(server.take());
            self.disk.copy(&format!("kills-relay-{life}"))
        })?;
        known.extend(told);
        let stage = Stage { disk: disk.mount()?, ..self }.elsewhere()?;
        let server = stage.start(LEFT_LOG)?;
        for (client, acknowledged) in known.iter() {
            let found = stage.sessions_of(client)?;
            if found < *acknowledged {
                return Err(format!("{found} sessions of a client that was told of {acknowledged}"));
            }
        }
        server.stop()?;
        stage.is_whole()?;
        Ok(stage)
    }

    /// Sessions of a client, as an operator finds them.
    fn sessions_of(&self, client: &IpAddr) -> Result<u64, String> {
        let found = self.folder.json(&["lookup", &client.to_string(), "--from", "1h", "--reason", REASON])?;
        match (found["more"].as_bool(), found["sessions"].as_array()) {
            (Some(false), Some(sessions)) => Ok(sessions.len() as u64),
            _ => Err(format!("a look-up cannot be counted: {found}")),
        }
    }

    /// The audit is as it was written.
    fn is_whole(&self) -> Result<(), String> {
        let mut verify = shell::limited(LOOK_LIMIT, &clients::relay_program().to_string_lossy());
        let said = shell::capture(verify.args(["audit", "verify", "--json", "--state"]).arg(self.state()))?;
        let said = said.ok("audit verify")?;
        let verdict: Value = serde_json::from_str(&said).map_err(|e| format!("{e} in {said}"))?;
        if verdict["whole"] == true && verdict["entries"].as_u64() > Some(0) { Ok(()) } else { Err(said) }
    }

    /// A client that was not here before.
    fn newcomer(&self) -> Result<Answer, String> {
        let from = netns::client_v4(netns::CLIENTS).parse().map_err(|e| format!("{e}"))?;
        allocate(from, self.listener()?, clients::STATIC_USER)
    }

    /// Nobody is let in whose record cannot be written.
    fn is_refused(&self) -> Result<(), String> {
        wait_for("a refusal for want of a record", || match self.newcomer()? {
            Answer::Success => Ok(None),
            Answer::Refused(508) => Ok(Some(())),
            other => Err(format!("a newcomer got {other:?}")),
        })
    }

    /// Operators hear of it: by the log and by the figures.
    fn says_so(&self, log: &str) -> Result<(), String> {
        let log = netns::folder()?.join(log);
        let text = std::fs::read_to_string(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        if !text.lines().any(|line| line.contains("ERROR") && line.contains("record")) {
            return Err(format!("there is no word of it in the log:\n{}", shell::tail(&text, 5)));
        }
        let metrics = server::http_get(self.metrics, "/metrics")?;
        let failed = metrics.lines().find_map(|line| line.strip_prefix("sluice_record_commits_failed_total "));
        match failed.and_then(|count| count.trim().parse::<f64>().ok()) {
            Some(count) if count > 0.0 => Ok(()),
            _ => Err("no commit counts as failed".to_owned()),
        }
    }

    /// Calls that go on, whatever becomes of the disk.
    fn load(&self) -> Result<Load, String> {
        Load::upon(&self.folder, self.port, LOAD_SECONDS)
    }

    fn state(&self) -> PathBuf {
        self.disk.path().join(STATE)
    }

    fn listener(&self) -> Result<SocketAddr, String> {
        clients::address(netns::RELAY_V4, self.port)
    }

    fn configuration(&self) -> String {
        let (user, password) = clients::STATIC_USER;
        format!(
            r#"
[[listen]]
address = "{address}"
realm = "{realm}"
tenant = "main"

[limits]
allocations = 16000
allocations_per_user = 0

[guard]
allow_peers = ["loopback"]
unauthenticated_per_second = 100000
unauthenticated_burst = 100000

[metrics]
listen = "{metrics}"

[control]
socket = "{socket}"

# What a client has left behind does not hold up the end.
[drain]
deadline_seconds = 0

[privacy]
records = true
lookup = true
admission_wait_ms = 350
state_directory = "{state}"
keys = "persistent"
keys_directory = "{keys}"

[[tenant]]
name = "main"

[[tenant.user]]
name = "{user}"
password = "{password}"
"#,
            address = SocketAddr::from(([127, 0, 0, 1], self.port)),
            realm = clients::REALM,
            metrics = self.metrics,
            socket = self.folder.socket().display(),
            state = self.state().display(),
            keys = self.folder.keys().display(),
        )
    }
}

/// Takes all the room that a disk has.
fn fill(path: &std::path::Path) -> Result<(), String> {
    let mut file = std::fs::File::create(path).map_err(|e| format!("{}: {e}", path.display()))?;
    // In smaller and smaller pieces, to the last block.
    for piece in [1 << 20, 1 << 12, 1 << 10] {
        let zeros = vec![0; piece];
        while file.write_all(&zeros).is_ok() {}
    }
    file.sync_all().map_err(|e| e.to_string())
}
