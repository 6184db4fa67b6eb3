//! All services and their dependencies: requests and events in, effects out. Pure, like the services it is made of.
//!
//! A request only moves *goals*; [`Manager::settle`] then gives every service whose turn has come its next event, until
//! nothing moves. So nothing is queued that could be lost: what is still to be done follows, at any time and also after
//! a restart of motherd, from the goals and the states alone.
//!
//! When may a service start? When all that it needs is up; when all that it wants, or comes after, is not *on its way*
//! any more; and when nothing that conflicts with it is there. When may it stop? When whoever comes later than it and is
//! to stop as well has stopped. Both relations follow edges of a graph without cycles, so some service can always move.
//!
//! What a need's fate does to a service `X` that needs `D`:
//!
//! | `D` | `X` |
//! | --- | --- |
//! | crashes and is tried again | runs on |
//! | fails for good, or ends by itself for good | stops, waits, and starts again when `D` is up again |
//! | is stopped by a request | is stopped first, and stays down |
//! | is restarted by a request | is stopped first, and starts again after it |

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use crate::{
    graph::{Graph, Id},
    service::Service,
    supervise::{Act, Cause, Event, Goal, Requester, Rules, Stage, State, Then, Unit},
};

/// Beyond the longest stop timeout, what ending everything may take before the machine ends with whatever is left: 15 s.
const ENDING_GRACE: Duration = Duration::from_secs(15);

/// How the machine is to end.
pub use initldr::link::End;

/// What somebody asks for some services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Start them and what they need and want.
    Start,
    /// Stop them, and first what needs them.
    Stop,
    /// Both, in this order.
    Restart,
}

/// For each service of a request whether anything changed, or why it did not come to pass.
pub type Outcome = Vec<(Id, Result<bool, String>)>;

/// What is to be done. Executed in order, after the state was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Something for one service.
    Service(Id, Act),
    /// A request is done.
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

/// A request that waits for its services.
#[derive(Debug)]
struct Pending {
    token: u64,
    verb: Verb,
    services: Vec<(Id, bool)>,
}

/// The machine is on its way down.
#[derive(Debug, Clone, Copy)]
enum Ending {
    /// Services are being stopped; at the deadline it ends with whatever is left.
    Stopping { how: End, deadline: Duration },
    /// [`Effect::End`] was given.
    Ended { how: End },
}

/// What follows for one service from the goals and states of all. Made anew for each pass of [`Manager::settle`], so
/// that all decisions of a pass rest on the same picture and cannot contradict each other.
#[derive(Debug, Clone, Copy, Default)]
struct Fate {
    /// The need through which it cannot stay up: one that is down for good.
    doom: Option<Id>,
    /// Why it will not start by itself: a need that is neither up nor on its way, or an orphan that conflicts.
    blocker: Option<Id>,
    /// It will be up, or will have failed, without anybody's doing.
    on_its_way: bool,
}

/// All services.
#[derive(Debug, Default)]
pub struct Manager {
    graph: Graph,
    units: Vec<Unit>,
    rules: Vec<Option<Rules>>,
    pending: Vec<Pending>,
    ending: Option<Ending>,
    touched: BTreeSet<Id>,
}

impl Manager {
    /// Nothing started.
    #[must_use]
    pub fn new(graph: Graph) -> Self {
        let mut manager = Self::default();
        manager.grow(graph);
        manager
    }

    /// Takes a graph that begins with the services that are there and has more.
    pub fn grow(&mut self, graph: Graph) {
        self.rules = graph.services().iter().map(rules_of).collect();
        self.units.resize_with(graph.len(), Unit::default);
        self.graph = graph;
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
        self.units.iter().filter_map(Unit::deadline).chain(ending).min()
    }

    /// What the record of a service said before motherd was restarted. Nothing follows from it before [`Manager::resume`].
    pub fn restore(&mut self, id: Id, unit: Unit) {
        self.units[id.0] = unit;
        self.touched.insert(id);
    }

    /// A service's cgroup has processes, and there is no record of them.
    pub fn orphan(&mut self, id: Id, now: Duration) {
        let unit = &mut self.units[id.0];
        unit.state = State::Orphan;
        unit.goal = Goal::Down;
        unit.since = now;
        unit.cause = Cause::new("its cgroup has processes that no record knows; stop it to end them");
        self.touched.insert(id);
    }

    /// What was decided before motherd was restarted and may not have been done is done (again).
    #[must_use]
    pub fn resume(&mut self, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        for id in self.graph.ids() {
            let act = |act| Effect::Service(id, act);
            match self.units[id.0].state {
                State::Launching => {
                    let why = "motherd ended while it was being launched".to_owned();
                    self.step(id, Event::LaunchFailed { why, permanent: false }, now, &mut effects);
                }
                State::Stopping { main, stage, .. } => {
                    match (stage, main, self.rules[id.0]) {
                        (Stage::Signalled { .. }, Some(main), Some(rules)) => {
                            effects.push(act(Act::Signal { pid: main.pid, signal: rules.stop_signal }));
                        }
                        (Stage::Signalled { .. }, _, _) => {}
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

    /// Somebody's request; [`Effect::Reply`] with this token follows, now or later.
    #[must_use]
    pub fn request(
        &mut self,
        token: u64,
        verb: Verb,
        ids: &[Id],
        who: Requester,
        now: Duration,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut services = Vec::new();
        for id in ids {
            let unit = &self.units[id.0];
            let changed = match verb {
                Verb::Start => !unit.is_up() || unit.goal != Goal::Up,
                Verb::Stop => unit.state != State::Stopped || unit.goal != Goal::Down,
                Verb::Restart => true,
            };
            services.push((*id, changed));
            match verb {
                Verb::Start => self.want(*id, &Cause::request("started", who), now, &mut effects),
                Verb::Stop => {
                    let cause = Cause::request("stopped", who);
                    self.unwant(*id, &cause);
                    if self.units[id.0].state == State::Orphan {
                        self.step(*id, Event::Stop(cause), now, &mut effects);
                    }
                }
                Verb::Restart => self.bounce(*id, &Cause::request("restarted", who), now, &mut effects),
            }
        }
        self.pending.push(Pending { token, verb, services });
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
        for id in self.graph.ids() {
            if self.units[id.0].deadline().is_some_and(|deadline| now >= deadline) {
                self.step(id, Event::Timer, now, &mut effects);
            }
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
                self.rules.iter().flatten().map(|rules| rules.stop_timeout).max().unwrap_or_default();
            let deadline = now.saturating_add(longest).saturating_add(ENDING_GRACE);
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

    /// Whether a service waits for something that will not come by itself.
    #[must_use]
    pub fn is_blocked(&self, id: Id) -> bool {
        self.units[id.0].state == State::Waiting && self.fates()[id.0].blocker.is_some()
    }

    /// What a waiting service waits for, for people.
    #[must_use]
    pub fn waits_for(&self, id: Id) -> Option<String> {
        self.obstacle(id, &self.fates())
    }

    fn obstacle(&self, id: Id, fates: &[Fate]) -> Option<String> {
        let edges = self.graph.edges(id);
        let name = |id: &Id| self.graph.name(*id);
        if let Some(other) = &fates[id.0].blocker {
            let verb = if edges.needs.contains(other) { "needs" } else { "conflicts with" };
            return Some(format!("blocked: it {verb} {}, which is {}", name(other), self.phrase(*other)));
        }
        if let Some(need) = edges.needs.iter().find(|need| !self.units[need.0].is_up()) {
            return Some(format!("waits for {}, which it needs", name(need)));
        }
        if let Some(other) = edges.wants.iter().chain(&edges.after).find(|other| fates[other.0].on_its_way) {
            return Some(format!("waits for {}, which comes before it", name(other)));
        }
        let conflict = edges.conflicts.iter().find(|other| self.units[other.0].is_active());
        conflict.map(|other| format!("waits until {} is down, which conflicts with it", name(other)))
    }

    fn phrase(&self, id: Id) -> &'static str {
        match self.units[id.0].state {
            State::Stopped => "stopped",
            State::Waiting => "blocked itself",
            State::Launching | State::Starting { .. } => "starting",
            State::Running { .. } | State::Done => "up",
            State::Stopping { then: Then::Fail, .. } => "failed",
            State::Stopping { then: Then::Restart { .. }, .. } => "waiting for its next try",
            State::Stopping { then: Then::Settle | Then::Done, .. } => "stopping",
            State::Backoff { .. } => "waiting for its next try",
            State::Failed => "failed",
            State::Orphan => "running without a record",
        }
    }

    fn step(&mut self, id: Id, event: Event, now: Duration, effects: &mut Vec<Effect>) {
        let before = self.units[id.0].clone();
        let acts = self.units[id.0].step(self.rules[id.0].as_ref(), event, now);
        effects.extend(acts.into_iter().map(|act| Effect::Service(id, act)));
        if self.units[id.0] != before {
            self.touched.insert(id);
        }
    }

    fn set_goal(&mut self, id: Id, goal: Goal, cause: &Cause) {
        let unit = &mut self.units[id.0];
        unit.goal = goal;
        unit.asked = cause.clone();
        self.touched.insert(id);
    }

    /// Goal up for a service and, along needs and wants, for what it takes. Whoever conflicts with those goes down. What
    /// is only wanted is left out where it, or something that it needs, conflicts with what was taken before.
    fn want(&mut self, id: Id, cause: &Cause, now: Duration, effects: &mut Vec<Effect>) {
        if self.ending.is_some() {
            return;
        }
        let mut taken = BTreeSet::new();
        let mut candidates = VecDeque::from([(id, cause.clone())]);
        while let Some((candidate, cause)) = candidates.pop_front() {
            let closure = self.needs_closure(candidate, &cause);
            let clashes =
                |member: &Id| self.graph.edges(*member).conflicts.iter().any(|other| taken.contains(other));
            if closure.iter().any(|(member, _)| clashes(member)) {
                continue;
            }
            for (member, cause) in closure {
                if taken.insert(member) {
                    self.want_one(member, &cause, member == id, now, effects);
                    let name = self.graph.name(member);
                    let wants = self.graph.edges(member).wants.iter();
                    candidates.extend(wants.map(|want| (*want, cause.because(format!("wanted by {name}")))));
                }
            }
        }
        for member in taken {
            let because = cause.because(format!("stopped: it conflicts with {}", self.graph.name(member)));
            for other in self.graph.edges(member).conflicts.clone() {
                self.unwant(other, &because);
            }
        }
    }

    /// A service and all that it needs, however far away, each with the reason.
    fn needs_closure(&self, id: Id, cause: &Cause) -> Vec<(Id, Cause)> {
        let mut closure = vec![(id, cause.clone())];
        let mut seen = BTreeSet::from([id]);
        let mut next = 0;
        while let Some((current, cause)) = closure.get(next).cloned() {
            next += 1;
            for need in &self.graph.edges(current).needs {
                if seen.insert(*need) {
                    closure.push((*need, cause.because(format!("needed by {}", self.graph.name(current)))));
                }
            }
        }
        closure
    }

    fn want_one(&mut self, id: Id, cause: &Cause, asked: bool, now: Duration, effects: &mut Vec<Effect>) {
        let unit = &mut self.units[id.0];
        let again = match unit.state {
            State::Failed => true,
            State::Backoff { .. } => asked,
            State::Stopped
            | State::Waiting
            | State::Launching
            | State::Starting { .. }
            | State::Running { .. }
            | State::Done
            | State::Stopping { .. }
            | State::Orphan => false,
        };
        if again {
            unit.history.forgive();
        }
        if unit.goal == Goal::Down || again {
            let inactive = !unit.is_active();
            self.set_goal(id, Goal::Up, cause);
            if inactive {
                self.step(id, Event::Wait(cause.clone()), now, effects);
            }
        }
    }

    /// Goal down for a service and for whoever needs it.
    fn unwant(&mut self, id: Id, cause: &Cause) {
        for (next, need) in self.dependents(id) {
            let cause = match need {
                None => cause.clone(),
                Some(need) => {
                    cause.because(format!("stopped: it needs {}, {}", self.graph.name(need), cause.words))
                }
            };
            if next == id || self.units[next.0].goal != Goal::Down || self.units[next.0].is_active() {
                self.set_goal(next, Goal::Down, &cause);
            }
        }
    }

    /// Down and up again, for a service and for those that need it and are there.
    fn bounce(&mut self, id: Id, cause: &Cause, now: Duration, effects: &mut Vec<Effect>) {
        if self.ending.is_some() {
            return;
        }
        let was_up = self.units[id.0].is_active();
        for (next, need) in self.dependents(id) {
            let cause = match need {
                None => cause.clone(),
                Some(need) => {
                    cause.because(format!("restarted: it needs {}, {}", self.graph.name(need), cause.words))
                }
            };
            let unit = &self.units[next.0];
            if unit.is_active() && (next == id || unit.goal != Goal::Down) {
                self.set_goal(next, Goal::Bounce, &cause);
            }
        }
        if was_up {
            self.units[id.0].history.forgive();
        } else {
            self.want(id, cause, now, effects);
        }
    }

    /// A service and, transitively, whoever needs it, each with the need through which it was reached.
    fn dependents(&self, id: Id) -> Vec<(Id, Option<Id>)> {
        let mut found = vec![(id, None)];
        let mut seen = BTreeSet::from([id]);
        let mut next = 0;
        while let Some((current, _)) = found.get(next).copied() {
            next += 1;
            for dependent in &self.graph.edges(current).needed_by {
                if seen.insert(*dependent) {
                    found.push((*dependent, Some(current)));
                }
            }
        }
        found
    }

    /// Gives every service whose turn has come its event, until nothing moves. Ends, because along the graph each pass
    /// brings some service nearer to its goal and none away from it.
    fn settle(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        loop {
            let fates = self.fates();
            let turns: Vec<(Id, Event)> =
                self.graph.ids().filter_map(|id| Some((id, self.turn(id, &fates)?))).collect();
            let mut moved = !turns.is_empty();
            for (id, event) in turns {
                self.step(id, event, now, effects);
            }
            for (index, unit) in self.units.iter_mut().enumerate() {
                if unit.goal == Goal::Bounce && !unit.is_active() {
                    unit.goal = Goal::Up;
                    self.touched.insert(Id(index));
                    moved = true;
                }
            }
            if !moved {
                self.answer(&fates, effects);
                break;
            }
        }
        self.finish(now, effects);
    }

    /// What follows for each service, earlier ones first: a fate depends on the fates of needs alone.
    fn fates(&self) -> Vec<Fate> {
        let mut fates = vec![Fate::default(); self.units.len()];
        for id in self.graph.order() {
            let edges = self.graph.edges(*id);
            let down_for_good = |need: &Id| {
                let unit = &self.units[need.0];
                unit.goal == Goal::Down
                    || matches!(unit.state, State::Failed | State::Orphan)
                    || fates[need.0].doom.is_some()
            };
            let doom = edges.needs.iter().copied().find(down_for_good);
            let hopeless = |need: &Id| !self.units[need.0].is_up() && !fates[need.0].on_its_way;
            let orphan = |other: &Id| self.units[other.0].state == State::Orphan;
            let need = edges.needs.iter().copied().find(hopeless);
            let blocker = need.or_else(|| edges.conflicts.iter().copied().find(orphan));
            let unit = &self.units[id.0];
            let on_its_way = match unit.goal {
                Goal::Down => false,
                Goal::Bounce => true,
                Goal::Up => match unit.state {
                    State::Stopped | State::Waiting | State::Stopping { then: Then::Settle, .. } => {
                        blocker.is_none() && doom.is_none()
                    }
                    State::Launching | State::Starting { .. } | State::Stopping { then: Then::Done, .. } => {
                        true
                    }
                    State::Stopping { then: Then::Restart { .. } | Then::Fail, .. }
                    | State::Running { .. }
                    | State::Done
                    | State::Backoff { .. }
                    | State::Failed
                    | State::Orphan => false,
                },
            };
            fates[id.0] = Fate { doom, blocker, on_its_way };
        }
        fates
    }

    /// The event whose turn has come for a service, if any.
    fn turn(&self, id: Id, fates: &[Fate]) -> Option<Event> {
        let unit = &self.units[id.0];
        match unit.goal {
            Goal::Up => match unit.state {
                State::Stopped => Some(Event::Wait(unit.asked.clone())),
                State::Waiting => self.may_start(id, fates).then_some(Event::Start),
                State::Starting { .. } | State::Running { .. } | State::Done => {
                    let need = fates[id.0].doom?;
                    let words = format!(
                        "stopped: it needs {}, which is {}",
                        self.graph.name(need),
                        self.phrase(need)
                    );
                    self.may_stop(id, fates).then(|| Event::Stop(Cause::new(words)))
                }
                State::Launching
                | State::Stopping { .. }
                | State::Backoff { .. }
                | State::Failed
                | State::Orphan => None,
            },
            Goal::Down | Goal::Bounce => match unit.state {
                State::Stopped | State::Launching | State::Orphan => None,
                State::Waiting | State::Backoff { .. } | State::Failed => {
                    Some(Event::Stop(unit.asked.clone()))
                }
                State::Starting { .. } | State::Running { .. } | State::Done => {
                    self.may_stop(id, fates).then(|| Event::Stop(unit.asked.clone()))
                }
                State::Stopping { then, .. } => {
                    (then != Then::Settle).then(|| Event::Stop(unit.asked.clone()))
                }
            },
        }
    }

    fn may_start(&self, id: Id, fates: &[Fate]) -> bool {
        let edges = self.graph.edges(id);
        let up = |need: &Id| self.units[need.0].is_up() && self.units[need.0].goal == Goal::Up;
        let settled = |other: &Id| !fates[other.0].on_its_way;
        let gone = |other: &Id| !self.units[other.0].is_active() && self.units[other.0].goal == Goal::Down;
        fates[id.0].doom.is_none()
            && edges.needs.iter().all(up)
            && edges.wants.iter().chain(&edges.after).all(settled)
            && edges.conflicts.iter().all(gone)
    }

    /// Whether all that come later and are to stop as well have stopped.
    fn may_stop(&self, id: Id, fates: &[Fate]) -> bool {
        self.graph.edges(id).later.iter().all(|later| {
            let unit = &self.units[later.0];
            let stays = unit.goal == Goal::Up && fates[later.0].doom.is_none();
            !unit.is_active() || unit.state == State::Orphan || stays
        })
    }

    /// Answers the requests that are done.
    fn answer(&mut self, fates: &[Fate], effects: &mut Vec<Effect>) {
        let pending = std::mem::take(&mut self.pending);
        for request in pending {
            let outcome: Option<Vec<_>> = request
                .services
                .iter()
                .map(|(id, changed)| {
                    let result = match request.verb {
                        Verb::Start | Verb::Restart => self.started(*id, fates),
                        Verb::Stop => self.stopped(*id),
                    }?;
                    Some((*id, result.map(|()| *changed)))
                })
                .collect();
            match outcome {
                Some(outcome) => effects.push(Effect::Reply { token: request.token, outcome }),
                None => self.pending.push(request),
            }
        }
    }

    /// Whether a service is up as asked, or why it will not be. `None`: it is on its way.
    fn started(&self, id: Id, fates: &[Fate]) -> Option<Result<(), String>> {
        let unit = &self.units[id.0];
        match unit.goal {
            Goal::Bounce => None,
            Goal::Down if self.ending.is_some() => Some(Err("the machine is ending".to_owned())),
            Goal::Down => Some(Err(unit.asked.words.clone())),
            Goal::Up => match unit.state {
                State::Running { .. } | State::Done => Some(Ok(())),
                State::Failed | State::Backoff { .. } | State::Orphan => Some(Err(unit.cause.words.clone())),
                State::Waiting if fates[id.0].blocker.is_some() => {
                    Some(Err(self.obstacle(id, fates).unwrap_or_default()))
                }
                State::Stopped
                | State::Waiting
                | State::Launching
                | State::Starting { .. }
                | State::Stopping { .. } => None,
            },
        }
    }

    fn stopped(&self, id: Id) -> Option<Result<(), String>> {
        let unit = &self.units[id.0];
        match (unit.goal, &unit.state) {
            (Goal::Down, State::Stopped) => Some(Ok(())),
            (Goal::Down, _) => None,
            (Goal::Up | Goal::Bounce, _) => {
                Some(Err(format!("started again meanwhile: {}", unit.asked.words)))
            }
        }
    }

    /// Ends the machine when nothing is left, or when the time for that is over.
    fn finish(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let Some(Ending::Stopping { how, deadline }) = self.ending else { return };
        let left: Vec<Id> = self
            .graph
            .ids()
            .filter(|id| self.units[id.0].is_active() && self.units[id.0].state != State::Orphan)
            .collect();
        if left.is_empty() || now >= deadline {
            self.ending = Some(Ending::Ended { how });
            effects.push(Effect::End { how, left });
        }
    }
}

fn rules_of(service: &Service) -> Option<Rules> {
    service.program().map(|program| Rules {
        start: program.start,
        start_timeout: program.start_timeout,
        stop_signal: program.stop_signal,
        stop_timeout: program.stop_timeout,
        restart: program.restart,
        seed: seed_of(service.name()),
    })
}

/// FNV-1a: another number for each name.
fn seed_of(name: &str) -> u64 {
    let mix = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    name.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, mix)
}

#[cfg(test)]
mod tests;
