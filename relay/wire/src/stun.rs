//! STUN messages as TURN uses them: [`Message::parse`] reads one in place, [`Builder`] writes one.

pub mod attribute;
mod builder;
mod indication;
mod message;
mod xor;

pub use builder::{Builder, Overflow};
pub use indication::{data_indication_header, data_indication_header_len};
pub use message::{Attributes, Integrity, Message, ParseError, XorAddresses};

use sluice_base::Family;

/// Bytes of a STUN header (RFC 8489, 5).
pub const HEADER_LEN: usize = 20;

/// The fixed second word of every header (RFC 8489, 5).
pub const MAGIC_COOKIE: u32 = 0x2112_a442;

/// What FINGERPRINT's CRC-32 is combined with (RFC 8489, 14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554e;

/// What a datagram is, by its first byte (RFC 7983, 7; RFC 8656, 12).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// 0 to 3.
    Stun,
    /// 64 to 127: all that RFC 5766, 11 gives to channels.
    ChannelData,
    /// Neither: DTLS, RTP, QUIC or noise.
    Other,
}

/// What a datagram with this first byte is.
#[inline]
pub const fn classify(first_byte: u8) -> Kind {
    match first_byte {
        0..=3 => Kind::Stun,
        64..=127 => Kind::ChannelData,
        _ => Kind::Other,
    }
}

/// The class of a message (RFC 8489, 5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// Asks for a response.
    Request,
    /// Asks for none.
    Indication,
    /// A request succeeded.
    Success,
    /// A request failed.
    Error,
}

/// The method of a message: 12 bits (RFC 8489, 18.2; RFC 8656, 17).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Method(pub u16);

impl Method {
    /// Binding (RFC 8489, 3).
    pub const BINDING: Method = Method(1);
    /// Allocate (RFC 8656, 7).
    pub const ALLOCATE: Method = Method(3);
    /// Refresh (RFC 8656, 8).
    pub const REFRESH: Method = Method(4);
    /// Send, an indication (RFC 8656, 11).
    pub const SEND: Method = Method(6);
    /// Data, an indication (RFC 8656, 11).
    pub const DATA: Method = Method(7);
    /// CreatePermission (RFC 8656, 10).
    pub const CREATE_PERMISSION: Method = Method(8);
    /// ChannelBind (RFC 8656, 12).
    pub const CHANNEL_BIND: Method = Method(9);
}

/// Joins a request and its responses (RFC 8489, 5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TransactionId(pub [u8; 12]);

/// A way to derive the long-term key (RFC 8489, 18.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PasswordAlgorithm {
    /// 1: MD5, no parameters.
    Md5,
    /// 2: SHA-256, no parameters.
    Sha256,
    /// Any other, by its number.
    Other(u16),
}

impl PasswordAlgorithm {
    /// Its number in IANA's registry.
    pub const fn number(self) -> u16 {
        match self {
            PasswordAlgorithm::Md5 => 1,
            PasswordAlgorithm::Sha256 => 2,
            PasswordAlgorithm::Other(number) => number,
        }
    }
}

/// The number of a family in attributes (RFC 8489, 14.1; RFC 8656, 18.6).
pub const fn family_code(family: Family) -> u8 {
    match family {
        Family::V4 => 1,
        Family::V6 => 2,
    }
}

/// The family of a number in attributes; `None` for numbers that no RFC defines.
pub const fn family_of_code(code: u8) -> Option<Family> {
    match code {
        1 => Some(Family::V4),
        2 => Some(Family::V6),
        _ => None,
    }
}

/// Class and method woven into the first 16 bits (RFC 8489, 5, figure 3).
const fn type_bits(class: Class, method: Method) -> u16 {
    let m = method.0;
    let class = match class {
        Class::Request => 0x000,
        Class::Indication => 0x010,
        Class::Success => 0x100,
        Class::Error => 0x110,
    };
    (m & 0x000f) | ((m & 0x0070) << 1) | ((m & 0x0f80) << 2) | class
}

/// The reverse of [`type_bits`]; the first two bits must be zero.
const fn class_and_method(bits: u16) -> (Class, Method) {
    let class = match bits & 0x110 {
        0x000 => Class::Request,
        0x010 => Class::Indication,
        0x100 => Class::Success,
        _ => Class::Error,
    };
    (class, Method((bits & 0x000f) | ((bits & 0x00e0) >> 1) | ((bits & 0x3e00) >> 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_tells_protocols_apart() {
        for byte in 0..=255u8 {
            let expected = match byte {
                0..=3 => Kind::Stun,
                0x40..=0x7f => Kind::ChannelData,
                _ => Kind::Other,
            };
            assert_eq!(classify(byte), expected, "{byte}");
        }
    }

    #[test]
    fn every_class_and_method_survives_the_weave() {
        for number in 0..0x1000 {
            for class in [Class::Request, Class::Indication, Class::Success, Class::Error] {
                let bits = type_bits(class, Method(number));
                assert_eq!(bits & 0xc000, 0);
                assert_eq!(class_and_method(bits), (class, Method(number)));
            }
        }
        assert_eq!(type_bits(Class::Request, Method::BINDING), 0x0001);
        assert_eq!(type_bits(Class::Success, Method::ALLOCATE), 0x0103);
        assert_eq!(type_bits(Class::Error, Method::CHANNEL_BIND), 0x0119);
        assert_eq!(type_bits(Class::Indication, Method::DATA), 0x0017);
    }

    #[test]
    fn families_have_the_numbers_of_the_rfc() {
        assert_eq!((family_code(Family::V4), family_code(Family::V6)), (1, 2));
        for code in 0..=255 {
            assert_eq!(family_of_code(code).map(family_code), [1, 2].contains(&code).then_some(code));
        }
    }
}
