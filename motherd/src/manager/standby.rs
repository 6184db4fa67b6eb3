//! When a service has one more process that waits right before execve.
//!
//! One is made while the service runs, for its next crash; and while it is down and waits for a connection to a lazy
//! socket. It is kept while the service is on its way from a crash to its next start, which takes it. It ends with
//! whatever else ends: a stop, a restart that somebody asked for, a failure for good, another definition, the end of the
//! machine.

use super::{Manager, fate::Turn};
use crate::{
    fault::{self, Fault},
    graph::Id,
    supervise::{Event, Goal, Standby, StandbyEvent, State, Then},
};

impl Manager {
    /// What is to happen with the process that waits, if anything.
    pub(super) fn standby_turn(&self, id: Id) -> Option<Turn> {
        let unit = self.unit(id);
        let event = match unit.standby {
            Standby::None if self.makes_standby(id) => StandbyEvent::Make,
            Standby::Parked { .. } | Standby::Later { .. } if !self.keeps_standby(id) => StandbyEvent::End,
            Standby::None | Standby::Parking | Standby::Parked { .. } | Standby::Later { .. } => return None,
        };
        Some(Turn::Event(Event::Standby(event)))
    }

    /// Its file asks for one, and it will be started as that says.
    fn may_have_standby(&self, id: Id) -> bool {
        let asked = self.rules(id).is_some_and(|rules| rules.standby);
        let holds = !self.graph.is_retired(id) && self.graph.next(id).is_none();
        asked && holds && !self.held && self.ending.is_none()
    }

    /// A connection starts it.
    fn waits_for_connections(&self, id: Id) -> bool {
        let unit = self.unit(id);
        let lazy = self.graph.service(id).sockets().iter().any(|socket| socket.lazy);
        lazy && unit.state == State::Stopped && unit.goal == Goal::Down
    }

    fn makes_standby(&self, id: Id) -> bool {
        let unit = self.unit(id);
        let fate = &self.fates[id.0];
        let stays = unit.goal == Goal::Up && fate.doom.is_none() && !fate.lost;
        let runs = matches!(unit.state, State::Running { .. }) && stays;
        self.may_have_standby(id)
            && (runs || self.waits_for_connections(id))
            && !fault::on(Fault::ForgetsTheStandby)
    }

    fn keeps_standby(&self, id: Id) -> bool {
        let unit = self.unit(id);
        let on_its_way = match unit.state {
            State::Waiting
            | State::Expecting { .. }
            | State::Preparing { .. }
            | State::Launching
            | State::Starting { .. }
            | State::Settling { .. }
            | State::Running { .. }
            | State::Backoff { .. }
            | State::Stopping { then: Then::Restart { .. }, .. }
            | State::Cleaning { then: Then::Restart { .. }, .. } => unit.goal == Goal::Up,
            State::Stopped
            | State::Forked { .. }
            | State::Done
            | State::Stopping { then: Then::Settle | Then::Done | Then::Fail, .. }
            | State::Cleaning { then: Then::Settle | Then::Done | Then::Fail, .. }
            | State::Failed
            | State::Orphan => false,
        };
        self.may_have_standby(id) && (on_its_way || self.waits_for_connections(id))
            || fault::on(Fault::KeepsTheStandby)
    }
}
