//! The kernel's numbers and layouts for x86_64, as far as PID 1 needs them.
//!
//! They are written here because PID 1 links nothing; the unit tests compare each with the `libc` crate. A structure of
//! the kernel is an array of words where only one or two of its fields are of interest.

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("initldr speaks to the Linux kernel directly, and so far on x86_64 alone");

/// Declares constants under the names that the kernel's headers give them, and the test that libc agrees.
macro_rules! constants {
    ($test:ident: $type:ty { $($name:ident = $value:expr,)* }) => {
        $(#[allow(missing_docs, reason = "they are the kernel's own names")] pub const $name: $type = $value;)*

        #[test]
        #[allow(clippy::cast_lossless, clippy::cast_possible_truncation, reason = "one comparison for all types")]
        fn $test() {
            // In 32 bits: libc has some of the larger ones as negative integers.
            $(assert_eq!($name as i64 as u32, libc::$name as i64 as u32, stringify!($name));)*
        }
    };
}

/// System call numbers (arch/x86/entry/syscalls/syscall_64.tbl), and the test that libc agrees.
macro_rules! system_calls {
    ($($name:ident $libc:ident = $value:literal,)*) => {
        /// System call numbers.
        pub(crate) mod nr {
            $(pub(crate) const $name: usize = $value;)*
        }

        #[test]
        fn the_system_call_numbers_are_those_of_libc() {
            $(assert_eq!(nr::$name as i64, libc::$libc, stringify!($name));)*
        }
    };
}

system_calls! {
    READ SYS_read = 0, WRITE SYS_write = 1, CLOSE SYS_close = 3, RT_SIGACTION SYS_rt_sigaction = 13,
    RT_SIGPROCMASK SYS_rt_sigprocmask = 14, IOCTL SYS_ioctl = 16, PREAD64 SYS_pread64 = 17, GETPID SYS_getpid = 39,
    SENDMSG SYS_sendmsg = 46, RECVMSG SYS_recvmsg = 47, SOCKETPAIR SYS_socketpair = 53, SETSOCKOPT SYS_setsockopt = 54, GETSOCKOPT SYS_getsockopt = 55,
    CLONE SYS_clone = 56, EXECVE SYS_execve = 59, KILL SYS_kill = 62, FCNTL SYS_fcntl = 72, FTRUNCATE SYS_ftruncate = 77,
    CHDIR SYS_chdir = 80, UMASK SYS_umask = 95, SETSID SYS_setsid = 112, SETPGID SYS_setpgid = 109,
    GETPGRP SYS_getpgrp = 111, STATFS SYS_statfs = 137, PIVOT_ROOT SYS_pivot_root = 155, PRCTL SYS_prctl = 157,
    CHROOT SYS_chroot = 161, SYNC SYS_sync = 162, MOUNT SYS_mount = 165, UMOUNT2 SYS_umount2 = 166,
    SWAPOFF SYS_swapoff = 168, REBOOT SYS_reboot = 169, CLOCK_GETTIME SYS_clock_gettime = 228,
    EXIT_GROUP SYS_exit_group = 231, WAITID SYS_waitid = 247, OPENAT SYS_openat = 257, MKDIRAT SYS_mkdirat = 258,
    PPOLL SYS_ppoll = 271, SIGNALFD4 SYS_signalfd4 = 289, DUP3 SYS_dup3 = 292, PRLIMIT64 SYS_prlimit64 = 302,
    MEMFD_CREATE SYS_memfd_create = 319, STATX SYS_statx = 332, CLOSE_RANGE SYS_close_range = 436,
}

constants! { signed: i32 {
    EPERM = 1, ENOENT = 2, EINTR = 4, ENOEXEC = 8, EBADF = 9, EAGAIN = 11, ENOMEM = 12, EACCES = 13, EBUSY = 16,
    ENODEV = 19, ENOTDIR = 20, EINVAL = 22, ENOSPC = 28, EPIPE = 32, ECONNRESET = 104, EDQUOT = 122, CLD_EXITED = 1,
    CLD_KILLED = 2, CLD_DUMPED = 3, AT_FDCWD = -100, SOL_SOCKET = 1, SCM_RIGHTS = 1, SO_LINGER = 13, POLLIN = 1,
    POLLOUT = 4,
} }
constants! { signals: u32 {
    SIGHUP = 1, SIGINT = 2, SIGQUIT = 3, SIGABRT = 6, SIGKILL = 9, SIGUSR1 = 10, SIGUSR2 = 12, SIGTERM = 15, SIGCHLD = 17,
    SIGCONT = 18, SIGTSTP = 20, SIGTTIN = 21, SIGTTOU = 22, SIGWINCH = 28, SIGPWR = 30,
} }
constants! { flags: usize {
    SIG_SETMASK = 2, SFD_CLOEXEC = 0o2_000_000, SFD_NONBLOCK = 0o4_000, P_ALL = 0, WNOHANG = 1, WSTOPPED = 2, WEXITED = 4,
    O_RDONLY = 0, O_WRONLY = 1, O_RDWR = 2, O_NOCTTY = 0o400, O_CLOEXEC = 0o2_000_000, F_DUPFD_CLOEXEC = 1030, F_GETFD = 1,
    F_SETFD = 2, FD_CLOEXEC = 1, CLOSE_RANGE_CLOEXEC = 4, F_ADD_SEALS = 1033, F_SEAL_SEAL = 1, F_SEAL_SHRINK = 2,
    F_SEAL_GROW = 4, MFD_CLOEXEC = 1, MFD_ALLOW_SEALING = 2, MFD_NOEXEC_SEAL = 8, TIOCSCTTY = 0x540e, TIOCGPGRP = 0x540f,
    TIOCSPGRP = 0x5410, AF_UNIX = 1, SOCK_SEQPACKET = 5, SOCK_CLOEXEC = 0o2_000_000, CLONE_VM = 0x100, CLONE_FILES = 0x400,
    CLONE_SIGHAND = 0x800, CLONE_THREAD = 0x1_0000, MSG_DONTWAIT = 0x40, MSG_NOSIGNAL = 0x4000,
    MSG_CMSG_CLOEXEC = 0x4000_0000, CLOCK_MONOTONIC = 1, CLOCK_BOOTTIME = 7, PR_SET_CHILD_SUBREAPER = 36, RLIMIT_NOFILE = 7,
    MS_RDONLY = 1, MS_NOSUID = 2, MS_NODEV = 4, MS_NOEXEC = 8, MS_REMOUNT = 32, MS_BIND = 4096, MS_MOVE = 8192,
    MS_REC = 16384, MS_PRIVATE = 1 << 18, MNT_DETACH = 2, LINUX_REBOOT_MAGIC1 = 0xfee1_dead,
    LINUX_REBOOT_MAGIC2 = 672_274_793, LINUX_REBOOT_CMD_RESTART = 0x0123_4567, LINUX_REBOOT_CMD_HALT = 0xcdef_0123,
    LINUX_REBOOT_CMD_POWER_OFF = 0x4321_fedc, LINUX_REBOOT_CMD_KEXEC = 0x4558_4543, LINUX_REBOOT_CMD_CAD_ON = 0x89ab_cdef,
    LINUX_REBOOT_CMD_CAD_OFF = 0,
} }
constants! { file_systems: u64 { TMPFS_MAGIC = 0x0102_1994, STATX_ATTR_MOUNT_ROOT = 0x2000, } }

/// include/uapi/linux/kd.h; libc does not have it.
pub const KDSIGACCEPT: usize = 0x4b4e;
/// include/uapi/linux/loop.h, include/uapi/linux/dm-ioctl.h; libc does not have them.
pub const LOOP_CLR_FD: usize = 0x4c01;
/// `_IOWR(0xfd, 4, struct dm_ioctl)`: the structure's size is in it.
pub const DM_DEV_REMOVE: usize = 0xc138_fd04;
/// include/uapi/linux/watchdog.h; libc does not have them.
pub const WDIOC_SETTIMEOUT: usize = 0xc004_5706;
#[allow(missing_docs, reason = "see above")]
pub const WDIOC_GETTIMEOUT: usize = 0x8004_5707;
/// include/uapi/linux/magic.h; libc does not have it.
pub const RAMFS_MAGIC: u64 = 0x8584_58f6;
/// The first real-time signal that the C libraries leave to programs, which is what `SIGRTMIN+n` means to everybody
/// (the kernel's own is 32; glibc keeps 32 and 33).
pub const SIGRTMIN: u32 = 34;
/// The last signal there is.
pub const SIGRTMAX: u32 = 64;

/// `struct timespec`: seconds, nanoseconds.
pub(crate) type Timespec = [u64; 2];
/// `siginfo_t` as waitid(2) fills it: `si_code` is word 2, `si_pid` 4, `si_status` 6.
pub(crate) type ChildInfo = [i32; 32];
/// `struct rusage`: `ru_utime` is words 0 and 1, seconds and microseconds, `ru_stime` 2 and 3, `ru_maxrss` 4.
pub(crate) type Usage = [u64; 18];
/// `struct signalfd_siginfo`: `ssi_signo` is word 0, `ssi_pid` 3, `ssi_uid` 4.
pub(crate) type SignalInfo = [u32; 32];
/// `struct statfs`: `f_type` is word 0.
pub(crate) type Statfs = [u64; 15];
/// `struct statx`: `stx_attributes` is word 1.
pub(crate) type Statx = [u64; 32];
/// `struct dm_ioctl`: `version` is words 0 to 2, `data_size` 3, `dev` 10.
pub type MappedDevice = [u32; 78];
/// `struct rlimit`: the soft limit, the hard one.
pub type Limit = [u64; 2];

/// `struct msghdr`: `msg_iov` is word 2, `msg_iovlen` 3, `msg_control` 4, `msg_controllen` 5. A `struct iovec` is the
/// address and the length.
pub(crate) type Msghdr = [usize; 7];
/// `struct cmsghdr` and one descriptor: `cmsg_len` is words 0 and 1, `cmsg_level` 2, `cmsg_type` 3, the descriptor 4.
/// Its size is `CMSG_LEN(sizeof(int))`. As `msg_controllen` that leaves room for one descriptor and no second one, where
/// `CMSG_SPACE` would leave room for two.
pub(crate) type OneFd = [i32; 5];

/// `struct pollfd`: `fd` is word 0, `events` the lower half of word 1 and `revents` its upper half.
pub type Poll = [i32; 2];

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};

    /// The byte at which a field of libc's structure starts, in words of ours.
    macro_rules! word {
        ($libc:ident, $field:ident, $word:ty) => {
            offset_of!(libc::$libc, $field) as f64 / size_of::<$word>() as f64
        };
    }

    #[test]
    fn the_layouts_are_those_of_libc() {
        assert_eq!(size_of::<Timespec>(), size_of::<libc::timespec>());
        assert_eq!(word!(timespec, tv_nsec, u64), 1.0);
        assert_eq!(size_of::<ChildInfo>(), size_of::<libc::siginfo_t>());
        assert_eq!(word!(siginfo_t, si_code, i32), 2.0); // the rest of it is proved by the exits that tests see
        assert_eq!(size_of::<Usage>(), size_of::<libc::rusage>());
        assert_eq!((word!(rusage, ru_stime, u64), word!(rusage, ru_maxrss, u64)), (2.0, 4.0));
        assert_eq!(size_of::<SignalInfo>(), size_of::<libc::signalfd_siginfo>());
        assert_eq!(word!(signalfd_siginfo, ssi_pid, u32), 3.0);
        assert_eq!(word!(signalfd_siginfo, ssi_uid, u32), 4.0);
        assert_eq!((size_of::<Statfs>(), word!(statfs, f_type, u64)), (size_of::<libc::statfs>(), 0.0));
        assert_eq!((size_of::<Statx>(), word!(statx, stx_attributes, u64)), (size_of::<libc::statx>(), 1.0));
        assert_eq!((size_of::<Limit>(), word!(rlimit, rlim_max, u64)), (size_of::<libc::rlimit>(), 1.0));
        assert_eq!((size_of::<Poll>(), word!(pollfd, events, i32)), (size_of::<libc::pollfd>(), 1.0));
        assert_eq!(word!(pollfd, revents, i32), 1.5);
        assert_eq!((size_of::<[usize; 2]>(), word!(iovec, iov_len, usize)), (size_of::<libc::iovec>(), 1.0));
        assert_eq!(size_of::<Msghdr>(), size_of::<libc::msghdr>());
        assert_eq!((word!(msghdr, msg_iov, usize), word!(msghdr, msg_iovlen, usize)), (2.0, 3.0));
        assert_eq!((word!(msghdr, msg_control, usize), word!(msghdr, msg_controllen, usize)), (4.0, 5.0));
        assert_eq!((word!(cmsghdr, cmsg_level, i32), word!(cmsghdr, cmsg_type, i32)), (2.0, 3.0));
        assert_eq!(size_of::<libc::cmsghdr>(), 4 * size_of::<i32>(), "the descriptor is word 4");
        assert_eq!(size_of::<OneFd>(), size_of::<libc::cmsghdr>() + size_of::<i32>(), "CMSG_LEN");
        assert_eq!(size_of::<OneFd>(), 20, "which is the length in it");
        assert_eq!(SIGRTMIN, u32::try_from(libc::SIGRTMIN()).unwrap());
        assert_eq!(SIGRTMAX, u32::try_from(libc::SIGRTMAX()).unwrap());
    }
}
