//! Text for people: names without what hides or reorders, sizes, times, links. Pure.

use std::time::{Duration, UNIX_EPOCH};

use askama::Template;
use askama::filters::HtmlSafe;
pub(super) use monofs_model::text::{clean, clean_bytes, is_odd, size};

use monofs_api::percent::percent_encoded;
use monofs_control::clock;
use monofs_router::status::ago;

/// The last second of the year 9999, the last one that is written with four digits.
const TIME_MAX: i64 = 253_402_300_799;

/// A path for a URL: every component percent-encoded.
pub(super) fn encode_path(path: &str) -> String {
    path.split('/')
        .map(|part| percent_encoded(part.as_bytes()))
        .collect::<Vec<_>>()
        .join("/")
}

/// A number with its thousands set apart: `12,345`.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A count with its noun: `1 node`, `2 nodes`, `3 copies`.
pub(super) fn count(many: u64, noun: &str) -> String {
    match noun.strip_suffix('y') {
        _ if many == 1 => format!("1 {noun}"),
        Some(stem) => format!("{} {stem}ies", number(many)),
        None => format!("{} {noun}s", number(many)),
    }
}

/// A part of a whole in percent, as `97 %`; `None` of nothing.
pub(super) fn percent(part: u64, whole: u64) -> Option<String> {
    (whole > 0).then(|| {
        let value = part as f64 * 100.0 / whole as f64;
        if value > 99.0 && value < 100.0 {
            format!("{value:.1} %")
        } else {
            format!("{value:.0} %")
        }
    })
}

/// Seconds as an operator says them: `3.2 ms`, `1.5 s`.
pub(super) fn latency(seconds: f64) -> String {
    match seconds {
        s if s < 0.001 => format!("{:.0} µs", s * 1e6),
        s if s < 0.0995 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

/// The first digits of an object id.
pub(super) fn short(oid: &str) -> &str {
    oid.get(..12).unwrap_or(oid)
}

/// A point in time: how long ago, with the exact time behind it.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(
    source = r#"{% if at > 0 %}<time datetime="{{ exact }}" title="{{ exact }}">{{ ago }}</time>{% else %}never{% endif %}"#,
    ext = "html"
)]
pub(super) struct When {
    at: i64,
    exact: String,
    ago: String,
}

impl HtmlSafe for When {}

impl When {
    /// Seconds since the epoch; 0 = never.
    pub fn at(at: i64) -> Self {
        let passed = clock::now() - at;
        let distance = ago(Duration::from_secs(passed.unsigned_abs()));
        let ago = match passed {
            ..=-2 => format!("in {distance}"),
            -1..2 => "just now".to_owned(),
            _ => format!("{distance} ago"),
        };
        Self {
            at,
            exact: rfc3339(at),
            ago,
        }
    }
}

/// Seconds since the epoch as `2026-11-27T04:36:53Z`.
pub(super) fn rfc3339(at: i64) -> String {
    let since = Duration::from_secs(at.clamp(0, TIME_MAX).unsigned_abs());
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}

/// The time of day of a moment, UTC.
pub(super) fn time_of_day(at: i64) -> String {
    rfc3339(at).get(11..16).unwrap_or_default().to_owned()
}

/// A line in which what stands between backticks is to be typed.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(
    source = "{% for (is_code, text) in parts %}{% if *is_code %}<code>{{ text }}</code>{% else %}{{ text }}{% endif %}{% endfor %}",
    ext = "html"
)]
pub(super) struct Line {
    parts: Vec<(bool, String)>,
}

impl HtmlSafe for Line {}

impl Line {
    pub fn new(text: &str) -> Self {
        let parts = text
            .split('`')
            .enumerate()
            .filter(|(_, part)| !part.is_empty());
        Self {
            parts: parts.map(|(at, part)| (at % 2 == 1, clean(part))).collect(),
        }
    }

    /// The same without marks.
    pub fn text(&self) -> String {
        self.parts.iter().map(|(_, text)| text.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_and_machines_read_them() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        // `date -ud @951782400 +%FT%TZ`, and so on.
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_795_755_813), "2026-11-27T05:03:33Z");
        assert_eq!(rfc3339(TIME_MAX), "9999-12-31T23:59:59Z");
        assert_eq!(time_of_day(1_795_755_813), "05:03");
        assert_eq!(When::at(0).to_string(), "never");
        assert!(
            When::at(clock::now() - 300)
                .to_string()
                .ends_with(">5 m ago</time>")
        );
    }

    #[test]
    fn names_cannot_pass_for_others() {
        assert_eq!(clean("a\u{202e}gpj.exe\n"), "a\\u{202e}gpj.exe\\n");
        assert_eq!(clean_bytes(b"caf\xe9\xff"), "caf\\xe9\\xff");
        assert_eq!(encode_path("a b/<c>"), "a%20b/%3Cc%3E");
    }

    #[test]
    fn figures_are_short() {
        let sizes: Vec<String> = [1023, 1024, 1_048_575, 3 << 30].map(size).into();
        assert_eq!(sizes, ["1023 B", "1.0 KiB", "1.0 MiB", "3.0 GiB"]);
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(number),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [count(1, "copy"), count(2, "copy"), count(0, "node")],
            ["1 copy", "2 copies", "0 nodes"]
        );
        assert_eq!(
            [percent(1, 0), percent(999, 1000)],
            [None, Some("99.9 %".to_owned())]
        );
        assert_eq!(
            [0.0000123, 0.0032, 0.25, 1.5].map(latency),
            ["12 µs", "3.2 ms", "250 ms", "1.5 s"]
        );
    }

    #[test]
    fn what_is_to_be_typed_is_set_apart_and_escaped() {
        let line = Line::new("look at `a <b>` & go on");
        assert_eq!(
            line.to_string(),
            "look at <code>a &#60;b&#62;</code> &#38; go on"
        );
    }
}
