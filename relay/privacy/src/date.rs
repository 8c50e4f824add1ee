//! Days and months of UTC, by the proleptic Gregorian calendar.

use std::fmt;

/// Seconds of a day.
pub const DAY_SECONDS: u64 = 86_400;

/// A day of UTC, counted from 1 January 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Day(pub u32);

impl Day {
    /// The last day that has a date of four digits: 31 December 9999.
    pub const LAST: Day = Day(2_932_896);

    /// The day of a moment; [`Day::LAST`] for everything after it.
    pub fn of(unix_seconds: u64) -> Self {
        Day(u32::try_from(unix_seconds / DAY_SECONDS).unwrap_or(u32::MAX)).min(Self::LAST)
    }

    /// Its first second.
    pub fn begins(self) -> u64 {
        u64::from(self.0) * DAY_SECONDS
    }

    /// The day that its `Display` wrote, as `2026-11-28`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits =
            |part: &str, count| (part.len() == count && part.bytes().all(|b| b.is_ascii_digit())).then_some(());
        let mut parts = text.split('-');
        let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
        digits(year, 4)?;
        digits(month, 2)?;
        digits(day, 2)?;
        let found = from_civil(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)?;
        (parts.next().is_none() && found.to_string() == text).then_some(found)
    }

    /// Its month, as `2026-11`.
    pub fn month(self) -> String {
        let (year, month, _) = civil(self);
        format!("{year:04}-{month:02}")
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(*self);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// Days before 1 January 1970, counted from 1 March of the year 0: eras of 400 years begin there.
const EPOCH_SHIFT: u64 = 719_468;
const ERA_DAYS: u64 = 146_097;

fn civil(day: Day) -> (u64, u64, u64) {
    let shifted = u64::from(day.0) + EPOCH_SHIFT;
    let (era, of_era) = (shifted / ERA_DAYS, shifted % ERA_DAYS);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, of_year - (153 * from_march + 2) / 5 + 1)
}

fn from_civil(year: u64, month: u64, day: u64) -> Option<Day> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year < 1970 {
        return None;
    }
    let year = year - u64::from(month <= 2);
    let year_of_era = year % 400;
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + (153 * from_march + 2) / 5 + day - 1;
    u32::try_from((year / 400 * ERA_DAYS + of_era).checked_sub(EPOCH_SHIFT)?).ok().map(Day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_the_calendars_dates() {
        for (unix, date) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_795_867_199, "2026-11-28"),
            (4_107_542_400, "2100-03-01"),
            (u64::MAX, "9999-12-31"),
        ] {
            assert_eq!(Day::of(unix).to_string(), date);
            assert_eq!(Day::parse(date), Some(Day::of(unix)));
        }
        assert_eq!(Day::of(1_795_867_199).month(), "2026-11");
    }

    #[test]
    fn every_day_is_read_back_as_it_was_written() {
        for day in (0..=Day::LAST.0).step_by(7).map(Day) {
            assert_eq!(Day::parse(&day.to_string()), Some(day));
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in
            ["", "2026-02-29", "2026-13-01", "2026-1-1", "1969-12-31", "2026-11-28-", "+026-11-28", "2026-11-00"]
        {
            assert_eq!(Day::parse(text), None, "{text}");
        }
    }
}
