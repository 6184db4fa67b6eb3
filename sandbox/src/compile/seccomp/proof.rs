//! The filter of every shipped policy, run in the interpreter: over every number that a register can mean on x86_64, on
//! the i386 gate and as x32, and over the corners of every argument that a condition is about, held against the policy
//! and against what seccompiler compiles of the same rules.

use std::collections::{BTreeMap, BTreeSet};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::*;
use crate::{
    golden,
    policy::{Rules, Seccomp},
};

const AARCH64: u32 = 0xc000_00b7;

/// Every number up to beyond the table's, and where bits begin and end.
fn numbers() -> Vec<u32> {
    let corners = [0x3fff_ffff, X32_BIT - 1, 1 << 31, u32::MAX, u32::MAX - 1];
    (0..=1100).chain((0..=1100).map(|number| number | X32_BIT)).chain(corners).collect()
}

fn shipped() -> Vec<(String, Box<Confinement>)> {
    let confined = |name: String| match golden::load(&name).rules {
        Rules::Confined(rules) => Some((name, rules)),
        Rules::Unconfined(_) => None,
    };
    let shipped: Vec<_> = golden::all().into_iter().filter_map(confined).collect();
    for name in ["base/default", "boot/random-seed", "boot/sysctl", "nginx"] {
        assert!(shipped.iter().any(|(known, _)| known == name), "{name} is not among them");
    }
    shipped
}

/// What one condition is as an OR of ANDs of comparisons under a mask.
fn alternatives(condition: &Condition) -> Vec<Vec<Equal>> {
    let one = |argument: u8, mask: u32, value: u32| vec![Equal { argument, mask, value }];
    let single_bits = |bits: u32| (0..32).map(|bit| 1 << bit).filter(move |bit| bits & bit != 0);
    match condition {
        Condition::IsOneOf { argument, values } => {
            values.iter().map(|value| one(*argument, u32::MAX, *value)).collect()
        }
        Condition::LacksSome { argument, bits } => {
            single_bits(*bits).map(|bit| one(*argument, bit, 0)).collect()
        }
        Condition::HasNone { argument, bits } => vec![one(*argument, *bits, 0)],
        Condition::HasAll { argument, bits } => vec![one(*argument, *bits, *bits)],
        Condition::HasSome { argument, bits } => {
            single_bits(*bits).map(|bit| one(*argument, bit, bit)).collect()
        }
        Condition::HasNoneIf { argument, bits, other, has } => {
            vec![one(*other, *has, 0), one(*argument, *bits, 0)]
        }
        Condition::AnyRow(rows) => rows.clone(),
    }
}

/// All conditions of a call together: every choice of one alternative of each.
fn together(conditions: &[Condition]) -> Vec<Vec<Equal>> {
    conditions.iter().fold(vec![Vec::new()], |so_far, condition| {
        let alternatives = alternatives(condition);
        let joined = |known: &Vec<Equal>| {
            let known = known.clone();
            alternatives.iter().map(move |more| [known.clone(), more.clone()].concat()).collect::<Vec<_>>()
        };
        so_far.iter().flat_map(joined).collect()
    })
}

fn conditions_of(rules: &Confinement, closed: &[Closed]) -> BTreeMap<u32, Vec<Condition>> {
    let mut conditions: BTreeMap<u32, Vec<Condition>> = BTreeMap::new();
    for rule in &rules.seccomp.rules {
        let values = rule.value.values.iter().map(|value| value.value).collect();
        let condition = Condition::IsOneOf { argument: rule.value.argument.value, values };
        conditions.entry(rule.value.call.value).or_default().push(condition);
    }
    if let Some(sockets) = &rules.seccomp.sockets {
        for call in SOCKET_CALLS {
            let rows = sockets.iter().map(|socket| row(&socket.value)).collect();
            conditions.entry(number(call)).or_default().push(Condition::AnyRow(rows));
        }
    }
    for closed in closed {
        if let Some(condition) = &closed.condition {
            conditions.entry(closed.call).or_default().push(condition.clone());
        }
    }
    conditions
}

/// Values at which the comparisons of an argument change their answer, and the same with something in the high half.
fn corners(comparisons: &[&Equal], argument: u8) -> Vec<u64> {
    let mut values: BTreeSet<u32> = [0, 1, 2, u32::MAX, 1 << 31].into();
    for equal in comparisons.iter().filter(|equal| equal.argument == argument) {
        let bits = (0..32).map(|bit| 1 << bit).filter(|bit| equal.mask != u32::MAX && equal.mask & bit != 0);
        values.extend(bits.map(|bit| equal.value ^ bit));
        values.extend([equal.value, !equal.mask | equal.value, !equal.value]);
        values.extend([equal.value.wrapping_add(1), equal.value.wrapping_sub(1)]);
    }
    values.into_iter().flat_map(|low| [u64::from(low), u64::from(low) | 1 << 32]).collect()
}

/// Every combination of the corners of the arguments that are compared.
fn combinations(alternatives: &[Vec<Equal>]) -> Vec<[u64; 6]> {
    let comparisons: Vec<&Equal> = alternatives.iter().flatten().collect();
    let arguments: BTreeSet<u8> = comparisons.iter().map(|equal| equal.argument).collect();
    arguments.iter().fold(vec![[0; 6]], |so_far, argument| {
        let corners = corners(&comparisons, *argument);
        let with = |known: &[u64; 6]| {
            let known = *known;
            let set = move |value: &u64| {
                let mut arguments = known;
                arguments[usize::from(*argument)] = *value;
                arguments
            };
            corners.iter().map(set).collect::<Vec<_>>()
        };
        so_far.iter().flat_map(with).collect()
    })
}

fn holds(alternatives: &[Vec<Equal>], arguments: &[u64; 6]) -> bool {
    let low = |argument: u8| u32::try_from(arguments[usize::from(argument)] & u64::from(u32::MAX)).unwrap();
    alternatives.iter().any(|row| row.iter().all(|equal| low(equal.argument) & equal.mask == equal.value))
}

fn oracle(allowed: &BTreeMap<u32, Vec<Vec<Equal>>>) -> BpfProgram {
    let rule = |row: &Vec<Equal>| {
        let compare = |equal: &Equal| {
            let operator = match equal.mask {
                u32::MAX => SeccompCmpOp::Eq,
                mask => SeccompCmpOp::MaskedEq(u64::from(mask)),
            };
            SeccompCondition::new(equal.argument, SeccompCmpArgLen::Dword, operator, equal.value.into())
                .unwrap()
        };
        SeccompRule::new(row.iter().map(compare).collect()).unwrap()
    };
    let entries = allowed.iter().map(|(call, rows)| {
        // An entry without comparisons is allowed whatever the arguments are.
        let rows = if rows.iter().any(Vec::is_empty) { Vec::new() } else { rows.iter().map(rule).collect() };
        (i64::from(*call), rows)
    });
    let errno = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(entries.collect(), errno, SeccompAction::Allow, TargetArch::x86_64)
        .unwrap()
        .try_into()
        .unwrap()
}

#[test]
fn every_shipped_filter_says_what_its_policy_and_seccompiler_say() {
    let mut compared = 0_u64;
    for (name, rules) in shipped() {
        let closed = closed(&rules);
        let program = program(&rules, &closed);
        let conditions = conditions_of(&rules, &closed);
        // What the policy says, in words of its own: the calls that it allows, and for which arguments.
        let mut allowed: BTreeMap<u32, Vec<Vec<Equal>>> = BTreeMap::new();
        for call in &rules.seccomp.allowed {
            let barred = closed.iter().any(|closed| closed.call == *call && closed.condition.is_none());
            if !barred && (!is_io_uring(*call) || rules.seccomp.io_uring.value) {
                allowed.insert(*call, together(conditions.get(call).map_or(&[], Vec::as_slice)));
            }
        }
        let oracle = oracle(&allowed);
        for call in numbers() {
            let rows = allowed.get(&call);
            for arguments in rows.map_or_else(|| vec![[0; 6], [u64::MAX; 6]], |rows| combinations(rows)) {
                let wanted = rows.is_some_and(|rows| holds(rows, &arguments));
                let said = interpret(&program, X86_64, call, Some(arguments)).unwrap();
                assert_eq!(said == ALLOW, wanted, "{name}: {call:#x} with {arguments:x?}");
                // seccompiler does not know of x32: to it such a number is a plain one, unknown like every other.
                let oracle = interpret(&oracle, X86_64, call, Some(arguments)).unwrap();
                assert_eq!(oracle == ALLOW, wanted, "{name}: seccompiler: {call:#x} with {arguments:x?}");
                let unknown = syscalls::name(call).is_none();
                assert!(!unknown || said == ENOSYS, "{name}: {call:#x} is unknown and gets {said:#x}");
                // A refusal is one that the policy names, or the one on which libraries fall back.
                let default = denial(rules.seccomp.default.value);
                let named = rules.seccomp.actions.iter().map(|action| denial(action.value.denial));
                let refusal =
                    said == ENOSYS || said == default || named.into_iter().any(|named| said == named);
                assert!(wanted || refusal, "{name}: {call:#x} with {arguments:x?} gets {said:#x}");
                compared += 1;
            }
            for architecture in [I386, AARCH64, 0, u32::MAX] {
                for arguments in [[0; 6], [u64::MAX; 6]] {
                    let said = interpret(&program, architecture, call, Some(arguments));
                    assert_eq!(said, Some(KILL_PROCESS), "{name}: {call:#x} on {architecture:#x}");
                    let oracle = interpret(&oracle, architecture, call, Some(arguments));
                    assert_eq!(said, oracle, "{name}: seccompiler: {call:#x} on {architecture:#x}");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 80_000, "only {compared} answers were compared");
}

#[test]
fn no_shipped_filter_sees_the_high_half_of_an_argument() {
    for (name, rules) in shipped() {
        let closed = closed(&rules);
        let program = program(&rules, &closed);
        for (call, conditions) in conditions_of(&rules, &closed) {
            for arguments in combinations(&together(&conditions)) {
                let answer = |arguments| interpret(&program, X86_64, call, Some(arguments));
                let plain = answer(arguments.map(|argument| argument & u64::from(u32::MAX)));
                for high in [1 << 32, 1 << 63, u64::from(u32::MAX) << 32] {
                    let same = answer(arguments.map(|argument| argument | high));
                    assert_eq!(plain, same, "{name}: {call} with {arguments:x?} and {high:#x}");
                }
            }
        }
    }
}

/// The kernel works on each instruction when a filter is installed, which is a large part of what a launch costs.
#[test]
fn no_shipped_filter_is_long() {
    for (name, rules) in shipped() {
        let length = program(&rules, &closed(&rules)).len();
        assert!(length <= 200, "{name} has {length} instructions");
    }
}

/// No clock is anybody's to set: no policy that ships is of a time service.
#[test]
fn no_shipped_policy_lets_a_clock_be_set() {
    for (name, rules) in shipped() {
        let program = program(&rules, &closed(&rules));
        for call in ["clock_settime", "settimeofday", "clock_adjtime", "adjtimex"] {
            let number = syscalls::number(call).unwrap();
            for arguments in [[0; 6], [1; 6], [u64::MAX; 6]] {
                let said = interpret(&program, X86_64, number, Some(arguments)).unwrap();
                assert!(said != ALLOW && said != LOG, "{name} lets {call} through");
            }
        }
        // The control: looking at one is everybody's.
        let look = syscalls::number("clock_gettime").unwrap();
        assert_eq!(interpret(&program, X86_64, look, Some([0; 6])), Some(ALLOW), "{name}");
    }
}

/// A call that is decided by somebody else could be decided for another process: a pid is given anew, memory is exchanged.
/// So nobody else decides.
#[test]
fn no_filter_asks_another_process() {
    const USER_NOTIF: u32 = 0x7fc0_0000; // SECCOMP_RET_USER_NOTIF
    const TRACE: u32 = 0x7ff0_0000; // SECCOMP_RET_TRACE
    for (name, rules) in shipped() {
        for instruction in program(&rules, &closed(&rules)) {
            let action = instruction.k & 0xffff_0000;
            let asks = instruction.code == RETURN && [USER_NOTIF, TRACE].contains(&action);
            assert!(!asks, "{name}: {:#x}", instruction.k);
        }
    }
    for word in ["notify", "user-notif", "trace"] {
        let text = format!("extends = [\"base/default\"]\n[seccomp]\ndefault = \"{word}\"\n");
        let told = golden::refused(&text);
        assert!(told.contains(word) && told.contains("kill-process"), "{told}");
    }
}

/// The shipped policies and a strict one, with every architecture.
fn with_every_architecture() -> Vec<(String, Box<Confinement>)> {
    let mut all = shipped();
    all.push(("strict".to_owned(), Box::new(crate::compile::described::strict())));
    for (_, rules) in &mut all {
        rules.seccomp.architectures = [Architecture::Native, Architecture::I386, Architecture::X32].into();
    }
    all
}

/// Arguments at whose corners a call's conditions change their answer.
fn arguments_of(call: u32, conditions: &BTreeMap<u32, Vec<Condition>>) -> Vec<[u64; 6]> {
    let mut arguments = vec![[0; 6], [u64::from(u32::MAX); 6]];
    if let Some(conditions) = conditions.get(&call) {
        arguments.extend(combinations(&together(conditions)));
    }
    arguments
}

/// Every number of i386 and of x32 gets what the call of x86_64 gets that it is, as far as the filter can look at the same;
/// where it cannot, what that call gets when it is denied.
#[test]
fn another_architecture_gets_what_the_native_one_gets_or_less() {
    use crate::syscalls::foreign::{Foreign, MULTIPLEXERS, i386, x32};

    let mut compared = 0_u64;
    for (name, rules) in with_every_architecture() {
        let closed = closed(&rules);
        let conditions = conditions_of(&rules, &closed);
        let program = program(&rules, &closed);
        assert!(program.len() <= MOST_INSTRUCTIONS, "{name}: {}", program.len());
        let alone = Confinement {
            seccomp: Seccomp { architectures: [Architecture::Native].into(), ..rules.seccomp.clone() },
            ..(*rules).clone()
        };
        println!(
            "{name}: {} instructions, natively {}",
            program.len(),
            super::program(&alone, &closed).len()
        );
        let native = |call, arguments| interpret(&program, X86_64, call, Some(arguments)).unwrap();
        // What a call gets that no arguments could save.
        let denial = |call: u32| {
            verdict(&program, call).unwrap_or_else(|| {
                let denied = arguments_of(call, &conditions).into_iter().map(|with| native(call, with));
                denied.into_iter().find(|answer| *answer != ALLOW).expect("a condition can fail")
            })
        };
        let places = [(I386, 0, i386()), (X86_64, X32_BIT, x32())];
        for (architecture, bit, calls) in &places {
            let known: BTreeMap<u32, &Foreign> = calls.iter().map(|call| (call.number, call)).collect();
            for number in (0..=1100).chain([0x3fff_ffff]) {
                let multiplexer =
                    MULTIPLEXERS.iter().find(|call| *architecture == I386 && call.number == number);
                let answer = |with| interpret(&program, *architecture, bit | number, Some(with)).unwrap();
                if let Some(call) = multiplexer {
                    for value in (0..=64).chain([0x1_0001, 0x1_0017, u32::MAX]) {
                        let which = call.calls.iter().find(|(known, _)| *known == value & call.mask);
                        let wanted =
                            which.map_or(ENOSYS, |(_, name)| denial(syscalls::number(name).unwrap()));
                        let with = [u64::from(value), 0, 0, 0, 0, 0];
                        assert_eq!(answer(with), wanted, "{name}: {} {value:#x}", call.name);
                        compared += 1;
                    }
                    continue;
                }
                let Some(call) = known.get(&number) else {
                    assert_eq!(answer([0; 6]), ENOSYS, "{name}: {number} of {architecture:#x}");
                    compared += 1;
                    continue;
                };
                for with in arguments_of(call.native, &conditions) {
                    let wanted =
                        if call.same_arguments { native(call.native, with) } else { denial(call.native) };
                    assert_eq!(answer(with), wanted, "{name}: {} of {architecture:#x}, {with:x?}", call.name);
                    compared += 1;
                }
            }
        }
        for architecture in [AARCH64, 0, u32::MAX] {
            assert_eq!(interpret(&program, architecture, 0, Some([0; 6])), Some(KILL_PROCESS));
        }
    }
    assert!(compared > 20_000, "only {compared} answers were compared");
    println!("{compared} answers");
}
