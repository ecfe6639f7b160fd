//! What is printed for the user. Standard output may be closed at any time, by `head` or with its
//! terminal: that never ends a run, so what cannot be written is dropped.

use std::io::Write;
use std::path::Path;

/// Prints a line.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out
        .write_all(line.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
}

/// A path as one word of a shell.
pub(crate) fn shell_path(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = text
        .chars()
        .all(|c| c.is_alphanumeric() || "/._-:@%+=,".contains(c));
    if is_plain && !text.is_empty() {
        return text;
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_only_where_a_shell_would_split_it() {
        for (path, word) in [
            ("/mnt/monofs", "/mnt/monofs"),
            ("/home/me/my code", "'/home/me/my code'"),
            ("/it's", "'/it'\\''s'"),
        ] {
            assert_eq!(shell_path(Path::new(path)), word);
        }
    }
}
