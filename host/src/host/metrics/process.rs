//! What the system says of this process.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// This process, as the kernel sees it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Process {
    /// Processor time, of all its threads.
    pub(super) cpu: Duration,
    /// Memory that is in use.
    pub(super) memory_bytes: u64,
    /// Addresses that are in use: most of them are a pool's, and cost nothing.
    pub(super) virtual_bytes: u64,
    pub(super) threads: u64,
    /// Open files and sockets.
    pub(super) files: u64,
}

impl Process {
    /// As it is now. What the system doesn't say is 0.
    pub(super) fn look() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = Duration::from_secs(u64::try_from(cpu.tv_sec).unwrap_or(0));
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        Self {
            cpu: seconds + Duration::from_nanos(u64::try_from(cpu.tv_nsec).unwrap_or(0)),
            memory_bytes: number("VmRSS:") * 1024,
            virtual_bytes: number("VmSize:") * 1024,
            threads: number("Threads:"),
            // The folder that is read is one of them.
            files: fs::read_dir("/proc/self/fd").map_or(0, |files| files.count().saturating_sub(1) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_what_every_process_has() {
        let Process { cpu, memory_bytes, virtual_bytes, threads, files } = Process::look();
        assert!(cpu > Duration::ZERO && threads >= 1 && files >= 3, "{cpu:?} {threads} {files}");
        assert!(memory_bytes > 1 << 20 && virtual_bytes >= memory_bytes, "{memory_bytes} {virtual_bytes}");
    }
}
