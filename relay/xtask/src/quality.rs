//! What the relay says of a real browser's media, beside what the browser counts itself and what was lost on purpose.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::lossy::{Lossy, Pattern};
use crate::{netns, server};

/// Five of a hundred packets.
const PATTERN: Pattern = Pattern { seed: 20_260, per_mille: 50 };

/// How long the call lasts: clocks are inferred and jitter is observed meanwhile.
pub(crate) const CALL_SECONDS: &str = "14";

/// Calls at most.
const ATTEMPTS: u32 = 3;

/// How far apart two counts may be: one of a hundred packets.
const APART_PARTS: u64 = 100;

/// The fewest packets that say anything.
const PACKETS_MIN: u64 = 600;

/// How long the streams may take to be over, once their allocations are.
const END_LIMIT: Duration = Duration::from_secs(45);

/// Between two looks at the metrics.
const LOOK: Duration = Duration::from_millis(200);

/// What the browser has counted.
#[derive(Debug, Deserialize)]
pub(crate) struct Counted {
    /// RTP packets sent, those sent again included.
    sent: u64,
    /// RTP packets received, those sent again included.
    received: u64,
    /// Of `sources`: what is sent again, and what only probes the way, has others.
    lost: i64,
    sources: Vec<u32>,
}

/// What the relay has counted from its clients.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Said {
    expected: u64,
    received: u64,
    lost: u64,
    late: u64,
    duplicate: u64,
    streams: u64,
    jitters: u64,
    rtcp: u64,
}

/// Compares what is counted of `call`, which is told where to go. Where the kernel lost packets as well, because
/// somebody was too busy to take them, nobody knows how many were lost: then once more.
pub(crate) fn compare(
    relay: SocketAddr,
    metrics: SocketAddr,
    call: impl Fn(SocketAddr) -> Result<Counted, String>,
) -> Result<(), String> {
    let mut attempt = 1;
    loop {
        let before = kernel_losses()?;
        let compared = compare_once(relay, metrics, &call);
        let lost = kernel_losses()? - before;
        if compared.is_ok() || lost == 0 || attempt == ATTEMPTS {
            return compared.map_err(|why| format!("{why}\n      the kernel: {lost} lost"));
        }
        println!("      the kernel lost {lost} of its own: once more");
        attempt += 1;
    }
}

/// Datagrams that found no room in a socket's buffer, in this namespace.
fn kernel_losses() -> Result<u64, String> {
    let text = std::fs::read_to_string("/proc/net/snmp").map_err(|e| format!("/proc/net/snmp: {e}"))?;
    let mut lines = text.lines().filter(|line| line.starts_with("Udp: ")).map(str::split_ascii_whitespace);
    let (names, values) = (lines.next().into_iter().flatten(), lines.next().into_iter().flatten());
    let found = names.zip(values).find(|(name, _)| *name == "RcvbufErrors");
    found.and_then(|(_, value)| value.parse().ok()).ok_or_else(|| "/proc/net/snmp has no RcvbufErrors".to_owned())
}

/// A call through a way that loses packets to `relay`.
fn compare_once(
    relay: SocketAddr,
    metrics: SocketAddr,
    call: &impl Fn(SocketAddr) -> Result<Counted, String>,
) -> Result<(), String> {
    let before = Said::by(metrics)?;
    let way = Lossy::start(netns::PEER_V4, relay, PATTERN)?;
    let counted = call(way.address)?;
    let said = Said::at_the_end(metrics)?.since(&before);
    let (all, first) = (way.toll(|_| true), way.toll(|source| counted.sources.contains(&source)));
    let story = format!(
        "the way: {all:?}, of what is sent first {first:?}\n      the relay: {said:?}\n      the browser: {counted:?}"
    );
    println!("      {story}");
    let wrong = |what: &str| Err(format!("{what}\n      {story}"));
    if counted.sent < PACKETS_MIN || first.lost == 0 {
        return wrong("there is too little to compare");
    }
    let sent = counted.sent;
    let near = |a: u64, b: u64| a.abs_diff(b) * APART_PARTS <= sent;
    if !near(said.expected, sent) {
        return wrong("the relay expects other than the browser sent");
    }
    if !near(said.lost, all.lost) {
        return wrong("the relay misses other than was lost");
    }
    if !near(first.lost, u64::try_from(counted.lost).unwrap_or(0)) {
        return wrong("the browser at the far end misses other than was lost before the relay");
    }
    if said.received + said.lost != said.expected {
        return wrong("the relay still awaits packets of streams that are over");
    }
    if !near(said.received, counted.received) {
        return wrong("the relay received other than the browser at the far end, and nothing is lost between them");
    }
    if said.jitters == 0 || said.rtcp == 0 {
        return wrong("no clock was inferred, or no RTCP seen");
    }
    Ok(())
}

impl Said {
    fn by(metrics: SocketAddr) -> Result<Self, String> {
        let text = server::http_get(metrics, "/metrics")?;
        let sum = |family: &str| -> u64 {
            let of = |line: &str| line.strip_prefix(family).is_some_and(|rest| rest.starts_with('{'));
            let lines = text.lines().filter(|line| of(line) && line.contains("leg=\"client\""));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
        };
        Ok(Said {
            expected: sum("sluice_rtp_packets_expected_total"),
            received: sum("sluice_rtp_packets_received_total"),
            lost: sum("sluice_rtp_packets_lost_total"),
            late: sum("sluice_rtp_packets_late_total"),
            duplicate: sum("sluice_rtp_packets_duplicate_total"),
            streams: sum("sluice_rtp_streams"),
            jitters: sum("sluice_rtp_jitter_seconds_count"),
            rtcp: sum("sluice_rtcp_packets_total"),
        })
    }

    /// When all streams are over.
    fn at_the_end(metrics: SocketAddr) -> Result<Self, String> {
        let end = Instant::now() + END_LIMIT;
        loop {
            let said = Said::by(metrics)?;
            if said.streams == 0 {
                return Ok(said);
            }
            if Instant::now() > end {
                return Err(format!("{} streams are not over after {} s", said.streams, END_LIMIT.as_secs()));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn since(&self, before: &Said) -> Said {
        Said {
            expected: self.expected - before.expected,
            received: self.received - before.received,
            lost: self.lost - before.lost,
            late: self.late - before.late,
            duplicate: self.duplicate - before.duplicate,
            streams: self.streams,
            jitters: self.jitters - before.jitters,
            rtcp: self.rtcp - before.rtcp,
        }
    }
}
