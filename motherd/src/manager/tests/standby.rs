//! The process that waits to be the next one: when there is one, and what becomes of it.

use super::*;

const WEB: (&str, &str) = ("web", "exec = [\"/b\"]\nstandby = true\n[restart]\nlimit = 3\nnever_on = [9]");
const LAZY: (&str, &str) =
    ("web", "exec = [\"/b\"]\nstandby = true\n[[socket]]\nlisten = \"unix:/s\"\nlazy = true");

fn parked(world: &World) -> Option<u32> {
    let id = world.id("web");
    let known = match world.manager.unit(id).standby {
        Standby::Parked { process } => Some(process.pid),
        Standby::None | Standby::Parking | Standby::Later { .. } => None,
    };
    assert_eq!(world.parked.get(&id).copied(), known);
    known
}

#[test]
fn a_crash_is_followed_by_the_process_that_waited_and_another_one_waits() {
    let mut world = World::tame(&[WEB]);
    world.request(1, Verb::Start, &["web"]);
    let first = parked(&world).expect("it is made once the service runs");
    world.exit("web", 1);
    assert_eq!(parked(&world), Some(first), "it waits out the delay with it");
    world.tick();
    assert_eq!(world.unit("web").main().map(|main| main.pid), Some(first));
    assert_eq!(parked(&world), None, "what was released has the processors first");
    assert_eq!(world.manager.next_deadline(), Some(world.now + PARK_NEXT));
    world.tick();
    assert!(parked(&world).is_some_and(|second| second != first));
}

#[test]
fn what_ends_a_service_ends_what_waits() {
    for end in ["stop", "fail", "end"] {
        let mut world = World::tame(&[WEB]);
        world.request(1, Verb::Start, &["web"]);
        assert!(parked(&world).is_some());
        match end {
            "stop" => world.request(2, STOP, &["web"]),
            "fail" => world.exit("web", 9),
            _ => {
                let effects = world.manager.end(End::Reboot, &Cause::new("now"), world.now);
                world.run(effects);
            }
        }
        assert_eq!(parked(&world), None, "{end}");
    }
}

#[test]
fn a_restart_that_somebody_asked_for_makes_everything_anew() {
    let mut world = World::tame(&[WEB]);
    world.request(1, Verb::Start, &["web"]);
    let first = parked(&world).unwrap();
    world.request(2, Verb::Restart, &["web"]);
    assert_ne!(world.unit("web").main().map(|main| main.pid), Some(first));
    assert!(parked(&world).is_some_and(|second| second != first));
}

#[test]
fn a_lazy_service_that_is_down_has_one_from_when_it_is_loaded() {
    let mut world = World::tame(&[LAZY]);
    assert_eq!(parked(&world), None, "nothing was looked at yet");
    let effects = world.manager.resume(world.now);
    world.run(effects);
    let first = parked(&world).expect("a connection is to find it");
    let web = world.id("web");
    let effects = world.manager.boot(web, &Cause::new("a connection"), world.now);
    world.run(effects);
    assert_eq!(world.unit("web").main().map(|main| main.pid), Some(first));
    world.tick();
    assert!(parked(&world).is_some(), "for a crash");
    world.request(1, STOP, &["web"]);
    assert!(parked(&world).is_some(), "for the next connection");
    assert_eq!(*world.state("web"), State::Stopped);
}

#[test]
fn another_definition_has_another_one() {
    let mut world = World::tame(&[LAZY]);
    let effects = world.manager.resume(world.now);
    world.run(effects);
    let first = parked(&world).unwrap();
    let effects = world.manager.reload(generation(&[("web", &LAZY.1.replace("/b", "/c"))]), world.now);
    world.run(effects);
    assert!(parked(&world).is_some_and(|second| second != first));
    world.request(1, Verb::Start, &["web"]);
    world.tick();
    let kept = parked(&world).unwrap();
    let effects = world.manager.reload(generation(&[("web", &LAZY.1.replace("/b", "/d"))]), world.now);
    world.run(effects);
    assert_eq!(parked(&world), None, "the next start is that of the new file; it was {kept}");
    let effects = world.manager.reload(generation(&[]), world.now);
    world.run(effects);
    assert_eq!(parked(&world), None);
}

#[test]
fn one_that_cannot_be_made_is_tried_again_later() {
    let mut world = World::tame(&[WEB]);
    world.request(1, Verb::Start, &["web"]);
    let (web, first) = (world.id("web"), parked(&world).unwrap());
    world.parked.remove(&web);
    world.event(web, Event::Standby(StandbyEvent::Gone { failed: true }));
    world.run(vec![]);
    assert_eq!(parked(&world), None);
    assert_eq!(world.manager.next_deadline(), Some(world.now + PARK_AGAIN));
    world.tick();
    assert!(parked(&world).is_some_and(|second| second != first));
    assert!(world.up("web"), "it did not notice");
}
