//! Whatever is written is read the same, for any values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::collection::vec;
use proptest::prelude::*;
use sluice_base::Family;
use sluice_wire::stun::{
    Builder, Class, Message, Method, PasswordAlgorithm, TransactionId, attribute, data_indication_header,
    data_indication_header_len,
};
use sluice_wire::{channel_data, harness, padding};

proptest! {
    #[test]
    fn an_allocate(
        transaction in any::<[u8; 12]>(),
        username in vec(any::<u8>(), 0..300),
        nonce in vec(any::<u8>(), 0..130),
        lifetime in any::<u32>(),
        family in any::<u8>(),
        even_port in any::<bool>(),
        token in any::<[u8; 8]>(),
        tag in any::<[u8; 20]>(),
    ) {
        let mut buffer = [0; 1500];
        let mut builder = Builder::new(&mut buffer, Class::Request, Method::ALLOCATE, TransactionId(transaction));
        let mut signed = vec![];
        let len = builder
            .u32(attribute::REQUESTED_TRANSPORT, 17 << 24)
            .u32(attribute::LIFETIME, lifetime)
            .u32(attribute::REQUESTED_ADDRESS_FAMILY, u32::from(family) << 24)
            .u32(attribute::ADDITIONAL_ADDRESS_FAMILY, u32::from(!family) << 24)
            .bytes(attribute::EVEN_PORT, &[u8::from(even_port) << 7])
            .bytes(attribute::RESERVATION_TOKEN, &token)
            .bytes(attribute::DONT_FRAGMENT, &[])
            .bytes(attribute::USERNAME, &username)
            .bytes(attribute::NONCE, &nonce)
            .password_algorithm(PasswordAlgorithm::Md5)
            .password_algorithms(&[PasswordAlgorithm::Md5, PasswordAlgorithm::Sha256])
            .integrity_sha1(|parts| { signed = parts.concat(); tag })
            .fingerprint()
            .finish()
            .unwrap();
        let message = Message::parse(&buffer[..len]).unwrap();
        let attributes = &message.attributes;
        prop_assert_eq!(message.transaction, TransactionId(transaction));
        prop_assert_eq!((message.class, message.method), (Class::Request, Method::ALLOCATE));
        prop_assert_eq!(attributes.requested_transport, Some(17));
        prop_assert_eq!(attributes.lifetime, Some(lifetime));
        prop_assert_eq!(attributes.requested_family, Some(family));
        prop_assert_eq!(attributes.additional_family, Some(!family));
        prop_assert_eq!(attributes.even_port, Some(even_port));
        prop_assert_eq!(attributes.reservation_token, Some(token));
        prop_assert!(attributes.dont_fragment && attributes.fingerprint);
        prop_assert_eq!(attributes.username, Some(username.as_slice()));
        prop_assert_eq!(attributes.nonce, Some(nonce.as_slice()));
        prop_assert_eq!(attributes.password_algorithm, Some(PasswordAlgorithm::Md5));
        prop_assert_eq!(attributes.password_algorithms, Some([0, 1, 0, 0, 0, 2, 0, 0].as_slice()));
        prop_assert_eq!(attributes.malformed, None);
        let integrity = attributes.message_integrity.unwrap();
        prop_assert_eq!(integrity.tag, tag);
        let (header, rest) = message.integrity_input(&integrity);
        prop_assert_eq!([&header, rest].concat(), signed);
    }

    #[test]
    fn addresses(transaction in any::<[u8; 12]>(), peers in vec(address(), 0..20), mapped in address()) {
        let mut buffer = [0; 1500];
        let mut builder = Builder::new(&mut buffer, Class::Success, Method(0xabc), TransactionId(transaction));
        builder.xor_address(attribute::XOR_MAPPED_ADDRESS, mapped);
        for peer in &peers {
            builder.xor_address(attribute::XOR_PEER_ADDRESS, *peer);
            builder.xor_address(attribute::XOR_RELAYED_ADDRESS, *peer);
        }
        let len = builder.finish().unwrap();
        let message = Message::parse(&buffer[..len]).unwrap();
        prop_assert_eq!(message.attributes.xor_mapped, Some(mapped));
        prop_assert_eq!(message.attributes.xor_relayed, peers.first().copied());
        prop_assert_eq!(message.attributes.peer_count, peers.len());
        prop_assert_eq!(message.peers().collect::<Vec<_>>(), peers.clone());
        prop_assert_eq!(message.relayed().collect::<Vec<_>>(), peers);
    }

    #[test]
    fn an_error(code in 300u16..700, reason in "\\PC{0,60}", family in 1u8..3, types in vec(any::<u16>(), 0..9)) {
        let mut buffer = [0; 1500];
        let mut builder = Builder::new(&mut buffer, Class::Error, Method::ALLOCATE, TransactionId([0; 12]));
        let len = builder
            .error(code, &reason)
            .address_error(family, code, &reason)
            .unknown_attributes(&types)
            .finish()
            .unwrap();
        let message = Message::parse(&buffer[..len]).unwrap();
        prop_assert_eq!(message.attributes.error_code, Some((code, reason.as_str())));
        prop_assert_eq!(message.attributes.address_error, Some((family, code, reason.as_str())));
        let listed = message.attributes.unknown_attributes.unwrap();
        let listed: Vec<u16> = listed.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        prop_assert_eq!(listed, types);
    }

    /// Header in front, payload where it is, padding behind: a Data indication like any other.
    #[test]
    fn a_data_indication(peer in address(), payload in vec(any::<u8>(), 0..1300), transaction in any::<[u8; 12]>()) {
        let front = data_indication_header_len(Family::of(peer.ip()));
        let mut slot = [vec![0; front], payload.clone(), vec![0xee; padding(payload.len())]].concat();
        data_indication_header(&mut slot, peer, payload.len(), TransactionId(transaction)).unwrap();
        let message = Message::parse(&slot).unwrap();
        prop_assert_eq!((message.class, message.method), (Class::Indication, Method::DATA));
        prop_assert_eq!(message.transaction, TransactionId(transaction));
        prop_assert_eq!(message.peers().collect::<Vec<_>>(), [peer]);
        prop_assert_eq!(message.attributes.data.clone(), Some(front..front + payload.len()));
        prop_assert_eq!(message.data(), Some(payload.as_slice()));
    }

    #[test]
    fn channel_data_of_any_length(number in 0x4000u16..0x8000, payload in vec(any::<u8>(), 0..1300), pad in 0usize..4) {
        let mut datagram = [vec![0; 4], payload.clone(), vec![0; pad]].concat();
        channel_data::write_header(datagram.first_chunk_mut().unwrap(), number, payload.len() as u16);
        prop_assert_eq!(channel_data::parse(&datagram), Ok((number, payload.len())));
    }

    /// Noise behind a good header, so that attributes are reached.
    #[test]
    fn any_attributes_at_all(first in 0u8..64, second in any::<u8>(), words in vec(tlv_like(), 0..40)) {
        let body = words.concat();
        let [high, low] = (body.len() as u16).to_be_bytes();
        let header = [&[first, second, high, low, 0x21, 0x12, 0xa4, 0x42], [9; 12].as_slice()].concat();
        harness::stun(&[header, body].concat());
    }

    #[test]
    fn any_bytes_at_all(bytes in vec(any::<u8>(), 0..200)) {
        harness::stun(&bytes);
        harness::channel_data(&bytes);
    }
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    ];
    (ip, any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

/// Something that looks like an attribute, its length now and then a lie.
fn tlv_like() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![0u16..0x30, 0x8000u16..0x8030, any::<u16>()];
    let length = prop_oneof![4 => Just(None), 1 => (0u16..48).prop_map(Some)];
    (kind, vec(any::<u8>(), 0..40), length).prop_map(|(kind, value, lie)| {
        let length = lie.unwrap_or(value.len() as u16);
        let pad = padding(value.len());
        [&kind.to_be_bytes(), &length.to_be_bytes(), value.as_slice(), &[0; 3][..pad]].concat()
    })
}
