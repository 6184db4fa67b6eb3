//! Bytes of a service to lines of its log. Pure: the clock and the files are elsewhere.
//!
//! ```text
//! 2026-11-22T23:50:01.000042Z what the service wrote
//! 2026-11-22T23:50:01.000042Z+the rest of a line that was too long for one
//! 2026-11-22T23:50:02.000000Z!7 lines dropped (log.rate)                      motherd's own words
//! ```
//!
//! The time has 27 bytes, and the byte after it says whose words follow: a service cannot write a `!` there. Bytes are
//! kept as they came, whatever they are. A part of a line is written as soon as it is there, so what a service wrote
//! before it died is in its log; its next part goes on in the same line.

use std::time::Duration;

use crate::service::LogRate;

/// `2026-11-22T23:50:01.000042Z`
pub(crate) const STAMP: usize = 27;

/// What is carried from the bytes of one read to those of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Carry {
    /// The log ends within a line that has so many bytes of the service; `None`: at the end of one.
    pub(crate) open: Option<u32>,
    /// The rest of the service's line is dropped, since its beginning was.
    pub(crate) dropping: bool,
    /// When the current time of the rate began, on CLOCK_BOOTTIME.
    pub(crate) window: Duration,
    /// How many lines began in it.
    pub(crate) in_window: u32,
    /// Lines that were dropped and not told of yet.
    pub(crate) unsaid: u64,
    /// All lines that were ever dropped.
    pub(crate) dropped: u64,
}

/// How lines are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape<'a> {
    /// CLOCK_BOOTTIME, for the rate.
    pub(crate) now: Duration,
    /// CLOCK_REALTIME as text.
    pub(crate) stamp: &'a str,
    pub(crate) rate: Option<LogRate>,
    /// A line with more bytes is broken.
    pub(crate) longest: usize,
}

/// What is to be written: bytes, and where in them lines begin.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) bytes: Vec<u8>,
    pub(crate) starts: Vec<usize>,
}

impl Carry {
    /// Takes what the service wrote.
    pub(crate) fn take(&mut self, mut bytes: &[u8], shape: &Shape<'_>, text: &mut Text) {
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            self.part(line, shape, text);
            if end.is_some() {
                self.end(shape, text);
                bytes = &rest[1..];
            } else {
                bytes = rest;
            }
        }
    }

    /// The service has ended: so does its line, and what was dropped is told.
    pub(crate) fn finish(&mut self, shape: &Shape<'_>, text: &mut Text) {
        self.close(text);
        self.dropping = false;
        self.tell(shape, text);
    }

    /// Whether [`Carry::finish`] would write nothing and change nothing.
    pub(crate) fn is_finished(&self) -> bool {
        self.open.is_none() && !self.dropping && self.unsaid == 0
    }

    /// When what was dropped is to be told of, if anything is.
    pub(crate) fn due(&self, rate: Option<LogRate>) -> Option<Duration> {
        let per = rate.map_or(Duration::ZERO, |rate| rate.per);
        (self.unsaid > 0).then(|| self.window.saturating_add(per))
    }

    /// Tells of what was dropped, if its time has come.
    pub(crate) fn tick(&mut self, shape: &Shape<'_>, text: &mut Text) {
        if self.due(shape.rate).is_some_and(|due| shape.now >= due) {
            self.close(text);
            self.tell(shape, text);
        }
    }

    /// Tells of bytes that no disk took.
    pub(crate) fn tell_lost(&mut self, bytes: u64, shape: &Shape<'_>, text: &mut Text) {
        if bytes > 0 {
            self.close(text);
            say(&format!("{bytes} bytes were lost here: the log could not be written"), shape, text);
        }
    }

    /// The line ends here; what comes of it is one of its own.
    fn close(&mut self, text: &mut Text) {
        if self.open.take().is_some() {
            text.bytes.push(b'\n');
        }
    }

    /// A part of a line of the service, without its end.
    fn part(&mut self, mut part: &[u8], shape: &Shape<'_>, text: &mut Text) {
        while !part.is_empty() {
            let room = match self.open {
                _ if self.dropping => return,
                None => {
                    if !self.begin(b' ', shape, text) {
                        return;
                    }
                    shape.longest
                }
                Some(open) => shape.longest.saturating_sub(usize::try_from(open).unwrap_or(usize::MAX)),
            };
            if room == 0 {
                text.bytes.push(b'\n');
                self.open = None;
                if !self.begin(b'+', shape, text) {
                    return;
                }
                continue;
            }
            let (now, later) = part.split_at(part.len().min(room));
            text.bytes.extend_from_slice(now);
            let open = usize::try_from(self.open.unwrap_or(0)).unwrap_or(usize::MAX) + now.len();
            self.open = Some(u32::try_from(open).unwrap_or(u32::MAX));
            part = later;
        }
    }

    /// The end of a line of the service.
    fn end(&mut self, shape: &Shape<'_>, text: &mut Text) {
        if std::mem::take(&mut self.dropping) {
            return;
        }
        // An empty line is a line.
        if self.open.is_some() || self.begin(b' ', shape, text) {
            text.bytes.push(b'\n');
        }
        self.open = None;
        self.dropping = false;
    }

    /// Begins a line; `false`: it is one too many, and is dropped with its rest.
    fn begin(&mut self, whose: u8, shape: &Shape<'_>, text: &mut Text) -> bool {
        if let Some(rate) = shape.rate {
            if shape.now >= self.window.saturating_add(rate.per) || self.window > shape.now {
                self.window = shape.now;
                self.in_window = 0;
                self.tell(shape, text);
            }
            if self.in_window >= rate.lines {
                self.unsaid += 1;
                self.dropped += 1;
                self.dropping = true;
                return false;
            }
            self.in_window += 1;
        }
        begin_line(whose, shape, text);
        self.open = Some(0);
        true
    }

    fn tell(&mut self, shape: &Shape<'_>, text: &mut Text) {
        let lines = std::mem::take(&mut self.unsaid);
        if lines > 0 {
            say(
                &format!("{lines} {} dropped (log.rate)", if lines == 1 { "line" } else { "lines" }),
                shape,
                text,
            );
        }
    }
}

/// A line of motherd's own. The log has to be at the end of a line.
fn say(words: &str, shape: &Shape<'_>, text: &mut Text) {
    begin_line(b'!', shape, text);
    text.bytes.extend_from_slice(words.as_bytes());
    text.bytes.push(b'\n');
}

fn begin_line(whose: u8, shape: &Shape<'_>, text: &mut Text) {
    text.starts.push(text.bytes.len());
    text.bytes.extend_from_slice(shape.stamp.as_bytes());
    text.bytes.push(whose);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T: &str = "2026-11-22T23:50:01.000042Z";

    fn shape(seconds: u64, rate: Option<(u32, u64)>) -> Shape<'static> {
        let rate = rate.map(|(lines, per)| LogRate { lines, per: Duration::from_secs(per) });
        Shape { now: Duration::from_secs(1000 + seconds), stamp: T, rate, longest: 20 }
    }

    /// Takes each part at its second; the log, with `T` for the time.
    fn check(rate: Option<(u32, u64)>, parts: &[(u64, &str)], expected: &str) -> Carry {
        let (mut carry, mut text) = (Carry::default(), Text::default());
        for (second, part) in parts {
            carry.take(part.as_bytes(), &shape(*second, rate), &mut text);
        }
        assert_eq!(String::from_utf8_lossy(&text.bytes).replace(T, "T"), expected);
        for start in &text.starts {
            assert!(text.bytes[*start..].starts_with(T.as_bytes()));
        }
        assert_eq!(text.starts.len(), expected.matches('T').count());
        carry
    }

    #[test]
    fn each_line_has_its_time_and_an_empty_one_is_a_line() {
        check(None, &[(0, "one\ntwo\n\nthree\n")], "T one\nT two\nT \nT three\n");
    }

    #[test]
    fn a_part_of_a_line_is_written_at_once_and_goes_on() {
        let carry =
            check(None, &[(0, "one\nhal"), (1, "f"), (2, "\n"), (3, "\nx")], "T one\nT half\nT \nT x");
        assert_eq!(carry.open, Some(1));
        let mut text = Text::default();
        let mut carry = carry;
        carry.finish(&shape(4, None), &mut text);
        assert_eq!((text.bytes.as_slice(), carry.open), (b"\n".as_slice(), None));
    }

    #[test]
    fn a_line_that_is_too_long_is_broken_where_it_is_full() {
        check(None, &[(0, &"x".repeat(45)), (0, "\n")], &format!("T {0}\nT+{0}\nT+xxxxx\n", "x".repeat(20)));
        check(None, &[(0, &"x".repeat(20)), (0, "\ny\n")], &format!("T {}\nT y\n", "x".repeat(20)));
    }

    #[test]
    fn lines_beyond_the_rate_are_counted_and_told_of_before_the_next_that_is_kept() {
        let carry = check(
            Some((2, 1)),
            &[(0, "1\n2\n3\n4\n5 beg"), (0, "inning\n"), (1, "6\n"), (1, "7\n8\n")],
            "T 1\nT 2\nT!3 lines dropped (log.rate)\nT 6\nT 7\n",
        );
        assert_eq!((carry.unsaid, carry.dropped), (1, 4));
        assert_eq!(carry.due(shape(0, Some((2, 1))).rate), Some(Duration::from_secs(1002)));
        let (mut carry, mut text) = (carry, Text::default());
        carry.tick(&shape(1, Some((2, 1))), &mut text);
        assert_eq!(text, Text::default(), "its time has not come");
        carry.tick(&shape(2, Some((2, 1))), &mut text);
        assert_eq!(text.bytes, format!("{T}!1 line dropped (log.rate)\n").into_bytes());
    }

    #[test]
    fn a_flood_without_line_ends_is_bounded_by_the_rate_too() {
        let flood = "x".repeat(1000);
        let carry = check(
            Some((2, 1)),
            &[(0, &flood), (0, &flood), (0, "\nnext\n")],
            &format!("T {0}\nT+{0}\n", "x".repeat(20)),
        );
        assert_eq!(carry.dropped, 2, "the rest of the long line, and the next one");
    }

    #[test]
    fn a_service_cannot_speak_for_motherd() {
        let (mut carry, mut text) = (Carry::default(), Text::default());
        carry.take(format!("{T}!").as_bytes(), &Shape { longest: 40, ..shape(0, None) }, &mut text);
        assert_eq!(text.bytes, format!("{T} {T}!").into_bytes());
    }

    #[test]
    fn what_was_lost_is_told_at_the_beginning_of_a_line() {
        let (mut carry, mut text) = (Carry::default(), Text::default());
        carry.take(b"half", &shape(0, None), &mut text);
        carry.tell_lost(7, &shape(0, None), &mut text);
        carry.take(b"more\n", &shape(0, None), &mut text);
        let expected = "T half\nT!7 bytes were lost here: the log could not be written\nT more\n";
        assert_eq!(String::from_utf8(text.bytes).unwrap().replace(T, "T"), expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever bytes come in whatever parts: taken out of the log again they are the bytes that came.
        #[test]
        fn no_byte_is_lost_or_made(parts in prop::collection::vec(prop::collection::vec(
            prop_oneof![Just(b'\n'), Just(b'x'), any::<u8>()], 0..60), 0..12))
        {
            let (mut carry, mut text) = (Carry::default(), Text::default());
            for part in &parts {
                carry.take(part, &shape(0, None), &mut text);
            }
            let mut back = Vec::new();
            for (number, start) in text.starts.iter().enumerate() {
                let end = text.starts.get(number + 1).copied().unwrap_or(text.bytes.len());
                let line = &text.bytes[*start..end];
                prop_assert!(line.len() <= STAMP + 1 + 20 + 1);
                if line[STAMP] == b'+' {
                    prop_assert_eq!(back.pop(), Some(b'\n'));
                }
                back.extend_from_slice(&line[STAMP + 1..]);
            }
            prop_assert_eq!(back, parts.concat());
        }
    }
}
