//! Conditions: what has to be so on the machine before a service starts, and what follows when it ends to be.
//!
//! The daemon looks where it is asked to ([`crate::supervise::Act::Look`]) and says what it found and what changes, by
//! [`Manager::conditions`]. What was found is believed as long as it is looked at: while the service waits for its
//! conditions, and, for those whose loss means something to it, while it is there. What is not known does not hold.

use std::time::Duration;

use super::{Effect, Manager, fate::Turn};
use crate::{
    fault::{self, Fault},
    graph::Id,
    service::{Condition, OnLoss},
    supervise::{Cause, Event, Goal, State},
};

/// Which conditions of a service hold: a bit for each, by its place in the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Met {
    known: u32,
    holds: u32,
}

impl Met {
    fn set(&mut self, place: usize, holds: bool) {
        self.known |= 1 << place;
        self.holds = self.holds & !(1 << place) | u32::from(holds) << place;
    }

    fn get(self, place: usize) -> Option<bool> {
        (self.known >> place & 1 == 1).then_some(self.holds >> place & 1 == 1)
    }
}

impl Manager {
    /// What was found out about the conditions of a service, by their places: all of them after
    /// [`crate::supervise::Act::Look`], and after that what changes.
    #[must_use]
    pub fn conditions(&mut self, id: Id, found: &[(usize, bool)], now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (place, holds) in found {
            self.met[id.0].set(*place, *holds);
        }
        self.dirty.insert(id);
        let unit = self.unit(id);
        if unit.is_active() && unit.state != State::Orphan && unit.goal != Goal::Down {
            let gone =
                self.gone(id, |on_loss| on_loss == OnLoss::Stop).map(|condition| condition.resource.lack());
            if let Some(lack) = gone {
                self.set_goal(id, Goal::Down, &Cause::new(format!("stopped: {lack}")));
                self.release(vec![id]);
            }
        }
        self.settle(now, &mut effects);
        effects
    }

    /// Other files may have other conditions: what is waited for is looked at again.
    pub(super) fn look_again(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        for id in self.graph.ids() {
            if matches!(self.unit(id).state, State::Expecting { .. }) {
                let cause = self.unit(id).cause.clone();
                self.step(id, Event::Wait(cause), now, effects);
            }
        }
    }

    /// A condition that is known not to hold, of those with this consequence.
    fn gone(&self, id: Id, on_loss: impl Fn(OnLoss) -> bool) -> Option<&Condition> {
        let of_it = |(place, condition): &(usize, &Condition)| {
            on_loss(condition.on_loss) && self.met[id.0].get(*place) == Some(false)
        };
        let found = self.graph.service(id).conditions().iter().enumerate().find(of_it);
        found.map(|(_, condition)| condition).filter(|_| !fault::on(Fault::IgnoresALoss))
    }

    /// What a service that is there and to be up cannot be without. One that stops for good is here as well: somebody has
    /// asked for it again before it was down.
    pub(super) fn lost(&self, id: Id) -> Option<&Condition> {
        self.gone(id, |on_loss| on_loss != OnLoss::Ignore)
    }

    /// Why a service is to go down until its condition holds again.
    pub(super) fn bereft(&self, id: Id) -> Option<Cause> {
        let lack = self.lost(id)?.resource.lack();
        Some(Cause::new(format!("restarted as soon as that is mended: {lack}")))
    }

    /// The conditions that do not hold, or of which that is not known.
    pub(super) fn lacking(&self, id: Id) -> impl Iterator<Item = &Condition> {
        let met = self.met[id.0];
        let all = self.graph.service(id).conditions().iter().enumerate();
        all.filter(move |(place, _)| met.get(*place) != Some(true))
            .map(|(_, condition)| condition)
            .filter(|_| !fault::on(Fault::IgnoresConditions))
    }

    /// Whether its conditions are still to be looked at.
    pub(super) fn is_unknown(&self, id: Id) -> bool {
        let count = self.graph.service(id).conditions().len();
        (0..count).any(|place| self.met[id.0].get(place).is_none())
    }

    /// All that it depends on lets it start: it does, or it waits for its conditions.
    pub(super) fn begin(&self, id: Id) -> Turn {
        if self.graph.service(id).conditions().is_empty() {
            return Turn::Event(Event::Start);
        }
        Turn::Event(Event::Expect { patience: self.patience(id) })
    }

    /// It waits for its conditions: it starts, goes back to wait for others, or others wait longer with it.
    pub(super) fn goes_on(&self, id: Id, deadline: Option<Duration>) -> Option<Turn> {
        let unit = self.unit(id);
        if !self.may_start(id) {
            return Some(Turn::Event(Event::Wait(unit.cause.clone())));
        }
        if self.is_unknown(id) {
            return None;
        }
        if self.lacking(id).next().is_none() {
            return Some(Turn::Event(Event::Start));
        }
        let patience = self.patience(id);
        let longer = patience.is_none_or(|patience| Some(unit.since.saturating_add(patience)) > deadline);
        (deadline.is_some() && longer).then_some(Turn::Event(Event::Expect { patience }))
    }

    /// How long others wait with it for what it lacks.
    fn patience(&self, id: Id) -> Option<Duration> {
        self.lacking(id).filter_map(|condition| condition.timeout).min()
    }
}
