//! Bad days of the disk, without the thread: what is written, answered, kept and said.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use crossbeam::channel::bounded;
use sluice_base::event::{EndReason, Ended, RelayEvent, Tagged};
use sluice_base::limits::{
    STORE_BACKLOG_MAX, STORE_BACKLOG_TAGS_MAX, STORE_GROUP_MAX, STORE_SWEEP_ROWS_MAX, TAGS_PER_MINUTE_MAX,
};
use sluice_base::message::Traffic;
use sluice_base::{Pii, SessionId, TenantId, TransportAddress};

use super::message::Answer;
use super::stats::Shared;
use super::thread::Keeper;
use super::{Admission, Handle, PlaneOptions, Queues, Record, Request, TenantTable, Waiting};
use crate::audit::verify;
use crate::store::{Store, Trouble};
use crate::testing::{Folder, Machine};
use crate::vault::{HoldKeys, Platform, Vault, VaultOptions};

struct Bench {
    machine: Arc<Machine>,
    shared: Arc<Shared>,
    keeper: Keeper,
    folder: Folder,
}

impl Bench {
    fn new() -> Self {
        let (folder, machine) = (Folder::new("bench"), Arc::new(Machine::new(1)));
        let options = VaultOptions::new(folder.path().to_owned(), None);
        let options = PlaneOptions::new(options, TenantTable::of(&["clinic"]));
        let vault = Vault::open(options.vault.clone(), machine.clone()).unwrap();
        let (store, is_signed) = Store::open(folder.path(), vault).unwrap();
        assert!(is_signed);
        let shared = Arc::new(Shared::default());
        let names = Arc::new(RwLock::new(Arc::new(options.tenants.clone())));
        let queues = Queues { records: bounded(1).1, requests: bounded(1).1 };
        let keys = HoldKeys::open(folder.path(), machine.clone(), options.vault.destroyer.clone(), &[]).unwrap();
        let mut keeper = Keeper::new(store, shared.clone(), names, machine.clone(), &options, (queues, keys));
        keeper.chores();
        Bench { machine, shared, keeper, folder }
    }

    /// What others hold of a plane of this tenant, and the end of its queue.
    fn handle(&self) -> (Handle, crossbeam::channel::Receiver<Record>) {
        let (records, record_queue) = bounded(STORE_BACKLOG_MAX);
        let (requests, request_queue) = bounded(1);
        let handle = Handle {
            records,
            requests,
            shared: self.shared.clone(),
            names: Arc::new(RwLock::new(Arc::new(TenantTable::of(&["clinic"])))),
            vault: self.keeper.store.vault_handle(),
            platform: self.machine.clone(),
            lines: None,
            tags: Arc::default(),
            queues: Queues { records: record_queue.clone(), requests: request_queue },
        };
        (handle, record_queue)
    }

    fn admit(&mut self, n: u8) -> bool {
        let (sender, answer): (_, Receiver<bool>) = channel();
        let answer_to = Answer::new(Box::new(move |yes| sender.send(yes).unwrap()), || false);
        let moment = self.machine.moment();
        let (session, user) = (SessionId([n; 16]), Pii::new(Arc::from(&b"zelda"[..])));
        let (tenant, unix_seconds) = (TenantId(0), moment.unix_seconds);
        let admission = Admission { session, tenant, user, client: client(), unix_seconds };
        self.keeper.take(Record::Admission(Waiting { admission, asked: moment.boot, answer: answer_to }), moment);
        assert!(self.keeper.is_group_due(moment));
        self.keeper.commit();
        answer.recv().unwrap()
    }

    fn end(&mut self, n: u128) {
        let event = Ended {
            session: SessionId(n.to_be_bytes()),
            tenant: TenantId(0),
            user: Pii::new(Arc::from(&b"zelda"[..])),
            client: client(),
            unix_seconds: self.machine.moment().unix_seconds,
            age: Duration::from_secs(1),
            reason: EndReason::Client,
            traffic: Traffic::default(),
            permissions: 0,
            channels: 0,
        };
        let moment = self.machine.moment();
        self.keeper.take(Record::Event(RelayEvent::Ended(event)), moment);
    }

    fn pragma(&self, pragma: &str) {
        self.keeper.store.connection().execute_batch(&format!("PRAGMA {pragma}")).unwrap();
    }

    /// The disk has no page more than it needs now.
    fn fill_disk(&self) {
        self.pragma("max_page_count = 1");
    }

    fn sessions(&self) -> i64 {
        self.count("SELECT COUNT(*) FROM session")
    }

    /// The days under whose keys sessions are sealed.
    fn days(&self) -> Vec<Option<u32>> {
        let mut query = self.keeper.store.connection().prepare("SELECT day FROM session ORDER BY day").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    fn count(&self, query: &str) -> i64 {
        self.keeper.store.connection().query_row(query, [], |row| row.get(0)).unwrap()
    }

    fn is_audit_whole(&self) -> bool {
        verify(self.folder.path(), &self.keeper.store.vault().verifying_key()).unwrap().is_ok()
    }
}

fn tagged(unix_seconds: u64) -> RelayEvent {
    RelayEvent::Tagged(Tagged {
        session: SessionId([7; 16]),
        tenant: TenantId(0),
        unix_seconds,
        plugin: "consent".into(),
        hook: "allocate",
        allowed: true,
        tags: vec!["ward7".to_owned(), "night".to_owned()],
    })
}

#[test]
fn words_of_a_plugin_are_in_the_audit_and_their_flood_is_counted_before_the_queue() {
    let mut bench = Bench::new();
    let (handle, records) = bench.handle();
    let moment = bench.machine.moment();
    let taken = (0..TAGS_PER_MINUTE_MAX + 3).filter(|_| handle.event(tagged(moment.unix_seconds))).count();
    assert_eq!((taken as u32, records.len() as u32), (TAGS_PER_MINUTE_MAX, TAGS_PER_MINUTE_MAX));
    records.try_iter().for_each(|record| bench.keeper.take(record, moment));
    bench.keeper.commit();
    let written = bench.count("SELECT COUNT(*) FROM audit WHERE kind = 'tagged'");
    let stats = bench.shared.stats();
    assert_eq!((written, stats.tags_beyond, stats.events_lost), (i64::from(TAGS_PER_MINUTE_MAX), 3, 0));
    assert!(bench.is_audit_whole());
}

#[test]
fn words_of_a_plugin_leave_the_backlog_to_sessions() {
    let mut bench = Bench::new();
    let moment = bench.machine.moment();
    for _ in 0..STORE_BACKLOG_TAGS_MAX + 3 {
        bench.keeper.take(Record::Event(tagged(moment.unix_seconds)), moment);
    }
    bench.end(1);
    let stats = bench.shared.stats();
    assert_eq!((bench.keeper.group.len(), stats.tags_beyond, stats.events_lost), (STORE_BACKLOG_TAGS_MAX + 1, 3, 0));
}

fn client() -> TransportAddress {
    Pii::new("192.0.2.1:4000".parse().unwrap())
}

#[test]
fn a_full_disk_refuses_admissions_keeps_what_nobody_waits_for_and_is_healed_by_room() {
    let mut bench = Bench::new();
    assert!(bench.admit(1));
    bench.fill_disk();
    // Rows fit into pages that there are, until they do not.
    let mut n = 1000;
    while bench.shared.trouble().is_none() {
        n += 1;
        bench.end(n);
        bench.keeper.commit();
    }
    assert_eq!(bench.shared.trouble(), Some(Trouble::DiskFull));
    // An admission takes less room than an end, until there is none for it either.
    let mut n = 2;
    while bench.admit(n) {
        n += 1;
    }
    assert_eq!(bench.shared.trouble(), Some(Trouble::DiskFull));
    let written = bench.sessions();
    assert_eq!(bench.shared.stats().admissions_failed, 1);
    assert_eq!(bench.shared.stats().backlog, 1);
    assert!(bench.is_audit_whole(), "what failed has left nothing in the chain");
    bench.pragma("max_page_count = 1000000");
    bench.machine.pass(Duration::from_secs(1));
    assert!(bench.admit(200));
    assert_eq!(bench.shared.trouble(), None);
    assert_eq!((bench.shared.stats().backlog, bench.sessions()), (0, written + 2));
    assert!(bench.is_audit_whole());
}

#[test]
fn while_the_disk_takes_nothing_so_much_is_kept_and_the_rest_is_counted_as_lost() {
    let mut bench = Bench::new();
    bench.pragma("query_only = ON");
    for n in 0..STORE_BACKLOG_MAX + 5 {
        bench.end(n as u128);
    }
    assert_eq!(bench.shared.stats().events_lost, 5);
    bench.keeper.commit();
    assert_eq!(bench.shared.trouble(), Some(Trouble::ReadOnly));
    assert_eq!(bench.shared.stats().backlog, STORE_BACKLOG_MAX as u64);
    assert!(!bench.keeper.is_group_due(bench.machine.moment()), "it is not tried again at once");
    bench.machine.pass(Duration::from_secs(1));
    while bench.keeper.is_group_due(bench.machine.moment()) {
        let before = bench.sessions();
        bench.keeper.commit();
        assert!(bench.sessions() - before <= STORE_GROUP_MAX as i64, "a part at a time");
    }
    assert_eq!((bench.shared.trouble(), bench.sessions()), (None, STORE_BACKLOG_MAX as i64));
    assert_eq!(bench.shared.stats().backlog, 0);
    let order = "SELECT session FROM audit WHERE kind = 'disconnect' ORDER BY seq";
    let mut order = bench.keeper.store.connection().prepare(order).unwrap();
    let order: Vec<Vec<u8>> = order.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(order.is_sorted(), "in the order in which it came");
}

#[test]
fn an_admission_does_not_wait_for_what_is_kept_and_is_not_refused_for_it() {
    let mut bench = Bench::new();
    assert!(bench.admit(1));
    bench.fill_disk();
    for n in 1000..3000 {
        bench.end(n);
    }
    bench.keeper.commit();
    assert_eq!((bench.shared.trouble(), bench.shared.stats().backlog), (Some(Trouble::DiskFull), 2000));
    let pages: i64 = bench.count("SELECT page_count FROM pragma_page_count");
    bench.pragma(&format!("max_page_count = {}", pages + 12));
    assert!(bench.admit(2), "there is room for one record, and not for two thousand");
    assert_eq!((bench.shared.stats().backlog, bench.sessions()), (2000, 2));
}

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn what_waited_for_the_disk_is_sealed_under_the_key_of_its_own_day() {
    let mut bench = Bench::new();
    let today = bench.machine.moment().unix_seconds / DAY.as_secs();
    bench.pragma("query_only = ON");
    bench.end(1000);
    bench.keeper.commit();
    bench.machine.pass(DAY);
    bench.keeper.commit();
    assert_eq!(bench.days(), [Some(today as u32)]);
    assert_eq!(bench.shared.stats().addresses_lost, 0);
}

#[test]
fn what_waited_longer_than_the_key_of_its_day_lives_is_written_without_addresses_and_counted() {
    let mut bench = Bench::new();
    bench.pragma("query_only = ON");
    bench.end(1000);
    bench.keeper.commit();
    bench.machine.pass(7 * DAY);
    bench.keeper.commit();
    assert_eq!(bench.days(), [None]);
    let stats = bench.shared.stats();
    assert_eq!((stats.events_written, stats.events_lost, stats.addresses_lost), (1, 0, 1));
}

#[test]
fn what_waited_longer_than_it_may_be_kept_is_not_written_and_counted_as_lost() {
    let mut bench = Bench::new();
    bench.keeper.retention.access_audit = 2 * DAY;
    bench.pragma("query_only = ON");
    bench.end(1000);
    bench.keeper.commit();
    bench.machine.pass(3 * DAY);
    bench.keeper.commit();
    let stats = bench.shared.stats();
    assert_eq!((bench.sessions(), stats.events_written, stats.events_lost), (0, 0, 1));
}

#[test]
fn nothing_is_answered_that_cannot_be_written_into_the_audit() {
    let mut bench = Bench::new();
    bench.keeper.lookup = true;
    bench.pragma("query_only = ON");
    let asker = super::Asker { role: "abuse".to_owned(), uid: 0, reason: "case 4711".to_owned() };
    let address = Pii::new("192.0.2.1".parse().unwrap());
    let (sender, answer) = channel();
    let told = Answer::new(Box::new(move |told| sender.send(told).unwrap()), || unreachable!());
    bench.keeper.answer_request(Request::Lookup { address, port: None, from: 0, to: u64::MAX, asker }, told);
    let refused = answer.recv().unwrap().unwrap_err();
    assert!(matches!(refused, super::RequestError::NotRecorded(_)), "{refused}");
}

#[test]
fn a_record_that_the_store_does_not_take_costs_no_other_record() {
    let mut bench = Bench::new();
    let refusing = "CREATE TRIGGER refuses BEFORE INSERT ON session WHEN NEW.id = x'000000000000000000000000000003e9' \
                    BEGIN SELECT RAISE(ABORT, 'no'); END";
    bench.keeper.store.connection().execute_batch(refusing).unwrap();
    for n in 1000..1003 {
        bench.end(n);
    }
    bench.keeper.commit();
    let stats = bench.shared.stats();
    assert_eq!((stats.events_written, stats.events_lost, bench.sessions()), (2, 1, 2));
    assert_eq!(bench.shared.trouble(), None, "the disk is well");
    assert!(bench.is_audit_whole());
}

#[test]
fn what_a_dead_key_had_sealed_is_removed_as_soon_as_the_disk_takes_it() {
    let mut bench = Bench::new();
    assert!(bench.admit(1));
    bench.pragma("query_only = ON");
    bench.machine.pass(Duration::from_secs(7 * 86_400));
    bench.keeper.chores();
    assert_eq!((bench.shared.stats().keys_destroyed, bench.count(SEALED)), (1, 1), "the key is gone all the same");
    bench.machine.pass(Duration::from_secs(2));
    bench.keeper.chores();
    assert_eq!(bench.count(SEALED), 0);
    assert!(bench.is_audit_whole());
}

const SEALED: &str = "SELECT COUNT(*) FROM session WHERE sealed IS NOT NULL";

/// Sessions that are over, so many that one transaction does not remove them.
fn end_many(bench: &mut Bench) {
    for n in 0..2 * STORE_SWEEP_ROWS_MAX + 10 {
        bench.end(n as u128 + 1000);
    }
    bench.keeper.commit();
}

#[test]
fn a_sweep_lets_admissions_pass_between_two_of_its_parts() {
    let mut bench = Bench::new();
    end_many(&mut bench);
    let whole = bench.sessions();
    bench.machine.pass(3 * 366 * DAY);
    bench.keeper.chores();
    assert_eq!(bench.count(SEALED), whole - STORE_SWEEP_ROWS_MAX as i64 + 1, "the dead key's entry is one");
    let mut parts = 0;
    while bench.sessions() > 0 {
        parts += 1;
        let before = bench.sessions();
        bench.keeper.chores();
        assert!(before - bench.sessions() <= STORE_SWEEP_ROWS_MAX as i64);
        if parts == 3 {
            assert!(bench.admit(1));
            bench.keeper.store.connection().execute("DELETE FROM session WHERE id = ?", [[1_u8; 16]]).unwrap();
        }
    }
    assert_eq!(parts, 5, "two for what the key had sealed, three for the sessions");
    assert!(bench.is_audit_whole());
}

#[test]
fn since_when_a_key_is_dead_is_known_for_as_long_as_there_is_a_session_of_its_day() {
    let mut bench = Bench::new();
    assert!(bench.admit(1));
    let dead = "SELECT COUNT(*) FROM dead_key";
    for _ in 0..2 {
        bench.machine.pass(3 * 366 * DAY);
        bench.keeper.chores();
        assert_eq!(bench.count(dead), 1, "the session goes on");
    }
    bench.end(u128::from_be_bytes([1; 16]));
    bench.keeper.commit();
    bench.machine.pass(3 * 366 * DAY);
    bench.keeper.chores();
    assert_eq!((bench.count(dead), bench.sessions()), (0, 0));
}
