//! Whatever is done to the audit is found, and where.

mod support;

use rusqlite::Connection;
use sluice_base::SessionId;
use sluice_base::event::RelayEvent;
use sluice_base::limits::AUDIT_CHECKPOINT_ENTRIES;
use sluice_record::audit::{Line, export, verify};
use sluice_record::plane::Request;
use sluice_record::vault::Vault;

use support::{Copied, DAY, Relay, admission, began, ended};

/// A state directory with ten entries of two days and a checkpoint at the end of the first.
fn written(name: &str) -> Copied {
    let relay = Relay::start(name);
    for n in 1..=3 {
        relay.tell(began(n));
        relay.tell(ended(n));
    }
    relay.ask(Request::BanList).unwrap();
    relay.machine.pass(DAY);
    for what in ["one", "two", "three"] {
        let admin = Request::Admin { what: what.to_owned(), keys: vec!["privacy".to_owned()], uid: 0 };
        relay.ask(admin).unwrap();
    }
    let copy = relay.copy_of_state();
    copy.change(
        "DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_cut; \
         DROP TRIGGER checkpoint_is_not_changed; DROP TRIGGER checkpoint_is_not_cut;",
    );
    let verified = copy.verify().unwrap();
    assert_eq!((verified.entries, verified.first, verified.last, verified.checkpoints), (10, 1, 10, 1));
    copy
}

/// Where it is said to be broken after a change that is then taken back.
fn broken_by(copy: &Copied, change: &str) -> u64 {
    let connection = Connection::open(copy.path().join("records.db")).unwrap();
    connection.execute_batch("BEGIN").unwrap();
    connection.execute_batch(change).unwrap();
    connection.execute_batch("COMMIT").unwrap();
    copy.verify().expect_err(change).seq
}

#[test]
fn one_bit_of_any_entry_is_found_and_named() {
    let copy = written("bits");
    let database = copy.path().join("records.db");
    let whole = Connection::open(&database).unwrap();
    for seq in 1..=10 {
        for column in ["at", "kind", "tenant", "session", "body", "hash"] {
            for bit in [0, 77] {
                flip(&whole, "audit", column, seq, bit);
                assert_eq!(copy.verify().unwrap_err().seq, seq, "bit {bit} of {column} of entry {seq}");
                flip(&whole, "audit", column, seq, bit);
            }
        }
    }
    for table in ["checkpoint", "bound"] {
        for column in ["at", "hash", "signature"] {
            for bit in [0, 77, 255] {
                let seq: u64 = whole.query_row(&format!("SELECT seq FROM {table}"), [], |row| row.get(0)).unwrap();
                flip(&whole, table, column, seq, bit);
                assert_eq!(copy.verify().unwrap_err().seq, seq, "bit {bit} of {column} of the {table}");
                flip(&whole, table, column, seq, bit);
            }
        }
    }
    assert!(copy.verify().is_ok(), "every change was taken back");
}

/// Flips one bit of a column; one without bits (a session that is none) gets some, and loses them again.
fn flip(connection: &Connection, table: &str, column: &str, seq: u64, bit: usize) {
    use rusqlite::types::Value;
    let select = format!("SELECT {column} FROM {table} WHERE seq = {seq}");
    let value: Value = connection.query_row(&select, [], |row| row.get(0)).unwrap();
    let flipped = match value {
        Value::Integer(n) => Value::Integer(n ^ (1 << (bit % 32))),
        Value::Text(text) if text.is_empty() => Value::Text("\u{1}".to_owned()),
        Value::Text(text) if text == "\u{1}" => Value::Text(String::new()),
        Value::Text(text) => {
            let mut bytes = text.into_bytes();
            let at = bit / 8 % bytes.len();
            bytes[at] ^= 1 << (bit % 7);
            Value::Text(String::from_utf8(bytes).unwrap())
        }
        Value::Blob(bytes) if bytes.is_empty() => Value::Null,
        Value::Blob(mut bytes) => {
            let at = bit / 8 % bytes.len();
            bytes[at] ^= 1 << (bit % 8);
            Value::Blob(bytes)
        }
        Value::Null => Value::Blob(Vec::new()),
        Value::Real(_) => panic!("no column is one"),
    };
    let update = format!("UPDATE {table} SET {column} = ? WHERE seq = {seq}");
    assert_eq!(connection.execute(&update, [flipped]).unwrap(), 1);
}

#[test]
fn an_entry_that_is_missing_swapped_repeated_or_cut_off_is_found_and_named() {
    for (change, seq) in [
        ("DELETE FROM audit WHERE seq = 1", 1),
        ("DELETE FROM audit WHERE seq = 5", 5),
        ("DELETE FROM audit WHERE seq = 10", 10),
        ("DELETE FROM audit WHERE seq >= 6", 6),
        ("DELETE FROM audit", 1),
        ("DELETE FROM bound", 10),
        ("DELETE FROM bound; DELETE FROM audit WHERE seq > 7", 7),
        (
            "UPDATE audit SET seq = 100 WHERE seq = 4; UPDATE audit SET seq = 4 WHERE seq = 5; \
          UPDATE audit SET seq = 5 WHERE seq = 100",
            4,
        ),
        ("UPDATE audit SET seq = 12 WHERE seq = 10", 10),
        ("INSERT INTO audit SELECT 11, at, kind, tenant, session, body, hash FROM audit WHERE seq = 10", 11),
        ("UPDATE audit SET at = 'noon' WHERE seq = 3", 3),
        ("UPDATE audit SET body = NULL WHERE seq = 2", 2),
    ] {
        let copy = written("cut");
        let change = change.replace("body = NULL", "body = ''");
        assert_eq!(broken_by(&copy, &change), seq, "{change}");
    }
}

#[test]
fn who_signs_with_another_key_is_found() {
    let copy = written("key");
    let other = sluice_crypto::Signer::new(&[9; 32]).verifier();
    assert_eq!(verify(copy.path(), &other).unwrap().unwrap_err().seq, 7, "the entry of the checkpoint");
}

#[test]
fn it_is_verified_beside_a_relay_that_writes() {
    let relay = Relay::start("beside");
    let key = relay.plane().vault.verifying_key();
    for n in 0..50 {
        assert!(relay.admit(admission(n)));
        assert_eq!(verify(&relay.state(), &key).unwrap().unwrap().last, u64::from(n) + 2);
    }
}

#[test]
fn checkpoints_come_at_the_latest_after_so_many_entries() {
    let relay = Relay::start("many");
    // An end without a beginning makes two entries.
    for n in 0..AUDIT_CHECKPOINT_ENTRIES / 2 {
        let RelayEvent::Ended(mut event) = ended(1) else { panic!("no end") };
        event.session = SessionId(u128::from(n).to_be_bytes());
        relay.tell(RelayEvent::Ended(event));
    }
    relay.ask(Request::BanList).unwrap();
    assert_eq!(relay.copy_of_state().verify().unwrap().checkpoints, 1);
}

#[test]
fn the_export_has_every_entry_and_whoever_has_no_key_reads_no_body() {
    let copy = written("export");
    let mut sealed = Vec::new();
    assert_eq!(export(copy.path(), None, &mut sealed).unwrap(), 10);
    let lines = |bytes: &[u8]| -> Vec<Line> {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert!(lines(&sealed).iter().all(|line| line.body.is_none()));
    let machine = std::sync::Arc::new(sluice_record::testing::Machine::new(9));
    let options = sluice_record::vault::VaultOptions::new(copy.path().to_owned(), None);
    let vault = Vault::open(options, machine).unwrap();
    let mut opened = Vec::new();
    assert_eq!(export(copy.path(), Some(&vault), &mut opened).unwrap(), 10);
    let kinds: Vec<String> = lines(&opened).into_iter().map(|line| line.kind).collect();
    assert_eq!(kinds[..3], ["start", "connect", "disconnect"]);
    let reason = lines(&opened)[2].body.as_ref().unwrap()["reason"].clone();
    assert_eq!(reason, "client");
}
