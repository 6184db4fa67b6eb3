//! What is promised, all of it, in one place: what holds at each launch and each signal, after each event, and at rest.

use std::time::Duration;

use super::world::World;
use crate::{
    graph::Id,
    manager::Verb,
    service::{Condition, OnLoss},
    supervise::{Goal, Hook, Standby, State, Then, Unit},
};

/// What was broken, in words.
pub(super) type Held = Result<(), String>;

fn that(holds: bool, what: impl FnOnce() -> String) -> Held {
    if holds { Ok(()) } else { Err(what()) }
}

impl World {
    /// Before a process is made: there is no other one, what it requires is ready, what it comes after is settled, its
    /// rivals are gone, and what prepares it was done since it ran the last time.
    pub(super) fn holds_at_a_launch(&self, id: Id) -> Held {
        let name = self.name(id);
        let (body, unit) = (self.body(id), self.unit(id));
        let prepared = body.prepared;
        that(body.main.is_none() && (prepared || !body.others), || format!("two instances of {name}"))?;
        that(body.command.is_none(), || format!("{name} is launched beside its own command"))?;
        that(unit.goal == Goal::Up, || format!("{name} is launched, and is to be {:?}", unit.goal))?;
        if !prepared {
            self.holds_at_a_beginning(id)?;
        }
        let bereft = |condition: &Condition| condition.on_loss == OnLoss::Restart;
        self.conditions_hold(id, "is launched", bereft)
    }

    /// Before the first command before a program, or the program where there is none.
    fn holds_at_a_beginning(&self, id: Id) -> Held {
        let name = self.name(id);
        let (body, edges) = (self.body(id), self.manager.graph().edges(id));
        self.conditions_hold(id, "starts", |_| true)?;
        for other in &edges.requires {
            that(self.unit(*other).is_up(), || format!("{name} starts before {}", self.name(*other)))?;
        }
        for other in edges.wants.iter().chain(&edges.after) {
            let first = self.unit(*other);
            let coming = matches!(
                first.state,
                State::Preparing { .. }
                    | State::Launching
                    | State::Starting { .. }
                    | State::Forked { .. }
                    | State::Settling { .. }
            );
            that(!coming || first.goal == Goal::Down, || {
                format!("{name} does not wait for {}, which is starting", self.name(*other))
            })?;
        }
        for other in &edges.conflicts {
            let other_body = self.body(*other);
            that(!other_body.is_alive() && !self.unit(*other).is_active(), || {
                format!("{name} starts beside {}", self.name(*other))
            })?;
        }
        for other in &edges.bonded {
            let unit = self.unit(*other);
            that(!unit.is_active() || unit.state == State::Orphan, || {
                format!("{name} starts anew before {}, which is bound to it, has ended", self.name(*other))
            })?;
        }
        for other in &edges.prepared_by {
            let program = self.manager.graph().service(*other).program().is_some();
            let fresh = self.body(*other).up_at > body.launched_before || body.launched_before == 0;
            that(!program || fresh, || {
                format!("{name} starts again, and {} was not done again", self.name(*other))
            })?;
        }
        Ok(())
    }

    /// Before a command: it is the only one, and the program is there or not as that command expects.
    pub(super) fn holds_at_a_command(&self, id: Id, hook: Hook) -> Held {
        let (name, body) = (self.name(id), self.body(id));
        that(body.command.is_none(), || format!("two commands of {name} at once"))?;
        match hook {
            Hook::Pre | Hook::StopPost => {
                that(body.main.is_none(), || {
                    format!("a command of {name} runs without a program, and it has one")
                })?;
            }
            Hook::Post | Hook::Stop => {}
        }
        let first = self.unit(id).command().is_some_and(|command| command.index == 0);
        if hook == Hook::Pre && first { self.holds_at_a_beginning(id) } else { Ok(()) }
    }

    /// Before a process is made that waits to be the next one: there is none, its file asks for one, and there will be a
    /// next start.
    pub(super) fn holds_at_a_standby(&self, id: Id) -> Held {
        let (name, unit) = (self.name(id), self.unit(id));
        that(self.body(id).parked.is_none(), || format!("two processes of {name} wait to be the next one"))?;
        let asked = self.manager.graph().service(id).program().is_some_and(|program| program.standby);
        let reason = matches!(unit.state, State::Running { .. } | State::Stopped);
        that(asked && reason && self.manager.ending().is_none(), || {
            format!("a process of {name} is to wait to be the next one, and it is {:?}", unit.state)
        })
    }

    /// At rest: whoever asks for it has a process that waits, where a next start may come, and nobody else has.
    fn holds_for_standbys(&self, id: Id) -> Held {
        let (name, unit, service) = (self.name(id), self.unit(id), self.manager.graph().service(id));
        let lazy = service.sockets().iter().any(|socket| socket.lazy) && unit.goal == Goal::Down;
        let asked = service.program().is_some_and(|program| program.standby);
        let same = self.manager.graph().next(id).is_none() && !self.manager.graph().is_retired(id);
        let (must, may) = match unit.state {
            State::Running { .. } => (true, true),
            State::Stopped => (lazy, lazy),
            State::Waiting | State::Expecting { .. } => (false, true),
            State::Preparing { .. }
            | State::Launching
            | State::Starting { .. }
            | State::Forked { .. }
            | State::Settling { .. }
            | State::Done
            | State::Stopping { .. }
            | State::Cleaning { .. }
            | State::Backoff { .. }
            | State::Failed
            | State::Orphan => (false, false),
        };
        let (must, may) = (must && asked && same, may && asked && same && self.ended.is_none());
        let parked = self.body(id).parked;
        that(parked.is_none() || may, || {
            format!("{name} is {:?}, and a process waits to be its next", unit.state)
        })?;
        that(parked.is_some() || !must || self.ended.is_some(), || {
            format!("{name} is {:?}, and no process waits to be its next: {:?}", unit.state, unit.standby)
        })?;
        let known = match unit.standby {
            Standby::Parked { process } => Some(process.pid),
            Standby::None | Standby::Parking | Standby::Later { .. } => None,
        };
        that(parked == known, || {
            format!("the process that waits for {name} is {parked:?}, and {known:?} is known")
        })
    }

    fn conditions_hold(&self, id: Id, does: &str, which: impl Fn(&Condition) -> bool) -> Held {
        let conditions = self.manager.graph().service(id).conditions().iter().enumerate();
        for (place, condition) in conditions.filter(|(_, condition)| which(condition)) {
            that(self.is_so(id, place), || {
                format!("{} {does}, and its condition {place} does not hold: {condition:?}", self.name(id))
            })?;
        }
        Ok(())
    }

    /// Before a signal: the process is the service's, and it was not reaped.
    pub(super) fn holds_at_a_signal(&self, id: Id, pid: Option<u32>) -> Held {
        let name = self.name(id);
        if let Some(pid) = pid {
            that(self.body(id).known_main == Some(pid), || {
                format!("a signal for process {pid}, which is not {name} any more")
            })?;
        }
        Ok(())
    }

    /// Before everything in a cgroup is killed: the service is being stopped.
    pub(super) fn holds_at_a_kill(&self, id: Id) -> Held {
        let unit = self.unit(id);
        that(matches!(unit.state, State::Stopping { .. }), || {
            format!("{} is killed, and is {:?}", self.name(id), unit.state)
        })
    }

    /// When the end of a service begins, by a command or by a signal. If that is for good, whoever cannot run without it
    /// has stopped, and so has whoever comes later and is to stop as well.
    pub(super) fn holds_at_an_end(&self, id: Id) -> Held {
        let (name, unit) = (self.name(id), self.unit(id));
        let State::Stopping { then: Then::Settle, .. } = unit.state else { return Ok(()) };
        // A motherd that comes back sends once more what the one before it may not have sent. One that fails by itself ends,
        // whoever waits for it.
        if unit.since < self.born || !self.body(id).decided {
            return Ok(());
        }
        // One that comes up again leaves those up that tolerate that.
        let lost = self.conditions_hold(id, "", |condition| condition.on_loss != OnLoss::Ignore).is_err();
        let comes_back = unit.goal == Goal::Bounce || unit.goal == Goal::Up && lost;
        let edges = self.manager.graph().edges(id);
        for other in &edges.later {
            let later = self.unit(*other);
            let theirs = self.manager.graph().edges(*other);
            let joined = if comes_back {
                theirs.bonds.contains(&id)
            } else {
                later.goal == Goal::Down || theirs.needs.contains(&id)
            };
            let there = later.is_active() && later.state != State::Orphan;
            that(!(joined && there), || format!("{name} is ended before {} has stopped", self.name(*other)))?;
        }
        Ok(())
    }

    /// After each event.
    pub(super) fn holds_after_an_event(&self, before: &[Unit]) -> Held {
        for (id, old) in self.manager.graph().ids().zip(before) {
            let (name, unit, body) = (self.name(id), self.unit(id), self.body(id));
            if body.is_alive() && !unit.is_active() {
                return Err(format!("{name} has processes and is {:?}", unit.state));
            }
            that(self.record(id) == Some(unit), || format!("{name} is not recorded as it is"))?;
            if unit.state != old.state {
                that(!unit.cause.words.is_empty(), || format!("{name} is {:?} without a cause", unit.state))?;
                let begins = matches!(old.state, State::Waiting | State::Expecting { .. });
                if begins && unit.state == State::Done {
                    self.conditions_hold(id, "is up", |_| true)?;
                }
                let first = Unit::default();
                that(unit.cause != first.cause, || {
                    format!("{name} is {:?} and its cause is that of the beginning", unit.state)
                })?;
            }
            if let State::Stopping { then: Then::Restart { until }, .. } | State::Backoff { until } =
                unit.state
                && unit.state != old.state
                && !matches!(
                    old.state,
                    State::Stopping { then: Then::Restart { .. }, .. }
                        | State::Cleaning { then: Then::Restart { .. }, .. }
                )
                && let Some(program) = self.manager.graph().service(id).program()
            {
                let wait = until.saturating_sub(self.now);
                let rules = *program.restart;
                that(wait >= rules.delay && wait <= rules.max_delay, || {
                    format!(
                        "{name} waits {wait:?}, which is not between {:?} and {:?}",
                        rules.delay, rules.max_delay
                    )
                })?;
            }
            if unit.goal == Goal::Up && !unit.explicit {
                let keepers = &self.manager.graph().edges(id).kept_by;
                that(keepers.iter().any(|keeper| self.unit(*keeper).goal != Goal::Down), || {
                    format!("{name} is meant to be up, and nobody asked for it or needs it")
                })?;
            }
        }
        self.timers_have_reasons()?;
        if let Some(shadow) = &self.shadow {
            for id in self.manager.graph().ids() {
                that(shadow.unit(id) == self.unit(id), || {
                    format!(
                        "{} is {:?}, and {:?} when everybody is looked at",
                        self.name(id),
                        self.unit(id),
                        shadow.unit(id)
                    )
                })?;
            }
        }
        Ok(())
    }

    /// The next deadline is the earliest one that a state waits for, and none where no state waits.
    fn timers_have_reasons(&self) -> Held {
        if self.manager.ending().is_some() {
            return Ok(());
        }
        let ids = self.manager.graph().ids();
        let earliest = ids.filter_map(|id| self.unit(id).deadline()).min();
        that(self.manager.next_deadline() == earliest, || {
            format!(
                "the timer is set to {:?}, and the earliest reason is {earliest:?}",
                self.manager.next_deadline()
            )
        })
    }

    /// A tick leaves nothing that is due.
    pub(super) fn holds_after_a_tick(&self) -> Held {
        let due = self.manager.next_deadline().filter(|deadline| *deadline <= self.now);
        that(due.is_none() || self.manager.ending().is_some(), || format!("a timer of {due:?} is still set"))
    }

    /// When nothing is under way but what the goals say: everybody is where they are meant to be, or can say why not,
    /// and every request was answered.
    pub(super) fn holds_at_rest(&self) -> Held {
        for id in self.manager.graph().ids() {
            let (name, unit) = (self.name(id), self.unit(id));
            let why = || format!("{name} is to be {:?} and rests as {:?}", unit.goal, unit.state);
            match unit.goal {
                Goal::Down => that(matches!(unit.state, State::Stopped | State::Orphan), why)?,
                Goal::Bounce => that(false, why)?,
                Goal::Up => {
                    let rests = matches!(
                        unit.state,
                        State::Running { .. } | State::Done | State::Failed | State::Orphan
                    );
                    let waits = matches!(unit.state, State::Waiting | State::Expecting { deadline: None });
                    that(rests || waits && self.manager.is_blocked(id), why)?;
                }
            }
            self.holds_for_standbys(id)?;
            if unit.goal == Goal::Up && unit.can_be_stopped() {
                self.conditions_hold(id, "runs on", |condition| condition.on_loss != OnLoss::Ignore)?;
            }
            if matches!(unit.state, State::Running { .. }) {
                for bond in &self.manager.graph().edges(id).bonds {
                    that(self.unit(*bond).is_up(), || {
                        format!("{name} runs, and {}, which it is bound to, does not", self.name(*bond))
                    })?;
                }
            }
        }
        for (token, asked) in &self.asked {
            that(asked.answers == 1, || format!("request {token} was answered {} times", asked.answers))?;
        }
        Ok(())
    }

    /// An answer belongs to a request that has none, and says what is so.
    pub(super) fn holds_at_an_answer(&mut self, token: u64, outcome: &crate::manager::Outcome) -> Held {
        let Some(asked) = self.asked.get_mut(&token) else {
            return Err(format!("an answer to request {token}, which nobody waits for"));
        };
        asked.answers += 1;
        let (answers, verb, ids) = (asked.answers, asked.verb, asked.ids.clone());
        that(answers == 1, || format!("request {token} was answered {answers} times"))?;
        let answered: Vec<Id> = outcome.iter().map(|(id, _)| *id).collect();
        that(answered == ids, || format!("request {token} was answered for {answered:?}, not for {ids:?}"))?;
        for (id, result) in outcome.iter().filter(|(_, result)| result.is_ok()) {
            let unit = self.unit(*id);
            let so = match verb {
                Verb::Start | Verb::Restart => unit.is_up(),
                Verb::Stop { .. } => unit.state == State::Stopped,
            };
            // Other answers and effects of the same event may stand before this one.
            that(so || !self.queue.is_empty(), || {
                format!(
                    "request {token} is answered with {result:?}, and {} is {:?}",
                    self.name(*id),
                    unit.state
                )
            })?;
        }
        Ok(())
    }

    /// Everything was asked to stop, and the time for it is over.
    pub(super) fn holds_when_all_is_down(&self) -> Held {
        for id in self.manager.graph().ids() {
            that(self.unit(id).state == State::Stopped, || {
                format!("{} does not stop: {:?}", self.name(id), self.unit(id))
            })?;
            let body = self.body(id);
            that(!body.is_alive() && !body.cgroup, || format!("something of {} is left", self.name(id)))?;
        }
        self.timers_have_reasons()
    }

    /// The machine ends once, in time, and not before everything is down.
    pub(super) fn holds_at_the_end(&self, began: Duration) -> Held {
        let stop = |id: Id| self.manager.graph().service(id).program().map(|program| program.stop_timeout);
        let longest = self.manager.graph().ids().filter_map(stop).max().unwrap_or_default();
        let time = longest + Duration::from_secs(16);
        let Some((at, left)) = &self.ended else { return Err("the machine does not end".to_owned()) };
        that(*at - began <= time || self.crashes > 0, || format!("the end took {:?}", *at - began))?;
        let there = |id: &Id| self.unit(*id).is_active() && self.unit(*id).state != State::Orphan;
        let active: Vec<Id> = self.manager.graph().ids().filter(there).collect();
        that(active == *left, || format!("{active:?} are there at the end, and {left:?} are said to be"))
    }
}
