//! The settings: rules in an operator's words, read into the table that the relay executes.

use sluice_plugin_sdk::DAY;
use sluice_plugin_sdk::document::{self, Mistake};

use crate::bindings::exports::sluice::policy::geofence::{Fence, Fences, LocalFence, Place, PlaceRule};
use crate::countries;

/// Keys of a fence.
pub(crate) const FENCE_KEYS: &[&str] =
    &["clients", "unknown_clients", "peers", "unknown_peers", "nodes", "storage", "regions", "database_age_days_max"];

/// Keys of the document besides those of the general fence.
pub(crate) const OTHER_KEYS: &[&str] = &["by_client", "sets", "ask_again_after_seconds"];

/// Keys of a fence for some clients besides.
pub(crate) const LOCAL_KEYS: &[&str] = &["clients_in"];

/// Years after which nobody asks how old a database may be.
const DATABASE_AGE_DAYS_MAX: u32 = 3650;

/// A year, in seconds.
const ASK_AGAIN_SECONDS_MAX: u32 = 365 * DAY;

/// Countries of the sets that the settings define.
type Sets<'d> = Vec<(&'d str, Vec<Place>)>;

/// Reads the settings. Every mistake that there is comes with the fences, which are only good without one.
pub(crate) fn read(text: &str) -> (Fences, Vec<Mistake>) {
    document::read(text, |root| {
        root.keys(&[FENCE_KEYS, OTHER_KEYS].concat());
        let sets = read_sets(&root.key("sets"));
        let general = read_fence(root, &sets, None);
        let local = root.key("by_client").items();
        let local = local.iter().map(|entry| read_local(entry, &sets, &general)).collect();
        let valid_for = root.key("ask_again_after_seconds").number(60, ASK_AGAIN_SECONDS_MAX);
        Fences { general, local, valid_for }
    })
}

fn read_sets<'d>(at: &document::Place<'d>) -> Sets<'d> {
    let set = |(name, list): (&'d str, document::Place<'d>)| {
        let places = list.items().iter().filter_map(|item| read_place(item, &Sets::new())).flatten().collect();
        (name, places)
    };
    at.entries().into_iter().map(set).collect()
}

fn read_local(at: &document::Place<'_>, sets: &Sets<'_>, general: &Fence) -> LocalFence {
    at.keys(&[FENCE_KEYS, LOCAL_KEYS].concat());
    let whose = at.key("clients_in");
    whose.required("say for clients of which places this fence is: [\"CH\"]");
    let clients_in = read_places(&whose, sets);
    let fence = read_fence(at, sets, Some(general));
    if !clients_in.is_empty() && clients_in.iter().all(|place| never_admits(&fence.clients, place)) {
        at.mistake("this fence admits none of the clients that it is for: give it a rule for `clients` that does");
    }
    LocalFence { clients_in, fence }
}

/// Reads a fence. What one for some clients does not say, it has from the general one.
fn read_fence(at: &document::Place<'_>, sets: &Sets<'_>, general: Option<&Fence>) -> Fence {
    let rule = |key: &str, of_general: fn(&Fence) -> &PlaceRule| {
        let place = at.key(key);
        match general {
            Some(general) if place.is_empty() => of_general(general).clone(),
            _ => read_rule(&place, sets),
        }
    };
    let clients = rule("clients", |general| &general.clients);
    let peers = rule("peers", |general| &general.peers);
    let admit = |key: &str, rule: &PlaceRule, of_general: fn(&Fence) -> bool| {
        let place = at.key(key);
        match general {
            Some(general) if place.is_empty() => of_general(general),
            _ => read_unknown(&place, rule),
        }
    };
    Fence {
        admit_unknown_clients: admit("unknown_clients", &clients, |general| general.admit_unknown_clients),
        admit_unknown_peers: admit("unknown_peers", &peers, |general| general.admit_unknown_peers),
        clients,
        peers,
        nodes: rule("nodes", |general| &general.nodes),
        storage: rule("storage", |general| &general.storage),
        regions: read_regions(&at.key("regions")).or_else(|| general.and_then(|general| general.regions.clone())),
        max_database_age: at
            .key("database_age_days_max")
            .number(1, DATABASE_AGE_DAYS_MAX)
            .map(|days| days * DAY)
            .or_else(|| general.and_then(|general| general.max_database_age)),
        obligations: Vec::new(),
    }
}

fn read_regions(at: &document::Place<'_>) -> Option<Vec<String>> {
    (!at.is_empty()).then(|| at.texts())
}

/// Whether somebody of whom no place is known is let in. Silence is no answer where a rule asks for a place.
fn read_unknown(at: &document::Place<'_>, rule: &PlaceRule) -> bool {
    if matches!(rule, PlaceRule::Any) {
        let admitted = at.word(&[("admit", true), ("refuse", false)]);
        if admitted == Some(false) {
            at.mistake("\"any\" has room for unknown places too: write a rule with `only` or `except` to refuse them");
        }
        return true;
    }
    at.required("say \"refuse\" or \"admit\": what becomes of an address whose place is unknown");
    at.word(&[("admit", true), ("refuse", false)]).unwrap_or(false)
}

/// `"any"`, `{"only": [...]}` or `{"except": [...]}`. What cannot be read lets nobody in.
fn read_rule(at: &document::Place<'_>, sets: &Sets<'_>) -> PlaceRule {
    let nobody = PlaceRule::Only(Vec::new());
    at.required("say \"any\", {\"only\": [\"DE\"]} or {\"except\": [\"DE\"]}");
    if at.value().is_some_and(serde_json::Value::is_string) {
        return at.word(&[("any", ())]).map_or(nobody, |()| PlaceRule::Any);
    }
    at.keys(&["only", "except"]);
    let (only, except) = (at.key("only"), at.key("except"));
    match (only.is_empty(), except.is_empty()) {
        (false, true) => PlaceRule::Only(read_places(&only, sets)),
        (true, false) => PlaceRule::Except(read_places(&except, sets)),
        (false, false) => {
            at.mistake("say either `only` or `except`");
            nobody
        }
        (true, true) => {
            if at.value().is_some_and(serde_json::Value::is_object) {
                at.mistake("say `only` or `except`, each with a list of places");
            }
            nobody
        }
    }
}

fn read_places(at: &document::Place<'_>, sets: &Sets<'_>) -> Vec<Place> {
    let items = at.items();
    if items.is_empty() && at.value().is_some_and(serde_json::Value::is_array) {
        at.mistake("this list is empty: name at least one place");
    }
    items.iter().filter_map(|item| read_place(item, sets)).flatten().collect()
}

/// A country "DE", a subdivision "DE-BY", or "set:EU": the settings' own set or else one of the operator's.
fn read_place(at: &document::Place<'_>, sets: &Sets<'_>) -> Option<Vec<Place>> {
    let text = at.text()?;
    if let Some(name) = text.strip_prefix("set:") {
        let own = sets.iter().find(|(own, _)| *own == name).map(|(_, places)| places.clone());
        return Some(own.unwrap_or_else(|| vec![Place::Set(name.to_owned())]));
    }
    let country = text.split('-').next().unwrap_or_default();
    if let Some(instead) = countries::is_called(country) {
        at.mistake(format!("\"{country}\" is no code of ISO 3166-1: {instead}"));
        return None;
    }
    match text.split_once('-') {
        None => Some(vec![Place::Country(text.to_owned())]),
        Some((_, part)) if is_subdivision(part) => Some(vec![Place::Subdivision(text.to_owned())]),
        Some(_) => {
            at.mistake("a subdivision is written as in ISO 3166-2: \"DE-BY\"");
            None
        }
    }
}

fn is_subdivision(part: &str) -> bool {
    (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

/// Whether a client of this place is certainly refused.
fn never_admits(rule: &PlaceRule, place: &Place) -> bool {
    let is_opaque = |place: &Place| !matches!(place, Place::Country(_));
    match rule {
        PlaceRule::Any => false,
        PlaceRule::Only(places) => !is_opaque(place) && !places.iter().any(|p| p == place || is_opaque(p)),
        PlaceRule::Except(places) => places.contains(place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: &str = r#""clients": "any", "peers": "any", "nodes": "any", "storage": "any""#;

    fn read_with(more: &str) -> (Fences, Vec<String>) {
        let (fences, mistakes) = read(&format!("{{{OPEN}{}{more}}}", if more.is_empty() { "" } else { "," }));
        (fences, mistakes.into_iter().map(|mistake| format!("{}: {}", mistake.at, mistake.message)).collect())
    }

    fn read_clients(rule: &str) -> (Fence, Vec<String>) {
        let text = format!(
            r#"{{"clients": {rule}, "unknown_clients": "refuse",
            "peers": "any", "nodes": "any", "storage": "any", "sets": {{"dach": ["DE", "AT", "CH"]}}}}"#
        );
        let (fences, mistakes) = read(&text);
        (fences.general, mistakes.into_iter().map(|mistake| mistake.at).collect())
    }

    #[test]
    fn places_are_countries_subdivisions_own_sets_and_the_operators() {
        let (fence, mistakes) = read_clients(r#"{"only": ["FR", "ES-CT", "set:dach", "set:EU"]}"#);
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let country = |code: &str| Place::Country(code.to_owned());
        let all = [
            country("FR"),
            Place::Subdivision("ES-CT".to_owned()),
            country("DE"),
            country("AT"),
            country("CH"),
            Place::Set("EU".to_owned()),
        ];
        assert_eq!(fence.clients, PlaceRule::Only(all.to_vec()));
    }

    #[test]
    fn a_code_that_no_country_has_is_refused_where_it_stands() {
        // An `except` of "UK" would let all of GB in.
        let (_, mistakes) = read_clients(r#"{"except": ["DE", "UK", "Germany", "de", "DE-bavaria"]}"#);
        assert_eq!(mistakes, ["/clients/except/1", "/clients/except/2", "/clients/except/3", "/clients/except/4"]);
    }

    #[test]
    fn a_rule_that_cannot_be_read_lets_nobody_in() {
        for (rule, at) in [
            (r#""all""#, "/clients"),
            ("{}", "/clients"),
            (r#"{"only": ["DE"], "except": ["CH"]}"#, "/clients"),
            (r#"{"only": []}"#, "/clients/only"),
            (r#"{"onyl": ["DE"]}"#, "/clients/onyl"),
        ] {
            let (fence, mistakes) = read_clients(rule);
            assert_eq!(fence.clients, PlaceRule::Only(Vec::new()), "{rule}");
            assert_eq!(mistakes[0], at, "{rule}");
        }
    }

    #[test]
    fn what_becomes_of_the_unknown_has_to_be_said() {
        let (_, mistakes) = read(r#"{"clients": {"only": ["DE"]}, "peers": "any", "nodes": "any", "storage": "any"}"#);
        assert_eq!(mistakes.iter().map(|m| m.at.as_str()).collect::<Vec<_>>(), ["/unknown_clients"]);
        let (fences, mistakes) = read_with(r#""unknown_peers": "refuse""#);
        assert!(fences.general.admit_unknown_peers);
        assert_eq!(mistakes.len(), 1, "a refusal that \"any\" cannot keep is no setting: {mistakes:?}");
    }

    #[test]
    fn a_fence_for_some_clients_has_what_it_does_not_say_from_the_general_one() {
        let (fences, mistakes) = read_with(
            r#""regions": ["eu"], "database_age_days_max": 30,
               "by_client": [{"clients_in": ["CH"], "storage": {"only": ["CH"]}}]"#,
        );
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let storage = PlaceRule::Only(vec![Place::Country("CH".to_owned())]);
        assert_eq!(fences.local[0].fence, Fence { storage, ..fences.general.clone() });
        assert_eq!(fences.general.max_database_age, Some(30 * DAY));
    }

    #[test]
    fn a_fence_that_admits_none_of_its_own_clients_is_a_mistake() {
        let text = r#"{"clients": {"only": ["DE"]}, "unknown_clients": "refuse", "peers": "any", "nodes": "any",
            "storage": "any", "by_client": [{"clients_in": ["CH"], "nodes": "any"}]}"#;
        assert_eq!(read(text).1.iter().map(|m| m.at.as_str()).collect::<Vec<_>>(), ["/by_client/0"]);
    }

    #[test]
    fn numbers_have_bounds() {
        let (_, mistakes) = read_with(r#""database_age_days_max": 0, "ask_again_after_seconds": 1"#);
        assert_eq!(mistakes.len(), 2, "{mistakes:?}");
    }
}
