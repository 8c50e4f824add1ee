//! The value of the XOR-...-ADDRESS attributes (RFC 8489, 14.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{MAGIC_COOKIE, TransactionId};

const PORT_MASK: u16 = (MAGIC_COOKIE >> 16) as u16;

/// An encoded address: 8 or 20 bytes.
pub(super) struct Encoded {
    bytes: [u8; 20],
    len: usize,
}

impl Encoded {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The value of ALTERNATE-SERVER and MAPPED-ADDRESS, which is not XORed (RFC 8489, 14.1 and 14.15).
pub(super) fn plain(address: SocketAddr) -> Encoded {
    let mut bytes = [0; 20];
    bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
    let len = match address.ip() {
        IpAddr::V4(ip) => {
            bytes[1] = 1;
            bytes[4..8].copy_from_slice(&ip.octets());
            8
        }
        IpAddr::V6(ip) => {
            bytes[1] = 2;
            bytes[4..20].copy_from_slice(&ip.octets());
            20
        }
    };
    Encoded { bytes, len }
}

pub(super) fn encode(address: SocketAddr, transaction: TransactionId) -> Encoded {
    let mut bytes = [0; 20];
    bytes[2..4].copy_from_slice(&(address.port() ^ PORT_MASK).to_be_bytes());
    let len = match address.ip() {
        IpAddr::V4(ip) => {
            bytes[1] = 1;
            bytes[4..8].copy_from_slice(&(ip.to_bits() ^ MAGIC_COOKIE).to_be_bytes());
            8
        }
        IpAddr::V6(ip) => {
            bytes[1] = 2;
            bytes[4..20].copy_from_slice(&(ip.to_bits() ^ mask(transaction)).to_be_bytes());
            20
        }
    };
    Encoded { bytes, len }
}

pub(super) fn decode(value: &[u8], transaction: TransactionId) -> Option<SocketAddr> {
    let (&[_, family, p0, p1], rest) = value.split_first_chunk::<4>()?;
    let ip = match family {
        1 => IpAddr::V4(Ipv4Addr::from_bits(u32::from_be_bytes(rest.try_into().ok()?) ^ MAGIC_COOKIE)),
        2 => IpAddr::V6(Ipv6Addr::from_bits(u128::from_be_bytes(rest.try_into().ok()?) ^ mask(transaction))),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes([p0, p1]) ^ PORT_MASK))
}

fn mask(transaction: TransactionId) -> u128 {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(&transaction.0);
    u128::from_be_bytes(mask)
}
