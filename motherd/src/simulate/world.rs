//! The kernel and the daemon, as far as the manager can tell: processes, cgroups, exits that wait to be told, records
//! that outlive motherd, and somebody who asks for things.

use std::{
    cell::Cell,
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{
    dice::Dice,
    house::{self, Kinds, NAMES},
    invariants::Held,
};
use crate::{
    graph::{Graph, Id},
    manager::{Confirmed, Effect, End, Manager, Verb},
    service::Start,
    supervise::{Act, Cause, Event, Exit, ExitHow, Requester, State, Unit},
};

const ROOT: Requester = Requester { uid: 0, pid: 4 };
const STOP: Verb = Verb::Stop { force: false };
const FORCE: Verb = Verb::Stop { force: true };

/// What the kernel has of a service.
#[derive(Debug, Default)]
pub(super) struct Body {
    /// The main process, alive.
    pub(super) main: Option<u32>,
    /// The same until motherd was told of its end.
    pub(super) known_main: Option<u32>,
    /// Other processes in its cgroup.
    pub(super) others: bool,
    pub(super) cgroup: bool,
    /// motherd waits for the cgroup to be empty.
    sweeping: bool,
    /// Where the kernel writes the pid while it makes a process.
    cell: u32,
    /// When it came up, was launched, and was launched the time before, as places in the order of things.
    pub(super) up_at: u64,
    launched_at: u64,
    pub(super) launched_before: u64,
}

/// A request that was made of the motherd that lives.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) verb: Verb,
    pub(super) ids: Vec<Id>,
    pub(super) answers: u32,
}

/// One schedule.
pub(super) struct World {
    pub(super) manager: Manager,
    /// The same, looking at everybody for every event.
    pub(super) shadow: Option<Manager>,
    /// What the next motherd finds.
    records: [Option<Unit>; NAMES.len()],
    bodies: [Body; NAMES.len()],
    /// Ends that initldr has reaped and motherd was not told of: whose, the process, how.
    exits: VecDeque<(usize, u32, Exit)>,
    pub(super) queue: VecDeque<Effect>,
    pub(super) now: Duration,
    pub(super) asked: BTreeMap<u64, Asked>,
    /// When the machine ended, and what was said to be left.
    pub(super) ended: Option<(Duration, Vec<Id>)>,
    pub(super) crashes: u64,
    /// When the motherd that lives began.
    pub(super) born: Duration,
    /// What is executed follows from a deadline.
    pub(super) timed: bool,
    /// The files as they are, which is what the next motherd reads.
    files: Graph,
    dice: Dice,
    seed: u64,
    generation: u64,
    next_pid: u32,
    next_token: u64,
    order: u64,
    events: u64,
    /// Nothing goes wrong any more.
    calm: bool,
    loud: bool,
}

impl World {
    pub(super) fn new(kinds: &Kinds, seed: u64, loud: bool) -> Self {
        let mut dice = Dice::new(seed);
        let files = house::graph(kinds, &mut dice, seed, 0);
        let shadow = dice.one_in(8).then(|| Manager::naive(files.clone()));
        Self {
            manager: Manager::new(files.clone()),
            shadow,
            records: Default::default(),
            bodies: Default::default(),
            exits: VecDeque::new(),
            queue: VecDeque::new(),
            now: Duration::from_secs(10),
            asked: BTreeMap::new(),
            ended: None,
            crashes: 0,
            born: Duration::ZERO,
            timed: false,
            files,
            dice,
            seed,
            generation: 0,
            next_pid: 100,
            next_token: 0,
            order: 0,
            events: 0,
            calm: false,
            loud,
        }
    }

    /// The whole schedule: how many events it had.
    pub(super) fn play(mut self, kinds: &Kinds) -> Result<u64, String> {
        if self.manager.graph().is_empty() {
            return Ok(0);
        }
        if self.loud {
            for id in self.manager.graph().ids() {
                println!("{}: {:?}", self.name(id), self.manager.graph().edges(id));
            }
        }
        let first = self.somebody();
        self.call("boot", |manager, now| manager.boot(first, &Cause::new("boot"), now))?;
        self.run()?;
        for _ in 0..100 + self.dice.roll(60) {
            self.something(kinds)?;
        }
        self.calm = true;
        self.rest()?;
        self.holds_at_rest()?;
        if self.dice.one_in(4) {
            let began = self.now;
            self.call("power-off", |manager, now| {
                manager.end(End::PowerOff, &Cause::request("power-off", ROOT), now)
            })?;
            self.run()?;
            self.rest()?;
            self.holds_at_the_end(began)?;
        } else {
            let all: Vec<Id> = self.manager.graph().ids().collect();
            self.ask(FORCE, all)?;
            self.rest()?;
            self.holds_when_all_is_down()?;
        }
        Ok(self.events)
    }

    pub(super) fn name(&self, id: Id) -> &str {
        self.manager.graph().name(id)
    }

    pub(super) fn unit(&self, id: Id) -> &Unit {
        self.manager.unit(id)
    }

    /// A service's place among the names, which outlives the ids.
    fn slot(&self, id: Id) -> usize {
        slot_of(self.name(id))
    }

    pub(super) fn body(&self, id: Id) -> &Body {
        &self.bodies[self.slot(id)]
    }

    fn body_mut(&mut self, id: Id) -> &mut Body {
        let slot = self.slot(id);
        &mut self.bodies[slot]
    }

    pub(super) fn record(&self, id: Id) -> Option<&Unit> {
        // Nothing was ever said of a service that nothing ever happened to.
        self.records[self.slot(id)]
            .as_ref()
            .or_else(|| Some(self.unit(id)).filter(|unit| **unit == Unit::default()))
    }

    fn somebody(&mut self) -> Id {
        let count = self.manager.graph().len();
        Id(self.dice.index(count))
    }

    /// Bad luck, as long as there is any.
    fn unlucky(&mut self, one_in: u64) -> bool {
        !self.calm && self.dice.one_in(one_in)
    }

    /// One thing that the manager is told, and what is to be done for it. Everything that is promised holds after it.
    fn call(&mut self, what: &str, tell: impl Fn(&mut Manager, Duration) -> Vec<Effect>) -> Held {
        self.events += 1;
        let effects = self.tell(what, tell)?;
        self.queue.extend(effects);
        Ok(())
    }

    fn tell(
        &mut self,
        what: &str,
        tell: impl Fn(&mut Manager, Duration) -> Vec<Effect>,
    ) -> Result<Vec<Effect>, String> {
        self.now += Duration::from_micros(1);
        let before: Vec<Unit> = self.manager.graph().ids().map(|id| self.unit(id).clone()).collect();
        let effects = tell(&mut self.manager, self.now);
        if let Some(shadow) = &mut self.shadow {
            let other = tell(shadow, self.now);
            if other != effects {
                return Err(format!("{what}: {effects:?}, and {other:?} when everybody is looked at"));
            }
        }
        for id in self.manager.take_touched() {
            let slot = self.slot(id);
            let unit = self.unit(id).clone();
            let known = self.records[slot].as_ref().map(|unit| &unit.state);
            if unit.state == State::Launching && known != Some(&State::Launching) {
                self.bodies[slot].cell = 0;
            }
            self.records[slot] = Some(unit);
        }
        for id in self.manager.graph().ids() {
            let unit = self.unit(id);
            let came_up =
                unit.is_up() && before.get(id.0).is_none_or(|old| !old.is_up() || old.since != unit.since);
            if came_up {
                self.order += 1;
                let order = self.order;
                self.body_mut(id).up_at = order;
            }
        }
        // What came up in the same moment was there before what was launched for it.
        for id in self.manager.graph().ids() {
            let launching = |unit: &Unit| unit.state == State::Launching;
            if launching(self.unit(id)) && !before.get(id.0).is_some_and(launching) {
                self.order += 1;
                let order = self.order;
                let body = self.body_mut(id);
                body.launched_before = std::mem::replace(&mut body.launched_at, order);
            }
            if self.loud && before.get(id.0).is_none_or(|old| *old != *self.unit(id)) {
                let unit = self.unit(id);
                println!(
                    "  {}: {:?}, to be {:?} ({})",
                    self.name(id),
                    unit.state,
                    unit.goal,
                    unit.cause.words
                );
            }
        }
        if self.loud {
            println!("[{:?}] {what} -> {effects:?}", self.now);
        }
        self.holds_after_an_event(&before).map_err(|broken| format!("{what}: {broken}"))?;
        Ok(effects)
    }

    fn event(&mut self, id: Id, event: Event) -> Held {
        let what = format!("{}: {event:?}", self.name(id));
        self.call(&what, |manager, now| manager.event(id, event.clone(), now))
    }

    /// Executes what is to be done. motherd may end before each of it.
    fn run(&mut self) -> Held {
        while let Some(effect) = self.queue.pop_front() {
            if self.unlucky(80) {
                return self.crash();
            }
            if self.confirm(&effect)? {
                self.execute(effect)?;
            }
        }
        Ok(())
    }

    /// Whether an effect is still meant; what comes in its place is done first.
    fn confirm(&mut self, effect: &Effect) -> Result<bool, String> {
        if matches!(effect, Effect::Reply { .. } | Effect::End { .. }) {
            return Ok(true);
        }
        let instead = Cell::new(true);
        let effects = self.tell(&format!("to be done: {effect:?}"), |manager, now| {
            match manager.confirm(effect, now) {
                Confirmed::Yes => {
                    instead.set(false);
                    vec![]
                }
                Confirmed::Instead(effects) => effects,
            }
        })?;
        effects.into_iter().rev().for_each(|effect| self.queue.push_front(effect));
        Ok(!instead.get())
    }

    fn execute(&mut self, effect: Effect) -> Held {
        let (id, act) = match effect {
            Effect::Reply { token, outcome } => return self.holds_at_an_answer(token, &outcome),
            Effect::End { left, .. } => {
                if self.ended.replace((self.now, left)).is_some() {
                    return Err("the machine ends twice".to_owned());
                }
                return Ok(());
            }
            Effect::Turn(_) | Effect::Answer { .. } => return Err("done when it is confirmed".to_owned()),
            Effect::Service(id, act) => (id, act),
        };
        match act {
            Act::Launch => self.launch(id),
            Act::Signal { pid, .. } => {
                self.holds_at_a_signal(id, Some(pid))?;
                if self.unlucky(8) {
                    return self.event(id, Event::Deaf { why: "no handler".to_owned() });
                }
                if !self.unlucky(3) {
                    self.die(id, ExitHow::Killed, libc::SIGTERM);
                }
                Ok(())
            }
            Act::SignalAll { .. } => {
                if !self.unlucky(3) {
                    self.body_mut(id).others = false;
                }
                Ok(())
            }
            Act::Kill => {
                if !self.unlucky(12) {
                    self.body_mut(id).others = false;
                    self.die(id, ExitHow::Killed, libc::SIGKILL);
                }
                Ok(())
            }
            // The services of a house have no commands and do not fork; nobody is told what hangs.
            Act::Run { .. } | Act::KillCommand { .. } | Act::FindMain | Act::Survivors => Ok(()),
            Act::Sweep => {
                self.body_mut(id).sweeping = true;
                self.sweep(id)
            }
        }
    }

    fn launch(&mut self, id: Id) -> Held {
        self.holds_at_a_launch(id)?;
        let others = self.unlucky(4);
        self.next_pid += 1;
        let pid = self.next_pid;
        let failed = self.unlucky(8);
        let body = self.body_mut(id);
        body.sweeping = false;
        body.cgroup = true;
        if failed {
            let permanent = self.dice.one_in(3);
            return self.event(id, Event::LaunchFailed { why: "no".to_owned(), permanent });
        }
        body.main = Some(pid);
        body.known_main = Some(pid);
        body.cell = pid;
        body.others = others;
        if self.unlucky(10) {
            self.die(id, ExitHow::Exited, 1);
        }
        if self.unlucky(60) {
            // Made, and motherd ends before it knows.
            return self.crash();
        }
        self.event(id, Event::Launched { pid })
    }

    /// The main process ends; motherd is told later.
    fn die(&mut self, id: Id, how: ExitHow, status: i32) {
        let (slot, at) = (self.slot(id), self.now);
        if let Some(pid) = self.bodies[slot].main.take() {
            self.exits.push_back((slot, pid, Exit { how, status, at }));
        }
    }

    /// The cgroup is looked at, because motherd asked for that or because it became empty.
    fn sweep(&mut self, id: Id) -> Held {
        let body = self.body_mut(id);
        if !body.sweeping || body.main.is_some() || body.others {
            return Ok(());
        }
        body.sweeping = false;
        body.cgroup = false;
        self.event(id, Event::Gone)
    }

    /// initldr tells of an end, or has lost it.
    fn tell_exit(&mut self) -> Held {
        let Some((slot, pid, exit)) = self.exits.pop_front() else { return Ok(()) };
        let Some(id) = self.manager.graph().find(NAMES[slot]) else { return Ok(()) };
        let body = &mut self.bodies[slot];
        if body.known_main == Some(pid) {
            body.known_main = None;
        }
        if self.unit(id).main().is_none_or(|main| main.pid != pid) {
            return Ok(());
        }
        self.event(id, Event::Exited(exit))
    }

    fn ask(&mut self, verb: Verb, ids: Vec<Id>) -> Held {
        self.next_token += 1;
        let token = self.next_token;
        self.asked.insert(token, Asked { verb, ids: ids.clone(), answers: 0 });
        let what = format!("request {token}: {verb:?} {ids:?}");
        self.call(&what, |manager, now| manager.request(token, verb, &ids, ROOT, now))?;
        self.run()
    }

    fn tick(&mut self) -> Held {
        let Some(deadline) = self.manager.next_deadline() else { return Ok(()) };
        self.now = self.now.max(deadline);
        self.call("the timer", Manager::tick)?;
        self.holds_after_a_tick()?;
        self.timed = true;
        let held = self.run();
        self.timed = false;
        held
    }

    /// One random thing.
    fn something(&mut self, kinds: &Kinds) -> Held {
        let id = self.somebody();
        match self.dice.roll(100) {
            0..=21 => self.tell_exit()?,
            22..=33 => {
                let status = [0, 0, 1, 1, 1, 125][self.dice.index(6)];
                self.die(id, ExitHow::Exited, status);
            }
            34..=45 => self.event(id, Event::Ready)?,
            46..=52 => {
                self.body_mut(id).others = false;
                self.sweep(id)?;
            }
            53..=68 => self.tick()?,
            69..=72 => self.now += Duration::from_millis(self.dice.roll(5_000)),
            73..=88 => {
                let verb = [Verb::Start, Verb::Start, STOP, FORCE, Verb::Restart][self.dice.index(5)];
                let mut ids = vec![id];
                for _ in 0..self.dice.roll(3) {
                    let other = self.somebody();
                    if !ids.contains(&other) {
                        ids.push(other);
                    }
                }
                self.ask(verb, ids)?;
            }
            89..=91 => self.reload(kinds)?,
            92..=93 => self.crash()?,
            94 => {
                // What comes too late, or was never meant for it.
                let late = [Event::Gone, Event::Timer, Event::Ready, Event::Start];
                let event = late[self.dice.index(3)].clone();
                let meant = event == Event::Gone && self.unit(id).is_active();
                if !meant {
                    self.event(id, event)?;
                }
            }
            95 => {
                // The record of an end was overwritten in initldr's ring.
                if let Some((slot, pid, _)) = self.exits.pop_front()
                    && let Some(id) = self.manager.graph().find(NAMES[slot])
                {
                    if self.bodies[slot].known_main == Some(pid) {
                        self.bodies[slot].known_main = None;
                    }
                    if self.unit(id).main().is_some_and(|main| main.pid == pid) {
                        self.event(id, Event::Lost)?;
                    }
                }
            }
            _ => self.tell_exit()?,
        }
        self.run()
    }

    fn reload(&mut self, kinds: &Kinds) -> Held {
        self.generation += 1;
        self.files = house::graph(kinds, &mut self.dice, self.seed, self.generation);
        let files = self.files.clone();
        self.call("reload", |manager, now| manager.reload(files.clone(), now))?;
        self.run()
    }

    /// motherd ends: what was not executed is forgotten, and so is who waits for an answer. The records stay, and the
    /// next one joins them with what runs, as `daemon::adopt` does.
    fn crash(&mut self) -> Held {
        self.crashes += 1;
        let life = self.crashes;
        self.queue.clear();
        self.asked.clear();
        let began = self.now;
        self.now += Duration::from_millis(self.dice.roll(3_000));
        self.born = self.now;
        if self.loud {
            println!("motherd ends");
        }
        self.manager = Manager::new(self.files.clone());
        self.shadow = self.shadow.take().map(|_| Manager::naive(self.files.clone()));
        let mut events = Vec::new();
        for (slot, name) in NAMES.iter().enumerate() {
            self.bodies[slot].sweeping = false;
            let Some(id) = self.manager.graph().find(name) else {
                // No file describes it any more: somebody ends what is left of it.
                self.bodies[slot] = Body::default();
                self.records[slot] = None;
                continue;
            };
            let Some(mut unit) = self.records[slot].clone() else { continue };
            unit.extend(self.now - began);
            let body = &mut self.bodies[slot];
            let launching = unit.state == State::Launching;
            let pid = match unit.main() {
                Some(main) => Some(main.pid),
                None if launching => Some(body.cell).filter(|pid| *pid != 0),
                None => None,
            };
            let had_main = unit.main().is_some();
            let orphaned = (body.main.is_some() || body.others) && !unit.is_active();
            if let (Some(pid), true) = (pid, launching) {
                events.push((id, Event::Launched { pid }));
            }
            if pid.is_some() && body.main != pid && (had_main || launching) {
                let told = self.exits.iter().rfind(|(of, found, _)| *of == slot && Some(*found) == pid);
                events.push((id, told.map_or(Event::Lost, |(_, _, exit)| Event::Exited(*exit))));
            }
            let now = self.now;
            for manager in [Some(&mut self.manager), self.shadow.as_mut()].into_iter().flatten() {
                manager.restore(id, unit.clone());
                if orphaned {
                    manager.orphan(id, now);
                }
            }
            if self.manager.unit(id).is_up() && !unit.is_up() {
                self.order += 1;
                self.bodies[slot].up_at = self.order;
            }
            self.records[slot] = Some(self.manager.unit(id).clone());
        }
        // What is not a main process is known by its cgroup alone, and all of this is acknowledged now.
        let alive: Vec<Option<u32>> = self.bodies.iter().map(|body| body.main).collect();
        self.exits.retain(|(slot, pid, _)| alive[*slot] == Some(*pid));
        for (id, event) in events {
            if matches!(event, Event::Exited(_) | Event::Lost) {
                self.body_mut(id).known_main = None;
            }
            self.event(id, event)?;
            self.run()?;
            if self.crashes != life {
                return Ok(());
            }
        }
        self.call("resume", Manager::resume)?;
        self.run()
    }

    /// Nothing goes wrong any more, and everything that is under way comes to its end.
    fn rest(&mut self) -> Held {
        for _ in 0..2_000 {
            if !self.exits.is_empty() {
                self.tell_exit()?;
            } else if let Some(id) = self.find(|world, id| {
                let body = world.body(id);
                body.sweeping && body.main.is_none() && !body.others
            }) {
                self.sweep(id)?;
            } else if let Some(id) = self.find(|world, id| {
                let stopping = matches!(world.unit(id).state, State::Stopping { .. });
                stopping && (world.body(id).main.is_some() || world.body(id).others)
            }) {
                self.body_mut(id).others = false;
                self.die(id, ExitHow::Killed, libc::SIGTERM);
            } else if let Some(id) =
                self.find(|world, id| matches!(world.unit(id).state, State::Starting { .. }))
            {
                if self.is_oneshot(id) {
                    self.die(id, ExitHow::Exited, 0);
                } else {
                    self.event(id, Event::Ready)?;
                }
            } else if self.manager.next_deadline().is_some() && self.ended.is_none() {
                self.tick()?;
            } else {
                return Ok(());
            }
            self.run()?;
        }
        Err("it never comes to rest".to_owned())
    }

    fn find(&self, what: impl Fn(&Self, Id) -> bool) -> Option<Id> {
        self.manager.graph().ids().find(|id| what(self, *id))
    }

    /// Whether a process that ends well is what a service of this kind waits for.
    fn is_oneshot(&self, id: Id) -> bool {
        self.manager.graph().service(id).program().is_some_and(|program| program.start == Start::Oneshot)
    }
}

fn slot_of(name: &str) -> usize {
    NAMES.iter().position(|known| *known == name).expect("a service of a schedule has one of these names")
}
