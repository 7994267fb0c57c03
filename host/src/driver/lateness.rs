//! How late scheduled runs begin.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is later than this counts as this late, in milliseconds.
const LATENESS_MS_MAX: usize = 10_000;
/// The upper ends of a histogram's buckets, in milliseconds.
const BUCKETS_MS: [usize; 9] = [1, 5, 10, 50, 100, 500, 1000, 2500, 5000];

/// How late scheduled runs begin: how many of them, by the milliseconds since they were due.
#[derive(Debug)]
pub struct Lateness {
    runs: [AtomicU64; LATENESS_MS_MAX],
}

impl Default for Lateness {
    fn default() -> Self {
        Self { runs: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

/// The same as a histogram, in seconds.
#[derive(Debug)]
pub(crate) struct LatenessBuckets {
    /// Of all runs together.
    pub(crate) sum: f64,
    /// How many runs.
    pub(crate) count: u64,
    /// The upper end of each, and how many runs are in it and in none before.
    pub(crate) buckets: Vec<(f64, u64)>,
}

impl Lateness {
    pub(super) fn count(&self, late_ms: u64) {
        let late = usize::try_from(late_ms).unwrap_or(usize::MAX).min(LATENESS_MS_MAX - 1);
        self.runs[late].fetch_add(1, Ordering::Relaxed);
    }

    /// How many scheduled runs have begun.
    pub fn runs(&self) -> u64 {
        self.runs.iter().map(|runs| runs.load(Ordering::Relaxed)).sum()
    }

    /// Milliseconds by which so many of a thousand runs were late at most.
    pub fn permille(&self, permille: u64) -> u64 {
        let (wanted, mut seen) = (self.runs().saturating_mul(permille).div_ceil(1000), 0);
        let place = self.runs.iter().position(|runs| {
            seen += runs.load(Ordering::Relaxed);
            seen >= wanted
        });
        place.unwrap_or(LATENESS_MS_MAX) as u64
    }

    /// Begins anew.
    pub fn reset(&self) {
        self.runs.iter().for_each(|runs| runs.store(0, Ordering::Relaxed));
    }

    pub(crate) fn buckets(&self) -> LatenessBuckets {
        let (mut sum_ms, mut count) = (0, 0);
        let ends = BUCKETS_MS.map(|ms| (ms as f64 / 1000.0, 0));
        let mut buckets: Vec<(f64, u64)> = ends.into_iter().chain([(f64::MAX, 0)]).collect();
        for (ms, runs) in self.runs.iter().enumerate() {
            let runs = runs.load(Ordering::Relaxed);
            sum_ms += runs * ms as u64;
            count += runs;
            buckets[BUCKETS_MS.partition_point(|end| *end < ms)].1 += runs;
        }
        LatenessBuckets { sum: sum_ms as f64 / 1000.0, count, buckets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_is_in_the_bucket_of_its_lateness() {
        let lateness = Lateness::default();
        for ms in [0, 1, 2, 5, 6, 5000, 5001, 60_000] {
            lateness.count(ms);
        }
        let LatenessBuckets { sum, count, buckets } = lateness.buckets();
        let counts: Vec<u64> = buckets.iter().map(|(_, runs)| *runs).collect();
        assert_eq!((count, counts), (8, vec![2, 2, 1, 0, 0, 0, 0, 0, 1, 2]));
        assert!((sum - (14.0 + 5000.0 + 5001.0 + 9999.0) / 1000.0).abs() < 1e-9, "{sum}");
        assert!((buckets[1].0 - 0.005).abs() < f64::EPSILON);
    }
}
