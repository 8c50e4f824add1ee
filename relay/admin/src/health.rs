//! Whether the relay is well.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sluice_base::limits;

/// Says whether the relay is well.
pub trait Health: Send + Sync + 'static {
    /// Asked for every `/healthz`.
    ///
    /// # Errors
    /// What is wrong, in words for an operator and without personal data.
    fn check(&self) -> Result<(), String>;
}

impl<F: Fn() -> Result<(), String> + Send + Sync + 'static> Health for F {
    fn check(&self) -> Result<(), String> {
        self()
    }
}

/// Well while every worker advances: its number is another one than
/// [`WORKER_STALL_MAX`](limits::WORKER_STALL_MAX) ago. Looks only when it is asked, so that a stall is seen at the
/// first look that comes that long after the last advance was seen.
pub struct Advancing<F> {
    progress: F,
    seen: Mutex<Vec<Seen>>,
}

/// The last look at one worker that found it advanced.
#[derive(Clone, Copy)]
struct Seen {
    progress: u64,
    at: Instant,
}

impl<F: Fn() -> Vec<u64> + Send + Sync + 'static> Advancing<F> {
    /// Watches what `progress` gives: a number for each worker that changes while it advances.
    pub fn new(progress: F) -> Self {
        let at = Instant::now();
        let seen = progress().into_iter().map(|progress| Seen { progress, at }).collect();
        Advancing { progress, seen: Mutex::new(seen) }
    }

    /// The look of one moment.
    ///
    /// # Errors
    /// Which workers do not advance.
    pub fn check_at(&self, now: Instant) -> Result<(), String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stalled = Vec::new();
        for (worker, (seen, progress)) in seen.iter_mut().zip((self.progress)()).enumerate() {
            if seen.progress != progress {
                *seen = Seen { progress, at: now };
            }
            let still = now.saturating_duration_since(seen.at);
            if still > limits::WORKER_STALL_MAX {
                stalled.push(sentence(worker, still));
            }
        }
        if stalled.is_empty() { Ok(()) } else { Err(stalled.join("\n")) }
    }
}

impl<F: Fn() -> Vec<u64> + Send + Sync + 'static> Health for Advancing<F> {
    fn check(&self) -> Result<(), String> {
        self.check_at(Instant::now())
    }
}

fn sentence(worker: usize, still: Duration) -> String {
    format!("worker {worker} has not advanced for {} s", still.as_secs())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_worker_that_stands_still_is_named() {
        let progress = Arc::new([AtomicU64::new(1), AtomicU64::new(1)]);
        let watched = progress.clone();
        let health = Advancing::new(move || watched.iter().map(|p| p.load(Ordering::Relaxed)).collect());
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(health.check_at(at(1)), Ok(()));
        progress[0].store(2, Ordering::Relaxed);
        assert_eq!(health.check_at(at(4)), Ok(()));
        assert_eq!(health.check_at(at(8)), Err("worker 1 has not advanced for 8 s".to_owned()));
        progress[1].store(9, Ordering::Relaxed);
        assert_eq!(health.check_at(at(9)), Ok(()));
        assert_eq!(health.check_at(at(20)).unwrap_err().lines().count(), 2);
    }
}
