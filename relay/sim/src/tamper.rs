//! Breaks what passes between a worker and the simulated kernel, to prove that the oracle sees it.

use std::net::SocketAddr;
use std::time::Duration;

use sluice_base::event::RelayEvent;
use sluice_base::io::SocketRole;
use sluice_base::policy::{Grant, Hook, Verdict};
use sluice_base::{Mono, Now};

use crate::oracle::Outgoing;

/// How far behind [`Tamper::SlowClock`] is.
const BEHIND: Duration = Duration::from_secs(2);

/// What is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Tamper {
    /// Nothing.
    #[default]
    Nothing,
    /// About each hundredth packet to a peer goes to another address too.
    CopyToWrongPeer,
    /// About each hundredth relayed packet to a client goes to somebody else instead.
    WrongClient,
    /// About each hundredth relayed packet has one bit changed.
    FlipBit,
    /// About each hundredth relayed packet is not sent.
    Drop,
    /// The workers' clock is two seconds behind: everything lives longer than its client was told.
    SlowClock,
    /// About each hundredth slot does not come back.
    LoseSlot,
    /// About each tenth end of a stay is not told.
    LoseEnd,
    /// The end of a stay that relayed anything tells of one packet less.
    ForgetPacket,
    /// The workers are told yes where a policy has refused a peer.
    IgnorePeerRefusal,
    /// The workers are told yes where a policy has taken back what lives.
    IgnoreSecondThought,
    /// The workers are not told how long a yes holds.
    IgnoreValidFor,
}

/// What became of a packet.
pub(crate) enum Tampered {
    None(Outgoing),
    One(Outgoing),
    Two(Outgoing, Outgoing),
}

impl Tamper {
    /// What a worker sends.
    pub(crate) fn touch(self, mut outgoing: Outgoing) -> Tampered {
        // Payloads are random: their last byte draws the one in a hundred.
        let relayed = outgoing.origin.is_some() && outgoing.bytes.len() > 8;
        let hit = relayed && outgoing.bytes.last().is_some_and(|byte| *byte < 3);
        match self {
            Tamper::CopyToWrongPeer if hit && outgoing.role == SocketRole::Relay => {
                let elsewhere = SocketAddr::new([8, 7, 6, 5].into(), outgoing.to.port());
                let copy = Outgoing { to: elsewhere, ..outgoing.clone() };
                Tampered::Two(outgoing, copy)
            }
            Tamper::WrongClient if hit && outgoing.role == SocketRole::Listener => {
                outgoing.to.set_port(outgoing.to.port() ^ 1);
                Tampered::One(outgoing)
            }
            Tamper::FlipBit if hit => {
                let inside = outgoing.bytes.len() - 6;
                outgoing.bytes[inside] ^= 4;
                Tampered::One(outgoing)
            }
            Tamper::Drop if hit => Tampered::None(outgoing),
            _ => Tampered::One(outgoing),
        }
    }

    /// What a worker takes for the time.
    pub(crate) fn clock(self, now: Now) -> Now {
        match self {
            Tamper::SlowClock => {
                let behind = now.mono.nanos().saturating_sub(BEHIND.as_nanos() as u64);
                Now { mono: Mono::from_nanos(behind), ..now }
            }
            _ => now,
        }
    }

    /// How long a worker waits at least for a deadline that has passed by the true clock.
    pub(crate) fn patience(self) -> Duration {
        if self == Tamper::SlowClock { Duration::from_millis(20) } else { Duration::from_nanos(1) }
    }

    /// What a worker is told of a verdict: the machine that does not enforce it.
    pub(crate) fn verdict(self, hook: Hook, verdict: Verdict) -> Verdict {
        let of_peer = matches!(hook, Hook::CreatePermission | Hook::ChannelBind);
        match (self, verdict) {
            (Tamper::IgnorePeerRefusal, Verdict::Deny(_)) if of_peer => Verdict::Allow(Grant::default()),
            (Tamper::IgnoreSecondThought, Verdict::Deny(_)) if hook == Hook::Review => Verdict::Allow(Grant::default()),
            (Tamper::IgnoreValidFor, Verdict::Allow(grant)) => Verdict::Allow(Grant { valid_for: None, ..grant }),
            (_, verdict) => verdict,
        }
    }

    /// What is told.
    pub(crate) fn told(self, mut event: RelayEvent) -> Option<RelayEvent> {
        match (self, &mut event) {
            (Tamper::LoseEnd, RelayEvent::Ended(ended)) if ended.session.0[0] < 25 => return None,
            (Tamper::ForgetPacket, RelayEvent::Ended(ended)) => {
                ended.traffic.packets_to_client = ended.traffic.packets_to_client.saturating_sub(1);
            }
            _ => {}
        }
        Some(event)
    }

    /// Whether a slot with this payload is lost.
    pub(crate) fn loses(self, payload: &[u8]) -> bool {
        self == Tamper::LoseSlot && payload.last().is_some_and(|byte| *byte < 3)
    }
}
