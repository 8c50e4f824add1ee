//! The server as a scraper, a load balancer and a rude client see it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sluice_admin::{Health, Server};
use sluice_base::limits;
use sluice_metrics::{BuildInfo, Metrics};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn start(health: impl Health) -> Running {
    let build = BuildInfo {
        version: "1".into(),
        driver: "epoll".into(),
        start_unix_seconds: 1,
        allocations_limit: 1,
        tenants: Vec::new(),
    };
    let metrics = Arc::new(Metrics::new(1, build).unwrap());
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), metrics, health).await.unwrap();
    let address = server.address();
    assert_ne!(address.port(), 0);
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(server.serve(async move {
        let _ = stopped.await;
    }));
    Running { address, stop, task }
}

fn well() -> Result<(), String> {
    Ok(())
}

/// Sends a request and reads until the server closes.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    read_to_end(&mut stream).await
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset is an end too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server closes");
    String::from_utf8(answer).unwrap()
}

async fn get(address: SocketAddr, path: &str) -> String {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
}

#[tokio::test]
async fn metrics_are_served_as_text() {
    let server = start(well).await;
    let answer = get(server.address, "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4\r\n"), "{answer}");
    assert!(answer.contains("\nsluice_turn_allocations 0\n"), "{answer}");
}

#[tokio::test]
async fn health_says_what_is_wrong() {
    let ill = Arc::new(AtomicBool::new(false));
    let asked = ill.clone();
    let health = move || if asked.load(Ordering::Relaxed) { Err("worker 0 is ill".to_owned()) } else { Ok(()) };
    let server = start(health).await;
    let answer = get(server.address, "/healthz").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
    ill.store(true, Ordering::Relaxed);
    let answer = get(server.address, "/healthz").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("worker 0 is ill\n"), "{answer}");
}

#[tokio::test]
async fn there_is_nothing_else() {
    let server = start(well).await;
    for path in ["/", "/metrics/", "/metrics/x", "/healthz?", "/../metrics", "/%6detrics"] {
        let answer = get(server.address, path).await;
        let expected = if path == "/healthz?" { "HTTP/1.1 200 " } else { "HTTP/1.1 404 " };
        assert!(answer.starts_with(expected), "{path}: {answer}");
    }
    let post = "POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab";
    assert!(exchange(server.address, post).await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn long_headers_are_refused() {
    let server = start(well).await;
    let long = "x".repeat(2 * limits::ADMIN_REQUEST_BYTES_MAX);
    let answer = exchange(server.address, &format!("GET /metrics HTTP/1.1\r\nX: {long}\r\n\r\n")).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(get(server.address, "/healthz").await.contains("200 OK"));
}

#[tokio::test]
async fn connections_are_bounded_and_silent_ones_make_room() {
    let server = start(well).await;
    let mut silent = Vec::new();
    for _ in 0..limits::ADMIN_CONNECTIONS_MAX {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    let mut late = TcpStream::connect(server.address).await.unwrap();
    late.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let early = timeout(Duration::from_millis(300), late.read_u8()).await;
    assert!(early.is_err(), "answered beyond the bound");
    // The silent ones are closed after the header timeout, and the late one has its answer.
    assert!(read_to_end(&mut late).await.contains("200 OK"));
    for mut stream in silent {
        read_to_end(&mut stream).await;
    }
}

#[tokio::test]
async fn a_stop_ends_connections_and_frees_the_port() {
    let server = start(well).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    server.stop.send(()).unwrap();
    timeout(PATIENCE, server.task).await.expect("it stops").unwrap();
    read_to_end(&mut idle).await;
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_taken_port_is_explained() {
    let server = start(well).await;
    let build = BuildInfo {
        version: "1".into(),
        driver: "epoll".into(),
        start_unix_seconds: 1,
        allocations_limit: 1,
        tenants: Vec::new(),
    };
    let metrics = Arc::new(Metrics::new(1, build).unwrap());
    let error = Server::bind(server.address, metrics, well).await.err().expect("the port is taken").to_string();
    assert!(error.contains(&server.address.to_string()) && error.contains("[metrics] listen"), "{error}");
}
