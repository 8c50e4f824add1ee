//! What a payload starts with: which run and flow it is of, and when it left.

/// Bytes of a stamp.
pub(crate) const BYTES: usize = 16;

/// The start of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Tells this run's packets from another's.
    pub(crate) run: u32,
    /// The flow's number.
    pub(crate) flow: u32,
    /// Nanoseconds of the run's clock.
    pub(crate) sent: u64,
}

impl Stamp {
    /// As it travels.
    pub(crate) fn to_bytes(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..4].copy_from_slice(&self.run.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.flow.to_be_bytes());
        bytes[8..].copy_from_slice(&self.sent.to_be_bytes());
        bytes
    }

    /// From the start of a payload.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let (&[r0, r1, r2, r3, f0, f1, f2, f3], rest) = payload.split_first_chunk::<8>()?;
        let sent = u64::from_be_bytes(*rest.first_chunk::<8>()?);
        Some(Self { run: u32::from_be_bytes([r0, r1, r2, r3]), flow: u32::from_be_bytes([f0, f1, f2, f3]), sent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_reads_as_it_was_written() {
        let stamp = Stamp { run: 0xdead_beef, flow: 77, sent: 1 << 40 };
        let mut payload = stamp.to_bytes().to_vec();
        payload.push(9);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        assert_eq!(Stamp::read(&payload[..15]), None);
    }
}
