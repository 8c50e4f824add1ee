//! `sluice systemd-dropin`: what systemd/sluice.service must have beside for one configuration.

use std::path::Path;

use sluice_base::limits::SLOT_BYTES;
use sluice_config::Config;
use sluice_net::os;

use crate::cli::{Failure, io_features};
use crate::{banner, run, wiring};

/// Ports below need a capability.
const PORT_UNPRIVILEGED_MIN: u16 = 1024;

/// The unit's own LimitMEMLOCK.
const MEMLOCK_OF_UNIT: u64 = 512 << 20;

/// Prints the drop-in for a configuration on this machine.
pub(crate) fn print(file: &Path) -> Result<(), Failure> {
    let config = Config::load(file, &io_features()).map_err(|error| error.to_string())?;
    let local = os::local_addresses().map_err(|error| format!("the machine's addresses cannot be read: {error}"))?;
    let listeners = wiring::listeners(&config, &local)?;
    let relays = wiring::relays(&config, &listeners)?;
    let workers = run::cores(&config)?.len();
    let files = wiring::files_needed(&config, listeners.len(), &relays, workers);
    banner::say(&text(&config, files, workers));
    Ok(())
}

fn text(config: &Config, files: u64, workers: usize) -> String {
    let mut text = "# Printed by `sluice systemd-dropin`; to be printed again when the configuration changes.\n\
         [Service]\n"
        .to_owned();
    text += &format!("# limits.allocations = {}\nLimitNOFILE={files}\n", config.limits.allocations());
    let slots = u64::from(wiring::slots(config, workers)) * SLOT_BYTES as u64 * workers as u64;
    text += &format!("LimitMEMLOCK={}\n", slots.saturating_mul(2).max(MEMLOCK_OF_UNIT));
    if needs_privileged_port(config) {
        text += "# A port below 1024. PrivateUsers would take the capability's effect away.\n\
                 CapabilityBoundingSet=CAP_NET_BIND_SERVICE\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n\
                 PrivateUsers=no\n";
    }
    text
}

fn needs_privileged_port(config: &Config) -> bool {
    let ports = config.listen.iter().map(|listen| listen.address.port());
    ports.chain(config.metrics.listen.map(|listen| listen.port())).any(|port| port < PORT_UNPRIVILEGED_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_base::TenantId;
    use sluice_config::Listen;

    fn config(address: &str) -> Config {
        let listen = Listen { address: address.parse().unwrap(), realm: "r".to_owned(), tenant: TenantId(0) };
        Config { listen: vec![listen], ..Config::default() }
    }

    #[test]
    fn a_capability_only_for_a_privileged_port() {
        assert!(!text(&config("127.0.0.1:3478"), 1, 1).contains("CAP_"));
        let with = text(&config("127.0.0.1:443"), 1, 1);
        assert!(with.contains("\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n") && with.contains("\nPrivateUsers=no\n"));
    }

    #[test]
    fn the_limit_on_files_is_what_the_start_demands() {
        let config = config("127.0.0.1:3478");
        let listeners = wiring::listeners(&config, &[]).unwrap();
        let relays = wiring::relays(&config, &listeners).unwrap();
        let needed = wiring::files_needed(&config, listeners.len(), &relays, 2);
        assert!(needed > u64::from(config.limits.allocations()));
        assert!(text(&config, needed, 2).contains(&format!("\nLimitNOFILE={needed}\n")));
    }
}
