//! Where the clients, the peers, the relays and the stored data of a tenant may be. The settings become a table, which
//! the relay executes: README.md.
#![deny(unsafe_code)]

mod countries;
mod settings;

use sluice_plugin_sdk::host::{self, Level};

use bindings::exports::sluice::policy::geofence::{self, CallContext, Fence, Fences, Node, Place, PlaceRule};
use bindings::exports::sluice::policy::setup::{self, Manifest, Problem, Severity};

mod bindings {
    #![allow(unsafe_code, reason = "what wit-bindgen writes for the border of a component")]

    use super::Geofence;

    wit_bindgen::generate!({
        path: "../../wit",
        world: "sluice:policy/geofence-policy",
        additional_derives: [PartialEq],
        with: {
            "sluice:policy/types@0.0.1": sluice_plugin_sdk::types,
            "sluice:policy/settings@0.0.1": sluice_plugin_sdk::settings,
            "sluice:policy/logging@0.0.1": sluice_plugin_sdk::logging,
            "sluice:policy/metrics@0.0.1": sluice_plugin_sdk::metrics,
        },
    });

    export!(Geofence);
}

struct Geofence;

impl setup::Guest for Geofence {
    fn describe() -> Manifest {
        // The relay evaluates the fences by itself: no fact about anybody is wanted here.
        Manifest {
            name: "geofence".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            facts: Vec::new(),
            counters: Vec::new(),
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

impl geofence::Guest for Geofence {
    fn plan(_: CallContext, nodes: Vec<Node>) -> Fences {
        let (fences, mistakes) = settings::read(&host::settings());
        assert!(mistakes.is_empty(), "these settings were never validated");
        let outside = nodes.iter().filter(|node| is_outside(&fences.general, node)).count();
        if !nodes.is_empty() && outside == nodes.len() {
            host::log(Level::Warn, "no relay of this fleet is inside the general fence: it serves nobody");
        }
        fences
    }
}

/// Whether a relay is certainly outside. Which countries a set of the operator's has is not known here.
fn is_outside(fence: &Fence, node: &Node) -> bool {
    let is_region_out = |regions: &Vec<String>| node.region.as_ref().is_none_or(|region| !regions.contains(region));
    fence.regions.as_ref().is_some_and(is_region_out) || is_country_out(&fence.nodes, node.country.as_deref())
}

fn is_country_out(rule: &PlaceRule, country: Option<&str>) -> bool {
    match (rule, country) {
        (PlaceRule::Any, _) => false,
        (_, None) => true,
        (PlaceRule::Only(places), Some(country)) => places.iter().all(|place| match place {
            Place::Country(code) => code != country,
            Place::Subdivision(_) => true,
            Place::Set(_) => false,
        }),
        (PlaceRule::Except(places), Some(country)) => {
            places.iter().any(|place| matches!(place, Place::Country(code) if code == country))
        }
    }
}

#[cfg(test)]
mod tests {
    use geofence::Guest as _;
    use setup::Guest as _;
    use sluice_plugin_sdk::host::{Heard, listening};
    use sluice_plugin_sdk::types::Occasion;

    use super::*;

    const EXAMPLE: &str = include_str!("../example.json");
    const SCHEMA: &str = include_str!("../settings.schema.json");

    fn plan(settings: &str, nodes: &[(&str, Option<&str>)]) -> (Fences, Heard) {
        let context = CallContext {
            tenant: "clinic".to_owned(),
            now: 1_764_331_200_000,
            request_id: "1".to_owned(),
            occasion: Occasion::Initial,
            attributes: Vec::new(),
        };
        let node = |(region, country): &(&str, Option<&str>)| Node {
            id: "n".to_owned(),
            region: Some((*region).to_owned()),
            country: country.map(str::to_owned),
            attributes: Vec::new(),
        };
        let nodes = nodes.iter().map(node).collect();
        listening(settings, || Geofence::plan(context, nodes))
    }

    #[test]
    fn the_worked_example_has_no_mistake_and_says_what_the_readme_says() {
        assert_eq!(Geofence::validate_settings(EXAMPLE.to_owned()), []);
        let (fences, heard) = plan(EXAMPLE, &[("eu-central", Some("DE"))]);
        assert_eq!(heard, Heard::default());
        assert!(!fences.general.admit_unknown_clients);
        let PlaceRule::Only(clients) = &fences.general.clients else { panic!("{:?}", fences.general.clients) };
        assert!(clients.contains(&Place::Country("CH".to_owned())) && clients.len() == 31);
        assert_eq!(fences.local.len(), 1);
        assert_eq!(fences.local[0].clients_in, [Place::Country("CH".to_owned())]);
    }

    #[test]
    fn the_schema_names_the_keys_that_are_read() {
        let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
        let keys = |at: &str| -> Vec<String> {
            let properties = schema.pointer(at).and_then(serde_json::Value::as_object).unwrap();
            properties.keys().filter(|key| *key != "$schema").cloned().collect()
        };
        let known = |keys: &[&[&str]]| -> Vec<String> {
            let mut known: Vec<String> = keys.concat().iter().map(|key| (*key).to_owned()).collect();
            known.sort();
            known
        };
        assert_eq!(keys("/properties"), known(&[settings::FENCE_KEYS, settings::OTHER_KEYS]));
        assert_eq!(
            keys("/properties/by_client/items/properties"),
            known(&[settings::FENCE_KEYS, settings::LOCAL_KEYS])
        );
    }

    #[test]
    fn a_fleet_that_is_wholly_outside_is_told_of() {
        let says = |nodes: &[(&str, Option<&str>)]| plan(EXAMPLE, nodes).1.lines.len();
        assert_eq!(says(&[("us-east", Some("US")), ("eu-central", None)]), 1);
        assert_eq!(says(&[("us-east", Some("US")), ("eu-central", Some("DE"))]), 0);
        assert_eq!(says(&[]), 0);
    }

    #[test]
    fn no_settings_are_no_fence_and_not_an_open_one() {
        let problems = Geofence::validate_settings("{}".to_owned());
        let places: Vec<&str> = problems.iter().map(|problem| problem.at.as_str()).collect();
        assert_eq!(places, ["/clients", "/peers", "/unknown_clients", "/unknown_peers", "/nodes", "/storage"]);
    }
}
