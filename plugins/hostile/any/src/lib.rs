//! Does what its settings say, to a host that has to bear it: ../README.md.
#![deny(unsafe_code)]

mod conduct;

use sluice_plugin_sdk::types::{
    AttributeValue, CallContext, Denial, DenyCode, Endpoint, Grant, MediaKind, Node, Verdict,
};

use bindings::exports::sluice::policy::{admission, erasure, geofence, media, recording, setup};
use conduct::{Lie, behave};

mod bindings {
    #![allow(unsafe_code, reason = "what wit-bindgen writes for the border of a component")]

    use super::Hostile;

    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package sluice:hostile;
            world all {
                include sluice:policy/base@0.0.1;
                export sluice:policy/admission@0.0.1;
                export sluice:policy/media@0.0.1;
                export sluice:policy/recording@0.0.1;
                export sluice:policy/geofence@0.0.1;
                export sluice:policy/erasure@0.0.1;
            }
        ",
        world: "sluice:hostile/all",
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
            name: "hostile-any".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            facts: Vec::new(),
            counters: vec![setup::CounterDecl {
                name: "seen".to_owned(),
                help: "Counted in a flood".to_owned(),
                labels: vec!["what".to_owned()],
            }],
        }
    }

    fn validate_settings(document: String) -> Vec<setup::Problem> {
        let lie = behave(&document, "validate-settings");
        let problem = |_| setup::Problem {
            severity: setup::Severity::Warning,
            at: "/nowhere/at/all".to_owned(),
            message: conduct::long_text(lie),
        };
        (0..lie.map_or(0, |_| 1)).map(problem).collect()
    }
}

/// An allowance; what is strange in it depends on the lie.
fn grant(lie: Option<Lie>) -> Grant {
    let obligation = |_| conduct::attribute("sluice.do-the-impossible", AttributeValue::Boolean(true));
    Grant {
        valid_for: if lie == Some(Lie::Absurd) { u32::MAX } else { 3600 },
        max_bitrate: (lie == Some(Lie::Absurd)).then_some(u64::MAX),
        audit_tags: if lie == Some(Lie::Huge) { vec![conduct::long_text(lie)] } else { Vec::new() },
        obligations: (0..u8::from(lie == Some(Lie::Oblige))).map(obligation).collect(),
    }
}

fn denial(message: String) -> Denial {
    Denial { message, ..sluice_plugin_sdk::denial(DenyCode::Forbidden, "") }
}

/// A verdict for each, or, as a lie, one too many.
fn verdicts(function: &str, expected: usize) -> Vec<Verdict> {
    let lie = conduct::at(function);
    let number = if lie == Some(Lie::Absurd) { expected + 1 } else { expected };
    (0..number).map(|_| Verdict::Allow(grant(lie))).collect()
}

impl admission::Guest for Hostile {
    fn allocate(_: CallContext, _: admission::AllocationRequest) -> admission::AllocationVerdict {
        let lie = conduct::at("allocate");
        let (lifetime, permissions) = match lie {
            Some(Lie::Absurd) => (Some(u32::MAX), Some(u16::MAX)),
            _ => (None, None),
        };
        let grant = grant(lie);
        admission::AllocationVerdict::Allow(admission::AllocationGrant {
            grant,
            max_lifetime: lifetime,
            max_permissions: permissions,
        })
    }

    fn permit_peers(_: CallContext, _: admission::Allocation, peers: Vec<Endpoint>) -> Vec<Verdict> {
        verdicts("permit-peers", peers.len())
    }
}

impl media::Guest for Hostile {
    fn join(_: CallContext, _: media::Room, _: media::Participant) -> Verdict {
        Verdict::Allow(grant(conduct::at("join")))
    }

    fn publish(_: CallContext, _: media::Room, _: media::Participant, kinds: Vec<MediaKind>) -> Vec<Verdict> {
        verdicts("publish", kinds.len())
    }

    fn subscribe(_: CallContext, _: media::Room, _: media::Participant, tracks: Vec<media::Track>) -> Vec<Verdict> {
        verdicts("subscribe", tracks.len())
    }
}

/// An allowance to record somebody, who as a lie is not there, by a consent that there is not.
fn recording_grant(lie: Option<Lie>) -> recording::RecordingGrant {
    let stranger =
        |_| recording::Scope { participant: "nobody".to_owned(), kinds: Vec::new(), receipt: "none".to_owned() };
    let of = grant(lie);
    recording::RecordingGrant {
        scopes: (0..u8::from(lie == Some(Lie::Absurd))).map(stranger).collect(),
        retention: if lie == Some(Lie::Absurd) { u32::MAX } else { 3600 },
        valid_for: of.valid_for,
        announce: (lie == Some(Lie::Huge)).then(|| conduct::long_text(lie)),
        audit_tags: of.audit_tags,
        obligations: of.obligations,
    }
}

impl recording::Guest for Hostile {
    fn may_start(_: CallContext, _: recording::RecordingState) -> recording::RecordingVerdict {
        recording::RecordingVerdict::Allow(recording_grant(conduct::at("may-start")))
    }

    fn review(_: CallContext, _: recording::RecordingState, _: recording::Event) -> recording::ReviewResult {
        let lie = conduct::at("review");
        let past = match lie {
            Some(Lie::Absurd) => recording::PastMedia::DeleteParticipants(vec!["nobody".to_owned()]),
            _ => recording::PastMedia::Keep,
        };
        recording::ReviewResult { verdict: recording::ReviewVerdict::Proceed(recording_grant(lie)), past }
    }
}

impl geofence::Guest for Hostile {
    fn plan(_: CallContext, _: Vec<Node>) -> geofence::Fences {
        let lie = conduct::at("fences");
        let nowhere = |_| geofence::Place::Set(conduct::long_text(lie));
        let rule = match lie {
            Some(Lie::Absurd | Lie::Huge) => geofence::PlaceRule::Except((0..1).map(nowhere).collect()),
            _ => geofence::PlaceRule::Any,
        };
        let fence = geofence::Fence {
            clients: rule.clone(),
            admit_unknown_clients: true,
            peers: rule.clone(),
            admit_unknown_peers: true,
            nodes: rule.clone(),
            storage: rule,
            regions: None,
            max_database_age: None,
            obligations: grant(lie).obligations,
        };
        geofence::Fences { general: fence, local: Vec::new(), valid_for: None }
    }
}

impl erasure::Guest for Hostile {
    fn erase(_: CallContext, _: String) -> erasure::Report {
        let lie = conduct::at("erase");
        let kept = if lie.is_some() { vec![denial(conduct::long_text(lie)).message] } else { Vec::new() };
        erasure::Report { deleted: if lie == Some(Lie::Absurd) { u32::MAX } else { 0 }, kept }
    }
}
