//! What PID 1 does about motherd, and when: a pure function of where it stands, what happened, and the time.
//!
//! ```text
//!              tick at `at`            died: at once, then 100 ms .. 10 s
//!        .---------------------- Down <----------------------------------.
//!        |  Launch                                                       |
//!        v                 alive too long ago     5 s later              |
//!       Up / Unwatched --. .---> Up / Aborted --> Up / Killed -----------|
//!        |  alive        v |  Abort             Kill   ^                 |
//!        '------------> Up / Expected                  | link lost, 1 s  |
//!        |                 |---------------------------'                 |
//!        '-----------------'---------------------------------------------'
//!
//!   End from motherd, a second request to stop, or 90 s without an answer to the first: Effect::End, whatever else
//! ```
//!
//! Invariants: motherd is launched in `Down` alone, so there is never a second one; every death leads back to `Down`
//! with a time, so it is never given up; a request to stop always ends in `Effect::End`, whatever motherd does.

use crate::abi::*;
use crate::link::{End, Relaunch};
use core::time::Duration;

/// A motherd that lived for less died early, and the next one has to wait.
pub const EARLY: Duration = Duration::from_secs(5);
/// The wait after the second early death in a row; it doubles with each one after that. The first has none.
pub const FIRST_DELAY: Duration = Duration::from_millis(100);
/// The longest wait: 100 ms doubled seven times is 12.8 s, so the ninth early death reaches it.
pub const LAST_DELAY: Duration = Duration::from_secs(10);
/// So many early deaths in a row start the rescue program.
pub const RESCUE_AFTER: u32 = 5;
/// motherd has this long to stop every service and say End.
pub const STOP_WITHIN: Duration = Duration::from_secs(90);
/// From one Alive to the next, at most.
pub const SILENCE: Duration = Duration::from_secs(crate::link::ALIVE_WITHIN_SECONDS);
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
    motherd: Motherd,
    stop: Option<Stop>,
    /// In a row.
    early_deaths: u32,
    /// How many were launched.
    generation: u32,
    /// Why the latest was.
    cause: Relaunch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Motherd {
    /// There is none; the next is launched then.
    Down { at: Duration },
    /// It runs.
    Up { since: Duration, watch: Watch },
}

/// How close an eye is kept on a motherd that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// It never said Alive, so its silence means nothing.
    Unwatched,
    /// It has to say Alive again by then.
    Expected { by: Duration },
    /// It did not, and got SIGABRT; or it closed the link. SIGKILL then.
    Doomed { at: Duration, hung: bool },
    /// It got SIGKILL.
    Killed { hung: bool },
}

/// Somebody asked for the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stop {
    how: End,
    by: Duration,
    /// Passed on again to a motherd that starts meanwhile, with the pid and uid of who sent it.
    signal: (u32, (u32, u32)),
    burst_since: Duration,
    burst: u32,
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
    /// motherd was reaped, with what `waitid(2)` said.
    Died {
        /// `CLD_EXITED` or another.
        code: i32,
        /// The exit code or the signal.
        status: i32,
    },
    /// It said Alive.
    Alive,
    /// It closed its end of the link.
    LinkLost,
    /// It said End.
    End(End),
    /// A signal came, from a process with this pid and uid.
    Signal {
        /// Its number.
        signal: u32,
        /// Who sent it.
        sender: (u32, u32),
    },
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
    PassOn {
        /// Its number.
        signal: u32,
        /// Who sent it.
        sender: (u32, u32),
    },
    /// End the machine; there is no way back.
    End {
        /// In this way.
        how: End,
        /// What is left to processes that still run.
        mercy: Mercy,
    },
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

/// The signals that initldr takes and motherd is told of.
pub fn passed_on() -> impl Iterator<Item = u32> {
    [SIGHUP, SIGINT, SIGUSR1, SIGUSR2, SIGTERM, SIGWINCH, SIGPWR].into_iter().chain(SIGRTMIN..=SIGRTMAX)
}

/// The end that a signal asks for, and whether it is to come at once. SIGTERM and SIGPWR are how containers and UPS
/// daemons ask for it, SIGINT is Ctrl-Alt-Del, the real-time signals have the numbers that systemd gave them.
fn request(signal: u32) -> Option<(End, bool)> {
    let how = match signal.checked_sub(SIGRTMIN) {
        None if signal == SIGTERM || signal == SIGPWR => End::PowerOff,
        None if signal == SIGINT => End::Reboot,
        Some(3 | 13) => End::Halt,
        Some(4 | 14) => End::PowerOff,
        Some(5 | 15) => End::Reboot,
        Some(6 | 16) => End::Kexec,
        _ => return None,
    };
    Some((how, signal >= SIGRTMIN + 13))
}

impl Phase {
    /// At the start: motherd is due now.
    pub const START: Phase = Phase {
        motherd: Motherd::Down { at: Duration::ZERO },
        stop: None,
        early_deaths: 0,
        generation: 0,
        cause: Relaunch::First,
    };

    /// Which motherd this is, from 1.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Why it was launched.
    pub fn cause(&self) -> Relaunch {
        self.cause
    }

    /// The signal by which somebody asked for the end, while that is under way.
    pub fn stop_signal(&self) -> Option<(u32, (u32, u32))> {
        self.stop.map(|stop| stop.signal)
    }

    /// When the next [`Event::Tick`] is due; `None`: nothing is.
    pub fn deadline(&self) -> Option<Duration> {
        let own = match self.motherd {
            Motherd::Down { at } | Motherd::Up { watch: Watch::Doomed { at, .. }, .. } => Some(at),
            Motherd::Up { watch: Watch::Expected { by }, .. } => Some(by),
            Motherd::Up { watch: Watch::Unwatched | Watch::Killed { .. }, .. } => None,
        };
        own.into_iter().chain(self.stop.map(|stop| stop.by)).min()
    }

    /// What follows from `event`.
    pub fn step(self, event: Event, now: Duration) -> (Phase, Effect) {
        match event {
            Event::End(how) => (self, Effect::End { how, mercy: Mercy::Stopped }),
            Event::Signal { signal, sender } => self.signal(signal, sender, now),
            Event::Tick => match self.stop {
                Some(stop) if now >= stop.by => {
                    (self, Effect::End { how: stop.how, mercy: Mercy::Terminate })
                }
                _ => self.tick(now),
            },
            Event::Launched => {
                let motherd = Motherd::Up { since: now, watch: Watch::Unwatched };
                (Phase { motherd, generation: self.generation.saturating_add(1), ..self }, Effect::Nothing)
            }
            Event::LaunchFailed => self.died(self.cause, Duration::ZERO, now),
            Event::Died { code, status } => match self.motherd {
                Motherd::Down { .. } => (self, Effect::Nothing), // not one of ours
                Motherd::Up { since, watch } => {
                    let hung = match watch {
                        Watch::Doomed { hung, .. } | Watch::Killed { hung } => hung,
                        Watch::Unwatched | Watch::Expected { .. } => false,
                    };
                    let cause = match code {
                        _ if hung => Relaunch::Hung,
                        CLD_EXITED => Relaunch::Exited(status),
                        _ => Relaunch::Signaled(status),
                    };
                    self.died(cause, now.saturating_sub(since), now)
                }
            },
            Event::Alive => self.watched(|watch| match watch {
                Watch::Unwatched | Watch::Expected { .. } => Watch::Expected { by: now + SILENCE },
                Watch::Doomed { .. } | Watch::Killed { .. } => watch, // too late
            }),
            Event::LinkLost => self.watched(|watch| match watch {
                Watch::Unwatched | Watch::Expected { .. } => {
                    Watch::Doomed { at: now + LINK_GRACE, hung: false }
                }
                Watch::Doomed { .. } | Watch::Killed { .. } => watch,
            }),
        }
    }

    fn watched(self, change: impl FnOnce(Watch) -> Watch) -> (Phase, Effect) {
        match self.motherd {
            Motherd::Up { since, watch } => {
                (Phase { motherd: Motherd::Up { since, watch: change(watch) }, ..self }, Effect::Nothing)
            }
            Motherd::Down { .. } => (self, Effect::Nothing), // a last word from the dead
        }
    }

    fn tick(self, now: Duration) -> (Phase, Effect) {
        let (since, watch, effect) = match self.motherd {
            Motherd::Down { at } if now >= at => return (self, Effect::Launch),
            Motherd::Up { since, watch: Watch::Expected { by } } if now >= by => {
                (since, Watch::Doomed { at: now + ABORT_GRACE, hung: true }, Effect::Kill(SIGABRT))
            }
            Motherd::Up { since, watch: Watch::Doomed { at, hung } } if now >= at => {
                (since, Watch::Killed { hung }, Effect::Kill(SIGKILL))
            }
            Motherd::Down { .. } | Motherd::Up { .. } => return (self, Effect::Nothing), // woken early
        };
        (Phase { motherd: Motherd::Up { since, watch }, ..self }, effect)
    }

    fn died(self, cause: Relaunch, lived: Duration, now: Duration) -> (Phase, Effect) {
        let early_deaths = if lived < EARLY { self.early_deaths.saturating_add(1) } else { 0 };
        let motherd = Motherd::Down { at: now + delay(early_deaths) };
        let effect = if early_deaths >= RESCUE_AFTER { Effect::Rescue } else { Effect::Nothing };
        (Phase { motherd, early_deaths, cause, ..self }, effect)
    }

    fn signal(self, signal: u32, sender: (u32, u32), now: Duration) -> (Phase, Effect) {
        let pass_on = Effect::PassOn { signal, sender };
        let Some((how, at_once)) = request(signal) else { return (self, pass_on) };
        let first = Stop { how, by: now + STOP_WITHIN, signal: (signal, sender), burst_since: now, burst: 0 };
        let mut stop = self.stop.unwrap_or(first);
        if now.saturating_sub(stop.burst_since) > BURST_WITHIN {
            (stop.burst_since, stop.burst) = (now, 0);
        }
        stop.burst += 1;
        // Fingers repeat Ctrl-Alt-Del without meaning it; who sends one of the others again does mean it.
        let again = self.stop.is_some() && (signal != SIGINT || stop.burst >= BURST);
        let effect = if at_once || again { Effect::End { how, mercy: Mercy::Kill } } else { pass_on };
        (Phase { stop: Some(stop), ..self }, effect)
    }
}

/// How long the next motherd waits after so many early deaths in a row: 0, 0, 100 ms, 200 ms, .. 10 s.
fn delay(early_deaths: u32) -> Duration {
    match early_deaths.checked_sub(2) {
        None => Duration::ZERO,
        Some(doublings) => FIRST_DELAY.saturating_mul(1 << doublings.min(20)).min(LAST_DELAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLD_KILLED: i32 = 2;
    const KILLED: Event = Event::Died { code: CLD_KILLED, status: 9 };

    const SENDER: (u32, u32) = (4711, 1000);

    fn signal(signal: u32) -> Event {
        Event::Signal { signal, sender: SENDER }
    }

    fn passed_on(signal: u32) -> Effect {
        Effect::PassOn { signal, sender: SENDER }
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn up(now: Duration) -> Phase {
        let (phase, effect) = Phase::START.step(Event::Tick, now);
        assert_eq!(effect, Effect::Launch);
        phase.step(Event::Launched, now).0
    }

    #[test]
    fn the_first_motherd_is_due_at_once_and_then_nothing_is() {
        assert_eq!(Phase::START.deadline(), Some(Duration::ZERO));
        let phase = up(seconds(1));
        assert_eq!((phase.deadline(), phase.generation(), phase.cause()), (None, 1, Relaunch::First));
    }

    #[test]
    fn a_motherd_that_lived_long_comes_back_at_once() {
        let (phase, effect) = up(seconds(1)).step(Event::Died { code: CLD_EXITED, status: 3 }, seconds(60));
        assert_eq!(effect, Effect::Nothing);
        assert_eq!((phase.deadline(), phase.cause()), (Some(seconds(60)), Relaunch::Exited(3)));
    }

    #[test]
    fn early_deaths_wait_longer_and_longer_up_to_ten_seconds_until_one_lives() {
        let mut now = seconds(1);
        let mut phase = up(now);
        let mut delays = vec![];
        for death in 1..=12 {
            let (dead, effect) = phase.step(KILLED, now);
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
        let (phase, effect) = phase.step(KILLED, now + EARLY);
        assert_eq!((phase.deadline(), effect), (Some(now + EARLY), Effect::Nothing));
    }

    #[test]
    fn a_launch_that_fails_waits_like_an_early_death() {
        let mut phase = Phase::START;
        for expected in [0, 100, 200] {
            phase = phase.step(Event::LaunchFailed, seconds(1)).0;
            assert_eq!(phase.deadline(), Some(seconds(1) + Duration::from_millis(expected)));
        }
        assert_eq!((phase.generation(), phase.cause()), (0, Relaunch::First));
    }

    #[test]
    fn silence_after_an_alive_is_aborted_then_killed_and_told_as_hung() {
        let phase = up(seconds(1)).step(Event::Alive, seconds(2)).0;
        assert_eq!(phase.deadline(), Some(seconds(2) + SILENCE));
        let phase = phase.step(Event::Alive, seconds(12)).0;
        let late = seconds(12) + SILENCE;
        assert_eq!(phase.deadline(), Some(late));
        let (phase, effect) = phase.step(Event::Tick, late);
        assert_eq!((phase.deadline(), effect), (Some(late + ABORT_GRACE), Effect::Kill(SIGABRT)));
        assert_eq!(phase.step(Event::Alive, late), (phase, Effect::Nothing), "too late");
        let (phase, effect) = phase.step(Event::Tick, late + ABORT_GRACE);
        assert_eq!((phase.deadline(), effect), (None, Effect::Kill(SIGKILL)));
        let phase = phase.step(KILLED, late + ABORT_GRACE).0;
        assert_eq!(phase.cause(), Relaunch::Hung);
    }

    #[test]
    fn a_motherd_without_a_link_is_killed() {
        let phase = up(seconds(1)).step(Event::LinkLost, seconds(2)).0;
        let (phase, effect) = phase.step(Event::Tick, seconds(2) + LINK_GRACE);
        assert_eq!(effect, Effect::Kill(SIGKILL));
        assert_eq!(phase.step(KILLED, seconds(4)).0.cause(), Relaunch::Signaled(9));
    }

    #[test]
    fn end_from_motherd_is_the_end() {
        let effect = up(seconds(1)).step(Event::End(End::Kexec), seconds(2)).1;
        assert_eq!(effect, Effect::End { how: End::Kexec, mercy: Mercy::Stopped });
    }

    #[test]
    fn a_stop_that_nobody_answers_ends_after_ninety_seconds_even_across_deaths() {
        let (phase, effect) = up(seconds(1)).step(signal(SIGTERM), seconds(10));
        assert_eq!((effect, phase.stop_signal()), (passed_on(SIGTERM), Some((SIGTERM, SENDER))));
        assert_eq!(phase.deadline(), Some(seconds(100)));
        let phase = phase.step(KILLED, seconds(11)).0.step(Event::Launched, seconds(11)).0;
        assert_eq!(phase.stop_signal(), Some((SIGTERM, SENDER)), "the next motherd is told");
        let end = Effect::End { how: End::PowerOff, mercy: Mercy::Terminate };
        assert_eq!(phase.step(Event::Tick, seconds(100)).1, end);
    }

    #[test]
    fn a_second_request_forces_but_ctrl_alt_del_only_as_a_burst() {
        let phase = up(seconds(1)).step(signal(SIGTERM), seconds(2)).0;
        let now = Effect::End { how: End::PowerOff, mercy: Mercy::Kill };
        assert_eq!(phase.step(signal(SIGTERM), seconds(3)).1, now);

        let press = |gap: Duration| {
            let (mut phase, mut at) = (up(seconds(1)), seconds(2));
            for nth in 1..=20 {
                let (next, effect) = phase.step(signal(SIGINT), at);
                if effect != passed_on(SIGINT) {
                    return Some((nth, effect));
                }
                (phase, at) = (next, at + gap);
            }
            None
        };
        let now = Effect::End { how: End::Reboot, mercy: Mercy::Kill };
        assert_eq!(press(Duration::from_millis(100)), Some((BURST, now)));
        assert_eq!(press(seconds(1)), None);
    }

    #[test]
    fn signals_mean_what_the_table_says() {
        let end = |how, mercy| Effect::End { how, mercy };
        for (number, effect) in [
            (SIGHUP, None),
            (SIGINT, Some((End::Reboot, false))),
            (SIGPWR, Some((End::PowerOff, false))),
            (SIGRTMIN, None),
            (SIGRTMIN + 3, Some((End::Halt, false))),
            (SIGRTMIN + 6, Some((End::Kexec, false))),
            (SIGRTMIN + 7, None),
            (SIGRTMIN + 13, Some((End::Halt, true))),
            (SIGRTMIN + 15, Some((End::Reboot, true))),
            (SIGRTMIN + 17, None),
            (SIGRTMIN + 30, None),
        ] {
            let (phase, did) = up(seconds(1)).step(signal(number), seconds(2));
            let expected = match effect {
                Some((how, true)) => end(how, Mercy::Kill),
                _ => passed_on(number),
            };
            assert_eq!((did, phase.stop_signal().is_some()), (expected, effect.is_some()), "signal {number}");
            if let Some((how, false)) = effect {
                assert_eq!(phase.step(Event::Tick, seconds(2) + STOP_WITHIN).1, end(how, Mercy::Terminate));
            }
        }
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
            let (mut phase, mut now, mut running, mut asked) = (Phase::START, seconds(1), false, None);
            for _ in 0..200 {
                now += Duration::from_millis(random(4_000));
                let event = match random(9) {
                    0 if running => KILLED,
                    1 if running => Event::Alive,
                    2 if running => Event::LinkLost,
                    3 if random(20) == 0 => signal(SIGTERM),
                    4 if running && random(20) == 0 => Event::End(End::Halt),
                    5 => signal(SIGHUP),
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
                    Effect::End { .. } => {
                        ends += 1;
                        break;
                    }
                    Effect::Nothing | Effect::Rescue | Effect::PassOn { .. } => {}
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
