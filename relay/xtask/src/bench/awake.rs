//! Cores that do not sleep while a server is measured.

use std::fs::{self, File};
use std::io::Write as _;

/// Whoever holds this open says how many microseconds a core may take to wake (Linux, Documentation/power/
/// pm_qos_interface.rst); at zero the idle loop polls, where it can (x86).
const QUALITY: &str = "/dev/cpu_dma_latency";
const DRIVER: &str = "/sys/devices/system/cpu/cpuidle/current_driver";

/// Keeps all cores from sleeping while it lives; the kernel takes it back when this process ends, however it ends.
///
/// A virtual core that sleeps is given away by its host, and has to be given back before its server sees the packet
/// that woke it. That is part of every latency here, whoever serves, and changes by the minute.
#[derive(Debug)]
pub(super) struct Awake(#[expect(dead_code, reason = "it is open as long as this lives")] File);

impl Awake {
    /// From now on.
    pub(super) fn keep() -> Result<Self, String> {
        let driver = fs::read_to_string(DRIVER).unwrap_or_default();
        if matches!(driver.trim(), "" | "none") {
            return Err(
                "--awake: this machine has no driver for idle cores, so that nothing keeps one awake: leave it \
                        out (cores that were booted with idle=poll do not sleep)"
                    .to_owned(),
            );
        }
        let mut file = File::options()
            .write(true)
            .open(QUALITY)
            .map_err(|error| format!("--awake: {QUALITY}: {error}; it takes root"))?;
        file.write_all(&0_i32.to_ne_bytes()).map_err(|error| format!("--awake: {QUALITY}: {error}"))?;
        Ok(Self(file))
    }
}
