//! [`Timings`]: where the time of a launch goes, by call of the parent and by step of the child.
//!
//! The child reads the processor's counter after each step, which takes a few nanoseconds and no system call; whoever
//! measures one whole launch by a clock as well can turn counts into time.

use std::{
    cell::RefCell,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{plan::Step, sys::raw};

/// Steps beyond these are not timed. The longest shipped plan has some 150.
const STEPS: usize = 512;

/// One launch, as it is measured.
#[derive(Debug)]
pub struct Timings {
    started: u64,
    marks: RefCell<Vec<(String, u64)>>,
    born: AtomicU64,
    steps: Box<[AtomicU64]>,
}

/// A part of a launch, and how long it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timed {
    /// `child: seccomp 308 calls, 111 instructions`
    pub what: String,
    /// Of the processor's counter.
    pub ticks: u64,
}

impl Timings {
    /// The time begins to run.
    #[must_use]
    pub fn start() -> Self {
        let steps = std::iter::repeat_with(AtomicU64::default).take(STEPS).collect();
        Self { started: raw::counter(), marks: RefCell::default(), born: AtomicU64::new(0), steps }
    }

    /// Something of the caller's is done.
    pub fn mark(&self, what: &str) {
        self.marks.borrow_mut().push((what.to_owned(), raw::counter()));
    }

    /// The child's first instruction.
    pub(crate) fn born(&self) {
        self.born.store(raw::counter(), Ordering::Relaxed);
    }

    /// The child has done a step.
    pub(crate) fn stepped(&self, number: u32) {
        if let Some(at) = usize::try_from(number).ok().and_then(|number| self.steps.get(number)) {
            at.store(raw::counter(), Ordering::Relaxed);
        }
    }

    /// The steps of the child become marks; what is after them is execve.
    pub(crate) fn stepped_through(&self, steps: &[Step]) {
        let born = self.born.load(Ordering::Relaxed);
        let mut marks = self.marks.borrow_mut();
        marks.push(("clone3".to_owned(), born));
        for (step, at) in steps.iter().zip(&self.steps) {
            marks.push((format!("child: {} {}", step.op.name(), step.object), at.load(Ordering::Relaxed)));
        }
    }

    /// Every part in order. What was not reached has no time.
    #[must_use]
    pub fn parts(&self) -> Vec<Timed> {
        let mut before = self.started;
        let mut parts = Vec::new();
        for (what, at) in self.marks.borrow().iter() {
            parts.push(Timed { what: what.clone(), ticks: at.saturating_sub(before) });
            before = before.max(*at);
        }
        parts
    }
}
