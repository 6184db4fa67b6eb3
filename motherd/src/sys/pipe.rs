//! Pipes looked into.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// tee(2), without waiting: copies up to `length` bytes from one pipe into another, and takes none of them away. 0: there is
/// nothing, and nobody who could write.
pub(crate) fn tee(from: BorrowedFd<'_>, into: BorrowedFd<'_>, length: usize) -> Result<usize, Errno> {
    // SAFETY: both descriptors are open for as long as they are borrowed, and no memory of ours is passed: the kernel copies
    // from pipe to pipe.
    let copied = unsafe { libc::tee(from.as_raw_fd(), into.as_raw_fd(), length, libc::SPLICE_F_NONBLOCK) };
    Errno::result(copied).map(|copied| usize::try_from(copied).unwrap_or_default())
}
