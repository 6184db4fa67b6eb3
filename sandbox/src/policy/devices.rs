//! `cgroup.devices`: which device nodes may be opened and made.

use super::{
    listed::Listed,
    reader::{Item, Notes, Table},
    values,
};
use crate::diagnostic::{Diagnostic, Located};

/// A kind of device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceKind {
    /// S_IFCHR
    Char,
    /// S_IFBLK
    Block,
}

impl DeviceKind {
    /// The word for it in policies.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Char => "char",
            Self::Block => "block",
        }
    }
}

/// Which devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Devices {
    /// That of a node of the host.
    Node(String),
    /// By number; `None` is any.
    Numbers(DeviceKind, Option<u32>, Option<u32>),
    /// All of a driver, by its name in `/proc/devices`.
    Driver(DeviceKind, String),
}

/// What may be done with a device; at least one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceAccess {
    /// Open it for reading.
    pub read: bool,
    /// Open it for writing.
    pub write: bool,
    /// Make a node of it.
    pub mknod: bool,
}

/// One entry of `devices`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// Which.
    pub devices: Devices,
    /// What may be done.
    pub access: DeviceAccess,
    /// A missing node or driver is no error.
    pub optional: bool,
}

impl Listed for DeviceRule {
    fn id(&self) -> String {
        let number =
            |number: &Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        match &self.devices {
            Devices::Node(path) => path.clone(),
            Devices::Numbers(kind, major, minor) => {
                format!("{} {}:{}", kind.word(), number(major), number(minor))
            }
            Devices::Driver(kind, name) => format!("{} {name}", kind.word()),
        }
    }
}

/// The keys of an entry.
pub(super) const DEVICE_KEYS: &[&str] = &["path", "char", "block", "access", "optional"];

/// How many entries there can be: the program asks for each in turn.
pub(super) const DEVICES: usize = 256;

/// `"/dev/kvm"`, `{ path = "/dev/kvm", access = "rw", optional = true }`, `{ char = "10:200" }`, `{ block = "8:*" }`,
/// `{ char = "pts" }`.
pub(super) fn device(item: &Item<'_>, notes: &mut Notes) -> Option<Located<DeviceRule>> {
    if item.value().is_str() {
        let access = DeviceAccess { read: true, write: true, mknod: false };
        let rule = |path| DeviceRule { devices: Devices::Node(path), access, optional: false };
        return Some(values::path(item, notes)?.map(rule));
    }
    if !item.value().is_table() {
        return item.wrong_type("a path in quotes, or { path = \"/dev/...\", access = \"rw\" }", notes);
    }
    let table = item.table(DEVICE_KEYS, notes)?;
    let optional = values::flag(table.get("optional"), false, notes);
    let access = match table.get("access") {
        Some(item) => access(&item, notes),
        None => Some(DeviceAccess { read: true, write: true, mknod: false }),
    };
    let devices = devices(item, &table, notes);
    Some(Located::new(DeviceRule { devices: devices?, access: access?, optional: optional? }, item.at()))
}

fn devices(entry: &Item<'_>, table: &Table<'_>, notes: &mut Notes) -> Option<Devices> {
    let written: Vec<_> =
        ["path", "char", "block"].into_iter().filter_map(|key| Some((key, table.get(key)?))).collect();
    match written.as_slice() {
        [("path", item)] => Some(Devices::Node(values::path(item, notes)?.value)),
        [("char", item)] => by_kind(item, DeviceKind::Char, notes),
        [(_, item)] => by_kind(item, DeviceKind::Block, notes),
        // The unknown key is likely to be one of these, misspelt; that was told.
        [] if table.has_unknown_key() => None,
        several => {
            let what = if several.is_empty() { "names no device" } else { "names devices in two ways" };
            let message = format!("an element of `{}` {what}", entry.key);
            let help =
                "write one of: path = \"/dev/kvm\", char = \"10:200\", block = \"8:*\", char = \"pts\"";
            notes.push(Diagnostic::error("invalid-device", entry.at(), message).help(help));
            None
        }
    }
}

/// `"10:200"`, `"8:*"`, or the name of a driver.
fn by_kind(item: &Item<'_>, kind: DeviceKind, notes: &mut Notes) -> Option<Devices> {
    let text = item.text(notes)?;
    if let Some((major, minor)) = text.value.split_once(':') {
        // MKDEV (linux/kdev_t.h): 12 and 20 bits.
        if let (Some(major), Some(minor)) = (number_or_any(major, 12), number_or_any(minor, 20)) {
            return Some(Devices::Numbers(kind, major, minor));
        }
    } else if is_driver(&text.value) {
        return Some(Devices::Driver(kind, text.value));
    }
    let message = format!("`{}` cannot be a {} device", text.value, kind.word());
    let label = "\"major:minor\", of which either can be *; or a name that /proc/devices has";
    notes.push(Diagnostic::error("invalid-device", text.at, message).label(label));
    None
}

#[allow(clippy::option_option, reason = "the outer one: it could be read; the inner one: any")]
fn number_or_any(text: &str, bits: u32) -> Option<Option<u32>> {
    if text == "*" {
        return Some(None);
    }
    let number = u32::try_from(values::parse_count(text, false)?).ok()?;
    (number < 1 << bits).then_some(Some(number))
}

/// Names in /proc/devices look like `pts`, `ttyS`, `/dev/vc/0`, `device-mapper`, `usb_device`.
fn is_driver(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_/.+".contains(&byte);
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(good)
        && !text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `"rw"`: each of r, w and m at most once, and at least one.
fn access(item: &Item<'_>, notes: &mut Notes) -> Option<DeviceAccess> {
    let text = item.text(notes)?;
    let count = |letter| text.value.chars().filter(|c| *c == letter).count();
    let (r, w, m) = (count('r'), count('w'), count('m'));
    if (1..=3).contains(&text.value.len()) && r + w + m == text.value.len() && r < 2 && w < 2 && m < 2 {
        return Some(DeviceAccess { read: r == 1, write: w == 1, mknod: m == 1 });
    }
    let message = format!("`{}` is no access to a device", text.value);
    let label = "r to read, w to write, m to make the node: \"rw\"";
    notes.push(Diagnostic::error("invalid-access", text.at, message).label(label));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_what_a_node_can_have() {
        for (text, expected) in [
            ("*", Some(None)),
            ("0", Some(Some(0))),
            ("4095", Some(Some(4095))),
            ("4096", None),
            ("", None),
            ("-1", None),
            ("1k", None),
            ("**", None),
        ] {
            assert_eq!(number_or_any(text, 12), expected, "{text:?}");
        }
    }

    #[test]
    fn a_driver_is_named_as_in_proc_devices() {
        for good in ["pts", "/dev/vc/0", "device-mapper", "ttyS", "usb_device"] {
            assert!(is_driver(good), "{good}");
        }
        for bad in ["", "1", "a b", "pts*", "é"] {
            assert!(!is_driver(bad), "{bad}");
        }
    }
}
