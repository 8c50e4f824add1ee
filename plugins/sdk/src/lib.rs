//! What policy plugins in Rust share: the types of `sluice:policy`, settings that point at their mistakes, and a host
//! for unit tests that run natively.
//!
//! Nothing is hidden in here. A plugin says its own world, and so has its own exports; what several would have alike
//! (the types, the host's interfaces) is taken from this crate by `with`:
//!
//! ```text
//! wit_bindgen::generate!({
//!     path: "../../wit",
//!     world: "sluice:policy/geofence-policy",
//!     with: {
//!         "sluice:policy/types@0.0.1": sluice_plugin_sdk::types,
//!         "sluice:policy/settings@0.0.1": sluice_plugin_sdk::settings,
//!         "sluice:policy/logging@0.0.1": sluice_plugin_sdk::logging,
//!         "sluice:policy/metrics@0.0.1": sluice_plugin_sdk::metrics,
//!     },
//! });
//! ```
#![forbid(unsafe_code)]

pub mod document;
pub mod host;

pub use serde_json;

mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package sluice:sdk;
            world imports {
                import sluice:policy/types@0.0.1;
                import sluice:policy/settings@0.0.1;
                import sluice:policy/logging@0.0.1;
                import sluice:policy/metrics@0.0.1;
                import sluice:policy/kv@0.0.1;
                import sluice:policy/geo-lookup@0.0.1;
                import sluice:policy/pseudonym@0.0.1;
            }
        ",
        world: "sluice:sdk/imports",
        additional_derives: [PartialEq],
        generate_unused_types: true,
        generate_all,
    });
}

pub use bindings::sluice::policy::{geo_lookup, kv, logging, metrics, pseudonym, settings, types};

/// Seconds of a day.
pub const DAY: u32 = 24 * 60 * 60;

/// A refusal with a code and a word for the client, and nothing else.
pub fn denial(code: types::DenyCode, message: &str) -> types::Denial {
    types::Denial {
        code,
        message: message.to_owned(),
        retry_after: None,
        alternate: None,
        audit_tags: Vec::new(),
        attributes: Vec::new(),
    }
}

/// The value of a key in a bag of attributes.
pub fn attribute<'a>(bag: &'a [types::Attribute], key: &str) -> Option<&'a types::AttributeValue> {
    bag.iter().find(|attribute| attribute.key == key).map(|attribute| &attribute.value)
}

/// Whether a key is there and says yes: `true`, or the text "true".
pub fn is_set(bag: &[types::Attribute], key: &str) -> bool {
    match attribute(bag, key) {
        Some(types::AttributeValue::Boolean(yes)) => *yes,
        Some(types::AttributeValue::Text(text)) => text == "true",
        _ => false,
    }
}
