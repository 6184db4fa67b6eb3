//! When a service that ended by itself is started again: arithmetic on times, nothing else.
//!
//! The wait grows by `factor` from `delay` to `max_delay`, and starts from the beginning after the service was up for
//! `reset_after`. More than `limit` restarts within `limit_window` make it `failing`: it is then tried at `max_delay`
//! and never given up, until it was up for `reset_after` or somebody starts it by hand.
//!
//! Each wait differs by up to `jitter` of itself, so that services that failed together come back one by one. By how
//! much follows from the seed that comes with the rules and from the count of restarts: the core draws no lots.

use std::time::Duration;

use crate::{
    fault::{self, Fault},
    service::Restart,
};

/// What happened so far; all zero for a service that never ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct History {
    /// Restarts since the delay last began from the beginning: the exponent.
    pub streak: u32,
    /// When the window of `limit_window` began.
    pub window_start: Duration,
    /// Restarts since then.
    pub in_window: u32,
    /// Beyond the limit.
    pub failing: bool,
    /// Restarts ever, for people.
    pub total: u64,
}

impl History {
    /// A service that was up for `up` ended at `now`: when it is to be tried again.
    #[must_use]
    pub fn next(&mut self, rules: &Restart, seed: u64, up: Duration, now: Duration) -> Duration {
        if up >= rules.reset_after {
            self.forgive();
        }
        if self.in_window == 0 || now.saturating_sub(self.window_start) > rules.limit_window {
            self.window_start = now;
            self.in_window = 0;
        }
        self.in_window = self.in_window.saturating_add(1);
        self.failing |= self.in_window > rules.limit;
        let wait = if self.failing { rules.max_delay } else { grown(rules, self.streak) };
        self.streak = self.streak.saturating_add(1);
        self.total = self.total.saturating_add(1);
        now.saturating_add(spread(rules, wait, part(seed, self.total)))
    }

    /// Somebody started it by hand, or it was up long enough: the next failure is the first.
    pub fn forgive(&mut self) {
        *self = Self { total: self.total, ..Self::default() };
    }
}

/// `delay * factor ^ streak`, at most `max_delay`. In floating point, because `factor` is; it saturates.
fn grown(rules: &Restart, streak: u32) -> Duration {
    let exponent = i32::try_from(streak.min(1_000)).unwrap_or(1_000);
    let seconds = rules.delay.as_secs_f64() * rules.factor.powi(exponent);
    Duration::try_from_secs_f64(seconds).unwrap_or(rules.max_delay).min(rules.max_delay)
}

/// A wait that differs by `part` of what `jitter` allows: longer, or shorter where it would be longer than `max_delay`.
fn spread(rules: &Restart, wait: Duration, part: f64) -> Duration {
    let by = wait.mul_f64(rules.jitter * part);
    let longer = wait.saturating_add(by);
    if longer <= rules.max_delay || fault::on(Fault::WaitsForEver) {
        longer
    } else {
        wait.saturating_sub(by).max(rules.delay)
    }
}

/// A number from 0 to 1 that looks like chance (the finisher of splitmix64).
fn part(seed: u64, count: u64) -> f64 {
    let mut bits = seed.wrapping_add(count.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^= bits >> 31;
    f64::from(u32::try_from(bits >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Duration = Duration::from_secs(1000);

    /// The waits of a service that dies at once each time.
    fn waits(rules: &Restart, count: usize) -> Vec<u128> {
        let (mut history, mut now, mut waits) = (History::default(), START, Vec::new());
        for _ in 0..count {
            let until = history.next(rules, 7, Duration::ZERO, now);
            waits.push((until - now).as_millis());
            now = until;
        }
        waits
    }

    #[test]
    fn the_wait_doubles_up_to_its_ceiling() {
        let expected = [100_u128, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000];
        assert_eq!(waits(&Restart { jitter: 0.0, ..Restart::default() }, 12), expected);
    }

    #[test]
    fn beyond_the_limit_it_is_failing_and_still_tried() {
        let rules = Restart { limit: 3, factor: 1.0, jitter: 0.0, ..Restart::default() };
        assert_eq!(waits(&rules, 6), [100, 100, 100, 60_000, 60_000, 60_000]);
    }

    #[test]
    fn services_that_fail_together_come_back_one_by_one() {
        let rules = Restart::default();
        let waits: std::collections::BTreeSet<Duration> =
            (0..100).map(|seed| History::default().next(&rules, seed, Duration::ZERO, START)).collect();
        assert_eq!(waits.len(), 100);
        let longest = *waits.last().unwrap() - START;
        assert!(longest <= Duration::from_millis(110) && longest > Duration::from_millis(105), "{longest:?}");
        let slow = Restart { limit: 1, ..rules };
        let mut failing = History { in_window: 1, window_start: START, ..History::default() };
        let wait = failing.next(&slow, 3, Duration::ZERO, START) - START;
        assert!(failing.failing && wait < slow.max_delay && wait >= Duration::from_secs(54), "{wait:?}");
    }

    #[test]
    fn being_up_long_enough_begins_from_the_beginning() {
        let rules = Restart { limit: 1, jitter: 0.0, ..Restart::default() };
        let mut history = History::default();
        for _ in 0..5 {
            let _until = history.next(&rules, 7, Duration::ZERO, START);
        }
        assert!(history.failing);
        let until = history.next(&rules, 7, rules.reset_after, START);
        assert_eq!(until - START, rules.delay);
        assert!(!history.failing);
        assert_eq!(history.total, 6);
    }

    #[test]
    fn slow_failures_never_reach_the_limit() {
        let rules = Restart { limit: 2, limit_window: Duration::from_secs(10), ..Restart::default() };
        let mut history = History::default();
        for n in 0..20 {
            let _until = history.next(&rules, 7, Duration::ZERO, START + Duration::from_secs(6 * n));
            assert!(!history.failing, "restart {n}");
        }
    }

    proptest! {
        /// Whatever the rules: no wait is shorter than `delay` or longer than `max_delay`, so restarts are bounded.
        #[test]
        fn restarts_are_bounded(
            delay in 1_u64..10_000,
            more in 0_u64..100_000,
            factor in 1.0_f64..100.0,
            limit in 1_u32..50,
            jitter in 0.0_f64..=1.0,
            seed in any::<u64>(),
            ups in prop::collection::vec(0_u64..60_000, 1..200),
        ) {
            let rules = Restart {
                delay: Duration::from_millis(delay),
                max_delay: Duration::from_millis(delay + more),
                factor,
                limit,
                jitter,
                ..Restart::default()
            };
            let (mut history, mut now) = (History::default(), START);
            for up in ups {
                let up = Duration::from_millis(up);
                now += up;
                let until = history.next(&rules, seed, up, now);
                prop_assert!(until - now >= rules.delay && until - now <= rules.max_delay);
                now = until;
            }
        }
    }
}
