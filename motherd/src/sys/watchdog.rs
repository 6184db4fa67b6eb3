//! ioctl(2) of a watchdog (linux/watchdog.h).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// `_IOWR('W', 6, int)`; libc does not have it.
const WDIOC_SETTIMEOUT: libc::c_ulong = 0xc004_5706;

/// Sets after how many seconds it resets the machine, and returns what it made of that.
pub(crate) fn set_timeout(device: BorrowedFd<'_>, seconds: i32) -> Result<i32, Errno> {
    let mut seconds: libc::c_int = seconds;
    // SAFETY: this request reads and writes one `int` at the address; a device that is no watchdog refuses it.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), WDIOC_SETTIMEOUT, &raw mut seconds) })?;
    Ok(seconds)
}
