//! The tables, as the steps by which they came about.
//!
//! Statements are such as PostgreSQL has too: INTEGER is its BIGINT, BLOB its BYTEA; triggers have another form there.

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// "SLCE": what `PRAGMA application_id` says of a store of ours.
pub(crate) const APPLICATION: i64 = 0x534c_4345;

/// Each step brings the tables from its place in the list to the next; `user_version` counts those that were taken.
const STEPS: &[&str] = &[FIRST, FOUND_BY_INDEX, HOLDS];

/// Version of the tables that this program writes.
pub(crate) const VERSION: i64 = STEPS.len() as i64;

const FIRST: &str = "
CREATE TABLE session (
    id BLOB NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    person TEXT NOT NULL,
    state INTEGER NOT NULL,
    day INTEGER,
    sealed BLOB,
    began INTEGER NOT NULL,
    ended INTEGER,
    reason TEXT,
    seconds INTEGER,
    packets_from_client INTEGER,
    bytes_from_client INTEGER,
    packets_to_client INTEGER,
    bytes_to_client INTEGER,
    permissions INTEGER,
    channels INTEGER
);
CREATE INDEX session_began ON session (began);
CREATE INDEX session_day ON session (day, tenant);
CREATE INDEX session_open ON session (began) WHERE ended IS NULL;
CREATE TABLE session_address (
    blind BLOB NOT NULL,
    session BLOB NOT NULL REFERENCES session (id) ON DELETE CASCADE,
    PRIMARY KEY (blind, session)
);
CREATE INDEX session_address_session ON session_address (session);
CREATE TABLE denial (
    id BLOB NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    person TEXT NOT NULL,
    session BLOB,
    at INTEGER NOT NULL,
    method TEXT NOT NULL,
    code INTEGER NOT NULL,
    day INTEGER,
    sealed BLOB,
    blind BLOB
);
CREATE INDEX denial_at ON denial (at);
CREATE INDEX denial_day ON denial (day, tenant);
CREATE INDEX denial_blind ON denial (blind);
CREATE TABLE dead_key (
    tenant TEXT NOT NULL,
    day INTEGER NOT NULL,
    died INTEGER NOT NULL,
    PRIMARY KEY (tenant, day)
);
CREATE TABLE ban (
    id BLOB NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    day INTEGER NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    sealed BLOB NOT NULL
);
CREATE TABLE audit (
    seq INTEGER NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    tenant TEXT NOT NULL,
    session BLOB,
    body BLOB NOT NULL,
    hash BLOB NOT NULL
);
CREATE TABLE checkpoint (
    seq INTEGER NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL,
    hash BLOB NOT NULL,
    signature BLOB NOT NULL
);
CREATE TABLE bound (
    name TEXT NOT NULL PRIMARY KEY,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    hash BLOB NOT NULL,
    signature BLOB NOT NULL
);
CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit is only appended to');
END;
CREATE TRIGGER audit_is_not_cut BEFORE DELETE ON audit
WHEN old.seq > COALESCE((SELECT seq FROM bound WHERE name = 'origin'), 0)
BEGIN
    SELECT RAISE(ABORT, 'the audit is only appended to');
END;
CREATE TRIGGER checkpoint_is_not_changed BEFORE UPDATE ON checkpoint
BEGIN
    SELECT RAISE(ABORT, 'the audit is only appended to');
END;
CREATE TRIGGER checkpoint_is_not_cut BEFORE DELETE ON checkpoint
WHEN old.seq > COALESCE((SELECT seq FROM bound WHERE name = 'origin'), 0)
BEGIN
    SELECT RAISE(ABORT, 'the audit is only appended to');
END;
";

/// What is swept, and what a dead key had sealed, is found without reading a table. Bytes 13 to 20 of what is sealed
/// name the key.
const FOUND_BY_INDEX: &str = "
CREATE INDEX session_ended ON session (ended) WHERE ended IS NOT NULL;
CREATE INDEX session_sealed ON session (day, tenant, substr(sealed, 13, 8)) WHERE sealed IS NOT NULL;
CREATE INDEX denial_sealed ON denial (day, tenant, substr(sealed, 13, 8)) WHERE sealed IS NOT NULL;
CREATE INDEX dead_key_died ON dead_key (died);
DROP INDEX denial_day;
";

/// Legal holds.
const HOLDS: &str = "
CREATE TABLE hold (
    id BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    until INTEGER,
    reason BLOB NOT NULL
);
CREATE TABLE held_session (
    hold BLOB NOT NULL REFERENCES hold (id),
    session BLOB NOT NULL REFERENCES session (id),
    sealed BLOB,
    PRIMARY KEY (hold, session)
);
CREATE INDEX held_session_session ON held_session (session);
";

/// Brings the tables of a store up to [`VERSION`].
///
/// # Errors
/// The store is another program's, or a newer one's, or cannot be written.
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let found = check(connection)?;
    for (version, step) in (found + 1..).zip(&STEPS[found as usize..]) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.commit()?;
    }
    Ok(())
}

/// The version of a store's tables, if this program can read them.
///
/// # Errors
/// The store is another program's, or a newer one's.
pub(crate) fn check(connection: &Connection) -> Result<i64, StoreError> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let version = number("user_version")?;
    let tables: i64 = connection.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let is_empty = version == 0 && tables == 0;
    if !is_empty && number("application_id")? != APPLICATION {
        return Err(StoreError::NotOurs);
    }
    if version > VERSION {
        return Err(StoreError::Newer { found: version, known: VERSION });
    }
    Ok(version.max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_store_and_another_programs_are_refused_in_words() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        assert_eq!(check(&connection).unwrap(), VERSION);
        connection.pragma_update(None, "user_version", VERSION + 1).unwrap();
        let told = migrate(&mut connection).unwrap_err().to_string();
        assert!(told.contains("newer") && told.contains("backup"), "{told}");
        let mut other = Connection::open_in_memory().unwrap();
        other.execute_batch("CREATE TABLE t (x INTEGER)").unwrap();
        assert!(matches!(migrate(&mut other), Err(StoreError::NotOurs)));
    }

    #[test]
    fn the_audit_can_be_appended_to_and_not_changed_or_cut() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        connection.execute("INSERT INTO audit VALUES (1, 0, 'start', '', NULL, x'00', x'00')", []).unwrap();
        connection.execute("INSERT INTO checkpoint VALUES (1, 0, x'00', x'00')", []).unwrap();
        for change in ["UPDATE audit SET at = 1", "DELETE FROM audit", "DELETE FROM checkpoint"] {
            assert!(connection.execute(change, []).is_err(), "{change}");
        }
        connection.execute("INSERT INTO bound VALUES ('origin', 1, 0, x'00', x'00')", []).unwrap();
        assert_eq!(connection.execute("DELETE FROM audit", []).unwrap(), 1);
    }
}
