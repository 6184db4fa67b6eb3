//! What `Manager`, `Upgrade` and `FdStore` answer.

use serde::{Deserialize, Serialize};

/// The manager itself, and PID 1 above it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manager {
    /// motherd's version.
    pub release: String,
    /// How it was launched.
    pub mode: Mode,
    /// It is the nth motherd of this initldr, from 1.
    pub generation: u32,
    /// What became of the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Its process.
    pub pid: u32,
    /// The file that it runs; the kernel says ` (deleted)` behind it where another file has its place by now.
    pub program: String,
    /// What initldr launches next.
    pub installed: String,
    /// What initldr launches when that dies early again and again.
    pub previous: String,
    /// When it began.
    pub since_boottime_usec: u64,
    /// So many exits initldr could not keep while there was no motherd, ever.
    pub lost_exits: u64,
    /// initldr's process.
    pub initldr_pid: u32,
    /// The file that initldr runs.
    pub initldr_program: String,
}

/// How a motherd was launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// As ever.
    Normal,
    /// The ones before died early: what runs is left alone, nothing is started.
    Safe,
    /// The ones before died early: it is the program that was kept at the last upgrade.
    Previous,
    /// Both.
    PreviousSafe,
}

/// What came of an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// `motherd` or `initldr`.
    pub program: String,
    /// The file that was checked.
    pub candidate: String,
    /// What it calls itself.
    pub release: String,
    /// What it can read, in words.
    pub found: Vec<String>,
    /// Where it is installed.
    pub installed: String,
    /// Where the one before it is kept; `None` where it is the same program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    /// Nothing was changed.
    pub only_checked: bool,
}

/// What initldr keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdStore {
    /// Those that were asked for, by service and kind.
    pub slots: Vec<StoredFd>,
    /// So many slots are in use, of all.
    pub used: u64,
    /// So many there are.
    pub capacity: u64,
}

/// A descriptor that initldr keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFd {
    /// The slot's own name.
    pub slot: String,
    /// What it is for: `process`, `log`, `notify`, `socket`, `pushed` of a service; `control`, `events`, `log-stage`,
    /// `log-books`, `lock-run`, `lock-cgroups` of motherd; `other`.
    pub kind: String,
    /// Whose it is; `None`: motherd's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Which of several: FDNAME of a pushed one, the place in the file of a socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its number in initldr.
    pub number: i32,
    /// The kind of file: `pidfd`, `pipe`, `socket`, `memfd`, `file` and others.
    pub file: String,
    /// Which one, as far as the kernel says.
    pub about: String,
}
