//! Who is who in the guest, from /proc.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};

use crate::peers::files::SERVICE;

/// What the guest runs.
#[derive(Debug, Default)]
pub(super) struct Processes {
    /// Services: pid by number.
    pub(super) services: BTreeMap<usize, i32>,
    /// The init system: everything that is no service, no thread of the kernel and not ours.
    pub(super) system: Vec<i32>,
    /// Ended, and not reaped.
    pub(super) zombies: usize,
}

impl Processes {
    pub(super) fn now() -> Result<Self> {
        let file = |path: &str| fs::metadata(path).map(|file| (file.dev(), file.ino()));
        let (service, ours) = (file(SERVICE)?, file("/proc/self/exe")?);
        let mut found = Self::default();
        for entry in fs::read_dir("/proc")? {
            let Ok(pid) = entry?.file_name().to_string_lossy().parse::<i32>() else { continue };
            // Threads of the kernel and zombies have no program; who has ended meanwhile has none either.
            match file(&format!("/proc/{pid}/exe")) {
                Ok(program) if program == service => {
                    found.services.extend(number_of(pid).map(|id| (id, pid)));
                }
                Ok(program) if program == ours => {}
                Ok(_) => found.system.push(pid),
                Err(_) => found.zombies += usize::from(is_zombie(pid)),
            }
        }
        Ok(found)
    }

    /// Nanoseconds that each process of the init system was on a processor.
    pub(super) fn cpu(&self) -> Result<BTreeMap<i32, f64>> {
        self.system.iter().map(|pid| Ok((*pid, cpu_of(*pid)?))).collect()
    }

    /// The sum of a field of a file of /proc/PID over the init system, in the file's own unit.
    pub(super) fn sum(&self, file: &str, field: &str) -> Result<f64> {
        let mut sum = 0.0;
        for pid in &self.system {
            sum += field_of(*pid, file, field)?;
        }
        Ok(sum)
    }
}

/// What its argument, or else its folder's name, ends in.
fn number_of(pid: i32) -> Option<usize> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let argument = line.split(|byte| *byte == 0).nth(1).filter(|word| !word.is_empty());
    let text = match argument {
        Some(argument) => String::from_utf8_lossy(argument).into_owned(),
        None => fs::read_link(format!("/proc/{pid}/cwd")).ok()?.to_str()?.to_owned(),
    };
    text.rsplit(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

fn is_zombie(pid: i32) -> bool {
    // The state stands after the name, which is in parentheses and may hold anything.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

/// Nanoseconds on a processor (sum_exec_runtime, the first field of schedstat).
pub(super) fn cpu_of(pid: i32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    Ok(text.split_whitespace().next().context("schedstat is empty")?.parse()?)
}

/// Milliseconds that all processors together were not idle, by the kernel's ticks (proc_stat(5); of a virtual machine's own
/// guests there are none).
pub(super) fn busy() -> Result<f64> {
    const TICK_MS: f64 = 10.0;
    let text = fs::read_to_string("/proc/stat")?;
    let all =
        text.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("/proc/stat has no cpu")?;
    let ticks: Result<Vec<f64>, _> = all.split_whitespace().map(str::parse).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks?[..] else {
        anyhow::bail!("/proc/stat: {all}");
    };
    Ok((user + nice + system + irq + softirq) * TICK_MS)
}

/// A number of `/proc/PID/FILE`.
pub(super) fn field_of(pid: i32, file: &str, field: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/{file}");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let value = value.with_context(|| format!("{path} has no {field}"))?;
    Ok(value.split_whitespace().next().context("no value")?.parse()?)
}
