//! What guests hand over in a batch.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidewaiter_tests::fuzz::batches(bytes));
