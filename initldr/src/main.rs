//! `initldr`: PID 1. `initldr [--motherd PATH] [--previous PATH] [--rescue PATH] [-- ARGS for motherd]`, or
//! `initldr [--group] -- COMMAND [ARGS]`, which is in [`command`].
//!
//! It prepares the machine, launches motherd, reaps whatever dies, remembers what must outlive motherd, and ends the
//! machine. As any process but PID 1 it does the same for its own descendants, without the machine.
//!
//! Invariants: no allocation (there is no allocator), one wait (`ppoll` in [`init`]), no exit of PID 1.
//!
//! Where it does not end a machine it exits with 0, or what motherd says, where motherd asked for the end, 1 where it
//! ended by itself, 2 for a command line that it does not understand.
#![no_std]
#![no_main]

mod boot;
mod command;
mod end;
#[allow(unsafe_code, reason = "the first instructions of a program that has no C library to start it")]
mod entry;
mod init;
mod program;
mod release;
mod succession;
mod watchdog;

use initldr::{args, link, outbox::Outbox, sys, sys::Arg};

/// In the program's file: whoever is about to execute it in the place of another can tell whether it can read what that
/// one leaves. The number is that of [`link::VERSION`].
#[used]
static MARK: [u8; 29] = *b"initldr speaks link version 3";

const USAGE: &str = "initldr [--motherd PATH] [--previous PATH] [--rescue PATH] [-- ARGS for motherd], or \
                     initldr [--group] -- COMMAND [ARGS]";

/// In the order in which it happens.
fn main(arguments: &'static mut [Arg], environment: &[Arg], outbox: &'static mut Outbox) -> ! {
    let resumes = args::variable(environment, b"INITLDR_RESUME").is_some()
        && sys::descriptor_flags(link::RESUME_FD) == Ok(0);
    let args = args::parse(arguments);
    let (role, log) = boot::prepare(args.command, resumes);
    if let Some(word) = args.unknown {
        log.say(format_args!("argument not understood: {}", boot::text(word)));
        if role == boot::Role::Process {
            log.say(format_args!("usage: {USAGE}"));
            sys::exit(2);
        }
    }
    if let Some(separator) = args.separator.filter(|_| args.command) {
        command::run(role, &log, arguments.get(separator + 1..).unwrap_or_default(), environment, args.group);
    }
    let rescue = args.rescue.or((role == boot::Role::Machine).then_some(c"/usr/lib/motherd/rescue"));
    let program = program::Program::new(args::Args { rescue, ..args }, arguments, environment);
    let mut init = init::Init::new(role, log, program, outbox);
    if resumes {
        init.resume();
    }
    init::run(init)
}
