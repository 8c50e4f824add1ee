//! What must hold for any sequence of packets that may be media: what is counted is what a model counts that keeps
//! every number in a set.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sluice_base::event::StreamEnded;
use sluice_base::limits::{
    RTP_DROPOUT_MAX, RTP_MISORDER_MAX, RTP_PROBATION_PACKETS, STREAM_LIFETIME, STREAM_OBSERVE_INTERVAL,
};
use sluice_base::stats::Leg;
use sluice_base::stats::media::{Media, MediaCounter, media_place};
use sluice_base::{Mono, SessionId, TenantId};
use sluice_wire::rtp::{self, Packet};

use super::reader::Reader;
use crate::quality::{Flow, PORTIONS, Quality};

/// Operations of one run.
const OPERATIONS: usize = 400;
/// Packets in a row at most.
const IN_A_ROW: u8 = 80;
const ALLOCATIONS: usize = 2;
const FLOWS: usize = 2;
const SOURCES: u32 = 4;
/// More places than there are sources, or so few that streams are in each other's way.
const PLACES: [u32; 2] = [256, 5];
const TENANTS: usize = 2;
const SESSION: SessionId = SessionId([7; 16]);
/// Numbers that are awaited at a time.
const WINDOW: i64 = 64;

/// Plays the packets that `bytes` encode.
///
/// # Panics
/// When what is counted is wrong, or the tables of streams are not sound.
pub(super) fn play(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    let places = PLACES[usize::from(reader.byte() & 1)];
    let mut run = Run::new(places);
    for _ in 0..OPERATIONS {
        if reader.is_empty() {
            break;
        }
        run.operation(&mut reader);
        run.check();
    }
    run.end();
}

/// Allocation, flow, leg, source and kind: RTCP or not.
type Name = (usize, usize, u8, u32, bool);

struct Run {
    quality: Quality,
    flows: [[Flow; FLOWS]; ALLOCATIONS],
    now: Mono,
    model: BTreeMap<Name, Stream>,
    counted: [Counts; Leg::COUNT],
    /// There are places enough for the model to be right.
    roomy: bool,
    last: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counts {
    expected: u64,
    received: u64,
    lost: u64,
    late: u64,
    duplicate: u64,
    bytes: u64,
    rtcp: u64,
}

enum Stream {
    Probation { last: u16, packets: u8, bytes: u64 },
    Live(Live),
    Rtcp { packets: u8 },
}

/// A stream whose numbers do not wrap.
struct Live {
    highest: i64,
    /// The lowest number that is still awaited, or has come.
    open_from: i64,
    come: BTreeSet<i64>,
    restart: Option<u16>,
    arrival: Mono,
}

impl Run {
    fn new(places: u32) -> Self {
        let mut quality = Quality::with_places(TENANTS, 1, Some(0), places);
        let flows = std::array::from_fn(|allocation| {
            quality.begin(allocation as u32, SESSION, tenant(allocation));
            std::array::from_fn(|_| quality.flow(tenant(allocation)))
        });
        Run {
            quality,
            flows,
            now: Mono::from_nanos(1_000_000_000_000),
            model: BTreeMap::new(),
            counted: Default::default(),
            roomy: places == PLACES[0],
            last: 0,
        }
    }

    fn operation(&mut self, reader: &mut Reader<'_>) {
        let (operation, what) = (reader.byte() % 8, reader.byte());
        let (allocation, flow) = (usize::from(what & 1), usize::from(what >> 1 & 1));
        let (leg, ssrc) = (Leg::ALL[usize::from(what >> 2 & 1)], u32::from(what >> 3) % SOURCES);
        let packet = |run: &mut Self, sequence: u16| {
            run.last = sequence;
            let timestamp = (run.now.nanos() / 11_111) as u32;
            run.datagram(allocation, flow, leg, &rtp_bytes(ssrc, sequence, timestamp));
        };
        match operation {
            0 => (0..reader.byte() % IN_A_ROW).for_each(|_| packet(self, self.last.wrapping_add(1))),
            1 => packet(self, reader.word()),
            2 => packet(self, self.last.wrapping_add_signed(i16::from(reader.byte() as i8))),
            3 => self.datagram(allocation, flow, leg, &rtcp_bytes(ssrc)),
            4 => self.datagram(allocation, flow, leg, reader.bytes()),
            5 => self.pass(Duration::from_millis(u64::from(reader.word()))),
            6 => self.end_flow(allocation, flow),
            _ => self.end_allocation(allocation),
        }
    }

    fn datagram(&mut self, allocation: usize, flow: usize, leg: Leg, bytes: &[u8]) {
        sluice_wire::harness::rtp(bytes);
        let beside = &mut self.flows[allocation][flow];
        self.quality.observe(self.now, beside, leg, allocation as u32, bytes);
        let counts = &mut self.counted[leg as usize];
        match rtp::parse(bytes) {
            Some(Packet::Rtp(rtp)) => {
                let name = (allocation, flow, leg as u8, rtp.ssrc(), false);
                let begun = || Stream::Probation { last: 0, packets: 0, bytes: 0 };
                let stream = self.model.entry(name).or_insert_with(begun);
                stream.packet(self.now, rtp.sequence(), bytes.len() as u64, counts);
            }
            Some(Packet::Rtcp(rtcp)) => {
                let name = (allocation, flow, leg as u8, rtcp.ssrc(), true);
                let Stream::Rtcp { packets } = self.model.entry(name).or_insert(Stream::Rtcp { packets: 0 }) else {
                    return;
                };
                *packets = packets.saturating_add(1);
                counts.rtcp += match (*packets).cmp(&RTP_PROBATION_PACKETS) {
                    std::cmp::Ordering::Less => 0,
                    std::cmp::Ordering::Equal => RTP_PROBATION_PACKETS.into(),
                    std::cmp::Ordering::Greater => 1,
                };
            }
            None => {}
        }
    }

    /// Time passes, and every stream is looked at once.
    fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        for _ in 0..PORTIONS {
            self.quality.observe_portion(self.now);
        }
        if !self.roomy {
            return;
        }
        // What the model knows of silence is what the machine does: streams on probation and of RTCP are let go there.
        let (now, counted) = (self.now, &mut self.counted);
        let silent = |live: &Live| now.since(live.arrival);
        for (name, stream) in &mut self.model {
            if let Stream::Live(live) = stream
                && silent(live) >= STREAM_OBSERVE_INTERVAL
            {
                live.give_up(&mut counted[usize::from(name.2)]);
            }
        }
        self.model.retain(|_, stream| !matches!(stream, Stream::Live(live) if silent(live) >= STREAM_LIFETIME));
        let (quality, flows) = (&self.quality, &self.flows);
        self.model.retain(|(allocation, flow, leg, ssrc, rtcp), stream| {
            let leg = Leg::ALL[usize::from(*leg)];
            matches!(stream, Stream::Live(_)) || quality.follows(&flows[*allocation][*flow], leg, *rtcp, *ssrc)
        });
    }

    fn end_flow(&mut self, allocation: usize, flow: usize) {
        self.quality.end_flow(allocation as u32, &self.flows[allocation][flow]);
        self.flows[allocation][flow] = self.quality.flow(tenant(allocation));
        self.end_modelled(|name| (name.0, name.1) == (allocation, flow));
    }

    fn end_allocation(&mut self, allocation: usize) {
        self.quality.end(allocation as u32);
        self.flows[allocation] = std::array::from_fn(|_| self.quality.flow(tenant(allocation)));
        self.quality.begin(allocation as u32, SESSION, tenant(allocation));
        self.end_modelled(|name| name.0 == allocation);
    }

    fn end_modelled(&mut self, is_over: impl Fn(&Name) -> bool) {
        let counted = &mut self.counted;
        self.model.retain(|name, stream| {
            let over = is_over(name);
            if over && let Stream::Live(live) = stream {
                live.give_up(&mut counted[usize::from(name.2)]);
            }
            !over
        });
    }

    fn check(&self) {
        self.quality.assert_sound();
        for leg in Leg::ALL {
            let counts = self.counts(*leg);
            assert!(counts.received + counts.lost <= counts.expected);
            if self.roomy {
                assert_eq!(counts, self.counted[*leg as usize], "{leg:?}");
            }
        }
    }

    fn end(mut self) {
        (0..ALLOCATIONS).for_each(|allocation| self.end_allocation(allocation));
        self.check();
        assert!(!self.quality.is_followed());
        for leg in Leg::ALL {
            let counts = self.counts(*leg);
            assert_eq!(counts.received + counts.lost, counts.expected, "nothing is awaited any more");
        }
        self.told_is_counted();
        let gauges = [MediaCounter::Streams, MediaCounter::ClockUnknown];
        assert!(self.quality.media().iter().all(|media| gauges.iter().all(|gauge| media.value(*gauge) == 0)));
    }

    /// The streams that have ended are together what was counted.
    fn told_is_counted(&mut self) {
        let ended: Vec<_> = self.quality.take_ended(1).collect();
        for leg in Leg::ALL {
            let sum = |of: fn(&StreamEnded) -> u64| ended.iter().filter(|e| e.leg == *leg).map(of).sum::<u64>();
            let counts = self.counts(*leg);
            let told = [sum(|e| e.packets_expected), sum(|e| e.packets_lost), sum(|e| e.packets_received)];
            assert_eq!(told, [counts.expected, counts.lost, counts.received], "{leg:?}");
            assert_eq!(sum(|e| e.bytes), counts.bytes, "{leg:?}");
        }
        assert_eq!(self.quality.take_untold(), 0);
    }

    /// What the machine has counted, for all tenants.
    fn counts(&self, leg: Leg) -> Counts {
        let media = self.quality.media();
        let of = |counter| {
            let tenants = (0..=TENANTS).map(|tenant| media_place(media.len(), TenantId(tenant as u16), leg));
            tenants.map(|place: usize| Media::value(&media[place], counter)).sum()
        };
        Counts {
            expected: of(MediaCounter::Expected),
            received: of(MediaCounter::Received),
            lost: of(MediaCounter::Lost),
            late: of(MediaCounter::Late),
            duplicate: of(MediaCounter::Duplicate),
            bytes: of(MediaCounter::Bytes),
            rtcp: of(MediaCounter::Rtcp),
        }
    }
}

impl Stream {
    fn packet(&mut self, now: Mono, sequence: u16, bytes: u64, counts: &mut Counts) {
        match self {
            Stream::Probation { last, packets, bytes: before } => {
                let follows = *packets > 0 && sequence == last.wrapping_add(1);
                (*packets, *before) = if follows { (*packets + 1, *before + bytes) } else { (1, bytes) };
                *last = sequence;
                if *packets == RTP_PROBATION_PACKETS {
                    counts.bytes += *before;
                    *self = Stream::Live(Live::begin(now, sequence, RTP_PROBATION_PACKETS, counts));
                }
            }
            Stream::Live(live) => {
                counts.bytes += bytes;
                live.packet(now, sequence, counts);
            }
            Stream::Rtcp { .. } => {}
        }
    }
}

impl Live {
    fn begin(now: Mono, sequence: u16, packets: u8, counts: &mut Counts) -> Self {
        counts.expected += u64::from(packets);
        counts.received += u64::from(packets);
        let highest = i64::from(sequence);
        let open_from = highest + 1 - i64::from(packets);
        Live { highest, open_from, come: (open_from..=highest).collect(), restart: None, arrival: now }
    }

    fn packet(&mut self, now: Mono, sequence: u16, counts: &mut Counts) {
        if self.restart.take() == Some(sequence) {
            self.give_up(counts);
            *self = Live::begin(now, sequence, 2, counts);
            return;
        }
        let ahead = i64::from(sequence.wrapping_sub(self.highest as u16));
        if (1..=i64::from(RTP_DROPOUT_MAX)).contains(&ahead) {
            self.highest += ahead;
            counts.expected += ahead as u64;
            self.comes(self.highest, counts);
            self.arrival = now;
            self.open_until(self.highest - WINDOW + 1, counts);
            return;
        }
        let behind = i64::from((self.highest as u16).wrapping_sub(sequence));
        let number = self.highest - behind;
        if behind < WINDOW && number >= self.open_from {
            if self.come.contains(&number) {
                counts.duplicate += 1;
            } else {
                self.comes(number, counts);
            }
        } else if behind <= i64::from(RTP_MISORDER_MAX) {
            counts.late += 1;
        } else {
            self.restart = Some(sequence.wrapping_add(1));
        }
    }

    fn comes(&mut self, number: i64, counts: &mut Counts) {
        self.come.insert(number);
        counts.received += 1;
    }

    /// Nobody waits for numbers below this one.
    fn open_until(&mut self, number: i64, counts: &mut Counts) {
        for left in self.open_from..number {
            counts.lost += u64::from(!self.come.remove(&left));
        }
        self.open_from = self.open_from.max(number);
    }

    fn give_up(&mut self, counts: &mut Counts) {
        self.open_until(self.highest + 1, counts);
    }
}

fn tenant(allocation: usize) -> TenantId {
    // The second one's has no label of its own.
    TenantId(allocation as u16 * 7)
}

fn rtp_bytes(ssrc: u32, sequence: u16, timestamp: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    (bytes[0], bytes[1]) = (0x80, 96);
    bytes[2..4].copy_from_slice(&sequence.to_be_bytes());
    bytes[4..8].copy_from_slice(&timestamp.to_be_bytes());
    bytes[8..12].copy_from_slice(&ssrc.to_be_bytes());
    bytes
}

fn rtcp_bytes(ssrc: u32) -> [u8; 8] {
    let mut bytes = [0x80, 201, 0, 1, 0, 0, 0, 0];
    bytes[4..].copy_from_slice(&ssrc.to_be_bytes());
    bytes
}
