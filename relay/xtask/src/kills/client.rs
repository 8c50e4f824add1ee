//! A client that allocates and remembers what it was told (RFC 8656, 7; RFC 8489, 9.2).

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sluice_crypto::{HmacKey, long_term_key_md5};
use sluice_wire::stun::{Builder, Class, Message, Method, TransactionId, attribute};

/// UDP in REQUESTED-TRANSPORT (RFC 8656, 18.8).
const TRANSPORT_UDP: u32 = 17 << 24;

/// How long an answer is waited for: longer than any admission waits for its record.
const PATIENCE: Duration = Duration::from_millis(500);

/// What came of an Allocate request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// The allocation is there.
    Success,
    /// It was refused, with this code.
    Refused(u16),
    /// Nobody answers.
    Silence,
}

/// Allocates once, from an address and a port of the kernel's.
pub(super) fn allocate(from: IpAddr, server: SocketAddr, (user, password): (&str, &str)) -> Result<Answer, String> {
    let socket = UdpSocket::bind((from, 0)).map_err(|e| format!("{from}: {e}"))?;
    allocate_over(&socket, server, (user, password))
}

/// Allocates once, over a socket that nobody else uses.
pub(crate) fn allocate_over(
    socket: &UdpSocket,
    server: SocketAddr,
    (user, password): (&str, &str),
) -> Result<Answer, String> {
    socket.connect(server).map_err(|e| format!("{server}: {e}"))?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
    let mut buffer = [0; 1024];
    let length = request(&mut buffer, None)?;
    let Some(length) = ask(socket, &mut buffer, length) else { return Ok(Answer::Silence) };
    let challenge = Message::parse(&buffer[..length]).map_err(|e| format!("{e:?}"))?;
    let (Some(realm), Some(nonce)) = (challenge.attributes.realm, challenge.attributes.nonce) else {
        return Ok(answer_of(&challenge));
    };
    let key = long_term_key_md5(user, realm, password);
    let key = HmacKey::sha1(key.expose());
    let (realm, nonce) = (realm.to_vec(), nonce.to_vec());
    let length = request(&mut buffer, Some((user, &realm, &nonce, &key)))?;
    let Some(length) = ask(socket, &mut buffer, length) else { return Ok(Answer::Silence) };
    Ok(answer_of(&Message::parse(&buffer[..length]).map_err(|e| format!("{e:?}"))?))
}

/// Clients that allocate one after the other, from an address of each; how often each was told that it has.
#[derive(Debug)]
pub(super) struct Crowd {
    clients: Vec<IpAddr>,
    acknowledged: Vec<AtomicU64>,
    is_over: AtomicBool,
}

impl Crowd {
    pub(super) fn new(clients: Vec<IpAddr>) -> Self {
        let acknowledged = clients.iter().map(|_| AtomicU64::new(0)).collect();
        Crowd { clients, acknowledged, is_over: AtomicBool::new(false) }
    }

    /// Allocates until it is over, while `meanwhile` runs; what each client was told, by its address.
    pub(super) fn during<T>(
        self,
        server: SocketAddr,
        account: (&str, &str),
        meanwhile: impl FnOnce() -> Result<T, String>,
    ) -> Result<(T, Vec<(IpAddr, u64)>), String> {
        let done = std::thread::scope(|scope| {
            for (client, acknowledged) in self.clients.iter().zip(&self.acknowledged) {
                let is_over = &self.is_over;
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        if allocate(*client, server, account) == Ok(Answer::Success) {
                            acknowledged.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            let done = meanwhile();
            self.is_over.store(true, Ordering::Relaxed);
            done
        })?;
        let told = self.acknowledged.into_iter().map(AtomicU64::into_inner);
        Ok((done, self.clients.into_iter().zip(told).collect()))
    }
}

/// Name, realm, nonce and key.
type Signed<'a> = (&'a str, &'a [u8], &'a [u8], &'a HmacKey);

fn request(buffer: &mut [u8], signed: Option<Signed<'_>>) -> Result<usize, String> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let mut id = [0; 12];
    id[4..].copy_from_slice(&NUMBER.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    let mut builder = Builder::new(buffer, Class::Request, Method::ALLOCATE, TransactionId(id));
    builder.u32(attribute::REQUESTED_TRANSPORT, TRANSPORT_UDP);
    if let Some((user, realm, nonce, key)) = signed {
        builder
            .bytes(attribute::USERNAME, user.as_bytes())
            .bytes(attribute::REALM, realm)
            .bytes(attribute::NONCE, nonce)
            .integrity_sha1(|parts| key.sign(parts));
    }
    builder.finish().map_err(|error| error.to_string())
}

/// Sends a request, and reads the next answer over it; on loopback nothing else comes, and nothing is lost.
fn ask(socket: &UdpSocket, buffer: &mut [u8], length: usize) -> Option<usize> {
    socket.send(&buffer[..length]).ok()?;
    socket.recv(buffer).ok()
}

fn answer_of(message: &Message<'_>) -> Answer {
    match message.class {
        Class::Success => Answer::Success,
        _ => Answer::Refused(message.attributes.error_code.map_or(0, |(code, _)| code)),
    }
}
