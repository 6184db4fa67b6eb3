//! `[[timer]]`: when a service is started by itself.

use std::{fmt, time::Duration};

use sandbox::diagnostic::{Diagnostic, Located, Place};
use toml::de::DeTable;

use super::{
    raw::{RawService, Reader},
    validate::Checker,
};
use crate::calendar::Calendar;

/// The shortest `every` and `after_start`: what is to happen more often is a service that runs.
const SHORTEST: Duration = Duration::from_secs(1);
/// The keys that say when; each timer has one.
const WHEN: [&str; 4] = ["calendar", "every", "after_boot", "after_start"];

/// One `[[timer]]` as it is written.
#[derive(Debug)]
pub(crate) struct RawTimer {
    pub(crate) at: Place,
    /// By the order of [`WHEN`].
    pub(crate) when: [Option<Located<String>>; 4],
    pub(crate) persistent: Option<Located<bool>>,
    pub(crate) jitter: Option<Located<String>>,
}

/// One checked timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    /// When.
    pub schedule: Schedule,
    /// What was missed while the machine was off is made up for, once.
    pub persistent: bool,
    /// Each time comes later by less than this.
    pub jitter: Duration,
}

/// When a timer goes off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// By the calendar, in UTC.
    Calendar(Calendar),
    /// Again and again, counted from when motherd first knew of it.
    Every(Duration),
    /// Once, so long after the boot.
    AfterBoot(Duration),
    /// So long after each start of the service.
    AfterStart(Duration),
}

impl fmt::Display for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schedule {
            Schedule::Calendar(calendar) => write!(f, "{calendar}"),
            Schedule::Every(time) => write!(f, "every {}", written(*time)),
            Schedule::AfterBoot(time) => write!(f, "{} after boot", written(*time)),
            Schedule::AfterStart(time) => write!(f, "{} after its start", written(*time)),
        }
    }
}

/// `15m`, as somebody would write it.
fn written(time: Duration) -> String {
    let milliseconds = time.as_millis();
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if milliseconds >= size && milliseconds.is_multiple_of(size) {
            return format!("{}{unit}", milliseconds / size);
        }
    }
    format!("{milliseconds}ms")
}

impl Reader<'_> {
    /// Every `[[timer]]`.
    pub(super) fn timers(&mut self, table: &DeTable<'_>, raw: &mut RawService) {
        const KEYS: [&str; 6] = ["calendar", "every", "after_boot", "after_start", "persistent", "jitter"];
        for (timer, at) in self.tables(table, "timer", &KEYS) {
            raw.timers.push(RawTimer {
                at,
                when: WHEN.map(|key| self.string(timer, key)),
                persistent: self.boolean(timer, "persistent"),
                jitter: self.string(timer, "jitter"),
            });
        }
    }

    /// The tables of an array of tables, each with its place.
    pub(super) fn tables<'t>(
        &mut self,
        table: &'t DeTable<'t>,
        key: &str,
        keys: &[&str],
    ) -> Vec<(&'t DeTable<'t>, Place)> {
        let Some((name, entry)) = table.get_key_value(key) else { return vec![] };
        let Some(array) = entry.get_ref().as_array() else {
            self.wrong_type(key, entry, &format!("an array of tables, `[[{key}]]`"));
            return vec![];
        };
        let mut found = Vec::new();
        for item in array.iter() {
            let Some(inner) = item.get_ref().as_table() else {
                self.wrong_type(key, item, &format!("a table, `[[{key}]]`"));
                continue;
            };
            self.known(inner, &format!("[[{key}]]"), keys);
            // The span of a table that is written with a header is the header's.
            let span = if item.span().is_empty() { name.span() } else { item.span() };
            found.push((inner, self.place(span)));
        }
        found
    }
}

impl Checker<'_> {
    /// Every timer; the wrong ones are told and left out.
    pub(super) fn timers(&mut self, raw: &RawService) -> Vec<Timer> {
        raw.timers.iter().filter_map(|timer| self.timer(timer)).collect()
    }

    fn timer(&mut self, raw: &RawTimer) -> Option<Timer> {
        let mut given = WHEN.iter().zip(&raw.when).filter_map(|(key, value)| Some((*key, value.as_ref()?)));
        let Some((key, written)) = given.next() else {
            self.refuse(
                "bad-timer",
                &raw.at,
                "this timer never goes off",
                format!("give it one of {}", WHEN.join(", ")),
            );
            return None;
        };
        if let Some((other, second)) = given.next() {
            self.refuse(
                "bad-timer",
                &second.at,
                format!("a timer has one of `{key}` and `{other}`"),
                "write a [[timer]] for each",
            );
            return None;
        }
        let jitter = self.duration(raw.jitter.as_ref());
        let schedule = match key {
            "calendar" => Schedule::Calendar(self.calendar(written)?),
            "after_boot" => Schedule::AfterBoot(self.duration(Some(written))?),
            key => {
                let time = self.duration(Some(written))?;
                if time < SHORTEST {
                    let help = "what is to happen more often is a service that runs";
                    self.refuse("bad-timer", &written.at, format!("`{key}` is at least 1s"), help);
                    return None;
                }
                if key == "every" { Schedule::Every(time) } else { Schedule::AfterStart(time) }
            }
        };
        if let (Some(persistent), false) = (&raw.persistent, matches!(schedule, Schedule::Calendar(_))) {
            self.refuse(
                "bad-timer",
                &persistent.at,
                format!("`persistent` goes with `calendar`, not with `{key}`"),
                "the other timers begin anew with each boot: there is nothing to catch up with",
            );
            return None;
        }
        let persistent = raw.persistent.as_ref().is_some_and(|persistent| persistent.value);
        Some(Timer { schedule, persistent, jitter: jitter.unwrap_or_default() })
    }

    fn calendar(&mut self, written: &Located<String>) -> Option<Calendar> {
        match Calendar::parse(&written.value) {
            Ok(calendar) => Some(calendar),
            Err(wrong) => {
                // Behind the opening quote; a literal with escapes has none of the words of a calendar.
                let start = written.at.span.start + 1 + wrong.span.start;
                let end = (start + wrong.span.len()).min(written.at.span.end);
                let part = if wrong.span.is_empty() { written.at.span.clone() } else { start..end };
                let at = Place { file: written.at.file, span: part };
                let message = format!("\"{}\" is not a calendar time: {}", written.value, wrong.why);
                let problem = Diagnostic::error("bad-calendar", at, message).help(
                    "for instance \"hourly\", \"daily 03:00\", \"weekly mon 04:00\", \"mon..fri 09:00\", \"*-*-01 00:30\", \
                     \"*:0/15\"; times are UTC",
                );
                self.report(match wrong.near {
                    Some(near) => problem.label(format!("did you mean `{near}`?")),
                    None => problem,
                });
                None
            }
        }
    }
}
