//! The control socket: HTTP for whoever its permissions let in.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use serde::Serialize;
use sluice_base::limits;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::api::{self, Problem};
use crate::holds::WantedHold;
use crate::http::{self, Answer, Listen};
use crate::plugins::WantedErasure;
use crate::records::{self, Told, Wanted, WantedBan, WantedLift};

/// Owner and group may write, which is to connect.
const MODE: u32 = 0o660;

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<T>;

/// What an administrator wants; the control plane answers each.
#[derive(Debug)]
#[non_exhaustive]
pub enum Command {
    /// How the relay is.
    Status(Reply<api::Status>),
    /// A part of the allocations, from a cursor on.
    Allocations(u64, Reply<api::Allocations>),
    /// Read the configuration again: all of it comes into force or nothing.
    Reload(Caller, Reply<api::Reload>),
    /// Let nobody new in, and end when nobody is left. Asked again it says how far it is.
    Drain(Caller, Reply<api::Draining>),
    /// The sessions of an address.
    Lookup(Caller, Wanted, Reply<Told<api::Lookup>>),
    /// Ban somebody.
    Ban(Caller, WantedBan, Reply<Told<api::Ban>>),
    /// Lift bans.
    Lift(Caller, WantedLift, Reply<Told<api::Lifted>>),
    /// The bans that hold.
    Bans(Caller, Reply<Told<api::Bans>>),
    /// So many of the last entries of the audit.
    Audit(Caller, usize, Reply<Told<api::Audit>>),
    /// What is kept, how long.
    Retention(Reply<Told<api::Retention>>),
    /// Remove what has reached the end of its retention.
    Sweep(Caller, api::SweepRequest, Reply<Told<api::Swept>>),
    /// Put sessions under a legal hold.
    Hold(Caller, WantedHold, Reply<Told<api::NewHold>>),
    /// The legal holds.
    Holds(Reply<Told<api::Holds>>),
    /// Lift a legal hold.
    LiftHold(Caller, api::NamedHold, Reply<Told<api::LiftedHold>>),
    /// The sessions of a legal hold, with the addresses that it has.
    ReadHold(Caller, api::NamedHold, Reply<Told<api::Held>>),
    /// Make a copy of the store.
    Backup(Caller, api::BackupRequest, Reply<Told<api::Backup>>),
    /// What decides for whom.
    Plugins(Reply<api::Plugins>),
    /// Have policies forget a person.
    Erase(Caller, WantedErasure, Reply<Told<api::Erasure>>),
    /// Have policies asked again about all that lives: those of a tenant, or all.
    Review(Caller, Option<String>, Reply<Told<api::Review>>),
    /// What is stored where, how long, under whose key.
    Compliance(Reply<Told<api::Compliance>>),
}

/// Who is at the other end, as far as the kernel tells: a user namespace hides it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The user's number.
    pub uid: Option<u32>,
}

/// A control socket that is open and does not answer yet. Its file goes with it.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
    /// What it is on its disk.
    made: (u64, u64),
    router: Router,
}

/// The control socket could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// A relay answers there.
    #[error(
        "the control socket {0} is another relay's that runs: stop that one, or give this one a path of its own in \
         [control] socket"
    )]
    Live(PathBuf),
    /// There is something else.
    #[error("{0} is there already and no socket: remove it, or choose another path in [control] socket")]
    NoSocket(PathBuf),
    /// The system's reason.
    #[error("cannot make the control socket {path}: {error}; its folder must exist and be writable for this process")]
    Refused {
        /// The path.
        path: PathBuf,
        /// The reason.
        #[source]
        error: io::Error,
    },
}

impl Control {
    /// Makes the socket at `path` with mode 0660; whose group it has is the process's business. One that a dead
    /// process has left is replaced.
    ///
    /// # Errors
    /// [`ControlError`], with what to do.
    pub fn bind(path: &Path, commands: mpsc::Sender<Command>) -> Result<Self, ControlError> {
        let refused = |error| ControlError::Refused { path: path.to_owned(), error };
        give_way(path)?;
        // It appears under its name with its permissions on, whatever the umask is.
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        clear(&new)?;
        let listener = UnixListener::bind(&new).map_err(refused)?;
        let made = std::fs::set_permissions(&new, Permissions::from_mode(MODE))
            .and_then(|()| std::fs::rename(&new, path))
            .and_then(|()| identity(path))
            .inspect_err(|_| drop(std::fs::remove_file(&new)))
            .map_err(refused)?;
        let router = Router::new()
            .route(api::STATUS, get(status))
            .route(api::ALLOCATIONS, get(allocations))
            .route(api::PLUGINS, get(plugins))
            .route(api::RELOAD, post(reload))
            .route(api::DRAIN, post(drain))
            .merge(records::routes())
            .fallback(not_found)
            .method_not_allowed_fallback(not_found)
            .with_state(commands);
        Ok(Control { listener, path: path.to_owned(), made, router })
    }

    /// Answers until `stop` is ready.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        http::serve(self, stop).await;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // A successor may have put its own there by now.
        if identity(&self.path).is_ok_and(|there| there == self.made) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listen for Control {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    fn router(&self, stream: &UnixStream) -> Router {
        let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
        self.router.clone().layer(Extension(Caller { uid }))
    }
}

/// Removes what a dead process has left at `path`, and nothing else.
fn give_way(path: &Path) -> Result<(), ControlError> {
    let refused = |error| ControlError::Refused { path: path.to_owned(), error };
    let kind = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(error)),
    };
    if !kind.is_socket() {
        return Err(ControlError::NoSocket(path.to_owned()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(ControlError::Live(path.to_owned())),
        // Nobody listens: the rename takes its place.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(refused(error)),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Removes the socket of a start that has failed, and nothing else.
fn clear(path: &Path) -> Result<(), ControlError> {
    let refused = |error| ControlError::Refused { path: path.to_owned(), error };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(refused(error)),
        Ok(there) if there.file_type().is_socket() => std::fs::remove_file(path).map_err(refused),
        Ok(_) => Err(ControlError::NoSocket(path.to_owned())),
    }
}

async fn status(State(commands): State<mpsc::Sender<Command>>) -> Answer {
    ask(&commands, Command::Status).await
}

async fn allocations(State(commands): State<mpsc::Sender<Command>>, uri: Uri) -> Answer {
    let after = match uri.query() {
        None => Some(0),
        Some(query) => query.strip_prefix("after=").and_then(|cursor| cursor.parse().ok()),
    };
    match after {
        Some(after) => ask(&commands, |reply| Command::Allocations(after, reply)).await,
        None => problem(&Problem::new(400, "no such query", "there is ?after=CURSOR, with `next` of the last page")),
    }
}

async fn plugins(State(commands): State<mpsc::Sender<Command>>) -> Answer {
    ask(&commands, Command::Plugins).await
}

async fn reload(State(commands): State<mpsc::Sender<Command>>, Extension(caller): Extension<Caller>) -> Answer {
    answer(&commands, limits::RELOAD_ANSWER_TIMEOUT, |reply| Command::Reload(caller, reply)).await
}

async fn drain(State(commands): State<mpsc::Sender<Command>>, Extension(caller): Extension<Caller>) -> Answer {
    ask(&commands, |reply| Command::Drain(caller, reply)).await
}

/// Hands a command to the control plane, and waits for its answer.
async fn ask<T: Serialize>(commands: &mpsc::Sender<Command>, command: impl FnOnce(Reply<T>) -> Command) -> Answer {
    answer(commands, limits::CONTROL_ANSWER_TIMEOUT, command).await
}

/// The same of something that may take longer.
async fn answer<T: Serialize>(
    commands: &mpsc::Sender<Command>,
    patience: Duration,
    command: impl FnOnce(Reply<T>) -> Command,
) -> Answer {
    match asked(commands, patience, command).await {
        Ok(answer) => json(StatusCode::OK, JSON, &answer),
        Err(refused) => problem(&refused),
    }
}

/// The same of something that may be refused, and may take longer.
pub(crate) async fn ask_in<T: Serialize>(
    commands: &mpsc::Sender<Command>,
    patience: Duration,
    command: impl FnOnce(Reply<Told<T>>) -> Command,
) -> Answer {
    match asked(commands, patience, command).await.and_then(|told| told) {
        Ok(answer) => json(StatusCode::OK, JSON, &answer),
        Err(refused) => problem(&refused),
    }
}

async fn asked<T>(
    commands: &mpsc::Sender<Command>,
    patience: Duration,
    command: impl FnOnce(Reply<T>) -> Command,
) -> Told<T> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    };
    match timeout(patience, asked).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(Problem::new(503, "the relay is stopping", "ask again when it has started")),
        Err(_) => Err(Problem::new(
            504,
            "the relay did not answer in time",
            "a worker or a disk may be stuck: see `faults` of the status and the log",
        )),
    }
}

async fn not_found() -> Answer {
    let get = [api::STATUS, api::ALLOCATIONS, api::PLUGINS, api::BANS, api::HOLDS, api::AUDIT, api::RETENTION];
    let get = [&get[..], &[api::COMPLIANCE]].concat();
    let bans = [api::BANS, api::LIFT, api::HOLDS, api::LIFT_HOLD, api::READ_HOLD];
    let post =
        [&[api::RELOAD, api::DRAIN, api::LOOKUP], &bans[..], &[api::SWEEP, api::BACKUP, api::ERASE, api::REVIEW]]
            .concat();
    let (get, post) = (get.join(", "), post.join(", "));
    problem(&Problem::new(404, "no such path", &format!("there is GET {get} and POST {post}")))
}

pub(crate) fn problem(problem: &Problem) -> Answer {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(status, PROBLEM, problem)
}

fn json(status: StatusCode, kind: &'static str, value: &impl Serialize) -> Answer {
    // Plain structs of text and numbers have a form.
    let body = serde_json::to_vec(value).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, kind)], Bytes::from(body))
}
