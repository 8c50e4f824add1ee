//! Times as administrators write and read them.

use sluice_privacy::Day;
use sluice_privacy::date::DAY_SECONDS;

/// A moment in seconds since the Unix epoch: `2026-11-28`, `2026-11-28T10:30`, `2026-11-28T10:30:00Z` (UTC), or so long
/// before `now` as `90m`, `12h`, `3d`.
pub(crate) fn parse(text: &str, now: u64) -> Option<u64> {
    if let Some(ago) = duration(text) {
        return Some(now.saturating_sub(ago));
    }
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (day, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let numbers: Option<Vec<u64>> = time.split(':').map(two_digits).collect();
    let (hours, minutes, seconds) = match numbers?[..] {
        [hours, minutes] => (hours, minutes, 0),
        [hours, minutes, seconds] => (hours, minutes, seconds),
        _ => return None,
    };
    (hours < 24 && minutes < 60 && seconds < 60).then_some(())?;
    Some(Day::parse(day)?.begins() + hours * 3600 + minutes * 60 + seconds)
}

/// A stretch of time in seconds: `30s`, `90m`, `12h`, `3d`.
pub(crate) fn duration(text: &str) -> Option<u64> {
    let unit = text.chars().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => DAY_SECONDS,
        _ => return None,
    };
    text[..text.len() - 1].parse::<u64>().ok()?.checked_mul(seconds)
}

/// A moment for people: `2026-11-28 10:30:00` in UTC.
pub(crate) fn shown(unix_seconds: u64) -> String {
    let of_day = unix_seconds % DAY_SECONDS;
    format!("{} {:02}:{:02}:{:02}", Day::of(unix_seconds), of_day / 3600, of_day / 60 % 60, of_day % 60)
}

fn two_digits(text: &str) -> Option<u64> {
    (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates_or_so_long_ago() {
        let noon = 1_795_867_200;
        assert_eq!(shown(noon), "2026-11-28 12:00:00");
        for text in ["2026-11-28T12:00:00Z", "2026-11-28 12:00", "2026-11-28T12:00"] {
            assert_eq!(parse(text, 0), Some(noon), "{text}");
        }
        assert_eq!(parse("2026-11-28", 0), Some(noon - 12 * 3600));
        assert_eq!(parse("90m", noon), Some(noon - 5400));
        assert_eq!(parse("99999d", noon), Some(0));
        for wrong in ["", "noon", "2026-11-31", "2026-11-28T24:00", "2026-11-28T1:00", "-1h", "1w", "d"] {
            assert_eq!(parse(wrong, noon), None, "{wrong}");
        }
    }
}
