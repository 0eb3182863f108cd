//! Times in UTC as RFC 3339 has them, and durations as people write them.

use std::time::{Duration, SystemTime};

use super::InvalidValue;

/// The last second that [`rfc3339`] can write: of the year 9999.
pub const LAST_SECOND: u64 = 253_402_300_799;

/// A time such as `2024-02-29T12:00:00Z`, from seconds since 1970, of which those beyond [`LAST_SECOND`] are left out.
pub fn rfc3339(seconds: u64) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(LAST_SECOND));
    humantime::format_rfc3339_seconds(time).to_string()
}

/// This moment, to the second.
pub fn now() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    rfc3339(since.as_secs())
}

/// A moment with milliseconds, such as `2024-02-29T12:00:00.000Z`.
pub fn rfc3339_millis(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// A moment in UTC: RFC 3339, or with a space in the place of `T` and without `Z`.
pub fn parse_rfc3339(text: &str) -> Result<SystemTime, InvalidValue> {
    humantime::parse_rfc3339_weak(text)
        .map_err(|_| InvalidValue("must be a time in UTC such as 2026-01-31T12:00:00Z".to_owned()))
}

/// A duration that is more than nothing, such as `500ms`, `30s`, `5m`, `2h30m`.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidValue> {
    let wrong = || InvalidValue("must be a duration such as 30s, 5m or 1h, and more than zero".to_owned());
    humantime::parse_duration(text).ok().filter(|duration| !duration.is_zero()).ok_or_else(wrong)
}

/// Whether Go's JSON reads a text as a time: `2006-01-02T15:04:05[.9]Z` or with an offset.
pub fn is_rfc3339(text: &str) -> bool {
    let Some((moment, rest)) = text.as_bytes().split_at_checked(19) else { return false };
    let shape = |bytes: &[u8], shape: &[u8]| {
        bytes.len() == shape.len()
            && bytes.iter().zip(shape).all(|(b, s)| if *s == b'0' { b.is_ascii_digit() } else { b == s })
    };
    let digits =
        rest.strip_prefix(b".").map_or(0, |rest| rest.iter().take_while(|b| b.is_ascii_digit()).count());
    let zone = if digits > 0 { &rest[1 + digits..] } else { rest };
    shape(moment, b"0000-00-00T00:00:00")
        && (zone == b"Z" || shape(zone, b"+00:00") || shape(zone, b"-00:00"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let seconds = [0, 951_868_799, 1_709_208_000, 4_107_542_400, LAST_SECOND, u64::MAX];
        assert_eq!(
            seconds.map(rfc3339),
            [
                "1970-01-01T00:00:00Z",
                "2000-02-29T23:59:59Z",
                "2024-02-29T12:00:00Z",
                "2100-03-01T00:00:00Z",
                "9999-12-31T23:59:59Z",
                "9999-12-31T23:59:59Z",
            ]
        );
    }

    #[test]
    fn a_duration_has_a_unit_and_is_more_than_nothing() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3600)));
        for wrong in ["", "30", "0s", "-1s", "soon"] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn a_time_that_go_cannot_parse_is_not_taken() {
        for good in ["2023-11-14T22:13:20Z", "2023-11-14T22:13:20.123456789Z", "2023-11-14T22:13:20+01:00"] {
            assert!(is_rfc3339(good), "{good}");
        }
        for bad in ["", "2023-11-14", "2023-11-14T22:13:20", "2023-11-14 22:13:20Z", "2023-11-14T22:13:20.Z"]
        {
            assert!(!is_rfc3339(bad), "{bad}");
        }
    }
}
