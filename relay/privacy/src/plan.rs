//! What a tenant's plan leaves of each field of each record: the stricter of the host's own floor and of every plan.
//!
//! **A plan only takes away.** What it says of a field that no plan may change has no effect, an action that does not
//! fit a field is a drop, and a field of which it says nothing is dropped unless it says nothing of anybody.

mod action;
#[cfg(test)]
mod tests;

pub use action::{Action, Prefix, Window};

use sluice_base::limits::{IP_RETENTION_DAYS_MAX, LOG_PLAN_TEXT_BYTES_MAX};

use crate::class::Retention;
use crate::date::DAY_SECONDS;
use crate::schema::{Destination, Field, Form, Kind, Sensitivity};

/// What is done to a field's value: for as long as the record stays, and beside it for a while.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// For as long as the record stays.
    pub durable: Action,
    /// Beside it, and for so many seconds.
    pub expiring: Option<(Action, u32)>,
}

/// What a plan says of a kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// Its name in a plan.
    pub kind: String,
    /// Rules by the names of fields.
    pub fields: Vec<(String, Rule)>,
    /// Of so many records one is written whole; 0: none. Of the others what no plan may drop.
    pub one_in: u32,
    /// Seconds, where it is to stay shorter than its class.
    pub retention: Option<u32>,
}

/// Why something is no plan.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError {
    /// It names a kind that there is not.
    #[error("there is no kind of record {0:?}")]
    Kind(String),
    /// It names a field that the kind does not have.
    #[error("{kind} has no field {field:?}")]
    Field {
        /// The kind.
        kind: String,
        /// What it is said to have.
        field: String,
    },
    /// It says two things of one kind or field.
    #[error("{0:?} stands in it twice")]
    Twice(String),
    /// A text in place of a value that is too long, or no text.
    #[error("a text of {kind} is longer than {LOG_PLAN_TEXT_BYTES_MAX} bytes, or has control characters")]
    Text {
        /// The kind.
        kind: String,
    },
    /// More bits than an address has, or a time that is rounded to nothing.
    #[error("a rule of {kind} has a number that nobody can mean")]
    Number {
        /// The kind.
        kind: String,
    },
}

/// A plan, as it is carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// In the order of [`Kind::TABLE`].
    kinds: Vec<OfKind>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct OfKind {
    /// In the order of the kind's fields.
    rules: Vec<Rule>,
    one_in: u32,
    retention: Option<u32>,
}

/// What is written of one record.
#[derive(Clone, Copy, Debug)]
pub struct Leaves<'a> {
    kind: &'static Kind,
    plan: &'a OfKind,
    is_whole: bool,
}

/// What is written of one field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Written<'a> {
    /// The value.
    Value,
    /// Nothing.
    Nothing,
    /// This text.
    Text(&'a str),
    /// A keyed hash of it, the key of which lives for so long.
    Token(Window),
    /// The leading bits of its addresses, sealed as the addresses would be.
    Truncated(Prefix),
    /// The time, rounded down to a multiple of so many seconds.
    Rounded(u32),
}

impl Plan {
    /// The host's own: addresses under the keys of their days, and everything else.
    pub fn floor() -> Self {
        let kept = Rule { durable: Action::Keep, expiring: None };
        let longest = u32::from(IP_RETENTION_DAYS_MAX) * DAY_SECONDS as u32;
        let address = Rule::passing(Action::Keep, longest);
        let rule = |field: &Field| if field.form.is_address() { address.clone() } else { kept.clone() };
        Plan::each(1, rule)
    }

    /// In place of one that cannot be had: of every record what no plan may drop.
    pub fn strictest() -> Self {
        Plan::each(0, |_| Rule { durable: Action::Drop, expiring: None })
    }

    fn each(one_in: u32, rule: impl Fn(&Field) -> Rule) -> Self {
        let kind = |kind: &Kind| OfKind { rules: kind.fields.iter().map(&rule).collect(), one_in, retention: None };
        Plan { kinds: Kind::TABLE.iter().map(kind).collect() }
    }

    /// The stricter of the floor and of what is said.
    ///
    /// # Errors
    /// It is no plan.
    pub fn of(proposals: &[Proposal]) -> Result<Self, PlanError> {
        let mut plan = Plan::floor();
        for (i, proposal) in proposals.iter().enumerate() {
            let at = Kind::TABLE.iter().position(|kind| kind.plan_name() == proposal.kind);
            let at = at.ok_or_else(|| PlanError::Kind(proposal.kind.clone()))?;
            if proposals[..i].iter().any(|former| former.kind == proposal.kind) {
                return Err(PlanError::Twice(proposal.kind.clone()));
            }
            let said = OfKind::said(&Kind::TABLE[at], proposal)?;
            plan.kinds[at] = plan.kinds[at].and(&said);
        }
        Ok(plan)
    }

    /// The stricter of both, field by field.
    #[must_use]
    pub fn and(&self, other: &Plan) -> Plan {
        Plan { kinds: self.kinds.iter().zip(&other.kinds).map(|(a, b)| a.and(b)).collect() }
    }

    /// What is written of a record of this kind, by whose id samples are drawn. Of one that the schema does not have
    /// nothing is.
    pub fn leaves(&self, destination: Destination, kind: &str, id: &[u8; 16]) -> Option<Leaves<'_>> {
        let at = Kind::TABLE.iter().position(|known| known.destination == destination && known.name == kind)?;
        let plan = self.kinds.get(at)?;
        let drawn = u32::from_be_bytes([id[0], id[1], id[2], id[3]]);
        Some(Leaves { kind: &Kind::TABLE[at], plan, is_whole: plan.one_in > 0 && drawn.is_multiple_of(plan.one_in) })
    }

    /// For how many days an address may be read, where it is written at all. A plan without any shortens nothing that
    /// was written before it.
    pub fn address_days(&self) -> u8 {
        let fields = Kind::TABLE.iter().zip(&self.kinds).flat_map(|(kind, plan)| kind.fields.iter().zip(&plan.rules));
        let days = fields.filter(|(field, _)| field.form.is_address() && field.planned).map(|(_, rule)| rule.days());
        days.filter(|days| *days > 0).min().unwrap_or(IP_RETENTION_DAYS_MAX)
    }
}

impl OfKind {
    fn said(kind: &Kind, proposal: &Proposal) -> Result<Self, PlanError> {
        let Proposal { fields, one_in, retention, .. } = proposal;
        for (i, (name, rule)) in fields.iter().enumerate() {
            if kind.fields.iter().all(|field| field.name != name) {
                return Err(PlanError::Field { kind: kind.plan_name(), field: name.clone() });
            }
            if fields[..i].iter().any(|(former, _)| former == name) {
                return Err(PlanError::Twice(name.clone()));
            }
            rule.check(kind)?;
        }
        let unsaid = |field: &Field| match field.form.sensitivity() {
            Sensitivity::None => Rule { durable: Action::Keep, expiring: None },
            _ => Rule { durable: Action::Drop, expiring: None },
        };
        let rule = |field: &Field| fields.iter().find(|(name, _)| name == field.name).map(|(_, rule)| rule.clone());
        let within = |field: &Field, rule: Rule| match retention {
            Some(after) if field.form.is_address() => rule.and(&Rule::passing(Action::Keep, *after)),
            _ => rule,
        };
        let rules = kind.fields.iter().map(|field| within(field, rule(field).unwrap_or_else(|| unsaid(field))));
        let rules = rules.collect();
        Ok(OfKind { rules, one_in: *one_in, retention: *retention })
    }

    fn and(&self, other: &OfKind) -> OfKind {
        let one_in = if self.one_in == 0 || other.one_in == 0 { 0 } else { self.one_in.max(other.one_in) };
        OfKind {
            rules: self.rules.iter().zip(&other.rules).map(|(a, b)| a.and(b)).collect(),
            one_in,
            retention: self.retention.into_iter().chain(other.retention).min(),
        }
    }
}

impl Rule {
    const fn passing(action: Action, after: u32) -> Self {
        Rule { durable: Action::Drop, expiring: Some((action, after)) }
    }

    fn check(&self, kind: &Kind) -> Result<(), PlanError> {
        for action in [Some(&self.durable), self.expiring.as_ref().map(|(action, _)| action)].into_iter().flatten() {
            match action {
                Action::Replace(text) if text.len() > LOG_PLAN_TEXT_BYTES_MAX || text.contains(char::is_control) => {
                    return Err(PlanError::Text { kind: kind.plan_name() });
                }
                action if !action.is_sound() => return Err(PlanError::Number { kind: kind.plan_name() }),
                _ => {}
            }
        }
        Ok(())
    }

    /// The stricter at every age of the record.
    fn and(&self, other: &Rule) -> Rule {
        let after = [&self.expiring, &other.expiring].into_iter().flatten().map(|(_, after)| *after).min();
        let (early, durable) = (self.early().and(other.early()), self.durable.and(&other.durable));
        let expiring = after.filter(|_| early != durable).map(|after| (early, after));
        Rule { durable, expiring }
    }

    /// What can be read at first: of both forms the milder one.
    fn early(&self) -> &Action {
        match &self.expiring {
            Some((action, _)) if self.durable.and(action) != *action => action,
            _ => &self.durable,
        }
    }

    /// Days for which an address is written: the keys that die are those of days.
    fn days(&self) -> u8 {
        match &self.expiring {
            Some((Action::Keep | Action::TruncateAddress(_), after)) => {
                u8::try_from(u64::from(*after) / DAY_SECONDS).unwrap_or(u8::MAX).min(IP_RETENTION_DAYS_MAX)
            }
            _ => 0,
        }
    }
}

impl<'a> Leaves<'a> {
    /// What is written of one of its fields; nothing of one that the schema does not have.
    pub fn of(&self, field: &str) -> Written<'a> {
        let Some(at) = self.kind.fields.iter().position(|known| known.name == field) else {
            return Written::Nothing;
        };
        let (field, rule) = (&self.kind.fields[at], &self.plan.rules[at]);
        match field.planned {
            false => Written::Value,
            true if !self.is_whole => Written::Nothing,
            true if field.form.is_address() => address(field.form, rule),
            true if self.goes_early() => Written::Nothing,
            true => durable(field.form, &rule.durable),
        }
    }

    /// Nothing that is written goes before its class does, but what is under keys of days.
    fn goes_early(&self) -> bool {
        let longest = match self.kind.class.definition().retention {
            Retention::For(time) | Retention::UntilShipped(time) => time.as_secs(),
            _ => u64::MAX,
        };
        self.plan.retention.is_some_and(|seconds| u64::from(seconds) < longest)
    }

    /// Whether the value of a field is written as it is.
    pub fn keeps(&self, field: &str) -> bool {
        self.of(field) == Written::Value
    }
}

/// An address is under the key of its day, or not there.
fn address(form: Form, rule: &Rule) -> Written<'_> {
    match &rule.expiring {
        Some(_) if rule.days() == 0 => Written::Nothing,
        Some((Action::Keep, _)) => Written::Value,
        Some((Action::TruncateAddress(prefix), _)) if form == Form::Sealed => Written::Truncated(*prefix),
        _ => Written::Nothing,
    }
}

/// There is no form of another field that would go before the record does: it is not written.
fn durable(form: Form, action: &Action) -> Written<'_> {
    match action {
        Action::Keep => Written::Value,
        Action::Replace(text) if matches!(form, Form::Word | Form::Person) => Written::Text(text),
        Action::Pseudonymise(window, None) if form == Form::Person => Written::Token(*window),
        Action::TruncateTime(seconds) if form == Form::Time => Written::Rounded(*seconds),
        _ => Written::Nothing,
    }
}
