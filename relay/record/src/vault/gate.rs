//! No packet passes an overdue key.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Vault;

/// A worker's look at the keys: at the beginning of each tick, before its first packet.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Vault>);

impl Gate {
    pub(super) fn new(vault: Arc<Vault>) -> Self {
        Gate(vault)
    }

    /// Destroys every key whose end has come before it returns; while none's has, that is one load and a comparison.
    /// `unix_seconds`: of the tick.
    pub fn check(&self, unix_seconds: u64) {
        if unix_seconds >= self.0.next_look.load(Ordering::Relaxed) {
            self.0.look();
        }
    }
}
