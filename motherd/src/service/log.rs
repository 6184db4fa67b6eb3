//! `[log]`: how much of a service's output is kept.

use std::time::Duration;

/// So many lines in so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRate {
    /// At least 1.
    pub lines: u32,
    /// More than nothing.
    pub per: Duration,
}

/// `1000/s`, `60/m`, `5000/h`.
pub(crate) fn rate(text: &str) -> Result<LogRate, &'static str> {
    const SHAPE: &str = "a rate is a number of lines, a slash and s, m or h: \"1000/s\", \"60/m\"";
    let (lines, per) = text.split_once('/').ok_or(SHAPE)?;
    let per = match per {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(SHAPE),
    };
    if lines.is_empty() || !lines.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(SHAPE);
    }
    let lines: u32 = lines.parse().map_err(|_| "a rate is at most 4294967295 lines")?;
    if lines == 0 {
        return Err("a rate is at least one line; whoever wants none writes to /dev/null");
    }
    Ok(LogRate { lines, per: Duration::from_secs(per) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_lines_in_a_time() {
        let check = |text: &str, lines, seconds| {
            assert_eq!(rate(text), Ok(LogRate { lines, per: Duration::from_secs(seconds) }), "{text}");
        };
        check("1000/s", 1000, 1);
        check("60/m", 60, 60);
        check("1/h", 1, 3600);
        for wrong in ["", "1000", "/s", "0/s", "-1/s", "+1/s", "1.5/s", "1000/d", "1000 /s", "4294967296/s"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
