//! What is stored is sealed with AES-256-GCM-SIV (RFC 8452): a nonce that is drawn twice by chance tells only
//! that two records are the same, and breaks no key.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;

/// Bytes by which a sealed text is longer than the plain one.
pub const TAG_BYTES: usize = 16;

/// A key of AES-256-GCM-SIV, made for one use and then dropped: the provider overwrites its schedule.
pub struct Aead(LessSafeKey);

impl Aead {
    /// Makes a key ready for use.
    pub fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM_SIV, key).expect("the key is as long as the algorithm's");
        Aead(LessSafeKey::new(key))
    }

    /// Ciphertext and tag of `plaintext`, bound to `associated`. `None` for a text beyond 2^36 bytes.
    pub fn seal(&self, nonce: [u8; NONCE_BYTES], associated: &[u8], plaintext: &[u8]) -> Option<Vec<u8>> {
        // Long enough from the start: a vector that grows leaves a copy of the plaintext behind.
        let mut text = Vec::with_capacity(plaintext.len() + TAG_BYTES);
        text.extend_from_slice(plaintext);
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.seal_in_place_append_tag(nonce, Aad::from(associated), &mut text).ok()?;
        Some(text)
    }

    /// The plaintext; `None` when text, tag, nonce, key or associated data are not those of its sealing.
    pub fn open(&self, nonce: [u8; NONCE_BYTES], associated: &[u8], sealed: &[u8]) -> Option<Plaintext> {
        let mut text = Plaintext::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let length = self.0.open_in_place(nonce, Aad::from(associated), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }
}

/// What was sealed; overwritten when dropped.
pub type Plaintext = zeroize::Zeroizing<Vec<u8>>;

impl fmt::Debug for Aead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_the_same_key_nonce_and_associated_data_alone() {
        let key = Aead::new(&[1; 32]);
        let sealed = key.seal([2; 12], b"header", b"text").unwrap();
        assert_eq!(sealed.len(), 4 + TAG_BYTES);
        assert_eq!(*key.open([2; 12], b"header", &sealed).unwrap(), b"text");
        assert!(key.open([3; 12], b"header", &sealed).is_none());
        assert!(key.open([2; 12], b"headex", &sealed).is_none());
        assert!(Aead::new(&[4; 32]).open([2; 12], b"header", &sealed).is_none());
        assert!(key.open([2; 12], b"header", &sealed[1..]).is_none());
        assert!(key.open([2; 12], b"header", b"").is_none());
    }
}
