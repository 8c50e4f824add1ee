//! A batch as an HTTP request (RFC 9112), a connection for each.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::client::conn::http1;
use hyper::{Method, Request, Response, body::Incoming, header};
use hyper_util::rt::TokioIo;
use sluice_base::limits;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::segments::Batch;
use super::sink::Target;

/// What receivers tell relays apart by.
const NODE: &str = "sluice-node";
/// The number of the segment that the lines are of.
const SEGMENT: &str = "sluice-segment";
/// The number of the first line.
const FIRST: &str = "sluice-first-line";
/// The number of the last line.
const LAST: &str = "sluice-last-line";

/// Sends a batch; well only when the receiver has said that it has it (2xx).
pub(crate) async fn post(target: &Target, node: &str, batch: &Batch) -> Result<(), String> {
    match timeout(limits::SPOOL_HTTP_TIMEOUT, exchange(target, node, batch)).await {
        Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
        Ok(Ok(answer)) => Err(format!("it answers {}", answer.status())),
        Ok(Err(why)) => Err(why),
        Err(_) => Err(format!("no answer within {} s", limits::SPOOL_HTTP_TIMEOUT.as_secs())),
    }
}

async fn exchange(target: &Target, node: &str, batch: &Batch) -> Result<Response<Incoming>, String> {
    let stream = connect(target).await.map_err(|error| format!("no connection: {error}"))?;
    let told = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
    let request = request(target, node, batch).map_err(|error| error.to_string())?;
    let answer = sender.send_request(request);
    tokio::pin!(connection);
    tokio::pin!(answer);
    // The connection is what moves the bytes; that it ends first is no mistake while an answer lies there.
    tokio::select! {
        done = &mut answer => done.map_err(told),
        _ = &mut connection => answer.await.map_err(told),
    }
}

fn request(target: &Target, node: &str, batch: &Batch) -> Result<Request<String>, hyper::http::Error> {
    let (first, last) = (batch.first, batch.end.lines - 1);
    Request::builder()
        .method(Method::POST)
        .uri(&target.path)
        .header(header::HOST, &target.authority)
        .header(header::CONTENT_TYPE, "application/x-ndjson")
        .header(header::CONNECTION, "close")
        .header("idempotency-key", format!("\"{node}/{}/{first}-{last}\"", batch.segment))
        .header(NODE, node)
        .header(SEGMENT, batch.segment)
        .header(FIRST, first)
        .header(LAST, last)
        .body(batch.body.clone())
}

async fn connect(target: &Target) -> io::Result<TcpStream> {
    // No name service is asked for what is this machine.
    if target.host.eq_ignore_ascii_case("localhost") {
        return match TcpStream::connect((Ipv4Addr::LOCALHOST, target.port)).await {
            Ok(stream) => Ok(stream),
            Err(_) => TcpStream::connect((Ipv6Addr::LOCALHOST, target.port)).await,
        };
    }
    TcpStream::connect((target.host.as_str(), target.port)).await
}
