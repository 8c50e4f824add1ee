//! The fuzzer's corpus, replayed, and the same files damaged.

use std::fs;
use std::path::Path;

use sluice_config::harness;

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/config");
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn the_corpus_holds() {
    let files = corpus();
    assert!(files.len() >= 9);
    files.iter().for_each(|bytes| harness::config(bytes));
}

#[test]
fn damaged_files_hold() {
    // Without a seed from outside: the same damage in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    for file in corpus() {
        for _ in 0..200 {
            let mut bytes = file.clone();
            for _ in 0..=random(4) {
                let (at, until) = (random(bytes.len()), random(bytes.len()));
                match random(4) {
                    0 if !bytes.is_empty() => bytes[at] = b" \"[]{}=.,#\n\\09-az"[random(17)],
                    1 => bytes.truncate(at),
                    2 if at < until => drop(bytes.drain(at..until)),
                    _ if at < until => {
                        let piece = bytes[at..until].to_vec();
                        let to = random(bytes.len());
                        bytes.splice(to..to, piece);
                    }
                    _ => {}
                }
            }
            harness::config(&bytes);
        }
    }
}
