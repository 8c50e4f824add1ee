//! A record plane on a machine of the test's, and what is said to it.
#![allow(dead_code, reason = "each of the tests uses a part of it")]

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rusqlite::Connection;
use sluice_base::event::{Began, Denied, EndReason, Ended, RelayEvent};
use sluice_base::message::Traffic;
use sluice_base::stats::{Code, Method};
use sluice_base::{Pii, SessionId, TenantId, TransportAddress};
use sluice_privacy::Moment;
use sluice_record::audit::{Broken, Verified, published_key, verify};
use sluice_record::plane::{
    Admission, Asker, Handle, Plane, PlaneOptions, RecordStats, Request, RequestError, Response, TenantTable, start,
};
use sluice_record::store::Found;
use sluice_record::testing::{Folder, Machine};
use sluice_record::vault::{Platform, VaultOptions};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);
/// The moment at which a test's machine begins.
pub(crate) const NOON: u64 = 1_795_867_200;

/// How long a disk may take that others use at the same time: a plane that hangs is not taken for a slow one.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running plane.
pub(crate) struct Relay {
    pub(crate) machine: Arc<Machine>,
    folder: Folder,
    gate: Arc<Gate>,
    plane: Plane,
}

/// Lets a test hold up the store's thread: it asks for randomness when it writes.
pub(crate) struct Gate {
    machine: Arc<Machine>,
    pub(crate) door: Mutex<()>,
}

impl Platform for Gate {
    fn moment(&self) -> Moment {
        self.machine.moment()
    }
    fn cells(&self) -> &dyn sluice_base::memory::KeyCells {
        self.machine.cells()
    }
    fn is_tmpfs(&self, path: &Path) -> std::io::Result<bool> {
        self.machine.is_tmpfs(path)
    }
    fn random(&self, out: &mut [u8]) {
        let _passes = self.door.lock().unwrap();
        self.machine.random(out);
    }
    fn boot_id(&self) -> Option<[u8; 16]> {
        self.machine.boot_id()
    }
    fn has_swap(&self) -> Option<bool> {
        self.machine.has_swap()
    }
}

impl Relay {
    pub(crate) fn start(name: &str) -> Self {
        Self::start_with(name, |_| {})
    }

    pub(crate) fn start_with(name: &str, change: impl FnOnce(&mut PlaneOptions)) -> Self {
        Self::on(Folder::new(name), Arc::new(Machine::new(1)), change)
    }

    /// On a machine that draws other keys.
    pub(crate) fn start_at(name: &str, seed: u64) -> Self {
        Self::on(Folder::new(name), Arc::new(Machine::new(seed)), |_| {})
    }

    /// Over a copy of another's state, on a machine that begins anew.
    pub(crate) fn over(copy: Copied, name: &str) -> Self {
        let folder = Folder::new(name);
        copy_all(copy.0.path(), &folder.join("state"));
        Self::on(folder, Arc::new(Machine::new(2)), |_| {})
    }

    fn on(folder: Folder, machine: Arc<Machine>, change: impl FnOnce(&mut PlaneOptions)) -> Self {
        let gate = Arc::new(Gate { machine: machine.clone(), door: Mutex::new(()) });
        let mut options = options(&folder);
        change(&mut options);
        let plane = start(options, gate.clone()).unwrap();
        Relay { machine, folder, gate, plane }
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.plane.handle
    }

    pub(crate) fn plane(&self) -> &Plane {
        &self.plane
    }

    pub(crate) fn stats(&self) -> RecordStats {
        self.handle().stats()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Stops, lets the test do something to the directory, and starts again.
    pub(crate) fn restart(self, meanwhile: impl FnOnce(&Folder)) -> Self {
        let Relay { machine, folder, plane, .. } = self;
        assert!(plane.stop_within(PATIENCE));
        meanwhile(&folder);
        Self::on(folder, machine, |_| {})
    }

    /// Stops, and leaves the state directory in a folder that the test keeps.
    pub(crate) fn stop(self) -> Kept {
        let Relay { folder, plane, .. } = self;
        assert!(plane.stop_within(PATIENCE));
        Kept(folder)
    }

    pub(crate) fn tell(&self, event: RelayEvent) {
        assert!(self.handle().event(event));
    }

    pub(crate) fn begin_to_admit(&self, admission: Admission) -> Receiver<bool> {
        let (sender, answer) = channel();
        assert!(self.handle().admit(admission, Box::new(move |yes| sender.send(yes).unwrap())));
        answer
    }

    pub(crate) fn admit(&self, admission: Admission) -> bool {
        self.begin_to_admit(admission).recv().unwrap()
    }

    pub(crate) fn ask(&self, request: Request) -> Result<Response, RequestError> {
        let (sender, answer) = channel();
        self.handle().request(request, Box::new(move |told| sender.send(told).unwrap()));
        answer.recv().unwrap()
    }

    pub(crate) fn look_up(&self, address: &str, port: Option<u16>) -> Result<Found, RequestError> {
        match self.ask(lookup(address, port, asker("case 4711")))? {
            Response::Found(found) => Ok(found),
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the counters to be so.
    pub(crate) fn until(&self, is_so: impl Fn(RecordStats) -> bool) {
        while !is_so(self.stats()) {
            std::thread::yield_now();
        }
    }

    /// The store's thread writes nothing until the guard is gone: it is stuck in the first record that it takes.
    pub(crate) fn hold_the_store(&self) -> MutexGuard<'_, ()> {
        // Whatever the start has to write is written.
        self.ask(Request::BanList).unwrap();
        let guard = self.gate.door.lock().unwrap();
        self.tell(denied(None));
        self.until(|stats| stats.queue_depth == 0);
        guard
    }

    /// The state directory as it is on the disk now.
    pub(crate) fn copy_of_state(&self) -> Copied {
        let copy = Folder::new("copy");
        copy_all(&self.state(), copy.path());
        Copied(copy)
    }
}

/// A copy of a state directory.
pub(crate) struct Copied(Folder);

impl Copied {
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn count(&self, query: &str) -> i64 {
        count(self.path(), query)
    }

    pub(crate) fn journal_bytes(&self) -> u64 {
        fs::metadata(self.path().join("records.db-wal")).map_or(0, |file| file.len())
    }

    pub(crate) fn verify(&self) -> Result<Verified, Broken> {
        verify(self.path(), &published_key(self.path()).unwrap()).unwrap()
    }

    /// Changes the database by hand.
    pub(crate) fn change(&self, statements: &str) {
        let connection = Connection::open(self.path().join("records.db")).unwrap();
        connection.execute_batch(statements).unwrap();
    }
}

/// A state directory that nobody uses any more.
pub(crate) struct Kept(Folder);

impl Kept {
    pub(crate) fn state(&self) -> PathBuf {
        self.0.join("state")
    }
}

pub(crate) fn count(state: &Path, query: &str) -> i64 {
    let connection = Connection::open(state.join("records.db")).unwrap();
    connection.query_row(query, [], |row| row.get(0)).unwrap()
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            match fs::copy(entry.path(), target) {
                Ok(_) => {}
                // A new version of a file, which has got its name since.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => panic!("{}: {error}", entry.path().display()),
            }
        }
    }
}

pub(crate) fn options(folder: &Folder) -> PlaneOptions {
    let vault = VaultOptions::new(folder.join("state"), Some(folder.join("keys")));
    let mut options = PlaneOptions::new(vault, TenantTable::of(&["clinic"]));
    options.lookup = true;
    options
}

pub(crate) fn session(n: u8) -> SessionId {
    SessionId([n; 16])
}

fn user() -> Pii<Arc<[u8]>> {
    Pii::new(Arc::from(&b"zelda"[..]))
}

fn client(n: u8) -> TransportAddress {
    Pii::new(format!("192.0.2.{n}:4000").parse().unwrap())
}

pub(crate) fn admission(n: u8) -> Admission {
    Admission { session: session(n), tenant: TenantId(0), user: user(), client: client(n), unix_seconds: NOON }
}

pub(crate) fn began(n: u8) -> RelayEvent {
    let relayed = [Some(Pii::new(format!("203.0.113.9:{}", 50_000 + u32::from(n)).parse().unwrap())), None];
    RelayEvent::Began(Began {
        session: session(n),
        tenant: TenantId(0),
        user: user(),
        client: client(n),
        relayed,
        unix_seconds: NOON,
        lifetime: Duration::from_secs(600),
    })
}

pub(crate) fn ended(n: u8) -> RelayEvent {
    let traffic = Traffic { packets_from_client: 1, bytes_from_client: 10, packets_to_client: 2, bytes_to_client: 20 };
    RelayEvent::Ended(Ended {
        session: session(n),
        tenant: TenantId(0),
        user: user(),
        client: client(n),
        unix_seconds: NOON,
        age: Duration::from_secs(0),
        reason: EndReason::Client,
        traffic,
        permissions: 1,
        channels: 1,
    })
}

pub(crate) fn denied(n: Option<u8>) -> RelayEvent {
    RelayEvent::Denied(Denied {
        session: n.map(session),
        tenant: TenantId(0),
        user: user(),
        client: client(n.unwrap_or(99)),
        unix_seconds: NOON,
        method: Method::Allocate,
        code: Code::QuotaReached,
    })
}

pub(crate) fn asker(reason: &str) -> Asker {
    Asker { role: "abuse".to_owned(), uid: 0, reason: reason.to_owned() }
}

pub(crate) fn lookup(address: &str, port: Option<u16>, asker: Asker) -> Request {
    let address: IpAddr = address.parse().unwrap();
    Request::Lookup { address: Pii::new(address), port, from: NOON - 3600, to: NOON + 3600, asker }
}
