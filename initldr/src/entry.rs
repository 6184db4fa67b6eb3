//! The first instructions, and the functions that the compiler calls without being asked.
//!
//! They are assembly because there is no C library to start this program or to bring `memcpy`, and because a `memcpy`
//! written in Rust may be compiled into a call of itself.

use core::{arch::global_asm, panic::PanicInfo, time::Duration};
use initldr::{abi, line::Line, outbox::Outbox, sys};

// `_start`: the kernel enters with the argument vector at the stack pointer, and no promise about any other register.
// The rest: `rep` is fast enough for messages of 256 bytes, but `repe` begins late where names differ early; the direction
// flag is clear on every call (System V ABI); memmove goes from the end where the destination begins inside the source;
// nothing compared is equal.
// rust_eh_personality: the compiled core library names its unwinder; nothing unwinds (panic = "abort").
global_asm!(
    ".globl _start, memcpy, memmove, memset, memcmp, bcmp, strlen, rust_eh_personality",
    "_start: xor ebp, ebp; mov rdi, rsp; and rsp, -16; call {start}; ud2",
    "memcpy: mov rax, rdi; mov rcx, rdx; rep movsb; ret",
    "memmove: mov rax, rdi; mov rcx, rdx; mov r8, rdi; sub r8, rsi; cmp r8, rdx; jb 2f; rep movsb; ret",
    "2: lea rdi, [rdi + rdx - 1]; lea rsi, [rsi + rdx - 1]; std; rep movsb; cld; ret",
    "memset: mov r8, rdi; mov eax, esi; mov rcx, rdx; rep stosb; mov rax, r8; ret",
    "memcmp: bcmp: xor eax, eax; xor ecx, ecx; 5: cmp rcx, rdx; je 3f; inc rcx",
    "movzx eax, byte ptr [rdi + rcx - 1]; movzx r8d, byte ptr [rsi + rcx - 1]; sub eax, r8d; je 5b",
    "3: ret; strlen: xor eax, eax; 4: cmp byte ptr [rdi + rax], 0; je 3b; inc rax; jmp 4b; rust_eh_personality: ud2",
    start = sym start,
);

/// What is too large for the stack, and all zero at the start: it is no part of the file.
static mut OUTBOX: Outbox = Outbox::EMPTY;

/// From the first instructions to `main`.
///
/// # Safety
/// Called once, by `_start`, with the stack pointer of the program's entry.
unsafe extern "C" fn start(stack: *mut usize) -> ! {
    // SAFETY: `_start` passes the stack pointer as the kernel set it, and runs once.
    let (arguments, environment) = unsafe { sys::first_stack(stack) };
    let outbox = &raw mut OUTBOX;
    // SAFETY: this function runs once, before anything else, and the static is named nowhere but here.
    crate::main(arguments, environment, unsafe { &mut *outbox })
}

/// Nothing in PID 1 is meant to panic. Should it, the machine must not die with it (the kernel panics when PID 1
/// exits): this one says so, lets Ctrl-Alt-Del reboot at once, and goes on as a reaper. Services and motherd run on;
/// starting over would lose every descriptor and start a second motherd. Any other process simply ends.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let line = Line::new("<2>", format_args!("{info}"));
    let log = sys::open(c"/dev/kmsg", abi::O_WRONLY);
    // There is nobody left to tell of a failure.
    sys::write(log.as_ref().map_or(2, sys::Fd::raw), line.as_bytes()).unwrap_or_default();
    if sys::getpid() != Ok(1) {
        sys::exit(101);
    }
    sys::reboot(abi::LINUX_REBOOT_CMD_CAD_ON).unwrap_or_default();
    loop {
        while matches!(sys::wait(abi::WEXITED), Ok(Some(_))) {}
        sys::ppoll([], Some(Duration::from_secs(1))).unwrap_or_default();
    }
}
