#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluice_turn::harness::rtp_quality(bytes));
