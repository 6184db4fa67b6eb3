//! The end of the machine, or of this process. There is no way back from here, and no step that can hold it up: what
//! may block (sync, umount, reboot itself) is done by a child, and waited for until a deadline.

use crate::boot::{self, Log, Role};
use crate::{program::Program, release};
use core::time::Duration;
use initldr::sys::{self, Errno, Fd};
use initldr::{abi::*, link::End, phase::Mercy};

/// For processes to act on SIGTERM, where motherd did not stop them.
const TERM_WITHIN: Duration = Duration::from_secs(5);
/// For processes to be gone after SIGKILL; what is still there then hangs in the kernel.
const KILL_WITHIN: Duration = Duration::from_secs(5);
/// From one SIGKILL to the next, at most: for what was born meanwhile.
const AGAIN: Duration = Duration::from_millis(200);
/// For file systems to be unmounted, and to be made read-only; for the kernel to end.
const WORK_WITHIN: Duration = Duration::from_secs(20);

/// What ends.
pub(crate) struct Ending<'a> {
    pub(crate) role: Role,
    pub(crate) log: &'a Log,
    pub(crate) signals: Option<&'a Fd>,
    /// The device that is written to as long as this does not hang.
    pub(crate) watchdog: Option<i32>,
}

/// See the module. `program` begins anew, where that is asked for.
pub(crate) fn end(mut init: Ending<'_>, program: Option<&Program>, how: End, mercy: Mercy) -> ! {
    let (role, log) = (init.role, init.log);
    log.say(format_args!("ending: {how:?}, {mercy:?}"));
    if role == Role::Machine {
        init.sync(); // before the killing: here slow disks are waited for with everything else still running
    }
    init.clear_away(mercy);
    if how == End::SoftReboot && role != Role::Process {
        log.tried("enter /rootfs", boot::enter_next_root(log));
        let errno = program.map_or(Errno(ENOENT), |program| program.begin_anew(c"/sbin/initldr", false));
        log.say(format_args!("execute /sbin/initldr: {errno}"));
    }
    if role == Role::Machine {
        init.have_done("unmount", release::let_go);
        init.have_done("make read-only", || release::make_read_only(log));
        init.sync();
    }
    init.leave_watchdog(how);
    // Who runs a container is told of a reboot by this, and of any other end by the status.
    if role == Role::Machine || role == Role::Container && how == End::Reboot {
        init.have_done("reboot", || release::ask_the_kernel(how));
    }
    if role != Role::Machine {
        sys::exit(match (how, mercy) {
            (End::Exit(status), _) => status.into(),
            (_, mercy) => u32::from(mercy != Mercy::Stopped),
        });
    }
    log.say(format_args!("the kernel did not end the machine; Ctrl-Alt-Del does, at once"));
    sys::reboot(LINUX_REBOOT_CMD_CAD_ON).unwrap_or_default();
    loop {
        init.wait(WORK_WITHIN, None);
        sys::ppoll([], Some(WORK_WITHIN)).unwrap_or_default(); // with no child there is nothing to wait for
    }
}

impl Ending<'_> {
    /// Ends every process but this one, as far as it is this one's to end.
    pub(crate) fn clear_away(&self, mercy: Mercy) {
        if mercy == Mercy::Terminate {
            // A stopped process acts on nothing but the second.
            [SIGTERM, SIGCONT].into_iter().for_each(|signal| signal_all(self.role, signal));
            self.wait(TERM_WITHIN, None);
        }
        let deadline = sys::monotonic() + KILL_WITHIN;
        while sys::monotonic() < deadline {
            signal_all(self.role, SIGKILL);
            if self.wait(AGAIN, None) {
                return;
            }
        }
        self.log.say(format_args!("some processes do not die"));
    }

    /// Has a child do what could hold PID 1 up.
    fn have_done(&self, what: &str, work: impl Fn()) {
        self.have_done_while(what, WORK_WITHIN, work, || false);
    }

    /// The same; whenever it is not done within `step`, `goes_on` says whether it is waited for any longer.
    pub(crate) fn have_done_while(
        &self,
        what: &str,
        step: Duration,
        work: impl Fn(),
        mut goes_on: impl FnMut() -> bool,
    ) {
        for _ in 0..20 {
            match sys::fork() {
                Ok(0) => {
                    work();
                    sys::exit(0);
                }
                Ok(pid) => {
                    while !self.wait(step, Some(pid)) {
                        if !goes_on() {
                            return self.log.say(format_args!("{what}: not done in time"));
                        }
                    }
                    return;
                }
                Err(_) => sys::ppoll([], Some(AGAIN)).map_or((), drop), // no memory, yet
            }
        }
        self.log.say(format_args!("{what}: fork: no child to do it"));
        work();
    }

    /// Whether `child`, or every child, has ended in time. Between two SIGKILLs of a process it is until one has.
    fn wait(&self, within: Duration, child: Option<u32>) -> bool {
        let deadline = sys::monotonic() + within;
        loop {
            let left = deadline.saturating_sub(sys::monotonic());
            self.ping();
            match sys::wait(WEXITED) {
                Ok(Some(ended)) if Some(ended.pid) == child => return true,
                Err(_) => return true, // ECHILD: there is nobody left
                Ok(_) if left.is_zero() => return false,
                // What it leaves behind is this one's now.
                Ok(Some(_)) if within == AGAIN && self.role == Role::Process => return false,
                Ok(Some(_)) => {}
                Ok(None) => {
                    // Until a signal, of which SIGCHLD is one, or it is time to look again; which it was no longer matters.
                    let signals = self.signals.map_or(-1, Fd::raw);
                    sys::ppoll([[signals, POLLIN]], Some(left.min(AGAIN))).unwrap_or_default();
                    while self.signals.and_then(sys::next_signal).is_some() {}
                }
            }
        }
    }
}

/// Of PID 1: everything but itself. Of a process: its children, motherd among them, and by and by what they leave
/// behind, for it is a subreaper.
fn signal_all(role: Role, signal: u32) {
    let kill = |pid| sys::kill(pid, signal).unwrap_or_default(); // ESRCH: nobody is left, and that is well
    if role != Role::Process {
        return kill(-1);
    }
    // What was not reaped keeps its pid, so none of them is a stranger's.
    release::each_piece(c"/proc/thread-self/children", b' ', |pid| {
        core::str::from_utf8(pid).ok().and_then(|pid| pid.parse().ok()).map(kill).unwrap_or_default();
    });
}
