//! Plugins that misbehave in every way, one after the other, in one relay: a client beside them loses nothing, the
//! relay grows by no more than it may, and what they are asked is denied and counted with its reason.

use super::Beside;
use super::stage::{Fence, INSIDE, Stage};
use crate::report::Report;

/// How much the relay's memory may grow at any moment of all that.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// Packets of one client beside them, one each 20 ms; then the next one begins.
const BESIDE: &str = "150";

/// What a plugin does in a hook, the code that its tenant's client is told, and the reason that is counted.
const CONDUCTS: &[(&str, &str, u16, &str)] = &[
    ("trap", "allocate", 508, "trap"),
    ("recurse", "allocate", 508, "trap"),
    ("spin", "allocate", 508, "deadline"),
    ("allocate", "allocate", 508, "memory"),
    ("oblige", "allocate", 508, "obligation"),
    ("huge", "allocate", 508, "answer"),
    ("flood", "allocate", 508, "flood"),
    ("lie", "permit-peers", 508, "answer"),
    ("spin", "permit-peers", 508, "deadline"),
    ("trap", "permit-peers", 508, "trap"),
    ("recurse", "permit-peers", 508, "trap"),
    ("allocate", "permit-peers", 508, "memory"),
    ("oblige", "permit-peers", 508, "obligation"),
    ("huge", "permit-peers", 508, "answer"),
    ("flood", "permit-peers", 508, "flood"),
];

/// A plugin that no configuration comes into force with: its component, what it does and where, and what is said of it.
type Unloadable = (&'static str, &'static str, &'static str, &'static str);

const UNLOADABLE: &[Unloadable] = &[
    ("hostile-start-up", "", "", "failed (deadline)"),
    ("hostile-describe", "", "", "setup.describe failed (deadline)"),
    ("hostile-ungranted", "", "", "the grant \"kv\""),
    ("hostile-any", "spin", "validate-settings", "failed (deadline)"),
    ("hostile-any", "allocate", "validate-settings", "failed (memory)"),
    ("hostile-any", "recurse", "validate-settings", "failed (trap)"),
    ("hostile-any", "trap", "validate-settings", "failed (trap)"),
    ("hostile-any", "huge", "validate-settings", "failed (answer)"),
    ("hostile-any", "flood", "validate-settings", "failed (flood)"),
    ("hostile-any", "spin", "fences", "failed (deadline)"),
    ("hostile-any", "allocate", "fences", "failed (memory)"),
    ("hostile-any", "recurse", "fences", "failed (trap)"),
    ("hostile-any", "trap", "fences", "failed (trap)"),
    ("hostile-any", "lie", "fences", "names a set that the operator does not have"),
    ("hostile-any", "oblige", "fences", "failed (obligation)"),
    ("hostile-any", "huge", "fences", "failed (memory)"),
    ("hostile-any", "flood", "fences", "failed (flood)"),
    ("hostile-logs", "spin", "validate-settings", "failed (deadline)"),
    ("hostile-logs", "allocate", "validate-settings", "failed (memory)"),
    ("hostile-logs", "recurse", "validate-settings", "failed (trap)"),
    ("hostile-logs", "trap", "validate-settings", "failed (trap)"),
    ("hostile-logs", "flood", "validate-settings", "failed (flood)"),
];

/// What a plan of records does, and the reason that is counted and told. The last one stays in force.
const PLANS: &[(&str, &str)] = &[
    ("spin", "deadline"),
    ("allocate", "memory"),
    ("recurse", "trap"),
    ("lie", "answer"),
    ("oblige", "obligation"),
    ("huge", "memory"),
    ("flood", "flood"),
    ("trap", "trap"),
];

/// All of it.
pub(super) fn run(report: &Report, stage: &Stage) {
    let before = harmless(stage).and_then(|()| stage.memory_bytes());
    let beside = |test: fn(&mut Watch<'_>) -> Result<(), String>| {
        let mut watch = Watch::begin(stage, before.clone()?)?;
        test(&mut watch)?;
        watch.end()
    };
    report.test("policies: a plugin that misbehaves harms its own tenant alone", || beside(answers));
    report.test("policies: what does not load changes nothing", || beside(unloadable));
    report.test("policies: a plan of records that cannot be had keeps nothing, and refuses nobody", || beside(plans));
}

/// A client beside what is tried, again and again, and the relay's memory.
struct Watch<'s> {
    stage: &'s Stage,
    before_bytes: u64,
    beside: Beside,
}

impl<'s> Watch<'s> {
    fn begin(stage: &'s Stage, before_bytes: u64) -> Result<Self, String> {
        Ok(Watch { stage, before_bytes, beside: Beside::start(stage, BESIDE)? })
    }

    /// After each thing that is tried.
    fn look(&mut self) -> Result<(), String> {
        let growth = self.growth_bytes()?;
        if growth > GROWTH_BYTES_MAX {
            return Err(format!("the relay has grown by {} MiB", growth >> 20));
        }
        if self.beside.is_over()? {
            let next = Beside::start(self.stage, BESIDE)?;
            std::mem::replace(&mut self.beside, next).lost_nothing()?;
        }
        Ok(())
    }

    fn growth_bytes(&self) -> Result<u64, String> {
        Ok(self.stage.memory_most_bytes()?.saturating_sub(self.before_bytes))
    }

    fn end(mut self) -> Result<(), String> {
        self.look()?;
        println!("      the relay has grown by {} KiB at the most", self.growth_bytes()? >> 10);
        self.beside.lost_nothing()
    }
}

fn settings(what: &str, hook: &str) -> String {
    format!("{{ do = \"{what}\", in = \"{hook}\" }}")
}

/// The other tenant's plugin could misbehave, and does not.
fn harmless(stage: &Stage) -> Result<(), String> {
    stage.reload(&Fence::default(), Some(("hostile-any", &settings("trap", "nothing"))))
}

/// The failures of the other tenant's plugin by this reason.
fn failures(reason: &str) -> String {
    format!("sluice_policy_failures_total{{plugin=\"other\",reason=\"{reason}\"}}")
}

/// Answers to questions.
fn answers(watch: &mut Watch<'_>) -> Result<(), String> {
    let stage = watch.stage;
    for (what, hook, code, reason) in CONDUCTS {
        let mut deny = || {
            let before = stage.sum(&failures(reason))?;
            stage.reload(&Fence::default(), Some(("hostile-any", &settings(what, hook))))?;
            stage.refused(stage.other_port, INSIDE, *code)?;
            stage.counted(&failures(reason), before + 1)?;
            watch.look()
        };
        deny().map_err(|error| format!("{what} in {hook}: {error}"))?;
    }
    // What the floods said and counted was cut down.
    stage.counted("sluice_policy_log_lines_dropped_total{plugin=\"other\"}", 1000)?;
    stage.counted("sluice_policy_counter_mistakes_total{plugin=\"other\"}", 1000)?;
    let series = stage.series("sluice_plugin_other_seen_total{")?;
    if series > 65 {
        return Err(format!("{series} series of its counter"));
    }
    // A grant without bounds grants what the relay's own bounds leave.
    stage.reload(&Fence::default(), Some(("hostile-any", &settings("lie", "allocate"))))?;
    stage.served_at(stage.other_port, INSIDE)
}

/// A reload is refused as a whole, and what ran before goes on.
fn unloadable(watch: &mut Watch<'_>) -> Result<(), String> {
    const SUCCESSFUL: &str = "sluice_config_last_reload_successful";
    let stage = watch.stage;
    for (component, what, hook, said) in UNLOADABLE {
        // A refusal is counted by a gauge: only where it was 1 before does a 0 tell of this one.
        harmless(stage).and_then(|()| stage.counted(SUCCESSFUL, 1))?;
        stage.write(&Fence::default(), Some((component, &settings(what, hook))))?;
        let ran = stage.folder.ask(&["reload"])?;
        let is_counted = stage.sum(SUCCESSFUL)? == 0;
        if ran.code != Some(1) || !ran.text.contains(said) || !is_counted {
            let complaint = ran.complaint("reload");
            return Err(format!("{component}, {what} in {hook}: {said:?} was to be said and counted: {complaint}"));
        }
        watch.look().map_err(|error| format!("{component}, {what} in {hook}: {error}"))?;
    }
    stage.served(INSIDE)?;
    stage.served_at(stage.other_port, INSIDE)
}

/// Whatever a plan of records does: the relay serves, says why, and writes what no plan may drop.
fn plans(watch: &mut Watch<'_>) -> Result<(), String> {
    let stage = watch.stage;
    for (what, reason) in PLANS {
        let of = |error: String| format!("{what}: {error}");
        let before = stage.sum(&failures(reason))?;
        stage.write(&Fence::default(), Some(("hostile-logs", &settings(what, "log-plan"))))?;
        let reload = stage.folder.json(&["reload"])?;
        let is_told = reload["warnings"].to_string().contains(reason);
        if reload["outcome"] != "applied" || !is_told {
            return Err(of(format!("it was to come into force, and {reason} to be told: {reload}")));
        }
        stage.counted(&failures(reason), before + 1).and_then(|()| watch.look()).map_err(of)?;
    }
    stage.served_at(stage.other_port, INSIDE)?;
    let line = stage.newest_of("other")?;
    let has = |field: &str| !line[field].is_null();
    if !has("session") || ["at", "person", "addresses", "lifetime_seconds"].into_iter().any(has) {
        return Err(format!("a record without a plan is {line}"));
    }
    // One that would keep everything for ever keeps what the relay does.
    stage.reload(&Fence::default(), Some(("hostile-logs", "{}")))?;
    stage.served_at(stage.other_port, INSIDE)?;
    let line = stage.newest_of("other")?;
    let all = ["session", "at", "person", "addresses", "lifetime_seconds"];
    if all.iter().all(|field| !line[*field].is_null()) {
        Ok(())
    } else {
        Err(format!("the floor is not there: {line}"))
    }
}
