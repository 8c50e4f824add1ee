//! The life of a process under real clients: reload, drain and end, what an administrator sees, what systemd hears.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::report::Report;
use crate::server::{self, Server};
use crate::{as_unit, clients, netns, personal, shell};

/// How long anything here may take that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks at what has no event to wait for.
const LOOK: Duration = Duration::from_millis(50);

/// Flows of the load, each an allocation; packets per second of all.
pub(crate) const FLOWS: u64 = 40;
const RATE: &str = "4000";

/// How often the test of reloads has the relay read its configuration: good, back, twice refused, unchanged.
const RELOADS: usize = 10 + 1 + 2 + 1;

/// Reloads that a manager does not hear: more than the kernel and the relay keep for it.
const DEAF_RELOADS: u32 = 60;

/// The relay's watchdog: it hears four times as often.
const WATCHDOG_USEC: &str = "2000000";

/// All of it; inside of the namespace.
pub(crate) fn run(report: &Report, shown: &mut String) {
    let mut stage = None;
    report.test("life: starts, and systemd hears READY=1 when it serves", || {
        stage = Some(Stage::set()?);
        Ok(())
    });
    let Some(mut stage) = stage else { return };
    report.test("life: the health check asks socket and listeners", || healthcheck(&stage));
    report.test("life: reloads under load lose no packet, and are all or nothing", || reloads(&stage));
    report.test("life: a list shows pseudonyms and no address", || listing(&stage));
    report.test("life: a drain under load loses no packet and sends new clients elsewhere", || drain(&mut stage));
    report.test("life: what systemd hears, in order", || heard(&stage));
    report.test("life: a drain goes on after the first SIGTERM, and ends at once with the second", second_signal);
    report.test("life: as the unit runs it, by the socket in its runtime directory", as_the_unit);
    for log in ["life-unit.log", "life.log", "life-other.log", "life-second.log"] {
        let file = netns::folder().map(|folder| folder.join(log));
        shown.push_str(&file.and_then(|f| std::fs::read_to_string(f).map_err(|e| e.to_string())).unwrap_or_default());
    }
}

/// A relay with its manager and its administrator, and another one that new clients are sent to.
#[derive(Debug)]
struct Stage {
    folder: Folder,
    server: Option<Server>,
    /// Ended with the rest.
    _other: Server,
    /// What the manager hears.
    heard: Receiver<String>,
    port: u16,
    other_port: u16,
    metrics: SocketAddr,
}

/// A folder with a short path, for sockets; removed with it.
#[derive(Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    /// Makes one.
    pub(crate) fn new(name: &str) -> Result<Self, String> {
        let folder = std::env::temp_dir().join(format!("sluice-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).map_err(|e| e.to_string())?;
        Ok(Folder(folder))
    }

    /// Its relay's configuration.
    pub(crate) fn config(&self) -> PathBuf {
        self.0.join("relay.toml")
    }

    /// Its relay's control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// A folder for keys.
    pub(crate) fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// Writes its relay's configuration.
    pub(crate) fn write(&self, text: &str) -> Result<(), String> {
        std::fs::write(self.config(), text).map_err(|e| e.to_string())?;
        std::fs::set_permissions(self.config(), std::fs::Permissions::from_mode(0o600)).map_err(|e| e.to_string())
    }

    /// A subcommand that asks the relay of this folder.
    pub(crate) fn ask(&self, words: &[&str]) -> Result<shell::Ran, String> {
        let mut command = shell::limited(PATIENCE, &clients::relay_program().to_string_lossy());
        shell::capture(command.args(words).arg("--socket").arg(self.socket()))
    }

    /// The same, as JSON.
    pub(crate) fn json(&self, words: &[&str]) -> Result<Value, String> {
        let ran = self.ask(&[words, &["--json"]].concat())?.ok(&words.join(" "))?;
        serde_json::from_str(&ran).map_err(|e| format!("{}: {e} in {ran}", words.join(" ")))
    }

    /// Starts its relay.
    pub(crate) fn start(&self, log: &str, port: u16, manager: Option<&Path>) -> Result<Server, String> {
        let mut command = Command::new(clients::relay_program());
        command.arg("--config").arg(self.config()).args(["--log-level", "trace"]);
        if let Some(manager) = manager {
            command.env("NOTIFY_SOCKET", manager).env("WATCHDOG_USEC", WATCHDOG_USEC);
        }
        Server::start(&mut command, &netns::folder()?.join(log), clients::address(netns::RELAY_V4, port)?)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Stage {
    fn set() -> Result<Self, String> {
        let [port, other_port, metrics_port] = [(); 3].map(|()| server::free_udp_port(netns::RELAY_V4));
        let (port, other_port) = (port?, other_port?);
        let metrics = clients::address(netns::RELAY_V4, metrics_port?)?;
        let away = Folder::new("life-other")?;
        away.write(&configuration(&away, other_port, "listen = \"\"", "min = 50000\nmax = 51999", ""))?;
        let other = away.start("life-other.log", other_port, None)?;
        let folder = Folder::new("life")?;
        let path = folder.0.join("notify.sock");
        let manager = UnixDatagram::bind(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let heard = listen(manager);
        let mut stage = Stage { folder, server: None, _other: other, heard, port, other_port, metrics };
        stage.folder.write(&stage.configuration(""))?;
        stage.server = Some(stage.folder.start("life.log", port, Some(&path))?);
        let first = stage.heard.recv_timeout(PATIENCE).map_err(|e| format!("nothing is told: {e}"))?;
        match first.contains("READY=1\n") && first.contains("STATUS=serving 0 allocations") {
            true => Ok(stage),
            false => Err(format!("the first that it tells is {first:?}")),
        }
    }

    /// Its configuration with further lines, which may be sections.
    fn configuration(&self, lines: &str) -> String {
        let metrics = format!("listen = \"{}\"", self.metrics);
        let drain = format!(
            "[drain]\ndeadline_seconds = 60\nalternates = [\"{}:{}\"]\n{lines}",
            netns::RELAY_V4,
            self.other_port
        );
        configuration(&self.folder, self.port, &metrics, "min = 52000\nmax = 59999", &drain)
    }

    /// What it has told its manager and was not heard yet.
    fn hear(&self) -> Vec<String> {
        self.heard.try_iter().collect()
    }

    /// Starts a load, and waits until all of its allocations are there.
    fn load(&self, seconds: &str) -> Result<Load, String> {
        Load::upon(&self.folder, self.port, seconds)
    }
}

/// Hears all that comes until nobody is interested.
fn listen(manager: UnixDatagram) -> Receiver<String> {
    let (tell, heard) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = manager.recv(&mut buffer) {
            if tell.send(String::from_utf8_lossy(&buffer[..length]).into_owned()).is_err() {
                return;
            }
        }
    });
    heard
}

/// A load that counts what it loses.
#[derive(Debug)]
pub(crate) struct Load(Child);

impl Load {
    /// Starts one upon the relay of a folder, and waits until all of its allocations are there.
    pub(crate) fn upon(folder: &Folder, port: u16, seconds: &str) -> Result<Self, String> {
        let load = Load::start(port, seconds)?;
        wait_for("the load's allocations", || {
            let status = folder.json(&["status"])?;
            Ok((status["allocations"].as_u64() == Some(FLOWS)).then_some(()))
        })?;
        Ok(load)
    }

    /// Starts it, for so many seconds.
    pub(crate) fn start(port: u16, seconds: &str) -> Result<Self, String> {
        let mut command = Command::new(shell::target().join("release/sluice-loadgen"));
        let (user, password) = clients::STATIC_USER;
        command.args(["--json", "--server", &format!("{}:{port}", netns::RELAY_V4), "--user", user]);
        command.args(["--password", password, "--direction", "both", "--rate", RATE, "--seconds", seconds]);
        command.args(["--allocations", &FLOWS.to_string()]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
        child.map(Load).map_err(|e| format!("sluice-loadgen: {e}"))
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&mut self) -> Result<bool, String> {
        self.0.try_wait().map(|ended| ended.is_some()).map_err(|e| e.to_string())
    }

    /// Its end: nothing was lost, and nothing came to a wrong place.
    pub(crate) fn lost_nothing(self) -> Result<(), String> {
        let output = self.0.wait_with_output().map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let report: Value = serde_json::from_str(&text).map_err(|e| format!("the load says {text:?}: {e}"))?;
        let of = |key: &str| report[key].as_u64().unwrap_or(u64::MAX);
        println!("      {} of {} packets delivered", of("delivered"), of("sent"));
        if of("sent") > 0 && (of("lost"), of("misrouted")) == (0, 0) { Ok(()) } else { Err(text) }
    }
}

fn healthcheck(stage: &Stage) -> Result<(), String> {
    let health = stage.folder.json(&["healthcheck"])?;
    let listeners = health["listeners"].as_array().ok_or("no listeners")?;
    if health["healthy"] != true || listeners.len() != 2 || listeners.iter().any(|l| l["round_trip_us"].is_null()) {
        return Err(health.to_string());
    }
    let nowhere = Folder::new("life-nowhere")?;
    let ran = nowhere.ask(&["healthcheck"])?;
    if ran.code == Some(1) { Ok(()) } else { Err(ran.complaint("healthcheck of no relay")) }
}

/// Good ones, wrong ones and such as take a restart, while packets flow.
fn reloads(stage: &Stage) -> Result<(), String> {
    let load = stage.load("6")?;
    for i in 0..10 {
        let tenant = format!("[[tenant]]\nname = \"t{i}\"\n[[tenant.user]]\nname = \"n\"\npassword = \"p{i}\"\n");
        let lines = format!("[turn]\nsoftware = \"v{i}\"\n{tenant}");
        stage.folder.write(&stage.configuration(&lines))?;
        let reload = stage.folder.json(&["reload"])?;
        let keys: BTreeSet<&str> =
            reload["changes"].as_array().into_iter().flatten().filter_map(|c| c["key"].as_str()).collect();
        let tenant = format!("tenant.t{i}");
        if reload["outcome"] != "applied" || !keys.contains("turn.software") || !keys.contains(tenant.as_str()) {
            return Err(reload.to_string());
        }
    }
    stage.folder.write(&stage.configuration(""))?;
    stage.folder.ask(&["reload"])?.ok("reload")?;
    let wrong = stage.configuration("[turn]\nsoftwear = \"x\"\n");
    let line = wrong.lines().position(|line| line.starts_with("softwear")).map_or(0, |at| at + 1);
    refused(stage, &wrong, &[&format!("relay.toml:{line}:1: turn.softwear"), "did you mean `software`?"])?;
    let moved =
        stage.configuration("[turn]\nsoftware = \"y\"\n").replace("realm = \"relay.test\"", "realm = \"x.test\"");
    refused(stage, &moved, &["listen   (takes a restart)", "turn.software"])?;
    // Had any of that been applied, there were something to change back.
    stage.folder.write(&stage.configuration(""))?;
    let reload = stage.folder.json(&["reload"])?;
    if reload["outcome"] != "unchanged" {
        return Err(format!("a part of what was refused is in force: {reload}"));
    }
    let metrics = server::http_get(stage.metrics, "/metrics")?;
    if !metrics.contains("\nsluice_config_last_reload_successful 1\n") {
        return Err("the last reload counts as refused".to_owned());
    }
    load.lost_nothing()
}

/// A configuration that is not taken, and what is said of it.
fn refused(stage: &Stage, text: &str, said: &[&str]) -> Result<(), String> {
    stage.folder.write(text)?;
    let ran = stage.folder.ask(&["reload"])?;
    if ran.code != Some(1) || said.iter().any(|words| !ran.text.contains(words)) {
        return Err(format!("{said:?} were to be said: {}", ran.complaint("reload")));
    }
    let metrics = server::http_get(stage.metrics, "/metrics")?;
    match metrics.contains("\nsluice_config_last_reload_successful 0\n") {
        true => Ok(()),
        false => Err("a refused reload is not counted as one".to_owned()),
    }
}

/// The fields of a row, and nothing else.
const FIELDS: &[&str] = &[
    "age_seconds",
    "allocation",
    "bytes_from_client",
    "bytes_to_client",
    "channels",
    "client",
    "expires_in_seconds",
    "families",
    "packets_from_client",
    "packets_to_client",
    "permissions",
    "tenant",
    "user",
    "worker",
];

fn listing(stage: &Stage) -> Result<(), String> {
    let load = stage.load("2")?;
    let list = stage.folder.json(&["allocations"])?;
    let table = stage.folder.ask(&["allocations"])?.ok("allocations")?;
    load.lost_nothing()?;
    let rows = list["allocations"].as_array().ok_or("no list")?;
    let pseudonym = |row: &Value, key: &str| {
        row[key].as_str().is_some_and(|name| name.len() == 16 && name.chars().all(|c| c.is_ascii_hexdigit()))
    };
    for row in rows {
        let fields: Vec<&str> = row.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
        let named = ["allocation", "user", "client"].iter().all(|key| pseudonym(row, key));
        if fields != FIELDS || !named || row["tenant"] != "main" || row["channels"] != 1 {
            return Err(row.to_string());
        }
    }
    let of = |key: &str| rows.iter().filter_map(|row| row[key].as_str()).collect::<BTreeSet<_>>().len() as u64;
    if (rows.len() as u64, of("allocation"), of("client"), of("user")) != (FLOWS, FLOWS, FLOWS, 1) {
        return Err(format!("{} rows, {} clients, {} users", rows.len(), of("client"), of("user")));
    }
    let shown = format!("{list}\n{table}");
    personal::none_in(&shown)?;
    if shown.contains("127.") { Err(format!("there is an address in it:\n{}", shell::tail(&shown, 5))) } else { Ok(()) }
}

/// SIGTERM while packets flow.
fn drain(stage: &mut Stage) -> Result<(), String> {
    let load = stage.load("8")?;
    let mut server = stage.server.take().ok_or("there is no relay any more")?;
    server.signal("TERM")?;
    wait_for("a drain in the status", || {
        let status = stage.folder.json(&["status"])?;
        Ok((status["draining"]["allocations"].as_u64() == Some(FLOWS)).then_some(()))
    })?;
    let metrics = server::http_get(stage.metrics, "/metrics")?;
    if !metrics.contains("\nsluice_draining 1\n") {
        return Err("sluice_draining is not 1".to_owned());
    }
    // Of the family of the alternate, and of the other.
    let port = stage.port;
    let elsewhere = std::thread::spawn(move || client(netns::RELAY_V6, port));
    let followed = client(netns::RELAY_V4, port)?;
    let turned_away = elsewhere.join().map_err(|_| "the client of IPv6 panicked")??;
    if !followed.text.contains("Total lost packets 0 (0.000000%)") {
        return Err(followed.complaint("the client that was sent to the other relay"));
    }
    if !turned_away.text.contains("error 508 (Insufficient Capacity)") {
        return Err(turned_away.complaint("the client without another relay"));
    }
    load.lost_nothing()?;
    server.ends_well(PATIENCE)?;
    if stage.folder.socket().exists() {
        return Err("the control socket is still there".to_owned());
    }
    Ok(())
}

/// What was told from the start to the end.
fn heard(stage: &Stage) -> Result<(), String> {
    let all = stage.hear();
    let about: Vec<&str> = all
        .iter()
        .flat_map(|message| message.lines())
        .filter(|line| ["READY", "RELOADING", "STOPPING"].iter().any(|word| line.starts_with(word)))
        .collect();
    let (reloads, end) = about.split_at(about.len().saturating_sub(1));
    let in_pairs = reloads.chunks(2).all(|pair| pair == ["RELOADING=1", "READY=1"]);
    if reloads.len() != 2 * RELOADS || !in_pairs || end != ["STOPPING=1"] {
        return Err(format!("{about:?}"));
    }
    let after = all.iter().skip_while(|message| !message.contains("STOPPING=1"));
    let last: String = after.cloned().collect();
    for word in ["EXTEND_TIMEOUT_USEC=", "STATUS=draining: 40 allocations left", "WATCHDOG=1"] {
        if !last.contains(word) {
            return Err(format!("no {word} during the drain: {last}"));
        }
    }
    Ok(())
}

/// A drain that would last an hour, of a relay whose manager has stopped listening.
fn second_signal() -> Result<(), String> {
    let port = server::free_udp_port(netns::RELAY_V4)?;
    let folder = Folder::new("life-second")?;
    let drain = "[drain]\ndeadline_seconds = 3600\n";
    let with = |lines: &str| {
        let lines = format!("{drain}{lines}");
        folder.write(&configuration(&folder, port, "listen = \"\"", "min = 52000\nmax = 59999", &lines))
    };
    with("")?;
    let path = folder.0.join("notify.sock");
    let _deaf = UnixDatagram::bind(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut server = folder.start("life-second.log", port, Some(&path))?;
    for i in 0..DEAF_RELOADS {
        with(&format!("[turn]\nsoftware = \"{i}\"\n"))?;
        folder.ask(&["reload"])?.ok("reload")?;
    }
    let Load(mut load) = Load::start(port, "30")?;
    let draining = (|| {
        wait_for("allocations", || {
            Ok((folder.json(&["status"])?["allocations"].as_u64() == Some(FLOWS)).then_some(()))
        })?;
        folder.ask(&["drain"])?.ok("drain")?;
        server.signal("TERM")?;
        let log = netns::folder()?.join("life-second.log");
        wait_for("the first SIGTERM in the log", || {
            let text = std::fs::read_to_string(&log).map_err(|e| format!("{}: {e}", log.display()))?;
            Ok(text.contains("the drain goes on").then_some(()))
        })?;
        if folder.json(&["status"])?["draining"]["allocations"].as_u64() != Some(FLOWS) {
            return Err("the drain does not go on after the first SIGTERM".to_owned());
        }
        server.signal("TERM")?;
        server.ends_well(Duration::from_secs(5))
    })();
    load.kill().and_then(|()| load.wait()).map_err(|e| e.to_string())?;
    draining
}

/// Socket, questions and a reload under what the unit allows, by the same user as ExecReload=.
fn as_the_unit() -> Result<(), String> {
    let port = server::free_udp_port(netns::RELAY_V4)?;
    let open = as_unit::OpenToAll::new()?;
    let folder = Folder::new("life-unit")?;
    let text = configuration(&folder, port, "listen = \"\"", "min = 52000\nmax = 59999", "");
    folder.write(&text.replace(&folder.socket().display().to_string(), "auto"))?;
    let config = open.copy(&folder.config())?;
    std::fs::set_permissions(&folder.0, std::fs::Permissions::from_mode(0o777)).map_err(|e| e.to_string())?;
    let (own, relay) = (open.copy(&shell::own_program()?)?, open.copy(&clients::relay_program())?);
    let confined = |words: &[&str]| -> Result<Command, String> {
        let words = std::iter::once(relay.clone().into()).chain(words.iter().map(Into::into)).collect::<Vec<_>>();
        let mut command = as_unit::confined(&own, &words)?;
        command.env("RUNTIME_DIRECTORY", &folder.0);
        Ok(command)
    };
    let config = config.to_string_lossy().into_owned();
    let at = clients::address(netns::RELAY_V4, port)?;
    let log = netns::folder()?.join("life-unit.log");
    let server = Server::start(&mut confined(&["--config", &config])?, &log, at)?;
    let mode = std::fs::metadata(folder.socket()).map_err(|e| e.to_string())?.permissions().mode() & 0o7777;
    if mode != 0o660 {
        return Err(format!("the socket's mode is {mode:o}"));
    }
    shell::capture(&mut confined(&["healthcheck"])?)?.ok("healthcheck")?;
    let changed = text.replace(&folder.socket().display().to_string(), "auto") + "[turn]\nsoftware = \"x\"\n";
    std::fs::write(&config, changed).map_err(|e| e.to_string())?;
    let said = shell::capture(&mut confined(&["reload"])?)?.ok("reload")?;
    if !said.contains("turn.software") {
        return Err(said);
    }
    server.stop()
}

/// coturn's client, which follows ALTERNATE-SERVER.
fn client(ip: &str, port: u16) -> Result<shell::Ran, String> {
    let mut command = shell::limited(PATIENCE, "turnutils_uclient");
    let (user, password) = clients::STATIC_USER;
    command.args(["-y", "-n", "20", "-m", "1", "-u", user, "-w", password, "-p", &port.to_string()]);
    if ip.contains(':') {
        command.arg("-x");
    }
    shell::capture(command.arg(ip))
}

/// Looks again and again for what nobody tells.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>, String>) -> Result<T, String> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(found) = look()? {
            return Ok(found);
        }
        std::thread::sleep(LOOK);
    }
    Err(format!("{what}: not within {} s", PATIENCE.as_secs()))
}

/// A relay's configuration, which ends with `lines`.
pub(crate) fn configuration(folder: &Folder, port: u16, metrics: &str, relay_ports: &str, lines: &str) -> String {
    let (user, password) = clients::STATIC_USER;
    format!(
        r#"
[[listen]]
address = "{v4}:{port}"
realm = "{realm}"
tenant = "main"

[[listen]]
address = "[{v6}]:{port}"
realm = "{realm}"
tenant = "main"

[relay_ports]
{relay_ports}

[limits]
allocations = 1000
allocations_per_user = 0

[guard]
allow_peers = ["loopback"]
unauthenticated_burst = 100000

[metrics]
{metrics}

[control]
socket = "{socket}"

[[tenant]]
name = "main"

[[tenant.user]]
name = "{user}"
password = "{password}"

{lines}
"#,
        v4 = netns::RELAY_V4,
        v6 = netns::RELAY_V6,
        realm = clients::REALM,
        socket = folder.socket().display(),
    )
}
