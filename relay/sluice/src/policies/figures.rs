//! What the policies have done, for a scrape.

use sluice_metrics::{Metrics, OwnCounter, Policies as Figures, PolicyDurations};
use sluice_policy::{DURATION_BOUNDS, Host, PluginStats, family};

use super::Policies;
use std::sync::Arc;

impl Policies {
    /// Has what plugins do shown at each scrape.
    pub(crate) fn show(self: &Arc<Self>, metrics: &Metrics, unix_seconds: fn() -> u64) {
        let policies = self.clone();
        metrics.watch_policies(move || match policies.host() {
            Some(host) => figures(host, unix_seconds()),
            None => Figures::default(),
        });
    }
}

fn figures(host: &Host, unix_seconds: u64) -> Figures {
    let mut figures = Figures {
        waiting: host.waiting() as u64,
        places_age_seconds: host.places().map(|places| places.age(unix_seconds).as_secs_f64()),
        bounds: &DURATION_BOUNDS,
        ..Figures::default()
    };
    for (plugin, stats) in host.stats() {
        add(&mut figures, &plugin, &stats);
    }
    figures
}

fn add(figures: &mut Figures, plugin: &str, stats: &PluginStats) {
    let labels = |rest: &[&str]| std::iter::once(plugin).chain(rest.iter().copied()).map(str::to_owned).collect();
    for (hook, word, count) in stats.verdicts() {
        figures.verdicts.push((labels(&[hook.name(), word]), count));
    }
    for (failure, count) in stats.failures() {
        figures.failures.push((labels(&[failure.name()]), count));
    }
    for (hook, durations) in stats.durations() {
        let buckets = durations.buckets.to_vec();
        figures.durations.push(PolicyDurations { labels: labels(&[hook.name()]), buckets, sum: durations.sum });
    }
    figures.lines_dropped.push((labels(&[]), stats.lines_dropped()));
    figures.denials_untold.push((labels(&[]), stats.denials_untold()));
    figures.uncaptured.push((labels(&[]), stats.uncaptured()));
    figures.mistakes.push((labels(&[]), stats.mistakes()));
    for series in stats.series() {
        figures.own.push(OwnCounter {
            name: family(plugin, &series.counter),
            help: series.help,
            labels: std::iter::once("tenant".to_owned()).chain(series.labels).collect(),
            values: std::iter::once(series.tenant).chain(series.values).collect(),
            value: series.value,
        });
    }
}
