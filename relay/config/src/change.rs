//! What a new configuration changes, and what a running relay can take over.

use sluice_base::limits;

use crate::parse::{PER_ALLOCATION, PER_TENANT, PER_USER, TOTAL};
use crate::{Config, Plugin, Privacy, Quota, Tenant, TenantLimits, TenantPolicy};

/// A key whose value is another one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Its path; of a tenant's by the tenant's name.
    pub key: String,
    /// It takes a restart.
    pub restart: bool,
}

/// Collects changes.
#[derive(Default)]
struct Changes(Vec<Change>);

impl Config {
    /// Every key that is another one in `new`. Secrets and users are compared and not told.
    pub fn changes(&self, new: &Config) -> Vec<Change> {
        // Without `..`: a new section does not compile until it has been thought of.
        let Config {
            listen: _,
            relay,
            relay_ports,
            turn,
            guard,
            limits,
            workers,
            io,
            metrics,
            control,
            drain,
            log,
            privacy: _,
            spool,
            policy: _,
            plugins: _,
            geo: _,
            tenants: _,
            warnings: _,
        } = self;
        let mut changes = Changes::default();
        // Sockets, threads, buffers and tables are made once.
        changes.restart("workers", *workers == new.workers);
        changes.restart("listen", listeners(self).eq(listeners(new)));
        changes.restart("relay", *relay == new.relay);
        changes.restart("relay_ports", *relay_ports == new.relay_ports);
        changes.restart("io", *io == new.io);
        changes.restart("metrics", *metrics == new.metrics);
        changes.restart("control", *control == new.control);
        changes.restart("log.format", log.format == new.log.format);
        changes.restart("limits.allocations", limits.total.allocations == new.limits.total.allocations);
        changes.now("turn.allocation_lifetime_seconds", turn.allocation_lifetime == new.turn.allocation_lifetime);
        let longest = turn.allocation_lifetime_max == new.turn.allocation_lifetime_max;
        changes.now("turn.allocation_lifetime_max_seconds", longest);
        changes.now("turn.nonce_lifetime_seconds", turn.nonce_lifetime == new.turn.nonce_lifetime);
        changes.now("turn.software", turn.software == new.turn.software);
        let allowed = guard.allow_classes == new.guard.allow_classes && guard.allow_ranges == new.guard.allow_ranges;
        changes.now("guard.allow_peers", allowed);
        changes.now("guard.deny_peers", guard.deny_ranges == new.guard.deny_ranges);
        changes.now("guard.deny_clients", guard.deny_clients == new.guard.deny_clients);
        let (rate, burst) = (guard.unauthenticated_per_second, guard.unauthenticated_burst);
        changes.now("guard.unauthenticated_per_second", rate == new.guard.unauthenticated_per_second);
        changes.now("guard.unauthenticated_burst", burst == new.guard.unauthenticated_burst);
        changes.now("drain.deadline_seconds", drain.deadline == new.drain.deadline);
        changes.now("drain.alternates", drain.alternates == new.drain.alternates);
        changes.now("log.level", log.level == new.log.level);
        changes.restart("spool", *spool == new.spool);
        changes.privacy(&self.privacy, &new.privacy);
        changes.policy(self, new);
        changes.limits(self, new);
        changes.tenants(self, new);
        changes.0
    }

    /// Puts the tenants into the order of `running`, whose allocations know them by their places. One that is gone
    /// keeps its place, without anybody who could sign in.
    ///
    /// # Errors
    /// So many have come and gone that the places are used up.
    pub fn keep_tenant_places(&mut self, running: &Config) -> Result<(), String> {
        let names: Vec<String> =
            self.listen.iter().map(|l| self.tenants[usize::from(l.tenant.0)].name.clone()).collect();
        let mut fresh = std::mem::take(&mut self.tenants);
        for before in &running.tenants {
            let place = fresh.iter().position(|tenant| tenant.name == before.name);
            self.tenants.push(place.map_or_else(|| before.gone(), |place| fresh.remove(place)));
        }
        self.tenants.append(&mut fresh);
        if self.tenants.len() > limits::TENANTS_MAX {
            let max = limits::TENANTS_MAX;
            return Err(format!("{max} tenants have come and gone since the start: a restart makes room for more"));
        }
        for (listen, name) in self.listen.iter_mut().zip(names) {
            let place = self.tenants.iter().position(|tenant| tenant.name == name);
            listen.tenant.0 = place.and_then(|place| u16::try_from(place).ok()).unwrap_or(listen.tenant.0);
        }
        Ok(())
    }
}

impl Changes {
    fn restart(&mut self, key: &str, same: bool) {
        self.note(key.to_owned(), true, same);
    }

    fn now(&mut self, key: &str, same: bool) {
        self.note(key.to_owned(), false, same);
    }

    fn note(&mut self, key: String, restart: bool, same: bool) {
        if !same {
            self.0.push(Change { key, restart });
        }
    }

    /// Threads, files and waits are made once; what a record is allowed to be is asked each time.
    fn privacy(&mut self, old: &Privacy, new: &Privacy) {
        self.restart("privacy.records", old.records == new.records);
        self.restart("privacy.state_directory", old.state_directory == new.state_directory);
        self.restart("privacy.keys", old.keys == new.keys);
        self.restart("privacy.keys_directory", old.keys_directory == new.keys_directory);
        self.restart("privacy.admission", old.admission == new.admission);
        self.restart("privacy.admission_wait_ms", old.admission_wait == new.admission_wait);
        self.now("privacy.ip_retention_days", old.ip_retention_days == new.ip_retention_days);
        self.now("privacy.lookup", old.lookup == new.lookup);
        let (old, new) = (old.retention, new.retention);
        self.restart("privacy.retention.access_audit_days", old.access_audit_days == new.access_audit_days);
    }

    /// An engine and its threads are made once; plugins and what they decide are replaced as a whole.
    fn policy(&mut self, old: &Config, new: &Config) {
        let (a, b) = (&old.policy, &new.policy);
        self.restart("policy.engine", a.engine == b.engine);
        self.restart("policy.memory_bytes", a.memory_bytes == b.memory_bytes);
        self.restart("policy.deadline_ms", a.deadline == b.deadline);
        self.restart("policy.queue", a.queue == b.queue);
        self.restart("policy.cache_directory", a.cache_directory == b.cache_directory);
        self.now("policy.node_id", a.node_id == b.node_id);
        self.now("policy.node_region", a.node_region == b.node_region);
        self.now("policy.node_country", a.node_country == b.node_country);
        self.now("policy.trusted_keys", a.trusted_keys == b.trusted_keys);
        self.now("policy.require_signature", a.require_signature == b.require_signature);
        self.now("geo.database", old.geo.database == new.geo.database);
        self.now("geo.set", old.geo.sets == new.geo.sets);
        let named = |plugins: &[Plugin], name: &str| plugins.iter().find(|plugin| plugin.name == name).cloned();
        for plugin in &old.plugins {
            let same = named(&new.plugins, &plugin.name).as_ref() == Some(plugin);
            self.now(&format!("plugin.{}", plugin.name), same);
        }
        for plugin in &new.plugins {
            self.now(&format!("plugin.{}", plugin.name), named(&old.plugins, &plugin.name).is_some());
        }
    }

    fn limits(&mut self, old: &Config, new: &Config) {
        let (a, b) = (&old.limits, &new.limits);
        let scopes = [
            (&TOTAL, &a.total, &b.total),
            (&PER_TENANT, &a.tenant, &b.tenant),
            (&PER_USER, &a.user, &b.user),
            (&PER_ALLOCATION, &a.allocation, &b.allocation),
        ];
        for (keys, old, new) in scopes {
            for (key, part) in keys.parts().filter(|(key, _)| *key != "allocations") {
                self.note(format!("limits.{key}"), false, part.value(old) == part.value(new));
            }
        }
    }

    fn tenants(&mut self, old: &Config, new: &Config) {
        let named =
            |config: &Config, name: &str| config.tenants.iter().find(|t| t.name == name && !t.is_gone()).cloned();
        for tenant in old.tenants.iter().filter(|tenant| !tenant.is_gone()) {
            match named(new, &tenant.name) {
                None => self.now(&format!("tenant.{}", tenant.name), false),
                Some(after) => self.tenant((old, tenant), (new, &after)),
            }
        }
        for tenant in new.tenants.iter().filter(|t| !t.is_gone() && named(old, &t.name).is_none()) {
            self.now(&format!("tenant.{}", tenant.name), false);
        }
    }

    fn tenant(&mut self, (old, a): (&Config, &Tenant), (new, b): (&Config, &Tenant)) {
        let secrets = |tenant: &Tenant| tenant.secrets.iter().map(|s| s.expose().clone()).collect::<Vec<_>>();
        let users = |tenant: &Tenant| {
            let user = |user: &crate::User| (user.name.expose().clone(), user.password.expose().clone());
            tenant.users.iter().map(user).collect::<Vec<_>>()
        };
        self.now(&format!("tenant.{}.secrets", a.name), secrets(a) == secrets(b));
        self.now(&format!("tenant.{}.user", a.name), users(a) == users(b));
        let (of_a, of_b) = (a.privacy.ip_retention_days, b.privacy.ip_retention_days);
        let inherits = of_a == old.privacy.ip_retention_days && of_b == new.privacy.ip_retention_days;
        self.now(&format!("tenant.{}.privacy.ip_retention_days", a.name), inherits || of_a == of_b);
        self.now(&format!("tenant.{}.policy", a.name), policies(old, a) == policies(new, b));
        let (before, after) = (inherited(old), inherited(new));
        let own = [
            (&TOTAL, a.limits.tenant, b.limits.tenant, before.tenant, after.tenant),
            (&PER_USER, a.limits.user, b.limits.user, before.user, after.user),
        ];
        for (keys, a_limits, b_limits, before, after) in own {
            for (key, part) in keys.parts() {
                let of = |quota: &Quota| part.value(quota);
                // What [limits] says for all is told there.
                let inherits = of(&a_limits) == of(&before) && of(&b_limits) == of(&after);
                self.note(format!("tenant.{}.limits.{key}", a.name), false, inherits || of(&a_limits) == of(&b_limits));
            }
        }
    }
}

impl Tenant {
    /// The same tenant after it has gone.
    fn gone(&self) -> Tenant {
        Tenant { name: self.name.clone(), secrets: Vec::new(), users: Vec::new(), policies: Vec::new(), ..*self }
    }

    /// Nobody can sign in: a configuration that was read has no such tenant.
    pub fn is_gone(&self) -> bool {
        self.secrets.is_empty() && self.users.is_empty()
    }
}

/// What decides for a tenant, by name.
fn policies<'c>(config: &'c Config, tenant: &Tenant) -> Vec<(&'c str, TenantPolicy)> {
    // Plugins by their names: their places may be others.
    let named = |policy: &TenantPolicy| {
        (config.plugins[policy.plugin].name.as_str(), TenantPolicy { plugin: 0, ..policy.clone() })
    };
    tenant.policies.iter().map(named).collect()
}

/// What a tenant has that sets no limits.
fn inherited(config: &Config) -> TenantLimits {
    TenantLimits { tenant: config.limits.tenant.lower(&config.limits.total), user: config.limits.user }
}

fn listeners(config: &Config) -> impl Iterator<Item = (std::net::SocketAddr, &str, &str)> {
    config.listen.iter().map(|l| (l.address, l.realm.as_str(), config.tenants[usize::from(l.tenant.0)].name.as_str()))
}
