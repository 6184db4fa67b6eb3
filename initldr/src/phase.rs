//! What PID 1 does about motherd, and when: a pure function of where it stands, what happened, and the time.
//!
//! ```text
//!              tick at `at`            died: at once, then 100 ms .. 10 s
//!        .---------------------- Down <----------------------------------.
//!        |  Launch                                                       |
//!        v                    said nothing for 30 s          `at`        |
//!     Unwatched            .---------> Doomed { hung } -----> Doomed ----|
//!      |   ^ it owes       |  SIGABRT       ^        SIGKILL  at: None   |
//!      |   '----------> Expected            | link lost, 1 s             |
//!      |     an answer     |----------------'                            |
//!      '-------------------'---------------------------------------------'
//!
//!   early deaths in a row: 3 and 4 --safe, 5 and 6 the previous motherd, from 7 on that one --safe, and rescue
//!
//!   End from motherd, a second request to stop, or 90 s without an answer to the first: Effect::End, whatever else
//! ```
//!
//! Invariants: motherd is launched in `Down` alone, so there is never a second one; every death leads back to `Down`
//! with a time, so it is never given up; a request to stop always ends in `Effect::End`, whatever motherd does.

use crate::abi::*;
use crate::link::{End, Relaunch, Signal};
use core::time::Duration;

/// A motherd that lived for less died early, and the next one has to wait.
pub const EARLY: Duration = Duration::from_secs(5);
/// But SIGKILL is what others send, not what a fault of its own looks like: then it is early only within 200 ms, which
/// still bounds how often memory can run out over it; and however often it comes, the next motherd does all its work.
pub const EARLY_KILL: Duration = Duration::from_millis(200);
/// So many early deaths in a row by faults of its own, and the next one starts nothing and trusts no record.
pub const SAFE_AFTER: u32 = 3;
/// So many, and the previous motherd is launched, where there is one.
pub const PREVIOUS_AFTER: u32 = 5;
/// The wait after the second early death in a row; it doubles with each one after that. The first has none.
pub const FIRST_DELAY: Duration = Duration::from_millis(100);
/// The longest wait: 100 ms doubled seven times is 12.8 s, so the ninth early death reaches it.
pub const LAST_DELAY: Duration = Duration::from_secs(10);
/// So many start the rescue program, and have the previous motherd start nothing either.
pub const RESCUE_AFTER: u32 = 7;
/// motherd has this long to stop every service and say End.
pub const STOP_WITHIN: Duration = Duration::from_secs(90);
/// From owing an answer to the next word, at most.
pub const SILENCE: Duration = Duration::from_secs(crate::link::ANSWER_WITHIN_SECONDS);
/// From SIGABRT to SIGKILL: time for a core dump.
pub const ABORT_GRACE: Duration = Duration::from_secs(5);
/// From the link's end to SIGKILL: a motherd that is exiting closes it a moment before it can be reaped.
pub const LINK_GRACE: Duration = Duration::from_secs(1);
/// So many SIGINT (Ctrl-Alt-Del) within [`BURST_WITHIN`] end the machine at once, as they do with systemd.
pub const BURST: u32 = 7;
/// See [`BURST`].
pub const BURST_WITHIN: Duration = Duration::from_secs(2);

/// Where things stand. Times are since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// Signals come to PID 1 of the machine: then they mean what they mean to any init, and not what containers and
    /// supervisors are told by them.
    machine: bool,
    motherd: Motherd,
    /// When the latest was launched.
    pub since: Duration,
    stop: Option<Stop>,
    /// So many SIGINT came, and when the first of them did.
    burst: (u32, Duration),
    /// In a row.
    pub early_deaths: u32,
    /// So many of them by a fault of its own.
    pub faults: u32,
    /// The number of the latest, from 1, and why it was launched; or will be.
    launch: (u32, Relaunch),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Motherd {
    /// There is none; the next is launched then.
    Down { at: Duration },
    /// It owes no answer, so its silence means nothing.
    Unwatched,
    /// It has to say something by then.
    Expected { by: Duration },
    /// It did not, and got SIGABRT; or it closed the link. SIGKILL then; `None`: it got that.
    Doomed { at: Option<Duration>, hung: bool },
}

/// Somebody asked for the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stop {
    how: End,
    by: Duration,
    /// Passed on again to a motherd that starts meanwhile.
    signal: Signal,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The deadline passed.
    Tick,
    /// The effect [`Effect::Launch`] succeeded.
    Launched,
    /// It did not: no memory for a fork.
    LaunchFailed,
    /// motherd was reaped; `CLD_EXITED` or another, and the exit code or the signal.
    Died(i32, i32),
    /// It said something.
    Heard,
    /// Whether it owes an answer.
    Owes(bool),
    /// It ends on purpose.
    Retires,
    /// It closed its end of the link.
    LinkLost,
    /// It said End.
    End(End),
    /// It said that the request to end is none.
    CarriesOn,
    /// A signal came.
    Signal(Signal),
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// Start motherd, and say whether it went well.
    Launch,
    /// A signal that is to end motherd: SIGABRT, for a hang is worth a core, and SIGKILL.
    Kill(u32),
    /// Start the rescue program, unless one runs.
    Rescue,
    /// Tell motherd of a signal.
    PassOn(Signal),
    /// End the machine; there is no way back.
    End(End, Mercy),
}

/// What the processes get that are still there at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mercy {
    /// motherd stopped the services in their order: what is left is killed.
    Stopped,
    /// Nobody stopped them: SIGTERM, some seconds, SIGKILL.
    Terminate,
    /// Somebody is in a hurry: SIGKILL.
    Kill,
}

/// The signals that initldr takes. What it does not act upon by itself, motherd is told of.
pub fn taken() -> impl Iterator<Item = u32> {
    let named = [SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGTERM, SIGWINCH, SIGPWR];
    named.into_iter().chain(SIGRTMIN..=SIGRTMAX)
}

/// The end that a signal asks for, and whether it is to come at once. To a machine SIGINT is Ctrl-Alt-Del, SIGPWR a UPS
/// daemon, SIGTERM a slip of the hand; whoever runs a container or a supervisor means its end by any of them. The
/// real-time signals have the numbers that systemd gave them.
fn request(machine: bool, signal: u32) -> Option<(End, bool)> {
    let how = match signal.checked_sub(SIGRTMIN) {
        None if signal == SIGTERM && machine => return None,
        None if signal == SIGINT => End::Reboot,
        None if [SIGTERM, SIGPWR, SIGQUIT].contains(&signal) => End::PowerOff,
        Some(3 | 13) => End::Halt,
        Some(4 | 14) => End::PowerOff,
        Some(5 | 15) => End::Reboot,
        Some(6 | 16) => End::Kexec,
        Some(7 | 17) => End::SoftReboot,
        _ => return None,
    };
    Some((if machine { how } else { End::PowerOff }, signal >= SIGRTMIN + 13 || signal == SIGQUIT))
}

impl Phase {
    /// At the start, of PID 1 of a machine or of another: motherd is due now.
    pub fn of(machine: bool) -> Phase {
        Phase {
            machine,
            motherd: Motherd::Down { at: Duration::ZERO },
            since: Duration::ZERO,
            stop: None,
            burst: (0, Duration::ZERO),
            early_deaths: 0,
            faults: 0,
            launch: (0, Relaunch::First),
        }
    }

    /// motherd runs, and this is another initldr that takes over from there.
    pub fn resume(self, launch: (u32, Relaunch), since: Duration, early_deaths: u32, faults: u32) -> Phase {
        Phase { motherd: Motherd::Unwatched, since, early_deaths, faults, launch, ..self }
    }

    /// Which motherd this is, from 1, and why it was launched.
    pub fn launch(&self) -> (u32, Relaunch) {
        self.launch
    }

    /// Whether the next motherd is to start nothing, and whether it is to be the previous one.
    pub fn rung(&self) -> (bool, bool) {
        let previous = self.faults >= PREVIOUS_AFTER;
        let safe = if previous { RESCUE_AFTER } else { SAFE_AFTER };
        (self.faults >= safe, previous)
    }

    /// The signal by which somebody asked for the end, while that is under way.
    pub fn stop_signal(&self) -> Option<Signal> {
        self.stop.map(|stop| stop.signal)
    }

    /// When the next [`Event::Tick`] is due; `None`: nothing is.
    pub fn deadline(&self) -> Option<Duration> {
        let own = match self.motherd {
            Motherd::Down { at } | Motherd::Expected { by: at } => Some(at),
            Motherd::Doomed { at, .. } => at,
            Motherd::Unwatched => None,
        };
        own.into_iter().chain(self.stop.map(|stop| stop.by)).min()
    }

    /// What follows from `event`.
    pub fn step(mut self, event: Event, now: Duration) -> (Phase, Effect) {
        let effect = self.act(event, now);
        (self, effect)
    }

    fn act(&mut self, event: Event, now: Duration) -> Effect {
        match event {
            Event::End(how) => return Effect::End(how, Mercy::Stopped),
            Event::CarriesOn => self.stop = None,
            Event::Signal(signal) => return self.signal(signal, now),
            Event::Tick => return self.tick(now),
            Event::Launched => {
                (self.motherd, self.since) = (Motherd::Unwatched, now);
                self.launch.0 += 1;
            }
            Event::LaunchFailed => return self.died(None, Duration::ZERO, now),
            Event::Died(code, status) => {
                let cause = match (self.motherd, code) {
                    (Motherd::Down { .. }, _) => return Effect::Nothing, // not one of ours
                    (Motherd::Doomed { hung: true, .. }, _) => Relaunch::Hung,
                    (_, CLD_EXITED) => Relaunch::Exited(status),
                    (_, _) => Relaunch::Signaled(status),
                };
                return self.died(Some(cause), now.saturating_sub(self.since), now);
            }
            Event::Owes(true) if self.motherd != Motherd::Unwatched => {} // that gives it no more time
            Event::Heard | Event::Owes(true) => self.watch(Motherd::Expected { by: now + SILENCE }),
            Event::Owes(false) => self.watch(Motherd::Unwatched),
            Event::Retires => (self.early_deaths, self.faults, self.since) = (0, 0, Duration::ZERO),
            Event::LinkLost => self.watch(Motherd::Doomed { at: Some(now + LINK_GRACE), hung: false }),
        }
        Effect::Nothing
    }

    /// What is said too late, by the doomed or the dead, changes nothing.
    fn watch(&mut self, next: Motherd) {
        if matches!(self.motherd, Motherd::Unwatched | Motherd::Expected { .. }) {
            self.motherd = next;
        }
    }

    fn tick(&mut self, now: Duration) -> Effect {
        if let Some(stop) = self.stop.filter(|stop| now >= stop.by) {
            return Effect::End(stop.how, Mercy::Terminate);
        }
        let (at, hung, signal) = match self.motherd {
            Motherd::Down { at } if now >= at => return Effect::Launch,
            Motherd::Expected { by } if now >= by => (Some(now + ABORT_GRACE), true, SIGABRT),
            Motherd::Doomed { at: Some(at), hung } if now >= at => (None, hung, SIGKILL),
            Motherd::Down { .. } | Motherd::Unwatched | Motherd::Expected { .. } | Motherd::Doomed { .. } => {
                return Effect::Nothing;
            } // woken early
        };
        self.motherd = Motherd::Doomed { at, hung };
        Effect::Kill(signal)
    }

    /// `None`: it could not even be launched, which is no fault of its own.
    fn died(&mut self, cause: Option<Relaunch>, lived: Duration, now: Duration) -> Effect {
        let killed = cause.is_none_or(|cause| cause == Relaunch::Signaled(SIGKILL.cast_signed()));
        let early = lived < if killed { EARLY_KILL } else { EARLY };
        let count = |sum: u32, one: bool| if early { sum.saturating_add(one.into()) } else { 0 };
        (self.early_deaths, self.faults) = (count(self.early_deaths, true), count(self.faults, !killed));
        self.motherd = Motherd::Down { at: now + delay(self.early_deaths) };
        self.launch.1 = cause.unwrap_or(self.launch.1);
        if self.faults >= RESCUE_AFTER { Effect::Rescue } else { Effect::Nothing }
    }

    fn signal(&mut self, signal: Signal, now: Duration) -> Effect {
        if signal.number == SIGUSR1 {
            return self.remake(now);
        }
        let request = request(self.machine, signal.number);
        let Some((how, at_once)) = request else { return Effect::PassOn(signal) };
        let mut meant = self.stop.is_some(); // who asks again is in a hurry
        if signal.number == SIGINT {
            // But fingers repeat Ctrl-Alt-Del without meaning it.
            let goes_on = self.burst.0 > 0 && now.saturating_sub(self.burst.1) <= BURST_WITHIN;
            self.burst = if goes_on { (self.burst.0 + 1, self.burst.1) } else { (1, now) };
            meant = self.burst.0 >= BURST;
        }
        self.stop.get_or_insert(Stop { how, by: now + STOP_WITHIN, signal });
        if at_once || meant { Effect::End(how, Mercy::Kill) } else { Effect::PassOn(signal) }
    }

    /// Another motherd, whatever the one that is there is doing; where the next one has to wait, now.
    fn remake(&mut self, now: Duration) -> Effect {
        if let Motherd::Down { at } = &mut self.motherd {
            *at = now;
            return Effect::Nothing;
        }
        self.motherd = Motherd::Doomed { at: None, hung: false };
        Effect::Kill(SIGKILL)
    }
}

/// How long the next motherd waits after so many early deaths in a row: 0, 0, 100 ms, 200 ms, .. 10 s.
fn delay(early_deaths: u32) -> Duration {
    let doubled = |times: u32| FIRST_DELAY.saturating_mul(1 << times.min(20)).min(LAST_DELAY);
    early_deaths.checked_sub(2).map_or(Duration::ZERO, doubled)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLD_KILLED: i32 = 2;
    const KILLED: Event = Event::Died(CLD_KILLED, 9);
    const CRASHED: Event = Event::Died(CLD_KILLED, 11);

    fn sent(number: u32) -> Signal {
        Signal { number, sender_pid: 4711, sender_uid: 1000 }
    }

    fn signal(number: u32) -> Event {
        Event::Signal(sent(number))
    }

    fn passed_on(number: u32) -> Effect {
        Effect::PassOn(sent(number))
    }

    fn random_three(now: Duration) -> usize {
        usize::try_from(now.as_millis() % 3).unwrap()
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn up(now: Duration) -> Phase {
        let (phase, effect) = Phase::of(false).step(Event::Tick, now);
        assert_eq!(effect, Effect::Launch);
        phase.step(Event::Launched, now).0
    }

    fn up_as(machine: bool, now: Duration) -> Phase {
        Phase { machine, ..up(now) }
    }

    #[test]
    fn the_first_motherd_is_due_at_once_and_then_nothing_is() {
        assert_eq!(Phase::of(false).deadline(), Some(Duration::ZERO));
        let phase = up(seconds(1));
        assert_eq!((phase.deadline(), phase.launch()), (None, (1, Relaunch::First)));
    }

    #[test]
    fn a_motherd_that_lived_long_comes_back_at_once() {
        let (phase, effect) = up(seconds(1)).step(Event::Died(CLD_EXITED, 3), seconds(60));
        assert_eq!(effect, Effect::Nothing);
        assert_eq!((phase.deadline(), phase.launch().1), (Some(seconds(60)), Relaunch::Exited(3)));
    }

    #[test]
    fn early_deaths_wait_longer_and_longer_up_to_ten_seconds_until_one_lives() {
        let mut now = seconds(1);
        let mut phase = up(now);
        let (mut delays, mut rungs) = (vec![], vec![]);
        for death in 1..=12 {
            let (dead, effect) = phase.step(CRASHED, now);
            rungs.push(dead.rung());
            assert_eq!(effect, if death >= RESCUE_AFTER { Effect::Rescue } else { Effect::Nothing });
            let at = dead.deadline().expect("never given up");
            delays.push((at - now).as_millis());
            if at > now {
                assert_eq!(dead.step(Event::Tick, at - Duration::from_nanos(1)), (dead, Effect::Nothing));
            }
            assert_eq!(dead.step(Event::Tick, at).1, Effect::Launch);
            now = at;
            phase = dead.step(Event::Launched, now).0;
        }
        assert_eq!(delays, [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000, 10_000]);
        let (normal, safe, previous, both) = ((false, false), (true, false), (false, true), (true, true));
        assert_eq!(rungs[..8], [normal, normal, safe, safe, previous, previous, both, both]);
        let (phase, effect) = phase.step(CRASHED, now + EARLY);
        assert_eq!((phase.deadline(), phase.rung(), effect), (Some(now + EARLY), normal, Effect::Nothing));
    }

    #[test]
    fn a_launch_that_fails_waits_like_an_early_death() {
        let mut phase = Phase::of(false);
        for expected in [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000] {
            let (next, effect) = phase.step(Event::LaunchFailed, seconds(1));
            assert_eq!(next.deadline(), Some(seconds(1) + Duration::from_millis(expected)));
            assert_eq!((effect, next.rung()), (Effect::Nothing, (false, false)), "no fault of motherd's");
            phase = next;
        }
        assert_eq!(phase.launch(), (0, Relaunch::First));
    }

    #[test]
    fn silence_of_who_owes_an_answer_is_aborted_then_killed_and_told_as_hung() {
        let phase = up(seconds(1)).step(Event::Owes(true), seconds(2)).0;
        assert_eq!(phase.deadline(), Some(seconds(2) + SILENCE));
        let phase = phase.step(Event::Owes(true), seconds(9)).0;
        assert_eq!(phase.deadline(), Some(seconds(2) + SILENCE), "asking again gives no more time");
        assert_eq!(phase.step(Event::Owes(false), seconds(9)).0.deadline(), None, "idle: no wake-up");
        let phase = phase.step(Event::Heard, seconds(12)).0;
        let late = seconds(12) + SILENCE;
        assert_eq!(phase.deadline(), Some(late));
        let (phase, effect) = phase.step(Event::Tick, late);
        assert_eq!((phase.deadline(), effect), (Some(late + ABORT_GRACE), Effect::Kill(SIGABRT)));
        assert_eq!(phase.step(Event::Heard, late), (phase, Effect::Nothing), "too late");
        let (phase, effect) = phase.step(Event::Tick, late + ABORT_GRACE);
        assert_eq!((phase.deadline(), effect), (None, Effect::Kill(SIGKILL)));
        let phase = phase.step(KILLED, late + ABORT_GRACE).0;
        assert_eq!(phase.launch().1, Relaunch::Hung);
    }

    #[test]
    fn a_kill_from_outside_is_early_only_at_once_and_a_retirement_never() {
        let killed_after = |lived: Duration| up(seconds(1)).step(KILLED, seconds(1) + lived).0.early_deaths;
        assert_eq!([killed_after(EARLY_KILL / 2), killed_after(EARLY_KILL)], [1, 0]);
        let crashed = up(seconds(100)).step(CRASHED, seconds(100) + EARLY_KILL).0;
        assert_eq!(crashed.early_deaths, 1, "control: a crash is");
        let phase = crashed.step(Event::Launched, seconds(101)).0.step(Event::Retires, seconds(101)).0;
        assert_eq!(phase.step(Event::Died(CLD_EXITED, 0), seconds(101)).0.early_deaths, 0);
    }

    #[test]
    fn kills_from_outside_wait_and_take_nothing_away() {
        let (mut phase, mut now) = (up(seconds(1)), seconds(1));
        for delay in [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000] {
            let (dead, effect) = phase.step(KILLED, now);
            assert_eq!((dead.rung(), effect), ((false, false), Effect::Nothing));
            assert_eq!(dead.deadline(), Some(now + Duration::from_millis(delay)));
            now += Duration::from_millis(delay);
            phase = dead.step(Event::Launched, now).0;
        }
        let dead =
            (0..SAFE_AFTER).fold(phase, |phase, _| phase.step(CRASHED, now).0.step(Event::Launched, now).0);
        assert_eq!(dead.rung(), (true, false), "control: crashes do");
    }

    #[test]
    fn a_motherd_without_a_link_is_killed() {
        let phase = up(seconds(1)).step(Event::LinkLost, seconds(2)).0;
        let (phase, effect) = phase.step(Event::Tick, seconds(2) + LINK_GRACE);
        assert_eq!(effect, Effect::Kill(SIGKILL));
        assert_eq!(phase.step(KILLED, seconds(4)).0.launch().1, Relaunch::Signaled(9));
    }

    #[test]
    fn end_from_motherd_is_the_end() {
        let effect = up(seconds(1)).step(Event::End(End::Kexec), seconds(2)).1;
        assert_eq!(effect, Effect::End(End::Kexec, Mercy::Stopped));
    }

    #[test]
    fn a_stop_that_nobody_answers_ends_after_ninety_seconds_even_across_deaths() {
        let (phase, effect) = up(seconds(1)).step(signal(SIGTERM), seconds(10));
        assert_eq!((effect, phase.stop_signal()), (passed_on(SIGTERM), Some(sent(SIGTERM))));
        assert_eq!(phase.deadline(), Some(seconds(100)));
        let phase = phase.step(KILLED, seconds(11)).0.step(Event::Launched, seconds(11)).0;
        assert_eq!(phase.stop_signal(), Some(sent(SIGTERM)), "the next motherd is told");
        let end = Effect::End(End::PowerOff, Mercy::Terminate);
        assert_eq!(phase.step(Event::Tick, seconds(100)).1, end);
    }

    #[test]
    fn a_second_request_forces_but_ctrl_alt_del_only_as_a_burst() {
        let phase = up(seconds(1)).step(signal(SIGTERM), seconds(2)).0;
        let now = Effect::End(End::PowerOff, Mercy::Kill);
        assert_eq!(phase.step(signal(SIGTERM), seconds(3)).1, now);

        let press = |gap: Duration| {
            let (mut phase, mut at) = (up_as(true, seconds(1)), seconds(2));
            for nth in 1..=20 {
                let (next, effect) = phase.step(signal(SIGINT), at);
                if effect != passed_on(SIGINT) {
                    return Some((nth, effect));
                }
                // It changes nothing that motherd has something else done about each of them.
                let carried_on = if nth % 2 == 0 { next.step(Event::CarriesOn, at).0 } else { next };
                (phase, at) = (carried_on, at + gap);
            }
            None
        };
        let now = Effect::End(End::Reboot, Mercy::Kill);
        assert_eq!(press(Duration::from_millis(100)), Some((BURST, now)));
        assert_eq!(press(seconds(1)), None);
    }

    #[test]
    fn signals_mean_what_the_table_says() {
        let (halt, off, reboot) = (End::Halt, End::PowerOff, End::Reboot);
        // To the machine, to a container or a supervisor; and whether it is to come at once.
        for (number, machine, other, at_once) in [
            (SIGHUP, None, None, false),
            (SIGINT, Some(reboot), Some(off), false),
            (SIGQUIT, Some(off), Some(off), true),
            (SIGUSR2, None, None, false),
            (SIGTERM, None, Some(off), false),
            (SIGWINCH, None, None, false),
            (SIGPWR, Some(off), Some(off), false),
            (SIGRTMIN, None, None, false),
            (SIGRTMIN + 2, None, None, false),
            (SIGRTMIN + 3, Some(halt), Some(off), false),
            (SIGRTMIN + 4, Some(off), Some(off), false),
            (SIGRTMIN + 5, Some(reboot), Some(off), false),
            (SIGRTMIN + 6, Some(End::Kexec), Some(off), false),
            (SIGRTMIN + 7, Some(End::SoftReboot), Some(off), false),
            (SIGRTMIN + 8, None, None, false),
            (SIGRTMIN + 12, None, None, false),
            (SIGRTMIN + 13, Some(halt), Some(off), true),
            (SIGRTMIN + 14, Some(off), Some(off), true),
            (SIGRTMIN + 15, Some(reboot), Some(off), true),
            (SIGRTMIN + 16, Some(End::Kexec), Some(off), true),
            (SIGRTMIN + 17, Some(End::SoftReboot), Some(off), true),
            (SIGRTMIN + 18, None, None, false),
            (SIGRTMAX, None, None, false),
        ] {
            for (is_machine, how) in [(true, machine), (false, other)] {
                let (phase, did) = up_as(is_machine, seconds(1)).step(signal(number), seconds(2));
                let expected = match how.filter(|_| at_once) {
                    Some(how) => Effect::End(how, Mercy::Kill),
                    None => passed_on(number),
                };
                let found = (did, phase.stop_signal().is_some());
                assert_eq!(found, (expected, how.is_some()), "signal {number}, machine: {is_machine}");
                if let Some(how) = how.filter(|_| !at_once) {
                    let late = phase.step(Event::Tick, seconds(2) + STOP_WITHIN).1;
                    assert_eq!(late, Effect::End(how, Mercy::Terminate));
                    assert_eq!(phase.step(Event::CarriesOn, seconds(3)).0.deadline(), None, "it is none");
                }
            }
        }
    }

    #[test]
    fn another_motherd_is_made_when_somebody_says_so() {
        let (phase, effect) = up(seconds(1)).step(signal(SIGUSR1), seconds(9));
        assert_eq!((effect, phase.deadline()), (Effect::Kill(SIGKILL), None));
        let phase = phase.step(KILLED, seconds(9)).0;
        assert_eq!((phase.deadline(), phase.launch().1), (Some(seconds(9)), Relaunch::Signaled(9)));
        // One that has to wait comes at once.
        let crash = |phase: Phase, _| phase.step(CRASHED, seconds(10)).0.step(Event::Launched, seconds(10)).0;
        let down = (0..8).fold(up(seconds(10)), crash).step(CRASHED, seconds(10)).0;
        assert_eq!(down.deadline(), Some(seconds(20)));
        let (down, effect) = down.step(signal(SIGUSR1), seconds(11));
        assert_eq!((down.deadline(), effect), (Some(seconds(11)), Effect::Nothing));
    }

    /// Random schedules: no second motherd, no missing deadline while there is none, and an answer to every stop.
    #[test]
    fn whatever_happens_there_is_one_motherd_or_a_time_for_the_next() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        let (mut launches, mut ends) = (0, 0);
        for _ in 0..2_000 {
            let (mut phase, mut now, mut running, mut asked) = (Phase::of(false), seconds(1), false, None);
            for _ in 0..200 {
                now += Duration::from_millis(random(4_000));
                let event = match random(9) {
                    0 if running => KILLED,
                    1 if running => [Event::Heard, Event::Owes(true), Event::Owes(false)][random_three(now)],
                    2 if running => Event::LinkLost,
                    3 if random(20) == 0 => signal(SIGTERM),
                    4 if running && random(20) == 0 => Event::End(End::Halt),
                    5 => signal(if random(2) == 0 { SIGHUP } else { SIGUSR1 }),
                    _ => {
                        now = now.max(phase.deadline().unwrap_or(now));
                        Event::Tick
                    }
                };
                if event == KILLED {
                    running = false;
                }
                if event == signal(SIGTERM) {
                    asked.get_or_insert(now);
                }
                let (next, effect) = phase.step(event, now);
                phase = next;
                match effect {
                    Effect::Launch => {
                        assert!(!running, "a second motherd");
                        running = random(10) != 0;
                        let outcome = if running { Event::Launched } else { Event::LaunchFailed };
                        phase = phase.step(outcome, now).0;
                        launches += 1;
                    }
                    Effect::Kill(_) => assert!(running, "{effect:?} for nobody"),
                    Effect::End(..) => {
                        ends += 1;
                        break;
                    }
                    Effect::Nothing | Effect::Rescue | Effect::PassOn(_) => {}
                }
                if let Some(deadline) = phase.deadline() {
                    assert!(asked.is_none_or(|asked| deadline <= asked + STOP_WITHIN));
                }
                assert!(running || phase.deadline().is_some(), "given up");
            }
        }
        assert!(
            launches > 5_000 && ends > 500,
            "{launches} launches, {ends} ends: a schedule that tells little"
        );
    }
}
