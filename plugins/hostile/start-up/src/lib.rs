//! Never gets as far as being asked.
#![deny(unsafe_code)]

mod bindings {
    #![allow(unsafe_code, reason = "what wit-bindgen writes for the border of a component")]

    use super::Hostile;

    wit_bindgen::generate!({ path: "../../../wit", world: "sluice:policy/base", generate_all });

    export!(Hostile);
}

use bindings::exports::sluice::policy::setup::{Guest, Manifest, Problem};

struct Hostile;

/// What a component's runtime calls at instantiation.
#[allow(unsafe_code, reason = "the name is what makes it be called")]
#[unsafe(no_mangle)]
pub extern "C" fn _initialize() {
    let mut turns = 0_u64;
    while std::hint::black_box(turns) != u64::MAX {
        turns = turns.wrapping_add(2);
    }
}

impl Guest for Hostile {
    fn describe() -> Manifest {
        let name = "hostile-start-up".to_owned();
        Manifest { name, version: env!("CARGO_PKG_VERSION").to_owned(), facts: Vec::new(), counters: Vec::new() }
    }

    fn validate_settings(_: String) -> Vec<Problem> {
        Vec::new()
    }
}
