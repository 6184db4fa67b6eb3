//! The daemon of a program that forks: found by its pidfile or by being alone in the cgroup, and only believed if it is in
//! the cgroup.
//!
//! Nobody says when it is there, so it is looked for at short intervals; only while it is started, and only until the
//! deadline of the start.

use std::{collections::BTreeMap, fs, io::Read, path::Path, time::Duration};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use sandbox::{cgroup::Cgroup, descriptors::far_up};

use super::{Daemon, Fatal, now, proc};
use crate::{
    graph::Id,
    supervise::{Event, State},
    sys::process::pidfd_open,
};

/// The pause between two looks.
const EVERY: Duration = Duration::from_millis(20);
/// More than a pid is no pidfile.
const PIDFILE_BYTES: u64 = 32;

/// For whom a daemon is looked for, and when next.
#[derive(Debug, Default)]
pub(super) struct Searches(BTreeMap<Id, Duration>);

impl Searches {
    /// Nothing is looked for any more.
    pub(super) fn forget(&mut self, id: Id) {
        self.0.remove(&id);
    }

    /// When the next look is due.
    pub(super) fn next(&self) -> Option<Duration> {
        self.0.values().min().copied()
    }
}

impl Daemon {
    /// Looks for the daemon, and again later where it is not there yet.
    pub(super) fn find_main(&mut self, id: Id) -> Vec<(Id, Event)> {
        self.searches.0.remove(&id);
        if !matches!(self.manager.unit(id).state, State::Forked { .. }) {
            return vec![];
        }
        let service = self.manager.graph().service(id);
        let pidfile =
            service.program().and_then(|program| program.pidfile.clone()).map(|pidfile| pidfile.value);
        let found = self.cgroup(id).and_then(|cgroup| match cgroup.procs() {
            Ok(pids) => candidate(&pids, pidfile.as_deref()),
            Err(error) => {
                tracing::debug!("{error}");
                None
            }
        });
        match found.filter(|pid| self.take_main(id, *pid)) {
            Some(pid) => vec![(id, Event::MainPid { pid })],
            None => {
                self.searches.0.insert(id, now() + EVERY);
                vec![]
            }
        }
    }

    /// The looks that are due.
    pub(super) fn search(&mut self, now: Duration) -> Result<(), Fatal> {
        let due: Vec<Id> =
            self.searches.0.iter().filter(|(_, next)| **next <= now).map(|(id, _)| *id).collect();
        for id in due {
            for (id, event) in self.find_main(id) {
                self.event(id, event)?;
            }
        }
        Ok(())
    }

    /// Makes a process the main one, if it is in the cgroup: held first, then looked at. Whether it was.
    pub(super) fn take_main(&mut self, id: Id, pid: u32) -> bool {
        let Ok(pidfd) = pidfd_open(pid) else { return false };
        let inside = |cgroup: &Cgroup| cgroup.procs().is_ok_and(|pids| pids.contains(&pid));
        let Ok(start_ticks) = proc::start_ticks(pid) else { return false };
        if !self.cgroup(id).is_some_and(inside) {
            return false;
        }
        let runtime = self.runtime.entry(id).or_default();
        runtime.pidfd = Some(far_up(pidfd));
        runtime.start_ticks = start_ticks;
        self.watch_main(id, pid);
        true
    }
}

/// Which of these is the daemon: the one that the pidfile names, or the only one whose parent is none of them.
fn candidate(pids: &[u32], pidfile: Option<&str>) -> Option<u32> {
    match pidfile {
        Some(path) => {
            let named = pids.iter().find_map(|pid| read_pidfile(*pid, path))?;
            pids.contains(&named).then_some(named)
        }
        None => {
            let outside = |pid: &&u32| proc::parent(**pid).is_ok_and(|parent| !pids.contains(&parent));
            let mut tops = pids.iter().filter(outside);
            match (tops.next(), tops.next()) {
                (Some(only), None) => Some(*only),
                _ => None,
            }
        }
    }
}

/// A pidfile as a process of the service sees it: below its root, whatever links lie on the way.
fn read_pidfile(pid: u32, path: &str) -> Option<u32> {
    let root = open(
        Path::new(&format!("/proc/{pid}/root")),
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    );
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = root.and_then(|root| openat2(root, path, how)).map(fs::File::from).ok()?;
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return None;
    }
    let mut text = String::new();
    file.take(PIDFILE_BYTES).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pidfile_is_read_as_the_service_sees_it() {
        let own = std::process::id();
        let scratch = crate::scratch::Scratch::new();
        let path = scratch.path().join("pid");
        fs::write(&path, format!("{own}\n")).unwrap();
        assert_eq!(read_pidfile(own, path.to_str().unwrap()), Some(own));
        assert_eq!(candidate(&[own], path.to_str()), Some(own));
        assert_eq!(candidate(&[own + 1], path.to_str()), None, "it names one that is not in the cgroup");
        for text in ["", "x", "-1", "99999999999999999999999999999999999999"] {
            fs::write(&path, text).unwrap();
            assert_eq!(read_pidfile(own, path.to_str().unwrap()), None, "{text}");
        }
        assert_eq!(read_pidfile(own, scratch.path().to_str().unwrap()), None, "a folder");
    }

    #[test]
    fn without_a_pidfile_the_one_that_nobody_else_is_the_parent_of_is_the_daemon() {
        let own = std::process::id();
        let parent = std::os::unix::process::parent_id();
        assert_eq!(candidate(&[own], None), Some(own));
        assert_eq!(candidate(&[own, parent], None), Some(parent));
        assert_eq!(candidate(&[], None), None);
    }
}
