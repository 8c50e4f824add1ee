//! Legal holds over files, and a machine whose clocks are the test's.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sluice_base::SessionId;
use sluice_privacy::hold::Addresses;
use sluice_privacy::{Class, Day};
use sluice_record::plane::{Request, RequestError, Response, TenantTable};
use sluice_record::store::{ClassStatus, HeldSession, Hold};
use sluice_record::vault::{Destroyer, Overwriter};

use support::{DAY, NOON, Relay, asker, began, denied, ended, session};

const THREE_YEARS: Duration = Duration::from_secs(3 * 366 * 86_400);

fn hold(relay: &Relay, name: &str, sessions: &[SessionId]) -> Result<Vec<(SessionId, Addresses)>, RequestError> {
    let (name, sessions) = (name.to_owned(), sessions.to_vec());
    match relay.ask(Request::HoldAdd { name, sessions, until: None, asker: asker("complaint 12") })? {
        Response::Held(held) => Ok(held),
        other => panic!("{other:?}"),
    }
}

fn lift(relay: &Relay, name: &str) -> Result<Response, RequestError> {
    relay.ask(Request::HoldLift { name: name.to_owned(), asker: asker("complaint 12 is settled") })
}

fn read(relay: &Relay, name: &str) -> Vec<HeldSession> {
    match relay.ask(Request::HoldRead { name: name.to_owned(), asker: asker("court order 7") }) {
        Ok(Response::HeldSessions(sessions)) => sessions,
        other => panic!("{other:?}"),
    }
}

fn holds(relay: &Relay) -> Vec<Hold> {
    let Ok(Response::Holds(holds)) = relay.ask(Request::HoldList) else { panic!("no list") };
    holds
}

fn keys(state: &Path) -> Vec<String> {
    let names = std::fs::read_dir(state.join("holds")).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn class(relay: &Relay, class: Class) -> ClassStatus {
    let Ok(Response::Retention(report)) = relay.ask(Request::RetentionStatus) else { panic!("no status") };
    report.classes.into_iter().find(|status| status.class == class).unwrap()
}

/// Two sessions that are over, and a refusal in each.
fn start(name: &str) -> Relay {
    let relay = Relay::start(name);
    for n in [1, 2] {
        relay.tell(began(n));
        relay.tell(ended(n));
        relay.tell(denied(Some(n)));
    }
    // All of it is written when this is answered.
    relay.ask(Request::BanList).unwrap();
    relay
}

#[test]
fn held_addresses_outlive_their_day_and_nobody_elses_do() {
    let mut relay = start("held");
    assert_eq!(hold(&relay, "case-1", &[session(1)]), Ok(vec![(session(1), Addresses::Held)]));
    relay.machine.pass(30 * DAY);
    relay = relay.restart(|_| {});
    let sessions = read(&relay, "case-1");
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions[0].session, session(1));
    assert_eq!(sessions[0].client.unwrap().expose().to_string(), "192.0.2.1:4000");
    assert_eq!(sessions[0].relayed[0].expose().to_string(), "203.0.113.9:50001");
    let Ok(Response::Entries(entries)) = relay.ask(Request::AuditTail { count: 1, asker: asker("") }) else {
        panic!("no entries")
    };
    let body = entries[0].body.as_ref().unwrap();
    assert_eq!((body["class"].as_str(), body["hold"].as_str()), (Some("legal-hold"), Some("case-1")));
    assert_eq!((entries[0].kind.as_str(), body["reason"].as_str()), ("read", Some("court order 7")));
    assert!(relay.look_up("192.0.2.2", None).unwrap().sessions.is_empty());
    assert_eq!(relay.copy_of_state().count("SELECT COUNT(*) FROM session WHERE sealed IS NOT NULL"), 0);
}

#[test]
fn what_is_held_is_not_swept_until_the_hold_is_lifted_and_then_at_once() {
    let relay = start("swept");
    hold(&relay, "case-1", &[session(1)]).unwrap();
    relay.machine.pass(THREE_YEARS);
    let sweep = Request::Sweep { dry_run: false, beyond_24h: true, uid: 0 };
    relay.ask(sweep).unwrap();
    let copy = relay.copy_of_state();
    assert_eq!(copy.count("SELECT COUNT(*) FROM session"), 1);
    assert_eq!(copy.count("SELECT COUNT(*) FROM denial"), 1, "its refusal stays too");
    assert_eq!(copy.count("SELECT COUNT(*) FROM audit WHERE kind = 'disconnect'"), 2, "and its part of the audit");
    let status = class(&relay, Class::AccessAudit);
    assert_eq!((status.held, status.next, status.late), (1, None, Duration::ZERO));
    assert_eq!(class(&relay, Class::AdminAudit).late, Duration::ZERO);
    assert_eq!(class(&relay, Class::LegalHold).held, 1);
    assert_eq!(lift(&relay, "case-1"), Ok(Response::HoldLifted(1)));
    relay.ask(Request::BanList).unwrap();
    let copy = relay.copy_of_state();
    assert_eq!(copy.count("SELECT COUNT(*) FROM session"), 0);
    assert_eq!(copy.count("SELECT COUNT(*) FROM denial"), 0);
    copy.verify().unwrap();
}

#[test]
fn a_lifted_holds_key_is_destroyed_and_its_addresses_are_gone() {
    let relay = start("lifted");
    hold(&relay, "case-1", &[session(1), session(2)]).unwrap();
    assert_eq!(keys(&relay.state()).len(), 1);
    assert_eq!((relay.stats().holds, relay.stats().held_sessions), (1, 2));
    assert_eq!(lift(&relay, "case-1"), Ok(Response::HoldLifted(2)));
    assert!(keys(&relay.state()).is_empty());
    assert_eq!((relay.stats().holds, relay.stats().held_sessions), (0, 0));
    assert!(matches!(lift(&relay, "case-1"), Err(RequestError::Missing(_))));
    assert_eq!(relay.copy_of_state().count("SELECT COUNT(*) FROM held_session"), 0);
    let Ok(Response::Entries(entries)) = relay.ask(Request::AuditTail { count: 2, asker: asker("") }) else {
        panic!("no entries")
    };
    assert_eq!(entries.iter().map(|entry| entry.kind.as_str()).collect::<Vec<_>>(), ["hold-added", "hold-lifted"]);
    assert_eq!(entries[1].body.as_ref().unwrap()["reason"], "complaint 12 is settled");
}

#[test]
fn a_hold_says_of_which_sessions_no_address_is_left() {
    let relay = start("late");
    relay.machine.pass(7 * DAY);
    let gone = Addresses::KeyGone(Day::of(NOON));
    assert_eq!(hold(&relay, "case-1", &[session(1)]), Ok(vec![(session(1), gone)]));
    assert_eq!(read(&relay, "case-1")[0].client, None);
    relay.handle().configure(TenantTable { ip_retention_days: 0, ..TenantTable::of(&["clinic"]) });
    relay.tell(began(3));
    assert_eq!(hold(&relay, "case-2", &[session(3)]), Ok(vec![(session(3), Addresses::NotKept)]));
}

#[test]
fn a_second_hold_of_a_session_outlives_the_first() {
    let relay = start("second");
    hold(&relay, "case-1", &[session(1)]).unwrap();
    relay.machine.pass(7 * DAY);
    assert_eq!(hold(&relay, "case-2", &[session(1)]), Ok(vec![(session(1), Addresses::Held)]));
    lift(&relay, "case-1").unwrap();
    assert!(read(&relay, "case-2")[0].client.is_some());
    assert_eq!(keys(&relay.state()).len(), 1);
}

#[test]
fn a_hold_needs_sessions_that_are_there_a_name_of_its_own_and_a_reason_without_an_address() {
    let relay = start("wrong");
    hold(&relay, "case-1", &[session(1)]).unwrap();
    for (name, sessions) in [("case-2", vec![]), ("case-2", vec![session(9)]), ("case-1", vec![session(2)])] {
        assert!(matches!(hold(&relay, name, &sessions), Err(RequestError::Wrong(_))), "{name}");
    }
    let (name, sessions) = ("case-2".to_owned(), vec![session(2)]);
    let named = Request::HoldAdd { name, sessions, until: None, asker: asker("192.0.2.1 did it") };
    assert!(matches!(relay.ask(named), Err(RequestError::Wrong(_))));
    assert_eq!((holds(&relay).len(), keys(&relay.state()).len()), (1, 1));
}

#[test]
fn a_hold_is_not_lifted_by_its_date() {
    let relay = start("date");
    let (name, sessions, until) = ("case-1".to_owned(), vec![session(1)], Some(NOON + 86_400));
    relay.ask(Request::HoldAdd { name, sessions, until, asker: asker("complaint 12") }).unwrap();
    assert!(!holds(&relay)[0].is_due);
    relay.machine.pass(2 * DAY);
    let hold = &holds(&relay)[0];
    assert!(hold.is_due && hold.has_key && (hold.sessions, hold.addresses) == (1, 1));
    assert_eq!(hold.reason.as_deref(), Some("complaint 12"));
}

#[test]
fn a_process_that_ended_between_key_and_hold_leaves_nothing_in_doubt() {
    let mut relay = start("halves");
    hold(&relay, "case-1", &[session(1)]).unwrap();
    let state = relay.state();
    let key = keys(&state).remove(0);
    let pending = key.replace(".key", ".pending");
    relay = relay.restart(|_| {
        // As if it had ended while it lifted the one hold and made another.
        std::fs::rename(state.join("holds").join(&key), state.join("holds").join(&pending)).unwrap();
        std::fs::write(state.join("holds").join(format!("{}.pending", "ab".repeat(16))), [1; 84]).unwrap();
    });
    assert_eq!(keys(&relay.state()), [key]);
    assert!(read(&relay, "case-1")[0].client.is_some());
}

/// Fails while it is told to.
struct Stubborn(Arc<AtomicBool>);

impl Destroyer for Stubborn {
    fn destroy(&self, file: &Path) -> std::io::Result<()> {
        if self.0.load(Ordering::SeqCst) { Err(std::io::ErrorKind::Other.into()) } else { Overwriter.destroy(file) }
    }
}

#[test]
fn a_key_that_cannot_be_destroyed_is_used_no_more_and_tried_again() {
    let is_stubborn = Arc::new(AtomicBool::new(true));
    let destroyer = Arc::new(Stubborn(is_stubborn.clone()));
    let relay = Relay::start_with("stubborn", |options| options.vault.destroyer = destroyer);
    relay.tell(began(1));
    hold(&relay, "case-1", &[session(1)]).unwrap();
    assert_eq!(lift(&relay, "case-1"), Ok(Response::HoldLifted(1)));
    assert_eq!((keys(&relay.state()).len(), holds(&relay).len()), (1, 0));
    is_stubborn.store(false, Ordering::SeqCst);
    holds(&relay);
    assert!(keys(&relay.state()).is_empty());
}

#[test]
fn a_hold_whose_key_was_lost_says_so() {
    let mut relay = start("lost");
    hold(&relay, "case-1", &[session(1)]).unwrap();
    relay = relay.restart(|folder| std::fs::remove_dir_all(folder.join("state/holds")).unwrap());
    assert!(!holds(&relay)[0].has_key);
    assert_eq!(read(&relay, "case-1")[0].client, None);
    assert_eq!(lift(&relay, "case-1"), Ok(Response::HoldLifted(1)));
}

#[test]
fn a_copy_of_the_store_has_no_key_of_a_hold() {
    let relay = start("copy");
    hold(&relay, "case-1", &[session(1)]).unwrap();
    let to = relay.state().with_file_name("backup");
    relay.ask(Request::Backup { to: to.clone(), uid: 0 }).unwrap();
    let id = std::fs::read(relay.state().join("holds").join(&keys(&relay.state())[0])).unwrap();
    for entry in std::fs::read_dir(&to).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(32).any(|window| window == &id[44..76]), "a copy has the key");
    }
    assert_eq!(support::count(&to, "SELECT COUNT(*) FROM held_session"), 1);
}

#[test]
fn held_addresses_are_read_by_those_alone_who_may_look_up() {
    let relay = Relay::start_with("not-read", |options| options.lookup = false);
    relay.tell(began(1));
    hold(&relay, "case-1", &[session(1)]).unwrap();
    let read = Request::HoldRead { name: "case-1".to_owned(), asker: asker("court order 7") };
    assert!(matches!(relay.ask(read), Err(RequestError::NotAllowed(_))));
}
