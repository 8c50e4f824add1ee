//! Stories of clients, peers and policies, one behaviour each.
#![forbid(unsafe_code)]

mod allocate;
mod bad_input;
mod bans;
mod binding;
mod challenge;
mod channels;
mod credentials;
mod draining;
mod dual;
mod even_port;
mod events;
mod expiry;
mod guard;
mod lifetime;
mod listing;
mod names;
mod nonce;
mod orders;
mod own_relays;
mod permissions;
mod personal;
mod quality;
mod questions;
mod quotas;
mod relaying;
mod retransmission;
mod review;
mod settings;
mod sources;

use std::net::SocketAddr;
use std::time::Duration;

use sluice_turn::harness::model::socket_address;

/// An IPv4 client.
const CLIENT: &str = "203.0.113.7:40000";
/// Another one.
const CLIENT_2: &str = "203.0.113.8:40000";
/// An IPv6 client.
const CLIENT_V6: &str = "[2001:db8:c::7]:40000";

fn at(address: &str) -> SocketAddr {
    socket_address(address)
}

/// An IPv4 peer.
fn peer() -> SocketAddr {
    at("198.51.100.9:6000")
}

/// An IPv6 peer.
fn peer_v6() -> SocketAddr {
    at("[2001:db8:9::9]:6000")
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

const NANOSECOND: Duration = Duration::from_nanos(1);
