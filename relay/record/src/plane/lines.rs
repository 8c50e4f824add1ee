//! What a worker tells becomes lines of the spool.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use sluice_base::event::{Began, Denied, Ended, RelayEvent, StreamEnded};
use sluice_base::{Pii, SessionId, TransportAddress};
use sluice_crypto::{base64_encode, hex_encode};
use sluice_privacy::Day;
use sluice_privacy::pseudonym::Purpose;

use crate::spool::Line;
use crate::store::sealed_addresses;
use crate::vault::Vault;

/// Class `media-log`.
const QUALITY: &str = "quality";
/// Class `control-log`.
const CONTROL: &str = "control";

/// The lines of an event of a tenant. Addresses are sealed under the key of their day for the record `id` of a refusal,
/// or for the session; where they may not be kept, or there is no key, there is none.
pub(super) fn of(vault: &Vault, event: &RelayEvent, tenant: &str, id: &[u8; 16]) -> Vec<Line> {
    let maker = Maker { vault, tenant };
    match event {
        RelayEvent::Began(event) => vec![maker.began(event)],
        RelayEvent::Ended(event) => vec![maker.ended(event), maker.relayed(event)],
        RelayEvent::Denied(event) => vec![maker.denied(event, id)],
        RelayEvent::StreamEnded(event) => vec![maker.stream(event)],
        _ => Vec::new(),
    }
}

struct Maker<'a> {
    vault: &'a Vault,
    tenant: &'a str,
}

type User = Pii<Arc<[u8]>>;

impl Maker<'_> {
    fn began(&self, event: &Began) -> Line {
        let mut fields = self.of_session("began", event.unix_seconds, Some(event.session), Some(&event.user));
        fields.insert("lifetime_seconds".to_owned(), event.lifetime.as_secs().into());
        self.seal(&mut fields, event.unix_seconds, &event.session.0, event.client, event.relayed);
        line(CONTROL, fields)
    }

    fn ended(&self, event: &Ended) -> Line {
        let mut fields = self.of_session("ended", event.unix_seconds, Some(event.session), Some(&event.user));
        fields.insert("reason".to_owned(), event.reason.text().into());
        fields.insert("seconds".to_owned(), event.age.as_secs().into());
        fields.insert("permissions".to_owned(), event.permissions.into());
        fields.insert("channels".to_owned(), event.channels.into());
        line(CONTROL, fields)
    }

    fn relayed(&self, event: &Ended) -> Line {
        let mut fields = self.of_session("relayed", event.unix_seconds, Some(event.session), None);
        let traffic = &event.traffic;
        let figures = [
            ("packets_from_client", traffic.packets_from_client),
            ("bytes_from_client", traffic.bytes_from_client),
            ("packets_to_client", traffic.packets_to_client),
            ("bytes_to_client", traffic.bytes_to_client),
        ];
        fields.extend(figures.map(|(name, figure)| (name.to_owned(), figure.into())));
        line(QUALITY, fields)
    }

    fn denied(&self, event: &Denied, id: &[u8; 16]) -> Line {
        let mut fields = self.of_session("denied", event.unix_seconds, event.session, Some(&event.user));
        fields.insert("id".to_owned(), hex_encode(id).into());
        fields.insert("method".to_owned(), event.method.text().into());
        fields.insert("code".to_owned(), event.code.number().into());
        self.seal(&mut fields, event.unix_seconds, id, event.client, [None; 2]);
        line(CONTROL, fields)
    }

    fn stream(&self, event: &StreamEnded) -> Line {
        let mut fields = self.of_session("stream", event.unix_seconds, Some(event.session), None);
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
        line(QUALITY, fields)
    }

    fn of_session(&self, event: &str, at: u64, session: Option<SessionId>, user: Option<&User>) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("event".to_owned(), event.into());
        fields.insert("at".to_owned(), at.into());
        fields.insert("tenant".to_owned(), self.tenant.into());
        if let Some(session) = session {
            fields.insert("session".to_owned(), session.to_string().into());
        }
        let person = user.and_then(|user| self.vault.user_pseudonym(self.tenant, user, Purpose::Spool, at).ok());
        if let Some(person) = person {
            fields.insert("person".to_owned(), person.into());
        }
        fields
    }

    fn seal(
        &self,
        fields: &mut Map<String, Value>,
        at: u64,
        id: &[u8; 16],
        client: TransportAddress,
        relayed: [Option<TransportAddress>; 2],
    ) {
        if let Ok(sealed) = sealed_addresses(self.vault, self.tenant, Day::of(at), id, client, relayed) {
            fields.insert("addresses".to_owned(), json!(base64_encode(&sealed)));
        }
    }
}

fn line(kind: &'static str, fields: Map<String, Value>) -> Line {
    Line { kind, json: Value::Object(fields).to_string().into_bytes() }
}
