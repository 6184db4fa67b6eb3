//! Instructions by their names, and a balanced tree of comparisons.

use crate::sys::bpf::Instruction;

/// A register: R0 is the answer, R1 the context at the start, R1 to R5 are lost in a call, R10 is the end of the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Register(pub(super) u8);

pub(super) const R0: Register = Register(0);
pub(super) const R1: Register = Register(1);
pub(super) const R2: Register = Register(2);
pub(super) const R3: Register = Register(3);
pub(super) const R4: Register = Register(4);
pub(super) const R5: Register = Register(5);
pub(super) const R6: Register = Register(6);
pub(super) const R7: Register = Register(7);
pub(super) const R10: Register = Register(10);

/// Operations: class, source and code in one byte (linux/bpf_common.h, linux/bpf.h).
pub(super) mod op {
    pub(in super::super) const ADD: u8 = 0x07; // BPF_ALU64 | BPF_ADD | BPF_K
    pub(in super::super) const AND: u8 = 0x57;
    pub(in super::super) const SHIFT_RIGHT: u8 = 0x77;
    pub(in super::super) const MOVE: u8 = 0xb7;
    pub(in super::super) const MOVE_REGISTER: u8 = 0xbf;
    pub(in super::super) const BIG_ENDIAN: u8 = 0xdc; // BPF_ALU | BPF_END | BPF_TO_BE
    pub(in super::super) const LOAD_32: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
    pub(in super::super) const LOAD_64: u8 = 0x79; // BPF_LDX | BPF_MEM | BPF_DW
    pub(in super::super) const IMMEDIATE_64: u8 = 0x18; // BPF_LD | BPF_IMM | BPF_DW, in two slots
    pub(in super::super) const JUMP: u8 = 0x05; // BPF_JMP | BPF_JA
    pub(in super::super) const IF_EQUAL: u8 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    pub(in super::super) const IF_NOT_EQUAL: u8 = 0x55;
    // BPF_JMP32: the immediate of a 64-bit jump is sign-extended, which an address above 128.0.0.0 would not survive.
    pub(in super::super) const IF_AT_LEAST_32: u8 = 0x36;
    pub(in super::super) const IF_ABOVE_REGISTER: u8 = 0x2d;
    pub(in super::super) const IF_AT_LEAST_REGISTER: u8 = 0x3d;
    pub(in super::super) const IF_BELOW_REGISTER: u8 = 0xad;
    pub(in super::super) const CALL: u8 = 0x85;
    pub(in super::super) const EXIT: u8 = 0x95;
}

/// The helper that copies bytes of a packet to the stack: (context, offset, to, length), 0 where it has them.
pub(super) const SKB_LOAD_BYTES: i32 = 26;

const fn instruction(code: u8, to: Register, from: Register, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: to.0 | from.0 << 4, offset, immediate }
}

/// An operation on a register and a number.
pub(super) const fn with(code: u8, to: Register, immediate: i32) -> Instruction {
    instruction(code, to, R0, 0, immediate)
}

/// An operation on two registers.
pub(super) const fn on(code: u8, to: Register, from: Register) -> Instruction {
    instruction(code, to, from, 0, 0)
}

/// Loads from the memory at a register and an offset.
pub(super) const fn load(code: u8, to: Register, from: Register, offset: i16) -> Instruction {
    instruction(code, to, from, offset, 0)
}

/// A number of 64 bits.
pub(super) const fn wide(to: Register, value: u64) -> [Instruction; 2] {
    let low = (value & 0xffff_ffff) as u32;
    let high = (value >> 32) as u32;
    [
        with(op::IMMEDIATE_64, to, low.cast_signed()),
        Instruction { code: 0, registers: 0, offset: 0, immediate: high.cast_signed() },
    ]
}

/// Over the next `distance` instructions, if the comparison with a number holds.
pub(super) fn jump(code: u8, register: Register, immediate: i32, distance: usize) -> Instruction {
    instruction(code, register, R0, offset(distance), immediate)
}

/// The same, with a register.
pub(super) fn jump_on(code: u8, register: Register, other: Register, distance: usize) -> Instruction {
    instruction(code, register, other, offset(distance), 0)
}

/// How far a jump goes.
pub(super) fn offset(distance: usize) -> i16 {
    i16::try_from(distance).expect(
        "the lengths of lists are bounded so that no jump is longer (policy::addresses, policy::devices)",
    )
}

/// Ends with this answer: 1 lets it be.
pub(super) fn answer(allowed: bool) -> [Instruction; 2] {
    [with(op::MOVE, R0, allowed.into()), with(op::EXIT, R0, 0)]
}

/// From a number on, up to the next range, this is the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range<T> {
    pub(super) from: T,
    pub(super) allowed: bool,
}

/// Answers by where a number lies among sorted ranges, the first of which begins at zero, in as many comparisons as the
/// number of ranges has bits. `below` jumps over the code it is given the length of unless the number is below `from`.
pub(super) fn tree<T: Copy>(
    ranges: &[Range<T>],
    unless_below: &impl Fn(T, usize) -> Vec<Instruction>,
) -> Vec<Instruction> {
    match ranges {
        [] => answer(false).to_vec(),
        [one] => answer(one.allowed).to_vec(),
        several => {
            let (lower, upper) = several.split_at(several.len() / 2);
            let lower = tree(lower, unless_below);
            let mut code = unless_below(upper[0].from, lower.len());
            code.extend(lower);
            code.extend(tree(upper, unless_below));
            code
        }
    }
}

/// Sorted points, and a verdict for what lies from each up to the next: neighbours that agree become one range.
pub(super) fn ranges<T: Copy + Ord>(mut points: Vec<T>, allowed: impl Fn(T) -> bool) -> Vec<Range<T>> {
    points.sort_unstable();
    points.dedup();
    let mut ranges: Vec<Range<T>> =
        points.into_iter().map(|from| Range { from, allowed: allowed(from) }).collect();
    ranges.dedup_by_key(|range| range.allowed);
    ranges
}
