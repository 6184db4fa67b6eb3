//! `[restart]`: when a service that ended by itself is started again, and after which ends it is not.

use std::{sync::LazyLock, time::Duration};

use sandbox::diagnostic::{Diagnostic, Located, nearest};

use super::{
    Start,
    raw::{RawExit, RawService},
    validate::Checker,
    words::{SIGNALS, signal},
};
use crate::rare::Usual;

/// The status by which a program says that trying again is of no use, as under s6.
const PERMANENT_FAILURE: u8 = 125;

/// When a service that ended by itself is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Never.
    Never,
    /// When it failed: a status other than 0, a signal, a timeout.
    Failure,
    /// Always.
    Always,
}

/// Some of the ways in which a process can end: statuses 0 to 255, signals 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExitSet {
    statuses: [u64; 4],
    signals: u64,
}

impl ExitSet {
    /// One status more.
    #[must_use]
    pub fn with_status(mut self, status: u8) -> Self {
        self.statuses[usize::from(status / 64)] |= 1 << (status % 64);
        self
    }

    /// One signal more; a number that is no signal's changes nothing.
    #[must_use]
    pub fn with_signal(mut self, signal: i32) -> Self {
        self.signals |= bit_of_signal(signal);
        self
    }

    /// Whether an exit with this status is meant.
    #[must_use]
    pub fn has_status(&self, status: i32) -> bool {
        u8::try_from(status)
            .is_ok_and(|status| self.statuses[usize::from(status / 64)] & 1 << (status % 64) != 0)
    }

    /// Whether an end by this signal is meant.
    #[must_use]
    pub fn has_signal(&self, signal: i32) -> bool {
        self.signals & bit_of_signal(signal) != 0
    }
}

fn bit_of_signal(signal: i32) -> u64 {
    if (1..=64).contains(&signal) { 1 << (signal - 1) } else { 0 }
}

/// `[restart]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Restart {
    /// After which ends.
    pub when: When,
    /// The first wait.
    pub delay: Duration,
    /// Each further wait is this many times the one before; at least 1.
    pub factor: f64,
    /// No wait is longer.
    pub max_delay: Duration,
    /// By which part of itself a wait may differ, so that services that failed together do not all come back together.
    pub jitter: f64,
    /// Up this long: the delay starts from the beginning.
    pub reset_after: Duration,
    /// More restarts than this within `limit_window`, and the service is `failing`.
    pub limit: u32,
    /// See `limit`.
    pub limit_window: Duration,
    /// Ends that are as good as status 0.
    pub success_on: ExitSet,
    /// Ends after which it is not started again, whatever `when` says.
    pub never_on: ExitSet,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            when: When::Failure,
            delay: Duration::from_millis(100),
            factor: 2.0,
            max_delay: Duration::from_secs(60),
            jitter: 0.1,
            reset_after: Duration::from_secs(30),
            limit: 10,
            limit_window: Duration::from_secs(60),
            success_on: ExitSet::default(),
            never_on: ExitSet::default().with_status(PERMANENT_FAILURE),
        }
    }
}

impl Usual for Restart {
    fn usual() -> &'static Self {
        static DEFAULT: LazyLock<Restart> = LazyLock::new(Restart::default);
        &DEFAULT
    }
}

impl Checker<'_> {
    /// What is not written is as in [`Restart::default`].
    pub(super) fn restart(&mut self, raw: &RawService, start: Start) -> Restart {
        let default = Restart::default();
        let words = [("never", When::Never), ("failure", When::Failure), ("always", When::Always)];
        // What a oneshot does is often not safe to do twice: it is done again only where that is written.
        let otherwise = if start == Start::Oneshot { When::Never } else { default.when };
        let when = self.word("restart.when", raw.restart_when.as_ref(), &words).unwrap_or(otherwise);
        if let (Start::Oneshot, When::Always, Some(written)) = (start, when, &raw.restart_when) {
            self.refuse(
                "bad-value",
                &written.at,
                "a oneshot that succeeded is done, so it cannot restart \"always\"",
                "write \"failure\", or another `start.type`",
            );
        }
        let delay = self.duration(raw.restart_delay.as_ref()).unwrap_or(default.delay);
        let max_delay = self.duration(raw.restart_max_delay.as_ref()).unwrap_or(default.max_delay.max(delay));
        if let (Some(written), true) = (&raw.restart_max_delay, max_delay < delay) {
            self.refuse(
                "bad-value",
                &written.at,
                "`restart.max_delay` is shorter than `restart.delay`",
                "the delay grows from the one to the other",
            );
        }
        Restart {
            when,
            delay,
            factor: self.factor(raw).unwrap_or(default.factor),
            max_delay,
            jitter: self.jitter(raw).unwrap_or(default.jitter),
            reset_after: self.duration(raw.restart_reset_after.as_ref()).unwrap_or(default.reset_after),
            limit: self.limit(raw).unwrap_or(default.limit),
            limit_window: self.duration(raw.restart_limit_window.as_ref()).unwrap_or(default.limit_window),
            success_on: self.exits("success_on", &raw.restart_success_on).unwrap_or(default.success_on),
            never_on: self.exits("never_on", &raw.restart_never_on).unwrap_or(default.never_on),
        }
    }

    fn factor(&mut self, raw: &RawService) -> Option<f64> {
        let written = raw.restart_factor.as_ref()?;
        if (1.0..=100.0).contains(&written.value) {
            return Some(written.value);
        }
        self.refuse(
            "bad-value",
            &written.at,
            "`restart.factor` is between 1 and 100",
            "2.0 doubles each delay",
        );
        None
    }

    fn jitter(&mut self, raw: &RawService) -> Option<f64> {
        let written = raw.restart_jitter.as_ref()?;
        if (0.0..=1.0).contains(&written.value) {
            return Some(written.value);
        }
        self.refuse(
            "bad-value",
            &written.at,
            "`restart.jitter` is between 0 and 1",
            "0.1 lets a wait differ by up to a tenth of itself",
        );
        None
    }

    fn limit(&mut self, raw: &RawService) -> Option<u32> {
        let written = raw.restart_limit.as_ref()?;
        match u32::try_from(written.value).ok().filter(|limit| *limit >= 1) {
            Some(limit) => Some(limit),
            None => {
                self.refuse(
                    "bad-value",
                    &written.at,
                    "`restart.limit` is at least 1",
                    "`when = \"never\"` is how not to restart",
                );
                None
            }
        }
    }

    /// Statuses and signals; the list that is written takes the place of the one that is not.
    fn exits(&mut self, key: &str, written: &Option<Located<Vec<Located<RawExit>>>>) -> Option<ExitSet> {
        let written = written.as_ref()?;
        let mut set = ExitSet::default();
        for exit in &written.value {
            match &exit.value {
                RawExit::Status(status) => match u8::try_from(*status) {
                    Ok(status) => set = set.with_status(status),
                    Err(_) => self.refuse(
                        "bad-value",
                        &exit.at,
                        format!("`restart.{key}` cannot have {status}"),
                        "a process exits with a status from 0 to 255",
                    ),
                },
                RawExit::Signal(name) => match signal(name) {
                    Some(number) => set = set.with_signal(number),
                    None => self.no_such_signal(&Located::new(name.clone(), exit.at.clone())),
                },
            }
        }
        Some(set)
    }

    /// No signal is called so.
    pub(super) fn no_such_signal(&mut self, written: &Located<String>) {
        let problem = Diagnostic::error(
            "bad-signal",
            written.at.clone(),
            format!("no signal is named \"{}\"", written.value),
        )
        .help("the kernel's names, as in signal(7): \"SIGTERM\", \"SIGHUP\", \"SIGRTMIN+3\"");
        let with_prefix = format!("SIG{}", written.value);
        let near = nearest(&written.value, SIGNALS.iter().map(|(name, _)| *name))
            .or_else(|| SIGNALS.iter().map(|(name, _)| *name).find(|name| *name == with_prefix));
        self.problem(match near {
            Some(near) => problem.label(format!("did you mean \"{near}\"?")),
            None => problem,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::parse_text;

    fn restart(keys: &str) -> Result<Restart, Vec<&'static str>> {
        match parse_text("a", &format!("exec = [\"/bin/a\"]\n[restart]\n{keys}\n")) {
            Ok(service) => Ok(*service.program().unwrap().restart),
            Err(report) => Err(report.diagnostics.iter().map(|problem| problem.code).collect()),
        }
    }

    #[test]
    fn exits_are_statuses_and_signals() {
        let rules = restart("never_on = [2, \"SIGKILL\"]\nsuccess_on = [143, \"SIGRTMIN+1\"]").unwrap();
        assert!(rules.never_on.has_status(2) && rules.never_on.has_signal(libc::SIGKILL));
        assert!(!rules.never_on.has_status(9) && !rules.never_on.has_signal(2));
        assert!(!rules.never_on.has_status(125), "what is written takes the place of what is not");
        assert!(rules.success_on.has_status(143) && rules.success_on.has_signal(libc::SIGRTMIN() + 1));
        assert!(restart("").unwrap().never_on.has_status(125));
        for status in 0..256 {
            let set = ExitSet::default().with_status(u8::try_from(status).unwrap());
            assert_eq!((0..256).filter(|other| set.has_status(*other)).collect::<Vec<_>>(), [status]);
        }
    }

    #[test]
    fn what_no_process_can_do_is_refused() {
        assert_eq!(
            restart("never_on = [256, -1, \"TERM\", 1.5]"),
            Err(vec!["bad-value", "bad-value", "bad-signal", "wrong-type"])
        );
        assert_eq!(restart("jitter = 1.5"), Err(vec!["bad-value"]));
    }
}
