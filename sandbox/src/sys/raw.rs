//! System calls by the bare `syscall` instruction, each behind a safe, typed function.
//!
//! nix has none of the new mount API, close_range, openat2, capset, landlock_add_rule or seccomp, and what it has sets
//! `errno`, which lives in thread-local storage that a `CLONE_VM` child shares with its parent.

#![allow(
    clippy::cast_possible_truncation,
    reason = "x86_64 alone gets here (compile_error below): long, size_t and pointers are 64 bits"
)]

use std::{
    arch::asm,
    ffi::{CStr, c_char},
    os::fd::RawFd,
    ptr,
    sync::atomic::{AtomicU8, AtomicU32, Ordering},
    time::Duration,
};

use nix::errno::Errno;
use seccompiler::sock_filter;

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the sandbox knows the system calls of x86_64 only");

/// What a system call answered.
pub(crate) type Answer<T> = Result<T, Errno>;

/// One system call with up to six arguments.
///
/// # Safety
/// The arguments must be what the call of that number expects: every pointer among them valid for what the kernel
/// reads or writes through it, for as long as it does.
pub(super) unsafe fn syscall(number: libc::c_long, arguments: [usize; 6]) -> Answer<usize> {
    let result: isize;
    // SAFETY: the kernel's x86_64 convention: number in rax, arguments in rdi rsi rdx r10 r8 r9, rcx and r11 lost,
    // every other register and the stack kept. What the call itself does is the caller's obligation.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            in("r9") arguments[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    match result {
        -4095..=-1 => Err(Errno::from_raw(i32::try_from(-result).unwrap_or(libc::EINVAL))),
        _ => Ok(result.cast_unsigned()),
    }
}

/// A file descriptor or flag word as the kernel takes it: sign-extended.
fn int(value: i32) -> usize {
    (value as isize).cast_unsigned()
}

fn text(value: &CStr) -> usize {
    value.as_ptr() as usize
}

/// A descriptor number out of an answer; the kernel's are ints.
fn descriptor(answer: usize) -> RawFd {
    RawFd::try_from(answer).unwrap_or(-1)
}

/// A call whose arguments are all plain numbers.
fn numbers(number: libc::c_long, arguments: [usize; 6]) -> Answer<usize> {
    // SAFETY: only calls that take no pointer go through here (each caller in this file is one line), so no memory
    // is reached through the arguments.
    unsafe { syscall(number, arguments) }
}

/// A call whose arguments are numbers and C strings that live across it.
fn strings(number: libc::c_long, arguments: [usize; 6]) -> Answer<usize> {
    // SAFETY: each pointer among the arguments comes from `text`, that is from a `&CStr` that the calling function
    // borrows until this returns: NUL-terminated and readable; the calls used here only read through it.
    unsafe { syscall(number, arguments) }
}

/// The processor's time stamp counter. Its rate is constant on every x86_64 processor of the last fifteen years, and that it
/// differs between processors matters to nobody but who measures.
pub(crate) fn counter() -> u64 {
    // SAFETY: rdtsc has no preconditions and touches no memory; a kernel that forbids it (PR_SET_TSC) does so to a process
    // that asked for it, which no process of ours does.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// exit_group(2): ends this process; in a `CLONE_VM` child that is the child alone.
pub(crate) fn exit_group(status: i32) -> ! {
    loop {
        // The call does not return; were a filter to refuse it, there is nothing else left to do.
        if numbers(libc::SYS_exit_group, [int(status), 0, 0, 0, 0, 0]).is_err() {
            continue;
        }
    }
}

/// close(2)
pub(crate) fn close(fd: RawFd) -> Answer<()> {
    numbers(libc::SYS_close, [int(fd), 0, 0, 0, 0, 0]).map(drop)
}

/// setsid(2)
pub(crate) fn setsid() -> Answer<()> {
    numbers(libc::SYS_setsid, [0; 6]).map(drop)
}

/// sethostname(2)
pub(crate) fn sethostname(name: &CStr) -> Answer<()> {
    strings(libc::SYS_sethostname, [text(name), name.count_bytes(), 0, 0, 0, 0]).map(drop)
}

/// setdomainname(2)
pub(crate) fn setdomainname(name: &CStr) -> Answer<()> {
    strings(libc::SYS_setdomainname, [text(name), name.count_bytes(), 0, 0, 0, 0]).map(drop)
}

/// umask(2)
pub(crate) fn umask(mask: u32) -> Answer<()> {
    numbers(libc::SYS_umask, [mask as usize, 0, 0, 0, 0, 0]).map(drop)
}

/// setpriority(2) of this process; `nice` from -20 to 19.
pub(crate) fn set_nice(nice: i8) -> Answer<()> {
    numbers(libc::SYS_setpriority, [libc::PRIO_PROCESS as usize, 0, int(i32::from(nice)), 0, 0, 0]).map(drop)
}

/// sched_getscheduler(2) of this process: SCHED_*, with SCHED_RESET_ON_FORK if that is set.
pub(crate) fn sched_getscheduler() -> Answer<i32> {
    numbers(libc::SYS_sched_getscheduler, [0; 6]).map(descriptor)
}

/// sched_setscheduler(2) of this process.
pub(crate) fn sched_setscheduler(policy: i32, priority: i32) -> Answer<()> {
    let parameter = libc::sched_param { sched_priority: priority };
    let arguments = [0, int(policy), ptr::from_ref(&parameter) as usize, 0, 0, 0];
    // SAFETY: the third argument points at a `sched_param`, one int, on this stack, which the kernel only reads.
    unsafe { syscall(libc::SYS_sched_setscheduler, arguments) }.map(drop)
}

/// sched_setaffinity(2) of this process.
pub(crate) fn sched_setaffinity(processors: &[u64]) -> Answer<()> {
    let arguments = [0, size_of_val(processors), processors.as_ptr() as usize, 0, 0, 0];
    // SAFETY: the size and the pointer are those of one slice, which the kernel only reads.
    unsafe { syscall(libc::SYS_sched_setaffinity, arguments) }.map(drop)
}

/// Whether sched_getaffinity(2) answers exactly these. The kernel fills as many words as it has processors for.
pub(crate) fn affinity_is(processors: &[u64]) -> Answer<bool> {
    const WORDS: usize = 128; // 8,192 processors, NR_CPUS of x86_64
    let mut found = [0_u64; WORDS];
    let arguments = [0, size_of_val(&found), found.as_mut_ptr() as usize, 0, 0, 0];
    // SAFETY: the size and the pointer are those of one array on this stack, which nobody else knows of; the kernel
    // writes at most that many bytes.
    unsafe { syscall(libc::SYS_sched_getaffinity, arguments) }?;
    Ok(found == *processors)
}

/// How many bits a mask of nodes has, for the kernel, which takes one off (`get_nodes`, `copy_nodes_to_user`).
fn bits_and_one(words: &[u64]) -> usize {
    words.len() * 64 + 1
}

/// set_mempolicy(2). No node at all is no mask.
pub(crate) fn set_mempolicy(mode: i32, nodes: &[u64]) -> Answer<()> {
    let any = nodes.iter().any(|word| *word != 0);
    let (mask, bits) = if any { (nodes.as_ptr() as usize, bits_and_one(nodes)) } else { (0, 0) };
    // SAFETY: the pointer is null with no bits, or that of a slice which has as many bits as are named less one, and
    // which the kernel only reads.
    unsafe { syscall(libc::SYS_set_mempolicy, [int(mode), mask, bits, 0, 0, 0]) }.map(drop)
}

/// Whether get_mempolicy(2) answers exactly this.
pub(crate) fn mempolicy_is(mode: i32, nodes: &[u64]) -> Answer<bool> {
    const WORDS: usize = 16; // 1,024 nodes, MAX_NUMNODES of x86_64
    let mut found = [0_u64; WORDS];
    let mut found_mode = 0_i32;
    let arguments =
        [ptr::from_mut(&mut found_mode) as usize, found.as_mut_ptr() as usize, bits_and_one(&found), 0, 0, 0];
    // SAFETY: the first argument points at an int and the second at an array of as many bits as are named less one,
    // both on this stack; the kernel writes no more than that.
    unsafe { syscall(libc::SYS_get_mempolicy, arguments) }?;
    Ok(found_mode == mode && found == *nodes)
}

/// ioprio_set(2) of this process.
pub(crate) fn ioprio_set(priority: i32) -> Answer<()> {
    const IOPRIO_WHO_PROCESS: usize = 1; // linux/ioprio.h
    numbers(libc::SYS_ioprio_set, [IOPRIO_WHO_PROCESS, 0, int(priority), 0, 0, 0]).map(drop)
}

/// PR_SPEC_FORCE_DISABLE (linux/prctl.h): for this process and all it becomes and makes, for good.
pub(crate) const FORCE_DISABLE: usize = 1 << 3;

/// prctl(2), PR_GET_SPECULATION_CTRL: the bits of a kind of speculation.
pub(crate) fn speculation(kind: usize) -> Answer<usize> {
    numbers(libc::SYS_prctl, [int(libc::PR_GET_SPECULATION_CTRL), kind, 0, 0, 0, 0])
}

/// setns(2)
pub(crate) fn setns(namespace: RawFd, kind: i32) -> Answer<()> {
    numbers(libc::SYS_setns, [int(namespace), int(kind), 0, 0, 0, 0]).map(drop)
}

/// getppid(2)
pub(crate) fn getppid() -> Answer<usize> {
    numbers(libc::SYS_getppid, [0; 6])
}

/// getpid(2): the pid in this process's own pid namespace.
pub(crate) fn getpid() -> Answer<u32> {
    numbers(libc::SYS_getpid, [0; 6]).map(|pid| pid as u32)
}

/// pause(2): until a signal, which is what it answers as an error.
pub(crate) fn pause() -> Answer<()> {
    numbers(libc::SYS_pause, [0; 6]).map(drop)
}

/// unshare(2)
pub(crate) fn unshare(flags: i32) -> Answer<()> {
    numbers(libc::SYS_unshare, [int(flags), 0, 0, 0, 0, 0]).map(drop)
}

/// prctl(2) for the options whose arguments are numbers.
pub(crate) fn prctl(option: i32, second: usize, third: usize) -> Answer<()> {
    numbers(libc::SYS_prctl, [int(option), second, third, 0, 0, 0]).map(drop)
}

/// setresgid(2): real, effective and saved.
pub(crate) fn setresgid(gid: u32) -> Answer<()> {
    let gid = gid as usize;
    numbers(libc::SYS_setresgid, [gid, gid, gid, 0, 0, 0]).map(drop)
}

/// setresuid(2): real, effective and saved.
pub(crate) fn setresuid(uid: u32) -> Answer<()> {
    let uid = uid as usize;
    numbers(libc::SYS_setresuid, [uid, uid, uid, 0, 0, 0]).map(drop)
}

/// setgroups(2)
pub(crate) fn setgroups(groups: &[u32]) -> Answer<()> {
    // SAFETY: the pointer and the length are those of one slice, which the kernel only reads.
    unsafe { syscall(libc::SYS_setgroups, [groups.len(), groups.as_ptr() as usize, 0, 0, 0, 0]) }.map(drop)
}

/// keyctl(2), KEYCTL_JOIN_SESSION_KEYRING with no name: a new, anonymous session keyring.
pub(crate) fn join_session_keyring() -> Answer<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: usize = 1;
    numbers(libc::SYS_keyctl, [KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0, 0]).map(drop)
}

/// dup3(2) without O_CLOEXEC; `from` and `to` must differ.
pub(crate) fn dup_onto(from: RawFd, to: RawFd) -> Answer<()> {
    numbers(libc::SYS_dup3, [int(from), int(to), 0, 0, 0, 0]).map(drop)
}

/// close_range(2) from `first` upward with CLOSE_RANGE_UNSHARE: a table of descriptors of one's own, that begins with
/// copies of what is below `first` and of nothing else.
pub(crate) fn own_descriptors_below(first: RawFd) -> Answer<()> {
    let flags = libc::CLOSE_RANGE_UNSHARE as usize;
    numbers(libc::SYS_close_range, [int(first), u32::MAX as usize, flags, 0, 0, 0]).map(drop)
}

/// close_range(2) from `first` upward with CLOSE_RANGE_CLOEXEC.
pub(crate) fn cloexec_from(first: RawFd) -> Answer<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC as usize;
    numbers(libc::SYS_close_range, [int(first), u32::MAX as usize, flags, 0, 0, 0]).map(drop)
}

/// prlimit(2) on this process. `u64::MAX` is RLIM_INFINITY.
pub(crate) fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Answer<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the third argument points at a `rlimit64` on this stack, which the kernel only reads; the fourth is
    // null, which asks for no old value.
    unsafe { syscall(libc::SYS_prlimit64, [0, resource as usize, ptr::from_ref(&limit) as usize, 0, 0, 0]) }
        .map(drop)
}

/// The kernel's `struct sigaction` on x86_64 (arch/x86/include/uapi/asm/signal.h); all zero it is SIG_DFL.
#[repr(C)]
#[derive(Default)]
struct KernelSigaction {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}
const _: () = assert!(size_of::<KernelSigaction>() == 32);

/// rt_sigaction(2): whether this process ignores a signal.
pub(crate) fn is_ignored(signal: i32) -> Answer<bool> {
    let mut now = KernelSigaction::default();
    let pointer = ptr::from_mut(&mut now) as usize;
    // SAFETY: no new disposition is given; the third argument points at a kernel sigaction on this stack, which the kernel
    // fills in, and any bits are a valid one; 8 is the size of the kernel's signal set.
    unsafe { syscall(libc::SYS_rt_sigaction, [int(signal), 0, pointer, 8, 0, 0]) }?;
    Ok(now.handler == libc::SIG_IGN)
}

/// rt_sigaction(2): the default disposition. SIGKILL and SIGSTOP answer EINVAL.
pub(crate) fn default_disposition(signal: i32) -> Answer<()> {
    let default = KernelSigaction::default();
    let pointer = ptr::from_ref(&default) as usize;
    // SAFETY: the second argument points at a kernel sigaction on this stack, which is only read; no old one is
    // asked for; 8 is the size of the kernel's signal set. SIG_DFL names no function, so none can dangle.
    unsafe { syscall(libc::SYS_rt_sigaction, [int(signal), pointer, 0, 8, 0, 0]) }.map(drop)
}

/// rt_sigprocmask(2), SIG_SETMASK: nothing blocked.
pub(crate) fn unblock_signals() -> Answer<()> {
    let none: u64 = 0;
    let pointer = ptr::from_ref(&none) as usize;
    // SAFETY: the second argument points at an eight-byte signal set on this stack, which is only read; no old one
    // is asked for.
    unsafe { syscall(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as usize, pointer, 0, 8, 0, 0]) }.map(drop)
}

/// openat(2) with O_CLOEXEC added.
pub(crate) fn open(directory: RawFd, path: &CStr, flags: i32, mode: u32) -> Answer<RawFd> {
    let flags = flags | libc::O_CLOEXEC;
    strings(libc::SYS_openat, [int(directory), text(path), int(flags), mode as usize, 0, 0]).map(descriptor)
}

/// openat2(2), O_PATH, following no magic links, and other links where it is said so: what a mount goes onto.
pub(crate) fn open_target(path: &CStr, through_links: bool) -> Answer<RawFd> {
    /// `struct open_how` (openat2(2)).
    #[repr(C)]
    struct OpenHow {
        flags: u64,
        mode: u64,
        resolve: u64,
    }
    const _: () = assert!(size_of::<OpenHow>() == 24);
    let how = OpenHow {
        flags: (libc::O_PATH | libc::O_CLOEXEC) as u64,
        mode: 0,
        resolve: if through_links { libc::RESOLVE_NO_MAGICLINKS } else { libc::RESOLVE_NO_SYMLINKS },
    };
    let pointer = ptr::from_ref(&how) as usize;
    let arguments = [int(libc::AT_FDCWD), text(path), pointer, size_of::<OpenHow>(), 0, 0];
    // SAFETY: `path` is NUL-terminated and borrowed across the call; `how` is an `open_how` on this stack whose size
    // is given; both are only read.
    unsafe { syscall(libc::SYS_openat2, arguments) }.map(descriptor)
}

/// write(2), all of it or an error.
pub(crate) fn write_all(fd: RawFd, bytes: &[u8]) -> Answer<()> {
    // SAFETY: the pointer and the length are those of one slice, which the kernel only reads.
    let written =
        unsafe { syscall(libc::SYS_write, [int(fd), bytes.as_ptr() as usize, bytes.len(), 0, 0, 0]) }?;
    if written == bytes.len() { Ok(()) } else { Err(Errno::EIO) }
}

/// read(2): how much of the buffer it filled; 0 is the end.
pub(crate) fn read(fd: RawFd, into: &mut [u8]) -> Answer<usize> {
    let arguments = [int(fd), into.as_mut_ptr() as usize, into.len(), 0, 0, 0];
    // SAFETY: the pointer and the length are those of one slice, borrowed for writing across the call.
    unsafe { syscall(libc::SYS_read, arguments) }
}

/// readlinkat(2): how much of the buffer it filled. A link that fills all of it may be longer.
pub(crate) fn readlink(directory: RawFd, path: &CStr, into: &mut [u8]) -> Answer<usize> {
    let arguments = [int(directory), text(path), into.as_mut_ptr() as usize, into.len(), 0, 0];
    // SAFETY: `path` is NUL-terminated and borrowed across the call; the pointer and the length after it are those of one
    // slice, borrowed for writing.
    unsafe { syscall(libc::SYS_readlinkat, arguments) }
}

/// futex(2), FUTEX_WAIT: sleeps while the word is `seen`, until it is woken by [`futex_wake`] or the time is over.
pub(crate) fn futex_wait(word: &AtomicU32, seen: u32, limit: Option<Duration>) -> Answer<()> {
    wait_on(word, seen, limit, libc::FUTEX_PRIVATE_FLAG)
}

/// The same, for a word of which the kernel tells: it does that as if the word could be of many processes
/// (set_tid_address(2)).
pub(crate) fn futex_wait_for_kernel(word: &AtomicU32, seen: u32, limit: Duration) -> Answer<()> {
    wait_on(word, seen, Some(limit), 0)
}

fn wait_on(word: &AtomicU32, seen: u32, limit: Option<Duration>, flags: i32) -> Answer<()> {
    let limit = limit.map(|limit| libc::timespec {
        tv_sec: limit.as_secs().cast_signed(),
        tv_nsec: limit.subsec_nanos().into(),
    });
    let pointer = limit.as_ref().map_or(0, |limit| ptr::from_ref(limit) as usize);
    let arguments = [word.as_ptr() as usize, int(libc::FUTEX_WAIT | flags), seen as usize, pointer, 0, 0];
    // SAFETY: the first argument points at an aligned word that lives across the call and that the kernel only reads; the fourth
    // is null or points at a `timespec` on this stack, which is only read.
    unsafe { syscall(libc::SYS_futex, arguments) }.map(drop)
}

/// futex(2), FUTEX_WAKE: everybody who sleeps on the word.
pub(crate) fn futex_wake(word: &AtomicU32) -> Answer<()> {
    let arguments = [word.as_ptr() as usize, FUTEX_WAKE_PRIVATE, i32::MAX as usize, 0, 0, 0];
    // SAFETY: the kernel goes by the address of a word that lives across the call, and reaches none of its memory.
    unsafe { syscall(libc::SYS_futex, arguments) }.map(drop)
}

const FUTEX_WAKE_PRIVATE: usize = (libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG) as usize;

/// fstat(2): whether `fd` is this character device.
pub(crate) fn is_character_device(fd: RawFd, device: u64) -> Answer<bool> {
    let status = status(fd)?;
    Ok(status.st_mode & libc::S_IFMT == libc::S_IFCHR && status.st_rdev == device)
}

fn status(fd: RawFd) -> Answer<libc::stat> {
    // SAFETY: `libc::stat` is a plain struct of integers, for which all zeroes are valid.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    let pointer = ptr::from_mut(&mut status) as usize;
    // SAFETY: the second argument points at a `struct stat` on this stack, which the kernel fills; on x86_64 libc's
    // layout is the kernel's (asserted by fstat's users everywhere: glibc passes it through).
    unsafe { syscall(libc::SYS_fstat, [int(fd), pointer, 0, 0, 0, 0]) }?;
    Ok(status)
}

/// mkdirat(2)
pub(crate) fn mkdir(directory: RawFd, path: &CStr, mode: u32) -> Answer<()> {
    strings(libc::SYS_mkdirat, [int(directory), text(path), mode as usize, 0, 0, 0]).map(drop)
}

/// mknodat(2)
pub(crate) fn mknod(directory: RawFd, path: &CStr, mode: u32, device: u64) -> Answer<()> {
    let device = usize::try_from(device).unwrap_or(usize::MAX);
    strings(libc::SYS_mknodat, [int(directory), text(path), mode as usize, device, 0, 0]).map(drop)
}

/// fchownat(2), of the file itself and not of what a link leads to.
pub(crate) fn chown(directory: RawFd, path: &CStr, uid: u32, gid: u32) -> Answer<()> {
    let flags = int(libc::AT_SYMLINK_NOFOLLOW);
    strings(libc::SYS_fchownat, [int(directory), text(path), uid as usize, gid as usize, flags, 0]).map(drop)
}

/// symlinkat(2)
pub(crate) fn symlink(target: &CStr, directory: RawFd, path: &CStr) -> Answer<()> {
    strings(libc::SYS_symlinkat, [text(target), int(directory), text(path), 0, 0, 0]).map(drop)
}

/// chdir(2)
pub(crate) fn chdir(path: &CStr) -> Answer<()> {
    strings(libc::SYS_chdir, [text(path), 0, 0, 0, 0, 0]).map(drop)
}

/// fchdir(2)
pub(crate) fn fchdir(fd: RawFd) -> Answer<()> {
    numbers(libc::SYS_fchdir, [int(fd), 0, 0, 0, 0, 0]).map(drop)
}

/// getcwd(2): whether the working directory is below this process's root. The kernel says "(unreachable)" where it is
/// not.
pub(crate) fn working_directory_is_reachable() -> Answer<bool> {
    let mut buffer = [0_u8; libc::PATH_MAX as usize];
    let arguments = [buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0, 0];
    // SAFETY: the pointer and the length are those of one buffer on this stack, which the kernel fills.
    unsafe { syscall(libc::SYS_getcwd, arguments) }?;
    Ok(buffer[0] == b'/')
}

/// mount(2) on `/`: every mount below it becomes private, so that nothing done here is seen outside and nothing done
/// outside appears here.
pub(crate) fn make_mounts_private() -> Answer<()> {
    let arguments = [0, text(c"/"), 0, (libc::MS_REC | libc::MS_PRIVATE) as usize, 0, 0];
    strings(libc::SYS_mount, arguments).map(drop)
}

/// open_tree(2) with OPEN_TREE_CLONE: a detached copy of the mounts at `path`, submounts included.
pub(crate) fn clone_tree(path: &CStr) -> Answer<RawFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE as u32;
    strings(libc::SYS_open_tree, [int(libc::AT_FDCWD), text(path), flags as usize, 0, 0, 0]).map(descriptor)
}

/// mount_setattr(2) on the mount that `fd` is.
pub(crate) fn set_mount_attributes(fd: RawFd, set: u64, recursive: bool) -> Answer<()> {
    mount_setattr(
        fd,
        libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 },
        recursive,
    )
}

/// mount_setattr(2), MOUNT_ATTR_IDMAP, on a mount that was never attached and on those beneath it.
pub(crate) fn set_mount_id_map(fd: RawFd, user_namespace: RawFd) -> Answer<()> {
    let Ok(userns_fd) = u64::try_from(user_namespace) else { return Err(Errno::EBADF) };
    let attr_set = libc::MOUNT_ATTR_IDMAP;
    mount_setattr(fd, libc::mount_attr { attr_set, attr_clr: 0, propagation: 0, userns_fd }, true)
}

/// mount_setattr(2), MS_PRIVATE, on a detached mount and on those beneath it.
pub(crate) fn make_tree_private(fd: RawFd) -> Answer<()> {
    let propagation = libc::MS_PRIVATE;
    mount_setattr(fd, libc::mount_attr { attr_set: 0, attr_clr: 0, propagation, userns_fd: 0 }, true)
}

/// newfstatat(2), links followed: device and inode. An empty path is `directory` itself.
pub(crate) fn identity(directory: RawFd, path: &CStr) -> Answer<(u64, u64)> {
    // SAFETY: `libc::stat` is a plain struct of integers, for which all zeroes are valid.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    let flags = if path.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    let arguments = [int(directory), text(path), ptr::from_mut(&mut status) as usize, int(flags), 0, 0];
    // SAFETY: `path` is NUL-terminated and borrowed across the call; the third argument points at a `struct stat` on
    // this stack, which the kernel fills; on x86_64 libc's layout is the kernel's.
    unsafe { syscall(libc::SYS_newfstatat, arguments) }?;
    Ok((status.st_dev, status.st_ino))
}

/// A folder in the tree of mounts: the mount that it is on, and its device and inode.
pub(crate) type Seat = (u64, (u32, u32), u64);

/// statx(2), links followed: where a folder is. `None` before Linux 5.8, which does not tell the mount.
pub(crate) fn seat(directory: RawFd, path: &CStr) -> Answer<Option<Seat>> {
    // SAFETY: `libc::statx` is a plain struct of integers, for which all zeroes are valid.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let mask = libc::STATX_INO | libc::STATX_MNT_ID;
    let arguments = [int(directory), text(path), 0, mask as usize, ptr::from_mut(&mut found) as usize, 0];
    // SAFETY: `path` is NUL-terminated and borrowed across the call; the fifth argument points at a `struct statx` on this
    // stack, which the kernel fills; the layout is the kernel's own.
    unsafe { syscall(libc::SYS_statx, arguments) }?;
    let device = (found.stx_dev_major, found.stx_dev_minor);
    Ok((found.stx_mask & mask == mask).then_some((found.stx_mnt_id, device, found.stx_ino)))
}

/// sendmsg(2) of one byte and up to four descriptors (SCM_RIGHTS, unix(7)).
pub(crate) fn send_descriptors(socket: RawFd, fds: &[RawFd]) -> Answer<()> {
    const ROOM: usize = 4;
    const HEADER: usize = size_of::<libc::cmsghdr>();
    /// A `struct cmsghdr` and the ints after it, padded as CMSG_SPACE does.
    #[repr(C)]
    struct Rights {
        header: libc::cmsghdr,
        fds: [RawFd; ROOM],
    }
    const _: () = assert!(size_of::<Rights>() == 32 && HEADER == 16);
    let mut rights = Rights {
        header: libc::cmsghdr {
            cmsg_len: HEADER + size_of_val(fds),
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        },
        fds: [-1; ROOM],
    };
    rights.fds.get_mut(..fds.len()).ok_or(Errno::E2BIG)?.copy_from_slice(fds);
    let mut byte = 0_u8;
    let mut vector = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: `msghdr` is a plain struct of integers and pointers, for which all zeroes are valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut rights).cast();
    message.msg_controllen = HEADER + size_of_val(fds).next_multiple_of(8);
    let arguments = [int(socket), ptr::from_ref(&message) as usize, libc::MSG_NOSIGNAL as usize, 0, 0, 0];
    // SAFETY: the message, its one vector and its control part are on this stack and only read; the control part is as
    // long as it says, at most `Rights`, since no more than ROOM descriptors were copied.
    unsafe { syscall(libc::SYS_sendmsg, arguments) }.map(drop)
}

/// How often [`awake_at_first`] asks: for some 300 us.
const ASKS: usize = 1000;

/// What `ask` answers, which takes flags of recv(2): asked without waiting at first, since an idle processor of a virtual
/// machine takes longer to be woken than most have to wait.
fn awake_at_first<T>(ask: impl Fn(i32) -> Answer<T>) -> Answer<T> {
    for _ in 0..ASKS {
        match ask(libc::MSG_DONTWAIT) {
            Err(Errno::EAGAIN) => std::hint::spin_loop(),
            answer => return answer,
        }
    }
    ask(0)
}

/// send(2) of one byte without descriptors.
pub(crate) fn send_word(socket: RawFd) -> Answer<()> {
    let word = 0_u8;
    let arguments = [int(socket), ptr::from_ref(&word) as usize, 1, libc::MSG_NOSIGNAL as usize, 0, 0];
    // SAFETY: the second argument points at one byte on this stack, which is only read; there is no address.
    unsafe { syscall(libc::SYS_sendto, arguments) }.map(drop)
}

/// Whether [`send_word`] has sent one at the other end of a socket; not where that end is closed. It waits for either.
pub(crate) fn receive_word(socket: RawFd) -> Answer<bool> {
    awake_at_first(|flags| {
        let mut word = 0_u8;
        let arguments = [int(socket), (&raw mut word) as usize, 1, int(flags), 0, 0];
        // SAFETY: the second argument points at one byte on this stack, to which the kernel writes; no address is asked for.
        unsafe { syscall(libc::SYS_recvfrom, arguments) }.map(|received| received == 1)
    })
}

/// The one descriptor that [`send_descriptors`] sends at the other end of a socket, close-on-exec; `None` where that end is
/// closed and nothing was sent. It waits for either.
pub(crate) fn receive_descriptor(socket: RawFd) -> Answer<Option<RawFd>> {
    awake_at_first(|flags| receive_descriptor_with(socket, flags))
}

fn receive_descriptor_with(socket: RawFd, flags: i32) -> Answer<Option<RawFd>> {
    const LENGTH: usize = size_of::<libc::cmsghdr>() + size_of::<RawFd>();
    /// A `struct cmsghdr` and the int after it, padded as CMSG_SPACE does.
    #[repr(C)]
    struct Right {
        header: libc::cmsghdr,
        fd: RawFd,
        padding: u32,
    }
    let header = libc::cmsghdr { cmsg_len: 0, cmsg_level: 0, cmsg_type: 0 };
    let mut right = Right { header, fd: -1, padding: 0 };
    let mut byte = 0_u8;
    let mut vector = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: `msghdr` is a plain struct of integers and pointers, for which all zeroes are valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut right).cast();
    message.msg_controllen = size_of::<Right>();
    let flags = int(libc::MSG_CMSG_CLOEXEC | flags);
    let arguments = [int(socket), (&raw mut message) as usize, flags, 0, 0, 0];
    // SAFETY: the message, its one vector of one byte and its control part are on this stack and as long as they say; the
    // kernel writes to these alone.
    let received = unsafe { syscall(libc::SYS_recvmsg, arguments) }?;
    let header = &right.header;
    let sent = received == 1
        && message.msg_controllen >= LENGTH
        && header.cmsg_len == LENGTH
        && header.cmsg_level == libc::SOL_SOCKET
        && header.cmsg_type == libc::SCM_RIGHTS;
    Ok(sent.then_some(right.fd))
}

fn mount_setattr(fd: RawFd, attributes: libc::mount_attr, recursive: bool) -> Answer<()> {
    let flags = if recursive { libc::AT_EMPTY_PATH | libc::AT_RECURSIVE } else { libc::AT_EMPTY_PATH };
    let pointer = ptr::from_ref(&attributes) as usize;
    let arguments = [int(fd), text(c""), int(flags), pointer, size_of::<libc::mount_attr>(), 0];
    // SAFETY: the path is a literal; `attributes` is a `mount_attr` on this stack whose size is given; the kernel
    // only reads both.
    unsafe { syscall(libc::SYS_mount_setattr, arguments) }.map(drop)
}

/// move_mount(2): the detached mount `tree` onto the directory or file `target`.
pub(crate) fn move_mount(tree: RawFd, target: RawFd) -> Answer<()> {
    let flags = (libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH) as usize;
    strings(libc::SYS_move_mount, [int(tree), text(c""), int(target), text(c""), flags, 0]).map(drop)
}

/// fsopen(2)
pub(crate) fn fsopen(kind: &CStr) -> Answer<RawFd> {
    let flags = 1; // FSOPEN_CLOEXEC
    strings(libc::SYS_fsopen, [text(kind), flags, 0, 0, 0, 0]).map(descriptor)
}

/// fsconfig(2), FSCONFIG_SET_STRING; an empty value sets a flag (FSCONFIG_SET_FLAG).
pub(crate) fn fsconfig(context: RawFd, key: &CStr, value: &CStr) -> Answer<()> {
    const SET_FLAG: usize = 0;
    const SET_STRING: usize = 1;
    let arguments = if value.is_empty() {
        [int(context), SET_FLAG, text(key), 0, 0, 0]
    } else {
        [int(context), SET_STRING, text(key), text(value), 0, 0]
    };
    strings(libc::SYS_fsconfig, arguments).map(drop)
}

/// fsconfig(2), FSCONFIG_CMD_CREATE: makes the superblock.
pub(crate) fn fscreate(context: RawFd) -> Answer<()> {
    const CREATE: usize = 6;
    numbers(libc::SYS_fsconfig, [int(context), CREATE, 0, 0, 0, 0]).map(drop)
}

/// fsmount(2): a detached mount of what `context` made.
pub(crate) fn fsmount(context: RawFd, attributes: u64) -> Answer<RawFd> {
    let cloexec = 1; // FSMOUNT_CLOEXEC
    let attributes = usize::try_from(attributes).unwrap_or(usize::MAX);
    numbers(libc::SYS_fsmount, [int(context), cloexec, attributes, 0, 0, 0]).map(descriptor)
}

/// mount(2) of a new file system, named after its kind, onto the working directory.
pub(crate) fn mount_here(kind: &CStr, flags: u64, options: &CStr) -> Answer<()> {
    let flags = usize::try_from(flags).unwrap_or(usize::MAX);
    let arguments = [text(kind), text(c"."), text(kind), flags, text(options), 0];
    strings(libc::SYS_mount, arguments).map(drop)
}

/// mount(2), MS_BIND: what is mounted at `path` onto the working directory as well, with its flags.
pub(crate) fn bind_here(path: &CStr) -> Answer<()> {
    strings(libc::SYS_mount, [text(path), text(c"."), 0, libc::MS_BIND as usize, 0, 0]).map(drop)
}

/// pivot_root(2) with `.` for both: the working directory becomes the root, the old root lies on top of it.
pub(crate) fn pivot_root_here() -> Answer<()> {
    strings(libc::SYS_pivot_root, [text(c"."), text(c"."), 0, 0, 0, 0]).map(drop)
}

/// umount2(2) of `.`, MNT_DETACH.
pub(crate) fn detach_here() -> Answer<()> {
    strings(libc::SYS_umount2, [text(c"."), libc::MNT_DETACH as usize, 0, 0, 0, 0]).map(drop)
}

/// umount2(2), MNT_DETACH, of a path whose last component is no symbolic link.
pub(crate) fn detach(path: &CStr) -> Answer<()> {
    let flags = (libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) as usize;
    strings(libc::SYS_umount2, [text(path), flags, 0, 0, 0, 0]).map(drop)
}

/// Brings the loopback interface of this network namespace up (netdevice(7), SIOCSIFFLAGS).
pub(crate) fn loopback_up() -> Answer<()> {
    let socket = numbers(
        libc::SYS_socket,
        [libc::AF_INET as usize, (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as usize, 0, 0, 0, 0],
    )?;
    // SAFETY: `ifreq` is a plain struct of integers and a union of such, for which all zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as c_char;
    request.ifr_name[1] = b'o' as c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    let pointer = ptr::from_ref(&request) as usize;
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which lives on this stack.
    let set = unsafe { syscall(libc::SYS_ioctl, [socket, libc::SIOCSIFFLAGS as usize, pointer, 0, 0, 0]) };
    close(descriptor(socket))?;
    set.map(drop)
}

/// capset(2) on this thread: three sets as bit masks.
pub(crate) fn capset(permitted: u64, effective: u64, inheritable: u64) -> Answer<()> {
    /// `struct __user_cap_header_struct`, version 3 (linux/capability.h).
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    /// `struct __user_cap_data_struct`: one for the low 32 capabilities, one for the high.
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const _: () = assert!(size_of::<Header>() == 8 && size_of::<[Data; 2]>() == 24);
    let word = |set: u64, half: u32| ((set >> (32 * half)) & u64::from(u32::MAX)) as u32;
    let half = |half| Data {
        effective: word(effective, half),
        permitted: word(permitted, half),
        inheritable: word(inheritable, half),
    };
    let header = Header { version: 0x2008_0522, pid: 0 };
    let data = [half(0), half(1)];
    let arguments = [ptr::from_ref(&header) as usize, data.as_ptr() as usize, 0, 0, 0, 0];
    // SAFETY: version 3 reads a header and two data structs, both on this stack; pid 0 is this thread.
    unsafe { syscall(libc::SYS_capset, arguments) }.map(drop)
}

/// landlock_create_ruleset(2) with LANDLOCK_CREATE_RULESET_VERSION: the ABI.
pub(crate) fn landlock_abi() -> Answer<u32> {
    let version = 1;
    numbers(libc::SYS_landlock_create_ruleset, [0, 0, version, 0, 0, 0])
        .map(|abi| u32::try_from(abi).unwrap_or(0))
}

/// landlock_add_rule(2), LANDLOCK_RULE_PATH_BENEATH.
pub(crate) fn landlock_add_path(ruleset: RawFd, path: RawFd, access: u64) -> Answer<()> {
    /// `struct landlock_path_beneath_attr` (linux/landlock.h), packed there too.
    #[repr(C, packed)]
    struct PathBeneath {
        allowed_access: u64,
        parent_fd: i32,
    }
    const _: () = assert!(size_of::<PathBeneath>() == 12);
    const PATH_BENEATH: usize = 1;
    let rule = PathBeneath { allowed_access: access, parent_fd: path };
    let pointer = ptr::from_ref(&rule) as usize;
    // SAFETY: the third argument points at a path-beneath attribute on this stack, which is only read.
    unsafe { syscall(libc::SYS_landlock_add_rule, [int(ruleset), PATH_BENEATH, pointer, 0, 0, 0]) }.map(drop)
}

/// landlock_restrict_self(2)
pub(crate) fn landlock_restrict_self(ruleset: RawFd) -> Answer<()> {
    numbers(libc::SYS_landlock_restrict_self, [int(ruleset), 0, 0, 0, 0, 0]).map(drop)
}

/// seccomp(2), SECCOMP_SET_MODE_FILTER.
pub(crate) fn seccomp_set_filter(program: &[sock_filter], log: bool) -> Answer<()> {
    /// `struct sock_fprog` (linux/filter.h).
    #[repr(C)]
    struct Program {
        length: u16,
        filter: *const sock_filter,
    }
    const _: () = assert!(size_of::<Program>() == 16 && size_of::<sock_filter>() == 8);
    const SET_MODE_FILTER: usize = 1;
    const FLAG_LOG: usize = 2;
    let Ok(length) = u16::try_from(program.len()) else { return Err(Errno::EINVAL) };
    let filter = Program { length, filter: program.as_ptr() };
    let flags = if log { FLAG_LOG } else { 0 };
    let arguments = [SET_MODE_FILTER, flags, ptr::from_ref(&filter) as usize, 0, 0, 0];
    // SAFETY: the third argument points at a `sock_fprog` on this stack whose length and pointer are those of one
    // slice; the kernel copies the program before the call returns.
    unsafe { syscall(libc::SYS_seccomp, arguments) }.map(drop)
}

/// execve(2). Returns only the error.
///
/// `argv` and `envp` are arrays of pointers to C strings, ended by null; that is what [`PointerArray`] holds.
pub(crate) fn execve(path: &CStr, argv: &PointerArray, envp: &PointerArray) -> Errno {
    let arguments = [text(path), argv.pointers.as_ptr() as usize, envp.pointers.as_ptr() as usize, 0, 0, 0];
    // SAFETY: a `PointerArray` ends with null and every other entry points into a C string that it owns; all three
    // arguments are borrowed across the call, which only reads them.
    let answer = unsafe { syscall(libc::SYS_execve, arguments) };
    answer.err().unwrap_or(Errno::EINVAL)
}

/// execveat(2) of an open file. Returns only the error.
pub(crate) fn execute_open(program: RawFd, argv: &PointerArray, envp: &PointerArray) -> Errno {
    let (argv, envp) = (argv.pointers.as_ptr() as usize, envp.pointers.as_ptr() as usize);
    let arguments = [int(program), text(c""), argv, envp, int(libc::AT_EMPTY_PATH), 0];
    // SAFETY: as for `execve`; the path is empty, and the descriptor stands for the file.
    let answer = unsafe { syscall(libc::SYS_execveat, arguments) };
    answer.err().unwrap_or(Errno::EINVAL)
}

/// A null-terminated array of C strings, as execve(2) takes it. It owns the strings, so the pointers stay good.
#[derive(Debug)]
pub(crate) struct PointerArray {
    pointers: Vec<*const c_char>,
    strings: Vec<std::ffi::CString>,
    own_pid: Vec<PidVariable>,
}

// SAFETY: the pointers are of strings that it owns, none of which changes but by atomic stores (`PidVariable`).
unsafe impl Sync for PointerArray {}
// SAFETY: as above; it frees them as any thread may.
unsafe impl Send for PointerArray {}

/// `NAME=` and room for a pid and the NUL after it: filled in by the child, which alone knows its pid, without allocating.
#[derive(Debug)]
struct PidVariable {
    text: Box<[AtomicU8]>,
    digits_at: usize,
}

/// The longest pid that there is, 4194304 (PID_MAX_LIMIT), would fit with three bytes to spare.
const PID_DIGITS: usize = 10;

impl PidVariable {
    fn new(name: &str) -> Self {
        let text = name.bytes().chain([b'=']).chain([0; PID_DIGITS + 1]).map(AtomicU8::new).collect();
        Self { text, digits_at: name.len() + 1 }
    }

    fn write(&self, pid: u32) {
        let mut digits = [0; PID_DIGITS];
        let (mut rest, mut count) = (pid, 0);
        while count == 0 || rest > 0 {
            digits[count] = b'0' + (rest % 10) as u8;
            rest /= 10;
            count += 1;
        }
        for (place, digit) in self.text[self.digits_at..].iter().zip(digits[..count].iter().rev().chain([&0]))
        {
            place.store(*digit, Ordering::Relaxed);
        }
    }
}

impl PointerArray {
    /// Takes the strings.
    pub(crate) fn new(strings: Vec<std::ffi::CString>) -> Self {
        Self::with_own_pid(strings, &[])
    }

    /// Takes the strings, and adds a variable for each of these names, empty until [`PointerArray::write_own_pid`].
    pub(crate) fn with_own_pid(strings: Vec<std::ffi::CString>, names: &[&str]) -> Self {
        let own_pid: Vec<_> = names.iter().map(|name| PidVariable::new(name)).collect();
        let variables = own_pid.iter().map(|variable| variable.text.as_ptr().cast::<c_char>());
        let pointers = strings.iter().map(|string| string.as_ptr()).chain(variables).chain([ptr::null()]);
        Self { pointers: pointers.collect(), strings, own_pid }
    }

    /// Fills in the pid of the process that calls this, as it sees itself.
    pub(crate) fn write_own_pid(&self) -> Answer<()> {
        if !self.own_pid.is_empty() {
            let pid = getpid()?;
            self.own_pid.iter().for_each(|variable| variable.write(pid));
        }
        Ok(())
    }

    /// The first string: argv[0].
    pub(crate) fn first(&self) -> Option<&CStr> {
        self.strings.first().map(std::ffi::CString::as_c_str)
    }
}
