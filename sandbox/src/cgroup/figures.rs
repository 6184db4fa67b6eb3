//! What a cgroup's files say. A figure that cannot be had is [`Missing`], with the file and the reason; it is never 0.

use std::{
    cell::OnceCell,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::Cgroup;

/// A figure that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// `memory.current`
    pub file: String,
    /// `the memory controller is not enabled here`, or what the kernel said.
    pub why: String,
}

/// A figure, or why there is none.
pub type Figure<T> = Result<T, Missing>;

/// Pressure stall information of one resource: percent of the last 10 s (Documentation/accounting/psi.rst).
#[derive(Debug, Clone, PartialEq)]
pub struct Pressure {
    /// Some task waited.
    pub some_avg10: Figure<f64>,
    /// Every task waited; older kernels have no such line for cpu.
    pub full_avg10: Figure<f64>,
}

/// The figures of one cgroup.
#[derive(Debug, Clone)]
pub struct Figures {
    /// `memory.current`, bytes.
    pub memory_current: Figure<u64>,
    /// `memory.peak`, bytes (since 5.19).
    pub memory_peak: Figure<u64>,
    /// `memory.max`, bytes; `None` is no limit.
    pub memory_max: Figure<Option<u64>>,
    /// `memory.swap.current`, bytes.
    pub swap_current: Figure<u64>,
    /// `memory.events`: processes killed for want of memory.
    pub oom_kills: Figure<u64>,
    /// `cpu.stat`: microseconds of CPU time. Kept by the cgroup core: there without the cpu controller.
    pub cpu_usage_us: Figure<u64>,
    /// `cpu.stat`: of these, in user mode.
    pub cpu_user_us: Figure<u64>,
    /// `cpu.stat`: of these, in the kernel.
    pub cpu_system_us: Figure<u64>,
    /// `cpu.stat`: microseconds for which it was throttled; needs the cpu controller.
    pub cpu_throttled_us: Figure<u64>,
    /// `io.stat`: bytes read, all devices.
    pub io_read_bytes: Figure<u64>,
    /// `io.stat`: bytes written, all devices.
    pub io_write_bytes: Figure<u64>,
    /// `pids.current`
    pub pids_current: Figure<u64>,
    /// `pids.max`; `None` is no limit.
    pub pids_max: Figure<Option<u64>>,
    /// `cpu.pressure`
    pub cpu_pressure: Pressure,
    /// `memory.pressure`
    pub memory_pressure: Pressure,
    /// `io.pressure`
    pub io_pressure: Pressure,
}

/// What a cgroup can have at most: what the one above it has enabled. Read once for all that are in one, where the figures of
/// many are asked for; it lives as long as one answer.
#[derive(Debug, Default)]
pub struct Enabled {
    below: BTreeMap<PathBuf, Option<String>>,
}

impl Enabled {
    /// The words of `cgroup.subtree_control`; `None` where that cannot be read, so that nothing follows from it.
    fn below(&mut self, above: &Path) -> Option<&str> {
        if !self.below.contains_key(above) {
            let words = std::fs::read_to_string(above.join("cgroup.subtree_control")).ok();
            self.below.insert(above.to_owned(), words);
        }
        self.below.get(above)?.as_deref()
    }
}

/// The files of one cgroup.
struct Files<'a> {
    cgroup: &'a Cgroup,
    /// What is enabled above it.
    above: Option<&'a str>,
    /// Its own `cgroup.controllers`, once a file was missing.
    own: OnceCell<String>,
}

impl Figures {
    pub(super) fn read(cgroup: &Cgroup, enabled: &mut Enabled) -> Self {
        let above = cgroup.path().parent().and_then(|above| enabled.below(above));
        let cgroup = &Files { cgroup, above, own: OnceCell::new() };
        let cpu = text(cgroup, "cpu.stat");
        let io = text(cgroup, "io.stat");
        let events = text(cgroup, "memory.events");
        let cpu_figure = |key| field(&cpu, "cpu.stat", key);
        Self {
            memory_current: number(cgroup, "memory.current"),
            memory_peak: number(cgroup, "memory.peak"),
            memory_max: limit(cgroup, "memory.max"),
            swap_current: number(cgroup, "memory.swap.current"),
            oom_kills: field(&events, "memory.events", "oom_kill"),
            cpu_usage_us: cpu_figure("usage_usec"),
            cpu_user_us: cpu_figure("user_usec"),
            cpu_system_us: cpu_figure("system_usec"),
            cpu_throttled_us: cpu_figure("throttled_usec"),
            io_read_bytes: io.as_deref().map(|text| sum(text, "rbytes")).map_err(Clone::clone),
            io_write_bytes: io.as_deref().map(|text| sum(text, "wbytes")).map_err(Clone::clone),
            pids_current: number(cgroup, "pids.current"),
            pids_max: limit(cgroup, "pids.max"),
            cpu_pressure: pressure(cgroup, "cpu.pressure"),
            memory_pressure: pressure(cgroup, "memory.pressure"),
            io_pressure: pressure(cgroup, "io.pressure"),
        }
    }
}

/// The file's text, or why it cannot be had. A file that is not there belongs to a controller that is not enabled, or
/// to a newer kernel.
fn text(files: &Files<'_>, file: &str) -> Figure<String> {
    let controller = file.split('.').next().unwrap_or(file);
    let has = |enabled: &str| enabled.split_whitespace().any(|name| name == controller);
    let disabled = || format!("the {controller} controller is not enabled for this cgroup");
    // The core keeps the accounts of the cpu and the pressure without any controller.
    let is_controllers = file != "cpu.stat" && !file.ends_with(".pressure");
    if is_controllers && files.above.is_some_and(|above| !has(above)) {
        return Err(Missing { file: file.to_owned(), why: disabled() });
    }
    files.cgroup.read_record(file).map_err(|error| {
        let missing = error.errno() == Some(nix::errno::Errno::ENOENT);
        let why = if missing {
            let own = files.own.get_or_init(|| files.cgroup.read("cgroup.controllers").unwrap_or_default());
            if has(own) { "this kernel has no such file".to_owned() } else { disabled() }
        } else {
            error.to_string()
        };
        Missing { file: file.to_owned(), why }
    })
}

fn malformed(file: &str, text: &str) -> Missing {
    Missing { file: file.to_owned(), why: format!("reads {:?}", text.trim()) }
}

fn number(cgroup: &Files<'_>, file: &str) -> Figure<u64> {
    let text = text(cgroup, file)?;
    text.trim().parse().map_err(|_| malformed(file, &text))
}

fn limit(cgroup: &Files<'_>, file: &str) -> Figure<Option<u64>> {
    let text = text(cgroup, file)?;
    match text.trim() {
        "max" => Ok(None),
        figure => figure.parse().map(Some).map_err(|_| malformed(file, &text)),
    }
}

/// A line `key value` of a flat-keyed file.
fn field(text: &Figure<String>, file: &str, key: &str) -> Figure<u64> {
    let text = text.as_ref().map_err(Clone::clone)?;
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
        .ok_or_else(|| Missing { file: file.to_owned(), why: format!("has no {key} here") })
}

/// The sum of `key=value` over all lines of a nested-keyed file; no line means that nothing was done yet.
fn sum(text: &str, key: &str) -> u64 {
    text.split_whitespace()
        .filter_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse::<u64>().ok())
        .sum()
}

fn pressure(cgroup: &Files<'_>, file: &str) -> Pressure {
    let text = text(cgroup, file);
    Pressure { some_avg10: average(&text, file, "some"), full_avg10: average(&text, file, "full") }
}

/// `avg10=` of the line of one kind.
fn average(text: &Figure<String>, file: &str, kind: &str) -> Figure<f64> {
    let text = text.as_ref().map_err(Clone::clone)?;
    text.lines()
        .find(|line| line.starts_with(kind))
        .and_then(|line| line.split_whitespace().find_map(|word| word.strip_prefix("avg10=")?.parse().ok()))
        .ok_or_else(|| Missing { file: file.to_owned(), why: format!("has no {kind} line here") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_is_summed_over_devices() {
        let text = "8:0 rbytes=100 wbytes=7 rios=1\n8:16 rbytes=23 wbytes=0 rios=2\n";
        assert_eq!((sum(text, "rbytes"), sum(text, "wbytes")), (123, 7));
    }

    #[test]
    fn a_missing_key_is_missing_and_not_zero() {
        let text: Figure<String> = Ok("usage_usec 5\nuser_usec 3\n".to_owned());
        assert_eq!(field(&text, "cpu.stat", "usage_usec"), Ok(5));
        assert_eq!(field(&text, "cpu.stat", "throttled_usec").unwrap_err().file, "cpu.stat");
        let pressure: Figure<String> = Ok("some avg10=1.50 avg60=0.00 avg300=0.00 total=7\n".to_owned());
        assert_eq!(average(&pressure, "cpu.pressure", "some"), Ok(1.5));
        assert_eq!(average(&pressure, "cpu.pressure", "full").unwrap_err().why, "has no full line here");
    }
}
