//! The transition of one service: the map of the machine, state by state and event by event.
//!
//! What is not written in a row has no meaning in that state and changes nothing: a request is repeated by the manager as
//! long as the goal is not reached, and a late event of the kernel concerns a process that is no more.

use std::time::Duration;

use super::{
    Act, Cause, Command, Event, Exit, Goal, KILL_AGAIN, Main, Rules, Stage, State, Then, Unit, seconds,
};
use crate::{
    fault::{self, Fault},
    service::{START_TIMEOUT, Start, When},
};

impl Unit {
    /// One event. `rules` is `None` for a group, which is up as soon as its turn comes.
    #[must_use]
    pub fn step(&mut self, rules: Option<&Rules>, event: Event, now: Duration) -> Vec<Act> {
        if let Some(acts) = self.step_standby(&event, now) {
            return acts;
        }
        let former = Rules::former();
        let rules = match (rules, &self.state) {
            (Some(rules), _) => rules,
            (
                None,
                State::Stopped | State::Waiting | State::Expecting { .. } | State::Done | State::Failed,
            ) => {
                return self.step_group(event, now);
            }
            // The file was changed while motherd was not there to remember what it was.
            (None, _) => &former,
        };
        match self.state.clone() {
            State::Stopped | State::Waiting | State::Expecting { .. } | State::Failed => {
                self.step_inactive(rules, event, now)
            }
            State::Backoff { until } => match event {
                Event::Timer if now >= until => {
                    let words = self.cause.words.trim_start_matches("started again: ");
                    self.go(State::Waiting, Cause::new(format!("started again: {words}")), now, [])
                }
                Event::Wait(_) | Event::Start | Event::Stop(_) => self.step_inactive(rules, event, now),
                Event::Expect { .. }
                | Event::Standby(_)
                | Event::Launched { .. }
                | Event::LaunchFailed { .. }
                | Event::Ready
                | Event::Exited(_)
                | Event::Lost
                | Event::Deaf { .. }
                | Event::Gone
                | Event::MainPid { .. }
                | Event::CommandLaunched { .. }
                | Event::CommandFailed { .. }
                | Event::CommandExited(_)
                | Event::Extend { .. }
                | Event::Sick { .. }
                | Event::Stuck { .. }
                | Event::Timer => vec![],
            },
            State::Launching => match event {
                Event::Launched { pid } => self.launched(rules, pid, now),
                Event::LaunchFailed { why, permanent } => {
                    let then = if permanent { Then::Fail } else { self.after_failure(rules, now, now) };
                    if rules.commands.pre == 0 {
                        self.give_up(then, Cause::new(why), now)
                    } else {
                        self.kill(None, then, Cause::new(why), now)
                    }
                }
                // Before its process is made, or not at all: the manager sees to that.
                Event::Stop(cause) => self.kill(None, Then::Settle, cause, now),
                Event::Wait(_)
                | Event::Expect { .. }
                | Event::Standby(_)
                | Event::Start
                | Event::Ready
                | Event::Exited(_)
                | Event::Lost
                | Event::Deaf { .. }
                | Event::Gone
                | Event::MainPid { .. }
                | Event::CommandLaunched { .. }
                | Event::CommandFailed { .. }
                | Event::CommandExited(_)
                | Event::Extend { .. }
                | Event::Sick { .. }
                | Event::Stuck { .. }
                | Event::Timer => vec![],
            },
            State::Preparing { command } => self.step_preparing(rules, command, event, now),
            State::Forked { launched, deadline } => self.step_forked(rules, launched, deadline, event, now),
            State::Settling { main, command } => self.step_settling(rules, main, command, event, now),
            State::Cleaning { command, then } => self.step_cleaning(rules, command, then, event, now),
            State::Starting { main, deadline } => match event {
                Event::Ready if rules.start.says_when() => {
                    self.ready(rules, main, Cause::new(rules.start.readiness()), now)
                }
                Event::MainPid { pid } => {
                    self.state = State::Starting { main: Main { pid, ..main }, deadline };
                    vec![]
                }
                Event::Exited(exit) if rules.start == Start::Oneshot && rules.is_success(&exit) => {
                    self.last_exit = Some(exit);
                    let then = self.after_success(rules);
                    self.kill(None, then, Cause::new(exit.to_string()), now)
                }
                Event::Exited(exit) if rules.start == Start::Forking && rules.is_success(&exit) => {
                    self.last_exit = Some(exit);
                    let cause = self.cause.clone();
                    // It may have been started under a file by which it had no limit.
                    let deadline = deadline
                        .or_else(|| Some(now.saturating_add(rules.start_timeout.unwrap_or(START_TIMEOUT))));
                    let state = State::Forked { launched: main.launched, deadline };
                    self.go(state, cause, now, [Act::FindMain])
                }
                Event::Exited(exit) => {
                    self.last_exit = Some(exit);
                    let words = if rules.start.says_when() {
                        format!("{exit} before it was ready")
                    } else {
                        exit.to_string()
                    };
                    self.kill_after(rules, exit, words, now)
                }
                Event::Extend { until } => {
                    let deadline = deadline.map(|deadline| deadline.max(until));
                    self.state = State::Starting { main, deadline };
                    vec![]
                }
                Event::Sick { why, signal } => self.sick(rules, main, signal, why, now),
                Event::Lost => self.lost(rules, now),
                Event::Timer if deadline.is_some_and(|deadline| now >= deadline) => {
                    let waited = seconds(rules.start_timeout.unwrap_or_default());
                    let then = self.after_failure(rules, now, now);
                    self.signal(rules, main, then, Cause::new(format!("not started after {waited}")), now)
                }
                Event::Stop(cause) => self.signal(rules, main, Then::Settle, cause, now),
                Event::Wait(_)
                | Event::Expect { .. }
                | Event::Standby(_)
                | Event::Start
                | Event::Launched { .. }
                | Event::LaunchFailed { .. }
                | Event::Ready
                | Event::Deaf { .. }
                | Event::Gone
                | Event::CommandLaunched { .. }
                | Event::CommandFailed { .. }
                | Event::CommandExited(_)
                | Event::Stuck { .. }
                | Event::Timer => vec![],
            },
            State::Running { main } => match event {
                Event::Exited(exit) => self.ended(rules, exit, now),
                Event::Lost => self.lost(rules, now),
                Event::Stop(cause) => self.ask(rules, main, cause, now),
                Event::MainPid { pid } => {
                    self.state = State::Running { main: Main { pid, ..main } };
                    vec![]
                }
                Event::Sick { why, signal } => self.sick(rules, main, signal, why, now),
                Event::Wait(_)
                | Event::Expect { .. }
                | Event::Standby(_)
                | Event::Start
                | Event::Launched { .. }
                | Event::LaunchFailed { .. }
                | Event::Ready
                | Event::Deaf { .. }
                | Event::Gone
                | Event::CommandLaunched { .. }
                | Event::CommandFailed { .. }
                | Event::CommandExited(_)
                | Event::Extend { .. }
                | Event::Stuck { .. }
                | Event::Timer => vec![],
            },
            State::Done => match event {
                Event::Stop(cause) => self.go(State::Stopped, cause, now, []),
                Event::Wait(_)
                | Event::Expect { .. }
                | Event::Standby(_)
                | Event::Start
                | Event::Launched { .. }
                | Event::LaunchFailed { .. }
                | Event::Ready
                | Event::Exited(_)
                | Event::Lost
                | Event::Deaf { .. }
                | Event::Gone
                | Event::MainPid { .. }
                | Event::CommandLaunched { .. }
                | Event::CommandFailed { .. }
                | Event::CommandExited(_)
                | Event::Extend { .. }
                | Event::Sick { .. }
                | Event::Stuck { .. }
                | Event::Timer => vec![],
            },
            State::Stopping { main, stage, then } => self.step_stopping(rules, main, stage, then, event, now),
            State::Orphan => match event {
                Event::Stop(cause) => self.kill(None, Then::Settle, cause, now),
                Event::Gone => {
                    self.go(State::Stopped, Cause::new("its orphaned processes ended by themselves"), now, [])
                }
                Event::Wait(_)
                | Event::Expect { .. }
                | Event::Standby(_)
                | Event::Start
                | Event::Launched { .. }
                | Event::LaunchFailed { .. }
                | Event::Ready
                | Event::Exited(_)
                | Event::Lost
                | Event::Deaf { .. }
                | Event::MainPid { .. }
                | Event::CommandLaunched { .. }
                | Event::CommandFailed { .. }
                | Event::CommandExited(_)
                | Event::Extend { .. }
                | Event::Sick { .. }
                | Event::Stuck { .. }
                | Event::Timer => vec![],
            },
        }
    }

    /// Nothing is there.
    fn step_inactive(&mut self, rules: &Rules, event: Event, now: Duration) -> Vec<Act> {
        match event {
            Event::Wait(cause) => self.go(State::Waiting, cause, now, []),
            Event::Expect { patience } => self.expect(patience, now),
            Event::Timer => self.expect_no_longer(now),
            Event::Start => self.begin(rules, now),
            Event::Stop(cause) => self.go(State::Stopped, cause, now, []),
            Event::Standby(_)
            | Event::Launched { .. }
            | Event::LaunchFailed { .. }
            | Event::Ready
            | Event::Exited(_)
            | Event::Lost
            | Event::Deaf { .. }
            | Event::Gone
            | Event::MainPid { .. }
            | Event::CommandLaunched { .. }
            | Event::CommandFailed { .. }
            | Event::CommandExited(_)
            | Event::Extend { .. }
            | Event::Sick { .. }
            | Event::Stuck { .. } => vec![],
        }
    }

    /// What its conditions are about is waited for; one that does so already gets another deadline.
    fn expect(&mut self, patience: Option<Duration>, now: Duration) -> Vec<Act> {
        let until = |since: Duration| patience.map(|patience| since.saturating_add(patience));
        match self.state {
            State::Waiting => {
                let cause = self.cause.clone();
                self.go(State::Expecting { deadline: until(now) }, cause, now, [Act::Look])
            }
            State::Expecting { .. } => {
                self.state = State::Expecting { deadline: until(self.since) };
                vec![]
            }
            State::Stopped
            | State::Preparing { .. }
            | State::Launching
            | State::Starting { .. }
            | State::Forked { .. }
            | State::Settling { .. }
            | State::Running { .. }
            | State::Done
            | State::Stopping { .. }
            | State::Cleaning { .. }
            | State::Backoff { .. }
            | State::Failed
            | State::Orphan => vec![],
        }
    }

    /// Others have waited long enough; it goes on alone.
    fn expect_no_longer(&mut self, now: Duration) -> Vec<Act> {
        if let State::Expecting { deadline: Some(deadline) } = self.state
            && now >= deadline
            && !fault::on(Fault::ExpectsForEver)
        {
            self.state = State::Expecting { deadline: None };
        }
        vec![]
    }

    fn step_stopping(
        &mut self,
        rules: &Rules,
        main: Option<Main>,
        stage: Stage,
        then: Then,
        event: Event,
        now: Duration,
    ) -> Vec<Act> {
        match event {
            Event::Exited(exit) if main.is_some() => {
                self.last_exit = Some(exit);
                self.state = State::Stopping { main: None, stage, then };
                match stage {
                    // It has ended, so there is nothing to ask it; the command may have more to do.
                    Stage::Asking { .. } => vec![],
                    // The main process had its chance to end the others; they get theirs until the deadline.
                    Stage::Signalled { .. } if fault::on(Fault::SignalsTheDead) => {
                        let pid = main.map_or(0, |main| main.pid);
                        vec![Act::Signal { pid, signal: rules.stop_signal }, Act::Sweep]
                    }
                    Stage::Signalled { .. } => vec![Act::SignalAll { signal: rules.stop_signal }, Act::Sweep],
                    Stage::Killed { .. } => vec![Act::Sweep],
                }
            }
            Event::Lost if main.is_some() => {
                self.state = State::Stopping { main: None, stage, then };
                match stage {
                    Stage::Asking { .. } => vec![],
                    Stage::Signalled { .. } | Stage::Killed { .. } => vec![Act::Sweep],
                }
            }
            Event::Gone if main.is_none() => self.gone(rules, stage, then, now),
            Event::Stop(cause) if then != Then::Settle => {
                self.cause = cause;
                self.state = State::Stopping { main, stage, then: Then::Settle };
                vec![]
            }
            Event::Deaf { why } => match stage {
                Stage::Signalled { .. } => {
                    self.cause.words = format!("{}; killed at once: {why}", self.cause.words);
                    self.escalate(main, then, now)
                }
                Stage::Asking { .. } | Stage::Killed { .. } => vec![],
            },
            Event::Extend { until } => {
                let stage = match stage {
                    Stage::Asking { command } => Stage::Asking {
                        command: Command { deadline: command.deadline.max(until), ..command },
                    },
                    Stage::Signalled { deadline } => Stage::Signalled { deadline: deadline.max(until) },
                    Stage::Killed { .. } => stage,
                };
                self.state = State::Stopping { main, stage, then };
                vec![]
            }
            Event::MainPid { pid } => {
                let main = main.map(|main| Main { pid, ..main });
                self.state = State::Stopping { main, stage, then };
                vec![]
            }
            Event::Stuck { who } => match stage {
                Stage::Killed { again, stuck: false, cleaned } => {
                    self.cause.words = format!("{}; not even SIGKILL ends {who}", self.cause.words);
                    let stage = Stage::Killed { again, stuck: true, cleaned };
                    self.state = State::Stopping { main, stage, then };
                    vec![]
                }
                Stage::Asking { .. } | Stage::Signalled { .. } | Stage::Killed { .. } => vec![],
            },
            Event::CommandLaunched { .. } | Event::CommandFailed { .. } | Event::CommandExited(_) => {
                match stage {
                    Stage::Asking { command } => self.step_asking(rules, main, command, then, event, now),
                    Stage::Signalled { .. } | Stage::Killed { .. } => vec![],
                }
            }
            Event::Timer => match stage {
                Stage::Asking { command } => self.step_asking(rules, main, command, then, event, now),
                Stage::Signalled { deadline } if now >= deadline => {
                    let waited = now.saturating_sub(self.since).as_secs_f64();
                    self.cause.words = format!("{}; killed: not ended after {waited:.0} s", self.cause.words);
                    self.escalate(main, then, now)
                }
                Stage::Killed { again, stuck, cleaned } if now >= again => {
                    let again = now.saturating_add(KILL_AGAIN);
                    self.state =
                        State::Stopping { main, stage: Stage::Killed { again, stuck, cleaned }, then };
                    let mut acts = vec![Act::Kill];
                    acts.extend(main.is_none().then_some(Act::Sweep));
                    acts.extend((!stuck).then_some(Act::Survivors));
                    acts
                }
                Stage::Signalled { .. } | Stage::Killed { .. } => vec![],
            },
            Event::Wait(_)
            | Event::Expect { .. }
            | Event::Standby(_)
            | Event::Start
            | Event::Stop(_)
            | Event::Launched { .. }
            | Event::LaunchFailed { .. }
            | Event::Ready
            | Event::Exited(_)
            | Event::Lost
            | Event::Sick { .. }
            | Event::Gone => vec![],
        }
    }

    /// Nothing of it is left in its cgroup.
    fn gone(&mut self, rules: &Rules, stage: Stage, then: Then, now: Duration) -> Vec<Act> {
        let cleaned = match stage {
            Stage::Killed { cleaned, .. } => cleaned,
            Stage::Asking { .. } | Stage::Signalled { .. } => false,
        };
        if !cleaned && rules.commands.stop_post > 0 {
            return self.clean(rules, then, now);
        }
        let state = match then {
            Then::Settle => State::Stopped,
            Then::Done => State::Done,
            Then::Restart { until } => State::Backoff { until },
            Then::Fail => State::Failed,
        };
        let cause = self.cause.clone();
        self.go(state, cause, now, [])
    }

    /// A group is up when its turn comes, and down when its turn to stop does.
    fn step_group(&mut self, event: Event, now: Duration) -> Vec<Act> {
        match event {
            Event::Wait(cause) if !self.is_active() => self.go(State::Waiting, cause, now, []),
            Event::Expect { patience } => self.expect(patience, now),
            Event::Timer => self.expect_no_longer(now),
            Event::Start if !self.is_active() => {
                let cause = self.cause.clone();
                self.launched = now;
                self.go(State::Done, cause, now, [])
            }
            Event::Stop(cause) if self.state != State::Stopped => self.go(State::Stopped, cause, now, []),
            Event::Wait(_)
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
            | Event::CommandLaunched { .. }
            | Event::CommandFailed { .. }
            | Event::CommandExited(_)
            | Event::Extend { .. }
            | Event::Sick { .. }
            | Event::Stuck { .. } => vec![],
        }
    }

    pub(super) fn go<const N: usize>(
        &mut self,
        state: State,
        cause: Cause,
        now: Duration,
        acts: [Act; N],
    ) -> Vec<Act> {
        self.state = state;
        self.since = now;
        self.cause = cause;
        acts.to_vec()
    }

    fn launched(&mut self, rules: &Rules, pid: u32, now: Duration) -> Vec<Act> {
        // When `Launching` began, which is before the process was made: its exit cannot seem older than itself.
        let main = Main { pid, launched: self.since };
        let cause = self.cause.clone();
        let deadline = rules.start_timeout.map(|timeout| now.saturating_add(timeout));
        match rules.start {
            Start::Exec => self.ready(rules, main, cause, now),
            Start::Notify | Start::Fd | Start::Forking | Start::Oneshot => {
                self.go(State::Starting { main, deadline }, cause, now, [])
            }
        }
    }

    /// What a oneshot that succeeded comes to.
    fn after_success(&mut self, rules: &Rules) -> Then {
        if rules.remain {
            return Then::Done;
        }
        if self.goal == Goal::Up {
            self.goal = Goal::Down;
        }
        Then::Settle
    }

    /// It runs, and is ended because it is of no use.
    fn sick(
        &mut self,
        rules: &Rules,
        main: Main,
        signal: Option<i32>,
        why: String,
        now: Duration,
    ) -> Vec<Act> {
        let then = self.after_failure(rules, now, now);
        self.signal_by(signal.unwrap_or(rules.stop_signal), rules, main, then, Cause::new(why), now)
    }

    /// A running service's main process ended by itself: what its file says about that.
    pub(super) fn ended(&mut self, rules: &Rules, exit: Exit, now: Duration) -> Vec<Act> {
        self.last_exit = Some(exit);
        let success = rules.is_success(&exit);
        let again = match rules.restart.when {
            When::Never => false,
            When::Failure => !success,
            When::Always => true,
        };
        if again || !success {
            return self.kill_after(rules, exit, exit.to_string(), now);
        }
        if self.goal == Goal::Up {
            self.goal = Goal::Down;
        }
        self.kill(None, Then::Settle, Cause::new(exit.to_string()), now)
    }

    /// It ended in a way that is to be followed by another try, if its file does not say otherwise.
    fn kill_after(&mut self, rules: &Rules, exit: Exit, words: String, now: Duration) -> Vec<Act> {
        if exit.is_in(&rules.restart.never_on) {
            let words = format!("{words}, which is not tried again (`restart.never_on`)");
            return self.kill(None, Then::Fail, Cause::new(words), now);
        }
        let then = self.after_failure(rules, exit.at, now);
        self.kill(None, then, Cause::new(words), now)
    }

    pub(super) fn lost(&mut self, rules: &Rules, now: Duration) -> Vec<Act> {
        let then = self.after_failure(rules, now, now);
        // What is known is of an earlier one.
        self.last_exit = None;
        let words = "lost: its main process is gone, and no exit was recorded";
        self.kill(None, then, Cause::new(words), now)
    }

    /// `ended` is when the process ended, which may be long before `now` if nobody was there to hear of it.
    pub(super) fn after_failure(&mut self, rules: &Rules, ended: Duration, now: Duration) -> Then {
        let up = match self.state {
            State::Running { .. } => ended.saturating_sub(self.since),
            State::Stopped
            | State::Waiting
            | State::Expecting { .. }
            | State::Preparing { .. }
            | State::Launching
            | State::Starting { .. }
            | State::Forked { .. }
            | State::Settling { .. }
            | State::Done
            | State::Stopping { .. }
            | State::Cleaning { .. }
            | State::Backoff { .. }
            | State::Failed
            | State::Orphan => Duration::ZERO,
        };
        match rules.restart.when {
            When::Never => Then::Fail,
            When::Failure | When::Always => {
                Then::Restart { until: self.history.next(&rules.restart, rules.seed, up, now) }
            }
        }
    }

    /// Begins the end with the stop signal.
    pub(super) fn signal(
        &mut self,
        rules: &Rules,
        main: Main,
        then: Then,
        cause: Cause,
        now: Duration,
    ) -> Vec<Act> {
        self.signal_by(rules.stop_signal, rules, main, then, cause, now)
    }

    fn signal_by(
        &mut self,
        signal: i32,
        rules: &Rules,
        main: Main,
        then: Then,
        cause: Cause,
        now: Duration,
    ) -> Vec<Act> {
        let cause = if fault::on(Fault::ForgetsWhy) { Cause::new("") } else { cause };
        let stage = Stage::Signalled { deadline: now.saturating_add(rules.stop_timeout) };
        let act = Act::Signal { pid: main.pid, signal };
        self.go(State::Stopping { main: Some(main), stage, then }, cause, now, [act])
    }

    /// Begins the end with SIGKILL: there is no main process that could be asked.
    pub(super) fn kill(&mut self, main: Option<Main>, then: Then, cause: Cause, now: Duration) -> Vec<Act> {
        if let (Then::Restart { until }, true) = (then, fault::on(Fault::LeavesProcesses)) {
            return self.go(State::Backoff { until }, cause, now, []);
        }
        let stage = Stage::Killed { again: now.saturating_add(KILL_AGAIN), stuck: false, cleaned: false };
        self.go(State::Stopping { main, stage, then }, cause, now, [Act::Kill, Act::Sweep])
    }

    /// The same where nothing ran, or nothing is to run any more: there is nothing to clean up.
    pub(super) fn give_up(&mut self, then: Then, cause: Cause, now: Duration) -> Vec<Act> {
        let stage = Stage::Killed { again: now.saturating_add(KILL_AGAIN), stuck: false, cleaned: true };
        self.go(State::Stopping { main: None, stage, then }, cause, now, [Act::Kill, Act::Sweep])
    }

    fn escalate(&mut self, main: Option<Main>, then: Then, now: Duration) -> Vec<Act> {
        let stage = Stage::Killed { again: now.saturating_add(KILL_AGAIN), stuck: false, cleaned: false };
        self.state = State::Stopping { main, stage, then };
        match main {
            Some(_) => vec![Act::Kill],
            None => vec![Act::Kill, Act::Sweep],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        service::{ExitSet, Restart},
        supervise::{Commands, ExitHow},
    };

    const NOW: Duration = Duration::from_secs(100);
    const MAIN: Main = Main { pid: 7, launched: NOW };

    fn rules(start: Start) -> Rules {
        Rules {
            start,
            remain: true,
            standby: false,
            commands: Commands::default(),
            start_timeout: Some(Duration::from_secs(5)),
            stop_signal: libc::SIGTERM,
            stop_timeout: Duration::from_secs(10),
            restart: Restart { jitter: 0.0, ..Restart::default() },
            seed: 7,
        }
    }

    fn exit(status: i32) -> Event {
        Event::Exited(Exit { how: ExitHow::Exited, status, at: NOW })
    }

    fn stop() -> Event {
        Event::Stop(Cause::new("asked"))
    }

    /// Runs events at `NOW` plus so many seconds; the last acts and the unit.
    fn run(rules: &Rules, events: Vec<(u64, Event)>) -> (Unit, Vec<Act>) {
        let mut unit = Unit { goal: Goal::Up, ..Unit::default() };
        let mut acts = vec![];
        for (seconds, event) in events {
            acts = unit.step(Some(rules), event, NOW + Duration::from_secs(seconds));
        }
        (unit, acts)
    }

    fn started() -> Vec<(u64, Event)> {
        vec![(0, Event::Start), (0, Event::Launched { pid: 7 })]
    }

    fn after(mut events: Vec<(u64, Event)>, more: Vec<(u64, Event)>) -> Vec<(u64, Event)> {
        events.extend(more);
        events
    }

    #[test]
    fn an_exec_service_is_up_when_the_program_runs() {
        let (unit, acts) = run(&rules(Start::Exec), vec![(0, Event::Start)]);
        assert_eq!((unit.state, acts), (State::Launching, vec![Act::Launch]));
        let (unit, acts) = run(&rules(Start::Exec), started());
        assert_eq!((unit.state, acts), (State::Running { main: MAIN }, vec![]));
    }

    #[test]
    fn a_notify_service_is_up_when_it_says_so_and_failed_when_it_never_does() {
        let notify = rules(Start::Notify);
        let (unit, _) = run(&notify, started());
        assert_eq!(unit.state, State::Starting { main: MAIN, deadline: Some(NOW + Duration::from_secs(5)) });
        let (unit, _) = run(&notify, after(started(), vec![(1, Event::Ready)]));
        assert!(unit.is_up());
        let (unit, acts) = run(&notify, after(started(), vec![(5, Event::Timer)]));
        assert_eq!(acts, [Act::Signal { pid: 7, signal: libc::SIGTERM }]);
        assert_eq!(unit.cause.words, "not started after 5 s");
    }

    #[test]
    fn a_oneshot_stays_up_without_a_process_when_it_succeeded() {
        let oneshot =
            Rules { restart: Restart { when: When::Never, ..Restart::default() }, ..rules(Start::Oneshot) };
        let (unit, _) = run(&oneshot, after(started(), vec![(1, exit(0)), (1, Event::Gone)]));
        assert_eq!(unit.state, State::Done);
        let (unit, _) = run(&oneshot, after(started(), vec![(1, exit(3)), (1, Event::Gone)]));
        assert_eq!((unit.state, unit.cause.words.as_str()), (State::Failed, "exited with status 3"));
    }

    #[test]
    fn stopping_signals_the_main_process_then_kills_what_is_left() {
        let exec = rules(Start::Exec);
        let (_, acts) = run(&exec, after(started(), vec![(1, stop())]));
        assert_eq!(acts, [Act::Signal { pid: 7, signal: libc::SIGTERM }]);
        let (_, acts) = run(&exec, after(started(), vec![(1, stop()), (10, Event::Timer)]));
        assert_eq!(acts, [], "ten seconds are not over");
        let (unit, acts) = run(&exec, after(started(), vec![(1, stop()), (11, Event::Timer)]));
        assert_eq!(acts, [Act::Kill]);
        assert_eq!(unit.cause.words, "asked; killed: not ended after 10 s");
        let (_, acts) = run(&exec, after(started(), vec![(1, stop()), (2, exit(0))]));
        assert_eq!(acts, [Act::SignalAll { signal: libc::SIGTERM }, Act::Sweep]);
        let (unit, _) = run(&exec, after(started(), vec![(1, stop()), (2, exit(0)), (2, Event::Gone)]));
        assert_eq!(unit.state, State::Stopped);
    }

    #[test]
    fn a_main_process_that_the_signal_cannot_reach_is_killed_at_once_and_that_is_said() {
        let deaf = Event::Deaf { why: "no handler".to_owned() };
        let (unit, acts) = run(&rules(Start::Exec), after(started(), vec![(1, stop()), (1, deaf)]));
        assert_eq!(acts, [Act::Kill]);
        assert_eq!(unit.cause.words, "asked; killed at once: no handler");
    }

    #[test]
    fn a_crash_waits_out_the_delay_before_the_next_start() {
        let exec = rules(Start::Exec);
        let crash = after(started(), vec![(1, exit(1))]);
        let (unit, acts) = run(&exec, crash.clone());
        assert_eq!(acts, [Act::Kill, Act::Sweep], "what it left behind goes first");
        assert!(unit.is_active());
        let (unit, _) = run(&exec, after(crash.clone(), vec![(1, Event::Gone)]));
        let until = NOW + Duration::from_millis(1100);
        assert_eq!(unit.state, State::Backoff { until });
        let (unit, _) = run(&exec, after(crash, vec![(1, Event::Gone), (2, Event::Timer)]));
        assert_eq!(unit.state, State::Waiting);
    }

    #[test]
    fn a_clean_end_is_no_failure() {
        let (unit, _) = run(&rules(Start::Exec), after(started(), vec![(1, exit(0)), (1, Event::Gone)]));
        assert_eq!((unit.state, unit.goal), (State::Stopped, Goal::Down));
    }

    #[test]
    fn what_an_end_means_is_for_the_file_to_say() {
        let ends =
            |rules: &Rules, status| run(rules, after(started(), vec![(1, exit(status)), (1, Event::Gone)])).0;
        let exec = rules(Start::Exec);
        let unit = ends(&exec, 125);
        assert_eq!(unit.state, State::Failed);
        assert_eq!(unit.cause.words, "exited with status 125, which is not tried again (`restart.never_on`)");
        let always = Rules { restart: Restart { when: When::Always, ..exec.restart }, ..exec };
        assert_eq!(ends(&always, 125).state, State::Failed, "whatever `when` says");
        let calm = Rules {
            restart: Restart { success_on: ExitSet::default().with_status(3), ..exec.restart },
            ..exec
        };
        assert_eq!(ends(&calm, 3).state, State::Stopped);
        assert!(matches!(ends(&exec, 3).state, State::Backoff { .. }));
        let once = Rules { start: Start::Oneshot, ..calm };
        assert_eq!(ends(&once, 3).state, State::Done);
    }

    #[test]
    fn a_sandbox_that_cannot_be_built_is_not_tried_again_unasked() {
        let failed =
            Event::LaunchFailed { why: "a.toml:1:1: landlock: /srv: ENOENT".to_owned(), permanent: true };
        let (unit, _) = run(&rules(Start::Exec), vec![(0, Event::Start), (0, failed), (0, Event::Gone)]);
        assert_eq!(
            (unit.state, unit.cause.words.as_str()),
            (State::Failed, "a.toml:1:1: landlock: /srv: ENOENT")
        );
    }

    #[test]
    fn what_sigkill_does_not_end_is_killed_again() {
        let exec = rules(Start::Exec);
        let events = after(started(), vec![(1, stop()), (11, Event::Timer), (21, Event::Timer)]);
        let (unit, acts) = run(&exec, events.clone());
        assert_eq!(acts, [Act::Kill, Act::Survivors]);
        assert_eq!(unit.deadline(), Some(NOW + Duration::from_secs(31)));
        let who = "7 (dd, state D, in nfs_wait)".to_owned();
        let (unit, acts) = run(&exec, after(events, vec![(21, Event::Stuck { who }), (31, Event::Timer)]));
        assert_eq!(acts, [Act::Kill], "who is left is said once");
        let words = "asked; killed: not ended after 10 s; not even SIGKILL ends 7 (dd, state D, in nfs_wait)";
        assert_eq!(unit.cause.words, words);
    }

    #[test]
    fn a_request_to_stop_ends_the_wait_for_the_next_try() {
        let events = after(started(), vec![(1, exit(1)), (1, stop()), (1, Event::Gone)]);
        let (unit, _) = run(&rules(Start::Exec), events);
        assert_eq!((unit.state, unit.cause.words.as_str()), (State::Stopped, "asked"));
        let events = after(started(), vec![(1, exit(1)), (1, Event::Gone), (1, stop())]);
        let (unit, _) = run(&rules(Start::Exec), events);
        assert_eq!(unit.state, State::Stopped);
    }
}
