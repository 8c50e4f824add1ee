//! What a tenant's plan leaves of its records, on the disk and in what is shipped.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sluice_privacy::Plan;
use sluice_privacy::plan::{Action, Proposal, Rule, Window};
use sluice_privacy::schema::{Destination, Field, Kind};
use sluice_record::plane::{Request, Tenant, TenantTable};
use sluice_record::spool::{SinkOptions, SpoolOptions};
use support::{DAY, Relay, began, denied, ended};

/// One rule for every address, another for persons; everything else stays.
fn plan(addresses: &Rule, persons: &Action, one_in: u32) -> Plan {
    let lasting = |durable| Rule { durable, expiring: None };
    let rule = |field: &Field| match field.name {
        "person" => lasting(persons.clone()),
        _ if field.form.is_address() => addresses.clone(),
        _ => lasting(Action::Keep),
    };
    let fields = |kind: &Kind| kind.fields.iter().map(|field| (field.name.to_owned(), rule(field))).collect();
    let said = |kind: &Kind| Proposal { kind: kind.plan_name(), fields: fields(kind), one_in, retention: None };
    Plan::of(&Kind::TABLE.iter().map(said).collect::<Vec<_>>()).unwrap()
}

fn table(plan: Plan) -> TenantTable {
    let clinic = Tenant { plan: Arc::new(plan), ..Tenant::new("clinic", None) };
    TenantTable { tenants: vec![Arc::new(clinic)], ..TenantTable::of(&[]) }
}

/// A relay whose records are shipped to a file.
fn relay(name: &str, plan: Plan) -> Relay {
    Relay::start_with(name, |options| {
        options.tenants = table(plan);
        let state = &options.vault.state_directory;
        let sink = SinkOptions::File { path: state.with_file_name("shipped.jsonl") };
        options.spool = Some(SpoolOptions::new(state.join("spool"), "node".to_owned(), vec![sink]));
    })
}

/// A session from its beginning to its end, and a refusal; the lines of them.
fn lines(relay: &Relay) -> Vec<Value> {
    [began(1), ended(1), denied(None)].into_iter().for_each(|event| relay.tell(event));
    let shipped = relay.state().with_file_name("shipped.jsonl");
    loop {
        let text = std::fs::read_to_string(&shipped).unwrap_or_default();
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if lines.len() == 4 {
            // What is answered comes after what was told.
            relay.ask(Request::BanList).unwrap();
            return lines;
        }
        // Lines are written from time to time, by the machine's clock.
        relay.machine.pass(Duration::from_millis(10));
        std::thread::yield_now();
    }
}

fn dropped() -> Rule {
    Rule { durable: Action::Drop, expiring: None }
}

#[test]
fn what_a_plan_drops_is_in_no_record() {
    let relay = relay("plan-drop", plan(&dropped(), &Action::Drop, 1));
    for line in lines(&relay) {
        assert!(line["tenant"] == "clinic" && line["at"].is_u64(), "{line}");
        assert!(line["addresses"].is_null() && line["person"].is_null(), "{line}");
    }
    let copy = relay.copy_of_state();
    let bare = "sealed IS NULL AND day IS NULL";
    assert_eq!(copy.count(&format!("SELECT COUNT(*) FROM session WHERE {bare} AND bytes_to_client = 20")), 1);
    assert_eq!(copy.count("SELECT COUNT(*) FROM session_address"), 0);
    assert_eq!(copy.count("SELECT COUNT(*) FROM denial WHERE sealed IS NULL AND blind IS NULL"), 1);
    assert_eq!(relay.stats().keys_live, 0, "there is nothing to seal");
}

#[test]
fn of_the_strictest_plan_a_record_has_what_it_is_found_and_removed_by() {
    let relay = relay("plan-strictest", Plan::strictest());
    for line in lines(&relay) {
        let event = line["event"].as_str().unwrap();
        let destination = if event == "relayed" { Destination::Quality } else { Destination::Control };
        let fields = Kind::named(destination, event).unwrap().fields.iter().filter(|field| !field.planned);
        let mut expected: BTreeSet<_> = fields.map(|field| field.name).collect();
        if event == "denied" {
            expected.remove("session");
        }
        expected.extend(["segment", "line", "kind", "event"]);
        assert_eq!(line.as_object().unwrap().keys().map(String::as_str).collect::<BTreeSet<_>>(), expected);
    }
    let copy = relay.copy_of_state();
    let bare = "sealed IS NULL AND seconds IS NULL AND bytes_to_client IS NULL AND channels IS NULL";
    assert_eq!(copy.count(&format!("SELECT COUNT(*) FROM session WHERE reason IS NOT NULL AND {bare}")), 1);
    assert!(copy.verify().is_ok());
    assert_eq!(copy.count("SELECT COUNT(*) FROM audit WHERE kind IN ('connect', 'disconnect', 'denied')"), 3);
}

#[test]
fn a_pseudonym_of_a_plan_is_another_one_than_the_relays() {
    let of = |name, persons| {
        let lines = lines(&relay(name, plan(&dropped(), &persons, 1)));
        lines.iter().filter_map(|line| line["person"].as_str()).map(str::to_owned).collect::<Vec<_>>()
    };
    let (kept, tokens) = (of("plan-kept", Action::Keep), of("plan-token", Action::Pseudonymise(Window::Week, None)));
    assert!(kept.len() == 3 && tokens.len() == 3 && tokens.iter().all(|token| token.starts_with("user-")));
    assert!(tokens.iter().all(|token| *token == tokens[0]) && tokens[0] != kept[0]);
    assert_eq!(of("plan-text", Action::Replace("somebody".to_owned())), ["somebody"; 3]);
}

#[test]
fn an_address_goes_with_the_days_of_the_plan() {
    let days = Rule { durable: Action::Drop, expiring: Some((Action::Keep, 2 * 86_400)) };
    let relay = relay("plan-days", plan(&days, &Action::Keep, 1));
    relay.tell(began(1));
    assert_eq!(relay.look_up("192.0.2.1", None).unwrap().sessions.len(), 1);
    relay.machine.pass(2 * DAY);
    let found = relay.look_up("192.0.2.1", None).unwrap();
    assert_eq!((found.sessions.len(), found.gone.len(), relay.stats().keys_destroyed), (0, 1, 1));
}

#[test]
fn a_stricter_plan_holds_for_what_is_told_from_then_on() {
    let relay = relay("plan-later", Plan::floor());
    relay.tell(began(1));
    assert_eq!(relay.look_up("192.0.2.1", None).unwrap().sessions.len(), 1);
    relay.handle().configure(table(plan(&dropped(), &Action::Drop, 1)));
    relay.tell(began(2));
    assert!(relay.look_up("192.0.2.2", None).unwrap().sessions.is_empty());
    assert_eq!(relay.look_up("192.0.2.1", None).unwrap().sessions.len(), 1, "what was written has its days");
}
