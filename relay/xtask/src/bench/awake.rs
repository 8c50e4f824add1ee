//! A core that does not sleep while it is measured.

use std::fs;
use std::path::PathBuf;

/// What Linux takes for "no latency at all" (power management quality of service): the idle loop polls.
const NO_LATENCY: &str = "n/a";

/// Keeps a core from sleeping while it lives, then puts back what was.
///
/// A virtual core that sleeps is given away by its host, and has to be given back before its server sees the packet
/// that woke it. That is part of every latency here, whoever serves, and changes by the minute.
#[derive(Debug)]
pub(super) struct Awake {
    path: PathBuf,
    before: String,
}

impl Awake {
    /// From now on.
    pub(super) fn keep(core: usize) -> Result<Self, String> {
        let path = PathBuf::from(format!("/sys/devices/system/cpu/cpu{core}/power/pm_qos_resume_latency_us"));
        let error = |error| {
            let path = path.display();
            format!("--awake: {path}: {error}; this needs root and a kernel with CPU idle states")
        };
        let before = fs::read_to_string(&path).map_err(error)?;
        fs::write(&path, NO_LATENCY).map_err(error)?;
        Ok(Self { path, before })
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        // Where it cannot be put back there is nobody left to tell.
        let _ = fs::write(&self.path, self.before.trim());
    }
}
