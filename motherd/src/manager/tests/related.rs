//! A motherd that finds other relations in the files than the one before it: they stop nothing that runs.

use super::*;
use crate::service::Relation;

impl World {
    /// The next motherd, with the records of this one and these files, as `daemon::adopt` does it.
    fn crash_into(&mut self, files: Graph) {
        let was = self.manager.graph().relations();
        let records = self.units();
        let mut successor = Manager::new(files);
        for (id, record) in successor.graph().ids().zip(records) {
            successor.restore(id, record);
        }
        self.queue.clear();
        self.parked.clear();
        self.sweeping.clear();
        self.manager = successor;
        let mut effects = Vec::new();
        if was != self.manager.graph().relations() {
            effects = self.manager.related_otherwise(self.now);
        }
        effects.extend(self.manager.resume(self.now));
        self.run(effects);
    }
}

fn file(relation: Option<&str>) -> String {
    let dependencies = relation.map(|relation| format!("[dependencies]\n{relation} = [\"foo\"]\n"));
    format!("exec = [\"/b\"]\n{}", dependencies.unwrap_or_default())
}

#[test]
fn what_a_running_service_requires_from_now_on_is_started() {
    let kinds = [("exec = [\"/b\"]", false), ("exec = [\"/b\"]\nstart.type = \"oneshot\"", true)];
    for relation in Relation::ALL.map(Relation::key) {
        for (foo, is_oneshot) in kinds {
            if relation == "prepared_by" && !is_oneshot {
                continue;
            }
            let mut world = World::tame(&[("foo", foo), ("web", &file(None))]);
            world.request(1, Verb::Start, &["web"]);
            // So there is a record that it is down.
            world.request(2, Verb::Start, &["foo"]);
            world.request(3, STOP, &["foo"]);
            let (stops, launches) = (world.stops.len(), world.launches.len());
            world.crash_into(generation(&[("foo", foo), ("web", &file(Some(relation)))]));
            world.idle();
            let requires = matches!(relation, "needs" | "milestone" | "bound_to" | "prepared_by");
            // What is bound to somebody never runs without it: it ends, and begins after that.
            let (stopped, launched) = match relation {
                "bound_to" => (1, 2),
                _ => (0, usize::from(requires)),
            };
            let is_oneshot_done = is_oneshot && requires;
            if is_oneshot_done {
                world.exit("foo", 0);
                world.idle();
            }
            assert!(world.up("web"), "{relation}, {foo}");
            assert_eq!(world.stops.len() - stops, stopped, "{relation}, {foo}: {:?}", world.stops);
            assert_eq!(world.launches.len() - launches, launched, "{relation}, {foo}");
        }
    }
}

#[test]
fn what_nobody_wants_any_more_stays() {
    let system = |wants: &str| format!("[dependencies]\nwants = [{wants}]\n");
    let files = |wants: &str| [("foo", file(None)), ("system", system(wants)), ("web", file(None))];
    let as_files = |files: &[(&'static str, String); 3]| {
        generation(&files.each_ref().map(|(name, text)| (*name, text.as_str())))
    };
    let both = files("\"foo\", \"web\"");
    let mut world = World::tame(&both.each_ref().map(|(name, text)| (*name, text.as_str())));
    world.request(1, Verb::Start, &["system"]);
    world.crash_into(as_files(&files("\"web\"")));
    world.idle();
    assert!(world.stops.is_empty() && world.up("foo"), "{:?}", world.stops);
    world.request(2, STOP, &["system"]);
    assert_eq!(world.stops, ["web"], "foo is there by itself now");
}

#[test]
fn the_same_relations_decide_as_before() {
    let mut world = World::tame(&[("foo", &file(None)), ("web", &file(Some("needs")))]);
    world.request(1, Verb::Start, &["web"]);
    // The one before ended when it had recorded half of what a stop means.
    let mut stopped = Manager::new(world.manager.graph().clone());
    for (id, record) in world.manager.graph().ids().zip(world.units()) {
        stopped.restore(id, if id == world.id("foo") { Unit::default() } else { record });
    }
    world.mains.remove(&world.id("foo"));
    world.manager = stopped;
    world.crash_into(generation(&[("foo", &file(None)), ("web", &file(Some("needs")))]));
    world.idle();
    assert_eq!(world.stops, ["web"]);
}
