//! Which bytes of a file a `Range` header asks for.
//!
//! Source: RFC 9110, section 14. What is no single range of bytes may be answered with the whole.

use std::ops::Range;

/// What is to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Whole,
    /// Not empty, and inside the file.
    Part(Range<u64>),
    /// The file ends before it.
    Beyond,
}

impl Wanted {
    /// Of a file of `size` bytes.
    pub fn of(header: Option<&str>, size: u64) -> Self {
        let one = header.and_then(|header| header.strip_prefix("bytes="));
        let Some((first, last)) = one.and_then(|range| range.trim().split_once('-')) else {
            return Self::Whole;
        };
        match (first, number(first), last, number(last)) {
            // The last so many bytes.
            ("", _, _, Some(0)) => Self::Beyond,
            ("", _, _, Some(count)) if size > 0 => Self::Part(size.saturating_sub(count)..size),
            ("", _, _, Some(_)) => Self::Beyond,
            (_, Some(first), "", _) if first < size => Self::Part(first..size),
            (_, Some(_), "", _) => Self::Beyond,
            (_, Some(first), _, Some(last)) if first > last => Self::Whole,
            (_, Some(first), _, Some(last)) if first < size => {
                Self::Part(first..last.saturating_add(1).min(size))
            }
            (_, Some(_), _, Some(_)) => Self::Beyond,
            _ => Self::Whole,
        }
    }
}

/// A position that may be beyond what fits into a number; `None` for what is none.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_taken_as_the_standard_says() {
        let of = |header| Wanted::of(Some(header), 100);
        assert_eq!(Wanted::of(None, 100), Wanted::Whole);
        assert_eq!(of("bytes=0-0"), Wanted::Part(0..1));
        assert_eq!(of("bytes=10-"), Wanted::Part(10..100));
        assert_eq!(of("bytes=90-1000"), Wanted::Part(90..100));
        assert_eq!(of("bytes=-10"), Wanted::Part(90..100));
        assert_eq!(of("bytes=-1000"), Wanted::Part(0..100));
        assert_eq!(of("bytes=100-"), Wanted::Beyond);
        assert_eq!(of("bytes=99999999999999999999999-"), Wanted::Beyond);
        assert_eq!(of("bytes=0-99999999999999999999999"), Wanted::Part(0..100));
        assert_eq!(of("bytes=-0"), Wanted::Beyond);
        assert_eq!(Wanted::of(Some("bytes=0-"), 0), Wanted::Beyond);
        for other in [
            "bytes=5-2",
            "bytes=0-1,5-6",
            "lines=1-2",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=+1-2",
        ] {
            assert_eq!(of(other), Wanted::Whole, "{other}");
        }
    }
}
