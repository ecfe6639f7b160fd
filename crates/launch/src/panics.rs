//! A panic is a defect: it is logged with version and backtrace, then the process aborts.

use std::backtrace::Backtrace;
use std::io::Write;

use crate::version;

/// Installs the hook for the rest of the process's life.
pub(crate) fn install(name: &'static str) {
    std::panic::set_hook(Box::new(move |info| {
        let backtrace = Backtrace::force_capture();
        tracing::error!(version = version::LONG, %backtrace, "{name}: panic: {info}");
        // The log may be filtered: the last words also go to standard error, which may be closed.
        let words = info.to_string().replace('\n', " ");
        let mut stderr = std::io::stderr();
        let _ = writeln!(stderr, "error: {name} {}: {words}", version::LONG);
        let _ = writeln!(
            stderr,
            "hint: this is a defect; please report it together with the log"
        );
        std::process::abort();
    }));
}
