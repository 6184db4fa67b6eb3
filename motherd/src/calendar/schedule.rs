//! `daily 03:00`, `mon..fri *:0/15`, `*-*-01 04:30`: a calendar expression, and when it comes next.
//!
//! ```text
//! expression = [ "hourly" | "daily" | "weekly" | "monthly" | "yearly" ] [ weekdays ] [ date ] [ time ]
//! weekdays   = day { ("," | "..") day }             mon tue wed thu fri sat sun
//! date       = year "-" month "-" day               each a field
//! time       = hour ":" minute [ ":" second ]       each a field
//! field      = item { "," item }
//! item       = ( "*" | number | number ".." number ) [ "/" step ]
//! ```
//!
//! A word only says what is left out: `hourly` is `*:00`, `daily` 00:00, `weekly` Monday, `monthly` the first, `yearly`
//! the first of January. Weekdays and date have both to be right. Times are UTC.

use std::fmt;

use super::{Civil, Date};

/// The last year of an expression.
const YEAR_MAX: i64 = 2199;
const YEAR_MIN: i64 = 1970;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const WORDS: [&str; 5] = ["hourly", "daily", "weekly", "monthly", "yearly"];

/// A checked expression: some day and time fit it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    text: String,
    /// Bit 0 is Monday.
    weekdays: u64,
    /// `None`: every one.
    years: Option<Vec<i64>>,
    months: u64,
    days: u64,
    hours: u64,
    minutes: u64,
    seconds: u64,
}

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// For people.
    pub why: String,
    /// Where in the text, in bytes.
    pub span: std::ops::Range<usize>,
    /// The nearest word that is one.
    pub near: Option<&'static str>,
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Calendar {
    /// Reads an expression.
    ///
    /// # Errors
    /// With the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = |why: &str, span| Wrong { why: why.to_owned(), span, near: None };
        let mut calendar = Self {
            text: text.to_owned(),
            weekdays: all(0, 6),
            years: None,
            months: all(1, 12),
            days: all(1, 31),
            hours: 1,
            minutes: 1,
            seconds: 1,
        };
        let mut stage = 0;
        for (part, span) in parts(text) {
            let kind = kind_of(part);
            if kind <= stage && stage > 0 {
                return Err(wrong(
                    "the order is: a word, days of the week, a date, a time; each at most once",
                    span,
                ));
            }
            stage = kind;
            match kind {
                1 => calendar.word(part),
                2 => calendar.weekdays = weekdays(part, &span)?,
                3 => calendar.date(part, &span)?,
                4 => calendar.time(part, &span)?,
                _ => return Err(unknown(part, span)),
            }
        }
        if stage == 0 {
            return Err(wrong("it is empty", 0..text.len()));
        }
        // From the first second on that an expression can mean.
        match calendar.next(-1) {
            Some(_) => Ok(calendar),
            None => Err(wrong("there is no such day", 0..text.len())),
        }
    }

    fn word(&mut self, word: &str) {
        match word {
            "hourly" => self.hours = all(0, 23),
            "weekly" => self.weekdays = 1,
            "monthly" => self.days = bit(1),
            "yearly" => (self.days, self.months) = (bit(1), bit(1)),
            _ => {}
        }
    }

    fn date(&mut self, part: &str, span: &std::ops::Range<usize>) -> Result<(), Wrong> {
        let fields: Vec<&str> = part.split('-').collect();
        let [year, month, day] = fields[..] else {
            let why = "a date is year-month-day: *-*-01, *-12-24, 2027-01-01".to_owned();
            return Err(Wrong { why, span: span.clone(), near: None });
        };
        let of = |text, min, max, what| field(text, min, max, what).map_err(|why| at(why, span));
        if year != "*" {
            self.years = Some(of(year, YEAR_MIN, YEAR_MAX, "year")?);
        }
        self.months = bits(&of(month, 1, 12, "month")?);
        self.days = bits(&of(day, 1, 31, "day")?);
        Ok(())
    }

    fn time(&mut self, part: &str, span: &std::ops::Range<usize>) -> Result<(), Wrong> {
        if part.contains(',') && part.split(',').all(|item| item.contains(':')) {
            let why = "these are several times of day: write a [[timer]] for each".to_owned();
            return Err(at(why, span));
        }
        let fields: Vec<&str> = part.split(':').collect();
        let (hour, minute, second) = match fields[..] {
            [hour, minute] => (hour, minute, "0"),
            [hour, minute, second] => (hour, minute, second),
            _ => return Err(at("a time is hour:minute or hour:minute:second".to_owned(), span)),
        };
        let of = |text, max, what| field(text, 0, max, what).map_err(|why| at(why, span));
        self.hours = bits(&of(hour, 23, "hour")?);
        self.minutes = bits(&of(minute, 59, "minute")?);
        self.seconds = bits(&of(second, 59, "second")?);
        Ok(())
    }

    /// The first second after this one, both since 1970, that fits. `None`: there is none up to the year 2199.
    #[must_use]
    pub fn next(&self, after: i64) -> Option<i64> {
        let from = Civil::from_unix(after.saturating_add(1).max(0));
        let mut days = from.date.days();
        let mut earliest = (from.hour, from.minute, from.second);
        loop {
            let date = Date::from_days(days);
            if date.year > YEAR_MAX {
                return None;
            }
            if self.years.as_ref().is_some_and(|years| !years.contains(&date.year)) {
                days = Date { year: date.year + 1, month: 1, day: 1 }.days();
                earliest = (0, 0, 0);
                continue;
            }
            if self.is_day(date)
                && let Some((hour, minute, second)) = self.time_from(earliest)
            {
                return Some(Civil { date, hour, minute, second }.unix());
            }
            days += 1;
            earliest = (0, 0, 0);
        }
    }

    fn is_day(&self, date: Date) -> bool {
        has(self.months, date.month) && has(self.days, date.day) && has(self.weekdays, date.weekday())
    }

    /// The first time of a day at or after this one.
    fn time_from(&self, (hour, minute, second): (i64, i64, i64)) -> Option<(i64, i64, i64)> {
        let first = |set, from| (from..64).find(|number| has(set, *number));
        let (first_minute, first_second) = (first(self.minutes, 0)?, first(self.seconds, 0)?);
        if has(self.hours, hour) {
            if has(self.minutes, minute)
                && let Some(second) = first(self.seconds, second)
            {
                return Some((hour, minute, second));
            }
            if let Some(minute) = first(self.minutes, minute + 1) {
                return Some((hour, minute, first_second));
            }
        }
        Some((first(self.hours, hour + 1)?, first_minute, first_second))
    }
}

/// The words of a text with their places.
fn parts(text: &str) -> impl Iterator<Item = (&str, std::ops::Range<usize>)> {
    text.split(' ')
        .scan(0, |at, part| {
            let start = *at;
            *at += part.len() + 1;
            Some((part, start..start + part.len()))
        })
        .filter(|(part, _)| !part.is_empty())
}

/// 1 a word, 2 days of the week, 3 a date, 4 a time, 5 none of them.
fn kind_of(part: &str) -> u8 {
    if WORDS.contains(&part) {
        1
    } else if part.contains(':') {
        4
    } else if part.contains('-') {
        3
    } else if part.split([',', '.']).any(|word| DAYS.contains(&word)) {
        2
    } else {
        5
    }
}

fn unknown(part: &str, span: std::ops::Range<usize>) -> Wrong {
    let near = sandbox::diagnostic::nearest(part, WORDS.into_iter().chain(DAYS));
    Wrong { why: format!("`{part}` is no word, day of the week, date or time"), span, near }
}

fn at(why: String, span: &std::ops::Range<usize>) -> Wrong {
    Wrong { why, span: span.clone(), near: None }
}

fn weekdays(part: &str, span: &std::ops::Range<usize>) -> Result<u64, Wrong> {
    let number = |word: &str| {
        DAYS.iter().position(|day| *day == word).and_then(|day| i64::try_from(day).ok()).ok_or_else(|| {
            Wrong {
                why: format!("`{word}` is no day of the week: mon tue wed thu fri sat sun"),
                span: span.clone(),
                near: sandbox::diagnostic::nearest(word, DAYS),
            }
        })
    };
    let mut set = 0;
    for item in part.split(',') {
        let (first, last) = match item.split_once("..") {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(item)?, number(item)?),
        };
        // `fri..mon` goes around the week.
        let mut day = first;
        set |= bit(day);
        while day != last {
            day = (day + 1) % 7;
            set |= bit(day);
        }
    }
    Ok(set)
}

fn field(text: &str, min: i64, max: i64, what: &str) -> Result<Vec<i64>, String> {
    let shape =
        || format!("`{text}` is no {what}: it is *, a number, a list 1,2, a range 1..5, or a step 0/15");
    let number = |text: &str| -> Result<i64, String> {
        let digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
        let number: i64 = text.parse().ok().filter(|_| digits).ok_or_else(shape)?;
        if (min..=max).contains(&number) {
            Ok(number)
        } else {
            Err(format!("{number} is no {what}: it is between {min} and {max}"))
        }
    };
    let mut found = Vec::new();
    for item in text.split(',') {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => {
                let steps = step.parse::<i64>().ok().filter(|step| (1..=max).contains(step));
                (range, Some(steps.ok_or_else(|| format!("`{step}` is no step: it is between 1 and {max}"))?))
            }
            None => (item, None),
        };
        let (first, last) = match (range, range.split_once("..")) {
            ("*", _) => (min, max),
            (_, Some((first, last))) => (number(first)?, number(last)?),
            (one, None) => (number(one)?, if step.is_some() { max } else { number(one)? }),
        };
        if first > last {
            return Err(format!("{first} comes after {last}"));
        }
        found.extend((first..=last).step_by(usize::try_from(step.unwrap_or(1)).unwrap_or(1)));
    }
    Ok(found)
}

fn bit(number: i64) -> u64 {
    1 << number
}

fn has(set: u64, number: i64) -> bool {
    (0..64).contains(&number) && set & bit(number) != 0
}

fn all(first: i64, last: i64) -> u64 {
    (first..=last).fold(0, |set, number| set | bit(number))
}

fn bits(numbers: &[i64]) -> u64 {
    numbers.iter().fold(0, |set, number| set | bit(*number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unix(text: &str) -> i64 {
        Civil::parse(text).unwrap().0.unix()
    }

    /// When it comes, one after the other.
    fn check(expression: &str, after: &str, expected: &[&str]) {
        let calendar = Calendar::parse(expression).unwrap();
        let mut at = unix(after);
        for expected in expected {
            at = calendar.next(at).unwrap();
            assert_eq!(Civil::from_unix(at).to_string(), *expected, "{expression} after {after}");
        }
    }

    #[test]
    fn each_form_comes_when_it_says() {
        let sunday = "2026-11-22 23:50";
        check("daily 03:00", sunday, &["2026-11-23 03:00:00", "2026-11-24 03:00:00"]);
        check("daily", sunday, &["2026-11-23 00:00:00"]);
        check("hourly", sunday, &["2026-11-23 00:00:00", "2026-11-23 01:00:00"]);
        check("weekly", sunday, &["2026-11-23 00:00:00", "2026-11-30 00:00:00"]);
        check("weekly mon 04:00", sunday, &["2026-11-23 04:00:00", "2026-11-30 04:00:00"]);
        check("monthly 01:30", sunday, &["2026-12-01 01:30:00", "2027-01-01 01:30:00"]);
        check("yearly", sunday, &["2027-01-01 00:00:00", "2028-01-01 00:00:00"]);
        check("*:0/15", sunday, &["2026-11-23 00:00:00", "2026-11-23 00:15:00", "2026-11-23 00:30:00"]);
        check("*:*:0/20", sunday, &["2026-11-22 23:50:20", "2026-11-22 23:50:40", "2026-11-22 23:51:00"]);
        check(
            "mon..fri 09,17:30",
            sunday,
            &["2026-11-23 09:30:00", "2026-11-23 17:30:00", "2026-11-24 09:30:00"],
        );
        check("sat,sun 10:00", sunday, &["2026-11-28 10:00:00", "2026-11-29 10:00:00"]);
        check("fri..mon 10:00", sunday, &["2026-11-23 10:00:00", "2026-11-27 10:00:00"]);
        check("*-*-1,15 12:00", sunday, &["2026-12-01 12:00:00", "2026-12-15 12:00:00"]);
        check("2027-01-01", sunday, &["2027-01-01 00:00:00"]);
        check("*-02-29", sunday, &["2028-02-29 00:00:00", "2032-02-29 00:00:00"]);
        check("*-*-31", "2026-01-31", &["2026-03-31 00:00:00"]);
        check("fri *-*-13", sunday, &["2027-08-13 00:00:00"]);
    }

    #[test]
    fn a_date_that_is_over_never_comes_again() {
        assert_eq!(Calendar::parse("2026-01-01").unwrap().next(unix("2026-01-01")), None);
    }

    #[test]
    fn what_is_wrong_has_its_place_and_the_nearest_word() {
        let check = |text: &str, part: &str, near| {
            let wrong = Calendar::parse(text).expect_err(text);
            assert_eq!((&text[wrong.span.clone()], wrong.near), (part, near), "{text}: {}", wrong.why);
        };
        check("", "", None);
        check("dialy 03:00", "dialy", Some("daily"));
        check("weekly mom 04:00", "mom", Some("mon"));
        check("mon,tus 04:00", "mon,tus", Some("tue"));
        check("daily 24:00", "24:00", None);
        check("daily 3", "3", None);
        check("daily 03:00 mon", "mon", None);
        check("03:00 04:00", "04:00", None);
        check("*-13-01", "*-13-01", None);
        check("*-02-30", "*-02-30", None);
        check("*-01", "*-01", None);
        check("*:0/0", "*:0/0", None);
        check("*:5..1", "*:5..1", None);
        check("*:+5", "*:+5", None);
        check("1:2:3:4", "1:2:3:4", None);
        check("daily 09:00,17:30", "09:00,17:30", None);
    }

    /// As written, field by field and second by second, without the arithmetic of `next`.
    fn fits(calendar: &Calendar, at: i64) -> bool {
        let civil = Civil::from_unix(at);
        calendar.is_day(civil.date)
            && has(calendar.hours, civil.hour)
            && has(calendar.minutes, civil.minute)
            && has(calendar.seconds, civil.second)
            && calendar.years.as_ref().is_none_or(|years| years.contains(&civil.date.year))
    }

    fn fields(min: i64, max: i64) -> impl Strategy<Value = String> {
        prop_oneof![
            Just("*".to_owned()),
            (min..=max).prop_map(|number| number.to_string()),
            (min..=max, 1..=max).prop_map(|(number, step)| format!("{number}/{step}")),
            (min..=max, min..=max).prop_map(|(one, other)| format!("{}..{}", one.min(other), one.max(other))),
            (min..=max, min..=max).prop_map(|(one, other)| format!("{one},{other}")),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

        /// The next time fits, and no second between does.
        #[test]
        fn nothing_is_skipped_and_nothing_is_early(
            (hour, minute, second) in (fields(0, 23), fields(0, 59), fields(0, 59)),
            day in fields(1, 31),
            after in 1_795_000_000_i64..1_900_000_000,
        ) {
            // Refused, since it looks like several times of day.
            prop_assume!(!minute.contains(','));
            let calendar = Calendar::parse(&format!("*-*-{day} {hour}:{minute}:{second}")).unwrap();
            let next = calendar.next(after).unwrap();
            prop_assert!(next > after && fits(&calendar, next));
            let until = next.min(after + 2 * 24 * 3600);
            prop_assert!((after + 1..until).all(|at| !fits(&calendar, at)));
            prop_assert_eq!(calendar.next(next - 1), Some(next));
        }
    }
}
