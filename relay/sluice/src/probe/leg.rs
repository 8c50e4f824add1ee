//! One allocation, and the client that holds it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::timeout;
use turn::client::{Client, ClientConfig};
use webrtc_util::Conn;

use super::credentials::Credentials;
use super::diagnosis::Trouble;
use super::tap::{Answer, Exchange, Seen, Tap};

/// What opens a permission; no packet of the echo has it.
pub(super) const OPENING: &[u8] = b"open";

/// An allocation.
pub(super) struct Leg {
    client: Client,
    relay: Arc<dyn Conn + Send + Sync>,
    seen: watch::Receiver<Seen>,
    /// Its relayed address.
    pub(super) relayed: SocketAddr,
}

impl Leg {
    /// Allocates at a relay.
    pub(super) async fn allocate(
        server: SocketAddr,
        credentials: &Credentials,
        wait: Duration,
    ) -> Result<Self, Trouble> {
        let tap = Arc::new(Tap::open(server, credentials).await.map_err(|error| Trouble::Io(error.kind()))?);
        let mut seen = tap.seen();
        let client = client(tap, String::new(), server.to_string(), Some(credentials)).await?;
        let allocated = tokio::select! {
            allocated = timeout(wait, client.allocate()) => allocated.ok().and_then(Result::ok),
            _ = seen.wait_for(|seen| seen.is_refused) => None,
        };
        let now = *seen.borrow();
        let relay = allocated.ok_or_else(|| not_allocated(&now))?;
        answered(now.allocate)?;
        let relay: Arc<dyn Conn + Send + Sync> = Arc::new(relay);
        let relayed = relay.local_addr().map_err(|_| Trouble::Nonsense)?;
        Ok(Leg { client, relay, seen, relayed })
    }

    /// Creates the permission for a peer. The client begins to bind a channel to it by itself.
    pub(super) async fn permit(&mut self, peer: SocketAddr, wait: Duration) -> Result<(), Trouble> {
        // Whether it was answered is read from the wire: to the client silence is a success.
        let _ = timeout(wait, self.relay.send_to(OPENING, peer)).await;
        let exchange = self.seen.borrow().permit;
        answered(exchange)
    }

    /// Waits for the channel.
    pub(super) async fn bind(&mut self, wait: Duration) -> Result<(), Trouble> {
        let _ = timeout(wait, self.seen.wait_for(|seen| seen.bind.answer.is_some())).await;
        let exchange = self.seen.borrow().bind;
        answered(exchange)
    }

    /// Sends to a peer.
    pub(super) async fn send(&self, bytes: &[u8], peer: SocketAddr) -> Result<(), Trouble> {
        self.relay.send_to(bytes, peer).await.map(drop).map_err(|_| Trouble::NotSent)
    }

    /// The next packet of a peer.
    pub(super) async fn receive(&self, bytes: &mut [u8]) -> Result<usize, Trouble> {
        self.relay.recv_from(bytes).await.map(|(length, _)| length).map_err(|_| Trouble::Nonsense)
    }

    /// Gives the allocation back. Whether that worked is no part of the question.
    pub(super) async fn close(self) {
        let _ = self.relay.close().await;
        let _ = self.client.close().await;
    }
}

/// A socket of this machine that packets come to from the relay.
pub(super) struct OwnSocket {
    socket: Arc<UdpSocket>,
    /// Its address as the relay sees it.
    pub(super) seen_as: SocketAddr,
}

impl OwnSocket {
    /// Opens one, and asks the relay for its address by a Binding request.
    pub(super) async fn open(server: SocketAddr, wait: Duration) -> Result<Self, Trouble> {
        let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = Arc::new(UdpSocket::bind(any).await.map_err(|error| Trouble::Io(error.kind()))?);
        let client = client(socket.clone(), server.to_string(), String::new(), None).await?;
        let asked = timeout(wait, client.send_binding_request()).await;
        // It listens no more: from now on packets are the echo's.
        let _ = client.close().await;
        let seen_as = asked.ok().and_then(Result::ok).ok_or(Trouble::NoBinding)?;
        Ok(OwnSocket { socket, seen_as })
    }

    /// Sends to a relayed address.
    pub(super) async fn send(&self, bytes: &[u8], to: SocketAddr) -> Result<(), Trouble> {
        self.socket.send_to(bytes, to).await.map(drop).map_err(|_| Trouble::NotSent)
    }

    /// The next packet, and where from.
    pub(super) async fn receive(&self, bytes: &mut [u8]) -> Result<(usize, SocketAddr), Trouble> {
        self.socket.recv_from(bytes).await.map_err(|error| Trouble::Io(error.kind()))
    }
}

async fn client(
    conn: Arc<dyn Conn + Send + Sync>,
    stun: String,
    turn: String,
    credentials: Option<&Credentials>,
) -> Result<Client, Trouble> {
    let config = ClientConfig {
        stun_serv_addr: stun,
        turn_serv_addr: turn,
        username: credentials.map_or_else(String::new, |known| known.user.expose().clone()),
        password: credentials.map_or_else(String::new, |known| known.password.expose().clone()),
        realm: String::new(),
        software: String::new(),
        rto_in_ms: 0,
        conn,
        vnet: None,
    };
    let client = Client::new(config).await.map_err(|_| Trouble::Nonsense)?;
    client.listen().await.map_err(|_| Trouble::Nonsense)?;
    Ok(client)
}

fn not_allocated(seen: &Seen) -> Trouble {
    match (seen.allocate.answer, seen.allocate.is_signed) {
        _ if seen.is_refused => Trouble::Io(io::ErrorKind::ConnectionRefused),
        (None, false) => Trouble::Silent,
        (None, true) => Trouble::Unanswered,
        (Some(Answer::Success | Answer::Unsigned), false) => Trouble::Open,
        (Some(Answer::Success | Answer::Unsigned), true) | (Some(Answer::Error(401)), false) => Trouble::Nonsense,
        (Some(Answer::Error(code)), _) => Trouble::Code(code),
    }
}

fn answered(exchange: Exchange) -> Result<(), Trouble> {
    match exchange.answer {
        Some(Answer::Success) => Ok(()),
        Some(Answer::Unsigned) => Err(Trouble::Unsigned),
        Some(Answer::Error(code)) => Err(Trouble::Code(code)),
        None => Err(Trouble::Unanswered),
    }
}
