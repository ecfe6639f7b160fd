//! What every process tells: which build it is, and what it takes from the machine. Read from
//! `/proc` at each scrape; what cannot be read is left out, never told as zero.

use std::fs;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Resource;
use rustix::time::ClockId;

use super::samples::Samples;

/// The commit that this program was built from; a fact of the program, told once by its main
/// function.
static COMMIT: OnceLock<&'static str> = OnceLock::new();

/// When the process started. Computed once: clocks are read one after the other, so the result
/// differs a little each time, and a monitor that watches for changes would see restarts.
static STARTED_AT: OnceLock<f64> = OnceLock::new();

/// Names the commit that this program was built from; later calls change nothing.
pub fn set_commit(commit: &'static str) {
    let _ = COMMIT.set(commit);
}

/// Adds the samples of the process, in which `role` runs.
pub(super) fn samples(role: &'static str, out: &mut Samples) {
    let commit = COMMIT.get().copied().unwrap_or("unknown");
    let build = [([role, env!("CARGO_PKG_VERSION"), commit], 1_u64)];
    out.gauges_by(
        "monofs_build_info",
        "Which build this is; always 1.",
        ["role", "version", "commit"],
        build,
    );
    let cpu = seconds(ClockId::ProcessCPUTime);
    out.counter(
        "process_cpu_seconds_total",
        "Seconds of processor time used.",
        cpu,
    );
    if let Some(stat) = ProcessStat::read() {
        let name = "process_start_time_seconds";
        out.gauge(
            name,
            "When the process started, in seconds since the epoch.",
            stat.started_at,
        );
        out.gauge(
            "process_resident_memory_bytes",
            "Bytes of memory that the process has.",
            stat.resident_bytes,
        );
        out.gauge("process_threads", "Threads of the process.", stat.threads);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is this listing's own.
        out.gauge(
            "process_open_fds",
            "Open file descriptors.",
            open.count().saturating_sub(1),
        );
    }
    let most = rustix::process::getrlimit(Resource::Nofile).current;
    out.gauge(
        "process_max_fds",
        "Most file descriptors that may be open.",
        most.map_or(f64::INFINITY, |n| n as f64),
    );
}

/// Bytes of memory that this process has; `None` where the system does not say.
pub fn resident_bytes() -> Option<u64> {
    ProcessStat::read().map(|stat| stat.resident_bytes)
}

struct ProcessStat {
    started_at: f64,
    resident_bytes: u64,
    threads: u64,
}

impl ProcessStat {
    /// From `/proc/self/stat`; see proc_pid_stat(5). The name, in parentheses, may hold anything.
    fn read() -> Option<Self> {
        let text = fs::read_to_string("/proc/self/stat").ok()?;
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // The first of these is field 3 of the manual.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let since_boot = field(22)? as f64 / rustix::param::clock_ticks_per_second() as f64;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()?
            .as_secs_f64();
        Some(Self {
            started_at: *STARTED_AT.get_or_init(|| now - (seconds(ClockId::Boottime) - since_boot)),
            resident_bytes: field(24)? * rustix::param::page_size() as u64,
            threads: field(20)?,
        })
    }
}

fn seconds(clock: ClockId) -> f64 {
    let time = rustix::time::clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_a_moment_ago_and_memory_is_in_bytes() {
        let stat = ProcessStat::read().unwrap();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        assert!(
            stat.started_at < now + 0.1 && stat.started_at > now - 3600.0,
            "{} of {now}",
            stat.started_at
        );
        assert!(stat.resident_bytes > 1 << 20 && stat.threads >= 1);
        assert_eq!(ProcessStat::read().unwrap().started_at, stat.started_at);
    }
}
