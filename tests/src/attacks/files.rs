//! Attacks by way of files of the kernel's, and on how rules follow files.

use std::path::Path;

use anyhow::{Result, ensure};
use nix::errno::Errno::{self, EACCES, ENOENT, EPERM, EROFS};

use super::lab::Lab;
use super::{Verdict, attacks};
use crate::probe::Outcome;

attacks! {
    kernel_settings_written_from_a_sandbox [34]
        "proc without its settings, or with them read-only and masked; sysfs read-only; Landlock";
    kernel_memory_and_keys_read_from_a_sandbox [34]
        "proc without them, or masked; a /dev of six nodes";
    landlock_rule_on_a_missing_path [38]
        "a missing path is an error that names it";
    landlock_rule_and_renamed_files [38]
        "rules are on folders, so a file that is renamed over stays within them";
}

const WRITTEN: [&str; 13] = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hotplug",
    "/proc/sys/kernel/randomize_va_space",
    "/proc/sys/kernel/panic",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sysrq-trigger",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/irq/default_smp_affinity",
    "/sys/kernel/uevent_helper",
    "/sys/power/state",
    "/sys/kernel/mm/transparent_hugepage/enabled",
];

const READ: [&str; 9] = [
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/dev/mem",
    "/dev/kmsg",
    "/dev/port",
    "/sys/firmware/acpi/tables/DSDT",
    "/sys/kernel/notes",
];

/// Those that are on this machine, under both views of /proc, as root and with Landlock granting all of it.
fn out_of_reach(lab: &Lab, verb: &str, paths: &[&str], least: usize) -> Result<Verdict> {
    let refusals: &[Errno] = &[EACCES, EROFS, ENOENT, EPERM];
    let here: Vec<String> =
        paths.iter().filter(|path| Path::new(path).exists()).map(|path| format!("{verb} {path}")).collect();
    // Of those, the ones that root may use at all.
    let free = lab.each_unconfined(here.iter().map(String::as_str))?;
    let acts: Vec<(&str, &[Errno])> = here
        .iter()
        .zip(free)
        .filter(|(_, free)| *free == Outcome::Allowed)
        .map(|(act, _)| (act.as_str(), refusals))
        .collect();
    ensure!(acts.len() >= least, "control: only {} of {} can be used by root here", acts.len(), paths.len());
    for proc in ["self", "full"] {
        let sections = format!(
            "[filesystem]\nproc = \"{proc}\"\n[process]\nuser = \"root\"\n\
             [landlock]\nwrite = {{ add = [\"/proc\"] }}\n"
        );
        lab.resists(&sections, &acts)?;
    }
    lab.resists("", &acts)
}

fn kernel_settings_written_from_a_sandbox(lab: &Lab) -> Result<Verdict> {
    out_of_reach(lab, "write", &WRITTEN, 6)
}

fn kernel_memory_and_keys_read_from_a_sandbox(lab: &Lab) -> Result<Verdict> {
    out_of_reach(lab, "open", &READ, 3)
}

fn landlock_rule_on_a_missing_path(lab: &Lab) -> Result<Verdict> {
    let missing = lab.path("missing");
    for list in ["read", "write", "execute"] {
        let told = lab.plan(&format!("[landlock]\n{list} = {{ add = [\"{missing}\"] }}\n")).map(drop);
        let told = told.map_err(|error| format!("{error:#}"));
        ensure!(
            told.as_ref().is_err_and(|told| told.contains("missing-path") && told.contains(&missing)),
            "{told:?}"
        );
    }
    let optional = format!("[landlock]\nread = {{ add = [{{ path = \"{missing}\", optional = true }}] }}\n");
    lab.plan(&optional)?;
    // What comes there afterwards has no rule.
    let file = lab.file("missing", "late")?;
    let service = format!("open {file}");
    let answer = lab.outcome("", &service)?;
    ensure!(answer == Outcome::Denied(EACCES), "{service}: {answer}");
    Ok(Verdict::Resisted)
}

fn landlock_rule_and_renamed_files(lab: &Lab) -> Result<Verdict> {
    let rotated = lab.outcome("", "rotate /tmp")?;
    ensure!(rotated == Outcome::Allowed, "a log is rotated in a folder that is granted: {rotated}");
    let folder = lab.folder("logs")?;
    lab.mode("logs", 0o777)?;
    let elsewhere = format!("[filesystem]\nread_write = [\"{folder}\"]\n");
    let denied = lab.outcome(&elsewhere, &format!("rotate {folder}"))?;
    ensure!(denied == Outcome::Denied(EACCES), "control: in one that is not granted: {denied}");
    Ok(Verdict::Resisted)
}
