//! The one table of families: names, types, units, helps, labels, and where the numbers come from.

use sluice_base::io::IoStats;
use sluice_base::stats::Single;
use sluice_base::stats::media::MediaCounter;

use crate::cells::ProcessCells;
use crate::policies::Policies;
use crate::records::Records;

/// A family of metrics.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name: `sluice_`, base units, `_total` on counters only.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// What its values are measured in.
    pub unit: Unit,
    /// One sentence for people.
    pub help: &'static str,
    /// Its labels; every combination of their values is exported from the start.
    pub labels: &'static [&'static str],
    /// Where its numbers come from.
    pub source: Source,
}

/// The type of a family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Never goes back.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bound, with sum and count.
    Histogram,
}

impl Kind {
    /// Its name in the exposition format.
    pub const fn text(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// What values are measured in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// A number of things.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// 0 to 1.
    Ratio,
    /// Always 1: the labels are the information.
    Info,
}

impl Unit {
    /// Its name for people.
    pub const fn text(self) -> &'static str {
        match self {
            Unit::Count => "count",
            Unit::Bytes => "bytes",
            Unit::Seconds => "seconds",
            Unit::Ratio => "ratio (0 to 1)",
            Unit::Info => "always 1",
        }
    }
}

/// A number of a driver.
pub type IoField = fn(&IoStats) -> u64;

/// A number of the whole process.
pub type ProcessField = fn(&ProcessCells) -> f64;

/// A number of the record plane.
pub type RecordsField = fn(&Records) -> f64;

/// Numbers of the policies, each with the values of its labels.
pub type PoliciesField = fn(&Policies) -> Vec<(Vec<String>, f64)>;

/// Where the numbers of a family come from.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// Version and driver.
    BuildInfo,
    /// When the process started.
    StartTime,
    /// How many workers there are.
    Workers,
    /// How many allocations may be alive.
    AllocationsLimit,
    /// A number that the control plane keeps.
    Process(ProcessField),
    /// A number of the record plane.
    Records(RecordsField),
    /// Numbers of the policies; none before there are any.
    Policies(PoliciesField),
    /// How long policies took, by plugin and hook.
    PolicyDurations,
    /// Admissions by what came of their record.
    Admissions,
    /// Lines of the spool that not every sink got, by reason.
    SpoolDropped,
    /// A single counter or gauge of the TURN machine, summed over workers.
    Single(Single),
    /// Requests by method and code.
    Requests,
    /// Relayed packets by leg and direction.
    Packets,
    /// Relayed bytes by leg and direction.
    Bytes,
    /// Drops of the machine and of the driver by reason.
    Drops,
    /// The latency histogram.
    Latency,
    /// What was seen of the media, by tenant and leg.
    Media(MediaCounter),
    /// The histogram of loss.
    MediaLoss,
    /// The histogram of jitter.
    MediaJitter,
    /// A number of the driver, summed over workers.
    Io(IoField),
    /// Ticks of each worker.
    WorkerTicks,
    /// Processor time of each worker.
    WorkerBusySeconds,
    /// Processor time of each worker as a part of a recent stretch.
    WorkerBusyRatio,
}

/// Reasons of drops that the driver counts, beside those of [`DropReason`](sluice_base::stats::DropReason).
pub(crate) const DRIVER_DROPS: &[(&str, IoField)] = &[
    ("truncated", |io| io.truncated),
    ("send_full", |io| io.send_full),
    ("send_failed", |io| io.send_failed),
    ("socket_buffer", |io| io.socket_drops),
];

/// Upper bounds of the latency histogram: nanoseconds, and the same in seconds.
pub(crate) const LATENCY_BOUNDS: &[(u64, f64)] = &[
    (1_000, 0.000_001),
    (2_000, 0.000_002),
    (5_000, 0.000_005),
    (10_000, 0.000_01),
    (20_000, 0.000_02),
    (50_000, 0.000_05),
    (100_000, 0.000_1),
    (200_000, 0.000_2),
    (500_000, 0.000_5),
    (1_000_000, 0.001),
    (2_000_000, 0.002),
    (5_000_000, 0.005),
    (10_000_000, 0.01),
    (20_000_000, 0.02),
    (50_000_000, 0.05),
    (100_000_000, 0.1),
];

const fn family(
    name: &'static str,
    (kind, unit): (Kind, Unit),
    labels: &'static [&'static str],
    source: Source,
    help: &'static str,
) -> Family {
    Family { name, kind, unit, help, labels, source }
}

const fn record_counter(name: &'static str, field: RecordsField, help: &'static str) -> Family {
    family(name, COUNTER, &[], Source::Records(field), help)
}

const fn record_gauge(name: &'static str, field: RecordsField, help: &'static str) -> Family {
    family(name, GAUGE, &[], Source::Records(field), help)
}

const COUNTER: (Kind, Unit) = (Kind::Counter, Unit::Count);
const GAUGE: (Kind, Unit) = (Kind::Gauge, Unit::Count);

fn counted(counts: &[(Vec<String>, u64)]) -> Vec<(Vec<String>, f64)> {
    counts.iter().map(|(labels, count)| (labels.clone(), *count as f64)).collect()
}

/// The labels of what is seen of the media.
const MEDIA: &[&str] = &["tenant", "leg"];

/// Every family, in the order of the documentation.
pub const FAMILIES: &[Family] = &[
    family(
        "sluice_build_info",
        (Kind::Gauge, Unit::Info),
        &["version", "driver"],
        Source::BuildInfo,
        "The version of the program and the packet driver in use.",
    ),
    family(
        "sluice_process_start_time_seconds",
        (Kind::Gauge, Unit::Seconds),
        &[],
        Source::StartTime,
        "When the process started, in seconds since the Unix epoch.",
    ),
    family("sluice_workers", GAUGE, &[], Source::Workers, "Workers of this process."),
    family(
        "sluice_draining",
        GAUGE,
        &[],
        Source::Process(|process| process.draining()),
        "1 while the relay lets nobody new in and waits for its allocations to end, else 0.",
    ),
    family(
        "sluice_config_last_reload_successful",
        GAUGE,
        &[],
        Source::Process(|process| process.reload_successful()),
        "1 when the last reload was taken over, or there was none, else 0: an older configuration is in force.",
    ),
    family(
        "sluice_config_last_reload_success_timestamp_seconds",
        (Kind::Gauge, Unit::Seconds),
        &[],
        Source::Process(|process| process.reloaded_unix_seconds()),
        "When the configuration in force was read, in seconds since the Unix epoch.",
    ),
    family("sluice_turn_allocations", GAUGE, &[], Source::Single(Single::Allocations), "Allocations alive."),
    family(
        "sluice_turn_allocations_limit",
        GAUGE,
        &[],
        Source::AllocationsLimit,
        "Allocations that may be alive at a time: limits.allocations.",
    ),
    family(
        "sluice_turn_permissions",
        GAUGE,
        &[],
        Source::Single(Single::Permissions),
        "Permissions alive or not yet swept.",
    ),
    family("sluice_turn_channels", GAUGE, &[], Source::Single(Single::Channels), "Channels alive or not yet swept."),
    family(
        "sluice_turn_allocations_created_total",
        COUNTER,
        &[],
        Source::Single(Single::AllocationsCreated),
        "Allocations made.",
    ),
    family(
        "sluice_turn_allocations_expired_total",
        COUNTER,
        &[],
        Source::Single(Single::AllocationsExpired),
        "Allocations that ran out or were ended by an order, a policy or a ban.",
    ),
    family(
        "sluice_turn_allocations_ended_total",
        COUNTER,
        &[],
        Source::Single(Single::AllocationsEnded),
        "Allocations ended by their client.",
    ),
    family(
        "sluice_turn_requests_total",
        COUNTER,
        &["method", "code"],
        Source::Requests,
        "Requests answered, by STUN method and by the answer's code (200: success).",
    ),
    family(
        "sluice_relay_packets_total",
        COUNTER,
        &["leg", "direction"],
        Source::Packets,
        "Relayed packets, by side of the relay and direction seen from it, counted as they pass.",
    ),
    family(
        "sluice_relay_bytes_total",
        (Kind::Counter, Unit::Bytes),
        &["leg", "direction"],
        Source::Bytes,
        "Relayed payload, by side of the relay and direction seen from it, counted as it passes.",
    ),
    family(
        "sluice_relay_hairpin_packets_total",
        COUNTER,
        &[],
        Source::Single(Single::HairpinPackets),
        "Packets between two allocations of the same worker, which never left the process.",
    ),
    family(
        "sluice_packets_dropped_total",
        COUNTER,
        &["reason"],
        Source::Drops,
        "Packets that went no further, by reason; each is counted under exactly one.",
    ),
    family(
        "sluice_forward_latency_seconds",
        (Kind::Histogram, Unit::Seconds),
        &[],
        Source::Latency,
        "Time that relayed packets spend in their worker, from receipt to hand-over to the kernel.",
    ),
    family(
        "sluice_rtp_packets_expected_total",
        COUNTER,
        MEDIA,
        Source::Media(MediaCounter::Expected),
        "Packets that the numbers of streams that look like RTP promised, on their way to the relay from that side.",
    ),
    family(
        "sluice_rtp_packets_received_total",
        COUNTER,
        MEDIA,
        Source::Media(MediaCounter::Received),
        "Of the expected packets, those that reached the relay.",
    ),
    family(
        "sluice_rtp_packets_lost_total",
        COUNTER,
        MEDIA,
        Source::Media(MediaCounter::Lost),
        "Of the expected packets, those lost on the way to the relay: not there when 64 had followed, or for 5 s.",
    ),
    family(
        "sluice_rtp_packets_late_total",
        COUNTER,
        MEDIA,
        Source::Media(MediaCounter::Late),
        "Packets that reached the relay after they were counted as lost, or from before a stream was known.",
    ),
    family(
        "sluice_rtp_packets_duplicate_total",
        COUNTER,
        MEDIA,
        Source::Media(MediaCounter::Duplicate),
        "Packets that reached the relay once more.",
    ),
    family(
        "sluice_rtp_bytes_total",
        (Kind::Counter, Unit::Bytes),
        MEDIA,
        Source::Media(MediaCounter::Bytes),
        "Bytes of packets that look like RTP, their header included, that reached the relay from that side.",
    ),
    family(
        "sluice_rtp_stream_loss_ratio",
        (Kind::Histogram, Unit::Ratio),
        MEDIA,
        Source::MediaLoss,
        "Loss on the way to the relay of each stream that looks like RTP, observed every 5 s and at its end.",
    ),
    family(
        "sluice_rtp_jitter_seconds",
        (Kind::Histogram, Unit::Seconds),
        MEDIA,
        Source::MediaJitter,
        "Interarrival jitter (RFC 3550) on the way to the relay of each stream with a known clock, observed every 5 s.",
    ),
    family(
        "sluice_rtp_streams",
        GAUGE,
        MEDIA,
        Source::Media(MediaCounter::Streams),
        "Streams that look like RTP and reach the relay from that side.",
    ),
    family(
        "sluice_rtp_streams_clock_unknown",
        GAUGE,
        MEDIA,
        Source::Media(MediaCounter::ClockUnknown),
        "Of these streams, those whose clock rate cannot be told (yet): their jitter is not measured.",
    ),
    family(
        "sluice_rtcp_packets_total",
        COUNTER,
        MEDIA,
        Source::Media(MediaCounter::Rtcp),
        "Datagrams that look like RTCP and reached the relay from that side.",
    ),
    family(
        "sluice_policy_questions_open",
        GAUGE,
        &[],
        Source::Single(Single::QuestionsOpen),
        "Questions to policies without a verdict yet.",
    ),
    family(
        "sluice_policy_questions_total",
        COUNTER,
        &[],
        Source::Single(Single::QuestionsAsked),
        "Questions put to policies.",
    ),
    family(
        "sluice_policy_questions_timed_out_total",
        COUNTER,
        &[],
        Source::Single(Single::QuestionsTimedOut),
        "Questions without a verdict in time, which are answered no.",
    ),
    family(
        "sluice_policy_verdicts_total",
        COUNTER,
        &["plugin", "hook", "verdict"],
        Source::Policies(|policies| counted(&policies.verdicts)),
        "Verdicts of each plugin; those of a dry run begin with `would-`.",
    ),
    family(
        "sluice_policy_failures_total",
        COUNTER,
        &["plugin", "reason"],
        Source::Policies(|policies| counted(&policies.failures)),
        "Failures of each plugin, by reason: each of them was a no, or would have been.",
    ),
    family(
        "sluice_policy_duration_seconds",
        (Kind::Histogram, Unit::Seconds),
        &["plugin", "hook"],
        Source::PolicyDurations,
        "How long an answer took, without the time in the queue.",
    ),
    family(
        "sluice_policy_queue_depth",
        GAUGE,
        &[],
        Source::Policies(|policies| vec![(Vec::new(), policies.waiting as f64)]),
        "Questions that wait for a plugin.",
    ),
    family(
        "sluice_policy_log_lines_dropped_total",
        COUNTER,
        &["plugin"],
        Source::Policies(|policies| counted(&policies.lines_dropped)),
        "Lines that a plugin logged over its rate.",
    ),
    family(
        "sluice_policy_denials_untold_total",
        COUNTER,
        &["plugin"],
        Source::Policies(|policies| counted(&policies.denials_untold)),
        "Denials of a plugin that have no line in the log, since there were too many.",
    ),
    family(
        "sluice_policy_questions_not_captured_total",
        COUNTER,
        &["plugin"],
        Source::Policies(|policies| counted(&policies.uncaptured)),
        "Questions of a dry run that were to be captured and were not: the capture is full or over, or the disk slow.",
    ),
    family(
        "sluice_policy_counter_mistakes_total",
        COUNTER,
        &["plugin"],
        Source::Policies(|policies| counted(&policies.mistakes)),
        "Additions of a plugin to a counter that it did not declare, or not so, or beyond 4096 series.",
    ),
    family(
        "sluice_geo_database_age_seconds",
        (Kind::Gauge, Unit::Seconds),
        &[],
        Source::Policies(|policies| policies.places_age_seconds.map(|age| (Vec::new(), age)).into_iter().collect()),
        "Time since the database of places was built; not there without one.",
    ),
    record_counter(
        "sluice_record_events_written_total",
        |records| records.events_written as f64,
        "Events (beginnings, ends, refusals) that are in the store and synced.",
    ),
    record_counter(
        "sluice_record_events_lost_total",
        |records| records.events_lost as f64,
        "Events that were not written: their queue was full, the disk took nothing for too long, the process ended.",
    ),
    record_counter(
        "sluice_record_addresses_lost_total",
        |records| records.addresses_lost as f64,
        "Records written without their addresses: they waited for the disk until the key of their day was no more.",
    ),
    record_counter(
        "sluice_record_denials_left_out_total",
        |records| records.denials_left_out as f64,
        "Refusals that were not written, since their tenant had too many in that minute.",
    ),
    record_counter(
        "sluice_record_tags_left_out_total",
        |records| records.tags_left_out as f64,
        "Answers of plugins whose words for the audit were not written: too many a minute, or too much unwritten.",
    ),
    family(
        "sluice_record_admissions_total",
        COUNTER,
        &["outcome"],
        Source::Admissions,
        "Allocations that waited for their record, by what came of it; all but `written` were refused with 508.",
    ),
    record_counter("sluice_record_commits_total", |records| records.commits as f64, "Commits of the store, synced."),
    record_counter(
        "sluice_record_commits_failed_total",
        |records| records.commits_failed as f64,
        "Commits of the store that failed; the audit is written by the same ones.",
    ),
    family(
        "sluice_record_commit_seconds_total",
        (Kind::Counter, Unit::Seconds),
        &[],
        Source::Records(|records| records.commit_seconds),
        "Time that the commits took together.",
    ),
    family(
        "sluice_record_commit_max_seconds",
        (Kind::Gauge, Unit::Seconds),
        &[],
        Source::Records(|records| records.commit_seconds_max),
        "Time of the longest commit since the start.",
    ),
    record_gauge("sluice_record_queue_depth", |records| records.queue_depth as f64, "Records that wait for the store."),
    record_gauge(
        "sluice_record_backlog",
        |records| records.backlog as f64,
        "Records kept in memory until the disk takes them.",
    ),
    record_gauge(
        "sluice_audit_last_entry",
        |records| records.audit_entries as f64,
        "Number of the last entry of the audit.",
    ),
    record_gauge(
        "sluice_audit_broken",
        |records| f64::from(u8::from(records.audit_broken)),
        "1 when the audit did not end where it was signed, at the start, else 0: see `sluice audit verify`.",
    ),
    record_gauge(
        "sluice_privacy_keys_live",
        |records| records.keys_live as f64,
        "Keys of addresses that live: one for each tenant and day.",
    ),
    record_counter(
        "sluice_privacy_keys_destroyed_total",
        |records| records.keys_destroyed as f64,
        "Keys of addresses that were destroyed.",
    ),
    record_counter(
        "sluice_privacy_keys_lost_total",
        |records| records.keys_lost as f64,
        "Keys of addresses that were found gone before their end: by a restart of the machine, or by somebody else.",
    ),
    record_gauge(
        "sluice_privacy_keys_undestroyed",
        |records| records.keys_undestroyed as f64,
        "Keys of ended days and lifted holds whose files cannot be destroyed: a promise is broken meanwhile.",
    ),
    family(
        "sluice_privacy_key_destruction_late_seconds",
        (Kind::Gauge, Unit::Seconds),
        &[],
        Source::Records(|records| records.key_late_seconds_max as f64),
        "The most by which a key of addresses was destroyed too late since the start, or is overdue now.",
    ),
    record_counter(
        "sluice_privacy_clock_steps_total",
        |records| records.clock_steps as f64,
        "Steps of the wall clock that the store has seen.",
    ),
    record_counter(
        "sluice_privacy_lookups_total",
        |records| records.lookups as f64,
        "Look-ups of an address by an administrator.",
    ),
    record_gauge("sluice_privacy_holds", |records| records.holds as f64, "Legal holds."),
    record_gauge(
        "sluice_privacy_held_sessions",
        |records| records.held_sessions as f64,
        "Sessions that legal holds keep, overdue or not.",
    ),
    record_gauge("sluice_bans", |records| records.bans as f64, "Bans of addresses and networks that hold."),
    family(
        "sluice_events_untold_total",
        COUNTER,
        &[],
        Source::Single(Single::EventsUntold),
        "Refusals and ends of media streams of which no record was begun, since one source or moment had too many.",
    ),
    family(
        "sluice_spool_bytes",
        (Kind::Gauge, Unit::Bytes),
        &[],
        Source::Records(|records| records.spool.bytes as f64),
        "What waits in the state directory for sinks.",
    ),
    record_counter("sluice_spool_lines_total", |records| records.spool.written as f64, "Lines written to the spool."),
    family(
        "sluice_spool_lines_dropped_total",
        COUNTER,
        &["cause"],
        Source::SpoolDropped,
        "Lines that not every sink got, by cause.",
    ),
    record_counter(
        "sluice_spool_lines_shipped_total",
        |records| records.spool.shipped as f64,
        "Lines that sinks have acknowledged, once for each sink.",
    ),
    record_counter(
        "sluice_spool_sink_failures_total",
        |records| records.spool.failures as f64,
        "Times that a sink did not take what it was sent.",
    ),
    record_gauge(
        "sluice_spool_sinks_down",
        |records| records.spool.sinks_down as f64,
        "Sinks whose last attempt failed.",
    ),
    family(
        "sluice_spool_backlog_bytes",
        (Kind::Gauge, Unit::Bytes),
        &[],
        Source::Records(|records| records.spool.backlog_bytes as f64),
        "What sinks have not acknowledged, once for each sink.",
    ),
    record_gauge(
        "sluice_spool_segments_overdue",
        |records| records.spool.overdue_segments as f64,
        "Files of the spool that should be gone and are still there.",
    ),
    record_counter(
        "sluice_spool_segments_unwiped_total",
        |records| records.spool.removed_unwiped as f64,
        "Files of the spool that were removed without having been overwritten.",
    ),
    family(
        "sluice_io_completions_total",
        COUNTER,
        &[],
        Source::Io(|io| io.completions),
        "Completions reaped from the ring, or messages received and sent by the readiness driver.",
    ),
    family(
        "sluice_io_completion_overflows_total",
        COUNTER,
        &[],
        Source::Io(|io| io.cq_overflows),
        "Overflows of the ring's completion queue.",
    ),
    family("sluice_io_enters_total", COUNTER, &[], Source::Io(|io| io.enters), "System calls of the workers' loops."),
    family(
        "sluice_io_receive_rearms_total",
        COUNTER,
        &[],
        Source::Io(|io| io.rearms),
        "Receives armed anew after the kernel ended them.",
    ),
    family(
        "sluice_io_receive_no_slots_total",
        COUNTER,
        &[],
        Source::Io(|io| io.no_slots),
        "Receives that found no free packet buffer; the packets wait in their socket.",
    ),
    family(
        "sluice_io_bursts_received_total",
        COUNTER,
        &[],
        Source::Io(|io| io.bursts_received),
        "Datagrams that the kernel had put together from several packets of a flow (UDP_GRO).",
    ),
    family(
        "sluice_io_burst_packets_received_total",
        COUNTER,
        &[],
        Source::Io(|io| io.burst_packets_received),
        "Packets in those; everything else counts them one by one.",
    ),
    family(
        "sluice_io_bursts_sent_total",
        COUNTER,
        &[],
        Source::Io(|io| io.bursts_sent),
        "Sends that carried several packets of a flow (UDP_SEGMENT), refused ones included.",
    ),
    family(
        "sluice_io_burst_packets_sent_total",
        COUNTER,
        &[],
        Source::Io(|io| io.burst_packets_sent),
        "Packets in those.",
    ),
    family("sluice_io_slots", GAUGE, &[], Source::Io(|io| io.slots), "Packet buffers of all workers."),
    family("sluice_io_slots_free", GAUGE, &[], Source::Io(|io| io.slots_free), "Packet buffers that are free."),
    family(
        "sluice_io_long_slots",
        GAUGE,
        &[],
        Source::Io(|io| io.long_slots),
        "Buffers for bursts of all workers; what was never written to takes no memory.",
    ),
    family(
        "sluice_io_long_slots_free",
        GAUGE,
        &[],
        Source::Io(|io| io.long_slots_free),
        "Buffers for bursts that are free.",
    ),
    family(
        "sluice_worker_ticks_total",
        COUNTER,
        &["worker"],
        Source::WorkerTicks,
        "Times that each worker handed over its counters; at least once a second while its loop goes round.",
    ),
    family(
        "sluice_worker_busy_seconds_total",
        (Kind::Counter, Unit::Seconds),
        &["worker"],
        Source::WorkerBusySeconds,
        "Processor time of each worker's thread.",
    ),
    family(
        "sluice_worker_busy_ratio",
        (Kind::Gauge, Unit::Ratio),
        &["worker"],
        Source::WorkerBusyRatio,
        "Processor time of each worker's thread as a part of the last 5 seconds or more.",
    ),
];
