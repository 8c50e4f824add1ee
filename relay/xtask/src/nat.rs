//! A network that is not loopback: this namespace has the relay, behind a router that maps two of its
//! addresses one to one, and people outside have namespaces of their own.
//!
//! ```text
//! inside               router, 1:1 NAT for IPv4                    outside
//! 10.66.0.5         -  203.0.113.5   10.66.0.1   198.51.100.1   -  198.51.100.2    one
//! 10.66.0.6         -  203.0.113.6
//! 2001:db8:66::5    -  as it is      2001:db8:66::1, :a::1      -  2001:db8:a::2   one
//!                                    198.51.100.65, :b::1       -  198.51.100.66, 2001:db8:b::2   other
//! ```
//!
//! The router does not send back inside what comes from there: the relay must not need it.
//!
//! A namespace lives as long as the process that holds it, and has no name that would have to be removed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::shell;

/// An address of the relay, and by which one the outside knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapped {
    pub(crate) inner: &'static str,
    pub(crate) external: &'static str,
}

/// The relay's mapped addresses.
pub(crate) const MAPPED: [Mapped; 2] =
    [Mapped { inner: "10.66.0.5", external: "203.0.113.5" }, Mapped { inner: "10.66.0.6", external: "203.0.113.6" }];

/// The relay's address of the other family, which is not mapped.
pub(crate) const RELAY_V6: &str = "2001:db8:66::5";

/// The addresses of somebody outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outside {
    pub(crate) v4: &'static str,
    pub(crate) v6: &'static str,
    gateway_v4: &'static str,
    gateway_v6: &'static str,
}

/// One of them.
pub(crate) const ONE: Outside =
    Outside { v4: "198.51.100.2", v6: "2001:db8:a::2", gateway_v4: "198.51.100.1", gateway_v6: "2001:db8:a::1" };

/// The other.
pub(crate) const OTHER: Outside =
    Outside { v4: "198.51.100.66", v6: "2001:db8:b::2", gateway_v4: "198.51.100.65", gateway_v6: "2001:db8:b::1" };

/// The networks of all who are outside.
pub(crate) const OUTSIDE: [&str; 3] = ["198.51.100.0/24", "2001:db8:a::/48", "2001:db8:b::/48"];

/// The router's address towards the relay.
const ROUTER_V4: &str = "10.66.0.1";
const ROUTER_V6: &str = "2001:db8:66::1";

/// How long one of the commands that make a network may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The network; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Network {
    router: Place,
    pub(crate) one: Place,
    pub(crate) other: Place,
}

impl Network {
    /// Makes it, around the namespace of this process.
    pub(crate) fn new() -> Result<Self, String> {
        let network = Network { router: Place::new()?, one: Place::new()?, other: Place::new()? };
        network.link_the_relay()?;
        network.link(&network.one, &ONE, "one")?;
        network.link(&network.other, &OTHER, "other")?;
        let router = &network.router;
        router.run("sysctl", &["-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])?;
        router.feed("nft", &["-f", "-"], &rules())?;
        Ok(network)
    }

    /// How many packets came to the router from the relay for the relay.
    pub(crate) fn turned_back(&self) -> Result<u64, String> {
        let said = self.router.run("nft", &["list", "counter", "ip", "one_to_one", "turned_back"])?;
        let words: Vec<&str> = said.split_whitespace().collect();
        let after = words.windows(2).find(|pair| pair[0] == "packets").map(|pair| pair[1].parse());
        after.and_then(Result::ok).ok_or_else(|| format!("nft does not say how many packets:\n{said}"))
    }

    fn link_the_relay(&self) -> Result<(), String> {
        let [first, second] = MAPPED.map(|mapped| mapped.inner);
        let router = self.router.pid();
        feed(
            Command::new("ip").args(["-batch", "-"]),
            &format!(
                "link add uplink type veth peer name inside netns {router}\n\
                 address add {first}/24 dev uplink\n\
                 address add {second}/24 dev uplink\n\
                 address add {RELAY_V6}/64 dev uplink nodad\n\
                 link set uplink up\n"
            ),
        )?;
        self.router.feed(
            "ip",
            &["-batch", "-"],
            &format!(
                "link set lo up\n\
                 address add {ROUTER_V4}/24 dev inside\n\
                 address add {ROUTER_V6}/64 dev inside nodad\n\
                 link set inside up\n"
            ),
        )?;
        let routes = format!("route add default via {ROUTER_V4}\nroute add ::/0 via {ROUTER_V6}\n");
        feed(Command::new("ip").args(["-batch", "-"]), &routes)
    }

    fn link(&self, place: &Place, outside: &Outside, name: &str) -> Result<(), String> {
        let Outside { v4, v6, gateway_v4, gateway_v6 } = outside;
        let pid = place.pid();
        self.router.feed(
            "ip",
            &["-batch", "-"],
            &format!(
                "link add {name} type veth peer name uplink netns {pid}\n\
                 address add {gateway_v4}/26 dev {name}\n\
                 address add {gateway_v6}/64 dev {name} nodad\n\
                 link set {name} up\n"
            ),
        )?;
        place.feed(
            "ip",
            &["-batch", "-"],
            &format!(
                "link set lo up\n\
                 address add {v4}/26 dev uplink\n\
                 address add {v6}/64 dev uplink nodad\n\
                 link set uplink up\n\
                 route add default via {gateway_v4}\n\
                 route add ::/0 via {gateway_v6}\n"
            ),
        )
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // At once: a namespace is cleared away some time after its last process.
        let _ = shell::capture(Command::new("ip").args(["link", "delete", "uplink"]));
    }
}

/// A network namespace, and the process that holds it.
#[derive(Debug)]
pub(crate) struct Place {
    holder: Child,
}

impl Place {
    fn new() -> Result<Self, String> {
        let mut command = Command::new("unshare");
        // It says that it is there, and waits for the end of its input.
        command.args(["--net", "--", "sh", "-c", "echo here; exec cat"]);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut place = Place { holder: spawned.map_err(|e| format!("unshare: {e}"))? };
        let mut line = String::new();
        if let Some(said) = place.holder.stdout.take() {
            BufReader::new(said).read_line(&mut line).map_err(|e| e.to_string())?;
        }
        if line.trim() == "here" { Ok(place) } else { Err("unshare --net made no namespace".to_owned()) }
    }

    /// The file by which others enter it.
    pub(crate) fn file(&self) -> String {
        format!("/proc/{}/ns/net", self.pid())
    }

    /// A program inside, that is ended after `limit`.
    pub(crate) fn limited(&self, limit: Duration, program: &str) -> Command {
        let mut command = shell::limited(limit, "nsenter");
        command.arg(format!("--net={}", self.file())).args(["--", program]);
        command
    }

    fn pid(&self) -> u32 {
        self.holder.id()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        shell::capture(self.limited(LIMIT, program).args(arguments))?.ok(program)
    }

    fn feed(&self, program: &str, arguments: &[&str], text: &str) -> Result<(), String> {
        feed(self.limited(LIMIT, program).args(arguments), text)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.holder.kill().and_then(|()| self.holder.wait());
    }
}

/// Gives a command a text to read.
fn feed(command: &mut Command, text: &str) -> Result<(), String> {
    let (reader, mut writer) = std::io::pipe().map_err(|e| e.to_string())?;
    // It fits into a pipe, so that nobody has to read yet.
    writer.write_all(text.as_bytes()).map_err(|e| e.to_string())?;
    drop(writer);
    shell::capture_with_input(command, Stdio::from(reader))?.ok("a command that makes the network").map(drop)
}

/// What the router does to the packets of the relay.
fn rules() -> String {
    let each = |line: fn(&Mapped) -> String| MAPPED.iter().map(line).collect::<Vec<_>>().join("\n    ");
    let arriving = each(|m| format!("ip daddr {} dnat to {}", m.external, m.inner));
    let leaving = each(|m| format!("ip saddr {} oifname != inside snat to {}", m.inner, m.external));
    format!(
        "table ip one_to_one {{
  counter turned_back {{
  }}
  chain arriving {{
    type nat hook prerouting priority dstnat; policy accept;
    {arriving}
  }}
  chain between {{
    type filter hook forward priority filter; policy accept;
    iifname inside oifname inside counter name turned_back drop
  }}
  chain leaving {{
    type nat hook postrouting priority srcnat; policy accept;
    {leaving}
  }}
}}
"
    )
}
