//! What a new motherd finds: three sources, joined service by service.
//!
//! | record | cgroup | exit report | what it is |
//! | --- | --- | --- | --- |
//! | a main process | has it, and it is the recorded one | | adopted as it is |
//! | a main process | has it not | there is one | its exit is dealt with now, as of its real time |
//! | a main process | has it not | there is none | lost: said, and treated as a failure once |
//! | being launched | has a process | | the pid is in the record's cell: adopted |
//! | being launched | is empty | | was not launched: treated as a launch that failed |
//! | nothing that runs, or none | has processes | | an orphan: shown, and left alone |
//!
//! Invariant: a process is only taken for a recorded one if it was opened as a pidfd first, and then found in the
//! service's cgroup with the recorded start time. In any doubt it is not signalled.

use std::{collections::BTreeMap, os::fd::OwnedFd, sync::atomic::Ordering, time::Duration};

use initldr::link::{End, ExitRecord};
use nix::sys::epoll::EpollFlags;
use sandbox::cgroup::{Cgroup, walk};

use super::{
    Daemon, Fatal,
    events::{Source, exit_of, watch},
    link::Replay,
    log::Left,
    notify::{Readiness, held_slots, is_held},
    now, proc,
    spawn::notify_slot,
};
use crate::{
    eventlog::What,
    failpoint,
    graph::Id,
    state::{Found, Record, Table},
    supervise::{Cause, Event, State, Unit},
    sys::process::pidfd_open,
};

/// A main process that is the recorded one.
struct Verified {
    pid: u32,
    pidfd: OwnedFd,
    start_ticks: u64,
}

impl Daemon {
    /// Joins the three sources and goes on where the motherd before this one stopped. Whether the boot target was begun,
    /// and how the machine is being ended, if it is.
    pub(super) fn adopt(
        &mut self,
        safe: bool,
        replay: Replay,
        found: Found,
        records: Vec<Record>,
        exits: &[ExitRecord],
        left: Option<Left>,
    ) -> Result<(bool, Option<End>), Fatal> {
        if let Some(cause) = &replay.cause {
            tracing::warn!("this is motherd number {}: the one before {cause}", replay.generation);
            let cause = Cause::new(format!("motherd number {}: the one before {cause}", replay.generation));
            self.note(What::Manager, "", &cause);
        } else {
            let pid = if replay.pid1 { "PID 1" } else { "an ordinary process" };
            tracing::info!("motherd {} under initldr as {pid}", env!("CARGO_PKG_VERSION"));
        }
        let (booted, ending) = match found {
            Found::Fresh => (false, None),
            Found::Alien => {
                tracing::error!(
                    "the recorded state is not one of ours: it is cleared, and what runs is orphaned"
                );
                (false, None)
            }
            Found::Known { booted, ending, torn, foreign } => {
                if foreign > 0 {
                    tracing::warn!(
                        "{foreign} records are of a motherd with another layout: read as far as known"
                    );
                }
                if torn > 0 {
                    tracing::error!("{torn} records were damaged: what they described is orphaned");
                }
                (booted, ending)
            }
        };
        let mut cgroups = self.cgroups();
        let outage = replay.down_since.map_or(Duration::ZERO, |since| now().saturating_sub(since));
        let mut events = Vec::new();
        for record in records {
            if safe {
                self.table.forget(&record.name);
                continue;
            }
            let Some(id) = self.manager.graph().find(&record.name) else {
                self.forget_if_idle(&record, &cgroups);
                continue;
            };
            let cgroup = cgroups.remove(&record.name);
            self.restore(id, record, cgroup, outage, exits, &mut events);
            failpoint::hit("adopt.restored");
        }
        self.orphan(cgroups);
        failpoint::hit("adopt.joined");
        self.adopt_descriptors(replay.stored)?;
        if let Some(left) = left {
            self.recover_stage(&left);
        }
        failpoint::hit("adopt.descriptors");
        for (id, event) in events {
            let event =
                if let Event::Exited(exit) = event { Event::Exited(self.judged(id, exit)) } else { event };
            self.event(id, event)?;
            failpoint::hit("adopt.event");
        }
        let ids: Vec<Id> = self.manager.graph().ids().collect();
        for id in ids {
            self.hear_all(id)?;
        }
        failpoint::hit("adopt.notified");
        if !safe {
            let effects = self.manager.resume(now());
            self.dispatch(effects)?;
        }
        Ok((booted, ending))
    }

    /// The populated cgroups of services, by the service's name.
    fn cgroups(&self) -> BTreeMap<String, (String, Cgroup)> {
        let paths = walk(&self.base).unwrap_or_else(|error| {
            tracing::error!("{error}: what runs cannot be found");
            Vec::new()
        });
        let mut found = BTreeMap::new();
        // `motherctl run` looks after its own.
        for relative in paths.into_iter().filter(|relative| !relative.starts_with("run.slice/")) {
            let name = relative.rsplit('/').next().and_then(|last| last.strip_suffix(".service"));
            let opened = Cgroup::open(&self.base, &relative);
            match (name, opened) {
                (Some(name), Ok(Some(cgroup))) if cgroup.populated().unwrap_or(false) => {
                    found.insert(name.to_owned(), (relative, cgroup));
                }
                (_, Ok(_)) => {}
                (_, Err(error)) => tracing::error!("{error}"),
            }
        }
        found
    }

    /// One recorded service. What happened to it meanwhile goes to `events`.
    fn restore(
        &mut self,
        id: Id,
        record: Record,
        cgroup: Option<(String, Cgroup)>,
        outage: Duration,
        exits: &[ExitRecord],
        events: &mut Vec<(Id, Event)>,
    ) {
        let Record { name, mut unit, start_ticks, cgroup_id } = record;
        unit.extend(outage);
        let launching = unit.state == State::Launching;
        let pid = match unit.main() {
            Some(main) => Some(main.pid),
            None if launching => cell(&self.table, &name),
            None => None,
        };
        let launched = unit.main().map_or(unit.since, |main| main.launched);
        let ours = cgroup.as_ref().filter(|(_, cgroup)| cgroup_id == 0 || cgroup.id() == cgroup_id);
        let verified = pid.zip(ours).and_then(|(pid, (_, cgroup))| verify(pid, start_ticks, cgroup));
        let populated = cgroup.is_some();
        let active = unit.is_active();
        let had_main = unit.main().is_some();
        let command = command(&unit, &self.table, &name);
        self.said.insert(id, unit.state.clone());
        self.manager.restore(id, unit);
        if populated && !active {
            self.manager.orphan(id, now());
        }
        let runtime = self.runtime.entry(id).or_default();
        runtime.cgroup = cgroup.map(|(_, cgroup)| cgroup);
        if let (Some(pid), true) = (pid, launching) {
            // It was made: whether it still runs is the next question.
            events.push((id, Event::Launched { pid }));
        }
        match verified {
            Some(Verified { pid, pidfd, start_ticks }) => {
                runtime.pidfd = Some(pidfd);
                runtime.start_ticks = start_ticks;
                tracing::info!("{name}: adopted, still running as {pid}");
                self.watch_cgroup(id);
                self.begin_to_listen(id);
            }
            None if had_main || (launching && pid.is_some()) => {
                let mut exit = exits.iter().map(|exit| (exit.pid, exit_of(exit)));
                let exit = exit.rfind(|(found, exit)| Some(*found) == pid && exit.at >= launched);
                events.push((id, exit.map_or(Event::Lost, |(_, exit)| Event::Exited(exit))));
            }
            None => {}
        }
        if let Some((pid, since, recorded)) = command {
            if !recorded {
                events.push((id, Event::CommandLaunched { pid }));
            }
            let runtime = self.runtime.entry(id).or_default();
            let found = runtime.cgroup.as_ref().and_then(|cgroup| verify(pid, 0, cgroup));
            match found {
                Some(Verified { pidfd, .. }) => runtime.command = Some(pidfd),
                None => {
                    let mut exit = exits.iter().map(|exit| (exit.pid, exit_of(exit)));
                    let exit = exit.rfind(|(found, exit)| *found == pid && exit.at >= since);
                    let lost = || Event::CommandFailed {
                        why: "lost: no exit was recorded".to_owned(),
                        permanent: false,
                    };
                    events.push((id, exit.map_or_else(lost, |(_, exit)| Event::CommandExited(exit))));
                }
            }
        }
    }

    /// A record of a service that no file describes any more is kept as long as something of it may run, for the day
    /// its file is back.
    fn forget_if_idle(&mut self, record: &Record, cgroups: &BTreeMap<String, (String, Cgroup)>) {
        if !record.unit.is_active() || !cgroups.contains_key(&record.name) {
            self.table.forget(&record.name);
        }
    }

    /// Populated cgroups that no record explains.
    fn orphan(&mut self, cgroups: BTreeMap<String, (String, Cgroup)>) {
        for (name, (relative, cgroup)) in cgroups {
            match self.manager.graph().find(&name) {
                Some(id) => {
                    self.manager.orphan(id, now());
                    self.runtime.entry(id).or_default().cgroup = Some(cgroup);
                }
                None => {
                    tracing::warn!(
                        "{}: processes of a service that no file describes",
                        cgroup.path().display()
                    );
                    self.orphans.insert(relative);
                }
            }
        }
    }

    /// What a service said while nobody listened is heard before anything is judged.
    fn adopt_readiness(&mut self, name: &str, socket: OwnedFd) -> Result<(), Fatal> {
        let Some(id) = self.manager.graph().find(name) else {
            return Ok(self.link.forget(&notify_slot(name))?);
        };
        let readiness = Readiness::adopt(socket, self.notify_path(name));
        watch(&self.epoll, readiness.fd(), Source::Notify(id), EpollFlags::EPOLLIN)
            .map_err(Fatal::system("watch a readiness socket"))?;
        self.runtime.entry(id).or_default().readiness = Some(readiness);
        Ok(())
    }

    /// The descriptors of services that initldr kept.
    fn adopt_descriptors(&mut self, stored: BTreeMap<String, OwnedFd>) -> Result<(), Fatal> {
        let (held, stored) = stored.into_iter().partition(|(slot, _)| is_held(slot));
        self.adopt_held(held_slots(held));
        let stored: BTreeMap<String, OwnedFd> = stored;
        for (slot_name, reader) in stored {
            if let Some(name) = slot_name.strip_prefix("notify/") {
                self.adopt_readiness(name, reader)?;
                continue;
            }
            if let Some(name) = slot_name.strip_prefix("s/") {
                self.adopt_socket(name, reader)?;
                continue;
            }
            let Some(name) = slot_name.strip_prefix("log/") else {
                tracing::warn!("initldr keeps {slot_name}, which is not known: it is let go");
                self.link.forget(&slot_name)?;
                continue;
            };
            self.adopt_log(name, reader)?;
        }
        Ok(())
    }
}

/// The pid of the command of a state, since when it can have existed, and whether the state has it. `None`: there is no
/// command, or its process was not made.
fn command(unit: &Unit, table: &Table, name: &str) -> Option<(u32, Duration, bool)> {
    let command = unit.command()?;
    match command.process {
        Some(process) => Some((process.pid, process.launched, true)),
        None => {
            let cell = table.command_cell(name)?.load(Ordering::Acquire);
            (cell != 0).then_some((cell, unit.since, false))
        }
    }
}

/// The pid that the kernel wrote while the process was made; `None`: it was not made.
fn cell(table: &Table, name: &str) -> Option<u32> {
    table.cell(name).map(|cell| cell.load(Ordering::Acquire)).filter(|pid| *pid != 0)
}

/// The process of this pid, if it is the recorded one: held first, then compared.
fn verify(pid: u32, start_ticks: u64, cgroup: &Cgroup) -> Option<Verified> {
    let pidfd = pidfd_open(pid).ok()?;
    let found = proc::start_ticks(pid).ok()?;
    let same = start_ticks == 0 || found == start_ticks;
    let there = cgroup.procs().is_ok_and(|pids| pids.contains(&pid));
    (same && there).then_some(Verified { pid, pidfd, start_ticks: found })
}
