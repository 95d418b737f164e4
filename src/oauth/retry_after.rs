//! `Retry-After` (RFC 9110 section 10.2.3): seconds, or an HTTP-date.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

/// The shortest and the longest wait. 0 s would cause a burst of requests, and a week an outage.
const RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60 * 60));

/// Parses `Retry-After`, clamped to 1 s to 1 h. Returns the longest of several, or `None` if none is valid.
///
/// A date is compared with the response's own `Date`, because the server's clock may be wrong. `now` is
/// used for a response without one.
pub(crate) fn parse(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| httpdate::parse_http_date(date.trim()).ok());
    let now = date.unwrap_or(now);
    let values = headers.get_all(RETRY_AFTER).iter();
    let longest = values
        .filter_map(|value| parse_one(value.to_str().ok()?.trim(), now))
        .max()?;
    Some(longest.clamp(RANGE.0, RANGE.1))
}

fn parse_one(value: &str, now: SystemTime) -> Option<Duration> {
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits fail to parse only on overflow.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(now).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110's examples.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    fn parsed(values: &[&str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        // Not a date, so `now` is used.
        headers.insert(DATE, "soon".parse().unwrap());
        for value in values {
            headers.append(RETRY_AFTER, value.parse().unwrap());
        }
        parse(&headers, now()).map(|after| after.as_secs())
    }

    #[test]
    fn seconds_and_dates_are_parsed_and_clamped() {
        let table: [(&[&str], Option<u64>); 20] = [
            (&[], None),
            (&[""], None),
            (&["20"], Some(20)),
            (&[" 20 "], Some(20)),
            (&["0"], Some(1)),
            (&["3601"], Some(3600)),
            (&["99999999999999999999999999"], Some(3600)),
            (&["-1"], None),
            (&["+1"], None),
            (&["1.5"], None),
            (&["20 s"], None),
            (&["soon"], None),
            (&["Sun, 06 Nov 1994 08:50:37 GMT"], Some(60)),
            (&["Sunday, 06-Nov-94 08:50:37 GMT"], Some(60)),
            (&["Sun Nov  6 08:50:37 1994"], Some(60)),
            (&["Sun, 06 Nov 1994 08:49:36 GMT"], Some(1)),
            (&["Sat, 06 Nov 2094 08:49:37 GMT"], Some(3600)),
            (&["5", "30", "7"], Some(30)),
            (&["soon", "30"], Some(30)),
            (&["5", "Sun, 06 Nov 1994 08:50:37 GMT"], Some(60)),
        ];
        for (values, wanted) in table {
            assert_eq!(parsed(values), wanted, "{values:?}");
        }
    }
}
