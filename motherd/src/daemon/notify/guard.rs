//! Watchdogs, and the patience with a service that said that it is ending: who is silent or slow for too long is `Sick`.
//!
//! Nothing is recorded: a new motherd begins to count anew, so its own absence is never held against a service.

use std::{collections::BTreeSet, time::Duration};

use super::super::{Daemon, Fatal};
use crate::{
    graph::Id,
    supervise::{Event, State},
};

/// The services that something may be due of.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Guarded(BTreeSet<Id>);

impl Guarded {
    pub(in crate::daemon) fn insert(&mut self, id: Id) {
        self.0.insert(id);
    }

    pub(in crate::daemon) fn remove(&mut self, id: Id) {
        self.0.remove(&id);
    }
}

/// What is due, and what is said and done then.
struct Due {
    at: Duration,
    why: String,
    signal: i32,
}

impl Daemon {
    /// When the next one has been silent for too long.
    pub(in crate::daemon) fn next_silence(&self) -> Option<Duration> {
        self.guarded.0.iter().filter_map(|id| self.due(*id)).map(|due| due.at).min()
    }

    /// Those that have been.
    pub(in crate::daemon) fn end_silences(&mut self, now: Duration) -> Result<(), Fatal> {
        for id in self.guarded.0.clone() {
            if self.due(id).is_none_or(|due| due.at > now) {
                continue;
            }
            // What it said in time may still be unread.
            self.hear_all(id)?;
            if let Some(Due { why, signal, .. }) = self.due(id).filter(|due| due.at <= now) {
                self.event(id, Event::Sick { why, signal: Some(signal) })?;
            }
        }
        Ok(())
    }

    fn due(&self, id: Id) -> Option<Due> {
        let unit = self.manager.unit(id);
        let State::Running { .. } = unit.state else { return None };
        let said = &self.runtime.get(&id)?.said;
        if let Some(at) = said.stopping {
            let why = "it said STOPPING=1, and did not end in the time for that".to_owned();
            return Some(Due { at, why, signal: libc::SIGKILL });
        }
        let written = self.manager.graph().service(id).program()?.watchdog;
        let interval = said.watchdog.or(written).filter(|interval| !interval.is_zero())?;
        let why = format!("watchdog: silent for {} s", interval.as_secs_f64());
        Some(Due { at: said.alive.max(unit.since).saturating_add(interval), why, signal: libc::SIGABRT })
    }
}
