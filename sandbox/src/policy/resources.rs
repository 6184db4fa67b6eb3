//! What `[cgroup]` says of devices, page sizes and countable resources: the types, and how they are read.

use super::{
    Limit,
    listed::{Keyed, Listed},
    reader::{Item, Notes, Table},
    scheduling, values,
};
use crate::diagnostic::{Diagnostic, Located};

/// A block device: a whole one, since the kernel limits no partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// Its node, such as `/dev/vda`.
    Path(String),
    /// Major and minor number.
    Numbers(u32, u32),
}

/// One entry of `io_max`. What is `None` is left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoMax {
    /// As it is written, for removing it.
    pub(super) name: String,
    /// Which device.
    pub device: Device,
    /// Bytes read and written, and requests to read and to write, in a second, by their names in `io.max`.
    pub limits: Vec<(&'static str, Limit)>,
}

/// One entry of `io_latency`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoLatency {
    /// As it is written, for removing it.
    pub(super) name: String,
    /// Which device.
    pub device: Device,
    /// Above this others are slowed down, nanoseconds.
    pub target: u64,
}

/// One entry of `rdma`. What is `None` is left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RdmaMax {
    /// Such as `mlx5_0`.
    pub device: String,
    /// Handles and objects, by their names in `rdma.max`.
    pub limits: Vec<(&'static str, Limit)>,
}

/// A limit by name: a size of huge pages (`2MB`), or a resource of the misc controller (`sev`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedLimit {
    /// The name.
    pub name: String,
    /// The limit.
    pub limit: Limit,
}

impl Listed for IoMax {
    fn id(&self) -> String {
        self.name.clone()
    }
}

impl Listed for IoLatency {
    fn id(&self) -> String {
        self.name.clone()
    }
}

impl Listed for RdmaMax {
    fn id(&self) -> String {
        self.device.clone()
    }
}

impl Keyed for NamedLimit {
    fn key(&self) -> String {
        self.name.clone()
    }

    fn entry(&self) -> (String, String) {
        let limit = match self.limit {
            Limit::Max => "\"max\"".to_owned(),
            Limit::Value(value) => value.to_string(),
        };
        (self.name.clone(), limit)
    }
}

/// The keys of an entry of `io_max`.
pub(super) const IO_MAX_KEYS: &[&str] = &["device", "rbps", "wbps", "riops", "wiops"];
/// The keys of an entry of `io_latency`.
pub(super) const IO_LATENCY_KEYS: &[&str] = &["device", "target"];
/// The keys of an entry of `rdma`.
pub(super) const RDMA_KEYS: &[&str] = &["device", "hca_handle", "hca_object"];

/// `{ device = "/dev/vda", rbps = "10M", wiops = 100 }`.
pub(super) fn io_max(item: &Item<'_>, notes: &mut Notes) -> Option<Located<IoMax>> {
    let table = item.table(IO_MAX_KEYS, notes)?;
    let device = table.require("device", notes).and_then(|item| device(&item, notes));
    let limits = limits(item, &table, &["rbps", "wbps", "riops", "wiops"], notes, |item, key, notes| {
        let bytes = key.ends_with("bps");
        let limit = if bytes { values::limit(item, notes) } else { values::count(item, notes) }?;
        // blk-throttle takes no 0, and keeps counts of requests in 32 bits.
        let highest = if bytes { i64::MAX.unsigned_abs() } else { u64::from(u32::MAX) };
        in_range(item, limit, 1, highest, notes)
    });
    let (name, device) = device?;
    Some(Located::new(IoMax { name, device, limits: limits? }, item.at()))
}

/// `{ device = "/dev/vda", target = "10ms" }`.
pub(super) fn io_latency(item: &Item<'_>, notes: &mut Notes) -> Option<Located<IoLatency>> {
    const HIGHEST: u64 = 60 * 1_000_000_000;
    let table = item.table(IO_LATENCY_KEYS, notes)?;
    let device = table.require("device", notes).and_then(|item| device(&item, notes));
    let target = table.require("target", notes).and_then(|item| microseconds(&item, 1_000, HIGHEST, notes));
    let ((name, device), target) = (device?, target?.value);
    Some(Located::new(IoLatency { name, device, target }, item.at()))
}

/// `{ device = "mlx5_0", hca_handle = 2, hca_object = "max" }`.
pub(super) fn rdma(item: &Item<'_>, notes: &mut Notes) -> Option<Located<RdmaMax>> {
    let table = item.table(RDMA_KEYS, notes)?;
    let device = table.require("device", notes).and_then(|item| {
        let text = item.text(notes)?;
        word(text, "the name of a device, such as mlx5_0", notes)
    });
    let limits = limits(item, &table, &["hca_handle", "hca_object"], notes, |item, _, notes| {
        let limit = values::count(item, notes)?;
        in_range(item, limit, 0, u64::from(u32::MAX >> 1), notes)
    });
    Some(Located::new(RdmaMax { device: device?.value, limits: limits? }, item.at()))
}

/// The limits of an entry, of which it must have one.
fn limits(
    entry: &Item<'_>,
    table: &Table<'_>,
    keys: &[&'static str],
    notes: &mut Notes,
    read: impl Fn(&Item<'_>, &'static str, &mut Notes) -> Option<Limit>,
) -> Option<Vec<(&'static str, Limit)>> {
    let written: Vec<_> = keys.iter().filter_map(|key| Some((*key, table.get(key)?))).collect();
    if written.is_empty() && !table.has_unknown_key() {
        let message = format!("an element of `{}` sets no limit", entry.key);
        let help = format!("write one of: {}", keys.join(", "));
        notes.push(Diagnostic::error("missing-key", entry.at(), message).help(help));
    }
    let read: Vec<_> =
        written.iter().filter_map(|(key, item)| Some((*key, read(item, key, notes)?))).collect();
    (!read.is_empty() && read.len() == written.len()).then_some(read)
}

fn in_range(
    item: &Item<'_>,
    limit: Located<Limit>,
    lowest: u64,
    highest: u64,
    notes: &mut Notes,
) -> Option<Limit> {
    if let Limit::Value(value) = limit.value
        && !(lowest..=highest).contains(&value)
    {
        let message = format!("`{}` is out of range", item.key);
        let label = format!("from {lowest} to {highest}, or \"max\"");
        notes.push(Diagnostic::error("out-of-range", limit.at, message).label(label));
        return None;
    }
    Some(limit.value)
}

/// A time in whole microseconds, in nanoseconds.
pub(super) fn microseconds(
    item: &Item<'_>,
    lowest: u64,
    highest: u64,
    notes: &mut Notes,
) -> Option<Located<u64>> {
    let time = scheduling::duration(item, lowest, highest, notes)?;
    if !time.value.is_multiple_of(1_000) {
        let message = format!("`{}` is no whole number of microseconds", item.key);
        notes.push(Diagnostic::error("invalid-limit", time.at, message));
        return None;
    }
    Some(time)
}

/// `"/dev/vda"`, or `"8:0"`; and the text itself.
fn device(item: &Item<'_>, notes: &mut Notes) -> Option<(String, Device)> {
    let text = item.text(notes)?;
    if text.value.starts_with('/') {
        let path = values::checked_path(text, notes)?.value;
        return Some((path.clone(), Device::Path(path)));
    }
    let number = |text: &str| values::parse_count(text, false).and_then(|number| u32::try_from(number).ok());
    let numbers = text.value.split_once(':').and_then(|(major, minor)| number(major).zip(number(minor)));
    // MKDEV (linux/kdev_t.h): 12 and 20 bits.
    if let Some((major, minor)) = numbers.filter(|(major, minor)| *major < 1 << 12 && *minor < 1 << 20) {
        return Some((format!("{major}:{minor}"), Device::Numbers(major, minor)));
    }
    let message = format!("`{}` is no block device", text.value);
    let label = "the path of its node, or major:minor";
    notes.push(Diagnostic::error("invalid-device", text.at, message).label(label));
    None
}

/// What a cgroup file takes as one word.
fn word(text: Located<String>, what: &str, notes: &mut Notes) -> Option<Located<String>> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !text.value.is_empty() && text.value.len() <= 64 && text.value.bytes().all(good) {
        return Some(text);
    }
    let message = format!("`{}` cannot be a name here", text.value);
    notes.push(Diagnostic::error("invalid-device", text.at, message).label(what.to_owned()));
    None
}

/// `{ "2MB" = "64M" }`: limits on huge pages, by their size.
pub(super) fn huge_pages(
    name: Located<String>,
    item: &Item<'_>,
    notes: &mut Notes,
) -> Option<Located<NamedLimit>> {
    let Some(page) = page_size(&name.value) else {
        let message = format!("`{}` is no size of pages", name.value);
        let label = "as the kernel writes it: \"64KB\", \"2MB\", \"1GB\"";
        notes.push(Diagnostic::error("invalid-limit", name.at, message).label(label));
        return None;
    };
    let limit = values::limit(item, notes)?;
    if let Limit::Value(bytes) = limit.value
        && !bytes.is_multiple_of(page)
    {
        let message = format!("`{}` is no multiple of the size of the pages", item.key);
        let label = "the kernel would round it down";
        notes.push(Diagnostic::error("out-of-range", limit.at, message).label(label));
        return None;
    }
    Some(Located::new(NamedLimit { name: name.value, limit: limit.value }, limit.at))
}

fn page_size(name: &str) -> Option<u64> {
    let (digits, unit) = name.split_at(name.len().checked_sub(2).filter(|at| name.is_char_boundary(*at))?);
    let factor = match unit {
        "KB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => return None,
    };
    values::parse_count(digits, false)?.checked_mul(factor).filter(|size| size.is_power_of_two())
}

/// `{ sev = 4 }`: limits of the misc controller.
pub(super) fn misc(name: Located<String>, item: &Item<'_>, notes: &mut Notes) -> Option<Located<NamedLimit>> {
    let name = word(name, "the name of a resource, such as sev", notes);
    let limit = values::count(item, notes)?;
    Some(Located::new(NamedLimit { name: name?.value, limit: limit.value }, limit.at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_pages_are_the_kernels() {
        for (name, expected) in [
            ("2MB", Some(2 << 20)),
            ("1GB", Some(1 << 30)),
            ("64KB", Some(64 << 10)),
            ("2M", None),
            ("3MB", None),
            ("MB", None),
            ("", None),
            ("é", None),
            ("0MB", None),
        ] {
            assert_eq!(page_size(name), expected, "{name}");
        }
    }
}
