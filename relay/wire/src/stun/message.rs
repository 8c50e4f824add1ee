//! Reads a message where it lies.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;

use sluice_base::limits;

use super::attribute::{self, comprehension_required};
use super::{
    Class, FINGERPRINT_XOR, HEADER_LEN, MAGIC_COOKIE, Method, PasswordAlgorithm, TransactionId, class_and_method, xor,
};
use crate::padding;

/// Why bytes are no STUN message. There is nobody to answer: the datagram is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseError {
    /// Header, length or an attribute's length are wrong.
    #[error("not a well-formed STUN message")]
    Malformed,
    /// More than [`ATTRIBUTES_MAX`](limits::ATTRIBUTES_MAX) attributes.
    #[error("more attributes than any sensible message has")]
    TooManyAttributes,
    /// FINGERPRINT does not match, or is not last (RFC 8489, 14.7).
    #[error("FINGERPRINT does not match or is not the last attribute")]
    Fingerprint,
}

/// A message, read in place: one pass, no allocation.
pub struct Message<'a> {
    /// Request, indication or response.
    pub class: Class,
    /// What it is about.
    pub method: Method,
    /// Which exchange it belongs to.
    pub transaction: TransactionId,
    /// What it carries.
    pub attributes: Attributes<'a>,
    bytes: &'a [u8],
}

/// A MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256 attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Integrity<'a> {
    /// The tag: 20 bytes, or for SHA-256 16 to 32.
    pub tag: &'a [u8],
    /// Where the attribute starts in the message.
    offset: usize,
}

/// The attributes of a message that this crate knows. Of duplicates the first counts (RFC 8489, 14),
/// what follows the integrity attributes does not count (RFC 8489, 14.5 and 14.6).
#[derive(Clone, Default)]
pub struct Attributes<'a> {
    /// USERNAME.
    pub username: Option<&'a [u8]>,
    /// USERHASH.
    pub userhash: Option<&'a [u8; 32]>,
    /// REALM.
    pub realm: Option<&'a [u8]>,
    /// NONCE.
    pub nonce: Option<&'a [u8]>,
    /// MESSAGE-INTEGRITY, not yet verified.
    pub message_integrity: Option<Integrity<'a>>,
    /// MESSAGE-INTEGRITY-SHA256, not yet verified.
    pub message_integrity_sha256: Option<Integrity<'a>>,
    /// FINGERPRINT is there; it was verified.
    pub fingerprint: bool,
    /// LIFETIME, in seconds.
    pub lifetime: Option<u32>,
    /// REQUESTED-TRANSPORT: an IP protocol number.
    pub requested_transport: Option<u8>,
    /// REQUESTED-ADDRESS-FAMILY, by its code.
    pub requested_family: Option<u8>,
    /// ADDITIONAL-ADDRESS-FAMILY, by its code.
    pub additional_family: Option<u8>,
    /// EVEN-PORT, and whether the next port is to be reserved (R).
    pub even_port: Option<bool>,
    /// RESERVATION-TOKEN.
    pub reservation_token: Option<[u8; 8]>,
    /// DONT-FRAGMENT.
    pub dont_fragment: bool,
    /// CHANNEL-NUMBER, of any value.
    pub channel_number: Option<u16>,
    /// Where the value of DATA lies in the message, so that a slot can be narrowed to it.
    pub data: Option<Range<usize>>,
    /// PASSWORD-ALGORITHM.
    pub password_algorithm: Option<PasswordAlgorithm>,
    /// PASSWORD-ALGORITHMS as it was sent, to be compared with what was offered.
    pub password_algorithms: Option<&'a [u8]>,
    /// ERROR-CODE and its reason.
    pub error_code: Option<(u16, &'a str)>,
    /// ADDRESS-ERROR-CODE: a family's code, an error code and its reason.
    pub address_error: Option<(u8, u16, &'a str)>,
    /// UNKNOWN-ATTRIBUTES: types of two bytes each.
    pub unknown_attributes: Option<&'a [u8]>,
    /// XOR-MAPPED-ADDRESS.
    pub xor_mapped: Option<SocketAddr>,
    /// The first XOR-RELAYED-ADDRESS.
    pub xor_relayed: Option<SocketAddr>,
    /// Well-formed XOR-PEER-ADDRESS attributes; [`Message::peers`] goes through them.
    pub peer_count: usize,
    /// Types that had to be understood and are not known, without duplicates, and how many they
    /// are; at most [`UNKNOWN_ATTRIBUTES_MAX`](limits::UNKNOWN_ATTRIBUTES_MAX) are kept.
    pub unknown: ([u16; limits::UNKNOWN_ATTRIBUTES_MAX], usize),
    /// The first known attribute whose length or value is wrong; the answer is 400.
    pub malformed: Option<u16>,
    /// Where the attributes end that count.
    end: usize,
}

impl<'a> Message<'a> {
    /// Reads the message that `bytes` are, from first to last.
    ///
    /// # Errors
    /// [`ParseError`]: the datagram is to be dropped. A known attribute with a wrong value is none:
    /// it stands in [`Attributes::malformed`].
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (header, body) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(ParseError::Malformed)?;
        let [t0, t1, l0, l1, c0, c1, c2, c3, transaction @ ..] = *header;
        let first = u16::from_be_bytes([t0, t1]);
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let cookie = u32::from_be_bytes([c0, c1, c2, c3]);
        if first & 0xc000 != 0 || cookie != MAGIC_COOKIE || length != body.len() || length % 4 != 0 {
            return Err(ParseError::Malformed);
        }
        let (class, method) = class_and_method(first);
        let transaction = TransactionId(transaction);
        let mut message = Message { class, method, transaction, attributes: Attributes::default(), bytes };
        message.read_attributes()?;
        Ok(message)
    }

    /// The bytes that were read.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The value of DATA.
    pub fn data(&self) -> Option<&'a [u8]> {
        self.attributes.data.clone().map(|range| &self.bytes[range])
    }

    /// Every well-formed XOR-PEER-ADDRESS, in order.
    pub fn peers(&self) -> XorAddresses<'a> {
        self.addresses(attribute::XOR_PEER_ADDRESS)
    }

    /// Every well-formed XOR-RELAYED-ADDRESS, in order: two after a dual allocation (RFC 8656, 7.3).
    pub fn relayed(&self) -> XorAddresses<'a> {
        self.addresses(attribute::XOR_RELAYED_ADDRESS)
    }

    /// What one of this message's integrity attributes covers, in two parts: the first four bytes with the length field
    /// as if the message ended with the attribute, and the rest (RFC 8489, 14.5 and 14.6).
    pub fn integrity_input(&self, integrity: &Integrity<'_>) -> ([u8; 4], &'a [u8]) {
        let length = integrity.offset + 4 + integrity.tag.len() - HEADER_LEN;
        let [high, low] = (length as u16).to_be_bytes();
        ([self.bytes[0], self.bytes[1], high, low], &self.bytes[4..integrity.offset])
    }

    fn addresses(&self, wanted: u16) -> XorAddresses<'a> {
        XorAddresses { tlvs: Tlvs::new(&self.bytes[..self.attributes.end]), transaction: self.transaction, wanted }
    }

    fn read_attributes(&mut self) -> Result<(), ParseError> {
        let mut tlvs = Tlvs::new(self.bytes);
        let mut count = 0;
        let attributes = &mut self.attributes;
        attributes.end = self.bytes.len();
        while let Some(tlv) = tlvs.next()? {
            count += 1;
            if count > limits::ATTRIBUTES_MAX {
                return Err(ParseError::TooManyAttributes);
            }
            if attributes.fingerprint {
                return Err(ParseError::Fingerprint);
            }
            if tlv.kind == attribute::FINGERPRINT {
                attributes.fingerprint = fingerprint_matches(self.bytes, &tlv);
                if !attributes.fingerprint {
                    return Err(ParseError::Fingerprint);
                }
                continue;
            }
            attributes.read(&tlv, self.method, self.transaction);
        }
        Ok(())
    }
}

impl fmt::Debug for Message<'_> {
    /// Shows nothing of the attributes: addresses and user names are personal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("class", &self.class).field("method", &self.method).finish_non_exhaustive()
    }
}

impl<'a> Attributes<'a> {
    /// The unknown types that are kept.
    pub fn unknown_types(&self) -> &[u16] {
        &self.unknown.0[..self.unknown.1]
    }

    /// No integrity attribute has been read yet, so that everything counts.
    const fn open(&self) -> bool {
        self.message_integrity.is_none() && self.message_integrity_sha256.is_none()
    }

    fn read(&mut self, tlv: &Tlv<'a>, method: Method, transaction: TransactionId) {
        let well_formed = match tlv.kind {
            attribute::MESSAGE_INTEGRITY if self.open() => self.integrity(tlv),
            attribute::MESSAGE_INTEGRITY_SHA256 if self.message_integrity_sha256.is_none() => {
                self.integrity_sha256(tlv)
            }
            _ if !self.open() => true,
            _ => self.value(tlv, method, transaction),
        };
        if !well_formed && self.malformed.is_none() {
            self.malformed = Some(tlv.kind);
        }
    }

    fn integrity(&mut self, tlv: &Tlv<'a>) -> bool {
        self.end = self.end.min(tlv.at);
        self.message_integrity = Some(Integrity { tag: tlv.value, offset: tlv.at });
        tlv.value.len() == 20
    }

    fn integrity_sha256(&mut self, tlv: &Tlv<'a>) -> bool {
        self.end = self.end.min(tlv.at);
        self.message_integrity_sha256 = Some(Integrity { tag: tlv.value, offset: tlv.at });
        matches!(tlv.value.len(), 16 | 20 | 24 | 28 | 32)
    }

    /// Reads any attribute but the integrity ones and FINGERPRINT; `false` if its value is wrong.
    fn value(&mut self, tlv: &Tlv<'a>, method: Method, transaction: TransactionId) -> bool {
        let value = tlv.value;
        match tlv.kind {
            attribute::USERNAME => set(&mut self.username, Some(value)),
            attribute::USERHASH => set(&mut self.userhash, value.try_into().ok()),
            attribute::REALM => set(&mut self.realm, Some(value)),
            attribute::NONCE => set(&mut self.nonce, Some(value)),
            attribute::LIFETIME => set(&mut self.lifetime, word(value).map(u32::from_be_bytes)),
            attribute::REQUESTED_TRANSPORT => set(&mut self.requested_transport, word(value).map(|word| word[0])),
            attribute::REQUESTED_ADDRESS_FAMILY => set(&mut self.requested_family, word(value).map(|word| word[0])),
            attribute::ADDITIONAL_ADDRESS_FAMILY | attribute::ADDITIONAL_ADDRESS_FAMILY_OF_COTURN => {
                set(&mut self.additional_family, word(value).map(|word| word[0]))
            }
            attribute::CHANNEL_NUMBER => {
                set(&mut self.channel_number, word(value).map(|word| u16::from_be_bytes([word[0], word[1]])))
            }
            attribute::EVEN_PORT => set(&mut self.even_port, even_port(value)),
            attribute::RESERVATION_TOKEN => set(&mut self.reservation_token, value.try_into().ok()),
            attribute::DONT_FRAGMENT => {
                let first = !std::mem::replace(&mut self.dont_fragment, true);
                !first || value.is_empty()
            }
            attribute::DATA => set(&mut self.data, Some(tlv.at + 4..tlv.at + 4 + value.len())),
            attribute::PASSWORD_ALGORITHM => set(&mut self.password_algorithm, password_algorithm(value)),
            attribute::PASSWORD_ALGORITHMS => set(&mut self.password_algorithms, Some(value)),
            attribute::ERROR_CODE => set(&mut self.error_code, error_code(value).map(|(_, code, text)| (code, text))),
            attribute::ADDRESS_ERROR_CODE => set(&mut self.address_error, error_code(value)),
            attribute::UNKNOWN_ATTRIBUTES => set(&mut self.unknown_attributes, Some(value)),
            attribute::XOR_MAPPED_ADDRESS => set(&mut self.xor_mapped, xor::decode(value, transaction)),
            attribute::XOR_RELAYED_ADDRESS => set(&mut self.xor_relayed, xor::decode(value, transaction)),
            attribute::XOR_PEER_ADDRESS => {
                let well_formed = xor::decode(value, transaction).is_some();
                self.peer_count += usize::from(well_formed);
                well_formed
            }
            attribute::MAPPED_ADDRESS => true,
            // Connectivity checks of ICE agents are Binding requests (RFC 8445, 7.1).
            attribute::PRIORITY | attribute::USE_CANDIDATE if method == Method::BINDING => true,
            unknown => {
                self.unknown(unknown);
                true
            }
        }
    }

    fn unknown(&mut self, kind: u16) {
        let (types, count) = &mut self.unknown;
        if comprehension_required(kind) && *count < types.len() && !types[..*count].contains(&kind) {
            types[*count] = kind;
            *count += 1;
        }
    }
}

impl fmt::Debug for Attributes<'_> {
    /// Shows nothing: addresses and user names are personal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attributes").finish_non_exhaustive()
    }
}

/// The addresses of one type of attribute, in order.
#[derive(Clone)]
pub struct XorAddresses<'a> {
    tlvs: Tlvs<'a>,
    transaction: TransactionId,
    wanted: u16,
}

impl Iterator for XorAddresses<'_> {
    type Item = SocketAddr;

    fn next(&mut self) -> Option<SocketAddr> {
        while let Ok(Some(tlv)) = self.tlvs.next() {
            if tlv.kind == self.wanted
                && let Some(address) = xor::decode(tlv.value, self.transaction)
            {
                return Some(address);
            }
        }
        None
    }
}

/// One attribute: type, value, and where it starts in the message.
struct Tlv<'a> {
    kind: u16,
    value: &'a [u8],
    at: usize,
}

/// Goes through the attributes of a message (RFC 8489, 14).
#[derive(Clone)]
struct Tlvs<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Tlvs<'a> {
    /// `bytes` are a message from its header on, their length a multiple of four.
    const fn new(bytes: &'a [u8]) -> Self {
        Tlvs { bytes, at: HEADER_LEN }
    }

    fn next(&mut self) -> Result<Option<Tlv<'a>>, ParseError> {
        let at = self.at;
        let Some((&[k0, k1, l0, l1], rest)) = self.bytes[at..].split_first_chunk::<4>() else {
            return Ok(None);
        };
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let value = rest.get(..len).ok_or(ParseError::Malformed)?;
        // Everything is a multiple of four, so that padding ends where the message ends at the latest.
        self.at = at + 4 + len + padding(len);
        Ok(Some(Tlv { kind: u16::from_be_bytes([k0, k1]), value, at }))
    }
}

/// Stores the first of a kind; `false` if it could not be read. Later ones are ignored, wrong or not.
fn set<T>(field: &mut Option<T>, value: Option<T>) -> bool {
    if field.is_some() {
        return true;
    }
    *field = value;
    field.is_some()
}

fn word(value: &[u8]) -> Option<[u8; 4]> {
    value.try_into().ok()
}

/// The R bit (RFC 8656, 18.7). RFC 5766, 14.6 has the same single byte.
fn even_port(value: &[u8]) -> Option<bool> {
    match value {
        [bits] => Some(bits & 0x80 != 0),
        _ => None,
    }
}

/// RFC 8489, 14.12; both algorithms that are defined have no parameters (18.5.1).
fn password_algorithm(value: &[u8]) -> Option<PasswordAlgorithm> {
    let (&[n0, n1, l0, l1], parameters) = value.split_first_chunk::<4>()?;
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    if parameters.len() != len && parameters.len() != len + padding(len) {
        return None;
    }
    match u16::from_be_bytes([n0, n1]) {
        1 if len == 0 => Some(PasswordAlgorithm::Md5),
        2 if len == 0 => Some(PasswordAlgorithm::Sha256),
        1 | 2 => None,
        other => Some(PasswordAlgorithm::Other(other)),
    }
}

/// First byte, code and reason (RFC 8489, 14.8; RFC 8656, 18.12, where the first byte is a family).
fn error_code(value: &[u8]) -> Option<(u8, u16, &str)> {
    let (&[first, _, class, number], reason) = value.split_first_chunk::<4>()?;
    let class = class & 7;
    if !(3..=6).contains(&class) || number > 99 {
        return None;
    }
    Some((first, u16::from(class) * 100 + u16::from(number), std::str::from_utf8(reason).ok()?))
}

/// RFC 8489, 14.7: the CRC of all before it, the header's length field counting it. Whether it is the
/// last attribute shows when another follows.
fn fingerprint_matches(bytes: &[u8], tlv: &Tlv<'_>) -> bool {
    word(tlv.value).is_some_and(|value| {
        let expected = u32::from_be_bytes(value) ^ FINGERPRINT_XOR;
        tlv.at + 8 == bytes.len() && crc32fast::hash(&bytes[..tlv.at]) == expected
    })
}
