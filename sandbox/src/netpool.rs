//! [`NetworkPool`]: network namespaces made ahead of launches.
//!
//! Making one is the largest part of a launch. So a launcher keeps a few, each with its loopback up as a launch would have
//! it, and makes more when it has nothing else to do: the pool does not run by itself.
//!
//! Invariant: a namespace leaves the pool once and never comes back; nobody was in it before.

use std::{
    collections::VecDeque,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use nix::errno::Errno;

use crate::{
    apply::{Notes, Outcome},
    launch::Fault,
    making,
    plan::{Action, Op, Phase, Step},
};

/// A network namespace that nobody was in, loopback up.
#[derive(Debug)]
pub struct PooledNetwork {
    namespace: OwnedFd,
}

impl PooledNetwork {
    pub(crate) fn namespace(&self) -> RawFd {
        self.namespace.as_raw_fd()
    }
}

/// Why a namespace could not be made.
#[derive(Debug, thiserror::Error)]
#[error("network namespace for the pool: {what}: {errno}")]
pub struct PoolError {
    what: &'static str,
    errno: Errno,
}

/// Some of them.
#[derive(Debug)]
pub struct NetworkPool {
    ready: VecDeque<PooledNetwork>,
    size: usize,
}

impl NetworkPool {
    /// An empty one that shall have `size`.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self { ready: VecDeque::with_capacity(size), size }
    }

    /// One, if there is one.
    pub fn take(&mut self) -> Option<PooledNetwork> {
        self.ready.pop_front()
    }

    /// Whether [`NetworkPool::add`] would be of use.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.ready.len() < self.size
    }

    /// Makes one.
    ///
    /// # Errors
    /// The kernel makes none; then the pool stays as it was, and launches make theirs.
    pub fn add(&mut self) -> Result<(), PoolError> {
        self.add_with(Fault::default())
    }

    pub(crate) fn add_with(&mut self, fault: Fault) -> Result<(), PoolError> {
        let (notes, outcome) = (Notes::default(), Outcome::new());
        let object = "lo".to_owned();
        let up =
            Step::new(Action { phase: Phase::Network, op: Op::LoopbackUp, object, at: None, shared: false });
        let made = making::namespaces(&making::Wanted {
            steps: &[up],
            flags: u64::from(libc::CLONE_NEWNET.cast_unsigned()),
            names: &[c"net"],
            template: None,
            notes: &notes,
            outcome: &outcome,
            fault,
        });
        let made = made.map_err(|(what, errno)| match outcome.failure() {
            Some((_, errno)) => PoolError { what: "loopback up", errno },
            None => PoolError { what, errno },
        })?;
        self.ready.extend(made.into_iter().map(|namespace| PooledNetwork { namespace }));
        Ok(())
    }
}
