//! What passed and what failed.

use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// The results of a run, told as they come. Shared by threads.
#[derive(Debug, Default)]
pub(crate) struct Report {
    tally: Mutex<Tally>,
}

/// What is counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Tests that passed.
    pub(crate) passed: u64,
    /// Names of those that failed; a name may stand for several.
    pub(crate) failed: Vec<String>,
}

impl Report {
    /// Runs one test and tells how it went.
    pub(crate) fn test(&self, name: &str, run: impl FnOnce() -> Result<(), String>) -> bool {
        let start = Instant::now();
        let result = run();
        let seconds = start.elapsed().as_secs_f32();
        let mut tally = self.lock();
        match &result {
            Ok(()) => {
                println!("ok    {name} ({seconds:.1} s)");
                tally.passed += 1;
            }
            Err(why) => {
                println!("FAIL  {name} ({seconds:.1} s)\n      {why}");
                tally.failed.push(name.to_owned());
            }
        }
        result.is_ok()
    }

    /// Adds what another run counted.
    pub(crate) fn add(&self, other: Tally) {
        let mut tally = self.lock();
        tally.passed += other.passed;
        tally.failed.extend(other.failed);
    }

    /// What was counted so far.
    pub(crate) fn tally(&self) -> Tally {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Tally {
    /// Writes it to a file for another process.
    pub(crate) fn save(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string(self).map_err(|e| e.to_string())?;
        std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// Reads what another process wrote.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// Counts what cargo's test harness says in a closing line, as `test result: ok. 3 passed; 0 failed; ...`.
    pub(crate) fn count_line(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else {
            return;
        };
        let number = |word: &str| {
            let before = rest.split(&[';', '.'][..]).find_map(|part| part.trim().strip_suffix(word));
            before.and_then(|n| n.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        self.passed += number("passed");
        self.failed.extend((0..number("failed")).map(|_| "a test of cargo test".to_owned()));
        // A test that never runs looks like one that passes.
        self.failed.extend((0..number("ignored")).map(|_| "an ignored test of cargo test".to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_harness_is_counted() {
        let mut tally = Tally::default();
        tally.count_line("test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s");
        tally.count_line("test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out");
        tally.count_line("test looks::like_one ... ok");
        assert_eq!((tally.passed, tally.failed.len()), (15, 3));
    }
}
