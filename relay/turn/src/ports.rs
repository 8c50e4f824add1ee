//! Relayed ports: which of them are live (shared, read on the packet path only where a peer is one
//! of our own relayed addresses), and which are free (each worker's own share).

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};

use rand_core::RngCore;
use sluice_base::WorkerId;
use sluice_base::limits::PORT_ATTEMPTS_MAX;

/// Words of a bit map of all ports.
const WORDS: usize = 65_536 / 64;

/// Which relayed ports belong to a live allocation, by index of the relay address. Written when an
/// allocation begins and ends.
#[derive(Debug)]
pub struct LivePorts(Box<[AtomicU64]>);

impl LivePorts {
    /// A map without live ports for `relay_addresses` addresses.
    pub fn new(relay_addresses: usize) -> Self {
        LivePorts((0..relay_addresses * WORDS).map(|_| AtomicU64::new(0)).collect())
    }

    /// Whether a live allocation of any worker has this port.
    #[inline]
    pub fn is_live(&self, relay_address: u8, port: u16) -> bool {
        let (word, bit) = place(relay_address, port);
        self.0.get(word).is_some_and(|w| w.load(Ordering::Relaxed) & bit != 0)
    }

    pub(crate) fn set(&self, relay_address: u8, port: u16, live: bool) {
        let (word, bit) = place(relay_address, port);
        if live {
            self.0[word].fetch_or(bit, Ordering::Relaxed);
        } else {
            self.0[word].fetch_and(!bit, Ordering::Relaxed);
        }
    }
}

/// What a port has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    /// Any.
    Any,
    /// Even (RFC 8656, 18.5 EVEN-PORT).
    Even,
    /// Even, and the next one is to be reserved.
    EvenWithNext,
}

/// One worker's share of the port range: pairs (2n, 2n+1) go round the workers, so that EVEN-PORT
/// never needs a neighbour's port.
#[derive(Debug)]
pub(crate) struct PortPool {
    taken: Vec<u64>,
    first_pair: u32,
    pairs: u32,
    range: RangeInclusive<u16>,
    stride: u32,
}

impl PortPool {
    pub(crate) fn new(relay_addresses: usize, range: RangeInclusive<u16>, worker: WorkerId, workers: u8) -> Self {
        let stride = u32::from(workers.max(1));
        let lowest = u32::from(*range.start()) / 2;
        let highest = u32::from(*range.end()) / 2;
        let skip = (stride + u32::from(worker.0) - lowest % stride) % stride;
        let first_pair = lowest + skip;
        let pairs = if first_pair > highest { 0 } else { (highest - first_pair) / stride + 1 };
        PortPool { taken: vec![0; relay_addresses * WORDS], first_pair, pairs, range, stride }
    }

    /// Takes a free port at random, or `None` when there is none.
    pub(crate) fn take(&mut self, relay_address: u8, wish: Wish, rng: &mut impl RngCore) -> Option<u16> {
        if self.pairs == 0 {
            return None;
        }
        let start = rng.next_u32();
        let random = (0..PORT_ATTEMPTS_MAX).map(|_| rng.next_u32()).collect::<PortDraws>();
        // A few draws find a port of a range that is not nearly full; then every pair is looked at once.
        random
            .iter()
            .chain((0..self.pairs * 2).map(|i| start.wrapping_add(i)))
            .find_map(|draw| self.try_take(relay_address, wish, draw))
    }

    /// Gives a port back.
    pub(crate) fn give_back(&mut self, relay_address: u8, port: u16) {
        let (word, bit) = place(relay_address, port);
        self.taken[word] &= !bit;
    }

    fn try_take(&mut self, relay_address: u8, wish: Wish, draw: u32) -> Option<u16> {
        let pair = self.first_pair + (draw >> 1) % self.pairs * self.stride;
        let odd = wish == Wish::Any && draw & 1 == 1;
        let port = u16::try_from(pair * 2 + u32::from(odd)).ok()?;
        if !self.free(relay_address, port) {
            return None;
        }
        if wish == Wish::EvenWithNext {
            if !self.free(relay_address, port.checked_add(1)?) {
                return None;
            }
            self.mark(relay_address, port + 1);
        }
        self.mark(relay_address, port);
        Some(port)
    }

    fn free(&self, relay_address: u8, port: u16) -> bool {
        let (word, bit) = place(relay_address, port);
        self.range.contains(&port) && self.taken[word] & bit == 0
    }

    fn mark(&mut self, relay_address: u8, port: u16) {
        let (word, bit) = place(relay_address, port);
        self.taken[word] |= bit;
    }
}

/// Draws on the stack.
struct PortDraws([u32; PORT_ATTEMPTS_MAX as usize]);

impl PortDraws {
    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }
}

impl FromIterator<u32> for PortDraws {
    fn from_iter<T: IntoIterator<Item = u32>>(draws: T) -> Self {
        let mut all = [0; PORT_ATTEMPTS_MAX as usize];
        all.iter_mut().zip(draws).for_each(|(to, from)| *to = from);
        PortDraws(all)
    }
}

const fn place(relay_address: u8, port: u16) -> (usize, u64) {
    (relay_address as usize * WORDS + port as usize / 64, 1 << (port % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// A generator for tests: splitmix64.
    struct Mix(u64);

    impl RngCore for Mix {
        fn next_u32(&mut self) -> u32 {
            self.next_u64() as u32
        }
        fn next_u64(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z ^ (z >> 27)
        }
        fn fill_bytes(&mut self, out: &mut [u8]) {
            out.chunks_mut(8).for_each(|c| {
                let bytes = self.next_u64().to_le_bytes();
                c.copy_from_slice(&bytes[..c.len()]);
            });
        }
    }

    #[test]
    fn workers_share_the_range_without_overlap_and_use_all_of_it() {
        let mut rng = Mix(1);
        let mut seen = HashSet::new();
        for worker in 0..3 {
            let mut pool = PortPool::new(1, 50_001..=50_100, WorkerId(worker), 3);
            while let Some(port) = pool.take(0, Wish::Any, &mut rng) {
                assert!(seen.insert(port), "{port} twice");
            }
        }
        assert_eq!(seen, (50_001..=50_100).collect());
    }

    #[test]
    fn an_even_port_and_its_neighbour_come_together() {
        let mut rng = Mix(2);
        let mut pool = PortPool::new(1, 50_000..=50_009, WorkerId(0), 1);
        let mut pairs = 0;
        while let Some(port) = pool.take(0, Wish::EvenWithNext, &mut rng) {
            assert_eq!(port % 2, 0);
            pairs += 1;
        }
        assert_eq!(pairs, 5);
        assert_eq!(pool.take(0, Wish::Any, &mut rng), None);
        pool.give_back(0, 50_003);
        assert_eq!(pool.take(0, Wish::Even, &mut rng), None);
        assert_eq!(pool.take(0, Wish::Any, &mut rng), Some(50_003));
    }

    #[test]
    fn the_highest_port_has_no_neighbour() {
        let mut pool = PortPool::new(1, 65_534..=65_534, WorkerId(0), 1);
        assert_eq!(pool.take(0, Wish::EvenWithNext, &mut Mix(3)), None);
        assert_eq!(pool.take(0, Wish::Even, &mut Mix(3)), Some(65_534));
    }
}
