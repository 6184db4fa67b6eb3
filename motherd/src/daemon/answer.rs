//! Requests of the control socket to the manager, and what it knows back to the wire types.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs, io,
    os::fd::AsFd,
    path::Path,
    time::Duration,
};

use sandbox::{
    attest::{Unreadable, Whereabouts, Witness},
    cgroup::{self, Enabled},
    diagnostic::{Report, Severity},
    survey::{Sample, Subject, Survey},
};

use super::{Daemon, Fatal, log, networks::imply_need, now, proc, upgrade::Which};
use crate::{
    control::{
        protocol::{
            self, Acted, ExitHow as WireHow, Failure, Isolation, LandlockApplied, LastExit, LeftOut, Reply,
            Request, RequestError, ServiceStatus, ServiceSummary, State as Wire, StatusText,
        },
        server::{Incoming, Token},
    },
    eventlog::What,
    failpoint,
    graph::{Graph, Id},
    manager::{Outcome, Verb},
    service::{Template, check_service_name},
    supervise::{Cause, Exit, ExitHow, Requester, State, Unit},
    sys::process::{pidfd_open, process_info},
};

/// How many lines of its output `status` shows.
const LINES: usize = 10;

/// So much of a long reply goes out at once.
const PART_BYTES: usize = 32 << 10;

/// For an answer about more services than this the folder of logs is read once, and after it the heap is looked through for what
/// can be given back.
const LONG: usize = 100;

/// What is the same for all services of one answer, and read once for it.
struct Look {
    witness: Result<Witness, Unreadable>,
    enabled: Enabled,
    /// How it is found out where a main process is.
    cgroups: Cgroups,
    /// Who has a folder for logs; `None`: each is looked for.
    logs: Option<BTreeSet<OsString>>,
}

/// How it is found out in which cgroup the main process of a service is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cgroups {
    /// This kernel tells that of a pidfd (Linux 6.13).
    Told,
    /// It does not: `/proc` is asked.
    Shown,
    /// The answer is brief.
    Unasked,
}

impl Cgroups {
    fn find_out(brief: bool) -> Self {
        if brief {
            return Self::Unasked;
        }
        let own = pidfd_open(std::process::id());
        if own.is_ok_and(|own| process_info(own.as_fd()).is_ok()) { Self::Told } else { Self::Shown }
    }
}

impl Look {
    fn new(services: usize, logs: &Path, brief: bool) -> Self {
        let folders = || match fs::read_dir(logs) {
            Ok(entries) => entries.map(|entry| Some(entry.ok()?.file_name())).collect(),
            // Nobody has written anything yet.
            Err(error) => (error.kind() == io::ErrorKind::NotFound).then(BTreeSet::new),
        };
        let logs = if services > LONG { folders() } else { None };
        let cgroups = Cgroups::find_out(brief);
        Self { witness: Witness::new(), enabled: Enabled::default(), cgroups, logs }
    }

    fn may_have_log(&self, name: &str) -> bool {
        self.logs.as_ref().is_none_or(|logs| logs.contains(OsStr::new(name)))
    }
}

/// What a name in a request stands for.
pub(super) enum Named {
    Service(Id),
    Broken,
    Orphan,
    /// An instance of a template that nobody has asked to be started: it is made when somebody does. Who only looks makes
    /// none, or a reader could have any number made.
    Unmade,
}

impl Daemon {
    /// One request: answered now, or by an effect once it is done.
    pub(super) fn answer(&mut self, incoming: &Incoming) -> Result<(), Fatal> {
        failpoint::hit("request.heard");
        let Incoming { connection, peer, request } = incoming;
        let who = Requester { uid: peer.uid, pid: peer.pid };
        let reply = match request {
            Request::List => Ok(Reply::List(self.list())),
            Request::Status { services, brief } => match self.status(*connection, services, *brief) {
                Ok(()) => return Ok(()),
                Err(error) => Err(error),
            },
            Request::Tree { services } => self.tree(services).map(Reply::Tree),
            Request::Why { service } => self.why(service).map(|why| Reply::Why(Box::new(why))),
            Request::Timers => Ok(Reply::Timers(self.timer_status(None))),
            Request::Events { services, after, follow: false } => self.events(services, *after),
            Request::Events { services, after, follow: true } => {
                self.follow_events(*connection, services, *after);
                return Ok(());
            }
            Request::Start { services } => match self.named(services) {
                Ok(ids) => return self.act(*connection, Verb::Start, &ids, who),
                Err(error) => Err(error),
            },
            Request::Run { service, definition, hold } => {
                return self.run_transient(incoming, service, definition, *hold);
            }
            Request::Stop { services, force } => match self.named(services) {
                Ok(ids) => {
                    for id in &ids {
                        self.let_transient_go(*id)?;
                    }
                    return self.act(*connection, Verb::Stop { force: *force }, &ids, who);
                }
                Err(error) => Err(error),
            },
            Request::Restart { services } => match self.named(services) {
                Ok(ids) => return self.act(*connection, Verb::Restart, &ids, who),
                Err(error) => Err(error),
            },
            Request::Reload { services } => match self.named(services).and_then(|ids| self.reload(&ids)) {
                Ok((ids, commanded)) if !commanded.is_empty() => {
                    return self.reload_by_command(connection.as_u64(), ids, &commanded);
                }
                Ok((ids, _)) => Ok(self.now_acted(&ids)),
                Err(error) => Err(error),
            },
            Request::FdStore { services } => self.fd_store(services)?.map(Reply::FdStore),
            Request::Manager => Ok(Reply::Manager(self.manager_status())),
            Request::Upgrade { path, initldr, check } => {
                let which = if *initldr { Which::Initldr } else { Which::Motherd };
                match self.upgrade(*connection, who, which, path.as_deref(), *check) {
                    Ok(()) => return Ok(()),
                    Err(error) => Err(error),
                }
            }
            Request::ReloadConfig { dry_run } => {
                let plan = self.reload_config(*dry_run, who)?;
                Ok(Reply::Configured(plan))
            }
            Request::Kill { services, signal } => {
                self.named(services).and_then(|ids| self.signal_services(&ids, *signal))
            }
            Request::End { how, status, force } => {
                return self.end_by(*connection, (*how, *status, *force), *peer);
            }
            Request::Schedule { how, at, message } => match self.schedule(*how, *at, message, who)? {
                Ok(scheduled) => Ok(Reply::Scheduled(scheduled)),
                Err(why) => Err(RequestError::Refused { why }),
            },
            Request::Unschedule => self.unschedule(who).map(|scheduled| Ok(Reply::Scheduled(scheduled)))?,
            Request::Ending => Ok(Reply::Awaited(self.ending_status())),
            Request::Skip { services } => match self.named(services) {
                Ok(ids) => self.skip(&ids, who)?,
                Err(error) => Err(error),
            },
        };
        self.server.reply(*connection, &reply.unwrap_or_else(Reply::Error), now());
        Ok(())
    }

    pub(super) fn act(
        &mut self,
        connection: crate::control::server::Token,
        verb: Verb,
        ids: &[Id],
        who: Requester,
    ) -> Result<(), Fatal> {
        for id in ids {
            // Somebody asked: the policy is looked at again.
            if let Some(runtime) = self.runtime.get_mut(id)
                && (verb == Verb::Restart || !self.manager.unit(*id).is_active())
            {
                runtime.outdate();
            }
        }
        let what = match verb {
            Verb::Start => "start",
            Verb::Stop { force: false } => "stop",
            Verb::Stop { force: true } => "stop by force",
            Verb::Restart => "restart",
        };
        for id in ids {
            self.forgive_starts(*id);
            let name = self.manager.graph().name(*id).to_owned();
            self.note(What::Asked, &name, &Cause::request(&format!("{what} requested"), who));
        }
        let effects = self.manager.request(connection.as_u64(), verb, ids, who, now());
        self.dispatch(effects)
    }

    /// All of the names, or what is wrong with the first that is wrong: then nothing is done.
    fn named(&mut self, names: &[String]) -> Result<Vec<Id>, RequestError> {
        let mut ids = Vec::new();
        for name in names {
            let mut found = self.find(name)?;
            if matches!(found, Named::Unmade) {
                found = Named::Service(self.instantiate(name)?);
            }
            match found {
                Named::Service(id) if !ids.contains(&id) => ids.push(id),
                Named::Service(_) | Named::Unmade => {}
                Named::Broken => {
                    let why = self.catalog.broken.get(name).map(brief).unwrap_or_default();
                    let failures = vec![Failure { service: name.clone(), why }];
                    return Err(RequestError::Failed { failures, done: vec![] });
                }
                Named::Orphan => {
                    let why = "no file describes it; its processes are in its cgroup".to_owned();
                    let failures = vec![Failure { service: name.clone(), why }];
                    return Err(RequestError::Failed { failures, done: vec![] });
                }
            }
        }
        Ok(ids)
    }

    /// Whether there is anything of this name.
    pub(super) fn check_name(&self, name: &str) -> Result<(), RequestError> {
        self.find(name).map(|_found| ())
    }

    pub(super) fn find(&self, name: &str) -> Result<Named, RequestError> {
        if let Some(id) = self.manager.graph().find(name).filter(|id| !self.is_gone(*id)) {
            return Ok(Named::Service(id));
        }
        if self.catalog.broken.contains_key(name) {
            return Ok(Named::Broken);
        }
        if self.template_of(name).is_some() {
            return match check_service_name(name) {
                Ok(()) => Ok(Named::Unmade),
                Err(why) => {
                    let parameter = format!("services: `{name}` is not the name of an instance: {why}");
                    Err(RequestError::InvalidParameter { parameter })
                }
            };
        }
        if self.orphans.iter().any(|path| orphan_name(path) == name) {
            return Ok(Named::Orphan);
        }
        let known = self
            .manager
            .graph()
            .names()
            .filter(|(_, id)| !self.is_gone(*id))
            .map(|(name, _)| name)
            .chain(self.catalog.broken.keys().map(String::as_str));
        let near = sandbox::diagnostic::nearest(name, known).map(str::to_owned);
        Err(RequestError::NoSuchService { service: name.to_owned(), near })
    }

    /// The template that an instance is made of: `worker@.toml` for `worker@blue`.
    fn template_of(&self, name: &str) -> Option<&Template> {
        name.split_once('@').and_then(|(template, _)| self.catalog.templates.get(template))
    }

    /// Makes `worker@blue` out of `worker@.toml`, with the instances that it depends on.
    fn instantiate(&mut self, name: &str) -> Result<Id, RequestError> {
        let mut services = self.manager.graph().described();
        let mut wanted = vec![name.to_owned()];
        while let Some(next) = wanted.pop() {
            if services.iter().any(|service| service.name() == next) {
                continue;
            }
            let template = self.template_of(&next).filter(|_| check_service_name(&next).is_ok());
            let Some(template) = template else { continue };
            let refused = |report: &Report| RequestError::Failed {
                failures: vec![Failure { service: next.clone(), why: brief(report) }],
                done: vec![],
            };
            let mut service = template.instantiate(&next).map_err(|report| refused(&report))?;
            imply_need(&mut service, &self.store).map_err(|report| refused(&report))?;
            wanted.extend(crate::service::named_instances(&service));
            services.push(service);
        }
        let broken = self.catalog.broken.keys().cloned().collect();
        let built = Graph::build(services, &broken);
        if let Some((service, report)) = built.refused.first_key_value() {
            let failures = vec![Failure { service: service.clone(), why: brief(report) }];
            return Err(RequestError::Failed { failures, done: vec![] });
        }
        self.manager.grow(built.graph);
        self.note_relations();
        self.timers.services_changed();
        let missing = || RequestError::NoSuchService { service: name.to_owned(), near: None };
        self.manager.graph().find(name).ok_or_else(missing)
    }

    /// Sends what is to be sent, and answers who was asked, and who has commands for it.
    fn reload(&mut self, ids: &[Id]) -> Result<(Vec<Id>, Vec<Id>), RequestError> {
        let (mut signals, mut commanded) = (Vec::new(), Vec::new());
        for id in ids {
            let service = self.manager.graph().service(*id);
            let name = service.name().to_owned();
            let failed = |why: String| RequestError::Failed {
                failures: vec![Failure { service: name.clone(), why }],
                done: vec![],
            };
            let by_command = service.program().is_some_and(|program| !program.commands.reload.is_empty());
            let signal = service.program().and_then(|program| program.reload_signal);
            if signal.is_none() && !by_command {
                return Err(failed("its file has no [reload]: it does not know how to".to_owned()));
            }
            let State::Running { main } = self.manager.unit(*id).state else {
                return Err(RequestError::NotRunning { service: name });
            };
            let Some(signal) = signal else {
                commanded.push(*id);
                continue;
            };
            if let Ok(Some(why)) = proc::deaf(main.pid, signal) {
                return Err(failed(why));
            }
            signals.push((*id, main.pid, signal));
        }
        for (id, pid, signal) in signals {
            failpoint::hit("reload.signal");
            // Not being stopped, so nothing follows from it.
            let _nothing = self.signal(id, pid, signal);
        }
        Ok((ids.to_vec(), commanded))
    }

    fn signal_services(&mut self, ids: &[Id], signal: i32) -> Result<Reply, RequestError> {
        for id in ids {
            let unit = self.manager.unit(*id);
            if !unit.is_active() || unit.state == State::Done {
                return Err(RequestError::NotRunning { service: self.manager.graph().name(*id).to_owned() });
            }
        }
        for id in ids {
            self.signal_all(*id, signal);
        }
        Ok(self.now_acted(ids))
    }

    pub(super) fn now_acted(&self, ids: &[Id]) -> Reply {
        Reply::Acted(ids.iter().map(|id| self.one_acted(*id, true)).collect())
    }

    fn one_acted(&self, id: Id, changed: bool) -> Acted {
        let unit = self.manager.unit(id);
        Acted {
            service: self.manager.graph().name(id).to_owned(),
            state: wire_state(&unit.state),
            changed,
            main_pid: unit.main().map(|main| main.pid),
        }
    }

    /// The reply to a request that is done.
    pub(super) fn acted(&self, outcome: Outcome) -> Reply {
        let (mut done, mut failures) = (Vec::new(), Vec::new());
        for (id, result) in outcome {
            match result {
                Ok(changed) => done.push(self.one_acted(id, changed)),
                Err(why) => failures.push(Failure { service: self.manager.graph().name(id).to_owned(), why }),
            }
        }
        if failures.is_empty() {
            Reply::Acted(done)
        } else {
            Reply::Error(RequestError::Failed { failures, done })
        }
    }

    fn list(&self) -> Vec<ServiceSummary> {
        let mut list: Vec<ServiceSummary> =
            self.manager.graph().ids().filter(|id| !self.is_gone(*id)).map(|id| self.summary(id)).collect();
        for (name, report) in &self.catalog.broken {
            list.push(broken_summary(name, report));
        }
        for path in &self.orphans {
            list.push(ServiceSummary {
                name: orphan_name(path).to_owned(),
                description: String::new(),
                state: Wire::Orphan,
                sub_state: None,
                boot: None,
                main_pid: None,
                uptime_usec: None,
            });
        }
        list.sort_by(|one, other| one.name.cmp(&other.name));
        let boot = self.boot_reasons();
        for summary in &mut list {
            summary.boot = boot.get(&summary.name).map(|reason| (*reason).to_owned());
        }
        list
    }

    fn summary(&self, id: Id) -> ServiceSummary {
        let unit = self.manager.unit(id);
        let service = self.manager.graph().service(id);
        ServiceSummary {
            name: service.name().to_owned(),
            description: service.description().to_owned(),
            state: self.shown_state(id),
            sub_state: self.sub_state(id),
            boot: None,
            main_pid: unit.main().map(|main| main.pid),
            uptime_usec: since(unit).map(|since| microseconds(now().saturating_sub(since))),
        }
    }

    /// Its state, and what it says of that: one that runs may be reloading.
    pub(super) fn shown_state(&self, id: Id) -> Wire {
        let reloading = self.runtime.get(&id).is_some_and(|runtime| runtime.said.reloading);
        let state = &self.manager.unit(id).state;
        if reloading && matches!(state, State::Running { .. }) { Wire::Reloading } else { wire_state(state) }
    }

    pub(super) fn sub_state(&self, id: Id) -> Option<String> {
        let unit = self.manager.unit(id);
        if unit.history.failing {
            Some("failing".to_owned())
        } else if matches!(unit.state, State::Running { .. })
            && self.runtime.get(&id).is_some_and(|runtime| runtime.said.stopping.is_some())
        {
            Some("stopping by itself".to_owned())
        } else if self.manager.is_blocked(id) {
            Some("blocked".to_owned())
        } else {
            None
        }
    }

    /// Answers with what there is to say of each, part by part: who asked reads one while the next is made, and no more of it
    /// is held here than was not taken yet.
    fn status(&mut self, connection: Token, names: &[String], brief: bool) -> Result<(), RequestError> {
        let names: Vec<String> = match names {
            [] => {
                let ids = self.manager.graph().ids().filter(|id| !self.is_gone(*id));
                let known = ids.map(|id| self.manager.graph().name(id));
                let broken = self.catalog.broken.keys().map(String::as_str);
                let orphans = self.orphans.iter().map(|path| orphan_name(path));
                let mut all: Vec<String> = known.chain(broken).chain(orphans).map(str::to_owned).collect();
                all.sort();
                all
            }
            names => names.to_vec(),
        };
        let named = names.iter().map(|name| self.find(name)).collect::<Result<Vec<Named>, _>>()?;
        let mut look = Look::new(names.len(), &self.paths.log, brief);
        let mut survey = self.survey(&named, &mut look);
        let (mut message, mut text) = (StatusText::default(), Vec::with_capacity(2 * PART_BYTES));
        self.policies.begin();
        let boot = self.boot_reasons();
        for (number, (name, named)) in names.iter().zip(named).enumerate() {
            let subject = self.asked_about(&named, &mut look);
            let sample = survey.read(number, &subject);
            let mut status = self.status_of_named(name, &named, &mut look, &sample);
            status.boot = boot.get(name).map(|reason| (*reason).to_owned());
            message.service(&status, &mut text);
            if text.len() >= PART_BYTES {
                self.server.reply_part(connection, &text, false, now());
                text.clear();
            }
        }
        drop(survey);
        self.policies.end();
        message.end(&mut text);
        self.server.reply_part(connection, &text, true, now());
        if names.len() > LONG {
            self.rest.want();
        }
        Ok(())
    }

    /// Begins to read what the kernel says of these.
    fn survey(&mut self, named: &[Named], look: &mut Look) -> Survey {
        for named in named {
            if let Named::Service(id) = named
                && self.manager.unit(*id).is_active()
            {
                self.cgroup(*id);
            }
        }
        Survey::new(named.iter().map(|named| self.asked_about(named, look)))
    }

    /// What the kernel is asked about one.
    fn asked_about(&self, named: &Named, look: &mut Look) -> Subject<'_> {
        let Named::Service(id) = named else { return Subject::default() };
        let unit = self.manager.unit(*id);
        let cgroup = self.runtime.get(id).and_then(|runtime| runtime.cgroup.as_ref());
        let cgroup = cgroup.filter(|_| unit.is_active());
        let subject = Subject::new(unit.main().map(|main| main.pid), cgroup, &mut look.enabled);
        if look.cgroups == Cgroups::Shown { subject.with_shown_cgroup() } else { subject }
    }

    fn status_of_named(
        &mut self,
        name: &str,
        named: &Named,
        look: &mut Look,
        sample: &Sample<'_>,
    ) -> ServiceStatus {
        match named {
            Named::Service(id) => self.status_of(*id, look, sample),
            Named::Broken => {
                let words = self.catalog.broken.get(name).map(brief).unwrap_or_default();
                bare_status(name, Wire::Failed, Some("not loaded".to_owned()), words)
            }
            Named::Unmade => bare_status(name, Wire::Stopped, None, "never started".to_owned()),
            Named::Orphan => {
                let words = "its cgroup has processes, and no file describes it".to_owned();
                bare_status(name, Wire::Orphan, None, words)
            }
        }
    }

    fn status_of(&mut self, id: Id, look: &mut Look, sample: &Sample<'_>) -> ServiceStatus {
        let (runs, is_active) = (self.manager.unit(id).main().is_some(), self.manager.unit(id).is_active());
        let plan = if runs { self.plan_in_force(id) } else { None };
        let policy_in_force = if runs { self.policy_in_force(id) } else { None };
        let landlock = plan.as_ref().and_then(|plan| LandlockApplied::of(plan));
        let cgroup = is_active.then(|| self.cgroup(id)).flatten();
        let figures =
            cgroup.map(|cgroup| cgroup::Figures::from_sample(cgroup, sample, &mut look.enabled).into());
        let cgroup = cgroup.map(|cgroup| cgroup.path().display().to_string());
        let (service, unit) = (self.manager.graph().service(id), self.manager.unit(id));
        let name = service.name().to_owned();
        let waits = matches!(unit.state, State::Waiting | State::Expecting { .. });
        let obstacle = if waits { self.manager.waits_for(id) } else { None };
        let words = obstacle.unwrap_or_else(|| unit.cause.words.clone());
        let request = unit.cause.request.map(|who| protocol::Requester { uid: who.uid, pid: who.pid });
        ServiceStatus {
            description: service.description().to_owned(),
            state: self.shown_state(id),
            sub_state: self.sub_state(id),
            cause: protocol::Cause { words, request },
            boot: None,
            health: self.health_words(id),
            pressure: self.pressure_words(id),
            says: self.runtime.get(&id).and_then(|runtime| runtime.said.words()),
            main_pid: unit.main().map(|main| main.pid),
            since_boottime_usec: since(unit).map(microseconds),
            uptime_usec: since(unit).map(|since| microseconds(now().saturating_sub(since))),
            standby: self.standby_status(id),
            restarts: unit.history.total,
            last_exit: unit.last_exit.as_ref().map(wire_exit),
            policy: service.program().map(|program| program.policy.value.clone()).unwrap_or_default(),
            policy_in_force,
            left_out: plan.iter().flat_map(|plan| plan.left_out()).map(LeftOut::from).collect(),
            cgroup,
            figures,
            isolation: unit.main().map(|main| {
                let told = || self.runtime.get(&id)?.own_cgroup_of(main.pid);
                let is_in = match look.cgroups {
                    Cgroups::Told => told().map_or(Whereabouts::Asked, Whereabouts::In),
                    Cgroups::Shown => Whereabouts::Asked,
                    Cgroups::Unasked => Whereabouts::Unasked,
                };
                let isolation = Isolation::attested(main.pid, sample, is_in, landlock, &look.witness);
                let owner = service.network_of().and_then(|owner| Some((owner, self.main_of(owner)?)));
                match owner {
                    Some((owner, pid)) => isolation.compared_with(owner, pid),
                    None => isolation,
                }
            }),
            dropped_lines: self.dropped_lines(id),
            sockets: self.socket_status(id),
            timers: self.timer_status(Some(id)),
            log: if service.is_group() || !look.may_have_log(&name) {
                vec![]
            } else {
                log::tail(&self.paths.log.join(&name), LINES)
            },
            name,
        }
    }
}

/// How people see a state.
pub(super) fn state_name(state: &State) -> &'static str {
    wire_state(state).name()
}

pub(super) fn wire_state(state: &State) -> Wire {
    match state {
        State::Stopped => Wire::Stopped,
        State::Waiting | State::Expecting { .. } => Wire::Waiting,
        State::Preparing { .. }
        | State::Launching
        | State::Starting { .. }
        | State::Forked { .. }
        | State::Settling { .. } => Wire::Starting,
        State::Running { .. } => Wire::Running,
        State::Done => Wire::Done,
        State::Stopping { .. } | State::Cleaning { .. } => Wire::Stopping,
        State::Backoff { .. } => Wire::Backoff,
        State::Failed => Wire::Failed,
        State::Orphan => Wire::Orphan,
    }
}

pub(super) fn wire_exit(exit: &Exit) -> LastExit {
    LastExit {
        how: match exit.how {
            ExitHow::Exited => WireHow::Exited,
            ExitHow::Killed => WireHow::Killed,
            ExitHow::Dumped => WireHow::Dumped,
            ExitHow::OutOfMemory { .. } => WireHow::OutOfMemory,
        },
        status: exit.status,
        boottime_usec: Some(microseconds(exit.at)),
    }
}

pub(super) fn wire_cause(cause: &Cause) -> protocol::Cause {
    let request = cause.request.map(|who| protocol::Requester { uid: who.uid, pid: who.pid });
    protocol::Cause { words: cause.words.clone(), request }
}

/// When it came into its state; `None` for one that never left its first.
pub(super) fn since(unit: &Unit) -> Option<Duration> {
    (unit.since > Duration::ZERO).then_some(unit.since)
}

pub(super) fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// `web` of `web.slice/web.service`.
fn orphan_name(path: &str) -> &str {
    let last = path.rsplit('/').next().unwrap_or(path);
    last.strip_suffix(".service").unwrap_or(last)
}

/// The errors of a report, one a line.
pub(super) fn brief(report: &Report) -> String {
    let lines: Vec<String> = report
        .diagnostics
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .map(|problem| match &problem.at {
            Some(at) => format!("{}: {}", report.sources.locate(at), problem.message),
            None => problem.message.clone(),
        })
        .collect();
    lines.join("\n")
}

fn broken_summary(name: &str, report: &Report) -> ServiceSummary {
    ServiceSummary {
        name: name.to_owned(),
        description: brief(report).lines().next().unwrap_or_default().to_owned(),
        state: Wire::Failed,
        sub_state: Some("not loaded".to_owned()),
        boot: None,
        main_pid: None,
        uptime_usec: None,
    }
}

/// For what no file describes.
fn bare_status(name: &str, state: Wire, sub_state: Option<String>, words: String) -> ServiceStatus {
    ServiceStatus {
        name: name.to_owned(),
        description: String::new(),
        state,
        sub_state,
        cause: protocol::Cause { words, request: None },
        boot: None,
        says: None,
        health: vec![],
        pressure: vec![],
        main_pid: None,
        since_boottime_usec: None,
        uptime_usec: None,
        standby: None,
        restarts: 0,
        last_exit: None,
        policy: String::new(),
        policy_in_force: None,
        left_out: vec![],
        cgroup: None,
        figures: None,
        isolation: None,
        log: vec![],
        dropped_lines: 0,
        sockets: vec![],
        timers: vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_service_without_a_folder_has_no_log() {
        let scratch = Scratch::new();
        let folder = scratch.path().join("log");
        let of = |services, name| Look::new(services, &folder, false).may_have_log(name);
        assert_eq!([of(LONG + 1, "db"), of(LONG, "db")], [false, true], "there is no such folder");
        fs::create_dir_all(folder.join("web")).unwrap();
        assert_eq!([of(LONG + 1, "web"), of(LONG + 1, "db"), of(LONG, "db")], [true, false, true]);
        fs::remove_dir_all(&folder).unwrap();
        fs::write(&folder, "").unwrap();
        assert!(of(LONG + 1, "db"), "who cannot know looks for each");
    }
}
