//! What a service needs for as long as it runs, and not in order to begin: when it was started, for the record; its namespaces,
//! which are held until after its end; the watch on its cgroup; a log pipe of full size.
//!
//! All of it waits until what was decided is done, or until there is an event to look at. So the last of a thousand services
//! waits as little as can be for what the first ones need later, and nothing is missed: before it, no event is looked at.
//!
//! A motherd that ends in between leaves a record with the pid, and initldr keeps the process and the pipe. Its successor
//! finds the process by that and makes the rest itself.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
};

use sandbox::descriptors::far_up;

use super::{Daemon, Fatal, policies::Planned, proc, spawn::process_slot};
use crate::{failpoint, graph::Id, sys::process::pidfd_send_signal};

/// Who has come so far.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    /// initldr does not keep their main processes yet.
    pub(super) processes: Vec<Id>,
    /// Their log pipes are new.
    pub(super) logs: Vec<Id>,
    /// Their main processes are, and these are their pids.
    pub(super) services: Vec<(Id, u32)>,
}

impl Daemon {
    /// Has the main processes kept that are new. Not at once: where initldr is sent something else right after it, it is woken once
    /// for both.
    pub(super) fn keep_processes(&mut self) -> Result<(), Fatal> {
        for id in std::mem::take(&mut self.fresh.processes) {
            let Some(runtime) = self.runtime.get_mut(&id) else { continue };
            let Some(pidfd) = &runtime.pidfd else { continue };
            self.link.store(&process_slot(self.manager.graph().name(id)), pidfd.as_fd())?;
            runtime.process_kept = true;
            failpoint::hit("launch.process-kept");
        }
        Ok(())
    }

    /// The rest of the launches that were made.
    pub(super) fn complete_launches(&mut self) {
        for id in std::mem::take(&mut self.fresh.logs) {
            if let Some(log) = self.runtime.get(&id).and_then(|runtime| runtime.log.as_ref()) {
                log.enlarge();
            }
        }
        for (id, pid) in std::mem::take(&mut self.fresh.services) {
            self.watch_cgroup(id);
            let is_main = self.manager.unit(id).main().is_some_and(|main| main.pid == pid);
            let held = self.namespaces_of(id, pid);
            let start_ticks = self.start_ticks(id, pid);
            if let Some(runtime) = self.runtime.get_mut(&id).filter(|_| is_main && start_ticks != 0) {
                runtime.start_ticks = start_ticks;
                runtime.namespaces.extend(held);
                self.write_record(id);
            }
            failpoint::hit("launch.watched");
        }
    }

    /// The namespaces of a process that was launched just now that take long to be taken down, where they are its own and not held
    /// yet: who waits for its end does not wait for theirs. Whether the pid was still its own is [`Daemon::start_ticks`]'s to say.
    fn namespaces_of(&self, id: Id, pid: u32) -> Vec<OwnedFd> {
        let Some(runtime) = self.runtime.get(&id) else { return vec![] };
        let Some(plan) = runtime.planned.as_ref().map(Planned::plan) else { return vec![] };
        let mounts = plan.has_mount_namespace() && runtime.namespaces.is_empty();
        let of = [("mnt", mounts), ("net", plan.has_network_namespace())];
        let opened = of.into_iter().filter(|(_, is_own)| *is_own).map(|(kind, _)| {
            File::open(format!("/proc/{pid}/ns/{kind}")).inspect_err(|error| {
                tracing::debug!(
                    "{}: namespace {kind} of process {pid}: {error}",
                    self.manager.graph().name(id)
                );
            })
        });
        opened.filter_map(Result::ok).map(|namespace| far_up(namespace.into())).collect()
    }

    /// When a process was started that was launched just now; 0 where it has ended, and its exit is on its way: its pid may
    /// be another's by now.
    fn start_ticks(&self, id: Id, pid: u32) -> u64 {
        let Some(pidfd) = self.runtime.get(&id).and_then(|runtime| runtime.pidfd.as_ref()) else { return 0 };
        let start_ticks = proc::start_ticks(pid);
        let read = start_ticks.and_then(|found| Ok(pidfd_send_signal(pidfd.as_fd(), 0).map(|()| found)?));
        read.unwrap_or_else(|error| {
            tracing::debug!("{}: process {pid}: {error}", self.manager.graph().name(id));
            0
        })
    }
}
