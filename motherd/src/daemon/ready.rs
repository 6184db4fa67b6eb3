//! `start.type = "fd"`: a service writes a newline to a descriptor when it is ready, as s6 has it.
//!
//! The read end of that pipe is kept by initldr until then, so a service that becomes ready while there is no motherd has
//! not written in vain. A newline is taken out of the pipe by the end of the pipe alone: it is copied (tee(2)), the state
//! that follows from it is recorded, and then the pipe goes; so a motherd that ends in between leaves it to the next.
//!
//! Invariant: motherd has the write end only while it launches. So the pipe is at its end when the service has closed it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::epoll::EpollFlags,
    unistd::{pipe2, read},
};
use sandbox::descriptors::far_up;

use super::{
    Daemon, Fatal,
    events::{Source, watch},
    proc,
    spawn::Refusal,
};
use crate::{
    failpoint,
    graph::Id,
    service::Program,
    supervise::{Event, State},
    sys::pipe::tee,
};

/// What may come before the newline is passed over, and no more than this: it is meant to be one byte.
const BEFORE_MAX: usize = 4096;

/// The slots in which initldr keeps read ends.
pub(super) const READY: &str = "ready/";

pub(super) fn ready_slot(name: &str) -> String {
    format!("{READY}{name}")
}

/// The pipe that a service says by that it is ready.
#[derive(Debug)]
pub(super) struct Ready {
    reader: OwnedFd,
    /// While it is launched.
    writer: Option<OwnedFd>,
    /// So many bytes were passed over.
    before: usize,
}

/// What a pipe has.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// No newline yet.
    Nothing,
    /// One; it is still there.
    Newline,
    /// It was closed without one.
    Closed,
    /// Too much, and no newline in it.
    Noise,
}

impl Ready {
    fn create() -> Result<Self, Errno> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        let mut ready = Self::adopt(reader)?;
        ready.writer = Some(writer);
        Ok(ready)
    }

    fn adopt(reader: OwnedFd) -> Result<Self, Errno> {
        Ok(Self { reader: far_up(reader), writer: None, before: 0 })
    }

    pub(super) fn writer(&self) -> Option<BorrowedFd<'_>> {
        self.writer.as_ref().map(AsFd::as_fd)
    }

    /// What the service has written. Blocks nowhere: tee(2) is told not to, and what it found is there to be read.
    fn hear(&mut self) -> Result<Heard, Errno> {
        // What is written next goes to the end, so the copy is of what a read would take.
        let (copy, into) = pipe2(OFlag::O_CLOEXEC)?;
        let mut bytes = [0; BEFORE_MAX];
        loop {
            let count = match tee(self.reader.as_fd(), into.as_fd(), BEFORE_MAX) {
                Ok(0) => return Ok(Heard::Closed),
                Ok(count) => count,
                Err(Errno::EAGAIN) => return Ok(Heard::Nothing),
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
            };
            let copied = read(&copy, &mut bytes[..count])?;
            if bytes[..copied].contains(&b'\n') {
                return Ok(Heard::Newline);
            }
            self.before += read(&self.reader, &mut bytes[..copied])?;
            if self.before > BEFORE_MAX {
                return Ok(Heard::Noise);
            }
        }
    }
}

impl Daemon {
    /// A new pipe for a new run, kept by initldr before there is anybody who could write to it.
    pub(super) fn prepare_ready(
        &mut self,
        id: Id,
        name: &str,
        program: &Program,
    ) -> Result<Result<(), Refusal>, Fatal> {
        self.let_ready_go(id)?;
        if program.ready_fd.is_none() {
            return Ok(Ok(()));
        }
        let made = Ready::create().map_err(std::io::Error::from).and_then(|ready| {
            watch(&self.epoll, ready.reader.as_fd(), Source::Ready(id), EpollFlags::EPOLLIN).map(|()| ready)
        });
        match made {
            Ok(ready) => {
                failpoint::hit("launch.ready-made");
                self.link.store(&ready_slot(name), ready.reader.as_fd())?;
                failpoint::hit("launch.ready-kept");
                self.runtime.entry(id).or_default().ready = Some(ready);
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(Refusal::io("make a pipe for readiness", &error))),
        }
    }

    /// The service was launched, or was not.
    pub(super) fn hand_over_ready(&mut self, id: Id) {
        if let Some(ready) = self.runtime.get_mut(&id).and_then(|runtime| runtime.ready.as_mut()) {
            ready.writer = None;
        }
    }

    /// A pipe that initldr kept. What was written meanwhile is heard with all that services said.
    pub(super) fn adopt_ready(&mut self, name: &str, reader: OwnedFd) -> Result<(), Fatal> {
        let Some(id) = self.manager.graph().find(name) else {
            return Ok(self.link.forget(&ready_slot(name))?);
        };
        let ready = Ready::adopt(reader).map_err(|errno| Fatal::system("adopt a pipe")(errno.into()))?;
        watch(&self.epoll, ready.reader.as_fd(), Source::Ready(id), EpollFlags::EPOLLIN)
            .map_err(Fatal::system("watch a pipe for readiness"))?;
        self.runtime.entry(id).or_default().ready = Some(ready);
        Ok(())
    }

    /// A service wrote to its descriptor, or closed it.
    pub(super) fn ready_written(&mut self, id: Id) -> Result<(), Fatal> {
        let Some(ready) = self.runtime.get_mut(&id).and_then(|runtime| runtime.ready.as_mut()) else {
            return Ok(());
        };
        let heard = ready.hear();
        let State::Starting { main, .. } = self.manager.unit(id).state else {
            // It is of an earlier run, or was dealt with by the motherd before this one.
            return self.let_ready_go(id);
        };
        let number = self.manager.graph().service(id).program().and_then(|program| program.ready_fd);
        let number = number.unwrap_or_default();
        let why = match heard {
            Ok(Heard::Nothing) => return Ok(()),
            Ok(Heard::Newline) => {
                failpoint::hit("ready.heard");
                self.event(id, Event::Ready)?;
                failpoint::hit("ready.recorded");
                return self.let_ready_go(id);
            }
            // How it ended says more than that its descriptors are closed, and is on its way.
            Ok(Heard::Closed) if proc::is_ending(main.pid) => return self.let_ready_go(id),
            Ok(Heard::Closed) => format!("it closed descriptor {number} and had written no newline to it"),
            Ok(Heard::Noise) => {
                format!("it wrote more than {BEFORE_MAX} bytes to descriptor {number}, and no newline")
            }
            Err(errno) => format!("descriptor {number} cannot be read: {errno}"),
        };
        self.event(id, Event::Sick { why, signal: None })?;
        self.let_ready_go(id)
    }

    fn let_ready_go(&mut self, id: Id) -> Result<(), Fatal> {
        if self.runtime.get_mut(&id).and_then(|runtime| runtime.ready.take()).is_some() {
            let name = self.manager.graph().name(id).to_owned();
            self.link.forget(&ready_slot(&name))?;
            failpoint::hit("ready.dropped");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write};

    use super::*;

    fn pipe() -> (Ready, File) {
        let mut ready = Ready::create().unwrap();
        let writer = ready.writer.take().unwrap();
        (ready, writer.into())
    }

    #[test]
    fn a_newline_is_heard_and_stays_until_the_pipe_goes() {
        let (mut ready, mut writer) = pipe();
        assert_eq!(ready.hear(), Ok(Heard::Nothing));
        writer.write_all(b"nearly").unwrap();
        assert_eq!(ready.hear(), Ok(Heard::Nothing));
        writer.write_all(b" there\nand more").unwrap();
        assert_eq!(ready.hear(), Ok(Heard::Newline));
        assert_eq!(ready.hear(), Ok(Heard::Newline), "whoever comes after hears it too");
        drop(writer);
        assert_eq!(ready.hear(), Ok(Heard::Newline), "it is still before the end");
    }

    #[test]
    fn an_end_without_a_newline_is_told_from_one_after_it() {
        let (mut ready, writer) = pipe();
        drop(writer);
        assert_eq!(ready.hear(), Ok(Heard::Closed));
        let (mut ready, mut writer) = pipe();
        writer.write_all(b"ready").unwrap();
        drop(writer);
        assert_eq!(ready.hear(), Ok(Heard::Closed));
    }

    #[test]
    fn noise_is_not_read_for_ever() {
        let (mut ready, mut writer) = pipe();
        writer.write_all(&[b'x'; BEFORE_MAX]).unwrap();
        assert_eq!(ready.hear(), Ok(Heard::Nothing));
        writer.write_all(b"x").unwrap();
        assert_eq!(ready.hear(), Ok(Heard::Noise));
    }
}
