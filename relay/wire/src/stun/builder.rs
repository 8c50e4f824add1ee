//! Writes a message into a caller's buffer.

use std::net::SocketAddr;

use super::attribute::{
    ADDRESS_ERROR_CODE, ALTERNATE_SERVER, CHANNEL_NUMBER, ERROR_CODE, FINGERPRINT, MESSAGE_INTEGRITY,
    MESSAGE_INTEGRITY_SHA256, PASSWORD_ALGORITHM, PASSWORD_ALGORITHMS, UNKNOWN_ATTRIBUTES,
};
use super::{
    Class, FINGERPRINT_XOR, HEADER_LEN, MAGIC_COOKIE, Method, PasswordAlgorithm, TransactionId, type_bits, xor,
};
use crate::padding;

/// The message did not fit its buffer, or a STUN message at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the STUN message does not fit its buffer")]
pub struct Overflow;

/// A message under construction. Attributes stand in the order of the calls. What does not fit is
/// remembered, everything after it ignored, and [`Builder::finish`] says so.
pub struct Builder<'a> {
    buffer: &'a mut [u8],
    len: usize,
    transaction: TransactionId,
    overflow: bool,
}

impl<'a> Builder<'a> {
    /// A message without attributes.
    pub fn new(buffer: &'a mut [u8], class: Class, method: Method, transaction: TransactionId) -> Self {
        let mut builder = Builder { buffer, len: 0, transaction, overflow: false };
        builder.append(&type_bits(class, method).to_be_bytes());
        builder.append(&[0, 0]);
        builder.append(&MAGIC_COOKIE.to_be_bytes());
        builder.append(&transaction.0);
        builder
    }

    /// An attribute with any value; an empty one makes a flag.
    pub fn bytes(&mut self, attribute: u16, value: &[u8]) -> &mut Self {
        self.parts(attribute, &[value])
    }

    /// An attribute with a 32-bit value (LIFETIME, PRIORITY), or with a small value in the first of
    /// four bytes (`u32::from(protocol) << 24`).
    pub fn u32(&mut self, attribute: u16, value: u32) -> &mut Self {
        self.bytes(attribute, &value.to_be_bytes())
    }

    /// XOR-MAPPED-ADDRESS, XOR-RELAYED-ADDRESS or XOR-PEER-ADDRESS (RFC 8489, 14.2).
    pub fn xor_address(&mut self, attribute: u16, address: SocketAddr) -> &mut Self {
        let value = xor::encode(address, self.transaction);
        self.bytes(attribute, value.bytes())
    }

    /// ALTERNATE-SERVER (RFC 8489, 14.15).
    pub fn alternate_server(&mut self, address: SocketAddr) -> &mut Self {
        self.bytes(ALTERNATE_SERVER, xor::plain(address).bytes())
    }

    /// CHANNEL-NUMBER (RFC 8656, 18.1).
    pub fn channel(&mut self, number: u16) -> &mut Self {
        self.u32(CHANNEL_NUMBER, u32::from(number) << 16)
    }

    /// ERROR-CODE (RFC 8489, 14.8). `code` is 300 to 699.
    pub fn error(&mut self, code: u16, reason: &str) -> &mut Self {
        self.parts(ERROR_CODE, &[&[0, 0], &error_bits(code), reason.as_bytes()])
    }

    /// ADDRESS-ERROR-CODE (RFC 8656, 18.12): why the additional family was not allocated.
    pub fn address_error(&mut self, family: u8, code: u16, reason: &str) -> &mut Self {
        self.parts(ADDRESS_ERROR_CODE, &[&[family, 0], &error_bits(code), reason.as_bytes()])
    }

    /// UNKNOWN-ATTRIBUTES (RFC 8489, 14.13).
    pub fn unknown_attributes(&mut self, types: &[u16]) -> &mut Self {
        let start = self.open(UNKNOWN_ATTRIBUTES);
        for attribute in types {
            self.append(&attribute.to_be_bytes());
        }
        self.close(start)
    }

    /// PASSWORD-ALGORITHMS (RFC 8489, 14.11), without parameters.
    pub fn password_algorithms(&mut self, algorithms: &[PasswordAlgorithm]) -> &mut Self {
        let start = self.open(PASSWORD_ALGORITHMS);
        for algorithm in algorithms {
            self.append(&algorithm_bits(*algorithm));
        }
        self.close(start)
    }

    /// PASSWORD-ALGORITHM (RFC 8489, 14.12), without parameters.
    pub fn password_algorithm(&mut self, algorithm: PasswordAlgorithm) -> &mut Self {
        self.bytes(PASSWORD_ALGORITHM, &algorithm_bits(algorithm))
    }

    /// MESSAGE-INTEGRITY (RFC 8489, 14.5): `sign` is given all that stands before it.
    pub fn integrity_sha1(&mut self, sign: impl FnOnce(&[&[u8]]) -> [u8; 20]) -> &mut Self {
        self.covered(MESSAGE_INTEGRITY, |text| sign(&[text]))
    }

    /// MESSAGE-INTEGRITY-SHA256 (RFC 8489, 14.6), not truncated: `sign` is given all that stands
    /// before it.
    pub fn integrity_sha256(&mut self, sign: impl FnOnce(&[&[u8]]) -> [u8; 32]) -> &mut Self {
        self.covered(MESSAGE_INTEGRITY_SHA256, |text| sign(&[text]))
    }

    /// FINGERPRINT (RFC 8489, 14.7). Nothing may follow it.
    pub fn fingerprint(&mut self) -> &mut Self {
        self.covered(FINGERPRINT, |text| (crc32fast::hash(text) ^ FINGERPRINT_XOR).to_be_bytes())
    }

    /// The message's length in the buffer.
    ///
    /// # Errors
    /// Something did not fit; the buffer's content is to be thrown away.
    pub fn finish(&mut self) -> Result<usize, Overflow> {
        self.set_length(self.len);
        if self.overflow { Err(Overflow) } else { Ok(self.len) }
    }

    /// An attribute whose value is computed from all before it, with the header's length field
    /// already counting the attribute itself.
    fn covered<const N: usize>(&mut self, attribute: u16, value: impl FnOnce(&[u8]) -> [u8; N]) -> &mut Self {
        let end = self.len + 4 + N;
        if self.overflow || end > self.buffer.len() {
            self.overflow = true;
            return self;
        }
        self.set_length(end);
        let value = value(&self.buffer[..self.len]);
        self.bytes(attribute, &value)
    }

    fn parts(&mut self, attribute: u16, parts: &[&[u8]]) -> &mut Self {
        let start = self.open(attribute);
        for part in parts {
            self.append(part);
        }
        self.close(start)
    }

    /// Starts an attribute; the answer is where its value starts.
    fn open(&mut self, attribute: u16) -> usize {
        self.append(&attribute.to_be_bytes());
        self.append(&[0, 0]);
        self.len
    }

    /// Writes the length of the value that started at `start`, and its padding.
    fn close(&mut self, start: usize) -> &mut Self {
        let len = self.len - start;
        self.append(&[0; 3][..padding(len)]);
        match u16::try_from(len) {
            Ok(len) if !self.overflow => self.buffer[start - 2..start].copy_from_slice(&len.to_be_bytes()),
            _ => self.overflow = true,
        }
        self
    }

    fn append(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        match self.buffer.get_mut(self.len..end) {
            Some(room) if !self.overflow => {
                room.copy_from_slice(bytes);
                self.len = end;
            }
            _ => self.overflow = true,
        }
    }

    /// Sets the header's length field for a message that ends at `end`.
    fn set_length(&mut self, end: usize) {
        match end.checked_sub(HEADER_LEN).map(u16::try_from) {
            Some(Ok(len)) if !self.overflow => self.buffer[2..4].copy_from_slice(&len.to_be_bytes()),
            _ => self.overflow = true,
        }
    }
}

/// Hundreds and remainder of an error code.
fn error_bits(code: u16) -> [u8; 2] {
    [(code / 100) as u8, (code % 100) as u8]
}

/// Number and an empty list of parameters.
fn algorithm_bits(algorithm: PasswordAlgorithm) -> [u8; 4] {
    let [high, low] = algorithm.number().to_be_bytes();
    [high, low, 0, 0]
}
