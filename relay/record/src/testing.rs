//! A machine that is the test's: its clocks are set by hand, its keys lie in plain memory. Nothing of the product uses
//! it.

use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sluice_base::Mono;
use sluice_base::memory::{KeyCell, KeyCells};
use sluice_crypto::sha256;
use sluice_privacy::Moment;

use crate::vault::Platform;

/// The machine. It begins on 28 November 2026 at noon, an hour after its start, and calls every directory a tmpfs.
#[derive(Debug)]
pub struct Machine {
    moment: Mutex<Moment>,
    /// Whether directories lie in memory.
    pub is_tmpfs: AtomicBool,
    /// Whether memory may be written to a swap.
    pub has_swap: AtomicBool,
    /// Whether directories that lie in memory may not.
    pub is_never_swapped: AtomicBool,
    drawn: AtomicU64,
    starts: AtomicU64,
}

impl Machine {
    /// What is drawn follows from the seed.
    pub fn new(seed: u64) -> Self {
        let moment = Moment { unix_seconds: 1_795_867_200, boot: Mono::from_nanos(3_600_000_000_000) };
        let (moment, is_tmpfs) = (Mutex::new(moment), AtomicBool::new(true));
        let (has_swap, is_never_swapped) = (AtomicBool::new(false), AtomicBool::new(false));
        Machine {
            moment,
            is_tmpfs,
            has_swap,
            is_never_swapped,
            drawn: AtomicU64::new(seed << 32),
            starts: AtomicU64::new(1),
        }
    }

    /// Time passes on both clocks.
    pub fn pass(&self, time: Duration) {
        self.change(|moment| {
            moment.unix_seconds += time.as_secs();
            moment.boot = moment.boot.after(time);
        });
    }

    /// Somebody sets the wall clock.
    pub fn set_wall_clock(&self, unix_seconds: u64) {
        self.change(|moment| moment.unix_seconds = unix_seconds);
    }

    /// The machine starts anew.
    pub fn reboot(&self) {
        self.starts.fetch_add(1, Ordering::Relaxed);
        self.change(|moment| moment.boot = Mono::from_nanos(10_000_000_000));
    }

    fn change(&self, change: impl FnOnce(&mut Moment)) {
        change(&mut self.moment.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

impl Platform for Machine {
    fn moment(&self) -> Moment {
        *self.moment.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn cells(&self) -> &dyn KeyCells {
        &PlainCells
    }

    fn is_tmpfs(&self, _path: &Path) -> io::Result<bool> {
        Ok(self.is_tmpfs.load(Ordering::Relaxed))
    }

    fn is_never_swapped(&self, _path: &Path) -> io::Result<bool> {
        Ok(self.is_never_swapped.load(Ordering::Relaxed))
    }

    fn random(&self, out: &mut [u8]) {
        for block in out.chunks_mut(32) {
            let number = self.drawn.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            block.copy_from_slice(&sha256(&[&number])[..block.len()]);
        }
    }

    fn boot_id(&self) -> Option<[u8; 16]> {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.starts.load(Ordering::Relaxed).to_be_bytes());
        Some(id)
    }

    fn has_swap(&self) -> Option<bool> {
        Some(self.has_swap.load(Ordering::Relaxed))
    }
}

/// Keys in plain memory.
#[derive(Clone, Copy, Debug)]
pub struct PlainCells;

struct PlainCell([u8; 32]);

impl KeyCells for PlainCells {
    fn cell(&self, bytes: [u8; 32]) -> io::Result<Box<dyn KeyCell>> {
        Ok(Box::new(PlainCell(bytes)))
    }
}

impl KeyCell for PlainCell {
    fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A directory of its own below the system's temporary one, removed with it.
#[derive(Debug)]
pub struct Folder(std::path::PathBuf);

impl Folder {
    /// Makes one.
    ///
    /// # Panics
    /// The file system refuses.
    pub fn new(name: &str) -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sluice-{name}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory can be made");
        Folder(path)
    }

    /// A path inside.
    pub fn join(&self, name: &str) -> std::path::PathBuf {
        self.0.join(name)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
