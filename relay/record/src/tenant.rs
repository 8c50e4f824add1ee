//! Whose records they are, and what is written of them.

use std::sync::Arc;

use sluice_base::TenantId;
use sluice_base::limits::IP_RETENTION_DAYS_MAX;
use sluice_privacy::Plan;
use sluice_privacy::plan::Leaves;
use sluice_privacy::schema::Destination;

/// One tenant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tenant {
    /// Its name.
    pub name: Arc<str>,
    /// Days for which its addresses are kept, where it says less than the relay.
    pub ip_retention_days: Option<u8>,
    /// What is written of each of its records.
    pub plan: Arc<Plan>,
}

/// The tenants, in the order of their ids.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantTable {
    /// Days for which addresses are kept unless the tenant says less; 0: never written.
    pub ip_retention_days: u8,
    /// Each of them.
    pub tenants: Vec<Arc<Tenant>>,
}

impl Tenant {
    /// One whose records are written as far as the relay's own rules go.
    pub fn new(name: &str, ip_retention_days: Option<u8>) -> Self {
        Tenant { name: Arc::from(name), ip_retention_days, plan: Arc::new(Plan::floor()) }
    }

    /// What is written of a record, by whose id samples are drawn. Nothing of one that the schema does not have.
    pub(crate) fn leaves(&self, destination: Destination, kind: &str, id: &[u8; 16]) -> Option<Leaves<'_>> {
        self.plan.leaves(destination, kind, id)
    }
}

impl TenantTable {
    /// Tenants that say nothing, and the longest retention.
    pub fn of(names: &[&str]) -> Self {
        let tenants = names.iter().map(|name| Arc::new(Tenant::new(name, None))).collect();
        TenantTable { ip_retention_days: IP_RETENTION_DAYS_MAX, tenants }
    }

    pub(crate) fn get(&self, id: TenantId) -> Option<Arc<Tenant>> {
        self.tenants.get(usize::from(id.0)).cloned()
    }

    /// How long the keys of each live.
    pub(crate) fn retentions(&self) -> Vec<(Arc<str>, u8)> {
        let days = |tenant: &Tenant| {
            let said = tenant.ip_retention_days.unwrap_or(self.ip_retention_days);
            said.min(tenant.plan.address_days())
        };
        self.tenants.iter().map(|tenant| (tenant.name.clone(), days(tenant))).collect()
    }
}
