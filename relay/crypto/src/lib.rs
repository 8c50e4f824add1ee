//! The only crate that names a crypto provider: hashes, message authentication, the keys of STUN's
//! long-term credentials, sealing of what is stored, signatures.
//!
//! SHA-1 and SHA-256 take the processor's own instructions where it has them, found at run time.
#![forbid(unsafe_code)]

mod aead;
mod credentials;
mod hmac_key;
mod sign;

pub use aead::{Aead, NONCE_BYTES, Plaintext, TAG_BYTES};
pub use credentials::{long_term_key_md5, long_term_key_sha256, rest_password, userhash};
pub use hmac_key::{HmacKey, HmacSha256Key};
pub use sign::{Signer, Verifier};
pub use zeroize::{Zeroize, Zeroizing};

use base64::Engine as _;
use md5::Md5;
use sha2::{Digest as _, Sha256};
use sluice_base::Secret;
use subtle::ConstantTimeEq as _;

/// MD5 of the parts, one after the other. Only for STUN's long-term key (RFC 8489, 9.2.2).
pub fn md5(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Md5::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// SHA-256 of the parts, one after the other.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// SHA-256 of what comes piece by piece.
#[derive(Clone, Debug, Default)]
pub struct Sha256Stream(Sha256);

impl Sha256Stream {
    /// The next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The hash of all of them.
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// A key for one purpose out of another: HMAC-SHA256 of the purpose under it. Overwritten when dropped.
pub fn derive(key: &[u8; 32], purpose: &[u8]) -> Secret<Zeroizing<[u8; 32]>> {
    Secret::new(Zeroizing::new(HmacSha256Key::new(key).sign(&[purpose])))
}

/// Whether both are the same, in a time that depends on their lengths alone.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// Base64 with padding (RFC 4648, 4).
pub fn base64_encode(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The bytes of Base64 with padding; `None` for anything else.
pub fn base64_decode(text: &str) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// Lower-case hexadecimal.
pub fn hex_encode(bytes: &[u8]) -> String {
    let mut digits = vec![0; bytes.len() * 2];
    hex(bytes, &mut digits);
    digits.into_iter().map(char::from).collect()
}

/// The bytes of hexadecimal digits; `None` for anything else.
pub fn hex_decode(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some((char::from(*high).to_digit(16)? << 4 | char::from(*low).to_digit(16)?) as u8),
        _ => None,
    });
    pairs.collect()
}

/// Lower-case hexadecimal into `digits`, as far as it reaches.
pub fn hex(bytes: &[u8], digits: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}
