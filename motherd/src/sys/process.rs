//! Processes by their identity, and descriptors as they were inherited.

use std::{
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::errno::Errno;

/// pidfd_open(2): the process that has this pid now. Close-on-exec by itself.
pub(crate) fn pidfd_open(pid: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: two integers; the kernel takes no pointer.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// pidfd_send_signal(2): to this very process, and to no other that got its pid.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is what asks for the one that kill(2) would send; the rest are integers.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0) };
    Errno::result(sent).map(drop)
}

/// `struct pidfd_info`, its first version: mask, cgroup id, eleven ids, exit code.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup_id: u64,
    ids: [u32; 11],
    exit_code: i32,
}
const _: () = assert!(size_of::<Info>() == 64);
/// `_IOWR(0xFF, 11, struct pidfd_info)` of 64 bytes.
const PIDFD_GET_INFO: libc::Ioctl = 0xc040_ff0b;

/// PIDFD_GET_INFO with PIDFD_INFO_EXIT (Linux 6.15): the id of the cgroup in which a process ended, and its status as
/// wait(2) encodes it. `None` where it has not been reaped; an error where the kernel does not tell.
pub(crate) fn exit_info(pidfd: BorrowedFd<'_>) -> Result<Option<(u64, i32)>, Errno> {
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    let mut info = Info { mask: PIDFD_INFO_EXIT, ..Info::default() };
    // SAFETY: the request's number says 64 bytes, which is what the kernel writes at most and what `info` has.
    let answer = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    match Errno::result(answer) {
        Ok(_) if info.mask & PIDFD_INFO_EXIT != 0 => Ok(Some((info.cgroup_id, info.exit_code))),
        Ok(_) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// kill(2), of any number: nix knows no real-time signals.
pub(crate) fn kill(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: two integers.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// sigaction(2): whether this process ignores a signal, as it may have been started to (nohup(1)).
pub(crate) fn is_ignored(signal: i32) -> Result<bool, Errno> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: no new action is given, so nothing changes; the old one is written to `action`, which is as large.
    Errno::result(unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, and has written all of it.
    Ok(unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN)
}

/// What a program has to find where it begins, whoever started it: descriptors 0, 1 and 2 are open, for what is opened first would
/// else be taken for one of them; and SIGPIPE is ignored, so that to write to somebody who has gone is an error.
pub(crate) fn begin_as_programs_do() -> Result<(), Errno> {
    for number in 0..=2 {
        // SAFETY: two integers; on a number that is not open it fails.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
            // SAFETY: a string that ends in NUL and lives on. It becomes the lowest free number, which is this one.
            Errno::result(unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) })?;
        }
    }
    // SAFETY: to ignore a signal runs no code of ours.
    let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    if before == libc::SIG_ERR { Err(Errno::last()) } else { Ok(()) }
}

/// flock(2): LOCK_EX, without waiting. EWOULDBLOCK where another open file has it.
pub(crate) fn flock(file: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: two integers.
    Errno::result(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }).map(drop)
}

/// What the kernel says of a process that is not reaped yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessInfo {
    /// As this pid namespace has it.
    pub(crate) pid: u32,
    /// Likewise.
    pub(crate) parent: u32,
    /// The id of its cgroup.
    pub(crate) cgroup_id: u64,
}

/// PIDFD_GET_INFO (Linux 6.13): in one call what three files of /proc and the cgroup say. ENOTTY where the kernel does not
/// know it, ESRCH where the process was reaped.
pub(crate) fn process_info(pidfd: BorrowedFd<'_>) -> Result<ProcessInfo, Errno> {
    /// PIDFD_INFO_PID, PIDFD_INFO_CGROUPID.
    const WANTED: u64 = 1 | 1 << 2;
    let mut info = Info { mask: WANTED, ..Info::default() };
    // SAFETY: the request's number says 64 bytes, which is what the kernel writes at most and what `info` has.
    let answer = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    Errno::result(answer)?;
    let [pid, _thread_group, parent, ..] = info.ids;
    match info.mask & WANTED {
        WANTED => Ok(ProcessInfo { pid, parent, cgroup_id: info.cgroup_id }),
        _ => Err(Errno::ENODATA),
    }
}

/// Takes over a descriptor that this process was started with. `None` where it is not open. To be called once for each
/// number, before anything else is opened.
pub(crate) fn inherited(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: fcntl(2) with integers; on a number that is not open it fails.
    let flags = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    // SAFETY: it is open (the call above succeeded), and by the contract of this function nobody else owns it.
    (flags == 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// splice(2) from a pipe to where a file's offset is: bytes are in the one or in the other at any instant.
pub(crate) fn splice(pipe: BorrowedFd<'_>, file: BorrowedFd<'_>, len: usize) -> Result<usize, Errno> {
    let none = std::ptr::null_mut();
    // SAFETY: null offsets mean that the files' own are used; the rest are integers.
    let moved =
        unsafe { libc::splice(pipe.as_raw_fd(), none, file.as_raw_fd(), none, len, libc::SPLICE_F_NONBLOCK) };
    Errno::result(moved).map(isize::unsigned_abs)
}

#[cfg(test)]
mod tests {
    use std::os::{fd::AsFd, unix::fs::MetadataExt};

    use super::*;

    /// Where the kernel knows the call, it says what /proc and the file system of cgroups say.
    #[test]
    fn a_process_is_described_in_one_call_as_by_its_files() {
        let pidfd = pidfd_open(std::process::id()).unwrap();
        match process_info(pidfd.as_fd()) {
            Ok(info) => {
                assert_eq!(
                    (info.pid, info.parent),
                    (std::process::id(), std::os::unix::process::parent_id())
                );
                let text = std::fs::read_to_string("/proc/self/cgroup").unwrap();
                let path = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
                let ids = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(|root| {
                    std::fs::metadata(format!("{root}{path}")).map(|found| found.ino()).unwrap_or_default()
                });
                assert!(ids.contains(&info.cgroup_id), "{info:?}: {ids:?}");
            }
            Err(errno) => assert!([Errno::ENOTTY, Errno::EINVAL].contains(&errno), "{errno}"),
        }
    }
}
