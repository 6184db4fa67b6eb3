//! A writer of cpio archives in the `newc` format, which the kernel unpacks as an initramfs
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};

const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// One thing in the archive.
#[derive(Debug)]
struct Entry {
    /// Type and permission bits.
    mode: u32,
    /// Owner: user and group.
    owner: (u32, u32),
    /// Contents, or a link's target.
    data: Vec<u8>,
    /// Major and minor number of a device.
    device: (u32, u32),
}

/// An archive in the making. Everything is root's unless it says otherwise, and parents are made as needed.
#[derive(Debug, Default)]
pub struct Archive {
    /// By path without the leading `/`: sorted, so that parents come before what is in them.
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// A directory.
    pub fn directory(&mut self, path: &str, permissions: u32) -> Result<()> {
        self.add(path, DIRECTORY | permissions, Vec::new(), (0, 0))
    }

    /// A regular file.
    pub fn file(&mut self, path: &str, permissions: u32, data: impl Into<Vec<u8>>) -> Result<()> {
        self.add(path, REGULAR | permissions, data.into(), (0, 0))
    }

    /// A copy of a file of this machine, links followed.
    pub fn copy(&mut self, from: &Path, to: &str, permissions: u32) -> Result<()> {
        let data = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(to, permissions, data)
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.add(path, LINK | 0o777, target.as_bytes().to_vec(), (0, 0))
    }

    /// A character device.
    pub fn device(&mut self, path: &str, permissions: u32, major: u32, minor: u32) -> Result<()> {
        self.add(path, CHARACTER_DEVICE | permissions, Vec::new(), (major, minor))
    }

    /// Gives something that was added to a user and a group.
    pub fn give(&mut self, path: &str, user: u32, group: u32) -> Result<()> {
        let entry = self.entries.get_mut(relative(path)?).with_context(|| format!("{path} is not there"))?;
        entry.owner = (user, group);
        Ok(())
    }

    /// Whether something is at `path`.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        relative(path).is_ok_and(|path| self.entries.contains_key(path))
    }

    fn add(&mut self, path: &str, mode: u32, data: Vec<u8>, device: (u32, u32)) -> Result<()> {
        let path = relative(path)?;
        for (slash, _) in path.match_indices('/') {
            let parent = &path[..slash];
            let made = self
                .entries
                .entry(parent.to_owned())
                .or_insert_with(|| Entry::new(DIRECTORY | 0o755, Vec::new()));
            ensure!(
                made.mode & DIRECTORY != 0 && made.mode & LINK != LINK,
                "/{parent} is no directory, for /{path}"
            );
        }
        self.entries.insert(path.to_owned(), Entry { device, ..Entry::new(mode, data) });
        Ok(())
    }

    /// The archive's bytes.
    pub fn finish(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        // The root itself, which the kernel would leave writable by everybody.
        Entry::new(DIRECTORY | 0o755, Vec::new()).write(&mut out, 0, ".")?;
        for (number, (path, entry)) in (1..).zip(&self.entries) {
            entry.write(&mut out, number, path)?;
        }
        Entry::new(0, Vec::new()).write(&mut out, 0, "TRAILER!!!")?;
        Ok(out)
    }
}

impl Entry {
    fn new(mode: u32, data: Vec<u8>) -> Self {
        Self { mode, owner: (0, 0), data, device: (0, 0) }
    }

    /// A header of 13 numbers in hexadecimal after the magic, the path, the data; both padded to four bytes.
    fn write(&self, out: &mut Vec<u8>, number: u32, path: &str) -> Result<()> {
        let size =
            u32::try_from(self.data.len()).with_context(|| format!("/{path} is too large for cpio"))?;
        let name_size = u32::try_from(path.len() + 1)?;
        let links = if self.mode & DIRECTORY != 0 { 2 } else { 1 };
        let fields = [
            number,
            self.mode,
            self.owner.0,
            self.owner.1,
            links,
            0, // modification time: the same image has the same bytes
            size,
            0, // device that the file is on
            0,
            self.device.0,
            self.device.1,
            name_size,
            0, // check, unused in this format
        ];
        out.extend_from_slice(b"070701");
        for field in fields {
            out.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        out.extend_from_slice(path.as_bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend_from_slice(&self.data);
        out.resize(out.len().next_multiple_of(4), 0);
        Ok(())
    }
}

/// A path without its leading slash.
fn relative(path: &str) -> Result<&str> {
    let stripped = path.strip_prefix('/').with_context(|| format!("{path} is not absolute"))?;
    ensure!(
        stripped.split('/').all(|part| !part.is_empty() && part != "." && part != ".."),
        "{path} is not a plain path"
    );
    Ok(stripped)
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn parents_are_made_and_come_first() {
        let mut archive = Archive::default();
        archive.file("/etc/motherd/x", 0o644, "text").unwrap();
        let bytes = String::from_utf8_lossy(&archive.finish().unwrap()).into_owned();
        let at = |name: &str| bytes.find(name).unwrap();
        assert!(at("etc\0") < at("etc/motherd\0") && at("etc/motherd\0") < at("etc/motherd/x\0"), "{bytes}");
        assert!(bytes.contains("TRAILER!!!"), "{bytes}");
    }

    #[test]
    fn headers_and_data_start_at_multiples_of_four() {
        let mut archive = Archive::default();
        archive.file("/a", 0o644, "12345").unwrap();
        archive.file("/b", 0o644, "").unwrap();
        let bytes = archive.finish().unwrap();
        let starts: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(b"070701")).collect();
        assert_eq!(starts.len(), 4, "the root, two files and the end");
        assert!(starts.iter().all(|at| at % 4 == 0), "{starts:?}");
    }

    #[test]
    fn a_file_is_not_a_directory() {
        let mut archive = Archive::default();
        archive.file("/etc", 0o644, "").unwrap();
        assert!(archive.file("/etc/passwd", 0o644, "").is_err());
        assert!(archive.file("/a/../b", 0o644, "").is_err());
        assert!(archive.file("relative", 0o644, "").is_err());
    }
}
