//! Runs a program as the kernel would, for tests and for `policy can`: the instructions that the assembler has, no others.

use super::assembler::{SKB_LOAD_BYTES, op};
use crate::sys::bpf::Instruction;

/// What a program is run on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'i> {
    /// The context, as the verifier shows it to the program.
    pub(crate) context: &'i [u8],
    /// The packet from its network header on; programs that have none cannot load from it.
    pub(crate) packet: &'i [u8],
}

/// The bytes of the stack.
const STACK: usize = 512;
/// Where the context and the end of the stack are in an address space of the interpreter's own.
const CONTEXT: u64 = 0x1_0000;
const STACK_END: u64 = 0x2_0000;

/// A program that the verifier would not have accepted, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault(pub(crate) &'static str);

/// Runs a program; its answer is 1 where the kernel shall go on.
pub(crate) fn run(program: &[Instruction], input: Input<'_>) -> Result<u64, Fault> {
    let mut machine = Machine { registers: [0; 11], stack: [0; STACK], input };
    machine.registers[1] = CONTEXT;
    machine.registers[10] = STACK_END;
    let mut at: usize = 0;
    // Jumps go forward alone, so that no instruction is executed twice.
    while let Some(instruction) = program.get(at) {
        at += 1;
        if instruction.code == op::EXIT {
            return Ok(machine.registers[0]);
        }
        if instruction.code == op::IMMEDIATE_64 {
            let high = program.get(at).ok_or(Fault("half of a wide number"))?;
            let value = u64::from(instruction.immediate.cast_unsigned())
                | u64::from(high.immediate.cast_unsigned()) << 32;
            *machine.to(*instruction)? = value;
            at += 1;
            continue;
        }
        if machine.step(*instruction)? {
            at += usize::try_from(instruction.offset).map_err(|_| Fault("a jump backwards"))?;
        }
    }
    Err(Fault("runs off its end"))
}

struct Machine<'i> {
    registers: [u64; 11],
    stack: [u8; STACK],
    input: Input<'i>,
}

impl Machine<'_> {
    fn to(&mut self, instruction: Instruction) -> Result<&mut u64, Fault> {
        self.registers.get_mut(usize::from(instruction.registers & 0xf)).ok_or(Fault("no such register"))
    }

    fn value(&self, register: u8) -> Result<u64, Fault> {
        self.registers.get(usize::from(register)).copied().ok_or(Fault("no such register"))
    }

    /// Whether to jump.
    fn step(&mut self, instruction: Instruction) -> Result<bool, Fault> {
        let to = self.value(instruction.registers & 0xf)?;
        let from = self.value(instruction.registers >> 4)?;
        // Sign-extended, as all but 32-bit operations have it.
        let number = i64::from(instruction.immediate).cast_unsigned();
        let low = |value: u64| value & 0xffff_ffff;
        let result = match instruction.code {
            op::ADD => to.wrapping_add(number),
            op::AND => to & number,
            op::SHIFT_RIGHT => to >> (number & 63),
            op::MOVE => number,
            op::MOVE_REGISTER => from,
            op::BIG_ENDIAN => match instruction.immediate {
                16 => u16::try_from(to & 0xffff).map_or(0, u16::swap_bytes).into(),
                32 => u32::try_from(low(to)).map_or(0, u32::swap_bytes).into(),
                64 => to.swap_bytes(),
                _ => return Err(Fault("no such width")),
            },
            op::LOAD_32 => self.load(from, instruction.offset, 4)?,
            op::LOAD_64 => self.load(from, instruction.offset, 8)?,
            op::CALL => return self.call(instruction.immediate).map(|()| false),
            op::JUMP => return Ok(true),
            op::IF_EQUAL => return Ok(to == number),
            op::IF_NOT_EQUAL => return Ok(to != number),
            op::IF_AT_LEAST_32 => return Ok(low(to) >= low(number)),
            op::IF_ABOVE_REGISTER => return Ok(to > from),
            op::IF_AT_LEAST_REGISTER => return Ok(to >= from),
            op::IF_BELOW_REGISTER => return Ok(to < from),
            _ => return Err(Fault("no such instruction")),
        };
        *self.to(instruction)? = result;
        Ok(false)
    }

    fn load(&self, base: u64, offset: i16, length: usize) -> Result<u64, Fault> {
        let address = base.wrapping_add_signed(i64::from(offset));
        let (memory, start) = match address {
            address if address >= STACK_END => return Err(Fault("above the stack")),
            address if address >= STACK_END - STACK as u64 => {
                (&self.stack[..], address - (STACK_END - STACK as u64))
            }
            address => (self.input.context, address.checked_sub(CONTEXT).ok_or(Fault("below the context"))?),
        };
        let start = usize::try_from(start).map_err(|_| Fault("outside of memory"))?;
        let bytes = memory.get(start..start + length).ok_or(Fault("outside of memory"))?;
        let mut wide = [0; 8];
        wide[..length].copy_from_slice(bytes);
        Ok(u64::from_le_bytes(wide))
    }

    /// The one helper.
    fn call(&mut self, helper: i32) -> Result<(), Fault> {
        if helper != SKB_LOAD_BYTES || self.registers[1] != CONTEXT {
            return Err(Fault("no such helper"));
        }
        let number = |value: u64| usize::try_from(value).map_err(|_| Fault("outside of memory"));
        let (offset, length) = (number(self.registers[2])?, number(self.registers[4])?);
        let to =
            self.registers[3].checked_sub(STACK_END - STACK as u64).ok_or(Fault("outside of the stack"))?;
        let to = number(to)?;
        let target = self.stack.get_mut(to..to + length).ok_or(Fault("outside of the stack"))?;
        self.registers[0] = match self.input.packet.get(offset..offset + length) {
            Some(bytes) => {
                target.copy_from_slice(bytes);
                0
            }
            // -EFAULT
            None => (-14_i64).cast_unsigned(),
        };
        // Lost in a call: a program that used them would not have been loaded.
        for register in 1..=5 {
            self.registers[register] = u64::MAX;
        }
        Ok(())
    }
}
