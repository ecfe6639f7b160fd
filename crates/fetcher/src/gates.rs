//! One gate for each remote host that said "not now": no request of this fetcher passes while it
//! is closed, whatever it is for.
//!
//! ```text
//! (no gate) --a host says "not now"--> closed --its time is over--> one request tries
//!     ^                                  ^                            |          |
//!     |                                  +------- "not now" again ----+          |
//!     +----------------- any other answer of the host ---------------------------+
//! ```
//!
//! Invariants: a pause is never shorter than what the host said; without a word of it pauses double
//! from [`FIRST_PAUSE`] to [`LONGEST_PAUSE`], with full jitter; of many requests that wait, one
//! tries first. Bounded by [`GATES_MAX`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use monofs_model::{Error, ErrorKind, HostPause, Oid, RefName, Result, SourceUrl};
use parking_lot::Mutex;

use crate::source::{CommitWant, FetchTask, RemoteSource, ResolvedRef};

/// Bound of the first pause that a host did not name.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Bound of the longest pause that a host did not name.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Most that is added to a pause that a host named, so that fetchers do not come back together.
const SPREAD_MAX: Duration = Duration::from_secs(30);
/// What requests are told that come while another one tries.
const TRIAL_PAUSE: Duration = Duration::from_secs(1);
/// Hosts that are remembered; beyond that the one that opens first is forgotten.
const GATES_MAX: usize = 1024;

/// The gates of all hosts.
#[derive(Debug, Default)]
pub struct HostGates(Mutex<HashMap<String, HostGate>>);

#[derive(Debug)]
struct HostGate {
    cause: String,
    /// How often in a row it said so.
    refusals: u32,
    opens_at: Instant,
    /// A request is finding out whether it may be asked again.
    on_trial: bool,
}

/// A request that passed; its outcome is told with [`GatePass::ended`].
struct GatePass<'a> {
    gates: &'a HostGates,
    host: Option<String>,
    /// Refusals that were known when it passed.
    refusals: u32,
    is_trial: bool,
}

impl HostGates {
    /// The gate of `source`. Errors: `Unavailable` while it is closed.
    fn pass(&self, source: &SourceUrl) -> Result<GatePass<'_>> {
        let mut pass = GatePass {
            gates: self,
            host: source.host_name(),
            refusals: 0,
            is_trial: false,
        };
        let mut gates = self.0.lock();
        let known = pass.host.as_ref().and_then(|host| gates.get_mut(host));

        // Only a host that said "not now" has a gate. It is closed until its time is over, and
        // while another request tries it.
        if let Some(gate) = known {
            let left = gate.opens_at.saturating_duration_since(Instant::now());
            let left = if gate.on_trial {
                left.max(TRIAL_PAUSE)
            } else {
                left
            };
            if !left.is_zero() {
                let host = pass.host.take().unwrap_or_default();
                return Err(closed(HostPause {
                    host,
                    cause: gate.cause.clone(),
                    retry_after: left,
                }));
            }

            // This request is the trial: the others wait for what comes of it.
            gate.on_trial = true;
            pass.is_trial = true;
            pass.refusals = gate.refusals;
        }
        drop(gates);
        Ok(pass)
    }

    /// Closes the gate of a host that said "not now" to a request that knew of `refusals`.
    fn close(&self, said: &HostPause, refusals: u32) -> HostPause {
        let now = Instant::now();
        let mut gates = self.0.lock();
        if gates.len() >= GATES_MAX && !gates.contains_key(&said.host) {
            let first = gates.iter().min_by_key(|(_, gate)| gate.opens_at);
            if let Some(host) = first.map(|(host, _)| host.clone()) {
                gates.remove(&host);
            }
        }
        let gate = gates.entry(said.host.clone()).or_insert_with(|| HostGate {
            cause: String::new(),
            refusals: 0,
            opens_at: now,
            on_trial: false,
        });
        // Requests that were under way together count once.
        if gate.refusals == refusals {
            gate.refusals += 1;
        }
        gate.cause.clone_from(&said.cause);
        gate.opens_at = gate
            .opens_at
            .max(now + pause(said.retry_after, gate.refusals));
        HostPause {
            retry_after: gate.opens_at.saturating_duration_since(now),
            ..said.clone()
        }
    }

    /// Opens the gate of a host that answered a request that knew of `refusals`. What it answers to
    /// an earlier request says nothing against a later "not now".
    fn open(&self, host: &str, refusals: u32) {
        let mut gates = self.0.lock();
        if gates
            .get(host)
            .is_some_and(|gate| gate.refusals == refusals)
        {
            gates.remove(host);
        }
    }

    /// The hosts that are not asked now, with what is left of their pauses.
    pub fn closed(&self) -> Vec<HostPause> {
        let now = Instant::now();
        let gates = self.0.lock();
        let shut = gates.iter().filter(|(_, gate)| gate.opens_at > now);
        let mut closed: Vec<HostPause> = shut
            .map(|(host, gate)| HostPause {
                host: host.clone(),
                cause: gate.cause.clone(),
                retry_after: gate.opens_at.saturating_duration_since(now),
            })
            .collect();
        closed.sort_by(|a, b| a.host.cmp(&b.host));
        closed
    }
}

impl GatePass<'_> {
    /// Opens or closes the gate after what came of the request.
    fn ended<T>(self, outcome: Result<T>) -> Result<T> {
        let Some(host) = &self.host else {
            return outcome;
        };
        let error = match outcome {
            Ok(done) => {
                self.gates.open(host, self.refusals);
                return Ok(done);
            }
            Err(error) => error,
        };
        match &error.pause {
            Some(said) => {
                let pause = self.gates.close(said, self.refusals);
                tracing::warn!(
                    host = %pause.host,
                    cause = %pause.cause,
                    seconds = pause.retry_after.as_secs(),
                    "a host says not now: it is left alone"
                );
                Err(closed(pause))
            }
            // It answers again, whatever it said.
            None if error.kind != ErrorKind::Unavailable => {
                self.gates.open(host, self.refusals);
                Err(error)
            }
            // Not reached on trial: as if it had said "not now" again.
            None if self.is_trial => {
                let said = HostPause {
                    host: host.clone(),
                    cause: "it cannot be reached".to_owned(),
                    retry_after: Duration::ZERO,
                };
                self.gates.close(&said, self.refusals);
                Err(error)
            }
            None => Err(error),
        }
    }
}

impl Drop for GatePass<'_> {
    fn drop(&mut self) {
        if let (true, Some(host)) = (self.is_trial, &self.host)
            && let Some(gate) = self.gates.0.lock().get_mut(host)
        {
            gate.on_trial = false;
        }
    }
}

/// How long to leave a host alone that said `said` (zero: nothing) for the `refusals`th time.
fn pause(said: Duration, refusals: u32) -> Duration {
    let doublings = refusals.saturating_sub(1).min(16);
    let bound = FIRST_PAUSE
        .saturating_mul(1 << doublings)
        .min(LONGEST_PAUSE);
    let spread = (said / 10).min(SPREAD_MAX);
    bound
        .mul_f64(fastrand::f64())
        .max(said + spread.mul_f64(fastrand::f64()))
}

/// The error while a host is left alone.
fn closed(pause: HostPause) -> Error {
    // Whole seconds, rounded up.
    let left = Duration::from_secs(pause.retry_after.as_millis().div_ceil(1000) as u64);
    let at = humantime::format_rfc3339_seconds(SystemTime::now() + left);
    let HostPause { host, cause, .. } = &pause;
    let message = format!(
        "{host} says not now ({cause}): it is asked again in {} at {at}, and not before; a login \
         for it in the fetcher's --credentials may have a higher limit",
        humantime::format_duration(left)
    );
    Error::unavailable(message).with_pause(pause)
}

/// A source whose every request passes the gate of its host.
pub struct GatedSource {
    inner: Arc<dyn RemoteSource>,
    gates: Arc<HostGates>,
}

impl GatedSource {
    /// `inner` behind `gates`.
    pub fn new(inner: Arc<dyn RemoteSource>, gates: Arc<HostGates>) -> Self {
        Self { inner, gates }
    }
}

impl RemoteSource for GatedSource {
    fn resolve(
        &self,
        source: &SourceUrl,
        ref_name: &RefName,
        task: &Arc<FetchTask>,
    ) -> Result<ResolvedRef> {
        // A full commit id is known without a question.
        if ref_name.as_str().parse::<Oid>().is_ok() {
            return self.inner.resolve(source, ref_name, task);
        }
        let pass = self.gates.pass(source)?;
        pass.ended(self.inner.resolve(source, ref_name, task))
    }

    fn fetch(&self, want: &CommitWant<'_>, task: &Arc<FetchTask>) -> Result<()> {
        let pass = self.gates.pass(want.source)?;
        pass.ended(self.inner.fetch(want, task))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn source(url: &str) -> SourceUrl {
        SourceUrl::new(url).unwrap()
    }

    fn not_now<T>(host: &str, retry_after: Duration) -> Result<T> {
        Err(Error::unavailable("no").with_pause(HostPause {
            host: host.to_owned(),
            cause: "HTTP 429".to_owned(),
            retry_after,
        }))
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_host_that_says_not_now_is_left_alone_for_all_its_repositories() {
        let gates = HostGates::default();
        let pass = gates.pass(&source("https://h/a")).unwrap();
        let error = pass.ended::<()>(not_now("h", HOUR)).unwrap_err();
        assert!(
            error.message.contains("h says not now (HTTP 429)"),
            "{error}"
        );
        let told = error.pause.unwrap().retry_after;
        assert!((HOUR..HOUR + SPREAD_MAX * 2).contains(&told), "{told:?}");
        let refused = gates.pass(&source("https://H/b")).err().unwrap();
        assert_eq!(refused.kind, ErrorKind::Unavailable);
        assert!(refused.pause.unwrap().retry_after > HOUR - Duration::from_secs(60));
        assert!(gates.pass(&source("https://other/a")).is_ok());
        assert_eq!(gates.closed().len(), 1);
    }

    #[test]
    fn when_its_time_is_over_one_request_tries_and_the_rest_waits_for_it() {
        let gates = HostGates::default();
        let h = source("https://h/a");
        let _ = gates.pass(&h).unwrap().ended::<()>(not_now("h", HOUR));
        gates.0.lock().get_mut("h").unwrap().opens_at = Instant::now();
        let trial = gates.pass(&h).unwrap();
        assert!(gates.pass(&h).is_err(), "one at a time");
        drop(trial);
        let again = gates.pass(&h).expect("the trial was given up");
        again.ended(Ok(())).unwrap();
        assert!(gates.pass(&h).is_ok() && gates.pass(&h).is_ok());
        assert!(gates.closed().is_empty());
    }

    #[test]
    fn requests_that_were_under_way_together_count_once() {
        let gates = HostGates::default();
        let h = source("https://h/a");
        let passes: Vec<_> = (0..12).map(|_| gates.pass(&h).unwrap()).collect();
        for pass in passes {
            let _ = pass.ended::<()>(not_now("h", Duration::ZERO));
        }
        assert_eq!(gates.0.lock()["h"].refusals, 1);
        let pause = &gates.closed();
        assert!(pause.iter().all(|pause| pause.retry_after <= FIRST_PAUSE));
    }

    #[test]
    fn an_answer_to_a_request_from_before_does_not_open_the_gate() {
        let gates = HostGates::default();
        let h = source("https://h/a");
        let early = gates.pass(&h).unwrap();
        let refused = gates.pass(&h).unwrap();
        let _ = refused.ended::<()>(not_now("h", HOUR));
        early.ended(Ok(())).unwrap();
        assert_eq!(gates.closed().len(), 1);
    }

    #[test]
    fn pauses_double_with_full_jitter_and_are_never_shorter_than_what_was_said() {
        for refusals in 1..40 {
            let bound = FIRST_PAUSE.saturating_mul(1 << (refusals - 1).min(16));
            let bound = bound.min(LONGEST_PAUSE);
            let pauses: Vec<_> = (0..50).map(|_| pause(Duration::ZERO, refusals)).collect();
            assert!(pauses.iter().all(|pause| *pause <= bound));
            assert!(
                pauses.iter().any(|pause| *pause < bound / 2),
                "it is spread"
            );
            assert!(
                pauses.iter().any(|pause| *pause > bound / 2),
                "it is spread"
            );
            assert!(pause(HOUR, refusals) >= HOUR);
        }
    }

    #[test]
    fn a_clear_answer_opens_the_gate_and_silence_on_trial_does_not() {
        let gates = HostGates::default();
        let h = source("https://h/a");
        let shut = || {
            let _ = gates.pass(&h).unwrap().ended::<()>(not_now("h", HOUR));
            gates.0.lock().get_mut("h").unwrap().opens_at = Instant::now();
            gates.pass(&h).unwrap()
        };
        let _ = shut().ended::<()>(Err(Error::unavailable("no route")));
        assert_eq!(gates.0.lock()["h"].refusals, 2);
        gates.0.lock().clear();
        let _ = shut().ended::<()>(Err(Error::not_found("no such repository")));
        assert!(gates.0.lock().is_empty());
    }

    #[test]
    fn the_number_of_remembered_hosts_is_bounded() {
        let gates = HostGates::default();
        for number in 0..GATES_MAX + 9 {
            let host = format!("h{number}");
            let pass = gates.pass(&source(&format!("https://{host}/a"))).unwrap();
            let _ = pass.ended::<()>(not_now(&host, HOUR));
        }
        assert_eq!(gates.closed().len(), GATES_MAX);
    }
}
