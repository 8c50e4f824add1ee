//! Model peers: they answer, speak up, and flood relayed addresses that never permitted them.

use std::net::SocketAddr;

use sluice_base::Mono;

use crate::client::{Context, payload};
use crate::kernel::Packet;

/// One peer.
pub(crate) struct Peer {
    pub(crate) local: SocketAddr,
    known: Vec<SocketAddr>,
    act_at: Mono,
    /// Payloads that arrived.
    pub(crate) received: u64,
}

impl Peer {
    pub(crate) fn new(local: SocketAddr, start: Mono) -> Self {
        Peer { local, known: Vec::new(), act_at: start, received: 0 }
    }

    /// When it wants to be polled.
    pub(crate) fn next(&self) -> Mono {
        self.act_at
    }

    /// Speaks up.
    pub(crate) fn poll(&mut self, c: &mut Context<'_>) {
        if c.now.mono < self.act_at {
            return;
        }
        self.act_at = c.now.mono.after(c.rng.millis(1, c.scenario.idle_ms * 5));
        let count = if c.rng.chance(20) { 60 } else { c.rng.between(1, 6) };
        let stranger = c.rng.chance(300);
        for _ in 0..count {
            let all = if stranger { &c.board.relayed } else { &self.known };
            let newest = all.len().saturating_sub(10);
            if all.is_empty() {
                return;
            }
            let to = c.rng.pick(&all[newest..]);
            self.send(c, to);
        }
    }

    /// A packet has come.
    pub(crate) fn receive(&mut self, c: &mut Context<'_>, from: SocketAddr) {
        self.received += 1;
        if self.known.last() != Some(&from) {
            self.known.retain(|known| *known != from);
            self.known.push(from);
        }
        if c.rng.chance(500) {
            self.send(c, from);
        }
    }

    fn send(&self, c: &mut Context<'_>, to: SocketAddr) {
        if to.is_ipv4() != self.local.is_ipv4() {
            return;
        }
        let mut bytes = payload(c);
        if c.rng.chance(10) {
            bytes.resize(c.rng.between(1400, 2100) as usize, 0x5a);
        }
        c.out.push(Packet { from: self.local, to, bytes });
    }
}
