//! Replays what fuzzing has found worth keeping.
#![allow(clippy::disallowed_methods, reason = "the crate opens no file, this test does")]

use std::path::Path;

use sluice_wire::harness;

#[test]
fn stun() {
    replay("stun", harness::stun);
}

#[test]
fn channel_data() {
    replay("channel_data", harness::channel_data);
}

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).expect("the corpus is part of the repository") {
        let path = entry.unwrap().path();
        run(&std::fs::read(&path).unwrap());
        files += 1;
    }
    assert!(files > 0, "the corpus of {target} is empty");
}
