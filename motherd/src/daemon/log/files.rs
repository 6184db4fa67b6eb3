//! The files of one log: `current`, and three that were it before.
//!
//! Invariant: together they are never longer than `log.keep`, and each begins at the beginning of a line.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

use sandbox::descriptors::far_up;

use super::lines::{STAMP, Text};

/// Newest first.
pub(crate) const NAMES: [&str; 4] = ["current", "1", "2", "3"];
/// A longer line is broken, where the files are not so small that it is broken sooner.
const LINE_MAX: u64 = 48 << 10;

/// Where the files of one log are, and what they may be.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) folder: PathBuf,
    /// All of them together.
    pub(crate) keep_bytes: u64,
    /// Who may read them beside root.
    pub(crate) readers: Option<u32>,
}

/// `current`, open.
#[derive(Debug)]
pub(crate) struct Current {
    file: File,
    pub(crate) inode: u64,
    pub(crate) size: u64,
}

impl Files {
    fn each(&self) -> u64 {
        self.keep_bytes / NAMES.len() as u64
    }

    /// What a line may have at most: a quarter of a file, so that there are always some.
    pub(crate) fn longest_line(&self) -> usize {
        usize::try_from(LINE_MAX.min(self.each() / 4)).unwrap_or(usize::MAX)
    }

    /// A line begins in a file no longer than this: whatever becomes of it, it ends within the file's share.
    fn enough(&self) -> u64 {
        self.each() - self.longest_line() as u64 - STAMP as u64 - 2
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// `current`, made where there is none. One that ends within a line gets its end.
    pub(crate) fn open(&self) -> io::Result<Current> {
        if !self.folder.is_dir() {
            DirBuilder::new().recursive(true).mode(0o750).create(&self.folder)?;
            self.give(&File::open(&self.folder)?)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).custom_flags(libc::O_NOFOLLOW).mode(0o640);
        let file = match options.open(self.path("current")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = options.create_new(true).open(self.path("current"))?;
                self.give(&file)?;
                file
            }
            opened => opened?,
        };
        let file = File::from(far_up(file.into()));
        let metadata = file.metadata()?;
        Ok(Current { file, inode: metadata.ino(), size: metadata.len() })
    }

    /// To those who may read.
    fn give(&self, file: &File) -> io::Result<()> {
        self.readers.map_or(Ok(()), |group| fchown(file, None, Some(group)))
    }

    /// Writes it all, into as many files as it takes.
    pub(crate) fn append(&self, current: &mut Current, text: &Text) -> io::Result<()> {
        let mut from = 0;
        for (number, start) in text.starts.iter().enumerate() {
            let end = text.starts.get(number + 1).copied().unwrap_or(text.bytes.len());
            let before = current.size + (start - from) as u64;
            if before > 0 && before + (end - start) as u64 > self.enough() {
                current.write(&text.bytes[from..*start])?;
                from = *start;
                self.rotate()?;
                *current = self.open()?;
            }
        }
        current.write(&text.bytes[from..])
    }

    /// `2` becomes `3`, `1` becomes `2`, `current` becomes `1`.
    fn rotate(&self) -> io::Result<()> {
        for pair in NAMES.windows(2).rev() {
            rename(&self.path(pair[0]), &self.path(pair[1]))?;
        }
        Ok(())
    }

    /// Makes the file of that inode `current` again, as long as it was: what came after that is written anew.
    pub(crate) fn undo(&self, inode: u64, size: u64) -> io::Result<()> {
        let is_it = |name: &&str| fs::metadata(self.path(name)).is_ok_and(|file| file.ino() == inode);
        let Some(at) = NAMES.iter().position(is_it) else { return Ok(()) };
        for name in &NAMES[..at] {
            fs::remove_file(self.path(name))?;
        }
        for (number, name) in NAMES[at..].iter().enumerate() {
            rename(&self.path(name), &self.path(NAMES[number]))?;
        }
        let file =
            OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(self.path("current"))?;
        if file.metadata()?.len() > size { file.set_len(size) } else { Ok(()) }
    }
}

impl Current {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Whether somebody has removed it: what is written to it then is nowhere to be read.
    pub(crate) fn is_gone(&self) -> bool {
        self.file.metadata().is_ok_and(|file| file.nlink() == 0)
    }

    /// Whether it ends with the end of a line.
    pub(crate) fn ends_a_line(&self) -> bool {
        let mut last = [0];
        self.size == 0 || (self.file.read_exact_at(&mut last, self.size - 1).is_ok() && last == *b"\n")
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The last lines of a log, oldest first, out of `current` and the file before it.
pub(crate) fn tail(folder: &Path, lines: usize) -> Vec<String> {
    /// Enough for the lines of a screen.
    const TAIL_BYTES: u64 = 16 << 10;
    let mut text = String::new();
    for name in ["current", "1"] {
        match end_of(&folder.join(name), TAIL_BYTES) {
            Ok(part) => text.insert_str(0, &part),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!("read {}: {error}", folder.join(name).display()),
        }
        // The first of them may be the rest of a line.
        if text.lines().count() > lines {
            break;
        }
    }
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect()
}

fn end_of(path: &Path, bytes: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(bytes);
    file.seek(SeekFrom::Start(start))?;
    let mut end = Vec::new();
    file.take(bytes).read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}
