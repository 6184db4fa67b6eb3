//! The end of everything: how, when, and what it waits for.

use serde::{Deserialize, Serialize};

/// How everything ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The machine is switched off.
    Poweroff,
    /// It begins anew.
    Reboot,
    /// It stands still.
    Halt,
    /// The kernel that `kexec` loaded begins; a reboot where there is none.
    Kexec,
    /// User space begins anew; the kernel runs on.
    SoftReboot,
    /// initldr exits, in a container or as an ordinary process.
    Exit,
}

impl How {
    /// As people are told.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Poweroff => "power-off",
            Self::Reboot => "reboot",
            Self::Halt => "halt",
            Self::Kexec => "kexec",
            Self::SoftReboot => "soft reboot",
            Self::Exit => "exit",
        }
    }
}

/// An end that is to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduled {
    /// How.
    pub how: How,
    /// When, in UTC (RFC 3339).
    pub at: String,
    /// How long that is from now.
    pub in_usec: u64,
    /// What users are told besides.
    pub message: String,
}

/// What the end waits for; or, where there is none, what is being stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndingStatus {
    /// `None`: there is no end under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<How>,
    /// At most so long, whatever is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_usec: Option<u64>,
    /// One that is to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<Scheduled>,
    /// What is being stopped.
    pub awaited: Vec<Awaited>,
    /// The names of those whose turn comes after these.
    pub later: Vec<String>,
}

/// A service that is being stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awaited {
    /// Its name.
    pub service: String,
    /// What was done: `SIGTERM was sent, SIGKILL follows`.
    pub doing: String,
    /// For so long, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_usec: Option<u64>,
    /// What is left of it.
    pub processes: Vec<Process>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid, as motherd sees it.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// A letter, as ps(1) has it: `S` sleeps, `D` waits in the kernel and hears no signal.
    pub state: String,
    /// Where in the kernel it waits, where the kernel says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wchan: Option<String>,
    /// Its command line.
    pub command: String,
}
