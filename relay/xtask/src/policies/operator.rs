//! What an operator does by commands: one truth, the configuration file, and it is in force or unchanged.

use std::path::PathBuf;

use serde_json::Value;

use super::stage::{Fence, INSIDE, Stage, next_version};
use crate::shell;

/// What a person has written into the file.
const COMMENT: &str =
    "\n# What a person wrote stays, and where it was.\n[turn]\nnonce_lifetime_seconds = 3600 # an hour\n";

/// The plugin that is installed, enabled, set, replaced and rolled back.
const NAME: &str = "by-command";

/// All of it, in the order in which an operator would.
pub(super) fn test(stage: &Stage) -> Result<(), String> {
    stage.reload(&Fence::default(), None)?;
    let begun = config(stage)?.replacen("\n[[tenant]]", &format!("{COMMENT}\n[[tenant]]"), 1);
    stage.folder.write(&begun)?;
    let [open, closed, wrong] =
        [("open", fence("DE")), ("closed", fence("FR")), ("wrong", r#"{"clients": {"only": ["UK"]}}"#.to_owned())]
            .map(|(name, text)| settings(stage, name, &text));
    let (open, closed, wrong) = (open?, closed?, wrong?);
    let refused = |words: &[&str], said: &str| refused(stage, words, said);
    // Without settings it does not load, and nothing of it stays.
    refused(&["install", &component("geofence"), "--name", NAME], "--settings FILE")?;
    let installed = done(stage, &["install", &component("geofence"), "--name", NAME, "--settings", &open])?;
    let digest = text(&installed["digest"])?;
    let listed = stage.folder.json(&["plugin", "list"])?;
    let is_it = |plugin: &&Value| plugin["name"] == NAME && plugin["digest"] == digest;
    let bound = listed["plugins"].as_array().into_iter().flatten().find(is_it).map(|plugin| plugin["tenants"].clone());
    if bound != Some(Value::Array(Vec::new())) {
        return Err(format!("it is not listed as installed and bound to nobody: {listed}"));
    }
    done(stage, &["enable", NAME, "--tenant", "other", "--dry-run"])?;
    done(stage, &["settings", NAME, &closed])?;
    stage.served_at(stage.other_port, INSIDE)?;
    done(stage, &["enable", NAME, "--tenant", "other"])?;
    stage.refused(stage.other_port, INSIDE, 403)?;
    refused(&["settings", NAME, &wrong], "/clients")?;
    done(stage, &["settings", NAME, &open, "--tenant", "other"])?;
    stage.served_at(stage.other_port, INSIDE)?;
    let shown = |of: &[&str]| stage.folder.json(&[&["plugin", "settings", NAME], of].concat());
    if shown(&[])? == shown(&["--tenant", "other"])? {
        return Err("a tenant's own settings are those of all".to_owned());
    }
    // Its own settings end with the binding.
    done(stage, &["disable", NAME, "--tenant", "other"])?;
    done(stage, &["enable", NAME, "--tenant", "other"])?;
    refused(&["enable", NAME, "--tenant", "othr"], "there is no tenant \"othr\"")?;
    stage.refused(stage.other_port, INSIDE, 403)?;
    replaced(stage, &digest)?;
    let with = config(stage)?;
    done(stage, &["disable", NAME, "--tenant", "other"])?;
    stage.served_at(stage.other_port, INSIDE)?;
    let without = config(stage)?;
    let binding = with.find(&format!("\n[[tenant.policy]]\nplugin = \"{NAME}\"\n")).map_or("", |at| &with[at..]);
    let is_kept = [&with, &without].iter().all(|text| text.contains(COMMENT.trim_start()));
    // It was the last in the file.
    if !is_kept || binding.is_empty() || with.replacen(binding, "", 1) != without {
        return Err(format!("more changes than what was asked for:\n{with}\n-- and then --\n{without}"));
    }
    put_back(stage)?;
    stage.reload(&Fence::default(), None)
}

/// Another component under the same name, and back.
fn replaced(stage: &Stage, digest: &str) -> Result<(), String> {
    let few = settings(stage, "few", r#"{"per_user": 50}"#)?;
    let replaced = done(stage, &["install", &component("template"), "--name", NAME, "--settings", &few])?;
    if replaced["former_digest"] != *digest || replaced["digest"] == *digest {
        return Err(format!("it is not said what was replaced by what: {replaced}"));
    }
    stage.served_at(stage.other_port, INSIDE)?;
    let back = done(stage, &["rollback", NAME])?;
    if back["digest"] != *digest {
        return Err(format!("it is not what it was: {back}"));
    }
    stage.refused(stage.other_port, INSIDE, 403)?;
    refused(stage, &["rollback", NAME], "there was no by-command before this one")
}

/// A plugin that is asked is replaced by its next version and put back, so many times; something happens before each.
pub(super) fn rollbacks(
    stage: &Stage,
    times: usize,
    mut before_each: impl FnMut() -> Result<(), String>,
) -> Result<(), String> {
    let many = settings(stage, "many", r#"{"per_user": 1000}"#)?;
    let next = next_version(&stage.folder, "template")?.display().to_string();
    let first = done(stage, &["install", &component("template"), "--name", NAME, "--settings", &many])?;
    done(stage, &["enable", NAME, "--tenant", "main"])?;
    for _ in 0..times {
        before_each()?;
        let second = done(stage, &["install", &next, "--name", NAME])?;
        let back = done(stage, &["rollback", NAME])?;
        if back["digest"] != first["digest"] || second["digest"] == first["digest"] {
            return Err(format!("{first} became {second} and then {back}"));
        }
    }
    Ok(())
}

/// What the commands found good and the running relay refuses is put back.
fn put_back(stage: &Stage) -> Result<(), String> {
    let text = config(stage)?;
    stage.folder.write(&format!("{text}\n[policy]\nqueue = 77\n"))?;
    refused(stage, &["enable", NAME, "--tenant", "other"], "policy.queue   (takes a restart)")?;
    stage.folder.write(&text)
}

/// A command that does what it is told, all of it in force.
fn done(stage: &Stage, words: &[&str]) -> Result<Value, String> {
    let answer = stage.folder.json(&[&["plugin"], words].concat())?;
    match answer["reload"]["outcome"] == "applied" && answer["changed"] == true {
        true => Ok(answer),
        false => Err(format!("plugin {}: {answer}", words.join(" "))),
    }
}

/// A command that fails, with a reason, and leaves everything as it was.
fn refused(stage: &Stage, words: &[&str], said: &str) -> Result<(), String> {
    let before = (config(stage)?, installed(stage));
    let ran = stage.folder.ask(&[&["plugin"], words].concat())?;
    let what = format!("plugin {}", words.join(" "));
    if ran.code != Some(1) || !ran.text.contains(said) {
        return Err(format!("{said:?} was to be said: {}", ran.complaint(&what)));
    }
    match before == (config(stage)?, installed(stage)) {
        true => Ok(()),
        false => Err(format!("{what} was refused, and the file or the components are others than before")),
    }
}

fn config(stage: &Stage) -> Result<String, String> {
    std::fs::read_to_string(stage.folder.config()).map_err(|e| e.to_string())
}

/// How many versions lie in the folder of installed components.
fn installed(stage: &Stage) -> usize {
    std::fs::read_dir(stage.folder.0.join("plugins").join(NAME)).map_or(0, Iterator::count)
}

fn settings(stage: &Stage, name: &str, text: &str) -> Result<String, String> {
    let path: PathBuf = stage.folder.0.join(format!("{name}.json"));
    std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path.display().to_string())
}

fn fence(country: &str) -> String {
    format!(
        r#"{{"clients": {{"only": ["{country}"]}}, "unknown_clients": "refuse", "peers": "any", "nodes": "any",
            "storage": "any"}}"#
    )
}

fn component(name: &str) -> String {
    shell::target().join("plugins").join(format!("{name}.wasm")).display().to_string()
}

fn text(value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("{value} is no text"))
}
