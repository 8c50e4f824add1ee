//! What a relay writes down of its clients, who may read it and for how long, under a clock that is stepped.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::life::{self, FLOWS, Folder, Load, wait_for};
use crate::report::Report;
use crate::server::{self, Server};
use crate::{as_unit, clients, install, left_behind, netns, personal, shell, turnutils};

/// How long one client may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Beyond the end of every key of today.
const NEXT_WEEK: &str = "+8d";

/// Clients of `turnutils_uclient`; each makes two allocations, and two more for the other end.
const CLIENTS: &str = "2";

const LOG: &str = "records.log";
const UNIT_LOG: &str = "records-unit.log";

/// All of it; inside of the namespace. What relays say and keep is added to what is shown.
pub(crate) fn run(report: &Report, shown: &mut String) {
    let mut stage = None;
    report.test("records: a relay starts with them, and says where and for how long", || {
        stage = Some(Stage::set()?);
        Ok(())
    });
    let Some(mut stage) = stage else { return };
    report.test("records: sessions are written down, and a look-up finds those of an address", || lookup(&stage));
    report.test("records: who is banned is not served, and is again when the ban is lifted", || ban(&stage));
    report.test("records: a client is banned by the pseudonym in the list of allocations", || ban_by_pseudonym(&stage));
    report.test("records: the state directory holds no address", || stage.kept(shown));
    report.test("records: what is stored is reported, with the copy of it and without a key", || reports(&stage));
    report.test("records: sessions are put under a legal hold", || hold(&stage));
    report.test("records: the key dies when the clock steps, and a look-up says so", || key_dies(&stage));
    report.test("records: what is held outlives its day, and not its hold", || held(&stage));
    report.test("records: the audit holds, and a changed entry is named", || audit(&stage));
    report.test("records: after the step the state directory holds no address", || stage.kept(shown));
    report.test("records: the relay ends in order", || stage.server.take().map_or(Ok(()), Server::stop));
    report.test("records: as the unit runs it, in the directories of systemd", as_the_unit);
    left_behind::run(report, shown);
    for log in [LOG, UNIT_LOG] {
        let file = netns::folder().map(|folder| std::fs::read_to_string(folder.join(log)).unwrap_or_default());
        shown.push_str(&file.unwrap_or_default());
    }
}

/// A relay whose clock a file shifts.
struct Stage {
    folder: Folder,
    server: Option<Server>,
    port: u16,
}

impl Stage {
    fn set() -> Result<Self, String> {
        let port = server::free_udp_port(netns::RELAY_V4)?;
        let folder = Folder::new("records")?;
        let mut stage = Stage { folder, server: None, port };
        stage.shift("+0")?;
        let lines = format!(
            "[privacy]\nrecords = true\nstate_directory = \"{}\"\nkeys_directory = \"{}\"\nlookup = true\n\
             [log]\nformat = \"json\"\n[drain]\ndeadline_seconds = 0\n",
            stage.state().display(),
            stage.keys().display()
        );
        let ports = "min = 52000\nmax = 59999";
        stage.folder.write(&life::configuration(&stage.folder, port, "listen = \"\"", ports, &lines))?;
        let mut command = Command::new(clients::relay_program());
        command.arg("--config").arg(stage.folder.config()).args(["--log-level", "trace"]);
        // Deadlines of the machine go on as they are: only the wall clock is set.
        command.env("LD_PRELOAD", faketime()?).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.env("FAKETIME_TIMESTAMP_FILE", stage.shift_file()).env("FAKETIME_NO_CACHE", "1");
        let log = netns::folder()?.join(LOG);
        let server = Server::start(&mut command, &log, clients::address(netns::RELAY_V4, port)?)?;
        // It serves before it says so.
        let said = wait_for("the words of the start", || {
            Ok(Some(server.output()).filter(|said| said.contains("can be read for")))
        })?;
        let state = format!("sessions are written down in {}", stage.state().display());
        for words in [state.as_str(), "can be read for 7 days", "for as long as the machine runs"] {
            if !said.contains(words) {
                return Err(format!("`{words}` is not said at the start:\n{said}"));
            }
        }
        stage.server = Some(server);
        Ok(stage)
    }

    fn state(&self) -> PathBuf {
        self.folder.0.join("state")
    }

    /// On a file system in memory: that is where the unit has them.
    fn keys(&self) -> PathBuf {
        let name = self.folder.0.file_name().unwrap_or_default();
        Path::new("/dev/shm").join(name)
    }

    fn shift_file(&self) -> PathBuf {
        self.folder.0.join("faketime")
    }

    /// Sets the relay's wall clock.
    fn shift(&self, by: &str) -> Result<(), String> {
        std::fs::write(self.shift_file(), format!("{by}\n")).map_err(|e| e.to_string())
    }

    /// A client of the suite, by its number, over the family of the relay's address.
    fn client(&self, from: &str, to: &str) -> Result<shell::Ran, String> {
        let mut command = shell::limited(LIMIT, "turnutils_uclient");
        let (user, password) = clients::STATIC_USER;
        command.args(["-L", from, "-y", "-n", "20", "-m", CLIENTS, "-u", user, "-w", password]);
        command.args(["-p", &self.port.to_string()]);
        if to.contains(':') {
            command.arg("-x");
        }
        shell::capture(command.arg(to))
    }

    /// One that is served.
    fn served(&self, number: u16) -> Result<(), String> {
        let ran = self.client(&netns::client_v4(number), netns::RELAY_V4)?;
        turnutils::nothing_lost(&ran.text).map_err(|why| format!("{why}\n{}", shell::tail(&ran.text, 10)))
    }

    /// What a look-up of the last and the next days says.
    fn lookup(&self, address: &str) -> Result<Value, String> {
        self.folder.json(&["lookup", address, "--from", "30d", "--to", "2100-01-01", "--reason", "report 4711"])
    }

    fn sessions(&self, address: &str) -> Result<usize, String> {
        Ok(self.lookup(address)?["sessions"].as_array().map_or(0, Vec::len))
    }

    fn key_files(&self) -> Result<Vec<String>, String> {
        let names = std::fs::read_dir(self.keys()).map_err(|e| e.to_string())?;
        let names = names.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
        Ok(names.filter(|name| name.ends_with(".key")).collect())
    }

    /// Looks for addresses in all files of the state directory: as text here and with everything else that is shown,
    /// and as the bytes of the clients that there were.
    fn kept(&self, shown: &mut String) -> Result<(), String> {
        let mut folders = vec![self.state()];
        let mut text = String::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))? {
                let path = entry.map_err(|e| e.to_string())?.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
                let found = FOUND.iter().find(|address| bytes.windows(address.len()).any(|window| window == **address));
                if let Some(address) = found {
                    return Err(format!("{} has the bytes {address:?}", path.display()));
                }
                text.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
        personal::none_in(&text)?;
        shown.push_str(&text);
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.keys());
    }
}

/// Bytes of the first clients of the suite, in both orders, and of their other family.
const FOUND: &[&[u8]] =
    &[&[127, 66, 1, 1], &[1, 1, 66, 127], &[127, 66, 1, 2], &[2, 1, 66, 127], &[0xfd, 0x66, 0x66, 0x66, 0, 0, 0, 0]];

/// Debian's library that shifts clocks, wherever this machine's architecture has it.
fn faketime() -> Result<PathBuf, String> {
    let folders = std::fs::read_dir("/usr/lib").map_err(|e| format!("/usr/lib: {e}"))?;
    let libraries = folders.filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketimeMT.so.1")));
    libraries.into_iter().find(|path| path.exists()).ok_or_else(|| "no libfaketimeMT.so.1 in /usr/lib".to_owned())
}

fn lookup(stage: &Stage) -> Result<(), String> {
    stage.served(1)?;
    let v6 = stage.client(&netns::client_v6(1), netns::RELAY_V6)?;
    turnutils::nothing_lost(&v6.text)?;
    for address in [netns::client_v4(1), netns::client_v6(1)] {
        let found = stage.lookup(&address)?;
        let sessions = found["sessions"].as_array().ok_or("no sessions")?;
        let well = |session: &Value| {
            let user = session["user"].as_str().unwrap_or_default();
            session["tenant"] == "main" && session["role"] == "client" && user.starts_with("user-")
        };
        if sessions.len() < 4 || !sessions.iter().all(well) || found["gone"] != Value::Array(vec![]) {
            return Err(found.to_string());
        }
    }
    wait_for("the end of a session", || {
        let found = stage.lookup(&netns::client_v4(1))?;
        let ended = found["sessions"].as_array().into_iter().flatten().any(|s| s["bytes"].as_u64() > Some(0));
        Ok(ended.then_some(()))
    })?;
    if stage.sessions(&netns::client_v4(2))? > 0 {
        return Err("somebody is found who was not there".to_owned());
    }
    let address = netns::client_v4(1);
    let named = stage.folder.ask(&["lookup", &address, "--reason", &format!("abuse of {address}")])?;
    if named.code == Some(0) {
        return Err("a reason that names the address went into the audit".to_owned());
    }
    let tail = stage.folder.json(&["audit", "tail", "-n", "50"])?;
    let read = tail["entries"].as_array().into_iter().flatten().find(|entry| entry["kind"] == "read");
    let body = read.map(|entry| &entry["body"]).ok_or("the look-up is not in the audit")?;
    if body["reason"] != "report 4711" || body["role"] != "control-socket" || !body["uid"].is_number() {
        return Err(body.to_string());
    }
    personal::none_in(&tail.to_string())
}

fn ban(stage: &Stage) -> Result<(), String> {
    let address = netns::client_v4(2);
    stage.served(2)?;
    stage.folder.ask(&["ban", "add", &address, "--for", "1h", "--reason", "flood"])?.ok("ban add")?;
    let bans = stage.folder.json(&["ban", "list"])?;
    personal::none_in(&bans.to_string())?;
    if bans["bans"].as_array().map(Vec::len) != Some(1) || bans["bans"][0]["bits"] != 32 {
        return Err(bans.to_string());
    }
    let mut command = shell::limited(Duration::from_secs(3), "turnutils_stunclient");
    let port = stage.port.to_string();
    let asked = shell::capture(command.args(["-p", &port, "-L", &address, netns::RELAY_V4]))?;
    if asked.text.contains("UDP reflexive addr: ") {
        return Err("whoever is banned is answered".to_owned());
    }
    stage.served(1)?;
    let too_long = stage.folder.ask(&["ban", "add", &address, "--for", "8d", "--reason", "flood"])?;
    if too_long.code == Some(0) || !too_long.text.contains("guard.deny_clients") {
        return Err(too_long.complaint("a ban of eight days"));
    }
    stage.folder.ask(&["ban", "remove", &address])?.ok("ban remove")?;
    stage.served(2)
}

fn ban_by_pseudonym(stage: &Stage) -> Result<(), String> {
    let load = Load::start(stage.port, "8")?;
    wait_for("the load's allocations", || {
        Ok((stage.folder.json(&["status"])?["allocations"].as_u64() >= Some(FLOWS)).then_some(()))
    })?;
    let list = stage.folder.json(&["allocations"])?;
    // Clients of other tests have left some that are older.
    let youngest = list["allocations"].as_array().into_iter().flatten().min_by_key(|row| row["age_seconds"].as_u64());
    let pseudonym = youngest.and_then(|row| row["client"].as_str()).ok_or("no allocation")?;
    stage.folder.ask(&["ban", "add", pseudonym, "--reason", "flood"])?.ok("ban add")?;
    wait_for("the end of what the client had", || {
        let list = stage.folder.json(&["allocations"])?;
        let mut left = list["allocations"].as_array().into_iter().flatten();
        Ok((!left.any(|row| row["client"] == pseudonym)).then_some(()))
    })?;
    stage.folder.ask(&["ban", "remove", pseudonym])?.ok("ban remove")?;
    match load.lost_nothing() {
        Err(_) => Ok(()),
        Ok(()) => Err("what the banned client sent was relayed".to_owned()),
    }
}

fn reports(stage: &Stage) -> Result<(), String> {
    let report = stage.folder.json(&["compliance", "report"])?;
    let class = |name: &str| {
        let found = report["classes"].as_array().into_iter().flatten().find(|class| class["class"] == name);
        found.cloned().ok_or(format!("no class {name}"))
    };
    if class("ip")?["stored"] != true || class("ip")?["retention"] != "7 days" || class("consent")?["stored"] != false {
        return Err(report.to_string());
    }
    let text = stage.folder.ask(&["compliance", "report"])?.ok("compliance report")?;
    if !text.contains("| `ip` |") || !text.contains("| `session` | store |") {
        return Err(text);
    }
    let status = stage.folder.json(&["retention", "status"])?;
    let keys = status["keys"].as_array().map_or(0, Vec::len);
    if keys != stage.key_files()?.len() || keys == 0 {
        return Err(format!("{keys} keys, and the files {:?}", stage.key_files()?));
    }
    stage.folder.json(&["retention", "sweep", "--dry-run"])?;
    let copy = stage.folder.0.join("copy");
    stage.folder.ask(&["backup", "--to", &copy.to_string_lossy()])?.ok("backup")?;
    let names = std::fs::read_dir(&copy).map_err(|e| e.to_string())?;
    let mut names: Vec<_> = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort_unstable();
    if names != ["manifest.json", "records.db"] {
        return Err(format!("a copy of {names:?}"));
    }
    let restored = stage.folder.0.join("restored");
    let mut restore = Command::new(clients::relay_program());
    restore.args(["restore", "--from"]).arg(&copy).arg("--state").arg(&restored);
    shell::capture(&mut restore)?.ok("restore")?;
    if restored.join("records.db").exists() { Ok(()) } else { Err("nothing was put back".to_owned()) }
}

fn hold(stage: &Stage) -> Result<(), String> {
    let address = netns::client_v4(1);
    let found = stage.lookup(&address)?;
    let session = found["sessions"][0]["session"].as_str().ok_or("no session to hold")?;
    let add = ["hold", "add", "case-1", "--session", session, "--until", "2100-01-01", "--reason"];
    let named = stage.folder.ask(&[&add[..], &[&format!("complaint of {address}")]].concat())?;
    if named.code == Some(0) {
        return Err("a reason that names the address went into the audit".to_owned());
    }
    let made = stage.folder.json(&[&add[..], &["complaint 12"]].concat())?;
    if made["sessions"][0]["addresses"] != "held" {
        return Err(made.to_string());
    }
    let list = stage.folder.json(&["hold", "list"])?;
    personal::none_in(&list.to_string())?;
    let hold = &list["holds"][0];
    let facts = (hold["name"].as_str(), hold["sessions"].as_u64(), hold["addresses"].as_u64(), hold["due"].as_bool());
    if facts == (Some("case-1"), Some(1), Some(1), Some(false)) { Ok(()) } else { Err(list.to_string()) }
}

/// After the end of the key of its day.
fn held(stage: &Stage) -> Result<(), String> {
    let read = ["lookup", "--hold", "case-1", "--reason", "court order 7"];
    let held = stage.folder.json(&read)?;
    let client = held["sessions"][0]["client"].as_str().unwrap_or_default();
    if !client.starts_with(&format!("{}:", netns::client_v4(1))) {
        return Err(format!("the address is not held: {held}"));
    }
    let tail = stage.folder.json(&["audit", "tail", "-n", "1"])?;
    let body = &tail["entries"][0]["body"];
    if body["class"] != "legal-hold" || body["hold"] != "case-1" || body["reason"] != "court order 7" {
        return Err(format!("that it was read is not in the audit: {tail}"));
    }
    personal::none_in(&tail.to_string())?;
    stage.folder.ask(&["hold", "lift", "case-1", "--reason", "settled"])?.ok("hold lift")?;
    let left = std::fs::read_dir(stage.state().join("holds")).map_err(|e| e.to_string())?.count();
    let ran = stage.folder.ask(&read)?;
    if left == 0 && ran.code == Some(1) { Ok(()) } else { Err(ran.complaint("a look-up of a lifted hold")) }
}

fn key_dies(stage: &Stage) -> Result<(), String> {
    let address = netns::client_v4(1);
    let before = stage.key_files()?;
    stage.shift(NEXT_WEEK)?;
    wait_for("the end of the keys", || Ok(stage.key_files()?.iter().all(|key| !before.contains(key)).then_some(())))?;
    let found = stage.lookup(&address)?;
    let gone = found["gone"].as_array().ok_or("no days")?;
    if found["sessions"] != Value::Array(vec![]) || gone.is_empty() || !gone[0]["destroyed_unix_seconds"].is_u64() {
        return Err(format!("after the end of its key: {found}"));
    }
    let said = stage.folder.ask(&["lookup", &address, "--from", "30d", "--reason", "report 4711"])?.ok("lookup")?;
    if !said.contains("nobody can say any more who was there") {
        return Err(said);
    }
    // The next day has a key of its own.
    stage.served(1)?;
    if stage.sessions(&address)? == 0 { Err("no session of the new day is found".to_owned()) } else { Ok(()) }
}

fn audit(stage: &Stage) -> Result<(), String> {
    let verify = |state: &Path| {
        let mut command = Command::new(clients::relay_program());
        command.args(["audit", "verify", "--json", "--state"]).arg(state);
        shell::capture(&mut command)
    };
    let said = verify(&stage.state())?.ok("audit verify")?;
    let verdict: Value = serde_json::from_str(&said).map_err(|e| format!("{e}: {said}"))?;
    if verdict["whole"] != true || verdict["entries"].as_u64() < Some(10) {
        return Err(said);
    }
    let tail = stage.folder.json(&["audit", "tail", "-n", "200"])?;
    let kinds: Vec<&str> =
        tail["entries"].as_array().into_iter().flatten().filter_map(|e| e["kind"].as_str()).collect();
    for kind in [
        "connect",
        "disconnect",
        "read",
        "ban-added",
        "ban-removed",
        "backup",
        "clock-step",
        "key-destroyed",
        "hold-added",
        "hold-lifted",
    ] {
        if !kinds.contains(&kind) {
            return Err(format!("no `{kind}` in the audit: {kinds:?}"));
        }
    }
    changed_entry(stage)?;
    let export = stage.folder.0.join("audit.jsonl");
    let mut command = Command::new(clients::relay_program());
    command.args(["audit", "export", "--state"]).arg(stage.state()).arg("--to").arg(&export);
    shell::capture(&mut command)?.ok("audit export")?;
    personal::none_in(&std::fs::read_to_string(&export).map_err(|e| e.to_string())?)
}

/// Entry 3 of the copy that was put back says another time than it did.
fn changed_entry(stage: &Stage) -> Result<(), String> {
    // Whoever can write to the file is held up by no trigger in it.
    const CHANGE: &str = "
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as db:
    for (name,) in db.execute(\"SELECT name FROM sqlite_master WHERE type = 'trigger'\").fetchall():
        db.execute(f'DROP TRIGGER {name}')
    assert db.execute('UPDATE audit SET at = at + 1 WHERE seq = 3').rowcount == 1
";
    let copy = stage.folder.0.join("restored");
    let mut change = Command::new(install::PYTHON);
    shell::capture(change.args(["-c", CHANGE]).arg(copy.join("records.db")))?.ok("python3")?;
    let mut verify = Command::new(clients::relay_program());
    verify.args(["audit", "verify", "--state"]).arg(&copy).arg("--key").arg(stage.state().join("audit.pub"));
    let ran = shell::capture(&mut verify)?;
    let is_named = ran.code == Some(1) && ran.text.contains("the audit is broken at entry 3");
    if is_named { Ok(()) } else { Err(ran.complaint("audit verify of a changed copy")) }
}

/// Where the unit lets it write, and with the calls that the unit allows; the spool's ring included.
fn as_the_unit() -> Result<(), String> {
    let port = server::free_udp_port(netns::RELAY_V4)?;
    let open = as_unit::OpenToAll::new()?;
    let folder = Folder::new("records-unit")?;
    let sink = folder.0.join("shipped.jsonl");
    let lines = format!(
        "[privacy]\nrecords = true\n[[spool.sink]]\nkind = \"file\"\npath = \"{}\"\n[drain]\ndeadline_seconds = 0\n",
        sink.display()
    );
    let text = life::configuration(&folder, port, "listen = \"\"", "min = 52000\nmax = 59999", &lines);
    folder.write(&text.replace(&folder.socket().display().to_string(), "auto"))?;
    let config = open.copy(&folder.config())?;
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(&folder.0, all).map_err(|e| e.to_string())?;
    let (own, relay) = (open.copy(&shell::own_program()?)?, open.copy(&clients::relay_program())?);
    let words = [relay.into(), "--config".into(), config.into(), "--log-level".into(), "trace".into()];
    let mut command = as_unit::confined(&own, &words)?;
    command.env("RUNTIME_DIRECTORY", &folder.0).env("STATE_DIRECTORY", folder.0.join("state"));
    let log = netns::folder()?.join(UNIT_LOG);
    let server = Server::start(&mut command, &log, clients::address(netns::RELAY_V4, port)?)?;
    let stage = Stage { folder, server: None, port };
    stage.served(3)?;
    wait_for("a record at the sink", || {
        let shipped = std::fs::read_to_string(&sink).unwrap_or_default();
        personal::none_in(&shipped)?;
        Ok(shipped.contains("\"kind\":\"control\"").then_some(()))
    })?;
    server.stop()
}
