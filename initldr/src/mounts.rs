//! The file systems without which nothing else works, as a table; and how to read a path in a table of the kernel.

use crate::abi::{MS_NODEV, MS_NOEXEC, MS_NOSUID};
use core::ffi::CStr;

/// One early mount: the file system, where it goes (made if it is missing), MS_* flags, options; where the kernel refuses
/// the options it is mounted without.
pub type Mount = (&'static CStr, &'static CStr, usize, Option<&'static CStr>);

/// Programs are never run from here, and no file is a device.
const INERT: usize = MS_NOSUID | MS_NODEV | MS_NOEXEC;

/// In this order: /sys/fs/cgroup is in /sys. Each is mounted only where nothing is.
pub const EARLY: [Mount; 5] = [
    (c"proc", c"/proc", INERT, None),
    (c"sysfs", c"/sys", INERT, None),
    (c"devtmpfs", c"/dev", MS_NOSUID | MS_NOEXEC, Some(c"mode=0755")),
    // Not noexec: executables are put below /run, to return to at shutdown.
    (c"tmpfs", c"/run", MS_NOSUID | MS_NODEV, Some(c"mode=0755")),
    // nsdelegate: a cgroup namespace is a delegation boundary. memory_recursiveprot: memory.low of a slice protects
    // what is in its services (Linux 5.7).
    (c"cgroup2", c"/sys/fs/cgroup", INERT, Some(c"nsdelegate,memory_recursiveprot")),
];

/// The longest path that is unmounted at the end; the kernel's own limit.
pub const PATH_SIZE: usize = 4096;

/// A path as the tables of the kernel have it, with `\040` and the like undone, in `path`; `None` where it does not fit.
pub fn unescaped<'a>(mut field: &[u8], path: &'a mut [u8; PATH_SIZE]) -> Option<&'a CStr> {
    let mut length = 0;
    while let [first, plain @ ..] = field {
        (*path.get_mut(length)?, field) = match field {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..] => {
                (((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'), rest)
            }
            _ => (*first, plain),
        };
        length += 1;
    }
    *path.get_mut(length)? = 0;
    CStr::from_bytes_with_nul(path.get(..=length)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_comes_after_the_one_it_lies_in() {
        let targets: Vec<_> = EARLY.iter().map(|mount| mount.1.to_str().expect("UTF-8")).collect();
        assert_eq!(targets, ["/proc", "/sys", "/dev", "/run", "/sys/fs/cgroup"]);
    }
}
