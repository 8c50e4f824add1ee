//! Never says what it is.
#![deny(unsafe_code)]

mod bindings {
    #![allow(unsafe_code, reason = "what wit-bindgen writes for the border of a component")]

    use super::Hostile;

    wit_bindgen::generate!({ path: "../../../wit", world: "sluice:policy/base", generate_all });

    export!(Hostile);
}

use bindings::exports::sluice::policy::setup::{Guest, Manifest, Problem};

struct Hostile;

impl Guest for Hostile {
    fn describe() -> Manifest {
        let mut turns = 0_u64;
        while std::hint::black_box(turns) != u64::MAX {
            turns = turns.wrapping_add(2);
        }
        Manifest { name: String::new(), version: String::new(), facts: Vec::new(), counters: Vec::new() }
    }

    fn validate_settings(_: String) -> Vec<Problem> {
        Vec::new()
    }
}
