//! The kernel's random numbers (random(4)).

use std::{fs::File, os::fd::AsRawFd};

use nix::errno::Errno;

/// `RNDADDENTROPY`, `_IOW('R', 0x03, int [2])` of linux/random.h.
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
/// What one call takes here.
const MOST: usize = 64;

/// `struct rand_pool_info` with room for a seed.
#[repr(C)]
struct PoolInfo {
    /// In bits.
    entropy_count: libc::c_int,
    /// In bytes.
    buf_size: libc::c_int,
    buf: [u8; MOST],
}

/// Mixes in a seed of up to 64 bytes and counts all of its bits as random. EINVAL where it is longer; EPERM without
/// CAP_SYS_ADMIN.
pub(crate) fn credit(device: &File, seed: &[u8]) -> Result<(), Errno> {
    let mut info = PoolInfo { entropy_count: 0, buf_size: 0, buf: [0; MOST] };
    info.buf.get_mut(..seed.len()).ok_or(Errno::EINVAL)?.copy_from_slice(seed);
    let size = libc::c_int::try_from(seed.len()).map_err(|_| Errno::EINVAL)?;
    (info.entropy_count, info.buf_size) = (size * 8, size);
    // SAFETY: the call reads a `rand_pool_info` and as many bytes of it as `buf_size` says, all of which are in `info`,
    // which lives until it returns.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY, &raw const info) };
    Errno::result(done).map(drop)
}
