//! HMAC with kept keys: both pads are hashed once, when the key is made.

use std::fmt;

use hmac::{Hmac, Mac as _};
use sha1::Sha1;
use sha2::Sha256;

use crate::equal;

/// Shortest tag of MESSAGE-INTEGRITY-SHA256 that is accepted (RFC 8489, 14.6).
const SHA256_TAG_BYTES_MIN: usize = 16;

/// A key of HMAC-SHA1 (RFC 2104), as MESSAGE-INTEGRITY uses it (RFC 8489, 14.5).
#[derive(Clone)]
pub struct HmacKey(Hmac<Sha1>);

/// A key of HMAC-SHA256, as MESSAGE-INTEGRITY-SHA256 uses it (RFC 8489, 14.6).
#[derive(Clone)]
pub struct HmacSha256Key(Hmac<Sha256>);

impl HmacKey {
    /// Makes a key of any length ready for use.
    pub fn sha1(key: &[u8]) -> Self {
        HmacKey(ready(key))
    }

    /// The tag of the parts, one after the other.
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; 20] {
        let mut mac = self.0.clone();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }

    /// Whether `tag` is the parts' tag, whole. Takes the same time wherever they differ.
    pub fn verify(&self, parts: &[&[u8]], tag: &[u8]) -> bool {
        equal(&self.sign(parts), tag)
    }
}

impl HmacSha256Key {
    /// Makes a key of any length ready for use.
    pub fn new(key: &[u8]) -> Self {
        HmacSha256Key(ready(key))
    }

    /// The tag of the parts, one after the other.
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }

    /// Whether `tag` is the parts' tag, or its first 16, 20, 24 or 28 bytes (RFC 8489, 14.6). Takes the
    /// same time wherever they differ.
    pub fn verify(&self, parts: &[&[u8]], tag: &[u8]) -> bool {
        let whole = self.sign(parts);
        let allowed = tag.len() >= SHA256_TAG_BYTES_MIN && tag.len().is_multiple_of(4);
        allowed && whole.get(..tag.len()).is_some_and(|part| equal(part, tag))
    }
}

impl fmt::Debug for HmacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl fmt::Debug for HmacSha256Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

fn ready<M: hmac::Mac + hmac::digest::KeyInit>(key: &[u8]) -> M {
    <M as hmac::Mac>::new_from_slice(key).expect("HMAC takes keys of any length")
}
