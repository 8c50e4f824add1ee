//! What is written down: every kind of record with its fields, in one table. docs/records.md is written from it, and
//! tests of the record plane hold what is really written against it.

mod table;

use crate::Class;

/// A kind of record.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its name: a table of the store, the kind of an entry of the audit, the event of a line of the spool.
    pub name: &'static str,
    /// Where it is written.
    pub destination: Destination,
    /// Its class; single fields may be of a class that goes earlier.
    pub class: Class,
    /// When one is written.
    pub about: &'static str,
    /// What it holds.
    pub fields: &'static [Field],
}

/// Where a record is written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Destination {
    /// A row of the database.
    Store,
    /// An entry of the audit: its fields are sealed together, as JSON.
    Audit,
    /// A line of the spool of the stream of quality.
    Quality,
    /// A line of the spool of the stream of signalling.
    Control,
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its form.
    pub form: Form,
    /// Whether it is always there, unless a plan drops it.
    pub always: bool,
    /// Whether a tenant's plan may drop, change or sample it. By the others a record is found, kept and removed, or
    /// accountability needs them.
    pub planned: bool,
    /// What it says.
    pub about: &'static str,
}

/// The form of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// 16 random bytes that name something: as bytes in the store, in hexadecimal digits elsewhere.
    Id,
    /// Words of a fixed list, or a name of the configuration.
    Word,
    /// A number.
    Number,
    /// Seconds since the Unix epoch.
    Time,
    /// A day, counted from 1 January 1970; in the audit as `2026-11-28`.
    Day,
    /// A user's pseudonym.
    Person,
    /// Sealed under the key of the day: class `ip`. As bytes in the store, in Base64 in the spool.
    Sealed,
    /// A blind index under the key of the day: class `ip`.
    Blind,
    /// Sealed under the tenant's long-lived key.
    SealedLong,
    /// Sealed under the key of a legal hold: class `legal-hold`.
    SealedHold,
    /// A SHA-256 or an Ed25519 signature.
    Proof,
    /// An operator's own words, or the names of what was changed.
    Text,
}

/// What a field can say about a person, in the words of `wit/`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Sensitivity {
    /// Nothing.
    None,
    /// Who it is, under a name that means nothing without a key.
    SubjectId,
    /// Where a device is reached, for whoever has the key.
    IpAddress,
    /// When somebody did something.
    Time,
    /// Whatever people write.
    FreeText,
    /// Several others.
    Composite,
}

impl Kind {
    /// Every kind there is.
    pub const TABLE: &[Kind] = table::KINDS;

    /// The kinds of one destination.
    pub fn of(destination: Destination) -> impl Iterator<Item = &'static Kind> + Clone {
        Self::TABLE.iter().filter(move |kind| kind.destination == destination)
    }

    /// The kind of that name and destination.
    pub fn named(destination: Destination, name: &str) -> Option<&'static Kind> {
        Self::of(destination).find(|kind| kind.name == name)
    }

    /// Its name in a plan: that of its destination comes first, for an entry and a line may be called alike.
    pub fn plan_name(&self) -> String {
        format!("{}.{}", self.destination.word(), self.name)
    }

    /// Whether accountability needs the whole of it: no plan drops, samples or shortens it.
    pub fn is_mandatory(&self) -> bool {
        self.fields.iter().all(|field| !field.planned)
    }

    /// The class of one of its fields.
    pub fn class_of(&self, field: &Field) -> Class {
        match field.form {
            Form::SealedHold => Class::LegalHold,
            form if form.is_address() => Class::Ip,
            _ => self.class,
        }
    }
}

impl Destination {
    /// Each of them, with what it is for people.
    pub const ALL: [(Destination, &str); 4] = [
        (Destination::Store, "Tables of `records.db`"),
        (Destination::Audit, "Entries of the audit (table `audit` of `records.db`)"),
        (Destination::Quality, "Lines of the spool, kind `quality`"),
        (Destination::Control, "Lines of the spool, kind `control`"),
    ];

    /// Its word in a plan.
    pub const fn word(self) -> &'static str {
        match self {
            Destination::Store => "store",
            Destination::Audit => "audit",
            Destination::Quality => "quality",
            Destination::Control => "control",
        }
    }
}

impl Form {
    /// What it can say about a person.
    pub const fn sensitivity(self) -> Sensitivity {
        match self {
            Form::Id | Form::Person => Sensitivity::SubjectId,
            Form::Sealed | Form::SealedHold | Form::Blind => Sensitivity::IpAddress,
            Form::SealedLong => Sensitivity::Composite,
            Form::Time | Form::Day => Sensitivity::Time,
            Form::Text => Sensitivity::FreeText,
            Form::Word | Form::Number | Form::Proof => Sensitivity::None,
        }
    }

    /// Whether it is of class `ip`: an address under the key of the day.
    pub const fn is_address(self) -> bool {
        matches!(self, Form::Sealed | Form::Blind)
    }

    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Form::Id => "id",
            Form::Word => "word",
            Form::Number => "number",
            Form::Time => "time",
            Form::Day => "day",
            Form::Person => "pseudonym",
            Form::Sealed => "sealed",
            Form::Blind => "blind index",
            Form::SealedLong => "sealed (long-lived key)",
            Form::SealedHold => "sealed (key of the hold)",
            Form::Proof => "proof",
            Form::Text => "text",
        }
    }
}

impl Sensitivity {
    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Sensitivity::None => "none",
            Sensitivity::SubjectId => "subject-id",
            Sensitivity::IpAddress => "ip-address",
            Sensitivity::Time => "time",
            Sensitivity::FreeText => "free-text",
            Sensitivity::Composite => "composite",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Place;

    #[test]
    fn a_kind_is_named_once_where_it_is_written_and_so_is_each_of_its_fields() {
        for kind in Kind::TABLE {
            assert_eq!(Kind::of(kind.destination).filter(|other| other.name == kind.name).count(), 1, "{}", kind.name);
            for field in kind.fields {
                assert_eq!(kind.fields.iter().filter(|other| other.name == field.name).count(), 1, "{}", field.name);
            }
        }
    }

    #[test]
    fn everything_is_written_where_its_class_may_be() {
        for kind in Kind::TABLE {
            let places: &[Place] = match kind.destination {
                // The audit is tables of the store.
                Destination::Store => &[Place::Store, Place::Audit],
                Destination::Audit => &[Place::Audit],
                Destination::Quality | Destination::Control => &[Place::Spool],
            };
            for class in kind.fields.iter().map(|field| kind.class_of(field)).chain([kind.class]) {
                let allowed = class.definition().places;
                assert!(places.iter().any(|place| allowed.contains(place)), "{} of {}", class.name(), kind.name);
            }
        }
    }

    #[test]
    fn no_plan_takes_away_what_a_record_is_found_and_removed_by() {
        let names = Kind::TABLE.iter().map(Kind::plan_name).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(names.len(), Kind::TABLE.len());
        for kind in Kind::TABLE.iter().filter(|kind| !kind.is_mandatory()) {
            assert_ne!(kind.destination, Destination::Audit, "{}", kind.name);
            for field in kind.fields.iter().filter(|field| field.planned) {
                assert!(!matches!(field.form, Form::Id | Form::Day), "{} of {}", field.name, kind.name);
                // A column that is never NULL cannot be left out.
                assert!(kind.destination != Destination::Store || !field.always || field.form.is_address());
            }
        }
    }

    #[test]
    fn the_audit_holds_nothing_of_class_ip() {
        let fields = Kind::of(Destination::Audit).flat_map(|kind| kind.fields);
        assert!(fields.clone().count() > 0 && fields.into_iter().all(|f| !f.form.is_address()));
    }
}
