//! The files of one service's log, read from the oldest line on, over rotation.
//!
//! Files are told apart by their inodes: `current` becomes `1`, `1` becomes `2`, and a reader that is within one of them
//! reads it to its end and goes on with the next newer one.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Newest first, as motherd names them.
const NAMES: [&str; 4] = ["current", "1", "2", "3"];
/// `2026-11-22T23:50:01.000042Z`
const STAMP: usize = 27;
/// What one read takes.
const CHUNK: usize = 64 << 10;

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// RFC 3339, UTC, or empty where somebody else wrote into the file.
    pub(super) time: String,
    /// What it is.
    pub(super) kind: Kind,
    /// Without its end.
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The service's.
    Written,
    /// The rest of one of the service's that was too long for one.
    Continued,
    /// motherd's own words.
    Manager,
}

impl Line {
    fn parse(line: &[u8]) -> Self {
        let stamp = line.get(..STAMP).and_then(|stamp| str::from_utf8(stamp).ok());
        let whose = line.get(STAMP).copied();
        let kind = match whose {
            Some(b' ') => Kind::Written,
            Some(b'+') => Kind::Continued,
            Some(b'!') => Kind::Manager,
            Some(_) | None => return Self::untimed(line),
        };
        match stamp.filter(|stamp| stamp.ends_with('Z') && stamp.starts_with(|c: char| c.is_ascii_digit())) {
            Some(stamp) => Self { time: stamp.to_owned(), kind, bytes: line[STAMP + 1..].to_vec() },
            None => Self::untimed(line),
        }
    }

    fn untimed(line: &[u8]) -> Self {
        Self { time: String::new(), kind: Kind::Written, bytes: line.to_vec() }
    }
}

/// One log.
#[derive(Debug)]
pub(super) struct Source {
    folder: PathBuf,
    /// What is left to read, oldest first; the first one is being read.
    files: VecDeque<File>,
    /// The inode of the first one of `files`, or of the last one that was read.
    inode: u64,
    /// What was read and is not yet a whole line.
    rest: Vec<u8>,
    /// How much of it has no end of a line in it.
    searched: usize,
}

impl Source {
    /// Begins with the oldest line, or `last` lines (or a few more) before the end.
    pub(super) fn open(folder: &Path, last: Option<usize>) -> io::Result<Self> {
        let mut source = Self {
            folder: folder.to_owned(),
            files: VecDeque::new(),
            inode: 0,
            rest: Vec::new(),
            searched: 0,
        };
        source.look()?;
        if let Some(last) = last {
            source.skip(last)?;
        }
        Ok(source)
    }

    /// The next line; `None` where there is no whole one now.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            if let Some(end) = self.rest[self.searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.rest.split_off(self.searched + end + 1);
                let mut line = std::mem::replace(&mut self.rest, rest);
                self.searched = 0;
                line.pop();
                return Ok(Some(Line::parse(&line)));
            }
            self.searched = self.rest.len();
            if !self.read()? {
                return Ok(None);
            }
        }
    }

    /// The line that has no end yet.
    pub(super) fn unfinished(&mut self) -> Option<Line> {
        self.searched = 0;
        let rest = std::mem::take(&mut self.rest);
        (!rest.is_empty()).then(|| Line::parse(&rest))
    }

    /// Reads on; whether there was anything.
    fn read(&mut self) -> io::Result<bool> {
        loop {
            let before = self.rest.len();
            self.rest.resize(before + CHUNK, 0);
            let read = match self.files.front_mut() {
                Some(file) => file.read(&mut self.rest[before..])?,
                None => 0,
            };
            self.rest.truncate(before + read);
            if read > 0 {
                return Ok(true);
            }
            // Its end. If it is no longer `current`, nothing is added to it once the newer one is there: what came
            // between our read and that is read before we go on.
            let newer = self.look()?;
            if let (true, Some(file)) = (newer, self.files.front_mut()) {
                let mut late = Vec::new();
                file.read_to_end(&mut late)?;
                self.rest.append(&mut late);
            }
            if self.files.len() < 2 {
                return Ok(self.rest.len() > before);
            }
            self.files.pop_front();
            if let Some(file) = self.files.front() {
                self.inode = file.metadata()?.ino();
            }
        }
    }

    /// Looks for files that are newer than all that are known; whether there are any.
    fn look(&mut self) -> io::Result<bool> {
        let mut known: Vec<u64> = Vec::new();
        for file in &self.files {
            known.push(file.metadata()?.ino());
        }
        let last = known.last().copied().unwrap_or(self.inode);
        let mut newer: Vec<(u64, File)> = Vec::new();
        // Newest first, so that what is renamed meanwhile is seen twice rather than never.
        for name in NAMES {
            let file = match File::open(self.folder.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            let inode = file.metadata()?.ino();
            if inode == last {
                break;
            }
            if newer.iter().all(|(seen, _)| *seen != inode) {
                newer.push((inode, file));
            }
        }
        let found = !newer.is_empty();
        for (inode, file) in newer.into_iter().rev() {
            if self.files.is_empty() {
                self.inode = inode;
            }
            self.files.push_back(file);
        }
        Ok(found)
    }

    /// Forgets the older files, as far as the newer ones have enough lines.
    fn skip(&mut self, last: usize) -> io::Result<()> {
        let mut lines = 0;
        let mut wanted = 0;
        for file in self.files.iter_mut().rev() {
            if lines >= last && wanted > 0 {
                break;
            }
            let mut chunk = vec![0; CHUNK];
            loop {
                let read = file.read(&mut chunk)?;
                if read == 0 {
                    break;
                }
                lines += chunk[..read].iter().filter(|byte| **byte == b'\n').count();
            }
            file.seek(SeekFrom::Start(0))?;
            wanted += 1;
        }
        while self.files.len() > wanted {
            self.files.pop_front();
        }
        if let Some(file) = self.files.front() {
            self.inode = file.metadata()?.ino();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;
    use crate::scratch::Scratch;

    fn line(number: usize) -> String {
        format!("2026-11-22T23:50:01.{number:06}Z line {number}\n")
    }

    fn append(folder: &Path, text: &str) {
        let file = File::options().create(true).append(true).open(folder.join("current"));
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn rotate(folder: &Path) {
        for pair in NAMES.windows(2).rev() {
            if folder.join(pair[0]).exists() {
                fs::rename(folder.join(pair[0]), folder.join(pair[1])).unwrap();
            }
        }
    }

    fn all(source: &mut Source) -> Vec<String> {
        std::iter::from_fn(|| source.next().unwrap())
            .map(|line| String::from_utf8_lossy(&line.bytes).into_owned())
            .collect()
    }

    #[test]
    fn a_line_says_whose_it_is() {
        let check = |text: &str, time: &str, kind, bytes: &str| {
            let expected = Line { time: time.into(), kind, bytes: bytes.into() };
            assert_eq!(Line::parse(text.as_bytes()), expected);
        };
        let time = "2026-11-22T23:50:01.000042Z";
        check(&format!("{time} a b"), time, Kind::Written, "a b");
        check(&format!("{time}+rest"), time, Kind::Continued, "rest");
        check(&format!("{time}!7 lines dropped"), time, Kind::Manager, "7 lines dropped");
        check(&format!("{time}?"), "", Kind::Written, &format!("{time}?"));
        check("hand-written", "", Kind::Written, "hand-written");
    }

    #[test]
    fn all_files_are_read_oldest_first_and_a_line_without_end_waits() {
        let scratch = Scratch::new();
        let folder = scratch.path();
        append(folder, &line(1));
        rotate(folder);
        append(folder, &line(2));
        rotate(folder);
        append(folder, &(line(3) + "2026-11-22T23:50:01.000004Z li"));
        let mut source = Source::open(folder, None).unwrap();
        assert_eq!(all(&mut source), ["line 1", "line 2", "line 3"]);
        append(folder, "ne 4\n");
        assert_eq!(all(&mut source), ["line 4"]);
        append(folder, "half");
        assert_eq!(all(&mut source), [""; 0]);
        assert_eq!(source.unfinished().unwrap().bytes, b"half");
    }

    #[test]
    fn a_follower_misses_nothing_over_rotation() {
        let scratch = Scratch::new();
        let folder = scratch.path();
        append(folder, &line(0));
        let mut source = Source::open(folder, None).unwrap();
        let mut seen = all(&mut source);
        let mut number = 1;
        // Up to three rotations between two looks: the reader's file is still among the four.
        for rotations in [1, 0, 2, 3, 1, 3, 0] {
            for _ in 0..rotations {
                append(folder, &line(number));
                rotate(folder);
                append(folder, &line(number + 1));
                number += 2;
            }
            seen.extend(all(&mut source));
        }
        assert_eq!(seen, (0..number).map(|number| format!("line {number}")).collect::<Vec<_>>());
    }

    #[test]
    fn the_last_lines_are_found_without_reading_what_is_older() {
        let scratch = Scratch::new();
        let folder = scratch.path();
        for file in 0..4 {
            (0..10).for_each(|number| append(folder, &line(file * 10 + number)));
            if file < 3 {
                rotate(folder);
            }
        }
        let from = |last| all(&mut Source::open(folder, Some(last)).unwrap())[0].clone();
        assert_eq!(
            (from(1), from(10), from(11), from(1000)),
            ("line 30".into(), "line 30".into(), "line 20".into(), "line 0".into())
        );
    }

    #[test]
    fn a_folder_without_files_has_no_line_until_there_is_one() {
        let scratch = Scratch::new();
        let mut source = Source::open(scratch.path(), Some(3)).unwrap();
        assert_eq!(all(&mut source), [""; 0]);
        append(scratch.path(), &line(1));
        assert_eq!(all(&mut source), ["line 1"]);
    }
}
