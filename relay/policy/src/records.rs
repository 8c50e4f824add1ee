//! Plans of records: what a plugin says of every field of every kind, as the record plane carries it out.
//!
//! **A plan that cannot be had is the strictest one**: what no plan may drop is written, and nothing else.

use std::sync::Arc;
use std::time::Instant;

use sluice_privacy::Plan;
use sluice_privacy::plan::{Action, Prefix, Proposal, Rule, Window};
use sluice_privacy::schema::{Kind, Sensitivity};

use crate::bindings::exports::sluice::policy::log_plan as wit;
use crate::bindings::sluice::policy::types::{self, CallContext, Occasion};
use crate::failure::Failure;
use crate::guest::{Context, unix_seconds};
use crate::hook::Hook;
use crate::host::Mode;
use crate::plugin::{Plugin, no_hook};
use crate::scrub;
use crate::stats::Outcome;

/// What is written of one tenant's records.
#[derive(Clone)]
pub(crate) struct BoundPlan {
    pub(crate) plan: Arc<Plan>,
    /// Why a plugin's plan could not be had, in words.
    pub(crate) faults: Vec<String>,
}

impl BoundPlan {
    /// The stricter of both.
    pub(crate) fn both(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => {
                let faults = [one.faults, other.faults].concat();
                Some(BoundPlan { plan: Arc::new(one.plan.and(&other.plan)), faults })
            }
            (one, other) => one.or(other),
        }
    }
}

/// One plugin's plan for one tenant, counted and told; none where it does not hold.
pub(crate) fn plan(plugin: &Plugin, mode: Mode, context: &Arc<Context>, deadline: Instant) -> Option<BoundPlan> {
    let (began, dry_run) = (Instant::now(), mode == Mode::DryRun);
    let asked = ask(plugin, context, deadline);
    let outcome = if asked.is_ok() { Outcome::Allow } else { Outcome::Failed };
    plugin.stats.verdict(Hook::LogPlan, outcome, dry_run, began.elapsed());
    let bound = match asked {
        Ok(plan) => BoundPlan { plan: Arc::new(plan), faults: Vec::new() },
        Err((failure, error)) => {
            plugin.stats.failure(failure);
            let (name, tenant, error) = (&*plugin.name, &*context.tenant, scrub::line(&error));
            let then = match dry_run {
                false => "until it has one, nothing is written of them but what no plan may drop",
                true => "a dry run, so that they are written as without it",
            };
            let fault = format!("plugin {name} has no plan for the records of {tenant} ({failure}: {error}): {then}");
            tracing::warn!(plugin = name, tenant, reason = failure.name(), "{fault}");
            BoundPlan { plan: Arc::new(Plan::strictest()), faults: vec![fault] }
        }
    };
    (!dry_run).then_some(bound)
}

fn ask(plugin: &Plugin, context: &Arc<Context>, deadline: Instant) -> Result<Plan, (Failure, String)> {
    let asked = CallContext {
        tenant: context.tenant.to_string(),
        now: unix_seconds() * 1000,
        request_id: format!("records.{}", context.tenant),
        occasion: Occasion::Initial,
        attributes: Vec::new(),
    };
    let guest = &plugin.guest;
    let (kinds, _) = guest.enter(context, deadline, false, |store, instance| {
        let hook = guest.indices.log_plan.as_ref().ok_or_else(no_hook)?.load(&mut *store, instance)?;
        hook.call_plan(&mut *store, &asked, &schemas())
    })?;
    let proposals = kinds.into_iter().map(proposal).collect::<Result<Vec<_>, _>>()?;
    Plan::of(&proposals).map_err(|error| (Failure::Answer, error.to_string()))
}

/// Every kind that the relay writes.
fn schemas() -> Vec<wit::Schema> {
    let schema = |kind: &Kind| wit::Schema {
        kind: kind.plan_name(),
        retention_class: kind.class.name().to_owned(),
        fields: kind.fields.iter().map(field).collect(),
        attributes: Vec::new(),
    };
    Kind::TABLE.iter().map(schema).collect()
}

fn field(field: &sluice_privacy::schema::Field) -> wit::Field {
    let sensitivity = match field.form.sensitivity() {
        Sensitivity::None => wit::Sensitivity::None,
        Sensitivity::SubjectId => wit::Sensitivity::SubjectId,
        Sensitivity::IpAddress => wit::Sensitivity::IpAddress,
        Sensitivity::Time => wit::Sensitivity::Time,
        Sensitivity::FreeText => wit::Sensitivity::FreeText,
        Sensitivity::Composite => wit::Sensitivity::Composite,
    };
    wit::Field { name: field.name.to_owned(), sensitivity, mandatory: !field.planned }
}

fn proposal(plan: wit::KindPlan) -> Result<Proposal, (Failure, String)> {
    if !plan.obligations.is_empty() {
        return Err((Failure::Obligation, "the plan has an obligation that this host does not know".to_owned()));
    }
    if plan.per_record {
        return Err((
            Failure::Answer,
            "the plan wants a second look at records, which this host does not take".to_owned(),
        ));
    }
    let one_in = match plan.sampling {
        wit::Sampling::All => 1,
        wit::Sampling::OneIn(n) => n,
        wit::Sampling::Never => 0,
    };
    let fields = plan.fields.into_iter().map(|field| (field.name, rule(field.durable, field.expiring))).collect();
    Ok(Proposal { kind: plan.kind, fields, one_in, retention: plan.retention })
}

fn rule(durable: types::Action, expiring: Option<wit::Expiring>) -> Rule {
    Rule { durable: action(durable), expiring: expiring.map(|expiring| (action(expiring.action), expiring.after)) }
}

fn action(told: types::Action) -> Action {
    match told {
        types::Action::Drop => Action::Drop,
        types::Action::Replace(text) => Action::Replace(text),
        types::Action::Pseudonymise(pseudonym) => {
            let window = match pseudonym.window {
                types::Window::Hour => Window::Hour,
                types::Window::Day => Window::Day,
                types::Window::Week => Window::Week,
            };
            Action::Pseudonymise(window, pseudonym.prefix.map(prefix))
        }
        types::Action::TruncateAddress(bits) => Action::TruncateAddress(prefix(bits)),
        types::Action::TruncateTime(seconds) => Action::TruncateTime(seconds),
        types::Action::Keep => Action::Keep,
    }
}

fn prefix(bits: types::Prefix) -> Prefix {
    Prefix { v4: bits.v4, v6: bits.v6 }
}
