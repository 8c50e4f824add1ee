//! How the answers of several plugins become one.

use std::time::Duration;

use serde_json::Value;
use sluice_base::limits::PLUGIN_TAGS_MAX;
use sluice_base::policy::{Denial, Grant, Verdict};

use crate::bindings::exports::sluice::policy::admission::AllocationVerdict;
use crate::bindings::sluice::policy::types;
use crate::bindings::sluice::policy::types::DenyCode;
use crate::failure::Failure;
use crate::scrub;

/// What one plugin says of one thing.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Opinion {
    Allow(Grant),
    Deny(DenyCode),
    Abstain,
}

impl Opinion {
    pub(crate) fn of_allocation(verdict: &AllocationVerdict) -> Result<Self, Failure> {
        let granted = match verdict {
            AllocationVerdict::Allow(granted) => granted,
            AllocationVerdict::Deny(denial) => return Ok(Opinion::Deny(denial.code)),
            AllocationVerdict::Abstain => return Ok(Opinion::Abstain),
        };
        let grant = Grant {
            lifetime_max: granted.max_lifetime.map(seconds),
            permissions_max: granted.max_permissions.map(u32::from),
            ..grant(&granted.grant)?
        };
        Ok(Opinion::Allow(grant))
    }

    pub(crate) fn of_peer(verdict: &types::Verdict) -> Result<Self, Failure> {
        match verdict {
            types::Verdict::Allow(granted) => Ok(Opinion::Allow(grant(granted)?)),
            types::Verdict::Deny(denial) => Ok(Opinion::Deny(denial.code)),
            types::Verdict::Abstain => Ok(Opinion::Abstain),
        }
    }
}

/// The words for the audit in a verdict.
pub(crate) fn tags_of_allocation(verdict: &AllocationVerdict) -> &[String] {
    match verdict {
        AllocationVerdict::Allow(granted) => &granted.grant.audit_tags,
        AllocationVerdict::Deny(denial) => &denial.audit_tags,
        AllocationVerdict::Abstain => &[],
    }
}

/// Those in a verdict on a peer.
pub(crate) fn tags_of_peer(verdict: &types::Verdict) -> &[String] {
    match verdict {
        types::Verdict::Allow(granted) => &granted.audit_tags,
        types::Verdict::Deny(denial) => &denial.audit_tags,
        types::Verdict::Abstain => &[],
    }
}

/// What a question told of persons. A word for the audit, which is kept for years, must not say it again.
pub(crate) struct Told<'q> {
    subject: Option<&'q str>,
    endpoints: Vec<&'q types::Endpoint>,
}

impl<'q> Told<'q> {
    /// Of a question on this client and these peers.
    pub(crate) fn of(subject: Option<&'q String>, client: &'q types::Endpoint, peers: &'q [types::Endpoint]) -> Self {
        let endpoints = std::iter::once(client).chain(peers).collect();
        Told { subject: subject.map(String::as_str), endpoints }
    }

    /// Where what was told is not at hand.
    fn nothing() -> Self {
        Told { subject: None, endpoints: Vec::new() }
    }

    /// Whether a word has in it what was told. An address could stand in any word, in whatever spelling.
    fn is_in(&self, tag: &str) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.address.is_some() || has_place(tag, &endpoint.geo))
            || self.tokens().any(|token| has_token(tag, token))
    }

    fn tokens(&self) -> impl Iterator<Item = &str> {
        self.subject.into_iter().chain(self.endpoints.iter().filter_map(|endpoint| endpoint.pseudonym.as_deref()))
    }
}

/// Whether a part of a token stands in a word that is long enough to know the token by.
fn has_token(tag: &str, token: &str) -> bool {
    const PART_BYTES: usize = 8;
    let tag = tag.to_ascii_lowercase();
    token.as_bytes().windows(PART_BYTES).any(|part| tag.as_bytes().windows(PART_BYTES).any(|of_tag| of_tag == part))
}

/// Whether a place or a network is a part of a word. A country in capitals alone: "in" and "no" are words.
fn has_place(tag: &str, geo: &types::Geo) -> bool {
    let parts = || tag.split(|c: char| !c.is_ascii_alphanumeric());
    let has_country = geo.country.as_deref().is_some_and(|country| parts().any(|part| part == country));
    let has_network = geo
        .asn
        .map(|asn| asn.to_string())
        .is_some_and(|asn| parts().any(|part| part.trim_start_matches(|c: char| c.is_ascii_alphabetic()) == asn));
    let has_subdivision = geo.subdivision.as_deref().is_some_and(|subdivision| {
        let parts = parts().collect::<Vec<_>>().join("-");
        format!("-{parts}-").to_ascii_lowercase().contains(&format!("-{subdivision}-").to_ascii_lowercase())
    });
    has_country || has_network || has_subdivision
}

/// All of them once, in their order. What is no short word, or an address, or says what was told of somebody, or is
/// one too many, is a failure.
pub(crate) fn tags<'t>(all: impl IntoIterator<Item = &'t String>, told: &Told<'_>) -> Result<Vec<String>, Failure> {
    let mut tags: Vec<String> = Vec::new();
    for tag in all {
        let tag = scrub::label(tag).filter(|tag| !told.is_in(tag)).ok_or(Failure::Answer)?;
        if tags.iter().all(|known| known != tag) {
            if tags.len() == PLUGIN_TAGS_MAX {
                return Err(Failure::Answer);
            }
            tags.push(tag.to_owned());
        }
    }
    Ok(tags)
}

/// A duty that the host does not know is a failure, and it knows none of an admission.
fn duties<T>(obligations: &[T]) -> Result<(), Failure> {
    if obligations.is_empty() { Ok(()) } else { Err(Failure::Obligation) }
}

/// Whether the host would take an answer of `admission` that came as JSON, to a question about so many peers; of
/// another hook it takes any.
pub(crate) fn check(hook: &str, peers: usize, answer: &Value) -> Result<(), Failure> {
    let verdicts = match (hook, answer) {
        ("admission.allocate", verdict) => std::slice::from_ref(verdict),
        ("admission.permit-peers", Value::Array(verdicts)) if verdicts.len() == peers => verdicts,
        ("admission.permit-peers", _) => return Err(Failure::Answer),
        _ => return Ok(()),
    };
    let list = |of: &Value, key: &str| of[key].as_array().cloned().unwrap_or_default();
    // Of an allocation the grant is a part of what is allowed.
    let granted = |verdict: &Value| verdict["allow"].get("grant").unwrap_or(&verdict["allow"]).clone();
    let words =
        |verdict: &Value| [list(&granted(verdict), "audit-tags"), list(&verdict["deny"], "audit-tags")].concat();
    let words = verdicts.iter().flat_map(words).map(|word| word.as_str().map(str::to_owned));
    let words: Vec<String> = words.collect::<Option<_>>().ok_or(Failure::Answer)?;
    tags(&words, &Told::nothing())?;
    verdicts.iter().try_for_each(|verdict| duties(&list(&granted(verdict), "obligations")))
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds))
}

/// What the host can hold itself to.
fn grant(granted: &types::Grant) -> Result<Grant, Failure> {
    duties(&granted.obligations)?;
    Ok(Grant { valid_for: Some(seconds(granted.valid_for)), bits_per_second: granted.max_bitrate, ..Grant::default() })
}

/// One opinion of many on one thing: one deny denies; of those that allow the lowest numbers; else none.
pub(crate) fn join(opinions: impl IntoIterator<Item = Opinion>) -> Opinion {
    let mut joined = Opinion::Abstain;
    for opinion in opinions {
        joined = match (joined, opinion) {
            (Opinion::Deny(code), _) | (_, Opinion::Deny(code)) => Opinion::Deny(code),
            (Opinion::Allow(a), Opinion::Allow(b)) => Opinion::Allow(meet(a, b)),
            (joined, Opinion::Abstain) => joined,
            (Opinion::Abstain, opinion) => opinion,
        };
    }
    joined
}

/// One verdict on a request about several things: all of them, or none. Nobody having an opinion is the tenant's
/// default, which is no.
pub(crate) fn verdict(opinions: impl IntoIterator<Item = Opinion>) -> Verdict {
    let mut all: Option<Grant> = None;
    for opinion in opinions {
        match opinion {
            Opinion::Allow(grant) => all = Some(all.map_or(grant, |all| meet(all, grant))),
            Opinion::Deny(code) => return Verdict::Deny(denial(code)),
            Opinion::Abstain => return Verdict::Deny(Denial::Forbidden),
        }
    }
    all.map_or(Verdict::Deny(Denial::Forbidden), Verdict::Allow)
}

/// The lower of each number.
pub fn meet(a: Grant, b: Grant) -> Grant {
    fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
        a.into_iter().chain(b).min()
    }
    Grant {
        valid_for: least(a.valid_for, b.valid_for),
        lifetime_max: least(a.lifetime_max, b.lifetime_max),
        bits_per_second: least(a.bits_per_second, b.bits_per_second),
        permissions_max: least(a.permissions_max, b.permissions_max),
    }
}

fn denial(code: DenyCode) -> Denial {
    match code {
        DenyCode::QuotaExceeded => Denial::Quota,
        DenyCode::TryLater => Denial::TryLater,
        // Who has proved who they are would only be asked to prove it again: 401 is 403 here.
        _ => Denial::Forbidden,
    }
}

/// A code's word in the log.
pub(crate) fn word(code: DenyCode) -> &'static str {
    match code {
        DenyCode::Forbidden => "forbidden",
        DenyCode::Unauthenticated => "unauthenticated",
        DenyCode::QuotaExceeded => "quota-exceeded",
        DenyCode::RegionNotAllowed => "region-not-allowed",
        DenyCode::PeerNotAllowed => "peer-not-allowed",
        DenyCode::ConsentMissing => "consent-missing",
        DenyCode::RecordingNotAllowed => "recording-not-allowed",
        DenyCode::TryLater => "try-later",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn allow(bits: u64, valid_for: u64) -> Opinion {
        let valid_for = Some(Duration::from_secs(valid_for));
        Opinion::Allow(Grant { bits_per_second: Some(bits), valid_for, ..Grant::default() })
    }

    #[test]
    fn one_deny_denies_in_whatever_order() {
        let deny = Opinion::Deny(DenyCode::Forbidden);
        for opinions in [[deny, allow(1, 1)], [allow(1, 1), deny], [Opinion::Abstain, deny]] {
            assert_eq!(join(opinions), deny);
        }
    }

    #[test]
    fn of_those_that_allow_the_lowest_numbers_hold() {
        assert_eq!(join([allow(5, 100), Opinion::Abstain, allow(9, 10)]), allow(5, 10));
    }

    #[test]
    fn nobody_having_an_opinion_is_no() {
        assert_eq!(verdict([join([Opinion::Abstain, Opinion::Abstain])]), Verdict::Deny(Denial::Forbidden));
        assert_eq!(verdict([]), Verdict::Deny(Denial::Forbidden));
        assert_eq!(verdict([allow(1, 1), Opinion::Abstain]), Verdict::Deny(Denial::Forbidden));
    }

    const TOKEN: &str = "00112233445566778899aabbccddeeff";

    fn endpoint() -> types::Endpoint {
        types::Endpoint {
            address: None,
            port: None,
            transport: types::Transport::Udp,
            address_class: types::AddressClass::Public,
            translated: false,
            geo: types::Geo { country: None, subdivision: None, asn: None, database_age: None },
            pseudonym: None,
            attributes: Vec::new(),
        }
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn words_for_the_audit_do_not_say_who_somebody_is() {
        let (subject, bare, peer) = (TOKEN.to_owned(), endpoint(), endpoint());
        let peer = [types::Endpoint { pseudonym: Some(TOKEN.to_owned()), ..peer }];
        for told in [Told::of(Some(&subject), &bare, &[]), Told::of(None, &bare, &peer)] {
            for bad in [TOKEN, "who:00112233445566778899AABBCCDDEEFF", "of-44556677", "bbccddee.7"] {
                assert_eq!(tags(&words(&["a", bad]), &told), Err(Failure::Answer), "{bad}");
            }
            assert!(tags(&words(&["ward-0011223", "night"]), &told).is_ok());
        }
    }

    #[test]
    fn words_for_the_audit_do_not_say_where_somebody_is() {
        let (country, subdivision) = (Some("IN".to_owned()), Some("IN-KA".to_owned()));
        let geo = types::Geo { country, subdivision, asn: Some(64500), database_age: Some(1) };
        let (client, bare) = (types::Endpoint { geo, ..endpoint() }, endpoint());
        let peers = std::slice::from_ref(&client);
        for told in [Told::of(None, &client, &[]), Told::of(None, &bare, peers)] {
            for bad in ["IN", "country:IN", "IN-KA", "from.in-ka", "in_ka", "64500", "AS64500", "net-as64500"] {
                assert_eq!(tags(&words(&[bad]), &told), Err(Failure::Answer), "{bad}");
            }
            let good = ["in-hours", "INSIDE", "in-kale", "ward-645001", "DE"];
            assert_eq!(tags(&words(&good), &told), Ok(words(&good)));
        }
    }

    #[test]
    fn whoever_is_told_an_address_has_no_words_for_the_audit() {
        let address = Some(types::IpAddress::Ipv4((192, 0, 2, 7)));
        let (bare, told) = (endpoint(), types::Endpoint { address, ..endpoint() });
        for bad in ["c0000207", "3221225991", "night"] {
            assert_eq!(tags(&words(&[bad]), &Told::of(None, &told, &[])), Err(Failure::Answer), "{bad}");
            assert!(tags(&words(&[bad]), &Told::of(None, &bare, &[])).is_ok(), "{bad}");
        }
        assert_eq!(tags(&[], &Told::of(None, &told, &[])), Ok(Vec::new()));
    }

    #[test]
    fn words_for_the_audit_are_few_and_short_and_no_addresses() {
        let bare = endpoint();
        let nothing = Told::of(None, &bare, &[]);
        let of = |all: &[&str]| tags(&words(all), &nothing);
        assert_eq!(of(&["b", "a", "b"]), Ok(words(&["b", "a"])));
        for bad in ["192.0.2.7", "two words", "", TOKEN] {
            assert_eq!(of(&["a", bad]), Err(Failure::Answer), "{bad}");
        }
        let many: Vec<String> = (0..=PLUGIN_TAGS_MAX).map(|i| format!("t{i}")).collect();
        assert_eq!(tags(&many, &nothing), Err(Failure::Answer));
        assert_eq!(tags(&many[1..], &nothing).map(|tags| tags.len()), Ok(PLUGIN_TAGS_MAX));
    }

    #[test]
    fn a_code_is_that_of_the_wire() {
        assert_eq!(verdict([Opinion::Deny(DenyCode::QuotaExceeded)]), Verdict::Deny(Denial::Quota));
        assert_eq!(verdict([Opinion::Deny(DenyCode::TryLater)]), Verdict::Deny(Denial::TryLater));
        assert_eq!(verdict([Opinion::Deny(DenyCode::RegionNotAllowed)]), Verdict::Deny(Denial::Forbidden));
    }

    #[test]
    fn an_answer_that_came_as_json_is_taken_as_any_other() {
        let granted = |more: Value| {
            let mut granted = json!({"valid-for": 60, "max-bitrate": null, "audit-tags": [], "obligations": []});
            granted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            [json!({"allow": {"grant": granted, "max-lifetime": null}}), json!([{"allow": granted}])]
        };
        let of = |[allocation, peers]: [Value; 2]| {
            [check("admission.allocate", 0, &allocation), check("admission.permit-peers", 1, &peers)]
        };
        assert_eq!(of(granted(json!({"audit-tags": ["ward7"]}))), [Ok(()); 2]);
        assert_eq!(of(granted(json!({"audit-tags": ["two words"]}))), [Err(Failure::Answer); 2]);
        assert_eq!(of(granted(json!({"obligations": [{"key": "shred"}]}))), [Err(Failure::Obligation); 2]);
        let denied = json!({"deny": {"code": "forbidden", "audit-tags": ["192.0.2.7"]}});
        assert_eq!(of([denied.clone(), json!([denied])]), [Err(Failure::Answer); 2]);
        assert_eq!(of([json!("abstain"), json!(["abstain"])]), [Ok(()); 2]);
        assert_eq!(of([json!("abstain"), json!([])])[1], Err(Failure::Answer));
        assert_eq!(check("geofence.plan", 0, &json!({"obligations": [1]})), Ok(()));
    }

    #[test]
    fn a_duty_that_the_host_does_not_know_is_a_failure() {
        let value = types::AttributeValue::Boolean(true);
        let obligations = vec![types::Attribute { key: "shred".to_owned(), value }];
        let granted = types::Grant { valid_for: 60, max_bitrate: None, audit_tags: vec![], obligations };
        assert_eq!(Opinion::of_peer(&types::Verdict::Allow(granted)), Err(Failure::Obligation));
    }
}
