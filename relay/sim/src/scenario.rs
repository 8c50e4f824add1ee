//! What a seed makes of a run.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use sluice_base::limits::{TIMER_GRAIN, VERDICT_DEADLINE};
use sluice_base::{Secret, TenantId, WorkerId};
use sluice_turn::{
    AccountLimits, GuardOptions, Listener, RelayAddress, ServerOptions, StaticUser, Tenant, TenantLimits,
};

use crate::rng::Rng;

/// The realm of every listener.
pub(crate) const REALM: &str = "sim.example";
/// The shared secret of every tenant's time-limited names.
pub(crate) const SHARED_SECRET: &str = "the shared secret of the simulation";
/// Names of the tenants; the first is the listeners' default.
pub(crate) const TENANTS: [&str; 2] = ["first", "second"];
/// Users with fixed passwords, of every tenant.
pub(crate) const STATIC_USERS: [(&str, &str); 4] =
    [("ann", "ann's word"), ("bob", "bob's word"), ("cyd", "cyd's word"), ("dan", "dan's word")];

/// How often things go wrong, in a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// A packet is lost.
    pub(crate) loss: u32,
    /// A packet arrives twice.
    pub(crate) duplicate: u32,
    /// Longest time on the way, in milliseconds: packets overtake each other within it.
    pub(crate) delay_ms: u64,
    /// A wait finds no slot to receive into (ENOBUFS).
    pub(crate) no_slots: u32,
    /// A blank slot is not to be had.
    pub(crate) no_blank: u32,
    /// A send is refused (EAGAIN).
    pub(crate) send_full: u32,
    /// A port is somebody else's.
    pub(crate) port_in_use: u32,
    /// There is no file descriptor left (EMFILE).
    pub(crate) no_sockets: u32,
    /// A sent slot stays with the kernel for a while.
    pub(crate) late_release: u32,
    /// The monotonic clock leaps ahead, at each step of the scenario.
    pub(crate) leap: u32,
    /// The wall clock is set, at each step of the scenario.
    pub(crate) wall: u32,
}

/// How questions are answered, in a thousand; the rest is allowed at once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Decisions {
    pub(crate) delayed: u32,
    pub(crate) late: u32,
    pub(crate) refused: u32,
    pub(crate) never: u32,
    /// A yes holds for a while only.
    pub(crate) limited_time: u32,
    /// A yes names a longest lifetime.
    pub(crate) limited_lifetime: u32,
    /// A yes names a rate.
    pub(crate) limited_rate: u32,
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) workers: u8,
    pub(crate) clients: usize,
    pub(crate) peers: usize,
    pub(crate) duration: Duration,
    pub(crate) slots: usize,
    pub(crate) faults: Faults,
    pub(crate) decisions: Decisions,
    /// Longest time between two acts of a client, in milliseconds.
    pub(crate) idle_ms: u64,
    /// Acts of the mischief-maker: longest time between two, in milliseconds; 0 for none.
    pub(crate) mischief_ms: u64,
    /// Every packet of a client is sent twice.
    pub(crate) doubled: bool,
    pub(crate) listeners: Vec<SocketAddr>,
    pub(crate) relays: Vec<RelayAddress>,
    pub(crate) ports: RangeInclusive<u16>,
    pub(crate) lifetime: Duration,
    pub(crate) lifetime_max: Duration,
    pub(crate) nonce_lifetime: Duration,
    pub(crate) permissions: u32,
    pub(crate) channels: u32,
    pub(crate) user: AccountLimits,
    pub(crate) tenant: AccountLimits,
    pub(crate) total: AccountLimits,
    pub(crate) unauthenticated_per_second: u32,
    pub(crate) software: bool,
    /// Events are told.
    pub(crate) events: bool,
}

impl Scenario {
    /// The run of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        let rng = &mut Rng::new(seed, 1);
        let calm = rng.chance(200);
        let external = rng.chance(300);
        let v6 = rng.chance(700);
        let narrow = rng.chance(250);
        let quotas = rng.chance(350);
        let first = rng.between(50_000, 50_020) as u16;
        let faults = if calm { Faults { delay_ms: 20, ..Faults::default() } } else { faults(rng) };
        let minutes = rng.pick(&[3, 5, 8, 12, 20, 60]);
        Scenario {
            workers: rng.between(1, 3) as u8,
            clients: rng.between(2, 10) as usize,
            peers: rng.between(2, 5) as usize,
            duration: Duration::from_secs(minutes * 60),
            slots: rng.pick(&[12, 32, 64, 256]),
            faults,
            decisions: if calm { Decisions::default() } else { decisions(rng) },
            idle_ms: minutes * rng.pick(&[60, 120, 250]),
            mischief_ms: if calm { 0 } else { minutes * rng.between(40, 400) },
            doubled: rng.chance(150),
            listeners: listeners(v6),
            relays: relays(external, v6),
            ports: if narrow { first..=first + rng.between(5, 40) as u16 } else { 49_152..=65_535 },
            lifetime: Duration::from_secs(rng.pick(&[60, 120, 600])),
            lifetime_max: Duration::from_secs(rng.pick(&[600, 1200, 3600])),
            nonce_lifetime: Duration::from_secs(rng.pick(&[30, 120, 600, 3600])),
            permissions: rng.pick(&[3, 8, 256]),
            channels: rng.pick(&[2, 8, 256]),
            user: if quotas { account(rng, 1) } else { AccountLimits::default() },
            tenant: if quotas { account(rng, 3) } else { AccountLimits::default() },
            total: if quotas { account(rng, 5) } else { AccountLimits::default() },
            unauthenticated_per_second: rng.pick(&[0, 5, 100]),
            software: rng.chance(300),
            events: rng.chance(900),
        }
    }

    /// The options of one worker.
    pub(crate) fn options(&self, worker: u8) -> ServerOptions {
        let listeners = self.listeners.iter().map(|address| Listener {
            address: *address,
            realm: REALM.into(),
            tenant: TenantId(0),
        });
        let users = STATIC_USERS.map(|(name, password)| StaticUser {
            name: Secret::new(name.into()),
            password: Secret::new(password.into()),
        });
        let tenants = TENANTS.map(|name| Tenant {
            name: name.into(),
            secrets: vec![Secret::new("an older secret".into()), Secret::new(SHARED_SECRET.into())],
            users: users.to_vec(),
        });
        ServerOptions {
            worker: WorkerId(worker),
            workers: self.workers,
            listeners: listeners.collect(),
            tenants: Arc::new(tenants),
            relays: self.relays.clone().into(),
            own_addresses: self.listeners.iter().map(SocketAddr::ip).collect(),
            ports: self.ports.clone(),
            allocation_lifetime: self.lifetime,
            allocation_lifetime_max: self.lifetime_max,
            nonce_lifetime: self.nonce_lifetime,
            software: self.software.then(|| "sim".into()),
            guard: GuardOptions {
                unauthenticated_per_second: self.unauthenticated_per_second,
                unauthenticated_burst: self.unauthenticated_per_second * 10,
                ..GuardOptions::default()
            },
            receive_buffer_bytes: 0,
            send_buffer_bytes: 0,
            permissions_per_allocation: self.permissions,
            channels_per_allocation: self.channels,
            bits_per_second: 0,
            packets_per_second: 0,
            events: self.events,
            verdict_deadline: VERDICT_DEADLINE,
        }
    }

    /// The ceilings of the ledger.
    pub(crate) fn tenant_limits(&self) -> Vec<TenantLimits> {
        vec![TenantLimits { tenant: self.tenant, user: self.user }; TENANTS.len()]
    }

    /// Whether any rate is limited by quota.
    pub(crate) fn rate_limited(&self) -> bool {
        [self.user, self.tenant, self.total].iter().any(|a| a.bits_per_second != 0 || a.packets_per_second != 0)
    }

    /// By when after its end an allocation's socket is closed, given a tick.
    pub(crate) const fn grain() -> Duration {
        TIMER_GRAIN
    }

    /// The address of a peer.
    pub(crate) fn peer(&self, index: usize) -> SocketAddr {
        let n = index as u16;
        if index % 3 == 2 && self.has_v6() {
            SocketAddr::new(IpAddr::from([0x2600, 1, 0, 0, 0, 0, 0, n + 1]), 7000 + n)
        } else {
            // Some share a host: a permission has no port.
            SocketAddr::new(IpAddr::from([8, 1, 0, (index / 2) as u8 + 1]), 7000 + n)
        }
    }

    pub(crate) fn has_v6(&self) -> bool {
        self.relays.iter().any(|r| r.address.is_ipv6())
    }
}

fn faults(rng: &mut Rng) -> Faults {
    let rarely = |rng: &mut Rng, most: u64| if rng.chance(500) { rng.below(most) as u32 } else { 0 };
    Faults {
        loss: rarely(rng, 150),
        duplicate: rarely(rng, 150),
        delay_ms: rng.pick(&[1, 20, 200, 900]),
        no_slots: rarely(rng, 200),
        no_blank: rarely(rng, 30),
        send_full: rarely(rng, 50),
        port_in_use: rarely(rng, 400),
        no_sockets: rarely(rng, 100),
        late_release: rarely(rng, 300),
        leap: rarely(rng, 60),
        wall: rarely(rng, 100),
    }
}

fn decisions(rng: &mut Rng) -> Decisions {
    let rarely = |rng: &mut Rng, most: u64| if rng.chance(500) { rng.below(most) as u32 } else { 0 };
    Decisions {
        delayed: rarely(rng, 600),
        late: rarely(rng, 60),
        refused: rarely(rng, 100),
        never: rarely(rng, 60),
        limited_time: rarely(rng, 600),
        limited_lifetime: rarely(rng, 400),
        limited_rate: rarely(rng, 100),
    }
}

fn account(rng: &mut Rng, scale: u32) -> AccountLimits {
    let rarely = |rng: &mut Rng, low: u64, high: u64| {
        if rng.chance(400) { rng.between(low, high) as u32 * scale } else { 0 }
    };
    AccountLimits {
        allocations: rarely(rng, 1, 3),
        permissions: rarely(rng, 2, 8),
        channels: rarely(rng, 1, 5),
        bits_per_second: u64::from(rarely(rng, 2_000, 200_000)),
        packets_per_second: u64::from(rarely(rng, 2, 40)),
    }
}

fn listeners(v6: bool) -> Vec<SocketAddr> {
    let mut all: Vec<SocketAddr> = vec![([203, 0, 113, 1], 3478).into()];
    if v6 {
        all.push((IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]), 3478).into());
    }
    all
}

fn relays(external: bool, v6: bool) -> Vec<RelayAddress> {
    let mut all = vec![if external {
        RelayAddress { address: [10, 0, 0, 5].into(), external: Some([9, 9, 9, 5].into()) }
    } else {
        RelayAddress { address: [203, 0, 113, 1].into(), external: None }
    }];
    if v6 {
        all.push(RelayAddress { address: [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(), external: None });
    }
    all
}
