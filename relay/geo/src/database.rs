//! One database.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use maxminddb::Reader;
use serde::Deserialize;
use sluice_base::Pii;
use sluice_base::address::wrapped;
use sluice_base::limits::GEO_DATABASE_BYTES_MAX;

/// A database in memory: whatever becomes of its file, what was read stays whole.
pub struct Database {
    reader: Reader<Vec<u8>>,
    built_unix_seconds: u64,
}

/// What is known of an address's place.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// ISO 3166-1 alpha-2, upper case.
    pub country: Option<String>,
    /// ISO 3166-2, as in `DE-BY`.
    pub subdivision: Option<String>,
    /// Number of the autonomous system.
    pub asn: Option<u32>,
}

/// Why a database cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GeoError {
    /// The file cannot be read.
    #[error("{path} cannot be read: {error}")]
    Unreadable {
        /// Which one.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// The file is longer than any database.
    #[error("{path} is longer than {GEO_DATABASE_BYTES_MAX} bytes: is it a database?")]
    TooLong {
        /// Which one.
        path: String,
    },
    /// The file is no database, or a damaged one.
    #[error("{path} is no database in MaxMind's format (.mmdb): {error}")]
    Damaged {
        /// Which one.
        path: String,
        /// What the reader says.
        error: String,
    },
}

impl Database {
    /// Reads a database.
    ///
    /// # Errors
    /// Why it cannot be used, with its path.
    pub fn open(path: &Path) -> Result<Self, GeoError> {
        let name = path.display().to_string();
        let unreadable = |error| GeoError::Unreadable { path: name.clone(), error };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(GEO_DATABASE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > GEO_DATABASE_BYTES_MAX {
            return Err(GeoError::TooLong { path: name });
        }
        Self::parse(bytes, &name)
    }

    /// A database of these bytes; `name` is what errors call it.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(bytes: Vec<u8>, name: &str) -> Result<Self, GeoError> {
        let damaged =
            |error: maxminddb::MaxMindDbError| GeoError::Damaged { path: name.to_owned(), error: error.to_string() };
        let reader = Reader::from_source(bytes).map_err(damaged)?;
        let built_unix_seconds = reader.metadata().build_epoch;
        Ok(Database { reader, built_unix_seconds })
    }

    /// Where an address is; that which wraps an IPv4 one is where the wrapped one is.
    pub fn place(&self, ip: Pii<IpAddr>) -> Place {
        let ip = match *ip.expose() {
            IpAddr::V6(v6) => wrapped(v6).map_or(IpAddr::V6(v6), IpAddr::V4),
            v4 => v4,
        };
        let found = self.reader.lookup(ip);
        let record = found.and_then(|found| found.decode::<Record<'_>>()).ok().flatten();
        record.map(Record::place).unwrap_or_default()
    }

    /// How old it is. One that was built in the future counts as new.
    pub fn age(&self, now_unix_seconds: u64) -> Duration {
        Duration::from_secs(now_unix_seconds.saturating_sub(self.built_unix_seconds))
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("built_unix_seconds", &self.built_unix_seconds).finish_non_exhaustive()
    }
}

/// What is read of a record: those of country, city and autonomous-system databases, or one that joins them.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    country: Option<Named<'a>>,
    #[serde(borrow, default)]
    subdivisions: Vec<Named<'a>>,
    autonomous_system_number: Option<u32>,
}

#[derive(Deserialize)]
struct Named<'a> {
    iso_code: Option<&'a str>,
}

impl Record<'_> {
    fn place(self) -> Place {
        let code = |named: &Named<'_>| named.iso_code.filter(|code| is_code(code)).map(str::to_owned);
        let country = self.country.as_ref().and_then(code).filter(|code| code.len() == 2);
        let part = self.subdivisions.first().and_then(code);
        let subdivision = country.as_ref().zip(part).map(|(country, part)| format!("{country}-{part}"));
        Place { country, subdivision, asn: self.autonomous_system_number }
    }
}

/// Upper-case letters and digits, at most three: ISO 3166.
fn is_code(code: &str) -> bool {
    (1..=3).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::Writer;

    fn ip(text: &str) -> Pii<IpAddr> {
        Pii::new(text.parse().unwrap())
    }

    fn database() -> Database {
        let mut writer = Writer::new(1_000_000);
        writer.insert("203.0.113.0".parse().unwrap(), 24, &place("DE", Some("DE-BY"), Some(64500)));
        writer.insert("2001:db8:7::".parse().unwrap(), 48, &place("FR", None, None));
        writer.insert("198.51.100.128".parse().unwrap(), 25, &place("us", None, None));
        Database::parse(writer.bytes(), "test").unwrap()
    }

    fn place(country: &str, subdivision: Option<&str>, asn: Option<u32>) -> Place {
        Place { country: Some(country.to_owned()), subdivision: subdivision.map(str::to_owned), asn }
    }

    #[test]
    fn an_address_is_where_its_network_is() {
        let database = database();
        assert_eq!(database.place(ip("203.0.113.77")), place("DE", Some("DE-BY"), Some(64500)));
        assert_eq!(database.place(ip("2001:db8:7:1::9")), place("FR", None, None));
        assert_eq!(database.place(ip("203.0.114.1")), Place::default());
        assert_eq!(database.place(ip("2001:db8:8::1")), Place::default());
    }

    #[test]
    fn a_wrapped_address_is_where_the_wrapped_one_is() {
        let database = database();
        for wrapped in ["::ffff:203.0.113.5", "64:ff9b::203.0.113.5", "2002:cb00:7105::1"] {
            assert_eq!(database.place(ip(wrapped)).country.as_deref(), Some("DE"), "{wrapped}");
        }
    }

    #[test]
    fn a_code_that_is_none_is_unknown() {
        assert_eq!(database().place(ip("198.51.100.200")), Place::default());
    }

    #[test]
    fn what_is_no_database_says_so() {
        let error = Database::parse(b"hello".to_vec(), "x.mmdb").unwrap_err().to_string();
        assert!(error.starts_with("x.mmdb is no database"), "{error}");
    }

    #[test]
    fn a_damaged_database_knows_nothing_and_does_not_panic() {
        let mut writer = Writer::new(1);
        writer.insert("0.0.0.0".parse().unwrap(), 1, &place("DE", Some("DE-BY"), Some(1)));
        let whole = writer.bytes();
        for at in 0..whole.len() {
            for value in [0, 0xff, whole[at] ^ 0x20] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                if let Ok(database) = Database::parse(bytes, "x") {
                    let _ = database.place(ip("10.0.0.1"));
                }
            }
        }
    }

    #[test]
    fn it_ages() {
        assert_eq!(database().age(1_000_060), Duration::from_secs(60));
        assert_eq!(database().age(5), Duration::ZERO);
    }
}
