//! What the manager promises, against a world that it cannot see: processes that die when they like, launches that
//! fail, signals that are ignored, and a motherd that ends between any two effects.

mod conditions;
mod related;
mod safe;
mod standby;
mod table;
mod why;

use super::*;
use crate::{
    service::{parse_text, signal_name},
    supervise::{Exit, ExitHow, PARK_AGAIN, PARK_NEXT, Requester},
};
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

const ROOT: Requester = Requester { uid: 0, pid: 4 };
const STOP: Verb = Verb::Stop { force: false };
const FORCE: Verb = Verb::Stop { force: true };
const BOOT: Duration = Duration::from_secs(10);

/// A small source of choices, so that a failing case is one number.
struct Dice(u64);

impl Dice {
    /// xorshift64*
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

/// How processes behave.
#[derive(Clone, Copy, PartialEq)]
enum Temper {
    /// Launches succeed, the stop signal ends a process.
    Tame,
    /// By dice.
    Wild,
    /// Launches succeed, the stop signal ends nobody.
    Deaf,
}

struct World {
    manager: Manager,
    now: Duration,
    dice: Dice,
    temper: Temper,
    /// The main process of each service that has one alive.
    mains: BTreeMap<Id, u32>,
    /// The command of each service that has one alive.
    commands: BTreeMap<Id, u32>,
    /// Services of whose process others are alive.
    others: BTreeSet<Id>,
    /// Services that have a cgroup.
    cgroups: BTreeSet<Id>,
    sweeping: BTreeSet<Id>,
    next_pid: u32,
    replies: BTreeMap<u64, Outcome>,
    launches: Vec<String>,
    stops: Vec<String>,
    ended: Option<(End, Vec<Id>)>,
    queue: VecDeque<Effect>,
    /// Conditions that do not hold, by their places; the others do.
    lacking: BTreeSet<(Id, usize)>,
    /// Processes that wait to be the next one.
    parked: BTreeMap<Id, u32>,
}

impl World {
    fn new(files: &[(&str, &str)], seed: u64, temper: Temper) -> Self {
        let services = files.iter().map(|(name, text)| parse_text(name, text).unwrap()).collect();
        let built = Graph::build(services, &BTreeSet::new());
        assert!(built.refused.is_empty(), "{:?}", built.refused);
        Self::of(built.graph, seed, temper)
    }

    fn of(graph: Graph, seed: u64, temper: Temper) -> Self {
        Self {
            manager: Manager::new(graph),
            now: BOOT,
            dice: Dice(seed | 1),
            temper,
            mains: BTreeMap::new(),
            commands: BTreeMap::new(),
            others: BTreeSet::new(),
            cgroups: BTreeSet::new(),
            sweeping: BTreeSet::new(),
            next_pid: 100,
            replies: BTreeMap::new(),
            launches: Vec::new(),
            stops: Vec::new(),
            ended: None,
            queue: VecDeque::new(),
            lacking: BTreeSet::new(),
            parked: BTreeMap::new(),
        }
    }

    fn tame(files: &[(&str, &str)]) -> Self {
        Self::new(files, 1, Temper::Tame)
    }

    fn id(&self, name: &str) -> Id {
        self.manager.graph().find(name).unwrap()
    }

    fn unit(&self, name: &str) -> &Unit {
        self.manager.unit(self.id(name))
    }

    fn state(&self, name: &str) -> &State {
        &self.unit(name).state
    }

    fn up(&self, name: &str) -> bool {
        self.unit(name).is_up()
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.temper == Temper::Wild && self.dice.roll(one_in) == 0
    }

    fn request(&mut self, token: u64, verb: Verb, names: &[&str]) {
        let ids: Vec<Id> = names.iter().map(|name| self.id(name)).collect();
        let effects = self.manager.request(token, verb, &ids, ROOT, self.now);
        self.run(effects);
    }

    fn event(&mut self, id: Id, event: Event) {
        let effects = self.manager.event(id, event, self.now);
        self.queue.extend(effects);
    }

    fn run(&mut self, effects: Vec<Effect>) {
        self.queue.extend(effects);
        while self.run_one() {}
    }

    /// The next effect, if it is still meant. Whether there was one.
    fn run_one(&mut self) -> bool {
        let Some(effect) = self.queue.pop_front() else { return false };
        match self.manager.confirm(&effect, self.now) {
            Confirmed::Yes => self.execute(effect),
            Confirmed::Instead(effects) => {
                effects.into_iter().rev().for_each(|effect| self.queue.push_front(effect));
            }
        }
        self.check();
        true
    }

    fn execute(&mut self, effect: Effect) {
        match effect {
            Effect::Service(id, Act::Look) => {
                let count = self.manager.graph().service(id).conditions().len();
                let found: Vec<(usize, bool)> =
                    (0..count).map(|place| (place, !self.lacking.contains(&(id, place)))).collect();
                let effects = self.manager.conditions(id, &found, self.now);
                self.queue.extend(effects);
            }
            Effect::Service(id, Act::Park) => {
                self.next_pid += 1;
                assert!(self.parked.insert(id, self.next_pid).is_none(), "two of them");
                self.event(id, Event::Standby(StandbyEvent::Made { pid: self.next_pid }));
            }
            Effect::Service(id, Act::Unpark { pid }) => {
                assert_eq!(self.parked.remove(&id), Some(pid));
            }
            Effect::Turn(_) | Effect::Answer { .. } => panic!("done when it is confirmed"),
            Effect::Reply { token, outcome } => {
                assert!(self.replies.insert(token, outcome).is_none(), "two answers to one request");
            }
            Effect::End { how, left } => {
                assert!(self.ended.replace((how, left)).is_none(), "the machine ends once");
            }
            Effect::Service(id, Act::Launch) => self.launch(id),
            Effect::Service(id, Act::Run { .. }) => self.run_command(id),
            Effect::Service(id, Act::KillCommand { .. }) => {
                self.commands.remove(&id);
            }
            Effect::Service(id, Act::FindMain) => {
                if !self.chance(3) {
                    self.next_pid += 1;
                    self.mains.insert(id, self.next_pid);
                    self.event(id, Event::MainPid { pid: self.next_pid });
                }
            }
            Effect::Service(id, Act::Survivors) => {
                if self.mains.contains_key(&id) || self.others.contains(&id) {
                    self.event(id, Event::Stuck { who: "7 (nobody)".to_owned() });
                }
            }
            Effect::Service(id, Act::Signal { pid, signal }) => {
                assert_eq!(
                    self.mains.get(&id),
                    Some(&pid),
                    "a signal for a process that is not the main one"
                );
                self.stops.push(self.manager.graph().name(id).to_owned());
                if self.temper == Temper::Deaf {
                    return;
                }
                if self.chance(6) {
                    self.event(id, Event::Deaf { why: "no handler".to_owned() });
                } else if !self.chance(3) {
                    self.die(id, ExitHow::Killed, signal);
                }
            }
            Effect::Service(id, Act::SignalAll { .. }) => {
                if !self.chance(3) {
                    self.others.remove(&id);
                    self.sweep(id);
                }
            }
            Effect::Service(id, Act::Kill) => {
                self.others.remove(&id);
                self.commands.remove(&id);
                self.die(id, ExitHow::Killed, libc::SIGKILL);
                self.sweep(id);
            }
            Effect::Service(id, Act::Sweep) => {
                self.sweeping.insert(id);
                self.sweep(id);
            }
        }
    }

    fn launch(&mut self, id: Id) {
        let name = self.manager.graph().name(id).to_owned();
        assert!(!self.mains.contains_key(&id) && !self.others.contains(&id), "two live instances of {name}");
        let edges = self.manager.graph().edges(id);
        // What comes before its program began when they were up, and takes its time.
        let program = self.manager.graph().service(id).program();
        let began = program.is_some_and(|program| !program.commands.pre.is_empty());
        for need in edges.requires.iter().filter(|_| !began) {
            assert!(self.manager.unit(*need).is_up(), "{name} is launched before what it needs");
        }
        for other in &edges.conflicts {
            assert!(!self.cgroups.contains(other), "{name} is launched beside what it conflicts with");
        }
        self.cgroups.insert(id);
        self.sweeping.remove(&id);
        self.launches.push(name);
        if self.chance(5) {
            let permanent = self.chance(2);
            self.event(id, Event::LaunchFailed { why: "no".to_owned(), permanent });
            return;
        }
        self.next_pid += 1;
        let pid = self.parked.remove(&id).unwrap_or(self.next_pid);
        self.mains.insert(id, pid);
        if self.chance(3) {
            self.others.insert(id);
        }
        self.event(id, Event::Launched { pid });
    }

    fn run_command(&mut self, id: Id) {
        assert!(!self.commands.contains_key(&id), "two commands at once");
        if self.chance(5) {
            self.event(
                id,
                Event::CommandFailed { why: "no".to_owned(), permanent: self.next_pid.is_multiple_of(2) },
            );
            return;
        }
        self.cgroups.insert(id);
        self.sweeping.remove(&id);
        self.next_pid += 1;
        self.commands.insert(id, self.next_pid);
        self.event(id, Event::CommandLaunched { pid: self.next_pid });
        if !self.chance(3) {
            let status = i32::from(self.chance(4));
            self.end_command(id, status);
        }
    }

    fn end_command(&mut self, id: Id, status: i32) {
        if self.commands.remove(&id).is_some() {
            self.event(id, Event::CommandExited(Exit { how: ExitHow::Exited, status, at: self.now }));
        }
    }

    fn die(&mut self, id: Id, how: ExitHow, status: i32) {
        if self.mains.remove(&id).is_some() {
            self.event(id, Event::Exited(Exit { how, status, at: self.now }));
        }
    }

    fn sweep(&mut self, id: Id) {
        let alive =
            self.mains.contains_key(&id) || self.others.contains(&id) || self.commands.contains_key(&id);
        if self.sweeping.contains(&id) && !alive {
            self.sweeping.remove(&id);
            self.cgroups.remove(&id);
            self.event(id, Event::Gone);
        }
    }

    /// A condition holds, or does not, from now on.
    fn set(&mut self, name: &str, place: usize, holds: bool) {
        let id = self.id(name);
        if holds {
            self.lacking.remove(&(id, place));
        } else {
            self.lacking.insert((id, place));
        }
        let effects = self.manager.conditions(id, &[(place, holds)], self.now);
        self.run(effects);
    }

    fn exit(&mut self, name: &str, status: i32) {
        let id = self.id(name);
        self.die(id, ExitHow::Exited, status);
        self.run(vec![]);
    }

    fn ready(&mut self, name: &str) {
        let id = self.id(name);
        self.event(id, Event::Ready);
        self.run(vec![]);
    }

    fn tick(&mut self) {
        if let Some(deadline) = self.manager.next_deadline() {
            self.now = self.now.max(deadline);
            let effects = self.manager.tick(self.now);
            self.run(effects);
        }
    }

    /// What holds between any two effects.
    fn check(&self) {
        for id in self.manager.graph().ids() {
            let unit = self.manager.unit(id);
            if let (Some(main), true) = (unit.main(), self.queue.is_empty()) {
                assert_eq!(
                    self.mains.get(&id),
                    Some(&main.pid),
                    "{}: {unit:?}",
                    self.manager.graph().name(id)
                );
            }
            if self.mains.contains_key(&id) || self.others.contains(&id) || self.commands.contains_key(&id) {
                assert!(
                    unit.is_active(),
                    "{} has processes and is {:?}",
                    self.manager.graph().name(id),
                    unit.state
                );
            }
        }
    }

    /// motherd ends here: what was not executed is forgotten, and so is who waits for a reply. The records stay.
    fn crash(&mut self) {
        self.crash_to(self.units());
    }

    fn units(&self) -> Vec<Unit> {
        self.manager.graph().ids().map(|id| self.manager.unit(id).clone()).collect()
    }

    /// The same, and these are the records.
    fn crash_to(&mut self, records: Vec<Unit>) {
        let mut successor = Manager::new(self.manager.graph().clone());
        for (id, record) in self.manager.graph().ids().zip(records) {
            successor.restore(id, record);
        }
        self.queue.clear();
        self.parked.clear();
        if let Some(how) = self.manager.ending() {
            self.ended = None;
            self.queue.extend(successor.end(how, &Cause::new("again"), self.now));
        }
        self.manager = successor;
        self.sweeping.clear();
        for id in self.manager.graph().ids() {
            let main = self.manager.unit(id).main();
            match (&self.manager.unit(id).state, self.mains.get(&id)) {
                (State::Launching, Some(pid)) => {
                    let pid = *pid;
                    self.event(id, Event::Launched { pid });
                }
                (State::Forked { .. }, Some(_)) => {
                    // Found, and motherd ended before it could say so: it is found again.
                    self.mains.remove(&id);
                    self.others.insert(id);
                }
                (_, None) if main.is_some() => {
                    let exit = Exit { how: ExitHow::Killed, status: libc::SIGKILL, at: self.now };
                    self.event(id, Event::Exited(exit));
                }
                (_, _) => {}
            }
        }
        for id in self.manager.graph().ids().collect::<Vec<_>>() {
            let Some(command) = self.manager.unit(id).command() else { continue };
            match (command.process, self.commands.get(&id)) {
                (None, Some(pid)) => {
                    let pid = *pid;
                    self.event(id, Event::CommandLaunched { pid });
                }
                (Some(_), None) => {
                    self.event(id, Event::CommandFailed { why: "lost".to_owned(), permanent: false })
                }
                (None, None) | (Some(_), Some(_)) => {}
            }
        }
        let effects = self.manager.resume(self.now);
        // What the events above led to may be in `resume` again, and does no harm twice.
        self.run(effects);
    }

    /// One random thing.
    fn something(&mut self, token: u64) {
        let count = self.manager.graph().len() as u64;
        let id = Id(usize::try_from(self.dice.roll(count)).unwrap());
        match self.dice.roll(10) {
            0 | 1 => {
                let effects = self.manager.request(token, Verb::Start, &[id], ROOT, self.now);
                self.run(effects);
            }
            2 => {
                let effects = self.manager.request(token, STOP, &[id], ROOT, self.now);
                self.run(effects);
            }
            3 => {
                let effects = self.manager.request(token, Verb::Restart, &[id], ROOT, self.now);
                self.run(effects);
            }
            4 | 5 => {
                let status = i32::try_from(self.dice.roll(2)).unwrap();
                self.die(id, ExitHow::Exited, status);
                self.run(vec![]);
            }
            6 => {
                self.event(id, Event::Ready);
                self.run(vec![]);
            }
            7 => {
                let status = i32::try_from(self.dice.roll(2)).unwrap();
                self.end_command(id, status);
                self.others.remove(&id);
                self.sweep(id);
                self.run(vec![]);
            }
            _ => self.tick(),
        }
    }

    /// Everything is asked to stop, and time passes.
    fn stop_all(&mut self) {
        let ids: Vec<Id> = self.manager.graph().ids().collect();
        let effects = self.manager.request(u64::MAX, FORCE, &ids, ROOT, self.now);
        self.run(effects);
        for _ in 0..200 {
            self.tick();
        }
        for id in ids {
            assert_eq!(self.manager.unit(id).state, State::Stopped, "{}", self.manager.graph().name(id));
        }
        assert!(self.mains.is_empty() && self.others.is_empty() && self.commands.is_empty());
        assert!(self.cgroups.is_empty());
        assert_eq!(self.manager.next_deadline(), None, "a timer outlived its reason");
        assert!(self.replies.contains_key(&u64::MAX));
    }
}

/// Every relation and every kind of start.
const HOUSE: [(&str, &str); 10] = [
    ("route", "[[condition]]\nnetwork = \"route\"\ntimeout = \"30s\"\non_loss = \"restart\""),
    ("base", "exec = [\"/b\"]\n[start]\ntype = \"oneshot\""),
    ("net", "exec = [\"/b\"]\nstart.pre = [[\"/c\"], [\"/d\"]]\n[dependencies]\nneeds = [\"base\"]"),
    ("log", "exec = [\"/b\"]\n[start]\ntype = \"notify\"\n[restart]\nlimit = 2\nfactor = 1.0"),
    (
        "web",
        "exec = [\"/b\"]\nstart.post = [[\"/c\"]]\nstop.exec = [[\"/c\"]]\n[dependencies]\nneeds = [\"net\"]\nwants = [\"log\"]",
    ),
    (
        "app",
        "exec = [\"/b\"]\nstart.pre = [\"/c\"]\nstop.post = [[\"/c\"], [\"/d\"]]\n[dependencies]\nneeds = [\"web\", \"db\"]\n[restart]\nwhen = \"always\"",
    ),
    (
        "db",
        "exec = [\"/b\"]\nstart.type = \"forking\"\n[dependencies]\nafter = [\"log\"]\n[restart]\nwhen = \"never\"",
    ),
    ("old-db", "exec = [\"/b\"]\n[dependencies]\nconflicts = [\"db\"]"),
    ("both", "[dependencies]\nwants = [\"old-db\", \"db\"]"),
    ("system", "[dependencies]\nwants = [\"app\", \"web\"]\nneeds = [\"net\"]"),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// The invariants hold in any history, and whatever it was, stopping everything reaches Stopped.
    #[test]
    fn any_history_keeps_the_promises_and_can_be_stopped(seed in any::<u64>(), length in 1_u64..120) {
        let mut world = World::new(&HOUSE, seed, Temper::Wild);
        for token in 0..length {
            world.something(token);
        }
        world.stop_all();
    }

    /// The same with a motherd that ends now and then, between any two effects.
    #[test]
    fn a_motherd_that_ends_between_any_two_effects_breaks_no_promise(seed in any::<u64>(), length in 1_u64..120) {
        let mut world = World::new(&HOUSE, seed, Temper::Wild);
        for token in 0..length {
            if world.dice.roll(6) == 0 {
                let count = HOUSE.len() as u64;
                let id = Id(usize::try_from(world.dice.roll(count)).unwrap());
                let verb = [Verb::Start, FORCE, Verb::Restart][usize::try_from(world.dice.roll(3)).unwrap()];
                let effects = world.manager.request(token, verb, &[id], ROOT, world.now);
                world.queue.extend(effects);
                for _ in 0..world.dice.roll(4) {
                    world.run_one();
                }
                world.crash();
            } else {
                world.something(token);
            }
        }
        world.stop_all();
    }

    /// Ending the machine ends, within the longest stop timeout and the grace, from any state.
    #[test]
    fn the_machine_ends_from_any_state(seed in any::<u64>(), length in 1_u64..60) {
        let mut world = World::new(&HOUSE, seed, Temper::Wild);
        for token in 0..length {
            world.something(token);
        }
        let begin = world.now;
        let effects = world.manager.end(End::PowerOff, &Cause::request("power-off", ROOT), world.now);
        world.run(effects);
        for _ in 0..50 {
            if world.ended.is_none() {
                world.tick();
            }
        }
        let (how, _left) = world.ended.clone().expect("it ends");
        prop_assert_eq!(how, End::PowerOff);
        // `app`: the stop signal and two commands after it.
        prop_assert!(world.now - begin <= Duration::from_secs(3 * 10) + ENDING_GRACE);
    }
}

#[test]
fn starting_starts_what_is_needed_and_wanted_first() {
    let mut world = World::tame(&HOUSE);
    world.request(1, Verb::Start, &["web"]);
    assert_eq!(world.launches, ["base", "log"], "net waits for base, web for all of them");
    world.exit("base", 0);
    let log = world.id("log");
    world.event(log, Event::Ready);
    world.run(vec![]);
    assert_eq!(world.launches, ["base", "log", "net", "web"]);
    assert_eq!(world.replies[&1], [(world.id("web"), Ok(true))]);
    assert_eq!(world.unit("net").cause.words, "needed by web");
    assert_eq!(world.unit("web").cause.words, "started by uid 0 (pid 4)");
    assert_eq!(world.unit("net").cause.request, Some(ROOT), "who asked is kept along the edges");
}

#[test]
fn what_was_started_for_a_service_alone_stops_with_it() {
    let mut world = World::tame(&[
        ("base", "exec = [\"/b\"]"),
        ("db", "exec = [\"/b\"]\n[dependencies]\nneeds = [\"base\"]"),
        ("log", "exec = [\"/b\"]"),
        ("web", "exec = [\"/b\"]\n[dependencies]\nneeds = [\"db\"]\nwants = [\"log\"]"),
        ("api", "exec = [\"/b\"]\n[dependencies]\nneeds = [\"db\"]"),
    ]);
    world.request(1, Verb::Start, &["web", "api"]);
    world.request(2, STOP, &["web"]);
    assert_eq!(world.stops, ["web", "log"], "api still needs db, and db needs base");
    assert_eq!(
        world.unit("log").cause.words,
        "stopped: web, which it was started for, is not to be up any more"
    );
    assert_eq!(world.unit("log").cause.request, Some(ROOT), "who stopped web is kept");
    world.request(3, Verb::Start, &["base"]);
    world.request(4, STOP, &["api"]);
    assert_eq!(world.stops, ["web", "log", "api", "db"], "base was asked for by name");
}

#[test]
fn a_service_that_is_needed_is_not_stopped_unless_all_who_need_it_are() {
    let mut world = World::tame(&PAIR);
    world.request(1, Verb::Start, &["app"]);
    world.request(2, STOP, &["db"]);
    let why = "needed by app: stop it first or as well, or let --force stop it too";
    assert_eq!(world.replies[&2], [(world.id("db"), Err(why.to_owned()))]);
    assert!(world.up("db") && world.stops.is_empty());
    world.request(3, STOP, &["db", "app"]);
    assert_eq!(world.stops, ["app", "db"]);
}

#[test]
fn a_start_says_whom_it_replaces() {
    let mut world = World::tame(&[
        ("a", "exec = [\"/b\"]\n[dependencies]\nconflicts = [\"b\"]"),
        ("b", "exec = [\"/b\"]"),
    ]);
    world.request(1, Verb::Start, &["b"]);
    world.request(2, Verb::Start, &["a"]);
    assert_eq!(world.unit("a").cause.words, "started by uid 0 (pid 4), in place of b");
    assert_eq!(world.unit("b").cause.words, "stopped: it conflicts with a");
}

const PAIR: [(&str, &str); 2] =
    [("db", "exec = [\"/b\"]"), ("app", "exec = [\"/b\"]\n[dependencies]\nneeds = [\"db\"]")];

#[test]
fn stopping_stops_what_needs_it_first() {
    let mut world = World::tame(&PAIR);
    world.request(1, Verb::Start, &["app"]);
    world.request(2, FORCE, &["db"]);
    assert_eq!(world.stops, ["app", "db"]);
    assert_eq!(world.replies[&2], [(world.id("db"), Ok(true))]);
    assert_eq!(world.unit("app").cause.words, "stopped: it needs db, stopped by uid 0 (pid 4)");
    assert_eq!(*world.state("app"), State::Stopped);
}

#[test]
fn restarting_restarts_what_needs_it_around_it() {
    let mut world = World::tame(&PAIR);
    world.request(1, Verb::Start, &["app"]);
    world.request(2, Verb::Restart, &["db"]);
    assert_eq!(world.stops, ["app", "db"]);
    assert_eq!(world.launches, ["db", "app", "db", "app"]);
    assert_eq!(world.replies[&2], [(world.id("db"), Ok(true))]);
}

#[test]
fn who_needs_a_service_runs_on_while_that_one_is_tried_again() {
    let mut world = World::tame(&PAIR);
    world.request(1, Verb::Start, &["app"]);
    world.exit("db", 1);
    assert!(matches!(world.state("db"), State::Backoff { .. }));
    assert!(world.up("app"));
    world.tick();
    assert!(world.up("db") && world.up("app"));
    assert_eq!(world.unit("db").cause.words, "started again: exited with status 1");
    assert_eq!(world.launches, ["db", "app", "db"]);
}

#[test]
fn a_start_by_hand_forgets_the_waits_and_one_for_another_reason_does_not() {
    let mut world = World::tame(&PAIR);
    world.request(1, Verb::Start, &["db"]);
    let streak = |world: &World| world.unit("db").history.streak;
    for crashes in 1..=3 {
        world.exit("db", 1);
        assert_eq!(streak(&world), crashes);
        world.tick();
    }
    world.request(2, STOP, &["db"]);
    let (id, now) = (world.id("db"), world.now);
    let effects = world.manager.boot(id, &Cause::new("a connection"), now);
    world.run(effects);
    assert!(
        world.up("db") && streak(&world) == 3,
        "whoever connects again and again does not make it crash faster"
    );
    world.request(3, STOP, &["db"]);
    world.request(4, Verb::Start, &["db"]);
    assert!(world.up("db") && streak(&world) == 0);
}

#[test]
fn who_needs_a_service_that_failed_for_good_waits_and_starts_on_its_recovery() {
    let mut world = World::tame(&[
        ("db", "exec = [\"/b\"]\n[restart]\nwhen = \"never\""),
        ("app", "exec = [\"/b\"]\n[dependencies]\nneeds = [\"db\"]"),
        ("top", "exec = [\"/b\"]\n[dependencies]\nneeds = [\"app\"]"),
    ]);
    world.request(1, Verb::Start, &["top"]);
    world.exit("db", 1);
    assert_eq!(world.stops, ["top", "app"]);
    assert_eq!(
        (world.state("db"), world.state("app"), world.state("top")),
        (&State::Failed, &State::Waiting, &State::Waiting)
    );
    assert_eq!(world.manager.waits_for(world.id("app")).unwrap(), "blocked: it needs db, which is failed");
    world.request(2, Verb::Start, &["app"]);
    assert!(world.up("db") && world.up("app") && world.up("top"));
    world.exit("db", 1);
    world.request(3, Verb::Start, &["db"]);
    assert!(world.up("app") && world.up("top"), "whoever was blocked comes back with what it needs");
}

#[test]
fn a_start_that_cannot_succeed_is_answered_with_the_reason() {
    let mut world = World::tame(&[
        ("db", "exec = [\"/b\"]\n[start]\ntype = \"oneshot\""),
        ("app", "exec = [\"/b\"]\n[dependencies]\nneeds = [\"db\"]"),
    ]);
    world.request(1, Verb::Start, &["app"]);
    world.exit("db", 7);
    assert_eq!(
        world.replies[&1],
        [(world.id("app"), Err("blocked: it needs db, which is failed".to_owned()))]
    );
    world.request(2, Verb::Start, &["db"]);
    assert!(!world.replies.contains_key(&2), "it has not finished");
    world.exit("db", 0);
    assert_eq!(world.replies[&2], [(world.id("db"), Ok(true))]);
    assert!(world.up("app"));
}

#[test]
fn starting_stops_what_conflicts_and_waits_until_it_is_gone() {
    let mut world = World::tame(&[
        ("a", "exec = [\"/b\"]\n[dependencies]\nconflicts = [\"b\"]"),
        ("b", "exec = [\"/b\"]"),
    ]);
    for (token, (start, other)) in [("a", "b"), ("b", "a"), ("a", "b")].into_iter().enumerate() {
        world.request(token as u64, Verb::Start, &[start]);
        assert!(world.up(start));
        assert_eq!(*world.state(other), State::Stopped);
    }
    assert_eq!(world.unit("b").cause.words, "stopped: it conflicts with a",);
}

#[test]
fn a_group_of_rivals_takes_the_first_and_comes_up() {
    let mut world = World::tame(&HOUSE);
    world.request(1, Verb::Start, &["both"]);
    assert_eq!(*world.state("both"), State::Done);
    assert!(world.up("old-db"));
    assert_eq!(*world.state("db"), State::Stopped);
}

#[test]
fn beyond_the_limit_a_service_is_failing_and_still_tried() {
    let mut world = World::tame(&[("a", "exec = [\"/b\"]\n[restart]\nlimit = 2\nfactor = 1.0\njitter = 0")]);
    world.request(1, Verb::Start, &["a"]);
    for _ in 0..3 {
        world.exit("a", 1);
        world.tick();
    }
    assert!(world.unit("a").history.failing);
    let before = world.now;
    world.exit("a", 1);
    world.tick();
    assert_eq!(world.now - before, Duration::from_secs(60));
    assert!(world.up("a"));
}

fn generation(files: &[(&str, &str)]) -> Graph {
    let services = files.iter().map(|(name, text)| parse_text(name, text).unwrap()).collect();
    Graph::build(services, &BTreeSet::new()).graph
}

#[test]
fn another_generation_leaves_what_runs_alone_until_it_ends() {
    let mut world =
        World::tame(&[("a", "exec = [\"/old\"]"), ("b", "exec = [\"/b\"]"), ("gone", "exec = [\"/b\"]")]);
    world.request(1, Verb::Start, &["a", "gone"]);
    let new = generation(&[("a", "exec = [\"/new\"]"), ("b", "exec = [\"/new\"]"), ("c", "exec = [\"/b\"]")]);
    let effects = world.manager.reload(new, world.now);
    assert!(effects.is_empty(), "{effects:?}");
    let exec = |world: &World, name| {
        world.manager.graph().service(world.id(name)).program().unwrap().exec.value[0].clone()
    };
    assert!(world.up("a") && world.up("gone"));
    assert_eq!((exec(&world, "a"), exec(&world, "b")), ("/old".to_owned(), "/new".to_owned()));
    assert!(world.manager.graph().is_retired(world.id("gone")));
    world.request(2, Verb::Restart, &["a"]);
    assert_eq!(exec(&world, "a"), "/new");
    world.request(3, STOP, &["gone"]);
    world.request(4, Verb::Start, &["c"]);
    assert!(world.up("c"), "a name that is new");
    let back = generation(&[("gone", "exec = [\"/back\"]")]);
    let effects = world.manager.reload(back, world.now);
    assert!(effects.is_empty() && world.up("a") && world.up("c"), "{effects:?}");
    assert_eq!(exec(&world, "gone"), "/back");
}

#[test]
fn what_a_service_requires_from_now_on_is_started() {
    let mut world = World::tame(&[("web", "exec = [\"/b\"]"), ("db", "exec = [\"/b\"]")]);
    world.request(1, Verb::Start, &["web"]);
    let needy = [("web", "exec = [\"/b\"]\n[dependencies]\nneeds = [\"db\"]"), ("db", "exec = [\"/b\"]")];
    let effects = world.manager.reload(generation(&needy), world.now);
    world.run(effects);
    assert!(world.up("web") && world.up("db") && world.stops.is_empty());
}

#[test]
fn the_machine_ends_when_everything_is_down_and_starts_nothing_meanwhile() {
    let mut world = World::tame(&PAIR);
    world.request(1, Verb::Start, &["app"]);
    let effects = world.manager.end(End::Reboot, &Cause::new(signal_name(libc::SIGINT)), world.now);
    world.run(effects);
    assert_eq!(world.stops, ["app", "db"]);
    assert_eq!(world.ended, Some((End::Reboot, vec![])));
    world.request(2, Verb::Start, &["db"]);
    assert_eq!(world.replies[&2], [(world.id("db"), Err("the machine is ending".to_owned()))]);
}

#[test]
fn an_orphan_is_left_alone_until_somebody_stops_it() {
    let mut world = World::tame(&PAIR);
    let db = world.id("db");
    world.cgroups.insert(db);
    world.others.insert(db);
    world.manager.orphan(db, Goal::Down, world.now);
    world.request(1, Verb::Start, &["app"]);
    assert_eq!(world.launches, [""; 0]);
    assert_eq!(
        world.replies[&1],
        [(world.id("app"), Err("blocked: it needs db, which is running without a record".to_owned()))]
    );
    world.request(2, STOP, &["db"]);
    assert_eq!(*world.state("db"), State::Stopped);
    assert!(world.others.is_empty());
}

#[test]
fn who_was_to_be_started_again_is_once_its_orphans_have_ended() {
    let app = "exec = [\"/b\"]\n[dependencies]\nneeds = [\"web\"]";
    let mut world = World::tame(&[("web", "exec = [\"/b\"]"), ("db", "exec = [\"/b\"]"), ("app", app)]);
    world.request(1, Verb::Start, &["app", "db"]);
    world.request(2, STOP, &["db"]);
    let stops = world.stops.len();
    world.exit("web", 1);
    assert!(matches!(world.state("web"), State::Backoff { .. }));
    for (name, runs) in [("web", true), ("db", false)] {
        let id = world.id(name);
        world.cgroups.insert(id);
        world.others.insert(id);
        let goal = world.unit(name).goal_beside_others();
        world.manager.orphan(id, goal, world.now);
        world.idle();
        assert_eq!(*world.state(name), State::Orphan, "nothing is started beside them");
        world.others.remove(&id);
        world.event(id, Event::Gone);
        world.run(vec![]);
        assert_eq!(world.up(name), runs, "{name}");
    }
    assert!(world.up("app") && world.stops.len() == stops, "{:?}", world.stops);
}

#[test]
fn a_place_is_given_to_another_service_once_nobody_asks_about_the_one_before() {
    let graph = |names: &[&str]| {
        let services = names.iter().map(|name| parse_text(name, "exec = [\"/bin/x\"]").unwrap());
        Graph::build(services.collect(), &BTreeSet::new()).graph
    };
    let mut manager = Manager::new(graph(&["job-0", "web"]));
    let id = |manager: &Manager, name: &str| manager.graph().find(name).unwrap();
    let web = id(&manager, "web");
    for number in 0..1000 {
        let (old, new) = (format!("job-{number}"), format!("job-{}", number + 1));
        let place = id(&manager, &old);
        assert!(manager.reload(graph(&["web"]), BOOT).is_empty());
        manager.reset(place, true);
        manager.grow(graph(&["web", &new]));
        assert_eq!((id(&manager, &new), id(&manager, "web"), manager.graph().len()), (place, web, 2));
        assert!(!manager.graph().is_retired(place) && manager.graph().find(&old).is_none());
    }
    // One of which somebody still knows the id keeps its place.
    let place = id(&manager, "job-1000");
    assert!(manager.reload(graph(&["web"]), BOOT).is_empty());
    manager.reset(place, false);
    manager.grow(graph(&["web", "other"]));
    assert_ne!(id(&manager, "other"), place);
}

#[test]
fn while_a_child_is_on_its_way_others_are_launched_and_nothing_else_is_done() {
    let (flying, other) = (Id(0), Id(1));
    for effect in [
        Effect::Turn(flying),
        Effect::Turn(other),
        Effect::Service(other, Act::Launch),
        Effect::Service(other, Act::Look),
    ] {
        assert!(effect.may_overlap(flying), "{effect:?}");
    }
    for effect in [
        Effect::Service(flying, Act::Launch),
        Effect::Service(flying, Act::Look),
        Effect::Service(flying, Act::Kill),
        Effect::Service(other, Act::Kill),
        Effect::Service(other, Act::Sweep),
        Effect::Answer { token: 1 },
        Effect::End { how: End::PowerOff, left: vec![] },
    ] {
        assert!(!effect.may_overlap(flying), "{effect:?}");
    }
}
