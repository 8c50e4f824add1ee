//! Breaks what a worker sends on its way to the oracle, to prove that the oracle sees it.

use std::net::SocketAddr;

use sluice_base::io::SocketRole;

use crate::oracle::Outgoing;

/// What is done to packets that leave the relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Tamper {
    /// Nothing.
    #[default]
    Nothing,
    /// Each hundredth packet to a peer goes to another address too.
    CopyToWrongPeer,
    /// Each hundredth relayed packet to a client goes to the client that got the last one instead.
    WrongClient,
    /// Each hundredth relayed packet has one bit changed.
    FlipBit,
    /// Each hundredth relayed packet leaves twice.
    Twice,
}

/// What became of a packet.
pub(crate) enum Tampered {
    One(Outgoing),
    Two(Outgoing, Outgoing),
}

impl Tamper {
    pub(crate) fn touch(&self, mut outgoing: Outgoing) -> Tampered {
        let relayed = outgoing.origin.is_some() && outgoing.bytes.len() > 8;
        // Payloads are random: their last byte draws the one in a hundred.
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
                let middle = outgoing.bytes.len() - 6;
                outgoing.bytes[middle] ^= 4;
                Tampered::One(outgoing)
            }
            Tamper::Twice if hit => Tampered::Two(outgoing.clone(), outgoing),
            _ => Tampered::One(outgoing),
        }
    }
}
