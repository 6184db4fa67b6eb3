//! What initldr starts, motherd and the rescue program, and how.
//!
//! Invariant: the child of the fork only makes system calls on values that were there before it, and it either
//! executes its program or exits.

use crate::boot::{Log, text};
use core::ffi::CStr;
use initldr::sys::{self, Arg, Errno, Fd, Result};
use initldr::{abi::*, args::Args, args::variable, link::LINK_FD, link::RESUME_FD, link::STATE_FD};

/// See the module.
pub(crate) struct Program {
    motherd: &'static CStr,
    previous: &'static CStr,
    rescue: Option<&'static CStr>,
    /// What initldr itself was given. Its tail is motherd's, from `name` on.
    arguments: &'static mut [Arg],
    name: usize,
    environment: [Arg; 7],
    /// Of before this process raised its own.
    limit: Option<Limit>,
}

/// Where there is no such variable.
pub(crate) const PATH: &CStr = c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const LINK: Arg = Arg::new(c"INITLDR_LINK=3");
const RESUME: Arg = Arg::new(c"INITLDR_RESUME=3");
const STATE: Arg = Arg::new(c"INITLDR_STATE=4");
const _: () = assert!(LINK_FD == 3 && STATE_FD == 4 && RESUME_FD == 3);

impl Program {
    /// motherd's arguments are initldr's own after `--`: the word before them, which is `--` or initldr's last one, is
    /// made motherd's name in the child, so that nothing has to be copied.
    pub(crate) fn new(args: Args, arguments: &'static mut [Arg], environment: &[Arg]) -> Program {
        let words = arguments.len().saturating_sub(1); // without the NULL
        let name = args.separator.unwrap_or(words.saturating_sub(1));
        // The last two are for containers (systemd.io/CONTAINER_INTERFACE); where one is missing, one is there twice.
        let usual =
            [(&b"PATH"[..], PATH), (b"TERM", c"TERM=linux"), (b"NOTIFY_SOCKET", PATH), (b"container", PATH)];
        let [path, term, notify, container] =
            usual.map(|(name, usual)| variable(environment, name).unwrap_or(Arg::new(usual)));
        Program {
            motherd: args.motherd.unwrap_or(c"/usr/sbin/motherd"),
            previous: args.previous.unwrap_or(c"/usr/sbin/motherd.prev"),
            rescue: args.rescue,
            arguments,
            name,
            environment: [LINK, STATE, path, term, notify, container, Arg::NULL],
            limit: raise_file_limit(),
        }
    }

    /// Starts motherd, or the previous one where there is one, with its end of the link and the state; its pid.
    pub(crate) fn start_motherd(&mut self, previous: bool, link: &Fd, state: &Fd, log: &Log) -> Result<u32> {
        start(self.motherd, log, || {
            // First out of the way of each other: either may be 3 or 4 already.
            let [link, state] = [sys::duplicate_high(link)?, sys::duplicate_high(state)?];
            sys::duplicate_onto(&link, LINK_FD)?;
            sys::duplicate_onto(&state, STATE_FD)?;
            sys::setsid()?; // a Ctrl-C on initldr's terminal is for initldr alone, which passes it on
            let named = self.arguments.get_mut(self.name).filter(|word| word.text().is_some());
            named.into_iter().for_each(|word| *word = Arg::new(self.motherd));
            let arguments = self.arguments.get(self.name..).unwrap_or_default();
            if previous {
                let errno = self.execute(self.previous, arguments)?;
                log.say(format_args!("start {}: {errno}", text(self.previous)));
            }
            self.execute(self.motherd, arguments)
        })
    }

    /// Starts the rescue program, where one was named, with the console as its terminal; its pid. A console that
    /// cannot be had leaves it the descriptors of initldr.
    pub(crate) fn start_rescue(&self, log: &Log) -> Option<u32> {
        let path = self.rescue?;
        log.say(format_args!("motherd keeps dying: {} runs on the console", text(path)));
        let pid = start(path, log, || {
            sys::setsid()?; // before the open, which is what makes the console this session's terminal
            if let Ok(console) = sys::open(c"/dev/console", O_RDWR).and_then(|fd| sys::duplicate_high(&fd)) {
                sys::take_terminal(&console).unwrap_or_default(); // a console without job control is one still
                (0..=2).try_for_each(|number| sys::duplicate_onto(&console, number))?;
            }
            // Whatever is not installed, there is a prompt; a password is asked for where there is who can.
            for other in [path, c"/sbin/sulogin", c"/bin/sh"] {
                let errno = self.execute(other, &[Arg::new(other), Arg::NULL])?;
                log.say(format_args!("start {}: {errno}", text(other)));
            }
            Err(Errno(ENOENT))
        });
        pid.map_err(|errno| log.say(format_args!("fork for {}: {errno}", text(path)))).ok()
    }

    /// Executes an initldr in the place of this one, as it was started; returns why not. One that does not resume begins
    /// with nothing but the arguments: what this one held was for processes that are gone.
    pub(crate) fn begin_anew(&self, path: &CStr, resumes: bool) -> Errno {
        let mut environment = self.environment;
        environment[1] = RESUME;
        // A limit that stays raised is no reason not to begin.
        self.limit.iter().try_for_each(sys::limit_files).unwrap_or_default();
        let errno = sys::execve(path, self.arguments, &environment[if resumes { 1 } else { 2 }..]);
        raise_file_limit();
        errno
    }

    /// Everything else that initldr has open is close-on-exec.
    fn execute(&self, path: &CStr, arguments: &[Arg]) -> Result<Errno> {
        self.limit.iter().try_for_each(sys::limit_files)?;
        sys::block_only(&0)?;
        Ok(sys::execve(path, arguments, &self.environment))
    }
}

/// Lets this process open twice the 4096 descriptors that the store has slots for: the kernel gives PID 1 a limit of 4096 in
/// all, which CAP_SYS_RESOURCE raises. Returns the limits of before, which its children get back.
fn raise_file_limit() -> Option<Limit> {
    let [low, top] = sys::file_limit().ok()?;
    sys::limit_files(&[top.max(8192); 2]).or_else(|_| sys::limit_files(&[top; 2])).ok().map(|()| [low, top])
}

/// `become_it` runs in the child, and returns why it failed. 126 and 127 are what a shell exits with.
fn start(path: &CStr, log: &Log, become_it: impl FnOnce() -> Result<Errno>) -> Result<u32> {
    let pid = sys::fork()?;
    if pid == 0 {
        let errno = become_it().unwrap_or_else(|errno| errno);
        log.say(format_args!("start {}: {errno}", text(path)));
        sys::exit(if errno == Errno(ENOENT) { 127 } else { 126 })
    }
    Ok(pid)
}
