//! The boundary: every unsafe line of this crate. Functions are named after the system call, take borrowed and typed
//! arguments, return `Result<_, Errno>`, and contain no policy.
//!
//! Invariant: nothing below [`raw`] allocates, locks, touches thread-local storage (so no `errno`) or calls into the C
//! library, because the child between clone3 and execve shares the parent's memory and runs only these. [`bpf`] is the parent's.

pub(crate) mod ahead;
pub(crate) mod bpf;
pub(crate) mod clone;
pub(crate) mod parked;
pub(crate) mod raw;

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Takes ownership of a descriptor that a call of nix has just made and returned as a number.
pub(crate) fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: every caller passes what fcntl(F_DUPFD_CLOEXEC) answered in the same expression: a new descriptor that
    // nobody else knows of, so this is its only owner.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
