//! [`Daemon::launch`]: from the decision to start a service to its running process.
//!
//! In this order, so that a motherd that ends at any point leaves nothing that its successor cannot find: the record says
//! `Launching` (written before this is called) - the log pipe, kept by initldr - the cgroup with its limits - clone3
//! into it, which writes the pid into the record before the child's first instruction. What it does not need in order to
//! begin comes after the launches, before the next event ([`Daemon::complete_launches`]).
//!
//! Its pidfd goes to initldr together with the next service's pipe ([`Daemon::keep_processes`]): until then it is found by that pid
//! alone, and by its cgroup.
//!
//! While its child is on its way to execve, the next service's pipe and cgroup are made. Until the child has landed its service
//! is `Launching`, and nothing but another launch is done: so whatever else is decided is decided of services that run or do not.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::{errno::Errno, sys::epoll::EpollFlags};
use sandbox::{
    Plan,
    cgroup::Cgroup,
    descriptors::far_up,
    launch::{Handed, Launch, LaunchError, LaunchFailure, Launched, Parent, Underway},
    standby::{Missed, Release, Standby},
};

use super::{
    Daemon, Fatal,
    ahead::Taken,
    events::{Source, watch},
    log::Log,
    notify::Readiness,
    now,
    policies::Planned,
    ready::Ready,
    standby::Waiting,
};
use crate::{
    failpoint,
    graph::Id,
    service::{Program, Start},
    supervise::{self, Event, StandbyEvent},
};

/// Why a launch did not take place.
pub(super) struct Refusal {
    pub(super) why: String,
    pub(super) permanent: bool,
}

impl Refusal {
    /// Trying again unasked is of no use.
    pub(super) fn permanent(why: impl Into<String>) -> Self {
        Self { why: why.into(), permanent: true }
    }

    /// It may be different in a moment.
    pub(super) fn passing(why: impl Into<String>) -> Self {
        Self { why: why.into(), permanent: false }
    }

    /// What was being done, and what the kernel said.
    pub(super) fn io(what: &str, error: &io::Error) -> Self {
        Self::by(error.raw_os_error().map(Errno::from_raw), format!("{what}: {error}"))
    }

    /// The kernel may have more to give in a moment.
    pub(super) fn by(errno: Option<Errno>, why: impl Into<String>) -> Self {
        let passing = [
            Errno::EAGAIN,
            Errno::ENOMEM,
            Errno::EMFILE,
            Errno::ENFILE,
            Errno::EINTR,
            Errno::EBUSY,
            Errno::EADDRINUSE,
            Errno::EADDRNOTAVAIL,
        ];
        Self { why: why.into(), permanent: !errno.is_some_and(|errno| passing.contains(&errno)) }
    }
}

/// A launch whose child is on its way.
#[derive(Debug)]
pub(super) struct Flying {
    id: Id,
    underway: Underway,
}

/// A launch that came to its end.
#[derive(Debug)]
struct Landed {
    id: Id,
    launched: Result<Launched, LaunchError>,
}

/// What a process is launched by and into.
struct Place {
    plan: Arc<Plan>,
    /// A pidfd of the process whose network it joins.
    network: Option<OwnedFd>,
}

/// What a process is given: as much as belongs to one run.
struct Given<'a> {
    environment: Vec<(String, String)>,
    null: File,
    log: BorrowedFd<'a>,
    listen: Vec<(&'a str, BorrowedFd<'a>)>,
    /// Variables that have its own pid.
    own_pid: &'static [&'static str],
    at: Option<(RawFd, BorrowedFd<'a>)>,
}

impl Given<'_> {
    fn stdio(&self) -> [BorrowedFd<'_>; 3] {
        [self.null.as_fd(), self.log, self.log]
    }

    fn handed(&self) -> Handed<'_> {
        Handed { listen: &self.listen, own_pid: self.own_pid, at: self.at }
    }
}

/// A launch that was begun.
enum Begun {
    /// A process that waited has gone on.
    Released(Launched),
    Underway(Underway),
}

impl Daemon {
    /// Begins to launch a service. Answers with the events that say how earlier launches went, and of this one where that is known:
    /// its child may still be on its way, until [`Daemon::land`].
    pub(super) fn launch(&mut self, id: Id) -> Result<Vec<(Id, Event)>, Fatal> {
        let service = self.manager.graph().service(id);
        let name = service.name().to_owned();
        let Some(program) = service.shared_program() else { return Ok(vec![]) };
        let prepared = self.prepare(id, &name, &program)?;
        let listening = self.prepare_sockets(id)?.and_then(|()| self.hand_over_sockets(id));
        let listening = listening.map_err(|(what, error)| Refusal::io(&what, &error));
        let ready = self.prepare_ready(id, &name, &program)?;
        let prepared = prepared.and(listening).and(ready);
        let place = prepared.and_then(|()| self.make_place(id, &name, &program));
        // Its child has had the time that all this took.
        let landed = self.wait_for_landing();
        let begun = place.and_then(|(place, standby)| self.begin(id, &name, &program, &place, standby));
        failpoint::hit("launch.under-way");
        // The service has its own, and that is to be the only one.
        self.hand_over_ready(id);
        let mut events = match landed {
            Some(landed) => self.landed(landed)?,
            None => vec![],
        };
        match begun {
            Ok(Begun::Underway(underway)) => self.flying = Some(Flying { id, underway }),
            Ok(Begun::Released(launched)) => events.extend(self.launched(id, Ok(launched))?),
            Err(refusal) => events.extend(self.launched(id, Err(refusal))?),
        }
        Ok(events)
    }

    /// Waits for who is on its way, and answers with the event that says how that went.
    pub(super) fn land(&mut self) -> Result<Vec<(Id, Event)>, Fatal> {
        match self.wait_for_landing() {
            Some(landed) => self.landed(landed),
            None => Ok(vec![]),
        }
    }

    /// Whose child is on its way.
    pub(super) fn flying(&self) -> Option<Id> {
        self.flying.as_ref().map(|flying| flying.id)
    }

    fn wait_for_landing(&mut self) -> Option<Landed> {
        let Flying { id, underway } = self.flying.take()?;
        Some(Landed { id, launched: underway.launched() })
    }

    fn landed(&mut self, Landed { id, launched }: Landed) -> Result<Vec<(Id, Event)>, Fatal> {
        let Some(program) = self.manager.graph().service(id).shared_program() else { return Ok(vec![]) };
        let launched = match launched {
            // Something on the host was renamed since that was made: now without.
            Err(error) if error.is_stale() => self.launch_anew(id, &program),
            Err(error) => Err(self.refusal(id, &program, &error)),
            Ok(launched) => Ok(launched),
        };
        self.launched(id, launched)
    }

    /// Once more, with nothing that was ready.
    fn launch_anew(&mut self, id: Id, program: &Program) -> Result<Launched, Refusal> {
        let name = self.manager.graph().name(id).to_owned();
        let plan = self.plan(id, &name, program)?;
        let network = self.network(plan.network_of()).map_err(Refusal::passing)?;
        let underway = self.begin_child(id, &name, program, &Place { plan, network }, &Taken::default())?;
        underway.launched().map_err(|error| self.refusal(id, program, &error))
    }

    /// What is known of a process that was launched, or of one that was not.
    fn launched(&mut self, id: Id, launched: Result<Launched, Refusal>) -> Result<Vec<(Id, Event)>, Fatal> {
        let name = self.manager.graph().name(id).to_owned();
        let waited = match self.manager.unit(id).standby {
            supervise::Standby::Parked { process } => Some(process.pid),
            supervise::Standby::None | supervise::Standby::Parking | supervise::Standby::Later { .. } => None,
        };
        let event = match launched {
            Ok(Launched { pid, pidfd, mounts }) => {
                failpoint::hit("launch.cloned");
                let runtime = self.runtime.entry(id).or_default();
                runtime.pidfd = Some(far_up(pidfd));
                runtime.namespaces = mounts.map(far_up).into_iter().collect();
                runtime.policy = runtime.planned.as_ref().map(Planned::digest);
                runtime.start_ticks = 0;
                self.fresh.processes.push(id);
                self.fresh.services.push((id, pid));
                self.timer_started(id)?;
                self.rest.launched(now());
                Event::Launched { pid }
            }
            Err(Refusal { why, permanent }) => {
                tracing::error!("{name}: {why}");
                Event::LaunchFailed { why, permanent }
            }
        };
        let mut events = vec![(id, event)];
        // It was not used, and could not be.
        let released = matches!(events[0].1, Event::Launched { pid } if Some(pid) == waited);
        let waits = self.runtime.get(&id).is_some_and(|runtime| runtime.waiting.is_some());
        if waited.is_some() && !released && !waits {
            events.insert(0, (id, Event::Standby(StandbyEvent::Gone { failed: false })));
        }
        Ok(events)
    }

    /// What is there before any child is, and who waits to be it.
    fn make_place(
        &mut self,
        id: Id,
        name: &str,
        program: &Program,
    ) -> Result<(Place, Option<Standby>), Refusal> {
        let known = self.runtime.get(&id).and_then(|runtime| Some(runtime.planned.as_ref()?.plan().clone()));
        let plan = self.plan(id, name, program)?;
        let is_new = !known.as_ref().is_some_and(|known| Arc::ptr_eq(known, &plan));
        if let Some(known) = known.filter(|_| is_new) {
            self.stock.replaced(&known, &plan);
        }
        for (why, what) in left_out(&plan).into_iter().filter(|_| is_new) {
            tracing::info!("{name}: left out: {what} ({why})");
        }
        failpoint::hit("launch.planned");
        let network = self.network(plan.network_of()).map_err(Refusal::passing)?;
        if program.start == Start::Forking && plan.has_pid_namespace() {
            let sources = self.manager.graph().service(id).sources();
            return Err(Refusal::permanent(format!(
                "{}: a program that forks cannot have a pid namespace of its own: its first process is PID 1 there, and \
                 when that ends the kernel kills the daemon. Write `namespaces.pid = \"host\"` in its policy, or have it \
                 stay in the foreground",
                sources.locate(&program.exec.at)
            )));
        }
        let mut standby = None;
        match self.fit_standby(id, &plan).map(Waiting::into_run) {
            Some((process, run)) => {
                let runtime = self.runtime.entry(id).or_default();
                (runtime.run, runtime.watch) = (Some(run), None);
                standby = process;
            }
            None => self.open_cgroup(id, name, program, &plan, program.commands.pre.is_empty())?,
        }
        failpoint::hit("launch.cgroup-made");
        self.arm_pressure(id, &plan)?;
        self.begin_to_listen(id);
        Ok((Place { plan, network }, standby))
    }

    /// Has who waits go on, or makes a child.
    fn begin(
        &mut self,
        id: Id,
        name: &str,
        program: &Program,
        place: &Place,
        standby: Option<Standby>,
    ) -> Result<Begun, Refusal> {
        if let Some(standby) = standby
            && let Some(launched) = self.release_standby(id, name, program, &place.plan, standby)?
        {
            return Ok(Begun::Released(launched));
        }
        let ready = self.stock.take(&place.plan, now());
        self.begin_child(id, name, program, place, &ready).map(Begun::Underway)
    }

    /// Has who waits go on; `None` if it could not be used.
    fn release_standby(
        &mut self,
        id: Id,
        name: &str,
        program: &Program,
        plan: &Plan,
        standby: Standby,
    ) -> Result<Option<Launched>, Refusal> {
        self.stock.begun(now());
        let given = self.given(id, program)?;
        let pid_cell = self.pid_cell(name)?;
        // As the kernel writes it in a launch: before its first instruction that is the service's.
        pid_cell.store(standby.pid(), Ordering::Release);
        failpoint::hit("standby.about-to-be-released");
        let (argv, environment) = (&program.exec.value, &given.environment);
        let release = Release { plan, argv, environment, stdio: given.stdio(), handed: given.handed() };
        match standby.release(&release) {
            Ok(launched) => {
                failpoint::hit("standby.released");
                Ok(Some(launched))
            }
            Err(Missed::Failed(error)) => Err(self.refusal(id, program, &error)),
            Err(Missed::Unfit(why)) => {
                tracing::warn!("{name}: {why}");
                pid_cell.store(0, Ordering::Release);
                Ok(None)
            }
        }
    }

    fn begin_child(
        &self,
        id: Id,
        name: &str,
        program: &Program,
        place: &Place,
        ready: &Taken,
    ) -> Result<Underway, Refusal> {
        let given = self.given(id, program)?;
        let underway = Underway::begin(&Launch {
            plan: &place.plan,
            argv: &program.exec.value,
            others: &[],
            environment: &given.environment,
            stdio: given.stdio(),
            handed: given.handed(),
            cgroup: self.runtime.get(&id).and_then(|runtime| runtime.own_cgroup()),
            network: place.network.as_ref().map(AsFd::as_fd),
            ahead: ready.ahead(),
            parent: Parent::CallersParent,
            pid_cell: Some(self.pid_cell(name)?),
            timings: None,
        });
        underway.map_err(|error| self.refusal(id, program, &error))
    }

    /// What the next process of a service is given.
    fn given(&self, id: Id, program: &Program) -> Result<Given<'_>, Refusal> {
        let null = File::open("/dev/null").map_err(|error| Refusal::io("open /dev/null", &error))?;
        let runtime = self.runtime.get(&id);
        let log = runtime.and_then(|runtime| runtime.log.as_ref()).map(Log::writer);
        let log = log.ok_or_else(|| Refusal::permanent("no log pipe"))?;
        let socket = runtime.and_then(|runtime| runtime.readiness.as_ref());
        let socket = socket.map(|readiness| ("NOTIFY_SOCKET", readiness.path().display().to_string()));
        let watchdog = program.watchdog.map(|interval| ("WATCHDOG_USEC", interval.as_micros().to_string()));
        let told = socket.into_iter().chain(watchdog).map(|(name, value)| (name.to_owned(), value));
        let environment = program.environment.iter().cloned().chain(told).collect();
        let sockets = self.manager.graph().service(id).sockets();
        let listening =
            self.sockets.of(id).filter_map(|(number, fd)| Some((sockets.get(number)?.name.as_str(), fd)));
        // As systemd has it: first what listens, then what the service had stored.
        let held = runtime.map(|runtime| runtime.held.as_slice()).unwrap_or_default();
        let stored = held.iter().map(|held| (held.name.as_str(), held.fd.as_fd()));
        let own_pid: &[&str] = if program.watchdog.is_some() { &["WATCHDOG_PID"] } else { &[] };
        let ready = runtime.and_then(|runtime| runtime.ready.as_ref()).and_then(Ready::writer);
        Ok(Given {
            environment,
            null,
            log,
            listen: listening.chain(stored).collect(),
            own_pid,
            at: program.ready_fd.zip(ready),
        })
    }

    fn pid_cell(&self, name: &str) -> Result<&AtomicU32, Refusal> {
        self.table.cell(name).ok_or_else(|| Refusal::permanent("no room for another service in the state"))
    }

    /// Why a service was not launched.
    fn refusal(&self, id: Id, program: &Program, error: &LaunchError) -> Refusal {
        let service = self.manager.graph().service(id);
        let joins = self.runtime.get(&id).and_then(|runtime| runtime.planned.as_ref());
        let joins = joins.is_some_and(|planned| planned.plan().network_of().is_some());
        match error.kind() {
            // Whose network it joins ended just now, and is perhaps tried again.
            LaunchFailure::Sandbox if joins && error.errno() == Errno::ESRCH => {
                Refusal::passing(error.to_string())
            }
            LaunchFailure::Sandbox => Refusal::by(Some(error.errno()), error.to_string()),
            LaunchFailure::NotExecutable | LaunchFailure::NotFound => {
                Refusal::permanent(format!("{}: {error}", service.sources().locate(&program.exec.at)))
            }
        }
    }

    /// The service's cgroup: where this is not its `first` process the one that is there, else a new one.
    pub(super) fn open_cgroup(
        &mut self,
        id: Id,
        name: &str,
        program: &Program,
        plan: &Arc<Plan>,
        first: bool,
    ) -> Result<(), Refusal> {
        if program.standby {
            return self.open_run(id, name, program, plan, first);
        }
        if !first && self.runtime.get(&id).is_some_and(|runtime| runtime.cgroup.is_some()) {
            return Ok(());
        }
        if let Some(why) = &self.base.unusable {
            return Err(Refusal::permanent(why));
        }
        let relative = program.cgroup(name);
        let cgroup = Cgroup::create_among(&self.base.path, &relative, plan, &mut self.slices)
            .map_err(|error| Refusal::by(error.errno(), error.to_string()))?;
        let runtime = self.runtime.entry(id).or_default();
        runtime.cgroup = Some(cgroup);
        runtime.watch = None;
        runtime.oom_kills = 0;
        Ok(())
    }

    /// Where a service says that it is ready.
    pub(super) fn notify_path(&self, name: &str) -> PathBuf {
        self.paths.run.join("notify").join(name)
    }

    /// What is there before any process of the service is, its commands among them: the log pipe, and the readiness socket.
    pub(super) fn prepare(
        &mut self,
        id: Id,
        name: &str,
        program: &Program,
    ) -> Result<Result<(), Refusal>, Fatal> {
        // A service whose pipe is not kept would notice the end of motherd.
        let may_say = program.may_say().then(|| notify_slot(name));
        let ready = program.ready_fd.map(|_| super::ready::ready_slot(name));
        // Those of who was launched just now are not sent yet.
        let unkept = self.flying().into_iter().chain(self.fresh.processes.iter().copied());
        let unkept = unkept.map(|id| process_slot(self.manager.graph().name(id)));
        let slots = [Some(process_slot(name)), Some(super::output::log_slot(name)), may_say, ready];
        let slots: Vec<String> = slots.into_iter().flatten().chain(unkept).collect();
        if let Err(why) = self.link.has_room_for(slots.iter().map(String::as_str)) {
            return Ok(Err(Refusal::passing(why)));
        }
        match self.prepare_log(id, name, program)? {
            Ok(()) if program.may_say() => self.prepare_readiness(id, name),
            other => Ok(other),
        }
    }

    /// The socket on which the service says that it is ready, there before the service is and kept by initldr.
    fn prepare_readiness(&mut self, id: Id, name: &str) -> Result<Result<(), Refusal>, Fatal> {
        let known = self.runtime.get(&id).and_then(|runtime| runtime.readiness.as_ref());
        if known.is_some_and(Readiness::has_path) {
            return Ok(Ok(()));
        }
        let path = self.notify_path(name);
        let made = Readiness::create(path.clone()).and_then(|readiness| {
            watch(&self.epoll, readiness.fd(), Source::Notify(id), EpollFlags::EPOLLIN).map(|()| readiness)
        });
        match made {
            Ok(readiness) => {
                failpoint::hit("launch.notify-made");
                self.link.store(&notify_slot(name), readiness.fd())?;
                failpoint::hit("launch.notify-kept");
                self.runtime.entry(id).or_default().readiness = Some(readiness);
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(Refusal::io(&format!("make {}", path.display()), &error))),
        }
    }
}

/// What this machine lacks and the policy calls optional, by the reason.
fn left_out(plan: &Plan) -> BTreeMap<&str, String> {
    let mut by_reason: BTreeMap<&str, String> = BTreeMap::new();
    for left in plan.left_out() {
        let what = by_reason.entry(&left.why).or_default();
        if !what.is_empty() {
            what.push_str(", ");
        }
        what.push_str(&left.what);
    }
    by_reason
}

/// The name under which initldr keeps the pidfd of a service's main process: who it was, and on Linux 6.15 how it ended,
/// whatever becomes of the records.
pub(super) fn process_slot(name: &str) -> String {
    format!("{PROCESS}{name}")
}

/// The kind of those slots.
pub(super) const PROCESS: &str = "process/";

/// The name under which initldr keeps a service's readiness socket.
pub(super) fn notify_slot(name: &str) -> String {
    format!("notify/{name}")
}
