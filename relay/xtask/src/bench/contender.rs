//! A server under comparison: started on its core, ended by its process id.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;

use sluice_geo::Place;
use sluice_geo::write::Writer;

use crate::server::{self, Server};
use crate::shell;

/// The user that every server knows, and its password.
pub(super) const USER: &str = "u";
pub(super) const PASSWORD: &str = "p";

/// Every server's realm.
const REALM: &str = "realm.test";

/// What is bound to the tenant of [`Kind::Policies`], with its settings.
const PLUGINS: [(&str, &str); 4] = [
    (
        "geofence",
        "{ clients = { only = [\"DE\"] }, unknown_clients = \"refuse\", peers = { only = [\"DE\"] }, \
         unknown_peers = \"refuse\", nodes = \"any\", storage = \"any\" }",
    ),
    ("log-minimisation", "{ address_days = 1 }"),
    (
        "recording-consent",
        "{ purposes = { training = { kinds = [\"audio\"], retention_days = 1, announce = \"This call is recorded.\", \
         withdrawn = \"delete-recording\" } } }",
    ),
    ("template", "{ per_user = 1000 }"),
];

/// coturn sets this on its sockets by itself.
const RECEIVE_BUFFER_BYTES: u32 = 2 * 1024 * 1024;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    /// sluice on io_uring.
    #[value(name = "io_uring")]
    IoUring,
    /// sluice on its readiness driver.
    Epoll,
    /// Debian's coturn.
    Coturn,
    /// The turn crate's server, on tokio. Nothing is demanded of us beside it.
    #[value(name = "webrtc-rs")]
    WebrtcRs,
    /// sluice on io_uring with all records on: sessions, keys, spool. Only where it is named.
    Recording,
    /// sluice on io_uring with four plugins bound to its tenant, one of which is asked about every allocation. Only
    /// where it is named.
    Policies,
    /// A second sluice on io_uring: what a run against itself shows, or against another build (--again). Only where
    /// it is named.
    Again,
}

impl Kind {
    /// Those of a run that names none, in the order of the first round.
    pub(super) const DEFAULT: [Self; 4] = [Self::IoUring, Self::Epoll, Self::Coturn, Self::WebrtcRs];

    /// The program's name.
    pub(super) fn server(self) -> &'static str {
        match self {
            Self::IoUring | Self::Epoll | Self::Recording | Self::Policies | Self::Again => "sluice",
            Self::Coturn => "coturn",
            Self::WebrtcRs => "webrtc-rs",
        }
    }

    /// How it reads and sends.
    pub(super) fn driver(self) -> &'static str {
        match self {
            Self::IoUring | Self::Recording | Self::Policies | Self::Again => "io_uring",
            Self::Epoll => "epoll",
            Self::Coturn => "libevent",
            Self::WebrtcRs => "tokio",
        }
    }

    /// Its name in a line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Coturn | Self::WebrtcRs => self.server(),
            Self::IoUring | Self::Epoll => self.driver(),
            Self::Recording => "recording",
            Self::Policies => "policies",
            Self::Again => "again",
        }
    }
}

/// A running server.
#[derive(Debug)]
pub(super) struct Contender {
    /// Which one.
    pub(super) kind: Kind,
    /// Its UDP listener.
    pub(super) address: SocketAddrV4,
    server: Server,
    /// Removed with it.
    _folder: Folder,
}

impl Contender {
    /// Starts a server on one core, with one worker, and waits until it answers.
    pub(super) fn start(kind: Kind, binaries: &Path, core: usize) -> Result<Self, String> {
        let folder = Folder::create(kind)?;
        let ip = Ipv4Addr::LOCALHOST;
        let address = SocketAddrV4::new(ip, server::free_udp_port(&ip.to_string())?);
        // A server must not outlive a benchmark that is ended.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "taskset", "-c"]).arg(core.to_string());
        match kind {
            Kind::Coturn => coturn(&mut command, &folder.0, address)?,
            Kind::WebrtcRs => webrtc_rs(&mut command, binaries, address),
            sluice => self::sluice(&mut command, binaries, &folder.0, sluice, address)?,
        }
        let server = Server::start(&mut command, &folder.0.join("output.log"), SocketAddr::V4(address))
            .map_err(|error| format!("{}: {error}", kind.name()))?;
        Ok(Self { kind, address, server, _folder: folder })
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Lets it run, or stand still: what it has left to do would be done at the expense of the one that is measured.
    pub(super) fn run(&self, runs: bool) -> Result<(), String> {
        let signal = if runs { "CONT" } else { "STOP" };
        self.server.signal(signal).map_err(|error| format!("{}: {error}", self.kind.name()))
    }

    /// Ends it in order.
    pub(super) fn stop(self) -> Result<(), String> {
        match self.kind {
            // What an exit status of theirs after SIGTERM says is nothing to us.
            Kind::Coturn | Kind::WebrtcRs => Ok(()),
            kind => self.server.stop().map_err(|error| format!("{}: {error}", kind.name())),
        }
    }
}

/// As the comparison is fair: no log lines per session, no TLS, one relay thread.
fn coturn(command: &mut Command, folder: &Path, address: SocketAddrV4) -> Result<(), String> {
    if !shell::has_program("turnserver") {
        return Err("turnserver is not installed: apt install coturn, or leave it out with --server io_uring \
                    --server epoll"
            .to_owned());
    }
    let ip = address.ip().to_string();
    command
        .args(["turnserver", "-n", "--no-cli", "--no-tls", "--no-dtls", "--no-stdout-log", "--simple-log"])
        .args(["--lt-cred-mech", "-r", REALM, "--allow-loopback-peers", "-m", "1"])
        .arg("-u")
        .arg(format!("{USER}:{PASSWORD}"))
        .args(["-L", &ip, "-E", &ip, "-p"])
        .arg(address.port().to_string())
        .arg(format!("--log-file={}", folder.join("coturn.log").display()))
        .arg(format!("--pidfile={}", folder.join("coturn.pid").display()));
    Ok(())
}

/// Its sockets get the same receive buffer, by itself.
fn webrtc_rs(command: &mut Command, binaries: &Path, address: SocketAddrV4) {
    command.arg(binaries.join("sluice-bench-webrtc-rs")).args([&address.to_string(), USER, PASSWORD, REALM]);
}

fn sluice(
    command: &mut Command,
    binaries: &Path,
    folder: &Path,
    kind: Kind,
    address: SocketAddrV4,
) -> Result<(), String> {
    let path = folder.join("sluice.toml");
    let mut text = configuration(kind, address, folder);
    if kind == Kind::Policies {
        text += &policies(folder)?;
    }
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    command.arg(binaries.join("sluice")).arg("--config").arg(path);
    Ok(())
}

/// What a benchmark needs and a relay in the open must not have: loopback peers, and any number of strangers.
fn configuration(kind: Kind, address: SocketAddrV4, folder: &Path) -> String {
    let driver = kind.driver();
    // The others take the range from 49152 on, and all have one address: whoever frees ports late would leave none.
    let (min, max) = match kind {
        Kind::Epoll => (32_768, 40_959),
        Kind::Recording => (40_960, 45_055),
        Kind::Again => (45_056, 49_151),
        Kind::Policies => (12_288, 16_383),
        _ => (16_384, 32_767),
    };
    let mut text = String::from("workers = 1\n");
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "\n[[listen]]\naddress = \"{address}\"\nrealm = \"{REALM}\"\n\
         \n[relay_ports]\nmin = {min}\nmax = {max}\n\
         \n[guard]\nallow_peers = [\"loopback\"]\n\
         unauthenticated_per_second = 1000000\nunauthenticated_burst = 1000000\n\
         \n[limits]\nallocations_per_user = 0\n\
         \n[io]\ndriver = \"{driver}\"\nreceive_buffer_bytes = {RECEIVE_BUFFER_BYTES}\n\
         \n[metrics]\nlisten = \"\"\n\
         \n[drain]\ndeadline_seconds = 0\n\
         \n[[tenant]]\nname = \"default\"\n[[tenant.user]]\nname = \"{USER}\"\npassword = \"{PASSWORD}\"\n"
    );
    if kind == Kind::Recording {
        let folder = folder.display();
        let _ = write!(
            text,
            "\n[privacy]\nrecords = true\nstate_directory = \"{folder}/state\"\n\
             keys_directory = \"{folder}/keys\"\nadmission_wait_ms = 350\n\
             \n[[spool.sink]]\nkind = \"file\"\npath = \"{folder}/records.jsonl\"\n"
        );
    }
    text
}

/// A fence around the load generator, a plan of records and consent to recordings, of which there are none, and a
/// count of allocations.
fn policies(folder: &Path) -> Result<String, String> {
    let database = folder.join("places.mmdb");
    let mut writer = Writer::new(std::time::UNIX_EPOCH.elapsed().map_err(|error| error.to_string())?.as_secs());
    let place = Place { country: Some("DE".to_owned()), ..Place::default() };
    writer.insert(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8, &place);
    std::fs::write(&database, writer.bytes()).map_err(|error| format!("{}: {error}", database.display()))?;
    let mut plugins = format!("\n[geo]\ndatabase = \"{}\"\n", database.display());
    let mut bound = String::new();
    for (name, settings) in PLUGINS {
        let file = shell::target().join("plugins").join(format!("{name}.wasm"));
        // Writing to a string cannot fail.
        let _ =
            write!(plugins, "\n[[plugin]]\nname = \"{name}\"\nfile = \"{}\"\nsettings = {settings}\n", file.display());
        let _ = write!(bound, "[[tenant.policy]]\nplugin = \"{name}\"\n");
    }
    // The tenant is the last table of the file so far.
    Ok(bound + &plugins)
}

/// A folder of our own that goes when its server goes.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn create(kind: Kind) -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("sluice-bench-{}-{}", std::process::id(), kind.name()));
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is a few files in a folder for such files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
