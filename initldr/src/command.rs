//! `initldr [--group] -- COMMAND`: a reaper around one command, as the first process of a container or anywhere else.
//!
//! Every signal is passed on to the command, or to its whole process group, and initldr exits as the command did: with
//! its status, or with 128 and the signal that ended it. What it leaves behind gets SIGTERM, and SIGKILL if it must be.
//! The command leads a process group of its own and has the terminal, if initldr had it; where it is stopped from the
//! terminal, so is initldr, for a shell to see.
//!
//! Invariant: PID 1 of a machine does not exit even here.

use crate::boot::{Log, Role, text};
use crate::end::{self, Ending};
use crate::program::PATH;
use core::{ffi::CStr, time::Duration};
use initldr::sys::{self, Arg, Errno, Fd};
use initldr::{abi::*, args::variable, link::End, link::ExitRecord, mounts::PATH_SIZE, phase::Mercy};

/// See the module. `command` and `environment` end in NULL.
pub(crate) fn run(role: Role, log: &Log, command: &[Arg], environment: &[Arg], group: bool) -> ! {
    let own = sys::own_group().unwrap_or_default();
    let foreground = sys::terminal_of() == Ok(own);
    let (mut signals, mut status) = (None, 125); // there was no memory for a process
    match sys::fork() {
        Ok(0) => {
            let errno = become_it(command, environment, foreground);
            log.say(format_args!(
                "{}: {errno}",
                command.first().and_then(|name| name.text()).map_or("", text)
            ));
            sys::exit(if errno == Errno(ENOENT) { 127 } else { 126 })
        }
        Ok(pid) => {
            sys::lead_group(pid).unwrap_or_default(); // so does the child: neither may be too late
            status = loop {
                let ExitRecord { pid: who, code, status, .. } = match sys::wait(WEXITED | WSTOPPED) {
                    Ok(Some(news)) => news,
                    Ok(None) | Err(_) => {
                        pass_on(&mut signals, if group { -pid.cast_signed() } else { pid.cast_signed() });
                        continue;
                    }
                };
                let status = status.cast_unsigned();
                match code {
                    _ if who != pid => {}
                    CLD_EXITED => break status,
                    CLD_KILLED | CLD_DUMPED => break 128 + status,
                    _ if role == Role::Process && [SIGTSTP, SIGTTIN, SIGTTOU].contains(&status) => {
                        // Where nobody could continue us the kernel does not stop us either.
                        sys::getpid().and_then(|me| sys::kill(me.cast_signed(), SIGTSTP)).unwrap_or_default();
                        sys::block_only(&!(1 << (SIGTSTP - 1))).unwrap_or_default(); // this is where it stops
                        sys::block_only(&u64::MAX).unwrap_or_default();
                        if sys::terminal_of() == Ok(own) {
                            sys::give_terminal(&pid).unwrap_or_default();
                        }
                        sys::kill(-pid.cast_signed(), SIGCONT).unwrap_or_default();
                    }
                    _ => {}
                }
            };
            if sys::terminal_of() == Ok(pid) {
                sys::give_terminal(&own).unwrap_or_default();
            }
        }
        Err(errno) => log.say(format_args!("fork: {errno}")),
    }
    let ending = Ending { role, log, signals: signals.as_ref(), watchdog: None };
    if role == Role::Machine {
        end::end(ending, None, End::PowerOff, Mercy::Terminate);
    }
    ending.clear_away(Mercy::Terminate);
    sys::exit(status)
}

/// Waits for a signal, and passes on what there is.
fn pass_on(signals: &mut Option<Fd>, to: i32) {
    *signals = signals.take().or_else(|| sys::signalfd(&u64::MAX).ok());
    let (number, at_most) = signals.as_ref().map_or((-1, Some(RETRY)), |fd| (fd.raw(), None));
    sys::ppoll([[number, POLLIN]], at_most).unwrap_or_default();
    while let Some(signal) = signals.as_ref().and_then(sys::next_signal) {
        if signal.number != SIGCHLD {
            sys::kill(to, signal.number).unwrap_or_default(); // ESRCH: it ended just now
        }
    }
}

/// Where the kernel has no memory for what is asked of it, this much later is soon enough.
const RETRY: Duration = Duration::from_millis(100);

/// In the child: what execvp(3) does, and why it failed.
fn become_it(command: &[Arg], environment: &[Arg], foreground: bool) -> Errno {
    sys::lead_group(0).unwrap_or_default();
    if foreground {
        sys::own_group().and_then(|own| sys::give_terminal(&own)).unwrap_or_default();
    }
    sys::block_only(&0).unwrap_or_default();
    let Some(name) = command.first().and_then(|name| name.text()) else { return Errno(EINVAL) };
    if name.to_bytes().contains(&b'/') {
        return sys::execve(name, command, environment);
    }
    let path = variable(environment, b"PATH").and_then(Arg::text).unwrap_or(PATH).to_bytes();
    let mut found = Errno(ENOENT);
    for folder in path.get(5..).unwrap_or_default().split(|&byte| byte == b':') {
        let mut file = [0; PATH_SIZE];
        let folder = if folder.is_empty() { b"." } else { folder };
        let letters = [folder, b"/", name.to_bytes_with_nul()].into_iter().flatten();
        file.iter_mut().zip(letters).for_each(|(place, letter)| *place = *letter);
        let Ok(file) = CStr::from_bytes_until_nul(&file) else { continue };
        match sys::execve(file, command, environment) {
            Errno(ENOENT | ENOTDIR) => {}
            errno => found = errno,
        }
    }
    found
}
