//! The table of relations and events: what `docs/services.md` publishes, cell by cell a test.
//!
//! `x` is the service that names `d`. The text of each cell is in this file, the published table is made of it, and what
//! each cell says is tried.

use super::*;

/// What happens, in the order of the columns.
const COLUMNS: [&str; 6] = [
    "`X` starts, `D` is down",
    "`D` fails to start",
    "`D` crashes and is tried again",
    "`D` ends or fails for good",
    "somebody stops `D`",
    "`X` is stopped",
];

/// A relation as it is written in the file of `x`, and for each column what is published and what shows it.
struct Row {
    name: &'static str,
    keys: &'static str,
    cells: [(&'static str, Shown); COLUMNS.len()],
}

type Shown = fn(&mut Case);

/// The two services, and the row they are in.
struct Case {
    world: World,
    keys: &'static str,
}

impl Case {
    /// `d` is of this kind; nothing is started.
    fn with(&mut self, kind: &str) -> &mut World {
        let d = format!("exec = [\"/b\"]\n{kind}");
        let x = format!("exec = [\"/b\"]\n[dependencies]\n{}", self.keys);
        self.world = World::tame(&[("d", &d), ("x", &x)]);
        &mut self.world
    }

    /// `x` was started, and `d` with it or before it.
    fn up(&mut self, kind: &str) -> &mut World {
        let world = self.with(kind);
        world.request(1, Verb::Start, &["x"]);
        if !world.up("d") {
            world.request(2, Verb::Start, &["d"]);
        }
        assert!(world.up("x") && world.up("d"));
        world.now += Duration::from_secs(1);
        world.launches.clear();
        world.stops.clear();
        world
    }
}

const PLAIN: &str = "";
const NOTIFY: &str = "[start]\ntype = \"notify\"\n[restart]\nwhen = \"never\"";
const ONESHOT: &str = "[start]\ntype = \"oneshot\"";
const NEVER: &str = "[restart]\nwhen = \"never\"";

const STARTS_FIRST: &str = "`D` starts; `X` waits until it is up";
const IS_BLOCKED: &str = "`X` is blocked, and starts when `D` comes up";
const COMES_BACK: &str = "`X` stops, and starts again when `D` comes up";
const AROUND: &str = "`X` stops, `D` starts after that, then `X`";
const REFUSED: &str = "refused while `X` is up; `--force` stops `X` first";
const GOES_WITH_IT: &str = "`D` stops after it, unless it was asked for or is kept by others";
const NOTHING: &str = "nothing";
const NEVER_BESIDE: &str = "nothing: they are never up together";

const TABLE: [Row; 9] = [
    Row {
        name: "`needs`",
        keys: "needs = [\"d\"]",
        cells: [
            (STARTS_FIRST, starts_and_waits),
            (IS_BLOCKED, blocked_and_remembered),
            ("`X` runs on", runs_on),
            (COMES_BACK, stops_and_comes_back),
            (REFUSED, refused_without_force),
            (GOES_WITH_IT, stops_with_it),
        ],
    },
    Row {
        name: "`needs`, `tolerate_restart = false`",
        keys: "needs = [\"d\"]\ntolerate_restart = false",
        cells: [
            (STARTS_FIRST, starts_and_waits),
            (IS_BLOCKED, blocked_and_remembered),
            (AROUND, stops_around_the_restart),
            (COMES_BACK, stops_and_comes_back),
            (REFUSED, refused_without_force),
            (GOES_WITH_IT, stops_with_it),
        ],
    },
    Row {
        name: "`milestone`",
        keys: "milestone = [\"d\"]",
        cells: [
            (STARTS_FIRST, starts_and_waits),
            (IS_BLOCKED, blocked_and_remembered),
            (NOTHING, runs_on),
            (NOTHING, runs_on_for_good),
            (NOTHING, runs_on_when_it_is_stopped),
            (GOES_WITH_IT, stops_with_it),
        ],
    },
    Row {
        name: "`wants`",
        keys: "wants = [\"d\"]",
        cells: [
            ("`D` starts; `X` waits until it is up or has failed", starts_and_waits),
            ("`X` starts", starts_all_the_same),
            (NOTHING, runs_on),
            (NOTHING, runs_on_for_good),
            (NOTHING, runs_on_when_it_is_stopped),
            (GOES_WITH_IT, stops_with_it),
        ],
    },
    Row {
        name: "`after`",
        keys: "after = [\"d\"]",
        cells: [
            ("`X` starts; if `D` is on its way as well, `X` waits for it", waits_only_if_it_comes),
            ("`X` starts", starts_all_the_same),
            (NOTHING, runs_on),
            (NOTHING, runs_on_for_good),
            (NOTHING, runs_on_when_it_is_stopped),
            ("nothing; if both are to stop, `X` stops before `D`", stops_before_it),
        ],
    },
    Row {
        name: "`before`",
        keys: "before = [\"d\"]",
        cells: [
            ("`X` starts; if `D` is to start as well, it waits for `X`", is_waited_for),
            (NOTHING, starts_first_all_the_same),
            (NOTHING, runs_on),
            (NOTHING, runs_on_for_good),
            (NOTHING, runs_on_when_it_is_stopped),
            ("nothing; if both are to stop, `D` stops before `X`", stops_after_it),
        ],
    },
    Row {
        name: "`bound_to`",
        keys: "bound_to = [\"d\"]",
        cells: [
            (STARTS_FIRST, starts_and_waits),
            (IS_BLOCKED, blocked_and_remembered),
            (AROUND, stops_around_the_restart),
            (COMES_BACK, stops_and_comes_back),
            ("`X` stops first", stops_first),
            (GOES_WITH_IT, stops_with_it),
        ],
    },
    Row {
        name: "`prepared_by`",
        keys: "prepared_by = [\"d\"]",
        cells: [
            ("`D` runs; `X` waits until it is done, each time that `X` starts", runs_again_each_time),
            (IS_BLOCKED, blocked_and_remembered),
            (NOTHING, runs_on),
            (NOTHING, runs_on_for_good),
            (REFUSED, refused_without_force),
            (GOES_WITH_IT, stops_with_it),
        ],
    },
    Row {
        name: "`conflicts`",
        keys: "conflicts = [\"d\"]",
        cells: [
            ("whichever is started replaces the other, and waits until its cgroup is empty", replaces_it),
            ("`X` is stopped for it all the same", is_replaced_all_the_same),
            (NEVER_BESIDE, is_never_beside_it),
            (NEVER_BESIDE, is_never_beside_it),
            (NEVER_BESIDE, is_never_beside_it),
            ("nothing: `D` stays down", leaves_it_down),
        ],
    },
];

fn starts_and_waits(case: &mut Case) {
    let world = case.with(NOTIFY);
    world.request(1, Verb::Start, &["x"]);
    assert_eq!(world.launches, ["d"], "x waits");
    world.ready("d");
    assert_eq!(world.launches, ["d", "x"]);
    assert_eq!(world.replies[&1], [(world.id("x"), Ok(true))]);
}

fn blocked_and_remembered(case: &mut Case) {
    let world = case.with(NOTIFY);
    world.request(1, Verb::Start, &["x"]);
    world.exit("d", 1);
    assert_eq!((world.state("d"), world.state("x")), (&State::Failed, &State::Waiting));
    let why = world.manager.waits_for(world.id("x")).unwrap();
    assert!(why.starts_with("blocked: it ") && why.ends_with(" d, which is failed"), "{why}");
    assert_eq!(world.replies[&1], [(world.id("x"), Err(why))]);
    world.request(2, Verb::Start, &["d"]);
    assert_eq!(world.launches, ["d", "d"]);
    world.ready("d");
    assert!(world.up("x"), "nobody asked for x again");
}

fn starts_all_the_same(case: &mut Case) {
    let world = case.with(NOTIFY);
    world.request(1, Verb::Start, &["d", "x"]);
    assert_eq!(world.launches, ["d"]);
    world.exit("d", 1);
    assert_eq!(*world.state("d"), State::Failed);
    assert!(world.up("x"));
}

fn runs_on(case: &mut Case) {
    let world = case.up(PLAIN);
    world.exit("d", 1);
    assert!(matches!(world.state("d"), State::Backoff { .. }) && world.up("x"));
    world.tick();
    assert!(world.up("d") && world.up("x"));
    assert_eq!(world.launches, ["d"]);
    assert!(world.stops.is_empty());
}

fn stops_around_the_restart(case: &mut Case) {
    let world = case.up(PLAIN);
    // x takes its time to end, so that one sees who waits for whom.
    let (x, d) = (world.id("x"), world.id("d"));
    world.temper = Temper::Deaf;
    world.exit("d", 1);
    assert!(matches!(world.state("x"), State::Stopping { .. }));
    world.now = world.manager.unit(d).deadline().unwrap();
    let effects = world.manager.tick(world.now);
    world.run(effects);
    assert_eq!((world.state("d"), world.launches.len()), (&State::Waiting, 0), "x is still there");
    world.die(x, ExitHow::Exited, 0);
    world.run(vec![]);
    assert!(world.up("d") && world.up("x"));
    assert_eq!(world.launches, ["d", "x"]);
}

fn stops_and_comes_back(case: &mut Case) {
    let world = case.up(NEVER);
    world.exit("d", 1);
    assert_eq!((world.state("d"), world.state("x")), (&State::Failed, &State::Waiting));
    assert_eq!(world.stops, ["x"]);
    world.request(3, Verb::Start, &["d"]);
    assert!(world.up("d") && world.up("x"));
    world.exit("d", 0);
    assert_eq!((world.state("d"), world.state("x")), (&State::Stopped, &State::Waiting));
    world.request(4, Verb::Start, &["d"]);
    assert!(world.up("d") && world.up("x"));
}

fn runs_on_for_good(case: &mut Case) {
    for status in [1, 0] {
        let world = case.up(NEVER);
        world.exit("d", status);
        assert!(!world.up("d") && world.up("x"));
        assert!(world.stops.is_empty());
    }
}

fn refused_without_force(case: &mut Case) {
    let world = case.up(PLAIN);
    world.request(3, STOP, &["d"]);
    let why = "needed by x: stop it first or as well, or let --force stop it too".to_owned();
    assert_eq!(world.replies[&3], [(world.id("d"), Err(why))]);
    assert!(world.up("d") && world.up("x"));
    world.request(4, FORCE, &["d"]);
    assert_eq!(world.stops, ["x", "d"]);
    assert_eq!((world.state("d"), world.state("x")), (&State::Stopped, &State::Stopped));
    world.request(5, Verb::Start, &["d"]);
    assert_eq!(*world.state("x"), State::Stopped, "it was stopped as well, and is not remembered");
}

fn stops_first(case: &mut Case) {
    let world = case.up(PLAIN);
    world.request(3, STOP, &["d"]);
    assert_eq!(world.stops, ["x", "d"]);
    assert_eq!((world.state("d"), world.state("x")), (&State::Stopped, &State::Stopped));
}

fn runs_on_when_it_is_stopped(case: &mut Case) {
    let world = case.up(PLAIN);
    world.request(3, STOP, &["d"]);
    assert_eq!(*world.state("d"), State::Stopped);
    assert!(world.up("x"));
}

fn stops_with_it(case: &mut Case) {
    let world = case.up(PLAIN);
    world.request(3, STOP, &["x"]);
    assert_eq!(world.stops, ["x", "d"]);
    let world = case.up(PLAIN);
    world.request(3, Verb::Start, &["d"]);
    world.request(4, STOP, &["x"]);
    assert_eq!(world.stops, ["x"], "somebody asked for d");
}

fn waits_only_if_it_comes(case: &mut Case) {
    let world = case.with(NOTIFY);
    world.request(1, Verb::Start, &["x"]);
    assert_eq!(world.launches, ["x"], "d is not started for it");
    let world = case.with(NOTIFY);
    world.request(1, Verb::Start, &["x", "d"]);
    assert_eq!(world.launches, ["d"]);
    world.ready("d");
    assert_eq!(world.launches, ["d", "x"]);
}

fn is_waited_for(case: &mut Case) {
    let world = case.with(PLAIN);
    world.request(1, Verb::Start, &["x"]);
    assert_eq!(world.launches, ["x"], "d is not started for it");
    let world = case.with(PLAIN);
    world.request(1, Verb::Start, &["d", "x"]);
    assert_eq!(world.launches, ["x", "d"]);
}

fn starts_first_all_the_same(case: &mut Case) {
    let world = case.with(NOTIFY);
    world.request(1, Verb::Start, &["d", "x"]);
    assert_eq!(world.launches, ["x", "d"]);
    world.exit("d", 1);
    assert_eq!(*world.state("d"), State::Failed);
    assert!(world.up("x"));
}

fn stops_before_it(case: &mut Case) {
    let world = case.up(PLAIN);
    world.request(3, STOP, &["x"]);
    assert!(world.up("d"));
    let world = case.up(PLAIN);
    world.request(3, STOP, &["d", "x"]);
    assert_eq!(world.stops, ["x", "d"]);
}

fn stops_after_it(case: &mut Case) {
    let world = case.up(PLAIN);
    world.request(3, STOP, &["x"]);
    assert!(world.up("d"));
    let world = case.up(PLAIN);
    world.request(3, STOP, &["x", "d"]);
    assert_eq!(world.stops, ["d", "x"]);
}

fn runs_again_each_time(case: &mut Case) {
    let world = case.with(ONESHOT);
    world.request(1, Verb::Start, &["x"]);
    assert_eq!(world.launches, ["d"]);
    world.exit("d", 0);
    assert_eq!(world.launches, ["d", "x"]);
    world.now += Duration::from_secs(1);
    world.exit("x", 1);
    world.tick();
    assert_eq!(world.launches, ["d", "x", "d"], "x crashed: d is done again before it");
    world.exit("d", 0);
    assert_eq!(world.launches, ["d", "x", "d", "x"]);
    world.now += Duration::from_secs(1);
    world.request(2, Verb::Restart, &["x"]);
    assert_eq!(world.launches, ["d", "x", "d", "x", "d"]);
    world.exit("d", 0);
    assert!(world.up("x"));
}

fn replaces_it(case: &mut Case) {
    for (first, second) in [("d", "x"), ("x", "d")] {
        let world = case.with(PLAIN);
        world.request(1, Verb::Start, &[first]);
        world.temper = Temper::Deaf;
        world.request(2, Verb::Start, &[second]);
        assert_eq!(world.launches, [first], "{second} waits until {first} is gone");
        let id = world.id(first);
        world.die(id, ExitHow::Exited, 0);
        world.run(vec![]);
        assert_eq!(world.launches, [first, second]);
        assert_eq!(world.unit(first).cause.words, format!("stopped: it conflicts with {second}"));
    }
}

fn is_replaced_all_the_same(case: &mut Case) {
    let world = case.with(NOTIFY);
    world.request(1, Verb::Start, &["x"]);
    world.request(2, Verb::Start, &["d"]);
    world.exit("d", 1);
    assert_eq!((world.state("d"), world.state("x")), (&State::Failed, &State::Stopped));
}

fn is_never_beside_it(case: &mut Case) {
    let world = case.with(PLAIN);
    world.request(1, Verb::Start, &["x", "d"]);
    assert!(world.up("d") && !world.unit("x").is_active());
}

fn leaves_it_down(case: &mut Case) {
    let world = case.with(PLAIN);
    world.request(1, Verb::Start, &["d"]);
    world.request(2, Verb::Start, &["x"]);
    world.request(3, STOP, &["x"]);
    assert_eq!((world.state("d"), world.state("x")), (&State::Stopped, &State::Stopped));
}

/// As it stands in the reference.
fn published() -> String {
    let mut text = format!("| `X` names `D` in | {} |\n", COLUMNS.join(" | "));
    text.push_str(&"| --- ".repeat(COLUMNS.len() + 1));
    text.push_str("|\n");
    for row in &TABLE {
        let cells: Vec<&str> = row.cells.iter().map(|(words, _)| *words).collect();
        text.push_str(&format!("| {} | {} |\n", row.name, cells.join(" | ")));
    }
    text
}

#[test]
fn every_cell_of_the_table_is_so() {
    for row in &TABLE {
        for (column, (words, shown)) in COLUMNS.iter().zip(row.cells) {
            println!("{}, when {column}: {words}", row.name);
            shown(&mut Case { world: World::tame(&[]), keys: row.keys });
        }
    }
}

#[test]
fn the_table_that_is_tested_is_the_one_that_is_published() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/services.md");
    let reference = std::fs::read_to_string(path).unwrap();
    assert!(reference.contains(&published()), "docs/services.md has to have this table:\n{}", published());
}
