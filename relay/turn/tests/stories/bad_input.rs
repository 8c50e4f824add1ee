//! Whatever the bytes are: a counted drop or the RFC's error.

use sluice_base::limits::ATTRIBUTES_MAX;
use sluice_base::stats::DropReason;
use sluice_turn::harness::model::{Client, Mix, Relay, channel_data, udp};
use sluice_wire::stun::{Builder, Class, Method, TransactionId, attribute};

use crate::{CLIENT, peer};

/// A client with a permission and a channel to the peer.
fn bound() -> (Relay, Client) {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    client.bind(&mut relay, 0x4000, peer());
    (relay, client)
}

#[track_caller]
fn dropped(relay: &mut Relay, client: &Client, bytes: &[u8], reason: DropReason) {
    let (before, all) = (relay.drops(reason), relay.all_drops());
    assert!(client.send(relay, bytes).is_empty());
    assert_eq!(relay.drops(reason), before + 1, "{reason:?}");
    assert_eq!(relay.all_drops(), all + 1, "counted once");
}

#[test]
fn what_is_neither_stun_nor_channel_data() {
    let (mut relay, client) = bound();
    dropped(&mut relay, &client, &[], DropReason::NotTurn);
    for first in [4u8, 19, 20, 63, 128, 191, 192, 255] {
        dropped(&mut relay, &client, &[first; 40], DropReason::NotTurn);
    }
}

#[test]
fn truncated_stun() {
    let (mut relay, mut client) = bound();
    let request = client.signed(Method::REFRESH, |_| {});
    for len in 1..request.len() {
        dropped(&mut relay, &client, &request[..len], DropReason::BadStun);
    }
}

#[test]
fn stun_with_a_wrong_length() {
    let (mut relay, mut client) = bound();
    let request = client.signed(Method::REFRESH, |_| {});
    for wrong in [-4i32, -1, 1, 2, 3, 4, 1000] {
        let mut bytes = request.clone();
        let length = (request.len() as i32 - 20 + wrong) as u16;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        dropped(&mut relay, &client, &bytes, DropReason::BadStun);
    }
    let mut longer = request;
    longer.extend([0; 4]);
    dropped(&mut relay, &client, &longer, DropReason::BadStun);
}

#[test]
fn an_attribute_beyond_the_message() {
    let (mut relay, mut client) = bound();
    for len in [5u16, 8, 0x7fff, 0xffff] {
        let mut bytes = client.unsigned(Method::BINDING, |b| {
            b.bytes(attribute::SOFTWARE, b"1234");
        });
        bytes[22..24].copy_from_slice(&len.to_be_bytes());
        dropped(&mut relay, &client, &bytes, DropReason::BadStun);
    }
}

#[test]
fn more_attributes_than_sensible() {
    let (mut relay, mut client) = bound();
    let bytes = client.unsigned(Method::BINDING, |builder| {
        for _ in 0..=ATTRIBUTES_MAX {
            builder.bytes(attribute::SOFTWARE, &[]);
        }
    });
    dropped(&mut relay, &client, &bytes, DropReason::BadStun);
}

#[test]
fn an_oversized_message() {
    let (mut relay, mut client) = bound();
    let bytes = client.unsigned(Method::BINDING, |b| {
        b.bytes(attribute::SOFTWARE, &[b'x'; 1900]);
    });
    assert_eq!(client.answer_to(&mut relay, &bytes).code(), 200, "long and well-formed");
}

#[test]
fn a_wrong_cookie() {
    let (mut relay, mut client) = bound();
    let mut bytes = client.unsigned(Method::BINDING, |_| {});
    bytes[4] ^= 1;
    dropped(&mut relay, &client, &bytes, DropReason::BadStun);
}

#[test]
fn a_bad_fingerprint() {
    let (mut relay, mut client) = bound();
    client.fingerprint = true;
    for method in [Method::BINDING, Method::ALLOCATE, Method::REFRESH] {
        let mut bytes = client.signed(method, |_| {});
        *bytes.last_mut().unwrap() ^= 1;
        dropped(&mut relay, &client, &bytes, DropReason::BadFingerprint);
    }
    let mut data = client.send_indication(peer(), b"x");
    *data.last_mut().unwrap() ^= 1;
    dropped(&mut relay, &client, &data, DropReason::BadFingerprint);
}

#[test]
fn something_behind_the_fingerprint() {
    let (mut relay, mut client) = bound();
    let bytes = client.unsigned(Method::BINDING, |b| {
        b.fingerprint().bytes(attribute::SOFTWARE, &[]);
    });
    dropped(&mut relay, &client, &bytes, DropReason::BadFingerprint);
}

#[test]
fn what_a_server_does_not_serve() {
    let (mut relay, mut client) = bound();
    let message = |class, method| {
        let mut buffer = [0; 64];
        let len = Builder::new(&mut buffer, class, method, TransactionId([1; 12])).finish().unwrap();
        buffer[..len].to_vec()
    };
    for bytes in [
        message(Class::Success, Method::BINDING),
        message(Class::Error, Method::ALLOCATE),
        message(Class::Indication, Method::ALLOCATE),
        message(Class::Indication, Method::DATA),
        message(Class::Request, Method::SEND),
        message(Class::Request, Method::DATA),
        message(Class::Request, Method(2)),
        message(Class::Request, Method(0xa)),
        message(Class::Request, Method(0xff)),
    ] {
        dropped(&mut relay, &client, &bytes, DropReason::UnexpectedStun);
    }
    assert_eq!(client.refresh(&mut relay, 600).code(), 200);
}

#[test]
fn send_indications_that_lack_or_break_an_attribute() {
    let (mut relay, mut client) = bound();
    let broken: [&dyn Fn(&mut Builder<'_>); 8] = [
        &|_| {},
        &|b| {
            b.bytes(attribute::DATA, b"x");
        },
        &|b| {
            b.xor_address(attribute::XOR_PEER_ADDRESS, peer());
        },
        &|b| {
            b.bytes(attribute::XOR_PEER_ADDRESS, &[0, 1, 2, 3]).bytes(attribute::DATA, b"x");
        },
        &|b| {
            b.bytes(attribute::XOR_PEER_ADDRESS, &[0, 3, 2, 3, 1, 2, 3, 4]).bytes(attribute::DATA, b"x");
        },
        &|b| {
            b.xor_address(attribute::XOR_PEER_ADDRESS, peer()).bytes(attribute::DATA, b"x").bytes(0x7001, &[]);
        },
        &|b| {
            b.xor_address(attribute::XOR_PEER_ADDRESS, peer()).bytes(attribute::DATA, b"x");
            b.bytes(attribute::DONT_FRAGMENT, &[0]);
        },
        &|b| {
            b.integrity_sha1(|_| [0; 20]);
            b.xor_address(attribute::XOR_PEER_ADDRESS, peer()).bytes(attribute::DATA, b"x");
        },
    ];
    for fill in broken {
        let bytes = client.indication(Method::SEND, fill);
        dropped(&mut relay, &client, &bytes, DropReason::BadIndication);
    }
}

#[test]
fn of_a_duplicate_attribute_the_first_counts() {
    let (mut relay, mut client) = bound();
    let answer = client.ask(&mut relay, Method::REFRESH, |builder| {
        builder.u32(attribute::LIFETIME, 700).u32(attribute::LIFETIME, 0);
    });
    assert_eq!(answer.lifetime(), Some(700));
    let bytes = client.indication(Method::SEND, |builder| {
        builder.xor_address(attribute::XOR_PEER_ADDRESS, peer());
        builder.xor_address(attribute::XOR_PEER_ADDRESS, crate::at("127.0.0.1:1"));
        builder.bytes(attribute::DATA, b"first").bytes(attribute::DATA, b"second");
    });
    let sent = client.send(&mut relay, &bytes);
    assert_eq!((sent[0].to, &sent[0].bytes[..]), (peer().into(), &b"first"[..]));
}

#[test]
fn what_stands_behind_the_integrity_does_not_count() {
    let (mut relay, mut client) = bound();
    let mut bytes = client.signed(Method::REFRESH, |b| {
        b.u32(attribute::LIFETIME, 700);
    });
    bytes.extend([0, 0x0d, 0, 4, 0, 0, 0, 0]);
    let length = (bytes.len() - 20) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    assert_eq!(client.answer_to(&mut relay, &bytes).lifetime(), Some(700));
}

#[test]
fn bad_integrity_of_every_request_changes_nothing() {
    let (mut relay, mut client) = bound();
    let questions = relay.questions.len();
    for (method, fill) in [
        (Method::ALLOCATE, &udp as &dyn Fn(&mut Builder<'_>)),
        (Method::REFRESH, &|b| {
            b.u32(attribute::LIFETIME, 0);
        }),
        (Method::CREATE_PERMISSION, &|b| {
            b.xor_address(attribute::XOR_PEER_ADDRESS, peer());
        }),
        (Method::CHANNEL_BIND, &|b| {
            b.channel(0x4001).xor_address(attribute::XOR_PEER_ADDRESS, peer());
        }),
    ] {
        let mut bytes = client.signed(method, fill);
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(client.answer_to(&mut relay, &bytes).code(), 401);
        // A tag of a wrong length, too.
        let bytes = client.unsigned(method, |builder| {
            fill(builder);
            builder.bytes(attribute::MESSAGE_INTEGRITY, &[0; 16]);
        });
        assert!(matches!(client.answer_to(&mut relay, &bytes).code(), 400 | 401));
    }
    assert_eq!(relay.questions.len(), questions);
    assert_eq!(client.refresh(&mut relay, 600).code(), 200);
}

#[test]
fn a_malformed_attribute_of_a_known_client_is_a_bad_request() {
    let (mut relay, mut client) = bound();
    for (method, kind, value) in [
        (Method::REFRESH, attribute::LIFETIME, &[0, 0][..]),
        (Method::REFRESH, attribute::REQUESTED_ADDRESS_FAMILY, &[1]),
        (Method::CREATE_PERMISSION, attribute::XOR_PEER_ADDRESS, &[0; 9]),
        (Method::CHANNEL_BIND, attribute::CHANNEL_NUMBER, &[0x40]),
    ] {
        assert_eq!(
            client
                .ask(&mut relay, method, |b| {
                    b.bytes(kind, value);
                })
                .code(),
            400
        );
        let unknown = client.ask(&mut relay, method, |b| {
            b.bytes(0x0042, &[]);
        });
        assert_eq!(unknown.code(), 420);
    }
}

#[test]
fn channel_data_that_is_none() {
    let (mut relay, client) = bound();
    for bytes in [&[0x40][..], &[0x40, 0, 0], &[0x40, 0, 0, 1], &[0x40, 0, 0xff, 0xff, 1, 2, 3, 4]] {
        dropped(&mut relay, &client, bytes, DropReason::BadChannelData);
    }
    dropped(&mut relay, &client, &channel_data(0x4001, b"x"), DropReason::UnboundChannel);
    let stranger = Client::new("203.0.113.77:1");
    dropped(&mut relay, &stranger, &channel_data(0x4000, b"x"), DropReason::NoAllocation);
}

#[test]
fn damaged_packets_never_harm() {
    let (mut relay, mut client) = bound();
    let mut rng = Mix(3);
    let mut random = |below: usize| (rand_core::RngCore::next_u32(&mut rng) as usize) % below.max(1);
    for round in 0..20_000 {
        let mut bytes = match round % 5 {
            0 => client.signed(Method::ALLOCATE, udp),
            1 => client.send_indication(peer(), b"some data"),
            2 => channel_data(0x4000, b"some data"),
            3 => client.signed(Method::CREATE_PERMISSION, |b| {
                b.xor_address(attribute::XOR_PEER_ADDRESS, peer());
            }),
            _ => client.unsigned(Method::BINDING, |b| {
                b.fingerprint();
            }),
        };
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            match random(3) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << random(8),
                1 => bytes.truncate(at),
                _ => bytes.insert(at, random(256) as u8),
            }
        }
        assert!(client.send(&mut relay, &bytes).len() <= 1);
    }
    assert_eq!(client.refresh(&mut relay, 600).code(), 200);
    assert_eq!(relay.server.allocations().count(), 1);
}
