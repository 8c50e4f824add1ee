//! What must hold for any bytes at all. The fuzz targets call these, and a test replays the corpora.

use sluice_base::limits::STUN_BYTES_MAX;

use crate::channel_data;
use crate::rtp::{self, Packet};
use crate::stun::{self, Builder, Message, attribute};

/// Reads `bytes` as STUN and checks what a reader of the message relies on: ranges lie inside,
/// counts agree, and what is written again from the view reads the same.
///
/// # Panics
/// When an invariant of this crate is broken.
pub fn stun(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else {
        return;
    };
    assert_ne!(stun::classify(bytes[0]), stun::Kind::ChannelData);
    let attributes = &message.attributes;
    if let Some(range) = &attributes.data {
        assert!(range.start >= stun::HEADER_LEN + 4 && range.end <= bytes.len());
    }
    for integrity in [attributes.message_integrity, attributes.message_integrity_sha256].into_iter().flatten() {
        let (header, rest) = message.integrity_input(&integrity);
        let covered = usize::from(u16::from_be_bytes([header[2], header[3]])) + stun::HEADER_LEN;
        assert!(covered <= bytes.len() && 4 + rest.len() + 4 + integrity.tag.len() == covered);
    }
    assert_eq!(message.peers().count(), attributes.peer_count);
    assert!(attributes.unknown_types().iter().all(|kind| attribute::comprehension_required(*kind)));
    if bytes.len() <= STUN_BYTES_MAX {
        rebuild(&message);
    }
}

/// Reads `bytes` as ChannelData.
///
/// # Panics
/// When an invariant of this crate is broken.
pub fn channel_data(bytes: &[u8]) {
    let Ok((number, len)) = channel_data::parse(bytes) else {
        return;
    };
    assert_eq!(stun::classify(bytes[0]), stun::Kind::ChannelData);
    assert!(channel_data::HEADER_LEN + len <= bytes.len());
    let mut header = [0; channel_data::HEADER_LEN];
    channel_data::write_header(&mut header, number, len as u16);
    assert_eq!(header, bytes[..channel_data::HEADER_LEN]);
}

/// Reads `bytes` as RTP or RTCP: what the views show lies inside, and is no other protocol's.
///
/// # Panics
/// When an invariant of this crate is broken.
pub fn rtp(bytes: &[u8]) {
    let Some(packet) = rtp::parse(bytes) else {
        return;
    };
    assert_eq!(stun::classify(bytes[0]), stun::Kind::Other);
    match packet {
        Packet::Rtp(rtp) => {
            let extension = rtp.extension().map_or(0, |(_, words)| 4 + words.len());
            let header = rtp::HEADER_LEN + 4 * rtp.csrc_count() + extension;
            assert_eq!(header + rtp.payload().len(), bytes.len());
            assert!(!rtp::RTCP_PAYLOAD_TYPES.contains(&rtp.payload_type()));
        }
        Packet::Rtcp(rtcp) => assert!(bytes.len() >= rtp::RTCP_HEADER_LEN && rtcp.packet_type() & 0x60 == 0x40),
    }
}

/// Writes what the view shows, and reads it again.
fn rebuild(message: &Message<'_>) {
    let mut buffer = vec![0; message.bytes().len() + 64];
    let len = write(message, &mut buffer).expect("a message fits where it came from");
    let again = Message::parse(&buffer[..len]).expect("what is written reads");
    let (a, b) = (&message.attributes, &again.attributes);
    assert_eq!((message.class, message.method, message.transaction), (again.class, again.method, again.transaction));
    assert_eq!((a.username, a.userhash, a.realm, a.nonce), (b.username, b.userhash, b.realm, b.nonce));
    assert_eq!(
        (a.lifetime, a.channel_number, a.reservation_token),
        (b.lifetime, b.channel_number, b.reservation_token)
    );
    assert_eq!((a.error_code, a.address_error, a.xor_mapped), (b.error_code, b.address_error, b.xor_mapped));
    assert_eq!((a.even_port, a.dont_fragment), (b.even_port, b.dont_fragment));
    assert_eq!((a.requested_transport, a.requested_family), (b.requested_transport, b.requested_family));
    assert_eq!((a.additional_family, a.password_algorithm), (b.additional_family, b.password_algorithm));
    assert_eq!((a.password_algorithms, a.unknown_attributes), (b.password_algorithms, b.unknown_attributes));
    assert_eq!(message.data(), again.data());
    assert!(message.peers().eq(again.peers()));
    assert!(message.relayed().eq(again.relayed()));
    assert!(b.fingerprint && b.malformed.is_none());
}

fn write(message: &Message<'_>, buffer: &mut [u8]) -> Result<usize, stun::Overflow> {
    let attributes = &message.attributes;
    let mut builder = Builder::new(buffer, message.class, message.method, message.transaction);
    for (kind, value) in [
        (attribute::USERNAME, attributes.username),
        (attribute::USERHASH, attributes.userhash.map(|hash| hash.as_slice())),
        (attribute::REALM, attributes.realm),
        (attribute::NONCE, attributes.nonce),
        (attribute::RESERVATION_TOKEN, attributes.reservation_token.as_ref().map(|token| token.as_slice())),
        (attribute::DATA, message.data()),
        (attribute::DONT_FRAGMENT, attributes.dont_fragment.then_some([].as_slice())),
        (attribute::EVEN_PORT, attributes.even_port.map(|reserve| if reserve { [0x80].as_slice() } else { &[0] })),
        (attribute::PASSWORD_ALGORITHMS, attributes.password_algorithms),
        (attribute::UNKNOWN_ATTRIBUTES, attributes.unknown_attributes),
    ] {
        if let Some(value) = value {
            builder.bytes(kind, value);
        }
    }
    let first_byte = |byte: u8| u32::from(byte) << 24;
    for (kind, value) in [
        (attribute::LIFETIME, attributes.lifetime),
        (attribute::REQUESTED_TRANSPORT, attributes.requested_transport.map(first_byte)),
        (attribute::REQUESTED_ADDRESS_FAMILY, attributes.requested_family.map(first_byte)),
        (attribute::ADDITIONAL_ADDRESS_FAMILY, attributes.additional_family.map(first_byte)),
    ] {
        if let Some(value) = value {
            builder.u32(kind, value);
        }
    }
    if let Some(algorithm) = attributes.password_algorithm {
        builder.password_algorithm(algorithm);
    }
    if let Some(number) = attributes.channel_number {
        builder.channel(number);
    }
    if let Some((code, reason)) = attributes.error_code {
        builder.error(code, reason);
    }
    if let Some((family, code, reason)) = attributes.address_error {
        builder.address_error(family, code, reason);
    }
    if let Some(address) = attributes.xor_mapped {
        builder.xor_address(attribute::XOR_MAPPED_ADDRESS, address);
    }
    for address in message.relayed() {
        builder.xor_address(attribute::XOR_RELAYED_ADDRESS, address);
    }
    for address in message.peers() {
        builder.xor_address(attribute::XOR_PEER_ADDRESS, address);
    }
    builder.fingerprint().finish()
}
