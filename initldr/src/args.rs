//! The command line, read off the first stack: `initldr [--motherd PATH] [--previous PATH] [--rescue PATH] [-- ARGS for
//! motherd]`, or `initldr [--group] -- COMMAND [ARGS]`. What follows `--` is a command where no motherd is named and it
//! does not begin with `-`, which each word for motherd does.
//!
//! Invariant: nothing is copied. PID 1 gets words here that were meant for the kernel (`ro`, `quiet`, `auto`), so an
//! unknown one is remembered, for a line in the log, and is no reason not to boot.

use crate::sys::Arg;
use core::ffi::CStr;

/// What the command line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Args {
    /// The program to supervise.
    pub motherd: Option<&'static CStr>,
    /// What to launch instead when it dies early again and again.
    pub previous: Option<&'static CStr>,
    /// What to start on the console when motherd dies again and again.
    pub rescue: Option<&'static CStr>,
    /// Where `--` is: what follows goes to motherd, or is the command.
    pub separator: Option<usize>,
    /// A command is run, and no motherd.
    pub command: bool,
    /// Signals go to every process of the command's group.
    pub group: bool,
    /// The first word that is not understood.
    pub unknown: Option<&'static CStr>,
}

/// Reads the arguments; the first is the name of this program.
pub fn parse(arguments: &[Arg]) -> Args {
    let mut args = Args::default();
    let mut words = (0..).zip(arguments).skip(1).map_while(|(index, word)| Some((index, word.text()?)));
    while let Some((index, word)) = words.next() {
        if word == c"--" {
            let is_name = |(_, word): (_, &CStr)| !word.to_bytes().starts_with(b"-");
            args.command = args.motherd.is_none() && words.next().is_some_and(is_name);
            args.separator = Some(index);
            break;
        }
        match (word.to_bytes(), &mut args) {
            (b"--group", args) => args.group = true,
            (b"--motherd", Args { motherd: value, .. })
            | (b"--previous", Args { previous: value, .. })
            | (b"--rescue", Args { rescue: value, .. })
                if let Some((_, path)) = words.next() =>
            {
                *value = Some(path);
            }
            (_, args) => args.unknown = args.unknown.or(Some(word)),
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

    #[test]
    fn a_bare_command_line_starts_the_installed_motherd() {
        assert_eq!(check(&[]), Args::default());
        assert_eq!(parse(&[Arg::NULL]), Args::default(), "not even a name");
    }

    #[test]
    fn options_are_read_up_to_the_separator() {
        let args = check(&[c"--motherd", c"/m", c"--rescue", c"/bin/sh", c"--", c"--motherd", c"--x"]);
        let rescue = Some(c"/bin/sh");
        assert_eq!(args, Args { motherd: Some(c"/m"), rescue, separator: Some(5), ..Args::default() });
    }

    #[test]
    fn a_command_is_told_from_words_for_motherd() {
        let check = |words: &[&'static CStr]| (check(words).command, check(words).group);
        assert_eq!(check(&[c"--", c"sleep", c"-5"]), (true, false));
        assert_eq!(check(&[c"--group", c"--", c"/bin/sh"]), (true, true));
        assert_eq!(check(&[c"--", c""]), (true, false), "which will not be found");
        assert_eq!(check(&[c"--", c"--root", c"/srv"]), (false, false));
        assert_eq!(check(&[c"--motherd", c"/m", c"--", c"word"]), (false, false));
        assert_eq!((check(&[c"--"]), check(&[c"sleep", c"5"])), ((false, false), (false, false)));
    }

    #[test]
    fn words_of_the_kernel_are_remembered_and_harmless() {
        let args = check(&[c"ro", c"auto", c"--motherd", c"/m"]);
        assert_eq!(args, Args { motherd: Some(c"/m"), unknown: Some(c"ro"), ..Args::default() });
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
