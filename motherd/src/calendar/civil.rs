//! The proleptic Gregorian calendar: days since 1970 to dates and back, and RFC 3339.
//!
//! The arithmetic is the usual one with years that begin in March, so that the leap day is the last of its year; a test
//! holds it against another implementation, day by day.

use std::{fmt, time::Duration};

/// Seconds in a day; UTC as the kernel counts it has no leap seconds.
const DAY: i64 = 24 * 3600;
/// Days in 400 years, after which the calendar repeats.
const ERA: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const TO_1970: i64 = 719_468;

/// A day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    /// 1970 to 9999, as far as this program is concerned.
    pub year: i64,
    /// 1 to 12.
    pub month: i64,
    /// 1 to 31.
    pub day: i64,
}

impl Date {
    /// The date that is so many days after 1970-01-01.
    #[must_use]
    pub fn from_days(days: i64) -> Self {
        let shifted = days + TO_1970;
        let era = shifted.div_euclid(ERA);
        let day_of_era = shifted.rem_euclid(ERA);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self { year: year_of_era + era * 400 + i64::from(month <= 2), month, day }
    }

    /// Days since 1970-01-01.
    #[must_use]
    pub fn days(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let from_march = (self.month + 9) % 12;
        let day_of_year = (153 * from_march + 2) / 5 + self.day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        era * ERA + day_of_era - TO_1970
    }

    /// 0 is Monday.
    #[must_use]
    pub fn weekday(self) -> i64 {
        (self.days() + 3).rem_euclid(7)
    }

    /// 28 to 31.
    #[must_use]
    pub fn days_in_month(year: i64, month: i64) -> i64 {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        match month {
            2 => 28 + i64::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    /// Whether the calendar has this day.
    #[must_use]
    pub fn exists(self) -> bool {
        (1..=12).contains(&self.month) && (1..=Self::days_in_month(self.year, self.month)).contains(&self.day)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// An instant, to the second, as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Civil {
    /// The day.
    pub date: Date,
    /// 0 to 23.
    pub hour: i64,
    /// 0 to 59.
    pub minute: i64,
    /// 0 to 59.
    pub second: i64,
}

impl Civil {
    /// From seconds since 1970.
    #[must_use]
    pub fn from_unix(seconds: i64) -> Self {
        let of_day = seconds.rem_euclid(DAY);
        Self {
            date: Date::from_days(seconds.div_euclid(DAY)),
            hour: of_day / 3600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
        }
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn unix(self) -> i64 {
        self.date.days() * DAY + self.hour * 3600 + self.minute * 60 + self.second
    }

    /// Reads `2026-11-22`, `2026-11-22 23:50`, `2026-11-22T23:50:01`, `2026-11-22T23:50:01.5Z`: what is left out is 0, a
    /// fraction is returned beside it.
    #[must_use]
    pub fn parse(text: &str) -> Option<(Self, Duration)> {
        let text = text.strip_suffix('Z').unwrap_or(text);
        let (date, time) = match text.split_once(['T', ' ']) {
            Some((date, time)) => (date, time),
            None => (text, "00:00"),
        };
        let mut fields = date.split('-');
        let mut field = |digits: usize| number(fields.next()?, digits);
        let date = Date { year: field(4)?, month: field(2)?, day: field(2)? };
        let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
        let mut parts = time.split(':');
        let hour = number(parts.next()?, 2)?;
        let minute = number(parts.next()?, 2)?;
        let second = parts.next().map_or(Some(0), |part| number(part, 2))?;
        let sound = date.exists() && date.year >= 1970 && hour < 24 && minute < 60 && second < 60;
        let whole = fields.next().is_none() && parts.next().is_none();
        let digits = (1..=9).contains(&fraction.len()) && fraction.bytes().all(|byte| byte.is_ascii_digit());
        let nanoseconds = format!("{fraction:0<9}").parse().ok().filter(|_| digits)?;
        (sound && whole).then_some((Self { date, hour, minute, second }, Duration::from_nanos(nanoseconds)))
    }
}

/// Exactly so many digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

impl fmt::Display for Civil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, hour, minute, second } = self;
        write!(f, "{date} {hour:02}:{minute:02}:{second:02}")
    }
}

/// RFC 3339 with microseconds: `2026-11-22T23:50:01.000042Z`. It has 27 bytes until the year 10000.
#[must_use]
pub fn timestamp(since_1970: Duration) -> String {
    let seconds = i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX / 2);
    let Civil { date, hour, minute, second } = Civil::from_unix(seconds);
    format!("{date}T{hour:02}:{minute:02}:{second:02}.{:06}Z", since_1970.subsec_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_days_that_everybody_knows() {
        let check = |days: i64, year: i64, month: i64, day: i64, weekday: i64| {
            let date = Date { year, month, day };
            assert_eq!(Date::from_days(days), date);
            assert_eq!((date.days(), date.weekday()), (days, weekday), "{date}");
        };
        check(0, 1970, 1, 1, 3);
        check(11_016, 2000, 2, 29, 1);
        check(11_017, 2000, 3, 1, 2);
        check(20_779, 2026, 11, 22, 6);
        check(47_540, 2100, 2, 28, 6);
        check(47_541, 2100, 3, 1, 0);
    }

    #[test]
    fn every_day_of_a_thousand_years_is_the_day_after_the_one_before() {
        let mut date = Date { year: 1970, month: 1, day: 1 };
        for days in 0..365_250 {
            assert_eq!(Date::from_days(days), date);
            assert_eq!(date.days(), days);
            date.day += 1;
            if !date.exists() {
                date = Date { month: date.month + 1, day: 1, ..date };
            }
            if !date.exists() {
                date = Date { year: date.year + 1, month: 1, day: 1 };
            }
        }
    }

    #[test]
    fn a_timestamp_is_read_as_it_was_written_and_sorts_as_time_does() {
        let time = Duration::new(1_795_391_401, 42_000);
        assert_eq!(timestamp(time), "2026-11-22T23:50:01.000042Z");
        let (civil, fraction) = Civil::parse(&timestamp(time)).unwrap();
        assert_eq!((civil.unix(), fraction), (1_795_391_401, Duration::from_micros(42)));
        assert!(timestamp(time) < timestamp(time + Duration::from_micros(1)));
    }

    #[test]
    fn what_is_left_out_of_a_time_is_zero_and_what_is_no_time_is_refused() {
        let unix = |text: &str| Civil::parse(text).map(|(civil, _)| civil.unix());
        assert_eq!(unix("2026-11-22"), Some(1_795_305_600));
        assert_eq!(unix("2026-11-22 23:50"), unix("2026-11-22T23:50:00Z"));
        for wrong in [
            "",
            "2026",
            "2026-02-29",
            "2026-13-01",
            "2026-1-1",
            "2026-11-22 24:00",
            "2026-11-22T1:2",
            "x-y-z",
            "2026-11-22T23:50:60",
            "2026-11-22T23:50:01.",
            "2026-11-22T23:50:01.x",
            "1969-01-01",
            "2026-11-22-1",
        ] {
            assert_eq!(unix(wrong), None, "{wrong}");
        }
    }
}
