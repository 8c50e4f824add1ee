//! What a run has seen.

use std::collections::BTreeMap;
use std::fmt;

/// How much of each thing happened: a run in which nothing happens proves nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Coverage {
    /// Successful Allocates.
    pub allocations: u64,
    /// Those with two relayed addresses.
    pub dual: u64,
    /// Reservation tokens used.
    pub tokens_used: u64,
    /// Successful Refreshes.
    pub refreshes: u64,
    /// Allocations, or families of them, ended by their client.
    pub ended: u64,
    /// Successful CreatePermissions.
    pub permissions: u64,
    /// Successful ChannelBinds.
    pub channels: u64,
    /// Packets relayed to peers.
    pub to_peer: u64,
    /// Those by a channel.
    pub by_channel: u64,
    /// Packets relayed from relay sockets to clients.
    pub to_client: u64,
    /// Packets to clients as Data indications.
    pub data_indications: u64,
    /// Packets between two allocations inside a worker.
    pub hairpins: u64,
    /// Requests that came again.
    pub retransmissions: u64,
    /// Answers given again.
    pub answers_repeated: u64,
    /// Answers lost for want of a slot.
    pub answers_lost: u64,
    /// Questions.
    pub questions: u64,
    /// Those that ask again before a grant ends.
    pub reviews: u64,
    /// Signed errors, by code.
    pub errors: BTreeMap<u16, u64>,
    /// Ports that were counted at the end.
    pub ports_counted: u64,
    /// Orders to end an allocation.
    pub orders: u64,
    /// Bans.
    pub bans: u64,
    /// Configurations that came into force again.
    pub reloads: u64,
    /// Payloads that reached a peer's or client's model.
    pub received: u64,
    /// Ticks of workers.
    pub ticks: u64,
    /// Stays whose end was told.
    pub stays: u64,
    /// Refusals that were told.
    pub denied: u64,
}

/// A run that went well.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What happened.
    pub coverage: Coverage,
}

/// A run that found something, with what led to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// Which invariant does not hold.
    pub what: String,
    /// The events before it.
    pub trace: Vec<String>,
}

impl Coverage {
    /// Adds another run's.
    pub fn add(&mut self, other: &Coverage) {
        let pairs = [
            (&mut self.allocations, other.allocations),
            (&mut self.dual, other.dual),
            (&mut self.tokens_used, other.tokens_used),
            (&mut self.refreshes, other.refreshes),
            (&mut self.ended, other.ended),
            (&mut self.permissions, other.permissions),
            (&mut self.channels, other.channels),
            (&mut self.to_peer, other.to_peer),
            (&mut self.by_channel, other.by_channel),
            (&mut self.to_client, other.to_client),
            (&mut self.data_indications, other.data_indications),
            (&mut self.hairpins, other.hairpins),
            (&mut self.retransmissions, other.retransmissions),
            (&mut self.answers_repeated, other.answers_repeated),
            (&mut self.answers_lost, other.answers_lost),
            (&mut self.questions, other.questions),
            (&mut self.reviews, other.reviews),
            (&mut self.ports_counted, other.ports_counted),
            (&mut self.orders, other.orders),
            (&mut self.bans, other.bans),
            (&mut self.reloads, other.reloads),
            (&mut self.received, other.received),
            (&mut self.ticks, other.ticks),
            (&mut self.stays, other.stays),
            (&mut self.denied, other.denied),
        ];
        pairs.into_iter().for_each(|(sum, more)| *sum += more);
        other.errors.iter().for_each(|(code, more)| *self.errors.entry(*code).or_default() += more);
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "seed {}: {}", self.seed, self.what)?;
        write!(
            f,
            "replay it with every event: SLUICE_SIM_SEED={} cargo test --release -p sluice-sim --test seeds replay -- \
             --nocapture",
            self.seed
        )
    }
}

impl std::error::Error for Failure {}
