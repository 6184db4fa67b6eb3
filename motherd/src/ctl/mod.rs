//! motherctl: one command read, done and printed.
//!
//! ```text
//! args.rs --Command--> remote.rs (asks motherd)            --reply--> render/ --text--> output.rs
//!                      run.rs, policy.rs, answers.rs, doctor.rs (work by themselves); transient.rs: `run --service`
//!                      completions.rs, manual/: what shells and man(1) are told, out of args.rs and docs/
//!                      names.rs: other names that it goes by, and the words they take
//! ```
//!
//! Only here is an exit status made, and an error printed: once.

mod answers;
mod args;
mod completions;
mod doctor;
mod enabled;
mod ending;
mod events;
mod failure;
mod files;
mod logs;
mod manual;
mod names;
mod output;
mod policy;
mod remote;
pub(crate) mod render;
mod run;
mod transient;
mod upgrade;
mod wait;

use std::ffi::OsString;

use self::{
    args::{Args, Command, Force, PolicyCommand, Run, Status},
    failure::Failure,
    output::complain,
};
use crate::{
    control::protocol::{How, Request},
    sys::process::begin_as_programs_do,
};

/// The whole program, of these words. It does not return, so that what is still to be written is written.
pub fn main(words: Vec<OsString>) -> ! {
    // Nobody could be told: there is no standard error.
    let status = if begin_as_programs_do().is_ok() { status(words) } else { 1 };
    #[allow(clippy::exit, reason = "here is where motherctl ends")]
    std::process::exit(status.into())
}

fn status(words: Vec<OsString>) -> u8 {
    let words = match names::translate(words) {
        Ok(words) => words,
        Err(why) => {
            complain(&format!("{why}\n"));
            return 2;
        }
    };
    let args = match Args::read(&words) {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    match execute(args) {
        Ok(status) => status,
        Err(failure) => {
            complain(&format!(
                "{failure}
"
            ));
            failure.status
        }
    }
}

/// Help goes to standard output and is no error; the rest goes to standard error with exit status 2.
fn usage(error: &clap::Error) -> u8 {
    match error.print() {
        Ok(()) => u8::try_from(error.exit_code()).unwrap_or(2),
        Err(_) => 1,
    }
}

fn execute(Args { global, command }: Args) -> Result<u8, Failure> {
    let ask = |request| remote::ask(&global, &request);
    match command {
        Command::Status(Status { services }) => ask(Request::Status { services, brief: false }),
        Command::Events { follow, lines, services } => events::events(&global, services, lines, follow),
        Command::Logs { follow, lines, since, services } => {
            logs::logs(&global, &services, lines, since.as_deref(), follow)
        }
        Command::Tree { services } => ask(Request::Tree { services }),
        Command::Wait { state, timeout, services } => wait::wait(&global, &services, state, timeout),
        Command::Why { service } => ask(Request::Why { service }),
        Command::Timers => ask(Request::Timers),
        Command::List => ask(Request::List),
        Command::Start { services } => ask(Request::Start { services }),
        Command::Stop { services, force } => ask(Request::Stop { services, force }),
        Command::Restart { services } => ask(Request::Restart { services }),
        Command::Enable { now, services } => enabled::enable(&global, &services, now),
        Command::Disable { now, services } => enabled::disable(&global, &services, now),
        Command::Reload { services } => ask(Request::Reload { services }),
        Command::Check => files::check(&global),
        Command::Graph => files::graph(&global),
        Command::ReloadConfig { dry_run } => ask(Request::ReloadConfig { dry_run }),
        Command::FdStore { services } => ask(Request::FdStore { services }),
        Command::Upgrade { path, initldr, check } => {
            upgrade::upgrade(&global, path.as_deref(), initldr, check)
        }
        Command::Kill { signal, services } => ask(Request::Kill { services, signal }),
        Command::PowerOff(Force { force }) => ending::end(&global, How::Poweroff, 0, force),
        Command::Reboot(Force { force }) => ending::end(&global, How::Reboot, 0, force),
        Command::Halt(Force { force }) => ending::end(&global, How::Halt, 0, force),
        Command::Kexec(Force { force }) => ending::end(&global, How::Kexec, 0, force),
        Command::SoftReboot(Force { force }) => ending::end(&global, How::SoftReboot, 0, force),
        Command::Exit { status, force: Force { force } } => ending::end(&global, How::Exit, status, force),
        Command::Shutdown(arguments) => ending::shutdown(&global, &arguments),
        Command::Ending => ask(Request::Ending),
        Command::Skip { services } => ask(Request::Skip { services }),
        Command::Run(Run { service, policy, command }) => match &service.name {
            Some(name) => transient::run(&global, name, &service, &policy, &command),
            None => run::run(&global, &policy, &command),
        },
        Command::Policy(PolicyCommand::Check { files, host }) => policy::check(&global, &files, host),
        Command::Policy(PolicyCommand::Can { policy, act, object }) => {
            answers::can(&global, &policy, &act, &object)
        }
        Command::Policy(PolicyCommand::Show { policy }) => answers::show(&global, &policy),
        Command::Policy(PolicyCommand::Explain { policy }) => answers::explain(&global, &policy),
        Command::Policy(PolicyCommand::Diff { a, b }) => answers::diff(&global, &a, &b),
        Command::Policy(PolicyCommand::Groups { group }) => answers::groups(&global, group.as_deref()),
        Command::Doctor => doctor::doctor(&global),
        Command::Completions { shell } => completions::completions(shell),
        Command::Man { folder } => manual::man(&global, &folder),
    }
}
