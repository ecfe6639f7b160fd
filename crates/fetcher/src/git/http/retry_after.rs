//! The header `Retry-After`: seconds, or a date.
//!
//! Source: RFC 9110, section 10.2.3.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// The longest pause that a host is believed; a longer one is cut to it.
const BELIEVED_MAX: Duration = Duration::from_secs(24 * 3600);

/// What the header says from now on, if it is there and says anything.
pub fn of(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    parse(value, SystemTime::now())
}

/// How long to wait from `now` on. `None` when the value is neither seconds nor a date; a date that
/// is over is zero.
fn parse(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let pause = if is_number {
        // More digits than fit are a long time.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        date.duration_since(now).unwrap_or_default()
    };
    Some(pause.min(BELIEVED_MAX))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn seconds_and_all_three_forms_of_dates_are_understood() {
        // 1994-11-06 08:49:37 UTC, as in the RFC.
        let date = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let before = date - Duration::from_secs(90);
        for value in [
            "90",
            " 90 ",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(
                parse(value, before),
                Some(Duration::from_secs(90)),
                "{value}"
            );
        }
        let over = parse(
            "Sun, 06 Nov 1994 08:49:37 GMT",
            date + Duration::from_secs(5),
        );
        assert_eq!(over, Some(Duration::ZERO));
        assert_eq!(parse("0", date), Some(Duration::ZERO));
    }

    #[test]
    fn nonsense_is_not_said_and_a_very_long_time_is_a_day() {
        let now = UNIX_EPOCH;
        for value in ["", "-5", "1.5", "soon", "12 parsecs"] {
            assert_eq!(parse(value, now), None, "{value:?}");
        }
        for value in ["86401", "99999999999999999999999999"] {
            assert_eq!(parse(value, now), Some(BELIEVED_MAX), "{value}");
        }
    }
}
