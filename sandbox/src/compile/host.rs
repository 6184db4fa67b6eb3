//! What compiling asks of the host besides its kernel: which paths are there, and who users and groups are.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use crate::policy::DeviceKind;

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// Anything else.
    Other,
}

/// A host, real or described.
pub trait Host {
    /// What is at an absolute path, symbolic links followed.
    ///
    /// # Errors
    /// What stat(2) says; a path that is not there is `NotFound`.
    fn kind(&self, path: &str) -> io::Result<FileKind>;
    /// Where a symbolic link leads; `None` for what is none or cannot be asked.
    fn link(&self, path: &str) -> Option<String> {
        let _: &str = path;
        None
    }
    /// The uid and primary gid of a user of passwd(5).
    ///
    /// # Errors
    /// The file cannot be read.
    fn user(&self, name: &str) -> io::Result<Option<(u32, u32)>>;
    /// The primary gid of a uid, where passwd(5) has it.
    ///
    /// # Errors
    /// The file cannot be read.
    fn primary_group(&self, uid: u32) -> io::Result<Option<u32>>;
    /// Kind, major and minor number of a device node; `None` where something else is there.
    ///
    /// # Errors
    /// What stat(2) says; a path that is not there is `NotFound`.
    fn device(&self, path: &str) -> io::Result<Option<(DeviceKind, u32, u32)>>;
    /// The major numbers of a driver of `/proc/devices`; none where no driver has this name.
    ///
    /// # Errors
    /// The file cannot be read.
    fn majors(&self, kind: DeviceKind, driver: &str) -> io::Result<Vec<u32>>;
    /// The gid of a group of group(5).
    ///
    /// # Errors
    /// The file cannot be read.
    fn group(&self, name: &str) -> io::Result<Option<u32>>;
}

/// This host, or what lies below a prefix of it.
///
/// passwd(5) and group(5) are read here and not by getpwnam(3), which knows no prefix and may load NSS modules into the
/// service manager.
#[derive(Debug)]
pub struct RealHost {
    root: PathBuf,
}

impl RealHost {
    /// The host below `root`; `/` for the whole.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The first line of a colon-separated file whose field `key` is `wanted`, as fields.
    fn line(&self, file: &str, key: usize, wanted: &str) -> io::Result<Option<Vec<String>>> {
        let text = fs::read_to_string(self.root.join(file))?;
        let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
        Ok(text.lines().map(fields).find(|fields| fields.get(key).is_some_and(|field| field == wanted)))
    }
}

/// Two tables, each under a title: `Character devices:` and `Block devices:`, with lines such as `136 pts`.
fn majors(devices: &str, kind: DeviceKind, driver: &str) -> Vec<u32> {
    let title = match kind {
        DeviceKind::Char => "Character devices:",
        DeviceKind::Block => "Block devices:",
    };
    let lines = devices.lines().skip_while(|line| *line != title).skip(1).take_while(|line| !line.is_empty());
    lines
        .filter_map(|line| line.trim_start().split_once(' '))
        .filter_map(|(major, name)| major.parse().ok().filter(|_| name == driver))
        .collect()
}

fn number(fields: &[String], index: usize) -> Option<u32> {
    fields.get(index)?.parse().ok()
}

impl Host for RealHost {
    fn kind(&self, path: &str) -> io::Result<FileKind> {
        let status = fs::metadata(path)?;
        Ok(if status.is_dir() { FileKind::Directory } else { FileKind::Other })
    }

    fn link(&self, path: &str) -> Option<String> {
        fs::read_link(path).map(|target| target.to_string_lossy().into_owned()).ok()
    }

    fn user(&self, name: &str) -> io::Result<Option<(u32, u32)>> {
        let fields = self.line("etc/passwd", 0, name)?;
        Ok(fields.and_then(|fields| Some((number(&fields, 2)?, number(&fields, 3)?))))
    }

    fn primary_group(&self, uid: u32) -> io::Result<Option<u32>> {
        let fields = self.line("etc/passwd", 2, &uid.to_string())?;
        Ok(fields.and_then(|fields| number(&fields, 3)))
    }

    fn device(&self, path: &str) -> io::Result<Option<(DeviceKind, u32, u32)>> {
        let status = fs::metadata(path)?;
        let kind = match status.file_type() {
            kind if kind.is_block_device() => DeviceKind::Block,
            kind if kind.is_char_device() => DeviceKind::Char,
            _ => return Ok(None),
        };
        let number = |part: u64| u32::try_from(part).ok();
        let device = status.rdev();
        let numbers = number(nix::sys::stat::major(device)).zip(number(nix::sys::stat::minor(device)));
        Ok(numbers.map(|(major, minor)| (kind, major, minor)))
    }

    fn majors(&self, kind: DeviceKind, driver: &str) -> io::Result<Vec<u32>> {
        Ok(majors(&fs::read_to_string("/proc/devices")?, kind, driver))
    }

    fn group(&self, name: &str) -> io::Result<Option<u32>> {
        let fields = self.line("etc/group", 0, name)?;
        Ok(fields.and_then(|fields| number(&fields, 2)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_has_the_majors_of_its_kind() {
        let devices = "Character devices:\n  1 mem\n  4 tty\n  4 ttyS\n136 pts\n\nBlock devices:\n  8 sd\n 65 sd\n  1 mem\n";
        assert_eq!(majors(devices, DeviceKind::Char, "mem"), [1]);
        assert_eq!(majors(devices, DeviceKind::Char, "tty"), [4]);
        assert_eq!(majors(devices, DeviceKind::Block, "sd"), [8, 65]);
        assert_eq!(majors(devices, DeviceKind::Char, "sd"), [0_u32; 0]);
    }
}
