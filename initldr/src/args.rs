//! The command line, `initldr [--motherd PATH] [--previous PATH] [--rescue PATH] [-- ARGS for motherd]`, read off the first stack.
//!
//! Invariant: nothing is copied. PID 1 gets words here that were meant for the kernel (`ro`, `quiet`, `auto`), so an
//! unknown one is remembered, for a line in the log, and is no reason not to boot.

use crate::sys::Arg;
use core::ffi::CStr;

/// What the command line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Args {
    /// The program to supervise.
    pub motherd: &'static CStr,
    /// What to launch instead when it dies early again and again.
    pub previous: &'static CStr,
    /// What to start on the console when motherd dies again and again.
    pub rescue: Option<&'static CStr>,
    /// Where `--` is: what follows goes to motherd.
    pub separator: Option<usize>,
    /// The first word that is not understood.
    pub unknown: Option<&'static CStr>,
}

/// Reads the arguments; the first is the name of this program.
pub fn parse(arguments: &[Arg]) -> Args {
    let (motherd, previous) = (c"/usr/sbin/motherd", c"/usr/sbin/motherd.prev");
    let mut args = Args { motherd, previous, rescue: None, separator: None, unknown: None };
    let mut words = (0..).zip(arguments).skip(1).map_while(|(index, word)| Some((index, word.text()?)));
    while let Some((index, word)) = words.next() {
        if word == c"--" {
            return Args { separator: Some(index), ..args };
        }
        let option = word == c"--motherd" || word == c"--previous" || word == c"--rescue";
        match if option { words.next() } else { None } {
            Some((_, path)) if word == c"--motherd" => args.motherd = path,
            Some((_, path)) if word == c"--previous" => args.previous = path,
            Some((_, path)) => args.rescue = Some(path),
            None => args.unknown = args.unknown.or(Some(word)),
        }
    }
    args
}

/// The value of a variable, as the whole `NAME=value`, for the environment of a child.
pub fn variable(environment: &[Arg], name: &[u8]) -> Option<Arg> {
    let rest = |variable: &Arg| variable.text()?.to_bytes().strip_prefix(name)?.first().copied();
    environment.iter().copied().find(|variable| rest(variable) == Some(b'='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &[&'static CStr]) -> Args {
        let mut vector = vec![Arg::new(c"initldr")];
        vector.extend(words.iter().map(|word| Arg::new(word)));
        vector.push(Arg::NULL);
        parse(&vector)
    }

    const DEFAULT: Args = Args {
        motherd: c"/usr/sbin/motherd",
        previous: c"/usr/sbin/motherd.prev",
        rescue: None,
        separator: None,
        unknown: None,
    };

    #[test]
    fn a_bare_command_line_starts_the_installed_motherd() {
        assert_eq!(check(&[]), DEFAULT);
        assert_eq!(parse(&[Arg::NULL]), DEFAULT, "not even a name");
    }

    #[test]
    fn options_are_read_up_to_the_separator() {
        let args = check(&[c"--motherd", c"/m", c"--rescue", c"/bin/sh", c"--", c"--motherd", c"--x"]);
        let rescue = Some(c"/bin/sh");
        assert_eq!(args, Args { motherd: c"/m", rescue, separator: Some(5), ..DEFAULT });
    }

    #[test]
    fn words_of_the_kernel_are_remembered_and_harmless() {
        let args = check(&[c"ro", c"auto", c"--motherd", c"/m"]);
        assert_eq!(args, Args { motherd: c"/m", unknown: Some(c"ro"), ..DEFAULT });
        assert_eq!(check(&[c"--rescue"]).unknown, Some(c"--rescue"), "without its value");
    }

    #[test]
    fn a_variable_is_found_by_its_whole_name() {
        let environment = [c"PATHS=x", c"TERM=linux", c"PATH=/bin"].map(Arg::new);
        let value = |name: &[u8]| variable(&environment, name).and_then(Arg::text);
        assert_eq!(
            (value(b"PATH"), value(b"TERM"), value(b"ERM")),
            (Some(c"PATH=/bin"), Some(c"TERM=linux"), None)
        );
    }
}
