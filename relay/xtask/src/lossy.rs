//! A way that loses media: a UDP proxy in front of a relay's listener. What a client sends is lost by a pattern that a
//! seed decides, and only what looks like RTP; everything else passes, and so does all that comes back.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use sluice_wire::{channel_data, rtp};

/// The longest datagram.
const DATAGRAM_BYTES: usize = 65_536;

/// How long a thread waits for a packet before it looks whether it is to end.
const PATIENCE: Duration = Duration::from_millis(50);

/// What the proxy has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Toll {
    /// RTP packets that came.
    pub(crate) came: u64,
    /// Those of them that were lost here.
    pub(crate) lost: u64,
}

/// The toll of each source.
type Tolls = Arc<Mutex<BTreeMap<u32, Toll>>>;

/// A running proxy; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Lossy {
    /// Where clients come to.
    pub(crate) address: SocketAddr,
    tolls: Tolls,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Which packets are lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pattern {
    pub(crate) seed: u64,
    /// Of 1000 packets.
    pub(crate) per_mille: u64,
}

impl Pattern {
    /// Whether a packet is lost: decided by seed, source and number alone.
    fn loses(&self, ssrc: u32, sequence: u16) -> bool {
        let mixed = (self.seed ^ u64::from(ssrc) << 16 ^ u64::from(sequence)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 33) % 1000 < self.per_mille
    }
}

impl Lossy {
    /// Starts one on a free port of `ip`, in front of `relay`.
    pub(crate) fn start(ip: &str, relay: SocketAddr, pattern: Pattern) -> Result<Self, String> {
        let front = UdpSocket::bind((ip, 0)).and_then(patient).map_err(|e| format!("a proxy on {ip}: {e}"))?;
        let address = front.local_addr().map_err(|e| e.to_string())?;
        let (tolls, stop) = (Tolls::default(), Arc::new(AtomicBool::new(false)));
        let upstream = Upstream { front: Arc::new(front), relay, pattern, tolls: tolls.clone(), stop: stop.clone() };
        let thread = Builder::new().name("lossy".to_owned()).spawn(move || upstream.run());
        Ok(Lossy { address, tolls, stop, thread: Some(thread.map_err(|e| e.to_string())?) })
    }

    /// What it has done to the sources that are wanted.
    pub(crate) fn toll(&self, wanted: impl Fn(u32) -> bool) -> Toll {
        let tolls = self.tolls.lock().unwrap_or_else(PoisonError::into_inner);
        let of = tolls.iter().filter(|(source, _)| wanted(**source)).map(|(_, toll)| toll);
        of.fold(Toll::default(), |sum, toll| Toll { came: sum.came + toll.came, lost: sum.lost + toll.lost })
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// From the clients to the relay, by a socket for each of them.
struct Upstream {
    front: Arc<UdpSocket>,
    relay: SocketAddr,
    pattern: Pattern,
    tolls: Tolls,
    stop: Arc<AtomicBool>,
}

impl Upstream {
    fn run(self) {
        let mut ways: HashMap<SocketAddr, (Arc<UdpSocket>, JoinHandle<()>)> = HashMap::new();
        let mut bytes = vec![0; DATAGRAM_BYTES];
        while !self.stop.load(Ordering::Relaxed) {
            let Ok((len, client)) = self.front.recv_from(&mut bytes) else {
                continue;
            };
            if self.is_lost(&bytes[..len]) {
                continue;
            }
            if let Entry::Vacant(place) = ways.entry(client)
                && let Ok(way) = self.open(client)
            {
                place.insert(way);
            }
            if let Some((back, _)) = ways.get(&client) {
                // A relay that is gone is found out by the client.
                let _ = back.send(&bytes[..len]);
            }
        }
        ways.into_values().for_each(|(_, thread)| drop(thread.join()));
    }

    fn is_lost(&self, bytes: &[u8]) -> bool {
        let Ok((_, len)) = channel_data::parse(bytes) else {
            return false;
        };
        let Some(rtp::Packet::Rtp(rtp)) = rtp::parse(&bytes[channel_data::HEADER_LEN..][..len]) else {
            return false;
        };
        let lost = self.pattern.loses(rtp.ssrc(), rtp.sequence());
        let mut tolls = self.tolls.lock().unwrap_or_else(PoisonError::into_inner);
        let toll = tolls.entry(rtp.ssrc()).or_default();
        toll.came += 1;
        toll.lost += u64::from(lost);
        lost
    }

    /// A socket to the relay, and a thread that carries back what comes by it.
    fn open(&self, client: SocketAddr) -> std::io::Result<(Arc<UdpSocket>, JoinHandle<()>)> {
        let back = UdpSocket::bind("0.0.0.0:0").and_then(patient)?;
        back.connect(self.relay)?;
        let back = Arc::new(back);
        let (front, stop, from) = (self.front.clone(), self.stop.clone(), back.clone());
        let carry = move || {
            let mut bytes = vec![0; DATAGRAM_BYTES];
            while !stop.load(Ordering::Relaxed) {
                if let Ok(len) = from.recv(&mut bytes) {
                    let _ = front.send_to(&bytes[..len], client);
                }
            }
        };
        Ok((back, Builder::new().name("lossy-back".to_owned()).spawn(carry)?))
    }
}

fn patient(socket: UdpSocket) -> std::io::Result<UdpSocket> {
    socket.set_read_timeout(Some(PATIENCE)).map(|()| socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_what_is_lost_and_about_how_much() {
        let lost = |seed| {
            let pattern = Pattern { seed, per_mille: 50 };
            (0..20_000).map(|n| pattern.loses(0xcafe, n)).collect::<Vec<_>>()
        };
        assert_eq!(lost(1), lost(1));
        assert_ne!(lost(1), lost(2));
        for seed in 1..20 {
            let count = lost(seed).into_iter().filter(|lost| *lost).count();
            assert!((850..1150).contains(&count), "{count} with seed {seed}");
        }
    }
}
