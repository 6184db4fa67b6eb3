//! Attacks that make code out of data, and that read it out of what a crash leaves.

use anyhow::{Context, Result, ensure};
use nix::errno::Errno::{EACCES, EPERM};
use nix::sys::wait::WaitStatus;

use super::lab::Lab;
use super::{Verdict, attacks};
use crate::probe::Outcome;

attacks! {
    write_xor_execute_by_memfd_shm_and_proc_self_mem [40]
        "filter rules on mmap, mprotect, shmat and memfd_create; noexec mounts; Landlock on /proc; locked personality";
    core_dump_of_secrets [35]
        "core limits of 0, and of 1 for handlers in a pipe";
}

/// A folder that the service may write to, by mount and by Landlock.
fn writable(lab: &Lab, more: &str) -> Result<(String, String)> {
    let folder = lab.folder("writable")?;
    lab.mode("writable", 0o777)?;
    let sections = format!(
        "[filesystem]\nread_write = [\"{folder}\"]\n[landlock]\nwrite = {{ add = [\"{folder}\"] }}\n\
         [process]\n{more}"
    );
    Ok((folder, sections))
}

fn write_xor_execute_by_memfd_shm_and_proc_self_mem(lab: &Lab) -> Result<Verdict> {
    let (folder, sections) = writable(lab, "")?;
    let in_folder = format!("map-executable {folder}/code");
    let refusals = &[EPERM, EACCES];
    let verdict = lab.resists(
        &sections,
        &[
            ("map write-execute", refusals),
            ("map execute-later", refusals),
            ("execute-memory", refusals),
            ("read-implies-exec", refusals),
            ("write-own-code", refusals),
            ("map-executable /tmp/code", refusals),
            ("map-executable /run/code", refusals),
            ("map-executable /dev/shm/code", refusals),
            (&in_folder, refusals),
        ],
    )?;
    // The same acts work in a sandbox that does not ask for it, but for those that Landlock and the mounts of /dev answer.
    let (_, free) = writable(lab, "memory_deny_write_execute = false\nlock_personality = false\n")?;
    for act in [
        "map write-execute",
        "map execute-later",
        "read-implies-exec",
        "map-executable /tmp/code",
        &in_folder,
    ] {
        let answer = lab.outcome(&free, act)?;
        ensure!(answer == Outcome::Allowed, "control: {act} without memory_deny_write_execute: {answer}");
    }
    Ok(verdict)
}

fn core_dump_of_secrets(lab: &Lab) -> Result<Verdict> {
    let (_, sections) = writable(lab, "working_directory = \"/tmp\"\n")?;
    let dumped = |said: &super::lab::Said| matches!(said.status, WaitStatus::Signaled(_, _, true));
    let confined = lab.confined(&sections, &["die"])?;
    ensure!(matches!(confined.status, WaitStatus::Signaled(..)), "it did not die: {:?}", confined.status);
    ensure!(!dumped(&confined), "it left a core: {:?}", confined.status);
    let (_, free) =
        writable(lab, "core_dumps = true\nworking_directory = \"/tmp\"\n[rlimits]\ncore = \"16M\"\n")?;
    let free = lab.confined(&free, &["die"]).context("control: with core_dumps = true")?;
    if !dumped(&free) {
        let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern")?;
        return Ok(Verdict::NotHere(format!("core_pattern is {}, which dumps nothing", pattern.trim())));
    }
    Ok(Verdict::Resisted)
}
