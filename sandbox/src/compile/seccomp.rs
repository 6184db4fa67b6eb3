//! `[seccomp]`, and what other keys ask of it (`memory_deny_write_execute`, `lock_personality`): one BPF program.
//!
//! The program is a balanced tree over ranges of call numbers with one verdict each, not a chain of comparisons: the
//! kernel emulates a filter once per call number when it is installed, so a chain of 308 calls costs 0.65 ms a launch and
//! a tree of ranges 0.04 ms. Arguments are compared as 32 bits, because the kernel takes them as ints: a rule that
//! compared 64 would be passed by setting a high bit (CVE-2019-10063).
//!
//! seccompiler gives the instruction type, and in the tests the oracle.

use std::collections::BTreeMap;

use seccompiler::sock_filter;

use crate::{
    compile::Builder,
    diagnostic::Diagnostic,
    plan::{Op, Phase},
    policy::{Confinement, Denial, Seccomp},
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
    /// It depends on arguments: every condition must hold, or the call is denied.
    When(Vec<Condition>),
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
}

/// CLONE_NEW* that clone(2) takes; CLONE_NEWTIME is for unshare and clone3 alone.
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET)
    .cast_unsigned();

/// A policy that does not allow unshare(2) means that no namespace is made, by whichever call.
fn may_make_namespaces(wanted: &Seccomp) -> bool {
    syscalls::number("unshare").is_some_and(|number| wanted.allowed.contains(&number))
}

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
    let program = program(wanted, &extra(rules));
    let object = format!("{} calls, {} instructions", wanted.allowed.len(), program.len());
    let op = Op::Seccomp { program: program.into_boxed_slice(), log: wanted.log };
    builder.step(Phase::Seccomp, op, object, Some(wanted.default.at.clone()));
}

/// Conditions that other keys put on calls.
fn extra(rules: &Confinement) -> Vec<(u32, Condition)> {
    let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
    let mut extra = Vec::new();
    if !may_make_namespaces(&rules.seccomp) {
        extra.push((number(libc::SYS_clone), Condition::HasNone { argument: 0, bits: NEW_NAMESPACES }));
    }
    if rules.process.memory_deny_write_execute.value {
        let write_execute = (libc::PROT_WRITE | libc::PROT_EXEC).cast_unsigned();
        let execute = libc::PROT_EXEC.cast_unsigned();
        let noexec_seal = 8; // MFD_NOEXEC_SEAL (linux/memfd.h)
        extra.extend([
            (number(libc::SYS_mmap), Condition::LacksSome { argument: 2, bits: write_execute }),
            (number(libc::SYS_mprotect), Condition::LacksSome { argument: 2, bits: execute }),
            (number(libc::SYS_pkey_mprotect), Condition::LacksSome { argument: 2, bits: execute }),
            (
                number(libc::SYS_shmat),
                Condition::LacksSome { argument: 2, bits: libc::SHM_EXEC.cast_unsigned() },
            ),
            // A memfd can be written through one mapping and executed through another, unless it is sealed
            // against execution.
            (number(libc::SYS_memfd_create), Condition::HasAll { argument: 1, bits: noexec_seal }),
        ]);
    }
    if rules.process.lock_personality.value {
        let (linux, query) = (0, u32::MAX);
        let condition = Condition::IsOneOf { argument: 0, values: vec![linux, query] };
        extra.push((number(libc::SYS_personality), condition));
    }
    extra
}

fn program(wanted: &Seccomp, extra: &[(u32, Condition)]) -> Vec<sock_filter> {
    let denied = denial(wanted.default.value);
    let mut conditions: BTreeMap<u32, Vec<Condition>> = BTreeMap::new();
    for rule in &wanted.rules {
        let values = rule.value.values.iter().map(|value| value.value).collect();
        let condition = Condition::IsOneOf { argument: rule.value.argument.value, values };
        conditions.entry(rule.value.call.value).or_default().push(condition);
    }
    for (call, condition) in extra {
        conditions.entry(*call).or_default().push(condition.clone());
    }
    let verdict = |call: u32| {
        let Some(name) = syscalls::name(call) else { return Verdict::Return(ENOSYS) };
        if !wanted.allowed.contains(&call) {
            // Libraries that try io_uring fall back on ENOSYS, and give up on EPERM.
            return Verdict::Return(if name.starts_with("io_uring_") { ENOSYS } else { denied });
        }
        // Its flags lie in memory, where a filter cannot see them; on ENOSYS every libc falls back on clone.
        if name == "clone3" && !may_make_namespaces(wanted) {
            return Verdict::Return(ENOSYS);
        }
        match conditions.get(&call) {
            Some(conditions) => Verdict::When(conditions.clone()),
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
    // x32 calls are numbers from X32_BIT on: unknown like every other number above the highest.
    debug_assert!(syscalls::highest() < X32_BIT);

    let mut program = vec![
        statement(LOAD_WORD, OFFSET_ARCHITECTURE),
        jump(JUMP_EQUAL, X86_64, 1, 0),
        statement(RETURN, KILL_PROCESS),
        statement(LOAD_WORD, OFFSET_NUMBER),
    ];
    program.extend(tree(&ranges, denied));
    program
}

fn denial(denial: Denial) -> u32 {
    match denial {
        Denial::KillProcess => KILL_PROCESS,
        Denial::Errno(errno) => ERRNO | u32::from(errno),
        Denial::Log => LOG,
        Denial::Trap => TRAP,
    }
}

fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// The accumulator holds the call's number, which is at least the first range's start.
fn tree(ranges: &[(u32, Verdict)], denied: u32) -> Vec<sock_filter> {
    match ranges {
        [] => vec![statement(RETURN, KILL_PROCESS)],
        [(_, verdict)] => leaf(verdict, denied),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let middle = high[0].0;
            let low = tree(low, denied);
            let high = tree(high, denied);
            let mut program = branch(jump(JUMP_GREATER_EQUAL, middle, 0, 0), low.len());
            program.extend(low);
            program.extend(high);
            program
        }
    }
}

/// A jump over `distance` instructions if the test holds, and on to the next if not. Conditional jumps reach 255
/// instructions; further ones go by way of an unconditional jump.
fn branch(test: sock_filter, distance: usize) -> Vec<sock_filter> {
    match u8::try_from(distance) {
        Ok(distance) => vec![sock_filter { jt: distance, jf: 0, ..test }],
        Err(_) => vec![
            sock_filter { jt: 0, jf: 1, ..test },
            statement(JUMP, u32::try_from(distance).unwrap_or(u32::MAX)),
        ],
    }
}

fn leaf(verdict: &Verdict, denied: u32) -> Vec<sock_filter> {
    let conditions = match verdict {
        Verdict::Return(value) => return vec![statement(RETURN, *value)],
        Verdict::When(conditions) => conditions,
    };
    // Each block falls through to the next if its condition holds and returns the denial if not.
    let mut program: Vec<sock_filter> =
        conditions.iter().flat_map(|condition| block(condition, denied)).collect();
    program.push(statement(RETURN, ALLOW));
    program
}

/// Loads the low half of an argument (x86_64 is little-endian) and denies unless the condition holds.
fn block(condition: &Condition, denied: u32) -> Vec<sock_filter> {
    let load = |argument: u8| statement(LOAD_WORD, OFFSET_ARGUMENTS + 8 * u32::from(argument));
    let deny = statement(RETURN, denied);
    match condition {
        Condition::IsOneOf { argument, values } => {
            // From the end, so that each jump's distance is what is already there: later values and the denial.
            let tail = values.iter().rev().fold(vec![deny], |tail, value| {
                let mut program = branch(jump(JUMP_EQUAL, *value, 0, 0), tail.len());
                program.extend(tail);
                program
            });
            [vec![load(*argument)], tail].concat()
        }
        Condition::LacksSome { argument, bits } => {
            vec![load(*argument), statement(AND, *bits), jump(JUMP_EQUAL, *bits, 0, 1), deny]
        }
        Condition::HasNone { argument, bits } => {
            vec![load(*argument), statement(AND, *bits), jump(JUMP_EQUAL, 0, 1, 0), deny]
        }
        Condition::HasAll { argument, bits } => {
            vec![load(*argument), statement(AND, *bits), jump(JUMP_EQUAL, *bits, 1, 0), deny]
        }
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
    };

    const I386: u32 = 0x4000_0003;
    const EPERM: u32 = ERRNO | libc::EPERM as u32;

    fn answer(program: &[sock_filter], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        interpret(program, architecture, number, Some(arguments)).unwrap()
    }

    fn compiled(rules: &Confinement) -> Vec<sock_filter> {
        program(&rules.seccomp, &extra(rules))
    }

    #[test]
    fn every_number_gets_what_the_policy_says() {
        let rules = strict();
        let program = compiled(&rules);
        let conditional: BTreeSet<u32> = extra(&rules).into_iter().map(|(call, _)| call).collect();
        for call in 0..=2000_u32 {
            let verdict = answer(&program, X86_64, call, [0; 6]);
            let wanted = match syscalls::name(call) {
                None => ENOSYS,
                // Both denied, and libraries fall back on ENOSYS.
                Some("io_uring_setup" | "clone3") => ENOSYS,
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
    fn without_unshare_no_namespace_is_made_by_clone_either() {
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
            if matches!(syscalls::name(call), Some("io_uring_setup" | "clone3" | "clone")) {
                continue; // ours alone have rules of their own, tested above
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
}
