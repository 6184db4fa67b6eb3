//! The unsafe calls of the harness and of the probe.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::Signal;

/// Has the kernel end the child when the thread that starts it ends, so that a test that is killed leaves nothing.
pub(crate) fn end_with_this_thread(command: &mut Command) -> &mut Command {
    let ask = || nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from);
    // SAFETY: the closure runs between fork and exec, where only async-signal-safe calls are allowed: it makes one
    // system call, prctl, and converts an errno into an io::Error, which allocates nothing.
    unsafe { command.pre_exec(ask) }
}

/// Blocks every signal, and opens a descriptor through which they come: those too that glibc leaves out of its own sets.
pub(crate) fn take_every_signal() -> io::Result<OwnedFd> {
    let every = u64::MAX;
    let size = size_of::<u64>();
    let null = std::ptr::null_mut::<u64>();
    // SAFETY: the call reads one mask of the kernel's size, eight bytes, and is given no place to write the old one to.
    outcome(unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const every, null, size)
    })?;
    // SAFETY: the call reads one mask of that size.
    let fd = unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const every, size, libc::SFD_CLOEXEC) };
    outcome(fd)?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the descriptor was made just now and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The number of the next signal.
pub(crate) fn next_signal(signals: &OwnedFd) -> io::Result<u32> {
    let mut info = [0_u8; 128]; // struct signalfd_siginfo, whose first word is the number
    let size = nix::unistd::read(signals, &mut info)?;
    match info.first_chunk().filter(|_| size == info.len()) {
        Some(number) => Ok(u32::from_ne_bytes(*number)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// prlimit(2): the soft RLIMIT_NOFILE of a process; the one of before.
pub(crate) fn limit_files(pid: i32, soft: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let null = std::ptr::null();
    // SAFETY: the call writes one rlimit, and is given none to read.
    outcome(i64::from(unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, null, &raw mut limit) }))?;
    let before = std::mem::replace(&mut limit.rlim_cur, soft);
    // SAFETY: the call reads one rlimit, and is given no place to write the old one to.
    outcome(i64::from(unsafe {
        libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut())
    }))?;
    Ok(before)
}

/// kill(2), of any number.
pub(crate) fn send_signal(pid: i32, number: i32) -> io::Result<()> {
    // SAFETY: two numbers.
    outcome(i64::from(unsafe { libc::kill(pid, number) }))
}

/// The child ignores none of the signals that whoever started the tests may ignore: nohup(1), or a shell's `&`.
pub(crate) fn start_with_default_signals(command: &mut Command) -> &mut Command {
    let start = || {
        for number in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
            // SAFETY: SIG_DFL is an action and no address.
            unsafe { libc::signal(number, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec and makes three system calls; it allocates nothing.
    unsafe { command.pre_exec(start) }
}

/// The child starts with one signal ignored and one blocked; 0 is none.
pub(crate) fn start_with_signals(command: &mut Command, ignored: i32, blocked: i32) -> &mut Command {
    let start = move || {
        let mask = if blocked > 0 { 1_u64 << (blocked - 1) } else { 0 };
        let null = std::ptr::null_mut::<u64>();
        if ignored > 0 {
            // SAFETY: SIG_IGN is an action and no address.
            unsafe { libc::signal(ignored, libc::SIG_IGN) };
        }
        let size = size_of::<u64>();
        // SAFETY: the call reads one mask of the kernel's size, and is given no place to write the old one to.
        outcome(unsafe {
            libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, null, size)
        })
    };
    // SAFETY: the closure runs between fork and exec and makes two system calls; an error is made from errno without
    // allocation.
    unsafe { command.pre_exec(start) }
}

/// The child leads a session whose terminal is its standard input.
pub(crate) fn start_on_terminal(command: &mut Command) -> &mut Command {
    let start = || {
        nix::unistd::setsid()?;
        // SAFETY: a descriptor and two numbers.
        outcome(i64::from(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }))
    };
    // SAFETY: the closure runs between fork and exec and makes two system calls.
    unsafe { command.pre_exec(start) }
}

/// vfork and execve of a program in new namespaces, and nothing else: what any sandbox with them costs at least. Answers
/// the pid, once the program runs.
pub(crate) fn bare_launch(program: &std::ffi::CStr, namespaces: i32) -> io::Result<i32> {
    const STACK: usize = 64 << 10;
    extern "C" fn run(program: *mut libc::c_void) -> i32 {
        let arguments = [program.cast_const().cast::<libc::c_char>(), std::ptr::null()];
        // SAFETY: `program` is the `CStr` that `bare_launch` borrows while CLONE_VFORK suspends it; `arguments` ends
        // with null and serves as argv; an empty environment is its null entry.
        unsafe { libc::syscall(libc::SYS_execve, program, arguments.as_ptr(), &raw const arguments[1]) };
        127
    }
    thread_local!(static KEPT: std::cell::RefCell<Vec<u128>> = std::cell::RefCell::new(vec![0; STACK / 16]));
    KEPT.with_borrow_mut(|stack| {
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD | namespaces;
        let top = stack.as_mut_ptr_range().end.cast::<libc::c_void>();
        // SAFETY: `top` is the end of a stack that nobody else uses: this thread, to which it belongs, is suspended until
        // the child has exec'd or ended. The child makes one system call and returns into glibc's exit.
        let pid = unsafe { libc::clone(run, top, flags, program.as_ptr().cast_mut().cast()) };
        if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) }
    })
}

/// pidfd_open(2)
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: two integers.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if pidfd < 0 {
        return Err(io::Error::last_os_error());
    }
    let pidfd = i32::try_from(pidfd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

/// pidfd_getfd(2): a copy of a descriptor of another process.
pub(crate) fn descriptor_of(pid: i32, fd: i32) -> io::Result<OwnedFd> {
    let pidfd = pidfd_open(pid)?;
    // SAFETY: three integers, of which the first is a pidfd that lives across the call.
    let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    let copy = i32::try_from(copy).map_err(io::Error::other)?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// From here on every system call ends this process (SIGSYS) but exit_group(2), which `work` is followed by.
pub(crate) fn without_system_calls(work: impl FnOnce()) -> io::Result<std::convert::Infallible> {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let statement = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let exit = u32::try_from(libc::SYS_exit_group).map_err(io::Error::other)?;
    // The number of the call is the first word of `struct seccomp_data`; nothing here runs another architecture's calls.
    let filter = [
        statement(LOAD, 0),
        libc::sock_filter { code: JUMP_IF_EQUAL, jt: 1, jf: 0, k: exit },
        statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_ptr().cast_mut() };
    // SAFETY: integers alone.
    outcome(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())?;
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program has four instructions, as it says, and lives across the call, which copies them.
    outcome(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) }.into())?;
    work();
    // SAFETY: it does not return, and runs nothing that this process registered.
    unsafe { libc::_exit(0) }
}

/// A call by its number, with no arguments worth the name.
pub(crate) fn bare_call(number: i64) -> io::Result<()> {
    // SAFETY: every argument is zero, so the kernel is given no address to write to. The numbers that come here are
    // those of the probe's table, none of which changes this process when all its arguments are zero.
    outcome(unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) })
}

/// The effective capabilities of this process (capget(2)).
pub(crate) fn effective_capabilities() -> io::Result<u64> {
    /// `struct __user_cap_header_struct` and two of `struct __user_cap_data_struct` (linux/capability.h).
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522; // _LINUX_CAPABILITY_VERSION_3
    let mut header = Header { version: VERSION_3, pid: 0 };
    // Effective, permitted and inheritable, of the low and then of the high 32 bits.
    let mut data = [[0_u32; 3]; 2];
    // SAFETY: version 3 of the call writes the header and two data structs of three words each, which is what the
    // two locals are; both live across the call.
    outcome(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    Ok(u64::from(data[0][0]) | u64::from(data[1][0]) << 32)
}

/// getpid(2) by its i386 number through the i386 gate, which a filter for x86_64 alone does not see.
pub(crate) fn getpid_of_i386() -> io::Result<()> {
    const GETPID: i32 = 20;
    let mut register = GETPID;
    // SAFETY: getpid takes no argument and touches no memory; the gate returns in eax and, from x86_64 code, leaves
    // r8 to r11 undefined (arch/x86/entry/entry_64_compat.S), which is what is declared here.
    unsafe {
        std::arch::asm!(
            "int 0x80",
            inout("eax") register,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            options(nostack),
        );
    }
    if register < 0 { Err(io::Error::from_raw_os_error(-register)) } else { Ok(()) }
}

/// A socket of a family, of the kind that any family has.
pub(crate) fn socket(family: i32) -> io::Result<()> {
    let kind = if family == libc::AF_NETLINK || family == libc::AF_PACKET {
        libc::SOCK_RAW
    } else {
        libc::SOCK_STREAM
    };
    // SAFETY: three numbers; the descriptor that may come back is closed when this process ends, an act later.
    outcome(i64::from(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) }))
}

/// A page that is writable and executable at once.
pub(crate) fn map_writable_and_executable() -> io::Result<()> {
    map(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC).map(drop)
}

/// A page that is written to and made executable afterwards.
pub(crate) fn make_executable_later() -> io::Result<()> {
    let page = map(libc::PROT_READ | libc::PROT_WRITE)?;
    // SAFETY: `page` is the start of a mapping of PAGE bytes that map() made just now and nobody else knows.
    outcome(i64::from(unsafe { libc::mprotect(page, PAGE, libc::PROT_READ | libc::PROT_EXEC) }))
}

const PAGE: usize = 4096;

fn map(protection: i32) -> io::Result<*mut libc::c_void> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: an anonymous mapping at an address of the kernel's choice takes nothing away from this process.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(page) }
}

/// A descriptor that this process was started with, by its number (sd_listen_fds(3)).
pub(crate) fn handed(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) with F_GETFD reads a number and answers EBADF for one that is not open.
    outcome(i64::from(unsafe { libc::fcntl(number, libc::F_GETFD) }))?;
    // SAFETY: it is open, and whoever started this process opened it for it: no other value here owns the number, since the
    // programs that call this do so once for each number, before they open anything that could get it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A socket option that is an int (getsockopt(2)).
pub(crate) fn option(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<i32> {
    let mut value = 0_i32;
    let mut size = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or_default();
    let out = (&raw mut value).cast();
    // SAFETY: the kernel writes at most `size` bytes, which is what the int at `out` has; both live across the call.
    outcome(i64::from(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, out, &raw mut size) }))?;
    Ok(value)
}

/// How many connections may wait on a listening TCP socket: `tcpi_sacked` of TCP_INFO, for which it is that (tcp(7)).
pub(crate) fn tcp_backlog(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: `tcp_info` is integers, for all of which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut size = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).unwrap_or_default();
    let (level, name, out) = (libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast());
    // SAFETY: the kernel writes at most `size` bytes, which is what the struct at `out` has; both live across the call.
    outcome(i64::from(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, out, &raw mut size) }))?;
    Ok(info.tcpi_sacked)
}

/// CLOCK_PROCESS_CPUTIME_ID.
pub(crate) fn own_processor_time() -> io::Result<std::time::Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one `timespec`, which `time` is, and it lives across the call.
    outcome(i64::from(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) }))?;
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Ok(std::time::Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default()))
}

/// A byte in each of so many huge pages; where a page is refused when it is written to, the kernel sends SIGBUS.
pub(crate) fn touch_huge_pages(count: usize, size: usize) -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
    // SAFETY: an anonymous mapping at an address of the kernel's choice takes nothing away from this process.
    let pages = unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(std::ptr::null_mut(), count * size, protection, flags, -1, 0)
    };
    if pages == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    for number in 0..count {
        // SAFETY: the mapping has `count * size` bytes, is writable, and nobody else knows it; this is one of its bytes.
        unsafe { pages.cast::<u8>().wrapping_add(number * size).write_volatile(1) };
    }
    Ok(())
}

/// A command of the write interface of `/dev/infiniband/uverbsN` that takes nothing but the place of its answer.
pub(crate) fn verb(device: &mut std::fs::File, command: u32) -> io::Result<()> {
    // Two words come back from either command that is used here; drivers may add some of their own.
    let mut answer = [0_u32; 32];
    // struct ib_uverbs_cmd_hdr: the command, and the lengths of both directions in words; then the address.
    let mut request = command.to_ne_bytes().to_vec();
    request.extend(4_u16.to_ne_bytes());
    request.extend(2_u16.to_ne_bytes());
    request.extend((answer.as_mut_ptr().expose_provenance() as u64).to_ne_bytes());
    // SAFETY: the kernel writes at most the two words that the header grants to the address in the request, which is
    // that of `answer`; it is exclusively borrowed, longer than that, and lives across the call.
    let written = unsafe { libc::write(device.as_raw_fd(), request.as_ptr().cast(), request.len()) };
    std::hint::black_box(&answer);
    outcome(i64::try_from(written).unwrap_or(-1))
}

/// What libc's -1, or the kernel's own negative errno, means.
fn outcome(result: i64) -> io::Result<()> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        error if error < 0 => {
            Err(io::Error::from_raw_os_error(i32::try_from(-error).unwrap_or(libc::EINVAL)))
        }
        _ => Ok(()),
    }
}
