//! One service: its [`State`], the [`Event`]s that reach it and the [`Act`]s that follow.
//!
//! ```text
//!                 Start                 Launched            Ready, or exec succeeded
//!   Stopped ───► Launching ──────────► Starting ─────────────────────────► Running
//!   Waiting ──┘      │                    │ Exited(0) of a oneshot            │
//!      ▲             │ LaunchFailed       │ Exited, Timer, Stop               │ Exited, Stop
//!      │ Timer       ▼                    ▼                                   ▼
//!   Backoff ◄──── Stopping { signalled ──Timer──► killed ──Timer──► killed again }
//!   Failed  ◄────    │ Gone: the main process was reaped, the cgroup was empty and is removed
//!   Stopped ◄────────┤
//!   Done    ◄────────┘   up without a process: a oneshot that succeeded, or a group
//! ```
//!
//! Invariants. A state carries exactly the data that is true in it: a deadline exists only in the state that waits for
//! it, so no timer outlives its reason. Every way out of a state with a process leads through `Stopping`, whose end is
//! an empty, removed cgroup; so there are never two live instances of a service. A signal is only ever sent to the
//! main process that the state names.
//!
//! Times are CLOCK_BOOTTIME since boot. Nothing here asks a clock.

mod restart;
mod step;

use std::{fmt, time::Duration};

pub use restart::History;

use crate::service::{ExitSet, Restart, Start, signal_name};

/// After SIGKILL to the whole cgroup the next look (and the next SIGKILL) comes after this long: 10 s. What survives it
/// hangs in the kernel, and no haste helps.
pub const KILL_AGAIN: Duration = Duration::from_secs(10);

/// What one service is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing runs.
    Stopped,
    /// It is to run, and something has to happen first.
    Waiting,
    /// Its process is being made; the next event says whether it was.
    Launching,
    /// It runs and is not ready (or is a oneshot that has not finished).
    Starting {
        /// The main process.
        main: Main,
        /// Then it has failed to start.
        deadline: Option<Duration>,
    },
    /// It is up.
    Running {
        /// The main process.
        main: Main,
    },
    /// It is up and has no process.
    Done,
    /// It is being ended, down to an empty cgroup.
    Stopping {
        /// The main process, until it was reaped.
        main: Option<Main>,
        /// How far this has come.
        stage: Stage,
        /// What comes after.
        then: Then,
    },
    /// It ended by itself and is started again then.
    Backoff {
        /// When.
        until: Duration,
    },
    /// It failed and nobody tries again unasked.
    Failed,
    /// Its cgroup has processes that no record knows. They are left alone until somebody stops the service.
    Orphan,
}

/// A main process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Main {
    /// Its pid, as motherd and initldr see it.
    pub pid: u32,
    /// When its launch began.
    pub launched: Duration,
}

/// How far stopping has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The stop signal was sent; SIGKILL follows at `deadline`.
    Signalled {
        /// See above.
        deadline: Duration,
    },
    /// SIGKILL was sent to all of the cgroup; what is left at `again` gets another.
    Killed {
        /// See above.
        again: Duration,
    },
}

/// What follows when nothing of a service is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Stopped; the goal says whether it starts again.
    Settle,
    /// A oneshot succeeded.
    Done,
    /// It is started again at this time.
    Restart {
        /// See above.
        until: Duration,
    },
    /// It failed for good.
    Fail,
}

/// Where a service is meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Down.
    Down,
    /// Up.
    Up,
    /// Down first, then up.
    Bounce,
}

/// How a process ended (waitid(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// By itself, or how else.
    pub how: ExitHow,
    /// The status, or the signal's number.
    pub status: i32,
    /// When.
    pub at: Duration,
}

/// CLD_EXITED, CLD_KILLED, CLD_DUMPED.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitHow {
    /// By itself.
    Exited,
    /// By a signal.
    Killed,
    /// By a signal, and a core was written.
    Dumped,
}

impl Exit {
    /// Status 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.how == ExitHow::Exited && self.status == 0
    }

    /// Whether it is one of these.
    #[must_use]
    pub fn is_in(&self, set: &ExitSet) -> bool {
        match self.how {
            ExitHow::Exited => set.has_status(self.status),
            ExitHow::Killed | ExitHow::Dumped => set.has_signal(self.status),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.how {
            ExitHow::Exited => write!(f, "exited with status {}", self.status),
            ExitHow::Killed => write!(f, "ended by {}", signal_name(self.status)),
            ExitHow::Dumped => write!(f, "ended by {} (core written)", signal_name(self.status)),
        }
    }
}

/// Why a service is in its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// For people: `requested by uid 0 (pid 812)`, `exited with status 1`.
    pub words: String,
    /// Who asked, if somebody did.
    pub request: Option<Requester>,
}

/// Who asked for something, by SO_PEERCRED.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requester {
    /// The user.
    pub uid: u32,
    /// The process.
    pub pid: u32,
}

impl Cause {
    /// A cause that nobody asked for.
    pub fn new(words: impl Into<String>) -> Self {
        Self { words: words.into(), request: None }
    }

    /// Somebody's request.
    #[must_use]
    pub fn request(what: &str, who: Requester) -> Self {
        Self { words: format!("{what} by uid {} (pid {})", who.uid, who.pid), request: Some(who) }
    }

    /// What follows from another cause keeps its requester.
    #[must_use]
    pub fn because(&self, words: impl Into<String>) -> Self {
        Self { words: words.into(), request: self.request }
    }
}

/// What reaches a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It is to run; what it depends on comes first.
    Wait(Cause),
    /// Its turn has come.
    Start,
    /// Its turn to end has come.
    Stop(Cause),
    /// Its process was made and runs the program.
    Launched {
        /// The process.
        pid: u32,
    },
    /// Its process was not made. Nothing of it is left but perhaps a cgroup.
    LaunchFailed {
        /// What was done to what, and what the kernel said.
        why: String,
        /// Trying again unasked is of no use.
        permanent: bool,
    },
    /// It said that it is ready.
    Ready,
    /// Its main process was reaped.
    Exited(Exit),
    /// Its main process is gone and nobody knows how it ended.
    Lost,
    /// The stop signal cannot reach the main process, and this is why.
    Deaf {
        /// For people.
        why: String,
    },
    /// Its cgroup was empty, and is removed.
    Gone,
    /// The deadline of its state has come.
    Timer,
}

/// What is to be done for a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Make its process; `Launched` or `LaunchFailed` answers.
    Launch,
    /// Send a signal to the main process.
    Signal {
        /// The main process.
        pid: u32,
        /// The signal.
        signal: i32,
    },
    /// Send a signal to every process that is left in the cgroup.
    SignalAll {
        /// The signal.
        signal: i32,
    },
    /// SIGKILL to all of the cgroup.
    Kill,
    /// Remove the cgroup as soon as it is empty; `Gone` answers.
    Sweep,
}

/// What a service's file says that matters here. A group has none of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// When it counts as started.
    pub start: Start,
    /// How long it may take.
    pub start_timeout: Option<Duration>,
    /// The stop signal.
    pub stop_signal: i32,
    /// How long it may take to end.
    pub stop_timeout: Duration,
    /// When it is started again.
    pub restart: Restart,
    /// What its waits differ by: another one for each service.
    pub seed: u64,
}

impl Rules {
    /// Whether it ended well.
    #[must_use]
    pub fn is_success(&self, exit: &Exit) -> bool {
        exit.is_success() || exit.is_in(&self.restart.success_on)
    }
}

/// One service at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// What it is doing.
    pub state: State,
    /// Since when.
    pub since: Duration,
    /// Why.
    pub cause: Cause,
    /// Where it is meant to be.
    pub goal: Goal,
    /// Why it is meant to be there.
    pub asked: Cause,
    /// It was asked for by name, and is not only there for somebody else.
    pub explicit: bool,
    /// When its last launch began, or a group came up; zero if that was never.
    pub launched: Duration,
    /// Its restarts.
    pub history: History,
    /// How its main process ended the last time.
    pub last_exit: Option<Exit>,
}

impl Default for Unit {
    fn default() -> Self {
        Self {
            state: State::Stopped,
            since: Duration::ZERO,
            cause: Cause::new("not started"),
            goal: Goal::Down,
            asked: Cause::new("nobody asked for it"),
            explicit: false,
            launched: Duration::ZERO,
            history: History::default(),
            last_exit: None,
        }
    }
}

impl Unit {
    /// Whether what depends on it may run.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Running { .. } | State::Done)
    }

    /// Whether anything of it is there, or may be.
    #[must_use]
    pub fn is_active(&self) -> bool {
        match self.state {
            State::Launching
            | State::Starting { .. }
            | State::Running { .. }
            | State::Done
            | State::Stopping { .. }
            | State::Orphan => true,
            State::Stopped | State::Waiting | State::Backoff { .. } | State::Failed => false,
        }
    }

    /// The main process.
    #[must_use]
    pub fn main(&self) -> Option<Main> {
        match self.state {
            State::Starting { main, .. } | State::Running { main } => Some(main),
            State::Stopping { main, .. } => main,
            State::Stopped
            | State::Waiting
            | State::Launching
            | State::Done
            | State::Backoff { .. }
            | State::Failed
            | State::Orphan => None,
        }
    }

    /// When the state has waited long enough.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Starting { deadline, .. } => deadline,
            State::Stopping { stage: Stage::Signalled { deadline }, .. } => Some(deadline),
            State::Stopping { stage: Stage::Killed { again }, .. } => Some(again),
            State::Backoff { until } => Some(until),
            State::Stopped
            | State::Waiting
            | State::Launching
            | State::Running { .. }
            | State::Done
            | State::Failed
            | State::Orphan => None,
        }
    }

    /// Nobody was there to judge for `outage`: what a service was given to start or to end does not run out meanwhile.
    pub fn extend(&mut self, outage: Duration) {
        match &mut self.state {
            State::Starting { deadline: Some(deadline), .. }
            | State::Stopping { stage: Stage::Signalled { deadline }, .. } => {
                *deadline = deadline.saturating_add(outage);
            }
            State::Starting { deadline: None, .. }
            | State::Stopping { stage: Stage::Killed { .. }, .. }
            | State::Stopped
            | State::Waiting
            | State::Launching
            | State::Running { .. }
            | State::Done
            | State::Backoff { .. }
            | State::Failed
            | State::Orphan => {}
        }
    }
}
