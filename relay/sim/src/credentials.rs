//! Long-term credentials (RFC 8489, 9.2), both ends: how a model client signs, and how the oracle knows
//! that a request was signed by somebody who may.

use std::collections::BTreeMap;

use sluice_crypto::{HmacKey, HmacSha256Key, long_term_key_md5, long_term_key_sha256, rest_password};
use sluice_wire::stun::{Builder, Message, PasswordAlgorithm, attribute};

use crate::scenario::{REALM, SHARED_SECRET, STATIC_USERS, TENANTS};

/// Which of the RFC's ways a client goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Style {
    /// RFC 5389: MD5, MESSAGE-INTEGRITY, no algorithms.
    Old,
    /// RFC 8489 with MD5 and MESSAGE-INTEGRITY.
    Md5,
    /// RFC 8489 with MD5 and MESSAGE-INTEGRITY-SHA256.
    Md5Sha256,
    /// RFC 8489 with SHA-256 and MESSAGE-INTEGRITY-SHA256.
    Sha256,
}

impl Style {
    pub(crate) const ALL: [Style; 4] = [Style::Old, Style::Md5, Style::Md5Sha256, Style::Sha256];

    const fn algorithm(self) -> PasswordAlgorithm {
        match self {
            Style::Sha256 => PasswordAlgorithm::Sha256,
            _ => PasswordAlgorithm::Md5,
        }
    }

    const fn signs_sha256(self) -> bool {
        matches!(self, Style::Md5Sha256 | Style::Sha256)
    }
}

/// A name and a password, and a key for each message.
pub(crate) struct Login {
    pub(crate) name: String,
    style: Style,
    key: Key,
}

enum Key {
    Sha1(HmacKey),
    Sha256(HmacSha256Key),
}

impl Login {
    pub(crate) fn new(name: &str, password: &str, style: Style) -> Self {
        Login {
            name: name.into(),
            style,
            key: Key::derive(name.as_bytes(), password, style.algorithm(), style.signs_sha256()),
        }
    }

    /// A time-limited name (`expiry:name`) with its password.
    pub(crate) fn rest(expiry: u64, name: &str, style: Style) -> Self {
        let full = format!("{expiry}:{name}");
        Login::new(&full, &rest_password(SHARED_SECRET, &full), style)
    }

    /// Writes the attributes of a signed request.
    pub(crate) fn sign(&self, builder: &mut Builder<'_>, realm: &[u8], nonce: &[u8], algorithms: &[u8]) {
        builder.bytes(attribute::USERNAME, self.name.as_bytes());
        builder.bytes(attribute::REALM, realm);
        builder.bytes(attribute::NONCE, nonce);
        if self.style != Style::Old && !algorithms.is_empty() {
            builder.bytes(attribute::PASSWORD_ALGORITHMS, algorithms);
            builder.password_algorithm(self.style.algorithm());
        }
        match &self.key {
            Key::Sha1(key) => builder.integrity_sha1(|parts| key.sign(parts)),
            Key::Sha256(key) => builder.integrity_sha256(|parts| key.sign(parts)),
        };
    }

    /// Whether an answer is signed with this login's key, in the way of its requests.
    pub(crate) fn signed(&self, message: &Message<'_>) -> bool {
        self.key.verifies(message)
    }
}

impl Key {
    fn derive(name: &[u8], password: &str, algorithm: PasswordAlgorithm, sha256: bool) -> Self {
        let of = |key: &[u8]| match sha256 {
            true => Key::Sha256(HmacSha256Key::new(key)),
            false => Key::Sha1(HmacKey::sha1(key)),
        };
        match algorithm {
            PasswordAlgorithm::Sha256 => of(long_term_key_sha256(name, REALM, password).expose()),
            _ => of(long_term_key_md5(name, REALM, password).expose()),
        }
    }

    fn verifies(&self, message: &Message<'_>) -> bool {
        let attributes = &message.attributes;
        let integrity = match self {
            Key::Sha1(_) => attributes.message_integrity,
            Key::Sha256(_) => attributes.message_integrity_sha256,
        };
        integrity.is_some_and(|integrity| {
            let (header, rest) = message.integrity_input(&integrity);
            match self {
                Key::Sha1(key) => key.verify(&[&header, rest], integrity.tag),
                Key::Sha256(key) => key.verify(&[&header, rest], integrity.tag),
            }
        })
    }
}

/// Knows every user of the simulation.
pub(crate) struct Verifier {
    kept: BTreeMap<(Vec<u8>, u16, bool), Key>,
}

impl Verifier {
    pub(crate) fn new() -> Self {
        Verifier { kept: BTreeMap::new() }
    }

    /// The tenant and the user who signed a request that succeeded; an error where nobody who may did.
    /// A name that has run out by the wall clock goes on with the allocation that it began (`continues`).
    pub(crate) fn verify(
        &mut self,
        unix_seconds: u64,
        message: &Message<'_>,
        continues: bool,
    ) -> Result<(usize, Vec<u8>), String> {
        let name = message.attributes.username.ok_or("a success for a request without a user name")?;
        let (full, rest) = (name, split_expiry(name));
        let (tenant, user) = split_tenant(rest.map_or(name, |(_, rest)| rest));
        let password = match rest {
            Some((expiry, _)) if expiry <= unix_seconds && !continues => {
                return Err("a success for a name that has run out".into());
            }
            Some(_) => rest_password(SHARED_SECRET, full),
            None => {
                let known = STATIC_USERS.iter().find(|(name, _)| name.as_bytes() == user);
                known.ok_or("a success for an unknown user")?.1.to_owned()
            }
        };
        let algorithm = message.attributes.password_algorithm.unwrap_or(PasswordAlgorithm::Md5);
        let sha256 = message.attributes.message_integrity_sha256.is_some();
        let kept = self.kept.entry((full.to_vec(), algorithm.number(), sha256));
        let key = kept.or_insert_with(|| Key::derive(full, &password, algorithm, sha256));
        if !key.verifies(message) {
            return Err("a success for a wrong password".into());
        }
        Ok((tenant, user.to_vec()))
    }
}

fn split_expiry(name: &[u8]) -> Option<(u64, &[u8])> {
    let at = name.iter().position(|byte| *byte == b':')?;
    let expiry = std::str::from_utf8(&name[..at]).ok()?.parse().ok()?;
    Some((expiry, &name[at + 1..]))
}

fn split_tenant(name: &[u8]) -> (usize, &[u8]) {
    let split = name.iter().position(|byte| *byte == b'/').and_then(|at| {
        let tenant = TENANTS.iter().position(|tenant| tenant.as_bytes() == &name[..at])?;
        Some((tenant, &name[at + 1..]))
    });
    split.unwrap_or((0, name))
}
