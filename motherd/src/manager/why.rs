//! Why a service is as it is: through whom it is meant to be up, what holds it back, and what comes by itself. Nothing
//! here changes anything, and nothing is remembered for it: all of it follows from the goals and states of all.
//!
//! ```text
//!   roots:     system ──wants──► shop ──needs──► web          who asked for the first of them, and when
//!   hindrances:                                  web ──needs──► db ──► a condition, its last end, its next try
//! ```
//!
//! Each service is explained once: who is met again is only named. So the answer is bounded by the relations there are.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{HELD, Manager};
use crate::{
    graph::Id,
    service::{Relation, Start},
    supervise::{Cause, Goal, Stage, State},
};

/// More chains than this are counted: what everything needs has one for each service.
const ROOTS: usize = 8;

/// One step of a chain: somebody, and how it has the one before started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pull {
    /// Who.
    pub by: Id,
    /// As what.
    pub relation: Relation,
}

/// Somebody asked for a service by name, and this one is meant to be up for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// From this service to the one that was asked for; empty where it is the same.
    pub over: Vec<Pull>,
    /// What was asked for.
    pub id: Id,
    /// By whom.
    pub cause: Cause,
}

/// What happens at a time, if nothing happens before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coming {
    /// For people: `SIGKILL follows`.
    pub words: &'static str,
    /// When.
    pub at: Duration,
}

/// Something that holds a service back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hindrance {
    /// For people: `it needs db, which is failed`.
    pub words: String,
    /// Whom it is about, where it is about another service.
    pub service: Option<Id>,
    /// What comes of it by itself.
    pub coming: Option<Coming>,
    /// Why that is so.
    pub because: Vec<Hindrance>,
}

impl Hindrance {
    fn new(words: impl Into<String>) -> Self {
        Self { words: words.into(), service: None, coming: None, because: Vec::new() }
    }
}

/// What follows for one service from the goals and states of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reasons {
    /// Why it is meant to be up, the nearest first; empty where it is not, or where nobody asked by name.
    pub roots: Vec<Root>,
    /// How many more there are.
    pub more_roots: usize,
    /// What holds it back from where it is meant to be.
    pub hindrances: Vec<Hindrance>,
    /// What comes by itself.
    pub coming: Option<Coming>,
}

impl Manager {
    /// Why a service is as it is.
    #[must_use]
    pub fn reasons(&self, id: Id) -> Reasons {
        let mut roots = if self.unit(id).goal == Goal::Down { Vec::new() } else { self.roots(id) };
        let more_roots = roots.len().saturating_sub(ROOTS);
        roots.truncate(ROOTS);
        let hindrances = self.hindrances(id, &mut BTreeSet::from([id]));
        Reasons { roots, more_roots, hindrances, coming: self.coming(id) }
    }

    /// Everybody who was asked for by name and has it started, each by a shortest way.
    fn roots(&self, id: Id) -> Vec<Root> {
        // For whoever was reached, through whom, and as what it has that one started.
        let mut before: BTreeMap<Id, (Id, Relation)> = BTreeMap::new();
        let mut queue = VecDeque::from([id]);
        let mut roots = Vec::new();
        while let Some(current) = queue.pop_front() {
            if self.unit(current).explicit {
                let mut over = Vec::new();
                let mut at = current;
                while let Some((from, relation)) = before.get(&at).filter(|_| at != id) {
                    over.push(Pull { by: at, relation: *relation });
                    at = *from;
                }
                over.reverse();
                roots.push(Root { over, id: current, cause: self.unit(current).asked.clone() });
            }
            for keeper in &self.graph.edges(current).kept_by {
                if *keeper != id && self.unit(*keeper).goal != Goal::Down && !before.contains_key(keeper) {
                    before.insert(*keeper, (current, self.relation(*keeper, current)));
                    queue.push_back(*keeper);
                }
            }
        }
        roots
    }

    /// How one service has another one started.
    fn relation(&self, id: Id, other: Id) -> Relation {
        let edges = self.graph.edges(id);
        let among = |list: &[Id]| list.contains(&other);
        if among(&edges.needs) {
            Relation::Needs
        } else if among(&edges.bonds) {
            Relation::BoundTo
        } else if among(&edges.prepared_by) {
            Relation::PreparedBy
        } else if among(&edges.requires) {
            Relation::Milestone
        } else if among(&edges.wants) {
            Relation::Wants
        } else if among(&edges.after) {
            Relation::After
        } else {
            Relation::Conflicts
        }
    }

    /// What a service waits for, all of it.
    fn hindrances(&self, id: Id, seen: &mut BTreeSet<Id>) -> Vec<Hindrance> {
        let unit = self.unit(id);
        match (&unit.state, unit.goal) {
            (State::Waiting | State::Expecting { .. }, _) | (State::Stopped, Goal::Up | Goal::Bounce) => {
                self.unmet(id, seen)
            }
            (State::Running { .. } | State::Done, Goal::Up) => match self.fates[id.0].doom {
                Some(other) => vec![self.about(id, other, seen)],
                None => Vec::new(),
            },
            (State::Running { .. } | State::Done, Goal::Down | Goal::Bounce) => self.later_ones(id, seen),
            (State::Preparing { command } | State::Settling { command, .. }, _)
            | (
                State::Stopping { stage: Stage::Asking { command }, .. } | State::Cleaning { command, .. },
                _,
            ) => {
                let pid = command.process.map(|process| format!(" (pid {})", process.pid));
                vec![Hindrance::new(format!("{command} is at work{}", pid.unwrap_or_default()))]
            }
            (State::Launching, _) => vec![Hindrance::new("its process is being made")],
            (State::Starting { .. }, _) => vec![Hindrance::new(self.awaited_of(id))],
            (State::Forked { .. }, _) => {
                vec![Hindrance::new("its first process has ended, and its daemon is looked for")]
            }
            (State::Stopping { stage: Stage::Signalled { .. }, .. }, _) => {
                vec![Hindrance::new("the stop signal was sent, and not all of it has ended")]
            }
            (State::Stopping { stage: Stage::Killed { stuck, .. }, .. }, _) => {
                let words = if *stuck { "not even SIGKILL ends it" } else { "SIGKILL was sent" };
                vec![Hindrance::new(words)]
            }
            (State::Stopped, Goal::Down) | (State::Backoff { .. } | State::Failed | State::Orphan, _) => {
                Vec::new()
            }
        }
    }

    /// What one that was launched has not done yet.
    fn awaited_of(&self, id: Id) -> &'static str {
        match self.rules(id).map(|rules| rules.start) {
            Some(Start::Notify) => "it runs, and has not said READY=1",
            Some(Start::Fd) => "it runs, and has written no newline to its descriptor",
            Some(Start::Oneshot) => "it runs, and is up when it has ended well",
            Some(Start::Forking) => "its first process has not ended",
            Some(Start::Exec) | None => "it was launched",
        }
    }

    /// Another service, between it and where this one is meant to be.
    fn about(&self, id: Id, other: Id, seen: &mut BTreeSet<Id>) -> Hindrance {
        let relation = self.relation(id, other);
        let name = self.graph.name(other);
        let words = format!("it {} {name}, which is {}", relation.verb(), self.phrase_of(other));
        self.explained(words, other, seen)
    }

    fn explained(&self, words: String, other: Id, seen: &mut BTreeSet<Id>) -> Hindrance {
        let because = if seen.insert(other) {
            let unit = self.unit(other);
            let mut because = self.hindrances(other, seen);
            // Where something waits, that is the reason; the cause is why it was asked for.
            if because.is_empty() {
                let cause = if unit.since.is_zero() { &unit.asked } else { &unit.cause };
                because.push(Hindrance { coming: self.coming(other), ..Hindrance::new(cause.words.clone()) });
            } else if let Some(coming) = self.coming(other)
                && let Some(last) = because.last_mut()
                && last.coming.is_none()
            {
                last.coming = Some(coming);
            }
            because
        } else {
            vec![Hindrance::new("as is said of it elsewhere here")]
        };
        Hindrance { words, service: Some(other), coming: None, because }
    }

    fn phrase_of(&self, id: Id) -> &'static str {
        let unit = self.unit(id);
        let fate = self.fates[id.0];
        if unit.state == State::Waiting {
            if self.is_blocked(id) { "blocked" } else { "waiting itself" }
        } else if unit.is_up() && (fate.doom.is_some() || fate.lost) {
            "about to stop"
        } else if unit.is_up() && fate.again.is_some() {
            "to be done again first"
        } else {
            self.phrase(id)
        }
    }

    /// All that has to be so before it starts, and is not.
    fn unmet(&self, id: Id, seen: &mut BTreeSet<Id>) -> Vec<Hindrance> {
        let edges = self.graph.edges(id);
        let mut found = Vec::new();
        if self.held {
            found.push(Hindrance::new(HELD));
        }
        if self.ending.is_some() {
            found.push(Hindrance::new("the machine is ending"));
        }
        for other in &edges.requires {
            let (unit, fate) = (self.unit(*other), self.fates[other.0]);
            let stays = fate.doom.is_none() && fate.again.is_none() && !fate.lost;
            if !(unit.is_up() && unit.goal == Goal::Up && stays) {
                found.push(self.about(id, *other, seen));
            } else if edges.prepared_by.contains(other) && self.is_stale(*other, id) {
                let words =
                    format!("{}, which prepares it, is to be done again first", self.graph.name(*other));
                found.push(self.explained(words, *other, seen));
            }
        }
        for other in edges.wants.iter().chain(&edges.after) {
            if self.fates[other.0].on_its_way && !edges.requires.contains(other) {
                found.push(self.about(id, *other, seen));
            }
        }
        for other in &edges.conflicts {
            if self.unit(*other).is_active() || self.unit(*other).goal != Goal::Down {
                let (name, phrase) = (self.graph.name(*other), self.phrase_of(*other));
                let words = format!("it conflicts with {name}, which is {phrase}");
                found.push(self.explained(words, *other, seen));
            }
        }
        for other in &edges.bonded {
            if self.unit(*other).is_active() && self.unit(*other).state != State::Orphan {
                let (name, phrase) = (self.graph.name(*other), self.phrase_of(*other));
                let words = format!("{name}, which is bound to it and {phrase}, ends first");
                found.push(self.explained(words, *other, seen));
            }
        }
        if matches!(self.unit(id).state, State::Expecting { .. }) {
            if self.is_unknown(id) {
                found.push(Hindrance::new("its conditions are being looked at"));
            } else {
                found.extend(self.lacking(id).map(|condition| Hindrance::new(condition.resource.lack())));
            }
        }
        found
    }

    /// Who comes later and is to stop as well, and has not.
    fn later_ones(&self, id: Id, seen: &mut BTreeSet<Id>) -> Vec<Hindrance> {
        let mut found = Vec::new();
        for later in &self.graph.edges(id).later {
            let unit = self.unit(*later);
            if unit.is_active() && unit.state != State::Orphan && unit.goal != Goal::Up {
                let (name, phrase) = (self.graph.name(*later), self.phrase_of(*later));
                let words = format!("{name}, which comes after it and is {phrase}, stops first");
                found.push(self.explained(words, *later, seen));
            }
        }
        found
    }

    /// What happens to a service by itself, and when.
    fn coming(&self, id: Id) -> Option<Coming> {
        let unit = self.unit(id);
        let at = unit.state_deadline()?;
        let words = match unit.state {
            State::Backoff { .. } => "it is tried again",
            State::Expecting { .. } => "others go on without it",
            State::Starting { .. }
            | State::Forked { .. }
            | State::Preparing { .. }
            | State::Settling { .. } => "the start times out",
            State::Stopping { stage: Stage::Asking { .. }, .. } | State::Cleaning { .. } => {
                "the command is killed"
            }
            State::Stopping { stage: Stage::Signalled { .. }, .. } => "SIGKILL follows",
            State::Stopping { stage: Stage::Killed { .. }, .. } => "SIGKILL is sent again",
            State::Stopped
            | State::Waiting
            | State::Launching
            | State::Running { .. }
            | State::Done
            | State::Failed
            | State::Orphan => return None,
        };
        Some(Coming { words, at })
    }
}
