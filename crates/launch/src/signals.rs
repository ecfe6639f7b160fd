//! StopSignals of the process as futures.
//!
//! SIGTERM, SIGINT and SIGHUP ask it to stop (SIGHUP only when it was not ignored at the start, as
//! under `nohup`); SIGUSR1 makes the log more talkative, SIGUSR2 restores the level it was started
//! with.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::logging::LogHandle;

/// The signals that ask the process to stop.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl StopSignals {
    /// Takes over the signals from now on.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let hangup = if hangup_is_ignored() {
            None
        } else {
            Some(listen_for(SignalKind::hangup(), "SIGHUP")?)
        };
        Ok(Self {
            terminate: listen_for(SignalKind::terminate(), "SIGTERM")?,
            interrupt: listen_for(SignalKind::interrupt(), "SIGINT")?,
            hangup,
        })
    }

    /// The name of the next one.
    pub(crate) async fn next(&mut self) -> &'static str {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = hangup => "SIGHUP",
        }
    }
}

fn listen_for(kind: SignalKind, name: &str) -> anyhow::Result<Signal> {
    signal(kind).with_context(|| format!("could not listen for {name}"))
}

/// Whether this process was started with SIGHUP ignored, to outlive its terminal.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Bit 0 stands for signal 1, which is SIGHUP.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}

/// Lets SIGUSR1 and SIGUSR2 change the log level for as long as the runtime lives.
pub(crate) fn follow_log_level(log: LogHandle) -> anyhow::Result<()> {
    let mut louder = signal(SignalKind::user_defined1()).context("could not listen for SIGUSR1")?;
    let mut reset = signal(SignalKind::user_defined2()).context("could not listen for SIGUSR2")?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(()) = louder.recv() => log.louder(),
                Some(()) = reset.recv() => log.reset(),
                else => return,
            }
        }
    });
    Ok(())
}
