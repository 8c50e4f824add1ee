//! Quotas that span workers: a ledger that is asked when an allocation, a permission or a channel
//! begins and ends, and of which each allocation leases its rate in pieces, so that a relayed packet
//! only touches its own worker's memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    books: Mutex<Books>,
}

/// The accounts below the total.
#[derive(Debug)]
struct Books {
    tenants: Vec<TenantBook>,
    users: Users,
}

#[derive(Debug)]
struct TenantBook {
    account: Arc<Account>,
    /// Of each of its users.
    user: AccountLimits,
}

#[derive(Debug)]
struct Account {
    allocations_limit: AtomicU32,
    permissions_limit: AtomicU32,
    channels_limit: AtomicU32,
    allocations: AtomicU32,
    /// Allocations that are asked for, and not decided.
    asked: AtomicU32,
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

/// Somebody asks for an allocation: others see it until it is decided, when this is dropped.
#[derive(Debug)]
pub(crate) struct Wanted {
    ledger: Arc<Ledger>,
    /// The user's and the tenant's.
    accounts: [Arc<Account>; 2],
    key: (TenantId, Pii<Arc<[u8]>>),
}

/// What one allocation holds of the ledger; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    ledger: Arc<Ledger>,
    accounts: [Arc<Account>; 3],
    key: (TenantId, Pii<Arc<[u8]>>),
    /// The allocation's own rates: the lower of what is configured and granted.
    own: Option<(AccountLimits, Arc<Account>)>,
    configured: AccountLimits,
    /// Bits per second that a policy has granted; 0: no matter how many.
    granted_bits: u64,
    permissions: u32,
    channels: u32,
    lease_bytes: i64,
    lease_packets: i64,
    /// Of the accounts, as the leases were taken under: bytes and packets per second.
    rates: [[u64; 2]; 3],
    limited: bool,
}

impl Ledger {
    /// An empty ledger with the limits of the relay and of each tenant, by [`TenantId`].
    pub fn new(total: AccountLimits, tenants: &[TenantLimits]) -> Arc<Self> {
        Arc::new(Ledger {
            total: Arc::new(Account::new(total)),
            books: Mutex::new(Books { tenants: tenants.iter().map(TenantBook::new).collect(), users: BTreeMap::new() }),
        })
    }

    /// Puts other limits in force. What is held beyond them stays; the tenants keep their places, and there may be
    /// more of them. Each worker has to be told too, by [`Server::configure`](crate::Server::configure), since an
    /// allocation knows whether it is limited at all.
    pub fn set_limits(&self, total: AccountLimits, tenants: &[TenantLimits]) {
        self.total.set(total);
        let mut books = self.books();
        for (book, limits) in books.tenants.iter_mut().zip(tenants) {
            book.account.set(limits.tenant);
            book.user = limits.user;
        }
        let known = books.tenants.len();
        books.tenants.extend(tenants.iter().skip(known).map(TenantBook::new));
        for ((tenant, _), account) in &books.users {
            if let Some(limits) = tenants.get(usize::from(tenant.0)) {
                account.set(limits.user);
            }
        }
    }

    /// Claims one allocation of `user`, or `None` where user, tenant or relay have theirs.
    pub(crate) fn claim(self: &Arc<Self>, tenant: TenantId, user: Pii<Arc<[u8]>>, own: AccountLimits) -> Option<Claim> {
        let mut books = self.books();
        let Books { tenants, users } = &mut *books;
        let book = tenants.get(usize::from(tenant.0))?;
        let key = (tenant, user);
        let of_user = users.entry(key.clone()).or_insert_with(|| Arc::new(Account::new(book.user)));
        let accounts = [of_user.clone(), book.account.clone(), self.total.clone()];
        if !take_all(&accounts, |a| (&a.allocations, &a.allocations_limit)) {
            forget_if_idle(users, &key);
            return None;
        }
        drop(books);
        let mut claim = Claim {
            ledger: self.clone(),
            accounts,
            key,
            own: None,
            configured: own,
            granted_bits: 0,
            permissions: 0,
            channels: 0,
            lease_bytes: 0,
            lease_packets: 0,
            rates: [[0; 2]; 3],
            limited: false,
        };
        claim.limit();
        Some(claim)
    }

    /// Somebody asks for an allocation; `None` where the tenant is not known.
    pub(crate) fn want(self: &Arc<Self>, tenant: TenantId, user: Pii<Arc<[u8]>>) -> Option<Wanted> {
        let mut books = self.books();
        let Books { tenants, users } = &mut *books;
        let book = tenants.get(usize::from(tenant.0))?;
        let key = (tenant, user);
        let of_user = users.entry(key.clone()).or_insert_with(|| Arc::new(Account::new(book.user)));
        let accounts = [of_user.clone(), book.account.clone()];
        // Within the lock, by which it would be forgotten as idle.
        for account in &accounts {
            account.asked.fetch_add(1, Ordering::Relaxed);
        }
        Some(Wanted { ledger: self.clone(), accounts, key })
    }

    /// Allocations that a user and a tenant hold now, those in the making and those that are asked for included.
    pub fn allocations(&self, tenant: TenantId, user: &Pii<Arc<[u8]>>) -> (u32, u32) {
        let books = self.books();
        let count = |account: &Arc<Account>| {
            account.allocations.load(Ordering::Relaxed).saturating_add(account.asked.load(Ordering::Relaxed))
        };
        let of_user = books.users.get(&(tenant, user.clone())).map_or(0, count);
        (of_user, books.tenants.get(usize::from(tenant.0)).map_or(0, |book| count(&book.account)))
    }

    /// What is claimed now, by all users together.
    pub fn usage(&self) -> Usage {
        let users = self.books().users.len();
        let count = |counter: &AtomicU32| counter.load(Ordering::Relaxed);
        let total = &self.total;
        Usage {
            users,
            allocations: count(&total.allocations),
            permissions: count(&total.permissions),
            channels: count(&total.channels),
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TenantBook {
    fn new(limits: &TenantLimits) -> Self {
        TenantBook { account: Arc::new(Account::new(limits.tenant)), user: limits.user }
    }
}

impl Claim {
    /// Claims one more permission.
    pub(crate) fn permission(&mut self) -> bool {
        let taken = take_all(&self.accounts, |a| (&a.permissions, &a.permissions_limit));
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
        let taken = take_all(&self.accounts, |a| (&a.channels, &a.channels_limit));
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
        // 0 is unlimited in an account, and as good as nothing in a grant.
        self.granted_bits = lower(self.granted_bits, bits_per_second.max(1));
        self.limit();
    }

    /// Takes over other rates of the allocation's own, and what the ledger says by now.
    pub(crate) fn configure(&mut self, own: AccountLimits) {
        self.configured = own;
        self.limit();
    }

    fn limit(&mut self) {
        let own = AccountLimits {
            bits_per_second: lower(self.configured.bits_per_second, self.granted_bits),
            packets_per_second: self.configured.packets_per_second,
            ..AccountLimits::default()
        };
        let limited_own = own != AccountLimits::default();
        let rates = self.accounts.each_ref().map(|account| account.rates());
        let own_differs = self.own.as_ref().map(|(limits, _)| *limits) != limited_own.then_some(own);
        // A new account would begin with a full bucket: each refresh would buy a burst.
        if own_differs {
            self.own = limited_own.then(|| (own, Arc::new(Account::new(own))));
        }
        if own_differs || rates != self.rates {
            // No lease outlives the rates that it was granted under: without a rate it lasts as good as forever.
            (self.lease_bytes, self.lease_packets) = (0, 0);
        }
        self.rates = rates;
        self.limited = limited_own || rates.as_flattened().iter().any(|rate| *rate != 0);
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
        let own = self.own.iter().map(|(_, account)| account);
        let all = || own.clone().chain(&self.accounts).map(|a| bucket(a)).filter(|b| b.rate() != 0);
        let Some(slowest) = all().map(Bucket::rate).min() else {
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
        let mut books = self.ledger.books();
        give_all(&self.accounts, 1, |a| &a.allocations);
        forget_if_idle(&mut books.users, &self.key);
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        let mut books = self.ledger.books();
        for account in &self.accounts {
            account.asked.fetch_sub(1, Ordering::Relaxed);
        }
        forget_if_idle(&mut books.users, &self.key);
    }
}

impl Account {
    fn new(limits: AccountLimits) -> Self {
        Account {
            allocations_limit: AtomicU32::new(limits.allocations),
            permissions_limit: AtomicU32::new(limits.permissions),
            channels_limit: AtomicU32::new(limits.channels),
            allocations: AtomicU32::new(0),
            asked: AtomicU32::new(0),
            permissions: AtomicU32::new(0),
            channels: AtomicU32::new(0),
            bytes: Bucket::new(limits.bits_per_second.div_ceil(8)),
            packets: Bucket::new(limits.packets_per_second),
        }
    }

    fn set(&self, limits: AccountLimits) {
        self.allocations_limit.store(limits.allocations, Ordering::Relaxed);
        self.permissions_limit.store(limits.permissions, Ordering::Relaxed);
        self.channels_limit.store(limits.channels, Ordering::Relaxed);
        self.bytes.set(limits.bits_per_second.div_ceil(8));
        self.packets.set(limits.packets_per_second);
    }

    /// Bytes and packets per second; 0 is unlimited.
    fn rates(&self) -> [u64; 2] {
        [self.bytes.rate(), self.packets.rate()]
    }
}

/// A token bucket that holds one second's worth; leases may overdraw it by a race, never for long.
#[derive(Debug)]
struct Bucket {
    per_second: AtomicU64,
    tokens: AtomicI64,
    refilled_at: AtomicU64,
}

impl Bucket {
    fn new(per_second: u64) -> Self {
        let tokens = AtomicI64::new(per_second as i64);
        Bucket { per_second: AtomicU64::new(per_second), tokens, refilled_at: AtomicU64::new(0) }
    }

    fn rate(&self) -> u64 {
        self.per_second.load(Ordering::Relaxed)
    }

    /// Another rate. One that there was keeps what its bucket holds, within the new one's second.
    fn set(&self, per_second: u64) {
        let before = self.per_second.swap(per_second, Ordering::Relaxed);
        match before {
            _ if before == per_second => {}
            0 => self.tokens.store(per_second as i64, Ordering::Relaxed),
            _ => drop(self.tokens.fetch_min(per_second as i64, Ordering::Relaxed)),
        }
    }

    fn available(&self, now: Mono) -> i64 {
        let per_second = self.rate();
        let before = self.refilled_at.load(Ordering::Relaxed);
        let nanos = now.nanos().saturating_sub(before).min(1_000_000_000);
        let gained = (u128::from(nanos) * u128::from(per_second) / 1_000_000_000) as i64;
        let won = gained > 0
            && self.refilled_at.compare_exchange(before, now.nanos(), Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if won {
            let full = per_second as i64;
            let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |t| Some((t + gained).min(full)));
        }
        self.tokens.load(Ordering::Relaxed)
    }

    fn take(&self, n: i64) {
        self.tokens.fetch_sub(n, Ordering::Relaxed);
    }
}

/// Adds one to every account's counter, or to none where one is at its limit.
fn take_all(accounts: &[Arc<Account>; 3], of: impl Fn(&Account) -> (&AtomicU32, &AtomicU32)) -> bool {
    for (i, account) in accounts.iter().enumerate() {
        let (counter, limit) = of(account);
        let limit = limit.load(Ordering::Relaxed);
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

/// The lower of two ceilings, of which 0 is none.
fn lower(a: u64, b: u64) -> u64 {
    if a == 0 || b == 0 { a.max(b) } else { a.min(b) }
}

type Users = BTreeMap<(TenantId, Pii<Arc<[u8]>>), Arc<Account>>;

fn forget_if_idle(users: &mut Users, key: &(TenantId, Pii<Arc<[u8]>>)) {
    let is_idle = |account: &Arc<Account>| {
        account.allocations.load(Ordering::Relaxed) == 0 && account.asked.load(Ordering::Relaxed) == 0
    };
    if users.get(key).is_some_and(is_idle) {
        users.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn name(s: &str) -> Pii<Arc<[u8]>> {
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
    fn an_allocation_that_is_asked_for_is_seen_by_the_next_one_and_is_no_claim() {
        let ledger = Ledger::new(limits(0), &[TenantLimits { user: limits(1), ..TenantLimits::default() }]);
        let first = ledger.want(TenantId(0), name("a")).unwrap();
        let second = ledger.want(TenantId(0), name("a")).unwrap();
        assert_eq!(ledger.allocations(TenantId(0), &name("a")), (2, 2));
        let claim = ledger.claim(TenantId(0), name("a"), AccountLimits::default()).unwrap();
        drop(first);
        assert_eq!(ledger.allocations(TenantId(0), &name("a")), (2, 2));
        assert_eq!(ledger.allocations(TenantId(0), &name("b")), (0, 2));
        drop((claim, second));
        assert_eq!((ledger.usage().users, ledger.usage().allocations), (0, 0));
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
    fn other_limits_hold_for_what_comes_and_leave_what_is_held() {
        let tenant = |n| TenantLimits { tenant: limits(n), user: limits(n) };
        let ledger = Ledger::new(limits(10), &[tenant(3)]);
        let claim = |t, u| ledger.claim(TenantId(t), name(u), AccountLimits::default());
        let mut held = vec![claim(0, "a").unwrap(), claim(0, "a").unwrap()];
        ledger.set_limits(limits(10), &[tenant(1), tenant(2)]);
        assert!(claim(0, "a").is_none() && claim(0, "b").is_none(), "two are held, and one is allowed");
        held.push(claim(1, "x").expect("a tenant has come"));
        ledger.set_limits(limits(0), &[tenant(5), tenant(2)]);
        assert!(claim(0, "a").is_some());
        held.clear();
        assert_eq!(ledger.usage().users, 0);
    }

    #[test]
    fn a_rate_comes_changes_and_goes_while_a_claim_is_held() {
        let rate = |n| AccountLimits { packets_per_second: n, ..AccountLimits::default() };
        let ledger = Ledger::new(rate(0), &[TenantLimits::default()]);
        let mut claim = ledger.claim(TenantId(0), name("a"), AccountLimits::default()).unwrap();
        assert!(!claim.is_limited());
        let mut second = 10;
        let mut passed = |claim: &mut Claim, total: u64, own: u64| {
            ledger.set_limits(rate(total), &[TenantLimits::default()]);
            claim.configure(rate(own));
            second += 10;
            let start = Mono::from_nanos(second * 1_000_000_000);
            (0..3_000u64).filter(|ms| claim.packet(start.after(Duration::from_millis(*ms)), 100)).count()
        };
        assert_eq!(passed(&mut claim, 0, 0), 3000);
        assert!((300..=420).contains(&passed(&mut claim, 100, 0)), "of all together");
        assert!((30..=45).contains(&passed(&mut claim, 100, 10)), "of its own");
        assert!((600..=840).contains(&passed(&mut claim, 200, 0)));
        assert_eq!(passed(&mut claim, 0, 0), 3000);
        assert!(!claim.is_limited());
    }

    #[test]
    fn a_rate_of_the_other_kind_holds_at_once_for_a_claim_that_is_held() {
        let bits = AccountLimits { bits_per_second: 8_000_000, ..AccountLimits::default() };
        let packets = AccountLimits { packets_per_second: 100, ..AccountLimits::default() };
        let both = AccountLimits { packets_per_second: 100, ..bits };
        let of_user = |user| TenantLimits { user, ..TenantLimits::default() };
        let of_tenant = |tenant| TenantLimits { tenant, ..TenantLimits::default() };
        let none = AccountLimits::default();
        // A packet of 100 bytes each ms, for 2 s: within the bits.
        let passed = |before: (AccountLimits, TenantLimits), after: (AccountLimits, TenantLimits)| {
            let ledger = Ledger::new(before.0, &[before.1]);
            let mut claim = ledger.claim(TenantId(0), name("a"), AccountLimits::default()).unwrap();
            let start = Mono::from_nanos(5_000_000_000);
            assert!(claim.packet(start, 100));
            ledger.set_limits(after.0, &[after.1]);
            claim.configure(AccountLimits::default());
            (0..2_000u64).filter(|ms| claim.packet(start.after(Duration::from_millis(*ms)), 100)).count()
        };
        for (before, after) in [
            ((bits, of_user(none)), (both, of_user(none))),
            ((none, of_tenant(bits)), (none, of_tenant(both))),
            ((none, of_user(bits)), (none, of_user(both))),
            ((bits, of_user(none)), (bits, of_user(packets))),
        ] {
            let passed = passed(before, after);
            assert!((200..=310).contains(&passed), "{passed} of 2000");
        }
        let slow = AccountLimits { bits_per_second: 80_000, ..packets };
        let passed = passed((packets, of_user(none)), (slow, of_user(none)));
        assert!(passed <= 310, "{passed} of 2000: the bits have come after the packets");
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
