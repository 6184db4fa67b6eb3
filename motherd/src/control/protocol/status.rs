//! What the manager says of a service.
//!
//! Units go last in a name (`_bytes`, `_usec`); clocks are CLOCK_BOOTTIME; what does not apply is left out, and a
//! figure that cannot be had is [`Figure::Missing`].

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{
    events::{SocketStatus, TimerStatus},
    names,
};

/// The states that people see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not started, or stopped on request.
    Stopped,
    /// Wanted, and held back by something else: the sub-state says `blocked`, the cause by what.
    Waiting,
    /// Launched, not yet ready.
    Starting,
    /// Up.
    Running,
    /// Up, and reading its configuration again.
    Reloading,
    /// On the way down.
    Stopping,
    /// It ended; it will be started again after a delay.
    Backoff,
    /// A one-shot that has ended well, or a group all of whose members are up.
    Done,
    /// It ended badly or could not be started, and will not be tried again by itself.
    Failed,
    /// Its processes went away while nobody could watch, and no exit was recorded.
    Lost,
    /// Processes in a service's cgroup that no record knows; never touched without being asked.
    Orphan,
}

impl State {
    /// As on the wire and on the screen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            State::Stopped => "stopped",
            State::Waiting => "waiting",
            State::Starting => "starting",
            State::Running => "running",
            State::Reloading => "reloading",
            State::Stopping => "stopping",
            State::Backoff => "backoff",
            State::Done => "done",
            State::Failed => "failed",
            State::Lost => "lost",
            State::Orphan => "orphan",
        }
    }

    /// Whether `status` calls it up (exit status 0) or not (3).
    #[must_use]
    pub fn is_up(self) -> bool {
        match self {
            State::Starting | State::Running | State::Reloading | State::Stopping | State::Done => true,
            State::Stopped
            | State::Waiting
            | State::Backoff
            | State::Failed
            | State::Lost
            | State::Orphan => false,
        }
    }
}

/// Why a service is in the state it is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// `requested by uid 0 (pid 812)`, `needed by web`, `exited with status 1`.
    pub words: String,
    /// The request behind it, if a request is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Requester>,
}

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requester {
    /// By SO_PEERCRED.
    pub uid: u32,
    /// By SO_PEERCRED.
    pub pid: u32,
}

/// A service in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSummary {
    /// The name.
    pub name: String,
    /// Its author's words.
    pub description: String,
    /// Now.
    pub state: State,
    /// What distinguishes it within the state: `failing`, `blocked`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_state: Option<String>,
    /// What has the next boot start it, apart from who needs it: `enabled`, or `system`, whose file names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// The main process, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main_pid: Option<u32>,
    /// How long it has been in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_usec: Option<u64>,
}

/// Everything about a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The name.
    pub name: String,
    /// Its author's words.
    pub description: String,
    /// Now.
    pub state: State,
    /// What distinguishes it within the state: `failing`, `blocked`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_state: Option<String>,
    /// Why.
    pub cause: Cause,
    /// What has the next boot start it, apart from who needs it: `enabled`, or `system`, whose file names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// What it says of itself (sd_notify(3)): STATUS, and the errors that it told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
    /// What each `[[health]]` found last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health: Vec<String>,
    /// What came of each trigger of `cgroup.pressure`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pressure: Vec<String>,
    /// The main process, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main_pid: Option<u32>,
    /// When it came into this state, on CLOCK_BOOTTIME; missing for one that was never started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_boottime_usec: Option<u64>,
    /// How long it has been in this state, by the same clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_usec: Option<u64>,
    /// The process that waits to be its next one, where its file asks for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<StandbyStatus>,
    /// How many times it was started again by itself.
    pub restarts: u64,
    /// How its main process ended the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<LastExit>,
    /// The policy it is confined by.
    pub policy: String,
    /// Which text of it the main process was launched with; missing where there is none, or where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_in_force: Option<PolicyInForce>,
    /// What the policy asks for, calls optional, and this kernel or host lacks. The lines that were said at launch.
    pub left_out: Vec<LeftOut>,
    /// Its cgroup as an absolute path on the host, while it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// The kernel's accounting, while it has a cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<Figures>,
    /// Its isolation, while it has a main process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// The last lines of its log, oldest first.
    pub log: Vec<String>,
    /// How many lines `log.rate` had dropped, since it was started by somebody.
    pub dropped_lines: u64,
    /// What listens for it.
    pub sockets: Vec<SocketStatus>,
    /// When it is started by itself.
    pub timers: Vec<TimerStatus>,
}

/// The text of a policy, as a process was launched with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyInForce {
    /// The beginning of a digest of all its files, in hexadecimal.
    pub digest: String,
    /// Its files say something else now, or cannot be read: what runs is confined by what they said.
    pub drift: bool,
}

/// A process that waits right before execve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyStatus {
    /// It, if it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// It has nothing more to do before it is released.
    pub ready: bool,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    /// Whether `status` is an exit status or a signal.
    pub how: ExitHow,
    /// An exit status, or a signal's number.
    pub status: i32,
    /// When, on CLOCK_BOOTTIME.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boottime_usec: Option<u64>,
}

/// CLD_EXITED, CLD_KILLED, CLD_DUMPED (waitid(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitHow {
    /// By itself.
    Exited,
    /// By a signal.
    Killed,
    /// By a signal, and a core was written.
    Dumped,
    /// By the kernel, because the memory was used up.
    OutOfMemory,
}

/// One thing the host lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// `cgroup memory.max`, `landlock net`.
    pub what: String,
    /// `not in /sys/fs/cgroup/unified/cgroup.controllers`.
    pub why: String,
}

/// A figure of the kernel's, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure<T> {
    /// What the file says.
    Value(T),
    /// It cannot be had here.
    Missing(Missing),
}

/// A limit of the kernel's: a figure, none at all, or why it cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitFigure {
    /// What the file says.
    Value(u64),
    /// The file says `max`.
    Unlimited {},
    /// It cannot be had here.
    Missing(Missing),
}

/// Which file does not have it, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// `memory.current`, or a path.
    #[serde(deserialize_with = "names::file")]
    pub file: Cow<'static, str>,
    /// `ENOENT: the memory controller is not enabled here`.
    #[serde(deserialize_with = "names::reason")]
    pub why: Cow<'static, str>,
}

/// What the cgroup's files say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// memory.*
    pub memory: Memory,
    /// cpu.stat
    pub cpu: Cpu,
    /// io.stat, summed over the devices
    pub io: Io,
    /// pids.*
    pub pids: Pids,
    /// *.pressure
    pub pressure: Pressure,
}

/// memory.*
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// memory.current
    pub current_bytes: Figure<u64>,
    /// memory.peak (Linux 5.19)
    pub peak_bytes: Figure<u64>,
    /// memory.max
    pub max_bytes: LimitFigure,
    /// memory.swap.current
    pub swap_bytes: Figure<u64>,
    /// memory.events: oom_kill
    pub oom_kills: Figure<u64>,
}

/// cpu.stat
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// usage_usec
    pub usage_usec: Figure<u64>,
    /// user_usec
    pub user_usec: Figure<u64>,
    /// system_usec
    pub system_usec: Figure<u64>,
    /// throttled_usec
    pub throttled_usec: Figure<u64>,
}

/// io.stat
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Io {
    /// rbytes
    pub read_bytes: Figure<u64>,
    /// wbytes
    pub write_bytes: Figure<u64>,
}

/// pids.*
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pids {
    /// pids.current
    pub current: Figure<u64>,
    /// pids.max
    pub max: LimitFigure,
}

/// *.pressure: the share of the last ten seconds in which tasks stalled, in per cent (Documentation/accounting/psi.rst).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// cpu.pressure: some avg10
    pub cpu_some_avg10: Figure<f64>,
    /// cpu.pressure: full avg10 (Linux 5.13)
    pub cpu_full_avg10: Figure<f64>,
    /// memory.pressure: some avg10
    pub memory_some_avg10: Figure<f64>,
    /// memory.pressure: full avg10
    pub memory_full_avg10: Figure<f64>,
    /// io.pressure: some avg10
    pub io_some_avg10: Figure<f64>,
    /// io.pressure: full avg10
    pub io_full_avg10: Figure<f64>,
}

/// What holds a service back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Isolation {
    /// Read back from the kernel for the main process, just now.
    pub attested: Figure<Attested>,
    /// What no kernel lets one read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landlock: Option<LandlockApplied>,
}

/// What the kernel says of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attested {
    /// The process.
    pub pid: u32,
    /// /proc/PID/ns
    pub namespaces: Vec<Namespace>,
    /// /proc/PID/status: Cap*; missing in a brief answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// The same in a brief answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability_bits: Option<CapabilityBits>,
    /// /proc/PID/status: NoNewPrivs
    pub no_new_privs: bool,
    /// /proc/PID/status: Seccomp
    pub seccomp_mode: SeccompMode,
    /// /proc/PID/status: Seccomp_filters
    pub seccomp_filters: Figure<u64>,
    /// Real, effective, saved, file system.
    pub uids: Vec<u32>,
    /// Real, effective, saved, file system.
    pub gids: Vec<u32>,
    /// Supplementary.
    pub groups: Vec<u32>,
    /// /proc/PID/cgroup: the cgroup2 line; missing in a brief answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Figure<String>>,
    /// /proc/PID/mountinfo
    pub mounts: Figure<Mounts>,
}

/// One namespace of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// `mnt`, `pid`, `net`, ...
    #[serde(deserialize_with = "names::kind")]
    pub kind: Cow<'static, str>,
    /// The namespace's inode number.
    pub inode: u64,
    /// It is not the manager's own.
    pub private: bool,
    /// The service whose main process is in it too, where the policy joins that one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_with: Option<String>,
}

/// The capability sets, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// CapInh
    #[serde(deserialize_with = "names::capabilities")]
    pub inheritable: Vec<Cow<'static, str>>,
    /// CapPrm
    #[serde(deserialize_with = "names::capabilities")]
    pub permitted: Vec<Cow<'static, str>>,
    /// CapEff
    #[serde(deserialize_with = "names::capabilities")]
    pub effective: Vec<Cow<'static, str>>,
    /// CapBnd
    #[serde(deserialize_with = "names::capabilities")]
    pub bounding: Vec<Cow<'static, str>>,
    /// CapAmb
    #[serde(deserialize_with = "names::capabilities")]
    pub ambient: Vec<Cow<'static, str>>,
    /// How many this kernel knows.
    pub known: u64,
}

/// The capability sets as numbers: bit 0 is CAP_CHOWN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityBits {
    /// CapInh
    pub inheritable: u64,
    /// CapPrm
    pub permitted: u64,
    /// CapEff
    pub effective: u64,
    /// CapBnd
    pub bounding: u64,
    /// CapAmb
    pub ambient: u64,
    /// How many this kernel knows.
    pub known: u64,
}

/// Seccomp of /proc/PID/status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeccompMode {
    /// 0
    Disabled,
    /// 1
    Strict,
    /// 2
    Filter,
}

/// /proc/PID/mountinfo in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounts {
    /// How many mounts.
    pub count: u64,
    /// The mount at `/` is read-only.
    pub root_read_only: bool,
}

/// The Landlock domain, as it was compiled and applied at launch: no kernel lets one read it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LandlockApplied {
    /// The ABI it was compiled for.
    pub abi: u32,
    /// Rules on paths.
    pub path_rules: u64,
    /// Rules on TCP ports.
    pub port_rules: u64,
    /// `abstract-unix-socket`, `signal`
    pub scopes: Vec<String>,
}
