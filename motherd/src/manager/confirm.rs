//! What is decided at the moment when it is done.
//!
//! Between the decision and its execution lie the effects that come before it, and the events that these bring: a
//! service that went down meanwhile is not what its dependents were to be started on. So whatever makes or ends a
//! process is only announced ([`Effect::Turn`]), and decided when that is executed, on how things are then; what
//! follows from it is executed at once. So is what is said to somebody ([`Effect::Answer`]). What was decided and is not
//! meant any more is dropped.

use std::time::Duration;

use super::{Effect, Manager, fate::Turn};
use crate::{
    fault::{self, Fault},
    graph::Id,
    supervise::{Act, Cause, Event, Goal, State},
};

/// What is to be done in the place of an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirmed {
    /// The effect.
    Yes,
    /// Not the effect but these, before anything that was decided earlier.
    Instead(Vec<Effect>),
}

impl Manager {
    /// To be asked right before an effect is executed. The state has to be recorded before what comes of it is.
    #[must_use]
    pub fn confirm(&mut self, effect: &Effect, now: Duration) -> Confirmed {
        let mut effects = Vec::new();
        match effect {
            Effect::Turn(id) => {
                self.due.remove(id);
                if let Some(turn) = self.turn(*id) {
                    self.take(*id, turn, now, &mut effects);
                }
                self.settle(now, &mut effects);
                Confirmed::Instead(effects)
            }
            Effect::Service(id, act) if !self.unit(*id).means(act) && !fault::on(Fault::ActsTooLate) => {
                Confirmed::Instead(effects)
            }
            Effect::Service(id, Act::Launch) => match self.obstacle(*id) {
                None => Confirmed::Yes,
                Some(cause) => {
                    self.step(*id, Event::Stop(cause), now, &mut effects);
                    self.settle(now, &mut effects);
                    Confirmed::Instead(effects)
                }
            },
            Effect::Service(..) => Confirmed::Yes,
            Effect::Answer { token } => {
                effects.extend(self.reply(*token));
                self.settle(now, &mut effects);
                Confirmed::Instead(effects)
            }
            Effect::Reply { .. } | Effect::End { .. } => Confirmed::Yes,
        }
    }

    /// Why a program is not to be made any more: what comes before it (`start.pre`) may have taken long.
    fn obstacle(&self, id: Id) -> Option<Cause> {
        match self.unit(id).goal {
            _ if fault::on(Fault::LaunchesTheUnwanted) => None,
            Goal::Up => {
                let doom = self.fates[id.0].doom.map(|other| self.doomed(id, other));
                doom.or_else(|| self.bereft(id))
            }
            Goal::Down | Goal::Bounce => Some(self.unit(id).asked.clone()),
        }
    }

    /// Whether a turn makes or ends a process.
    pub(super) fn has_acts(&self, id: Id, turn: &Turn) -> bool {
        let unit = self.unit(id);
        match turn {
            Turn::Event(Event::Start) => self.graph.service(id).program().is_some(),
            // It asks to be looked for, which nothing overtakes.
            Turn::Event(Event::Expect { .. } | Event::Wait(_)) => false,
            Turn::Event(Event::Standby(_)) => true,
            Turn::Event(_) => unit.can_be_stopped() && unit.state != State::Done,
            Turn::Rise | Turn::Again(_) => false,
        }
    }

    pub(super) fn take(&mut self, id: Id, turn: Turn, now: Duration, effects: &mut Vec<Effect>) {
        match turn {
            Turn::Event(event) => self.step(id, event, now, effects),
            Turn::Again(cause) => self.set_goal(id, Goal::Bounce, &cause),
            Turn::Rise => {
                self.units[id.0].goal = Goal::Up;
                self.changed(id);
            }
        }
    }
}
