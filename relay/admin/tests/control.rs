//! The control socket as an administrator, a successor and a stranger see it.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use sluice_admin::api::{self, Allocations, Draining, Problem, Status};
use sluice_admin::{ClientError, Command, Control, ControlError, Method, call, call_with};
use sluice_base::limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// A folder of a test's own.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("sluice-control-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).unwrap();
        Folder(folder)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// A socket whose control plane answers.
fn start(path: &Path) -> Running {
    let (commands, mut received) = mpsc::channel(limits::CONTROL_COMMANDS_MAX);
    let control = Control::bind(path, commands).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(async move {
        while let Some(command) = received.recv().await {
            match command {
                Command::Status(reply) => drop(reply.send(status())),
                Command::Allocations(after, reply) => {
                    let _ = reply.send(Allocations { allocations: Vec::new(), next: Some(after + 1) });
                }
                Command::Drain(caller, reply) => {
                    let own = std::fs::metadata("/proc/self").unwrap().uid();
                    assert_eq!(caller.uid, Some(own));
                    let _ = reply.send(Draining { allocations: 1, since_seconds: 2, deadline_in_seconds: 3 });
                }
                Command::Lookup(_, wanted, reply) => {
                    let asked = "192.0.2.7".parse().unwrap();
                    assert_eq!((wanted.address, wanted.port), (sluice_base::Pii::new(asked), Some(4000)));
                    let _ = reply.send(Ok(api::Lookup { sessions: Vec::new(), more: false, gone: Vec::new() }));
                }
                Command::Ban(_, _, reply) => {
                    let _ = reply.send(Err(Problem::new(409, "nothing is recorded", "switch it on")));
                }
                _ => {}
            }
        }
    });
    let task = tokio::spawn(control.serve(async move {
        let _ = stopped.await;
    }));
    Running { stop, task }
}

fn status() -> Status {
    Status {
        version: "1".to_owned(),
        pid: 7,
        config: None,
        started_unix_seconds: 1,
        uptime_seconds: 2,
        driver: "epoll".to_owned(),
        workers: vec![api::Worker { worker: 0, core: 0, ticks: 3 }],
        listeners: vec![api::Listener { address: "127.0.0.1:3478".parse().unwrap(), realm: "r".to_owned() }],
        metrics: None,
        allocations: 4,
        allocations_limit: 5,
        last_reload: None,
        draining: None,
        faults: Vec::new(),
    }
}

#[tokio::test]
async fn it_is_for_its_owner_and_its_group() {
    let folder = Folder::new();
    let _running = start(&folder.socket());
    let metadata = std::fs::metadata(folder.socket()).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o660);
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1, "nothing else is left");
}

#[tokio::test]
async fn questions_are_answered() {
    let folder = Folder::new();
    let _running = start(&folder.socket());
    let answer: Status = call(&folder.socket(), Method::GET, api::STATUS).await.unwrap();
    assert_eq!(answer, status());
    let page: Allocations = call(&folder.socket(), Method::GET, "/v1/allocations").await.unwrap();
    assert_eq!(page.next, Some(1));
    let page: Allocations = call(&folder.socket(), Method::GET, "/v1/allocations?after=41").await.unwrap();
    assert_eq!(page.next, Some(42));
    let draining: Draining = call(&folder.socket(), Method::POST, api::DRAIN).await.unwrap();
    assert_eq!(draining.deadline_in_seconds, 3);
}

#[tokio::test]
async fn what_is_not_served_is_a_problem_with_a_cure() {
    let folder = Folder::new();
    let _running = start(&folder.socket());
    for (method, path, status) in [
        (Method::GET, "/v1/everything", 404),
        (Method::POST, api::STATUS, 404),
        (Method::GET, api::DRAIN, 404),
        (Method::GET, "/v1/allocations?after=x", 400),
        (Method::GET, "/v1/allocations?before=1", 400),
    ] {
        let refused = call::<Status>(&folder.socket(), method, path).await.unwrap_err();
        let ClientError::Refused(problem) = refused else { panic!("{path}: {refused}") };
        assert_eq!(problem.status, status, "{path}");
        assert!(!problem.detail.is_empty());
    }
}

fn wanted(address: &str, reason: &str) -> api::LookupRequest {
    let (from_unix_seconds, to_unix_seconds) = (1, 2);
    api::LookupRequest {
        address: address.to_owned(),
        port: Some(4000),
        from_unix_seconds,
        to_unix_seconds,
        reason: reason.to_owned(),
    }
}

#[tokio::test]
async fn a_look_up_has_an_address_and_a_reason_or_is_refused_without_repeating_it() {
    let folder = Folder::new();
    let _relay = start(&folder.socket());
    let ask = |request: api::LookupRequest| {
        let socket = folder.socket();
        async move { call_with::<api::Lookup>(&socket, api::LOOKUP, &request).await }
    };
    assert!(ask(wanted("192.0.2.7", "report 4711")).await.is_ok());
    for request in [wanted("192.0.2.7x", "report 4711"), wanted("192.0.2.7", " "), wanted("192.0.2.7", "two\nlines")] {
        let refused = ask(request).await.unwrap_err();
        assert!(matches!(&refused, ClientError::Refused(problem) if problem.status == 400), "{refused}");
        assert!(!refused.to_string().contains("192.0.2.7"), "{refused}");
    }
}

#[tokio::test]
async fn a_ban_that_is_too_long_is_refused_and_what_the_relay_refuses_is_told() {
    let folder = Folder::new();
    let _relay = start(&folder.socket());
    let ban = |seconds| {
        let socket = folder.socket();
        let request = api::BanRequest { target: "192.0.2.0/24".to_owned(), seconds, reason: "flood".to_owned() };
        async move { call_with::<api::Ban>(&socket, api::BANS, &request).await.unwrap_err().to_string() }
    };
    assert!(ban(8 * 86_400).await.contains("guard.deny_clients"));
    assert!(ban(3600).await.contains("nothing is recorded"));
}

#[tokio::test]
async fn what_a_dead_process_left_is_replaced() {
    let folder = Folder::new();
    drop(UnixListener::bind(folder.socket()).unwrap());
    assert!(folder.socket().exists());
    let dead = call::<Status>(&folder.socket(), Method::GET, api::STATUS).await.unwrap_err().to_string();
    assert!(dead.contains("dead process"), "{dead}");
    let _running = start(&folder.socket());
    call::<Status>(&folder.socket(), Method::GET, api::STATUS).await.unwrap();
}

#[tokio::test]
async fn a_live_relay_keeps_its_socket() {
    let folder = Folder::new();
    let _running = start(&folder.socket());
    let (commands, _received) = mpsc::channel(1);
    let error = Control::bind(&folder.socket(), commands).unwrap_err();
    assert!(matches!(error, ControlError::Live(_)) && error.to_string().contains("[control] socket"), "{error}");
    call::<Status>(&folder.socket(), Method::GET, api::STATUS).await.unwrap();
}

#[tokio::test]
async fn a_file_is_not_overwritten() {
    let folder = Folder::new();
    std::fs::write(folder.socket(), "precious").unwrap();
    let (commands, _received) = mpsc::channel(1);
    let error = Control::bind(&folder.socket(), commands).unwrap_err();
    assert!(matches!(error, ControlError::NoSocket(_)), "{error}");
    assert_eq!(std::fs::read_to_string(folder.socket()).unwrap(), "precious");
}

#[tokio::test]
async fn only_a_socket_is_removed_where_it_is_made() {
    let folder = Folder::new();
    let new = folder.0.join("control.sock.new");
    std::fs::write(&new, "precious").unwrap();
    let (commands, _received) = mpsc::channel(1);
    let error = Control::bind(&folder.socket(), commands).unwrap_err();
    assert!(matches!(&error, ControlError::NoSocket(path) if *path == new), "{error}");
    assert_eq!(std::fs::read_to_string(&new).unwrap(), "precious");
    std::fs::remove_file(&new).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&new).unwrap());
    let _running = start(&folder.socket());
    call::<Status>(&folder.socket(), Method::GET, api::STATUS).await.unwrap();
}

#[tokio::test]
async fn it_goes_with_the_relay_and_not_with_its_successor() {
    let folder = Folder::new();
    let running = start(&folder.socket());
    running.stop.send(()).unwrap();
    running.task.await.unwrap();
    assert!(!folder.socket().exists());
    let gone = call::<Status>(&folder.socket(), Method::GET, api::STATUS).await.unwrap_err().to_string();
    assert!(gone.contains("--socket"), "{gone}");

    let first = start(&folder.socket());
    std::fs::remove_file(folder.socket()).unwrap();
    let _second = start(&folder.socket());
    first.stop.send(()).unwrap();
    first.task.await.unwrap();
    call::<Status>(&folder.socket(), Method::GET, api::STATUS).await.unwrap();
}

#[tokio::test]
async fn a_control_plane_that_is_gone_is_told() {
    let folder = Folder::new();
    let (commands, received) = mpsc::channel(1);
    let control = Control::bind(&folder.socket(), commands).unwrap();
    drop(received);
    tokio::spawn(control.serve(std::future::pending()));
    let refused = call::<Status>(&folder.socket(), Method::GET, api::STATUS).await.unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(problem) if problem.status == 503), "{refused}");
}

#[tokio::test]
async fn noise_is_no_request() {
    let folder = Folder::new();
    let _running = start(&folder.socket());
    let mut stream = UnixStream::connect(folder.socket()).await.unwrap();
    stream.write_all(&[0xff; 64]).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    call::<Status>(&folder.socket(), Method::GET, api::STATUS).await.unwrap();
}
