//! RTP and RTCP headers, read in place (RFC 3550, 5.1 and 6.1). SRTP and SRTCP leave what is read here in clear (RFC
//! 3711, 3.1 and 3.4), and a relay has no keys for the rest.
//!
//! ```text
//! RTP   | V=2 P X CC | M PT | sequence number, 16 bits | timestamp, 32 | SSRC, 32 | CC * CSRC | extension | payload
//! RTCP  | V=2 P count | packet type | length in words - 1, 16 bits     | SSRC, 32 | encrypted under SRTCP
//! ```

use std::ops::RangeInclusive;

/// Bytes in front of the list of contributing sources (RFC 3550, 5.1).
pub const HEADER_LEN: usize = 12;

/// Bytes of an RTCP packet that are in clear under SRTCP (RFC 3711, 3.4).
pub const RTCP_HEADER_LEN: usize = 8;

/// First bytes of RTP and RTCP on a port that carries STUN, DTLS and TURN as well (RFC 7983, 7): version 2.
pub const FIRST_BYTES: RangeInclusive<u8> = 128..=191;

/// Payload types, without the marker, that mean RTCP (RFC 5761, 4): packet types 192 to 223.
pub const RTCP_PAYLOAD_TYPES: RangeInclusive<u8> = 64..=95;

/// A datagram that may be RTP or RTCP: the bytes cannot prove it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packet<'a> {
    /// Media.
    Rtp(Rtp<'a>),
    /// What is said about it.
    Rtcp(Rtcp<'a>),
}

/// An RTP packet (RFC 3550, 5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rtp<'a> {
    header: &'a [u8; HEADER_LEN],
    /// Where the payload begins.
    payload_at: usize,
    bytes: &'a [u8],
}

/// The first packet of an RTCP datagram (RFC 3550, 6.1; alone as in RFC 5506).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rtcp<'a> {
    header: &'a [u8; RTCP_HEADER_LEN],
}

/// Reads a datagram as RTP or RTCP; `None` when it is neither: by its first byte, or because what its header announces
/// does not fit.
#[inline]
pub fn parse(bytes: &[u8]) -> Option<Packet<'_>> {
    match bytes {
        [first, second, ..] if FIRST_BYTES.contains(first) => {
            if RTCP_PAYLOAD_TYPES.contains(&(second & 0x7f)) {
                Rtcp::parse(bytes).map(Packet::Rtcp)
            } else {
                Rtp::parse(bytes).map(Packet::Rtp)
            }
        }
        _ => None,
    }
}

impl<'a> Rtp<'a> {
    #[inline]
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.first_chunk()?;
        let first = header[0];
        let mut payload_at = HEADER_LEN + 4 * usize::from(first & 0x0f);
        if first & 0x10 != 0 {
            let &[_, _, high, low] = bytes.get(payload_at..)?.first_chunk()?;
            payload_at += 4 + 4 * usize::from(u16::from_be_bytes([high, low]));
        }
        (payload_at <= bytes.len()).then_some(Rtp { header, payload_at, bytes })
    }

    /// The marker bit.
    pub const fn marker(&self) -> bool {
        self.header[1] & 0x80 != 0
    }

    /// The payload type, 7 bits.
    pub const fn payload_type(&self) -> u8 {
        self.header[1] & 0x7f
    }

    /// The sequence number.
    #[inline]
    pub const fn sequence(&self) -> u16 {
        let [_, _, a, b, ..] = *self.header;
        u16::from_be_bytes([a, b])
    }

    /// The timestamp, in ticks of the payload type's clock.
    #[inline]
    pub const fn timestamp(&self) -> u32 {
        let [_, _, _, _, a, b, c, d, ..] = *self.header;
        u32::from_be_bytes([a, b, c, d])
    }

    /// The synchronisation source.
    #[inline]
    pub const fn ssrc(&self) -> u32 {
        let [.., a, b, c, d] = *self.header;
        u32::from_be_bytes([a, b, c, d])
    }

    /// Contributing sources.
    pub const fn csrc_count(&self) -> usize {
        (self.header[0] & 0x0f) as usize
    }

    /// The header extension: its profile and its words (RFC 3550, 5.3.1).
    pub fn extension(&self) -> Option<(u16, &'a [u8])> {
        let at = HEADER_LEN + 4 * self.csrc_count();
        let (&[a, b, _, _], words) = self.bytes.get(at..self.payload_at)?.split_first_chunk()?;
        Some((u16::from_be_bytes([a, b]), words))
    }

    /// What follows the header, padding included; encrypted under SRTP.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.payload_at..]
    }
}

impl<'a> Rtcp<'a> {
    #[inline]
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header: &[u8; RTCP_HEADER_LEN] = bytes.first_chunk()?;
        let words = usize::from(u16::from_be_bytes([header[2], header[3]])) + 1;
        (words >= RTCP_HEADER_LEN / 4 && 4 * words <= bytes.len()).then_some(Rtcp { header })
    }

    /// The packet type: 200 is a sender report, 201 a receiver report, 205 and 206 are feedback.
    pub const fn packet_type(&self) -> u8 {
        self.header[1]
    }

    /// The five bits beside version and padding: reports, sources, or the format of feedback.
    pub const fn count(&self) -> u8 {
        self.header[0] & 0x1f
    }

    /// Who sent it.
    #[inline]
    pub const fn ssrc(&self) -> u32 {
        let [.., a, b, c, d] = *self.header;
        u32::from_be_bytes([a, b, c, d])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opus of a browser: one-byte extensions of one word (RFC 8285), no contributing source.
    const AUDIO: [u8; 24] = [
        0x90, 0xef, 0x12, 0x34, 0, 1, 0xe2, 0x40, 0xca, 0xfe, 0xba, 0xbe, 0xbe, 0xde, 0, 1, 0x10, 0x85, 0, 0, 1, 2, 3,
        4,
    ];

    fn rtp(bytes: &[u8]) -> Rtp<'_> {
        match parse(bytes) {
            Some(Packet::Rtp(rtp)) => rtp,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_header_is_read() {
        let audio = rtp(&AUDIO);
        assert_eq!((audio.marker(), audio.payload_type(), audio.sequence()), (true, 111, 0x1234));
        assert_eq!((audio.timestamp(), audio.ssrc(), audio.csrc_count()), (123_456, 0xcafe_babe, 0));
        assert_eq!(audio.extension(), Some((0xbede, &[0x10, 0x85, 0, 0][..])));
        assert_eq!(audio.payload(), [1, 2, 3, 4]);
    }

    #[test]
    fn contributing_sources_are_stepped_over() {
        let mut bytes = vec![0x82, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        bytes.extend([9; 8]);
        let mixed = rtp(&bytes);
        assert_eq!((mixed.csrc_count(), mixed.extension(), mixed.payload()), (2, None, &[][..]));
        assert_eq!(parse(&bytes[..19]), None);
    }

    #[test]
    fn the_payload_type_tells_rtcp() {
        // A receiver report without reports, and feedback with its count as a format (RFC 4585, 6.1).
        let report = [0x80, 201, 0, 1, 0, 0, 0, 7];
        let Some(Packet::Rtcp(rtcp)) = parse(&report) else { panic!("no RTCP") };
        assert_eq!((rtcp.packet_type(), rtcp.count(), rtcp.ssrc()), (201, 0, 7));
        let feedback = [0x8f, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
        let Some(Packet::Rtcp(rtcp)) = parse(&feedback) else { panic!("no RTCP") };
        assert_eq!((rtcp.packet_type(), rtcp.count(), rtcp.ssrc()), (205, 15, 1));
        for payload_type in 0..=127 {
            for marker in [0, 0x80] {
                let bytes = [0x80, payload_type | marker, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
                let is_rtcp = matches!(parse(&bytes), Some(Packet::Rtcp(_)));
                assert_eq!(is_rtcp, (64..96).contains(&payload_type));
            }
        }
    }

    #[test]
    fn other_protocols_on_the_port_are_neither() {
        for first in (0..=127).chain(192..=255) {
            let mut bytes = AUDIO;
            bytes[0] = first;
            assert_eq!(parse(&bytes), None, "{first}");
        }
    }

    #[test]
    fn what_does_not_fit_is_neither() {
        for len in 0..20 {
            assert_eq!(parse(&AUDIO[..len]), None, "{len}");
        }
        assert_eq!(rtp(&AUDIO[..20]).payload(), []);
        for report in [&[0x80, 200, 0, 0, 0, 0, 0, 7][..], &[0x80, 200, 0, 2, 0, 0, 0, 7], &[0x80, 200, 0, 1, 0, 0, 0]]
        {
            assert_eq!(parse(report), None);
        }
    }
}
