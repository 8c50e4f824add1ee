//! What is seen of the media that passes: loss and jitter on the way to the relay, from headers that are in clear under
//! SRTP as well (RFC 3550, A.1, A.3 and A.8). No keys, no floating point, and nothing allocated for a packet.
//!
//! **One function per packet: [`Quality::observe`].** The stream that a flow's last packet belonged to stands beside
//! the flow, which the packet has looked up anyway; where the source is the same, that is all. Another one is found in
//! a table. Streams are slots of one slab, allocated at the start; each hangs in the list of its allocation, and goes
//! with it.
//!
//! ```text
//!               awaited, 64 numbers                      promised next
//!   ... lost ) [ . x x . x x x x x ... x x . highest ]  ( ...
//!    late ^        ^ come: received, come again: duplicate
//! ```

use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::fast::FixedState;
use sluice_base::event::StreamEnded;
use sluice_base::limits::{
    CLOCK_STRETCH_MAX, CLOCK_STRETCH_MIN, RTP_DROPOUT_MAX, RTP_MISORDER_MAX, RTP_PROBATION_PACKETS, STREAM_LIFETIME,
    STREAM_OBSERVE_INTERVAL, STREAM_SEARCH_INTERVAL, STREAM_SEARCH_MAX, STREAM_SILENT_MIN, STREAM_TOLD_PACKETS_MIN,
    STREAMS_PER_ALLOCATION_MAX, STREAMS_PER_WORKER_MAX, STREAMS_UNTOLD_MAX,
};
use sluice_base::stats::Leg;
use sluice_base::stats::media::{Media, MediaCounter, MediaKind, media_place, media_places};
use sluice_base::{Mono, SessionId, TenantId};
use sluice_wire::rtp::{self, Packet, Rtp};

/// No stream.
const NONE: u32 = u32::MAX;

/// Sequence numbers that are awaited at a time.
const WINDOW: u16 = u64::BITS as u16;

/// Clock rates that a measured one is snapped to, in Hz (RFC 3551, 6; RFC 7587 for 48000; RFC 4103 for 1000).
const CLOCK_RATES: [u32; 11] = [1_000, 8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 90_000];

/// A measured rate is one of them within 1 part of so many.
const SNAP_PARTS: u64 = 100;
/// A known rate no longer holds beyond 1 part of so many.
const KEEP_PARTS: u64 = 10;

/// A difference of transit times beyond this is no jitter: the timestamps have leapt.
const LEAP_NANOS: u64 = 8_000_000_000;

/// In how many portions all streams are observed.
pub(crate) const PORTIONS: u32 = 20;

const LIFETIME_NANOS: u64 = STREAM_LIFETIME.as_nanos() as u64;
const OBSERVE_NANOS: u64 = STREAM_OBSERVE_INTERVAL.as_nanos() as u64;
const SILENT_NANOS: u64 = STREAM_SILENT_MIN.as_nanos() as u64;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// How long until the next portion.
pub(crate) const PORTION_INTERVAL: Duration = Duration::from_nanos(OBSERVE_NANOS / PORTIONS as u64);

/// What stands beside a channel or a permission: which flow it is, and the stream of the last packet, per leg.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    id: u32,
    recent: [u32; Leg::COUNT],
    tenant: TenantId,
}

/// All streams of one worker.
#[derive(Debug)]
pub(crate) struct Quality {
    streams: Vec<Stream>,
    /// How many there may be: nothing is allocated for one.
    places: u32,
    /// Slots that were used before, linked by `next`.
    free: u32,
    used: u32,
    /// First streams of the chains of the table.
    heads: Box<[u32]>,
    hasher: FixedState,
    /// By the allocation's slot.
    owners: Vec<Owner>,
    flows: u32,
    /// The portion that is observed next.
    portion: u32,
    /// Where the next search begins, and when it may.
    hand: u32,
    search_at: Mono,
    /// By [`media_place`].
    media: Box<[Media]>,
    /// Streams that have ended and are to be told of; never more on the way of a packet than there is room for.
    ended: Vec<StreamEnded>,
    untold: u64,
    /// The fewest packets of a stream that is told of; none is where nobody is told.
    told_from: Option<u64>,
}

/// What an allocation has.
#[derive(Clone, Copy, Debug)]
struct Owner {
    session: SessionId,
    tenant: TenantId,
    first: u32,
    count: u16,
    /// Its places are used up: when to search again.
    search_at: Mono,
}

/// One source of one flow on one leg. What a packet reads and writes is the first cache line.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
struct Stream {
    /// Flow, leg, RTP or RTCP, and SSRC.
    key: u64,
    /// Bit i is the number i before the highest: it has come, or nobody waits for it.
    window: u64,
    arrival: Mono,
    /// Sixteen times the jitter (RFC 3550, A.8), in nanoseconds.
    jitter: u64,
    /// Nanoseconds of a tick, times 256; 0 while the clock is unknown.
    tick: u32,
    timestamp: u32,
    /// Next in its chain of the table.
    chain: u32,
    /// Bytes since it was last observed.
    bytes: u32,
    /// Since it was last observed.
    expected: u32,
    lost: u32,
    highest: u16,
    /// Place of its sums.
    place: u16,
    /// Numbers of the window that came or are awaited, from the highest on.
    open: u8,
    state: State,

    /// Where the measure of the clock began.
    from_arrival: Mono,
    from_timestamp: u32,
    rate: u32,
    owner: u32,
    /// Of the same allocation; of the free ones.
    next: u32,
    previous: u32,
    /// Where a stream that begins anew goes on.
    restart: u16,
    /// The last measure did not agree with the rate.
    doubted: bool,
    /// When its first packet came.
    since: Mono,
    /// What it was like until it was last observed.
    so_far: SoFar,
}

/// Sums of one stream.
#[derive(Clone, Copy, Default, Debug)]
struct SoFar {
    expected: u64,
    lost: u64,
    bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Free,
    /// So many packets in a row.
    Probation(u8),
    Live,
    /// Live, and one packet came from far off.
    Leaping,
    RtcpProbation(u8),
    Rtcp,
}

impl Quality {
    /// Nobody's streams. `seed` keeps those who choose their sources from choosing their places in the table.
    /// With `tells` their ends are kept for [`Quality::take_ended`].
    pub(crate) fn new(tenants: usize, seed: u64, tells: bool) -> Self {
        Self::with_places(tenants, seed, tells.then_some(STREAM_TOLD_PACKETS_MIN), STREAMS_PER_WORKER_MAX)
    }

    pub(crate) fn with_places(tenants: usize, seed: u64, told_from: Option<u64>, places: u32) -> Self {
        Quality {
            streams: Vec::with_capacity(places as usize),
            places,
            free: NONE,
            used: 0,
            heads: vec![NONE; places.next_power_of_two() as usize].into(),
            hasher: FixedState::with_seed(seed),
            owners: Vec::new(),
            flows: 0,
            portion: 0,
            hand: 0,
            search_at: Mono::default(),
            media: vec![Media::default(); media_places(tenants)].into(),
            ended: Vec::with_capacity(told_from.map_or(0, |_| STREAMS_UNTOLD_MAX)),
            untold: 0,
            told_from,
        }
    }

    /// What was seen so far, by [`media_place`].
    pub(crate) fn media(&self) -> &[Media] {
        &self.media
    }

    /// Makes room for an allocation in a slot.
    pub(crate) fn begin(&mut self, allocation: u32, session: SessionId, tenant: TenantId) {
        let at = allocation as usize;
        let new = Owner { session, tenant, first: NONE, count: 0, search_at: Mono::default() };
        self.owners.resize(self.owners.len().max(at + 1), new);
        self.owners[at] = new;
    }

    /// The streams that have ended since, as found at a time.
    pub(crate) fn take_ended(&mut self, unix_seconds: u64) -> impl Iterator<Item = StreamEnded> {
        self.ended.drain(..).map(move |ended| StreamEnded { unix_seconds, ..ended })
    }

    /// How many have ended since that are not among them.
    pub(crate) fn take_untold(&mut self) -> u64 {
        std::mem::take(&mut self.untold)
    }

    /// The flow of a new channel or permission.
    pub(crate) fn flow(&mut self, tenant: TenantId) -> Flow {
        // 30 bits of a key; none is 0, which a free slot's is.
        self.flows = self.flows % (u32::MAX >> 2) + 1;
        Flow { id: self.flows, recent: [NONE; Leg::COUNT], tenant }
    }

    /// A datagram that came by `leg`, on its way to be relayed. Whatever it is.
    #[inline]
    pub(crate) fn observe(&mut self, now: Mono, flow: &mut Flow, leg: Leg, allocation: u32, payload: &[u8]) {
        match rtp::parse(payload) {
            Some(Packet::Rtp(rtp)) => self.media_packet(now, flow, leg, allocation, &rtp, payload.len()),
            Some(Packet::Rtcp(rtcp)) => self.rtcp(now, flow, leg, allocation, rtcp.ssrc()),
            None => {}
        }
    }

    /// A flow has ended; its allocation lives on.
    pub(crate) fn end_flow(&mut self, allocation: u32, flow: &Flow) {
        let mut at = self.owners.get(allocation as usize).map_or(NONE, |owner| owner.first);
        while let Some(stream) = self.streams.get(at as usize) {
            let (key, next) = (stream.key, stream.next);
            if (key >> 34) as u32 == flow.id {
                self.end_stream(at);
            }
            at = next;
        }
    }

    /// An allocation has ended.
    pub(crate) fn end(&mut self, allocation: u32) {
        while let Some(owner) = self.owners.get(allocation as usize)
            && owner.first != NONE
        {
            self.end_stream(owner.first);
        }
    }

    /// Observes the next portion of the streams, ends those that are over. Whether to come again.
    pub(crate) fn observe_portion(&mut self, now: Mono) -> bool {
        let all = self.streams.len() as u64;
        let bound = |portion: u32| (all * u64::from(portion) / u64::from(PORTIONS)) as u32;
        for at in bound(self.portion)..bound(self.portion + 1) {
            let stream = &mut self.streams[at as usize];
            if stream.state == State::Free {
                continue;
            }
            if stream.silence(now) >= LIFETIME_NANOS {
                self.end_stream(at);
            } else if matches!(stream.state, State::Live | State::Leaping) {
                stream.observe(now, &mut self.media[usize::from(stream.place)]);
            }
        }
        self.portion = (self.portion + 1) % PORTIONS;
        self.used > 0
    }

    /// Whether any stream wants [`Quality::observe_portion`].
    #[inline]
    pub(crate) fn is_followed(&self) -> bool {
        self.used > 0
    }

    /// Whether a source of a flow is followed.
    pub(crate) fn follows(&self, flow: &Flow, leg: Leg, rtcp: bool, ssrc: u32) -> bool {
        let key = key(flow, leg, rtcp, ssrc);
        self.streams.iter().any(|stream| stream.state != State::Free && stream.key == key)
    }

    /// Every stream in use is in its chain and in its allocation's list, and nothing else is.
    ///
    /// # Panics
    /// When that is not so.
    pub(crate) fn assert_sound(&self) {
        let used = self.streams.iter().filter(|stream| stream.state != State::Free).count();
        assert!(used == self.used as usize && self.streams.len() <= self.places as usize);
        let mut chained = 0;
        for (head, first) in self.heads.iter().enumerate() {
            let mut at = *first;
            while let Some(stream) = self.streams.get(at as usize) {
                assert!(stream.state != State::Free && self.chain_of(stream.key) == head);
                (at, chained) = (stream.chain, chained + 1);
            }
        }
        let mut owned = 0;
        for (allocation, owner) in self.owners.iter().enumerate() {
            let streams = Siblings { quality: self, at: owner.first };
            let count = streams.inspect(|at| assert_eq!(self.streams[*at as usize].owner as usize, allocation)).count();
            assert_eq!(count, usize::from(owner.count));
            owned += count;
        }
        let free = Siblings { quality: self, at: self.free }.count();
        assert_eq!((chained, owned, used + free), (used, used, self.streams.len()));
    }

    #[inline]
    fn media_packet(&mut self, now: Mono, flow: &mut Flow, leg: Leg, allocation: u32, rtp: &Rtp<'_>, len: usize) {
        let key = key(flow, leg, false, rtp.ssrc());
        let recent = flow.recent[leg as usize];
        let at = match self.streams.get(recent as usize) {
            Some(stream) if stream.key == key => recent,
            _ => {
                let Some(at) = self.find(now, key, flow.tenant, leg, allocation) else {
                    return;
                };
                flow.recent[leg as usize] = at;
                at
            }
        };
        let stream = &mut self.streams[at as usize];
        let sums = &mut self.media[usize::from(stream.place)];
        stream.packet(now, rtp.sequence(), rtp.timestamp(), len, sums);
    }

    fn rtcp(&mut self, now: Mono, flow: &Flow, leg: Leg, allocation: u32, ssrc: u32) {
        let key = key(flow, leg, true, ssrc);
        if let Some(at) = self.find(now, key, flow.tenant, leg, allocation) {
            let stream = &mut self.streams[at as usize];
            stream.rtcp(now, &mut self.media[usize::from(stream.place)]);
        }
    }

    /// The stream of a key; a new one where it has none, unless there is no place.
    fn find(&mut self, now: Mono, key: u64, tenant: TenantId, leg: Leg, allocation: u32) -> Option<u32> {
        let mut at = self.heads[self.chain_of(key)];
        while let Some(stream) = self.streams.get(at as usize) {
            if stream.key == key {
                return Some(at);
            }
            at = stream.chain;
        }
        self.begin_stream(now, key, tenant, leg, allocation)
    }

    #[cold]
    fn begin_stream(&mut self, now: Mono, key: u64, tenant: TenantId, leg: Leg, allocation: u32) -> Option<u32> {
        let at = self.place(now, allocation)?;
        let (chain, owner) = (self.chain_of(key), self.owners.get_mut(allocation as usize)?);
        let place = media_place(self.media.len(), tenant, leg) as u16;
        let mut stream = Stream::new(now, key, place);
        (stream.chain, stream.next, stream.owner) = (self.heads[chain], owner.first, allocation);
        (self.heads[chain], owner.first) = (at, at);
        owner.count += 1;
        let next = stream.next;
        match self.streams.get_mut(at as usize) {
            Some(free) => {
                self.free = free.next;
                *free = stream;
            }
            None => self.streams.push(stream),
        }
        if let Some(next) = self.streams.get_mut(next as usize) {
            next.previous = at;
        }
        self.used += 1;
        Some(at)
    }

    /// A free place, if need be that of a silent stream.
    fn place(&mut self, now: Mono, allocation: u32) -> Option<u32> {
        let owner = *self.owners.get(allocation as usize)?;
        if owner.count >= STREAMS_PER_ALLOCATION_MAX {
            if now < owner.search_at {
                return None;
            }
            self.owners[allocation as usize].search_at = now.after(STREAM_SEARCH_INTERVAL);
            let silent = self.most_silent(now, Siblings { quality: self, at: owner.first })?;
            self.give_place(silent);
        }
        if self.free == NONE && self.streams.len() as u32 == self.places {
            if now < self.search_at {
                return None;
            }
            self.search_at = now.after(STREAM_SEARCH_INTERVAL);
            let all = self.streams.len() as u32;
            let first = self.hand;
            self.hand = (first + STREAM_SEARCH_MAX) % all;
            let silent = self.most_silent(now, (first..first + STREAM_SEARCH_MAX.min(all)).map(|at| at % all))?;
            self.give_place(silent);
        }
        Some(if self.free == NONE { self.streams.len() as u32 } else { self.free })
    }

    /// Of some streams, the one that has been silent longest.
    fn most_silent(&self, now: Mono, streams: impl Iterator<Item = u32>) -> Option<u32> {
        streams
            .map(|at| (self.streams[at as usize].silence(now), at))
            .max()
            .and_then(|(silence, at)| (silence >= SILENT_NANOS).then_some(at))
    }

    /// Ends a stream amid packets: it is told of where there is room.
    fn give_place(&mut self, at: u32) {
        let told_from = self.told_from;
        if self.ended.len() == self.ended.capacity() {
            self.untold += u64::from(self.told_from.take().is_some());
        }
        self.end_stream(at);
        self.told_from = told_from;
    }

    /// What it still awaits is lost.
    fn end_stream(&mut self, at: u32) {
        let stream = &mut self.streams[at as usize];
        stream.end(&mut self.media[usize::from(stream.place)]);
        let is_media = stream.key & RTCP == 0 && stream.so_far.expected > 0;
        if is_media && self.told_from.is_some_and(|least| stream.so_far.expected >= least) {
            let owner = &self.owners[stream.owner as usize];
            self.ended.push(stream.told(owner.session, owner.tenant));
        }
        let (key, chain, next, previous, owner) =
            (stream.key, stream.chain, stream.next, stream.previous, stream.owner);
        (stream.state, stream.key, stream.next) = (State::Free, 0, self.free);
        self.free = at;
        self.used -= 1;
        let owner = &mut self.owners[owner as usize];
        owner.count -= 1;
        match self.streams.get_mut(previous as usize) {
            Some(previous) => previous.next = next,
            None => owner.first = next,
        }
        if let Some(next) = self.streams.get_mut(next as usize) {
            next.previous = previous;
        }
        self.unchain(key, at, chain);
    }

    fn unchain(&mut self, key: u64, at: u32, next: u32) {
        let head = self.chain_of(key);
        if self.heads[head] == at {
            self.heads[head] = next;
            return;
        }
        let mut before = self.heads[head];
        while let Some(stream) = self.streams.get_mut(before as usize) {
            if stream.chain == at {
                stream.chain = next;
                return;
            }
            before = stream.chain;
        }
    }

    fn chain_of(&self, key: u64) -> usize {
        self.hasher.hash_one(key) as usize & (self.heads.len() - 1)
    }
}

/// The streams of one allocation.
struct Siblings<'a> {
    quality: &'a Quality,
    at: u32,
}

impl Iterator for Siblings<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let at = self.at;
        self.at = self.quality.streams.get(at as usize)?.next;
        Some(at)
    }
}

impl Stream {
    fn new(now: Mono, key: u64, place: u16) -> Self {
        let state = if key & RTCP == 0 { State::Probation(0) } else { State::RtcpProbation(0) };
        Stream {
            key,
            window: u64::MAX,
            arrival: now,
            jitter: 0,
            tick: 0,
            timestamp: 0,
            chain: NONE,
            bytes: 0,
            expected: 0,
            lost: 0,
            highest: 0,
            place,
            open: 0,
            state,
            from_arrival: now,
            from_timestamp: 0,
            rate: 0,
            owner: NONE,
            next: NONE,
            previous: NONE,
            restart: 0,
            doubted: false,
            since: now,
            so_far: SoFar::default(),
        }
    }

    fn silence(&self, now: Mono) -> u64 {
        now.nanos().saturating_sub(self.arrival.nanos())
    }

    #[inline]
    fn packet(&mut self, now: Mono, sequence: u16, timestamp: u32, len: usize, sums: &mut Media) {
        let ahead = sequence.wrapping_sub(self.highest);
        if self.state != State::Live {
            return self.unsettled(now, sequence, timestamp, len, sums);
        }
        self.weigh(len, sums);
        if ahead.wrapping_sub(1) < RTP_DROPOUT_MAX {
            self.advance(ahead, sums);
            self.highest = sequence;
            self.time(now, timestamp);
        } else {
            self.behind(sequence, sums);
        }
    }

    /// Counts its bytes.
    #[inline]
    fn weigh(&mut self, len: usize, sums: &mut Media) {
        // Of 5 s: what does not fit is more than a core relays.
        self.bytes = self.bytes.saturating_add(len as u32);
        sums.add(MediaCounter::Bytes, len as u64);
    }

    /// The highest number is now so many further.
    #[inline]
    fn advance(&mut self, by: u16, sums: &mut Media) {
        let lost = if by < WINDOW {
            let left = self.window >> (WINDOW - by);
            self.window = self.window << by | 1;
            u32::from(by) - left.count_ones()
        } else {
            let left = self.window.count_zeros() + u32::from(by - WINDOW);
            self.window = 1;
            left
        };
        self.open = (u16::from(self.open) + by).min(WINDOW) as u8;
        self.expected += u32::from(by);
        sums.add(MediaCounter::Expected, u64::from(by));
        sums.add(MediaCounter::Received, 1);
        if lost > 0 {
            self.lost += lost;
            sums.add(MediaCounter::Lost, u64::from(lost));
        }
    }

    /// A number that is not ahead.
    fn behind(&mut self, sequence: u16, sums: &mut Media) {
        let behind = self.highest.wrapping_sub(sequence);
        if behind < u16::from(self.open) {
            let bit = 1 << behind;
            if self.window & bit == 0 {
                self.window |= bit;
                sums.add(MediaCounter::Received, 1);
            } else {
                sums.add(MediaCounter::Duplicate, 1);
            }
        } else if behind <= RTP_MISORDER_MAX {
            sums.add(MediaCounter::Late, 1);
        } else {
            // One from far off; a second one next to it, and the stream has begun anew (RFC 3550, A.1).
            (self.state, self.restart) = (State::Leaping, sequence.wrapping_add(1));
        }
    }

    /// On probation, or after a leap.
    #[cold]
    fn unsettled(&mut self, now: Mono, sequence: u16, timestamp: u32, len: usize, sums: &mut Media) {
        let in_a_row = match self.state {
            State::Probation(so_far) if so_far > 0 && sequence == self.highest.wrapping_add(1) => so_far + 1,
            State::Probation(_) => 1,
            State::Leaping if sequence == self.restart => {
                self.give_up(sums);
                self.weigh(len, sums);
                return self.settle(now, sequence, timestamp, 2, sums);
            }
            _ => {
                self.state = State::Live;
                return self.packet(now, sequence, timestamp, len, sums);
            }
        };
        if in_a_row == 1 {
            (self.since, self.bytes) = (now, 0);
        }
        self.bytes += len as u32;
        (self.highest, self.arrival, self.state) = (sequence, now, State::Probation(in_a_row));
        if in_a_row >= RTP_PROBATION_PACKETS {
            sums.add(MediaCounter::Bytes, u64::from(self.bytes));
            sums.add(MediaCounter::Streams, 1);
            sums.add(MediaCounter::ClockUnknown, 1);
            self.settle(now, sequence, timestamp, in_a_row, sums);
        }
    }

    /// It is a stream, or one that has begun anew: `packets` in a row say so.
    fn settle(&mut self, now: Mono, sequence: u16, timestamp: u32, packets: u8, sums: &mut Media) {
        self.state = State::Live;
        (self.window, self.open, self.highest) = (u64::MAX, packets, sequence);
        self.expected += u32::from(packets);
        sums.add(MediaCounter::Expected, packets.into());
        sums.add(MediaCounter::Received, packets.into());
        (self.arrival, self.timestamp) = (now, timestamp);
        self.measure_anew();
    }

    /// Interarrival jitter (RFC 3550, A.8), once the clock is known. Of packets in order: one that was sent again would
    /// bring a round trip into it, and into the measure of the clock.
    #[inline]
    fn time(&mut self, now: Mono, timestamp: u32) {
        if self.tick != 0 {
            let ticks = i64::from(timestamp.wrapping_sub(self.timestamp) as i32);
            let sent = (ticks * i64::from(self.tick)) >> 8;
            let arrived = now.nanos().wrapping_sub(self.arrival.nanos()) as i64;
            let difference = arrived.wrapping_sub(sent).unsigned_abs();
            if difference < LEAP_NANOS {
                self.jitter = self.jitter + difference - ((self.jitter + 8) >> 4);
            } else {
                (self.from_arrival, self.from_timestamp) = (now, timestamp);
            }
        }
        (self.arrival, self.timestamp) = (now, timestamp);
    }

    fn rtcp(&mut self, now: Mono, sums: &mut Media) {
        self.arrival = now;
        match self.state {
            State::RtcpProbation(so_far) if so_far + 1 < RTP_PROBATION_PACKETS => {
                self.state = State::RtcpProbation(so_far + 1);
            }
            State::RtcpProbation(so_far) => {
                sums.add(MediaCounter::Rtcp, u64::from(so_far) + 1);
                self.state = State::Rtcp;
            }
            _ => sums.add(MediaCounter::Rtcp, 1),
        }
    }

    /// Puts down what the last interval was like.
    fn observe(&mut self, now: Mono, sums: &mut Media) {
        if self.silence(now) >= OBSERVE_NANOS {
            self.give_up(sums);
        }
        if self.expected > 0 {
            sums.observe_loss(self.lost, self.expected);
            self.measure(sums);
        }
        self.sum_up();
    }

    /// Puts what there was since the last time to what there was before.
    fn sum_up(&mut self) {
        self.so_far.expected += u64::from(self.expected);
        self.so_far.lost += u64::from(self.lost);
        self.so_far.bytes += u64::from(self.bytes);
        (self.expected, self.lost, self.bytes) = (0, 0, 0);
    }

    /// What is awaited will not come.
    fn give_up(&mut self, sums: &mut Media) {
        let lost = self.window.count_zeros();
        (self.window, self.open) = (u64::MAX, 0);
        self.lost += lost;
        sums.add(MediaCounter::Lost, lost.into());
    }

    /// Infers the clock rate from the time that passed here and in the timestamps, or checks it; observes the jitter.
    fn measure(&mut self, sums: &mut Media) {
        let stretch = self.arrival.since(self.from_arrival);
        if self.rate != 0 {
            sums.observe_jitter(self.jitter >> 4);
        }
        if stretch < CLOCK_STRETCH_MIN {
            return;
        }
        let ticks = u64::from(self.timestamp.wrapping_sub(self.from_timestamp));
        let measured = u128::from(ticks) * u128::from(NANOS_PER_SECOND) / stretch.as_nanos();
        let is = |rate: u32, parts: u64| measured.abs_diff(rate.into()) * u128::from(parts) <= u128::from(rate);
        if self.rate == 0 {
            match CLOCK_RATES.into_iter().find(|rate| is(*rate, SNAP_PARTS)) {
                Some(rate) => {
                    sums.take_one(MediaCounter::ClockUnknown);
                    self.rate = rate;
                    self.tick = (256 * NANOS_PER_SECOND / u64::from(rate)) as u32;
                }
                None if stretch < CLOCK_STRETCH_MAX => return,
                None => {}
            }
        } else if !is(self.rate, KEEP_PARTS) {
            // One packet that was long on its way is no other clock.
            if !std::mem::replace(&mut self.doubted, true) {
                return;
            }
            sums.add(MediaCounter::ClockUnknown, 1);
            (self.rate, self.tick, self.jitter) = (0, 0, 0);
        }
        self.doubted = false;
        self.measure_anew();
    }

    fn measure_anew(&mut self) {
        (self.from_arrival, self.from_timestamp) = (self.arrival, self.timestamp);
    }

    fn end(&mut self, sums: &mut Media) {
        if matches!(self.state, State::Live | State::Leaping) {
            self.give_up(sums);
            if self.expected > 0 {
                sums.observe_loss(self.lost, self.expected);
            }
            sums.take_one(MediaCounter::Streams);
            if self.rate == 0 {
                sums.take_one(MediaCounter::ClockUnknown);
            }
            self.sum_up();
        }
    }

    /// What is told of it once it has ended; when is filled in by whoever knows the time.
    fn told(&self, session: SessionId, tenant: TenantId) -> StreamEnded {
        let SoFar { expected, lost, bytes } = self.so_far;
        StreamEnded {
            session,
            tenant,
            leg: if self.key & PEER == 0 { Leg::Client } else { Leg::Peer },
            kind: kind(self.rate),
            unix_seconds: 0,
            duration: self.arrival.since(self.since),
            packets_expected: expected,
            packets_lost: lost,
            packets_received: expected - lost.min(expected),
            bytes,
            jitter: (self.rate != 0).then(|| Duration::from_nanos(self.jitter >> 4)),
        }
    }
}

/// The bit of a key that RTCP has.
const RTCP: u64 = 1 << 32;

/// The bit of a key that what comes from peers has.
const PEER: u64 = (Leg::Peer as u64) << 33;

/// What a clock of so many Hz is usual for.
const fn kind(rate: u32) -> MediaKind {
    match rate {
        0 => MediaKind::Unknown,
        1_000 => MediaKind::Text,
        90_000 => MediaKind::Video,
        _ => MediaKind::Audio,
    }
}

#[inline]
fn key(flow: &Flow, leg: Leg, rtcp: bool, ssrc: u32) -> u64 {
    u64::from(flow.id) << 34 | (leg as u64) << 33 | u64::from(rtcp) << 32 | u64::from(ssrc)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId(0);
    const SESSION: SessionId = SessionId([7; 16]);

    /// One flow of one allocation, and a clock.
    struct Way {
        quality: Quality,
        flow: Flow,
        now: Mono,
        portion_at: Mono,
    }

    impl Way {
        fn new() -> Self {
            Self::with_places(1 << 10)
        }

        fn with_places(places: u32) -> Self {
            let mut quality = Quality::with_places(1, 7, Some(0), places);
            quality.begin(0, SESSION, TENANT);
            let now = Mono::from_nanos(1_000_000_000_000);
            Way { flow: quality.flow(TENANT), quality, now, portion_at: now }
        }

        fn comes(&mut self, ssrc: u32, sequence: u16, timestamp: u32) {
            let bytes = rtp(ssrc, sequence, timestamp);
            self.quality.observe(self.now, &mut self.flow, Leg::Client, 0, &bytes);
        }

        fn all_come(&mut self, sequences: impl IntoIterator<Item = u16>) {
            sequences.into_iter().for_each(|sequence| self.comes(1, sequence, 0));
        }

        fn pass(&mut self, time: Duration) {
            self.reach(self.now.after(time));
        }

        fn reach(&mut self, time: Mono) {
            while self.portion_at <= time {
                self.quality.observe_portion(self.portion_at);
                self.portion_at = self.portion_at.after(PORTION_INTERVAL);
            }
            self.now = time;
        }

        fn sums(&self) -> &Media {
            &self.quality.media()[0]
        }

        fn is(&self, counter: MediaCounter) -> u64 {
            self.sums().value(counter)
        }

        /// Expected, received, lost, late, duplicate.
        fn counts(&self) -> [u64; 5] {
            [0, 1, 2, 3, 4].map(|i| self.sums().words()[i])
        }
    }

    fn rtp(ssrc: u32, sequence: u16, timestamp: u32) -> [u8; 20] {
        let mut bytes = [0; 20];
        (bytes[0], bytes[1]) = (0x80, 96);
        bytes[2..4].copy_from_slice(&sequence.to_be_bytes());
        bytes[4..8].copy_from_slice(&timestamp.to_be_bytes());
        bytes[8..12].copy_from_slice(&ssrc.to_be_bytes());
        bytes
    }

    #[test]
    fn a_stream_has_one_cache_line_for_its_packets() {
        assert_eq!((size_of::<Stream>(), std::mem::offset_of!(Stream, from_arrival)), (128, 64));
    }

    #[test]
    fn two_in_a_row_make_a_stream_and_count() {
        let mut way = Way::new();
        way.all_come([7, 9, 11]);
        assert_eq!((way.counts(), way.is(MediaCounter::Bytes)), ([0; 5], 0));
        way.all_come([12]);
        assert_eq!((way.counts(), way.is(MediaCounter::Bytes)), ([2, 2, 0, 0, 0], 40));
        assert_eq!((way.is(MediaCounter::Streams), way.is(MediaCounter::ClockUnknown)), (1, 1));
    }

    #[test]
    fn what_is_constant_is_no_stream() {
        let mut way = Way::new();
        way.all_come([7; 100]);
        assert_eq!(way.is(MediaCounter::Streams), 0);
        assert_eq!(way.counts(), [0; 5]);
    }

    #[test]
    fn a_number_is_lost_when_64_have_followed() {
        let mut way = Way::new();
        way.all_come((0..=65).filter(|n| *n != 2));
        assert_eq!(way.counts(), [66, 65, 0, 0, 0]);
        way.all_come([66]);
        assert_eq!(way.counts(), [67, 66, 1, 0, 0]);
        way.all_come([2]);
        assert_eq!(way.counts(), [67, 66, 1, 1, 0]);
    }

    #[test]
    fn a_number_that_comes_in_time_fills_its_gap() {
        let mut way = Way::new();
        way.all_come((0..=65).filter(|n| *n != 2).chain([2, 2]));
        way.all_come(66..200);
        assert_eq!(way.counts(), [200, 200, 0, 0, 1]);
    }

    #[test]
    fn long_gaps_are_lost_at_once_but_for_the_window() {
        for gap in [63, 64, 65, 1000, 2999] {
            let mut way = Way::new();
            way.all_come([65_000, 65_001, 65_001u16.wrapping_add(gap + 1)]);
            let expected = u64::from(gap) + 3;
            let lost = u64::from(gap).saturating_sub(63);
            assert_eq!(way.counts(), [expected, 3, lost, 0, 0], "{gap}");
        }
    }

    #[test]
    fn a_leap_is_no_loss_and_two_in_a_row_begin_anew() {
        for far in [3010u16, 40_000, 64_000] {
            let mut way = Way::new();
            way.all_come([0, 1, 2, 4]);
            way.all_come([far]);
            assert_eq!(way.counts(), [5, 4, 0, 0, 0]);
            way.all_come([5]);
            assert_eq!(way.counts(), [6, 5, 0, 0, 0], "one from far off changes nothing");
            way.all_come([far, far + 1, far + 2]);
            assert_eq!(way.counts(), [9, 8, 1, 0, 0]);
            assert_eq!(way.is(MediaCounter::Streams), 1);
        }
    }

    #[test]
    fn from_before_the_start_or_long_ago_is_late() {
        let mut way = Way::new();
        way.all_come([100, 101, 99]);
        assert_eq!(way.counts(), [2, 2, 0, 1, 0]);
        way.all_come(102..400);
        way.all_come([200]);
        assert_eq!(way.counts(), [300, 300, 0, 2, 0]);
    }

    #[test]
    fn what_is_awaited_in_silence_is_lost_and_then_late() {
        let mut way = Way::new();
        way.all_come([0, 1, 3]);
        way.pass(Duration::from_secs(11));
        assert_eq!(way.counts(), [4, 3, 1, 0, 0]);
        way.all_come([2, 4, 6]);
        assert_eq!(way.counts(), [7, 5, 1, 1, 0]);
    }

    #[test]
    fn loss_is_observed_every_five_seconds_while_packets_come() {
        let mut way = Way::new();
        way.all_come([0]);
        for second in 0..20 {
            // The first observation may come at once.
            way.all_come((second * 100 + 1..second * 100 + 100).filter(|n| n % 10 != 5));
            way.pass(Duration::from_secs(1));
        }
        let (buckets, sum) = way.sums().loss();
        assert!((3..=4).contains(&buckets.iter().sum::<u64>()), "{buckets:?}");
        assert!((0.2..0.45).contains(&sum), "{sum}");
        way.pass(Duration::from_secs(20));
        assert!(way.sums().loss().0.iter().sum::<u64>() <= 5, "a silent stream is not observed again");
    }

    /// Packets for 30 s; each comes with a delay of 0 or `spread`, in turn.
    fn paced(rate: u64, interval: Duration, spread: Duration) -> Way {
        let mut way = Way::new();
        let start = way.now;
        let interval = interval.as_nanos() as u64;
        for n in 0..30_000_000_000 / interval {
            let sent = n * interval;
            let due = start.after(Duration::from_nanos(sent) + if n % 2 == 0 { Duration::ZERO } else { spread });
            way.reach(due);
            // Any origin of the timestamps, and they wrap.
            way.comes(1, n as u16, ((sent * rate / NANOS_PER_SECOND) as u32).wrapping_sub(100_000));
        }
        way
    }

    #[test]
    fn clocks_are_inferred_and_jitter_is_that_of_the_way() {
        for rate in [8_000, 16_000, 44_100, 48_000, 90_000] {
            for (spread, least, most) in [(0, 0.0, 0.000_2), (4, 0.003_5, 0.004_5)] {
                let way = paced(rate, Duration::from_millis(20), Duration::from_millis(spread));
                assert_eq!(way.is(MediaCounter::ClockUnknown), 0, "{rate}");
                let (buckets, sum) = way.sums().jitter();
                let count: u64 = buckets.iter().sum();
                let mean = sum / count as f64;
                assert!(count >= 3 && (least..=most).contains(&mean), "{rate}, {spread}: {mean} of {count}");
            }
        }
    }

    #[test]
    fn a_clock_that_is_none_of_the_usual_stays_unknown() {
        let way = paced(70_000, Duration::from_millis(20), Duration::ZERO);
        assert_eq!(way.is(MediaCounter::ClockUnknown), 1);
        assert_eq!(way.sums().jitter().0.iter().sum::<u64>(), 0);
        assert_eq!(way.counts()[0], 1500);
    }

    #[test]
    fn a_clock_that_changes_is_forgotten_and_inferred_anew() {
        let mut way = paced(48_000, Duration::from_millis(20), Duration::ZERO);
        let mut unknown = Vec::new();
        for n in 0..2000u32 {
            way.reach(way.now.after(Duration::from_millis(20)));
            way.comes(1, 1500 + n as u16, n * 160);
            unknown.push(way.is(MediaCounter::ClockUnknown));
        }
        assert_eq!((unknown.first(), unknown.last()), (Some(&0), Some(&0)));
        assert!(unknown.contains(&1));
    }

    #[test]
    fn sources_in_turn_are_told_apart() {
        let mut way = Way::new();
        for n in 0..100 {
            (1..=20).for_each(|ssrc| way.comes(ssrc, n, 0));
        }
        assert_eq!(way.counts(), [2000, 2000, 0, 0, 0]);
        assert_eq!(way.is(MediaCounter::Streams), 20);
    }

    #[test]
    fn an_allocation_has_so_many_and_the_longest_silent_goes() {
        let mut way = Way::new();
        let most = u32::from(STREAMS_PER_ALLOCATION_MAX);
        let live = |way: &Way| way.is(MediaCounter::Streams);
        (1..=most).for_each(|ssrc| (0..2).for_each(|n| way.comes(ssrc, n, 0)));
        assert_eq!(live(&way), u64::from(most));
        (0..2).for_each(|n| way.comes(most + 1, n, 0));
        assert_eq!(way.counts()[0], 2 * u64::from(most), "nobody is silent yet");
        way.pass(Duration::from_secs(2));
        (2..=most).for_each(|ssrc| way.comes(ssrc, 2, 0));
        (0..2).for_each(|n| way.comes(most + 1, n, 0));
        assert_eq!(live(&way), u64::from(most));
        (2..=most).for_each(|ssrc| way.comes(ssrc, 3, 0));
        assert_eq!(way.counts()[0], 2 * u64::from(most) + 2 * u64::from(most - 1) + 2);
    }

    #[test]
    fn a_worker_has_so_many() {
        let mut way = Way::with_places(8);
        way.quality.begin(1, SESSION, TENANT);
        (1..=8).for_each(|ssrc| (0..2).for_each(|n| way.comes(ssrc, n, 0)));
        (0..2).for_each(|n| way.comes(9, n, 0));
        assert_eq!(way.is(MediaCounter::Streams), 8);
        way.pass(Duration::from_secs(2));
        let mut flow = way.quality.flow(TENANT);
        (0..2).for_each(|n| way.quality.observe(way.now, &mut flow, Leg::Client, 1, &rtp(9, n, 0)));
        assert_eq!((way.is(MediaCounter::Streams), way.counts()[0]), (8, 18));
        way.quality.end(0);
        way.quality.end(1);
        assert_eq!((way.is(MediaCounter::Streams), way.quality.is_followed()), (0, false));
    }

    #[test]
    fn a_stream_that_is_over_leaves_its_place() {
        let mut way = Way::new();
        way.all_come([0, 1]);
        way.comes(9, 0, 0);
        way.pass(Duration::from_secs(36));
        assert!(!way.quality.is_followed());
        way.all_come([2, 3]);
        assert_eq!(way.counts(), [4, 4, 0, 0, 0]);
    }
}
