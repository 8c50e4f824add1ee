//! The life of the process.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rand_core::{OsRng, TryRngCore};
use sluice_admin::{Health, Server};
use sluice_base::Secret;
use sluice_base::io::{OpenSpec, SocketRole};
use sluice_base::limits::WORKERS_MAX;
use sluice_config::Config;
use sluice_metrics::{BuildInfo, Metrics};
use sluice_net::os;
use sluice_turn::{Listener, LivePorts, RelayAddress, Shared};

use crate::banner::{self, Start};
use crate::cli::{Failure, RunArgs, io_features};
use crate::development::Credentials;
use crate::driver::Choice;
use crate::life::{Facts, Life, Lister, Reloaded, Signals, Sources};
use crate::logging::Logging;
use crate::policies::{Keeper, Policies};
use crate::pseudonym::Pseudonyms;
use crate::records::desk::{Desk, Expiries};
use crate::records::{Directories, Records};
use crate::reload::Reloader;
use crate::service::Service;
use crate::wellbeing::Wellbeing;
use crate::workers::{Plan, Workers};
use crate::{development, life, records as recording, wiring};

/// Open files left over where their limit decides how many allocations a development start allows.
const FILES_SPARE: u32 = 256;

/// Runs until it is told to end.
pub(crate) fn run(args: &RunArgs) -> Result<(), Failure> {
    os::forbid_dumps().map_err(|error| format!("core dumps cannot be switched off: {error}"))?;
    let local = os::local_addresses().map_err(|error| format!("the machine's addresses cannot be read: {error}"))?;
    let (mut config, credentials) = configured(args, &local)?;
    let pseudonyms = Arc::new(Pseudonyms::new()?);
    let logging = Logging::start(args.log_level, config.log, pseudonyms.shower());
    let listeners = wiring::listeners(&config, &local)?;
    let relays = wiring::relays(&config, &listeners)?;
    let cores = cores(&config)?;
    if credentials.is_some() {
        fit_files(&mut config, listeners.len(), &relays, cores.len());
    }
    check_files(&config, listeners.len(), &relays, cores.len())?;
    listeners.iter().try_for_each(check_listener)?;
    relays.iter().try_for_each(|relay| check_relay(relay, &local))?;
    let choice = Choice::of(&config)?;
    let advice = advice(&config, &choice, &listeners);

    let started_unix_seconds = os::now().unix_seconds;
    let build = build(&config, &choice, started_unix_seconds);
    let metrics = Arc::new(Metrics::new(cores.len(), build).map_err(|error| error.to_string())?);
    // Before anybody listens: keys whose end came while nobody looked are gone now.
    let (records, expiries) = record(&config, &metrics, &pseudonyms)?;
    let shared = shared(&config, relays.len())?;
    let policies = policies(&config, &shared, &metrics, records.as_ref())?;
    let plan = Plan {
        options: wiring::options(&config, listeners.clone(), relays.clone(), &local, cores.len() as u8),
        shared,
        cores: &cores,
        choice: &choice,
        disable: &config.io.disable,
        wait_budget: Duration::from_micros(u64::from(config.io.wait_budget_us)),
        sockets_max: wiring::sockets_per_worker(&config, listeners.len(), &relays),
        slots: wiring::slots(&config, cores.len()),
        recording: records.as_ref().map(Records::recording),
        bans: records.as_ref().map_or(Ok(Arc::default()), Records::bans)?,
        policies: policies.clone(),
    };
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("the control plane cannot start: {error}"))?;
    runtime.block_on(async {
        let signals = Signals::new()?;
        let watched = metrics.clone();
        let handle = records.as_ref().map(Records::handle);
        let asked = records.as_ref().map(|records| (records.handle(), records.is_required()));
        let health = Arc::new(Wellbeing::new(move || watched.publications(), asked));
        let admin = admin(&config, &metrics, health.clone()).await?;
        let socket = life::socket_path(&config);
        let (control, commands) = life::control(socket.as_deref())?;
        let (ended, ends) = tokio::sync::mpsc::unbounded_channel();
        let workers = Workers::start(&plan, &metrics, &ended)?;
        let metrics_at = admin.as_ref().map(Server::address);
        let (stop, stops) = tokio::sync::watch::channel(());
        let admin = admin.map(|admin| tokio::spawn(admin.serve(gone(stops.clone()))));
        let control = control.map(|control| tokio::spawn(control.serve(gone(stops))));
        let lister = Arc::new(Lister::new(workers.posts(), pseudonyms, &config));
        let desk = Desk::start(handle.clone(), lister.clone(), config.privacy.lookup, expiries).await?;
        let mut life = Life {
            facts: Facts {
                config: args.config.as_ref().map(|file| std::path::absolute(file).unwrap_or_else(|_| file.clone())),
                started_unix_seconds,
                driver: choice.name(),
                cores: cores.clone(),
                listeners: listeners.clone(),
                metrics: metrics_at,
                allocations_limit: config.limits.allocations(),
                records: records.as_ref().map(Records::facts).unwrap_or_default(),
            },
            config: config.clone(),
            metrics: metrics.clone(),
            health,
            ledger: plan.shared.ledger.clone(),
            lister,
            desk,
            policies: policies.clone(),
            drain: None,
            terminated: false,
            reloader: Arc::new(Reloader {
                file: args.config.clone(),
                listeners: listeners.clone(),
                relays: relays.clone(),
                posts: workers.posts(),
                ledger: plan.shared.ledger.clone(),
                logging,
                records: handle,
                policies: policies.clone(),
                unconfirmed: Arc::default(),
            }),
            last_reload: None,
            service: Service::new(),
            reloaded: Reloaded::new(),
            looking: false,
        };
        let mut told = records.as_ref().map(Records::told).unwrap_or_default();
        told.extend(policies.told());
        let start = Start {
            listeners: &listeners,
            choice: &choice,
            cores: &cores,
            slots: plan.slots,
            metrics: metrics_at,
            control: socket.as_deref(),
            records: &told,
            advice: &advice,
        };
        banner::say(&start.text());
        if let Some(credentials) = &credentials {
            banner::say(&banner::development(&listeners, credentials, args.print_credentials));
        }
        tracing::info!(driver = choice.name(), workers = cores.len(), "started");
        life.run(Sources { signals, commands, ends }).await;
        end(workers, records, stop, admin.into_iter().chain(control)).await
    })
}

/// Ends the workers, then what keeps records, then those who listen.
async fn end(
    workers: Workers,
    records: Option<Records>,
    stop: tokio::sync::watch::Sender<()>,
    listeners: impl Iterator<Item = tokio::task::JoinHandle<()>>,
) -> Result<(), Failure> {
    let stopped = workers.stop();
    // The ends of all sessions are said by now.
    let written = records.map_or(Ok(()), Records::stop);
    drop(stop);
    for listener in listeners {
        // What a task that panicked had to say may hold personal data.
        listener.await.map_err(|_| "an HTTP listener panicked; this is a fault of sluice: please report it")?;
    }
    tracing::info!("stopped");
    stopped.and(written)
}

/// The configuration; without a file that of development, with the credentials for it.
fn configured(args: &RunArgs, local: &[IpAddr]) -> Result<(Config, Option<Credentials>), Failure> {
    match &args.config {
        Some(file) => Ok((Config::load(file, &io_features()).map_err(|error| error.to_string())?, None)),
        None => {
            let (config, credentials) = development::start(args, local, os::now().unix_seconds)?;
            Ok((config, Some(credentials)))
        }
    }
}

/// Starts the record plane, if there is to be one, and shows it to whoever asks.
fn record(config: &Config, metrics: &Metrics, pseudonyms: &Pseudonyms) -> Result<(Option<Records>, Expiries), Failure> {
    let records = Records::start(config, &Directories::of_environment())?;
    let expiries = Expiries::default();
    if let Some(records) = &records {
        pseudonyms.use_vault(records.vault());
        records.show(metrics, expiries.clone());
    }
    Ok((records, expiries))
}

/// Starts the policies. Their plans of records hold before anybody tells something that is recorded, and their words
/// for the audit have a place.
fn policies(
    config: &Config,
    shared: &Shared,
    metrics: &Metrics,
    records: Option<&Records>,
) -> Result<Arc<Policies>, Failure> {
    let captures = Keeper::start(config, &Directories::of_environment(), || os::now().unix_seconds)?;
    let policies = Policies::serve(config, shared.ledger.clone(), captures)?;
    policies.show(metrics, || os::now().unix_seconds);
    if let Some(records) = records {
        records.handle().configure(recording::tenants(config, |tenant| policies.plan(tenant)));
        policies.record(records.handle());
    }
    Ok(policies)
}

/// What is fixed for the life of the process.
fn build(config: &Config, choice: &Choice, start_unix_seconds: u64) -> BuildInfo {
    BuildInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        driver: choice.name().to_owned(),
        start_unix_seconds,
        allocations_limit: config.limits.allocations(),
        tenants: config.tenants.iter().map(|tenant| tenant.name.clone()).collect(),
    }
}

/// Ready when the sender is gone.
async fn gone(mut sender: tokio::sync::watch::Receiver<()>) {
    while sender.changed().await.is_ok() {}
}

/// The cores of the workers: one each, as many as configured or allowed.
pub(crate) fn cores(config: &Config) -> Result<Vec<usize>, Failure> {
    let mut cores = os::cores().map_err(|error| format!("the allowed cores cannot be read: {error}"))?;
    if let Some(workers) = config.workers {
        if workers.get() > cores.len() {
            return Err(format!(
                "workers = {workers}, but this process may use {} cores: lower it, or widen the process's CPU affinity",
                cores.len()
            ));
        }
        cores.truncate(workers.get());
    }
    cores.truncate(WORKERS_MAX);
    Ok(cores)
}

/// Nobody has configured a number of allocations: as many as this shell's limit on open files allows.
fn fit_files(config: &mut Config, listeners: usize, relays: &[RelayAddress], workers: usize) {
    let needed = wiring::files_needed(config, listeners, relays, workers);
    let limit = os::raise_open_files(needed).unwrap_or(0);
    if limit < needed {
        let allocations = u64::from(config.limits.allocations()) * limit / needed;

        let fitting = allocations.saturating_sub(u64::from(FILES_SPARE)) as u32;
        config.limits.total.allocations = Some(fitting.max(1));
    }
}

fn check_files(config: &Config, listeners: usize, relays: &[RelayAddress], workers: usize) -> Result<(), Failure> {
    let needed = wiring::files_needed(config, listeners, relays, workers);
    let limit = os::raise_open_files(needed).map_err(|error| format!("the limit on open files: {error}"))?;
    if limit < needed {
        return Err(format!(
            "limits.allocations = {} needs {needed} open files, and the limit is {limit}: \
             raise it (LimitNOFILE={needed} in a unit, ulimit -n in a shell) or lower limits.allocations",
            config.limits.allocations()
        ));
    }
    Ok(())
}

fn check_listener(listener: &Listener) -> Result<(), Failure> {
    let address = listener.address;
    sluice_net::listener_free(address).map_err(|error| {
        format!("cannot listen on {address}: {error}; stop what has it (`ss -ulnp`), or name another address")
    })
}

fn check_relay(relay: &RelayAddress, local: &[IpAddr]) -> Result<(), Failure> {
    let address = relay.address;
    // All of 127.0.0.0/8 is this machine's, though an interface names one of it.
    if local.contains(&address) || address.is_loopback() {
        return Ok(());
    }
    Err(format!(
        "relay address {address} is not one of this machine: give its own address, and the one that others see as \
         external_address"
    ))
}

fn shared(config: &Config, relays: usize) -> Result<Shared, Failure> {
    let mut nonce_key = [0; 32];
    OsRng.try_fill_bytes(&mut nonce_key).map_err(|error| format!("the system gave no randomness: {error}"))?;
    Ok(Shared {
        nonce_key: Secret::new(nonce_key),
        live: Arc::new(LivePorts::new(relays)),
        ledger: wiring::ledger(config),
    })
}

/// What this machine would need to be faster.
fn advice(config: &Config, choice: &Choice, listeners: &[Listener]) -> Vec<String> {
    let mut advice = Vec::new();
    if let Choice::Epoll(Some(_)) = choice {
        advice.push("io_uring (see the line above)".to_owned());
    }
    if let Some(listener) = listeners.first()
        && let Some(short) = short_buffers(config, listener.address)
    {
        advice.push(short);
    }
    if config.io.receive_buffer_bytes == 0 {
        advice
            .push("bursts: io.receive_buffer_bytes = 1048576, with sysctl net.core.rmem_max at least that".to_owned());
    }
    advice
}

fn short_buffers(config: &Config, local: SocketAddr) -> Option<String> {
    let (receive_buffer_bytes, send_buffer_bytes) = (config.io.receive_buffer_bytes, config.io.send_buffer_bytes);
    let local = SocketAddr::new(local.ip(), 0);
    let spec = OpenSpec { local, role: SocketRole::Relay, receive_buffer_bytes, send_buffer_bytes };
    let granted = sluice_net::buffers_granted(&spec).ok()?;
    let short = granted.receive_bytes < receive_buffer_bytes || granted.send_bytes < send_buffer_bytes;
    short.then(|| {
        format!(
            "the kernel grants sockets {} and {} bytes of receive and send buffer, less than configured: \
             raise net.core.rmem_max and net.core.wmem_max",
            granted.receive_bytes, granted.send_bytes
        )
    })
}

/// The HTTP listener, if one is configured.
async fn admin(config: &Config, metrics: &Arc<Metrics>, health: Arc<impl Health>) -> Result<Option<Server>, Failure> {
    let Some(listen) = config.metrics.listen else {
        return Ok(None);
    };
    let server = Server::bind(listen, metrics.clone(), move || health.check()).await;
    server.map(Some).map_err(|error| error.to_string())
}
