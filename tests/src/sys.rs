//! The one unsafe call of the harness.

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::Signal;

/// Has the kernel end the child when the thread that starts it ends, so that a test that is killed leaves nothing.
pub(crate) fn end_with_this_thread(command: &mut Command) -> &mut Command {
    let ask = || nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(std::io::Error::from);
    // SAFETY: the closure runs between fork and exec, where only async-signal-safe calls are allowed: it makes one
    // system call, prctl, and converts an errno into an io::Error, which allocates nothing.
    unsafe { command.pre_exec(ask) }
}
