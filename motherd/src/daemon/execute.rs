//! Effects to system calls: the one match.
//!
//! An effect that events have overtaken does not come here: each was confirmed by the manager just now.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
};

use nix::{errno::Errno, sys::epoll::EpollFlags};
use sandbox::{cgroup::Cgroup, descriptors::far_up};

use super::{
    Daemon, Fatal,
    events::{Source, watch},
    now, proc,
};
use crate::{
    control::server::Token,
    failpoint,
    graph::Id,
    manager::{Effect, End},
    supervise::{Act, Event, Stage, State},
    sys::process::{pidfd_open, pidfd_send_signal},
};

impl Daemon {
    /// Executes one effect; returns what follows from it at once.
    pub(super) fn execute(&mut self, effect: Effect) -> Result<Vec<(Id, Event)>, Fatal> {
        match effect {
            Effect::Service(id, Act::Launch) => self.launch(id),
            Effect::Service(id, Act::Run { hook, index }) => self.run_command(id, hook, index),
            Effect::Service(id, Act::KillCommand { pid }) => {
                self.kill_command(id, pid);
                Ok(vec![])
            }
            Effect::Service(id, Act::Park) => self.park(id),
            Effect::Service(id, Act::Unpark { pid }) => Ok(self.unpark(id, pid)),
            Effect::Service(id, Act::FindMain) => Ok(self.find_main(id)),
            Effect::Service(id, Act::Survivors) => Ok(self.survivors(id)),
            Effect::Service(id, Act::Signal { pid, signal }) => Ok(self.signal(id, pid, signal)),
            Effect::Service(id, Act::SignalAll { signal }) => {
                self.signal_all(id, signal);
                Ok(vec![])
            }
            Effect::Service(id, Act::Kill) => {
                self.kill(id);
                Ok(vec![])
            }
            Effect::Service(id, Act::Sweep) => {
                Ok(if self.sweep(id) { vec![(id, Event::Gone)] } else { vec![] })
            }
            // Done when it was confirmed, or looked at.
            Effect::Turn(_) | Effect::Answer { .. } | Effect::Service(_, Act::Look) => Ok(vec![]),
            Effect::Reply { token, outcome } => {
                let reply = self.acted(outcome);
                self.server.reply(Token::from_u64(token), &reply, now());
                Ok(vec![])
            }
            Effect::End { how, left } => {
                for id in left {
                    tracing::error!(
                        "{} would not end; the machine ends without it",
                        self.manager.graph().name(id)
                    );
                }
                tracing::info!("everything is down: {how:?}");
                if how == End::SoftReboot {
                    self.stretch_watchdog();
                    self.leave_initramfs();
                }
                self.link.end(how)?;
                Ok(vec![])
            }
        }
    }

    /// A signal to the main process. One that is being stopped and would not hear it is said to be deaf.
    pub(super) fn signal(&mut self, id: Id, pid: u32, signal: i32) -> Vec<(Id, Event)> {
        let unit = self.manager.unit(id);
        if unit.main().is_none_or(|main| main.pid != pid) {
            return vec![];
        }
        let stopping = matches!(unit.state, State::Stopping { stage: Stage::Signalled { .. }, .. });
        match proc::deaf(pid, signal) {
            Ok(Some(why)) if stopping => return vec![(id, Event::Deaf { why })],
            // It ends by itself just now, and that is told by its exit.
            Ok(_) | Err(_) => {}
        }
        let name = self.manager.graph().name(id);
        match self.runtime.get(&id).and_then(|runtime| runtime.pidfd.as_ref()) {
            Some(pidfd) => match pidfd_send_signal(pidfd.as_fd(), signal) {
                Ok(()) | Err(Errno::ESRCH) => {
                    failpoint::hit("stop.signalled");
                    vec![]
                }
                Err(errno) => {
                    tracing::error!("{name}: signal {signal} to {pid}: {errno}");
                    vec![]
                }
            },
            None if stopping => {
                let why = format!("process {pid} could not be told from another that may have its pid");
                vec![(id, Event::Deaf { why })]
            }
            None => vec![],
        }
    }

    /// A signal to all that is in the cgroup. Each is held by a pidfd before it is looked whether it is still there.
    pub(super) fn signal_all(&mut self, id: Id, signal: i32) {
        let Some(cgroup) = self.own_cgroup(id) else { return };
        let held: Vec<(u32, OwnedFd)> = match cgroup.procs() {
            Ok(pids) => pids.into_iter().filter_map(|pid| Some((pid, pidfd_open(pid).ok()?))).collect(),
            Err(error) => {
                tracing::debug!("{error}");
                return;
            }
        };
        let still = cgroup.procs().unwrap_or_default();
        failpoint::hit("stop.all-held");
        for (pid, pidfd) in held.iter().filter(|(pid, _)| still.contains(pid)) {
            match pidfd_send_signal(pidfd.as_fd(), signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => tracing::error!("signal {signal} to {pid}: {errno}"),
            }
        }
    }

    /// Everything in the cgroup of its present run. Where the kernel says that nobody is in it, nobody can come into it: who forks
    /// would be in it.
    pub(super) fn kill(&mut self, id: Id) {
        let watch = self.runtime.get(&id).and_then(|runtime| runtime.watch.as_ref());
        let nobody = watch.is_some_and(|events| populated_by(events) == Ok(false));
        if !nobody
            && let Some(cgroup) = self.own_cgroup(id)
            && let Err(error) = cgroup.kill()
            && !matches!(error.errno(), Some(Errno::ENOENT | Errno::ENODEV))
        {
            tracing::error!("{error}");
        }
        failpoint::hit("stop.killed");
    }

    /// The service's cgroup, opened if it is there.
    pub(super) fn cgroup(&mut self, id: Id) -> Option<&Cgroup> {
        let relative = self.manager.graph().service(id).cgroup();
        let runtime = self.runtime.entry(id).or_default();
        if let (None, Some(relative)) = (&runtime.cgroup, relative) {
            match Cgroup::open(&self.base.path, &relative) {
                Ok(found) => runtime.cgroup = found,
                Err(error) => tracing::error!("{error}"),
            }
        }
        runtime.cgroup.as_ref()
    }

    /// Where the processes of its present run are: not those of a standby.
    pub(super) fn own_cgroup(&mut self, id: Id) -> Option<&Cgroup> {
        self.cgroup(id)?;
        self.runtime.get(&id)?.own_cgroup()
    }

    /// Whether there is nothing of the present run any more. Its cgroup is removed then; or left, empty, to who makes the next
    /// standby, where one waits to be the next run: it is not to wait for that.
    fn sweep_run(&mut self, id: Id) -> bool {
        let Some(runtime) = self.runtime.get_mut(&id) else { return true };
        let Some(run) = &runtime.run else { return true };
        let populated = match &runtime.watch {
            Some(events) => populated_by(events),
            None => run.populated().map_err(|error| error.errno().unwrap_or(Errno::EIO)),
        };
        let empty = match populated {
            Ok(populated) => !populated,
            Err(errno) => matches!(errno, Errno::ENOENT | Errno::ENODEV),
        };
        if empty && runtime.waiting.is_some() {
            (runtime.run, runtime.watch) = (None, None);
            return true;
        }
        let removed = empty.then(|| run.remove());
        match removed {
            Some(Ok(())) => {
                runtime.run = None;
                runtime.watch = None;
                true
            }
            Some(Err(error)) if error.errno() != Some(Errno::EBUSY) => {
                tracing::error!("{error}");
                false
            }
            Some(Err(_)) | None => false,
        }
    }

    /// Removes the cgroup if it is empty; whether it is gone. Otherwise its `cgroup.events` will wake us.
    pub(super) fn sweep(&mut self, id: Id) -> bool {
        // Watched before it is looked at: what changes after the look wakes us.
        if self.cgroup(id).is_some() {
            self.watch_cgroup(id);
        }
        if !self.sweep_run(id) {
            return false;
        }
        if self.runtime.get(&id).is_some_and(|runtime| runtime.waiting.is_some()) {
            failpoint::hit("stop.run-swept");
            self.disarm_pressure(id);
            self.forget_process(id);
            return true;
        }
        if self.cgroup(id).is_some() {
            self.watch_cgroup(id);
        }
        if self.cgroup(id).is_some_and(|cgroup| matches!(cgroup.populated(), Ok(false))) {
            self.disarm_pressure(id);
        }
        let gone = match self.cgroup(id) {
            None => true,
            Some(cgroup) => match cgroup.populated() {
                Ok(false) => match cgroup.remove() {
                    Ok(()) => true,
                    Err(error) if error.errno() == Some(Errno::EBUSY) => false,
                    Err(error) => {
                        tracing::error!("{error}");
                        false
                    }
                },
                Ok(true) => false,
                Err(error) => matches!(error.errno(), Some(Errno::ENOENT | Errno::ENODEV)),
            },
        };
        if gone {
            failpoint::hit("stop.swept");
            self.forget_process(id);
        }
        gone
    }

    /// Nothing of the service is left in the kernel but what it wrote.
    fn forget_process(&mut self, id: Id) {
        let name = self.manager.graph().name(id).to_owned();
        let Some(runtime) = self.runtime.get_mut(&id) else { return };
        if runtime.waiting.is_none() {
            runtime.cgroup = None;
        }
        runtime.watch = None;
        runtime.pidfd = None;
        runtime.command = None;
        runtime.policy = None;
        self.stock.take_down(std::mem::take(&mut runtime.namespaces));
        runtime.start_ticks = 0;
        self.log_ended(id);
        tracing::debug!("{name}: nothing is left of it");
    }

    /// Has `cgroup.events` wake us, once it is not watched yet.
    pub(super) fn watch_cgroup(&mut self, id: Id) {
        self.watch_cgroup_by(id, None);
    }

    /// The same by a file that is open and was read.
    pub(super) fn watch_cgroup_by(&mut self, id: Id, events: Option<File>) {
        let Some(runtime) = self.runtime.get_mut(&id) else { return };
        let Some(cgroup) = runtime.own_cgroup().filter(|_| runtime.watch.is_none()) else { return };
        let opened = match events {
            Some(file) => Ok(file),
            None => cgroup.events_fd().map_err(|error| error.to_string()).and_then(|fd| {
                let mut file = File::from(far_up(fd));
                // What is polled for is a change since it was read last.
                proc::read_small(&mut file).map_err(|error| error.to_string())?;
                Ok(file)
            }),
        };
        let watched = opened.and_then(|file| {
            watch(&self.epoll, file.as_fd(), Source::Cgroup(id), EpollFlags::EPOLLPRI)
                .map_err(|error| error.to_string())?;
            Ok(file)
        });
        match watched {
            Ok(file) => runtime.watch = Some(file),
            Err(error) => tracing::error!("watch the cgroup of {}: {error}", self.manager.graph().name(id)),
        }
    }
}

/// What `cgroup.events`, which is open, says now: [`Cgroup::populated`] in one call. A change after it wakes us.
fn populated_by(events: &File) -> Result<bool, Errno> {
    let mut text = [0; 128];
    let size = nix::sys::uio::pread(events, &mut text, 0)?;
    let mut lines = text[..size].split(|byte| *byte == b'\n');
    lines
        .find_map(|line| match line {
            b"populated 0" => Some(false),
            b"populated 1" => Some(true),
            _ => None,
        })
        .ok_or(Errno::EIO)
}
