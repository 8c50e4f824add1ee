//! Replays what fuzzing has found worth keeping.
#![allow(clippy::disallowed_methods, reason = "the corpus is read from files")]

use std::path::Path;

use sluice_turn::harness;

#[test]
fn turn_server() {
    replay("turn_server", harness::turn_server);
}

#[test]
fn rtp_quality() {
    replay("rtp_quality", harness::rtp_quality);
}

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).expect("the corpus is part of the repository") {
        let path = entry.unwrap().path();
        run(&std::fs::read(&path).unwrap());
        files += 1;
    }
    assert!(files > 20, "the corpus of {target} has {files} files");
}

#[test]
fn any_bytes_hold() {
    let mut rng = harness::model::Mix(11);
    for len in 0..600 {
        let mut bytes = vec![0; len];
        rand_core::RngCore::fill_bytes(&mut rng, &mut bytes);
        harness::turn_server(&bytes);
        harness::rtp_quality(&bytes);
    }
}
