//! Answers on the stack.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use sluice_base::limits::REPLY_BYTES_MAX;
use sluice_base::stats::Code;
use sluice_base::{SocketId, TransportAddress};
use sluice_wire::stun::{Builder, Class, Method, TransactionId, attribute};

use crate::auth::Signer;

/// The bytes of one answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    bytes: [u8; REPLY_BYTES_MAX],
    len: u16,
}

impl Reply {
    /// The message.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Builds a message; `None` when it does not fit, which a limit on every part of it rules out.
    pub(crate) fn build(
        class: Class,
        method: Method,
        transaction: TransactionId,
        fill: impl FnOnce(&mut Builder<'_>),
    ) -> Option<Reply> {
        let mut bytes = [0; REPLY_BYTES_MAX];
        let mut builder = Builder::new(&mut bytes, class, method, transaction);
        fill(&mut builder);
        let len = builder.finish().ok()?;
        Some(Reply { bytes, len: len as u16 })
    }
}

impl fmt::Debug for Reply {
    /// Shows nothing of the message: the client's address is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Ends an answer: integrity of the kind that the request had, FINGERPRINT where it had one.
pub(crate) fn seal(builder: &mut Builder<'_>, signer: Option<&Signer>, fingerprint: bool) {
    match signer {
        Some(Signer::Sha1(key)) => {
            builder.integrity_sha1(|parts| key.sign(parts));
        }
        Some(Signer::Sha256(key)) => {
            builder.integrity_sha256(|parts| key.sign(parts));
        }
        None => {}
    }
    if fingerprint {
        builder.fingerprint();
    }
}

/// XOR-MAPPED-ADDRESS: the client's own address, shown to it alone (RFC 8489, 14.2).
pub(crate) fn mapped(builder: &mut Builder<'_>, client: TransportAddress) {
    builder.xor_address(attribute::XOR_MAPPED_ADDRESS, *client.expose());
}

/// XOR-RELAYED-ADDRESS (RFC 8656, 18.5).
pub(crate) fn relayed(builder: &mut Builder<'_>, ip: IpAddr, port: u16) {
    builder.xor_address(attribute::XOR_RELAYED_ADDRESS, SocketAddr::new(ip, port));
}

/// The reason phrase of a code.
pub(crate) const fn reason(code: Code) -> &'static str {
    match code {
        Code::Ok => "",
        Code::TryAlternate => "Try Alternate",
        Code::BadRequest => "Bad Request",
        Code::Unauthenticated => "Unauthenticated",
        Code::Forbidden => "Forbidden",
        Code::UnknownAttribute => "Unknown Attribute",
        Code::AllocationMismatch => "Allocation Mismatch",
        Code::StaleNonce => "Stale Nonce",
        Code::AddressFamily => "Address Family not Supported",
        Code::WrongCredentials => "Wrong Credentials",
        Code::UnsupportedTransport => "Unsupported Transport Protocol",
        Code::PeerAddressFamily => "Peer Address Family Mismatch",
        Code::QuotaReached => "Allocation Quota Reached",
        Code::InsufficientCapacity => "Insufficient Capacity",
    }
}

/// Where an answer goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ReturnPath {
    pub(crate) socket: SocketId,
    pub(crate) to: TransportAddress,
}
