//! Connections: counted, of bounded life, with bounded headers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderName, StatusCode, header};
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sluice_base::limits;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

/// How long to wait after an accept failed for want of descriptors: trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Plain text in the answers that are not metrics.
const TEXT: &str = "text/plain; charset=utf-8";

pub(crate) type Answer = (StatusCode, [(HeaderName, &'static str); 1], Bytes);

/// What takes connections, and gives each of them its router.
pub(crate) trait Listen {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>>;

    fn router(&self, stream: &Self::Stream) -> Router;
}

/// Answers until `stop` is ready, then finishes what is under way within
/// [`ADMIN_STOP_TIMEOUT`](limits::ADMIN_STOP_TIMEOUT).
pub(crate) async fn serve(listener: impl Listen, stop: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS_MAX));
    let (stopping, stopped) = watch::channel(false);
    tokio::select! {
        () = stop => {}
        () = accept(&listener, &places, &stopped) => {}
    }
    drop(listener);
    stopping.send_replace(true);
    // All places are free when the last connection is gone.
    let _ = timeout(limits::ADMIN_STOP_TIMEOUT, places.acquire_many(limits::ADMIN_CONNECTIONS_MAX as u32)).await;
}

pub(crate) fn text(status: StatusCode, body: Bytes) -> Answer {
    (status, [(header::CONTENT_TYPE, TEXT)], body)
}

/// Accepts for ever.
async fn accept(listener: &impl Listen, places: &Arc<Semaphore>, stopped: &watch::Receiver<bool>) {
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok(stream) => {
                let router = listener.router(&stream);
                let connection = serve_connection(stream, router, stopped.clone());
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

async fn serve_connection<S>(stream: S, router: Router, mut stopped: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
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

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
