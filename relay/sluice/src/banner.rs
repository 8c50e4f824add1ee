//! What a person reads at the start.

use std::io::{IsTerminal, Write};

use sluice_turn::Listener;

use crate::development::Credentials;
use crate::driver::Choice;

/// Says something on standard output. Nobody may listen: that is no reason to stop.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Says on standard error why the relay does not start.
pub(crate) fn complain(error: &str) {
    let _ = writeln!(std::io::stderr().lock(), "sluice: {error}");
}

/// What the relay has taken, and what it would need to be faster.
pub(crate) struct Start<'a> {
    pub(crate) listeners: &'a [Listener],
    pub(crate) choice: &'a Choice,
    pub(crate) cores: &'a [usize],
    pub(crate) slots: u32,
    pub(crate) metrics: Option<std::net::SocketAddr>,
    pub(crate) control: Option<&'a std::path::Path>,
    /// What is written down, and how long it can be read; nothing where nothing is.
    pub(crate) records: &'a [String],
    pub(crate) advice: &'a [String],
}

impl Start<'_> {
    /// In plain words.
    pub(crate) fn text(&self) -> String {
        let mut text = String::from("sluice is ready.\n\n");
        for listener in self.listeners {
            text += &format!("  TURN      turn:{}?transport=udp   (realm {})\n", listener.address, listener.realm);
        }
        match self.metrics {
            Some(address) => text += &format!("  metrics   http://{address}/metrics\n"),
            None => text += "  metrics   not served\n",
        }
        match self.control {
            Some(path) => text += &format!("  control   sluice status --socket {}\n", path.display()),
            None => text += "  control   no socket ([control] socket in a configuration)\n",
        }
        text += &format!("  driver    {}\n", self.choice.describe());
        let cores: Vec<_> = self.cores.iter().map(ToString::to_string).collect();
        let workers = if cores.len() == 1 { "1 worker" } else { &format!("{} workers", cores.len()) };
        let s = if cores.len() == 1 { "" } else { "s" };
        text += &format!(
            "  workers   {workers}, each alone on its core (core{s} {}), {} packet slots each\n",
            cores.join(", "),
            self.slots
        );
        match self.records {
            [] => text += "  records   none are written ([privacy] records in a configuration)\n",
            told => told.iter().for_each(|told| text += &format!("  records   {told}\n")),
        }
        for advice in self.advice {
            text += &format!("  faster    {advice}\n");
        }
        text
    }
}

/// How to use a development relay; the password only for the eyes of whoever started it.
pub(crate) fn development(listeners: &[Listener], credentials: &Credentials, print_credentials: bool) -> String {
    let mut text = String::from(
        "\nNothing is configured, so this is a relay for development: it listens on loopback, its peers are the\n\
         relay's own allocations and addresses of loopback, and its secret is gone when it stops. Write a\n\
         configuration from config.example.toml and start `sluice --config FILE` for more.\n",
    );
    let Some(first) = listeners.first() else {
        return text;
    };
    if !(print_credentials || std::io::stdout().is_terminal()) {
        text += "\nThe generated credentials are shown on a terminal only, or with --print-credentials.\n";
        return text;
    }
    let (user, password, at) = (&credentials.user, credentials.password.expose(), first.address);
    text += &format!(
        "\n  user      {user}\n  password  {password}\n  (good for 24 hours)\n\n\
         A browser:\n  new RTCPeerConnection({{iceTransportPolicy: \"relay\", iceServers: [\n    \
         {{urls: \"turn:{at}?transport=udp\", username: \"{user}\", credential: \"{password}\"}}]}})\n\n\
         coturn's client, through two allocations that talk to each other:\n  \
         turnutils_uclient -y -u {user} -w {password} -p {} {}\n\n\
         Whether it serves, and how fast:\n  \
         sluice probe turn:{at} -u {user} -w {password}\n",
        at.port(),
        at.ip()
    );
    text
}
