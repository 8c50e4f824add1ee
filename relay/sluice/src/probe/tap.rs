//! The socket under the `turn` crate's client, which also notes what a relay answers: the client's own errors do
//! not tell a wrong password from a lost packet, and those of a channel not at all.

use std::any::Any;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use async_trait::async_trait;
use stun::agent::TransactionId;
use stun::attributes::ATTR_USERNAME;
use stun::error_code::ErrorCodeAttribute;
use stun::message::{
    CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, Getter as _, METHOD_ALLOCATE, METHOD_CHANNEL_BIND, METHOD_CREATE_PERMISSION,
    Message, Method, is_message,
};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use webrtc_util::Conn;

/// What stands for a success among codes of errors.
pub(super) const SUCCESS: u16 = 200;

/// A UDP socket that is connected to a relay.
#[derive(Debug)]
pub(super) struct Tap {
    socket: UdpSocket,
    server: SocketAddr,
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
    /// The code of the answer: [`SUCCESS`] or an error's. `None` before one came.
    pub(super) code: Option<u16>,
}

impl Tap {
    /// A socket towards a relay.
    pub(super) async fn open(server: SocketAddr) -> io::Result<Self> {
        let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).await?;
        // Only a connected socket is told that nobody listens.
        socket.connect(server).await?;
        Ok(Tap { socket, server, seen: watch::Sender::new(Seen::default()) })
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
            self.seen.send_if_modified(|seen| seen.note(&message));
        }
    }
}

impl Seen {
    fn note(&mut self, message: &Message) -> bool {
        let Some(exchange) = self.exchange(message.typ.method) else {
            return false;
        };
        if message.typ.class == CLASS_REQUEST {
            // A request that is sent again is the same one.
            if exchange.id != message.transaction_id {
                let is_signed = message.contains(ATTR_USERNAME);
                *exchange = Exchange { id: message.transaction_id, is_signed, code: None };
            }
            return true;
        }
        if exchange.id == message.transaction_id {
            exchange.code = Some(code(message));
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

/// The code of an answer; 0 for an error without one.
fn code(answer: &Message) -> u16 {
    if answer.typ.class == CLASS_SUCCESS_RESPONSE {
        return SUCCESS;
    }
    let mut error = ErrorCodeAttribute::default();
    error.get_from(answer).map_or(0, |()| error.code.0)
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
    use stun::error_code::CODE_FORBIDDEN;
    use stun::message::{CLASS_ERROR_RESPONSE, MessageType, Setter};

    fn message(id: u8, class: stun::message::MessageClass, rest: Vec<Box<dyn Setter>>) -> Message {
        let mut message = Message::new();
        let mut all: Vec<Box<dyn Setter>> =
            vec![Box::new(TransactionId([id; 12])), Box::new(MessageType::new(METHOD_CHANNEL_BIND, class))];
        all.extend(rest);
        message.build(&all).unwrap();
        message
    }

    #[test]
    fn an_answer_belongs_to_the_last_request() {
        let mut seen = Seen::default();
        seen.note(&message(1, CLASS_REQUEST, vec![]));
        seen.note(&message(2, CLASS_REQUEST, vec![]));
        seen.note(&message(1, CLASS_SUCCESS_RESPONSE, vec![]));
        assert_eq!(seen.bind.code, None);
        seen.note(&message(2, CLASS_ERROR_RESPONSE, vec![Box::new(CODE_FORBIDDEN)]));
        assert_eq!((seen.bind.code, seen.permit.code), (Some(403), None));
    }
}
