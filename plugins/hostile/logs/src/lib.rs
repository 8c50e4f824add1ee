//! Does with logs what its settings say: ../README.md.
#![deny(unsafe_code)]

#[path = "../../any/src/conduct.rs"]
mod conduct;

use sluice_plugin_sdk::types::{Action, Attribute, AttributeValue, CallContext, Prefix};

use bindings::exports::sluice::policy::{log_plan, setup};
use conduct::{Lie, behave};

mod bindings {
    #![allow(unsafe_code, reason = "what wit-bindgen writes for the border of a component")]

    use super::Hostile;

    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package sluice:hostile;
            world logs {
                include sluice:policy/log-policy@0.0.1;
            }
        ",
        world: "sluice:hostile/logs",
        generate_all,
        with: {
            "sluice:policy/types@0.0.1": sluice_plugin_sdk::types,
            "sluice:policy/settings@0.0.1": sluice_plugin_sdk::settings,
            "sluice:policy/logging@0.0.1": sluice_plugin_sdk::logging,
            "sluice:policy/metrics@0.0.1": sluice_plugin_sdk::metrics,
        },
    });

    export!(Hostile);
}

struct Hostile;

impl setup::Guest for Hostile {
    fn describe() -> setup::Manifest {
        setup::Manifest {
            name: "hostile-logs".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            facts: Vec::new(),
            counters: Vec::new(),
        }
    }

    fn validate_settings(document: String) -> Vec<setup::Problem> {
        behave(&document, "validate-settings");
        Vec::new()
    }
}

/// A duty, where the lie is one.
fn obligations(lie: Option<Lie>) -> Vec<Attribute> {
    let obligation = |_| conduct::attribute("sluice.do-the-impossible", AttributeValue::Boolean(true));
    (0..u8::from(lie == Some(Lie::Oblige))).map(obligation).collect()
}

impl log_plan::Guest for Hostile {
    fn plan(_: CallContext, schemas: Vec<log_plan::Schema>) -> Vec<log_plan::KindPlan> {
        let lie = conduct::at("log-plan");
        let keep = |field: log_plan::Field| log_plan::FieldRule {
            name: if lie == Some(Lie::Absurd) { "no-such-field".to_owned() } else { field.name },
            durable: match lie {
                Some(Lie::Absurd) => Action::TruncateAddress(Prefix { v4: 255, v6: 255 }),
                Some(Lie::Huge) => Action::Replace(conduct::long_text(lie)),
                _ => Action::Keep,
            },
            expiring: None,
        };
        let plan = |schema: log_plan::Schema| log_plan::KindPlan {
            kind: if lie == Some(Lie::Absurd) { "no-such-kind".to_owned() } else { schema.kind },
            fields: schema.fields.into_iter().map(keep).collect(),
            retention: Some(u32::MAX),
            sampling: log_plan::Sampling::All,
            per_record: false,
            obligations: obligations(lie),
        };
        schemas.into_iter().map(plan).collect()
    }
}
