//! Pressure on services (PSI): the triggers of their policies, armed before they are launched, and what is done when one
//! fires.
//!
//! A trigger lives as long as its descriptor, so it goes with motherd, and the next motherd arms those of what runs anew.
//! The kernel fires one at most once in its window. What is only to be reported is said at most once a minute, and then how
//! often it fired since.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use nix::sys::epoll::EpollFlags;
use sandbox::{Plan, Trigger, cgroup::CgroupError, compile::triggers, policy::PressureAction};

use super::{
    Daemon, Fatal,
    events::{Source, watch},
    now,
    spawn::Refusal,
};
use crate::{
    eventlog::What,
    graph::Id,
    supervise::{Cause, Event, State},
};

/// Between two reports of one trigger: a service that is stalled for hours is not to push everything else out of the event
/// log.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// A trigger that is armed.
#[derive(Debug)]
pub(super) struct Armed {
    /// Closing it disarms the trigger and takes it out of the epoll set.
    _descriptor: OwnedFd,
    trigger: Trigger,
    /// Since it was armed.
    fired: u64,
    /// Of those, the ones that were said.
    said: u64,
    /// When it fired last, and when that was said last.
    last: Option<Duration>,
    reported: Option<Duration>,
}

impl Armed {
    /// `memory some: 150ms in 1s`
    fn entry(&self) -> String {
        self.trigger.entry().to_string()
    }

    /// It fired: how often since it was said last, if it is to be said again.
    fn fire(&mut self, now: Duration) -> Option<u64> {
        self.fired += 1;
        self.last = Some(now);
        if self.reported.is_some_and(|last| now.saturating_sub(last) < REPORT_EVERY) {
            return None;
        }
        self.reported = Some(now);
        let since = self.fired - self.said;
        self.said = self.fired;
        Some(since)
    }

    /// For people.
    fn words(&self, now: Duration) -> String {
        let what = format!("{}: {}", self.entry(), self.trigger.entry().action.word());
        match self.last {
            None => format!("{what}; never yet"),
            Some(last) => {
                let ago = now.saturating_sub(last).as_secs();
                let times = if self.fired == 1 { "once".to_owned() } else { format!("{} times", self.fired) };
                format!("{what}; {times}, {ago} s ago")
            }
        }
    }
}

impl Daemon {
    /// Arms the triggers of a plan on the service's cgroup, which nobody is in yet.
    pub(super) fn arm_pressure(&mut self, id: Id, plan: &Plan) -> Result<(), Refusal> {
        self.arm_all(id, plan.triggers()).map_err(|error| Refusal::by(error.errno(), error.to_string()))
    }

    fn arm_all(&mut self, id: Id, triggers: &[Trigger]) -> Result<(), CgroupError> {
        let Some(runtime) = self.runtime.get_mut(&id) else { return Ok(()) };
        runtime.pressure.clear();
        let Some(cgroup) = runtime.cgroup.as_ref().filter(|_| !triggers.is_empty()) else { return Ok(()) };
        for (number, trigger) in triggers.iter().enumerate() {
            let descriptor = cgroup.arm(trigger)?;
            // A policy has at most 16.
            let source = Source::Pressure(id, u8::try_from(number).unwrap_or(u8::MAX));
            // Edges: one that fired has fired, and is not asked again.
            watch(&self.epoll, descriptor.as_fd(), source, EpollFlags::EPOLLPRI | EpollFlags::EPOLLET)
                .map_err(|error| CgroupError::of(cgroup, "watch pressure of", error))?;
            runtime.pressure.push(Armed {
                _descriptor: descriptor,
                trigger: trigger.clone(),
                fired: 0,
                said: 0,
                last: None,
                reported: None,
            });
        }
        Ok(())
    }

    /// What runs already: its triggers went with the motherd before this one.
    pub(super) fn adopt_pressure(&mut self) {
        let mut known: BTreeMap<String, Vec<Trigger>> = BTreeMap::new();
        let ids: Vec<Id> =
            self.runtime.iter().filter(|(_, runtime)| runtime.cgroup.is_some()).map(|(id, _)| *id).collect();
        for id in ids {
            let service = self.manager.graph().service(id);
            let Some(policy) = service.program().map(|program| program.policy.value.clone()) else {
                continue;
            };
            let name = service.name().to_owned();
            let of_policy = known.entry(policy).or_insert_with_key(|policy| {
                match self.policies.read(policy, &self.store, &self.kernel) {
                    Ok(compiler) => triggers(compiler.policy(), &self.kernel),
                    Err(_) => {
                        tracing::warn!(
                            "{policy} is not readable any more: what it says of pressure is not watched"
                        );
                        Vec::new()
                    }
                }
            });
            if let Err(error) = self.arm_all(id, &of_policy.clone()) {
                tracing::error!("{name}: {error}");
            }
        }
    }

    /// A trigger fired.
    pub(super) fn pressure_ready(&mut self, id: Id, number: u8) -> Result<(), Fatal> {
        let now = now();
        let runtime = self.runtime.get_mut(&id);
        let armed = runtime.and_then(|runtime| runtime.pressure.get_mut(usize::from(number)));
        let Some(armed) = armed else { return Ok(()) };
        let said = armed.fire(now);
        let (entry, action) = (armed.entry(), armed.trigger.entry().action);
        let state = &self.manager.unit(id).state;
        let is_up = matches!(state, State::Starting { .. } | State::Running { .. });
        let signal = match action {
            PressureAction::Report => {
                if let Some(times) = said {
                    let again = if times == 1 { String::new() } else { format!(" ({times} times)") };
                    self.report_pressure(id, &format!("pressure: {entry}{again}"));
                }
                return Ok(());
            }
            PressureAction::Restart => None,
            PressureAction::Kill => Some(libc::SIGKILL),
        };
        // It ends already, or is not there yet.
        if !is_up {
            return Ok(());
        }
        self.report_pressure(id, &format!("pressure: {entry}: {}", action.word()));
        self.event(id, Event::Sick { why: format!("pressure: {entry}"), signal })?;
        if action == PressureAction::Kill {
            // All of it at once: what stalls is not waited for.
            self.kill(id);
        }
        Ok(())
    }

    fn report_pressure(&mut self, id: Id, words: &str) {
        let name = self.manager.graph().name(id).to_owned();
        tracing::warn!("{name}: {words}");
        self.note(What::Pressure, &name, &Cause::new(words));
    }

    /// Before the cgroup goes: see [`sandbox::cgroup::Cgroup::arm`].
    pub(super) fn disarm_pressure(&mut self, id: Id) {
        if let Some(runtime) = self.runtime.get_mut(&id) {
            runtime.pressure.clear();
        }
    }

    /// One line for each trigger, for people.
    pub(super) fn pressure_words(&self, id: Id) -> Vec<String> {
        let armed = self.runtime.get(&id).map(|runtime| runtime.pressure.as_slice()).unwrap_or_default();
        armed.iter().map(|armed| armed.words(now())).collect()
    }
}
