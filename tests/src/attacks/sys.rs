//! The unsafe calls of attacks: what an attacker does by raw numbers, because no library would.

use std::ffi::CStr;
use std::io;

/// An argument of a raw call.
#[derive(Debug)]
pub(super) enum Argument<'a> {
    /// A number, or a descriptor.
    Number(u64),
    /// A path or a name.
    Text(&'a CStr),
    /// A structure or a buffer that the kernel may write to.
    Buffer(&'a mut [u8]),
}

/// A call by its number. Each [`Argument::Buffer`] has to be as large as the call's manual page says.
pub(super) fn call(number: i64, arguments: &mut [Argument<'_>]) -> io::Result<i64> {
    let mut words = [0_u64; 6];
    for (word, argument) in words.iter_mut().zip(arguments) {
        *word = match argument {
            Argument::Number(number) => *number,
            Argument::Text(text) => text.as_ptr() as u64,
            Argument::Buffer(bytes) => bytes.as_mut_ptr() as u64,
        };
    }
    let [a, b, c, d, e, f] = words;
    // SAFETY: every address among the words is that of a NUL-terminated text or of a buffer that is borrowed across
    // the call. The callers are the acts of this folder, each of which gives the structure that its call takes; none
    // calls what would take memory away from this process (munmap, mremap, brk) or run it twice in one memory.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// clone(2) of a child with memory of its own, which ends at once.
pub(super) fn clone_and_end(flags: i32) -> io::Result<()> {
    let flags = u64::from(flags.cast_unsigned()) | u64::from(libc::SIGCHLD.cast_unsigned());
    // SAFETY: without CLONE_VM the child has a copy of this memory and returns here on a copy of this stack, as after
    // fork(2); it makes one async-signal-safe call and is gone. This program has one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    end_child(pid)
}

/// The same by clone3(2), whose flags lie in memory.
pub(super) fn clone3_and_end(flags: i32) -> io::Result<()> {
    // `struct clone_args` of the first version (linux/sched.h, CLONE_ARGS_SIZE_VER0): eight words.
    let mut arguments = [0_u64; 8];
    arguments[0] = u64::from(flags.cast_unsigned());
    arguments[4] = u64::from(libc::SIGCHLD.cast_unsigned());
    // SAFETY: the pointer and the size are those of the array; the child is as in clone_and_end().
    let pid = unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments)) };
    end_child(pid)
}

fn end_child(pid: i64) -> io::Result<()> {
    match pid {
        // SAFETY: _exit is async-signal-safe and does not return.
        0 => unsafe { libc::_exit(0) },
        -1 => Err(io::Error::last_os_error()),
        _ => {
            let mut status = 0;
            // SAFETY: `status` is an int that outlives the call.
            unsafe { libc::waitpid(-1, &raw mut status, 0) };
            Ok(())
        }
    }
}

/// A private mapping of a page of a file, with this protection.
pub(super) fn map_file(fd: i32, protection: i32) -> io::Result<()> {
    let flags = libc::MAP_PRIVATE;
    // SAFETY: a mapping at an address of the kernel's choice takes nothing away from this process.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, fd, 0) };
    if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What an io_uring answers to one IORING_OP_OPENAT.
pub(super) fn open_by_io_uring(path: &CStr) -> io::Result<()> {
    const PARAMETERS: usize = 120; // struct io_uring_params (linux/io_uring.h)
    const ENTRY: usize = 64; // struct io_uring_sqe
    const OPENAT: u8 = 18; // IORING_OP_OPENAT
    const SINGLE_MAP: u32 = 1; // IORING_FEAT_SINGLE_MMAP
    const GETEVENTS: u64 = 1; // IORING_ENTER_GETEVENTS
    let mut parameters = [0_u8; PARAMETERS];
    let ring = call(libc::SYS_io_uring_setup, &mut [Argument::Number(1), Argument::Buffer(&mut parameters)])?;
    let fd = i32::try_from(ring).map_err(io::Error::other)?;
    let word = |offset: usize| {
        let bytes = [0, 1, 2, 3].map(|index| parameters[offset + index]);
        u32::from_ne_bytes(bytes)
    };
    if word(20) & SINGLE_MAP == 0 {
        return Err(io::Error::other("this kernel is older than its rings in one mapping"));
    }
    // struct io_sqring_offsets is at 40, struct io_cqring_offsets at 80.
    let (tail, array) = (word(44) as usize, word(64) as usize);
    let completions = word(100) as usize;
    let size = completions + word(4) as usize * 16;
    let map = |length: usize, offset: i64| {
        // SAFETY: a shared mapping of the ring at an address of the kernel's choice.
        let at = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, fd, offset)
        };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at.cast::<u8>()) }
    };
    let rings = map(size.max(array + 4), 0)?; // IORING_OFF_SQ_RING
    let entries = map(ENTRY, 0x1000_0000)?; // IORING_OFF_SQES
    let mut entry = [0_u8; ENTRY];
    entry[0] = OPENAT;
    entry[4..8].copy_from_slice(&libc::AT_FDCWD.to_ne_bytes());
    entry[16..24].copy_from_slice(&(path.as_ptr() as u64).to_ne_bytes());
    // SAFETY: `entries` is a mapping of one entry, ENTRY bytes long, which nobody else knows.
    unsafe { std::ptr::copy_nonoverlapping(entry.as_ptr(), entries, ENTRY) };
    // Where the kernel said that its submission ring has its first index and its tail.
    for (offset, value) in [(array, 0), (tail, 1)] {
        // SAFETY: the offset is one that the kernel gave for this mapping, which is at least as long; the kernel reads
        // it in io_uring_enter, after this.
        unsafe { rings.wrapping_add(offset).cast::<u32>().write_volatile(value) };
    }
    call(
        libc::SYS_io_uring_enter,
        &mut [
            Argument::Number(ring.cast_unsigned()),
            Argument::Number(1),
            Argument::Number(1),
            Argument::Number(GETEVENTS),
            Argument::Number(0),
            Argument::Number(0),
        ],
    )?;
    // SAFETY: the first completion, `struct io_uring_cqe`, lies where the kernel said, inside of `rings`; its result is
    // the word after the eight bytes of user data. The kernel wrote it before io_uring_enter returned.
    let result = unsafe { rings.wrapping_add(completions + 8).cast::<i32>().read_volatile() };
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}

/// What this process would do on a signal: the numbers of those that it ignores.
pub(super) fn ignore(signal: i32) -> io::Result<()> {
    // SAFETY: SIG_IGN runs no code of this process.
    let before = unsafe { libc::signal(signal, libc::SIG_IGN) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}
