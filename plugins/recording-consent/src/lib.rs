//! Who may be recorded: express consent of each participant for each purpose, and nobody else: README.md.
#![deny(unsafe_code)]

mod judge;
mod settings;
#[cfg(test)]
mod tests;

use sluice_plugin_sdk::{denial, host};

use bindings::exports::sluice::policy::recording::{
    self, CallContext, Event, RecordingState, RecordingVerdict, ReviewResult, ReviewVerdict,
};
use bindings::exports::sluice::policy::setup::{self, CounterDecl, Manifest, Problem, Severity};
use judge::{No, judge, past_media};
use settings::Settings;

mod bindings {
    #![allow(unsafe_code, reason = "what wit-bindgen writes for the border of a component")]

    use super::RecordingConsent;

    wit_bindgen::generate!({
        path: "../../wit",
        world: "sluice:policy/recording-policy",
        additional_derives: [PartialEq],
        with: {
            "sluice:policy/types@0.0.1": sluice_plugin_sdk::types,
            "sluice:policy/settings@0.0.1": sluice_plugin_sdk::settings,
            "sluice:policy/logging@0.0.1": sluice_plugin_sdk::logging,
            "sluice:policy/metrics@0.0.1": sluice_plugin_sdk::metrics,
        },
    });

    export!(RecordingConsent);
}

struct RecordingConsent;

impl setup::Guest for RecordingConsent {
    fn describe() -> Manifest {
        let facts = ["subject", "attributes.minor", "attributes.recording-pause"];
        Manifest {
            name: "recording-consent".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            facts: facts.map(str::to_owned).to_vec(),
            counters: vec![CounterDecl {
                name: "refusals".to_owned(),
                help: "Recordings that were not started, or were interrupted, by reason".to_owned(),
                labels: vec!["reason".to_owned()],
            }],
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

impl recording::Guest for RecordingConsent {
    fn may_start(ctx: CallContext, state: RecordingState) -> RecordingVerdict {
        match judge(&settings(), ctx.now, &state) {
            Ok(grant) => RecordingVerdict::Allow(grant),
            Err(no) => RecordingVerdict::Deny(refusal(no)),
        }
    }

    fn review(ctx: CallContext, state: RecordingState, event: Event) -> ReviewResult {
        let settings = settings();
        let verdict = match judge(&settings, ctx.now, &state) {
            Ok(grant) => ReviewVerdict::Proceed(grant),
            // Consent can come back, and a pause ends; a purpose or a place that is not allowed stays so.
            Err(no @ (No::Paused | No::Consent | No::Everybody)) => ReviewVerdict::Pause(refusal(no)),
            Err(no) => ReviewVerdict::Stop(refusal(no)),
        };
        ReviewResult { verdict, past: past_media(&settings, &state, &event) }
    }
}

fn settings() -> Settings {
    let (settings, mistakes) = settings::read(&host::settings());
    assert!(mistakes.is_empty(), "these settings were never validated");
    settings
}

fn refusal(no: No) -> recording::Denial {
    host::count("refusals", &[no.reason()], 1);
    recording::Denial { audit_tags: vec![format!("reason={}", no.reason())], ..denial(no.code(), no.message()) }
}
