//! The machine ends under load, and its disk has bad days: what was acknowledged is on the disk.
//!
//! The state directory is a file system of its own (see [`Disk`](crate::disk::Disk)). A process is killed at a moment
//! that nobody chose, and what its disk then holds is mounted, opened, counted, and gone on with.

pub(crate) mod client;
mod plane;
mod relay;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::report::Report;

/// How many kills there are unless the environment says otherwise (`SLUICE_KILLS`): what the gate has time for.
const KILLS: u32 = 5;

/// Kills of one disk, which the records of all of them have to fit on.
const KILLS_PER_DISK: u32 = 5;

/// The size of a disk.
const DISK_MEBIBYTES: u32 = 256;

/// Longest time from a start to its kill, in milliseconds: some thousand admissions.
const LIFE_MS_MAX: u64 = 1500;

/// The folder of the state directory on its disk.
const STATE: &str = "state";

/// All of it; inside of the namespace. What relays say is added to what is shown.
pub(crate) fn run(report: &Report, shown: &mut String) {
    let kills = std::env::var("SLUICE_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    plane::run(report, kills);
    relay::run(report, kills, shown);
}

/// A life of up to [`LIFE_MS_MAX`].
fn a_life() -> Result<Duration, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|e| e.to_string())?;
    // Its low digits are nobody's choice; 7919 spreads neighbours.
    Ok(Duration::from_millis((u64::from(now.subsec_nanos()) / 1000).wrapping_mul(7919) % LIFE_MS_MAX))
}
