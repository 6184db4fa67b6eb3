//! The commands around a service's program: launched into its sandbox and its cgroup, their exits sent on.
//!
//! `start.pre` and `stop.post` run while there is no program: each gets a sandbox of its own by the same policy.
//! `start.post`, `stop.exec` and `reload.exec` run beside it, in its namespaces: they see its files, its network and its
//! processes, confined by the same rules.
//!
//! Invariant: like a main process a command is born with its pid in the service's record, so a motherd that ends while
//! one runs leaves nothing that its successor does not find. `reload.exec` alone is not recorded: it decides nothing, and
//! whoever asked for it is gone with the motherd that was asked.

use std::{fs::File, os::fd::AsFd};

use sandbox::{
    beside::launch_beside,
    launch::{Handed, Launch, LaunchFailure, Launched, Parent, launch},
};

use super::{Daemon, Fatal, ahead::Taken, now, proc, spawn::Refusal};
use crate::{
    graph::Id,
    service::Program,
    supervise::{Event, Exit, ExitHow, Hook, State, Unit},
    sys::process::pidfd_send_signal,
};

/// A command, ready to be launched.
pub(super) struct Wanted<'a> {
    /// The program and its arguments.
    pub(super) argv: &'a [String],
    /// In the namespaces of the main process, or in new ones.
    pub(super) beside: bool,
    /// Nothing of the service runs before it.
    pub(super) first: bool,
    /// Its pid goes into the record of the service.
    pub(super) recorded: bool,
}

impl Daemon {
    /// Runs a command of the service's state, and answers with the event that says how that went.
    pub(super) fn run_command(&mut self, id: Id, hook: Hook, index: u16) -> Result<Vec<(Id, Event)>, Fatal> {
        let service = self.manager.graph().service(id);
        let name = service.name().to_owned();
        let Some(program) = service.shared_program() else { return Ok(vec![]) };
        let commands = &program.commands;
        let (list, beside) = match hook {
            Hook::Pre => (&commands.pre, false),
            Hook::Post => (&commands.post, true),
            Hook::Stop => (&commands.stop, true),
            Hook::StopPost => (&commands.stop_post, false),
        };
        let Some(argv) = list.get(usize::from(index)) else { return Ok(vec![]) };
        let wanted = Wanted { argv: &argv.value, beside, first: !beside && index == 0, recorded: true };
        let launched = match self.prepare(id, &name, &program)? {
            Ok(()) => self.launch_command(id, &name, &program, &wanted),
            Err(refusal) => Err(refusal),
        };
        let event = match launched {
            Ok(Launched { pid, pidfd, .. }) => {
                self.runtime.entry(id).or_default().command = Some(pidfd);
                self.watch_cgroup(id);
                Event::CommandLaunched { pid }
            }
            Err(Refusal { why, permanent }) => {
                tracing::error!("{name}: {}[{index}]: {why}", hook.name());
                Event::CommandFailed { why, permanent }
            }
        };
        Ok(vec![(id, event)])
    }

    /// Launches a command of a service, whoever wants it.
    pub(super) fn launch_command(
        &mut self,
        id: Id,
        name: &str,
        program: &Program,
        wanted: &Wanted<'_>,
    ) -> Result<Launched, Refusal> {
        // What runs beside the main process is confined as that is.
        let in_force = if wanted.beside { self.plan_in_force(id) } else { None };
        let plan = match in_force {
            Some(plan) => plan,
            None => self.plan(id, name, program)?,
        };
        let environment = self.command_environment(id);
        let network =
            if wanted.beside { None } else { self.network(plan.network_of()).map_err(Refusal::passing)? };
        self.open_cgroup(id, name, program, &plan, wanted.first)?;
        let runtime = self.runtime.entry(id).or_default();
        let null = File::open("/dev/null").map_err(|error| Refusal::io("open /dev/null", &error))?;
        let Some(log) = &runtime.log else { return Err(Refusal::permanent("no log pipe")) };
        let pid_cell = self.table.command_cell(name).filter(|_| wanted.recorded);
        let ready = if wanted.beside { Taken::default() } else { self.stock.take(&plan, now()) };
        let request = Launch {
            plan: &plan,
            argv: wanted.argv,
            others: &[],
            environment: &environment,
            stdio: [null.as_fd(), log.writer(), log.writer()],
            handed: Handed::default(),
            cgroup: runtime.own_cgroup(),
            network: network.as_ref().map(AsFd::as_fd),
            ahead: ready.ahead(),
            parent: Parent::CallersParent,
            pid_cell,
            timings: None,
        };
        let launched = if wanted.beside {
            let Some(main) = &runtime.pidfd else {
                return Err(Refusal::permanent("its main process has ended already"));
            };
            launch_beside(main.as_fd(), &request)
        } else {
            launch(&request)
        };
        launched.map_err(|error| match error.kind() {
            LaunchFailure::Sandbox => Refusal::by(Some(error.errno()), error.to_string()),
            LaunchFailure::NotExecutable | LaunchFailure::NotFound => Refusal::permanent(error.to_string()),
        })
    }

    /// What a command is told of its service: `MAINPID`, as it sees it, while there is one; how that ended, once it has.
    fn command_environment(&self, id: Id) -> Vec<(String, String)> {
        let unit = self.manager.unit(id);
        let program = self.manager.graph().service(id).program();
        let mut environment = program.map(|program| program.environment.clone()).unwrap_or_default();
        let mut set = |name: &str, value: String| environment.push((name.to_owned(), value));
        if let Some(main) = unit.main() {
            set("MAINPID", proc::innermost_pid(main.pid).unwrap_or(main.pid).to_string());
        } else if let Some(Exit { how, status, .. }) = unit.last_exit {
            let (code, status) = match how {
                ExitHow::Exited => ("exited", status.to_string()),
                ExitHow::Killed => ("killed", crate::service::signal_name(status)),
                ExitHow::Dumped => ("dumped", crate::service::signal_name(status)),
                ExitHow::OutOfMemory { .. } => ("oom", crate::service::signal_name(status)),
            };
            set("EXIT_CODE", code.to_owned());
            set("EXIT_STATUS", status);
        }
        if let Some(readiness) = self.runtime.get(&id).and_then(|runtime| runtime.readiness.as_ref()) {
            set("NOTIFY_SOCKET", readiness.path().display().to_string());
        }
        environment
    }

    /// SIGKILL to a command that had its time.
    pub(super) fn kill_command(&mut self, id: Id, pid: u32) {
        let name = self.manager.graph().name(id);
        let Some(pidfd) = self.runtime.get(&id).and_then(|runtime| runtime.command.as_ref()) else { return };
        if proc::pid_of(pidfd.as_fd()) != Some(pid) {
            return;
        }
        if let Err(errno) = pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL)
            && errno != nix::errno::Errno::ESRCH
        {
            tracing::error!("{name}: SIGKILL to {pid}: {errno}");
        }
    }

    /// Whether a command of this pid is at work for a service, and for which.
    pub(super) fn command_of(&self, pid: u32, exit: &Exit) -> Option<Id> {
        self.manager.graph().ids().find(|id| {
            let process = self.manager.unit(*id).command().and_then(|command| command.process);
            process.is_some_and(|process| process.pid == pid && process.launched <= exit.at)
        })
    }

    /// Before a command or a program is launched, nothing is known of its process: it is forgotten as soon as a record
    /// says what became of the one before. Not while it is being launched: then the kernel may have written the pid, and
    /// there is no other record of it.
    pub(super) fn clear_cells(&self, name: &str, unit: &Unit) {
        let clear = |cell: Option<&std::sync::atomic::AtomicU32>| {
            if let Some(cell) = cell {
                cell.store(0, std::sync::atomic::Ordering::Relaxed);
            }
        };
        if unit.main().is_none() && unit.state != State::Launching {
            clear(self.table.cell(name));
        }
        if unit.command().is_none_or(|command| command.process.is_some()) {
            clear(self.table.command_cell(name));
        }
    }
}
