//! ChannelData messages (RFC 8656, 12.4):
//!
//! ```text
//! | channel number, 16 bits | length, 16 bits | application data ... | padding, optional over UDP |
//! ```

use std::ops::RangeInclusive;

/// Bytes in front of the application data.
pub const HEADER_LEN: usize = 4;

/// The numbers that a channel may have. RFC 8656, 12 draws them from 0x4000 to 0x4fff; clients of
/// RFC 5766, 11 (coturn's among them) from all of 0x4000 to 0x7fff, and nothing else that may come to
/// a TURN server begins like that.
pub const NUMBERS: RangeInclusive<u16> = 0x4000..=0x7fff;

/// Why a datagram is not ChannelData. It is dropped silently (RFC 8656, 12.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChannelDataError {
    /// Fewer bytes than a header has.
    #[error("shorter than a ChannelData header")]
    Truncated,
    /// The first 16 bits are no channel number.
    #[error("channel number outside 0x4000 to 0x7fff")]
    Number,
    /// The header's length reaches beyond the datagram.
    #[error("ChannelData length beyond the datagram")]
    Length,
}

/// The channel number, and the length of the application data that follows the header. Bytes behind
/// it are padding (RFC 8656, 12.5: optional over UDP).
///
/// # Errors
/// [`ChannelDataError`]: the datagram is to be dropped.
#[inline]
pub fn parse(bytes: &[u8]) -> Result<(u16, usize), ChannelDataError> {
    let Some((&[n0, n1, l0, l1], rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Err(ChannelDataError::Truncated);
    };
    let number = u16::from_be_bytes([n0, n1]);
    if !NUMBERS.contains(&number) {
        return Err(ChannelDataError::Number);
    }
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    if len > rest.len() {
        return Err(ChannelDataError::Length);
    }
    Ok((number, len))
}

/// Writes the header of `len` bytes of application data on channel `number`.
#[inline]
pub const fn write_header(header: &mut [u8; HEADER_LEN], number: u16, len: u16) {
    let [n0, n1] = number.to_be_bytes();
    let [l0, l1] = len.to_be_bytes();
    *header = [n0, n1, l0, l1];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_as_it_was_written() {
        let mut datagram = [0; 12];
        write_header(datagram.first_chunk_mut().unwrap(), 0x4abc, 8);
        assert_eq!(datagram, [0x4a, 0xbc, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(parse(&datagram), Ok((0x4abc, 8)));
    }

    #[test]
    fn padding_is_stepped_over() {
        assert_eq!(parse(&[0x40, 0, 0, 1, 7, 0, 0, 0]), Ok((0x4000, 1)));
        assert_eq!(parse(&[0x40, 0, 0, 1, 7]), Ok((0x4000, 1)));
        assert_eq!(parse(&[0x7f, 0xff, 0, 0]), Ok((0x7fff, 0)));
    }

    #[test]
    fn bad_datagrams_are_refused() {
        assert_eq!(parse(&[]), Err(ChannelDataError::Truncated));
        assert_eq!(parse(&[0x40, 0, 0]), Err(ChannelDataError::Truncated));
        assert_eq!(parse(&[0x40, 0, 0, 5, 1, 2, 3, 4]), Err(ChannelDataError::Length));
        assert_eq!(parse(&[0x40, 0, 0xff, 0xff]), Err(ChannelDataError::Length));
        for first in [0x00, 0x3f, 0x80, 0xff] {
            assert_eq!(parse(&[first, 0, 0, 0]), Err(ChannelDataError::Number));
        }
    }
}
