//! The filter's parts for other architectures: what a policy says of the calls of x86_64, said of theirs.

use super::{ENOSYS, Verdict, X32_BIT};
use crate::syscalls::foreign::{self, Foreign, MULTIPLEXERS, Multiplexer};

/// Ranges of numbers with one verdict each, from the first number on; what is not in the table is unknown.
fn ranges(first: u32, calls: impl Iterator<Item = (u32, Verdict)>) -> Vec<(u32, Verdict)> {
    let unknown = Verdict::Return(ENOSYS);
    let mut ranges = vec![(first, unknown.clone())];
    let mut push = |number: u32, verdict: Verdict| {
        // A range that would have no number in it is replaced.
        if ranges.last().is_some_and(|(start, _)| *start == number) {
            ranges.pop();
        }
        if ranges.last().is_none_or(|(_, last)| *last != verdict) {
            ranges.push((number, verdict));
        }
    };
    for (number, verdict) in calls {
        push(number, verdict);
        push(number + 1, unknown.clone());
    }
    ranges
}

/// What is said of a call where its conditions cannot be looked at: the denial, whatever the arguments are.
fn without_conditions(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::When { denied, .. } => Verdict::Return(denied),
        other @ (Verdict::Return(_) | Verdict::ByValue { .. }) => other,
    }
}

fn said_of(call: &Foreign, native: &impl Fn(u32) -> Verdict) -> Verdict {
    let verdict = native(call.native);
    if call.same_arguments { verdict } else { without_conditions(verdict) }
}

/// Each of the calls that it is gets what it would get by itself, without a look at its arguments.
fn multiplexer(call: &Multiplexer, native: &impl Fn(u32) -> Verdict) -> Verdict {
    let answer = |(value, name): &(u32, &'static str)| {
        let number = crate::syscalls::number(name).expect("a test looks every one of them up");
        match without_conditions(native(number)) {
            Verdict::Return(answer) => (*value, answer),
            Verdict::When { denied, .. } => (*value, denied),
            Verdict::ByValue { otherwise, .. } => (*value, otherwise),
        }
    };
    let cases: Vec<(u32, u32)> = call.calls.iter().map(answer).collect();
    Verdict::ByValue { argument: 0, mask: call.mask, cases, otherwise: ENOSYS }
}

/// The calls of the i386 gate.
pub(super) fn i386(native: &impl Fn(u32) -> Verdict) -> Vec<(u32, Verdict)> {
    let calls = foreign::i386();
    let mut calls: Vec<(u32, Verdict)> =
        calls.iter().map(|call| (call.number, said_of(call, native))).collect();
    calls.extend(MULTIPLEXERS.iter().map(|call| (call.number, multiplexer(call, native))));
    calls.sort_by_key(|(number, _)| *number);
    ranges(0, calls.into_iter())
}

/// The calls of x32: numbers of the same architecture with a bit more.
pub(super) fn x32(native: &impl Fn(u32) -> Verdict) -> Vec<(u32, Verdict)> {
    let calls = foreign::x32();
    ranges(X32_BIT, calls.iter().map(|call| (X32_BIT | call.number, said_of(call, native))))
}
