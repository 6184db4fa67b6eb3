//! The system calls, each named after itself. The only unsafe code of PID 1 beside its first ten instructions.
//!
//! Invariant: every function takes what the kernel reads or writes as a reference or a slice of the right size, so no
//! caller can make the kernel touch memory that is not its own. No policy lives here: a failure is an [`Errno`].

use crate::abi::*;
use core::{arch::asm, ffi::CStr, fmt, marker::PhantomData, ptr, time::Duration};

/// What a system call failed with. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            EPERM => "EPERM",
            ENOENT => "ENOENT",
            EIO => "EIO",
            E2BIG => "E2BIG",
            ENOEXEC => "ENOEXEC",
            EAGAIN => "EAGAIN",
            ENOMEM => "ENOMEM",
            EACCES => "EACCES",
            EBUSY => "EBUSY",
            ENODEV => "ENODEV",
            ENOTDIR => "ENOTDIR",
            EISDIR => "EISDIR",
            EINVAL => "EINVAL",
            EMFILE => "EMFILE",
            ENOSPC => "ENOSPC",
            EROFS => "EROFS",
            other => return write!(f, "errno {other}"),
        };
        f.write_str(name)
    }
}

/// What a system call came to.
pub type Result<T> = core::result::Result<T, Errno>;

/// A descriptor that is open and that nobody else closes.
#[derive(Debug)]
pub struct Fd(i32);

impl Fd {
    /// Its number, for [`ppoll`] and messages.
    #[must_use]
    pub fn raw(&self) -> i32 {
        self.0
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // The descriptor is gone whatever close(2) returns, so there is nothing to do about an error.
        close(self.0).unwrap_or_default();
    }
}

/// A pointer to a string that ends in NUL and lives for ever, or the NULL at the end of an argument vector:
/// one element of what `execve(2)` takes and of what the kernel puts on the first stack.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub struct Arg(*const core::ffi::c_char, PhantomData<&'static CStr>);

impl Arg {
    /// The end of a vector.
    pub const NULL: Arg = Arg(ptr::null(), PhantomData);

    /// An element.
    #[must_use]
    pub const fn new(text: &'static CStr) -> Arg {
        Arg(text.as_ptr(), PhantomData)
    }

    /// The string; `None` for the end of the vector.
    #[must_use]
    pub fn text(self) -> Option<&'static CStr> {
        if self.0.is_null() {
            return None;
        }
        // SAFETY: not null, so it came from `new` or off the stack that execve(2) laid out: in both cases it points
        // to bytes that end in NUL, that nobody writes and that are never unmapped.
        Some(unsafe { CStr::from_ptr(self.0) })
    }
}

/// The arguments and the environment that the kernel left at the top of the first stack.
///
/// # Safety
/// `stack` is the stack pointer at the program's entry: argc, argv, NULL, envp, NULL. To be called once.
pub unsafe fn first_stack(stack: *mut usize) -> (&'static mut [Arg], &'static [Arg]) {
    // SAFETY: the ABI puts argc there.
    let count = unsafe { *stack };
    let argv = stack.wrapping_add(1).cast::<Arg>();
    let envp = argv.wrapping_add(count + 1);
    let mut length = 0;
    // SAFETY: envp ends in a NULL, at which this stops; each element before it is a pointer.
    while !unsafe { *envp.wrapping_add(length) }.0.is_null() {
        length += 1;
    }
    // SAFETY: argc pointers and the NULL, on a stack that lives as long as the process; the caller calls once, so
    // nobody else holds a reference to them.
    let arguments = unsafe { core::slice::from_raw_parts_mut(argv, count + 1) };
    // SAFETY: as above; `length` elements were just read, and they do not overlap with the arguments.
    (arguments, unsafe { core::slice::from_raw_parts(envp, length) })
}

/// A raw system call; the arguments that are not given are zero.
///
/// # Safety
/// The arguments satisfy what the manual page of call `number` asks of memory.
unsafe fn syscall<const N: usize>(number: usize, arguments: [usize; N]) -> Result<usize> {
    let mut a = [0; 6];
    for (register, argument) in a.iter_mut().zip(arguments) {
        *register = argument;
    }
    let returned: isize;
    // SAFETY: the kernel keeps every register but rax, rcx and r11, which are declared; the caller answers for what
    // the call does to memory.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number.cast_signed() => returned,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _, options(nostack),
        );
    }
    match i32::try_from(returned) {
        Ok(error @ -4095..=-1) => Err(Errno(-error)),
        _ => Ok(returned.cast_unsigned()),
    }
}

/// A system call that takes numbers alone, or NULL where it could take a pointer.
fn plain<const N: usize>(number: usize, arguments: [usize; N]) -> Result<usize> {
    // SAFETY: this function is private to this module, whose uses of it name calls that neither read nor write this
    // process's memory, given these arguments.
    unsafe { syscall(number, arguments) }
}

/// A descriptor or pid as an argument: the kernel reads the low 32 bits.
fn word(number: i32) -> usize {
    number.cast_unsigned() as usize
}

/// A descriptor out of a return value.
fn to_fd(returned: usize) -> Result<Fd> {
    i32::try_from(returned).map(Fd).map_err(|_| Errno(EBADF))
}

fn address<T: ?Sized>(reference: &T) -> usize {
    ptr::from_ref(reference).expose_provenance()
}

fn address_mut<T: ?Sized>(reference: &mut T) -> usize {
    ptr::from_mut(reference).expose_provenance()
}

// --- files -------------------------------------------------------------------------------------------------------

/// open(2).
pub fn open(path: &CStr, flags: usize) -> Result<Fd> {
    // SAFETY: openat(2) reads the path, which ends in NUL.
    let fd = unsafe { syscall(nr::OPENAT, [word(AT_FDCWD), address(path), flags | O_CLOEXEC]) };
    to_fd(fd?)
}

/// read(2).
pub fn read(fd: &Fd, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: read(2) writes at most `len` bytes into the buffer, which is borrowed mutably.
    unsafe { syscall(nr::READ, [word(fd.0), address_mut(buffer), buffer.len()]) }
}

/// write(2), to a descriptor by number: 2 is not ours.
pub fn write(fd: i32, bytes: &[u8]) -> Result<usize> {
    // SAFETY: write(2) reads `len` bytes of the slice.
    unsafe { syscall(nr::WRITE, [word(fd), address(bytes), bytes.len()]) }
}

/// close(2), by number: for 0 to 2 and what the parent left open.
pub fn close(fd: i32) -> Result<()> {
    plain(nr::CLOSE, [word(fd)]).map(drop)
}

/// close_range(2) to the end of the table.
pub fn close_from(first: usize) -> Result<()> {
    plain(nr::CLOSE_RANGE, [first, u32::MAX as usize, 0]).map(drop)
}

/// Whether a descriptor is open: fcntl(2), F_GETFD.
#[must_use]
pub fn is_open(fd: i32) -> bool {
    plain(nr::FCNTL, [word(fd), F_GETFD]).is_ok()
}

/// A second descriptor of the same file, numbered 10 or more: fcntl(2), F_DUPFD_CLOEXEC.
pub fn duplicate_high(fd: &Fd) -> Result<Fd> {
    to_fd(plain(nr::FCNTL, [word(fd.0), F_DUPFD_CLOEXEC, 10])?)
}

/// dup3(2) onto a number, without CLOEXEC; never onto itself.
pub fn duplicate_onto(fd: &Fd, number: i32) -> Result<()> {
    plain(nr::DUP3, [word(fd.0), word(number), 0]).map(drop)
}

/// Gives a descriptor up: it stays open, across exec too.
pub fn leave_open(fd: Fd) -> Result<()> {
    plain(nr::FCNTL, [word(fd.0), F_SETFD, 0])?;
    core::mem::forget(fd);
    Ok(())
}

/// memfd_create(2) of a fixed size: not executable where the kernel knows of that (6.3), and sealed.
pub fn memfd(name: &CStr, size: usize) -> Result<Fd> {
    let create = |flags| {
        // SAFETY: memfd_create(2) reads the name, which ends in NUL.
        unsafe { syscall(nr::MEMFD_CREATE, [address(name), flags | MFD_CLOEXEC | MFD_ALLOW_SEALING]) }
    };
    let fd = to_fd(create(MFD_NOEXEC_SEAL).or_else(|_| create(0))?)?;
    plain(nr::FTRUNCATE, [word(fd.0), size])?;
    plain(nr::FCNTL, [word(fd.0), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL])?;
    Ok(fd)
}

/// mkdir(2), mode 0755.
pub fn mkdir(path: &CStr) -> Result<()> {
    // SAFETY: mkdirat(2) reads the path, which ends in NUL.
    unsafe { syscall(nr::MKDIRAT, [word(AT_FDCWD), address(path), 0o755]) }.map(drop)
}

/// chdir(2).
pub fn chdir(path: &CStr) -> Result<()> {
    // SAFETY: chdir(2) reads the path, which ends in NUL.
    unsafe { syscall(nr::CHDIR, [address(path)]) }.map(drop)
}

/// chroot(2).
pub fn chroot(path: &CStr) -> Result<()> {
    // SAFETY: chroot(2) reads the path, which ends in NUL.
    unsafe { syscall(nr::CHROOT, [address(path)]) }.map(drop)
}

/// The type of the file system at a path: statfs(2).
pub fn file_system(path: &CStr) -> Result<u64> {
    let mut statfs = Statfs::default();
    // SAFETY: statfs(2) reads the path and writes a `struct statfs`, whose size a test checks.
    unsafe { syscall(nr::STATFS, [address(path), address_mut(&mut statfs)]) }?;
    Ok(statfs.kind)
}

/// Whether something is mounted at a path: statx(2), STATX_ATTR_MOUNT_ROOT (Linux 5.8).
pub fn is_mount_point(path: &CStr) -> Result<bool> {
    let mut statx = Statx::default();
    // SAFETY: statx(2) reads the path and writes a `struct statx`, whose size a test checks.
    unsafe { syscall(nr::STATX, [word(AT_FDCWD), address(path), 0, 0, address_mut(&mut statx)]) }?;
    Ok(statx.attributes & STATX_ATTR_MOUNT_ROOT != 0)
}

/// mount(2).
pub fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: usize, data: Option<&CStr>) -> Result<()> {
    let data = data.map_or(0, address);
    // SAFETY: mount(2) reads the strings, each of which ends in NUL; `data` may be NULL.
    unsafe { syscall(nr::MOUNT, [address(source), address(target), address(kind), flags, data]) }.map(drop)
}

/// umount2(2).
pub fn umount(target: &CStr) -> Result<()> {
    // SAFETY: umount2(2) reads the path, which ends in NUL.
    unsafe { syscall(nr::UMOUNT2, [address(target)]) }.map(drop)
}

/// sync(2).
pub fn sync() -> Result<()> {
    plain(nr::SYNC, []).map(drop)
}

// --- processes ---------------------------------------------------------------------------------------------------

/// getpid(2).
#[must_use]
pub fn getpid() -> u32 {
    plain(nr::GETPID, []).map_or(0, low32)
}

/// The low half of a register: what a pid came in.
fn low32(register: usize) -> u32 {
    (register & 0xffff_ffff).try_into().unwrap_or_default()
}

/// fork(2): the pid of the child in the parent, `None` in the child.
pub fn fork() -> Result<Option<u32>> {
    // clone(2) with no flag but the exit signal, on the same stack address: memory is copied, nothing is shared, and
    // there is one thread in this program, so the child sees every value as the parent left it.
    let pid = plain(nr::CLONE, [SIGCHLD as usize])?;
    Ok(Some(low32(pid)).filter(|&pid| pid != 0))
}

/// execve(2); the vectors end in [`Arg::NULL`], or it is EINVAL. Returns only on failure.
pub fn execve(path: &CStr, arguments: &[Arg], environment: &[Arg]) -> Errno {
    let ends = |vector: &[Arg]| vector.last().is_some_and(|last| last.0.is_null());
    if !ends(arguments) || !ends(environment) {
        return Errno(EINVAL);
    }
    // SAFETY: execve(2) reads the path and two vectors of pointers that end in NULL, which was just checked; what an
    // `Arg` points to is a string that ends in NUL.
    match unsafe { syscall(nr::EXECVE, [address(path), address(arguments), address(environment)]) } {
        Ok(_) => Errno(EINVAL), // execve does not return success
        Err(errno) => errno,
    }
}

/// exit_group(2).
pub fn exit(code: u8) -> ! {
    loop {
        // The kernel does not return from it; the loop is for the type.
        plain(nr::EXIT_GROUP, [code.into()]).unwrap_or_default();
    }
}

/// A child that has ended and was reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reaped {
    /// Its pid.
    pub pid: u32,
    /// `CLD_EXITED`, `CLD_KILLED`, `CLD_DUMPED`.
    pub code: i32,
    /// The exit code or the signal.
    pub status: i32,
    /// `ru_utime`.
    pub user: Duration,
    /// `ru_stime`.
    pub system: Duration,
    /// `ru_maxrss`.
    pub max_rss_kib: u64,
}

/// waitid(2) for any child that has ended, without waiting. `None`: none has. ECHILD: there are no children.
pub fn reap() -> Result<Option<Reaped>> {
    let mut info =
        ChildInfo { signo: 0, errno: 0, code: 0, pad: 0, pid: 0, uid: 0, status: 0, rest: [0; 25] };
    let mut usage = Usage::default();
    let arguments = [P_ALL, 0, address_mut(&mut info), WEXITED | WNOHANG, address_mut(&mut usage)];
    // SAFETY: waitid(2) writes a `siginfo_t` and a `struct rusage`, whose sizes a test checks.
    unsafe { syscall(nr::WAITID, arguments) }?;
    let duration =
        |time: Timeval| Duration::from_secs(time.seconds) + Duration::from_micros(time.microseconds);
    Ok((info.pid != 0).then_some(Reaped {
        pid: info.pid,
        code: info.code,
        status: info.status,
        user: duration(usage.user),
        system: duration(usage.system),
        max_rss_kib: usage.max_rss_kib,
    }))
}

/// kill(2). `pid` -1 is everything but this process and PID 1.
pub fn kill(pid: i32, signal: u32) -> Result<()> {
    plain(nr::KILL, [word(pid), signal as usize]).map(drop)
}

/// setsid(2).
pub fn setsid() -> Result<()> {
    plain(nr::SETSID, []).map(drop)
}

/// umask(2), which cannot fail.
pub fn umask(mask: usize) {
    plain(nr::UMASK, [mask]).unwrap_or_default();
}

/// prctl(2), PR_SET_CHILD_SUBREAPER.
pub fn become_subreaper() -> Result<()> {
    plain(nr::PRCTL, [PR_SET_CHILD_SUBREAPER, 1]).map(drop)
}

/// Makes the terminal the controlling one of this session: ioctl(2), TIOCSCTTY.
pub fn take_terminal(fd: &Fd) -> Result<()> {
    plain(nr::IOCTL, [word(fd.0), TIOCSCTTY, 0]).map(drop)
}

/// getrlimit and setrlimit of RLIMIT_NOFILE in one: prlimit64(2). Returns what it was.
pub fn limit_files(new: Option<Limit>) -> Result<Limit> {
    let mut old = Limit::default();
    let new = new.as_ref().map_or(0, address);
    // SAFETY: prlimit64(2) reads one `struct rlimit` or gets NULL, and writes another; a test checks the size.
    unsafe { syscall(nr::PRLIMIT64, [0, RLIMIT_NOFILE, new, address_mut(&mut old)]) }?;
    Ok(old)
}

/// reboot(2).
pub fn reboot(command: usize) -> Result<()> {
    plain(nr::REBOOT, [LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, command]).map(drop)
}

// --- signals, time, waiting --------------------------------------------------------------------------------------

/// A set of signals; a kernel `sigset_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signals(u64);

impl Signals {
    /// No signal.
    pub const NONE: Signals = Signals(0);
    /// Every signal.
    pub const ALL: Signals = Signals(u64::MAX);

    /// One more.
    #[must_use]
    pub const fn with(self, signal: u32) -> Signals {
        Signals(self.0 | 1 << (signal - 1))
    }
}

/// rt_sigprocmask(2), SIG_SETMASK.
pub fn block_only(signals: Signals) -> Result<()> {
    let arguments = [SIG_SETMASK, address(&signals.0), 0, size_of::<u64>()];
    // SAFETY: rt_sigprocmask(2) reads a set of the size given; NULL asks for no answer.
    unsafe { syscall(nr::RT_SIGPROCMASK, arguments) }.map(drop)
}

/// Gives every signal its default action: rt_sigaction(2). What initldr was started with may have ignored some,
/// and a SIGCHLD that is ignored makes the kernel throw exit statuses away.
pub fn reset_signal_actions() {
    for signal in 1..=SIGRTMAX {
        let action = Sigaction::default();
        let arguments = [signal as usize, address(&action), 0, size_of::<u64>()];
        // SAFETY: rt_sigaction(2) reads a `struct sigaction` of the kernel's layout; handler 0 is SIG_DFL.
        let answer = unsafe { syscall(nr::RT_SIGACTION, arguments) };
        answer.unwrap_or_default(); // EINVAL for SIGKILL and SIGSTOP, which have no other action anyway
    }
}

/// signalfd4(2), non-blocking.
pub fn signalfd(signals: Signals) -> Result<Fd> {
    let arguments = [usize::MAX, address(&signals.0), size_of::<u64>(), SFD_CLOEXEC | SFD_NONBLOCK];
    // SAFETY: signalfd4(2) reads a set of the size given; -1 asks for a new descriptor.
    to_fd(unsafe { syscall(nr::SIGNALFD4, arguments) }?)
}

/// The next signal off a signalfd; `None` where there is none.
pub fn next_signal(fd: &Fd) -> Option<SignalInfo> {
    let mut info = SignalInfo { number: 0, errno: 0, code: 0, pid: 0, uid: 0, rest: [0; 27] };
    let arguments = [word(fd.0), address_mut(&mut info), size_of::<SignalInfo>()];
    // SAFETY: read(2) writes at most one `struct signalfd_siginfo`, whose size a test checks.
    let read = unsafe { syscall(nr::READ, arguments) };
    (read == Ok(size_of::<SignalInfo>())).then_some(info)
}

/// ppoll(2); `None` waits for ever. An interrupted wait is one in which nothing happened.
pub fn ppoll(polls: &mut [Poll], timeout: Option<Duration>) -> Result<()> {
    let timeout = timeout.map(|timeout| Timespec {
        seconds: timeout.as_secs().try_into().unwrap_or(i64::MAX),
        nanoseconds: timeout.subsec_nanos().into(),
    });
    let timespec = timeout.as_ref().map_or(0, address);
    let arguments = [address_mut(polls), polls.len(), timespec, 0, 0];
    // SAFETY: ppoll(2) reads and writes `len` pollfds, which are borrowed mutably. It may write the timespec:
    // it is ours alone, is not read again, and is `Copy` data in a local that outlives the call.
    match unsafe { syscall(nr::PPOLL, arguments) } {
        Ok(_) | Err(Errno(EINTR)) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Since boot, without the time the machine was suspended: CLOCK_MONOTONIC. For deadlines.
#[must_use]
pub fn monotonic() -> Duration {
    clock(CLOCK_MONOTONIC)
}

/// Since boot, all of it: CLOCK_BOOTTIME. For records.
#[must_use]
pub fn boottime() -> Duration {
    clock(CLOCK_BOOTTIME)
}

fn clock(id: usize) -> Duration {
    let mut time = Timespec::default();
    // SAFETY: clock_gettime(2) writes a `struct timespec`, whose size a test checks.
    let answer = unsafe { syscall(nr::CLOCK_GETTIME, [id, address_mut(&mut time)]) };
    answer.unwrap_or_default(); // both clocks exist on every kernel that this runs on; the answer would be 0 if not
    Duration::new(time.seconds.try_into().unwrap_or(0), time.nanoseconds.try_into().unwrap_or(0))
}

// --- the link ----------------------------------------------------------------------------------------------------

/// socketpair(2): AF_UNIX, SOCK_SEQPACKET; ours does not block, theirs does.
pub fn socketpair() -> Result<(Fd, Fd)> {
    let mut pair = [0_i32; 2];
    let arguments = [AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, address_mut(&mut pair)];
    // SAFETY: socketpair(2) writes two descriptors.
    unsafe { syscall(nr::SOCKETPAIR, arguments) }?;
    Ok((Fd(pair[0]), Fd(pair[1])))
}

/// sendmsg(2) of one message, with at most one descriptor beside it; never blocks, never raises SIGPIPE.
pub fn send(socket: &Fd, message: &[u8], fd: Option<i32>) -> Result<()> {
    let mut iovec = Iovec { base: message.as_ptr().cast_mut(), length: message.len() };
    let mut control =
        OneFd { length: OneFd::LENGTH, level: SOL_SOCKET, kind: SCM_RIGHTS, fd: fd.unwrap_or(-1), pad: 0 };
    let header = header(&mut iovec, fd.is_some().then_some(&mut control));
    let arguments = [word(socket.0), address(&header), MSG_DONTWAIT | MSG_NOSIGNAL];
    // SAFETY: sendmsg(2) reads the header, one iovec over the message and one control message of the length given.
    unsafe { syscall(nr::SENDMSG, arguments) }.map(drop)
}

/// recvmsg(2) of one message and the descriptor that came with it; never blocks. The kernel closes any descriptor
/// beyond the first, for want of room. Zero bytes: the other end is closed.
pub fn receive(socket: &Fd, message: &mut [u8]) -> Result<(usize, Option<Fd>)> {
    let mut iovec = Iovec { base: message.as_mut_ptr(), length: message.len() };
    let mut control = OneFd { length: 0, level: 0, kind: 0, fd: -1, pad: 0 };
    let mut header = header(&mut iovec, Some(&mut control));
    let arguments = [word(socket.0), address_mut(&mut header), MSG_DONTWAIT | MSG_CMSG_CLOEXEC];
    // SAFETY: recvmsg(2) writes at most `len` bytes of the message, which is borrowed mutably, the header, and at
    // most as much of the control message as the header says there is.
    let size = unsafe { syscall(nr::RECVMSG, arguments) }?;
    let came = header.control_length >= OneFd::LENGTH
        && (control.length, control.level, control.kind) == (OneFd::LENGTH, SOL_SOCKET, SCM_RIGHTS);
    Ok((size, came.then_some(Fd(control.fd))))
}

fn header(iovec: &mut Iovec, control: Option<&mut OneFd>) -> Msghdr {
    let control_length = if control.is_some() { OneFd::LENGTH } else { 0 };
    let control = control.map_or(ptr::null_mut(), ptr::from_mut);
    Msghdr { name: 0, name_length: 0, iovec, iovec_length: 1, control, control_length, flags: 0 }
}
