//! [`Daemon::dispatch`]: what was decided is recorded and done, of many turns a slice at a time.
//!
//! ```text
//!  an event ──► decision ──► its acts, its turns for one slice ──► the turns that are left
//!                                                                       │ behind those of earlier decisions
//!  epoll ◄── one slice of them, whenever epoll was asked once  ◄────────┘
//! ```
//!
//! A thousand services take a second, and on a slow machine many. Whoever asks something meanwhile, ends, says that it is
//! ready, or has its time come, does not wait for the last of them but for one slice.
//!
//! Invariants. Only turns wait: an act or an answer is done within the dispatch that it comes from, so that nothing lies
//! between `Launching` in the record and the launch. A turn that waits decides nothing: its service is looked at again when
//! it comes ([`crate::manager::Manager::confirm`]), by how things are then. So whoever is to stop meanwhile is not launched,
//! and a motherd that ends in between leaves no more than services whose goals say what is still to be done. And a decision
//! does not wait for those before it: its own turns come first, for one slice.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use sandbox::cgroup::Slices;

use super::{Daemon, Fatal, now};
use crate::{
    failpoint,
    graph::Id,
    manager::{Confirmed, Effect},
    supervise::{Act, Event},
};

/// After this long epoll is asked: what a person does not notice, and many times what asking costs.
const SLICE: Duration = Duration::from_millis(50);

/// Whether a slice that took this many turns has an end. Where tests have motherd end it is known where they are: two are one, so
/// that a child is on its way while another is launched.
fn is_over(taken: usize, now: Duration, until: Duration) -> bool {
    if cfg!(feature = "failpoints") { taken >= 2 } else { taken > 0 && now >= until }
}

/// Turns that are still to come, the earliest first.
#[derive(Debug, Default)]
pub(super) struct Turns {
    behind: VecDeque<Id>,
    looked_at: LookedAt,
}

/// What one decision looks at once. The decision that was made last is what counts for all turns: whoever changes a policy and
/// asks for a restart then gets what it says now.
#[derive(Debug, Default)]
struct LookedAt {
    policies: BTreeSet<String>,
    slices: Slices,
}

impl Daemon {
    /// Records, then executes what is still meant, and again with what follows from that.
    pub(super) fn dispatch(&mut self, effects: Vec<Effect>) -> Result<(), Fatal> {
        let (left, looked_at) = self.slice(effects.into(), LookedAt::default())?;
        if !left.is_empty() {
            self.turns.behind.extend(left);
            self.turns.looked_at = looked_at;
        }
        self.after_slice()
    }

    pub(super) fn event(&mut self, id: Id, event: Event) -> Result<(), Fatal> {
        let effects = self.manager.event(id, event, now());
        self.dispatch(effects)
    }

    /// Whether there are turns to come.
    pub(super) fn is_behind(&self) -> bool {
        !self.turns.behind.is_empty()
    }

    /// The next slice of them.
    pub(super) fn go_on(&mut self) -> Result<(), Fatal> {
        failpoint::hit("dispatch.between-slices");
        let Turns { behind, looked_at } = std::mem::take(&mut self.turns);
        let (mut left, looked_at) = self.slice(behind.into_iter().map(Effect::Turn).collect(), looked_at)?;
        left.append(&mut self.turns.behind);
        if !left.is_empty() {
            self.turns = Turns { behind: left, looked_at };
        }
        self.after_slice()
    }

    /// Turns until the time is over, and the rest to its end: which turns are left, and what was looked at.
    fn slice(
        &mut self,
        mut queue: VecDeque<Effect>,
        looked_at: LookedAt,
    ) -> Result<(VecDeque<Id>, LookedAt), Fatal> {
        let mut left = VecDeque::new();
        self.policies.go_on(looked_at.policies);
        self.slices = looked_at.slices;
        self.record();
        let (until, mut taken) = (now() + SLICE, 0);
        loop {
            if let Some(flying) = self.flying()
                && queue.front().is_none_or(|effect| !effect.may_overlap(flying))
            {
                let events = self.land()?;
                queue.extend(self.what_follows(events));
            }
            if self.flying().is_none() {
                self.keep_processes()?;
            }
            let Some(effect) = queue.pop_front() else { break };
            let now = now();
            if let Effect::Turn(id) = effect {
                if is_over(taken, now, until) {
                    left.push_back(id);
                    continue;
                }
                taken += 1;
            }
            if let Confirmed::Instead(effects) = self.manager.confirm(&effect, now) {
                self.record();
                for effect in effects.into_iter().rev() {
                    queue.push_front(effect);
                }
                continue;
            }
            queue.extend(self.done(effect)?);
        }
        Ok((left, LookedAt { policies: self.policies.end(), slices: std::mem::take(&mut self.slices) }))
    }

    /// Executes one effect; returns what follows from it.
    fn done(&mut self, effect: Effect) -> Result<Vec<Effect>, Fatal> {
        if let Effect::Service(id, Act::Look) = effect {
            let found = self.look(id)?;
            let effects = self.manager.conditions(id, &found, now());
            self.record();
            self.tell_expectation(id);
            return Ok(effects);
        }
        let events = self.execute(effect)?;
        failpoint::hit("dispatch.executed");
        Ok(self.what_follows(events))
    }

    fn what_follows(&mut self, events: Vec<(Id, Event)>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (id, event) in events {
            let launched = matches!(event, Event::Launched { .. });
            effects.extend(self.manager.event(id, event, now()));
            self.record();
            if launched {
                effects.extend(self.renew_network(id));
                self.record();
            }
        }
        effects
    }

    /// What follows from how things are now, whatever led there.
    fn after_slice(&mut self) -> Result<(), Fatal> {
        if !self.is_behind() {
            self.complete_launches();
        }
        self.let_go()?;
        self.announce();
        self.hand_over()
    }
}
