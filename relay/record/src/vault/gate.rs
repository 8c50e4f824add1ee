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

    /// No key whose end has come is in memory when it returns, nor its file where that lies in memory too; one on a
    /// disk, which is not waited for, is destroyed by [`Vault::sweep`]. While none's has come, that is one load and a
    /// comparison.
    /// `unix_seconds`: of the tick.
    pub fn check(&self, unix_seconds: u64) {
        if unix_seconds >= self.0.next_look.load(Ordering::Relaxed) {
            self.0.look();
        }
    }
}
