//! Many worlds, each by its seed.

/// Runs one after the other; the seed of one that goes wrong is told.
#[expect(clippy::disallowed_methods, reason = "the one switch of the tests")]
pub(crate) fn each(world: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let asked = std::env::var("TIDEWAITER_TEST_SEEDS").ok().and_then(|text| text.parse().ok());
    let is_quick = std::env::var_os("TIDEWAITER_TEST_QUICK").is_some();
    for seed in 0..asked.unwrap_or(if is_quick { 200 } else { 2000 }) {
        assert!(std::panic::catch_unwind(|| world(seed)).is_ok(), "seed {seed}");
    }
}
