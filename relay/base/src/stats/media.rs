//! What a worker sees of the media that passes, summed by tenant and by the leg that it came from. Plain u64s, as
//! [`Counters`](super::Counters) are.

use super::Leg;
use crate::id::TenantId;
use crate::limits::TENANT_LABELS_MAX;

labels! {
    /// A counter or gauge of media. The first eight share a cache line: they are what a packet changes.
    MediaCounter {
        /// Packets that the sequence numbers of a stream promised.
        Expected = "expected",
        /// Of those, packets that came while they were awaited.
        Received = "received",
        /// Of those, packets that did not: their number left the reordering window.
        Lost = "lost",
        /// Packets whose number was no longer, or not yet, awaited.
        Late = "late",
        /// Packets that had come before.
        Duplicate = "duplicate",
        /// Bytes of all of these packets, from the RTP header on.
        Bytes = "bytes",
        /// RTCP datagrams.
        Rtcp = "rtcp",
        /// Gauge: streams that are followed.
        Streams = "streams",
        /// Gauge: of those, streams whose clock is not known.
        ClockUnknown = "clock_unknown",
    }
}

labels! {
    /// What a stream seems to carry: its clock tells it (RFC 3551, 6; RFC 4103 for text).
    MediaKind {
        /// A clock of sound.
        Audio = "audio",
        /// 90 kHz.
        Video = "video",
        /// 1 kHz.
        Text = "text",
        /// The clock is not known.
        Unknown = "unknown",
    }
}

/// Upper bounds of the histogram of loss: parts per million, and the same as ratios.
pub const LOSS_BOUNDS: [(u64, f64); 10] = [
    (0, 0.0),
    (1_000, 0.001),
    (2_000, 0.002),
    (5_000, 0.005),
    (10_000, 0.01),
    (20_000, 0.02),
    (50_000, 0.05),
    (100_000, 0.1),
    (200_000, 0.2),
    (500_000, 0.5),
];

/// Upper bounds of the histogram of jitter: nanoseconds, and the same in seconds.
pub const JITTER_BOUNDS: [(u64, f64); 12] = [
    (500_000, 0.000_5),
    (1_000_000, 0.001),
    (2_000_000, 0.002),
    (5_000_000, 0.005),
    (10_000_000, 0.01),
    (20_000_000, 0.02),
    (30_000_000, 0.03),
    (50_000_000, 0.05),
    (100_000_000, 0.1),
    (200_000_000, 0.2),
    (500_000_000, 0.5),
    (1_000_000_000, 1.0),
];

// A histogram's words: one per bound, one for what lies beyond them, and the sum.
const LOSS: usize = MediaCounter::COUNT;
const LOSS_SUM: usize = LOSS + LOSS_BOUNDS.len() + 1;
const JITTER: usize = LOSS_SUM + 1;
const JITTER_SUM: usize = JITTER + JITTER_BOUNDS.len() + 1;

/// What is seen of one tenant's media on one leg.
#[derive(Clone, PartialEq, Eq, Debug)]
#[repr(C, align(64))]
pub struct Media([u64; Media::WORDS]);

impl Default for Media {
    fn default() -> Self {
        Media([0; Media::WORDS])
    }
}

impl Media {
    /// How many words it has.
    pub const WORDS: usize = JITTER_SUM + 1;

    /// What [`Media::words`] gave.
    pub const fn from_words(words: [u64; Media::WORDS]) -> Self {
        Media(words)
    }

    /// All of it.
    pub const fn words(&self) -> &[u64; Media::WORDS] {
        &self.0
    }

    /// Adds `n`.
    #[inline]
    pub const fn add(&mut self, counter: MediaCounter, n: u64) {
        self.0[counter as usize] += n;
    }

    /// Takes one off a gauge.
    #[inline]
    pub const fn take_one(&mut self, gauge: MediaCounter) {
        self.0[gauge as usize] -= 1;
    }

    /// Its value.
    pub const fn value(&self, counter: MediaCounter) -> u64 {
        self.0[counter as usize]
    }

    /// One stream lost `lost` of `expected` packets.
    pub fn observe_loss(&mut self, lost: u32, expected: u32) {
        let millionths = u64::from(lost.min(expected)) * 1_000_000 / u64::from(expected.max(1));
        let place = LOSS_BOUNDS.partition_point(|(bound, _)| *bound < millionths);
        self.0[LOSS + place] += 1;
        self.0[LOSS_SUM] += millionths;
    }

    /// One stream has this jitter.
    pub fn observe_jitter(&mut self, nanos: u64) {
        let place = JITTER_BOUNDS.partition_point(|(bound, _)| *bound < nanos);
        self.0[JITTER + place] += 1;
        self.0[JITTER_SUM] += nanos;
    }

    /// Observations of loss by bound, those beyond all of them last, and their sum as a ratio.
    pub fn loss(&self) -> (&[u64], f64) {
        (&self.0[LOSS..LOSS_SUM], self.0[LOSS_SUM] as f64 / 1e6)
    }

    /// Observations of jitter by bound, those beyond all of them last, and their sum in seconds.
    pub fn jitter(&self) -> (&[u64], f64) {
        (&self.0[JITTER..JITTER_SUM], self.0[JITTER_SUM] as f64 / 1e9)
    }
}

/// How many tenants are told apart, of so many; there is one more place, for the others.
pub const fn tenants_told_apart(tenants: usize) -> usize {
    if tenants < TENANT_LABELS_MAX { tenants } else { TENANT_LABELS_MAX }
}

/// How many [`Media`] there are where so many tenants are configured.
pub const fn media_places(tenants: usize) -> usize {
    (tenants_told_apart(tenants) + 1) * Leg::COUNT
}

/// The place of one tenant's leg among `places`.
pub fn media_place(places: usize, tenant: TenantId, leg: Leg) -> usize {
    let others = places / Leg::COUNT - 1;
    usize::from(tenant.0).min(others) * Leg::COUNT + leg as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_packet_changes_is_one_cache_line() {
        assert_eq!(align_of::<Media>(), 64);
        assert_eq!(MediaCounter::Streams as usize, 7);
    }

    #[test]
    fn observations_fall_under_their_bounds() {
        let mut media = Media::default();
        for (lost, expected) in [(0, 100), (1, 100), (7, 5), (0, 0)] {
            media.observe_loss(lost, expected);
        }
        assert_eq!(media.loss(), (&[2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1][..], 1.01));
        for nanos in [500_000, 500_001, 5_000_000_000] {
            media.observe_jitter(nanos);
        }
        assert_eq!(media.jitter(), (&[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..], 5.001_000_001));
        assert_eq!(Media::from_words(*media.words()), media);
    }

    #[test]
    fn tenants_beyond_those_with_a_label_share_the_last_place() {
        let places = media_places(2);
        let of = |tenant| media_place(places, TenantId(tenant), Leg::Peer);
        assert_eq!((places, of(0), of(1), of(2), of(4000)), (6, 1, 3, 5, 5));
        assert_eq!(media_places(4096), 2 * (TENANT_LABELS_MAX + 1));
    }
}
