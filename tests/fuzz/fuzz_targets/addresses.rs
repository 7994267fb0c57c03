//! Kinds of addresses, and what a name may lead to.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidewaiter_tests::fuzz::addresses(bytes));
