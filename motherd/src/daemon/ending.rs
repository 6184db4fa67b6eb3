//! The end of everything, as somebody asked for it: at once, by force, without a service that holds it up; and what holds
//! it up, on the console and for `motherctl ending`.

use std::{fs, time::Duration};

use super::{Daemon, Fatal, now, phase, survivors::describe};
use crate::{
    control::{
        protocol::{Awaited, EndingStatus, How, Process, Reply, RequestError},
        server::{Peer, Token},
    },
    eventlog::What,
    graph::Id,
    manager::End,
    service::signal_name,
    supervise::{Cause, Requester, Stage, State},
};

/// What holds the end up is said this long after it began, and as often again.
const REPORT: Duration = Duration::from_secs(5);
/// More processes of one service are counted on the console, not listed.
const LISTED: usize = 3;

impl How {
    /// What the manager calls it.
    pub(super) fn end(self, status: u8) -> End {
        match self {
            Self::Poweroff => End::PowerOff,
            Self::Reboot => End::Reboot,
            Self::Halt => End::Halt,
            Self::Kexec => End::Kexec,
            Self::SoftReboot => End::SoftReboot,
            Self::Exit => End::Exit(status),
        }
    }

    fn of(end: End) -> Self {
        match end {
            End::PowerOff => Self::Poweroff,
            End::Reboot => Self::Reboot,
            End::Halt => Self::Halt,
            End::Kexec => Self::Kexec,
            End::SoftReboot => Self::SoftReboot,
            End::Exit(_) => Self::Exit,
        }
    }
}

impl Daemon {
    /// Somebody asks for the end. The answer comes before the services go: the peer may be one of them.
    pub(super) fn end_by(
        &mut self,
        connection: Token,
        (how, status, force): (How, u8, bool),
        peer: Peer,
    ) -> Result<(), Fatal> {
        if how == How::Exit && phase::of_the_machine() {
            let why = "PID 1 of a machine does not exit: there are poweroff, reboot and halt".to_owned();
            self.server.reply(connection, &Reply::Error(RequestError::Refused { why }), now());
            return Ok(());
        }
        self.server.reply(connection, &Reply::Ending, now());
        let who = Requester { uid: peer.uid, pid: peer.pid };
        let by_force = if force { " by force" } else { "" };
        let cause = Cause::request(&format!("{}{by_force} requested", how.name()), who);
        if !force {
            return self.end(how.end(status), &cause);
        }
        tracing::warn!("{}", cause.words);
        self.note(What::Manager, "", &cause);
        self.table.set_ending(how.end(status));
        Ok(self.link.end(how.end(status))?)
    }

    /// Waits no longer for these.
    pub(super) fn skip(&mut self, ids: &[Id], who: Requester) -> Result<Result<Reply, RequestError>, Fatal> {
        let cause = Cause::request("skipped", who);
        let mut failures = Vec::new();
        for id in ids {
            let name = self.manager.graph().name(*id).to_owned();
            self.note(What::Asked, &name, &Cause::request("skip requested", who));
            match self.manager.skip(*id, &cause, now()) {
                Ok(effects) => self.dispatch(effects)?,
                Err(why) => failures.push(crate::control::protocol::Failure { service: name, why }),
            }
        }
        if failures.is_empty() {
            return Ok(Ok(self.now_acted(ids)));
        }
        Ok(Err(RequestError::Failed { failures, done: vec![] }))
    }

    /// What the end waits for.
    pub(super) fn ending_status(&self) -> EndingStatus {
        let (mut awaited, mut later) = (Vec::new(), Vec::new());
        for id in self.manager.graph().ids() {
            match self.awaited(id) {
                Some(service) => awaited.push(service),
                None if self.manager.ending().is_some() && self.is_left(id) => {
                    later.push(self.manager.graph().name(id).to_owned());
                }
                None => {}
            }
        }
        EndingStatus {
            how: self.manager.ending().map(How::of),
            remaining_usec: self.manager.ending_deadline().map(left),
            scheduled: self.scheduled(),
            awaited,
            later,
        }
    }

    fn is_left(&self, id: Id) -> bool {
        let unit = self.manager.unit(id);
        unit.is_active() && unit.state != State::Orphan
    }

    /// A service that is being stopped.
    fn awaited(&self, id: Id) -> Option<Awaited> {
        let unit = self.manager.unit(id);
        let program = self.manager.graph().service(id).program();
        let signal = program.map(|program| signal_name(program.stop_signal)).unwrap_or_default();
        let (doing, until) = match &unit.state {
            State::Stopping { stage: Stage::Asking { command }, .. } | State::Cleaning { command, .. } => {
                (format!("{command} is at work"), Some(command.deadline))
            }
            State::Stopping { stage: Stage::Signalled { deadline }, .. } => {
                (format!("{signal} was sent, SIGKILL follows"), Some(*deadline))
            }
            State::Stopping { stage: Stage::Killed { stuck: true, .. }, .. } => {
                ("not even SIGKILL ends it".to_owned(), None)
            }
            State::Stopping { stage: Stage::Killed { .. }, .. } => ("SIGKILL was sent".to_owned(), None),
            State::Stopped
            | State::Waiting
            | State::Expecting { .. }
            | State::Preparing { .. }
            | State::Launching
            | State::Starting { .. }
            | State::Forked { .. }
            | State::Settling { .. }
            | State::Running { .. }
            | State::Done
            | State::Backoff { .. }
            | State::Failed
            | State::Orphan => return None,
        };
        let runtime = self.runtime.get(&id);
        let cgroup = runtime.and_then(|runtime| runtime.cgroup.as_ref());
        let pids = cgroup.and_then(|cgroup| cgroup.procs().ok()).unwrap_or_default();
        Some(Awaited {
            service: self.manager.graph().name(id).to_owned(),
            doing,
            remaining_usec: until.map(left),
            processes: pids.into_iter().filter_map(process).collect(),
        })
    }

    /// When what holds the end up is to be said next.
    pub(super) fn next_report(&self) -> Option<Duration> {
        self.report
    }

    /// The end has begun.
    pub(super) fn report_later(&mut self) {
        self.report = Some(now().saturating_add(REPORT));
    }

    /// Says what holds the end up, where it is time to.
    pub(super) fn report_ending(&mut self) {
        if self.report.is_none_or(|at| now() < at) {
            return;
        }
        let Some(deadline) = self.manager.ending_deadline() else {
            self.report = None;
            return;
        };
        let status = self.ending_status();
        let how = status.how.map(How::name).unwrap_or_default();
        let seconds = deadline.saturating_sub(now()).as_secs();
        let mut text = format!("motherd: {how} in {seconds} s at the latest; it waits for:\n");
        for service in &status.awaited {
            let remaining = service.remaining_usec.map(|usec| format!(" in {} s", usec / 1_000_000));
            let remaining = remaining.unwrap_or_default();
            text.push_str(&format!("  {}: {}{remaining}\n", service.service, service.doing));
            for process in service.processes.iter().take(LISTED) {
                text.push_str(&format!("    {}: {}\n", describe(process.pid), process.command));
            }
            if service.processes.len() > LISTED {
                text.push_str(&format!("    and {} more\n", service.processes.len() - LISTED));
            }
        }
        super::tell(&text);
        self.report_later();
    }
}

fn left(until: Duration) -> u64 {
    u64::try_from(until.saturating_sub(now()).as_micros()).unwrap_or(u64::MAX)
}

/// What `/proc` says of a process; `None`: it is gone.
fn process(pid: u32) -> Option<Process> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    let stat = read("stat")?;
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let wchan = read("wchan").filter(|place| !matches!(place.as_str(), "" | "0"));
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = command.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let words: Vec<_> = words.map(String::from_utf8_lossy).collect();
    Some(Process {
        pid,
        name: name.to_owned(),
        state: rest.split_ascii_whitespace().next().unwrap_or("?").to_owned(),
        wchan,
        command: if words.is_empty() { format!("[{name}]") } else { words.join(" ") },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_described_and_one_that_is_gone_is_not() {
        let own = process(std::process::id()).unwrap();
        assert!(["R", "S"].contains(&own.state.as_str()) && own.command.contains("motherd"), "{own:?}");
        assert_eq!(process(u32::MAX), None);
    }

    #[test]
    fn each_way_to_end_is_the_managers_and_back() {
        for how in [How::Poweroff, How::Reboot, How::Halt, How::Kexec, How::SoftReboot, How::Exit] {
            assert_eq!(How::of(how.end(3)), how);
        }
    }
}
