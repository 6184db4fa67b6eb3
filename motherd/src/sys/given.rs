//! Descriptors that others gave us.

use std::{
    mem::ManuallyDrop,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

/// A descriptor that somebody made who is not to hold motherd up. Whoever gave a socket away says how long its last close
/// waits (SO_LINGER), and so does whoever sent one into a socket where it was not received; this one is closed without
/// waiting.
#[derive(Debug)]
pub(crate) struct Given(ManuallyDrop<OwnedFd>);

impl From<OwnedFd> for Given {
    fn from(fd: OwnedFd) -> Self {
        Self(ManuallyDrop::new(fd))
    }
}

impl AsFd for Given {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        // The one close of this number, for the `OwnedFd` is never dropped.
        initldr::sys::let_go(self.0.as_raw_fd());
    }
}
