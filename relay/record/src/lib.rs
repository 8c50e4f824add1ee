//! The record plane: what is written down, under which key, and when it is gone. The only crate that writes files.
#![forbid(unsafe_code)]

pub mod audit;
pub mod backup;
pub mod capture;
pub mod former;
pub mod plane;
pub mod spool;
pub mod store;
mod tenant;
pub mod testing;
pub mod vault;
