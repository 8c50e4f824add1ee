//! Rust's side of `wit/`, made by wasmtime's macro.
#![allow(missing_docs, unreachable_pub, clippy::all)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "host",
    imports: { default: trappable },
    additional_derives: [PartialEq],
});
