//! An end that is to come at a time: it is kept in a file below /run, so that the next motherd knows of it, and users are
//! told of it on their terminals: when it is arranged, and when ever less time is left.
//!
//! The time is one of the wall clock; the descriptor that waits for calendar times (`timers.rs`) waits for this one too,
//! and is woken when somebody sets the clock.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::time::{ClockId as Clock, clock_gettime};

use super::{Daemon, Fatal};
use crate::{
    calendar::timestamp,
    control::protocol::{How, Scheduled},
    eventlog::What,
    supervise::{Cause, Requester},
};

/// Users are told when so many minutes are left.
const WARNINGS: [u64; 8] = [60, 30, 15, 10, 5, 3, 2, 1];
/// Nobody but root logs in any more when less than this is left (pam_nologin(8)): 5 minutes.
const NO_LOGIN: Duration = Duration::from_secs(5 * 60);
/// What pam_nologin looks for.
const NO_LOGIN_FILE: &str = "run/nologin";

/// What is to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    how: How,
    /// Seconds since 1970.
    at: u64,
    message: String,
    who: Requester,
    /// Users were told of this much left, in seconds.
    told: u64,
}

impl Plan {
    /// When there is something to do.
    pub(super) fn next(&self) -> Duration {
        let warnings = WARNINGS.iter().map(|minutes| minutes * 60);
        let warning = warnings.filter(|left| *left < self.told).max().unwrap_or(0);
        Duration::from_secs(self.at.saturating_sub(warning))
    }

    fn left(&self, realtime: Duration) -> Duration {
        Duration::from_secs(self.at).saturating_sub(realtime)
    }

    /// One line, the message last.
    fn encode(&self) -> String {
        let Self { how, at, message, who, told } = self;
        let how = serde_json::to_string(how).unwrap_or_default();
        format!("{} {at} {} {} {told} {}\n", how.trim_matches('"'), who.uid, who.pid, one_line(message))
    }

    fn decode(line: &str) -> Option<Self> {
        let mut words = line.trim_end_matches('\n').splitn(6, ' ');
        let how = serde_json::from_str(&format!("\"{}\"", words.next()?)).ok()?;
        let at = words.next()?.parse().ok()?;
        let who = Requester { uid: words.next()?.parse().ok()?, pid: words.next()?.parse().ok()? };
        let told = words.next()?.parse().ok()?;
        Some(Self { how, at, message: words.next()?.to_owned(), who, told })
    }

    /// What users read.
    fn notice(&self, realtime: Duration) -> String {
        let left = self.left(realtime).as_secs();
        let when = match left.div_ceil(60) {
            0 => "now".to_owned(),
            1 if left <= 60 => "in one minute".to_owned(),
            minutes => format!("in {minutes} minutes"),
        };
        let at = timestamp(Duration::from_secs(self.at));
        let message = if self.message.is_empty() { String::new() } else { format!("\r\n{}", self.message) };
        format!("\r\n\x07The system is going down for {} {when} ({at}).{message}\r\n", self.how.name())
    }
}

/// Nothing in it moves a cursor.
fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

fn realtime() -> Duration {
    clock_gettime(Clock::CLOCK_REALTIME).map(Duration::from).unwrap_or_default()
}

impl Daemon {
    fn plan_file(&self) -> PathBuf {
        self.paths.run.join("scheduled-end")
    }

    /// What the motherd before this one arranged.
    pub(super) fn load_plan(&mut self) {
        self.timers.end = fs::read_to_string(self.plan_file()).ok().and_then(|line| Plan::decode(&line));
    }

    /// What is to come, for people.
    pub(super) fn scheduled(&self) -> Option<Scheduled> {
        let plan = self.timers.end.as_ref()?;
        Some(Scheduled {
            how: plan.how,
            at: timestamp(Duration::from_secs(plan.at)),
            in_usec: u64::try_from(plan.left(realtime()).as_micros()).unwrap_or(u64::MAX),
            message: plan.message.clone(),
        })
    }

    /// Arranges an end, in the place of one that was arranged.
    pub(super) fn schedule(
        &mut self,
        how: How,
        at: u64,
        message: &str,
        who: Requester,
    ) -> Result<Result<Option<Scheduled>, String>, Fatal> {
        if self.manager.ending().is_some() {
            return Ok(Err("everything is ending already".to_owned()));
        }
        let now = realtime();
        let told = Duration::from_secs(at).saturating_sub(now).as_secs();
        let plan = Plan { how, at, message: one_line(message), who, told };
        let cause = format!("{} at {} requested", how.name(), timestamp(Duration::from_secs(at)));
        let cause = Cause::request(&cause, who);
        tracing::info!("{}", cause.words);
        self.note(What::Manager, "", &cause);
        self.tell_users(&plan.notice(now));
        self.keep_plan(Some(plan))?;
        let scheduled = self.scheduled();
        self.clock_ready()?; // it may be due already
        Ok(Ok(scheduled))
    }

    /// Nothing is to come any more; what would have.
    pub(super) fn unschedule(&mut self, who: Requester) -> Result<Option<Scheduled>, Fatal> {
        let scheduled = self.scheduled();
        if let Some(scheduled) = &scheduled {
            let cause = Cause::request(&format!("{} called off", scheduled.how.name()), who);
            tracing::info!("{}", cause.words);
            self.note(What::Manager, "", &cause);
            let how = scheduled.how.name();
            self.tell_users(&format!("\r\n\x07The {how} that was to come is called off.\r\n"));
            self.keep_plan(None)?;
        }
        Ok(scheduled)
    }

    /// The clock has come to something, or was set.
    pub(super) fn follow_plan(&mut self) -> Result<(), Fatal> {
        let now = realtime();
        let Some(plan) = self.timers.end.clone().filter(|plan| now >= plan.next()) else { return Ok(()) };
        self.tell_users(&plan.notice(now));
        if now < Duration::from_secs(plan.at) {
            let told = plan.left(now).as_secs();
            return self.keep_plan(Some(Plan { told, ..plan }));
        }
        self.keep_plan(None)?;
        let cause = Cause::request(
            &format!("the time for the {} has come that was asked for", plan.how.name()),
            plan.who,
        );
        self.end(plan.how.end(0), &cause)
    }

    /// In the file first: a motherd that ends in between tells users once more at worst.
    fn keep_plan(&mut self, plan: Option<Plan>) -> Result<(), Fatal> {
        let file = self.plan_file();
        let kept = match &plan {
            Some(plan) => {
                let temporary = file.with_extension("new");
                fs::write(&temporary, plan.encode()).and_then(|()| fs::rename(&temporary, &file))
            }
            None => absent(&file),
        };
        if let Err(error) = kept {
            tracing::warn!("{}: {error}: a motherd after this one does not know of it", file.display());
        }
        let no_login = self.paths.root.join(NO_LOGIN_FILE);
        let soon = plan.as_ref().filter(|plan| plan.left(realtime()) <= NO_LOGIN);
        let written = match soon {
            Some(plan) => fs::write(&no_login, plan.notice(realtime()).replace(['\r', '\x07'], "")),
            None => absent(&no_login),
        };
        if let Err(error) = written {
            tracing::warn!("{}: {error}", no_login.display());
        }
        self.timers.end = plan;
        self.timers.arm_anew().map_err(Fatal::system("timerfd_settime"))
    }

    /// On each terminal of this system. One that takes nothing is not waited for.
    fn tell_users(&self, text: &str) {
        super::tell(&text.replace(['\r', '\x07'], ""));
        let Ok(entries) = fs::read_dir(self.paths.root.join("dev/pts")) else { return };
        for entry in entries.filter_map(Result::ok) {
            let is_number = entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
            if is_number && let Err(error) = write_to(&entry.path(), text) {
                tracing::debug!("{}: {error}", entry.path().display());
            }
        }
    }
}

fn write_to(terminal: &Path, text: &str) -> io::Result<()> {
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    fs::OpenOptions::new().write(true).custom_flags(flags).open(terminal)?.write_all(text.as_bytes())
}

fn absent(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(left: u64, told: u64) -> (Plan, Duration) {
        let who = Requester { uid: 0, pid: 12 };
        let plan = Plan { how: How::Reboot, at: 10_000 + left, message: "a new kernel".into(), who, told };
        (plan, Duration::from_secs(10_000))
    }

    #[test]
    fn users_are_told_when_less_and_less_is_left_and_then_it_comes() {
        let (mut plan, _) = plan(7 * 60, 7 * 60);
        let mut when = Vec::new();
        loop {
            let next = plan.next();
            let left = plan.left(next).as_secs();
            when.push(left / 60);
            if left == 0 {
                break;
            }
            plan.told = left;
        }
        assert_eq!(when, [5, 3, 2, 1, 0]);
        assert_eq!(super::tests::plan(30, 30).0.next(), Duration::from_secs(10_030), "at once the end");
    }

    #[test]
    fn a_plan_comes_back_out_of_its_file() {
        for message in ["a new kernel", "", "with  blanks and \u{1b}[2Jmore\n"] {
            let kept = Plan { message: one_line(message), ..plan(90, 60).0 };
            assert_eq!(Plan::decode(&kept.encode()), Some(kept));
        }
        assert_eq!(Plan::decode("reboot soon 0 1 2 x"), None);
        assert_eq!(Plan::decode("sleep 1 0 1 2 x"), None);
        assert_eq!(Plan::decode(""), None);
    }

    #[test]
    fn the_notice_says_when_and_why() {
        let check = |left, expected: &str| {
            let (plan, now) = plan(left, left);
            let notice = plan.notice(now);
            assert!(notice.contains(&format!("going down for reboot {expected} (1970-01-01")), "{notice}");
            assert!(notice.ends_with("\r\na new kernel\r\n"), "{notice}");
        };
        check(0, "now");
        check(60, "in one minute");
        check(61, "in 2 minutes");
        check(600, "in 10 minutes");
    }
}
