//! System calls of a running process that are made to fail, as they do where memory or descriptors run out: ptrace(2)
//! stops it at each call, and some are not made but answered with an error.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::sys;

/// A call, what it fails with, and one in how many of them does.
pub type Fault = (i64, Errno, u64);

/// What the kernel may answer to the calls of initldr's loop when memory, processes or descriptors run out. A launch that
/// fails makes the next one wait, so those fail less often.
pub const EXHAUSTION: [Fault; 10] = [
    (libc::SYS_ppoll, Errno::ENOMEM, 3),
    (libc::SYS_sendmsg, Errno::ENOMEM, 6),
    (libc::SYS_sendmsg, Errno::ENOBUFS, 6),
    (libc::SYS_recvmsg, Errno::ENOMEM, 3),
    (libc::SYS_read, Errno::EINTR, 3),
    (libc::SYS_write, Errno::ENOMEM, 3),
    (libc::SYS_socketpair, Errno::EMFILE, 6),
    (libc::SYS_memfd_create, Errno::ENFILE, 6),
    (libc::SYS_clone, Errno::ENOMEM, 12),
    (libc::SYS_clone, Errno::EAGAIN, 12),
];

/// Sets how many descriptors a process may have; how many they were before.
pub fn limit_files(pid: Pid, soft: u64) -> Result<u64> {
    Ok(sys::limit_files(pid.as_raw(), soft)?)
}

/// Sends a signal, by its number.
pub fn send_signal(pid: Pid, number: i32) -> Result<()> {
    Ok(sys::send_signal(pid.as_raw(), number)?)
}

/// Faults being injected.
#[derive(Debug)]
pub struct Faults {
    thread: Option<JoinHandle<Result<BTreeMap<i64, u64>>>>,
    stop: Arc<AtomicBool>,
}

impl Faults {
    /// From now on some of these calls of the process fail; which ones follows from `seed`.
    pub fn inject(pid: Pid, faults: &'static [Fault], seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || trace(pid, faults, seed, &stopped));
        Self { thread: Some(thread), stop }
    }

    /// No more of them; how many calls failed, by their number.
    pub fn stop(mut self) -> Result<BTreeMap<i64, u64>> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("stopped once")?;
        thread.join().map_err(|_| anyhow!("the tracing thread panicked"))?
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join()); // what it has to say is asked by `stop`
        }
    }
}

fn trace(pid: Pid, faults: &'static [Fault], mut seed: u64, stop: &AtomicBool) -> Result<BTreeMap<i64, u64>> {
    ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACESYSGOOD).context("trace it")?;
    ptrace::interrupt(pid)?;
    let mut failed = BTreeMap::new();
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    // The error of the call that is under way, and whether one is.
    let (mut error, mut inside) = (None, false);
    loop {
        let status = waitpid(pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL))?;
        match status {
            WaitStatus::StillAlive => {
                // It sleeps in a call that was let through: there it can be stopped and let go.
                if stop.load(Ordering::Relaxed) {
                    ptrace::interrupt(pid)?;
                }
                std::thread::sleep(Duration::from_micros(100));
                continue;
            }
            WaitStatus::PtraceSyscall(_) => {
                let mut registers = ptrace::getregs(pid)?;
                if inside {
                    if let Some(errno) = error.take() {
                        registers.rax = (-i64::from(errno as i32)).cast_unsigned();
                        ptrace::setregs(pid, registers)?;
                    }
                } else {
                    let number = registers.orig_rax.cast_signed();
                    let fails = |fault: &&Fault| fault.0 == number && random() % fault.2 == 0;
                    if !stop.load(Ordering::Relaxed)
                        && let Some((_, errno, _)) = faults.iter().find(fails)
                    {
                        error = Some(*errno);
                        *failed.entry(number).or_default() += 1;
                        registers.orig_rax = u64::MAX; // no such call: the kernel makes none
                        ptrace::setregs(pid, registers)?;
                    }
                }
                inside = !inside;
                // Between two calls, with nothing pretended.
                if !inside && stop.load(Ordering::Relaxed) {
                    ptrace::detach(pid, None)?;
                    return Ok(failed);
                }
            }
            WaitStatus::PtraceEvent(..) if stop.load(Ordering::Relaxed) && error.is_none() => {
                ptrace::detach(pid, None)?;
                return Ok(failed);
            }
            WaitStatus::PtraceEvent(..) => {}
            WaitStatus::Stopped(_, signal) => {
                ptrace::syscall(pid, signal)?;
                continue;
            }
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) | WaitStatus::Continued(_) => {
                bail!("the traced process: {status:?}")
            }
        }
        ptrace::syscall(pid, None)?;
    }
}
