//! What of each record stays, in which form, and for how long. The settings become a plan for every kind and field
//! that the relay has, which the relay executes: README.md.
#![deny(unsafe_code)]

mod action;
mod settings;

use sluice_plugin_sdk::host::{self, Level};

use bindings::exports::sluice::policy::log_plan::{
    self, CallContext, Expiring, Field, FieldRule, KindPlan, Sampling, Schema,
};
use bindings::exports::sluice::policy::setup::{self, Manifest, Problem, Severity};
use settings::{Kind, Settings};

mod bindings {
    #![allow(unsafe_code, reason = "what wit-bindgen writes for the border of a component")]

    use super::LogMinimisation;

    wit_bindgen::generate!({
        path: "../../wit",
        world: "sluice:policy/log-policy",
        additional_derives: [PartialEq],
        with: {
            "sluice:policy/types@0.0.1": sluice_plugin_sdk::types,
            "sluice:policy/settings@0.0.1": sluice_plugin_sdk::settings,
            "sluice:policy/logging@0.0.1": sluice_plugin_sdk::logging,
            "sluice:policy/metrics@0.0.1": sluice_plugin_sdk::metrics,
        },
    });

    export!(LogMinimisation);
}

struct LogMinimisation;

impl setup::Guest for LogMinimisation {
    fn describe() -> Manifest {
        // It plans for kinds of records, and sees no record: it wants no fact.
        Manifest {
            name: "log-minimisation".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            facts: Vec::new(),
            counters: Vec::new(),
        }
    }

    fn validate_settings(document: String) -> Vec<Problem> {
        let mistakes = settings::read(&document).1;
        let problem = |m: sluice_plugin_sdk::document::Mistake| Problem {
            severity: Severity::Error,
            at: m.at,
            message: m.message,
        };
        mistakes.into_iter().map(problem).collect()
    }
}

impl log_plan::Guest for LogMinimisation {
    fn plan(_: CallContext, schemas: Vec<Schema>) -> Vec<KindPlan> {
        let (settings, mistakes) = settings::read(&host::settings());
        assert!(mistakes.is_empty(), "these settings were never validated");
        for (name, kind) in &settings.kinds {
            check(name, kind, &schemas);
        }
        schemas.iter().map(|schema| plan_kind(&settings, schema)).collect()
    }
}

/// A rule for what there is not protects nobody. A kind may be missing because it was not asked about; a field of a
/// kind that is there is a mistake, without which there is no plan: mandatory fields alone are written.
fn check(name: &str, kind: &Kind, schemas: &[Schema]) {
    let Some(schema) = schemas.iter().find(|schema| schema.kind == name) else {
        host::log(Level::Warn, &format!("the settings have rules for \"{name}\", which is no kind of this relay's"));
        return;
    };
    for (field, _) in &kind.fields {
        if schema.fields.iter().all(|known| known.name != *field) {
            let known: Vec<&str> = schema.fields.iter().map(|field| field.name.as_str()).collect();
            let said = format!("\"{name}\" has no field \"{field}\"; it has: {}", known.join(", "));
            host::log(Level::Error, &said);
            panic!("{said}");
        }
    }
}

fn plan_kind(settings: &Settings, schema: &Schema) -> KindPlan {
    let kind = settings.kinds.iter().find(|(name, _)| *name == schema.kind).map(|(_, kind)| kind);
    // What accountability needs has the host's own rule.
    let ours = schema.fields.iter().filter(|field| !field.mandatory);
    KindPlan {
        kind: schema.kind.clone(),
        fields: ours.map(|field| plan_field(settings, kind, field)).collect(),
        retention: kind.and_then(|kind| kind.retention),
        sampling: kind.map_or(Sampling::All, |kind| kind.sampling),
        per_record: false,
        obligations: Vec::new(),
    }
}

fn plan_field(settings: &Settings, kind: Option<&Kind>, field: &Field) -> FieldRule {
    let own = kind.and_then(|kind| kind.fields.iter().find(|(name, _)| *name == field.name));
    let rule = own.map_or_else(|| settings.rule_for(&field.sensitivity), |(_, rule)| rule.clone());
    let durable = action::bounded(&field.sensitivity, rule.durable);
    // Whatever a rule says: what points to a device is gone when addresses are.
    let longest = if action::points_to_a_device(&field.sensitivity) { settings.address_seconds } else { u32::MAX };
    let expiring = rule.expiring.filter(|_| longest > 0 && !action::never_kept(&field.sensitivity));
    let shortened = |e: Expiring| Expiring { action: e.action, after: e.after.min(longest) };
    FieldRule { name: field.name.clone(), durable, expiring: expiring.map(shortened) }
}

#[cfg(test)]
mod tests {
    use log_plan::{Guest as _, Sensitivity};
    use setup::Guest as _;
    use sluice_plugin_sdk::DAY;
    use sluice_plugin_sdk::host::{Heard, listening};
    use sluice_plugin_sdk::types::{Action, Occasion, Prefix, Pseudonymisation, Window};

    use super::*;

    const EXAMPLE: &str = include_str!("../example.json");
    const SCHEMA: &str = include_str!("../settings.schema.json");

    fn field(name: &str, sensitivity: Sensitivity) -> Field {
        Field { name: name.to_owned(), sensitivity, mandatory: false }
    }

    fn schema(kind: &str, fields: Vec<Field>) -> Schema {
        Schema { kind: kind.to_owned(), retention_class: "access-audit".to_owned(), fields, attributes: Vec::new() }
    }

    fn plan(settings: &str, schemas: Vec<Schema>) -> (Vec<KindPlan>, Heard) {
        assert_eq!(LogMinimisation::validate_settings(settings.to_owned()), []);
        let context = CallContext {
            tenant: "clinic".to_owned(),
            now: 1_764_331_200_000,
            request_id: "1".to_owned(),
            occasion: Occasion::Initial,
            attributes: Vec::new(),
        };
        listening(settings, || LogMinimisation::plan(context, schemas))
    }

    /// The rule of one field of one kind.
    fn rule(settings: &str, sensitivity: Sensitivity) -> FieldRule {
        let (mut plans, _) = plan(settings, vec![schema("session", vec![field("it", sensitivity)])]);
        plans.remove(0).fields.remove(0)
    }

    fn for_a_while(action: Action, after: u32) -> Option<Expiring> {
        Some(Expiring { action, after })
    }

    #[test]
    fn without_settings_addresses_are_readable_for_a_week_and_then_nowhere() {
        for sensitivity in [Sensitivity::IpAddress, Sensitivity::Port, Sensitivity::UserAgent, Sensitivity::DeviceId] {
            let rule = rule("{}", sensitivity);
            assert_eq!((rule.durable, rule.expiring), (Action::Drop, for_a_while(Action::Keep, 7 * DAY)));
        }
    }

    #[test]
    fn without_settings_what_says_too_much_is_never_written() {
        for sensitivity in [
            Sensitivity::Credential,
            Sensitivity::FreeText,
            Sensitivity::Composite,
            Sensitivity::Location,
            Sensitivity::Other("heart-rate".to_owned()),
        ] {
            let rule = rule("{}", sensitivity);
            assert_eq!((rule.durable, rule.expiring), (Action::Drop, None));
        }
    }

    #[test]
    fn no_setting_keeps_a_credential_or_a_device_beyond_its_days() {
        let text = r#"{"address_days": 3,
            "by_sensitivity": {"ip-address": {"durable": "drop", "expiring": "keep", "days": 7}},
            "kinds": {"session": {"fields": {"it": {"durable": "keep", "expiring": "keep", "days": 30}}}}}"#;
        let of_device = rule(text, Sensitivity::UserAgent);
        assert_eq!((of_device.durable, of_device.expiring), (Action::Drop, for_a_while(Action::Keep, 3 * DAY)));
        let of_credential = rule(text, Sensitivity::Credential);
        assert_eq!((of_credential.durable, of_credential.expiring), (Action::Drop, None));
        let never = rule(r#"{"address_days": 0}"#, Sensitivity::IpAddress);
        assert_eq!((never.durable, never.expiring), (Action::Drop, None));
    }

    #[test]
    fn a_field_has_its_own_rule_before_that_of_its_sensitivity() {
        let text = r#"{"by_sensitivity": {"ip-address": {"truncate": {"v4": 16, "v6": 32}}},
            "kinds": {"session": {"retention_days": 30, "one_in": 10, "fields": {"client": "drop"}}}}"#;
        let fields = vec![field("client", Sensitivity::IpAddress), field("peer", Sensitivity::IpAddress)];
        let (plans, _) = plan(text, vec![schema("session", fields)]);
        assert_eq!(plans[0].fields[0].durable, Action::Drop);
        assert_eq!(plans[0].fields[1].durable, Action::TruncateAddress(Prefix { v4: 16, v6: 32 }));
        assert_eq!(plans[0].retention, Some(30 * DAY));
        assert_eq!(plans[0].sampling, Sampling::OneIn(10));
    }

    #[test]
    fn mandatory_fields_are_left_to_the_host() {
        let mandatory = Field { mandatory: true, ..field("at", Sensitivity::Time) };
        let (plans, _) = plan("{}", vec![schema("audit", vec![mandatory, field("n", Sensitivity::None)])]);
        assert_eq!(plans[0].fields.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(), ["n"]);
    }

    #[test]
    fn a_rule_for_a_kind_that_there_is_not_is_told_of() {
        let (plans, heard) = plan(r#"{"kinds": {"sesion": {"drop": true}}}"#, vec![schema("session", Vec::new())]);
        assert_eq!((plans.len(), heard.lines.len()), (1, 1));
    }

    #[test]
    #[should_panic(expected = "\"session\" has no field \"cleint\"")]
    fn a_rule_for_a_field_that_there_is_not_fails() {
        let text = r#"{"kinds": {"session": {"fields": {"cleint": "drop"}}}}"#;
        plan(text, vec![schema("session", vec![field("client", Sensitivity::IpAddress)])]);
    }

    #[test]
    fn the_worked_example_has_no_mistake_and_says_what_the_readme_says() {
        let fields = vec![field("user", Sensitivity::SubjectId), field("it", Sensitivity::IpAddress)];
        let (plans, _) = plan(EXAMPLE, vec![schema("other", fields)]);
        let user = Action::Pseudonymise(Pseudonymisation { window: Window::Week, prefix: None });
        assert_eq!(plans[0].fields[0].durable, user);
        assert_eq!(plans[0].fields[1].expiring, for_a_while(Action::Keep, 2 * DAY));
    }

    #[test]
    fn the_schema_names_the_keys_that_are_read() {
        let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
        let keys = |at: &str| -> Vec<String> {
            let properties = schema.pointer(at).and_then(serde_json::Value::as_object).unwrap();
            properties.keys().filter(|key| *key != "$schema").cloned().collect()
        };
        let sorted = |keys: &[&str]| -> Vec<String> {
            let mut sorted: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
            sorted.sort();
            sorted
        };
        assert_eq!(keys("/properties"), sorted(settings::KEYS));
        assert_eq!(keys("/properties/kinds/additionalProperties/properties"), sorted(settings::KIND_KEYS));
        assert_eq!(keys("/properties/by_sensitivity/properties"), sorted(&settings::sensitivities()));
    }
}
