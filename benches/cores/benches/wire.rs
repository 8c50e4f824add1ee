//! What the packet path pays for reading and writing messages, and for their integrity.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "criterion's macros make undocumented public functions")]

use std::hint::black_box;
use std::net::SocketAddr;

use criterion::{Criterion, criterion_group, criterion_main};
use sluice_base::Family;
use sluice_crypto::{HmacKey, HmacSha256Key};
use sluice_wire::channel_data;
use sluice_wire::stun::{
    Builder, Class, Message, Method, TransactionId, attribute, classify, data_indication_header,
    data_indication_header_len,
};

const TRANSACTION: TransactionId = TransactionId(*b"abcdefghijkl");
const PAYLOAD_LEN: usize = 172;

fn stun(c: &mut Criterion) {
    let key = HmacKey::sha1(&[7; 16]);
    let allocate = allocate(&key);
    let client: SocketAddr = "192.0.2.7:40000".parse().unwrap();
    let relayed: SocketAddr = "198.51.100.9:50000".parse().unwrap();

    c.bench_function("parse_allocate", |b| {
        b.iter(|| Message::parse(black_box(&allocate)).map(|message| message.attributes.lifetime));
    });
    c.bench_function("parse_and_verify_allocate", |b| {
        b.iter(|| {
            let message = Message::parse(black_box(&allocate)).unwrap();
            let integrity = message.attributes.message_integrity.unwrap();
            let (header, rest) = message.integrity_input(&integrity);
            assert!(key.verify(&[&header, rest], integrity.tag));
        });
    });
    let mut buffer = [0; 256];
    c.bench_function("build_allocate_reply", |b| {
        b.iter(|| reply(black_box(&mut buffer), client, relayed, |parts| key.sign(parts)));
    });
    c.bench_function("build_allocate_reply_without_hmac", |b| {
        b.iter(|| reply(black_box(&mut buffer), client, relayed, |_| [0; 20]));
    });
    let binding = binding();
    c.bench_function("binding_exchange", |b| {
        b.iter(|| {
            let message = Message::parse(black_box(&binding)).unwrap();
            Builder::new(&mut buffer, Class::Success, Method::BINDING, message.transaction)
                .xor_address(attribute::XOR_MAPPED_ADDRESS, client)
                .fingerprint()
                .finish()
        });
    });
}

fn relay(c: &mut Criterion) {
    for (name, peer) in [("v4", "192.0.2.7:40000"), ("v6", "[2001:db8::7]:40000")] {
        let peer: SocketAddr = peer.parse().unwrap();
        let mut front = vec![0; data_indication_header_len(Family::of(peer.ip()))];
        c.bench_function(&format!("data_indication_header_{name}"), |b| {
            b.iter(|| data_indication_header(black_box(&mut front), black_box(peer), PAYLOAD_LEN, TRANSACTION));
        });
    }
    let send = send_indication();
    c.bench_function("parse_send_indication", |b| {
        b.iter(|| {
            let message = Message::parse(black_box(&send)).unwrap();
            (message.peers().next(), message.attributes.data)
        });
    });
    let mut datagram = [0; PAYLOAD_LEN + channel_data::HEADER_LEN];
    channel_data::write_header(datagram.first_chunk_mut().unwrap(), 0x4001, PAYLOAD_LEN as u16);
    c.bench_function("channel_data_parse", |b| {
        b.iter(|| {
            let datagram = black_box(datagram.as_slice());
            (classify(datagram[0]), channel_data::parse(datagram))
        });
    });
    let mut header = [0; channel_data::HEADER_LEN];
    c.bench_function("channel_data_write", |b| {
        b.iter(|| channel_data::write_header(black_box(&mut header), black_box(0x4001), PAYLOAD_LEN as u16));
    });
}

fn hmac(c: &mut Criterion) {
    let text = [0x5a; 100];
    let key = HmacKey::sha1(&[7; 16]);
    c.bench_function("hmac_sha1_100_bytes_kept_key", |b| b.iter(|| key.sign(&[black_box(&text)])));
    c.bench_function("hmac_sha1_100_bytes_fresh_key", |b| {
        b.iter(|| HmacKey::sha1(black_box(&[7; 16])).sign(&[black_box(&text)]));
    });
    let key = HmacSha256Key::new(&[7; 32]);
    c.bench_function("hmac_sha256_100_bytes_kept_key", |b| b.iter(|| key.sign(&[black_box(&text)])));
}

fn allocate(key: &HmacKey) -> Vec<u8> {
    let mut buffer = [0; 256];
    let len = Builder::new(&mut buffer, Class::Request, Method::ALLOCATE, TRANSACTION)
        .u32(attribute::REQUESTED_TRANSPORT, 17 << 24)
        .bytes(attribute::USERNAME, b"1700000000:tenant/alice")
        .bytes(attribute::REALM, b"relay.example.org")
        .bytes(attribute::NONCE, &[b'n'; 53])
        .integrity_sha1(|parts| key.sign(parts))
        .finish()
        .unwrap();
    buffer[..len].to_vec()
}

fn binding() -> Vec<u8> {
    let mut buffer = [0; 64];
    let len = Builder::new(&mut buffer, Class::Request, Method::BINDING, TRANSACTION).fingerprint().finish().unwrap();
    buffer[..len].to_vec()
}

fn send_indication() -> Vec<u8> {
    let mut buffer = [0; 256];
    let len = Builder::new(&mut buffer, Class::Indication, Method::SEND, TRANSACTION)
        .xor_address(attribute::XOR_PEER_ADDRESS, "192.0.2.7:40000".parse().unwrap())
        .bytes(attribute::DATA, &[7; PAYLOAD_LEN])
        .finish()
        .unwrap();
    buffer[..len].to_vec()
}

fn reply(
    buffer: &mut [u8],
    client: SocketAddr,
    relayed: SocketAddr,
    sign: impl FnOnce(&[&[u8]]) -> [u8; 20],
) -> Option<usize> {
    Builder::new(buffer, Class::Success, Method::ALLOCATE, TRANSACTION)
        .xor_address(attribute::XOR_RELAYED_ADDRESS, relayed)
        .xor_address(attribute::XOR_MAPPED_ADDRESS, client)
        .u32(attribute::LIFETIME, 600)
        .integrity_sha1(sign)
        .finish()
        .ok()
}

criterion_group!(benches, stun, relay, hmac);
criterion_main!(benches);
