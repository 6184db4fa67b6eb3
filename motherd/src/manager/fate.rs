//! What follows for each service from the goals and states of all: whether it can stay up, what it waits for, and whether
//! its turn has come. Nothing here changes anything.

use std::collections::BTreeSet;

use super::{HELD, Manager};
use crate::{
    fault::{self, Fault},
    graph::Id,
    supervise::{Cause, Event, Goal, State, Then},
};

/// What follows for one service. It depends on the fates of what it requires alone, and those come earlier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Fate {
    /// Through which it cannot stay up: a need that is down for good, or a bond that is not up at this moment.
    pub(super) doom: Option<Id>,
    /// Why it will not start by itself: what it requires and is neither up nor on its way, or a rival that is not to
    /// go: an orphan, or one that only became a rival when both were meant to be up.
    pub(super) blocker: Option<Id>,
    /// Whom it prepares and who starts again: it has to be done again first.
    pub(super) again: Option<Id>,
    /// It is up, and what it is to go down for does not hold any more.
    pub(super) lost: bool,
    /// It will be up, or will have failed, without anybody's doing.
    pub(super) on_its_way: bool,
}

/// What a service's turn is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Turn {
    /// This event.
    Event(Event),
    /// It is down in order to come up again: from here on it is to be up.
    Rise,
    /// It prepares a service that starts again, and has to be done again first.
    Again(Cause),
}

impl Manager {
    /// Finds out the fates of those that changed, and of those whose fate rests on theirs; whose turn may have come.
    pub(super) fn look(&mut self) -> BTreeSet<Id> {
        #[cfg(test)]
        if self.naive {
            return self.look_at_all();
        }
        let mut candidates = BTreeSet::new();
        let mut queue = BTreeSet::new();
        for id in std::mem::take(&mut self.dirty) {
            let edges = self.graph.edges(id);
            candidates.insert(id);
            let later = edges.later.iter().filter(|_| !fault::on(Fault::ForgetsTheBlocked));
            candidates.extend(later.chain(&edges.earlier).chain(&edges.conflicts));
            let resting =
                edges.required_by.iter().chain(&edges.conflicts).chain(&edges.prepared_by).chain([&id]);
            queue.extend(resting.map(|id| (self.graph.rank(*id), *id)));
        }
        while let Some((_, id)) = queue.pop_first() {
            let fate = self.fate(id);
            if fate != self.fates[id.0] {
                self.fates[id.0] = fate;
                let edges = self.graph.edges(id);
                if !fault::on(Fault::ForgetsTheBlocked) {
                    candidates.insert(id);
                }
                candidates.extend(edges.later.iter().chain(&edges.earlier));
                queue.extend(edges.required_by.iter().map(|id| (self.graph.rank(*id), *id)));
            }
        }
        candidates
    }

    /// The same, without knowing who changed.
    #[cfg(test)]
    fn look_at_all(&mut self) -> BTreeSet<Id> {
        for id in self.graph.order().to_vec() {
            self.fates[id.0] = self.fate(id);
        }
        self.graph.ids().collect()
    }

    fn fate(&self, id: Id) -> Fate {
        let edges = self.graph.edges(id);
        let unit = self.unit(id);
        let known = |other: &Id| !self.unrecorded.contains(other);
        let down_for_good = |other: &Id| {
            let unit = self.unit(*other);
            // An orphan that is meant to be up is started again when what is left of it has ended.
            let down =
                unit.goal == Goal::Down || unit.state == State::Failed || self.fates[other.0].doom.is_some();
            down && known(other)
        };
        let runs = unit.can_be_stopped();
        // One that is about to be down counts: whoever is bound to it ends first, and nobody starts beside that.
        let broken = |bond: &Id| {
            let lost = self.fates[bond.0].lost;
            let other = self.unit(*bond);
            let there = other.is_up() && other.goal == Goal::Up && !lost;
            runs && !there && known(bond) && !fault::on(Fault::BreaksABond)
        };
        let doom = edges
            .needs
            .iter()
            .find(|need| down_for_good(need))
            .or_else(|| edges.bonds.iter().find(|bond| down_for_good(bond) || broken(bond)));
        let hopeless = |other: &Id| !self.unit(*other).is_up() && !self.fates[other.0].on_its_way;
        let stays =
            |other: &Id| self.unit(*other).state == State::Orphan || self.unit(*other).goal != Goal::Down;
        let required = edges.requires.iter().copied().find(hopeless);
        let blocker = required.or_else(|| edges.conflicts.iter().copied().find(stays));
        let again = self.again(id);
        let lost = unit.can_be_stopped() && self.lost(id).is_some();
        let on_its_way = match unit.goal {
            Goal::Down => false,
            Goal::Bounce => true,
            Goal::Up => match unit.state {
                State::Stopped
                | State::Waiting
                | State::Stopping { then: Then::Settle, .. }
                | State::Cleaning { then: Then::Settle, .. } => blocker.is_none() && doom.is_none(),
                State::Expecting { deadline } => {
                    let bounded = deadline.is_some() || self.is_unknown(id);
                    bounded && blocker.is_none() && doom.is_none()
                }
                State::Preparing { .. }
                | State::Launching
                | State::Starting { .. }
                | State::Forked { .. }
                | State::Settling { .. }
                | State::Stopping { then: Then::Done, .. }
                | State::Cleaning { then: Then::Done, .. } => true,
                State::Running { .. } | State::Done => again.is_some() || lost,
                State::Stopping { then: Then::Restart { .. } | Then::Fail, .. }
                | State::Cleaning { then: Then::Restart { .. } | Then::Fail, .. }
                | State::Backoff { .. }
                | State::Failed
                | State::Orphan => false,
            },
        };
        Fate { doom: doom.copied(), blocker, again, lost, on_its_way }
    }

    /// What is to happen to a service now, if anything.
    pub(super) fn turn(&self, id: Id) -> Option<Turn> {
        self.own_turn(id).or_else(|| self.standby_turn(id))
    }

    fn own_turn(&self, id: Id) -> Option<Turn> {
        let unit = self.unit(id);
        let stop = || Turn::Event(Event::Stop(unit.asked.clone()));
        match unit.goal {
            Goal::Up => match unit.state {
                State::Stopped => Some(Turn::Event(Event::Wait(unit.asked.clone()))),
                State::Waiting => self.may_start(id).then(|| self.begin(id)),
                State::Expecting { deadline } => self.goes_on(id, deadline),
                State::Preparing { .. }
                | State::Starting { .. }
                | State::Forked { .. }
                | State::Settling { .. }
                | State::Running { .. }
                | State::Done => {
                    let Fate { doom, again, .. } = self.fates[id.0];
                    let cause = doom.map(|other| self.doomed(id, other)).or_else(|| self.bereft(id));
                    let Some(cause) = cause else {
                        let other = again?;
                        let words =
                            format!("done again: it prepares {}, which starts again", self.graph.name(other));
                        return Some(Turn::Again(self.unit(other).cause.because(words)));
                    };
                    self.may_stop(id).then_some(Turn::Event(Event::Stop(cause)))
                }
                State::Launching
                | State::Stopping { .. }
                | State::Cleaning { .. }
                | State::Backoff { .. }
                | State::Failed
                | State::Orphan => None,
            },
            Goal::Down | Goal::Bounce => match unit.state {
                State::Stopped => {
                    let rises = unit.goal == Goal::Bounce && !fault::on(Fault::ForgetsToComeBack);
                    rises.then_some(Turn::Rise)
                }
                State::Launching | State::Orphan => None,
                State::Waiting | State::Expecting { .. } | State::Backoff { .. } | State::Failed => {
                    Some(stop())
                }
                State::Preparing { .. }
                | State::Starting { .. }
                | State::Forked { .. }
                | State::Settling { .. }
                | State::Running { .. }
                | State::Done => self.may_stop(id).then(stop),
                State::Stopping { then, .. } | State::Cleaning { then, .. } => {
                    (then != Then::Settle).then(stop)
                }
            },
        }
    }

    /// Why a service cannot stay up.
    pub(super) fn doomed(&self, id: Id, other: Id) -> Cause {
        let (verb, phrase) = (self.graph.verb(id, other), self.phrase(other));
        Cause::new(format!("stopped: it {verb} {}, which is {phrase}", self.graph.name(other)))
    }

    /// Whether what prepares somebody was used up by an earlier run of it.
    fn again(&self, id: Id) -> Option<Id> {
        // Where nothing starts, nothing is done for a start.
        if !self.unit(id).is_up() || self.unit(id).goal != Goal::Up || self.held {
            return None;
        }
        let starts = |other: &Id| {
            let unit = self.unit(*other);
            unit.goal == Goal::Up && unit.state == State::Waiting && self.is_stale(id, *other)
        };
        self.graph.edges(id).prepares.iter().copied().find(starts)
    }

    /// Whether a service was launched since the one that prepares it came up.
    pub(super) fn is_stale(&self, preparer: Id, id: Id) -> bool {
        let launched = self.unit(id).launched;
        // A group has nothing to do again.
        self.graph.service(preparer).program().is_some()
            && !launched.is_zero()
            && launched >= self.unit(preparer).since
            && !fault::on(Fault::PreparesOnce)
    }

    /// Whether all that it depends on lets it start; its conditions are another matter.
    pub(super) fn may_start(&self, id: Id) -> bool {
        let edges = self.graph.edges(id);
        // And stays so: what is about to stop does not count.
        let up = |other: &Id| {
            let fate = &self.fates[other.0];
            let stays = fate.doom.is_none() && fate.again.is_none() && !fate.lost;
            self.unit(*other).is_up() && self.unit(*other).goal == Goal::Up && stays
        };
        let fresh = |other: &Id| !self.is_stale(*other, id);
        let settled = |other: &Id| !self.fates[other.0].on_its_way;
        let gone = |other: &Id| !self.unit(*other).is_active() && self.unit(*other).goal == Goal::Down;
        // Whoever cannot run at any moment without it ends before it begins anew.
        let unbound = |other: &Id| !self.unit(*other).is_active() || self.unit(*other).state == State::Orphan;
        !self.held
            && self.fates[id.0].doom.is_none()
            && (edges.requires.iter().all(up) || fault::on(Fault::StartsTooEarly))
            && edges.prepared_by.iter().all(fresh)
            && (edges.wants.iter().chain(&edges.after).all(settled) || fault::on(Fault::IgnoresOrder))
            && (edges.conflicts.iter().all(gone) || fault::on(Fault::StartsBesideARival))
            && edges.bonded.iter().all(unbound)
    }

    /// Whether all that come later and are to stop as well have stopped.
    fn may_stop(&self, id: Id) -> bool {
        self.graph.edges(id).later.iter().all(|later| {
            let unit = self.unit(*later);
            let fate = &self.fates[later.0];
            // Whoever is bound to it goes first, and may be on its way already.
            let bound = self.graph.edges(*later).bonds.contains(&id);
            let stays = unit.goal == Goal::Up && fate.doom.is_none() && !fate.lost && !bound;
            !unit.is_active() || unit.state == State::Orphan || stays || fault::on(Fault::StopsTooEarly)
        })
    }

    /// Whether a service waits for something that will not come by itself.
    #[must_use]
    pub fn is_blocked(&self, id: Id) -> bool {
        match self.unit(id).state {
            State::Waiting => self.fates[id.0].blocker.is_some(),
            State::Expecting { deadline: None } => !self.is_unknown(id),
            State::Expecting { deadline: Some(_) }
            | State::Stopped
            | State::Preparing { .. }
            | State::Launching
            | State::Starting { .. }
            | State::Forked { .. }
            | State::Settling { .. }
            | State::Running { .. }
            | State::Done
            | State::Stopping { .. }
            | State::Cleaning { .. }
            | State::Backoff { .. }
            | State::Failed
            | State::Orphan => false,
        }
    }

    /// What a waiting service waits for, for people.
    #[must_use]
    pub fn waits_for(&self, id: Id) -> Option<String> {
        let edges = self.graph.edges(id);
        let name = |id: &Id| self.graph.name(*id);
        if self.held {
            return Some(HELD.to_owned());
        }
        if let Some(other) = &self.fates[id.0].blocker {
            let verb = self.graph.verb(id, *other);
            return Some(format!("blocked: it {verb} {}, which is {}", name(other), self.phrase(*other)));
        }
        if let Some(other) = edges.requires.iter().find(|other| !self.unit(**other).is_up()) {
            return Some(format!("waits for {}, which it needs", name(other)));
        }
        if let Some(other) = edges.prepared_by.iter().find(|other| self.is_stale(**other, id)) {
            return Some(format!("waits for {}, which prepares it", name(other)));
        }
        if let Some(other) =
            edges.wants.iter().chain(&edges.after).find(|other| self.fates[other.0].on_its_way)
        {
            return Some(format!("waits for {}, which comes before it", name(other)));
        }
        if let Some(other) = edges.conflicts.iter().find(|other| self.unit(**other).is_active()) {
            return Some(format!("waits until {} is down, which conflicts with it", name(other)));
        }
        if let Some(bound) = edges.bonded.iter().find(|other| self.unit(**other).is_active()) {
            return Some(format!("waits until {} is down, which is bound to it", name(bound)));
        }
        let lack = self.lacking(id).next()?.resource.lack();
        Some(if self.is_blocked(id) { format!("blocked: {lack}") } else { format!("waits: {lack}") })
    }

    /// What a service is, for a sentence about another one.
    pub(super) fn phrase(&self, id: Id) -> &'static str {
        match self.unit(id).state {
            State::Stopped => "stopped",
            State::Waiting => "blocked itself",
            State::Expecting { .. } => "waiting for a condition",
            State::Preparing { .. }
            | State::Launching
            | State::Starting { .. }
            | State::Forked { .. }
            | State::Settling { .. } => "starting",
            State::Running { .. } | State::Done => "up",
            State::Stopping { then: Then::Fail, .. } | State::Cleaning { then: Then::Fail, .. } => "failed",
            State::Stopping { then: Then::Restart { .. }, .. }
            | State::Cleaning { then: Then::Restart { .. }, .. } => "waiting for its next try",
            State::Stopping { then: Then::Settle | Then::Done, .. }
            | State::Cleaning { then: Then::Settle | Then::Done, .. } => "stopping",
            State::Backoff { .. } => "waiting for its next try",
            State::Failed => "failed",
            State::Orphan => "running without a record",
        }
    }
}
