//! `[privacy]` and what tenants say about it.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use sluice_base::limits;

use super::Reader;
use crate::privacy::{Admission, Directory, Keys, Privacy, Retention, Sink, Spool, TenantPrivacy};
use crate::walk::{Item, Section};

pub(super) const PRIVACY: &[&str] = &[
    "records",
    "state_directory",
    "keys",
    "keys_directory",
    "admission",
    "admission_wait_ms",
    "ip_retention_days",
    "lookup",
    "retention",
];
pub(super) const RETENTION: &[&str] = &["access_audit_days"];
pub(super) const TENANT_PRIVACY: &[&str] = &["ip_retention_days"];

pub(super) const SPOOL: &[&str] = &["node", "sink"];
pub(super) const SINK: &[&str] = &["kind", "path", "url", "allow_plaintext"];

const DAYS: RangeInclusive<u64> = 0..=limits::IP_RETENTION_DAYS_MAX as u64;

impl<'t> Reader<'t, '_> {
    pub(super) fn privacy(&mut self, root: &Section<'t>) -> Privacy {
        let default = Privacy::default();
        let Some(section) = self.walk.child(root, "privacy", PRIVACY) else {
            return default;
        };
        let wait = self.walk.number(&section, "admission_wait_ms", 1..=limits::ADMISSION_WAIT_MAX.as_millis() as u64);
        let days = self.walk.number(&section, "ip_retention_days", DAYS);
        let keys = self.walk.string(&section, "keys");
        let admission = self.walk.string(&section, "admission");
        Privacy {
            records: self.walk.boolean(&section, "records").unwrap_or(default.records),
            state_directory: self.directory(&section, "state_directory"),
            keys: keys.and_then(|item| self.walk.choice(&item, Keys::NAMED)).unwrap_or_default(),
            keys_directory: self.directory(&section, "keys_directory"),
            admission: admission.and_then(|item| self.walk.choice(&item, Admission::NAMED)).unwrap_or_default(),
            admission_wait: wait.map_or(default.admission_wait, Duration::from_millis),
            ip_retention_days: days.map_or(default.ip_retention_days, |days| days as u8),
            lookup: self.walk.boolean(&section, "lookup").unwrap_or(default.lookup),
            retention: self.retention(&section),
        }
    }

    fn retention(&mut self, privacy: &Section<'t>) -> Retention {
        let default = Retention::default();
        let Some(section) = self.walk.child(privacy, "retention", RETENTION) else {
            return default;
        };
        let days = self.walk.number(&section, "access_audit_days", 1..=u64::from(limits::ACCESS_AUDIT_DAYS_MAX));
        Retention { access_audit_days: days.map_or(default.access_audit_days, |days| days as u32) }
    }

    /// What a tenant may shorten, and cannot extend.
    pub(super) fn tenant_privacy(&mut self, tenant: &Section<'t>, privacy: &Privacy) -> TenantPrivacy {
        let of_relay = TenantPrivacy { ip_retention_days: privacy.ip_retention_days };
        let Some(section) = self.walk.child(tenant, "privacy", TENANT_PRIVACY) else {
            return of_relay;
        };
        let Some(item) = self.walk.number_item(&section, "ip_retention_days", DAYS) else {
            return of_relay;
        };
        let max = privacy.ip_retention_days;
        if item.value > u64::from(max) {
            self.walk.wrong(&item, format!("a tenant may only shorten what [privacy] says, which is {max}"));
        }
        TenantPrivacy { ip_retention_days: item.value as u8 }
    }

    pub(super) fn spool(&mut self, root: &Section<'t>, privacy: &Privacy) -> Spool {
        let Some(section) = self.walk.child(root, "spool", SPOOL) else {
            return Spool::default();
        };
        let sections = self.walk.children(&section, "sink", SINK);
        self.at_most(&sections, limits::SPOOL_SINKS_MAX);
        if let Some(first) = sections.first().filter(|_| !privacy.records) {
            self.walk.problem(&first.span, &first.path, "nothing is recorded: privacy.records has to be true");
        }
        let sections = sections.iter().take(limits::SPOOL_SINKS_MAX);
        let node = self.walk.string(&section, "node").map(|item| self.node(&item));
        let node = node.unwrap_or(Spool::default().node);
        Spool { node, sinks: sections.filter_map(|section| self.sink(section)).collect() }
    }

    fn node(&mut self, item: &Item<&str>) -> String {
        let max = limits::NODE_NAME_BYTES_MAX;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if item.value.is_empty() || item.value.len() > max || !item.value.chars().all(allowed) {
            self.walk.wrong(item, format!("a relay's name has 1 to {max} letters, digits, `-`, `_` and `.`"));
        }
        item.value.to_owned()
    }

    fn sink(&mut self, section: &Section<'t>) -> Option<Sink> {
        let kind = self.walk.required(section, "kind", "file")?;
        let is_file = self.walk.choice(&kind, &[("file", true), ("http", false)])?;
        let foreign: &[&str] = if is_file { &["url", "allow_plaintext"] } else { &["path"] };
        for item in foreign.iter().filter_map(|key| section.item(key)) {
            self.walk.wrong(&item, format!("is not for a sink of kind \"{}\"", kind.value));
        }
        if is_file {
            let path = self.walk.required(section, "path", "/var/log/sluice/records.jsonl")?;
            if !path.value.starts_with('/') || path.value.ends_with('/') || path.value.chars().any(char::is_control) {
                self.walk.wrong(&path, "is not an absolute path of a file, such as /var/log/sluice/records.jsonl");
            }
            return Some(Sink::File { path: PathBuf::from(path.value) });
        }
        let url = self.walk.required(section, "url", "http://127.0.0.1:8080/records")?;
        let allow_plaintext = self.walk.boolean(section, "allow_plaintext").unwrap_or(false);
        Some(Sink::Http { url: url.value.to_owned(), allow_plaintext })
    }

    pub(super) fn directory(&mut self, section: &Section<'t>, key: &str) -> Directory {
        let Some(item) = self.walk.string(section, key) else {
            return Directory::Auto;
        };
        if item.value == "auto" {
            return Directory::Auto;
        }
        if !item.value.starts_with('/') || item.value.chars().any(char::is_control) {
            self.walk.wrong(&item, "is neither \"auto\" nor an absolute path of a directory, such as /var/lib/sluice");
        }
        Directory::At(PathBuf::from(item.value))
    }
}
