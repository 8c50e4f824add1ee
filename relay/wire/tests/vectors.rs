//! The test vectors of RFC 5769, and of RFC 8489, appendix B.1 as its erratum 6268 corrects it. Every
//! message is read, and written again to the same bytes; of the tags it is checked what they cover
//! (that they are right is a test of the crate that computes them).

use std::net::SocketAddr;

use sluice_wire::stun::{Builder, Class, Message, Method, PasswordAlgorithm, TransactionId, attribute};

/// RFC 5769, 2.1.
const REQUEST: &str = "00010058 2112a442 b7e7a701bc34d686fa87dfae
    80220010 5354554e207465737420636c69656e74
    00240004 6e0001ff
    80290008 932ff9b151263b36
    00060009 6576746a3a68367659 202020
    00080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2
    80280004 e57a3bcf";

/// RFC 5769, 2.2.
const RESPONSE_V4: &str = "0101003c 2112a442 b7e7a701bc34d686fa87dfae
    8022000b 7465737420766563746f72 20
    00200008 0001a147 e112a643
    00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7
    80280004 c07d4c96";

/// RFC 5769, 2.3.
const RESPONSE_V6: &str = "01010048 2112a442 b7e7a701bc34d686fa87dfae
    8022000b 7465737420766563746f72 20
    00200014 0002a147 0113a9faa5d3f179bc25f4b5bed2b9d9
    00080014 a382954e4be67bf11784c97c8292c275bfe3ed41
    80280004 c8fb0b4c";

/// RFC 5769, 2.4.
const LONG_TERM: &str = "00010060 2112a442 78ad3433c6ad72c029da412e
    00060012 e3839ee38388e383aae38383e382afe382b9 0000
    0015001c 662f2f3439396b39353464364f4c33346f4c39465354767936347341
    0014000b 6578616d706c652e6f7267 00
    00080014 f67024656dd64a3e02b8e0712e85c9a28ca89666";

/// RFC 8489, B.1, erratum 6268.
const SHA256: &str = "00010090 2112a442 78ad3433c6ad72c029da412e
    001e0020 4a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704
    00150029 6f624d61744a6f733241414143662f2f3439396b3935346436 4f4c33346f4c39465354767936347341 000000
    0014000b 6578616d706c652e6f7267 00
    001d0004 00020000
    001c0020 b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6518e65";

const ICE_TRANSACTION: TransactionId = TransactionId(*b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae");
const LONG_TERM_TRANSACTION: TransactionId = TransactionId(*b"\x78\xad\x34\x33\xc6\xad\x72\xc0\x29\xda\x41\x2e");

#[test]
fn a_request_of_an_ice_agent() {
    let bytes = bytes(REQUEST);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.class, message.method), (Class::Request, Method::BINDING));
    assert_eq!(message.transaction, ICE_TRANSACTION);
    assert_eq!(message.attributes.username, Some(b"evtj:h6vY".as_slice()));
    assert!(message.attributes.fingerprint);
    assert_eq!(message.attributes.unknown_types(), []);
    assert_eq!(message.attributes.malformed, None);
    let covered = check_integrity(&message, 0x50);

    // The RFC pads with spaces where this crate pads with zeros: they are written as part of the name.
    let written = build(Class::Request, ICE_TRANSACTION, |builder| {
        builder
            .bytes(attribute::SOFTWARE, b"STUN test client")
            .u32(attribute::PRIORITY, 0x6e00_01ff)
            .bytes(attribute::ICE_CONTROLLED, b"\x93\x2f\xf9\xb1\x51\x26\x3b\x36")
            .bytes(attribute::USERNAME, b"evtj:h6vY   ");
    });
    assert_eq!(written[4..60], covered[4..60]);
    assert_eq!(written[64..], covered[64..]);
}

#[test]
fn a_response_with_an_ipv4_address() {
    let bytes = bytes(RESPONSE_V4);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.class, message.method), (Class::Success, Method::BINDING));
    assert_eq!(message.attributes.xor_mapped, Some(address("192.0.2.1:32853")));
    check_response(&message, 0x34, "192.0.2.1:32853");
}

#[test]
fn a_response_with_an_ipv6_address() {
    let bytes = bytes(RESPONSE_V6);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.attributes.xor_mapped, Some(address("[2001:db8:1234:5678:11:2233:4455:6677]:32853")));
    check_response(&message, 0x40, "[2001:db8:1234:5678:11:2233:4455:6677]:32853");
}

#[test]
fn a_request_with_long_term_credentials() {
    let bytes = bytes(LONG_TERM);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.attributes.username, Some("マトリックス".as_bytes()));
    assert_eq!(message.attributes.nonce, Some(b"f//499k954d6OL34oL9FSTvy64sA".as_slice()));
    assert_eq!(message.attributes.realm, Some(b"example.org".as_slice()));
    assert!(!message.attributes.fingerprint);
    let covered = check_integrity(&message, 0x60);
    let tag = *b"\xf6\x70\x24\x65\x6d\xd6\x4a\x3e\x02\xb8\xe0\x71\x2e\x85\xc9\xa2\x8c\xa8\x96\x66";
    let written = build(Class::Request, LONG_TERM_TRANSACTION, |builder| {
        builder
            .bytes(attribute::USERNAME, "マトリックス".as_bytes())
            .bytes(attribute::NONCE, b"f//499k954d6OL34oL9FSTvy64sA")
            .bytes(attribute::REALM, b"example.org")
            .integrity_sha1(|parts| {
                assert_eq!(parts.concat(), covered);
                tag
            });
    });
    assert_eq!(written, bytes);
}

#[test]
fn a_request_with_userhash_and_sha256() {
    let bytes = bytes(SHA256);
    let message = Message::parse(&bytes).unwrap();
    let attributes = &message.attributes;
    assert_eq!(attributes.userhash.map(|hash| hash[..4].to_vec()), Some(vec![0x4a, 0x3c, 0xf3, 0x8f]));
    assert_eq!(attributes.nonce, Some(b"obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA".as_slice()));
    assert_eq!(attributes.password_algorithm, Some(PasswordAlgorithm::Sha256));
    assert_eq!(attributes.message_integrity, None);
    let integrity = attributes.message_integrity_sha256.unwrap();
    let (header, rest) = message.integrity_input(&integrity);
    let covered = [&header, rest].concat();
    assert_eq!(covered, bytes[..bytes.len() - 36]);
    let tag = integrity.tag.try_into().unwrap();
    let written = build(Class::Request, LONG_TERM_TRANSACTION, |builder| {
        builder
            .bytes(attribute::USERHASH, attributes.userhash.unwrap())
            .bytes(attribute::NONCE, attributes.nonce.unwrap())
            .bytes(attribute::REALM, b"example.org")
            .password_algorithm(PasswordAlgorithm::Sha256)
            .integrity_sha256(|parts| {
                assert_eq!(parts.concat(), covered);
                tag
            });
    });
    assert_eq!(written, bytes);
}

/// Builds the response of RFC 5769, 2.2 or 2.3 up to its integrity, and compares.
fn check_response(message: &Message<'_>, length: u8, mapped: &str) {
    let covered = check_integrity(message, length);
    // The RFC pads with a space where this crate pads with zero: it is written as part of the name.
    let mut written = build(Class::Success, ICE_TRANSACTION, |builder| {
        builder.bytes(attribute::SOFTWARE, b"test vector ").xor_address(attribute::XOR_MAPPED_ADDRESS, address(mapped));
    });
    written[3] = length;
    written[23] = 11;
    assert_eq!(written, covered);
}

/// What MESSAGE-INTEGRITY covers: all before it, the header's length ending with it.
fn check_integrity(message: &Message<'_>, length: u8) -> Vec<u8> {
    let integrity = message.attributes.message_integrity.unwrap();
    assert_eq!(integrity.tag.len(), 20);
    let (header, rest) = message.integrity_input(&integrity);
    let covered = [&header, rest].concat();
    let mut expected = message.bytes()[..usize::from(length) + 20 - 24].to_vec();
    expected[3] = length;
    assert_eq!(covered, expected);
    covered
}

fn build(class: Class, transaction: TransactionId, fill: impl FnOnce(&mut Builder<'_>)) -> Vec<u8> {
    let mut buffer = [0; 256];
    let mut builder = Builder::new(&mut buffer, class, Method::BINDING, transaction);
    fill(&mut builder);
    let len = builder.finish().unwrap();
    buffer[..len].to_vec()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
