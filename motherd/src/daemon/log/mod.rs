//! What a service writes to its standard output and error: a pipe whose read end initldr holds too, and files.
//!
//! ```text
//!   service --stdout, stderr--> pipe --> stage --lines, each with its time--> /var/log/motherd/NAME/current
//!                                 ^ initldr holds the read end:                 --rename--> NAME/1 ... NAME/3
//!                                   no EPIPE and no loss while there is no motherd
//! ```
//!
//! `lines` makes the lines, `files` writes and rotates them, `stage` sees to it that a motherd that dies loses no byte
//! and leaves none twice. One wake-up moves one chunk of one log: whoever writes without end takes its turn with the
//! others, and waits in write(2) when the pipe is full.

mod files;
mod lines;
mod stage;

use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::pipe2,
};

use sandbox::descriptors::far_up;

use self::{
    files::Current,
    lines::{Carry, Shape, Text},
    stage::Page,
};
pub(super) use self::{
    files::{Files, tail},
    stage::{CHUNK, LAYOUT, Left, Stage},
};
use crate::{failpoint, service::LogRate};

/// What a pipe holds while nobody reads: 1 MiB, `pipe-max-size` of a kernel as it comes.
const PIPE_BYTES: i32 = 1 << 20;

/// What time it is.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    /// CLOCK_BOOTTIME.
    pub(super) now: Duration,
    /// CLOCK_REALTIME, as text.
    pub(super) stamp: String,
}

/// One service's output.
#[derive(Debug)]
pub(super) struct Log {
    reader: OwnedFd,
    /// Held so that the pipe never hangs up, and given to each new process.
    writer: OwnedFd,
    files: Files,
    rate: Option<LogRate>,
    current: Option<Current>,
    /// Somebody else left `current` without the end of its last line.
    begin_anew: bool,
    page: Page,
}

impl Log {
    /// A new pipe, which can be [enlarged](Log::enlarge).
    pub(super) fn create(name: &str, files: Files, rate: Option<LogRate>, stage: &Stage) -> io::Result<Self> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        Self::over(reader, writer, name, files, rate, stage)
    }

    /// Makes the pipe as large as it is to be.
    pub(super) fn enlarge(&self) {
        if let Err(errno) = fcntl(&self.reader, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)) {
            tracing::debug!(%errno, "a log pipe keeps its default size");
        }
    }

    /// A pipe that initldr kept.
    pub(super) fn adopt(
        reader: OwnedFd,
        name: &str,
        files: Files,
        rate: Option<LogRate>,
        stage: &Stage,
    ) -> io::Result<Self> {
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let writer = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path)?.into();
        // Non-blocking was for the open alone: a service that writes faster than we read has to wait.
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty()))?;
        Self::over(reader, writer, name, files, rate, stage)
    }

    fn over(
        reader: OwnedFd,
        writer: OwnedFd,
        name: &str,
        files: Files,
        rate: Option<LogRate>,
        stage: &Stage,
    ) -> io::Result<Self> {
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let (reader, writer) = (far_up(reader), far_up(writer));
        let page = stage.page(name).unwrap_or_else(|| Page { name: name.to_owned(), ..Page::default() });
        Ok(Self { reader, writer, files, rate, current: None, begin_anew: false, page })
    }

    /// For epoll and for initldr.
    pub(super) fn reader(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// For the service.
    pub(super) fn writer(&self) -> BorrowedFd<'_> {
        self.writer.as_fd()
    }

    /// How many of its lines were ever dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.page.carry.dropped
    }

    /// When [`Log::tell`] has something to do.
    pub(super) fn due(&self) -> Option<Duration> {
        self.page.carry.due(self.rate)
    }

    /// Moves one chunk of what is there into the files; whether there was any.
    pub(super) fn pump(&mut self, stage: &mut Stage, clock: &Clock) -> bool {
        match stage.fill(self.reader.as_fd(), &self.page.name, self.page.chunk + 1) {
            Ok(bytes) => {
                let bytes = bytes.to_vec();
                failpoint::hit("log.staged");
                self.take(&bytes, stage, clock);
                true
            }
            Err(Errno::EAGAIN) => false,
            Err(errno) => {
                // Memory is short, say. The bytes are in the pipe, and it is tried again.
                tracing::error!("{}: read its output: {errno}", self.page.name);
                false
            }
        }
    }

    /// What the motherd before this one left in the stage, for this log.
    pub(super) fn recover(&mut self, left: &Left, stage: &mut Stage, clock: &Clock) -> io::Result<()> {
        if left.undone {
            self.files.undo(self.page.inode, self.page.size)?;
            let bytes = stage.staged()?.to_vec();
            tracing::info!("{}: {} bytes that were on their way to its log", self.page.name, bytes.len());
            self.take(&bytes, stage, clock);
        } else {
            stage.done();
        }
        Ok(())
    }

    /// Everything that is there, and the end of its last line: the service has ended.
    pub(super) fn finish(&mut self, stage: &mut Stage, clock: &Clock) {
        // Somebody else may hold the pipe and write for ever: no more than a pipe holds.
        for _ in 0..=usize::try_from(PIPE_BYTES).unwrap_or(0) / CHUNK {
            if !self.pump(stage, clock) {
                break;
            }
        }
        // Who has said nothing has no file, and who starts it anew does not wait for one to be made.
        if self.page.lost == 0 && self.page.carry.is_finished() {
            return;
        }
        self.write(stage, clock, self.page.chunk, 0, |carry, shape, text| carry.finish(shape, text));
    }

    /// Tells of the lines that were dropped, once their time is over.
    pub(super) fn tell(&mut self, stage: &mut Stage, clock: &Clock) {
        self.write(stage, clock, self.page.chunk, 0, |carry, shape, text| carry.tick(shape, text));
    }

    fn take(&mut self, bytes: &[u8], stage: &mut Stage, clock: &Clock) {
        let chunk = self.page.chunk + 1;
        let size = bytes.len() as u64;
        self.write(stage, clock, chunk, size, |carry, shape, text| carry.take(bytes, shape, text));
        failpoint::hit("log.booked");
        stage.done();
    }

    /// Writes what `make` makes, and then the book. A disk that takes nothing does not stop the service: what is lost
    /// then is counted, and told of in the log once the disk takes something again.
    fn write(
        &mut self,
        stage: &mut Stage,
        clock: &Clock,
        chunk: u64,
        size: u64,
        make: impl FnOnce(&mut Carry, &Shape<'_>, &mut Text),
    ) {
        if let Err(error) = self.open(stage).and_then(|()| self.append(clock, make)) {
            if self.page.lost == 0 {
                let path = self.files.folder.join("current");
                tracing::error!("write to {}: {error}; output is lost", path.display());
            }
            self.page.lost += size;
            self.current = None;
            if let Err(error) = self.files.undo(self.page.inode, self.page.size) {
                tracing::error!("{}: its log may have a line twice: {error}", self.page.name);
            }
        }
        self.page.chunk = chunk;
        self.book(stage);
    }

    fn append(
        &mut self,
        clock: &Clock,
        make: impl FnOnce(&mut Carry, &Shape<'_>, &mut Text),
    ) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let longest = self.files.longest_line();
        let shape = Shape { now: clock.now, stamp: &clock.stamp, rate: self.rate, longest };
        let (mut carry, mut text) = (self.page.carry, Text::default());
        if self.begin_anew {
            text.bytes.push(b'\n');
        }
        carry.tell_lost(self.page.lost, &shape, &mut text);
        make(&mut carry, &shape, &mut text);
        self.files.append(current, &text)?;
        failpoint::hit("log.written");
        self.page.inode = current.inode;
        self.page.size = current.size;
        self.page.lost = 0;
        self.page.carry = carry;
        self.begin_anew = false;
        Ok(())
    }

    /// Has `current` open. One that is not the file that was written to last begins with a line.
    fn open(&mut self, stage: &mut Stage) -> io::Result<()> {
        if self.current.as_ref().is_some_and(Current::is_gone) {
            self.current = None;
        }
        if self.current.is_some() {
            return Ok(());
        }
        let current = self.files.open()?;
        if (current.inode, current.size) != (self.page.inode, self.page.size) {
            self.page.carry.open = None;
            self.page.inode = current.inode;
            self.page.size = current.size;
        }
        self.begin_anew = self.page.carry.open.is_none() && !current.ends_a_line();
        self.current = Some(current);
        self.book(stage);
        Ok(())
    }

    fn book(&self, stage: &mut Stage) {
        if !stage.write(&self.page) {
            tracing::error!("{}: no room for another log in the books", self.page.name);
        }
    }
}

#[cfg(test)]
mod tests;
