//! What is written down is what docs/records.md says.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::Connection;
use sluice_privacy::schema::{Destination, Field, Form};
use sluice_record::audit;
use sluice_record::plane::{self, PlaneOptions, TenantTable};
use sluice_record::testing::{Folder, Machine};
use sluice_record::vault::VaultOptions;

#[test]
fn the_store_has_the_tables_and_columns_of_the_schema_and_no_others() {
    let folder = Folder::new("schema");
    std::fs::create_dir_all(folder.join("state")).unwrap();
    let options = VaultOptions::new(folder.join("state"), Some(folder.join("keys")));
    let options = PlaneOptions::new(options, TenantTable::of(&["clinic"]));
    assert!(plane::start(options, Arc::new(Machine::new(1))).unwrap().stop());
    let store = Connection::open(folder.join("state/records.db")).unwrap();
    let mut query = store.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").unwrap();
    let tables: BTreeSet<String> = query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let kinds = sluice_privacy::schema::Kind::of(Destination::Store);
    assert_eq!(tables, kinds.clone().map(|kind| kind.name.to_owned()).collect());
    for kind in kinds {
        let query = "SELECT name, \"notnull\", type FROM pragma_table_info(?)";
        let mut query = store.prepare(query).unwrap();
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let columns: Vec<(String, bool, String)> =
            query.query_map([kind.name], row).unwrap().map(Result::unwrap).collect();
        let expected: Vec<_> =
            kind.fields.iter().map(|field| (field.name.to_owned(), field.always, typed(field))).collect();
        assert_eq!(columns, expected, "{}", kind.name);
    }
}

#[test]
fn the_audit_has_the_kinds_of_the_schema_in_their_classes() {
    let written: BTreeSet<_> = audit::Kind::ALL.iter().map(|kind| (kind.text(), kind.class().name())).collect();
    let kinds = sluice_privacy::schema::Kind::of(Destination::Audit);
    assert_eq!(written, kinds.map(|kind| (kind.name, kind.class.name())).collect());
}

fn typed(field: &Field) -> String {
    let kind = match field.form {
        Form::Number | Form::Time | Form::Day => "INTEGER",
        Form::Word | Form::Text | Form::Person => "TEXT",
        Form::Id | Form::Sealed | Form::SealedLong | Form::SealedHold | Form::Blind | Form::Proof => "BLOB",
    };
    kind.to_owned()
}
