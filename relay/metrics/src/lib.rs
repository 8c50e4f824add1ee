//! Metrics: one table of families, the cells that workers publish into, and the scrape that sums them.
//!
//! **A worker writes only its own cells, and only plain stores.** Nothing here allocates, locks or waits on a
//! worker's thread: [`WorkerCells::publish`] copies counters that the worker has anyway, and
//! [`LatencyRecorder`] swaps a full histogram for an empty one. Everything else happens at a scrape.
#![forbid(unsafe_code)]

mod busy;
mod cells;
mod collect;
mod document;
mod family;
mod latency;
mod media;
mod policies;
mod records;

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{Registry, TextEncoder};
use sluice_base::WorkerId;

pub use cells::{ProcessCells, WorkerCells};
pub use document::documentation;
pub use family::{FAMILIES, Family, IoField, Kind, PoliciesField, ProcessField, RecordsField, Source, Unit};
pub use latency::LatencyRecorder;
pub use policies::{OwnCounter, Policies, PolicyDurations};
pub use records::{Admissions, Dropped, Records, Spooled};

use collect::{Collector, Sources};
use latency::LatencyReader;
use records::Watch;

/// Media type of [`Metrics::render`]: the text exposition format 0.0.4.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// What is fixed for the life of the process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BuildInfo {
    /// The version of the program.
    pub version: String,
    /// The packet driver in use.
    pub driver: String,
    /// When the process started, in seconds since the Unix epoch.
    pub start_unix_seconds: u64,
    /// Live allocations that the configuration allows in all.
    pub allocations_limit: u32,
    /// The tenants' names, by [`TenantId`](sluice_base::TenantId).
    pub tenants: Vec<String>,
}

/// The metrics of one process.
pub struct Metrics {
    registry: Registry,
    workers: Vec<Worker>,
    process: Arc<ProcessCells>,
    records: Arc<Watch<Records>>,
    policies: Arc<Watch<Policies>>,
}

/// What one worker publishes, seen from the scrape.
struct Worker {
    cells: Arc<WorkerCells>,
    /// Taken by the worker.
    recorder: Mutex<Option<LatencyRecorder>>,
}

impl Metrics {
    /// Metrics of `workers` workers, all of them zero.
    ///
    /// # Errors
    /// When a family of the table is not valid for the `prometheus` crate: a mistake in this crate.
    pub fn new(workers: usize, build: BuildInfo) -> Result<Self, prometheus::Error> {
        let cells: Vec<_> = (0..workers).map(|_| Arc::new(WorkerCells::new(build.tenants.len()))).collect();
        let (recorders, readers): (Vec<_>, Vec<LatencyReader>) = (0..workers).map(|_| latency::pair()).unzip();
        let process = Arc::new(ProcessCells::default());
        process.configured(build.start_unix_seconds);
        let (records, policies) = (Arc::new(Watch::default()), Arc::new(Watch::default()));
        let registry = Registry::new();
        let sources = Sources {
            workers: cells.clone(),
            readers,
            process: process.clone(),
            records: records.clone(),
            policies: policies.clone(),
        };
        registry.register(Box::new(Collector::new(sources, build)?))?;
        let join = |(cells, recorder)| Worker { cells, recorder: Mutex::new(Some(recorder)) };
        let workers = cells.into_iter().zip(recorders).map(join).collect();
        Ok(Metrics { registry, workers, process, records, policies })
    }

    /// The cells and the recorder of one worker; `None` for a worker that does not exist or has them already:
    /// each cell has one writer.
    pub fn worker(&self, worker: WorkerId) -> Option<(Arc<WorkerCells>, LatencyRecorder)> {
        let worker = self.workers.get(usize::from(worker.0))?;
        let recorder = worker.recorder.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some((worker.cells.clone(), recorder))
    }

    /// What the control plane writes.
    pub fn process(&self) -> &ProcessCells {
        &self.process
    }

    /// Has `figures` asked at each scrape for what the record plane has done.
    pub fn watch_records(&self, figures: impl Fn() -> Records + Send + Sync + 'static) {
        self.records.set(Box::new(figures));
    }

    /// Has `figures` asked at each scrape for what policies have done.
    pub fn watch_policies(&self, figures: impl Fn() -> Policies + Send + Sync + 'static) {
        self.policies.set(Box::new(figures));
    }

    /// How often each worker has published: what a health check watches advance.
    pub fn publications(&self) -> Vec<u64> {
        self.workers.iter().map(|worker| worker.cells.publications()).collect()
    }

    /// Everything, in the text exposition format 0.0.4.
    ///
    /// # Errors
    /// When a family has no sample: a mistake in this crate.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}
