//! What is said on the control socket: the wire types of the Varlink interface `io.altimatos.MotherD`, and the few
//! methods of `org.varlink.service` that every Varlink service has.
//!
//! Invariants: these types live here and nowhere else (the domain types know no serde); every reply carries
//! [`VERSION`]; a figure that cannot be had on this host says which file and why ([`Figure::Missing`]) and is never
//! 0; what is read here from a peer is checked here, so that a [`Request`] in hand is well formed. The interface text
//! that introspection returns is [`DESCRIPTION`], and a test holds it against these types.

mod config;
mod convert;
mod ending;
mod events;
mod message;
mod names;
mod status;
mod tree;
mod upgrade;
mod why;

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::{config::*, ending::*, events::*, message::*, status::*, tree::*, upgrade::*, why::*};

/// The version of the replies' shape. Fields are only ever added under one version.
pub const VERSION: u32 = 1;

/// The interface's name.
pub const INTERFACE: &str = "io.altimatos.MotherD";

/// The interface in Varlink's own language, as `GetInterfaceDescription` returns it.
pub const DESCRIPTION: &str = include_str!("io.altimatos.MotherD.varlink");

/// The interface that every Varlink service has, as varlink.org defines it.
pub const SERVICE_DESCRIPTION: &str = include_str!("org.varlink.service.varlink");

const SERVICE_INTERFACE: &str = "org.varlink.service";

/// One well-formed message of a client: something for the manager, or a question that the socket itself answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `org.varlink.service.GetInfo`
    GetInfo,
    /// `org.varlink.service.GetInterfaceDescription`
    GetInterfaceDescription {
        /// Which.
        interface: String,
    },
    /// A method of [`INTERFACE`].
    MotherD(Request),
}

/// What a client asks of the manager. Holding one proves that its parameters are of the right shape: a list of
/// services that must not be empty is not, a signal is between 1 and 64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A line for each service.
    List,
    /// Everything about some services; about all of them when the list is empty.
    Status {
        /// Names.
        services: Vec<String>,
        /// No more than what `motherctl status` prints: sets of capabilities are numbers, and nobody asks /proc for the cgroup
        /// of a main process.
        brief: bool,
    },
    /// Who names whom.
    Tree {
        /// These and all that they name; everything when the list is empty.
        services: Vec<String>,
    },
    /// Why a service is as it is.
    Why {
        /// Its name.
        service: String,
    },
    /// All timers.
    Timers,
    /// What happened, oldest first.
    Events {
        /// Only what is about these; everything when the list is empty.
        services: Vec<String>,
        /// Only what came after the event of this sequence number.
        after: Option<u64>,
        /// And go on saying what happens: Varlink's `more`.
        follow: bool,
    },
    /// Start them and what they need.
    Start {
        /// Names, at least one.
        services: Vec<String>,
    },
    /// Start a service that no file describes, and forget it when it is down.
    Run {
        /// Its name.
        service: String,
        /// The text of a service file.
        definition: String,
        /// Do not forget it before somebody stops it.
        hold: bool,
    },
    /// Stop them. One that another service needs is refused, unless all who need it are named as well.
    Stop {
        /// Names, at least one.
        services: Vec<String>,
        /// Nothing is refused: who needs one of them is stopped first.
        force: bool,
    },
    /// Stop, then start.
    Restart {
        /// Names, at least one.
        services: Vec<String>,
    },
    /// Have them read their own configuration again.
    Reload {
        /// Names, at least one.
        services: Vec<String>,
    },
    /// Read the service files anew.
    ReloadConfig {
        /// Only say what would change.
        dry_run: bool,
    },
    /// The manager itself.
    Manager,
    /// What initldr keeps.
    FdStore {
        /// Only what is kept for these; everything when the list is empty.
        services: Vec<String>,
    },
    /// Put another program into the place of motherd's or initldr's.
    Upgrade {
        /// It; `None`: what is installed already.
        path: Option<String>,
        /// initldr's, and not motherd's.
        initldr: bool,
        /// Only say whether that can be done.
        check: bool,
    },
    /// Send a signal to every process of each.
    Kill {
        /// Names, at least one.
        services: Vec<String>,
        /// 1 to 64.
        signal: i32,
    },
    /// Stop everything, and then this.
    End {
        /// How.
        how: How,
        /// With which status initldr exits, where it does.
        status: u8,
        /// Stop nothing: it ends at once.
        force: bool,
    },
    /// The same at a time, of which users are told before. In the place of one that was to come.
    Schedule {
        /// How.
        how: How,
        /// Seconds since 1970.
        at: u64,
        /// What users are told besides.
        message: String,
    },
    /// Nothing is to come any more.
    Unschedule,
    /// What the end waits for.
    Ending,
    /// Wait no longer for what does not stop.
    Skip {
        /// Names, at least one.
        services: Vec<String>,
    },
}

/// What the manager answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// To [`Request::List`].
    List(Vec<ServiceSummary>),
    /// To [`Request::Status`].
    Status(Vec<ServiceStatus>),
    /// To [`Request::Tree`].
    Tree(Vec<TreeNode>),
    /// To [`Request::Why`].
    Why(Box<Why>),
    /// To [`Request::ReloadConfig`].
    Configured(ConfigPlan),
    /// To [`Request::Manager`].
    Manager(Manager),
    /// To [`Request::FdStore`].
    FdStore(FdStore),
    /// To [`Request::Upgrade`]. Of motherd it is the last word of the one that was there.
    Upgraded(Upgraded),
    /// To [`Request::Timers`].
    Timers(Vec<TimerStatus>),
    /// To [`Request::Events`].
    Events(Events),
    /// To start, stop, restart, reload and kill: what each service is now. Sent when it has got there.
    Acted(Vec<Acted>),
    /// To [`Request::End`]: it has begun.
    Ending,
    /// To [`Request::Schedule`] and [`Request::Unschedule`]: what is to come, or would have.
    Scheduled(Option<Scheduled>),
    /// To [`Request::Ending`].
    Awaited(EndingStatus),
    /// To any of them.
    Error(RequestError),
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A name that no service has. Nothing was done for the other names of the request either.
    #[error("no service is named `{service}`{}", near.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    NoSuchService {
        /// The name.
        service: String,
        /// The nearest name that exists.
        near: Option<String>,
    },
    /// The service has to run for this and does not.
    #[error("{service} is not running")]
    NotRunning {
        /// The name.
        service: String,
    },
    /// The peer may not do this.
    #[error("permission denied: {method} is for root; this is uid {uid}, which may only read")]
    PermissionDenied {
        /// The method that was refused, without the interface.
        method: String,
        /// Who asked.
        uid: u32,
    },
    /// It was tried, and did not succeed for these.
    #[error("{}", failures.iter().map(|f| format!("{}: {}", f.service, f.why)).collect::<Vec<_>>().join("\n"))]
    Failed {
        /// Each service and why; never empty.
        failures: Vec<Failure>,
        /// What did succeed.
        done: Vec<Acted>,
    },
    /// It cannot be done now: the machine is ending, say.
    #[error("{why}")]
    Refused {
        /// Why.
        why: String,
    },
    /// Varlink: this service has no such interface.
    #[error("no interface is named `{interface}`")]
    InterfaceNotFound {
        /// The name.
        interface: String,
    },
    /// Varlink: the interface has no such method.
    #[error("no method is named `{method}`")]
    MethodNotFound {
        /// The name, with its interface.
        method: String,
    },
    /// Varlink: a parameter is missing, unknown, or of the wrong type or range.
    #[error("invalid parameter: {parameter}")]
    InvalidParameter {
        /// The parameter, and what is wrong with it.
        parameter: String,
    },
    /// An error that this version does not know; only a client ever holds one.
    #[error("{name} {parameters}")]
    Unknown {
        /// The error's full name.
        name: String,
        /// Its parameters as JSON.
        parameters: String,
    },
}

/// One service and why the request did not succeed for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The name.
    pub service: String,
    /// What was tried, on what, and what came back.
    pub why: String,
}

/// What a service is after an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acted {
    /// The name.
    pub service: String,
    /// Now.
    pub state: State,
    /// False when it was so before.
    pub changed: bool,
    /// The main process, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main_pid: Option<u32>,
}

impl Request {
    /// The method's name, without its interface.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self {
            Request::List => "List",
            Request::Status { .. } => "Status",
            Request::Tree { .. } => "Tree",
            Request::Why { .. } => "Why",
            Request::Events { .. } => "Events",
            Request::ReloadConfig { .. } => "ReloadConfig",
            Request::Manager => "Manager",
            Request::FdStore { .. } => "FdStore",
            Request::Upgrade { .. } => "Upgrade",
            Request::Timers => "Timers",
            Request::Start { .. } => "Start",
            Request::Run { .. } => "Run",
            Request::Stop { .. } => "Stop",
            Request::Restart { .. } => "Restart",
            Request::Reload { .. } => "Reload",
            Request::Kill { .. } => "Kill",
            Request::End { how: How::Poweroff, .. } => "PowerOff",
            Request::End { how: How::Reboot, .. } => "Reboot",
            Request::End { how: How::Halt, .. } => "Halt",
            Request::End { how: How::Kexec, .. } => "Kexec",
            Request::End { how: How::SoftReboot, .. } => "SoftReboot",
            Request::End { how: How::Exit, .. } => "Exit",
            Request::Schedule { .. } => "Schedule",
            Request::Unschedule => "Unschedule",
            Request::Ending => "Ending",
            Request::Skip { .. } => "Skip",
        }
    }

    /// Whether it changes nothing, so that anybody who may connect may ask.
    #[must_use]
    pub fn only_reads(&self) -> bool {
        match self {
            Request::List
            | Request::Status { .. }
            | Request::Why { .. }
            | Request::Tree { .. }
            | Request::Events { .. }
            | Request::Timers
            | Request::Manager
            | Request::Ending
            | Request::FdStore { .. } => true,
            Request::Start { .. }
            | Request::Run { .. }
            | Request::Stop { .. }
            | Request::ReloadConfig { .. }
            | Request::Upgrade { .. }
            | Request::Restart { .. }
            | Request::Reload { .. }
            | Request::Kill { .. }
            | Request::End { .. }
            | Request::Schedule { .. }
            | Request::Unschedule
            | Request::Skip { .. } => false,
        }
    }
}

impl RequestError {
    /// The exit status of motherctl (the command line's contract): 1 failed, 2 usage, 3 not running, 4 no such
    /// service, 5 no permission.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            RequestError::InvalidParameter { .. } => 2,
            RequestError::NotRunning { .. } => 3,
            RequestError::NoSuchService { .. } => 4,
            RequestError::PermissionDenied { .. } => 5,
            RequestError::Failed { .. }
            | RequestError::Refused { .. }
            | RequestError::InterfaceNotFound { .. }
            | RequestError::MethodNotFound { .. }
            | RequestError::Unknown { .. } => 1,
        }
    }
}
