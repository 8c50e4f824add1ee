//! The socket under the `turn` crate's client, which also notes what a relay answers: the client's own errors do
//! not tell a wrong password from a lost packet, and those of a channel not at all; nor does it look at whether an
//! answer is signed, without which other clients drop it (RFC 8489, 9.2.5).

use std::any::Any;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use sluice_base::Secret;
use stun::agent::TransactionId;
use stun::attributes::{ATTR_REALM, ATTR_USERNAME};
use stun::error_code::ErrorCodeAttribute;
use stun::integrity::MessageIntegrity;
use stun::message::{
    CLASS_ERROR_RESPONSE, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, Getter as _, METHOD_ALLOCATE, METHOD_CHANNEL_BIND,
    METHOD_CREATE_PERMISSION, Message, Method, is_message,
};
use stun::textattrs::TextAttribute;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use webrtc_util::Conn;

use super::credentials::Credentials;

/// A UDP socket that is connected to a relay.
#[derive(Debug)]
pub(super) struct Tap {
    socket: UdpSocket,
    server: SocketAddr,
    credentials: Credentials,
    /// Of the credentials and the realm, once the relay has told that.
    key: Mutex<Option<Secret<MessageIntegrity>>>,
    seen: watch::Sender<Seen>,
}

/// What was seen on the way.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Seen {
    /// The host says that nobody listens there (ICMP).
    pub(super) is_refused: bool,
    /// The last Allocate request.
    pub(super) allocate: Exchange,
    /// The last CreatePermission request.
    pub(super) permit: Exchange,
    /// The last ChannelBind request.
    pub(super) bind: Exchange,
}

/// A request and its answer.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Exchange {
    id: TransactionId,
    /// Whether it had credentials.
    pub(super) is_signed: bool,
    /// `None` before one came.
    pub(super) answer: Option<Answer>,
}

/// What a relay answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// Done.
    Success,
    /// Done, as it says, without a proof that it knows the password.
    Unsigned,
    /// An error; 0 is one without a code.
    Error(u16),
}

impl Tap {
    /// A socket towards a relay, for somebody with these credentials.
    pub(super) async fn open(server: SocketAddr, credentials: &Credentials) -> io::Result<Self> {
        let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).await?;
        // Only a connected socket is told that nobody listens.
        socket.connect(server).await?;
        let (credentials, seen) = (credentials.clone(), watch::Sender::new(Seen::default()));
        Ok(Tap { socket, server, credentials, key: Mutex::new(None), seen })
    }

    /// Everything seen from now on.
    pub(super) fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    fn note(&self, bytes: &[u8]) {
        if !is_message(bytes) {
            return;
        }
        let mut message = Message { raw: bytes.to_vec(), ..Message::default() };
        if message.decode().is_ok() {
            let is_proven = self.proves(&mut message);
            self.seen.send_if_modified(|seen| seen.note(&message, is_proven));
        }
    }

    /// Whether a message is signed with the password. The realm of a challenge makes the key.
    fn proves(&self, message: &mut Message) -> bool {
        let mut key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if message.typ.class == CLASS_ERROR_RESPONSE
            && let Ok(realm) = TextAttribute::get_from_as(message, ATTR_REALM)
        {
            let Credentials { user, password } = &self.credentials;
            let (user, password) = (user.expose().clone(), password.expose().clone());
            *key = Some(Secret::new(MessageIntegrity::new_long_term_integrity(user, realm.text, password)));
        }
        key.as_ref().is_some_and(|key| key.expose().check(message).is_ok())
    }
}

impl Seen {
    fn note(&mut self, message: &Message, is_proven: bool) -> bool {
        let Some(exchange) = self.exchange(message.typ.method) else {
            return false;
        };
        if message.typ.class == CLASS_REQUEST {
            // A request that is sent again is the same one.
            if exchange.id != message.transaction_id {
                let is_signed = message.contains(ATTR_USERNAME);
                *exchange = Exchange { id: message.transaction_id, is_signed, answer: None };
            }
            return true;
        }
        if exchange.id == message.transaction_id {
            exchange.answer = Some(answer(message, is_proven));
        }
        true
    }

    fn exchange(&mut self, method: Method) -> Option<&mut Exchange> {
        match method {
            METHOD_ALLOCATE => Some(&mut self.allocate),
            METHOD_CREATE_PERMISSION => Some(&mut self.permit),
            METHOD_CHANNEL_BIND => Some(&mut self.bind),
            _ => None,
        }
    }
}

fn answer(message: &Message, is_proven: bool) -> Answer {
    if message.typ.class == CLASS_SUCCESS_RESPONSE {
        return if is_proven { Answer::Success } else { Answer::Unsigned };
    }
    let mut error = ErrorCodeAttribute::default();
    Answer::Error(error.get_from(message).map_or(0, |()| error.code.0))
}

#[async_trait]
impl Conn for Tap {
    async fn connect(&self, address: SocketAddr) -> Result<(), webrtc_util::Error> {
        Ok(self.socket.connect(address).await?)
    }

    async fn recv(&self, bytes: &mut [u8]) -> Result<usize, webrtc_util::Error> {
        self.recv_from(bytes).await.map(|(length, _)| length)
    }

    async fn recv_from(&self, bytes: &mut [u8]) -> Result<(usize, SocketAddr), webrtc_util::Error> {
        loop {
            match self.socket.recv(bytes).await {
                Ok(length) => {
                    self.note(&bytes[..length]);
                    return Ok((length, self.server));
                }
                // The client would stop to listen.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    self.seen.send_modify(|seen| seen.is_refused = true);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn send(&self, bytes: &[u8]) -> Result<usize, webrtc_util::Error> {
        self.note(bytes);
        match self.socket.send(bytes).await {
            // It tells of a packet before this one, which the receiving side hears of as well.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.seen.send_modify(|seen| seen.is_refused = true);
                Ok(bytes.len())
            }
            sent => Ok(sent?),
        }
    }

    async fn send_to(&self, bytes: &[u8], _: SocketAddr) -> Result<usize, webrtc_util::Error> {
        self.send(bytes).await
    }

    fn local_addr(&self) -> Result<SocketAddr, webrtc_util::Error> {
        Ok(self.socket.local_addr()?)
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        Some(self.server)
    }

    async fn close(&self) -> Result<(), webrtc_util::Error> {
        Ok(())
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_base::Pii;
    use stun::error_code::{CODE_FORBIDDEN, CODE_UNAUTHORIZED};
    use stun::message::{MessageClass, MessageType, Setter};

    fn message(id: u8, class: MessageClass, rest: Vec<Box<dyn Setter>>) -> Message {
        let mut message = Message::new();
        let mut all: Vec<Box<dyn Setter>> =
            vec![Box::new(TransactionId([id; 12])), Box::new(MessageType::new(METHOD_CHANNEL_BIND, class))];
        all.extend(rest);
        message.build(&all).unwrap();
        message
    }

    async fn tap() -> Tap {
        let credentials =
            Credentials { user: Pii::new("alice".to_owned()), password: Secret::new("wonderland".to_owned()) };
        Tap::open("127.0.0.1:9".parse().unwrap(), &credentials).await.unwrap()
    }

    fn bound(tap: &Tap) -> Option<Answer> {
        tap.seen().borrow().bind.answer
    }

    #[tokio::test]
    async fn an_answer_belongs_to_the_last_request() {
        let tap = tap().await;
        tap.note(&message(1, CLASS_REQUEST, vec![]).raw);
        tap.note(&message(2, CLASS_REQUEST, vec![]).raw);
        tap.note(&message(1, CLASS_SUCCESS_RESPONSE, vec![]).raw);
        assert_eq!(bound(&tap), None);
        tap.note(&message(2, CLASS_ERROR_RESPONSE, vec![Box::new(CODE_FORBIDDEN)]).raw);
        assert_eq!(bound(&tap), Some(Answer::Error(403)));
        assert_eq!(tap.seen().borrow().permit.answer, None);
    }

    #[tokio::test]
    async fn a_success_counts_when_it_is_signed_with_the_password() {
        let tap = tap().await;
        let realm = TextAttribute::new(ATTR_REALM, "relay.test".to_owned());
        tap.note(&message(1, CLASS_REQUEST, vec![]).raw);
        tap.note(&message(1, CLASS_ERROR_RESPONSE, vec![Box::new(CODE_UNAUTHORIZED), Box::new(realm)]).raw);
        let signed = |password: &str| -> Vec<Box<dyn Setter>> {
            let (user, realm) = ("alice".to_owned(), "relay.test".to_owned());
            vec![Box::new(MessageIntegrity::new_long_term_integrity(user, realm, password.to_owned()))]
        };
        for (rest, expected) in [
            (vec![], Answer::Unsigned),
            (signed("looking glass"), Answer::Unsigned),
            (signed("wonderland"), Answer::Success),
        ] {
            tap.note(&message(2, CLASS_REQUEST, vec![]).raw);
            tap.note(&message(2, CLASS_SUCCESS_RESPONSE, rest).raw);
            assert_eq!(bound(&tap), Some(expected));
        }
    }
}
