//! Whether a stream gets colours: only a terminal does, and only when neither `NO_COLOR` nor
//! `TERM=dumb` forbids it.
//!
//! The one place that decides it; tables, progress, the live view, help texts and error lines of
//! every binary ask here. What a program that reads the output would have to strip is never
//! written.

use std::io::IsTerminal;

/// Whether text for this stream may have colours. `NO_COLOR` counts when it is set and not empty.
/// Source: <https://no-color.org>.
pub fn wanted(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && allowed(&|name| std::env::var_os(name))
}

/// Whether the environment allows colours at all.
fn allowed(variable: &dyn Fn(&str) -> Option<std::ffi::OsString>) -> bool {
    variable("NO_COLOR").is_none_or(|value| value.is_empty()) && !is_dumb(variable)
}

/// Whether the terminal of standard error, or none, can only be written to line by line.
pub fn is_plain_terminal() -> bool {
    is_dumb(&|name| std::env::var_os(name))
}

fn is_dumb(variable: &dyn Fn(&str) -> Option<std::ffi::OsString>) -> bool {
    variable("TERM").is_some_and(|value| value == "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_can_forbid_colours() {
        for (name, value, expected) in [
            ("NO_COLOR", "", true),
            ("TERM", "xterm-256color", true),
            ("OTHER", "1", true),
            ("NO_COLOR", "1", false),
            ("NO_COLOR", "0", false),
            ("TERM", "dumb", false),
        ] {
            let found = allowed(&|asked| (asked == name).then(|| value.into()));
            assert_eq!(found, expected, "{name}={value}");
        }
    }
}
