//! `motherctl run --service NAME`: a command as a service without a file of anybody's.
//!
//! The options become the text of a service file, which motherd checks, keeps and starts like any other; here is only the
//! way there, and with `--wait` the way to the exit status. A motherd that ends meanwhile is waited for: the service runs
//! on, and the next motherd knows how it ended.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    args::{Global, RestartWhen, ServiceOptions},
    failure::Failure,
    output::{print, print_json},
    policy::is_file,
    remote,
    render::printable,
    run::{DEFAULT_PATH, NO_SANDBOX, NOT_FOUND, SIGNALED, candidates},
};
use crate::control::{
    client::{CallError, Client},
    protocol::{ExitHow, LastExit, Reply, Request, RequestError, ServiceStatus, State, VERSION},
};

/// How long a motherd may be away before nobody waits for it any more.
const AWAY: Duration = Duration::from_secs(60);
/// From one look for it to the next.
const LOOK: Duration = Duration::from_millis(50);
/// A description is a line on a screen.
const DESCRIPTION_MAX: usize = 60;

/// Has motherd run `command`, and waits for its start, or with `--wait` for its end.
pub(super) fn run(
    global: &Global,
    name: &str,
    options: &ServiceOptions,
    policy: &str,
    command: &[String],
) -> Result<u8, Failure> {
    if is_file(policy) {
        let advice = "give it a name: put it in /etc/motherd/policies";
        return Err(
            Failure::say(2, format!("{policy}: motherd finds policies by their names")).advise(advice)
        );
    }
    let mut command = command.to_vec();
    command[0] = program(&command[0])?;
    let definition = definition(options, policy, &command);
    let request = Request::Run { service: name.to_owned(), definition, hold: options.wait };
    if !options.wait {
        return remote::ask(global, &request);
    }
    let started = Client::connect(&global.socket()).and_then(|mut client| client.call(&request));
    let started = match started {
        // It may have run and ended badly, which is what one waits for; or motherd ended when it was started.
        Err(error @ CallError::Refused(RequestError::Failed { .. })) => Some(error),
        Err(error @ CallError::Broken { .. }) => Some(error),
        Err(error) => return Err(failed(&error)),
        Ok(_) => None,
    };
    let status = ended(&global.socket(), name)?;
    if !options.remain {
        forget(&global.socket(), name)?;
    }
    report(global, name, &status, started)
}

fn failed(error: &CallError) -> Failure {
    Failure::new(error.exit_status(), error)
}

/// The file that a command means: a service has no PATH in which it would be looked for.
fn program(command: &str) -> Result<String, Failure> {
    let found = candidates(command, DEFAULT_PATH, env::current_dir)
        .map_err(|error| Failure::say(NOT_FOUND, format!("working directory: {error}")))?;
    let [only] = found.as_slice() else {
        let runs = |path: &&String| {
            fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        };
        let missing = || format!("{command}: there is no such command in {DEFAULT_PATH}");
        return found.iter().find(runs).cloned().ok_or_else(|| Failure::say(NOT_FOUND, missing()));
    };
    Ok(only.clone())
}

/// The text of a service file.
fn definition(options: &ServiceOptions, policy: &str, command: &[String]) -> String {
    let description: String = command.join(" ").chars().take(DESCRIPTION_MAX).collect();
    let words: Vec<String> = command.iter().map(|word| text(word)).collect();
    let mut file = format!(
        "description = {}\nexec = [{}]\npolicy = {}\n",
        text(&description),
        words.join(", "),
        text(policy)
    );
    if let Some(slice) = &options.slice {
        file.push_str(&format!("slice = {}\n", text(slice)));
    }
    if !options.variables.is_empty() {
        file.push_str("[environment]\n");
    }
    for (name, value) in &options.variables {
        file.push_str(&format!("{} = {}\n", text(name), text(value)));
    }
    if options.remain {
        file.push_str("[start]\ntype = \"oneshot\"\n");
    }
    let when = match options.restart {
        RestartWhen::Never => "never",
        RestartWhen::Failure => "failure",
        RestartWhen::Always => "always",
    };
    file.push_str(&format!("[restart]\nwhen = \"{when}\"\n"));
    file
}

/// A text as TOML writes it: JSON's escapes are TOML's, and of the control characters that JSON leaves one is not allowed.
fn text(words: &str) -> String {
    json!(words).to_string().replace('\u{7f}', "\\u007f")
}

/// Waits until the service is at rest, over the end of motherd too.
fn ended(socket: &Path, name: &str) -> Result<ServiceStatus, Failure> {
    let mut last_seen = Instant::now();
    loop {
        match follow(socket, name) {
            Ok(Some(status)) => return Ok(status),
            // The stream ended, or motherd did: the next one knows.
            Ok(None) => last_seen = Instant::now(),
            Err(CallError::Refused(RequestError::NoSuchService { .. })) => {
                return Err(Failure::say(
                    NO_SANDBOX,
                    format!("{name}: somebody stopped it, and how it ended is not known"),
                ));
            }
            Err(error @ CallError::Refused(_)) => return Err(failed(&error)),
            Err(error) if last_seen.elapsed() > AWAY => return Err(failed(&error)),
            Err(_) => {}
        }
        std::thread::sleep(LOOK);
    }
}

/// Looks at the service after each thing that happens to it, beginning with what has happened already, so that nothing is
/// missed in between. `None`: the stream ended first.
fn follow(socket: &Path, name: &str) -> Result<Option<ServiceStatus>, CallError> {
    let request = Request::Events { services: vec![name.to_owned()], after: None, follow: true };
    let mut found = Ok(None);
    let followed = Client::connect(socket)?.call_each(&request, |_events| {
        found = at_rest(socket, name);
        matches!(found, Ok(None))
    });
    match found {
        Ok(None) => followed.map(|()| None),
        found => found,
    }
}

fn at_rest(socket: &Path, name: &str) -> Result<Option<ServiceStatus>, CallError> {
    let request = Request::Status { services: vec![name.to_owned()], brief: false };
    let Reply::Status(mut services) = Client::connect(socket)?.call(&request)? else { return Ok(None) };
    let rests = |status: &ServiceStatus| {
        matches!(status.state, State::Stopped | State::Done | State::Failed | State::Lost)
    };
    Ok(services.pop().filter(rests))
}

/// It was waited for: nobody needs to know it any more.
fn forget(socket: &Path, name: &str) -> Result<(), Failure> {
    let request = Request::Stop { services: vec![name.to_owned()], force: false };
    match Client::connect(socket).and_then(|mut client| client.call(&request)) {
        // Somebody else was faster.
        Ok(_) | Err(CallError::Refused(RequestError::NoSuchService { .. })) => Ok(()),
        Err(error) => Err(failed(&error)),
    }
}

fn report(
    global: &Global,
    name: &str,
    status: &ServiceStatus,
    started: Option<CallError>,
) -> Result<u8, Failure> {
    if global.json {
        print_json(&json!({
            "version": VERSION,
            "service": name,
            "state": status.state,
            "cause": status.cause,
            "last_exit": status.last_exit,
        }))?;
    }
    match (&status.last_exit, started) {
        (Some(exit), _) => {
            let (words, code) = told(exit);
            if !global.json {
                print(&format!("{}: {words}\n", printable(name)))?;
            }
            Ok(code)
        }
        (None, Some(error)) => Err(failed(&error).with_status(NO_SANDBOX)),
        (None, None) => {
            Err(Failure::say(NO_SANDBOX, format!("{}: {}", printable(name), printable(&status.cause.words))))
        }
    }
}

/// For people, and as a shell has it.
fn told(exit: &LastExit) -> (String, u8) {
    let signaled = u8::try_from(exit.status).map_or(u8::MAX, |signal| SIGNALED.saturating_add(signal));
    match exit.how {
        ExitHow::Exited => (
            format!("exited with status {}", exit.status),
            u8::try_from(exit.status & 0xff).unwrap_or(u8::MAX),
        ),
        ExitHow::Killed => (format!("ended by {}", crate::service::signal_name(exit.status)), signaled),
        ExitHow::Dumped => (format!("dumped core on {}", crate::service::signal_name(exit.status)), signaled),
        ExitHow::OutOfMemory => ("killed: out of memory".to_owned(), signaled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::parse_text;

    fn options() -> ServiceOptions {
        ServiceOptions {
            name: Some("job".into()),
            slice: None,
            variables: vec![],
            restart: RestartWhen::Never,
            remain: false,
            wait: false,
        }
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn the_definition_is_a_service_file_and_says_what_was_said() {
        let odd = "a\"b\\c\nd\te\u{7f}\u{1}é😀 '''";
        let command = words(&["/bin/echo", odd, ""]);
        let all = ServiceOptions {
            slice: Some("batch".into()),
            variables: vec![("A".into(), odd.into()), ("B".into(), String::new())],
            restart: RestartWhen::Failure,
            remain: true,
            ..options()
        };
        let file = definition(&all, "hello", &command);
        let service = parse_text("job", &file).map_err(|report| report.to_string()).unwrap();
        let program = service.program().unwrap();
        assert_eq!(program.exec.value, command);
        assert_eq!((program.policy.value.as_str(), program.slice.as_str()), ("hello", "batch"));
        assert_eq!(program.environment, [("A".into(), odd.into()), ("B".into(), String::new())]);
        assert_eq!(program.restart.when, crate::service::When::Failure);
        assert_eq!(program.start, crate::service::Start::Oneshot);
        let plain = "description = \"/bin/true\"\nexec = [\"/bin/true\"]\npolicy = \"base/default\"\n[restart]\n\
                     when = \"never\"\n";
        assert_eq!(definition(&options(), "base/default", &words(&["/bin/true"])), plain);
    }

    #[test]
    fn an_end_is_an_exit_status_as_a_shell_has_it() {
        let check = |how, status, words: &str, code| {
            let exit = LastExit { how, status, boottime_usec: None };
            assert_eq!(told(&exit), (words.to_owned(), code));
        };
        check(ExitHow::Exited, 7, "exited with status 7", 7);
        check(ExitHow::Killed, 15, "ended by SIGTERM", 143);
        check(ExitHow::Dumped, 6, "dumped core on SIGABRT", 134);
        check(ExitHow::OutOfMemory, 9, "killed: out of memory", 137);
    }
}
