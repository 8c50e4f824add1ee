//! From a question to what one plugin is told of it: what its manifest names, and nothing else.

use std::net::IpAddr;
use std::sync::Arc;

use sluice_base::policy::{Endpoint, Hook, Question};
use sluice_base::{AddressClass, Pii};
use sluice_crypto::{HmacSha256Key, hex_encode};

use crate::bindings::exports::sluice::policy::admission::{Allocation, AllocationRequest};
use crate::bindings::sluice::policy::types;
use crate::bindings::sluice::policy::types::{CallContext, IpAddress, Occasion, Transport, Window};
use crate::guest::{Places, geo};
use crate::hook::Grant;
use crate::plugin::{Facts, Plugin};
use crate::pseudonym::Rotating;

/// Bytes of a subject's token.
const SUBJECT_BYTES: usize = 16;

/// This relay, as its operator describes it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// Its name.
    pub id: String,
    /// The deployment region.
    pub region: Option<String>,
    /// ISO 3166-1 alpha-2.
    pub country: Option<String>,
    /// It sends records to another machine, wherever that is.
    pub ships: bool,
}

/// What the question itself does not say, and an admission policy is told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// Other allocations of this user, those that are asked for at this moment included.
    pub subject_allocations: u32,
    /// Of the tenant.
    pub tenant_allocations: u32,
    /// The realm.
    pub realm: String,
}

/// Who a tenant's people are to its plugins, and what addresses are.
pub(crate) struct Names {
    pub(crate) tenant: Arc<str>,
    pub(crate) subjects: HmacSha256Key,
    pub(crate) endpoints: Rotating,
}

impl Names {
    /// Who a user is to the plugins.
    pub(crate) fn subject(&self, user: &Pii<Arc<[u8]>>) -> String {
        let mut bytes = Vec::new();
        user.feed(|part| bytes.extend_from_slice(part));
        hex_encode(&self.subjects.sign(&[&bytes])[..SUBJECT_BYTES])
    }
}

/// What is told to one plugin.
pub(crate) struct Teller<'a> {
    pub(crate) plugin: &'a Plugin,
    pub(crate) names: &'a Names,
    pub(crate) places: &'a Places,
    pub(crate) node: &'a Node,
    pub(crate) unix_seconds: u64,
}

impl Teller<'_> {
    /// The first argument of every hook.
    pub(crate) fn context(&self, question: &Question) -> CallContext {
        CallContext {
            tenant: self.names.tenant.to_string(),
            now: self.unix_seconds * 1000,
            request_id: format!("{}.{}", question.session, question.id.0),
            occasion: match question.hook {
                Hook::Refresh => Occasion::Refresh,
                Hook::Review => Occasion::Review,
                _ => Occasion::Initial,
            },
            attributes: Vec::new(),
        }
    }

    /// Of `admission.allocate`.
    pub(crate) fn request(&self, question: &Question, standing: &Standing) -> AllocationRequest {
        AllocationRequest {
            subject: self.subject(question),
            realm: standing.realm.clone(),
            client: self.endpoint(&question.client, true),
            node: self.node(),
            requested_transport: Transport::Udp,
            requested_lifetime: question.lifetime.map(|lifetime| u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX)),
            subject_allocations: Some(standing.subject_allocations),
            tenant_allocations: standing.tenant_allocations,
            attributes: Vec::new(),
        }
    }

    /// Of `admission.permit-peers`.
    pub(crate) fn allocation(&self, question: &Question) -> Allocation {
        Allocation {
            id: question.session.to_string(),
            subject: self.subject(question),
            client: self.endpoint(&question.client, true),
            node: self.node(),
            attributes: Vec::new(),
        }
    }

    /// The peers. A permission is for an address: only a channel's has a port.
    pub(crate) fn peers(&self, question: &Question) -> Vec<types::Endpoint> {
        let has_port = question.hook == Hook::ChannelBind;
        question.peers.iter().map(|peer| self.endpoint(peer, has_port)).collect()
    }

    fn subject(&self, question: &Question) -> Option<String> {
        self.wants().subject.then(|| self.names.subject(&question.user))
    }

    fn wants(&self) -> &Facts {
        &self.plugin.facts
    }

    /// This relay.
    pub(crate) fn node(&self) -> types::Node {
        told(self.node)
    }

    fn endpoint(&self, endpoint: &Endpoint, has_port: bool) -> types::Endpoint {
        let wants = self.wants();
        let (mut place, age) = self.places.place(endpoint.address.ip(), self.unix_seconds);
        place.country = place.country.filter(|_| wants.country);
        place.subdivision = place.subdivision.filter(|_| wants.subdivision);
        place.asn = place.asn.filter(|_| wants.asn);
        let is_granted = wants.address && self.plugin.grants.contains(&Grant::RawAddresses);
        types::Endpoint {
            address: is_granted.then(|| address(endpoint.address.ip())),
            port: (wants.port && has_port).then(|| endpoint.address.port()),
            transport: Transport::Udp,
            address_class: class(endpoint.class),
            translated: endpoint.translated,
            geo: geo(place, age.filter(|_| wants.has_places())),
            pseudonym: wants.pseudonym.then(|| self.token(endpoint.address.ip())),
            attributes: Vec::new(),
        }
    }

    fn token(&self, ip: Pii<IpAddr>) -> String {
        let mut bytes = Vec::new();
        ip.feed(|part| bytes.extend_from_slice(part));
        self.names.endpoints.token(Window::Day, self.unix_seconds, &[&bytes])
    }
}

/// A node as plugins see it.
pub(crate) fn told(node: &Node) -> types::Node {
    types::Node {
        id: node.id.clone(),
        region: node.region.clone(),
        country: node.country.clone(),
        attributes: Vec::new(),
    }
}

/// Only where the operator granted it.
fn address(ip: Pii<IpAddr>) -> IpAddress {
    match *ip.expose() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            IpAddress::Ipv4((a, b, c, d))
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, g, h] = ip.segments();
            IpAddress::Ipv6((a, b, c, d, e, f, g, h))
        }
    }
}

fn class(class: AddressClass) -> types::AddressClass {
    match class {
        AddressClass::Public => types::AddressClass::Public,
        AddressClass::Private => types::AddressClass::Private,
        AddressClass::Shared => types::AddressClass::Shared,
        AddressClass::Loopback => types::AddressClass::Loopback,
        AddressClass::LinkLocal => types::AddressClass::LinkLocal,
        AddressClass::UniqueLocal => types::AddressClass::UniqueLocal,
        AddressClass::Metadata => types::AddressClass::Metadata,
        AddressClass::Multicast => types::AddressClass::Multicast,
        AddressClass::Broadcast => types::AddressClass::Broadcast,
        AddressClass::Unspecified => types::AddressClass::Unspecified,
        AddressClass::Documentation => types::AddressClass::Documentation,
        AddressClass::Benchmarking => types::AddressClass::Benchmarking,
        AddressClass::OwnRelayed => types::AddressClass::OwnRelayed,
        AddressClass::OwnInfrastructure => types::AddressClass::OwnInfrastructure,
        // What this version has no name for is like `reserved`.
        _ => types::AddressClass::Reserved,
    }
}
