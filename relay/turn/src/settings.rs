//! Options that change while a server runs.

use std::sync::Arc;

use rand_core::RngCore;
use sluice_base::Now;

use crate::auth::{UserHashes, userhashes};
use crate::guard::{Guard, Judgement, SourceLimiter};
use crate::options::ServerOptions;
use crate::quota::AccountLimits;
use crate::server::Server;

/// Options with all that is computed from them, once for all workers.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(crate) options: ServerOptions,
    pub(crate) userhashes: Option<Arc<UserHashes>>,
}

impl Settings {
    /// Computes it: work in the number of users and listeners, which is no worker's between two packets.
    pub fn new(options: ServerOptions) -> Self {
        let userhashes = userhashes(&options);
        Settings { options, userhashes }
    }
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
    /// are told stay what they are. No allocation ends by it: who is no longer known cannot refresh theirs, and a
    /// permission of a peer that is forbidden now is gone at once.
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
        self.options = options;
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
