//! What administrators order of policies: to forget a person, to be asked again.

use std::sync::Arc;

use sluice_admin::{Caller, Told, WantedErasure, api};
use sluice_base::TenantId;
use sluice_config::Config;
use sluice_policy::{Erased, Forgotten};

use super::Policies;
use crate::records::desk::Desk;

/// Has the policies of a tenant forget a person, and writes into the audit that they were asked, without who it is.
pub(crate) async fn erase(
    policies: Arc<Policies>,
    desk: Arc<Desk>,
    caller: Caller,
    wanted: WantedErasure,
) -> Told<api::Erasure> {
    let WantedErasure { tenant, user } = wanted;
    tracing::info!(uid = caller.uid, tenant, "told to have policies forget a person");
    let of = tenant.clone();
    let erase = move || policies.host().map(|host| host.erase(&of, &user)).unwrap_or_default();
    let erased = tokio::task::spawn_blocking(erase).await;
    let erased = erased.map_err(|_| api::Problem::new(500, "not done", "a fault of this relay: ask again"))?;
    desk.note("plugin erase", names(tenant, &erased), Some(caller)).await;
    Ok(api::Erasure { plugins: erased.into_iter().map(told).collect() })
}

/// The tenant of that name, of those that there were since the start.
///
/// # Errors
/// There is none.
pub(crate) fn known(config: &Config, tenant: &str) -> Told<TenantId> {
    let detail = "`sluice plugin list` says for whom plugins decide";
    config.tenant(tenant).ok_or_else(|| api::Problem::new(404, "no such tenant", detail))
}

/// For the audit: whose person that was, and which plugins had to do with it.
fn names(tenant: String, erased: &[Erased]) -> Vec<String> {
    let name = |erased: &Erased| match erased.answer {
        Some(Err(_)) => format!("{} (failed)", erased.plugin),
        _ => erased.plugin.clone(),
    };
    std::iter::once(tenant).chain(erased.iter().map(name)).collect()
}

fn told(erased: Erased) -> api::Erased {
    let Erased { plugin, entries, left, answer } = erased;
    let (deleted, kept, failure) = match answer {
        None => (None, Vec::new(), None),
        Some(Ok(Forgotten { deleted, kept })) => (Some(u64::from(deleted)), kept, None),
        Some(Err(failure)) => (None, Vec::new(), Some(failure.name().to_owned())),
    };
    api::Erased { plugin, entries: entries as u64, left: left as u64, deleted, kept, failure }
}
