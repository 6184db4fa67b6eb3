//! The end of the machine, or of this process. There is no way back from here, and no step that can hold it up: what
//! may block (sync, kill, umount, reboot itself) is done by a child, and waited for until a deadline.

use crate::{
    boot::{Log, Role},
    init::Init,
};
use core::{ffi::CStr, time::Duration};
use initldr::{
    abi::{self, Poll},
    link::End,
    mounts::{PATH_SIZE, to_unmount},
    phase::Mercy,
    sys::{self, Fd},
};

/// For processes to act on SIGTERM, where motherd did not stop them.
const TERM_WITHIN: Duration = Duration::from_secs(5);
/// For processes to be gone after SIGKILL; what is still there then hangs in the kernel.
const KILL_WITHIN: Duration = Duration::from_secs(5);
/// For dirty pages to reach the disks, each of two times.
const SYNC_WITHIN: Duration = Duration::from_secs(30);
/// For file systems to be unmounted.
const UNMOUNT_WITHIN: Duration = Duration::from_secs(20);
/// For the kernel to end the machine.
const REBOOT_WITHIN: Duration = Duration::from_secs(20);
/// A mount on a mount takes one pass each; nobody stacks more.
const UNMOUNT_PASSES: usize = 32;

/// See the module.
pub(crate) fn end(init: &mut Init, how: End, mercy: Mercy) -> ! {
    let (log, signals) = (&init.log, init.signals.as_ref());
    log.say(format_args!("ending: {how:?}, {mercy:?}"));
    let code = u8::from(mercy != Mercy::Stopped);
    if init.role == Role::Process {
        end_descendants(signals, init.motherd, mercy);
        sys::exit(code);
    }
    let reaper = Reaper { signals, log };
    // Before the killing: here slow disks are waited for with everything else still running.
    reaper.have_done("sync", SYNC_WITHIN, || sys::sync().unwrap_or_default());
    if mercy == Mercy::Terminate {
        reaper.have_done("kill", KILL_WITHIN, || {
            signal_all(abi::SIGTERM);
            signal_all(abi::SIGCONT); // a stopped process acts on nothing else
        });
        reaper.wait(TERM_WITHIN, None);
    }
    reaper.have_done("kill", KILL_WITHIN, || signal_all(abi::SIGKILL));
    if reaper.wait(KILL_WITHIN, None) == Waited::Late {
        log.say(format_args!("some processes do not die"));
    }
    if init.role == Role::Machine {
        reaper.have_done("unmount", UNMOUNT_WITHIN, unmount_all);
        reaper.have_done("sync", SYNC_WITHIN, || sys::sync().unwrap_or_default());
    }
    reaper.have_done("reboot", REBOOT_WITHIN, || {
        for command in commands(how) {
            sys::reboot(command).unwrap_or_default(); // that it returns at all is the failure; the next one is tried
        }
    });
    if init.role == Role::Container {
        sys::exit(code); // without the right to reboot; in a pid namespace this ends it too
    }
    log.say(format_args!("the kernel did not end the machine; Ctrl-Alt-Del does, at once"));
    sys::reboot(abi::LINUX_REBOOT_CMD_CAD_ON).unwrap_or_default();
    loop {
        reaper.wait(Duration::MAX, None);
        // Without any child there is nothing to wait for but time.
        sys::ppoll(&mut [], Some(REBOOT_WITHIN)).unwrap_or_default();
    }
}

/// What reboot(2) is asked, one after the other. From HALT and POWER_OFF the kernel lets its caller *exit*, which must
/// not happen to PID 1: another reason for a child.
fn commands(how: End) -> [usize; 2] {
    match how {
        End::PowerOff => [abi::LINUX_REBOOT_CMD_POWER_OFF, abi::LINUX_REBOOT_CMD_HALT],
        End::Reboot => [abi::LINUX_REBOOT_CMD_RESTART, abi::LINUX_REBOOT_CMD_RESTART],
        End::Halt => [abi::LINUX_REBOOT_CMD_HALT, abi::LINUX_REBOOT_CMD_POWER_OFF],
        End::Kexec => [abi::LINUX_REBOOT_CMD_KEXEC, abi::LINUX_REBOOT_CMD_RESTART],
    }
}

/// Everything but PID 1 and the caller; ESRCH, for nobody else, is what one hopes for.
fn signal_all(signal: u32) {
    sys::kill(-1, signal).unwrap_or_default();
}

#[derive(Debug, PartialEq, Eq)]
enum Waited {
    /// The child that was waited for has ended.
    Ended,
    /// There is no child any more.
    Nobody,
    /// The deadline came first.
    Late,
}

/// Waits, reaping.
struct Reaper<'a> {
    signals: Option<&'a Fd>,
    log: &'a Log,
}

impl Reaper<'_> {
    /// Has a child do what could hold PID 1 up.
    fn have_done(&self, what: &str, within: Duration, work: impl Fn()) {
        for _ in 0..20 {
            match sys::fork() {
                Ok(None) => {
                    work();
                    sys::exit(0);
                }
                Ok(Some(pid)) => {
                    if self.wait(within, Some(pid)) == Waited::Late {
                        self.log.say(format_args!("{what}: not done within {} s", within.as_secs()));
                    }
                    return;
                }
                Err(_) => sys::ppoll(&mut [], Some(Duration::from_millis(100))).unwrap_or_default(),
            }
        }
        self.log.say(format_args!("{what}: fork: no child to do it"));
        work();
    }

    /// Until `child`, or every child, has ended.
    fn wait(&self, within: Duration, child: Option<u32>) -> Waited {
        let deadline = sys::monotonic().saturating_add(within);
        loop {
            let left = deadline.saturating_sub(sys::monotonic());
            if left.is_zero() {
                return Waited::Late;
            }
            match sys::reap() {
                Ok(Some(ended)) if Some(ended.pid) == child => return Waited::Ended,
                Ok(Some(_)) => {}
                Ok(None) => wait_for_signal(self.signals, left),
                Err(_) => return Waited::Nobody,
            }
        }
    }
}

/// Until a signal, of which SIGCHLD is one; which it was no longer matters.
fn wait_for_signal(signals: Option<&Fd>, at_most: Duration) {
    // Without a signalfd: look twice a second.
    let at_most = if signals.is_some() { at_most } else { at_most.min(Duration::from_millis(500)) };
    let mut poll = [Poll { fd: signals.map_or(-1, Fd::raw), events: abi::POLLIN, revents: 0 }];
    sys::ppoll(&mut poll, Some(at_most)).unwrap_or_default();
    while signals.and_then(sys::next_signal).is_some() {}
}

/// Unmounts whatever lets itself be unmounted, pass after pass, and makes the rest read-only.
fn unmount_all() {
    // Nothing of this is to show in another mount namespace.
    sys::mount(c"none", c"/", c"", abi::MS_REC | abi::MS_PRIVATE, None).unwrap_or_default();
    for _ in 0..UNMOUNT_PASSES {
        let mut gone = 0;
        each_mount(|path| gone += u32::from(path != c"/" && sys::umount(path).is_ok()));
        if gone == 0 {
            break;
        }
    }
    each_mount(|path| {
        // What has no read-only state refuses, and has nothing to lose.
        sys::mount(c"none", path, c"", abi::MS_REMOUNT | abi::MS_RDONLY, None).unwrap_or_default();
    });
}

/// Each mount point that [`to_unmount`] lets through. The list changes under the reader, so an entry may be missed:
/// the next pass has it.
fn each_mount(mut act: impl FnMut(&CStr)) {
    let Ok(mounts) = sys::open(c"/proc/self/mounts", abi::O_RDONLY) else { return };
    let mut path = [0; PATH_SIZE];
    let mut buffer = [0; 2 * PATH_SIZE];
    let mut held = 0;
    while let Some(room) = buffer.get_mut(held..)
        && let Ok(read @ 1..) = sys::read(&mounts, room)
    {
        held += read;
        let mut rest = buffer.get(..held).unwrap_or_default();
        while let Some(length) = rest.iter().position(|&byte| byte == b'\n') {
            let (line, next) = rest.split_at(length);
            rest = next.get(1..).unwrap_or_default();
            if let Some(path) = to_unmount(line, &mut path) {
                act(path);
            }
        }
        let (left, start) = (rest.len(), held - rest.len());
        buffer.copy_within(start..held, 0);
        held = if left == buffer.len() { 0 } else { left }; // a longer line is no mount point that can be reached
    }
}

/// motherd, and then whoever became a child of this subreaper by losing its parent, until there is nobody.
fn end_descendants(signals: Option<&Fd>, motherd: Option<u32>, mercy: Mercy) {
    let kill = |pid: u32, signal| sys::kill(pid.cast_signed(), signal).unwrap_or_default();
    if let Some(pid) = motherd {
        kill(pid, abi::SIGKILL);
    }
    let start = sys::monotonic();
    let killing_from = start + if mercy == Mercy::Terminate { TERM_WITHIN } else { Duration::ZERO };
    let deadline = killing_from + KILL_WITHIN;
    let mut asked = false; // once: to many programs a second SIGTERM means haste
    loop {
        let now = sys::monotonic();
        match sys::reap() {
            Ok(Some(_)) => continue,
            Err(_) => return, // ECHILD: done
            Ok(None) if now >= deadline => return,
            Ok(None) => {}
        }
        let signal = if now >= killing_from { abi::SIGKILL } else { abi::SIGTERM };
        if signal == abi::SIGKILL || !asked {
            each_child(|pid| kill(pid, signal));
            asked = true;
        }
        let next = if now >= killing_from { deadline } else { killing_from };
        wait_for_signal(signals, next.saturating_sub(now).min(Duration::from_millis(200)));
    }
}

/// The pids in /proc/thread-self/children. What was not reaped keeps its pid, so none of them is a stranger's.
fn each_child(mut act: impl FnMut(u32)) {
    let Ok(children) = sys::open(c"/proc/thread-self/children", abi::O_RDONLY) else { return };
    let mut buffer = [0; 512];
    let mut pid = 0_u32;
    while let Ok(read @ 1..) = sys::read(&children, &mut buffer) {
        for byte in buffer.iter().take(read) {
            if byte.is_ascii_digit() {
                pid = pid.wrapping_mul(10).wrapping_add(u32::from(byte - b'0'));
            } else if pid != 0 {
                act(pid);
                pid = 0;
            }
        }
    }
}
