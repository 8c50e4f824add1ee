//! What must not be read as a message, and what a message with a fault in it says.

use std::net::SocketAddr;

use sluice_base::limits::{ATTRIBUTES_MAX, UNKNOWN_ATTRIBUTES_MAX};
use sluice_wire::stun::{
    Builder, Class, Message, Method, Overflow, ParseError, PasswordAlgorithm, TransactionId, attribute,
    data_indication_header, data_indication_header_len,
};

const TRANSACTION: TransactionId = TransactionId(*b"abcdefghijkl");

#[test]
fn every_truncation_is_refused() {
    let bytes = allocate();
    for len in 0..bytes.len() {
        assert_eq!(Message::parse(&bytes[..len]).unwrap_err(), ParseError::Malformed, "{len}");
    }
    assert!(Message::parse(&bytes).is_ok());
}

#[test]
fn bytes_behind_a_message_are_refused() {
    for extra in [1, 2, 3, 4, 20] {
        let bytes = [allocate(), vec![0; extra]].concat();
        assert_eq!(Message::parse(&bytes).unwrap_err(), ParseError::Malformed, "{extra}");
    }
}

#[test]
fn a_length_that_is_no_multiple_of_four_is_refused() {
    let mut bytes = message(&[]);
    bytes.push(0);
    bytes[3] = 1;
    assert_eq!(Message::parse(&bytes).unwrap_err(), ParseError::Malformed);
}

#[test]
fn the_first_two_bits_and_the_cookie_count() {
    for (at, bit) in [(0, 0x40), (0, 0x80), (4, 0x01), (7, 0x80)] {
        let mut bytes = allocate();
        bytes[at] ^= bit;
        assert_eq!(Message::parse(&bytes).unwrap_err(), ParseError::Malformed, "{at} {bit}");
    }
}

#[test]
fn an_attribute_longer_than_the_message_is_refused() {
    for length in [5u16, 8, 0x7fff, 0xffff] {
        let mut bytes = message(&[(attribute::USERNAME, b"abcd")]);
        bytes[22..24].copy_from_slice(&length.to_be_bytes());
        assert_eq!(Message::parse(&bytes).unwrap_err(), ParseError::Malformed, "{length}");
    }
}

#[test]
fn attributes_are_counted() {
    let attributes = vec![(attribute::SOFTWARE, b"".as_slice()); ATTRIBUTES_MAX];
    assert!(Message::parse(&message(&attributes)).is_ok());
    let attributes = vec![(attribute::SOFTWARE, b"".as_slice()); ATTRIBUTES_MAX + 1];
    assert_eq!(Message::parse(&message(&attributes)).unwrap_err(), ParseError::TooManyAttributes);
}

#[test]
fn a_fingerprint_is_right_and_last() {
    let good = build(|builder| {
        builder.u32(attribute::LIFETIME, 600).fingerprint();
    });
    assert!(Message::parse(&good).unwrap().attributes.fingerprint);
    for at in 8..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        let unread = Message::parse(&bytes).map(|message| message.attributes.fingerprint);
        assert_ne!(unread, Ok(true), "{at}");
    }
    let not_last = build(|builder| {
        builder.fingerprint().u32(attribute::LIFETIME, 600);
    });
    assert_eq!(Message::parse(&not_last).unwrap_err(), ParseError::Fingerprint);
    let twice = build(|builder| {
        builder.fingerprint().fingerprint();
    });
    assert_eq!(Message::parse(&twice).unwrap_err(), ParseError::Fingerprint);
    for value in [b"".as_slice(), b"abc", b"abcdefgh"] {
        let bytes = message(&[(attribute::FINGERPRINT, value)]);
        assert_eq!(Message::parse(&bytes).unwrap_err(), ParseError::Fingerprint);
    }
}

#[test]
fn a_known_attribute_of_a_wrong_length_is_named() {
    let wrong: &[(u16, &[u8])] = &[
        (attribute::LIFETIME, b"abc"),
        (attribute::LIFETIME, b"abcde"),
        (attribute::REQUESTED_TRANSPORT, b"\x11"),
        (attribute::REQUESTED_ADDRESS_FAMILY, b""),
        (attribute::ADDITIONAL_ADDRESS_FAMILY, b"12345678"),
        (attribute::EVEN_PORT, b""),
        (attribute::EVEN_PORT, b"\x80\0\0\0"),
        (attribute::RESERVATION_TOKEN, b"1234567"),
        (attribute::DONT_FRAGMENT, b"\0"),
        (attribute::CHANNEL_NUMBER, b"\x40\0"),
        (attribute::USERHASH, b"not 32 bytes"),
        (attribute::XOR_PEER_ADDRESS, b"\0\x01\0\0"),
        (attribute::XOR_PEER_ADDRESS, b"\0\x02\0\0\0\0\0\0"),
        (attribute::XOR_PEER_ADDRESS, b"\0\x03\0\0\0\0\0\0"),
        (attribute::XOR_MAPPED_ADDRESS, b"\0\x01\0\0\0\0\0\0\0"),
        (attribute::PASSWORD_ALGORITHM, b"\0\x02"),
        (attribute::PASSWORD_ALGORITHM, b"\0\x02\0\x04abcd"),
        (attribute::PASSWORD_ALGORITHM, b"\0\x07\0\x08abcd"),
        (attribute::ERROR_CODE, b"\0\0\x02\0"),
        (attribute::ERROR_CODE, b"\0\0\x04\x64"),
        (attribute::ERROR_CODE, b"\0\0\x04\0\xff\xff"),
        (attribute::MESSAGE_INTEGRITY, b"only 19 bytes long."),
        (attribute::MESSAGE_INTEGRITY_SHA256, b"twelve bytes"),
        (attribute::MESSAGE_INTEGRITY_SHA256, b"seventeen bytes.."),
        (attribute::MESSAGE_INTEGRITY_SHA256, b"thirty-six bytes are four too many.."),
    ];
    for (kind, value) in wrong {
        let bytes = message(&[(attribute::NONCE, b"n"), (*kind, value), (attribute::EVEN_PORT, b"")]);
        let parsed = Message::parse(&bytes).unwrap();
        assert_eq!(parsed.attributes.malformed, Some(*kind), "{kind:#06x} {value:?}");
        assert_eq!(parsed.attributes.nonce, Some(b"n".as_slice()));
        assert_eq!(parsed.attributes.peer_count, 0);
    }
}

#[test]
fn of_duplicates_the_first_counts() {
    let bytes = message(&[
        (attribute::LIFETIME, &600u32.to_be_bytes()),
        (attribute::LIFETIME, &0u32.to_be_bytes()),
        (attribute::USERNAME, b"first"),
        (attribute::USERNAME, b"second"),
        (attribute::DATA, b"one"),
        (attribute::DATA, b"two"),
        (attribute::DONT_FRAGMENT, b""),
        (attribute::DONT_FRAGMENT, b"wrong"),
        (attribute::EVEN_PORT, b"\x80"),
        (attribute::EVEN_PORT, b"wrong"),
    ]);
    let parsed = Message::parse(&bytes).unwrap();
    assert_eq!(parsed.attributes.lifetime, Some(600));
    assert_eq!(parsed.attributes.username, Some(b"first".as_slice()));
    assert_eq!(parsed.data(), Some(b"one".as_slice()));
    assert!(parsed.attributes.dont_fragment && parsed.attributes.even_port == Some(true));
    assert_eq!(parsed.attributes.malformed, None);
}

#[test]
fn a_second_integrity_does_not_replace_the_first() {
    let bytes = message(&[
        (attribute::MESSAGE_INTEGRITY, &[1; 20]),
        (attribute::MESSAGE_INTEGRITY, &[2; 20]),
        (attribute::MESSAGE_INTEGRITY_SHA256, &[3; 32]),
        (attribute::MESSAGE_INTEGRITY_SHA256, &[4; 32]),
        (attribute::MESSAGE_INTEGRITY, &[5; 20]),
    ]);
    let parsed = Message::parse(&bytes).unwrap();
    assert_eq!(parsed.attributes.message_integrity.unwrap().tag, [1; 20]);
    let second = parsed.attributes.message_integrity_sha256.unwrap();
    assert_eq!(second.tag, [3; 32]);
    // The SHA-256 tag covers both MESSAGE-INTEGRITY attributes before it.
    let (header, rest) = parsed.integrity_input(&second);
    assert_eq!([&header, rest].concat().len(), 20 + 24 + 24);
    assert_eq!(u16::from_be_bytes([header[2], header[3]]), 24 + 24 + 36);
}

#[test]
fn what_follows_the_integrity_does_not_count() {
    for (kind, tag) in [(attribute::MESSAGE_INTEGRITY, 20), (attribute::MESSAGE_INTEGRITY_SHA256, 32)] {
        let bytes = build(|builder| {
            builder
                .xor_address(attribute::XOR_PEER_ADDRESS, address("192.0.2.1:1"))
                .bytes(kind, &[7; 32][..tag])
                .u32(attribute::LIFETIME, 600)
                .bytes(attribute::USERNAME, b"mallory")
                .xor_address(attribute::XOR_PEER_ADDRESS, address("192.0.2.2:2"))
                .bytes(0x7f00, b"")
                .bytes(attribute::EVEN_PORT, b"wrong length")
                .fingerprint();
        });
        let parsed = Message::parse(&bytes).unwrap();
        let attributes = &parsed.attributes;
        assert_eq!((attributes.lifetime, attributes.username), (None, None));
        assert_eq!((attributes.malformed, attributes.unknown_types()), (None, [].as_slice()));
        assert_eq!(parsed.peers().collect::<Vec<_>>(), [address("192.0.2.1:1")]);
        assert_eq!(attributes.peer_count, 1);
        assert!(attributes.fingerprint);
    }
}

#[test]
fn unknown_types_that_had_to_be_understood_are_listed_once() {
    let bytes = message(&[(0x7f01, b""), (0x0003, b"\0\0\0\0"), (0x7f01, b"x"), (0xff01, b"optional")]);
    assert_eq!(Message::parse(&bytes).unwrap().attributes.unknown_types(), [0x7f01, 0x0003]);

    let types: Vec<u16> = (0..20).map(|n| 0x7000 + n).collect();
    let attributes: Vec<(u16, &[u8])> = types.iter().map(|kind| (*kind, b"".as_slice())).collect();
    let bytes = message(&attributes);
    let parsed = Message::parse(&bytes).unwrap();
    assert_eq!(parsed.attributes.unknown_types(), &types[..UNKNOWN_ATTRIBUTES_MAX]);
}

#[test]
fn ice_attributes_are_known_in_binding_requests_alone() {
    let attributes: &[(u16, &[u8])] = &[(attribute::PRIORITY, b"\0\0\0\x01"), (attribute::USE_CANDIDATE, b"")];
    let of = |method| {
        let bytes = with_method(method, attributes);
        let parsed = Message::parse(&bytes).unwrap();
        parsed.attributes.unknown_types().to_vec()
    };
    assert_eq!(of(Method::BINDING), []);
    assert_eq!(of(Method::ALLOCATE), [attribute::PRIORITY, attribute::USE_CANDIDATE]);
}

#[test]
fn what_does_not_fit_is_said_at_the_end() {
    let needed = allocate().len();
    for len in 0..needed + 8 {
        let mut buffer = vec![0; len];
        let mut builder = Builder::new(&mut buffer, Class::Request, Method::ALLOCATE, TRANSACTION);
        fill(&mut builder);
        let expected = if len < needed { Err(Overflow) } else { Ok(needed) };
        assert_eq!(builder.finish(), expected, "{len}");
    }
    let mut buffer = vec![0; 70_000];
    let mut builder = Builder::new(&mut buffer, Class::Indication, Method::DATA, TRANSACTION);
    assert_eq!(builder.bytes(attribute::DATA, &[0; 65_530]).finish(), Err(Overflow));
    let mut builder = Builder::new(&mut buffer, Class::Indication, Method::DATA, TRANSACTION);
    assert_eq!(builder.bytes(attribute::DATA, &[0; 65_536]).finish(), Err(Overflow));
}

#[test]
fn a_data_indication_that_does_not_fit_is_refused() {
    for peer in ["192.0.2.1:1", "[2001:db8::1]:1"] {
        let peer = address(peer);
        let len = data_indication_header_len(sluice_base::Family::of(peer.ip()));
        let mut front = vec![0; len];
        assert_eq!(data_indication_header(&mut front[1..], peer, 1, TRANSACTION), Err(Overflow));
        assert_eq!(data_indication_header(&mut front, peer, 65_535, TRANSACTION), Err(Overflow));
        assert_eq!(data_indication_header(&mut front, peer, usize::MAX, TRANSACTION), Err(Overflow));
        assert_eq!(front, vec![0; len]);
    }
}

#[test]
fn nothing_personal_is_printed() {
    let bytes = allocate();
    let parsed = Message::parse(&bytes).unwrap();
    let shown = format!("{parsed:?} {:?}", parsed.attributes);
    assert_eq!(shown, "Message { class: Request, method: Method(3), .. } Attributes { .. }");
}

/// An Allocate with some of everything.
fn allocate() -> Vec<u8> {
    let mut buffer = [0; 512];
    let mut builder = Builder::new(&mut buffer, Class::Request, Method::ALLOCATE, TRANSACTION);
    fill(&mut builder);
    let len = builder.finish().unwrap();
    buffer[..len].to_vec()
}

fn fill(builder: &mut Builder<'_>) {
    builder
        .u32(attribute::REQUESTED_TRANSPORT, 17 << 24)
        .bytes(attribute::USERNAME, b"1700000000:alice")
        .bytes(attribute::REALM, b"example.org")
        .unknown_attributes(&[1, 2, 3])
        .error(401, "Unauthorized")
        .address_error(2, 440, "Address Family not Supported")
        .password_algorithms(&[PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5])
        .xor_address(attribute::XOR_RELAYED_ADDRESS, address("[2001:db8::7]:50000"))
        .integrity_sha1(|_| [1; 20])
        .integrity_sha256(|_| [2; 32])
        .fingerprint();
}

fn message(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    with_method(Method::ALLOCATE, attributes)
}

fn with_method(method: Method, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut buffer = [0; 1500];
    let mut builder = Builder::new(&mut buffer, Class::Request, method, TRANSACTION);
    for (kind, value) in attributes {
        builder.bytes(*kind, value);
    }
    let len = builder.finish().unwrap();
    buffer[..len].to_vec()
}

fn build(fill: impl FnOnce(&mut Builder<'_>)) -> Vec<u8> {
    let mut buffer = [0; 512];
    let mut builder = Builder::new(&mut buffer, Class::Request, Method::ALLOCATE, TRANSACTION);
    fill(&mut builder);
    let len = builder.finish().unwrap();
    buffer[..len].to_vec()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
