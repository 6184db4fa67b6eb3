//! [`Service`]: what is to run, and when. Holding one proves that every value in it was checked; what its dependencies
//! are worth is [`crate::graph`]'s question, and its policy is loaded when it is launched.
//!
//! A file goes through the same stages as a policy: text, `raw`, `validate`. Nothing
//! that is written is ever ignored.

mod commands;
mod condition;
mod dependencies;
pub mod enabled;
mod environment;
mod health;
mod load;
mod log;
mod notify;
mod raw;
mod restart;
mod socket;
mod timer;
mod validate;
mod words;

use std::{os::fd::RawFd, sync::Arc, time::Duration};

use sandbox::diagnostic::{Located, Sources};

use crate::rare::Rare;

pub use commands::Commands;
pub use condition::{Condition, OnLoss, Resource};
pub use dependencies::{Dependencies, Relation};
pub use health::{Health, Probe};
pub use load::{Catalog, Template, load_dirs, load_with_enabled};
pub(crate) use load::{make_instances, named_instances, parse};
pub use log::LogRate;
pub(crate) use notify::ACCESS;
pub use notify::{Access, Notify};
pub use restart::{ExitSet, Restart, When};
pub use socket::{Address, Socket};
pub use timer::{Schedule, Timer};
pub use validate::START_TIMEOUT;
pub(crate) use words::check_service_name;
pub use words::{NAME_MAX, signal_name, size_name};

/// `30s`, `5m`: a time as every file writes it.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    words::duration(text).ok()
}

/// A checked service.
#[derive(Debug, Clone)]
pub struct Service {
    name: String,
    description: String,
    sources: Sources,
    body: Body,
    dependencies: Dependencies,
    conditions: Vec<Condition>,
    sockets: Vec<Socket>,
    timers: Vec<Timer>,
    network_of: Option<String>,
}

/// What a service runs.
#[derive(Debug, Clone)]
pub enum Body {
    /// Nothing: it is up when what it names is up. The boot target is one.
    Group,
    /// A program.
    Program(Arc<Program>),
}

/// A service that has a process.
#[derive(Debug, Clone)]
pub struct Program {
    /// The file, absolute, and its arguments.
    pub exec: Located<Vec<String>>,
    /// The policy's name; `base/default` where none is written.
    pub policy: Located<String>,
    /// The slice without `.slice`; `system` where none is written.
    pub slice: String,
    /// Variables beside those of the policy, before which they go.
    pub environment: Vec<(String, String)>,
    /// When it counts as started.
    pub start: Start,
    /// The number of the descriptor that it writes a newline to, where that is how it counts as started.
    pub ready_fd: Option<RawFd>,
    /// How long it may take to start; for a oneshot, to finish. `None`: as long as it likes.
    pub start_timeout: Option<Duration>,
    /// A oneshot that succeeded stays up.
    pub remain: bool,
    /// One more process waits right before execve to be the next one.
    pub standby: bool,
    /// Where a program that forks writes the pid of its daemon.
    pub pidfile: Option<Located<String>>,
    /// What it may say of itself.
    pub notify: Notify,
    /// How it is checked from outside.
    pub health: Vec<Health>,
    /// Silence longer than this is a failure.
    pub watchdog: Option<Duration>,
    /// The commands around it.
    pub commands: Rare<Commands>,
    /// The signal of `reload`, if it knows how to.
    pub reload_signal: Option<i32>,
    /// The signal of `stop`, to the main process.
    pub stop_signal: i32,
    /// After this long what is left is killed.
    pub stop_timeout: Duration,
    /// What happens when it ends by itself.
    pub restart: Rare<Restart>,
    /// How many bytes of output are kept in all.
    pub log_keep_bytes: u64,
    /// Lines beyond it are counted and not kept.
    pub log_rate: Option<LogRate>,
}

/// When a service counts as started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// When execve succeeded.
    Exec,
    /// When it says `READY=1` on its readiness socket (sd_notify(3)).
    Notify,
    /// When it writes a newline to a descriptor that it was given, as s6 has it.
    Fd,
    /// When its first process ended with status 0, and left a daemon behind.
    Forking,
    /// When it ended with status 0; it stays up without a process.
    Oneshot,
}

impl Start {
    /// Whether something is waited for that the program says or shows while it runs.
    #[must_use]
    pub fn says_when(self) -> bool {
        match self {
            Self::Notify | Self::Fd => true,
            Self::Exec | Self::Forking | Self::Oneshot => false,
        }
    }

    /// Why it is up, for people.
    #[must_use]
    pub fn readiness(self) -> &'static str {
        match self {
            Self::Notify => "it said that it is ready",
            Self::Fd => "it wrote to its descriptor that it is ready",
            Self::Exec => "it runs",
            Self::Forking => "it left its daemon behind",
            Self::Oneshot => "it ended well",
        }
    }
}

impl Program {
    /// The cgroup of a service of this name that executes it, below the base.
    pub(crate) fn cgroup(&self, name: &str) -> String {
        format!("{}.slice/{name}.service", self.slice)
    }

    /// Whether it is given a socket to say how it is.
    #[must_use]
    pub fn may_say(&self) -> bool {
        self.start == Start::Notify || self.notify.written || self.watchdog.is_some()
    }
}

impl Service {
    /// The file's name without `.toml`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its author says it is.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The text that its places point into.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// What it runs.
    #[must_use]
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The program, where it has one.
    #[must_use]
    pub fn program(&self) -> Option<&Program> {
        match &self.body {
            Body::Group => None,
            Body::Program(program) => Some(program),
        }
    }

    /// The same, to be kept beside the service.
    #[must_use]
    pub fn shared_program(&self) -> Option<Arc<Program>> {
        match &self.body {
            Body::Group => None,
            Body::Program(program) => Some(program.clone()),
        }
    }

    /// What listens for it.
    #[must_use]
    pub fn sockets(&self) -> &[Socket] {
        &self.sockets
    }

    /// When it is started by itself.
    #[must_use]
    pub fn timers(&self) -> &[Timer] {
        &self.timers
    }

    /// What has to be so on the machine before it starts.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// What it depends on.
    #[must_use]
    pub fn dependencies(&self) -> &Dependencies {
        &self.dependencies
    }

    /// Whether the two were made of the same text.
    #[must_use]
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        let texts = |sources: &'_ Sources| {
            sources.files().map(|file| sources.text(file).to_owned()).collect::<Vec<_>>()
        };
        self.name == other.name && texts(&self.sources) == texts(&other.sources)
    }

    /// The relations of a later definition, while all else is still the one that it was started with.
    pub(crate) fn relate(&mut self, dependencies: Dependencies) {
        self.dependencies = dependencies;
    }

    /// The service whose network its policy joins.
    #[must_use]
    pub fn network_of(&self) -> Option<&str> {
        self.network_of.as_deref()
    }

    /// Its policy joins the network of `owner`, which it therefore needs.
    pub(crate) fn join_network_of(&mut self, owner: &str) {
        self.network_of = Some(owner.to_owned());
        let Some(at) = self.program().map(|program| program.policy.at.clone()) else { return };
        self.dependencies.need(Located::new(owner.to_owned(), at));
    }

    /// Its cgroup below the base: `web.slice/web.service`. `None` for a group.
    #[must_use]
    pub fn cgroup(&self) -> Option<String> {
        self.program().map(|program| program.cgroup(&self.name))
    }
}

/// A service from its text, for tests of what comes after the file.
#[cfg(test)]
pub(crate) fn parse_text(name: &str, text: &str) -> Result<Service, sandbox::diagnostic::Report> {
    load::parse(name, std::path::Path::new(&format!("{name}.toml")), text.to_owned())
}

/// A service that is made of parts, for the simulator: `text` is what it is told apart by from an earlier definition.
#[cfg(test)]
pub(crate) fn made(
    name: &str,
    text: &str,
    program: Option<Program>,
    dependencies: Dependencies,
    conditions: Vec<Condition>,
    sockets: Vec<Socket>,
) -> Service {
    let mut service = parse_text(name, "").expect("a group may be empty");
    service.sources = Sources::default();
    service.sources.add(format!("{name}.toml"), text);
    service.body = program.map_or(Body::Group, |program| Body::Program(Arc::new(program)));
    service.dependencies = dependencies;
    service.conditions = conditions;
    service.sockets = sockets;
    service
}
