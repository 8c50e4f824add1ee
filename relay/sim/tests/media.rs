//! Media whose loss, order and copies are known, and what the relay says of it.

use sluice_base::stats::Leg;
use sluice_sim::{MediaTruth, media};

/// Seeds of the gate.
const SEEDS: u64 = 40;

#[test]
fn what_the_relay_says_of_media_is_what_the_way_did() {
    let mut all = MediaTruth::default();
    for seed in 1..=SEEDS {
        let truth = media(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        for leg in Leg::ALL {
            let of = truth[*leg as usize];
            assert_eq!(of.received + of.lost, of.expected);
            all.lost += of.lost;
            all.late += of.late;
            all.duplicate += of.duplicate;
            all.received += of.received;
        }
    }
    let everything_happened = [all.received / 100, all.lost, all.late, all.duplicate].iter().all(|n| *n > 1000);
    assert!(everything_happened, "{all:?}");
}
