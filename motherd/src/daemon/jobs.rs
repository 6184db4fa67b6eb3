//! Commands that run beside a service and decide nothing about its state: `reload.exec`, and the checks that are commands.
//!
//! They are not in the service's record. A motherd that ends while one runs leaves it to end by itself, in the service's
//! cgroup, where the end of the service is its end as well.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use nix::errno::Errno;
use sandbox::launch::Launched;

use super::{Daemon, Fatal, commands::Wanted, now, spawn::Refusal};
use crate::{
    control::{
        protocol::{Failure, Reply, RequestError},
        server::Token,
    },
    graph::Id,
    service::START_TIMEOUT,
    supervise::Exit,
    sys::process::pidfd_send_signal,
};

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A command of `reload.exec`, by its place in the list, for the request with this token.
    Reload { token: u64, index: usize },
    /// A health check that is a command, by its place in the file.
    Health { place: usize },
}

#[derive(Debug)]
struct Job {
    id: Id,
    purpose: Purpose,
    pid: u32,
    pidfd: OwnedFd,
    began: Duration,
    deadline: Duration,
}

/// A request to reload that waits for commands.
#[derive(Debug)]
struct Reload {
    asked: Vec<Id>,
    left: BTreeSet<Id>,
    failures: Vec<Failure>,
}

/// Everything that runs beside a service just now.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    running: Vec<Job>,
    reloads: BTreeMap<u64, Reload>,
}

impl Jobs {
    /// Whether anything runs beside this service, or somebody waits for what did.
    pub(super) fn is_about(&self, id: Id) -> bool {
        let reloads = self.reloads.values().any(|reload| reload.asked.contains(&id));
        reloads || self.running.iter().any(|job| job.id == id)
    }

    /// When the time of the next one is over.
    pub(super) fn next(&self) -> Option<Duration> {
        self.running.iter().map(|job| job.deadline).min()
    }
}

impl Daemon {
    /// Reloads `commanded` by their commands; whoever asked is answered about all of `asked` when these have ended.
    pub(super) fn reload_by_command(
        &mut self,
        token: u64,
        asked: Vec<Id>,
        commanded: &[Id],
    ) -> Result<(), Fatal> {
        let left = commanded.iter().copied().collect();
        self.jobs.reloads.insert(token, Reload { asked, left, failures: Vec::new() });
        for id in commanded {
            self.run_reload(*id, token, 0)?;
        }
        Ok(())
    }

    fn run_reload(&mut self, id: Id, token: u64, index: usize) -> Result<(), Fatal> {
        let service = self.manager.graph().service(id);
        let Some(program) = service.program() else { return Ok(()) };
        let time = program.start_timeout.unwrap_or(START_TIMEOUT);
        let Some(command) = program.commands.reload.get(index).map(|command| command.value.clone()) else {
            return self.reloaded(id, token, None);
        };
        match self.start_job(id, Purpose::Reload { token, index }, &command, time)? {
            Ok(()) => Ok(()),
            Err(why) => self.reloaded(id, token, Some(format!("reload.exec[{index}]: {why}"))),
        }
    }

    /// One service of a request is done.
    fn reloaded(&mut self, id: Id, token: u64, why: Option<String>) -> Result<(), Fatal> {
        let service = self.manager.graph().name(id).to_owned();
        let Some(reload) = self.jobs.reloads.get_mut(&token) else { return Ok(()) };
        reload.left.remove(&id);
        if let Some(why) = why {
            tracing::error!("{service}: {why}");
            reload.failures.push(Failure { service, why });
        } else {
            tracing::info!("{service}: reloaded");
        }
        if !reload.left.is_empty() {
            return Ok(());
        }
        let Some(Reload { asked, failures, .. }) = self.jobs.reloads.remove(&token) else { return Ok(()) };
        let failed =
            |id: &Id| failures.iter().any(|failure| failure.service == self.manager.graph().name(*id));
        let done: Vec<Id> = asked.iter().copied().filter(|id| !failed(id)).collect();
        let mut reply = self.now_acted(&done);
        if let (false, Reply::Acted(done)) = (failures.is_empty(), &mut reply) {
            let done = std::mem::take(done);
            reply = Reply::Error(RequestError::Failed { failures, done });
        }
        self.server.reply(Token::from_u64(token), &reply, now());
        Ok(())
    }

    /// Launches a command beside a service. `Err` within: it does not run, and this is why.
    pub(super) fn start_job(
        &mut self,
        id: Id,
        purpose: Purpose,
        argv: &[String],
        time: Duration,
    ) -> Result<Result<(), String>, Fatal> {
        let service = self.manager.graph().service(id);
        let name = service.name().to_owned();
        let Some(program) = service.shared_program() else { return Ok(Ok(())) };
        let began = now();
        let wanted = Wanted { argv, beside: true, first: false, recorded: false };
        let launched = match self.prepare_log(id, &name, &program)? {
            Ok(()) => self.launch_command(id, &name, &program, &wanted),
            Err(refusal) => Err(refusal),
        };
        Ok(match launched {
            Ok(Launched { pid, pidfd, .. }) => {
                let deadline = began.saturating_add(time);
                self.jobs.running.push(Job { id, purpose, pid, pidfd, began, deadline });
                Ok(())
            }
            Err(Refusal { why, .. }) => Err(why),
        })
    }

    /// A process was reaped that is neither a main process nor a command of a state.
    pub(super) fn job_exited(&mut self, pid: u32, exit: &Exit) -> Result<(), Fatal> {
        let known = |job: &Job| job.pid == pid && job.began <= exit.at;
        let Some(place) = self.jobs.running.iter().position(known) else { return Ok(()) };
        let Job { id, purpose, .. } = self.jobs.running.swap_remove(place);
        let why = (!exit.is_success()).then(|| exit.to_string());
        self.job_done(id, purpose, why)
    }

    /// Those whose time is over are killed, and have failed.
    pub(super) fn end_jobs(&mut self, now: Duration) -> Result<(), Fatal> {
        while let Some(place) = self.jobs.running.iter().position(|job| job.deadline <= now) {
            let Job { id, purpose, pid, pidfd, began, deadline } = self.jobs.running.swap_remove(place);
            match pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => tracing::error!("SIGKILL to {pid}: {errno}"),
            }
            let time = deadline.saturating_sub(began).as_secs_f64();
            self.job_done(id, purpose, Some(format!("not ended within {time} s")))?;
        }
        Ok(())
    }

    fn job_done(&mut self, id: Id, purpose: Purpose, why: Option<String>) -> Result<(), Fatal> {
        match purpose {
            Purpose::Reload { token, index } => match why {
                None => self.run_reload(id, token, index + 1),
                Some(why) => self.reloaded(id, token, Some(format!("reload.exec[{index}]: {why}"))),
            },
            Purpose::Health { place } => self.checked(id, place, why.map_or(Ok(()), Err)),
        }
    }
}
