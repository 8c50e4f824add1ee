//! The HTTP server.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::routing::get;
use bytes::Bytes;
use sluice_metrics::{CONTENT_TYPE, Metrics};
use tokio::net::{TcpListener, TcpStream};

use crate::health::Health;
use crate::http::{self, Answer, Listen, text};

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
    /// [`ADMIN_STOP_TIMEOUT`](sluice_base::limits::ADMIN_STOP_TIMEOUT).
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        http::serve(self, stop).await;
    }
}

impl Listen for Server {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    fn router(&self, _: &TcpStream) -> Router {
        self.router.clone()
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
