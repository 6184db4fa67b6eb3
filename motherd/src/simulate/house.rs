//! Random services: every relation, every kind of start, every rule about restarts.

use std::{collections::BTreeSet, time::Duration};

use sandbox::diagnostic::{Located, Place};

use super::dice::Dice;
use crate::{
    graph::Graph,
    service::{
        Condition, Dependencies, OnLoss, Program, Relation, Resource, Restart, Service, Socket, Start, When,
        made, parse_text,
    },
};

/// The programs that others are made of.
#[derive(Debug, Clone)]
pub(crate) struct Kinds {
    exec: Program,
    notify: Program,
    fd: Program,
    oneshot: Program,
    forking: Program,
    lazy: Socket,
    place: Place,
}

impl Kinds {
    pub(crate) fn new() -> Self {
        let program = |kind: &str| {
            let number = if kind == "fd" { "fd = 3" } else { "" };
            let text = format!("exec = [\"/bin/x\"]\n[start]\ntype = \"{kind}\"\n{number}");
            parse_text("x", &text).unwrap().program().unwrap().clone()
        };
        let exec = program("exec");
        let text = "exec = [\"/bin/x\"]\n[[socket]]\nlisten = \"unix:/x\"\nlazy = true";
        let lazy = parse_text("x", text).unwrap().sockets()[0].clone();
        Self {
            lazy,
            place: exec.policy.at.clone(),
            exec,
            notify: program("notify"),
            fd: program("fd"),
            oneshot: program("oneshot"),
            forking: program("forking"),
        }
    }
}

/// The names that a service of a schedule can have.
pub(super) const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

/// The services of one generation. Relations lead from later names to earlier ones, but for `before`; so there is no
/// cycle, and every generation can be the next of any other.
pub(crate) fn graph(kinds: &Kinds, dice: &mut Dice, seed: u64, generation: u64) -> Graph {
    let count = 3 + dice.index(5) + if dice.roll(4) == 0 { 4 } else { 0 };
    // Which relations there are differs from house to house, so that each is met alone and in company.
    let kinds_of_edges: Vec<Relation> = Relation::ALL.into_iter().filter(|_| dice.roll(3) > 0).collect();
    let mut dependencies = vec![Dependencies::default(); count];
    for later in 0..count {
        dependencies[later].tolerate_restart = dice.roll(3) > 0;
        for earlier in 0..later {
            if dice.roll(count as u64) > 1 || kinds_of_edges.is_empty() {
                continue;
            }
            let relation = kinds_of_edges[dice.index(kinds_of_edges.len())];
            if relation == Relation::Conflicts && dice.roll(3) > 0 {
                continue;
            }
            let (owner, other) =
                if relation == Relation::Before { (earlier, later) } else { (later, earlier) };
            let name = Located::new(NAMES[other].to_owned(), kinds.place.clone());
            dependencies[owner].add(relation, name);
        }
    }
    let services = (0..).zip(dependencies).zip(NAMES).map(|((number, dependencies), name)| {
        // The same text is the same program; what it is related to may come from elsewhere.
        let generation = if dice.one_in(2) { generation } else { 0 };
        let mut own = Dice::new(seed.wrapping_add(generation << 40).wrapping_add(number << 50));
        let program = program(kinds, &mut own);
        let lazy = program.is_some() && own.one_in(6);
        let sockets = if lazy { vec![kinds.lazy.clone()] } else { vec![] };
        made(name, &format!("generation {generation}"), program, dependencies, conditions(&mut own), sockets)
    });
    let services: Vec<Service> = services.collect();
    Graph::build(services, &BTreeSet::new()).graph
}

fn program(kinds: &Kinds, dice: &mut Dice) -> Option<Program> {
    if dice.roll(7) == 0 {
        return None;
    }
    let mut program = match dice.roll(9) {
        0..=3 => kinds.exec.clone(),
        4 => kinds.notify.clone(),
        5 => kinds.fd.clone(),
        6 => kinds.forking.clone(),
        _ => kinds.oneshot.clone(),
    };
    let when = match (dice.roll(4), program.start) {
        (0, _) => When::Never,
        (1, Start::Exec | Start::Notify | Start::Fd | Start::Forking) => When::Always,
        (_, _) => When::Failure,
    };
    let delay = Duration::from_millis([0, 1, 100, 2_000][dice.index(4)]);
    program.restart = Restart {
        when,
        delay,
        factor: [1.0, 2.0, 3.0][dice.index(3)],
        max_delay: delay + Duration::from_millis(dice.roll(20_000)),
        jitter: [0.0, 0.5, 1.0][dice.index(3)],
        limit: [1, 2, 3, 4][dice.index(4)],
        ..Restart::default()
    }
    .into();
    if program.start != Start::Oneshot || dice.roll(2) == 0 {
        program.start_timeout = Some(Duration::from_millis(1 + dice.roll(20_000)));
    }
    program.standby = matches!(program.start, Start::Exec | Start::Notify) && dice.one_in(3);
    program.stop_timeout = Duration::from_millis(1 + dice.roll(10_000));
    let mut list = || match dice.roll(9) {
        0 => vec![program.exec.clone()],
        1 => vec![program.exec.clone(); 2],
        _ => vec![],
    };
    program.commands.pre = list();
    program.commands.post = if program.start == Start::Oneshot { vec![] } else { list() };
    program.commands.stop = list();
    program.commands.stop_post = list();
    Some(program)
}

/// Most services have none. What they are about is up to the world, which knows them by their places.
fn conditions(dice: &mut Dice) -> Vec<Condition> {
    let count = if dice.roll(4) == 0 { 1 + dice.index(3) } else { 0 };
    (0..count)
        .map(|place| Condition {
            resource: Resource::Path(format!("/{place}").into()),
            timeout: dice.one_in(2).then(|| Duration::from_millis(1 + dice.roll(20_000))),
            on_loss: [OnLoss::Ignore, OnLoss::Stop, OnLoss::Restart][dice.index(3)],
        })
        .collect()
}
