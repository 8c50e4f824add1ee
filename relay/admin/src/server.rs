//! The HTTP server.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::get;
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sluice_base::limits;
use sluice_metrics::{CONTENT_TYPE, Metrics};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::health::Health;

/// How long to wait after an accept failed for want of descriptors: trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Plain text in the answers that are not metrics.
const TEXT: &str = "text/plain; charset=utf-8";

/// A server that listens and does not answer yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
}

/// The metrics listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics on {address}: {error}{cure}")]
pub struct BindError {
    /// The address that was asked for: the operator's own.
    pub address: SocketAddr,
    /// The system's reason.
    #[source]
    pub error: io::Error,
    cure: &'static str,
}

struct Served {
    metrics: Arc<Metrics>,
    health: Box<dyn Health>,
}

type Answer = (StatusCode, [(HeaderName, &'static str); 1], Bytes);

impl Server {
    /// Listens on `address`; port 0 lets the kernel choose.
    ///
    /// # Errors
    /// [`BindError`], with what to do.
    pub async fn bind(address: SocketAddr, metrics: Arc<Metrics>, health: impl Health) -> Result<Self, BindError> {
        let refused = |error: io::Error| BindError { address, cure: cure(error.kind()), error };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let served = Arc::new(Served { metrics, health: Box::new(health) });
        let router = Router::new()
            .route("/metrics", get(serve_metrics))
            .route("/healthz", get(serve_health))
            .fallback(not_found)
            .method_not_allowed_fallback(not_found)
            .with_state(served);
        Ok(Server { listener, address, router })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` is ready, then finishes what is under way within
    /// [`ADMIN_STOP_TIMEOUT`](limits::ADMIN_STOP_TIMEOUT).
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let places = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS_MAX));
        let (stopping, stopped) = watch::channel(false);
        tokio::select! {
            () = stop => {}
            () = accept(&self.listener, &self.router, &places, &stopped) => {}
        }
        drop(self.listener);
        stopping.send_replace(true);
        // All places are free when the last connection is gone.
        let _ = timeout(limits::ADMIN_STOP_TIMEOUT, places.acquire_many(limits::ADMIN_CONNECTIONS_MAX as u32)).await;
    }
}

/// Accepts for ever.
async fn accept(listener: &TcpListener, router: &Router, places: &Arc<Semaphore>, stopped: &watch::Receiver<bool>) {
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = serve_connection(stream, router.clone(), stopped.clone());
                tokio::spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve_connection(stream: TcpStream, router: Router, mut stopped: watch::Receiver<bool>) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::ADMIN_HEADER_TIMEOUT)
        .max_buf_size(limits::ADMIN_REQUEST_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        _ = connection.as_mut() => true,
        () = sleep(limits::ADMIN_CONNECTION_LIFETIME) => false,
        _ = stopped.wait_for(|stopped| *stopped) => false,
    };
    if !ended {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(limits::ADMIN_STOP_TIMEOUT, connection).await;
    }
}

async fn serve_metrics(State(served): State<Arc<Served>>) -> Answer {
    match served.metrics.render() {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, CONTENT_TYPE)], Bytes::from(text)),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, Bytes::from(format!("{error}\n"))),
    }
}

async fn serve_health(State(served): State<Arc<Served>>) -> Answer {
    match served.health.check() {
        Ok(()) => text(StatusCode::OK, Bytes::from_static(b"ok\n")),
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, Bytes::from(reason + "\n")),
    }
}

async fn not_found() -> Answer {
    text(StatusCode::NOT_FOUND, Bytes::from_static(b"there is /metrics and /healthz, to GET\n"))
}

fn text(status: StatusCode, body: Bytes) -> Answer {
    (status, [(header::CONTENT_TYPE, TEXT)], body)
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn cure(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => {
            ". Another process listens there: stop it, or choose another port in [metrics] listen"
        }
        io::ErrorKind::AddrNotAvailable => ". This machine does not have that address: see [metrics] listen",
        io::ErrorKind::PermissionDenied => {
            ". Ports below 1024 need CAP_NET_BIND_SERVICE: choose another in [metrics] listen"
        }
        _ => "",
    }
}
