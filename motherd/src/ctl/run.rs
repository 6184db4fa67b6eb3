//! `motherctl run`: one command under a policy, without any daemon.
//!
//! The command is this process's child in a cgroup of its own, `run.slice/run-PID.service`. Until it has ended, TERM,
//! INT, HUP and QUIT are not this process's but the command's; then the cgroup is emptied and removed. The exit status
//! is the command's, 128 and the signal's number if a signal ended it; 125, 126 and 127 say that it never ran.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    env, fs, io,
    mem::ManuallyDrop,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CpuSet, sched_getaffinity},
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::{Pid, geteuid},
};
use sandbox::{
    Plan, Trigger,
    attest::{self, attest},
    cgroup::{self, Cgroup},
    compile::{Subject, compile},
    kernel::Kernel,
    launch::{Ahead, Launch, LaunchFailure, Launched, launch},
    netpool::PooledNetwork,
    ordinary::OrdinaryUser,
    policy::{Policy, PressureAction, Rules, Store, seems_to_want_network},
    template::TemplateMeanwhile,
};

use super::{args::Global, failure::Failure, output::complain, policy, render::by_reason};
use crate::{control::protocol::LeftOut, sys::process::is_ignored};

/// The sandbox could not be built.
pub(super) const NO_SANDBOX: u8 = 125;
/// The command is there and cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// There is no such command.
pub(super) const NOT_FOUND: u8 = 127;
/// Added to a signal's number.
pub(super) const SIGNALED: u8 = 128;

/// Where commands are looked for if the policy's environment has no PATH: what execvp(3) would do, and sbin.
pub(super) const DEFAULT_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// What is passed on.
const FORWARDED: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// How long what the command left behind may take to die of SIGKILL; in an uninterruptible sleep it may take longer.
const LEFTOVERS: Duration = Duration::from_secs(5);

/// Runs `command` under the policy that `name` names.
pub(super) fn run(global: &Global, name: &str, command: &[String]) -> Result<u8, Failure> {
    let store = Store::new(global.policies());
    // Before a network is begun: while it is made, whoever looks into /sys waits for it.
    let kernel = Kernel::probe(None).map_err(|error| no_sandbox(&error))?;
    let others_are_idle = others_are_idle();
    let mut network = None;
    let policy = policy::load(name, &store, |text| {
        network = (others_are_idle && seems_to_want_network(text)).then(begun_network).flatten();
    });
    let policy = policy.map_err(|report| Failure::report(NO_SANDBOX, &report))?;
    // Like what is made of it, it is left to the end of the process, which the caller waits for.
    let policy = ManuallyDrop::new(policy);
    // From here on: a signal must not end us before the cgroup is gone, nor be lost between launch and wait.
    let signals = Forwarded::take().map_err(|errno| no_sandbox(&errno))?;
    let network = match policy.wants_network() {
        true => network.or_else(|| others_are_idle.then(begun_network).flatten()),
        false => None,
    };
    run_on(&policy, name, kernel, command, &signals, network)
}

fn run_on(
    policy: &Policy,
    name: &str,
    kernel: Kernel,
    command: &[String],
    signals: &Forwarded,
    network: Option<PooledNetwork>,
) -> Result<u8, Failure> {
    let ordinary = OrdinaryUser::calling();
    let kernel = match ordinary {
        Some(user) => kernel.for_ordinary_user(user),
        None => kernel,
    };
    let kernel = ManuallyDrop::new(kernel);
    let own_name = format!("run-{}", std::process::id());
    let subject = Subject { name: own_name.clone(), root: PathBuf::from("/"), sockets: vec![] };
    let plan = compile(policy, &subject, &kernel).map_err(|report| Failure::report(NO_SANDBOX, &report))?;
    let plan = ManuallyDrop::new(plan);
    if let Some(line) = left_out_line(&policy::left_out(&plan)) {
        complain(&format!("motherctl: {line}\n"));
    }
    if let Some(owner) = plan.network_of() {
        let message =
            format!("{name} joins the network of the service {owner}, which motherd alone can enter it into");
        return Err(Failure::say(NO_SANDBOX, message)
            .advise("run it as a service, or under a policy that extends this one with net = \"private\""));
    }
    // Nothing of an unconfined policy takes more than a user has.
    let confined = matches!(policy.rules(), Rules::Confined(_));
    if let Some(user) = ordinary.filter(|_| confined) {
        user.enter_own_namespace().map_err(|error| Failure::new(NO_SANDBOX, &error))?;
    }
    let meanwhile = RefCell::new(others_are_idle().then(|| template(&plan)).flatten());
    // A host without any cgroup2 tree: a policy that needs one was refused just now.
    let cgroup = match &kernel.cgroup_base {
        Some(base) => Some(own_cgroup(base, &own_name, &plan)?),
        None => None,
    };
    let mut triggers = match &cgroup {
        Some(cgroup) => Triggers::arm(cgroup, &plan).map_err(|error| no_sandbox(&error))?,
        None => Triggers::default(),
    };
    let network = RefCell::new(network);
    let ahead = Ahead { network: Some(&network), meanwhile: Some(&meanwhile), ..Ahead::default() };
    let status = launch_first(&plan, command, cgroup.as_ref(), ahead)
        .and_then(|launched| signals.wait(&launched, cgroup.as_ref(), &mut triggers));
    // They are to be closed before the cgroup goes.
    drop(triggers);
    if let Some(Err(error)) = cgroup.map(|cgroup| clear(&cgroup)) {
        complain(&format!("motherctl: {error}\n"));
    }
    status
}

/// A network namespace, which takes the kernel as long as all the rest of a sandbox, made on another processor while the
/// policy is read and compiled and the cgroup is made. Without one the launch makes its own.
fn begun_network() -> Option<PooledNetwork> {
    PooledNetwork::begin().inspect_err(|error| tracing::debug!("{error}")).ok()
}

/// Those of its mounts that another launch could have too, built on another processor while the cgroup is made and its programs are
/// loaded. Without them the launch builds everything.
fn template(plan: &Plan) -> Option<TemplateMeanwhile> {
    TemplateMeanwhile::begin(plan).inspect_err(|error| tracing::debug!("{error}")).ok().flatten()
}

/// Whether another processor may do something meanwhile. An ordinary user has to be in a namespace of its own first.
fn others_are_idle() -> bool {
    let processors = || {
        sched_getaffinity(Pid::from_raw(0))
            .map(|set| (0..CpuSet::count()).filter(|number| set.is_set(*number) == Ok(true)).count())
    };
    geteuid().is_root() && processors().is_ok_and(|count| count > 1)
}

fn own_cgroup(base: &Path, name: &str, plan: &Plan) -> Result<Cgroup, Failure> {
    Cgroup::create(base, &format!("run.slice/{name}.service"), plan).map_err(|error| no_sandbox(&error))
}

/// Launches the first of the programs that a command without a slash may mean: whether one is there is asked where it
/// counts, in the sandbox, by executing it.
fn launch_first(
    plan: &Arc<Plan>,
    command: &[String],
    cgroup: Option<&Cgroup>,
    ahead: Ahead<'_>,
) -> Result<Launched, Failure> {
    let directory = || env::current_dir();
    let programs = candidates(&command[0], path(plan), directory)
        .map_err(|error| Failure::say(NOT_FOUND, format!("working directory: {error}")))?;
    let not_found = || {
        let message = "there is no such command, or not its interpreter, in the sandbox";
        Failure::say(NOT_FOUND, format!("{}: {message}", command[0]))
    };
    let (first, others) = programs.split_first().ok_or_else(not_found)?;
    let mut argv = command.to_vec();
    argv[0].clone_from(first);
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let stdio = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    launch(&Launch { others, cgroup, ahead, ..Launch::new(plan, &argv, stdio) }).map_err(|error| match error
        .kind()
    {
        LaunchFailure::Sandbox => no_sandbox(&error),
        LaunchFailure::NotExecutable => Failure::new(NOT_EXECUTABLE, &error),
        LaunchFailure::NotFound => not_found(),
    })
}

fn path(plan: &Plan) -> &str {
    let path = plan.environment().iter().find(|(name, _)| name == "PATH");
    path.map_or(DEFAULT_PATH, |(_, value)| value)
}

/// The absolute paths that a command may mean. A relative one with a slash is the caller's, as in a shell.
pub(super) fn candidates(
    command: &str,
    path: &str,
    directory: impl FnOnce() -> io::Result<PathBuf>,
) -> io::Result<Vec<String>> {
    if command.starts_with('/') {
        return Ok(vec![command.to_owned()]);
    }
    if command.contains('/') {
        return Ok(vec![directory()?.join(command).to_string_lossy().into_owned()]);
    }
    // A relative folder in PATH would be relative to nobody knows what.
    let folders = path.split(':').filter(|folder| folder.starts_with('/'));
    Ok(folders.map(|folder| format!("{}/{command}", folder.trim_end_matches('/'))).collect())
}

/// The signals that are passed on, blocked and readable.
struct Forwarded {
    signals: SignalFd,
}

impl Forwarded {
    /// Those that this process ignores (under nohup(1), say) stay ignored.
    fn take() -> Result<Self, Errno> {
        let mut set = SigSet::empty();
        for signal in FORWARDED {
            if !is_ignored(signal as i32)? {
                set.add(signal);
            }
        }
        set.thread_block()?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { signals })
    }

    /// Waits for the end of the command and passes signals on until then.
    fn wait(
        &self,
        launched: &Launched,
        cgroup: Option<&Cgroup>,
        triggers: &mut Triggers,
    ) -> Result<u8, Failure> {
        let failed = |errno: Errno| Failure::say(1, format!("wait for the command: {errno}"));
        let mut ended_for = None;
        loop {
            let mut fds = vec![
                PollFd::new(launched.pidfd.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            fds.extend(triggers.descriptors.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLPRI)));
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
            if fds[0].any().unwrap_or(true) {
                let end = waitid(Id::PIDFd(launched.pidfd.as_fd()), WaitPidFlag::WEXITED).map_err(failed)?;
                return Ok(exit_status(end, ended_for));
            }
            let fired: Vec<usize> = fds[2..]
                .iter()
                .enumerate()
                .filter(|(_, fd)| fd.any() == Some(true))
                .map(|(at, _)| at)
                .collect();
            for number in fired {
                triggers.fired(number, cgroup)?;
            }
            while let Some(information) = self.signals.read_signal().map_err(failed)? {
                let number = information.ssi_signo.cast_signed();
                if forward(number, launched, cgroup)? {
                    ended_for = Some(number);
                }
            }
        }
    }
}

/// The triggers of `cgroup.pressure`, armed on the command's cgroup.
#[derive(Default)]
struct Triggers {
    triggers: Vec<Trigger>,
    descriptors: Vec<OwnedFd>,
    /// Those that were told of already.
    told: BTreeSet<usize>,
}

impl Triggers {
    fn arm(cgroup: &Cgroup, plan: &Plan) -> Result<Self, cgroup::CgroupError> {
        let triggers = plan.triggers().to_vec();
        let descriptors = triggers.iter().map(|trigger| cgroup.arm(trigger)).collect::<Result<_, _>>()?;
        Ok(Self { triggers, descriptors, told: BTreeSet::new() })
    }

    /// It is told once; and where more is to be done, everything in the cgroup is killed, since nobody here could start the
    /// command again.
    fn fired(&mut self, number: usize, cgroup: Option<&Cgroup>) -> Result<(), Failure> {
        let Some((entry, cgroup)) = self.triggers.get(number).map(Trigger::entry).zip(cgroup) else {
            return Ok(());
        };
        let kills = entry.action != PressureAction::Report;
        if self.told.insert(number) {
            let then = if kills { ": killed" } else { "" };
            complain(&format!("motherctl: pressure: {entry}{then}\n"));
        }
        if kills { cgroup.kill().map_err(|error| Failure::new(1, &error)) } else { Ok(()) }
    }
}

/// Passes a signal on; true if it was SIGKILL in its place.
///
/// The init of a PID namespace does not get a signal that it has not asked for (pid_namespaces(7)), so that Ctrl-C
/// would do nothing to `sleep`. The default action of these signals is to end the process: that is done then.
fn forward(number: i32, launched: &Launched, cgroup: Option<&Cgroup>) -> Result<bool, Failure> {
    let pid = Pid::from_raw(launched.pid.cast_signed());
    let deaf = attest(launched.pid).is_ok_and(|found| is_deaf(&found, number));
    // The child is not reaped before it is waited for, so that its number is still its own.
    let sent = match (deaf, cgroup) {
        (true, Some(cgroup)) => return cgroup.kill().map(|()| true).map_err(|error| Failure::new(1, &error)),
        (true, None) => kill(pid, Signal::SIGKILL),
        (false, _) => Signal::try_from(number).and_then(|signal| kill(pid, signal)),
    };
    match sent {
        Ok(()) => Ok(deaf),
        Err(errno) => Err(Failure::say(1, format!("pass signal {number} on: {errno}"))),
    }
}

fn is_deaf(found: &attest::Attested, signal: i32) -> bool {
    let init = found.namespaces.iter().any(|namespace| namespace.kind == "pid" && namespace.private);
    init && found.status.takes_default_action(signal)
}

/// What the command's end is to the caller's shell. `ended_for` is the signal that SIGKILL stood for.
fn exit_status(end: WaitStatus, ended_for: Option<i32>) -> u8 {
    let signaled =
        |signal: i32| u8::try_from(signal).map_or(u8::MAX, |signal| SIGNALED.saturating_add(signal));
    match (end, ended_for) {
        // The kernel keeps the low eight bits of exit(2) alone.
        (WaitStatus::Exited(_, status), _) => u8::try_from(status & 0xff).unwrap_or(u8::MAX),
        (WaitStatus::Signaled(_, Signal::SIGKILL, _), Some(signal)) => signaled(signal),
        (WaitStatus::Signaled(_, signal, _), _) => signaled(signal as i32),
        // Only WEXITED was asked for.
        (other, _) => unreachable!("waitid(WEXITED) told of {other:?}"),
    }
}

/// Ends what the command left behind and removes its cgroup.
fn clear(cgroup: &Cgroup) -> Result<(), cgroup::CgroupError> {
    // Most leave nothing behind.
    if cgroup.remove().is_ok() {
        return Ok(());
    }
    if cgroup.populated()? {
        let events = cgroup.events_fd()?;
        cgroup.kill()?;
        let until = Instant::now() + LEFTOVERS;
        while cgroup.populated()? && Instant::now() < until {
            let left = PollTimeout::try_from(until - Instant::now()).unwrap_or(PollTimeout::ZERO);
            let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
            if poll(&mut fds, left).is_err_and(|errno| errno != Errno::EINTR) {
                break;
            }
        }
    }
    // If something lives on, this says so: EBUSY.
    cgroup.remove()
}

/// What is not enforced, on one line: what has one reason stands together.
fn left_out_line(left: &[LeftOut]) -> Option<String> {
    let reasons = by_reason(left);
    if reasons.is_empty() { None } else { Some(format!("left out on this machine: {}", reasons.join("; "))) }
}

/// Some of what a policy can ask takes the host's root, which is said to who is not and was refused something.
fn no_sandbox(error: &(dyn std::error::Error + 'static)) -> Failure {
    let failure = Failure::new(NO_SANDBOX, error);
    let refused = ["EPERM", "EACCES", "ermission"].iter().any(|word| failure.to_string().contains(word));
    if refused && !is_root_of_the_host() {
        return failure.advise("this was tried with an ordinary user's rights: as root it may succeed");
    }
    failure
}

/// In a user namespace of one's own one is root as well, of nothing.
fn is_root_of_the_host() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    nix::unistd::geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_looked_for_as_a_shell_does() {
        let check = |command: &str, expected: &[&str]| {
            let found = candidates(command, "/usr/bin:bin::/opt/x/", || Ok("/home/me".into())).unwrap();
            assert_eq!(found, expected, "{command}");
        };
        check("/bin/ls", &["/bin/ls"]);
        check("./ls", &["/home/me/./ls"]);
        check("tools/ls", &["/home/me/tools/ls"]);
        check("ls", &["/usr/bin/ls", "/opt/x/ls"]);
    }

    #[test]
    fn the_exit_status_is_the_commands() {
        let check = |end, ended_for, expected| assert_eq!(exit_status(end, ended_for), expected);
        let pid = Pid::from_raw(1);
        check(WaitStatus::Exited(pid, 0), None, 0);
        check(WaitStatus::Exited(pid, 125), None, 125);
        check(WaitStatus::Signaled(pid, Signal::SIGSYS, false), None, 159);
        check(WaitStatus::Signaled(pid, Signal::SIGKILL, false), None, 137);
        check(WaitStatus::Signaled(pid, Signal::SIGKILL, false), Some(2), 130);
        check(WaitStatus::Exited(pid, 3), Some(2), 3);
    }

    #[test]
    fn what_is_left_out_is_one_line_with_each_reason_once() {
        let left = |what: &str, why: &str| LeftOut { what: what.into(), why: why.into() };
        assert_eq!(left_out_line(&[]), None);
        let line = left_out_line(&[
            left("cgroup memory.high", "no memory controller"),
            left("cgroup pids.max", "no pids controller"),
            left("cgroup memory.max", "no memory controller"),
        ]);
        let expected = "left out on this machine: cgroup memory.high, cgroup memory.max (no memory controller); \
                        cgroup pids.max (no pids controller)";
        assert_eq!(line.as_deref(), Some(expected));
    }
}
