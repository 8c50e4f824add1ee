//! By what somebody is told apart who is not named.
//!
//! An address: under a key that dies with its day. A user: under the tenant's long-lived key, another one each month
//! and for each purpose, so that what was shipped for one is not joined with what was kept for the other.

use std::net::IpAddr;
use std::sync::Arc;

use sluice_base::Pii;
use sluice_crypto::{HmacSha256Key, derive, hex_encode};

use crate::Day;

/// The purpose under which the key of blind indexes is derived from the key of the day.
pub const INDEX_PURPOSE: &[u8] = b"sluice 1 index";

/// The purpose under which the key of addresses' pseudonyms is derived from the key of the day.
pub const ADDRESS_PURPOSE: &[u8] = b"sluice 1 address";

/// Where a user's pseudonym is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Purpose {
    /// In the store and the audit.
    Records,
    /// In the log.
    Log,
    /// In what is shipped.
    Spool,
}

impl Purpose {
    /// The purpose under which the key of users' pseudonyms is derived from the tenant's long-lived key.
    pub const fn label(self) -> &'static [u8] {
        match self {
            Purpose::Records => b"sluice 1 user records",
            Purpose::Log => b"sluice 1 user log",
            Purpose::Spool => b"sluice 1 user spool",
        }
    }
}

/// What an address is found by in a table: its bytes under the key of the day. An IPv4 address inside an IPv6 one
/// (v4-mapped) is the IPv4 address.
pub fn index(day_key: &[u8; 32], ip: &Pii<IpAddr>) -> [u8; 16] {
    let mut index = [0; 16];
    index.copy_from_slice(&tag(day_key, INDEX_PURPOSE, ip)[..16]);
    index
}

/// An address in a log line: `ip-` and 16 digits.
pub fn address(day_key: &[u8; 32], ip: &Pii<IpAddr>) -> String {
    format!("ip-{}", hex_encode(&tag(day_key, ADDRESS_PURPOSE, ip)[..8]))
}

/// A user: `user-` and 20 digits.
pub fn user(long_key: &[u8; 32], user: &Pii<Arc<[u8]>>, purpose: Purpose, day: Day) -> String {
    let key = derive(long_key, purpose.label());
    let month = day.month();
    let mut text = month.into_bytes();
    user.feed(|bytes| text.extend_from_slice(bytes));
    format!("user-{}", hex_encode(&HmacSha256Key::new(&**key.expose()).sign(&[&text])[..10]))
}

fn tag(day_key: &[u8; 32], purpose: &[u8], ip: &Pii<IpAddr>) -> [u8; 32] {
    let key = derive(day_key, purpose);
    let mut bytes = [0; 16];
    let mut length = 0;
    ip.canonical().feed(|part| {
        length = part.len();
        bytes[..length].copy_from_slice(part);
    });
    HmacSha256Key::new(&**key.expose()).sign(&[&bytes[..length]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Pii<IpAddr> {
        Pii::new(text.parse().unwrap())
    }

    #[test]
    fn an_address_is_found_by_its_index_under_its_key_alone() {
        assert_eq!(index(&[1; 32], &ip("192.0.2.7")), index(&[1; 32], &ip("::ffff:192.0.2.7")));
        assert_ne!(index(&[1; 32], &ip("192.0.2.7")), index(&[1; 32], &ip("192.0.2.8")));
        assert_ne!(index(&[1; 32], &ip("192.0.2.7")), index(&[2; 32], &ip("192.0.2.7")));
        assert_ne!(address(&[1; 32], &ip("2001:db8::7")), address(&[1; 32], &ip("2001:db8::8")));
    }

    #[test]
    fn a_user_has_another_name_for_each_purpose_and_month() {
        let zelda = Pii::new(Arc::from(&b"zelda"[..]));
        let of = |purpose, day| user(&[1; 32], &zelda, purpose, Day(day));
        assert_eq!(of(Purpose::Log, 20_758), of(Purpose::Log, 20_759));
        assert_ne!(of(Purpose::Log, 20_759), of(Purpose::Spool, 20_759));
        assert_ne!(of(Purpose::Log, 20_759), of(Purpose::Log, 20_800));
    }
}
