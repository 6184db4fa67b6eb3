//! All services and their dependencies: requests and events in, effects out. Pure, like the services it is made of.
//!
//! A request only moves *goals*; [`Manager::settle`] then gives every service whose turn has come its next event, until
//! nothing moves. A turn that makes or ends a process is only announced, and decided when that is executed
//! (`confirm.rs`). So nothing is queued that could be lost or could come too late: what is still to be done follows, at
//! any time and also after a restart of motherd, from the goals and the states alone. Only those are looked at whose
//! turn may have come: who changed, and who is joined to them by a relation.
//!
//! ```text
//!             request, timer, exit, ...                      execute
//!                      │                                        ▲ Yes
//!                      ▼                                        │
//!  goals, states ──► settle ──► Turn, Act, Reply, End ──► confirm ──► settle ──► what comes of the turn, first
//!      ▲                                                                              │
//!      └───────────────────────── events of what was executed ◄───────────────────────┘
//! ```
//!
//! When may a service start? When all that it requires is up; when all that it wants, or comes after, is not *on its
//! way* any more; and when nothing that conflicts with it is there. When may it stop? When whoever comes later than it
//! and is to stop as well has stopped. Both relations follow edges of a graph without cycles, so some service can always
//! move.
//!
//! A goal is up because somebody asked for the service by name, or because somebody whose goal is up has it started.
//! When the last of these reasons goes, the goal is down: what nobody needs stops.
//!
//! What each relation does is the table in `docs/services.md`; `table.rs` tests it cell by cell.

mod conditions;
mod confirm;
mod fate;
mod goals;
mod requests;
mod skip;
mod standby;
mod why;

use std::{collections::BTreeSet, time::Duration};

use self::{
    conditions::Met,
    fate::{Fate, Turn},
    requests::Pending,
};
use crate::{
    fault::{self, Fault},
    fnv::fnv,
    graph::{Graph, Id},
    service::{Service, Start},
    supervise::{
        Act, Cause, Command, Commands, Event, Goal, Rules, Stage, Standby, StandbyEvent, State, Unit,
    },
};

pub use self::{
    confirm::Confirmed,
    requests::{Outcome, Verb},
    why::{Coming, Hindrance, Pull, Reasons, Root},
};

/// Beyond the longest stop timeout, what ending everything may take before the machine ends with whatever is left: 15 s.
const ENDING_GRACE: Duration = Duration::from_secs(15);

/// Why nothing starts in safe mode.
const HELD: &str = "motherd is in safe mode and starts nothing, because it died early again and again; \
                    once the cause is mended, kill -9 of it ends that, and no service notices";

/// What became of a launch that was decided and not done.
const ENDED_MEANWHILE: &str = "motherd ended while it was being launched";

/// How the machine is to end.
pub use initldr::link::End;

/// What is to be done. Each is [confirmed](Manager::confirm) and executed in order, after the state was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The turn of a service has come, to start or to end. Whether it still has is found out when this is executed.
    Turn(Id),
    /// Something for one service.
    Service(Id, Act),
    /// A request is done. What is said of it is found out when this is executed.
    Answer {
        /// The token it came with.
        token: u64,
    },
    /// What is said.
    Reply {
        /// The token it came with.
        token: u64,
        /// What became of each service it named.
        outcome: Outcome,
    },
    /// Everything is down (or the time for it is over): end the machine.
    End {
        /// In this way.
        how: End,
        /// What would not end.
        left: Vec<Id>,
    },
}

impl Effect {
    /// Whether it may be done while a child of this service is on its way to execve: to look at a service, and to launch another
    /// one.
    pub(crate) fn may_overlap(&self, flying: Id) -> bool {
        match self {
            Self::Turn(_) => true,
            Self::Service(id, Act::Look | Act::Launch) => *id != flying,
            Self::Service(..) | Self::Answer { .. } | Self::Reply { .. } | Self::End { .. } => false,
        }
    }
}

/// The machine is on its way down.
#[derive(Debug, Clone, Copy)]
enum Ending {
    /// Services are being stopped; at the deadline it ends with whatever is left.
    Stopping { how: End, deadline: Duration },
    /// [`Effect::End`] was given.
    Ended { how: End },
}

/// All services.
#[derive(Debug, Default)]
pub struct Manager {
    graph: Graph,
    units: Vec<Unit>,
    /// Which conditions hold, as far as that is looked at.
    met: Vec<Met>,
    /// What follows from the states and goals of all, kept up to date by [`Manager::settle`].
    fates: Vec<Fate>,
    /// Who changed since the fates were last found out.
    dirty: BTreeSet<Id>,
    /// Whose turn was announced and not executed.
    due: BTreeSet<Id>,
    deadlines: Deadlines,
    pending: Vec<Pending>,
    ending: Option<Ending>,
    /// Whose end the end of the machine does not wait for any more.
    abandoned: BTreeSet<Id>,
    /// Nothing is started.
    held: bool,
    /// Of whom no record tells whether they are up: nobody is stopped on their account.
    unrecorded: BTreeSet<Id>,
    touched: BTreeSet<Id>,
    /// Places of services that nobody describes and of which nothing is known any more.
    free: BTreeSet<Id>,
    /// Everybody is looked at for every event: what the short way is compared with.
    #[cfg(test)]
    naive: bool,
}

/// Who waits until when, earliest first.
#[derive(Debug, Default)]
struct Deadlines {
    sorted: BTreeSet<(Duration, Id)>,
    of: Vec<Option<Duration>>,
}

impl Deadlines {
    fn set(&mut self, id: Id, deadline: Option<Duration>) {
        if let Some(old) = self.of[id.0].filter(|_| !fault::on(Fault::KeepsATimer)) {
            self.sorted.remove(&(old, id));
        }
        if let Some(new) = deadline.filter(|_| !fault::on(Fault::LosesATimer)) {
            self.sorted.insert((new, id));
        }
        self.of[id.0] = deadline;
    }
}

impl Manager {
    /// Nothing started.
    #[must_use]
    pub fn new(graph: Graph) -> Self {
        let mut manager = Self::default();
        manager.grow(graph);
        manager
    }

    /// Nothing started, and everybody is looked at for every event.
    #[cfg(test)]
    pub(crate) fn naive(graph: Graph) -> Self {
        Self { naive: true, ..Self::new(graph) }
    }

    /// Takes a later graph, in the ids of the one that is there ([`Graph::following`]).
    pub fn grow(&mut self, graph: Graph) {
        let first = self.graph.is_empty();
        let runs = |id| self.unit(id).is_active();
        let graph = if first { graph } else { graph.following(&self.graph, &self.free, runs) };
        self.free.retain(|id| graph.is_retired(*id));
        self.units.resize_with(graph.len(), Unit::default);
        self.fates.resize_with(graph.len(), Fate::default);
        self.met.resize_with(graph.len(), Met::default);
        self.deadlines.of.resize(graph.len(), None);
        self.graph = graph;
        self.dirty.extend(self.graph.ids());
    }

    /// Another generation of files. What runs goes on as it is, under the relations of the new one; what it requires now
    /// is started, nothing is stopped that was not asked for. A service that no file describes any more and that does not
    /// run is not meant to be up any more.
    #[must_use]
    pub fn reload(&mut self, graph: Graph, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        let before = self.graph.clone();
        self.grow(graph);
        for id in before.ids() {
            // What waits would be started as its file was.
            let same = self.graph.service(id).says_the_same_as(before.service(id));
            if !self.unit(id).is_active() && !same {
                self.step(id, Event::Standby(StandbyEvent::End), now, &mut effects);
            }
        }
        self.look_again(now, &mut effects);
        self.relate_anew(now, &mut effects);
        effects
    }

    /// A motherd before this one decided by other relations, which its files had: what runs goes on, as in a
    /// [reload](Self::reload).
    #[must_use]
    pub fn related_otherwise(&mut self, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.relate_anew(now, &mut effects);
        effects
    }

    /// What is up and nobody keeps any more stays, and what it requires now is started.
    fn relate_anew(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        for id in self.graph.ids() {
            let keeps = |keeper: &Id| self.unit(*keeper).goal != Goal::Down;
            let (unit, edges) = (self.unit(id), self.graph.edges(id));
            if unit.goal == Goal::Down {
                continue;
            }
            if self.graph.is_retired(id) && !unit.is_active() {
                self.set_goal(id, Goal::Down, &Cause::new("no file describes it any more"));
            } else if !unit.explicit && !edges.kept_by.iter().any(keeps) {
                self.units[id.0].explicit = true;
                self.changed(id);
            }
        }
        for id in self.graph.ids() {
            if self.unit(id).goal == Goal::Up {
                self.pull(id, now, effects);
            }
        }
        self.settle(now, effects);
    }

    /// From now on nothing is started.
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// Whether nothing is started.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// The services and their dependencies.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// One service.
    #[must_use]
    pub fn unit(&self, id: Id) -> &Unit {
        &self.units[id.0]
    }

    /// How the machine ends, if it does.
    #[must_use]
    pub fn ending(&self) -> Option<End> {
        self.ending.map(|ending| match ending {
            Ending::Stopping { how, .. } | Ending::Ended { how } => how,
        })
    }

    /// When the machine ends with whatever is left, if it is on its way there.
    #[must_use]
    pub fn ending_deadline(&self) -> Option<Duration> {
        match self.ending? {
            Ending::Stopping { deadline, .. } => Some(deadline),
            Ending::Ended { .. } => None,
        }
    }

    /// The services whose record changed since the last call.
    #[must_use]
    pub fn take_touched(&mut self) -> BTreeSet<Id> {
        std::mem::take(&mut self.touched)
    }

    /// When [`Manager::tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let ending = self.ending.iter().filter_map(|ending| match ending {
            Ending::Stopping { deadline, .. } => Some(*deadline),
            Ending::Ended { .. } => None,
        });
        self.deadlines.sorted.first().map(|(deadline, _)| *deadline).into_iter().chain(ending).min()
    }

    /// What the record of a service said before motherd was restarted. Nothing follows from it before [`Manager::resume`].
    pub fn restore(&mut self, id: Id, mut unit: Unit) {
        // It has ended with the motherd that made it.
        unit.standby = Standby::None;
        // Its file may have been changed meanwhile: what is up when its program runs has no more to wait for.
        let exec = self.rules(id).is_none_or(|rules| rules.start == Start::Exec);
        if let (State::Starting { main, .. }, true) = (&unit.state, exec) {
            unit.state = State::Running { main: *main };
        }
        self.units[id.0] = unit;
        self.changed(id);
    }

    /// A service's cgroup has processes, and there is no record of them.
    pub fn orphan(&mut self, id: Id, goal: Goal, now: Duration) {
        let unit = &mut self.units[id.0];
        unit.state = State::Orphan;
        unit.goal = goal;
        unit.explicit &= goal == Goal::Up;
        unit.since = now;
        unit.cause = Cause::new("its cgroup has processes that no record knows; stop it to end them");
        self.changed(id);
    }

    /// No record tells of this service what the motherd before this one knew, and no main process of it is known: it may
    /// be up (a finished one-shot has no process, nor has a group), or never have been. As long as nothing happens to it
    /// that tells, who runs and depends on it runs on, and what was started for it alone stays.
    pub fn unrecorded(&mut self, id: Id) {
        self.unrecorded.insert(id);
        self.dirty.insert(id);
    }

    /// Whether the record of a service is to say what is known of it here. In safe mode one may tell more that is not
    /// believed: where a service is meant to be of which nothing or no main process runs, and how its end is to be judged.
    #[must_use]
    pub fn is_to_be_recorded(&self, id: Id) -> bool {
        !self.held || !self.unrecorded.contains(&id)
    }

    /// What was decided before motherd was restarted and may not have been done is done (again).
    #[must_use]
    pub fn resume(&mut self, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        for id in self.graph.ids() {
            let act = |act| Effect::Service(id, act);
            match self.units[id.0].state {
                State::Launching if fault::on(Fault::ForgetsALaunch) => {}
                State::Launching => {
                    let why = ENDED_MEANWHILE.to_owned();
                    self.step(id, Event::LaunchFailed { why, permanent: false }, now, &mut effects);
                }
                // The first that would have been made of it: whether it may start is asked anew.
                State::Preparing { command: Command { index: 0, process: None, .. } } => {
                    let why = ENDED_MEANWHILE.to_owned();
                    self.step(id, Event::CommandFailed { why, permanent: false }, now, &mut effects);
                }
                State::Preparing { command }
                | State::Settling { command, .. }
                | State::Cleaning { command, .. }
                | State::Stopping { stage: Stage::Asking { command }, .. } => {
                    // One that was made is waited for; of the others nothing ever ran.
                    let Command { hook, index, process, overdue, .. } = command;
                    effects.extend(match process {
                        None => Some(act(Act::Run { hook, index })),
                        Some(process) => overdue.then_some(act(Act::KillCommand { pid: process.pid })),
                    });
                }
                State::Forked { .. } => effects.push(act(Act::FindMain)),
                State::Expecting { .. } => effects.push(act(Act::Look)),
                State::Stopping { main, stage, .. } => {
                    match (stage, main, self.rules(id)) {
                        (Stage::Signalled { .. }, Some(main), Some(rules)) => {
                            effects.push(act(Act::Signal { pid: main.pid, signal: rules.stop_signal }));
                        }
                        (Stage::Asking { .. } | Stage::Signalled { .. }, _, _) => {}
                        (Stage::Killed { .. }, _, _) => effects.push(act(Act::Kill)),
                    }
                    if main.is_none() {
                        effects.push(act(Act::Sweep));
                    }
                }
                State::Stopped
                | State::Waiting
                | State::Starting { .. }
                | State::Running { .. }
                | State::Done
                | State::Backoff { .. }
                | State::Failed
                | State::Orphan => {}
            }
        }
        self.settle(now, &mut effects);
        effects
    }

    /// Starts a service and what it needs and wants, for a reason that is no request.
    #[must_use]
    pub fn boot(&mut self, id: Id, cause: &Cause, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.want(id, cause, now, &mut effects);
        self.settle(now, &mut effects);
        effects
    }

    /// Restarts services, and who needs them, for a reason that is no request.
    #[must_use]
    pub fn restart(&mut self, ids: &[Id], cause: &Cause, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        for id in ids {
            self.bounce(*id, cause, now, &mut effects);
        }
        self.settle(now, &mut effects);
        effects
    }

    /// Another service takes its name, or nobody does: what it was, and how it ended, is told of no other. To be called
    /// when nothing else knows its id, or with `reusable` false: where no file describes it, another service may have that
    /// from then on.
    pub fn reset(&mut self, id: Id, reusable: bool) {
        if !matches!(self.units[id.0].state, State::Stopped | State::Failed) {
            return;
        }
        if self.units[id.0].goal != Goal::Down {
            self.unwant(id, &Cause::new("another service takes its name"));
        }
        self.units[id.0] = Unit::default();
        self.met[id.0] = Met::default();
        self.deadlines.set(id, None);
        self.due.remove(&id);
        self.unrecorded.remove(&id);
        self.dirty.insert(id);
        if reusable && self.graph.is_retired(id) && !self.pending.iter().any(|request| request.is_about(id)) {
            self.free.insert(id);
        }
    }

    /// Something happened to a service.
    #[must_use]
    pub fn event(&mut self, id: Id, event: Event, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.step(id, event, now, &mut effects);
        self.settle(now, &mut effects);
        effects
    }

    /// The clock reached [`Manager::next_deadline`].
    #[must_use]
    pub fn tick(&mut self, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        let due: Vec<Id> =
            self.deadlines.sorted.iter().take_while(|(at, _)| now >= *at).map(|(_, id)| *id).collect();
        for id in due {
            self.step(id, Event::Timer, now, &mut effects);
        }
        self.settle(now, &mut effects);
        effects
    }

    /// Everything down in reverse order, then the machine. The first call wins.
    #[must_use]
    pub fn end(&mut self, how: End, cause: &Cause, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.ending.is_none() {
            let longest =
                self.graph.services().iter().filter_map(rules_of).map(|rules| rules.longest_stop()).max();
            let deadline = now.saturating_add(longest.unwrap_or_default()).saturating_add(ENDING_GRACE);
            self.ending = Some(Ending::Stopping { how, deadline });
            for id in self.graph.ids() {
                // An orphan is nobody's to end but the machine's.
                if self.units[id.0].state != State::Orphan {
                    self.set_goal(id, Goal::Down, cause);
                }
            }
        }
        self.settle(now, &mut effects);
        effects
    }

    /// What its file says, as it was started by it; `None` for a group.
    fn rules(&self, id: Id) -> Option<Rules> {
        rules_of(self.graph.service(id))
    }

    fn step(&mut self, id: Id, event: Event, now: Duration, effects: &mut Vec<Effect>) {
        let before = self.units[id.0].clone();
        let rules = self.rules(id);
        let acts = self.units[id.0].step(rules.as_ref(), event, now);
        effects.extend(acts.into_iter().map(|act| Effect::Service(id, act)));
        let unit = &self.units[id.0];
        if *unit == before {
            return;
        }
        if !unit.is_active() {
            self.graph.renew(id);
        }
        if !unit.is_active() && !matches!(unit.state, State::Expecting { .. }) {
            self.met[id.0] = Met::default();
        }
        let unit = &self.units[id.0];
        let told = unit.is_up() || unit.state == State::Failed;
        if told || before.state == State::Orphan && !self.held {
            self.unrecorded.remove(&id);
        }
        // By itself, and for good.
        let ended = before.goal != Goal::Down && unit.goal == Goal::Down;
        let again = matches!(before.state, State::Backoff { .. }) && unit.state == State::Waiting;
        self.changed(id);
        if ended {
            let unit = &mut self.units[id.0];
            unit.explicit = false;
            unit.asked = unit.cause.clone();
            self.release(vec![id]);
        } else if again {
            self.pull(id, now, effects);
        }
    }

    fn set_goal(&mut self, id: Id, goal: Goal, cause: &Cause) {
        let unit = &mut self.units[id.0];
        unit.goal = goal;
        unit.asked = cause.clone();
        unit.explicit &= goal != Goal::Down;
        self.changed(id);
    }

    /// To be called after every change of a unit.
    fn changed(&mut self, id: Id) {
        if !fault::on(Fault::RecordsLate) || !self.units[id.0].is_active() {
            self.touched.insert(id);
        }
        self.dirty.insert(id);
        self.deadlines.set(id, self.units[id.0].deadline());
    }

    /// Gives every service whose turn has come its event, until nothing moves; a turn that has acts is announced. Ends,
    /// because along the graph each pass brings some service nearer to its goal and none away from it. All decisions of a
    /// pass rest on the same picture, so they cannot contradict each other.
    fn settle(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        loop {
            let candidates = self.look();
            let turns: Vec<(Id, Turn)> =
                candidates.into_iter().filter_map(|id| Some((id, self.turn(id)?))).collect();
            let mut moved = false;
            for (id, turn) in turns {
                if !self.has_acts(id, &turn) {
                    self.take(id, turn, now, effects);
                    moved = true;
                } else if self.due.insert(id) {
                    effects.push(Effect::Turn(id));
                }
            }
            if !moved {
                break;
            }
        }
        self.answer(effects);
        self.finish(now, effects);
    }

    /// Ends the machine when nothing is left, or when the time for that is over.
    fn finish(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let Some(Ending::Stopping { how, deadline }) = self.ending else { return };
        let left: Vec<Id> = self
            .graph
            .ids()
            .filter(|id| self.units[id.0].is_active() && self.units[id.0].state != State::Orphan)
            .collect();
        if left.iter().all(|id| self.abandoned.contains(id)) || now >= deadline {
            self.ending = Some(Ending::Ended { how });
            effects.push(Effect::End { how, left });
        }
    }
}

fn rules_of(service: &Service) -> Option<Rules> {
    service.program().map(|program| Rules {
        start: program.start,
        start_timeout: program.start_timeout,
        remain: program.remain,
        standby: program.standby,
        commands: Commands {
            pre: count(&program.commands.pre),
            post: count(&program.commands.post),
            stop: count(&program.commands.stop),
            stop_post: count(&program.commands.stop_post),
        },
        stop_signal: program.stop_signal,
        stop_timeout: program.stop_timeout,
        restart: *program.restart,
        seed: fnv(service.name().as_bytes()),
    })
}

/// A file of 65,535 commands is longer than any that is read.
fn count<T>(commands: &[T]) -> u16 {
    u16::try_from(commands.len()).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
