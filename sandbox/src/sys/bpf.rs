//! bpf(2), as far as programs on cgroups need it: load, attach, detach, ask.
//!
//! By hand and not by libbpf or aya: nine programs of a few instructions each need no ELF, no BTF and no maps, and what
//! they are made of is a value that a test can run. The parent alone calls these.
//!
//! Source: linux/bpf.h. Each structure below is the part of `union bpf_attr` that its command reads; the kernel takes
//! what is missing at its end for zero.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    ptr,
};

use nix::errno::Errno;

use super::{adopt, raw};

/// What a call answered.
type Answer<T> = Result<T, Errno>;

/// `struct bpf_insn`, its two registers in one byte: the lower half is the destination.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u8,
    pub(crate) registers: u8,
    pub(crate) offset: i16,
    pub(crate) immediate: i32,
}

const _: () = assert!(size_of::<Instruction>() == 8);

/// Where on a cgroup a program is attached (`enum bpf_attach_type`): BPF_CGROUP_*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hook {
    /// BPF_CGROUP_INET_INGRESS
    Ingress,
    /// BPF_CGROUP_INET_EGRESS
    Egress,
    /// BPF_CGROUP_DEVICE
    Device,
    /// BPF_CGROUP_INET4_BIND
    Bind4,
    /// BPF_CGROUP_INET6_BIND
    Bind6,
    /// BPF_CGROUP_INET4_CONNECT
    Connect4,
    /// BPF_CGROUP_INET6_CONNECT
    Connect6,
    /// BPF_CGROUP_UDP4_SENDMSG
    Send4,
    /// BPF_CGROUP_UDP6_SENDMSG
    Send6,
}

impl Hook {
    /// All of them.
    pub(crate) const ALL: [Self; 9] = [
        Self::Device,
        Self::Ingress,
        Self::Egress,
        Self::Bind4,
        Self::Bind6,
        Self::Connect4,
        Self::Connect6,
        Self::Send4,
        Self::Send6,
    ];

    /// `enum bpf_attach_type`
    const fn attach_type(self) -> u32 {
        match self {
            Self::Ingress => 0,
            Self::Egress => 1,
            Self::Device => 6,
            Self::Bind4 => 8,
            Self::Bind6 => 9,
            Self::Connect4 => 10,
            Self::Connect6 => 11,
            Self::Send4 => 14,
            Self::Send6 => 15,
        }
    }

    /// `enum bpf_prog_type`: BPF_PROG_TYPE_CGROUP_SKB, _CGROUP_DEVICE and _CGROUP_SOCK_ADDR.
    const fn program_type(self) -> u32 {
        match self {
            Self::Ingress | Self::Egress => 8,
            Self::Device => 15,
            Self::Bind4 | Self::Bind6 | Self::Connect4 | Self::Connect6 | Self::Send4 | Self::Send6 => 18,
        }
    }
}

/// How many bytes of a name the kernel keeps (BPF_OBJ_NAME_LEN), the NUL included.
const NAME: usize = 16;

/// One command.
///
/// # Safety
/// `attributes` must be a part of `union bpf_attr` that the command takes, and every address in it must be of memory
/// that is valid, for as long as the call lasts, for what the kernel reads or writes there.
unsafe fn bpf<T>(command: usize, attributes: &mut T) -> Answer<usize> {
    let pointer = ptr::from_mut(attributes) as usize;
    // SAFETY: the second argument points at `size_of::<T>()` bytes that are this function's alone until it returns; what
    // is in them is the caller's obligation.
    unsafe { raw::syscall(libc::SYS_bpf, [command, pointer, size_of::<T>(), 0, 0, 0]) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn descriptor(answer: usize) -> Answer<OwnedFd> {
    RawFd::try_from(answer).map(adopt).map_err(|_| Errno::EOVERFLOW)
}

/// BPF_PROG_LOAD: the verifier accepts the program, or this is its errno.
pub(crate) fn load(hook: Hook, name: &CStr, program: &[Instruction]) -> Answer<OwnedFd> {
    #[repr(C)]
    struct Load {
        program_type: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buffer: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; NAME],
        interface: u32,
        expected_attach_type: u32,
    }
    const _: () = assert!(size_of::<Load>() == 72);
    const PROG_LOAD: usize = 5;
    let mut kept = [0; NAME];
    for (to, from) in kept.iter_mut().zip(name.to_bytes().iter().take(NAME - 1)) {
        *to = *from;
    }
    let mut attributes = Load {
        program_type: hook.program_type(),
        count: u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        instructions: program.as_ptr() as u64,
        // No helper that is called asks for more.
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
        name: kept,
        interface: 0,
        // Device programs have none: a kernel that checks refuses another than 0.
        expected_attach_type: if hook == Hook::Device { 0 } else { hook.attach_type() },
    };
    // SAFETY: the fields are those of BPF_PROG_LOAD; the instructions are a slice whose length is told, the license a
    // constant that ends with a NUL; both are only read, and without a log nothing is written.
    let answer = unsafe { bpf(PROG_LOAD, &mut attributes) }?;
    descriptor(answer)
}

/// The part of `union bpf_attr` of BPF_PROG_ATTACH and BPF_PROG_DETACH.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// BPF_PROG_ATTACH, BPF_F_ALLOW_MULTI: besides those that are there, and for as long as the cgroup lasts. A link would
/// fall off with the last descriptor of it.
pub(crate) fn attach(cgroup: BorrowedFd<'_>, hook: Hook, program: BorrowedFd<'_>) -> Answer<()> {
    const PROG_ATTACH: usize = 8;
    const ALLOW_MULTI: u32 = 1 << 1;
    let (target, program) = (number(cgroup), number(program));
    let mut attributes = Attach { target, program, attach_type: hook.attach_type(), flags: ALLOW_MULTI };
    // SAFETY: the fields are those of BPF_PROG_ATTACH, and none is an address.
    unsafe { bpf(PROG_ATTACH, &mut attributes) }.map(drop)
}

/// BPF_PROG_DETACH
pub(crate) fn detach(cgroup: BorrowedFd<'_>, hook: Hook, program: BorrowedFd<'_>) -> Answer<()> {
    const PROG_DETACH: usize = 9;
    let (target, program) = (number(cgroup), number(program));
    let mut attributes = Attach { target, program, attach_type: hook.attach_type(), flags: 0 };
    // SAFETY: the fields are those of BPF_PROG_DETACH, and none is an address.
    unsafe { bpf(PROG_DETACH, &mut attributes) }.map(drop)
}

/// BPF_PROG_QUERY: the ids of the programs that are attached to this cgroup itself.
pub(crate) fn attached(cgroup: BorrowedFd<'_>, hook: Hook) -> Answer<Vec<u32>> {
    #[repr(C)]
    struct Query {
        target: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        // To a multiple of 8, as the compiler would fill it up.
        unused: u32,
    }
    const _: () = assert!(size_of::<Query>() == 32);
    const PROG_QUERY: usize = 16;
    // BPF_CGROUP_MAX_PROGS: no cgroup has more of a kind.
    let mut ids = [0_u32; 64];
    let mut attributes = Query {
        target: number(cgroup),
        attach_type: hook.attach_type(),
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: 64,
        unused: 0,
    };
    // SAFETY: the fields are those of BPF_PROG_QUERY; the kernel writes at most `count` ids, which is how many the array
    // holds that it lies in until the end of this function.
    unsafe { bpf(PROG_QUERY, &mut attributes) }?;
    let count = usize::try_from(attributes.count).map_err(|_| Errno::EOVERFLOW)?;
    Ok(ids.get(..count).ok_or(Errno::EOVERFLOW)?.to_vec())
}

/// BPF_PROG_GET_FD_BY_ID
pub(crate) fn by_id(id: u32) -> Answer<OwnedFd> {
    #[repr(C)]
    struct ById {
        id: u32,
        next: u32,
        flags: u32,
    }
    const GET_FD_BY_ID: usize = 13;
    let mut attributes = ById { id, next: 0, flags: 0 };
    // SAFETY: the fields are those of BPF_PROG_GET_FD_BY_ID, and none is an address.
    let answer = unsafe { bpf(GET_FD_BY_ID, &mut attributes) }?;
    descriptor(answer)
}

/// What the kernel says of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Info {
    /// Not given again while the program exists.
    pub(crate) id: u32,
    /// A digest of its instructions.
    pub(crate) tag: [u8; 8],
    name: [u8; NAME],
}

impl Info {
    /// The name that it was loaded under.
    pub(crate) fn name(&self) -> &[u8] {
        self.name.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

/// BPF_OBJ_GET_INFO_BY_FD of a program.
pub(crate) fn info(program: BorrowedFd<'_>) -> Answer<Info> {
    /// `struct bpf_prog_info`, up to its name.
    #[repr(C)]
    struct ProgramInfo {
        kind: u32,
        id: u32,
        tag: [u8; 8],
        lengths: [u32; 2],
        instructions: [u64; 2],
        load_time: u64,
        uid: u32,
        map_count: u32,
        maps: u64,
        name: [u8; NAME],
    }
    #[repr(C)]
    struct ByFd {
        fd: u32,
        length: u32,
        info: u64,
    }
    const _: () = assert!(size_of::<ProgramInfo>() == 80);
    const _: () = assert!(size_of::<ByFd>() == 16);
    const GET_INFO_BY_FD: usize = 15;
    let mut found = ProgramInfo {
        kind: 0,
        id: 0,
        tag: [0; 8],
        lengths: [0; 2],
        instructions: [0; 2],
        load_time: 0,
        uid: 0,
        map_count: 0,
        maps: 0,
        name: [0; NAME],
    };
    let length = u32::try_from(size_of::<ProgramInfo>()).map_err(|_| Errno::EOVERFLOW)?;
    let mut attributes = ByFd { fd: number(program), length, info: ptr::from_mut(&mut found) as u64 };
    // SAFETY: the fields are those of BPF_OBJ_GET_INFO_BY_FD; the kernel writes at most `length` bytes at `info`, which is
    // the size of `found`, and through the addresses in it nothing, since the lengths and counts there are zero.
    unsafe { bpf(GET_INFO_BY_FD, &mut attributes) }?;
    Ok(Info { id: found.id, tag: found.tag, name: found.name })
}

/// Whether programs can be attached to a cgroup; `None` where this process may not ask.
pub(crate) fn is_supported(cgroup: &std::path::Path) -> Option<bool> {
    let folder = std::fs::File::open(cgroup).ok()?;
    match attached(std::os::fd::AsFd::as_fd(&folder), Hook::Device) {
        Ok(_) => Some(true),
        Err(Errno::EINVAL | Errno::ENOSYS) => Some(false),
        Err(_) => None,
    }
}
