//! What happens in a schedule: one random thing after the other, the end of motherd among them, and the rest at the end.

use std::time::Duration;

use super::{Asked, Body, FORCE, ROOT, STOP, World};
use crate::{
    graph::Id,
    manager::{End, Manager, Verb},
    service::Start,
    simulate::{
        house::{self, Kinds, NAMES},
        invariants::Held,
    },
    supervise::{Cause, Event, ExitHow, Standby, StandbyEvent, State},
};

fn lost_command() -> Event {
    Event::CommandFailed { why: "lost: no exit was recorded".to_owned(), permanent: false }
}

impl World {
    /// The whole schedule: how many events it had.
    pub(in super::super) fn play(mut self, kinds: &Kinds) -> Result<u64, String> {
        if self.manager.graph().is_empty() {
            return Ok(0);
        }
        if self.loud {
            for id in self.manager.graph().ids() {
                println!("{}: {:?}", self.name(id), self.manager.graph().edges(id));
            }
        }
        let first = self.somebody();
        self.call("boot", |manager, now| manager.boot(first, &Cause::new("boot"), now))?;
        self.run()?;
        for _ in 0..100 + self.dice.roll(60) {
            self.something(kinds)?;
            if self.dice.one_in(3) {
                self.go_on()?;
            }
        }
        self.calm = true;
        self.rest()?;
        self.holds_at_rest()?;
        if self.dice.one_in(4) {
            let began = self.now;
            self.call("power-off", |manager, now| {
                manager.end(End::PowerOff, &Cause::request("power-off", ROOT), now)
            })?;
            self.run()?;
            self.rest()?;
            self.holds_at_the_end(began)?;
        } else {
            let all: Vec<Id> = self.manager.graph().ids().collect();
            self.ask(FORCE, all)?;
            self.rest()?;
            self.holds_when_all_is_down()?;
        }
        Ok(self.events)
    }

    fn ask(&mut self, verb: Verb, ids: Vec<Id>) -> Held {
        self.next_token += 1;
        let token = self.next_token;
        self.asked.insert(token, Asked { verb, ids: ids.clone(), answers: 0 });
        let what = format!("request {token}: {verb:?} {ids:?}");
        self.call(&what, |manager, now| manager.request(token, verb, &ids, ROOT, now))?;
        self.run()
    }

    fn tick(&mut self) -> Held {
        let Some(deadline) = self.manager.next_deadline() else { return Ok(()) };
        self.now = self.now.max(deadline);
        self.call("the timer", Manager::tick)?;
        self.holds_after_a_tick()?;
        self.run()
    }

    /// One random thing.
    fn something(&mut self, kinds: &Kinds) -> Held {
        let id = self.somebody();
        match self.dice.roll(100) {
            0..=21 => self.tell_exit()?,
            22..=33 => {
                let status = [0, 0, 1, 1, 1, 125][self.dice.index(6)];
                self.die(id, ExitHow::Exited, status);
            }
            // A descriptor for readiness is closed before anything was written to it.
            34..=35 if self.reads_a_descriptor(id) => {
                self.event(id, Event::Sick { why: "closed".to_owned(), signal: None })?;
            }
            34..=43 => self.event(id, Event::Ready)?,
            44 => {
                let status = i32::from(self.dice.one_in(3));
                self.end_command(id, ExitHow::Exited, status);
            }
            45 if self.dice.one_in(3) => self.end_parked(id),
            45 if matches!(self.unit(id).state, State::Forked { .. }) => self.find_main(id)?,
            45 => self.event(id, Event::Ready)?,
            46..=52 => {
                self.body_mut(id).others = false;
                self.sweep(id)?;
            }
            53..=68 => self.tick()?,
            69..=72 => self.now += Duration::from_millis(self.dice.roll(5_000)),
            73..=88 => {
                let verb = [Verb::Start, Verb::Start, STOP, FORCE, Verb::Restart][self.dice.index(5)];
                let mut ids = vec![id];
                for _ in 0..self.dice.roll(3) {
                    let other = self.somebody();
                    if !ids.contains(&other) {
                        ids.push(other);
                    }
                }
                self.ask(verb, ids)?;
            }
            89 | 90 => self.reload(kinds)?,
            91 => {
                let count = self.manager.graph().service(id).conditions().len();
                if count > 0 {
                    let place = self.dice.index(count);
                    self.flip(id, place)?;
                }
            }
            92..=93 => self.crash()?,
            94 => {
                // What comes too late, or was never meant for it.
                let late = [Event::Gone, Event::Timer, Event::Ready, Event::Start];
                let event = late[self.dice.index(3)].clone();
                let meant = event == Event::Gone && self.unit(id).is_active();
                if !meant {
                    self.event(id, event)?;
                }
            }
            95 => {
                // The record of an end was overwritten in initldr's ring.
                if let Some((slot, pid, _)) = self.exits.pop_front()
                    && let Some(id) = self.manager.graph().find(NAMES[slot])
                {
                    if self.bodies[slot].known_main == Some(pid) {
                        self.bodies[slot].known_main = None;
                    }
                    let command = self.unit(id).command().and_then(|command| command.process);
                    if self.unit(id).main().is_some_and(|main| main.pid == pid) {
                        self.event(id, Event::Lost)?;
                    } else if command.is_some_and(|process| process.pid == pid) {
                        self.event(id, lost_command())?;
                    } else if matches!(self.unit(id).standby, Standby::Parked { process } if process.pid == pid)
                    {
                        // None is lost while the motherd lives that made it.
                        self.event(id, Event::Standby(StandbyEvent::Gone { failed: true }))?;
                    }
                }
            }
            _ => self.tell_exit()?,
        }
        self.run()
    }

    fn reload(&mut self, kinds: &Kinds) -> Held {
        self.generation += 1;
        self.files = house::graph(kinds, &mut self.dice, self.seed, self.generation);
        // Nobody has it read them: the next motherd finds them.
        if self.dice.one_in(4) {
            return Ok(());
        }
        let files = self.files.clone();
        self.relations = files.relations();
        self.call("reload", |manager, now| manager.reload(files.clone(), now))?;
        self.run()
    }

    /// motherd ends: what was not executed is forgotten, and so is who waits for an answer. The records stay, and the
    /// next one joins them with what runs, as `daemon::adopt` does.
    pub(super) fn crash(&mut self) -> Held {
        self.crashes += 1;
        let life = self.crashes;
        self.queue.clear();
        self.behind.clear();
        self.flying = None;
        self.asked.clear();
        let began = self.now;
        self.now += Duration::from_millis(self.dice.roll(3_000));
        self.born = self.now;
        if self.loud {
            println!("motherd ends");
        }
        self.manager = Manager::new(self.files.clone());
        self.shadow = self.shadow.take().map(|_| Manager::naive(self.files.clone()));
        let mut events = Vec::new();
        for (slot, name) in NAMES.iter().enumerate() {
            self.bodies[slot].sweeping = false;
            // It hears that motherd has ended.
            self.bodies[slot].parked = None;
            let Some(id) = self.manager.graph().find(name) else {
                // No file describes it any more: somebody ends what is left of it.
                self.bodies[slot] = Body::default();
                self.records[slot] = None;
                continue;
            };
            let Some(mut unit) = self.records[slot].clone() else { continue };
            unit.extend(self.now - began);
            let body = &mut self.bodies[slot];
            let launching = unit.state == State::Launching;
            let pid = match unit.main() {
                Some(main) => Some(main.pid),
                None if launching => Some(body.cell).filter(|pid| *pid != 0),
                None => None,
            };
            let had_main = unit.main().is_some();
            let orphaned = body.is_alive() && !unit.is_active();
            let command = unit.command().and_then(|command| match command.process {
                Some(process) => Some((process.pid, true)),
                None => Some((body.command_cell, false)).filter(|(pid, _)| *pid != 0),
            });
            if let (Some(pid), true) = (pid, launching) {
                events.push((id, Event::Launched { pid }));
            }
            if pid.is_some() && body.main != pid && (had_main || launching) {
                let told = self.exits.iter().rfind(|(of, found, _)| *of == slot && Some(*found) == pid);
                events.push((id, told.map_or(Event::Lost, |(_, _, exit)| Event::Exited(*exit))));
            }
            if let Some((pid, recorded)) = command {
                if !recorded {
                    events.push((id, Event::CommandLaunched { pid }));
                }
                if self.bodies[slot].command != Some(pid) {
                    let told = self.exits.iter().rfind(|(of, found, _)| *of == slot && *found == pid);
                    events.push((
                        id,
                        told.map_or_else(lost_command, |(_, _, exit)| Event::CommandExited(*exit)),
                    ));
                }
            }
            let now = self.now;
            for manager in [Some(&mut self.manager), self.shadow.as_mut()].into_iter().flatten() {
                manager.restore(id, unit.clone());
                if orphaned {
                    manager.orphan(id, unit.goal_beside_others(), now);
                }
            }
            if self.manager.unit(id).is_up() && !unit.is_up() {
                self.order += 1;
                self.bodies[slot].up_at = self.order;
            }
            self.records[slot] = Some(self.manager.unit(id).clone());
        }
        // What is not a main process is known by its cgroup alone, and all of this is acknowledged now.
        let alive: Vec<[Option<u32>; 2]> = self.bodies.iter().map(|body| [body.main, body.command]).collect();
        self.exits.retain(|(slot, pid, _)| alive[*slot].contains(&Some(*pid)));
        if std::mem::replace(&mut self.relations, self.files.relations()) != self.relations {
            self.call("related", Manager::related_otherwise)?;
        }
        for (id, event) in events {
            if matches!(event, Event::Exited(_) | Event::Lost) {
                self.body_mut(id).known_main = None;
            }
            self.event(id, event)?;
        }
        self.adopt_conditions()?;
        self.run()?;
        if self.crashes != life {
            return Ok(());
        }
        self.call("resume", Manager::resume)?;
        self.run()
    }

    /// Nothing goes wrong any more, and everything that is under way comes to its end.
    fn rest(&mut self) -> Held {
        for _ in 0..2_000 {
            if !self.behind.is_empty() {
                self.go_on()?;
            } else if !self.exits.is_empty() {
                self.tell_exit()?;
            } else if let Some(id) = self.find(|world, id| {
                let body = world.body(id);
                body.sweeping && !body.is_alive()
            }) {
                self.sweep(id)?;
            } else if let Some(id) = self.find(|world, id| {
                let stopping = matches!(world.unit(id).state, State::Stopping { .. });
                stopping && world.body(id).is_alive()
            }) {
                self.body_mut(id).others = false;
                self.end_command(id, ExitHow::Exited, 0);
                self.die(id, ExitHow::Killed, libc::SIGTERM);
            } else if let Some(id) = self.find(|world, id| world.body(id).command.is_some()) {
                self.end_command(id, ExitHow::Exited, 0);
            } else if let Some(id) = self.find(|world, id| {
                matches!(world.unit(id).state, State::Forked { .. }) && world.body(id).others
            }) {
                self.find_main(id)?;
            } else if let Some(id) =
                self.find(|world, id| matches!(world.unit(id).state, State::Starting { .. }))
            {
                if self.ends_to_be_up(id) {
                    self.die(id, ExitHow::Exited, 0);
                } else {
                    self.event(id, Event::Ready)?;
                }
            } else if self.manager.next_deadline().is_some() && self.ended.is_none() {
                self.tick()?;
            } else {
                return Ok(());
            }
            self.run()?;
        }
        Err("it never comes to rest".to_owned())
    }

    /// Whether it is to write to a descriptor, and has not.
    fn reads_a_descriptor(&self, id: Id) -> bool {
        let starts = matches!(self.unit(id).state, State::Starting { .. });
        let program = self.manager.graph().service(id).program();
        starts && program.is_some_and(|program| program.start == Start::Fd)
    }

    fn find(&self, what: impl Fn(&Self, Id) -> bool) -> Option<Id> {
        self.manager.graph().ids().find(|id| what(self, *id))
    }

    /// Whether a process that ends well is what a service of this kind waits for.
    fn ends_to_be_up(&self, id: Id) -> bool {
        let program = self.manager.graph().service(id).program();
        program.is_some_and(|program| matches!(program.start, Start::Oneshot | Start::Forking))
    }
}
