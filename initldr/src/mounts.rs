//! The file systems without which nothing else works, as a table; and how to read the list of those that are mounted.

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

/// The mount point that a line of /proc/self/mounts tells of: its second field. `None` where it does not fit, or is one that
/// the end does not touch: what the kernel serves from memory holds no data, and the end still needs /proc.
pub fn to_unmount<'a>(line: &[u8], path: &'a mut [u8; PATH_SIZE]) -> Option<&'a CStr> {
    let field = line.split(|&byte| byte == b' ').nth(1)?;
    let below = |kept: &[u8]| field.strip_prefix(kept).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
    (field.starts_with(b"/") && !below(b"/proc") && !below(b"/sys") && !below(b"/dev")).then_some(())?;
    unescaped(field, path)
}

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

    fn check(line: &str) -> Option<String> {
        to_unmount(line.as_bytes(), &mut [0; PATH_SIZE]).map(|path| path.to_str().expect("UTF-8").to_owned())
    }

    #[test]
    fn a_mount_point_is_read_with_its_escapes_undone() {
        assert_eq!(check("/dev/vda1 /srv/data ext4 rw 0 0").as_deref(), Some("/srv/data"));
        assert_eq!(check(r"tmpfs /a\040b\134c\011 tmpfs rw 0 0").as_deref(), Some("/a b\\c\t"));
        assert_eq!(check(r"x /a\9 y").as_deref(), Some(r"/a\9"), "not an escape");
        assert_eq!(check("/dev/root / ext4 rw 0 0").as_deref(), Some("/"));
    }

    #[test]
    fn what_the_end_still_needs_is_left_alone() {
        for path in ["/proc", "/proc/sys/fs/binfmt_misc", "/sys/fs/cgroup", "/dev", "/dev/shm"] {
            assert_eq!(check(&format!("x {path} y rw 0 0")), None, "{path}");
        }
        assert_eq!(check("x /devices y").as_deref(), Some("/devices"));
    }

    #[test]
    fn a_line_that_is_none_is_passed_over() {
        assert_eq!(check(""), None);
        assert_eq!(check("one"), None);
        assert_eq!(check("the rest of an overlong line"), None);
        assert_eq!(check(&format!("x /{} y", "a".repeat(PATH_SIZE))), None);
        assert_eq!(check(r"x /a\000b y"), None, "a NUL is in no path");
    }

    #[test]
    fn a_mount_comes_after_the_one_it_lies_in() {
        let targets: Vec<_> = EARLY.iter().map(|mount| mount.1.to_str().expect("UTF-8")).collect();
        assert_eq!(targets, ["/proc", "/sys", "/dev", "/run", "/sys/fs/cgroup"]);
    }
}
