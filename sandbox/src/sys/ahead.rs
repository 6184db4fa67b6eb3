//! What another process makes ahead for this one, piece by piece, in this one's memory.
//!
//! The pieces have numbers. Whoever claims one makes it: the process beside, in the order of the numbers and no further ahead than
//! there are places; or this one, where it comes to a piece that nobody has begun. So it waits for nothing but what is half made.

use std::{
    cell::UnsafeCell,
    sync::atomic::{
        AtomicBool, AtomicU32,
        Ordering::{Acquire, Release, SeqCst},
    },
    time::{Duration, Instant},
};

use nix::errno::Errno;

use crate::sys::{clone::Beside, raw};

/// So long this process waits for a piece that is half made. Then it does without: who made it may have been killed.
const HALF_MADE: Duration = Duration::from_millis(100);

/// The pieces to come.
#[derive(Debug)]
pub(crate) struct Ahead<C: Sync, T: Send> {
    beside: Beside<Ring<C, T>>,
    /// The next that it may go to.
    next: u32,
    /// The one that it went to last, if it was made.
    current: Option<u32>,
}

#[derive(Debug)]
struct Ring<C, T> {
    context: C,
    make: fn(&C, u32, &mut T),
    count: u32,
    places: Box<[Place<T>]>,
    /// All pieces below this are somebody's to make.
    claimed: AtomicU32,
    /// All pieces below this are let go of: their places are free.
    taken: AtomicU32,
    /// The maker sleeps on `taken`.
    maker_sleeps: AtomicBool,
    /// The owner sleeps on what some place holds.
    owner_sleeps: AtomicBool,
}

#[derive(Debug)]
struct Place<T> {
    /// One more than the number of the piece in it; 0 is none.
    holds: AtomicU32,
    piece: UnsafeCell<T>,
}

// SAFETY: a piece is written by the process beside, which claimed its number after the one before it in this place was let go of
// (`taken`), and read by the owner after `holds` said its number (release, acquire) and before it lets go of it. So it is in
// the hands of one at a time (`T: Send`).
unsafe impl<T: Send> Sync for Place<T> {}

impl<C: Sync, T: Send> Ahead<C, T> {
    /// Begins to make `count` pieces in these places. `make` runs in a process that shares this one's memory: it must not
    /// allocate, lock, unwind or touch thread-local storage.
    ///
    /// # Errors
    /// What clone3(2) says.
    pub(crate) fn new(
        context: C,
        count: u32,
        places: impl Iterator<Item = T>,
        make: fn(&C, u32, &mut T),
    ) -> Result<Self, Errno> {
        let place = |piece| Place { holds: AtomicU32::new(0), piece: UnsafeCell::new(piece) };
        let ring = Ring {
            context,
            make,
            // The highest number is no piece's: each has one above it.
            count: count.min(u32::MAX - 1),
            places: places.map(place).collect(),
            claimed: AtomicU32::new(0),
            taken: AtomicU32::new(0),
            maker_sleeps: AtomicBool::new(false),
            owner_sleeps: AtomicBool::new(false),
        };
        let beside = Beside::new(ring, Ring::make_all)?;
        Ok(Self { beside, next: 0, current: None })
    }

    /// Goes on to a piece, from the one before for good; whether it is made. If not, it is the caller's to do without.
    pub(crate) fn go_to(&mut self, number: u32) -> bool {
        self.current = None;
        if number < self.next {
            return false;
        }
        self.next = number.saturating_add(1);
        let made = self.beside.context().is_made(number);
        self.current = made.then_some(number);
        made
    }

    /// The piece that it went to last, if that was made.
    pub(crate) fn current(&self) -> Option<&T> {
        let place = self.beside.context().place(self.current?)?;
        // SAFETY: `go_to` found it made, and the process beside writes to this place no more until the owner lets go of it in the
        // next `go_to`, for which nobody may have this reference.
        Some(unsafe { &*place.piece.get() })
    }
}

impl<C, T> Ring<C, T> {
    fn place(&self, number: u32) -> Option<&Place<T>> {
        let length = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        self.places.get(number.checked_rem(length)? as usize)
    }

    fn claim(&self, number: u32) -> bool {
        self.claimed.compare_exchange(number, number + 1, SeqCst, SeqCst).is_ok()
    }

    /// What the process beside runs.
    fn make_all(&self) {
        let length = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        loop {
            let number = self.claimed.load(SeqCst);
            if number >= self.count || length == 0 {
                return;
            }
            let taken = self.taken.load(SeqCst);
            if number.saturating_sub(taken) >= length {
                self.maker_sleeps.store(true, SeqCst);
                // Woken, or `taken` is another by now: it looks again in any case.
                let _woken = raw::futex_wait(&self.taken, taken, None);
                self.maker_sleeps.store(false, SeqCst);
                continue;
            }
            let Some(place) = self.place(number).filter(|_| self.claim(number)) else { continue };
            // SAFETY: it is claimed, so nobody else makes it; the one before it in this place is below `taken`, so the owner has
            // no reference to it; and the owner takes none to this one before `holds` says so.
            let piece = unsafe { &mut *place.piece.get() };
            (self.make)(&self.context, number, piece);
            place.holds.store(number + 1, SeqCst);
            if self.owner_sleeps.load(SeqCst) {
                let _count = raw::futex_wake(&place.holds);
            }
        }
    }

    /// The owner's side: lets go of all before this one, and claims it if nobody has.
    fn is_made(&self, number: u32) -> bool {
        let Some(place) = self.place(number).filter(|_| number < self.count) else { return false };
        self.taken.store(number, SeqCst);
        // Not for each place that is free: it goes on once half of them are.
        let half = u32::try_from(self.places.len() / 2).unwrap_or(u32::MAX).max(1);
        if number.is_multiple_of(half) && self.maker_sleeps.load(SeqCst) {
            let _count = raw::futex_wake(&self.taken);
        }
        loop {
            let claimed = self.claimed.load(SeqCst);
            if claimed > number {
                break;
            }
            if self.claimed.compare_exchange(claimed, number + 1, SeqCst, SeqCst).is_ok() {
                return false;
            }
        }
        self.wait_for(place, number)
    }

    fn wait_for(&self, place: &Place<T>, number: u32) -> bool {
        let mut until = None;
        loop {
            let holds = place.holds.load(Acquire);
            if holds == number + 1 {
                return true;
            }
            let now = Instant::now();
            let left = until.get_or_insert(now + HALF_MADE).saturating_duration_since(now);
            if left.is_zero() {
                return false;
            }
            self.owner_sleeps.store(true, SeqCst);
            // Woken, or it holds another by now, or it is too late: it looks again in any case.
            let _woken = raw::futex_wait(&place.holds, holds, Some(left));
            self.owner_sleeps.store(false, Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal, kill};

    use super::*;

    fn squares(places: usize, count: u32) -> Ahead<u32, u64> {
        let square = |factor: &u32, number: u32, piece: &mut u64| {
            *piece = u64::from(number) * u64::from(number) * u64::from(*factor);
        };
        Ahead::new(3, count, std::iter::repeat_n(0, places), square).unwrap()
    }

    /// Waits until the process beside has begun with so many.
    fn claimed(ahead: &Ahead<u32, u64>, count: u32) {
        let end = Instant::now() + Duration::from_secs(60);
        while ahead.beside.context().claimed.load(SeqCst) < count {
            assert!(Instant::now() < end, "nobody makes anything");
            std::thread::yield_now();
        }
    }

    /// Each piece is made, or it is not and nobody makes it.
    fn right(ahead: &mut Ahead<u32, u64>, number: u32) -> bool {
        let made = ahead.go_to(number);
        let expected = made.then_some(u64::from(number) * u64::from(number) * 3);
        assert_eq!(ahead.current().copied(), expected, "{number}");
        made
    }

    #[test]
    fn the_pieces_are_the_ones_of_their_numbers() {
        for (places, count) in [(1, 1), (1, 500), (2, 500), (3, 1000), (16, 10_000)] {
            let mut ahead = squares(places, count);
            claimed(&ahead, 1);
            let made = (0..count).filter(|number| right(&mut ahead, *number)).count();
            assert!(made > 0, "{places} places, {count} pieces");
            assert!(!ahead.go_to(count), "there is no such piece");
            assert!(!ahead.go_to(count - 1), "it went on from there");
        }
    }

    #[test]
    fn pieces_that_are_passed_over_are_let_go_of() {
        let mut ahead = squares(4, 1000);
        for number in (0..1000).step_by(7) {
            right(&mut ahead, number);
        }
    }

    #[test]
    fn nobody_waits_for_a_maker_that_is_dead() {
        let mut ahead = squares(4, 1000);
        claimed(&ahead, 4);
        kill(ahead.beside.pid(), Signal::SIGKILL).unwrap();
        let made = (0..1000).filter(|number| right(&mut ahead, *number)).count();
        // Those that there were places for, and those that it made before the signal came.
        assert!(made < 1000, "control: it is dead");
    }

    #[test]
    fn one_that_has_more_to_do_ends_with_its_owner() {
        let ahead = squares(1, 1000);
        let process = std::path::PathBuf::from(format!("/proc/{}", ahead.beside.pid()));
        assert!(process.exists(), "control: it is there, or waits to be reaped");
        drop(ahead);
        assert!(!process.exists());
    }
}
