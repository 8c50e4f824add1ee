//! A geofence plan as the host executes it: no guest code runs.

use std::time::{Duration, Instant};

use sluice_base::limits::FENCE_PLACES_MAX;
use sluice_geo::Place;

use crate::bindings::exports::sluice::policy::geofence as wit;
use crate::facts::Node;
use crate::failure::Failure;
use crate::sets::Sets;

/// The fences of one plugin for one tenant.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Fences {
    general: Fence,
    local: Vec<(Vec<wit::Place>, Fence)>,
    /// When they are asked for again, and when they run out unless they were had again.
    pub(crate) renewal: Option<(Instant, Instant)>,
}

#[derive(Clone, PartialEq, Debug)]
struct Fence {
    clients: Rule,
    peers: Rule,
    /// Whether this node may serve at all.
    node: bool,
    database_age_most: Option<Duration>,
}

#[derive(Clone, PartialEq, Debug)]
struct Rule {
    places: wit::PlaceRule,
    unknown: bool,
}

/// Where somebody is, and how old in seconds what says so is.
pub(crate) type Known = (Place, Option<u32>);

/// Which side is outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outside {
    Client,
    Peer,
    Node,
}

impl Outside {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Outside::Client => "client outside the fence",
            Outside::Peer => "peer outside the fence",
            Outside::Node => "this node is outside the fence",
        }
    }
}

impl Fences {
    /// A plan that the host can execute.
    ///
    /// # Errors
    /// It names a set that there is not, has a duty that the host does not know, or is too long.
    pub(crate) fn new(plan: wit::Fences, node: &Node, sets: &Sets, now: Instant) -> Result<Self, Failure> {
        if plan.local.len() > FENCE_PLACES_MAX {
            return Err(Failure::Answer);
        }
        let compiled = |local: wit::LocalFence| {
            check(&local.clients_in, sets)?;
            Ok((local.clients_in, Fence::new(local.fence, node, sets)?))
        };
        Ok(Fences {
            general: Fence::new(plan.general, node, sets)?,
            local: plan.local.into_iter().map(compiled).collect::<Result<_, Failure>>()?,
            renewal: plan.valid_for.map(|seconds| {
                let valid_for = Duration::from_secs(u64::from(seconds));
                (now + valid_for / 2, now + valid_for)
            }),
        })
    }

    /// Whether they let in and keep out the same.
    pub(crate) fn are_like(&self, other: &Fences) -> bool {
        self.general == other.general && self.local == other.local
    }

    /// Whether they have run out.
    pub(crate) fn is_stale(&self, now: Instant) -> bool {
        self.renewal.is_some_and(|(_, until)| now >= until)
    }

    /// Who is outside, if anybody is.
    pub(crate) fn judge(&self, client: &Known, peers: &[Known], sets: &Sets) -> Option<Outside> {
        let fits = |places: &Vec<wit::Place>| matches(places, &client.0, sets) == Some(true);
        let fence = self.local.iter().find(|(places, _)| fits(places)).map_or(&self.general, |(_, fence)| fence);
        if !fence.node {
            return Some(Outside::Node);
        }
        if !fence.clients.admits(&fence.current(client), sets) {
            return Some(Outside::Client);
        }
        let inside = peers.iter().all(|peer| fence.peers.admits(&fence.current(peer), sets));
        (!inside).then_some(Outside::Peer)
    }
}

impl Fence {
    fn new(fence: wit::Fence, node: &Node, sets: &Sets) -> Result<Self, Failure> {
        if !fence.obligations.is_empty() {
            return Err(Failure::Obligation);
        }
        for rule in [&fence.clients, &fence.peers, &fence.nodes, &fence.storage] {
            match rule {
                wit::PlaceRule::Any => {}
                wit::PlaceRule::Only(places) | wit::PlaceRule::Except(places) => check(places, sets)?,
            }
        }
        let place = Place { country: node.country.clone(), ..Place::default() };
        // A place that is not known is outside.
        let of_node = |places| Rule { places, unknown: false }.admits(&place, sets);
        // What is kept is kept where the node is; where it is sent, nobody knows.
        let is_stored_well = if node.ships { fence.storage == wit::PlaceRule::Any } else { of_node(fence.storage) };
        let in_region = fence
            .regions
            .as_ref()
            .is_none_or(|regions| node.region.as_ref().is_some_and(|region| regions.contains(region)));
        Ok(Fence {
            node: of_node(fence.nodes) && is_stored_well && in_region,
            clients: Rule { places: fence.clients, unknown: fence.admit_unknown_clients },
            peers: Rule { places: fence.peers, unknown: fence.admit_unknown_peers },
            database_age_most: fence.max_database_age.map(|seconds| Duration::from_secs(u64::from(seconds))),
        })
    }

    /// A place as far as its database is not too old.
    fn current(&self, known: &Known) -> Place {
        let is_old = |age: u32| self.database_age_most.is_some_and(|most| Duration::from_secs(u64::from(age)) > most);
        match known.1 {
            Some(age) if is_old(age) => Place::default(),
            _ => known.0.clone(),
        }
    }
}

impl Rule {
    fn admits(&self, place: &Place, sets: &Sets) -> bool {
        match &self.places {
            wit::PlaceRule::Any => true,
            wit::PlaceRule::Only(places) => matches(places, place, sets).unwrap_or(self.unknown),
            wit::PlaceRule::Except(places) => matches(places, place, sets).map_or(self.unknown, |is_in| !is_in),
        }
    }
}

/// Whether a place is among these; `None`: it is known less finely than that takes.
fn matches(places: &[wit::Place], place: &Place, sets: &Sets) -> Option<bool> {
    let country = place.country.as_deref()?;
    let mut is_unknown = false;
    for candidate in places {
        let found = match candidate {
            wit::Place::Country(code) => Some(code == country),
            wit::Place::Set(set) => sets.contains(set, country),
            wit::Place::Subdivision(code) if !code.starts_with(&format!("{country}-")) => Some(false),
            wit::Place::Subdivision(code) => place.subdivision.as_ref().map(|subdivision| subdivision == code),
        };
        match found {
            Some(true) => return Some(true),
            Some(false) => {}
            None => is_unknown = true,
        }
    }
    if is_unknown { None } else { Some(false) }
}

/// Every set is there, and every code can be one.
fn check(places: &[wit::Place], sets: &Sets) -> Result<(), Failure> {
    let is_code = |code: &str| code.len() == 2 && code.bytes().all(|b| b.is_ascii_uppercase());
    let well = |place: &wit::Place| match place {
        wit::Place::Country(code) => is_code(code),
        wit::Place::Subdivision(code) => {
            code.split_once('-').is_some_and(|(country, part)| is_code(country) && !part.is_empty())
        }
        wit::Place::Set(set) => sets.has(set),
    };
    let fits = places.len() <= FENCE_PLACES_MAX && places.iter().all(well);
    if fits { Ok(()) } else { Err(Failure::Answer) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wit::PlaceRule::{Any, Except, Only};

    fn country(code: &str) -> wit::Place {
        wit::Place::Country(code.to_owned())
    }

    fn set(name: &str) -> wit::Place {
        wit::Place::Set(name.to_owned())
    }

    fn fence(clients: wit::PlaceRule) -> wit::Fence {
        wit::Fence {
            clients,
            admit_unknown_clients: false,
            peers: Any,
            admit_unknown_peers: false,
            nodes: Any,
            storage: Any,
            regions: None,
            max_database_age: None,
            obligations: vec![],
        }
    }

    fn compiled(fence: wit::Fence) -> Result<Fences, Failure> {
        let plan = wit::Fences { general: fence, local: vec![], valid_for: None };
        Fences::new(plan, &Node::default(), &Sets::default(), Instant::now())
    }

    fn at(code: &str) -> Known {
        (Place { country: Some(code.to_owned()), ..Place::default() }, Some(10))
    }

    fn nowhere() -> Known {
        (Place::default(), None)
    }

    fn judge(fence: wit::Fence, client: &Known) -> Option<Outside> {
        compiled(fence).unwrap().judge(client, &[], &Sets::default())
    }

    #[test]
    fn a_client_is_in_or_out() {
        for rule in [Only(vec![set("EU")]), Except(vec![country("US")])] {
            assert_eq!(judge(fence(rule.clone()), &at("DE")), None);
            assert_eq!(judge(fence(rule.clone()), &at("US")), Some(Outside::Client));
            assert_eq!(judge(fence(rule.clone()), &nowhere()), Some(Outside::Client), "unknown is outside");
            let open = wit::Fence { admit_unknown_clients: true, ..fence(rule) };
            assert_eq!(judge(open, &nowhere()), None, "unless it is let in");
        }
        assert_eq!(judge(fence(Any), &nowhere()), None);
    }

    #[test]
    fn a_place_known_less_finely_than_the_rule_is_unknown() {
        let bavaria = wit::Place::Subdivision("DE-BY".to_owned());
        assert_eq!(judge(fence(Only(vec![bavaria.clone()])), &at("DE")), Some(Outside::Client));
        assert_eq!(judge(fence(Except(vec![bavaria.clone()])), &at("DE")), Some(Outside::Client));
        assert_eq!(judge(fence(Except(vec![bavaria])), &at("FR")), None);
    }

    #[test]
    fn in_an_old_database_every_place_is_unknown() {
        let fence = wit::Fence { max_database_age: Some(9), ..fence(Only(vec![set("EU")])) };
        assert_eq!(judge(fence, &at("DE")), Some(Outside::Client));
    }

    #[test]
    fn one_peer_outside_is_enough() {
        let fences = compiled(wit::Fence { peers: Only(vec![country("DE")]), ..fence(Any) }).unwrap();
        let sets = Sets::default();
        assert_eq!(fences.judge(&at("US"), &[at("DE"), at("DE")], &sets), None);
        assert_eq!(fences.judge(&at("US"), &[at("DE"), at("US")], &sets), Some(Outside::Peer));
    }

    #[test]
    fn a_node_whose_place_is_not_known_is_outside() {
        let in_eu = wit::Fence { nodes: Only(vec![set("EU")]), ..fence(Any) };
        assert_eq!(judge(in_eu.clone(), &at("DE")), Some(Outside::Node));
        let plan = wit::Fences { general: in_eu, local: vec![], valid_for: None };
        let node = Node { country: Some("DE".to_owned()), ..Node::default() };
        let fences = Fences::new(plan, &node, &Sets::default(), Instant::now()).unwrap();
        assert_eq!(fences.judge(&at("DE"), &[], &Sets::default()), None);
        let stored = wit::Fence { storage: Only(vec![set("EU")]), ..fence(Any) };
        let plan = |fence| wit::Fences { general: fence, local: vec![], valid_for: None };
        for (ships, outside) in [(false, None), (true, Some(Outside::Node))] {
            let node = Node { country: Some("DE".to_owned()), ships, ..Node::default() };
            let fences = Fences::new(plan(stored.clone()), &node, &Sets::default(), Instant::now()).unwrap();
            assert_eq!(fences.judge(&at("DE"), &[], &Sets::default()), outside);
        }
        let region = wit::Fence { regions: Some(vec!["eu-central".to_owned()]), ..fence(Any) };
        assert_eq!(judge(region, &at("DE")), Some(Outside::Node));
    }

    #[test]
    fn the_first_local_fence_that_fits_replaces_the_general_one() {
        let local = wit::LocalFence { clients_in: vec![country("CH")], fence: fence(Only(vec![country("CH")])) };
        let plan = wit::Fences { general: fence(Only(vec![set("EU")])), local: vec![local], valid_for: None };
        let fences = Fences::new(plan, &Node::default(), &Sets::default(), Instant::now()).unwrap();
        let sets = Sets::default();
        assert_eq!(fences.judge(&at("CH"), &[], &sets), None);
        assert_eq!(fences.judge(&at("US"), &[], &sets), Some(Outside::Client));
    }

    #[test]
    fn an_unknown_set_or_duty_is_a_failure() {
        assert_eq!(compiled(fence(Except(vec![set("EUU")]))), Err(Failure::Answer));
        assert_eq!(compiled(fence(Only(vec![country("de")]))), Err(Failure::Answer));
        let value = crate::bindings::sluice::policy::types::AttributeValue::Boolean(true);
        let duty = crate::bindings::sluice::policy::types::Attribute { key: "x".to_owned(), value };
        assert_eq!(compiled(wit::Fence { obligations: vec![duty], ..fence(Any) }), Err(Failure::Obligation));
    }
}
