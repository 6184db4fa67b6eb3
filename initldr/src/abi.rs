//! The kernel's numbers and layouts for x86_64, as far as PID 1 needs them.
//!
//! They are written here because PID 1 links nothing; the unit tests compare each with the `libc` crate.

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("initldr speaks to the Linux kernel directly, and so far on x86_64 alone");

/// System call numbers: arch/x86/entry/syscalls/syscall_64.tbl.
pub(crate) mod nr {
    pub(crate) const READ: usize = 0;
    pub(crate) const WRITE: usize = 1;
    pub(crate) const CLOSE: usize = 3;
    pub(crate) const RT_SIGACTION: usize = 13;
    pub(crate) const RT_SIGPROCMASK: usize = 14;
    pub(crate) const IOCTL: usize = 16;
    pub(crate) const GETPID: usize = 39;
    pub(crate) const SENDMSG: usize = 46;
    pub(crate) const RECVMSG: usize = 47;
    pub(crate) const SOCKETPAIR: usize = 53;
    pub(crate) const CLONE: usize = 56;
    pub(crate) const EXECVE: usize = 59;
    pub(crate) const KILL: usize = 62;
    pub(crate) const FCNTL: usize = 72;
    pub(crate) const FTRUNCATE: usize = 77;
    pub(crate) const CHDIR: usize = 80;
    pub(crate) const UMASK: usize = 95;
    pub(crate) const SETSID: usize = 112;
    pub(crate) const STATFS: usize = 137;
    pub(crate) const PRCTL: usize = 157;
    pub(crate) const CHROOT: usize = 161;
    pub(crate) const SYNC: usize = 162;
    pub(crate) const MOUNT: usize = 165;
    pub(crate) const UMOUNT2: usize = 166;
    pub(crate) const REBOOT: usize = 169;
    pub(crate) const CLOCK_GETTIME: usize = 228;
    pub(crate) const EXIT_GROUP: usize = 231;
    pub(crate) const WAITID: usize = 247;
    pub(crate) const OPENAT: usize = 257;
    pub(crate) const MKDIRAT: usize = 258;
    pub(crate) const PPOLL: usize = 271;
    pub(crate) const SIGNALFD4: usize = 289;
    pub(crate) const DUP3: usize = 292;
    pub(crate) const PRLIMIT64: usize = 302;
    pub(crate) const MEMFD_CREATE: usize = 319;
    pub(crate) const STATX: usize = 332;
    pub(crate) const CLOSE_RANGE: usize = 436;
}

macro_rules! constants {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $value:expr;)*) => {
        $(#[allow(missing_docs, reason = "they are the kernel's own names")]
        $(#[$doc])* pub const $name: $type = $value;)*

        #[cfg(test)]
        #[test]
        #[allow(clippy::cast_lossless, clippy::cast_possible_truncation, reason = "one comparison for every type")]
        fn the_constants_are_those_of_libc() {
            // In 32 bits: libc has some of the larger ones as negative integers.
            $(assert_eq!($name as i64 as u32, libc::$name as i64 as u32, stringify!($name));)*
        }
    };
}

constants! {
    EPERM: i32 = 1;
    ENOENT: i32 = 2;
    EINTR: i32 = 4;
    EIO: i32 = 5;
    E2BIG: i32 = 7;
    ENOEXEC: i32 = 8;
    EBADF: i32 = 9;
    ECHILD: i32 = 10;
    EAGAIN: i32 = 11;
    ENOMEM: i32 = 12;
    EACCES: i32 = 13;
    EBUSY: i32 = 16;
    ENODEV: i32 = 19;
    ENOTDIR: i32 = 20;
    EISDIR: i32 = 21;
    EINVAL: i32 = 22;
    EMFILE: i32 = 24;
    ENOSPC: i32 = 28;
    EROFS: i32 = 30;
    EPIPE: i32 = 32;
    ECONNRESET: i32 = 104;

    SIGHUP: u32 = 1;
    SIGINT: u32 = 2;
    SIGABRT: u32 = 6;
    SIGKILL: u32 = 9;
    SIGUSR1: u32 = 10;
    SIGUSR2: u32 = 12;
    SIGTERM: u32 = 15;
    SIGCHLD: u32 = 17;
    SIGCONT: u32 = 18;
    SIGWINCH: u32 = 28;
    SIGPWR: u32 = 30;
    SIG_SETMASK: usize = 2;
    SFD_CLOEXEC: usize = 0o2_000_000;
    SFD_NONBLOCK: usize = 0o4_000;

    CLD_EXITED: i32 = 1;
    P_ALL: usize = 0;
    WNOHANG: usize = 1;
    WEXITED: usize = 4;

    AT_FDCWD: i32 = -100;
    O_RDONLY: usize = 0;
    O_WRONLY: usize = 1;
    O_RDWR: usize = 2;
    O_NOCTTY: usize = 0o400;
    O_CLOEXEC: usize = 0o2_000_000;
    F_DUPFD_CLOEXEC: usize = 1030;
    F_GETFD: usize = 1;
    F_SETFD: usize = 2;
    F_ADD_SEALS: usize = 1033;
    F_SEAL_SEAL: usize = 1;
    F_SEAL_SHRINK: usize = 2;
    F_SEAL_GROW: usize = 4;
    MFD_CLOEXEC: usize = 1;
    MFD_ALLOW_SEALING: usize = 2;
    MFD_NOEXEC_SEAL: usize = 8;
    TIOCSCTTY: usize = 0x540e;

    AF_UNIX: usize = 1;
    SOCK_SEQPACKET: usize = 5;
    SOCK_CLOEXEC: usize = 0o2_000_000;
    SOCK_NONBLOCK: usize = 0o4_000;
    SOL_SOCKET: i32 = 1;
    SCM_RIGHTS: i32 = 1;
    MSG_DONTWAIT: usize = 0x40;
    MSG_NOSIGNAL: usize = 0x4000;
    MSG_CMSG_CLOEXEC: usize = 0x4000_0000;
    POLLIN: i16 = 1;
    POLLOUT: i16 = 4;
    POLLERR: i16 = 8;
    POLLHUP: i16 = 16;

    CLOCK_MONOTONIC: usize = 1;
    CLOCK_BOOTTIME: usize = 7;
    PR_SET_CHILD_SUBREAPER: usize = 36;
    RLIMIT_NOFILE: usize = 7;

    MS_RDONLY: usize = 1;
    MS_NOSUID: usize = 2;
    MS_NODEV: usize = 4;
    MS_NOEXEC: usize = 8;
    MS_REMOUNT: usize = 32;
    MS_BIND: usize = 4096;
    MS_MOVE: usize = 8192;
    MS_REC: usize = 16384;
    MS_PRIVATE: usize = 1 << 18;
    TMPFS_MAGIC: u64 = 0x0102_1994;
    STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;

    LINUX_REBOOT_MAGIC1: usize = 0xfee1_dead;
    LINUX_REBOOT_MAGIC2: usize = 672_274_793;
    LINUX_REBOOT_CMD_RESTART: usize = 0x0123_4567;
    LINUX_REBOOT_CMD_HALT: usize = 0xcdef_0123;
    LINUX_REBOOT_CMD_POWER_OFF: usize = 0x4321_fedc;
    LINUX_REBOOT_CMD_KEXEC: usize = 0x4558_4543;
    LINUX_REBOOT_CMD_CAD_ON: usize = 0x89ab_cdef;
    LINUX_REBOOT_CMD_CAD_OFF: usize = 0;
}

/// include/uapi/linux/magic.h; libc does not have it.
pub const RAMFS_MAGIC: u64 = 0x8584_58f6;
/// The first real-time signal that the C libraries leave to programs, which is what `SIGRTMIN+n` means to everybody
/// (the kernel's own is 32; glibc keeps 32 and 33).
pub const SIGRTMIN: u32 = 34;
/// The last signal there is.
pub const SIGRTMAX: u32 = 64;

/// `struct timespec`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Timespec {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: i64,
}

/// `struct pollfd`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Poll {
    /// -1 is passed over.
    pub fd: i32,
    /// What to wait for.
    pub events: i16,
    /// What there is.
    pub revents: i16,
}

/// `siginfo_t` as `waitid(2)` fills it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChildInfo {
    pub(crate) signo: i32,
    pub(crate) errno: i32,
    pub(crate) code: i32,
    pub(crate) pad: i32,
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) status: i32,
    pub(crate) rest: [u32; 25],
}

/// `struct rusage`: two `struct timeval`, `ru_maxrss`, thirteen more.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) user: Timeval,
    pub(crate) system: Timeval,
    pub(crate) max_rss_kib: u64,
    pub(crate) rest: [u64; 13],
}

/// `struct timeval`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Timeval {
    pub(crate) seconds: u64,
    pub(crate) microseconds: u64,
}

/// `struct signalfd_siginfo`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct SignalInfo {
    /// The signal.
    pub number: u32,
    pub(crate) errno: i32,
    pub(crate) code: i32,
    /// Who sent it.
    pub pid: u32,
    /// Whose process that was.
    pub uid: u32,
    pub(crate) rest: [u32; 27],
}

/// The kernel's `struct sigaction` for `rt_sigaction(2)`, which is not the one of libc.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sigaction {
    pub(crate) handler: usize,
    pub(crate) flags: usize,
    pub(crate) restorer: usize,
    pub(crate) mask: u64,
}

/// `struct iovec`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Iovec {
    pub(crate) base: *mut u8,
    pub(crate) length: usize,
}

/// `struct msghdr`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Msghdr {
    pub(crate) name: usize,
    pub(crate) name_length: usize,
    pub(crate) iovec: *mut Iovec,
    pub(crate) iovec_length: usize,
    pub(crate) control: *mut OneFd,
    pub(crate) control_length: usize,
    pub(crate) flags: usize,
}

/// `struct cmsghdr` with room for one descriptor.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OneFd {
    pub(crate) length: usize,
    pub(crate) level: i32,
    pub(crate) kind: i32,
    pub(crate) fd: i32,
    pub(crate) pad: i32,
}

impl OneFd {
    /// `CMSG_LEN(sizeof(int))`. As `msg_controllen` it leaves room for one descriptor and no second one, where
    /// `CMSG_SPACE` would leave room for two.
    pub(crate) const LENGTH: usize = size_of::<usize>() + 3 * size_of::<i32>();
}

/// `struct rlimit`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Limit {
    /// What is enforced.
    pub soft: u64,
    /// How far the soft one may be raised.
    pub hard: u64,
}

/// `struct statfs`, of which the type alone is read.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Statfs {
    pub(crate) kind: u64,
    pub(crate) rest: [u64; 14],
}

/// `struct statx`, of which the attributes alone are read.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Statx {
    pub(crate) mask: u32,
    pub(crate) block_size: u32,
    pub(crate) attributes: u64,
    pub(crate) rest: [u64; 30],
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};

    #[test]
    fn the_system_call_numbers_are_those_of_libc() {
        macro_rules! same {
            ($($ours:ident $libc:ident)*) => { $(assert_eq!(nr::$ours as i64, libc::$libc, stringify!($ours));)* };
        }
        same! {
            READ SYS_read WRITE SYS_write CLOSE SYS_close RT_SIGACTION SYS_rt_sigaction
            RT_SIGPROCMASK SYS_rt_sigprocmask IOCTL SYS_ioctl GETPID SYS_getpid SENDMSG SYS_sendmsg
            RECVMSG SYS_recvmsg SOCKETPAIR SYS_socketpair CLONE SYS_clone EXECVE SYS_execve KILL SYS_kill
            FCNTL SYS_fcntl FTRUNCATE SYS_ftruncate CHDIR SYS_chdir UMASK SYS_umask SETSID SYS_setsid
            STATFS SYS_statfs PRCTL SYS_prctl CHROOT SYS_chroot SYNC SYS_sync MOUNT SYS_mount
            UMOUNT2 SYS_umount2 REBOOT SYS_reboot CLOCK_GETTIME SYS_clock_gettime
            EXIT_GROUP SYS_exit_group WAITID SYS_waitid OPENAT SYS_openat MKDIRAT SYS_mkdirat PPOLL SYS_ppoll
            SIGNALFD4 SYS_signalfd4 DUP3 SYS_dup3 PRLIMIT64 SYS_prlimit64 MEMFD_CREATE SYS_memfd_create
            STATX SYS_statx CLOSE_RANGE SYS_close_range
        }
    }

    #[test]
    fn the_layouts_are_those_of_libc() {
        macro_rules! same {
            ($($ours:ident $libc:ident { $($field:ident $theirs:ident)* })*) => { $(
                assert_eq!(size_of::<$ours>(), size_of::<libc::$libc>(), stringify!($ours));
                $(assert_eq!(offset_of!($ours, $field), offset_of!(libc::$libc, $theirs), stringify!($field));)*
            )* };
        }
        same! {
            Timespec timespec { seconds tv_sec nanoseconds tv_nsec }
            Poll pollfd { fd fd events events revents revents }
            Usage rusage { user ru_utime system ru_stime max_rss_kib ru_maxrss }
            Timeval timeval { seconds tv_sec microseconds tv_usec }
            SignalInfo signalfd_siginfo { number ssi_signo pid ssi_pid uid ssi_uid }
            Iovec iovec { base iov_base length iov_len }
            Msghdr msghdr {
                name msg_name iovec msg_iov iovec_length msg_iovlen control msg_control
                control_length msg_controllen flags msg_flags
            }
            Limit rlimit { soft rlim_cur hard rlim_max }
            Statfs statfs { kind f_type }
            Statx statx { mask stx_mask attributes stx_attributes }
            ChildInfo siginfo_t { signo si_signo errno si_errno code si_code }
        }
        assert_eq!(offset_of!(OneFd, level), offset_of!(libc::cmsghdr, cmsg_level));
        assert_eq!(offset_of!(OneFd, kind), offset_of!(libc::cmsghdr, cmsg_type));
        assert_eq!(offset_of!(OneFd, fd), size_of::<libc::cmsghdr>());
        assert_eq!(SIGRTMIN, u32::try_from(libc::SIGRTMIN()).unwrap());
        assert_eq!(SIGRTMAX, u32::try_from(libc::SIGRTMAX()).unwrap());
    }
}
