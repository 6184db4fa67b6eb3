//! What a new motherd finds: three sources, joined service by service.
//!
//! | record | cgroup | exit report | what it is |
//! | --- | --- | --- | --- |
//! | a main process | has it, and it is the recorded one | | adopted as it is |
//! | a main process | has it not | there is one | its exit is dealt with now, as of its real time |
//! | a main process | has it not | there is none, and none comes | how it ended is asked of the kept pidfd (Linux 6.15) |
//! | a main process | has it not | nobody knows | lost: said, and treated as a failure once |
//! | being launched | has a process | | the pid is in the record's cell: adopted |
//! | being launched | is empty | | was not launched: treated as a launch that failed |
//! | none, a damaged one, or what was before that | has the process of the pidfd that initldr keeps | | adopted as running |
//! | nothing that runs, or none | has other processes | | an orphan: shown, and left alone |
//!
//! Invariant: a process is only taken for a recorded one if it was opened as a pidfd first, and then found in the
//! service's cgroup with the recorded start time. In any doubt it is not signalled.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::parent_id,
    },
    sync::atomic::Ordering,
    time::Duration,
};

use initldr::link::{End, ExitRecord};
use nix::sys::epoll::EpollFlags;
use sandbox::{
    cgroup::{Cgroup, walk},
    descriptors::far_up,
};

use super::{
    Daemon, Fatal,
    events::{Source, exit_of, watch},
    foreign::{exit_of_dead, exit_of_wait, is_initldrs},
    link::Replay,
    log::Left,
    notify::{Readiness, held_slots, is_held},
    now, policies, proc,
    ready::READY,
    spawn::{PROCESS, notify_slot},
    standby::{has_run, present_run},
};
use crate::{
    eventlog::What,
    failpoint,
    graph::Id,
    manager::Effect,
    state::{Found, Record, Table},
    supervise::{Cause, Event, Exit, Goal, State, Unit},
    sys::process::{exit_info, pidfd_open, process_info},
};

/// The instances of templates that the motherd before this one had made and that are not over: no file names them. Known by
/// their records, or where these are damaged by the process that initldr keeps.
pub(super) fn instances(records: &[Record], stored: &BTreeMap<String, OwnedFd>) -> Vec<String> {
    let over = |unit: &Unit| unit.state == State::Stopped && unit.goal == Goal::Down;
    let recorded = records.iter().filter(|record| !over(&record.unit)).map(|record| record.name.as_str());
    let kept = stored.keys().filter_map(|slot| slot.strip_prefix(PROCESS));
    recorded.chain(kept).filter(|name| name.contains('@')).map(str::to_owned).collect()
}

/// What became of a main process.
enum Look {
    /// It runs.
    There(Verified),
    /// It has ended and was not reaped yet.
    Ending,
    /// It is no more; the pidfd that initldr kept, if that is not another's.
    Gone(Option<OwnedFd>),
}

/// A process that is no more.
struct Gone {
    id: Id,
    pid: u32,
    launched: Duration,
    cgroup_id: u64,
    process: Option<OwnedFd>,
    /// It is the command of its state.
    command: bool,
}

impl Gone {
    /// How it ended, as the kernel tells whoever held it. Each launch has a cgroup of its own, whose id tells one from
    /// the other. When it ended is not told: now at the latest.
    fn asked(&self) -> Option<Exit> {
        let (cgroup_id, status) = exit_info(self.process.as_ref()?.as_fd()).ok()??;
        (cgroup_id == self.cgroup_id).then(|| exit_of_wait(status))
    }
}

/// A main process that is the recorded one.
struct Verified {
    pid: u32,
    pidfd: OwnedFd,
    start_ticks: u64,
    /// Where that was told by the way.
    parent: Option<u32>,
}

/// A cgroup with processes.
struct Populated {
    /// Its path below the base.
    relative: String,
    cgroup: Cgroup,
    /// Its `cgroup.events`, read: the next change of it can wake us.
    events: File,
}

impl Daemon {
    /// Joins the three sources and goes on where the motherd before this one stopped. Whether the boot target was begun,
    /// and how the machine is being ended, if it is.
    pub(super) fn adopt(
        &mut self,
        safe: bool,
        mut replay: Replay,
        found: Found,
        records: Vec<Record>,
        exits: &mut Vec<ExitRecord>,
        left: Option<Left>,
    ) -> Result<(bool, Option<End>), Fatal> {
        if let Some(words) = self.about.words() {
            tracing::warn!("this is {words}");
            self.note(What::Manager, "", &Cause::new(words));
        } else {
            let pid = if replay.pid1 { "PID 1" } else { "an ordinary process" };
            tracing::info!("motherd {} under initldr as {pid}", env!("CARGO_PKG_VERSION"));
        }
        let (booted, ending) = match &found {
            Found::Fresh => (false, None),
            Found::Alien => {
                tracing::error!(
                    "the recorded state is not one of ours: it is cleared, and what runs is found by its cgroup"
                );
                (false, None)
            }
            &Found::Known { booted, ending, torn, foreign } => {
                if foreign > 0 {
                    tracing::warn!(
                        "{foreign} records are of a motherd with another layout: read as far as known"
                    );
                }
                if torn > 0 {
                    tracing::error!(
                        "{torn} records were damaged: what they described is found by its cgroup"
                    );
                }
                (booted, ending)
            }
        };
        let mut cgroups = self.cgroups();
        let outage = replay.down_since.map_or(Duration::ZERO, |since| now().saturating_sub(since));
        let mut processes = processes(&mut replay.stored);
        let mut events = Vec::new();
        let mut gone = Vec::new();
        let mut unrecorded: BTreeSet<Id> = match found {
            // Nothing was started before.
            Found::Fresh => BTreeSet::new(),
            Found::Alien | Found::Known { .. } => self.manager.graph().ids().collect(),
        };
        if safe {
            tracing::error!(
                "safe mode: nothing is started and no record is believed; once the cause is mended, kill -9 of this \
                 motherd ends that, and no service notices"
            );
            self.manager.hold();
        }
        for record in records {
            if safe {
                // Left as it is: for what has no process it says where it is meant to be, which the next motherd that
                // is not in safe mode has to know. What is adopted below gets a new one.
                continue;
            }
            let Some(id) = self.manager.graph().find(&record.name) else {
                self.forget_if_idle(&record, &cgroups);
                continue;
            };
            let cgroup = cgroups.remove(&record.name);
            let process = processes.remove(&record.name);
            unrecorded.remove(&id);
            self.restore(id, record, cgroup, process, outage, &mut events, &mut gone);
            failpoint::hit("adopt.restored");
        }
        let adopted = self.runtime.values().filter(|runtime| runtime.pidfd.is_some()).count();
        if adopted > 0 {
            tracing::info!("{adopted} services adopted, still running");
        }
        let later = self.endings(gone, exits, &mut events)?;
        self.orphan(cgroups, &mut processes);
        for id in unrecorded {
            if self.manager.unit(id).state == State::Stopped {
                self.manager.unrecorded(id);
            }
        }
        failpoint::hit("adopt.joined");
        self.adopt_descriptors(replay.stored)?;
        if let Some(left) = left {
            self.recover_stage(&left);
        }
        failpoint::hit("adopt.descriptors");
        self.adopt_pressure();
        // All of them are known before anything is done about one: what is done may start another process, which none of
        // them is about.
        let mut effects = if safe { vec![] } else { self.relate() };
        for (id, event) in events {
            let event =
                if let Event::Exited(exit) = event { Event::Exited(self.judged(id, exit)) } else { event };
            effects.extend(self.manager.event(id, event, now()));
            self.record();
            failpoint::hit("adopt.event");
        }
        if !safe {
            effects.extend(self.adopt_conditions()?);
        }
        self.dispatch(effects)?;
        for exit in &later {
            self.exited(exit)?;
        }
        exits.extend(later);
        let ids: Vec<Id> = self.manager.graph().ids().collect();
        for id in ids {
            self.hear_all(id)?;
        }
        failpoint::hit("adopt.notified");
        let is_orphan = |id: &Id| self.manager.unit(*id).state == State::Orphan;
        for id in self.manager.graph().ids().filter(is_orphan).collect::<Vec<_>>() {
            // It may have ended before anybody watched, or before it was looked for.
            self.find_cgroup(id);
            self.cgroup_ready(id)?;
        }
        if !safe {
            let effects = self.manager.resume(now());
            self.dispatch(effects)?;
        }
        Ok((booted, ending))
    }

    /// Files that were changed since, and with them how services are related, stop nothing that runs.
    fn relate(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        let relations = self.manager.graph().relations();
        if self.table.was_related_otherwise(relations) {
            tracing::debug!(
                "the files relate services otherwise than those that were read before: what runs goes on, and what it \
                 requires now is started"
            );
            effects = self.manager.related_otherwise(now());
        }
        self.record();
        self.table.set_relations(relations);
        effects
    }

    /// What is recorded from here on, and was before, is decided by these.
    pub(super) fn note_relations(&mut self) {
        if !self.about.is_safe() {
            self.table.set_relations(self.manager.graph().relations());
        }
    }

    /// The cgroup of a service, where that is empty and was not looked for.
    fn find_cgroup(&mut self, id: Id) {
        let Some(relative) = self.manager.graph().service(id).cgroup() else { return };
        let runtime = self.runtime.entry(id).or_default();
        if runtime.cgroup.is_none() {
            runtime.cgroup = Cgroup::open(&self.base.path, &relative).unwrap_or_else(|error| {
                tracing::error!("{error}");
                None
            });
        }
    }

    /// The populated cgroups of services, by the service's name.
    fn cgroups(&self) -> BTreeMap<String, Populated> {
        if let Some(why) = &self.base.unusable {
            tracing::error!("{why}; no service is started");
            return BTreeMap::new();
        }
        let paths = walk(&self.base.path).unwrap_or_else(|error| {
            tracing::error!("{error}: what runs cannot be found");
            Vec::new()
        });
        let mut found = BTreeMap::new();
        // `motherctl run` looks after its own.
        for relative in paths.into_iter().filter(|relative| !relative.starts_with("run.slice/")) {
            let name = relative.rsplit('/').next().and_then(|last| last.strip_suffix(".service"));
            let opened = Cgroup::open(&self.base.path, &relative);
            match (name, opened) {
                (Some(name), Ok(Some(cgroup))) => {
                    if let Some(events) = populated(&cgroup) {
                        found.insert(name.to_owned(), Populated { relative, cgroup, events });
                    }
                }
                (_, Ok(_)) => {}
                (_, Err(error)) => tracing::error!("{error}"),
            }
        }
        found
    }

    /// One recorded service. What happened to it meanwhile goes to `events`; if its main process is gone, to `gone`.
    #[allow(clippy::too_many_arguments, reason = "three sources, and what follows from them")]
    fn restore(
        &mut self,
        id: Id,
        record: Record,
        cgroup: Option<Populated>,
        process: Option<OwnedFd>,
        outage: Duration,
        events: &mut Vec<(Id, Event)>,
        gone: &mut Vec<Gone>,
    ) {
        let Record { name, mut unit, start_ticks, cgroup_id, policy, stale, standby_cgroup_id, oom_kills } =
            record;
        unit.extend(outage);
        if stale {
            tracing::error!(
                "{name}: what was recorded last is damaged, and what runs of it is found by its cgroup"
            );
        }
        // Nobody but a launched process is kept, and of what is launched there is a record.
        let elsewhere = |found: &Populated| {
            cgroup_id != 0 && found.cgroup.id() != cgroup_id && !has_run(&found.cgroup, cgroup_id)
        };
        let elsewhere = unit.main().is_some() && cgroup.as_ref().is_some_and(elsewhere);
        let denied = process.is_some() && (elsewhere || !unit.is_active());
        let cgroup = match cgroup {
            Some(found) if stale || denied => {
                let recorded = unit.main().map(|main| (main.pid, start_ticks)).filter(|_| start_ticks != 0);
                return self.adopt_by_process(id, &name, found, recorded, process, unit);
            }
            cgroup => cgroup,
        };
        let launching = unit.state == State::Launching;
        let pid = match unit.main() {
            Some(main) => Some(main.pid),
            None if launching => cell(&self.table, &name),
            None => None,
        };
        let launched = unit.main().map_or(unit.since, |main| main.launched);
        // Where a service never had a standby, nothing is below its cgroup, and that is not looked for.
        let (run, populated) = match &cgroup {
            Some(found) if launching || standby_cgroup_id != 0 || found.cgroup.id() != cgroup_id => {
                present_run(&found.cgroup, cgroup_id, standby_cgroup_id, pid)
            }
            Some(_) => (None, true),
            None => (None, false),
        };
        let whole = cgroup.as_ref().map(|found| &found.cgroup);
        let ours = run.as_ref().or(whole.filter(|ours| cgroup_id == 0 || ours.id() == cgroup_id));
        let kept = process.is_some();
        let found = pid.map(|pid| look(pid, start_ticks, ours, process));
        let (active, goal) = (unit.is_active(), unit.goal_beside_others());
        let command = command(&unit, &self.table, &name);
        self.said.insert(id, unit.state.clone());
        self.manager.restore(id, unit);
        if populated && !active {
            self.manager.orphan(id, goal, now());
        }
        let runtime = self.runtime.entry(id).or_default();
        let changes = cgroup.and_then(|found| {
            runtime.cgroup = Some(found.cgroup);
            // Where there is a run below it, that is watched.
            run.is_none().then_some(found.events)
        });
        runtime.run = run;
        runtime.oom_kills = oom_kills;
        if start_ticks == 0 {
            // Its launch was not completed, if there was one.
            self.fresh.logs.push(id);
        }
        runtime.process_kept = kept;
        // What is being launched is recorded by what was launched before.
        runtime.policy = Some(policy).filter(|policy| !launching && *policy != policies::Digest::default());
        if let (Some(pid), true) = (pid, launching) {
            // It was made: whether it still runs is the next question.
            events.push((id, Event::Launched { pid }));
        }
        match found {
            Some(Look::There(Verified { pid: found, pidfd, start_ticks, parent })) => {
                if pid != Some(found) {
                    tracing::error!(
                        "{name}: its record names another process than initldr keeps, which is adopted"
                    );
                    let known = self.manager.unit(id).clone();
                    self.manager.restore(id, known.found(found, now()));
                }
                let pid = found;
                let runtime = self.runtime.entry(id).or_default();
                runtime.pidfd = Some(far_up(pidfd));
                runtime.start_ticks = start_ticks;
                // Of a thousand each would be a line on a serial console.
                tracing::debug!("{name}: adopted, still running as {pid}");
                if parent != Some(parent_id()) {
                    self.watch_main(id, pid);
                }
                self.begin_to_listen(id);
            }
            // It has ended and is being reaped just now: its exit is on its way, unless somebody else is its parent.
            Some(Look::Ending) => {
                let pid = pid.unwrap_or_default();
                let exit = exit_of_dead(pid).filter(|_| !is_initldrs(pid));
                events.extend(exit.map(|exit| (id, Event::Exited(exit))));
            }
            Some(Look::Gone(process)) => {
                let pid = pid.unwrap_or_default();
                gone.push(Gone { id, pid, launched, cgroup_id, process, command: false });
            }
            None => {}
        }
        if let Some((pid, since, recorded)) = command {
            if !recorded {
                events.push((id, Event::CommandLaunched { pid }));
            }
            let runtime = self.runtime.entry(id).or_default();
            match look(pid, 0, runtime.own_cgroup(), None) {
                Look::There(Verified { pidfd, .. }) => runtime.command = Some(pidfd),
                Look::Ending => {}
                Look::Gone(_) => {
                    gone.push(Gone { id, pid, launched: since, cgroup_id, process: None, command: true });
                }
            }
        }
        self.watch_cgroup_by(id, changes);
    }

    /// How those ended that are gone. Who is gone was reaped, so what initldr has to say of it is said already or comes
    /// before the end of a second replay; returned is what else came with that.
    fn endings(
        &mut self,
        gone: Vec<Gone>,
        exits: &[ExitRecord],
        events: &mut Vec<(Id, Event)>,
    ) -> Result<Vec<ExitRecord>, Fatal> {
        let told = |exits: &[ExitRecord], gone: &Gone| {
            let mut of_it = exits.iter().filter(|exit| exit.pid == gone.pid).map(exit_of);
            of_it.rfind(|exit| exit.at >= gone.launched)
        };
        let mut later = Vec::new();
        if gone.iter().any(|gone| told(exits, gone).is_none()) {
            later = self.link.catch_up()?;
        }
        for gone in gone {
            let exit = told(exits, &gone).or_else(|| told(&later, &gone)).or_else(|| gone.asked());
            let lost =
                || Event::CommandFailed { why: "lost: no exit was recorded".to_owned(), permanent: false };
            let event = match (gone.command, exit) {
                (false, exit) => exit.map_or(Event::Lost, Event::Exited),
                (true, exit) => exit.map_or_else(lost, Event::CommandExited),
            };
            events.push((gone.id, event));
        }
        Ok(later)
    }

    /// A record of a service that no file describes any more is kept as long as something of it may run, for the day
    /// its file is back.
    fn forget_if_idle(&mut self, record: &Record, cgroups: &BTreeMap<String, Populated>) {
        if !record.unit.is_active() || !cgroups.contains_key(&record.name) {
            self.table.forget(&record.name);
        }
    }

    /// A service by what runs of it, where no record says how it is meant. The process that initldr keeps for a service, in
    /// the cgroup of that service, is its main process: motherd puts nobody else into either. `unit` is what was known once.
    fn adopt_by_process(
        &mut self,
        id: Id,
        name: &str,
        found: Populated,
        recorded: Option<(u32, u64)>,
        process: Option<OwnedFd>,
        unit: Unit,
    ) {
        let Populated { cgroup, events, .. } = found;
        let kept = process.as_ref().and_then(|process| proc::pid_of(process.as_fd())).map(|pid| (pid, 0));
        let look = |(pid, start_ticks)| look(pid, start_ticks, Some(&cgroup), process);
        let found = kept.or(recorded).map(look);
        let there = matches!(found, Some(Look::There(_)));
        if !there && unit == Unit::default() && !cgroup.populated().unwrap_or(true) {
            // It ended just now. What its record says, which may not be believed here, is for a motherd that may.
            return;
        }
        let runtime = self.runtime.entry(id).or_default();
        runtime.cgroup = Some(cgroup);
        if let Some(Look::There(Verified { pid, pidfd, start_ticks, .. })) = found {
            runtime.pidfd = Some(far_up(pidfd));
            runtime.start_ticks = start_ticks;
            runtime.process_kept = kept.is_some();
            tracing::warn!("{name}: adopted without a record, running as {pid}");
            self.manager.restore(id, unit.found(pid, now()));
            self.watch_main(id, pid);
            self.begin_to_listen(id);
        } else {
            // What was meant once still is, when they have ended by themselves.
            let goal = if unit.goal == Goal::Down { Goal::Down } else { Goal::Up };
            self.manager.restore(id, unit);
            self.manager.orphan(id, goal, now());
            self.manager.unrecorded(id);
        }
        self.watch_cgroup_by(id, Some(events));
    }

    /// Populated cgroups that no record explains.
    fn orphan(&mut self, cgroups: BTreeMap<String, Populated>, processes: &mut BTreeMap<String, OwnedFd>) {
        for (name, Populated { relative, cgroup, events }) in cgroups {
            match self.manager.graph().find(&name) {
                Some(id) => {
                    let found = Populated { relative, cgroup, events };
                    let process = processes.remove(&name);
                    self.adopt_by_process(id, &name, found, None, process, Unit::default());
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
            if let Some(name) = slot_name.strip_prefix(READY) {
                self.adopt_ready(name, reader)?;
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

/// The process of this pid, if it is the recorded one: held first (best since it was made), then compared. If it is not,
/// and initldr keeps another that lives in the service's cgroup, then that one is it: the record is what is wrong.
fn look(pid: u32, start_ticks: u64, cgroup: Option<&Cgroup>, process: Option<OwnedFd>) -> Look {
    // In one call, where the kernel has it and nothing is out of the ordinary.
    let told = process.as_ref().and_then(|process| process_info(process.as_fd()).ok());
    let told = told.filter(|told| told.pid == pid && cgroup.is_some_and(|ours| ours.id() == told.cgroup_id));
    let process = match (told, process) {
        (Some(told), Some(pidfd)) if start_ticks != 0 => {
            return Look::There(Verified { pid, pidfd, start_ticks, parent: Some(told.parent) });
        }
        (_, process) => process,
    };
    let kept = process.as_ref().and_then(|process| proc::pid_of(process.as_fd()));
    let since_birth = kept == Some(pid);
    let (pidfd, process) = if since_birth { (process, None) } else { (pidfd_open(pid).ok(), process) };
    let inside = |pid: u32| cgroup.is_some_and(|cgroup| cgroup.holds(pid).unwrap_or(false));
    if let (Some(pidfd), Ok((found, parent))) = (pidfd, proc::birth(pid))
        && (since_birth || start_ticks == 0 || found == start_ticks)
    {
        if inside(pid) {
            return Look::There(Verified { pid, pidfd, start_ticks: found, parent: Some(parent) });
        }
        if proc::has_ended(pid) {
            return Look::Ending;
        }
    }
    match (kept, process) {
        (Some(other), Some(pidfd)) if !since_birth && inside(other) => {
            let start_ticks = proc::start_ticks(other).unwrap_or_default();
            Look::There(Verified { pid: other, pidfd, start_ticks, parent: None })
        }
        (_, process) => Look::Gone(process),
    }
}

/// Its `cgroup.events`, read, if it has processes.
fn populated(cgroup: &Cgroup) -> Option<File> {
    let mut events = File::from(far_up(cgroup.events_fd().ok()?));
    let text = proc::read_small(&mut events).ok()?;
    text.lines().any(|line| line == "populated 1").then_some(events)
}

/// The pidfds that initldr keeps of main processes, by service.
fn processes(stored: &mut BTreeMap<String, OwnedFd>) -> BTreeMap<String, OwnedFd> {
    let names: Vec<String> = stored.keys().filter(|name| name.starts_with(PROCESS)).cloned().collect();
    let of = |name: String| Some((name.strip_prefix(PROCESS)?.to_owned(), stored.remove(&name)?));
    names.into_iter().filter_map(of).collect()
}
