//! Quotas that span workers: a ledger that is asked when an allocation, a permission or a channel
//! begins and ends, and of which each allocation leases its rate in pieces, so that a relayed packet
//! only touches its own worker's memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sluice_base::{Mono, Pii, TenantId};

/// A whole lease lasts about this part of a second at the full rate.
const LEASES_PER_SECOND: u64 = 50;

/// Ceilings of one account. 0 is unlimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AccountLimits {
    /// Allocations.
    pub allocations: u32,
    /// Permissions.
    pub permissions: u32,
    /// Channels.
    pub channels: u32,
    /// Bits per second, both directions together.
    pub bits_per_second: u64,
    /// Packets per second, both directions together.
    pub packets_per_second: u64,
}

/// Ceilings of one tenant and of each of its users.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TenantLimits {
    /// Of all its users together.
    pub tenant: AccountLimits,
    /// Of each user.
    pub user: AccountLimits,
}

/// Counts what is used per user, per tenant and in total.
#[derive(Debug)]
pub struct Ledger {
    total: Arc<Account>,
    tenants: Vec<(Arc<Account>, AccountLimits)>,
    users: Mutex<Users>,
}

#[derive(Debug)]
struct Account {
    limits: AccountLimits,
    allocations: AtomicU32,
    permissions: AtomicU32,
    channels: AtomicU32,
    bytes: Bucket,
    packets: Bucket,
}

/// What is claimed of a ledger at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Users that hold anything.
    pub users: usize,
    /// Allocations, those in the making included.
    pub allocations: u32,
    /// Permissions.
    pub permissions: u32,
    /// Channels.
    pub channels: u32,
}

/// What one allocation holds of the ledger; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    ledger: Arc<Ledger>,
    accounts: [Arc<Account>; 3],
    key: (TenantId, Pii<Box<[u8]>>),
    own: Option<Arc<Account>>,
    permissions: u32,
    channels: u32,
    lease_bytes: i64,
    lease_packets: i64,
    limited: bool,
}

impl Ledger {
    /// An empty ledger with the limits of the relay and of each tenant, by [`TenantId`].
    pub fn new(total: AccountLimits, tenants: &[TenantLimits]) -> Arc<Self> {
        Arc::new(Ledger {
            total: Arc::new(Account::new(total)),
            tenants: tenants.iter().map(|t| (Arc::new(Account::new(t.tenant)), t.user)).collect(),
            users: Mutex::new(BTreeMap::new()),
        })
    }

    /// Claims one allocation of `user`, or `None` where user, tenant or relay have theirs.
    pub(crate) fn claim(self: &Arc<Self>, tenant: TenantId, user: Pii<Box<[u8]>>, own: AccountLimits) -> Option<Claim> {
        let (of_tenant, user_limits) = self.tenants.get(usize::from(tenant.0))?;
        let key = (tenant, user);
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let of_user = users.entry(key.clone()).or_insert_with(|| Arc::new(Account::new(*user_limits)));
        let accounts = [of_user.clone(), of_tenant.clone(), self.total.clone()];
        if !take_all(&accounts, |a| (&a.allocations, a.limits.allocations)) {
            forget_if_idle(&mut users, &key);
            return None;
        }
        drop(users);
        let limited_own = own.bits_per_second != 0 || own.packets_per_second != 0;
        let limited = limited_own || accounts.iter().any(|a| a.is_rate_limited());
        Some(Claim {
            ledger: self.clone(),
            accounts,
            key,
            own: limited_own.then(|| Arc::new(Account::new(own))),
            permissions: 0,
            channels: 0,
            lease_bytes: 0,
            lease_packets: 0,
            limited,
        })
    }

    /// What is claimed now, by all users together.
    pub fn usage(&self) -> Usage {
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner).len();
        let count = |counter: &AtomicU32| counter.load(Ordering::Relaxed);
        let total = &self.total;
        Usage {
            users,
            allocations: count(&total.allocations),
            permissions: count(&total.permissions),
            channels: count(&total.channels),
        }
    }
}

impl Claim {
    /// Claims one more permission.
    pub(crate) fn permission(&mut self) -> bool {
        let taken = take_all(&self.accounts, |a| (&a.permissions, a.limits.permissions));
        self.permissions += u32::from(taken);
        taken
    }

    /// Gives a permission back.
    pub(crate) fn end_permission(&mut self) {
        self.permissions -= 1;
        give_all(&self.accounts, 1, |a| &a.permissions);
    }

    /// Claims one more channel.
    pub(crate) fn channel(&mut self) -> bool {
        let taken = take_all(&self.accounts, |a| (&a.channels, a.limits.channels));
        self.channels += u32::from(taken);
        taken
    }

    /// Gives a channel back.
    pub(crate) fn end_channel(&mut self) {
        self.channels -= 1;
        give_all(&self.accounts, 1, |a| &a.channels);
    }

    /// Whether any rate limit concerns this allocation.
    pub(crate) fn is_limited(&self) -> bool {
        self.limited
    }

    /// Lowers the allocation's own bit rate to a grant's ceiling.
    pub(crate) fn limit_bits(&mut self, bits_per_second: u64) {
        let now = self.own.as_ref().map_or(AccountLimits::default(), |a| a.limits);
        // 0 is unlimited in an account, and as good as nothing in a grant.
        let lower = bits_per_second.max(1);
        if now.bits_per_second != 0 && now.bits_per_second <= lower {
            // A new account would begin with a full bucket: each refresh would buy a burst.
            return;
        }
        self.own = Some(Arc::new(Account::new(AccountLimits { bits_per_second: lower, ..now })));
        self.limited = true;
        (self.lease_bytes, self.lease_packets) = (0, 0);
    }

    /// Takes one packet of `bytes` off the leases, renewing them when they are used up; false where
    /// the rate is used up.
    pub(crate) fn packet(&mut self, now: Mono, bytes: usize) -> bool {
        if !self.limited {
            return true;
        }
        let bytes = bytes as i64;
        if self.lease_bytes < bytes {
            self.lease_bytes += self.lease(now, bytes - self.lease_bytes, |a| &a.bytes);
        }
        if self.lease_packets < 1 {
            self.lease_packets += self.lease(now, 1, |a| &a.packets);
        }
        if self.lease_bytes < bytes || self.lease_packets < 1 {
            return false;
        }
        self.lease_bytes -= bytes;
        self.lease_packets -= 1;
        true
    }

    /// Leases at least `need` of every account that limits this, or nothing.
    fn lease(&self, now: Mono, need: i64, bucket: impl Fn(&Account) -> &Bucket) -> i64 {
        let all = || self.own.iter().chain(&self.accounts).map(|a| bucket(a)).filter(|b| b.per_second != 0);
        let Some(slowest) = all().map(|b| b.per_second).min() else {
            return i64::from(u32::MAX).max(need);
        };
        let piece = need.max((slowest / LEASES_PER_SECOND) as i64);
        let granted = all().map(|b| b.available(now)).min().unwrap_or(0).min(piece);
        if granted < need {
            return 0;
        }
        all().for_each(|b| b.take(granted));
        granted
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        give_all(&self.accounts, self.permissions, |a| &a.permissions);
        give_all(&self.accounts, self.channels, |a| &a.channels);
        let mut users = self.ledger.users.lock().unwrap_or_else(PoisonError::into_inner);
        give_all(&self.accounts, 1, |a| &a.allocations);
        forget_if_idle(&mut users, &self.key);
    }
}

impl Account {
    fn new(limits: AccountLimits) -> Self {
        Account {
            limits,
            allocations: AtomicU32::new(0),
            permissions: AtomicU32::new(0),
            channels: AtomicU32::new(0),
            bytes: Bucket::new(limits.bits_per_second.div_ceil(8)),
            packets: Bucket::new(limits.packets_per_second),
        }
    }

    fn is_rate_limited(&self) -> bool {
        self.bytes.per_second != 0 || self.packets.per_second != 0
    }
}

/// A token bucket that holds one second's worth; leases may overdraw it by a race, never for long.
#[derive(Debug)]
struct Bucket {
    per_second: u64,
    tokens: AtomicI64,
    refilled_at: AtomicU64,
}

impl Bucket {
    fn new(per_second: u64) -> Self {
        Bucket { per_second, tokens: AtomicI64::new(per_second as i64), refilled_at: AtomicU64::new(0) }
    }

    fn available(&self, now: Mono) -> i64 {
        let before = self.refilled_at.load(Ordering::Relaxed);
        let nanos = now.nanos().saturating_sub(before).min(1_000_000_000);
        let gained = (u128::from(nanos) * u128::from(self.per_second) / 1_000_000_000) as i64;
        let won = gained > 0
            && self.refilled_at.compare_exchange(before, now.nanos(), Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if won {
            let full = self.per_second as i64;
            let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |t| Some((t + gained).min(full)));
        }
        self.tokens.load(Ordering::Relaxed)
    }

    fn take(&self, n: i64) {
        self.tokens.fetch_sub(n, Ordering::Relaxed);
    }
}

/// Adds one to every account's counter, or to none where one is at its limit.
fn take_all(accounts: &[Arc<Account>; 3], of: impl Fn(&Account) -> (&AtomicU32, u32)) -> bool {
    for (i, account) in accounts.iter().enumerate() {
        let (counter, limit) = of(account);
        let taken = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
            (limit == 0 || n < limit).then(|| n.saturating_add(1))
        });
        if taken.is_err() {
            accounts[..i].iter().for_each(|a| {
                of(a).0.fetch_sub(1, Ordering::Relaxed);
            });
            return false;
        }
    }
    true
}

fn give_all(accounts: &[Arc<Account>; 3], n: u32, of: impl Fn(&Account) -> &AtomicU32) {
    accounts.iter().for_each(|a| {
        of(a).fetch_sub(n, Ordering::Relaxed);
    });
}

type Users = BTreeMap<(TenantId, Pii<Box<[u8]>>), Arc<Account>>;

fn forget_if_idle(users: &mut Users, key: &(TenantId, Pii<Box<[u8]>>)) {
    if users.get(key).is_some_and(|a| a.allocations.load(Ordering::Relaxed) == 0) {
        users.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn name(s: &str) -> Pii<Box<[u8]>> {
        Pii::new(s.as_bytes().into())
    }

    fn limits(allocations: u32) -> AccountLimits {
        AccountLimits { allocations, ..AccountLimits::default() }
    }

    #[test]
    fn each_of_user_tenant_and_total_refuses() {
        let two = TenantLimits { tenant: limits(3), user: limits(2) };
        let ledger = Ledger::new(limits(4), &[two, two]);
        let claim = |t, u| ledger.claim(TenantId(t), name(u), AccountLimits::default());
        let mut held = vec![claim(0, "a").unwrap(), claim(0, "a").unwrap()];
        assert!(claim(0, "a").is_none(), "the user has two");
        held.push(claim(0, "b").unwrap());
        assert!(claim(0, "c").is_none(), "the tenant has three");
        held.push(claim(1, "a").unwrap());
        assert!(claim(1, "b").is_none(), "the relay has four");
        assert_eq!(ledger.usage().users, 3);
        held.clear();
        assert_eq!(ledger.usage().users, 0);
        assert!(claim(0, "a").is_some());
    }

    #[test]
    fn permissions_and_channels_come_back_with_the_claim() {
        let user = AccountLimits { permissions: 2, channels: 1, ..AccountLimits::default() };
        let ledger = Ledger::new(AccountLimits::default(), &[TenantLimits { user, ..TenantLimits::default() }]);
        let mut claim = ledger.claim(TenantId(0), name("a"), AccountLimits::default()).unwrap();
        assert!(claim.permission() && claim.permission() && !claim.permission());
        assert!(claim.channel() && !claim.channel());
        claim.end_permission();
        assert!(claim.permission());
        let mut second = ledger.claim(TenantId(0), name("a"), AccountLimits::default()).unwrap();
        assert!(!second.permission());
        drop(claim);
        assert!(second.permission() && second.channel());
    }

    #[test]
    fn a_rate_is_kept_over_several_allocations_of_a_user() {
        let user = AccountLimits { packets_per_second: 1000, ..AccountLimits::default() };
        let ledger = Ledger::new(AccountLimits::default(), &[TenantLimits { user, ..TenantLimits::default() }]);
        let mut claims: Vec<_> =
            (0..4).map(|_| ledger.claim(TenantId(0), name("a"), AccountLimits::default()).unwrap()).collect();
        let mut passed = 0;
        for ms in 0..10_000u64 {
            let now = Mono::from_nanos(5_000_000_000).after(Duration::from_millis(ms));
            passed += claims.iter_mut().map(|c| u32::from(c.packet(now, 100))).sum::<u32>();
        }
        assert!((10_000..=11_100).contains(&passed), "{passed}");
    }

    #[test]
    fn a_grant_lowers_the_bit_rate() {
        let ledger = Ledger::new(AccountLimits::default(), &[TenantLimits::default()]);
        let mut claim = ledger.claim(TenantId(0), name("a"), AccountLimits::default()).unwrap();
        assert!(!claim.is_limited());
        claim.limit_bits(8_000);
        let now = Mono::from_nanos(5_000_000_000);
        let passed = (0..100).filter(|_| claim.packet(now, 100)).count();
        assert_eq!(passed, 10);
    }
}
