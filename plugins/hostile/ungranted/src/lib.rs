//! Wants to store what it sees.
#![deny(unsafe_code)]

mod bindings {
    #![allow(unsafe_code, reason = "what wit-bindgen writes for the border of a component")]

    use super::Hostile;

    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package sluice:hostile;
            world storing { include sluice:policy/base@0.0.1; import sluice:policy/kv@0.0.1; }
        ",
        world: "sluice:hostile/storing",
        generate_all,
    });

    export!(Hostile);
}

use bindings::exports::sluice::policy::setup::{Guest, Manifest, Problem};
use bindings::sluice::policy::kv;

struct Hostile;

impl Guest for Hostile {
    fn describe() -> Manifest {
        let name = "hostile-ungranted".to_owned();
        Manifest { name, version: env!("CARGO_PKG_VERSION").to_owned(), facts: Vec::new(), counters: Vec::new() }
    }

    fn validate_settings(document: String) -> Vec<Problem> {
        let _ = kv::put("settings", document.as_bytes(), u32::MAX, &[]);
        Vec::new()
    }
}
