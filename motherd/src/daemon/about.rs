//! Which motherd this is, why it was launched, and what it runs: for whoever asks, and for the event log.

use std::{fs, path::Path, time::Duration};

use initldr::link::ANSWER_WITHIN_SECONDS;

use super::{Daemon, Fatal, link::Replay, now, upgrade::Installed};
use crate::control::protocol::{Manager, Mode};

/// What does not change while it runs.
#[derive(Debug)]
pub(super) struct About {
    generation: u32,
    mode: Mode,
    /// What became of the one before; `None` for the first.
    pub(super) cause: Option<String>,
    since: Duration,
    /// So many fell out of initldr's ring.
    lost_exits: u64,
    /// Since when initldr was not told that this motherd is there: in safe mode, while exits are not acknowledged, and where it
    /// keeps a watchdog.
    pub(super) owes_since: Option<Duration>,
}

impl About {
    pub(super) fn new(replay: &Replay, safe: bool, installed: &Installed) -> Self {
        let mode = match (safe, installed.is_previous()) {
            (false, false) => Mode::Normal,
            (true, false) => Mode::Safe,
            (false, true) => Mode::Previous,
            (true, true) => Mode::PreviousSafe,
        };
        let (generation, lost_exits) = (replay.generation, replay.lost_exits);
        Self { generation, mode, cause: replay.cause.clone(), since: now(), lost_exits, owes_since: None }
    }

    /// What runs is left alone, and no record is believed.
    pub(super) fn is_safe(&self) -> bool {
        matches!(self.mode, Mode::Safe | Mode::PreviousSafe)
    }

    /// When initldr is to hear next that this motherd is there.
    pub(super) fn says_at(&self) -> Option<Duration> {
        self.owes_since.map(|since| since + Duration::from_secs(ANSWER_WITHIN_SECONDS / 3))
    }

    /// As an event has it; `None` for the first one, of which there is nothing to say.
    pub(super) fn words(&self) -> Option<String> {
        let cause = self.cause.as_ref()?;
        let mode = match self.mode {
            Mode::Normal => "",
            Mode::Safe => ", in safe mode",
            Mode::Previous => ", the previous program",
            Mode::PreviousSafe => ", the previous program, in safe mode",
        };
        Some(format!("motherd number {}{mode}: the one before {cause}", self.generation))
    }
}

impl Daemon {
    /// Says so, if it is time.
    pub(super) fn say_alive(&mut self, now: Duration) -> Result<(), Fatal> {
        if self.about.says_at().is_some_and(|at| at <= now) {
            self.link.alive()?;
            self.about.owes_since = Some(now);
        }
        Ok(())
    }

    /// For whoever asks.
    pub(super) fn manager_status(&self) -> Manager {
        let program = |pid: u32| {
            let link = fs::read_link(format!("/proc/{pid}/exe"));
            link.map(|path| path.display().to_string()).unwrap_or_default()
        };
        let initldr = std::os::unix::process::parent_id();
        let text = |path: &Path| path.display().to_string();
        Manager {
            release: env!("CARGO_PKG_VERSION").to_owned(),
            mode: self.about.mode,
            generation: self.about.generation,
            why: self.about.cause.clone(),
            pid: std::process::id(),
            program: program(std::process::id()),
            installed: text(&self.installed.motherd),
            previous: text(&self.installed.previous),
            since_boottime_usec: u64::try_from(self.about.since.as_micros()).unwrap_or(u64::MAX),
            lost_exits: self.about.lost_exits,
            initldr_pid: initldr,
            initldr_program: program(initldr),
        }
    }
}
