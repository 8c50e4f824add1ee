//! What is told to whoever keeps records: stays that begin and end, refusals, media streams that are over. Where nobody
//! keeps any, nothing is made.

use std::time::Duration;

use rand_core::RngCore;
use sluice_base::event::{Began, Denied, EndReason, Ended, RelayEvent};
use sluice_base::message::Traffic;
use sluice_base::stats::{Code, Counter, Single};
use sluice_base::{Now, Pii};
use sluice_wire::stun::Method;

use crate::allocation::{Allocation, Relay};
use crate::server::{Output, Request, Server, method_label};

impl<R: RngCore> Server<R> {
    pub(crate) fn tell_began(&mut self, now: Now, slot: u32, lifetime: Duration) {
        if !self.options.events {
            return;
        }
        let allocation = self.at(slot);
        let announced = |relay: &Relay| Pii::new((relay.announced, relay.port).into());
        self.tell(RelayEvent::Began(Began {
            session: allocation.session,
            tenant: allocation.identity.tenant,
            user: allocation.identity.user.clone(),
            client: allocation.client.address,
            relayed: allocation.relays.each_ref().map(|relay| relay.as_ref().map(announced)),
            unix_seconds: now.unix_seconds,
            lifetime,
        }));
    }

    /// The streams that ended with it come first.
    pub(crate) fn tell_ended(&mut self, now: Now, allocation: &Allocation, traffic: Traffic, reason: EndReason) {
        if !self.options.events {
            return;
        }
        self.tell_streams(now);
        self.tell(RelayEvent::Ended(Ended {
            session: allocation.session,
            tenant: allocation.identity.tenant,
            user: allocation.identity.user.clone(),
            client: allocation.client.address,
            unix_seconds: now.unix_seconds,
            age: now.mono.since(allocation.since),
            reason,
            traffic,
            permissions: allocation.permissions_made,
            channels: allocation.channels_made,
        }));
    }

    /// Tells of a refusal: each of a stay that was asked about, so that nobody waits for its beginning; of others those
    /// that are no slip of the protocol, as many as one source may have.
    pub(crate) fn tell_denied(&mut self, now: Now, request: &Request, code: Code) {
        if !self.options.events {
            return;
        }
        let asked = request.method == Method::ALLOCATE && request.session.is_some();
        if !asked {
            if !matches!(code, Code::Forbidden | Code::QuotaReached | Code::InsufficientCapacity) {
                return;
            }
            if !self.denials.admit(now.mono, request.client.address) {
                return self.counters.add(Counter::single(Single::EventsUntold), 1);
            }
        }
        self.tell(RelayEvent::Denied(Denied {
            session: request.session,
            tenant: request.identity.tenant,
            user: request.identity.user.clone(),
            client: request.client.address,
            unix_seconds: now.unix_seconds,
            method: method_label(request.method),
            code,
        }));
    }

    /// Tells of a permission that a second thought has ended: once for each, as of the refusal that it would be now.
    pub(crate) fn tell_cut(&mut self, now: Now, slot: u32) {
        if !self.options.events {
            return;
        }
        let allocation = self.at(slot);
        self.tell(RelayEvent::Denied(Denied {
            session: Some(allocation.session),
            tenant: allocation.identity.tenant,
            user: allocation.identity.user.clone(),
            client: allocation.client.address,
            unix_seconds: now.unix_seconds,
            method: method_label(Method::CREATE_PERMISSION),
            code: Code::Forbidden,
        }));
    }

    /// Tells of the streams that have ended since.
    pub(crate) fn tell_streams(&mut self, now: Now) {
        let ended = self.quality.take_ended(now.unix_seconds);
        self.outputs.extend(ended.map(|stream| Output::Event(RelayEvent::StreamEnded(stream))));
        let untold = self.quality.take_untold();
        self.counters.add(Counter::single(Single::EventsUntold), untold);
    }

    fn tell(&mut self, event: RelayEvent) {
        self.outputs.push_back(Output::Event(event));
    }
}
