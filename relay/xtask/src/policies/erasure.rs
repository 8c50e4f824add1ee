//! A person whom policies forget, and policies that are asked again.

use std::fs::File;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::Beside;
use super::stage::{Fence, INSIDE, Stage};
use crate::life::wait_for;
use crate::{clients, shell};

/// A plugin that notes who comes: in one entry that names the person, and in one that does not.
const COMPONENT: &str = "hostile-ungranted";

/// What a client is told whom it knows.
const KNOWN: u16 = 486;

/// The command; whose user it is comes from elsewhere.
const ERASE: &[&str] = &["plugin", "erase", "--tenant", "other"];

/// Whoever is erased is a stranger, if the plugin does its part.
pub(super) fn forgotten(stage: &Stage) -> Result<(), String> {
    put(stage, "{}")?;
    stage.served_at(stage.other_port, INSIDE)?;
    put(stage, "{ known = \"refuse\", do = \"trap\", in = \"erase\" }")?;
    stage.refused(stage.other_port, INSIDE, KNOWN)?;
    let ran = by_file(stage, &[])?;
    if ran.code != Some(1) || !ran.text.contains("not forgotten by other: run this again") {
        return Err(format!("a plugin that fails was to be told: {}", ran.complaint("plugin erase")));
    }
    // What it has derived is still there.
    stage.refused(stage.other_port, INSIDE, KNOWN)?;
    put(stage, "{ known = \"refuse\" }")?;
    let said = by_file(stage, &["--json"])?.ok("plugin erase")?;
    let erased: Value = serde_json::from_str(&said).map_err(|e| format!("{e} in {said}"))?;
    let expected = json!({"plugin": "other", "entries": 0, "left": 0, "deleted": 1, "kept": [], "failure": null});
    if erased["plugins"] != json!([expected]) {
        return Err(format!("it was to be {expected}, and is {erased}"));
    }
    stage.served_at(stage.other_port, INSIDE)?;
    for keys in [json!(["other", "other (failed)"]), json!(["other", "other"])] {
        audited(stage, "plugin erase", &keys)?;
    }
    let ran = stage.folder.ask(&["plugin", "erase", "--tenant", "nobody"])?;
    if ran.code == Some(1) { Ok(()) } else { Err(ran.complaint("plugin erase of no name")) }
}

/// A call of somebody whom the plugin knew ends when it is asked again, and not before.
pub(super) fn reviewed(stage: &Stage) -> Result<(), String> {
    put(stage, "{}")?;
    let mut command = Command::new("turnutils_uclient");
    stage.arguments(&mut command, stage.other_port, INSIDE, "1000");
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let call = Beside(child.map_err(|e| format!("turnutils_uclient: {e}"))?);
    let calls = || {
        let list = stage.folder.json(&["allocations"])?;
        let rows = list["allocations"].as_array().into_iter().flatten();
        Ok::<_, String>(rows.filter(|row| row["tenant"] == "other" && row["packets_to_client"] != 0).count())
    };
    wait_for("packets of the call", || Ok((calls()? > 0).then_some(())))?;
    by_stdin(stage)?;
    if calls()? == 0 {
        return Err("the call has ended before anybody was asked".to_owned());
    }
    let review = stage.folder.json(&["plugin", "review", "--tenant", "other"])?;
    let ended = wait_for("the end of the call", || Ok((calls()? == 0).then_some(())));
    call.stop()?;
    ended?;
    audited(stage, "plugin review", &json!(["other"]))?;
    let unknown = stage.folder.ask(&["plugin", "review", "--tenant", "nobody"])?;
    if review["tenants"] != json!(["other"]) || unknown.code != Some(1) {
        return Err(format!("{review}, and of an unknown tenant {}", unknown.complaint("plugin review")));
    }
    stage.reload(&Fence::default(), None)
}

/// Has the plugin decide for the other tenant, with what it wants to be granted.
fn put(stage: &Stage, settings: &str) -> Result<(), String> {
    stage.write(&Fence::default(), Some((COMPONENT, settings)))?;
    let config = std::fs::read_to_string(stage.folder.config()).map_err(|e| e.to_string())?;
    let entry = "[[plugin]]\nname = \"other\"\n";
    stage.folder.write(&config.replacen(entry, &format!("{entry}grants = [\"kv\"]\n"), 1))?;
    let reload = stage.folder.json(&["reload"])?;
    if reload["outcome"] == "applied" { Ok(()) } else { Err(reload.to_string()) }
}

fn name_file(stage: &Stage) -> Result<String, String> {
    let file = stage.folder.0.join("person");
    std::fs::write(&file, format!("{}\n", clients::STATIC_USER.0)).map_err(|e| e.to_string())?;
    Ok(file.display().to_string())
}

fn by_file(stage: &Stage, more: &[&str]) -> Result<shell::Ran, String> {
    stage.folder.ask(&[ERASE, &["--user-file", &name_file(stage)?], more].concat())
}

fn by_stdin(stage: &Stage) -> Result<(), String> {
    let input = File::open(name_file(stage)?).map_err(|e| e.to_string())?;
    let mut command = Command::new(clients::relay_program());
    command.args(ERASE).arg("--socket").arg(stage.folder.socket());
    shell::capture_with_input(&mut command, input.into())?.ok("plugin erase").map(drop)
}

/// Waits until the audit has a change of this name about these.
fn audited(stage: &Stage, what: &str, keys: &Value) -> Result<(), String> {
    wait_for(&format!("{what} of {keys} in the audit"), || {
        let tail = stage.folder.json(&["audit", "tail", "-n", "100"])?;
        let mut entries = tail["entries"].as_array().into_iter().flatten();
        let is_it = |entry: &Value| entry["body"]["what"] == what && entry["body"]["keys"] == *keys;
        Ok(entries.any(is_it).then_some(()))
    })
}
