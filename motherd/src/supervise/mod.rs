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
//! A service with conditions is `Expecting` between `Waiting` and its start, until they hold.
//!
//! Around the program there may be commands, one after the other: `Preparing` comes before `Launching` (`start.pre`),
//! `Settling` before `Running` (`start.post`), `Asking` is the first stage of `Stopping` (`stop.exec`), and `Cleaning`
//! comes after `Gone` (`stop.post`) and leads through `Stopping` once more, to end what the commands left. A program
//! that forks is `Starting` until its first process has ended, and then `Forked` until its daemon is found.
//!
//! Invariants. A state carries exactly the data that is true in it: a deadline exists only in the state that waits for
//! it, so no timer outlives its reason. Every way out of a state with a process leads through `Stopping`, whose end is
//! an empty, removed cgroup; so there are never two live instances of a service. A signal is only ever sent to the
//! main process that the state names.
//!
//! Times are CLOCK_BOOTTIME since boot. Nothing here asks a clock.

mod commands;
mod meant;
mod restart;
mod standby;
mod step;

use std::{fmt, time::Duration};

pub use restart::History;
pub use standby::{PARK_AGAIN, PARK_NEXT, Standby, StandbyEvent};

use crate::service::{ExitSet, Restart, Start, When, signal_name, size_name};

/// After SIGKILL to the whole cgroup the next look (and the next SIGKILL) comes after this long: 10 s. What survives it
/// hangs in the kernel, and no haste helps.
pub const KILL_AGAIN: Duration = Duration::from_secs(10);

/// Why one is up that was found without a record.
pub(crate) const RECORD_LOST: &str = "found by its cgroup and its process: its record was lost";

/// What one service is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing runs.
    Stopped,
    /// It is to run, and something has to happen first.
    Waiting,
    /// It is to run, and something on the machine has to be so first (`[[condition]]`).
    Expecting {
        /// Until then others wait with it; without one it waits as long as it takes.
        deadline: Option<Duration>,
    },
    /// Its process is being made; the next event says whether it was.
    Launching,
    /// It runs and is not ready (or is a oneshot that has not finished).
    Starting {
        /// The main process.
        main: Main,
        /// Then it has failed to start.
        deadline: Option<Duration>,
    },
    /// What comes before it is at work; there is no main process yet.
    Preparing {
        /// A command of `start.pre`.
        command: Command,
    },
    /// Its first process ended well, and the daemon that it left behind is looked for.
    Forked {
        /// When the first process was launched.
        launched: Duration,
        /// Then there is none.
        deadline: Option<Duration>,
    },
    /// It is ready, and what is to be done before it counts as up is at work.
    Settling {
        /// The main process.
        main: Main,
        /// A command of `start.post`.
        command: Command,
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
    /// Nothing of it is left, and what comes after it is at work.
    Cleaning {
        /// A command of `stop.post`.
        command: Command,
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

impl State {
    /// The command that is at work.
    pub(crate) fn command(&mut self) -> Option<&mut Command> {
        match self {
            Self::Preparing { command }
            | Self::Settling { command, .. }
            | Self::Cleaning { command, .. }
            | Self::Stopping { stage: Stage::Asking { command }, .. } => Some(command),
            Self::Stopped
            | Self::Waiting
            | Self::Expecting { .. }
            | Self::Launching
            | Self::Starting { .. }
            | Self::Forked { .. }
            | Self::Running { .. }
            | Self::Done
            | Self::Stopping { stage: Stage::Signalled { .. } | Stage::Killed { .. }, .. }
            | Self::Backoff { .. }
            | Self::Failed
            | Self::Orphan => None,
        }
    }
}

/// The lists of commands that a file may have around its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before the program: `start.pre`.
    Pre,
    /// When the program is ready: `start.post`.
    Post,
    /// Before the stop signal: `stop.exec`.
    Stop,
    /// When nothing of the service is left: `stop.post`.
    StopPost,
}

impl Hook {
    /// The key.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pre => "start.pre",
            Self::Post => "start.post",
            Self::Stop => "stop.exec",
            Self::StopPost => "stop.post",
        }
    }
}

/// A command at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    /// Of which list.
    pub hook: Hook,
    /// Which of them, from 0.
    pub index: u16,
    /// Its process, once it was made.
    pub process: Option<Main>,
    /// Then it has failed.
    pub deadline: Duration,
    /// It had its time and is being killed; what comes after it waits until it has ended, or for the deadline.
    pub overdue: bool,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.hook.name(), self.index)
    }
}

/// How many commands each list has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Commands {
    /// `start.pre`
    pub pre: u16,
    /// `start.post`
    pub post: u16,
    /// `stop.exec`
    pub stop: u16,
    /// `stop.post`
    pub stop_post: u16,
}

impl Commands {
    fn of(&self, hook: Hook) -> u16 {
        match hook {
            Hook::Pre => self.pre,
            Hook::Post => self.post,
            Hook::Stop => self.stop,
            Hook::StopPost => self.stop_post,
        }
    }
}

/// How far stopping has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A command of `stop.exec` is at work; the stop signal follows.
    Asking {
        /// See above.
        command: Command,
    },
    /// The stop signal was sent; SIGKILL follows at `deadline`.
    Signalled {
        /// See above.
        deadline: Duration,
    },
    /// SIGKILL was sent to all of the cgroup; what is left at `again` gets another.
    Killed {
        /// See above.
        again: Duration,
        /// It was said what would not end.
        stuck: bool,
        /// What comes after the service was done, or is not to be: `Gone` is the end.
        cleaned: bool,
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
    /// By the kernel, because the memory was used up.
    OutOfMemory {
        /// `memory.max` of its cgroup; 0 where there was none, or where it is not known any more.
        limit_bytes: u64,
    },
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
            ExitHow::Killed | ExitHow::Dumped | ExitHow::OutOfMemory { .. } => set.has_signal(self.status),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.how {
            ExitHow::Exited => write!(f, "exited with status {}", self.status),
            ExitHow::Killed => write!(f, "ended by {}", signal_name(self.status)),
            ExitHow::Dumped => write!(f, "ended by {} (core written)", signal_name(self.status)),
            ExitHow::OutOfMemory { limit_bytes: 0 } => write!(f, "killed: out of memory"),
            ExitHow::OutOfMemory { limit_bytes } => {
                write!(f, "killed: out of memory (memory.max {})", size_name(limit_bytes))
            }
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

/// A time in a sentence: `2.812 s`, `90 s`.
fn seconds(time: Duration) -> String {
    let text = format!("{}.{:03}", time.as_secs(), time.subsec_millis());
    format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
}

/// What reaches a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It is to run; what it depends on comes first.
    Wait(Cause),
    /// Its turn would have come, if what its conditions are about were so.
    Expect {
        /// How long others wait with it, from when it began to wait.
        patience: Option<Duration>,
    },
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
    /// It said, or showed, that it is ready.
    Ready,
    /// This is its main process now.
    MainPid {
        /// Found in its cgroup.
        pid: u32,
    },
    /// The process of the command of its state was made.
    CommandLaunched {
        /// The process.
        pid: u32,
    },
    /// The command of its state could not be run, or nobody knows what became of it.
    CommandFailed {
        /// What was done to what, and what the kernel said.
        why: String,
        /// Trying again unasked is of no use.
        permanent: bool,
    },
    /// The process of the command of its state was reaped.
    CommandExited(Exit),
    /// It asks for more time (EXTEND_TIMEOUT_USEC): none of its deadlines comes before.
    Extend {
        /// See above.
        until: Duration,
    },
    /// It runs and does not do what it is there for.
    Sick {
        /// For people.
        why: String,
        /// What ends it; `None`: its stop signal.
        signal: Option<i32>,
    },
    /// After SIGKILL these are still there.
    Stuck {
        /// For people: pids, and where in the kernel they wait.
        who: String,
    },
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
    /// About the process that waits to be the next one.
    Standby(StandbyEvent),
    /// The deadline of its state has come.
    Timer,
}

/// What is to be done for a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Look which of its conditions hold, and say so whenever that changes; [`crate::manager::Manager::conditions`] hears it.
    Look,
    /// Make its process; `Launched` or `LaunchFailed` answers.
    Launch,
    /// Make a process that waits right before execve; [`Event::Standby`] answers.
    Park,
    /// End the process that waits.
    Unpark {
        /// It.
        pid: u32,
    },
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
    /// Run a command; `CommandLaunched` or `CommandFailed` answers.
    Run {
        /// Of which list.
        hook: Hook,
        /// Which of them.
        index: u16,
    },
    /// SIGKILL to the process of a command.
    KillCommand {
        /// The process.
        pid: u32,
    },
    /// Look for the daemon that a program left behind; `MainPid` answers as soon as it is found.
    FindMain,
    /// Say what is left in the cgroup; `Stuck` answers.
    Survivors,
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
    /// A oneshot that succeeded stays up.
    pub remain: bool,
    /// One more process waits to be the next one.
    pub standby: bool,
    /// The commands around it.
    pub commands: Commands,
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
    /// What stopping may take until SIGKILL, and cleaning up after it.
    #[must_use]
    pub fn longest_stop(&self) -> Duration {
        let parts = 1 + u32::from(self.commands.stop) + u32::from(self.commands.stop_post);
        self.stop_timeout.saturating_mul(parts)
    }

    /// Of a group that was a program when it was started: it is left alone until it is to stop, or ends.
    #[must_use]
    pub fn former() -> Self {
        Self {
            start: Start::Exec,
            start_timeout: None,
            stop_signal: libc::SIGTERM,
            stop_timeout: Duration::from_secs(10),
            restart: Restart { when: When::Never, ..Restart::default() },
            seed: 0,
            remain: false,
            standby: false,
            commands: Commands::default(),
        }
    }

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
    /// The process that waits to be the next one. It ends with the motherd that made it, so no record has it.
    pub standby: Standby,
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
            standby: Standby::None,
        }
    }
}

impl Unit {
    /// It runs as this process, and what its record says of that is wrong or not there; the rest of what is known stays.
    /// Who asked for it is not known, so it stays until somebody stops it.
    #[must_use]
    pub fn found(self, pid: u32, now: Duration) -> Self {
        let cause = Cause::new(RECORD_LOST);
        let main = Main { pid, launched: now };
        let (state, goal, asked) = (State::Running { main }, Goal::Up, cause.clone());
        Self { state, since: now, cause, goal, asked, explicit: true, ..self }
    }

    /// What is meant of one that is not active, while processes of it are there that no record knows: whoever was to be started,
    /// or started again, is once they have ended.
    #[must_use]
    pub fn goal_beside_others(&self) -> Goal {
        if self.state == State::Failed { Goal::Down } else { self.goal }
    }

    /// Whether what depends on it may run.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Running { .. } | State::Done)
    }

    /// Whether anything of it is there, or may be.
    #[must_use]
    pub fn is_active(&self) -> bool {
        match self.state {
            State::Preparing { .. }
            | State::Launching
            | State::Starting { .. }
            | State::Forked { .. }
            | State::Settling { .. }
            | State::Running { .. }
            | State::Done
            | State::Stopping { .. }
            | State::Cleaning { .. }
            | State::Orphan => true,
            State::Stopped
            | State::Waiting
            | State::Expecting { .. }
            | State::Backoff { .. }
            | State::Failed => false,
        }
    }

    /// Whether it is there and its end would begin with a request to stop.
    #[must_use]
    pub fn can_be_stopped(&self) -> bool {
        match self.state {
            State::Preparing { .. }
            | State::Starting { .. }
            | State::Forked { .. }
            | State::Settling { .. }
            | State::Running { .. }
            | State::Done => true,
            State::Stopped
            | State::Waiting
            | State::Expecting { .. }
            | State::Launching
            | State::Stopping { .. }
            | State::Cleaning { .. }
            | State::Backoff { .. }
            | State::Failed
            | State::Orphan => false,
        }
    }

    /// The main process.
    #[must_use]
    pub fn main(&self) -> Option<Main> {
        match self.state {
            State::Starting { main, .. } | State::Settling { main, .. } | State::Running { main } => {
                Some(main)
            }
            State::Stopping { main, .. } => main,
            State::Stopped
            | State::Waiting
            | State::Expecting { .. }
            | State::Preparing { .. }
            | State::Launching
            | State::Forked { .. }
            | State::Done
            | State::Cleaning { .. }
            | State::Backoff { .. }
            | State::Failed
            | State::Orphan => None,
        }
    }

    /// The command that is at work.
    #[must_use]
    pub fn command(&self) -> Option<Command> {
        self.state.clone().command().copied()
    }

    /// When something has waited long enough.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let standby = match self.standby {
            Standby::Later { at } => Some(at),
            Standby::None | Standby::Parking | Standby::Parked { .. } => None,
        };
        self.state_deadline().into_iter().chain(standby).min()
    }

    /// When the state has waited long enough.
    pub(crate) fn state_deadline(&self) -> Option<Duration> {
        match self.state {
            State::Expecting { deadline }
            | State::Starting { deadline, .. }
            | State::Forked { deadline, .. } => deadline,
            State::Preparing { command }
            | State::Settling { command, .. }
            | State::Stopping { stage: Stage::Asking { command }, .. }
            | State::Cleaning { command, .. } => Some(command.deadline),
            State::Stopping { stage: Stage::Signalled { deadline }, .. } => Some(deadline),
            State::Stopping { stage: Stage::Killed { again, .. }, .. } => Some(again),
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
            State::Expecting { deadline: Some(deadline) }
            | State::Starting { deadline: Some(deadline), .. }
            | State::Forked { deadline: Some(deadline), .. }
            | State::Preparing { command: Command { deadline, .. } }
            | State::Settling { command: Command { deadline, .. }, .. }
            | State::Cleaning { command: Command { deadline, .. }, .. }
            | State::Stopping { stage: Stage::Asking { command: Command { deadline, .. } }, .. }
            | State::Stopping { stage: Stage::Signalled { deadline }, .. } => {
                *deadline = deadline.saturating_add(outage);
            }
            State::Expecting { deadline: None }
            | State::Starting { deadline: None, .. }
            | State::Forked { deadline: None, .. }
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
