//! What a scrape shows.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use sluice_base::io::IoStats;
use sluice_base::stats::media::{Media, MediaCounter, media_place, media_places};
use sluice_base::stats::{Code, Counter, Counters, Direction, DropReason, Leg, Method, Single};
use sluice_base::{TenantId, WorkerId};
use sluice_metrics::{
    Admissions, BuildInfo, FAMILIES, Family, Kind, Metrics, OwnCounter, Policies, PolicyDurations, Records, Unit,
    documentation,
};

fn metrics(workers: usize) -> Metrics {
    let build = BuildInfo {
        version: "1.2.3".into(),
        driver: "io_uring".into(),
        start_unix_seconds: 1_700_000_000,
        allocations_limit: 500,
        tenants: vec!["main".into(), "clinic".into()],
    };
    Metrics::new(workers, build).unwrap()
}

/// The value of one line.
#[track_caller]
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    line.unwrap_or_else(|| panic!("no {series} in:\n{text}")).rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn everything_is_exported_as_zero_from_the_start() {
    let metrics = metrics(2);
    let there = |text: &str, family: &Family| text.contains(&format!("# TYPE {} ", family.name));
    let text = metrics.render().unwrap();
    // Without a plugin or a database there is nobody to tell of.
    let (some, all): (Vec<_>, Vec<_>) = FAMILIES.iter().partition(|family| !there(&text, family));
    let told = |family: &Family| family.labels.contains(&"plugin") || family.name == "sluice_geo_database_age_seconds";
    assert!(some.iter().copied().all(told), "{:?}", some.iter().map(|f| f.name).collect::<Vec<_>>());
    for family in all {
        assert!(text.contains(&format!("# TYPE {} {}\n", family.name, family.kind.text())), "{}", family.name);
        assert!(text.contains(&format!("# HELP {} {}\n", family.name, family.help)), "{}", family.name);
    }
    assert_eq!(value(&text, "sluice_build_info{version=\"1.2.3\",driver=\"io_uring\"}"), 1.0);
    assert_eq!(value(&text, "sluice_process_start_time_seconds"), 1_700_000_000.0);
    assert_eq!(value(&text, "sluice_workers"), 2.0);
    assert_eq!(value(&text, "sluice_turn_requests_total{method=\"allocate\",code=\"486\"}"), 0.0);
    assert_eq!(value(&text, "sluice_packets_dropped_total{reason=\"socket_buffer\"}"), 0.0);
    assert_eq!(value(&text, "sluice_forward_latency_seconds_bucket{le=\"0.000001\"}"), 0.0);
    assert_eq!(value(&text, "sluice_worker_busy_ratio{worker=\"1\"}"), 0.0);
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let requests = samples.filter(|line| line.starts_with("sluice_turn_requests_total")).count();
    assert_eq!(requests, Method::COUNT * Code::COUNT);
}

#[test]
fn workers_are_summed() {
    let metrics = metrics(2);
    for worker in 0..2 {
        let (cells, mut recorder) = metrics.worker(WorkerId(worker)).unwrap();
        let mut counters = Counters::default();
        counters.set(Counter::single(Single::Allocations), 3);
        counters.add(Counter::single(Single::Ticks), 7);
        counters.add(Counter::bytes(Leg::Peer, Direction::Transmit), 1200);
        counters.add(Counter::request(Method::Allocate, Code::Unauthenticated), 2);
        counters.drop(DropReason::NoPermission);
        let io = IoStats { slots: 10, slots_free: 4, socket_drops: 5, busy_nanos: 1_500_000_000, ..Default::default() };
        cells.publish(&counters, &io);
        recorder.record_n(3_000, 10);
        recorder.hand_over();
    }
    let text = metrics.render().unwrap();
    assert_eq!(value(&text, "sluice_turn_allocations"), 6.0);
    assert_eq!(value(&text, "sluice_turn_allocations_limit"), 500.0);
    assert_eq!(value(&text, "sluice_relay_bytes_total{leg=\"peer\",direction=\"transmit\"}"), 2400.0);
    assert_eq!(value(&text, "sluice_turn_requests_total{method=\"allocate\",code=\"401\"}"), 4.0);
    assert_eq!(value(&text, "sluice_packets_dropped_total{reason=\"no_permission\"}"), 2.0);
    assert_eq!(value(&text, "sluice_packets_dropped_total{reason=\"socket_buffer\"}"), 10.0);
    assert_eq!(value(&text, "sluice_io_slots_free"), 8.0);
    assert_eq!(value(&text, "sluice_worker_ticks_total{worker=\"1\"}"), 7.0);
    assert_eq!(value(&text, "sluice_worker_busy_seconds_total{worker=\"0\"}"), 1.5);
    assert_eq!(value(&text, "sluice_forward_latency_seconds_count"), 20.0);
    assert_eq!(value(&text, "sluice_forward_latency_seconds_bucket{le=\"0.000002\"}"), 0.0);
    assert_eq!(value(&text, "sluice_forward_latency_seconds_bucket{le=\"0.000005\"}"), 20.0);
    assert!((value(&text, "sluice_forward_latency_seconds_sum") - 60e-6).abs() < 1e-12);
    assert_eq!(metrics.publications(), [1, 1]);
}

#[test]
fn media_is_summed_by_tenant_and_side() {
    let metrics = metrics(2);
    for worker in 0..2 {
        let (cells, _) = metrics.worker(WorkerId(worker)).unwrap();
        let mut media = vec![Media::default(); media_places(2)];
        let place = media_place(media.len(), TenantId(1), Leg::Peer);
        let clinic = &mut media[place];
        clinic.add(MediaCounter::Bytes, 1200);
        clinic.add(MediaCounter::Expected, 100);
        clinic.add(MediaCounter::Lost, 3);
        clinic.observe_loss(3, 100);
        clinic.observe_loss(0, 100);
        clinic.observe_jitter(1_500_000);
        cells.publish_media(&media);
    }
    let text = metrics.render().unwrap();
    let labels = "tenant=\"clinic\",leg=\"peer\"";
    assert_eq!(value(&text, &format!("sluice_rtp_bytes_total{{{labels}}}")), 2400.0);
    assert_eq!(value(&text, &format!("sluice_rtp_packets_expected_total{{{labels}}}")), 200.0);
    assert_eq!(value(&text, &format!("sluice_rtp_packets_lost_total{{{labels}}}")), 6.0);
    assert_eq!(value(&text, "sluice_rtp_packets_lost_total{tenant=\"main\",leg=\"peer\"}"), 0.0);
    let bucket = |family: &str, le: &str| value(&text, &format!("{family}_bucket{{{labels},le=\"{le}\"}}"));
    assert_eq!(bucket("sluice_rtp_stream_loss_ratio", "0"), 2.0);
    assert_eq!(bucket("sluice_rtp_stream_loss_ratio", "0.02"), 2.0);
    assert_eq!(bucket("sluice_rtp_stream_loss_ratio", "0.05"), 4.0);
    assert_eq!(bucket("sluice_rtp_jitter_seconds", "0.001"), 0.0);
    assert_eq!(bucket("sluice_rtp_jitter_seconds", "0.002"), 2.0);
    assert_eq!(value(&text, &format!("sluice_rtp_jitter_seconds_sum{{{labels}}}")), 0.003);
    assert_eq!(value(&text, &format!("sluice_rtp_stream_loss_ratio_count{{{labels}}}")), 4.0);
}

#[test]
fn a_histogram_goes_on_from_scrape_to_scrape() {
    let metrics = metrics(1);
    let (_, mut recorder) = metrics.worker(WorkerId(0)).unwrap();
    for scrape in 1..=3 {
        recorder.record_n(1_000_000, 1);
        recorder.hand_over();
        let text = metrics.render().unwrap();
        assert_eq!(value(&text, "sluice_forward_latency_seconds_count"), f64::from(scrape));
    }
}

#[test]
fn a_cell_has_one_writer() {
    let metrics = metrics(1);
    assert!(metrics.worker(WorkerId(0)).is_some());
    assert!(metrics.worker(WorkerId(0)).is_none());
    assert!(metrics.worker(WorkerId(1)).is_none());
}

#[test]
fn the_record_plane_is_asked_at_each_scrape() {
    let metrics = metrics(1);
    assert_eq!(value(&metrics.render().unwrap(), "sluice_record_events_lost_total"), 0.0);
    let asked = AtomicU64::new(0);
    metrics.watch_records(move || Records {
        events_lost: asked.fetch_add(1, Ordering::Relaxed) + 7,
        admissions: Admissions { late: 3, ..Admissions::default() },
        audit_broken: true,
        commit_seconds: 0.25,
        ..Records::default()
    });
    let text = metrics.render().unwrap();
    assert_eq!(value(&text, "sluice_record_events_lost_total"), 7.0);
    assert_eq!(value(&text, "sluice_record_admissions_total{outcome=\"late\"}"), 3.0);
    assert_eq!(value(&text, "sluice_audit_broken"), 1.0);
    assert_eq!(value(&text, "sluice_record_commit_seconds_total"), 0.25);
    assert_eq!(value(&metrics.render().unwrap(), "sluice_record_events_lost_total"), 8.0);
}

#[test]
fn policies_are_asked_at_each_scrape() {
    let metrics = metrics(1);
    let labels = |rest: &[&str]| std::iter::once("fence").chain(rest.iter().copied()).map(str::to_owned).collect();
    metrics.watch_policies(move || Policies {
        waiting: 2,
        places_age_seconds: Some(86_400.0),
        verdicts: vec![(labels(&["geofence", "deny"]), 3)],
        failures: vec![(labels(&["trap"]), 4)],
        lines_dropped: vec![(labels(&[]), 5)],
        denials_untold: vec![(labels(&[]), 10)],
        uncaptured: vec![(labels(&[]), 11)],
        mistakes: vec![(labels(&[]), 6)],
        bounds: &[0.001],
        durations: vec![PolicyDurations { labels: labels(&["allocate"]), buckets: vec![7, 1], sum: 0.5 }],
        own: vec![OwnCounter {
            name: "sluice_plugin_fence_seen_total".to_owned(),
            help: "Seen.".to_owned(),
            labels: vec!["tenant".to_owned()],
            values: vec!["clinic".to_owned()],
            value: 9,
        }],
    });
    let text = metrics.render().unwrap();
    for (series, expected) in [
        ("sluice_policy_queue_depth", 2.0),
        ("sluice_geo_database_age_seconds", 86_400.0),
        ("sluice_policy_verdicts_total{plugin=\"fence\",hook=\"geofence\",verdict=\"deny\"}", 3.0),
        ("sluice_policy_failures_total{plugin=\"fence\",reason=\"trap\"}", 4.0),
        ("sluice_policy_log_lines_dropped_total{plugin=\"fence\"}", 5.0),
        ("sluice_policy_denials_untold_total{plugin=\"fence\"}", 10.0),
        ("sluice_policy_questions_not_captured_total{plugin=\"fence\"}", 11.0),
        ("sluice_policy_counter_mistakes_total{plugin=\"fence\"}", 6.0),
        ("sluice_policy_duration_seconds_bucket{plugin=\"fence\",hook=\"allocate\",le=\"0.001\"}", 7.0),
        ("sluice_policy_duration_seconds_count{plugin=\"fence\",hook=\"allocate\"}", 8.0),
        ("sluice_plugin_fence_seen_total{tenant=\"clinic\"}", 9.0),
    ] {
        assert_eq!(value(&text, series), expected);
    }
    assert!(FAMILIES.iter().all(|family| text.contains(&format!("# TYPE {} ", family.name))));
}

#[test]
fn names_follow_the_rules() {
    let mut names = HashSet::new();
    for family in FAMILIES {
        assert!(names.insert(family.name), "{} stands there twice", family.name);
        assert!(family.name.starts_with("sluice_"), "{}", family.name);
        assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{}", family.name);
        let base = family.name.trim_end_matches("_total");
        assert_eq!(base.ends_with("_seconds"), family.unit == Unit::Seconds, "{}", family.name);
        assert_eq!(base.ends_with("_bytes"), family.unit == Unit::Bytes, "{}", family.name);
        assert_eq!(base.ends_with("_ratio"), family.unit == Unit::Ratio, "{}", family.name);
        assert!(family.help.ends_with('.'), "{}", family.name);
        for label in family.labels {
            let known = [
                "version",
                "driver",
                "method",
                "code",
                "leg",
                "direction",
                "reason",
                "worker",
                "tenant",
                "outcome",
                "cause",
                "plugin",
                "hook",
                "verdict",
            ];
            assert!(known.contains(label), "{label} is not known to be bounded and free of personal data");
        }
    }
}

/// `promtool check metrics` (Debian's package prometheus; `cargo xtask test` installs it).
#[test]
fn promtool_finds_nothing() {
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().expect("promtool is missing: install Debian's package prometheus");
    child.stdin.take().unwrap().write_all(metrics(2).render().unwrap().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{:?}: {said}", output.status);
}

#[test]
fn the_document_is_that_of_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    if std::env::var_os("SLUICE_UPDATE_DOCS").is_some() {
        std::fs::write(&path, documentation()).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let cure = "docs/metrics.md is out of date: SLUICE_UPDATE_DOCS=1 cargo test -p sluice-metrics";
    assert!(committed == documentation(), "{cure}");
}

#[test]
fn the_document_names_only_families_that_exist() {
    let names: HashSet<&str> = FAMILIES.iter().map(|family| family.name).collect();
    let text = documentation();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for word in words.filter(|word| word.starts_with("sluice_")) {
        assert!(names.contains(word), "{word} is no family");
    }
}
