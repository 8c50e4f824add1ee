//! The scrape: from cells to families.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use prometheus::core::Desc;
use prometheus::proto;
use sluice_base::stats::media::{JITTER_BOUNDS, LOSS_BOUNDS, Media, MediaCounter};
use sluice_base::stats::{Code, Counter, Direction, DropReason, Leg, Method, Single};

use crate::BuildInfo;
use crate::busy::Busy;
use crate::cells::{ProcessCells, WorkerCells};
use crate::family::{DRIVER_DROPS, FAMILIES, Family, IoField, Kind, LATENCY_BOUNDS, Source};
use crate::latency::{Batch, LatencyReader};
use crate::media::{Seen, Tenants};
use crate::policies::{OwnCounter, Policies, PolicyDurations};
use crate::records::{Records, Watch};

/// Where the numbers come from.
pub(crate) struct Sources {
    pub(crate) workers: Vec<Arc<WorkerCells>>,
    pub(crate) readers: Vec<LatencyReader>,
    pub(crate) process: Arc<ProcessCells>,
    pub(crate) records: Arc<Watch<Records>>,
    pub(crate) policies: Arc<Watch<Policies>>,
}

/// Collects every family of the table.
pub(crate) struct Collector {
    descriptions: Vec<Desc>,
    workers: Vec<Arc<WorkerCells>>,
    readers: Vec<LatencyReader>,
    process: Arc<ProcessCells>,
    records: Arc<Watch<Records>>,
    policies: Arc<Watch<Policies>>,
    build: BuildInfo,
    tenants: Tenants,
    kept: Mutex<Kept>,
}

/// What a scrape keeps for the next one.
struct Kept {
    latency: Batch,
    busy: Vec<Busy>,
    /// As of this scrape.
    records: Records,
    policies: Policies,
}

/// The values of the labels, in their order, and the number.
type Sample = (Vec<String>, f64);

impl Collector {
    pub(crate) fn new(sources: Sources, build: BuildInfo) -> Result<Self, prometheus::Error> {
        let Sources { workers, readers, process, records, policies } = sources;
        let describe = |f: &Family| {
            let labels = f.labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(f.name.to_owned(), f.help.to_owned(), labels, Default::default())
        };
        let busy = vec![Busy::new(Instant::now()); workers.len()];
        let kept = Kept { latency: Batch::new(), busy, records: Records::default(), policies: Policies::default() };
        let descriptions = FAMILIES.iter().map(describe).collect::<Result<_, _>>()?;
        let tenants = Tenants::new(&build.tenants);
        let kept = Mutex::new(kept);
        Ok(Collector { descriptions, workers, readers, process, records, policies, build, tenants, kept })
    }

    fn samples(&self, source: Source, kept: &mut Kept) -> Vec<Sample> {
        match source {
            Source::BuildInfo => vec![(vec![self.build.version.clone(), self.build.driver.clone()], 1.0)],
            Source::StartTime => one(self.build.start_unix_seconds as f64),
            Source::Workers => one(self.workers.len() as f64),
            Source::AllocationsLimit => one(self.build.allocations_limit.into()),
            Source::Process(field) => one(field(&self.process)),
            Source::Records(field) => one(field(&kept.records)),
            Source::Policies(field) => field(&kept.policies),
            Source::Admissions => kept.records.admissions.by_label().map(labelled).to_vec(),
            Source::SpoolDropped => kept.records.spool.dropped.by_label().map(labelled).to_vec(),
            Source::Single(single) => one(self.sum(Counter::single(single)) as f64),
            Source::Requests => self.requests(),
            Source::Packets => self.by_leg(Counter::packets),
            Source::Bytes => self.by_leg(Counter::bytes),
            Source::Drops => self.drops(),
            // Not samples: see `histogram`.
            Source::Latency | Source::MediaLoss | Source::MediaJitter | Source::PolicyDurations => Vec::new(),
            Source::Media(counter) => self.media(counter),
            Source::Io(field) => one(self.sum_io(field) as f64),
            Source::WorkerTicks => self.by_worker(|_, cells| cells.counter(Counter::single(Single::Ticks)) as f64),
            Source::WorkerBusySeconds => self.by_worker(|_, cells| cells.io().busy_nanos as f64 / 1e9),
            Source::WorkerBusyRatio => {
                let now = Instant::now();
                self.by_worker(|i, cells| kept.busy[i].ratio(now, cells.io().busy_nanos))
            }
        }
    }

    fn requests(&self) -> Vec<Sample> {
        let of = |method: &Method, code: &Code| {
            let count = self.sum(Counter::request(*method, *code));
            (vec![method.text().to_owned(), code.text().to_owned()], count as f64)
        };
        Method::ALL.iter().flat_map(|method| Code::ALL.iter().map(move |code| of(method, code))).collect()
    }

    fn by_leg(&self, counter: fn(Leg, Direction) -> Counter) -> Vec<Sample> {
        let of = |leg: &Leg, direction: &Direction| {
            let count = self.sum(counter(*leg, *direction));
            (vec![leg.text().to_owned(), direction.text().to_owned()], count as f64)
        };
        Leg::ALL.iter().flat_map(|leg| Direction::ALL.iter().map(move |direction| of(leg, direction))).collect()
    }

    fn drops(&self) -> Vec<Sample> {
        let machine = DropReason::ALL.iter().map(|r| (r.text(), self.sum(Counter::drop(*r))));
        let driver = DRIVER_DROPS.iter().map(|(reason, field)| (*reason, self.sum_io(*field)));
        machine.chain(driver).map(|(reason, count)| (vec![reason.to_owned()], count as f64)).collect()
    }

    fn media(&self, counter: MediaCounter) -> Vec<Sample> {
        let sample = |seen: Seen| (seen.labels.to_vec(), seen.media.value(counter) as f64);
        self.tenants.seen(&self.workers).into_iter().map(sample).collect()
    }

    fn by_worker(&self, mut value: impl FnMut(usize, &WorkerCells) -> f64) -> Vec<Sample> {
        let workers = self.workers.iter().enumerate();
        workers.map(|(i, cells)| (vec![i.to_string()], value(i, cells))).collect()
    }

    fn media_histograms(
        &self,
        family: &Family,
        bounds: &[(u64, f64)],
        read: fn(&Media) -> (&[u64], f64),
    ) -> Vec<proto::Metric> {
        let bounds: Vec<f64> = bounds.iter().map(|(_, bound)| *bound).collect();
        let one = |seen: Seen| {
            let (buckets, sum) = read(&seen.media);
            let cumulative: Vec<u64> = buckets
                .iter()
                .scan(0, |all, n| {
                    *all += n;
                    Some(*all)
                })
                .collect();
            let count = cumulative.last().copied().unwrap_or(0);
            histogram(labels(family, seen.labels.to_vec()), &bounds, &cumulative, count, sum)
        };
        self.tenants.seen(&self.workers).into_iter().map(one).collect()
    }

    fn sum(&self, counter: Counter) -> u64 {
        self.workers.iter().map(|cells| cells.counter(counter)).sum()
    }

    fn sum_io(&self, field: IoField) -> u64 {
        self.workers.iter().map(|cells| field(&cells.io())).sum()
    }

    fn metrics(&self, family: &Family, kept: &mut Kept) -> Vec<proto::Metric> {
        match family.source {
            Source::Latency => return vec![latency(&kept.latency)],
            Source::PolicyDurations => {
                let one = |durations: &PolicyDurations| policy_durations(family, kept.policies.bounds, durations);
                return kept.policies.durations.iter().map(one).collect();
            }
            Source::MediaLoss => return self.media_histograms(family, &LOSS_BOUNDS, Media::loss),
            Source::MediaJitter => return self.media_histograms(family, &JITTER_BOUNDS, Media::jitter),
            _ => {}
        }
        let samples = self.samples(family.source, kept);
        samples.into_iter().map(|(labels, value)| metric(family, labels, value)).collect()
    }
}

impl prometheus::core::Collector for Collector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.records = self.records.read();
        kept.policies = self.policies.read();
        for reader in &self.readers {
            reader.drain(&mut kept.latency);
        }
        let family = |f: &Family| {
            let mut family = proto::MetricFamily::default();
            family.set_name(f.name.to_owned());
            family.set_help(f.help.to_owned());
            family.set_field_type(match f.kind {
                Kind::Counter => proto::MetricType::COUNTER,
                Kind::Gauge => proto::MetricType::GAUGE,
                Kind::Histogram => proto::MetricType::HISTOGRAM,
            });
            family.set_metric(self.metrics(f, &mut kept));
            family
        };
        let mut families: Vec<_> = FAMILIES.iter().map(family).collect();
        families.extend(own_families(&kept.policies.own));
        families
    }
}

/// Families that the table does not have: those that plugins declared.
fn own_families(counters: &[OwnCounter]) -> Vec<proto::MetricFamily> {
    let mut families: BTreeMap<&str, proto::MetricFamily> = BTreeMap::new();
    for counter in counters {
        let names = counter.labels.iter().map(String::as_str);
        let mut metric = proto::Metric::from_label(pairs(names, counter.values.clone()));
        let mut value = proto::Counter::default();
        value.set_value(counter.value as f64);
        metric.set_counter(value);
        let family = families.entry(&counter.name).or_insert_with(|| {
            let mut family = proto::MetricFamily::default();
            family.set_name(counter.name.clone());
            family.set_help(counter.help.clone());
            family.set_field_type(proto::MetricType::COUNTER);
            family
        });
        family.mut_metric().push(metric);
    }
    families.into_values().collect()
}

fn policy_durations(family: &Family, bounds: &[f64], durations: &PolicyDurations) -> proto::Metric {
    let all = durations.buckets.iter().scan(0, |all, n| {
        *all += n;
        Some(*all)
    });
    let cumulative: Vec<u64> = all.collect();
    let count = cumulative.last().copied().unwrap_or(0);
    histogram(labels(family, durations.labels.clone()), bounds, &cumulative, count, durations.sum)
}

fn labelled((label, count): (&str, u64)) -> Sample {
    (vec![label.to_owned()], count as f64)
}

fn one(value: f64) -> Vec<Sample> {
    vec![(Vec::new(), value)]
}

fn labels(family: &Family, values: Vec<String>) -> Vec<proto::LabelPair> {
    pairs(family.labels.iter().copied(), values)
}

fn pairs<'n>(names: impl Iterator<Item = &'n str>, values: Vec<String>) -> Vec<proto::LabelPair> {
    let pair = |(name, value): (&str, String)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value);
        pair
    };
    names.zip(values).map(pair).collect()
}

fn metric(family: &Family, values: Vec<String>, value: f64) -> proto::Metric {
    let mut metric = proto::Metric::from_label(labels(family, values));
    if family.kind == Kind::Counter {
        let mut counter = proto::Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

fn latency(latency: &Batch) -> proto::Metric {
    let (nanos, seconds): (Vec<u64>, Vec<f64>) = LATENCY_BOUNDS.iter().copied().unzip();
    histogram(Vec::new(), &seconds, &latency.cumulative(&nanos), latency.count(), latency.sum_seconds())
}

/// A histogram of `count` observations, of which so many are at most each bound.
fn histogram(labels: Vec<proto::LabelPair>, bounds: &[f64], cumulative: &[u64], count: u64, sum: f64) -> proto::Metric {
    let bucket = |(bound, count): (&f64, &u64)| {
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(*count);
        bucket
    };
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(bounds.iter().zip(cumulative).map(bucket).collect());
    histogram.set_sample_count(count);
    histogram.set_sample_sum(sum);
    let mut metric = proto::Metric::from_label(labels);
    metric.set_histogram(histogram);
    metric
}
