//! Text for people: names without control characters, sizes, times.

use std::time::{SystemTime, UNIX_EPOCH};

pub use monofs_model::text::{clean, clean_bytes, size};
use monofs_proto::durations::DURATION_BOUNDS;

/// The first twelve digits of an object id, or `-`.
pub fn short(oid: &str) -> String {
    if oid.is_empty() {
        "-".to_owned()
    } else {
        clean(&oid.chars().take(12).collect::<String>())
    }
}

/// A count with its noun: `1 node`, `2 nodes`.
pub fn count(number: u64, noun: &str) -> String {
    match (number, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        _ => format!("{number} {noun}s"),
    }
}

/// How long ago that was: `12s`, `3m`, `5h`, `2d`; `-` for never.
pub fn ago(seconds: i64) -> String {
    if seconds == 0 {
        return "-".to_owned();
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs() as i64);
    match now.saturating_sub(seconds) {
        i64::MIN..60 => format!("{}s", now.saturating_sub(seconds).max(0)),
        passed @ 60..3600 => format!("{}m", passed / 60),
        passed @ 3600..172_800 => format!("{}h", passed / 3600),
        passed => format!("{}d", passed / 86_400),
    }
}

/// A part of a whole in per cent, or `-` when there is no whole.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        "-".to_owned()
    } else {
        format!("{:.0} %", (part as f64 / whole as f64 * 100.0).floor())
    }
}

/// A latency as its bucket's upper bound: `<300us`, `<5ms`, `<2.5s`; `>2.5s` beyond; `-` when
/// nothing was measured.
pub fn latency(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else {
        return "-".to_owned();
    };
    // The last bound also stands for what took longer.
    let [.., sure, most] = DURATION_BOUNDS;
    // Rounded: a bound such as 3e-5 has no exact value in microseconds.
    let micros = (seconds * 1e6).round();
    match () {
        () if seconds >= most => format!(">{sure}s"),
        () if micros < 1e3 => format!("<{micros}us"),
        () if micros < 1e6 => format!("<{}ms", micros / 1e3),
        () => format!("<{}s", micros / 1e6),
    }
}

/// A rate: `0.3/s`, `120/s`, `12k/s`; `-` when it is not known.
pub fn rate(per_second: Option<f64>) -> String {
    match per_second {
        None => "-".to_owned(),
        Some(0.0) => "0/s".to_owned(),
        Some(rate) if rate < 9.95 => format!("{rate:.1}/s"),
        Some(rate) if rate < 99_500.0 => format!("{rate:.0}/s"),
        Some(rate) => format!("{:.0}k/s", rate / 1e3),
    }
}

/// Text broken at spaces into lines of at most `columns` characters; a longer word has a line of
/// its own.
pub fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is a line from the start");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= columns {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// A word of a shell command line, quoted where a shell needs it.
pub fn shell_word(text: &str) -> String {
    let shown = clean(text);
    let plain = shown
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "/._-:@%+=,".contains(c));
    if plain && !shown.is_empty() {
        shown
    } else {
        format!("'{}'", shown.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_drive_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\n"), "a\\u{1b}[31mb\\n");
        assert_eq!(clean("\u{202e}txt.exe"), "\\u{202e}txt.exe");
        assert_eq!(clean_bytes(b"caf\xe9 \xc3\xa9\x07"), "caf\\xe9 é\\u{7}");
    }

    #[test]
    fn sizes_and_counts_read_well() {
        let sizes = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_395_864_371, "1.3 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, expected) in sizes {
            assert_eq!(size(bytes), expected);
        }
        assert_eq!(size((1 << 20) - 1), "1.0 MiB");
        assert_eq!(
            (count(1, "directory"), count(2, "directory")),
            ("1 directory".into(), "2 directories".into())
        );
        assert_eq!(
            (percent(1, 3), percent(999, 1000), percent(0, 0)),
            ("33 %".into(), "99 %".into(), "-".into())
        );
    }

    #[test]
    fn times_of_any_age_are_told() {
        assert_eq!(ago(i64::MAX), "0s");
        assert!(ago(1_000_000_000).ends_with('d'));
        let _ = ago(i64::MIN);
    }

    #[test]
    fn latencies_are_bounds_and_rates_are_short() {
        let shown = [
            None,
            Some(1e-5),
            Some(3e-4),
            Some(2.5e-3),
            Some(0.5),
            Some(2.5),
            Some(10.0),
        ]
        .map(latency);
        assert_eq!(
            shown,
            ["-", "<10us", "<300us", "<2.5ms", "<500ms", "<2.5s", ">2.5s"]
        );
        let rates = [
            None,
            Some(0.0),
            Some(0.26),
            Some(9.96),
            Some(1234.4),
            Some(120_000.0),
        ]
        .map(rate);
        assert_eq!(rates, ["-", "0/s", "0.3/s", "10/s", "1234/s", "120k/s"]);
    }

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("a enormous b", 4), ["a", "enormous", "b"]);
        assert_eq!(wrapped("", 4), [""]);
    }

    #[test]
    fn what_is_printed_to_be_typed_can_be_typed() {
        assert_eq!(shell_word("github.com/org/repo"), "github.com/org/repo");
        assert_eq!(shell_word("it's"), "'it'\\''s'");
    }
}
