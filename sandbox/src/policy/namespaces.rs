//! Reads the values of `[namespaces]`: names and offsets.

use super::{
    reader::{Item, Notes},
    scheduling::parse_duration,
};
use crate::diagnostic::{Diagnostic, Located};

/// `__NEW_UTS_LEN`: the bytes of a host or domain name (uname(2)).
const NAME_LENGTH: usize = 64;

/// A name of hostname(7): letters, digits, hyphens and dots.
pub(super) fn host_name(item: &Item<'_>, notes: &mut Notes) -> Option<Located<String>> {
    let text = item.text(notes)?;
    let label_fits = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let problem = if text.value.len() > NAME_LENGTH {
        "at most 64 bytes"
    } else if !text.value.split('.').all(label_fits) {
        "letters, digits and hyphens, in parts joined by dots; no part begins or ends with a hyphen"
    } else {
        return Some(text);
    };
    let message = format!("`{}` cannot be the value of `{}`", text.value, item.key);
    notes.push(Diagnostic::error("invalid-host-name", text.at, message).label(problem));
    None
}

/// `KTIME_SEC_MAX / 2`, beyond which the kernel takes no offset (kernel/time/namespace.c), in nanoseconds.
const FARTHEST: i64 = i64::MAX / 1_000_000_000 / 2 * 1_000_000_000;

/// `"5m"`, `"-200ms"`: how far a clock is ahead of the host's, in nanoseconds.
pub(super) fn offset(item: &Item<'_>, notes: &mut Notes) -> Option<Located<i64>> {
    if !item.value().is_str() {
        return item.wrong_type("a time in quotes: \"5m\", \"-30s\"", notes);
    }
    let text = item.text(notes)?;
    let (sign, magnitude) = match text.value.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.value.as_str()),
    };
    let Some(magnitude) = parse_duration(magnitude) else {
        let message = format!("`{}` is no time", text.value);
        let label = "digits and ns, us, ms, s, m or h, with - in front for the past";
        notes.push(Diagnostic::error("invalid-limit", text.at, message).label(label));
        return None;
    };
    let Some(offset) = i64::try_from(magnitude).ok().filter(|offset| *offset <= FARTHEST) else {
        let message = format!("`{}` is out of range", item.key);
        notes.push(
            Diagnostic::error("out-of-range", text.at, message).label("at most 1281023h, about 146 years"),
        );
        return None;
    };
    Some(Located::new(sign * offset, text.at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_farthest_offset_is_what_its_message_says() {
        assert_eq!(FARTHEST / 3_600_000_000_000, 1_281_023);
    }
}
