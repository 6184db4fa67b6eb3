//! What the end of a machine reads of its disks in the kernel's tables, and how long it waits for them.

use crate::{abi::MappedDevice, mounts::PATH_SIZE, mounts::unescaped};
use core::{ffi::CStr, time::Duration};

/// So often it is looked how much is still to be written.
pub const LOOK: Duration = Duration::from_secs(10);
/// So many looks in a row that find no less of it, and nobody waits any longer.
const STALLS: u32 = 2;
/// So many looks at most: ten minutes.
const LOOKS: u32 = 60;

/// A block device that stands on something else.
#[derive(Debug, PartialEq, Eq)]
pub enum Device<'a> {
    /// A loop device: its name in /dev.
    Loop(&'a CStr),
    /// A device of the device mapper: its number, as `new_encode_dev` of linux/kdev_t.h has it.
    Mapped(u32),
}

/// The device that a line of /proc/partitions tells of, where it is one of those; a partition of one is not.
pub fn device<'a>(line: &[u8], name: &'a mut [u8; PATH_SIZE]) -> Option<Device<'a>> {
    let mut fields = line.split(|&byte| byte == b' ').filter(|field| !field.is_empty());
    let [major, minor, _, field] = [fields.next()?, fields.next()?, fields.next()?, fields.next()?];
    let numbered = |prefix: &[u8]| field.strip_prefix(prefix).and_then(number).is_some();
    if numbered(b"loop") {
        return unescaped(field, name).map(Device::Loop);
    }
    let (major, minor) = (number(major)?, number(minor)?);
    numbered(b"dm-").then_some(Device::Mapped((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)))
}

/// The mount point that a line of /proc/self/mounts tells of: its second field. `None` where it does not fit, or is one that
/// the end does not touch: what the kernel serves from memory holds no data, and the end still needs /proc.
pub fn to_unmount<'a>(line: &[u8], path: &'a mut [u8; PATH_SIZE]) -> Option<&'a CStr> {
    let field = line.split(|&byte| byte == b' ').nth(1)?;
    let below = |kept: &[u8]| field.strip_prefix(kept).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
    (field.starts_with(b"/") && !below(b"/proc") && !below(b"/sys") && !below(b"/dev")).then_some(())?;
    unescaped(field, path)
}

/// What has a mapped device removed.
pub fn removal(device: u32) -> MappedDevice {
    let mut request = [0; _];
    (request[0], request[3], request[10]) = (4, 312, device); // any version 4 will do; its own size
    request
}

/// How many KiB a line of /proc/meminfo adds to what is not on the disks yet.
pub fn unwritten(line: &[u8]) -> u32 {
    let rest = line.strip_prefix(b"Dirty:").or_else(|| line.strip_prefix(b"Writeback:"));
    let digits = rest.and_then(|rest| rest.split(|&byte| byte == b' ').find(|field| !field.is_empty()));
    digits.and_then(number).unwrap_or_default()
}

fn number(digits: &[u8]) -> Option<u32> {
    core::str::from_utf8(digits).ok()?.parse().ok()
}

/// Waits as long as there is less and less to be written.
#[derive(Debug)]
pub struct Patience {
    least: u32,
    stalls: u32,
    looks: u32,
}

impl Patience {
    /// At the beginning, with so much to be written.
    pub fn new(unwritten: u32) -> Patience {
        Patience { least: unwritten, stalls: 0, looks: 0 }
    }

    /// Whether it is worth waiting on, after another [`LOOK`] found so much.
    pub fn goes_on(&mut self, unwritten: u32) -> bool {
        self.stalls = if unwritten < self.least { 0 } else { self.stalls + 1 };
        self.least = self.least.min(unwritten);
        self.looks += 1;
        self.stalls < STALLS && self.looks < LOOKS
    }
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
    fn loop_and_mapped_devices_are_found_among_the_others() {
        let check = |line: &str, expected: Option<Device<'_>>| {
            assert_eq!(device(line.as_bytes(), &mut [0; PATH_SIZE]), expected, "{line}");
        };
        check("   7        0      10240 loop0", Some(Device::Loop(c"loop0")));
        check("   7      259      10240 loop259", Some(Device::Loop(c"loop259")));
        for other in [
            "major minor  #blocks  name",
            "",
            " 254 0 8 vda",
            " 259 1 8 loop0p1",
            " 254 0 8 dm-",
            " x y 8 dm-1",
        ] {
            check(other, None);
        }
        check(" 253        2      10240 dm-2", Some(Device::Mapped(253 << 8 | 2)));
        check(" 253 300 10240 dm-300", Some(Device::Mapped(0x0010_fd2c)));
        let size = u32::try_from(size_of::<MappedDevice>()).expect("small");
        assert_eq!((removal(7)[3], removal(7)[10]), (size, 7));
    }

    #[test]
    fn what_is_not_on_the_disks_is_what_is_dirty_and_under_way() {
        let lines = [
            "MemTotal:  500 kB",
            "Dirty:              1208 kB",
            "Writeback:            64 kB",
            "WritebackTmp:  7 kB",
            "",
        ];
        assert_eq!(lines.map(|line| unwritten(line.as_bytes())), [0, 1208, 64, 0, 0]);
    }

    #[test]
    fn it_is_waited_as_long_as_it_becomes_less() {
        let looks = |left: &mut dyn FnMut(u32) -> u32| {
            let mut patience = Patience::new(1 << 20);
            (1..).find(|&look| !patience.goes_on(left(look))).expect("bounded")
        };
        assert_eq!(looks(&mut |look| (1 << 20) - look), LOOKS, "but not for ever");
        assert_eq!(looks(&mut |_| 1 << 20), STALLS);
        assert_eq!(looks(&mut |look| if look < 7 { 1000 - look } else { 1000 }), 8, "from where it stops");
        assert_eq!(looks(&mut |look| 1000 - look / 2), LOOKS, "one look without progress is none too many");
        assert_eq!(looks(&mut |look| 2000 + look % 2), 4, "what comes anew is no progress");
    }
}
