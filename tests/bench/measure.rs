//! Clocks and counters of the kernel, and what is made of several rounds.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value as Json, json};

/// What something took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub wall: Duration,
    /// Of this process and of the children that have ended.
    pub cpu: Duration,
}

/// A measurement under way.
pub(crate) struct Begun {
    wall: Instant,
    cpu: Duration,
}

#[expect(clippy::disallowed_methods, reason = "this is where a benchmark reads the clock")]
pub(crate) fn begin() -> Begun {
    Begun { wall: Instant::now(), cpu: cpu() }
}

impl Begun {
    pub(crate) fn end(self) -> Cost {
        Cost { wall: self.wall.elapsed(), cpu: cpu().saturating_sub(self.cpu) }
    }
}

/// Processor time of this process.
pub(crate) fn own_cpu() -> Duration {
    let own = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(own.tv_sec.unsigned_abs(), u32::try_from(own.tv_nsec).unwrap_or(0))
}

/// Processor time of this process and of its children that have ended.
pub(crate) fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    // `cutime` and `cstime`, in hundredths of a second.
    own_cpu() + Duration::from_millis((ticks(13) + ticks(14)) * 10)
}

/// A line of `/proc/self/status`, in bytes.
pub(crate) fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Begins the peak anew.
pub(crate) fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Median, least and most.
pub(crate) fn spread(values: &[f64]) -> Json {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    json!({ "median": round(median(values)), "least": round(least), "most": round(most), "rounds": values.len() })
}

pub(crate) fn round(value: f64) -> f64 {
    if value.abs() >= 100.0 { value.round() } else { (value * 1000.0).round() / 1000.0 }
}

/// The ratio of each round to its peer in the same round.
pub(crate) fn ratios(values: &[f64], peers: &[f64]) -> Vec<f64> {
    values.iter().zip(peers).map(|(value, peer)| value / peer).collect()
}
