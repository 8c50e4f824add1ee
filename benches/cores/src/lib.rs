//! Benchmarks of the protocol cores, each a file in `benches/`: `cargo bench -p sluice-bench-cores`.
#![forbid(unsafe_code)]
