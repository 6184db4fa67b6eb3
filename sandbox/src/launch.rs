//! [`launch`]: one confined child, born into its cgroup, or an error that names the place in the policy.

use std::{
    ffi::CString,
    fmt,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    sys::wait::{Id, WaitPidFlag, waitid},
};

use crate::{
    apply::{self, Context, Outcome},
    cgroup::Cgroup,
    compile::landlock::ruleset,
    credentials::Secret,
    plan::{CredentialPlan, Plan, UserNamespacePlan},
    sys::{clone, raw::PointerArray},
    userns::UserNamespace,
};

/// Whose child the service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// The caller's: it reaps.
    Caller,
    /// The caller's parent's (CLONE_PARENT): initldr reaps, and the caller's death changes nothing.
    CallersParent,
}

/// What to launch.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The compiled policy.
    pub plan: &'a Plan,
    /// The program, absolute, and its arguments.
    pub argv: &'a [String],
    /// Added to the plan's environment; a name given here wins.
    pub environment: &'a [(String, String)],
    /// stdin, stdout, stderr.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Born into this cgroup; `None` stays in the caller's.
    pub cgroup: Option<&'a Cgroup>,
    /// Whose child it is.
    pub parent: Parent,
    /// The kernel writes the pid here before the child's first instruction; in a shared mapping it survives the caller.
    pub pid_cell: Option<&'a AtomicU32>,
}

/// A service that has exec'd.
#[derive(Debug)]
pub struct Launched {
    /// Its pid, as the caller sees it.
    pub pid: u32,
    /// pidfd_open(2): its identity.
    pub pidfd: OwnedFd,
}

/// Which part of a launch failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchFailure {
    /// The sandbox could not be built: nothing was executed.
    Sandbox,
    /// The program is there and cannot be executed.
    NotExecutable,
    /// The program, or the interpreter it names, is not there.
    NotFound,
}

/// A launch that did not take place. Displays as `web-server.toml:14:12: landlock: /srv/www: ENOENT`.
#[derive(Debug, Clone)]
pub struct LaunchError {
    kind: LaunchFailure,
    message: String,
    errno: Errno,
    /// The pid that the child had; 0 where there was none.
    pid: u32,
}

impl LaunchError {
    /// Which part failed.
    #[must_use]
    pub fn kind(&self) -> LaunchFailure {
        self.kind
    }

    /// What the kernel said.
    #[must_use]
    pub fn errno(&self) -> Errno {
        self.errno
    }

    /// The pid of the child that ended before exec, whose exit its parent sees; 0 where clone3 itself failed.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    fn parent_side(what: &str, errno: Errno) -> Self {
        Self { kind: LaunchFailure::Sandbox, message: what.to_owned(), errno, pid: 0 }
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.message, self.errno)
    }
}

impl std::error::Error for LaunchError {}

/// Launches a service; returns once it has exec'd.
///
/// # Errors
/// Nothing runs then: the child ended at the step that failed, and for [`Parent::Caller`] it is reaped.
pub fn launch(request: &Launch<'_>) -> Result<Launched, LaunchError> {
    launch_with(request, Fault::default())
}

/// In tests a step that shall fail, and how; outside tests nothing can be asked.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fault {
    #[cfg(test)]
    pub(crate) at: Option<(u32, Errno)>,
}

pub(crate) fn launch_with(request: &Launch<'_>, fault: Fault) -> Result<Launched, LaunchError> {
    let plan = request.plan;
    let argv = pointer_array("argument", request.argv.iter().cloned())?;
    let envp = pointer_array("environment", environment(plan, request.environment))?;
    let ruleset = match &plan.landlock {
        Some(landlock) => Some(ruleset(landlock).map_err(|error| {
            let errno = Errno::last();
            LaunchError::parent_side(&format!("landlock: {error}"), errno)
        })?),
        None => None,
    };
    let stdio = stdio_above_two(request.stdio)?;
    let namespaces = plan.user_namespace.as_ref().map(|wanted| user_namespace(plan, wanted)).transpose()?;
    let id_maps: Result<Vec<_>, _> = plan.id_maps.iter().map(|wanted| user_namespace(plan, wanted)).collect();
    let id_maps = id_maps?;
    let credentials: Result<Vec<_>, _> = plan.credentials.iter().map(|wanted| secret(plan, wanted)).collect();
    let credentials = credentials?;
    let outcome = Outcome::new();
    let own_cell = AtomicU32::new(0);
    let pid_cell = request.pid_cell.unwrap_or(&own_cell);
    let context = Context {
        steps: &plan.steps,
        stdio: [stdio[0].as_raw_fd(), stdio[1].as_raw_fd(), stdio[2].as_raw_fd()],
        ruleset: ruleset.as_ref().map(AsRawFd::as_raw_fd),
        credentials: &credentials,
        namespaces: namespaces.as_ref(),
        id_maps: &id_maps,
        argv: &argv,
        envp: &envp,
        outcome: &outcome,
        #[cfg(test)]
        fault: fault.at,
    };
    #[cfg(not(test))]
    let Fault {} = fault;
    let clone = clone::Request {
        namespaces: plan.namespaces,
        cgroup: request.cgroup.map(|cgroup| cgroup.directory().as_raw_fd()),
        callers_parent: request.parent == Parent::CallersParent,
        pid_cell,
    };
    let pidfd = clone::vfork_into(&clone, &context, |context| apply::run(context))
        .map_err(|errno| LaunchError::parent_side("clone3", errno))?;
    let pid = pid_cell.load(Ordering::Acquire);
    match outcome.failure() {
        None => Ok(Launched { pid, pidfd }),
        Some((step, errno)) => {
            if request.parent == Parent::Caller {
                reap(&pidfd);
            }
            Err(explain(plan, request.argv, step, errno, pid))
        }
    }
}

/// Reads a credential; where that fails the error names the place in the policy.
fn secret(plan: &Plan, wanted: &CredentialPlan) -> Result<Option<Secret>, LaunchError> {
    Secret::read(wanted).map_err(|errno| {
        let place = plan.sources.locate(&wanted.at);
        LaunchError::parent_side(&format!("{place}: credential {}: {}", wanted.name, wanted.file), errno)
    })
}

/// Makes a user namespace; where that fails the error names the place in the policy.
fn user_namespace(plan: &Plan, wanted: &UserNamespacePlan) -> Result<UserNamespace, LaunchError> {
    UserNamespace::make(wanted).map_err(|(what, errno)| {
        LaunchError::parent_side(&format!("{}: {what}", plan.sources.locate(&wanted.at)), errno)
    })
}

/// The child is gone already (its exit is what made clone3 return); this takes its status away.
fn reap(pidfd: &OwnedFd) {
    use std::os::fd::AsFd;
    if let Err(errno) = waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED) {
        tracing::warn!(?errno, "waitid of a child that never exec'd");
    }
}

/// The step's place, name and object in front of what the kernel said.
fn explain(plan: &Plan, argv: &[String], step: u32, errno: Errno, pid: u32) -> LaunchError {
    let program = argv.first().map_or("", String::as_str);
    let step = usize::try_from(step).ok().and_then(|step| plan.steps.get(step));
    let (kind, message) = match step {
        Some(step) => {
            let place =
                step.at.as_ref().map(|at| format!("{}: ", plan.sources.locate(at))).unwrap_or_default();
            let object = if step.object.is_empty() { String::new() } else { format!(": {}", step.object) };
            (LaunchFailure::Sandbox, format!("{place}{}{object}", step.op.name()))
        }
        None if errno == Errno::ENOENT => (LaunchFailure::NotFound, format!("execve {program}")),
        None => (LaunchFailure::NotExecutable, format!("execve {program}")),
    };
    LaunchError { kind, message, errno, pid }
}

fn environment(plan: &Plan, added: &[(String, String)]) -> Vec<String> {
    let kept = plan.environment.iter().filter(|(name, _)| !added.iter().any(|(other, _)| other == name));
    kept.chain(added).map(|(name, value)| format!("{name}={value}")).collect()
}

fn pointer_array(what: &str, strings: impl IntoIterator<Item = String>) -> Result<PointerArray, LaunchError> {
    let strings: Result<Vec<CString>, _> = strings.into_iter().map(CString::new).collect();
    strings
        .map(PointerArray::new)
        .map_err(|_| LaunchError::parent_side(&format!("{what} with a NUL byte"), Errno::EINVAL))
}

/// Copies that cannot be overwritten while 0, 1 and 2 are put into place.
fn stdio_above_two(stdio: [BorrowedFd<'_>; 3]) -> Result<[OwnedFd; 3], LaunchError> {
    let copy = |fd: BorrowedFd<'_>| -> Result<OwnedFd, LaunchError> {
        let lowest = 3;
        let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(lowest))
            .map_err(|errno| LaunchError::parent_side("fcntl F_DUPFD_CLOEXEC", errno))?;
        Ok(crate::sys::adopt(number))
    };
    Ok([copy(stdio[0])?, copy(stdio[1])?, copy(stdio[2])?])
}
