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

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
};

use crate::{
    apply::{Notes, Outcome},
    launch::Fault,
    making,
    plan::{Action, Op, Phase, Step},
    sys::clone::{self, Holder},
};

/// A network namespace that nobody was in, loopback up, or on its way.
#[derive(Debug)]
pub struct PooledNetwork(State);

#[derive(Debug)]
enum State {
    Ready(OwnedFd),
    /// `socket` is where it arrives. The process that makes it is gone when this is dropped.
    OnItsWay {
        socket: OwnedFd,
        _maker: Holder,
    },
}

/// What a child has of one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Network {
    /// The namespace itself.
    Ready(RawFd),
    /// A socket where it arrives, or the end of what is sent if it cannot be made.
    Arrives {
        socket: RawFd,
        /// The step before which it is entered: the first that shows it, or that gives up what it takes to enter it.
        before: u32,
        /// The step before which its loopback has to be up: the first that gives up what it takes to bring it up.
        up_before: u32,
        /// The step that would make one, and whose failure it is if there is none.
        stands_for: u32,
    },
}

impl Network {
    pub(crate) fn descriptor(self) -> RawFd {
        match self {
            Self::Ready(fd) | Self::Arrives { socket: fd, .. } => fd,
        }
    }
}

impl PooledNetwork {
    /// Has one made by another process, on another processor, while the caller goes on: for a launch that is about to
    /// begin and has none. The launch waits for it where it needs it, late; if none can be made it makes its own.
    ///
    /// # Errors
    /// There can be no such process.
    pub fn begin() -> Result<Self, PoolError> {
        Self::begin_with(Fault::default())
    }

    pub(crate) fn begin_with(fault: Fault) -> Result<Self, PoolError> {
        let failed = |what| move |errno| PoolError { what, errno };
        fault.refuses("socketpair").map_err(failed("socketpair"))?;
        // Of a kind that tells who reads when nobody is left who can write.
        let (socket, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(failed("socketpair"))?;
        fault.refuses("clone3").map_err(failed("clone3"))?;
        let maker = clone::network_maker(theirs.as_raw_fd()).map_err(failed("clone3"))?;
        Ok(Self(State::OnItsWay { socket, _maker: maker }))
    }

    /// One whose maker ends without a word, as one does that is killed.
    #[cfg(test)]
    pub(crate) fn that_never_comes() -> Result<Self, PoolError> {
        let (socket, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|errno| PoolError { what: "socketpair", errno })?;
        drop(theirs);
        // No number of a descriptor: what it makes it sends nowhere.
        let maker = clone::network_maker(i32::MAX).map_err(|errno| PoolError { what: "clone3", errno })?;
        Ok(Self(State::OnItsWay { socket, _maker: maker }))
    }

    /// One whose maker ends when it has sent it, loopback down.
    #[cfg(test)]
    pub(crate) fn that_stays_down() -> Result<Self, PoolError> {
        let (socket, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|errno| PoolError { what: "socketpair", errno })?;
        let made = Self::made(&[], Fault::default())?;
        let numbers: Vec<RawFd> = made.iter().map(AsRawFd::as_raw_fd).collect();
        crate::sys::raw::send_descriptors(theirs.as_raw_fd(), &numbers)
            .map_err(|errno| PoolError { what: "sendmsg", errno })?;
        drop(theirs);
        let maker = clone::network_maker(i32::MAX).map_err(|errno| PoolError { what: "clone3", errno })?;
        Ok(Self(State::OnItsWay { socket, _maker: maker }))
    }

    /// Namespaces that nobody is in: one, after these steps.
    fn made(steps: &[Step], fault: Fault) -> Result<Vec<OwnedFd>, PoolError> {
        let (notes, outcome) = (Notes::default(), Outcome::new());
        let made = making::namespaces(&making::Wanted {
            steps,
            flags: u64::from(libc::CLONE_NEWNET.cast_unsigned()),
            names: &[c"net"],
            template: None,
            owner: None,
            notes: &notes,
            outcome: &outcome,
            fault,
        });
        made.map_err(|(what, errno)| match outcome.failure() {
            Some((_, errno)) => PoolError { what: "loopback up", errno },
            None => PoolError { what, errno },
        })
    }

    /// What a child that walks these steps has of it.
    pub(crate) fn within(&self, steps: &[Step]) -> Network {
        match &self.0 {
            State::Ready(namespace) => Network::Ready(namespace.as_raw_fd()),
            State::OnItsWay { socket, .. } => {
                let numbered = || (0_u32..).zip(steps);
                let first = |what: fn(&Step) -> bool| {
                    numbered().find(|(_, step)| what(step)).map(|(number, _)| number)
                };
                let stands_for = first(|step| matches!(step.op, Op::LoopbackUp)).unwrap_or(0);
                let before = first(needs_network).unwrap_or(stands_for);
                let up_before = first(gives_up).unwrap_or(before);
                Network::Arrives { socket: socket.as_raw_fd(), before, up_before, stands_for }
            }
        }
    }
}

/// Whether a step's process has to be in its network: sysfs shows that of who mounts it, and what comes later gives up what
/// it takes to enter another.
fn needs_network(step: &Step) -> bool {
    step.phase >= Phase::NetworkMount
}

/// Whether a step, or what comes after it, gives up what it takes to change a network.
fn gives_up(step: &Step) -> bool {
    step.phase > Phase::LandlockRules
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
        let object = "lo".to_owned();
        let up =
            Step::new(Action { phase: Phase::Network, op: Op::LoopbackUp, object, at: None, shared: false });
        let made = PooledNetwork::made(&[up], fault)?;
        self.ready.extend(made.into_iter().map(|namespace| PooledNetwork(State::Ready(namespace))));
        Ok(())
    }
}
