//! The command line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Parser, ValueEnum};

use crate::pace::Pacing;
use crate::session::Account;
use crate::{rtp, stamp};

/// A TURN load generator over real sockets: one thread, which spins, plays all clients and all peers.
///
/// Clients and peers have addresses of their own, by default in 127.66.0.0/16 and 127.67.0.0/16: the server must
/// allow loopback peers, and thousands of requests per second from unknown sources. With IPv6 it is
/// fd66:6666:0:1::/64 and fd66:6666:0:2::/64, which `ip -6 route add local fd66:6666::/32 dev lo` makes local.
#[derive(Parser)]
#[command(version)]
pub(crate) struct Options {
    /// The server's UDP listener.
    #[arg(long, default_value = "127.0.0.1:3478")]
    pub(crate) server: SocketAddr,
    /// User name; with --secret the part after the expiry.
    #[arg(long, default_value = "u")]
    pub(crate) user: String,
    /// Password of the user.
    #[arg(long, default_value = "p", conflicts_with = "secret")]
    pub(crate) password: String,
    /// Shared secret of time-limited credentials, instead of a password.
    #[arg(long)]
    pub(crate) secret: Option<String>,
    /// Which way the packets go.
    #[arg(long, value_enum, default_value_t = Direction::Up)]
    pub(crate) direction: Direction,
    /// How they travel between client and server.
    #[arg(long, value_enum, default_value_t = Framing::Channel)]
    pub(crate) framing: Framing,
    /// Allocations, each with one peer (client to client: they are each other's peers).
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(crate) allocations: u32,
    /// Payload bytes of a packet.
    #[arg(long, default_value_t = 172, value_parser = clap::value_parser!(u16).range(stamp::BYTES as i64..=1400))]
    pub(crate) size: u16,
    /// Packets per second of all flows together; 0 is flat out.
    #[arg(long, default_value_t = 20_000)]
    pub(crate) rate: u32,
    /// How the packets lie in time.
    #[arg(long, value_enum, default_value_t = Pacing::Natural)]
    pub(crate) pacing: Pacing,
    /// Packets that a flow sends at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=40))]
    pub(crate) burst: u32,
    /// Hand each burst to the kernel as one (UDP_SEGMENT), as a network card with GRO delivers it, and take as one
    /// (UDP_GRO) what the server sends as one.
    #[arg(long)]
    pub(crate) gso: bool,
    /// Let every payload start with an RTP header: one SSRC for each flow, sequence numbers without a gap, a clock of
    /// 90 kHz. A burst is a frame: its packets share a timestamp, and the last has the marker.
    #[arg(long)]
    pub(crate) rtp: bool,
    /// Packets on their way at most when flat out.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) window: u32,
    /// Clients that are in the middle of a request at a time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) concurrency: u32,
    /// Seconds that are measured; permissions are not refreshed and live for 300.
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Seconds of traffic before that.
    #[arg(long, default_value_t = 0.3, value_parser = seconds)]
    pub(crate) warmup: f64,
    /// The core to stay on.
    #[arg(long)]
    pub(crate) cpu: Option<usize>,
    /// The server's process, for its CPU time.
    #[arg(long)]
    pub(crate) server_pid: Option<i32>,
    /// Address of the first client; the others follow it. All must be local, and of the server's family [default:
    /// 127.66.0.1 or fd66:6666:0:1::1]
    #[arg(long)]
    clients_from: Option<IpAddr>,
    /// Address of the first peer; the others follow it. All must be local; their family is the one of the relayed
    /// addresses [default: the server's family, 127.67.0.1 or fd66:6666:0:2::1]
    #[arg(long)]
    peers_from: Option<IpAddr>,
    /// Draws the phases of the flows.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which way the packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    /// Client to peer.
    Up,
    /// Peer to client.
    Down,
    /// Up and down, half of the rate each.
    Both,
    /// Client to client through two allocations.
    C2c,
    /// No packets: authenticate, allocate, delete, as often as the server can.
    Allocate,
}

/// How packets travel between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Framing {
    /// ChannelData.
    Channel,
    /// Send and Data indications.
    Indication,
}

impl Options {
    /// What the value parsers cannot see.
    pub(crate) fn validate(&self) -> Result<(), String> {
        if self.direction == Direction::C2c && !self.allocations.is_multiple_of(2) {
            return Err("--direction c2c: --allocations must be even, the clients are pairs".to_owned());
        }
        if self.gso && self.burst < 2 {
            return Err("--gso: nothing to hand over as one with --burst 1".to_owned());
        }
        if self.clients_from().is_ipv4() != self.server.is_ipv4() {
            return Err("--clients-from: not of the family of --server".to_owned());
        }
        if self.rtp && usize::from(self.size) < rtp::HEADER_LEN + stamp::BYTES {
            let least = rtp::HEADER_LEN + stamp::BYTES;
            return Err(format!("--rtp: a payload with an RTP header has at least {least} bytes: see --size"));
        }
        if self.seconds + self.warmup > 270.0 {
            return Err("--seconds and --warmup: more than 270 s together; permissions live for 300".to_owned());
        }
        Ok(())
    }

    /// Address of the first client.
    pub(crate) fn clients_from(&self) -> IpAddr {
        let (v4, v6) = (Ipv4Addr::new(127, 66, 0, 1), Ipv6Addr::new(0xfd66, 0x6666, 0, 1, 0, 0, 0, 1));
        self.clients_from.unwrap_or(if self.server.is_ipv4() { v4.into() } else { v6.into() })
    }

    /// Address of the first peer.
    pub(crate) fn peers_from(&self) -> IpAddr {
        let (v4, v6) = (Ipv4Addr::new(127, 67, 0, 1), Ipv6Addr::new(0xfd66, 0x6666, 0, 2, 0, 0, 0, 1));
        self.peers_from.unwrap_or(if self.server.is_ipv4() { v4.into() } else { v6.into() })
    }

    /// The clients' account.
    pub(crate) fn account(&self) -> Account {
        match &self.secret {
            None => Account::new(self.user.clone(), self.password.clone()),
            Some(secret) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
                let username = format!("{}:{}", now.as_secs() + 3600, self.user);
                let password = sluice_crypto::rest_password(secret, &username);
                Account::new(username, password)
            }
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=270.0).contains(&value) => Ok(value),
        _ => Err("0 to 270 seconds".to_owned()),
    }
}
