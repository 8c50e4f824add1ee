//! Questions that a core puts to the policies, and their verdicts.
//!
//! **Packets never wait for a policy.** A question leaves a core as an output, its verdict comes
//! back as an input, and is compiled into the state of the flow. Without a verdict by
//! [`VERDICT_DEADLINE`](crate::limits::VERDICT_DEADLINE) the answer is no; what lives already is asked about again
//! first.

use std::sync::Arc;
use std::time::Duration;

use crate::address::AddressClass;
use crate::event::RelayEvent;
use crate::id::{AllocationId, QuestionId, SessionId, TenantId};
use crate::pii::{Pii, TransportAddress};
use crate::time::Now;

/// What is to be decided.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Hook {
    /// A new allocation (RFC 8656, 7.2).
    Allocate,
    /// A longer life of one (RFC 8656, 8.2); not asked when the client ends it.
    Refresh,
    /// Permissions (RFC 8656, 10.2).
    CreatePermission,
    /// A channel and its permission (RFC 8656, 12.2).
    ChannelBind,
    /// The grant of a live allocation is about to run out.
    Review,
}

/// The other side of a flow, as a policy sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Its address, for look-ups; a plugin sees it only by grant.
    pub address: TransportAddress,
    /// Its class, the relay's own addresses recognised.
    pub class: AddressClass,
    /// The address wraps an IPv4 one (v4-mapped, NAT64, 6to4, Teredo), whose class it has.
    pub translated: bool,
}

/// One question. Personal data inside does not print.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// Names it in the verdict.
    pub id: QuestionId,
    /// What is to be decided.
    pub hook: Hook,
    /// Whose policies decide.
    pub tenant: TenantId,
    /// The user name without expiry and tenant.
    pub user: Pii<Arc<[u8]>>,
    /// The client.
    pub client: Endpoint,
    /// The peers concerned; empty for an allocation.
    pub peers: Vec<Endpoint>,
    /// The client's stay: of an allocation that is asked for, the one that it will be.
    pub session: SessionId,
    /// The allocation concerned; none before it exists.
    pub allocation: Option<AllocationId>,
    /// The lifetime asked for, where one is.
    pub lifetime: Option<Duration>,
}

/// The answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Yes, within the grant.
    Allow(Grant),
    /// No.
    Deny(Denial),
}

/// The bounds of a yes. Ceilings: the lowest of the host's, the tenant's and the policies' holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Grant {
    /// Asked again before this ends, and cut unless the answer is yes. `None`: as long as it lives.
    pub valid_for: Option<Duration>,
    /// Longest lifetime of the allocation.
    pub lifetime_max: Option<Duration>,
    /// Bits per second, both directions together.
    pub bits_per_second: Option<u64>,
    /// Permissions of the allocation at once.
    pub permissions_max: Option<u32>,
}

/// The reason of a no, which is a STUN error code on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Denial {
    /// 403.
    Forbidden,
    /// 486.
    Quota,
    /// 508: also the answer of a policy that failed.
    TryLater,
    /// 508: nobody has said anything. Whoever was to is overloaded, or had no time.
    Unanswered,
}

/// Whoever answers questions on a worker's behalf.
pub trait Decide {
    /// Takes a question; answers at once, or later by [`Decide::poll`], or never.
    fn ask(&mut self, now: Now, question: Question) -> Option<Verdict>;

    /// A verdict that has come in since.
    fn poll(&mut self, now: Now) -> Option<(QuestionId, Verdict)>;

    /// Takes what is to be recorded; it must not wait.
    fn event(&mut self, _now: Now, _event: RelayEvent) {}

    /// A tick begins: nothing of it has been handled yet.
    fn begin(&mut self, _now: Now) {}
}

/// The built-in policy of a relay without policies: yes to whatever quota and guard let through.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Decide for AllowAll {
    fn ask(&mut self, _now: Now, _question: Question) -> Option<Verdict> {
        Some(Verdict::Allow(Grant::default()))
    }

    fn poll(&mut self, _now: Now) -> Option<(QuestionId, Verdict)> {
        None
    }
}
