//! The program of a process that waits right before execve, and the memory in which it is told what to execute.
//!
//! A process that waits must not borrow its launcher's memory, which may end while it does. So it executes something: a
//! program of some hundred instructions, written here as the file that the kernel executes, kept in a sealed memfd. It
//! has no stack frame, no data of its own and no library. All that it knows is in an [`Order`], shared memory that its
//! launcher fills.
//!
//! ```text
//!  at once                                   when it is told to
//!  dumpable off, the order mapped            descriptors received, in the order of their numbers
//!  the gate out of the way, all others       fillers closed
//!  closed                                    the filter, where it would not have let it wait
//!  Landlock, an empty signal mask            execve
//!  the filter, where it lets it wait
//!  waits in recvmsg(2)
//! ```
//!
//! Invariant: it executes what it is told and nothing else. If its launcher ends first, the gate says so and it ends.

use std::{
    arch::global_asm,
    ffi::CString,
    fs::File,
    io,
    mem::offset_of,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd, RawFd},
        unix::fs::FileExt,
    },
    sync::OnceLock,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        stat::{Mode, fchmod},
    },
};
use seccompiler::sock_filter;

/// Where the order is in the process: far from where the kernel puts programs, stacks and mappings.
const BASE: usize = 0x10_0000_0000;
/// A filter of the longest, and what is left for arguments and environment.
pub(crate) const SIZE: usize = 256 << 10;
/// BPF_MAXINSNS (linux/bpf_common.h).
const FILTER_MAX: usize = 4096;
/// What the kernel may write into it: SCM_MAX_FD descriptors (unix(7)), CMSG_SPACE of them.
const CONTROL_BYTES: usize = 1040;
/// The descriptors that the program is executed with.
pub(crate) const GATE: RawFd = 3;
/// See above.
pub(crate) const ORDER: RawFd = 4;
/// See above.
pub(crate) const RULESET: RawFd = 5;
/// Its exit status where it was never told anything.
pub const EXIT_FORGOTTEN: i32 = 124;
/// Its exit status where what it was told to execute could not be executed, or a step before that failed.
const EXIT_NOT_CONFINED: i32 = 125;

/// Landlock is to be applied.
const LANDLOCK: u32 = 1;
/// There is a filter, and it lets the process wait: it is applied before that.
const FILTER_FIRST: u32 = 2;
/// There is a filter, applied when waiting is over.
const FILTER_LAST: u32 = 4;

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// On its way.
    Begun,
    /// It waits.
    Waits,
    /// It was told, and is on its way to execve.
    Told,
    /// This step failed.
    Failed(Failed, Errno),
}

/// What can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    Gate,
    Landlock,
    Seccomp,
    Descriptors,
    Exec,
}

/// Its numbers in [`Head::step`], which stand in the program below.
const STEPS: [(u32, Failed); 5] = [
    (1, Failed::Gate),
    (2, Failed::Landlock),
    (3, Failed::Seccomp),
    (4, Failed::Descriptors),
    (5, Failed::Exec),
];

/// The beginning of the order: what the program reads and writes by these offsets.
#[repr(C)]
#[derive(Clone, Copy)]
struct Head {
    /// 0 begun, 1 waits, 2 told, 3 failed.
    stage: u32,
    step: u32,
    errno: i32,
    options: u32,
    /// The lowest number that the gate may have: above all that it is handed later.
    gate_at: u32,
    log: u32,
    close_first: u32,
    close_last: u32,
    path: u64,
    argv: u64,
    envp: u64,
    /// `cmsg_len` of the message that it waits for.
    expected: u64,
    /// `struct sock_fprog`
    filter_len: u64,
    filter: u64,
    /// `struct msghdr`
    name: u64,
    name_len: u64,
    iov: u64,
    iov_len: u64,
    control: u64,
    control_len: u64,
    flags: u64,
    /// `struct iovec`
    byte_at: u64,
    byte_len: u64,
    byte: u64,
    /// An empty signal set.
    no_signals: u64,
    /// For prctl(PR_SET_NAME).
    comm: [u8; 16],
}
const _: () = assert!(size_of::<Head>() == 32 + 4 * 8 + 2 * 8 + 7 * 8 + 3 * 8 + 8 + 16);

/// What is told with the release, in one piece.
const TOLD_AT: usize = offset_of!(Head, close_first);
const TOLD_SIZE: usize = offset_of!(Head, filter_len) - TOLD_AT;

const AT_CONTROL: usize = 512;
const AT_FILTER: usize = 2048;
const AT_STRINGS: usize = AT_FILTER + FILTER_MAX * size_of::<sock_filter>();
const _: () = assert!(size_of::<Head>() <= AT_CONTROL && AT_CONTROL + CONTROL_BYTES <= AT_FILTER);

global_asm!(
    ".pushsection .rodata.parked, \"a\", @progbits",
    ".balign 16",
    ".globl sandbox_parked_image",
    ".hidden sandbox_parked_image",
    "sandbox_parked_image:",
    // Elf64_Ehdr (elf(5)): ELFCLASS64, ELFDATA2LSB, ET_EXEC, EM_X86_64, two program headers right after it.
    ".byte 0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0",
    ".quad 0",
    ".short 2, 62",
    ".long 1",
    ".quad 0x400000 + 20f - sandbox_parked_image",
    ".quad 64, 0",
    ".long 0",
    ".short 64, 56, 2, 0, 0, 0",
    // PT_LOAD, readable and executable: all of the file.
    ".long 1, 5",
    ".quad 0, 0x400000, 0x400000",
    ".quad sandbox_parked_end - sandbox_parked_image, sandbox_parked_end - sandbox_parked_image, 0x1000",
    // PT_GNU_STACK: a stack that is not executable.
    ".long 0x6474e551, 6",
    ".quad 0, 0, 0, 0, 0, 16",
    "20:",
    // prctl(PR_SET_DUMPABLE, 0): nobody of its user attaches to it or reads it.
    "mov eax, 157",
    "mov edi, 4",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "syscall",
    // mmap(BASE, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, ORDER, 0)
    "mov eax, 9",
    "movabs rdi, {base}",
    "mov esi, {size}",
    "mov edx, 3",
    "mov r10d, 0x100001",
    "mov r8d, {order_fd}",
    "xor r9d, r9d",
    "syscall",
    "movabs r15, {base}",
    "cmp rax, r15",
    "jne 90f",
    // prctl(PR_SET_NAME)
    "mov eax, 157",
    "mov edi, 15",
    "lea rsi, [r15 + {comm}]",
    "syscall",
    // fcntl(GATE, F_DUPFD_CLOEXEC, gate_at)
    "mov r13d, 1",
    "mov eax, 72",
    "mov edi, {gate_fd}",
    "mov esi, 1030",
    "mov edx, [r15 + {gate_at}]",
    "syscall",
    "test eax, eax",
    "js 80f",
    "mov r14d, eax",
    // landlock_restrict_self(RULESET, 0)
    "mov r13d, 2",
    "test dword ptr [r15 + {asked}], {landlock}",
    "jz 30f",
    "mov eax, 446",
    "mov edi, {ruleset_fd}",
    "xor esi, esi",
    "syscall",
    "test rax, rax",
    "jnz 80f",
    "30:",
    // close_range(0, gate - 1, 0): what it is handed later takes the lowest numbers.
    "mov r13d, 4",
    "mov eax, 436",
    "xor edi, edi",
    "lea esi, [r14 - 1]",
    "xor edx, edx",
    "syscall",
    "test rax, rax",
    "jnz 80f",
    // rt_sigprocmask(SIG_SETMASK, no signals, NULL, 8)
    "mov eax, 14",
    "mov edi, 2",
    "lea rsi, [r15 + {no_signals}]",
    "xor edx, edx",
    "mov r10d, 8",
    "syscall",
    // seccomp(SECCOMP_SET_MODE_FILTER, log, filter)
    "mov r13d, 3",
    "test dword ptr [r15 + {asked}], {filter_first}",
    "jz 40f",
    "mov eax, 317",
    "mov edi, 1",
    "mov esi, [r15 + {log}]",
    "lea rdx, [r15 + {filter}]",
    "syscall",
    "test rax, rax",
    "jnz 80f",
    "40:",
    "mov dword ptr [r15 + {stage}], 1",
    // recvmsg(gate, msghdr, 0)
    "41:",
    "mov eax, 47",
    "mov edi, r14d",
    "lea rsi, [r15 + {message}]",
    "xor edx, edx",
    "syscall",
    "cmp rax, -4",
    "je 41b",
    "test rax, rax",
    "jle 91f",
    "mov dword ptr [r15 + {stage}], 2",
    // Every descriptor came.
    "mov r13d, 4",
    "mov rcx, [r15 + {control}]", // cmsg_len
    "mov eax, -71", // EPROTO
    "cmp rcx, [r15 + {expected}]",
    "jne 80f",
    // close_range(close_first, close_last, 0), where there are fillers.
    "mov edi, [r15 + {close_first}]",
    "mov esi, [r15 + {close_last}]",
    "cmp edi, esi",
    "ja 50f",
    "mov eax, 436",
    "xor edx, edx",
    "syscall",
    "test rax, rax",
    "jnz 80f",
    "50:",
    "mov r13d, 3",
    "test dword ptr [r15 + {asked}], {filter_last}",
    "jz 60f",
    "mov eax, 317",
    "mov edi, 1",
    "mov esi, [r15 + {log}]",
    "lea rdx, [r15 + {filter}]",
    "syscall",
    "test rax, rax",
    "jnz 80f",
    "60:",
    // execve(path, argv, envp)
    "mov r13d, 5",
    "mov eax, 59",
    "mov rdi, [r15 + {path}]",
    "mov rsi, [r15 + {argv}]",
    "mov rdx, [r15 + {envp}]",
    "syscall",
    // It came back, or a step before it failed: rax says how, r13 which.
    "80:",
    "neg eax",
    "mov [r15 + {errno}], eax",
    "mov [r15 + {step}], r13d",
    "mov dword ptr [r15 + {stage}], 3",
    "90:",
    "mov edi, {not_confined}",
    "jmp 92f",
    "91:",
    "mov edi, {forgotten}",
    "92:",
    "mov eax, 231", // exit_group
    "syscall",
    "ud2",
    ".globl sandbox_parked_end",
    ".hidden sandbox_parked_end",
    "sandbox_parked_end:",
    ".popsection",
    base = const BASE,
    size = const SIZE,
    order_fd = const ORDER,
    gate_fd = const GATE,
    ruleset_fd = const RULESET,
    comm = const offset_of!(Head, comm),
    gate_at = const offset_of!(Head, gate_at),
    asked = const offset_of!(Head, options),
    landlock = const LANDLOCK,
    filter_first = const FILTER_FIRST,
    filter_last = const FILTER_LAST,
    no_signals = const offset_of!(Head, no_signals),
    log = const offset_of!(Head, log),
    filter = const offset_of!(Head, filter_len),
    stage = const offset_of!(Head, stage),
    message = const offset_of!(Head, name),
    control = const AT_CONTROL,
    expected = const offset_of!(Head, expected),
    close_first = const offset_of!(Head, close_first),
    close_last = const offset_of!(Head, close_last),
    path = const offset_of!(Head, path),
    argv = const offset_of!(Head, argv),
    envp = const offset_of!(Head, envp),
    errno = const offset_of!(Head, errno),
    step = const offset_of!(Head, step),
    not_confined = const EXIT_NOT_CONFINED,
    forgotten = const EXIT_FORGOTTEN,
);

unsafe extern "C" {
    /// Where the file begins, and where it ends.
    static sandbox_parked_image: u8;
    static sandbox_parked_end: u8;
}

/// The file, as it is executed.
fn file() -> &'static [u8] {
    let (begin, end) = (&raw const sandbox_parked_image, &raw const sandbox_parked_end);
    // SAFETY: both symbols are defined by the assembly above, in this order in one read-only section, so what lies between
    // them is initialized, constant and part of this program for as long as it runs.
    unsafe { std::slice::from_raw_parts(begin, end.addr() - begin.addr()) }
}

/// The file in memory, for execveat(2): it cannot be changed, and nobody but root can read it, so whoever executes it is
/// not dumpable from its first instruction on.
pub(crate) fn image() -> Result<BorrowedFd<'static>, Errno> {
    static IMAGE: OnceLock<Result<OwnedFd, Errno>> = OnceLock::new();
    let make = || {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        // Linux 6.3 wants to be told that it is to be executed; before, it always could be.
        let made = memfd_create(c"motherd-standby", flags | MFdFlags::from_bits_retain(MFD_EXEC));
        let image = match made {
            Err(Errno::EINVAL) => memfd_create(c"motherd-standby", flags),
            made => made,
        }?;
        let image = crate::descriptors::far_up(image);
        write_all(&File::from(image.try_clone().map_err(errno_of)?), file(), 0)?;
        fchmod(&image, Mode::from_bits_truncate(0o111))?;
        let seals =
            SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
        fcntl(&image, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(image)
    };
    IMAGE.get_or_init(make).as_ref().map(AsFd::as_fd).map_err(|errno| *errno)
}

/// MFD_EXEC (linux/memfd.h).
const MFD_EXEC: u32 = 0x10;

/// What the process is to do before it waits.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) landlock: bool,
    /// The filter, whether it is to be logged, and whether it lets the process wait.
    pub(crate) filter: Option<(&'a [sock_filter], bool, bool)>,
    /// The lowest number that the gate may have.
    pub(crate) gate_at: RawFd,
}

/// What the process is to execute.
#[derive(Debug)]
pub(crate) struct Orders<'a> {
    pub(crate) argv: &'a [CString],
    pub(crate) envp: &'a [CString],
    /// How many descriptors it is sent.
    pub(crate) descriptors: usize,
    /// Those of them that are only there so that others get their numbers.
    pub(crate) fillers: Option<(RawFd, RawFd)>,
}

/// The memory that the process reads. Its launcher writes it through the descriptor, and maps nothing.
#[derive(Debug)]
pub(crate) struct Order {
    memory: File,
}

impl Order {
    /// A new one, for a process that is not there yet.
    ///
    /// # Errors
    /// memfd_create(2), pwrite(2); E2BIG for a filter that is longer than the kernel takes.
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, Errno> {
        let memory = memfd_create(c"motherd-order", MFdFlags::MFD_CLOEXEC)?;
        let memory = File::from(crate::descriptors::far_up(memory));
        memory.set_len(SIZE as u64).map_err(errno_of)?;
        let order = Self { memory };
        let at = |offset: usize| (BASE + offset) as u64;
        let (mut options, mut log, mut length) = (0, 0, 0);
        if setup.landlock {
            options |= LANDLOCK;
        }
        if let Some((program, logged, lets_wait)) = setup.filter {
            if program.len() > FILTER_MAX {
                return Err(Errno::E2BIG);
            }
            options |= if lets_wait { FILTER_FIRST } else { FILTER_LAST };
            log = if logged { SECCOMP_FILTER_FLAG_LOG } else { 0 };
            length = program.len() as u64;
            let bytes: Vec<u8> = program.iter().flat_map(instruction).collect();
            write_all(&order.memory, &bytes, AT_FILTER)?;
        }
        let gate_at = u32::try_from(setup.gate_at).map_err(|_| Errno::EINVAL)?;
        order.put(offset_of!(Head, options), &options.to_le_bytes())?;
        order.put(offset_of!(Head, gate_at), &gate_at.to_le_bytes())?;
        order.put(offset_of!(Head, log), &log.to_le_bytes())?;
        order.put(offset_of!(Head, close_first), &1_u32.to_le_bytes())?;
        for (offset, word) in [
            (offset_of!(Head, filter_len), length),
            (offset_of!(Head, filter), at(AT_FILTER)),
            (offset_of!(Head, iov), at(offset_of!(Head, byte_at))),
            (offset_of!(Head, iov_len), 1),
            (offset_of!(Head, control), at(AT_CONTROL)),
            (offset_of!(Head, control_len), CONTROL_BYTES as u64),
            (offset_of!(Head, byte_at), at(offset_of!(Head, byte))),
            (offset_of!(Head, byte_len), 1),
        ] {
            order.put(offset, &word.to_le_bytes())?;
        }
        order.put(offset_of!(Head, comm), b"(standby)\0")?;
        Ok(order)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// Writes what is to be executed. It takes effect when the gate is opened.
    ///
    /// # Errors
    /// E2BIG where there is no room for it.
    pub(crate) fn tell(&self, orders: &Orders<'_>) -> Result<(), Errno> {
        let mut strings = Vec::new();
        let mut addresses = |list: &[CString]| -> Vec<u64> {
            let mut addresses = Vec::new();
            for text in list {
                addresses.push((BASE + AT_STRINGS + strings.len()) as u64);
                strings.extend_from_slice(text.as_bytes_with_nul());
            }
            addresses.push(0);
            addresses
        };
        let (argv, envp) = (addresses(orders.argv), addresses(orders.envp));
        strings.resize(strings.len().next_multiple_of(8), 0);
        let path = argv[0];
        let at_argv = AT_STRINGS + strings.len();
        let at_envp = at_argv + argv.len() * 8;
        strings.extend(argv.iter().chain(&envp).flat_map(|address| address.to_le_bytes()));
        if AT_STRINGS + strings.len() > SIZE || path == 0 {
            return Err(Errno::E2BIG);
        }
        write_all(&self.memory, &strings, AT_STRINGS)?;
        let (first, last) = orders.fillers.unwrap_or((1, 0));
        // CMSG_LEN of so many.
        let expected = size_of::<libc::cmsghdr>() + orders.descriptors * size_of::<RawFd>();
        let mut told = [0; TOLD_SIZE];
        let fields: [(usize, &[u8]); 6] = [
            (offset_of!(Head, close_first), &first.to_le_bytes()),
            (offset_of!(Head, close_last), &last.to_le_bytes()),
            (offset_of!(Head, path), &path.to_le_bytes()),
            (offset_of!(Head, argv), &((BASE + at_argv) as u64).to_le_bytes()),
            (offset_of!(Head, envp), &((BASE + at_envp) as u64).to_le_bytes()),
            (offset_of!(Head, expected), &(expected as u64).to_le_bytes()),
        ];
        for (offset, field) in fields {
            told[offset - TOLD_AT..][..field.len()].copy_from_slice(field);
        }
        self.put(TOLD_AT, &told)
    }

    /// How far the process has come.
    pub(crate) fn stage(&self) -> Stage {
        match self.word(offset_of!(Head, stage)) {
            0 => Stage::Begun,
            1 => Stage::Waits,
            2 => Stage::Told,
            _ => {
                let step = self.word(offset_of!(Head, step));
                let failed = STEPS.iter().find(|(number, _)| *number == step);
                let errno = Errno::from_raw(self.word(offset_of!(Head, errno)).cast_signed());
                Stage::Failed(failed.map_or(Failed::Gate, |(_, failed)| *failed), errno)
            }
        }
    }

    fn word(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        // Memory of our own: a read of it has no reason to fail, and one that does tells of nothing that happened.
        match self.memory.read_exact_at(&mut bytes, offset as u64) {
            Ok(()) => u32::from_le_bytes(bytes),
            Err(_) => 0,
        }
    }

    fn put(&self, offset: usize, bytes: &[u8]) -> Result<(), Errno> {
        write_all(&self.memory, bytes, offset)
    }
}

/// SECCOMP_FILTER_FLAG_LOG (linux/seccomp.h).
const SECCOMP_FILTER_FLAG_LOG: u32 = 2;

/// `struct sock_filter`, as the kernel reads it.
fn instruction(one: &sock_filter) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..2].copy_from_slice(&one.code.to_le_bytes());
    (bytes[2], bytes[3]) = (one.jt, one.jf);
    bytes[4..].copy_from_slice(&one.k.to_le_bytes());
    bytes
}

fn write_all(file: &File, bytes: &[u8], offset: usize) -> Result<(), Errno> {
    file.write_all_at(bytes, offset as u64).map_err(errno_of)
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn errno_of(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_image_is_a_program_that_the_kernel_takes_and_ends_when_there_is_no_order() {
        assert_eq!(&file()[..4], b"\x7fELF");
        assert!(file().len() < 4096, "{} bytes", file().len());
        let path = format!("/proc/self/fd/{}", image().unwrap().as_raw_fd());
        let status = std::process::Command::new(path).status().unwrap();
        assert_eq!(status.code(), Some(EXIT_NOT_CONFINED), "descriptor 4 is no order");
    }

    #[test]
    fn what_there_is_no_room_for_is_refused() {
        let order = Order::new(&Setup { landlock: false, filter: None, gate_at: 64 }).unwrap();
        let orders =
            |argv: &[CString]| order.tell(&Orders { argv, envp: &[], descriptors: 3, fillers: None });
        assert_eq!(orders(&[c"/bin/true".to_owned()]), Ok(()));
        assert_eq!(orders(&[CString::new(vec![b'x'; SIZE]).unwrap()]), Err(Errno::E2BIG));
        assert_eq!(orders(&[]), Err(Errno::E2BIG));
        let long = vec![sock_filter { code: 6, jt: 0, jf: 0, k: 0 }; FILTER_MAX + 1];
        let setup = Setup { landlock: false, filter: Some((&long, false, true)), gate_at: 64 };
        assert_eq!(Order::new(&setup).err(), Some(Errno::E2BIG));
    }
}
