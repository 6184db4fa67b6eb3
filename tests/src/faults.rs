//! System calls of a running process that are made to fail, as they do where memory or descriptors run out: ptrace(2)
//! stops it at each call, and some are not made but answered with an error.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
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
    pub fn inject(pid: Pid, faults: &'static [Fault], mut seed: u64) -> Self {
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        Self::decided(pid, move |number| {
            let fails = |fault: &&Fault| fault.0 == number && random() % fault.2 == 0;
            faults.iter().find(fails).map(|(_, errno, _)| *errno)
        })
    }

    /// From now on the `nth` of these calls fails, and no other.
    pub fn inject_once(pid: Pid, calls: &'static [i64], nth: u64, errno: Errno) -> Self {
        let mut made = 0;
        Self::decided(pid, move |number| {
            made += u64::from(calls.contains(&number));
            (calls.contains(&number) && made == nth).then_some(errno)
        })
    }

    /// Returns when the process is traced: no call of its can be missed.
    fn decided(pid: Pid, decide: impl FnMut(i64) -> Option<Errno> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (send, traced) = mpsc::channel();
        let thread = std::thread::spawn(move || trace(pid, decide, send, &stopped));
        traced.recv().unwrap_or_default(); // it is dropped unsent where tracing failed, which `stop` tells
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

fn trace(
    pid: Pid,
    mut decide: impl FnMut(i64) -> Option<Errno>,
    traced: mpsc::Sender<()>,
    stop: &AtomicBool,
) -> Result<BTreeMap<i64, u64>> {
    ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACESYSGOOD).context("trace it")?;
    ptrace::interrupt(pid)?;
    let mut traced = Some(traced);
    let mut failed = BTreeMap::new();
    // The error of the call that is under way, and whether one is.
    let (mut error, mut inside) = (None, false);
    loop {
        let status = waitpid(pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL))?;
        if status != WaitStatus::StillAlive
            && let Some(traced) = traced.take()
        {
            traced.send(()).unwrap_or_default(); // whoever does not wait any more need not be told
        }
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
                    if !stop.load(Ordering::Relaxed)
                        && let Some(errno) = decide(number)
                    {
                        error = Some(errno);
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
