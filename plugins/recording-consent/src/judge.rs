//! The decision: who is in the scope of a recording, and what becomes of what was written.

use sluice_plugin_sdk::types::{DenyCode, MediaKind};
use sluice_plugin_sdk::{DAY, is_set};

use crate::bindings::exports::sluice::policy::recording::{
    Consent, ConsentState, Event, Participant, PastMedia, RecordingGrant, RecordingState, Scope,
};
use crate::settings::{Purpose, Settings, Withdrawn};

/// A participant who cannot consent alone, in the words of the tenant's token.
const MINOR: &str = "minor";

/// Of a room or of a participant: nothing is written while it is set, as while card data is spoken.
const PAUSE: &str = "recording-pause";

const MILLIS: u64 = 1000;

/// Why nothing may be recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum No {
    /// The settings do not have the purpose.
    Purpose,
    /// It would be kept in a country that they do not have.
    Storage,
    /// Somebody has paused it.
    Paused,
    /// Nobody consents.
    Consent,
    /// Not everybody does, and the purpose demands that.
    Everybody,
}

impl No {
    /// The word in counters and in the audit.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            No::Purpose => "purpose",
            No::Storage => "storage",
            No::Paused => "paused",
            No::Consent => "consent",
            No::Everybody => "everybody",
        }
    }

    pub(crate) fn code(self) -> DenyCode {
        match self {
            No::Purpose | No::Paused => DenyCode::RecordingNotAllowed,
            No::Storage => DenyCode::RegionNotAllowed,
            No::Consent | No::Everybody => DenyCode::ConsentMissing,
        }
    }

    /// What the client is shown.
    pub(crate) fn message(self) -> &'static str {
        match self {
            No::Purpose => "there is no recording for this purpose",
            No::Storage => "a recording may not be kept in that country",
            No::Paused => "the recording is paused",
            No::Consent => "nobody consents to being recorded for this purpose",
            No::Everybody => "not everybody consents to being recorded for this purpose",
        }
    }
}

/// Who may be recorded now, and how long that may be relied on.
pub(crate) fn judge(settings: &Settings, now: u64, state: &RecordingState) -> Result<RecordingGrant, No> {
    let purpose = settings.purpose(&state.purpose).ok_or(No::Purpose)?;
    let is_stored_well = |allowed: &Vec<String>| state.storage_country.as_ref().is_some_and(|c| allowed.contains(c));
    if !settings.storage_countries.as_ref().is_none_or(is_stored_well) {
        return Err(No::Storage);
    }
    if is_set(&state.attributes, PAUSE) {
        return Err(No::Paused);
    }
    let mut scopes = Vec::new();
    let mut until = now.saturating_add(u64::from(settings.review_seconds) * MILLIS);
    let mut do_all_consent = true;
    for participant in &state.participants {
        let live = live_consents(purpose, now, state, participant);
        do_all_consent &= !live.is_empty();
        if !is_set(&participant.attributes, PAUSE) {
            for (consent, kinds) in live {
                until = until.min(end_of(purpose, consent));
                scopes.push(Scope { participant: participant.id.clone(), kinds, receipt: consent.receipt.clone() });
            }
        }
    }
    match (do_all_consent, scopes.is_empty()) {
        (false, _) if purpose.everybody => Err(No::Everybody),
        (_, true) => Err(No::Consent),
        _ => Ok(grant(purpose, &state.purpose, scopes, until - now)),
    }
}

fn grant(purpose: &Purpose, name: &str, scopes: Vec<Scope>, millis: u64) -> RecordingGrant {
    RecordingGrant {
        scopes,
        retention: purpose.retention,
        valid_for: u32::try_from(millis / MILLIS).unwrap_or(u32::MAX).max(1),
        announce: Some(purpose.announce.clone()),
        audit_tags: vec![format!("purpose={name}")],
        obligations: Vec::new(),
    }
}

/// The consents of a participant that hold now and cover the purpose, each with the kinds that it adds.
fn live_consents<'s>(
    purpose: &Purpose,
    now: u64,
    state: &'s RecordingState,
    who: &Participant,
) -> Vec<(&'s Consent, Vec<MediaKind>)> {
    let theirs = state.consents.iter().filter(|consent| is_about(consent, who));
    let covering: Vec<&Consent> = theirs.filter(|consent| purpose.covered_by.contains(&consent.purpose)).collect();
    let mut had: Vec<MediaKind> = Vec::new();
    let mut live = Vec::new();
    for consent in covering.iter().filter(|consent| is_live(purpose, now, consent) && is_express(consent, who)) {
        let is_taken_back = |kind: &MediaKind| covering.iter().any(|later| takes_back(later, consent, kind));
        let kinds =
            consent.kinds.iter().filter(|kind| purpose.records(kind) && !had.contains(kind) && !is_taken_back(kind));
        let kinds: Vec<MediaKind> = kinds.cloned().collect();
        if !kinds.is_empty() {
            had.extend(kinds.iter().cloned());
            live.push((*consent, kinds));
        }
    }
    live
}

fn is_about(consent: &Consent, who: &Participant) -> bool {
    let is_another = consent.subject.as_ref().zip(who.subject.as_ref()).is_some_and(|(one, other)| one != other);
    consent.participant == who.id && !is_another
}

fn is_live(purpose: &Purpose, now: u64, consent: &Consent) -> bool {
    let is_notice_known = purpose.notices.as_ref().is_none_or(|notices| notices.contains(&consent.notice));
    consent.state == ConsentState::Granted && is_notice_known && consent.at <= now && now < end_of(purpose, consent)
}

/// When a consent ends: by its own word, or by age.
fn end_of(purpose: &Purpose, consent: &Consent) -> u64 {
    let of_age = purpose.consent_days.map(|days| consent.at.saturating_add(u64::from(days) * u64::from(DAY) * MILLIS));
    consent.expires.unwrap_or(u64::MAX).min(of_age.unwrap_or(u64::MAX))
}

/// Given by the one whom it is about; for a minor by somebody else, who is named.
fn is_express(consent: &Consent, who: &Participant) -> bool {
    let by_another = consent.given_by.as_ref().is_some_and(|giver| who.subject.as_ref() != Some(giver));
    by_another == is_set(&who.attributes, MINOR)
}

/// Whether a no to the same purpose came after a yes, or with it. One that names no kinds is of all.
fn takes_back(later: &Consent, consent: &Consent, kind: &MediaKind) -> bool {
    later.state != ConsentState::Granted
        && later.purpose == consent.purpose
        && later.at >= consent.at
        && (later.kinds.is_empty() || later.kinds.contains(kind))
}

/// What becomes of what was written before. Only a withdrawal reaches back: what was recorded under a consent that has
/// run out was recorded with consent, and who says no when asked was never recorded.
pub(crate) fn past_media(settings: &Settings, state: &RecordingState, event: &Event) -> PastMedia {
    let (Some(purpose), Event::ConsentChanged(consent)) = (settings.purpose(&state.purpose), event) else {
        return PastMedia::Keep;
    };
    let covers = purpose.covered_by.contains(&consent.purpose);
    match (&consent.state, purpose.withdrawn) {
        _ if !covers => PastMedia::Keep,
        (ConsentState::Withdrawn, Withdrawn::DeleteRecording) => PastMedia::DeleteRecording,
        (ConsentState::Withdrawn, Withdrawn::DeleteParticipant)
        | (ConsentState::Refused, Withdrawn::DeleteParticipant | Withdrawn::DeleteRecording) => {
            PastMedia::DeleteParticipants(vec![consent.participant.clone()])
        }
        _ => PastMedia::Keep,
    }
}
