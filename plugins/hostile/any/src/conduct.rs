//! What can be done to a host.

use std::hint::black_box;

use sluice_plugin_sdk::document;
use sluice_plugin_sdk::host::{self, Level};
use sluice_plugin_sdk::types::{Attribute, AttributeValue};

/// How an answer is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lie {
    /// It cannot be meant.
    Absurd,
    /// It asks for what no host knows.
    Oblige,
    /// It is too long.
    Huge,
}

/// What the settings name.
#[derive(Clone, Copy)]
enum Conduct {
    Spin,
    Allocate,
    Recurse,
    Trap,
    Flood,
    Lie(Lie),
}

const WORDS: &[(&str, Conduct)] = &[
    ("spin", Conduct::Spin),
    ("allocate", Conduct::Allocate),
    ("recurse", Conduct::Recurse),
    ("trap", Conduct::Trap),
    ("flood", Conduct::Flood),
    ("lie", Conduct::Lie(Lie::Absurd)),
    ("oblige", Conduct::Lie(Lie::Oblige)),
    ("huge", Conduct::Lie(Lie::Huge)),
];

/// Lines and counts of a flood.
const FLOOD: u32 = 100_000;

/// Bytes of a huge answer.
const HUGE: usize = 16 << 20;

/// Behaves as the settings say for this function; the lie that its answer has to be.
pub(crate) fn at(function: &str) -> Option<Lie> {
    behave(&host::settings(), function)
}

/// The same by a document at hand.
pub(crate) fn behave(document: &str, function: &str) -> Option<Lie> {
    let ((conduct, place), _) =
        document::read(document, |root| (root.key("do").word(WORDS), root.key("in").text().map(str::to_owned)));
    match conduct.filter(|_| place.as_deref() == Some(function))? {
        Conduct::Spin => spin(),
        Conduct::Allocate => allocate(),
        Conduct::Recurse => drop(black_box(recurse(0))),
        Conduct::Trap => panic!("as it was told to"),
        Conduct::Flood => flood(),
        Conduct::Lie(lie) => return Some(lie),
    }
    None
}

/// Text whose length depends on the lie.
pub(crate) fn long_text(lie: Option<Lie>) -> String {
    "x".repeat(if lie == Some(Lie::Huge) { HUGE } else { 8 })
}

/// A value with its key.
pub(crate) fn attribute(key: &str, value: AttributeValue) -> Attribute {
    Attribute { key: key.to_owned(), value }
}

fn spin() {
    let mut turns = 0_u64;
    while black_box(turns) != u64::MAX {
        turns = turns.wrapping_add(2);
    }
}

fn allocate() {
    let mut all: Vec<Vec<u8>> = Vec::new();
    loop {
        all.push(black_box(vec![1; 1 << 20]));
    }
}

#[allow(unconditional_recursion, reason = "that is what it is for")]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    recurse(depth.wrapping_add(frame[1]).wrapping_add(1)).wrapping_add(frame[0])
}

fn flood() {
    for n in 0..FLOOD {
        host::log(Level::Error, &format!("line {n} of a flood, about 192.0.2.1"));
        host::count("seen", &[&n.to_string()], u64::MAX);
        host::count("never-declared", &[], 1);
    }
}
