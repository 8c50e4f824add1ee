//! Stock clients through the relay, in a network of their own: coturn's, aioice, Chromium.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::report::Report;
use crate::server::{self, Server};
use crate::{
    as_unit, install, kills, life, netns, outside, personal, policies, probe, prometheus, quality, records, sha256,
    shell, turnutils,
};

/// The realm of the listeners.
pub(crate) const REALM: &str = "relay.test";

/// A user with a fixed password, and the password.
pub(crate) const STATIC_USER: (&str, &str) = ("zelda-static", "zeldas-password");
const OTHER_USER: (&str, &str) = ("yorick-static", "yoricks-password");
const REST_USER: &str = "xanthippe-rest";
const TENANT: &str = "clinic";
const SECRET: &str = "the-secret-in-use";
const SECOND_SECRET: &str = "the-secret-to-come";
const TENANT_SECRET: &str = "the-secret-of-the-clinic";

/// Names that must not be shown anywhere.
pub(crate) const PERSONAL_NAMES: &[&str] = &[STATIC_USER.0, OTHER_USER.0, REST_USER];

/// Secrets and passwords that must not be shown anywhere.
pub(crate) const SECRETS: &[&str] = &[STATIC_USER.1, OTHER_USER.1, SECRET, SECOND_SECRET, TENANT_SECRET];

/// How long one of the scripts may take.
const SCRIPT_LIMIT: Duration = Duration::from_secs(90);

/// Datagrams each way between two ICE agents.
const ICE_ROUNDS: &str = "100";

/// Frames that a browser has to decode, and in how many seconds.
const FRAMES: &str = "60";
const FRAME_SECONDS: &str = "45";

/// Life of the credentials that are computed here.
const CREDENTIAL_SECONDS: u64 = 3600;

/// How a client of turnutils signs in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Account {
    /// A static user.
    Static,
    /// The static user with a wrong password.
    WrongPassword,
    /// `expiry:user` under the first shared secret.
    Rest,
    /// `expiry` alone.
    RestNameless,
    /// Under the second shared secret.
    RestSecondSecret,
    /// `expiry:tenant/user` under that tenant's secret.
    RestTenant,
    /// Under a secret that nobody has.
    WrongSecret,
}

impl Account {
    /// For people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Account::Static => "static user",
            Account::WrongPassword => "wrong password",
            Account::Rest => "shared secret",
            Account::RestNameless => "shared secret without a name",
            Account::RestSecondSecret => "second shared secret",
            Account::RestTenant => "a tenant's secret",
            Account::WrongSecret => "wrong secret",
        }
    }

    /// Options of turnutils_uclient.
    pub(crate) fn uclient_options(self) -> Vec<String> {
        let tenant_user = format!("{TENANT}/{REST_USER}");
        let options: &[&str] = match self {
            Account::Static => &["-u", STATIC_USER.0, "-w", STATIC_USER.1],
            Account::WrongPassword => &["-u", STATIC_USER.0, "-w", OTHER_USER.1],
            Account::Rest => &["-W", SECRET, "-u", REST_USER],
            Account::RestNameless => &["-W", SECRET],
            Account::RestSecondSecret => &["-W", SECOND_SECRET, "-u", REST_USER],
            Account::RestTenant => &["-W", TENANT_SECRET, "-u", &tenant_user],
            Account::WrongSecret => &["-W", "nobodys-secret", "-u", REST_USER],
        };
        options.iter().map(|&option| option.to_owned()).collect()
    }
}

/// Where clients are sent.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// What tells it apart, as `io_uring`.
    pub(crate) name: String,
    /// Its port on both listeners.
    pub(crate) port: u16,
    /// The port of the peers.
    pub(crate) peer_port: u16,
    /// Whether it is coturn.
    pub(crate) is_reference: bool,
}

/// A server that clients are sent to.
#[derive(Debug)]
pub(crate) struct Subject {
    /// Where it is.
    pub(crate) target: Target,
    metrics: SocketAddr,
    server: Server,
}

impl Subject {
    /// Starts the relay with lines of its own in section `[io]`.
    fn start(name: &str, io_lines: &str, peer_port: u16) -> Result<Self, String> {
        let port = server::free_udp_port(netns::RELAY_V4)?;
        let metrics_port = server::free_udp_port(netns::RELAY_V4)?;
        let text = configuration(name, port, metrics_port, io_lines);
        let at = [(netns::RELAY_V4, port), (netns::RELAY_V4, metrics_port)];
        let subject = Self::start_with(name, &text, at)?;
        Ok(Subject { target: Target { peer_port, ..subject.target }, ..subject })
    }

    /// Starts the relay with a whole configuration, of which `at` are a listener and that of metrics.
    pub(crate) fn start_with(name: &str, text: &str, at: [(&str, u16); 2]) -> Result<Self, String> {
        let [(ip, port), (metrics_ip, metrics_port)] = at;
        let folder = netns::folder()?;
        let config = folder.join(format!("{name}.toml"));
        std::fs::write(&config, text).map_err(|e| e.to_string())?;
        let open = as_unit::OpenToAll::new()?;
        let mut command = if name == AS_UNIT {
            let words = [open.copy(&relay_program())?.into(), "--config".into(), open.copy(&config)?.into()];
            as_unit::confined(&open.copy(&shell::own_program()?)?, &words)?
        } else {
            let mut command = Command::new(relay_program());
            command.arg("--config").arg(&config);
            command
        };
        command.args(["--log-level", "trace"]);
        let metrics = address(metrics_ip, metrics_port)?;
        let log = folder.join(format!("{name}.log"));
        let server = Server::start(&mut command, &log, address(ip, port)?)?;
        let target = Target { name: name.to_owned(), port, peer_port: 0, is_reference: false };
        Ok(Subject { target, metrics, server })
    }

    /// The sum of a family of metrics.
    pub(crate) fn counted(&self, family: &str) -> Result<u64, String> {
        let text = server::http_get(self.metrics, "/metrics")?;
        let samples = text.lines().filter(|line| line.starts_with(family));
        Ok(samples.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }

    /// Starts coturn in its place: what fails there too is a mistake of the test.
    fn start_reference(peer_port: u16) -> Result<Self, String> {
        let addresses = [netns::RELAY_V4, netns::RELAY_V6];
        let subject = Self::start_reference_at(&addresses, &["--allow-loopback-peers".to_owned()])?;
        Ok(Subject { target: Target { peer_port, ..subject.target }, ..subject })
    }

    /// Starts coturn on these addresses.
    pub(crate) fn start_reference_at(addresses: &[&str], options: &[String]) -> Result<Self, String> {
        let first = addresses.first().ok_or("coturn needs an address")?;
        let port = server::free_udp_port(first)?;
        let mut command = Command::new("turnserver");
        command.args(["-n", "--no-cli", "--no-tls", "--no-dtls", "--lt-cred-mech"]).args(options);
        for ip in addresses {
            command.args(["-L", ip, "-E", ip]);
        }
        for (user, password) in [STATIC_USER, OTHER_USER] {
            command.arg("-u").arg(format!("{user}:{password}"));
        }
        command.args(["-r", REALM, "-p", &port.to_string(), "--log-file", "stdout"]);
        let log = netns::folder()?.join("reference.log");
        let at = address(first, port)?;
        let server = Server::start(&mut command, &log, at)?;
        let target = Target { name: "coturn".to_owned(), port, peer_port: 0, is_reference: true };
        Ok(Subject { target, metrics: at, server })
    }
}

impl Target {
    /// Whether it has such accounts; coturn takes either static users or shared secrets.
    pub(crate) fn knows(&self, account: Account) -> bool {
        !self.is_reference || matches!(account, Account::Static | Account::WrongPassword | Account::WrongSecret)
    }
}

/// The tests of this module, by name.
pub(crate) const GROUPS: &[&str] = &[
    "quickstart",
    "turnutils",
    "probe",
    "sha256",
    "as-unit",
    "io-disable",
    "aioice",
    "refusals",
    "chromium",
    "quality",
    "metrics",
    "prometheus",
    "life",
    "records",
    "policies",
    "kills",
    "nat",
    "firefox",
    "gstreamer",
];

/// The relay as its unit runs it.
const AS_UNIT: &str = "as-unit";

/// What `io.disable` takes, each of which has to be lived without.
const IO_FEATURES: &[&str] = &[
    "op_send_addr",
    "defer_taskrun",
    "direct_descriptors",
    "registered_ring",
    "no_sqarray",
    "no_iowait",
    "udp_gro",
    "udp_segment",
    "connected_sockets",
];

/// Runs the groups; inside of the namespace.
pub(crate) fn run(report: &Report, groups: &[String], reference: bool) -> Result<(), String> {
    if !netns::is_inside() {
        return Err("this runs in a network namespace of its own only: call `cargo xtask test`".to_owned());
    }
    netns::set_up()?;
    let wants = |name: &str| groups.iter().any(|group| group == name);
    let mut peers = Peers::start()?;
    if reference {
        let subject = Subject::start_reference(peers.port)?;
        run_on(report, &subject, &[&subject.target], &wants);
        outside::run_reference(report, &wants);
        return peers.stop();
    }
    if wants("quickstart") {
        report.test("quickstart: what is printed works as it is", || quickstart(&peers));
        report.test("quickstart: no password where nobody looks", unseen_quickstart);
    }
    let main = start(report, "io_uring", "driver = \"io_uring\"", peers.port);
    let both = wants("turnutils") || wants("probe");
    let epoll = if both { start(report, "epoll", "driver = \"epoll\"", peers.port) } else { None };
    let all: Vec<&Target> = main.iter().chain(&epoll).map(|subject| &subject.target).collect();
    if let Some(main) = &main {
        run_on(report, main, &all, &wants);
    }
    if wants("sha256") {
        sha256::run(report, peers.port);
    }
    if wants("probe") {
        probe::run_alone(report);
        probe_reference(report, peers.port);
    }
    let mut shown = String::new();
    for subject in main.into_iter().chain(epoll) {
        finish(report, subject, &mut shown);
    }
    if wants(AS_UNIT)
        && let Some(subject) = start(report, AS_UNIT, "driver = \"io_uring\"", peers.port)
    {
        turnutils::run_all(report, &[&subject.target]);
        finish(report, subject, &mut shown);
    }
    if wants("io-disable") {
        for feature in IO_FEATURES {
            let lines = format!("driver = \"io_uring\"\ndisable = [\"{feature}\"]");
            if let Some(subject) = start(report, &format!("io_uring-without-{feature}"), &lines, peers.port) {
                turnutils::run_short(report, &subject.target);
                finish(report, subject, &mut shown);
            }
        }
    }
    if wants("life") {
        life::run(report, &mut shown);
    }
    if wants("records") {
        records::run(report, &mut shown);
    }
    if wants("policies") {
        policies::run(report, peers.port, &mut shown);
    }
    if wants("kills") {
        kills::run(report, &mut shown);
    }
    outside::run(report, &wants, &mut shown);
    report.test("no address, name or secret of a client in all of the output", || personal::none_in(&shown));
    peers.stop()
}

fn run_on(report: &Report, main: &Subject, all: &[&Target], wants: &dyn Fn(&str) -> bool) {
    if wants("turnutils") {
        turnutils::run_all(report, all);
    }
    if wants("probe") {
        probe::run(report, all);
    }
    if wants("aioice") {
        report.test("aioice, both ends relayed: 200 of 200", || aioice(&main.target));
    }
    if wants("refusals") {
        report.test("refusals have the codes of the RFC", || refusals(&main.target));
    }
    if wants("chromium") {
        report.test("chromium, relayed candidates only: 60 frames", || chromium(&main.target));
    }
    if wants("quality") && !main.target.is_reference {
        report.test("quality: what a browser's media lost on its way to the relay, within 1 %", || quality(main));
    }
    if wants("metrics") && !main.target.is_reference {
        report.test("metrics: promtool has nothing to say, and the packets are counted", || metrics(main));
    }
    if wants("prometheus") && !main.target.is_reference {
        match address(netns::RELAY_V6, main.target.port) {
            Ok(listener) => {
                let watched = prometheus::Watched { listener, metrics: main.metrics, account: STATIC_USER };
                prometheus::run(report, watched);
            }
            Err(why) => drop(report.test("prometheus", || Err(why))),
        }
    }
}

fn start(report: &Report, name: &str, io_lines: &str, peer_port: u16) -> Option<Subject> {
    let mut subject = None;
    report.test(&format!("{name}: starts and answers"), || {
        subject = Some(Subject::start(name, io_lines, peer_port)?);
        Ok(())
    });
    subject
}

/// The probe of a relay that is not ours: it must not be right only about our own.
fn probe_reference(report: &Report, peer_port: u16) {
    let mut reference = None;
    report.test("coturn: starts and answers", || {
        reference = Some(Subject::start_reference(peer_port)?);
        Ok(())
    });
    if let Some(subject) = &reference {
        probe::run(report, &[&subject.target]);
    }
}

/// Stops a server, and keeps all that it has shown.
pub(crate) fn finish(report: &Report, subject: Subject, shown: &mut String) {
    let Subject { target: Target { name, .. }, metrics, server } = subject;
    report.test(&format!("{name}: says what it did, stops in order"), || {
        let metrics = server::http_get(metrics, "/metrics")?;
        shown.push_str(&metrics);
        std::fs::write(netns::folder()?.join(format!("{name}.metrics")), metrics).map_err(|e| e.to_string())?;
        let log = server.output();
        if log.trim().is_empty() {
            return Err("it said nothing at all: there is nothing to look for personal data in".to_owned());
        }
        let stopped = server.stop();
        shown.push_str(&std::fs::read_to_string(netns::folder()?.join(format!("{name}.log"))).unwrap_or(log));
        stopped
    });
}

fn aioice(target: &Target) -> Result<(), String> {
    let (name, password) = rest_credentials();
    let mut command = script("aioice_relay.py");
    command.args([netns::RELAY_V4, &target.port.to_string()]);
    if target.is_reference {
        command.args([STATIC_USER.0, STATIC_USER.1]);
    } else {
        command.args([&name, &password]);
    }
    let text = shell::capture(command.arg(ICE_ROUNDS))?.ok("aioice")?;
    if text.contains("echoed 200 of 200") { Ok(()) } else { Err(shell::tail(&text, 5)) }
}

fn refusals(target: &Target) -> Result<(), String> {
    let mut command = script("refusals.py");
    command.args([netns::RELAY_V4, &target.port.to_string()]);
    command.args([STATIC_USER.0, STATIC_USER.1, OTHER_USER.0, OTHER_USER.1, netns::PEER_V4]);
    shell::capture(&mut command)?.ok("refusals.py").map(drop)
}

fn chromium(target: &Target) -> Result<(), String> {
    let mut command = script("chromium_relay.py");
    command.arg(format!("turn:{}:{}?transport=udp", netns::RELAY_V4, target.port));
    command.args([STATIC_USER.0, STATIC_USER.1, FRAMES, FRAME_SECONDS]);
    shell::capture(command.env("HOME", home()?))?.ok("chromium").map(drop)
}

/// Browsers write settings where they are at home, which is nobody's here.
pub(crate) fn home() -> Result<PathBuf, String> {
    let home = netns::folder()?.join("home");
    std::fs::create_dir_all(&home).map_err(|e| e.to_string())?;
    Ok(home)
}

/// A call of Chromium with itself, whose way to the relay loses packets.
fn quality(subject: &Subject) -> Result<(), String> {
    let home = netns::folder()?.join("home");
    std::fs::create_dir_all(&home).map_err(|e| e.to_string())?;
    quality::compare(address(netns::RELAY_V4, subject.target.port)?, subject.metrics, |way| {
        let mut command = script("chromium_quality.py");
        command.arg(format!("turn:{way}?transport=udp"));
        command.args([STATIC_USER.0, STATIC_USER.1, quality::CALL_SECONDS]);
        let text = shell::capture(command.env("HOME", &home))?.ok("chromium")?;
        let line = text.lines().last().unwrap_or_default();
        serde_json::from_str(line).map_err(|e| format!("{e}: {line}"))
    })
}

fn metrics(subject: &Subject) -> Result<(), String> {
    let text = server::http_get(subject.metrics, "/metrics")?;
    server::http_get(subject.metrics, "/healthz")?;
    let file = netns::folder()?.join("metrics.txt");
    std::fs::write(&file, &text).map_err(|e| e.to_string())?;
    let input = std::fs::File::open(&file).map_err(|e| e.to_string())?;
    let mut command = shell::limited(SCRIPT_LIMIT, "promtool");
    let said = shell::capture_with_input(command.args(["check", "metrics"]), Stdio::from(input))?;
    // Lint is an exit code of 3, and sometimes only words.
    let said = said.ok("promtool check metrics")?;
    if !said.trim().is_empty() {
        return Err(format!("promtool check metrics says:\n{}", shell::tail(&said, 15)));
    }
    for family in ["sluice_turn_allocations", "sluice_relay_packets_total", "sluice_packets_dropped_total"] {
        if !text.lines().any(|line| line.starts_with(family)) {
            return Err(format!("there is no {family}"));
        }
    }
    Ok(())
}

/// A start without any configuration prints a line for turnutils; that line, as it stands, loses nothing.
fn quickstart(peers: &Peers) -> Result<(), String> {
    let log = netns::folder()?.join("quickstart.log");
    let mut command = Command::new(relay_program());
    command.args(["--print-credentials", "--log-level", "trace"]).current_dir(netns::folder()?);
    let server = Server::start(&mut command, &log, address(netns::RELAY_V4, 3478)?)?;
    let said = server.output();
    let line = said
        .lines()
        .find_map(|line| line.find("turnutils_uclient ").map(|start| line[start..].trim()))
        .ok_or_else(|| format!("it prints no turnutils_uclient line:\n{}", shell::tail(&said, 30)))?;
    let mut client = shell::limited(SCRIPT_LIMIT, "sh");
    let ran = shell::capture(client.arg("-c").arg(line))?;
    if !ran.text.contains("Total lost packets 0 (0.000000%)") {
        return Err(ran.complaint(&format!("`{line}`, with peers on port {},", peers.port)));
    }
    let found = server.output();
    let without_own_line: String = found.lines().filter(|l| !l.contains("turnutils_uclient")).collect();
    personal::none_in(&without_own_line)?;
    printed_probe(&said)?;
    server.stop()
}

/// The same of the line for `sluice probe`.
fn printed_probe(said: &str) -> Result<(), String> {
    let line = said.lines().find_map(|line| line.trim().strip_prefix("sluice ").filter(|l| l.starts_with("probe ")));
    let line = line.ok_or_else(|| format!("it prints no line for the probe:\n{}", shell::tail(said, 30)))?;
    let mut command = shell::limited(SCRIPT_LIMIT, &relay_program().to_string_lossy());
    shell::capture(command.args(line.split_whitespace()))?.ok("the probe as printed").map(drop)
}

/// Without a terminal and unasked, a start does not put its password into what may be a journal.
fn unseen_quickstart() -> Result<(), String> {
    let log = netns::folder()?.join("unseen-quickstart.log");
    let mut command = Command::new(relay_program());
    let server = Server::start(command.current_dir(netns::folder()?), &log, address(netns::RELAY_V4, 3478)?)?;
    let said = server.output();
    server.stop()?;
    if !said.contains("--print-credentials") {
        return Err(format!("it does not say how to see them:\n{}", shell::tail(&said, 30)));
    }
    match said.lines().find(|line| line.contains("turnutils_uclient") || line.contains("credential:")) {
        Some(line) => Err(format!("it says `{line}`")),
        None => Ok(()),
    }
}

/// Time-limited credentials, as a web application computes them.
fn rest_credentials() -> (String, String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let name = format!("{}:{REST_USER}", now + CREDENTIAL_SECONDS);
    let password = sluice_crypto::rest_password(SECRET, &name);
    (name, password)
}

/// One of the scripts of tests/clients.
pub(crate) fn script(name: &str) -> Command {
    let mut command = shell::limited(SCRIPT_LIMIT, &install::python_program().to_string_lossy());
    command.arg(shell::root().join("tests/clients").join(name));
    command
}

/// The release binary, which the steps before have built.
pub(crate) fn relay_program() -> PathBuf {
    shell::target().join("release/sluice")
}

/// An address from its parts.
pub(crate) fn address(ip: &str, port: u16) -> Result<SocketAddr, String> {
    let ip: std::net::IpAddr = ip.parse().map_err(|e| format!("{ip}: {e}"))?;
    Ok(SocketAddr::new(ip, port))
}

/// The relay ports of a server, which must not be another's: a port that is reserved for a client's second
/// allocation is nobody else's to take.
fn relay_ports(name: &str) -> &'static str {
    if name == "epoll" { "min = 57344\nmax = 65535" } else { "min = 49152\nmax = 57343" }
}

fn configuration(name: &str, port: u16, metrics_port: u16, io_lines: &str) -> String {
    let (v4, v6) = (netns::RELAY_V4, netns::RELAY_V6);
    let relay_ports = relay_ports(name);
    let ((user, password), (other, other_password)) = (STATIC_USER, OTHER_USER);
    format!(
        r#"
[[listen]]
address = "{v4}:{port}"
realm = "{REALM}"
tenant = "main"

[[listen]]
address = "[{v6}]:{port}"
realm = "{REALM}"
tenant = "main"

[relay_ports]
{relay_ports}

# A hundred clients of one user, from one prefix, in one second.
[limits]
allocations = 4000
allocations_per_user = 4000

[guard]
allow_peers = ["loopback", "fd66:6666::/64"]
unauthenticated_burst = 100000

[io]
{io_lines}

[metrics]
listen = "{v4}:{metrics_port}"

# What a client has left behind does not hold up the end.
[drain]
deadline_seconds = 0

[[tenant]]
name = "main"
secrets = [{{ value = "{SECRET}" }}, {{ value = "{SECOND_SECRET}" }}]

[[tenant.user]]
name = "{user}"
password = "{password}"

[[tenant.user]]
name = "{other}"
password = "{other_password}"

[[tenant]]
name = "{TENANT}"
secrets = [{{ value = "{TENANT_SECRET}" }}]
"#
    )
}

/// turnutils_peer, which sends back what it gets.
#[derive(Debug)]
struct Peers {
    child: Child,
    port: u16,
}

impl Peers {
    fn start() -> Result<Self, String> {
        let port = server::free_udp_port(netns::PEER_V4)?;
        let mut command = Command::new("turnutils_peer");
        command.args(["-L", netns::PEER_V4, "-L", netns::PEER_V6, "-p", &port.to_string()]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Peers { child: child.map_err(|e| format!("turnutils_peer: {e}"))?, port })
    }

    fn stop(&mut self) -> Result<(), String> {
        self.child.kill().and_then(|()| self.child.wait()).map(drop).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_of_the_ring_is_done_without_once() {
        let text = std::fs::read_to_string(shell::root().join("relay/net/src/ring/setup.rs")).unwrap();
        let table = text.split_once("pub const FEATURES").and_then(|(_, rest)| rest.split_once("];")).unwrap().0;
        // A long entry has its parenthesis on the line before.
        let names: Vec<&str> = table
            .lines()
            .filter_map(|line| line.trim().trim_start_matches('(').strip_prefix('"')?.split_once("\",").map(|it| it.0))
            .filter(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
            .collect();
        assert_eq!(names, IO_FEATURES);
    }
}
