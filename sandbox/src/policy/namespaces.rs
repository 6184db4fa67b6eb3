//! Reads the values of `[namespaces]`: names, offsets and maps of ids.

use super::{
    IdMap, IdRange, Net, UserNamespace,
    reader::{Item, Notes, unknown},
    scheduling::parse_duration,
    values,
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

/// `"private"`, `"none"`, `"host"`, or `"service:NAME"`.
pub(super) fn net(item: &Item<'_>, notes: &mut Notes) -> Option<Located<Net>> {
    if !item.value().is_str() {
        return item.wrong_type("\"private\", \"none\", \"host\", or \"service:NAME\"", notes);
    }
    let text = item.text(notes)?;
    let net = match (text.value.as_str(), text.value.strip_prefix("service:")) {
        (_, Some(name)) if is_service_name(name) => Net::Service(name.to_owned()),
        (_, Some(name)) => {
            let message = format!("`{name}` cannot be the name of a service");
            let label =
                "letters, digits and - _ . : from a letter or a digit on, at most 56; @ before an instance";
            notes.push(Diagnostic::error("invalid-service-name", text.at, message).label(label));
            return None;
        }
        ("private", None) => Net::Private,
        ("none", None) => Net::None,
        ("host", None) => Net::Host,
        (other, None) => {
            let message = format!("`{other}` is no value of `{}`", item.key);
            let words = ["private", "none", "host", "service:NAME"];
            notes.push(unknown("unknown-value", text.at.clone(), message, other, &words));
            return None;
        }
    };
    Some(Located::new(net, text.at))
}

/// As file names of services are: whether there is one of this name is the service manager's question.
fn is_service_name(name: &str) -> bool {
    const LONGEST: usize = 56;
    let part = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_alphanumeric())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
    };
    name.len() <= LONGEST
        && match name.split_once('@') {
            None => part(name),
            Some((template, instance)) => part(template) && part(instance),
        }
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

/// `"host"`, `"auto"`, or `{ uid_map = [...], gid_map = [...] }`.
pub(super) fn user(item: &Item<'_>, notes: &mut Notes) -> Option<Located<UserNamespace>> {
    if !item.value().is_table() {
        if !item.value().is_str() {
            return item.wrong_type("\"host\", \"auto\", or { uid_map = [...], gid_map = [...] }", notes);
        }
        let words = [("host", false), ("auto", true)];
        let own = values::word(item, "unknown-value", &words, notes)?;
        return Some(own.map(|own| if own { UserNamespace::Auto } else { UserNamespace::Host }));
    }
    let map = id_map(item, notes)?;
    let mut safe = true;
    for (key, ranges) in [("uid_map", &map.value.uid), ("gid_map", &map.value.gid)] {
        if ranges.iter().any(|range| range.outside == 0) {
            let message = format!("`{key}` makes an id of the namespace the host's root");
            let help = "the host's id is the second number: leave 0 out; nothing of the namespace needs it";
            notes.push(Diagnostic::error("unsafe-id-map", map.at.clone(), message).help(help));
            safe = false;
        }
    }
    safe.then(|| map.map(UserNamespace::Mapped))
}

/// The keys of a map.
pub(super) const ID_MAP_KEYS: &[&str] = &["uid_map", "gid_map"];

/// `{ uid_map = ["0 100000 65536"], gid_map = ["0 100000 65536"] }`.
pub(super) fn id_map(item: &Item<'_>, notes: &mut Notes) -> Option<Located<IdMap>> {
    let table = item.table(ID_MAP_KEYS, notes)?;
    let uid = table.require("uid_map", notes).and_then(|item| id_ranges(&item, notes));
    let gid = table.require("gid_map", notes).and_then(|item| id_ranges(&item, notes));
    Some(Located::new(IdMap { uid: uid?, gid: gid? }, item.at()))
}

/// UID_GID_MAP_MAX_EXTENTS (linux/user_namespace.h).
const MOST_RANGES: usize = 340;

fn id_ranges(item: &Item<'_>, notes: &mut Notes) -> Option<Vec<IdRange>> {
    let elements = item.elements(notes)?;
    if elements.is_empty() || elements.len() > MOST_RANGES {
        let message = format!("`{}` has from 1 to {MOST_RANGES} lines", item.key);
        notes.push(Diagnostic::error("invalid-id-map", item.at(), message));
        return None;
    }
    let lines: Vec<_> = elements.iter().filter_map(|element| id_range(element, notes)).collect();
    if lines.len() < elements.len() {
        return None;
    }
    for (index, line) in lines.iter().enumerate() {
        let meet = |start: fn(&IdRange) -> u32| {
            let (first, count) = (start(&line.value), line.value.count);
            lines[..index].iter().any(|other| {
                let (other, many) = (start(&other.value), other.value.count);
                first.max(other) - first.min(other) < if first < other { count } else { many }
            })
        };
        if meet(|range| range.inside) || meet(|range| range.outside) {
            let message = "an id would be mapped twice";
            notes.push(Diagnostic::error("invalid-id-map", line.at.clone(), message));
            return None;
        }
    }
    Some(lines.into_iter().map(|line| line.value).collect())
}

/// `"0 100000 65536"`: as in `/proc/PID/uid_map`.
fn id_range(item: &Item<'_>, notes: &mut Notes) -> Option<Located<IdRange>> {
    let text = item.text(notes)?;
    let numbers: Option<Vec<u32>> = text
        .value
        .split(' ')
        .map(|part| values::parse_count(part, false).and_then(|number| u32::try_from(number).ok()))
        .collect();
    let problem = match numbers.as_deref() {
        // 2^32 - 1 is the kernel's "no id".
        Some(&[inside, outside, count]) if count > 0 => {
            if inside.checked_add(count).and(outside.checked_add(count)).is_some() {
                return Some(Located::new(IdRange { inside, outside, count }, text.at));
            }
            "ids end at 4294967294"
        }
        _ => "three numbers: the first id inside, the first outside, how many",
    };
    let message = format!("`{}` is no line of a map", text.value);
    notes.push(Diagnostic::error("invalid-id-map", text.at, message).label(problem));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_farthest_offset_is_what_its_message_says() {
        assert_eq!(FARTHEST / 3_600_000_000_000, 1_281_023);
    }
}
