//! `motherctl timers`.

use super::{
    human::{duration, printable},
    style::Style,
};
use crate::control::protocol::TimerStatus;

/// A line for each timer, the next one first.
pub(crate) fn timers(timers: &[TimerStatus], style: Style) -> String {
    let mut sorted: Vec<&TimerStatus> = timers.iter().collect();
    sorted.sort_by_key(|timer| timer.next_in_usec.unwrap_or(u64::MAX));
    let mut rows = vec![["SERVICE", "IN", "NEXT", "LAST", "SCHEDULE"].map(str::to_owned)];
    for timer in sorted {
        let time = |time: &Option<String>| match time {
            Some(time) => printable(time.get(..19).unwrap_or(time)).replace('T', " "),
            None => "-".to_owned(),
        };
        let caught_up = if timer.persistent { ", persistent" } else { "" };
        rows.push([
            printable(&timer.service),
            timer.next_in_usec.map_or("-".to_owned(), duration),
            time(&timer.next),
            time(&timer.last),
            printable(&timer.schedule) + caught_up,
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let line = cells.join("  ").trim_end().to_owned();
        text.push_str(&if number == 0 { style.bold(&line) } else { line });
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::samples::timer;

    #[test]
    fn the_next_one_comes_first() {
        let never = TimerStatus { next: None, next_in_usec: None, persistent: false, ..timer() };
        let expected = "\
SERVICE  IN      NEXT                 LAST  SCHEDULE
web      3h 10m  2026-11-23 03:00:00  -     daily 03:00, persistent
web      -       -                    -     daily 03:00
";
        assert_eq!(timers(&[never, timer()], Style::PLAIN), expected);
    }
}
