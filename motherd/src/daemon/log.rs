//! What a service writes to its standard output and error: a pipe whose read end initldr holds too, and files.
//!
//! ```text
//!   service --stdout, stderr--> pipe --splice--> /var/log/motherd/NAME/current --rename--> NAME/1 ... NAME/3
//!                                 ^ initldr holds the read end: no EPIPE and no loss while there is no motherd
//! ```
//!
//! Bytes are moved by splice(2), so they are in the pipe or in the file whenever motherd ends, and never only in its
//! memory. The text is the service's own, as it wrote it. A file ends with the line that takes it over an eighth of
//! `log.keep`, and at a quarter of it whatever the line: four files are then never more than `log.keep`.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::pipe2,
};

use crate::sys::process::{splice, tee};

/// What a pipe holds while nobody reads: 1 MiB, `pipe-max-size` of a kernel as it comes.
const PIPE_BYTES: i32 = 1 << 20;
/// What one call moves at most.
const CHUNK_BYTES: usize = 1 << 20;
/// `current` and the rotated ones.
const FILES: u64 = 4;

/// One service's output.
#[derive(Debug)]
pub(crate) struct Log {
    reader: OwnedFd,
    /// Held so that the pipe never hangs up, and given to each new process.
    writer: OwnedFd,
    folder: PathBuf,
    keep_bytes: u64,
    file: Option<File>,
    size: u64,
    lost_bytes: u64,
}

impl Log {
    /// A new pipe; the files are in `folder`.
    pub(crate) fn create(folder: PathBuf, keep_bytes: u64) -> io::Result<Self> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        if let Err(errno) = fcntl(&reader, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)) {
            tracing::debug!(%errno, "a log pipe keeps its default size");
        }
        Self::over(reader, writer, folder, keep_bytes)
    }

    /// A pipe that initldr kept.
    pub(crate) fn adopt(reader: OwnedFd, folder: PathBuf, keep_bytes: u64) -> io::Result<Self> {
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let writer = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path)?.into();
        // Non-blocking was for the open alone: a service that writes faster than we read has to wait.
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty()))?;
        Self::over(reader, writer, folder, keep_bytes)
    }

    fn over(reader: OwnedFd, writer: OwnedFd, folder: PathBuf, keep_bytes: u64) -> io::Result<Self> {
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self { reader, writer, folder, keep_bytes, file: None, size: 0, lost_bytes: 0 })
    }

    /// For epoll and for initldr.
    pub(crate) fn reader(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// For the service.
    pub(crate) fn writer(&self) -> BorrowedFd<'_> {
        self.writer.as_fd()
    }

    /// Moves what is there into the file. A disk that takes nothing does not stop the service: what is lost then is
    /// counted, and said once the disk takes something again.
    pub(crate) fn pump(&mut self) {
        loop {
            match self.move_some() {
                Ok(0) | Err(Errno::EAGAIN) => return,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => {
                    if self.lost_bytes == 0 {
                        tracing::error!("write to {}: {errno}; output is lost", self.current().display());
                    }
                    self.file = None;
                    match self.drop_some() {
                        Ok(0) | Err(_) => return,
                        Ok(lost) => self.lost_bytes += lost as u64,
                    }
                }
            }
        }
    }

    fn current(&self) -> PathBuf {
        self.folder.join("current")
    }

    fn move_some(&mut self) -> Result<usize, Errno> {
        let most = self.keep_bytes / FILES;
        let enough = most / 2;
        if self.size >= most || (self.size >= enough && self.ends_a_line()) {
            self.rotate().map_err(errno_of)?;
        }
        if self.file.is_none() {
            let file = open(&self.folder).map_err(errno_of)?;
            self.size = file.metadata().map_err(errno_of)?.len();
            self.file = Some(file);
        }
        let room = |limit: u64| usize::try_from(limit.saturating_sub(self.size)).unwrap_or(CHUNK_BYTES);
        let wanted = if self.size < enough {
            room(enough).clamp(1, CHUNK_BYTES)
        } else {
            self.rest_of_line(room(most).clamp(1, CHUNK_BYTES))?
        };
        let Some(file) = &self.file else { return Err(Errno::EBADF) };
        let moved = splice(self.reader.as_fd(), file.as_fd(), wanted)?;
        self.size += moved as u64;
        if self.lost_bytes > 0 && moved > 0 {
            tracing::warn!(
                "{}: {} bytes of output were lost before this",
                self.current().display(),
                self.lost_bytes
            );
            self.lost_bytes = 0;
        }
        Ok(moved)
    }

    /// How many bytes of the pipe, of at most `most`, end the line. They are looked at (tee(2)) and stay there.
    fn rest_of_line(&self, most: usize) -> Result<usize, Errno> {
        let (copy, into) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let seen = tee(self.reader.as_fd(), into.as_fd(), most)?;
        let mut bytes = vec![0; seen];
        let read = nix::unistd::read(&copy, &mut bytes)?;
        Ok(bytes[..read].iter().position(|byte| *byte == b'\n').map_or(read, |newline| newline + 1))
    }

    fn drop_some(&self) -> Result<usize, Errno> {
        let mut chunk = [0; 64 << 10];
        nix::unistd::read(&self.reader, &mut chunk)
    }

    fn ends_a_line(&self) -> bool {
        let mut last = [0];
        let Some(file) = &self.file else { return true };
        self.size == 0 || (file.read_exact_at(&mut last, self.size - 1).is_ok() && last == *b"\n")
    }

    /// `2` becomes `3`, `1` becomes `2`, `current` becomes `1`.
    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        self.size = 0;
        for number in (1..FILES - 1).rev() {
            rename(&self.folder.join(number.to_string()), &self.folder.join((number + 1).to_string()))?;
        }
        rename(&self.current(), &self.folder.join("1"))
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn errno_of(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// `current`, its offset at its end: splice(2) refuses O_APPEND.
fn open(folder: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW)
        .open(folder.join("current"))?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}

/// The last lines that a service wrote, oldest first, out of `current` and the file before it.
pub(crate) fn tail(folder: &Path, lines: usize) -> Vec<String> {
    /// Enough for the lines of a screen.
    const TAIL_BYTES: u64 = 16 << 10;
    let mut text = String::new();
    for name in ["1", "current"] {
        match end_of(&folder.join(name), TAIL_BYTES) {
            Ok(part) => text.push_str(&part),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!("read {}: {error}", folder.join(name).display()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn write(log: &Log, text: &str) {
        nix::unistd::write(log.writer(), text.as_bytes()).unwrap();
    }

    #[test]
    fn what_is_written_is_in_the_file_as_it_was_written() {
        let scratch = Scratch::new();
        let mut log = Log::create(scratch.path().join("web"), 1 << 20).unwrap();
        write(&log, "one\ntwo");
        log.pump();
        write(&log, " and a half\n");
        log.pump();
        assert_eq!(fs::read_to_string(scratch.path().join("web/current")).unwrap(), "one\ntwo and a half\n");
        assert_eq!(tail(&scratch.path().join("web"), 1), ["two and a half"]);
    }

    #[test]
    fn the_next_motherd_goes_on_where_the_last_one_stopped() {
        let scratch = Scratch::new();
        let folder = scratch.path().join("web");
        let mut log = Log::create(folder.clone(), 1 << 20).unwrap();
        write(&log, "before\n");
        log.pump();
        write(&log, "meanwhile\n");
        let kept = log.reader().try_clone_to_owned().unwrap();
        drop(log);
        let mut log = Log::adopt(kept, folder.clone(), 1 << 20).unwrap();
        write(&log, "after\n");
        log.pump();
        assert_eq!(fs::read_to_string(folder.join("current")).unwrap(), "before\nmeanwhile\nafter\n");
    }

    #[test]
    fn no_more_than_what_is_to_be_kept_is_kept_and_no_line_is_cut() {
        let scratch = Scratch::new();
        let folder = scratch.path().join("web");
        let keep = 16 << 10;
        let mut log = Log::create(folder.clone(), keep).unwrap();
        for number in 0..4000 {
            write(&log, &format!("line {number}\n"));
            if number % 97 == 0 {
                log.pump();
            }
        }
        log.pump();
        let mut total = 0;
        let mut text = String::new();
        for name in ["3", "2", "1", "current"] {
            let part = fs::read_to_string(folder.join(name)).unwrap();
            assert!(part.starts_with("line ") && part.ends_with('\n'), "{name}");
            total += part.len() as u64;
            text.push_str(&part);
        }
        assert!(total <= keep, "{total} bytes are kept");
        let numbers: Vec<u32> = text.lines().map(|line| line[5..].parse().unwrap()).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "a line is missing");
        assert_eq!(numbers.last(), Some(&3999));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 4);
    }

    #[test]
    fn a_disk_that_takes_nothing_does_not_hold_the_service_up() {
        let scratch = Scratch::new();
        fs::write(scratch.path().join("web"), "a file where the folder should be").unwrap();
        let mut log = Log::create(scratch.path().join("web"), 1 << 20).unwrap();
        write(&log, "lost\n");
        log.pump();
        assert_eq!(log.lost_bytes, 5);
        fs::remove_file(scratch.path().join("web")).unwrap();
        write(&log, "kept\n");
        log.pump();
        assert_eq!(fs::read_to_string(scratch.path().join("web/current")).unwrap(), "kept\n");
        assert_eq!(log.lost_bytes, 0);
    }
}
