//! The command line of motherctl, as clap reads it: one block a command. Help texts are these doc comments.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand, ValueEnum, ValueHint};
use nix::sys::signal::Signal;

use crate::control::protocol::State;

/// Look after services and the policies that confine them
///
/// Exit status: 0 done, 1 failed, 2 usage, 3 not running (status), 4 no such service, 5 no permission, 6 motherd
/// not reachable; `run` exits as its command does.
#[derive(Debug, Parser)]
#[command(name = "motherctl", version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// Reads a command line.
    pub(crate) fn read(words: &[OsString]) -> Result<Self, clap::Error> {
        plain(words).or_else(|| alone(words)).map_or_else(|| Self::try_parse_from(words), Ok)
    }
}

/// The plainest command lines, read by hand: building even one command's reader takes longer than reading a policy does. Any
/// other, and whatever could be an option or an error, is left to the readers.
fn plain(words: &[OsString]) -> Option<Args> {
    let words: Vec<&str> = words.iter().skip(1).map(|word| word.to_str()).collect::<Option<_>>()?;
    let is_value = |word: &str| !word.is_empty() && !word.starts_with('-');
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let command = match words.as_slice() {
        ["list"] => Command::List,
        ["status", services @ ..] if services.iter().all(|service| is_value(service)) => {
            Command::Status(Status { services: owned(services) })
        }
        ["run", "--policy", policy, "--", command @ ..] if is_value(policy) && !command.is_empty() => {
            let service = ServiceOptions {
                name: None,
                slice: None,
                variables: Vec::new(),
                restart: RestartWhen::Never,
                remain: false,
                wait: false,
            };
            Command::Run(Run { service, policy: (*policy).to_owned(), command: owned(command) })
        }
        _ => return None,
    };
    let global = Global {
        json: false,
        color: ColorWhen::Auto,
        socket: None,
        root: PathBuf::from("/"),
        policies: Vec::new(),
    };
    Some(Args { global, command })
}

/// A command line of which one command is all that there is: building all of them takes longer than most have to do. What
/// it reads the whole one reads as well, for that has the same flags, and a command is known by its whole word alone.
#[derive(Debug, Parser)]
#[command(name = "motherctl", disable_help_flag = true, disable_help_subcommand = true)]
struct Alone<C: Subcommand> {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: C,
}

#[derive(Debug, Subcommand)]
enum OnlyRun {
    #[command(disable_help_flag = true)]
    Run(Run),
}

#[derive(Debug, Subcommand)]
enum OnlyList {
    #[command(disable_help_flag = true)]
    List,
}

#[derive(Debug, Subcommand)]
enum OnlyStatus {
    #[command(disable_help_flag = true)]
    Status(Status),
}

/// One of those that scripts and people ask for all the time; `None` where it is another one, or anything else is to be said.
fn alone(words: &[OsString]) -> Option<Args> {
    fn read<C: Subcommand>(words: &[OsString], whole: impl FnOnce(C) -> Command) -> Option<Args> {
        let Alone { global, command } = Alone::<C>::try_parse_from(words).ok()?;
        Some(Args { global, command: whole(command) })
    }
    let word = words.iter().skip(1).find_map(|word| word.to_str().filter(|word| QUICK.contains(word)))?;
    match word {
        "run" => read(words, |OnlyRun::Run(run)| Command::Run(run)),
        "list" => read(words, |OnlyList::List| Command::List),
        _ => read(words, |OnlyStatus::Status(status)| Command::Status(status)),
    }
}

const QUICK: [&str; 3] = ["run", "list", "status"];

/// What every command has.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// Print JSON, versioned and stable, instead of text for people
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When to colour: auto is on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: ColorWhen,
    /// motherd's control socket [default: /run/motherd/motherd.sock]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// A prefix before the default paths of the socket and the policies
    #[arg(long, global = true, value_name = "DIR", default_value = "/", hide_default_value = true)]
    root: PathBuf,
    /// Where policies are; the first folder that has a name wins [default: /etc/motherd/policies,
    /// /usr/lib/motherd/policies]
    #[arg(long, global = true, value_name = "DIR")]
    policies: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorWhen {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Everything about services: state and why, figures and limits, isolation as attested, last log lines
    Status(Status),
    /// All services, one a line
    List,
    /// Who has whom started, with the state of each
    Tree {
        /// These and what they have started; all services when none is named
        #[arg(value_name = "SERVICE")]
        services: Vec<String>,
    },
    /// Wait until services are in a state; exit status 1 if that does not come, or the time is over
    ///
    /// By the events of motherd, and over its death. For one that is to be up and has failed nobody waits: it is not tried
    /// again unasked.
    Wait {
        /// up (running, reloading or done), or one of those that `list` shows
        #[arg(long, value_name = "STATE", default_value = "up", value_parser = awaited)]
        state: Awaited,
        /// At most so long: "200ms", "30s", "5m"
        #[arg(long, value_name = "TIME", value_parser = time)]
        timeout: Option<Duration>,
        #[arg(value_name = "SERVICE", required = true)]
        services: Vec<String>,
    },
    /// Why a service is as it is: who asked and through whom, what holds it back, how it ended, what comes next
    Why {
        #[arg(value_name = "SERVICE")]
        service: String,
    },
    /// All timers: when each goes off, and went off last
    Timers,
    /// What services wrote, each line with its time in UTC
    ///
    /// Read from the files in /var/log/motherd; motherd need not run.
    Logs {
        /// Go on as they write; begins with the last 10 lines unless --lines or --since says otherwise
        #[arg(short, long)]
        follow: bool,
        /// Only the last so many lines
        #[arg(short = 'n', long, value_name = "N", value_parser = count)]
        lines: Option<usize>,
        /// Only what was written since: "10m" ago, or a time in UTC like "2026-11-22 23:50"
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// All of them when none is named
        #[arg(value_name = "SERVICE")]
        services: Vec<String>,
    },
    /// What happened, oldest first: each change of a service with its cause
    Events {
        /// Go on as it happens
        #[arg(short, long)]
        follow: bool,
        /// Only the last so many
        #[arg(short = 'n', long, value_name = "N", value_parser = count)]
        lines: Option<usize>,
        /// Only what is about these
        #[arg(value_name = "SERVICE")]
        services: Vec<String>,
    },
    /// Start services and what they need
    Start {
        #[arg(value_name = "SERVICE", required = true)]
        services: Vec<String>,
    },
    /// Stop services, and what was started for them alone
    ///
    /// A service that another one needs is not stopped, unless all who need it are named as well.
    Stop {
        /// Stop those that need them first
        #[arg(long)]
        force: bool,
        #[arg(value_name = "SERVICE", required = true)]
        services: Vec<String>,
    },
    /// Stop services and start them again
    Restart {
        #[arg(value_name = "SERVICE", required = true)]
        services: Vec<String>,
    },
    /// Have each boot start services, beyond what the file of the group `system` says
    ///
    /// Written to /etc/motherd/enabled; motherd need not run.
    Enable {
        /// And start them at once
        #[arg(long)]
        now: bool,
        #[arg(value_name = "SERVICE", required = true)]
        services: Vec<String>,
    },
    /// Have no boot start services that were enabled
    Disable {
        /// And stop them at once
        #[arg(long)]
        now: bool,
        #[arg(value_name = "SERVICE", required = true)]
        services: Vec<String>,
    },
    /// Have services read their own configuration again
    Reload {
        #[arg(value_name = "SERVICE", required = true)]
        services: Vec<String>,
    },
    /// Read the service files anew, and say what is different; exit status 1 if there are errors in them
    ///
    /// What runs goes on; a changed file takes effect when its service is started again. With an error in any file
    /// nothing is changed.
    ReloadConfig {
        /// Change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Put another motherd into the place of the one that runs; no service notices
    ///
    /// The program is checked first: it has to read the state and the service files. The one that runs is kept, and comes
    /// back by itself if the new one dies early. Without PATH what is installed already takes over, by a package say.
    Upgrade {
        /// Put another initldr into the place of PID 1 instead, with all that it holds; motherd runs on
        #[arg(long)]
        initldr: bool,
        /// Only say whether it can take over
        #[arg(long)]
        check: bool,
        /// The new program
        #[arg(value_name = "PATH")]
        path: Option<PathBuf>,
    },
    /// What initldr keeps for services and motherd while they come and go: sockets, log pipes, processes, pushed descriptors
    #[command(name = "fdstore")]
    FdStore {
        /// Everything when none is named
        #[arg(value_name = "SERVICE")]
        services: Vec<String>,
    },
    /// Check all service files, their policies and their graph, without asking motherd; exit status 1 if there are errors
    Check,
    /// The graph of the services in the files, for dot(1)
    Graph,
    /// Send a signal to every process of services
    Kill {
        /// By name or number
        #[arg(short, long, value_name = "SIGNAL", default_value = "TERM", value_parser = signal)]
        signal: i32,
        #[arg(value_name = "SERVICE", required = true)]
        services: Vec<String>,
    },
    /// Run one command under a policy, without any daemon; or as a service without a file
    ///
    /// The exit status is the command's, or 128 and the signal that ended it; 125 the sandbox could not be built,
    /// 126 not executable, 127 not found. With --service motherd starts it, and it is listed, logged and controlled like
    /// any other service until it is down; the exit status is then 0 once it is started.
    Run(Run),
    /// Tools for policies
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// What this kernel and host offer to sandboxes and lack, and where they are lax; exit status 1 if anything is
    /// lacking
    Doctor,
    /// Stop everything and switch the machine off
    #[command(name = "poweroff")]
    PowerOff(Force),
    /// Stop everything and start the machine anew
    Reboot(Force),
    /// Stop everything and halt
    Halt(Force),
    /// Stop everything and start the kernel that `kexec --load` left; a reboot where there is none
    Kexec(Force),
    /// Stop everything and start user space anew, on the file system mounted on /rootfs if there is one
    SoftReboot(Force),
    /// Stop everything and have initldr exit, in a container or as an ordinary process
    Exit {
        /// initldr's exit status
        #[arg(value_name = "STATUS", default_value = "0", value_parser = status)]
        status: u8,
        #[command(flatten)]
        force: Force,
    },
    /// Arrange an end at a time, and tell users of it; or call it off
    #[command(disable_help_flag = true)]
    Shutdown(Shutdown),
    /// What is being stopped, and what holds the end of everything up
    Ending,
    /// Wait no longer for services that are being stopped: what was asked to end is killed, and the end of everything
    /// goes on without what SIGKILL did not end
    Skip {
        #[arg(value_name = "SERVICE", required = true)]
        services: Vec<String>,
    },
    /// A script for a shell, on standard output, with which it completes what motherctl takes, names of services too
    ///
    /// motherctl completions bash > /usr/share/bash-completion/completions/motherctl
    Completions {
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Write the manual pages of MotherD to a folder of them, for man(1)
    ///
    /// motherctl man /usr/local/share/man
    Man {
        /// /usr/local/share/man, or another one, which is made where it is not there
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

/// Those that there is a script for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Fish,
    Zsh,
}

/// How much of a hurry there is.
#[derive(Debug, clap::Args)]
pub(crate) struct Force {
    /// Stop nothing: processes are killed, file systems unmounted. Twice: not even that
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) force: u8,
}

/// The words of shutdown(8).
#[derive(Debug, clap::Args)]
pub(crate) struct Shutdown {
    /// Start the machine anew
    #[arg(short, long, group = "how")]
    pub(crate) reboot: bool,
    /// Switch it off, which is also what happens without any of these
    #[arg(short = 'h', short_alias = 'P', long, group = "how")]
    pub(crate) poweroff: bool,
    /// Halt it
    #[arg(short = 'H', long, group = "how")]
    pub(crate) halt: bool,
    /// Call off what was arranged
    #[arg(short, long, conflicts_with_all = ["how", "time", "message"])]
    pub(crate) cancel: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,
    /// now, +MINUTES or HH:MM of this machine's day; by itself one minute
    #[arg(value_name = "TIME")]
    pub(crate) time: Option<String>,
    /// What users are told besides
    #[arg(value_name = "MESSAGE")]
    pub(crate) message: Vec<String>,
}

/// Which services `status` is about.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// All of them when none is named
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
}

/// What `run` is given.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) service: ServiceOptions,
    /// A policy's name, or a file (with a / or ending in .toml)
    #[arg(long, value_name = "NAME|FILE", default_value = "base/default", value_hint = ValueHint::AnyPath)]
    pub(crate) policy: String,
    /// The command and its arguments; without a slash it is looked for in the PATH of the policy
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true, value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<String>,
}

/// What `run` makes a service of.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(crate) struct ServiceOptions {
    /// Have motherd run it as a service of this name
    #[arg(long = "service", value_name = "SERVICE")]
    pub(crate) name: Option<String>,
    /// The slice of its cgroup [default: system]
    #[arg(long, value_name = "SLICE", requires = "name")]
    pub(crate) slice: Option<String>,
    /// A variable, beside those of the policy; may be given again
    #[arg(long = "env", value_name = "NAME=VALUE", requires = "name", value_parser = variable)]
    pub(crate) variables: Vec<(String, String)>,
    /// When it is started again by itself
    #[arg(long, value_name = "WHEN", requires = "name", default_value = "never")]
    pub(crate) restart: RestartWhen,
    /// It is a oneshot, and stays up once it has succeeded, until it is stopped
    #[arg(long, requires = "name")]
    pub(crate) remain: bool,
    /// Wait for its end; the exit status is the command's
    #[arg(long, requires = "name")]
    pub(crate) wait: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RestartWhen {
    Never,
    Failure,
    Always,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check files and print everything that is wrong with them; exit status 1 if any of it is an error
    Check {
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// Also compile them for this machine: its paths, users and kernel
        #[arg(long)]
        host: bool,
    },
    /// May a service do this? Answered by what is compiled for this machine; exit status 0 for yes, 1 for no
    Can {
        /// A policy's name, or a file (with a / or ending in .toml)
        #[arg(value_name = "NAME|FILE", value_hint = ValueHint::AnyPath)]
        policy: String,
        /// read, write or exec a path; bind or connect a TCP port; call a system call; cap: use a capability
        #[arg(value_name = "ACT", value_parser = sandbox::question::ACTS)]
        act: String,
        /// The path, the port, the call or the capability
        #[arg(value_name = "OBJECT")]
        object: String,
    },
    /// A policy as resolved, each value with where it came from; the output is a policy itself
    Show {
        /// A policy's name, or a file (with a / or ending in .toml)
        #[arg(value_name = "NAME|FILE", value_hint = ValueHint::AnyPath)]
        policy: String,
    },
    /// What a policy allows and denies on this machine, in words
    Explain {
        /// A policy's name, or a file (with a / or ending in .toml)
        #[arg(value_name = "NAME|FILE", value_hint = ValueHint::AnyPath)]
        policy: String,
    },
    /// What policy B allows more or less than A, by effect and by key; exit status 1 if they differ
    Diff {
        /// A policy's name, or a file (with a / or ending in .toml)
        #[arg(value_name = "A")]
        a: String,
        /// Another
        #[arg(value_name = "B")]
        b: String,
    },
    /// The groups of system calls, or the calls of one
    Groups {
        /// `@file-system`
        #[arg(value_name = "@NAME")]
        group: Option<String>,
    },
}

impl Global {
    /// Where motherd listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.root.join("run/motherd/motherd.sock"))
    }

    /// Where motherd keeps what services write.
    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join("var/log/motherd")
    }

    /// Where motherd looks for services where it is not told otherwise, in this order.
    pub(crate) fn services(&self) -> Vec<PathBuf> {
        let usual = ["etc/motherd/services", "run/motherd/services", "usr/lib/motherd/services"];
        usual.map(|path| self.root.join(path)).into()
    }

    /// Where the names are of what a boot starts beyond what its group says.
    pub(crate) fn enabled(&self) -> PathBuf {
        self.root.join(crate::service::enabled::FOLDER)
    }

    /// Where policies are looked for, in this order.
    pub(crate) fn policies(&self) -> Vec<PathBuf> {
        if self.policies.is_empty() {
            ["etc/motherd/policies", "usr/lib/motherd/policies"].map(|path| self.root.join(path)).into()
        } else {
            self.policies.clone()
        }
    }
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// Running, reloading or done.
    Up,
    /// This one.
    State(State),
}

/// A state that a service can be waited for in.
fn awaited(text: &str) -> Result<Awaited, String> {
    let states = [
        State::Stopped,
        State::Waiting,
        State::Starting,
        State::Running,
        State::Reloading,
        State::Stopping,
        State::Backoff,
        State::Done,
        State::Failed,
        State::Orphan,
    ];
    if text == "up" {
        return Ok(Awaited::Up);
    }
    let known = states.map(State::name);
    states.into_iter().find(|state| state.name() == text).map(Awaited::State).ok_or_else(|| {
        let near = sandbox::diagnostic::nearest(text, known.into_iter().chain(["up"]));
        let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
        format!("{near}it is one of up, {}", known.join(", "))
    })
}

/// A time as service files have it.
fn time(text: &str) -> Result<Duration, String> {
    crate::service::duration(text).ok_or_else(|| "a time is a number and ms, s, m or h: 30s".to_owned())
}

/// How many lines.
fn count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "a number: 100".to_owned())
}

/// What a process can exit with.
fn status(text: &str) -> Result<u8, String> {
    text.parse().map_err(|_| "a number from 0 to 255".to_owned())
}

/// `NAME=VALUE`; which names there are is for motherd to say.
fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a variable is written NAME=VALUE".into()),
    }
}

/// `TERM`, `sigterm`, `15`; real-time signals by number.
fn signal(text: &str) -> Result<i32, String> {
    if let Ok(number) = text.parse() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err("1 to 64".into()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    name.parse::<Signal>().map(|signal| signal as i32).map_err(|_| {
        let near = sandbox::diagnostic::nearest(&name, Signal::iterator().map(Signal::as_str));
        let near = near.map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
        format!("no signal has this name{near}")
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        let whole = Args::try_parse_from(line.split(' '));
        // What is read without building the whole says the same.
        let words: Vec<_> = line.split(' ').map(OsString::from).collect();
        for args in alone(&words).into_iter().chain(plain(&words)) {
            assert_eq!(format!("{args:?}"), format!("{:?}", whole.as_ref().unwrap()), "{line}");
        }
        whole
    }

    #[test]
    fn what_is_asked_often_is_read_without_building_every_command() {
        let alone = |line: &str| {
            let whole = parse(line).map(|args| format!("{args:?}"));
            let words: Vec<_> = line.split(' ').map(OsString::from).collect();
            let args = alone(&words).map(|args| format!("{args:?}"));
            assert!(args.is_none() || args == whole.ok(), "{line}");
            args.is_some()
        };
        for line in [
            "motherctl list",
            "motherctl --json list",
            "motherctl --socket list --color never list",
            "motherctl status",
            "motherctl status list run status",
            "motherctl run --policy p -- ls --help -h --version",
            "motherctl run ls status",
            "motherctl --policies /p run --service x --env A=b --wait ls",
        ] {
            assert!(alone(line), "{line}");
        }
        // Help, errors and every other command are the whole's.
        for line in [
            "motherctl",
            "motherctl list list",
            "motherctl list --help",
            "motherctl status -h",
            "motherctl help list",
            "motherctl help run",
            "motherctl run --help",
            "motherctl run --wait ls",
            "motherctl --version list",
            "motherctl start list",
            "motherctl kill --signal run status",
            "motherctl --socket run start list",
            "motherctl wait --state status run",
            "motherctl policy show run",
            "motherctl lis",
        ] {
            assert!(!alone(line), "{line}");
        }
    }

    #[test]
    fn the_plainest_are_read_by_hand_and_say_the_same() {
        let by_hand = |line: &str| {
            let words: Vec<_> = line.split(' ').map(OsString::from).collect();
            // Where it is read, this compares.
            drop(parse(line));
            plain(&words).is_some()
        };
        for line in [
            "motherctl list",
            "motherctl status",
            "motherctl status web list run help",
            "motherctl run --policy base/default -- ls",
            "motherctl run --policy ./p.toml -- ls -la --json -- --policy x",
            "motherctl run --policy p -- -- --help",
        ] {
            assert!(by_hand(line), "{line}");
        }
        for line in [
            "motherctl",
            "motherctl list --json",
            "motherctl --json list",
            "motherctl list x",
            "motherctl status --help",
            "motherctl status -- x",
            "motherctl status  x",
            "motherctl run -- ls",
            "motherctl run --policy p ls",
            "motherctl run --policy p --",
            "motherctl run --policy -p -- ls",
            "motherctl run --policy  -- ls",
            "motherctl run --policy=p -- ls",
            "motherctl run --wait --policy p -- ls",
        ] {
            assert!(!by_hand(line), "{line}");
        }
    }

    #[test]
    fn the_command_line_has_no_contradiction_in_itself() {
        Args::command().debug_assert();
    }

    #[test]
    fn flags_may_stand_before_and_after_the_command() {
        assert!(parse("motherctl --json status web").unwrap().global.json);
        assert!(parse("motherctl status web --json").unwrap().global.json);
    }

    #[test]
    fn what_follows_the_command_of_run_is_the_commands() {
        let check = |line: &str, expected: &[&str]| {
            let args = parse(line).unwrap();
            let Command::Run(Run { policy, command, .. }) = args.command else { panic!("{line}") };
            assert_eq!(
                (policy.as_str(), command.iter().map(String::as_str).collect()),
                ("p", expected.to_vec())
            );
            assert!(!args.global.json);
        };
        check("motherctl run --policy p ls -l --json", &["ls", "-l", "--json"]);
        check("motherctl run --policy p -- ls -l", &["ls", "-l"]);
        check("motherctl run --policy=p -- -odd", &["-odd"]);
        assert_eq!(parse("motherctl run --polcy p ls").unwrap_err().exit_code(), 2, "no command is named so");
    }

    #[test]
    fn a_run_is_a_service_where_it_has_a_name() {
        let line = "motherctl run --service job --slice batch --env A=b --env C= --restart failure --wait -- /bin/x -y";
        let Command::Run(Run { service, policy, command }) = parse(line).unwrap().command else { panic!() };
        assert_eq!((service.name.as_deref(), service.slice.as_deref()), (Some("job"), Some("batch")));
        assert_eq!(service.variables, [("A".into(), "b".into()), ("C".into(), String::new())]);
        assert_eq!((service.restart, service.remain, service.wait), (RestartWhen::Failure, false, true));
        assert_eq!((policy.as_str(), command), ("base/default", vec!["/bin/x".into(), "-y".into()]));
        let Command::Run(Run { service, .. }) = parse("motherctl run ls").unwrap().command else { panic!() };
        assert_eq!((service.name, service.restart), (None, RestartWhen::Never));
    }

    #[test]
    fn a_usage_error_has_exit_status_2() {
        for line in [
            "motherctl",
            "motherctl start",
            "motherctl frobnicate",
            "motherctl policy check",
            "motherctl run --wait ls",
            "motherctl run --service x --env A ls",
            "motherctl run --service x --restart sometimes ls",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        assert_eq!(parse("motherctl --help").unwrap_err().exit_code(), 0);
    }

    #[test]
    fn a_signal_has_a_name_or_a_number() {
        assert_eq!(signal("TERM"), Ok(15));
        assert_eq!(signal("sighup"), Ok(1));
        assert_eq!(signal("64"), Ok(64));
        assert_eq!(signal("TREM").unwrap_err(), "no signal has this name, did you mean `SIGTERM`?");
        assert!(signal("0").is_err() && signal("65").is_err() && signal("SIGNAL").is_err());
    }

    #[test]
    fn a_number_that_is_none_is_told_what_a_number_is() {
        for (line, told) in [
            ("motherctl logs -n x", "a number: 100"),
            ("motherctl events --lines 1.5", "a number: 100"),
            ("motherctl exit 256", "a number from 0 to 255"),
            ("motherctl exit x", "a number from 0 to 255"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(told), "{line}: {error}");
        }
        let Command::Exit { status, .. } = parse("motherctl exit").unwrap().command else { panic!() };
        assert_eq!(status, 0);
    }

    #[test]
    fn shutdown_takes_the_words_that_it_always_took() {
        let check = |line: &str| match parse(line).map(|args| args.command) {
            Ok(Command::Shutdown(Shutdown { reboot, poweroff, halt, cancel, time, message, .. })) => {
                Some((reboot, poweroff, halt, cancel, time.unwrap_or_default(), message.join(" ")))
            }
            _ => None,
        };
        let none = || (false, false, false, false, String::new(), String::new());
        assert_eq!(check("motherctl shutdown"), Some(none()));
        assert_eq!(
            check("motherctl shutdown -r now"),
            Some((true, false, false, false, "now".into(), "".into()))
        );
        let words = (false, true, false, false, "+5".to_owned(), "a new disk".to_owned());
        assert_eq!(check("motherctl shutdown -h +5 a new disk"), Some(words.clone()));
        assert_eq!(check("motherctl shutdown -P +5 a new disk"), Some(words));
        assert_eq!(check("motherctl shutdown -c"), Some((false, false, false, true, "".into(), "".into())));
        assert_eq!(check("motherctl shutdown -r -h now"), None);
        assert_eq!(check("motherctl shutdown -c now"), None);
    }

    #[test]
    fn root_is_before_the_defaults_and_not_before_what_is_given() {
        let global = parse("motherctl --root /tmp/r list").unwrap().global;
        assert_eq!(global.socket(), PathBuf::from("/tmp/r/run/motherd/motherd.sock"));
        assert_eq!(global.policies()[1], PathBuf::from("/tmp/r/usr/lib/motherd/policies"));
        let global = parse("motherctl --root /tmp/r --socket /s --policies /p list").unwrap().global;
        assert_eq!((global.socket(), global.policies()), (PathBuf::from("/s"), vec![PathBuf::from("/p")]));
    }
}
