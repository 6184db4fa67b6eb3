//! [`RawService`] to [`Service`]: every value checked, every problem of the file told at once.

use std::{os::fd::RawFd, sync::Arc, time::Duration};

use sandbox::diagnostic::{Diagnostic, FileId, Located, Place, Sources, nearest};

use super::{
    Body, LogRate, Notify, Program, Service, Start,
    log::rate,
    raw::RawService,
    words::{check_name, check_service_name, duration, signal, size},
};

/// The policy of a service that names none.
pub(crate) const DEFAULT_POLICY: &str = "base/default";
/// The slice of a service that names none.
pub(crate) const DEFAULT_SLICE: &str = "system";
/// What a program may take to be ready where nothing is written.
pub const START_TIMEOUT: Duration = Duration::from_secs(90);
/// What a program may take to end where nothing is written.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// What is kept of a service's output where nothing is written.
const LOG_KEEP_BYTES: u64 = 16 << 20;
/// Rotation works in quarters of `log.keep`, and a quarter should hold some lines.
const LOG_KEEP_MIN_BYTES: u64 = 16 << 10;

/// Checks one file's keys. `None` if `problems` got an error.
pub(crate) fn validate(
    name: &str,
    raw: RawService,
    sources: &Sources,
    file: FileId,
    problems: &mut Vec<Diagnostic>,
) -> Option<Service> {
    let before = problems.len();
    let mut checker =
        Checker { instance: name.split_once('@').map(|(_, instance)| instance), file, problems };
    let description = raw.description.clone().map(|text| checker.expand(text).value).unwrap_or_default();
    let dependencies = checker.dependencies(name, &raw);
    let conditions = checker.conditions(&raw);
    let sockets = checker.sockets(name, &raw);
    let timers = checker.timers(&raw);
    let body = match &raw.exec {
        Some(exec) => checker.program(exec, &raw).map(|program| Body::Program(Arc::new(program))),
        None => checker.group(&raw),
    };
    let service = Service {
        name: name.to_owned(),
        description,
        sources: sources.clone(),
        body: body?,
        dependencies,
        conditions,
        sockets,
        timers,
        network_of: None,
    };
    (problems.len() == before).then_some(service)
}

/// Below it are standard input, output and error.
const FIRST_FD: i64 = 3;
/// The highest that every process may have (RLIMIT_NOFILE is 1024 where nothing says otherwise).
const LAST_FD: i64 = 1023;

pub(super) struct Checker<'p> {
    /// What `%i` stands for; `None` in a file that is no template.
    instance: Option<&'p str>,
    file: FileId,
    pub(super) problems: &'p mut Vec<Diagnostic>,
}

impl Checker<'_> {
    pub(super) fn report(&mut self, problem: Diagnostic) {
        self.problems.push(problem);
    }

    pub(super) fn refuse(
        &mut self,
        code: &'static str,
        at: &Place,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.problems.push(Diagnostic::error(code, at.clone(), message).help(help));
    }

    pub(super) fn problem(&mut self, problem: Diagnostic) {
        self.problems.push(problem);
    }

    /// A group has nothing but a description, dependencies, conditions and timers.
    fn group(&mut self, raw: &RawService) -> Option<Body> {
        let Some(key) = &raw.process_key else { return Some(Body::Group) };
        self.refuse(
            "missing-exec",
            &key.at,
            format!("`{}` is about a process, and this service has no `exec`", key.value),
            "write `exec = [\"/path/to/program\"]`, or leave a group with a description, dependencies and conditions alone",
        );
        None
    }

    fn program(&mut self, exec: &Located<Vec<Located<String>>>, raw: &RawService) -> Option<Program> {
        let exec = self.exec(exec);
        let start = self.start(raw);
        let restart = self.restart(raw, start);
        let policy = raw.policy.clone().unwrap_or_else(|| {
            Located::new(DEFAULT_POLICY.to_owned(), Place { file: self.file, span: 0..0 })
        });
        let default_timeout = match start {
            Start::Exec | Start::Notify | Start::Fd | Start::Forking => Some(START_TIMEOUT),
            Start::Oneshot => None,
        };
        let slice = self.slice(raw);
        let environment = self.environment(raw);
        let commands = self.commands(raw, start);
        let remain = self.remain(raw, start);
        let standby = self.standby(raw, start);
        let notify = self.notify(raw);
        let health = self.health(raw);
        let watchdog = self.watchdog(raw, start);
        let pidfile = self.pidfile(raw, start);
        let ready_fd = self.ready_fd(raw, start, &notify);
        let start_timeout = self.duration(raw.start_timeout.as_ref()).or(default_timeout);
        let reload_signal = self.signal(raw.reload_signal.as_ref());
        let stop_signal = self.signal(raw.stop_signal.as_ref()).unwrap_or(libc::SIGTERM);
        let stop_timeout = self.duration(raw.stop_timeout.as_ref()).unwrap_or(STOP_TIMEOUT);
        let log_keep_bytes = self.log_keep(raw);
        let log_rate = self.log_rate(raw);
        // Only here, so that a wrong `exec` hides nothing that is wrong after it.
        Some(Program {
            exec: exec?,
            policy,
            slice,
            environment,
            start,
            ready_fd,
            start_timeout,
            remain,
            standby,
            notify,
            health,
            watchdog,
            pidfile,
            commands: commands?.into(),
            reload_signal,
            stop_signal,
            stop_timeout,
            restart: restart.into(),
            log_keep_bytes,
            log_rate,
        })
    }

    pub(super) fn exec(&mut self, exec: &Located<Vec<Located<String>>>) -> Option<Located<Vec<String>>> {
        let arguments: Vec<Located<String>> =
            exec.value.iter().map(|word| self.expand(word.clone())).collect();
        let Some(file) = arguments.first() else {
            self.refuse(
                "bad-exec",
                &exec.at,
                "`exec` is empty",
                "its first word is the program's absolute path",
            );
            return None;
        };
        if !file.value.starts_with('/') || file.value.split('/').any(|part| part == "..") {
            self.refuse(
                "bad-exec",
                &file.at,
                format!("`{}` is not an absolute path without `..`", file.value),
                "nothing is searched for in a PATH: write where the program is",
            );
            return None;
        }
        for word in &arguments {
            if word.value.contains('\0') {
                self.refuse(
                    "bad-exec",
                    &word.at,
                    "an argument has a NUL byte",
                    "execve(2) would cut it there",
                );
                return None;
            }
        }
        let mut words: Vec<String> = arguments.into_iter().map(|word| word.value).collect();
        // They are where the arguments were, which took more.
        words.shrink_to_fit();
        Some(Located::new(words, exec.at.clone()))
    }

    /// `%i` is the instance of a template and `%%` a percent sign; elsewhere a percent sign is itself.
    pub(super) fn expand(&mut self, text: Located<String>) -> Located<String> {
        let Some(instance) = self.instance else { return text };
        let mut expanded = String::new();
        let mut rest = text.value.as_str();
        while let Some(percent) = rest.find('%') {
            expanded.push_str(&rest[..percent]);
            let mut after = rest[percent + 1..].chars();
            match after.next() {
                Some('i') => expanded.push_str(instance),
                Some('%') => expanded.push('%'),
                Some(_) | None => self.refuse(
                    "bad-value",
                    &text.at,
                    "a percent sign in a template is followed by `i` or `%`",
                    "%i is the part of the name after @, %% is a percent sign",
                ),
            }
            rest = after.as_str();
        }
        expanded.push_str(rest);
        Located::new(expanded, text.at)
    }

    pub(super) fn names(&mut self, own: &str, list: &[Located<String>]) -> Vec<Located<String>> {
        let mut names: Vec<Located<String>> = Vec::new();
        for written in list {
            let name = self.expand(written.clone());
            if let Err(why) = check_service_name(&name.value) {
                self.refuse(
                    "bad-name",
                    &name.at,
                    format!("`{}` is not the name of a service", name.value),
                    why,
                );
            } else if name.value == own {
                let message = format!("`{own}` depends on itself");
                self.refuse("dependency-cycle", &name.at, message, "take it out");
            } else if names.iter().all(|known| known.value != name.value) {
                names.push(name);
            }
        }
        names
    }

    fn slice(&mut self, raw: &RawService) -> String {
        let Some(slice) = &raw.slice else { return DEFAULT_SLICE.to_owned() };
        if let Err(why) = check_name(&slice.value) {
            self.refuse("bad-name", &slice.at, format!("`{}` is not the name of a slice", slice.value), why);
        }
        slice.value.clone()
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &str,
        written: Option<&Located<String>>,
        words: &[(&str, T)],
    ) -> Option<T> {
        let written = written?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == written.value) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let message = format!("`{key}` cannot be \"{}\"", written.value);
        let problem = Diagnostic::error("bad-value", written.at.clone(), message)
            .help(format!("it is one of \"{}\"", known.join("\", \"")));
        self.problems.push(match nearest(&written.value, known) {
            Some(near) => problem.label(format!("did you mean \"{near}\"?")),
            None => problem,
        });
        None
    }

    fn start(&mut self, raw: &RawService) -> Start {
        let words = [
            ("exec", Start::Exec),
            ("notify", Start::Notify),
            ("fd", Start::Fd),
            ("forking", Start::Forking),
            ("oneshot", Start::Oneshot),
        ];
        self.word("start.type", raw.start_type.as_ref(), &words).unwrap_or(Start::Exec)
    }

    fn remain(&mut self, raw: &RawService, start: Start) -> bool {
        if let (Some(written), true) = (&raw.remain, start != Start::Oneshot) {
            self.refuse(
                "bad-value",
                &written.at,
                "`start.remain` is for a oneshot alone",
                "what has a process is up as long as that runs",
            );
        }
        raw.remain.as_ref().is_none_or(|written| written.value)
    }

    fn standby(&mut self, raw: &RawService, start: Start) -> bool {
        let Some(written) = raw.standby.as_ref().filter(|written| written.value) else { return false };
        if let Some(first) = raw.commands.pre.first() {
            self.refuse(
                "bad-value",
                &first.at,
                "`start.pre` would run at each start, which `standby` is to make short",
                "leave one of them out, or let a oneshot of its own prepare the service (`prepared_by`)",
            );
        }
        match start {
            Start::Exec | Start::Notify => true,
            Start::Fd => {
                self.refuse(
                    "bad-value",
                    &written.at,
                    "`standby` is not for a service that is ready by a descriptor",
                    "start.type \"exec\" or \"notify\"",
                );
                false
            }
            Start::Forking | Start::Oneshot => {
                self.refuse(
                    "bad-value",
                    &written.at,
                    "`standby` is for a service whose program runs as long as it is up",
                    "a oneshot ends, and what forks is found anew each time: start.type \"exec\" or \"notify\"",
                );
                false
            }
        }
    }

    /// The descriptor of `start.type = "fd"`: none that the service is passed otherwise.
    fn ready_fd(&mut self, raw: &RawService, start: Start, notify: &Notify) -> Option<RawFd> {
        let (Some(written), true) = (&raw.start_fd, start == Start::Fd) else {
            if let Some(written) = &raw.start_fd {
                self.refuse(
                    "bad-value",
                    &written.at,
                    "`start.fd` is for `start.type = \"fd\"` alone",
                    "elsewhere nothing is read from a descriptor",
                );
            } else if let (Some(kind), Start::Fd) = (&raw.start_type, start) {
                self.refuse(
                    "missing-key",
                    &kind.at,
                    "`start.type = \"fd\"` needs the number of the descriptor",
                    "`fd = 3`: the program writes a newline there when it is ready",
                );
            }
            return None;
        };
        // As sd_listen_fds(3) has it: the sockets, then what the service had stored.
        let passed = i64::try_from(raw.sockets.len() + notify.fd_store_max).unwrap_or(i64::MAX);
        let first = FIRST_FD.saturating_add(passed);
        match RawFd::try_from(written.value) {
            Ok(number) if (first..=LAST_FD).contains(&written.value) => Some(number),
            Ok(_) | Err(_) => {
                let why = match written.value {
                    ..FIRST_FD => "0, 1 and 2 are standard input, output and error".to_owned(),
                    value if value < first => {
                        format!(
                            "{FIRST_FD} to {} are its sockets and the descriptors that it may store",
                            first - 1
                        )
                    }
                    _ => "a process has 1024 descriptors unless its policy says otherwise".to_owned(),
                };
                let message = format!("`start.fd` cannot be {}: {why}", written.value);
                self.refuse("bad-value", &written.at, message, format!("it is one of {first} to {LAST_FD}"));
                None
            }
        }
    }

    fn pidfile(&mut self, raw: &RawService, start: Start) -> Option<Located<String>> {
        let written = self.expand(raw.pidfile.clone()?);
        if start != Start::Forking {
            self.refuse(
                "bad-value",
                &written.at,
                "`start.pidfile` is for `start.type = \"forking\"` alone",
                "elsewhere the main process is known without one",
            );
        }
        if !written.value.starts_with('/') || written.value.split('/').any(|part| part == "..") {
            self.refuse(
                "bad-value",
                &written.at,
                format!("`{}` is not an absolute path without `..`", written.value),
                "write the path as the service sees it, in its sandbox",
            );
        }
        Some(written)
    }

    pub(super) fn duration(&mut self, written: Option<&Located<String>>) -> Option<Duration> {
        let written = written?;
        match duration(&written.value) {
            Ok(value) => Some(value),
            Err(why) => {
                self.refuse("bad-duration", &written.at, format!("\"{}\" is not a time", written.value), why);
                None
            }
        }
    }

    fn signal(&mut self, written: Option<&Located<String>>) -> Option<i32> {
        let written = written?;
        let number = signal(&written.value);
        if number.is_none() {
            self.no_such_signal(written);
        }
        number
    }

    fn log_rate(&mut self, raw: &RawService) -> Option<LogRate> {
        let written = raw.log_rate.as_ref()?;
        match rate(&written.value) {
            Ok(rate) => Some(rate),
            Err(why) => {
                self.refuse("bad-rate", &written.at, format!("\"{}\" is not a rate", written.value), why);
                None
            }
        }
    }

    fn log_keep(&mut self, raw: &RawService) -> u64 {
        let Some(written) = &raw.log_keep else { return LOG_KEEP_BYTES };
        match size(&written.value) {
            Ok(bytes) if bytes >= LOG_KEEP_MIN_BYTES => return bytes,
            Ok(_) => self.refuse(
                "bad-size",
                &written.at,
                "`log.keep` is at least 16K",
                "a rotated file holds a quarter",
            ),
            Err(why) => {
                self.refuse("bad-size", &written.at, format!("\"{}\" is not a size", written.value), why)
            }
        }
        LOG_KEEP_BYTES
    }
}
