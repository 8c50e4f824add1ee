//! Whether this relay is well: its workers advance, and what has to be written down is.

use sluice_admin::{Advancing, Health};
use sluice_record::plane::Handle;

/// Looks at all of it.
pub(crate) struct Wellbeing {
    workers: Box<dyn Health>,
    records: Option<Recording>,
}

struct Recording {
    handle: Handle,
    /// Without a record there is no allocation.
    required: bool,
}

impl Wellbeing {
    /// Of workers whose `progress` is a number for each that changes while it advances, and of a record plane, if there
    /// is one, with whether allocations wait for it.
    pub(crate) fn new(
        progress: impl Fn() -> Vec<u64> + Send + Sync + 'static,
        records: Option<(Handle, bool)>,
    ) -> Self {
        let records = records.map(|(handle, required)| Recording { handle, required });
        Wellbeing { workers: Box::new(Advancing::new(progress)), records }
    }

    /// What only another start of the process heals: for whoever feeds a watchdog. A full disk is none of it.
    pub(crate) fn needs_restart(&self) -> Option<String> {
        let ended = self.records.iter().filter(|records| records.handle.has_ended());
        let ended = ended.filter_map(|records| records.handle.fault().map(str::to_owned));
        join(self.workers.check().err().into_iter().chain(ended))
    }

    /// Everything that is wrong.
    pub(crate) fn faults(&self) -> Vec<String> {
        let workers = self.workers.check().err();
        let records = self.records.iter().filter_map(|records| records.handle.fault());
        let lines = workers.iter().flat_map(|why| why.lines().map(str::to_owned));
        lines.chain(records.map(str::to_owned)).collect()
    }
}

impl Health for Wellbeing {
    /// Whether clients are served: where allocations wait for a record, that includes the disk.
    fn check(&self) -> Result<(), String> {
        let stopped = self.records.iter().filter(|records| records.required || records.handle.has_ended());
        let stopped = stopped.filter_map(|records| records.handle.fault().map(str::to_owned));
        join(self.workers.check().err().into_iter().chain(stopped)).map_or(Ok(()), Err)
    }
}

fn join(faults: impl Iterator<Item = String>) -> Option<String> {
    let all: Vec<String> = faults.collect();
    (!all.is_empty()).then(|| all.join("\n"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sluice_record::plane::{self, PlaneOptions, TenantTable};
    use sluice_record::testing::{Folder, Machine};
    use sluice_record::vault::VaultOptions;

    use super::*;

    #[test]
    fn a_record_plane_that_has_ended_is_a_fault_that_a_restart_heals() {
        let folder = Folder::new("wellbeing");
        let vault = VaultOptions::new(folder.join("state"), Some(folder.join("keys")));
        let options = PlaneOptions::new(vault, TenantTable::of(&["main"]));
        let plane = plane::start(options, Arc::new(Machine::new(1))).unwrap();
        let handle = plane.handle.clone();
        let wellbeing = Wellbeing::new(|| vec![1], Some((handle, false)));
        assert_eq!((wellbeing.check(), wellbeing.needs_restart(), wellbeing.faults()), (Ok(()), None, Vec::new()));
        assert!(plane.stop());
        assert!(wellbeing.check().is_err_and(|why| why.contains("store of records has ended")));
        assert!(wellbeing.needs_restart().is_some());
        assert_eq!(wellbeing.faults().len(), 1);
    }
}
