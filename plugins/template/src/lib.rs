//! At most so many allocations for each user. Settings: `{"per_user": 5}`.
#![deny(unsafe_code)]

use sluice_plugin_sdk::document::{self, Mistake};
use sluice_plugin_sdk::types::{DenyCode, Endpoint, Grant, Verdict};
use sluice_plugin_sdk::{denial, host};

use bindings::exports::sluice::policy::admission::{
    self, Allocation, AllocationGrant, AllocationRequest, AllocationVerdict, CallContext,
};
use bindings::exports::sluice::policy::setup::{self, CounterDecl, Manifest, Problem, Severity};

// The world says which hooks there are; see wit/worlds.wit for others, and wit/README.md for a world of your own.
mod bindings {
    #![allow(unsafe_code, reason = "what wit-bindgen writes for the border of a component")]

    use super::Policy;

    wit_bindgen::generate!({
        path: "../../wit",
        world: "sluice:policy/admission-policy",
        additional_derives: [PartialEq],
        with: {
            "sluice:policy/types@0.0.1": sluice_plugin_sdk::types,
            "sluice:policy/settings@0.0.1": sluice_plugin_sdk::settings,
            "sluice:policy/logging@0.0.1": sluice_plugin_sdk::logging,
            "sluice:policy/metrics@0.0.1": sluice_plugin_sdk::metrics,
        },
    });

    export!(Policy);
}

struct Policy;

impl setup::Guest for Policy {
    // A constant: what is not named here is neither sent nor counted.
    fn describe() -> Manifest {
        Manifest {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            facts: vec!["subject".to_owned()],
            counters: vec![CounterDecl {
                name: "too_many".to_owned(),
                help: "Requests of users who had as many allocations as they may".to_owned(),
                labels: Vec::new(),
            }],
        }
    }

    fn validate_settings(document: String) -> Vec<Problem> {
        let problem = |m: Mistake| Problem { severity: Severity::Error, at: m.at, message: m.message };
        read(&document).1.into_iter().map(problem).collect()
    }
}

impl admission::Guest for Policy {
    fn allocate(_: CallContext, request: AllocationRequest) -> AllocationVerdict {
        let per_user = read(&host::settings()).0;
        // Of whom nothing is known, nothing is counted: nobody is let in.
        if request.subject_allocations.is_none_or(|others| others >= per_user) {
            host::count("too_many", &[], 1);
            return AllocationVerdict::Deny(denial(DenyCode::QuotaExceeded, "too many allocations"));
        }
        AllocationVerdict::Allow(AllocationGrant { grant: grant(), max_lifetime: None, max_permissions: None })
    }

    fn permit_peers(_: CallContext, _: Allocation, peers: Vec<Endpoint>) -> Vec<Verdict> {
        peers.iter().map(|_| Verdict::Allow(grant())).collect()
    }
}

/// The relay asks again after an hour.
fn grant() -> Grant {
    Grant { valid_for: 3600, max_bitrate: None, audit_tags: Vec::new(), obligations: Vec::new() }
}

/// What the settings say, and every mistake in them.
fn read(document: &str) -> (u32, Vec<Mistake>) {
    document::read(document, |root| {
        root.keys(&["per_user"]);
        let per_user = root.key("per_user");
        per_user.required("say how many allocations a user may have");
        per_user.number(1, 1000).unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use setup::Guest as _;

    use super::*;

    #[test]
    fn settings_that_are_wrong_are_told_with_their_place() {
        let places = |document: &str| -> Vec<String> {
            Policy::validate_settings(document.to_owned()).into_iter().map(|problem| problem.at).collect()
        };
        assert_eq!(places(r#"{"per_user": 5}"#), [""; 0]);
        assert_eq!(places("{}"), ["/per_user"]);
        assert_eq!(places(r#"{"per_user": 0, "perUser": 5}"#), ["/perUser", "/per_user"]);
    }
}
