//! Whether an act is still what its state means: events may have come between its decision and its execution.

use super::{Act, Main, Stage, Standby, State, Unit};
use crate::fault::{self, Fault};

impl Unit {
    /// Whether this act still belongs to the state.
    #[must_use]
    pub fn means(&self, act: &Act) -> bool {
        let stopping = match self.state {
            State::Stopping { main, stage, .. } => Some((main, stage)),
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
            | State::Cleaning { .. }
            | State::Backoff { .. }
            | State::Failed
            | State::Orphan => None,
        };
        match *act {
            Act::Look => matches!(self.state, State::Expecting { .. }),
            Act::Park => self.standby == Standby::Parking,
            // It is not one that is kept.
            Act::Unpark { pid } => !matches!(self.standby, Standby::Parked { process } if process.pid == pid),
            Act::Launch => self.state == State::Launching,
            Act::Run { hook, index } => self
                .command()
                .is_some_and(|command| (command.hook, command.index, command.process) == (hook, index, None)),
            // It had its time, or the state has gone on without it.
            Act::KillCommand { pid } => self.command().is_none_or(|command| {
                command.overdue || command.process.is_none_or(|process| process.pid != pid)
            }),
            Act::FindMain => matches!(self.state, State::Forked { .. }),
            Act::Signal { pid, .. } => {
                let asked = |(main, _): (Option<Main>, Stage)| main.is_some_and(|main| main.pid == pid);
                stopping.is_some_and(asked) || fault::on(Fault::SignalsTheDead)
            }
            Act::SignalAll { .. } => matches!(stopping, Some((None, Stage::Signalled { .. }))),
            Act::Kill | Act::Survivors => matches!(stopping, Some((_, Stage::Killed { .. }))),
            Act::Sweep => matches!(stopping, Some((None, Stage::Signalled { .. } | Stage::Killed { .. }))),
        }
    }
}
