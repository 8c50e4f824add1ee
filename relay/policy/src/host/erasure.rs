//! A person is to be forgotten: what names them in the stores of plugins goes, and each plugin is asked to forget the
//! rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use sluice_base::Pii;
use sluice_base::limits::ERASURE_KEPT_MAX;

use super::Host;
use crate::bindings::exports::sluice::policy::erasure::Report;
use crate::bindings::sluice::policy::types::{CallContext, Occasion};
use crate::failure::Failure;
use crate::guest::unix_seconds;
use crate::hook::Hook;
use crate::judge::Tenancy;
use crate::plugin::no_hook;
use crate::stats::Outcome;
use crate::{lock, scrub};

/// What one plugin had of a person, and what became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Erased {
    /// The plugin.
    pub plugin: String,
    /// Entries and counters of its store that named the person, or all where it decides no more for the tenant, since
    /// nobody can ask it what else is about the person. They are gone, whatever the plugin says.
    pub entries: usize,
    /// Entries and counters that name nobody, and stay until they end: of a plugin that decides, and has no hook by
    /// which it could be asked what they are about.
    pub left: usize,
    /// What it answered; none where it is not bound any more, or has no such hook.
    pub answer: Option<Result<Forgotten, Failure>>,
}

/// What a plugin says of what it had derived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forgotten {
    /// How much of it is gone.
    pub deleted: u32,
    /// What stays, and why: for the person.
    pub kept: Vec<String>,
}

impl Host {
    /// Deletes what plugins have stored about a person of a tenant, and asks those that decide for it to forget what
    /// else they have derived, dry runs too. A plugin that fails is asked again by the same call. It runs guests: not
    /// for a thread that others wait for.
    pub fn erase(&self, tenant: &str, user: &Pii<Arc<[u8]>>) -> Vec<Erased> {
        let subject = self.names(tenant).subject(user);
        let table = self.table();
        let is_bound = |name: &str| table.bindings().any(|(of, plugin, _)| of == tenant && &*plugin.name == name);
        let mut of_plugins: BTreeMap<String, Erased> = BTreeMap::new();
        for (plugin, entries, left) in self.clear(tenant, &subject, is_bound) {
            of_plugins.insert(plugin.clone(), Erased { plugin, entries, left, answer: None });
        }
        let bound = table.tenants.values().filter(|bound| &*bound.names.tenant == tenant);
        for tenancy in bound.flat_map(|bound| &bound.tenancies) {
            if let Some(erased) = of_plugins.get_mut(&*tenancy.plugin.name)
                && tenancy.plugin.hooks.contains(&Hook::Erasure)
            {
                erased.answer = Some(self.forget(tenancy, &subject));
            }
        }
        // What a plugin has written about the person while it was asked.
        for (plugin, entries, left) in self.clear(tenant, &subject, is_bound) {
            of_plugins.entry(plugin).and_modify(|erased| {
                erased.entries += entries;
                erased.left = if erased.answer.is_none() { left } else { 0 };
            });
        }
        of_plugins.into_values().filter(|erased| erased.entries > 0 || is_bound(&erased.plugin)).collect()
    }

    /// Deletes what names a person in each store of a tenant, and all of a plugin that is not bound any more; how much
    /// that was of each, and how much is left.
    fn clear(&self, tenant: &str, subject: &str, is_bound: impl Fn(&str) -> bool) -> Vec<(String, usize, usize)> {
        let kept = lock(&self.0.kept);
        let stores = kept.tenancies.iter().filter(|((_, of), _)| of == tenant);
        let cleared = stores.map(|((plugin, _), kept)| {
            let mut store = lock(&kept.kv);
            let deleted = if is_bound(plugin) { store.erase(subject) } else { store.empty() };
            (plugin.clone(), deleted, store.len())
        });
        cleared.collect()
    }

    /// Asks one plugin; counted, and a failure told.
    fn forget(&self, tenancy: &Tenancy, subject: &str) -> Result<Forgotten, Failure> {
        let (plugin, tenant, began) = (&tenancy.plugin, &*tenancy.context.tenant, Instant::now());
        let asked = CallContext {
            tenant: tenant.to_owned(),
            now: unix_seconds() * 1000,
            request_id: format!("erasure.{tenant}"),
            occasion: Occasion::Initial,
            attributes: Vec::new(),
        };
        let (guest, subject) = (&plugin.guest, subject.to_owned());
        let answer = guest.enter(&tenancy.context, self.deadline(), false, |store, instance| {
            let hook = guest.indices.erasure.as_ref().ok_or_else(no_hook)?.load(&mut *store, instance)?;
            hook.call_erase(&mut *store, &asked, &subject)
        });
        let told = answer.map_err(|(failure, _)| failure).and_then(|(report, _)| forgotten(report));
        let outcome = if told.is_ok() { Outcome::Allow } else { Outcome::Failed };
        plugin.stats.verdict(Hook::Erasure, outcome, false, began.elapsed());
        if let Err(failure) = told {
            plugin.stats.failure(failure);
            let (plugin, reason) = (&*plugin.name, failure.name());
            tracing::warn!(plugin, tenant, reason, "a plugin has not forgotten a person, and is to be asked again");
        }
        told
    }
}

fn forgotten(report: Report) -> Result<Forgotten, Failure> {
    let Report { deleted, kept } = report;
    if kept.len() > ERASURE_KEPT_MAX {
        return Err(Failure::Answer);
    }
    Ok(Forgotten { deleted, kept: kept.iter().map(|line| scrub::line(line)).collect() })
}
