//! The rows of the map that have a command at work: before the program, after it, around its end; and the search for the
//! daemon of a program that forks.
//!
//! Invariant: one command at a time, and it has a deadline. What comes of it is always said: one before or after the
//! program that fails takes the start with it, one around the end is passed over with a word in the cause, because the end
//! has to come.

use std::time::Duration;

use super::{Act, Cause, Command, Event, Hook, KILL_AGAIN, Main, Rules, Stage, State, Then, Unit, seconds};
use crate::{
    fault::{self, Fault},
    service::START_TIMEOUT,
};

/// What became of a command.
enum Came {
    /// It was made: it goes on.
    On(Command),
    /// It ended well.
    Well,
    /// It had its time: it is killed, and waited for.
    Overdue(Command, Act),
    /// It did not, and this is why.
    Ill {
        why: String,
        /// Trying again unasked is of no use.
        permanent: bool,
    },
    /// The event means nothing to a command.
    Nothing(Event),
}

/// What an event says of a command.
fn came(command: Command, event: Event, since: Duration, now: Duration) -> Came {
    let ill = |why: String, permanent| Came::Ill { why: format!("{command}: {why}"), permanent };
    let too_late = || "not ended in time".to_owned();
    match event {
        Event::CommandLaunched { pid } => {
            Came::On(Command { process: Some(Main { pid, launched: since }), ..command })
        }
        Event::CommandFailed { .. } | Event::CommandExited(_) if command.overdue => ill(too_late(), false),
        Event::CommandFailed { why, permanent } => ill(why, permanent),
        Event::CommandExited(exit) if exit.is_success() => Came::Well,
        Event::CommandExited(exit) => ill(exit.to_string(), false),
        Event::Timer if now >= command.deadline => match command.process.filter(|_| !command.overdue) {
            Some(process) if !fault::on(Fault::LeavesACommand) => {
                let deadline = now.saturating_add(KILL_AGAIN);
                let overdue = Command { overdue: true, deadline, ..command };
                Came::Overdue(overdue, Act::KillCommand { pid: process.pid })
            }
            // Nothing ends it.
            Some(_) | None => ill(too_late(), false),
        },
        other @ (Event::Wait(_)
        | Event::Expect { .. }
        | Event::Standby(_)
        | Event::Start
        | Event::Stop(_)
        | Event::Launched { .. }
        | Event::LaunchFailed { .. }
        | Event::Ready
        | Event::Exited(_)
        | Event::Lost
        | Event::Deaf { .. }
        | Event::Gone
        | Event::MainPid { .. }
        | Event::Extend { .. }
        | Event::Sick { .. }
        | Event::Stuck { .. }
        | Event::Timer) => Came::Nothing(other),
    }
}

impl Unit {
    /// Its turn has come: what comes before the program, or the program.
    pub(super) fn begin(&mut self, rules: &Rules, now: Duration) -> Vec<Act> {
        let cause = self.cause.clone();
        self.launched = now;
        match first(rules, Hook::Pre, now) {
            Some((command, act)) => self.go(State::Preparing { command }, cause, now, [act]),
            None => self.go(State::Launching, cause, now, [Act::Launch]),
        }
    }

    /// The program is ready: what is to be done before it counts as up, or up.
    pub(super) fn ready(&mut self, rules: &Rules, main: Main, cause: Cause, now: Duration) -> Vec<Act> {
        match first(rules, Hook::Post, now) {
            Some((command, act)) => self.go(State::Settling { main, command }, cause, now, [act]),
            None => self.go(State::Running { main }, cause, now, []),
        }
    }

    /// It is to end: what asks it to, or the stop signal.
    pub(super) fn ask(&mut self, rules: &Rules, main: Main, cause: Cause, now: Duration) -> Vec<Act> {
        match first(rules, Hook::Stop, now) {
            Some((command, act)) => {
                let stage = Stage::Asking { command };
                let state = State::Stopping { main: Some(main), stage, then: Then::Settle };
                self.go(state, cause, now, [act])
            }
            None => self.signal(rules, main, Then::Settle, cause, now),
        }
    }

    /// Nothing is left: what comes after it.
    pub(super) fn clean(&mut self, rules: &Rules, then: Then, now: Duration) -> Vec<Act> {
        let cause = self.cause.clone();
        match first(rules, Hook::StopPost, now) {
            Some((command, act)) => self.go(State::Cleaning { command, then }, cause, now, [act]),
            None => self.give_up(then, cause, now),
        }
    }

    pub(super) fn step_preparing(
        &mut self,
        rules: &Rules,
        command: Command,
        event: Event,
        now: Duration,
    ) -> Vec<Act> {
        match came(command, event, self.since, now) {
            Came::On(command) => {
                self.state = State::Preparing { command };
                vec![]
            }
            Came::Well => {
                let cause = self.cause.clone();
                match next(rules, command, now) {
                    Some((command, act)) => self.go(State::Preparing { command }, cause, now, [act]),
                    None => self.go(State::Launching, cause, now, [Act::Launch]),
                }
            }
            Came::Overdue(command, act) => {
                self.state = State::Preparing { command };
                vec![act]
            }
            Came::Ill { why, permanent } => {
                let then = if permanent { Then::Fail } else { self.after_failure(rules, now, now) };
                self.kill(None, then, Cause::new(why), now)
            }
            Came::Nothing(Event::Stop(cause)) => self.kill(None, Then::Settle, cause, now),
            Came::Nothing(Event::Extend { until }) => {
                let deadline = command.deadline.max(until);
                self.state = State::Preparing { command: Command { deadline, ..command } };
                vec![]
            }
            Came::Nothing(_) => vec![],
        }
    }

    pub(super) fn step_settling(
        &mut self,
        rules: &Rules,
        main: Main,
        command: Command,
        event: Event,
        now: Duration,
    ) -> Vec<Act> {
        match came(command, event, self.since, now) {
            Came::On(command) => {
                self.state = State::Settling { main, command };
                vec![]
            }
            Came::Well => {
                let cause = self.cause.clone();
                match next(rules, command, now) {
                    Some((command, act)) => self.go(State::Settling { main, command }, cause, now, [act]),
                    None => self.go(State::Running { main }, cause, now, []),
                }
            }
            Came::Overdue(command, act) => {
                self.state = State::Settling { main, command };
                vec![act]
            }
            Came::Ill { why, permanent } => {
                let then = if permanent { Then::Fail } else { self.after_failure(rules, now, now) };
                self.signal(rules, main, then, Cause::new(why), now)
            }
            Came::Nothing(Event::Exited(exit)) => self.ended(rules, exit, now),
            Came::Nothing(Event::Lost) => self.lost(rules, now),
            // It was not up, so `stop.exec` has nothing to ask it.
            Came::Nothing(Event::Stop(cause)) => {
                end_with(command.process, self.signal(rules, main, Then::Settle, cause, now))
            }
            Came::Nothing(Event::MainPid { pid }) => {
                self.state = State::Settling { main: Main { pid, ..main }, command };
                vec![]
            }
            Came::Nothing(Event::Extend { until }) => {
                let deadline = command.deadline.max(until);
                self.state = State::Settling { main, command: Command { deadline, ..command } };
                vec![]
            }
            Came::Nothing(Event::Sick { why, .. }) => {
                let then = self.after_failure(rules, now, now);
                end_with(command.process, self.signal(rules, main, then, Cause::new(why), now))
            }
            Came::Nothing(_) => vec![],
        }
    }

    /// A command that asks the program to end. The program may end meanwhile; the command is waited for all the same, as
    /// it may do more than that.
    pub(super) fn step_asking(
        &mut self,
        rules: &Rules,
        main: Option<Main>,
        command: Command,
        then: Then,
        event: Event,
        now: Duration,
    ) -> Vec<Act> {
        let stage = |command| State::Stopping { main, stage: Stage::Asking { command }, then };
        match came(command, event, self.since, now) {
            Came::On(command) => {
                self.state = stage(command);
                return vec![];
            }
            Came::Overdue(command, act) => {
                self.state = stage(command);
                return vec![act];
            }
            Came::Nothing(_) => return vec![],
            Came::Well => {}
            Came::Ill { why, .. } => self.cause.words = format!("{}; {why}", self.cause.words),
        }
        let cause = self.cause.clone();
        match (next(rules, command, now), main) {
            (Some((command, act)), _) => self.go(stage(command), cause, now, [act]),
            (None, Some(main)) => self.signal(rules, main, then, cause, now),
            (None, None) => {
                let stage = Stage::Signalled { deadline: now.saturating_add(rules.stop_timeout) };
                let act = Act::SignalAll { signal: rules.stop_signal };
                self.go(State::Stopping { main, stage, then }, cause, now, [act, Act::Sweep])
            }
        }
    }

    pub(super) fn step_cleaning(
        &mut self,
        rules: &Rules,
        command: Command,
        then: Then,
        event: Event,
        now: Duration,
    ) -> Vec<Act> {
        match came(command, event, self.since, now) {
            Came::On(command) => {
                self.state = State::Cleaning { command, then };
                return vec![];
            }
            Came::Overdue(command, act) => {
                self.state = State::Cleaning { command, then };
                return vec![act];
            }
            Came::Well => {}
            Came::Ill { why, .. } => self.cause.words = format!("{}; {why}", self.cause.words),
            Came::Nothing(Event::Stop(cause)) => {
                if then != Then::Settle {
                    self.cause = cause;
                    self.state = State::Cleaning { command, then: Then::Settle };
                }
                return vec![];
            }
            Came::Nothing(_) => return vec![],
        }
        let cause = self.cause.clone();
        match next(rules, command, now) {
            Some((command, act)) => self.go(State::Cleaning { command, then }, cause, now, [act]),
            None => self.give_up(then, cause, now),
        }
    }

    pub(super) fn step_forked(
        &mut self,
        rules: &Rules,
        launched: Duration,
        deadline: Option<Duration>,
        event: Event,
        now: Duration,
    ) -> Vec<Act> {
        match event {
            Event::MainPid { pid } => {
                let cause = Cause::new("it left its daemon behind");
                self.ready(rules, Main { pid, launched }, cause, now)
            }
            Event::Lost => self.lost(rules, now),
            Event::Timer if deadline.is_some_and(|deadline| now >= deadline) => {
                let waited = seconds(rules.start_timeout.unwrap_or_default());
                let words = format!("no daemon was found within {waited} of its start");
                let then = self.after_failure(rules, now, now);
                self.kill(None, then, Cause::new(words), now)
            }
            Event::LaunchFailed { why, permanent } => {
                let then = if permanent { Then::Fail } else { self.after_failure(rules, now, now) };
                self.kill(None, then, Cause::new(why), now)
            }
            Event::Stop(cause) => {
                let stage = Stage::Signalled { deadline: now.saturating_add(rules.stop_timeout) };
                let state = State::Stopping { main: None, stage, then: Then::Settle };
                self.go(state, cause, now, [Act::SignalAll { signal: rules.stop_signal }, Act::Sweep])
            }
            Event::Extend { until } => {
                let deadline = deadline.map(|deadline| deadline.max(until));
                self.state = State::Forked { launched, deadline };
                vec![]
            }
            Event::Wait(_)
            | Event::Expect { .. }
            | Event::Standby(_)
            | Event::Start
            | Event::Launched { .. }
            | Event::Ready
            | Event::Exited(_)
            | Event::Deaf { .. }
            | Event::Gone
            | Event::CommandLaunched { .. }
            | Event::CommandFailed { .. }
            | Event::CommandExited(_)
            | Event::Sick { .. }
            | Event::Stuck { .. }
            | Event::Timer => vec![],
        }
    }
}

/// Ends a command that may still run before anything else is done: there is one at a time.
fn end_with(command: Option<Main>, acts: Vec<Act>) -> Vec<Act> {
    let end = command.map(|command| Act::KillCommand { pid: command.pid });
    end.into_iter().chain(acts).collect()
}

/// The first command of a list, if it has any.
fn first(rules: &Rules, hook: Hook, now: Duration) -> Option<(Command, Act)> {
    (rules.commands.of(hook) > 0).then(|| at(rules, hook, 0, now))
}

/// The one after this.
fn next(rules: &Rules, command: Command, now: Duration) -> Option<(Command, Act)> {
    let index = command.index.saturating_add(1);
    (index < rules.commands.of(command.hook)).then(|| at(rules, command.hook, index, now))
}

/// Each command has the time that what it belongs to has.
fn at(rules: &Rules, hook: Hook, index: u16, now: Duration) -> (Command, Act) {
    let time = match hook {
        Hook::Pre | Hook::Post => rules.start_timeout.unwrap_or(START_TIMEOUT),
        Hook::Stop | Hook::StopPost => rules.stop_timeout,
    };
    let command = Command { hook, index, process: None, deadline: now.saturating_add(time), overdue: false };
    (command, Act::Run { hook, index })
}
