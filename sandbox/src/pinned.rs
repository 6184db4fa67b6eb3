//! [`Pinned`]: a child that shares its parent's memory begins on the parent's processor.
//!
//! While it runs its parent waits, so the kernel finds another processor idle, and puts it there: the parent's caches are of no
//! use to it, and what it changes of the memory that both have is told from processor to processor. So the parent keeps to
//! the processor that it is on for the moment of clone3, and the child takes all of them back as the first that it does.
//!
//! Invariants. What the child may run on in the end is what its parent might. Where that was not every processor that this
//! machine can ever have, nothing is changed: a set that somebody gave would be one that we gave, and a cpuset
//! that is made larger later would not make it larger.

use std::sync::OnceLock;

use nix::errno::Errno;

use crate::sys::raw;

/// NR_CPUS of x86_64 is 8,192.
const WORDS: usize = 128;

/// A set of processors.
pub(crate) type Processors = [u64; WORDS];

/// This thread keeps to the processor that it is on, until this is dropped.
#[derive(Debug)]
pub(crate) struct Pinned {
    all: &'static Processors,
}

impl Pinned {
    /// Keeps to it, where more than one was allowed and all were.
    pub(crate) fn here() -> Option<Self> {
        let all = possible()?;
        if !raw::affinity_is(all).is_ok_and(|are| are) {
            return None;
        }
        let mut one: Processors = [0; WORDS];
        let here = raw::getcpu().ok()? as usize;
        *one.get_mut(here / 64)? = 1 << (here % 64);
        // A filter around this process may have it refused; then it is as if this were not here.
        raw::sched_setaffinity(&one).ok()?;
        Some(Self { all })
    }

    /// What the child may run on again.
    pub(crate) fn all(&self) -> &'static Processors {
        self.all
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Err(errno) = raw::sched_setaffinity(self.all) {
            tracing::error!(%errno, "this process keeps to one processor");
        }
    }
}

/// Every processor that this machine can ever have, if that is more than one.
fn possible() -> Option<&'static Processors> {
    static POSSIBLE: OnceLock<Option<Processors>> = OnceLock::new();
    let read = || parse(&std::fs::read_to_string("/sys/devices/system/cpu/possible").ok()?);
    let processors = POSSIBLE.get_or_init(read).as_ref()?;
    (processors.iter().map(|word| word.count_ones()).sum::<u32>() > 1).then_some(processors)
}

/// `0-3,8`
fn parse(list: &str) -> Option<Processors> {
    let mut processors = [0; WORDS];
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        for number in first..=last {
            *processors.get_mut(number / 64)? |= 1 << (number % 64);
        }
    }
    Some(processors)
}

/// Takes all processors back, in the child.
pub(crate) fn unpin(all: &Processors) -> Result<(), Errno> {
    raw::sched_setaffinity(all)
}

#[cfg(test)]
mod tests {
    use std::{
        os::fd::{AsFd, OwnedFd},
        sync::atomic::{AtomicU32, Ordering},
    };

    use nix::{
        sys::{
            signal::kill,
            wait::{Id, WaitPidFlag, WaitStatus, waitid},
        },
        unistd::Pid,
    };

    use super::*;
    use crate::sys::clone::{Relation, Request, vfork_into, vfork_onto};

    /// Its exit status: 0 if it may run on all of these.
    fn has_all(all: &Processors) -> ! {
        raw::exit_group(i32::from(!raw::affinity_is(all).is_ok_and(|are| are)))
    }

    fn child(make: impl FnOnce(&Request<'_>) -> Result<OwnedFd, Errno>) -> (Result<WaitStatus, Errno>, Pid) {
        let pid = AtomicU32::new(0);
        let request = Request {
            namespaces: 0,
            cgroup: None,
            relation: Relation::Caller,
            pid_cell: &pid,
            shares_descriptors: false,
        };
        let made = make(&request);
        let ended = made.and_then(|child| waitid(Id::PIDFd(child.as_fd()), WaitPidFlag::WEXITED));
        (ended, Pid::from_raw(pid.load(Ordering::Acquire).cast_signed()))
    }

    #[test]
    fn a_list_of_processors_is_a_set() {
        let bits = |list| parse(list).map(|set| [set[0], set[1], set[127]]);
        assert_eq!(bits("0\n"), Some([1, 0, 0]));
        assert_eq!(bits("0-1,63-64,8191\n"), Some([3 | 1 << 63, 1, 1 << 63]));
        for odd in ["", "0-", "a", "0-8192", "1;2"] {
            assert_eq!(bits(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_thread_keeps_to_one_processor_until_it_is_let_go() {
        let whole = |set: &Processors| raw::affinity_is(set).unwrap();
        let Some(pinned) = Pinned::here() else {
            println!("SKIPPED, 1: it needs two processors, all of them allowed");
            return;
        };
        let all = pinned.all();
        assert!(!whole(all), "control: it is pinned");
        let (ended, pid) = child(|request| vfork_onto(request, all, has_all, None));
        assert_eq!(ended, Ok(WaitStatus::Exited(pid, 1)), "control: so is a child that takes nothing back");
        let (ended, pid) = child(|request| vfork_onto(request, all, has_all, Some(all)));
        assert_eq!(ended, Ok(WaitStatus::Exited(pid, 0)));
        let (ended, pid) = child(|request| vfork_onto(request, all, has_all, Some(&[0; WORDS])));
        assert_eq!(ended, Err(Errno::EINVAL), "one that cannot does not go on");
        assert_eq!(kill(pid, None), Err(Errno::ESRCH), "and was reaped");
        assert!(Pinned::here().is_none(), "who has not all of them changes nothing");
        assert!(!whole(all));
        drop(pinned);
        assert!(whole(all));
        let (ended, pid) = child(|request| vfork_into(request, all, has_all));
        assert_eq!(ended, Ok(WaitStatus::Exited(pid, 0)));
        assert!(whole(all), "its parent may run everywhere again");
    }
}
