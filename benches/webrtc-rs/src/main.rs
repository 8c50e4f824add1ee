//! webrtc-rs's TURN server on one thread: what a relay on tokio costs, for `cargo xtask bench-turn`.
//!
//! usage: sluice-bench-webrtc-rs ADDRESS USER PASSWORD REALM. It serves one user on one UDP listener, relays from the
//! same address, allows every peer, and runs until it is ended.
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr, reason = "a program for a terminal")]

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use turn::auth::{AuthHandler, generate_auth_key};
use turn::relay::RelayAddressGenerator;
use turn::server::Server;
use turn::server::config::{ConnConfig, ServerConfig};
use webrtc_util::Conn;

/// As coturn sets it on its sockets by itself, and the benchmark for sluice.
const RECEIVE_BUFFER_BYTES: usize = 2 * 1024 * 1024;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match serve(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice-bench-webrtc-rs: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &[String]) -> Result<(), String> {
    let [address, user, password, realm] = arguments else {
        return Err("usage: sluice-bench-webrtc-rs ADDRESS USER PASSWORD REALM".to_owned());
    };
    let address: SocketAddr = address.parse().map_err(|error| format!("{address}: {error}"))?;
    let account = Account { user: user.clone(), key: generate_auth_key(user, realm, password) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(async {
        let conn = Arc::new(socket(address).map_err(|error| format!("{address}: {error}"))?);
        let relay_addr_generator = Box::new(Relays(address.ip()));
        let config = ServerConfig {
            conn_configs: vec![ConnConfig { conn, relay_addr_generator }],
            realm: realm.clone(),
            auth_handler: Arc::new(account),
            channel_bind_timeout: Duration::ZERO,
            alloc_close_notify: None,
        };
        let _server = Server::new(config).await.map_err(|error| error.to_string())?;
        std::future::pending().await
    })
}

/// A bound UDP socket with a receive buffer as the other servers have it.
fn socket(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// The only user.
struct Account {
    user: String,
    key: Vec<u8>,
}

impl AuthHandler for Account {
    fn auth_handle(&self, user: &str, _: &str, _: SocketAddr) -> Result<Vec<u8>, turn::Error> {
        if user == self.user { Ok(self.key.clone()) } else { Err(turn::Error::ErrNoSuchUser) }
    }
}

/// Where relayed sockets are bound.
struct Relays(IpAddr);

#[async_trait::async_trait]
impl RelayAddressGenerator for Relays {
    fn validate(&self) -> Result<(), turn::Error> {
        Ok(())
    }

    async fn allocate_conn(
        &self,
        _: bool,
        port: u16,
    ) -> Result<(Arc<dyn Conn + Send + Sync>, SocketAddr), turn::Error> {
        let relay = socket(SocketAddr::new(self.0, port))?;
        let address = relay.local_addr()?;
        Ok((Arc::new(relay), address))
    }
}
