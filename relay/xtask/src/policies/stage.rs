//! A relay with two tenants: of the one a fence decides, of the other whatever plugin a test gives it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use sluice_geo::Place;
use sluice_geo::write::Writer;

use crate::life::{Folder, wait_for};
use crate::server::{self, Server};
use crate::{adversary, clients, netns, personal, shell, turnutils};

/// How long one client may take.
const CLIENT_LIMIT: Duration = Duration::from_secs(30);

/// Clients of the test: in Germany, in the United States, and where nobody knows. All others are in Germany.
pub(super) const INSIDE: u16 = 5;
pub(super) const OUTSIDE: u16 = 40;
pub(super) const NOWHERE: u16 = 70;

/// The relay, which keeps records.
pub(super) struct Stage {
    pub(super) folder: Folder,
    server: Server,
    log: String,
    pub(super) port: u16,
    pub(super) other_port: u16,
    peer_port: u16,
    metrics: SocketAddr,
    _keys: Keys,
}

/// What decides for the first tenant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fence<'a> {
    /// The countries of clients, with what is between their quotation marks.
    pub(super) country: &'a str,
    /// The rule for peers, and what follows it.
    pub(super) peers: &'a str,
    /// A plugin beside it that is asked each time.
    pub(super) hours: bool,
    /// The other tenant's own fence, by its settings of the same plugin: a country.
    pub(super) other_country: Option<&'a str>,
    /// It does not hold.
    pub(super) dry_run: bool,
    /// It is of the next version: another component that does the same.
    pub(super) is_next: bool,
}

impl Default for Fence<'_> {
    fn default() -> Self {
        let (peers, other_country) = ("\"any\"", None);
        Fence { country: "DE", peers, hours: false, other_country, dry_run: false, is_next: false }
    }
}

/// The other tenant's plugin: its component and its settings.
pub(super) type Other<'a> = Option<(&'a str, &'a str)>;

impl Stage {
    /// Starts a relay of this name.
    pub(super) fn set(name: &str, peer_port: u16) -> Result<Self, String> {
        let (folder, log) = (Folder::new(name)?, format!("{name}.log"));
        let [port, other_port, metrics_port] = [(); 3].map(|()| server::free_udp_port(netns::RELAY_V4));
        let (port, other_port) = (port?, other_port?);
        let metrics = clients::address(netns::RELAY_V4, metrics_port?)?;
        write_database(&folder, "DE")?;
        next_version(&folder, "geofence")?;
        folder.write(&configuration(&folder, [port, other_port], metrics, &Fence::default(), None))?;
        let server = folder.start(&log, port, None)?;
        // It answers clients a moment before it says so.
        wait_for("who decides, in what the start says", || {
            Ok(server.output().contains("fence 0.1.0 decides geofence for main").then_some(()))
        })
        .map_err(|error| format!("{error}\n{}", shell::tail(&server.output(), 20)))?;
        let _keys = Keys(keys(&folder));
        Ok(Stage { folder, server, log, port, other_port, peer_port, metrics, _keys })
    }

    /// Where its clients are.
    pub(super) fn database(&self) -> PathBuf {
        database(&self.folder)
    }

    /// Has the clients that are [`INSIDE`] be in another country.
    pub(super) fn move_clients(&self, country: &str) -> Result<(), String> {
        write_database(&self.folder, country)
    }

    /// Has other policies come into force.
    pub(super) fn reload(&self, fence: &Fence<'_>, other: Other<'_>) -> Result<(), String> {
        self.write(fence, other)?;
        let reload = self.folder.json(&["reload"])?;
        let is_done = ["applied", "unchanged"].iter().any(|outcome| reload["outcome"] == *outcome);
        if is_done { Ok(()) } else { Err(reload.to_string()) }
    }

    pub(super) fn write(&self, fence: &Fence<'_>, other: Other<'_>) -> Result<(), String> {
        let ports = [self.port, self.other_port];
        self.folder.write(&configuration(&self.folder, ports, self.metrics, fence, other))
    }

    /// What a client of this number is told to do.
    pub(super) fn arguments(&self, command: &mut Command, port: u16, client: u16, packets: &str) {
        let (user, password) = clients::STATIC_USER;
        command.args(["-u", user, "-w", password, "-n", packets, "-c", "-p", &port.to_string()]);
        command.args(["-L", &netns::client_v4(client), "-e", netns::PEER_V4, "-r", &self.peer_port.to_string()]);
        command.arg(netns::RELAY_V4);
    }

    fn client(&self, port: u16, client: u16) -> Result<shell::Ran, String> {
        let mut command = shell::limited(CLIENT_LIMIT, "turnutils_uclient");
        self.arguments(&mut command, port, client, "20");
        shell::capture(&mut command)
    }

    pub(super) fn served(&self, client: u16) -> Result<(), String> {
        self.served_at(self.port, client)
    }

    pub(super) fn served_at(&self, port: u16, client: u16) -> Result<(), String> {
        let ran = self.client(port, client)?;
        turnutils::nothing_lost(&ran.text).map_err(|why| format!("{why}\n{}", ran.complaint("turnutils_uclient")))
    }

    pub(super) fn refused(&self, port: u16, client: u16, code: u16) -> Result<(), String> {
        let ran = self.client(port, client)?;
        match ran.text.contains(&format!("error {code} ")) {
            true => Ok(()),
            false => Err(format!("it was not refused with {code}\n{}", ran.complaint("turnutils_uclient"))),
        }
    }

    /// The sum of the series that begin so.
    pub(super) fn sum(&self, series: &str) -> Result<u64, String> {
        let metrics = server::http_get(self.metrics, "/metrics")?;
        let of = metrics.lines().filter(|line| line.starts_with(series));
        Ok(of.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum())
    }

    /// How many series begin so.
    pub(super) fn series(&self, name: &str) -> Result<usize, String> {
        let metrics = server::http_get(self.metrics, "/metrics")?;
        Ok(metrics.lines().filter(|line| line.starts_with(name)).count())
    }

    pub(super) fn counted(&self, series: &str, least: u64) -> Result<(), String> {
        let count = self.sum(series)?;
        if count >= least { Ok(()) } else { Err(format!("{series} is {count}, and not at least {least}")) }
    }

    /// The relay's memory; the most of it that there was is counted from now on.
    pub(super) fn memory_bytes(&self) -> Result<u64, String> {
        const FORGET_THE_MOST: &str = "5";
        let file = format!("/proc/{}/clear_refs", self.server.pid());
        std::fs::write(&file, FORGET_THE_MOST).map_err(|e| format!("{file}: {e}"))?;
        self.memory("VmRSS:")
    }

    /// The most memory of the relay since that was asked.
    pub(super) fn memory_most_bytes(&self) -> Result<u64, String> {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> Result<u64, String> {
        let status = format!("/proc/{}/status", self.server.pid());
        let status = std::fs::read_to_string(status).map_err(|e| e.to_string())?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        kib.map(|kib| kib << 10).ok_or_else(|| format!("no {name}"))
    }

    /// Waits until the audit has an entry of the first tenant that is so, among the last.
    pub(super) fn audited(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<(), String> {
        self.audited_of("main", what, is_it)
    }

    /// The same of either tenant.
    pub(super) fn audited_of(&self, tenant: &str, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<(), String> {
        wait_for(&format!("{what} in the audit"), || {
            let tail = self.folder.json(&["audit", "tail", "-n", "20"])?;
            let mut entries = tail["entries"].as_array().into_iter().flatten();
            Ok(entries.any(|entry| entry["tenant"] == tenant && is_it(entry)).then_some(()))
        })
    }

    /// The records of this event so far.
    pub(super) fn records(&self, event: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(sink(&self.folder)).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["event"] == event).collect()
    }

    /// The record of the beginning of a tenant's newest session.
    pub(super) fn newest_of(&self, tenant: &str) -> Result<Value, String> {
        let tail = self.folder.json(&["audit", "tail", "-n", "20"])?;
        let entries = tail["entries"].as_array().into_iter().flatten();
        let connects = entries.filter(|entry| entry["tenant"] == tenant && entry["kind"] == "connect");
        let newest = connects.max_by_key(|entry| entry["seq"].as_u64());
        let session = newest.ok_or_else(|| format!("{tenant} has no session: {tail}"))?["session"].clone();
        wait_for("the record of the newest session", || {
            Ok(self.records("began").into_iter().find(|line| line["session"] == session))
        })
    }

    /// The tenants of whose clients the adversary reads an address by the keys that are there; it fails where it finds
    /// one in clear.
    pub(super) fn read_by_the_adversary(&self) -> Result<BTreeSet<String>, String> {
        // What it shows is written before.
        self.folder.json(&["audit", "tail", "-n", "1"])?;
        let copy = self.folder.0.join("copy");
        copy_all(&self.folder.0.join("state"), &copy)?;
        std::fs::copy(sink(&self.folder), copy.join("shipped.jsonl")).map_err(|e| e.to_string())?;
        let addresses: String = [INSIDE].map(|client| format!("{} 1\n", netns::client_v4(client))).concat();
        let commands = format!("take {}\njudge {}\n", copy.display(), keys(&self.folder).display());
        let answers = adversary::answers(&self.folder.0, &addresses, &commands);
        std::fs::remove_dir_all(&copy).map_err(|e| e.to_string())?;
        let answers = answers?;
        let [_, told] = answers.as_slice() else { return Err("it says too little".to_owned()) };
        if told["in_clear"] != Value::Array(Vec::new()) {
            return Err(format!("addresses in clear: {told}"));
        }
        // A tenant and a day.
        let read = told["recovered"].as_object().into_iter().flatten().map(|(epoch, _)| epoch);
        Ok(read.filter_map(|epoch| Some(epoch.split_once(' ')?.0.to_owned())).collect())
    }

    /// Ends it; what it has said and written is added to what is shown.
    pub(super) fn end(self, shown: &mut String) -> Result<(), String> {
        let Stage { folder, server, log, .. } = self;
        let ended = server.stop();
        for file in [sink(&folder), netns::folder()?.join(log)] {
            let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
            personal::none_in(&text)?;
            shown.push_str(&text);
        }
        ended
    }
}

/// What is removed meanwhile is left out.
fn copy_all(from: &Path, to: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", from.display());
    std::fs::create_dir_all(to).map_err(failed)?;
    for entry in std::fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let target = to.join(entry.file_name());
        if entry.file_type().map_err(failed)?.is_dir() {
            copy_all(&entry.path(), &target)?;
        } else if let Err(error) = std::fs::copy(entry.path(), &target)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(failed(error));
        }
    }
    Ok(())
}

/// Where keys of the day are: in memory, where alone they are put into files.
fn keys(folder: &Folder) -> PathBuf {
    Path::new("/dev/shm").join(folder.0.file_name().unwrap_or_default())
}

/// A directory that goes with its stage.
struct Keys(PathBuf);

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Where records go.
fn sink(folder: &Folder) -> PathBuf {
    folder.0.join("records.jsonl")
}

fn database(folder: &Folder) -> PathBuf {
    folder.0.join("places.mmdb")
}

/// Puts a database in its place, in one step.
fn write_database(folder: &Folder, inside: &str) -> Result<(), String> {
    let (database, new) = (database(folder), folder.0.join("places.new"));
    let failed = |e| format!("{}: {e}", database.display());
    std::fs::write(&new, places(inside)?).map_err(failed)?;
    std::fs::rename(&new, &database).map_err(failed)
}

/// A component with one more section that says nothing: another digest, and the same code.
pub(super) fn next_version(folder: &Folder, name: &str) -> Result<PathBuf, String> {
    const SECTION: &[u8] = b"\0\x05\x04next";
    let file = format!("{name}.wasm");
    let (from, to) = (shell::target().join("plugins").join(&file), folder.0.join(&file));
    let mut bytes = std::fs::read(&from).map_err(|e| format!("{}: {e}", from.display()))?;
    bytes.extend(SECTION);
    std::fs::write(&to, bytes).map_err(|e| format!("{}: {e}", to.display()))?;
    Ok(to)
}

/// Where the clients of the namespace are: see [`INSIDE`].
fn places(inside: &str) -> Result<Vec<u8>, String> {
    let mut writer = Writer::new(std::time::UNIX_EPOCH.elapsed().map_err(|e| e.to_string())?.as_secs());
    let mut at = |address: &str, bits, country: &str| {
        let address: IpAddr = address.parse().map_err(|e| format!("{address}: {e}"))?;
        writer.insert(address, bits, &Place { country: Some(country.to_owned()), ..Place::default() });
        Ok::<_, String>(())
    };
    at("127.66.1.0", 27, inside)?;
    at("127.66.1.32", 27, "US")?;
    // The load's clients, peers, and whoever binds no address.
    at("127.66.0.0", 26, "DE")?;
    at("127.67.0.0", 26, "DE")?;
    Ok(writer.bytes())
}

fn configuration(
    folder: &Folder,
    [port, other_port]: [u16; 2],
    metrics: SocketAddr,
    fence: &Fence<'_>,
    other: Other<'_>,
) -> String {
    let components = shell::target().join("plugins");
    let (user, password) = clients::STATIC_USER;
    let (v4, realm) = (netns::RELAY_V4, clients::REALM);
    let tenant = |name: &str, policies: &str| {
        format!(
            "[[tenant]]\nname = \"{name}\"\n[[tenant.user]]\nname = \"{user}\"\npassword = \"{password}\"\n{policies}"
        )
    };
    let bound = |name: &str| format!("[[tenant.policy]]\nplugin = \"{name}\"\n");
    let listen = |port: u16, tenant: &str| {
        format!("[[listen]]\naddress = \"{v4}:{port}\"\nrealm = \"{realm}\"\ntenant = \"{tenant}\"\n")
    };
    let hours = plugin(&components, "hours", "opening-hours", "{ from = 0, to = 24 }");
    let with_hours = if fence.hours { (hours, bound("hours")) } else { Default::default() };
    let settings = |country: &str, peers: &str| {
        format!(
            "{{ clients = {{ only = [\"{country}\"] }}, unknown_clients = \"refuse\", peers = {peers}, \
             nodes = \"any\", storage = \"any\" }}"
        )
    };
    let own_fence = fence
        .other_country
        .map_or_else(String::new, |country| format!("{}settings = {}\n", bound("fence"), settings(country, "\"any\"")));
    let others = other.map(|(component, settings)| plugin(&components, "other", component, settings));
    [
        listen(port, "main"),
        listen(other_port, "other"),
        // Clients that were refused leave allocations behind.
        "[limits]\nallocations = 1000\nallocations_per_user = 0\n[drain]\ndeadline_seconds = 0\n".to_owned(),
        "[guard]\nallow_peers = [\"loopback\"]\nunauthenticated_burst = 100000\n".to_owned(),
        format!("[metrics]\nlisten = \"{metrics}\"\n[control]\nsocket = \"{}\"\n", folder.socket().display()),
        format!(
            // Whether the disk is fast enough for them is tried elsewhere.
            "[privacy]\nrecords = true\nadmission = \"best-effort\"\n\
             state_directory = \"{0}/state\"\nkeys_directory = \"{1}\"\n\
             [[spool.sink]]\nkind = \"file\"\npath = \"{2}\"\n[geo]\ndatabase = \"{0}/places.mmdb\"\n",
            folder.0.display(),
            keys(folder).display(),
            sink(folder).display()
        ),
        plugin(
            if fence.is_next { &folder.0 } else { &components },
            "fence",
            "geofence",
            &settings(fence.country, fence.peers),
        ),
        with_hours.0,
        others.clone().unwrap_or_default(),
        tenant("main", &(bound("fence") + if fence.dry_run { "mode = \"dry-run\"\n" } else { "" } + &with_hours.1)),
        tenant("other", &(others.map_or_else(String::new, |_| bound("other")) + &own_fence)),
    ]
    .concat()
}

fn plugin(components: &Path, name: &str, component: &str, settings: &str) -> String {
    format!(
        "[[plugin]]\nname = \"{name}\"\nfile = \"{}/{component}.wasm\"\nsettings = {settings}\n",
        components.display()
    )
}
