//! When motherd gives back what many launches have left behind: memory that was freed, and pages of its own program that it
//! needs for launches and little else.
//!
//! Invariants. It wakes for that once after a burst of launches, at most once in [`BETWEEN`], and never for a few. And it is the
//! last thing before motherd waits: whatever ran after it, the rest of one turn of the loop, would be mapped again, 16 pages
//! around each that is run.

use std::time::Duration;

use super::{Daemon, now};
use crate::sys;

/// Fewer launches leave too little.
const MANY: u32 = 16;
/// So long after the last launch of many.
const QUIET: Duration = Duration::from_secs(1);
/// From one time to the next.
const BETWEEN: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rest {
    launches: u32,
    last_launch: Duration,
    rested: Option<Duration>,
    next: Option<Duration>,
    /// Before the next time that nothing is to be done.
    wanted: bool,
}

impl Rest {
    /// As soon as nothing else is to be done.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// A process was launched.
    pub(super) fn launched(&mut self, now: Duration) {
        self.launches = self.launches.saturating_add(1);
        self.last_launch = now;
        if self.launches == MANY {
            self.next = Some(self.due());
        }
    }

    fn due(&self) -> Duration {
        (self.last_launch + QUIET).max(self.rested.map_or(Duration::ZERO, |rested| rested + BETWEEN))
    }

    /// When it is to be looked at again.
    pub(super) fn next(&self) -> Option<Duration> {
        self.next
    }

    /// Whether it is time; where there were launches since, it is later.
    fn is_due(&mut self, now: Duration) -> bool {
        if self.next.is_none_or(|next| now < next) {
            return false;
        }
        let due = self.due();
        if now < due {
            self.next = Some(due);
            return false;
        }
        (self.launches, self.rested, self.next) = (0, Some(now), None);
        true
    }
}

impl Daemon {
    /// Gives back what the launches have left, when it is time.
    pub(super) fn rest(&mut self) {
        if self.rest.is_due(now()) {
            self.rest.want();
        }
    }

    /// Gives it back, if it is wanted and nobody waits for the rest of an answer: what comes now is epoll_wait.
    pub(super) fn rest_before_waiting(&mut self) {
        if self.rest.wanted && !self.is_answering() {
            self.rest.wanted = false;
            give_back();
        }
    }
}

fn give_back() {
    sys::memory::give_back();
    if let Err(error) = sys::memory::unmap_what_ran() {
        tracing::debug!("what has run stays mapped: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn launches(rest: &mut Rest, count: u32, now: Duration) {
        (0..count).for_each(|_| rest.launched(now));
    }

    #[test]
    fn a_few_launches_wake_nobody() {
        let mut rest = Rest::default();
        launches(&mut rest, MANY - 1, at(100));
        assert_eq!((rest.next(), rest.is_due(at(1000))), (None, false));
    }

    #[test]
    fn many_are_over_a_second_after_the_last() {
        let mut rest = Rest::default();
        launches(&mut rest, MANY, at(100));
        assert_eq!((rest.next(), rest.is_due(at(100))), (Some(at(101)), false));
        launches(&mut rest, 500, at(105));
        assert!(!rest.is_due(at(105)), "they go on");
        assert_eq!(rest.next(), Some(at(106)));
        assert!(rest.is_due(at(106)));
        assert_eq!((rest.next(), rest.is_due(at(107))), (None, false), "once");
    }

    #[test]
    fn a_service_that_is_always_started_again_costs_one_in_a_minute() {
        let mut rest = Rest::default();
        let times = (0..600).filter(|second| {
            launches(&mut rest, 10, at(*second));
            rest.is_due(at(*second) + QUIET)
        });
        assert_eq!(times.count(), 10);
    }
}
