//! Main processes that a service named itself (`MAINPID=`, a pidfile) and whose parent is another process of it: that one
//! reaps them, initldr never hears of it, and so their end is seen by their pidfd.
//!
//! How one ended is read from what is left of it, or asked of the pidfd (Linux 6.15); where neither tells, it is lost.

use std::os::{fd::AsFd, unix::process::parent_id};

use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::{Daemon, Fatal, events::Source, now, proc};
use crate::{
    graph::Id,
    supervise::{Event, Exit, ExitHow},
    sys::process::exit_info,
};

impl Daemon {
    /// Has the end of a main process wake us, unless initldr is its parent and will tell.
    pub(super) fn watch_main(&mut self, id: Id, pid: u32) {
        let Some(pidfd) = self.runtime.get(&id).and_then(|runtime| runtime.pidfd.as_ref()) else { return };
        if is_initldrs(pid) {
            return;
        }
        // Once: it stays readable for ever, and leaves the set when it is closed.
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, Source::Main(id).pack());
        if let Err(errno) = self.epoll.add(pidfd, event) {
            tracing::error!("watch the main process of {}: {errno}", self.manager.graph().name(id));
        }
    }

    /// A main process that is not initldr's child has ended.
    pub(super) fn main_ready(&mut self, id: Id) -> Result<(), Fatal> {
        let Some(pid) = self.manager.unit(id).main().map(|main| main.pid) else { return Ok(()) };
        let Some(runtime) = self.runtime.get(&id) else { return Ok(()) };
        let Some(pidfd) = &runtime.pidfd else { return Ok(()) };
        let left = if proc::pid_of(pidfd.as_fd()) == Some(pid) { exit_of_dead(pid) } else { None };
        let told = || exit_info(pidfd.as_fd()).ok().flatten().map(|(_, status)| exit_of_wait(status));
        match left.or_else(told) {
            // Its parent went first, and it is initldr's by now.
            Some(_) if is_initldrs(pid) => Ok(()),
            Some(exit) => self.main_exited(id, exit),
            None => self.ended_unseen(id, pid),
        }
    }

    /// It was reaped before anybody looked: by initldr, which says so, or by a process of the service.
    fn ended_unseen(&mut self, id: Id, pid: u32) -> Result<(), Fatal> {
        let exits = self.link.catch_up()?;
        for exit in &exits {
            self.exited(exit)?;
        }
        self.acknowledge(&exits)?;
        if self.manager.unit(id).main().is_some_and(|main| main.pid == pid) {
            self.event(id, Event::Lost)?;
        }
        Ok(())
    }
}

/// Whether initldr is its parent, and so the one that reaps it.
pub(super) fn is_initldrs(pid: u32) -> bool {
    proc::parent(pid).is_ok_and(|parent| parent == parent_id())
}

/// How a process ended that is dead and was not reaped yet; when is not told: now at the latest.
pub(super) fn exit_of_dead(pid: u32) -> Option<Exit> {
    proc::exit_code(pid).map(exit_of_wait)
}

/// A status as wait(2) encodes it.
pub(super) fn exit_of_wait(status: i32) -> Exit {
    let (signal, dumped) = (status & 0x7f, status & 0x80 != 0);
    let (how, status) = match signal {
        0 => (ExitHow::Exited, status >> 8 & 0xff),
        _ if dumped => (ExitHow::Dumped, signal),
        _ => (ExitHow::Killed, signal),
    };
    Exit { how, status, at: now() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oracle_of_how_a_process_ended_is_who_waits_for_it() {
        for (script, how, status) in
            [("exit 7", ExitHow::Exited, 7), ("kill -KILL $$", ExitHow::Killed, libc::SIGKILL)]
        {
            let mut child = std::process::Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
            let pid = child.id();
            let dead = (0..10_000).find_map(|_| {
                std::thread::sleep(std::time::Duration::from_millis(1));
                exit_of_dead(pid)
            });
            let waited = child.wait().unwrap();
            let found = dead.expect("it ends");
            assert_eq!((found.how, found.status), (how, status), "{script}: {waited}");
            assert_eq!(exit_of_dead(pid), None, "it was reaped");
        }
        assert_eq!(exit_of_dead(std::process::id()), None, "it lives");
    }
}
