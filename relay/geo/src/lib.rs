//! Where an address is: country, subdivision and autonomous system, from a local database in MaxMind's format. The
//! only crate that names maxminddb. No look-up leaves the machine.
//!
//! **What is not known is `None`, and never guessed**: a damaged record, an address that the database does not have,
//! and no database at all are the same to whoever asks.
#![forbid(unsafe_code)]

mod database;
mod source;
pub mod write;

pub use database::{Database, GeoError, Place};
pub use source::{Source, Stamp};
