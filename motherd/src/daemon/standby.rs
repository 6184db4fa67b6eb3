//! The shell of standbys: one more process of a service that waits right before execve, and the cgroups that keep it apart
//! from the run that it will follow.
//!
//! ```text
//! web.slice/web.service/          the service's limits and figures; no process is in it
//!     run-1                       the present run: killed by itself, and removed when the next standby is made
//!     run-2                       where the standby waits; after its release it is the present run
//! ```
//!
//! A service without `standby = true` has all of its processes in its cgroup, and none of this.
//!
//! Invariants. The cgroup of a standby is in the service's record before there is a process in it, so a new motherd knows
//! what is in it is no run; and the process ends by itself when the motherd ends that made it. Its pid is in the cell of
//! the main process before it is released, as the kernel writes it there in a launch.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd,
    sync::Arc,
};

use nix::errno::Errno;
use sandbox::{
    Plan,
    cgroup::{Cgroup, CgroupError},
    launch::{Launch, Parent},
    standby::{Standby, park},
};

use super::{Daemon, Fatal, now, oom, policies::Planned, spawn::Refusal};
use crate::{
    control::protocol,
    failpoint,
    graph::Id,
    service::Program,
    supervise::{Event, Exit, StandbyEvent},
    sys::process::process_info,
};

/// A process that waits, and where.
#[derive(Debug)]
pub(super) struct Waiting {
    /// `None` while it is being made.
    process: Option<Standby>,
    leaf: Cgroup,
    plan: Arc<Plan>,
}

impl Waiting {
    pub(super) fn cgroup_id(&self) -> u64 {
        self.leaf.id()
    }
}

/// Those that were ended and not reaped, by their pids: whose they were, and where.
#[derive(Debug, Default)]
pub(super) struct Leaving(BTreeMap<u32, (Id, Cgroup)>);

impl super::Runtime {
    /// Where the processes of the present run are; without a standby that is the service's cgroup.
    pub(super) fn own_cgroup(&self) -> Option<&Cgroup> {
        match (&self.run, &self.waiting) {
            (Some(run), _) => Some(run),
            (None, Some(_)) => None,
            (None, None) => self.cgroup.as_ref(),
        }
    }

    /// That cgroup, if the kernel says that this process is the main one and in it now. Before Linux 6.13 it does not say.
    pub(super) fn own_cgroup_of(&self, pid: u32) -> Option<&Cgroup> {
        let cgroup = self.own_cgroup()?;
        let told = process_info(self.pidfd.as_ref()?.as_fd()).ok()?;
        (told.pid == pid && told.cgroup_id == cgroup.id()).then_some(cgroup)
    }
}

impl Daemon {
    /// Makes a process that waits, and answers with the event that says how that went.
    pub(super) fn park(&mut self, id: Id) -> Result<Vec<(Id, Event)>, Fatal> {
        let service = self.manager.graph().service(id);
        let name = service.name().to_owned();
        let Some(program) = service.shared_program() else { return Ok(vec![]) };
        let parked = match self.prepare(id, &name, &program)? {
            Ok(()) => self.make_standby(id, &name, &program),
            Err(refusal) => Err(refusal),
        };
        let runtime = self.runtime.entry(id).or_default();
        let event = match parked {
            Ok(pid) => {
                runtime.no_standby = None;
                failpoint::hit("standby.made");
                StandbyEvent::Made { pid }
            }
            Err(Refusal { why, .. }) => {
                if runtime.no_standby.as_ref() != Some(&why) {
                    tracing::warn!("{name}: no standby: {why}");
                }
                runtime.no_standby = Some(why);
                StandbyEvent::Gone { failed: true }
            }
        };
        Ok(vec![(id, Event::Standby(event))])
    }

    fn make_standby(&mut self, id: Id, name: &str, program: &Program) -> Result<u32, Refusal> {
        let plan = self.plan(id, name, program)?;
        if let Some(owner) = plan.network_of() {
            return Err(Refusal::permanent(format!(
                "it joins the network of {owner}, which may be another then"
            )));
        }
        let runtime = self.runtime.entry(id).or_default();
        if runtime.run.is_none() && self.manager.unit(id).is_active() {
            return Err(Refusal::passing("its present run has no cgroup of its own below the service's"));
        }
        let limited = match &runtime.limited_by {
            Some(known) => Arc::ptr_eq(known, &plan),
            // A motherd before this one wrote the limits: they are the same by the same text, and are written again.
            None if runtime.run.is_some() => {
                runtime.policy == runtime.planned.as_ref().map(Planned::digest) && {
                    self.limit_above(id, name, program, &plan)?;
                    true
                }
            }
            None => false,
        };
        match (limited, self.runtime.entry(id).or_default().run.is_some()) {
            (true, true) => {}
            (false, true) => {
                let why = "its policy means something else here than when it was started";
                return Err(Refusal::passing(why));
            }
            (_, false) => self.limit_above(id, name, program, &plan)?,
        }
        self.sweep_left_behind(id);
        let runtime = self.runtime.entry(id).or_default();
        let Some(above) = &runtime.cgroup else { return Err(Refusal::passing("its cgroup is gone")) };
        let leaf = above.new_child("run").map_err(refused)?;
        runtime.waiting = Some(Box::new(Waiting { process: None, leaf, plan: plan.clone() }));
        self.write_record(id);
        failpoint::hit("standby.recorded");
        let ready = self.stock.take(&plan, now());
        let leaf = self.runtime.get(&id).and_then(|runtime| runtime.waiting.as_ref()).map(|one| &one.leaf);
        let null = std::fs::File::open("/dev/null").map_err(|error| Refusal::io("open /dev/null", &error))?;
        let request = Launch {
            cgroup: leaf,
            ahead: ready.ahead(),
            parent: Parent::CallersParent,
            ..Launch::new(&plan, &[], [null.as_fd(); 3])
        };
        let parked = park(&request);
        let runtime = self.runtime.entry(id).or_default();
        match parked {
            Ok(process) => {
                let pid = process.pid();
                if let Some(waiting) = &mut runtime.waiting {
                    waiting.process = Some(process);
                }
                Ok(pid)
            }
            Err(error) => {
                let leaf = runtime.waiting.take().map(|waiting| waiting.leaf);
                if let (Some(leaf), true) = (leaf, error.pid() != 0) {
                    self.leaving.0.insert(error.pid(), (id, leaf));
                }
                Err(Refusal::by(Some(error.errno()), error.to_string()))
            }
        }
    }

    /// Ends the process that waits.
    pub(super) fn unpark(&mut self, id: Id, pid: u32) -> Vec<(Id, Event)> {
        let Some(runtime) = self.runtime.get_mut(&id) else { return vec![] };
        let is_it =
            |waiting: &mut Box<Waiting>| waiting.process.as_ref().is_some_and(|process| process.pid() == pid);
        if let Some(waiting) = runtime.waiting.take_if(is_it) {
            self.dismiss(id, *waiting);
            // What it was kept for at rest is let go of.
            self.ended.insert(id);
        }
        vec![]
    }

    fn dismiss(&mut self, id: Id, waiting: Waiting) {
        let Waiting { process, leaf, .. } = waiting;
        if let Err(error) = leaf.kill()
            && !matches!(error.errno(), Some(Errno::ENOENT | Errno::ENODEV))
        {
            tracing::error!("{error}");
        }
        if let Some(process) = process {
            self.leaving.0.insert(process.pid(), (id, leaf));
        }
    }

    /// A process was reaped that is neither a main process nor a command: whether it waited, and what follows.
    pub(super) fn standby_exited(&mut self, pid: u32, exit: &Exit) -> Result<bool, Fatal> {
        if let Some((id, leaf)) = self.leaving.0.remove(&pid) {
            self.remove_leaf(&leaf);
            self.remove_above(id);
            return Ok(true);
        }
        let waits = |runtime: &super::Runtime| {
            let process = runtime.waiting.as_ref().and_then(|waiting| waiting.process.as_ref());
            process.is_some_and(|process| process.pid() == pid)
        };
        let Some(id) = self.runtime.iter().find(|(_, runtime)| waits(runtime)).map(|(id, _)| *id) else {
            return Ok(false);
        };
        let name = self.manager.graph().name(id).to_owned();
        tracing::warn!("{name}: its standby {exit}");
        if let Some(waiting) = self.runtime.get_mut(&id).and_then(|runtime| runtime.waiting.take()) {
            self.remove_leaf(&waiting.leaf);
        }
        self.runtime.entry(id).or_default().no_standby = Some(format!("the last one {exit}"));
        self.event(id, Event::Standby(StandbyEvent::Gone { failed: true }))?;
        self.remove_above(id);
        Ok(true)
    }

    fn remove_leaf(&self, leaf: &Cgroup) {
        match leaf.remove() {
            Err(error) if error.errno() != Some(Errno::EBUSY) => tracing::error!("{error}"),
            Ok(()) | Err(_) => {}
        }
    }

    /// Removes the cgroup of a service that has neither a run nor a standby any more.
    fn remove_above(&mut self, id: Id) {
        if self.manager.unit(id).is_active() {
            return;
        }
        let Some(runtime) = self.runtime.get_mut(&id) else { return };
        if runtime.run.is_some() || runtime.waiting.is_some() {
            return;
        }
        if let Some(above) = runtime.cgroup.take() {
            runtime.watch = None;
            self.remove_leaf(&above);
        }
    }

    /// What a standby of an earlier motherd, or one that was not used, has left.
    fn sweep_left_behind(&self, id: Id) {
        let Some(runtime) = self.runtime.get(&id) else { return };
        let known: Vec<u64> = runtime.run.iter().map(Cgroup::id).collect();
        let children = runtime.cgroup.as_ref().and_then(|above| above.children().ok()).unwrap_or_default();
        for child in children.iter().filter(|child| !known.contains(&child.id())) {
            // One that has processes stays, of course.
            self.remove_leaf(child);
        }
    }

    /// The cgroup above the runs of a service that has standbys, with its limits.
    fn limit_above(
        &mut self,
        id: Id,
        name: &str,
        program: &Program,
        plan: &Arc<Plan>,
    ) -> Result<(), Refusal> {
        let relative = program.cgroup(name);
        if let Some(why) = &self.base.unusable {
            return Err(Refusal::permanent(why.clone()));
        }
        let above = Cgroup::create_above(&self.base.path, &relative, plan).map_err(refused)?;
        let runtime = self.runtime.entry(id).or_default();
        // What a run that goes on has had is still to be looked at.
        if runtime.run.is_none() {
            runtime.oom_kills = oom::counted(&above);
        }
        runtime.cgroup = Some(above);
        runtime.limited_by = Some(plan.clone());
        Ok(())
    }

    /// A cgroup for a new run of a service that has standbys.
    pub(super) fn open_run(
        &mut self,
        id: Id,
        name: &str,
        program: &Program,
        plan: &Arc<Plan>,
        first: bool,
    ) -> Result<(), Refusal> {
        let runtime = self.runtime.entry(id).or_default();
        if !first && runtime.run.is_some() {
            return Ok(());
        }
        let limited = runtime.limited_by.as_ref().is_some_and(|known| Arc::ptr_eq(known, plan));
        // Where somebody waits below it, it is the one that is there.
        if runtime.waiting.is_none() || runtime.cgroup.is_none() || !limited {
            self.limit_above(id, name, program, plan)?;
        }
        self.sweep_left_behind_but_waiting(id);
        let runtime = self.runtime.entry(id).or_default();
        let Some(above) = &runtime.cgroup else { return Err(Refusal::passing("its cgroup is gone")) };
        runtime.run = Some(above.new_child("run").map_err(refused)?);
        runtime.watch = None;
        Ok(())
    }

    fn sweep_left_behind_but_waiting(&self, id: Id) {
        if self.runtime.get(&id).is_some_and(|runtime| runtime.waiting.is_none()) {
            self.sweep_left_behind(id);
        }
    }

    /// The process that waits, if it is what a launch of this plan would make; otherwise it ends.
    pub(super) fn fit_standby(&mut self, id: Id, plan: &Arc<Plan>) -> Option<Waiting> {
        let waiting = self.runtime.get_mut(&id)?.waiting.take()?;
        let fits =
            Arc::ptr_eq(&waiting.plan, plan) && waiting.process.as_ref().is_some_and(Standby::is_current);
        if fits {
            return Some(*waiting);
        }
        tracing::info!("{}: its standby is not what would be launched now", self.manager.graph().name(id));
        self.dismiss(id, *waiting);
        None
    }

    /// For `status`: what waits, or why nothing does. `None`: its file asks for none.
    pub(super) fn standby_status(&self, id: Id) -> Option<protocol::StandbyStatus> {
        let asked = self.manager.graph().service(id).program().is_some_and(|program| program.standby);
        let runtime = self.runtime.get(&id);
        let process = runtime.and_then(|runtime| runtime.waiting.as_ref()?.process.as_ref());
        let why = runtime.and_then(|runtime| runtime.no_standby.clone()).filter(|_| process.is_none());
        asked.then(|| protocol::StandbyStatus {
            pid: process.map(Standby::pid),
            ready: process.is_some_and(Standby::waits),
            why,
        })
    }
}

impl Waiting {
    /// The process, and the cgroup that is that of the present run from here on.
    pub(super) fn into_run(self) -> (Option<Standby>, Cgroup) {
        (self.process, self.leaf)
    }
}

/// Whether the cgroup of this run is below a service's.
pub(super) fn has_run(above: &Cgroup, run: u64) -> bool {
    above.children().is_ok_and(|children| children.iter().any(|child| child.id() == run))
}

/// Which of the cgroups below a service's is that of its present run, and whether any process is there that is not a
/// standby of a motherd before this one. Such a one has heard that its motherd has ended; it is killed all the same.
pub(super) fn present_run(
    above: &Cgroup,
    run: u64,
    standby: u64,
    pid: Option<u32>,
) -> (Option<Cgroup>, bool) {
    let said = |error: &CgroupError| tracing::error!("{error}");
    let children = above.children().inspect_err(said).unwrap_or_default();
    let mut present = None;
    let mut others: BTreeSet<u32> = above.procs().inspect_err(said).unwrap_or_default().into_iter().collect();
    for child in children {
        let pids = child.procs().inspect_err(said).unwrap_or_default();
        let has_it = pid.is_some_and(|pid| pids.contains(&pid));
        if child.id() == standby && !has_it {
            if let Err(error) = child.kill().and_then(|()| child.remove())
                && error.errno() != Some(Errno::EBUSY)
            {
                said(&error);
            }
            others.retain(|pid| !pids.contains(pid));
        } else if has_it || child.id() == run {
            present = Some(child);
        }
    }
    (present, !others.is_empty())
}

fn refused(error: CgroupError) -> Refusal {
    Refusal::by(error.errno(), error.to_string())
}
