//! `[seccomp]`, and what other keys ask of it (`memory_deny_write_execute`, `lock_personality`, the `restrict_` keys): one
//! BPF program.
//!
//! The program is a balanced tree over ranges of call numbers with one verdict each, not a chain of comparisons: the
//! kernel emulates a filter once per call number when it is installed, so a chain of 308 calls costs 0.65 ms a launch and
//! a tree of ranges 0.04 ms. Arguments are compared as 32 bits, because the kernel takes them as ints: a rule that
//! compared 64 would be passed by setting a high bit (CVE-2019-10063).
//!
//! seccompiler gives the instruction type, and in the tests the oracle.

mod code;
mod foreign;

use std::collections::{BTreeMap, BTreeSet};

use seccompiler::sock_filter;

use crate::{
    compile::Builder,
    diagnostic::Diagnostic,
    plan::{Op, Phase},
    policy::{Architecture, Confinement, Denial, NamespaceKind, SOCKET_FLAGS, SocketRule},
    syscalls,
};

// linux/bpf_common.h, linux/filter.h
const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_GREATER_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const JUMP_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K, which seccompiler emits
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

// struct seccomp_data (linux/seccomp.h)
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

/// AUDIT_ARCH_X86_64 (linux/audit.h).
pub(crate) const X86_64: u32 = 0xc000_003e;
/// AUDIT_ARCH_I386.
pub(crate) const I386: u32 = 0x4000_0003;
/// __X32_SYSCALL_BIT: calls of the x32 ABI, which carry the same architecture.
const X32_BIT: u32 = 0x4000_0000;

pub(crate) const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
pub(crate) const LOG: u32 = 0x7ffc_0000;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const ENOSYS: u32 = ERRNO | libc::ENOSYS as u32;

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// SECCOMP_RET_*
    Return(u32),
    /// It depends on arguments: every condition must hold, or the call gets `denied`.
    When { conditions: Vec<Condition>, denied: u32 },
    /// It is many calls, of which the masked bits of an argument are one: SECCOMP_RET_* by value.
    ByValue { argument: u8, mask: u32, cases: Vec<(u32, u32)>, otherwise: u32 },
}

/// A condition on the low 32 bits of one argument.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    /// One of these.
    IsOneOf { argument: u8, values: Vec<u32> },
    /// Not all of these bits.
    LacksSome { argument: u8, bits: u32 },
    /// None of these bits.
    HasNone { argument: u8, bits: u32 },
    /// All of these bits.
    HasAll { argument: u8, bits: u32 },
    /// At least one of these bits.
    HasSome { argument: u8, bits: u32 },
    /// None of these bits, if another argument has one of those.
    HasNoneIf { argument: u8, bits: u32, other: u8, has: u32 },
    /// Every comparison of one of the rows holds.
    AnyRow(Vec<Vec<Equal>>),
}

/// The bits of an argument that are in the mask are these.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Equal {
    argument: u8,
    mask: u32,
    value: u32,
}

/// A call that another key closes, or opens for some arguments only.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Closed {
    call: u32,
    /// `None`: for all arguments, since what counts lies in memory, where a filter cannot see it. ENOSYS then, on which
    /// libraries fall back on a call that can be looked into.
    condition: Option<Condition>,
    /// The key.
    by: &'static str,
}

/// CSIGNAL (linux/sched.h): the low byte of clone(2)'s flags is a signal, so its CLONE_NEWTIME does not exist.
const CSIGNAL: u32 = 0xff;

/// The step of the section.
pub(crate) fn compile(rules: &Confinement, builder: &mut Builder<'_>) {
    let wanted = &rules.seccomp;
    let execve = u32::try_from(libc::SYS_execve).unwrap_or(0);
    if !wanted.allowed.contains(&execve) {
        builder.error(
            Diagnostic::error("execve-needed", wanted.default.at.clone(), "execve is not allowed")
                .label("the filter is in force when the service itself is executed")
                .help("allow = [..., \"execve\"]"),
        );
        return;
    }
    let closed = closed(rules);
    check_actions(rules, &closed, builder);
    let program = program(rules, &closed);
    refuse_too_long(rules, &program, builder);
    let object = format!("{} calls, {} instructions", wanted.allowed.len(), program.len());
    let op = Op::Seccomp { program: program.into(), log: wanted.log };
    builder.step(Phase::Seccomp, op, object, Some(wanted.default.at.clone()));
}

/// An action that could never be taken, or that would open what another key closes, is a misunderstanding.
fn check_actions(rules: &Confinement, closed: &[Closed], builder: &mut Builder<'_>) {
    let wanted = &rules.seccomp;
    let conditional = |call: &u32| {
        closed.iter().any(|closed| closed.call == *call)
            || wanted.rules.iter().any(|rule| rule.value.call.value == *call)
            || wanted.sockets.is_some() && SOCKET_CALLS.contains(&i64::from(*call))
    };
    let denied = |call: &u32| !wanted.allowed.contains(call) || conditional(call) || is_io_uring(*call);
    for action in &wanted.actions {
        let name = &action.value.name;
        if !action.value.calls.iter().any(denied) {
            let message =
                format!("the action of `{name}` has no effect: it is allowed whatever its arguments are");
            let help = "put it into `deny`, or take the action away";
            builder.error(Diagnostic::error("no-effect", action.at.clone(), message).help(help));
        }
        let opened = closed.iter().find(|closed| action.value.calls.contains(&closed.call));
        if let Some(opened) = opened.filter(|_| action.value.denial == Denial::Log) {
            let call = syscalls::name(opened.call).unwrap_or_default();
            let message = format!("\"log\" would let through what {} closes: `{call}`", opened.by);
            let help = "write another action, or name the calls one by one";
            builder.error(Diagnostic::error("action-opens", action.at.clone(), message).help(help));
        }
    }
    if wanted.io_uring.value {
        let bypassed = [
            ("process.restrict_suid = true", rules.process.restrict_suid.value),
            ("seccomp.socket", wanted.sockets.is_some()),
            ("a rule on `socket`", {
                let on_socket = |call: u32| i64::from(call) == libc::SYS_socket;
                wanted.rules.iter().any(|rule| on_socket(rule.value.call.value))
            }),
        ];
        for (what, _) in bypassed.into_iter().filter(|(_, asked)| *asked) {
            let message =
                format!("{what} cannot be enforced: io_uring opens files and sockets unseen by the filter");
            let help = "take it away, knowing that Landlock and the network namespace still hold; or io_uring = false";
            builder
                .error(Diagnostic::error("io-uring-unseen", wanted.io_uring.at.clone(), message).help(help));
        }
    }
}

fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

fn is_io_uring(call: u32) -> bool {
    syscalls::name(call).is_some_and(|name| name.starts_with("io_uring_"))
}

/// What other keys ask of calls.
fn closed(rules: &Confinement) -> Vec<Closed> {
    let process = &rules.process;
    let mut closed = Vec::new();
    let mut close = |by, entries: Vec<(libc::c_long, Option<Condition>)>| {
        let entry = |(call, condition)| Closed { call: number(call), condition, by };
        closed.extend(entries.into_iter().map(entry));
    };
    close("process.restrict_namespaces", namespaces(&process.may_make_namespaces.value));
    if process.memory_deny_write_execute.value {
        close("process.memory_deny_write_execute", write_xor_execute());
    }
    if process.lock_personality.value {
        let (linux, query) = (0, u32::MAX);
        let condition = Condition::IsOneOf { argument: 0, values: vec![linux, query] };
        close("process.lock_personality", vec![(libc::SYS_personality, Some(condition))]);
    }
    if process.restrict_realtime.value {
        // SCHED_RESET_ON_FORK goes with every policy.
        let mask = !libc::SCHED_RESET_ON_FORK.cast_unsigned();
        let rows = [libc::SCHED_OTHER, libc::SCHED_BATCH, libc::SCHED_IDLE]
            .map(|policy| vec![Equal { argument: 1, mask, value: policy.cast_unsigned() }]);
        close(
            "process.restrict_realtime",
            vec![
                (libc::SYS_sched_setscheduler, Some(Condition::AnyRow(rows.to_vec()))),
                (libc::SYS_sched_setattr, None),
            ],
        );
    }
    if process.restrict_suid.value {
        close("process.restrict_suid", suid());
    }
    closed
}

/// clone(2), unshare(2) and setns(2) by their flags; clone3(2) has them in memory.
fn namespaces(may_make: &BTreeSet<NamespaceKind>) -> Vec<(libc::c_long, Option<Condition>)> {
    let flags =
        |kinds: &mut dyn Iterator<Item = NamespaceKind>| kinds.fold(0, |bits, kind| bits | kind.flag());
    let barred = flags(&mut NamespaceKind::all().filter(|kind| !may_make.contains(kind)));
    let granted = flags(&mut may_make.iter().copied());
    if barred == 0 {
        return Vec::new();
    }
    let none = |argument, bits| Some(Condition::HasNone { argument, bits });
    vec![
        (libc::SYS_clone, none(0, barred & !CSIGNAL)),
        (libc::SYS_clone3, None),
        (libc::SYS_unshare, none(0, barred)),
        (libc::SYS_setns, none(1, barred)),
        // 0 is any kind of namespace, whichever the descriptor is of.
        (libc::SYS_setns, Some(Condition::HasSome { argument: 1, bits: granted })),
    ]
}

/// W^X. By rules and not by PR_SET_MDWE, which would stay with the memory map that the child shares with its parent.
fn write_xor_execute() -> Vec<(libc::c_long, Option<Condition>)> {
    let lacks = |argument, bits: i32| Some(Condition::LacksSome { argument, bits: bits.cast_unsigned() });
    let noexec_seal = 8; // MFD_NOEXEC_SEAL (linux/memfd.h)
    vec![
        (libc::SYS_mmap, lacks(2, libc::PROT_WRITE | libc::PROT_EXEC)),
        (libc::SYS_mprotect, lacks(2, libc::PROT_EXEC)),
        (libc::SYS_pkey_mprotect, lacks(2, libc::PROT_EXEC)),
        (libc::SYS_shmat, lacks(2, libc::SHM_EXEC)),
        // A memfd can be written through one mapping and executed through another, unless it is sealed against
        // execution.
        (libc::SYS_memfd_create, Some(Condition::HasAll { argument: 1, bits: noexec_seal })),
    ]
}

/// Every call that gives a file a mode. openat2(2) has it in memory.
fn suid() -> Vec<(libc::c_long, Option<Condition>)> {
    let bits = libc::S_ISUID | libc::S_ISGID;
    let none = |argument| Some(Condition::HasNone { argument, bits });
    // Without one of these flags the kernel does not look at the mode, and callers leave anything there.
    let has = (libc::O_CREAT | libc::O_TMPFILE & !libc::O_DIRECTORY).cast_unsigned();
    let made = |argument, other| Some(Condition::HasNoneIf { argument, bits, other, has });
    let fchmodat2 = 452; // asm/unistd_64.h; libc has no name for it on every target
    vec![
        (libc::SYS_chmod, none(1)),
        (libc::SYS_fchmod, none(1)),
        (libc::SYS_fchmodat, none(2)),
        (fchmodat2, none(2)),
        (libc::SYS_creat, none(1)),
        (libc::SYS_open, made(2, 1)),
        (libc::SYS_openat, made(3, 2)),
        (libc::SYS_openat2, None),
        (libc::SYS_mkdir, none(1)),
        (libc::SYS_mkdirat, none(2)),
        (libc::SYS_mknod, none(1)),
        (libc::SYS_mknodat, none(2)),
    ]
}

/// What `seccomp.socket` is about.
const SOCKET_CALLS: [i64; 2] = [libc::SYS_socket, libc::SYS_socketpair];

fn program(rules: &Confinement, closed: &[Closed]) -> Vec<sock_filter> {
    let wanted = &rules.seccomp;
    let default = denial(wanted.default.value);
    // What groups say first, so that what is said of a single call replaces it.
    let mut actions: BTreeMap<u32, u32> = BTreeMap::new();
    for one_call in [false, true] {
        for action in wanted.actions.iter().filter(|action| action.value.names_one_call() == one_call) {
            actions.extend(action.value.calls.iter().map(|call| (*call, denial(action.value.denial))));
        }
    }
    let mut conditions: BTreeMap<u32, Vec<Condition>> = BTreeMap::new();
    for rule in &wanted.rules {
        let values = rule.value.values.iter().map(|value| value.value).collect();
        let condition = Condition::IsOneOf { argument: rule.value.argument.value, values };
        conditions.entry(rule.value.call.value).or_default().push(condition);
    }
    if let Some(sockets) = &wanted.sockets {
        let rows: Vec<Vec<Equal>> = sockets.iter().map(|socket| row(&socket.value)).collect();
        for call in SOCKET_CALLS {
            conditions.entry(number(call)).or_default().push(Condition::AnyRow(rows.clone()));
        }
    }
    for closed in closed {
        if let Some(condition) = &closed.condition {
            conditions.entry(closed.call).or_default().push(condition.clone());
        }
    }
    let allowed = Numbers::of(wanted.allowed.iter().copied());
    let unseen = closed.iter().filter(|closed| closed.condition.is_none());
    let unseen = Numbers::of(unseen.map(|closed| closed.call));
    let conditional = Numbers::of(conditions.keys().copied());
    let verdict = |call: u32| {
        if syscalls::name(call).is_none() {
            return Verdict::Return(ENOSYS);
        }
        let allowed = allowed.has(call);
        let action = actions.get(&call).copied();
        // Libraries that try io_uring fall back on ENOSYS, and give up on EPERM.
        if is_io_uring(call) && !(allowed && wanted.io_uring.value) {
            return Verdict::Return(action.unwrap_or(ENOSYS));
        }
        if !allowed {
            return Verdict::Return(action.unwrap_or(default));
        }
        if unseen.has(call) {
            return Verdict::Return(action.unwrap_or(ENOSYS));
        }
        match conditional.has(call).then(|| conditions.get(&call)).flatten() {
            Some(conditions) => {
                Verdict::When { conditions: conditions.clone(), denied: action.unwrap_or(default) }
            }
            None => Verdict::Return(ALLOW),
        }
    };
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    for call in 0..=syscalls::highest() {
        let verdict = verdict(call);
        if ranges.last().is_none_or(|(_, last)| *last != verdict) {
            ranges.push((call, verdict));
        }
    }
    ranges.push((syscalls::highest() + 1, Verdict::Return(ENOSYS)));
    // x32 calls are numbers from X32_BIT on: unknown like every other number above the highest, unless they are named.
    debug_assert!(syscalls::highest() < X32_BIT);
    if wanted.architectures.contains(&Architecture::X32) {
        ranges.extend(foreign::x32(&verdict));
    }
    let i386 = wanted.architectures.contains(&Architecture::I386).then(|| foreign::i386(&verdict));
    code::assemble(&ranges, i386.as_deref())
}

/// A set of calls that is asked for every call that there is.
struct Numbers(Vec<bool>);

impl Numbers {
    fn of(calls: impl Iterator<Item = u32>) -> Self {
        let mut has = vec![false; usize::try_from(syscalls::highest()).unwrap_or(0) + 1];
        for call in calls {
            if let Some(has) = usize::try_from(call).ok().and_then(|call| has.get_mut(call)) {
                *has = true;
            }
        }
        Self(has)
    }

    fn has(&self, call: u32) -> bool {
        usize::try_from(call).ok().and_then(|call| self.0.get(call)).is_some_and(|has| *has)
    }
}

/// BPF_MAXINSNS (linux/bpf_common.h): the kernel takes no longer filter.
const MOST_INSTRUCTIONS: usize = 4096;

fn refuse_too_long(rules: &Confinement, program: &[sock_filter], builder: &mut Builder<'_>) {
    if program.len() > MOST_INSTRUCTIONS {
        let message = format!(
            "the filter has {} instructions, and the kernel takes {MOST_INSTRUCTIONS}",
            program.len()
        );
        let help = "name fewer values in rules, `socket`, `ioctl` and `prctl`";
        let at = rules.seccomp.default.at.clone();
        builder.error(Diagnostic::error("filter-too-long", at, message).help(help));
    }
}

/// Family, type without its flags, and protocol, as far as they are named.
fn row(socket: &SocketRule) -> Vec<Equal> {
    let family = Equal { argument: 0, mask: u32::MAX, value: socket.family };
    let kind = socket.kind.map(|value| Equal { argument: 1, mask: !SOCKET_FLAGS, value });
    let protocol = socket.protocol.map(|value| Equal { argument: 2, mask: u32::MAX, value });
    [Some(family), kind, protocol].into_iter().flatten().collect()
}

fn denial(denial: Denial) -> u32 {
    match denial {
        Denial::KillProcess => KILL_PROCESS,
        Denial::Errno(errno) => ERRNO | u32::from(errno),
        Denial::Log => LOG,
        Denial::Trap => TRAP,
    }
}

/// A SECCOMP_RET_* value in the policy language's words.
pub(crate) fn action(value: u32) -> String {
    match value & 0xffff_0000 {
        KILL_PROCESS => "kill-process".to_owned(),
        TRAP => "trap".to_owned(),
        LOG => "log".to_owned(),
        ALLOW => "allow".to_owned(),
        ERRNO => {
            let errno = i32::try_from(value & 0xffff).unwrap_or(0);
            format!("errno:{:?}", nix::errno::Errno::from_raw(errno))
        }
        _ => format!("{value:#x}"),
    }
}

/// What a program answers to a call of x86_64 whatever its arguments are; `None` where it looks at them.
pub(crate) fn verdict(program: &[sock_filter], number: u32) -> Option<u32> {
    interpret(program, X86_64, number, None)
}

/// The same for these arguments.
pub(crate) fn verdict_with(program: &[sock_filter], number: u32, arguments: [u64; 6]) -> Option<u32> {
    interpret(program, X86_64, number, Some(arguments))
}

/// What a program answers to a call of any architecture.
#[cfg(test)]
pub(crate) fn answer(program: &[sock_filter], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
    interpret(program, architecture, number, Some(arguments)).unwrap_or(KILL_PROCESS)
}

/// Whether who calls as i386 can make sockets by `socketcall`, whatever of.
pub(crate) fn makes_i386_sockets(program: &[sock_filter]) -> bool {
    let (socketcall, socket) = (102, 1);
    let answer = interpret(program, I386, socketcall, Some([socket, 0, 0, 0, 0, 0]));
    matches!(answer, Some(ALLOW | LOG))
}

/// What a program answers: seccomp's subset of classic BPF, as far as this module and seccompiler emit it; anything else kills,
/// as it would be refused by the kernel (Documentation/userspace-api/seccomp_filter.rst).
fn interpret(
    program: &[sock_filter],
    architecture: u32,
    number: u32,
    arguments: Option<[u64; 6]>,
) -> Option<u32> {
    let mut accumulator = 0_u32;
    let mut next = 0_usize;
    loop {
        let Some(instruction) = program.get(next) else { return Some(KILL_PROCESS) };
        next += 1;
        match instruction.code {
            LOAD_WORD => {
                accumulator = match instruction.k {
                    OFFSET_NUMBER => number,
                    OFFSET_ARCHITECTURE => architecture,
                    offset => {
                        let argument =
                            arguments?.get(((offset - OFFSET_ARGUMENTS) / 8) as usize).copied().unwrap_or(0);
                        let high = (offset - OFFSET_ARGUMENTS) % 8 == 4;
                        let half = if high { argument >> 32 } else { argument & u64::from(u32::MAX) };
                        u32::try_from(half).unwrap_or(u32::MAX)
                    }
                }
            }
            JUMP => next += instruction.k as usize,
            JUMP_EQUAL | JUMP_GREATER_EQUAL | JUMP_GREATER => {
                let holds = match instruction.code {
                    JUMP_EQUAL => accumulator == instruction.k,
                    JUMP_GREATER_EQUAL => accumulator >= instruction.k,
                    _ => accumulator > instruction.k,
                };
                next += usize::from(if holds { instruction.jt } else { instruction.jf });
            }
            AND => accumulator &= instruction.k,
            RETURN => return Some(instruction.k),
            _ => return Some(KILL_PROCESS),
        }
    }
}

#[cfg(test)]
mod proof;

#[cfg(test)]
mod tests {
    //! The compiled program is run in an interpreter, over every call number, and held against the policy and against
    //! what seccompiler compiles of the same rules.

    use std::collections::BTreeSet;

    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule, TargetArch,
    };

    use super::*;
    use crate::{
        compile::described::{here, strict},
        policy::ArgumentRule,
        syscalls::groups,
    };

    const I386: u32 = 0x4000_0003;
    const EPERM: u32 = ERRNO | libc::EPERM as u32;

    fn answer(program: &[sock_filter], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        interpret(program, architecture, number, Some(arguments)).unwrap()
    }

    fn compiled(rules: &Confinement) -> Vec<sock_filter> {
        program(rules, &closed(rules))
    }

    #[test]
    fn every_number_gets_what_the_policy_says() {
        let rules = strict();
        let program = compiled(&rules);
        let conditional: BTreeSet<u32> = closed(&rules).into_iter().map(|closed| closed.call).collect();
        for call in 0..=2000_u32 {
            let verdict = answer(&program, X86_64, call, [0; 6]);
            let wanted = match syscalls::name(call) {
                None => ENOSYS,
                // Both denied, and libraries fall back on ENOSYS.
                Some(name) if name.starts_with("io_uring_") => ENOSYS,
                Some("clone3" | "openat2" | "sched_setattr") => ENOSYS,
                Some(_) if !rules.seccomp.allowed.contains(&call) => EPERM,
                Some(_) if conditional.contains(&call) => continue,
                Some(_) => ALLOW,
            };
            assert_eq!(verdict, wanted, "{call} {:?}", syscalls::name(call));
        }
    }

    #[test]
    fn no_x32_call_passes() {
        let program = compiled(&strict());
        for call in 0..=600_u32 {
            assert_eq!(answer(&program, X86_64, call | X32_BIT, [0; 6]), ENOSYS, "{call}");
        }
    }

    #[test]
    fn a_foreign_architecture_is_killed() {
        let program = compiled(&strict());
        for call in 0..=600_u32 {
            assert_eq!(answer(&program, I386, call, [0; 6]), KILL_PROCESS, "{call}");
        }
    }

    #[test]
    fn a_set_high_half_of_an_int_argument_changes_nothing() {
        let mut rules = strict();
        let socket = u32::try_from(libc::SYS_socket).unwrap();
        let families = [libc::AF_UNIX, libc::AF_INET].map(|family| here(family.unsigned_abs()));
        let rule = ArgumentRule { call: here(socket), argument: here(0), values: families.to_vec() };
        rules.seccomp.rules.push(here(rule));
        let program = compiled(&rules);
        for high in [0, 1_u64 << 32, u64::from(u32::MAX) << 32] {
            for family in 0..=50_u32 {
                let wanted = if [1, 2].contains(&family) { ALLOW } else { EPERM };
                let verdict = answer(&program, X86_64, socket, [high | u64::from(family), 0, 0, 0, 0, 0]);
                assert_eq!(verdict, wanted, "family {family} with {high:#x}");
            }
        }
    }

    #[test]
    fn no_page_is_writable_and_executable() {
        let program = compiled(&strict());
        let ask = |call: libc::c_long, argument: usize, value: i32| {
            let mut arguments = [0; 6];
            arguments[argument] = u64::from(value.unsigned_abs());
            answer(&program, X86_64, u32::try_from(call).unwrap(), arguments)
        };
        let (read, write, execute) = (libc::PROT_READ, libc::PROT_WRITE, libc::PROT_EXEC);
        assert_eq!(ask(libc::SYS_mmap, 2, read | execute), ALLOW);
        assert_eq!(ask(libc::SYS_mmap, 2, read | write), ALLOW);
        assert_eq!(ask(libc::SYS_mmap, 2, write | execute), EPERM);
        assert_eq!(ask(libc::SYS_mmap, 2, read | write | execute), EPERM);
        assert_eq!(ask(libc::SYS_mprotect, 2, read | write), ALLOW);
        assert_eq!(ask(libc::SYS_mprotect, 2, read | execute), EPERM);
        assert_eq!(ask(libc::SYS_memfd_create, 1, 0), EPERM);
        assert_eq!(ask(libc::SYS_memfd_create, 1, 8), ALLOW);
    }

    #[test]
    fn no_namespace_is_made_by_clone_either() {
        let program = compiled(&strict());
        let clone = |flags: i32| {
            let number = u32::try_from(libc::SYS_clone).unwrap();
            answer(&program, X86_64, number, [u64::from(flags.unsigned_abs()), 0, 0, 0, 0, 0])
        };
        let thread =
            libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
        assert_eq!(clone(libc::SIGCHLD), ALLOW);
        assert_eq!(clone(thread), ALLOW);
        for flag in [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWPID, libc::CLONE_NEWNET] {
            assert_eq!(clone(flag | libc::SIGCHLD), EPERM, "{flag:#x}");
        }
    }

    #[test]
    fn a_rule_with_more_values_than_a_jump_reaches_holds_for_each() {
        let mut rules = strict();
        let ioctl = u32::try_from(libc::SYS_ioctl).unwrap();
        let values = (0..700_u32).map(|value| here(value * 2)).collect();
        rules.seccomp.rules.push(here(ArgumentRule { call: here(ioctl), argument: here(1), values }));
        let program = compiled(&rules);
        for value in 0..1500_u64 {
            let wanted = if value % 2 == 0 && value < 1400 { ALLOW } else { EPERM };
            assert_eq!(answer(&program, X86_64, ioctl, [0, value, 0, 0, 0, 0]), wanted, "{value}");
        }
    }

    #[test]
    fn seccompiler_says_the_same_of_every_known_call() {
        let mut rules = strict();
        rules.process.memory_deny_write_execute = here(false);
        rules.process.may_make_namespaces = here(NamespaceKind::all().collect());
        rules.process.restrict_suid = here(false);
        rules.process.restrict_realtime = here(false);
        let socket = u32::try_from(libc::SYS_socket).unwrap();
        let rule = ArgumentRule { call: here(socket), argument: here(0), values: vec![here(1), here(2)] };
        rules.seccomp.rules.push(here(rule));
        let ours = compiled(&rules);
        let equals = |argument, value: u32| {
            let condition =
                SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(value));
            SeccompRule::new(vec![condition.unwrap()]).unwrap()
        };
        let personality = u32::try_from(libc::SYS_personality).unwrap();
        let map = rules.seccomp.allowed.iter().map(|call| {
            let rules = match *call {
                call if call == socket => vec![equals(0, 1), equals(0, 2)],
                call if call == personality => vec![equals(0, 0), equals(0, u32::MAX)],
                _ => Vec::new(),
            };
            (i64::from(*call), rules)
        });
        let errno = SeccompAction::Errno(libc::EPERM.unsigned_abs());
        let filter = SeccompFilter::new(map.collect(), errno, SeccompAction::Allow, TargetArch::x86_64);
        let oracle: BpfProgram = filter.unwrap().try_into().unwrap();
        for call in (0..=syscalls::highest()).filter(|call| syscalls::name(*call).is_some()) {
            if is_io_uring(call) {
                continue; // ours alone tells it ENOSYS, tested above
            }
            for first in [0, 1, 2, 3, 16, u64::from(u32::MAX), 1 | 1 << 32] {
                let arguments = [first, 0, 0, 0, 0, 0];
                assert_eq!(
                    answer(&ours, X86_64, call, arguments),
                    answer(&oracle, X86_64, call, arguments),
                    "{call} ({:?}) with {first:#x}",
                    syscalls::name(call)
                );
            }
        }
        assert!(ours.len() < oracle.len() / 3, "{} against {} instructions", ours.len(), oracle.len());
    }

    fn call(name: &str) -> u32 {
        syscalls::number(name).unwrap()
    }

    /// Arguments that are 0 but for these.
    fn with(some: &[(usize, u32)]) -> [u64; 6] {
        let mut arguments = [0; 6];
        some.iter().for_each(|(index, value)| arguments[*index] = u64::from(*value));
        arguments
    }

    #[test]
    fn no_file_is_given_a_set_user_id_or_set_group_id_bit() {
        let restricted = compiled(&strict());
        let mut rules = strict();
        rules.process.restrict_suid = here(false);
        let free = compiled(&rules);
        let creat = libc::O_CREAT.cast_unsigned();
        let tmpfile = libc::O_TMPFILE.cast_unsigned();
        // The call, the place of the mode, and the flags with which it is looked at.
        type Flags<'a> = &'a [(usize, u32)];
        let calls: [(&str, usize, Flags<'_>); 13] = [
            ("chmod", 1, &[]),
            ("fchmod", 1, &[]),
            ("fchmodat", 2, &[]),
            ("fchmodat2", 2, &[]),
            ("creat", 1, &[]),
            ("mkdir", 1, &[]),
            ("mkdirat", 2, &[]),
            ("mknod", 1, &[]),
            ("mknodat", 2, &[]),
            ("open", 2, &[(1, creat)]),
            ("openat", 3, &[(2, creat)]),
            ("openat", 3, &[(2, tmpfile)]),
            ("openat", 3, &[(2, creat | libc::O_WRONLY.cast_unsigned())]),
        ];
        for mode in 0..=0o7777_u32 {
            let wanted = if mode & 0o6000 == 0 { ALLOW } else { EPERM };
            for (name, place, flags) in calls {
                for high in [0, 1 << 32] {
                    let mut arguments = with(flags);
                    arguments[place] = u64::from(mode) | high;
                    assert_eq!(answer(&restricted, X86_64, call(name), arguments), wanted, "{name} {mode:o}");
                    assert_eq!(answer(&free, X86_64, call(name), arguments), ALLOW, "{name} {mode:o}");
                }
            }
            // A mode that the kernel does not look at may be anything.
            for (name, place) in [("open", 2), ("openat", 3)] {
                assert_eq!(answer(&restricted, X86_64, call(name), with(&[(place, mode)])), ALLOW, "{name}");
            }
        }
        assert_eq!(answer(&restricted, X86_64, call("openat2"), [0; 6]), ENOSYS);
        assert_eq!(answer(&free, X86_64, call("openat2"), [0; 6]), ALLOW);
    }

    /// Each of the 256 sets of kinds, against each of the 256 sets of flags.
    #[test]
    fn namespaces_are_made_and_entered_of_the_granted_kinds_alone() {
        let kinds: Vec<NamespaceKind> = NamespaceKind::all().collect();
        let subset = |bits: u32| -> BTreeSet<NamespaceKind> {
            kinds.iter().enumerate().filter(|(n, _)| bits & (1 << n) != 0).map(|(_, kind)| *kind).collect()
        };
        for granted in 0..256_u32 {
            let mut rules = strict();
            rules.process.may_make_namespaces = here(subset(granted));
            rules.seccomp.allowed.extend([call("unshare"), call("setns"), call("clone3")]);
            let program = compiled(&rules);
            for asked in 0..256_u32 {
                let flags = subset(asked).into_iter().fold(0, |bits, kind| bits | kind.flag());
                let denial = |denied: bool| if denied { EPERM } else { ALLOW };
                let beyond = asked & !granted != 0;
                let unshare = answer(&program, X86_64, call("unshare"), with(&[(0, flags)]));
                assert_eq!(unshare, denial(beyond), "unshare {flags:#x} of {granted:#x}");
                let setns = answer(&program, X86_64, call("setns"), with(&[(1, flags)]));
                // 0 would be any kind.
                let any = asked == 0 && granted != 255;
                assert_eq!(setns, denial(beyond || any), "setns {flags:#x} of {granted:#x}");
                // In clone(2) the bit of CLONE_NEWTIME is part of the signal.
                let time = 1 << kinds.iter().position(|kind| *kind == NamespaceKind::Time).unwrap();
                let clone = answer(&program, X86_64, call("clone"), with(&[(0, flags | 17)]));
                assert_eq!(clone, denial(beyond && asked & !granted & !time != 0), "clone {flags:#x}");
            }
            let clone3 = answer(&program, X86_64, call("clone3"), [0; 6]);
            assert_eq!(clone3, if granted == 255 { ALLOW } else { ENOSYS });
        }
    }

    #[test]
    fn no_realtime_scheduler_is_chosen() {
        let mut rules = strict();
        rules.seccomp.allowed.extend([call("sched_setscheduler"), call("sched_setattr")]);
        let restricted = compiled(&rules);
        rules.process.restrict_realtime = here(false);
        let free = compiled(&rules);
        for policy in 0..=10_u32 {
            let wanted = if [0, 3, 5].contains(&policy) { ALLOW } else { EPERM };
            for flag in [0, 0x4000_0000] {
                let arguments = with(&[(1, policy | flag)]);
                assert_eq!(
                    answer(&restricted, X86_64, call("sched_setscheduler"), arguments),
                    wanted,
                    "{policy}"
                );
                assert_eq!(answer(&free, X86_64, call("sched_setscheduler"), arguments), ALLOW);
            }
        }
        assert_eq!(answer(&restricted, X86_64, call("sched_setattr"), [0; 6]), ENOSYS);
        assert_eq!(answer(&free, X86_64, call("sched_setattr"), [0; 6]), ALLOW);
    }

    fn socket_rule(family: u32, kind: Option<u32>, protocol: Option<u32>) -> SocketRule {
        SocketRule { family, kind, protocol, ..SocketRule::any() }
    }

    /// Tables of sockets, each asked for every socket of a few families, types and protocols, and held against what
    /// seccompiler makes of the same rows.
    #[test]
    fn the_table_of_sockets_means_what_seccompiler_makes_of_it() {
        let tables = [
            vec![],
            vec![socket_rule(1, None, None)],
            vec![socket_rule(2, Some(1), None), socket_rule(10, Some(1), Some(6))],
            vec![
                socket_rule(2, Some(1), None),
                socket_rule(2, Some(2), None),
                socket_rule(16, Some(3), Some(0)),
            ],
            (0..60).map(|family| socket_rule(family, Some(family % 6), Some(family % 7))).collect(),
        ];
        for table in tables {
            let mut rules = strict();
            rules.seccomp.sockets = Some(table.iter().cloned().map(here).collect());
            let ours = compiled(&rules);
            let row = |row: &SocketRule| {
                let equals = |argument, operator, value: u32| {
                    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value.into()).unwrap()
                };
                let flags = u64::from(!SOCKET_FLAGS);
                let family = equals(0, SeccompCmpOp::Eq, row.family);
                let kind = row.kind.map(|kind| equals(1, SeccompCmpOp::MaskedEq(flags), kind));
                let protocol = row.protocol.map(|protocol| equals(2, SeccompCmpOp::Eq, protocol));
                SeccompRule::new([Some(family), kind, protocol].into_iter().flatten().collect()).unwrap()
            };
            // An entry without rules would allow the call to seccompiler; without an entry it is denied.
            let entries = SOCKET_CALLS.iter().filter(|_| !table.is_empty());
            let entries = entries.map(|call| (*call, table.iter().map(row).collect())).collect();
            let errno = SeccompAction::Errno(libc::EPERM.unsigned_abs());
            let filter = SeccompFilter::new(entries, errno, SeccompAction::Allow, TargetArch::x86_64);
            let oracle: BpfProgram = filter.unwrap().try_into().unwrap();
            for socket in SOCKET_CALLS.map(number) {
                for family in (0..=60).chain([1 << 31]) {
                    for kind in (0..=10).flat_map(|kind| {
                        [
                            0,
                            libc::SOCK_CLOEXEC,
                            libc::SOCK_NONBLOCK,
                            libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                            1 << 20,
                        ]
                        .map(|flags| kind | flags.cast_unsigned())
                    }) {
                        for protocol in 0..=7 {
                            let arguments = with(&[(0, family), (1, kind), (2, protocol)]);
                            assert_eq!(
                                answer(&ours, X86_64, socket, arguments),
                                answer(&oracle, X86_64, socket, arguments),
                                "{socket} {family} {kind:#x} {protocol} of {table:?}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_denied_call_gets_its_own_action_and_one_call_is_stronger_than_a_group() {
        let mut rules = strict();
        let action = |name: &str, denial| {
            let calls = groups::members(name).unwrap_or_else(|| vec![call(name)]);
            here(crate::policy::Action { name: name.to_owned(), calls, denial })
        };
        rules.seccomp.actions = vec![
            action("ptrace", Denial::Log),
            action("@debug", Denial::KillProcess),
            action("mprotect", Denial::Trap),
            action("openat2", Denial::Errno(13)),
            action("io_uring_setup", Denial::KillProcess),
        ];
        let program = compiled(&rules);
        let answer = |name, arguments| answer(&program, X86_64, call(name), arguments);
        assert_eq!(answer("ptrace", [0; 6]), LOG);
        assert_eq!(answer("process_vm_readv", [0; 6]), KILL_PROCESS);
        assert_eq!(answer("mount", [0; 6]), EPERM, "the default for what no action names");
        // Where arguments decide, the action is for those that are denied.
        assert_eq!(answer("mprotect", with(&[(2, 1)])), ALLOW);
        assert_eq!(answer("mprotect", with(&[(2, 5)])), TRAP);
        assert_eq!(answer("openat2", [0; 6]), ERRNO | 13);
        assert_eq!(answer("io_uring_setup", [0; 6]), KILL_PROCESS);
        assert_eq!(answer("io_uring_enter", [0; 6]), ENOSYS);
    }

    #[test]
    fn io_uring_needs_its_switch_and_its_calls() {
        let mut rules = strict();
        for (switch, allowed, wanted) in
            [(false, false, ENOSYS), (false, true, ENOSYS), (true, false, ENOSYS), (true, true, ALLOW)]
        {
            rules.seccomp.io_uring = here(switch);
            for name in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
                rules.seccomp.allowed.remove(&call(name));
                if allowed {
                    rules.seccomp.allowed.insert(call(name));
                }
            }
            let program = compiled(&rules);
            assert_eq!(
                answer(&program, X86_64, call("io_uring_setup"), [0; 6]),
                wanted,
                "{switch} {allowed}"
            );
        }
    }

    #[test]
    fn no_table_of_actions_opens_what_another_key_closes() {
        let codes = |change: &dyn Fn(&mut Confinement)| -> Vec<&'static str> {
            let mut rules = strict();
            change(&mut rules);
            let policy = crate::compile::described::policy(rules);
            let host = crate::compile::described::DescribedHost::debian();
            let subject = crate::compile::described::subject();
            let kernel = crate::compile::described::kernel(7);
            match crate::compile::compile_on(&policy, &subject, &kernel, &host) {
                Ok(_) => Vec::new(),
                Err(report) => report.diagnostics.iter().map(|diagnostic| diagnostic.code).collect(),
            }
        };
        let action = |name: &str, denial| {
            let calls = groups::members(name).unwrap_or_else(|| vec![call(name)]);
            vec![here(crate::policy::Action { name: name.to_owned(), calls, denial })]
        };
        assert_eq!(codes(&|rules| rules.seccomp.actions = action("clone3", Denial::Log)), ["action-opens"]);
        assert_eq!(codes(&|rules| rules.seccomp.actions = action("mmap", Denial::Log)), ["action-opens"]);
        assert_eq!(codes(&|rules| rules.seccomp.actions = action("mmap", Denial::Trap)), [""; 0]);
        assert_eq!(codes(&|rules| rules.seccomp.actions = action("read", Denial::Trap)), ["no-effect"]);
        assert_eq!(codes(&|rules| rules.seccomp.actions = action("ptrace", Denial::Log)), [""; 0]);
        assert_eq!(codes(&|rules| rules.seccomp.io_uring = here(true)), ["io-uring-unseen"]);
        let free = |rules: &mut Confinement| {
            rules.seccomp.io_uring = here(true);
            rules.process.restrict_suid = here(false);
        };
        assert_eq!(codes(&free), [""; 0]);
    }
}
