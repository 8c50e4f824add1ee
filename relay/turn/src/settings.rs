//! Options that change while a server runs.

use std::sync::Arc;

use rand_core::RngCore;
use sluice_base::Now;
use sluice_base::limits::BANS_MAX;

use crate::auth::{UserHashes, userhashes};
use crate::bans::Bans;
use crate::guard::{Guard, Judgement, SourceLimiter};
use crate::options::{Network, ServerOptions};
use crate::quota::AccountLimits;
use crate::server::Server;

/// Options with all that is computed from them, once for all workers.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(crate) options: ServerOptions,
    pub(crate) userhashes: Option<Arc<UserHashes>>,
    pub(crate) denied_clients: Arc<Bans>,
}

impl Settings {
    /// Computes it: work in the number of users and listeners, which is no worker's between two packets.
    pub fn new(options: ServerOptions) -> Self {
        let userhashes = userhashes(&options);
        let denied_clients = Arc::new(denied_clients(&options.guard.deny_clients));
        Settings { options, userhashes, denied_clients }
    }
}

/// Of a range with more bits than its address has, what any part of the machine takes it for: the address alone.
fn denied_clients(networks: &[Network]) -> Bans {
    let most = |network: &Network| if network.address.is_ipv4() { 32 } else { 128 };
    let valid = |network: &Network| Network { bits: network.bits.min(most(network)), ..*network };
    let first = &networks[..networks.len().min(BANS_MAX)];
    Bans::of_networks(&first.iter().map(valid).collect::<Vec<_>>()).unwrap_or_default()
}

impl ServerOptions {
    /// What one allocation may use by itself.
    pub(crate) fn own_rates(&self) -> AccountLimits {
        AccountLimits {
            bits_per_second: self.bits_per_second,
            packets_per_second: self.packets_per_second,
            ..AccountLimits::default()
        }
    }
}

impl<R: RngCore> Server<R> {
    /// Takes over other settings between two packets. Listeners, relay addresses, ports, workers and whether events
    /// are told stay what they are. Who is no longer known cannot refresh what they have; a permission of a peer
    /// that is forbidden now and an allocation of a client that is denied now end at once.
    pub fn configure(&mut self, now: Now, settings: &Settings) {
        let fixed = self.options.clone();
        let options = ServerOptions {
            worker: fixed.worker,
            workers: fixed.workers,
            listeners: fixed.listeners,
            relays: fixed.relays,
            ports: fixed.ports,
            events: fixed.events,
            ..settings.options.clone()
        };
        let rates = |o: &ServerOptions| (o.guard.unauthenticated_per_second, o.guard.unauthenticated_burst);
        if rates(&options) != rates(&self.options) {
            self.sources = SourceLimiter::new(rates(&options), self.rng.next_u64());
        }
        self.guard = Guard::new(&options, self.shared.live.clone());
        self.auth.configure(settings);
        self.denied_clients = settings.denied_clients.clone();
        self.options = options;
        self.end_banned(now);
        self.end_forbidden_permissions(now);
        self.limit_again();
    }

    fn end_forbidden_permissions(&mut self, now: Now) {
        let forbidden = |peer| self.guard.judge(peer) == Judgement::Forbidden;
        let ended: Vec<_> = self.permissions.keys().copied().filter(|(_, peer)| forbidden(*peer)).collect();
        ended.into_iter().for_each(|(slot, peer)| self.end_permission(now, slot, peer));
    }

    fn limit_again(&mut self) {
        let own = self.options.own_rates();
        for slot in 0..self.allocations.len() as u32 {
            if let Some(allocation) = self.allocations[slot as usize].as_deref_mut() {
                allocation.claim.configure(own);
                self.update_routes(slot);
            }
        }
    }
}
