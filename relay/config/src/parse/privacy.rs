//! `[privacy]` and what tenants say about it.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use sluice_base::limits;

use super::Reader;
use crate::privacy::{Admission, Directory, Keys, Privacy, TenantPrivacy};
use crate::walk::Section;

pub(super) const PRIVACY: &[&str] = &[
    "records",
    "state_directory",
    "keys",
    "keys_directory",
    "admission",
    "admission_wait_ms",
    "ip_retention_days",
    "lookup",
];
pub(super) const TENANT_PRIVACY: &[&str] = &["ip_retention_days"];

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
        }
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

    fn directory(&mut self, section: &Section<'t>, key: &str) -> Directory {
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
