//! What `monofs-admin bench` measured. Units stand in the names.

use std::collections::BTreeMap;

use serde::Serialize;

/// What was asked for, and of which servers.
#[derive(Debug, Serialize)]
pub struct LoadSetting {
    pub workload: &'static str,
    /// `open` or `closed`.
    #[serde(rename = "loop")]
    pub loop_kind: &'static str,
    pub target: String,
    pub clients: usize,
    pub threads: usize,
    /// Open loop only.
    pub in_flight_max: Option<usize>,
    /// Open loop only.
    pub offered_rate_per_s: Option<f64>,
    pub warmup_s: f64,
    pub duration_s: f64,
    pub zipf: f64,
    pub seed: u64,
    pub repositories: usize,
    pub directories: usize,
    pub small_files: usize,
    pub large_files: usize,
    /// Not everything that is there was known to the generator.
    pub sampled: bool,
}

/// One operation's figures. Latencies are of those that succeeded.
#[derive(Debug, Serialize)]
pub struct OperationReport {
    pub operation: &'static str,
    pub ok: u64,
    pub errors: u64,
    pub errors_by_kind: BTreeMap<&'static str, u64>,
    pub first_error: Option<String>,
    pub rate_per_s: f64,
    pub bytes_per_s: f64,
    pub mean_us: u64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
}

/// Latencies between a power of two and the next.
#[derive(Debug, Serialize)]
pub struct LatencyOctave {
    pub below_us: u64,
    pub count: u64,
}

/// Everything that one run measured.
#[derive(Debug, Serialize)]
pub struct LoadReport {
    #[serde(flatten)]
    pub setting: LoadSetting,
    /// From the end of the warm-up to the last answer.
    pub elapsed_s: f64,
    pub total: OperationReport,
    pub operations: Vec<OperationReport>,
    pub delayed: u64,
    pub unsent: u64,
    pub failovers: u64,
    /// From when a request was due to when it was sent; part of its latency. Open loop only.
    pub send_lag_p50_us: Option<u64>,
    pub send_lag_p99_us: Option<u64>,
    pub send_lag_max_us: Option<u64>,
    /// Of this process, since the end of the warm-up.
    pub generator_cpu_s: f64,
    pub generator_cpu_us_per_operation: Option<f64>,
    pub histogram: Vec<LatencyOctave>,
    pub warnings: Vec<String>,
}
