//! STUN, TURN, ChannelData and the headers of RTP: bytes to views and back. No I/O, no allocation, no cryptography of
//! its own (integrity is computed by the caller's function), and no panic whatever the bytes are.
//!
//! Sources: RFC 8489 (STUN), RFC 8656 (TURN), RFC 7983 (telling protocols on one port apart), RFC 3550
//! (RTP).
#![forbid(unsafe_code)]

pub mod channel_data;
pub mod harness;
pub mod rtp;
pub mod stun;

/// Bytes of padding that bring `len` to a multiple of four (RFC 8489, 14; RFC 8656, 12.5).
pub const fn padding(len: usize) -> usize {
    len.wrapping_neg() & 3
}
