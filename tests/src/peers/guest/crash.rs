//! A real fault in the manager: its instruction pointer becomes 0, and the kernel sends it the SIGSEGV that nobody can
//! ignore. A `kill -SEGV` of a PID 1 without a handler would do nothing at all.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::ptrace;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::measure::restart;
use super::processes::Processes;
use super::{Line, Order};
use crate::peers::report;

/// After the fault, until what follows from it has followed.
const AFTERMATH: Duration = Duration::from_secs(3);

/// Makes the manager crash, and says what became of the services, of supervision and of the machine; if the machine has
/// ended, nothing more is said.
pub(super) fn all(order: &Order, line: &mut Line) -> Result<()> {
    let before = Processes::now()?;
    let ours = order.contender.is_ours();
    let manager = if ours { named(&before, "motherd")? } else { 1 };
    line.say(report::FAULT)?;
    let begin = Instant::now();
    fault(manager)?;
    let after = loop {
        let now = Processes::now()?;
        if begin.elapsed() > AFTERMATH {
            break now;
        }
        sleep(Duration::from_millis(100));
    };
    let kept = before.services.iter().filter(|(id, pid)| after.services.get(id) == Some(pid)).count();
    line.figures(
        "kept of",
        &[f64::from(u32::try_from(kept)?), f64::from(u32::try_from(before.services.len())?)],
    )?;
    let back = restart(order.services / 2)?;
    line.say(&report::note("restarted-after-it", if back.is_some() { "yes" } else { "no" }))
}

/// The process of the init system with that name.
fn named(processes: &Processes, name: &str) -> Result<i32> {
    let is =
        |pid: &&i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
    processes.system.iter().find(is).copied().with_context(|| format!("no {name} runs"))
}

fn fault(pid: i32) -> Result<()> {
    let pid = Pid::from_raw(pid);
    ptrace::attach(pid).context("ptrace")?;
    waitpid(pid, None)?;
    let mut registers = ptrace::getregs(pid)?;
    registers.rip = 0;
    // What it was stopped in is not to be begun again.
    registers.orig_rax = u64::MAX;
    ptrace::setregs(pid, registers)?;
    Ok(ptrace::detach(pid, None)?)
}
