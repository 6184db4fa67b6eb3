//! What initldr starts, motherd and the rescue program, and how.
//!
//! Invariant: the child of the fork only makes system calls on values that were there before it, and it either
//! executes its program or exits.

use crate::boot::{Log, text};
use core::ffi::CStr;
use initldr::{
    abi::{self, Limit},
    args::{Args, variable},
    link::{LINK_FD, STATE_FD},
    sys::{self, Arg, Errno, Fd, Result, Signals},
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Program {
    motherd: &'static CStr,
    rescue: Option<&'static CStr>,
    /// Of motherd: the tail of what initldr itself was given.
    arguments: &'static [Arg],
    environment: [Arg; 5],
    /// Of before this process raised its own.
    limits: Option<Limit>,
}

const PATH: Arg = Arg::new(c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
const TERM: Arg = Arg::new(c"TERM=linux");
const LINK: Arg = Arg::new(c"INITLDR_LINK=3");
const STATE: Arg = Arg::new(c"INITLDR_STATE=4");
const _: () = assert!(LINK_FD == 3 && STATE_FD == 4);

impl Program {
    /// motherd's arguments are initldr's own after `--`: the word before them, which is `--` or initldr's last one,
    /// is made motherd's name, so that nothing has to be copied.
    pub(crate) fn new(
        args: Args,
        arguments: &'static mut [Arg],
        environment: &[Arg],
        limits: Option<Limit>,
    ) -> Program {
        let name = args.separator.unwrap_or(arguments.len().saturating_sub(2));
        if arguments.len() > 1
            && let Some(word) = arguments.get_mut(name)
        {
            *word = Arg::new(args.motherd);
        }
        let path = variable(environment, b"PATH").unwrap_or(PATH);
        let term = variable(environment, b"TERM").unwrap_or(TERM);
        Program {
            motherd: args.motherd,
            rescue: args.rescue,
            arguments: arguments.get(name..).unwrap_or_default(),
            environment: [LINK, STATE, path, term, Arg::NULL],
            limits,
        }
    }

    /// Starts motherd with its end of the link and the state; its pid.
    pub(crate) fn start_motherd(&self, link: &Fd, state: &Fd, log: &Log) -> Result<u32> {
        if let Some(pid) = sys::fork()? {
            return Ok(pid);
        }
        let errno = self.become_motherd(link, state).unwrap_or_else(|errno| errno);
        log.say(format_args!("start {}: {errno}", text(self.motherd)));
        sys::exit(if errno == Errno(abi::ENOENT) { 127 } else { 126 })
    }

    /// Starts the rescue program, where one was named, with the console as its terminal; its pid.
    pub(crate) fn start_rescue(&self, log: &Log) -> Option<u32> {
        let path = self.rescue?;
        match sys::fork() {
            Ok(Some(pid)) => {
                log.say(format_args!("motherd keeps dying: {} runs on the console", text(path)));
                return Some(pid);
            }
            Ok(None) => {}
            Err(errno) => {
                log.say(format_args!("fork for {}: {errno}", text(path)));
                return None;
            }
        }
        let errno = self.become_rescue(path).unwrap_or_else(|errno| errno);
        log.say(format_args!("start {}: {errno}", text(path)));
        sys::exit(127)
    }

    /// In the child. Returns why it did not become motherd.
    fn become_motherd(&self, link: &Fd, state: &Fd) -> Result<Errno> {
        // First out of the way of each other: either may be 3 or 4 already.
        let link = sys::duplicate_high(link)?;
        let state = sys::duplicate_high(state)?;
        sys::duplicate_onto(&link, LINK_FD)?;
        sys::duplicate_onto(&state, STATE_FD)?;
        sys::setsid()?; // a Ctrl-C on initldr's terminal is for initldr alone, which passes it on
        self.execute(self.motherd, self.arguments)
    }

    /// In the child. A console that cannot be had leaves the program the descriptors of initldr.
    fn become_rescue(&self, path: &'static CStr) -> Result<Errno> {
        sys::setsid()?; // before the open, which is what makes the console this session's terminal
        if let Ok(console) = sys::open(c"/dev/console", abi::O_RDWR).and_then(|fd| sys::duplicate_high(&fd)) {
            sys::take_terminal(&console).unwrap_or_default(); // a console without job control is one still
            for number in 0..=2 {
                sys::duplicate_onto(&console, number)?;
            }
        }
        self.execute(path, &[Arg::new(path), Arg::NULL])
    }

    /// Everything else that initldr has open is close-on-exec.
    fn execute(&self, path: &CStr, arguments: &[Arg]) -> Result<Errno> {
        if self.limits.is_some() {
            sys::limit_files(self.limits)?;
        }
        sys::block_only(Signals::NONE)?;
        Ok(sys::execve(path, arguments, &self.environment))
    }
}
