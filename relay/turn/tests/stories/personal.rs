//! Nothing that a server hands out or is made of shows whose it is.

use sluice_base::policy::Hook;
use sluice_base::{ListenerId, Mono, Now, Pii, SocketId};
use sluice_turn::harness::model::{Client, Mix, Packet, Relay, options, shared, udp};
use sluice_turn::{Output, Server};
use sluice_wire::stun::Method;

use crate::{CLIENT, peer};

#[test]
fn outputs_and_options_do_not_print_addresses_names_or_secrets() {
    let options = options();
    let shared = shared(&options);
    let mut shown = format!("{options:?} {shared:?}");
    let now = Now { mono: Mono::from_nanos(1_000_000_000_000), unix_seconds: 1_700_000_000 };
    let mut server = Server::new(now, options, shared, Mix(1));
    let listener = SocketId { index: 0, generation: 0 };
    server.listening(listener, ListenerId(0));
    let mut client = Client::new(CLIENT);
    client.challenge(&mut Relay::new());
    let requests = [client.unsigned(Method::BINDING, |_| {}), client.signed(Method::ALLOCATE, udp)];
    let mut outputs = 0;
    for request in requests {
        let disposition = server.packet(now, listener, Pii::new(client.address), &mut Packet::new(&request));
        shown += &format!("{disposition:?}");
        while let Some(output) = server.output() {
            shown += &format!("{output:?}");
            outputs += 1;
            if let Output::Ask(question) = output {
                assert_eq!(question.hook, Hook::Allocate);
            }
        }
    }
    assert_eq!(outputs, 2);
    for personal in ["203.0.113.7", "40000", "alice", "wonderland", "first secret", "bob", "[7, 7, 7"] {
        assert!(!shown.contains(personal), "{personal}");
    }
    // Nor the mapped address as it stands in the answer: mixed with a number that everybody knows.
    let mapped = [203 ^ 0x21u8, 0x12, 113 ^ 0xa4, 7 ^ 0x42];
    assert!(!shown.contains(&format!("{}, {}, {}, {}", mapped[0], mapped[1], mapped[2], mapped[3])));
}

#[test]
fn relayed_packets_do_not_print_their_peer() {
    let mut relay = Relay::new();
    let mut client = Client::new(CLIENT);
    client.allocated(&mut relay);
    client.permit(&mut relay, &[peer()]);
    let mut packet = Packet::new(&client.send_indication(peer(), b"x"));
    let listener = relay.listener(0);
    let disposition = relay.packet(listener, client.address, &mut packet);
    assert!(!format!("{disposition:?}").contains("198.51.100.9"));
    assert!(!format!("{:?}", relay.questions).contains("198.51.100.9"));
}
