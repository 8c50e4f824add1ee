//! What stands in front of a payload that travels to the client as a Data indication (RFC 8656, 11.3):
//!
//! ```text
//! | header, 20 | XOR-PEER-ADDRESS, 4 + 8 or 4 + 20 | DATA, 4 | payload ... | padding, 0 to 3 |
//! ```
//!
//! The payload comes last, so that it stays where it arrived.

use std::net::SocketAddr;

use sluice_base::Family;

use super::attribute::{DATA, XOR_PEER_ADDRESS};
use super::{Class, HEADER_LEN, MAGIC_COOKIE, Method, Overflow, TransactionId, type_bits, xor};
use crate::padding;

/// Bytes in front of the payload of a Data indication from a peer of this family.
pub const fn data_indication_header_len(family: Family) -> usize {
    match family {
        Family::V4 => HEADER_LEN + 4 + 8 + 4,
        Family::V6 => HEADER_LEN + 4 + 20 + 4,
    }
}

/// Writes what stands in front of `payload_len` bytes from `peer` into the first
/// [`data_indication_header_len`] bytes of `front`. Behind the payload the caller writes
/// [`padding`] of `payload_len` bytes, of any value (RFC 8489, 14).
///
/// # Errors
/// `front` is too short, or the payload too long for a STUN message; nothing was written.
pub fn data_indication_header(
    front: &mut [u8],
    peer: SocketAddr,
    payload_len: usize,
    transaction: TransactionId,
) -> Result<(), Overflow> {
    let header_len = data_indication_header_len(Family::of(peer.ip()));
    let front = front.get_mut(..header_len).ok_or(Overflow)?;
    let data_len = u16::try_from(payload_len).map_err(|_| Overflow)?;
    let body_len = header_len - HEADER_LEN + payload_len + padding(payload_len);
    let body_len = u16::try_from(body_len).map_err(|_| Overflow)?;

    let peer = xor::encode(peer, transaction);
    let peer = peer.bytes();
    let data_at = HEADER_LEN + 4 + peer.len();
    front[..2].copy_from_slice(&type_bits(Class::Indication, Method::DATA).to_be_bytes());
    front[2..4].copy_from_slice(&body_len.to_be_bytes());
    front[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    front[8..20].copy_from_slice(&transaction.0);
    front[20..22].copy_from_slice(&XOR_PEER_ADDRESS.to_be_bytes());
    front[22..24].copy_from_slice(&(peer.len() as u16).to_be_bytes());
    front[24..data_at].copy_from_slice(peer);
    front[data_at..data_at + 2].copy_from_slice(&DATA.to_be_bytes());
    front[data_at + 2..data_at + 4].copy_from_slice(&data_len.to_be_bytes());
    Ok(())
}
