//! What guests hand over in a batch.
#![no_main]
#![allow(dead_code, reason = "each takes one of the bodies")]

#[path = "../../harness/bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(bodies::batches(bytes)));
