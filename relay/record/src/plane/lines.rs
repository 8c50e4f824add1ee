//! What a worker tells becomes lines of the spool.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use sluice_base::event::{Began, Denied, Ended, RelayEvent, StreamEnded};
use sluice_base::{Pii, SessionId, TransportAddress};
use sluice_crypto::{base64_encode, hex_encode};
use sluice_privacy::plan::{Leaves, Written};
use sluice_privacy::pseudonym::Purpose;
use sluice_privacy::schema::Destination;
use sluice_privacy::{Day, Moment};

use super::tokens::Tokens;
use crate::spool::Line;
use crate::store::{Addresses, sealed_addresses};
use crate::tenant::Tenant;
use crate::vault::{Platform, Vault};

/// Makes the lines of a tenant's events, of which its plan leaves what it leaves.
pub(super) struct Maker<'a> {
    pub(super) vault: &'a Vault,
    pub(super) tenant: &'a Tenant,
    pub(super) tokens: &'a mut Tokens,
    pub(super) platform: &'a dyn Platform,
    pub(super) now: Moment,
}

type User = Pii<Arc<[u8]>>;

/// The addresses of a line, the record that they are sealed for, and when it was.
type Told<'a> = (TransportAddress, [Option<TransportAddress>; 2], &'a [u8; 16], u64);

impl Maker<'_> {
    /// The lines of an event. Addresses are sealed under the key of their day for the record `id` of a refusal, or for
    /// the session; where they may not be kept, or there is no key, there is none.
    pub(super) fn of(mut self, event: &RelayEvent, id: &[u8; 16]) -> Vec<Line> {
        match event {
            RelayEvent::Began(event) => vec![self.began(event)],
            RelayEvent::Ended(event) => vec![self.ended(event), self.relayed(event)],
            RelayEvent::Denied(event) => vec![self.denied(event, id)],
            RelayEvent::StreamEnded(event) => vec![self.stream(event)],
            _ => Vec::new(),
        }
    }

    fn began(&mut self, event: &Began) -> Line {
        let mut fields = self.of_session(event.unix_seconds, Some(event.session), Some(&event.user));
        fields.insert("lifetime_seconds".to_owned(), event.lifetime.as_secs().into());
        let told = (event.client, event.relayed, &event.session.0, event.unix_seconds);
        self.line(Destination::Control, "began", fields, &event.session.0, Some(told))
    }

    fn ended(&mut self, event: &Ended) -> Line {
        let mut fields = self.of_session(event.unix_seconds, Some(event.session), Some(&event.user));
        fields.insert("reason".to_owned(), event.reason.text().into());
        fields.insert("seconds".to_owned(), event.age.as_secs().into());
        fields.insert("permissions".to_owned(), event.permissions.into());
        fields.insert("channels".to_owned(), event.channels.into());
        self.line(Destination::Control, "ended", fields, &event.session.0, None)
    }

    fn relayed(&mut self, event: &Ended) -> Line {
        let mut fields = self.of_session(event.unix_seconds, Some(event.session), None);
        let traffic = &event.traffic;
        let figures = [
            ("packets_from_client", traffic.packets_from_client),
            ("bytes_from_client", traffic.bytes_from_client),
            ("packets_to_client", traffic.packets_to_client),
            ("bytes_to_client", traffic.bytes_to_client),
        ];
        fields.extend(figures.map(|(name, figure)| (name.to_owned(), figure.into())));
        self.line(Destination::Quality, "relayed", fields, &event.session.0, None)
    }

    fn denied(&mut self, event: &Denied, id: &[u8; 16]) -> Line {
        let mut fields = self.of_session(event.unix_seconds, event.session, Some(&event.user));
        fields.insert("id".to_owned(), hex_encode(id).into());
        fields.insert("method".to_owned(), event.method.text().into());
        fields.insert("code".to_owned(), event.code.number().into());
        let told = (event.client, [None; 2], id, event.unix_seconds);
        self.line(Destination::Control, "denied", fields, id, Some(told))
    }

    fn stream(&mut self, event: &StreamEnded) -> Line {
        let mut fields = self.of_session(event.unix_seconds, Some(event.session), None);
        fields.insert("leg".to_owned(), event.leg.text().into());
        fields.insert("media".to_owned(), event.kind.text().into());
        let figures = [
            ("milliseconds", u64::try_from(event.duration.as_millis()).unwrap_or(u64::MAX)),
            ("packets_expected", event.packets_expected),
            ("packets_lost", event.packets_lost),
            ("packets_received", event.packets_received),
            ("bytes", event.bytes),
        ];
        fields.extend(figures.map(|(name, figure)| (name.to_owned(), figure.into())));
        if let Some(jitter) = event.jitter {
            let micros = u64::try_from(jitter.as_micros()).unwrap_or(u64::MAX);
            fields.insert("jitter_microseconds".to_owned(), micros.into());
        }
        self.line(Destination::Quality, "stream", fields, &event.session.0, None)
    }

    fn of_session(&self, at: u64, session: Option<SessionId>, user: Option<&User>) -> Map<String, Value> {
        let tenant = &*self.tenant.name;
        let mut fields = Map::new();
        fields.insert("at".to_owned(), at.into());
        fields.insert("tenant".to_owned(), tenant.into());
        if let Some(session) = session {
            fields.insert("session".to_owned(), session.to_string().into());
        }
        let person = user.and_then(|user| self.vault.user_pseudonym(tenant, user, Purpose::Spool, at).ok());
        if let Some(person) = person {
            fields.insert("person".to_owned(), person.into());
        }
        fields
    }

    /// What the plan leaves of a line, by whose `id` samples are drawn. Nothing else makes one.
    fn line(
        &mut self,
        destination: Destination,
        event: &'static str,
        fields: Map<String, Value>,
        id: &[u8; 16],
        told: Option<Told<'_>>,
    ) -> Line {
        let leaves = self.tenant.leaves(destination, event, id);
        let left = fields.into_iter().filter_map(|(name, value)| {
            let value = self.left(leaves?.of(&name), value)?;
            Some((name, value))
        });
        let mut left: Map<String, Value> = left.collect();
        if let Some(addresses) = told.and_then(|told| self.sealed(leaves, told)) {
            left.insert("addresses".to_owned(), addresses);
        }
        left.insert("event".to_owned(), event.into());
        Line { kind: destination.word(), json: Value::Object(left).to_string().into_bytes() }
    }

    /// What is written of a value that is no address.
    fn left(&mut self, written: Written<'_>, value: Value) -> Option<Value> {
        match written {
            Written::Value => Some(value),
            Written::Text(text) => Some(text.into()),
            Written::Token(window) => {
                let token = self.tokens.of(&self.tenant.name, window, value.as_str()?, self.platform, self.now)?;
                Some(token.into())
            }
            Written::Rounded(seconds) => {
                let time = value.as_u64()?;
                Some((time - time.checked_rem(seconds.into())?).into())
            }
            Written::Nothing | Written::Truncated(_) => None,
        }
    }

    fn sealed(&self, leaves: Option<Leaves<'_>>, (client, relayed, id, at): Told<'_>) -> Option<Value> {
        let addresses = Addresses::of(leaves, "addresses", client, relayed)?;
        let sealed = sealed_addresses(self.vault, &self.tenant.name, Day::of(at), id, &addresses).ok()?;
        Some(json!(base64_encode(&sealed)))
    }
}
