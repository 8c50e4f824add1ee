//! The other end of the control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_base::limits;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::api::{self, Problem};

/// Why a relay did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens there, or whoever asks may not.
    #[error("no relay answers at the control socket {path}: {error}{}", cure(error.kind()))]
    Unreachable {
        /// The path.
        path: PathBuf,
        /// The reason.
        #[source]
        error: io::Error,
    },
    /// The connection broke.
    #[error("the control socket {0}: {1}")]
    Broken(PathBuf, String),
    /// It took too long.
    #[error("the relay at {0} does not answer")]
    Late(PathBuf),
    /// The relay said no.
    #[error("{}: {}", .0.title, .0.detail)]
    Refused(Problem),
}

fn cure(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::NotFound => ". Is it running, and is [control] socket at that path (--socket PATH)?",
        io::ErrorKind::PermissionDenied => ". Become root or a member of the group that the socket has (sluice-admin)",
        io::ErrorKind::ConnectionRefused => ". It is what a dead process has left: the relay does not run",
        _ => "",
    }
}

/// Sends a request to the relay at a control socket, and reads its answer.
///
/// # Errors
/// [`ClientError`], with what to do.
pub async fn call<T: DeserializeOwned>(socket: &Path, method: Method, path: &str) -> Result<T, ClientError> {
    let patience = match path {
        api::RELOAD => limits::RELOAD_ANSWER_TIMEOUT + limits::CONTROL_ANSWER_TIMEOUT,
        _ => limits::CONTROL_CLIENT_TIMEOUT,
    };
    call_within(patience, exchange(socket, method, path, Body::empty()), socket).await
}

/// Sends a request with a body to the relay at a control socket, and reads its answer, which may take longer.
///
/// # Errors
/// [`ClientError`], with what to do.
pub async fn call_with<T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    request: &impl Serialize,
) -> Result<T, ClientError> {
    let body =
        serde_json::to_vec(request).map_err(|error| ClientError::Broken(socket.to_owned(), error.to_string()))?;
    let patience = limits::CONTROL_RECORDS_TIMEOUT + limits::CONTROL_ANSWER_TIMEOUT;
    call_within(patience, exchange(socket, Method::POST, path, Body::from(body)), socket).await
}

async fn call_within<T>(
    patience: Duration,
    exchange: impl Future<Output = Result<T, ClientError>>,
    socket: &Path,
) -> Result<T, ClientError> {
    timeout(patience, exchange).await.unwrap_or_else(|_| Err(ClientError::Late(socket.to_owned())))
}

async fn exchange<T: DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
    body: Body,
) -> Result<T, ClientError> {
    let broken = |error: String| ClientError::Broken(socket.to_owned(), error);
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|error| ClientError::Unreachable { path: socket.to_owned(), error })?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| broken(error.to_string()))?;
    let request = Request::builder().method(method).uri(path).header(header::HOST, "relay").body(body);
    let request = request.map_err(|error| broken(error.to_string()))?;
    let read = async {
        let answer = sender.send_request(request).await.map_err(|error| broken(error.to_string()))?;
        let succeeded = answer.status().is_success();
        let body = axum::body::to_bytes(Body::new(answer.into_body()), limits::CONTROL_ANSWER_BYTES_MAX).await;
        Ok((succeeded, body.map_err(|error| broken(error.to_string()))?))
    };
    tokio::pin!(connection);
    tokio::pin!(read);
    // The connection is what moves the bytes; that it ends first is no mistake while an answer lies there.
    let (succeeded, body) = tokio::select! {
        done = &mut read => done?,
        _ = &mut connection => read.await?,
    };
    let unreadable = |error: serde_json::Error| broken(format!("not what this version of sluice reads: {error}"));
    if succeeded {
        serde_json::from_slice(&body).map_err(unreadable)
    } else {
        Err(ClientError::Refused(serde_json::from_slice(&body).map_err(unreadable)?))
    }
}
