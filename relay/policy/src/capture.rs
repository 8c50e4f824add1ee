//! What a plugin was asked in a dry run and what it answered, as a case that can be run again.
//!
//! **What is not named here is in no capture**: no address, whoever was granted it; no name of a question or an
//! allocation, for both are a session's in the records; of an answer what the relay obeys, and no words of a plugin.
//! **No place stands beside a token of whose it is**: where a plugin is told places, tokens are numbers that begin
//! again with each question.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use sluice_base::TenantId;

use crate::bindings::exports::sluice::policy::admission::{Allocation, AllocationRequest, AllocationVerdict};
use crate::bindings::sluice::policy::types::{
    AddressClass, CallContext, Endpoint, Grant, Node, Occasion, Transport, Verdict,
};
use crate::compose::word;
use crate::failure::Failure;
use crate::plugin::Facts;
use crate::stats::PluginStats;

/// Whoever keeps what a plugin was asked.
pub trait Capture: Send + Sync + fmt::Debug {
    /// Whether there is room for more.
    fn is_open(&self) -> bool;

    /// Takes a question with its answer, one line. It is called on a thread of the host, and must not wait: a line that
    /// is not kept, now or later, is added to `lost`.
    fn take(&self, line: String, lost: &Arc<AtomicU64>);
}

/// Captures by tenant and plugin.
pub type Captures = HashMap<(TenantId, String), Arc<dyn Capture>>;

/// Hands a question with its answer to a capture, if there is room.
pub(crate) fn keep(capture: &dyn Capture, stats: &PluginStats, case: impl FnOnce() -> Option<Value>) {
    if let Some(case) = capture.is_open().then(case).flatten() {
        capture.take(case.to_string(), &stats.uncaptured);
    } else {
        stats.uncaptured.fetch_add(1, Ordering::Relaxed);
    }
}

/// A question of `admission.allocate`, with an answer that the host takes or its failure; none where the plugin had no
/// occasion to answer.
pub(crate) fn allocation(
    facts: &Facts,
    ctx: &CallContext,
    request: &AllocationRequest,
    answer: Result<&AllocationVerdict, Failure>,
) -> Option<Value> {
    let mut tokens = Tokens::new(facts);
    let arguments = json!({
        "ctx": context(ctx),
        "request": {
            "subject": tokens.subject(&request.subject),
            "realm": request.realm,
            "client": endpoint(&mut tokens, &request.client),
            "node": node(&request.node),
            "requested-transport": transport(&request.requested_transport),
            "requested-lifetime": request.requested_lifetime,
            "subject-allocations": request.subject_allocations,
            "tenant-allocations": request.tenant_allocations,
        },
    });
    let verdict = |verdict: &AllocationVerdict| match verdict {
        AllocationVerdict::Allow(granted) => json!({"allow": {
            "grant": grant(&granted.grant),
            "max-lifetime": granted.max_lifetime,
            "max-permissions": granted.max_permissions,
        }}),
        AllocationVerdict::Deny(denial) => json!({"deny": {"code": word(denial.code)}}),
        AllocationVerdict::Abstain => json!("abstain"),
    };
    case("admission.allocate", arguments, answer.map(verdict))
}

/// A question of `admission.permit-peers`, as one of `admission.allocate`.
pub(crate) fn peers(
    facts: &Facts,
    ctx: &CallContext,
    allocation: &Allocation,
    peers: &[Endpoint],
    answer: Result<&[Verdict], Failure>,
) -> Option<Value> {
    let mut tokens = Tokens::new(facts);
    let arguments = json!({
        "ctx": context(ctx),
        "allocation": {
            "subject": tokens.subject(&allocation.subject),
            "client": endpoint(&mut tokens, &allocation.client),
            "node": node(&allocation.node),
        },
        "peers": peers.iter().map(|peer| endpoint(&mut tokens, peer)).collect::<Vec<_>>(),
    });
    let verdict = |verdict: &Verdict| match verdict {
        Verdict::Allow(granted) => json!({"allow": grant(granted)}),
        Verdict::Deny(denial) => json!({"deny": {"code": word(denial.code)}}),
        Verdict::Abstain => json!("abstain"),
    };
    let verdicts = answer.map(|verdicts| verdicts.iter().map(verdict).collect::<Value>());
    case("admission.permit-peers", arguments, verdicts)
}

/// Who is who in one question.
struct Tokens<'a> {
    has_places: bool,
    pseudonyms: Vec<&'a str>,
}

impl<'a> Tokens<'a> {
    fn new(facts: &Facts) -> Self {
        Tokens { has_places: facts.has_places(), pseudonyms: Vec::new() }
    }

    /// A question has one subject.
    fn subject(&self, token: &'a Option<String>) -> Option<&'a str> {
        token.as_deref().map(|token| if self.has_places { "subject-1" } else { token })
    }

    /// Who is the same within a question is so in the capture.
    fn pseudonym(&mut self, token: &'a Option<String>) -> Option<String> {
        let token = token.as_deref()?;
        if !self.has_places {
            return Some(token.to_owned());
        }
        let number = self.pseudonyms.iter().position(|known| *known == token).unwrap_or_else(|| {
            self.pseudonyms.push(token);
            self.pseudonyms.len() - 1
        });
        Some(format!("pseudonym-{}", number + 1))
    }
}

fn case(hook: &str, arguments: Value, answer: Result<Value, Failure>) -> Option<Value> {
    match answer {
        Ok(answer) => Some(json!({"hook": hook, "arguments": arguments, "expect": answer})),
        Err(Failure::NoTime | Failure::Overload | Failure::Resting) => None,
        Err(failure) => Some(json!({"hook": hook, "arguments": arguments, "fails": failure.name()})),
    }
}

fn context(ctx: &CallContext) -> Value {
    let occasion = match &ctx.occasion {
        Occasion::Initial => json!("initial"),
        Occasion::Refresh => json!("refresh"),
        Occasion::Moved => json!("moved"),
        Occasion::Review => json!("review"),
        Occasion::Other(other) => json!({"other": other}),
    };
    // The time is whole, for plugins grant what is left until a moment: by a rounded one each such grant were another.
    json!({"tenant": ctx.tenant, "now": ctx.now, "occasion": occasion})
}

fn node(node: &Node) -> Value {
    json!({"id": node.id, "region": node.region, "country": node.country})
}

fn endpoint<'a>(tokens: &mut Tokens<'a>, endpoint: &'a Endpoint) -> Value {
    let geo = &endpoint.geo;
    json!({
        "port": endpoint.port,
        "transport": transport(&endpoint.transport),
        "address-class": class(&endpoint.address_class),
        "translated": endpoint.translated,
        "geo": {
            "country": geo.country,
            "subdivision": geo.subdivision,
            "asn": geo.asn,
            "database-age": geo.database_age,
        },
        "pseudonym": tokens.pseudonym(&endpoint.pseudonym),
    })
}

fn transport(transport: &Transport) -> Value {
    match transport {
        Transport::Udp => json!("udp"),
        Transport::Tcp => json!("tcp"),
        Transport::Tls => json!("tls"),
        Transport::Dtls => json!("dtls"),
        Transport::Other(other) => json!({"other": other}),
    }
}

fn class(class: &AddressClass) -> Value {
    let name = match class {
        AddressClass::Public => "public",
        AddressClass::Private => "private",
        AddressClass::Shared => "shared",
        AddressClass::Loopback => "loopback",
        AddressClass::LinkLocal => "link-local",
        AddressClass::UniqueLocal => "unique-local",
        AddressClass::Metadata => "metadata",
        AddressClass::Multicast => "multicast",
        AddressClass::Broadcast => "broadcast",
        AddressClass::Unspecified => "unspecified",
        AddressClass::Documentation => "documentation",
        AddressClass::Benchmarking => "benchmarking",
        AddressClass::Reserved => "reserved",
        AddressClass::OwnRelayed => "own-relayed",
        AddressClass::OwnInfrastructure => "own-infrastructure",
        AddressClass::Other(other) => return json!({"other": other}),
    };
    json!(name)
}

fn grant(grant: &Grant) -> Value {
    json!({"valid-for": grant.valid_for, "max-bitrate": grant.max_bitrate})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_plugin_is_told_places_tokens_are_numbers_of_one_question() {
        let token = |token: &str| Some(token.to_owned());
        let (alice, one, other) = (token("5e1f"), token("a0"), token("b0"));
        for facts in ["country", "subdivision", "asn"] {
            let facts = Facts::parse(&["subject".to_owned(), facts.to_owned()]).unwrap();
            for first in [&one, &other] {
                let mut tokens = Tokens::new(&facts);
                assert_eq!((tokens.subject(&alice), tokens.subject(&None)), (Some("subject-1"), None));
                let told = [first, &token("c0"), first].map(|of| tokens.pseudonym(of));
                assert_eq!(told.map(Option::unwrap), ["pseudonym-1", "pseudonym-2", "pseudonym-1"]);
            }
        }
        let mut tokens = Tokens::new(&Facts::parse(&["subject".to_owned(), "port".to_owned()]).unwrap());
        assert_eq!((tokens.subject(&alice), tokens.pseudonym(&one)), (Some("5e1f"), token("a0")));
    }
}
