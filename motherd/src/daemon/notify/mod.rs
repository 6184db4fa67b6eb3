//! What services say of themselves, heard and acted upon: sd_notify(3), whole.
//!
//! Each service has a socket of its own, so nobody can speak for another by naming it. Who speaks is told by the kernel: the
//! sender's credentials, and where it has it (Linux 6.5) a pidfd. A sender is believed if it is in the service's cgroup; one
//! that has ended meanwhile if the kernel still says in which cgroup it was (Linux 6.13 for one that nobody has reaped yet,
//! 6.15 after that), or if it is the recorded main process, whose exit was not dealt with yet.
//!
//! Invariants: what is not believed changes nothing, and its descriptors are closed. A service that says more than is read
//! at once waits for its next turn, so a flood in one socket keeps nobody else waiting.

mod guard;
mod message;
mod socket;
mod store;

use std::{collections::BTreeSet, os::fd::AsFd, sync::LazyLock, time::Duration};

use self::message::{Message, Watchdog};
pub(super) use self::{
    guard::Guarded,
    socket::{Notice, Readiness, raise_queue},
    store::{Held, held_slots, is_held},
};
use super::{Daemon, Fatal, now, proc};
use crate::{
    failpoint,
    graph::Id,
    rare::{Rare, Usual},
    service::Access,
    supervise::{Event, State},
    sys::notify::pidfd_cgroup,
};

/// How many messages of one service are read before others have their turn.
const AT_ONCE: usize = 64;
/// How many are read before something is judged that they could change: more than any queue holds
/// (`net.unix.max_dgram_qlen`, which is raised to 512).
const ALL: usize = 1024;
/// A service that is not believed is told of once in this time.
const QUIET: Duration = Duration::from_secs(10);

/// What a service has said of its present run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::daemon) struct Said {
    /// STATUS
    pub(super) status: Option<String>,
    /// ERRNO
    pub(super) errno: Option<i32>,
    /// EXIT_STATUS
    pub(super) exit_status: Option<u8>,
    /// RELOADING=1 and no READY=1 since.
    pub(super) reloading: bool,
    /// STOPPING=1, and until when it may take to end.
    pub(super) stopping: Option<Duration>,
    /// NOTIFYACCESS
    access: Option<Access>,
    /// The last WATCHDOG=1.
    alive: Duration,
    /// WATCHDOG_USEC
    watchdog: Option<Duration>,
    /// Until then nothing is said of who is not believed, and how many were passed over.
    quiet: (Duration, u64),
}

impl Usual for Said {
    fn usual() -> &'static Self {
        static NOTHING: LazyLock<Said> = LazyLock::new(Said::default);
        &NOTHING
    }
}

/// Who spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    Main,
    Command,
    Other,
}

impl Sender {
    fn is_heard(self, access: Access) -> bool {
        match access {
            Access::None => false,
            Access::Main => self == Self::Main,
            Access::Exec => matches!(self, Self::Main | Self::Command),
            Access::All => true,
        }
    }
}

impl Daemon {
    /// A service says how it is.
    pub(super) fn notified(&mut self, id: Id) -> Result<(), Fatal> {
        self.hear_some(id, AT_ONCE)
    }

    /// All that it has said, before something is judged that depends on it.
    pub(super) fn hear_all(&mut self, id: Id) -> Result<(), Fatal> {
        self.ready_written(id)?;
        self.hear_some(id, ALL)
    }

    fn hear_some(&mut self, id: Id, at_most: usize) -> Result<(), Fatal> {
        for _ in 0..at_most {
            let next = |daemon: &Self| daemon.runtime.get(&id)?.readiness.as_ref()?.next();
            let Some(mut notice) = next(self) else { return Ok(()) };
            match self.sender(id, &notice) {
                Some(sender) if sender.is_heard(self.access(id)) => self.hear(id, &mut notice)?,
                Some(_) => self.pass_over(id, &notice, "which `notify.access` does not let speak for it"),
                None => self.pass_over(id, &notice, "which is not in its cgroup"),
            }
            // Recorded by now. What came of it may have had the rest heard already, or have the service at rest.
            failpoint::hit("notify.recorded");
            if let Some(readiness) = self.runtime.get(&id).and_then(|runtime| runtime.readiness.as_ref()) {
                readiness.done();
            }
            // Of BARRIER=1 this is all: who waits sees its descriptor closed once what came before was dealt with.
            drop(notice);
        }
        Ok(())
    }

    fn access(&self, id: Id) -> Access {
        let said = self.runtime.get(&id).and_then(|runtime| runtime.said.access);
        let written = || self.manager.graph().service(id).program().map(|program| program.notify.access);
        said.or_else(written).unwrap_or_default()
    }

    /// Who it is, if it is one of the service's.
    fn sender(&mut self, id: Id, notice: &Notice) -> Option<Sender> {
        let pid = notice.pid?;
        let unit = self.manager.unit(id);
        let main = unit.main().is_some_and(|main| main.pid == pid);
        let command =
            unit.command().and_then(|command| command.process).is_some_and(|process| process.pid == pid);
        let inside = self.own_cgroup(id).is_some_and(|cgroup| {
            let listed = || cgroup.procs().is_ok_and(|pids| pids.contains(&pid));
            let was_there =
                || notice.pidfd.as_ref().and_then(|fd| pidfd_cgroup(fd.as_fd())) == Some(cgroup.id());
            was_there() || listed()
        });
        match (main, command, inside) {
            // Its pid is nobody else's until its exit was told, which is not yet: that is heard after this.
            (true, _, _) => Some(Sender::Main),
            (_, true, _) => Some(Sender::Command),
            (_, _, true) => Some(Sender::Other),
            (false, false, false) => None,
        }
    }

    fn pass_over(&mut self, id: Id, notice: &Notice, why: &str) {
        let Some(runtime) = self.runtime.get_mut(&id) else { return };
        let (until, count) = &mut runtime.said.quiet;
        *count += 1;
        if now() >= *until {
            let name = self.manager.graph().name(id);
            let pid = notice.pid.map_or_else(|| "nobody".to_owned(), |pid| pid.to_string());
            let more = if *count > 1 { format!(" ({count} such messages)") } else { String::new() };
            tracing::warn!("{name}: a message of process {pid}, {why}: not heard{more}");
            (*until, *count) = (now() + QUIET, 0);
        }
    }

    fn hear(&mut self, id: Id, notice: &mut Notice) -> Result<(), Fatal> {
        let Notice { pid, message, descriptors, .. } = notice;
        let now = now();
        let until = message.extend_usec.map(|usec| now.saturating_add(Duration::from_micros(usec)));
        let stop_timeout = self.manager.graph().service(id).program().map(|program| program.stop_timeout);
        let running = matches!(self.manager.unit(id).state, State::Running { .. } | State::Settling { .. });
        let said = &mut self.runtime.entry(id).or_default().said;
        said.take(message, now);
        if message.stopping && running && said.stopping.is_none() {
            said.stopping = stop_timeout.map(|timeout| now.saturating_add(timeout));
        }
        if let (Some(until), Some(stopping)) = (until, said.stopping) {
            said.stopping = Some(stopping.max(until));
        }
        if message.watchdog_usec.is_some() || said.stopping.is_some() {
            self.guarded.insert(id);
        }
        if message.store {
            self.hold(id, message, descriptors)?;
        }
        if let (true, Some(name)) = (message.unstore, &message.fd_name) {
            self.let_go_of(id, name)?;
        }
        if let Some(number) = message.main_pid {
            self.renamed(id, number, *pid)?;
        }
        if let Some(until) = until {
            self.event(id, Event::Extend { until })?;
        }
        if message.ready {
            failpoint::hit("notify.heard");
            self.event(id, Event::Ready)?;
        }
        if message.watchdog == Some(Watchdog::Trigger) {
            self.event(
                id,
                Event::Sick {
                    why: "it asked its watchdog to end it".to_owned(),
                    signal: Some(libc::SIGABRT),
                },
            )?;
        }
        Ok(())
    }

    /// MAINPID: by the number that the service sees.
    fn renamed(&mut self, id: Id, number: u32, sender: Option<u32>) -> Result<(), Fatal> {
        let main = self.manager.unit(id).main().map(|main| main.pid);
        let pids = self.own_cgroup(id).and_then(|cgroup| cgroup.procs().ok()).unwrap_or_default();
        let found = named(number, &[sender, main], &pids);
        match found {
            Some(pid) if Some(pid) == main => Ok(()),
            Some(pid) if self.take_main(id, pid) => self.event(id, Event::MainPid { pid }),
            Some(_) | None => {
                let name = self.manager.graph().name(id);
                tracing::warn!("{name}: MAINPID={number} is none of its processes: not heard");
                Ok(())
            }
        }
    }

    /// A new run: what was said of the one before is over.
    pub(super) fn begin_to_listen(&mut self, id: Id) {
        let runtime = self.runtime.entry(id).or_default();
        runtime.said = Rare::default();
        let program = self.manager.graph().service(id).program();
        if program.is_some_and(|program| program.watchdog.is_some()) {
            runtime.said.alive = now();
            self.guarded.insert(id);
        } else {
            self.guarded.remove(id);
        }
        self.begin_checks(id);
    }
}

impl Said {
    /// For people: what it says, and the errors that it told.
    pub(in crate::daemon) fn words(&self) -> Option<String> {
        let errno = self.errno.map(|errno| format!("error {:?}", nix::errno::Errno::from_raw(errno)));
        let exit = self.exit_status.map(|status| format!("exit status {status}"));
        let words: Vec<String> = self.status.clone().into_iter().chain(errno).chain(exit).collect();
        (!words.is_empty()).then(|| words.join("; "))
    }

    fn take(&mut self, message: &Message, now: Duration) {
        if let Some(status) = &message.status {
            self.status = Some(status.clone()).filter(|status| !status.is_empty());
        }
        self.errno = message.errno.or(self.errno);
        self.exit_status = message.exit_status.or(self.exit_status);
        self.access = message.access.or(self.access);
        // A message that says both has come to its end.
        self.reloading = (self.reloading || message.reloading) && !message.ready;
        if let Some(usec) = message.watchdog_usec {
            self.watchdog = Some(Duration::from_micros(usec));
        }
        if message.watchdog == Some(Watchdog::Alive) || message.watchdog_usec.is_some() {
            self.alive = now;
        }
    }
}

/// Which of these processes has this number in the pid namespace of who said it, or of the main process.
fn named(number: u32, speakers: &[Option<u32>], pids: &[u32]) -> Option<u32> {
    let depth = speakers.iter().flatten().find_map(|pid| Some(proc::pids(*pid).ok()?.len()))?;
    let candidates: BTreeSet<u32> = pids.iter().copied().collect();
    candidates.into_iter().find(|pid| proc::pids(*pid).is_ok_and(|seen| seen.get(depth - 1) == Some(&number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_heard_is_for_the_file_to_say() {
        let heard =
            |access| [Sender::Main, Sender::Command, Sender::Other].map(|sender| sender.is_heard(access));
        assert_eq!(heard(Access::None), [false; 3]);
        assert_eq!(heard(Access::Main), [true, false, false]);
        assert_eq!(heard(Access::Exec), [true, true, false]);
        assert_eq!(heard(Access::All), [true; 3]);
    }

    #[test]
    fn reloading_lasts_until_it_is_ready_again() {
        let mut said = Said::default();
        let mut hear = |text: &str| {
            said.take(&Message::parse(text.as_bytes()), Duration::from_secs(7));
            (said.reloading, said.status.clone())
        };
        assert_eq!(hear("RELOADING=1\nMONOTONIC_USEC=5\nSTATUS=again"), (true, Some("again".to_owned())));
        assert_eq!(hear("WATCHDOG=1"), (true, Some("again".to_owned())));
        assert_eq!(hear("READY=1\nSTATUS="), (false, None));
    }

    #[test]
    fn a_number_is_a_process_of_the_one_who_says_it() {
        let own = std::process::id();
        assert_eq!(named(own, &[Some(own)], &[own]), Some(own));
        assert_eq!(named(own, &[Some(own)], &[]), None, "it is not in the cgroup");
        assert_eq!(named(own, &[None, None], &[own]), None, "nobody says in whose numbers");
    }
}
