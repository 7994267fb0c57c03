//! What reads as a destination of a request, or as a pattern of some.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidewaiter_tests::fuzz::destinations(bytes));
