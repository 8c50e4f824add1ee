//! Payloads that look like RTP (RFC 3550, 5.1).

/// Bytes of a header without contributing sources and extensions.
pub(crate) const HEADER_LEN: usize = 12;

/// Version 2, and nothing else in the first byte.
const VERSION: u8 = 0x80;

/// The first dynamic payload type, which browsers give to video.
const PAYLOAD_TYPE: u8 = 96;

/// The last packet of a frame.
const MARKER: u8 = 0x80;

/// The clock of video.
const TICKS_PER_SECOND: u128 = 90_000;

/// One stream: its source, and what its next packet is numbered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    ssrc: u32,
    sequence: u16,
}

impl Stream {
    /// A stream whose numbers are drawn by `run` and `flow`: streams of one run differ in their sources.
    pub(crate) fn new(run: u32, flow: u32) -> Self {
        let ssrc = run.wrapping_add(flow);
        Self { ssrc, sequence: (ssrc >> 4) as u16 }
    }

    /// The header of the next packet, sent at `nanos`; `last` of its frame or not.
    pub(crate) fn next(&mut self, nanos: u64, last: bool) -> [u8; HEADER_LEN] {
        let timestamp = (u128::from(nanos) * TICKS_PER_SECOND / 1_000_000_000) as u32;
        let mut header = [0; HEADER_LEN];
        header[0] = VERSION;
        header[1] = PAYLOAD_TYPE | if last { MARKER } else { 0 };
        header[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        header[4..8].copy_from_slice(&timestamp.to_be_bytes());
        header[8..].copy_from_slice(&self.ssrc.to_be_bytes());
        self.sequence = self.sequence.wrapping_add(1);
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_shares_its_time_and_numbers_its_packets() {
        let mut stream = Stream::new(0x000f_fff0, 0);
        let (first, last) = (stream.next(2_000_000_000, false), stream.next(2_000_000_000, true));
        assert_eq!(first, [0x80, 96, 0xff, 0xff, 0, 2, 0xbf, 0x20, 0, 0x0f, 0xff, 0xf0]);
        assert_eq!(last, [0x80, 224, 0, 0, 0, 2, 0xbf, 0x20, 0, 0x0f, 0xff, 0xf0]);
        assert_ne!(Stream::new(7, 1).ssrc, Stream::new(7, 2).ssrc);
    }
}
