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
//!
//! A burst comes in a long slot, and its packets are handed out one by one. What is put in front of one of
//! them stands aside, since its neighbour is there. The long slot is free when the last of them is back:
//!
//! ```text
//! burst [ recvmsg_out 16 | name 32 | control 48 | segment | segment | ... | aside, aside, ... ]
//! ```

use std::io;
use std::ptr::NonNull;

use sluice_base::io::Slot;
use sluice_base::limits::{BURST_SEGMENTS_MAX, HEADROOM_MIN, SLOT_BYTES, SLOTS_MAX, SLOTS_MIN, TAILROOM_MIN};

/// What the ring writes in front of a payload, and so the room that every driver leaves.
pub(crate) const HEADROOM: usize = 72;

/// Where a receive has to end.
pub(crate) const RECEIVE_END: usize = SLOT_BYTES - TAILROOM_MIN;

/// Distance of two slots. One cache line more than a slot: with a power of two the first lines of all
/// slots would share two sets of a 32 KiB cache.
const STRIDE: usize = SLOT_BYTES + 64;

const _: () = assert!(HEADROOM >= HEADROOM_MIN && RECEIVE_END < u16::MAX as usize);

/// Where a receive into a long slot has to end: a datagram of the kernel's has 65 535 bytes at most.
pub(crate) const BURST_RECEIVE_END: usize = 66 * 1024;

/// Room aside for what is put in front of one segment: a power of two.
const ASIDE_BYTES: usize = 64;

/// Where the rooms aside begin in a long slot.
const ASIDE_AT: usize = 72 * 1024;

/// Distance of two long slots. A power of two, to which they are aligned: a segment finds its room aside by
/// it. Memory that nothing is written to is never there.
const BURST_STRIDE: usize = 128 * 1024;

/// Long slots start a cache line later one than the other, or their first lines would share one set of a cache.
const COLOURS: usize = 64;

const _: () = assert!(ASIDE_BYTES >= HEADROOM_MIN);
// The colours shift what is received, and not the rooms aside.
const _: () = assert!(COLOURS * 64 + BURST_RECEIVE_END <= ASIDE_AT);
const _: () = assert!(ASIDE_AT + BURST_SEGMENTS_MAX * ASIDE_BYTES <= BURST_STRIDE);

/// Number of a slot within its arena; long slots have [`BURST`] set.
pub(crate) type Index = u16;

/// Marks the number of a long slot.
const BURST: Index = 1 << 15;

const _: () = assert!(SLOTS_MAX <= BURST as u32);

/// Whether it is a long slot.
#[inline]
pub(crate) const fn is_burst(index: Index) -> bool {
    index & BURST != 0
}

/// Anonymous memory, zeroed.
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
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { base, bytes, leak: false })
    }

    /// The same, all of it resident: page faults belong to the start, not to the first packets.
    ///
    /// # Errors
    /// ENOMEM.
    pub(crate) fn resident(bytes: usize) -> io::Result<Self> {
        let mapping = Mapping::new(bytes)?;
        // Fewer TLB misses where the system has huge pages to give; refused is as good.
        // SAFETY: the range is the mapping's.
        unsafe { libc::madvise(mapping.base.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        for offset in (0..bytes).step_by(4096) {
            // SAFETY: `offset` is within the mapping.
            unsafe { mapping.base.as_ptr().add(offset).write_volatile(0) };
        }
        Ok(mapping)
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
    /// The first byte of its slot, or of its segment.
    base: NonNull<u8>,
    start: u16,
    end: u16,
    /// Which segment of a long slot it is, or [`WHOLE`].
    segment: u8,
    /// Bytes in front of it that stand aside.
    front: u8,
    /// Zero bytes behind it that stand nowhere.
    back: u8,
}

/// A packet with a slot to itself.
const WHOLE: u8 = u8::MAX;

const _: () = assert!(BURST_SEGMENTS_MAX <= WHOLE as usize && size_of::<Packet>() == 16);

/// What stands behind a segment that is padded.
static ZEROS: [u8; BACK_BYTES] = [0; BACK_BYTES];

/// Zero bytes behind a segment at most: the padding of an attribute (RFC 8489, 14).
const BACK_BYTES: usize = 3;

/// Pieces of memory that make up a packet at most.
pub(crate) const PACKET_PIECES: usize = 3;

// SAFETY: a packet is the only owner of its bytes, and the mapping outlives it (see `Arena::drop`).
unsafe impl Send for Packet {}

impl Packet {
    /// Address and length of the payload, for the kernel.
    #[inline]
    pub(crate) const fn raw(&self) -> (*mut u8, u32) {
        // SAFETY: `start` is within the slot.
        let start = unsafe { self.base.as_ptr().add(self.start as usize) };
        (start, (self.end - self.start) as u32)
    }

    /// Its length on the wire.
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        (self.end - self.start) as usize + self.front as usize + self.back as usize
    }

    /// Whether all of it lies in one piece.
    #[inline]
    pub(crate) const fn is_one_piece(&self) -> bool {
        self.front == 0 && self.back == 0
    }

    /// Writes down its pieces for the kernel; how many.
    #[inline]
    pub(crate) fn pieces(&self, vectors: &mut [libc::iovec; PACKET_PIECES]) -> usize {
        let (bytes, len) = self.raw();
        if self.is_one_piece() {
            vectors[0] = piece(bytes, len as usize);
            return 1;
        }
        vectors[0] = piece(self.aside(), self.front as usize);
        vectors[1] = piece(bytes, len as usize);
        // The kernel only reads what it sends.
        vectors[2] = piece(ZEROS.as_ptr().cast_mut(), self.back as usize);
        if self.back > 0 { 3 } else { 2 }
    }

    /// The room aside of a segment.
    fn aside(&self) -> *mut u8 {
        let offset = ASIDE_AT + self.segment as usize * ASIDE_BYTES;
        self.base.as_ptr().map_addr(|address| (address & !(BURST_STRIDE - 1)) + offset)
    }

    /// Room that does not lie around the payload.
    fn frame_aside(&mut self, front: usize, back: usize) -> Option<&mut [u8]> {
        if self.segment == WHOLE || !self.is_one_piece() || front > ASIDE_BYTES || back > BACK_BYTES {
            return None;
        }
        (self.front, self.back) = (front as u8, back as u8);
        // SAFETY: the room is within the long slot that this is a segment of, belongs to this segment only, and
        // is initialised since the mapping was made.
        Some(unsafe { std::slice::from_raw_parts_mut(self.aside(), front) })
    }
}

const fn piece(bytes: *mut u8, len: usize) -> libc::iovec {
    libc::iovec { iov_base: bytes.cast(), iov_len: len }
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
        if self.segment == WHOLE { SLOT_BYTES - self.end as usize } else { 0 }
    }

    #[inline]
    fn frame(&mut self, front: usize, back: usize) -> Option<&mut [u8]> {
        if front > self.headroom() || back > self.tailroom() {
            return self.frame_aside(front, back);
        }
        self.start -= front as u16;
        self.end += back as u16;
        let payload = self.payload_mut();
        let behind = payload.len() - back;
        payload[behind..].fill(0);
        Some(&mut payload[..front])
    }

    #[inline]
    fn trim_front(&mut self, n: usize) {
        assert!(n <= (self.end - self.start) as usize, "a slot's payload is exceeded");
        self.start += n as u16;
    }

    #[inline]
    fn set_len(&mut self, len: usize) {
        let room = (self.end - self.start) as usize + self.tailroom();
        assert!(len <= room, "a slot's tailroom is exceeded");
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
    /// Packets with the worker.
    out: u32,
    long: Long,
}

/// The long slots.
#[derive(Debug)]
struct Long {
    memory: Mapping,
    /// The first byte of the first one, aligned to the distance of two.
    origin: NonNull<u8>,
    free: Vec<Index>,
    /// How many owners each has.
    parts: Box<[u8]>,
}

// SAFETY: `origin` points into the mapping that this value owns.
unsafe impl Send for Long {}

impl Arena {
    /// `slots` is brought within [`SLOTS_MIN`] and [`SLOTS_MAX`]; `long` slots are for bursts.
    ///
    /// # Errors
    /// ENOMEM.
    pub(crate) fn new(slots: u32, long: u16) -> io::Result<Self> {
        let slots = slots.clamp(SLOTS_MIN, SLOTS_MAX);
        let memory = Mapping::resident(slots as usize * STRIDE)?;
        let free = (0..slots).rev().map(|index| index as Index).collect();
        let reserve = (slots as usize / 8).min(256);
        Ok(Arena { memory, slots, free, reserve, out: 0, long: Long::new(long)? })
    }

    /// Slots, without the long ones.
    pub(crate) const fn slots(&self) -> u32 {
        self.slots
    }

    /// Long slots.
    pub(crate) const fn long_slots(&self) -> u32 {
        self.long.parts.len() as u32
    }

    /// Free slots, the reserve included.
    pub(crate) const fn free_slots(&self) -> usize {
        self.free.len()
    }

    /// Free long slots.
    pub(crate) const fn free_long_slots(&self) -> usize {
        self.long.free.len()
    }

    /// A slot for a receive, unless only the reserve is left.
    #[inline]
    pub(crate) fn take_for_receive(&mut self) -> Option<Index> {
        if self.free.len() <= self.reserve {
            return None;
        }
        self.free.pop()
    }

    /// A long slot for a receive.
    #[inline]
    pub(crate) fn take_for_burst(&mut self) -> Option<Index> {
        let index = self.long.free.pop()?;
        self.long.parts[(index & !BURST) as usize] = 1;
        Some(index)
    }

    /// An empty packet for what the worker writes.
    pub(crate) fn blank(&mut self) -> Option<Packet> {
        let index = self.free.pop()?;
        Some(self.packet(index, HEADROOM, HEADROOM))
    }

    /// Gives back a slot that the kernel or a queue had: to the stack, if it was the last part of it.
    #[inline]
    pub(crate) fn put(&mut self, index: Index) {
        if is_burst(index) {
            return self.long.put(index);
        }
        debug_assert!(self.free.len() < self.slots as usize);
        self.free.push(index);
    }

    /// First byte of a slot.
    #[inline]
    pub(crate) fn address(&self, index: Index) -> NonNull<u8> {
        if is_burst(index) {
            return self.long.address(index);
        }
        assert!((index as u32) < self.slots);
        // SAFETY: the slot is within the mapping.
        unsafe { self.memory.base().add(index as usize * STRIDE) }
    }

    /// Hands a slot, which nobody else owns, to the worker, with the payload at `start..end`.
    #[inline]
    pub(crate) fn packet(&mut self, index: Index, start: usize, end: usize) -> Packet {
        debug_assert!(start <= end && end <= SLOT_BYTES);
        self.out += 1;
        let base = self.address(index);
        Packet { base, start: start as u16, end: end as u16, segment: WHOLE, front: 0, back: 0 }
    }

    /// A long slot, which nobody else owns, is about to be handed out in that many segments.
    #[inline]
    pub(crate) fn split(&mut self, index: Index, segments: usize) {
        debug_assert!(segments > 0 && segments <= BURST_SEGMENTS_MAX);
        self.long.parts[(index & !BURST) as usize] = segments as u8;
    }

    /// Hands out one segment of a long slot that was split.
    #[inline]
    pub(crate) fn segment(&mut self, index: Index, segment: usize, start: usize, len: usize) -> Packet {
        debug_assert!(start + len <= BURST_RECEIVE_END && segment < BURST_SEGMENTS_MAX);
        self.out += 1;
        // SAFETY: the segment is within the slot.
        let base = unsafe { self.address(index).add(start) };
        Packet { base, start: 0, end: len as u16, segment: segment as u8, front: 0, back: 0 }
    }

    /// Takes a packet back from the worker; its slot is still to be `put`.
    ///
    /// # Panics
    /// If the packet is another driver's.
    #[inline]
    pub(crate) fn reclaim(&mut self, packet: Packet) -> Index {
        let address = packet.base.as_ptr() as usize;
        let offset = address.wrapping_sub(self.memory.base().as_ptr() as usize);
        let index = if offset < self.memory.bytes { (offset / STRIDE) as Index } else { self.long.index(address) };
        self.out -= 1;
        index
    }

    /// Keeps the memory for the rest of the process: the kernel may still write to it.
    pub(crate) const fn leak(&mut self) {
        self.memory.leak();
        self.long.memory.leak();
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if self.out > 0 {
            self.leak();
        }
    }
}

impl Long {
    fn new(slots: u16) -> io::Result<Self> {
        // One more than asked for, since a mapping need not be aligned; and never nothing.
        let memory = Mapping::new((slots as usize + 1) * BURST_STRIDE)?;
        let origin = memory.base().map_addr(|address| {
            let aligned = address.get().next_multiple_of(BURST_STRIDE);
            std::num::NonZero::new(aligned).unwrap_or(address)
        });
        let free = (0..slots).rev().map(|index| index | BURST).collect();
        Ok(Long { memory, origin, free, parts: vec![0; slots as usize].into() })
    }

    #[inline]
    fn address(&self, index: Index) -> NonNull<u8> {
        let at = (index & !BURST) as usize;
        assert!(at < self.parts.len());
        // SAFETY: the slot is within the mapping, which has room for one more than there are.
        unsafe { self.origin.add(at * BURST_STRIDE + at % COLOURS * 64) }
    }

    fn index(&self, address: usize) -> Index {
        let at = address.wrapping_sub(self.origin.as_ptr() as usize) / BURST_STRIDE;
        assert!(at < self.parts.len(), "a packet was given to a driver that it does not come from");
        at as Index | BURST
    }

    #[inline]
    fn put(&mut self, index: Index) {
        let parts = &mut self.parts[(index & !BURST) as usize];
        debug_assert!(*parts > 0);
        *parts -= 1;
        if *parts == 0 {
            self.free.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_moves_within_its_slot() {
        let mut arena = Arena::new(16, 0).unwrap();
        let mut packet = arena.blank().unwrap();
        assert!(packet.payload().is_empty() && packet.headroom() >= HEADROOM_MIN);
        packet.set_len(8);
        packet.payload_mut().copy_from_slice(b"8 bytes!");
        packet.frame(4, 0).unwrap().copy_from_slice(b"4 + ");
        assert_eq!(packet.payload(), b"4 + 8 bytes!");
        packet.trim_front(6);
        assert_eq!(packet.payload(), b"bytes!");
        packet.set_len(5);
        assert_eq!(packet.payload(), b"bytes");
        assert_eq!(packet.headroom() + 5 + packet.tailroom(), SLOT_BYTES);
        arena.reclaim(packet);
    }

    #[test]
    fn a_payload_does_not_leave_its_slot() {
        let mut packet = Arena::new(16, 0).unwrap().blank().unwrap();
        assert!(packet.frame(HEADROOM + 1, 0).is_none());
        assert!(packet.frame(0, SLOT_BYTES - HEADROOM + 1).is_none());
        assert_eq!((packet.headroom(), packet.payload().len()), (HEADROOM, 0));
    }

    fn written(packet: &Packet) -> Vec<u8> {
        let mut vectors = [piece(std::ptr::null_mut(), 0); PACKET_PIECES];
        let count = packet.pieces(&mut vectors);
        let bytes = vectors[..count].iter().flat_map(|vector| {
            // SAFETY: the pieces of a packet are initialised memory of its arena, which is alive.
            unsafe { std::slice::from_raw_parts(vector.iov_base.cast::<u8>(), vector.iov_len) }.to_vec()
        });
        bytes.collect()
    }

    #[test]
    fn a_burst_is_packets_that_do_not_touch_each_other() {
        let mut arena = Arena::new(16, 2).unwrap();
        let index = arena.take_for_burst().unwrap();
        let text = b"0000111122223";
        // SAFETY: the slot is long enough, and nobody else's.
        unsafe { arena.address(index).add(96).copy_from(NonNull::from(text).cast(), text.len()) };
        arena.split(index, 4);
        let mut packets: Vec<_> = [4, 4, 4, 1]
            .into_iter()
            .enumerate()
            .collect::<Vec<_>>()
            .into_iter()
            .map(|(at, len)| arena.segment(index, at, 96 + 4 * at, len))
            .collect();
        packets[0].frame(4, 0).unwrap().copy_from_slice(b"to: ");
        packets[1].frame(HEADROOM_MIN, 3).unwrap().fill(b'.');
        packets[2].trim_front(2);
        packets[2].frame(2, 0).unwrap().copy_from_slice(b"<<");
        packets[3].frame(4, 0).unwrap().copy_from_slice(b"end ");
        let expected = [&b"to: 0000"[..], &[&[b'.'; HEADROOM_MIN][..], b"1111\0\0\0"].concat(), b"<<22", b"end 3"];
        for (packet, expected) in packets.iter().zip(expected) {
            assert_eq!((written(packet), packet.len()), (expected.to_vec(), expected.len()));
        }
        assert!(packets[0].frame(1, 0).is_none(), "a second frame");
        assert!(packets[2].frame(ASIDE_BYTES + 1, 0).is_none() && packets[2].frame(0, BACK_BYTES + 1).is_none());
        for packet in packets {
            assert_eq!(arena.long.free.len(), 1);
            let index = arena.reclaim(packet);
            arena.put(index);
        }
        assert_eq!((arena.long.free.len(), arena.out), (2, 0));
    }

    #[test]
    #[should_panic(expected = "does not come from")]
    fn a_packet_goes_back_to_its_own_driver() {
        let mut one = Arena::new(16, 0).unwrap();
        let mut other = Arena::new(16, 0).unwrap();
        let packet = one.blank().unwrap();
        other.reclaim(packet);
    }

    #[test]
    fn a_packet_outlives_its_driver() {
        let mut packet = {
            let mut arena = Arena::new(16, 0).unwrap();
            arena.blank().unwrap()
        };
        packet.set_len(4);
        packet.payload_mut().copy_from_slice(b"here");
        assert_eq!(packet.payload(), b"here");
    }

    #[test]
    fn receives_leave_a_reserve_for_the_worker() {
        let mut arena = Arena::new(64, 0).unwrap();
        let received = std::iter::from_fn(|| arena.take_for_receive()).count();
        assert_eq!(received, 64 - 8);
        assert_eq!(std::iter::from_fn(|| arena.blank()).count(), 8);
    }
}
