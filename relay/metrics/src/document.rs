//! docs/metrics.md, written from the table.

use std::fmt::Write;

use sluice_base::limits::TENANT_LABELS_MAX;
use sluice_base::stats::media::{JITTER_BOUNDS, LOSS_BOUNDS};
use sluice_base::stats::{Code, Direction, DropReason, Leg, Method};

use crate::family::{DRIVER_DROPS, FAMILIES, LATENCY_BOUNDS};
use crate::records::{Admissions, Dropped};

/// The text of docs/metrics.md.
pub fn documentation() -> String {
    let mut text = String::from(INTRODUCTION);
    text += "\n## Families\n\n| Name | Type | Unit | Labels | Meaning |\n|---|---|---|---|---|\n";
    for f in FAMILIES {
        let labels = if f.labels.is_empty() { "-".to_owned() } else { f.labels.join(", ") };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| `{}` | {} | {} | {labels} | {} |", f.name, f.kind.text(), f.unit.text(), f.help);
    }
    text += "\n## Values of labels\n\n";
    let mut label = |name: &str, values: Vec<&str>| {
        let _ = writeln!(text, "- `{name}`: {}", values.join(", "));
    };
    label("leg", Leg::ALL.iter().map(|v| v.text()).collect());
    label("direction", Direction::ALL.iter().map(|v| v.text()).collect());
    label("method", Method::ALL.iter().map(|v| v.text()).collect());
    label("cause", Dropped::default().by_label().iter().map(|(label, _)| *label).collect());
    label("outcome", Admissions::default().by_label().iter().map(|(label, _)| *label).collect());
    label("code", Code::ALL.iter().map(|v| v.text()).collect());
    let drops = DropReason::ALL.iter().map(|v| v.text());
    label("reason", drops.chain(DRIVER_DROPS.iter().map(|(reason, _)| *reason)).collect());
    let bounds: Vec<String> = LATENCY_BOUNDS.iter().map(|(_, seconds)| seconds.to_string()).collect();
    let _ = writeln!(text, "- `worker`: the worker's number, from 0");
    let _ = writeln!(
        text,
        "- `tenant`: the names of the first {TENANT_LABELS_MAX} tenants, and other for the rest and for those\n  that came by a reload"
    );
    for (family, bounds) in
        [("sluice_rtp_stream_loss_ratio", &LOSS_BOUNDS[..]), ("sluice_rtp_jitter_seconds", &JITTER_BOUNDS[..])]
    {
        let bounds: Vec<String> = bounds.iter().map(|(_, bound)| bound.to_string()).collect();
        let _ = writeln!(text, "- `le` of `{family}`: {}, +Inf", bounds.join(", "));
    }
    let _ = writeln!(text, "- `le` of `sluice_forward_latency_seconds`: {}, +Inf", bounds.join(", "));
    text + REASONS + OTHERS
}

const INTRODUCTION: &str = "# Metrics

`GET /metrics` on the address of `[metrics] listen` answers in the Prometheus text format 0.0.4. Every family is exported
from the start, zeros included, so that `rate()` and alerts see the first event. No label carries an address, a user or a
room. Workers publish every 100 ms: a scrape sees traffic while it flows, not when a session ends.

This file is written from the table in `relay/metrics/src/family.rs`, and a test compares them
(`SLUICE_UPDATE_DOCS=1 cargo test -p sluice-metrics` writes it anew).
";

const REASONS: &str = "
## Reading them

- Bit rate towards peers: `8 * sum(rate(sluice_relay_bytes_total{leg=\"peer\",direction=\"transmit\"}[1m]))`.
- Loss inside the relay: `sum(rate(sluice_packets_dropped_total[1m]))` by `reason`. `truncated`, `send_full`,
  `send_failed` and `socket_buffer` are the driver's: too long for a buffer, no room in the kernel to send, refused by the
  kernel (unreachable, too long), and lost by the kernel because a socket's receive buffer was full. The others are the
  TURN machine's.
- A worker that is near its limit: `sluice_worker_busy_ratio > 0.9`, or over any stretch
  `rate(sluice_worker_busy_seconds_total[5m])`.
- What the kernel says of a core whose worker waits: from Linux 6.5 (and stable kernels since 6.1.39) to 6.14 a wait on
  io_uring counts as one for a disk, so that its `iowait` stands near 100 % when it is idle, `/proc/pressure/io` rises,
  and neither means anything. From 6.15 on sluice asks not to be counted so.
- Refused allocations: `sum(rate(sluice_turn_requests_total{method=\"allocate\",code!~\"200|401|438\"}[5m])) by (code)`. 401 and
  438 are a part of every healthy session.
- Media lost on the way to the relay, per tenant and side:
  `sum by (tenant, leg) (rate(sluice_rtp_packets_lost_total[5m])) / sum by (tenant, leg) (rate(sluice_rtp_packets_expected_total[5m]))`.
  The way from the relay is its receiver's to tell. Packets that the relay refuses for their rate have reached it and
  count as received.
- What counts as RTP: two packets in a row of one source (SSRC) on one channel or permission, by headers that SRTP leaves
  in clear. expected = received + lost + what is still awaited (64 numbers at most); late and duplicate packets are counted
  beside them. A jump of more than 3000 numbers, or 512 back, begins a stream anew and is no loss. Retransmissions and
  forward error correction with a source of their own are streams of their own; without one, a repeated packet that comes
  within the window fills its gap.
- Jitter is measured on packets that come in order, once the clock rate is known: the time that passed in the timestamps,
  over 2 s or more, is within 1 % of a usual clock's. Arrivals have the grain of the worker's turns.
- Between two clients of the relay a packet is seen twice: from its sender (`leg=\"client\"`) and from the other relayed
  address (`leg=\"peer\"`).
- The latency histogram places a packet by the upper end of a cell of 2 significant digits; sum and count are exact.
";

const OTHERS: &str = "
## Coming from another server

| There | Here |
|---|---|
| coturn `turn_total_allocations` | `sluice_turn_allocations` |
| coturn `turn_total_traffic_rcvp`, `turn_total_traffic_sentp` (added when a session ends) | `sluice_relay_packets_total{leg=\"client\"}`, `direction` receive and transmit, live |
| coturn `turn_total_traffic_rcvb`, `turn_total_traffic_sentb` (added when a session ends) | `sluice_relay_bytes_total{leg=\"client\"}`, `direction` receive and transmit, live |
| coturn `turn_total_traffic_peer_rcvp`, `turn_total_traffic_peer_sentp` | `sluice_relay_packets_total{leg=\"peer\"}` |
| coturn `turn_total_traffic_peer_rcvb`, `turn_total_traffic_peer_sentb` | `sluice_relay_bytes_total{leg=\"peer\"}` |
| coturn `turn_traffic_rcvb{realm,user}` and its like | none: no label names a user |
| coturn `stun_binding_request` | `sum(sluice_turn_requests_total{method=\"binding\"})` |
| coturn `stun_binding_response`, `stun_binding_error` | `sluice_turn_requests_total{method=\"binding\",code=\"200\"}`, and any other `code` |
| LiveKit `livekit_packet_loss_total`, `livekit_packet_loss_percent` (histogram of percents), Jitsi `incoming_loss_fraction` | `sluice_rtp_packets_lost_total`, over `sluice_rtp_packets_expected_total`: ratios that can be summed over relays; per stream `sluice_rtp_stream_loss_ratio`. What the relay loses itself is `sluice_packets_dropped_total` |
| LiveKit `livekit_packet_total{direction=\"incoming\"}`, `livekit_packet_bytes` | `sluice_rtp_packets_received_total`, `sluice_rtp_bytes_total` |
| LiveKit `livekit_jitter_us` | `sluice_rtp_jitter_seconds` |
| LiveKit `livekit_nack_total`, `livekit_pli_total`, `livekit_fir_total` | none: they are encrypted. `sluice_rtcp_packets_total` counts what carries them |
| LiveKit `livekit_rtt_ms` | none: a relay cannot read the reports of RTCP. Its own share is `sluice_forward_latency_seconds` |
";
