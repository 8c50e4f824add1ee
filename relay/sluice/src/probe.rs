//! `sluice probe turn:HOST:PORT`: whether a relay, ours or anybody's, serves from here.
//!
//! The client is the `turn` crate's, over webrtc-util's `Conn`: an implementation that is not ours, so that a
//! mistake of ours is not made on both sides. It asks for IPv4 relayed addresses, as most clients do.

mod credentials;
mod diagnosis;
mod echo;
mod leg;
mod outcome;
mod tap;
mod uri;

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use sluice_base::Pii;
use sluice_base::limits::{PROBE_BYTES_MAX, PROBE_BYTES_MIN, PROBE_PACKETS_MAX, PROBE_WAIT_MAX};
use sluice_net::os;
use tokio::time::Instant;

use crate::banner;
use crate::cli::Failure;
use credentials::{CredentialArgs, Credentials};
use diagnosis::Trouble;
use echo::{Echoer, Plan};
use leg::{Leg, OwnSocket};
use outcome::{Outcome, Step};
use uri::TurnUri;

/// Options of `sluice probe`.
#[derive(clap::Args, Debug)]
pub(crate) struct ProbeArgs {
    /// The relay, as turn:HOST[:PORT][?transport=udp] (RFC 7065). Of a name the first address is asked.
    #[arg(value_name = "URI")]
    relay: TurnUri,
    #[command(flatten)]
    credentials: CredentialArgs,
    /// Who sends the packets back: `allocation` (a second one of the same relay; the way to the relay counts twice
    /// in the round trip), `socket` (one of this machine, for networks without address translation), or the
    /// ADDRESS:PORT of an echo service, as turnutils_peer is.
    #[arg(long, value_name = "PEER", default_value = "allocation")]
    peer: Peer,
    /// Packets that are sent.
    #[arg(long, short = 'n', value_name = "PACKETS", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(PROBE_PACKETS_MAX)))]
    count: u32,
    /// Time between two packets, as 20ms.
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = time)]
    interval: Duration,
    /// Bytes of each packet.
    #[arg(long, value_name = "BYTES", default_value_t = 172,
          value_parser = clap::value_parser!(u16).range(i64::from(PROBE_BYTES_MIN)..=i64::from(PROBE_BYTES_MAX)))]
    size: u16,
    /// How long each step may take, and the last echo, as 3s.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = time)]
    timeout: Duration,
    /// Lost packets, in percent, with which the relay still counts as serving.
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, value_parser = percent)]
    loss_max: f64,
    /// Print one JSON object in place of words.
    #[arg(long)]
    json: bool,
}

/// Who sends packets back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Peer {
    Allocation,
    Socket,
    At(Pii<SocketAddr>),
}

/// Asks, prints what came of it, and fails when the relay does not serve.
pub(crate) fn run(args: &ProbeArgs) -> Result<(), Failure> {
    os::forbid_dumps().map_err(|error| format!("core dumps cannot be switched off: {error}"))?;
    let credentials = Credentials::of(&args.credentials)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("the probe cannot start: {error}"))?;
    let outcome = runtime.block_on(ask(args, &credentials));
    banner::say(&if args.json { outcome.json()? } else { outcome.text() });
    outcome.failure.map_or(Ok(()), |failure| Err(format!("{} does not serve: {failure}", args.relay)))
}

async fn ask(args: &ProbeArgs, credentials: &Credentials) -> Outcome {
    let mut outcome = Outcome::of(args.relay.to_string());
    let mut steps = Steps { outcome: &mut outcome, args, begun: Instant::now(), current: Step::Resolve };
    if let Err(trouble) = steps.all(credentials).await {
        let step = steps.current;
        outcome.failure = Some(trouble.at(step, args));
    }
    outcome
}

/// The steps of a probe, in order.
struct Steps<'a> {
    outcome: &'a mut Outcome,
    args: &'a ProbeArgs,
    begun: Instant,
    current: Step,
}

impl Steps<'_> {
    async fn all(&mut self, credentials: &Credentials) -> Result<(), Trouble> {
        let server = self.resolve().await?;
        self.begin(Step::Allocate);
        let mut near = Leg::allocate(server, credentials, self.args.timeout).await?;
        let served = self.through(&mut near, server, credentials).await;
        near.close().await;
        served
    }

    async fn through(&mut self, near: &mut Leg, server: SocketAddr, credentials: &Credentials) -> Result<(), Trouble> {
        self.outcome.relayed_at(server, near.relayed);
        match self.args.peer {
            Peer::At(peer) => self.relay(near, *peer.expose(), &mut Echoer::Service).await,
            Peer::Socket => {
                let own = OwnSocket::open(server, self.args.timeout).await?;
                let seen_as = own.seen_as;
                self.relay(near, seen_as, &mut Echoer::Socket(own)).await
            }
            Peer::Allocation => {
                let far = Leg::allocate(server, credentials, self.args.timeout).await;
                let far = far.map_err(|trouble| trouble.of_the_second())?;
                self.outcome.relayed_at(server, far.relayed);
                let peer = far.relayed;
                let mut echoer = Echoer::Allocation(far);
                let served = self.relay(near, peer, &mut echoer).await;
                if let Echoer::Allocation(far) = echoer {
                    far.close().await;
                }
                served
            }
        }
    }

    /// Everything after the allocations.
    async fn relay(&mut self, near: &mut Leg, peer: SocketAddr, echoer: &mut Echoer) -> Result<(), Trouble> {
        let wait = self.args.timeout;
        self.begin(Step::Permit);
        near.permit(peer, wait).await?;
        echoer.permit(near.relayed, wait).await?;
        self.begin(Step::Bind);
        near.bind(wait).await?;
        echoer.bind(wait).await?;
        self.begin(Step::Echo);
        let plan =
            Plan { count: self.args.count, interval: self.args.interval, bytes: usize::from(self.args.size), wait };
        let echo = echo::run(near, peer, echoer, &plan).await?;
        self.outcome.took(Step::Echo, self.begun.elapsed());
        let is_enough = echo.loss_percent() <= self.args.loss_max;
        let lost = Trouble::lost(&echo);
        self.outcome.echo = Some(echo);
        if is_enough { Ok(()) } else { Err(lost) }
    }

    async fn resolve(&mut self) -> Result<SocketAddr, Trouble> {
        let found = self.args.relay.resolve().await.map_err(|_| Trouble::Unknown)?;
        found.first().copied().ok_or(Trouble::Unknown)
    }

    /// The step before is done.
    fn begin(&mut self, step: Step) {
        self.outcome.took(self.current, self.begun.elapsed());
        self.current = step;
        self.begun = Instant::now();
    }
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "allocation" => Ok(Peer::Allocation),
            "socket" => Ok(Peer::Socket),
            _ => match text.parse::<SocketAddr>() {
                Ok(peer) if peer.port() != 0 => Ok(Peer::At(Pii::new(peer))),
                _ => Err("`allocation`, `socket`, or the ADDRESS:PORT of an echo service, as 192.0.2.1:7".to_owned()),
            },
        }
    }
}

/// A time with its unit.
fn time(text: &str) -> Result<Duration, String> {
    let parsed = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => number.parse().ok().map(Duration::from_millis),
        (None, Some(number)) => number.parse().ok().map(Duration::from_secs),
        (None, None) => None,
    };
    let max = PROBE_WAIT_MAX;
    let fits = parsed.filter(|time| !time.is_zero() && *time <= max);
    fits.ok_or_else(|| format!("a time has a unit, as 20ms or 3s, and is 1ms to {}s", max.as_secs()))
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=100.0).contains(number));
    number.ok_or_else(|| "a number from 0 to 100".to_owned())
}

/// Whether nobody outside of a site can send to an address.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(time("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(time("3s"), Ok(Duration::from_secs(3)));
        for wrong in ["20", "0ms", "61s", "-1s", "1m", "s"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_peer_is_a_word_or_an_address_that_does_not_print() {
        assert_eq!("socket".parse(), Ok(Peer::Socket));
        let peer: Peer = "192.0.2.1:7".parse().unwrap();
        assert_eq!(format!("{peer:?}"), "At(<personal>)");
        assert!("192.0.2.1".parse::<Peer>().is_err() && "192.0.2.1:0".parse::<Peer>().is_err());
    }
}
