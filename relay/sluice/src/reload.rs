//! Another configuration for a running relay: all of it, or nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sluice_admin::api;
use sluice_admin::api::Outcome;
use sluice_base::TenantId;
use sluice_base::limits::{RELOAD_CONFIRM_TIMEOUT, VERDICT_DEADLINE};
use sluice_base::message::{Envelope, Order};
use sluice_config::{Change, Config};
use sluice_net::os;
use sluice_record::plane::Handle;
use sluice_turn::{Ledger, Listener, RelayAddress, ServerOptions, Settings};
use sluice_worker::Post;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::cli::io_features;
use crate::logging::Logging;
use crate::policies::{Policies, Prepared};
use crate::{records, wiring};

/// How long to wait before a worker whose queue is full is told again.
const AGAIN: Duration = Duration::from_millis(20);

/// What a reload needs beside the file.
pub(crate) struct Reloader {
    /// The file; a relay for development has none.
    pub(crate) file: Option<PathBuf>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) relays: Vec<RelayAddress>,
    pub(crate) posts: Arc<[Post]>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) logging: Logging,
    /// The record plane, if there is one.
    pub(crate) records: Option<Handle>,
    pub(crate) policies: Arc<Policies>,
    /// Workers that have not yet taken over what they were sent.
    pub(crate) unconfirmed: Arc<AtomicUsize>,
}

/// A configuration that may come into force.
pub(crate) struct Candidate {
    config: Config,
    changes: Vec<Change>,
    policies: Prepared,
}

/// A reload under way: what to answer, once the workers have confirmed.
pub(crate) struct Sent {
    answer: api::Reload,
    confirmations: Vec<oneshot::Receiver<()>>,
}

impl Reloader {
    /// Puts a configuration in force in place of `running` if that can be done as a whole.
    ///
    /// # Errors
    /// Why everything stays as it is.
    pub(crate) fn put(&self, candidate: Candidate, running: &mut Config) -> Result<Sent, api::Reload> {
        let Candidate { config, changes, policies } = candidate;
        let warnings = config.warnings.iter().cloned().chain(policies.faults()).collect();
        let answer = api::Reload {
            outcome: if changes.is_empty() { Outcome::Unchanged } else { Outcome::Applied },
            changes: changes.into_iter().map(told).collect(),
            error: None,
            warnings,
        };
        let confirmations = if answer.changes.is_empty() { Vec::new() } else { self.apply(&config, policies)? };
        *running = config;
        Ok(Sent { answer, confirmations })
    }

    /// The file, unless it is wrong or cannot come into force as a whole. Plugins are compiled, which may take many
    /// seconds: a thread of its own waits for it.
    ///
    /// # Errors
    /// Why everything stays as it is.
    pub(crate) async fn read(self: Arc<Self>, running: Config) -> Result<Candidate, api::Reload> {
        if self.unconfirmed.load(Ordering::Acquire) > 0 {
            let error = "see `faults` of the status, and try again";
            return Err(refused(Outcome::Busy, Vec::new(), Some(error.to_owned())));
        }
        let read = tokio::task::spawn_blocking(move || self.candidate(&running)).await;
        read.unwrap_or_else(|_| Err(refused(Outcome::Invalid, Vec::new(), Some("a fault of this relay".to_owned()))))
    }

    fn candidate(&self, running: &Config) -> Result<Candidate, api::Reload> {
        let invalid = |error: String| refused(Outcome::Invalid, Vec::new(), Some(error));
        let Some(file) = &self.file else {
            return Err(invalid("this relay was started without a configuration: there is nothing to read".to_owned()));
        };
        let mut config = Config::load(file, &io_features()).map_err(|error| invalid(error.to_string()))?;
        let places = config.keep_tenant_places(running);
        let mut changes = running.changes(&config);
        places.map_err(|error| refused(Outcome::NeedsRestart, changes.clone(), Some(error)))?;
        if changes.iter().any(|change| change.restart) {
            return Err(refused(Outcome::NeedsRestart, changes, None));
        }
        let policies = self.policies.prepare(&config);
        let policies = policies.map_err(|error| refused(Outcome::Invalid, changes.clone(), Some(error)))?;
        changes.extend(self.policies.changes(&policies));
        Ok(Candidate { config, changes, policies })
    }

    /// From here on nothing can be refused any more.
    fn apply(&self, config: &Config, policies: Prepared) -> Result<Vec<oneshot::Receiver<()>>, api::Reload> {
        let local = os::local_addresses();
        let unread = |error| format!("the machine's addresses cannot be read: {error}");
        let local = local.map_err(|error| refused(Outcome::Invalid, Vec::new(), Some(unread(error))))?;
        let settings = Arc::new(Settings::new(self.options(config, &local)));
        let (total, tenants) = wiring::ledger_limits(config);
        // Workers refuse users of tenants that the ledger does not have.
        self.ledger.set_limits(total, &tenants);
        self.logging.set(config.log.level);
        let tenants = self.policies.apply(policies);
        self.record(config);
        let sent = self.posts.iter().map(|post| self.send(post.clone(), settings.clone())).collect();
        self.review(tenants);
        Ok(sent)
    }

    /// Has records written by the plans in force.
    pub(crate) fn record(&self, config: &Config) {
        if let Some(records) = &self.records {
            records.configure(records::tenants(config, |tenant| self.policies.plan(tenant)));
        }
    }

    /// Has every worker ask again about all that lives of these tenants, and once more when nothing can be under way
    /// any longer that was decided before.
    pub(crate) fn review(&self, tenants: Vec<TenantId>) {
        if tenants.is_empty() {
            return;
        }
        for post in self.posts.iter() {
            let (post, tenants) = (post.clone(), tenants.clone());
            tokio::spawn(async move {
                for pause in [Duration::ZERO, VERDICT_DEADLINE * 2] {
                    sleep(pause).await;
                    for tenant in &tenants {
                        while !post.send(Envelope::Order(Order::Review(*tenant))) {
                            sleep(AGAIN).await;
                        }
                    }
                }
            });
        }
    }

    fn options(&self, config: &Config, local: &[std::net::IpAddr]) -> ServerOptions {
        wiring::options(config, self.listeners.clone(), self.relays.clone(), local, self.posts.len() as u8)
    }

    /// Sends a worker its settings, however long it takes.
    fn send(&self, post: Post, settings: Arc<Settings>) -> oneshot::Receiver<()> {
        let (confirm, confirmed) = oneshot::channel();
        let unconfirmed = self.unconfirmed.clone();
        unconfirmed.fetch_add(1, Ordering::AcqRel);
        tokio::spawn(async move {
            let taken = loop {
                let (answer, answered) = oneshot::channel();
                let tell = move |()| {
                    let _ = answer.send(());
                };
                if post.configure(settings.clone(), Box::new(tell)) {
                    break answered.await;
                }
                sleep(AGAIN).await;
            };
            unconfirmed.fetch_sub(1, Ordering::AcqRel);
            // A worker that has ended takes nothing over, and the relay ends with it.
            if taken.is_ok() {
                let _ = confirm.send(());
            }
        });
        confirmed
    }
}

impl Sent {
    /// The answer, when every worker has confirmed or the time for that is over.
    pub(crate) async fn confirmed(self) -> api::Reload {
        let Sent { mut answer, confirmations } = self;
        let all = async {
            for confirmation in confirmations {
                // A worker that is gone takes nothing over: that is told by its end.
                let _ = confirmation.await;
            }
        };
        if timeout(RELOAD_CONFIRM_TIMEOUT, all).await.is_err() {
            answer.outcome = Outcome::Unconfirmed;
            answer.error =
                Some("a worker has not confirmed yet: it takes the configuration over when it goes on".into());
        }
        answer
    }
}

fn refused(outcome: Outcome, changes: Vec<Change>, error: Option<String>) -> api::Reload {
    api::Reload { outcome, changes: changes.into_iter().map(told).collect(), error, warnings: Vec::new() }
}

fn told(change: Change) -> api::Change {
    api::Change { key: change.key, restart: change.restart }
}

/// What came of it, in words.
pub(crate) fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Applied => "applied, on every worker",
        Outcome::Unchanged => "nothing has changed",
        Outcome::Unconfirmed => "sent, and not yet confirmed by every worker",
        Outcome::NeedsRestart => "nothing is applied, since some of this takes a restart",
        Outcome::Invalid => "nothing is applied, since the configuration has mistakes",
        Outcome::Busy => "nothing is applied, since a worker still has the reload before to take over",
    }
}

/// What a person reads of it.
pub(crate) fn text(reload: &api::Reload) -> String {
    let mut text = outcome(reload.outcome).to_owned();
    if !reload.changes.is_empty() || reload.error.is_some() {
        text.push(':');
    }
    for change in &reload.changes {
        text += &format!("\n  {}{}", change.key, if change.restart { "   (takes a restart)" } else { "" });
    }
    for line in reload.error.iter().flat_map(|error| error.lines()) {
        text += &format!("\n  {line}");
    }
    for warning in &reload.warnings {
        text += &format!("\nwarning: {warning}");
    }
    text
}
