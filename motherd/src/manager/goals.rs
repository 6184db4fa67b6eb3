//! Where services are meant to be: what a request, or an end, means for the goals of those around it.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use super::{Effect, Manager};
use crate::{
    fault::{self, Fault},
    graph::Id,
    supervise::{Cause, Event, Goal, State},
};

impl Manager {
    /// Goal up for a service, asked for by name, and for what it takes. Whoever conflicts with those goes down. What is
    /// only wanted is left out where it, or something that it requires, conflicts with what was taken before.
    pub(super) fn want(&mut self, id: Id, cause: &Cause, now: Duration, effects: &mut Vec<Effect>) {
        if self.ending.is_some() {
            return;
        }
        let mut taken = BTreeSet::new();
        let mut candidates = VecDeque::from([(id, cause.clone())]);
        while let Some((candidate, cause)) = candidates.pop_front() {
            let closure = self.required(candidate, &cause);
            let clashes =
                |member: &Id| self.graph.edges(*member).conflicts.iter().any(|other| taken.contains(other));
            if closure.iter().any(|(member, _)| clashes(member)) {
                continue;
            }
            for (member, cause) in closure {
                if taken.insert(member) {
                    let cause = self.in_place_of(member, cause);
                    self.want_one(member, &cause, member == id, now, effects);
                    let name = self.graph.name(member);
                    let wants = self.graph.edges(member).wants.iter();
                    candidates.extend(wants.map(|want| (*want, cause.because(format!("wanted by {name}")))));
                }
            }
        }
        if !self.unit(id).explicit {
            self.units[id.0].explicit = true;
            self.changed(id);
        }
        for member in taken {
            let because = cause.because(format!("stopped: it conflicts with {}", self.graph.name(member)));
            for other in self.graph.edges(member).conflicts.clone() {
                self.unwant(other, &because);
            }
        }
    }

    /// The cause says who is stopped for a service, if anybody is.
    fn in_place_of(&self, id: Id, cause: Cause) -> Cause {
        let rivals: Vec<&str> = self
            .graph
            .edges(id)
            .conflicts
            .iter()
            .filter(|other| self.unit(**other).goal != Goal::Down)
            .map(|other| self.graph.name(*other))
            .collect();
        if rivals.is_empty() {
            return cause;
        }
        cause.because(format!("{}, in place of {}", cause.words, rivals.join(" and ")))
    }

    /// A service and all that it requires, however far away, each with the reason.
    fn required(&self, id: Id, cause: &Cause) -> Vec<(Id, Cause)> {
        let mut closure = vec![(id, cause.clone())];
        let mut seen = BTreeSet::from([id]);
        let mut next = 0;
        while let Some((current, cause)) = closure.get(next).cloned() {
            next += 1;
            for other in &self.graph.edges(current).requires {
                if seen.insert(*other) {
                    let name = self.graph.name(current);
                    let words = if self.graph.edges(current).prepared_by.contains(other) {
                        format!("prepares {name}")
                    } else {
                        format!("needed by {name}")
                    };
                    closure.push((*other, cause.because(words)));
                }
            }
        }
        closure
    }

    fn want_one(&mut self, id: Id, cause: &Cause, asked: bool, now: Duration, effects: &mut Vec<Effect>) {
        let unit = &mut self.units[id.0];
        let again = match unit.state {
            State::Failed => true,
            State::Backoff { .. } => asked,
            State::Stopped
            | State::Waiting
            | State::Expecting { .. }
            | State::Preparing { .. }
            | State::Launching
            | State::Starting { .. }
            | State::Forked { .. }
            | State::Settling { .. }
            | State::Running { .. }
            | State::Done
            | State::Stopping { .. }
            | State::Cleaning { .. }
            | State::Orphan => false,
        };
        if again {
            unit.history.forgive();
        }
        if unit.goal == Goal::Down || again {
            let inactive = !unit.is_active();
            self.set_goal(id, Goal::Up, cause);
            if inactive {
                self.step(id, Event::Wait(cause.clone()), now, effects);
            }
        }
    }

    /// A service that ended by itself is started again: what it requires and is meant to be down comes up with it,
    /// unless somebody else would have to go for that.
    pub(super) fn pull(&mut self, id: Id, now: Duration, effects: &mut Vec<Effect>) {
        if self.ending.is_some() {
            return;
        }
        // Whoever requires one of them comes before it.
        let mut closure = self.required(id, &self.units[id.0].cause.clone());
        closure.sort_by_key(|(member, _)| std::cmp::Reverse(self.graph.rank(*member)));
        for (member, cause) in closure {
            let rival = |other: &Id| self.unit(*other).goal != Goal::Down || self.unit(*other).is_active();
            let edges = self.graph.edges(member);
            let asked = member == id || edges.required_by.iter().any(|by| self.unit(*by).goal != Goal::Down);
            // What nobody asks for because it was passed over itself is passed over too.
            let down = self.unit(member).goal == Goal::Down;
            if down && asked && !edges.conflicts.iter().any(rival) {
                self.want_one(member, &cause, false, now, effects);
            }
        }
    }

    /// Goal down for a service and for whoever cannot run without it. Who waits for it in vain goes on waiting.
    pub(super) fn unwant(&mut self, id: Id, cause: &Cause) {
        let mut down = Vec::new();
        for (next, other) in self.sustained(id) {
            let cause = match other {
                None => cause.clone(),
                Some(other) => {
                    let verb = self.graph.verb(next, other);
                    cause.because(format!("stopped: it {verb} {}, {}", self.graph.name(other), cause.words))
                }
            };
            let unit = self.unit(next);
            if next == id || unit.is_active() || unit.goal != Goal::Down && !self.waits_in_vain(next) {
                self.set_goal(next, Goal::Down, &cause);
                down.push(next);
            }
        }
        self.release(down);
    }

    /// These are not meant to be up any more: neither is what was started for them alone.
    pub(super) fn release(&mut self, mut down: Vec<Id>) {
        while let Some(id) = down.pop().filter(|_| !fault::on(Fault::KeepsTheUnneeded)) {
            let edges = self.graph.edges(id);
            let kept: Vec<Id> = edges.requires.iter().chain(&edges.wants).copied().collect();
            for other in kept {
                let unit = self.unit(other);
                let keeps =
                    |keeper: &Id| self.unit(*keeper).goal != Goal::Down || self.unrecorded.contains(keeper);
                if unit.explicit
                    || unit.goal == Goal::Down
                    || self.graph.edges(other).kept_by.iter().any(keeps)
                {
                    continue;
                }
                let words = format!(
                    "stopped: {}, which it was started for, is not to be up any more",
                    self.graph.name(id)
                );
                let cause = self.unit(id).asked.because(words);
                self.set_goal(other, Goal::Down, &cause);
                down.push(other);
            }
        }
    }

    /// Down and up again, for a service and for those that cannot run without it and are there.
    pub(super) fn bounce(&mut self, id: Id, cause: &Cause, now: Duration, effects: &mut Vec<Effect>) {
        if self.ending.is_some() {
            return;
        }
        let was_up = self.unit(id).is_active();
        // On its way down it would not come back for anybody else.
        let asked = self.unit(id).goal == Goal::Down;
        for (next, other) in self.sustained(id) {
            let cause = match other {
                None => cause.clone(),
                Some(other) => {
                    let verb = self.graph.verb(next, other);
                    cause.because(format!("restarted: it {verb} {}, {}", self.graph.name(other), cause.words))
                }
            };
            let unit = self.unit(next);
            if unit.is_active() && (next == id || unit.goal != Goal::Down) {
                self.set_goal(next, Goal::Bounce, &cause);
            }
        }
        if was_up {
            self.units[id.0].explicit |= asked;
            self.units[id.0].history.forgive();
        } else {
            self.want(id, cause, now, effects);
        }
    }

    /// Who would have to stop before this service and is not among those that are to: who needs it, or is prepared by
    /// it, near or far. Who is bound to it expects that.
    pub(super) fn keepers(&self, id: Id, among: &[Id]) -> Vec<Id> {
        let objects = |(next, other): &(Id, Option<Id>)| {
            let edges = self.graph.edges(*next);
            let unit = self.unit(*next);
            other.is_some_and(|other| edges.needs.contains(&other) || edges.prepared_by.contains(&other))
                && !among.contains(next)
                && unit.goal != Goal::Down
                && !self.waits_in_vain(*next)
        };
        self.sustained(id).iter().filter(|found| objects(found)).map(|(next, _)| *next).collect()
    }

    /// Nothing of it is there, and it will not come by itself.
    fn waits_in_vain(&self, id: Id) -> bool {
        self.unit(id).state == State::Failed || self.is_blocked(id)
    }

    /// A service and, near or far, whoever cannot run without it, each with the one through which it was reached.
    fn sustained(&self, id: Id) -> Vec<(Id, Option<Id>)> {
        let mut found = vec![(id, None)];
        let mut seen = BTreeSet::from([id]);
        let mut next = 0;
        while let Some((current, _)) = found.get(next).copied() {
            next += 1;
            for dependent in &self.graph.edges(current).sustains {
                if seen.insert(*dependent) {
                    found.push((*dependent, Some(current)));
                }
            }
        }
        found
    }
}
