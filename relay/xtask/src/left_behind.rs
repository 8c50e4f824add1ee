//! What a relay leaves behind that panics and is aborted, in the hands of the adversary: the state directory with every
//! long-lived key, the configuration with every secret, what was shipped, and the log at TRACE.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::kills::client::{Answer, allocate_over};
use crate::life::{self, Folder, wait_for};
use crate::report::Report;
use crate::server::{self, Server};
use crate::{adversary, clients, netns, shell};

/// Clients of each family.
const CLIENTS: u16 = 4;

/// What stands for a panic in both formats of the log.
const PANICKED: &str = "a thread panicked: this is a fault of sluice";

/// A part of the message of the panic, which must not be in the log: others name addresses.
const PAYLOAD: &str = "called `Result::unwrap()`";

/// The signal of an abort.
const SIGABRT: i32 = 6;

/// A shared secret, which the adversary gets with the configuration.
const SECRETS: &str = "[[tenant]]\nname = \"clinic\"\nsecrets = [{ value = \"the-secret-of-the-clinic\" }]\n";

/// Both formats; inside of the namespace. What the relays have said is added to what is shown.
pub(crate) fn run(report: &Report, shown: &mut String) {
    report.test("records: a panic, an abort and lines at TRACE tell the adversary no address", || left("text", shown));
    report.test("records: nor do JSON lines", || left("json", shown));
}

fn left(format: &str, shown: &mut String) -> Result<(), String> {
    let stage = Stage::set(format)?;
    let left = stage.panic_and_abort()?;
    shown.push_str(&fs::read_to_string(stage.folder.0.join("log")).unwrap_or_default());
    left.judge(&stage)
}

/// A relay, all of whose files but the keys of the day are in one folder.
struct Stage {
    folder: Folder,
    keys: PathBuf,
    server: Server,
    port: u16,
}

/// Whose addresses are to be looked for.
struct Left {
    clients: Vec<SocketAddr>,
}

impl Stage {
    fn set(format: &str) -> Result<Self, String> {
        let port = server::free_udp_port(netns::RELAY_V4)?;
        let folder = Folder::new(&format!("left-{format}"))?;
        let keys = Path::new("/dev/shm").join(folder.0.file_name().unwrap_or_default());
        let lines = format!(
            "[privacy]\nrecords = true\nstate_directory = \"{}\"\nkeys_directory = \"{}\"\n[[spool.sink]]\nkind = \
             \"file\"\npath = \"{}\"\n[log]\nformat = \"{format}\"\n{SECRETS}",
            folder.0.join("state").display(),
            keys.display(),
            sink(&folder).display()
        );
        folder.write(&life::configuration(&folder, port, "listen = \"\"", "min = 52000\nmax = 59999", &lines))?;
        // As much of a core as the machine allows: that there is none is the relay's own doing.
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -c \"$(ulimit -H -c)\" && exec \"$@\"", "sh"]);
        command.arg(clients::relay_program()).arg("--config").arg(folder.config()).args(["--log-level", "trace"]);
        command.env("LD_PRELOAD", preload()?).env("NO_RANDOMNESS_WHILE", folder.0.join("no-randomness"));
        command.current_dir(&folder.0);
        let log = folder.0.join("log");
        let server = Server::start(&mut command, &log, clients::address(netns::RELAY_V4, port)?)?;
        Ok(Stage { folder, keys, server, port })
    }

    /// Clients come, the store's thread panics over one more, and the process is aborted.
    fn panic_and_abort(&self) -> Result<Left, String> {
        let mut clients = Vec::new();
        for number in 1..=CLIENTS {
            for (from, to) in [(netns::client_v4(number), netns::RELAY_V4), (netns::client_v6(number), netns::RELAY_V6)]
            {
                let (client, answer) = self.client(&from, to)?;
                if answer != Answer::Success {
                    return Err(format!("a client is not served: {answer:?}"));
                }
                clients.push(client);
            }
        }
        wait_for("records at the sink", || {
            let shipped = fs::read_to_string(sink(&self.folder)).unwrap_or_default();
            Ok((shipped.matches("\"began\"").count() >= clients.len()).then_some(()))
        })?;
        File::create(self.folder.0.join("no-randomness")).map_err(|e| e.to_string())?;
        let (client, answer) = self.client(&netns::client_v4(CLIENTS + 1), netns::RELAY_V4)?;
        clients.push(client);
        if answer != Answer::Refused(508) {
            return Err(format!("without a record a client got {answer:?}"));
        }
        wait_for("the panic", || Ok(self.server.output().contains(PANICKED).then_some(())))?;
        let status = self.server.abort()?;
        if status.signal() != Some(SIGABRT) || status.core_dumped() {
            return Err(format!("it was to be aborted without a core dump, and ended with {status}"));
        }
        let said = self.server.output();
        let line = said.lines().find(|line| line.contains(PANICKED)).unwrap_or_default();
        if said.contains(PAYLOAD) || !line.contains(".rs:") || !line.contains("store") {
            return Err(format!("a panic is told by its place and its thread alone:\n{}", shell::tail(&said, 5)));
        }
        Ok(Left { clients })
    }

    /// Allocates once; where it came from, and what it was told.
    fn client(&self, from: &str, to: &str) -> Result<(SocketAddr, Answer), String> {
        let socket = UdpSocket::bind((from, 0)).map_err(|e| format!("{from}: {e}"))?;
        let client = socket.local_addr().map_err(|e| e.to_string())?;
        Ok((client, allocate_over(&socket, clients::address(to, self.port)?, clients::STATIC_USER)?))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.keys);
    }
}

impl Left {
    /// The adversary reads nothing without the keys of the day, and with them everybody whose record was written.
    fn judge(&self, stage: &Stage) -> Result<(), String> {
        let ours = netns::folder()?;
        let nothing = ours.join("none");
        fs::create_dir_all(&nothing).map_err(|e| e.to_string())?;
        let addresses: String = self.clients.iter().map(|c| format!("{} {}\n", c.ip(), c.port())).collect();
        let commands =
            format!("take {}\nforce {}\njudge {}\n", stage.folder.0.display(), nothing.display(), stage.keys.display());
        let answers = adversary::answers(&ours, &addresses, &commands)?;
        let [_, without, with] = answers.as_slice() else { return Err("it says too little".to_owned()) };
        let empty = Value::Object(serde_json::Map::new());
        if without["in_clear"] != Value::Array(vec![]) || without["more_than_chance"] != empty {
            return Err(format!("addresses in clear: {without}"));
        }
        if without["recovered"] != empty || without["keys"].as_u64() < Some(2) {
            return Err(format!("addresses that were read with the long-lived keys: {without}"));
        }
        // The last one has no record.
        let written: BTreeSet<_> = self.clients[..self.clients.len() - 1].iter().map(SocketAddr::ip).collect();
        let read: u64 = with["recovered"].as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum();
        println!(
            "      {} bytes, {} likely keys, {read} addresses read with the key of the day",
            with["bytes"], with["keys"]
        );
        match read == written.len() as u64 {
            true => Ok(()),
            false => Err(format!("with the key of the day {read} of {} are read: {with}", written.len())),
        }
    }
}

fn sink(folder: &Folder) -> PathBuf {
    folder.0.join("shipped.jsonl")
}

/// The library that takes randomness away, made anew.
fn preload() -> Result<PathBuf, String> {
    let library = netns::folder()?.join("no_randomness.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library);
    compiler.arg(shell::root().join("tests/privacy/no_randomness.c"));
    shell::capture(&mut compiler)?.ok("cc")?;
    Ok(library)
}
