//! The kernel and the daemon, as far as the manager can tell: processes and commands, cgroups, exits that wait to be told,
//! and what conditions are about.

use super::{Body, World};
use crate::{
    graph::Id,
    manager::Effect,
    service::{OnLoss, Start},
    simulate::{house::NAMES, invariants::Held},
    supervise::{Act, Event, Exit, ExitHow, Hook, Standby, StandbyEvent, State},
};

impl Body {
    /// Whether anything of it runs.
    pub(in super::super) fn is_alive(&self) -> bool {
        self.main.is_some() || self.command.is_some() || self.others
    }
}

impl World {
    pub(super) fn execute(&mut self, effect: Effect) -> Held {
        let (id, act) = match effect {
            Effect::Reply { token, outcome } => return self.holds_at_an_answer(token, &outcome),
            Effect::End { left, .. } => {
                if self.ended.replace((self.now, left)).is_some() {
                    return Err("the machine ends twice".to_owned());
                }
                return Ok(());
            }
            Effect::Turn(_) | Effect::Answer { .. } => return Err("done when it is confirmed".to_owned()),
            Effect::Service(id, act) => (id, act),
        };
        match act {
            Act::Launch => self.launch(id),
            Act::Signal { pid, .. } => {
                self.holds_at_a_signal(id, Some(pid))?;
                self.begin_end(id)?;
                if self.unlucky(8) {
                    return self.event(id, Event::Deaf { why: "no handler".to_owned() });
                }
                if !self.unlucky(3) {
                    self.die(id, ExitHow::Killed, libc::SIGTERM);
                }
                Ok(())
            }
            Act::SignalAll { .. } => {
                if !self.unlucky(3) {
                    self.body_mut(id).others = false;
                }
                Ok(())
            }
            Act::Kill => {
                self.holds_at_a_kill(id)?;
                if !self.unlucky(12) {
                    self.body_mut(id).others = false;
                    self.end_command(id, ExitHow::Killed, libc::SIGKILL);
                    self.die(id, ExitHow::Killed, libc::SIGKILL);
                }
                Ok(())
            }
            Act::Look => {
                let count = self.manager.graph().service(id).conditions().len();
                let found: Vec<(usize, bool)> =
                    (0..count).map(|place| (place, self.is_so(id, place))).collect();
                self.tell_conditions(id, &found)
            }
            Act::Park => self.park(id),
            Act::Unpark { pid } => {
                if self.body(id).parked == Some(pid) {
                    self.body_mut(id).parked = None;
                }
                Ok(())
            }
            Act::Run { hook, .. } => self.run_command(id, hook),
            Act::KillCommand { pid } => {
                if self.body(id).command == Some(pid) {
                    self.end_command(id, ExitHow::Killed, libc::SIGKILL);
                }
                Ok(())
            }
            Act::FindMain => self.find_main(id),
            // Nobody is told what hangs.
            Act::Survivors => Ok(()),
            Act::Sweep => {
                self.body_mut(id).sweeping = true;
                self.sweep(id)
            }
        }
    }

    fn launch(&mut self, id: Id) -> Held {
        self.holds_at_a_launch(id)?;
        let others = self.unlucky(4);
        self.next_pid += 1;
        let pid = self.next_pid;
        let failed = self.unlucky(8);
        let body = self.body_mut(id);
        body.sweeping = false;
        body.cgroup = true;
        (body.prepared, body.ending) = (false, false);
        let waiting = body.parked.take();
        // What it was made of may have changed.
        let released = waiting.filter(|_| !self.unlucky(6));
        if waiting.is_some() && released.is_none() {
            self.event(id, Event::Standby(StandbyEvent::Gone { failed: false }))?;
        }
        if failed {
            if released.is_some() {
                self.event(id, Event::Standby(StandbyEvent::Gone { failed: true }))?;
            }
            let permanent = self.dice.one_in(3);
            let event = Event::LaunchFailed { why: "no".to_owned(), permanent };
            return self.fly(id, event, released.is_some());
        }
        let pid = released.unwrap_or(pid);
        let body = self.body_mut(id);
        body.main = Some(pid);
        body.known_main = Some(pid);
        body.cell = pid;
        body.others = others;
        if self.unlucky(10) {
            self.die(id, ExitHow::Exited, 1);
        }
        if self.unlucky(60) {
            // Made, and motherd ends before it knows.
            return self.crash();
        }
        self.fly(id, Event::Launched { pid }, released.is_some())
    }

    /// A child is on its way, after the one before has landed. Of one that waited it is known at once how it went on.
    fn fly(&mut self, id: Id, event: Event, waited: bool) -> Held {
        if let Some((id, event)) = self.flying.replace((id, event)) {
            self.event(id, event)?;
        }
        if waited || self.dice.one_in(2) { self.land() } else { Ok(()) }
    }

    /// What motherd waits for before it does anything else than to look or to launch.
    pub(super) fn land(&mut self) -> Held {
        match self.flying.take() {
            Some((id, event)) => self.event(id, event),
            None => Ok(()),
        }
    }

    /// The main process ends; motherd is told later.
    pub(super) fn die(&mut self, id: Id, how: ExitHow, status: i32) {
        let (slot, at) = (self.slot(id), self.now);
        let forks = self.manager.graph().service(id).program().is_some_and(|one| one.start == Start::Forking);
        if forks && (how, status) == (ExitHow::Exited, 0) && !self.unlucky(4) {
            self.bodies[slot].others |= self.bodies[slot].main.is_some();
        }
        if let Some(pid) = self.bodies[slot].main.take() {
            self.exits.push_back((slot, pid, Exit { how, status, at }));
        }
    }

    /// The cgroup is looked at, because motherd asked for that or because it became empty.
    pub(super) fn sweep(&mut self, id: Id) -> Held {
        let body = self.body_mut(id);
        if !body.sweeping || body.is_alive() {
            return Ok(());
        }
        body.sweeping = false;
        body.cgroup = false;
        body.prepared = false;
        self.event(id, Event::Gone)
    }

    /// initldr tells of an end, or has lost it.
    pub(super) fn tell_exit(&mut self) -> Held {
        let Some((slot, pid, exit)) = self.exits.pop_front() else { return Ok(()) };
        let Some(id) = self.manager.graph().find(NAMES[slot]) else { return Ok(()) };
        let body = &mut self.bodies[slot];
        if body.known_main == Some(pid) {
            body.known_main = None;
        }
        if self.unit(id).main().is_some_and(|main| main.pid == pid) {
            return self.event(id, Event::Exited(exit));
        }
        let command = self.unit(id).command().and_then(|command| command.process);
        if command.is_some_and(|process| process.pid == pid) {
            return self.event(id, Event::CommandExited(exit));
        }
        if matches!(self.unit(id).standby, Standby::Parked { process } if process.pid == pid) {
            return self.event(id, Event::Standby(StandbyEvent::Gone { failed: true }));
        }
        Ok(())
    }

    /// The first that is done to end a service; what comes after it belongs to the same end.
    fn begin_end(&mut self, id: Id) -> Held {
        if !self.body(id).ending {
            self.holds_at_an_end(id)?;
        }
        self.body_mut(id).ending = true;
        Ok(())
    }

    /// A command is made, beside the program or where there is none.
    fn run_command(&mut self, id: Id, hook: Hook) -> Held {
        self.holds_at_a_command(id, hook)?;
        if hook == Hook::Stop {
            self.begin_end(id)?;
        }
        let failed = self.unlucky(8);
        self.next_pid += 1;
        let pid = self.next_pid;
        let body = self.body_mut(id);
        body.sweeping = false;
        body.cgroup = true;
        body.prepared |= hook == Hook::Pre;
        if failed {
            let permanent = self.dice.one_in(3);
            return self.event(id, Event::CommandFailed { why: "no".to_owned(), permanent });
        }
        body.command = Some(pid);
        body.command_cell = pid;
        if self.unlucky(60) {
            return self.crash();
        }
        self.event(id, Event::CommandLaunched { pid })?;
        if !self.unlucky(3) {
            let status = i32::from(self.unlucky(4));
            self.end_command(id, ExitHow::Exited, status);
        }
        Ok(())
    }

    /// A process is made that waits to be the next one.
    fn park(&mut self, id: Id) -> Held {
        self.holds_at_a_standby(id)?;
        if self.unlucky(6) {
            return self.event(id, Event::Standby(StandbyEvent::Gone { failed: true }));
        }
        self.next_pid += 1;
        let pid = self.next_pid;
        self.body_mut(id).parked = Some(pid);
        if self.unlucky(60) {
            return self.crash();
        }
        self.event(id, Event::Standby(StandbyEvent::Made { pid }))
    }

    /// The process that waits ends by itself; motherd is told later.
    pub(super) fn end_parked(&mut self, id: Id) {
        let (slot, at) = (self.slot(id), self.now);
        if let Some(pid) = self.bodies[slot].parked.take() {
            self.exits.push_back((slot, pid, Exit { how: ExitHow::Killed, status: libc::SIGKILL, at }));
        }
    }

    /// The command ends; motherd is told later.
    pub(super) fn end_command(&mut self, id: Id, how: ExitHow, status: i32) {
        let (slot, at) = (self.slot(id), self.now);
        if let Some(pid) = self.bodies[slot].command.take() {
            self.exits.push_back((slot, pid, Exit { how, status, at }));
        }
    }

    /// The daemon that a program left behind is found, if it is there yet.
    pub(super) fn find_main(&mut self, id: Id) -> Held {
        if !self.body(id).others || self.unlucky(3) {
            return Ok(());
        }
        self.next_pid += 1;
        let pid = self.next_pid;
        let body = self.body_mut(id);
        body.others = false;
        (body.main, body.known_main) = (Some(pid), Some(pid));
        self.event(id, Event::MainPid { pid })
    }

    /// Whether a condition holds.
    pub(in super::super) fn is_so(&self, id: Id, place: usize) -> bool {
        self.body(id).truth >> place & 1 == 1
    }

    fn tell_conditions(&mut self, id: Id, found: &[(usize, bool)]) -> Held {
        let what = format!("{}: conditions {found:?}", self.name(id));
        self.call(&what, |manager, now| manager.conditions(id, found, now))
    }

    /// The machine changes; whoever is looked at is told.
    pub(super) fn flip(&mut self, id: Id, place: usize) -> Held {
        self.body_mut(id).truth ^= 1 << place;
        let holds = self.is_so(id, place);
        if self.loud {
            println!("{}: condition {place} is {holds}", self.name(id));
        }
        if self.is_looked_at(id, place) { self.tell_conditions(id, &[(place, holds)]) } else { Ok(()) }
    }

    /// As the daemon looks (`wanted_conditions`).
    fn is_looked_at(&self, id: Id, place: usize) -> bool {
        let unit = self.unit(id);
        let Some(condition) = self.manager.graph().service(id).conditions().get(place) else { return false };
        let there = unit.is_active() && unit.state != State::Orphan;
        matches!(unit.state, State::Expecting { .. }) || there && condition.on_loss != OnLoss::Ignore
    }

    /// What a service that was adopted cannot be without is looked at again.
    pub(super) fn adopt_conditions(&mut self) -> Held {
        for id in self.manager.graph().ids() {
            let count = self.manager.graph().service(id).conditions().len();
            let places: Vec<usize> = (0..count).filter(|place| self.is_looked_at(id, *place)).collect();
            if !places.is_empty() && !matches!(self.unit(id).state, State::Expecting { .. }) {
                let found: Vec<(usize, bool)> =
                    (0..count).map(|place| (place, self.is_so(id, place))).collect();
                self.tell_conditions(id, &found)?;
            }
        }
        Ok(())
    }
}
