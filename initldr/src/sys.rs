//! The system calls, each named after itself. The only unsafe code of PID 1 beside its first ten instructions.
//!
//! Invariant: every function takes what the kernel reads or writes as a reference or a slice of the right size, so no
//! caller can make the kernel touch memory that is not its own. No policy lives here: a failure is an [`Errno`].

use crate::{abi::*, link::ExitRecord, link::Signal};
use core::{arch::asm, ffi::CStr, fmt, marker::PhantomData, ptr, time::Duration};

/// What a system call failed with. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    /// The names of what an operator is likely to meet.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = [EPERM, ENOENT, ENOEXEC, ENOMEM, EACCES, EBUSY, ENODEV, ENOTDIR, EINVAL];
        let text = ["EPERM", "ENOENT", "ENOEXEC", "ENOMEM", "EACCES", "EBUSY", "ENODEV", "ENOTDIR", "EINVAL"];
        match known.iter().zip(text).find(|(number, _)| **number == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

/// What a system call came to.
pub type Result<T> = core::result::Result<T, Errno>;

/// A descriptor that is open and that nobody else closes.
#[derive(Debug)]
pub struct Fd(i32);

impl Fd {
    /// Its number, for [`ppoll`] and messages.
    pub fn raw(&self) -> i32 {
        self.0
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        let_go(self.0);
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
    pub const fn new(text: &'static CStr) -> Arg {
        Arg(text.as_ptr(), PhantomData)
    }

    /// The string; `None` for the end of the vector.
    pub fn text(self) -> Option<&'static CStr> {
        // SAFETY: not null, so it came from `new` or off the stack that execve(2) laid out: in both cases it points
        // to bytes that end in NUL, that nobody writes and that are never unmapped.
        (!self.0.is_null()).then(|| unsafe { CStr::from_ptr(self.0) })
    }
}

/// The arguments and the environment that the kernel left at the top of the first stack, each with its NULL.
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
    // SAFETY: as above; `length` elements and the NULL were just read, and they do not overlap with the arguments.
    (arguments, unsafe { core::slice::from_raw_parts(envp, length + 1) })
}

/// A raw system call; the arguments that are not given are zero.
///
/// # Safety
/// The arguments satisfy what the manual page of call `number` asks of memory.
unsafe fn syscall<const N: usize>(number: usize, arguments: [usize; N]) -> Result<usize> {
    let mut a = [0; 6];
    a.iter_mut().zip(arguments).for_each(|(register, argument)| *register = argument);
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

/// What is an argument as it stands. A reference becomes an address.
trait Argument {
    fn register(self) -> usize;
}

macro_rules! arguments {
    ($($type:ty: $register:expr;)*) => { $(impl Argument for $type {
        fn register(self) -> usize {
            let register: fn($type) -> usize = $register;
            register(self)
        }
    })* };
}

arguments! {
    usize: |number| number;
    u32: |number| number as usize;
    i32: |number| number.cast_unsigned() as usize; // of a descriptor or pid the kernel reads the low half
    &Fd: |fd| fd.0.register();
    &CStr: |text| text.as_ptr().expose_provenance();
    Option<&CStr>: |text| text.map_or(0, Argument::register);
    &u32: |number| ptr::from_ref(number).expose_provenance();
    &u64: |word| ptr::from_ref(word).expose_provenance();
    &Limit: |limit| ptr::from_ref(limit).expose_provenance();
    &mut u32: |number| ptr::from_mut(number).expose_provenance();
    &mut MappedDevice: |request| ptr::from_mut(request).expose_provenance();
    &[u8]: |bytes| bytes.as_ptr().expose_provenance();
    &mut [u8]: |bytes| bytes.as_mut_ptr().expose_provenance();
}

/// Declares system calls: name and parameters as in Rust, what becomes of the returned number, the call.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($($parameter:ident: $type:ty),*) -> $returns:ty:
        $convert:expr, $number:ident $arguments:tt;)*) => { $(
        $(#[$doc])*
        pub fn $name($($parameter: $type),*) -> Result<$returns> {
            // SAFETY: each address among the arguments is that of a parameter: a string that ends in NUL, which the
            // call reads; or a slice or array, of which the call is told the length, or whose length it has in common
            // with the kernel's structure, and which it writes only where it is borrowed mutably.
            unsafe { calls!(@ $number $arguments) }.map($convert)
        }
    )* };
    (@ $number:ident [$($argument:expr),*]) => { syscall(nr::$number, [$(Argument::register($argument)),*]) };
}

calls! {
    /// open(2), close-on-exec.
    open(path: &CStr, flags: usize) -> Fd: to_fd, OPENAT [AT_FDCWD, path, flags | O_CLOEXEC];
    /// read(2).
    read(fd: &Fd, buffer: &mut [u8]) -> usize: |size| size, READ [fd, &mut *buffer, buffer.len()];
    /// write(2), to a descriptor by number: 2 is not ours.
    write(fd: i32, bytes: &[u8]) -> usize: |size| size, WRITE [fd, bytes, bytes.len()];
    /// close(2), by number.
    close(fd: i32) -> (): drop, CLOSE [fd];
    /// setsockopt(2), SO_LINGER: whether the last close of a socket waits, and for how long.
    set_linger(fd: i32, to: &u64) -> (): drop, SETSOCKOPT [fd, SOL_SOCKET, SO_LINGER, to, size_of::<u64>()];
    /// close_range(2) to the end of the table; with CLOSE_RANGE_CLOEXEC they are only marked.
    close_from(first: i32, flags: usize) -> (): drop, CLOSE_RANGE [first, u32::MAX, flags];
    /// fcntl(2), F_SETFD: FD_CLOEXEC or nothing.
    set_descriptor_flags(fd: i32, flags: usize) -> (): drop, FCNTL [fd, F_SETFD, flags];
    /// pread64(2).
    read_at(fd: &Fd, buffer: &mut [u8], at: usize) -> usize: |size| size, PREAD64 [fd, &mut *buffer, buffer.len(), at];
    /// fcntl(2), F_GETFD: whether a descriptor is open.
    descriptor_flags(fd: i32) -> usize: |flags| flags, FCNTL [fd, F_GETFD];
    /// fcntl(2), F_DUPFD_CLOEXEC: a second descriptor of the same file, numbered 10 or more.
    duplicate_high(fd: &Fd) -> Fd: to_fd, FCNTL [fd, F_DUPFD_CLOEXEC, 10_usize];
    /// dup3(2) onto a number, without close-on-exec; EINVAL where it is that number already.
    duplicate_onto(fd: &Fd, number: i32) -> (): drop, DUP3 [fd, number, 0_usize];
    /// memfd_create(2), close-on-exec and to be sealed.
    memfd(name: &CStr, flags: usize) -> Fd: to_fd, MEMFD_CREATE [name, flags | MFD_CLOEXEC | MFD_ALLOW_SEALING];
    /// ftruncate(2).
    truncate(fd: &Fd, size: usize) -> (): drop, FTRUNCATE [fd, size];
    /// fcntl(2), F_ADD_SEALS: F_SEAL_*.
    seal(fd: &Fd, seals: usize) -> (): drop, FCNTL [fd, F_ADD_SEALS, seals];
    /// mkdir(2), mode 0755.
    mkdir(path: &CStr) -> (): drop, MKDIRAT [AT_FDCWD, path, 0o755_usize];
    /// chdir(2).
    chdir(path: &CStr) -> (): drop, CHDIR [path];
    /// chroot(2).
    chroot(path: &CStr) -> (): drop, CHROOT [path];
    /// mount(2).
    mount(source: &CStr, target: &CStr, kind: &CStr, flags: usize, data: Option<&CStr>) -> ():
        drop, MOUNT [source, target, kind, flags, data];
    /// umount2(2), MNT_*.
    umount(target: &CStr, flags: usize) -> (): drop, UMOUNT2 [target, flags];
    /// pivot_root(2) of the working directory onto itself: the old root is mounted over the new one then.
    pivot_root(path: &CStr) -> (): drop, PIVOT_ROOT [path, path];
    /// swapoff(2).
    swapoff(path: &CStr) -> (): drop, SWAPOFF [path];
    /// ioctl(2), LOOP_CLR_FD: a loop device has no file any more; or none after its last user, where it has one beside us.
    clear_loop(device: &Fd) -> (): drop, IOCTL [device, LOOP_CLR_FD, 0_usize];
    /// ioctl(2), DM_DEV_REMOVE. `control` is /dev/mapper/control.
    remove_mapped(control: &Fd, request: &mut MappedDevice) -> (): drop, IOCTL [control, DM_DEV_REMOVE, &mut *request];
    /// ioctl(2), WDIOC_SETTIMEOUT: of a watchdog; the seconds become what it can do.
    set_timeout(device: i32, seconds: &mut u32) -> (): drop, IOCTL [device, WDIOC_SETTIMEOUT, &mut *seconds];
    /// sync(2).
    sync() -> (): drop, SYNC [];
    /// getpid(2).
    getpid() -> u32: low_half, GETPID [];
    /// fork(2): the pid of the child in the parent, 0 in the child. It is clone(2) with no flag but the exit signal, on
    /// the same stack address: memory is copied and nothing is shared, and this program has one thread, so the child
    /// sees every value as the parent left it.
    fork() -> u32: low_half, CLONE [SIGCHLD];
    /// kill(2). `pid` -1 is everything but this process and PID 1.
    kill(pid: i32, signal: u32) -> (): drop, KILL [pid, signal];
    /// setsid(2).
    setsid() -> (): drop, SETSID [];
    /// setpgid(2): a process, 0 being this one, leads a group of its own.
    lead_group(pid: u32) -> (): drop, SETPGID [pid, 0_usize];
    /// getpgrp(2).
    own_group() -> u32: low_half, GETPGRP [];
    /// umask(2).
    umask(mask: usize) -> (): drop, UMASK [mask];
    /// prctl(2), PR_SET_CHILD_SUBREAPER.
    become_subreaper() -> (): drop, PRCTL [PR_SET_CHILD_SUBREAPER, 1_usize];
    /// ioctl(2), TIOCSCTTY: makes the terminal the controlling one of this session.
    take_terminal(fd: &Fd) -> (): drop, IOCTL [fd, TIOCSCTTY, 0_usize];
    /// ioctl(2), KDSIGACCEPT: the keyboard request (Alt and the upward arrow) becomes this signal to this process.
    accept_keyboard_request(fd: &Fd, signal: u32) -> (): drop, IOCTL [fd, KDSIGACCEPT, signal];
    /// ioctl(2), TIOCSPGRP: standard input, being a terminal, is that group's to read.
    give_terminal(group: &u32) -> (): drop, IOCTL [0_usize, TIOCSPGRP, group];
    /// prlimit64(2) of RLIMIT_NOFILE, to set it.
    limit_files(limit: &Limit) -> (): drop, PRLIMIT64 [0_usize, RLIMIT_NOFILE, limit, 0_usize];
    /// reboot(2).
    reboot(command: usize) -> (): drop, REBOOT [LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, command];
    /// rt_sigprocmask(2), SIG_SETMASK.
    block_only(signals: &u64) -> (): drop, RT_SIGPROCMASK [SIG_SETMASK, signals, 0_usize, size_of::<u64>()];
    /// signalfd4(2), non-blocking, of the signals whose bits (number - 1) are set.
    signalfd(signals: &u64) -> Fd: to_fd, SIGNALFD4 [-1, signals, size_of::<u64>(), SFD_CLOEXEC | SFD_NONBLOCK];
    /// exit_group(2), which does not return.
    exit_group(code: u32) -> (): drop, EXIT_GROUP [code];
}

/// A descriptor, or a pid, out of a register.
fn to_fd(register: usize) -> Fd {
    Fd(low_half(register).cast_signed())
}

fn low_half(register: usize) -> u32 {
    u32::try_from(register & 0xffff_ffff).unwrap_or_default()
}

/// Takes over a descriptor that execve(2) left open, and makes it close-on-exec: so each is taken once.
pub fn adopt(number: i32) -> Option<Fd> {
    let taken =
        number > 2 && descriptor_flags(number) == Ok(0) && set_descriptor_flags(number, FD_CLOEXEC).is_ok();
    taken.then(|| Fd(number))
}

/// A memfd that stays of this size, and is not executable where the kernel knows of that (6.3).
pub fn sealed_memfd(name: &CStr, size: usize) -> Result<Fd> {
    let fd = memfd(name, MFD_NOEXEC_SEAL).or_else(|_| memfd(name, 0))?;
    truncate(&fd, size)?;
    seal(&fd, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)?;
    Ok(fd)
}

/// Ends this process.
pub fn exit(code: u32) -> ! {
    loop {
        exit_group(code).unwrap_or_default();
    }
}

/// A call that writes one of the kernel's structures and whose other arguments are numbers or strings.
macro_rules! filled {
    ($type:ty: $number:ident [$($before:expr),*] _ $(, $after:expr)*) => {{
        let mut structure: $type = [0; _];
        let address = ptr::from_mut(&mut structure).expose_provenance();
        // SAFETY: the call writes a structure of just this size (a test compares it with libc's) to `address`; what
        // else it gets is a number, the address of a string that ends in NUL, or that of the structure's own size.
        unsafe { syscall(nr::$number, [$(Argument::register($before),)* address $(, Argument::register($after))*]) }
            .map(|_| structure)
    }};
}

/// Closes a descriptor without ever waiting for it: a socket is closed by a thread of its own. The last close of one with
/// SO_LINGER waits for its peer, as long as it says, and so does that of a Unix socket into which such a one was sent that
/// nobody received. Such a time is taken away, not to have many threads wait; but whoever gave us a socket has it too, and
/// may set it again.
pub fn let_go(fd: i32) {
    let linger = filled!([u32; 2]: GETSOCKOPT [fd, SOL_SOCKET, SO_LINGER] _, &mut { 8_u32 });
    let is_socket = linger.is_ok_and(|[_, seconds]| seconds == 0 || set_linger(fd, &0).is_ok());
    if !is_socket || !close_apart(fd) {
        close(fd).unwrap_or_default(); // the descriptor is gone whatever it returns
    }
}

/// close(2) by a new thread of this process, which does nothing else; whether there is one.
fn close_apart(fd: i32) -> bool {
    let thread: isize;
    // SAFETY: the new thread shares memory and stack, and no instruction of its own touches them: it makes two system calls,
    // the second of which ends it. No handler of a signal runs there either: initldr blocks all signals, and motherd has none
    // but for faults, which this has not. The kernel keeps every register but rax, rcx and r11, which are declared; rdi is
    // changed in the new thread alone.
    unsafe {
        asm!(
            "syscall; test rax, rax; jnz 2f; mov edi, r12d; mov eax, 3; syscall; xor edi, edi; mov eax, 60; syscall; 2:",
            inlateout("rax") nr::CLONE => thread, in("rdi") CLONE_VM | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD,
            in("rsi") 0, in("r12") fd, lateout("rcx") _, lateout("r11") _, options(nostack),
        );
    }
    thread > 0
}

/// statfs(2): the type of the file system at a path.
pub fn file_system(path: &CStr) -> Result<u64> {
    filled!(Statfs: STATFS [path] _).map(|statfs| statfs[0])
}

/// statx(2), STATX_ATTR_MOUNT_ROOT (Linux 5.8): whether something is mounted at a path.
pub fn is_mount_point(path: &CStr) -> Result<bool> {
    filled!(Statx: STATX [AT_FDCWD, path, 0_usize, 0_usize] _)
        .map(|statx| statx[1] & STATX_ATTR_MOUNT_ROOT != 0)
}

/// ioctl(2), TIOCGPGRP: the group that may read standard input, where that is this session's terminal.
pub fn terminal_of() -> Result<u32> {
    filled!([u32; 1]: IOCTL [0_usize, TIOCGPGRP] _).map(|group| group[0])
}

/// ioctl(2), WDIOC_GETTIMEOUT: the seconds of a watchdog.
pub fn timeout(device: i32) -> Result<u32> {
    filled!([u32; 1]: IOCTL [device, WDIOC_GETTIMEOUT] _).map(|seconds| seconds[0])
}

/// prlimit64(2) of RLIMIT_NOFILE, to read it.
pub fn file_limit() -> Result<Limit> {
    filled!(Limit: PRLIMIT64 [0_usize, RLIMIT_NOFILE, 0_usize] _)
}

/// Since boot, without the time the machine was suspended: CLOCK_MONOTONIC. For deadlines.
pub fn monotonic() -> Duration {
    clock(CLOCK_MONOTONIC)
}

/// clock_gettime(2) of a clock that exists on every kernel that this runs on.
fn clock(id: usize) -> Duration {
    let [seconds, nanoseconds] = filled!(Timespec: CLOCK_GETTIME [id] _).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds)
}

/// The next signal off a signalfd.
pub fn next_signal(fd: &Fd) -> Option<Signal> {
    let info = filled!(SignalInfo: READ [fd] _, size_of::<SignalInfo>()).ok()?;
    Some(Signal { number: info[0], sender_pid: info[3], sender_uid: info[4] })
}

/// waitid(2) for any child that has come into a state (WEXITED, WSTOPPED), without waiting. `None`: none has. ECHILD:
/// there are no children. The record has no sequence number yet.
pub fn wait(states: usize) -> Result<Option<ExitRecord>> {
    let (mut info, mut usage): (ChildInfo, Usage) = ([0; _], [0; _]);
    let into = [ptr::from_mut(&mut info).expose_provenance(), ptr::from_mut(&mut usage).expose_provenance()];
    // SAFETY: waitid(2) writes a `siginfo_t` and a `struct rusage`, whose sizes a test checks.
    unsafe { syscall(nr::WAITID, [P_ALL, 0, into[0], states | WNOHANG, into[1]]) }?;
    Ok((info[4] != 0).then(|| ExitRecord {
        sequence: 0,
        pid: info[4].cast_unsigned(),
        code: info[2],
        status: info[6],
        boottime_ns: u64::try_from(clock(CLOCK_BOOTTIME).as_nanos()).unwrap_or_default(),
        user_time_us: usage[0] * 1_000_000 + usage[1],
        system_time_us: usage[2] * 1_000_000 + usage[3],
        max_rss_kib: usage[4],
    }))
}

/// Gives signals their default action: rt_sigaction(2). What initldr was started with may have ignored some, and a
/// SIGCHLD that is ignored makes the kernel throw exit statuses away.
pub fn reset_signal_actions(signals: core::ops::RangeInclusive<u32>) {
    for signal in signals {
        // handler SIG_DFL, no flags, no restorer, no mask: four words of zero
        let action = ptr::from_ref(&[0_u64; 4]).expose_provenance();
        // SAFETY: rt_sigaction(2) reads the kernel's `struct sigaction`, which is four words on x86_64.
        let answer = unsafe { syscall(nr::RT_SIGACTION, [signal as usize, action, 0, size_of::<u64>()]) };
        answer.map(drop).unwrap_or_default(); // EINVAL for SIGKILL and SIGSTOP, which have no other action anyway
    }
}

/// execve(2); the vectors end in [`Arg::NULL`], or it is EINVAL. Returns only on failure.
pub fn execve(path: &CStr, arguments: &[Arg], environment: &[Arg]) -> Errno {
    let ends = |vector: &[Arg]| vector.last().is_some_and(|last| last.0.is_null());
    if !ends(arguments) || !ends(environment) {
        return Errno(EINVAL);
    }
    let [arguments, environment] = [arguments, environment].map(|vector| vector.as_ptr().expose_provenance());
    // SAFETY: execve(2) reads the path and two vectors of pointers that end in NULL, which was just checked; what an
    // `Arg` points to is a string that ends in NUL.
    let answer = unsafe { syscall(nr::EXECVE, [path.register(), arguments, environment]) };
    answer.err().unwrap_or(Errno(EINVAL))
}

/// ppoll(2): of each descriptor (-1 is passed over) what to wait for, and then what there is. A timeout of `None` is for
/// ever. An interrupted wait is one in which nothing happened.
pub fn ppoll<const N: usize>(mut polls: [Poll; N], timeout: Option<Duration>) -> Result<[i32; N]> {
    let mut timeout: Option<Timespec> = timeout.map(|time| [time.as_secs(), time.subsec_nanos().into()]);
    let timespec = timeout.as_mut().map_or(0, |timespec| ptr::from_mut(timespec).expose_provenance());
    let arguments = [polls.as_mut_ptr().expose_provenance(), N, timespec];
    // SAFETY: ppoll(2) reads and writes `N` pollfds, and one timespec unless that is NULL; all are mutable and ours.
    match unsafe { syscall(nr::PPOLL, arguments) } {
        Ok(_) | Err(Errno(EINTR)) => Ok(polls.map(|[_, events]| events >> 16)),
        Err(errno) => Err(errno),
    }
}

/// socketpair(2): AF_UNIX, SOCK_SEQPACKET.
pub fn socketpair() -> Result<(Fd, Fd)> {
    let pair = filled!([i32; 2]: SOCKETPAIR [AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0_usize] _)?;
    Ok((Fd(pair[0]), Fd(pair[1])))
}

/// sendmsg(2) of one message, with at most one descriptor beside it; never blocks, never raises SIGPIPE.
pub fn send(socket: &Fd, message: &[u8], fd: Option<i32>) -> Result<()> {
    let mut control = fd.map(rights);
    // SAFETY: sendmsg(2) reads the message and the control message, if there is one.
    unsafe { transfer(nr::SENDMSG, socket, [message.register(), message.len()], control.as_mut_slice()) }
        .map(drop)
}

/// recvmsg(2) of one message and the descriptor that came with it; never blocks. The kernel closes any descriptor
/// beyond the first, for want of room. Zero bytes: the other end is closed.
pub fn receive(socket: &Fd, message: &mut [u8]) -> Result<(usize, Option<Fd>)> {
    let (size, mut control) = (message.len(), [OneFd::default()]);
    // SAFETY: recvmsg(2) writes at most `size` bytes of the message, which is borrowed mutably, and at most as much of
    // the control message as there is of it.
    let size = unsafe { transfer(nr::RECVMSG, socket, [message.register(), size], &mut control) }?;
    let fd = control[0][4];
    Ok((size, (control[0] == rights(fd)).then(|| Fd(fd)))) // not `then_some`: it would make an `Fd` of 0, and close it
}

/// A control message of one descriptor.
fn rights(fd: i32) -> OneFd {
    [20, 0, SOL_SOCKET, SCM_RIGHTS, fd] // 20: the size of this
}

/// sendmsg(2) and recvmsg(2).
///
/// # Safety
/// `message` is the address and the length of bytes which recvmsg may write; `control` has at most one element.
unsafe fn transfer(number: usize, socket: &Fd, message: [usize; 2], control: &mut [OneFd]) -> Result<usize> {
    let iovec = ptr::from_ref(&message).expose_provenance();
    let mut msg: Msghdr = [0, 0, iovec, 1, control.as_mut_ptr().expose_provenance(), size_of_val(control), 0];
    // The flag that the other of the two calls knows means nothing to it.
    let flags = MSG_DONTWAIT | MSG_NOSIGNAL | MSG_CMSG_CLOEXEC;
    // SAFETY: the header is whole, and all that it points to is there, as the caller says.
    unsafe { syscall(number, [socket.register(), ptr::from_mut(&mut msg).expose_provenance(), flags]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Closes one end of a pair, and waits until that was done.
    fn let_go_and_wait(end: Fd, other: &Fd) {
        const POLLHUP: i32 = 0x10;
        drop(end);
        while ppoll([[other.raw(), 0]], None).unwrap()[0] & POLLHUP == 0 {}
    }

    /// Its peer does not read, and nobody waits for it.
    #[test]
    fn a_socket_that_lingers_is_let_go_without_waiting() {
        use std::{io::Write, net, os::fd::IntoRawFd, sync::mpsc, thread};
        const SECONDS: u64 = 3600;
        let lingering = |listener: &net::TcpListener| {
            let mut socket = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            socket.set_nonblocking(true).unwrap();
            while socket.write(&[0; 1 << 16]).is_ok() {}
            let socket = Fd(socket.into_raw_fd());
            set_linger(socket.raw(), &(1 | SECONDS << 32)).unwrap();
            socket
        };
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
            drop(lingering(&listener));
            // One that is in a socket, which is let go.
            let (ours, theirs) = socketpair().unwrap();
            let inside = lingering(&listener);
            send(&ours, b"x", Some(inside.raw())).unwrap();
            close(inside.raw()).unwrap(); // which leaves it as it is
            core::mem::forget(inside);
            drop(ours);
            drop(theirs); // where it waits to be received
            done.send(listener).unwrap(); // open until now, and with it those that nobody accepted
        });
        is_done.recv_timeout(Duration::from_secs(SECONDS / 12)).expect("it waits");
    }

    #[test]
    fn a_message_comes_with_its_descriptor_and_without_waiting() {
        let (ours, theirs) = socketpair().unwrap();
        let mut bytes = [0; 8];
        assert_eq!(receive(&theirs, &mut bytes).map(drop), Err(Errno(EAGAIN)));
        let file = memfd(c"test", 0).unwrap();
        send(&ours, b"with", Some(file.raw())).unwrap();
        send(&ours, b"without", None).unwrap();
        let (size, fd) = receive(&theirs, &mut bytes).unwrap();
        let fd = fd.expect("a descriptor");
        assert_eq!((&bytes[..size], descriptor_flags(fd.raw())), (&b"with"[..], Ok(1)), "close-on-exec");
        assert_ne!(fd.raw(), file.raw());
        let (size, fd) = receive(&theirs, &mut bytes).unwrap();
        assert!(&bytes[..size] == b"without" && fd.is_none());
        assert!(descriptor_flags(0).is_ok(), "what did not come is not closed either");
        let_go_and_wait(ours, &theirs);
        assert_eq!(receive(&theirs, &mut bytes).map(|received| received.0), Ok(0), "the end");
        assert_eq!(send(&theirs, b"x", None), Err(Errno(EPIPE)));
    }

    #[test]
    fn the_last_words_come_after_a_reset_that_is_said_once() {
        let (ours, theirs) = socketpair().unwrap();
        send(&ours, b"never read", None).unwrap();
        send(&theirs, b"last words", None).unwrap();
        let_go_and_wait(theirs, &ours);
        let mut bytes = [0; 16];
        let mut next = || receive(&ours, &mut bytes).map(|received| received.0);
        assert_eq!([next(), next(), next()], [Err(Errno(ECONNRESET)), Ok(10), Ok(0)]);
    }

    #[test]
    fn a_socket_that_is_full_says_so() {
        let (ours, _theirs) = socketpair().unwrap();
        let sent = (0..100_000).take_while(|_| send(&ours, &[0; 256], None).is_ok()).count();
        println!("{sent} messages of 256 bytes fit");
        assert!((50..100_000).contains(&sent), "{sent}");
        assert_eq!(send(&ours, &[0; 256], None), Err(Errno(EAGAIN)));
    }

    #[test]
    fn the_kernel_is_asked_in_its_own_words() {
        assert_eq!(getpid(), Ok(std::process::id()));
        assert_eq!((is_mount_point(c"/proc"), is_mount_point(c"/proc/self")), (Ok(true), Ok(false)));
        assert_eq!(file_system(c"/proc"), Ok(u64::try_from(libc::PROC_SUPER_MAGIC).unwrap()));
        assert_eq!(open(c"/nowhere", O_RDONLY).map(drop), Err(Errno(ENOENT)));
        assert!(file_limit().unwrap()[1] >= 64);
        let before = monotonic();
        ppoll([], Some(Duration::from_millis(30))).unwrap();
        assert!(monotonic() - before >= Duration::from_millis(30) && clock(CLOCK_BOOTTIME) >= before);
    }
}
