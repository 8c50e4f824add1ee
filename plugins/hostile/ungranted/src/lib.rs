//! Wants to store what it sees. Where it may, it notes who comes, and says no to going on with somebody of whom it has
//! no note. Settings: `{"known": "refuse"}` refuses those of whom it has one, and notes nobody.
#![deny(unsafe_code)]

#[path = "../../any/src/conduct.rs"]
#[allow(dead_code, reason = "it has more to offer than this one needs")]
mod conduct;

use sluice_plugin_sdk::types::{CallContext, DenyCode, Endpoint, Grant, Occasion, Verdict};
use sluice_plugin_sdk::{DAY, denial, document, host, kv};

use bindings::exports::sluice::policy::{admission, erasure, setup};

mod bindings {
    #![allow(unsafe_code, reason = "what wit-bindgen writes for the border of a component")]

    use super::Hostile;

    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package sluice:hostile;
            world storing {
                include sluice:policy/admission-policy@0.0.1;
                import sluice:policy/kv@0.0.1;
                export sluice:policy/erasure@0.0.1;
            }
        ",
        world: "sluice:hostile/storing",
        generate_all,
        with: {
            "sluice:policy/types@0.0.1": sluice_plugin_sdk::types,
            "sluice:policy/settings@0.0.1": sluice_plugin_sdk::settings,
            "sluice:policy/logging@0.0.1": sluice_plugin_sdk::logging,
            "sluice:policy/metrics@0.0.1": sluice_plugin_sdk::metrics,
            "sluice:policy/kv@0.0.1": sluice_plugin_sdk::kv,
        },
    });

    export!(Hostile);
}

struct Hostile;

impl setup::Guest for Hostile {
    fn describe() -> setup::Manifest {
        setup::Manifest {
            name: "hostile-ungranted".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            facts: vec!["subject".to_owned()],
            counters: Vec::new(),
        }
    }

    fn validate_settings(document: String) -> Vec<setup::Problem> {
        let _ = kv::put("settings", document.as_bytes(), u32::MAX, &[]);
        Vec::new()
    }
}

impl admission::Guest for Hostile {
    fn allocate(ctx: CallContext, request: admission::AllocationRequest) -> admission::AllocationVerdict {
        let Some(subject) = request.subject else {
            return admission::AllocationVerdict::Abstain;
        };
        let refuses = document::read(&host::settings(), |root| root.key("known").text() == Some("refuse")).0;
        match (refuses, matches!(ctx.occasion, Occasion::Initial)) {
            (false, true) => note(&subject),
            (false, false) if !knows(&subject) => return admission::AllocationVerdict::Abstain,
            (true, true) if knows(&subject) => {
                return admission::AllocationVerdict::Deny(denial(DenyCode::QuotaExceeded, "once is enough"));
            }
            _ => {}
        }
        let (grant, max_lifetime, max_permissions) = (grant(), None, None);
        admission::AllocationVerdict::Allow(admission::AllocationGrant { grant, max_lifetime, max_permissions })
    }

    fn permit_peers(_: CallContext, _: admission::Allocation, peers: Vec<Endpoint>) -> Vec<Verdict> {
        peers.iter().map(|_| Verdict::Allow(grant())).collect()
    }
}

impl erasure::Guest for Hostile {
    fn erase(_: CallContext, subject: String) -> erasure::Report {
        let lie = conduct::at("erase");
        let key = derived(&subject);
        let deleted = u32::from(is_there(&key) && kv::delete(&key).is_ok());
        erasure::Report { deleted, kept: lie.map(|_| conduct::long_text(lie)).into_iter().collect() }
    }
}

fn note(subject: &String) {
    let _ = kv::put(&noted(subject), b"", DAY, std::slice::from_ref(subject));
    let _ = kv::put(&derived(subject), b"", DAY, &[]);
}

/// An entry that says whom it is about.
fn noted(subject: &str) -> String {
    format!("noted {subject}")
}

/// One that does not.
fn derived(subject: &str) -> String {
    format!("derived {subject}")
}

fn knows(subject: &str) -> bool {
    is_there(&noted(subject)) || is_there(&derived(subject))
}

fn is_there(key: &str) -> bool {
    kv::get(key).is_ok_and(|value| value.is_some())
}

fn grant() -> Grant {
    Grant { valid_for: 3600, max_bitrate: None, audit_tags: Vec::new(), obligations: Vec::new() }
}
