//! Not waiting any longer for a service that does not stop: what somebody says who stands before a machine that does not
//! end.

use std::time::Duration;

use super::{Effect, Manager};
use crate::{
    graph::Id,
    supervise::{Cause, Event, Stage, State},
};

impl Manager {
    /// What a service is given time for is over: what was asked to end is killed. Where even that did not end it, the end
    /// of the machine goes on without it.
    ///
    /// # Errors
    /// Why there is nothing to skip.
    pub fn skip(&mut self, id: Id, cause: &Cause, now: Duration) -> Result<Vec<Effect>, String> {
        let mut effects = Vec::new();
        match self.unit(id).state {
            State::Stopping { stage: Stage::Signalled { .. }, .. } => {
                let why = cause.words.clone();
                self.step(id, Event::Deaf { why }, now, &mut effects);
            }
            State::Stopping { stage: Stage::Asking { .. }, .. } | State::Cleaning { .. } => {
                let unit = &mut self.units[id.0];
                unit.cause.words = format!("{}; {}", unit.cause.words, cause.words);
                if let Some(command) = unit.state.command() {
                    command.deadline = now;
                }
                self.changed(id);
                self.step(id, Event::Timer, now, &mut effects);
            }
            State::Stopping { stage: Stage::Killed { .. }, .. } if self.ending.is_some() => {
                self.abandoned.insert(id);
            }
            State::Stopping { stage: Stage::Killed { .. }, .. } => {
                let unit = self.unit(id);
                return Err(format!("SIGKILL was sent already, and it is not gone: {}", unit.cause.words));
            }
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
            | State::Backoff { .. }
            | State::Failed
            | State::Orphan => return Err("it is not being stopped".to_owned()),
        }
        self.settle(now, &mut effects);
        Ok(effects)
    }
}
