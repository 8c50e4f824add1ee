//! `sluice healthcheck`: whether the relay of this machine serves, by its control socket and as a client would see it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rand_core::{OsRng, TryRngCore};
use serde::Serialize;
use sluice_admin::Method as HttpMethod;
use sluice_admin::api::{self, Status};
use sluice_base::limits::BINDING_ANSWER_BYTES_MAX;
use sluice_wire::stun::{Builder, Class, Message, Method, TransactionId};

use crate::ask::AskArgs;
use crate::cli::Failure;

/// How long one Binding request waits for its answer (RFC 8489, 6.2.1), and how many are sent.
const RETRANSMISSION: Duration = Duration::from_millis(500);
const ATTEMPTS: u32 = 3;

/// How the relay is.
#[derive(Debug, Serialize)]
struct Health {
    healthy: bool,
    draining: bool,
    listeners: Vec<Listener>,
    faults: Vec<String>,
}

/// Whether a listener answers.
#[derive(Debug, Serialize)]
struct Listener {
    address: SocketAddr,
    /// From the request to its answer.
    round_trip_us: Option<u64>,
}

/// Fails unless every worker advances and every listener answers.
pub(crate) fn run(args: &AskArgs) -> Result<(), Failure> {
    let status = args.call::<Status>(HttpMethod::GET, api::STATUS);
    let health = match status {
        Ok(status) => health(&status),
        Err(error) if args.json => {
            Health { healthy: false, draining: false, listeners: Vec::new(), faults: vec![error] }
        }
        Err(error) => return Err(error),
    };
    if args.json || health.healthy {
        args.print(&health, text)?;
    }
    if health.healthy { Ok(()) } else { Err(health.faults.join("\n")) }
}

fn health(status: &Status) -> Health {
    let mut faults = status.faults.clone();
    let mut listeners = Vec::new();
    for address in status.listeners.iter().map(|listener| listener.address) {
        let answered = binding(address);
        let fault = |why| format!("the listener {address} does not answer a Binding request: {why}");
        faults.extend(answered.as_ref().err().map(fault));
        listeners.push(Listener { address, round_trip_us: answered.ok().map(|time| time.as_micros() as u64) });
    }
    Health { healthy: faults.is_empty(), draining: status.draining.is_some(), listeners, faults }
}

fn text(health: &Health) -> String {
    let mut text = if health.draining { "well, and draining\n" } else { "well\n" }.to_owned();
    for listener in &health.listeners {
        let time = listener.round_trip_us.unwrap_or_default();
        text += &format!("  {} answers in {time} us\n", listener.address);
    }
    text
}

/// A Binding transaction (RFC 8489, 7.1): the time from a request to its answer.
fn binding(address: SocketAddr) -> io::Result<Duration> {
    let local = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(local)?;
    // Only the listener's own answers come through.
    socket.connect(address)?;
    let mut transaction = [0; 12];
    OsRng.try_fill_bytes(&mut transaction).map_err(io::Error::other)?;
    let mut bytes = [0; 64];
    let mut builder = Builder::new(&mut bytes, Class::Request, Method::BINDING, TransactionId(transaction));
    builder.fingerprint();
    let length = builder.finish().map_err(io::Error::other)?;
    for _ in 0..ATTEMPTS {
        socket.send(&bytes[..length])?;
        if let Some(time) = answer(&socket, TransactionId(transaction))? {
            return Ok(time);
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// The time until the answer; none within that of one attempt.
fn answer(socket: &UdpSocket, transaction: TransactionId) -> io::Result<Option<Duration>> {
    let start = Instant::now();
    let mut bytes = [0; 2 * BINDING_ANSWER_BYTES_MAX];
    loop {
        let left = RETRANSMISSION.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        let length = match socket.recv(&mut bytes) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let is_it = |m: Message<'_>| m.class == Class::Success && m.transaction == transaction;
        if Message::parse(&bytes[..length]).is_ok_and(is_it) {
            return Ok(Some(start.elapsed()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_where_nobody_listens_is_a_fault() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        drop(socket);
        assert_eq!(binding(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn an_answer_to_something_else_is_none() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let echo = std::thread::spawn(move || {
            let mut bytes = [0; 64];
            for _ in 0..ATTEMPTS {
                let (length, from) = server.recv_from(&mut bytes).unwrap();
                // A request that comes back is no answer.
                server.send_to(&bytes[..length], from).unwrap();
            }
        });
        assert_eq!(binding(address).unwrap_err().kind(), io::ErrorKind::TimedOut);
        echo.join().unwrap();
    }
}
