//! What a worker tells whoever keeps records: the beginning and end of each client's stay, refusals, and what a media
//! stream was like. Never of a packet.

use std::sync::Arc;
use std::time::Duration;

use crate::id::{SessionId, TenantId};
use crate::message::Traffic;
use crate::pii::{Pii, TransportAddress};
use crate::stats::media::MediaKind;
use crate::stats::{Code, Leg, Method};

/// Something to be recorded. Personal data inside does not print.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RelayEvent {
    /// An allocation exists.
    Began(Began),
    /// An allocation that began is gone. Each has exactly one end.
    Ended(Ended),
    /// Somebody who is known was refused.
    Denied(Denied),
    /// A media stream is over.
    StreamEnded(StreamEnded),
    /// A plugin has words for the audit.
    Tagged(Tagged),
}

/// The beginning of a client's stay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Began {
    /// Names the stay.
    pub session: SessionId,
    /// Whose user it is.
    pub tenant: TenantId,
    /// The user name without expiry and tenant.
    pub user: Pii<Arc<[u8]>>,
    /// The client.
    pub client: TransportAddress,
    /// The relayed transport addresses as they were announced: IPv4, IPv6.
    pub relayed: [Option<TransportAddress>; 2],
    /// When, in seconds since the Unix epoch.
    pub unix_seconds: u64,
    /// How long it lives unless it is refreshed.
    pub lifetime: Duration,
}

/// The end of a client's stay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// Names the stay.
    pub session: SessionId,
    /// Whose user it is.
    pub tenant: TenantId,
    /// The user name without expiry and tenant.
    pub user: Pii<Arc<[u8]>>,
    /// The client.
    pub client: TransportAddress,
    /// When, in seconds since the Unix epoch.
    pub unix_seconds: u64,
    /// How long it lived.
    pub age: Duration,
    /// Why it ended.
    pub reason: EndReason,
    /// What it relayed.
    pub traffic: Traffic,
    /// Permissions that were ever made; a renewed one counts once.
    pub permissions: u32,
    /// Channels that were ever bound; a renewed one counts once.
    pub channels: u32,
}

/// Why a client's stay ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum EndReason {
    /// Its client ended it (RFC 8656, 8.2: a lifetime of zero).
    Client,
    /// It was not refreshed in time.
    Expired,
    /// A policy's grant ran out, or its second thought was no.
    Policy,
    /// An operator ended it.
    Order,
    /// Its client was banned.
    Banned,
    /// The relay stopped.
    Stopped,
}

impl EndReason {
    /// Every one.
    pub const ALL: [EndReason; 6] = [
        EndReason::Client,
        EndReason::Expired,
        EndReason::Policy,
        EndReason::Order,
        EndReason::Banned,
        EndReason::Stopped,
    ];

    /// Its word in records.
    pub const fn text(self) -> &'static str {
        match self {
            EndReason::Client => "client",
            EndReason::Expired => "expired",
            EndReason::Policy => "policy",
            EndReason::Order => "order",
            EndReason::Banned => "banned",
            EndReason::Stopped => "stopped",
        }
    }
}

/// A refusal of somebody who had proved who they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Denied {
    /// The stay that it was asked in, which may be over by now, or of an Allocate the one that was asked for: that will
    /// not begin. None where no question came of an Allocate.
    pub session: Option<SessionId>,
    /// Whose user it is.
    pub tenant: TenantId,
    /// The user name without expiry and tenant.
    pub user: Pii<Arc<[u8]>>,
    /// The client.
    pub client: TransportAddress,
    /// When, in seconds since the Unix epoch.
    pub unix_seconds: u64,
    /// What was asked for.
    pub method: Method,
    /// The answer.
    pub code: Code,
}

/// What a plugin wants to have remembered of a verdict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tagged {
    /// The stay that it was asked about.
    pub session: SessionId,
    /// Whose plugin it is.
    pub tenant: TenantId,
    /// When, in seconds since the Unix epoch.
    pub unix_seconds: u64,
    /// The operator's name for it.
    pub plugin: Arc<str>,
    /// What it was asked.
    pub hook: &'static str,
    /// Whether it said yes; one no among several things is a no.
    pub allowed: bool,
    /// Its words: short, and none of them an address.
    pub tags: Vec<String>,
}

/// What a media stream (RFC 3550) was like on its way to the relay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamEnded {
    /// The stay that it belonged to.
    pub session: SessionId,
    /// Whose user it is.
    pub tenant: TenantId,
    /// The side that it came from.
    pub leg: Leg,
    /// What it seems to have carried.
    pub kind: MediaKind,
    /// When it was over, in seconds since the Unix epoch.
    pub unix_seconds: u64,
    /// From its first packet to its last.
    pub duration: Duration,
    /// Packets that its sequence numbers promised.
    pub packets_expected: u64,
    /// Of those, packets that did not come in time.
    pub packets_lost: u64,
    /// Of those, packets that did.
    pub packets_received: u64,
    /// Bytes of all of its packets, from the RTP header on.
    pub bytes: u64,
    /// Interarrival jitter (RFC 3550, A.8) at its end; none where its clock was not known.
    pub jitter: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_words_of_their_own() {
        let words: std::collections::BTreeSet<_> = EndReason::ALL.iter().map(|reason| reason.text()).collect();
        assert_eq!(words.len(), EndReason::ALL.len());
    }

    #[test]
    fn a_session_prints_as_hexadecimal_digits() {
        assert_eq!(SessionId([0xab; 16]).to_string(), "ab".repeat(16));
    }
}
