//! A motherd that believes no record, and one that finds some of them lost: what it does not know stops nobody.

use super::*;
use crate::simulate::{Dice as Random, Kinds, graph};

const LOOPBACK: (&str, &str) = ("loopback", "exec = [\"/b\"]\nstart.type = \"oneshot\"");
const GROUP: (&str, &str) = ("ready", "[dependencies]\nneeds = [\"loopback\"]");

impl World {
    /// The next motherd, that finds the records of these alone; of others it knows what runs, as `daemon::adopt` does.
    fn crash_without(&mut self, believed: impl Fn(Id) -> bool, safe: bool) {
        let before = std::mem::replace(&mut self.manager, Manager::new(Graph::default()));
        self.manager = Manager::new(before.graph().clone());
        if safe {
            self.manager.hold();
        }
        self.queue.clear();
        self.parked.clear();
        self.sweeping.clear();
        for id in before.graph().ids() {
            let others = self.others.contains(&id) || self.commands.contains_key(&id);
            match self.mains.get(&id) {
                _ if believed(id) => self.manager.restore(id, before.unit(id).clone()),
                Some(main) => self.manager.restore(id, Unit::default().found(*main, self.now)),
                None if others => {
                    self.manager.orphan(id, Goal::Down, self.now);
                    self.manager.unrecorded(id);
                }
                None => {
                    // Nothing of it runs: its cgroup is nobody's.
                    self.cgroups.remove(&id);
                    self.manager.unrecorded(id);
                }
            }
        }
    }

    /// Time passes, and what tells nothing new is told.
    pub(super) fn idle(&mut self) {
        for id in self.manager.graph().ids().collect::<Vec<_>>() {
            self.event(id, Event::Timer);
            let effects = self.manager.conditions(id, &[], self.now);
            self.run(effects);
        }
        for _ in 0..20 {
            self.now += Duration::from_secs(1);
            self.tick();
        }
    }
}

#[test]
fn in_safe_mode_a_finished_oneshot_without_a_process_stops_nobody_who_needs_it() {
    for relation in ["needs", "bound_to"] {
        let web = format!("exec = [\"/b\"]\n[dependencies]\n{relation} = [\"loopback\"]");
        let app = format!("exec = [\"/b\"]\n[dependencies]\n{relation} = [\"ready\"]");
        let mut world = World::tame(&[LOOPBACK, GROUP, ("web", &web), ("app", &app)]);
        world.request(1, Verb::Start, &["web", "app"]);
        world.exit("loopback", 0);
        let records = world.units();
        let mains = world.mains.clone();
        assert_eq!((mains.len(), world.up("web"), world.up("app")), (2, true, true), "{relation}");

        world.crash_without(|_| false, true);
        world.idle();
        assert_eq!((&world.stops, &world.mains), (&vec![], &mains), "{relation}");

        // The next one believes the records again; those of what was found are of the one in safe mode.
        let found = world.units().into_iter().zip(records);
        world.crash_to(found.map(|(found, record)| if found.is_active() { found } else { record }).collect());
        world.idle();
        assert_eq!((&world.stops, &world.mains), (&vec![], &mains), "{relation}");
        assert!(world.up("loopback"), "{relation}");
        assert_eq!(world.launches.len(), 3, "{relation}: {:?}", world.launches);
    }
}

#[test]
fn in_safe_mode_who_is_stopped_by_somebody_takes_along_who_needs_it_and_nobody_else() {
    let mut world = World::tame(&[
        ("log", "exec = [\"/b\"]"),
        ("db", "exec = [\"/b\"]\n[dependencies]\nneeds = [\"log\"]"),
        ("web", "exec = [\"/b\"]\n[dependencies]\nneeds = [\"db\"]"),
        ("system", "[dependencies]\nwants = [\"web\", \"log\"]"),
    ]);
    world.request(1, Verb::Start, &["system"]);
    world.crash_without(|_| false, true);
    world.request(2, FORCE, &["db"]);
    assert_eq!(
        world.stops,
        ["web", "db"],
        "log was started for them, or for somebody of whom nothing is known"
    );
    assert_eq!(world.replies[&2], [(world.id("db"), Ok(true))]);
}

#[test]
fn in_safe_mode_the_record_of_whom_nothing_is_known_stays_until_somebody_stops_it() {
    let mut world = World::tame(&[LOOPBACK, ("web", "exec = [\"/b\"]")]);
    world.request(1, Verb::Start, &["web", "loopback"]);
    world.exit("loopback", 0);
    let (web, loopback) = (world.id("web"), world.id("loopback"));
    // Its main process has ended, and another one of it is there still.
    world.mains.remove(&web);
    world.others.insert(web);
    world.crash_without(|_| false, true);
    let recorded = |world: &World| [web, loopback].map(|id| world.manager.is_to_be_recorded(id));
    assert_eq!((world.state("web"), recorded(&world)), (&State::Orphan, [false, false]));
    world.others.remove(&web);
    world.event(web, Event::Gone);
    world.run(vec![]);
    assert_ne!(*world.state("web"), State::Orphan);
    assert_eq!(
        recorded(&world),
        [false, false],
        "it ended by itself: the next motherd hears of that as well"
    );
    world.request(2, STOP, &["loopback"]);
    assert_eq!(recorded(&world), [false, true]);
}

#[test]
fn what_was_started_for_somebody_without_a_record_as_well_stays() {
    let mut world = World::tame(&[
        ("log", "exec = [\"/b\"]"),
        ("web", "exec = [\"/b\"]\n[dependencies]\nwants = [\"log\"]"),
        ("system", "[dependencies]\nwants = [\"web\", \"log\"]"),
    ]);
    world.request(1, Verb::Start, &["system"]);
    let system = world.id("system");
    world.crash_without(|id| id != system, false);
    world.request(2, STOP, &["web"]);
    assert_eq!(world.stops, ["web"]);
}

#[test]
fn what_happens_to_one_without_a_record_is_known_from_then_on() {
    let mut world =
        World::tame(&[LOOPBACK, ("app", "exec = [\"/b\"]\n[dependencies]\nneeds = [\"loopback\"]")]);
    world.request(1, Verb::Start, &["app"]);
    world.exit("loopback", 0);
    let app = world.id("app");
    world.crash_without(|id| id == app, false);
    world.request(2, Verb::Start, &["loopback"]);
    assert_eq!((world.launches.len(), world.stops.len()), (3, 0), "it is done again, and app runs");
    world.exit("loopback", 0);
    world.request(3, FORCE, &["loopback"]);
    assert_eq!(world.stops, ["app"]);
    world.request(4, Verb::Start, &["app"]);
    world.exit("loopback", 0);
    world.crash_without(|id| id == app, false);
    world.request(5, Verb::Start, &["loopback"]);
    for _ in 0..20 {
        world.exit("loopback", 1);
        world.tick();
    }
    assert_eq!(*world.state("loopback"), State::Failed);
    assert_eq!(world.stops, ["app", "app"], "it needs loopback, which failed");
}

#[test]
fn who_is_without_a_record_and_asked_for_is_started() {
    let mut world =
        World::tame(&[LOOPBACK, ("web", "exec = [\"/b\"]\n[dependencies]\nneeds = [\"loopback\"]")]);
    world.request(1, Verb::Start, &["web"]);
    world.exit("loopback", 0);
    let web = world.id("web");
    world.crash_without(|id| id == web, false);
    world.exit("web", 1);
    world.idle();
    assert_eq!(world.launches, ["loopback", "web", "loopback"], "it ended, and what it needs comes first");
    world.exit("loopback", 0);
    assert_eq!(world.launches, ["loopback", "web", "loopback", "web"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Whatever runs and whatever it depends on: a motherd in safe mode starts and stops nothing, and as long as nothing
    /// happens neither does the one after it.
    #[test]
    fn a_life_in_safe_mode_stops_nobody(seed in any::<u64>(), length in 1_u64..80) {
        let graph = graph(&Kinds::new(), &mut Random::new(seed), seed, 0);
        let mut world = World::of(graph, seed, Temper::Wild);
        for token in 0..length {
            world.something(token);
        }
        let ids: Vec<Id> = world.manager.graph().ids().collect();
        let records = world.units();
        let (mains, others, commands) = (world.mains.clone(), world.others.clone(), world.commands.clone());
        let (stops, launches) = (world.stops.len(), world.launches.len());
        world.crash_without(|_| false, true);
        world.idle();
        prop_assert_eq!((world.stops.len(), world.launches.len()), (stops, launches));
        prop_assert_eq!(&world.mains, &mains);
        prop_assert_eq!((&world.others, &world.commands), (&others, &commands));
        for (id, record) in ids.iter().zip(&records) {
            prop_assert!(!mains.contains_key(id) || world.manager.unit(*id).is_up(), "{:?}", record);
        }
    }
}
