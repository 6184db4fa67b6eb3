//! The world of a schedule: what there is, and how the manager is told of it. `kernel.rs` plays the kernel and the daemon,
//! `history.rs` what happens.

mod history;
mod kernel;

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
    manager::{Confirmed, Effect, Manager, Verb},
    supervise::{Event, Exit, Requester, State, Unit},
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
    /// The command of its state, alive.
    pub(super) command: Option<u32>,
    /// The process that waits to be the next one, alive.
    pub(super) parked: Option<u32>,
    /// What comes before the program was begun.
    pub(super) prepared: bool,
    /// Its end was begun.
    ending: bool,
    /// Its end was decided, and is none that came by itself.
    pub(super) decided: bool,
    /// Other processes in its cgroup.
    pub(super) others: bool,
    pub(super) cgroup: bool,
    /// motherd waits for the cgroup to be empty.
    sweeping: bool,
    /// Where the kernel writes the pid while it makes a process.
    cell: u32,
    command_cell: u32,
    /// Which of its conditions hold, by their places.
    pub(super) truth: u32,
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
    /// Turns that were left when a slice was over: other things happen before they come.
    pub(super) behind: VecDeque<Effect>,
    /// Whose child is on its way, and how that will have gone.
    flying: Option<(Id, Event)>,
    pub(super) now: Duration,
    pub(super) asked: BTreeMap<u64, Asked>,
    /// When the machine ended, and what was said to be left.
    pub(super) ended: Option<(Duration, Vec<Id>)>,
    pub(super) crashes: u64,
    /// When the motherd that lives began.
    pub(super) born: Duration,
    /// What is told is that a turn has come.
    turning: bool,
    /// The files as they are, which is what the next motherd reads.
    files: Graph,
    dice: Dice,
    seed: u64,
    generation: u64,
    /// Those by which what is recorded was decided.
    relations: u64,
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
        let mut bodies: [Body; NAMES.len()] = Default::default();
        bodies.iter_mut().for_each(|body| body.truth = u32::try_from(dice.roll(8)).unwrap_or_default());
        Self {
            manager: Manager::new(files.clone()),
            shadow,
            records: Default::default(),
            bodies,
            exits: VecDeque::new(),
            queue: VecDeque::new(),
            behind: VecDeque::new(),
            flying: None,
            now: Duration::from_secs(10),
            asked: BTreeMap::new(),
            ended: None,
            crashes: 0,
            born: Duration::ZERO,
            turning: false,
            relations: files.relations(),
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
            let body = &mut self.bodies[slot];
            // As the daemon does (`clear_cells`).
            if unit.main().is_none() && unit.state != State::Launching {
                body.cell = 0;
            }
            if unit.command().is_none_or(|command| command.process.is_some()) {
                body.command_cell = 0;
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
        for id in self.manager.graph().ids() {
            let ends = |unit: &Unit| matches!(unit.state, State::Stopping { .. });
            if ends(self.unit(id)) && !before.get(id.0).is_some_and(ends) {
                let decided = self.turning;
                self.body_mut(id).decided = decided;
            }
        }
        // What came up in the same moment was there before what was begun for it.
        for id in self.manager.graph().ids() {
            let launching = |unit: &Unit| matches!(unit.state, State::Preparing { .. } | State::Launching);
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

    /// Executes what is to be done, of its turns perhaps some: a slice. motherd may end before each of it.
    fn run(&mut self) -> Held {
        let mut turns = if self.unlucky(2) { 1 + self.dice.roll(3) } else { u64::MAX };
        loop {
            if let Some((flying, _)) = self.flying
                && self.queue.front().is_none_or(|effect| !effect.may_overlap(flying))
            {
                self.land()?;
            }
            let Some(effect) = self.queue.pop_front() else { return Ok(()) };
            if self.unlucky(80) {
                return self.crash();
            }
            if matches!(effect, Effect::Turn(_)) {
                if turns == 0 {
                    self.behind.push_back(effect);
                    continue;
                }
                turns -= 1;
            }
            if self.confirm(&effect)? {
                self.execute(effect)?;
            }
        }
    }

    /// The next slice of the turns that were left.
    fn go_on(&mut self) -> Held {
        if self.loud && !self.behind.is_empty() {
            println!("the next slice: {:?}", self.behind);
        }
        self.queue.append(&mut self.behind);
        self.run()
    }

    /// Whether an effect is still meant; what comes in its place is done first.
    fn confirm(&mut self, effect: &Effect) -> Result<bool, String> {
        if matches!(effect, Effect::Reply { .. } | Effect::End { .. }) {
            return Ok(true);
        }
        let instead = Cell::new(true);
        self.turning = matches!(effect, Effect::Turn(_));
        let effects = self.tell(&format!("to be done: {effect:?}"), |manager, now| {
            match manager.confirm(effect, now) {
                Confirmed::Yes => {
                    instead.set(false);
                    vec![]
                }
                Confirmed::Instead(effects) => effects,
            }
        })?;
        self.turning = false;
        effects.into_iter().rev().for_each(|effect| self.queue.push_front(effect));
        Ok(!instead.get())
    }
}

fn slot_of(name: &str) -> usize {
    NAMES.iter().position(|known| *known == name).expect("a service of a schedule has one of these names")
}
