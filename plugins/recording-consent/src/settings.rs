//! The settings: the purposes for which there are recordings at all.

use sluice_plugin_sdk::DAY;
use sluice_plugin_sdk::document::{self, Mistake, Place};
use sluice_plugin_sdk::types::MediaKind;

/// Keys of the document.
pub(crate) const KEYS: &[&str] = &["purposes", "storage_countries", "review_seconds"];

/// Keys of a purpose.
pub(crate) const PURPOSE_KEYS: &[&str] =
    &["covered_by", "kinds", "notices", "consent_days_max", "retention_days", "everybody", "announce", "withdrawn"];

const REVIEW_SECONDS: u32 = 60;

/// A hundred years.
const DAYS: u32 = 36_500;

/// Makes a kind of media.
type MakeKind = fn() -> MediaKind;

const KINDS: &[(&str, MakeKind)] = &[
    ("audio", || MediaKind::Audio),
    ("video", || MediaKind::Video),
    ("screen", || MediaKind::Screen),
    ("data", || MediaKind::Data),
];

/// What becomes of a recording when a consent is withdrawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Withdrawn {
    Keep,
    DeleteParticipant,
    DeleteRecording,
}

/// A purpose of recordings.
#[derive(Clone, Debug)]
pub(crate) struct Purpose {
    name: String,
    /// Purposes of consents that cover it.
    pub(crate) covered_by: Vec<String>,
    /// What is recorded at most; `None`: whatever is consented to.
    kinds: Option<Vec<MediaKind>>,
    /// Versions of the notice that count; `None`: any.
    pub(crate) notices: Option<Vec<String>>,
    /// The age at which a consent is none any more.
    pub(crate) consent_days: Option<u32>,
    /// Seconds from the end of the recording.
    pub(crate) retention: u32,
    /// Whether nothing is recorded unless all who are there consent.
    pub(crate) everybody: bool,
    /// What everybody is told before.
    pub(crate) announce: String,
    pub(crate) withdrawn: Withdrawn,
}

/// All of the settings.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    purposes: Vec<Purpose>,
    /// Where recordings may be kept; `None`: where the relay lets them.
    pub(crate) storage_countries: Option<Vec<String>>,
    /// How often a running recording is judged anew at least.
    pub(crate) review_seconds: u32,
}

impl Settings {
    /// What there is for a purpose.
    pub(crate) fn purpose(&self, name: &str) -> Option<&Purpose> {
        self.purposes.iter().find(|purpose| purpose.name == name)
    }
}

impl Purpose {
    /// Whether a kind is recorded for it. One that is not known only where every kind is.
    pub(crate) fn records(&self, kind: &MediaKind) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(kind))
    }
}

/// Reads the settings. Every mistake that there is comes with them, and they are only good without one.
pub(crate) fn read(text: &str) -> (Settings, Vec<Mistake>) {
    document::read(text, |root| {
        root.keys(KEYS);
        let purposes = root.key("purposes");
        purposes.required("name the purposes for which there are recordings; without one nothing is recorded");
        let countries = root.key("storage_countries");
        let storage_countries = (!countries.is_empty()).then(|| countries.items().iter().filter_map(country).collect());
        Settings {
            purposes: purposes.entries().into_iter().map(|(name, at)| read_purpose(name, &at)).collect(),
            storage_countries,
            review_seconds: root.key("review_seconds").number(1, DAY).unwrap_or(REVIEW_SECONDS),
        }
    })
}

fn read_purpose(name: &str, at: &Place<'_>) -> Purpose {
    at.keys(PURPOSE_KEYS);
    let list = |key: &str| {
        let place = at.key(key);
        let texts = place.texts();
        if texts.is_empty() && place.value().is_some_and(serde_json::Value::is_array) {
            place.mistake("this list is empty: name at least one, or leave it out");
        }
        (!place.is_empty()).then_some(texts)
    };
    let (retention, announce, withdrawn) = (at.key("retention_days"), at.key("announce"), at.key("withdrawn"));
    retention.required("say for how many days a recording is kept");
    announce.required("say what everybody is told before the first byte is written");
    withdrawn
        .required("say what becomes of what was recorded: \"keep\", \"delete-participant\" or \"delete-recording\"");
    let kinds = at.key("kinds");
    let read_kinds = || kinds.items().iter().filter_map(|item| item.word(KINDS)).map(|kind| kind()).collect();
    Purpose {
        name: name.to_owned(),
        covered_by: list("covered_by").unwrap_or_else(|| vec![name.to_owned()]),
        kinds: (!kinds.is_empty()).then(read_kinds),
        notices: list("notices"),
        consent_days: at.key("consent_days_max").number(1, DAYS),
        retention: retention.number(1, DAYS).unwrap_or(1) * DAY,
        everybody: at.key("everybody").boolean().unwrap_or(false),
        announce: announce.text().unwrap_or_default().to_owned(),
        withdrawn: read_withdrawn(&withdrawn),
    }
}

fn read_withdrawn(at: &Place<'_>) -> Withdrawn {
    let words = [
        ("keep", Withdrawn::Keep),
        ("delete-participant", Withdrawn::DeleteParticipant),
        ("delete-recording", Withdrawn::DeleteRecording),
    ];
    at.word(&words).unwrap_or(Withdrawn::DeleteRecording)
}

fn country(at: &Place<'_>) -> Option<String> {
    let text = at.text()?;
    if text.len() != 2 || !text.bytes().all(|byte| byte.is_ascii_uppercase()) {
        at.mistake("a country is two capital letters: \"DE\"");
    }
    Some(text.to_owned())
}
