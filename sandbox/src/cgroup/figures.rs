//! What a cgroup's files say. A figure that cannot be had is [`Missing`], with the file and the reason; it is never 0.

use std::{
    borrow::Cow, cell::OnceCell, collections::BTreeMap, ffi::OsStr, os::unix::ffi::OsStrExt, path::Path,
};

use nix::errno::Errno;

use super::Cgroup;
use crate::survey::{File, Files, Sample};

/// A figure that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// `memory.current`
    pub file: &'static str,
    /// One of [`NOT_ENABLED`], or what the kernel said.
    pub why: Cow<'static, str>,
}

/// Why there are no figures of a controller: of all services of a slice for which it was not asked.
pub const NOT_ENABLED: [&str; 4] = [
    "the cpu controller is not enabled for this cgroup",
    "the io controller is not enabled for this cgroup",
    "the memory controller is not enabled for this cgroup",
    "the pids controller is not enabled for this cgroup",
];

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
    below: BTreeMap<Vec<u8>, Files>,
}

impl Enabled {
    /// The files that a cgroup may have.
    pub(crate) fn files(&mut self, cgroup: &Cgroup) -> Files {
        let path = cgroup.path().as_os_str().as_bytes();
        let Some(end) = path.iter().rposition(|byte| *byte == b'/') else { return Files::below(None) };
        let above = &path[..end];
        if let Some(files) = self.below.get(above) {
            return *files;
        }
        // Where that cannot be read, nothing follows from it.
        let file = Path::new(OsStr::from_bytes(above)).join("cgroup.subtree_control");
        let files = Files::below(std::fs::read_to_string(file).ok().as_deref());
        self.below.insert(above.to_owned(), files);
        files
    }
}

/// The files of one cgroup.
struct Source<'a> {
    cgroup: &'a Cgroup,
    /// Those that there may be.
    files: Files,
    /// What was read of them.
    sample: &'a Sample<'a>,
    /// Its own `cgroup.controllers`, once a file was missing.
    own: OnceCell<String>,
}

impl Figures {
    /// What there is to say of a cgroup of which this was just read.
    #[must_use]
    pub fn from_sample(cgroup: &Cgroup, sample: &Sample<'_>, enabled: &mut Enabled) -> Self {
        let source = &Source { cgroup, files: enabled.files(cgroup), sample, own: OnceCell::new() };
        let cpu = text(source, File::CpuStat);
        let io = text(source, File::IoStat);
        let events = text(source, File::MemoryEvents);
        let cpu_figure = |key| field(&cpu, File::CpuStat, key);
        Self {
            memory_current: number(source, File::MemoryCurrent),
            memory_peak: number(source, File::MemoryPeak),
            memory_max: limit(source, File::MemoryMax),
            swap_current: number(source, File::MemorySwapCurrent),
            oom_kills: field(&events, File::MemoryEvents, "oom_kill"),
            cpu_usage_us: cpu_figure("usage_usec"),
            cpu_user_us: cpu_figure("user_usec"),
            cpu_system_us: cpu_figure("system_usec"),
            cpu_throttled_us: cpu_figure("throttled_usec"),
            io_read_bytes: io.as_deref().map(|text| sum(text, "rbytes")).map_err(Clone::clone),
            io_write_bytes: io.as_deref().map(|text| sum(text, "wbytes")).map_err(Clone::clone),
            pids_current: number(source, File::PidsCurrent),
            pids_max: limit(source, File::PidsMax),
            cpu_pressure: pressure(source, File::CpuPressure),
            memory_pressure: pressure(source, File::MemoryPressure),
            io_pressure: pressure(source, File::IoPressure),
        }
    }
}

/// The file's text, or why it cannot be had. A file that is not there belongs to a controller that is not enabled, or
/// to a newer kernel.
fn text<'a>(source: &Source<'a>, file: File) -> Figure<Cow<'a, str>> {
    let name = file.name();
    let controller = name.split('.').next().unwrap_or(name);
    let missing = |why: Cow<'static, str>| Missing { file: name, why };
    let disabled = || {
        let known = NOT_ENABLED
            .iter()
            .find(|why| why.strip_prefix("the ").is_some_and(|why| why.starts_with(controller)));
        known.map_or_else(|| "not enabled for this cgroup".into(), |why| Cow::Borrowed(*why))
    };
    if !source.files.contains(file) {
        return Err(missing(disabled()));
    }
    let read = || source.cgroup.read_record(name).map(Cow::Owned);
    let there = match source.sample.figure(file) {
        Some(found) => found.map_err(|errno| (Some(errno), errno.to_string())),
        None => read().map_err(|error| (error.errno(), error.to_string())),
    };
    there.map_err(|(errno, why)| {
        if errno != Some(Errno::ENOENT) {
            return missing(why.into());
        }
        let own = source.own.get_or_init(|| source.cgroup.read("cgroup.controllers").unwrap_or_default());
        let has = own.split_whitespace().any(|name| name == controller);
        missing(if has { "this kernel has no such file".into() } else { disabled() })
    })
}

fn malformed(file: File, text: &str) -> Missing {
    Missing { file: file.name(), why: format!("reads {:?}", text.trim()).into() }
}

fn number(source: &Source<'_>, file: File) -> Figure<u64> {
    let text = text(source, file)?;
    text.trim().parse().map_err(|_| malformed(file, &text))
}

fn limit(source: &Source<'_>, file: File) -> Figure<Option<u64>> {
    let text = text(source, file)?;
    match text.trim() {
        "max" => Ok(None),
        figure => figure.parse().map(Some).map_err(|_| malformed(file, &text)),
    }
}

/// A line `key value` of a flat-keyed file.
fn field(text: &Figure<Cow<'_, str>>, file: File, key: &str) -> Figure<u64> {
    let text = text.as_ref().map_err(Clone::clone)?;
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
        .ok_or_else(|| Missing { file: file.name(), why: format!("has no {key} here").into() })
}

/// The sum of `key=value` over all lines of a nested-keyed file; no line means that nothing was done yet.
fn sum(text: &str, key: &str) -> u64 {
    text.split_whitespace()
        .filter_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse::<u64>().ok())
        .sum()
}

fn pressure(source: &Source<'_>, file: File) -> Pressure {
    let text = text(source, file);
    Pressure { some_avg10: average(&text, file, "some"), full_avg10: average(&text, file, "full") }
}

/// `avg10=` of the line of one kind.
fn average(text: &Figure<Cow<'_, str>>, file: File, kind: &str) -> Figure<f64> {
    let text = text.as_ref().map_err(Clone::clone)?;
    text.lines()
        .find(|line| line.starts_with(kind))
        .and_then(|line| line.split_whitespace().find_map(|word| word.strip_prefix("avg10=")?.parse().ok()))
        .ok_or_else(|| Missing { file: file.name(), why: format!("has no {kind} line here").into() })
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
        let text: Figure<Cow<'_, str>> = Ok("usage_usec 5\nuser_usec 3\n".into());
        assert_eq!(field(&text, File::CpuStat, "usage_usec"), Ok(5));
        assert_eq!(field(&text, File::CpuStat, "throttled_usec").unwrap_err().file, "cpu.stat");
        let pressure: Figure<Cow<'_, str>> = Ok("some avg10=1.50 avg60=0.00 avg300=0.00 total=7\n".into());
        assert_eq!(average(&pressure, File::CpuPressure, "some"), Ok(1.5));
        assert_eq!(average(&pressure, File::CpuPressure, "full").unwrap_err().why, "has no full line here");
    }
}
