//! What the keys need of this machine.

use std::io;
use std::path::Path;

use rand_core::{OsRng, RngCore, TryRngCore};
use sluice_base::memory::KeyCells;
use sluice_net::{LockedMemory, os};
use sluice_privacy::Moment;
use sluice_record::vault;

/// The machine that this process runs on.
#[derive(Debug, Default)]
pub(crate) struct Platform {
    memory: LockedMemory,
}

impl vault::Platform for Platform {
    fn moment(&self) -> Moment {
        let (unix_seconds, boot) = os::moment();
        Moment { unix_seconds, boot }
    }

    fn cells(&self) -> &dyn KeyCells {
        &self.memory
    }

    fn is_tmpfs(&self, path: &Path) -> io::Result<bool> {
        os::is_tmpfs(path)
    }

    fn is_never_swapped(&self, path: &Path) -> io::Result<bool> {
        os::is_never_swapped(path)
    }

    fn random(&self, out: &mut [u8]) {
        // A kernel without randomness: nothing can be sealed, and nothing may go on as if it were.
        OsRng.unwrap_err().fill_bytes(out);
    }

    fn boot_id(&self) -> Option<[u8; 16]> {
        os::boot_id()
    }

    fn has_swap(&self) -> Option<bool> {
        os::has_swap()
    }
}
