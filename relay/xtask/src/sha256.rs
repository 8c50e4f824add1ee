//! Clients that speak what RFC 8489 added: SHA-256, and USERHASH in place of a name.
//!
//! A name cannot be found by its hash where names are computed, so this relay has static users only.

use std::process::Command;

use crate::clients::{self, STATIC_USER};
use crate::report::Report;
use crate::server::{self, Server};
use crate::{netns, personal, shell};

/// Runs the group on a relay of its own.
pub(crate) fn run(report: &Report, peer_port: u16) {
    let mut relay = None;
    report.test("sha256: a relay with static users only starts and answers", || {
        relay = Some(Relay::start()?);
        Ok(())
    });
    let Some(relay) = relay else { return };
    report.test("sha256: a client of RFC 8489's additions, and every bid-down", || {
        relay.ask("sha256_relay.py", &[netns::PEER_V4, &peer_port.to_string()])
    });
    report.test("sha256: libjuice, by USERHASH: 100 of 100", || relay.ask("libjuice_relay.py", &[]));
    report.test("sha256: stops in order, and has told nothing of its users", || relay.stop());
}

/// A relay whose users are all static.
struct Relay {
    port: u16,
    server: Server,
}

impl Relay {
    fn start() -> Result<Self, String> {
        let port = server::free_udp_port(netns::RELAY_V4)?;
        let config = netns::folder()?.join("sha256.toml");
        std::fs::write(&config, configuration(port)).map_err(|e| format!("{}: {e}", config.display()))?;
        let mut command = Command::new(clients::relay_program());
        command.arg("--config").arg(&config).args(["--log-level", "trace"]);
        let at = clients::address(netns::RELAY_V4, port)?;
        let server = Server::start(&mut command, &netns::folder()?.join("sha256.log"), at)?;
        Ok(Relay { port, server })
    }

    /// Runs a script against it.
    fn ask(&self, name: &str, more: &[&str]) -> Result<(), String> {
        let mut command = clients::script(name);
        command.args([netns::RELAY_V4, &self.port.to_string(), STATIC_USER.0, STATIC_USER.1]).args(more);
        shell::capture(&mut command)?.ok(name).map(drop)
    }

    fn stop(self) -> Result<(), String> {
        personal::none_in(&self.server.output())?;
        self.server.stop()
    }
}

fn configuration(port: u16) -> String {
    let (address, (user, password)) = (netns::RELAY_V4, STATIC_USER);
    format!(
        r#"
[[listen]]
address = "{address}:{port}"
realm = "{}"

[limits]
allocations = 100

[guard]
allow_peers = ["loopback"]

[metrics]
listen = ""

# A client that goes without a word must not be waited for.
[drain]
deadline_seconds = 0

[[tenant]]
name = "default"

[[tenant.user]]
name = "{user}"
password = "{password}"
"#,
        clients::REALM
    )
}
