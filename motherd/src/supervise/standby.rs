//! One more process of a service, confined and waiting right before execve, so that a start costs an execve
//! (`standby = true`). It is beside the states: it comes and goes while the service runs, and a launch takes it.
//!
//! Invariant: it is no instance. It executes nothing until a launch releases it, it is in no state's `main`, and what ends
//! it or makes it anew is the manager's ([`crate::manager`]).

use std::time::Duration;

use super::{Act, Event, Main, Unit};

/// One that could not be made, or ended by itself, is made again after this long.
pub const PARK_AGAIN: Duration = Duration::from_secs(30);

/// After one was released the next is made so much later: what was released has the processors first, and then the end of what ran
/// before it.
pub const PARK_NEXT: Duration = Duration::from_millis(50);

/// The process that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standby {
    /// There is none.
    #[default]
    None,
    /// It is being made; the next event about it says whether it was.
    Parking,
    /// It waits.
    Parked {
        /// It.
        process: Main,
    },
    /// There is none, and none is made before.
    Later {
        /// See above.
        at: Duration,
    },
}

/// What reaches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandbyEvent {
    /// One is to be made.
    Make,
    /// It is to end.
    End,
    /// It was made.
    Made {
        /// It.
        pid: u32,
    },
    /// It is no more, or was not made.
    Gone {
        /// By itself; or it could not be made.
        failed: bool,
    },
}

impl Unit {
    /// What an event means to the process that waits. `None`: it is not about it alone.
    pub(super) fn step_standby(&mut self, event: &Event, now: Duration) -> Option<Vec<Act>> {
        match *event {
            Event::Standby(event) => Some(self.standby_event(event, now)),
            Event::Launched { pid } => {
                // It was released.
                if matches!(self.standby, Standby::Parked { process } if process.pid == pid) {
                    self.standby = Standby::Later { at: now.saturating_add(PARK_NEXT) };
                }
                None
            }
            Event::Timer => {
                if matches!(self.standby, Standby::Later { at } if now >= at) {
                    self.standby = Standby::None;
                }
                None
            }
            Event::Wait(_)
            | Event::Expect { .. }
            | Event::Start
            | Event::Stop(_)
            | Event::LaunchFailed { .. }
            | Event::Ready
            | Event::MainPid { .. }
            | Event::CommandLaunched { .. }
            | Event::CommandFailed { .. }
            | Event::CommandExited(_)
            | Event::Extend { .. }
            | Event::Sick { .. }
            | Event::Stuck { .. }
            | Event::Exited(_)
            | Event::Lost
            | Event::Deaf { .. }
            | Event::Gone => None,
        }
    }

    fn standby_event(&mut self, event: StandbyEvent, now: Duration) -> Vec<Act> {
        match (event, self.standby) {
            (StandbyEvent::Make, Standby::None) => {
                self.standby = Standby::Parking;
                vec![Act::Park]
            }
            (StandbyEvent::End, Standby::Parked { process }) => {
                self.standby = Standby::None;
                vec![Act::Unpark { pid: process.pid }]
            }
            (StandbyEvent::End, Standby::Later { .. }) => {
                self.standby = Standby::None;
                vec![]
            }
            (StandbyEvent::Made { pid }, Standby::Parking) => {
                self.standby = Standby::Parked { process: Main { pid, launched: now } };
                vec![]
            }
            // Nobody waits for it any more.
            (StandbyEvent::Made { pid }, Standby::None | Standby::Parked { .. } | Standby::Later { .. }) => {
                vec![Act::Unpark { pid }]
            }
            (StandbyEvent::Gone { failed }, Standby::Parking | Standby::Parked { .. }) => {
                self.standby = if failed {
                    Standby::Later { at: now.saturating_add(PARK_AGAIN) }
                } else {
                    Standby::None
                };
                vec![]
            }
            (StandbyEvent::Make, Standby::Parking | Standby::Parked { .. } | Standby::Later { .. })
            | (StandbyEvent::End, Standby::None | Standby::Parking)
            | (StandbyEvent::Gone { .. }, Standby::None | Standby::Later { .. }) => vec![],
        }
    }
}
