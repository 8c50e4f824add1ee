//! When bans end: by either clock, so that none comes back when the wall clock is set back.

use std::collections::HashMap;
use std::time::Duration;

use sluice_base::Mono;
use sluice_privacy::Moment;

use super::thread::Keeper;
use crate::store::{Ban, Failure};

/// The bans that hold, and those that have ended and whose rows are still there.
#[derive(Debug, Default)]
pub(super) struct BanEnds {
    /// By id: the end by the wall clock, and by the boot clock.
    ends: HashMap<[u8; 16], (u64, Mono)>,
    ended: Vec<[u8; 16]>,
}

impl BanEnds {
    /// A ban holds from now on.
    pub(super) fn add(&mut self, ban: &Ban, now: Moment) {
        let left = Duration::from_secs(ban.expires.saturating_sub(now.unix_seconds));
        self.ends.insert(ban.id, (ban.expires, now.boot.after(left)));
    }

    /// Whether a ban holds.
    pub(super) fn has(&self, id: &[u8; 16]) -> bool {
        self.ends.contains_key(id)
    }

    /// Only these go on.
    pub(super) fn keep(&mut self, is_kept: impl Fn(&[u8; 16]) -> bool) {
        let ended = self.ends.extract_if(|id, _| !is_kept(id)).map(|(id, _)| id);
        self.ended.extend(ended);
    }

    /// It is lifted, and its row gone.
    pub(super) fn lifted(&mut self, id: &[u8; 16]) {
        self.ends.remove(id);
    }
}

impl Keeper {
    /// The bans that hold: their end has not come, and their key lives.
    pub(super) fn bans_in_force(&self) -> Result<Vec<Ban>, Failure> {
        // The time does not ask the wall clock, which may have been set back.
        let mut bans = self.store.bans(0)?;
        bans.retain(|ban| self.bans.has(&ban.id));
        Ok(bans)
    }

    /// Removes bans whose end has come, and tells whoever has a table of them.
    pub(super) fn look_at_bans(&mut self, now: Moment) {
        let before = self.bans.ended.len();
        let is_over = |(unix_seconds, boot): (u64, Mono)| now.unix_seconds >= unix_seconds || now.boot >= boot;
        let over = self.bans.ends.extract_if(|_, end| is_over(*end)).map(|(id, _)| id);
        self.bans.ended.extend(over);
        if self.bans.ended.is_empty() || (self.bans.ended.len() == before && now.boot < self.retry_at) {
            return;
        }
        let ended = std::mem::take(&mut self.bans.ended);
        match self.write(|writer| writer.end_bans(&ended)) {
            Ok(()) => self.must_truncate = true,
            // They hold no more all the same.
            Err(_) => self.bans.ended.clone_from(&ended),
        }
        self.shared.bell.ring();
    }
}
