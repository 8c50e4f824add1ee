//! Copies of the store, and what becomes of them.

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use sluice_record::backup::{BackupError, Manifest, restore};
use sluice_record::plane::{Request, RequestError, Response, start};
use sluice_record::store::FolderError;
use sluice_record::testing::{Folder, Machine};

use support::{DAY, Relay, admission, options};

fn back_up(relay: &Relay, to: &Path) -> Manifest {
    match relay.ask(Request::Backup { to: to.to_owned(), uid: 0 }) {
        Ok(Response::BackedUp(manifest)) => manifest,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_copy_is_put_back_after_a_loss_and_the_audit_goes_on_and_says_so() {
    let (relay, copies) = (Relay::start("loss"), Folder::new("copies"));
    assert!(relay.admit(admission(1)));
    let made = back_up(&relay, &copies.join("one"));
    let relay = relay.restart(|folder| {
        let state = folder.join("state");
        fs::remove_file(state.join("records.db")).unwrap();
        assert_eq!(restore(&copies.join("one"), &state).unwrap(), made);
    });
    assert_eq!(relay.look_up("192.0.2.1", None).unwrap().sessions.len(), 1);
    let copy = relay.copy_of_state();
    assert!(copy.verify().unwrap().last > made.audit_end);
    assert_eq!(copy.count("SELECT COUNT(*) FROM audit WHERE kind IN ('backup', 'restore')"), 2);
    assert_eq!(copy.count("SELECT COUNT(*) FROM meta"), 0);
}

#[test]
fn a_copy_is_one_file_beside_its_manifest_and_has_no_key() {
    let (relay, copies) = (Relay::start("copy"), Folder::new("copies"));
    assert!(relay.admit(admission(1)));
    let to = copies.join("one");
    back_up(&relay, &to);
    let mut names: Vec<_> = fs::read_dir(&to).unwrap().map(|file| file.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["manifest.json", "records.db"]);
    let again = relay.ask(Request::Backup { to, uid: 0 });
    assert!(matches!(again, Err(RequestError::Failed(told)) if told.contains("not there yet")));
}

#[test]
fn what_has_died_cannot_be_read_from_a_copy_either() {
    let (relay, copies) = (Relay::start("dead"), Folder::new("copies"));
    assert!(relay.admit(admission(1)));
    back_up(&relay, &copies.join("one"));
    let relay = relay.restart(|folder| {
        let state = folder.join("state");
        fs::remove_file(state.join("records.db")).unwrap();
        restore(&copies.join("one"), &state).unwrap();
    });
    relay.machine.pass(7 * DAY);
    let found = relay.look_up("192.0.2.1", None);
    assert_eq!(found.unwrap().sessions.len(), 0);
}

#[test]
fn a_store_that_is_used_newer_or_anothers_is_not_overwritten() {
    let (relay, other, copies) = (Relay::start("newer"), Relay::start_at("other", 7), Folder::new("copies"));
    back_up(&relay, &copies.join("old"));
    assert!(other.admit(admission(9)));
    back_up(&other, &copies.join("other"));
    let used = restore(&copies.join("old"), &relay.state()).unwrap_err();
    assert!(matches!(used, BackupError::Folder(FolderError::InUse { .. })), "{used}");
    assert!(relay.admit(admission(1)));
    let kept = relay.stop();
    for (copy, why) in [("old", "newer than the copy"), ("other", "another relay's")] {
        let refused = restore(&copies.join(copy), &kept.state()).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    assert_eq!(support::count(&kept.state(), "SELECT COUNT(*) FROM session"), 1);
}

#[test]
fn an_older_store_is_replaced_whole() {
    let (relay, copies) = (Relay::start("older"), Folder::new("copies"));
    let before = relay.copy_of_state();
    assert!(relay.admit(admission(1)));
    back_up(&relay, &copies.join("one"));
    relay.stop();
    restore(&copies.join("one"), before.path()).unwrap();
    assert_eq!(before.count("SELECT COUNT(*) FROM session"), 1);
    assert!(before.verify().is_ok());
}

#[test]
fn a_copy_that_was_changed_is_refused() {
    let (relay, copies, target) = (Relay::start("changed"), Folder::new("copies"), Folder::new("target"));
    back_up(&relay, &copies.join("one"));
    let (database, manifest) = (copies.join("one/records.db"), copies.join("one/manifest.json"));
    let whole = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, whole.replace("\"created\": 1", "\"created\": 2")).unwrap();
    let refused = restore(&copies.join("one"), target.path()).unwrap_err();
    assert!(matches!(refused, BackupError::NotACopy { .. }), "{refused}");
    fs::write(&manifest, whole).unwrap();
    let mut bytes = fs::read(&database).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&database, bytes).unwrap();
    let refused = restore(&copies.join("one"), target.path()).unwrap_err();
    assert!(matches!(refused, BackupError::NotACopy { .. }), "{refused}");
    assert!(!target.join("records.db").exists());
}

#[test]
fn a_copy_of_a_restored_store_starts_on_another_machine_and_finds_no_address() {
    let (relay, copies, fresh) = (Relay::start("moved"), Folder::new("copies"), Folder::new("fresh"));
    assert!(relay.admit(admission(1)));
    back_up(&relay, &copies.join("one"));
    restore(&copies.join("one"), &fresh.join("state")).unwrap();
    let plane = start(options(&fresh), Arc::new(Machine::new(3))).unwrap();
    assert!(plane.stop());
    assert_eq!(support::count(&fresh.join("state"), "SELECT COUNT(*) FROM session WHERE sealed IS NOT NULL"), 0);
}
