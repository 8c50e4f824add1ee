//! Stories of a clinic whose calls are recorded for treatment, and some for training.

use recording::{Consent, ConsentState, Participant, PastMedia, RecordingGrant};
use sluice_plugin_sdk::host::{Heard, listening};
use sluice_plugin_sdk::types::{
    AddressClass, Attribute, AttributeValue, DenyCode, Endpoint, Geo, MediaKind, Occasion, Transport,
};

use crate::bindings::exports::sluice::policy::recording::Guest as _;
use crate::bindings::exports::sluice::policy::setup::Guest as _;

use super::*;

const EXAMPLE: &str = include_str!("../example.json");
const SCHEMA: &str = include_str!("../settings.schema.json");
const DAY: u64 = 24 * 3600 * 1000;
const NOW: u64 = 1_764_331_200_000;

fn context() -> CallContext {
    CallContext {
        tenant: "clinic".to_owned(),
        now: NOW,
        request_id: "1".to_owned(),
        occasion: Occasion::Initial,
        attributes: Vec::new(),
    }
}

fn yes(key: &str) -> Attribute {
    Attribute { key: key.to_owned(), value: AttributeValue::Boolean(true) }
}

fn participant(id: &str) -> Participant {
    let geo = Geo { country: None, subdivision: None, asn: None, database_age: None };
    let endpoint = Endpoint {
        address: None,
        port: None,
        transport: Transport::Udp,
        address_class: AddressClass::Public,
        translated: false,
        geo,
        pseudonym: None,
        attributes: Vec::new(),
    };
    let subject = Some(format!("hmac of {id}"));
    Participant { id: id.to_owned(), subject, role: "guest".to_owned(), endpoint, attributes: Vec::new() }
}

fn consent(of: &str) -> Consent {
    Consent {
        participant: of.to_owned(),
        subject: Some(format!("hmac of {of}")),
        state: ConsentState::Granted,
        purpose: "treatment".to_owned(),
        kinds: vec![MediaKind::Audio, MediaKind::Video],
        notice: "2026-01".to_owned(),
        receipt: format!("receipt of {of}"),
        given_by: None,
        at: NOW - DAY,
        expires: None,
        attributes: Vec::new(),
    }
}

fn call(participants: &[&str], consents: Vec<Consent>) -> RecordingState {
    RecordingState {
        room: "r".to_owned(),
        recording: "1".to_owned(),
        purpose: "treatment".to_owned(),
        requested_by: None,
        participants: participants.iter().map(|id| participant(id)).collect(),
        consents,
        storage_country: Some("DE".to_owned()),
        attributes: Vec::new(),
    }
}

fn start(state: RecordingState) -> (RecordingVerdict, Heard) {
    listening(EXAMPLE, || RecordingConsent::may_start(context(), state))
}

fn granted(state: RecordingState) -> RecordingGrant {
    match start(state).0 {
        RecordingVerdict::Allow(grant) => grant,
        other => panic!("{other:?}"),
    }
}

fn denied(state: RecordingState) -> DenyCode {
    match start(state).0 {
        RecordingVerdict::Deny(denial) => denial.code,
        other => panic!("{other:?}"),
    }
}

/// Participants in the scope of a recording.
fn recorded(state: RecordingState) -> Vec<String> {
    granted(state).scopes.into_iter().map(|scope| scope.participant).collect()
}

fn review(state: RecordingState, event: Event) -> ReviewResult {
    listening(EXAMPLE, || RecordingConsent::review(context(), state, event)).0
}

#[test]
fn only_who_consents_is_recorded_and_the_call_goes_on() {
    let grant = granted(call(&["doctor", "patient"], vec![consent("patient")]));
    assert_eq!(grant.scopes.len(), 1);
    assert_eq!(
        (grant.scopes[0].participant.as_str(), grant.scopes[0].receipt.as_str()),
        ("patient", "receipt of patient")
    );
    assert_eq!(grant.announce.as_deref(), Some("This call is recorded for your treatment."));
    assert_eq!(grant.retention, 30 * 24 * 3600);
}

#[test]
fn without_any_consent_nothing_is_recorded() {
    let (verdict, heard) = start(call(&["doctor", "patient"], Vec::new()));
    let RecordingVerdict::Deny(denial) = verdict else { panic!("{verdict:?}") };
    assert_eq!(denial.code, DenyCode::ConsentMissing);
    assert_eq!(heard.counted, [("refusals".to_owned(), vec!["consent".to_owned()], 1)]);
}

#[test]
fn consent_is_for_a_purpose() {
    let other = Consent { purpose: "marketing".to_owned(), ..consent("patient") };
    assert_eq!(denied(call(&["patient"], vec![other])), DenyCode::ConsentMissing);
    let unknown = RecordingState { purpose: "marketing".to_owned(), ..call(&["patient"], vec![consent("patient")]) };
    assert_eq!(denied(unknown), DenyCode::RecordingNotAllowed);
}

#[test]
fn consent_is_for_kinds_of_media() {
    let sound = Consent { kinds: vec![MediaKind::Audio, MediaKind::Data], ..consent("patient") };
    let sight =
        Consent { kinds: vec![MediaKind::Audio, MediaKind::Video], receipt: "2".to_owned(), ..consent("patient") };
    let grant = granted(call(&["patient"], vec![sound, sight]));
    let scopes: Vec<_> = grant.scopes.iter().map(|scope| (scope.receipt.as_str(), scope.kinds.clone())).collect();
    assert_eq!(scopes, [("receipt of patient", vec![MediaKind::Audio]), ("2", vec![MediaKind::Video])]);
}

#[test]
fn only_a_granted_consent_is_one() {
    for state in
        [ConsentState::Refused, ConsentState::Withdrawn, ConsentState::Expired, ConsentState::Other("asked".to_owned())]
    {
        let no = Consent { state, ..consent("patient") };
        assert_eq!(denied(call(&["patient"], vec![no])), DenyCode::ConsentMissing);
    }
}

#[test]
fn a_consent_that_is_over_old_or_of_another_notice_is_none() {
    for none in [
        Consent { expires: Some(NOW), ..consent("patient") },
        Consent { at: NOW - 366 * DAY, ..consent("patient") },
        Consent { at: NOW + 1, ..consent("patient") },
        Consent { notice: "2019-05".to_owned(), ..consent("patient") },
        Consent { subject: Some("hmac of another".to_owned()), ..consent("patient") },
        Consent { participant: "gone".to_owned(), ..consent("patient") },
    ] {
        assert_eq!(denied(call(&["patient"], vec![none.clone()])), DenyCode::ConsentMissing, "{none:?}");
    }
}

#[test]
fn a_later_no_takes_a_yes_back_for_the_kinds_that_it_names() {
    let no =
        |kinds| Consent { state: ConsentState::Withdrawn, at: NOW, kinds, receipt: "no".to_owned(), ..consent("p") };
    assert_eq!(denied(call(&["p"], vec![consent("p"), no(Vec::new())])), DenyCode::ConsentMissing);
    let grant = granted(call(&["p"], vec![no(vec![MediaKind::Video]), consent("p")]));
    assert_eq!(grant.scopes[0].kinds, [MediaKind::Audio]);
    let earlier = Consent { at: NOW - 2 * DAY, ..no(Vec::new()) };
    assert_eq!(recorded(call(&["p"], vec![earlier, consent("p")])), ["p"]);
}

#[test]
fn a_minor_is_recorded_by_the_word_of_a_guardian_alone() {
    let minor = |consent| {
        let mut state = call(&["child"], vec![consent]);
        state.participants[0].attributes.push(yes("minor"));
        state
    };
    let by = |giver: Option<&str>| Consent { given_by: giver.map(str::to_owned), ..consent("child") };
    assert_eq!(recorded(minor(by(Some("hmac of mother")))), ["child"]);
    assert_eq!(denied(minor(by(None))), DenyCode::ConsentMissing);
    assert_eq!(denied(minor(by(Some("hmac of child")))), DenyCode::ConsentMissing);
    // Of somebody who can speak for himself nobody else's word counts.
    assert_eq!(denied(call(&["child"], vec![by(Some("hmac of mother"))])), DenyCode::ConsentMissing);
}

#[test]
fn a_purpose_may_demand_that_everybody_consents() {
    let training = |consents: Vec<Consent>| {
        let of = |c: Consent| Consent { purpose: "training".to_owned(), ..c };
        RecordingState {
            purpose: "training".to_owned(),
            ..call(&["doctor", "patient"], consents.into_iter().map(of).collect())
        }
    };
    assert_eq!(denied(training(vec![consent("patient")])), DenyCode::ConsentMissing);
    assert_eq!(recorded(training(vec![consent("patient"), consent("doctor")])), ["doctor", "patient"]);
}

#[test]
fn a_pause_of_the_room_writes_nothing_and_one_of_a_participant_nothing_of_them() {
    let consents = vec![consent("a"), consent("b")];
    let mut room = call(&["a", "b"], consents.clone());
    room.attributes.push(yes("recording-pause"));
    assert_eq!(denied(room.clone()), DenyCode::RecordingNotAllowed);
    assert!(matches!(review(room, Event::Timer).verdict, ReviewVerdict::Pause(_)));
    let mut one = call(&["a", "b"], consents);
    one.participants[0].attributes.push(yes("recording-pause"));
    assert_eq!(recorded(one), ["b"]);
}

#[test]
fn a_recording_stays_in_the_countries_that_are_allowed() {
    for country in [Some("US".to_owned()), None] {
        let state = RecordingState { storage_country: country, ..call(&["p"], vec![consent("p")]) };
        assert_eq!(denied(state.clone()), DenyCode::RegionNotAllowed);
        assert!(matches!(review(state, Event::PolicyChanged).verdict, ReviewVerdict::Stop(_)));
    }
}

#[test]
fn a_grant_holds_until_the_first_consent_ends_and_at_most_until_the_next_review() {
    assert_eq!(granted(call(&["p"], vec![consent("p")])).valid_for, 60);
    let soon = Consent { expires: Some(NOW + 5500), ..consent("p") };
    assert_eq!(granted(call(&["p"], vec![soon])).valid_for, 5);
    let at_once = Consent { expires: Some(NOW + 5), ..consent("p") };
    assert_eq!(granted(call(&["p"], vec![at_once])).valid_for, 1);
    let of_age = Consent { at: NOW - 365 * DAY + 9000, ..consent("p") };
    assert_eq!(granted(call(&["p"], vec![of_age])).valid_for, 9);
}

#[test]
fn a_withdrawal_pauses_and_destroys_what_was_recorded_of_the_one_who_withdrew() {
    let withdrawn = Consent { state: ConsentState::Withdrawn, at: NOW, ..consent("p") };
    let result = review(call(&["p"], vec![withdrawn.clone()]), Event::ConsentChanged(withdrawn.clone()));
    assert!(matches!(result.verdict, ReviewVerdict::Pause(_)));
    assert_eq!(result.past, PastMedia::DeleteParticipants(vec!["p".to_owned()]));
    let other = Consent { purpose: "marketing".to_owned(), ..withdrawn };
    assert_eq!(review(call(&["p"], vec![consent("p")]), Event::ConsentChanged(other)).past, PastMedia::Keep);
}

#[test]
fn a_withdrawal_may_destroy_all_of_a_recording_but_a_refusal_only_what_is_of_the_refuser() {
    let training = |state| Consent { state, purpose: "training".to_owned(), at: NOW, ..consent("p") };
    let after = |state: ConsentState| {
        let event = Event::ConsentChanged(training(state.clone()));
        review(RecordingState { purpose: "training".to_owned(), ..call(&["p"], vec![training(state)]) }, event).past
    };
    assert_eq!(after(ConsentState::Withdrawn), PastMedia::DeleteRecording);
    assert_eq!(after(ConsentState::Refused), PastMedia::DeleteParticipants(vec!["p".to_owned()]));
    assert_eq!(after(ConsentState::Expired), PastMedia::Keep);
    assert_eq!(after(ConsentState::Other("lost".to_owned())), PastMedia::Keep);
}

#[test]
fn somebody_who_joins_is_not_recorded_before_they_consent() {
    let joined = participant("c");
    let result = review(call(&["p", "c"], vec![consent("p")]), Event::ParticipantJoined(joined));
    let ReviewVerdict::Proceed(grant) = result.verdict else { panic!("{:?}", result.verdict) };
    assert_eq!(grant.scopes.iter().map(|scope| scope.participant.as_str()).collect::<Vec<_>>(), ["p"]);
}

#[test]
fn what_becomes_of_a_recording_has_to_be_said_for_each_purpose() {
    let text = r#"{"purposes": {"a": {"kinds": ["smell"], "notices": []}}, "storage_countries": ["germany"]}"#;
    let problems = RecordingConsent::validate_settings(text.to_owned());
    let places: Vec<&str> = problems.iter().map(|problem| problem.at.as_str()).collect();
    assert_eq!(
        places,
        [
            "/storage_countries/0",
            "/purposes/a/retention_days",
            "/purposes/a/announce",
            "/purposes/a/withdrawn",
            "/purposes/a/kinds/0",
            "/purposes/a/notices",
        ]
    );
    assert_eq!(RecordingConsent::validate_settings("{}".to_owned())[0].at, "/purposes");
}

#[test]
fn the_worked_example_has_no_mistake_and_the_schema_names_the_keys_that_are_read() {
    assert_eq!(RecordingConsent::validate_settings(EXAMPLE.to_owned()), []);
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    for (at, keys) in [
        ("/properties", settings::KEYS),
        ("/properties/purposes/additionalProperties/properties", settings::PURPOSE_KEYS),
    ] {
        let properties = schema.pointer(at).and_then(serde_json::Value::as_object).unwrap();
        let found: Vec<&str> = properties.keys().map(String::as_str).filter(|key| *key != "$schema").collect();
        let mut known = keys.to_vec();
        known.sort_unstable();
        assert_eq!(found, known);
    }
}
