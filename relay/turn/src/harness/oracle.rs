//! Knows from the answers that clients were given what may be relayed, and holds everything that leaves
//! against it. It errs on the side of the machine: what a policy or an order cuts earlier it need not know.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sluice_base::limits::{
    BINDING_ANSWER_BYTES_MAX, CHANNEL_LIFETIME, PERMISSION_LIFETIME, REMEMBERED_ANSWER_LIFETIME, REPLY_BYTES_MAX,
    UNAUTHENTICATED_ANSWER_BYTES_MAX,
};
use sluice_base::{Mono, Pii, SocketId};
use sluice_wire::channel_data;
use sluice_wire::stun::{Class, Kind, Message, Method, classify};

use super::model::{Answer, Client, Relay, Sent, ip_address};

#[derive(Default)]
pub(super) struct Oracle {
    allocations: BTreeMap<SocketAddr, Known>,
    /// What was asked, by transaction, until it is granted: answers are remembered by the machine and come
    /// again, and each counts once.
    asked: BTreeMap<[u8; 12], Asked>,
    /// When it was answered.
    answered: BTreeMap<[u8; 12], Mono>,
}

/// What a request asks for that its answer does not repeat.
struct Asked {
    peers: Vec<SocketAddr>,
    number: Option<u16>,
    lifetime: Option<u32>,
    family: Option<u8>,
}

/// What a client at one address was promised.
struct Known {
    until: Mono,
    relays: Vec<(SocketAddr, SocketId)>,
    permitted: BTreeMap<IpAddr, Mono>,
    bound: BTreeMap<u16, (SocketAddr, Mono)>,
}

impl Oracle {
    /// A relayed address that some client was told.
    pub(super) fn relayed(&self, at: usize) -> Option<SocketAddr> {
        let all: Vec<_> = self.allocations.values().flat_map(|known| &known.relays).collect();
        all.get(at % all.len().max(1)).map(|(address, _)| *address)
    }

    /// Its socket.
    pub(super) fn relay_socket(&self, at: u8) -> Option<SocketId> {
        let all: Vec<_> = self.allocations.values().flat_map(|known| &known.relays).collect();
        all.get(usize::from(at) % all.len().max(1)).map(|(_, socket)| *socket)
    }

    /// Takes note of a request. One that has its answer asks nothing until that is forgotten.
    pub(super) fn ask(&mut self, now: Mono, request: &[u8]) {
        if let Ok(message) = Message::parse(request) {
            let answered = self.answered.get(&message.transaction.0);
            if answered.is_some_and(|at| now < at.after(REMEMBERED_ANSWER_LIFETIME)) {
                return;
            }
            let attributes = &message.attributes;
            let asked = Asked {
                peers: message.peers().collect(),
                number: attributes.channel_number,
                lifetime: attributes.lifetime,
                family: attributes.requested_family,
            };
            self.asked.insert(message.transaction.0, asked);
        }
    }

    /// Judges what left, and learns from it; the token, where it had one.
    pub(super) fn observe(&mut self, relay: &Relay, clients: &[Client], sent: &Sent) -> Option<[u8; 8]> {
        let now = relay.now.mono;
        let listens = clients.iter().any(|client| relay.listener(client.listener) == sent.socket);
        if !listens {
            self.to_peer(now, sent);
            return None;
        }
        let client = clients.iter().find(|client| Pii::new(client.address) == sent.to).expect("a client that came");
        assert_eq!(relay.listener(client.listener), sent.socket, "the address that was asked");
        match sent.bytes.first().map(|first| classify(*first)) {
            Some(Kind::ChannelData) => self.on_channel(now, client, sent),
            Some(Kind::Stun) => return self.stun(relay, clients, client, sent),
            _ => panic!("a client is sent STUN and ChannelData only"),
        }
        None
    }

    fn to_peer(&self, now: Mono, sent: &Sent) {
        let owner =
            self.allocations.values().find(|known| known.relays.iter().any(|(_, socket)| *socket == sent.socket));
        let known = owner.expect("a socket of an allocation");
        let peer = *sent.to.expose();
        assert!(!peer.ip().is_loopback(), "a forbidden peer");
        assert!(known.may_reach(now, peer.ip()), "a permission");
    }

    fn on_channel(&self, now: Mono, client: &Client, sent: &Sent) {
        let (number, len) = channel_data::parse(&sent.bytes).expect("well-formed ChannelData");
        assert_eq!(sent.bytes.len(), channel_data::HEADER_LEN + len);
        let known = self.allocations.get(&client.address).expect("an allocation");
        let (peer, until) = known.bound.get(&number).expect("a channel that was bound");
        assert!(now < *until && known.may_reach(now, peer.ip()), "a channel and its permission");
    }

    fn stun(&mut self, relay: &Relay, clients: &[Client], client: &Client, sent: &Sent) -> Option<[u8; 8]> {
        let answer = Answer { bytes: sent.bytes.clone() };
        let message = answer.message();
        if message.class == Class::Indication {
            assert_eq!(message.method, Method::DATA);
            let peer = message.peers().next().expect("a Data indication names its peer");
            assert!(message.data().is_some());
            let known = self.allocations.get(&client.address).expect("an allocation");
            assert!(known.may_reach(relay.now.mono, peer.ip()), "a permission");
            return None;
        }
        assert!(sent.bytes.len() <= REPLY_BYTES_MAX);
        let code = answer.code();
        let attributes = &message.attributes;
        if attributes.message_integrity.is_none() && attributes.message_integrity_sha256.is_none() {
            assert!(sent.bytes.len() <= UNAUTHENTICATED_ANSWER_BYTES_MAX);
            assert!(matches!((message.method, code), (Method::BINDING, 200 | 420) | (_, 400 | 401 | 438)), "{code}");
            assert!(code != 200 || sent.bytes.len() <= BINDING_ANSWER_BYTES_MAX);
            return None;
        }
        let at_address = |other: &&Client| other.address == client.address;
        assert!(clients.iter().filter(at_address).any(|client| client.trusts(&answer)), "signed for its client");
        if let Some(asked) = self.asked.remove(&message.transaction.0) {
            // A long wait has answers of long ago, which are forgotten by now.
            self.answered.insert(message.transaction.0, sent.at);
            if code == 200 {
                self.learn(relay, sent.at, client, &answer, &asked);
            }
        }
        answer.token()
    }

    fn learn(&mut self, relay: &Relay, now: Mono, client: &Client, answer: &Answer, asked: &Asked) {
        let message = answer.message();
        let until = now.after(Duration::from_secs(u64::from(answer.lifetime().unwrap_or(0))));
        if message.method == Method::ALLOCATE {
            let relays = message.relayed().filter_map(|relayed| Some((relayed, socket_of(relay, relayed)?))).collect();
            let known = Known { until, relays, permitted: BTreeMap::new(), bound: BTreeMap::new() };
            self.allocations.insert(client.address, known);
            return;
        }
        let known = self.allocations.get_mut(&client.address).expect("a success is about an allocation");
        match message.method {
            Method::REFRESH if asked.lifetime == Some(0) => {
                let ends = |relayed: &SocketAddr| asked.family.is_none_or(|code| (code == 1) == relayed.is_ipv4());
                known.relays.retain(|(relayed, _)| !ends(relayed));
                if known.relays.is_empty() {
                    self.allocations.remove(&client.address);
                }
            }
            Method::REFRESH => known.until = until,
            _ => {
                for peer in &asked.peers {
                    known.permitted.insert(peer.ip(), now.after(PERMISSION_LIFETIME));
                }
                if let (Method::CHANNEL_BIND, Some(number), [peer]) = (message.method, asked.number, &asked.peers[..]) {
                    known.bound.insert(number, (*peer, now.after(CHANNEL_LIFETIME)));
                }
            }
        }
    }
}

impl Known {
    fn may_reach(&self, now: Mono, peer: IpAddr) -> bool {
        now < self.until && self.permitted.get(&peer).is_some_and(|until| now < *until)
    }
}

/// The socket of a relayed address, announced or inner; none where a grant was over before its socket was
/// open, and the next answer has ended it again.
fn socket_of(relay: &Relay, relayed: SocketAddr) -> Option<SocketId> {
    let inner = SocketAddr::new(ip_address("192.0.2.1"), relayed.port());
    relay.socket_at(relayed).or_else(|| relay.socket_at(inner))
}
