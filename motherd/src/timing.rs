//! When a timer goes off next. Pure: arithmetic on instants; `daemon::timers` asks the clocks and keeps the stamps.
//!
//! Invariant: from one stamp follows one instant, and the stamp of that instant gives a later one. So a timer goes off
//! once for each time that it names, whatever the clock of the day does and however often motherd dies.

use std::time::Duration;

use crate::service::{Schedule, Timer};

/// A stamp that is so far in the future is of a clock that was wrong: one day.
const WRONG_CLOCK: Duration = Duration::from_secs(24 * 3600);

/// Both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// CLOCK_REALTIME.
    pub realtime: Duration,
    /// CLOCK_BOOTTIME.
    pub boottime: Duration,
}

/// When a timer went off last, or when it was first known of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// It is of this boot.
    pub this_boot: bool,
    /// It went off; otherwise it became known.
    pub fired: bool,
    /// CLOCK_REALTIME.
    pub realtime: Duration,
    /// CLOCK_BOOTTIME.
    pub boottime: Duration,
}

/// The instant at which a timer goes off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// By CLOCK_REALTIME, which people set.
    Real(Duration),
    /// By CLOCK_BOOTTIME, which goes on while the machine sleeps.
    Boot(Duration),
}

impl Due {
    /// Whether it has come.
    #[must_use]
    pub fn has_come(self, now: &Now) -> bool {
        match self {
            Self::Real(at) => now.realtime >= at,
            Self::Boot(at) => now.boottime >= at,
        }
    }
}

/// When a timer goes off next. `started`: when its service was started last; `seed`: tells timers and machines apart,
/// for the jitter. `None`: never, as things are.
#[must_use]
pub fn due(timer: &Timer, stamp: &Stamp, now: &Now, started: Option<Duration>, seed: u64) -> Option<Due> {
    let later = |at: Duration, number: u64| at.saturating_add(jitter(timer.jitter, seed, number));
    match &timer.schedule {
        Schedule::Calendar(calendar) => {
            let missed_counts = timer.persistent || stamp.this_boot;
            let sound = stamp.realtime <= now.realtime.saturating_add(WRONG_CLOCK);
            let base = if missed_counts && sound { stamp.realtime } else { now.realtime };
            let next = calendar.next(i64::try_from(base.as_secs()).ok()?)?;
            let next = u64::try_from(next).ok()?;
            Some(Due::Real(later(Duration::from_secs(next), next)))
        }
        Schedule::Every(time) => {
            let base = if stamp.this_boot { stamp.boottime } else { now.boottime };
            Some(Due::Boot(later(base.saturating_add(*time), base.as_secs())))
        }
        Schedule::AfterBoot(time) => (!(stamp.this_boot && stamp.fired)).then(|| Due::Boot(later(*time, 0))),
        Schedule::AfterStart(time) => {
            let started = started?;
            let fired = stamp.this_boot && stamp.fired && stamp.boottime >= started.saturating_add(*time);
            (!fired).then(|| Due::Boot(later(started.saturating_add(*time), started.as_secs())))
        }
    }
}

/// The stamp of a timer that goes off now. What was missed several times is made up for once.
#[must_use]
pub fn fired(timer: &Timer, before: &Stamp, due: Due, now: &Now) -> Stamp {
    let realtime = match due {
        // The clock may say a moment less than the time that it was waited for.
        Due::Real(at) => now.realtime.max(at),
        Due::Boot(_) => now.realtime,
    };
    let boottime = match (&timer.schedule, before.this_boot) {
        // Without drift: the next one is counted from when this one was to come.
        (Schedule::Every(time), true) => {
            let over = now.boottime.saturating_sub(before.boottime).as_nanos() / time.as_nanos().max(1);
            let times = u32::try_from(over).unwrap_or(u32::MAX);
            before.boottime.saturating_add(time.saturating_mul(times))
        }
        _ => now.boottime,
    };
    Stamp { this_boot: true, fired: true, realtime, boottime }
}

/// Less than `most`, always the same for the same timer and number.
fn jitter(most: Duration, seed: u64, number: u64) -> Duration {
    let mixed = (seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let share = u128::from(mixed >> 32);
    let nanoseconds = (most.as_nanos() * share) >> 32;
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::{Calendar, Civil};

    const BOOT: u64 = 1_795_000_000;

    fn timer(schedule: Schedule) -> Timer {
        Timer { schedule, persistent: false, jitter: Duration::ZERO }
    }

    fn daily() -> Timer {
        timer(Schedule::Calendar(Calendar::parse("daily 03:00").unwrap()))
    }

    fn unix(text: &str) -> Duration {
        Duration::from_secs(u64::try_from(Civil::parse(text).unwrap().0.unix()).unwrap())
    }

    fn at(realtime: Duration) -> Now {
        Now { realtime, boottime: realtime.saturating_sub(Duration::from_secs(BOOT)) }
    }

    fn known(now: &Now) -> Stamp {
        Stamp { this_boot: true, fired: false, realtime: now.realtime, boottime: now.boottime }
    }

    #[test]
    fn a_calendar_timer_goes_off_once_for_each_time_whatever_the_clock_does() {
        let now = at(unix("2026-11-22 23:50"));
        let stamp = known(&now);
        let first = due(&daily(), &stamp, &now, None, 0).unwrap();
        assert_eq!(first, Due::Real(unix("2026-11-23 03:00")));
        assert!(!first.has_come(&now));
        let now = at(unix("2026-11-23 03:00"));
        let stamp = fired(&daily(), &stamp, first, &now);
        // Set back by an hour: the same three o'clock does not count again.
        let back = at(unix("2026-11-23 02:00"));
        assert_eq!(due(&daily(), &stamp, &back, None, 0), Some(Due::Real(unix("2026-11-24 03:00"))));
        // Set ahead over two times: once, now.
        let ahead = at(unix("2026-11-26 12:00"));
        let next = due(&daily(), &stamp, &ahead, None, 0).unwrap();
        assert!(next.has_come(&ahead));
        let stamp = fired(&daily(), &stamp, next, &ahead);
        assert_eq!(due(&daily(), &stamp, &ahead, None, 0), Some(Due::Real(unix("2026-11-27 03:00"))));
        // Set back by days: that clock was wrong.
        let right = at(unix("2026-11-20 12:00"));
        assert_eq!(due(&daily(), &stamp, &right, None, 0), Some(Due::Real(unix("2026-11-21 03:00"))));
    }

    #[test]
    fn what_was_missed_while_the_machine_was_off_is_for_persistent_ones() {
        let now = at(unix("2026-11-26 12:00"));
        let stamp = Stamp { this_boot: false, ..known(&at(unix("2026-11-22 12:00"))) };
        assert_eq!(due(&daily(), &stamp, &now, None, 0), Some(Due::Real(unix("2026-11-27 03:00"))));
        let persistent = Timer { persistent: true, ..daily() };
        let missed = due(&persistent, &stamp, &now, None, 0).unwrap();
        assert!(missed.has_come(&now));
        let stamp = fired(&persistent, &stamp, missed, &now);
        assert_eq!(due(&persistent, &stamp, &now, None, 0), Some(Due::Real(unix("2026-11-27 03:00"))));
        // While motherd was dead is not while the machine was off.
        let stamp = known(&at(unix("2026-11-26 02:00")));
        assert!(due(&daily(), &stamp, &now, None, 0).unwrap().has_come(&now));
    }

    #[test]
    fn every_does_not_drift_and_skips_what_it_slept_through() {
        let every = timer(Schedule::Every(Duration::from_secs(60)));
        let seconds = Duration::from_secs;
        let mut stamp = known(&at(seconds(BOOT + 5)));
        let late = at(seconds(BOOT + 67));
        let first = due(&every, &stamp, &late, None, 0).unwrap();
        assert_eq!(first, Due::Boot(seconds(65)));
        stamp = fired(&every, &stamp, first, &late);
        let next = due(&every, &stamp, &late, None, 0).unwrap();
        assert_eq!(next, Due::Boot(seconds(125)));
        let slept = at(seconds(BOOT + 1000));
        stamp = fired(&every, &stamp, next, &slept);
        assert_eq!(due(&every, &stamp, &slept, None, 0), Some(Due::Boot(seconds(1025))));
    }

    #[test]
    fn after_boot_comes_once_a_boot_and_after_start_once_a_start() {
        let boot = timer(Schedule::AfterBoot(Duration::from_secs(120)));
        let now = at(Duration::from_secs(BOOT + 10));
        let stamp = known(&now);
        let first = due(&boot, &stamp, &now, None, 0).unwrap();
        assert_eq!(first, Due::Boot(Duration::from_secs(120)));
        let stamp = fired(&boot, &stamp, first, &at(Duration::from_secs(BOOT + 120)));
        assert_eq!(due(&boot, &stamp, &now, None, 0), None);
        assert!(due(&boot, &Stamp { this_boot: false, ..stamp }, &now, None, 0).is_some(), "the next boot");

        let start = timer(Schedule::AfterStart(Duration::from_secs(30)));
        let stamp = known(&now);
        assert_eq!(due(&start, &stamp, &now, None, 0), None, "it was never started");
        let started = Some(Duration::from_secs(20));
        let first = due(&start, &stamp, &now, started, 0).unwrap();
        assert_eq!(first, Due::Boot(Duration::from_secs(50)));
        let stamp = fired(&start, &stamp, first, &at(Duration::from_secs(BOOT + 50)));
        assert_eq!(due(&start, &stamp, &now, started, 0), None, "until it is started again");
        let again = Some(Duration::from_secs(51));
        assert_eq!(due(&start, &stamp, &now, again, 0), Some(Due::Boot(Duration::from_secs(81))));
    }

    #[test]
    fn jitter_is_less_than_it_says_and_the_same_each_time_one_asks() {
        let timer = Timer { jitter: Duration::from_secs(600), ..daily() };
        let now = at(unix("2026-11-22 23:50"));
        let plain = unix("2026-11-23 03:00");
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let Some(Due::Real(at)) = due(&timer, &known(&now), &now, None, seed) else { panic!() };
            assert!(at >= plain && at < plain + timer.jitter);
            assert_eq!(due(&timer, &known(&now), &now, None, seed), Some(Due::Real(at)));
            seen.insert(at);
        }
        assert!(seen.len() > 90, "machines do not all come at once");
    }
}
