//! The slots of one driver, in one mapping.
//!
//! ```text
//! slot  [ 0 ............. headroom | payload ............ | tailroom ]   SLOT_BYTES
//! ring  [ recvmsg_out 16 | name 32 | control 24 | payload | tailroom ]
//! ```
//!
//! The ring writes its header, the source address and control data in front of the payload; once they
//! are read, that space is headroom. **A slot has one owner at a time: the free stack, the kernel, a
//! queued send, or the worker as a [`Packet`].**

use std::io;
use std::ptr::NonNull;

use sluice_base::io::Slot;
use sluice_base::limits::{HEADROOM_MIN, SLOT_BYTES, SLOTS_MAX, SLOTS_MIN, TAILROOM_MIN};

/// What the ring writes in front of a payload, and so the room that every driver leaves.
pub(crate) const HEADROOM: usize = 72;

/// Where a receive has to end.
pub(crate) const RECEIVE_END: usize = SLOT_BYTES - TAILROOM_MIN;

/// Distance of two slots. One cache line more than a slot: with a power of two the first lines of all
/// slots would share two sets of a 32 KiB cache.
const STRIDE: usize = SLOT_BYTES + 64;

const _: () = assert!(HEADROOM >= HEADROOM_MIN && RECEIVE_END < u16::MAX as usize);

/// Number of a slot within its arena.
pub(crate) type Index = u16;

/// Anonymous memory, zeroed and resident.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
    leak: bool,
}

// SAFETY: the mapping is plain memory that this value alone owns.
unsafe impl Send for Mapping {}

impl Mapping {
    /// # Errors
    /// ENOMEM.
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: an anonymous mapping at an address of the kernel's choosing touches no memory of ours.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // Fewer TLB misses where the system has huge pages to give; refused is as good.
        // SAFETY: the range is the mapping made above.
        unsafe { libc::madvise(base, bytes, libc::MADV_HUGEPAGE) };
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // Page faults belong to the start, not to the first packets.
        for offset in (0..bytes).step_by(4096) {
            // SAFETY: `offset` is within the mapping.
            unsafe { base.as_ptr().add(offset).write_volatile(0) };
        }
        Ok(Mapping { base, bytes, leak: false })
    }

    pub(crate) const fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Keeps the memory for the rest of the process: somebody else may still write to it.
    pub(crate) const fn leak(&mut self) {
        self.leak = true;
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if !self.leak {
            // SAFETY: the range was mapped by `new`, and its owner is gone.
            unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
        }
    }
}

/// A slot that the worker owns. It goes back by the driver's `send` or `free`; one that is dropped
/// instead is lost to its driver (and counted as not free), and the memory outlives the driver.
pub struct Packet {
    base: NonNull<u8>,
    start: u16,
    end: u16,
}

// SAFETY: a packet is the only owner of its bytes, and the mapping outlives it (see `Arena::drop`).
unsafe impl Send for Packet {}

impl Packet {
    /// Address and length of the payload, for the kernel.
    pub(crate) const fn raw(&self) -> (*mut u8, u32) {
        // SAFETY: `start` is within the slot.
        let start = unsafe { self.base.as_ptr().add(self.start as usize) };
        (start, (self.end - self.start) as u32)
    }
}

impl std::fmt::Debug for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packet({} bytes)", self.end - self.start)
    }
}

impl Slot for Packet {
    #[inline]
    fn payload(&self) -> &[u8] {
        let (start, len) = self.raw();
        // SAFETY: the bytes are within the slot, initialised since the mapping was made, and this packet
        // is their only owner.
        unsafe { std::slice::from_raw_parts(start, len as usize) }
    }

    #[inline]
    fn payload_mut(&mut self) -> &mut [u8] {
        let (start, len) = self.raw();
        // SAFETY: as in `payload`, and `self` is borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(start, len as usize) }
    }

    #[inline]
    fn headroom(&self) -> usize {
        self.start as usize
    }

    #[inline]
    fn tailroom(&self) -> usize {
        SLOT_BYTES - self.end as usize
    }

    #[inline]
    fn grow_front(&mut self, n: usize) {
        assert!(n <= self.headroom(), "a slot's headroom is exceeded");
        self.start -= n as u16;
    }

    #[inline]
    fn trim_front(&mut self, n: usize) {
        assert!(n <= (self.end - self.start) as usize, "a slot's payload is exceeded");
        self.start += n as u16;
    }

    #[inline]
    fn set_len(&mut self, len: usize) {
        assert!(len <= SLOT_BYTES - self.start as usize, "a slot's tailroom is exceeded");
        self.end = self.start + len as u16;
    }
}

/// The slots, and the stack of those that are free: the one used last is taken first, while it is
/// still in a cache.
#[derive(Debug)]
pub(crate) struct Arena {
    memory: Mapping,
    slots: u32,
    free: Vec<Index>,
    /// Slots that receives leave for what the worker itself writes.
    reserve: usize,
    /// Slots with the worker.
    out: u32,
}

impl Arena {
    /// `slots` is brought within [`SLOTS_MIN`] and [`SLOTS_MAX`].
    ///
    /// # Errors
    /// ENOMEM.
    pub(crate) fn new(slots: u32) -> io::Result<Self> {
        let slots = slots.clamp(SLOTS_MIN, SLOTS_MAX);
        let memory = Mapping::new(slots as usize * STRIDE)?;
        let free = (0..slots).rev().map(|index| index as Index).collect();
        Ok(Arena { memory, slots, free, reserve: (slots as usize / 8).min(256), out: 0 })
    }

    pub(crate) const fn slots(&self) -> u32 {
        self.slots
    }

    /// Free slots, the reserve included.
    pub(crate) const fn free_slots(&self) -> usize {
        self.free.len()
    }

    /// A slot for a receive, unless only the reserve is left.
    #[inline]
    pub(crate) fn take_for_receive(&mut self) -> Option<Index> {
        if self.free.len() <= self.reserve {
            return None;
        }
        self.free.pop()
    }

    /// An empty packet for what the worker writes.
    pub(crate) fn blank(&mut self) -> Option<Packet> {
        let index = self.free.pop()?;
        Some(self.packet(index, HEADROOM, HEADROOM))
    }

    /// Gives a slot that the kernel or a queue had back to the stack.
    #[inline]
    pub(crate) fn put(&mut self, index: Index) {
        debug_assert!(self.free.len() < self.slots as usize);
        self.free.push(index);
    }

    /// First byte of a slot.
    #[inline]
    pub(crate) fn address(&self, index: Index) -> NonNull<u8> {
        assert!((index as u32) < self.slots);
        // SAFETY: the slot is within the mapping.
        unsafe { self.memory.base().add(index as usize * STRIDE) }
    }

    /// Hands a slot, which nobody else owns, to the worker, with the payload at `start..end`.
    #[inline]
    pub(crate) fn packet(&mut self, index: Index, start: usize, end: usize) -> Packet {
        debug_assert!(start <= end && end <= SLOT_BYTES);
        self.out += 1;
        Packet { base: self.address(index), start: start as u16, end: end as u16 }
    }

    /// Takes a packet back from the worker.
    ///
    /// # Panics
    /// If the packet is another driver's.
    #[inline]
    pub(crate) fn reclaim(&mut self, packet: Packet) -> Index {
        let offset = (packet.base.as_ptr() as usize).wrapping_sub(self.memory.base().as_ptr() as usize);
        assert!(offset < self.memory.bytes, "a packet was given to a driver that it does not come from");
        self.out -= 1;
        (offset / STRIDE) as Index
    }

    /// Keeps the memory for the rest of the process: the kernel may still write to it.
    pub(crate) const fn leak(&mut self) {
        self.memory.leak();
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if self.out > 0 {
            self.memory.leak();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_moves_within_its_slot() {
        let mut arena = Arena::new(16).unwrap();
        let mut packet = arena.blank().unwrap();
        assert!(packet.payload().is_empty() && packet.headroom() >= HEADROOM_MIN);
        packet.set_len(8);
        packet.payload_mut().copy_from_slice(b"8 bytes!");
        packet.grow_front(4);
        packet.payload_mut()[..4].copy_from_slice(b"4 + ");
        assert_eq!(packet.payload(), b"4 + 8 bytes!");
        packet.trim_front(6);
        assert_eq!(packet.payload(), b"bytes!");
        packet.set_len(5);
        assert_eq!(packet.payload(), b"bytes");
        assert_eq!(packet.headroom() + 5 + packet.tailroom(), SLOT_BYTES);
        arena.reclaim(packet);
    }

    #[test]
    #[should_panic(expected = "headroom")]
    fn a_payload_does_not_leave_its_slot() {
        let mut packet = Arena::new(16).unwrap().blank().unwrap();
        packet.grow_front(HEADROOM + 1);
    }

    #[test]
    #[should_panic(expected = "does not come from")]
    fn a_packet_goes_back_to_its_own_driver() {
        let mut one = Arena::new(16).unwrap();
        let mut other = Arena::new(16).unwrap();
        let packet = one.blank().unwrap();
        other.reclaim(packet);
    }

    #[test]
    fn a_packet_outlives_its_driver() {
        let mut packet = {
            let mut arena = Arena::new(16).unwrap();
            arena.blank().unwrap()
        };
        packet.set_len(4);
        packet.payload_mut().copy_from_slice(b"here");
        assert_eq!(packet.payload(), b"here");
    }

    #[test]
    fn receives_leave_a_reserve_for_the_worker() {
        let mut arena = Arena::new(64).unwrap();
        let received = std::iter::from_fn(|| arena.take_for_receive()).count();
        assert_eq!(received, 64 - 8);
        assert_eq!(std::iter::from_fn(|| arena.blank()).count(), 8);
    }
}
