//! Policies under real clients: a fence lets in and keeps out, what it no longer allows stops at once, and a plugin
//! that misbehaves harms nobody but the tenant that has it.

mod erasure;
mod hostile;
mod operator;
mod stage;

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::life::{self, Folder, Load, wait_for};
use crate::report::Report;
use crate::server::{self, Server};
use crate::{as_unit, clients, netns, shell, turnutils};
use stage::{Fence, INSIDE, NOWHERE, OUTSIDE, Stage};

/// A rule by which the peers of the test are outside.
const PEERS_ELSEWHERE: &str = "{ only = [\"US\"] }, unknown_peers = \"refuse\"";

/// Reloads while packets flow and clients come.
const RELOADS: usize = 12;

/// What an operator's command replaces and puts back meanwhile.
const ROLLBACKS: usize = 3;

/// Longer than both take.
const LOAD_SECONDS: &str = "14";

/// Tests that a relay of its own has, one after the other.
type Lane = fn(&Report, &Stage);

/// What runs side by side: a client that is cut waits for its losses for many seconds.
const LANES: &[(&str, Lane)] = &[
    ("policies", calls),
    ("policies-peers", peers),
    ("policies-hostile", hostile::run),
    ("policies-commands", commands),
    ("policies-loads", loads),
    ("policies-records", recorded),
];

/// All of it; inside of the namespace.
pub(crate) fn run(report: &Report, peer_port: u16, shown: &mut String) {
    let mut stages = Vec::new();
    report.test("policies: plugins load, their cases pass, and the start says who decides", || {
        LANES.iter().try_for_each(|(name, lane)| Stage::set(name, peer_port).map(|stage| stages.push((stage, lane))))
    });
    if stages.len() < LANES.len() {
        return;
    }
    let stages: Vec<Stage> = std::thread::scope(|scope| {
        let run = |(stage, lane): (Stage, &Lane)| {
            let lane = *lane;
            scope.spawn(move || {
                lane(report, &stage);
                stage
            })
        };
        let running: Vec<_> = stages.into_iter().map(run).collect();
        running.into_iter().filter_map(|lane| lane.join().ok()).collect()
    });
    // Alone: it counts each packet of thousands.
    report.test("policies: reloads and rollbacks under load lose no verdict and no packet", || {
        reloads(stages.first().ok_or("there is no relay")?)
    });
    report.test("policies: the relays end in order", || stages.into_iter().try_for_each(|stage| stage.end(shown)));
}

/// Who is let in, who is kept out, and a call that is cut.
fn calls(report: &Report, stage: &Stage) {
    report.test("policies: a client inside of the fence is served", || stage.served(INSIDE));
    report.test("policies: a client outside is refused with 403, which the audit has", || outside(stage));
    report.test("policies: a client of unknown place is refused with 403", || stage.refused(stage.port, NOWHERE, 403));
    report.test("policies: verdicts are counted by plugin and hook", || {
        stage.counted("sluice_policy_verdicts_total{plugin=\"fence\",hook=\"geofence\",verdict=\"deny\"}", 2)
    });
    report.test("policies: a changed fence cuts a call with its next packet", || cut(stage));
    report.test("policies: a database that comes with a reload cuts a call", || moved(stage));
}

/// Peers, and what each tenant has for itself.
fn peers(report: &Report, stage: &Stage) {
    report.test("policies: a peer outside is refused with 403", || peer_outside(stage));
    report.test("policies: a changed fence cuts one peer of a call", || peer_cut(stage));
    report.test("policies: the tests of clients and peers outside fail where the fence is switched off", || {
        switched_off(stage)
    });
    report.test("policies: a tenant has its own settings of a plugin", || own_settings(stage));
}

/// What an operator does without an editor.
fn commands(report: &Report, stage: &Stage) {
    report.test("policies: an operator's commands change the file and the relay, or neither", || operator::test(stage));
    report.test("policies: a person who is erased is a stranger, and a plugin that fails to forget is told", || {
        erasure::forgotten(stage)
    });
    report.test("policies: a review that is ordered ends what is no longer allowed", || erasure::reviewed(stage));
}

/// What loads, and what does not.
fn loads(report: &Report, stage: &Stage) {
    report.test("policies: a component made of JavaScript decides", || javascript(stage));
    report.test("policies: what a dry run was asked is captured without addresses, and asked again elsewhere", || {
        replayed(stage)
    });
    report.test("policies: as the unit runs it, interpreted, which the start says", || as_the_unit(stage));
}

/// What is written of a tenant whose plugin has a plan for it.
fn recorded(report: &Report, stage: &Stage) {
    report.test("policies: records hold what the plan leaves, and no address beyond it", || planned(stage));
}

/// A client of `turnutils_uclient` that goes on beside the test.
struct Beside(Child);

impl Beside {
    /// Starts one with so many packets, one each 20 ms.
    fn start(stage: &Stage, packets: &str) -> Result<Self, String> {
        Beside::from(stage, INSIDE, packets)
    }

    /// The same from somewhere else.
    fn from(stage: &Stage, client: u16, packets: &str) -> Result<Self, String> {
        let mut command = Command::new("turnutils_uclient");
        stage.arguments(&mut command, stage.port, client, packets);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        child.map(Beside).map_err(|e| format!("turnutils_uclient: {e}"))
    }

    /// All that it said, at its end.
    fn said(self) -> Result<String, String> {
        let output = self.0.wait_with_output().map_err(|e| e.to_string())?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Ends it, whatever it waits for.
    fn stop(mut self) -> Result<(), String> {
        self.0.kill().and_then(|()| self.0.wait()).map(drop).map_err(|e| e.to_string())
    }

    fn is_over(&mut self) -> Result<bool, String> {
        self.0.try_wait().map(|ended| ended.is_some()).map_err(|e| e.to_string())
    }

    fn lost_nothing(self) -> Result<(), String> {
        let said = self.said()?;
        turnutils::nothing_lost(&said).map_err(|why| format!("beside it {why}\n{}", shell::tail(&said, 10)))
    }
}

fn outside(stage: &Stage) -> Result<(), String> {
    stage.refused(stage.port, OUTSIDE, 403)?;
    stage.audited("a refusal", |entry| {
        entry["kind"] == "denied" && entry["body"]["method"] == "allocate" && entry["body"]["code"] == 403
    })
}

/// The enforcement of the fence is switched off: both tests of it see that.
fn switched_off(stage: &Stage) -> Result<(), String> {
    stage.reload(&Fence { peers: PEERS_ELSEWHERE, dry_run: true, ..Fence::default() }, None)?;
    let client = Beside::from(stage, OUTSIDE, "20")?;
    let peer = stage.refused(stage.port, INSIDE, 403);
    let client = client.said()?;
    stage.reload(&Fence::default(), None)?;
    match (client.contains("error 403 "), peer) {
        (false, Err(_)) => Ok(()),
        (_, peer) => Err(format!("of the peer {peer:?}, of the client\n{}", shell::tail(&client, 10))),
    }
}

fn peer_outside(stage: &Stage) -> Result<(), String> {
    stage.reload(&Fence { peers: PEERS_ELSEWHERE, ..Fence::default() }, None)?;
    stage.refused(stage.port, INSIDE, 403)?;
    stage.reload(&Fence::default(), None)?;
    stage.served(INSIDE)
}

/// What a client's packets were on the way, by the relay's word.
fn relayed(stage: &Stage, key: &str) -> Result<u64, String> {
    let list = stage.folder.json(&["allocations"])?;
    Ok(list["allocations"].as_array().into_iter().flatten().filter_map(|row| row[key].as_u64()).sum())
}

/// A call of an allowed place; then its place is no longer allowed.
fn cut(stage: &Stage) -> Result<(), String> {
    let ended = |stage: &Stage| {
        let ended = stage.records("ended").into_iter().filter(|line| line["reason"] == "policy");
        ended.map(|line| line["session"].clone()).collect::<Vec<_>>()
    };
    let before = ended(stage).len();
    let client = Beside::start(stage, "250")?;
    wait_for("packets of the call", || Ok((relayed(stage, "packets_to_client")? > 50).then_some(())))?;
    stage.reload(&Fence { country: "FR", ..Fence::default() }, None)?;
    let began = Instant::now();
    wait_for("the end of the call", || Ok((stage.folder.json(&["status"])?["allocations"] == 0).then_some(())))?;
    println!("      cut within {} ms of the reload, the asking included", began.elapsed().as_millis());
    let said = client.said()?;
    let [sent, received] = ["tot_send_msgs=", "tot_recv_msgs="].map(|name| turnutils::total(&said, name));
    // Those whom a former test had refused are cut too, and have had nothing relayed.
    let line = wait_for("the record of its end", || {
        let sessions = ended(stage);
        let mut relayed = stage.records("relayed").into_iter();
        let is_it = |line: &Value| sessions[before..].contains(&line["session"]) && line["packets_from_client"] != 0;
        Ok(relayed.find(is_it))
    })?;
    let (there, back) = (line["packets_from_client"].as_u64(), line["packets_to_client"].as_u64());
    println!("      sent {sent:?}, relayed {there:?}, relayed back {back:?}, received {received:?}");
    stage.reload(&Fence::default(), None)?;
    // All of what was relayed until then arrived, and nothing from then on; the one on its way to the peer was lost.
    let until_then =
        received.is_some() && received == back && there.zip(back).is_some_and(|(there, back)| there <= back + 2);
    if !until_then || sent.zip(there).is_none_or(|(sent, there)| sent < there + 20) {
        return Err(format!("the call was not cut between two packets\n{}", shell::tail(&said, 10)));
    }
    stage.audited("the cut", |entry| entry["kind"] == "disconnect" && entry["body"]["reason"] == "policy")
}

/// The client is somewhere else by a database that is replaced just before a reload of other things.
fn moved(stage: &Stage) -> Result<(), String> {
    let client = Beside::start(stage, "1000")?;
    wait_for("packets of the call", || Ok((relayed(stage, "packets_to_client")? > 10).then_some(())))?;
    stage.move_clients("FR")?;
    stage.reload(&Fence { is_next: true, ..Fence::default() }, None)?;
    let ended =
        wait_for("the end of the call", || Ok((stage.folder.json(&["status"])?["allocations"] == 0).then_some(())));
    client.stop()?;
    stage.move_clients("DE")?;
    stage.reload(&Fence::default(), None)?;
    ended
}

/// The same where the peer's place is no longer allowed: the allocation stays.
fn peer_cut(stage: &Stage) -> Result<(), String> {
    let client = Beside::start(stage, "150")?;
    wait_for("packets of the call", || Ok((relayed(stage, "packets_to_client")? > 50).then_some(())))?;
    let allocations = || Ok::<_, String>(stage.folder.json(&["status"])?["allocations"].as_u64());
    let before = allocations()?;
    stage.reload(&Fence { peers: PEERS_ELSEWHERE, ..Fence::default() }, None)?;
    stage.audited("the cut", |entry| {
        entry["kind"] == "denied" && entry["body"]["method"] == "create_permission" && entry["body"]["code"] == 403
    })?;
    let after = allocations()?;
    let said = client.said()?;
    stage.reload(&Fence::default(), None)?;
    let [sent, received] = ["tot_send_msgs=", "tot_recv_msgs="].map(|name| turnutils::total(&said, name));
    match sent.zip(received) {
        Some((sent, received)) if received > 50 && received + 20 < sent && before == after => Ok(()),
        _ if before != after => Err(format!("{before:?} allocations became {after:?}")),
        _ => Err(format!("it goes on\n{}", shell::tail(&said, 10))),
    }
}

/// Another version of a plugin and back, again and again, while calls go on and clients come.
fn reloads(stage: &Stage) -> Result<(), String> {
    let open = "sluice_policy_questions_timed_out_total";
    // Those of former tests.
    stage.reload(&Fence { country: "FR", ..Fence::default() }, None)?;
    wait_for("nobody", || Ok((stage.folder.json(&["status"])?["allocations"] == 0).then_some(())))?;
    stage.reload(&Fence::default(), None)?;
    let failures = "sluice_policy_failures_total{";
    let (late, failed) = (stage.sum(open)?, stage.sum(failures)?);
    let (mut load, began) = (Load::upon(&stage.folder, stage.port, LOAD_SECONDS)?, Instant::now());
    let mut come = Vec::new();
    for i in 0..RELOADS {
        let fence = Fence { is_next: i % 2 == 0, ..Fence::default() };
        // Beside the fence one that is asked: its questions are under way while it is replaced.
        stage.reload(&Fence { hours: true, ..fence }, None)?;
        if i % 4 == 0 {
            come.push(Beside::start(stage, "20")?);
        }
    }
    stage.reload(&Fence::default(), None)?;
    operator::rollbacks(stage, ROLLBACKS, || Beside::start(stage, "20").map(|client| come.push(client)))?;
    println!("      they took {:.1} of {LOAD_SECONDS} s", began.elapsed().as_secs_f32());
    if load.is_over()? {
        return Err("the load ended before the last of them".to_owned());
    }
    let served = come.into_iter().try_for_each(Beside::lost_nothing).and_then(|()| load.lost_nothing());
    stage.reload(&Fence::default(), None)?;
    match (served, stage.sum(open)? - late, stage.sum(failures)? - failed) {
        (Ok(()), 0, 0) => Ok(()),
        (served, late, failed) => Err(format!("{served:?}; {late} verdicts were too late, {failed} failed")),
    }
}

/// Two tenants with one plugin, each with settings of its own: one is let in by the one and refused by the other.
fn own_settings(stage: &Stage) -> Result<(), String> {
    stage.reload(&Fence { other_country: Some("US"), ..Fence::default() }, None)?;
    stage.refused(stage.other_port, INSIDE, 403)?;
    stage.served_at(stage.other_port, OUTSIDE)
}

/// The adversary reads the addresses of whose plan leaves them, and none of whose does not.
fn planned(stage: &Stage) -> Result<(), String> {
    stage.reload(&Fence::default(), Some(("log-minimisation", "{ address_days = 0 }")))?;
    stage.served_at(stage.other_port, INSIDE)?;
    let line = stage.newest_of("other")?;
    let is_bare = line["addresses"].is_null() && line["person"].as_str().is_some_and(|p| p.starts_with("user-"));
    if !is_bare {
        return Err(format!("the plan leaves more than it says: {line}"));
    }
    stage.served(INSIDE)?;
    let read = stage.read_by_the_adversary()?;
    if !read.contains("main") || read.contains("other") {
        return Err(format!("of these tenants addresses were read: {read:?}"));
    }
    // The same look at a relay that has no plan to carry out.
    stage.reload(&Fence::default(), None)?;
    stage.served_at(stage.other_port, INSIDE)?;
    match stage.read_by_the_adversary()?.contains("other") {
        true => Ok(()),
        false => Err("a plan that is switched off is not seen".to_owned()),
    }
}

/// Open all day, and then not any more: who is there is cut, who comes refused.
fn javascript(stage: &Stage) -> Result<(), String> {
    stage.reload(&Fence::default(), Some(("opening-hours", "{ from = 0, to = 24 }")))?;
    stage.served_at(stage.other_port, INSIDE)?;
    stage.counted("sluice_policy_verdicts_total{plugin=\"other\",hook=\"allocate\",verdict=\"allow\"}", 1)?;
    let hour = std::time::UNIX_EPOCH.elapsed().map_err(|e| e.to_string())?.as_secs() / 3600 % 24;
    let closed = format!("{{ from = {}, to = {} }}", (hour + 12) % 24, (hour + 13) % 24);
    stage.reload(&Fence::default(), Some(("opening-hours", &closed)))?;
    stage.refused(stage.other_port, INSIDE, 403)?;
    stage.audited_of("other", "the plugin's word for it", |entry| {
        entry["kind"] == "tagged" && entry["body"]["plugin"] == "other" && entry["body"]["tags"] == "closed"
    })
}

/// Open all day in a dry run; the same questions to the same component, to one that is closed, and to one that refuses
/// the settings of then.
fn replayed(stage: &Stage) -> Result<(), String> {
    stage.write(&Fence::default(), Some(("opening-hours", "{ from = 0, to = 24 }")))?;
    let text = std::fs::read_to_string(stage.folder.config()).map_err(|e| e.to_string())?;
    let bound = "[[tenant.policy]]\nplugin = \"other\"\n";
    let captured = format!("{bound}mode = \"dry-run\"\ncapture = \"gate.jsonl\"\n");
    stage.folder.write(&text.replacen(bound, &captured, 1))?;
    stage.folder.json(&["reload"])?;
    stage.served_at(stage.other_port, INSIDE)?;
    let file = stage.folder.0.join("state/captures/gate.jsonl");
    let hooks = ["admission.allocate", "admission.permit-peers"];
    let capture = wait_for("a capture of both questions", || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        Ok(hooks.iter().all(|hook| text.contains(hook)).then_some(text))
    })?;
    let mode = std::fs::metadata(&file).map_err(|e| e.to_string())?.permissions().mode() & 0o777;
    if mode != 0o600 || ["127.", "[127,"].iter().any(|address| capture.contains(address)) {
        return Err(format!("it has the mode {mode:o}, or an address in it:\n{capture}"));
    }
    stage.reload(&Fence::default(), None)?;
    let hour = std::time::UNIX_EPOCH.elapsed().map_err(|e| e.to_string())?.as_secs() / 3600 % 24;
    let closed = stage.folder.0.join("closed.json");
    let settings = format!(r#"{{"from": {}, "to": {}}}"#, (hour + 12) % 24, (hour + 13) % 24);
    std::fs::write(&closed, settings).map_err(|e| e.to_string())?;
    let (questions, closed) = (file.display().to_string(), closed.display().to_string());
    for (component, more, code, said) in [
        ("opening-hours", vec![], 0, "0 differ, 0 are unknown"),
        ("opening-hours", vec!["--settings", closed.as_str()], 1, "question 1 (admission.allocate)"),
        ("template", vec![], 2, "its settings are refused"),
    ] {
        let component = shell::target().join("plugins").join(format!("{component}.wasm")).display().to_string();
        let words = [vec!["plugin", "replay", &component, "--questions", &questions], more].concat();
        let mut command = shell::limited(life::PATIENCE, &clients::relay_program().to_string_lossy());
        let ran = shell::capture(command.args(&words))?;
        if ran.code != Some(code) || !ran.text.contains(said) {
            return Err(format!("{code} and {said:?} were to come: {}", ran.complaint(&words.join(" "))));
        }
    }
    Ok(())
}

/// Where no memory may be made executable: a fence, and a plugin that is asked.
fn as_the_unit(stage: &Stage) -> Result<(), String> {
    let port = server::free_udp_port(netns::RELAY_V4)?;
    let (open, folder) = (as_unit::OpenToAll::new()?, Folder::new("policies-unit")?);
    let component = |name: &str| open.copy(&shell::target().join("plugins").join(format!("{name}.wasm")));
    let lines = format!(
        "[geo]\ndatabase = \"{}\"\n\
         [[plugin]]\nname = \"fence\"\nfile = \"{}\"\nsettings = {{ clients = {{ only = [\"DE\"] }}, \
         unknown_clients = \"refuse\", peers = \"any\", nodes = \"any\", storage = \"any\" }}\n\
         [[plugin]]\nname = \"hours\"\nfile = \"{}\"\nsettings = {{ from = 0, to = 24 }}\n\
         [[tenant.policy]]\nplugin = \"fence\"\n[[tenant.policy]]\nplugin = \"hours\"\n[drain]\ndeadline_seconds = 0\n",
        open.copy(&stage.database())?.display(),
        component("geofence")?.display(),
        component("opening-hours")?.display()
    );
    let text = life::configuration(&folder, port, "listen = \"\"", "min = 52000\nmax = 59999", &lines);
    folder.write(&text.replace(&folder.socket().display().to_string(), "auto"))?;
    let config = open.copy(&folder.config())?;
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(&folder.0, all).map_err(|e| e.to_string())?;
    let (own, relay) = (open.copy(&shell::own_program()?)?, open.copy(&clients::relay_program())?);
    let mut command = as_unit::confined(&own, &[relay.into(), "--config".into(), config.into()])?;
    command.env("RUNTIME_DIRECTORY", &folder.0);
    let log = netns::folder()?.join("policies-unit.log");
    let server = Server::start(&mut command, &log, clients::address(netns::RELAY_V4, port)?)?;
    let said = server.output();
    if !said.contains("plugins run on pulley: memory may not be made executable here") {
        return Err(format!("it does not say what runs plugins:\n{}", shell::tail(&said, 20)));
    }
    stage.served_at(port, INSIDE)?;
    stage.refused(port, OUTSIDE, 403)?;
    server.stop()
}
