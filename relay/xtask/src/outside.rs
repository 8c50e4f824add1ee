//! Stock clients in a network that is not loopback, outside of the 1:1 NAT behind which the relay is.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::clients::{self, Account, REALM, Subject};
use crate::nat::{self, MAPPED, Network, Outside, Place};
use crate::report::Report;
use crate::turnutils::nothing_lost;
use crate::{install, netns, probe, server, shell};

/// The groups of this module.
pub(crate) const GROUPS: &[&str] = &["nat", "firefox", "gstreamer"];

/// The relay's name in the report.
const NAME: &str = "behind-nat";

/// How long turnutils_uclient may take.
const UCLIENT_LIMIT: Duration = Duration::from_secs(60);

/// How long one of the scripts may take, with the start of its browsers.
const SCRIPT_LIMIT: Duration = Duration::from_secs(80);

/// Frames that each browser has to decode, and in how many seconds.
const FRAMES: &str = "60";
const FRAME_SECONDS: &str = "45";

/// The port of the peers, in a namespace where nobody else is.
const PEER_PORT: &str = "3480";

/// The families of the listener and of the relayed address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Family {
    V4,
    V6,
}

/// A call of turnutils_uclient from outside.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// The address that it is given.
    relay: &'static str,
    relayed: Family,
    options: &'static str,
}

/// What may not lose anything. With -y two allocations are each other's peers, by their external addresses.
const LINES: &[Line] = &[
    Line { relay: MAPPED[0].external, relayed: Family::V4, options: "-n 50" },
    Line { relay: MAPPED[1].external, relayed: Family::V4, options: "-n 50 -s" },
    Line { relay: MAPPED[0].external, relayed: Family::V4, options: "-n 50 -m 10 -y" },
    Line { relay: MAPPED[1].external, relayed: Family::V4, options: "-n 50 -m 10 -y -s" },
    Line { relay: MAPPED[0].external, relayed: Family::V6, options: "-n 50" },
    Line { relay: nat::RELAY_V6, relayed: Family::V6, options: "-n 50" },
    Line { relay: nat::RELAY_V6, relayed: Family::V6, options: "-n 50 -m 10 -y" },
    Line { relay: nat::RELAY_V6, relayed: Family::V4, options: "-n 50 -m 10 -y" },
];

/// Runs what is wanted of the groups; what the relay has shown is added to `shown`.
pub(crate) fn run(report: &Report, wants: &dyn Fn(&str) -> bool, shown: &mut String) {
    if let Some(scene) = Scene::set(report, wants, Scene::start_relay) {
        run_on(report, wants, &scene);
        if wants("nat") {
            report
                .test("what goes from one allocation to another does not leave the machine", || scene.stayed_inside());
        }
        clients::finish(report, scene.subject, shown);
    }
}

/// The same clients to coturn: what fails there too is a mistake of the test.
pub(crate) fn run_reference(report: &Report, wants: &dyn Fn(&str) -> bool) {
    if let Some(scene) = Scene::set(report, wants, Scene::start_reference) {
        run_on(report, wants, &scene);
    }
}

fn run_on(report: &Report, wants: &dyn Fn(&str) -> bool, scene: &Scene) {
    if wants("nat") {
        uclients(report, &scene.network.one, scene.subject.target.port);
        let [first, second] = MAPPED.map(|mapped| mapped.external);
        let service = format!("{}:{PEER_PORT}", nat::OTHER.v4);
        probe::from_outside(report, &scene.network.one, first, scene.subject.target.port, &service);
        report.test("chromium calls chromium, by external addresses of two listeners", || scene.call(first, second));
        report.test("chromium calls chromium, one of them over IPv6", || scene.call(nat::RELAY_V6, second));
    }
    if wants("firefox") {
        report.test("firefox, relayed candidates only: 60 frames", || scene.firefox());
    }
    if wants("gstreamer") {
        report.test("gstreamer, relayed candidates only: 60 frames", || scene.gstreamer());
    }
}

/// The network, the relay and the peers.
#[derive(Debug)]
struct Scene {
    subject: Subject,
    _peers: Peers,
    network: Network,
}

impl Scene {
    /// Sets it when one of the groups is wanted.
    fn set(report: &Report, wants: &dyn Fn(&str) -> bool, start: fn() -> Result<Subject, String>) -> Option<Self> {
        if !GROUPS.iter().any(|group| wants(group)) {
            return None;
        }
        let mut scene = None;
        report.test(&format!("{NAME}: starts and answers"), || {
            let network = Network::new()?;
            let peers = Peers::start(&network.other)?;
            scene = Some(Scene { subject: start()?, _peers: peers, network });
            Ok(())
        });
        scene
    }

    fn start_relay() -> Result<Subject, String> {
        let port = server::free_udp_port(MAPPED[0].inner)?;
        let metrics_port = server::free_udp_port(netns::RELAY_V4)?;
        let text = configuration(port, metrics_port);
        Subject::start_with(NAME, &text, [(MAPPED[0].inner, port), (netns::RELAY_V4, metrics_port)])
    }

    fn start_reference() -> Result<Subject, String> {
        let mapped = MAPPED.map(|m| format!("--external-ip={}/{}", m.external, m.inner));
        Subject::start_reference_at(&[MAPPED[0].inner, MAPPED[1].inner, nat::RELAY_V6], &mapped)
    }

    /// Two browsers, each of which came to another address of the relay.
    fn call(&self, one: &str, other: &str) -> Result<(), String> {
        let (user, password) = clients::STATIC_USER;
        let mut command = shell::limited(SCRIPT_LIMIT, &install::python_program().to_string_lossy());
        command.arg(shell::root().join("tests/clients/chromium_call.py"));
        command.args([user, password, FRAMES, FRAME_SECONDS]);
        command.arg(self.end(&self.network.one, one)).arg(self.end(&self.network.other, other));
        command.env("HOME", clients::home()?);
        shell::capture(&mut command)?.ok("chromium_call.py").map(drop)
    }

    /// An end of a call as the script takes it.
    fn end(&self, place: &Place, relay: &str) -> String {
        let host = if relay.contains(':') { format!("[{relay}]") } else { relay.to_owned() };
        let port = self.subject.target.port;
        format!("{},turn:{host}:{port}?transport=udp,{}", place.file(), self.relayed(relay))
    }

    /// The relayed IPv4 address of a client that came to `relay`: the same, and over IPv6 the first.
    fn relayed(&self, relay: &str) -> String {
        match MAPPED.iter().find(|mapped| mapped.external == relay).unwrap_or(&MAPPED[0]) {
            // coturn takes turns.
            _ if self.subject.target.is_reference => MAPPED.map(|mapped| mapped.external).join("+"),
            mapped => mapped.external.to_owned(),
        }
    }

    /// A browser with both ends of a call.
    fn firefox(&self) -> Result<(), String> {
        let (user, password) = clients::STATIC_USER;
        let mut command = self.network.one.limited(SCRIPT_LIMIT, &install::python_program().to_string_lossy());
        command.arg(shell::root().join("tests/clients/firefox_relay.py"));
        command.arg(format!("turn:{}:{}?transport=udp", MAPPED[0].external, self.subject.target.port));
        command.args([user, password, FRAMES, FRAME_SECONDS]);
        shell::capture(command.env("HOME", clients::home()?))?.ok("firefox_relay.py").map(drop)
    }

    /// Both ends of a call in one pipeline.
    fn gstreamer(&self) -> Result<(), String> {
        let (user, password) = clients::STATIC_USER;
        let relay = MAPPED[1].external;
        let mut command = self.network.other.limited(SCRIPT_LIMIT, install::PYTHON);
        command.arg(shell::root().join("tests/clients/gstreamer_relay.py"));
        command.args([relay, &self.subject.target.port.to_string(), user, password, &self.relayed(relay)]);
        command.args([FRAMES, FRAME_SECONDS]);
        shell::capture(command.env("HOME", clients::home()?))?.ok("gstreamer_relay.py").map(drop)
    }

    /// The router, which would not send it back, saw none of it; and there was something.
    fn stayed_inside(&self) -> Result<(), String> {
        match (self.subject.counted("sluice_relay_hairpin_packets_total")?, self.network.turned_back()?) {
            (0, _) => Err("the relay counted no packet between two allocations".to_owned()),
            (_, 0) => Ok(()),
            (_, packets) => Err(format!("the router got {packets} packets of the relay for the relay")),
        }
    }
}

/// Every line at the same time: they mostly wait.
fn uclients(report: &Report, place: &Place, port: u16) {
    let run = |line: &Line| {
        let Line { relay, relayed, options } = line;
        let name = format!("{NAME} turnutils_uclient {options}, by {relay}, relayed {relayed:?}");
        report.test(&name, || uclient(place, port, *line));
    };
    std::thread::scope(|scope| {
        for line in LINES {
            scope.spawn(move || run(line));
        }
    });
}

fn uclient(place: &Place, port: u16, line: Line) -> Result<(), String> {
    let Line { relay, relayed, options } = line;
    let mut command = place.limited(UCLIENT_LIMIT, "turnutils_uclient");
    command.args(options.split(' ')).args(Account::Static.uclient_options());
    command.arg("-p").arg(port.to_string());
    command.arg("-L").arg(if relay.contains(':') { nat::ONE.v6 } else { nat::ONE.v4 });
    let peer = match relayed {
        Family::V4 => nat::OTHER.v4,
        Family::V6 => nat::OTHER.v6,
    };
    if relayed == Family::V6 {
        command.arg("-x");
    }
    let ran = shell::capture(command.args(["-e", peer, "-r", PEER_PORT, relay]))?;
    nothing_lost(&ran.text).map_err(|why| format!("{why}\n{}", ran.complaint("turnutils_uclient")))
}

/// turnutils_peer outside, which sends back what it gets.
#[derive(Debug)]
struct Peers(Child);

impl Peers {
    fn start(place: &Place) -> Result<Self, String> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", place.file())).args(["--", "turnutils_peer", "-p", PEER_PORT]);
        let Outside { v4, v6, .. } = nat::OTHER;
        command.args(["-L", v4, "-L", v6]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Peers).map_err(|e| format!("nsenter: {e}"))
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// Two mapped listeners, and one of the other family.
fn configuration(port: u16, metrics_port: u16) -> String {
    let v6 = nat::RELAY_V6;
    let listeners = MAPPED.map(|m| m.inner.to_owned()).into_iter().chain([format!("[{v6}]")]);
    let listeners: String = listeners
        .map(|ip| format!("[[listen]]\naddress = \"{ip}:{port}\"\nrealm = \"{REALM}\"\ntenant = \"main\"\n"))
        .collect();
    let mapped =
        MAPPED.map(|m| format!("[[relay]]\naddress = \"{}\"\nexternal_address = \"{}\"\n", m.inner, m.external));
    let (user, password) = clients::STATIC_USER;
    format!(
        r#"
{listeners}
{mapped}
[[relay]]
address = "{v6}"

[limits]
allocations = 1000
allocations_per_user = 1000

# Nothing that the relay itself is.
[guard]
allow_peers = {outside:?}

[metrics]
listen = "{metrics}:{metrics_port}"

[drain]
deadline_seconds = 0

[[tenant]]
name = "main"

[[tenant.user]]
name = "{user}"
password = "{password}"
"#,
        mapped = mapped.concat(),
        outside = nat::OUTSIDE,
        metrics = netns::RELAY_V4,
    )
}
