//! Whose media it is: the tenants that have a label, and the others.

use std::sync::Arc;

use sluice_base::TenantId;
use sluice_base::stats::Leg;
use sluice_base::stats::media::{Media, MediaCounter, media_place, media_places, tenants_told_apart};

use crate::cells::WorkerCells;

/// The label of tenants beyond the first [`TENANT_LABELS_MAX`](sluice_base::limits::TENANT_LABELS_MAX).
const OTHERS: &str = "other";

/// The values of the label `tenant`.
#[derive(Debug)]
pub(crate) struct Tenants {
    /// How many [`Media`] each worker has.
    places: usize,
    /// A label, and which tenants it stands for.
    rows: Vec<(String, Vec<TenantId>)>,
    /// The last row is shown only where it has something to show.
    others_if_seen: bool,
}

/// What was seen of the media of one label on one leg, by all workers.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Of the tenant and of the leg.
    pub(crate) labels: [String; 2],
    pub(crate) media: Media,
}

impl Tenants {
    /// Of these names, by [`TenantId`].
    pub(crate) fn new(names: &[String]) -> Self {
        let apart = tenants_told_apart(names.len());
        let others = TenantId(apart as u16);
        let mut rows: Vec<_> =
            names.iter().take(apart).zip(0..).map(|(name, id)| (name.clone(), vec![TenantId(id)])).collect();
        let mut others_if_seen = false;
        match rows.iter_mut().find(|(name, _)| name == OTHERS) {
            Some((_, tenants)) => tenants.push(others),
            None => {
                others_if_seen = apart == names.len() && apart > 0;
                rows.push((OTHERS.to_owned(), vec![others]));
            }
        }
        Tenants { places: media_places(names.len()), rows, others_if_seen }
    }

    /// What all workers have published.
    pub(crate) fn seen(&self, workers: &[Arc<WorkerCells>]) -> Vec<Seen> {
        let last = self.rows.len() - 1;
        let of = |leg: &Leg, (label, tenants): &(String, Vec<TenantId>)| {
            let places = tenants.iter().map(|tenant| media_place(self.places, *tenant, *leg));
            let media = places.flat_map(|place| workers.iter().map(move |cells| cells.media(place)));
            Seen { labels: [label.clone(), leg.text().to_owned()], media: media.fold(Media::default(), sum) }
        };
        let hidden =
            |row: usize, seen: &Seen| row == last && self.others_if_seen && seen.media.value(MediaCounter::Bytes) == 0;
        let rows = self.rows.iter().enumerate();
        rows.flat_map(|(i, row)| Leg::ALL.iter().map(move |leg| (i, of(leg, row))))
            .filter(|(i, seen)| !hidden(*i, seen))
            .map(|(_, seen)| seen)
            .collect()
    }
}

fn sum(a: Media, b: Media) -> Media {
    Media::from_words(std::array::from_fn(|i| a.words()[i] + b.words()[i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(names: &[&str], seen: &[(u16, u64)]) -> Vec<(String, u64)> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut media = vec![Media::default(); media_places(names.len())];
        for (tenant, bytes) in seen {
            let place = media_place(media.len(), TenantId(*tenant), Leg::Client);
            media[place].add(MediaCounter::Bytes, *bytes);
        }
        let workers = [(); 2].map(|()| Arc::new(WorkerCells::new(names.len())));
        workers.iter().for_each(|cells| cells.publish_media(&media));
        let seen = Tenants::new(&names).seen(&workers).into_iter();
        seen.filter(|seen| seen.labels[1] == "client")
            .map(|seen| (seen.labels[0].clone(), seen.media.value(MediaCounter::Bytes)))
            .collect()
    }

    #[test]
    fn each_tenant_has_a_label_and_all_workers_are_summed() {
        let found = labels(&["a", "b"], &[(1, 5)]);
        assert_eq!(found, [("a".to_owned(), 0), ("b".to_owned(), 10)]);
    }

    #[test]
    fn whoever_has_no_label_is_one_of_the_others() {
        assert_eq!(labels(&["a"], &[(7, 5)]), [("a".to_owned(), 0), ("other".to_owned(), 10)]);
        assert_eq!(labels(&[], &[]), [("other".to_owned(), 0)]);
    }

    #[test]
    fn a_tenant_that_is_called_other_shares_its_label() {
        assert_eq!(labels(&["other"], &[(0, 3), (7, 5)]), [("other".to_owned(), 16)]);
    }
}
