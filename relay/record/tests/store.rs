//! The store as workers and administrators use it, over files and a machine whose clocks are the test's.

mod support;

use std::time::Duration;

use sluice_base::Pii;
use sluice_base::limits::{DENIALS_PER_MINUTE_MAX, STORE_QUEUE_MAX};
use sluice_privacy::Day;
use sluice_record::plane::{Request, RequestError, Response, TenantTable};
use sluice_record::spool::{SinkOptions, SpoolOptions};
use sluice_record::store::{BanTarget, Role};

use support::{DAY, HOUR, NOON, Relay, admission, asker, began, denied, ended, lookup, session};

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
    let Ok(Response::Entries(entries)) = relay.ask(Request::AuditTail { count: 1, asker: asker("") }) else {
        panic!("no entries")
    };
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

fn ban(target: BanTarget, seconds: u64) -> Request {
    Request::BanAdd { target, by_pseudonym: false, seconds, asker: asker("spam") }
}

#[test]
fn a_ban_ends_by_either_clock_and_does_not_come_back_with_a_clock_that_is_set_back() {
    let relay = Relay::start("ban-end");
    let (rings, bell) = std::sync::mpsc::channel();
    relay.handle().on_bans_ended(Box::new(move || rings.send(()).unwrap()));
    let target = BanTarget { address: Pii::new("192.0.2.7".parse().unwrap()), bits: 32 };
    let none = Ok(Response::Bans(vec![]));
    relay.ask(ban(target, 60)).unwrap();
    relay.machine.set_wall_clock(NOON - 3600);
    relay.machine.pass(Duration::from_secs(60));
    assert_eq!(relay.ask(Request::BanList), none, "the boot clock says so");
    bell.recv().unwrap();
    relay.ask(ban(target, 60)).unwrap();
    relay.machine.set_wall_clock(NOON);
    assert_eq!(relay.ask(Request::BanList), none, "the wall clock says so");
    bell.recv().unwrap();
    relay.machine.set_wall_clock(NOON - 3600);
    assert_eq!(relay.ask(Request::BanList), none);
    relay.ask(ban(target, 7 * 86_400)).unwrap();
    relay.handle().configure(TenantTable { ip_retention_days: 0, ..TenantTable::of(&["clinic"]) });
    assert_eq!(relay.ask(Request::BanList), none, "its key is gone");
    bell.recv().unwrap();
    assert_eq!(relay.copy_of_state().count("SELECT COUNT(*) FROM ban"), 0);
}

#[test]
fn whoever_reads_bans_or_the_audit_and_whoever_changes_bans_stands_in_the_audit() {
    let relay = Relay::start("readers");
    let target = BanTarget { address: Pii::new("192.0.2.7".parse().unwrap()), bits: 32 };
    let Ok(Response::Banned(banned)) = relay.ask(ban(target, 60)) else { panic!("not banned") };
    relay.ask(Request::BanRead { asker: asker("") }).unwrap();
    relay.ask(Request::AuditTail { count: 1, asker: asker("") }).unwrap();
    relay.ask(Request::BanRemove { id: banned.id, asker: asker("case 4712") }).unwrap();
    let told = relay.ask(Request::AuditTail { count: 4, asker: asker("") });
    let Ok(Response::Entries(entries)) = told else { panic!("no entries") };
    let entry = |line: &sluice_record::audit::Line| {
        let body = line.body.as_ref().unwrap();
        assert_eq!((body["role"].as_str(), body["uid"].as_u64()), (Some("abuse"), Some(0)));
        format!("{} {} {}", line.kind, body["what"], body["reason"])
    };
    let entries: Vec<String> = entries.iter().map(entry).collect();
    let expected = [
        "ban-added null \"spam\"",
        "read \"ban list\" null",
        "read \"audit tail\" null",
        "ban-removed null \"case 4712\"",
    ];
    assert_eq!(entries, expected);
    let named = Request::BanAdd { target, by_pseudonym: false, seconds: 60, asker: asker("spam from 192.0.2.7") };
    assert!(matches!(relay.ask(named), Err(RequestError::Wrong(_))), "the audit outlives the address");
}

#[test]
fn bans_outlive_a_restart_and_not_their_key() {
    let mut relay = Relay::start("bans");
    let target = BanTarget { address: Pii::new("192.0.2.0".parse().unwrap()), bits: 24 };
    let Ok(Response::Banned(ban)) = relay.ask(ban(target, 30 * 86_400)) else { panic!("not banned") };
    // Made at noon of a day whose key dies seven days after that day's beginning.
    assert_eq!(ban.expires, NOON - 43_200 + 7 * 86_400);
    relay = relay.restart(|_| {});
    assert_eq!(relay.plane().bans(), std::slice::from_ref(&ban));
    relay.machine.pass(7 * DAY);
    relay = relay.restart(|_| {});
    assert!(relay.plane().bans().is_empty());
    assert_eq!(relay.ask(Request::BanList), Ok(Response::Bans(vec![])));
    assert_eq!(relay.copy_of_state().count("SELECT COUNT(*) FROM ban"), 0);
}

#[test]
fn a_ban_can_be_lifted_once() {
    let relay = Relay::start("lift");
    let target = BanTarget { address: Pii::new("2001:db8::".parse().unwrap()), bits: 56 };
    let Ok(Response::Banned(ban)) = relay.ask(ban(target, 60)) else { panic!("not banned") };
    let remove = Request::BanRemove { id: ban.id, asker: asker("") };
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
    assert_eq!(support::count(&state, "SELECT COUNT(*) FROM checkpoint"), 1);
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

#[test]
fn what_leaves_the_relay_has_pseudonyms_and_ciphertext_and_no_address() {
    let folder = sluice_record::testing::Folder::new("sink");
    let sink = folder.join("lines.jsonl");
    let path = sink.clone();
    let relay = Relay::start_with("lines", |options| {
        let directory = options.vault.state_directory.join("spool");
        options.spool = Some(SpoolOptions::new(directory, "node".to_owned(), vec![SinkOptions::File { path }]));
    });
    relay.tell(began(1));
    relay.tell(ended(1));
    relay.tell(denied(None));
    relay.until(|_| std::fs::read_to_string(&sink).is_ok_and(|text| text.lines().count() == 4));
    let text = std::fs::read_to_string(&sink).unwrap();
    assert!(!text.contains("192.0.2.") && !text.contains("203.0.113.") && !text.contains("zelda"), "{text}");
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events = lines.iter().map(|line| format!("{} {}", line["kind"], line["event"])).collect::<Vec<_>>();
    let quality = "\"quality\" \"relayed\"";
    assert_eq!(events, ["\"control\" \"began\"", "\"control\" \"ended\"", quality, "\"control\" \"denied\""]);
    let sealed = sluice_crypto::base64_decode(lines[0]["addresses"].as_str().unwrap()).unwrap();
    let opened = relay.plane().vault.open_sealed(&sealed, &session(1).0).unwrap();
    assert!(String::from_utf8(opened.to_vec()).unwrap().contains("203.0.113.9:50001"));
}

const YEAR: Duration = Duration::from_secs(365 * 86_400);

#[test]
fn records_go_after_three_years_and_the_audit_begins_anew_at_a_signed_checkpoint() {
    let relay = Relay::start("years");
    relay.tell(began(1));
    relay.tell(ended(1));
    relay.ask(Request::BanList).unwrap();
    for _ in 0..3 {
        relay.machine.pass(YEAR - HOUR);
        relay.ask(Request::BanList).unwrap();
    }
    assert_eq!(relay.copy_of_state().count("SELECT COUNT(*) FROM session"), 1);
    relay.machine.pass(4 * HOUR);
    relay.ask(Request::BanList).unwrap();
    let copy = relay.copy_of_state();
    assert_eq!(copy.count("SELECT COUNT(*) FROM session"), 0);
    let verified = copy.verify().unwrap();
    assert!(verified.first > 3, "{verified:?}");
    copy.change("DROP TRIGGER audit_is_not_cut; DELETE FROM audit WHERE seq = (SELECT MIN(seq) FROM audit)");
    assert_eq!(copy.verify().unwrap_err().seq, verified.first);
}

#[test]
fn a_clock_that_is_set_to_2099_takes_addresses_and_nothing_else_until_somebody_says_that_it_is_right() {
    let relay = Relay::start("2099");
    relay.tell(began(1));
    relay.tell(ended(1));
    relay.ask(Request::BanList).unwrap();
    relay.machine.set_wall_clock(4_102_444_799);
    relay.machine.pass(2 * HOUR);
    assert_eq!(relay.look_up("192.0.2.1", None).unwrap().gone.len(), 1);
    assert_eq!(relay.copy_of_state().count("SELECT COUNT(*) FROM session"), 1);
    assert!(relay.stats().sweep_held_back_seconds > 0);
    assert_eq!(relay.stats().clock_steps, 1);
    let sweep = |beyond_24h| Request::Sweep { dry_run: false, beyond_24h, uid: 0 };
    let swept = |asked| match relay.ask(asked).unwrap() {
        Response::Swept(swept) => swept.sessions,
        other => panic!("{other:?}"),
    };
    assert_eq!(swept(sweep(false)), 0);
    assert_eq!(swept(sweep(true)), 1);
    assert!(relay.copy_of_state().verify().is_ok());
}

#[test]
fn a_clock_that_is_set_to_1970_keeps_no_address_longer() {
    let relay = Relay::start("1970");
    assert!(relay.admit(admission(1)));
    relay.machine.set_wall_clock(0);
    relay.machine.pass(7 * DAY);
    let found = relay.look_up("192.0.2.1", None).unwrap();
    assert_eq!((found.sessions.len(), found.gone.len()), (0, 1));
    let verified = relay.copy_of_state().verify();
    assert!(verified.is_ok(), "{verified:?}");
}

#[test]
fn the_retention_of_each_class_is_told() {
    let relay = Relay::start("status");
    relay.tell(began(1));
    relay.tell(ended(1));
    let Ok(Response::Retention(report)) = relay.ask(Request::RetentionStatus) else { panic!("no report") };
    let of = |name: &str| report.classes.iter().find(|class| class.class.name() == name).unwrap();
    assert_eq!((of("ip").oldest, of("ip").next), (Some(NOON), Some(NOON - 43_200 + 7 * 86_400)));
    assert_eq!(of("access-audit").next, Some(NOON + 3 * 365 * 86_400));
    assert!(report.classes.iter().all(|class| class.late.is_zero()));
    assert_eq!(report.keys.len(), 1);
}
