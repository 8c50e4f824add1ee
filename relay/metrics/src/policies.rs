//! What policies have done, as they tell when they are asked.

/// Their figures. All empty where there are no plugins.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Policies {
    /// Questions that wait for a plugin.
    pub waiting: u64,
    /// Seconds since the database of places was built.
    pub places_age_seconds: Option<f64>,
    /// Verdicts by plugin, hook and word.
    pub verdicts: Vec<(Vec<String>, u64)>,
    /// Failures by plugin and reason.
    pub failures: Vec<(Vec<String>, u64)>,
    /// Log lines over the rate, by plugin.
    pub lines_dropped: Vec<(Vec<String>, u64)>,
    /// Denials without a line in the log, by plugin.
    pub denials_untold: Vec<(Vec<String>, u64)>,
    /// Questions that are in no capture, though they were to be, by plugin.
    pub uncaptured: Vec<(Vec<String>, u64)>,
    /// Additions to counters that were not declared so, by plugin.
    pub mistakes: Vec<(Vec<String>, u64)>,
    /// Upper bounds of the buckets of durations, in seconds.
    pub bounds: &'static [f64],
    /// How long answers took, by plugin and hook.
    pub durations: Vec<PolicyDurations>,
    /// Counters that plugins declared, those of one name together.
    pub own: Vec<OwnCounter>,
}

/// How long the answers of one plugin to one hook took.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PolicyDurations {
    /// Plugin and hook.
    pub labels: Vec<String>,
    /// How many were in each bucket, the last beyond every bound.
    pub buckets: Vec<u64>,
    /// All together, in seconds.
    pub sum: f64,
}

/// One series of a plugin's own counter.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OwnCounter {
    /// The family's name.
    pub name: String,
    /// What it counts.
    pub help: String,
    /// Names of its labels.
    pub labels: Vec<String>,
    /// Their values.
    pub values: Vec<String>,
    /// The count.
    pub value: u64,
}
