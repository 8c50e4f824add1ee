//! What the log is told of denials, by a thread of its own: who denies, a worker among them, writes no line.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam::channel::Sender;
use sluice_base::limits::PLUGIN_LINES_PER_SECOND;

use crate::hook::Hook;
use crate::rate::Rate;
use crate::stats::PluginStats;

/// A denial, as the log tells it: which plugin, for which tenant, and why, never about whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Line {
    plugin: Arc<str>,
    tenant: Arc<str>,
    hook: Hook,
    reason: &'static str,
    dry_run: bool,
}

/// What one plugin has told about one tenant.
pub(crate) struct Voice {
    plugin: Arc<str>,
    tenant: Arc<str>,
    stats: Arc<PluginStats>,
    rate: Rate,
    lines: Sender<Line>,
}

impl Voice {
    /// On the way to whoever writes `lines`.
    pub(crate) fn new(plugin: Arc<str>, tenant: Arc<str>, stats: Arc<PluginStats>, lines: Sender<Line>) -> Self {
        Voice { plugin, tenant, stats, rate: Rate::new(PLUGIN_LINES_PER_SECOND), lines }
    }

    /// Has a denial told, or counted where there are too many of them. Never waits.
    pub(crate) fn says_no(&self, hook: Hook, reason: &'static str, dry_run: bool) {
        let line = || Line { plugin: self.plugin.clone(), tenant: self.tenant.clone(), hook, reason, dry_run };
        let is_told = self.rate.take(Instant::now()) && self.lines.try_send(line()).is_ok();
        if !is_told {
            self.stats.denials_untold.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Line {
    /// Writes it.
    pub(crate) fn write(self) {
        let Line { plugin, tenant, hook, reason, dry_run } = self;
        let (plugin, tenant, hook) = (&*plugin, &*tenant, hook.name());
        match dry_run {
            false => tracing::info!(plugin, tenant, hook, reason, "a policy says no"),
            true => tracing::info!(plugin, tenant, hook, reason, "a policy would say no: a dry run"),
        }
    }
}

/// How many denials of each plugin had no line, as far as the log knows.
#[derive(Debug, Default)]
pub(crate) struct Untold(HashMap<String, u64>);

impl Untold {
    /// Plugins with more of them than the log was told, and how many more.
    pub(crate) fn more<'s>(&mut self, stats: &'s [(String, Arc<PluginStats>)]) -> Vec<(&'s str, u64)> {
        let more = |(plugin, stats): &'s (String, Arc<PluginStats>)| {
            let (all, told) = (stats.denials_untold(), self.0.entry(plugin.clone()).or_default());
            let more = all - *told;
            *told = all;
            (more > 0).then_some((plugin.as_str(), more))
        };
        stats.iter().filter_map(more).collect()
    }

    /// Writes them.
    pub(crate) fn write(&mut self, stats: &[(String, Arc<PluginStats>)]) {
        for (plugin, untold) in self.more(stats) {
            tracing::info!(plugin, untold, "a policy said no more often than is told one by one");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_beyond_the_rate_are_counted_and_their_number_is_said_once() {
        let (lines, written) = crossbeam::channel::unbounded();
        let stats = Arc::new(PluginStats::default());
        let voice = Voice::new("fence".into(), "clinic".into(), stats.clone(), lines);
        (0..PLUGIN_LINES_PER_SECOND + 5).for_each(|_| voice.says_no(Hook::Geofence, "client outside", false));
        assert_eq!(written.len(), PLUGIN_LINES_PER_SECOND as usize);
        let (mut untold, all) = (Untold::default(), [("fence".to_owned(), stats)]);
        assert_eq!(untold.more(&all), [("fence", 5)]);
        assert_eq!(untold.more(&all), []);
    }

    #[test]
    fn where_nobody_writes_denials_are_counted_and_nobody_waits() {
        let (lines, written) = crossbeam::channel::bounded(1);
        let stats = Arc::new(PluginStats::default());
        let voice = Voice::new("fence".into(), "clinic".into(), stats.clone(), lines);
        (0..3).for_each(|_| voice.says_no(Hook::Allocate, "forbidden", true));
        assert_eq!((written.len(), stats.denials_untold()), (1, 2));
    }
}
