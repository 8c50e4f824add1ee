//! Starts that do not go well, and an end that nobody ordered.

mod support;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use sluice_base::TenantId;
use sluice_record::plane::{Admission, Request, StartError, TenantTable, start};
use sluice_record::store::StoreError;
use sluice_record::testing::{Folder, Machine};

use support::{Relay, admission, began, options, session};

/// What a start over the state of a stopped relay says, after something was done to it.
fn start_after(name: &str, change: impl FnOnce(&std::path::Path)) -> StartError {
    let relay = Relay::start(name);
    for n in 0..200 {
        relay.tell(began(n));
    }
    let kept = relay.stop();
    change(&kept.state());
    let folder = Folder::new("again");
    fs::rename(kept.state(), folder.join("state")).unwrap();
    start(options(&folder), Arc::new(Machine::new(1))).map(|_| ()).unwrap_err()
}

#[test]
fn a_torn_page_is_found_at_the_start_and_told_with_what_to_do() {
    let told = start_after("torn", |state| {
        let file = fs::OpenOptions::new().write(true).open(state.join("records.db")).unwrap();
        let pages = file.metadata().unwrap().len() / 4096;
        // Half of each of the pages in the middle is another's.
        for page in pages / 3..pages * 2 / 3 {
            file.write_all_at(&[0x5a; 2048], page * 4096).unwrap();
        }
    });
    assert!(matches!(told, StartError::Store(StoreError::Damaged { .. })), "{told}");
    let told = told.to_string();
    assert!(told.contains("put back a backup") && told.contains("records.db-wal"), "{told}");
}

#[test]
fn a_file_that_is_no_database_is_told_as_damage() {
    let told = start_after("random", |state| fs::write(state.join("records.db"), [0x5a; 8192]).unwrap());
    assert!(matches!(told, StartError::Store(StoreError::Damaged { .. })), "{told}");
}

#[test]
fn a_store_of_a_newer_version_is_left_alone() {
    let told = start_after("newer", |state| {
        let connection = rusqlite::Connection::open(state.join("records.db")).unwrap();
        connection.pragma_update(None, "user_version", 1000).unwrap();
    });
    assert!(matches!(told, StartError::Store(StoreError::Newer { found: 1000, .. })), "{told}");
}

#[test]
fn two_processes_do_not_share_a_state_directory() {
    let relay = Relay::start("two");
    let folder = Folder::new("other-keys");
    let mut second = options(&folder);
    second.vault.state_directory = relay.state();
    let told = start(second, Arc::new(Machine::new(2))).map(|_| ()).unwrap_err().to_string();
    assert!(told.contains("in use by another process"), "{told}");
    assert!(relay.admit(admission(1)), "the first one is not disturbed");
}

#[test]
fn a_thread_that_ends_by_a_mistake_is_seen_and_everything_is_refused() {
    let relay = Relay::start("mistake");
    let admitted = relay.handle().admit(admission(1), Box::new(|_| panic!("a mistake of the relay's own")));
    assert!(admitted);
    while relay.handle().fault().is_none() {
        std::thread::yield_now();
    }
    assert!(relay.handle().fault().unwrap().contains("restart the relay"));
    assert!(!relay.handle().admit(admission(2), Box::new(|_| panic!("it was not taken on"))));
    assert!(!relay.handle().event(began(2)));
    assert!(relay.ask(Request::BanList).is_err());
}

#[test]
fn a_restart_in_the_middle_of_a_destruction_ends_it() {
    let mut relay = Relay::start("middle");
    assert!(relay.admit(admission(1)));
    // The key's file is gone, and the process with it, before anything else was done.
    let before = relay.copy_of_state();
    relay = relay.restart(|folder| {
        fs::remove_dir_all(folder.join("keys")).unwrap();
        fs::remove_dir_all(folder.join("state")).unwrap();
        fs::rename(before.path(), folder.join("state")).unwrap();
    });
    relay.ask(Request::BanList).unwrap();
    let copy = relay.copy_of_state();
    assert_eq!(copy.count("SELECT COUNT(*) FROM session WHERE sealed IS NOT NULL"), 0);
    assert_eq!(copy.count("SELECT COUNT(*) FROM session_address"), 0);
    assert!(copy.verify().is_ok());
    assert_eq!(relay.look_up("192.0.2.1", None).unwrap().gone.len(), 1, "{:?}", session(1));
}

#[test]
fn a_tenant_whose_keys_are_damaged_keeps_nobody_else_from_being_recorded() {
    let relay = Relay::start_with("damaged-tenant", |options| options.tenants = TenantTable::of(&["clinic", "school"]));
    fs::write(relay.state().join("secrets/school.tenant.key"), b"torn").unwrap();
    let school = Admission { tenant: TenantId(1), ..admission(2) };
    assert!(!relay.admit(school));
    // The store's thread is held up, so that both are of one group.
    let hold = relay.hold_the_store();
    let of_the_school = relay.begin_to_admit(Admission { tenant: TenantId(1), ..admission(3) });
    let of_the_clinic = relay.begin_to_admit(admission(4));
    drop(hold);
    assert!(!of_the_school.recv().unwrap());
    assert!(of_the_clinic.recv().unwrap());
}
