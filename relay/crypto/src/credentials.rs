//! Keys and names of STUN's long-term credentials (RFC 8489, 9.2), and the passwords of the
//! time-limited ones.
//!
//! RFC 8489 has user names, realms and passwords prepared by the OpaqueString profile (RFC 8265, 4.2)
//! first. Nothing is prepared here: for ASCII, and for whatever a client sends prepared already, that
//! changes nothing. A name or password with non-ASCII spaces, or one that is not in Unicode's form C,
//! must be configured as clients send it.

use sluice_base::Secret;

use crate::{HmacKey, base64_encode, md5, sha256};

/// The key of the MD5 password algorithm: MD5 of `user:realm:password` (RFC 8489, 9.2.2 and 18.5.1.1).
pub fn long_term_key_md5(
    user: impl AsRef<[u8]>,
    realm: impl AsRef<[u8]>,
    password: impl AsRef<[u8]>,
) -> Secret<[u8; 16]> {
    Secret::new(md5(&[user.as_ref(), b":", realm.as_ref(), b":", password.as_ref()]))
}

/// The key of the SHA-256 password algorithm: SHA-256 of `user:realm:password` (RFC 8489, 9.2.2 and
/// 18.5.1.2).
pub fn long_term_key_sha256(
    user: impl AsRef<[u8]>,
    realm: impl AsRef<[u8]>,
    password: impl AsRef<[u8]>,
) -> Secret<[u8; 32]> {
    Secret::new(sha256(&[user.as_ref(), b":", realm.as_ref(), b":", password.as_ref()]))
}

/// What USERHASH carries instead of a user name: SHA-256 of `user:realm` (RFC 8489, 14.4).
pub fn userhash(user: impl AsRef<[u8]>, realm: impl AsRef<[u8]>) -> [u8; 32] {
    sha256(&[user.as_ref(), b":", realm.as_ref()])
}

/// The password of a time-limited user name (`expiry:user`): Base64 of its HMAC-SHA1 under the shared
/// secret (draft-uberti-behave-turn-rest-00, 2.2).
pub fn rest_password(secret: impl AsRef<[u8]>, username: impl AsRef<[u8]>) -> String {
    base64_encode(&HmacKey::sha1(secret.as_ref()).sign(&[username.as_ref()]))
}
