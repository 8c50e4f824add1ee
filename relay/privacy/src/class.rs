//! The retention classes: one table of everything that may be stored.

use std::time::Duration;

/// A class of stored data. What it holds, for what and for how long stands in [`Class::TABLE`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Class {
    /// Addresses and whatever else points to a device.
    Ip,
    /// A recording on the relay that made it.
    RecordingNode,
    /// A recording in the operator's temporary object store.
    RecordingStaging,
    /// Quality and states of streams.
    MediaLog,
    /// Signalling.
    ControlLog,
    /// Who used the relay, when, for which operation.
    AccessAudit,
    /// Who administered it.
    AdminAudit,
    /// Consents and requests of subjects.
    Consent,
    /// A tenant's configuration and long-lived keys.
    TenantData,
    /// Figures without any identifier.
    Aggregate,
    /// Addresses that a legal hold keeps.
    LegalHold,
}

/// Why somebody reads stored data.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Purpose {
    /// To answer a report of abuse, or to stop it.
    Abuse,
    /// To find out what a breach reached.
    Security,
    /// To see why a call was bad.
    Quality,
    /// To run the relay.
    Operation,
    /// To show what was done, by whom.
    Accountability,
    /// To answer the person whom it is about.
    Rights,
    /// To hand it to the tenant whose it is.
    Delivery,
    /// To count.
    Statistics,
    /// To establish, exercise or defend a legal claim.
    Claims,
}

/// How long a class stays unless somebody who may has said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retention {
    /// From when it was written.
    For(Duration),
    /// Until every sink has it, and at most so long.
    UntilShipped(Duration),
    /// So long after the end of the tenant's contract.
    AfterTenant(Duration),
    /// Without an end.
    Indefinite,
    /// Until somebody who may lifts it by hand.
    UntilLifted,
}

/// Who may change a retention.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// The operator's configuration.
    Operator,
    /// The tenant's.
    Tenant,
}

/// Where a class may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The database in the state directory.
    Store,
    /// The chained audit in the state directory.
    Audit,
    /// The spool in the state directory, and the sinks that it is shipped to.
    Spool,
    /// Log lines, as pseudonyms.
    Log,
    /// Files of recordings.
    Recording,
    /// Metrics.
    Metrics,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// The class.
    pub class: Class,
    /// Its number in what is sealed.
    pub code: u8,
    /// Its name, as configuration and reports have it.
    pub name: &'static str,
    /// What it holds.
    pub holds: &'static str,
    /// What it may be read for.
    pub purposes: &'static [Purpose],
    /// How long it stays by default.
    pub retention: Retention,
    /// Who may shorten that.
    pub shorten: &'static [Who],
    /// Who may extend it.
    pub extend: &'static [Who],
    /// Where it may be.
    pub places: &'static [Place],
}

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

impl Class {
    /// Every class there is.
    pub const TABLE: &[Definition] = &[
        Definition {
            class: Class::Ip,
            code: 1,
            name: "ip",
            holds: "addresses of clients and peers, and whatever else points to a device, as ciphertext under the key \
                    of the day or as an index under it",
            purposes: &[Purpose::Abuse, Purpose::Security, Purpose::Rights],
            retention: Retention::For(DAY.saturating_mul(7)),
            shorten: &[Who::Operator, Who::Tenant],
            extend: &[],
            places: &[Place::Store, Place::Spool, Place::Log],
        },
        Definition {
            class: Class::RecordingNode,
            code: 2,
            name: "recording-node",
            holds: "the file of a recording on the relay that made it",
            purposes: &[Purpose::Delivery],
            retention: Retention::For(HOUR.saturating_mul(2)),
            shorten: &[Who::Operator, Who::Tenant],
            extend: &[Who::Operator],
            places: &[Place::Recording],
        },
        Definition {
            class: Class::RecordingStaging,
            code: 3,
            name: "recording-staging",
            holds: "a recording in the operator's temporary object store",
            purposes: &[Purpose::Delivery],
            retention: Retention::For(HOUR.saturating_mul(72)),
            shorten: &[Who::Operator, Who::Tenant],
            extend: &[Who::Operator],
            places: &[Place::Recording],
        },
        Definition {
            class: Class::MediaLog,
            code: 4,
            name: "media-log",
            holds: "quality of calls and states of streams",
            purposes: &[Purpose::Quality, Purpose::Operation, Purpose::Rights],
            retention: Retention::UntilShipped(DAY.saturating_mul(7)),
            shorten: &[Who::Operator, Who::Tenant],
            extend: &[],
            places: &[Place::Spool],
        },
        Definition {
            class: Class::ControlLog,
            code: 5,
            name: "control-log",
            holds: "signalling: what clients asked for and what they were answered",
            purposes: &[Purpose::Quality, Purpose::Operation, Purpose::Security, Purpose::Rights],
            retention: Retention::UntilShipped(DAY.saturating_mul(7)),
            shorten: &[Who::Operator, Who::Tenant],
            extend: &[],
            places: &[Place::Spool, Place::Log],
        },
        Definition {
            class: Class::AccessAudit,
            code: 6,
            name: "access-audit",
            holds: "date, time and operation of each use, without an address",
            purposes: &[Purpose::Accountability, Purpose::Security, Purpose::Abuse, Purpose::Rights],
            retention: Retention::For(YEAR.saturating_mul(3)),
            shorten: &[Who::Operator, Who::Tenant],
            extend: &[Who::Operator],
            places: &[Place::Store, Place::Audit],
        },
        Definition {
            class: Class::AdminAudit,
            code: 7,
            name: "admin-audit",
            holds: "administrative changes and reads of personal data, with who did it and why",
            purposes: &[Purpose::Accountability, Purpose::Security, Purpose::Rights],
            retention: Retention::AfterTenant(YEAR.saturating_mul(3)),
            shorten: &[Who::Tenant],
            extend: &[Who::Operator],
            places: &[Place::Audit],
        },
        Definition {
            class: Class::Consent,
            code: 8,
            name: "consent",
            holds: "consents given and withdrawn, requests of subjects and what was done about them",
            purposes: &[Purpose::Accountability, Purpose::Rights],
            retention: Retention::For(YEAR.saturating_mul(6)),
            shorten: &[Who::Tenant],
            extend: &[Who::Operator],
            places: &[Place::Audit],
        },
        Definition {
            class: Class::TenantData,
            code: 9,
            name: "tenant-data",
            holds: "a tenant's configuration and its long-lived keys",
            purposes: &[Purpose::Operation, Purpose::Rights],
            retention: Retention::AfterTenant(YEAR),
            shorten: &[Who::Operator, Who::Tenant],
            extend: &[],
            places: &[Place::Store],
        },
        Definition {
            class: Class::Aggregate,
            code: 10,
            name: "aggregate",
            holds: "figures that name nobody",
            purposes: &[Purpose::Statistics, Purpose::Operation, Purpose::Quality],
            retention: Retention::Indefinite,
            shorten: &[Who::Operator],
            extend: &[],
            places: &[Place::Store, Place::Metrics],
        },
        Definition {
            class: Class::LegalHold,
            code: 11,
            name: "legal-hold",
            holds: "addresses of sessions under a legal hold, as ciphertext under the hold's own key",
            purposes: &[Purpose::Claims, Purpose::Rights],
            retention: Retention::UntilLifted,
            shorten: &[Who::Operator],
            extend: &[],
            places: &[Place::Store],
        },
    ];

    /// Its row.
    pub fn definition(self) -> &'static Definition {
        Self::TABLE.iter().find(|row| row.class == self).expect("every class has a row")
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.definition().name
    }

    /// Its number in what is sealed.
    pub fn code(self) -> u8 {
        self.definition().code
    }

    /// The class of that number.
    pub fn of_code(code: u8) -> Option<Self> {
        Self::TABLE.iter().find(|row| row.code == code).map(|row| row.class)
    }

    /// Whether it may be read for that.
    pub fn permits(self, purpose: Purpose) -> bool {
        self.definition().purposes.contains(&purpose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Class; 11] = [
        Class::Ip,
        Class::RecordingNode,
        Class::RecordingStaging,
        Class::MediaLog,
        Class::ControlLog,
        Class::AccessAudit,
        Class::AdminAudit,
        Class::Consent,
        Class::TenantData,
        Class::Aggregate,
        Class::LegalHold,
    ];

    #[test]
    fn every_class_has_one_row_with_a_number_and_a_name_of_its_own() {
        assert_eq!(Class::TABLE.len(), ALL.len());
        for class in ALL {
            assert_eq!(Class::of_code(class.code()), Some(class));
            assert_eq!(Class::TABLE.iter().filter(|row| row.name == class.name()).count(), 1);
        }
    }

    #[test]
    fn a_read_for_a_purpose_that_the_class_does_not_name_is_refused() {
        assert!(Class::Ip.permits(Purpose::Abuse));
        assert!(!Class::Ip.permits(Purpose::Statistics));
        assert!(!Class::Ip.permits(Purpose::Quality));
        assert!(!Class::MediaLog.permits(Purpose::Abuse));
    }

    #[test]
    fn nobody_extends_class_ip() {
        assert!(Class::Ip.definition().extend.is_empty());
        assert_eq!(Class::Ip.definition().retention, Retention::For(Duration::from_secs(7 * 86_400)));
    }
}
