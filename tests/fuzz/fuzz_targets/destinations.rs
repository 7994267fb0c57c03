//! What reads as a destination of a request, or as a pattern of some.
#![no_main]
#![allow(dead_code, reason = "each takes one of the bodies")]

#[path = "../../harness/bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bodies::destinations(bytes));
