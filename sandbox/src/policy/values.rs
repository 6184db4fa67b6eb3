//! Reads single values: words, paths, sizes, modes, accounts, names of the kernel.
//!
//! Each function takes an [`Item`] and returns the value with its place, or `None` after noting what is wrong.

use super::{
    Account, Denial, Limit, OptionalPath, Root,
    names::{self, ERRNOS},
    reader::{Item, Notes, did_you_mean, unknown},
};
use crate::{
    diagnostic::{Diagnostic, Located},
    syscalls::{self, groups},
};

/// One of a few words.
pub(super) fn word<T: Copy>(
    item: &Item<'_>,
    code: &'static str,
    words: &[(&str, T)],
    notes: &mut Notes,
) -> Option<Located<T>> {
    let text = item.text(notes)?;
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
        return Some(Located::new(*value, text.at));
    }
    let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let message = format!("`{}` is no value of `{}`", text.value, item.key);
    notes.push(unknown(code, text.at, message, &text.value, &allowed));
    None
}

/// An absolute path without `.`, `..`, `//` and a trailing slash.
pub(super) fn path(item: &Item<'_>, notes: &mut Notes) -> Option<Located<String>> {
    checked_path(item.text(notes)?, notes)
}

/// Whether a path goes through one of proc's magic links (proc(5)): `/proc/self/fd/7` is what CVE-2024-21626 was made of.
fn leads_to_open_descriptors(path: &str) -> bool {
    let Some(("self" | "thread-self" | "1", rest)) =
        path.strip_prefix("/proc/").and_then(|rest| rest.split_once('/')).map(|(process, rest)| {
            (if process.bytes().all(|byte| byte.is_ascii_digit()) { "1" } else { process }, rest)
        })
    else {
        return false;
    };
    rest.split('/').any(|part| matches!(part, "fd" | "cwd" | "root" | "exe" | "map_files" | "ns" | "task"))
}

/// The same for a text that was read already.
pub(super) fn checked_path(path: Located<String>, notes: &mut Notes) -> Option<Located<String>> {
    let text = path.value.as_str();
    if is_pattern(text) {
        let message = format!("`{text}` is a pattern, and a path names one file or folder");
        let help = "nothing is expanded: name each path, or the folder above them";
        notes.push(Diagnostic::error("invalid-path", path.at, message).help(help));
        return None;
    }
    if leads_to_open_descriptors(text) {
        let message = "a path through what a process has open could lead anywhere, and to the host";
        notes.push(Diagnostic::error("unsafe-path", path.at, message));
        return None;
    }
    let problem = if !text.starts_with('/') {
        "a path is absolute: it starts with `/`"
    } else if text.len() > 1 && text.ends_with('/') {
        "a path has no trailing slash"
    } else if text.contains("//") {
        "a path has no empty component"
    } else if text.split('/').any(|component| component == ".." || component == ".") {
        "a path has no `.` and no `..`: what it leads to would depend on the links on the way"
    } else if text.len() > 4095 || text.split('/').any(|component| component.len() > 255) {
        "a path has at most 4,095 bytes, a component 255"
    } else {
        return Some(path);
    };
    let message = format!("`{text}` cannot be used as a path");
    notes.push(Diagnostic::error("invalid-path", path.at, message).label(problem));
    None
}

/// Whether a text is meant to stand for several paths, as in glob(7) or in a shell. Taken literally it would name nothing,
/// and hide, mask or forbid nothing. A lone `[` is the name of a program.
fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
        || text.split_once('[').is_some_and(|(_, rest)| rest.contains(']'))
        || text.contains("${")
}

/// `"/path"` or `{ path = "/path", optional = true }`.
pub(super) fn optional_path(item: &Item<'_>, notes: &mut Notes) -> Option<Located<OptionalPath>> {
    if item.value().is_str() {
        return Some(path(item, notes)?.map(|path| OptionalPath { path, optional: false }));
    }
    if !item.value().is_table() {
        return item.wrong_type("a path in quotes, or { path = \"/...\", optional = true }", notes);
    }
    let table = item.table(OPTIONAL_PATH_KEYS, notes)?;
    let optional = flag(table.get("optional"), false, notes);
    let path = path(&table.require("path", notes)?, notes)?.value;
    Some(Located::new(OptionalPath { path, optional: optional? }, item.at()))
}

/// The keys of a path that may be missing.
pub(super) const OPTIONAL_PATH_KEYS: &[&str] = &["path", "optional"];

pub(super) fn flag(item: Option<Item<'_>>, default: bool, notes: &mut Notes) -> Option<bool> {
    match item {
        Some(item) => item.boolean(notes).map(|value| value.value),
        None => Some(default),
    }
}

/// `"host"`, `"empty"`, or a directory.
pub(super) fn root(item: &Item<'_>, notes: &mut Notes) -> Option<Located<Root>> {
    let text = item.text(notes)?;
    match text.value.as_str() {
        "host" => Some(Located::new(Root::Host, text.at)),
        "empty" => Some(Located::new(Root::Empty, text.at)),
        "/" => {
            let message = "the root directory of the host is not another root";
            notes.push(Diagnostic::error("unknown-value", text.at, message).label("write \"host\""));
            None
        }
        path if path.starts_with('/') => Some(checked_path(text, notes)?.map(Root::Directory)),
        other => {
            let message = format!("`{other}` is no value of `{}`", item.key);
            let diagnostic = unknown("unknown-value", text.at, message, other, &["host", "empty", "/path"]);
            notes.push(diagnostic);
            None
        }
    }
}

/// A mode in octal, as text: TOML would take `0755` for a decimal number with a zero too many.
pub(super) fn mode(item: &Item<'_>, highest: u32, notes: &mut Notes) -> Option<Located<u32>> {
    if item.number().is_some() {
        return item.wrong_type("the octal digits in quotes: \"0755\"", notes);
    }
    let text = item.text(notes)?;
    let octal =
        (1..=5).contains(&text.value.len()) && text.value.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = octal.then(|| u32::from_str_radix(&text.value, 8)).and_then(Result::ok);
    if let Some(mode) = mode.filter(|mode| *mode <= highest) {
        return Some(Located::new(mode, text.at));
    }
    let message = format!("`{}` is no mode", text.value);
    let label = format!("octal digits, at most {highest:04o}");
    notes.push(Diagnostic::error("invalid-mode", text.at, message).label(label));
    None
}

/// A count of bytes: a number, or a text with `K`, `M`, `G` or `T`.
pub(super) fn size(item: &Item<'_>, notes: &mut Notes) -> Option<Located<u64>> {
    match limit(item, notes)? {
        Located { value: Limit::Value(bytes), at } if bytes > 0 => Some(Located::new(bytes, at)),
        Located { at, .. } => {
            let message = format!("`{}` must have an end and cannot be zero", item.key);
            notes.push(Diagnostic::error("out-of-range", at, message).label("write a size, such as \"64M\""));
            None
        }
    }
}

/// A count of bytes, or `"max"`.
pub(super) fn limit(item: &Item<'_>, notes: &mut Notes) -> Option<Located<Limit>> {
    counted(item, true, notes)
}

/// A count of things, or `"max"`.
pub(super) fn count(item: &Item<'_>, notes: &mut Notes) -> Option<Located<Limit>> {
    counted(item, false, notes)
}

fn counted(item: &Item<'_>, bytes: bool, notes: &mut Notes) -> Option<Located<Limit>> {
    if let Some(number) = item.number() {
        // 2^63 is the kernel's own "max" for pages and counts; nothing real is above it.
        return Some(item.within(number, 0, i64::MAX.unsigned_abs(), notes)?.map(Limit::Value));
    }
    if !item.value().is_str() {
        let expected =
            if bytes { "a size: \"64M\", a number of bytes, or \"max\"" } else { "a number, or \"max\"" };
        return item.wrong_type(expected, notes);
    }
    let text = item.text(notes)?;
    if text.value == "max" {
        return Some(Located::new(Limit::Max, text.at));
    }
    if let Some(value) = parse_count(&text.value, bytes) {
        return Some(Located::new(Limit::Value(value), text.at));
    }
    let (what, label) = if bytes {
        ("size", "digits and K, M, G or T (powers of 1024), or \"max\"")
    } else {
        ("count", "digits, or \"max\"")
    };
    let message = format!("`{}` is no {what}", text.value);
    notes.push(Diagnostic::error("invalid-limit", text.at, message).label(label));
    None
}

/// `64M` as a number, up to 2^63; with `bytes` false no unit is allowed.
pub(super) fn parse_count(text: &str, bytes: bool) -> Option<u64> {
    let (digits, factor) = match text.as_bytes().last()? {
        b'K' if bytes => (&text[..text.len() - 1], 1 << 10),
        b'M' if bytes => (&text[..text.len() - 1], 1 << 20),
        b'G' if bytes => (&text[..text.len() - 1], 1 << 30),
        b'T' if bytes => (&text[..text.len() - 1], 1_u64 << 40),
        _ => (text, 1),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value = digits.parse::<u64>().ok()?.checked_mul(factor)?;
    (value <= i64::MAX.unsigned_abs()).then_some(value)
}

/// `"150%"` of one CPU as microseconds per 100,000, or `"max"`.
pub(super) fn cpu_share(item: &Item<'_>, notes: &mut Notes) -> Option<Located<Limit>> {
    if !item.value().is_str() {
        return item.wrong_type("a percentage of one CPU, \"150%\", or \"max\"", notes);
    }
    let text = item.text(notes)?;
    if text.value == "max" {
        return Some(Located::new(Limit::Max, text.at));
    }
    let Some(thousandths) = text.value.strip_suffix('%').and_then(parse_thousandths) else {
        let message = format!("`{}` is no percentage", text.value);
        let label = "digits and %, at most three after the point, or \"max\"";
        notes.push(Diagnostic::error("invalid-limit", text.at, message).label(label));
        return None;
    };
    // A thousandth of a percent of 100,000 microseconds is one; the kernel takes a quota from 1,000 on.
    if !(1_000..=1_000_000_000).contains(&thousandths) {
        let message = format!("`{}` is out of range", item.key);
        notes.push(Diagnostic::error("out-of-range", text.at, message).label("from 1% to 1000000%"));
        return None;
    }
    Some(Located::new(Limit::Value(thousandths), text.at))
}

/// `12.5` as 12,500.
fn parse_thousandths(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 3 || whole.len() > 12 {
        return None;
    }
    Some(whole.parse::<u64>().ok()? * 1_000 + format!("{fraction:0<3}").parse::<u64>().ok()?)
}

/// `"auto"`, a name, or a number.
pub(super) fn account(item: &Item<'_>, notes: &mut Notes) -> Option<Located<Account>> {
    if item.value().as_str() == Some("auto") {
        return Some(Located::new(Account::Auto, item.at()));
    }
    named_account(item, notes)
}

/// A name, or a number.
pub(super) fn named_account(item: &Item<'_>, notes: &mut Notes) -> Option<Located<Account>> {
    if let Some(number) = item.number() {
        // 2^32 - 1 is the kernel's "unchanged", and would leave the id of motherd in place.
        return Some(item.within(number, 0, u32::MAX - 1, notes)?.map(Account::Id));
    }
    if !item.value().is_str() {
        return item.wrong_type("a name in quotes, or a number", notes);
    }
    let text = item.text(notes)?;
    let name = text.value.as_str();
    let problem = if name.is_empty() || name.len() > 255 {
        "a name has 1 to 255 bytes"
    } else if name.bytes().all(|byte| byte.is_ascii_digit()) {
        "a number is written without quotes"
    } else if name.contains([':', '/', ',', ' ']) || name.starts_with(['-', '+', '~']) {
        "a name of passwd(5) has no colon, slash, comma or space, and does not start with a sign"
    } else if name == "auto" {
        "only `process.user` and `process.group` can be \"auto\""
    } else {
        return Some(text.map(Account::Name));
    };
    let message = format!("`{name}` is no value of `{}`", item.key);
    notes.push(Diagnostic::error("invalid-account", text.at, message).label(problem));
    None
}

/// `CAP_NET_BIND_SERVICE`.
pub(super) fn capability(item: &Item<'_>, notes: &mut Notes) -> Option<Located<caps::Capability>> {
    let text = item.text(notes)?;
    let all = names::capabilities();
    if let Some((_, capability)) = all.iter().find(|(name, _)| *name == text.value) {
        return Some(Located::new(*capability, text.at));
    }
    let prefixed = format!("CAP_{}", text.value);
    let candidates = || all.iter().map(|(name, _)| name.as_str());
    let direct = did_you_mean(&text.value, candidates());
    let label = if direct.is_empty() { did_you_mean(&prefixed, candidates()) } else { direct };
    let message = format!("no capability is named `{}`", text.value);
    notes.push(
        Diagnostic::error("unknown-capability", text.at, message)
            .label(label)
            .help("the names are those of capabilities(7), with CAP_"),
    );
    None
}

/// What a denied call gets: `"kill-process"`, `"errno:NAME"`, `"log"`, `"trap"`.
pub(super) fn denial(item: &Item<'_>, notes: &mut Notes) -> Option<Located<Denial>> {
    let words = [("kill-process", Denial::KillProcess), ("log", Denial::Log), ("trap", Denial::Trap)];
    let text = item.text(notes)?;
    if let Some((_, denial)) = words.iter().find(|(word, _)| *word == text.value) {
        return Some(Located::new(*denial, text.at));
    }
    let Some(name) = text.value.strip_prefix("errno:") else {
        let message = format!("`{}` is no value of `{}`", text.value, item.key);
        let allowed = ["kill-process", "errno:EPERM", "log", "trap"];
        notes.push(unknown("unknown-value", text.at, message, &text.value, &allowed));
        return None;
    };
    let number =
        ERRNOS.iter().find(|(known, _)| *known == name).and_then(|(_, value)| u16::try_from(*value).ok());
    if number.is_none() {
        let label = did_you_mean(name, ERRNOS.iter().map(|(name, _)| *name));
        let message = format!("no errno is named `{name}`");
        notes.push(Diagnostic::error("unknown-errno", text.at.clone(), message).label(label));
    }
    Some(Located::new(Denial::Errno(number?), text.at))
}

/// What a denied call gets, as it is written.
pub(super) fn denial_word(denial: Denial) -> String {
    match denial {
        Denial::KillProcess => "kill-process".to_owned(),
        Denial::Log => "log".to_owned(),
        Denial::Trap => "trap".to_owned(),
        Denial::Errno(number) => {
            let known = ERRNOS.iter().find(|(_, value)| *value == u32::from(number));
            known.map_or_else(String::new, |(name, _)| format!("errno:{name}"))
        }
    }
}

/// A call, or a group of calls: the text as it is written, and what it stands for.
pub(super) fn calls(item: &Item<'_>, notes: &mut Notes) -> Option<Located<(String, Vec<u32>)>> {
    named_calls(item.text(notes)?, notes)
}

/// The same for a text that was read already.
pub(super) fn named_calls(text: Located<String>, notes: &mut Notes) -> Option<Located<(String, Vec<u32>)>> {
    if let Some(numbers) = groups::members(&text.value) {
        return Some(text.map(|name| (name, numbers)));
    }
    if text.value.starts_with('@') {
        let allowed: Vec<&str> = groups::all().map(|(name, _)| name).collect();
        let message = format!("no group of system calls is named `{}`", text.value);
        notes.push(unknown("unknown-group", text.at, message, &text.value, &allowed));
        return None;
    }
    let number = named_call(&text, notes)?.value;
    Some(text.map(|name| (name, vec![number])))
}

/// A call by its name.
pub(super) fn call(item: &Item<'_>, notes: &mut Notes) -> Option<Located<u32>> {
    named_call(&item.text(notes)?, notes)
}

fn named_call(text: &Located<String>, notes: &mut Notes) -> Option<Located<u32>> {
    let number = syscalls::number(&text.value);
    if number.is_none() && text.value.starts_with('@') {
        let message = format!("`{}` is a group, and arguments differ from call to call", text.value);
        notes.push(Diagnostic::error("unknown-syscall", text.at.clone(), message).label("name one call"));
    } else if number.is_none() {
        let groups = groups::all().map(|(name, _)| name);
        let label = match did_you_mean(&text.value, syscalls::names()) {
            // `system-service` without its @, most likely.
            nothing if nothing.is_empty() => did_you_mean(&format!("@{}", text.value), groups),
            found => found,
        };
        let message = format!("no syscall is named `{}` on x86_64", text.value);
        notes.push(Diagnostic::error("unknown-syscall", text.at.clone(), message).label(label));
    }
    Some(Located::new(number?, text.at.clone()))
}

/// A TCP port.
pub(super) fn port(item: &Item<'_>, notes: &mut Notes) -> Option<Located<u16>> {
    item.integer(0_u16, u16::MAX, notes)
}

/// A value that an argument is compared with: a number, or names of constants joined by `|`.
pub(super) fn argument_value(item: &Item<'_>, notes: &mut Notes) -> Option<Located<u32>> {
    if let Some(number) = item.number() {
        return Some(item.within(number, i64::from(i32::MIN), i64::from(u32::MAX), notes)?.map(low_half));
    }
    if !item.value().is_str() {
        return item.wrong_type("a number, or the name of a constant in quotes", notes);
    }
    let text = item.text(notes)?;
    let mut value = 0;
    for part in text.value.split('|').map(str::trim) {
        let Some(bits) = constant(part) else {
            let message = format!("no constant is named `{part}`");
            let label = did_you_mean(part, names::CONSTANTS.iter().map(|(name, _)| *name));
            let help = "a number will do as well, decimal or with 0x; several constants are joined by |";
            notes.push(Diagnostic::error("unknown-constant", text.at, message).label(label).help(help));
            return None;
        };
        value |= bits;
    }
    Some(Located::new(value, text.at))
}

fn constant(text: &str) -> Option<u32> {
    if let Some((_, value)) = names::CONSTANTS.iter().find(|(name, _)| *name == text) {
        return Some(*value);
    }
    let digits = |text: &str, radix| {
        // from_str_radix takes a sign; a constant has none.
        text.starts_with(|c: char| c.is_digit(radix)).then(|| u32::from_str_radix(text, radix).ok()).flatten()
    };
    text.strip_prefix("0x").map_or_else(|| digits(text, 10), |hexadecimal| digits(hexadecimal, 16))
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the kernel compares the low half of an int"
)]
fn low_half(value: i64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, expected) in [
            ("0", Some(0)),
            ("64M", Some(64 << 20)),
            ("1K", Some(1024)),
            ("2T", Some(2 << 40)),
            ("9223372036854775807", Some((1 << 63) - 1)),
            ("9223372036854775808", None),
            ("16777216T", None),
            ("64m", None),
            ("1.5G", None),
            ("-1", None),
            ("+1", None),
            ("M", None),
            ("", None),
            ("64MB", None),
        ] {
            assert_eq!(parse_count(text, true), expected, "{text}");
        }
        assert_eq!(parse_count("64M", false), None, "a count has no unit");
    }

    #[test]
    fn percentages_are_exact() {
        for (text, expected) in [
            ("150", Some(150_000)),
            ("12.5", Some(12_500)),
            ("0.125", Some(125)),
            ("1.2345", None),
            (".5", None),
            ("5.", None),
        ] {
            assert_eq!(parse_thousandths(text), expected, "{text}");
        }
    }

    #[test]
    fn constants_are_names_or_numbers() {
        for (text, expected) in [
            ("AF_UNIX", Some(1)),
            ("TIOCSTI", Some(0x5412)),
            ("0x5412", Some(0x5412)),
            ("4294967295", Some(u32::MAX)),
            ("4294967296", None),
            ("+1", None),
            ("0x", None),
            ("0x-1", None),
            ("AF_UNIXX", None),
        ] {
            assert_eq!(constant(text), expected, "{text}");
        }
    }
}
