//! The worker threads: made, sealed, started, stopped.

use std::sync::{Arc, mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rand_core::{OsRng, TryRngCore};
use sluice_base::WorkerId;
use sluice_base::io::{Io, Waker};
use sluice_base::limits::WORKER_STOP_TIMEOUT;
use sluice_base::message::{Envelope, Order};
use sluice_metrics::{LatencyRecorder, Metrics, WorkerCells};
use sluice_net::{Epoll, RingBuilder, os};
use sluice_turn::{Bans, ServerOptions, Shared};
use sluice_worker::{Mailbox, Parts, Post, Worker};
use tokio::sync::mpsc::UnboundedSender;

use crate::cli::Failure;
use crate::driver::{self, Choice};
use crate::policies::{Chain, Policies};
use crate::recorder::{Recorder, Recording};

/// Between two looks whether a worker has ended: nothing else is left to be done.
const STOP_LOOK: Duration = Duration::from_millis(1);

/// What all workers are made of.
pub(crate) struct Plan<'a> {
    pub(crate) options: ServerOptions,
    pub(crate) shared: Shared,
    /// A worker on each.
    pub(crate) cores: &'a [usize],
    pub(crate) choice: &'a Choice,
    /// Names of `io.disable`.
    pub(crate) disable: &'a [String],
    /// Of the ring; see `io.wait_budget_us`.
    pub(crate) wait_budget: Duration,
    pub(crate) sockets_max: u32,
    pub(crate) slots: u32,
    /// Where the workers' records go, if anywhere.
    pub(crate) recording: Option<Recording>,
    /// Who is banned from the first packet on.
    pub(crate) bans: Arc<Bans>,
    /// Who decides before they are recorded.
    pub(crate) policies: Arc<Policies>,
}

/// The running workers.
pub(crate) struct Workers {
    posts: Arc<[Post]>,
    threads: Vec<JoinHandle<Result<(), Failure>>>,
}

/// A driver on its way to its thread.
enum Driver {
    Ring(Box<RingBuilder>),
    Epoll(Box<Epoll>),
}

/// One worker on its way to its thread.
struct Seat {
    id: WorkerId,
    core: usize,
    options: ServerOptions,
    shared: Shared,
    mailbox: Mailbox,
    posts: Arc<[Post]>,
    cells: Arc<WorkerCells>,
    latency: LatencyRecorder,
    decide: Chain<Recorder>,
}

/// The two steps of a start, which all workers take together: when every ring is enabled nothing may
/// make another one, and only then does anybody listen.
struct Steps {
    report: mpsc::Sender<Result<(), Failure>>,
    go: mpsc::Receiver<()>,
}

impl Workers {
    /// Starts a worker per core; returns when all of them listen. `ended` hears of a worker that ends
    /// without being told to.
    pub(crate) fn start(plan: &Plan<'_>, metrics: &Metrics, ended: &UnboundedSender<()>) -> Result<Self, Failure> {
        let made: Result<Vec<_>, _> = plan.cores.iter().map(|_| make(plan)).collect();
        let (drivers, wakers): (Vec<_>, Vec<_>) = made?.into_iter().unzip();
        let mailboxes: Vec<_> = plan.cores.iter().map(|_| Mailbox::new()).collect();
        let posts = mailboxes.iter().zip(&wakers).map(|(mailbox, waker)| mailbox.post(waker.clone()));
        let posts: Arc<[Post]> = posts.collect();
        // A queue that nothing was put into yet has room.
        let is_told = posts.iter().all(|post| post.ban(plan.bans.clone(), Box::new(|()| {})));
        if !is_told {
            return Err(
                "the workers cannot be told of the bans; this is a fault of sluice: please report it".to_owned()
            );
        }
        let (report, reports) = mpsc::channel();
        let mut threads = Vec::new();
        let mut gates = Vec::new();
        for (i, ((driver, mailbox), waker)) in drivers.into_iter().zip(mailboxes).zip(wakers).enumerate() {
            let id = WorkerId(i as u8);
            let (cells, latency) = metrics.worker(id).ok_or("a worker without metrics")?;
            let options = ServerOptions { worker: id, ..plan.options.clone() };
            let (shared, posts, core) = (plan.shared.clone(), posts.clone(), plan.cores[i]);
            let recorder = Recorder::new(plan.recording.clone(), waker.clone());
            let decide = Chain::new(plan.policies.clone(), recorder, waker);
            let seat = Seat { id, core, options, shared, mailbox, posts, cells, latency, decide };
            let (gate, go) = mpsc::channel();
            let steps = Steps { report: report.clone(), go };
            let ended = ended.clone();
            let thread = Builder::new().name(format!("worker-{i}")).spawn(move || {
                let _tell = Ended(ended);
                seat.work(driver, steps)
            });
            threads.push(thread.map_err(|error| format!("no thread for worker {i}: {error}"))?);
            gates.push(gate);
        }
        await_all(&reports, threads.len())?;
        os::deny_new_rings().map_err(|error| {
            format!("seccomp cannot deny further rings ({error}): is no_new_privs or seccomp itself forbidden here?")
        })?;
        for gate in &gates {
            // A worker that has ended meanwhile is found out by its report.
            let _ = gate.send(());
        }
        await_all(&reports, threads.len())?;
        Ok(Workers { posts, threads })
    }

    /// Ways to write to each worker.
    pub(crate) fn posts(&self) -> Arc<[Post]> {
        self.posts.clone()
    }

    /// Tells every worker to stop, and waits until it has. One that hangs is left behind: the process ends.
    pub(crate) fn stop(self) -> Result<(), Failure> {
        let end = Instant::now() + WORKER_STOP_TIMEOUT;
        for post in self.posts.iter() {
            // A full queue is drained by a worker that lives.
            while !post.send(Envelope::Order(Order::Stop)) && Instant::now() < end {
                std::thread::sleep(STOP_LOOK);
            }
        }
        let join = |(worker, thread): (usize, JoinHandle<Result<(), Failure>>)| {
            while !thread.is_finished() {
                if Instant::now() >= end {
                    return Err(format!("worker {worker} hangs and does not stop: the process ends without it"));
                }
                std::thread::sleep(STOP_LOOK);
            }
            match thread.join() {
                Ok(result) => result,
                Err(_) => Err("a worker panicked; this is a fault of sluice: please report it".to_owned()),
            }
        };
        self.threads.into_iter().enumerate().try_for_each(join)
    }
}

/// Says that a worker has ended, however it did.
struct Ended(UnboundedSender<()>);

impl Drop for Ended {
    fn drop(&mut self) {
        // Nobody listens any more once the process itself is stopping.
        let _ = self.0.send(());
    }
}

impl Seat {
    fn work(self, driver: Driver, steps: Steps) -> Result<(), Failure> {
        os::pin(self.core)
            .map_err(|error| format!("worker {} cannot be kept on core {}: {error}", self.id.0, self.core))?;
        match driver {
            Driver::Ring(builder) => {
                let ring = driver::enable(*builder);
                steps.enabled(&ring)?;
                self.serve(ring?, steps)
            }
            Driver::Epoll(epoll) => {
                steps.enabled(&Ok(()))?;
                self.serve(*epoll, steps)
            }
        }
    }

    fn serve<I: Io>(self, io: I, steps: Steps) -> Result<(), Failure> {
        let listeners = self.options.listeners.clone();
        let rng = OsRng.unwrap_err();
        let parts = Parts {
            io,
            decide: self.decide,
            rng: rand_chacha_of(rng),
            options: self.options,
            shared: self.shared,
            mailbox: self.mailbox,
            posts: self.posts,
            cells: self.cells,
            latency: self.latency,
        };
        let worker = Worker::new(parts).map_err(|(listener, error)| {
            format!("cannot listen on {}: {error}", listeners[usize::from(listener.0)].address)
        });
        let mut worker = match worker {
            Ok(worker) => worker,
            Err(error) => {
                let _ = steps.report.send(Err(error.clone()));
                return Err(error);
            }
        };
        let _ = steps.report.send(Ok(()));
        worker.run().map_err(|error| format!("worker {}: {error}", self.id.0))
    }
}

impl Steps {
    /// Reports that the ring is enabled, or why not, and waits until every worker's is.
    fn enabled<T>(&self, result: &Result<T, Failure>) -> Result<(), Failure> {
        let report = match result {
            Ok(_) => Ok(()),
            Err(error) => Err(error.clone()),
        };
        let _ = self.report.send(report.clone());
        report?;
        self.go.recv().map_err(|_| "the start was given up".to_owned())
    }
}

fn rand_chacha_of(mut seed: impl rand_core::RngCore) -> rand_chacha::ChaCha12Rng {
    use rand_core::SeedableRng;
    rand_chacha::ChaCha12Rng::from_rng(&mut seed)
}

fn make(plan: &Plan<'_>) -> Result<(Driver, Waker), Failure> {
    match plan.choice {
        Choice::Ring(features) => {
            let (builder, waker) = driver::ring(features, plan.sockets_max, plan.slots, plan.wait_budget)?;
            Ok((Driver::Ring(Box::new(builder)), waker))
        }
        Choice::Epoll(_) => {
            let epoll = driver::epoll(plan.sockets_max, plan.slots, plan.disable)?;
            let waker = epoll.waker();
            Ok((Driver::Epoll(Box::new(epoll)), waker))
        }
    }
}

fn await_all(reports: &mpsc::Receiver<Result<(), Failure>>, n: usize) -> Result<(), Failure> {
    (0..n).try_for_each(|_| match reports.recv() {
        Ok(report) => report,
        Err(_) => Err("a worker ended while it started".to_owned()),
    })
}
