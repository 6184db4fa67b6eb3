//! Sockets in another process's network.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::{
        socket::{AddressFamily, SockFlag, SockType, socket},
        stat::Mode,
    },
};

/// A stream socket in the network of the process that this pidfd holds; this thread is where it was before it returns.
pub(crate) fn socket_beside(process: BorrowedFd<'_>, family: AddressFamily) -> Result<OwnedFd, Errno> {
    let own = open("/proc/thread-self/ns/net", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    setns(process.as_raw_fd())?;
    let made = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None);
    // Whatever this process did from here on it would do there, so it does not go on where that fails; for what is its own
    // already and open, the kernel has no reason but a lack of memory.
    setns(own.as_raw_fd()).expect("its own network is open to it");
    made
}

fn setns(fd: i32) -> Result<(), Errno> {
    // SAFETY: integers alone.
    Errno::result(unsafe { libc::setns(fd, libc::CLONE_NEWNET) }).map(drop)
}
