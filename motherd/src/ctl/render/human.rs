//! Quantities as people read them, and texts that are safe on a terminal.

use std::time::Duration;

/// Bytes in powers of 1024: `512`, `24.3M`, `512M`; one decimal where it says something.
pub(crate) fn bytes(value: u64) -> String {
    let mut tenths = u128::from(value) * 10;
    for unit in ["", "K", "M", "G", "T", "P"] {
        // Rounded, 1023.95K is 1024K, which is 1M.
        if tenths < 10_235 {
            return if tenths % 10 == 0 || tenths >= 1000 {
                format!("{}{unit}", (tenths + 5) / 10)
            } else {
                format!("{}.{}{unit}", tenths / 10, tenths % 10)
            };
        }
        tenths = (tenths + 512) / 1024;
    }
    format!("{}E", (tenths + 5) / 10)
}

/// A time in its two largest units: `240ms`, `3.2s`, `5m 12s`, `2h 5m`, `3d 4h`.
pub(crate) fn duration(microseconds: u64) -> String {
    let time = Duration::from_micros(microseconds);
    let seconds = time.as_secs();
    let two = |large: u64, unit: &str, small: u64, small_unit: &str| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit} {small}{small_unit}") }
    };
    match seconds {
        0 if microseconds == 0 => "0".into(),
        0 if microseconds < 1000 => format!("{microseconds}us"),
        0 => format!("{}ms", time.as_millis()),
        1..60 => match time.subsec_millis() / 100 {
            0 => format!("{seconds}s"),
            tenths => format!("{seconds}.{tenths}s"),
        },
        60..3600 => two(seconds / 60, "m", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// `1 rule`, `2 rules`
pub(crate) fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A text that came from elsewhere, without what moves a terminal's cursor or changes its colours.
pub(crate) fn printable(text: &str) -> String {
    // Nearly every text is of this kind.
    if text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return text.to_owned();
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\t' {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_short_and_round_to_the_unit_people_use() {
        let check = |value, expected: &str| assert_eq!(bytes(value), expected, "{value}");
        check(0, "0");
        check(1023, "1023");
        check(1024, "1K");
        check(1536, "1.5K");
        check(25_480_397, "24.3M");
        check(536_870_912, "512M");
        check(150 * 1024 + 900, "151K");
        check((1 << 20) - 1, "1M");
        check((1 << 30) - 1, "1G");
        check(3 << 40, "3T");
        check(u64::MAX, "16E");
    }

    #[test]
    fn durations_have_two_units_at_most() {
        let check = |value, expected: &str| assert_eq!(duration(value), expected, "{value}");
        let second = 1_000_000;
        check(0, "0");
        check(7, "7us");
        check(240_999, "240ms");
        check(second, "1s");
        check(3_299_999, "3.2s");
        check(59_999_999, "59.9s");
        check(300 * second, "5m");
        check(312 * second, "5m 12s");
        check(7500 * second, "2h 5m");
        check(93_784 * second, "1d 2h");
    }

    #[test]
    fn a_text_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\r\u{9b}2Jc\td"), "a\\u{1b}[31mb\\r\\u{9b}2Jc\td");
        assert_eq!(printable("grüße"), "grüße");
    }
}
