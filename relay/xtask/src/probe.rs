//! `sluice probe` against our relay and against coturn: what it says of a relay that serves, and of each that does
//! not. Its client is the `turn` crate's, so these are also tests of the relay with that client.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::clients::{self, Account, STATIC_USER, Target};
use crate::nat::{MAPPED, Place};
use crate::report::Report;
use crate::server::{self, Server};
use crate::{netns, personal, shell};

/// How long one probe may take.
const PROBE_LIMIT: Duration = Duration::from_secs(30);

/// Packets of a probe that is to succeed: a quarter of a second.
const PACKETS: &[&str] = &["-n", "50", "--interval", "5ms"];

/// A user whose quota is one allocation.
const QUOTA_USER: (&str, &str) = ("u", "p");

/// Runs the group on every target.
pub(crate) fn run(report: &Report, targets: &[&Target]) {
    for target in targets {
        let test = |what: &str, run: fn(&Target) -> Result<(), String>| {
            report.test(&format!("probe, {}: {what}", target.name), || run(target));
        };
        test("between two allocations, as JSON", two_allocations);
        test("an echo service, in words", echo_service);
        test("packets of full size", full_size);
        test("a wrong password is a 401", wrong_password);
        test("a peer that keeps silent", silent_peer);
        test("a peer that loses, doubles and damages", bad_peer);
        if !target.is_reference {
            test("a v6 listener", v6_listener);
            test("a shared secret from a file", shared_secret);
            test("a forbidden peer is a 403", forbidden_peer);
        }
    }
}

/// Runs what needs no target.
pub(crate) fn run_alone(report: &Report) {
    report.test("probe: a port without a listener", dead_port);
    report.test("probe: a port that keeps silent", silent_port);
    report.test("probe: the turn crate's server, as the benchmark runs it", webrtc_rs);
    report.test("probe: a quota of one allocation is a 486", quota);
}

/// Runs a probe from outside of a network that the relay is in, against one of its external addresses.
pub(crate) fn from_outside(report: &Report, place: &Place, external: &str, port: u16, service: &str) {
    let run = |more: &[&str]| {
        let mut command = place.limited(PROBE_LIMIT, &clients::relay_program().to_string_lossy());
        command.args(["probe", &format!("turn:{external}:{port}"), "--json"]).args(PACKETS).args(more);
        command.args(Account::Static.uclient_options());
        let value = Said::by(command)?.serves()?;
        let relayed = value["relayed"].as_array().cloned().unwrap_or_default();
        let externals = MAPPED.map(|mapped| format!("{}:", mapped.external));
        let is_external =
            |address: &Value| externals.iter().any(|e| address.as_str().is_some_and(|a| a.starts_with(e)));
        let is_seen = !relayed.is_empty() && relayed.iter().all(is_external) && value["notes"] == Value::Array(vec![]);
        if is_seen { Ok(()) } else { Err(format!("relayed at {relayed:?}, notes {}", value["notes"])) }
    };
    report.test("probe from outside: between two allocations", || run(&[]));
    report.test("probe from outside: an echo service", || run(&["--peer", service]));
    report.test("probe from outside: a socket of its own", || run(&["--peer", "socket"]));
}

/// What a probe said.
struct Said {
    code: Option<i32>,
    text: String,
}

impl Said {
    /// Runs a probe. Nothing that it says tells of people, whatever happens.
    fn by(mut command: Command) -> Result<Self, String> {
        let ran = shell::capture(&mut command)?;
        personal::none_in(&ran.text)?;
        Ok(Said { code: ran.code, text: ran.text })
    }

    /// It serves, by every sign of it.
    fn serves(&self) -> Result<Value, String> {
        let value = self.value()?;
        let count = |name: &str| value["echo"][name].as_u64();
        let rtt = |name: &str| value["echo"]["rtt_us"][name].as_u64();
        let all_back = count("sent") == Some(50) && count("returned") == Some(50) && count("lost") == Some(0);
        let sane = rtt("p50") >= rtt("min") && rtt("p99") >= rtt("p50") && rtt("max") >= rtt("p99");
        let good = self.code == Some(0) && value["serves"] == true && value["failure"].is_null() && all_back && sane;
        if good { Ok(value) } else { Err(self.complaint("a relay that serves")) }
    }

    /// It does not serve, for this reason: the step, the code, a part of the words.
    fn fails(&self, step: &str, code: Option<u64>, words: &str) -> Result<(), String> {
        let value = self.value()?;
        let failure = &value["failure"];
        let reason = failure["step"] == step && failure["code"].as_u64() == code;
        let good = self.code == Some(1) && value["serves"] == false && reason && self.told_twice(words);
        if good { Ok(()) } else { Err(self.complaint(&format!("{step}, {code:?} and `{words}`"))) }
    }

    /// In the object for programs, and in the line for people.
    fn told_twice(&self, words: &str) -> bool {
        self.text.matches(words).count() == 2 && self.text.contains("does not serve: ")
    }

    /// The object. A line for people follows it when the relay does not serve.
    fn value(&self) -> Result<Value, String> {
        let mut values = serde_json::Deserializer::from_str(&self.text).into_iter::<Value>();
        values.next().and_then(Result::ok).ok_or_else(|| self.complaint("a JSON object"))
    }

    fn complaint(&self, expected: &str) -> String {
        format!("expected {expected}; exit code {:?}:\n{}", self.code, shell::tail(&self.text, 40))
    }
}

/// A probe of a URI.
fn probe(uri: &str) -> Command {
    let mut command = shell::limited(PROBE_LIMIT, &clients::relay_program().to_string_lossy());
    command.args(["probe", uri]).env_remove("SLUICE_PROBE_PASSWORD");
    command
}

fn uri(target: &Target) -> String {
    format!("turn:{}:{}?transport=udp", netns::RELAY_V4, target.port)
}

/// The static user, whose name and password come by the command line.
fn as_user(uri: &str) -> Command {
    let mut command = probe(uri);
    command.args(Account::Static.uclient_options());
    command
}

fn two_allocations(target: &Target) -> Result<(), String> {
    let mut command = as_user(&uri(target));
    command.args(PACKETS).arg("--json");
    let value = Said::by(command)?.serves()?;
    let relayed = value["relayed"].as_array().map_or(0, Vec::len);
    let arrived = value["echo"]["arrived"].as_u64();
    if relayed == 2 && arrived == Some(50) { Ok(()) } else { Err(format!("relayed {relayed}, arrived {arrived:?}")) }
}

/// In words, and with the password in the environment.
fn echo_service(target: &Target) -> Result<(), String> {
    let (user, password) = STATIC_USER;
    let mut command = probe(&uri(target));
    command.args(["-u", user]).env("SLUICE_PROBE_PASSWORD", password).args(PACKETS);
    command.args(["--peer", &format!("{}:{}", netns::PEER_V4, target.peer_port)]);
    let said = Said::by(command)?;
    let good = said.code == Some(0) && said.text.contains("50 of 50 came back, 0.0 % lost");
    if good && said.text.ends_with("It serves.\n") { Ok(()) } else { Err(said.complaint("that it serves")) }
}

fn full_size(target: &Target) -> Result<(), String> {
    let mut command = as_user(&uri(target));
    command.args(PACKETS).args(["--size", "1404", "--json"]);
    Said::by(command)?.serves().map(drop)
}

fn wrong_password(target: &Target) -> Result<(), String> {
    let mut command = probe(&uri(target));
    command.args(Account::WrongPassword.uclient_options()).arg("--json");
    Said::by(command)?.fails("allocate", Some(401), "the name or the password is wrong (401)")
}

fn v6_listener(target: &Target) -> Result<(), String> {
    let mut command = as_user(&format!("turn:[{}]:{}", netns::RELAY_V6, target.port));
    command.args(PACKETS).arg("--json");
    Said::by(command)?.serves().map(drop)
}

fn shared_secret(target: &Target) -> Result<(), String> {
    let [_, secret, _, user] = Account::Rest.uclient_options().try_into().map_err(|_| "no shared secret")?;
    let file = PrivateFile::new("probe-secret", &secret)?;
    let mut command = probe(&uri(target));
    command.args(["-u", &user, "--secret-file"]).arg(&file.path).args(PACKETS).arg("--json");
    Said::by(command)?.serves().map(drop)
}

fn forbidden_peer(target: &Target) -> Result<(), String> {
    let mut command = as_user(&uri(target));
    command.args(["--peer", "10.9.9.9:9", "--json"]);
    Said::by(command)?.fails("permit", Some(403), "it forbids this peer (403)")
}

fn dead_port() -> Result<(), String> {
    let uri = format!("turn:{}:{}", netns::RELAY_V4, server::free_udp_port(netns::RELAY_V4)?);
    let mut command = as_user(&uri);
    command.arg("--json");
    Said::by(command)?.fails("allocate", None, "nobody listens on UDP port")
}

fn silent_port() -> Result<(), String> {
    let socket = UdpSocket::bind((netns::RELAY_V4, 0)).map_err(|e| e.to_string())?;
    let port = socket.local_addr().map_err(|e| e.to_string())?.port();
    let mut command = as_user(&format!("turn:{}:{port}", netns::RELAY_V4));
    command.args(["--timeout", "500ms", "--json"]);
    Said::by(command)?.fails("allocate", None, "no answer within 0.5 s")
}

fn silent_peer(target: &Target) -> Result<(), String> {
    let socket = UdpSocket::bind((netns::PEER_V4, 0)).map_err(|e| e.to_string())?;
    let peer = socket.local_addr().map_err(|e| e.to_string())?;
    let mut command = as_user(&uri(target));
    command.args(PACKETS).args(["--timeout", "500ms", "--json", "--peer", &peer.to_string()]);
    Said::by(command)?.fails("echo", None, "of 50 packets 0 came back")
}

/// The server that is only measured otherwise.
fn webrtc_rs() -> Result<(), String> {
    let at = clients::address(netns::RELAY_V4, server::free_udp_port(netns::RELAY_V4)?)?;
    let (user, password) = STATIC_USER;
    let mut command = Command::new(shell::target().join("release/sluice-bench-webrtc-rs"));
    command.args([&at.to_string(), user, password, clients::REALM]);
    let _server = Server::start(&mut command, &netns::folder()?.join("webrtc-rs.log"), at)?;
    let mut command = as_user(&format!("turn:{at}"));
    command.args(PACKETS).arg("--json");
    Said::by(command)?.serves().map(drop)
}

/// Of five packets one is lost, one comes twice, and one a second time with another last byte.
fn bad_peer(target: &Target) -> Result<(), String> {
    let socket = UdpSocket::bind((netns::PEER_V4, 0)).map_err(|e| e.to_string())?;
    let peer = socket.local_addr().map_err(|e| e.to_string())?.to_string();
    // It ends with this program, and nobody else sends to its port.
    std::thread::spawn(move || send_back_badly(&socket));
    let run = |loss_max: &str| {
        let mut command = as_user(&uri(target));
        command.args(PACKETS).args(["--timeout", "500ms", "--json", "--peer", &peer, "--loss-max", loss_max]);
        Said::by(command)
    };
    run("19.9")?.fails("echo", None, "of 50 packets 40 came back")?;
    let said = run("20")?;
    let echo = said.value()?["echo"].clone();
    let counted = ["sent", "returned", "lost", "duplicates", "damaged"].map(|name| echo[name].as_u64().unwrap_or(0));
    let good = said.code == Some(0) && counted == [50, 40, 10, 10, 10] && echo["loss_percent"] == 20.0;
    if good { Ok(()) } else { Err(said.complaint("50 sent, 40 returned, 10 lost, doubled and damaged")) }
}

fn send_back_badly(socket: &UdpSocket) {
    let mut packet = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut packet) {
        // Its number stands in bytes 8 to 15, and is below 256.
        let number = packet[15] % 5;
        let once = |packet: &[u8]| socket.send_to(&packet[..length], from).is_ok();
        let is_sent = match number {
            0 => true,
            1 => once(&packet) && once(&packet),
            2 => {
                let mut damaged = packet;
                damaged[length - 1] ^= 1;
                once(&damaged) && once(&packet)
            }
            _ => once(&packet),
        };
        if !is_sent {
            return;
        }
    }
}

/// A relay that gives each user one allocation only.
fn quota() -> Result<(), String> {
    let port = server::free_udp_port(netns::RELAY_V4)?;
    let (ip, (user, password)) = (netns::RELAY_V4, QUOTA_USER);
    let config = PrivateFile::new(
        "probe-quota.toml",
        &format!(
            "[[listen]]\naddress = \"{ip}:{port}\"\nrealm = \"{}\"\n\
             [limits]\nallocations = 100\nallocations_per_user = 1\n\
             [metrics]\nlisten = \"\"\n[drain]\ndeadline_seconds = 0\n\
             [[tenant]]\nname = \"default\"\n[[tenant.user]]\nname = \"{user}\"\npassword = \"{password}\"\n",
            clients::REALM
        ),
    )?;
    let mut command = Command::new(clients::relay_program());
    command.arg("--config").arg(&config.path);
    let at = clients::address(ip, port)?;
    let server = Server::start(&mut command, &netns::folder()?.join("probe-quota.log"), at)?;
    let mut command = probe(&format!("turn:{at}"));
    command.args(["-u", user, "-w", password, "--json"]);
    Said::by(command)?.fails("allocate", Some(486), "does not allow the probe's second allocation (486)")?;
    server.stop()
}

/// A file that only this user may read, as secrets have to be.
struct PrivateFile {
    path: PathBuf,
}

impl PrivateFile {
    fn new(name: &str, text: &str) -> Result<Self, String> {
        let path = netns::folder()?.join(name);
        let write = |path: &Path| -> std::io::Result<()> {
            std::fs::write(path, text)?;
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        };
        write(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(PrivateFile { path })
    }
}

impl Drop for PrivateFile {
    fn drop(&mut self) {
        // A left-over file of a test is overwritten by the next.
        let _ = std::fs::remove_file(&self.path);
    }
}
