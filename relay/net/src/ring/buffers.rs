//! The provided buffers: slots that the kernel may receive into.
//!
//! The kernel takes them in the order in which they were given. Were all free slots given at once, a
//! packet would always land in the slot that is longest out of every cache; so only as many are given as
//! the traffic takes, and the stack of free slots hands out the warmest.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use crate::arena::{Index, Mapping};

/// Buffers given when there is no traffic: for packets, and for bursts.
pub(super) const TARGET_MIN: u32 = 128;
pub(super) const BURST_TARGET_MIN: u32 = 8;

/// Ticks after which the target follows falling traffic.
const WINDOW_TICKS: u32 = 4096;

#[derive(Debug)]
pub(super) struct Buffers {
    group: u16,
    memory: Mapping,
    entries: u16,
    tail: u16,
    published: u16,
    /// With the kernel.
    provided: u32,
    /// How many to give.
    target: u32,
    target_min: u32,
    target_max: u32,
    /// Taken in this tick, and at most in one tick of this window.
    taken: u32,
    peak: u32,
    ticks: u32,
}

impl Buffers {
    /// A group with room for that many slots, of which at least `target_min` are given.
    pub(super) fn new(group: u16, slots: u32, target_min: u32) -> io::Result<Self> {
        let entries = slots.next_power_of_two();
        let target_min = target_min.min(slots);
        Ok(Buffers {
            group,
            memory: Mapping::resident(entries as usize * size_of::<BufRingEntry>())?,
            entries: entries as u16,
            tail: 0,
            published: 0,
            provided: 0,
            target: target_min,
            target_min,
            target_max: slots,
            taken: 0,
            peak: 0,
            ticks: 0,
        })
    }

    /// What receives name it by.
    pub(super) const fn group(&self) -> u16 {
        self.group
    }

    /// For its registration: address and number of entries.
    pub(super) fn region(&self) -> (u64, u16) {
        (self.memory.base().as_ptr() as u64, self.entries)
    }

    pub(super) const fn provided(&self) -> u32 {
        self.provided
    }

    #[inline]
    pub(super) const fn wants(&self) -> bool {
        self.provided < self.target
    }

    /// Gives a slot, visible to the kernel after [`Buffers::publish`].
    #[inline]
    pub(super) fn provide(&mut self, slot: Index, address: NonNull<u8>, len: u32) {
        let at = (self.tail & (self.entries - 1)) as usize;
        // SAFETY: `at` is within the mapping, and the kernel does not look at entries behind the published
        // tail. Only single fields are written: the tail lives in the first entry.
        let entry = unsafe { &mut *self.memory.base().as_ptr().cast::<BufRingEntry>().add(at) };
        entry.set_addr(address.as_ptr() as u64);
        entry.set_len(len);
        entry.set_bid(slot);
        self.tail = self.tail.wrapping_add(1);
        self.provided += 1;
    }

    #[inline]
    pub(super) fn publish(&mut self) {
        if self.published == self.tail {
            return;
        }
        self.published = self.tail;
        // SAFETY: the tail's place in the mapping, aligned, and shared with the kernel only by atomic access.
        let tail = unsafe { &*BufRingEntry::tail(self.memory.base().as_ptr().cast()).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }

    /// The kernel handed one back, filled.
    #[inline]
    pub(super) const fn taken(&mut self) {
        self.provided -= 1;
        self.taken += 1;
    }

    /// A receive found none: the target was too low for this burst.
    pub(super) fn ran_out(&mut self) {
        self.peak = self.peak.max(self.target);
        self.target = (self.target * 2).min(self.target_max);
    }

    /// At the end of a tick: the target becomes four times what one tick took at most.
    #[inline]
    pub(super) fn adapt(&mut self) {
        self.peak = self.peak.max(self.taken);
        if self.taken * 2 > self.target {
            self.target = (self.target * 2).min(self.target_max);
        }
        self.taken = 0;
        self.ticks += 1;
        if self.ticks == WINDOW_TICKS {
            self.ticks = 0;
            self.target = (self.peak * 4).clamp(self.target_min, self.target_max);
            self.peak = 0;
        }
    }

    pub(super) const fn leak(&mut self) {
        self.memory.leak();
    }
}
