//! Day keys under clocks that somebody sets at random, sleeps, restarts of the relay and of the machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use sluice_base::Mono;
use sluice_privacy::clock::Clock;
use sluice_privacy::keyring::{KeyRing, Stored, Today};
use sluice_privacy::{KeyName, Moment};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
const SECOND: u64 = 1_000_000_000;
const NOON: u64 = 1_795_867_200;
const TENANTS: [(&str, u8); 3] = [("one", 1), ("three", 3), ("seven", 7)];

#[derive(Clone, Debug)]
enum Op {
    /// Something is sealed.
    Seal(usize),
    /// Time passes on both clocks, asleep or awake.
    Pass(u64),
    /// Somebody sets the wall clock by so much, or to that.
    Step(i64),
    Set(u64),
    /// The relay starts anew, the machine does not.
    Restart,
    /// The machine was off for so long; keys are on a disk.
    Reboot(u64),
}

/// A key, as an onlooker knows it who has a clock of his own.
#[derive(Clone, Copy, Debug)]
struct Made {
    /// When its end is by the wall clock, and how long that was ahead when it was made.
    dies: u64,
    left: u64,
    /// What its file says of the boot clock.
    boot: Mono,
    /// The onlooker's time of its first use.
    first: u64,
    days: u8,
}

struct World {
    ring: KeyRing,
    clock: Clock,
    now: Moment,
    /// The onlooker's clock: never set, and goes on while the machine is off.
    truth: u64,
    made: BTreeMap<KeyName, Made>,
}

impl World {
    fn new() -> Self {
        let now = Moment { unix_seconds: NOON, boot: Mono::from_nanos(HOUR * SECOND) };
        let (ring, clock) = (Self::ring(now), Clock::start(None, now));
        World { ring, clock, now, truth: NOON, made: BTreeMap::new() }
    }

    fn ring(now: Moment) -> KeyRing {
        let mut ring = KeyRing::new(7);
        ring.configure(7, TENANTS.map(|(tenant, days)| (Arc::from(tenant), days)), now);
        ring
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Seal(tenant) => self.seal(TENANTS[tenant]),
            Op::Pass(seconds) => self.pass(seconds),
            Op::Step(by) => self.set(self.now.unix_seconds.saturating_add_signed(by)),
            Op::Set(to) => self.set(to),
            Op::Restart => self.restart(self.now.boot, |made| Some(made.boot)),
            Op::Reboot(off) => {
                self.truth += off;
                // The machine's own clock is right, however the relay's was set before.
                self.now.unix_seconds = self.truth;
                self.restart(Mono::from_nanos(20 * SECOND), |_| None);
            }
        }
    }

    /// As a gate does it: at the beginning of everything.
    fn sweep(&mut self) {
        let next = self.ring.next(self.now);
        let due = self.ring.due(self.now);
        let looks = next.is_some_and(|next| self.now.unix_seconds >= next);
        assert_eq!(!due.is_empty(), looks, "the gate looks exactly when something is due");
        for due in due {
            self.ring.destroyed(&due.name);
            let made = self.made.remove(&due.name).expect("a key that was made");
            let by_wall = self.now.unix_seconds >= made.dies;
            let by_boot = self.truth - made.first >= made.left;
            assert!(by_wall || by_boot, "{due:?} died early: {made:?} at {:?}", self.now);
        }
    }

    fn seal(&mut self, (tenant, days): (&str, u8)) {
        match self.ring.today(tenant, self.now) {
            Today::Use(name) => assert!(self.made.contains_key(&name)),
            Today::Create(name, dies) => {
                assert_eq!(dies.unix_seconds, name.day.begins() + u64::from(days) * DAY);
                let left = dies.unix_seconds.saturating_sub(self.now.unix_seconds);
                let made = Made { dies: dies.unix_seconds, left, boot: dies.boot, first: self.truth, days };
                assert!(self.made.insert(name.clone(), made).is_none());
                self.ring.created(name, dies);
            }
            other => panic!("{other:?} after a sweep"),
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.truth += seconds;
        self.now.unix_seconds = self.now.unix_seconds.saturating_add(seconds);
        self.now.boot = self.now.boot.after(Duration::from_secs(seconds));
        self.clock.pass(self.now);
    }

    fn set(&mut self, to: u64) {
        self.now.unix_seconds = to;
        self.clock.pass(self.now);
    }

    fn restart(&mut self, boot: Mono, ends: impl Fn(&Made) -> Option<Mono>) {
        self.now.boot = boot;
        self.clock = Clock::start(Some(self.clock.remembered()), self.now);
        self.ring = Self::ring(self.now);
        for (name, made) in &mut self.made {
            if ends(made).is_none() {
                // The wall clock of the machine's start says how much is left.
                made.left = made.left.min(self.truth - made.first + made.dies.saturating_sub(self.clock.latest()));
            }
            let stored = Stored { unix_seconds: made.dies, boot: ends(made) };
            self.ring.adopt(name.clone(), stored, self.clock.latest(), self.now);
            let adopted = self.ring.status(self.now).into_iter().find(|status| status.name == *name);
            made.boot = adopted.expect("it was adopted").dies.boot;
        }
    }

    /// What was promised to whoever's address it is.
    fn check(&self) {
        for name in self.ring.live(self.now) {
            let made = &self.made[name];
            let retention = u64::from(made.days) * DAY;
            assert!(
                self.now.unix_seconds < name.day.begins() + retention,
                "{name:?} outlived its days by the wall clock"
            );
            // With a clock that somebody sets while the machine is off nothing proves how long it was off.
            assert!(self.truth - made.first < retention, "{name:?} outlived its days by the onlooker's clock");
        }
    }
}

fn op(step: impl Strategy<Value = Op> + 'static, reboots: u32) -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..TENANTS.len()).prop_map(Op::Seal),
        4 => (1..40 * HOUR).prop_map(Op::Pass),
        1 => (1_u64..3).prop_map(Op::Pass),
        2 => step,
        1 => Just(Op::Restart),
        reboots => (0..3 * DAY).prop_map(Op::Reboot),
    ]
}

fn any_step() -> impl Strategy<Value = Op> {
    let days = -3 * DAY as i64..3 * DAY as i64;
    prop_oneof![days.prop_map(Op::Step), Just(Op::Set(0)), Just(Op::Set(4_070_908_800)), Just(Op::Set(u64::MAX))]
}

fn step_back() -> impl Strategy<Value = Op> {
    prop_oneof![(-3 * DAY as i64..0).prop_map(Op::Step), Just(Op::Set(0))]
}

fn run(ops: &[Op]) {
    let mut world = World::new();
    for op in ops {
        world.run(op);
        world.sweep();
        world.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_key_outlives_its_days_whatever_is_done_to_the_wall_clock(ops in vec(op(any_step(), 0), 1..60)) {
        run(&ops);
    }

    #[test]
    fn no_key_outlives_its_days_though_the_machine_was_off(ops in vec(op(step_back(), 1), 1..60)) {
        run(&ops);
    }
}
