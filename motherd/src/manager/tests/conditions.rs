//! The table of conditions and events: what `docs/services.md` publishes, cell by cell a test.

use super::*;

/// What happens, in the order of the columns.
const COLUMNS: [&str; 5] = [
    "`X` starts, it does not hold",
    "it comes to hold",
    "its `timeout` is over",
    "it ends to hold while `X` is up",
    "and holds again",
];

struct Row {
    name: &'static str,
    on_loss: &'static str,
    cells: [(&'static str, Shown); COLUMNS.len()],
}

type Shown = fn(&str);

const WAITS: &str = "`X` waits, and whoever asked, wants it or is after it waits with it until the `timeout`; without one nobody does";
const STARTS: &str = "`X` starts";
const GOES_ON: &str = "`X` is blocked and goes on waiting; whoever waited with it goes on without it";
const NOTHING: &str = "nothing";

const TABLE: [Row; 3] = [
    Row {
        name: "`\"ignore\"`",
        on_loss: "ignore",
        cells: [
            (WAITS, waits),
            (STARTS, starts),
            (GOES_ON, goes_on_waiting),
            (NOTHING, runs_on),
            (NOTHING, runs_on),
        ],
    },
    Row {
        name: "`\"stop\"`",
        on_loss: "stop",
        cells: [
            (WAITS, waits),
            (STARTS, starts),
            (GOES_ON, goes_on_waiting),
            ("`X` stops, and who needs it waits for it", stops_for_good),
            ("nothing: somebody has to start it", stops_for_good),
        ],
    },
    Row {
        name: "`\"restart\"`",
        on_loss: "restart",
        cells: [
            (WAITS, waits),
            (STARTS, starts),
            (GOES_ON, goes_on_waiting),
            ("`X` stops, and is meant to be up", comes_back),
            ("`X` starts", comes_back),
        ],
    },
];

fn house(on_loss: &str, timeout: &str) -> World {
    let x = format!("exec = [\"/b\"]\n[[condition]]\npath = \"/x\"\non_loss = \"{on_loss}\"\n{timeout}");
    let mut world = World::tame(&[
        ("x", &x),
        ("asks", "exec = [\"/b\"]\n[dependencies]\nneeds = [\"x\"]"),
        ("later", "exec = [\"/b\"]\n[dependencies]\nafter = [\"x\"]"),
    ]);
    world.set("x", 0, false);
    world
}

const BOUNDED: &str = "timeout = \"30s\"";
const LACK: &str = "blocked: /x is not there";

fn waits(on_loss: &str) {
    let mut world = house(on_loss, BOUNDED);
    world.request(1, Verb::Start, &["x", "later"]);
    assert_eq!(world.launches, [""; 0]);
    assert!(world.replies.is_empty(), "both wait: {:?}", world.replies);
    assert_eq!(world.manager.waits_for(world.id("x")).unwrap(), "waits: /x is not there");
    let mut world = house(on_loss, "");
    world.request(1, Verb::Start, &["x", "later"]);
    assert_eq!(world.launches, ["later"], "nobody knows how long it takes");
    let (x, later) = (world.id("x"), world.id("later"));
    assert_eq!(world.replies[&1], [(x, Err(LACK.to_owned())), (later, Ok(true))]);
    assert!(world.manager.is_blocked(x));
}

fn starts(on_loss: &str) {
    for timeout in ["", BOUNDED] {
        let mut world = house(on_loss, timeout);
        world.request(1, Verb::Start, &["asks"]);
        assert_eq!(world.launches, [""; 0]);
        world.set("x", 0, true);
        assert_eq!(world.launches, ["x", "asks"]);
        assert_eq!(world.unit("x").cause.words, "needed by asks");
        let mut world = house(on_loss, timeout);
        world.set("x", 0, true);
        world.request(1, Verb::Start, &["later", "x"]);
        assert_eq!(
            world.launches,
            ["x", "later"],
            "it holds already, and is looked at before anybody goes on"
        );
    }
}

fn goes_on_waiting(on_loss: &str) {
    let mut world = house(on_loss, BOUNDED);
    world.request(1, Verb::Start, &["x", "later"]);
    world.tick();
    assert_eq!(world.now, BOOT + Duration::from_secs(30));
    assert_eq!(world.launches, ["later"]);
    assert_eq!(world.replies[&1][0], (world.id("x"), Err(LACK.to_owned())));
    assert_eq!((world.state("x"), world.unit("x").goal), (&State::Expecting { deadline: None }, Goal::Up));
    world.set("x", 0, true);
    assert!(world.up("x"));
}

/// `x` is up, and then its condition ends to hold.
fn lost(on_loss: &str) -> World {
    let mut world = house(on_loss, "");
    world.set("x", 0, true);
    world.request(1, Verb::Start, &["asks"]);
    assert!(world.up("asks"));
    world.launches.clear();
    world.set("x", 0, false);
    world
}

fn runs_on(on_loss: &str) {
    let mut world = lost(on_loss);
    assert!(world.up("x") && world.stops.is_empty());
    world.set("x", 0, true);
    assert!(world.up("x") && world.launches.is_empty());
}

fn stops_for_good(on_loss: &str) {
    let mut world = lost(on_loss);
    assert_eq!(world.stops, ["asks", "x"]);
    assert_eq!((world.state("x"), world.unit("x").goal), (&State::Stopped, Goal::Down));
    assert_eq!(world.unit("x").cause.words, "stopped: /x is not there");
    assert!(world.manager.is_blocked(world.id("asks")));
    world.set("x", 0, true);
    assert_eq!(world.launches, [""; 0]);
    world.request(2, Verb::Start, &["x"]);
    assert_eq!(world.launches, ["x", "asks"]);
}

fn comes_back(on_loss: &str) {
    let mut world = lost(on_loss);
    assert_eq!(world.stops, ["x"], "who needs it tolerates a restart");
    assert_eq!(world.unit("x").goal, Goal::Up);
    assert!(world.manager.is_blocked(world.id("x")));
    world.set("x", 0, true);
    assert_eq!(world.launches, ["x"]);
}

fn published() -> String {
    let mut text = format!("| `on_loss` | {} |\n", COLUMNS.join(" | "));
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
            println!("on_loss = {}, when {column}: {words}", row.name);
            shown(row.on_loss);
        }
    }
}

#[test]
fn the_table_that_is_tested_is_the_one_that_is_published() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/services.md");
    let reference = std::fs::read_to_string(path).unwrap();
    assert!(reference.contains(&published()), "docs/services.md has to have this table:\n{}", published());
}

#[test]
fn a_group_stands_for_what_it_waits_for() {
    let mut world = World::tame(&[
        ("network", "[[condition]]\nnetwork = \"route\"\non_loss = \"restart\""),
        ("web", "exec = [\"/b\"]\n[dependencies]\nneeds = [\"network\"]"),
        ("tied", "exec = [\"/b\"]\n[dependencies]\nbound_to = [\"network\"]"),
    ]);
    world.set("network", 0, false);
    world.request(1, Verb::Start, &["web", "tied"]);
    let why = "blocked: it needs network, which is waiting for a condition".to_owned();
    assert_eq!(world.replies[&1][0], (world.id("web"), Err(why)));
    world.set("network", 0, true);
    assert!(world.up("network") && world.up("web") && world.up("tied"));
    world.set("network", 0, false);
    assert_eq!(world.stops, ["tied"], "web tolerates that, and tied does not");
    world.set("network", 0, true);
    assert!(world.up("web") && world.up("tied"));
}

#[test]
fn the_last_of_several_conditions_decides_and_the_patience_is_that_of_what_lacks() {
    let conditions = "[[condition]]\npath = \"/a\"\ntimeout = \"5s\"\n[[condition]]\npath = \"/b\"\ntimeout = \"60s\"\n[[condition]]\npath = \"/c\"";
    let mut world = World::tame(&[("x", &format!("exec = [\"/b\"]\n{conditions}"))]);
    for place in 0..3 {
        world.set("x", place, false);
    }
    world.request(1, Verb::Start, &["x"]);
    let after = |seconds| State::Expecting { deadline: Some(BOOT + Duration::from_secs(seconds)) };
    assert_eq!(*world.state("x"), after(5));
    world.set("x", 0, true);
    assert_eq!(*world.state("x"), after(60));
    world.set("x", 1, true);
    assert_eq!(*world.state("x"), State::Expecting { deadline: None });
    assert_eq!(world.replies[&1], [(world.id("x"), Err("blocked: /c is not there".to_owned()))]);
    world.set("x", 2, true);
    assert!(world.up("x"));
}

#[test]
fn another_generation_has_other_conditions() {
    let mut world = World::tame(&[("x", "exec = [\"/b\"]\n[[condition]]\npath = \"/a\"")]);
    world.set("x", 0, false);
    world.request(1, Verb::Start, &["x"]);
    let effects = world.manager.reload(generation(&[("x", "exec = [\"/b\"]")]), world.now);
    world.run(effects);
    assert!(world.up("x"));
}
