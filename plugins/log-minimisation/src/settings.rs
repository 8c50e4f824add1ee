//! The settings: what becomes of each sensitivity, and of single kinds and fields.

use sluice_plugin_sdk::DAY;
use sluice_plugin_sdk::document::{self, Mistake, Place};
use sluice_plugin_sdk::types::{Action, Pseudonymisation, Window};

use crate::action;
use crate::bindings::exports::sluice::policy::log_plan::{Expiring, Sampling, Sensitivity};

/// Keys of the document.
pub(crate) const KEYS: &[&str] = &["address_days", "by_sensitivity", "kinds"];

/// Keys of a kind.
pub(crate) const KIND_KEYS: &[&str] = &["drop", "one_in", "retention_days", "fields"];

/// Days that an address may be readable: what published policies promise.
const ADDRESS_DAYS: u32 = 7;

/// A hundred years.
const RETENTION_DAYS: u32 = 36_500;

/// What becomes of a field.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Rule {
    /// For the whole retention.
    pub(crate) durable: Action,
    /// Beside it, for a while.
    pub(crate) expiring: Option<Expiring>,
}

/// What becomes of a kind.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) fields: Vec<(String, Rule)>,
    /// Seconds.
    pub(crate) retention: Option<u32>,
    pub(crate) sampling: Sampling,
}

/// All of the settings.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How long what points to a device may be readable; 0: it is not written.
    pub(crate) address_seconds: u32,
    by_sensitivity: Vec<(&'static str, Rule)>,
    pub(crate) kinds: Vec<(String, Kind)>,
}

/// The sensitivities that have a name.
const SENSITIVITIES: [(&str, Sensitivity); 11] = [
    ("none", Sensitivity::None),
    ("subject-id", Sensitivity::SubjectId),
    ("device-id", Sensitivity::DeviceId),
    ("ip-address", Sensitivity::IpAddress),
    ("port", Sensitivity::Port),
    ("user-agent", Sensitivity::UserAgent),
    ("location", Sensitivity::Location),
    ("time", Sensitivity::Time),
    ("credential", Sensitivity::Credential),
    ("free-text", Sensitivity::FreeText),
    ("composite", Sensitivity::Composite),
];

impl Settings {
    /// The rule of fields of a sensitivity. One that is not known is like a composite: it may hold anything.
    pub(crate) fn rule_for(&self, sensitivity: &Sensitivity) -> Rule {
        let name = SENSITIVITIES.iter().find(|(_, known)| known == sensitivity).map_or("composite", |(name, _)| name);
        let set = self.by_sensitivity.iter().find(|(known, _)| *known == name);
        set.map_or_else(|| default_rule(sensitivity, self.address_seconds), |(_, rule)| rule.clone())
    }
}

/// Names of the sensitivities.
pub(crate) fn sensitivities() -> Vec<&'static str> {
    SENSITIVITIES.iter().map(|(name, _)| *name).collect()
}

/// What becomes of a sensitivity of which the settings say nothing.
fn default_rule(sensitivity: &Sensitivity, address_seconds: u32) -> Rule {
    let durable = match sensitivity {
        Sensitivity::None | Sensitivity::Time => Action::Keep,
        Sensitivity::SubjectId => Action::Pseudonymise(Pseudonymisation { window: Window::Week, prefix: None }),
        _ => Action::Drop,
    };
    let keeps_a_while = action::points_to_a_device(sensitivity) && address_seconds > 0;
    Rule { durable, expiring: keeps_a_while.then_some(Expiring { action: Action::Keep, after: address_seconds }) }
}

/// Reads the settings. Every mistake that there is comes with them, and they are only good without one.
pub(crate) fn read(text: &str) -> (Settings, Vec<Mistake>) {
    document::read(text, |root| {
        root.keys(KEYS);
        let address_days = root.key("address_days").number(0, ADDRESS_DAYS).unwrap_or(ADDRESS_DAYS);
        let by_sensitivity = root.key("by_sensitivity").entries();
        let by_sensitivity = by_sensitivity.iter().filter_map(|(name, at)| read_sensitivity(name, at)).collect();
        let kinds = root.key("kinds").entries();
        let kinds = kinds.iter().map(|(name, at)| ((*name).to_owned(), read_kind(at))).collect();
        Settings { address_seconds: address_days * DAY, by_sensitivity, kinds }
    })
}

fn read_sensitivity(name: &str, at: &Place<'_>) -> Option<(&'static str, Rule)> {
    let Some((name, sensitivity)) = SENSITIVITIES.iter().find(|(known, _)| *known == name) else {
        at.mistake(format!("there is no such sensitivity; there are: {}", sensitivities().join(", ")));
        return None;
    };
    let rule = read_rule(at);
    if action::bounded(sensitivity, rule.durable.clone()) != rule.durable {
        at.mistake(action::why_bounded(sensitivity));
    }
    if action::never_kept(sensitivity) && rule.expiring.is_some() {
        at.mistake(action::why_bounded(sensitivity));
    }
    Some((name, rule))
}

fn read_kind(at: &Place<'_>) -> Kind {
    at.keys(KIND_KEYS);
    let drop = at.key("drop").boolean().unwrap_or(false);
    let one_in = at.key("one_in");
    if drop && !one_in.is_empty() {
        one_in.mistake("a kind that is dropped is not sampled");
    }
    let sampling = match one_in.number(1, u32::MAX) {
        _ if drop => Sampling::Never,
        None | Some(1) => Sampling::All,
        Some(n) => Sampling::OneIn(n),
    };
    let fields = at.key("fields").entries();
    let fields = fields.iter().map(|(name, at)| ((*name).to_owned(), read_rule(at))).collect();
    Kind { fields, retention: at.key("retention_days").number(1, RETENTION_DAYS).map(|days| days * DAY), sampling }
}

/// An action for the whole retention, or `{"durable": ..., "expiring": ..., "days": N}`.
fn read_rule(at: &Place<'_>) -> Rule {
    let is_both = ["durable", "expiring", "days"].iter().any(|key| !at.key(key).is_empty());
    if !is_both {
        return Rule { durable: action::read(at), expiring: None };
    }
    at.keys(&["durable", "expiring", "days"]);
    let durable = at.key("durable");
    durable.required("say what stays for the whole retention: \"drop\", for instance");
    let (expiring, days) = (at.key("expiring"), at.key("days"));
    if expiring.is_empty() != days.is_empty() {
        at.mistake("`expiring` and `days` go together");
    }
    let after = days.number(1, RETENTION_DAYS).unwrap_or(1) * DAY;
    let expiring = (!expiring.is_empty()).then(|| Expiring { action: action::read(&expiring), after });
    Rule { durable: action::read(&durable), expiring }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        read(text).1.into_iter().map(|mistake| mistake.at).collect()
    }

    #[test]
    fn what_would_keep_too_much_is_refused_where_it_stands() {
        for (text, at) in [
            (r#"{"address_days": 8}"#, "/address_days"),
            (r#"{"by_sensitivity": {"user-agent": "keep"}}"#, "/by_sensitivity/user-agent"),
            (r#"{"by_sensitivity": {"ip-address": {"truncate": {"v4": 32, "v6": 48}}}}"#, "/by_sensitivity/ip-address"),
            (r#"{"by_sensitivity": {"credential": {"pseudonymise": "day"}}}"#, "/by_sensitivity/credential"),
            (
                r#"{"by_sensitivity": {"free-text": {"durable": "drop", "expiring": "keep", "days": 1}}}"#,
                "/by_sensitivity/free-text",
            ),
        ] {
            assert_eq!(mistakes(text), [at], "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_where_it_stands() {
        for (text, at) in [
            (r#"{"by_sensitivity": {"adress": "drop"}}"#, "/by_sensitivity/adress"),
            (r#"{"kinds": {"session": {"feilds": {}}}}"#, "/kinds/session/feilds"),
            (r#"{"kinds": {"session": {"one_in": 0}}}"#, "/kinds/session/one_in"),
            (r#"{"kinds": {"session": {"drop": true, "one_in": 5}}}"#, "/kinds/session/one_in"),
            (r#"{"kinds": {"s": {"fields": {"a": {"durable": "drop", "days": 3}}}}}"#, "/kinds/s/fields/a"),
            (r#"{"kinds": {"s": {"fields": {"a": {"expiring": "keep", "days": 3}}}}}"#, "/kinds/s/fields/a/durable"),
        ] {
            assert_eq!(mistakes(text), [at], "{text}");
        }
    }
}
