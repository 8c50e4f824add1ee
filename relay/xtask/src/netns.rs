//! A network of the tests' own: a namespace with nothing but a loopback interface, in which clients
//! and peers have addresses that stand for nobody else.
//!
//! ```text
//! relay and listeners   127.0.0.1      ::1
//! clients               127.66.0.60 (whoever binds nothing), 127.66.1.n, fd66:6666::1:n
//! peers                 127.66.0.2     fd66:6666::2
//! ```
//!
//! The namespace lives as long as the processes inside; nothing has to be removed by name. A namespace
//! of processes goes with it, so that none outlives the test.

use std::path::Path;
use std::process::Command;

use crate::shell;

/// The relay's addresses.
pub(crate) const RELAY_V4: &str = "127.0.0.1";
/// The relay's address of the other family.
pub(crate) const RELAY_V6: &str = "::1";
/// Whoever binds no address comes from here.
pub(crate) const CLIENT_V4: &str = "127.66.0.60";
/// The peers' address.
pub(crate) const PEER_V4: &str = "127.66.0.2";
/// The peers' address of the other family.
pub(crate) const PEER_V6: &str = "fd66:6666::2";

/// How many clients have an address of their own.
pub(crate) const CLIENTS: u16 = 99;

/// The address of client `n` of the suite, from 1.
pub(crate) fn client_v4(n: u16) -> String {
    format!("127.66.1.{n}")
}

/// The same of the other family.
pub(crate) fn client_v6(n: u16) -> String {
    format!("fd66:6666::1:{n:x}")
}

/// Every address of clients and peers.
pub(crate) fn personal_addresses() -> Vec<std::net::IpAddr> {
    let fixed = [CLIENT_V4, PEER_V4, PEER_V6].map(str::to_owned);
    let clients = (1..=CLIENTS).flat_map(|n| [client_v4(n), client_v6(n)]);
    fixed.into_iter().chain(clients).filter_map(|text| text.parse().ok()).collect()
}

/// Runs this program again with `arguments`, inside of new namespaces.
pub(crate) fn run_inside(arguments: &[String]) -> Result<(), String> {
    let mut command = Command::new("unshare");
    if !shell::is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command.arg(shell::own_program()?).args(arguments);
    shell::show(&mut command)
}

/// The kernel gives nobody a port of the relay's by itself, as on a machine with our sysctl file: a port that waits for
/// its reservation token is bound by nobody.
const RESERVED_PORTS: (&str, &str) = ("/proc/sys/net/ipv4/ip_local_reserved_ports", "49152-65535");

/// Gives the loopback interface of a fresh namespace its addresses, and keeps the relay's ports for it.
pub(crate) fn set_up() -> Result<(), String> {
    let (file, ports) = RESERVED_PORTS;
    std::fs::write(file, ports).map_err(|e| format!("{file}: {e}"))?;
    // Whoever binds nothing shall not come from the relay's own address, which may be shown: with
    // 127.66.0.60/8 alone all of 127/8 is local, and that is the preferred source.
    let mut batch = format!("link set lo up\naddress del {RELAY_V4}/8 dev lo\naddress add {CLIENT_V4}/8 dev lo\n");
    let peers = [PEER_V6.to_owned()];
    for address in peers.into_iter().chain((1..=CLIENTS).map(client_v6)) {
        batch.push_str(&format!("address add {address}/64 dev lo nodad\n"));
    }
    let file = folder()?.join("addresses.batch");
    std::fs::write(&file, batch).map_err(|e| format!("{}: {e}", file.display()))?;
    shell::capture(Command::new("ip").arg("-batch").arg(&file))?.ok("ip -batch").map(drop)
}

/// A folder for what the tests write.
pub(crate) fn folder() -> Result<std::path::PathBuf, String> {
    let folder = shell::target().join("client-tests");
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(folder)
}

/// Whether this process has a network of its own: the suite must not touch another.
pub(crate) fn is_inside() -> bool {
    let own = std::fs::read_link(Path::new("/proc/self/ns/net"));
    let names = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    own.is_ok() && names.lines().skip(2).all(|line| line.trim_start().starts_with("lo:"))
}
