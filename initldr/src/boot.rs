//! From the kernel's hand-over to a machine in which motherd can start. Nothing here is fatal: what fails is said, and
//! the next step is taken.

use core::{ffi::CStr, fmt, time::Duration};
use initldr::{
    abi::{self, Limit, Poll},
    line::Line,
    mounts::{EARLY, Mount},
    phase,
    sys::{self, Fd, Result, Signals},
};

/// What this process is to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// PID 1 of the machine.
    Machine,
    /// PID 1 of a pid namespace: the machine's mounts and power are not its own.
    Container,
    /// A supervisor among others: a child subreaper.
    Process,
}

/// Where lines go: the kernel log for PID 1, which never blocks a writer, and standard error otherwise.
#[derive(Debug)]
pub(crate) struct Log {
    kernel: Option<Fd>,
}

impl Log {
    /// One line. A standard error that would block gets nothing: PID 1 waits in one place, and this is not it.
    pub(crate) fn say(&self, text: fmt::Arguments<'_>) {
        let written = match &self.kernel {
            Some(kernel) => sys::write(kernel.raw(), Line::new("<5>", text).as_bytes()),
            None => {
                let mut poll = [Poll { fd: 2, events: abi::POLLOUT, revents: 0 }];
                match sys::ppoll(&mut poll, Some(Duration::ZERO)) {
                    Ok(()) if poll[0].revents == abi::POLLOUT => {
                        sys::write(2, Line::new("", text).as_bytes())
                    }
                    _ => Ok(0),
                }
            }
        };
        written.unwrap_or_default(); // a log that cannot be written cannot be complained about
    }

    /// A step that may fail.
    fn tried<T>(&self, what: &str, result: Result<T>) -> Option<T> {
        result.map_err(|errno| self.say(format_args!("{what}: {errno}"))).ok()
    }
}

/// A C string for people.
pub(crate) fn text(text: &CStr) -> &str {
    text.to_str().unwrap_or("(not UTF-8)")
}

/// Blocks every signal for good, so that each comes through [`open_signals`] and none acts by itself.
pub(crate) fn take_signals() {
    sys::block_only(Signals::ALL).unwrap_or_default(); // cannot fail: the set and its size are constants
    sys::reset_signal_actions();
}

/// The signalfd. `None` where there is no memory for one; it is tried again.
pub(crate) fn open_signals() -> Option<Fd> {
    sys::signalfd(phase::passed_on().chain([abi::SIGCHLD]).fold(Signals::NONE, Signals::with)).ok()
}

/// What is done once. A container and a process have what their host gave them; only what is missing is mounted.
pub(crate) fn prepare() -> (Role, Log) {
    let mut log = Log { kernel: None };
    log.tried("close_range", sys::close_from(3)); // nothing is handed to PID 1 beyond the three
    log.tried("chdir to /", sys::chdir(c"/"));
    sys::umask(0o022);
    if sys::getpid() != 1 {
        log.tried("prctl PR_SET_CHILD_SUBREAPER", sys::become_subreaper());
        stand_in_for_closed_stdio(&log);
        return (Role::Process, log);
    }
    // Ctrl-Alt-Del becomes a SIGINT. In a pid namespace of its own this is EINVAL, which tells the two apart.
    let role = match sys::reboot(abi::LINUX_REBOOT_CMD_CAD_OFF) {
        Ok(()) => Role::Machine,
        Err(_) => Role::Container,
    };
    if role == Role::Machine {
        log.tried("leave the initial file system", leave_rootfs());
    }
    for mount in &EARLY {
        if let Err(errno) = mount_if_missing(mount) {
            log.say(format_args!("mount {} on {}: {errno}", text(mount.kind), text(mount.target)));
        }
    }
    if role == Role::Machine {
        log.kernel = sys::open(c"/dev/kmsg", abi::O_WRONLY).ok();
    }
    stand_in_for_closed_stdio(&log);
    log.tried("setsid", sys::setsid());
    (role, log)
}

/// Lets this process open as many files as it may: the store has 1024 slots, and the usual limit is 1024 in all.
/// Returns the limits of before, which its children get back.
pub(crate) fn raise_file_limit() -> Option<Limit> {
    let before = sys::limit_files(None).ok()?;
    sys::limit_files(Some(Limit { soft: before.hard, ..before })).ok()?;
    Some(before)
}

/// The kernel's initial file system (an initramfs) is the one root that `pivot_root` refuses to leave (EINVAL, before
/// Linux 7.0), for it is mounted on nothing. So it is mounted on itself, and that mount becomes the root of PID 1 and
/// of everything it starts: from there a sandbox can pivot away.
fn leave_rootfs() -> Result<()> {
    let kind = sys::file_system(c"/")?;
    if kind != abi::RAMFS_MAGIC && kind != abi::TMPFS_MAGIC {
        return Ok(());
    }
    make_directory(c"/run")?;
    sys::mount(c"/", c"/run", c"", abi::MS_BIND, None)?;
    sys::chdir(c"/run")?;
    sys::mount(c".", c"/", c"", abi::MS_MOVE, None)?;
    sys::chroot(c".")?;
    sys::chdir(c"/")
}

fn make_directory(path: &CStr) -> Result<()> {
    match sys::mkdir(path) {
        Err(errno) if sys::file_system(path).is_err() => Err(errno), // not because it is there
        _ => Ok(()),
    }
}

fn mount_if_missing(mount: &Mount) -> Result<()> {
    make_directory(mount.target)?;
    if sys::is_mount_point(mount.target)? {
        return Ok(());
    }
    let with = |data| sys::mount(mount.kind, mount.target, mount.kind, mount.flags, data);
    with(mount.data).or_else(|errno| if mount.data_is_optional { with(None) } else { Err(errno) })
}

/// Programs take 0, 1 and 2 for granted; where one is closed, the next file that is opened would take its place.
fn stand_in_for_closed_stdio(log: &Log) {
    for number in 0..=2 {
        if sys::is_open(number) {
            continue;
        }
        let console = sys::open(c"/dev/console", abi::O_RDWR | abi::O_NOCTTY);
        let file = console.or_else(|_| sys::open(c"/dev/null", abi::O_RDWR));
        // It was opened at the lowest free number, which is this one; so it stays open there, across exec too.
        let placed = file.and_then(sys::leave_open);
        log.tried("open /dev/console or /dev/null", placed);
    }
}
