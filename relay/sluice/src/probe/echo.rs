//! Packets through the relay and back.

use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;
use rand_core::{OsRng, TryRngCore as _};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::diagnosis::Trouble;
use super::leg::{Leg, OPENING, OwnSocket};

/// Bytes of a packet's mark, and of its number behind it.
const MARK_BYTES: usize = 8;
const NUMBER_BYTES: usize = 8;

/// Longest datagram.
const DATAGRAM_BYTES: usize = 65_535;

/// Round trips are kept from 1 us to this, with this many digits.
const RTT_US_HIGHEST: u64 = 200_000_000;
const RTT_DIGITS: u8 = 3;

/// What is sent.
pub(super) struct Plan {
    pub(super) count: u32,
    pub(super) interval: Duration,
    pub(super) bytes: usize,
    /// How long after the last packet an echo may still come.
    pub(super) wait: Duration,
}

/// Who sends back.
pub(super) enum Echoer {
    Allocation(Leg),
    Socket(OwnSocket),
    /// Somebody else.
    Service,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Echo {
    pub(super) sent: u32,
    /// Packets that reached the one who sends back, where that is ours to know.
    pub(super) arrived: Option<u32>,
    pub(super) returned: u32,
    pub(super) duplicates: u32,
    pub(super) damaged: u32,
    /// Microseconds.
    pub(super) rtt: Histogram<u64>,
}

impl Echo {
    /// Packets that did not come back, in percent.
    pub(super) fn loss_percent(&self) -> f64 {
        100.0 * f64::from(self.sent - self.returned) / f64::from(self.sent.max(1))
    }
}

impl Echoer {
    /// Opens its way back to a relayed address.
    pub(super) async fn permit(&mut self, relayed: SocketAddr, wait: Duration) -> Result<(), Trouble> {
        match self {
            Echoer::Allocation(leg) => leg.permit(relayed, wait).await,
            // A translator in front of it lets nobody in who was not sent to.
            Echoer::Socket(socket) => socket.send(OPENING, relayed).await,
            Echoer::Service => Ok(()),
        }
    }

    /// Waits for its channel.
    pub(super) async fn bind(&mut self, wait: Duration) -> Result<(), Trouble> {
        match self {
            Echoer::Allocation(leg) => leg.bind(wait).await,
            Echoer::Socket(_) | Echoer::Service => Ok(()),
        }
    }

    /// The next packet that came to it, and where from.
    async fn receive(&self, bytes: &mut [u8], relayed: SocketAddr) -> Result<(usize, SocketAddr), Trouble> {
        match self {
            Echoer::Allocation(leg) => leg.receive(bytes).await.map(|length| (length, relayed)),
            Echoer::Socket(socket) => socket.receive(bytes).await,
            Echoer::Service => std::future::pending().await,
        }
    }

    async fn send(&self, bytes: &[u8], to: SocketAddr) -> Result<(), Trouble> {
        match self {
            Echoer::Allocation(leg) => leg.send(bytes, to).await,
            Echoer::Socket(socket) => socket.send(bytes, to).await,
            Echoer::Service => Ok(()),
        }
    }

    fn is_ours(&self) -> bool {
        !matches!(self, Echoer::Service)
    }
}

/// Sends all packets to a peer, lets them be sent back, and waits for the last.
pub(super) async fn run(near: &Leg, peer: SocketAddr, echoer: &Echoer, plan: &Plan) -> Result<Echo, Trouble> {
    let mut journey = Journey::begin(plan, echoer.is_ours())?;
    let (mut back, mut there) = (vec![0; DATAGRAM_BYTES], vec![0; DATAGRAM_BYTES]);
    let mut turns = interval(plan.interval);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !journey.is_over() {
        tokio::select! {
            _ = turns.tick(), if !journey.all_sent() => near.send(journey.next(), peer).await?,
            length = near.receive(&mut back) => journey.returned(&back[..length?]),
            got = echoer.receive(&mut there, near.relayed) => {
                let (length, from) = got?;
                if journey.arrived(&there[..length]) {
                    echoer.send(&there[..length], from).await?;
                }
            }
            () = sleep_until(journey.end()), if journey.all_sent() => break,
        }
    }
    Ok(journey.echo)
}

/// Packets on their way.
struct Journey {
    packet: Vec<u8>,
    count: u32,
    wait: Duration,
    /// When each was sent, and whether it is back.
    moments: Vec<(Instant, bool)>,
    echo: Echo,
}

impl Journey {
    fn begin(plan: &Plan, is_ours: bool) -> Result<Self, Trouble> {
        let mut packet: Vec<u8> = (0..plan.bytes).map(|at| at as u8).collect();
        OsRng.try_fill_bytes(&mut packet[..MARK_BYTES]).map_err(|_| Trouble::NoRandomness)?;
        let rtt = Histogram::new_with_bounds(1, RTT_US_HIGHEST, RTT_DIGITS).map_err(|_| Trouble::Nonsense)?;
        let arrived = is_ours.then_some(0);
        let echo = Echo { sent: 0, arrived, returned: 0, duplicates: 0, damaged: 0, rtt };
        Ok(Journey { packet, count: plan.count, wait: plan.wait, moments: Vec::new(), echo })
    }

    /// The next packet, which is sent now.
    fn next(&mut self) -> &[u8] {
        let number = u64::from(self.echo.sent);
        self.echo.sent += 1;
        self.moments.push((Instant::now(), false));
        self.number(number);
        &self.packet
    }

    fn number(&mut self, number: u64) {
        self.packet[MARK_BYTES..MARK_BYTES + NUMBER_BYTES].copy_from_slice(&number.to_be_bytes());
    }

    /// Whether what came to the one who sends back is to be sent back.
    fn arrived(&mut self, bytes: &[u8]) -> bool {
        let is_ours = self.has_mark(bytes);
        if is_ours {
            self.echo.arrived = self.echo.arrived.map(|arrived| arrived + 1);
        }
        is_ours
    }

    fn returned(&mut self, bytes: &[u8]) {
        let now = Instant::now();
        if !self.has_mark(bytes) {
            return;
        }
        let number = bytes.get(MARK_BYTES..MARK_BYTES + NUMBER_BYTES).and_then(|n| n.try_into().ok());
        let number = number.map_or(u64::MAX, u64::from_be_bytes);
        self.number(number);
        let is_whole = bytes == self.packet;
        match usize::try_from(number).ok().and_then(|at| self.moments.get_mut(at)) {
            Some((_, true)) => self.echo.duplicates += 1,
            Some((sent, is_back)) if is_whole => {
                *is_back = true;
                self.echo.returned += 1;
                let us = u64::try_from(now.duration_since(*sent).as_micros()).unwrap_or(u64::MAX);
                self.echo.rtt.saturating_record(us.max(1));
            }
            _ => self.echo.damaged += 1,
        }
    }

    fn has_mark(&self, bytes: &[u8]) -> bool {
        bytes.get(..MARK_BYTES) == Some(&self.packet[..MARK_BYTES])
    }

    fn all_sent(&self) -> bool {
        self.echo.sent == self.count
    }

    fn is_over(&self) -> bool {
        self.echo.returned == self.count
    }

    /// When nothing is waited for any more.
    fn end(&self) -> Instant {
        self.moments.last().map_or_else(Instant::now, |(sent, _)| *sent + self.wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journey() -> Journey {
        let plan = Plan { count: 3, interval: Duration::from_millis(1), bytes: 40, wait: Duration::ZERO };
        Journey::begin(&plan, true).unwrap()
    }

    #[test]
    fn a_packet_counts_once_and_whole() {
        let mut journey = journey();
        let first = journey.next().to_vec();
        let second = journey.next().to_vec();
        journey.returned(&second);
        journey.returned(&second);
        let mut damaged = first.clone();
        damaged[39] ^= 1;
        journey.returned(&damaged);
        journey.returned(&first[..30]);
        let echo = &journey.echo;
        assert_eq!((echo.sent, echo.returned, echo.duplicates, echo.damaged), (2, 1, 1, 2));
        assert_eq!((echo.rtt.len(), echo.loss_percent()), (1, 50.0));
    }

    #[test]
    fn packets_of_others_are_neither_counted_nor_sent_back() {
        let (mut mine, mut other) = (journey(), journey());
        let packet = mine.next().to_vec();
        assert!(mine.arrived(&packet) && !other.arrived(&packet) && !mine.arrived(OPENING));
        other.returned(&packet);
        assert_eq!((mine.echo.arrived, other.echo.damaged), (Some(1), 0));
    }

    #[test]
    fn a_number_that_was_never_sent_is_damage() {
        let mut journey = journey();
        let mut packet = journey.next().to_vec();
        packet[MARK_BYTES] = 0xff;
        journey.returned(&packet);
        assert_eq!((journey.echo.returned, journey.echo.damaged), (0, 1));
    }
}
