//! The logs of services among the daemon's other duties: their pipes, made and adopted, read in turn, let go.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use nix::{
    sys::epoll::EpollFlags,
    time::{ClockId, clock_gettime},
};

use super::{
    Daemon, Fatal,
    events::{Source, watch},
    link::Link,
    log::{Clock, Files, Left, Log, Stage},
    now,
    spawn::Refusal,
};
use crate::{calendar::timestamp, failpoint, graph::Id, service::Program};

/// The names under which initldr keeps the stage and the books.
pub(super) const STAGE_SLOT: &str = "log-stage";
pub(super) const BOOKS_SLOT: &str = "log-books";

/// What the files of a log may be where no service says it: the service has no file any more.
const KEEP_BYTES: u64 = 16 << 20;

/// The stage and the books that initldr kept, or new ones; and what is left in them.
pub(super) fn open_stage(
    link: &Link,
    stored: &mut BTreeMap<String, OwnedFd>,
) -> Result<(Stage, Option<Left>), Fatal> {
    if let (Some(stage), Some(books)) = (stored.remove(STAGE_SLOT), stored.remove(BOOKS_SLOT)) {
        match Stage::open(stage, books) {
            Ok(opened) => return Ok(opened),
            Err(error) => tracing::error!("the log stage that initldr kept is of no use: {error}"),
        }
    }
    let (stage, books) =
        Stage::memory().map_err(io::Error::from).map_err(Fatal::system("make the log stage"))?;
    link.store(STAGE_SLOT, stage.as_fd())?;
    link.store(BOOKS_SLOT, books.as_fd())?;
    Stage::open(stage, books).map_err(Fatal::system("map the log books"))
}

/// The name under which initldr keeps the read end of a service's log pipe.
pub(super) fn log_slot(name: &str) -> String {
    format!("log/{name}")
}

/// What time it is, for a log.
fn clock() -> Clock {
    let realtime = clock_gettime(ClockId::CLOCK_REALTIME).map(Duration::from).unwrap_or_default();
    Clock { now: now(), stamp: timestamp(realtime) }
}

impl Daemon {
    fn log_files(&self, name: &str, keep_bytes: u64) -> Files {
        Files { folder: self.paths.log.join(name), keep_bytes, readers: self.readers }
    }

    /// The pipe that takes the service's output, there before the service is and kept by initldr.
    pub(super) fn prepare_log(
        &mut self,
        id: Id,
        name: &str,
        program: &Program,
    ) -> Result<Result<(), Refusal>, Fatal> {
        if self.runtime.get(&id).is_some_and(|runtime| runtime.log.is_some()) {
            return Ok(Ok(()));
        }
        let files = self.log_files(name, program.log_keep_bytes);
        let made = Log::create(name, files, program.log_rate, &self.stage).and_then(|log| {
            watch(&self.epoll, log.reader(), Source::Log(id), EpollFlags::EPOLLIN).map(|()| log)
        });
        match made {
            Ok(log) => {
                failpoint::hit("launch.log-made");
                self.keep_processes()?;
                self.link.store(&log_slot(name), log.reader())?;
                failpoint::hit("launch.log-kept");
                self.runtime.entry(id).or_default().log = Some(log);
                self.fresh.logs.push(id);
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(Refusal::io("make a log pipe", &error))),
        }
    }

    /// A pipe that initldr kept.
    pub(super) fn adopt_log(&mut self, name: &str, reader: OwnedFd) -> Result<(), Fatal> {
        let id = self.manager.graph().find(name);
        let program = id.and_then(|id| self.manager.graph().service(id).program());
        let (Some(id), Some(program)) = (id, program) else {
            // Its service may still run and write, so nothing is let go; it is read when its file is back.
            return Ok(());
        };
        let files = self.log_files(name, program.log_keep_bytes);
        match Log::adopt(reader, name, files, program.log_rate, &self.stage) {
            Ok(log) => {
                watch(&self.epoll, log.reader(), Source::Log(id), EpollFlags::EPOLLIN)
                    .map_err(Fatal::system("watch a log pipe"))?;
                self.runtime.entry(id).or_default().log = Some(log);
                self.log_changed(id);
                Ok(())
            }
            Err(error) => {
                tracing::error!("the log pipe of {name} is of no use: {error}");
                Ok(self.link.forget(&log_slot(name))?)
            }
        }
    }

    /// What the motherd before this one had taken out of a pipe goes where it was to go.
    pub(super) fn recover_stage(&mut self, left: &Left) {
        let id = self.manager.graph().find(&left.name);
        let log = id.and_then(|id| self.runtime.get_mut(&id)?.log.as_mut());
        let recovered = match log {
            Some(log) => log.recover(left, &mut self.stage, &clock()),
            // No file describes the service any more. What it wrote is kept all the same.
            None => {
                let files = self.log_files(&left.name, KEEP_BYTES);
                Log::create(&left.name, files, None, &self.stage)
                    .and_then(|mut log| log.recover(left, &mut self.stage, &clock()))
            }
        };
        if let Err(error) = recovered {
            tracing::error!("{}: what was on its way to its log is lost: {error}", left.name);
            self.stage.done();
        }
    }

    /// A log pipe has something.
    pub(super) fn log_ready(&mut self, id: Id) {
        if let Some(log) = self.runtime.get_mut(&id).and_then(|runtime| runtime.log.as_mut()) {
            log.pump(&mut self.stage, &clock());
            self.log_changed(id);
        }
    }

    /// Nothing of the service is left that could write: its last line ends.
    pub(super) fn log_ended(&mut self, id: Id) {
        if let Some(log) = self.runtime.get_mut(&id).and_then(|runtime| runtime.log.as_mut()) {
            log.finish(&mut self.stage, &clock());
            self.log_changed(id);
        }
    }

    /// The service is down, and is not started by itself: initldr's slot is freed.
    pub(super) fn let_log_go(&mut self, id: Id, name: &str) -> Result<(), Fatal> {
        self.log_ended(id);
        let Some(log) = self.runtime.get_mut(&id).and_then(|runtime| runtime.log.take()) else {
            return Ok(());
        };
        drop(log);
        self.log_due.remove(&id);
        failpoint::hit("settle.log-read");
        self.link.forget(&log_slot(name))?;
        failpoint::hit("settle.log-dropped");
        self.stage.forget(name);
        Ok(())
    }

    /// How many lines of a service were dropped.
    pub(super) fn dropped_lines(&self, id: Id) -> u64 {
        self.runtime.get(&id).and_then(|runtime| runtime.log.as_ref()).map_or(0, Log::dropped)
    }

    /// When the next log has to tell of lines that it dropped.
    pub(super) fn next_log_deadline(&self) -> Option<Duration> {
        self.log_due.values().min().copied()
    }

    /// The clock reached [`Daemon::next_log_deadline`].
    pub(super) fn tell_dropped(&mut self) {
        let now = now();
        let due: Vec<Id> = self.log_due.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
        for id in due {
            if let Some(log) = self.runtime.get_mut(&id).and_then(|runtime| runtime.log.as_mut()) {
                log.tell(&mut self.stage, &clock());
            }
            self.log_changed(id);
        }
    }

    fn log_changed(&mut self, id: Id) {
        match self.runtime.get(&id).and_then(|runtime| runtime.log.as_ref()?.due()) {
            Some(due) => self.log_due.insert(id, due),
            None => self.log_due.remove(&id),
        };
    }
}
