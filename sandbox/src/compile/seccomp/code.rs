//! From verdicts on ranges of call numbers to instructions.
//!
//! Installing a filter costs by the instruction, for the kernel checks, translates and compiles each, and by the length of
//! the way to each call's verdict, for it walks that way once for every call number there is. So verdicts that are said
//! more than once are there once, and jumped to; ranges are parted so that the wide ones are near; and a call that is an
//! exception in the middle of others is asked for by its number, in one instruction instead of two.
//!
//! The program is written from its end, because every jump of BPF goes forward: whatever is jumped to is there already,
//! and how far away it is is known. A conditional jump reaches 255 instructions; where that is too near, the verdict is
//! said once more, or an unconditional jump stands in between.

use std::collections::BTreeMap;

use seccompiler::sock_filter;

use super::{
    AND, Condition, Equal, I386, JUMP, JUMP_EQUAL, JUMP_GREATER_EQUAL, LOAD_WORD, OFFSET_ARCHITECTURE,
    OFFSET_ARGUMENTS, OFFSET_NUMBER, RETURN, Verdict, X86_64,
};
use crate::compile::seccomp::{ALLOW, KILL_PROCESS};

/// What a call with conditions weighs beside one without: the kernel remembers what it answers to these, and runs the
/// program for those each time they are made.
const CONDITIONAL: u32 = 4;
/// So many exceptions are asked for one after the other.
const CHAIN: usize = 2;
/// How far a jump may go that is yet to be written: less than 255 by what may come between it and its target meanwhile.
const NEAR: usize = 240;

/// The whole program. Each range begins at its number and ends before the next one's; the first begins at 0.
pub(super) fn assemble(native: &[(u32, Verdict)], i386: Option<&[(u32, Verdict)]>) -> Vec<sock_filter> {
    let mut code = Code::default();
    let i386 = i386.map(|ranges| code.architecture(ranges));
    let native = code.architecture(native);
    let mut foreign = code.verdict(KILL_PROCESS);
    if let Some(i386) = i386 {
        foreign = code.jump_if(JUMP_EQUAL, I386, i386, foreign);
    }
    code.jump_if(JUMP_EQUAL, X86_64, native, foreign);
    code.push(LOAD_WORD, OFFSET_ARCHITECTURE);
    code.reversed.reverse();
    code.reversed
}

/// An instruction, counted from the end: the last is 1.
type Label = usize;

#[derive(Debug, Default)]
struct Code {
    reversed: Vec<sock_filter>,
    /// Where a verdict is said, the nearest.
    verdicts: BTreeMap<u32, Label>,
    /// Where what is asked of arguments begins, the nearest.
    blocks: Vec<(Vec<Condition>, u32, Label)>,
}

impl Code {
    /// The part for the numbers of one architecture.
    fn architecture(&mut self, ranges: &[(u32, Verdict)]) -> Label {
        let tree = self.tree(ranges, u32::MAX);
        self.falls_through_to(tree);
        self.push(LOAD_WORD, OFFSET_NUMBER);
        self.here()
    }

    /// The instruction that was written last.
    fn here(&self) -> Label {
        self.reversed.len()
    }

    /// How many instructions lie between the next one that is written and this one.
    fn distance(&self, to: Label) -> usize {
        self.here() - to
    }

    fn push(&mut self, code: u16, k: u32) {
        self.reversed.push(sock_filter { code, jt: 0, jf: 0, k });
    }

    /// The instruction that is written next goes on with this one, wherever it is.
    fn falls_through_to(&mut self, to: Label) {
        if self.distance(to) > 0 {
            let distance = u32::try_from(self.distance(to)).unwrap_or(u32::MAX);
            self.push(JUMP, distance);
        }
    }

    /// The same place, or one that leads there, within the reach of a conditional jump.
    fn near(&mut self, to: Label) -> Label {
        if self.distance(to) <= NEAR {
            return to;
        }
        self.falls_through_to(to);
        self.here()
    }

    /// A verdict, within reach.
    fn verdict(&mut self, value: u32) -> Label {
        if let Some(label) = self.verdicts.get(&value).filter(|label| self.distance(**label) <= NEAR) {
            return *label;
        }
        self.push(RETURN, value);
        self.verdicts.insert(value, self.here());
        self.here()
    }

    /// Goes on to one of two places. Where both are the same nothing has to be asked.
    fn jump_if(&mut self, code: u16, k: u32, then: Label, otherwise: Label) -> Label {
        let (then, otherwise) = (self.near(then), self.near(otherwise));
        let reach = |label| u8::try_from(self.distance(label)).unwrap_or(u8::MAX);
        let (jt, jf) = (reach(then), reach(otherwise));
        self.reversed.push(sock_filter { code, jt, jf, k });
        self.here()
    }

    /// The accumulator holds the call's number, which is in one of these ranges, before `end`.
    fn tree(&mut self, ranges: &[(u32, Verdict)], end: u32) -> Label {
        if let Some((usual, exceptions)) = exceptions(ranges, end) {
            let usual = self.leaf(usual);
            // The most frequent is asked for first, so it is written last.
            return exceptions.into_iter().fold(usual, |otherwise, (call, verdict)| {
                let then = self.leaf(verdict);
                self.jump_if(JUMP_EQUAL, call, then, otherwise)
            });
        }
        let (low, high) = ranges.split_at(middle(ranges));
        let start = high.first().map_or(0, |(start, _)| *start);
        let (high, low) = (self.tree(high, end), self.tree(low, start));
        self.jump_if(JUMP_GREATER_EQUAL, start, high, low)
    }

    fn leaf(&mut self, verdict: &Verdict) -> Label {
        match verdict {
            Verdict::Return(value) => self.verdict(*value),
            Verdict::ByValue { argument, mask, cases, otherwise } => {
                let otherwise = self.verdict(*otherwise);
                let first = cases.iter().rev().fold(otherwise, |otherwise, (value, answer)| {
                    let then = self.verdict(*answer);
                    self.jump_if(JUMP_EQUAL, *value, then, otherwise)
                });
                self.load(*argument, *mask, first)
            }
            Verdict::When { conditions, denied } => {
                let known = self.blocks.iter().rev().find(|(known, value, label)| {
                    known == conditions && value == denied && self.distance(*label) <= NEAR
                });
                if let Some((_, _, label)) = known {
                    return *label;
                }
                let begin = self.verdict(ALLOW);
                let label = conditions
                    .iter()
                    .rev()
                    .fold(begin, |holds, condition| self.condition(condition, holds, *denied));
                self.blocks.push((conditions.clone(), *denied, label));
                label
            }
        }
    }

    /// Goes on to `holds` if a condition does. The accumulator's content is lost.
    fn condition(&mut self, condition: &Condition, holds: Label, denied: u32) -> Label {
        match condition {
            Condition::IsOneOf { argument, values } => {
                let denied = self.verdict(denied);
                let first = values
                    .iter()
                    .rev()
                    .fold(denied, |otherwise, value| self.jump_if(JUMP_EQUAL, *value, holds, otherwise));
                self.load(*argument, u32::MAX, first)
            }
            Condition::LacksSome { argument, bits } => {
                self.masked(*argument, *bits, *bits, holds, denied, false)
            }
            Condition::HasNone { argument, bits } => self.masked(*argument, *bits, 0, holds, denied, true),
            Condition::HasAll { argument, bits } => self.masked(*argument, *bits, *bits, holds, denied, true),
            Condition::HasSome { argument, bits } => self.masked(*argument, *bits, 0, holds, denied, false),
            Condition::HasNoneIf { argument, bits, other, has } => {
                let looked_at = self.masked(*argument, *bits, 0, holds, denied, true);
                let test = self.jump_if(JUMP_EQUAL, 0, holds, looked_at);
                self.load(*other, *has, test)
            }
            Condition::AnyRow(rows) => self.rows(rows, holds, denied),
        }
    }

    /// Whether the bits of an argument that are in the mask are these, or whether they are not.
    fn masked(&mut self, argument: u8, mask: u32, value: u32, holds: Label, denied: u32, are: bool) -> Label {
        let denied = self.verdict(denied);
        let (then, otherwise) = if are { (holds, denied) } else { (denied, holds) };
        let test = self.jump_if(JUMP_EQUAL, value, then, otherwise);
        self.load(argument, mask, test)
    }

    /// The low half of an argument under a mask into the accumulator (x86_64 is little-endian, and i386 has no high half).
    fn load(&mut self, argument: u8, mask: u32, test: Label) -> Label {
        self.falls_through_to(test);
        if mask != u32::MAX {
            self.push(AND, mask);
        }
        self.push(LOAD_WORD, OFFSET_ARGUMENTS + 8 * u32::from(argument));
        self.here()
    }

    /// One row after the other; in a row one comparison after the other. A row that begins with what the one before it began
    /// with finds that in the accumulator.
    fn rows(&mut self, rows: &[Vec<Equal>], holds: Label, denied: u32) -> Label {
        let mut otherwise = self.verdict(denied);
        let mut after: Option<(&Equal, Label)> = None;
        for row in rows.iter().rev() {
            let Some((first, rest)) = row.split_first() else {
                // A row that asks for nothing holds.
                (otherwise, after) = (holds, None);
                continue;
            };
            let then = rest.iter().rev().fold(holds, |then, equal| {
                let test = self.jump_if(JUMP_EQUAL, equal.value, then, otherwise);
                self.load(equal.argument, equal.mask, test)
            });
            let same = |next: &Equal| (next.argument, next.mask) == (first.argument, first.mask);
            let next = after.filter(|(next, _)| same(next)).map_or(otherwise, |(_, test)| test);
            let test = self.jump_if(JUMP_EQUAL, first.value, then, next);
            after = Some((first, test));
            otherwise = self.load(first.argument, first.mask, test);
        }
        otherwise
    }
}

/// The verdict of most of these numbers, and the few single calls of which another is right; `None` where they are more, or
/// are not single.
fn exceptions(ranges: &[(u32, Verdict)], end: u32) -> Option<(&Verdict, Vec<(u32, &Verdict)>)> {
    // Two neighbours never have the same verdict, so that more ranges have more exceptions in them.
    if ranges.len() > 2 * CHAIN + 1 {
        return None;
    }
    let width = |index: usize| ranges.get(index + 1).map_or(end, |(next, _)| *next) - ranges[index].0;
    let widest = (0..ranges.len()).max_by_key(|index| width(*index))?;
    let usual = &ranges[widest].1;
    let others: Vec<usize> = (0..ranges.len()).filter(|index| ranges[*index].1 != *usual).collect();
    let few = others.len() <= CHAIN && others.iter().all(|index| width(*index) == 1);
    let mut exceptions: Vec<(u32, &Verdict)> =
        others.into_iter().map(|index| (ranges[index].0, &ranges[index].1)).collect();
    exceptions.sort_by_key(|(_, verdict)| matches!(verdict, Verdict::When { .. }));
    few.then_some((usual, exceptions))
}

/// Where to part ranges so that both halves weigh about the same.
fn middle(ranges: &[(u32, Verdict)]) -> usize {
    let weight = |index: usize| match &ranges[index].1 {
        Verdict::When { .. } | Verdict::ByValue { .. } => CONDITIONAL,
        Verdict::Return(_) => ranges.get(index + 1).map_or(1, |(next, _)| next - ranges[index].0),
    };
    let total: u32 = (0..ranges.len()).map(weight).sum();
    let mut before = 0;
    let mut best = (u32::MAX, 1);
    for index in 1..ranges.len() {
        before += weight(index - 1);
        best = best.min((before.abs_diff(total - before), index));
    }
    best.1
}
