//! Signatures: Ed25519 (RFC 8032).

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

/// Signs with a key of Ed25519.
pub struct Signer(Ed25519KeyPair);

/// Verifies the signatures of one key of Ed25519.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verifier([u8; 32]);

impl Signer {
    /// From the 32 secret bytes of RFC 8032, 5.1.5.
    pub fn new(seed: &[u8; 32]) -> Self {
        Signer(Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are a seed"))
    }

    /// The signature of a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }

    /// What verifies this key's signatures.
    pub fn verifier(&self) -> Verifier {
        Verifier(self.0.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes"))
    }
}

impl Verifier {
    /// From a public key.
    pub const fn new(public: [u8; 32]) -> Self {
        Verifier(public)
    }

    /// The public key.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `signature` is this key's of `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}
