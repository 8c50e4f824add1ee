//! The store as workers and administrators use it, over files and a machine whose clocks are the test's.

mod support;

use std::time::Duration;

use sluice_base::Pii;
use sluice_base::limits::{DENIALS_PER_MINUTE_MAX, STORE_QUEUE_MAX};
use sluice_privacy::Day;
use sluice_record::plane::{Request, RequestError, Response, TenantTable};
use sluice_record::store::{BanTarget, Role};

use support::{DAY, NOON, Relay, admission, asker, began, denied, ended, lookup, session};

#[test]
fn an_admission_is_answered_with_yes_and_is_there_after_a_kill() {
    let relay = Relay::start("admission");
    assert!(relay.admit(admission(1)));
    // The files as they are at this moment, without a word to the process.
    let copy = relay.copy_of_state();
    let count = copy.count("SELECT COUNT(*) FROM session");
    assert_eq!(count, 1);
    assert_eq!(copy.verify().unwrap().last, 2, "the start's entry and the session's");
}

#[test]
fn a_session_is_found_by_its_clients_address_and_by_what_its_peers_saw() {
    let relay = Relay::start("found");
    assert!(relay.admit(admission(1)));
    relay.tell(began(1));
    relay.tell(ended(1));
    for (address, port, role) in [("192.0.2.1", None, Role::Client), ("203.0.113.9", Some(50_001), Role::Relayed)] {
        let found = relay.look_up(address, port).unwrap();
        assert_eq!(found.sessions.len(), 1, "{address}");
        assert_eq!((found.sessions[0].session, found.sessions[0].role), (session(1), role));
        assert_eq!(found.sessions[0].bytes, Some(30));
        assert!(found.gone.is_empty());
    }
    for (address, port) in [("192.0.2.2", None), ("192.0.2.1", Some(1)), ("203.0.113.9", Some(50_002))] {
        assert!(relay.look_up(address, port).unwrap().sessions.is_empty(), "{address}");
    }
}

#[test]
fn sessions_come_and_go_in_any_order_of_their_records() {
    let relay = Relay::start("order");
    relay.tell(ended(1));
    relay.tell(began(1));
    relay.tell(began(2));
    relay.tell(began(2));
    let found = relay.look_up("192.0.2.1", None).unwrap();
    assert_eq!((found.sessions.len(), found.sessions[0].ended), (1, Some(NOON)));
    assert_eq!(relay.look_up("192.0.2.2", None).unwrap().sessions.len(), 1);
}

#[test]
fn a_look_up_says_of_which_days_the_key_is_gone() {
    let relay = Relay::start("gone");
    assert!(relay.admit(admission(1)));
    relay.machine.pass(7 * DAY);
    let found = relay.look_up("192.0.2.1", None).unwrap();
    assert!(found.sessions.is_empty());
    assert_eq!(found.gone.len(), 1);
    assert_eq!((found.gone[0].day, &*found.gone[0].tenant), (Day::of(NOON), "clinic"));
    assert_eq!(found.gone[0].died, Some(NOON + 7 * 86_400));
    assert_eq!(relay.stats().keys_destroyed, 1);
    let copy = relay.copy_of_state();
    assert_eq!(copy.count("SELECT COUNT(*) FROM session WHERE sealed IS NOT NULL"), 0);
    assert_eq!(copy.count("SELECT COUNT(*) FROM session_address"), 0);
    assert_eq!(copy.journal_bytes(), 0, "the journal is cut when a key has died");
}

#[test]
fn a_look_up_says_that_a_lost_key_directory_took_a_day_with_it() {
    let mut relay = Relay::start("lost");
    assert!(relay.admit(admission(1)));
    relay = relay.restart(|folder| std::fs::remove_dir_all(folder.join("keys")).unwrap());
    assert!(relay.admit(admission(2)));
    let found = relay.look_up("192.0.2.1", None).unwrap();
    assert!(found.sessions.is_empty());
    assert_eq!(found.gone.len(), 1, "though the day has another key now");
    assert_eq!(relay.look_up("192.0.2.2", None).unwrap().sessions.len(), 1);
    assert_eq!(relay.stats().keys_lost, 1);
}

#[test]
fn whoever_keeps_no_addresses_has_none_in_the_store() {
    let relay = Relay::start("none");
    let tenants = TenantTable { ip_retention_days: 0, ..TenantTable::of(&["clinic"]) };
    relay.handle().configure(tenants);
    assert!(relay.admit(admission(1)));
    relay.tell(denied(Some(2)));
    assert!(relay.look_up("192.0.2.1", None).unwrap().sessions.is_empty());
    let copy = relay.copy_of_state();
    assert_eq!(copy.count("SELECT COUNT(*) FROM session WHERE sealed IS NULL AND day IS NULL"), 1);
    assert_eq!(copy.count("SELECT COUNT(*) FROM session_address"), 0);
    assert_eq!(copy.count("SELECT COUNT(*) FROM denial WHERE sealed IS NULL AND blind IS NULL"), 1);
}

#[test]
fn a_look_up_is_written_down_before_it_is_answered_and_takes_a_reason_without_an_address() {
    let relay = Relay::start("reason");
    for reason in ["", "  ", "abuse by 192.0.2.1"] {
        let request = lookup("192.0.2.1", None, asker(reason));
        assert!(matches!(relay.ask(request), Err(RequestError::Wrong(_))), "{reason:?}");
    }
    relay.look_up("192.0.2.1", None).unwrap();
    let Ok(Response::Entries(entries)) = relay.ask(Request::AuditTail { count: 1 }) else { panic!("no entries") };
    assert_eq!(entries[0].kind, "read");
    let body = entries[0].body.as_ref().unwrap();
    assert_eq!((body["role"].as_str(), body["reason"].as_str()), (Some("abuse"), Some("case 4711")));
    assert!(!entries[0].body.as_ref().unwrap().to_string().contains("192.0.2.1"));
}

#[test]
fn addresses_are_not_looked_up_where_that_is_not_allowed() {
    let relay = Relay::start_with("forbidden", |options| options.lookup = false);
    assert!(matches!(relay.look_up("192.0.2.1", None), Err(RequestError::NotAllowed(_))));
}

#[test]
fn what_nobody_waits_for_is_written_a_moment_later() {
    let relay = Relay::start("linger");
    relay.tell(began(1));
    relay.until(|stats| stats.events_written == 1);
}

#[test]
fn refusals_beyond_a_tenants_share_of_a_minute_are_counted_and_not_written() {
    let relay = Relay::start("denials");
    for _ in 0..DENIALS_PER_MINUTE_MAX + 5 {
        relay.tell(denied(None));
    }
    relay.ask(Request::BanList).unwrap();
    assert_eq!(relay.stats().denials_beyond, 5);
    relay.machine.pass(Duration::from_secs(60));
    relay.tell(denied(None));
    relay.ask(Request::BanList).unwrap();
    assert_eq!(relay.stats().denials_beyond, 5);
    assert_eq!(relay.copy_of_state().count("SELECT COUNT(*) FROM denial"), i64::from(DENIALS_PER_MINUTE_MAX) + 1);
}

#[test]
fn an_admission_that_is_refused_after_all_does_not_stay_open() {
    let relay = Relay::start("refused");
    assert!(relay.admit(admission(1)));
    relay.tell(denied(Some(1)));
    relay.ask(Request::BanList).unwrap();
    let over = "SELECT COUNT(*) FROM session WHERE ended IS NOT NULL AND reason = 'denied'";
    assert_eq!(relay.copy_of_state().count(over), 1);
}

#[test]
fn a_queue_that_is_full_refuses_admissions_and_loses_events_at_once() {
    let relay = Relay::start("full");
    let hold = relay.hold_the_store();
    let mut lost = 0;
    for _ in 0..STORE_QUEUE_MAX + 10 {
        lost += u64::from(!relay.handle().event(began(1)));
    }
    assert!(lost >= 10);
    assert!(!relay.handle().admit(admission(1), Box::new(|_| panic!("it was not taken on"))));
    assert_eq!((relay.stats().events_lost, relay.stats().admissions_full), (lost, 1));
    drop(hold);
}

#[test]
fn an_admission_that_waited_too_long_is_answered_with_no_and_leaves_no_open_session() {
    let relay = Relay::start("late");
    let hold = relay.hold_the_store();
    let answer = relay.begin_to_admit(admission(1));
    relay.machine.pass(Duration::from_millis(51));
    drop(hold);
    assert!(!answer.recv().unwrap());
    assert_eq!(relay.stats().admissions_late, 1);
    relay.ask(Request::BanList).unwrap();
    assert_eq!(relay.copy_of_state().count("SELECT COUNT(*) FROM session WHERE ended IS NULL"), 0);
}

#[test]
fn bans_outlive_a_restart_and_not_their_key() {
    let mut relay = Relay::start("bans");
    let target = BanTarget { address: Pii::new("192.0.2.0".parse().unwrap()), bits: 24 };
    let add = Request::BanAdd { target, seconds: 30 * 86_400, reason: "spam from 192.0.2.1".to_owned(), uid: 0 };
    let Ok(Response::Banned(ban)) = relay.ask(add) else { panic!("not banned") };
    // Made at noon of a day whose key dies seven days after that day's beginning.
    assert_eq!(ban.expires, NOON - 43_200 + 7 * 86_400);
    relay = relay.restart(|_| {});
    assert_eq!(relay.plane().bans(), std::slice::from_ref(&ban));
    relay.machine.pass(7 * DAY);
    relay = relay.restart(|_| {});
    assert!(relay.plane().bans().is_empty());
    assert_eq!(relay.copy_of_state().count("SELECT COUNT(*) FROM ban"), 0);
}

#[test]
fn a_ban_can_be_lifted_once() {
    let relay = Relay::start("lift");
    let target = BanTarget { address: Pii::new("2001:db8::".parse().unwrap()), bits: 56 };
    let add = Request::BanAdd { target, seconds: 60, reason: "spam".to_owned(), uid: 0 };
    let Ok(Response::Banned(ban)) = relay.ask(add) else { panic!("not banned") };
    let remove = Request::BanRemove { id: ban.id, uid: 0 };
    assert_eq!(relay.ask(remove.clone()), Ok(Response::Done));
    assert!(matches!(relay.ask(remove), Err(RequestError::Missing(_))));
    assert_eq!(relay.ask(Request::BanList), Ok(Response::Bans(vec![])));
}

#[test]
fn the_end_is_written_and_leaves_one_file() {
    let relay = Relay::start("end");
    relay.tell(began(1));
    let kept = relay.stop();
    let state = kept.state();
    assert!(!state.join("records.db-wal").exists());
    assert_eq!(support::count(&state, "SELECT COUNT(*) FROM session"), 1);
    assert_eq!(support::count(&state, "SELECT COUNT(*) FROM audit WHERE kind IN ('start', 'stop')"), 2);
    assert_eq!(support::count(&state, "SELECT COUNT(*) FROM checkpoint"), 2, "the day's first, and the end's");
}

#[test]
fn sessions_that_a_former_process_left_open_are_over() {
    let relay = Relay::start("left");
    assert!(relay.admit(admission(1)));
    let copy = relay.copy_of_state();
    let relay = Relay::over(copy, "left-2");
    relay.ask(Request::BanList).unwrap();
    assert_eq!(relay.copy_of_state().count("SELECT COUNT(*) FROM session WHERE reason = 'lost'"), 1);
}

#[test]
fn after_the_end_everything_is_refused() {
    let relay = Relay::start("after");
    let handle = relay.handle().clone();
    relay.stop();
    assert!(!handle.event(began(1)));
    assert!(!handle.admit(admission(1), Box::new(|_| panic!("it was not taken on"))));
    let (sender, answer) = std::sync::mpsc::channel();
    handle.request(Request::BanList, Box::new(move |told| sender.send(told).unwrap()));
    assert_eq!(answer.recv().unwrap(), Err(RequestError::Stopped));
    assert!(handle.fault().is_some());
}
