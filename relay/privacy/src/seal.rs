//! The form of what is sealed: a header that names its key, then ciphertext and tag.
//!
//! ```text
//!  0       4         5           6       7               8        12       20      32
//!  | "SLSR" | version | algorithm | class | name's length | day    | key id | nonce | tenant's name | ciphertext, tag
//! ```

use sluice_crypto::{Aead, NONCE_BYTES, Plaintext, TAG_BYTES, derive};

use crate::{Class, Day};

/// The first bytes of everything sealed.
pub const MAGIC: [u8; 4] = *b"SLSR";

/// The form described here.
pub const VERSION: u8 = 1;

/// AES-256-GCM-SIV (RFC 8452).
pub const ALGORITHM: u8 = 1;

/// Bytes in front of the tenant's name.
pub const FIXED_BYTES: usize = 32;

/// The purpose under which the key that seals is derived from the one that is kept.
pub const SEAL_PURPOSE: &[u8] = b"sluice 1 seal";

/// The purpose under which a key's id is derived from it.
pub const ID_PURPOSE: &[u8] = b"sluice 1 key id";

/// What tells one key from another of the same tenant and day.
pub type KeyId = [u8; 8];

/// What stands in front of a sealed record, readable without any key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header<'a> {
    /// Its class.
    pub class: Class,
    /// The tenant.
    pub tenant: &'a str,
    /// The day of its key; the first of 1970 under a tenant's long-lived key.
    pub day: Day,
    /// Its key.
    pub key: KeyId,
}

impl<'a> Header<'a> {
    /// The header of something sealed; `None` when it is nothing of the kind, or of a form that is not known.
    pub fn read(sealed: &'a [u8]) -> Option<Self> {
        split(sealed).map(|parts| parts.header)
    }

    /// Seals `plaintext` under `key`, bound to this header and to the id of the record that it is a part of. The key is
    /// the one that is kept, and [`key_id`] of it stands in the header. `None` where the tenant's name or the plaintext
    /// is too long.
    pub fn seal(&self, key: &[u8; 32], nonce: [u8; NONCE_BYTES], id: &[u8; 16], plaintext: &[u8]) -> Option<Vec<u8>> {
        let length = u8::try_from(self.tenant.len()).ok()?;
        let mut out = Vec::with_capacity(FIXED_BYTES + self.tenant.len() + plaintext.len() + TAG_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, ALGORITHM, self.class.code(), length]);
        out.extend_from_slice(&self.day.0.to_be_bytes());
        out.extend_from_slice(&self.key);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(self.tenant.as_bytes());
        let sealed = aead(key).seal(nonce, &associated(&out, id), plaintext)?;
        out.extend_from_slice(&sealed);
        Some(out)
    }
}

/// Opens what was sealed under `key` for the record of that id; `None` when anything of it is not as it was.
pub fn open(key: &[u8; 32], sealed: &[u8], id: &[u8; 16]) -> Option<Plaintext> {
    let parts = split(sealed)?;
    aead(key).open(parts.nonce, &associated(parts.bytes, id), parts.text)
}

/// The id of a key: says nothing about it.
pub fn key_id(key: &[u8; 32]) -> KeyId {
    let whole = derive(key, ID_PURPOSE);
    let mut id = KeyId::default();
    id.copy_from_slice(&whole.expose()[..8]);
    id
}

fn aead(key: &[u8; 32]) -> Aead {
    Aead::new(derive(key, SEAL_PURPOSE).expose())
}

/// Header and name, then the id of the record.
fn associated(header: &[u8], id: &[u8; 16]) -> Vec<u8> {
    [header, id].concat()
}

struct Parts<'a> {
    header: Header<'a>,
    /// The header as it stands there, the tenant's name included.
    bytes: &'a [u8],
    nonce: [u8; NONCE_BYTES],
    /// Ciphertext and tag.
    text: &'a [u8],
}

fn split(sealed: &[u8]) -> Option<Parts<'_>> {
    let fixed: &[u8; FIXED_BYTES] = sealed.first_chunk()?;
    let (version, algorithm, class, length) = (fixed[4], fixed[5], fixed[6], usize::from(fixed[7]));
    if fixed[..4] != MAGIC || version != VERSION || algorithm != ALGORITHM {
        return None;
    }
    let (bytes, text) = sealed.split_at_checked(FIXED_BYTES + length)?;
    let tenant = std::str::from_utf8(&bytes[FIXED_BYTES..]).ok()?;
    let day = Day(u32::from_be_bytes(fixed[8..12].try_into().ok()?));
    let key = fixed[12..20].try_into().ok()?;
    let nonce = fixed[20..32].try_into().ok()?;
    Some(Parts { header: Header { class: Class::of_code(class)?, tenant, day, key }, bytes, nonce, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const ID: [u8; 16] = [9; 16];

    fn header() -> Header<'static> {
        Header { class: Class::Ip, tenant: "clinic", day: Day(20_785), key: key_id(&KEY) }
    }

    #[test]
    fn what_is_sealed_names_its_key_and_opens_with_it() {
        let sealed = header().seal(&KEY, [3; 12], &ID, b"192.0.2.7").unwrap();
        assert_eq!(Header::read(&sealed), Some(header()));
        assert_eq!(*open(&KEY, &sealed, &ID).unwrap(), b"192.0.2.7");
    }

    #[test]
    fn no_byte_of_it_can_be_changed_and_no_record_taken_for_another() {
        let sealed = header().seal(&KEY, [3; 12], &ID, b"192.0.2.7").unwrap();
        for at in 0..sealed.len() {
            let mut other = sealed.clone();
            other[at] ^= 1;
            assert!(open(&KEY, &other, &ID).is_none(), "byte {at}");
            assert!(open(&KEY, &sealed[..at], &ID).is_none(), "cut at {at}");
        }
        assert!(open(&KEY, &sealed, &[8; 16]).is_none());
        assert!(open(&[6; 32], &sealed, &ID).is_none());
    }
}
