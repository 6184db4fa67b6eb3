//! What `motherctl why` says, situation by situation, as people read it.

use super::*;
use crate::{
    ctl::render::{self, Style},
    daemon::why::explained,
    eventlog::{Entry, What},
    supervise::RECORD_LOST,
};

const EXEC: &str = "exec = [\"/bin/x\"]\n";
const SYSTEM: (&str, &str) = ("system", "[dependencies]\nwants = [\"web\"]\n");

fn service(more: &str) -> String {
    format!("{EXEC}{more}")
}

/// A world in which the boot begins `system`.
fn booted(files: &[(&str, &str)]) -> World {
    let mut world = World::tame(files);
    boot(&mut world);
    world
}

fn boot(world: &mut World) {
    let cause = Cause::new("boot: system");
    let effects = world.manager.boot(world.id("system"), &cause, world.now);
    world.run(effects);
}

/// What a motherd that saw all of it would have in its event log.
fn log() -> Vec<Entry> {
    let entry = |sequence, seconds, service: &str, what, words: &str, request| Entry {
        sequence,
        at: Duration::from_secs(seconds),
        realtime: Duration::from_secs(1_764_300_000 + seconds),
        service: service.to_owned(),
        what,
        state: String::new(),
        words: words.to_owned(),
        request,
    };
    vec![
        entry(1, 10, "", What::Manager, "boot: system", None),
        entry(2, 12, "web", What::Asked, "start requested by uid 0 (pid 4)", Some(ROOT)),
        entry(3, 13, "db", What::Asked, "start requested by uid 0 (pid 4)", Some(ROOT)),
    ]
}

fn text(world: &World, name: &str, events: &[Entry]) -> String {
    render::why(&explained(&world.manager, world.id(name), events, world.now), Style::PLAIN)
}

/// The block without the events that follow it.
fn check(world: &World, name: &str, expected: &str) {
    let found = text(world, name, &log());
    let block = found.split("\n\n").next().unwrap().trim_end();
    assert_eq!(block, expected.trim_end(), "\n--- found\n{block}");
}

#[test]
fn one_that_was_never_started() {
    let world = World::tame(&[("web", EXEC)]);
    check(
        &world,
        "web",
        "\
web: stopped
  why        not started
  meant      to be down: nobody asked for it
",
    );
}

#[test]
fn one_that_somebody_started() {
    let mut world = World::tame(&[("web", EXEC)]);
    world.request(1, Verb::Start, &["web"]);
    check(
        &world,
        "web",
        "\
web: running for 0
  why        started by uid 0 (pid 4)
  asked for  itself: started by uid 0 (pid 4), 2025-11-28T03:20:12Z
",
    );
}

#[test]
fn one_that_a_boot_wants_through_others() {
    let files = [
        SYSTEM,
        ("web", &service("[dependencies]\nneeds = [\"db\"]\n")),
        ("db", &service("[dependencies]\nneeds = [\"disk\"]\n")),
        ("disk", EXEC),
    ];
    let world = booted(&files);
    check(
        &world,
        "disk",
        "\
disk: running for 0
  why        needed by db
  asked for  system wants web, which needs db, which needs it: boot: system, 2025-11-28T03:20:10Z
",
    );
}

#[test]
fn one_that_several_have_started() {
    let files = [
        SYSTEM,
        ("web", &service("[dependencies]\nneeds = [\"db\"]\n")),
        ("mail", &service("[dependencies]\nbound_to = [\"db\"]\n")),
        ("db", EXEC),
    ];
    let mut world = booted(&files);
    world.request(1, Verb::Start, &["mail"]);
    world.request(2, Verb::Start, &["db"]);
    check(
        &world,
        "db",
        "\
db: running for 0
  why        needed by web
  asked for  itself: start requested by uid 0 (pid 4), 2025-11-28T03:20:13Z
             mail is bound to it: started by uid 0 (pid 4)
             system wants web, which needs it: boot: system, 2025-11-28T03:20:10Z
  not known  when mail was asked for: the event log has no more of it
",
    );
}

#[test]
fn one_whose_need_has_failed() {
    let files = [
        SYSTEM,
        ("web", &service("[dependencies]\nneeds = [\"db\"]\n")),
        ("db", &service("[start]\ntype = \"notify\"\n[restart]\nwhen = \"never\"\n")),
    ];
    let mut world = booted(&files);
    world.exit("db", 3);
    world.now += Duration::from_secs(90);
    check(
        &world,
        "web",
        "\
web: waiting (blocked) for 1m 30s
  why        wanted by system
  asked for  system wants it: boot: system, 2025-11-28T03:20:10Z
  held by    it needs db, which is failed
               exited with status 3 before it was ready
",
    );
    check(
        &world,
        "db",
        "\
db: failed for 1m 30s
  why        exited with status 3 before it was ready
  asked for  system wants web, which needs it: boot: system, 2025-11-28T03:20:10Z
  last exit  exited with status 3, 1m 30s ago
",
    );
}

#[test]
fn one_whose_need_waits_for_a_condition_two_steps_away() {
    let files = [
        SYSTEM,
        ("web", &service("[dependencies]\nneeds = [\"db\"]\n")),
        ("db", &service("[dependencies]\nneeds = [\"net\"]\n")),
        ("net", "[[condition]]\nnetwork = \"route\"\ntimeout = \"30s\"\n[[condition]]\npath = \"/srv/x\"\n"),
    ];
    let mut world = World::tame(&files);
    let net = world.id("net");
    world.lacking.extend([(net, 0), (net, 1)]);
    boot(&mut world);
    world.now += Duration::from_secs(12);
    check(
        &world,
        "web",
        "\
web: waiting for 12s
  why        wanted by system
  asked for  system wants it: boot: system, 2025-11-28T03:20:10Z
  held by    it needs db, which is waiting itself
               it needs net, which is waiting for a condition
                 no default route is there
                 /srv/x is not there; others go on without it in 18s
",
    );
    check(
        &world,
        "net",
        "\
net: waiting for 12s
  why        needed by db
  asked for  system wants web, which needs db, which needs it: boot: system, 2025-11-28T03:20:10Z
  held by    no default route is there
             /srv/x is not there
  next       others go on without it in 18s
",
    );
}

#[test]
fn one_that_crashes_and_is_tried_again() {
    let mut world = booted(&[
        SYSTEM,
        ("web", &service("[restart]\njitter = 0.0\ndelay = \"2s\"\nmax_delay = \"60s\"\n")),
    ]);
    for _ in 0..3 {
        world.exit("web", 7);
        world.tick();
    }
    world.now += Duration::from_millis(500);
    world.exit("web", 7);
    check(
        &world,
        "web",
        "\
web: backoff for 0
  why        exited with status 7
  asked for  system wants it: boot: system, 2025-11-28T03:20:10Z
  next       it is tried again in 16s
  restarts   4
  last exit  exited with status 7, just now
",
    );
}

#[test]
fn one_that_the_kernel_killed_for_its_memory() {
    let mut world = booted(&[SYSTEM, ("web", EXEC)]);
    world.die(world.id("web"), ExitHow::OutOfMemory { limit_bytes: 64 << 20 }, libc::SIGKILL);
    world.run(vec![]);
    check(
        &world,
        "web",
        "\
web: backoff for 0
  why        killed: out of memory (memory.max 64M)
  asked for  system wants it: boot: system, 2025-11-28T03:20:10Z
  next       it is tried again in 108ms
  restarts   1
  last exit  killed: out of memory, just now
",
    );
}

#[test]
fn one_that_its_health_check_ended() {
    let mut world = booted(&[SYSTEM, ("web", EXEC)]);
    let why = "health: tcp 127.0.0.1:80 failed 3 times: ECONNREFUSED".to_owned();
    world.temper = Temper::Deaf;
    world.event(world.id("web"), Event::Sick { why, signal: None });
    world.run(vec![]);
    world.now += Duration::from_secs(2);
    check(
        &world,
        "web",
        "\
web: stopping for 2s
  why        health: tcp 127.0.0.1:80 failed 3 times: ECONNREFUSED
  asked for  system wants it: boot: system, 2025-11-28T03:20:10Z
  held by    the stop signal was sent, and not all of it has ended
  next       SIGKILL follows in 8s
  restarts   1
",
    );
}

#[test]
fn one_that_has_not_said_that_it_is_ready() {
    let mut world = booted(&[SYSTEM, ("web", &service("[start]\ntype = \"notify\"\ntimeout = \"30s\"\n"))]);
    world.now += Duration::from_secs(1);
    check(
        &world,
        "web",
        "\
web: starting for 1s
  why        wanted by system
  asked for  system wants it: boot: system, 2025-11-28T03:20:10Z
  held by    it runs, and has not said READY=1
  next       the start times out in 29s
",
    );
    check(
        &world,
        "system",
        "\
system: waiting for 1s
  why        boot: system
  asked for  itself: boot: system, 2025-11-28T03:20:10Z
  held by    it wants web, which is starting
               it runs, and has not said READY=1; the start times out in 29s
",
    );
}

#[test]
fn one_that_is_stopped_with_what_it_needs() {
    let mut world = World::tame(&[("web", &service("[dependencies]\nneeds = [\"db\"]\n")), ("db", EXEC)]);
    world.request(1, Verb::Start, &["web"]);
    world.request(2, FORCE, &["db"]);
    check(
        &world,
        "web",
        "\
web: stopped for 0
  why        stopped: it needs db, stopped by uid 0 (pid 4)
  meant      to be down
  last exit  killed by SIGTERM, just now
",
    );
}

#[test]
fn one_that_stops_after_another_one() {
    let mut world =
        World::new(&[("web", &service("[dependencies]\nneeds = [\"db\"]\n")), ("db", EXEC)], 1, Temper::Deaf);
    world.request(1, Verb::Start, &["web"]);
    world.request(2, FORCE, &["db"]);
    world.now += Duration::from_secs(4);
    check(
        &world,
        "db",
        "\
db: running for 4s
  why        needed by web; asked for by uid 0 (pid 4)
  meant      to be down: stopped by uid 0 (pid 4)
  held by    web, which comes after it and is stopping, stops first
               the stop signal was sent, and not all of it has ended; SIGKILL follows in 6s
",
    );
}

#[test]
fn one_that_a_rival_has_taken_the_place_of_and_one_that_waits_for_its_rival() {
    let files = [("web", EXEC), ("proxy", &service("[dependencies]\nconflicts = [\"web\"]\n"))];
    let mut world = World::new(&files, 1, Temper::Deaf);
    world.request(1, Verb::Start, &["web"]);
    world.request(2, Verb::Start, &["proxy"]);
    check(
        &world,
        "proxy",
        "\
proxy: waiting for 0
  why        started by uid 0 (pid 4), in place of web
  asked for  itself: started by uid 0 (pid 4), in place of web
  held by    it conflicts with web, which is stopping
               the stop signal was sent, and not all of it has ended; SIGKILL follows in 10s
  not known  when proxy was asked for: the event log has no more of it
",
    );
    check(
        &world,
        "web",
        "\
web: stopping for 0
  why        stopped: it conflicts with proxy; asked for by uid 0 (pid 4)
  meant      to be down
  held by    the stop signal was sent, and not all of it has ended
  next       SIGKILL follows in 10s
",
    );
}

#[test]
fn one_that_prepares_itself_with_a_command() {
    let mut world = World::tame(&[("web", &service("[start]\npre = [\"/bin/p\"]\n"))]);
    world.temper = Temper::Wild;
    world.request(1, Verb::Start, &["web"]);
    let id = world.id("web");
    world.manager.units[id.0].state = State::Preparing {
        command: Command {
            hook: crate::supervise::Hook::Pre,
            index: 0,
            process: Some(crate::supervise::Main { pid: 77, launched: BOOT }),
            deadline: BOOT + Duration::from_secs(90),
            overdue: false,
        },
    };
    check(
        &world,
        "web",
        "\
web: starting for 0
  why        started by uid 0 (pid 4)
  asked for  itself: started by uid 0 (pid 4), 2025-11-28T03:20:12Z
  held by    start.pre[0] is at work (pid 77)
  next       the start times out in 1m 30s
",
    );
}

#[test]
fn one_whose_exit_nobody_saw() {
    let mut world = booted(&[SYSTEM, ("web", EXEC)]);
    world.mains.clear();
    world.event(world.id("web"), Event::Lost);
    world.run(vec![]);
    check(
        &world,
        "web",
        "\
web: backoff for 0
  why        lost: its main process is gone, and no exit was recorded
  asked for  system wants it: boot: system, 2025-11-28T03:20:10Z
  next       it is tried again in 108ms
  restarts   1
  not known  how its main process ended: motherd was not there, and nobody recorded it
",
    );
}

#[test]
fn one_that_was_found_without_its_record_and_one_that_nobody_started() {
    let mut world = World::tame(&[("web", EXEC), ("old", EXEC)]);
    let cause = Cause::new(RECORD_LOST);
    let main = crate::supervise::Main { pid: 77, launched: BOOT };
    let unit = Unit {
        state: State::Running { main },
        since: BOOT,
        cause: cause.clone(),
        goal: Goal::Up,
        asked: cause,
        explicit: true,
        ..Unit::default()
    };
    world.manager.restore(world.id("web"), unit);
    world.manager.orphan(world.id("old"), Goal::Down, BOOT);
    check(
        &world,
        "web",
        "\
web: running for 0
  why        found by its cgroup and its process: its record was lost
  asked for  itself: found by its cgroup and its process: its record was lost
  not known  who asked for it, and what became of it before: its record was lost
",
    );
    check(
        &world,
        "old",
        "\
old: orphan for 0
  why        its cgroup has processes that no record knows; stop it to end them
  meant      to be down: nobody asked for it
  not known  who started its processes: no record has them
",
    );
}

#[test]
fn one_in_safe_mode() {
    let mut world = World::tame(&[SYSTEM, ("web", EXEC)]);
    world.manager.hold();
    boot(&mut world);
    check(
        &world,
        "web",
        "\
web: waiting for 0
  why        wanted by system
  asked for  system wants it: boot: system, 2025-11-28T03:20:10Z
  held by    motherd is in safe mode and starts nothing, because it died early again and again; once the cause is mended, kill -9 of it ends that, and no service notices
",
    );
}

#[test]
fn who_asked_when_is_said_as_long_as_the_event_log_has_it() {
    let mut world = World::tame(&[("web", EXEC)]);
    world.request(1, Verb::Start, &["web"]);
    let whole = text(&world, "web", &log());
    assert!(whole.contains("asked for  itself: started by uid 0 (pid 4), 2025-11-28T03:20:12Z\n"), "{whole}");
    // The log has gone round: its first entry is a later one.
    let mut later = log();
    later[0].sequence = 5000;
    later.truncate(1);
    let rest = text(&world, "web", &later);
    assert!(rest.contains("asked for  itself: started by uid 0 (pid 4)\n"), "{rest}");
    assert!(rest.contains("not known  when web was asked for"), "{rest}");
    assert!(rest.contains("what happened to it before 2025-11-28T03:20:10"), "{rest}");
}

#[test]
fn a_graph_of_diamonds_is_explained_once_each() {
    let mut files = vec![("n0".to_owned(), service("[start]\ntype = \"notify\"\n"))];
    for layer in 1..20 {
        let below = if layer == 1 { "\"n0\"".to_owned() } else { format!("\"a{0}\", \"b{0}\"", layer - 1) };
        for side in ["a", "b"] {
            let needs = format!("[dependencies]\nneeds = [{below}]\n");
            files.push((format!("{side}{layer}"), service(&needs)));
        }
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let mut world = World::tame(&files);
    world.request(1, Verb::Start, &["a19"]);
    let lines = text(&world, "a19", &[]).lines().count();
    assert!((20..150).contains(&lines), "{lines} lines");
}
