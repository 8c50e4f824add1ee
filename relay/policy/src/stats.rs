//! What is counted of plugins.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluice_base::limits::{PLUGIN_SERIES_ALL_MAX, PLUGIN_SERIES_MAX};

use crate::failure::Failure;
use crate::hook::Hook;
use crate::{lock, scrub};

/// What came of one question to one plugin.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Outcome {
    /// Yes.
    Allow,
    /// No.
    Deny,
    /// No opinion.
    Abstain,
    /// A failure, which is a no.
    Failed,
}

impl Outcome {
    /// Its word; a dry run's outcome has one of its own, since it decided nothing.
    pub const fn name(self, dry_run: bool) -> &'static str {
        match (self, dry_run) {
            (Outcome::Allow, false) => "allow",
            (Outcome::Deny, false) => "deny",
            (Outcome::Abstain, false) => "abstain",
            (Outcome::Failed, false) => "failed",
            (Outcome::Allow, true) => "would-allow",
            (Outcome::Deny, true) => "would-deny",
            (Outcome::Abstain, true) => "would-abstain",
            (Outcome::Failed, true) => "would-fail",
        }
    }
}

/// Upper bounds of the buckets of durations, in seconds.
pub const DURATION_BOUNDS: [f64; 10] = [25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 5e-3, 25e-3, 100e-3, 400e-3];

/// How long one plugin's answers to one hook took.
#[derive(Clone, Debug, Default)]
pub struct Durations {
    /// Of each bound of [`DURATION_BOUNDS`], how many took as long or shorter, but longer than the bound before; and
    /// how many took longer than all.
    pub buckets: [u64; DURATION_BOUNDS.len() + 1],
    /// All together, in seconds.
    pub sum: f64,
}

/// One series of a counter that a plugin declared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Series {
    /// The counter's name.
    pub counter: String,
    /// What it counts.
    pub help: String,
    /// Names of its labels.
    pub labels: Vec<String>,
    /// For whom it was counted.
    pub tenant: String,
    /// Values of its labels.
    pub values: Vec<String>,
    /// The count.
    pub value: u64,
}

/// All that is counted of one plugin. It outlives a reload.
#[derive(Debug, Default)]
pub struct PluginStats {
    verdicts: Mutex<BTreeMap<(Hook, &'static str), u64>>,
    durations: Mutex<BTreeMap<Hook, Durations>>,
    failures: [AtomicU64; Failure::ALL.len()],
    counters: Mutex<Counters>,
    /// Additions to counters that are not declared, or with a wrong number of labels, or to one series too many.
    pub(crate) mistakes: AtomicU64,
    /// Log lines beyond the rate.
    pub(crate) lines_dropped: AtomicU64,
    /// Denials that the log has no line of.
    pub(crate) denials_untold: AtomicU64,
    /// Questions that are in no capture, though they were to be: also whoever writes captures counts here.
    pub(crate) uncaptured: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Counters {
    declared: Vec<Declared>,
    series: BTreeMap<(usize, String, Vec<String>), u64>,
}

/// A counter of a manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Declared {
    /// Its name, in lower case.
    pub name: String,
    /// What it counts.
    pub help: String,
    /// Its labels.
    pub labels: Vec<String>,
}

/// The metric of a plugin's counter.
pub fn family(plugin: &str, counter: &str) -> String {
    format!("sluice_plugin_{}_{counter}_total", plugin.replace(['-', '.'], "_"))
}

impl PluginStats {
    pub(crate) fn verdict(&self, hook: Hook, outcome: Outcome, dry_run: bool, took: Duration) {
        *lock(&self.verdicts).entry((hook, outcome.name(dry_run))).or_default() += 1;
        let mut durations = lock(&self.durations);
        let durations = durations.entry(hook).or_default();
        let seconds = took.as_secs_f64();
        let bucket = DURATION_BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(DURATION_BOUNDS.len());
        durations.buckets[bucket] += 1;
        durations.sum += seconds;
    }

    pub(crate) fn failure(&self, failure: Failure) {
        self.failures[failure as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Declares counters; series of those that are no longer declared alike are forgotten.
    pub(crate) fn declare(&self, declared: &[Declared]) {
        let mut counters = lock(&self.counters);
        if counters.declared != declared {
            *counters = Counters { declared: declared.to_vec(), series: BTreeMap::new() };
        }
    }

    /// Adds to a declared counter.
    pub(crate) fn add(&self, tenant: &str, counter: &str, labels: &[String], delta: u64) {
        let mut counters = lock(&self.counters);
        let found = counters.declared.iter().position(|d| d.name == counter && d.labels.len() == labels.len());
        let Some(index) = found else {
            self.mistakes.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let other = |_: &String| "other".to_owned();
        let mut key = (
            index,
            tenant.to_owned(),
            labels.iter().map(|l| scrub::label(l).map_or(other(l), str::to_owned)).collect(),
        );
        if !counters.series.contains_key(&key) {
            let of_this = counters.series.keys().filter(|(i, t, _)| *i == index && t == tenant).count();
            if of_this >= PLUGIN_SERIES_MAX {
                key.2 = labels.iter().map(other).collect();
            }
        }
        if counters.series.len() >= PLUGIN_SERIES_ALL_MAX && !counters.series.contains_key(&key) {
            self.mistakes.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let count = counters.series.entry(key).or_default();
        *count = count.saturating_add(delta);
    }

    /// Verdicts so far: hook, word, number.
    pub fn verdicts(&self) -> Vec<(Hook, &'static str, u64)> {
        lock(&self.verdicts).iter().map(|((hook, word), n)| (*hook, *word, *n)).collect()
    }

    /// How long answers took, by hook.
    pub fn durations(&self) -> Vec<(Hook, Durations)> {
        lock(&self.durations).iter().map(|(hook, durations)| (*hook, durations.clone())).collect()
    }

    /// Failures so far, by reason.
    pub fn failures(&self) -> [(Failure, u64); Failure::ALL.len()] {
        Failure::ALL.map(|failure| (failure, self.failures[failure as usize].load(Ordering::Relaxed)))
    }

    /// Series of the plugin's own counters.
    pub fn series(&self) -> Vec<Series> {
        let counters = lock(&self.counters);
        let of = |((index, tenant, values), value): (&(usize, String, Vec<String>), &u64)| {
            let declared = counters.declared.get(*index)?;
            Some(Series {
                counter: declared.name.clone(),
                help: declared.help.clone(),
                labels: declared.labels.clone(),
                tenant: tenant.clone(),
                values: values.clone(),
                value: *value,
            })
        };
        counters.series.iter().filter_map(of).collect()
    }

    /// Additions to counters that the plugin did not declare so, or beyond the series that it may have.
    pub fn mistakes(&self) -> u64 {
        self.mistakes.load(Ordering::Relaxed)
    }

    /// Denials that have no line in the log, since there were too many of them.
    pub fn denials_untold(&self) -> u64 {
        self.denials_untold.load(Ordering::Relaxed)
    }

    /// Questions that are in no capture, though they were to be.
    pub fn uncaptured(&self) -> u64 {
        self.uncaptured.load(Ordering::Relaxed)
    }

    /// Log lines of the plugin that were over the rate.
    pub fn lines_dropped(&self) -> u64 {
        self.lines_dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared() -> Declared {
        Declared { name: "calls".to_owned(), help: "Calls.".to_owned(), labels: vec!["kind".to_owned()] }
    }

    fn add(stats: &PluginStats, label: &str) {
        stats.add("clinic", "calls", &[label.to_owned()], 1);
    }

    #[test]
    fn series_are_bounded_and_no_address_becomes_one() {
        let stats = PluginStats::default();
        stats.declare(&[declared()]);
        add(&stats, "192.0.2.7");
        assert_eq!(stats.series()[0].values, ["other"]);
        (0..1000).for_each(|i| add(&stats, &format!("k{i}")));
        let series = stats.series();
        assert!(series.len() <= PLUGIN_SERIES_MAX + 1, "{}", series.len());
        assert_eq!(series.iter().map(|s| s.value).sum::<u64>(), 1001);
    }

    #[test]
    fn no_persons_token_becomes_a_series() {
        let stats = PluginStats::default();
        stats.declare(&[declared()]);
        let token = "0123456789abcdef".repeat(4);
        add(&stats, &token);
        add(&stats, &format!("caller:{}", &token[..32]));
        let series = stats.series();
        assert_eq!((series.len(), &series[0].values[..], series[0].value), (1, &["other".to_owned()][..], 2));
    }

    #[test]
    fn all_series_of_a_plugin_together_are_bounded() {
        let stats = PluginStats::default();
        stats.declare(&[declared()]);
        for tenant in 0..2 * PLUGIN_SERIES_ALL_MAX / PLUGIN_SERIES_MAX {
            for label in 0..PLUGIN_SERIES_MAX {
                stats.add(&format!("tenant-{tenant}"), "calls", &[format!("k{label}")], 1);
            }
        }
        stats.add("tenant-0", "calls", &["k0".to_owned()], 1);
        assert_eq!((stats.series().len(), stats.mistakes()), (PLUGIN_SERIES_ALL_MAX, PLUGIN_SERIES_ALL_MAX as u64));
        assert_eq!(stats.series()[0].value, 2);
    }

    #[test]
    fn what_is_not_declared_is_a_mistake() {
        let stats = PluginStats::default();
        stats.declare(&[declared()]);
        stats.add("clinic", "other", &[], 1);
        stats.add("clinic", "calls", &[], 1);
        assert_eq!((stats.mistakes(), stats.series().len()), (2, 0));
    }
}
