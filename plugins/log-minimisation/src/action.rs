//! What is done to a value, in an operator's words, and what may be done to which.

use sluice_plugin_sdk::document::Place;
use sluice_plugin_sdk::types::{Action, Prefix, Pseudonymisation, Window};

use crate::bindings::exports::sluice::policy::log_plan::Sensitivity;

/// Bits of an address beyond which a prefix is a household or a person.
const V4_BITS: u32 = 24;
const V6_BITS: u32 = 48;

const WINDOWS: &[(&str, Window)] = &[("hour", Window::Hour), ("day", Window::Day), ("week", Window::Week)];

const WORDS: &[(&str, bool)] = &[("keep", true), ("drop", false)];

/// Whether a value points to a device: the class `ip` of the relay's retention.
pub(crate) fn points_to_a_device(sensitivity: &Sensitivity) -> bool {
    use Sensitivity::{DeviceId, IpAddress, Port, UserAgent};
    matches!(sensitivity, IpAddress | Port | DeviceId | UserAgent)
}

/// Whether no form of a value is ever written, as nobody can say what it holds, or everybody should not.
pub(crate) fn never_kept(sensitivity: &Sensitivity) -> bool {
    use Sensitivity::{Composite, Credential, FreeText, Other};
    matches!(sensitivity, Credential | FreeText | Composite | Other(_))
}

/// The action, or a stricter one where it would leave too much for the whole retention.
pub(crate) fn bounded(sensitivity: &Sensitivity, action: Action) -> Action {
    let is_allowed = match &action {
        Action::Drop | Action::Replace(_) => true,
        _ if never_kept(sensitivity) => false,
        Action::Keep => !points_to_a_device(sensitivity),
        Action::TruncateAddress(prefix) => is_coarse(prefix),
        Action::Pseudonymise(p) => p.prefix.as_ref().is_none_or(is_coarse),
        Action::TruncateTime(_) => true,
    };
    if is_allowed { action } else { Action::Drop }
}

/// Why `bounded` is stricter, and what to write instead.
pub(crate) fn why_bounded(sensitivity: &Sensitivity) -> &'static str {
    if never_kept(sensitivity) {
        "no form of this may be written: \"drop\" or {\"replace\": \"text\"}"
    } else {
        "this points to a device and may stay for days only: write it as `expiring`, or truncate an address to at most \
         24 bits (IPv4) and 48 bits (IPv6)"
    }
}

fn is_coarse(prefix: &Prefix) -> bool {
    u32::from(prefix.v4) <= V4_BITS && u32::from(prefix.v6) <= V6_BITS
}

/// Reads an action. What cannot be read is dropped.
pub(crate) fn read(at: &Place<'_>) -> Action {
    let Some(value) = at.value() else { return Action::Drop };
    if !value.is_object() {
        return if at.word(WORDS) == Some(true) { Action::Keep } else { Action::Drop };
    }
    at.keys(&["replace", "truncate", "pseudonymise", "round_seconds"]);
    let entries = at.entries();
    let [(name, inner)] = entries.as_slice() else {
        at.mistake("say one of: \"keep\", \"drop\", replace, truncate, pseudonymise, round_seconds");
        return Action::Drop;
    };
    let read = match *name {
        "replace" => inner.text().map(|text| Action::Replace(text.to_owned())),
        "truncate" => read_prefix(inner, &["v4", "v6"]).map(Action::TruncateAddress),
        "round_seconds" => inner.number(1, u32::MAX).map(Action::TruncateTime),
        _ => read_pseudonymisation(inner).map(Action::Pseudonymise),
    };
    read.unwrap_or(Action::Drop)
}

/// `"day"`, or `{"window": "day", "v4": 16, "v6": 32}`.
fn read_pseudonymisation(at: &Place<'_>) -> Option<Pseudonymisation> {
    if !at.value().is_some_and(serde_json::Value::is_object) {
        return Some(Pseudonymisation { window: at.word(WINDOWS)?, prefix: None });
    }
    let prefix = read_prefix(at, &["window", "v4", "v6"]);
    let window = at.key("window");
    window.required("say \"hour\", \"day\" or \"week\"");
    Some(Pseudonymisation { window: window.word(WINDOWS)?, prefix: Some(prefix?) })
}

fn read_prefix(at: &Place<'_>, keys: &[&str]) -> Option<Prefix> {
    at.keys(keys);
    let bits = |key: &str, most: u32| {
        let place = at.key(key);
        place.required("say how many leading bits stay");
        place.number(0, most).and_then(|bits| u8::try_from(bits).ok())
    };
    let (v4, v6) = (bits("v4", 32), bits("v6", 128));
    Some(Prefix { v4: v4?, v6: v6? })
}

#[cfg(test)]
mod tests {
    use sluice_plugin_sdk::document;

    use super::*;

    fn read_text(text: &str) -> (Action, usize) {
        let (action, mistakes) = document::read(text, read);
        (action, mistakes.len())
    }

    #[test]
    fn actions_are_read_in_an_operators_words() {
        let pseudonym = |window, prefix| Action::Pseudonymise(Pseudonymisation { window, prefix });
        for (text, action) in [
            (r#""keep""#, Action::Keep),
            (r#""drop""#, Action::Drop),
            (r#"{"replace": "-"}"#, Action::Replace("-".to_owned())),
            (r#"{"truncate": {"v4": 24, "v6": 48}}"#, Action::TruncateAddress(Prefix { v4: 24, v6: 48 })),
            (r#"{"round_seconds": 3600}"#, Action::TruncateTime(3600)),
            (r#"{"pseudonymise": "day"}"#, pseudonym(Window::Day, None)),
            (
                r#"{"pseudonymise": {"window": "hour", "v4": 16, "v6": 32}}"#,
                pseudonym(Window::Hour, Some(Prefix { v4: 16, v6: 32 })),
            ),
        ] {
            assert_eq!(read_text(text), (action, 0), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_dropped_and_told() {
        for text in [
            r#""hide""#,
            "7",
            r#"{"replace": "-", "round_seconds": 3}"#,
            r#"{"truncate": {"v4": 33, "v6": 48}}"#,
            r#"{"truncate": {"v4": 24}}"#,
            r#"{"pseudonymise": "year"}"#,
            r#"{"pseudonymise": {"v4": 16, "v6": 32}}"#,
            r#"{"hash": "sha1"}"#,
        ] {
            assert_eq!(read_text(text).0, Action::Drop, "{text}");
            assert!(read_text(text).1 > 0, "{text}");
        }
    }
}
