//! One line of text in a buffer of fixed size: what is logged without allocating. What does not fit is cut off.

use core::fmt;

/// The kernel log cuts lines near 1 KiB; ours are short, but for a path in one.
const SIZE: usize = 240;

/// See the module.
#[derive(Debug)]
pub struct Line([u8; SIZE], usize);

impl Line {
    /// The text, with a newline.
    pub fn new(prefix: &str, text: fmt::Arguments<'_>) -> Line {
        let mut line = Line([b'\n'; SIZE], 0);
        // `write_str` below does not fail, and neither do the impls of this crate.
        fmt::write(&mut line, format_args!("{prefix}initldr: {text}")).unwrap_or_default();
        line
    }

    /// What to write.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.get(..=self.1).unwrap_or_default()
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes().filter(|&byte| byte != b'\n') {
            // The last byte stays the newline that it is from the start.
            if let Some(place) = self.0.get_mut(self.1).filter(|_| self.1 < SIZE - 1) {
                *place = byte;
                self.1 += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_however_long() {
        assert_eq!(Line::new("<4>", format_args!("a {}\nb", 1)).as_bytes(), b"<4>initldr: a 1b\n");
        let long = Line::new("", format_args!("{}", "x".repeat(1000)));
        assert_eq!(long.as_bytes().len(), SIZE);
        assert_eq!(long.as_bytes().iter().filter(|&&byte| byte == b'\n').count(), 1);
    }
}
