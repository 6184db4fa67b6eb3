//! From the kernel's hand-over to a machine in which motherd can start. Nothing here is fatal: what fails is said, and
//! the next step is taken.

use core::{ffi::CStr, fmt, time::Duration};
use initldr::sys::{self, Fd, Result};
use initldr::{abi::*, line::Line, mounts, phase};

/// What this process is to the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// PID 1 of the machine.
    Machine,
    /// PID 1 of a pid namespace: the machine's mounts and power are not its own.
    Container,
    /// A supervisor among others: a child subreaper.
    Process,
}

/// Where lines go: the kernel log for PID 1, which never blocks a writer, and standard error otherwise.
pub(crate) struct Log(Option<Fd>);

impl Log {
    /// One line. A standard error that would block gets nothing: PID 1 waits in one place, and this is not it.
    pub(crate) fn say(&self, text: fmt::Arguments<'_>) {
        let written = match &self.0 {
            Some(kernel) => sys::write(kernel.raw(), Line::new("<5>", text).as_bytes()),
            None if sys::ppoll([[2, POLLOUT]], Some(Duration::ZERO)) != Ok([POLLOUT]) => return,
            None => sys::write(2, Line::new("", text).as_bytes()),
        };
        written.unwrap_or_default(); // a log that cannot be written cannot be complained about
    }

    /// Says what failed, if it did.
    pub(crate) fn tried(&self, what: &str, result: Result<()>) {
        result.unwrap_or_else(|errno| self.say(format_args!("{what}: {errno}")));
    }
}

/// A C string for people.
pub(crate) fn text(text: &CStr) -> &str {
    text.to_str().unwrap_or("(not UTF-8)")
}

/// The descriptor through which signals come. `None` where there is no memory for one; it is tried again.
pub(crate) fn open_signals() -> Option<Fd> {
    sys::signalfd(&phase::taken().chain([SIGCHLD]).fold(0, |set, signal| set | 1 << (signal - 1))).ok()
}

/// What is done once, and again by an initldr that takes the place of another. A container and a process have what their
/// host gave them; only what is missing is mounted, and a command is given on what initldr was given: descriptors,
/// folder, session, ignored signals.
pub(crate) fn prepare(command: bool, resumes: bool) -> (Role, Log) {
    let mut log = Log(None);
    log.tried("block signals", sys::block_only(&u64::MAX)); // for good: each comes through a signalfd
    if command {
        log.tried("prctl PR_SET_CHILD_SUBREAPER", sys::become_subreaper());
        sys::reset_signal_actions(SIGCHLD..=SIGCHLD);
        return (role(), log);
    }
    sys::reset_signal_actions(1..=SIGRTMAX);
    if !resumes {
        log.tried("close_range", sys::close_from(3, 0)); // nothing is handed to PID 1 beyond the three
    }
    log.tried("chdir to /", sys::chdir(c"/"));
    log.tried("umask", sys::umask(0o022));
    let role = role();
    if role == Role::Machine && !resumes {
        log.tried("leave the initial file system", leave_rootfs());
    }
    if role == Role::Process {
        log.tried("prctl PR_SET_CHILD_SUBREAPER", sys::become_subreaper());
    } else {
        mounts::EARLY.iter().for_each(|mount| log.tried(text(mount.1), mount_if_missing(mount)));
        sys::setsid().unwrap_or_default(); // one that began anew leads its session already, and is refused another
    }
    (0..=2).for_each(|number| log.tried("/dev/console, /dev/null", stand_in_if_closed(number)));
    if !resumes {
        // The lowest number that is free, RESUME_FD, and never closed: what gives way to another initldr is put there.
        log.tried("memfd_create", sys::memfd(c"initldr-resume", 0).map(core::mem::forget));
    }
    if role == Role::Machine {
        log.0 = sys::open(c"/dev/kmsg", O_WRONLY).and_then(|fd| sys::duplicate_high(&fd)).ok(); // beyond motherd's
        // Left alone, the kernel drops all but ten lines of five seconds. Its own command line has the last word.
        let limit = sys::open(c"/proc/sys/kernel/printk_devkmsg", O_WRONLY);
        limit.and_then(|file| sys::write(file.raw(), b"on\n")).unwrap_or_default();
        // Without a keyboard and a screen there is no such device, and nothing to ask for.
        let console = sys::open(c"/dev/tty0", O_RDWR | O_NOCTTY);
        console.and_then(|it| sys::accept_keyboard_request(&it, SIGWINCH)).unwrap_or_default();
    }
    (role, log)
}

/// Ctrl-Alt-Del becomes a SIGINT. In a pid namespace of its own this is EINVAL, and without the right to it EPERM.
fn role() -> Role {
    match sys::getpid() {
        Ok(1) if sys::reboot(LINUX_REBOOT_CMD_CAD_OFF).is_ok() => Role::Machine,
        Ok(1) => Role::Container,
        _ => Role::Process,
    }
}

/// The kernel's initial file system (an initramfs) is the one root that `pivot_root` refuses to leave (EINVAL, before
/// Linux 7.0), for it is mounted on nothing. So it is mounted on itself, and that mount becomes the root of PID 1 and
/// of everything it starts: from there a sandbox can pivot away. What a hook of the initramfs mounted before us comes along.
fn leave_rootfs() -> Result<()> {
    if ![RAMFS_MAGIC, TMPFS_MAGIC].contains(&sys::file_system(c"/")?) {
        return Ok(());
    }
    make_directory(c"/run")?;
    sys::mount(c"/", c"/run", c"", MS_BIND | MS_REC, None)?;
    sys::chdir(c"/run")?;
    cover_root()
}

/// The mount that is the working directory becomes the root, over the old one.
fn cover_root() -> Result<()> {
    sys::mount(c".", c"/", c"", MS_MOVE, None)?;
    sys::chroot(c".")?;
    sys::chdir(c"/")
}

/// Where something is mounted on /rootfs that becomes the root file system, and what the kernel serves moves there.
/// Everything that ran is dead by now. The old root goes, or is covered where the kernel does not let go of it.
pub(crate) fn enter_next_root(log: &Log) -> Result<()> {
    if sys::is_mount_point(c"/rootfs") != Ok(true) {
        return Ok(());
    }
    sys::chdir(c"/rootfs")?;
    for (from, to) in [(c"/dev", c"dev"), (c"/proc", c"proc"), (c"/sys", c"sys"), (c"/run", c"run")] {
        // Where the next root has no such directory, it is mounted anew by `prepare`, as far as that can be.
        log.tried(text(from), sys::mount(from, to, c"", MS_MOVE, None));
    }
    match sys::pivot_root(c".") {
        Ok(()) => sys::umount(c".", MNT_DETACH).and_then(|()| sys::chdir(c"/")),
        Err(_) => cover_root(),
    }
}

/// Where it is there already, mkdir fails for no good reason.
fn make_directory(path: &CStr) -> Result<()> {
    sys::mkdir(path).or_else(|errno| sys::file_system(path).map(drop).map_err(|_| errno))
}

fn mount_if_missing(&(kind, target, flags, data): &mounts::Mount) -> Result<()> {
    make_directory(target)?;
    if sys::is_mount_point(target)? {
        return Ok(());
    }
    sys::mount(kind, target, kind, flags, data).or_else(|_| sys::mount(kind, target, kind, flags, None))
}

/// Programs take 0, 1 and 2 for granted; where one is closed, the next file that is opened would take its place.
fn stand_in_if_closed(number: i32) -> Result<()> {
    if sys::descriptor_flags(number).is_ok() {
        return Ok(());
    }
    let file = sys::open(c"/dev/console", O_RDWR | O_NOCTTY).or_else(|_| sys::open(c"/dev/null", O_RDWR));
    let file = file.or_else(|_| sys::open(c"/", O_RDONLY))?; // nothing can be written there, but the number is taken
    // It is opened at the lowest free number, which is this one, and it is to stay, across exec too.
    let elsewhere = sys::duplicate_high(&file)?;
    drop(file);
    sys::duplicate_onto(&elsewhere, number)
}
